"""How the tables of the studies are read: rows, and 95% intervals over trainings and over test clips.

A row is a dict of texts: one number of one training (seed, value), with its interval over test clips (low, high)."""

import csv
import math
from pathlib import Path

import torch

from vidiffedu.intervals import student


def table(name):
    "All rows of a study's table."
    with open(Path(__file__).with_name(f"{name}.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def pick(rows, **want):
    "The rows with these columns, by seed."
    return sorted((r for r in rows if want.items() <= r.items()), key=lambda r: r["seed"])


def numbers(rows):
    "Their values: (n,)."
    return torch.tensor([float(r["value"]) for r in rows])


def over_trainings(values):
    "Half of Student's interval of the mean of values (n,), one a training; 0 for one."
    n = len(values)
    return student(n) * float(values.std()) / n**0.5 if n > 1 else 0.0


def over_clips(rows):
    "Half of the interval over test clips, as a share of the value; the mean over trainings."
    half = [(float(r["high"]) - float(r["low"])) / 2 / float(r["value"]) for r in rows]
    return sum(half) / len(half)


def against(rows, rival):
    "One rival's row, as if each training of `rows` had met it."
    return [dict(rival, seed=r["seed"]) for r in rows]


def factor(top, bottom, clips=True):
    """Geometric mean of top / bottom over the trainings that both have: factor, low, high.

    Intervals over trainings and, if `clips`, over the test clips of both sides, added in squares."""
    below = {r["seed"]: r for r in bottom}
    pairs = [(r, below[r["seed"]]) for r in top if r["seed"] in below]
    logs = torch.tensor([math.log(float(a["value"]) / float(b["value"])) for a, b in pairs])
    halves = map(over_clips, zip(*pairs)) if clips else ()
    return from_logs(float(logs.mean()), math.hypot(over_trainings(logs), *halves))


def from_logs(mean, half):
    "Factor, low, high: of the mean of its logarithms, and half its interval."
    return [math.exp(v) for v in (mean, mean - half, mean + half)]


def words(factor, digits):
    "Such as '2.00 (1.50 to 2.67)', which has two digits."
    mean, low, high = (f"{v:.{digits}f}" for v in factor)
    return f"{mean} ({low} to {high})"
