"""The video networks against plain re-statements of what they compute: attention with a softmax, loops over frames and groups.

The networks use fused attention, one product for all modulations, and the passes of `kernels` (tests/test_kernels.py)."""

import copy
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from vidiffedu.core import complaint
from vidiffedu.nets import (
    BlindUNet,
    JoinedUNet,
    JointAttention,
    ResBlock,
    VideoTransformer,
    VideoUNet,
    ramvid_unet,
    sinusoids,
    video_transformer,
)

SHAPE = (2, 4, 1, 8, 8)
MAKE = {
    "unet": lambda **k: VideoUNet(**{**dict(width=8, mults=(1, 2), attention=(1,), heads=2), **k}),
    "transformer": lambda **k: VideoTransformer(
        **{**dict(size=8, frames=8, patch=2, width=24, depth=4, heads=2), **k}
    ),
}
every_net = pytest.mark.parametrize("kind", MAKE)


def shaken(net, seed=0, dtype=torch.float64):
    "Weights of moderate size everywhere, zero initial ones included: else most of a network is never tested"
    G = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.data.copy_(
            torch.randn(p.shape, generator=G) / math.sqrt(max(1, p[0].numel()))
            + (p.ndim == 1) * 0.3
        )
    return net.to(dtype)


def clip(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape or SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


# ---- plain re-statements -------------------------------------------------------------------------------------------------------------


def plain_norm(x, norm, shift=None, scale=None):  # x (b c f h w); shift, scale (b f c)
    per = x.shape[1] // norm.num_groups

    def one(group):
        return (group - group.mean()) / (group.var(correction=0) + 1e-5).sqrt()

    out = torch.stack([torch.cat([one(group) for group in clip.split(per)]) for clip in x])
    out = out * norm.weight[:, None, None, None] + norm.bias[:, None, None, None]
    if shift is None:
        return out
    return torch.stack(
        [
            out[:, :, f] * (1 + scale[:, f, :, None, None]) + shift[:, f, :, None, None]
            for f in range(x.shape[2])
        ],
        2,
    )


def plain_attention(q, k, v):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v


def conv(x, layer, stride=1):
    return F.conv3d(x, layer.weight, layer.bias, stride=(1, stride, stride), padding=1)


def pointwise(x, layer):
    return torch.einsum("oc,bcfhw->bofhw", layer.weight, x) + layer.bias[:, None, None, None]


def plain_layer(layer, x, shift=None, scale=None):
    if isinstance(layer, ResBlock):
        h = conv(F.silu(plain_norm(x, layer.norm)), layer.conv)
        h = conv(F.silu(plain_norm(h, layer.norm_t, shift, scale)), layer.conv_t)
        return h + (x if isinstance(layer.skip, nn.Identity) else pointwise(x, layer.skip))
    if isinstance(layer, JointAttention):
        tokens = plain_norm(x, layer.norm).flatten(2).mT @ layer.qkv.weight.T + layer.qkv.bias
        heads = tokens.chunk(layer.heads, -1)  # a head's queries, keys and values stand together
        y = (
            torch.cat([plain_attention(*z.chunk(3, -1)) for z in heads], -1) @ layer.out.weight.T
            + layer.out.bias
        )
        return x + y.mT.reshape(x.shape)
    if type(layer).__name__ == "_Up":
        return conv(x.repeat_interleave(2, 3).repeat_interleave(2, 4), layer)
    return conv(x, layer, layer.stride[-1])


def plain_time(embedding, t):
    half = embedding.dim // 2
    angles = torch.stack([1000 * t * 10000 ** (-i / half) for i in range(half)], -1)
    h = torch.cat([torch.cos(angles), torch.sin(angles)], -1)
    h = h @ embedding.into.weight.T + embedding.into.bias
    return (h * torch.sigmoid(h)) @ embedding.out.weight.T + embedding.out.bias


def plain_unet(net, x, t):  # t (b f)
    e = F.silu(plain_time(net.time, t))
    m = iter((e @ net.modulate.weight.T + net.modulate.bias).split(net.splits, -1))

    def run(layers, h):
        for layer in layers:
            h = plain_layer(layer, h, *([next(m), next(m)] if isinstance(layer, ResBlock) else []))
        return h

    h = conv(x.transpose(1, 2), net.enter)
    seen = [h]
    for layers in net.down:
        seen.append(h := run(layers, h))
    h = run(net.middle, h)
    for layers in net.up:
        h = run(layers, torch.cat([h, seen.pop()], 1))
    return conv(F.silu(plain_norm(h, net.norm)), net.out).transpose(1, 2)


def plain_transformer(net, x, t):
    (b, f, _, H, W), p, d = x.shape, net.patch, net.where.shape[-1]
    m = F.silu(plain_time(net.time, t)) @ net.modulate.weight.T + net.modulate.bias
    m = m.unflatten(-1, (-1, d))[:, :, :, None]  # b f m 1 d

    def normed(h):
        return (h - h.mean(-1, keepdim=True)) / (
            h.var(-1, correction=0, keepdim=True) + 1e-6
        ).sqrt()

    cells = [(i, j) for i in range(0, H, p) for j in range(0, W, p)]
    patches = torch.stack([x[:, :, :, i : i + p, j : j + p].flatten(2) for i, j in cells], 2)
    h = patches @ net.enter.weight.T + net.enter.bias

    def waves(n, dim):
        return [
            g(n / 10000 ** (k / (dim // 2))) for g in (math.sin, math.cos) for k in range(dim // 2)
        ]

    h = h + torch.tensor(
        [waves(j // p, d // 2) + waves(i // p, d // 2) for i, j in cells], dtype=h.dtype
    )
    for k, block in enumerate(net.blocks):
        if k == 1:
            h = h + torch.tensor([waves(i, d) for i in range(f)], dtype=h.dtype)[:, None]
        shift, scale, gate, shift2, scale2, gate2 = m[:, :, 6 * k : 6 * k + 6].unbind(2)
        z = (normed(h) * (1 + scale) + shift) @ block.qkv.weight.T + block.qkv.bias
        heads = zip(*(y.chunk(block.heads, -1) for y in z.chunk(3, -1)))
        if k % 2:
            y = torch.cat(
                [
                    plain_attention(*(v.transpose(1, 2) for v in head)).transpose(1, 2)
                    for head in heads
                ],
                -1,
            )
        else:
            y = torch.cat([plain_attention(*head) for head in heads], -1)
        h = h + gate * (y @ block.out.weight.T + block.out.bias)
        z = (normed(h) * (1 + scale2) + shift2) @ block.rise.weight.T + block.rise.bias
        z = z * torch.special.ndtr(z)
        h = h + gate2 * (z @ block.fall.weight.T + block.fall.bias)
    z = (normed(h) * (1 + m[:, :, -1]) + m[:, :, -2]) @ net.out.weight.T + net.out.bias
    out = torch.empty(b, f, z.shape[-1] // p**2, H, W, dtype=z.dtype)
    for n, (i, j) in enumerate(cells):
        out[..., i : i + p, j : j + p] = z[:, :, n].unflatten(-1, (p, p, -1)).permute(0, 1, 4, 2, 3)
    return out


PLAIN = dict(unet=plain_unet, transformer=plain_transformer)


# ---- tests ---------------------------------------------------------------------------------------------------------------------------


@every_net
@pytest.mark.parametrize(
    "changes", [{}, dict(channels=2, out_channels=3), dict(checkpoint=True)], ids=str
)
def test_network_and_its_gradients_are_those_of_the_plain_form(kind, changes):
    net, theirs = shaken(MAKE[kind](**changes)), None
    x, t = (
        clip(2, 4, changes.get("channels", 1), 8, 8).requires_grad_(),
        torch.rand(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)),
    )
    t.requires_grad_()
    ours, theirs = net(x, t), PLAIN[kind](net, x, t)
    assert_close(ours, theirs, rtol=1e-3, atol=2e-4)  # frequencies and position tables are float32
    g = clip(*ours.shape, seed=3)
    params = [x, t, *net.parameters()]
    for a, b in zip(*(torch.autograd.grad(y, params, g) for y in (ours, theirs))):
        assert_close(a, b, rtol=1e-3, atol=1e-3 * b.abs().max().item())


def test_oblong_frames_and_deeper_unet():
    net, x, t = (
        shaken(VideoUNet(width=8, mults=(1, 2, 3), blocks=2, attention=(1, 2), heads=2)),
        clip(1, 3, 1, 8, 12),
        torch.rand(1, 3).double(),
    )
    assert_close(net(x, t), plain_unet(net, x, t), rtol=1e-3, atol=2e-4)
    net, x = shaken(MAKE["transformer"](size=(4, 8))), clip(1, 3, 1, 4, 8)
    assert_close(net(x, t), plain_transformer(net, x, t), rtol=1e-3, atol=2e-4)


@every_net
def test_times_of_every_shape_agree(kind):
    net, x = shaken(MAKE[kind]()), clip()
    for t in (torch.tensor(0.3), torch.tensor([0.3, 0.3]), 0.3):
        assert torch.equal(net(x, t), net(x, torch.full((2, 4), 0.3)))
    t = torch.tensor([0.2, 0.9])
    assert torch.equal(net(x, t), net(x, t[:, None].expand(2, 4)))
    assert torch.equal(net(x), net(x, torch.zeros(2, 4)))
    assert torch.isfinite(net(x, torch.tensor([-7.0, 12.0]))).all()  # log σ is a time too
    assert (net(x, t) - net(x, t.flip(0))).abs().max() > 1e-3


@every_net
def test_every_frame_has_its_own_time(kind):
    net, x, t = shaken(MAKE[kind]()), clip(), torch.full((2, 4), 0.5)
    for i in range(4):
        other = t.clone()
        other[0, i] = 0.9
        moved = (net(x, other) - net(x, t)).flatten(2).norm(dim=2)
        assert moved[0, i] > 1e-2 and moved[1].max() < 1e-9, (
            moved
        )  # the other clip knows nothing of it


@every_net
def test_known_frames_join_in_front_at_time_zero(kind):
    net, x, past, t = (
        shaken(MAKE[kind]()),
        clip(),
        clip(2, 2, 1, 8, 8, seed=5),
        torch.tensor([[0.1, 0.4, 0.7, 1.0], [1.0, 0.3, 0.2, 0.1]]),
    )
    for time, rows in ((t, t), (t[:, 0], t[:, :1].expand(2, 4)), (None, 0 * t)):
        whole = net(torch.cat([past, x], 1), torch.cat([torch.zeros(2, 2), rows], 1))
        assert_close(net(x, time, past), whole[:, 2:], rtol=1e-9, atol=1e-9)


@every_net
def test_untrained_network_answers_zero_yet_learns(kind):
    net, x = MAKE[kind](), clip(dtype=torch.float32)
    assert not net(x, 0.5).any()
    opt = torch.optim.AdamW(net.parameters(), 3e-3)
    for _ in range(60):
        loss = (net(x, 0.5) - x).square().mean()
        opt.zero_grad(), loss.backward(), opt.step()
    assert loss < 0.7 * x.square().mean()
    assert all(p.grad is not None for p in net.parameters())


def test_unet_is_equivariant_in_time_away_from_the_ends():
    "Without norms' and attention's global view a shift along f shifts the result: f is never down-sampled"
    net = shaken(VideoUNet(width=8, mults=(1, 2), attention=()))
    assert all(layer.stride[0] == 1 for layer in net.modules() if isinstance(layer, nn.Conv3d))
    assert net(clip(1, 5, 1, 8, 8), 0.3).shape == (
        1,
        5,
        1,
        8,
        8,
    )  # an odd count of frames is as good as any


def test_second_derivative_of_a_frozen_network():
    "In x alone: by finite differences of the gradient along a direction"
    net, x, v = (
        shaken(VideoUNet(width=8, mults=(1, 2), attention=())).requires_grad_(False),
        clip(1, 2, 1, 8, 8),
        clip(1, 2, 1, 8, 8, seed=4),
    )

    def gradient(x, **how):
        return torch.autograd.grad(net(x, 0.3).square().sum(), x, **how)[0]

    x.requires_grad_()
    (Hv,) = torch.autograd.grad(gradient(x, create_graph=True), x, v)
    by_differences = (gradient(x + 1e-5 * v) - gradient(x - 1e-5 * v)) / 2e-5
    assert_close(Hv, by_differences, rtol=1e-5, atol=1e-6 * Hv.abs().max().item())


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: VideoUNet(width=64, mults=(1, 2), attention=(1,)), (4, 8, 1, 16, 16)),
        (
            lambda: VideoTransformer(size=16, frames=8, width=96, depth=2, heads=2),
            (2, 8, 1, 16, 16),
        ),
    ],
    ids=MAKE,
)
def test_float32_agrees_with_float64(make, shape):
    "Large enough for the short cuts that float32 alone takes"
    net, x = shaken(make(), dtype=torch.float32), clip(*shape, dtype=torch.float32)
    exact, t, results = (
        copy.deepcopy(net).double(),
        torch.rand(shape[:2], generator=torch.Generator().manual_seed(2)),
        [],
    )
    for n, v in ((net, x), (exact, x.double())):
        y = n(v, t)
        results.append(
            [y, *torch.autograd.grad(y, list(n.parameters()), clip(*y.shape, seed=3).to(y.dtype))]
        )
    for a, b in zip(*results):
        assert_close(a.double(), b, rtol=1e-3, atol=1e-4 * max(1, b.abs().max().item()))


@every_net
def test_attention_matrix_is_never_built(kind):
    "No tensor of the forward or backward pass has tokens x tokens numbers"
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **kwargs or {})
            for v in torch.utils._pytree.tree_leaves(out):
                if isinstance(v, torch.Tensor):
                    largest[0] = max(largest[0], v.numel())
            return out

    net = dict(
        unet=VideoUNet(width=4, mults=(1,), attention=(0,), heads=1),
        transformer=VideoTransformer(size=48, frames=1, patch=1, width=4, heads=1, depth=2, mlp=1),
    )[kind]
    x = clip(
        *dict(unet=(1, 4, 1, 24, 24), transformer=(1, 1, 1, 48, 48))[kind], dtype=torch.float32
    )
    with Watch():
        net(x, 0.5).sum().backward()
    tokens = 2304
    assert largest[0] < tokens**2 / 8, largest


@every_net
def test_checkpointing_changes_no_number(kind):
    a, b = MAKE[kind](), MAKE[kind](checkpoint=True)
    b.load_state_dict(shaken(a, dtype=torch.float32).state_dict())
    x, grads = clip(dtype=torch.float32), []
    for net in (a, b):
        net(x, 0.4).square().mean().backward()
        grads.append([p.grad for p in net.parameters()])
    for g, h in zip(*grads):
        assert_close(g, h)


@every_net
def test_compiles_without_a_break(kind):
    net = shaken(MAKE[kind](checkpoint=kind == "unet"), dtype=torch.float32)
    x, past, t = (
        clip(1, 2, 1, 8, 8, dtype=torch.float32),
        clip(1, 2, 1, 8, 8, dtype=torch.float32),
        torch.rand(1, 2),
    )
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fast = torch.compile(net, backend="aot_eager", fullgraph=True)
        y = fast(x, t, past)
        assert_close(y, net(x, t, past), rtol=1e-4, atol=1e-5)
        y.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@every_net
def test_low_precision(kind):
    net, x = shaken(MAKE[kind](), dtype=torch.float32), clip(dtype=torch.float32)
    exact = net(x, 0.4)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(x, 0.4)
    assert (rough - exact).norm() < 0.05 * exact.norm()
    rough.float().square().mean().backward()
    assert all(
        p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in net.parameters()
    )
    whole = copy.deepcopy(net).to(torch.bfloat16)(x.bfloat16(), torch.tensor(0.4))
    assert whole.dtype == torch.bfloat16 and (whole.float() - exact).norm() < 0.1 * exact.norm()


@every_net
def test_derivative_through_torch_func(kind):
    net, x, v = (
        shaken(MAKE[kind]()),
        clip(1, 2, 1, 8, 8).requires_grad_(),
        clip(1, 2, 1, 8, 8, seed=4),
    )
    (g,) = torch.autograd.grad(net(x, 0.5), x, v)
    assert_close(torch.func.vjp(lambda x: net(x, 0.5), x.detach())[1](v)[0], g)


def test_second_derivative_of_a_unet_without_attention():
    "By finite differences, through the norms that are worked out again; fused attention has none in PyTorch"
    net = shaken(VideoUNet(width=8, mults=(1, 2), attention=()))
    x, v = clip(1, 2, 1, 8, 8).requires_grad_(), clip(1, 2, 1, 8, 8, seed=4)

    def energy(x, **how):
        return torch.autograd.grad(net(x, 0.5), x, v, **how)[0].square().sum()

    (second,) = torch.autograd.grad(energy(x, create_graph=True), x)
    h = 1e-5
    up, down = (energy((x.detach() + s * h * v).requires_grad_()) for s in (1, -1))
    assert_close((second * v).sum(), (up - down) / (2 * h), rtol=1e-4, atol=1e-6)


def test_papers_parameter_counts():
    "[liu2024fvdm] counts learned variance and the fixed position tables; RaMViD's is its public configuration's"
    with torch.device("meta"):
        for size, millions in dict(S=32.59, B=129.76, L=457.09, XL=674.00).items():
            net = video_transformer(size, out_channels=8)
            counted = sum(v.numel() for v in (*net.parameters(), *net.buffers())) / 1e6
            assert abs(counted - millions) < 0.011, (size, counted)
        for blocks in (2, 3):
            net, total, c, skips = ramvid_unet(blocks), 0, 128, [128]

            def res(i, o):
                return (
                    27 * i * o
                    + o
                    + 27 * o * o
                    + o
                    + 2 * (i + o)
                    + (512 + 1) * 2 * o
                    + (i * o + o if i != o else 0)
                )

            def attend(c):
                return 2 * c + 3 * c * c + 3 * c + c * c + c

            total += (
                128 * 512 + 512 + 512 * 512 + 512 + 27 * 3 * 128 + 128 + 2 * 128 + 27 * 128 * 3 + 3
            )
            for level, o in enumerate((128, 256, 384, 512)):
                for _ in range(blocks):
                    total += res(c, o) + (attend(o) if level > 1 else 0)
                    skips.append(c := o)
                if level < 3:
                    total, skips = total + 27 * c * c + c, skips + [c]
            total += 2 * res(512, 512) + attend(512)
            for level, o in ((3, 512), (2, 384), (1, 256), (0, 128)):
                for k in range(blocks + 1):
                    total += (
                        res(c + skips.pop(), o)
                        + (attend(o) if level > 1 else 0)
                        + (27 * o * o + o if level and k == blocks else 0)
                    )
                    c = o
            assert sum(p.numel() for p in net.parameters()) == total


def test_a_blind_networks_grey_is_that_of_all_past_frames():
    "Of each colour; taken off before and put back after, here by hand."
    net, plain = (
        BlindUNet(channels=2, past=3, width=4, center=on).double() for on in (True, False)
    )
    plain.load_state_dict(net.state_dict())
    x, past = (
        clip(2, 1, 2, 8, 8),
        clip(2, 3, 2, 8, 8, seed=2) + torch.arange(3.0)[:, None, None, None],
    )
    grey = (past[:, :1] + past[:, 1:2] + past[:, 2:]).sum((3, 4), keepdim=True) / (3 * 8 * 8)
    want = plain.eval()(x - grey, cond=past - grey) + grey
    assert_close(net.eval()(x, cond=past), want)


def test_sinusoids():
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    out = sinusoids(t, 8)
    for i, time in enumerate(t.tolist()):
        for k in range(4):
            angle = 1000 * time * 10000 ** (-k / 4)
            assert (
                abs(out[i, k] - math.cos(angle)) < 1e-3
                and abs(out[i, k + 4] - math.sin(angle)) < 1e-3
            )


def test_names_and_shapes_of_parameters_that_checkpoints_rely_on():
    unet = {k: tuple(p.shape) for k, p in MAKE["unet"]().named_parameters()}
    for name, shape in {
        "time.into.weight": (32, 8),
        "enter.weight": (8, 1, 3, 3, 3),
        "down.0.0.norm.weight": (8,),
        "down.0.0.conv_t.bias": (8,),
        "down.1.0.weight": (8, 8, 3, 3, 3),  # halves height and width
        "down.2.0.skip.weight": (16, 8),
        "down.2.1.qkv.weight": (48, 16),
        "middle.1.out.bias": (16,),
        "up.1.0.norm_t.weight": (16,),
        "up.1.2.weight": (16, 16, 3, 3, 3),  # doubles them
        "modulate.weight": (2 * (8 + 16 + 16 + 16 + 16 + 16 + 8 + 8), 32),
        "norm.bias": (8,),
        "out.weight": (1, 8, 3, 3, 3),
    }.items():
        assert unet.get(name) == shape, name
    transformer = {k: tuple(p.shape) for k, p in MAKE["transformer"]().named_parameters()}
    for name, shape in {
        "enter.weight": (24, 4),
        "time.out.weight": (24, 24),
        "blocks.3.qkv.weight": (72, 24),
        "blocks.0.rise.bias": (96,),
        "blocks.0.fall.weight": (24, 96),
        "modulate.weight": (26 * 24, 24),
        "out.weight": (4, 24),
    }.items():
        assert transformer.get(name) == shape, name
    for kind in MAKE:
        net = MAKE[kind]()
        assert set(net.state_dict()) == {k for k, _ in net.named_parameters()}  # no buffers


@pytest.mark.parametrize("make", [*MAKE.values(), lambda: JoinedUNet(4, width=8, mults=(1, 2))])
def test_no_float64_for_float32_input(make):
    "Apple's GPUs have none: times in float64 are converted before anything else is done with them"
    from torch.utils._python_dispatch import TorchDispatchMode

    made = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **kwargs or {})
            leaves = torch.utils._pytree.tree_leaves(out)
            made.extend(v.dtype for v in leaves if isinstance(v, torch.Tensor))
            return out

    net, x = make(), clip(dtype=torch.float32)
    t = torch.rand(2, 4, dtype=torch.float64)
    with Watch():
        make()  # not even while it is built
        assert net(x, t).dtype == torch.float32
    assert made and torch.float64 not in made


X = torch.zeros(SHAPE)
WRONG = [
    (lambda: MAKE["transformer"]()(torch.zeros(1, 9, 1, 8, 8)), "x with cond: got 9 frames"),
    (lambda: MAKE["transformer"]()(X, cond=torch.zeros(2, 5, 1, 8, 8)), "x with cond: got 9"),
    (lambda: MAKE["transformer"]()(torch.zeros(1, 2, 1, 6, 8)), "x: got (6, 8) pixels"),
    (lambda: MAKE["transformer"](size=9), "size: got (9, 9)"),
    (lambda: MAKE["transformer"](size=(8, 8, 8)), "size: got (8, 8, 8)"),
    (lambda: MAKE["transformer"](size=8.0), "size: got (8.0, 8.0)"),
    (lambda: MAKE["transformer"](width=25), "width: got 25"),
    (lambda: MAKE["transformer"](width=26), "width: got 26"),
    (lambda: MAKE["transformer"](depth=0), "depth: got 0"),
    (lambda: MAKE["transformer"](heads=2.5), "heads: got 2.5"),
    (lambda: MAKE["transformer"](out_channels=0), "out_channels: got 0"),
    (lambda: video_transformer("M"), "size: got 'M'"),
    (lambda: MAKE["unet"]()(torch.zeros(1, 2, 1, 7, 8)), "x: got 7x8 pixels"),
    (lambda: MAKE["unet"](mults=()), "mults: got none"),
    (lambda: MAKE["unet"](mults=(1, 0)), "mults: got 0"),
    (lambda: MAKE["unet"](attention=(2,)), "attention: got (2,)"),
    (lambda: MAKE["unet"](attention=(-1,)), "attention: got (-1,)"),
    (lambda: MAKE["unet"](heads=3), "heads: got 3"),
    (lambda: MAKE["unet"](width=7), "width: got 7"),
    (lambda: MAKE["unet"](width=8.0), "width: got 8.0"),
    (lambda: MAKE["unet"](blocks=0), "blocks: got 0"),
    (lambda: BlindUNet(past=-1), "past: got -1"),
    (lambda: BlindUNet(past=0)(X[:, :1], cond=X[:, :2]), "cond: got 2 frames"),
    (lambda: JoinedUNet(0), "frames: got 0"),
    (lambda: JoinedUNet(4, mults=(1, 2.0)), "mults: got 2.0"),
    (lambda: JoinedUNet(4, mults=()), "mults: got none"),
]
EVERY = [
    (lambda net: net(torch.zeros(1, 4, 3, 8, 8)), "x: got 3 channels"),
    (lambda net: net(torch.zeros(4, 1, 8, 8)), "x: got shape (4, 1, 8, 8)"),
    (lambda net: net(X, torch.zeros(4)), "t: got shape (4,)"),
    (lambda net: net(X, torch.zeros(2, 3)), "t: got shape (2, 3)"),
    (lambda net: net(X, torch.zeros(2, 4, 1)), "t: got shape (2, 4, 1)"),
    (lambda net: net(X, cond=torch.zeros(1, 2, 1, 8, 8)), "cond: got shape"),
    (lambda net: net(X, cond=torch.zeros(2, 2, 3, 8, 8)), "cond: got 3 channels"),
    (lambda net: net(X, cond=torch.zeros(2, 2, 1, 8, 4)), "cond: got shape"),
]


@pytest.mark.parametrize("wrong, words", WRONG)
def test_wrong_input_gets_one_clear_line(wrong, words):
    text = complaint(wrong)
    assert text.startswith(words) and "expected" in text, text


@pytest.mark.parametrize("make", [*MAKE.values(), lambda: JoinedUNet(4, width=8, mults=(1, 2))])
@pytest.mark.parametrize("wrong, words", EVERY)
def test_wrong_input_to_every_network(make, wrong, words):
    text = complaint(lambda: wrong(make()))
    assert text.startswith(words) and "expected" in text, text
