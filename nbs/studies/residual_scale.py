"""Chapter 5: what scale, what forecast? RVD on the vortex street: eight flows in training, tested on Re = 100, which is not among them.

    python nbs/studies/residual_scale.py            all arms, 3 seeds: about 40 minutes on one core
    python nbs/studies/residual_scale.py --short    one arm, one seed, fewer steps: about half a minute
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

import argparse
import csv
import pathlib
import time

import torch
from bridge_steps import add, interval
from einops import rearrange
from score_frequency import provenance

from vidiffedu.core import seeded
from vidiffedu.crps import crps
from vidiffedu.data import vortex_clips
from vidiffedu.denoise import FromV, v_weight
from vidiffedu.paths import Cosine
from vidiffedu.residual import RVD, persistence, residual_scale, rvd_networks
from vidiffedu.times import even_noise
from vidiffedu.train import fit, save_weights

HERE = pathlib.Path(__file__).resolve().parent
ESTIMATE, V = (
    dict(weight=v_weight(Cosine(), floor=0.1)),
    dict(wrap=FromV, weight=v_weight(Cosine())),
)
#          scale (None: the matched one; "frame": the root mean square of a frame, which is VD's residual), arguments of RVD, frames of a training clip
ARMS = {
    "rvd": (None, ESTIMATE, 8),
    "vd": (1.0, ESTIMATE, 8),
    "rvd_scale_2": (2.0, ESTIMATE, 8),
    "rvd_mu": (None, dict(ESTIMATE, explicit=1.0), 8),
    "rvd_scale_1": (1.0, ESTIMATE, 8),
    "vd_matched": ("frame", ESTIMATE, 8),
    "rvd_v": (None, V, 8),
    "vd_v": (1.0, V, 8),
    "rvd_scale_2_v": (2.0, V, 8),
    "rvd_flat": (None, {}, 8),
    "rvd_short": (None, ESTIMATE, 5),
}
SPACING = even_noise(Cosine(), knee=0.03, top=10.0)
NETS = dict(width=24, patch=4)


def windows(films, f, every=1):
    return rearrange(films.unfold(1, f, every), "n k c h w f -> (n k) f c h w")


def worlds():
    "Training clips (n, 8, ..) of eight Reynolds numbers, and test clips (12, 18, ..) of a ninth, each a frame further into the period of 15"
    train = vortex_clips(
        [60.0, 70.0, 80.0, 90.0, 110.0, 120.0, 130.0, 140.0], 8, 120, generator=seeded(0)
    )
    return windows(train, 8), windows(vortex_clips(100.0, 1, 200, generator=seeded(1)), 18, 16)


def nothing(frames, state=None):
    return torch.zeros_like(frames[:, -1:]), None


def make(arm, seed, clips):
    scale, how, _ = ARMS[arm]
    if not isinstance(scale, float):
        scale = residual_scale(clips, nothing if scale == "frame" else persistence)
    torch.manual_seed(seed)
    forecaster, net = rvd_networks("laptop", predict=not arm.startswith("vd"), **NETS)
    return RVD(forecaster, net, scale=scale, **how)


def train(arm, clips, seed, steps, batch_size, lr):
    "run (its `ema` is the model), seconds of processor time"
    started = time.process_time()
    run = fit(
        make(arm, seed, clips),
        clips[:, : ARMS[arm][2]],
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        warmup=20,
        ema=0.99,
        seed=seed,
        progress=False,
    )
    return run, time.process_time() - started


def judge(model, test, samples=5, seed=1001):
    "metric, frame -> value with interval; model None: persistence"
    past, x = test[:, :2], test[:, 2:]
    if model is None:
        far, out, mu = (past[:, -1:] - x).abs(), past[None, :, -1:], persistence
    else:
        out = model.forecast(
            past,
            x.shape[1],
            samples,
            steps=12,
            timetable=SPACING,
            generator=seeded(seed),
            clip=(-1, 1),
        )
        far, mu = crps(out, x, fair=True), model.forecaster
    clips = far.mean((2, 3, 4))  # (n, 16)
    rows = {("crps", i + 1): interval(clips[:, i]) for i in range(x.shape[1])} | {
        ("crps", "mean"): interval(clips.mean(1))
    }
    rows["spread", "mean"] = dict(value=float(out.std(0, correction=int(len(out) > 1)).mean()))
    rows["error", "mean"] = dict(value=float((out.mean(0) - x).square().mean().sqrt()))
    rows["mu_rms", "mean"] = dict(value=residual_scale(test, mu))
    return rows


FIELDS = "arm seed metric frame value low high n samples steps scale train_seconds commit hardware date".split()


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--arms", nargs="+", default=list(ARMS))
    ap.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    ap.add_argument("--steps", type=int, default=400)
    ap.add_argument("--batch-size", type=int, default=8)
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--out", type=pathlib.Path, default=HERE / "residual_scale.csv")
    ap.add_argument(
        "--short",
        action="store_true",
        help="rvd, seed 0, 100 steps; nothing is kept unless --out is given",
    )
    a = ap.parse_args()
    if a.short:
        a.arms, a.seeds, a.steps = ["rvd"], [0], 100
        if a.out == ap.get_default("out"):
            a.out = pathlib.Path("/dev/stdout")
    where, have = provenance(), set()
    if a.out.is_file():
        with open(a.out) as f:
            have = {(row["arm"], int(row["seed"])) for row in csv.DictReader(f)}
    clips, test = worlds()
    facts = dict(n=len(test), samples=5, **where)
    if ("persistence", 0) not in have and not a.short:
        add(
            a.out,
            [
                dict(
                    arm="persistence",
                    seed=0,
                    metric=m,
                    frame=i,
                    samples=1,
                    n=len(test),
                    **v,
                    **where,
                )
                for (m, i), v in judge(None, test).items()
            ],
            FIELDS,
        )
    for seed in a.seeds:
        for arm in a.arms:
            if (arm, seed) in have:
                continue
            run, seconds = train(arm, clips, seed, a.steps, a.batch_size, a.lr)
            if not a.short:
                means = run.losses[: len(run.losses) // 10 * 10].reshape(-1, 10).mean(1).tolist()
                add(
                    a.out.with_name(a.out.stem + "_curve.csv"),
                    [
                        dict(arm=arm, seed=seed, step=10 * (i + 1), loss=m, **where)
                        for i, m in enumerate(means)
                    ],
                    ["arm", "seed", "step", "loss", *where],
                )
                if seed == 0 and arm in ("rvd", "rvd_mu") and a.out == ap.get_default("out"):
                    save_weights(
                        run.ema, HERE.parent / "checkpoints" / f"residual_{arm}.safetensors"
                    )
            found = judge(run.ema, test)
            add(
                a.out,
                [
                    dict(
                        arm=arm,
                        seed=seed,
                        metric=m,
                        frame=i,
                        steps=a.steps,
                        scale=float(run.ema.scale),
                        train_seconds=round(seconds),
                        **v,
                        **facts,
                    )
                    for (m, i), v in found.items()
                ],
                FIELDS,
            )
            print(
                arm,
                seed,
                f"{seconds:.0f} s,",
                *(
                    f"{m} {i} {v['value']:.3f}"
                    for (m, i), v in found.items()
                    if i in (1, 16, "mean")
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
