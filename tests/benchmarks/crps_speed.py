"""CRPS and Fréchet distance beside the packages that compute them.

python tests/benchmarks/crps_speed.py [--threads 2] [--rounds 5] [--frechet | --sort]

Packages that are not installed are skipped:
pip install scoringrules properscoring xskillscore torchmetrics numba scikit-image scipy
All candidates take turns in every round; the best round counts, in seconds of wall clock and of
processor time. Each gets the members on the axis that suits it (its own copy, made beforehand and
not counted; ours always has them first, as `forecast` returns them). Compare ours on bytes with
the fastest of *both* blocks: the packages are quicker on the same numbers as float32, and some
overflow on bytes. "pwm" is the fair estimator.

--sort: what the sorting network and numpy's rows are worth for the whole score.
"""

import argparse
import os
import platform
import time

parser = argparse.ArgumentParser()
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--frechet", action="store_true", help="Fréchet distance at 2048 features")
parser.add_argument("--sort", action="store_true", help="our ways to sort")
args = parser.parse_args()
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(args.threads)

import numpy as np
import torch

from vidiffedu import crps as module
from vidiffedu import sorting
from vidiffedu.core import seeded
from vidiffedu.crps import crps
from vidiffedu.likeness import frechet_distance


def race(candidates, rounds):
    "The best (wall, processor) seconds of each, in interleaved rounds; the first is left out."
    best = {}
    for k in range(rounds + 1):
        for name, call in candidates.items():
            wall, busy = time.perf_counter(), time.process_time()
            call()
            spent = time.perf_counter() - wall, time.process_time() - busy
            if k:
                best[name] = tuple(map(min, best.get(name, spent), spent))
    return best


def others(samples, target, tag):
    "The packages' calls; `samples` (s n) numpy, `target` (n)."
    last, found = np.ascontiguousarray(samples.T), {}
    try:
        import properscoring

        found["properscoring"] = lambda: properscoring.crps_ensemble(target, last)
    except ImportError:
        pass
    try:
        import scoringrules

        for estimator in ("qd", "pwm", "nrg"):
            found[f"scoringrules {estimator}"] = lambda e=estimator: scoringrules.crps_ensemble(
                target, last, estimator=e
            )
            found[f"scoringrules {estimator} numpy"] = lambda e=estimator: (
                scoringrules.crps_ensemble(target, last, estimator=e, backend="numpy")
            )
    except ImportError:
        pass
    try:
        import xarray
        import xskillscore

        obs, fct = xarray.DataArray(target, dims="n"), xarray.DataArray(last, dims=("n", "member"))
        found["xskillscore"] = lambda: xskillscore.crps_ensemble(obs, fct, dim=[])
    except ImportError:
        pass
    try:
        from torchmetrics.functional.regression import continuous_ranked_probability_score

        few = torch.from_numpy(last), torch.from_numpy(target)
        found["torchmetrics"] = lambda: continuous_ranked_probability_score(*few)
    except ImportError:
        pass
    return {f"{name}, {tag}": call for name, call in found.items()}


def answers(call):
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]}"


def compare_crps():
    clips = torch.randint(0, 256, (100, 16, 64, 64, 3), generator=seeded(0)).to(torch.uint8)
    truth = torch.randint(0, 256, (16, 64, 64, 3), generator=seeded(1)).to(torch.uint8)
    floats = clips.float(), truth.float()
    candidates = {"ours, uint8": lambda: crps(clips, truth), "ours, float32": lambda: crps(*floats)}
    for tag, kind in (("float32", np.float32), ("uint8", np.uint8)):
        candidates |= others(
            clips.reshape(100, -1).numpy().astype(kind), truth.flatten().numpy().astype(kind), tag
        )
    exact = float(candidates["ours, uint8"]().double().mean())
    for name, call in list(candidates.items()):
        value = answers(call)
        if isinstance(value, str):
            print(f"{name}: left out, {value}")
            del candidates[name]
            continue
        mean = float(np.mean(np.asarray(value, dtype=np.float64)))
        start = time.process_time()
        call()
        slow = time.process_time() - start
        note = (
            ""
            if abs(mean / exact - 1) < 1e-5
            else f"   (another answer: mean {mean:.4f}, not {exact:.4f})"
        )
        if slow > 3:
            print(f"{name}: {slow:.1f} s of processor time, not raced{note}", flush=True)
            del candidates[name]
        elif note:
            print(name + note)
    return race(candidates, args.rounds)


def compare_frechet(d=2048):
    import scipy.linalg

    g = seeded(0)
    scale = torch.logspace(0, -2, d, dtype=torch.float64)
    (m1, c1), (m2, c2) = (
        (z.mean(0), torch.cov(z.T))
        for z in (torch.randn(5000, d, generator=g, dtype=torch.float64) * scale for _ in range(2))
    )
    few = torch.cov((torch.randn(1000, d, generator=g, dtype=torch.float64) * scale).T)

    def root():
        return float(
            ((m1 - m2) ** 2).sum()
            + c1.trace()
            + c2.trace()
            - 2 * np.trace(scipy.linalg.sqrtm((c1 @ c2).numpy()).real)
        )

    ours, theirs = frechet_distance(m1, c1, m2, c2), root()
    print(f"Frechet distance at {d}: ours {ours:.8f}, matrix square root {theirs:.8f}")
    print(f"relative difference {abs(ours / theirs - 1):.1e}")
    return race(
        {
            "ours": lambda: frechet_distance(m1, c1, m2, c2),
            "ours, 1000 clips for 2048 features": lambda: frechet_distance(m1, few, m2, few),
            "scipy.linalg.sqrtm": root,
        },
        args.rounds,
    )


def with_sort(way, clips, truth):
    def call():
        module.sort_members = way
        try:
            crps(clips, truth)
        finally:
            module.sort_members = sorting.sort_members

    return call


def numpy_rows(z):
    return torch.from_numpy(np.sort(z.T.contiguous().numpy(), -1)).T


def compare_sorts():
    ways = {
        "sort_members": sorting.sort_members,
        "torch.sort": lambda z: z.sort(0).values,
        "numpy rows": numpy_rows,
    }
    found = {}
    for s in (3, 10, 20, 100):
        shape = (s, 400 // s, 3, 64, 64)  # 5 million values
        clips = torch.randint(0, 256, shape, generator=seeded(s)).to(torch.uint8)
        for kind in (torch.uint8, torch.float32):
            given = clips.to(kind), clips[0].to(kind)
            tag = f"{s:3d} members, {str(kind).removeprefix('torch.')}"
            calls = {f"{tag}, {name}": with_sort(way, *given) for name, way in ways.items()}
            found |= race(calls, args.rounds)
    return found


if __name__ == "__main__":
    torch.set_num_threads(args.threads)
    print(
        f"torch {torch.__version__}, numpy {np.__version__}, {args.threads} thread(s), {platform.machine()}",
        flush=True,
    )
    if args.sort:
        found = compare_sorts()
    else:
        found = compare_frechet() if args.frechet else compare_crps()
        found = dict(sorted(found.items(), key=lambda item: item[1][1]))
    for name, (wall, busy) in found.items():
        print(f"{name:44s} wall {wall:8.4f} s   processor {busy:8.4f} s")
