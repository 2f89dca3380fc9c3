"""How the tables of whole_clips, masks_more and masks_long are read: means and factors, with intervals over trainings and over test clips."""

import math

import reading
from reading import over_clips, over_trainings, table

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
    return reading.pick(FIVE, arm=arm, task=task, **({"metric": metric} if metric else {}))


def long(task, way, metric="mse"):
    "Rows of one way of completing sixteen frames; an empty list if it was not measured."
    arm, kept = WAYS[way]
    return reading.pick(LONG, task=task, arm=arm, way=kept, metric=metric)


def told(mine, digits=4):
    "Mean over trainings ± both intervals, added in squares."
    if not mine:
        return "-"
    v = reading.numbers(mine)
    half = math.hypot(over_trainings(v), over_clips(mine) * float(v.mean()))
    return f"{v.mean():.{digits}f} ± {half:.{digits}f}"


def factor_told(top, bottom):
    "How many times the errors `bottom` lie below `top`, seed by seed: geometric mean, interval."
    if not top or not bottom:
        return "-"
    top = top if len(top) > 1 else reading.against(bottom, top[0])
    found = reading.factor(top, bottom)
    return reading.words(found, 2 - (found[0] > 10) - (found[0] > 100))
