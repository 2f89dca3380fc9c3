"""What the presets `tiny` cost, from a folder of films to a table of scores:   python tests/benchmarks/tiny_runs.py [--csv FILE] [METHOD ...]

60 films of 40 frames are written (bouncing sprites, 32x32, h264), then for each method `train`, `forecast` and `evaluate` run as commands of their
own, with the preset's settings and one thread. Counted are processor seconds, which other programs hardly change; on an idle machine of two cores the
clock on the wall shows about as many or fewer. `load` is how many programs wanted to run meanwhile (the mean of the minute before each command ends).
The last columns: CRPS of the preset's futures and of the last frame, repeated."""

import argparse
import csv
import datetime
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from vidiffedu import configs  # noqa: E402
from vidiffedu.core import seeded  # noqa: E402
from vidiffedu.data import bouncing  # noqa: E402
from vidiffedu.player import save_clip  # noqa: E402

COMMAND = """
import argparse, sys
from vidiffedu import runs
parser = argparse.ArgumentParser()
runs.add_arguments(parser, sys.argv[1])
sys.exit(runs.run_command(parser.parse_args(sys.argv[2:]), sys.argv[1]))
"""


def spent(*words):
    "(processor seconds of a command, seconds on the wall, what it printed)."
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    env = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words], env=env, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - begun
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, wall, done.stdout


def one(method, films, folder):
    "A row: what the three commands cost, and the scores of the last."
    run, row, load, wall = str(folder / method), dict(method=method), [], 0.0
    commands = dict(
        train=("train", method, str(films), "--out", run, "--quiet"),
        forecast=("forecast", run, str(films / "00.mp4")),
        evaluate=("evaluate", run),
    )
    for name, words in commands.items():
        used, took, said = spent(*words)
        row[name], wall = round(used, 1), wall + took
        load.append(os.getloadavg()[0])
    marks = {words[0]: words for line in said.splitlines() if (words := line.split())}
    crps = marks["crps"]
    total = dict(all=round(sum(row[name] for name in commands), 1), wall=round(wall, 1))
    return row | total | dict(load=round(max(load), 1), crps=crps[1], copy_crps=crps[3])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("methods", nargs="*", default=list(configs.METHODS))
    parser.add_argument("--csv")
    args, rows = parser.parse_args(), []
    fixed = dict(hardware=f"{platform.machine()}, {os.cpu_count()} cores")
    fixed["date"] = datetime.date.today().isoformat()
    with tempfile.TemporaryDirectory() as folder:
        films = Path(folder) / "films"
        for i, clip in enumerate(bouncing(60, 40, 32, generator=seeded(0))):
            save_clip(films / f"{i:02d}.mp4", clip, scale=1)
        for method in args.methods:
            rows.append(one(method, films, Path(folder)) | fixed)
            print(rows[-1], flush=True)
            if args.csv:
                with open(args.csv, "w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)


if __name__ == "__main__":
    main()
