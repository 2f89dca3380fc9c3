"Clips as pages and files, and the one line for whoever looks for them where they were."

import os

import pytest
import torch
from PIL import Image

from vidiffedu.core import complaint, from_uint8, seeded
from vidiffedu.player import play, save_clip


@pytest.mark.parametrize("name", ["play", "Player", "save_clip"])
def test_a_name_that_moved_says_where_it_went(name):
    def old_import():
        exec(f"from vidiffedu.core import {name}")

    line = f"{name}: moved from vidiffedu.core to vidiffedu.player"
    assert complaint(old_import) == line
    import vidiffedu.core

    assert not hasattr(vidiffedu.core, "no_such_name")
    with pytest.raises(ImportError, match="no_such_name"):
        exec("from vidiffedu.core import no_such_name")


def test_a_gif_holds_every_byte_of_several_clips(tmp_path):
    shape = (2, 3, 1, 6, 5)
    pixels = torch.randint(0, 256, shape, generator=seeded(0), dtype=torch.uint8)
    path = save_clip(tmp_path / "two.gif", from_uint8(pixels), scale=1, fps=5)
    with Image.open(path) as gif:
        assert gif.n_frames == 3
        for k in range(3):
            gif.seek(k)
            frame = torch.tensor(list(gif.convert("L").tobytes())).view(6, 5 + 1 + 5)
            assert torch.equal(frame[:, :5], pixels[0, k, 0].long())
            assert torch.equal(frame[:, 6:], pixels[1, k, 0].long())
            assert (frame[:, 5] == 255).all()  # a white line between


def test_home_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    path = save_clip("~/clips/a.png", torch.zeros(2, 1, 4, 4))
    assert path == tmp_path / "home/clips/a.png" and path.is_file()
    assert os.listdir(tmp_path) == ["home"]


@pytest.mark.parametrize(
    "wrong",
    [
        dict(fps=0),
        dict(fps="fast"),
        dict(scale=0),
        dict(scale=1.5),
        dict(past=-1),
        dict(labels=["one"]),
        dict(clips=torch.zeros(2, 1, 2, 4, 4)),
        dict(clips=torch.zeros(4, 4)),
        dict(clips=torch.full((2, 1, 4, 4), torch.nan)),
        dict(clips=[torch.zeros(2, 1, 4, 4), torch.zeros(3, 1, 4, 4)]),
        dict(clips=[]),
    ],
)
def test_bad_input_costs_one_line(wrong):
    (name,) = wrong
    line = complaint(play, **({"clips": torch.zeros(2, 2, 1, 4, 4)} | wrong))
    assert line.startswith(f"{name}: got")
    assert ", expected " in line
