"""vector: class labels and guidance, in miniature. Four classes of bouncing sprites (disk, ring, square, cross); the label goes into the network as four
plain frames in front of the clip, one of them white, or none (10 % of training clips): the network learns both laws.

    python nbs/studies/vector_classes.py             3 seeds: about 9 minutes on one core
    python nbs/studies/vector_classes.py --seeds 0 --out parts/vector_classes_0.csv      one job
    python nbs/studies/vector_classes.py --join parts      the tables of single jobs, made into one
    python nbs/studies/vector_classes.py --quick     a few seconds, to see that it runs
Writes vector_classes.csv beside this file (or --out), one row a seed, guidance and metric, with 95% intervals (low, high). The estimate is
x_none + guidance (x_label - x_none): 0 ignores the label, 1 is the labelled law. Metrics: `right`, the share of generated clips whose nearest sprite in most
frames is of the asked class; `misfit`, their squared distance from it; `beyond`, the share of pixels outside [-1.05, 1.05]; `spread` of the sprites'
brightness and of their place, over that of true sprites. guidance -1: true clips in the place of generated ones. vector_classes_curve.csv: the losses."""

import record
import torch
import vector_times as vt
from einops import rearrange
from vector_long import above_ground

from vidiffedu.core import seeded
from vidiffedu.data import Sprites, bouncing_roll, bouncing_state, draw_sprites
from vidiffedu.denoise import denoising_loss
from vidiffedu.intervals import wilson
from vidiffedu.nets import JoinedUNet
from vidiffedu.vector import FVDM, centre_of_light

KINDS, FRAMES = 4, 5
SHOWN = ("guidance", "metric", "value", "low", "high")


def sprites(n, generator=None):
    "Clips and their classes."
    state = bouncing_state(n, 16, generator=generator)
    later, _ = bouncing_roll(state, FRAMES - 1, generator)
    track = torch.cat([state.position[:, None], later], 1)
    return draw_sprites(state, track), state.kind[:, 0].long()


def label_frames(kind, size=16):
    "(n,) classes, KINDS for none -> (n KINDS 1 size size): the frame of the class is white."
    hot = 2.0 * (kind[:, None] == torch.arange(KINDS, device=kind.device)) - 1
    return rearrange(hot, "n k -> n k 1 1 1").expand(-1, -1, 1, size, size)


def labelled(n, generator=None):
    "Training clips: the label in front, missing from one in ten."
    clips, kind = sprites(n, generator)
    none = torch.rand(n, generator=generator, device=clips.device) < 0.1
    return torch.cat([label_frames(torch.where(none, KINDS, kind)), clips], 1)


class Labelled(FVDM):
    "FVDM whose clips begin with KINDS frames that say the class."

    def loss(self, clip, generator=None):
        label, clip = clip[:, :KINDS], clip[:, KINDS:]
        t = self.times(*clip.shape[:2], generator=generator, device=clip.device)
        say = lambda x_t, t, y: self.net(x_t, t, label)
        return denoising_loss(say, self.path, clip, t, weight=self.weight, generator=generator)

    def guided(self, kind, guidance):
        "denoise(x_t, t, None) for clips of these classes."
        label, none = label_frames(kind), label_frames(torch.full_like(kind, KINDS))

        def denoise(x_t, t, y=None):
            free = self.net(x_t, t, none)
            return free if guidance == 0 else free + guidance * (self.net(x_t, t, label) - free)

        return denoise


def model_of():
    net = JoinedUNet(frames=KINDS + FRAMES)
    return Labelled(net, vt.PATH, p=0.2, weight=vt.wc.weight)


# ---------------------------------------------------------------- measures


def nearest_sprite(x):
    "Class of the nearest sprite by most frames, and the squared distance: (b f c h w) -> (b,), (b,)."
    b, frames = len(x), rearrange(x, "b f c h w -> (b f) 1 c h w")
    at, _ = centre_of_light(above_ground(frames))
    low, high = frames.flatten(1).median(1)[0], frames.flatten(1).amax(1)
    off = torch.stack([_distance(frames, at, low, high, k) for k in range(KINDS)], 1)
    votes = torch.nn.functional.one_hot(off.argmin(1).reshape(b, -1), KINDS).sum(1)
    return votes.argmax(1), off.min(1).values.reshape(b, -1).mean(1)


def _distance(frames, at, low, high, kind):
    "Of each frame from the best of nine radii, with the grey of the brightest pixel."
    n, found = len(frames), []
    for radius in torch.linspace(2.75, 4.25, 13).tolist():
        one = torch.ones(n, 1)
        state = Sprites(at, 0 * at, radius * one, kind * one, high[:, None], low, 16)
        found.append((draw_sprites(state, at[:, :, None]) - frames).square().mean((1, 2, 3, 4)))
    return torch.stack(found).amin(0)


def brightness_and_place(x):
    return x.flatten(1).amax(1), centre_of_light(above_ground(x))[0][:, 0]


def judge(x, kind, guidance, true):
    found, off = nearest_sprite(x)
    hits, n = int((found == kind).sum()), len(x)
    low, high = wilson(hits, n)
    rows = dict(right=dict(value=hits / n, low=low, high=high), misfit=record.interval(off))
    rows["beyond"] = record.interval((x.abs() > 1.05).float().flatten(1).mean(1))
    for name, mine, theirs in zip(("grey", "place"), *map(brightness_and_place, (x, true))):
        ratio = float((mine.var(0).sum() / theirs.var(0).sum()).sqrt())
        rows[f"spread of {name}"] = dict(value=ratio, low=None, high=None)
    for metric, values in rows.items():
        yield dict(guidance=guidance, metric=metric, **values, n=n)


@torch.no_grad()
def measure(a, model):
    true, kind = sprites(a.n, seeded(4000))
    again, _ = sprites(a.n, seeded(4001))
    yield from judge(true, kind, -1, again)
    for guidance in a.guidance:
        model.denoise = model.guided(kind, guidance)
        x = model.generate((a.n, FRAMES, 1, 16, 16), generator=seeded(4002))
        yield from judge(x, kind, guidance, true)


# ---------------------------------------------------------------- the study


def settings(argv):
    return record.arguments(
        __doc__,
        "vector_classes",
        argv,
        quick=dict(seeds=[0], steps=20, n=8, guidance=[1.0]),
        seeds=[0, 1, 2],
        steps=1500,
        batch_size=32,
        lr=4e-3,
        n=128,
        guidance=[0.0, 1.0, 2.0, 4.0, 7.0],
        join="",
        weights="",
    )


def main(argv=None):
    a = settings(argv)
    if a.join:
        return record.join_parts(a, "vector_classes", ("arm", "seed"))
    table, curves = record.Table(a.out), record.Table(record.beside(a.out, "_curve.csv"))
    for job in record.todo(record.jobs(arm=["p0.2"], seed=a.seeds), table):
        how = dict(steps=a.steps, batch_size=a.batch_size, lr=a.lr, ema=0.995)
        run = record.train(model_of, labelled, job["seed"], **how)
        curves.put(job, record.curve(run.losses, 50), record.provenance())
        record.keep_weights(a, job, run.ema, "vector_classes")
        table.put(job, list(measure(a, run.ema)), record.facts(run))
        record.tell(table.of(job), *SHOWN)


if __name__ == "__main__":
    main()
