"How many clips a second the made-up worlds draw.   OMP_NUM_THREADS=2 python tests/benchmarks/data_speed.py [seconds]"

import platform
import sys
import time

import torch

from vidiffedu.core import seeded
from vidiffedu.data import bouncing, moving_leaves, probe_leaves

CALLS = {
    "moving_leaves, 16 frames of 32 x 32, 2 to 12 disks": lambda n, g: moving_leaves(
        n, 16, 32, generator=g
    ),
    "moving_leaves, 3 frames of 16 x 16, 2 disks, q = 0.7": lambda n, g: moving_leaves(
        n, 3, 16, disks=(2, 2), q=0.7, generator=g
    ),
    "probe_leaves, 2 + 1 frames of 16 x 16": lambda n, g: probe_leaves(n, generator=g),
    "bouncing, 16 frames of 32 x 32, 1 sprite": lambda n, g: bouncing(n, 16, 32, generator=g),
}


def rate(call, n, seconds, device):
    "Clips a second: the median of repeated calls that each draw n clips."
    g, times, end = seeded(0, device), [], time.perf_counter() + seconds
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    call(n, g)
    wait()
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        call(n, g)
        wait()
        times.append(time.perf_counter() - start)
    return n / sorted(times)[len(times) // 2]


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        for name, call in CALLS.items():
            for n in (64, 1000):
                print(
                    f"{device}  {name}, {n} at a time: {rate(call, n, seconds, device):,.0f} clips a second",
                    flush=True,
                )
