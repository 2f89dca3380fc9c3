"""SIGKILL at random moments of training runs with checkpoints: is every resume bit-identical?

    python tests/benchmarks/kills.py --kills 20 --seed 0

A run is killed, resumed, killed again, until it reaches its last step. Then its checkpoint is compared,
bit for bit, with that of a run that nobody disturbed. Runs take turns: clips as a tensor, as a dataset
whose items draw random numbers, and as a function; the kills fall before the first checkpoint, between
two, and while one is written. The three that are short enough for the test suite are in tests/test_train.py.
"""

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import accelerate  # noqa: F401 (so that the children need not)
import torch
import torch._dynamo  # noqa: F401 (the optimizer's, likewise)
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_train import train  # noqa: E402 (beside this folder)

KINDS = ("tensor", "dataset", "function")


def start(kind, out, slow=0.004):
    "A process that trains, or goes on with what is there; it saves every third step."
    how = dict(every=3, resume=True, on_step=lambda *_: time.sleep(slow))
    fork = multiprocessing.get_context("fork")  # nothing is imported anew
    child = fork.Process(target=train, args=(kind, out), kwargs=how)
    child.start()
    return child


def killed(child, wait):
    "Kill the child after `wait` seconds; False if it was through before."
    child.join(wait)
    if child.exitcode is None:
        child.kill()
        child.join()
    assert child.exitcode in (0, -9), child.exitcode
    return child.exitcode != 0


def differing(a, b):
    "Names of the tensors in which two checkpoints differ."
    a, b = (load_file(Path(p) / "checkpoint.safetensors") for p in (a, b))
    return [k for k in {**a, **b} if k not in a or k not in b or not torch.equal(a[k], b[k])]


def one_run(kind, out, left, draw, lasts):
    "Kill and resume until the run is through: where each kill fell."
    where = []
    while True:
        child = start(kind, out)
        wait = draw.uniform(0, 0.7 * lasts) if len(where) < left else 600
        if not killed(child, wait):
            return where
        files = {path.name for path in out.iterdir()} if out.is_dir() else set()
        part = any(name.endswith(".part") for name in files)
        none = "checkpoint.safetensors" not in files
        where.append("while writing" if part else "before the first" if none else "between two")


def main():
    sys.stdout.reconfigure(line_buffering=True)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    draw, where, runs, wrong = random.Random(args.seed), Counter(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        alone = {kind: Path(folder) / f"alone_{kind}" for kind in KINDS}
        for kind, out in alone.items():
            begun = time.time()
            assert not killed(start(kind, out), 600)
            lasts = time.time() - begun
        while where.total() < args.kills:
            kind, out = KINDS[runs % 3], Path(folder) / str(runs)
            fell = one_run(kind, out, args.kills - where.total(), draw, lasts)
            odd, runs = differing(out, alone[kind]), runs + 1
            where.update(fell)
            wrong += bool(odd)
            print(f"{kind}: killed {len(fell)} times, {odd or 'bit-identical'}")
    fell = ", ".join(f"{n} {what}" for what, n in where.most_common())
    print(f"{where.total()} kills ({fell}), {runs} runs, {wrong} of them not bit-identical")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
