"""bridge: how many network evaluations does a frame need? The bridge (CVP) beside a conditional VP diffusion: one network (`JoinedUNet`), one
budget, two worlds, and every sampler on both.

    python nbs/studies/bridge_steps.py            all jobs: about 100 seconds each on one core
    python nbs/studies/bridge_steps.py --short    one arm, one seed, fewer steps: about a minute
    python nbs/studies/bridge_steps.py --quick    a few seconds, to see that it runs
One job in one process, and all of them joined into the table:
    python nbs/studies/bridge_steps.py --worlds leaf --arms vp_estimate --seeds 0 --out nbs/studies/parts/bridge_steps_leaf_vp_estimate_0.csv
    python nbs/studies/bridge_steps.py --join nbs/studies/parts
Writes bridge_steps.csv beside this file (or --out), one row an arm, world, seed, sampler, top, budget and metric, with the 95% interval over test
clips (low, high); jobs that are there already are kept, not run again. bridge_steps_curve.csv: the training losses. Of seed 0, the weights that the
lesson loads with VIDIFFEDU_FAST=1, in ../checkpoints. Every seed trains anew and is judged on test clips of its own, the same for all arms.
    nearest      mean squared distance to the nearest true outcome, pixels in [-1, 1]
    frequency    share of samples nearer to the outcome "straight on" (truth .7), or on sprites' one side of the true median (truth .5)
    crps         fair CRPS of 2 samples, averaged over the true outcomes
Samplers; `budget` is the number of calls of the network aimed at, `evaluations` that of the calls made, the first estimate's among them:
    even_t       ancestral, even in t from t = 1, around the known frame
    trained_t    ancestral, even among the times k/100 from .99, around the known frame
    ancestral    even in log sigma from `top`, around the first estimate
    heun         the same with Heun's step in sigma: the lesson's default at top = 10
`top` is 10, or where the 3% largest noise levels of a uniform t begin (`INSIDE`), if that is lower.
Estimates are clamped to [-1, 1] in sampling, in all arms.
Rows of 2026-11-20 (commits a7dffde, 0aaaf7d) are from an earlier form of this study: even_t, and ancestral from 10, on 64 test clips that all seeds shared,
with 4 samples. `--join` puts newer jobs in their place."""

import math

import record
import torch
from einops import rearrange

from vidiffedu.bridge import CVP, NextFrame, matched_times
from vidiffedu.core import seeded
from vidiffedu.crps import crps
from vidiffedu.data import bouncing, bouncing_roll, bouncing_state, draw_sprites, turning_leaf
from vidiffedu.denoise import FromNoise, ScaledInput, noise_weight
from vidiffedu.nets import JoinedUNet
from vidiffedu.paths import VP, Bridge, Schedule
from vidiffedu.sample import ddpm_step, edm_step, from_estimate, from_guess
from vidiffedu.times import even_noise, grid

PEAK = 2**-0.5 / math.e  # the largest c of the paper's bridge at k = 1/√2
INSIDE, TOP = 0.97, 10.0

# ---------------------------------------------------------------- paths and arms


class Brownian(Schedule):
    "The bridge with the noise of a Brownian bridge of the same peak: σ has a long tail."

    needs_y = True

    def a(self, t):
        return 1 - t

    def b(self, t):
        return t + 0.0

    def c(self, t):
        return 2 * PEAK * (t * (1 - t)).sqrt()

    def time_at(self, sigma):
        odds = (torch.as_tensor(sigma) / (2 * PEAK)) ** 2
        return odds / (1 + odds)


class Parabola(Brownian):
    "The bridge with a parabola of noise of the same peak: σ ends at four peaks."

    def c(self, t):
        return 4 * PEAK * t * (1 - t)

    def sigma(self, t):
        return 4 * PEAK * t

    def time_at(self, sigma):
        return torch.as_tensor(sigma) / (4 * PEAK)


def hundredths(b, f, generator=None, device=None):
    "Training times of a grid of 100 steps, both ends left out."
    return torch.randint(1, 100, (b, f), generator=generator, device=device) / 100


def arm(path, noise=False, scaled=False, **how):
    "network -> model"
    if noise:
        how.update(weight=noise_weight(path))  # the squared error of the noise
    Method = CVP if path.needs_y else NextFrame

    def make(net):
        net = ScaledInput(net, path) if scaled else net
        return Method(FromNoise(net, path) if noise else net, path, **how)

    return make


BRIDGE, DIFFUSION = Bridge(), VP()
PATHS = {"cvp": BRIDGE, "wide": Bridge(2**0.5), "vp": DIFFUSION}
ARMS = {
    f"{name}_{what}{'_scaled' if scaled else ''}": arm(path, what == "noise", scaled)
    for name, path in PATHS.items()
    for what in ("estimate", "noise")
    for scaled in (False, True)
}
# the bridge once more: trained at the noise levels that VP's uniform times have, at the paper's
# hundred times, and with noise of other shapes
ARMS["cvp_matched"] = arm(BRIDGE, scaled=True, times=matched_times(BRIDGE, DIFFUSION))
ARMS["cvp_hundredths"] = arm(BRIDGE, times=hundredths)
ARMS["brownian_scaled"] = arm(Brownian(), scaled=True)
ARMS["parabola_scaled"] = arm(Parabola(), scaled=True)

SAVED = {("cvp_matched", "leaf"), ("vp_estimate", "leaf"), ("cvp_matched", "sprites")}
ESTIMATES = [f"{p}_estimate{s}" for p in PATHS for s in ("", "_scaled")]
NOISES = [f"{p}_noise" for p in PATHS]
PLAN = {  # an arm that is not planned is run if it is named with --arms
    "leaf": [*ESTIMATES, "cvp_matched", *NOISES, *list(ARMS)[-3:]],
    "sprites": [*[a for a in ESTIMATES if a != "wide_estimate"], "cvp_matched", *NOISES[::2]],
}


def plan(a):
    "The jobs of the study that were asked for; an arm that is named is run with every seed."
    jobs = record.jobs(seed=a.seeds, world=a.worlds, arm=a.arms)
    if a.arms != list(ARMS):
        return jobs
    return [j for j in jobs if j["arm"] in PLAN[j["world"]]]


# ---------------------------------------------------------------- samplers


def trained_times(n, f):
    "n of the times .01, .02 ... .99, evenly from .99, and 0; n divides 100 (100: all 99)."
    rows = torch.arange(99, 0, -(100 // n), dtype=torch.float64) / 100
    return torch.cat([rows, rows.new_zeros(1)])[:, None].expand(-1, f)


def tops(arm, path):
    "The noise levels to start from: inside the training, and 10 where the path has it."
    first, whole = path.sigma(torch.tensor([INSIDE, 1 - 1e-7], dtype=torch.float64)).tolist()
    first = TOP if arm == "cvp_matched" or first > TOP else first
    return sorted({first, TOP} if whole > TOP else {first})


def samplers(arm, model, evaluations):
    "(sampler, top or None, budget, arguments of `forecast`); from a top outside the training: 25 only."
    plain, levels = dict(step=ddpm_step, start=from_guess), tops(arm, model.path)
    for n in evaluations:
        yield "even_t", None, n, dict(steps=n + isinstance(model, CVP), timetable=grid, **plain)
        if n == 25:
            yield "trained_t", None, n, dict(steps=n, timetable=trained_times, **plain)
        for top in levels if n == 25 else levels[:1]:
            own = dict(timetable=even_noise(model.path, knee=0.1, top=top), start=from_estimate)
            yield "ancestral", top, n, dict(steps=n - 1, step=ddpm_step, **own)
            yield "heun", top, n, dict(steps=n // 2, step=edm_step, **own)


# ---------------------------------------------------------------- worlds


def leaves(n, generator=None):
    return turning_leaf(n, generator=generator).clip


SPRITES = dict(radius=(3.0, 3.0), speed=(2.0, 2.0), kinds=(0,))


def sprites(n, generator=None):
    return bouncing(n, 3, 16, generator=generator, **SPRITES)


def leaf_test(n, seed=1000):
    """past (n, 2, ..), all outcomes of the next frame (m, n, 1, ..), their weights (m,),

    and the side of a frame (..., n, 1, ..)."""
    fork = turning_leaf(n, generator=seeded(seed))
    side = lambda x: fork.nearest(x)[0] == 0
    return fork.past, fork.outcomes.transpose(0, 1), torch.tensor([0.7, 0.3]), side


def along_wall(x, axis, ground):
    "(..., n, 1, 1, h, w) -> (..., n): the sprite's place along the wall."
    mass = (x - ground).clamp(min=0)[..., 0, 0, :, :]
    at = torch.arange(x.shape[-1], dtype=x.dtype)
    whole = mass.sum((-2, -1)).clamp(min=1e-3)
    down, right = ((mass * g).sum((-2, -1)) / whole for g in (at[:, None], at))
    return torch.where(axis == 0, right, down)


def about_to_hit(n, g):
    "Sprites that flew freely through two frames and hit a wall in the next: state, place before, axis of the wall."
    start = bouncing_state(20 * n, 16, generator=g, **SPRITES)
    _, now = bouncing_roll(start, 1, g)
    free = (now.velocity == start.velocity).all((1, 2))
    ahead = now.position + now.velocity
    low, high = now.radius[..., None] - 0.5, 15.5 - now.radius[..., None]
    out = torch.maximum(low - ahead, ahead - high)[:, 0]  # (n, 2) how far beyond each wall
    rows = (free & (out.amax(1) > 0.5)).nonzero()[:n, 0]
    now = type(now)(*(v[rows] for v in now[:-1]), now.size)
    return now, start.position[rows], out[rows].argmax(1)


def sprite_test(n, draws=128, seed=1000):
    "As `leaf_test`, of sprites that are about to hit a wall; outcomes: `draws` rolls of the world."
    g = seeded(seed)
    now, before, axis = about_to_hit(n, g)
    past, many = draw_sprites(now, torch.stack([before, now.position], 1)), now.repeat(draws)
    films = draw_sprites(many, bouncing_roll(many, 1, g)[0])
    outcomes = rearrange(films, "(n m) f c h w -> m n f c h w", m=draws)
    ground = now.ground[:, None, None, None, None]
    middle = along_wall(outcomes, axis, ground).median(0).values
    side = lambda x: along_wall(x, axis, ground) > middle
    return past, outcomes, torch.full((draws,), 1 / draws), side


WORLDS = {"leaf": (leaves, leaf_test), "sprites": (sprites, sprite_test)}

# ---------------------------------------------------------------- judging


def counted(model, *args, **how):
    "A forecast, and how often it called the network."
    calls, denoise = [], model.denoise

    def count(*inputs):
        calls.append(1)
        return denoise(*inputs)

    model.denoise = count
    try:
        return model.forecast(*args, **how), len(calls)
    finally:
        model.denoise = denoise


def judge(model, test, how, samples=2, seed=0):
    "Rows of the three metrics, with the number of evaluations that the forecast took."
    past, outcomes, weights, side = test
    how = dict(generator=seeded(seed + 2000), clip=(-1, 1), **how)
    out, calls = counted(model, past, 1, samples, **how)
    far = torch.stack([(out - o).square().mean((2, 3, 4, 5)) for o in outcomes]).amin(0)  # (S, n)
    scores = [w * crps(out, o, fair=True).mean((1, 2, 3, 4)) for w, o in zip(weights, outcomes)]
    found = dict(nearest=far.mean(0), frequency=side(out).float().mean(0), crps=sum(scores))
    same = dict(evaluations=calls, samples=samples)
    return [dict(same, metric=k, **record.interval(v)) for k, v in found.items()]


def judge_all(arm, model, test, evaluations, seed):
    for name, top, n, how in samplers(arm, model, evaluations):
        at = dict(sampler=name, top=top, budget=n)
        yield from ({**at, **row} for row in judge(model, test, how, seed=seed))


# ---------------------------------------------------------------- the study


def settings(argv):
    return record.arguments(
        __doc__,
        "bridge_steps",
        argv,
        quick=dict(
            arms=["cvp_matched"], worlds=["leaf"], seeds=[0], steps=20, n=8, evaluations=[5]
        ),
        short=dict(arms=["cvp_matched"], worlds=["leaf"], seeds=[0], steps=600),
        arms=list(ARMS),
        worlds=list(WORLDS),
        seeds=[0, 1, 2],
        steps=2000,
        batch_size=32,
        lr=4e-3,
        n=96,
        evaluations=[5, 10, 25, 100],
        join="",
    )


def join(a, *tables):
    "`join_parts`; jobs that the tables lack are said."
    record.join_parts(a, "bridge_steps", ("seed", "world", "arm"))
    for path in (table.path for table in tables):
        for job in plan(a):
            if not record.Table(path).of(job):
                print(f"{path.name} lacks {' '.join(map(str, job.values()))}")


def main(argv=None):
    a = settings(argv)
    if a.out is not None:
        a.out.parent.mkdir(parents=True, exist_ok=True)
    table, curves = (record.Table(p) for p in (a.out, record.beside(a.out, "_curve.csv")))
    if a.join:
        return join(a, table, curves)
    how = dict(steps=a.steps, batch_size=a.batch_size, lr=a.lr, ema=0.995)
    for job in record.todo(plan(a), table):
        (draw, test), arm = WORLDS[job["world"]], job["arm"]
        make = lambda: ARMS[arm](JoinedUNet(frames=3, width=8))
        run = record.train(make, draw, job["seed"], **how)
        curves.put(job, record.curve(run.losses, 50), record.provenance())
        if job["seed"] == 0 and (arm, job["world"]) in SAVED:
            record.for_lessons(a, run.ema, f"bridge_{job['world']}_{arm}")
        clips = test(a.n, seed=1000 + job["seed"])
        found = list(judge_all(arm, run.ema, clips, a.evaluations, job["seed"]))
        table.put(job, found, dict(n=a.n, **record.facts(run)))
        near = [row for row in found if row["metric"] == "nearest"]
        record.tell(near, "sampler", "top", "evaluations", "value")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
