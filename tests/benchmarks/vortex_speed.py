"""Million lattice updates a second of the vortex street, beside `lettuce` where that is there.

    python tests/benchmarks/vortex_speed.py [--threads 1 2] [--device cuda] [--lettuce FOLDER]

Best of interleaved rounds. `--clock process` counts processor time (for a busy machine, at one
thread); otherwise the wall clock. FOLDER: where
`pip install --target FOLDER lettucecfd h5py mmh3 pyevtk --no-deps`
(Python 3.11: and `--ignore-requires-python`) has put lettuce.

AMD EPYC, 2 cores, torch 2.13 CPU, 2026-11-26, million updates a second with 1 / 2 threads:
1 x 64 x 128 65 / 42; 8 x 64 x 128 100 / 95; 1 x 128 x 256 102 / 92; 8 x 128 x 128 94 / 102.
"""

import argparse
import os
import platform
import sys
import time

import torch

from vidiffedu.core import seeded
from vidiffedu.vortex import VortexStreet

SHAPES = {
    "1 x 64 x 128, post 12": (1, 64, 128, 12),
    "8 x 64 x 128, post 12": (8, 64, 128, 12),
    "1 x 128 x 256, post 24": (1, 128, 256, 24),
    "8 x 128 x 128, post 24": (8, 128, 128, 24),
}


def street(runs, h, w, d, device, threads):
    how = dict(generator=seeded(0, device), threads=threads)
    return VortexStreet([100.0] * runs, (h, w), float(d), **how).step


def obstacle(h, w, d, device):
    "lettuce's own flow past an obstacle, with the same post, speed and Reynolds number."
    import lettuce

    flow = lettuce.Obstacle(
        lettuce.Context(device=device, dtype=torch.float32, use_native=False),
        [w, h],
        reynolds_number=100,
        mach_number=0.1 * 3**0.5,
        domain_length_x=w / d,
        stencil=lettuce.D2Q9(),
    )
    x, y = flow.grid
    flow.mask = (x - w / d / 4) ** 2 + (y - h / d / 2) ** 2 < 0.25
    return lettuce.Simulation(
        flow, lettuce.BGKCollision(tau=flow.units.relaxation_parameter_lu), []
    )


def best(advances, ticks, rounds, clock, wait):
    "Seconds a tick of each, the least over interleaved rounds."
    least = [float("inf")] * len(advances)
    for _ in range(rounds):
        for i, advance in enumerate(advances):
            wait()
            start = clock()
            advance(ticks)
            wait()
            least[i] = min(least[i], (clock() - start) / ticks)
    return least


def candidates(shape, args):
    "By name: functions that advance a flow by so many ticks."
    found = {f"{n} thread(s)": street(*shape, args.device, n) for n in args.threads}
    if shape[0] == 1 and args.lettuce:
        found["lettuce"] = obstacle(*shape[1:], args.device)
    return found


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--threads", type=int, nargs="+", default=sorted({1, torch.get_num_threads()}))
    p.add_argument("--device", default="cpu")
    p.add_argument("--lettuce")
    p.add_argument("--clock", default="wall", choices=("wall", "process"))
    p.add_argument("--rounds", type=int, default=8)
    args = p.parse_args()
    if args.lettuce:
        sys.path.insert(0, os.path.abspath(args.lettuce))
    clock = time.process_time if args.clock == "process" else time.perf_counter
    wait = torch.cuda.synchronize if args.device == "cuda" else lambda: None
    what = f"{platform.machine()}, {args.device}, {args.clock} clock"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {what}")
    for name, shape in SHAPES.items():
        runs, h, w, _ = shape
        found = candidates(shape, args)
        for advance in found.values():
            advance(3)
        times = best(list(found.values()), 50, args.rounds, clock, wait)
        rates = [f"{k} {runs * h * w / s / 1e6:.1f}" for k, s in zip(found, times)]
        print(f"{name}: {', '.join(rates)} MLUPS", flush=True)
