"""score: how often is the brighter leaf in front? One network for each q and seed, read out at several γ and σ_0.

    python nbs/studies/score_frequency.py --jobs 8   3 values of q, 3 seeds, about 30 minutes of one core in all
    python nbs/studies/score_frequency.py --short    one q, one seed, fewer steps: about a minute
    python nbs/studies/score_frequency.py --quick    a few seconds, to see that it runs
Writes score_frequency.csv beside this file (or --out): one row a network and sampler setting; networks that are there already are kept, not run again.
score_frequency_curve.csv: the training losses, and score_curve.csv: their range over the seeds at q = 0.7. Of seed 0, the weights that the explorer loads, in
../checkpoints. Frequencies carry a 95% interval (low, high); mean squared distances are to the nearer of the two true outcomes, pixels in [-1, 1].
weight, weight_sd: where on the line from the dark outcome (0) to the bright one (1) one look at noise of σ_0 lies, its mean and its standard deviation
over the clips; weight_rms: how far, clip by clip, from the exact denoiser's look at the same frame. clip_var: variance of the probability of the
bright outcome between clips, what chance explains taken off (0 in the world; it can come out negative)."""

import record
import score_jobs
import torch

from vidiffedu.core import seeded
from vidiffedu.data import Probe, probe_leaves
from vidiffedu.nets import BlindUNet
from vidiffedu.score import (
    BlindDenoiser,
    draw_next,
    exact_denoiser,
    judge_occlusions,
    leaf_stream,
)

WINDOW = 100  # steps of a point of the curve
SIGMAS = 5 * ((torch.arange(300) + 0.5) / 300) ** 2  # the law of σ in training


def samplers(a):
    "σ_0 matched to the modes at every γ; at the middle γ also the others."
    middle, most = sorted(a.gamma)[len(a.gamma) // 2], max(a.sigma_0)
    both = record.jobs(sigma_0=a.sigma_0, gamma=a.gamma)
    return [s for s in both if s["sigma_0"] == most or s["gamma"] == middle]


def measure(denoise, q, sampler, n, seed=1000):
    "Frequency with its interval, looks a sample and distances, on n held-out probes."
    g, looks = seeded(seed), []
    probe = probe_leaves(n, q=q, generator=g)

    def counted(y, past):
        looks.append(1)
        return denoise(y, past)

    found = judge_occlusions(counted, probe, generator=g, **sampler)
    # two looks are not the sampler's: the one-shot estimate, and the start
    one = weights(denoise, probe, q, sampler["sigma_0"], g)
    return dict(**sampler, looks=float(len(looks) - 2), **found, **one)


@torch.no_grad()
def weights(denoise, probe, q, sigma, g):
    "How one look at the true frame in noise of σ weighs the bright outcome; and the exact denoiser's."
    A, B = probe.outcomes[:, 0], probe.outcomes[:, 1]
    y = probe.clip[:, -1:] + sigma * torch.randn(A.shape, generator=g)
    along = lambda v: (v * (A - B)).flatten(1).sum(1)
    weigh = lambda f: along(f(y, probe.past) - B) / along(A - B)
    mine, best = weigh(denoise), weigh(exact_denoiser(probe, q, SIGMAS))
    off = float((mine - best).square().mean().sqrt())
    return dict(weight=float(mine.mean()), weight_sd=float(mine.std()), weight_rms=off)


def clip_variance(denoise, q, sampler, clips=50, draws=40, seed=2000):
    "The variance of P(bright) between clips, from `draws` futures of each."
    g = seeded(seed)
    one = probe_leaves(clips, q=q, generator=g)
    many = Probe(*(v.repeat_interleave(draws, 0) for v in one))
    x = draw_next(denoise(many), many.past, generator=g, **sampler)
    share = (many.nearest(x)[0] == 0).float().view(clips, draws).mean(1)
    by_chance = (share * (1 - share)).mean() / (draws - 1)
    return float(share.var() - by_chance)


def band(curves, q=0.7):
    "The lowest and highest loss among the seeds, step by step."
    seen = {}
    for row in curves.of(dict(q=q)):
        seen.setdefault(int(row["step"]), {})[row["seed"]] = float(row["loss"])
    for step, losses in sorted(seen.items()):
        low, high = min(losses.values()), max(losses.values())
        yield dict(step=step, low=low, high=high, seeds=" ".join(losses))


def settings(argv):
    return record.arguments(
        __doc__,
        "score_frequency",
        argv,
        quick=dict(q=[0.7], seeds=[0], steps=20, n=20, gamma=[0.5], sigma_0=[4.0]),
        short=dict(q=[0.7], seeds=[0], steps=1200, n=300, gamma=[0.5]),
        q=[0.5, 0.7, 0.9],
        gamma=[0.2, 0.5, 1.0],
        sigma_0=[0.5, 1.0, 2.0, 4.0],
        seeds=[0, 1, 2],
        steps=3600,
        batch_size=32,
        lr=5e-3,
        n=1000,
        jobs=1,
    )


def main(argv=None):
    a = settings(argv)
    jobs = record.jobs(q=a.q, seed=a.seeds)
    curve = record.beside(a.out, "_curve.csv")
    if a.jobs > 1:
        parts = score_jobs.spread(__file__, jobs, a, dict(q="q", seed="seeds"))
        record.join(curve, sorted(parts.glob("*_curve.csv")), ("q", "seed"))
    table, curves = record.Table(a.out), record.Table(curve)
    how = dict(steps=a.steps, batch_size=a.batch_size, lr=a.lr)
    for job in record.todo(jobs, table):
        q, seed = job["q"], job["seed"]
        run = record.train(lambda: BlindDenoiser(BlindUNet()), leaf_stream(q), seed, **how)
        curves.put(job, record.curve(run.losses, WINDOW), record.provenance())
        if seed == 0:
            score_jobs.keep(a, run.ema, f"score_q{round(100 * q)}")
        found = [measure(run.ema.denoise, q, sampler, a.n) for sampler in samplers(a)]
        middle = sorted(a.gamma)[len(a.gamma) // 2]
        for row in found:
            at = row["sigma_0"] == max(a.sigma_0) and row["gamma"] == middle
            at = dict(sigma_0=row["sigma_0"], gamma=middle) if at else None
            row["clip_var"] = at and clip_variance(lambda _: run.ema.denoise, q, at)
        table.put(job, found, record.facts(run))
        record.tell(found, "sigma_0", "gamma", "frequency", "low", "high", "weight", "weight_rms")
    if a.full and curves.of(dict(q=0.7)):
        whole = record.Table(record.HERE / "score_curve.csv")
        whole.put({}, list(band(curves)), record.provenance())


if __name__ == "__main__":
    main()
