"""Chapter 1: how much past does the denoiser need? A small leaf slips behind a large one, stays hidden for two frames and comes out in the next.

A network that sees k past frames has met the small leaf only if k >= 3, and knows its motion only if k is larger. For k in {1, 2, 3, 5} and three
seeds we measure, on held-out clips:
  error     squared error of the one-shot estimate on the pixels where the leaf comes out, over that of a picture without the leaf
            (0: foreseen exactly, 1: as bad as forgetting it)
  kept      share of samples nearer to the true frame than to the same frame without the leaf, with a 95% interval (low, high)
  rest_mse  squared error of the one-shot estimate on all other pixels: the large leaf, whose velocity k = 1 cannot know

    python nbs/studies/score_memory.py            4 memories, 3 seeds, about 20 minutes on one core
    python nbs/studies/score_memory.py --short    k = 2 and 5, one seed, fewer steps: about a minute
Writes score_memory.csv beside this file (or --out)."""

import argparse
import csv
import math
import pathlib
import time

import torch
from score_frequency import HERE, provenance

from vidiffedu.core import seeded
from vidiffedu.data import Leaves, Probe, draw_leaves, moving_leaves
from vidiffedu.nets import BlindUNet
from vidiffedu.score import BlindDenoiser, draw_next, wilson
from vidiffedu.train import fit

LONGEST = 5  # past frames of every clip; a network with memory k sees the last k


def hidden_leaves(n, size=16, generator=None):
    "Clips (n 6 1 size size) of a small leaf hidden behind a large one in frames 3 and 4, half out in frame 5; and the same without it."
    draw = lambda lo, hi, *shape: torch.empty(n, *shape).uniform_(lo, hi, generator=generator)
    angle, turn = draw(0, 2 * math.pi), draw(0, 2 * math.pi)
    along = torch.stack([angle.sin(), angle.cos()], -1)
    across = torch.stack([angle.cos(), -angle.sin()], -1) * draw(-0.3, 0.3, 1)
    drift = torch.stack([turn.sin(), turn.cos()], -1) * draw(0, 0.7, 1)
    large = (size - 1) / 2 + draw(-1, 1, 2)  # its centre in the last frame
    ahead, speed = (
        draw(4.6, 4.8, 1),
        draw(3.05, 3.2, 1),
    )  # of the small one: 4.7, before that 1.6, -1.5, -4.7, ...
    place = torch.stack([large + ahead * along + across, large], 1)  # the last disk is in front
    velocity = torch.stack([drift + speed * along, drift], 1)
    grey = draw(-1, 0, 3).sort(1).values + 0.5 * torch.arange(3)  # three greys at least 0.5 apart
    grey = grey.gather(1, draw(0, 1, 3).argsort(1))
    both = Leaves(
        place - LONGEST * velocity,
        velocity,
        torch.tensor([1.6, 4.5]).repeat(n, 1),
        grey[:, :2],
        grey[:, 2],
    )
    alone = Leaves(*(v[:, 1:] for v in both[:4]), both.ground)
    return draw_leaves(both, LONGEST + 1, size), draw_leaves(alone, LONGEST + 1, size)


def check(clip, without):
    "The small leaf leaves no trace in the last two past frames and much of it shows in the next"
    assert torch.equal(clip[:, 3:5], without[:, 3:5])
    assert ((clip[:, 5] - without[:, 5]).abs() > 0.25).flatten(1).sum(1).min() >= 1


def stream(past, size=16):
    "Training clips: half with a hidden leaf, a quarter with the large leaf alone, the rest ordinary; their last past + 1 frames"

    def draw(n, generator=None):
        half, quarter = n // 2, n // 4
        clip, without = hidden_leaves(half + quarter, size, generator)
        ordinary = moving_leaves(
            n - half - quarter, LONGEST + 1, size, disks=(1, 3), generator=generator
        )
        return torch.cat([clip[:half], without[half:], ordinary])[:, -(past + 1) :]

    return draw


def measure(model, past, n, sampler, seed=1000):
    "The three numbers, on n held-out clips with a hidden leaf"
    G = seeded(seed)
    clip, nothing = hidden_leaves(n, generator=G)
    check(clip, nothing)
    seen, truth, without = clip[:, -past - 1 : -1], clip[:, -1:], nothing[:, -1:]
    probe = Probe(seen, torch.stack([truth, without], 1), torch.ones(n, dtype=torch.bool))
    with torch.no_grad():
        one = model.denoise(sampler["sigma_0"] * torch.randn(truth.shape, generator=G), seen)
    out = probe.overlap
    error = (one - truth)[out].square().mean() / (without - truth)[out].square().mean()
    which, _ = probe.nearest(draw_next(model.denoise, seen, generator=G, **sampler))
    k = int((which == 0).sum())
    low, high = wilson(k, n)
    return dict(
        error=error.item(),
        kept=k / n,
        low=low,
        high=high,
        n=n,
        rest_mse=(one - truth)[~out].square().mean().item(),
    )


def train(past, seed, steps, batch_size, lr):
    "A fresh blind denoiser with that much memory"
    torch.manual_seed(seed)
    model = BlindDenoiser(BlindUNet(past=past))
    started = time.time()
    run = fit(
        model, stream(past), steps=steps, batch_size=batch_size, lr=lr, seed=seed, progress=False
    )
    return run.ema, time.time() - started


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument(
        "--past", type=int, nargs="+", default=[1, 2, 3, 5], help="frames remembered, at most 5"
    )
    ap.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    ap.add_argument("--steps", type=int, default=3000)
    ap.add_argument("--batch-size", type=int, default=32)
    ap.add_argument("--lr", type=float, default=5e-3)
    ap.add_argument("--sigma-0", type=float, default=4.0)
    ap.add_argument("--beta", type=float, default=0.5)
    ap.add_argument("--n", type=int, default=500, help="held-out clips, one sample each")
    ap.add_argument("--out", type=pathlib.Path, default=HERE / "score_memory.csv")
    ap.add_argument(
        "--short",
        action="store_true",
        help="k = 2 and 5, seed 0, 1000 steps, 200 clips; not written unless --out is given",
    )
    a = ap.parse_args()
    if a.short:
        a.past, a.seeds, a.steps, a.n = [2, 5], [0], 1000, 200
    if not all(1 <= k <= LONGEST for k in a.past):
        ap.error(f"--past {a.past}: expected 1 to {LONGEST}")
    rows, where, sampler = [], provenance(), dict(sigma_0=a.sigma_0, beta=a.beta)
    for seed in a.seeds:
        for past in a.past:
            model, seconds = train(past, seed, a.steps, a.batch_size, a.lr)
            got = measure(model, past, a.n, sampler)
            rows.append(
                dict(
                    past=past,
                    seed=seed,
                    **{k: round(v, 6) for k, v in got.items()},
                    steps=a.steps,
                    **sampler,
                    train_seconds=round(seconds),
                    **where,
                )
            )
            print(*(f"{k} {v:.4g}" for k, v in list(rows[-1].items())[:8]), flush=True)
            if not a.short or a.out != ap.get_default("out"):
                with open(a.out, "w", newline="") as f:
                    table = csv.DictWriter(f, rows[0])
                    table.writeheader()
                    table.writerows(rows)


if __name__ == "__main__":
    main()
