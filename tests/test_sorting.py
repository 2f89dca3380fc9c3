"""The sorting network and `sort_members` against numpy, torch and the zero-one principle."""

import itertools

import numpy as np
import pytest
import torch

from vidiffedu import sorting
from vidiffedu.core import seeded
from vidiffedu.kernels import plain
from vidiffedu.sorting import batcher_rounds, sort_by_network, sort_members


@pytest.mark.parametrize("s", range(1, 14))
def test_it_sorts_all_zeros_and_ones_and_so_everything(s):
    columns = np.array(list(itertools.product((0, 1), repeat=s)), np.uint8).T.copy()
    before = columns.copy()
    assert np.array_equal(sort_by_network(columns), np.sort(columns, 0))
    assert np.array_equal(columns, before)  # what is given is left alone


@pytest.mark.parametrize("s", [1, 2, 5, 31, 32, 33, 64, 65, 100, 257])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
def test_every_way_is_torchs_sort(s, kind):
    z = (torch.randn(s, 400, generator=seeded(s)) * 50 + 128).to(kind)
    before = z.clone()
    assert torch.equal(sort_members(z), z.sort(0).values)
    assert torch.equal(sort_members(z[:, ::3]), z[:, ::3].sort(0).values)  # not contiguous
    assert torch.equal(z, before)
    with plain():
        assert torch.equal(sort_members(z), z.sort(0).values)


def test_the_one_switch_turns_both_ways_off(monkeypatch):
    def refuse(*_):
        raise AssertionError("not plain")

    monkeypatch.setattr(sorting, "sort_by_network", refuse)
    monkeypatch.setattr(sorting.np, "sort", refuse)
    for s in (5, 100):
        z = torch.randn(s, 9, generator=seeded(s))
        with plain():
            assert torch.equal(sort_members(z), z.sort(0).values)
        with pytest.raises(AssertionError, match="not plain"):
            sort_members(z)


def test_the_rounds_are_merge_exchanges():
    for s in (2, 3, 16, 100):
        t = (s - 1).bit_length()
        assert len(list(batcher_rounds(s))) == t * (t + 1) // 2  # Knuth, 5.2.2, exercise 10


@pytest.mark.parametrize("s", [10, 100])
def test_a_nan_is_never_lost(s):
    z = torch.randn(s, 50, generator=seeded(0))
    z[3, 7] = torch.nan
    found = sort_members(z).isnan().any(0)
    assert found.nonzero().tolist() == [[7]]


def test_gradients_go_through():
    z = torch.randn(5, 6, generator=seeded(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sort_members, z)
