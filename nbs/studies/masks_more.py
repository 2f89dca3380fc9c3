"""masks: what the paper names and `whole_clips.py` has not: p_none = 0.5, conditioning by concatenation, the cosine schedule, the VE form,
more known frames in the test than in training, a training set that is small, long films by windows.

    python nbs/studies/masks_more.py --arms concat --seeds 0 --out parts/masks_more_concat_0.csv      one job, about 4 minutes on one core
    python nbs/studies/masks_more.py --join parts       the tables of single jobs, made into one
    python nbs/studies/masks_more.py --quick --arms K5
Arms with 5 frames, trained and tested as those of `whole_clips.py` (its clips, network, steps and tasks): `p0.5`; `concat`, which is given the noisy frames,
the known frames and the mask side by side in three channels; `cosine`; `ve`, the paper's own form, the network preconditioned. Arms with 8 frames:
`K4`, `K5`, which have seen up to 4 or 5 known frames in training, tested on 3 from 5 and 4 from 4. `few32`, `few512`: trained on so many clips, again and
again; generated clips are compared with the nearest training clip and with the nearest of as many other clips. `long`: 8 frames of a disk that
bounces off the walls, K = 5; from 5 true frames 40 new ones by windows of 8 that keep 5, or 1.
Rows: arm, seed, task, metric, value with 95% interval over test clips."""

import functools

import record
import torch
import whole_clips as wc

from vidiffedu.core import expand, seeded, to_uint8
from vidiffedu.crps import judge_fill
from vidiffedu.data import bouncing, drifting_leaf
from vidiffedu.denoise import Preconditioned, v_weight
from vidiffedu.masks import RaMViD
from vidiffedu.nets import JoinedUNet
from vidiffedu.paths import VE, Cosine
from vidiffedu.vector import guesses

PAST, FILM = 5, 45
EIGHT = {"predict 4 from 4": 4, "predict 3 from 5": 5}
COSINE, WAVES = Cosine(), VE(0.02, 20.0)


class Concat(RaMViD):
    "Known frames in a channel of their own, the mask in another: conditioning by concatenation."

    def denoise(self, x_t, t, y=None):
        known = expand(torch.as_tensor(t, device=x_t.device) == 0, x_t)
        parts = x_t.masked_fill(known, 0), x_t.masked_fill(~known, 0), known.to(x_t).expand_as(x_t)
        x_hat = self.net(torch.cat(parts, 2), torch.as_tensor(t).amax(1), None)[:, :, :1]
        return torch.where(known, x_t, x_hat)


def ve_weight(t):
    "That of the preconditioned network's own output, for pixels with a standard deviation of 0.5."
    c2 = WAVES.c(t) ** 2
    return torch.where(c2 > 0, (c2 + 0.25) / (0.25 * c2.clamp_min(1e-12)), 0.0)


def in_ve():
    net = Preconditioned(JoinedUNet(frames=5), WAVES, 0.5)
    return RaMViD(net, WAVES, weight=ve_weight)


def in_cosine():
    return RaMViD(JoinedUNet(frames=5), COSINE, weight=v_weight(COSINE, floor=0.2))


def known_up_to(K):
    return wc.ramvid(JoinedUNet(frames=8), max_known=K)


MAKE = {
    "p0.5": lambda: wc.ramvid(JoinedUNet(frames=5), p_uncond=0.5),
    "concat": lambda: Concat(JoinedUNet(frames=5, channels=3), wc.PATH, weight=wc.weight),
    "cosine": in_cosine,
    "ve": in_ve,
    "K4": functools.partial(known_up_to, 4),
    "K5": functools.partial(known_up_to, 5),
    "few32": lambda: wc.ramvid(JoinedUNet(frames=5)),
    "few512": lambda: wc.ramvid(JoinedUNet(frames=5)),
    "long": functools.partial(known_up_to, 5),
}


def eight(n, generator=None):
    return drifting_leaf(n, 8, generator=generator)


def disks(n, generator=None, frames=8):
    return bouncing(n, frames, 16, kinds=(0,), generator=generator)


def clips_of(arm):
    "What the arm is trained on: a function, or the same clips again and again."
    if arm.startswith("few"):
        return wc.leaves(int(arm[3:]), seeded(7))
    return {"K4": eight, "K5": eight, "long": disks}.get(arm, wc.leaves)


# ---------------------------------------------------------------- measures


def from_more(model, a):
    "Rows: eight frames, the first four or five known, beside guesses without a network."
    test, mean = eight(a.n, seeded(1000)), eight(4096, seeded(1002)).mean(0)
    for task, k in EIGHT.items():
        known = torch.arange(8) < k
        got = judge_fill(model.fill, test, known, n_samples=2, generator=seeded(1001))
        found = dict(value=got["mse"], low=got["mse_low"], high=got["mse_high"])
        yield dict(task=task, metric="mse", **found, n=a.n)
        said = {**guesses(test, known), "mean clip": mean.expand_as(test)}
        for name, v in said.items():
            error = (v - test)[:, ~known].square().flatten(1).mean(1)
            yield dict(task=task, metric=name, **record.interval(error), n=a.n)


def distances(x, clips):
    "Mean squared distance of each clip of x to each of `clips`: (n, m)."
    return torch.cdist(x.flatten(1), clips.flatten(1)).square() / x[0].numel()


def nearness(model, arm, a, out):
    "Rows: generated clips and new true ones, to the training clips and to as many others."
    train = clips_of(arm)
    other, true = wc.leaves(len(train), seeded(8)), wc.leaves(a.n, seeded(1000))
    made = model.generate((a.n, 5, 1, 16, 16), generator=seeded(1003))
    for name, x in dict(generated=made, true=true).items():
        near, far = distances(x, train).min(1).values, distances(x, other).min(1).values
        closer = (near < far).float()
        for metric, v in (("training clip", near), ("other clip", far), ("share closer", closer)):
            yield dict(task=name, metric=metric, **record.interval(v), n=a.n)
    if out is not None:
        best = distances(made, train).argmin(1)[:6]
        record_clips(out, made=made[:6], nearest=train[best])


def record_clips(out, **clips):
    "Some clips as bytes, beside the table."
    from safetensors.torch import save_file

    clips = {name: to_uint8(v).contiguous() for name, v in clips.items()}
    save_file(clips, record.beside(out, "_clips.safetensors"))


def films(model, a, out):
    "Rows: light of long films over that of the true past, in stretches of 5 frames, and misfit."
    import vector_long as vl

    true = disks(a.films, seeded(3000), FILM)
    made = {"truth": true}
    for keep in (5, 1):
        how = dict(window=8, keep=keep, generator=seeded(3002))
        new = model.forecast(true[:, :PAST], FILM - PAST, **how)[0]
        made[f"keep {keep}"] = torch.cat([true[:, :PAST], new], 1)
    for name, x in made.items():
        light = (vl.above_ground(x) + 1).sum((2, 3, 4))
        each = dict(light=light / light[:, :PAST].mean(1, keepdim=True), misfit=vl.disk_misfit(x))
        for metric, v in each.items():
            for first in range(0, FILM, 5):
                found = record.interval(v[:, first : first + 5].mean(1))
                yield dict(task=name, metric=metric, frame=first, **found, n=len(x))
    if out is not None:
        record_clips(out, **{name.replace(" ", "_"): x[:2] for name, x in made.items()})


def measure(model, arm, a):
    if arm in ("K4", "K5"):
        return list(from_more(model, a))
    if arm.startswith("few"):
        return list(nearness(model, arm, a, a.out))
    if arm == "long":
        return list(films(model, a, a.out))
    return [*wc.tasks(model.fill, a.n, a.samples), wc.wobble(model, a.n)]


# ---------------------------------------------------------------- the study


def settings(argv):
    return record.arguments(
        __doc__,
        "masks_more",
        argv,
        quick=dict(arms=["K5"], seeds=[0], steps=3, n=4, films=2, samples=2),
        arms=list(MAKE),
        seeds=[0, 1, 2],
        steps=2000,
        batch_size=32,
        lr=4e-3,
        n=192,
        films=32,
        samples=8,
        join="",
    )


def main(argv=None):
    a = settings(argv)
    if a.join:
        return record.join_parts(a, "masks_more", ("arm", "seed"))
    table = record.Table(a.out)
    for job in record.todo(record.jobs(seed=a.seeds, arm=a.arms), table):
        how = dict(steps=a.steps, batch_size=a.batch_size, lr=a.lr, ema=0.995)
        arm = job["arm"]
        run = record.train(MAKE[arm], clips_of(arm), job["seed"], **how)
        last = float(run.losses[-100:].mean())
        table.put(job, measure(run.ema, arm, a), dict(loss=last, **record.facts(run)))
        record.tell(table.of(job), "arm", "task", "metric", "value", "low", "high")


if __name__ == "__main__":
    main()
