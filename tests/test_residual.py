"""Residual diffusion with the exact denoiser: whatever the forecaster says, `forecast` must return the exact joint law of the frames to come.

As in test_bridge: the exact Gaussian denoiser is affine and so is the sampler, hence a forecast is an affine function of the numbers drawn."""

import pytest
import torch
from unit_noise import law

from vidiffedu import residual
from vidiffedu.core import complaint, seeded
from vidiffedu.oracle import GaussianClips, remember_past
from vidiffedu.paths import VE, VP, Bridge, Cosine
from vidiffedu.residual import RVD, residual_scale, rvd_networks
from vidiffedu.times import independent
from vidiffedu.train import load_weights, save_weights

PATHS = {"Cosine": Cosine(), "VP": VP(), "VE": VE(0.001, 50.0)}
FORECASTS = {
    "last frame": lambda past: past[:, -1:],
    "nothing": lambda past: 0 * past[:, -1:],
    "far off": lambda past: 3 + 2 * past.flip(4)[:, -1:],
    "from afar": lambda past: -past.sum(1, keepdim=True),
}


def exact(world, forecast, scale, path=Cosine()):
    forecaster = remember_past(forecast)
    model = RVD(forecaster, None, path, scale)
    model.denoise = world.next_frame_denoiser(
        path, lambda past, state: forecaster(past, None), model.scale
    )
    return model


@pytest.fixture(scope="module")
def world():
    return GaussianClips(
        5, size=(1, 2), rho=0.8, mean=torch.tensor([0.5, 0.0, -1.0, 0.3, 0.2]), std=0.8, length=1.0
    )


@pytest.fixture(scope="module")
def past(world):
    return world.sample(1, generator=seeded(0), dtype=torch.float64)[:, :2]


def truth(world, past):
    there = world.conditional(torch.arange(5) < 2)
    return there.mean(
        torch.cat([past, past.new_zeros(1, 3, 1, 1, 2)], 1)
    ).flatten(), there.cov.double()


@pytest.mark.parametrize("forecast", FORECASTS)
@pytest.mark.parametrize(
    "scale, path", [(2.0, "Cosine"), (0.25, "Cosine"), (1.0, "VP"), (0.5, "VE")]
)
def test_forecast_returns_the_joint_law_whatever_the_forecaster(
    world, past, forecast, scale, path, monkeypatch
):
    model, (mean, cov) = exact(world, FORECASTS[forecast], scale, PATHS[path]), truth(world, past)
    got_mean, got_cov = law(
        monkeypatch, lambda n: model.forecast(past, 3, n_samples=n, steps=50)[:, 0], 6
    )
    spread = cov.diagonal().sqrt()
    assert ((got_mean - mean) / spread).abs().max() < 0.02
    assert ((got_cov - cov) / spread / spread[:, None]).abs().max() < 0.02


def models(**how):
    torch.manual_seed(0)
    forecaster, net = rvd_networks("laptop", width=8, patch=2)
    for p in net.out[1].parameters():
        torch.nn.init.normal_(p, std=0.1)
    return RVD(forecaster, net, scale=0.3, **how)


@pytest.fixture(scope="module")
def clips():
    return torch.rand(3, 6, 1, 16, 24, generator=seeded(1)) * 2 - 1


def test_a_callable_without_teach_gives_the_same_loss_and_forecast(clips):
    "Frame by frame through the contract, or all at once: the same numbers."
    model = models(times=independent)
    loss = model.loss(clips, seeded(2))
    x = model.forecast(clips[:, :2], 3, 2, steps=3, generator=seeded(3))
    forecaster = model.forecaster
    model = RVD(
        lambda frames, state=None: forecaster(frames, state),
        model.net,
        scale=0.3,
        times=independent,
    )
    torch.testing.assert_close(model.loss(clips, seeded(2)), loss)
    torch.testing.assert_close(model.forecast(clips[:, :2], 3, 2, steps=3, generator=seeded(3)), x)


def test_the_forecaster_can_be_replaced_by_any_callable(clips):
    model = models()
    model.forecaster = lambda frames, state=None: (frames[:, -1:], [frames.sum()])
    model.denoise = lambda r_t, t, state: 0 * r_t
    out = model.forecast(clips[:, :2], 3, 2, steps=3)
    torch.testing.assert_close(out, clips[:, 1:2].expand(2, -1, 3, -1, -1, -1))
    assert not any(name.startswith("forecaster") for name, _ in model.named_parameters())
    model.forecaster = models().forecaster
    assert any(name.startswith("forecaster") for name, _ in model.named_parameters())


def test_gradients_reach_the_forecaster_or_not(clips):
    for how, reached in (
        (dict(), True),
        (dict(joint=False), False),
        (dict(joint=False, explicit=1.0), True),
    ):
        model = models(**how)
        model.loss(clips, seeded(2)).backward()
        grads = [
            p.grad
            for p in (model.forecaster.out.weight, model.forecaster.read.gru[1].candidate.weight)
        ]
        assert all((g is not None and bool(g.any())) == reached for g in grads)
        assert (
            model.forecaster.context.gru[0].into.weight.grad.any()
            and model.net.out[1].weight.grad.any()
        )


@pytest.mark.parametrize("size", [(16, 24), (8, 8)])
def test_our_backward_passes_are_those_of_autograd(size, monkeypatch):
    "Of the recurrence, and of the 1x1 convolutions in strips: same loss, same gradients as by PyTorch's own."
    found, clip = [], torch.rand(3, 6, 1, *size, generator=seeded(1)) * 2 - 1
    for ours in (True, False):
        model = models()
        if not ours:
            for name in ("_by_hand", "_by_onednn"):
                monkeypatch.setattr(residual, name, lambda x: False)
        loss = model.loss(clip, seeded(2))
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 50
    for mine, theirs in zip(*found):
        torch.testing.assert_close(
            mine, theirs, rtol=1e-3, atol=1e-5 * max(1.0, float(theirs.abs().max()))
        )


def test_the_explicit_term_is_the_mean_square_of_the_residual(clips):
    plain, more = models().loss(clips, seeded(2)), models(explicit=0.5).loss(clips, seeded(2))
    rms = residual_scale(clips, models().forecaster) / 0.3
    assert abs(float((more - plain).detach()) / (0.5 * rms**2) - 1) < 1e-4


def test_frames_ahead_in_one_call_or_in_two(clips):
    "What the state carries is all that the past says: past in two pieces, same forecast and state."
    f = models().forecaster
    whole, state = f(clips[:, :4])
    part, piece = f(clips[:, 3:4], f(clips[:, 1:3], f(clips[:, :1])[1])[1])
    torch.testing.assert_close(part, whole)
    for a, b in zip(sum(state, []), sum(piece, [])):
        torch.testing.assert_close(a, b)


def test_the_scale_is_saved_with_the_weights(tmp_path, clips):
    model = models()
    save_weights(model, tmp_path / "w.safetensors")
    other = RVD(*rvd_networks("laptop", width=8, patch=2), scale=2.0)
    assert float(load_weights(other, tmp_path / "w.safetensors").scale) == pytest.approx(0.3)


def test_vd_forecasts_nothing(clips):
    forecaster, net = rvd_networks("laptop", width=8, patch=2, predict=False)
    model = RVD(forecaster, net, scale=1.0)
    mu, state = forecaster(clips[:, :2])
    assert (
        not mu.any()
        and mu.shape == (3, 1, 1, 16, 24)
        and state.forecast == []
        and not forecaster.teach(clips, 2)[0].any()
    )
    assert abs(residual_scale(clips, forecaster) - clips[:, 2:].square().mean().sqrt()) < 1e-6
    assert (
        model.forecast(clips[:, :2], 2, 2, steps=2).shape == (2, 3, 2, 1, 16, 24)
        and model.loss(clips).isfinite()
    )


def test_clip_holds_what_is_fed_back_and_changes_nothing_inside(clips):
    model, seen = models(), []
    forecaster = model.forecaster
    fed = RVD(
        lambda frames, state=None: (seen.append(frames), forecaster(frames, state))[1],
        model.net,
        scale=30.0,
    )
    out = fed.forecast(clips[:, :2], 3, steps=3, generator=seeded(0))
    assert out.abs().max() > 1
    held = fed.forecast(clips[:, :2], 3, steps=3, generator=seeded(0), clip=(-1, 1))
    assert held.abs().max() <= 1 and max(v.abs().max() for v in seen[-2:]) <= 1
    wide = fed.forecast(clips[:, :2], 3, steps=3, generator=seeded(0), clip=(-1e6, 1e6))
    torch.testing.assert_close(wide, out, rtol=1e-3, atol=1e-2)


def test_the_scale_of_a_random_walk_is_its_step():
    "x = last frame + 0.2 times white noise: what persistence misses is known; a forecast of nothing misses more."
    g = seeded(5)
    steps = 0.2 * torch.randn(64, 5, 1, 8, 8, generator=g)
    walk = (torch.zeros(64, 1, 1, 8, 8) + steps.cumsum(1)).clamp(-1, 1)
    assert (
        abs(residual_scale(walk) - 0.2) < 0.01
        and residual_scale(walk, lambda frames, state=None: (0 * frames[:, -1:], None)) > 0.25
    )


def test_bad_input():
    message = complaint(lambda: RVD(None, None, Bridge()))
    assert message.startswith("path: got Bridge")
    assert complaint(lambda: RVD(None, None, scale=float("nan"))).startswith("scale")


@pytest.mark.parametrize("size, width", [(64, 48), (128, 64)])
def test_paper_sizes(size, width):
    with torch.device("meta"):
        forecaster, net = rvd_networks(size, channels=3)
    assert net.out[0].conv.out_channels == forecaster.out.in_channels == width
    assert [g.candidate.in_channels for g in forecaster.context.gru] == [
        width * m for m in {64: (1, 2, 4, 8), 128: (1, 1, 2, 2, 4, 4)}[size]
    ]
    assert [g.candidate.in_channels for g in forecaster.read.gru] == [
        width * m for m in {64: (1, 2, 2, 4), 128: (1, 2, 3, 4)}[size]
    ]
