"""Million lattice updates a second of the vortex street, beside the `lettuce` package with an obstacle where that can be imported.

    OMP_NUM_THREADS=2 python tests/benchmarks/vortex_speed.py [--compile] [--device cuda] [--lettuce FOLDER]

Best of interleaved rounds. `--clock process` counts processor time (for a busy machine, at one thread); otherwise the wall clock.
FOLDER: where `pip install --target FOLDER lettucecfd h5py mmh3 pyevtk --no-deps` (Python 3.11: and `--ignore-requires-python`) has put lettuce."""

import argparse
import os
import platform
import sys
import time

import torch

from vidiffedu.core import seeded
from vidiffedu.data import VortexStreet

SHAPES = {"1 x 128 x 256, post 24": (1, 128, 256, 24), "8 x 64 x 128, post 12": (8, 64, 128, 12)}


def street(runs, h, w, d, device):
    return VortexStreet([100.0] * runs, (h, w), float(d), generator=seeded(0, device))


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


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--compile", action="store_true")
    p.add_argument("--device", default="cpu")
    p.add_argument("--lettuce")
    p.add_argument("--clock", default="wall", choices=("wall", "process"))
    p.add_argument("--rounds", type=int, default=8)
    a = p.parse_args()
    if a.lettuce:
        sys.path.insert(0, os.path.abspath(a.lettuce))
    clock, wait = (
        time.process_time if a.clock == "process" else time.perf_counter,
        torch.cuda.synchronize if a.device == "cuda" else lambda: None,
    )
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), {platform.machine()}, {a.device}, {a.clock} clock"
    )
    for name, (runs, h, w, d) in SHAPES.items():
        mine = {"VortexStreet": street(runs, h, w, d, a.device).step}
        if a.compile:
            fast = street(runs, h, w, d, a.device)
            fast.lattice.compile()
            mine["VortexStreet, compiled"] = fast.step
        if runs == 1:
            try:
                mine["lettuce"] = obstacle(h, w, d, a.device)
            except ImportError:
                print("lettuce is not installed: no comparison")
        for advance in mine.values():
            advance(3)
        rates = [
            runs * h * w / s / 1e6 for s in best(list(mine.values()), 50, a.rounds, clock, wait)
        ]
        for what, rate in zip(mine, rates):
            print(
                f"{name}: {what} {rate:.1f} MLUPS"
                + (
                    f", {rate / rates[-1]:.1f} times lettuce"
                    if "lettuce" in mine and what != "lettuce"
                    else ""
                ),
                flush=True,
            )
