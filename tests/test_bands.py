"""Bands: your loss over earlier ones, and the usual faults planted, told apart."""

import math

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from vidiffedu import bands, bench
from vidiffedu.core import seeded
from vidiffedu.denoise import denoising_loss, v_weight
from vidiffedu.nets import JoinedUNet
from vidiffedu.oracle import GaussianClips
from vidiffedu.paths import VP
from vidiffedu.times import shared
from vidiffedu.train import fit

STEPS, EVERY = 200, 20


class Turned(VP):
    def a(self, t):
        return super().a(1 - t)

    def c(self, t):
        return super().c(1 - t)


class Small(nn.Module):
    "Next-frame diffusion of 8 x 8 pixels, with a fault."

    def __init__(self, fault=None):
        super().__init__()
        self.net, self.fault = JoinedUNet(3, width=4, mults=(1, 2), middle=0, embed=16), fault

    def loss(self, clip, generator=None):
        past, x = clip[:, :2], clip[:, 2:]
        past = torch.cat([past[:, :1], x], 1) if self.fault == "leak" else past
        t = shared(len(x), 1, generator=generator, device=x.device)
        path = Turned() if self.fault == "turned" else VP()
        how = dict(y=past[:, -1:], weight=v_weight(VP(), floor=0.1), generator=generator)
        return denoising_loss(lambda x_t, t, y: self.net(x_t, t, past), path, x, t, **how)


@pytest.fixture(scope="module")
def clips():
    law = GaussianClips(3, size=8, rho=0.9, std=0.25, length=2.0)
    return law.sample(1024, seeded(5)).float().clamp(-1, 1)


def losses(clips, fault=None, lr=1e-2, seed=0):
    torch.manual_seed(seed)
    how = dict(batch_size=32, warmup=20, threads=1, progress=False, seed=seed, lr=lr)
    return fit(Small(fault), clips, STEPS, **how).losses


@pytest.fixture(scope="module")
def band(clips):
    each = torch.stack([losses(clips, seed=s) for s in (1, 2, 3)]).double()
    each = each.unfold(1, EVERY, EVERY).mean(2)
    ends = torch.arange(EVERY, STEPS + 1, EVERY).double()
    return bands.Band(ends, each.amin(0), each.amax(0))


@pytest.mark.parametrize(
    "how, words",
    [
        (dict(), "as it should be"),
        (dict(lr=0.4), "The learning rate is too high"),
        (dict(fault="turned"), "Does time run one way"),
        (dict(fault="leak"), "Does the target leak"),
    ],
    ids=["right", "rate", "turned", "leak"],
)
def test_a_planted_fault_is_named_and_a_right_run_is_not(how, words, clips, band):
    assert words in bands.diagnose(losses(clips, **how), band)


def flat(level=1.0, n=10, width=1.05):
    step = 10.0 * torch.arange(1, n + 1).double()
    return bands.Band(
        step, torch.full_like(step, level / width), torch.full_like(step, level * width)
    )


def test_factor_and_width_by_hand():
    factor, width = bands.off_band(torch.full((100,), 3.0), flat(2.0))
    assert factor == pytest.approx(1.5) and width == pytest.approx(1.05)
    step, mine = bands.windowed(torch.arange(1.0, 26.0), flat())
    assert step.tolist() == [10, 20] and mine.tolist() == [5.5, 15.5]


def test_no_number_and_too_few_steps():
    bad = torch.ones(60)
    bad[41] = math.nan
    assert bands.diagnose(bad, flat()).startswith("Step 42: the loss is no number")
    assert bands.diagnose(torch.ones(39), flat()).startswith("39 steps: too few")
    assert "as it should be" in bands.diagnose(torch.ones(40), flat())


def test_every_study_has_a_band_and_its_own_middle_lies_in_it():
    for study, want in {
        "bridge_steps_curve": dict(world="leaf", arm="vp_estimate"),
        "vector_times_curve": dict(arm="x0.2"),
        "whole_clips_curve": dict(arm="masks"),
        "residual_scale_curve": dict(arm="rvd"),
        "score_curve": {},
    }.items():
        band = bands.band_of(study, **want)
        assert (band.low <= band.high).all() and (band.step.diff() > 0).all()
        window = int(band.step[0])
        middle = (band.low * band.high).sqrt().repeat_interleave(window)
        assert "as it should be" in bands.diagnose(middle, band), study
    with pytest.raises(ValueError, match="^band: got arm moon, expected what studies/vector_times"):
        bands.band_of("vector_times_curve", arm="moon")


def test_the_figure_has_the_band_and_the_run(capsys):
    band = bench.loss_band("vd", "turn")
    ax = bands.show_loss((band.low * band.high).sqrt().repeat_interleave(16), band)
    assert len(ax.collections) == 1 and len(ax.lines) == 1
    assert capsys.readouterr().out.startswith("Your loss is ")
    plt.close("all")
