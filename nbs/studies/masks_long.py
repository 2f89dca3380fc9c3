"""RaMViD with the paper's kind of network (a U-Net of 3-D convolutions with joint attention) on clips of 16 frames: is prediction
better than what needs no network, and than the replacement method?

    python nbs/studies/masks_long.py                    two trainings of 15 minutes, on a GPU or on 2 CPU cores
    python nbs/studies/masks_long.py --seconds 185 --limit 500 --reserve 25 --graph 1 --batch-size 64 --n 512 --samples 4       the committed run
    python nbs/studies/masks_long.py --quick
    python nbs/studies/masks_long.py --arms masks --weights nbs/checkpoints/masks_long.safetensors --tasks film --n 20 --looks 12 --out OTHER.csv
                                            no training: what a run had no time to measure
World: one leaf that drifts, 16 frames of 16 x 16 (`drifting_leaf`), new clips in every step, drawn where the network is. Arms, trained one after the
other for equally many seconds: `masks` (K = 4, p_none = 0.25: the paper's), `free` (p_none = 1: an unconditional model, for the replacement method, and
with the known frames held as they are, which its training never showed). The network predicts v. The learning rate follows the clock: up to 4% of the seconds it rises, from 40% on it falls to 0.
On a GPU in bfloat16; with `--graph 1` the step is recorded once and replayed, since a step of many small kernels waits for the processor.
Rows, one a task and way of completing: squared error of one completion over the unknown pixels, in [-1, 1], CRPS of all, 95% intervals over test clips
(the same for all ways). Written after every one of them, beside them the weights in half precision and some completions, as bytes: a run that is cut keeps
what it has. `--limit`: seconds of the whole run after which no more is measured.

The committed table is of one H100, on 2026-11-27: 185 seconds of training for each arm, 9,420 steps of 64 clips, all rows with 512 test clips, 4 completions
a clip, 25 steps; `free` was trained again later that day (9,400 steps), and only its held row of one known frame is not there. The weights of `masks` are nbs/checkpoints/masks_long.safetensors.
masks_long_more.csv: films of the same network, measured afterwards on a CPU (20 films, 12 steps); and, as the arm `masks, 45 s`, three rows of an earlier run
of 45 seconds, 2,300 steps, with the same test clips. On 2 CPU cores the study runs unchanged, and has only been tried there with a few steps."""

import copy
import math
import time

import record
import torch

from vidiffedu.core import seeded, to_uint8
from vidiffedu.crps import judge_fill
from vidiffedu.data import drifting_leaf
from vidiffedu.denoise import FromV, v_weight
from vidiffedu.kernels import plain
from vidiffedu.masks import RaMViD, fill_by_replacement
from vidiffedu.nets import VideoUNet
from vidiffedu.paths import VP
from vidiffedu.train import ema_decay
from vidiffedu.vector import guesses

PATH, F = VP(), 16
TASKS = {
    "predict 12 from 4": [*range(4)],
    "fill 14 between 2": [0, 15],
    "raise the rate": [0, 5, 10, 15],
    "predict 11 from 5": [*range(5)],
    "predict 14 from 2": [*range(2)],
    "one known frame": [0],
}
ARMS = {"masks": 0.25, "free": 1.0}
FIRST, OTHERS = list(TASKS)[:3], list(TASKS)[3:]
AT_ONCE = {"masks": [("held", FIRST)], "free": [("replacement", FIRST)]}  # after training
LATER = [  # when all are trained
    ("masks", [("held", OTHERS), ("replacement", FIRST)]),
    ("free", [("held", FIRST), ("replacement", OTHERS), ("held", OTHERS)]),
]
SHOWN = list(TASKS)[:2]  # tasks of which completions are kept


def network():
    return VideoUNet(channels=1, width=24, mults=(1, 2), blocks=1, attention=(1,), heads=3)


def model(arm):
    return RaMViD(FromV(network(), PATH), PATH, p_uncond=ARMS[arm], weight=v_weight(PATH))


def known_of(task):
    known = torch.zeros(F, dtype=torch.bool)
    known[TASKS[task]] = True
    return known


def autocast(device):
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda", cache_enabled=False)


# ---------------------------------------------------------------- training by the clock


def factor(share):
    "On the learning rate, after this share of the seconds."
    fall = max(0.0, min(1.0, (share - 0.4) / 0.6))
    return min(1.0, share / 0.04 + 1e-3) * 0.5 * (1 + math.cos(math.pi * fall))


class Trainer:
    "A model, the average of its weights, and a step that can be recorded."

    def __init__(self, model, batch, device):
        self.model, self.batch, self.device = model.to(device).train(), batch, device
        self.ema = copy.deepcopy(model).eval().requires_grad_(False)
        self.params, self.average = list(model.parameters()), list(self.ema.parameters())
        gpu = torch.device(device).type == "cuda"
        self.lr = torch.zeros((), device=device) if gpu else 0.0
        how = dict(lr=self.lr, weight_decay=0.0, fused=True) if gpu else dict(weight_decay=0.0)
        self.optimizer = torch.optim.AdamW(self.params, capturable=gpu, **how)
        self.graph, self.gpu, self.loss, self.done = None, gpu, None, 0

    def work(self):
        "Draw, loss, backward, clip, update: all on the device."
        self.optimizer.zero_grad(set_to_none=True)
        clips = drifting_leaf(self.batch, F, device=self.device)
        with autocast(self.device):
            loss = self.model.loss(clips)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.params, 1.0)
        self.optimizer.step()
        self.loss = loss.detach()

    def warm_up(self, record_it):
        "Some steps with a learning rate of 0; then the step is recorded, if wanted."
        if not self.gpu:
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(4):
                self.work()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        self.optimizer.zero_grad(set_to_none=True)
        if record_it:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.work()
            self.graph = graph

    def step(self, rate):
        if self.gpu:
            self.lr.fill_(rate)
        else:
            self.optimizer.param_groups[0]["lr"] = rate
        self.work() if self.graph is None else self.graph.replay()
        torch._foreach_lerp_(self.average, self.params, 1 - ema_decay(self.done, 0.998))
        self.done += 1


def train(arm, seed, a, device):
    "The averaged model, its training curve, steps and seconds."
    torch.manual_seed(seed)
    trainer, every = Trainer(model(arm), a.batch_size, device), 20 if "cuda" in str(device) else 1
    trainer.warm_up(a.graph)
    begun, share, curve = time.time(), 0.0, []
    seconds = max(1e-9, min(a.seconds, a.began + a.limit - a.reserve - begun))
    tell(a, f"{arm}: ready{', recorded' if trainer.graph is not None else ''}")
    while share < 1 and trainer.done < a.most:
        trainer.step(a.lr * factor(share))
        if trainer.done % every == 0:
            loss = float(trainer.loss)  # waits for the device, so that the clock is right
            if not math.isfinite(loss):
                raise SystemExit(f"loss {loss} at step {trainer.done}")
            share = (time.time() - begun) / seconds
            curve.append(dict(step=trainer.done, loss=loss, seconds=time.time() - begun))
            if trainer.done % (25 * every) == 0:
                tell(a, f"{arm}: step {trainer.done}, loss {loss:.4f}, {share:.0%}")
    tell(a, f"{arm}: {trainer.done} steps of {a.batch_size} clips, loss {curve[-1]['loss']:.4f}")
    return trainer.ema, curve, trainer.done, time.time() - begun


def tell(a, words):
    print(f"[{time.time() - a.began:6.1f} s] {words}", flush=True)


# ---------------------------------------------------------------- measuring


def constants(x, mean, task):
    "Rows of the guesses without a network."
    known = known_of(task)
    said = guesses(x, known)
    said["mean clip"] = mean.expand_as(x)
    for name, v in said.items():
        error = (v - x)[:, ~known].square().flatten(1).mean(1)
        yield dict(task=task, way=name, metric="mse", **record.interval(error), n=len(x))


def completer(trained, way, looks, kept, device):
    "A `fill` of this way, on the device; it keeps what it made."

    def fill(x, known, n_samples=1, generator=None):
        x, known = x.to(device), known.to(device)
        with autocast(device), plain():
            if way == "held":
                out = trained.fill(x, known, n_samples, looks, generator)
            else:
                many = x.repeat(n_samples, 1, 1, 1, 1), known.repeat(n_samples, 1)
                out = fill_by_replacement(trained.denoise, PATH, *many, looks, generator)
                out = out.reshape(n_samples, *x.shape)
        kept.append(out.float().cpu())
        return kept[-1]

    return fill


def judged(fill, test, task, samples, device):
    "The rows of one way on one task, mse and crps."
    g = torch.Generator(device).manual_seed(1001)
    got = judge_fill(fill, test, known_of(task), samples, generator=g)
    for m in ("mse", "crps"):
        yield dict(task=task, metric=m, value=got[m], low=got[f"{m}_low"], high=got[f"{m}_high"])


def film(a, trained, device):
    "Rows: 22 frames from 5, by two windows of 16 that keep five, each with 11 new frames."
    truth = drifting_leaf(a.n, 27, generator=seeded(1000))
    how = dict(window=F, keep=5, steps=a.looks, generator=torch.Generator(device).manual_seed(1001))
    with autocast(device), plain():
        new = trained.forecast(truth[:, :5].to(device), 22, **how)[0].float().cpu()
    ways = {"held": torch.cat([truth[:, :5], new], 1)}
    ways["nearest known frame"] = truth[:, torch.arange(27).clamp(max=4)]
    for way, x in ways.items():
        light = (x + 1).sum((2, 3, 4)) / (truth + 1).sum((2, 3, 4))
        for first in (5, 16):
            part = slice(first, first + 11)
            each = dict(mse=(x - truth)[:, part].square().flatten(1).mean(1))
            each["light"] = light[:, part].mean(1)
            for metric, v in each.items():
                task = f"film, frames {first} to {first + 10}"
                yield dict(task=task, way=way, metric=metric, **record.interval(v), n=a.n)


def measure(a, arm, turns, trained, test, shown, device):
    "Rows, one way and task after another, while the limit is not reached."
    for way, task in [(way, task) for way, tasks in turns for task in tasks if task in a.tasks]:
        if time.time() - a.began > a.limit:
            tell(a, f"no time for {arm} {way} {task}")
            continue
        kept = []
        fill = completer(trained, way, a.looks, kept, device)
        found = list(judged(fill, test, task, a.samples, device))
        if task in SHOWN:
            shown[f"{arm}, {way}, {task}"] = to_uint8(kept[0][0, : a.shown])
        tell(a, f"{arm} {way} {task}: {found[0]['value']:.4f}")
        yield [dict(way=way, **row, n=len(test), samples=a.samples) for row in found]


# ---------------------------------------------------------------- the run


def settings(argv):
    quick = dict(arms=["masks"], seconds=0.5, most=3, batch_size=4)
    quick |= dict(n=2, samples=2, looks=2, shown=2, tasks=list(TASKS)[:1])
    return record.arguments(
        __doc__,
        "masks_long",
        argv,
        quick=quick,
        arms=list(ARMS),
        seeds=[0],
        seconds=900.0,  # of each training
        limit=1e9,  # seconds after which nothing more is measured
        reserve=25.0,  # seconds before the limit in which nothing is trained
        most=10**9,  # steps
        batch_size=32,
        lr=1.5e-3,
        n=192,
        samples=2,
        looks=25,
        shown=8,
        graph=0,
        began=0.0,  # seconds since 1970 from which `limit` counts; 0: now
        weights="",  # of a run that was cut: nothing is trained
        way="held",  # what is measured then, `held` or `replacement`
        tasks=[*TASKS, "film"],  # of those that a network does; the film only with `weights`
    )


def main(argv=None, device=None):
    a = settings(argv)
    a.began = a.began or time.time()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    table, curves = (record.Table(p) for p in (a.out, record.beside(a.out, "_curve.csv")))
    test, shown = drifting_leaf(a.n, F, generator=seeded(1000)), {}
    shown["truth"] = to_uint8(test[: a.shown])
    mean = drifting_leaf(4096, F, generator=seeded(1002)).mean(0)
    job = dict(arm="no network", seed=0)
    if not table.of(job):
        said = [row for task in TASKS for row in constants(test, mean, task)]
        table.put(job, said, record.facts())
    if a.weights:
        return measure_saved(a, test, shown, table, device)
    trained = {}

    def put(job, turns):
        ema, facts, found = trained[tuple(job.values())]
        for rows in measure(a, job["arm"], turns, ema, test, shown, device):
            found += rows
            table.put(job, found, facts)
            save(shown, record.beside(a.out, "_clips.safetensors"))

    for job in record.todo(record.jobs(seed=a.seeds, arm=a.arms), table):
        trained[tuple(job.values())] = one_arm(a, job, curves, device)
        put(job, AT_ONCE[job["arm"]])
    for arm, turns in LATER:
        for seed in a.seeds:
            if (seed, arm) in trained:
                put(dict(seed=seed, arm=arm), turns)


def measure_saved(a, test, shown, table, device):
    "Rows of a network that was trained before, without its bfloat16 on a CPU."
    from safetensors.torch import load_file

    arm, trained = a.arms[0], model(a.arms[0])
    trained.load_state_dict({k: v.float() for k, v in load_file(a.weights).items()})
    job, trained = dict(seed=0, arm=arm), trained.to(device).eval()
    found = list(film(a, trained, device)) if "film" in a.tasks else []
    facts = dict(looks=a.looks, **record.provenance())
    table.put(job, found, facts)
    turns = [(a.way, [task for task in a.tasks if task in TASKS])]
    for rows in measure(a, arm, turns, trained, test, shown, device):
        found += rows
        table.put(job, found, facts)


def one_arm(a, job, curves, device):
    "Train; the weights and the curve are written at once. The model, facts, no rows yet."
    with plain():
        ema, curve, steps, seconds = train(job["arm"], job["seed"], a, device)
    curves.put(job, curve, record.provenance())
    if job["seed"] == 0:
        save_half(ema, record.beside(a.out, f"_{job['arm']}.safetensors"))
    facts = dict(steps=steps, train_seconds=round(seconds), batch=a.batch_size, looks=a.looks)
    facts.update(parameters=sum(p.numel() for p in ema.parameters()), **record.provenance())
    return ema, facts, []


def save_half(model, path):
    "The weights in half precision."
    save({k: v.half().cpu().contiguous() for k, v in model.state_dict().items()}, path)


def save(tensors, path):
    from safetensors.torch import save_file

    if path is not None:
        save_file({k: v.contiguous() for k, v in tensors.items()}, path)


if __name__ == "__main__":
    main()
