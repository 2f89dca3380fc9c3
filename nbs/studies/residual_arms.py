"""residual: RVD beside rivals with as many weights, as much time and as fair a scale, in two small worlds.

    python nbs/studies/residual_arms.py --worlds leaf --arms rvd --seeds 0 --out parts/residual_arms_leaf_rvd_0.csv     one job, about 2 minutes
    python nbs/studies/residual_arms.py --join parts           the tables of single jobs, made into one
    python nbs/studies/residual_arms.py --quick                a few seconds, to see that it runs
Writes residual_arms.csv beside this file (or --out), one row a world, arm, seed, metric and frame (`all`: over the frames), with the 95% interval over
independent test windows (low, high; n of them); jobs that are there already are kept, not run again. residual_arms_curve.csv: the training losses.

`leaf`: `turning_leaf`, 16 x 16 pixels, two frames given, two to come: straight on with probability .7, at each of them. Every test window is a world of its own.
    turn        share of first frames that are nearer to the turned leaf (the world: .3)
    dispersion  of the turns over the pasts, in units of the binomial law's (1: every past has the chance .3)
    misfit      squared distance of the first frame from the nearer of the two true ones; 1: as far as a frame halfway between them
    neither     share of first frames whose misfit is above .2
    second      misfit of both frames together, from the nearest of the four true futures; path0 ... path3: shares of the four (.49 .21 .21 .09)
    crps        fair CRPS; `law`: of draws from the true law, on the same windows
`street`: `vortex_clips`, 16 x 32 pixels (the lesson's flow, seen at half the resolution): eight Reynolds numbers in training, each test window from a run of its own,
with a Reynolds number of its own between 60 and 140, four frames given, sixteen to come.
    crps        fair CRPS of every frame and over all; of one forecast: the mean absolute error
    ssim, sharp, feature    of single futures: structural similarity, edges over the truth's, squared distance of random features (1: of two random truths)
    spread, error           standard deviation of the futures; root mean square of truth minus their mean
    mu_rms      root mean square of x - mu on the test windows, teacher forced
All arms: sampling by 12 steps of Heun in sigma (24 network calls a frame), frames clamped to [-1, 1]. `weights`: parameters that are trained."""

import functools
import pathlib
import time

import record
import residual_rivals as rivals
import torch
from einops import rearrange

from vidiffedu.core import seeded
from vidiffedu.crps import crps
from vidiffedu.data import turning_leaf
from vidiffedu.denoise import FromNoise, noise_weight, v_weight
from vidiffedu.likeness import RandomFeatures, ssim
from vidiffedu.oracle import Mixture, remember_past
from vidiffedu.paths import Cosine
from vidiffedu.recurrent import Forecaster, ResidualUNet
from vidiffedu.residual import RVD, persistence, residual_scale
from vidiffedu.times import even_noise
from vidiffedu.vortex import vortex_clips

PATH = Cosine()
SPACING = even_noise(PATH, knee=0.03, top=10.0)
ESTIMATE = v_weight(PATH, floor=0.1)
Q = 0.7

# ---------------------------------------------------------------- worlds


def leaf_clips(n, generator=None):
    "The lesson's fork: one path of the tree, (n 4 1 16 16)."
    return turning_leaf(n, q=Q, future=2, generator=generator).clip


def windows(films, f):
    return rearrange(films.unfold(1, f, 1), "n k c h w f -> (n k) f c h w")


def films_of(a):
    "Training films and test windows of the street; kept in a file, as they take minutes."
    file = pathlib.Path(a.films) if a.films else None
    if file and file.is_file():
        return torch.load(file)
    how = dict(size=(16, 32), pool=4, warm=a.warm)
    flows = torch.linspace(60, 140, 9)[[0, 1, 2, 3, 5, 6, 7, 8]]
    train = vortex_clips(flows, 8, a.frames, generator=seeded(0), **how)
    other = 60 + 80 * torch.rand(a.windows, generator=seeded(1))
    test = vortex_clips(other, a.windows, 20, generator=seeded(2), **how)
    if file:
        torch.save((train, test), file)
    return train, test


# ---------------------------------------------------------------- arms


def networks(clips, predict=True, more=0):
    "The two halves of RVD at the size of this study; `more`: wider by so much at the coarse level."
    wide = clips.shape[-1] > 16
    mults, how = (1, 1 + wide), dict(width=16, patch=2)
    levels = (1, 1 + wide + more)
    forecaster = Forecaster(1, mults=mults, context=levels, predict=predict, **how)
    return forecaster, ResidualUNet(1, mults=levels, **how)


def still(clips):
    return residual_scale(clips)


def frame(clips):
    "The root mean square of a frame: VD's residual."
    return float(clips.square().mean().sqrt())


def rvd(clips, scale=1.0, unit=still, predict=True, more=0, noise=False, **how):
    forecaster, net = networks(clips, predict, more)
    how = {"weight": noise_weight(PATH) if noise else ESTIMATE, **how}
    net = FromNoise(net, PATH) if noise else net
    return RVD(forecaster, net, PATH, scale * (unit(clips) if unit else 1), **how)


def plain(clips, alone=False):
    forecaster, net = networks(clips)
    return rivals.Plain(forecaster, rivals.Nothing() if alone else net, PATH, still(clips))


def latent(clips):
    return rivals.Latent(*networks(clips), PATH, still(clips), clips.shape[-2:])


vd = functools.partial(rvd, predict=False)
ARMS = {  # a model of the training clips; a factor on the steps
    "rvd": (rvd, 1),
    "rvd_half": (functools.partial(rvd, scale=0.5), 1),
    "rvd_quarter": (functools.partial(rvd, scale=0.25), 1),
    "rvd_2": (functools.partial(rvd, scale=2.0, unit=None), 1),
    "rvd_mu": (functools.partial(rvd, explicit=1.0), 1),
    "rvd_mu_own": (functools.partial(rvd, explicit=1.0, scale=0.15), 1),
    "rvd_flat": (functools.partial(rvd, weight=None), 1),
    "rvd_noise": (functools.partial(rvd, noise=True), 1),
    "rvd_2_noise": (functools.partial(rvd, noise=True, scale=2.0, unit=None), 1),
    "vd": (functools.partial(vd, unit=None), 1),
    "vd_matched": (functools.partial(vd, unit=frame), 1),
    "vd_weights": (functools.partial(vd, unit=frame, more=1), 1),
    "vd_time": (functools.partial(vd, unit=frame), 1.5),
    "vd_noise": (functools.partial(vd, unit=None, noise=True), 1),
    "forecast": (functools.partial(plain, alone=True), 1),
    "plain": (plain, 1),
    "latent": (latent, 1),
}
ONCE = {"leaf": ("law", "exact"), "street": ("still",)}  # without a network


def trained_weights(model):
    "Parameters that the loss reaches."
    model.zero_grad()
    size = getattr(model, "size", (16, 16))
    model.loss(torch.rand(2, 4, 1, *size, generator=seeded(0))).backward()
    reached = [p for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return sum(p.numel() for p in reached)


def draw(model, past, n_frames, samples, steps):
    how = dict(steps=steps, timetable=SPACING, clip=(-1, 1), generator=seeded(1001))
    return model.forecast(past, n_frames, samples, **how)


def row(metric, values, frame="all"):
    return dict(metric=metric, frame=frame, **record.interval(values), n=len(values))


# ---------------------------------------------------------------- the leaf


def judge_leaf(x, probe):
    "Rows of samples x (S n 1 or 2 1 16 16)."
    s, whole = len(x), x.shape[2] > 1
    found = rivals.fork_scores(x, probe)
    yield row("turn", found["turn"].mean(0))
    yield row("dispersion", rivals.dispersion(found["turn"], 1 - Q))
    yield row("misfit", found["misfit"].mean(0))
    yield row("neither", (found["misfit"] > 0.2).float().mean(0))
    if whole:
        which, misfit = rivals.path_scores(x, probe)
        yield row("second", misfit.mean(0))
        yield from (row(f"path{k}", (which == k).float().mean(0)) for k in range(4))
    truth = probe.clip[:, 2 : 2 + x.shape[2]]
    score = crps(x, truth, fair=s > 1).mean((2, 3, 4))
    for i in range(x.shape[2]):
        yield row("crps", score[:, i], i + 1)
    yield row("sharp", rivals.sharpness(x[:, :, :1], truth[:, :1]), 1)


def true_draws(probe, samples):
    "Futures (S n 2 1 16 16) drawn from the law itself."
    odds = torch.tensor([Q * Q, Q * (1 - Q), (1 - Q) * Q, (1 - Q) ** 2])
    n = len(probe.past)
    which = torch.multinomial(odds.expand(n, -1), samples, True, generator=seeded(1002))
    return probe.outcomes[torch.arange(n), which.T]


def exact_draws(probe, samples, steps, scale):
    "First frames by the same sampler, with the exact denoiser of each fork."
    found = []
    for past, outcomes in zip(probe.past[:, None], probe.outcomes):
        pair = Mixture(outcomes[[0, 2], :1].double(), [Q, 1 - Q])
        model = RVD(remember_past(lambda past: past[:, -1:]), None, PATH, scale)
        model.denoise = pair.next_frame_denoiser(PATH, persistence, scale)
        found.append(draw(model, past.double(), 1, samples, steps).float())
    return torch.cat(found, 1)


def leaf(a, job):
    probe = turning_leaf(a.forks, q=Q, future=2, generator=seeded(1000))
    few = leaf_clips(1000, seeded(1))
    if job["arm"] == "law":
        return list(judge_leaf(true_draws(probe, a.leaf_samples), probe)), record.facts()
    if job["arm"] == "exact":
        x = exact_draws(probe, a.leaf_samples, a.sampler_steps, still(few))
        return list(judge_leaf(x, probe)), record.facts()
    how = dict(steps=a.leaf_steps, batch_size=32)
    run, facts = train(a, job, few, leaf_clips, how)
    tic = time.time()
    x = draw(run.ema, probe.past, 2, a.leaf_samples, a.sampler_steps)
    facts["draw_seconds"] = round(time.time() - tic, 1)
    return list(judge_leaf(x, probe)), facts


# ---------------------------------------------------------------- the street


def judge_street(x, truth):
    "Rows of samples x (S n 16 1 16 32)."
    one, net = len(x) == 1, RandomFeatures(dim=32)
    far = (x[0] - truth).abs() if one else crps(x, truth, fair=True)
    clips = far.mean((2, 3, 4))
    yield row("crps", clips.mean(1))
    yield from (row("crps", clips[:, i], i + 1) for i in range(clips.shape[1]))
    like = torch.stack([ssim(y, truth) for y in x]).mean(0)
    yield from (row("ssim", like[:, i], i + 1) for i in (0, like.shape[1] - 1))
    yield row("ssim", like.mean(1))
    yield row("sharp", rivals.sharpness(x, truth))
    yield row("sharp", rivals.sharpness(x[:, :, -4:], truth[:, -4:]), "last4")
    yield row("feature", rivals.feature_gap(x, truth, net))
    yield row("spread", x.std(0, correction=int(not one)).mean((1, 2, 3, 4)))
    yield row("error", (x.mean(0) - truth).square().mean((1, 2, 3, 4)).sqrt())


def street(a, job):
    films, test = films_of(a)
    past, truth = test[:, :4], test[:, 4:]
    if job["arm"] == "still":
        x = past[None, :, -1:].expand(-1, -1, truth.shape[1], -1, -1, -1)
        return list(judge_street(x, truth)), record.facts()
    clips = windows(films, 8)
    run, facts = train(a, job, clips, clips, dict(steps=a.steps, batch_size=8))
    tic = time.time()
    one = isinstance(run.ema, rivals.Plain)
    x = draw(run.ema, past, truth.shape[1], 1 if one else a.samples, a.sampler_steps)
    facts["draw_seconds"] = round(time.time() - tic, 1)
    found = list(judge_street(x, truth))
    missed = residual_scale(test, run.ema.forecaster)
    return found + [dict(metric="mu_rms", frame="all", value=missed, n=len(test))], facts


# ---------------------------------------------------------------- the study


def train(a, job, few, clips, how):
    make, factor = ARMS[job["arm"]]
    how["steps"] = round(factor * how["steps"])
    how |= dict(lr=a.lr, ema=0.99, warmup=min(20, how["steps"] // 2))
    run = record.train(lambda: make(few), clips, job["seed"], **how)
    a.curves.put(job, record.curve(run.losses, 20), record.provenance())
    weights, scale = trained_weights(make(few)), float(run.ema.scale)
    record.keep_weights(a, job, run.ema, f"residual_{job['world']}_{job['arm']}")
    return run, dict(scale=scale, weights=weights, **record.facts(run))


def settings(argv):
    small = dict(worlds=["leaf"], arms=["rvd"], seeds=[0], steps=3, leaf_steps=3, forks=3)
    tiny = dict(samples=2, leaf_samples=2, sampler_steps=2, windows=3, frames=9, warm=80)
    return record.arguments(
        __doc__,
        "residual_arms",
        argv,
        quick=dict(**small, **tiny),
        worlds=["leaf", "street"],
        arms=["law", "exact", "still", *ARMS],
        seeds=[0, 1, 2],
        steps=400,
        leaf_steps=800,
        lr=3e-3,
        forks=100,
        leaf_samples=10,
        windows=20,
        samples=5,
        frames=120,
        warm=8000,
        sampler_steps=12,
        films="",
        join="",
        weights="",
    )


def jobs_of(a):
    "Every world, arm and seed; the arms without a network once."
    once = [(w, arm) for w in a.worlds for arm in ONCE[w] if arm in a.arms]
    jobs = [dict(world=w, arm=arm, seed=0) for w, arm in once]
    arms = [arm for arm in a.arms if arm in ARMS]
    return jobs + record.jobs(world=a.worlds, arm=arms, seed=a.seeds)


def main(argv=None):
    a = settings(argv)
    if a.join:
        return record.join_parts(a, "residual_arms", ("world", "arm", "seed"))
    table, a.curves = (record.Table(p) for p in (a.out, record.beside(a.out, "_curve.csv")))
    for job in record.todo(jobs_of(a), table):
        found, facts = dict(leaf=leaf, street=street)[job["world"]](a, job)
        table.put(job, found, facts)
        shown = [r for r in found if r["frame"] in ("all", 1)]
        record.tell(shown, "metric", "frame", "value", "low", "high")


if __name__ == "__main__":
    main()
