"""Run every notebook from top to bottom, each in a process of its own; write nbs/run_times.csv.

    python tests/benchmarks/run_times.py [--threads 2] [--only 08_score explorers/bridge ...]
Seconds are wall-clock, the start of the kernel included. Peak memory is the largest resident set, in MB, of the kernel, the processes it
started and the process that feeds it the cells (about 60 MB). A notebook is run on a copy: its stored outputs stay as they are. Rows of notebooks that are not run are kept.
"""

import argparse
import csv
import datetime
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
FIELDS = ["notebook", "seconds", "peak_mb", "threads", "torch", "hardware", "date"]


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
    pages, todo = 0, [pid]
    while todo:
        p = todo.pop()
        try:
            pages += int(pathlib.Path(f"/proc/{p}/statm").read_text().split()[1])
            for task in pathlib.Path(f"/proc/{p}/task").iterdir():
                todo += [int(c) for c in (task / "children").read_text().split()]
        except (OSError, ValueError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(notebook, folder, threads, timeout):
    "Seconds and peak MB of one notebook; a failing cell ends the benchmark with its traceback."
    code = (
        "import sys, nbformat; from nbclient import NotebookClient; nb = nbformat.read(sys.argv[1], 4)\n"
        "off = lambda c: any(l.replace(' ', '').lower().startswith(('#|eval:false', '#|slow')) for l in c.source.splitlines())\n"
        "nb.cells = [c for c in nb.cells if c.cell_type != 'code' or not off(c)]\n"
        f"NotebookClient(nb, timeout={timeout}, kernel_name='python3', resources={{'metadata': {{'path': sys.argv[2]}}}}).execute()"
    )
    cores = sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_setaffinity") else None
    env = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "VIDIFFEDU_FAST": "",
        "MPLBACKEND": "agg",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    start, peak, ended = time.perf_counter(), [0.0], threading.Event()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(notebook), str(folder)],
        env=env,
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
        sys.exit(f"{notebook.name} failed:\n{errors[-3000:]}")
    return time.perf_counter() - start, peak[0]


def measured(nbs):
    "{08_score: its path in nbs/} of the lessons, workshop pages and explorers."
    paths = [
        p.relative_to(nbs) for kind in ("[0-9]*", "explorers/*") for p in nbs.glob(f"{kind}.ipynb")
    ]
    return {p.with_suffix("").as_posix(): p for p in sorted(paths)}


def main(argv=None):
    parser = argparse.ArgumentParser(description="Measure the notebooks' run times.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=None, help="pages, e.g. 08_score")
    parser.add_argument("--out", default=str(ROOT / "nbs" / "run_times.csv"))
    parser.add_argument("--timeout", type=int, default=900, help="seconds for one cell")
    args = parser.parse_args(argv)
    from importlib.metadata import version

    out, rows = pathlib.Path(args.out), {}
    if out.is_file():
        with out.open(encoding="utf-8") as f:
            rows = {r["notebook"]: r for r in csv.DictReader(f)}
    pages = measured(ROOT / "nbs")
    missing = set(args.only or []) - set(pages)
    pages = {name: p for name, p in pages.items() if args.only is None or name in args.only}
    if missing:
        parser.error(f"--only: no notebook {', '.join(sorted(missing))} in nbs/")
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "nbs"
        shutil.copytree(ROOT / "nbs", copy, ignore=shutil.ignore_patterns("_*", ".*"))
        for name, p in pages.items():
            seconds, peak = run(copy / p, (copy / p).parent, args.threads, args.timeout)
            rows[name] = dict(
                notebook=name,
                seconds=f"{seconds:.1f}",
                peak_mb=f"{peak:.0f}",
                threads=args.threads,
                hardware=hardware(),
                torch=version("torch"),
                date=datetime.date.today().isoformat(),
            )
            print(f"{name:20s} {seconds:6.1f} s {peak:6.0f} MB", flush=True)
    rows = {k: r for k, r in sorted(rows.items()) if (ROOT / "nbs" / f"{k}.ipynb").is_file()}
    part = out.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
    os.replace(part, out)
    print(f"total {sum(float(r['seconds']) for r in rows.values()):.0f} s -> {out}")


if __name__ == "__main__":
    main()
