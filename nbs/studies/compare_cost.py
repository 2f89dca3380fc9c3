"""compare: what a forecast of each arm costs on one core. A few minutes on a quiet one.

    python nbs/studies/compare_cost.py
Writes compare_cost.csv beside this file, one row an arm, with the shipped weights of `turn`: calls of the network, processor seconds (one thread) for ten
futures of 1 clip and of 64, and of 1 clip the most bytes of tensors alive at once and the operations of the layers."""

import pathlib
import sys

import record
import torch

from vidiffedu import bench

OUT = pathlib.Path(__file__).resolve().parent / "compare_cost.csv"


def main():
    torch.set_num_threads(1)
    table = record.Table(OUT)
    for job in record.todo([dict(method=m) for m in bench.ARMS], table):
        found = {k: v for k, v in bench.cost(job["method"]).items() if k != "method"}
        table.put(job, [found], record.facts())
        record.tell([found], "evaluations", "one", "many", "bytes", "operations")


if __name__ == "__main__":
    sys.exit(main())
