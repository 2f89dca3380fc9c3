"""How fast residual video diffusion trains:   OMP_NUM_THREADS=1 python tests/benchmarks/residual_speed.py [--csv FILE] [--device cuda] [--only lesson]
A training step of RVD is forward, loss, backward and fused AdamW: at the lesson's size, and at the paper's [yang2022rvd]. `share` is the rate
of the step's floating-point operations over the rate of this machine's 1024x1024 float32 matrix product, measured in turn with it. It may exceed
one: on some machines convolutions run faster than matrix products. Three times the forward's operations are counted, and more exactly none are
needed. Inputs are random tensors, for time does not depend on what they show. The best of the rounds counts: whatever else the machine does can
only slow one down. With one thread processor time is counted, else the clock on the wall."""

import argparse
import datetime

import torch
from nets_speed import hardware, timed, write
from torch.utils.flop_counter import FlopCounterMode

from vidiffedu.denoise import FromNoise, noise_weight
from vidiffedu.paths import Cosine
from vidiffedu.recurrent import rvd_networks
from vidiffedu.residual import RVD

SIZES = {
    "lesson": ("laptop", (8, 8, 1, 32, 64)),
    "paper 64": (64, (1, 8, 1, 64, 64)),
    "paper 128": (128, (1, 8, 1, 128, 128)),
}  # networks, clips


def operations(model, clip):
    "Floating-point operations of a step: three times the forward's"
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.loss(clip)
    return 3 * counter.get_total_flops()


def training_step(model, clip):
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        model.loss(clip).backward()
        optimizer.step()

    return step


def measure(size, shape, device, rounds):
    path = Cosine()
    forecaster, net = rvd_networks(size)
    model = RVD(forecaster, FromNoise(net, path), path, weight=noise_weight(path)).to(device)
    clip = torch.rand(*shape, device=device) * 2 - 1
    flops, step = operations(model, clip), training_step(model, clip)
    a, b = torch.randn(2, 1024, 1024, device=device)
    step(), torch.mm(a, b)
    seconds, products = zip(
        *[(timed(step, device), timed(lambda: torch.mm(a, b), device, 5)) for _ in range(rounds)]
    )
    rate = 2 * 1024**3 / min(products)
    return dict(
        parameters=sum(p.numel() for p in model.parameters()),
        shape="x".join(map(str, shape)),
        ms=round(1e3 * min(seconds), 1),
        clips_per_second=round(shape[0] / min(seconds), 2),
        gflop=round(flops / 1e9, 1),
        share=round(flops / min(seconds) / rate, 3),
        matrix_gflops=round(rate / 1e9),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--only",
        default="lesson,paper 64",
        help=f"sizes, with commas between, of: {', '.join(SIZES)}",
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--csv", help="append the rows to this file")
    args = parser.parse_args()
    device = torch.device(args.device)
    facts = dict(
        hardware=hardware(device), torch=torch.__version__, date=datetime.date.today().isoformat()
    )
    print(", ".join(facts.values()), "; random tensors", flush=True)
    print(
        f"{'size':10} {'clips':>14} {'parameters':>11} {'ms':>8} {'clips/s':>8} {'GFLOP':>7} {'share':>6} {'matrix':>7}"
    )
    for name in args.only.split(","):
        row = dict(size=name, **measure(*SIZES[name], device, args.rounds))
        print(
            f"{name:10} {row['shape']:>14} {row['parameters']:11,} {row['ms']:8.1f} {row['clips_per_second']:8.2f} {row['gflop']:7.1f} {row['share']:6.0%} {row['matrix_gflops']:7}",
            flush=True,
        )
        if args.csv:
            write(args.csv, {**row, **facts})


if __name__ == "__main__":
    main()
