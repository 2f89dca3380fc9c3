"""RaMViD with the paper's kind of network (a U-Net of 3-D convolutions with joint attention) on clips of 16 frames, trained for
minutes on a GPU: is prediction better than what needs no network, and than the replacement method?

    python nbs/studies/masks_long.py               all arms and seeds, 8 minutes of training each
    python nbs/studies/masks_long.py --arms masks --seeds 0 --out parts/masks_long_masks_0.csv    one of them
    python nbs/studies/masks_long.py --quick
    python nbs/studies/masks_long.py --join FOLDER     all masks_long_*.csv of a folder into masks_long.csv
World: one leaf that drifts, 16 frames of 16 x 16 (`drifting_leaf`), new clips in every step. Arms: `masks` (K = 4, p_none = 0.25: the paper's), `free`
(p_none = 1: an unconditional model, which only the replacement method can use for prediction). The number of steps is what fits into the seconds,
measured at the start. One row a task, metric and way of completing; squared errors of one completion over the unknown pixels, in [-1, 1], with 95 %
intervals over test clips. Weights of seed 0 in half precision: masks_long_ARM.safetensors beside the table."""

import pathlib
import time

import record
import torch

from vidiffedu.core import seeded
from vidiffedu.crps import judge_fill
from vidiffedu.data import drifting_leaf
from vidiffedu.denoise import FromV, v_weight
from vidiffedu.masks import RaMViD, fill_by_replacement
from vidiffedu.nets import VideoUNet
from vidiffedu.paths import VP
from vidiffedu.train import fit
from vidiffedu.vector import guesses

PATH, F = VP(), 16
TASKS = {
    "predict 12 from 4": [*range(4)],
    "predict 14 from 2": [*range(2)],
    "predict 11 from 5": [*range(5)],
    "fill 14 between 2": [0, 15],
    "raise the rate": [0, 5, 10, 15],
    "one known frame": [0],
}
ARMS = {"masks": 0.25, "free": 1.0}


def network():
    return VideoUNet(channels=1, width=24, mults=(1, 2, 2), blocks=1, attention=(1, 2))


def model(arm):
    return RaMViD(FromV(network(), PATH), PATH, p_uncond=ARMS[arm], weight=v_weight(PATH))


def clips(n, generator=None):
    device = generator.device if generator is not None else "cpu"
    return drifting_leaf(n, F, generator=generator, device=device)


def replacement(model, steps):
    "The replacement method as a `fill`."

    def fill(x, known, n_samples=1, generator=None):
        once = lambda: fill_by_replacement(model.denoise, PATH, x, known, steps, generator)
        return torch.stack([once() for _ in range(n_samples)])

    return fill


def constants(x, known):
    "Squared error of guesses without a network: {name: one number a clip}."
    said = guesses(x, known)
    said["mean clip"] = clips(4096, seeded(1002)).mean(0).expand_as(x)
    return {k: (v - x)[:, ~known].square().flatten(1).mean(1) for k, v in said.items()}


def marks(arm, trained, n, samples, steps, device):
    "Rows: every task, by the model's own way and by replacement; guesses once."
    test = clips(n, seeded(1000))
    for task, at in TASKS.items():
        known = torch.zeros(F, dtype=torch.bool)
        known[at] = True
        ways = {"replacement": replacement(trained, steps)}
        if arm == "masks":
            own = lambda *x, **how: trained.fill(*x, steps=steps, **how)
            ways = {"held": own, **ways}
            for name, error in constants(test, known).items():
                yield dict(task=task, way=name, metric="mse", **record.interval(error), n=n)
        for way, fill in ways.items():
            g = torch.Generator(device).manual_seed(1001)
            got = judge_fill(fill, test.to(device), known.to(device), samples, generator=g)
            for m in ("mse", "crps"):
                found = dict(value=got[m], low=got[m + "_low"], high=got[m + "_high"])
                yield dict(task=task, way=way, metric=m, **found, n=n, samples=samples)


def rate(arm, batch, device):
    "Training steps a second, after a warm-up."
    probe, how = model(arm).to(device), dict(batch_size=batch, progress=False)
    fit(probe, clips, steps=5, **how)
    start = time.time()
    fit(probe, clips, steps=25, **how)
    return 25 / (time.time() - start)


def join(folder):
    parts = sorted(folder.glob("masks_long_*.csv"))
    record.join(record.HERE / "masks_long.csv", parts, ("arm", "seed"))


def settings(argv):
    return record.arguments(
        __doc__,
        "masks_long",
        argv,
        quick=dict(arms=["masks"], seeds=[0], seconds=0.0, batch_size=4, n=4, samples=2, looks=4),
        arms=list(ARMS),
        seeds=[0, 1, 2],
        seconds=480.0,
        batch_size=64,
        n=96,
        samples=4,
        looks=50,
        join="",
    )


def main(argv=None):
    a = settings(argv)
    if a.join:
        return join(pathlib.Path(a.join))
    device, table = "cuda" if torch.cuda.is_available() else "cpu", record.Table(a.out)
    for job in record.todo(record.jobs(arm=a.arms, seed=a.seeds), table):
        steps = max(3, int(a.seconds * rate(job["arm"], a.batch_size, device) if a.seconds else 3))
        how = dict(
            steps=steps, batch_size=a.batch_size, lr=1e-3, ema=0.9995 if steps > 5000 else 0.99
        )
        run = record.train(lambda: model(job["arm"]).to(device), clips, job["seed"], **how)
        facts = dict(batch=a.batch_size, parameters=sum(p.numel() for p in run.ema.parameters()))
        found = list(marks(job["arm"], run.ema, a.n, a.samples, a.looks, device))
        table.put(job, found, {**facts, **record.facts(run)})
        record.tell(found, "task", "way", "metric", "value", "low", "high")
        if a.out and job["seed"] == 0:
            save_half(run.ema, a.out.with_name(f"masks_long_{job['arm']}.safetensors"))


def save_half(model, path):
    "The weights in half precision."
    from safetensors.torch import save_file

    save_file({k: v.half().cpu().contiguous() for k, v in model.state_dict().items()}, path)


if __name__ == "__main__":
    main()
