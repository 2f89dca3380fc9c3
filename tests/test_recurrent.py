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
