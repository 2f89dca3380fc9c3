"""Whole-clip methods with the exact denoiser: `fill`, `forecast` and `roll` must return the exact conditional law.

The exact Gaussian denoiser is affine and the default step draws nothing, so a completion is an affine function of the noise that it starts from:
run it on the zero noise and on every unit vector, and its law is known without sampling. What remains is discretisation, and the start (a(1) is
small, not zero); both shrink with the steps, and the tolerances below are for the steps used."""

import itertools
from functools import partial

import pytest
import torch

from vidiffedu.core import complaint, expand, seeded
from vidiffedu.masks import RaMViD, fill_by_replacement, mask_times
from vidiffedu.oracle import GaussianClips
from vidiffedu.paths import VP, Cosine
from vidiffedu.sample import ddim_step, ode_step
from vidiffedu.times import even_noise, grid, pyramid
from vidiffedu.vector import FVDM, fill_frames, roll

F = 4
MASKS = [torch.tensor(m) for m in itertools.product([False, True], repeat=F) if not all(m)]
name = lambda mask: (
    "".join("#" if k else "." for k in mask.tolist())
    if isinstance(mask, torch.Tensor)
    else str(mask)
)
METHODS = {"FVDM": FVDM, "RaMViD": RaMViD}


@pytest.fixture(scope="module")
def world():
    return GaussianClips(
        F, size=(1, 2), rho=0.8, mean=torch.tensor([0.5, 0.0, -1.0, 0.3]), length=1.0
    )


@pytest.fixture(scope="module")
def clip(world):
    return world.sample(1, generator=seeded(0), dtype=torch.float64)


def exact(method, world, path=VP()):
    model = METHODS[method](None, path)
    model.denoise = world.denoiser(path)
    return model


def unit_noise(monkeypatch):
    "torch.randn gives row 0 zeros and row k the k-th unit vector"

    def randn(shape, **how):
        how.pop("generator", None)
        d = torch.Size(shape[1:]).numel()
        return torch.cat([torch.zeros(1, d, **how), torch.eye(d, **how)])[: shape[0]].view(shape)

    monkeypatch.setattr(torch, "randn", randn)


def law(out):
    "Mean and covariance of the affine map whose images of zero and of the unit vectors are the rows of `out`"
    out = out.flatten(1)
    return out[0], (out[1:] - out[0]).T @ (out[1:] - out[0])


def assert_law(got, mean, cov, tol):
    spread = cov.diagonal().sqrt()
    assert ((got[0] - mean.flatten()) / spread).abs().max() < tol
    assert (got[1] - cov).abs().max() < tol * cov.abs().max()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mask", MASKS, ids=name)
def test_fill_returns_the_conditional_law_of_any_set_of_known_frames(
    world, clip, method, mask, monkeypatch
):
    unit_noise(monkeypatch)
    n = clip.numel() + 1
    blind = torch.where(
        expand(mask.expand(1, F), clip), clip, torch.nan
    )  # unknown content cannot leak: it is NaN
    out = exact(method, world).fill(blind, mask, n_samples=n)[:, 0]
    assert torch.equal(out[:, mask], clip[:, mask].expand(n, -1, -1, -1, -1))
    there = world.conditional(mask) if mask.any() else None
    mean, cov = (there.mean(clip)[0], there.cov) if there else (world.mean, world.cov)
    assert_law(law(out[:, ~mask]), mean.double(), cov.double(), 0.03)


@pytest.mark.parametrize("method", METHODS)
def test_the_error_falls_with_the_steps(world, clip, method, monkeypatch):
    unit_noise(monkeypatch)
    mask, path = torch.tensor([True, False, False, True]), Cosine()  # a(1) = 0: the start is exact
    cov, miss = world.conditional(mask).cov, []
    for steps in (20, 40, 80):
        out = exact(method, world, path).fill(
            clip, mask, n_samples=clip.numel() + 1, steps=steps, timetable=grid
        )[:, 0]
        miss.append(float((law(out[:, ~mask])[1] - cov).abs().max()))
    assert miss[2] < miss[1] / 2.5 < miss[0] / 6  # Heun: order 2


@pytest.mark.parametrize("method", METHODS)
def test_masks_may_differ_from_clip_to_clip(world, method):
    x, known = world.sample(3, generator=seeded(1)), torch.stack([MASKS[1], MASKS[6], MASKS[0]])
    model = exact(method, world)
    out = model.fill(x, known, n_samples=4000, generator=seeded(2))
    assert out.shape == (4000, 3, F, 1, 1, 2) and torch.equal(
        out[:, known], x[known].expand(4000, -1, -1, -1, -1)
    )
    for i, mask in enumerate(known[:2]):
        there = world.conditional(mask)
        std = there.std(x[i : i + 1])[0]
        assert (
            (out[:, i][:, ~mask].mean(0) - there.mean(x[i : i + 1])[0]).abs()
            < 6 * std / 4000**0.5 + 0.01
        ).all()
        assert (out[:, i][:, ~mask].std(0) / std - 1).abs().max() < 6 / 8000**0.5 + 0.01


@pytest.mark.parametrize("method", METHODS)
def test_forecast_is_fill_of_the_future(world, clip, method, monkeypatch):
    unit_noise(monkeypatch)
    model, past = exact(method, world), clip[:, :2]
    out = model.forecast(past, 2, n_samples=clip.numel() + 1)[:, 0]
    mask = torch.arange(F) < 2
    assert out.shape[1:] == (2, 1, 1, 2)
    assert_law(
        law(out),
        world.conditional(mask).mean(clip)[0].double(),
        world.conditional(mask).cov.double(),
        0.03,
    )


def test_a_window_forgets_what_a_markov_chain_may_forget():
    "AR(1) frames: the last known frame says all, so windows of 3 that keep 1 frame give the same law as the whole clip"
    world = GaussianClips(9, size=(1, 2), rho=0.7)
    x, n = world.sample(1, generator=seeded(3)), 4000
    model = exact("FVDM", world)
    there = world.conditional(torch.arange(9) < 2)
    for out in (
        model.forecast(x[:, :2], 7, n, generator=seeded(4), window=3, keep=1)[:, 0],
        roll(
            model.denoise,
            VP(),
            x[:, :2].repeat(n, 1, 1, 1, 1),
            7,
            window=5,
            keep=2,
            generator=seeded(5),
        ),
    ):
        assert out.shape[:2] == (n, 7)
        assert ((out.mean(0) - there.mean(x)[0]).abs() < 6 * there.std(x)[0] / n**0.5 + 0.02).all()
        assert (out.std(0) / there.std(x)[0] - 1).abs().max() < 6 / (2 * n) ** 0.5 + 0.03
        lag = lambda v: ((v[:, 1:] - v.mean(0)[1:]) * (v[:, :-1] - v.mean(0)[:-1])).mean(0)
        true = there.sample(x, 40_000, generator=seeded(6))[:, 0]
        assert (lag(out) - lag(true)).abs().max() < 6 / n**0.5 + 0.02  # joined across the seams


def test_noise_may_rise_along_the_clip(world, clip, monkeypatch):
    unit_noise(monkeypatch)
    mask, path = torch.arange(F) < 1, VP()
    rising = even_noise(path, partial(pyramid, lag=9))
    out = exact("FVDM", world).fill(clip, mask, n_samples=clip.numel() + 1, timetable=rising)[:, 0]
    assert_law(
        law(out[:, 1:]),
        world.conditional(mask).mean(clip)[0].double(),
        world.conditional(mask).cov.double(),
        0.03,
    )


def test_replacement_gives_another_law_however_many_steps(world, clip):
    "The baseline's fault: with a perfect denoiser it still misses the conditional mean, and more steps do not help"
    mask, n = torch.tensor([True, True, False, False]), 4000
    there, x = world.conditional(mask), clip.float().repeat(n, 1, 1, 1, 1)
    miss = []
    for steps in (50, 200):
        out = fill_by_replacement(
            world.denoiser(VP()), VP(), x, mask, steps=steps, generator=seeded(7)
        )
        assert torch.equal(out[:, :2], x[:, :2])
        miss.append(
            float(((out[:, 2:].mean(0) - there.mean(clip)[0]) / there.std(clip)[0]).abs().max())
        )
    assert min(miss) > 0.2


def test_what_each_network_is_told():
    "FVDM hands over a time a frame, RaMViD one a clip; both lose nothing on known frames"
    told = []

    def net(x_t, t, cond):
        told.append(t)
        return torch.zeros_like(x_t)

    t = torch.tensor([[0.0, 0.3, 0.3, 0.3], [0.7, 0.0, 0.7, 0.0]])
    x = torch.ones(2, F, 1, 4, 4)
    assert torch.equal(FVDM(net).denoise(x, t, None), torch.zeros_like(x))
    out = RaMViD(net).denoise(x, t, None)
    assert torch.equal(told[0], t) and torch.equal(told[1], torch.tensor([0.3, 0.7]))
    assert torch.equal(out, expand((t == 0).float(), x) * x)  # clean frames are their own estimate


def test_the_masked_loss_is_a_mean_over_unknown_elements():
    "A network that answers 0 on clips of 1 loses exactly 1, whatever the mask; by hand for weights"
    x = torch.ones(64, F, 1, 4, 4)
    zero = lambda x_t, t, cond: torch.zeros_like(x_t)
    assert RaMViD(zero, max_known=3).loss(x, seeded(0)).item() == pytest.approx(1.0)
    assert FVDM(zero, p=1.0).loss(x, seeded(0)).item() == pytest.approx(1.0)
    t = mask_times(64, F, 3, 0.25, generator=seeded(0))
    want = (t.square() * (t > 0)).sum() / (t > 0).sum()
    assert RaMViD(zero, max_known=3, weight=torch.square).loss(
        x, seeded(0)
    ).item() == pytest.approx(want.item(), rel=1e-5)


def test_masked_times():
    t = mask_times(20_000, 5, 2, 0.25, generator=seeded(0))
    known = (t == 0).sum(1)
    share = known.bincount(minlength=3) / len(t)
    assert (
        known.max() == 2
        and (share - torch.tensor([0.25, 0.375, 0.375])).abs().max() < 5 * 0.5 / len(t) ** 0.5
    )
    assert all(
        len(row[row > 0].unique()) == 1 for row in t[:200]
    )  # the unknown frames share a time


def test_chunks_keep_the_order(world):
    x, known = world.sample(3, generator=seeded(1)), torch.tensor([True, False, False, False])
    out = exact("FVDM", world).fill(x, known, n_samples=5, chunk=4, generator=seeded(2))
    assert torch.equal(
        out[:, :, :1], x[:, :1].expand(5, -1, -1, -1, -1, -1)
    )  # every sample beside its own clip


def test_nothing_is_clamped_unless_asked(world, clip):
    model, mask = exact("FVDM", world), torch.tensor([True, False, False, False])
    far = clip.float() + 7
    assert model.fill(far, mask, 20, generator=seeded(0)).max() > 5
    held = model.fill(far, mask, 20, generator=seeded(0), clip=(-1, 1))[:, :, 1:]
    assert held.abs().max() < 1.1  # estimates, up to the last Euler step


def test_steps_can_be_replaced(world, clip):
    "Other steps reach the same law, more slowly"
    mask, x = torch.tensor([True, False, False, True]), clip.float()
    std = world.conditional(mask).std(x)[0]
    for step, steps in ((ddim_step, 400), (ode_step, 400)):
        out = exact("FVDM", world).fill(x, mask, 3000, steps=steps, step=step, generator=seeded(3))[
            :, 0, 1:3
        ]
        assert (out.std(0) / std - 1).abs().max() < 6 / 6000**0.5 + 0.03


@pytest.mark.parametrize("method", METHODS)
def test_wrong_input(world, clip, method):
    model = exact(method, world)
    for bad in (
        torch.tensor([True, False]),
        torch.ones(F, dtype=torch.bool),
        torch.tensor([1.0, 0.0, 0.0, 0.0]),
        torch.zeros(2, F, dtype=torch.bool),
    ):
        assert complaint(model.fill, clip, bad).startswith("known")
    assert complaint(model.forecast, clip, 2, window=3, keep=3).startswith("keep")
    assert complaint(model.forecast, clip, 0).startswith("n_frames")
    assert complaint(RaMViD(None, max_known=4).loss, torch.zeros(2, 4, 1, 4, 4)).startswith(
        "max_known"
    )
    assert complaint(model.loss, torch.full((2, 6, 1, 4, 4), 3.0)).startswith("clip")
    for t in (torch.tensor(0.5), torch.rand(1), torch.rand(1, 3)):
        assert complaint(RaMViD(lambda x, t, c: x).denoise, clip, t, None).startswith(
            "t: got shape"
        )
    assert "t has shape" in complaint(
        FVDM(lambda x, t, c: expand(t, x) * x).denoise, clip, torch.rand(1, 3), None
    )
