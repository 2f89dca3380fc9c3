"""What the chapters vector and masks share: with the exact denoiser `fill` and `forecast` must return the exact conditional law, of any known frames.

The exact Gaussian denoiser is affine and the default step draws nothing, so a completion is an affine function of the noise that it starts from:
run it on the zero noise and on every unit vector, and its law is known without sampling. What remains is discretisation, and the start (a(1) is
small, not zero); both shrink with the steps, and the tolerances below are for the steps used."""

import itertools
from functools import partial

import pytest
import torch
from pretend_device import pretend_device
from unit_noise import law

from vidiffedu.core import complaint, expand, seeded
from vidiffedu.masks import RaMViD
from vidiffedu.oracle import GaussianClips
from vidiffedu.paths import VE, VP, Bridge, Cosine, RectifiedFlow
from vidiffedu.sample import ddim_step, ode_step
from vidiffedu.times import grid, pyramid
from vidiffedu.vector import FVDM

F = 4
MASKS = [torch.tensor(m) for m in itertools.product([False, True], repeat=F) if not all(m)]
METHODS = {"FVDM": FVDM, "RaMViD": RaMViD}
each_method = pytest.mark.parametrize("method", METHODS)


def name(mask):
    if not isinstance(mask, torch.Tensor):
        return str(mask)
    return "".join("#" if k else "." for k in mask.tolist())


@pytest.fixture(scope="module")
def world():
    mean = torch.tensor([0.5, 0.0, -1.0, 0.3])
    return GaussianClips(F, size=(1, 2), rho=0.8, mean=mean, length=1.0)


@pytest.fixture(scope="module")
def clip(world):
    return world.sample(1, generator=seeded(0), dtype=torch.float64)


def exact(method, world, path=None):
    path = path or VP()
    model = METHODS[method](None, path)
    model.denoise = world.denoiser(path)
    return model


def assert_law(got, mean, cov, tol):
    spread = cov.diagonal().sqrt()
    assert ((got[0] - mean.flatten()) / spread).abs().max() < tol
    assert (got[1] - cov).abs().max() < tol * cov.abs().max()


def conditional(world, clip, mask):
    "Mean and covariance of the unknown frames, float64"
    there = world.conditional(mask) if mask.any() else None
    mean, cov = (there.mean(clip)[0], there.cov) if there else (world.mean, world.cov)
    return mean.double(), cov.double()


# ---------------------------------------------------------------- laws


@each_method
@pytest.mark.parametrize("mask", MASKS, ids=name)
def test_fill_returns_the_conditional_law_of_any_known_frames(
    world, clip, method, mask, monkeypatch
):
    "and what stands in the unknown frames cannot leak: it is NaN, or infinite"
    holes = torch.where(torch.arange(F) % 2 == 0, torch.nan, torch.inf).double()
    blind = torch.where(expand(mask[None], clip), clip, expand(holes[None], clip))

    def fill(n):
        out = exact(method, world).fill(blind, mask, n_samples=n)[:, 0]
        assert torch.equal(out[:, mask], clip[:, mask].expand(n, -1, -1, -1, -1))
        return out[:, ~mask]

    assert_law(law(monkeypatch, fill, clip.numel()), *conditional(world, clip, mask), 0.03)


@each_method
def test_the_error_falls_with_the_steps(world, clip, method, monkeypatch):
    mask, path = torch.tensor([True, False, False, True]), Cosine()  # a(1) = 0: the start is exact
    cov, miss = world.conditional(mask).cov, []
    for steps in (20, 40, 80):
        how = dict(steps=steps, timetable=grid)
        fill = lambda n: exact(method, world, path).fill(clip, mask, n, **how)[:, 0, ~mask]
        miss.append(float((law(monkeypatch, fill, clip.numel())[1] - cov).abs().max()))
    assert miss[2] < miss[1] / 2.5 < miss[0] / 6  # Heun: order 2


@each_method
def test_masks_may_differ_from_clip_to_clip(world, method):
    x, known = world.sample(3, generator=seeded(1)), torch.stack([MASKS[1], MASKS[6], MASKS[0]])
    n = 4000
    out = exact(method, world).fill(x, known, n_samples=n, generator=seeded(2))
    assert out.shape == (n, 3, F, 1, 1, 2)
    assert torch.equal(out[:, known], x[known].expand(n, -1, -1, -1, -1))
    for i, mask in enumerate(known[:2]):
        there, got = world.conditional(mask), out[:, i][:, ~mask]
        std, mean = there.std(x[i : i + 1])[0], there.mean(x[i : i + 1])[0]
        assert ((got.mean(0) - mean).abs() < 6 * std / n**0.5 + 0.01).all()
        assert (got.std(0) / std - 1).abs().max() < 6 / (2 * n) ** 0.5 + 0.01


@each_method
def test_forecast_is_fill_of_the_future(world, clip, method, monkeypatch):
    mask = torch.arange(F) < 2
    forecast = lambda n: exact(method, world).forecast(clip[:, :2], 2, n_samples=n)[:, 0]
    assert forecast(3).shape == (3, 2, 1, 1, 2)
    assert_law(law(monkeypatch, forecast, clip.numel()), *conditional(world, clip, mask), 0.03)


@each_method
def test_generate_draws_from_the_law_of_clips(world, clip, method, monkeypatch):
    shape = lambda n: (n, *clip.shape[1:])
    make = lambda n: exact(method, world).generate(shape(n))
    assert_law(law(monkeypatch, make, clip.numel()), world.mean.double(), world.cov.double(), 0.03)


@pytest.mark.parametrize("step", [ddim_step, ode_step])
def test_steps_can_be_replaced(world, clip, step, monkeypatch):
    "Other steps reach the same law, more slowly"
    mask, model = torch.tensor([True, False, False, True]), exact("FVDM", world)
    fill = lambda n: model.fill(clip, mask, n, steps=400, step=step)[:, 0, ~mask]
    assert_law(law(monkeypatch, fill, clip.numel()), *conditional(world, clip, mask), 0.03)


# ---------------------------------------------------------------- plumbing


@each_method
def test_each_clip_walks_down_the_timetable_of_its_own_mask(method):
    "and a clip that is done first waits, clean"
    seen, known = [], torch.stack([MASKS[1], MASKS[7], MASKS[8]])  # 3, 1 and 3 frames unknown
    model = METHODS[method](None)
    model.denoise = lambda x_t, t, y: seen.append(t) or torch.zeros_like(x_t)
    how = dict(steps=3, timetable=partial(pyramid, lag=2), step=ddim_step)
    model.fill(torch.ones(3, F, 1, 2, 2), known, **how)
    rows = torch.stack(seen)
    assert rows.shape == (7, 3, F)  # 3 steps, and the third frame starts 2 x 2 rows later
    for i, mask in enumerate(known):
        mine = pyramid(3, F, lag=2, known=mask)
        short = len(mine) - 1
        assert torch.equal(rows[:short, i], mine[:-1][:7])
        assert (rows[short:, i] == 0).all()


def test_chunks_keep_the_order(world):
    x, known = world.sample(3, generator=seeded(1)), torch.tensor([True, False, False, False])
    sizes, model = [], exact("FVDM", world)
    denoise = world.denoiser(VP())
    model.denoise = lambda x_t, t, y: sizes.append(len(x_t)) or denoise(x_t, t, y)
    out = model.fill(x, known, n_samples=5, chunk=4, generator=seeded(2))
    first = x[:, :1].expand(5, -1, -1, -1, -1, -1)
    assert torch.equal(out[:, :, :1], first)  # every sample beside its own clip
    assert set(sizes) == {4, 3}  # of 15
    sizes.clear()
    model.forecast(x[:, :1], 3, n_samples=5, chunk=6, generator=seeded(2))
    assert set(sizes) == {6, 3}


@each_method
def test_masks_go_with_their_clips_into_chunks(method):
    known = torch.stack([MASKS[1], MASKS[2], MASKS[12]])
    x = torch.randn(3, F, 1, 2, 2, generator=seeded(0))
    model = METHODS[method](None)
    model.denoise = lambda x_t, t, y: 0 * x_t
    out = model.fill(x, known, 4, chunk=5, steps=2, step=ddim_step, generator=seeded(1))
    assert torch.equal(out[:, known], x[known].expand(4, -1, -1, -1, -1))
    assert (out[:, ~known] == 0).all()  # nobody else is given anything


def test_the_default_is_25_heun_steps(world, clip):
    calls, model, denoise = [], exact("FVDM", world), world.denoiser(VP())
    model.denoise = lambda x_t, t, y: calls.append(1) or denoise(x_t, t, y)
    mask = torch.arange(F) < 2
    model.fill(clip, mask)
    model.forecast(clip[:, :2], 2)
    assert len(calls) == 2 * (2 * 25 - 1)  # the last step is Euler's
    calls.clear()
    model.fill(clip, mask, steps=3, step=ddim_step)
    assert len(calls) == 3


def test_nothing_is_clamped_unless_asked(world, clip):
    model, mask = exact("FVDM", world), torch.tensor([True, False, False, False])
    far = clip.float() + 7
    assert model.fill(far, mask, 20, generator=seeded(0)).max() > 5
    held = model.fill(far, mask, 20, generator=seeded(0), clip=(-1, 1))[:, :, 1:]
    assert held.abs().max() < 1.1  # estimates, up to the last Euler step


@each_method
def test_no_step_waits_for_a_device(method):
    "More steps, not more waiting; a loss waits for nothing"
    waits = []
    with pretend_device() as (device, syncs):
        x = torch.rand(2, F, 1, 4, 4, device=device) * 2 - 1
        model = METHODS[method](lambda x_t, t, cond: 0.5 * x_t, **LEARNS.get(method, {}))
        g = torch.Generator(device).manual_seed(0)
        before = len(syncs)
        model.loss(x, generator=g)
        assert len(syncs) == before, syncs[before:]
        for steps in (3, 9):
            before = len(syncs)
            model.fill(x, torch.arange(F) < 2, steps=steps, generator=g)
            waits.append(len(syncs) - before)
    assert waits[0] == waits[1]


LEARNS = {"RaMViD": dict(max_known=2)}


# ---------------------------------------------------------------- training


@each_method
def test_a_frame_s_loss_has_the_weight_of_its_own_time(method):
    "Frame i is wrong by i + 1 on top of its noise: the mean over noisy frames of weight(t_i) (i + 1)²"
    told = []
    off = torch.arange(1.0, F + 1)[:, None, None, None]
    model = METHODS[method](None, weight=torch.square, **LEARNS.get(method, {}))
    model.denoise = lambda x_t, t, y: told.append(t) or off.expand(x_t.shape)
    loss = model.loss(torch.zeros(500, F, 1, 4, 4), seeded(0))
    (t,) = told
    want = (t**2 * torch.arange(1.0, F + 1) ** 2).sum() / (t > 0).sum()
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)


@each_method
def test_the_loss_reads_the_pixels(method):
    model = METHODS[method](lambda x_t, t, cond: x_t, **LEARNS.get(method, {}))
    for x in (torch.full((2, F, 1, 4, 4), 3.0), torch.full((2, F, 1, 4, 4), torch.nan)):
        assert complaint(model.loss, x).startswith("clip: got values in")
    assert complaint(model.loss, torch.zeros(2, F, 4, 4)).startswith("clip: got shape")


# ---------------------------------------------------------------- wrong input


@each_method
def test_wrong_input_ends_in_one_line_before_any_work(world, clip, method):
    model, mask = exact(method, world), torch.arange(F) < 2

    def denoise(x_t, t, y):
        raise AssertionError("the network was called")

    model.denoise = denoise
    for bad in (
        torch.tensor([True, False]),
        torch.ones(F, dtype=torch.bool),
        torch.tensor([1.0, 0.0, 0.0, 0.0]),
        torch.tensor([1, 0, 0, 0]),
        torch.zeros(2, F, dtype=torch.bool),
        torch.zeros(F, 1, dtype=torch.bool),
        torch.tensor(True),
    ):
        assert complaint(model.fill, clip, bad).startswith("known: got")
    two = torch.cat([clip, clip])
    some_full = torch.stack([mask, torch.ones(F, dtype=torch.bool)])
    assert complaint(model.fill, two, some_full).startswith("known: got all 4 frames of a clip")
    for key, values in dict(
        n_samples=(0, -1, 2.0, True), chunk=(-1, 0, 1.5), steps=(0, 2.0)
    ).items():
        for value in values:
            assert complaint(model.fill, clip, mask, **{key: value}).startswith(
                f"{key}: got {value}"
            )
            said = complaint(model.forecast, clip[:, :2], 2, **{key: value})
            assert said.startswith(f"{key}: got {value}")
    for n_frames in (0, -1, 2.0, True):
        assert complaint(model.forecast, clip, n_frames).startswith("n_frames: got")
    for how in (dict(window=1), dict(window=3.0), dict(window=0)):
        assert complaint(model.forecast, clip, 2, **how).startswith("window: got")
    for how in (dict(window=3, keep=3), dict(keep=0), dict(keep=2.0), dict(window=6, keep=5)):
        assert complaint(model.forecast, clip, 2, **how).startswith("keep: got")
    holes = torch.where(torch.arange(F) == 1, torch.nan, 0.0).view(1, F, 1, 1, 1) + clip
    assert complaint(model.fill, holes, mask).startswith("x: got NaN")
    assert complaint(model.forecast, holes, 2).startswith("past: got NaN")
    assert complaint(model.fill, clip[0], mask).startswith("x: got shape")


@each_method
def test_a_path_that_ends_in_a_known_frame_is_refused(method):
    said = complaint(METHODS[method], lambda x_t, t, cond: x_t, Bridge())
    assert said.startswith("path: got Bridge, expected")
    for path in (VP(), Cosine(), VE(), RectifiedFlow()):
        METHODS[method](lambda x_t, t, cond: x_t, path)
