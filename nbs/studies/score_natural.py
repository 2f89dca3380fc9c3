"""score: networks trained on a folder of films, their filters, and how they weigh what they see.

The films are our own rendering (score_film.py), a stand-in for natural video; measured on eight shots of other scenes, which went through the same
encoder. A network sees 24 x 24 pixels of two past frames and the noisy next one.
  clean   the past as it is in the film
  noisy   in training each past frame has noise of its own: none in half of the clips, else σ = u², u uniform
The points at which filters are read, all in the middle of their window (the world's own geometry says which is which):
  flat      at least two pixels inside a layer, motion below .7 pixels a frame, little contrast around
  edge      beside a layer's outline, motion below .7
  fast      inside a layer, motion above 1.5 pixels a frame
  revealed  hidden behind another layer one frame ago

    python nbs/studies/score_natural.py --jobs 6   2 arms, 3 seeds, about 18 minutes of one core in all
    python nbs/studies/score_natural.py --quick    a few seconds, to see that it runs
Writes score_natural.csv beside this file (or --out). kind "point": at each place and σ of the noisy frame, with noise past_sigma on the *last* past frame:
share of the squared filter on the frame before the last (before), the last (last) and the noisy one (noisy), their sums of weights (before_sum, ...) and the
squared error of the pixel (error) beside that of the last frame's pixel (still). kind "motion": slope and correlation of the place of the filter's weight on the last
frame and on the one before (two), against where the point truly was, over the fast points; `signed`: slope of the weights'
own first moment over both past frames against the one that would carry a slope of grey along with the motion (1: exactly, 0: not at all). kind "draw": as in score_leaves.csv. Of arm noisy, seed 0: the weights
../checkpoints/score_film."""

import functools
import pathlib
import tempfile

import record
import score_film
import score_jobs
import torch

from vidiffedu.core import seeded
from vidiffedu.intervals import mean_interval
from vidiffedu.nets import BlindUNet
from vidiffedu.sample import evaluating, normal_like
from vidiffedu.score import BlindDenoiser, adaptive_filter
from vidiffedu.video import VideoFolder

WINDOW, MIDDLE, SIGMA_0, ENDS = 24, 12, 3.0, (0.03, 0.1, 0.2)
SIGMAS, PAST = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0), (0.0, 0.1, 0.2, 0.5, 1.0)


class NoisyPast(BlindDenoiser):
    "In training, each past frame of half of the clips gets noise of its own level."

    def loss(self, clip, generator=None):
        past = clip[:, :-1]
        u = torch.rand(past.shape[:2], generator=generator)
        some = torch.rand(past.shape[:2], generator=generator) < 0.5
        level = torch.where(some, u**2, 0)[:, :, None, None, None]
        past = past + level * normal_like(past, generator)
        x, u = clip[:, -1:], torch.rand(len(clip), generator=generator)
        sigma = self.noise_level(u)[:, None, None, None, None]
        return (self.denoise(x + sigma * normal_like(x, generator), past) - x).square().mean()


ARMS = dict(clean=BlindDenoiser, noisy=NoisyPast)


def make(arm):
    return ARMS[arm](BlindUNet(), sigma_max=4.0)


def windows(films, side=WINDOW):
    "f(n, generator) -> random windows (n 3 1 side side) of clips (m 3 1 h w), some mirrored."

    def draw(n, generator=None):
        m, f, _, h, w = films.shape
        rand = lambda k: torch.randint(0, k, (n,), generator=generator)
        i, y, x, mirror = rand(m), rand(h - side + 1), rand(w - side + 1), rand(4)
        out = torch.stack([films[a, :, :, b : b + side, c : c + side] for a, b, c in zip(i, y, x)])
        out = torch.where((mirror % 2 == 1)[:, None, None, None, None], out.flip(-1), out)
        return torch.where((mirror > 1)[:, None, None, None, None], out.flip(-2), out)

    return draw


def read(folder):
    "Every three frames in a row of every film of a folder: (m 3 1 h w)."
    return torch.stack(list(VideoFolder(folder, frames=3, size=80, hop=1, channels=1)))


def held_out(shots=8):
    "Clips of other shots, through the same encoder, and what is known of their last frames."
    known = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(100, 100 + shots):
            one = score_film.shot(seed)
            score_film.write(pathlib.Path(folder) / f"shot{seed}.mkv", one.video)
            known.append(one)
        clips = read(folder)
    layer, step, out = (torch.cat([v[k][2:] for v in known]) for k in (2, 3, 4))
    return clips, layer, step, out


def places(clips, layer, step, out, n, generator):
    "{kind: (n, 3): clip, row, column} of points at least half a window from the frame's edge."
    speed = step.norm(dim=-1)
    big = lambda v, k: torch.nn.functional.max_pool2d(v.float()[:, None], k, 1, k // 2)[:, 0]
    inside = big(layer, 5) == -big(-layer, 5)  # one layer in 5 x 5 pixels
    beside = (big(layer, 3) != -big(-layer, 3)) & ~out
    contrast = big(clips[:, 2, 0], 5) + big(-clips[:, 2, 0], 5)
    quiet = speed < 0.7
    masks = dict(
        flat=inside & quiet & (contrast < 0.25),
        edge=beside & quiet,
        fast=inside & (speed > 1.5) & (big(out, 5) == 0),
        revealed=out,
    )
    found = {}
    for kind, mask in masks.items():
        at = mask[:, MIDDLE:-MIDDLE, MIDDLE:-MIDDLE].nonzero() + torch.tensor([0, MIDDLE, MIDDLE])
        found[kind] = at[torch.randperm(len(at), generator=generator)[:n]]
    return found


def cut(clips, at):
    "Windows with the points in the middle: (n 3 1 24 24)."
    return torch.stack(
        [clips[i, :, :, y - 12 : y + 12, x - 12 : x + 12] for i, y, x in at.tolist()]
    )


def point_rows(model, clips, at, seed=3000):
    "One row a kind, noise level and noise level of the last past frame."
    for kind, where in at.items():
        window = cut(clips, where)
        x = window[:, 2, 0, MIDDLE, MIDDLE]
        for sigma in SIGMAS:
            for past_sigma in PAST if sigma == 0.5 else (0.0,):
                g = seeded(seed)
                noise = torch.randn(window.shape, generator=g)
                level = torch.tensor([0, past_sigma, sigma]).view(3, 1, 1, 1)
                seen = window + level * noise
                J = adaptive_filter(model, seen[:, 2:], seen[:, :2], MIDDLE, MIDDLE)
                estimate = (J * seen).sum((1, 2, 3, 4))
                mass = J.square().sum((2, 3, 4))
                share = mass / mass.sum(1, keepdim=True)
                mean, low, high = mean_interval(share[:, 2])
                names = ("before", "last", "noisy")
                yield dict(
                    kind="point",
                    place=kind,
                    sigma=sigma,
                    past_sigma=past_sigma,
                    n=len(where),
                    **dict(zip(names, share.mean(0).tolist())),
                    low=float(low),
                    high=float(high),
                    **dict(zip([f"{k}_sum" for k in names], J.sum((2, 3, 4)).mean(0).tolist())),
                    error=float((estimate - x).square().mean()),
                    still=float((window[:, 1, 0, MIDDLE, MIDDLE] - x).square().mean()),
                )


def motion_row(model, clips, step, at, sigma=0.5, seed=3000):
    "Does the filter look where the point was?"
    window = cut(clips, at)
    level = torch.tensor([0, 0, sigma]).view(3, 1, 1, 1)
    seen = window + level * torch.randn(window.shape, generator=seeded(seed))
    J = adaptive_filter(model, seen[:, 2:], seen[:, :2], MIDDLE, MIDDLE)[:, :, 0]
    W, J = J, J.square()
    line = torch.arange(WINDOW) - float(MIDDLE)
    total = J.sum((2, 3))
    centre = torch.stack(
        [(J.sum(3) * line).sum(2) / total, (J.sum(2) * line).sum(2) / total], -1
    )  # (n 3 2)
    i, y, x = at.T
    back = step[i, y, x]
    slope = lambda v, w: float((v * w).sum() / (w * w).sum())
    signed = torch.stack([W.sum(3) @ line, W.sum(2) @ line], -1)[:, :2].sum(1)  # (n 2)
    right = ((W[:, 1] + 2 * W[:, 0]).sum((1, 2)))[:, None] * back
    corr = torch.corrcoef(torch.stack([centre[:, 1].flatten(), back.flatten()]))[0, 1]
    row = dict(slope=slope(centre[:, 1], back), two=slope(centre[:, 0], back))
    row |= dict(correlation=float(corr), signed=slope(signed, right), n=len(at))
    return dict(kind="motion", sigma=sigma, **row)


def draw_rows(model, clips, out, n, sigma_end, samples=8, seed=1000):
    "Are futures as far from what came as from each other? With samplers that stop at sigma_end."
    g = seeded(seed)
    i = torch.randperm(len(clips), generator=g)[:n]
    middle = slice(28, 28 + WINDOW)
    window, new = clips[i][..., middle, middle], out[i][:, middle, middle][:, None, None]
    past, x = window[:, :2], window[:, 2:]
    how = dict(sigma_0=SIGMA_0, sigma_end=sigma_end, steps=100)
    draws = model.forecast(past, 1, n_samples=samples, generator=g, **how)
    with evaluating(model), torch.no_grad():
        look = model.denoise(SIGMA_0 * normal_like(x, g), past)
    apart = (draws[:, None] - draws).square().sum((0, 1)) / (samples * (samples - 1))
    error, still = (draws - x).square().mean(0), (past[:, 1:] - x).square()
    for kind, here in dict(all=new | True, revealed=new).items():
        value, low, high = record.ratio(*((v * here).sum((1, 2, 3, 4)) for v in (apart, error)))
        means = dict(error=error, still=still, look=(look - x).square())
        means["mean"] = (draws.mean(0) - x).square()
        means = {k: float(v[here].mean()) for k, v in means.items()}
        found = dict(sigma_end=sigma_end, value=value, low=low, high=high)
        yield dict(kind="draw", place=kind, n=n, **found, **means)


@functools.cache
def data(n):
    "Training windows; held-out clips, how they move, what they reveal; the points."
    stream = windows(read(score_film.films()))
    clips, layer, step, out = held_out()
    return stream, clips, step, out, places(clips, layer, step, out, n, seeded(7))


def settings(argv):
    return record.arguments(
        __doc__,
        "score_natural",
        argv,
        quick=dict(arms=["noisy"], seeds=[0], steps=5, n=40),
        short=dict(arms=["noisy"], seeds=[0], steps=400, n=100),
        arms=list(ARMS),
        seeds=[0, 1, 2],
        steps=2400,
        batch_size=32,
        lr=5e-3,
        n=200,
        jobs=1,
    )


def main(argv=None):
    a = settings(argv)
    jobs = record.jobs(arm=a.arms, seed=a.seeds)
    if a.jobs > 1:
        return score_jobs.spread(__file__, jobs, a, dict(arm="arms", seed="seeds"))
    table, how = record.Table(a.out), dict(steps=a.steps, batch_size=a.batch_size, lr=a.lr)
    for job in record.todo(jobs, table):
        stream, clips, step, out, at = data(a.n)
        run = record.train(lambda: make(job["arm"]), stream, job["seed"], **how)
        if job == dict(arm="noisy", seed=0):
            score_jobs.keep(a, run.ema, "score_film")
        found = list(point_rows(run.ema, clips, at))
        found += [motion_row(run.ema, clips, step, at["fast"])]
        for end in ENDS:
            found += list(draw_rows(run.ema, clips, out, a.n // 2, end))
        table.put(job, found, record.facts(run))
        shown = "kind", "place", "sigma", "past_sigma", "before", "last", "noisy", "error", "still"
        record.tell(found, *shown, "slope", "two", "correlation", "signed", "value", "low", "high")


if __name__ == "__main__":
    main()
