"""Chapters 3 and 4: what must a network be told, and what shown, to complete clips? One network (`JoinedUNet`), one world
(`drifting_leaf`), one budget; the arms differ in the times that they meet in training and in how known frames are held in sampling.

    python nbs/studies/whole_clips.py            all arms, 3 seeds: about an hour on two cores
    python nbs/studies/whole_clips.py --short    one arm, one seed, fewer steps: about a minute
Writes whole_clips.csv beside this file (or --out), one row an arm, seed, task and metric, with the 95% interval over test clips (low, high); rows that
are there already are kept, not run again. whole_clips_curve.csv: the range of the training loss over seeds. Of seed 0, the weights that the lessons
load with VIDIFFEDU_FAST=1, in ../checkpoints. Squared errors are of one sample a clip, pixels in [-1, 1]; `crps` is the fair score of 8 samples."""

import argparse
import csv
import functools
import pathlib
import time

import torch
from score_frequency import provenance

from vidiffedu.core import seeded
from vidiffedu.data import bouncing, drifting_leaf
from vidiffedu.denoise import FromV, v_weight
from vidiffedu.masks import RaMViD, fill_by_replacement, judge_fill, mask_times
from vidiffedu.nets import JoinedUNet
from vidiffedu.paths import VP
from vidiffedu.train import fit, save_weights
from vidiffedu.vector import FVDM

HERE = pathlib.Path(__file__).resolve().parent
PATH = VP()
TASKS = {
    "predict": [1, 1, 0, 0, 0],
    "infill": [1, 0, 0, 0, 1],
    "upsample": [1, 0, 1, 0, 1],
    "unsure": [1, 0, 0, 0, 0],
}

weight = v_weight(PATH, floor=0.2)  # of the v-loss, but no more than 25 on frames with little noise

fvdm, ramvid = (functools.partial(M, path=PATH, weight=weight) for M in (FVDM, RaMViD))
ARMS = {  # network -> model
    "scalar": functools.partial(fvdm, p=0.0),
    "ptss0.2": functools.partial(fvdm, p=0.2),
    "ptss1": functools.partial(fvdm, p=1.0),
    "masks": functools.partial(ramvid, p_uncond=0.25),
    "masks_p0": functools.partial(ramvid, p_uncond=0.0),
    "masks_p0.75": functools.partial(ramvid, p_uncond=0.75),
    "masks_times": functools.partial(fvdm, times=mask_times),
    "masks_v": lambda net: RaMViD(
        FromV(net, PATH), PATH, weight=v_weight(PATH)
    ),  # as "masks", but the network predicts v
}
SAVED = {"ptss1": "vector_leaves", "masks": "masks_leaves", "sprites": "vector_sprites"}


def leaves(n, generator=None):
    return drifting_leaf(n, generator=generator)


def sprites(n, generator=None):
    return bouncing(n, 5, 16, kinds=(0,), generator=generator)


def train(make, seed, steps, batch_size, lr, draw=leaves):
    "A fresh network for an arm -> run (its `ema` is the model), seconds"
    torch.manual_seed(seed)
    started = time.time()
    run = fit(
        make(JoinedUNet(frames=draw(1).shape[1])),
        draw,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        ema=0.995,
        seed=seed,
        progress=False,
    )
    return run, time.time() - started


def replacement(model):
    def fill(x, known, n_samples=1, generator=None):
        return torch.stack(
            [
                fill_by_replacement(model.denoise, PATH, x, known, generator=generator)
                for _ in range(n_samples)
            ]
        )

    return fill


def tasks(fill, n, samples, seed=1000):
    "Rows of all four tasks: squared error where the known frames determine the others, CRPS where they do not"
    clips = leaves(n, seeded(seed))
    for task, known in TASKS.items():
        metric, m = ("crps", samples) if task == "unsure" else ("mse", 2)
        some = clips[: len(clips) // 2] if task == "unsure" else clips
        got = judge_fill(
            fill,
            some,
            torch.tensor(known, dtype=torch.bool),
            n_samples=m,
            generator=seeded(seed + 1),
        )
        yield dict(
            task=task,
            metric=metric,
            value=got[metric],
            low=got[f"{metric}_low"],
            high=got[f"{metric}_high"],
            known_unchanged=got["known_unchanged"],
            n=len(some),
            samples=m,
        )


def wobble(model, n, seed=1000):
    "Clips from nothing: how much the leaf's brightness varies from frame to frame, relative to its mean (truth: below 0.03)"
    mass = (model.generate((n, 5, 1, 16, 16), generator=seeded(seed)) + 1).sum((2, 3, 4))
    each = mass.std(1) / mass.mean(1).clamp(min=1.0)
    half = 1.96 * each.std() / n**0.5
    return dict(
        task="generate",
        metric="wobble",
        value=float(each.mean()),
        low=float(each.mean() - half),
        high=float(each.mean() + half),
        n=n,
        samples=1,
    )


def constants(n, seed=1000):
    "The best guess without a network, for each task: the mean clip, the nearest known frame, or the mean of the known frames"
    clips, mean = leaves(n, seeded(seed)), leaves(4096, seeded(seed + 2)).mean(0)
    frame = torch.arange(5)
    for task, known in TASKS.items():
        given = torch.tensor(known, dtype=torch.bool)
        nearest = ((frame[:, None] - frame).abs() + 100 * ~given).argmin(1)
        guesses = dict(
            mean_clip=mean.expand_as(clips),
            nearest=clips[:, nearest],
            mean_known=clips[:, given].mean(1, keepdim=True).expand_as(clips),
        )
        if task == "unsure":
            guesses = {k: v[: n // 2] for k, v in guesses.items()}
        error = {
            k: (v - clips[: len(v)])[:, ~given]
            .abs()
            .pow(1 if task == "unsure" else 2)
            .flatten(1)
            .mean(1)
            for k, v in guesses.items()
        }
        best = min(error, key=lambda k: error[k].mean())
        e, half = error[best], 1.96 * error[best].std() / len(error[best]) ** 0.5
        yield dict(
            task=task,
            metric="crps" if task == "unsure" else "mse",
            value=float(e.mean()),
            low=float(e.mean() - half),
            high=float(e.mean() + half),
            n=len(e),
            samples=1,
            guess=best,
        )


FIELDS = "arm seed task metric value low high n samples known_unchanged guess steps train_seconds commit hardware date".split()


def add(path, rows):
    "Append rows to the CSV"
    new = not path.exists()
    with open(path, "a", newline="") as f:
        table = csv.DictWriter(f, FIELDS)
        if new:
            table.writeheader()
        table.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )
    for row in rows:
        print(
            *(f"{row[k]:.4g}" if isinstance(row[k], float) else row[k] for k in FIELDS[:5]),
            flush=True,
        )


def curve(path, arm, seed, losses, where, window=50):
    "Append this run's loss, averaged over `window` steps"
    means = losses[: len(losses) // window * window].reshape(-1, window).mean(1).tolist()
    new = not path.exists()
    with open(path, "a", newline="") as f:
        table = csv.DictWriter(f, ["arm", "seed", "step", "loss", *where])
        if new:
            table.writeheader()
        table.writerows(
            dict(arm=arm, seed=seed, step=window * (i + 1), loss=f"{m:.5g}", **where)
            for i, m in enumerate(means)
        )


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--arms", nargs="+", default=["constant", *ARMS, "sprites"])
    ap.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    ap.add_argument("--steps", type=int, default=2000)
    ap.add_argument("--batch-size", type=int, default=32)
    ap.add_argument("--lr", type=float, default=4e-3)
    ap.add_argument("--n", type=int, default=192, help="test clips")
    ap.add_argument("--samples", type=int, default=8, help="samples a clip, for the CRPS")
    ap.add_argument("--out", type=pathlib.Path, default=HERE / "whole_clips.csv")
    ap.add_argument("--keep", type=pathlib.Path, help="a folder for the weights of every run")
    ap.add_argument(
        "--short",
        action="store_true",
        help="PTSS 0.2, seed 0, 400 steps, 64 clips; nothing is kept unless --out is given",
    )
    a = ap.parse_args()
    if a.short:
        a.arms, a.seeds, a.steps, a.n = ["ptss0.2"], [0], 400, 64
        if a.out == ap.get_default("out"):
            a.out = pathlib.Path("/dev/stdout")
    where, have = provenance(), set()
    if a.out.is_file():
        with open(a.out) as f:
            have = {(row["arm"], int(row["seed"])) for row in csv.DictReader(f)}
    for seed in a.seeds:
        for arm in a.arms:
            if (arm, seed) in have:
                continue
            if arm == "constant":
                if seed == a.seeds[0]:
                    add(a.out, [dict(arm=arm, seed=seed, **row, **where) for row in constants(a.n)])
                continue
            if arm == "sprites" and seed:
                continue  # one network, for pictures
            steps = 2 * a.steps if arm == "sprites" else a.steps
            run, seconds = train(
                ARMS.get(arm, ARMS["ptss1"]),
                seed,
                steps,
                a.batch_size,
                a.lr,
                sprites if arm == "sprites" else leaves,
            )
            if a.keep:
                save_weights(run.ema, a.keep / f"{arm}_{seed}.safetensors")
            if not a.short:
                curve(a.out.with_name(a.out.stem + "_curve.csv"), arm, seed, run.losses, where)
                if seed == 0 and arm in SAVED:
                    save_weights(run.ema, HERE.parent / "checkpoints" / f"{SAVED[arm]}.safetensors")
            if arm == "sprites":
                continue
            about = dict(seed=seed, steps=a.steps, train_seconds=round(seconds), **where)
            held = [] if arm == "scalar" else tasks(run.ema.fill, a.n, a.samples)
            rows = [dict(arm=arm, **row, **about) for row in [*held, wobble(run.ema, a.n)]]
            if arm in ("scalar", "ptss0.2"):
                rows += [
                    dict(arm=arm + "+replacement", **row, **about)
                    for row in tasks(replacement(run.ema), a.n, a.samples)
                ]
            add(a.out, rows)


if __name__ == "__main__":
    main()
