"""The choice of threads: what is chosen, what is said, and that nothing else changes.

Work that sleeps longer with some number of threads stands for a busy machine: 30 ms against 1."""

import random
import time

import numpy as np
import pytest
import torch

from vidiffedu.core import complaint
from vidiffedu.threads import few_threads, pick_threads


@pytest.fixture(autouse=True, params=[2, 4])
def cores(request):
    "As if PyTorch had found so many cores; the setting is put back."
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def asleep(slow):
    return lambda: time.sleep(0.03 if torch.get_num_threads() in slow else 0.001)


def test_the_quicker_number_is_chosen(cores, capsys):
    assert pick_threads(asleep({2, 4})) == 1
    assert pick_threads(asleep({1})) == 2  # of equals the least
    assert pick_threads(asleep({1, 2} if cores == 4 else {1})) == cores
    assert torch.get_num_threads() == cores


def test_it_is_said_in_one_line(cores, capsys):
    pick_threads(asleep({2, 4}), name="solver")
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and line.startswith(f"solver: 1 of {cores} threads (")
    assert line.endswith(f" calls a second; threads={cores} overrules)\n")
    pick_threads(asleep({1} if cores == 2 else {1, 2}))
    line = capsys.readouterr().out
    assert line.startswith(f"fit: {cores} of {cores} threads (") and "threads=1 overrules" in line
    pick_threads(asleep({2, 4}), progress=False)
    assert capsys.readouterr().out == ""


def test_the_rates_that_are_said_are_calls_a_second(capsys, cores):
    pick_threads(lambda: time.sleep(0.05), progress=True)
    said = capsys.readouterr().out.split("(")[1].split(" calls")[0].split()
    assert all(10 < float(r) <= 20 for r in said if r[0].isdigit())  # never above 1 / 50 ms


def test_the_block_has_the_threads_and_afterwards_all_is_as_before(cores):
    with few_threads(asleep({2, 4}), progress=False) as n:
        assert n == torch.get_num_threads() == 1
    assert torch.get_num_threads() == cores
    with pytest.raises(ZeroDivisionError):
        with few_threads(asleep({2, 4}), progress=False):
            1 / 0
    assert torch.get_num_threads() == cores


def test_work_that_fails_is_heard_and_leaves_the_threads(cores):
    with pytest.raises(ZeroDivisionError):
        pick_threads(lambda: 1 / 0)
    assert torch.get_num_threads() == cores


def test_a_number_overrules_without_a_call(cores, capsys):
    with few_threads(lambda: 1 / 0, threads=3) as n:
        assert n == torch.get_num_threads() == 3
    assert torch.get_num_threads() == cores and capsys.readouterr().out == ""


@pytest.mark.parametrize("threads, device", [(1, "cpu"), (None, "cuda"), (None, "mps")])
def test_where_there_is_nothing_to_choose_nothing_is_called(threads, device, capsys):
    if threads:
        torch.set_num_threads(1)
    assert pick_threads(lambda: 1 / 0, device=device) == torch.get_num_threads()
    assert capsys.readouterr().out == ""


def test_random_numbers_are_those_without_a_measurement():
    def work():
        torch.rand(5), np.random.rand(3), random.random()

    def numbers():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()

    def seed():
        torch.manual_seed(0), np.random.seed(0), random.seed(0)

    seed()
    expected = numbers()
    seed()
    with few_threads(work, progress=False):
        assert numbers() == expected


def test_slow_work_is_called_once_for_each_number(cores):
    calls = []
    pick_threads(lambda: calls.append(torch.get_num_threads()), seconds=0.0, progress=False)
    assert set(calls) == {1, cores // 2, cores}
    slow = []
    work = lambda: time.sleep(0.05) or slow.append(torch.get_num_threads())
    pick_threads(work, seconds=0.0, progress=False)
    assert slow == sorted({1, cores // 2, cores})


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_wrong_threads_get_one_line(threads):
    for call in (pick_threads, lambda *a: few_threads(*a).__enter__()):
        line = complaint(call, lambda: None, threads)
        assert line.startswith(f"threads: got {threads!r}, expected a whole number")
