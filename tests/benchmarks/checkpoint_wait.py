"""What a training step waits for a checkpoint, written in the step and beside it:   python tests/benchmarks/checkpoint_wait.py [--csv FILE] [--millions 30]

A model of that many weights (its checkpoint holds them, their average and Adam's two moments; the averaged weights are written once more), on the CPU with
one thread. The loop is stopped in both cases for the seconds counted here: on the wall, and of the processor, of the loop's own thread. Then the loop goes
on with steps while the thread writes, and is asked how much slower they are meanwhile. Medians of --times."""

import argparse
import csv
import datetime
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from vidiffedu.safety import Signals, save_checkpoint  # noqa: E402
from vidiffedu.scale import Writer  # noqa: E402
from vidiffedu.train import Trainee  # noqa: E402


class Wide(nn.Module):
    def __init__(self, millions):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1000, 1000) for _ in range(millions))

    def loss(self, clip, generator=None):
        return sum(layer(clip).square().mean() for layer in self.layers)


def timed(work):
    wall, own = time.perf_counter(), time.thread_time()
    work()
    return time.perf_counter() - wall, time.thread_time() - own


def median(pairs):
    return [sorted(values)[len(pairs) // 2] for values in zip(*pairs)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--millions", type=int, default=30)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--csv")
    a = parser.parse_args()
    torch.set_num_threads(1)
    run, clip = Trainee(Wide(a.millions), 1e-3, 0.0, "no"), torch.randn(8, 1000)

    def step():
        run.model.loss(clip).backward()
        run.update(1e-3, 1.0, 0.999)
        run.optimizer.zero_grad(set_to_none=True)

    step()
    rows, settings = [], dict(steps=1)
    fixed = dict(millions=a.millions, hardware=f"{platform.machine()}, {os.cpu_count()} cores")
    fixed["date"] = datetime.date.today().isoformat()

    def say(what, wall, own):
        row = dict(what=what, wall=f"{wall:.3f}", processor=f"{own:.3f}")
        rows.append(row | dict(load=f"{os.getloadavg()[0]:.1f}") | fixed)
        print(rows[-1], flush=True)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        say("a step, nothing written", *median([timed(step) for _ in range(a.times)]))
        whole = [timed(lambda: save_checkpoint(folder, run, settings)) for _ in range(a.times)]
        say("written in the step", *median(whole))
        copied, beside = [], []
        with Writer(folder, settings, Signals()) as writer:
            for _ in range(a.times + 1):
                copied.append(timed(lambda: writer.save(run)))
                while writer.thread.is_alive():
                    beside.append(timed(step))
        say("written beside: the first copy", *copied[0])
        say("written beside: a later copy", *median(copied[1:]))
        say("a step while a file is written", *median(beside))
    if a.csv:
        with open(a.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
