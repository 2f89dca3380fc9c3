"What every page asks first: is this video, is this a count, is this finite; and times that meet clips."

import math

import numpy as np
import pytest
import torch
from pretend_device import pretend_device

from vidiffedu.core import (
    check_finite,
    check_video,
    check_whole,
    complaint,
    expand,
    from_uint8,
    moved,
    seeded,
    show_frames,
    to_uint8,
)

clip = torch.zeros(2, 3, 1, 4, 5)


def lined(kind, call, *args, **named):
    "The one line of an error of exactly this kind, in the form that all errors have."
    text = complaint(call, *args, **named)
    with pytest.raises(kind):
        call(*args, **named)
    assert ": got " in text and ", expected " in text, text
    return text


@pytest.mark.parametrize("n", [1, 7, np.int64(3), np.uint8(1), None])
def test_counts(n):
    check_whole(n=n)
    check_whole(2, n=2, m=n and 5)


@pytest.mark.parametrize("n", [True, False, 1.0, 2.5, "3", torch.tensor(3), math.nan, [1]])
def test_what_is_no_count(n):
    assert lined(TypeError, check_whole, frames=n).startswith("frames: got ")
    lined(TypeError, check_whole, 0, good=1, frames=n)


def test_counts_that_are_too_small():
    check_whole(0, n=0)
    assert lined(ValueError, check_whole, n=0) == (
        "n: got 0, expected a whole number of at least 1"
    )
    lined(ValueError, check_whole, 0, n=-1)
    lined(ValueError, check_whole, 3, one=3, two=2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite(bad):
    check_finite(x=clip, y=None, s=1, u=clip.half())
    one = clip.clone()
    one[1, 2, 0, 3, 4] = bad
    for x in (one, one.half(), one.double(), bad):
        assert lined(ValueError, check_finite, y=clip, x=x).startswith("x: got NaN or inf")


@pytest.mark.parametrize(
    "kind, x, named",
    [
        (TypeError, clip.numpy(), {}),
        (TypeError, clip.byte(), {}),
        (ValueError, clip[0], {}),
        (ValueError, clip[None], {}),
        (ValueError, clip[:0], {}),
        (ValueError, clip, dict(frames=2)),
        (ValueError, clip, dict(channels=3)),
        (ValueError, clip + 1.001, dict(range=(-1, 1))),
        (ValueError, clip - 1.001, dict(range=(-1, 1))),
        (ValueError, clip - 0.1, dict(range=(0, 1))),
        (ValueError, clip + math.inf, dict(range=(-1, 1))),
        (ValueError, clip * math.nan, dict(range=(-1, 1))),
    ],
)
def test_what_is_no_video(kind, x, named):
    assert lined(kind, check_video, x, name="past", **named).startswith("past: got")


def test_what_is_video():
    for x in (clip, clip.half(), clip.double(), clip + 1, clip - 1):
        assert check_video(x, frames=3, channels=1, range=(-1, 1)) is x
    assert check_video(clip + 70) is not None  # without `range` any value


def test_the_range_is_not_read_on_a_device():
    "There it would make the program wait; `fit` reads it with the loss."
    with pretend_device() as (device, waits):
        there = (clip + 7).to(device)
        before = len(waits)
        assert check_video(there, range=(-1, 1)) is there
        assert len(waits) == before
        lined(ValueError, check_video, there[0])  # shapes are looked at anywhere


def test_bytes_there_and_back():
    every = torch.arange(256, dtype=torch.uint8)
    for dtype in (torch.float16, torch.float32, torch.float64):
        pixels = from_uint8(every, dtype)
        assert pixels.dtype == dtype and torch.equal(to_uint8(pixels), every)
        assert pixels.aminmax() == (-1, 1)
    assert to_uint8(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]
    lined(ValueError, to_uint8, torch.tensor([math.nan]))
    lined(TypeError, from_uint8, every.int())


@pytest.mark.parametrize("shape", [(), (1,), (2,), (2, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_time_meets_its_own_clip_and_frame(shape, dtype):
    x = torch.randn(2, 3, 1, 4, 5, generator=seeded(0)).to(dtype)
    t = torch.rand(shape, generator=seeded(1), dtype=torch.float64)
    product = expand(t, x) * x
    assert product.dtype == dtype and product.shape == x.shape
    per_frame = t.reshape(shape + (1,) * (2 - len(shape))).expand(2, 3)
    for i in range(2):
        for k in range(3):
            assert torch.equal(product[i, k], x[i, k] * per_frame[i, k].to(dtype))
    assert expand(t > 0.5, x).dtype == torch.bool


@pytest.mark.parametrize("shape", [(3,), (3, 2), (2, 3, 1), (0,)])
def test_times_that_fit_no_clip(shape):
    assert lined(ValueError, expand, torch.zeros(shape), clip).startswith("t: got shape")


def test_names_that_moved():
    look_up = moved("vidiffedu.old", name="new")
    assert complaint(look_up, "name") == "name: moved from vidiffedu.old to vidiffedu.new"
    with pytest.raises(AttributeError):  # so that hasattr works
        look_up("other")


def test_a_complaint_is_one_line():
    def raises(error):
        def call():
            raise error

        return call

    assert complaint(raises(ValueError("x: got 1, expected 2"))) == "x: got 1, expected 2"
    for wrong in (ValueError("two\nlines"), ValueError("")):
        with pytest.raises(AssertionError):
            complaint(raises(wrong))
    with pytest.raises(AssertionError, match="expected an error"):
        complaint(lambda: None)
    with pytest.raises(KeyError):  # an error of another kind is no message to a reader
        complaint(raises(KeyError("x")))


def test_time_meets_a_clip_from_the_left_and_pytorch_from_the_right():
    "Where frames are as wide as there are clips, the plain product runs along the width."
    x, t = torch.ones(5, 3, 1, 4, 5), torch.linspace(0, 1, 5)
    assert torch.equal((x * t)[0, 0, 0, 0], t)
    ours = expand(t, x) * x
    assert all(torch.equal(ours[i], torch.full_like(ours[i], float(t[i]))) for i in range(5))


def test_frames_need_clips_of_one_shape():
    lined(ValueError, show_frames, [clip[0], clip[0, :2]])
    lined(ValueError, show_frames, clip, labels=["one"])
    lined(ValueError, show_frames, clip.expand(2, 3, 2, 4, 5))
