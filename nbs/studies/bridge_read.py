"""How the table of bridge_steps is read: factors between two recipes, and their intervals over trainings or test clips.

A recipe is (arm, sampler, budget, top); top None: the lowest start in the table, inside the training if there is one there."""

import math

import reading
import torch

STUDY = reading.table("bridge_steps")
INPUTS = {"estimate": "plain input", "estimate_scaled": "scaled input", "noise": "predicts noise"}
SAMPLERS = {"even_t": "even in t", "ancestral": "ancestral", "heun": "Heun"}
BRIDGES = {"cvp": "k = 1/√2", "wide": "k = √2"}
WORLDS = {"leaf": "fork", "sprites": "sprites"}


def recipe(arm, sampler="heun", budget=25, top=None):
    return arm, sampler, budget, top


def measured(world, recipe, metric="nearest"):
    "{seed: (mean over its test clips, standard error)}, and whether the start is outside training."
    arm, sampler, budget, top = recipe
    want = dict(world=world, arm=arm, sampler=sampler, budget=str(budget), metric=metric)
    rows = [r for r in STUDY if want.items() <= r.items()]
    best = min((float(r["top"] or 0) for r in rows), default=None) if top is None else top
    rows = [r for r in rows if float(r["top"] or 0) == best]
    error = lambda r: (float(r["high"]) - float(r["low"])) / 3.92
    uniform = not arm.startswith("vp") and arm != "cvp_matched"  # trained with a bridge's σ
    return {r["seed"]: (float(r["value"]), error(r)) for r in rows}, uniform and best == 10


def interval(values, errors):
    "Mean and half the 95% interval: Student's over three or more trainings, or over clips if wider."
    values, errors, n = torch.tensor(values), torch.tensor(errors), len(values)
    clips = 1.96 * float(errors.square().mean().sqrt()) / n**0.5
    return float(values.mean()), max(clips, reading.over_trainings(values) if n > 2 else 0.0)


def trainings(n):
    return str(n).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))


def factor(world, before, after, seeds=None):
    "Distance before over distance after: (factor, low, high, its text), or None."
    (a, far_a), (b, far_b) = (measured(world, r) for r in (before, after))
    pairs = [(*a[seed], *b[seed]) for seed in sorted(seeds or a.keys() & b.keys())]
    if not pairs:
        return None
    logs = [math.log(v / w) for v, _, w, _ in pairs]
    found = reading.from_logs(*interval(logs, [math.hypot(d / v, e / w) for v, d, w, e in pairs]))
    mean, low, high = (f"{v:.2f}" if v < 10 else f"{v:.0f}" for v in found)
    outside = "*" * (far_a or far_b)
    return *found, f"{mean} ({low} to {high}){trainings(len(pairs))}{outside}"


def text_of(found):
    return found[-1] if found else "-"


def claim(world, bridge, few, many):
    "{(input, sampler): factor}: the bridge with `few` evaluations over VP with `many`, like with like."
    found = {}
    for what, how in ((what, how) for what in INPUTS for how in SAMPLERS):
        ours = recipe(f"{bridge}_{what}", how, few)
        found[what, how] = factor(world, ours, recipe(f"vp_{what}", how, many))
    return {key: v for key, v in found.items() if v}


def signs(found):
    "How many of these factors have an interval below 1, above 1, around 1."
    below, above = (
        sum(f(v) for v in found.values()) for f in (lambda v: v[2] < 1, lambda v: v[1] > 1)
    )
    return below, above, len(found) - below - above


def show(world, few, many):
    "Print `claim` for both scales of noise."
    sides = {name: claim(world, key, few, many) for key, name in BRIDGES.items()}
    print(f"{WORLDS[world]}: bridge with {few} evaluations over VP with {many}")
    print(f"{'':28s}" + "".join(f"{name:24s}" for name in sides).rstrip())
    for what, how in ((what, how) for what in INPUTS for how in SAMPLERS):
        texts = [text_of(found.get((what, how))) for found in sides.values()]
        if texts != ["-", "-"]:
            line = "".join(f"{v:24s}" for v in texts).rstrip()
            print(f"{INPUTS[what]:16s}{SAMPLERS[how]:12s}{line}")
    counts = [", ".join(map(str, signs(found))) for found in sides.values()]
    print(f"{'below 1, above 1, undecided':28s}" + "".join(f"{v:24s}" for v in counts).rstrip())


def brief(few, many, sampler="even_t"):
    "Print `claim` for one sampler: a row for each kind of network, a column for each world and scale."
    tables = [(world, key) for world in WORLDS for key in BRIDGES]
    print(" " * 16 + "".join(f"{WORLDS[w]}, {BRIDGES[k]}".ljust(22) for w, k in tables).rstrip())
    for what in INPUTS:
        found = [claim(*table, few, many).get((what, sampler)) for table in tables]
        print(f"{INPUTS[what]:16s}" + "".join(f"{text_of(v):22s}" for v in found).rstrip())


def tally(*budgets):
    "Print how many intervals lie below 1, above 1, around 1, for each (few, many), and those below."
    below, tables = [], [(world, key) for world in WORLDS for key in BRIDGES]
    names = [f"{WORLDS[world]}, {BRIDGES[key]}" for world, key in tables]
    print(f"{'below 1, above 1, undecided':29s}" + "".join(f"{v:19s}" for v in names).rstrip())
    for few, many in budgets:
        found = [claim(*table, few, many) for table in tables]
        counts = "".join(f"{', '.join(map(str, signs(v))):19s}" for v in found).rstrip()
        print(f"{f'{few} evaluations over {many}':29s}{counts}")
        for name, table in zip(names, found):
            below += [(name, few, many, *where, v[-1]) for where, v in table.items() if v[2] < 1]
    for name, few, many, what, how, text in below:
        print(f"below 1: {name}, {INPUTS[what]}, {SAMPLERS[how]}, {few} over {many}: {text}")


# ---------------------------------------------------------------- one choice changed at a time


def even(arm, budget=25):
    return recipe(arm, "even_t", budget)


def inside(arm, sampler="ancestral", **how):
    return recipe(arm, sampler, **how)


PLAIN, SCALED = even("cvp_estimate"), even("cvp_estimate_scaled")
WIDE, WIDES = even("wide_estimate"), even("wide_estimate_scaled")
VP, VPS, NOISE, VP_NOISE = map(even, ("vp_estimate", "vp_estimate_scaled", "cvp_noise", "vp_noise"))
MAIN = [  # place, change, before, after
    ("1 noise", "VP's levels, scaled, bridge k = 1/√2", SCALED, even("cvp_matched")),
    ("2 input", "scaled, bridge k = 1/√2", PLAIN, SCALED),
    ("3 predicts", "frame for noise, bridge k = 1/√2", NOISE, PLAIN),
    ("3 predicts", "the same, VP", VP_NOISE, VP),
    ("4 and 5", "our grid and start, frame, k = √2", WIDE, inside("wide_estimate")),
    ("4 and 5", "VP for the bridge (row 1, after)", even("cvp_matched"), VPS),
    ("recipe", "bridge, frame, 25 for VP, noise, 100", even("vp_noise", 100), PLAIN),
    ("recipe", "VP, frame, 100 for bridge, noise, 25", NOISE, even("vp_estimate", 100)),
]
MORE = [
    ("1, 4, 5", "k = √2 for k = 1/√2, plain input", PLAIN, WIDE),
    ("1, 4, 5", "the same, scaled input", SCALED, WIDES),
    ("1 noise", "g of a Brownian bridge, scaled input", SCALED, even("brownian_scaled")),
    ("1 noise", "g a parabola, scaled input", SCALED, even("parabola_scaled")),
    ("2 input", "scaled, VP", VP, VPS),
    ("2 input", "scaled, bridge k = √2", WIDE, WIDES),
    ("3 predicts", "frame for noise, bridge k = √2", even("wide_noise"), WIDE),
    ("4 steps", "Heun for ancestral, bridge k = √2", inside("wide_estimate"), recipe("wide_estimate")),
    ("4 steps", "Heun for ancestral, VP", inside("vp_estimate"), recipe("vp_estimate")),
    ("4 steps", "times i/100 for i/26, bridge k = √2", WIDE, recipe("wide_estimate", "trained_t")),
    ("4 steps", "the same, k = 1/√2, trained at i/100", even("cvp_hundredths"), recipe("cvp_hundredths", "trained_t")),
    ("4 and 5", "our grid and start, frame, k = 1/√2", PLAIN, inside("cvp_estimate")),
    ("4 and 5", "the same, VP", VP, inside("vp_estimate")),
    ("4 and 5", "the same, noise, k = 1/√2", NOISE, inside("cvp_noise")),
    ("4 and 5", "the same from σ = 10", NOISE, inside("cvp_noise", top=10.0)),
    ("5 start", "inside for 10, k = √2, Heun", recipe("wide_estimate", top=10.0), recipe("wide_estimate")),
    ("5 start", "the same, scaled input", recipe("wide_estimate_scaled", top=10.0), recipe("wide_estimate_scaled")),
    ("none", "100 for 25, VP", VP, even("vp_estimate", 100)),
    ("none", "the same, VP predicts noise", VP_NOISE, even("vp_noise", 100)),
    ("none", "100 for 5, bridge k = 1/√2", even("cvp_estimate", 5), even("cvp_estimate", 100)),
    ("none", "100 for 5, bridge k = √2", even("wide_estimate", 5), even("wide_estimate", 100)),
    ("none", "100 for 5, VP", even("vp_estimate", 5), even("vp_estimate", 100)),
]  # fmt: skip


def arrow(found):
    "Whether an interval leaves out 1: above, below."
    return "" if not found else "↑" * (found[1] > 1) + "↓" * (found[2] < 1)


def compare(changes):
    "Print the factor of each change on both worlds; an arrow where its interval leaves out 1."
    print(f"{'place':11s}{'change':39s}{'fork':24s}sprites")
    for place, change, before, after in changes:
        both = [factor(world, before, after) for world in WORLDS]
        leaf, sprites = (text_of(found) + arrow(found) for found in both)
        print(f"{place:11s}{change:39s}{leaf:24s}{sprites}")


# ---------------------------------------------------------------- how often, and CRPS

MODELS = {
    "bridge, k = 1/√2": "cvp_estimate",
    "the same, scaled input": "cvp_estimate_scaled",
    "bridge, k = √2": "wide_estimate",
    "the same, scaled input ": "wide_estimate_scaled",
    "bridge, scaled, VP's levels": "cvp_matched",
    "VP": "vp_estimate",
    "VP, scaled input": "vp_estimate_scaled",
}


def scores(columns):
    "Print, for each model at 25 evaluations, the columns {name: (world, sampler, metric)}."
    print(" " * 29 + "".join(f"{name:22s}" for name in columns).rstrip())
    for label, arm in MODELS.items():
        cells = []
        for world, sampler, metric in columns.values():
            seeds, _ = measured(world, recipe(arm, sampler), metric)
            mean, half = interval(*zip(*seeds.values())) if seeds else (math.nan, math.nan)
            cells.append(f"{mean:.3f} ± {half:.3f}{trainings(len(seeds))}" if seeds else "-")
        print(f"{label:29s}" + "".join(f"{cell:22s}" for cell in cells).rstrip())


# ---------------------------------------------------------------- the distances, drawn


def curves(ax, world, what, sampler="even_t"):
    "Distance against evaluations with 95% intervals, both on a log scale: two bridges, and VP."
    arms = {f"bridge, {name}": key for key, name in BRIDGES.items()} | {"VP": "vp"}
    for i, (label, arm) in enumerate(arms.items()):
        found = {}
        for n in (5, 10, 25, 100):
            seeds, _ = measured(world, recipe(f"{arm}_{what}", sampler, n))
            if seeds:
                pairs = [(math.log(v), error / v) for v, error in seeds.values()]
                found[n] = reading.from_logs(*interval(*zip(*pairs)))
        at = [n * 1.06 ** (i - 1) for n in found]  # side by side
        if found:
            mean, low, high = zip(*found.values())
            ax.loglog(at, mean, "os^"[i] + "-", color=f"C{i}", ms=5, label=label)
            ax.vlines(at, low, high, color=f"C{i}", lw=1.5)
    ax.set(title=f"{WORLDS[world]}, {INPUTS[what]}", xlabel="network evaluations a frame")
    ax.set_xticks([5, 10, 25, 100], [5, 10, 25, 100])
    ax.minorticks_off()
    ax.set_yticks([0.001, 0.003, 0.01, 0.03, 0.1], ["0.001", "0.003", "0.01", "0.03", "0.1"])
