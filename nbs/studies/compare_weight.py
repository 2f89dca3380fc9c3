"""compare: does `vd` lose its spread in worlds of texture because of its loss weight?

    python nbs/studies/compare_weight.py    about 15 minutes on a quiet core; goes on where it was stopped
Trains `vd` as the bench does, with one change: the squared error of the estimate is weighted as that of the whole-clip arms is, by 1 / c², c at least .2.
Writes compare_weight.csv beside this file: for each world and seed the fair CRPS and the spread of the bench, and the fair CRPS of every test clip."""

import pathlib
import sys

import record
import torch

from vidiffedu import arena, bench
from vidiffedu.bridge import NextFrame

OUT = pathlib.Path(__file__).resolve().parent / "compare_weight.csv"
WORLDS, SEEDS = ["films", "street", "gauss"], [0, 1, 2]


def weighted(clips):
    return NextFrame(arena.after(), context=arena.PAST, **arena.CLIP)


def main():
    torch.set_num_threads(1)
    arena.ARMS["vd_weighted"] = weighted
    table = record.Table(OUT)
    for job in record.todo(record.jobs(seed=SEEDS, world=WORLDS), table):
        model, facts, _ = bench.train_arm("vd_weighted", job["world"], job["seed"])
        task = arena.world(job["world"])
        x, _ = bench.forecast(model, task.past, **bench.sampler("vd"))
        judged = {(r["judge"], r["horizon"]): r for r in task.judge(x)}
        rows = [dict(clip="all", **judged[k, "all"]) for k in ("crps", "spread")]
        rows += [
            dict(clip=i, judge="crps", horizon="all", value=v)
            for i, v in enumerate(bench.per_clip(x, task.target))
        ]
        table.put(job, rows, dict(steps=facts["steps"], **record.provenance()))
        record.tell(rows[:2], "judge", "value")


if __name__ == "__main__":
    sys.exit(main())
