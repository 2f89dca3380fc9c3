"""vector: what do independent times in training buy? One network (`JoinedUNet`), one world (`drifting_leaf`), one budget; the arms differ in how often a
clip gets independent times (p of PTSS), in what the network predicts (the estimate x, v or the noise), in size, and in the learning rate
(`steady`: constant at 1e-3; the others warm up to 4e-3 and end with a cosine).

    python nbs/studies/vector_times.py            all arms, 3 seeds: about 70 minutes on one core
    python nbs/studies/vector_times.py --arms x1 --seeds 0 --out parts/vector_times_x1_0.csv      one job
    python nbs/studies/vector_times.py --join parts      the tables of single jobs, made into one (and, of the arm x0, the rows of
                                                  `scalar` in whole_clips.csv)
    python nbs/studies/vector_times.py --quick    a few seconds, to see that it runs
Writes vector_times.csv beside this file (or --out), one row an arm, seed, task, way and metric, with the 95% interval over test clips (low, high); rows that
are there already are kept, not run again. vector_times_curve.csv: the training losses. Every arm is tested on the same clips (seed 1000).
Ways: `held` keeps known frames at t = 0 (25 Heun steps, even in noise), `replaced` overwrites them with noisy copies, `redenoised` is the loop of the official
code (50 DDIM steps) and `held_ddim` the same steps with the frames held. `known` is the mean squared change of the known frames. Of generated clips:
`misfit`, the mean squared distance from the nearest true clip (clips of the arm `noise0.2`, which reach 100 times the range, are clamped to [-1, 1] first); `bend`, how far (pixels, root mean square) the leaf's centre is from a straight line;
`law`, the energy distance of its five numbers (first centre, last centre, radius; pixels) from those of true clips.
The arm `none` has the rivals without a network, and twenty sets of true clips (`true0` ...) in the place of generated ones."""

import functools

import reading
import record
import torch
import whole_clips as wc

from vidiffedu.core import seeded
from vidiffedu.denoise import FromNoise, FromV, noise_weight, v_weight
from vidiffedu.intervals import bootstrap_interval
from vidiffedu.nets import JoinedUNet
from vidiffedu.sample import ddim_step, ddpm_step
from vidiffedu.times import grid
from vidiffedu.vector import FVDM, centre_of_light, guesses, nearest_leaf, straight

PATH = wc.PATH
MASKS = {k: torch.tensor(v, dtype=torch.bool) for k, v in wc.TASKS.items()}
SURE = ("predict", "infill", "upsample")  # tasks with one right answer


def model_of(predicts, p, width=16):
    "A fresh model: what the network predicts, the share p of independent times, its width."
    net = JoinedUNet(frames=5, width=width)
    wrap, weight = {
        "x": (lambda net, path: net, wc.weight),
        "v": (FromV, v_weight(PATH)),
        "noise": (FromNoise, noise_weight(PATH)),
    }[predicts]
    return FVDM(wrap(net, PATH), PATH, p=p, weight=weight)


ARMS = {
    "x0": functools.partial(model_of, "x", 0.0),
    "x0.2": functools.partial(model_of, "x", 0.2),
    "x1": functools.partial(model_of, "x", 1.0),
    "v0.2": functools.partial(model_of, "v", 0.2),
    "v1": functools.partial(model_of, "v", 1.0),
    "noise0.2": functools.partial(model_of, "noise", 0.2),
    "small0.2": functools.partial(model_of, "x", 0.2, width=8),
    "steady0.2": functools.partial(model_of, "x", 0.2),  # trained at a constant rate
}
SAMPLERS = {
    "ddim10": dict(steps=10, step=ddim_step, timetable=grid),
    "ddim50": dict(steps=50, step=ddim_step, timetable=grid),
    "ddim100": dict(steps=100, step=ddim_step, timetable=grid),
    "ddpm250": dict(steps=250, step=ddpm_step, timetable=grid),
    "heun25": dict(steps=25),
}
SHOWN = ("arm", "task", "way", "metric", "value", "low", "high")


# ---------------------------------------------------------------- completions


def errors(x, clips, known):
    "Mean squared error of the unknown frames, for each clip."
    return (x - clips)[:, ~known].square().flatten(1).mean(1)


def row(task, way, metric, values, **more):
    return dict(task=task, way=way, metric=metric, **record.interval(values), n=len(values), **more)


def completions(model, n, replaced, samples=2):
    "Rows of the tasks that have one right answer: known frames held, and if asked replaced."
    clips, fills = wc.leaves(n, seeded(1000)), {"held": model.fill}
    fills |= {"replaced": wc.replacement(model)} if replaced else {}
    for way, fill in fills.items():
        for task in SURE:
            known, how = MASKS[task], dict(n_samples=samples, generator=seeded(1001))
            each = torch.stack([errors(x, clips, known) for x in fill(clips, known, **how)])
            yield row(task, way, "mse", each.mean(0), samples=samples)


@torch.no_grad()
def redenoised(denoise, x, known, steps=50, generator=None):
    "The official loop: known frames go in as if at noise level 0.01, and each step returns them too."
    first = PATH.time_at(torch.tensor(0.01, dtype=torch.float64))
    x_t = torch.where(known[:, None, None, None], x, torch.randn(x.shape, generator=generator))
    ts = grid(steps, x.shape[1], known=known)
    for t, s in zip(ts, ts[1:]):
        t = torch.where(known, first, t).expand(x.shape[:2])
        x_t = ddim_step(PATH, x_t, denoise(x_t, t, None), t, s.expand(x.shape[:2])).to(x.dtype)
    return x_t


def two_loops(model, n):
    "Known frames held or re-denoised by the same 50 steps: what moves, and what it costs."
    clips, known = wc.leaves(n, seeded(1000)), MASKS["predict"]
    moved = redenoised(model.eval().denoise, clips, known, generator=seeded(1001))
    how = dict(SAMPLERS["ddim50"], generator=seeded(1001))
    held = model.fill(clips, known, **how)[0]
    pair = [errors(x, clips, known) for x in (moved, held)]
    yield row("predict", "redenoised", "known", errors(moved, clips, ~known), samples=1)
    for way, e in zip(("redenoised", "held_ddim"), pair):
        yield row("predict", way, "mse", e, samples=1)
    rate = lambda v: v[:, 0].mean() / v[:, 1].mean()
    found = bootstrap_interval(torch.stack(pair, 1), rate, draws=1000, generator=seeded(0))
    ends = {k: float(v) for k, v in zip(("value", "low", "high"), found)}
    yield dict(
        task="predict", way="redenoised", metric="mse over held_ddim", **ends, n=n, samples=1
    )


# ---------------------------------------------------------------- whole clips


def energy_distance(x, y):
    "Unbiased, between two sets of points (n d), (m d); 0 on average for two sets of one law."
    within = lambda v: torch.cdist(v, v).sum() / (len(v) * (len(v) - 1))
    return 2 * torch.cdist(x, y).mean() - within(x) - within(y)


def judge_clips(clips, way, seed=2000):
    "How far from the nearest true clip, how bent, and how far from the law of true clips."
    numbers, near = nearest_leaf(clips)
    points, frames = centre_of_light(clips)[0], torch.arange(5.0)
    off = (points - straight(points, frames, frames)).square().sum(-1).mean(1).sqrt()
    yield row("generate", way, "misfit", (near - clips).square().mean((1, 2, 3, 4)), samples=1)
    yield row("generate", way, "bend", off, samples=1)
    true = nearest_leaf(wc.leaves(2000, seeded(seed)), steps=1)[0]
    law = dict(value=float(energy_distance(numbers, true)), low=None, high=None)
    yield dict(task="generate", way=way, metric="law", **law, n=len(clips), samples=1)


def generated(model, n, ways, inside=False):
    "`inside`: clips are clamped to [-1, 1] before they are judged."
    for way in ways:
        how = dict(SAMPLERS[way], generator=seeded(1000))
        clips = model.generate((n, 5, 1, 16, 16), **how)
        yield from judge_clips(clips.clamp(-1, 1) if inside else clips, way)


# ---------------------------------------------------------------- without a network


def rivals(n):
    "What can be said without a network, and true clips in the place of generated ones."
    clips, mean = wc.leaves(n, seeded(1000)), wc.leaves(4096, seeded(1002)).mean(0)
    for task in SURE:
        known = MASKS[task]
        said = {"average clip": mean.expand_as(clips), **guesses(clips, known)}
        for name, x in said.items():
            yield row(task, name, "mse", errors(x, clips, known), samples=1)
    for seed in range(20):  # how far two sets of true clips are from each other
        yield from judge_clips(wc.leaves(n, seeded(1100 + seed)), f"true{seed}")


# ---------------------------------------------------------------- reading the table


def interval_of(rows):
    """Of rows of one measure, one row a training: the mean, and half its 95% interval.

    Over trainings (Student's) and over test clips (low, high), added in squares; the clips are the same for all trainings."""
    values = reading.numbers(rows)
    clips = sum(float(r["high"]) - float(r["low"]) for r in rows if r["low"]) / 2 / len(rows)
    return float(values.mean()), (reading.over_trainings(values) ** 2 + clips**2) ** 0.5


def told(rows, digits=4):
    "`interval_of` in words; no interval where there is none."
    mean, half = interval_of(rows)
    return f"{mean:.{digits}f}" + f" ± {half:.{digits}f}" * (half > 0)


def factor_told(top, bottom, digits=1):
    "`factor` of reading.py in words."
    return reading.words(reading.factor(top, bottom), digits)


def trainings(rows):
    n = len({r["seed"] for r in rows})
    return "one training" if n == 1 else f"{n} trainings"


# ---------------------------------------------------------------- the study


def settings(argv):
    return record.arguments(
        __doc__,
        "vector_times",
        argv,
        quick=dict(arms=["x0.2"], seeds=[0], steps=20, n=4),
        arms=["none", *ARMS],
        seeds=[0, 1, 2],
        steps=2000,
        batch_size=32,
        lr=4e-3,
        n=192,
        join="",
        weights="",
    )


def measure(a, job, model):
    arm = job["arm"]
    found = list(completions(model, a.n, replaced=arm in ("x0", "x0.2", "x1")))
    found += list(two_loops(model, a.n))
    ways, inside = SAMPLERS if arm in ("x0.2", "noise0.2") else ["heun25"], arm == "noise0.2"
    found += list(generated(model, a.n, ways, inside))
    if arm == "x0":  # what whole_clips.csv says of the arm `scalar`, in its own columns
        unsure = [r for r in wc.tasks(model.fill, a.n, 8) if r["metric"] == "crps"]
        found += [dict(r, way="held") for r in unsure]
    return found


def train(a, job):
    how = dict(steps=a.steps, batch_size=a.batch_size, ema=0.995)
    if job["arm"].startswith("steady"):
        how |= dict(lr=1e-3, warmup=0, schedule=constant)
    return record.train(ARMS[job["arm"]], wc.leaves, job["seed"], **{"lr": a.lr, **how})


def constant(step, steps, warmup):
    "A schedule of `fit`: the rate never changes."
    return 1.0


def to_whole_clips(table, path=record.HERE / "whole_clips.csv"):
    "The arm x0 is the arm `scalar` of whole_clips.py: its completions, in the columns of that table."
    whole = record.Table(path)
    columns = list(whole.rows[0])
    for seed in sorted({r["seed"] for r in table.of(dict(arm="x0"))}):
        job, rows = dict(arm="scalar", seed=seed), []
        for r in table.of(dict(arm="x0", seed=seed, way="held")):
            more = dict(job, known_unchanged="True", samples=8 if r["task"] == "unsure" else 2)
            rows.append({k: {**r, **more}.get(k, "") for k in columns})
        old = [r for r in whole.of(job) if r["task"] == "generate"]
        whole.put(job, rows + old)


def main(argv=None):
    a = settings(argv)
    if a.join:
        record.join_parts(a, "vector_times", ("arm", "seed"))
        return to_whole_clips(record.Table(a.out))
    table, curves = record.Table(a.out), record.Table(record.beside(a.out, "_curve.csv"))
    jobs = record.jobs(arm=[arm for arm in a.arms if arm in ARMS], seed=a.seeds)
    jobs = [dict(arm="none", seed=0)] * ("none" in a.arms) + jobs
    for job in record.todo(jobs, table):
        run = None if job["arm"] == "none" else train(a, job)
        if run is not None:
            curves.put(job, record.curve(run.losses, 50), record.provenance())
            record.keep_weights(a, job, run.ema, f"vector_times_{job['arm']}")
        found = list(rivals(a.n)) if run is None else measure(a, job, run.ema)
        table.put(job, found, record.facts(run))
        record.tell(table.of(job), *SHOWN)


if __name__ == "__main__":
    main()
