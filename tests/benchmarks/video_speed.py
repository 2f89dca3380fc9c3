"""Clips a second from h264 files and from kept clips, and files a second of the scan.

    python tests/benchmarks/video_speed.py [--workers 2]

Clips: 16 frames, 64 x 64, from h264 of 128 x 128, in random order. The scan: h264 of 128 x 128 and 32 frames
a file, each decoded whole, without an index.
"""

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch
from torch.utils.data import DataLoader

from vidiffedu.video import CachedClips, VideoFolder


def write(path, n, seed, side=128):
    "n frames of blobs that drift."
    g, (y, x) = np.random.default_rng(seed), np.mgrid[:side, :side]
    at, step = g.uniform(0, side, (6, 2)), g.uniform(-2, 2, (6, 2))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for k in range(n):
            grey = sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 200) for a, b in at + k * step)
            pixels = (255 * (grey / 2).clip(0, 1)).astype(np.uint8)[..., None].repeat(3, -1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def rate(dataset, seconds, workers=0):
    "Clips a second, in random order, again and again."
    order = random.Random(0).choices(range(len(dataset)), k=100_000)
    items = iter(DataLoader(dataset, 4, sampler=order, num_workers=workers))
    next(items)  # files opened, workers started
    n, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        n += len(next(items))
    return n / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        long, short = Path(folder, "long"), Path(folder, "short")
        for k in range(4):
            long.mkdir(exist_ok=True)
            write(long / f"{k}.mp4", 250, k)
        short.mkdir()
        for k in range(200):
            write(short / f"{k}.mp4", 32, k % 8)
        start = time.perf_counter()
        VideoFolder(short, 16, 64, index=False, progress=False)
        scan = 200 / (time.perf_counter() - start)
        clips = VideoFolder(long, 16, 64, hop=4, index=False, progress=False)
        kept = CachedClips(clips, Path(folder, "kept.npy"), progress=False)
        found = {"files": clips, "kept clips": kept}
        rates = {name: rate(each, args.seconds, args.workers) for name, each in found.items()}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = ", ".join(f"{r:,.0f} clips/s from {name}" for name, r in rates.items())
    print(f"{words}; scan {scan:,.0f} files/s; {cores} cores, {torch.get_num_threads()} threads, ")
    print(f"{args.workers} workers, torch {torch.__version__}, PyAV {av.__version__}")


if __name__ == "__main__":
    main()
