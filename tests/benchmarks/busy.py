"""What is left of the speed when another program keeps one core busy.

    python tests/benchmarks/busy.py [--only score vortex ...] [--steps 40] [--all]

Every chapter's training (its network, batch and clips, a few dozen steps), the vortex solver and
CRPS: first on the quiet machine, then beside a process that only counts. The number of threads is
the automatic choice each time. The aim is a share of at least 40 %. --all adds the busy rate with
all threads, which is what the choice is for.

AMD EPYC, 2 cores, torch 2.13 CPU, 2026-11-26, --steps 20 (share of the quiet rate):
score 83 %, bridge 73 %, vector 66 %, masks 69 %, residual 79 %, vortex 60 %, crps 69 %.
"""

import argparse
import platform
import subprocess
import sys
import time
from contextlib import contextmanager

import torch

from vidiffedu.bridge import CVP, matched_times
from vidiffedu.core import seeded
from vidiffedu.crps import crps
from vidiffedu.data import drifting_leaf, turning_leaf
from vidiffedu.denoise import ScaledInput, v_weight
from vidiffedu.masks import RaMViD
from vidiffedu.nets import BlindUNet, JoinedUNet
from vidiffedu.paths import VP, Bridge, Cosine
from vidiffedu.recurrent import rvd_networks
from vidiffedu.residual import RVD
from vidiffedu.score import BlindDenoiser, leaf_stream
from vidiffedu.train import fit
from vidiffedu.vector import FVDM
from vidiffedu.vortex import VortexStreet


def bridge():
    path, diffusion = Bridge(), Cosine()
    net = ScaledInput(JoinedUNet(frames=3, width=8), path)
    model = CVP(net, path, times=matched_times(path, diffusion))
    return model, lambda n, g: turning_leaf(n, generator=g).clip, 32


def vector():
    model = FVDM(JoinedUNet(frames=5), VP(), weight=v_weight(VP(), floor=0.2))
    return model, lambda n, g: drifting_leaf(n, 5, generator=g), 32


def masks():
    model = RaMViD(JoinedUNet(frames=5), VP(), weight=v_weight(VP(), floor=0.2))
    return model, lambda n, g: drifting_leaf(n, 5, generator=g), 32


def residual():
    "Films of noise in the shape of the chapter's: the speed does not depend on what they show."
    model = RVD(*rvd_networks("laptop"), scale=0.3, weight=v_weight(Cosine(), floor=0.1))
    return model, torch.rand(64, 8, 1, 32, 64, generator=seeded(0)) * 2 - 1, 8


TRAININGS = {
    "score": lambda: (BlindDenoiser(BlindUNet(past=2)), leaf_stream(0.7), 32),
    "bridge": bridge,
    "vector": vector,
    "masks": masks,
    "residual": residual,
}


def training(make):
    def rate(steps, threads):
        torch.manual_seed(0)
        model, clips, batch = make()
        how = dict(batch_size=batch, lr=1e-3, progress=False, threads=threads)
        run = fit(model, clips, steps=steps, **how)
        return run.steps_per_second, run.threads

    return rate, "steps"


def repeated(call, unit, amount):
    "Calls for two seconds: `amount` units each."

    def rate(steps, threads):
        call(threads)
        calls, start = 0, time.perf_counter()
        while time.perf_counter() < start + 2:
            used, calls = call(threads), calls + 1
        return amount * calls / (time.perf_counter() - start), used

    return rate, unit


def solver():
    street = VortexStreet([100.0] * 8, generator=seeded(0))  # 8 runs of 64 x 128 nodes

    def call(threads):
        street.threads = threads or 1
        street.step(20)
        return street.threads

    return repeated(call, "million updates", 20 * 8 * 64 * 128 / 1e6)


def score_of_forecasts():
    samples = torch.rand(20, 16, 16, 1, 32, 32, generator=seeded(0))

    def call(threads):
        if threads:
            torch.set_num_threads(threads)
        crps(samples, samples[0])
        return torch.get_num_threads()

    return repeated(call, "million values", samples.numel() / 1e6)


def cases():
    for name, make in TRAININGS.items():
        yield name, training(make)
    yield "vortex", solver()
    yield "crps", score_of_forecasts()


@contextmanager
def neighbour():
    "A process that keeps one core busy."
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.3)
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--only", nargs="*")
    p.add_argument("--steps", type=int, default=40)
    p.add_argument("--all", action="store_true")
    args = p.parse_args()
    all_threads = torch.get_num_threads()
    print(f"torch {torch.__version__}, {all_threads} threads, {platform.machine()}", flush=True)
    for name, (rate, unit) in cases():
        if args.only and name not in args.only:
            continue
        quiet, many = rate(args.steps, None)
        with neighbour():
            busy, few = rate(args.steps, None)
            rest = rate(args.steps, all_threads)[0] if args.all else None
        line = f"{name:9} {quiet:6.1f} {unit} a second on {many}, busy {busy:6.1f} on {few}"
        line += f": {busy / quiet:4.0%}" + (f" (on all {rest:.1f})" if rest else "")
        print(line, flush=True)
        torch.set_num_threads(all_threads)
