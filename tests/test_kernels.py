"""Every pass of `kernels` beside its plain PyTorch form: the same value, the same gradient, the same second derivative; and the
switch that turns all of them off.

Here the two may differ in rounding only."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from vidiffedu import kernels
from vidiffedu.kernels import (
    Conv3d,
    LeanNorm,
    SixForTwelve,
    attention,
    norm_act,
    plain,
    plain_conv,
    plain_norm,
    recomputed,
)
from vidiffedu.nets import VideoTransformer, VideoUNet

ONEDNN = torch.backends.mkldnn.is_available()


def draw(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def gradients(y, inputs, seed=9, **how):
    return torch.autograd.grad(y, inputs, draw(*y.shape, seed=seed).to(y.dtype), **how)


def kept(f):
    "Bytes that autograd keeps for the backward pass"
    tensors = []
    hooks = torch.autograd.graph.saved_tensors_hooks
    with hooks(lambda v: tensors.append(v) or v, lambda v: v):
        f()
    storages = [v.untyped_storage() for v in tensors]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


# ---- the switch


def test_the_switch_is_restored_whatever_happens():
    x = torch.zeros(1)
    assert kernels.faster(x)
    with pytest.raises(KeyError), plain():
        with plain():
            assert not kernels.faster(x)
        assert not kernels.faster(x)  # an inner block does not turn them on again
        raise KeyError
    assert kernels.faster(x)


def test_the_switch_turns_every_pass_off(monkeypatch):
    def forbidden(*a, **k):
        raise AssertionError("not plain")

    monkeypatch.setattr(kernels, "checkpoint", forbidden)
    monkeypatch.setattr(SixForTwelve, "apply", forbidden)
    monkeypatch.setattr(LeanNorm, "apply", forbidden)
    monkeypatch.setattr(kernels, "six_pay", lambda x, o: True)
    conv, x = Conv3d(2, 3), draw(1, 2, 4, 5, 5, dtype=torch.float32).requires_grad_()
    low = draw(1, 2, 3, 4).bfloat16()
    dtypes = []
    real = F.scaled_dot_product_attention
    watched = lambda q, k, v: dtypes.append(q.dtype) or real(q, k, v)
    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    ways = [lambda: recomputed(torch.sin, x), lambda: norm_act(x, torch.ones(2), torch.ones(2))]
    ways += [lambda: conv(x)] * ONEDNN
    with plain():
        attention(low, low, low)
        for way in ways:
            way()
    assert dtypes == [torch.bfloat16]
    for way in ways:  # and on again
        with pytest.raises(AssertionError, match="not plain"):
            way()


NETS = {
    "unet": lambda **k: VideoUNet(1, 64, (1, 2), attention=(1,), **k),
    "transformer": lambda **k: VideoTransformer(1, 16, 8, width=48, depth=2, heads=2, **k),
}


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("bf16", (False, True))
def test_networks_with_and_without(kind, bf16, monkeypatch):
    "Large enough that every pass is taken: values and gradients are those of the plain form"
    torch.manual_seed(0)
    taken, rule = [], kernels.six_pay
    monkeypatch.setattr(kernels, "six_pay", lambda x, o: taken.append(rule(x, o)) or taken[-1])
    net, x = NETS[kind](), draw(2, 8, 1, 16, 16, dtype=torch.float32)
    for p in net.parameters():
        nn.init.normal_(p, std=0.05)
    results = []
    for way in (plain, torch.enable_grad):
        with way(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = net(x, 0.3).float()
            results.append([y, *gradients(y, list(net.parameters()))])
    for a, b in zip(*results):
        assert (a - b).norm() <= (0.05 if bf16 else 1e-4) * b.norm() + 1e-6
    assert any(taken) == (kind == "unet" and not bf16 and ONEDNN)


def test_a_single_clip():
    "As in sampling, where another kernel of oneDNN is asked for"
    net, x = NETS["unet"](), draw(1, 3, 1, 16, 16, dtype=torch.float32)
    for p in net.parameters():
        nn.init.normal_(p, std=0.05)
    with torch.no_grad():
        with plain():
            slow = net(x, 0.3)
        assert_close(net(x, 0.3), slow, rtol=1e-4, atol=1e-5)


# ---- attention


@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16))
def test_attention_is_softmax_of_products(dtype):
    q, k, v = (draw(2, 3, 5, 4, seed=s).to(dtype).requires_grad_() for s in (1, 2, 3))
    exact = (q.double() @ k.double().mT / 2).softmax(-1) @ v.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = attention(q, k, v)
    assert y.dtype == dtype
    close = dict(rtol=2e-2, atol=2e-2) if dtype == torch.bfloat16 else dict(rtol=1e-4, atol=1e-5)
    assert_close(y.double(), exact, **close)
    for a, b in zip(gradients(y, (q, k, v)), gradients(exact, (q, k, v))):
        assert_close(a, b, **close)


def test_attention_in_bfloat16_rounds_once():
    q, k, v = (draw(1, 2, 64, 8, seed=s).bfloat16() for s in (1, 2, 3))
    exact = (q.double() @ k.double().mT / 8**0.5).softmax(-1) @ v.double()
    assert ((attention(q, k, v) - exact).abs() <= 2**-8 * exact.abs() + 1e-6).all()


# ---- the norm


def by_hand(x, w, o, shift, scale, groups, act):
    "Group norm, scale and shift, SiLU from their definitions, one group of one clip at a time"
    rows = []
    for clip in x:
        parts = clip.chunk(groups)
        rows.append([(v - v.mean()) / (v.var(correction=0) + 1e-5).sqrt() for v in parts])
    h = torch.stack([torch.cat(row) for row in rows])
    h = h * w[:, None, None, None] + o[:, None, None, None]
    h = h if shift is None else h * (1 + scale) + shift
    return h * torch.sigmoid(h) if act else h


def norm_inputs(timed=True, dtype=torch.float64, b=2, size=2):
    shapes = (b, 8, 3, size, size), (8,), (8,), *[(b, 8, 3, 1, 1)] * (2 * timed)
    inputs = [draw(*s, seed=k, dtype=dtype).requires_grad_() for k, s in enumerate(shapes)]
    return inputs if timed else [*inputs, None, None]


@pytest.mark.parametrize("act", (True, False))
@pytest.mark.parametrize("timed", (True, False))
@pytest.mark.parametrize("norm", (LeanNorm.apply, norm_act, plain_norm))
def test_the_norm_and_its_derivatives(norm, timed, act):
    args = *norm_inputs(timed), 4, act
    inputs = [v for v in args[:5] if v is not None]
    y, theirs = norm(*args), by_hand(*args)
    assert_close(y, theirs)
    first, second = (
        torch.autograd.grad(v.square().sum(), inputs, create_graph=True) for v in (y, theirs)
    )
    for a, b in zip(first, second):
        assert_close(a, b)
    energies = [sum(g.square().sum() for g in grads) for grads in (first, second)]
    for a, b in zip(*(torch.autograd.grad(e, inputs) for e in energies)):
        assert_close(a, b)
    for a, b in zip(
        torch.autograd.grad(norm(*args).square().sum(), inputs), second
    ):  # without a graph: another way
        assert_close(a, b)
    assert norm is not LeanNorm.apply or torch.autograd.gradcheck(norm, args)


@pytest.mark.parametrize("wanted", range(5))
def test_a_norm_of_which_some_is_frozen(wanted):
    inputs = [v.detach() for v in norm_inputs()]
    v = inputs[wanted].requires_grad_()
    for create in (True, False):
        grads = (
            torch.autograd.grad(f(*inputs, 4, True).square().sum(), v, create_graph=create)[0]
            for f in (LeanNorm.apply, by_hand)
        )
        assert_close(*grads)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_only_the_input_of_a_norm_is_kept(dtype):
    "By hand in float32, by working it out again in 16 bits"
    inputs = [v.detach().to(dtype).requires_grad_() for v in norm_inputs(b=4, size=32)]
    own = inputs[0].numel() * inputs[0].element_size()
    lean = kept(lambda: norm_act(*inputs, 4))
    with plain():
        full = kept(lambda: norm_act(*inputs, 4))
    assert lean < 1.1 * own and full > 2.9 * own
    with torch.no_grad():
        assert kept(lambda: norm_act(*inputs, 4)) == 0


def test_a_norm_in_16_bits():
    inputs = [v.detach() for v in norm_inputs()]
    low = [v.bfloat16().requires_grad_() for v in inputs]
    y, exact = norm_act(*low, 4), norm_act(*inputs, 4)
    assert y.dtype == torch.bfloat16 and (y - exact).norm() < 0.03 * exact.norm()
    mixed = norm_act(
        low[0], inputs[1].float(), inputs[2].float(), *low[3:], 4
    )  # autocast's mixture
    assert mixed.dtype == torch.bfloat16 and (mixed - exact).norm() < 0.03 * exact.norm()
    for a, b in zip(gradients(y, low), gradients(plain_norm(*low, 4, True), low)):
        assert torch.equal(a, b)


# ---- recomputed


@pytest.mark.parametrize("on", (True, False))
def test_recomputed_is_a_plain_call_done_twice(on):
    calls, x = [], draw(3).requires_grad_()

    def f(x, a):
        calls.append(1)
        return (a * x.sin()).exp()

    (g,) = torch.autograd.grad(recomputed(f, x, 2.0, on=on).sum(), x)
    assert_close(g, 2 * x.cos() * (2 * x.sin()).exp())
    assert len(calls) == 1 + on
    with torch.no_grad():
        recomputed(f, x, 2.0)
    assert len(calls) == 2 + on


def test_recomputed_draws_the_same_random_numbers():
    x = torch.ones(1000, requires_grad=True)
    y = recomputed(lambda v: F.dropout(v, 0.5) * v, x)
    (g,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(g != 0, y != 0)


# ---- six convolutions for twelve


def conv_inputs(f=6, i=2, o=3, b=2, h=3, w=2):
    shapes = (b, i, f, h, w), (o, i, 3, 3, 3), (o,)
    return [draw(*s, seed=k).requires_grad_() for k, s in enumerate(shapes)]


def by_loops(x, w, b):
    "A 3x3x3 convolution, one tap after the other"
    y = b[:, None, None, None].expand(len(x), -1, *x.shape[2:])
    wide, (f, h, v) = F.pad(x, (1, 1, 1, 1, 1, 1)), x.shape[2:]
    for t in range(3):
        for p in range(3):
            for q in range(3):
                near = wide[:, :, t : t + f, p : p + h, q : q + v]
                y = y + torch.einsum("oi,bifhw->bofhw", w[:, :, t, p, q], near)
    return y


@pytest.mark.parametrize("f", (1, 3, 4, 5, 8, 10))
def test_six_convolutions_for_twelve(f):
    "Whole and broken tiles of four frames"
    inputs = conv_inputs(f)
    ours, theirs = SixForTwelve.apply(*inputs), by_loops(*inputs)
    assert_close(ours, theirs)
    assert_close(plain_conv(*inputs), theirs)
    for a, b in zip(*(gradients(y, inputs) for y in (ours, theirs))):
        assert_close(a, b)
    assert f != 5 or torch.autograd.gradgradcheck(SixForTwelve.apply, inputs)


def test_as_many_channels_out_as_in():
    "Then the results are written where the mixed frames were"
    inputs = conv_inputs(i=3, o=3)
    ours, theirs = SixForTwelve.apply(*inputs), by_loops(*inputs)
    assert_close(ours, theirs)
    for a, b in zip(*(gradients(y, inputs) for y in (ours, theirs))):
        assert_close(a, b)


@pytest.mark.parametrize("wanted", (0, 1, 2))
def test_six_convolutions_of_which_some_are_frozen(wanted):
    inputs = [v.detach() for v in conv_inputs()]
    v = inputs[wanted].requires_grad_()
    ours, theirs = (
        torch.autograd.grad(conv(*inputs).square().sum(), v, create_graph=True)[0]
        for conv in (SixForTwelve.apply, by_loops)
    )
    assert_close(ours, theirs)
    for a, b in zip(*(torch.autograd.grad(g.square().sum(), v) for g in (ours, theirs))):
        assert_close(a, b)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
def test_the_mixers_turn_six_into_four(dtype):
    "A ((G w) (B x)) is w sliding over x, for every w and x: checked on all pairs of unit vectors"
    A, B, G = (M.double() for M in kernels.mixers(dtype))
    for k in range(3):
        for n in range(6):
            w, x = torch.eye(3)[k].double(), torch.eye(6)[n].double()
            y = torch.tensor([float(i + k == n) for i in range(4)], dtype=torch.float64)
            assert_close(A @ ((G @ w) * (B @ x)), y, rtol=0, atol=1e-6)
    assert_close(A[:, 1], torch.ones(4).double())  # where the bias is added


def test_where_six_pay():
    "In wide layers of enough frames, in float32; a counter sees the fewer products really done"
    layer, x = Conv3d(64, 64), draw(2, 64, 8, 32, 32, dtype=torch.float32)
    six = kernels.six_pay
    assert six(x, 64)
    assert not any(
        [six(x[:, :, :5], 64), six(x[..., :16, :16], 64), six(x[:, :32], 64), six(x, 16)]
    )
    assert not six(draw(2, 256, 8, 8, 8), 256)  # so few pixels that making kernels costs more
    layer.to(memory_format=torch.channels_last_3d)  # as in a VideoUNet
    (g,) = torch.autograd.grad(layer(x).sum(), layer.weight)
    assert g.stride() == layer.weight.stride()  # another order would mislead fused AdamW
    defined, counts = 2 * 27 * 64 * x.numel(), []
    for way in (torch.no_grad, plain):
        with way(), FlopCounterMode(display=False) as counter:
            layer(x)
        counts.append(counter.get_total_flops())
    assert counts[1] == defined
    assert not ONEDNN or defined / 2 < counts[0] < 0.6 * defined  # half, and the mixing
    exact = copy.deepcopy(layer).double()(x.double())
    assert_close(layer(x).double(), exact, rtol=0, atol=1e-5 * exact.abs().max().item())
    with torch.autocast("cpu", torch.bfloat16), FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == defined


@pytest.mark.parametrize("stride", ((1, 1, 1), (1, 2, 2)))
@pytest.mark.parametrize("b", (1, 2))
def test_conv3d_is_a_convolution(stride, b):
    layer = Conv3d(2, 3, stride)
    x = draw(b, 2, 4, 6, 6, dtype=torch.float32).requires_grad_()
    exact = by_loops(x.double(), layer.weight.double(), layer.bias.double())
    exact = exact[..., :: stride[1], :: stride[2]]
    assert_close(layer(x), exact.float(), rtol=1e-4, atol=1e-5)
    inputs = [x, *layer.parameters()]
    for p, q in zip(gradients(layer(x), inputs), gradients(exact, inputs)):
        assert_close(p, q, rtol=1e-4, atol=1e-4)


def test_torch_func_gets_the_plain_form():
    net, x = NETS["unet"](dropout=0.0), draw(1, 4, 1, 8, 8, dtype=torch.float32)
    for p in net.parameters():
        nn.init.normal_(p, std=0.05)
    y, pull = torch.func.vjp(lambda x: net(x, 0.5), x)
    leaf = x.requires_grad_()
    (g,) = torch.autograd.grad(net(leaf, 0.5), leaf, torch.ones_like(y))
    assert_close(pull(torch.ones_like(y))[0], g, rtol=1e-3, atol=1e-5)
