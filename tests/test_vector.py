"""vector: a time for every frame. What training shows the network, how windows continue a film, and the rolling window against its exact law."""

import csv
import importlib
import json
import math
import re
import statistics
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from unit_noise import law

from vidiffedu.core import complaint, expand, seeded
from vidiffedu.data import Leaves, draw_leaves, drifting_leaf
from vidiffedu.denoise import FromNoise, FromV, noise_weight, v_weight
from vidiffedu.nets import VideoTransformer
from vidiffedu.oracle import GaussianClips, Points
from vidiffedu.paths import VP, Bridge, Cosine
from vidiffedu.sample import ddim_step
from vidiffedu.times import even_noise, independent, ptss, pyramid
from vidiffedu.vector import (
    FVDM,
    centre_of_light,
    fill_frames,
    guesses,
    known_frames,
    nearest_leaf,
    roll,
    shifted,
    straight,
    timetables,
    window_and_keep,
)

PATH = VP()


def exact(world, path=PATH):
    model = FVDM(None, path)
    model.denoise = world.denoiser(path)
    return model


# ---------------------------------------------------------------- training


class Watching:
    "A network that remembers what it saw, and answers 0"

    def __call__(self, x_t, t, cond):
        self.x_t, self.t, self.cond = x_t, t, cond
        return torch.zeros_like(x_t)


def seen_in_training(b=4000, f=5, size=2, x=0.0, **how):
    net = Watching()
    FVDM(net, PATH, **how).loss(torch.full((b, f, 1, size, size), x), seeded(0))
    return net


def test_each_frame_is_noised_by_the_time_that_the_network_hears():
    "A black clip becomes c(t_i) times standard noise, frame by frame, and a grey one keeps a(t_i) of its grey"
    net = seen_in_training(b=60, f=4, size=32, p=1.0)
    assert net.t.shape == (60, 4) and net.cond is None
    assert (net.t.std(1) > 0).all()
    z = net.x_t / expand(PATH.c(net.t), net.x_t)
    assert (z.square().mean((2, 3, 4)) - 1).abs().max() < 6 * (2 / 1024) ** 0.5
    net = seen_in_training(b=60, f=4, size=32, x=0.5, p=1.0)
    z = (net.x_t - 0.5 * expand(PATH.a(net.t), net.x_t)) / expand(PATH.c(net.t), net.x_t)
    assert z.mean((2, 3, 4)).abs().max() < 6 / 1024**0.5


@pytest.mark.parametrize("how", [dict(p=0.0), dict(), dict(p=0.7), dict(p=1.0)], ids=str)
def test_ptss_in_training(how):
    "A share p (default 0.2) of the clips has independent uniform times, the rest one uniform time"
    p, b = how.get("p", 0.2), 4000
    t = seen_in_training(b, **how).t
    alone = t.std(1) > 0
    assert abs(alone.float().mean() - p) <= 5 * (p * (1 - p) / b) ** 0.5
    for some in (t[alone], t[~alone, :1]):
        n = some.numel()
        if n:
            assert abs(some.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
            assert abs(some.var() * 12 - 1) < 5 * (0.8 / n) ** 0.5  # kurtosis of the uniform law
    if len(t[alone]) > 2:
        off = torch.corrcoef(t[alone].T) - torch.eye(t.shape[1])
        assert off.abs().max() < 5 / len(t[alone]) ** 0.5


def test_any_law_of_times_may_train():
    "Diffusion Forcing is FVDM(net, times=independent); one coin a batch is partial(ptss, per_clip=False)"
    t = seen_in_training(times=independent).t
    assert (t.std(1) > 0).all()
    assert abs(t.mean() - 0.5) < 5 * (1 / 12 / t.numel()) ** 0.5
    asked = {}

    def times(b, f, generator=None, device=None):
        asked.update(shape=(b, f), generator=generator, device=device)
        return torch.full((b, f), 0.5)

    net = Watching()
    FVDM(net, PATH, times=times).loss(torch.zeros(3, 6, 1, 2, 2), g := seeded(3))
    assert asked == dict(shape=(3, 6), generator=g, device=torch.device("cpu"))


def test_a_network_that_answers_0_loses_the_square_of_the_clip():
    zero = lambda x_t, t, cond: torch.zeros_like(x_t)
    for value in (1.0, 0.5):
        x = torch.full((64, 4, 1, 4, 4), value)
        assert FVDM(zero, p=1.0).loss(x, seeded(0)).item() == pytest.approx(value**2)


def test_the_trained_times_are_those_of_the_generator():
    "The same generator, the same loss; another one, another loss"
    zero, x = lambda x_t, t, cond: 0.1 * x_t, torch.rand(8, 4, 1, 4, 4)
    one, same, other = (FVDM(zero).loss(x, seeded(s)).item() for s in (0, 0, 1))
    assert one == same != other


def test_the_network_hears_every_time():
    net, x = Watching(), torch.ones(2, 4, 1, 4, 4)
    t = torch.tensor([[0.0, 0.3, 0.3, 0.4], [0.7, 0.0, 0.7, 0.1]])
    assert torch.equal(FVDM(net).denoise(x, t, x), torch.zeros_like(x))
    assert torch.equal(net.t, t) and net.cond is None


@pytest.fixture(scope="module")
def transformer():
    torch.manual_seed(0)
    net = VideoTransformer(channels=1, size=16, frames=5, patch=4, width=32, depth=2, heads=2)
    torch.nn.init.normal_(net.out.weight, std=0.1)
    torch.nn.init.normal_(net.modulate.weight, std=0.1)
    return net


@pytest.mark.parametrize(
    "how",
    [dict(p=0.0), dict(p=0.2), dict(p=1.0), dict(times=independent)],
    ids=["p0", "p0.2", "p1", "times"],
)
def test_the_loss_is_the_naive_one(how, transformer):
    "Noise each frame by its own time, let the network speak, square the error of v or of the noise"
    net, clips = transformer.double(), drifting_leaf(8, generator=seeded(0)).double()
    t = (how.get("times") or partial(ptss, **how))(8, 5, generator=(g := seeded(5)))
    noise = torch.randn(clips.shape, generator=g, dtype=torch.float64)
    a, c = expand(PATH.a(t), clips), expand(PATH.c(t), clips)
    said = net(a * clips + c * noise, t)
    for wrap, weight, right in (
        (FromV, v_weight(PATH), a * noise - c * clips),
        (FromNoise, noise_weight(PATH), noise),
    ):
        ours = FVDM(wrap(net, PATH), PATH, weight=weight, **how).loss(clips, seeded(5))
        torch.testing.assert_close(ours, (said - right).square().mean(), rtol=1e-4, atol=0.0)


def test_latents_pass_as_they_are_and_pixels_are_checked():
    "range=None: any finite values, and their loss is that of unit variance; the default refuses"
    zero, x = lambda x_t, t, cond: torch.zeros_like(x_t), torch.randn(64, 4, 4, 8, 8)
    assert x.abs().max() > 3
    assert complaint(FVDM(zero).loss, x).startswith("clip: got values in [")
    loss = FVDM(zero, range=None).loss(x, seeded(0)).item()
    assert loss == pytest.approx(x.square().mean().item(), rel=1e-5)
    x[0, 0, 0, 0, 0] = torch.nan
    assert "NaN" in complaint(FVDM(zero, range=None).loss, x)


# ---------------------------------------------------------------- rivals and measures


def leaf(first, velocity, radius, frames=5, size=16):
    number = lambda v: torch.tensor([v], dtype=torch.float32)
    one = torch.ones(1, 1)
    disk = Leaves(number([first]), number([velocity]), number([radius]), one, -one[0])
    return draw_leaves(disk, frames, size)


def test_the_centre_of_light_is_the_disk_s():
    x = leaf((6.0, 5.0), (0.5, 1.0), 3.0)
    points, mass = centre_of_light(x)
    frames = torch.arange(5.0)[:, None]
    assert (
        points[0] - torch.tensor([6.0, 5.0]) - frames * torch.tensor([0.5, 1.0])
    ).abs().max() < 0.03
    assert (mass / (torch.pi * 9) - 1).abs().max() < 0.03


def test_a_line_through_points():
    frames, at = torch.tensor([0.0, 1.0, 4.0]), torch.tensor([2.0, 7.0])
    line = lambda t: torch.stack([3 - 2 * t, 1 + 0.5 * t], -1)[None]
    assert torch.allclose(straight(line(frames), frames, at), line(at), atol=1e-5)


def test_whole_pixels_move_exactly():
    x = torch.rand(2, 3, 1, 8, 8)
    by = torch.tensor([[[1.0, 0], [0, 2], [-1, 1]]]).expand(2, -1, -1)
    out = shifted(x, by)
    for i, (dy, dx) in enumerate(((1, 0), (0, 2), (-1, 1))):
        there = torch.roll(x[:, i], (dy, dx), (-2, -1))
        assert torch.allclose(out[:, i, :, 2:-2, 2:-2], there[..., 2:-2, 2:-2], atol=1e-5)


@pytest.mark.parametrize("known", [(0, 1), (0, 4), (1, 3)])
def test_rivals_say_what_their_names_say(known):
    "A disk that moves by whole pixels: constant velocity is right; the others copy and average"
    x, given = leaf((5.0, 4.0), (1.0, 2.0), 2.5), torch.zeros(5, dtype=torch.bool)
    given[list(known)] = True
    blind = torch.where(given[:, None, None, None], x, 7.0)  # what is unknown must not matter
    said = guesses(blind, given)
    assert (said["constant velocity"] - x).abs().max() < 0.1
    assert torch.equal(said["mean of the known frames"][:, 2], x[:, given].mean(1))
    for i in range(5):
        copy = min(known, key=lambda k: (abs(k - i), k))
        assert torch.equal(said["nearest known frame"][:, i], x[:, copy])


def test_one_known_frame_has_no_velocity():
    assert "constant velocity" not in guesses(torch.zeros(1, 3, 1, 8, 8), torch.arange(3) == 1)


def test_the_nearest_leaf_of_a_leaf_is_itself():
    x = torch.cat([leaf((5.0, 4.5), (0.75, 1.0), 2.8), drifting_leaf(7, generator=seeded(0))])
    numbers, near = nearest_leaf(x)
    assert (near - x).square().mean((1, 2, 3, 4)).max() < 1e-5
    assert (numbers[0] - torch.tensor([5.0, 4.5, 8.0, 8.5, 2.8])).abs().max() < 0.02


@pytest.mark.parametrize("grey", [-1.0, -3.0, 0.0, 1.0])
def test_a_plain_clip_has_a_nearest_leaf_too(grey):
    "A black one has a speck: what is left of it is less than one white pixel in a frame of 16 x 16"
    x = torch.full((2, 5, 1, 16, 16), grey)
    numbers, leaf = nearest_leaf(x)
    assert numbers.isfinite().all() and leaf.isfinite().all() and (numbers[:, 4] > 0).all()
    assert grey > -1 or (leaf + 1).square().mean() < 4 / 256


def test_light_around_the_centre_of_a_pixel_has_a_nearest_leaf():
    "There the distance from the pixel has no gradient: one pixel, once and in all frames; a square; a track that passes over one"
    x = torch.full((4, 5, 1, 16, 16), -1.0)
    x[0, :, 0, 5, 6] = x[1, 2, 0, 5, 6] = x[3, 0, 0, 4, 4] = x[3, 4, 0, 8, 6] = 1.0
    x[2, :, 0, 4:7, 8:11] = 1.0
    numbers, near = nearest_leaf(x)
    assert numbers.isfinite().all() and near.isfinite().all()
    assert (numbers[2, :4] - torch.tensor([5.0, 9.0, 5.0, 9.0])).abs().max() < 0.05
    assert (near[2] - x[2]).square().mean() < 0.01


def test_a_dim_leaf_is_as_far_as_its_light():
    "Half the contrast: the nearest white leaf errs by the missing light, or is smaller; never 0"
    x = leaf((7.0, 7.0), (0.2, 0.1), 3.5)
    dim = (x + 1) / 2 - 1
    off = (nearest_leaf(dim)[1] - dim).square().mean()
    assert 0.3 * (x - dim).square().mean() < off <= (x - dim).square().mean() * 1.05


# ---------------------------------------------------------------- timetables


def test_one_timetable_a_clip():
    known = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]).bool()
    table = partial(pyramid, lag=2)
    ts = timetables(table, 3, known)
    assert ts.shape == (3 + 1 + 2 * 3, 4, 4)
    for i, mask in enumerate(known):
        mine = table(3, 4, known=mask)
        assert torch.equal(ts[: len(mine), i], mine) and (ts[len(mine) :, i] == 0).all()


def test_a_mask_for_all_or_one_for_each():
    x = torch.zeros(3, 2, 1, 4, 4)
    one, each = (
        torch.tensor([True, False]),
        torch.tensor([[True, False], [False, True], [False] * 2]),
    )
    assert torch.equal(known_frames(one, x), one.expand(3, 2))
    assert torch.equal(known_frames(each, x), each)
    square = torch.zeros(2, 2, 1, 4, 4)  # as many clips as frames
    assert torch.equal(known_frames(one, square), one.expand(2, 2))


def test_noise_may_rise_along_the_clip(monkeypatch):
    world = GaussianClips(4, size=(1, 2), rho=0.8, mean=torch.tensor([0.5, 0.0, -1.0, 0.3]))
    x, mask = world.sample(1, generator=seeded(0), dtype=torch.float64), torch.arange(4) < 1
    there, rising = world.conditional(mask), even_noise(PATH, partial(pyramid, lag=9))
    fill = lambda n: exact(world).fill(x, mask, n, timetable=rising)[:, 0, 1:]
    mean, cov = law(monkeypatch, fill, x.numel())
    assert (mean - there.mean(x).double().flatten()).abs().max() < 0.03
    assert (cov - there.cov).abs().max() < 0.03


def test_known_frames_stay_on_any_path_and_the_start_is_noise():
    "The unknown frames start at c(1) times standard noise"
    first = []
    x = torch.randn(40, 4, 1, 8, 8, generator=seeded(0), dtype=torch.float64) + 3
    mask = torch.tensor([False, True, False, False])
    for path in (VP(), Cosine(), VP(beta_max=1.0)):
        denoise = lambda x_t, t, y: first.append(x_t) or 0 * x_t
        out = fill_frames(denoise, path, x, mask, steps=2, generator=seeded(1))
        assert torch.equal(out[:, mask], x[:, mask])
        start, n = first[0][:, ~mask], 40 * 3 * 64
        assert torch.equal(first[0][:, mask], x[:, mask])
        c = float(path.c(torch.ones((), dtype=torch.float64)))
        assert abs(start.mean()) < 5 * c / n**0.5
        assert abs(start.var() / c**2 - 1) < 5 * (2 / n) ** 0.5
        first.clear()


def test_each_clip_follows_its_own_mask_and_nan_does_not_matter():
    "Known frames come back bit for bit; what stands in the unknown ones is ignored"
    world = drifting_leaf(60, generator=seeded(0))
    denoise = Points(world).denoiser(PATH)
    masks = torch.tensor([[1, 1, 0, 0, 0], [1, 0, 0, 0, 1], [0, 0, 1, 0, 0]]).bool()
    x = torch.where(masks[:, :, None, None, None], world[:3], torch.nan)
    out = fill_frames(denoise, PATH, x, masks, steps=10, generator=seeded(3))
    assert torch.equal(out[masks], world[:3][masks]) and out.isfinite().all()
    whole = fill_frames(denoise, PATH, world[:3], masks, steps=10, generator=seeded(3))
    assert torch.equal(out, whole)


def test_wrong_calls_end_in_one_line(transformer):
    "before any work is done"
    x, two = drifting_leaf(2, generator=seeded(100)), torch.arange(5) < 2
    net, nan = (
        transformer.float(),
        torch.where((torch.arange(5) < 1)[:, None, None, None], torch.nan, x),
    )
    model, v_model = FVDM(net, PATH), FVDM(FromV(net, PATH), PATH)
    shape = "expected bool of shape (5,) or (2, 5)"
    for said, *call in (
        (f"known: got torch.bool of shape (2,), {shape}", model.fill, x, two[:2]),
        (
            "known: got all 5 frames of a clip, expected at least one unknown",
            model.fill,
            x,
            two | ~two,
        ),
        (f"known: got torch.float32 of shape (5,), {shape}", model.fill, x, torch.ones(5)),
        ("x: got shape (5, 1, 16, 16), expected five axes (b f c h w)", model.fill, x[0], two),
        ("x: got NaN or infinite values, expected finite numbers", model.fill, nan, two),
        ("clip: got values in [1, 3], expected [-1, 1]", model.loss, x + 2),
        ("clip: got values in [nan, nan], expected [-1, 1]", model.loss, x * torch.nan),
        ("p: got 1.5, expected a probability in [0, 1]", FVDM(net, PATH, p=1.5).loss, x),
        ("x: got (15, 15) pixels, expected (16, 16)", v_model.loss, x[..., :15, :15]),
        ("n_frames: got 2.0, expected a whole number of at least 1", model.forecast, x[:, :2], 2.0),
        ("path: got Bridge, expected one that ends in noise (VP, Cosine, VE)", FVDM, net, Bridge()),
    ):
        assert complaint(*call) == said
    for key, value in dict(n_samples=0, chunk=-1, steps=2.0).items():
        said = f"{key}: got {value}, expected a whole number of at least 1"
        assert complaint(model.fill, x, two, **{key: value}) == said
    said = "keep: got 4, expected at most 2 with 2 past frames and window 4"
    assert complaint(model.forecast, x[:, :2], 4, window=4, keep=4) == said


# ---------------------------------------------------------------- windows


def ramp(first, n, b=2):
    "Films whose frame i shows the number first + i"
    return (first + torch.arange(float(n)))[None, :, None, None, None].expand(b, n, 1, 2, 2)


def continues(seen):
    "A denoiser that counts on from the last clean frame, and notes which frames are clean"

    def denoise(x_t, t, y):
        seen.append((t[0] == 0).tolist())
        last = int((t[0] == 0).nonzero().max())
        ahead = torch.arange(x_t.shape[1]) - last
        return x_t[:, last : last + 1] + ahead[None, :, None, None, None]

    return denoise


@pytest.mark.parametrize(
    "k, n, how, frames, known",
    [
        (2, 5, {}, 7, 2),  # one window
        (2, 5, dict(window=4), 4, 2),
        (2, 5, dict(window=4, keep=1), 4, 1),
        (4, 7, dict(window=5, keep=3), 5, 3),
        (5, 3, dict(window=3), 3, 2),  # as much of the past as leaves room
        (3, 2, dict(window=8), 8, 3),  # more than was asked for
        (4, 6, dict(keep=1), 10, 1),
    ],
)
def test_each_window_begins_with_the_newest_frames(k, n, how, frames, known):
    seen, model = [], FVDM(None)
    model.denoise = continues(seen)
    past = ramp(0.0, k)
    out = model.forecast(past, n, 3, steps=2, step=ddim_step, **how, generator=seeded(0))
    assert out.shape == (3, 2, n, 1, 2, 2)
    torch.testing.assert_close(out[1], ramp(float(k), n), rtol=0, atol=1e-5)
    clean = [True] * known + [False] * (frames - known)
    assert all(row == clean for row in seen)
    windows = -(-n // (frames - known))
    assert len(seen) == 2 * windows
    assert window_and_keep(k, n, **how) == (frames, known)


MARKOV = GaussianClips(9, size=(1, 2), rho=0.7)  # AR(1): the last known frame says all


def future_law():
    x = MARKOV.sample(1, generator=seeded(3), dtype=torch.float64)
    there = MARKOV.conditional(torch.arange(9) < 2)
    return x, there.mean(x).double().flatten(), there.cov.double()


@pytest.mark.parametrize("how", [dict(window=3, keep=1), dict(window=4, keep=2)], ids=str)
def test_windows_give_the_exact_joint_law(how, monkeypatch):
    "of a Markov chain, seams included"
    x, mean, cov = future_law()
    windows = -(-7 // (how["window"] - how["keep"]))
    forecast = lambda n: exact(MARKOV).forecast(x[:, :2], 7, n, **how)[:, 0]
    got = law(monkeypatch, forecast, windows * how["window"] * 2)
    assert (got[0] - mean).abs().max() < 0.03 and (got[1] - cov).abs().max() < 0.03


# ---------------------------------------------------------------- rolling


@pytest.mark.parametrize("window, keep", [(5, 2), (4, 1), (6, 1), (8, 1)])
def test_roll_gives_the_exact_joint_law(window, keep, monkeypatch):
    x, mean, cov = future_law()
    how = dict(window=window, keep=keep, steps=25)
    rolled = lambda n: roll(MARKOV.denoiser(PATH), PATH, x[:, :2].repeat(n, 1, 1, 1, 1), 7, **how)
    got = law(monkeypatch, rolled, 9 * 2)
    assert (got[0] - mean).abs().max() < 0.03 and (got[1] - cov).abs().max() < 0.03


@pytest.mark.parametrize(
    "k, n, window, keep, steps", [(2, 9, 5, 2, 7), (3, 4, 6, 2, 4), (1, 6, 4, 1, 6)]
)
def test_what_the_rolling_window_sees(k, n, window, keep, steps):
    "`keep` finished frames or more, then frames ever noisier; a frame is looked at `steps` times on its way"
    seen, moving = [], window - keep
    lag = -(-steps // moving)

    def denoise(x_t, t, y):
        seen.append(t[0])
        return 0 * x_t

    roll(
        denoise, PATH, torch.ones(1, k, 1, 2, 2), n, window, keep, steps, seeded(0), step=ddim_step
    )
    assert len(seen) == lag * (n + moving - 1)
    for t in seen:
        assert t.shape == (window,) and (t[:keep] == 0).all() and (t.diff() >= 0).all()
    looks = sum(int(((t > 0) & (t < 1)).sum()) for t in seen)
    assert looks == n * (lag * moving - 1)  # and once at t = 1, before it moves
    assert (seen[-1][:-1] == 0).all()  # the last frame alone is left


def test_the_rolling_window_moves_by_one_frame():
    "The network is shown every new frame, in order, beside the finished ones"
    first = []

    def denoise(x_t, t, y):
        first.append(float(x_t[0, 0].mean()))  # finished: frame number
        last = int((t[0] == 0).nonzero().max())
        ahead = torch.arange(x_t.shape[1]) - last
        return x_t[:, last : last + 1] + ahead[None, :, None, None, None]

    out = roll(denoise, PATH, ramp(0.0, 2), 6, 4, 2, 2, seeded(0), step=ddim_step)
    torch.testing.assert_close(out, ramp(2.0, 6), rtol=0, atol=1e-4)
    assert [round(v) for v in first] == [0, 0, 1, 2, 3, 4, 4]


def test_wrong_windows():
    model, past = FVDM(lambda x_t, t, cond: x_t), torch.zeros(1, 2, 1, 4, 4)
    go = partial(complaint, roll, model.denoise, PATH)
    assert go(past, 3, window=8, keep=2).startswith("n_frames: got 3, expected at least")
    assert go(past, 9, window=8, keep=3).startswith("keep: got 3, expected at most 2")
    assert go(past, 9, window=2, keep=2).startswith("keep: got 2, expected at most 1")
    for key, value in dict(keep=0, window=1, steps=2.0, n_frames=9.0).items():
        how = dict(n_frames=9, window=8, keep=2, steps=3) | {key: value}
        assert go(past, **how).startswith(f"{key}: got {value}, expected a whole number")
    one = complaint(fill_frames, model.denoise, PATH, past, torch.tensor([True, False]), steps=2.0)
    assert one.startswith("steps: got 2.0, expected a whole number")
    assert go(torch.full_like(past, torch.nan), 9).startswith("past: got NaN")
    assert go(past[0], 9).startswith("past: got shape")
    bent = FVDM(lambda x, t, c: expand(t, x) * x)
    assert complaint(bent.denoise, past, torch.rand(1, 3), None).startswith("t: got shape")


# ---------------------------------------------------------------- what the studies measure


@pytest.fixture
def study(monkeypatch):
    "import a study of nbs/studies by name, and forget it afterwards"
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "nbs/studies"))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name.startswith(("vector_", "whole_clips", "record")):
            sys.modules.pop(name)


def test_energy_distance_of_two_normal_laws(study):
    "In one dimension E|X - Y| of normal laws is known; and two sets of one law are 0 apart"
    x, away = torch.randn(4000, 1, generator=seeded(0)), 2**0.5  # 2 apart, over the spread √2
    cross = 2**0.5 * ((2 / math.pi) ** 0.5 * math.exp(-(away**2) / 2) + away * math.erf(1.0))
    want = 2 * cross - 4 / math.pi**0.5
    vt = study("vector_times")
    y = torch.randn(4000, 1, generator=seeded(1))
    assert abs(vt.energy_distance(x, y + 2) - want) < 0.1
    assert abs(vt.energy_distance(x, y)) < 0.01


def test_an_interval_over_trainings_and_clips(study):
    "Student's t of two degrees of freedom has 97.5 % below 4.303; and clips add in squares"
    vt = study("vector_times")
    row = lambda v, half=0.0: dict(value=v, low=v - half, high=v + half, seed=str(v))
    # P(T < t) = 1/2 + t / (2 sqrt(2 + t²)) for two degrees of freedom, solved for t
    t = 0.95 * (2 / (1 - 0.95**2)) ** 0.5
    three = [row(v) for v in (1.0, 2.0, 3.0)]
    assert vt.interval_of(three) == pytest.approx((2.0, t / 3**0.5))
    assert vt.interval_of([row(2.0, 0.5)]) == pytest.approx((2.0, 0.5))
    both = vt.interval_of([row(v, 0.5) for v in (1.0, 2.0, 3.0)])
    assert both == pytest.approx((2.0, math.hypot(t / 3**0.5, 0.5)))
    assert vt.told([dict(value=2.0, low="", high="", seed="0")]) == "2.0000"


def test_a_true_disk_is_no_misfit_and_two_half_ones_are(study):
    vl = study("vector_long")
    x = vl.disks(4, seeded(0), 8)
    assert vl.disk_misfit(x).max() < 1e-3
    both = (x + x.flip(-1)) / 2
    assert vl.disk_misfit(both).mean() > 5e-3


def test_the_class_of_a_true_sprite_is_found(study):
    vc = study("vector_classes")
    x, kind = vc.sprites(60, seeded(0))
    found, off = vc.nearest_sprite(x)
    assert (found == kind).float().mean() > 0.95 and off.mean() < 1e-3
    label = vc.label_frames(torch.tensor([1, vc.KINDS]))
    assert label[0, 1].min() == 1 and label.sum() == (2 - 8) * 256


# ---------------------------------------------------------------- what the page says

NBS = Path(__file__).resolve().parents[1] / "nbs"
ARMS = ("x0", "x0.2", "x1")
STUDENT = {1: 0.0, 2: 12.71, 3: 4.303}
GUESSES = ("average clip", "nearest known frame", "mean of the known frames")
SAID = re.compile(r"([\d.]+)(?: \(([\d.]+) to ([\d.]+)\)| ± ([\d.]+))")


def measured():
    rows = csv.DictReader(open(NBS / "studies/vector_times.csv", encoding="utf-8"))
    return [dict(r, value=float(r["value"])) for r in rows]


def half_width(row):
    return (float(row["high"]) - float(row["low"])) / 2


def relative(rows):
    "Half the interval over clips, over the value"
    return statistics.fmean(half_width(r) / r["value"] for r in rows)


def half_of(values, clips):
    n = len(values)
    seeds = STUDENT[n] * statistics.stdev(values) / n**0.5 if n > 1 else 0.0
    return math.hypot(seeds, clips)


def page(name="12_vector"):
    "(text of the markdown cells, what the stored outputs print)"
    cells = json.loads((NBS / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    outputs = [o for c in cells for o in c.get("outputs", [])]
    return text, "\n".join("".join(o.get("text", "")) for o in outputs)


def printed(task, p):
    "The printed row of a task's table: after `p = ...`, what was found."
    text = page()[1]
    row = re.search(rf"^{task}.*?^ +p = {p:g} +(.*?)$", text, re.M | re.S)[1]
    return [v.group() for v in SAID.finditer(row)]


def assert_said(word, *numbers):
    "Each number in `word` is the rounded one of `numbers`."
    for text, number in zip((v for v in SAID.search(word).groups() if v), numbers, strict=True):
        unit = 10.0 ** -len(text.partition(".")[2])
        assert abs(float(text) - number) < 0.51 * unit, (word, numbers)


@pytest.mark.parametrize("arm", ARMS)
def test_the_printed_factors_are_those_of_the_study(arm):
    rows, column = measured(), ARMS.index(arm)
    of = lambda **want: [r for r in rows if all(r[k] == v for k, v in want.items())]
    p = (0, 0.2, 1)[column]
    tasks = dict(
        predict="predict 3 from 2", infill="fill between the ends", upsample="every other frame"
    )
    for task, title in tasks.items():
        guess = min(
            (of(arm="none", task=task, way=w)[0] for w in GUESSES), key=lambda r: r["value"]
        )
        mine = of(arm=arm, task=task, way="held", metric="mse")
        assert len(mine) == 3
        logs = [math.log(guess["value"] / r["value"]) for r in mine]
        half = half_of(logs, math.hypot(relative([guess]), relative(mine)))
        mean = statistics.fmean(logs)
        assert_said(printed(title, p)[1], *(math.exp(mean + h) for h in (0, -half, half)))
    mine = of(arm=arm, task="generate", way="heun25", metric="misfit")
    values = [r["value"] for r in mine]
    mean, clips = statistics.fmean(values), statistics.fmean(map(half_width, mine))
    half = half_of(values, clips)
    assert_said(re.search(rf"^predicts x, p = {p:g} +misfit (.*)$", page()[1], re.M)[1], mean, half)


@pytest.mark.parametrize("name", ["12_vector", "appendix/vector_scale"])
def test_every_interval_in_the_text_stands_in_an_output(name):
    text, printed = page(name)
    found = [m[0] for m in SAID.finditer(text)]
    assert found
    assert not [v for v in found if v not in printed]
