"""How long the presets `tiny` take, from a folder of films to a table of scores:   python tests/benchmarks/tiny_runs.py [--csv FILE] [METHOD ...]

60 films of 40 frames are written (bouncing sprites, 32x32, h264), then for each method `train`, `forecast` and `evaluate` run as commands of their
own, with the preset's settings. Seconds are of the clock on the wall; busy.py tells whether anything else was running."""

import argparse
import csv
import datetime
import os
import platform
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


def seconds(*words):
    begun = time.perf_counter()
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words], env=env, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return time.perf_counter() - begun, done.stdout


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
            run, took = str(Path(folder) / method), {}
            took["train"], _ = seconds("train", method, str(films), "--out", run, "--quiet")
            took["forecast"], _ = seconds("forecast", run, str(films / "00.mp4"))
            took["evaluate"], said = seconds("evaluate", run)
            crps = next(line.split() for line in said.splitlines() if line.startswith("crps "))
            row = dict(method=method, **{k: f"{v:.1f}" for k, v in took.items()})
            rows.append(row | dict(crps=crps[1], copy_crps=crps[3], **fixed))
            print(rows[-1], flush=True)
            if args.csv:
                with open(args.csv, "w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)


if __name__ == "__main__":
    main()
