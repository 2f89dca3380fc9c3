"""score: films of our own making that stand in for natural video, since the course ships no footage.

Rendered, not filmed. What they share with footage: textures with the 1/f spectrum of natural pictures, edges and
shading, three depths that move by parallax under a camera that pans, stops and shakes, one object that moves by
itself and hides what is behind it, blur from motion during the exposure, noise of the sensor that grows with the
light, and the losses of H.264. What they lack: faces, water, cloth, changes of light.

    python nbs/studies/score_film.py FOLDER    eight shots of 40 frames, 80 x 80, grey: about 10 s on one core
The course's own are in nbs/films. `shot(seed)` renders one in memory, with what is known of it: which layer
is seen at every pixel, how it moves, and which pixels have just come out from behind another layer."""

import math
import pathlib
import sys
from typing import NamedTuple

import torch
import torch.nn.functional as F

from vidiffedu.core import seeded

FRAMES, SIZE, SHOTS, LAYERS = 40, 80, 8, 4  # far, middle, near, and what moves by itself
PARALLAX = (0.25, 0.6, 1.0, 0.6)


class Shot(NamedTuple):
    "A rendered shot, pixels in [-1, 1], and what is known of it."

    video: torch.Tensor  # (f 1 h w) as the sensor saw it
    clean: torch.Tensor  # (f 1 h w) without the sensor's noise
    layer: torch.Tensor  # (f h w) which layer is seen
    step: torch.Tensor  # (f h w 2): a pixel's point of that layer was at pixel + step one frame ago
    revealed: torch.Tensor  # (f h w) bool: hidden behind another layer one frame ago


def texture(g, side, steep=1.0):
    "A random picture (side side) with amplitude 1/f**steep, mean 0, standard deviation 1."
    f = (torch.fft.fftfreq(side)[:, None] ** 2 + torch.fft.fftfreq(side)[None] ** 2).sqrt()
    spectrum = torch.fft.fft2(torch.randn(side, side, generator=g))
    x = torch.fft.ifft2(spectrum * f.clamp(min=1 / side) ** -steep).real
    return (x - x.mean()) / x.std()


def ellipse(g, side, radius, centre=None):
    "Where one ellipse is solid (side side) in [0, 1], with a soft edge of a pixel."
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    cy, cx, turn, a, b = torch.rand(5, generator=g).tolist()
    cy, cx = (side * cy, side * cx) if centre is None else centre
    a, b = (radius[0] + v * (radius[1] - radius[0]) for v in (a, b))
    c, s = math.cos(math.pi * turn), math.sin(math.pi * turn)
    u, v = (x - cx) * c + (y - cy) * s, (y - cy) * c - (x - cx) * s
    r = ((u / a) ** 2 + (v / b) ** 2).sqrt()
    return ((1 - r) * min(a, b) + 0.5).clamp(0, 1)


def shapes(g, side, count, radius):
    "Where a layer of `count` ellipses is solid (side side)."
    return torch.stack([ellipse(g, side, radius) for _ in range(count)]).amax(0)


def surface(g, side, steep, patches):
    "A textured picture (side side) in [0, 1], painted over with `patches` of other greys."
    light = 0.15 + 0.7 * torch.rand(patches + 1, generator=g)
    picture = torch.full((side, side), float(light[0]))
    for grey in light[1:].tolist():
        picture = picture.lerp(torch.tensor(grey), ellipse(g, side, (6, 40)))
    return (picture + 0.08 * texture(g, side, steep)).clamp(0, 1)


def smooth_walk(g, f, size, memory=0.85):
    "A velocity (f 2) that drifts, stops and turns; its standard deviation is `size`."
    v, steps = torch.randn(2, generator=g), []
    for _ in range(f):
        v = memory * v + (1 - memory**2) ** 0.5 * torch.randn(2, generator=g)
        steps.append(v)
    return size * torch.stack(steps)


def scene(g, side):
    "Pictures (layers side side) in [0, 1] and where each is solid (layers side side)."
    how = ((1.3, 60), (1.2, 25), (1.1, 10), (1.0, 6))
    pictures = torch.stack([surface(g, side, *h) for h in how])
    alone = ellipse(g, side, (8, 14), centre=(side / 2, side / 2))  # one, in the middle
    layers = shapes(g, side, 12, (8, 22)), shapes(g, side, 8, (5, 14)), alone
    return pictures, torch.stack([torch.ones(side, side), *layers])


def look(stack, offset, size):
    "The window (layers k size size) of each layer's pictures (layers k side side) at `offset` (layers 2)."
    side = stack.shape[-1]
    line = torch.arange(size) - (size - 1) / 2
    y, x = (offset[:, a, None] + line for a in (0, 1))
    y, x = y[:, :, None].expand(-1, size, size), x[:, None].expand(-1, size, size)
    grid = torch.stack([x, y], -1) * 2 / (side - 1)
    return F.grid_sample(stack, grid, align_corners=True, padding_mode="reflection")


def compose(stack, offset, size):
    "One exposure (size size), the layer seen at every pixel, and every layer's solidity."
    seen = look(stack, offset, size)
    image, layer = seen[0, 0], torch.zeros(size, size, dtype=torch.long)
    for k in range(1, LAYERS):
        image = image.lerp(seen[k, 0], seen[k, 1])
        layer = torch.where(seen[k, 1] > 0.5, k, layer)
    return image, layer


def revealed(stack, layer, offset, before, size):
    "Which pixels show a point of their layer that another layer hid one frame ago."
    hidden = torch.zeros(size, size, dtype=torch.bool)
    for k in range(LAYERS - 1):
        mine = before.clone() + (offset[k] - before[k])  # where layer k's points were, others' too
        was = compose(stack, mine, size)[1]
        hidden |= (layer == k) & (was > k)
    return hidden


def shot(seed, frames=FRAMES, size=SIZE, sub=4):
    "Render one shot of a scene of its own."
    g = seeded(1000 + seed)
    side = size + 260
    stack = torch.stack(scene(g, side), 1)  # (layers 2 side side)
    pan = smooth_walk(g, frames, 1.8) + 0.2 * torch.randn(frames, 2, generator=g)
    own = smooth_walk(g, frames, 1.6, 0.9)
    weight = torch.tensor(PARALLAX)[:, None]
    still = torch.tensor([0.0, 0.0, 0.0, 1.0])[:, None]
    step = pan[:, None] * weight + own[:, None] * still  # (f layers 2)
    offset = step.cumsum(0) - step.cumsum(0).mean(0, keepdim=True)
    rows = []
    for t in range(frames):
        parts = [(offset[t] - step[t] * (j / sub) * 0.5) for j in range(sub)]  # half a frame open
        light = torch.stack([compose(stack, o, size)[0] for o in parts]).mean(0)
        layer = compose(stack, offset[t], size)[1]
        out = revealed(stack, layer, offset[t], offset[t] - step[t], size)
        rows.append((light, layer, step[t][layer], out))
    light, layer, back, out = map(torch.stack, zip(*rows))
    noise = (1e-4 + 3e-4 * light).sqrt() * torch.randn(light.shape, generator=g)
    film = ((light + noise).clamp(0, 1), light)
    return Shot(*(2 * v[:, None] - 1 for v in film), layer, back, out)


def write(path, video, crf=17):
    "A grey clip (f 1 h w) in [-1, 1] as H.264 in a Matroska file."
    import av

    pixels = ((video[:, 0] + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    with av.open(str(path), "w") as box:
        stream = box.add_stream("libx264", rate=25, options=dict(crf=str(crf), preset="veryslow"))
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:], "gray"
        for picture in pixels:
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            box.mux(stream.encode(frame))
        box.mux(stream.encode())


def films():
    "The folder with the course's own shots; rendered first where it is missing."
    folder = pathlib.Path(__file__).resolve().parent.parent / "films"
    if not folder.is_dir():
        main([folder])
    return folder


def main(argv=None):
    folder = pathlib.Path((argv or sys.argv[1:] or ["films"])[0])
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(SHOTS):
        write(folder / f"shot{seed}.mkv", shot(seed).video)


if __name__ == "__main__":
    main()
