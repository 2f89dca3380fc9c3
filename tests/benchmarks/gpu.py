"""What a real GPU says: python tests/benchmarks/gpu.py [--csv nbs/studies/gpu.csv] [--quick]

1. waits    no method's training step makes the device wait (PyTorch's own alarm, set_sync_debug_mode), and a sampler waits as
            often in 20 steps as in 10: only the table of coefficients is moved, before the loop
2. laws     a sampler on the GPU follows the exact law of a Gaussian world
3. steps    training steps a second of the chapters' networks, batch 32, in float32
4. papers   a training step of the papers' networks in bfloat16, clips a second and peak memory, plain and compiled
Needs CUDA. Times are medians after a warm-up, the device synchronised around each.
"""

import argparse
import csv
import datetime
import sys
import time
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import nets_speed  # noqa: E402  beside this file
from test_devices import METHODS  # noqa: E402

from vidiffedu import sample  # noqa: E402
from vidiffedu.oracle import GaussianClips  # noqa: E402
from vidiffedu.paths import VP, RectifiedFlow  # noqa: E402
from vidiffedu.times import grid  # noqa: E402

DEVICE = torch.device("cuda")


def step_of(model, clip, precision=None):
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    generator = torch.Generator(DEVICE).manual_seed(0)

    def step():
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            loss = model.loss(clip, generator=generator)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def alarms(work):
    "How often `work` made the device wait, by PyTorch's own alarm."
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [str(w.message) for w in heard if "synchroniz" in str(w.message)]


def waits(say):
    for name, make in METHODS.items():
        clip = (torch.rand(2, 4, 1, 8, 8) * 2 - 1).to(DEVICE)
        model = make().to(DEVICE).train()
        step = step_of(model, clip)
        step()
        say("waits in a training step", name, len(alarms(step)), "")
        past = clip[:, :3]
        counts = []
        for n in (10, 10, 20):
            how = dict(steps=n, generator=torch.Generator(DEVICE).manual_seed(1))
            counts.append(len(alarms(lambda how=how: model.forecast(past, 1, **how))))
        say("waits in a forecast of 10 steps", name, counts[1], "")
        say("waits in a forecast of 20 steps", name, counts[2], "")


def laws(say):
    world = GaussianClips(4, size=8, rho=0.8)
    for path in (VP(), RectifiedFlow()):
        x = torch.randn(20_000, 4, 1, 8, 8, device=DEVICE)
        ts = grid(50, 4)
        x = sample.sample(world.denoiser(path), path, x, ts, step=sample.heun_step)
        rows = x.permute(0, 2, 3, 4, 1).reshape(-1, 4).double().cpu()
        off = (torch.cov(rows.T) - world.cov_time).abs().max().item()
        say("largest error of a covariance", type(path).__name__, off, "pixels squared")


def median_seconds(work, calls):
    work(), work()
    took = []
    for _ in range(calls):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        work()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - begun)
    return sorted(took)[len(took) // 2]


def steps(say, calls):
    for name, make in METHODS.items():
        clip = (torch.rand(32, 4, 1, 8, 8) * 2 - 1).to(DEVICE)
        seconds = median_seconds(step_of(make().to(DEVICE).train(), clip), calls)
        say("training steps a second, small network", name, 1 / seconds, "1/s")


def papers(say, calls):
    for name, (make, shape) in nets_speed.PAPER.items():
        for compiled in (False, True):
            if compiled and "XL" in name:
                continue
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            net = make().to(DEVICE).train()
            if compiled:
                net.compile(dynamic=False)
            x = torch.randn(shape, device=DEVICE)
            t = torch.rand(shape[:2], device=DEVICE)
            seconds = median_seconds(nets_speed.training_step(net, x, t, bf16=True), calls)
            label = f"{name}, batch {shape[0]}{', compiled' if compiled else ''}"
            say("paper network, bf16, clips a second", label, shape[0] / seconds, "1/s")
            peak = torch.cuda.max_memory_allocated() / 2**30
            say("paper network, bf16, peak memory", label, peak, "GiB")
            del net


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--csv")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu.py: got no CUDA device, expected one")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    rows, name = [], torch.cuda.get_device_name()
    fixed = dict(hardware=name, torch=torch.__version__, date=datetime.date.today().isoformat())

    def say(what, which, value, unit):
        print(f"{what:42s} {which:34s} {value:10.4g} {unit}", flush=True)
        rows.append(dict(what=what, which=which, value=f"{value:.6g}", unit=unit, **fixed))

    parts = [waits, laws, lambda s: steps(s, 30), lambda s: papers(s, 5 if args.quick else 15)]
    for part in parts:
        try:
            part(say)
        except Exception as error:  # one part's failure must not lose the others' numbers
            print(f"FAILED: {type(error).__name__}: {error}", flush=True)
        if args.csv:
            with open(args.csv, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
