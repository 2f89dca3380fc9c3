"""score: how much past does the denoiser need? A small leaf slips behind a large one, stays hidden for two frames and comes out in the next.

A network that sees k past frames has met the small leaf only if k >= 3, and knows its motion only if k is larger. For k in {1, 2, 3, 4, 5} and three
seeds we measure, on held-out clips:
  error     squared error of the one-shot estimate on the pixels where the leaf comes out, over that of a picture without the leaf
            (0: foreseen exactly, 1: as bad as forgetting it)
  kept      share of samples nearer to the true frame than to the same frame without the leaf, with a 95% interval (low, high)
  rest_mse  squared error of the one-shot estimate on all other pixels: the large leaf, whose velocity k = 1 cannot know

    python nbs/studies/score_memory.py            5 memories, 3 seeds, about 20 minutes on one core
    python nbs/studies/score_memory.py --short    k = 2 and 5, one seed, fewer steps: about a minute
    python nbs/studies/score_memory.py --quick    a few seconds, to see that it runs
Writes score_memory.csv beside this file (or --out); networks that are there already are kept, not run again."""

import math

import record
import torch

from vidiffedu.core import check_whole, seeded
from vidiffedu.data import Leaves, Probe, draw_leaves, moving_leaves
from vidiffedu.intervals import wilson
from vidiffedu.nets import BlindUNet
from vidiffedu.sample import normal_like
from vidiffedu.score import BlindDenoiser, draw_next

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


def probes(past, n, generator):
    "A Probe of n clips with a hidden leaf: the true next frame, and the one without the leaf."
    clip, nothing = hidden_leaves(n, generator=generator)
    check(clip, nothing)
    outcomes = torch.stack([clip[:, -1:], nothing[:, -1:]], 1)
    return Probe(clip[:, -past - 1 : -1], outcomes, torch.ones(n, dtype=torch.bool))


def measure(model, past, n, sampler, seed=1000):
    "The three numbers, on n held-out clips with a hidden leaf."
    g = seeded(seed)
    probe = probes(past, n, g)
    truth, without = probe.outcomes.unbind(1)
    with torch.no_grad():
        one = model.denoise(sampler["sigma_0"] * normal_like(truth, g), probe.past)
    out, far = probe.overlap, (one - truth).square()
    which, _ = probe.nearest(draw_next(model.denoise, probe.past, generator=g, **sampler))
    k = int((which == 0).sum())
    low, high = wilson(k, n)
    error = float(far[out].mean() / (without - truth)[out].square().mean())
    kept = dict(kept=k / n, low=low, high=high, n=n)
    return dict(error=error, **kept, rest_mse=float(far[~out].mean()))


def settings(argv):
    return record.arguments(
        __doc__,
        "score_memory",
        argv,
        quick=dict(past=[2], seeds=[0], steps=20, n=20),
        short=dict(past=[2, 5], seeds=[0], steps=1000, n=200),
        past=[1, 2, 3, 4, 5],
        seeds=[0, 1, 2],
        steps=3000,
        batch_size=32,
        lr=5e-3,
        sigma_0=4.0,
        gamma=0.5,
        n=500,
    )


def main(argv=None):
    a = settings(argv)
    for past in a.past:
        check_whole(past=past)
        if past > LONGEST:
            raise SystemExit(f"--past: got {past}, expected 1 to {LONGEST}")
    table, sampler = record.Table(a.out), dict(sigma_0=a.sigma_0, gamma=a.gamma)
    how = dict(steps=a.steps, batch_size=a.batch_size, lr=a.lr)
    for job in record.todo(record.jobs(seed=a.seeds, past=a.past), table):
        past, make = job["past"], lambda: BlindDenoiser(BlindUNet(past=job["past"]))
        run = record.train(make, stream(past), job["seed"], **how)
        found = [measure(run.ema, past, a.n, sampler)]
        table.put(job, found, dict(sampler, **record.facts(run)))
        record.tell(table.of(job), "past", "seed", "error", "kept", "low", "high", "n", "rest_mse")


if __name__ == "__main__":
    main()
