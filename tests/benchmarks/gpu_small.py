"""What one GPU says in a few minutes:   python tests/benchmarks/gpu_small.py --limit 300 --out gpu_small.csv [--only papers compiled] [--device cpu --preset tiny]

The rows are written as they come, the most wanted first; what does not fit into --limit seconds is left out and named at the end.
rate        this GPU's own matrix product, 8192x8192 in bfloat16 (always)
agree       every preset's loss and gradients in bfloat16 beside float32: relative difference of the loss, of the gradients' length
steps       a training step (loss, backward, fused AdamW) of each method's preset, as it is: clips a second, peak memory,
            share of the matrix rate (operations of forward and backward as PyTorch counts them)
papers      the same of the papers' networks, at a batch that fits
runs        the command `train` itself, --steps steps of each method's preset on a computed world: first and last loss, clips a second
compiled    steps and papers compiled, the papers' first; each in a process of its own, which ends after --each seconds, whatever it has reached
Times are medians after a warm-up, the device synchronised around each.
"""

import argparse
import csv
import datetime
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from vidiffedu import configs, jobs, parts  # noqa: E402

METHODS = list(configs.METHODS)
PARTS = ["agree", "steps", "papers", "runs", "compiled"]
PAPERS = ["vector", "masks", "residual", "bridge", "score"]  # in order of worth
PAPER_BATCH = dict(score=32, bridge=4, vector=4, masks=8, residual=4)


class Told:
    "Rows of a CSV file, each written at once."

    def __init__(self, path, device, more=False):
        name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
        day = datetime.date.today().isoformat()
        self.fixed = dict(hardware=name, torch=torch.__version__, date=day)
        if path and not more:
            open(path, "w").close()
        # appended, also by the first process: a compiled step writes from one of its own
        self.file = open(path, "a", newline="", encoding="utf-8") if path else None
        names = ["what", "which", "value", "unit", *self.fixed]
        if self.file:
            self.writer = csv.DictWriter(self.file, names, lineterminator="\n")
            if not more:
                self.writer.writeheader()

    def __call__(self, what, which, value, unit=""):
        print(f"{what:44s} {which:26s} {value:12.5g} {unit}", flush=True)
        if self.file:
            row = dict(what=what, which=which, value=f"{value:.6g}", unit=unit)
            self.writer.writerow(row | self.fixed)
            self.file.flush()
            os.fsync(self.file.fileno())


def config_of(method, preset, **changes):
    given = dict(latent=None, workers=0) | changes
    if preset == "paper" and method == "vector":
        given |= dict(size=32, channels=4)
    return configs.preset(method, preset, **given)


def method_on(config, device):
    torch.manual_seed(0)
    model = parts.method_of(config, range=None).to(device).train()
    if config.method == "residual":
        model.scale.fill_(0.3)
    return model


def clips_like(config, batch, device):
    shape = batch, config.frames, config.channels, config.size, config.size
    noise = torch.rand(shape, generator=torch.Generator(device).manual_seed(0), device=device)
    return (2 * noise - 1).cumsum(1).div(config.frames**0.5).clamp(-1, 1)


def loss_of(model, clip, low, seed=1):
    generator = torch.Generator(clip.device).manual_seed(seed)
    with torch.autocast(clip.device.type, torch.bfloat16, enabled=low):
        return model.loss(clip, generator=generator)


def agree(say, config, device):
    "bfloat16 beside float32."
    found = []
    for low in (False, True):
        model, clip = method_on(config, device), clips_like(config, 4, device)
        for p in model.parameters():  # layers that begin at zero would hide all before them
            if not p.any():
                torch.nn.init.normal_(p, std=0.02)
        loss = loss_of(model, clip, low)
        loss.backward()
        grads = [p.grad.float().square().sum() for p in model.parameters() if p.grad is not None]
        found.append((loss.item(), torch.stack(grads).sum().sqrt().item()))
    (loss, length), (low_loss, low_length) = found
    say("bf16: loss, relative difference", config.method, low_loss / loss - 1)
    say("bf16: length of the gradient, the same", config.method, low_length / length - 1)


def step_of(model, clip, low):
    how = dict(lr=1e-4, fused=clip.device.type in ("cpu", "cuda"))
    optimizer = torch.optim.AdamW(model.parameters(), **how)
    generator = torch.Generator(clip.device).manual_seed(0)

    def step():
        with torch.autocast(clip.device.type, torch.bfloat16, enabled=low):
            loss = model.loss(clip, generator=generator)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def seconds_of(work, device, calls=10, warm=3):
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(warm):
        work()
    took = []
    for _ in range(calls):
        wait()
        begun = time.perf_counter()
        work()
        wait()
        took.append(time.perf_counter() - begun)
    return sorted(took)[len(took) // 2]


def matrix_rate(say, device):
    n, kind = (8192, torch.bfloat16) if device.type == "cuda" else (512, torch.float32)
    a, b = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
    rate = 2 * n**3 / seconds_of(lambda: torch.mm(a, b), device, 30)
    say("matrix product", f"{n}, {kind}".replace("torch.", ""), rate / 1e12, "TFLOP/s")
    return rate


def one_step(say, config, batch, device, rate, compiled, calls):
    "Clips a second, memory and share of a training step."
    model, clip = method_on(config, device), clips_like(config, batch, device)
    counter, low = FlopCounterMode(display=False), device.type == "cuda"
    with counter:
        loss_of(model, clip[:1], low).backward()
    operations = counter.get_total_flops() * batch
    model.zero_grad(set_to_none=True)
    if compiled:
        parts.compiled(model)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(step_of(model, clip, low), device, calls)
    which = f"{config.method} {config.preset}, batch {batch}{', compiled' if compiled else ''}"
    say("training step, clips a second", which, batch / seconds, "1/s")
    if device.type == "cuda":
        most = torch.cuda.max_memory_allocated() / 2**30
        say("training step, peak memory", which, most, "GiB")
    say("training step, operations a clip", which, operations / batch / 1e9, "GFLOP")
    say("training step, share of the matrix rate", which, operations / seconds / rate)


def one_run(say, config, steps, device):
    "The command `train` on a computed world."
    world = "fork" if config.frames < 8 else "sprites"
    changes = dict(data=world, channels=1, steps=steps, warmup=min(10, steps // 2), compile=False)
    changes |= dict(every=steps, log_every=max(1, steps // 4), valid_every=0, sample_every=0)
    changes |= dict(horizon=2, samples=2)  # for the film at the end
    config = configs.changed(config, changes | dict(keep=False))
    if device.type != "cuda":
        config = configs.changed(config, dict(precision="no"))
    with tempfile.TemporaryDirectory() as folder:
        how = dict(progress=False, say=lambda *_: None)
        run = jobs.train_run(config, Path(folder) / "run", **how)
        rows = list(csv.DictReader((Path(folder) / "run" / "log.csv").open()))
    which, n = f"{config.method} {config.preset}, {steps} steps", max(1, steps // 10)
    say("run, mean of the first losses", which, float(run.losses[:n].mean()))
    say("run, mean of the last losses", which, float(run.losses[-n:].mean()))
    say("run, clips a second", which, float(rows[-1]["clips_per_second"]), "1/s")


def batch_of(a, method, preset):
    "Clips a step."
    if preset == "paper":
        return PAPER_BATCH[method]
    batch = configs.preset(method, preset).batch_size
    return min(a.batch or batch, batch)


def beside(a, method, preset, rate, left):
    "A compiled step in a process of its own, ended when its time is over."
    words = [sys.executable, __file__, "--one", method, preset, str(rate), "--calls", str(a.calls)]
    words += ["--device", a.device, *(["--out", a.out] if a.out else [])]
    words += ["--batch", str(a.batch)] if a.batch else []
    subprocess.run(words, timeout=max(5.0, min(a.each, left())), check=True)


def only_one(a):
    "What such a process does."
    method, preset, rate = a.one
    device = torch.device(a.device)
    say, config = Told(a.out, device, more=True), config_of(method, preset)
    calls = 5 if preset == "paper" else a.calls
    one_step(say, config, batch_of(a, method, preset), device, float(rate), True, calls)


def pieces(a, device, say, rate, left):
    "(part, name, work) in order of worth."
    for m in METHODS:
        config = config_of(m, a.preset)
        yield "agree", f"bf16 of {m}", lambda c=config: agree(say, c, device)
    for part, preset in (("steps", a.preset), ("papers", "paper")):
        for m in METHODS if part == "steps" else PAPERS:
            calls = a.calls if part == "steps" else 5
            how = config_of(m, preset), batch_of(a, m, preset), device, rate, False, calls
            yield part, f"{part}: {m}", lambda how=how: one_step(say, *how)
    for m in METHODS:
        config = config_of(m, a.preset)
        yield "runs", f"run of {m}", lambda c=config: one_run(say, c, a.steps, device)
    for preset in ("paper", a.preset):
        for m in PAPERS:
            work = lambda m=m, preset=preset: beside(a, m, preset, rate, left)
            yield "compiled", f"{m} {preset}, compiled", work


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--limit", type=float, default=300, help="seconds, from the start of this process"
    )
    parser.add_argument("--each", type=float, default=60, help="seconds for a compiled step")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--batch", type=int, help="at most")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    a, begun = parser.parse_args(), time.monotonic()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = torch.device(a.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_small.py: got no CUDA device, expected one (--device cpu --preset tiny)")
    if a.one:
        return only_one(a)
    if importlib.util.find_spec("av") is None:  # a run's last film cannot be written then
        jobs.Log.film = lambda self, step: None
    say, left = Told(a.out, device), lambda: a.limit - (time.monotonic() - begun)
    rate, skipped = matrix_rate(say, device), []
    for part, name, work in pieces(a, device, say, rate, left):
        if part not in a.only:
            continue
        if left() < 2:
            skipped.append(name)
            continue
        try:
            work()
        except Exception as error:  # one part's failure must not lose the others' numbers
            print(f"FAILED {name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            say(f"failed: {name}", type(error).__name__, float("nan"))
        if device.type == "cuda":
            torch.cuda.empty_cache()
    say("seconds in all", "", time.monotonic() - begun, "s")
    print("left out for lack of time:", ", ".join(skipped) or "nothing")


if __name__ == "__main__":
    main()
