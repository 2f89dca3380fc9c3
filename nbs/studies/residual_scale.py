"""residual: what scale, what forecast? RVD on the vortex street: eight flows in training, tested on Re = 100, which is not among them.

    python nbs/studies/residual_scale.py            all arms, 3 seeds: about 40 minutes on one core
    python nbs/studies/residual_scale.py --short    one arm, one seed, fewer steps: about half a minute
    python nbs/studies/residual_scale.py --quick    a few seconds, to see that it runs
Writes residual_scale.csv beside this file (or --out), one row an arm, seed and future frame (`frame` 1 to 16; `mean` over them), with the 95% interval over test
clips (low, high); arms that are there already are kept, not run again. residual_scale_curve.csv: the training losses. Of seed 0, the weights that the lesson
loads with VIDIFFEDU_FAST=1, in ../checkpoints.
    crps     fair CRPS of 5 samples per pixel, pixels in [-1, 1]; for persistence, which is one forecast, the mean absolute error
    spread   mean standard deviation of the samples, of all frames
    error    root mean square of truth minus the samples' mean, of all frames
    mu_rms   root mean square of x - mu under teacher forcing on the test clips
The matched scale is the root mean square of what persistence misses on the training films (`residual_scale`): no test frame is looked at. All arms: the same two
networks, as many steps, sampling by 12 steps of Heun in sigma (24 network calls, even in noise from 10 down to a knee at .03: for the exact denoiser the standard
deviation is then within 5% at every scale of the study), frames clamped to [-1, 1]. The network predicts the estimate, with weight 1 / max(c, .1)^2; in arms
that end in _v it predicts v, with weight 1 / c^2; in rvd_flat the estimate, with weight 1."""

import record
import torch
from einops import rearrange

from vidiffedu.core import seeded
from vidiffedu.crps import crps
from vidiffedu.denoise import FromV, v_weight
from vidiffedu.paths import Cosine
from vidiffedu.recurrent import rvd_networks
from vidiffedu.residual import RVD, persistence, residual_scale
from vidiffedu.times import even_noise
from vidiffedu.vortex import vortex_clips

PATH = Cosine()
SPACING = even_noise(PATH, knee=0.03, top=10.0)
ESTIMATE = dict(weight=v_weight(PATH, floor=0.1))
V = dict(weight=v_weight(PATH))
# scale: a number, "matched", or "frame", the root mean square of a frame, which is VD's residual;
# arguments of RVD; frames of a training clip
ARMS = {
    "rvd": ("matched", ESTIMATE, 8),
    "vd": (1.0, ESTIMATE, 8),
    "rvd_scale_2": (2.0, ESTIMATE, 8),
    "rvd_mu": ("matched", dict(ESTIMATE, explicit=1.0), 8),
    "rvd_scale_1": (1.0, ESTIMATE, 8),
    "vd_matched": ("frame", ESTIMATE, 8),
    "rvd_v": ("matched", V, 8),
    "vd_v": (1.0, V, 8),
    "rvd_scale_2_v": (2.0, V, 8),
    "rvd_flat": ("matched", {}, 8),
    "rvd_short": ("matched", ESTIMATE, 5),
}
SAVED = ("rvd", "rvd_mu")


def windows(films, f, every=1):
    return rearrange(films.unfold(1, f, every), "n k c h w f -> (n k) f c h w")


def worlds(flows, frames):
    "Training clips (n, 8, ..) of several Reynolds numbers; test clips (m, 18, ..) of another."
    train = vortex_clips(flows, len(flows), frames, generator=seeded(0))
    test = vortex_clips(100.0, 1, frames + 80, generator=seeded(1))
    return windows(train, 8), windows(test, 18, 16)  # a frame further into the period of 15


def nothing(frames, state=None):
    return torch.zeros_like(frames[:, -1:]), None


def make(arm, clips):
    scale, how, _ = ARMS[arm]
    if scale in ("matched", "frame"):
        scale = residual_scale(clips, nothing if scale == "frame" else persistence)
    predict = not arm.startswith("vd")
    forecaster, net = rvd_networks("laptop", predict=predict, width=24, patch=4)
    net = FromV(net, PATH) if arm.endswith("_v") else net
    return RVD(forecaster, net, PATH, scale, **how)


def ahead(model, past, n_frames, samples, steps, seed=1001):
    how = dict(steps=steps, timetable=SPACING, clip=(-1, 1))
    return model.forecast(past, n_frames, samples, generator=seeded(seed), **how)


def rows(out, far, test, forecaster):
    "Of samples (S, n, 16, ..) with the scores `far` (n, 16, ..) of every pixel."
    x, clips = test[:, 2:], far.mean((2, 3, 4))
    frames = {i + 1: record.interval(clips[:, i]) for i in range(x.shape[1])}
    frames["mean"] = record.interval(clips.mean(1))
    spread = out.std(0, correction=int(len(out) > 1)).mean()
    error = (out.mean(0) - x).square().mean().sqrt()
    whole = dict(spread=spread, error=error, mu_rms=residual_scale(test, forecaster))
    yield from (dict(metric="crps", frame=i, **v) for i, v in frames.items())
    yield from (dict(metric=k, frame="mean", value=float(v)) for k, v in whole.items())


def judge(model, test, samples, steps):
    past, x = test[:, :2], test[:, 2:]
    out = ahead(model, past, x.shape[1], samples, steps)
    return list(rows(out, crps(out, x, fair=True), test, model.forecaster))


def judge_persistence(test):
    still = test[:, 1:2]
    return list(rows(still[None], (still - test[:, 2:]).abs(), test, persistence))


def settings(argv):
    return record.arguments(
        __doc__,
        "residual_scale",
        argv,
        quick=dict(
            arms=["rvd"], seeds=[0], steps=10, samples=2, sampler_steps=2, flows=[60.0], frames=16
        ),
        short=dict(arms=["rvd"], seeds=[0], steps=100),
        arms=["persistence", *ARMS],
        seeds=[0, 1, 2],
        steps=400,
        batch_size=8,
        lr=3e-3,
        samples=5,
        sampler_steps=12,
        flows=[60.0, 70.0, 80.0, 90.0, 110.0, 120.0, 130.0, 140.0],
        frames=120,
    )


def main(argv=None):
    a = settings(argv)
    table, curves = (record.Table(p) for p in (a.out, record.beside(a.out, "_curve.csv")))
    clips, test = worlds(a.flows, a.frames)
    how = dict(steps=a.steps, batch_size=a.batch_size, lr=a.lr, ema=0.99)
    for job in record.todo(jobs_of(a), table):
        arm, seed = job["arm"], job["seed"]
        facts = dict(n=len(test), samples=a.samples)
        if arm == "persistence":
            facts.update(record.facts(), samples=1)
            found = judge_persistence(test)
        else:
            few = clips[:, : ARMS[arm][2]]
            warmup = min(20, a.steps // 2)
            run = record.train(lambda: make(arm, clips), few, seed, warmup=warmup, **how)
            curves.put(job, record.curve(run.losses, 10), record.provenance())
            if seed == 0 and arm in SAVED:
                record.for_lessons(a, run.ema, f"residual_{arm}")
            facts.update(scale=float(run.ema.scale), **record.facts(run))
            found = judge(run.ema, test, a.samples, a.sampler_steps)
        table.put(job, found, facts)
        record.tell([v for v in found if v["frame"] in (1, 16, "mean")], "metric", "frame", "value")


def jobs_of(a):
    "Every arm and seed; persistence is one."
    once = [dict(arm="persistence", seed=0)] if "persistence" in a.arms else []
    return once + record.jobs(seed=a.seeds, arm=[arm for arm in a.arms if arm in ARMS])


if __name__ == "__main__":
    main()
