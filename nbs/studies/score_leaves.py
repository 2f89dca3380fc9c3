"""score: futures of general moving leaves, 2 to 12 disks of random depth that enter, leave and hide each other.

Three networks trained on such clips draw futures of held-out ones. A draw of the right law is as far from what came as from another draw, on average, so
    apart / error = 1,   apart = mean squared distance of two draws, error = that of a draw and what came.
Below 1 the futures are too much alike, or wrong. Kinds of pixels:
  all        every pixel
  moved      those that differ from the last frame by more than .2
  revealed   those whose disk, or ground, was hidden behind another disk one frame ago or outside the frame: the past cannot tell their grey
Samplers stop at sigma_end, or after 100 looks. Further: `rank`: share of pixels whose true grey lies within the 8 draws' range (7/9 of them would, by right, where no two are equal; a slack of .02 is
given), `mean`: squared error of the draws' mean, `look`: that of one look, `still`: of the last frame repeated, `sharp`: mean absolute gradient of a draw
over that of what came (blind to blur: a soft edge climbs as far as a steep one); `sharp_look` that of one look; `edges`: sum of squared differences of
neighbouring pixels, the first draw's over that of what came, which blur lowers, with its interval over clips; `edges_look` that of one look. kind "read": the σ that one look reads, at each σ.

    python nbs/studies/score_leaves.py --jobs 3   three seeds, about 8 minutes of one core in all
    python nbs/studies/score_leaves.py --quick    a few seconds, to see that it runs
Writes score_leaves.csv beside this file (or --out); intervals (low, high) of apart / error are over the clips. Of seed 0, ../checkpoints/score_leaves."""

import record
import score_jobs
import torch

from vidiffedu.core import seeded
from vidiffedu.data import draw_leaves, moving_leaves, scatter_leaves
from vidiffedu.nets import BlindUNet
from vidiffedu.sample import evaluating
from vidiffedu.score import BlindDenoiser

SAMPLES, SIZE, SIGMA_0, ENDS = 8, 16, 4.0, (0.03, 0.1, 0.2)


def clips(n, generator=None):
    return moving_leaves(n, 3, SIZE, generator=generator)


def which_disk(worlds, frame, point):
    "The nearest disk that covers each point (n h w 2) in a frame, -1 for the ground: (n h w)."
    centre = worlds.start + frame * worlds.velocity  # (n d 2)
    far = (point[:, :, :, None] - centre[:, None, None]).norm(dim=-1)  # (n h w d)
    number = torch.arange(1, far.shape[-1] + 1)
    return torch.where(far < worlds.radius[:, None, None], number, 0).amax(-1) - 1


def revealed(worlds):
    "Pixels of frame 2 whose material was hidden or outside in frame 1: (n 1 1 h w)."
    line = torch.arange(SIZE).float()
    point = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).expand(
        len(worlds.start), -1, -1, -1
    )
    now = which_disk(worlds, 2, point)
    index = now.clamp(min=0).flatten(1)[..., None].expand(-1, -1, 2)
    step = worlds.velocity.gather(1, index).view(*now.shape, 2) * (now >= 0)[..., None]
    before = point - step
    outside = ((before < -0.5) | (before > SIZE - 0.5)).any(-1)
    return ((which_disk(worlds, 1, before) != now) | outside)[:, None, None]


def held_out(n, generator):
    "Clips (n 3 1 h w), and which pixels of their last frames the past cannot tell (n 1 1 h w)."
    worlds = scatter_leaves(n, 3, SIZE, generator=generator)
    return draw_leaves(worlds, 3, SIZE), revealed(worlds)


def slope(x):
    return x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean()


def contrast(x, here):
    "Sum of squared differences of neighbours, of pairs with a pixel that is `here`: (n f c h w) -> (n,)."
    total = 0
    for axis in (-2, -1):
        side = x.shape[axis] - 1
        either = here.narrow(axis, 0, side) | here.narrow(axis, 1, side)
        total = total + (x.diff(dim=axis).square() * either).flatten(1).sum(1)
    return total


def sharpness(x, came, here):
    "`contrast` of x over that of what came, with its interval over clips. Right law: 1. Blur: less; noise: more."
    return record.ratio(contrast(x, here), contrast(came, here))


def measure(model, n, sigma_end, seed=1000):
    "One row a kind of pixel, on n held-out clips, with samplers that stop at sigma_end."
    g = seeded(seed)
    clip, out = held_out(n, g)
    past, x = clip[:, :2], clip[:, 2:]
    how = dict(sigma_0=SIGMA_0, sigma_end=sigma_end, steps=100)
    draws = model.forecast(past, 1, n_samples=SAMPLES, generator=g, **how)
    with evaluating(model), torch.no_grad():
        look = model.denoise(SIGMA_0 * torch.randn(x.shape, generator=g), past)
    kinds = dict(all=out | True, moved=(x - past[:, 1:]).abs() > 0.2, revealed=out)
    apart = (draws[:, None] - draws).square().sum((0, 1)) / (SAMPLES * (SAMPLES - 1))
    error, low, high = (draws - x).square().mean(0), draws.amin(0), draws.amax(0)
    within = ((x >= low - 0.02) & (x <= high + 0.02)).float()
    sharp = dict(sharp=slope(draws) / slope(x), sharp_look=slope(look) / slope(x))
    for kind, here in kinds.items():
        mean_of = lambda v: float(v[here].mean())
        value, lo, hi = record.ratio(*((v * here).sum((1, 2, 3, 4)) for v in (apart, error)))
        edges = dict(zip(("edges", "edges_low", "edges_high"), sharpness(draws[0], x, here)))
        edges["edges_look"] = sharpness(look, x, here)[0]
        yield dict(
            kind=kind,
            sigma_end=sigma_end,
            share=float(here.float().mean()),
            ratio=value,
            low=lo,
            high=hi,
            apart=mean_of(apart),
            error=mean_of(error),
            rank=mean_of(within),
            mean=mean_of((draws.mean(0) - x).square()),
            look=mean_of((look - x).square()),
            still=mean_of((past[:, 1:] - x).square()),
            **edges,
            **{k: float(v) for k, v in sharp.items()},
        )


@torch.no_grad()
def readings(model, n, seed=1000):
    "One row a noise level: the σ that one look reads, and its squared error."
    g = seeded(seed)
    clip = clips(n, g)
    past, x = clip[:, :2], clip[:, 2:]
    for sigma in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0):
        x_t = x + sigma * torch.randn(x.shape, generator=g)
        x_hat = model.denoise(x_t, past)
        read, error = ((x_hat - v).square().mean() for v in (x_t, x))
        yield dict(kind="read", sigma=sigma, read=float(read.sqrt()), look=float(error))


def settings(argv):
    return record.arguments(
        __doc__,
        "score_leaves",
        argv,
        quick=dict(seeds=[0], steps=20, n=10),
        short=dict(seeds=[0], steps=1200, n=100),
        seeds=[0, 1, 2],
        steps=3600,
        batch_size=32,
        lr=5e-3,
        n=150,
        jobs=1,
    )


def main(argv=None):
    a = settings(argv)
    jobs = record.jobs(seed=a.seeds)
    if a.jobs > 1:
        return score_jobs.spread(__file__, jobs, a, dict(seed="seeds"))
    table, how = record.Table(a.out), dict(steps=a.steps, batch_size=a.batch_size, lr=a.lr)
    for job in record.todo(jobs, table):
        run = record.train(lambda: BlindDenoiser(BlindUNet()), clips, job["seed"], **how)
        if job["seed"] == 0:
            score_jobs.keep(a, run.ema, "score_leaves")
        found = [row for end in ENDS for row in measure(run.ema, a.n, end)]
        found += readings(run.ema, a.n)
        table.put(job, found, record.facts(run))
        record.tell(
            found,
            "kind",
            "sigma_end",
            "ratio",
            "low",
            "high",
            "rank",
            "error",
            "look",
            "still",
            "sharp",
        )


if __name__ == "__main__":
    main()
