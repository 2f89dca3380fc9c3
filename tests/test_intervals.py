"""The intervals against their definitions: roots, exact coverage, Student's law, limits."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vidiffedu.core import complaint, seeded
from vidiffedu.intervals import bootstrap_interval, mean_interval, paired_interval, wilson


@pytest.mark.parametrize("k, n", [(0, 9), (3, 9), (9, 9), (1, 1000), (512, 700)])
@pytest.mark.parametrize("z", [1.0, 1.96, 3.0])
def test_wilsons_ends_lie_z_deviations_from_the_count(k, n, z):
    low, high = wilson(k, n, z)
    assert 0 <= low <= k / n <= high <= 1
    for p in (low, high):
        if 0 < p < 1:
            deviation = abs(k - n * p) / math.sqrt(n * p * (1 - p))
            assert abs(deviation - z) < 1e-9
    assert np.allclose(wilson(n - k, n, z), (1 - high, 1 - low), rtol=0, atol=1e-12)


def test_wilson_covers_95_of_100_on_average():
    n, ps = 60, np.linspace(0.01, 0.99, 99)
    ends = [wilson(k, n) for k in range(n + 1)]
    pmf = lambda p: [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    covers = [sum(w for w, (a, b) in zip(pmf(p), ends) if a <= p <= b) for p in ps]
    assert abs(np.mean(covers) - 0.95) < 0.008 and min(covers) > 0.85


def student_4(z):
    "P(|T| <= z) for Student's t with four degrees of freedom: the density integrated."
    t = np.linspace(-z, z, 200_001)
    density = 0.375 * (1 + t**2 / 4) ** -2.5
    return float(np.trapezoid(density, t) if hasattr(np, "trapezoid") else np.trapz(density, t))


@pytest.mark.parametrize("z", [1.0, 1.96])
def test_a_mean_of_five_covers_as_students_law_says(z):
    x = 3 + 2 * torch.randn(5, 20_000, generator=seeded(1))
    mean, low, high = mean_interval(x, z)
    assert mean.shape == low.shape == high.shape == (20_000,)
    p, held = student_4(z), ((low <= 3) & (3 <= high)).double().mean()
    assert abs(float(held) - p) < 5 * (p * (1 - p) / 20_000) ** 0.5


def test_a_mean_by_hand_and_from_every_library():
    want = (2.0, 2 - 1.96 / 3**0.5, 2 + 1.96 / 3**0.5)  # 1, 2, 3: standard deviation 1
    for values in ([1, 2, 3], np.array([1.0, 2, 3]), torch.tensor([1, 2, 3]), torch.arange(1.0, 4)):
        assert np.allclose([float(v) for v in mean_interval(values)], want, atol=1e-6)


def test_pairs_forget_what_both_share():
    shared, e = torch.randn(2, 50, generator=seeded(2), dtype=torch.float64)
    mean, low, high = paired_interval(100 * shared + e, 100 * shared)
    assert_close(torch.stack([mean, low, high]), torch.stack(mean_interval(e)))
    swapped = paired_interval(100 * shared, 100 * shared + e)
    assert_close(torch.stack(swapped), -torch.stack([mean, high, low]))


def test_the_bootstrap_of_a_mean_is_the_normal_interval():
    x = torch.randn(400, generator=seeded(3), dtype=torch.float64)
    mean, low, high = (float(v) for v in mean_interval(x, z=1.0))
    level = math.erf(0.5**0.5)  # one standard deviation on either side
    found = bootstrap_interval(x, torch.mean, draws=4000, level=level, generator=seeded(4))
    assert abs(found[0] - mean) < 1e-12
    assert abs(found[1] - low) < 0.1 * (mean - low) and abs(found[2] - high) < 0.1 * (high - mean)


def test_the_bootstrap_keeps_pairs_together():
    x = 1 + torch.rand(30, generator=seeded(5))
    ratio = lambda v: v[:, 0].mean() / v[:, 1].mean()
    found = bootstrap_interval(torch.stack([2 * x, x], 1), ratio, draws=50, generator=seeded(6))
    assert np.allclose(found, 2, atol=1e-5)  # 2 for every clip: no uncertainty at all


def test_one_line_says_what_is_wrong():
    assert "k: got 5" in complaint(wilson, 5, 4) and "k: got" in complaint(wilson, 1.5, 4)
    assert "n: got 0" in complaint(wilson, 0, 0)
    for bad in ([1.0], torch.ones(1, 5), 3.0, torch.zeros(0, 2)):
        assert "values: got shape" in complaint(mean_interval, bad)
    assert "b: got NaN" in complaint(paired_interval, [1.0, 2.0], [1.0, math.inf])
    assert "b: got shape (3, 1)" in complaint(paired_interval, torch.ones(3), torch.ones(3, 1))
    for bad in (0, 2.0, True):
        assert "draws: got" in complaint(bootstrap_interval, [1.0, 2.0], torch.mean, draws=bad)
    for bad in (0, 1, 95, math.nan):
        assert "level: got" in complaint(bootstrap_interval, [1.0, 2.0], torch.mean, level=bad)
