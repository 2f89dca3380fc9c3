"""What the documentation says of an argument is checked: one line, or a word of warning, and never another result."""

import math
import warnings

import numpy as np
import pytest
import torch

from vidiffedu.core import complaint, seeded
from vidiffedu.data import Leaves, draw_leaves, probe_leaves, scatter_leaves, turning_leaf
from vidiffedu.intervals import bootstrap_interval, mean_interval, paired_interval
from vidiffedu.likeness import (
    feature_distance,
    frechet_distance,
)
from vidiffedu.oracle import GaussianClips, Mixture
from vidiffedu.player import play, save_clip
from vidiffedu.vortex import Lattice, VortexStreet, vortex_clips


def clips(*shape, seed=0):
    return torch.rand(*shape, generator=seeded(seed)) * 2 - 1


# worlds


def one_disk(radius, grey=1.0, ground=-1.0):
    d = len(radius)
    at = torch.tensor([[[4.0, 4.0] if r > 0 else [0.0, 0.0] for r in radius]])
    greys = torch.full((1, d), grey)
    return Leaves(at, 0 * at, torch.tensor([radius]), greys, torch.tensor([ground]))


def test_a_negative_radius_is_no_disk_wherever_it_stands():
    alone = draw_leaves(one_disk([3.0]), 1, 9)
    for radius in ([-1.0, 3.0], [3.0, -1.0], [-0.2, 3.0], [-1.0, -0.1, 3.0]):
        assert torch.equal(draw_leaves(one_disk(radius), 1, 9), alone), radius
    assert (draw_leaves(one_disk([-0.3]), 1, 9) == -1).all()


def test_a_probability_may_not_be_missing_where_it_is_needed():
    for world in (probe_leaves, turning_leaf):
        assert complaint(world, 2, q=None).startswith("q: got None")
    assert len(scatter_leaves(2, 3, 16, q=None).radius) == 2  # there it is a random order


# flows


@pytest.mark.parametrize(
    "how, word",
    [
        (dict(centre=(500.0, 32.0)), "centre[0]: got 500"),
        (dict(centre=(32.0, 2.0)), "centre[1]: got 2"),
        (dict(centre=(3.0, 32.0)), "centre[0]: got 3"),
        (dict(size=(64, 14)), "centre[0]: got"),  # too narrow for the post
        (dict(gust=5.0), "gust: got 5"),
        (dict(gust=math.nan), "gust: got nan"),
    ],
)
def test_the_post_stands_in_its_box_and_the_wind_is_a_wind(how, word):
    assert complaint(VortexStreet, **how).startswith(word)


def test_the_shade_of_vorticity_is_asked_for_before_the_flow_is_computed():
    assert complaint(vortex_clips, 60.0, 1, 1, warm=10**9, span=0.0).startswith("span: got 0")
    street = VortexStreet(50.0, (16, 32), 4.0)
    assert complaint(street.vorticity, -1.0).startswith("span: got -1")


def test_the_parts_of_a_lattice_fit():
    solid, tau = torch.zeros(6, 8, dtype=torch.bool), torch.tensor([0.6, 0.8])
    Lattice(solid, tau, torch.zeros(2, 2, 6, 8), torch.zeros(6))
    for name, how in (
        ("solid", dict(solid=solid.float())),
        ("solid", dict(solid=solid[0])),
        ("tau", dict(tau=torch.tensor([0.5, 0.8]))),
        ("tau", dict(tau=torch.tensor(0.8))),
        ("start", dict(start=torch.zeros(1, 2, 6, 8))),
        ("inflow", dict(inflow=torch.zeros(8))),
    ):
        assert complaint(Lattice, **{**dict(solid=solid, tau=tau), **how}).startswith(
            f"{name}: got"
        )


# masked arrays


def test_a_mask_is_not_dropped():
    hidden = np.ma.masked_equal(np.array([1.0, 2.0, -9999.0, 4.0]), -9999)
    plain = np.array([1.0, 2.0, 3.0, 4.0])
    for found in (
        complaint(mean_interval, hidden),
        complaint(paired_interval, plain, hidden),
        complaint(bootstrap_interval, hidden, np.mean),
        complaint(frechet_distance, hidden, np.eye(4), plain, np.eye(4)),
        complaint(frechet_distance, plain, np.eye(4), plain, np.ma.masked_equal(np.eye(4), 0)),
    ):
        assert "got a masked array, expected no masked values" in found
    unmasked = np.ma.array(plain, mask=False)
    assert float(mean_interval(unmasked)[0]) == 2.5
    assert "got a masked array" in complaint(
        feature_distance, np.eye(5), np.ma.masked_equal(np.eye(5), 0)
    )


# exact worlds


@pytest.mark.parametrize("world", [Mixture(clips(3, 4, 1, 2, 2), std=0.3), GaussianClips(4, 1, 2)])
def test_nothing_is_broadcast_into_an_exact_world(world):
    "A past or a clip of 1 x 1 pixels would be stretched over the world's 2 x 2 and give a law."
    small, past, x = clips(2, 2, 1, 1, 1), clips(2, 3, 1, 2, 2), clips(2, 1, 1, 2, 2)
    assert complaint(world.next_frame, small).startswith("past: got shape (2, 2, 1, 1, 1)")
    assert complaint(world.next_frame, clips(2, 4, 1, 2, 2)).startswith("past: got shape")
    assert complaint(world.log_prob, small).startswith("x: got shape")
    assert complaint(world.denoise_sigma, small[:, :1], past, 0.5).startswith("x_noisy: got shape")
    sigmas = torch.tensor([0.1, 1.0])
    assert complaint(world.sigma_posterior, small[:, :1], past, sigmas).startswith("x_noisy: got")
    assert world.sigma_posterior(x, past, sigmas).shape == (2, 2)


def test_weights_are_weights():
    means = clips(2, 1, 1, 2, 2)
    assert complaint(Mixture, means, torch.zeros(2)).startswith("weights, std: got")
    assert complaint(Mixture, means, torch.tensor([1.0, math.nan])).startswith("weights, std: got")


# players


def test_pixels_of_another_scale_are_not_shown_without_a_word(tmp_path):
    x = clips(3, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play([1.5 * x, x])
    for show in (lambda: play((x + 1) * 127.5), lambda: save_clip(tmp_path / "a.png", [127 * x])):
        with pytest.warns(UserWarning, match=r"clips: got values up to .*, expected \[-1, 1\]"):
            show()


def test_no_more_frames_are_given_than_there_are():
    assert complaint(play, clips(3, 1, 8, 8), past=4).startswith("past: got 4")
    play(clips(3, 1, 8, 8), past=3)
