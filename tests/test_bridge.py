"""Next-frame diffusion with the exact denoiser: on every path `forecast` must return the exact joint law of the frames to come.

As in test_whole_clips: the exact Gaussian denoiser is affine and so are the samplers, hence a forecast is an affine function of the numbers drawn.
Run on zeros and on every unit vector, its mean and covariance are known without sampling; what remains is the error of the steps and of the start."""

import math

import pytest
import torch
from unit_noise import law

from vidiffedu.bridge import CVP, NextFrame, ScaledInput, edm_step, from_known, matched_times
from vidiffedu.core import complaint, expand, seeded
from vidiffedu.data import turning_leaf
from vidiffedu.denoise import FromNoise, FromScore, Preconditioned, to_noise, to_score
from vidiffedu.nets import JoinedUNet
from vidiffedu.oracle import GaussianClips, Mixture
from vidiffedu.paths import VE, VP, Bridge, Cosine
from vidiffedu.sample import ddpm_step, sample, sde_step
from vidiffedu.times import even_noise, grid
from vidiffedu.train import fit, load_weights, save_weights

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
    n = 8_000
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
    "Networks that predict the noise, the score or EDM's mixture, all exact: the same future from the same noise."
    fork, path = turning_leaf(12, generator=seeded(0)), PATHS[name]
    estimate = Mixture(fork.outcomes.double(), [0.7, 0.3]).next_frame_denoiser(path)
    past = fork.past.double()

    def noise_net(x_t, t, past):
        return to_noise(path, x_t, estimate(x_t, t, past), t, past[:, -1:])

    def score_net(x_t, t, past):
        return to_score(path, x_t, estimate(x_t, t, past), t, past[:, -1:])

    def edm_net(scaled, log_sigma4, past):
        sd, sigma = 0.5, expand((4 * log_sigma4).exp(), scaled)
        u = scaled * (sigma**2 + sd**2).sqrt()
        x_hat = estimate(
            expand(path.a(t := path.time_at(sigma[..., 0, 0, 0])), u) * u
            + expand(path.b(t), u) * past[:, -1:],
            t,
            past,
        )
        return (x_hat - sd**2 / (sd**2 + sigma**2) * u) * (sigma**2 + sd**2).sqrt() / (sigma * sd)

    model = CVP if name == "Bridge" else NextFrame
    wanted = model(estimate, path).forecast(past, 1, generator=seeded(1))
    for net, wrap in ((noise_net, FromNoise), (score_net, FromScore), (edm_net, Preconditioned)):
        torch.testing.assert_close(
            model(net, path, wrap=wrap).forecast(past, 1, generator=seeded(1)),
            wanted,
            atol=1e-4,
            rtol=0.0,
        )


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
            start=from_known if model is CVP else start_around_y,
        )
        for model, path in ((CVP, Bridge()), (NextFrame, VP()))
    ]
    torch.testing.assert_close(*futures, atol=1e-3, rtol=0.0)


def start_around_y(denoise, path, y, t, generator=None):
    return path.perturb(y, t, generator=generator)[0]


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


def test_bad_numbers():
    model = exact(GaussianClips(3, size=1), Bridge())
    past = torch.zeros(1, 2, 1, 1, 1)
    assert complaint(model.forecast, past, 1, steps=0).startswith("steps")
    assert complaint(model.forecast, past, 0).startswith("n_frames")
    assert complaint(model.forecast, past, 1, steps=1, timetable=grid).startswith("steps")
    assert complaint(model.loss, past[:, :1]).startswith("clip")
    assert complaint(ScaledInput, None, Bridge(), sigma_data=-1.0).startswith("sigma_data")


def test_clip_bounds_every_estimate_and_steps_are_what_they_say():
    calls = []
    model = CVP(lambda x_t, t, past: calls.append(t) or 3 + 0 * x_t)
    past = torch.zeros(2, 1, 1, 2, 2)
    out = model.forecast(
        past, 2, steps=7, step=ddpm_step, start=from_known, clip=(-1.0, 1.0), generator=seeded(0)
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
                past, 1, rows, steps=n, step=sde_step, timetable=grid, start=from_known
            )[:, 0],
            n + 1,
        )
        stds.append(float(cov) ** 0.5 / 0.8)  # √(1 - ρ²)
    assert stds == sorted(stds) and 0.99 < stds[-1] < 1.003 and abs(float(mean) - 0.3) < 0.1
