"""What each saving in the video networks brings:   OMP_NUM_THREADS=2 python tests/benchmarks/nets_savings.py [--rounds N] [--csv FILE]
One saving at a time is taken back, then all of them, and a training step is timed in turn with the network as it stands. `ratio` is the median over the
rounds of time without over time with; `low` and `high` are the quartiles, for a shared machine is never quite still. Where linear layers are
convolutions GELU is kept for the backward pass, so that the bar of linear layers has that in it too."""

import argparse
import datetime
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from nets_speed import hardware, timed, training_step, write

from vidiffedu import nets
from vidiffedu.nets import VideoTransformer, VideoUNet


def explicit_attention(q, k, v):
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v


def autograd_norm(self, x, shift=None, scale=None, act=True):
    "As nets._plain_norm, without its copy, which would count against it, and with a SiLU in two operations"
    y = rearrange(
        F.group_norm(nets._channels_first(x), self.num_groups, self.weight, self.bias),
        "b c f h w -> b f h w c",
    )
    if shift is not None:
        y = y * (1 + scale) + shift
    return y * torch.sigmoid(y) if act else y


def mlp_with_tanh(self, x):
    return self.fall(F.gelu(self.rise(x), approximate="tanh"))


def repeat_then_convolve(self, x):
    return nets._Conv.forward(self, repeat(x, "b f h w c -> b f (h 2) (w 2) c").contiguous())


def modulate_every_token(self, x, t=None, cond=None):
    "VideoTransformer.forward, but the temporal blocks work out the modulation of each token, block by block"
    f, p, (h, w), d = (
        x.shape[1],
        self.patch,
        (n // self.patch for n in self.size),
        self.where.shape[-1],
    )
    e = F.silu(self.time(nets._frame_times(x, t)))
    weights, biases = (
        self.modulate.weight.split(6 * d),
        self.modulate.bias.split(6 * d),
    )  # of every block, and of the end
    spread = repeat(e, "b f d -> f b n d", n=h * w)
    x = self.enter(rearrange(x, "b f c (h p) (w q) -> f b (h w) (c p q)", p=p, q=p)) + self.where
    for i, block in enumerate(self.blocks):
        if i == 1:
            x = x + self.when[:f]
        tokens = spread if block.temporal else rearrange(e, "b f d -> f b 1 d")
        x = block(
            x, rearrange(F.linear(tokens, weights[i], biases[i]), "f b n (m d) -> m f b n d", d=d)
        )
    shift, scale = rearrange(F.linear(e, weights[-1], biases[-1]), "b f (m d) -> m f b 1 d", d=d)
    return rearrange(
        self.out(nets._modulated(x, shift, scale)),
        "f b (h w) (p q c) -> b f c (h p) (w q)",
        h=h,
        w=w,
        p=p,
        q=p,
    )


ATTENTION = ("fused attention", nets, "_attention", explicit_attention)
SAVINGS = {
    "transformer": [
        ATTENTION,
        ("one product for all modulations", VideoTransformer, "forward", modulate_every_token),
        ("linear layers to suit the processor", nets, "_amd", lambda amd=nets._amd(): not amd),
        ("GELU by its definition", nets._Block, "_mlp", mlp_with_tanh),
    ],
    "U-Net": [
        ATTENTION,
        ("norm, shift and SiLU in one", nets.TimedNorm, "forward", autograd_norm),
        (
            "six convolutions for twelve, along time",
            nets,
            "_winograd_pays",
            lambda x, channels: False,
        ),
        ("up-sampling without repetition", nets._Up, "forward", repeat_then_convolve),
    ],
}
NETWORKS = {
    "transformer": (
        lambda: VideoTransformer(4, 16, 16, patch=2, width=192, depth=6),
        (2, 16, 4, 16, 16),
    ),
    "U-Net": (lambda: VideoUNet(3, width=64, mults=(1, 2, 3), attention=(2,)), (2, 8, 3, 32, 32)),
}


@contextmanager
def without(savings):
    kept = [getattr(owner, name) for _, owner, name, _ in savings]
    for _, owner, name, plain in savings:
        setattr(owner, name, plain)
    try:
        yield
    finally:
        for (_, owner, name, _), was in zip(savings, kept):
            setattr(owner, name, was)


def measure(name, rounds):
    make, shape = NETWORKS[name]
    x, t, net, cpu = torch.randn(*shape), torch.rand(shape[:2]), make(), torch.device("cpu")
    as_it_is = training_step(net, x, t)

    def race(label, savings, fused=True):
        other, ratios = training_step(net, x, t, fused=fused), []
        for _ in range(rounds + 1):
            ours = timed(as_it_is, cpu)
            with without(savings):
                ratios.append(timed(other, cpu) / ours)
        low, ratio, high = (
            torch.tensor(ratios[1:]).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        )
        return dict(
            network=name,
            without=label,
            ratio=round(ratio, 3),
            low=round(low, 3),
            high=round(high, 3),
            rounds=rounds,
        )

    yield race("nothing: the same twice", [])
    for saving in SAVINGS[name]:
        yield race(saving[0], [saving])
    yield race("fused AdamW", [], fused=False)
    yield race("all of these", SAVINGS[name], fused=False)


def check(name):
    "Without any of the savings the network must answer the same"
    make, shape = NETWORKS[name]
    net, x, t = make(), torch.randn(*shape), torch.rand(shape[:2])
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.03)
    with torch.no_grad():
        with without(SAVINGS[name]):
            plain = net(x, t)
        torch.testing.assert_close(
            net(x, t), plain, rtol=1e-3, atol=1e-4 * plain.abs().max().item()
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--csv", help="append the rows to this file")
    args = parser.parse_args()
    facts = dict(
        hardware=hardware(torch.device("cpu")),
        torch=torch.__version__,
        date=datetime.date.today().isoformat(),
    )
    print(", ".join(facts.values()), "; random tensors", flush=True)
    for name in NETWORKS:
        check(name)
        for row in measure(name, args.rounds):
            print(
                "{network:12} without {without:44} {ratio:6.3f} times the time ({low:.3f} to {high:.3f})".format(
                    **row
                ),
                flush=True,
            )
            if args.csv:
                write(args.csv, {**row, **facts})


if __name__ == "__main__":
    main()
