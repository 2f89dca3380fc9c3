"""How the table of vector_times is read: rows by name, the rivals without a network, and the tables that the vector chapter prints.

Intervals are 95%, over trainings (Student's) and over test clips, added in squares (`interval_of` of vector_times)."""

import reading
from reading import against
from vector_times import told

TIMES = reading.table("vector_times")
TASKS = {
    "predict": "predict 3 from 2",
    "infill": "fill between the ends",
    "upsample": "every other frame",
}
ARMS = {0.0: "x0", 0.2: "x0.2", 1.0: "x1"}  # networks of the estimate, by their share p
CONSTANT = ("average clip", "nearest known frame", "mean of the known frames")
LOOPS = {
    "x0.2": "x, p = 0.2",
    "x1": "x, p = 1",
    "v0.2": "v, p = 0.2",
    "v1": "v, p = 1",
    "noise0.2": "ε, p = 0.2",
}


def pick(**want):
    "Rows with these columns, one for each training."
    return reading.pick(TIMES, **want)


def rival(task, *names):
    "The row of the least error among these rivals; none named: the best constant guess."
    ways = names or CONSTANT
    found = [r for way in ways for r in pick(arm="none", task=task, way=way, metric="mse")]
    return min(found, key=lambda r: float(r["value"]))


def factor(top, bottom):
    "top / bottom in words, with one decimal from 10 on, else two."
    found = reading.factor(top, bottom)
    return reading.words(found, 2 - (round(found[0], 1) >= 10))


def loops_table():
    "What the re-denoising loop moves, and what that costs."
    print("known frames moved, and the error of the unknown ones over that with the frames held")
    for arm, what in LOOPS.items():
        of = dict(arm=arm, task="predict", way="redenoised")
        far, cost = (pick(**of, metric=m) for m in ("known", "mse over held_ddim"))
        print(f"predicts {what:11s} moved {told(far, 3)}; error times {told(cost, 2)}")


def tasks_table():
    "Errors of three tasks with the known frames held, beside the guess and replacement."
    for task, title in TASKS.items():
        of, line = dict(task=task, metric="mse"), rival(task, "constant velocity")
        print(f"{title}: best constant guess {float(rival(task)['value']):.4f}, ", end="")
        print(f"constant velocity {float(line['value']):.4f}")
        print(f"{'':14s}{'error, held':19s}{'guess / error':23s}replaced / held")
        held = {p: pick(arm=arm, way="held", **of) for p, arm in ARMS.items()}
        for p, mine in held.items():
            replaced = pick(arm=ARMS[p], way="replaced", **of)
            below, above = factor(against(mine, rival(task)), mine), factor(replaced, mine)
            print(f"    p = {p:<6g}{told(mine):19s}{below:23s}{above}")
        gain = [f"{p:g}: {factor(held[0.0], held[p])}" for p in (0.2, 1.0)]
        print("    error at p = 0 over that at " + ", at ".join(gain))


def misfits_table():
    "How far generated clips are from true ones, by what the network predicts and by p."
    for arm, what in dict(x0="x, p = 0", **LOOPS).items():
        found = pick(arm=arm, task="generate", way="heun25", metric="misfit")
        print(f"predicts {what:11s} misfit {told(found)}")
    true = [r for r in pick(arm="none", metric="misfit") if r["way"].startswith("true")]
    values = [float(r["value"]) for r in true]
    print(f"true clips, {len(true)} sets:  misfit {min(values):.1e} to {max(values):.1e}")
