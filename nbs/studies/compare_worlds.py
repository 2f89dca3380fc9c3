"""compare: the frames of the two worlds that take minutes to make, kept as bytes for the bench.

    python nbs/studies/compare_worlds.py    about 5 minutes on one core
Writes ../checkpoints/compare_worlds.safetensors, uint8:
    street_train  (8 200 1 16 16)   vortex streets, one run of 200 frames for each of eight Reynolds numbers from 60 to 140
    street_test   (128 5 1 16 16)   two clips of each of 64 further runs, each with a Reynolds number of its own between 60 and 140
    films_train   (8 40 1 40 40)    the films in nbs/films (our own rendering, see score_film.py), every second pixel averaged
    films_test    (128 5 1 16 16)   eight windows of each of 16 further shots (seeds 100 to 115), every second frame, through the same encoder
The first halves of both test sets are what is forecast; the second halves say how far two true sets are apart."""

import pathlib
import sys
import tempfile

import score_film
import torch
import torch.nn.functional as F

from vidiffedu.core import seeded, to_uint8
from vidiffedu.safety import write_tensors
from vidiffedu.video import VideoFolder
from vidiffedu.vortex import vortex_clips

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE.parent / "checkpoints" / "compare_worlds.safetensors"
FLOW = dict(size=(16, 16), pool=4, warm=8000)


def street():
    "Training films, and test clips: the first clip of each run, then the second of each."
    train = vortex_clips(torch.linspace(60, 140, 8), 8, 200, generator=seeded(0), **FLOW)
    reynolds = 60 + 80 * torch.rand(64, generator=seeded(1))
    test = vortex_clips(reynolds, 128, 5, generator=seeded(2), **FLOW)
    return train, torch.cat([test[0::2], test[1::2]])


def whole(folder, frames):
    "Every film of a folder, halved in height and width: (n frames 1 40 40)."
    films = VideoFolder(folder, frames=frames, size=80, channels=1, hop=frames, progress=False)
    return torch.stack([F.avg_pool2d(film, 2) for film in films])


def films():
    "The shipped films, and windows of further shots."
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(100, 116):
            shot = score_film.shot(seed)
            score_film.write(pathlib.Path(folder) / f"shot{seed}.mkv", shot.video)
        test = whole(folder, 40)
    g, windows = seeded(3), []
    for half in range(2):
        for film in test:
            for start in (1, 21, 5, 25):
                y, x = torch.randint(0, 25, (2,), generator=g).tolist()
                at = start + 4 * half
                windows.append(film[at : at + 10 : 2, :, y : y + 16, x : x + 16])
    return whole(HERE.parent / "films", 40), torch.stack(windows)


def main():
    found = dict(zip(("street_train", "street_test"), street()))
    found |= dict(zip(("films_train", "films_test"), films()))
    write_tensors(OUT, {k: to_uint8(v) for k, v in found.items()}, dict(kind="worlds"))
    print({k: tuple(v.shape) for k, v in found.items()})


if __name__ == "__main__":
    sys.exit(main())
