"""bridge: how many network evaluations does a frame need? The bridge (CVP) beside a conditional VP diffusion: one network (`JoinedUNet`), one
budget, two worlds; the network predicts the estimate or the noise, with its input scaled or not, and is sampled as published and as we would.

    python nbs/studies/bridge_steps.py            all arms, 3 seeds: about an hour on two cores
    python nbs/studies/bridge_steps.py --short    one arm, one seed, fewer steps: about a minute
    python nbs/studies/bridge_steps.py --quick    a few seconds, to see that it runs
Writes bridge_steps.csv beside this file (or --out), one row an arm, world, seed, sampler, number of evaluations and metric, with the 95% interval over
test clips (low, high); arms that are there already are kept, not run again. bridge_steps_curve.csv: the training losses. Of seed 0, the weights that the
lesson loads with VIDIFFEDU_FAST=1, in ../checkpoints.
    nearest      mean squared distance to the nearest true outcome, pixels in [-1, 1]
    frequency    share of samples nearer to the outcome "straight on" (truth .7), or on sprites' one side of the true median (truth .5)
    crps         fair CRPS of 4 samples, averaged over the true outcomes
Estimates are clamped to [-1, 1] in sampling, in all arms. Evaluations count every call of the network, the first estimate's among them."""

import record
import torch
from einops import rearrange

from vidiffedu.bridge import CVP, NextFrame, matched_times
from vidiffedu.core import seeded
from vidiffedu.crps import crps
from vidiffedu.data import bouncing, bouncing_roll, bouncing_state, draw_sprites, turning_leaf
from vidiffedu.denoise import FromNoise, ScaledInput, noise_weight
from vidiffedu.intervals import wilson
from vidiffedu.nets import JoinedUNet
from vidiffedu.paths import VP, Bridge
from vidiffedu.sample import ddpm_step, edm_step, from_estimate, from_guess
from vidiffedu.times import even_noise, grid, shared

BRIDGE, DIFFUSION = Bridge(), VP()


def arm(Method, path, noise=False, scaled=False, **how):
    "network -> model"
    if noise:
        how.update(weight=noise_weight(path))  # the squared error of the noise

    def make(net):
        net = ScaledInput(net, path) if scaled else net
        return Method(FromNoise(net, path) if noise else net, path, **how)

    return make


ARMS = {
    f"{name}_{what}{'_scaled' if scaled else ''}": arm(Method, path, what == "noise", scaled)
    for name, Method, path in (("cvp", CVP, BRIDGE), ("vp", NextFrame, DIFFUSION))
    for what in ("estimate", "noise")
    for scaled in (False, True)
}
# the bridge once more, trained at the noise levels that VP's uniform times have
ARMS["cvp_matched"] = arm(CVP, BRIDGE, scaled=True, times=matched_times(BRIDGE, DIFFUSION))

SAVED = {("cvp_matched", "leaf"), ("vp_estimate", "leaf"), ("cvp_matched", "sprites")}


def even(path):
    return even_noise(path, knee=0.1, top=10.0)


def samplers(model):
    "name -> evaluations n -> arguments of `forecast`."
    bridge, own = isinstance(model, CVP), dict(timetable=even(model.path), start=from_estimate)
    published = dict(step=ddpm_step, timetable=grid, start=from_guess)
    found = {
        "published": lambda n: dict(steps=n + bridge, **published),
        "ours": lambda n: dict(steps=n - 1, step=ddpm_step, **own),
    }
    if model.times is not shared:
        found["heun"] = lambda n: dict(steps=n // 2, step=edm_step, **own)
    return found


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


def judge(model, test, how, samples=4, seed=1001):
    "Rows of the three metrics, with the number of evaluations that the forecast took."
    past, outcomes, weights, side = test
    out, calls = counted(model, past, 1, samples, generator=seeded(seed), clip=(-1, 1), **how)
    far = torch.stack([(out - o).square().mean((2, 3, 4, 5)) for o in outcomes]).amin(0)  # (S, n)
    scores = [w * crps(out, o, fair=True).mean((1, 2, 3, 4)) for w, o in zip(weights, outcomes)]
    k, n = int(side(out).sum()), far.numel()
    found = dict(
        nearest=record.interval(far.mean(0)),
        frequency=dict(zip(("value", "low", "high"), (k / n, *wilson(k, n)))),
        crps=record.interval(sum(scores)),
    )
    return [dict(evaluations=calls, metric=k, samples=samples, **v) for k, v in found.items()]


def judge_all(model, test, evaluations):
    ways = samplers(model).items()
    for name, how in ways:
        for n in evaluations:
            yield from (dict(sampler=name, **row) for row in judge(model, test, how(n)))


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
        n=64,
        evaluations=[2, 5, 10, 25, 50, 100],
    )


def main(argv=None):
    a = settings(argv)
    table, curves = (record.Table(p) for p in (a.out, record.beside(a.out, "_curve.csv")))
    how = dict(steps=a.steps, batch_size=a.batch_size, lr=a.lr, ema=0.995)
    for job in record.todo(record.jobs(seed=a.seeds, world=a.worlds, arm=a.arms), table):
        (draw, test), arm = WORLDS[job["world"]], job["arm"]
        make = lambda: ARMS[arm](JoinedUNet(frames=3, width=8))
        run = record.train(make, draw, job["seed"], **how)
        curves.put(job, record.curve(run.losses, 50), record.provenance())
        if job["seed"] == 0 and (arm, job["world"]) in SAVED:
            record.for_lessons(a, run.ema, f"bridge_{job['world']}_{arm}")
        found = list(judge_all(run.ema, test(a.n), a.evaluations))
        table.put(job, found, dict(n=a.n, **record.facts(run)))
        near = [row for row in found if row["metric"] == "nearest"]
        record.tell(near, "sampler", "evaluations", "value")


if __name__ == "__main__":
    main()
