"""compare: what `vidiffedu compare` costs from shipped weights, world after world. About ten minutes on a quiet core.

    OMP_NUM_THREADS=1 python nbs/studies/compare_whole.py
Writes compare_whole.csv beside this file, one row a world: processor seconds of the command (its start, forecasts of all arms and baselines, every judge, files)
and the most memory that it held. Each world is a command of its own; processor seconds, unlike those of a clock, hardly depend on what else runs."""

import os
import pathlib
import subprocess
import sys
import tempfile

import record

from vidiffedu import arena

OUT = pathlib.Path(__file__).resolve().parent / "compare_whole.csv"


def cost(world):
    "Processor seconds and the most memory of one command, in an empty folder."
    with tempfile.TemporaryDirectory() as folder:
        words = ["compare", "--worlds", world, "--out", folder]
        process = subprocess.Popen([sys.executable, "-m", "vidiffedu", *words])
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        rows = len(list(pathlib.Path(folder, "rows").glob("*.json")))
    if process.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}")
    return dict(jobs=rows, seconds=used.ru_utime + used.ru_stime, bytes=1024 * used.ru_maxrss)


def main():
    table = record.Table(OUT)
    for job in record.todo([dict(world=w) for w in arena.SCENES], table):
        found = cost(job["world"])
        table.put(job, [found], record.facts())
        record.tell([found], "jobs", "seconds", "bytes")


if __name__ == "__main__":
    sys.exit(main())
