"""The scores against their definitions, and the symmetries that they must have."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vidiffedu import crps as module
from vidiffedu.core import complaint, expand, seeded
from vidiffedu.crps import (
    crps,
    crps_gaussian,
    energy_score,
    in_float64,
    judge_fill,
    rank_histogram,
    spread_skill,
)
from vidiffedu.oracle import GaussianClips


def draw(*shape, dtype=torch.float64, seed=0):
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, generator=seeded(seed)).to(dtype)
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def definition(samples, target):
    """The integral of (F - step)², exactly: both are constant between neighbouring values.

    samples (s n), target (n), float64."""
    values = torch.cat([samples, target[None]]).sort(0).values
    F_hat = (samples[:, None] <= values[:-1]).double().mean(0)
    return ((F_hat - (target <= values[:-1]).double()) ** 2 * values.diff(dim=0)).sum(0)


# ---------------------------------------------------------------- CRPS

KINDS = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("s", [1, 2, 3, 7, 33, 100, 257, 300])
def test_crps_is_the_integral(s, dtype):
    X, x = draw(s, 50, dtype=dtype), draw(50, dtype=dtype, seed=1)
    got, want = crps(X, x), definition(X.double(), x.double())
    assert got.dtype == torch.promote_types(dtype, torch.float32)
    if dtype == torch.uint8:  # a whole number over s², rounded once
        assert torch.equal(got, want.mul(s * s).round().div(s * s).float())
    else:
        assert_close(got.double(), want, rtol=0, atol=1e-12 if dtype == torch.float64 else 2e-6)


def test_bytes_are_exact_where_float32_would_not_be():
    X = 255 * draw(601, 40, dtype=torch.uint8).div(128, rounding_mode="floor")  # black and white
    x = torch.ones(40, dtype=torch.uint8)
    white = (X == 255).sum(0)
    # the integral by hand: F is constant from 0 to 255
    want = ((601 - white) ** 2 + 254 * white**2).double().div(601**2).float()
    assert torch.equal(crps(X, x), want)
    assert (254 * white**2).max() > 2**24


SHAPES = [
    ((4, 300_000), 0),
    ((300_000, 4), 1),
    ((500, 4, 600), 1),
    ((2, 3, 4, 50_000), -2),
    ((3, 2, 5, 1), 2),
]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("shape, dim", SHAPES)
@pytest.mark.parametrize("fair", [False, True])
def test_any_axis_in_any_portion_and_either_library(shape, dim, dtype, fair):
    X = draw(*shape, dtype=dtype)
    rest = [n for i, n in enumerate(shape) if i != dim % len(shape)]
    x = draw(*rest, dtype=dtype, seed=1)
    first, s = X.movedim(dim, 0).double(), shape[dim]
    pairs = (first[:, None] - first).abs().sum((0, 1))
    want = (first - x.double()).abs().mean(0) - pairs / (2 * s * (s - fair))
    got = crps(X, x, dim=dim, fair=fair)
    assert_close(got.double(), want, rtol=0, atol=2e-5 if dtype == torch.uint8 else 1e-6)
    through_numpy = crps(X.numpy(), x.numpy(), dim=dim, fair=fair)
    assert isinstance(through_numpy, np.ndarray) and np.array_equal(through_numpy, got.numpy())
    backwards = crps(X.numpy()[::-1], x.numpy()[::-1], dim=dim, fair=fair)  # negative strides
    if dim % len(shape) != 0:
        assert np.array_equal(backwards, through_numpy[::-1])


def test_portions_are_small_and_cover_everything():
    for shape in ((1, 100, 200_000), (70_000, 100, 3), (5, 10**6, 2), (1, 1, 1)):
        x, y = torch.empty(()).expand(shape), torch.empty(()).expand(shape[0], shape[2])
        parts = [members.shape for members, _ in module._portions(x, y)]
        assert sum(n for _, n in parts) == y.numel()
        assert all(s * n <= max(2**19, s) for s, n in parts)


def test_a_large_level_costs_nothing():
    X, x = draw(12, 6, dtype=torch.float32) + 4000, draw(6, dtype=torch.float32, seed=1) + 4000
    want = definition(X.double(), x.double()).float()
    assert_close(crps(X, x), want, rtol=0, atol=1e-6)


@pytest.mark.parametrize("m, s", [(0.0, 1.0), (0.5, 1.0), (0.0, 0.3), (-1.0, 2.0)])
def test_only_the_true_law_has_the_least_mean(m, s):
    "The mean over truths is the integral of (F - F_true)², plus that of F_true (1 - F_true)."
    z = torch.linspace(-14, 14, 40_001, dtype=torch.float64)
    F, F_true = torch.special.ndtr((z - m) / s), torch.special.ndtr(z)
    want = torch.trapezoid((F - F_true) ** 2 + F_true * (1 - F_true), z)
    density = torch.exp(-(z**2) / 2) / (2 * math.pi) ** 0.5
    assert_close(torch.trapezoid(density * crps_gaussian(m, s, z), z), want)
    assert want >= 1 / math.pi**0.5 - 1e-9


def test_the_fair_score_needs_independent_draws():
    "Members always at -3 and 3 score E|x - 3| - 3 = 0.0008 on N(0, 1), where the true law has 0.56."
    x = draw(200_000)
    score = crps(torch.tensor([[-3.0], [3.0]]).double().expand(2, len(x)), x, fair=True)
    assert abs(score.mean() - 0.00076) < 5 * score.std() / len(x) ** 0.5 < 0.02


@pytest.mark.parametrize("s", [2, 3, 10])
def test_fair_and_plain_have_their_means(s):
    "Perfect normal forecasts: the fair score's mean is 1/sqrt(pi), the plain one's (1 + 1/s) of it."
    X, x = draw(s, 200_000, seed=s), draw(200_000, seed=100 + s)
    for fair, want in ((True, 1.0), (False, 1 + 1 / s)):
        score = crps(X, x, fair=fair)
        assert abs(score.mean() - want / math.pi**0.5) < 5 * score.std() / 200_000**0.5


def test_members_have_no_order_and_the_unit_is_the_pixels():
    X, x = draw(20, 400), draw(400, seed=1)
    mixed = X[torch.randperm(20, generator=seeded(2))]
    assert_close(crps(mixed, x), crps(X, x), rtol=0, atol=1e-14)
    moved, want = crps(-3 * X + 5, -3 * x + 5, fair=True), 3 * crps(X, x, fair=True)
    assert_close(moved, want, rtol=0, atol=1e-13)
    X8, x8 = draw(20, 400, dtype=torch.uint8), draw(400, dtype=torch.uint8, seed=1)
    assert torch.equal(crps(X8.flip(0), x8), crps(X8, x8))
    assert torch.equal(crps(255 - X8, 255 - x8), crps(X8, x8))
    assert_close(crps(X8, x8), crps(X8.float(), x8.float()), rtol=1e-5, atol=1e-4)


def test_what_is_given_is_left_alone():
    before = torch.get_num_threads()
    for dtype in (torch.uint8, torch.float32):
        for shape in ((1, 9), (9, 1), (9, 30)):
            X, x = draw(*shape, dtype=dtype), draw(shape[1], dtype=dtype, seed=1)
            same = X.clone(), x.clone()
            crps(X, x)
            rank_histogram(X, x)
            energy_score(X, x)
            assert torch.equal(X, same[0]) and torch.equal(x, same[1])
    complaint(crps, torch.full((2, 3), math.nan), torch.zeros(3))
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("fair", [False, True])
def test_gradients(fair):
    X, x = draw(5, 6).requires_grad_(), draw(6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda X, x: crps(X, x, fair=fair), (X, x))
    V, v = draw(4, 3, 5).requires_grad_(), draw(3, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda V, v: energy_score(V, v, fair=fair), (V, v))


def test_gradients_of_the_closed_form():
    mu, x = draw(6, seed=2).requires_grad_(), draw(6, seed=1)
    sigma = draw(6, seed=3).abs().add(0.1).requires_grad_()
    slopes = torch.autograd.grad(crps_gaussian(mu, sigma, x).sum(), (mu, sigma))
    z = ((x - mu) / sigma).detach()
    assert_close(slopes[0], 1 - 2 * torch.special.ndtr(z))
    assert_close(slopes[1], 2 * torch.exp(-(z**2) / 2) / (2 * math.pi) ** 0.5 - math.pi**-0.5)


def test_a_large_normal_ensemble_approaches_the_closed_form():
    s = 200_000
    quantiles = torch.special.ndtri((torch.arange(s, dtype=torch.float64) + 0.5) / s)
    for x in (-2.0, 0.0, 0.7):
        got = crps(0.3 + 2 * quantiles[:, None], torch.tensor([x], dtype=torch.float64))
        assert abs(float(got) - float(crps_gaussian(0.3, 2.0, x))) < 1e-4
    assert abs(float(crps_gaussian(0.0, 1e-300, 2.0)) - 2) < 1e-12
    assert float(crps_gaussian(1.0, 0.0, 1.0)) < 1e-300


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_a_gpu_agrees(dtype):
    X, x = draw(20, 3, 5000, dtype=dtype), draw(3, 5000, dtype=dtype, seed=1)
    for score in (crps, energy_score):
        got = score(X.cuda(), x.cuda(), fair=True)
        assert got.is_cuda
        assert_close(got.cpu(), score(X, x, fair=True), rtol=1e-5, atol=1e-4)
    assert_close(rank_histogram(X.cuda(), x.cuda()).cpu(), rank_histogram(X, x))
    for got, want in zip(spread_skill(X.cuda(), x.cuda()), spread_skill(X, x)):
        assert_close(got.cpu(), want)


def test_apples_gpus_are_spared_float64():
    apple = SimpleNamespace(device=SimpleNamespace(type="mps"), cpu=lambda: torch.ones(2))
    assert in_float64(apple).dtype == torch.float64  # an attribute `double` would be missed
    assert in_float64(torch.ones(2, dtype=torch.int64)).dtype == torch.float64


# ---------------------------------------------------------------- energy score


def energy_definition(X, x, fair):
    "Equation 9 pair by pair: X (s d), x (d)."
    s = len(X)
    near = sum((a - x).square().sum().sqrt() for a in X) / s
    apart = sum((a - b).square().sum().sqrt() for a in X for b in X) / (s * (s - fair))
    return near - apart / 2


@pytest.mark.parametrize("fair", [False, True])
@pytest.mark.parametrize("dim, batch", [(0, 1), (1, 2), (-1, 0), (2, 1)])
def test_energy_pair_by_pair_along_any_axis(dim, batch, fair):
    shape = (3, 2, 4, 5)
    x = draw(*shape, seed=1)
    X = draw(6, *shape).movedim(0, dim)
    got = energy_score(X, x, dim=dim, fair=fair, batch=batch)
    assert got.shape == shape[:batch]
    clips = X.movedim(dim, 0).reshape(6, math.prod(shape[:batch]), -1)
    flat = x.reshape(math.prod(shape[:batch]), -1)
    want = [energy_definition(clips[:, i], flat[i], fair) for i in range(len(flat))]
    assert_close(got.flatten(), torch.stack(want))
    assert np.allclose(energy_score(X.numpy(), x.numpy(), dim, fair, batch), got.numpy())


def test_energy_of_single_numbers_is_the_crps():
    X, x = draw(7, 3000), draw(3000, seed=1)
    for fair in (False, True):
        assert_close(energy_score(X, x, fair=fair), crps(X, x, fair=fair))
    assert_close(
        energy_score(X[:, :12].view(7, 3, 4), x[:12].view(3, 4), batch=2).flatten(), crps(X, x)[:12]
    )


@pytest.mark.parametrize("s", [2, 10])
def test_energy_has_its_mean_in_five_dimensions(s):
    "A perfect N(0, 1)^d forecast: Γ((d + 1)/2) / Γ(d/2) if fair, (1 + 1/s) of it if plain."
    d, n = 5, 40_000
    X, x = draw(s, n, d, seed=s), draw(n, d, seed=50 + s)
    want = math.gamma((d + 1) / 2) / math.gamma(d / 2)
    for fair, times in ((True, 1.0), (False, 1 + 1 / s)):
        score = energy_score(X, x, fair=fair)
        assert abs(score.mean() - times * want) < 5 * score.std() / n**0.5


def test_energy_does_not_see_a_rotation_but_sees_correlation():
    X, x, Q = draw(6, 40, 5), draw(40, 5, seed=1), torch.linalg.qr(draw(5, 5, seed=2)).Q
    assert_close(energy_score(X @ Q, x @ Q), energy_score(X, x))
    X8 = draw(6, 3, 4, dtype=torch.uint8)
    exact = energy_score(X8.double(), X8[0].double())
    assert_close(energy_score(X8, X8[0]).double(), exact, rtol=1e-5, atol=1e-4)
    together = draw(2000, 1, seed=3).expand(-1, 5)  # five equal numbers a clip
    alone = draw(10, 2000, 5, seed=4)
    right = energy_score(draw(10, 2000, 1, seed=5).expand(-1, -1, 5), together, fair=True)
    worse = energy_score(alone, together, fair=True) - right
    assert worse.mean() > 5 * worse.std() / 2000**0.5


# ---------------------------------------------------------------- calibration


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_ranks_one_by_one(dtype):
    X, x = draw(6, 4, 40, dtype=dtype), draw(4, 40, dtype=dtype, seed=1)
    if dtype == torch.uint8:
        X, x = X // 50, x // 50  # many ties
    want = np.zeros(7)
    for members, came in zip(X.reshape(6, -1).T.tolist(), x.flatten().tolist()):
        below, ties = sum(m < came for m in members), sum(m == came for m in members)
        want[below : below + ties + 1] += 1 / (ties + 1)
    assert_close(rank_histogram(X, x), torch.from_numpy(want))
    assert np.allclose(rank_histogram(X.movedim(0, -1).numpy(), x.numpy(), dim=-1), want)


def test_ranks_of_many_portions_add_up():
    X, x = draw(9, 300_000, dtype=torch.float32), draw(300_000, dtype=torch.float32, seed=1)
    ranks = (X < x).sum(0)  # no ties
    assert_close(rank_histogram(X, x), torch.bincount(ranks, minlength=10).double())


def test_spread_skill_one_by_one():
    X, x = draw(7, 60), draw(60, seed=1)
    order = np.argsort(np.var(X[::2].numpy(), axis=0, ddof=1), kind="stable")
    spread, error = spread_skill(X.numpy(), x.numpy(), bins=4)
    for k, i in enumerate(np.array_split(order, 4)):
        half = X[1::2].numpy()[:, i]
        assert np.isclose(spread[k] ** 2, (1 + 1 / 3) * half.var(0, ddof=1).mean())
        assert np.isclose(error[k] ** 2, ((half.mean(0) - x.numpy()[i]) ** 2).mean())


def test_a_calibrated_ensemble_lies_on_the_diagonal():
    n = 60_000
    scale = torch.linspace(0.2, 3, n, dtype=torch.float64)
    spread, error = spread_skill(scale * draw(8, n), scale * draw(n, seed=1), bins=4)
    assert ((error / spread - 1).abs() < 5 * (0.5 / (n / 4)) ** 0.5 * 2).all()


# ---------------------------------------------------------------- a judge for completions


def clips(b=6, f=4, seed=0):
    return draw(b, f, 1, 2, 2, dtype=torch.float32, seed=seed)


def test_judge_fill_by_hand():
    x, known = clips(), torch.rand(6, 4, generator=seeded(1)) < 0.5
    known[:, 0], known[:, 1] = True, False
    noise = draw(3, 6, 4, 1, 2, 2, dtype=torch.float32, seed=2)

    def fill(given, mask, n_samples, generator):
        assert torch.equal(given.isnan().flatten(2).all(2), ~known) and torch.equal(mask, known)
        return torch.where(expand(mask, given), given, noise[:n_samples])

    got = judge_fill(fill, x, known, n_samples=3)
    mse, score = [], []
    for b in range(6):  # every clip counts once, whatever it hides
        hidden, truth = noise[:, b, ~known[b]], x[b, ~known[b]]
        mse.append(float((hidden - truth).square().mean()))
        pairs = (hidden[:, None] - hidden).abs().sum((0, 1)) / (2 * 3 * 2)
        score.append(float(((hidden - truth).abs().mean(0) - pairs).mean()))
    for name, each in (("mse", np.array(mse)), ("crps", np.array(score))):
        half = 1.96 * each.std(ddof=1) / 6**0.5
        want = each.mean(), each.mean() - half, each.mean() + half
        assert np.allclose([got[name], got[name + "_low"], got[name + "_high"]], want, atol=1e-5)
    assert got["known_unchanged"] is True


def test_judge_fill_judges_draws_from_the_true_law():
    "Twice the variance is the squared error of a draw; the CRPS is the spread over sqrt(pi)."
    world, known = GaussianClips(6, size=4, rho=0.8), torch.arange(6) < 2
    law = world.conditional(known)

    def perfect(x, known, n_samples, generator):
        x = torch.where(expand(known, x), x, 0)
        return law.whole(x, law.sample(x, n_samples, generator))

    x = world.sample(200, seeded(0))
    got, sd = judge_fill(perfect, x, known, generator=seeded(1)), law.std(x)
    for name, want in (("mse", 2 * sd.square().mean()), ("crps", (sd / math.pi**0.5).mean())):
        assert abs(got[name] - want) < 5 / 1.96 * (got[name + "_high"] - got[name])
    assert got["known_unchanged"]


def test_judge_fill_can_say_no():
    x, known = clips(), torch.arange(4) < 2

    def nudged(given, mask, n_samples, generator):
        return given.nan_to_num().expand(n_samples, -1, -1, -1, -1, -1) + 1e-6

    def peeks(given, mask, n_samples, generator):
        return given.mean(1, keepdim=True).expand(n_samples, -1, 4, -1, -1, -1)

    assert judge_fill(nudged, x, known)["known_unchanged"] is False
    assert math.isnan(judge_fill(peeks, x, known)["crps"])
    one = judge_fill(nudged, x[:1], known)
    assert one["mse"] > 0 and math.isnan(one["mse_low"])
    assert "fill: got shape" in complaint(judge_fill, lambda g, k, **_: g, x, known)
    for bad in (1, 0, 2.0, True):
        assert "n_samples: got" in complaint(judge_fill, nudged, x, known, n_samples=bad)
    assert "clips: got NaN" in complaint(judge_fill, nudged, x * math.nan, known)


# ---------------------------------------------------------------- the door


def test_masked_values_are_refused_and_masked_arrays_without_any_are_not():
    X, x = draw(10, 5).numpy(), np.array([0, 0, -9999.0, 0, 0])
    for score in (crps, rank_histogram, spread_skill, energy_score):
        assert "target: got a masked array" in complaint(score, X, np.ma.masked_equal(x, -9999))
        masked = np.ma.masked_less(X, 0)
        assert "samples: got a masked array" in complaint(score, masked, x)
    assert "target: got a masked" in complaint(crps_gaussian, 0.0, 1.0, np.ma.masked_equal(x, 0))
    assert np.array_equal(crps(np.ma.masked_array(X), np.ma.masked_array(x)), crps(X, x))


def test_numbers_and_arrays_of_every_kind():
    X, x = draw(6, 4).numpy(), draw(4, seed=1).numpy()
    big = X.astype(">f8"), x.astype(">f4")
    assert np.allclose(crps(*big), crps(X, x), atol=1e-6)
    assert float(crps(draw(6), 0.5)) == pytest.approx(
        float(crps(draw(6), torch.tensor(0.5).double()))
    )
    X8 = draw(6, dtype=torch.uint8)
    assert float(crps(X8, 7)) == float(crps(X8, torch.tensor(7, dtype=torch.uint8)))
    for bad in (7.5, -1, 256):
        assert f"target: got {bad}, expected a whole number" in complaint(crps, X8, bad)
    wider = [np.longdouble] if np.dtype(np.longdouble).itemsize > 8 else []  # of some machines
    others = [X.astype(kind) for kind in (int, object, complex, *wider)]
    for bad in (*others, X > 0, X.tolist(), None):
        assert "samples: got" in complaint(crps, bad, x)
    for number in (np.float32(0.5), np.longdouble(0.5), np.float64(0.5)):
        assert float(crps(draw(6), number)) == float(crps(draw(6), 0.5))
    for whole in (7.0, np.int64(7), np.float32(7)):
        assert float(crps(X8, whole)) == float(crps(X8, 7))
    for score in (crps, energy_score, rank_histogram, spread_skill):
        for bad in (True, np.bool_(True), 1j, np.complex64(1), "1", None, [1.0]):
            assert "target: got a" in complaint(score, X8, bad)
            assert "target: got a" in complaint(score, draw(6), bad)
    for bad in (True, 1j, np.complex64(1), None):
        assert "mu: got a" in complaint(crps_gaussian, bad, 1.0, 0.0)
    assert "expected uint8 or floating point of at most 64 bits" in complaint(crps, X > 0, x)


def test_bytes_and_a_grey_level_are_reckoned_as_numbers():
    "Samples 0, 1, 2 in bytes and the target as a number: nothing wraps around at 0 or 255."
    X8 = torch.tensor([0, 1, 2, 255], dtype=torch.uint8)
    for level in (0, 1, 254, 255):
        want = definition(X8.double()[:, None], torch.tensor([float(level)], dtype=torch.float64))
        assert float(crps(X8, level)) == pytest.approx(float(want), rel=1e-6)
        assert float(
            energy_score(X8[:, None], torch.tensor([level], dtype=torch.uint8), batch=0)
        ) == (pytest.approx(float(want), rel=1e-6))
    for outside in (-1, 256, 1.5, -0.5, math.nan, math.inf):
        for score in (crps, energy_score, rank_histogram, spread_skill):
            assert "expected a whole number from 0 to 255" in complaint(score, X8, outside)


@pytest.mark.parametrize("score", [crps, energy_score, rank_histogram, spread_skill])
def test_the_order_of_bytes_of_a_file_does_not_matter(score):
    X, x = draw(6, 40).numpy(), draw(40, seed=1).numpy()
    want = np.array(score(X, x))
    for kind in (">f8", "<f8"):
        assert np.array_equal(np.array(score(X.astype(kind), x.astype(kind))), want)
    near = np.array(score(X.astype(">f4"), x.astype(">f4")))
    assert np.allclose(near, np.array(score(X.astype("f4"), x.astype("f4"))), rtol=0, atol=0)


def test_one_line_says_what_is_wrong():
    X, x = draw(5, 3, 4), draw(3, 4, seed=1)
    for score in (crps, rank_histogram, spread_skill, energy_score):
        for dim in (3, -4, 0.0, True, None, "0", (0,)):
            assert "dim: got" in complaint(score, X, x, dim=dim)
        for bad in (x[0], x.T, x[None], 0.5, x[..., None]):  # nothing is broadcast
            assert "target: got shape" in complaint(score, X, bad)
        assert "samples: got NaN" in complaint(score, X * math.nan, x)
        assert "target: got NaN" in complaint(score, X, x * math.inf)
        assert "samples: got shape" in complaint(score, X[:, :0], x[:0])
        assert "target: got torch.uint8" in complaint(score, X, x.to(torch.uint8))
    for score in (crps, energy_score):
        assert "ensemble of 1" in complaint(score, X[:1], x, fair=True)
        huge = torch.full((2, 3), 3e38)
        assert "overflow" in complaint(score, huge, -huge[0])
    for bins in (0, 13, 2.0, True, "8"):
        assert "bins: got" in complaint(spread_skill, X, x, bins=bins)
    assert "ensemble of 3" in complaint(spread_skill, X[:3], x)
    for batch in (-1, 3, 1.0):
        assert "batch: got" in complaint(energy_score, X, x, batch=batch)
    assert "sigma: got -1" in complaint(crps_gaussian, 0.0, -1.0, 0.0)
    assert "sigma: got NaN" in complaint(crps_gaussian, 0.0, math.nan, 0.0)
    assert "expected broadcast" in complaint(crps_gaussian, x, 1.0, x.T)
    assert "mu: got a str" in complaint(crps_gaussian, "0", 1.0, 0.0)


def test_names_that_moved_say_where():
    from vidiffedu import likeness

    for name in ("psnr", "I3D", "load_i3d", "load_lpips", "judge_forecast", "frechet_distance"):
        with pytest.raises(ImportError, match=f"{name}: moved .* to vidiffedu.likeness"):
            getattr(module, name)
        assert hasattr(likeness, name)
    with pytest.raises(AttributeError, match="nothing"):
        module.nothing


# missing values


def missing(n=400, s=7, share=0.2):
    g = np.random.default_rng(5)
    x, y = g.normal(size=(s, n)), g.normal(size=n)
    x[g.random(x.shape) < share] = np.nan
    y[::9] = np.nan
    return x, y


@pytest.mark.parametrize("fair", [False, True])
def test_members_that_are_missing_are_left_out(fair):
    "Element by element, the score of the members that are there; none, or one if fair, give NaN."
    x, y = missing(share=0.5)
    found = crps(x, y, fair=fair, nan="omit")
    for i in range(len(y)):
        members = x[~np.isnan(x[:, i]), i]
        if np.isnan(y[i]) or len(members) < 1 + fair:
            assert np.isnan(found[i])
        else:
            one = crps(members[:, None], y[i : i + 1], fair=fair)[0]
            assert found[i] == pytest.approx(one, rel=1e-12)


def test_nan_is_refused_or_propagates():
    x, y = missing()
    with pytest.raises(ValueError, match="samples: got NaN or infinite values"):
        crps(x, y)
    found, gone = crps(x, y, nan="propagate"), np.isnan(x).any(0) | np.isnan(y)
    assert np.array_equal(np.isnan(found), gone)
    np.testing.assert_allclose(found[~gone], crps(x[:, ~gone], y[~gone]))
    with pytest.raises(ValueError, match="nan: got 'drop', expected 'refuse'"):
        crps(x, y, nan="drop")
    with pytest.raises(ValueError, match="infinite|overflow"):
        crps(np.full((3, 2), np.inf), np.zeros(2), nan="omit")


def test_masked_values_are_missing_ones():
    x, y = missing()
    masked = np.ma.masked_array(np.nan_to_num(x, nan=-9999.0), np.isnan(x))
    came = np.ma.masked_array(np.nan_to_num(y, nan=-9999.0), np.isnan(y))
    for nan in ("omit", "propagate"):
        np.testing.assert_array_equal(crps(masked, came, nan=nan), crps(x, y, nan=nan))
    with pytest.raises(ValueError, match="samples: got a masked array"):
        crps(masked, came)
    whole = np.ma.masked_array(np.arange(4, dtype=np.uint8), [0, 0, 1, 0])
    found = crps(np.float32([[0, 1, 2, 3]] * 2), whole, nan="omit")
    assert np.array_equal(np.isnan(found), [False, False, True, False])
