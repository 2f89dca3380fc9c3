"""Chapter 2: how many network evaluations does a frame need? The bridge (CVP) beside a conditional VP diffusion: one network (`JoinedUNet`), one
budget, two worlds; the network predicts the estimate or the noise, with its input scaled or not, and is sampled as published and as we would.

    python nbs/studies/bridge_steps.py            all arms, 3 seeds: about an hour on two cores
    python nbs/studies/bridge_steps.py --short    one arm, one seed, fewer steps: about a minute
Writes bridge_steps.csv beside this file (or --out), one row an arm, world, seed, sampler, number of evaluations and metric, with the 95% interval over
test clips (low, high); arms that are there already are kept, not run again. bridge_steps_curve.csv: the training losses. Of seed 0, the weights that the
lesson loads with VIDIFFEDU_FAST=1, in ../checkpoints.
    nearest      mean squared distance to the nearest true outcome, pixels in [-1, 1]
    frequency    share of samples nearer to the outcome "straight on" (truth .7), or on sprites' one side of the true median (truth .5)
    crps         fair CRPS of 4 samples, averaged over the true outcomes
Estimates are clamped to [-1, 1] in sampling, in all arms. Evaluations count every call of the network, the first estimate's among them."""

import argparse
import csv
import functools
import pathlib
import time

import torch
from einops import rearrange
from score_frequency import provenance

from vidiffedu.bridge import (
    CVP,
    NextFrame,
    ScaledInput,
    edm_step,
    from_estimate,
    from_known,
    matched_times,
)
from vidiffedu.core import seeded
from vidiffedu.data import bouncing, bouncing_roll, bouncing_state, draw_sprites, turning_leaf
from vidiffedu.denoise import FromNoise, noise_weight
from vidiffedu.masks import _fair_crps
from vidiffedu.nets import JoinedUNet
from vidiffedu.paths import VP, Bridge
from vidiffedu.sample import ddpm_step
from vidiffedu.score import wilson
from vidiffedu.times import even_noise, grid, shared
from vidiffedu.train import fit, save_weights

HERE = pathlib.Path(__file__).resolve().parent
BRIDGE, DIFFUSION = Bridge(), VP()
EVALUATIONS = (2, 5, 10, 25, 50, 100)


def arm(Method, path, noise=False, scaled=False, **how):
    "network -> model"
    if noise:
        how.update(wrap=FromNoise, weight=noise_weight(path))  # the squared error of the noise
    return lambda net: Method(ScaledInput(net, path) if scaled else net, path, **how)


ARMS = {
    f"{name}_{what}{'_scaled' if scaled else ''}": arm(Method, path, what == "noise", scaled)
    for name, Method, path in (("cvp", CVP, BRIDGE), ("vp", NextFrame, DIFFUSION))
    for what in ("estimate", "noise")
    for scaled in (False, True)
}
# the bridge once more, trained at the noise levels that VP's uniform times have
ARMS["cvp_matched"] = arm(CVP, BRIDGE, scaled=True, times=matched_times(BRIDGE, DIFFUSION))

SAVED = {("cvp_matched", "leaf"), ("vp_estimate", "leaf"), ("cvp_matched", "sprites")}


def even(path):
    return even_noise(path, knee=0.1, top=10.0)


def samplers(model):
    "name -> evaluations n -> arguments of `forecast`"
    bridge = isinstance(model, CVP)
    found = {
        "published": lambda n: dict(
            steps=n + bridge, step=ddpm_step, timetable=grid, start=from_known
        ),
        "ours": lambda n: dict(
            steps=n - 1, step=ddpm_step, timetable=even(model.path), start=from_estimate
        ),
    }
    if model.times is not shared:
        found["heun"] = lambda n: dict(
            steps=n // 2, step=edm_step, timetable=even(model.path), start=from_estimate
        )
    return found


def leaves(n, generator=None):
    return turning_leaf(n, generator=generator).clip


SPRITES = dict(radius=(3.0, 3.0), speed=(2.0, 2.0), kinds=(0,))


def sprites(n, generator=None):
    return bouncing(n, 3, 16, generator=generator, **SPRITES)


def leaf_test(n, seed=1000):
    "past (n, 2, ..), all outcomes of the next frame (m, n, 1, ..), their weights (m,), and the side of a frame (..., n, 1, ..)"
    fork = turning_leaf(n, generator=seeded(seed))
    return (
        fork.past,
        fork.outcomes.transpose(0, 1),
        torch.tensor([0.7, 0.3]),
        lambda x: fork.nearest(x)[0] == 0,
    )


def along_wall(
    x, axis, ground
):  # (..., n, 1, 1, h, w) -> (..., n): the sprite's place along the wall
    mass = (x - ground).clamp(min=0)[..., 0, 0, :, :]
    grid_ = torch.arange(x.shape[-1], dtype=x.dtype)
    y, x_ = (
        (mass * g).sum((-2, -1)) / mass.sum((-2, -1)).clamp(min=1e-3)
        for g in (grid_[:, None], grid_)
    )
    return torch.where(axis == 0, x_, y)


def sprite_test(n, draws=128, seed=1000):
    "As `leaf_test`, of sprites that flew freely through the past and hit a wall in the next frame; the outcomes are `draws` rolls of the world"
    g = seeded(seed)
    start = bouncing_state(20 * n, 16, generator=g, **SPRITES)
    track, now = bouncing_roll(start, 1, g)
    free = (now.velocity == start.velocity).all((1, 2))
    ahead = now.position + now.velocity
    low, high = now.radius[..., None] - 0.5, 15.5 - now.radius[..., None]
    out = torch.maximum(low - ahead, ahead - high)[:, 0]  # (n, 2) how far beyond each wall
    rows = (free & (out.amax(1) > 0.5)).nonzero()[:n, 0]
    pick = lambda s: type(s)(*(v[rows] for v in s[:-1]), s.size)
    past = draw_sprites(pick(start), torch.stack([start.position, now.position], 1)[rows])
    now, axis = pick(now), out[rows].argmax(1)
    many = now.repeat(draws)
    outcomes = rearrange(
        draw_sprites(many, bouncing_roll(many, 1, g)[0]), "(n m) f c h w -> m n f c h w", m=draws
    )
    ground = now.ground[:, None, None, None, None]
    middle = along_wall(outcomes, axis, ground).median(0).values
    return (
        past,
        outcomes,
        torch.full((draws,), 1 / draws),
        lambda x: along_wall(x, axis, ground) > middle,
    )


WORLDS = {"leaf": (leaves, leaf_test), "sprites": (sprites, sprite_test)}


def interval(v):
    return dict(
        value=float(v.mean()),
        low=float(v.mean() - 1.96 * v.std() / len(v) ** 0.5),
        high=float(v.mean() + 1.96 * v.std() / len(v) ** 0.5),
    )


def judge(model, test, how, samples=4, seed=1001):
    "Rows of the three metrics, and the number of evaluations that it took"
    past, outcomes, weights, side = test
    calls, denoise = [], model.denoise

    def counted(*args):
        calls.append(1)
        return denoise(*args)

    model.denoise = counted
    x = model.forecast(past, 1, samples, generator=seeded(seed), clip=(-1, 1), **how)
    model.denoise = denoise
    far = torch.stack([(x - o).square().mean((2, 3, 4, 5)) for o in outcomes]).amin(0)  # (S, n)
    crps = sum(w * _fair_crps(x, o).mean((1, 2, 3, 4)) for w, o in zip(weights, outcomes))
    k, n = int(side(x).sum()), far.numel()
    low, high = wilson(k, n)
    return len(calls), dict(
        nearest=interval(far.mean(0)),
        frequency=dict(value=k / n, low=low, high=high),
        crps=interval(crps),
    )


def train(make, draw, seed, steps, batch_size, lr):
    "A fresh network -> run (its `ema` is the model), seconds"
    torch.manual_seed(seed)
    started = time.time()
    run = fit(
        make(JoinedUNet(frames=3, width=8)),
        draw,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        ema=0.995,
        seed=seed,
        progress=False,
    )
    return run, time.time() - started


FIELDS = "arm world seed sampler evaluations metric value low high n samples steps train_seconds commit hardware date".split()


def add(path, rows, fields=FIELDS):
    new = not path.exists()
    with open(path, "a", newline="") as f:
        table = csv.DictWriter(f, fields, lineterminator="\n")
        if new:
            table.writeheader()
        table.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--arms", nargs="+", default=list(ARMS))
    ap.add_argument("--worlds", nargs="+", default=list(WORLDS))
    ap.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    ap.add_argument("--steps", type=int, default=2000)
    ap.add_argument("--batch-size", type=int, default=32)
    ap.add_argument("--lr", type=float, default=4e-3)
    ap.add_argument("--n", type=int, default=64, help="test clips")
    ap.add_argument("--out", type=pathlib.Path, default=HERE / "bridge_steps.csv")
    ap.add_argument(
        "--short",
        action="store_true",
        help="cvp_matched on the leaf, seed 0, 600 steps, 64 clips; nothing is kept unless --out is given",
    )
    a = ap.parse_args()
    if a.short:
        a.arms, a.worlds, a.seeds, a.steps, a.n = ["cvp_matched"], ["leaf"], [0], 600, 64
        if a.out == ap.get_default("out"):
            a.out = pathlib.Path("/dev/stdout")
    where, have = provenance(), set()
    if a.out.is_file():
        with open(a.out) as f:
            have = {(row["arm"], row["world"], int(row["seed"])) for row in csv.DictReader(f)}
    for seed in a.seeds:
        for world in a.worlds:
            draw, test = WORLDS[world]
            for name in a.arms:
                if (name, world, seed) in have:
                    continue
                run, seconds = train(ARMS[name], draw, seed, a.steps, a.batch_size, a.lr)
                if not a.short:
                    means = (
                        run.losses[: len(run.losses) // 50 * 50].reshape(-1, 50).mean(1).tolist()
                    )
                    add(
                        a.out.with_name(a.out.stem + "_curve.csv"),
                        [
                            dict(
                                arm=name, world=world, seed=seed, step=50 * (i + 1), loss=m, **where
                            )
                            for i, m in enumerate(means)
                        ],
                        ["arm", "world", "seed", "step", "loss", *where],
                    )
                    if seed == 0 and (name, world) in SAVED:
                        save_weights(
                            run.ema,
                            HERE.parent / "checkpoints" / f"bridge_{world}_{name}.safetensors",
                        )
                rows, cases = [], test(a.n)
                for sampler, how in samplers(run.ema).items():
                    for n in EVALUATIONS:
                        got, found = judge(run.ema, cases, how(n))
                        rows += [
                            dict(
                                arm=name,
                                world=world,
                                seed=seed,
                                sampler=sampler,
                                evaluations=got,
                                metric=metric,
                                n=a.n,
                                samples=4,
                                steps=a.steps,
                                train_seconds=round(seconds),
                                **v,
                                **where,
                            )
                            for metric, v in found.items()
                        ]
                add(a.out, rows)
                print(
                    name,
                    world,
                    seed,
                    f"{seconds:.0f} s,",
                    *(
                        f"{r['sampler']}@{r['evaluations']} {r['value']:.2g}"
                        for r in rows
                        if r["metric"] == "nearest"
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
