"""How fast the video networks are:   OMP_NUM_THREADS=2 python tests/benchmarks/nets_speed.py [--compile] [--csv FILE] [--device cuda --paper]
A training step is forward, mean squared error, backward and fused AdamW. `share` is the rate of the step's floating-point operations
(three times the forward's, as PyTorch's counter has them for the layers as defined) over the rate of this machine's 1024x1024 float32 matrix
product (on a GPU, 8192x8192 in bfloat16), measured in turn with it. `done` counts only the operations carried out, fewer in wide convolutions.
Inputs are random tensors, for time does not depend on what they show. The best of the rounds counts: whatever else the machine does can only
slow one down. With one thread processor time is counted, else the clock on the wall."""

import argparse
import contextlib
import csv
import datetime
import platform
import resource
import time

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from vidiffedu import kernels
from vidiffedu.nets import VideoTransformer, VideoUNet, ramvid_unet, video_transformer

CPU = {
    "transformer": (
        lambda: VideoTransformer(4, 16, 16, patch=2, width=192, depth=6),
        (2, 16, 4, 16, 16),
    ),
    "U-Net": (lambda: VideoUNet(3, width=64, mults=(1, 2, 3), attention=(2,)), (2, 8, 3, 32, 32)),
    "small transformer": (
        lambda: VideoTransformer(1, 16, 8, patch=4, width=96, depth=4),
        (32, 8, 1, 16, 16),
    ),
    "small U-Net": (
        lambda: VideoUNet(1, width=16, mults=(1, 2, 4), attention=(2,)),
        (32, 8, 1, 16, 16),
    ),
}
PAPER = {
    "RaMViD": (lambda: ramvid_unet(), (8, 16, 3, 64, 64)),
    "transformer B": (lambda: video_transformer("B"), (8, 16, 4, 32, 32)),
    "transformer XL": (lambda: video_transformer("XL"), (4, 16, 4, 32, 32)),
}


def clock(device):
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def timed(f, device, calls=1):
    begun = clock(device)
    for _ in range(calls):
        f()
    return (clock(device) - begun) / calls


def matrix(device):
    "A function that multiplies two matrices, and its floating-point operations"
    n, kind = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
    return (lambda: torch.mm(a, b)), 2 * n**3


def training_step(net, x, t, bf16=False, fused=True):
    optimizer, target = torch.optim.AdamW(net.parameters(), 1e-4, fused=fused), torch.randn_like(x)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            out = net(x, t)
        F.mse_loss(out.float(), target).backward()
        optimizer.step()

    return step


def sampling(net, x, steps=50):
    "The network's part of DDIM-50 of one clip"
    x, t = x[:1], torch.linspace(1, 0, steps, device=x.device)

    @torch.no_grad()
    def run():
        for time_ in t:
            net(x, time_)

    return run


def one_clip(x, w, *args, out_shape, **kwargs):
    return conv_flop_count(x, w, out_shape)


def operations(net, x, t, bf16):
    "Floating-point operations of the forward pass: as the layers are defined, and those carried out"
    counts, shapes = [], {torch.ops.aten.mkldnn_convolution: one_clip}
    for way in (kernels.plain, contextlib.nullcontext):
        counter = FlopCounterMode(display=False, custom_mapping=shapes)
        low = torch.autocast(x.device.type, torch.bfloat16, enabled=bf16)
        with torch.no_grad(), way(), low, counter:
            net(x, t)
        counts.append(counter.get_total_flops())
    return counts


def peak(device):
    "GB so far; on a CPU of the whole process, so networks are best measured one a process (--only) for it"
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(name, make, shape, device, rounds, modes, checkpoint=False):
    net, x = make().to(device), torch.randn(*shape, device=device)
    for m in net.modules():
        if hasattr(m, "checkpoint"):
            m.checkpoint = checkpoint
    t = torch.rand(shape[:2], device=device)
    product, work = matrix(device)
    product()
    for mode in modes:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        training = mode != "DDIM-50"
        call = (
            torch.compile(net, dynamic=False) if "compiled" in mode else net
        )  # for one size; symbols for all sizes can take it minutes
        run = (
            training_step(call.train(), x, t, "bf16" in mode)
            if training
            else sampling(net.eval(), x)
        )
        run()
        seconds, rate = zip(
            *[(timed(run, device), work / timed(product, device, 5)) for _ in range(rounds)]
        )
        flops, done = (
            n * (3 if training else 50)
            for n in operations(
                net, x if training else x[:1], t if training else t[:1], "bf16" in mode
            )
        )
        if "compiled" in mode:
            done = flops  # a compiler is given the layers as defined
        yield dict(
            network=name,
            parameters=sum(p.numel() for p in net.parameters()),
            shape="x".join(map(str, shape)),
            what=mode,
            ms=round(1e3 * min(seconds), 1),
            clips_per_second=round((shape[0] if training else 1) / min(seconds), 2),
            gflop=round(flops / 1e9, 2),
            gflop_done=round(done / 1e9, 2),
            share=round(flops / min(seconds) / max(rate), 3),
            matrix_gflops=round(max(rate) / 1e9),
            peak_gb=round(peak(device), 2),
        )


def hardware(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    with open("/proc/cpuinfo") as f:
        names = [line.split(":")[1].strip() for line in f if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--paper", action="store_true", help="the papers' sizes, in bf16; for a GPU"
    )
    parser.add_argument("--only", help="measure networks whose name contains this")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpoint", action="store_true", help="recompute activations")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="a step under torch.compile as well; needs a C++ compiler",
    )
    parser.add_argument("--csv", help="append the rows to this file")
    args = parser.parse_args()
    device = torch.device(args.device)
    facts = dict(
        hardware=hardware(device), torch=torch.__version__, date=datetime.date.today().isoformat()
    )
    print(", ".join(facts.values()), "; random tensors", flush=True)
    print(
        f"{'network':18} {'shape':>15} {'what':>8} {'ms':>9} {'clips/s':>8} {'share':>6} {'done':>6} {'matrix':>7} {'GB':>6}"
    )
    for name, (make, shape) in (PAPER if args.paper else CPU).items():
        if args.only and args.only not in name:
            continue
        modes = (
            ("bf16", *["bf16 compiled"] * args.compile)
            if args.paper
            else ("float32", *["compiled"] * args.compile, "bf16", "DDIM-50")
        )
        for row in measure(name, make, shape, device, args.rounds, modes, args.checkpoint):
            print(
                f"{name:18} {row['shape']:>15} {row['what']:>8} {row['ms']:9.1f} {row['clips_per_second']:8.2f} {row['share']:6.0%} {row['share'] * row['gflop_done'] / row['gflop']:6.0%} {row['matrix_gflops']:7} {row['peak_gb']:6.2f}",
                flush=True,
            )
            if args.csv:
                write(args.csv, {**row, **facts})


def write(path, row):
    with open(path, "a", newline="") as f:
        out = csv.DictWriter(f, list(row), lineterminator="\n")
        if f.tell() == 0:
            out.writeheader()
        out.writerow(row)


if __name__ == "__main__":
    main()
