"""The video networks against plain re-statements of what they compute: attention with a softmax, loops over frames and groups.

The networks take short cuts for speed: up-sampling and convolution in one, norms and GELU with backward passes of their own,
fused attention, one product for all modulations, linear layers as convolutions, six convolutions for twelve along time. None of them may
change a result."""

import copy
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from vidiffedu import nets
from vidiffedu.core import complaint
from vidiffedu.nets import (
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
    (b, f, c, H, W), p, d = x.shape, net.patch, net.where.shape[-1]
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
    for a, b, p in zip(*(torch.autograd.grad(y, params, g) for y in (ours, theirs)), params):
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


def test_up_sampling_in_one_step():
    layer = shaken(nets._Up(3, 3))
    x = clip(2, 3, 4, 6, 3)  # b f h w c
    theirs = conv(
        x.permute(0, 4, 1, 2, 3).repeat_interleave(2, 3).repeat_interleave(2, 4), layer
    ).permute(0, 2, 3, 4, 1)
    assert_close(layer(x), theirs)


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


@pytest.mark.parametrize("up", (False, True))
@pytest.mark.parametrize("f", (1, 3, 4, 5, 8, 10))
def test_six_convolutions_for_twelve(f, up):
    "Whole and broken tiles of four frames; `up` is a transposed convolution to twice the size"
    x, w, b = (
        v.requires_grad_()
        for v in (
            clip(2, f, 2, 3, 2),
            clip(*(2, 3, 3, 4, 4) if up else (3, 2, 3, 3, 3), seed=2),
            clip(3, seed=3),
        )
    )
    first = x.permute(0, 4, 1, 2, 3)
    theirs = (
        F.conv_transpose3d(first, w, b, (1, 2, 2), 1) if up else F.conv3d(first, w, b, padding=1)
    ).permute(0, 2, 3, 4, 1)
    ours = nets._Winograd.apply(x, w, b, up)
    assert_close(ours, theirs)
    g = clip(*ours.shape, seed=4)
    for a, e in zip(*(torch.autograd.grad(y, (x, w, b), g) for y in (ours, theirs))):
        assert_close(a, e)
    assert f != 5 or torch.autograd.gradgradcheck(
        lambda *v: nets._Winograd.apply(*v, up), (x, w, b)
    )


@pytest.mark.parametrize("wanted", (0, 1, 2))
def test_six_convolutions_of_which_some_are_frozen(wanted):
    inputs = clip(1, 4, 3, 3, 2), clip(2, 2, 3, 3, 3, seed=2), clip(2, seed=3)
    v = inputs[wanted].requires_grad_()
    ours, theirs = (
        torch.autograd.grad(conv(*inputs, False).square().sum(), v)[0]
        for conv in (nets._Winograd.apply, nets._plain_conv)
    )
    assert_close(ours, theirs)


def test_six_convolutions_where_that_pays():
    "In wide layers of enough frames, in float32; a counter sees the fewer products that are really done"
    from torch.utils.flop_counter import FlopCounterMode

    layer, x = nets._Conv(64, 64), clip(2, 8, 32, 32, 64, dtype=torch.float32)

    def pays(x, o=64):
        return nets._winograd_pays(x, o)

    assert pays(x) == torch.backends.mkldnn.is_available()
    assert not any(
        [
            pays(x[:, :5]),
            pays(x[:, :, :16, :16]),
            pays(x[..., :32]),
            pays(x, o=16),
            pays(x.double()),
        ]
    )
    assert not pays(
        clip(2, 8, 8, 8, 256, dtype=torch.float32), 256
    )  # so few pixels that making the kernels costs more
    with torch.autocast("cpu", torch.bfloat16):
        assert not pays(x)
    layer.to(
        memory_format=torch.channels_last_3d
    )  # as in a VideoUNet; a gradient in another order would mislead fused AdamW
    assert torch.autograd.grad(layer(x).sum(), layer.weight)[0].stride() == layer.weight.stride()
    with FlopCounterMode(display=False) as counter:
        layer(x)
    defined = 2 * 27 * 64 * x.numel()
    assert (
        not pays(x) or defined / 2 < counter.get_total_flops() < 0.6 * defined
    )  # half, and the mixing
    exact = copy.deepcopy(layer).double()(x.double())
    assert_close(
        layer(x).double(), exact, rtol=0, atol=1e-5 * exact.abs().max().item()
    )  # at the worst place; twelve products lose a third of that


@pytest.mark.parametrize("act", (True, False))
@pytest.mark.parametrize("timed", (True, False))
def test_own_backward_passes(act, timed):
    x, w, b = (v.requires_grad_() for v in (clip(2, 3, 2, 2, 8), clip(8), clip(8, seed=2)))
    shift, scale = (clip(2, 3, 1, 1, 8, seed=s).requires_grad_() if timed else None for s in (3, 4))
    args = x, w, b, shift, scale, 4, act
    assert_close(nets._Norm.apply(*args), nets._plain_norm(*args))
    assert torch.autograd.gradcheck(nets._Norm.apply, args) and torch.autograd.gradgradcheck(
        nets._Norm.apply, args
    )
    h, w, b = (v.requires_grad_() for v in (3 * clip(2, 3, 8), clip(5, 8, seed=5), clip(5, seed=6)))
    assert_close(nets._GeluLinear.apply(h, w, b), (h * torch.special.ndtr(h)) @ w.T + b)
    assert torch.autograd.gradcheck(
        nets._GeluLinear.apply, (h, w, b)
    ) and torch.autograd.gradgradcheck(nets._GeluLinear.apply, (h, w, b))
    for frozen in ((h.detach(), w, b), (h, w.detach(), b), (h, w, b.detach())):
        assert torch.autograd.gradcheck(
            nets._GeluLinear.apply, frozen
        ) and torch.autograd.gradgradcheck(nets._GeluLinear.apply, frozen)
    x, shift, scale = (
        clip(*size, seed=n).requires_grad_()
        for n, size in enumerate([(3, 2, 4, 6), (3, 2, 1, 6), (3, 2, 1, 6)])
    )
    exact = (x - x.mean(-1, keepdim=True)) / (
        x.var(-1, keepdim=True, correction=0) + 1e-6
    ).sqrt() * (1 + scale) + shift
    assert_close(nets._Modulate.apply(x, shift, scale), exact)
    assert torch.autograd.gradcheck(
        nets._Modulate.apply, (x, shift, scale)
    ) and torch.autograd.gradgradcheck(nets._Modulate.apply, (x, shift, scale))


@pytest.mark.parametrize("amd", (True, False))
def test_linear_layers_in_float32(amd, monkeypatch):
    "Large ones are convolutions where the processor's matrix products are slow, tiny ones and all others matrix products; every one is the same function"
    monkeypatch.setattr(nets, "_amd", lambda: amd)
    layer, x = (
        shaken(nets._Linear(96, 288), dtype=torch.float32),
        clip(3, 4, 8, 8, 96, dtype=torch.float32).requires_grad_(),
    )

    def convolved(f):  # does the forward pass convolve?
        with torch.profiler.profile() as p:
            f()
        return any("convolution" in event.key for event in p.key_averages())

    here = amd and torch.backends.mkldnn.is_available()
    assert convolved(lambda: layer(x)) == here and not convolved(lambda: layer(x[:1, :1]))
    assert not convolved(lambda: copy.deepcopy(layer).double()(x.double()))
    with torch.autocast("cpu", torch.bfloat16):
        assert not convolved(lambda: layer(x))
    for v in (x, x.transpose(1, 2), x[:, 1:], x[:1, :1], x.flatten(2, 3)):  # any layout
        inputs, g = [x, *layer.parameters()], clip(*v.shape[:-1], 288, seed=3, dtype=torch.float32)
        exact = F.linear(v.double(), layer.weight.double(), layer.bias.double())
        assert_close(layer(v), exact.float(), rtol=1e-4, atol=1e-4)
        for a, b in zip(
            torch.autograd.grad(layer(v), inputs, g),
            torch.autograd.grad(exact, inputs, g.double(), retain_graph=True),
        ):
            assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("amd", (True, False))
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
def test_float32_agrees_with_float64(make, shape, amd, monkeypatch):
    "Large enough for the short cuts that float32 alone takes, on either processor"
    monkeypatch.setattr(nets, "_amd", lambda: amd)
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


def test_norm_of_bfloat16_rounds_once():
    x, shift, scale = (
        clip(2, 3, 4, 4, 32),
        clip(2, 3, 1, 1, 32, seed=2),
        clip(2, 3, 1, 1, 32, seed=3),
    )
    x, shift, scale = (v.bfloat16() for v in (x, shift, scale))
    w, b = clip(32, seed=4, dtype=torch.float32), clip(32, seed=5, dtype=torch.float32)
    exact = nets._plain_norm(*(v.double() for v in (x, w, b, shift, scale)), 8, True)
    y = nets._Norm.apply(x, w, b, shift, scale, 8, True)
    assert y.dtype == torch.bfloat16 and ((y - exact).abs() <= 2**-8 * exact.abs() + 1e-5).all()


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


def test_gelu_is_not_kept(monkeypatch):
    "Inside an MLP autograd keeps what GELU is of, not GELU; with an AMD's convolutions, both"
    net, x, kept = (
        shaken(VideoTransformer(size=8, frames=4, width=24, depth=2, heads=2)),
        clip(3, 4, 1, 8, 8),
        [],
    )
    for amd in (False, True):
        monkeypatch.setattr(nets, "_amd", lambda: amd)
        tensors = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda v: tensors.append(v) or v, lambda v: v
        ):
            net(x, 0.3)
        sizes = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in tensors}
        for p in net.parameters():
            sizes.pop(p.data_ptr(), None)
        kept.append(sum(sizes.values()))
    hidden = 3 * 4 * 16 * 96 * 8  # clips, frames, tokens, width and bytes
    assert kept[1] - kept[0] == 2 * hidden


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


CPUS = [
    (
        dict(architecture="x86_64", cpu_name="Intel Xeon", avx512_bf16=True, amx_bf16=False),
        False,
        True,
    ),  # an AMD, slow bfloat16
    (
        dict(architecture="x86_64", cpu_name="Intel Xeon", avx512_bf16=True, amx_bf16=True),
        False,
        False,
    ),
    (
        dict(architecture="x86_64", cpu_name="AMD EPYC", avx512_bf16=True, amx_bf16=False),
        True,
        False,
    ),
    (dict(architecture="x86_64", cpu_name="AMD Ryzen", avx512_bf16=False), True, True),
    (dict(architecture="aarch64", cpu_name="Apple M2"), False, False),
    ({}, False, False),
]


@pytest.mark.parametrize(
    "cpu, amd, bfloat16",
    CPUS,
    ids=lambda v: v.get("cpu_name", "unknown") if isinstance(v, dict) else "",
)
def test_what_the_processor_is_slow_at(cpu, amd, bfloat16, monkeypatch):
    monkeypatch.setattr(nets, "_processor", lambda: cpu)
    monkeypatch.setattr(nets, "_amd", nets._amd.__wrapped__)
    assert nets._amd() == amd and nets._slow_bfloat16.__wrapped__() == bfloat16


@every_net
@pytest.mark.parametrize("slow", (True, False))
def test_autocast_only_where_it_pays(kind, slow, monkeypatch):
    "Where bfloat16 is slow the answer is float32's, rounded once, and so are the gradients; the type is autocast's everywhere"
    monkeypatch.setattr(nets, "_slow_bfloat16", lambda: slow)
    net, x, past = (
        shaken(MAKE[kind](), dtype=torch.float32),
        clip(2, 2, 1, 8, 8, dtype=torch.float32),
        clip(2, 2, 1, 8, 8, seed=3, dtype=torch.float32),
    )

    def run(on):
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            y = net(x, torch.tensor([0.2, 0.8]), cond=past)
        return y, torch.autograd.grad(y.float().square().sum() / 2, list(net.parameters()))

    (low, low_grads), (exact, grads) = run(True), run(False)
    assert low.dtype == torch.bfloat16 and exact.dtype == torch.float32
    assert torch.equal(low, exact.bfloat16()) == slow
    distance = sum((a - b).square().sum() for a, b in zip(low_grads, grads)) / sum(
        b.square().sum() for b in grads
    )
    assert (0 < distance < 1e-4) if slow else distance > 1e-6


@every_net
def test_derivative_through_torch_func(kind):
    net, x, v = (
        shaken(MAKE[kind]()),
        clip(1, 2, 1, 8, 8).requires_grad_(),
        clip(1, 2, 1, 8, 8, seed=4),
    )
    (g,) = torch.autograd.grad(net(x, 0.5), x, v)
    assert_close(torch.func.vjp(lambda x: net(x, 0.5), x.detach())[1](v)[0], g)


def test_other_derivatives_of_a_unet_without_attention():
    "Forward mode and second derivatives, which PyTorch's fused attention does not have"
    net, x, v = (
        shaken(VideoUNet(width=8, mults=(1, 2), attention=())),
        clip(1, 2, 1, 8, 8).requires_grad_(),
        clip(1, 2, 1, 8, 8, seed=4),
    )
    f = lambda x: net(x, 0.5)
    (g,) = torch.autograd.grad(f(x), x, v, create_graph=True)
    _, jv = torch.func.jvp(f, (x.detach(),), (v,))
    assert_close((jv * v).sum(), (g * v).sum())
    (second,) = torch.autograd.grad(g.square().sum(), x)

    def energy(x):
        return torch.autograd.grad(f(x), x, v)[0].square().sum()

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


X = torch.zeros(SHAPE)


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda: MAKE["transformer"]()(torch.zeros(1, 9, 1, 8, 8)), "9 frames"),
        (lambda: MAKE["transformer"]()(X, cond=torch.zeros(2, 5, 1, 8, 8)), "9 frames"),
        (lambda: MAKE["transformer"]()(torch.zeros(1, 2, 1, 6, 8)), "6x8"),
        (lambda: MAKE["transformer"](size=9), "size is (9, 9)"),
        (lambda: MAKE["transformer"](size=(8, 8, 8)), "size is (8, 8, 8)"),
        (lambda: MAKE["transformer"](width=25), "width is 25"),
        (lambda: MAKE["transformer"](width=26), "width is 26"),
        (lambda: MAKE["transformer"](depth=0), "depth is 0"),
        (lambda: MAKE["transformer"](heads=2.5), "heads is 2.5"),
        (lambda: video_transformer("M"), "size is 'M'"),
        (lambda: MAKE["unet"]()(torch.zeros(1, 2, 1, 7, 8)), "7x8"),
        (lambda: MAKE["unet"](mults=()), "mults is ()"),
        (lambda: MAKE["unet"](mults=(1, 0)), "mults is (1, 0)"),
        (lambda: MAKE["unet"](attention=(2,)), "attention is (2,)"),
        (lambda: MAKE["unet"](attention=(-1,)), "attention is (-1,)"),
        (lambda: MAKE["unet"](heads=3), "heads = 3"),
        (lambda: MAKE["unet"](width=7), "width is 7"),
        (lambda: MAKE["unet"](blocks=0), "blocks is 0"),
        *[
            (lambda make=make: make()(torch.zeros(1, 2, 3, 8, 8)), "x has 3 channels, expected 1")
            for make in MAKE.values()
        ],
        *[
            (lambda make=make: make()(torch.zeros(2, 1, 8, 8)), "x has shape (2, 1, 8, 8)")
            for make in MAKE.values()
        ],
        *[
            (lambda make=make: make()(X, torch.zeros(4)), "t has shape (4,)")
            for make in MAKE.values()
        ],
        *[
            (lambda make=make: make()(X, torch.zeros(2, 3)), "t has shape (2, 3)")
            for make in MAKE.values()
        ],
        *[
            (lambda make=make: make()(X, torch.zeros(2, 4, 1)), "t has shape (2, 4, 1)")
            for make in MAKE.values()
        ],
        *[
            (lambda make=make: make()(X, cond=torch.zeros(1, 2, 1, 8, 8)), "cond has shape")
            for make in MAKE.values()
        ],
        *[
            (lambda make=make: make()(X, cond=torch.zeros(2, 2, 3, 8, 8)), "cond has 3 channels")
            for make in MAKE.values()
        ],
        *[
            (lambda make=make: make()(X, cond=torch.zeros(2, 2, 1, 8, 4)), "cond has shape")
            for make in MAKE.values()
        ],
    ],
)
def test_wrong_input_gets_one_clear_line(wrong, words):
    text = complaint(wrong)
    assert words in text and "expected" in text, text
