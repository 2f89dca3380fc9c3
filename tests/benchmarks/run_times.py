"""Run the course's notebooks from top to bottom, each in a process of its own; write nbs/run_times.csv.

    python tests/benchmarks/run_times.py                            what is not up to date
    python tests/benchmarks/run_times.py 08_score explorers/bridge  these pages, up to date or not
    python tests/benchmarks/run_times.py --all                      every page
    python tests/benchmarks/run_times.py --list                     say which are not up to date, run nothing

A page is up to date when its row was measured on this processor, with this torch and this many
threads, and its code cells are still those that were measured (column sha: the first 12 hex digits
of the SHA-256 of their sources). Each row is written as soon as it is known, so a measurement that
was stopped goes on when it is started again.

Every page runs with its default settings (VIDIFFEDU_FAST is not set: trainings run in full). Cells
marked `#| eval: false` or `#| slow` are left out. Seconds are wall-clock, the start of the kernel
included. Peak memory is the largest resident set, in MB, of the kernel, the processes it started and
the process that feeds it the cells (about 60 MB). A notebook is run on a copy: its stored outputs
stay as they are. A page that fails keeps its old row and is named at the end.
"""

import argparse
import csv
import datetime
import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIELDS = ["notebook", "seconds", "peak_mb", "threads", "torch", "hardware", "date", "sha"]
KINDS = ("[0-9]*", "explorers/*", "appendix/*", "errata", "teach/*", "assignments/*")


def code_sha(path):
    "12 hex digits that change when a code cell of the notebook changes; text and outputs do not count."
    cells = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:12]


def pages(nbs):
    "{08_score: its path in nbs/} of lessons, workshop pages, explorers and appendices."
    paths = [p.relative_to(nbs) for kind in KINDS for p in nbs.glob(f"{kind}.ipynb")]
    return {p.with_suffix("").as_posix(): p for p in sorted(paths)}


def read_rows(path):
    "{08_score: its row}"
    if not pathlib.Path(path).is_file():
        return {}
    with pathlib.Path(path).open(encoding="utf-8") as f:
        return {r["notebook"]: {k: r.get(k) or "" for k in FIELDS} for r in csv.DictReader(f)}


def write_rows(path, rows):
    "Sorted by name; the file is whole at any moment."
    part = pathlib.Path(path).with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))
    os.replace(part, path)


def machine(threads):
    from importlib.metadata import version

    return dict(threads=str(threads), torch=version("torch"), hardware=hardware())


def is_current(row, sha, here):
    return row is not None and row["sha"] == sha and all(row[k] == v for k, v in here.items())


def hardware():
    "The processor's name, if the system tells."
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        name = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{' '.join(name.split())}, {platform.system()}"


def tree_mb(pid):
    "Resident memory of a process and its children, in MB (Linux)."
    resident, todo = 0, [pid]
    while todo:
        p = todo.pop()
        try:
            resident += int(pathlib.Path(f"/proc/{p}/statm").read_text().split()[1])
            for task in pathlib.Path(f"/proc/{p}/task").iterdir():
                todo += [int(c) for c in (task / "children").read_text().split()]
        except (OSError, ValueError):
            continue
    return resident * os.sysconf("SC_PAGE_SIZE") / 2**20


RUN = """
import sys, nbformat
from nbclient import NotebookClient
nb = nbformat.read(sys.argv[1], 4)
marks = ("#|eval:false", "#|slow")
off = lambda c: any(l.replace(" ", "").lower().startswith(marks) for l in c.source.splitlines())
nb.cells = [c for c in nb.cells if c.cell_type != "code" or not off(c)]
how = dict(timeout=int(sys.argv[3]), kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}})
NotebookClient(nb, **how).execute()
"""


def environment(threads):
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    count = str(threads)
    ours = dict(OMP_NUM_THREADS=count, MKL_NUM_THREADS=count, MPLBACKEND="agg")
    env = {**os.environ, **ours, "PYTHONPATH": os.pathsep.join(paths)}
    env.pop("VIDIFFEDU_FAST", None)
    return env


def run(notebook, threads, timeout):
    "(seconds, peak MB, None) of one notebook, or (None, None, the end of its traceback)."
    cores = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_setaffinity") else None
    start, peak, ended = time.perf_counter(), [0.0], threading.Event()
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(notebook), str(notebook.parent), str(timeout)],
        env=environment(threads),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )

    def watch():
        while not ended.wait(0.05):
            peak[0] = max(peak[0], tree_mb(process.pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    _, errors = process.communicate()
    ended.set()
    if process.returncode:
        return None, None, errors[-3000:]
    return time.perf_counter() - start, peak[0], None


def parse(argv):
    parser = argparse.ArgumentParser(description="Measure the notebooks' run times.")
    parser.add_argument("pages", nargs="*", help="pages, e.g. 08_score; none: what has changed")
    parser.add_argument("--all", action="store_true", help="every page, up to date or not")
    parser.add_argument("--list", action="store_true", help="name what is not up to date")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default=str(ROOT / "nbs" / "run_times.csv"))
    parser.add_argument("--timeout", type=int, default=900, help="seconds for one cell")
    args = parser.parse_args(argv)
    if missing := sorted(set(args.pages) - set(pages(ROOT / "nbs"))):
        parser.error(f"pages: got {', '.join(missing)}, expected names of notebooks in nbs/")
    return args


def main(argv=None):
    args = parse(argv)
    known, here = pages(ROOT / "nbs"), machine(args.threads)
    rows = {k: r for k, r in read_rows(args.out).items() if k in known}
    shas = {name: code_sha(ROOT / "nbs" / p) for name, p in known.items()}
    todo = args.pages or list(known)
    if not args.pages and not args.all:
        todo = [name for name in known if not is_current(rows.get(name), shas[name], here)]
    if args.list:
        return print("\n".join(todo) or "all pages are up to date")
    failed = {}
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "nbs"
        shutil.copytree(ROOT / "nbs", copy, ignore=shutil.ignore_patterns("_*", ".*"))
        for name in todo:
            sha = code_sha(copy / known[name])  # of what is run, should the page change meanwhile
            seconds, peak, error = run(copy / known[name], args.threads, args.timeout)
            if error:
                failed[name] = error
                print(f"{name:24s} failed", flush=True)
                continue
            took = dict(seconds=f"{seconds:.1f}", peak_mb=f"{peak:.0f}", sha=sha)
            today = datetime.date.today().isoformat()
            rows[name] = dict(notebook=name, date=today, **took, **here)
            write_rows(args.out, rows)
            print(f"{name:24s} {seconds:6.1f} s {peak:6.0f} MB", flush=True)
    write_rows(args.out, rows)
    print(f"total {sum(float(r['seconds']) for r in rows.values()):.0f} s -> {args.out}")
    if failed:
        sys.exit("\n".join(f"{name} failed:\n{error}" for name, error in failed.items()))
    print("now run nbs/index.ipynb again: its table shows these numbers")


if __name__ == "__main__":
    main()
