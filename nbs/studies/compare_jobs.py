"""compare: train and measure every cell of the bench in a pool of processes, the most important first.

    python nbs/studies/compare_jobs.py --procs 16 --limit 260 --out DIR                 processor only
    python nbs/studies/compare_jobs.py --procs 16 --gpu-procs 6 --device cuda --limit 260 --out DIR --pack compare.tgz
    python nbs/studies/compare_jobs.py --procs 2 --limit 280 --out DIR                  goes on where it was stopped
    python nbs/studies/compare_jobs.py --collect --out DIR                              the tables, from what is in DIR
    python nbs/studies/compare_jobs.py --quick --out DIR                                a few seconds, to see that it runs

A job is a method, a world, a seed and a budget. Each process has one thread. Seed 0 of the budget of equal parameters, whose weights are shipped, is always
trained on a processor; with --device cuda `gpu-procs` processes train the other seeds on the GPU, and all forecasts are made there. A process takes no job
that, at the pace so far, would not end within the limit; what still runs then is stopped, and the job is left for the next call.
Writes DIR/rows/JOB.json (rows, facts, curve), DIR/effort/JOB.json (seed 0: CRPS against network calls), DIR/weights/* (seed 0: 8 bits and a card); --pack: all of them in one file."""

import argparse
import os
import pathlib
import sys
import tarfile
import time
import traceback

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

KINDS = ("cpu", "cuda")


def parser():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--procs", type=int, default=2, help="processes in all")
    p.add_argument("--gpu-procs", type=int, default=0, help="of these, how many train on the GPU")
    p.add_argument("--device", choices=KINDS, default="cpu", help="where forecasts are made")
    p.add_argument("--limit", type=float, default=86400.0, help="seconds")
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.add_argument("--pack", type=pathlib.Path, help="a .tgz of all that was written")
    p.add_argument("--methods", nargs="+")
    p.add_argument("--worlds", nargs="+")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--budgets", nargs="+")
    p.add_argument("--steps", type=int, help="training steps, other than the bench's own")
    p.add_argument("--collect", action="store_true", help="only join what is there")
    p.add_argument("--quick", action="store_true", help="5 steps, two methods, one world")
    return p


def allowed(job, train_on):
    "A GPU trains no job whose weights are shipped, and none that needs no training."
    return train_on == "cpu" or job.seed > 0 or job.budget == "seconds"


def share(job):
    "How long a job takes, in units of one of fvdm: jobs of equal seconds take 1."
    from vidiffedu.bench import GUESSES, PACE

    if job.method in GUESSES:
        return 0.1
    return PACE.get(job.method, 1.0) if job.budget == "parameters" else 1.0


def take(jobs, taken, train_on, left, unit):
    "The first job that is not taken, fits, and will end in the seconds left, or None."
    with taken.get_lock():
        for i, job in enumerate(jobs):
            if not taken[i] and allowed(job, train_on) and unit * share(job) < left:
                taken[i] = 1
                return job
    return None


def one(job, a, train_on):
    "Train, measure, write."
    from vidiffedu import bench

    steps = a.steps or bench.TRAINING_STEPS
    bench.do(job, a.out, steps, train_on, retrain=True, look=a.device, effort=not a.quick)


def worker(number, train_on, jobs, taken, units, ends, a):
    import torch

    torch.set_num_threads(1)
    kind = KINDS.index(train_on)
    while True:
        tic = time.time()
        job = take(jobs, taken, train_on, ends - tic, units[kind])
        if job is None:
            return
        try:
            one(job, a, train_on)
        except KeyboardInterrupt:
            return
        except Exception:
            print(f"{job.name}: failed\n{traceback.format_exc()}", flush=True)
            continue
        spent = time.time() - tic
        if share(job) >= 0.5:
            units[kind] = max(units[kind], spent / share(job))
        at = time.time() - ends + a.limit
        print(f"{at:6.0f} s  {number:2d} {train_on:4s} {job.name} {spent:.1f} s", flush=True)


def run(a, jobs):
    import torch.multiprocessing as mp

    context, ends = mp.get_context("spawn"), time.time() + a.limit
    taken, units = context.Array("b", len(jobs)), context.Array("d", 2)
    kinds = ["cuda"] * a.gpu_procs + ["cpu"] * (a.procs - a.gpu_procs)
    pool = [
        context.Process(target=worker, args=(i, kind, jobs, taken, units, ends, a))
        for i, kind in enumerate(kinds)
    ]
    for p in pool:
        p.start()
    for p in pool:
        p.join(max(0.1, ends - time.time()))
    for p in pool:
        if p.is_alive():
            p.terminate()
    for p in pool:
        p.join(5)
        if p.is_alive():
            p.kill()


def pack(a):
    "The row files, weights and efforts in one file."
    with tarfile.open(a.pack, "w:gz", compresslevel=6) as tar:
        for name in ("rows", "effort", "weights"):
            if (a.out / name).is_dir():
                tar.add(a.out / name, name)
    print(f"{a.pack}: {a.pack.stat().st_size / 2**20:.1f} MiB")


def main(argv=None):
    a = parser().parse_args(argv)
    if a.quick:
        quick = dict(methods=["oracle", "score", "fvdm"], worlds=["turn"], seeds=[0], steps=5)
        vars(a).update({k: v for k, v in quick.items() if getattr(a, k) in (None, [0, 1, 2])})
    from vidiffedu import bench

    jobs = bench.jobs_of(a.methods, a.worlds, a.seeds, a.budgets or bench.BUDGETS)
    left = [j for j in jobs if bench.read_rows(bench.row_file(a.out, j)) is None]
    print(f"{len(jobs) - len(left)} of {len(jobs)} jobs are there", flush=True)
    if not a.collect and left:
        run(a, left)
    done = sum(bench.row_file(a.out, j).is_file() for j in jobs)
    print(f"{done} of {len(jobs)} jobs are there", flush=True)
    if done:
        bench.collect(a.out)
    if a.pack:
        pack(a)


if __name__ == "__main__":
    sys.exit(main())
