"""Which frame is it? For every container and codec that PyAV can write here, from every start, the frames must be
bit for bit those that a plain decode from the start shows, in that order."""

import io
import os
import struct
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from film_files import pictures, write, write_apart
from PIL import Image

from vidiffedu import films
from vidiffedu.core import complaint
from vidiffedu.films import (
    Film,
    find_films,
    natural,
    on_black,
    picture,
    pixel_shape,
    scan,
    still_runs,
    turned,
)
from vidiffedu.video import CachedClips, VideoFolder, square


def sequential(path):
    "Every frame that a plain decode from the start shows, and no more."
    shown = []
    with av.open(f"file:{path}") as container:
        try:
            for frame in container.decode(video=0):
                shown.append(frame.to_ndarray(format="rgb24"))
        except av.FFmpegError:
            pass
    return shown


def agree(path, step=1):
    film, shown = scan(path), sequential(path)
    assert len(film) == len(shown) > 4
    for start in range(0, len(shown) - 3, step):
        for got, expected in zip(film.read(range(start, start + 4)), shown[start : start + 4]):
            assert np.array_equal(got, expected), (path.name, start)
    return film


B = dict(bf="3", g="10", sc_threshold="0")
X = lambda text: {"x264-params": text}
KINDS = {
    # name: codec and options
    "plain.mp4": dict(),
    "plain.mov": dict(),
    "plain.mkv": dict(),
    "plain.avi": dict(),
    "plain.flv": dict(),
    "plain.ts": dict(fmt="mpegts"),
    "plain.h264": dict(fmt="h264"),
    "plain.3gp": dict(fmt="3gp"),
    "plain.nut": dict(fmt="nut"),
    "b.mp4": B,
    "b.mov": B,
    "b.mkv": B,
    "b.avi": B,
    "b.flv": B,
    "b.ts": dict(B, fmt="mpegts"),
    "b.h264": dict(B, fmt="h264"),
    "b.nut": dict(B, fmt="nut"),
    "open.mp4": X("keyint=10:bframes=3:open-gop=1:scenecut=0"),
    "open.mkv": X("keyint=10:bframes=3:open-gop=1:scenecut=0"),
    "open.avi": X("keyint=10:bframes=3:open-gop=1:scenecut=0"),
    "open.ts": dict(fmt="mpegts", **X("keyint=10:bframes=3:open-gop=1:scenecut=0")),
    "refresh.mp4": X("keyint=12:intra-refresh=1:bframes=0"),
    "refresh.mkv": X("keyint=12:intra-refresh=1:bframes=0"),
    "pyramid.mp4": X("keyint=16:bframes=5:b-pyramid=normal:ref=4:scenecut=0"),
    "hevc.mp4": dict(
        codec="libx265",
        **{"x265-params": "keyint=10:bframes=3:log-level=none"},
    ),
    "hevc_open.mp4": dict(
        codec="libx265",
        **{"x265-params": "keyint=10:bframes=4:open-gop=1:log-level=none"},
    ),
    "hevc_open.mkv": dict(
        codec="libx265",
        **{"x265-params": "keyint=10:bframes=4:open-gop=1:log-level=none"},
    ),
    "mpeg4.mp4": dict(codec="mpeg4", g="8", bf="2"),
    "mpeg4.avi": dict(codec="mpeg4", g="8", bf="2"),
    "mpeg4.mkv": dict(codec="mpeg4", g="8", bf="2"),
    "mpeg2.mpg": dict(codec="mpeg2video", rate=25, g="8", bf="2"),
    "mpeg2.ts": dict(codec="mpeg2video", rate=25, g="8", bf="2", fmt="mpegts"),
    "mpeg2.vob": dict(codec="mpeg2video", rate=25, g="8", bf="2", fmt="vob"),
    "mpeg2.mkv": dict(codec="mpeg2video", rate=25, g="8", bf="2"),
    "mpeg1.mpg": dict(codec="mpeg1video", rate=25, g="8", bf="2"),
    "vp8.webm": dict(codec="libvpx", g="10", **{"auto-alt-ref": "1", "lag-in-frames": "12"}),
    "vp9.webm": dict(codec="libvpx-vp9", g="10", **{"auto-alt-ref": "1", "lag-in-frames": "12"}),
    "vp9.mp4": dict(codec="libvpx-vp9", g="10"),
    "av1.mkv": dict(codec="libsvtav1", preset="12", g="10"),
    "av1.mp4": dict(codec="libsvtav1", preset="12", g="10"),
    "wmv2.wmv": dict(codec="wmv2", fmt="asf", g="8"),
    "mjpeg.avi": dict(codec="mjpeg", pix="yuvj420p"),
    "mjpeg.mov": dict(codec="mjpeg", pix="yuvj420p"),
    "ffv1.mkv": dict(codec="ffv1"),
    "ffv1.avi": dict(codec="ffv1"),
    "huffyuv.avi": dict(codec="huffyuv", pix="yuv422p"),
    "prores.mov": dict(codec="prores_ks", pix="yuv422p10le"),
    "png.mov": dict(codec="png", pix="rgb24"),
    "raw.avi": dict(codec="rawvideo", pix="yuv420p"),
    "raw_bgr.avi": dict(codec="rawvideo", pix="bgr24"),  # rows from bottom to top
    "ten_bits.mkv": dict(codec="ffv1", pix="yuv420p10le"),
    "packed.mov": dict(codec="qtrle", pix="rgb24"),
    "raw.y4m": dict(codec="wrapped_avframe", fmt="yuv4mpegpipe"),
    "theora.ogv": dict(codec="libtheora", fmt="ogg", g="8"),
    "flv1.flv": dict(codec="flv", g="8"),
    "h263p.3gp": dict(codec="mpeg4", fmt="3gp", g="8", bf="2"),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_start_of_every_kind_shows_what_a_plain_decode_shows(tmp_path, name):
    how = {"g": "10", **KINDS[name]} if "codec" not in KINDS[name] else KINDS[name]
    try:
        write_apart(tmp_path / name, 34, **how)
    except OSError as error:
        pytest.skip(f"PyAV cannot write it here: {error}")
    film = agree(tmp_path / name)
    assert film.note == ""  # a whole film gets no remark


@pytest.mark.parametrize("end", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("first", [7, 13])
def test_films_that_were_cut_without_encoding_anew(tmp_path, end, first):
    "Packets from the middle of a film: the start is a key frame or not, its stamps are whatever they were."
    whole = write(tmp_path / "whole.mp4", pictures(40), **B)
    with av.open(str(whole)) as source, av.open(str(tmp_path / f"cut.{end}"), "w") as cut:
        packets = [p for p in source.demux(video=0) if p.size]
        stream = cut.add_stream_from_template(source.streams.video[0])
        for packet in packets[first:]:
            packet.stream = stream
            try:
                cut.mux(packet)
            except (av.FFmpegError, ValueError):
                pytest.skip("not written here")
    agree(tmp_path / f"cut.{end}")


def test_joined_streams(tmp_path):
    for end, fmt in (("ts", "mpegts"), ("h264", "h264"), ("mpg", "mpeg")):
        how = dict(codec="mpeg2video", rate=25) if end == "mpg" else {}
        parts = [
            write(
                tmp_path / f"{k}.{end}", pictures(12, w=48 - 16 * k), fmt=fmt, bf="2", g="6", **how
            )
            for k in (0, 1)
        ]
        (tmp_path / f"joined.{end}").write_bytes(b"".join(p.read_bytes() for p in parts))
        agree(tmp_path / f"joined.{end}")


@pytest.mark.parametrize("end", ["mp4", "mkv", "mov", "webm"])
def test_variable_rates_and_odd_stamps(tmp_path, end):
    gaps = np.random.default_rng(1).integers(1, 60, 30)
    how = dict(codec="libvpx") if end == "webm" else B
    for k, first in enumerate((0, 500, -90)):
        pts = [int(p) + first for p in np.cumsum(gaps)]
        path = write(tmp_path / f"{k}.{end}", pictures(30), pts=pts, tb=Fraction(1, 100), **how)
        film = agree(path)
        if first >= 0 and end != "webm":  # below 0 a player shows nothing
            np.testing.assert_allclose(film.times, (np.cumsum(gaps) - gaps[0]) / 100, atol=0.006)


def test_a_jump_is_made_and_is_checked(tmp_path, monkeypatch):
    "A key frame every 10: the last clip decodes from one of them; where jumps land wrong, frames are counted."
    film = scan(write(tmp_path / "a.mp4", pictures(100), g="10", bf="0", sc_threshold="0"))
    shown, starts, decode = sequential(tmp_path / "a.mp4"), [], films._decode
    spy = lambda film, start, *how: starts.append(start) or decode(film, start, *how)
    monkeypatch.setattr(films, "_decode", spy)
    assert np.array_equal(film.read([97])[0], shown[97]) and starts == [90]
    film.stamps = np.roll(film.stamps, 1)  # stamps that lie by one frame
    assert np.array_equal(film.read([55])[0], shown[55]) and starts[-1] == 0


@pytest.mark.parametrize("pix", ["yuv444p", "yuv444p10le", "rgb24"])
def test_the_checksum_sees_the_colour_and_the_end_of_a_row(pix):
    "Two frames of one brightness, or that differ in the last column alone, are two frames."
    frames = []
    for k in range(3):
        x = np.full((16, 40, 3), 100, np.uint8)
        x[:, -1] += 40 * (k == 1)
        frames.append(av.VideoFrame.from_ndarray(x, format="rgb24").reformat(format=pix))
    if pix != "rgb24":  # the third has the first's luma and another colour
        plane = frames[2].planes[1]
        plane.update(bytes(plane.buffer_size))
    sums = [films._checksum(frame) for frame in frames]
    assert sums[0] != sums[1] and (sums[0] != sums[2]) == (pix != "rgb24")


def test_a_film_that_was_broken_off_says_so(tmp_path):
    "Half a download: the header says 10 s, and the frames end before."
    for end in ("mkv", "avi"):
        whole = write(tmp_path / f"a.{end}", pictures(100), g="10").read_bytes()
        (tmp_path / f"a.{end}").write_bytes(whole[: len(whole) // 2])
        note = scan(tmp_path / f"a.{end}").note
        assert "the file says" in note or "ends after frame" in note, (end, note)
    with pytest.warns(UserWarning, match="remarks on 2 films, see report"):
        clips = VideoFolder(tmp_path, 4, 16)
    assert clips.report().count("a.mkv: ") == 1


def test_transparency_and_fields_that_are_not_read_are_named(tmp_path):
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuva420p"
        for _ in range(3):
            shown = av.VideoFrame.from_ndarray(np.zeros((32, 32, 4), np.uint8), format="rgba")
            container.mux(stream.encode(shown))
        container.mux(stream.encode(None))
    assert "transparency is not read" in scan(tmp_path / "a.webm").note
    path = write(tmp_path / "b.mpg", pictures(5), codec="mpeg2video", rate=25, flags="+ildct+ilme")
    with av.open(str(path)) as container:
        marked = next(container.decode(video=0)).interlaced_frame
    assert ("interlaced" in scan(path).note) == marked


def test_frames_that_were_read_do_not_stay_in_memory(tmp_path):
    "16 frames of a large film: one decoded frame at a time, without waiting for Python to tidy up."
    import gc

    film = scan(write(tmp_path / "a.mp4", pictures(16)))
    alive = []
    gc.collect()
    gc.disable()
    try:
        film.read(
            range(16),
            lambda *_: alive.append(sum(type(o) is av.VideoFrame for o in gc.get_objects())),
        )
    finally:
        gc.enable()
    assert len(alive) == 16 and max(alive) <= 6, alive


def test_a_file_that_was_changed_is_not_read_as_the_old_one(tmp_path):
    film = scan(write(tmp_path / "a.mp4", pictures(20)))
    write(tmp_path / "a.mp4", pictures(20)[::-1])
    with pytest.raises(ValueError, match="the file has changed"):
        film.read([3, 4])


# what a file says about its picture


@pytest.mark.parametrize(
    "matrix, expected",
    [
        ((1, 0, 0, 1), lambda x: x),
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),  # clockwise
        ((0, -1, 1, 0), lambda x: np.rot90(x, 1)),
        ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
    ],
    ids=["as stored", "right", "left", "half", "mirrored", "upside down", "transposed"],
)
def test_the_display_matrix_turns_and_mirrors(tmp_path, matrix, expected):
    "By hand, and in a file whose header holds the matrix; PyAV's own angle agrees."
    a, b, c, d = matrix
    nine = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    x = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
    assert np.array_equal(turned(x, nine), expected(x))
    path = write(tmp_path / "a.mp4", pictures(5))
    upright = scan(path).read([2])[0]
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", *nine)
    path.write_bytes(bytes(data))
    assert np.array_equal(scan(path).read([2])[0], expected(upright))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    if (a, b, c, d) in ((0, 1, -1, 0), (0, -1, 1, 0)):
        assert frame.rotation == {1: -90, -1: 90}[b]  # counterclockwise, in degrees


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_stills_are_turned_by_their_exif(tmp_path, turn):
    x = np.zeros((16, 16, 3), np.uint8)
    x[:8, :8] = 255  # white at the top left
    exif = Image.Exif()
    exif[274] = turn
    Image.fromarray(x).save(tmp_path / "0.png", exif=exif)
    shown = scan(tmp_path, [tmp_path / "0.png"]).read([0])[0]
    corner = {1: (0, 0), 3: (1, 1), 6: (0, 1), 8: (1, 0)}[turn]
    assert shown[8 * corner[0] + 4, 8 * corner[1] + 4].min() > 250
    assert shown.mean() == pytest.approx(255 / 4)


def test_pixels_that_are_not_square_are_made_square(tmp_path):
    "A disk that is shown round must come out round: pixels twice as wide as high."
    y, x = np.mgrid[:96, :64]
    disk = (((y - 48) / 24) ** 2 + ((x - 32) / 12) ** 2 < 1)[..., None].repeat(3, -1)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 96, "yuv420p"
        stream.sample_aspect_ratio = Fraction(2, 1)
        for _ in range(3):
            pixels = (255 * disk).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    shown = VideoFolder(tmp_path, 3, 96, channels=1)[0][0, 0] > 0
    assert abs(int(shown.any(0).sum()) - int(shown.any(1).sum())) <= 1
    assert square(np.zeros((96, 64, 3), np.uint8), 2.0, 48, 3).shape == (3, 48, 48)


def test_transparent_pixels_are_black_and_16_bits_are_scaled(tmp_path):
    a = np.zeros((8, 8, 4), np.uint8)
    a[..., 0] = 255  # red, but not to be seen
    a[2:6, 2:6] = (0, 255, 0, 255)
    a[3, 3] = (0, 200, 0, 128)
    Image.fromarray(a).save(tmp_path / "0.png")
    shown = scan(tmp_path, [tmp_path / "0.png"]).read([0])[0]
    assert shown[0, 0].tolist() == [0, 0, 0] and shown[2, 2].tolist() == [0, 255, 0]
    assert shown[3, 3].tolist() == [0, 100, 0] and on_black(a)[3, 3, 1] == 100
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    Image.fromarray(ramp).save(tmp_path / "1.png")
    shown = scan(tmp_path, [tmp_path / "1.png"]).read([0])[0]
    assert np.array_equal(shown[0, :, 0], np.arange(256))
    grey = Image.fromarray(np.full((4, 4), 90, np.uint8))
    grey.putalpha(0)
    grey.save(tmp_path / "2.png")
    assert scan(tmp_path, [tmp_path / "2.png"]).read([0])[0].max() == 0


def test_every_number_under_every_transparency_is_rounded_to_the_nearest():
    v, a = np.meshgrid(np.arange(256), np.arange(256))
    rgba = np.stack([v, v, v, a], -1).astype(np.uint8)
    assert np.array_equal(on_black(rgba)[..., 0], np.rint(v * a / 255))  # never halfway: 255 is odd


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_quarter_turn_changes_the_pixels_sides(turn):
    "Of EXIF's eight, those from the fifth on exchange rows and columns."
    image = Image.new("RGB", (4, 3))
    image.info["dpi"], image.getexif()[274] = (100, 50), turn
    sides = picture(image).shape[:2]
    assert pixel_shape(image) == (0.5 if sides == (3, 4) else 2.0) and sides in ((3, 4), (4, 3))
    assert (sides == (4, 3)) == (turn > 4)


def test_numbers_that_a_picture_cannot_show_are_refused(tmp_path):
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "f.tif")
    assert "floating-point numbers" in complaint(scan, tmp_path, [tmp_path / "f.tif"])
    Image.fromarray(np.full((8, 8), 70000, np.int32)).save(tmp_path / "i.tif")
    assert "numbers from 70000 to 70000" in complaint(scan, tmp_path, [tmp_path / "i.tif"])


def test_the_pages_of_a_tif_are_frames(tmp_path):
    "A stack of 16-bit pages, as microscopes write; smaller copies of one picture are no film."
    pages = [np.full((16, 16), 257 * 20 * k, np.uint16) for k in range(6)]
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(tmp_path / "a.tif", save_all=True, append_images=rest)
    first.save(tmp_path / "b.tif", save_all=True, append_images=[Image.fromarray(pages[0][:8, :8])])
    assert [p.name for p, stills in find_films(tmp_path)[0] if not stills] == ["a.tif"]
    (tmp_path / "b.tif").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clips = VideoFolder(tmp_path, 6, 16, channels=1)
    shown = (clips[0].mean((1, 2, 3)) + 1) * 127.5
    assert shown.round().tolist() == [0, 20, 40, 60, 80, 100]
    with pytest.warns(UserWarning, match="need rate="), pytest.raises(FileNotFoundError):
        VideoFolder(tmp_path, 2, 16, fps=5)
    slow = VideoFolder(tmp_path, 3, 16, channels=1, fps=5, rate=10)
    assert ((slow[0].mean((1, 2, 3)) + 1) * 127.5).round().tolist() == [0, 40, 80]


@pytest.mark.parametrize("end", ["png", "webp", "apng", "gif"])
def test_animations_are_films_with_their_own_times(tmp_path, end):
    shown = pictures(6)
    first, *rest = [Image.fromarray(x) for x in shown]
    how = dict(lossless=True) if end == "webp" else {}
    durations = [100, 200, 50, 400, 100, 100]
    kind = {"apng": "PNG"}.get(end, end.upper())
    first.save(
        tmp_path / f"a.{end}", kind, save_all=True, append_images=rest, duration=durations, **how
    )
    film = scan(tmp_path / f"a.{end}")
    np.testing.assert_allclose(film.times, np.cumsum([0, *durations[:-1]]) / 1000, atol=0.011)
    for got, expected in zip(film.read(range(6)), shown):
        assert np.abs(got.astype(int) - expected).mean() < (25 if end == "gif" else 0.01)


def test_hdr_is_named(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.color_trc = 16  # SMPTE 2084
        for x in pictures(4, 32, 32):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(x, format="rgb24")))
        container.mux(stream.encode(None))
    assert "HDR" in VideoFolder(tmp_path, 4, 16).report()


# which files count


def test_hidden_folders_and_system_folders_are_passed_over(tmp_path):
    for name in ("a.mp4", ".cache/b.mp4", "__MACOSX/c.mp4", "in/.d.mp4", "in/e.mp4"):
        write(tmp_path / name, pictures(5))
    names = [p.relative_to(tmp_path).as_posix() for p, _ in find_films(tmp_path)[0]]
    assert names == ["a.mp4", "in/e.mp4"]


def test_links_are_followed_once(tmp_path):
    write(tmp_path / "far" / "a.mp4", pictures(5))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "root")  # a circle
    (tmp_path / "root" / "one.mp4").symlink_to(tmp_path / "far" / "a.mp4")
    found = [
        p.relative_to(tmp_path / "root").as_posix() for p, _ in find_films(tmp_path / "root")[0]
    ]
    assert found == ["link/a.mp4", "one.mp4"]
    assert len(VideoFolder(tmp_path / "root", 4, 8)) == 2


def test_folders_that_cannot_be_listed_are_named(tmp_path, monkeypatch):
    write(tmp_path / "a.mp4", pictures(5))
    (tmp_path / "shut").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.warns(UserWarning, match="shut: a folder whose files cannot be listed"):
        assert len(VideoFolder(tmp_path, 4, 8)) == 1


def test_masks_beside_the_frames_are_another_film(tmp_path):
    for k in range(5):
        for end in ("jpg", "png"):
            Image.fromarray(pictures(5)[k]).save(tmp_path / f"{k}.{end}")
    found = [[p.name for p in stills] for _, stills in find_films(tmp_path)[0]]
    assert sorted(found) == [[f"{k}.{end}" for k in range(5)] for end in ("jpg", "png")]


def test_where_nothing_can_be_read_the_endings_are_named(tmp_path):
    (tmp_path / "a.qtx").write_bytes(b"?")
    assert "not looked at, by ending: 1 .qtx" in complaint(VideoFolder, tmp_path, 4, 8)


@pytest.mark.parametrize(
    "name",
    [
        "a:b.mp4",
        "-x.mp4",
        "%03d.mp4",
        "a b'\"c.mp4",
        "ünïcode 影片.mp4",
        "new\nline.mp4",
        "http:.mp4",
    ],
)
def test_unusual_names_are_read(tmp_path, name):
    write(tmp_path / "plain.mp4", pictures(6)).rename(tmp_path / name)
    assert len(VideoFolder(tmp_path, 4, 8)) == 1


def test_audio_in_the_clothes_of_a_film_is_named(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000), np.float32), format="fltp", layout="mono"
        )
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    write(tmp_path / "b.mp4", pictures(6))
    (tmp_path / "notes.txt").write_text("no film")
    (tmp_path / "c.dat").write_bytes(b"?")
    with pytest.warns(UserWarning, match="a.mp4: no moving picture in it"):
        clips = VideoFolder(tmp_path, 4, 8)
    text = clips.report()
    assert "1 films, 1 clips of 4 frames" in text and "1 .txt" in text and "1 .dat" in text


def test_snippets_stay_snippets(tmp_path):
    names = [f"ulm_{s:06d}_{k:06d}_left8.png" for s in range(3) for k in range(30)]
    names += [f"bonn_000000_{k:06d}_left8.png" for k in [*range(5), *range(40, 45)]]
    films = still_runs(sorted((tmp_path / n for n in names), key=natural))
    assert [len(f) for f in films] == [5, 5, 30, 30, 30]
    stamps = [tmp_path / f"{t}.png" for t in (1000, 1049, 1100, 1152, 1300, 1351)]
    assert [len(f) for f in still_runs(stamps)] == [4, 2]
    assert [len(f) for f in still_runs([tmp_path / "a.png", tmp_path / "b.png"])] == [2]
    assert still_runs([]) == []


# the dataset


def test_a_number_that_is_left_out_begins_another_film():
    "Steps of 1, then one of 2; where the steps are 5, one of 10; a longer step after the first."
    of = lambda *numbers: [Path(f"f{k:03d}.png") for k in numbers]
    assert still_runs(of(1, 2, 3, 5, 6)) == [of(1, 2, 3), of(5, 6)]
    assert still_runs(of(0, 5, 10, 20, 25)) == [of(0, 5, 10), of(20, 25)]
    assert still_runs(of(0, 10, 20, 29, 40)) == [of(0, 10, 20, 29, 40)]


def test_a_rate_is_kept_by_the_clock(tmp_path):
    "10 ms steps, then 500 ms steps: at 2 frames a second only the slow ones count, each when it is shown."
    pts = [0, 1, 2, 3, 53, 103, 153, 203]
    write(tmp_path / "a.mp4", pictures(8), pts=pts, tb=Fraction(1, 100))
    clips = VideoFolder(tmp_path, 5, 16, fps=2)
    film = clips.clips[0][1]
    assert clips._order(film).tolist() == [0, 3, 4, 5, 6] and len(clips) == 1
    shown = [square(film.read([k])[0], 1.0, 16, 3) for k in (0, 3, 4, 5, 6)]
    torch.testing.assert_close(clips[0], torch.stack(shown))
    with pytest.warns(UserWarning, match="frames last 0.01 to 0.5 s; fps= samples by the clock"):
        VideoFolder(tmp_path, 5, 16)


def test_stills_have_no_rate_until_it_is_given(tmp_path):
    for k in range(12):
        Image.fromarray(pictures(12)[k]).save(tmp_path / f"{k}.png")
    with pytest.warns(UserWarning, match="need rate="), pytest.raises(FileNotFoundError):
        VideoFolder(tmp_path, 4, 8, fps=5)
    clips = VideoFolder(tmp_path, 4, 8, fps=5, rate=10)
    assert clips._order(clips.clips[0][1]).tolist() == [0, 2, 4, 6, 8, 10]


def test_random_crops_flips_and_starts_come_from_the_generator(tmp_path):
    write(tmp_path / "a.mp4", pictures(40, 32, 64), bf="0", crf="1")
    clips = VideoFolder(tmp_path, 4, 32, hop=8, crop="random", flip=True, jitter=True)
    shown = torch.stack(
        [torch.from_numpy(x).permute(2, 0, 1) for x in sequential(tmp_path / "a.mp4")]
    )
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        one = clips[1]
        torch.manual_seed(seed)
        assert torch.equal(one, clips[1])
        places = [
            (start, left, mirrored)
            for start in range(8, 16)
            for left in range(33)
            for mirrored in (False, True)
            if torch.equal(
                ((one.flip(-1) if mirrored else one) + 1).mul(127.5).round().to(torch.uint8),
                shown[start : start + 4, :, :, left : left + 32],
            )
        ]
        assert places, seed
        seen.add(places[0])
    assert len({s for s, *_ in seen}) > 4 and len({p for _, p, _ in seen}) > 10
    assert {m for *_, m in seen} == {False, True}


def stills(folder, n, more=0):
    "n numbered pictures, each of its own grey."
    folder.mkdir(parents=True)
    for k in range(n):
        Image.fromarray(np.full((8, 8, 3), more + 5 * k, np.uint8)).save(folder / f"{k}.png")


def test_a_later_start_never_runs_beyond_the_end(tmp_path):
    "Six frames, clips of four: starts 0, 1 and 2, though the next clip would begin at 5."
    stills(tmp_path / "a", 6)
    clips, seen = VideoFolder(tmp_path, 4, 8, hop=5, jitter=True), set()
    torch.manual_seed(0)
    for _ in range(60):
        grey = ((clips[0][:, 0, 0, 0] + 1) * 127.5 / 5).round().tolist()
        assert grey == list(range(int(grey[0]), int(grey[0]) + 4))
        seen.add(int(grey[0]))
    assert seen == {0, 1, 2}


def test_the_share_of_films_held_out_is_rounded(tmp_path):
    for k in range(12):
        stills(tmp_path / f"{k}", 2, k)
    clips = VideoFolder(tmp_path, 2, 8)
    for share, n in {0.01: 1, 0.1: 1, 0.15: 2, 0.3: 4, 0.99: 11}.items():
        train, test = clips.split(share)
        assert (len(train), len(test)) == (12 - n, n), share


def test_a_split_is_by_film_and_stays(tmp_path):
    for k in range(10):
        write(tmp_path / f"v_{'ab'[k % 2]}_{k}.mp4", pictures(12, 32 + 2 * k))
    clips = VideoFolder(tmp_path, 4, 8)
    train, test = clips.split(0.3)
    names = [{p for p, *_ in part.clips} for part in (train, test)]
    assert len(names[1]) == 3 and not names[0] & names[1] and len(train) + len(test) == len(clips)
    assert [p for p, *_ in VideoFolder(tmp_path, 4, 8).split(0.3)[1].clips] == [
        p for p, *_ in test.clips
    ]
    assert {p for p, *_ in clips.split(0.3, seed=1)[1].clips} != names[1]
    one, other = clips.split(0.5, group=lambda path: path.name[:3])
    assert {p.name[:3] for p, *_ in one.clips}.isdisjoint({p.name[:3] for p, *_ in other.clips})
    assert complaint(clips.split, 1.0).startswith("share: got 1.0")


def test_copies_and_links_of_a_film_stay_on_one_side(tmp_path):
    for k in range(6):
        write(tmp_path / f"{k}.mp4", pictures(12, 32 + 2 * k))
    (tmp_path / "z.mp4").write_bytes((tmp_path / "0.mp4").read_bytes())
    (tmp_path / "link.mp4").symlink_to(tmp_path / "3.mp4")
    clips = VideoFolder(tmp_path, 4, 8)
    for seed in range(8):
        train, test = ({p.name for p, *_ in part.clips} for part in clips.split(0.4, seed))
        assert not train & test and len(train | test) == 8
        for pair in ({"0.mp4", "z.mp4"}, {"3.mp4", "link.mp4"}):
            assert pair <= train or pair <= test


def test_the_index_is_made_once_and_checked(tmp_path, monkeypatch):
    from vidiffedu import video

    for k in range(3):
        write(tmp_path / "in" / f"{k}.mp4", pictures(12 + k))
    scanned, real = [], video.scan
    monkeypatch.setattr(
        video, "scan", lambda path, *how: scanned.append(path.name) or real(path, *how)
    )
    index = tmp_path / "index.npz"
    first = VideoFolder(tmp_path / "in", 4, 8, index=index)
    again = VideoFolder(tmp_path / "in", 4, 8, index=index)
    assert sorted(scanned) == ["0.mp4", "1.mp4", "2.mp4"] and len(first) == len(again)
    assert all(torch.equal(first[i], again[i]) for i in range(len(first)))
    for mine, held in zip(first.clips, again.clips):
        assert all(
            np.array_equal(getattr(mine[1], p), getattr(held[1], p))
            for p in ("sums", "stamps", "keys", "times")
        )
    write(tmp_path / "in" / "1.mp4", pictures(16))  # changed: scanned again
    scanned.clear()
    assert len(VideoFolder(tmp_path / "in", 4, 8, index=index)) == 3 + 4 + 3 and scanned == [
        "1.mp4"
    ]
    monkeypatch.setattr(video, "_version", lambda: "of another PyAV")
    scanned.clear()
    VideoFolder(tmp_path / "in", 4, 8, index=index)
    assert len(scanned) == 3
    whole = index.read_bytes()
    for broken in (b"not an index", whole[: len(whole) // 2], b"PK" + whole[2:40]):
        index.write_bytes(broken)
        scanned.clear()
        VideoFolder(tmp_path / "in", 4, 8, index=index)
        assert len(scanned) == 3


def test_kept_clips_are_the_clips(tmp_path):
    write(tmp_path / "in" / "a.mp4", pictures(30))
    clips = VideoFolder(tmp_path / "in", 4, 16)
    kept = CachedClips(clips, tmp_path / "kept.npy")
    assert len(kept) == len(clips) and all(
        (kept[i] - clips[i]).abs().max() < 1.01 / 255 for i in range(len(clips))
    )
    before = (tmp_path / "kept.npy").stat().st_mtime_ns
    CachedClips(clips, tmp_path / "kept.npy")
    assert (tmp_path / "kept.npy").stat().st_mtime_ns == before
    other = VideoFolder(tmp_path / "in", 4, 8)
    assert CachedClips(other, tmp_path / "kept.npy")[0].shape == (4, 3, 8, 8)  # made anew
    torch.manual_seed(0)
    mirrored = CachedClips(VideoFolder(tmp_path / "in", 4, 16, flip=True), tmp_path / "m.npy")
    seen = {bool((mirrored[0] - clips[0]).abs().max() < 1.01 / 255) for _ in range(20)}
    assert seen == {True, False}  # drawn when a clip is asked for, not when it is kept
    assert ((mirrored.kept[:] / 127.5 - 1) - torch.stack(list(clips)).numpy()).max() < 1.01 / 255
    CachedClips(clips, tmp_path / "kept.npy")
    write(tmp_path / "in" / "a.mp4", pictures(30)[::-1])  # another film of the same name
    clips = VideoFolder(tmp_path / "in", 4, 16)
    kept = CachedClips(clips, tmp_path / "kept.npy")
    assert all((kept[i] - clips[i]).abs().max() < 1.01 / 255 for i in range(len(clips)))
    (tmp_path / "kept.npy").unlink()
    assert len(CachedClips(clips, tmp_path / "kept.npy")[0]) == 4
    moving = VideoFolder(tmp_path / "in", 4, 8, crop="random")
    assert complaint(CachedClips, moving, tmp_path / "x.npy").startswith("films: got random")


@pytest.mark.parametrize("how", [dict(stride=2), dict(frames=5), dict(channels=1), dict(hop=9)])
def test_kept_clips_are_made_anew_where_they_are_cut_otherwise(how, tmp_path):
    "As many clips from the same frames on, but other frames in them."
    stills(tmp_path / "in" / "a", 28)
    first = dict(frames=4, size=8, hop=10)
    CachedClips(VideoFolder(tmp_path / "in", **first), tmp_path / "kept.npy")
    clips = VideoFolder(tmp_path / "in", **{**first, **how})
    kept = CachedClips(clips, tmp_path / "kept.npy")
    assert len(kept) == len(clips) == 3
    for mine, one in zip(kept, clips):
        assert mine.shape == one.shape and (mine - one).abs().max() < 1.01 / 255


def test_kept_clips_are_never_those_of_a_run_that_was_killed(tmp_path, monkeypatch):
    "Killed after the new clips and before their card: the old card must not vouch for them."
    from vidiffedu import video

    write(tmp_path / "in" / "a.mp4", pictures(30))
    one, other = (VideoFolder(tmp_path / "in", 4, 16, hop=hop) for hop in (26, 4))
    one.clips, other.clips = one.clips[:1], other.clips[1:2]

    def killed(*_):
        raise KeyboardInterrupt

    CachedClips(one, tmp_path / "kept.npy")
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(video, "write_atomically", killed)
        CachedClips(other, tmp_path / "kept.npy")
    assert (CachedClips(one, tmp_path / "kept.npy")[0] - one[0]).abs().max() < 1.01 / 255


def test_a_film_that_breaks_while_clips_are_kept_is_named(tmp_path):
    write(tmp_path / "in" / "a.mp4", pictures(30))
    clips = VideoFolder(tmp_path / "in", 4, 16)
    (tmp_path / "in" / "a.mp4").write_bytes(b"gone bad")
    with pytest.raises(RuntimeError, match="films: got .*a.mp4"):
        CachedClips(clips, tmp_path / "kept.npy")
    assert {p.name for p in tmp_path.iterdir()} <= {"in", "kept.npy.lock"}


def test_without_a_place_for_the_lock_films_are_read(tmp_path, monkeypatch):
    import filelock

    def refuse(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    write(tmp_path / "in" / "a.mp4", pictures(6))
    assert len(VideoFolder(tmp_path / "in", 4, 8, index=tmp_path / "index.npz")) == 1


def test_a_film_is_small_and_names_what_it_cannot_give(tmp_path):
    film = scan(write(tmp_path / "a.mp4", pictures(12)))
    assert complaint(film.read, [12]) == "wanted: got frame 12, expected less than 12"
    assert isinstance(film, Film) and len(film) == 12
    assert [x.mean() for x in film.read([3, 1, 3])] == [film.read([k])[0].mean() for k in (3, 1, 3)]


def test_one_large_frame_at_a_time(tmp_path):
    "16 frames of 1080p are 100 MB: they may not be held together."
    import tracemalloc

    big = [np.full((1080, 1920, 3), 10 * k, np.uint8) for k in range(16)]
    write(tmp_path / "a.mp4", big, preset="ultrafast")
    clips = VideoFolder(tmp_path, 16, 64)
    tracemalloc.start()
    clips[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # numpy's part: one frame and its copies


def test_what_a_player_saves_is_read_back(tmp_path):
    from vidiffedu.player import save_clip

    clip = torch.from_numpy(np.stack(pictures(9, 24, 24))).permute(0, 3, 1, 2) / 127.5 - 1
    save_clip(tmp_path / "a.gif", clip[:, :1], scale=1)
    torch.testing.assert_close(
        VideoFolder(tmp_path, 9, 24, channels=1)[0], clip[:, :1], atol=0.02, rtol=0
    )
    still = torch.cat([clip[:3], clip[2:3], clip[2:3], clip[3:]])  # a frame that comes three times
    for shades, off in ((still[:, :1], 0.02), (still, 0.5)):  # colours are put into 256
        save_clip(tmp_path / "a.gif", shades, scale=1, fps=8)
        film = scan(tmp_path / "a.gif")
        assert len(film) == 11 and np.allclose(film.times, np.arange(11) / 8, atol=0.0051)
        shown = VideoFolder(tmp_path, 11, 24, channels=shades.shape[1])[0]
        torch.testing.assert_close(shown, shades, atol=off, rtol=0)
        assert torch.equal(shown[2], shown[3]) and torch.equal(shown[2], shown[4])
    assert complaint(save_clip, tmp_path / "b.gif", clip, fps=60).startswith("fps: got 60")
    (tmp_path / "a.gif").unlink()
    save_clip(tmp_path / "a.mp4", clip, scale=1)
    assert (VideoFolder(tmp_path, 9, 24)[0] - clip).square().mean() < 0.02


def test_warnings_name_every_file_once(tmp_path):
    write(tmp_path / "a.mp4", pictures(6))
    (tmp_path / "b.mp4").write_bytes(io.BytesIO(b"x" * 100).getvalue())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        clips = VideoFolder(tmp_path, 4, 8)
    assert len(said) == 1 and "b.mp4" in str(said[0].message) and "b.mp4" in clips.report()
