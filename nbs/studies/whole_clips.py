"""vector and masks: what must a network be told, and what shown, to complete clips? One network (`JoinedUNet`), one world
(`drifting_leaf`), one budget; the arms differ in the times that they meet in training and in how known frames are held in sampling.

    python nbs/studies/whole_clips.py            all arms, 3 seeds: about an hour on two cores
    python nbs/studies/whole_clips.py --short    one arm, one seed, fewer steps: about a minute
    python nbs/studies/whole_clips.py --quick    a few seconds, to see that it runs
Writes whole_clips.csv beside this file (or --out), one row an arm, seed, task and metric, with the 95% interval over test clips (low, high); rows that
are there already are kept, not run again. whole_clips_curve.csv: the training losses. Of seed 0, the weights that the lessons load with VIDIFFEDU_FAST=1, in
../checkpoints. Squared errors are of one sample a clip, pixels in [-1, 1]; `crps` is the fair score of 8 samples."""

import functools

import record
import torch

from vidiffedu.core import seeded
from vidiffedu.crps import judge_fill
from vidiffedu.data import bouncing, drifting_leaf
from vidiffedu.denoise import FromV, v_weight
from vidiffedu.masks import RaMViD, fill_by_replacement, mask_times
from vidiffedu.nets import JoinedUNet
from vidiffedu.paths import VP
from vidiffedu.vector import FVDM

PATH = VP()
TASKS = {
    "predict": [1, 1, 0, 0, 0],
    "infill": [1, 0, 0, 0, 1],
    "upsample": [1, 0, 1, 0, 1],
    "unsure": [1, 0, 0, 0, 0],
}

weight = v_weight(PATH, floor=0.2)  # of the v-loss, but no more than 25 on frames with little noise
fvdm, ramvid = (functools.partial(M, path=PATH, weight=weight) for M in (FVDM, RaMViD))


def ramvid_v(net):
    "As the arm `masks`, but the network predicts v."
    return RaMViD(FromV(net, PATH), PATH, weight=v_weight(PATH))


ARMS = {  # network -> model
    "scalar": functools.partial(fvdm, p=0.0),
    "ptss0.2": functools.partial(fvdm, p=0.2),
    "ptss1": functools.partial(fvdm, p=1.0),
    "masks": functools.partial(ramvid, p_uncond=0.25),
    "masks_p0": functools.partial(ramvid, p_uncond=0.0),
    "masks_p0.75": functools.partial(ramvid, p_uncond=0.75),
    "masks_times": functools.partial(fvdm, times=mask_times),
    "masks_v": ramvid_v,
}
REPLACED = ("scalar", "ptss0.2")  # arms that the replacement method completes, too
SAVED = {"ptss1": "vector_leaves", "masks": "masks_leaves", "sprites": "vector_sprites"}
SHOWN = ("arm", "task", "metric", "value", "low", "high")


def leaves(n, generator=None):
    return drifting_leaf(n, generator=generator)


def sprites(n, generator=None):
    return bouncing(n, 5, 16, kinds=(0,), generator=generator)


def replacement(model):
    "The replacement method as a `fill`."

    def fill(x, known, n_samples=1, generator=None):
        once = lambda: fill_by_replacement(model.denoise, PATH, x, known, generator=generator)
        return torch.stack([once() for _ in range(n_samples)])

    return fill


def tasks(fill, n, samples, seed=1000):
    "Rows of all tasks: squared error where the known frames determine the others, CRPS elsewhere."
    clips = leaves(n, seeded(seed))
    for task, known in TASKS.items():
        metric, m = ("crps", samples) if task == "unsure" else ("mse", 2)
        some = clips[: len(clips) // 2] if task == "unsure" else clips
        known = torch.tensor(known, dtype=torch.bool)
        got = judge_fill(fill, some, known, n_samples=m, generator=seeded(seed + 1))
        value, low, high = (got[metric + end] for end in ("", "_low", "_high"))
        found = dict(value=value, low=low, high=high, known_unchanged=got["known_unchanged"])
        yield dict(task=task, metric=metric, **found, n=len(some), samples=m)


def wobble(model, n, seed=1000):
    "Clips from nothing: how much the leaf's brightness varies, relative to its mean (truth: below 0.03)."
    mass = (model.generate((n, 5, 1, 16, 16), generator=seeded(seed)) + 1).sum((2, 3, 4))
    each = mass.std(1) / mass.mean(1).clamp(min=1.0)
    return dict(task="generate", metric="wobble", **record.interval(each), n=n, samples=1)


def guesses(clips, given):
    "Clips made without a network: the mean clip, the nearest known frame, the mean known frame."
    frame = torch.arange(5)
    nearest = ((frame[:, None] - frame).abs() + 100 * ~given).argmin(1)
    return dict(
        mean_clip=leaves(4096, seeded(1002)).mean(0).expand_as(clips),
        nearest=clips[:, nearest],
        mean_known=clips[:, given].mean(1, keepdim=True).expand_as(clips),
    )


def constants(n, seed=1000):
    "The best guess without a network, for each task."
    for task, known in TASKS.items():
        metric, power = ("crps", 1) if task == "unsure" else ("mse", 2)
        clips, given = leaves(n, seeded(seed)), torch.tensor(known, dtype=torch.bool)
        clips = clips[: n // 2] if task == "unsure" else clips
        apart = {k: (v - clips)[:, ~given].abs() for k, v in guesses(clips, given).items()}
        errors = {k: v.pow(power).flatten(1).mean(1) for k, v in apart.items()}
        best = min(errors, key=lambda k: errors[k].mean())
        found = record.interval(errors[best])
        yield dict(task=task, metric=metric, **found, n=len(clips), samples=1, guess=best)


def settings(argv):
    return record.arguments(
        __doc__,
        "whole_clips",
        argv,
        quick=dict(arms=["ptss0.2"], seeds=[0], steps=20, n=4, samples=2),
        short=dict(arms=["ptss0.2"], seeds=[0], steps=400, n=64),
        arms=["constant", *ARMS, "sprites"],
        seeds=[0, 1, 2],
        steps=2000,
        batch_size=32,
        lr=4e-3,
        n=192,
        samples=8,
    )


def train(a, job, curves):
    "A fresh network for an arm; sprites are for pictures, and trained for twice as long."
    arm, alone = job["arm"], job["arm"] == "sprites"
    draw, steps = (sprites, 2 * a.steps) if alone else (leaves, a.steps)
    make = lambda: ARMS["ptss1" if alone else arm](JoinedUNet(frames=5))
    how = dict(steps=steps, batch_size=a.batch_size, lr=a.lr, ema=0.995)
    run = record.train(make, draw, job["seed"], **how)
    curves.put(job, record.curve(run.losses, 50), record.provenance())
    if job["seed"] == 0 and arm in SAVED:
        record.for_lessons(a, run.ema, SAVED[arm])
    return run


def measure(a, job, run):
    "Rows by arm: the job's own, and those of the replacement method."
    arm, model, found = job["arm"], run.ema, {}
    found[arm] = list(tasks(model.fill, a.n, a.samples))
    found[arm].append(wobble(model, a.n))
    if arm in REPLACED:
        found[f"{arm}+replacement"] = list(tasks(replacement(model), a.n, a.samples))
    return found


def main(argv=None):
    a = settings(argv)
    table, curves = (record.Table(p) for p in (a.out, record.beside(a.out, "_curve.csv")))
    for job in record.todo(jobs_of(a, "constant"), table):
        table.put(job, list(constants(a.n)), record.provenance())
        record.tell(table.of(job), *SHOWN)
    for job in record.todo(jobs_of(a, "sprites"), curves):
        train(a, job, curves)
    for job in record.todo(jobs_of(a), table):
        run = train(a, job, curves)
        for arm, rows in reversed(measure(a, job, run).items()):  # the job's own are written last
            table.put(dict(job, arm=arm), rows, record.facts(run))
            record.tell(table.of(dict(job, arm=arm)), *SHOWN)


def jobs_of(a, once=None):
    "Every arm and seed; `constant` and `sprites` are one."
    if once is not None:
        return [dict(arm=once, seed=0)] if once in a.arms else []
    return record.jobs(seed=a.seeds, arm=[arm for arm in a.arms if arm in ARMS])


if __name__ == "__main__":
    main()
