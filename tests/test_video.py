"""VideoFolder: the right frames from every format, and broken files named and skipped.

Expected frames are those that were written; a slip of one frame would cost many times what a lossy
format costs."""

import warnings

import av
import pytest
import torch
import torch.nn.functional as F
from einops import repeat
from torch.utils.data import DataLoader

from vidiffedu.core import check_video, complaint, seeded, to_uint8
from vidiffedu.data import moving_leaves
from vidiffedu.player import save_clip
from vidiffedu.video import VideoFolder


def write(path, clip, codec, fmt="yuv420p", fps=8, options=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = clip.shape[-2:]
        stream.pix_fmt, stream.bit_rate = fmt, 4_000_000
        for frame in repeat(to_uint8(clip), "f 1 h w -> f h w 3").contiguous().numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def film():
    return moving_leaves(1, 40, 32, disks=(9, 9), speed=(0.3, 1), generator=seeded(11))[0]


@pytest.fixture
def root(tmp_path, film):
    "The film in five formats: 40 frames each."
    save_clip(tmp_path / "a.mp4", film, scale=1)
    save_clip(tmp_path / "b.gif", film, scale=1)
    write(tmp_path / "deep" / "er" / "c.avi", film, "mpeg4")
    write(tmp_path / "deep" / "d.AVI", film, "mjpeg", "yuvj420p")
    for k in range(40):
        save_clip(tmp_path / "e" / f"frame{k}.png", film[k : k + 1], scale=1)
    (tmp_path / "notes.txt").write_text("not a video, and not called one")
    return tmp_path


def opened(*args, **how):
    "A folder and what it warned of."
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        clips = VideoFolder(*args, **how)
    return clips, [str(w.message) for w in said]


def test_every_format_gives_its_frames_in_order(root, film):
    clips, said = opened(root, 8, 32, channels=1)
    assert not said
    names = [path.name for path, _, _ in clips.clips]
    assert names == [n for n in ("a.mp4", "b.gif", "d.AVI", "c.avi", "e") for _ in range(5)]
    assert [first for _, _, first in clips.clips] == [0, 8, 16, 24, 32] * 5
    late = (film[1:9] - film[:8]).square().mean()  # what an error of one frame would cost
    for i, (path, _, first) in enumerate(clips.clips):
        error = (clips[i] - film[first : first + 8]).square().mean()
        assert error < (1e-4 if path.name in ("b.gif", "e") else late / 4), (path, first)


@pytest.mark.parametrize("name", ["a.mp4", "b.gif", "e"])
def test_stride_and_hop_count_frames(root, film, name):
    clips = VideoFolder(root, 4, 32, stride=3, hop=2, channels=1)
    mine = [i for i, (path, _, _) in enumerate(clips.clips) if path.name == name]
    assert len(mine) == (40 - 10) // 2 + 1  # a clip spans 10 frames
    late = (film[1:9] - film[:8]).square().mean()
    for k in (0, 1, 7, 15):
        wanted = film[2 * k : 2 * k + 10 : 3]
        assert (clips[mine[k]] - wanted).square().mean() < late / 4


def test_the_root_may_be_a_folder_of_pictures_and_frames_are_shrunk(root, film):
    clips = VideoFolder(root / "e", 4, 16)
    assert clips[0].shape == (4, 3, 16, 16) and clips[0].abs().max() <= 1
    assert (clips[0] - F.avg_pool2d(film[:4], 2)).square().mean() < 0.02
    assert (clips[0][:, 0] == clips[0][:, 1]).all()  # a grey film has three equal channels


@pytest.mark.parametrize("tall", [False, True])
def test_what_does_not_fit_the_square_is_cut_off_at_both_sides(tmp_path, tall):
    red = torch.cat([torch.ones(1, 1, 20, 40), -torch.ones(1, 2, 20, 40)], 1)
    red[..., :10] = red[..., 30:] = -1  # black at both sides, which the crop removes
    save_clip(tmp_path / "0.png", red.mT if tall else red, scale=1)
    torch.testing.assert_close(VideoFolder(tmp_path, 1, 20)[0], red[..., 10:30])
    torch.testing.assert_close(VideoFolder(tmp_path, 1, 10)[0][..., 2:8, 2:8], red[..., :6, 12:18])


@pytest.mark.parametrize("colour, weight", [(0, 0.299), (1, 0.587), (2, 0.114)])
def test_grey_is_the_luma_of_bt601(tmp_path, colour, weight):
    pure = -torch.ones(1, 3, 8, 8)
    pure[:, colour] = 1
    save_clip(tmp_path / "0.png", pure, scale=1)
    grey = VideoFolder(tmp_path, 1, 8, channels=1)[0]
    torch.testing.assert_close(grey, torch.full((1, 1, 8, 8), 2 * weight - 1), atol=2e-3, rtol=0.0)


def test_workers_read_the_same_clips(root):
    clips = VideoFolder(root, 8, 32, channels=1)
    here, there = (torch.cat(list(DataLoader(clips, 5, num_workers=k))) for k in (0, 2))
    assert torch.equal(here, there) and here.shape == (25, 8, 1, 32, 32)
    check_video(here, range=(-1, 1))


def test_pictures_come_in_natural_order(tmp_path):
    for k, name in enumerate(("p2.png", "p10.png", "p9.png")):
        save_clip(tmp_path / name, torch.full((1, 1, 8, 8), k / 2 - 0.5), scale=1)
    shades = VideoFolder(tmp_path, 3, 8, channels=1)[0].mean((1, 2, 3))
    assert shades.argsort().tolist() == [0, 2, 1]  # 2, 9, 10


def test_broken_files_are_named_once_and_skipped(root, film):
    whole, broken = (root / "a.mp4").read_bytes(), root / "broken"
    broken.mkdir()
    (broken / "empty.mp4").write_bytes(b"")
    (broken / "text.mp4").write_text("this is not a video")
    (broken / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "pictures").mkdir()
    (root / "pictures" / "0.png").write_bytes(b"no picture")
    save_clip(broken / "short.gif", film[:3], scale=1)
    clips, said = opened(root, 8, 32, channels=1)
    assert len(clips) == 25 and len(said) == 5
    for name in ("empty.mp4", "text.mp4", "half.mp4", "short.gif", "pictures"):
        line = [s for s in said if f"{name}: " in s]
        assert len(line) == 1 and "\n" not in line[0] and line[0].startswith("skipped ")
    assert "3 frames, a clip needs 8" in " ".join(said)


def test_a_file_that_breaks_later_is_named_and_the_next_clip_stands_in(root):
    clips = VideoFolder(root, 8, 32, channels=1)
    (root / "b.gif").write_bytes(b"GIF89a, gone bad after the scan")
    with pytest.warns(UserWarning, match="b.gif"):
        stand_in = clips[9]  # the last clip of b.gif: the next is the first of the following file
    assert torch.equal(stand_in, clips[10])


def test_when_nothing_can_be_read_any_more_that_is_said(tmp_path, film):
    save_clip(tmp_path / "b.gif", film[:9], scale=1)
    clips = VideoFolder(tmp_path, 8, 32)
    (tmp_path / "b.gif").unlink()
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="clips: got 1 that cannot"):
        clips[0]


def test_folders_without_films_are_refused(root):
    (root / "nothing").mkdir()
    assert "expected a folder" in complaint(VideoFolder, root / "nowhere", 8, 32)
    assert "expected a folder" in complaint(VideoFolder, root / "notes.txt", 8, 32)
    assert "readable video of 8 frames" in complaint(VideoFolder, root / "nothing", 8, 32)


@pytest.mark.parametrize(
    "how",
    [
        dict(channels=4),
        dict(channels=2.5),
        dict(frames=0),
        dict(frames=2.0),
        dict(size=-1),
        dict(size=True),
        dict(stride=0),
        dict(hop=0),
    ],
    ids=str,
)
def test_wrong_arguments_get_one_line(tmp_path, how):
    line = complaint(VideoFolder, **{**dict(root=tmp_path, frames=8, size=32), **how})
    name = next(iter(how))
    assert line.startswith(f"{name}: got {how[name]!r}, expected ")


@pytest.mark.parametrize("index", [25, -26])
def test_an_index_out_of_range_is_an_index_error(root, index):
    with pytest.raises(IndexError, match=f"index: got {index}"):
        VideoFolder(root, 8, 32)[index]
    assert torch.equal(VideoFolder(root, 8, 32)[-1], VideoFolder(root, 8, 32)[24])
