"The recurrent networks of the residual chapter: sizes of the paper, and a state that carries all that the past says."

import pytest
import torch
from torch.testing import assert_close

from vidiffedu.recurrent import rvd_networks


def test_frames_ahead_in_one_call_or_in_several():
    "The past in pieces: the same forecast, the same state"
    torch.manual_seed(0)
    f = rvd_networks(width=8, patch=1)[0].eval()
    clips = torch.rand(2, 4, 1, 8, 8) * 2 - 1
    whole, state = f(clips)
    _, piece = f(clips[:, :1])
    _, piece = f(clips[:, 1:3], piece)
    part, piece = f(clips[:, 3:], piece)
    assert_close(part, whole)
    for a, b in zip(sum(state, []), sum(piece, [])):
        assert_close(a, b)


CONTEXT = {64: (1, 2, 4, 8), 128: (1, 1, 2, 2, 4, 4)}  # [yang2022rvd, table 3]
FORECAST = {64: (1, 2, 2, 4), 128: (1, 2, 3, 4)}


@pytest.mark.parametrize("size, width", [(64, 48), (128, 64)])
def test_paper_sizes(size, width):
    with torch.device("meta"):
        forecaster, net = rvd_networks(size, channels=3)
    assert net.out[0].conv.out_channels == forecaster.out.in_channels == width
    context = [g.candidate.in_channels for g in forecaster.context.gru]
    read = [g.candidate.in_channels for g in forecaster.read.gru]
    assert context == [width * m for m in CONTEXT[size]]
    assert read == [width * m for m in FORECAST[size]]


def test_the_papers_networks_count_time_in_1600_steps():
    "One step of 1600 turns the fastest wave of the time by one radian."
    with torch.device("meta"):
        nets = [rvd_networks(size)[1] for size in ("laptop", 64, 128)]
    assert [net.time_scale / 1600 for net in nets] == [1000 / 1600, 1, 1]


@pytest.mark.parametrize("clamp", [1.0, 0.5])
def test_a_forecast_stays_in_range(clamp):
    "However large the network's answer is, in both ways of asking."
    from vidiffedu.recurrent import Forecaster

    torch.manual_seed(0)
    f, clip = (
        Forecaster(width=8, mults=(1,), context=(1,), clamp=clamp).eval(),
        torch.zeros(1, 3, 1, 4, 4),
    )
    for level in (-7.0, 0.25, 7.0):
        torch.nn.init.zeros_(f.out.weight)
        torch.nn.init.constant_(f.out.bias, level)
        want = torch.full((1, 1, 1, 4, 4), max(-clamp, min(level, clamp)))
        assert_close(f(clip)[0], want)
        assert_close(f.teach(clip, 2)[0], want)
