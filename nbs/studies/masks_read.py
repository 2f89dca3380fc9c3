"""How the tables of whole_clips, masks_more and masks_long are read: means and factors, with intervals over trainings and over test clips."""

import csv
import math
from pathlib import Path

import torch

from vidiffedu.intervals import student


def table(name):
    return list(csv.DictReader(open(Path(__file__).with_name(f"{name}.csv"))))


FIVE = table("whole_clips") + table("masks_more")  # five frames; eight for the arms K4 and K5
LONG = table("masks_long")  # sixteen frames
WAYS = {  # of completing sixteen frames: the arm, and how the known frames are kept
    "masks, held": ("masks", "held"),
    "masks, replaced": ("masks", "replacement"),
    "unconditional, held": ("free", "held"),
    "unconditional, replaced": ("free", "replacement"),
    "nearest known frame": ("no network", "nearest known frame"),
    "mean of the known frames": ("no network", "mean of the known frames"),
    "mean clip": ("no network", "mean clip"),
    "constant velocity": ("no network", "constant velocity"),
}


def pick(arm, task, metric=None):
    "Rows of an arm and task, one for each training; what is generated needs no replacement."
    arm = arm.removesuffix("+replacement") if task == "generate" else arm
    mine = [r for r in FIVE if (r["arm"], r["task"]) == (arm, task)]
    return sorted((r for r in mine if metric in (None, r["metric"])), key=lambda r: r["seed"])


def long(task, way, metric="mse"):
    "Rows of one way of completing sixteen frames; an empty list if it was not measured."
    want = task, *WAYS[way], metric
    return [r for r in LONG if (r["task"], r["arm"], r["way"], r["metric"]) == want]


def over_clips(mine):
    "Half of the interval over test clips, as a share of the value; the mean over trainings."
    half = [(float(r["high"]) - float(r["low"])) / 2 / float(r["value"]) for r in mine]
    return sum(half) / len(half)


def over_trainings(values):
    "Half of Student's interval of a mean over trainings; 0 for one."
    n = len(values)
    return student(n) * float(values.std()) / n**0.5 if n > 1 else 0.0


def told(mine, digits=4):
    "Mean over trainings ± both intervals, added in squares."
    if not mine:
        return "-"
    v = torch.tensor([float(r["value"]) for r in mine])
    half = math.hypot(over_trainings(v), over_clips(mine) * float(v.mean()))
    return f"{v.mean():.{digits}f} ± {half:.{digits}f}"


def factor_told(top, bottom):
    "How many times the errors `bottom` lie below `top`, seed by seed: geometric mean, interval."
    if not top or not bottom:
        return "-"
    by_seed = {r["seed"]: r for r in (top if len(top) > 1 else [])}
    pairs = [(by_seed.get(r["seed"], top[0]), r) for r in bottom]
    log = torch.tensor([math.log(float(a["value"]) / float(b["value"])) for a, b in pairs])
    half = math.hypot(over_trainings(log), *map(over_clips, zip(*pairs)))
    mean, low, high = (math.exp(float(log.mean()) + h) for h in (0, -half, half))
    digits = 2 - (mean > 10) - (mean > 100)
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
