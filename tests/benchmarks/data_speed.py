"""How many clips a second the made-up worlds draw, painted in portions and all at once.

    python tests/benchmarks/data_speed.py [--seconds 2] [--threads 1]

AMD EPYC, 2 cores, torch 2.13 CPU, 2026-11-26, clips a second in portions / all at once, 1,000 clips:
moving_leaves, 16 frames of 32 x 32: 7,112 / 592; probe_leaves: 90,675 / 76,422; bouncing: 9,682 / 2,057.
"""

import argparse
import platform
import time

import torch

from vidiffedu import data
from vidiffedu.core import seeded

CALLS = {
    "moving_leaves, 16 frames of 32 x 32, 2 to 12 disks": lambda n, g: data.moving_leaves(
        n, 16, 32, generator=g
    ),
    "moving_leaves, 3 frames of 16 x 16, 2 disks, q = 0.7": lambda n, g: data.moving_leaves(
        n, 3, 16, disks=(2, 2), q=0.7, generator=g
    ),
    "probe_leaves, 2 + 1 frames of 16 x 16": lambda n, g: data.probe_leaves(n, generator=g),
    "bouncing, 16 frames of 32 x 32, 1 sprite": lambda n, g: data.bouncing(n, 16, 32, generator=g),
    "turning_leaf, 2 + 2 frames of 16 x 16": lambda n, g: data.turning_leaf(
        n, future=2, generator=g
    ),
}
WAYS = {"in portions": data._portions, "all at once": lambda order, pixels: [order]}


def rates(call, n, seconds, device):
    "Clips a second both ways: medians of interleaved calls that each draw n clips."
    g, times = seeded(0, device), {way: [] for way in WAYS}
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["in portions"]) < 4:
        for way, data._portions in WAYS.items():
            start = time.perf_counter()
            call(n, g)
            wait()
            times[way].append(time.perf_counter() - start)
    return {way: n / sorted(t[1:])[len(t) // 2 - 1] for way, t in times.items()}


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--seconds", type=float, default=2.0)
    p.add_argument("--threads", type=int)
    args = p.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for name, call in CALLS.items():
            for n in (64, 1000):
                found = rates(call, n, args.seconds, device)
                line = ", ".join(f"{r:,.0f} {way}" for way, r in found.items())
                print(f"{device}  {name}, {n} clips: {line}", flush=True)
