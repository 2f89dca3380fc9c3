"""masks: random masks. The law of the masks in training, what the network is told, and replacement, whose fault a perfect denoiser shows."""

import importlib
import itertools
import json
import math
import re
import sys
from pathlib import Path

import pytest
import torch

from vidiffedu import masks
from vidiffedu.core import complaint, expand, seeded
from vidiffedu.masks import RaMViD, fill_by_replacement, lattice_leaves, mask_times, replacing
from vidiffedu.oracle import GaussianClips
from vidiffedu.paths import VE, VP
from vidiffedu.sample import ddim_step
from vidiffedu.times import even_noise, grid
from vidiffedu.train import load_weights
from vidiffedu.vector import FVDM, fill_frames

PATH = VP()


# ---------------------------------------------------------------- training


def assert_mask_law(t, max_known, p_uncond):
    "No frame known with probability p_uncond, else 1 to max_known, equally often, at any place; the others share a time"
    b, f = t.shape
    known = t == 0
    share = known.sum(1).bincount(minlength=f + 1) / b
    want = torch.tensor([p_uncond] + max_known * [(1 - p_uncond) / max_known])
    want = torch.cat([want, torch.zeros(f - max_known)])
    assert ((share - want).abs() <= 5 * (want * (1 - want) / b).sqrt()).all()
    p = (1 - p_uncond) * (max_known + 1) / 2 / f
    assert ((known.float().mean(0) - p).abs() < 5 * (p * (1 - p) / b) ** 0.5).all()
    assert len(known[:200].unique(dim=0)) > f  # a mask for every clip
    time = t.amax(1)
    assert torch.equal(t, torch.where(known, 0.0, time[:, None]))
    assert abs(time.mean() - 0.5) < 5 * (1 / 12 / b) ** 0.5
    assert abs(time.var() * 12 - 1) < 5 * (0.8 / b) ** 0.5
    few, many = known.sum(1) <= 1, known.sum(1) > 1  # the time does not look at the mask
    sd = (1 / 12 * (1 / few.sum() + 1 / many.sum())) ** 0.5
    assert abs(time[few].mean() - time[many].mean()) < 5 * sd


@pytest.mark.parametrize("f, K, p", [(5, 2, 0.25), (6, 4, 0.0), (5, 4, 0.6)])
def test_masked_times(f, K, p):
    assert_mask_law(mask_times(20_000, f, K, p, generator=seeded(0)), K, p)
    assert (mask_times(100, f, K, 1.0, generator=seeded(0)) > 0).all()


class Watching:
    "A network that remembers what it saw, and answers 0"

    def __call__(self, x_t, t, cond):
        self.x_t, self.t, self.cond = x_t, t, cond
        return torch.zeros_like(x_t)


@pytest.mark.parametrize("how", [{}, dict(max_known=2, p_uncond=0.5)], ids=str)
def test_what_training_shows_the_network(how):
    "Known frames clean, the others noisy by the one time of the clip that the network hears; K = 4, p_U = .25 by default"
    net, b, f = Watching(), 20_000, 6
    RaMViD(net, PATH, **how).loss(torch.zeros(b, f, 1, 2, 2), seeded(0))
    assert net.t.shape == (b,) and net.cond is None
    clean = (net.x_t == 0).flatten(2).all(2)
    t = torch.where(clean, 0.0, net.t[:, None])
    assert_mask_law(t, how.get("max_known", 4), how.get("p_uncond", 0.25))
    z = (net.x_t / expand(PATH.c(net.t), net.x_t))[~clean]
    assert abs(z.var() - 1) < 5 * (2 / z.numel()) ** 0.5


def test_the_loss_is_a_mean_over_unknown_elements():
    "A network that answers 0 on clips of 1 loses exactly 1, whatever the mask; by hand for weights"
    x, zero = torch.ones(64, 4, 1, 4, 4), lambda x_t, t, cond: torch.zeros_like(x_t)
    assert RaMViD(zero, max_known=3).loss(x, seeded(0)).item() == pytest.approx(1.0)
    t = mask_times(64, 4, 3, 0.25, generator=seeded(0))
    want = (t.square() * (t > 0)).sum() / (t > 0).sum()
    got = RaMViD(zero, max_known=3, weight=torch.square).loss(x, seeded(0))
    assert got.item() == pytest.approx(want.item(), rel=1e-5)


def test_known_frames_carry_no_loss():
    "A network that is wrong on the clean frames alone loses nothing"
    x = torch.rand(200, 4, 1, 4, 4)
    net = lambda x_t, t, cond: torch.where(expand((x_t == x).flatten(2).all(2), x), 7.0, x)
    assert RaMViD(net, max_known=3).loss(x, seeded(0)) == 0
    assert FVDM(net, times=lambda b, f, **g: mask_times(b, f, 3, **g)).loss(x, seeded(0)) == 0


def test_the_network_hears_one_time_and_known_frames_come_back():
    told, x = [], torch.randn(2, 4, 1, 4, 4)
    t = torch.tensor([[0.0, 0.2, 0.3, 0.3], [0.7, 0.0, 0.7, 0.0]])
    out = RaMViD(lambda x_t, t, cond: told.append(t) or 0 * x_t - 5).denoise(x, t, None)
    assert torch.equal(told[0], torch.tensor([0.3, 0.7]))  # the largest of each clip
    assert torch.equal(out[t == 0], x[t == 0]) and (out[t > 0] == -5).all()


def test_times_must_be_a_time_a_frame():
    model = RaMViD(lambda x_t, t, cond: x_t)
    for t in (torch.tensor(0.5), torch.rand(1), torch.rand(1, 3), torch.rand(4)):
        assert complaint(model.denoise, torch.zeros(1, 4, 1, 2, 2), t).startswith("t: got shape")


# ---------------------------------------------------------------- completion


@pytest.mark.parametrize("path", [PATH, VE()], ids=["VP", "VE, the paper's"])
def test_every_set_of_known_frames_is_completed_by_its_exact_law(path):
    "With the exact denoiser: mean and spread of the unknown frames; known ones bit for bit"
    world, n = GaussianClips(4, size=2, rho=0.8, mean=0.3), 1000
    sets = torch.tensor(list(itertools.product([False, True], repeat=4)))[:-1]
    x = world.sample(1, seeded(0)).expand(len(sets), -1, -1, -1, -1)
    model = RaMViD(None, path)
    model.denoise = world.denoiser(path)
    hidden = torch.where(expand(sets, x), x, torch.nan)
    out = model.fill(hidden, sets, n_samples=n, generator=seeded(1))
    for i, known in enumerate(sets):
        law, got = world.conditional(known), out[:, i, ~known]
        assert torch.equal(out[:, i, known], x[i, known].expand(n, -1, -1, -1, -1))
        mean, std = law.mean(x[:1])[0], law.std(x[:1])[0]
        assert ((got.mean(0) - mean).abs() < 5 * std / n**0.5 + 0.015).all()
        assert (got.std(0) / std - 1).abs().max() < 5 * (2 * n) ** -0.5 + 0.015


def test_twelve_steps_are_enough_between_two_ends():
    "The chapter's completions take 12 Heun steps: on Gaussian clips mean and spread are right within 3 %"
    ends, world = torch.tensor([1, 0, 0, 0, 1]).bool(), GaussianClips(5, size=2, rho=0.9)
    x = 2 * torch.ones(2000, 5, 1, 2, 2)
    out = fill_frames(world.denoiser(PATH), PATH, x, ends, 12, seeded(1))[:, ~ends]
    law = world.conditional(ends)
    assert abs((out.mean(0) / law.mean(x[:1])[0]).mean() - 1) < 0.03
    assert abs((out.std(0) / law.std(x[:1])[0]).mean() - 1) < 0.03


# ---------------------------------------------------------------- replacement


@pytest.mark.parametrize("path", [PATH, VP(beta_max=1.0)], ids=["VP", "much signal at t = 1"])
def test_replaced_frames_have_the_noise_of_the_moment(path):
    "Before every step the known frames are a(t) x + c(t) z, z fresh and standard; at the end they are x"
    x = torch.full((16, 3, 1, 24, 24), 2.0)
    x[:, 2] = torch.nan
    known, seen = torch.tensor([True, True, False]), []
    ts, n = even_noise(path)(12, 3)[:, 0], 16 * 2 * 24 * 24

    def denoise(x_t, t, y):
        seen.append(x_t)
        assert (t == t[0, 0]).all()  # one time for all frames
        return 0 * x_t

    how = dict(steps=12, step=ddim_step, generator=seeded(0))
    out = fill_by_replacement(denoise, path, x, known, **how)
    assert torch.equal(out[:, :2], x[:, :2]) and out.isfinite().all()
    z = [(x_t[:, :2] - path.a(t) * 2) / path.c(t) for x_t, t in zip(seen, ts)]
    assert len(z) == 12
    for v in z:
        assert abs(v.mean()) < 5 / n**0.5 and abs(v.var() - 1) < 5 * (2 / n) ** 0.5
    for v, w in zip(z, z[1:]):
        assert abs((v * w).mean()) < 5 / n**0.5
    start = seen[0][:, 2] / path.c(ts[0])
    assert abs(start.mean()) < 5 / (n / 2) ** 0.5
    assert abs(start.var() - 1) < 5 * (4 / n) ** 0.5


def test_replacing_wraps_any_step():
    "The step comes first, with all that it was given; only then the known frames change"
    x, known = torch.ones(1, 2, 1, 2, 2), torch.tensor([[True, False]])
    given = {}

    def step(path, x_t, x_hat, t, s, y=None, denoise=None, generator=None):
        given.update(y=y, denoise=denoise, generator=generator)
        return x_t + 1

    t, s, g = torch.full((1, 2), 0.5), torch.zeros(1, 2), seeded(0)
    out = replacing(step, x, known)(PATH, 5 * x, x, t, s, y=None, denoise=abs, generator=g)
    assert torch.equal(out[:, 0], x[:, 0]) and (out[:, 1] == 6).all()  # s = 0: x itself
    assert given == dict(y=None, denoise=abs, generator=g)


def test_replacement_gives_another_law_however_many_steps():
    "The baseline's fault: with a perfect denoiser it still misses the conditional mean, and more steps do not help"
    mean = torch.tensor([0.5, 0.0, -1.0, 0.3])
    world = GaussianClips(4, size=(1, 2), rho=0.8, mean=mean, length=1.0)
    clip, mask, n = world.sample(1, generator=seeded(0)), torch.arange(4) < 2, 1500
    there, x, miss = world.conditional(mask), clip.repeat(n, 1, 1, 1, 1), []
    for steps in (25, 100):
        how = dict(steps=steps, generator=seeded(7))
        out = fill_by_replacement(world.denoiser(PATH), PATH, x, mask, **how)
        assert torch.equal(out[:, :2], x[:, :2])
        off = (out[:, 2:].mean(0) - there.mean(clip)[0]) / there.std(clip)[0]
        miss.append(float(off.abs().max()))
    assert min(miss) > 0.2


def test_replacement_by_ddim_in_closed_form():
    "Two frames, correlation ρ: the law after each step follows from two numbers, mean and variance"
    rho, given, n, steps = 0.6, -1.5, 40_000, 10
    x, pair = torch.full((n, 2, 1, 1, 1), given), GaussianClips(2, size=1, rho=rho)
    how = dict(steps=steps, step=ddim_step, timetable=grid, generator=seeded(0))
    known = torch.tensor([True, False])
    out = fill_by_replacement(pair.denoiser(PATH), PATH, x, known, **how)[:, 1]
    t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    a, c = PATH.a(t).tolist(), PATH.c(t).tolist()
    m, v = 0.0, c[0] ** 2
    for a_t, c_t, a_s, c_s in zip(a, c, a[1:], c[1:]):
        A = torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64)
        gain = a_t * A[1] @ torch.linalg.inv(a_t**2 * A + c_t**2 * torch.eye(2))  # of x̂ on x_t
        pull = a_s - c_s / c_t * a_t
        alpha, beta = float(pull * gain[1] + c_s / c_t), float(pull * gain[0])
        m, v = alpha * m + beta * a_t * given, alpha**2 * v + beta**2 * c_t**2
    assert abs(out.mean() - m) < 5 * (v / n) ** 0.5
    assert abs(out.var() / v - 1) < 5 * (2 / n) ** 0.5


# ---------------------------------------------------------------- the lattice, wrong input


def test_the_lattice_of_leaves():
    "36 places by 9 velocities: the middle frame leaves nine clips, any two frames leave one"
    clips = lattice_leaves()
    assert clips.shape == (324, 5, 1, 16, 16) and clips.min() >= -1 and clips.max() <= 1
    same = (clips[:, None] - clips).square().sum((3, 4, 5)) < 1e-6
    assert (same[:, :, 2].sum(1) == 9).all()
    pairs = [(i, j) for j in range(5) for i in range(j)]
    assert all((same[:, :, i] & same[:, :, j]).sum() == 324 for i, j in pairs)
    at = torch.arange(16.0)
    mass = (clips + 1)[:, :, 0]
    centre = torch.stack([(mass.sum(3) * at).sum(2), (mass.sum(2) * at).sum(2)], -1)
    centre = centre / mass.sum((2, 3))[..., None]
    assert (centre[:, 2].mean(0) - 7.5).abs().max() < 0.01  # the middle of the picture
    velocity = centre.diff(dim=1)  # (324, 4, 2)
    inside = (mass[..., 0].sum((1, 2)) + mass[..., -1].sum((1, 2))) == 0
    inside &= (mass[:, :, 0].sum((1, 2)) + mass[:, :, -1].sum((1, 2))) == 0
    steps = (velocity[inside] / 1.5).round()
    assert inside.sum() > 30 and (velocity[inside] / 1.5 - steps).abs().max() < 0.1
    assert (steps == steps[:, :1]).all() and set(steps.unique().tolist()) == {-1.0, 0.0, 1.0}


def test_wrong_input():
    x, known = torch.zeros(2, 4, 1, 4, 4), torch.arange(4) < 1
    go = lambda x, known, **how: complaint(
        fill_by_replacement, lambda x_t, t, y: x_t, PATH, x, known, **how
    )
    assert go(x, torch.ones(4, dtype=torch.bool)).startswith("known: got all")
    assert go(x, torch.ones(4)).startswith("known: got torch.float32")
    assert go(x.where(torch.tensor(False), torch.nan), known).startswith("x: got NaN")
    assert go(x, known, steps=0).startswith("steps: got 0")
    assert go(x, known, steps=2.0).startswith("steps: got 2.0")
    assert complaint(RaMViD(None, max_known=4).loss, x).startswith("max_known")
    assert complaint(RaMViD(None, p_uncond=1.5).loss, torch.zeros(2, 6, 1, 4, 4)).startswith(
        "p_unc"
    )


def test_what_moved_says_where():
    assert "moved from vidiffedu.masks to vidiffedu.crps" in complaint(getattr, masks, "judge_fill")


# ---------------------------------------------------------------- the studies of the chapter

STUDIES = Path(__file__).resolve().parents[1] / "nbs/studies"


@pytest.fixture
def study(monkeypatch):
    "A study of the chapter by its name; it and what it imports are forgotten afterwards."
    monkeypatch.syspath_prepend(str(STUDIES))
    yield importlib.import_module
    for name in (
        "masks_long",
        "masks_more",
        "masks_read",
        "whole_clips",
        "vector_long",
        "vector_times",
        "record",
    ):
        sys.modules.pop(name, None)


def test_the_shipped_weights_denoise_sixteen_frames(study):
    "They fit the network of the study, and their v-loss on new clips is far below 1, that of zeros."
    long = study("masks_long")
    model = long.model("masks").eval()
    load_weights(model, STUDIES.parent / "checkpoints/masks_long.safetensors")
    with torch.no_grad():
        loss = model.loss(long.drifting_leaf(6, 16, generator=seeded(3)), seeded(4))
    assert loss < 0.2


def test_the_rate_follows_the_clock(study):
    factor = study("masks_long").factor
    rise, hold, fall = [0.0, 0.01, 0.03], [0.05, 0.2, 0.4], [0.5, 0.7, 0.9, 1.0]
    assert all(factor(a) < factor(b) for a, b in zip(rise, rise[1:]))
    assert [factor(share) for share in hold] == pytest.approx([1, 1, 1])
    assert all(factor(a) > factor(b) for a, b in zip(fall, fall[1:]))
    assert factor(1.0) == pytest.approx(0, abs=1e-9) and factor(0.7) == pytest.approx(0.5)


def test_conditioning_by_concatenation_shows_the_network_three_things(study):
    "Noisy frames, known frames, the mask, each in its channel; known frames come out as given."
    seen = []

    def net(x, t, y):
        seen.append((x, t))
        return x + 5

    x_t = torch.randn(2, 5, 1, 4, 4, generator=seeded(0))
    t = torch.tensor([[0, 0, 0.6, 0.6, 0.6], [0.3, 0.3, 0.3, 0.3, 0]])
    out = study("masks_more").Concat(net, PATH).denoise(x_t, t)
    known = (t == 0)[:, :, None, None, None]
    ((x, told),) = seen
    assert torch.equal(told, torch.tensor([0.6, 0.3]))
    assert torch.equal(x[:, :, :1] + x[:, :, 1:2], x_t)
    assert not x[:, :, :1][known.expand_as(x_t)].any() and x[:, :, 2:].eq(known).all()
    assert torch.equal(out, torch.where(known, x_t, x[:, :, :1] + 5))


def rows_of(*values, half=0.1):
    "Rows of trainings 0, 1, ...; each interval over test clips is ± `half` of its value."
    row = lambda j, v: dict(seed=str(j), value=v, low=v * (1 - half), high=v * (1 + half))
    return [row(j, v) for j, v in enumerate(values)]


def test_intervals_cover_trainings_and_test_clips(study):
    "By hand: for three values Student's factor is 4.303; both halves add in squares; one training has clips only"
    read = study("masks_read")
    assert read.told(rows_of(2.0)) == "2.0000 ± 0.2000" and read.told([]) == "-"
    half = math.hypot(4.303 * 1.0 / 3**0.5, 0.1 * 2.0)  # of 1, 2, 3: the deviation is 1
    assert read.told(rows_of(1.0, 2.0, 3.0), 2) == f"2.00 ± {half:.2f}"


def test_factors_are_taken_seed_by_seed(study):
    "Errors that differ by 4 in each training have no spread over trainings; a guess counts for all seeds"
    read = study("masks_read")
    apart = math.exp(math.hypot(0.1, 0.1))
    want = f"4.00 ({4 / apart:.2f} to {4 * apart:.2f})"
    assert read.factor_told(rows_of(4.0, 8.0, 80.0), rows_of(1.0, 2.0, 20.0)) == want
    assert read.factor_told(rows_of(4.0), rows_of(1.0, 1.0, 1.0)) == want
    assert read.factor_told([], rows_of(1.0)) == read.factor_told(rows_of(1.0), []) == "-"


# ---------------------------------------------------------------- what this page and the next one say


@pytest.mark.parametrize(
    ("page", "quoted"),
    [
        ("13_masks", set()),
        ("appendix/masks_arms", {"20.84 ± 0.08", "21.71 ± 0.21"}),
        ("14_residual", set()),
    ],
)
def test_every_interval_in_the_text_stands_in_an_output(page, quoted):
    """21.5 (9.5 to 49.0) or 0.0064 ± 0.0050: text whose table has changed is found. A paragraph that
    links an appendix may take its numbers from there. `quoted`: the paper's."""
    nbs, number, seen = STUDIES.parent, r"\d*\.?\d+", 0
    cells_of = lambda p: json.loads((nbs / f"{p}.ipynb").read_text(encoding="utf-8"))["cells"]
    printed_on = lambda p: "\n".join(
        "".join(o.get("text", "")) for c in cells_of(p) for o in c.get("outputs", [])
    )
    own = printed_on(page)
    text = "\n\n".join("".join(c["source"]) for c in cells_of(page) if c["cell_type"] == "markdown")
    for part in text.split("\n\n"):
        linked = set(re.findall(r"\((appendix/\w+)\.ipynb", part))
        said = re.findall(rf"{number} \({number} to {number}\)|\d*\.\d+ ± \d*\.\d+", part)
        printed, seen = own + "".join(map(printed_on, linked)), seen + len(said)
        assert [v for v in said if v not in printed and v not in quoted] == [], part
    assert seen
