"""A full disk: one line that says so, nothing half-written, and what was there before is still there.

Where the system has RLIMIT_FSIZE, files really cannot grow beyond a limit; the error is then "File too large"
in place of "No space left on device". It comes from the same calls."""

import contextlib
import os
import time

import numpy as np
import pytest
import torch
from torch import nn

from vidiffedu.core import complaint
from vidiffedu.player import save_clip
from vidiffedu.safety import read_tensors, whole_file
from vidiffedu.train import fit, load_weights, save_weights
from vidiffedu.video import CachedClips, VideoFolder

resource = pytest.importorskip("resource")


@contextlib.contextmanager
def full_disk(size=2000):
    "No file grows beyond `size` bytes."
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(1, 64, 3, padding=1)

    def loss(self, clip, generator=None):
        return self.net(clip[:, 0]).square().mean()


def left_in(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_weights(tmp_path):
    one, two = Net(), Net()
    save_weights(one, tmp_path / "w")
    with full_disk():
        line = complaint(save_weights, two, tmp_path / "w")
    assert line.startswith("path: got") and "expected a file that can be written" in line
    assert left_in(tmp_path) == ["w"]
    assert torch.equal(load_weights(two, tmp_path / "w").net.weight, one.net.weight)


def test_a_checkpoint_and_the_run_that_goes_on(tmp_path):
    "The disk is full at step 6 of 9: the checkpoint of step 3 is whole, and the run can be resumed."
    clips = torch.rand(8, 2, 1, 8, 8)
    how = dict(steps=9, every=3, seed=1, threads=1, progress=False)
    torch.manual_seed(0)
    start = Net().state_dict()
    model, stack = Net(), contextlib.ExitStack()
    model.load_state_dict(start)

    def fill(step, loss):
        if step == 4:  # files are written beside the steps: step 3's are complete first
            while not (tmp_path / "run" / "weights.safetensors").exists():
                time.sleep(0.01)
            stack.enter_context(full_disk())

    with stack:
        line = complaint(fit, model, clips, out=tmp_path / "run", on_step=fill, **how)
    assert "checkpoint.safetensors" in line and "expected a file that can be written" in line
    assert left_in(tmp_path / "run") == ["checkpoint.safetensors", "weights.safetensors"]
    assert len(read_tensors(tmp_path / "run" / "checkpoint.safetensors")[0]["losses"]) == 3
    resumed, alone = Net(), Net()
    fit(resumed, clips, out=tmp_path / "run", resume=True, **how)
    alone.load_state_dict(start)
    fit(alone, clips, **how)
    assert torch.equal(resumed.net.weight, alone.net.weight)


@pytest.fixture
def films(tmp_path):
    clip = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for k in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        save_clip(tmp_path / "in" / f"{k}.gif", clip[: 20 + 5 * k], scale=1)
    return tmp_path / "in"


def test_the_index_is_not_kept_and_films_are_read(tmp_path, films):
    with full_disk(), pytest.warns(UserWarning, match="index: .* is not kept"):
        clips = VideoFolder(films, 4, 8, index=tmp_path / "index.npz")
    assert len(clips) == 18 and left_in(tmp_path) == ["in"]


def test_kept_clips(tmp_path, films):
    clips = VideoFolder(films, 4, 16)
    few, many = clips.split(0.5)
    CachedClips(few, tmp_path / "kept.npy")
    before = (tmp_path / "kept.npy").read_bytes()
    with full_disk():
        line = complaint(CachedClips, many, tmp_path / "kept.npy")
    assert "kept.npy" in line and "expected a file that can be written" in line
    assert left_in(tmp_path) == ["in", "kept.npy"]
    assert (tmp_path / "kept.npy").read_bytes() == before
    assert np.load(tmp_path / "kept.npy").shape == (len(few), 4, 3, 16, 16)


@pytest.mark.parametrize("end", ["gif", "mp4", "png"])
def test_clips(tmp_path, end):
    clip = torch.rand(12, 1, 24, 24) * 2 - 1
    save_clip(tmp_path / f"a.{end}", clip)
    before = (tmp_path / f"a.{end}").read_bytes()
    with full_disk():
        line = complaint(save_clip, tmp_path / f"a.{end}", -clip)
    assert line.startswith("path: got") and left_in(tmp_path) == [f"a.{end}"]
    assert (tmp_path / f"a.{end}").read_bytes() == before


def test_tables_of_studies(tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "nbs" / "studies"))
    import record

    table = record.Table(tmp_path / "t.csv")
    table.put(dict(job=1), [dict(value=1.5)])
    before = (tmp_path / "t.csv").read_text()
    with full_disk():
        line = complaint(table.put, dict(job=2), [dict(value=float(k)) for k in range(900)])
    assert "t.csv" in line and left_in(tmp_path) == ["t.csv"]
    assert (tmp_path / "t.csv").read_text() == before


def test_the_error_of_a_real_disk(tmp_path):
    "/dev/full: every write there fails as on a disk without space."
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")

    def write():
        with whole_file(tmp_path / "a") as part:
            part.write_text("part")
            with open("/dev/full", "w") as file:
                file.write("x")

    assert "No space left on device" in complaint(write) and left_in(tmp_path) == []


def test_the_limit_does_stop_files(tmp_path):
    with full_disk(), pytest.raises(OSError, match="File too large"):
        (tmp_path / "x").write_bytes(bytes(5000))
    (tmp_path / "x").write_bytes(bytes(5000))
