"""What each saving in the video networks brings:   OMP_NUM_THREADS=2 python tests/benchmarks/nets_savings.py [--rounds N] [--only NAME] [--csv FILE]
One saving at a time is taken back, then all passes of `kernels`, and a training step (or the network's part of a sampling step, of one clip) is
timed in turn with the network as it stands. `ratio` is the median over the rounds of time without over time with; `low` and `high` are the
quartiles, for a shared machine is never quite still; below one the saving costs time. `kept_mb` is what autograd keeps between forward and
backward without it. With one thread processor time is counted, else the clock on the wall."""

import argparse
import datetime
from contextlib import contextmanager, nullcontext
from unittest import mock

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from nets_speed import hardware, timed, training_step, write

from vidiffedu import kernels, nets
from vidiffedu.nets import VideoTransformer, VideoUNet


def explicit_attention(q, k, v):
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v


def kept_not_recomputed(f, x, *rest, on=True):
    return f(x, *rest)


def modulate_every_token(self, x, t=None, cond=None):
    "VideoTransformer.forward, but temporal blocks work out the modulation of each token, block by block"
    f, p, d = x.shape[1], self.patch, self.where.shape[-1]
    h, w = (n // p for n in self.size)
    e = F.silu(self.time(nets.all_times(x, t)))
    weights = self.modulate.weight.split(6 * d)  # of every block, and of the end
    biases = self.modulate.bias.split(6 * d)
    spread = repeat(e, "b f d -> f b n d", n=h * w)
    x = self.enter(rearrange(x, "b f c (h p) (w q) -> f b (h w) (c p q)", p=p, q=p)) + self.where
    for i, block in enumerate(self.blocks):
        if i == 1:
            x = x + self.when[:f]
        tokens = spread if block.temporal else rearrange(e, "b f d -> f b 1 d")
        m = F.linear(tokens, weights[i], biases[i])
        x = block(x, rearrange(m, "f b n (m d) -> m f b n d", d=d))
    m = F.linear(e, weights[-1], biases[-1])
    out = self.out(nets._modulated(x, *rearrange(m, "b f (m d) -> m f b 1 d", d=d)))
    return rearrange(out, "f b (h w) (p q c) -> b f c (h p) (w q)", h=h, w=w, p=p, q=p)


def in_clips(x, here=kernels._in_float32_on_a_cpu):
    return here(x) and len(x) > 1


FUSED = ("fused attention", nets, "attention", explicit_attention)
WIDE = ("attention in float32", nets, "attention", F.scaled_dot_product_attention)
MODULATIONS = (
    "one product for all modulations",
    VideoTransformer,
    "forward",
    modulate_every_token,
)
NORM = ("norms worked out again", nets, "recomputed", kept_not_recomputed)
SIX = ("six convolutions for twelve", kernels, "six_pay", lambda x, o: False)
ONE = ("oneDNN for a single clip", kernels, "_in_float32_on_a_cpu", in_clips)
SAVINGS = {
    ("transformer", "step"): [FUSED, MODULATIONS],
    ("transformer", "bf16 step"): [WIDE],
    ("U-Net", "step"): [FUSED, NORM, SIX],
    ("U-Net", "sampling"): [SIX, ONE],
}
NETWORKS = {
    "transformer": (
        lambda: VideoTransformer(4, 16, 16, patch=2, width=192, depth=6),
        (2, 16, 4, 16, 16),
    ),
    "U-Net": (lambda: VideoUNet(3, width=64, mults=(1, 2, 3), attention=(2,)), (2, 8, 3, 32, 32)),
}


@contextmanager
def without(saving):
    _, owner, name, plain = saving
    with mock.patch.object(owner, name, plain):
        yield


def kept(net, x, t, bf16):
    "MB that autograd keeps between forward and backward, parameters not counted"
    tensors, own = [], {p.untyped_storage().data_ptr() for p in net.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(lambda v: tensors.append(v) or v, lambda v: v):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            net(x, t)
    sizes = {s.data_ptr(): s.nbytes() for s in (v.untyped_storage() for v in tensors)}
    return sum(n for where, n in sizes.items() if where not in own) / 2**20


def work(net, x, t, what, fused=True):
    "A function that does the work once"
    if what == "sampling":
        return torch.no_grad()(lambda: net(x[:1], t[:1]))
    return training_step(net, x, t, bf16="bf16" in what, fused=fused)


def measure(name, what, rounds):
    make, shape = NETWORKS[name]
    x, t, net, cpu = torch.randn(*shape), torch.rand(shape[:2]), make(), torch.device("cpu")
    ours, other = work(net, x, t, what), work(net, x, t, what)

    def race(label, way, other=other):
        ratios = []
        for _ in range(rounds + 1):
            mine = timed(ours, cpu)
            with way():
                ratios.append(timed(other, cpu) / mine)
        with way():
            memory = kept(net, x, t, "bf16" in what) if "step" in what else 0
        quartiles = torch.tensor(ratios[1:]).quantile(torch.tensor([0.25, 0.5, 0.75]))
        low, ratio, high = (round(v, 3) for v in quartiles.tolist())
        row = dict(network=name, what=what, without=label, ratio=ratio, low=low, high=high)
        return {**row, "kept_mb": round(memory), "rounds": rounds}

    yield race("nothing: the same twice", nullcontext)
    for saving in SAVINGS[name, what]:
        yield race(saving[0], lambda saving=saving: without(saving))
    if what == "step":
        yield race("fused AdamW", nullcontext, work(net, x, t, what, fused=False))
    yield race("all of kernels", kernels.plain)


def check(name):
    "Without any of the savings the network must answer the same"
    make, shape = NETWORKS[name]
    net, x, t = make(), torch.randn(*shape), torch.rand(shape[:2])
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.03)
    named = [
        s for (n, what), all_ in SAVINGS.items() if n == name and "bf16" not in what for s in all_
    ]
    with torch.no_grad():
        mine = net(x, t)
        for saving in named:
            with without(saving):
                plain = net(x, t)
            bound = 1e-4 * plain.abs().max().item()
            torch.testing.assert_close(mine, plain, rtol=1e-3, atol=bound)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--csv", help="append the rows to this file")
    args = parser.parse_args()
    facts = dict(
        hardware=hardware(torch.device("cpu")),
        torch=torch.__version__,
        date=datetime.date.today().isoformat(),
    )
    print(", ".join(facts.values()), "; random tensors", flush=True)
    for name in {n: None for n, _ in SAVINGS if args.only in n}:
        check(name)
    for name, what in SAVINGS:
        for row in measure(name, what, args.rounds) if args.only in name else ():
            line = "{network:12} {what:9} without {without:32} {ratio:6.3f} times the time"
            line += " ({low:.3f} to {high:.3f}), {kept_mb} MB kept"
            print(line.format(**row), flush=True)
            if args.csv:
                write(args.csv, {**row, **facts})


if __name__ == "__main__":
    main()
