"""Next-frame diffusion with the exact denoiser: on every path `forecast` must return the exact joint law of the frames to come.

As in test_whole_clips: the exact Gaussian denoiser is affine and so are the samplers, hence a forecast is an affine function of the numbers drawn.
Run on zeros and on every unit vector, its mean and covariance are known without sampling; what remains is the error of the steps and of the start."""

import importlib
import json
import math
import re
import statistics
import sys
from functools import partial
from inspect import signature
from pathlib import Path

import pytest
import torch
from unit_noise import law

from vidiffedu import bridge
from vidiffedu.bridge import CVP, NextFrame, matched_times
from vidiffedu.core import complaint, expand, seeded
from vidiffedu.data import turning_leaf
from vidiffedu.denoise import (
    FromNoise,
    FromScore,
    FromV,
    FromVelocity,
    Preconditioned,
    ScaledInput,
    denoising_loss,
    noise_weight,
    to_noise,
    to_score,
    to_v,
    to_velocity,
)
from vidiffedu.nets import JoinedUNet
from vidiffedu.oracle import GaussianClips, Mixture
from vidiffedu.paths import VE, VP, Bridge, Cosine, Schedule
from vidiffedu.sample import (
    ddim_step,
    ddpm_step,
    edm_step,
    from_estimate,
    from_guess,
    sample,
    sde_step,
)
from vidiffedu.times import even_noise, grid
from vidiffedu.train import fit, load_weights, save_weights

CHECKPOINTS = Path(__file__).resolve().parents[1] / "nbs" / "checkpoints"
STUDIES = CHECKPOINTS.parent / "studies"
PATHS = {
    "VP": VP(),
    "VE": VE(0.001, 50.0),
    "Cosine": Cosine(),
    "Bridge": Bridge(),
    "Bridge(2)": Bridge(2.0),
}


def exact(world, path, **how):
    model = (CVP if isinstance(path, Bridge) else NextFrame)(None, path, **how)
    model.denoise = world.next_frame_denoiser(path)
    return model


@pytest.fixture(scope="module")
def world():
    return GaussianClips(
        5, size=(1, 2), rho=0.8, mean=torch.tensor([0.5, 0.0, -1.0, 0.3, 0.2]), std=0.8, length=1.0
    )


@pytest.fixture(scope="module")
def past(world):
    return world.sample(1, generator=seeded(0), dtype=torch.float64)[:, :2]


@pytest.mark.parametrize("name", PATHS)
def test_forecast_returns_the_joint_law_of_the_frames_to_come(world, past, name, monkeypatch):
    n_frames, d = 3, 2
    there = world.conditional(torch.arange(5) < 2)
    clip = torch.cat([past, past.new_zeros(1, 3, 1, 1, 2)], 1)
    mean, cov = there.mean(clip).flatten(), there.cov.double()
    model = exact(world, PATHS[name])
    got_mean, got_cov = law(
        monkeypatch,
        lambda n: model.forecast(past, n_frames, n_samples=n, steps=100)[:, 0],
        2 * n_frames * d,
    )
    spread = cov.diagonal().sqrt()
    assert ((got_mean - mean) / spread).abs().max() < 0.01
    assert ((got_cov - cov) / spread / spread[:, None]).abs().max() < 0.03


def test_the_default_at_100_steps_by_plain_sampling(world, past):
    "The same with ordinary draws in float32: what a user gets."
    n = 3_000
    model = exact(world, Bridge())
    x = model.forecast(past.float(), 1, n_samples=n, steps=100, generator=seeded(0))[:, 0].flatten(
        1
    )
    law_ = world.next_frame(past)
    mean, cov = law_.mean.flatten(), law_.cov.double()
    assert ((x.mean(0) - mean) / cov.diagonal().sqrt()).abs().max() < 5 / n**0.5 + 0.005
    assert (torch.cov(x.T) - cov).abs().max() / cov.max() < 0.03 + 5 * (2 / n) ** 0.5


def test_heun_in_sigma_is_of_order_two_where_heun_in_time_is_lost(monkeypatch):
    one = GaussianClips(1, size=1, std=0.7)
    y = torch.full((1, 1, 1, 1, 1), -1.0, dtype=torch.float64)
    for path in (Bridge(), VP()):
        first, last = (path.time_at(torch.tensor(s, dtype=torch.float64)) for s in (8.0, 0.2))
        x_t, _ = path.perturb(0 * y, first, y=y, noise=torch.ones_like(y))
        u_end = math.sqrt((0.49 + 0.2**2) / (0.49 + 8**2)) * 8  # the flow rescales u, mean 0
        miss = []
        for n in (20, 40, 80):
            sigma = torch.logspace(math.log10(8.0), math.log10(0.2), n + 1, dtype=torch.float64)[
                :, None
            ]
            out = sample(one.denoiser(path), path, x_t, path.time_at(sigma), step=edm_step, y=y)
            u = (out - path.b(last) * y) / path.a(last)
            miss.append(abs(float(u) - u_end))
        assert abs(math.log2(miss[1] / miss[2]) - 2) < 0.1


@pytest.mark.parametrize("name", ["Bridge", "VP"])
def test_wrapped_networks_forecast_as_the_estimate_does(name):
    "Networks that predict noise, score, velocity, v or EDM's mixture, all exact: the same future from the same noise."
    fork, path = turning_leaf(12, generator=seeded(0)), PATHS[name]
    estimate = Mixture(fork.outcomes.double(), [0.7, 0.3]).next_frame_denoiser(path)
    past = fork.past.double()

    def says(convert):  # a network that predicts what `convert` makes of the exact estimate
        return lambda x_t, t, past: convert(path, x_t, estimate(x_t, t, past), t, past[:, -1:])

    def edm_net(scaled, log_sigma4, past):
        sd, sigma = 0.5, expand((4 * log_sigma4).exp(), scaled)
        u = scaled * (sigma**2 + sd**2).sqrt()
        t = path.time_at(sigma[..., 0, 0, 0])
        x_t = expand(path.a(t), u) * u + expand(path.b(t), u) * past[:, -1:]
        x_hat = estimate(x_t, t, past)
        return (x_hat - sd**2 / (sd**2 + sigma**2) * u) * (sigma**2 + sd**2).sqrt() / (sigma * sd)

    pairs = {FromNoise: says(to_noise), FromScore: says(to_score), Preconditioned: edm_net}
    if name == "VP":  # a flow's velocity keeps no digits at the far end of a bridge
        pairs[FromV] = says(lambda p, x_t, x_hat, t, y: to_v(p, x_t, x_hat, t))
        pairs[FromVelocity] = says(to_velocity)
    model = CVP if name == "Bridge" else NextFrame
    wanted = model(estimate, path).forecast(past, 1, generator=seeded(1))
    for wrapper, net in pairs.items():
        found = model(wrapper(net, path), path).forecast(past, 1, generator=seeded(1))
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0.0)


def test_a_bridge_and_vp_forecast_alike_from_one_scaled_network():
    "By the identity a network that sees scaled input and log σ serves any path."
    torch.manual_seed(0)
    net = JoinedUNet(frames=3, width=4).double()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    fork = turning_leaf(4, generator=seeded(0))
    futures = [
        model(ScaledInput(net, path), path).forecast(
            fork.past.double(),
            1,
            2,
            generator=seeded(3),
            start=from_guess if model is CVP else start_around_y,
        )
        for model, path in ((CVP, Bridge()), (NextFrame, VP()))
    ]
    torch.testing.assert_close(*futures, atol=1e-3, rtol=0.0)


def start_around_y(denoise, path, guess, t, y=None, generator=None):
    return path.perturb(guess, t, generator=generator)[0]


def test_training_reaches_its_own_frames_only():
    "Loss on a clip of five frames with a context of two: three windows, each target with the two frames before it."
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x_t, t, past):
            seen.append((x_t, t, past))
            return x_t * 0 + self.p

    clip = torch.linspace(-1, 1, 5)[None, :, None, None, None].expand(1, 5, 1, 2, 2)
    model = NextFrame(Spy(), VE(0.001, 0.01), context=2)
    model.loss(clip, seeded(0)).backward()
    x_t, t, past = seen[0]
    assert x_t.shape == (3, 1, 1, 2, 2) and t.shape == (3, 1) and past.shape == (3, 2, 1, 2, 2)
    assert torch.equal(past[:, :, 0, 0, 0], clip[0, :, 0, 0, 0].unfold(0, 2, 1)[:3])
    assert (x_t.mean((1, 2, 3, 4)) - clip[0, 2:, 0, 0, 0]).abs().max() < 0.05  # next to no noise
    assert model.net.p.grad is not None


def test_what_it_was_trained_on_is_saved_and_asked_for(tmp_path):
    def model():
        return CVP(JoinedUNet(frames=3, width=4, mults=(1, 2), middle=1))

    fresh = model()
    assert fresh.trained_on.tolist() == [0, 0, 0, 0]
    run = fit(
        fresh, lambda n, g: turning_leaf(n, generator=g).clip, steps=2, batch_size=2, progress=False
    )
    save_weights(run.ema, tmp_path / "w.safetensors")
    again = load_weights(model(), tmp_path / "w.safetensors").eval()
    assert again.trained_on.tolist() == [2, 1, 16, 16]
    past = turning_leaf(2, past=4, generator=seeded(0)).past
    assert torch.equal(
        again.forecast(past, 3, generator=seeded(1)),
        again.forecast(past[:, -2:], 3, generator=seeded(1)),
    )  # looks back on two
    assert "at least 2" in complaint(again.forecast, past[:, -1:], 1)
    assert "(1, 16, 16)" in complaint(again.forecast, past[..., :8, :8], 1)
    assert complaint(again.forecast, past[:, :0], 1) and complaint(again.forecast, None, 1)


@pytest.mark.parametrize("path", [VP(), VE(), Cosine()], ids=lambda p: type(p).__name__)
def test_a_path_that_is_no_bridge_is_refused(path):
    assert type(path).__name__ in complaint(CVP, None, path)


def test_clip_bounds_every_estimate_and_steps_are_what_they_say():
    calls = []
    model = CVP(lambda x_t, t, past: calls.append(t) or 3 + 0 * x_t)
    past = torch.zeros(2, 1, 1, 2, 2)
    out = model.forecast(
        past, 2, steps=7, step=ddpm_step, start=from_guess, clip=(-1.0, 1.0), generator=seeded(0)
    )
    assert torch.equal(out, torch.ones(1, 2, 2, 1, 2, 2)) and len(calls) == 14
    assert all(t.shape == (2, 1) for t in calls)
    calls.clear()
    model.forecast(past, 1, steps=7, generator=seeded(0))
    assert len(calls) == 1 + 2 * 6 + 1  # the start, Heun's two a step, one into t = 0


def test_chunks_do_not_change_the_law_nor_the_order():
    world = GaussianClips(3, size=1, mean=torch.tensor([0.0, 0.0, 5.0]), std=0.1)
    past = (
        torch.randn(3, 2, 1, 1, 1, generator=seeded(0)) * 0.1
        + torch.tensor([-1.0, 0.0, 1.0])[:, None, None, None, None]
    )
    whole, parts = (
        exact(world, Bridge()).forecast(past, 1, 50, generator=seeded(1), chunk=c)
        for c in (None, 7)
    )
    assert whole.shape == parts.shape == (50, 3, 1, 1, 1, 1)
    for i in range(3):
        assert abs(whole[:, i].mean() - parts[:, i].mean()) < 5 * 0.1 * (2 / 50) ** 0.5
    assert (whole.mean(0).flatten().diff() > 0.3).all() and (
        parts.mean(0).flatten().diff() > 0.3
    ).all()


def test_matched_times_have_the_other_paths_noise_levels():
    for path in (Bridge(), Bridge(3.0), VE(0.001, 50.0)):
        t = matched_times(path, VP(), top=5.0)(50_000, 1, generator=seeded(0)).double()
        for level in (0.1, 1.0, 4.0):
            share = float(VP().time_at(torch.tensor(level)))
            assert (
                abs(float((path.sigma(t) < level).double().mean()) - share)
                < 5 * (share * (1 - share) / 50_000) ** 0.5
            )
        assert path.sigma(t).max() < 5.01


def test_the_brownian_version_is_right_in_the_limit(monkeypatch):
    "Steps of the reverse SDE from the known frame on a uniform grid: the standard deviation rises to the law's."
    world = GaussianClips(2, size=1, rho=0.6)
    past = torch.full((1, 1, 1, 1, 1), 0.5, dtype=torch.float64)
    stds = []
    for n in (25, 100, 400):
        model = exact(world, Bridge())
        mean, cov = law(
            monkeypatch,
            lambda rows: model.forecast(
                past, 1, rows, steps=n, step=sde_step, timetable=grid, start=from_guess
            )[:, 0],
            n + 1,
        )
        stds.append(float(cov) ** 0.5 / 0.8)  # √(1 - ρ²)
    assert stds == sorted(stds) and 0.99 < stds[-1] < 1.003 and abs(float(mean) - 0.3) < 0.1


# ---------------------------------------------------------------- what the network is shown, what it is scored on


def constant_clip(*values, n=1, size=128):
    "A clip whose frames are even: n clips of len(values) frames, size x size pixels."
    frames = torch.tensor(values, dtype=torch.float64)[None, :, None, None, None]
    return frames.expand(n, len(values), 1, size, size)


def at(t):
    "Training times that are all t."
    return lambda b, f, generator=None, device=None: torch.full((b, f), t, dtype=torch.float64)


@pytest.mark.parametrize("context", [None, 2])
def test_training_noises_the_last_frame_towards_the_one_before_it(context):
    "x_t has mean a x + b y and spread c, with y the *last* past frame: even frames, 16,384 pixels."
    seen, t, k = [], 0.6, 2**-0.5
    a, c = 1 - t, -k * (1 - t) * math.log(1 - t)
    model = CVP(
        lambda x_t, t, past: seen.append((x_t, t, past)) or x_t, context=context, times=at(t)
    )
    model.loss(constant_clip(-0.9, 0.7, 0.1), seeded(0))
    ((x_t, times, past),) = seen
    assert torch.equal(times, torch.full((1, 1), t, dtype=torch.float64))
    assert past.shape == (1, 2, 1, 128, 128)
    assert past[0, :, 0, 0, 0].tolist() == [-0.9, 0.7]
    assert abs(x_t.mean() - (a * 0.1 + t * 0.7)) < 5 * c / 128
    assert abs(x_t.std() / c - 1) < 5 / (2 * 128**2) ** 0.5


def test_the_loss_of_a_denoiser_that_hands_back_what_it_sees():
    "x̂ = x_t: (a x + b y - x)² + c², times the weight."
    t, k = 0.3, 0.5
    c = -k * (1 - t) * math.log(1 - t)
    exact = (t * (0.7 - 0.1)) ** 2 + c**2
    spread = (2 * c**4 + 4 * c**2 * (t * 0.6) ** 2) ** 0.5
    for weight, factor in ((None, 1), (lambda t: 10 * t, 3)):
        model = CVP(lambda x_t, t, past: x_t, Bridge(k), times=at(t), weight=weight)
        loss = float(model.loss(constant_clip(-0.9, 0.7, 0.1), seeded(0)))
        assert abs(loss - factor * exact) < 5 * factor * spread / 128


def test_every_frame_with_enough_before_it_is_a_target():
    "A denoiser that draws the line through its past: the loss is the mean over all windows of what it misses."
    clip = torch.tensor([0.0, 0.1, 0.3, -0.2, 0.5])
    line = lambda x_t, t, past: 2 * past[:, -1:] - past[:, -2:-1]
    misses = (clip[2:] - (2 * clip[1:-1] - clip[:-2])).square()
    frames = clip[None, :, None, None, None].expand(2, 5, 3, 2, 2)
    for model in (CVP(line, context=2), NextFrame(line, context=2)):
        torch.testing.assert_close(model.loss(frames, seeded(0)), misses.mean())
    torch.testing.assert_close(NextFrame(line).loss(frames, seeded(0)), misses[-1])  # all but one


def test_windows_of_different_clips_are_not_mixed():
    clip = torch.rand(3, 4, 2, 5, 6, generator=seeded(0))
    past, x = bridge.next_frames(clip, 2)
    assert past.shape == (6, 2, 2, 5, 6) and x.shape == (6, 1, 2, 5, 6)
    for i in range(3):
        for j in range(2):
            assert torch.equal(past[2 * i + j], clip[i, j : j + 2])
            assert torch.equal(x[2 * i + j, 0], clip[i, j + 2])


def test_training_times_are_uniform_and_one_for_every_window():
    seen, n = [], 4000
    model = NextFrame(lambda x_t, t, past: seen.append(t) or x_t, context=1)
    model.loss(torch.zeros(n, 3, 1, 1, 1), seeded(0))
    (t,) = seen
    assert t.shape == (2 * n, 1)
    for level in (0.1, 0.5, 0.9):
        wrong = abs((t < level).double().mean() - level)
        assert wrong < 5 * (level * (1 - level) / (2 * n)) ** 0.5
    of_one = t.view(n, 2)
    assert abs(torch.corrcoef(of_one.T)[0, 1]) < 5 / n**0.5


def test_matched_times_on_any_path_dtype_and_size():
    "Kept by the default dtype, in [0, 1), and piled up at σ = top as often as the other path is above it."
    n, top = 50_000, 2.0
    for path, like in ((Bridge(), VP()), (VP(), Bridge()), (Cosine(), VE()), (Bridge(), Cosine())):
        t = matched_times(path, like, top)(n, 2, generator=seeded(0))
        assert t.shape == (n, 2) and t.dtype == torch.get_default_dtype()
        assert 0 <= t.min() and t.max() < 1
        above = 1 - float(like.time_at(torch.tensor(top)))
        piled = (path.sigma(t.double()) > 0.99 * top).double().mean()
        near = 1 - float(like.time_at(torch.tensor(0.99 * top)))
        assert above - 0.02 < piled < near + 0.02
    assert signature(matched_times).parameters["top"].default == 10.0


# ---------------------------------------------------------------- what a forecast starts from, and how it goes on


def spy(answer):
    "A denoiser that always says `answer`, and what it has been shown."
    seen = []

    def denoise(x_t, t, past):
        seen.append((x_t, t, past))
        return torch.full_like(x_t, answer)

    return denoise, seen


@pytest.mark.parametrize("start", [None, from_guess, from_estimate])
def test_a_forecast_starts_where_it_says(start):
    "Around the known frame: mean a y + b y = y. Around the estimate m, by default: a m + b y. Both with the spread c."
    top, y, m, k = 1.5, -0.6, 0.8, 2**-0.5
    t = 1 - math.exp(-top / k)
    c = top * (1 - t)
    denoise, seen = spy(m)
    how = dict(timetable=even_noise(Bridge(), knee=0.1, top=top), generator=seeded(0), steps=3)
    how |= {} if start is None else {"start": start}
    CVP(denoise).forecast(constant_clip(0.3, y), 1, step=ddim_step, **how)
    centres = [y, y, (1 - t) * m + t * y] if start is not from_guess else [y, y]
    for (x_t, time, past), centre in zip(seen, centres[:1] + centres[2:]):
        assert abs(float(time) - t) < 1e-12 and time.shape == (1, 1)
        assert past[0, :, 0, 0, 0].tolist() == [0.3, y]
        assert abs(x_t.mean() - centre) < 5 * c / 128
        assert abs(x_t.std() / c - 1) < 5 / (2 * 128**2) ** 0.5
    if start is not from_guess:  # the second start draws noise of its own
        z = torch.stack([(x_t - x_t.mean()).flatten() for x_t, _, _ in seen[:2]])
        assert abs(torch.corrcoef(z)[0, 1]) < 5 / 128
    assert len(seen) == 3 + (start is not from_guess)


def test_the_default_is_25_steps_of_heun_even_in_log_sigma_from_ten():
    "The noise levels at which the network is asked: asinh(σ / 0.1) falls evenly, from σ = 10."
    for model, path in ((CVP, Bridge()), (NextFrame, VP())):
        denoise, seen = spy(0.0)
        model(denoise, path).forecast(constant_clip(0.1, 0.2, size=2), 1, generator=seeded(0))
        times = torch.cat([t for _, t, _ in seen]).flatten()
        sigma = path.sigma(times.unique()).sort(descending=True).values
        assert len(seen) == 50 and len(sigma) == 25
        torch.testing.assert_close(sigma[0], torch.tensor(10.0).double(), rtol=1e-6, atol=0)
        steps = torch.asinh(sigma / 0.1).diff()
        whole = -math.asinh(100.0) / 25
        torch.testing.assert_close(steps, torch.full_like(steps, whole), rtol=1e-4, atol=0)


def test_a_timetable_that_begins_without_noise_is_entered_at_its_second_row():
    denoise, seen = spy(0.0)
    CVP(denoise).forecast(
        constant_clip(0.1, size=2), 1, steps=4, timetable=grid, step=ddim_step, start=from_guess
    )
    assert [float(t) for _, t, _ in seen] == [0.75, 0.5, 0.25]
    for shape in ((4,), (4, 1, 1)):  # rows of other shapes that `sample` takes
        rows = torch.tensor([1.0, 0.75, 0.5, 0.0]).view(shape)
        out = CVP(denoise).forecast(constant_clip(0.1, size=2), 1, timetable=lambda n, f: rows)
        assert out.shape == (1, 1, 1, 1, 2, 2)


def test_steps_start_and_step_reach_the_sampler():
    "Each is called with what it needs: y is the last known frame."
    past, calls = constant_clip(0.1, 0.4, size=2), []

    def start(denoise, path, guess, t, y=None, generator=None):
        assert torch.equal(guess, past[:, -1:]) and torch.equal(y, guess) and generator is g
        calls.append("start")
        return from_guess(denoise, path, guess, t, y, generator)

    def step(path, x_t, x_hat, t, s, y=None, generator=None, **how):
        assert torch.equal(y, past[:, -1:]) and generator is g
        calls.append("step")
        return ddim_step(path, x_t, x_hat, t, s, y=y, generator=generator)

    g = seeded(0)
    CVP(spy(0.0)[0]).forecast(past, 1, steps=6, step=step, start=start, generator=g)
    assert calls == ["start"] + 6 * ["step"]


def test_long_futures_look_back_on_the_newest_frames():
    "A denoiser that draws the line through the last two frames: the forecast is that line, whatever the window."
    lengths = []

    def line(x_t, t, past):
        lengths.append(past.shape[1])
        return 2 * past[:, -1:] - past[:, -2:-1]

    past = constant_clip(0.9, -0.9, -0.5, -0.1, size=2)
    for context, looks in ((2, {2}), (3, {3}), (None, {4, 5, 6})):
        lengths.clear()
        out = NextFrame(line, context=context).forecast(past, 3, steps=4, generator=seeded(0))
        torch.testing.assert_close(
            out[0, 0, :, 0, 0, 0], torch.tensor([0.3, 0.7, 1.1], dtype=torch.float64)
        )
        assert set(lengths) == looks  # without a context: all there are


def test_a_step_of_heun_in_sigma_by_hand():
    "x'' along u: the mean of the slopes at both ends, times the step in σ. An estimate that is affine in u makes it exact."
    path, y = Bridge(), torch.full((1, 1, 1, 1, 1), -0.4, dtype=torch.float64)
    s_t, s_s, u_t, g, m = 2.0, 0.8, 1.3, 0.25, 0.6
    t, s = (path.time_at(torch.tensor([[v]], dtype=torch.float64)) for v in (s_t, s_s))
    estimate = lambda x, t, y: m + g * ((x - expand(path.b(t), x) * y) / expand(path.a(t), x))
    slope = lambda u, sigma: (u - (m + g * u)) / sigma
    euler = u_t + (s_s - s_t) * slope(u_t, s_t)
    heun = u_t + (s_s - s_t) * (slope(u_t, s_t) + slope(euler, s_s)) / 2
    x_t = expand(path.a(t), y) * u_t + expand(path.b(t), y) * y
    x_s = edm_step(path, x_t, estimate(x_t, t, y), t, s, y=y, denoise=estimate)
    assert abs(float((x_s - path.b(s)[0, 0] * y) / path.a(s)[0, 0]) - heun) < 1e-9


# ---------------------------------------------------------------- what is remembered, doors


def test_the_buffer_is_written_only_when_it_changes(tmp_path):
    "On a GPU a write is a wait. But what others write there (weights that are loaded) is noticed."
    model, clip = NextFrame(lambda x_t, t, past: x_t), torch.zeros(2, 3, 1, 4, 4)
    model.loss(clip)
    assert model.trained_on.tolist() == [2, 1, 4, 4]
    writes = model.trained_on._version
    for _ in range(3):
        model.loss(clip)
    assert model.trained_on._version == writes
    model.loss(clip[:, :2])
    assert model.trained_on.tolist() == [1, 1, 4, 4]
    save_weights(model, tmp_path / "w.safetensors")
    model.loss(clip)
    load_weights(model, tmp_path / "w.safetensors")
    assert model.trained_on.tolist() == [1, 1, 4, 4]
    model.loss(clip)
    assert model.trained_on.tolist() == [2, 1, 4, 4]
    model.eval().loss(clip[:, :2])
    assert model.trained_on.tolist() == [2, 1, 4, 4]  # a loss in evaluation is no training


LEAF = partial(JoinedUNet, frames=3, width=8)
SHIPPED = {
    "leaf_cvp_matched": lambda: CVP(ScaledInput(LEAF(), Bridge())),
    "sprites_cvp_matched": lambda: CVP(ScaledInput(LEAF(), Bridge())),
    "leaf_vp_estimate": lambda: NextFrame(LEAF(), VP()),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_courses_weights_load(name):
    model = load_weights(SHIPPED[name](), CHECKPOINTS / f"bridge_{name}.safetensors").eval()
    assert model.trained_on.tolist() == [2, 1, 16, 16]
    fork = turning_leaf(4, generator=seeded(0))
    out = model.forecast(fork.past, 1, 2, steps=8, generator=seeded(1))
    assert out.isfinite().all()
    if name.startswith("leaf"):
        apart = (fork.outcomes[:, 0] - fork.outcomes[:, 1]).square().mean()
        assert fork.nearest(out)[1].mean() < 0.2 * apart


class Flat(Schedule):
    "x and y mixed half and half at all times, with noise: no bridge."

    def a(self, t):
        return 0.5 + 0 * t

    def b(self, t):
        return 0.5 + 0 * t

    def c(self, t):
        return t * (1 - t)


@pytest.mark.parametrize("path", [Flat(), VP(), VE(), Cosine()], ids=lambda p: type(p).__name__)
def test_cvp_takes_bridges_only(path):
    assert complaint(CVP, None, path).startswith(f"path: got {type(path).__name__}")


def test_pixels_are_checked_with_a_context_and_without():
    clip = torch.zeros(2, 4, 1, 4, 4)
    for context in (None, 1, 3):
        for model in (
            CVP(lambda x_t, t, past: x_t, context=context),
            NextFrame(None, context=context),
        ):
            assert complaint(model.loss, clip + 7).startswith("clip: got values in [7, 7]")
            assert complaint(model.loss, clip * math.nan).startswith("clip: got values")
            assert complaint(model.loss, clip[0]).startswith("clip: got shape")
            assert complaint(model.loss, clip.long()).startswith("clip: got torch.int64")


def test_bad_input_is_one_line():
    model = exact(GaussianClips(3, size=1), Bridge())
    past = torch.zeros(1, 2, 1, 1, 1)
    assert complaint(model.forecast, past, 1, steps=0).startswith("steps")
    assert complaint(model.forecast, past, 1, steps=2.0).startswith("steps")
    assert complaint(model.forecast, past, 0).startswith("n_frames")
    assert complaint(model.forecast, past * math.nan, 1).startswith("past")
    assert complaint(model.forecast, past, 1, steps=1, timetable=grid).startswith("steps: got 1")
    assert complaint(model.loss, past[:, :1]).startswith("clip: got 1 frames, expected at least 2")
    three = NextFrame(None, context=3)
    assert complaint(three.loss, past).startswith("clip: got 2 frames, expected at least 4")
    assert complaint(three.forecast, past, 1).startswith("past: got 2 frames, expected at least 3")
    for context in (0, -1, 2.0, True):
        assert complaint(NextFrame, None, context=context).startswith("context: got")
    assert complaint(ScaledInput, None, Bridge(), sigma_data=-1.0).startswith("sigma_data")
    assert complaint(matched_times, Bridge(), VP(), top=0.0).startswith("top: got 0.0")
    narrow = NextFrame(lambda x_t, t, past: x_t[:, :, :1])
    assert complaint(narrow.loss, torch.zeros(1, 2, 3, 4, 4)).startswith("denoise: got an estimate")


def test_what_moved_and_what_is_gone_say_so():
    for model in (CVP, NextFrame):
        said = complaint(model, None, wrap=FromNoise)
        assert said == f"wrap: got FromNoise, expected {model.__name__}(FromV(net, path), path)"
    places = dict(ScaledInput="denoise", edm_step="sample", from_estimate="sample")
    places["from_known"] = "sample.from_guess"
    for name, place in places.items():
        assert complaint(getattr, bridge, name).endswith(f"to vidiffedu.{place}")


# ---------------------------------------------------------------- the chapter's equations


def test_half_way_the_bridge_is_a_cross_fade():
    "Two leaves at two places: in the middle each is grey, and nothing stands between them."
    leap = turning_leaf(1, size=24, speed=(7.0, 7.0), generator=seeded(2))
    before, after = leap.past[:, -1:], leap.clip[:, 2:]
    fade = Bridge().mean(after, torch.tensor(0.5), before)
    assert fade.max() < 1e-6  # mid-grey at most: the leaves do not overlap
    assert abs((fade + 1).sum() / (before + 1).sum() - 1) < 0.03  # as much light, in two places


def test_equation_1_its_peak_and_its_law():
    path, n = Bridge(), 200_000
    peak = torch.tensor(1 - 1 / math.e, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(path.c(peak), peak)
    assert abs(slope) < 1e-12 and abs(path.c(peak) - path.k / math.e) < 1e-12
    assert path.k / math.e < 0.27
    pixel = torch.ones(n, 1, 1, 1, 1, dtype=torch.float64)
    for when in (0.1, 0.5, 1 - 1 / math.e, 0.99):
        t = torch.tensor(when, dtype=torch.float64)
        draws, _ = path.perturb(0.3 * pixel, t, y=-0.8 * pixel, generator=seeded(1))
        std = -(1 - when) * math.log(1 - when) / math.sqrt(2)
        assert abs(draws.mean() - (0.3 * (1 - when) - 0.8 * when)) < 5 * std / n**0.5
        assert abs(draws.var() / std**2 - 1) < 5 * (2 / n) ** 0.5
    few, ends = pixel[:2], torch.tensor([0.0, 1.0])
    x_t, _ = path.perturb(0.3 * few, ends, y=-0.8 * few, generator=seeded(1))
    assert x_t.flatten().tolist() == [0.3, -0.8]  # noise-free, to the last bit


def three_answers(world, x, past, t, generator):
    "Estimates of x (b, 1, c, h, w): on the bridge at t (b,), on VP at the same σ, from x + σ ε."
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    x_t, _ = Bridge().perturb(x, t, y=past[:, -1:], noise=noise)
    sigma = Bridge().sigma(t)
    same = VP().time_at(sigma)
    x_same, _ = VP().perturb(x, same, noise=noise)
    on_bridge = world.next_frame_denoiser(Bridge())(x_t, t, past)
    on_vp = world.next_frame_denoiser(VP())(x_same, same, past)
    return x_t, on_bridge, on_vp, world.denoise_sigma(x + expand(sigma, x) * noise, past, sigma)


def test_equation_2_and_3_one_estimate_on_both_paths():
    "Algebra on six draws, Gaussian clips, and Bayes' rule worked out from (1) alone."
    path, fork = Bridge(), turning_leaf(6, generator=seeded(2))
    past, x = fork.past.double(), fork.clip[:, 2:].double()
    t = torch.tensor([0.05, 0.3, 0.7, 0.95, 0.999, 1 - 1e-6], dtype=torch.float64)
    x_t, noise = path.perturb(x, t, y=past[:, -1:], generator=seeded(0))
    u = (x_t - expand(t, x_t) * past[:, -1:]) / expand(1 - t, x_t)
    torch.testing.assert_close(u, x + expand(path.sigma(t), x) * noise, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(path.sigma(t), -path.k * torch.log(1 - t))
    torch.testing.assert_close(path.time_at(path.sigma(t)), t)

    t = torch.tensor([0.1, 0.5, 0.9, 0.99, 0.999, 0.9999], dtype=torch.float64)
    gauss = GaussianClips(3, size=8, rho=0.9, length=2.0)
    clips = gauss.sample(6, generator=seeded(3), dtype=torch.float64)
    _, *answers, wanted = three_answers(gauss, clips[:, 2:], clips[:, :2], t, seeded(4))
    for says in answers:
        torch.testing.assert_close(says, wanted, rtol=0.0, atol=1e-8)

    chance = torch.tensor([0.7, 0.3], dtype=torch.float64)
    world = Mixture(fork.outcomes.double(), chance)
    x_t, *answers = three_answers(world, x, past, t, seeded(4))
    outcomes = fork.outcomes.double()[:, :, 0].transpose(0, 1)[:, :, None]
    means = torch.stack([path.mean(o, t, past[:, -1:]) for o in outcomes])
    log_p = chance.log()[:, None] - (x_t - means).square().sum((2, 3, 4, 5)) / (2 * path.c(t) ** 2)
    by_bayes = (log_p.softmax(0)[..., None, None, None, None] * outcomes).sum(0)
    for says in answers:
        torch.testing.assert_close(says, by_bayes, rtol=0.0, atol=1e-6)


def test_equation_4_how_often_uniform_times_are_above_a_level():
    at_levels = torch.tensor([0.1, 1.0, 3.0, 10.0], dtype=torch.float64)
    uniform = torch.rand(1_000_000, generator=seeded(0), dtype=torch.float64)
    k = 2**-0.5
    for path, p in ((Bridge(), torch.exp(-at_levels / k)), (VP(), 1 - VP().time_at(at_levels))):
        seen = (path.sigma(uniform) > at_levels[:, None]).double().mean(1)
        assert ((seen - p).abs() < 5 * (p * (1 - p) / 1e6).sqrt() + 1e-9).all()
    assert round(math.exp(10 / k) / 1e6) >= 1  # even steps that reach σ = 10: more than a million
    assert abs(k * math.log(25) - 2.3) < 0.03


def test_what_is_left_to_read_at_large_noise():
    "Root mean square of x_t - y = a (u_t - y): a thousandth of a grey level at σ = 10."
    path, fork = Bridge(), turning_leaf(6, generator=seeded(2))
    x, y = fork.clip[:, 2:].double(), fork.past[:, -1:].double()
    for s1 in (1.0, 3.0, 10.0):
        t = path.time_at(torch.tensor(s1, dtype=torch.float64))
        x_t, _ = path.perturb(x, t, y=y, generator=seeded(0))
        size = (x_t - y).square().mean().sqrt()
        wanted = math.exp(-s1 / path.k) * ((x - y).square().mean() + s1**2).sqrt()
        assert abs(size / wanted - 1) < 5 / (2 * x.numel()) ** 0.5
    assert 0.0008 < 127.5 * size < 0.0012 and abs(path.a(t) - 7e-7) < 5e-8


def test_scaled_input_has_variance_1_and_is_the_same_on_both_paths():
    seen_by_net = lambda inp, when, past: (inp, when)  # hands through what it is shown
    pairs = GaussianClips(2, size=1, rho=0.5, std=0.5)
    pairs = pairs.sample(100_000, generator=seeded(5), dtype=torch.float32)
    for s1 in (0.01, 0.1, 1.0, 3.0, 10.0):
        shown = []
        for path, y in ((Bridge(), pairs[:, :1]), (VP(), None)):
            t = path.time_at(torch.tensor(s1, dtype=torch.float64)).expand(100_000, 1)
            x_t, _ = path.perturb(pairs[:, 1:], t, y=y, generator=seeded(6))
            inp, when = ScaledInput(seen_by_net, path, 0.5)(x_t, t, pairs[:, :1])
            assert abs(inp.var() - 1) < 5 * (2 / 1e5) ** 0.5
            assert abs(float(when[0]) - math.log(s1) / 4) < 1e-6
            shown.append(inp.float())
        torch.testing.assert_close(*shown, rtol=0.0, atol=0.05)  # float32's last digits at σ = 10


def test_equation_5_the_weighted_loss_is_the_noise_loss():
    "On a network that predicts ε badly."
    path, fork = Bridge(), turning_leaf(6, generator=seeded(2))
    past, x = fork.past.double(), fork.clip[:, 2:].double()
    some_net = lambda x_t, t, past: torch.tanh(1.3 * x_t + past.mean(1, keepdim=True))
    t = torch.rand(6, 1, generator=seeded(0), dtype=torch.float64)
    noise = torch.randn(x.shape, generator=seeded(1), dtype=torch.float64)
    x_t, _ = path.perturb(x, t, y=past[:, -1:], noise=noise)
    eps_hat, sigma = some_net(x_t, t, past), expand(path.sigma(t), x_t)
    u = (x_t - expand(t, x_t) * past[:, -1:]) / expand(1 - t, x_t)
    denoise = lambda x_t, t, y: FromNoise(some_net, path)(x_t, t, past)
    x_hat = denoise(x_t, t, None)
    torch.testing.assert_close(x_hat, u - sigma * eps_hat)
    torch.testing.assert_close((eps_hat - noise) ** 2, (x_hat - x) ** 2 / sigma**2)
    how = dict(t=t, y=past[:, -1:], noise=noise)
    weighted = denoising_loss(denoise, path, x, weight=noise_weight(path), **how)
    torch.testing.assert_close(weighted, (eps_hat - noise).square().mean())


def test_equation_6_is_the_law_of_u_s_given_u_t_and_x():
    "Slope and spread of a regression on 200,000 simulated pairs."
    n, s_s, s_t = 200_000, 0.4, 1.1
    noise = torch.randn(2, n, generator=seeded(0), dtype=torch.float64)
    u_s = 0.7 + s_s * noise[0]
    u_t = u_s + (s_t**2 - s_s**2) ** 0.5 * noise[1]
    slope = torch.cov(torch.stack([u_s, u_t]))[0, 1] / u_t.var()
    left_over = (u_s - 0.7 - slope * (u_t - 0.7)).std()
    wanted = s_s * (1 - s_s**2 / s_t**2) ** 0.5
    assert abs(slope - s_s**2 / s_t**2) < 5 * wanted / n**0.5 / s_t
    assert abs(left_over / wanted - 1) < 5 / (2 * n) ** 0.5


def test_the_loss_of_the_exact_denoiser_is_the_posterior_variance():
    "Averaged over the σ of uniform times, eq. 4."
    path, small = Bridge(), GaussianClips(4, size=2, rho=0.5, std=0.15)  # narrow: within [-1, 1]
    model, g = exact(small, path, context=2), seeded(0)
    losses = torch.stack(
        [model.loss(small.sample(200, generator=g), generator=g) for _ in range(100)]
    )
    var = 0.15**2 * (1 - 0.5**2)  # of a frame given those before
    sigma = path.sigma((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    wanted = float((var * sigma**2 / (var + sigma**2)).mean())
    assert abs(losses.mean() - wanted) < 5 * losses.std() / 10


# ---------------------------------------------------------------- the study


@pytest.fixture
def study(monkeypatch):
    "nbs/studies/bridge_steps.py; Python looks beside a script first, here it is told to."
    monkeypatch.syspath_prepend(str(STUDIES))
    yield importlib.import_module("bridge_steps")
    for name in ("bridge_steps", "bridge_read", "record"):
        sys.modules.pop(name, None)


def test_other_shapes_of_noise_have_the_same_peak(study):
    "A Brownian bridge's √(t (1 - t)) and a parabola: no noise at the ends, at most 1/(e √2)."
    t = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    for path in (study.Brownian(), study.Parabola(), study.BRIDGE):
        c = path.c(t)
        assert c[0] == 0 and abs(c[-1]) < 1e-12 and abs(c.max() - 1 / (math.e * 2**0.5)) < 1e-6
        inner = t[1:-1]
        torch.testing.assert_close(path.sigma(inner), path.c(inner) / path.a(inner))
        torch.testing.assert_close(path.time_at(path.sigma(inner)), inner)
    r = torch.tensor([0.2, 0.5], dtype=torch.float64)
    fourth = study.Brownian().c(r) ** 2 / (r * (1 - r))
    assert abs(fourth[0] - fourth[1]) < 1e-12
    assert abs(study.Parabola().sigma(torch.ones(1)) - 4 / (math.e * 2**0.5)) < 1e-6


@pytest.mark.parametrize("n", [2, 5, 10, 25, 50, 100])
def test_trained_times_are_hundredths_from_99(study, n):
    rows = study.trained_times(n, 1)
    assert len(rows) == min(n, 99) + 1 and rows[0] == 0.99 and rows[-1] == 0
    hundred = 100 * rows[:-1, 0]
    assert (hundred - hundred.round()).abs().max() < 1e-9 and hundred.min() >= 1
    assert (hundred.diff().round() == -(100 // n)).all()
    drawn = 100 * study.hundredths(50_000, 1, generator=seeded(0))
    assert (drawn - drawn.round()).abs().max() < 1e-3 and (drawn.min(), drawn.max()) == (1, 99)


def test_the_start_lies_inside_the_training(study):
    "3% of uniform times lie above -k log(.03) on a bridge; VP has a third of them above 10."
    for k, arm in ((2**-0.5, "cvp_estimate"), (2**0.5, "wide_estimate")):
        low, high = study.tops(arm, study.ARMS[arm](None).path)
        assert abs(low + k * math.log(0.03)) < 1e-9 and high == 10
        share = (Bridge(k).sigma(torch.rand(100_000, generator=seeded(0))) > low).double().mean()
        assert abs(share - 0.03) < 5 * (0.03 * 0.97 / 1e5) ** 0.5
    assert study.tops("cvp_matched", Bridge()) == study.tops("vp_noise", VP()) == [10.0]
    (only,) = study.tops("parabola_scaled", study.Parabola())
    assert abs(only - 0.97 * 4 / (math.e * 2**0.5)) < 1e-9  # it has no σ of 10


@pytest.mark.parametrize("arm", ["cvp_estimate", "wide_estimate", "vp_estimate", "parabola_scaled"])
def test_every_sampler_keeps_to_its_budget_and_starts_where_it_says(study, arm):
    model, past = study.ARMS[arm](lambda x_t, t, past: 0 * x_t), torch.zeros(2, 2, 1, 2, 2)
    for name, top, n, how in study.samplers(arm, model, [5, 25, 100]):
        times, denoise = [], model.denoise
        model.denoise = lambda x_t, t, past: times.append(float(t[0])) or 0 * x_t
        model.forecast(past, 1, generator=seeded(0), **how)
        model.denoise = denoise
        assert n - 1 <= len(times) <= n
        first = torch.tensor(times[0], dtype=torch.float64)
        if name == "trained_t":
            assert all(abs(100 * t - round(100 * t)) < 1e-9 for t in times) and times[0] == 0.99
        elif name == "even_t":
            bridge = isinstance(model, CVP)
            assert abs(first - (n / (n + 1) if bridge else 1)) < 1e-12
        else:
            assert abs(float(model.path.sigma(first)) / top - 1) < 1e-6
            assert times[0] == times[1]  # the first estimate, and the start around it


@pytest.mark.parametrize("page", ["11_bridge", "appendix/bridge_study"])
def test_every_interval_in_the_pages_text_stands_in_an_output(page):
    "3.14 (1.77 to 5.55), (5.75, 1.01 to 33) or 0.615 ± 0.073: a table that has changed is told from its text."
    cells = json.loads((STUDIES.parent / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [o for c in cells if c["cell_type"] == "code" for o in c["outputs"]]
    printed = "\n".join("".join(o.get("text", "")) for o in outputs)
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    number = r"(\d*\.?\d+)"
    found = re.findall(rf"{number} \({number} to {number}\)", text)
    found += re.findall(rf"\({number}, {number} to {number}\)", text)
    said = [f"{mean} ({low} to {high})" for mean, low, high in found]
    said += re.findall(r"\d*\.\d+ ± \d*\.\d+", text)
    assert len(said) > 5 and [v for v in said if v not in printed] == []


def test_factors_and_their_intervals_are_read_from_the_table(study, monkeypatch):
    "Two models whose distances differ by the factor 2 in each of three trainings, give or take."
    read = importlib.import_module("bridge_read")

    def row(arm, seed, value, half=0.1):
        same = dict(world="leaf", sampler="even_t", budget="25", metric="nearest", top="")
        ends = dict(low=str(value * (1 - half)), high=str(value * (1 + half)))
        return dict(same, arm=arm, seed=seed, value=str(value), **ends)

    logs, even = (-0.3, 0.1, 0.2), lambda arm: read.recipe(arm, "even_t")
    rows = [row("vp_estimate", i, 1.0, 0.0) for i in "012"]
    rows += [row("cvp_estimate", i, 2 * math.exp(v), 0.0) for i, v in zip("012", logs)]
    monkeypatch.setattr(read, "STUDY", rows)
    mean, low, high, text = read.factor("leaf", even("cvp_estimate"), even("vp_estimate"))
    half = 4.302653 * statistics.stdev(logs) / 3**0.5  # Student's, two degrees of freedom
    assert abs(mean - 2) < 1e-6 and abs(math.log(high / 2) - half) < 1e-4
    assert abs(low * high - 4) < 1e-6 and text.startswith("2.00 (") and text.endswith("³")
    found = read.claim("leaf", "cvp", 25, 25)
    assert list(found) == [("estimate", "even_t")] and read.signs(found) == (0, 1, 0)
    assert read.claim("leaf", "wide", 25, 25) == {} and read.text_of(None) == "-"
    monkeypatch.setattr(
        read, "STUDY", [row("vp_estimate", "0", 1.0), row("cvp_estimate", "0", 2.0)]
    )
    *_, low, high, text = read.factor("leaf", even("cvp_estimate"), even("vp_estimate"))
    assert abs(math.log(high / low) - 2 * 2**0.5 * 0.1) < 1e-5 and text.endswith("¹")


def test_parts_are_joined_in_the_order_of_the_plan(study, tmp_path, capsys):
    for arm, value in (("vp_estimate", 2), ("cvp_estimate", 1)):
        for ending in ("", "_curve"):
            table = study.record.Table(tmp_path / f"bridge_steps_leaf_{arm}_0{ending}.csv")
            table.put(dict(seed=0, world="leaf", arm=arm), [dict(value=value), dict(value=9)])
    out, ask = tmp_path / "whole.csv", ["--worlds", "leaf", "--seeds", "0", "--join", str(tmp_path)]
    study.main([*ask, "--out", str(out)])
    rows = study.record.Table(out).rows
    assert [(r["arm"], r["value"]) for r in rows] == [
        *[("cvp_estimate", v) for v in "19"],
        *[("vp_estimate", v) for v in "29"],
    ]
    assert len(study.record.Table(tmp_path / "whole_curve.csv").rows) == 4
    assert "whole.csv lacks 0 leaf vp_noise" in capsys.readouterr().out
