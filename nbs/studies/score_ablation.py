"""score: what each ingredient is worth. All networks at q = 0.7, the same clips, steps and learning rate.

  blind       the chapter's: no noise level, σ = σ_max u² in training, no constants
  told        the noise level is one more frame of the input (all its pixels are σ: the network stays homogeneous);
              its sampler takes σ from its own reckoning, (1 - γ h) a look, instead of reading the residual
  uniform     σ uniform up to σ_max in training
  log         log σ uniform from σ_max / 500 to σ_max
  biases      convolutions with biases, batch norm with its mean and its shift
  no_concat   the encoder's features are not handed across to the decoder (set to zero)
  residual    the network's output is added to the noisy frame: an input-output skip

    python nbs/studies/score_ablation.py --jobs 8    7 arms, 3 seeds, about 25 minutes of one core in all
    python nbs/studies/score_ablation.py --quick     a few seconds, to see that it runs
Writes score_ablation.csv beside this file (or --out). kind "look": mean squared error of one look (value) at a noise level, on 2,000 held-out probes, with
its interval over clips; `faint`: the same clips and noise at a tenth of the contrast, error over .01; the noise goes beyond σ_max = 5. kind "draw":
frequency of the bright outcome (value, with its interval; at most 100 looks) and squared distance of the samples to the nearer outcome, at each γ."""

import math

import record
import score_jobs
import torch
from torch import nn

from vidiffedu.core import expand, seeded
from vidiffedu.data import probe_leaves
from vidiffedu.intervals import wilson
from vidiffedu.nets import BiasFreeNorm, BlindUNet
from vidiffedu.sample import normal_like
from vidiffedu.score import BlindDenoiser, draw_next, fractions, leaf_stream, put_back

Q, SIGMAS, GAMMAS = 0.7, (0.05, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0), (0.5, 1.0)


class Uniform(BlindDenoiser):
    def noise_level(self, u):
        return self.sigma_max * u


class Log(BlindDenoiser):
    def noise_level(self, u):
        return self.sigma_max * 500 ** (u - 1)


class Residual(BlindDenoiser):
    def denoise(self, x_t, past):
        return x_t + self.net(x_t, None, past)


class Told(BlindDenoiser):
    "denoise(x_t, past, sigma): the noise level (b,) is told."

    def denoise(self, x_t, past, sigma):
        m = past.mean((1, 2, 3, 4), keepdim=True)
        level = expand(sigma, x_t).expand_as(x_t)
        return self.net(x_t - m, None, torch.cat([past - m, level], 1)) + m

    def loss(self, clip, generator=None):
        past, x = clip[:, :-1], clip[:, -1:]
        sigma = self.noise_level(torch.rand(len(x), generator=generator))
        y = x + expand(sigma, x) * normal_like(x, generator)
        return (self.denoise(y, past, sigma) - x).square().mean()


class NoConcat(BlindUNet):
    "The decoder gets zeros in the place of the encoder's features."

    def forward(self, x, t=None, cond=None):
        hooks = [stage.register_forward_pre_hook(_forget) for stage in self.up]
        out = super().forward(x, t, cond)
        for hook in hooks:
            hook.remove()
        return out


def _forget(stage, inputs):
    seen, below = inputs[0].chunk(2, 1)
    return (torch.cat([0 * seen, below], 1),)


def with_biases(net):
    "The same network with all the constants that it had to do without."
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, BiasFreeNorm):
                setattr(module, name, nn.BatchNorm2d(len(child.gain)))
            if isinstance(child, nn.Conv2d):
                child.bias = nn.Parameter(torch.zeros(child.out_channels))
    return net


ARMS = dict(
    blind=lambda: BlindDenoiser(BlindUNet()),
    told=lambda: Told(BlindUNet(past=3, center=False)),
    uniform=lambda: Uniform(BlindUNet()),
    log=lambda: Log(BlindUNet()),
    biases=lambda: BlindDenoiser(with_biases(BlindUNet())),
    no_concat=lambda: BlindDenoiser(NoConcat()),
    residual=lambda: Residual(BlindUNet()),
)


@torch.no_grad()
def one_look(model, y, past, sigma):
    told = (torch.full((len(y),), float(sigma)),) if isinstance(model, Told) else ()
    return model.denoise(y, past, *told)


@torch.no_grad()
def draw_told(model, past, sigma_0, gamma, generator, h_0=0.05, h_max=0.3, sigma_end=0.03):
    "`draw_next` with σ by reckoning: it starts around the first estimate and falls by 1 - γ h a look."
    noise = [sigma_0 * normal_like(past[:, :1], generator) for _ in range(2)]
    y, sigma = one_look(model, noise[0], past, sigma_0) + noise[1], sigma_0
    for h in fractions(400, h_0, h_max):
        x_hat = one_look(model, y, past, sigma)
        if sigma <= sigma_end:
            break
        y = y + h * (x_hat - y) + put_back(h, gamma) * sigma * normal_like(y, generator)
        sigma *= 1 - gamma * h
    return x_hat


def looks(model, n, seed=3000):
    "One row a noise level."
    g = seeded(seed)
    probe = probe_leaves(n, q=Q, generator=g)
    x, past = probe.clip[:, -1:], probe.past
    for sigma in SIGMAS:
        y = x + sigma * normal_like(x, g)
        far = lambda a: (one_look(model, a * y, a * past, a * sigma) / a - x).square().flatten(1)
        each = record.interval(far(1.0).mean(1))
        yield dict(kind="look", sigma=sigma, **each, faint=float(far(0.1).mean()))


def draws(model, n, seed=1000):
    "One row a γ."
    for gamma in GAMMAS:
        g = seeded(seed)
        probe = probe_leaves(n, q=Q, generator=g)
        how = dict(sigma_0=4.0, gamma=gamma, generator=g)
        if isinstance(model, Told):
            x = draw_told(model, probe.past, **how)
        else:
            x = draw_next(model.denoise, probe.past, steps=100, **how)
        which, far = probe.nearest(x)
        k = int((which == 0).sum())
        low, high = wilson(k, n)
        far = float(far.mean()) if math.isfinite(float(far.mean())) else None
        yield dict(kind="draw", gamma=gamma, value=k / n, low=low, high=high, sample_mse=far)


def settings(argv):
    return record.arguments(
        __doc__,
        "score_ablation",
        argv,
        quick=dict(arms=["told"], seeds=[0], steps=20, n=20),
        short=dict(arms=["blind", "told"], seeds=[0], steps=600, n=300),
        arms=list(ARMS),
        seeds=[0, 1, 2],
        steps=2000,
        batch_size=32,
        lr=5e-3,
        n=1000,
        jobs=1,
    )


def main(argv=None):
    a = settings(argv)
    jobs = record.jobs(arm=a.arms, seed=a.seeds)
    if a.jobs > 1:
        return score_jobs.spread(__file__, jobs, a, dict(arm="arms", seed="seeds"))
    table, how = record.Table(a.out), dict(steps=a.steps, batch_size=a.batch_size, lr=a.lr)
    for job in record.todo(jobs, table):
        run = record.train(ARMS[job["arm"]], leaf_stream(Q), job["seed"], **how)
        found = [*looks(run.ema, 2 * a.n), *draws(run.ema, a.n)]
        table.put(job, found, record.facts(run))
        record.tell(found, "kind", "sigma", "gamma", "value", "low", "high", "faint", "sample_mse")


if __name__ == "__main__":
    main()
