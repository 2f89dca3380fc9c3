"""RaMViD with the paper's kind of network (a U-Net of 3-D convolutions with joint attention) on clips of 16 frames, trained for
minutes on a GPU: is prediction better than what needs no network, and than the replacement method?

    python nbs/studies/masks_long.py --arm masks --seed 0 --seconds 480 --out masks_long_masks_0.csv
    python nbs/studies/masks_long.py --quick
    python nbs/studies/masks_long.py --join FOLDER     all masks_long_*.csv of a folder into masks_long.csv
World: one leaf that drifts, 16 frames of 16 x 16 (`drifting_leaf`), new clips in every step. Arms: `masks` (K = 4, p_none = 0.25: the paper's), `free`
(p_none = 1: an unconditional model, which only the replacement method can use for prediction). The number of steps is what fits into the seconds,
measured at the start. One row a task, metric and way of completing; squared errors of one completion over the unknown pixels, in [-1, 1], with 95 %
intervals over test clips. Weights of seed 0 in half precision: masks_long_ARM.safetensors beside the table."""

import argparse
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
    table = record.Table(record.HERE / "masks_long.csv")
    for part in sorted(folder.glob("masks_long_*.csv")):
        for row in record.Table(part).rows:
            job = {k: row[k] for k in ("arm", "seed", "task", "way", "metric")}
            table.put(job, [row])


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arm", choices=ARMS, default="masks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--n", type=int, default=96)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--join", type=pathlib.Path)
    a = parser.parse_args(argv)
    if a.join:
        return join(a.join)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(a.seed)
    trained = model(a.arm).to(device)
    steps = 3 if a.quick else int(a.seconds * rate(a.arm, a.batch, device))
    print(sum(p.numel() for p in trained.parameters()), "parameters,", steps, "steps", flush=True)
    batch, n, samples, looks = (4, 4, 2, 4) if a.quick else (a.batch, a.n, 4, 50)
    how = dict(lr=1e-3, ema=0.9995 if steps > 5000 else 0.99, seed=a.seed)
    run = fit(trained, clips, steps=steps, batch_size=batch, progress=False, **how)
    facts = dict(batch=batch, parameters=sum(p.numel() for p in trained.parameters()))
    facts |= record.facts(run)
    rows = [dict(r, **facts) for r in marks(a.arm, run.ema, n, samples, looks, device)]
    table = record.Table(a.out)
    table.put(dict(arm=a.arm, seed=a.seed), rows)
    record.tell(table.rows, "task", "way", "metric", "value", "low", "high")
    if a.out and a.seed == 0:
        from safetensors.torch import save_file

        half = {k: v.half().cpu().contiguous() for k, v in run.ema.state_dict().items()}
        save_file(half, a.out.with_name(f"masks_long_{a.arm}.safetensors"))


if __name__ == "__main__":
    main()
