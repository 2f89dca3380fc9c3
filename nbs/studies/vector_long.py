"""vector: long films by windows, as the paper's: 16 frames in the network, the first `keep` of them known. One world (a disk
that bounces off the walls, `bouncing`); the small U-Net at p = 0.2, and a video transformer at p = 0.2 and 1; from 8 true frames 56 new ones are drawn, 64 in all.

    python nbs/studies/vector_long.py             all arms, 3 seeds: about 45 minutes on one core
    python nbs/studies/vector_long.py --arms former1 --seeds 0 --out parts/vector_long_former1_0.csv      one job
    python nbs/studies/vector_long.py --join parts      the tables of single jobs, made into one
    python nbs/studies/vector_long.py --quick     a few seconds, to see that it runs
Writes vector_long.csv beside this file (or --out), one row an arm, seed, keep, metric and stretch of 8 frames (`frame` is the first), with the 95% interval
over films (low, high). Metrics: `light`, the film's light in that stretch over that of its 8 true frames (truth: 1); `misfit`, the mean squared distance of a
frame from the nearest disk of any place, radius and greys; `acceleration` of the disk's centre, median, pixels a frame^2 (truth: near 0, but at walls).
keep -1: 64 true frames in the place of the film. keep 0: 16 frames from nothing. vector_long_curve.csv: the training losses."""

import functools

import record
import torch
import vector_times as vt
from einops import rearrange

from vidiffedu.core import seeded
from vidiffedu.data import Leaves, bouncing, draw_leaves
from vidiffedu.denoise import FromV, v_weight
from vidiffedu.nets import JoinedUNet, VideoTransformer
from vidiffedu.vector import FVDM, centre_of_light

WINDOW, PAST, FILM = 16, 8, 64
SHOWN = ("arm", "keep", "metric", "frame", "value", "low", "high")
ARMS = {"unet0.2": ("unet", 0.2), "former0.2": ("former", 0.2), "former1": ("former", 1.0)}


def disks(n, generator=None, frames=WINDOW):
    return bouncing(n, frames, 16, kinds=(0,), generator=generator)


def model_of(arm):
    "The small U-Net of the estimate, or a video transformer of v, which has a place for each time."
    kind, p = ARMS[arm]
    if kind == "unet":
        return FVDM(JoinedUNet(frames=WINDOW), vt.PATH, p=p, weight=vt.wc.weight)
    how = dict(channels=1, size=16, frames=WINDOW, patch=4, width=96, depth=4, heads=4)
    net = FromV(VideoTransformer(**how), vt.PATH)
    return FVDM(net, vt.PATH, p=p, weight=v_weight(vt.PATH))


def training(a, arm):
    "The transformer's steps are dearer and say more: fewer of them, at a lower rate."
    unet = ARMS[arm][0] == "unet"
    steps, lr = (a.steps, a.lr) if unet else (a.former_steps, a.former_lr)
    return dict(steps=steps, lr=lr, batch_size=a.batch_size, ema=0.995)


# ---------------------------------------------------------------- measures


def above_ground(x):
    "The light above each frame's median, as a clip on black."
    ground = x.flatten(2).median(2).values[:, :, None, None, None]
    return (x - ground).clamp_min(0) - 1


def disk_misfit(x, steps=60):
    "Mean squared distance of every frame from the nearest disk: (b f c h w) -> (b f)."
    b, frames = len(x), rearrange(x, "b f c h w -> (b f) 1 c h w")
    at, _ = centre_of_light(above_ground(frames))
    flat = frames.flatten(1)
    start = [at[:, 0], torch.full((len(flat), 1), 3.5), flat.amax(1, True), flat.median(1, True)[0]]
    found = torch.cat(start, 1).requires_grad_()

    def paint():
        place, radius, grey, ground = found.split([2, 1, 1, 1], 1)
        radius = radius.clamp_min(0.5)
        leaf = Leaves(place[:, None], 0 * place[:, None], radius, grey, ground[:, 0])
        return draw_leaves(leaf, 1, 16)

    adam = torch.optim.Adam([found], lr=0.05)
    with torch.enable_grad():
        for _ in range(steps):
            adam.zero_grad()
            off = (paint() - frames).square().mean((1, 2, 3, 4))
            off.sum().backward()
            adam.step()
    return off.detach().reshape(b, -1)


def judge(films, keep):
    "Rows: light, misfit and acceleration in stretches of 8 frames."
    light = (above_ground(films) + 1).sum((2, 3, 4))
    centre, _ = centre_of_light(above_ground(films))
    bend = centre.diff(dim=1, n=2).norm(dim=-1)  # entry i is about frame i + 1
    each = dict(
        light=light / light[:, :PAST].mean(1, keepdim=True),
        misfit=disk_misfit(films),
        acceleration=torch.cat([bend[:, :1], bend, bend[:, -1:]], 1),
    )
    for metric, values in each.items():
        for first in range(0, films.shape[1], 8):
            part = values[:, first : first + 8]
            part = part.median(1).values if metric == "acceleration" else part.mean(1)
            found = record.interval(part)
            yield dict(keep=keep, metric=metric, frame=first, **found, n=len(films))


def measure(a, model):
    true = disks(a.n, seeded(3000), FILM)
    yield from judge(true, -1)
    yield from judge(model.generate((a.n, WINDOW, 1, 16, 16), generator=seeded(3001)), 0)
    for keep in a.keeps:
        how = dict(window=WINDOW, keep=keep, generator=seeded(3002))
        new = model.forecast(true[:, :PAST], FILM - PAST, **how)[0]
        yield from judge(torch.cat([true[:, :PAST], new], 1), keep)


# ---------------------------------------------------------------- the study


def settings(argv):
    return record.arguments(
        __doc__,
        "vector_long",
        argv,
        quick=dict(arms=["former1"], seeds=[0], steps=20, former_steps=9, n=4, keeps=[8]),
        arms=list(ARMS),
        seeds=[0, 1, 2],
        steps=1800,
        batch_size=32,
        lr=4e-3,
        former_steps=900,
        former_lr=1e-3,
        n=32,
        keeps=[1, 8],
        join="",
        weights="",
    )


def main(argv=None):
    a = settings(argv)
    if a.join:
        return record.join_parts(a, "vector_long", ("arm", "seed"))
    table, curves = record.Table(a.out), record.Table(record.beside(a.out, "_curve.csv"))
    for job in record.todo(record.jobs(arm=a.arms, seed=a.seeds), table):
        make, how = functools.partial(model_of, job["arm"]), training(a, job["arm"])
        run = record.train(make, disks, job["seed"], **how)
        curves.put(job, record.curve(run.losses, 50), record.provenance())
        record.keep_weights(a, job, run.ema, f"vector_long_{job['arm']}")
        table.put(job, list(measure(a, run.ema)), record.facts(run))
        record.tell(table.of(job), *SHOWN)


if __name__ == "__main__":
    main()
