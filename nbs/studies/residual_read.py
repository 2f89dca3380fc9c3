"""How the tables of residual_scale and residual_arms are read: one number a training, intervals over the trainings, factors between two arms.

`world` None: residual_scale, the flow at 32 x 64 pixels; "street": the flow at 16 x 32; "leaf": the fork. Both are residual_arms."""

import reading

from vidiffedu.intervals import mean_interval, student

SCALE, ARMS = map(reading.table, ("residual_scale", "residual_arms"))


def usual(metric, world):
    "The frame column of a number for the whole clip; on the fork the CRPS is that of the first frame."
    return "mean" if not world else "1" if (metric, world) == ("crps", "leaf") else "all"


def rows(arm, metric="crps", frame=None, world=None):
    "{seed: row}"
    want = dict(arm=arm, metric=metric, frame=str(frame or usual(metric, world)))
    want |= dict(world=world) if world else {}
    return {r["seed"]: r for r in reading.pick(ARMS if world else SCALE, **want)}


def values(arm, metric="crps", frame=None, world=None, unit=1):
    "One number a training."
    return unit * reading.numbers(rows(arm, metric, frame, world).values())


def over(found, digits, unit=1):
    """Mean ± Student's interval over the trainings of rows {seed: row}; of two trainings, both.

    Of one training or none: ± over the test windows of residual_arms."""
    each = unit * reading.numbers(found.values())
    if len(each) > 2:
        middle, low, high = mean_interval(each, z=student(len(each)))
        return f"{middle:.{digits}f} ± {(high - low) / 2:.{digits}f}"
    text = ", ".join(f"{v:.{digits}f}" for v in each)
    ends = [
        float(r["high"]) - float(r["low"]) for r in found.values() if "world" in r and r["high"]
    ]
    return f"{text} ± {unit * ends[0] / 2:.{digits}f}" if len(ends) == 1 else text


def times(a, b, metric="crps", frame=None, world=None):
    "Geometric mean of arm a over arm b, over the (three) trainings that both have; else nothing."
    a, b = (rows(arm, metric, frame, world) for arm in (a, b))
    if len(a.keys() & b.keys()) < 3:
        return ""
    found = reading.factor(a.values(), b.values(), clips=False)
    return reading.words(found, 2 - (found[0] > 10))


def show_scale(arms):
    "A line an arm of residual_scale: {arm: the arms that it is compared with, in one string}."
    print(f"{'arm':12s} {'scale':>5s}  {'μ misses':14s} {'CRPS × 1000':13s} times the CRPS of")
    for arm, others in arms.items():
        found = rows(arm)
        scale = next(iter(found.values()))["scale"]
        scale = f"{float(scale):.2f}" if scale else ""
        missed = "" if arm.startswith("vd") else over(rows(arm, "mu_rms"), 3)
        than = "; ".join(f"{o} {times(arm, o)}" for o in others.split())
        line = f"{arm:12s} {scale:>5s}  {missed:14s} {over(found, 1, 1000):13s} {than}"
        print(line.rstrip())


def show_arms(world, columns, arms):
    "A line an arm of residual_arms: n trainings, columns {title: (metric, frame, digits, unit)}."
    print(f"{'arm':11s} n  {''.join(f'{name:15s}' for name in columns)}{'weights':>7s}")
    first_of = next(iter(columns.values()))[:2]
    for arm in (a for a in arms.split() if rows(a, *first_of, world)):
        cells = [
            over(rows(arm, m, frame, world), d, u) if rows(arm, m, frame, world) else ""
            for m, frame, d, u in columns.values()
        ]
        first = rows(arm, *first_of, world)
        size = next(iter(first.values()))["weights"]
        n = len(first) if size else 0
        size = f"{int(size) / 1000:.0f}k" if size else ""
        print(f"{arm:11s} {n}  {''.join(f'{c:15s}' for c in cells)}{size:>7s}".rstrip())


def compare(pairs):
    "A line a pair {name: (arm, other, world)}: the ratio of their CRPS; those that wait are left out."
    for name, (arm, other, world) in pairs.items():
        if found := times(arm, other, world=world):
            print(f"{name:42s} {found}")
