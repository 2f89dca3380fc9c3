"""Films that the tests write. `write_apart` does it in a process of its own: some encoders are no good guests (under root, SVT-AV1 gives the
thread that calls it real-time priority, and x265 aborts now and then)."""

import json
import pathlib
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np


def pictures(n, h=32, w=48):
    "n frames that all differ: a texture that slides, its brightness rising."
    g = np.random.default_rng(0)
    ground = g.integers(0, 120, (h, w + n, 3), dtype=np.uint8)
    ground = (ground.astype(int) + np.roll(ground, 1, 1) + np.roll(ground, 1, 0)) // 3
    return [(ground[:, i : i + w] + 3 * i).clip(0, 255).astype(np.uint8) for i in range(n)]


def write(
    path, frames, codec="libx264", pix="yuv420p", fmt=None, rate=10, pts=None, tb=None, **options
):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=fmt) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix
        if tb:
            stream.codec_context.time_base = tb
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = pts[i], tb or Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_apart(path, n, **how):
    "`write(path, pictures(n), **how)` in a process of its own; an error, or its death, is an OSError here."
    code = "import sys, film_files as f; f.write(f.pathlib.Path(sys.argv[1]), f.pictures(int(sys.argv[2])), **f.json.loads(sys.argv[3]))"
    words = [sys.executable, "-c", code, str(path), str(n), json.dumps(how)]
    found = subprocess.run(words, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True)
    if found.returncode:
        raise OSError(f"exit {found.returncode}: {found.stderr.strip()[-200:]}")
