"""Residual diffusion: the law of its forecasts with the exact denoiser, and every formula of its loss and of its roll-out.

As in test_bridge: the exact Gaussian denoiser is affine and so is the sampler, hence a forecast is an affine function of the numbers drawn."""

import importlib
import json
import re
import sys

import pytest
import torch
from torch.testing import assert_close
from unit_noise import law

from vidiffedu.core import complaint, seeded
from vidiffedu.data import turning_leaf
from vidiffedu.denoise import FromV, denoising_loss, noise_weight
from vidiffedu.oracle import GaussianClips, remember_past
from vidiffedu.paths import VE, VP, Bridge, Cosine
from vidiffedu.recurrent import Forecaster, ResidualUNet, rvd_networks
from vidiffedu.residual import RVD, persistence, residual_scale, teacher_forced
from vidiffedu.sample import ddim_step
from vidiffedu.times import grid, independent
from vidiffedu.train import load_weights, save_weights

PATHS = {"Cosine": Cosine(), "VP": VP(), "VE": VE(0.001, 50.0)}
FORECASTS = {
    "last frame": lambda past: past[:, -1:],
    "nothing": lambda past: 0 * past[:, -1:],
    "straight on": lambda past: 2 * past[:, -1:] - past[:, -2:-1],
    "far off": lambda past: 3 + 2 * past.flip(4)[:, -1:],
    "from afar": lambda past: -past.sum(1, keepdim=True),
}

# ---------------------------------------------------------------- the exact law


def exact(world, forecast, scale, path):
    model = RVD(remember_past(forecast), None, path, scale)  # the state is the past
    forecaster = lambda past, state: (forecast(past), None)
    model.denoise = world.next_frame_denoiser(path, forecaster, model.scale)
    return model


@pytest.fixture(scope="module")
def world():
    mean = torch.tensor([0.5, 0.0, -1.0, 0.3, 0.2])
    return GaussianClips(5, size=(1, 2), rho=0.8, mean=mean, std=0.8, length=1.0)


@pytest.fixture(scope="module")
def past(world):
    return world.sample(1, generator=seeded(0), dtype=torch.float64)[:, :2]


def assert_law(monkeypatch, model, world, past, draws, **how):
    "The forecast of three frames has the world's conditional mean and covariance."
    there = world.conditional(torch.arange(5) < 2)
    clip = torch.cat([past, past.new_zeros(1, 3, 1, 1, 2)], 1)
    mean, cov = there.mean(clip).flatten(), there.cov.double()
    forecast = lambda n: model.forecast(past, 3, n_samples=n, **how)[:, 0]
    got_mean, got_cov = law(monkeypatch, forecast, draws)
    spread = cov.diagonal().sqrt()
    assert ((got_mean - mean) / spread).abs().max() < 0.02
    assert ((got_cov - cov) / spread / spread[:, None]).abs().max() < 0.02


@pytest.mark.parametrize("forecast", FORECASTS)
@pytest.mark.parametrize(
    "scale, path", [(2.0, "Cosine"), (0.25, "Cosine"), (1.0, "VP"), (0.5, "VE")]
)
def test_forecast_returns_the_joint_law_whatever_the_forecaster(
    world, past, forecast, scale, path, monkeypatch
):
    model = exact(world, FORECASTS[forecast], scale, PATHS[path])
    assert_law(monkeypatch, model, world, past, 12, steps=50)  # two pixels, twice a frame


def test_a_path_that_ends_in_noise_alone_starts_from_noise(world, past, monkeypatch):
    "a(1) = 0: no first estimate is needed, and none is asked for."
    model, seen = exact(world, FORECASTS["last frame"], 0.5, Cosine()), []
    denoise = model.denoise
    model.denoise = lambda r_t, t, state: (seen.append(t), denoise(r_t, t, state))[1]
    assert_law(monkeypatch, model, world, past, 6, steps=400, step=ddim_step, timetable=grid)
    assert len(seen) == 3 * 400


def test_half_of_eq_1_each_way():
    model = RVD(None, None, scale=0.3)
    x, mu = torch.randn(2, 2, 1, 1, 4, 4, generator=seeded(0)).unbind(0)
    assert_close(model.to_residual(x, mu), (x - mu) / 0.3)
    assert_close(model.to_frame((x - mu) / 0.3, mu), x)
    assert_close(model.to_frame((x - mu) / 0.3, mu, clip=(-0.2, 0.4)), x.clamp(-0.2, 0.4))


def wild(past):
    "Any function of the past."
    return torch.sin(3 * past[:, -1:]) + past.mean(1, keepdim=True) ** 2


def test_the_determinant_of_eq_1_does_not_know_the_forecast():
    "With any mu, log |det dr/dx| is minus log(scale) for each number."

    def residuals(x):
        mus = [torch.zeros_like(x[:, :1])] + [wild(x[:, :i]) for i in range(1, x.shape[1])]
        return model.to_residual(x, torch.cat(mus, 1))

    model = RVD(None, None, scale=0.3).double()
    x = torch.randn(1, 4, 1, 2, 3, generator=seeded(0), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(residuals, x).reshape(24, 24)
    expected = -24 * model.scale.log()
    assert_close(torch.linalg.slogdet(jacobian)[1], expected)


def test_the_laws_of_the_residuals_add_up_to_the_density_of_the_clip(world):
    "Eq. 2 in a Gaussian world."
    x = world.sample(5, generator=seeded(1), dtype=torch.float64)
    total, scale = world.log_prob(x[:, :1]), torch.tensor(0.3, dtype=torch.float64)
    for i in range(1, 5):
        mu = wild(x[:, :i])
        law = world.next_frame(x[:, :i]).affine(mu, 0.3)
        total = total + law.log_prob((x[:, i : i + 1] - mu) / 0.3) - 2 * scale.log()
    assert_close(total, world.log_prob(x))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_least_loss_falls_as_the_scale_grows(scale):
    "Of one normal pixel of spread d given the past: a² d² / (a² d² + scale² c²), for any forecast."
    n, path, one = 20_000, Cosine(), GaussianClips(2, size=1, rho=0.6)
    clip, t = one.sample(n, generator=seeded(2), dtype=torch.float64), torch.full((n, 1), 0.4)
    exact = one.next_frame_denoiser(path, lambda past, _: (wild(past), None), scale)
    r = (clip[:, 1:] - wild(clip[:, :1])) / scale
    how = dict(weight=noise_weight(path), generator=seeded(3))
    loss = denoising_loss(lambda r_t, t, y: exact(r_t, t, clip[:, :1]), path, r, t.double(), **how)
    a2, c2 = float(path.a(t[0].double())) ** 2, float(path.c(t[0].double())) ** 2
    least = a2 * 0.64 / (a2 * 0.64 + scale**2 * c2)
    assert abs(float(loss) / least - 1) < 5 * (2 / n) ** 0.5


# ---------------------------------------------------------------- the loss, in closed form


@pytest.fixture(scope="module")
def clips():
    return torch.rand(3, 6, 1, 16, 24, generator=seeded(1)) * 2 - 1


def zero(r_t, t, state):
    return 0 * r_t


def doubled(frames, state=None):
    "A forecaster with a memory: half the sum of all frames read; the state is that sum."
    total = frames.sum(1, keepdim=True) + (0 if state is None else state)
    return 0.5 * total, total


def residuals_of_doubled(clip, context):
    sums = clip.cumsum(1)
    return clip[:, context:] - 0.5 * sums[:, context - 1 : -1]


@pytest.mark.parametrize("context", [1, 2, 5])
def test_residual_scale_is_the_root_mean_square_of_what_is_missed(clips, context):
    expected = residuals_of_doubled(clips, context).square().mean().sqrt()
    assert_close(residual_scale(clips, doubled, context), float(expected))
    still = (clips[:, context:] - clips[:, context - 1 : -1]).square().mean().sqrt()
    assert_close(residual_scale(clips, context=context), float(still))


@pytest.mark.parametrize("context", [1, 2, 5])
def test_a_denoiser_that_says_nothing_pays_for_the_scaled_residuals(clips, context):
    "E |0 - r|² with r = (x - mu) / scale, whatever the noise."
    model = RVD(doubled, zero, scale=0.3, context=context)
    expected = (residuals_of_doubled(clips, context) / 0.3).square().mean()
    assert_close(model.loss(clips), expected)


def test_the_explicit_term_is_the_mean_square_of_the_residual(clips):
    "It is added, with its weight, to a loss that is that same mean here."
    plain = (residuals_of_doubled(clips, 2) / 0.3).square().mean()
    for explicit in (0.5, 2.0):
        loss = RVD(doubled, zero, scale=0.3, explicit=explicit).loss(clips)
        assert_close(loss, (1 + explicit) * plain)


class Level(torch.nn.Module):
    "The forecast is one number, whatever the past."

    def __init__(self, level):
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(level, dtype=torch.float64))

    def forward(self, frames, state=None):
        return self.level.expand_as(frames[:, -1:]), None


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("explicit", [0.0, 0.7])
def test_the_gradient_of_the_forecaster(clips, joint, explicit):
    "d/dm of mean((x - m)² / s²), of the diffusion loss if joint, of the explicit term always."
    model = RVD(Level(0.2), zero, scale=0.5, joint=joint, explicit=explicit)
    model.loss(clips.double()).backward()
    slope = -2 * (clips[:, 2:].double() - 0.2).mean() / 0.5**2
    assert_close(model.forecaster.level.grad, (joint + explicit) * slope)


def test_the_gradient_goes_through_the_noisy_residual_too(clips):
    "A denoiser that halves what it sees: the loss's slope in mu, by differences."

    def loss(level):
        model = RVD(Level(level), lambda r_t, t, state: 0.5 * r_t, scale=0.5)
        return model.loss(clips.double(), seeded(3)), model

    value, model = loss(0.2)
    value.backward()
    slope = (loss(0.2 + 1e-4)[0] - loss(0.2 - 1e-4)[0]) / 2e-4
    assert_close(model.forecaster.level.grad, slope.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("explicit", [0.0, 1.0])
def test_every_weight_has_a_gradient(clips, joint, explicit):
    "Several processes wait for the gradient of every weight, be it zero."
    model = networks(joint=joint, explicit=explicit)
    model.loss(clips, seeded(2)).backward()
    assert all(p.grad is not None for p in model.parameters())
    reached = joint or explicit > 0
    of_mu = (model.forecaster.out.weight, model.forecaster.read.gru[1].candidate.weight)
    assert all(bool(p.grad.any()) == reached for p in of_mu)
    assert model.forecaster.context.gru[0].into.weight.grad.any()
    assert model.net.out[1].weight.grad.any()


@pytest.mark.parametrize("times", [None, independent])
def test_each_frame_has_the_noise_of_its_own_time(times):
    "(r_t - a r) / c of every frame has variance 1 at the time that the network is told."
    clip = torch.full((4, 6, 1, 32, 32), 0.6)
    seen, path = [], VP()

    def net(r_t, t, state):
        seen.append((r_t, t))
        return 0 * r_t

    how = {} if times is None else dict(times=times)
    RVD(lambda frames, state=None: (0 * frames[:, -1:], None), net, path, 0.3, **how).loss(clip)
    t = torch.cat([t for _, t in seen], 1)
    assert t.shape == (4, 4) and 0 <= t.min() and t.max() <= 1 and t.std() > 0
    assert (t == t[:, :1]).all() == (times is None)  # shared: one time a clip
    for r_t, t in seen:
        a, c = (v(t)[:, 0, None] for v in (path.a, path.c))
        noise = (r_t.flatten(1) - a * 2) / c
        assert (noise.square().mean(1) - 1).abs().max() < 5 * (2 / 1024) ** 0.5
        assert noise.mean(1).abs().max() < 5 / 1024**0.5


def test_the_weight_is_that_of_the_time():
    "weight(t) = t, an error of 1 everywhere, and times that we choose: the loss is their mean."
    clip, chosen = torch.full((2, 4, 1, 4, 4), 0.5), torch.tensor([[0.2, 0.4], [0.6, 0.9]])
    model = RVD(
        lambda frames, state=None: (0 * frames[:, -1:], None),
        lambda r_t, t, state: torch.full_like(r_t, 2.0),  # the residual is 1
        scale=0.5,
        times=lambda b, f, generator=None, device=None: chosen,
        weight=lambda t: t,
    )
    assert_close(model.loss(clip), chosen.mean())


# ---------------------------------------------------------------- teacher forcing


@pytest.mark.parametrize("context", [1, 2, 5])
def test_teacher_forcing_is_a_loop_over_true_frames(clips, context):
    seen = []

    def forecaster(frames, state=None):
        seen.append((frames, state))
        return 0.1 * len(seen) + 0 * frames[:, -1:], ("state", len(seen))

    mu, states = teacher_forced(forecaster, clips, context)
    frames, given = zip(*seen)
    assert torch.equal(frames[0], clips[:, :context]) and given[0] is None
    for i, frame in enumerate(frames[1:]):
        assert torch.equal(frame, clips[:, context + i : context + i + 1])
        assert given[i + 1] == ("state", i + 1)
    assert len(seen) == 6 - context and states == [("state", i + 1) for i in range(6 - context)]
    assert_close(mu[0, :, 0, 0, 0], 0.1 * torch.arange(1.0, 7 - context))


def test_each_frame_is_denoised_with_the_state_before_it(clips):
    "The state is the sum of all true frames before; a denoiser that needs it is exact."
    r, seen = residuals_of_doubled(clips, 2) / 0.3, []

    def net(r_t, t, state):
        seen.append(state)
        return 0 * r_t

    RVD(doubled, net, scale=0.3).loss(clips)
    for i, state in enumerate(seen):
        assert_close(state, clips[:, : 2 + i].sum(1, keepdim=True))
    assert len(seen) == r.shape[1]


class AtOnce:
    "All frames in one call: the states are the residuals themselves, frame by frame, then clip."

    def teach(self, clip, context):
        later = clip[:, context:]
        states = later.transpose(0, 1).flatten(0, 1)[:, None] / 0.3  # ((f b) 1 c h w)
        return torch.zeros_like(later), states


def test_states_of_all_frames_at_once_are_frame_by_frame(clips):
    "A denoiser that returns the state makes no error, if frames and states are in one order."
    model = RVD(AtOnce(), lambda r_t, t, state: state, scale=0.3, times=independent)
    assert float(model.loss(clips)) < 1e-10


def test_times_of_all_frames_at_once_are_in_the_same_order(clips):
    chosen = torch.rand(3, 4, generator=seeded(5))
    seen = []
    model = RVD(
        AtOnce(),
        lambda r_t, t, state: (seen.append(t), r_t)[1],
        scale=0.3,
        times=lambda b, f, generator=None, device=None: chosen,
    )
    model.loss(clips)
    assert torch.equal(seen[0], chosen.T.reshape(12, 1))


# ---------------------------------------------------------------- the roll-out


def test_the_state_is_handed_on_and_only_new_frames_are_read(clips):
    seen, told = [], []

    def forecaster(frames, state=None):
        seen.append((frames, state))
        return frames[:, -1:], None if len(seen) == 2 else ("state", len(seen))

    def net(r_t, t, state):
        told.append(state)
        return torch.ones_like(r_t)

    model = RVD(forecaster, net, scale=0.1)
    before = set(vars(model))
    x = model.forecast(clips[:, :3], 4, steps=3)[0]
    frames, given = zip(*seen)
    assert torch.equal(frames[0], clips[:, :3]) and given[0] is None
    assert [len(f[0]) for f in frames] == [3, 1, 1, 1]
    for i in (1, 2, 3):
        assert torch.equal(frames[i], x[:, i - 1 : i])
    # also after a forecaster that remembers nothing
    assert given[1:] == (("state", 1), None, ("state", 3))
    assert list(dict.fromkeys(told)) == [("state", 1), None, ("state", 3), ("state", 4)]
    assert set(vars(model)) == before  # nothing is stored in the model
    # mu is the last frame and r is 1: each frame is .1 above the one before
    assert_close(x - clips[:, 2:3], 0.1 * torch.arange(1.0, 5).view(1, 4, 1, 1, 1).expand_as(x))


def last_and_ones(value):
    return RVD(persistence, lambda r_t, t, state: torch.full_like(r_t, value), scale=0.5)


def test_each_estimate_is_clamped_in_pixels(clips):
    "mu is .9 and r is 1, so x would be 1.4: the step gets the residual of the clamped frame."
    seen, past = [], torch.full((1, 2, 1, 4, 4), 0.9)

    def step(path, x_t, x_hat, t, s, **_):
        seen.append(x_hat)
        return x_t

    model = last_and_ones(1.0)
    for clip, expected in ((None, 1.0), ((-1, 1), (1 - 0.9) / 0.5), ((0, 0.7), (0.7 - 0.9) / 0.5)):
        seen.clear()
        model.forecast(past, 1, steps=3, step=step, clip=clip)
        assert len(seen) == 3
        for r in seen:
            assert_close(r, torch.full_like(r, expected))


def test_each_frame_is_clamped_before_it_is_fed_back(clips):
    "A step that leaves the range though the estimates are inside."

    def step(path, x_t, x_hat, t, s, **_):
        return 10 + 0 * x_t

    seen = []

    def forecaster(frames, state=None):
        seen.append(frames)
        return frames[:, -1:], None

    model = RVD(forecaster, zero, scale=0.5)
    free = model.forecast(clips[:, :2], 2, steps=2, step=step)[0]
    assert_close(free[:, :1], clips[:, 1:2] + 5)
    held = model.forecast(clips[:, :2], 2, steps=2, step=step, clip=(-1, 0.25))[0]
    assert_close(held, torch.full_like(held, 0.25))
    assert torch.equal(seen[-1], held[:, :1])


def test_the_forecasters_mu_is_held_to_its_bounds(clips):
    "The paper's clamp of mu to [-1, 1], whatever the weights say."
    for clamp in (1.0, 0.25):
        torch.manual_seed(0)
        forecaster, _ = rvd_networks("laptop", width=8, patch=2)
        forecaster.clamp = clamp
        with torch.no_grad():
            forecaster.out.weight.mul_(1000)
        mu = forecaster(clips)[0].detach()
        assert float(mu.max()) == clamp and float(mu.min()) == -clamp
        assert float(forecaster.teach(clips, 2)[0].detach().abs().max()) == clamp


def test_it_starts_around_the_first_estimate_from_a_residual_of_zero(clips, monkeypatch):
    "Without noise: the first look is at 0, and the walk begins at a(t) times what it said."
    seen, path = [], VP()
    monkeypatch.setattr(torch, "randn", lambda shape, generator=None, **how: torch.zeros(shape))

    def net(r_t, t, state):
        seen.append((r_t, t))
        return torch.ones_like(r_t)

    RVD(persistence, net, path, 0.5).forecast(clips[:, :2], 1, steps=1, step=ddim_step)
    (first, t), (second, s) = seen
    assert not first.any() and torch.equal(t.double().float(), s.float())
    assert_close(second, path.a(t).view(-1, 1, 1, 1, 1).expand_as(second))


def test_samples_in_one_call_or_in_chunks(clips):
    "The state of one chunk is not that of the next."
    model = RVD(doubled, zero, scale=0.3)
    whole = model.forecast(clips[:, :2], 3, 2, steps=2, step=ddim_step)
    parts = model.forecast(clips[:, :2], 3, 2, steps=2, step=ddim_step, chunk=2)
    assert_close(parts, whole)
    mu = 0.5 * clips[:, :2].sum(1)  # r is 0: every frame is its forecast
    assert_close(whole[1, :, 0], mu)
    assert_close(whole[1, :, 1], 0.5 * (clips[:, :2].sum(1) + mu))


# ---------------------------------------------------------------- precision and places


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_residuals_are_as_precise_as_the_clip(clips, kind):
    "A forecaster in half precision: what is diffused is not."
    seen = []

    def net(r_t, t, state):
        seen.append(r_t.dtype)
        return torch.zeros_like(r_t)

    half = lambda frames, state=None: (frames[:, -1:].bfloat16(), None)
    model, clip = RVD(half, net, scale=0.3), clips.to(kind)
    assert model.loss(clip).dtype == kind
    assert model.forecast(clip[:, :2], 2, steps=2).dtype == kind
    assert set(seen) == {kind}


def test_nothing_is_wider_than_the_clip(clips):
    "Apple's GPUs have no float64: what forecaster and network are handed has the clip's type."
    seen = []

    def net(r_t, t, state):
        seen.extend([r_t, t])
        return torch.zeros_like(r_t)

    first = []
    model = RVD(persistence, net, scale=0.3)
    model.denoise = lambda r_t, t, state: (first.append(t), net(r_t, t, state))[1]
    model.forecast(clips[:, :2], 1, steps=1, step=ddim_step)
    assert first[0].dtype == torch.float32  # of the start; the loop's own times follow the device
    model.loss(clips)
    assert {v.dtype for v in seen if v.ndim == 5} == {torch.float32}


def test_it_is_built_without_memory():
    with torch.device("meta"):
        model = RVD(*rvd_networks(64), scale=0.3)
    assert next(model.parameters()).is_meta


# ---------------------------------------------------------------- with its networks


def networks(**how):
    torch.manual_seed(0)
    forecaster, net = rvd_networks("laptop", width=8, patch=2)
    for p in net.out[1].parameters():
        torch.nn.init.normal_(p, std=0.1)
    return RVD(forecaster, net, scale=0.3, **how)


def test_frame_by_frame_or_all_at_once(clips):
    "Through the contract, or by `teach`: the same loss and the same forecast."
    model = networks(times=independent)
    loss = model.loss(clips, seeded(2))
    x = model.forecast(clips[:, :2], 3, 2, steps=3, generator=seeded(3))
    forecaster = model.forecaster
    model.forecaster = lambda frames, state=None: forecaster(frames, state)
    assert_close(model.loss(clips, seeded(2)), loss)
    assert_close(model.forecast(clips[:, :2], 3, 2, steps=3, generator=seeded(3)), x)


def test_the_forecaster_can_be_replaced_by_any_callable(clips):
    model = networks()
    model.forecaster = lambda frames, state=None: (frames[:, -1:], [frames.sum()])
    model.denoise = lambda r_t, t, state: 0 * r_t
    out = model.forecast(clips[:, :2], 3, 2, steps=3)
    assert_close(out, clips[:, 1:2].expand(2, -1, 3, -1, -1, -1))
    assert not any(name.startswith("forecaster") for name, _ in model.named_parameters())
    model.forecaster = networks().forecaster
    assert any(name.startswith("forecaster") for name, _ in model.named_parameters())


def test_the_scale_is_saved_with_the_weights(tmp_path):
    save_weights(networks(), tmp_path / "w.safetensors")
    other = RVD(*rvd_networks("laptop", width=8, patch=2), scale=2.0)
    assert float(load_weights(other, tmp_path / "w.safetensors").scale) == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["residual_rvd", "residual_rvd_mu"])
def test_the_lessons_weights_load(name, request):
    file = request.config.rootpath / f"nbs/checkpoints/{name}.safetensors"
    model = load_weights(RVD(*rvd_networks("laptop")), file)
    assert 0.05 < float(model.scale) < 0.12


def test_the_forks_weights_load(request):
    file = request.config.rootpath / "nbs/checkpoints/residual_leaf.safetensors"
    how = dict(mults=(1, 1), width=16, patch=2)
    model = RVD(Forecaster(1, context=(1, 1), **how), ResidualUNet(1, **how))
    assert 0.2 < float(load_weights(model, file).scale) < 2
    assert file.stat().st_size < 2**20


def test_a_wrapped_network(clips):
    "FromV(net, path) goes in as the network; where its v is 0, the estimate is a r_t."
    path = Cosine()
    model = RVD(doubled, FromV(zero, path), path, 0.3)
    r_t, t = torch.ones(2, 1, 1, 4, 4), torch.tensor([[0.3], [0.6]])
    assert_close(model.denoise(r_t, t, None), path.a(t).view(2, 1, 1, 1, 1) * r_t)


def test_vd_forecasts_nothing(clips):
    forecaster, net = rvd_networks("laptop", width=8, patch=2, predict=False)
    model, mu = RVD(forecaster, net, scale=1.0), forecaster(clips[:, :2])[0]
    assert not mu.any() and mu.shape == (3, 1, 1, 16, 24)
    assert not forecaster.teach(clips, 2)[0].any()
    assert_close(residual_scale(clips, forecaster), float(clips[:, 2:].square().mean().sqrt()))
    assert model.forecast(clips[:, :2], 2, 2, steps=2).shape == (2, 3, 2, 1, 16, 24)
    assert model.loss(clips).isfinite()


# ---------------------------------------------------------------- wrong input


class NoNoise(VP):
    def c(self, t):
        return (1 - t) * super().c(t)


class NeedsY(VP):
    needs_y = True


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: RVD(None, None, Bridge()), "path: got Bridge, expected"),
        (lambda: RVD(None, None, NeedsY()), "path: got NeedsY, expected"),
        (lambda: RVD(None, None, NoNoise()), "path: got NoNoise, expected"),
        (lambda: RVD(None, None, scale=float("nan")), "scale: got nan, expected"),
        (lambda: RVD(None, None, scale=0), "scale: got 0, expected"),
        (lambda: RVD(None, None, context=0), "context: got 0, expected"),
        (lambda: RVD(None, None, context=2.0), "context: got 2.0, expected"),
        (lambda: RVD(None, None, explicit=-1.0), "explicit: got -1.0, expected"),
        (lambda: RVD(None, None, wrap=FromV), "wrap: got FromV, expected RVD(forecaster, FromV("),
    ],
)
def test_what_cannot_be_served_is_refused(make, says):
    assert complaint(make).startswith(says)


def test_bad_input(clips):
    model = RVD(persistence, zero, scale=0.3)
    says = complaint(model.loss, clips[:, :2])
    assert says.startswith("clip: got 2 frames, expected at least 3")
    assert complaint(model.loss, 7 * clips).startswith("clip: got values in")
    for options in (dict(n_frames=2.0), dict(n_frames=0), dict(n_samples=0), dict(chunk=-1)):
        how = dict(dict(n_frames=2, n_samples=1), **options)
        says = complaint(lambda: model.forecast(clips[:, :2], **how))
        assert says.startswith(f"{next(iter(options))}: got")
    says = complaint(model.forecast, clips[:, :2] * torch.nan, 2)
    assert says.startswith("past: got NaN")


def test_a_forecast_of_another_shape_is_no_broadcast(clips):
    "One mean for all pixels, or a frame too many, would go through the arithmetic unseen."
    coarse = lambda frames, state=None: (frames[:, -1:].mean((3, 4), keepdim=True), None)
    for forecaster in (coarse, lambda frames, state=None: (frames[:1, -1:], None)):
        model = RVD(forecaster, zero, scale=0.3)
        for call in (
            lambda: model.loss(clips),
            lambda: model.forecast(clips[:, :2], 1),
            lambda: residual_scale(clips, forecaster),
        ):
            assert complaint(call).startswith("forecaster: got mu of shape")


def test_names_that_moved_say_where():
    says = complaint(lambda: exec("from vidiffedu.residual import rvd_networks"))
    assert says == "rvd_networks: moved from vidiffedu.residual to vidiffedu.recurrent"


# ---------------------------------------------------------------- the study's rivals and scores


@pytest.fixture(scope="module")
def arms(request):
    "The study `residual_arms`, and beside it the rivals."
    folder = str(request.config.rootpath / "nbs/studies")
    sys.path.insert(0, folder)
    yield importlib.import_module("residual_arms")
    sys.path.remove(folder)
    for name in ("residual_arms", "residual_rivals", "record"):
        sys.modules.pop(name, None)


def test_the_divergence_of_two_normal_laws(arms):
    m1, s1, m0, s0 = torch.randn(4, 5, 3, generator=seeded(0))
    pair = (torch.distributions.Normal(m, s.exp()) for m, s in ((m1, s1), (m0, s0)))
    expected = torch.distributions.kl_divergence(*pair).sum(-1)
    assert_close(arms.rivals.divergence(m1, s1, m0, s0), expected)


def test_a_deterministic_rival_pays_the_squared_error_and_draws_its_forecast(arms, clips):
    model = arms.rivals.Plain(doubled, arms.rivals.Nothing(), scale=0.3)
    expected = (residuals_of_doubled(clips, 2) / 0.3).square().mean()
    assert_close(model.loss(clips), expected)
    x = model.forecast(clips[:, :2], 1, 2, steps=1)
    assert_close(x, (0.5 * clips[:, :2].sum(1, keepdim=True)).expand(2, -1, -1, -1, -1, -1))
    one = arms.rivals.Plain(doubled, lambda r_t, t, state: torch.ones_like(r_t), scale=0.3)
    assert_close(one.forecast(clips[:, :2], 1, 1, steps=1)[0] - x[0], torch.full_like(x[0], 0.3))


def test_a_latent_rival_learns_both_ends_and_draws_from_its_prior(arms):
    torch.manual_seed(0)
    few = arms.leaf_clips(6, seeded(0))
    model = arms.latent(few)
    model.loss(few, seeded(1)).backward()
    for part in (model.prior, model.posterior):
        assert part[-1].weight.grad.any()
    for p in model.net.out[1].parameters():
        torch.nn.init.normal_(p, std=0.1)
    draw = lambda seed: model.forecast(few[:, :2], 1, 2, steps=1, generator=seeded(seed))
    x = draw(3)
    assert torch.equal(x, draw(3)) and not torch.equal(x[0], x[1])
    with torch.no_grad():  # a prior without spread: every draw is the same
        model.prior[-1].weight.zero_(), model.prior[-1].bias.fill_(-100.0)
    assert_close(*model.forecast(few[:, :2], 1, 2, steps=1, generator=seeded(3)))


def test_how_far_a_frame_is_from_a_fork(arms):
    "The two outcomes have misfit 0, halfway 1, a mean of .7 and .3: .09 of the distance, of .25."
    probe = turning_leaf(3, future=2, generator=seeded(0))
    straight, turned = probe.outcomes[:, 0], probe.outcomes[:, 2]
    halfway, mean = (straight + turned) / 2, 0.7 * straight + 0.3 * turned
    found = arms.rivals.fork_scores(torch.stack([straight, turned, halfway, mean]), probe)
    assert_close(found["misfit"][:, 0], torch.tensor([0, 0, 1, 0.36]))
    assert found["turn"][[0, 1, 3], 0].tolist() == [0, 1, 0]
    which, misfit = arms.rivals.path_scores(probe.outcomes.transpose(0, 1), probe)
    assert which[:, 0].tolist() == [0, 1, 2, 3] and not misfit.any()


def test_the_dispersion_of_binomial_counts_is_one(arms):
    hits = (torch.rand(10, 4000, generator=seeded(0)) < 0.3).float()
    assert abs(arms.rivals.dispersion(hits, 0.3).mean() - 1) < 5 * (2 / 4000) ** 0.5
    same = hits[:1].expand(10, -1)  # all ten alike: as if a past had one coin for all its draws
    assert arms.rivals.dispersion(same, 0.3).mean() > 5


def test_sharpness_and_features_of_the_truth_itself(arms):
    truth = torch.rand(40, 4, 1, 16, 16, generator=seeded(0)) * 2 - 1
    net, other = arms.RandomFeatures(dim=16), truth.flip(0)
    assert_close(arms.rivals.sharpness(truth[None], truth), torch.ones(40))
    assert_close(arms.rivals.sharpness(0.5 * truth[None], truth), torch.full((40,), 0.5))
    assert not arms.rivals.feature_gap(truth[None], truth, net).any()
    gap = arms.rivals.feature_gap(other[None], truth, net).mean()
    assert 0.7 < float(gap) < 1.3  # of two truths that have nothing to do with each other


def test_the_arms_are_as_their_names_say(arms):
    "VD with more parameters, the scales, and every arm has a loss."
    street = torch.rand(4, 8, 1, 16, 32, generator=seeded(0)) * 2 - 1
    made = {name: make(street) for name, (make, _) in arms.ARMS.items()}
    size = {name: arms.trained_weights(model) for name, model in made.items() if name != "latent"}
    assert size["vd_matched"] < size["rvd"] < size["vd_weights"] < 1.3 * size["rvd"]
    assert size["forecast"] < size["plain"] == size["rvd"]
    still, frame = residual_scale(street), street.square().mean().sqrt()
    for name, scale in dict(rvd=still, rvd_half=still / 2, rvd_2=2.0, vd=1, vd_time=frame).items():
        assert_close(float(made[name].scale), float(scale))


def test_the_study_runs_and_is_not_run_twice(arms, tmp_path, monkeypatch, capsys):
    out = tmp_path / "t.csv"
    argv = ["--quick", "--arms", "law", "rvd", "--out", str(out)]
    arms.main(argv)
    text = out.read_text()
    assert {"law", "rvd"} == {line.split(",")[1] for line in text.splitlines()[1:]}
    monkeypatch.setattr(arms.record, "train", None)
    arms.main(argv)
    assert out.read_text() == text and "2 of 2 jobs are there already" in capsys.readouterr().out
    monkeypatch.setattr(arms.record, "HERE", tmp_path)
    (tmp_path / "parts").mkdir()
    out.rename(tmp_path / "parts/residual_arms_x.csv")
    joined = tmp_path / "residual_arms.csv"
    arms.main(["--join", str(tmp_path / "parts"), "--out", str(joined)])
    assert joined.read_text() == text


# ---------------------------------------------------------------- how the studies are read


@pytest.fixture
def study(request, monkeypatch):
    "`residual_read` with a table of our own: b has twice a's score in each of three trainings."
    monkeypatch.syspath_prepend(str(request.config.rootpath / "nbs/studies"))
    read = importlib.import_module("residual_read")
    row = dict(metric="crps", low="", high="", scale="0.5", weights="1000")
    trainings = [("a", k, 1.0 + k) for k in range(3)] + [("b", k, 2.0 + 2 * k) for k in range(3)]
    large = [dict(row, arm=a, seed=str(k), frame="mean", value=str(v)) for a, k, v in trainings]
    large += [dict(r, metric="mu_rms") for r in large]
    small = [dict(r, world="leaf", frame="1") for r in large]
    small += [dict(small[0], arm="c", value="3", low="2.5", high="3.5")]
    small += [dict(small[0], arm="d", value=str(v), seed=str(v)) for v in (4, 5)]
    monkeypatch.setattr(read, "SCALE", large)
    monkeypatch.setattr(read, "ARMS", small)
    yield read
    sys.modules.pop("residual_read", None)


def test_the_ratio_of_two_arms_is_over_the_trainings_that_both_have(study, capsys):
    assert study.times("b", "a") == study.times("b", "a", world="leaf") == "2.00 (2.00 to 2.00)"
    study.ARMS[:] = [r for r in study.ARMS if (r["arm"], r["seed"]) != ("a", "0")]
    assert study.times("b", "a", world="leaf") == ""  # two are too few
    study.compare({"large": ("b", "a", None), "small": ("b", "a", "leaf")})
    assert capsys.readouterr().out.split() == "large 2.00 (2.00 to 2.00)".split()


def test_three_trainings_have_an_interval_and_fewer_have_none(study):
    "Student's for three: 4.30 / sqrt(3) times the standard deviation, which is 1 here."
    assert study.over(study.rows("a"), 1) == "2.0 ± 2.5"
    assert study.over(study.rows("a"), 0, 1000) == "2000 ± 2484"
    assert study.over(study.rows("c", world="leaf"), 2) == "3.00 ± 0.50"  # over its windows
    assert study.over(study.rows("d", world="leaf"), 0) == "4, 5"
    assert study.values("b", unit=10).tolist() == [20.0, 40.0, 60.0]


def test_the_tables_have_a_line_an_arm(study, capsys):
    study.show_scale({"a": "", "b": "a"})
    study.show_arms("leaf", {"CRPS": ("crps", None, 1, 1)}, "a d nobody")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["arm", "a", "b", "arm", "a", "d"]
    assert lines[2].endswith("a 2.00 (2.00 to 2.00)") and lines[4].split()[1] == "3"


@pytest.mark.parametrize("page", ["residual_study"])
def test_every_interval_of_an_appendix_stands_in_an_output(page, request):
    file = request.config.rootpath / f"nbs/appendix/{page}.ipynb"
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    outputs = [o for c in cells if c["cell_type"] == "code" for o in c["outputs"]]
    printed = "\n".join("".join(o.get("text", "")) for o in outputs)
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    number = r"\d*\.?\d+"
    said = set(re.findall(rf"{number} \({number} to {number}\)|\d*\.\d+ ± \d*\.\d+", text))
    assert said and sorted(v for v in said if v not in printed) == []
