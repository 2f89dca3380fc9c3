"""The rivals of RVD in residual_arms.py, made of RVD's own two networks, and the scores that all arms get.

    Plain    both networks as one deterministic recurrent network: one evaluation a frame, trained on the squared error
    Latent   a recurrent network with a latent variable, as SVG-LP: a learned prior, a posterior that sees the frame, and the spread of
             the pixels chosen anew for every batch (the best one), so that no weight between the two terms has to be tuned
Both forecast frame by frame and feed their frames back, as RVD does."""

import torch
from einops import rearrange
from torch import nn

from vidiffedu.residual import RVD, teacher_forced


class Nothing(nn.Module):
    "In the denoiser's place: no correction, so that mu alone is the forecast."

    def forward(self, r_t, t, state):
        return torch.zeros_like(r_t)


class Plain(RVD):
    "mu + scale * net(0): no noise, one evaluation, squared error."

    def loss(self, clip, generator=None):
        mu, states = teacher_forced(self.forecaster, clip, self.context)
        r = self.to_residual(clip[:, self.context :], mu)
        said = self.denoise_clip(torch.zeros_like(r), r.new_ones(r.shape[:2]), states)
        return (said - r).square().mean()

    def draw_next(self, mu, state, clip, **_):
        r = self.denoise(torch.zeros_like(mu), mu.new_ones(len(mu), 1), state)
        return self.to_frame(r, mu, clip)


def divergence(m1, s1, m0, s0):
    "Of two normal laws with means m and log standard deviations s: KL(1 | 0), summed over the last axis."
    far = ((m1 - m0).square() + (2 * s1).exp()) / (2 * s0).exp()
    return (s0 - s1 + far / 2 - 0.5).sum(-1)


class Latent(RVD):
    "mu + scale * net(picture of z), z from a learned prior; in training from a posterior that sees the frame."

    def __init__(self, forecaster, net, path, scale, size, latent=8, hidden=64):
        super().__init__(forecaster, net, path, scale)
        (h, w), last = size, forecaster.context.gru[-1].candidate.out_channels
        small = h * w // forecaster.divisor**2
        two = lambda n: (nn.Linear(n, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 2 * latent))
        self.prior = nn.Sequential(nn.Flatten(), *two(last * small))
        conv = lambda i, o: (nn.Conv2d(i, o, 4, 2, 1), nn.LeakyReLU(0.2))
        see = *conv(2, 16), *conv(16, 32), nn.Flatten(), *two(32 * h * w // 16)
        self.posterior, self.picture = nn.Sequential(*see), nn.Linear(latent, h * w)
        self.size = size

    def say(self, z, state):
        "The correction r for latents z (n latent)."
        h, w = self.size
        picture = rearrange(self.picture(z), "n (h w) -> n 1 1 h w", h=h, w=w)
        return self.denoise(picture, z.new_ones(len(z), 1), state)

    def loss(self, clip, generator=None):
        mu, states = teacher_forced(self.forecaster, clip, self.context)
        x, flat = clip[:, self.context :], "b f c h w -> (f b) 1 c h w"
        r, frames = rearrange(self.to_residual(x, mu), flat), rearrange(torch.cat([x, mu], 2), flat)
        m0, s0 = self.prior(states.context[-1]).chunk(2, 1)
        m1, s1 = self.posterior(frames[:, 0]).chunk(2, 1)
        noise = torch.randn(m1.shape, generator=generator, device=m1.device)
        error = (self.say(m1 + s1.exp() * noise, states) - r).square().mean()
        return 0.5 * error.log() + divergence(m1, s1, m0, s0).mean() / r[0].numel()

    def draw_next(self, mu, state, clip, generator=None, **_):
        m, s = self.prior(state.context[-1]).chunk(2, 1)
        noise = torch.randn(m.shape, generator=generator, device=m.device)
        return self.to_frame(self.say(m + s.exp() * noise, state), mu, clip)


# ---------------------------------------------------------------- scores


def edges(x):
    "Mean squared difference of neighbouring pixels, of each clip: (... f c h w) -> (...)."
    return sum(x.diff(dim=d).square().mean((-4, -3, -2, -1)) for d in (-1, -2))


def sharpness(samples, truth):
    "Root of the samples' edges over the truth's, (n,): 1 as sharp, less blurred, more noisy."
    return (edges(samples).mean(0) / edges(truth)).sqrt()


def feature_gap(samples, truth, net):
    "Squared distance of random features of a sample and its truth, (n,); 1: that of two random truths."
    seen, each = net(truth), torch.stack([net(x) for x in samples])
    between = 2 * seen.var(0).sum()
    return (each - seen).square().sum(-1).mean(0) / between


def fork_scores(x, probe):
    """Of samples x (S n f 1 h w) of a fork: what each first frame came to, as dict of (S, n).

    turn: whether the turned frame is the nearer; misfit: squared distance to the nearer one, in units of that of a frame halfway
    between the two (of .7 A + .3 B: .36)."""
    straight, turned = (probe.outcomes[:, k, 0] for k in (0, len(probe.outcomes[0]) // 2))
    far = lambda y: (x[:, :, 0] - y).square().mean((2, 3, 4))
    apart = (straight - turned).square().mean((1, 2, 3))
    a, b = far(straight), far(turned)
    return dict(turn=(b < a).float(), misfit=torch.minimum(a, b) / (apart / 4))


def path_scores(x, probe):
    "Of whole futures: which outcome is nearest (S, n), and the squared distance to it, in units of the halfway clip's."
    which, distance = probe.nearest(x)
    first = probe.outcomes[:, :1]
    apart = (probe.outcomes[:, 1:] - first).square().mean((2, 3, 4, 5)).mean(1)
    return which, distance / (apart / 4)


def dispersion(hits, q):
    "(hits - S q)² / (S q (1 - q)) of each past, hits (S, n): 1 on average if every past has the chance q."
    s = len(hits)
    return (hits.sum(0) - s * q).square() / (s * q * (1 - q))
