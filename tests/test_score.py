"""The score chapter against closed forms: what training shows the network, what the sampler does with it, how it is judged.

Large frames stand in for many draws: the root mean square of N pixels of noise is known to a part in √(2N)."""

import importlib
import math
import sys
from inspect import signature
from pathlib import Path

import pytest
import torch

from vidiffedu import score
from vidiffedu.core import complaint, seeded
from vidiffedu.data import Probe, probe_leaves
from vidiffedu.intervals import wilson
from vidiffedu.nets import BlindUNet
from vidiffedu.oracle import GaussianClips, Points
from vidiffedu.score import (
    BlindDenoiser,
    adaptive_filter,
    coarse_to_fine,
    draw_next,
    exact_denoiser,
    judge,
    judge_occlusions,
    leaf_stream,
)
from vidiffedu.train import load_weights

CHECKPOINTS = Path(__file__).resolve().parents[1] / "nbs" / "checkpoints"


def blind(denoise, **how):
    model = BlindDenoiser(None, **how)
    model.denoise = denoise
    return model


def rms(x):
    return x.square().flatten(1).mean(1).sqrt()


def noise(shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


# ---------------------------------------------------------------- training


def test_training_shows_sigma_max_u_squared():
    "P(σ < s) = √(s / σ_max), a σ for every clip; the noise itself is normal and its own in every pixel."
    seen, n, most = [], 4000, 3.0
    model = blind(lambda y, past: seen.append(y) or 0 * y, sigma_max=most)
    model.loss(torch.zeros(n, 2, 1, 32, 32), seeded(0))
    (y,) = seen
    sigma = rms(y)
    for level in (0.03, 0.3, 1.0, 2.0):
        p = math.sqrt(level / most)
        blur = 2 * p * 0.02  # σ is read off 1024 pixels: to 2.2 per cent
        assert abs((sigma < level).float().mean() - p) < 5 * (p * (1 - p) / n) ** 0.5 + 0.1 * blur
    z = y / sigma[:, None, None, None, None]
    for level, p in ((1.0, 0.68269), (2.0, 0.95450)):
        assert abs((z.abs() < level).float().mean() - p) < 0.002
    assert z.mean((0, 1, 2)).abs().max() < 5.5 / n**0.5  # the largest of 1024


def test_the_loss_of_a_linear_denoiser():
    "x̂ = g y: the loss is (g - 1)² x² + g² σ², averaged, and E σ² = σ_max² / 5. Bent targets give another number."
    n, g, most = 20_000, 0.6, 2.0
    clip = torch.full((n, 3, 1, 2, 2), 0.9)
    clip[:, -1] = 0.5
    loss = float(blind(lambda y, past: g * y, sigma_max=most).loss(clip, seeded(0)))
    exact = (g - 1) ** 2 * 0.25 + g**2 * most**2 / 5
    spread = g**2 * most**2 * (1 / 9 - 1 / 25) ** 0.5 + g**2 * most**2 / 3 * (2 / 4) ** 0.5
    assert abs(loss - exact) < 5 * spread / n**0.5


def test_the_target_is_the_last_frame_and_the_past_the_others():
    clip = torch.rand(5, 4, 2, 3, 3, generator=seeded(0)) * 2 - 1
    weights = torch.tensor([0.2, -0.5, 0.7])[:, None, None, None]
    model = blind(lambda y, past: (weights * past).sum(1, keepdim=True))
    exact = ((weights * clip[:, :3]).sum(1) - clip[:, 3]).square().mean()
    torch.testing.assert_close(model.loss(clip, seeded(0)), exact)
    assert signature(BlindDenoiser).parameters["sigma_max"].default == 5.0


def test_the_network_is_called_as_networks_are_and_the_loss_reaches_it():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, x, t=None, cond=None):
            assert t is None and x.shape == (2, 1, 1, 4, 4) and cond.shape == (2, 3, 1, 4, 4)
            return self.gain * x + cond.mean(1, keepdim=True)

    model = BlindDenoiser(Net())
    model.loss(torch.zeros(2, 4, 1, 4, 4), seeded(0)).backward()
    assert model.net.gain.grad > 0


# ---------------------------------------------------------------- the sampler


def states(point, start, **how):
    return list(coarse_to_fine(lambda y, past: point, start, None, **how))


def test_the_fraction_grows_as_printed_and_is_capped():
    "γ = 1 and a world of one point: a look leaves 1 - h of the noise, and 1 - h_t = (1 - h_0) / (1 + h_0 (t - 1))."
    point, start, h_0 = torch.zeros(1, 1, 1, 4, 4).double(), noise((1, 1, 1, 4, 4)), 0.07
    how = dict(h_0=h_0, gamma=1.0, sigma_end=1e-30, steps=40)
    for cap in (1.0, 0.4):
        read = torch.cat([s for _, s, _ in states(point, start, h_max=cap, **how)])
        grown = [(1 - h_0) / (1 + h_0 * (t - 1)) for t in range(1, 40)]
        kept = torch.tensor([max(v, 1 - cap) for v in grown], dtype=torch.float64)
        torch.testing.assert_close(read[1:] / read[:-1], kept)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("h", [0.1, 0.6])
def test_so_much_noise_is_put_back_that_one_minus_gamma_h_is_left(h, gamma):
    "And what is put back is fresh: it has nothing to do with the noise that was there."
    flat, n = torch.zeros(2, 1, 1, 256, 256, dtype=torch.float64), 256 * 256
    start = noise(flat.shape) * torch.tensor([2.0, 0.5])[:, None, None, None, None]
    (_, sigma, y), (_, after, moved) = states(
        flat, start, h_0=h, h_max=h, gamma=gamma, steps=2, generator=seeded(1)
    )
    torch.testing.assert_close(
        after / sigma, torch.full_like(sigma, 1 - gamma * h), rtol=0.02, atol=0
    )
    fresh = moved - (1 - h) * y
    for i in range(2):
        assert (
            abs(torch.corrcoef(torch.stack([fresh[i].flatten(), y[i].flatten()]))[0, 1])
            < 5 / n**0.5
        )
    between = torch.corrcoef(fresh.flatten(1))[0, 1]
    assert abs(between) < 5 / n**0.5  # nor with another clip's


def test_the_noise_put_back_goes_with_the_fraction_of_its_look():
    flat, h_0, gamma = torch.zeros(1, 1, 1, 256, 256), 0.1, 0.4
    looks = states(
        flat, noise(flat.shape), h_0=h_0, h_max=0.5, gamma=gamma, steps=9, generator=seeded(1)
    )
    read = torch.cat([sigma for _, sigma, _ in looks])
    h = torch.tensor([min(0.5, h_0 * t / (1 + h_0 * (t - 1))) for t in range(1, 9)]).double()
    torch.testing.assert_close(read[1:] / read[:-1], 1 - gamma * h, rtol=0.015, atol=0)


def test_sigma_is_the_root_mean_square_of_the_residual():
    weights = torch.tensor([0.3, 0.8], dtype=torch.float64)[:, None, None, None, None]
    y = noise((2, 1, 3, 4, 5))
    x_hat, sigma, seen = next(iter(coarse_to_fine(lambda y, past: weights * y, y, None)))
    assert torch.equal(seen, y) and torch.equal(x_hat, weights * y) and sigma.shape == (2,)
    torch.testing.assert_close(sigma, ((1 - weights) * y).flatten(1).norm(dim=1) / 60**0.5)


def test_every_clip_stops_by_itself_and_stays():
    "Three clips together and each alone: the same, to the bit; a clip that has stopped is not touched again."
    point = noise((1, 1, 1, 5, 5), 1)
    sizes = torch.tensor([3.0, 0.5, 0.02], dtype=torch.float64)[:, None, None, None, None]
    start, h, end = point + sizes * noise((3, 1, 1, 5, 5)), 0.2, 0.05
    how = dict(h_0=h, h_max=h, gamma=1.0, sigma_end=end)
    together = states(point.expand(3, -1, -1, -1, -1), start, **how)
    for i in range(3):
        alone = states(point, start[i : i + 1], **how)
        first = float(rms(start[i : i + 1] - point))
        looks = 1 + max(0, math.ceil(math.log(end / first) / math.log(1 - h)))
        assert len(alone) == looks
        assert alone[-1][1] <= end and all(s > end for _, s, _ in alone[:-1])
        for _, sigma, y in together[looks - 1 :]:
            assert torch.equal(y[i], alone[-1][2][0]) and sigma[i] == alone[-1][1]
    assert len(together) == max(len(states(point, start[i : i + 1], **how)) for i in range(3))


def test_a_stopped_clip_keeps_its_estimate_while_others_go_on():
    "A denoiser that answers otherwise at every look."
    count = []
    answers = lambda y, past: count.append(1) or torch.full_like(y, 0.01 * len(count))
    y = torch.tensor([0.01, 5.0])[:, None, None, None, None].expand(2, 1, 1, 2, 2)
    looks = list(coarse_to_fine(answers, y, None, h_0=0.1, h_max=0.1, gamma=1.0, steps=6))
    assert len(looks) == len(count) == 6
    for k, (x_hat, _, _) in enumerate(looks, 1):
        assert torch.allclose(x_hat[0], torch.tensor(0.01))
        assert torch.allclose(x_hat[1], torch.tensor(0.01 * k))


def test_sampling_starts_around_the_first_estimate():
    "The first look is at pure noise of σ_0; the second at noise of σ_0, drawn afresh, around what the first has answered."
    seen, n = [], 256 * 256
    answer = torch.tensor([0.3, -0.7])[:, None, None, None, None].expand(2, 1, 1, 256, 256)
    past = torch.zeros(2, 2, 1, 256, 256)
    draw_next(lambda y, p: seen.append((y, p)) or answer, past, 2.5, seeded(0), steps=1)
    (first, p), (second, _) = seen
    assert torch.equal(p, past)
    around = second - answer
    for y in (first, around):
        assert y.mean((1, 2, 3, 4)).abs().max() < 5 * 2.5 / n**0.5
        assert (rms(y) / 2.5 - 1).abs().max() < 5 / (2 * n) ** 0.5
    rows = torch.cat([first.flatten(1), around.flatten(1)])
    assert (torch.corrcoef(rows) - torch.eye(4)).abs().max() < 5 / n**0.5
    seen.clear()
    draw_next(lambda y, p: seen.append((y, p)) or answer, past, generator=seeded(0), steps=1)
    assert (rms(seen[0][0]) / 4 - 1).abs().max() < 5 / (2 * n) ** 0.5  # the default


def test_no_graph_is_kept_and_a_seed_repeats_a_draw():
    scale = torch.nn.Parameter(torch.tensor(0.5))
    past = torch.zeros(3, 1, 1, 4, 4)
    a, b, other = (
        draw_next(lambda y, p: scale * y, past, generator=seeded(s), steps=5) for s in (0, 0, 1)
    )
    assert not a.requires_grad and torch.equal(a, b) and not torch.equal(a, other)


# ---------------------------------------------------------------- the law


def two_points(two, q, sigmas):
    "E[x | y] for two frames, σ unknown: Bayes' rule on the two distances. The oracle's, but faster."

    def denoise(y, past):
        far = (y[:, None].double() - two).square().flatten(2).sum(2)[..., None]  # (b, 2, 1)
        log_w = -far / (2 * sigmas**2) - two[0].numel() * sigmas.log()
        log_w = log_w + torch.tensor([q, 1 - q]).log()[:, None]
        w = log_w.flatten(1).softmax(1).unflatten(1, (2, -1)).sum(2)
        return (w @ two.flatten(1).double()).view_as(y).to(y.dtype)

    return denoise


def test_two_outcomes_come_in_their_proportion():
    "The exact blind denoiser, a high start: 0.7 to 0.3 whatever γ, and every sample is one of the two."
    n, q, sigmas = 4000, 0.7, torch.logspace(-2.5, 1.2, 60, dtype=torch.float64)
    two = noise((2, 1, 1, 8, 8)).float() * 0.3
    exact, oracle = two_points(two, q, sigmas), Points(two, torch.tensor([q, 1 - q]))
    few = two[0] + torch.linspace(0.1, 3, 6)[:, None, None, None, None] * noise((6, 1, 1, 8, 8), 1)
    by_oracle = oracle.blind_denoiser(sigmas)(few, None)
    torch.testing.assert_close(exact(few, None).double(), by_oracle, rtol=1e-5, atol=1e-6)
    how = dict(sigma_0=6.0, h_0=0.1, h_max=0.1, steps=600)
    for gamma in (0.4, 1.0):
        past = torch.zeros(n, 1, 1, 8, 8)
        x = draw_next(exact, past, gamma=gamma, generator=seeded(1), **how)
        far = (x[:, None] - two).square().mean((2, 3, 4, 5))
        assert far.amin(1).max() < 0.01 * (two[0] - two[1]).square().mean()
        share = float((far.argmin(1) == 0).float().mean())
        assert abs(share - q) < 4.5 * (q * (1 - q) / n) ** 0.5 + 0.005


def test_gaussian_frames_have_nearly_their_law_frame_after_frame():
    """Two frames to come in an AR(1) world: mean, variance and covariance, each to the price of being blind.

    (A blind observer knows the variance of 24 x 24 pixels to √(2 / 576), 6 per cent.)"""
    rho, n = 0.8, 60
    world = GaussianClips(4, size=24, rho=rho)
    model = blind(world.blind_denoiser(torch.logspace(-3, 1, 40)))
    past = world.sample(1, generator=seeded(0))[:, :2].float()
    out = model.forecast(past, 2, n_samples=n, steps=300, generator=seeded(1))[:, 0, :, 0]
    first = out[:, 0] - rho * past[0, -1, 0]
    second = out[:, 1] - rho * out[:, 0]  # news of the second frame
    for news in (first, second):
        assert abs(news.mean()) < 5 * (0.36 / news.numel()) ** 0.5
        assert abs(news.var() / (1 - rho**2) - 1) < 0.12
    joint = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
    assert abs(joint) < 5 / first.numel() ** 0.5


def test_a_roll_out_sees_the_newest_frames():
    "A denoiser that draws the line through the last two frames: the forecast is that line."
    lengths = []

    def line(y, past):
        lengths.append(past.shape[1])
        return 2 * past[:, -1:] - past[:, -2:-1]

    past = torch.tensor([-0.9, -0.5, -0.1])[None, :, None, None, None].expand(2, 3, 1, 3, 3)
    out = blind(line).forecast(past, 4, n_samples=2, generator=seeded(0))
    assert out.shape == (2, 2, 4, 1, 3, 3) and set(lengths) == {3}
    torch.testing.assert_close(out[0, 0, :, 0, 0, 0], torch.tensor([0.3, 0.7, 1.1, 1.5]))
    out = blind(line).forecast(past, 4, clip=(-1.0, 1.0), generator=seeded(0))
    torch.testing.assert_close(out[0, 0, :, 0, 0, 0], torch.tensor([0.3, 0.7, 1.0, 1.0]))


def test_steps_are_looks_and_the_default_is_four_hundred():
    "A denoiser of zeros and γ near 0: the noise hardly falls, so the number of looks is what stops it."
    calls = []
    model = blind(lambda y, past: calls.append(1) or 0 * y)
    past = torch.zeros(1, 1, 1, 2, 2)
    how = dict(h_0=1e-3, h_max=1e-3, generator=seeded(0))
    for steps, looks in ((7, 7), (None, 400)):
        calls.clear()
        model.forecast(past, 1, steps=steps, **how)
        assert len(calls) == 1 + looks


# ---------------------------------------------------------------- clips, filters, judges


def test_leaf_stream_mixes_probes_and_leaves(monkeypatch):
    marks = dict(moving=0.25, probe=-0.25)

    def moving(n, f, size, disks, q, generator):
        assert (f, size, disks, q) == (4, 8, (1, 3), 0.9)
        return torch.full((n, f, 1, size, size), marks["moving"])

    def probes(n, past, size, q, generator):
        assert (past, size, q) == (3, 8, 0.9)
        frames = torch.full((n, past + 2, 1, size, size), marks["probe"])
        return Probe(frames[:, :past], frames[:, None, past : past + 1], torch.zeros(n).long())

    monkeypatch.setattr(score, "moving_leaves", moving)
    monkeypatch.setattr(score, "probe_leaves", probes)
    for n, share, expected in ((20, 0.9, 18), (1, 0.9, 1), (10, 0.0, 0), (3, 1.0, 3)):
        clips = leaf_stream(0.9, past=3, size=8, share=share)(n, seeded(0))
        assert clips.shape == (n, 4, 1, 8, 8)
        assert int((clips == marks["probe"]).all((1, 2, 3, 4)).sum()) == expected
        assert int((clips == marks["moving"]).all((1, 2, 3, 4)).sum()) == n - expected


def test_leaf_stream_makes_what_training_takes():
    clips = leaf_stream()(50, seeded(0))
    assert clips.shape == (50, 3, 1, 16, 16) and clips.abs().max() <= 1
    model = BlindDenoiser(BlindUNet(past=2, width=4))
    assert model.loss(clips, seeded(0)).isfinite()


def test_filters_are_derivatives():
    "Central differences of a network of two channels, one input pixel at a time."
    torch.manual_seed(0)
    model = BlindDenoiser(BlindUNet(channels=2, past=2, width=4)).eval().double()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    past, y = noise((2, 2, 2, 8, 8)), noise((2, 1, 2, 8, 8), 1)
    row, col, eps = 3, 5, 1e-5
    filters = adaptive_filter(model, y, past, row, col)
    assert filters.shape == (2, 3, 2, 8, 8)
    frames = torch.cat([past, y], 1)
    for where in ((0, 0, 3, 5), (1, 1, 2, 4), (2, 0, 3, 5), (2, 1, 4, 5), (2, 0, 3, 7)):
        step = torch.zeros_like(frames)
        step[(slice(None), *where)] = eps
        with torch.no_grad():
            ends = [model.denoise(v[:, 2:], v[:, :2]) for v in (frames + step, frames - step)]
        slope = (ends[0] - ends[1])[:, 0, :, row, col].sum(1) / (2 * eps)
        torch.testing.assert_close(filters[(slice(None), *where)], slope, rtol=1e-5, atol=1e-7)


@pytest.fixture
def hand_made():
    "Three probes of frames of four pixels: A is all a, B is all b."
    a, b = torch.tensor([0.5, 0.4, 1.0]), torch.tensor([-0.5, 0.0, -1.0])
    frames = torch.stack([a, b], 1)[:, :, None, None, None, None].expand(3, 2, 1, 1, 2, 2)
    return Probe(torch.zeros(3, 2, 1, 2, 2), frames, torch.tensor([0, 1, 0]))


def test_judge_by_hand(hand_made):
    "Two futures of each of three probes; offsets of .1, one sample's .2; A comes four times of six."
    level = torch.tensor([[0.6, 0.3, -0.9], [-0.4, 0.6, 1.1]])  # A A B / B A A
    futures = level[..., None, None, None, None].expand(2, 3, 1, 1, 2, 2)
    one_shot = hand_made.outcomes.mean(1)
    found = judge(hand_made, futures, one_shot)
    assert found["frequency"] == 4 / 6 and found["n"] == 6
    assert (found["low"], found["high"]) == wilson(4, 6)
    assert abs(found["sample_mse"] - (5 * 0.01 + 0.04) / 6) < 1e-6
    assert abs(found["one_shot_mse"] - (0.25 + 0.04 + 1.0) / 3) < 1e-6  # half the distance, squared


def test_judge_occlusions_draws_and_looks_once_at_the_same_noise_level(hand_made):
    "A denoiser that answers outcome A, or the middle: all of it can be said beforehand."
    big = Probe(
        hand_made.past[..., :1, :1].expand(3, 2, 1, 64, 64),
        hand_made.outcomes[..., :1, :1].expand(3, 2, 1, 1, 64, 64),
        hand_made.happened,
    )
    seen = []
    for answer, frequency, one in (
        (big.outcomes[:, 0], 1.0, 0.0),
        (big.outcomes.mean(1), None, 0.43),
    ):
        seen.clear()
        denoise = lambda y, past, a=answer: seen.append(y) or a
        found = judge_occlusions(denoise, big, sigma_0=2.5, generator=seeded(0), steps=3)
        assert found["n"] == 3 and len(seen) == 5  # one look; then a draw: its start, three looks
        assert frequency is None or found["frequency"] == frequency
        assert abs(found["one_shot_mse"] - one) < 1e-6 and abs(found["sample_mse"] - one) < 1e-6
        for y, centre in ((seen[0], 0), (seen[1], 0), (seen[2], answer)):
            assert (rms(y - centre) / 2.5 - 1).abs().max() < 5 / (2 * 64 * 64) ** 0.5


def test_the_law_of_the_noise_can_be_replaced():
    "What a subclass says of the noise level is what training shows."
    seen = []

    class Constant(BlindDenoiser):
        def noise_level(self, u):
            return 0 * u + 1.5

    model = Constant(None)
    model.denoise = lambda x_t, past: seen.append(x_t) or 0 * x_t
    model.loss(torch.zeros(50, 2, 1, 64, 64), seeded(0))
    assert (rms(seen[0]) / 1.5 - 1).abs().max() < 5 / (2 * 64 * 64) ** 0.5
    torch.testing.assert_close(
        BlindDenoiser(None, sigma_max=3.0).noise_level(torch.tensor([0.0, 0.5, 1.0])),
        torch.tensor([0.0, 0.75, 3.0]),
    )


# ---------------------------------------------------------------- the exact denoiser


def test_the_exact_denoiser_is_the_oracles():
    probe = probe_leaves(
        12, q=0.3, size=8, radius=(1.5, 1.5), depth=(1.0, 1.0), generator=seeded(0)
    )
    sigmas = torch.logspace(-1, 0.7, 40, dtype=torch.float64)
    mine = exact_denoiser(probe, 0.3, sigmas)
    oracle = Points(probe.outcomes.double(), torch.tensor([0.3, 0.7])).blind_denoiser(sigmas)
    for level in (0.2, 1.0, 4.0):
        x_t = probe.outcomes[:, 0].double() + level * noise((12, 1, 1, 8, 8))
        torch.testing.assert_close(mine(x_t, None), oracle(x_t, None), rtol=1e-5, atol=1e-7)
    assert mine(x_t.float(), None).dtype == torch.float32


def test_the_exact_denoiser_weighs_by_bayes_rule(hand_made):
    "One noise level, four pixels: the log odds of A are log q / (1 - q) plus those of two normal laws."
    q, s = 0.7, 0.6
    x_t = torch.tensor([0.1, 0.3, -0.2])[:, None, None, None, None].expand(3, 1, 1, 2, 2)
    a, b = hand_made.outcomes[:, 0, 0, 0, 0, 0], hand_made.outcomes[:, 1, 0, 0, 0, 0]
    y = x_t[:, 0, 0, 0, 0]
    odds = math.log(q / (1 - q)) + 4 * ((y - b) ** 2 - (y - a) ** 2) / (2 * s**2)
    expected = b + torch.sigmoid(odds) * (a - b)
    found = exact_denoiser(hand_made, q, torch.tensor([s]))(x_t, None)
    torch.testing.assert_close(found[:, 0, 0, 0, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.4, 1.0])
def test_with_the_exact_denoiser_small_steps_have_the_right_frequency(gamma):
    q, n = 0.7, 1500
    probe = probe_leaves(n, q=q, generator=seeded(3))
    exact = exact_denoiser(probe, q, 6 * ((torch.arange(200) + 0.5) / 200) ** 2)
    how = dict(sigma_0=5.0, h_0=0.1, h_max=0.1, gamma=gamma, generator=seeded(4))
    found = judge_occlusions(exact, probe, **how)
    assert abs(found["frequency"] - q) < 4 * (q * (1 - q) / n) ** 0.5 + 0.01
    assert found["sample_mse"] < 1e-6 < found["one_shot_mse"]


@pytest.mark.parametrize("gamma", [0.5, 1.0])
def test_the_courses_network_chooses_both_and_is_sharp(gamma):
    "Loosely, far looser than measured: between .55 and .85 for q = .7, and three times nearer than one look."
    model = load_weights(BlindDenoiser(BlindUNet()), CHECKPOINTS / "score_q70.safetensors").eval()
    probe = probe_leaves(200, q=0.7, generator=seeded(5))
    found = judge_occlusions(model.denoise, probe, gamma=gamma, generator=seeded(6))
    assert 0.55 < found["frequency"] < 0.85
    assert found["one_shot_mse"] > 3 * found["sample_mse"]


# ---------------------------------------------------------------- doors


@pytest.mark.parametrize("q", [50, 70, 90])
def test_the_courses_weights_load(q):
    model = load_weights(
        BlindDenoiser(BlindUNet(past=2)), CHECKPOINTS / f"score_q{q}.safetensors"
    ).eval()
    clips = leaf_stream(q / 100)(64, seeded(0))
    with torch.no_grad():
        assert model.loss(clips, seeded(1)) < 0.1 * clips[:, -1].var()


def test_settings_are_refused_before_any_look():
    def never(y, past):
        raise AssertionError("the denoiser was asked")

    past, probe = torch.zeros(2, 1, 1, 4, 4), None
    for name, value in dict(h_0=0.0, h_max=0.01, gamma=0.0, sigma_end=0.0, steps=0).items():
        said = complaint(draw_next, never, past, **{name: value})
        assert name in said.partition(":")[0] and "expected" in said
        assert complaint(coarse_to_fine, never, past, None, **{name: value}) == said
        assert complaint(judge_occlusions, never, probe, **{name: value}) == said
        assert complaint(blind(never).forecast, past, 1, **{name: value})
    for name, value in dict(sigma_0=-1.0, gamma=1.5, h_max=1.1).items():
        assert name in complaint(draw_next, never, past, **{name: value}).partition(":")[0]
    assert complaint(coarse_to_fine, never, past / 0, None).startswith("x_t: got NaN")
    assert complaint(draw_next, never, past, game=1.0)
    for f, words in ((draw_next, (never, past)), (coarse_to_fine, (never, past, None))):
        assert (
            complaint(f, *words, beta=0.5)
            == "beta: got 0.5, expected gamma=0.5: the paper's β is γ here"
        )
    given = {k: v.default for k, v in signature(coarse_to_fine).parameters.items()}
    for name, p in signature(score.check_sampler).parameters.items():
        assert p.default == (given | {"sigma_0": 4.0})[name]


def test_bad_input_is_one_line(hand_made):
    model = BlindDenoiser(BlindUNet(past=2, width=4))
    clip = torch.zeros(2, 3, 1, 8, 8)
    assert complaint(model.loss, clip + 7).startswith("clip: got values in [7, 7]")
    assert complaint(model.loss, clip[:, :1]).startswith("clip: got 1 frame")
    assert complaint(model.loss, clip[0]).startswith("clip: got shape")
    assert complaint(model.loss, clip * math.nan).startswith("clip: got values")
    assert complaint(model.loss, torch.cat([clip, clip], 2)).startswith("x: got 2 channels")
    assert complaint(model.forecast, clip, 1).startswith("cond: got 3 frames")
    assert complaint(model.forecast, clip[:, :2], 0).startswith("n_frames: got 0")
    assert complaint(model.forecast, clip[:, :2, :, :7], 1).startswith("x: got 7x8 pixels")
    assert complaint(BlindDenoiser, None, sigma_max=0.0).startswith("sigma_max: got 0.0")
    assert complaint(BlindDenoiser, None, sigma_max=math.inf).startswith("sigma_max")
    wide = blind(lambda y, past: y.expand(-1, -1, 3, -1, -1))
    assert complaint(wide.loss, clip).startswith(
        "denoise: got an estimate of shape (2, 1, 3, 8, 8)"
    )
    assert complaint(wide.forecast, clip[:, :2], 1).startswith("denoise")
    futures = hand_made.outcomes[:, 0]
    assert complaint(judge, hand_made, futures[:1], futures).startswith("futures: got shape")
    assert complaint(judge, hand_made, futures, futures[:1]).startswith("one_shot: got shape")
    assert complaint(judge, hand_made, futures * math.nan, futures).startswith("futures: got NaN")
    for row, col in ((8, 0), (0, 8), (-1, 0), (0, 1.5)):
        said = complaint(adaptive_filter, model, clip[:, 2:], clip[:, :2], row, col)
        assert said.partition(":")[0] in ("row, col", "row", "col")
    assert complaint(leaf_stream, share=1.5).startswith("share")
    assert "vidiffedu.intervals" in complaint(getattr, score, "wilson")


# ---------------------------------------------------------------- what the studies measure with


@pytest.fixture
def study(monkeypatch):
    "load(name) of nbs/studies, where a script finds its neighbours."
    monkeypatch.syspath_prepend(str(CHECKPOINTS.parent / "studies"))
    yield importlib.import_module
    for name in [n for n in sys.modules if n == "record" or n.startswith("score_")]:
        sys.modules.pop(name)


def test_a_rendered_point_was_where_the_renderer_says(study):
    "Inside a layer, with one exposure a frame, a clean frame is the one before, moved by `step`."
    film = study("score_film").shot(3, frames=4, size=48, sub=1)
    t, here = 2, torch.zeros(48, 48, dtype=torch.bool)
    here[8:40, 8:40] = True
    wide = lambda v: torch.nn.functional.max_pool2d(v.float()[None, None], 7, 1, 3)[0, 0]
    here &= (wide(film.layer[t]) == -wide(-film.layer[t])) & (wide(film.revealed[t]) == 0)
    line = torch.arange(48.0)
    where = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1) + film.step[t]
    grid = where.flip(-1) * 2 / 47 - 1
    sample = torch.nn.functional.grid_sample
    before = sample(film.clean[t - 1][None], grid[None], align_corners=True)[0, 0]
    now = film.clean[t, 0]
    moved = (before - now)[here].square().mean()
    stayed = (film.clean[t - 1, 0] - now)[here].square().mean()
    assert here.sum() > 300 and film.step[t].norm(dim=-1).max() > 0.3
    assert moved < 0.3 * stayed  # what is left is the interpolation of fine texture


def test_what_a_shot_reveals_was_hidden(study):
    "A pixel is revealed only where a nearer layer had been one frame ago, at the place it came from."
    film = study("score_film").shot(1, frames=6, size=48)
    assert film.video.abs().max() <= 1 and film.video.shape == (6, 1, 48, 48)
    found = 0
    for t in range(1, 6):
        i, j = film.revealed[t].nonzero().T
        was = (torch.stack([i, j], 1) + film.step[t][i, j]).round().long()
        fits = ((was >= 1) & (was <= 46)).all(1)
        for (a, b), layer in zip(was[fits].tolist(), film.layer[t][i, j][fits].tolist()):
            assert film.layer[t - 1, a - 1 : a + 2, b - 1 : b + 2].max() > layer
            found += 1
    assert found > 20


def test_what_moving_leaves_reveal(study):
    "A still ground and one disk that moves to the right by two pixels: a crescent on its left."
    from vidiffedu.data import Leaves

    world = Leaves(
        torch.tensor([[[8.0, 4.0]]]),
        torch.tensor([[[0.0, 2.0]]]),
        torch.tensor([[3.0]]),
        torch.ones(1, 1),
        torch.zeros(1),
    )
    out = study("score_leaves").revealed(world)[0, 0, 0]
    line = torch.arange(16.0)
    y, x = torch.meshgrid(line, line, indexing="ij")
    was, now = ((y - 8) ** 2 + (x - c) ** 2 < 9 for c in (6.0, 8.0))
    assert torch.equal(out, was & ~now)


def test_sharpness_falls_with_blur_and_rises_with_noise(study):
    "A step of height H over w pixels has the sum H² / w a row; noise of σ adds 2 σ² a pair; a pair needs one pixel that is here."
    leaves = study("score_leaves")
    ramp = lambda w: ((torch.arange(16.0) - 8) / w).clamp(0, 1).expand(3, 1, 1, 16, 16)
    here = torch.ones(3, 1, 1, 16, 16, dtype=torch.bool)
    came = ramp(1)
    assert leaves.contrast(came, here).tolist() == [16.0] * 3
    for w in (1, 2, 4):
        for value in leaves.sharpness(ramp(w), came, here):  # all clips alike: no interval
            assert abs(value - 1 / w) < 1e-6
    beside = here & (torch.arange(16) == 9)
    assert leaves.contrast(came, beside).tolist() == [16.0] * 3
    assert leaves.contrast(came, here & (torch.arange(16) == 10)).tolist() == [0.0] * 3
    assert leaves.contrast(came.mT, beside.mT).tolist() == [16.0] * 3
    rough = 0.1 * torch.randn(200, 1, 1, 16, 16, generator=seeded(0))
    pairs, all_here = 2 * 16 * 15, torch.ones_like(rough, dtype=torch.bool)
    assert abs(float(leaves.contrast(rough, all_here).mean()) / (pairs * 2 * 0.01) - 1) < 0.02


def test_parts_are_joined_once(study, tmp_path):
    record = study("record")
    for name, text in dict(a="q,seed,v\n1,0,2\n", b="q,seed,w\n1,1,3\n").items():
        (tmp_path / f"{name}.csv").write_text(text)
    for _ in range(2):
        parts = [tmp_path / "a.csv", tmp_path / "b.csv"]
        record.join(tmp_path / "all.csv", parts, ("q", "seed"))
    assert (tmp_path / "all.csv").read_text().splitlines() == ["q,seed,v,w", "1,0,2,", "1,1,,3"]
