"""score: one process a job, and one table of their tables.

A study says `spread(__file__, jobs, a)` when it is called with --jobs N: N of its jobs then run at a time, each in a process
of one thread with a table of its own in a folder beside the study's table. Killed and started again, finished jobs are kept."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import record
import torch

from vidiffedu.train import save_weights


def spread(script, jobs, a, keys):
    """Run the jobs the table lacks, a.jobs at a time; `keys`: {column: its option}.

    Then join their tables, and copy what they kept for the lessons; -> the folder of the parts."""
    parts = a.out.parent / f"{a.out.stem}_parts"
    parts.mkdir(parents=True, exist_ok=True)
    rest = {k: v for k, v in vars(a).items() if k not in {"out", "full", "jobs", *keys.values()}}
    left = [job for job in jobs if not record.Table(a.out).of(job)]
    files = [parts / f"{'_'.join(map(str, job.values()))}.csv" for job in left]

    def run(job, file):
        options = {**rest, **{option: job[column] for column, option in keys.items()}}
        words = [sys.executable, script, "--out", file]
        for k, v in options.items():
            words += [f"--{k.replace('_', '-')}", *(v if isinstance(v, list) else [v])]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        subprocess.run([*map(str, words)], check=True, env=env)

    with ThreadPoolExecutor(a.jobs) as pool:
        list(pool.map(run, left, files))
    record.join(a.out, files, keys)
    if a.full:
        for file in parts.glob("*.safetensors"):
            shutil.copy(file, record.CHECKPOINTS)
    return parts


def keep(a, model, name):
    "The weights that a lesson loads: from the study itself, or from one of its jobs, beside that job's table."
    record.for_lessons(a, model, name)
    if not a.full and a.out is not None and a.out.parent.name.endswith("_parts"):
        save_weights(model, a.out.parent / f"{name}.safetensors", dtype=torch.float16)
