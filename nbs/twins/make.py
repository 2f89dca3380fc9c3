"""The explorers' twins: one page of plain HTML for each, for the site and for phones.

    python nbs/twins/make.py            all of them, two minutes
    python nbs/twins/make.py crps race  these

A twin shows what its explorer shows: `TWINS` says at which values of the controls (vidiffedu.explore.twin).
"""

import sys
from importlib import import_module
from pathlib import Path

from vidiffedu.explore.twin import write_twin

HERE = Path(__file__).resolve().parent


def steps(first, last, step):
    "first, first + step, ... last"
    count = round((last - first) / step) + 1
    return [round(first + i * step, 10) for i in range(count)]


ON, TEN = [False, True], steps(0.2, 2, 0.2)
PAINTED = ["none", "the first", "the first two", "the ends", "the last", "pyramid", "random mask"]
SAMPLERS = ["ancestral", "DDIM", "Heun in σ", "all noise anew (wrong)", "literal increment (wrong)"]
FORECASTS = ["last frame", "mean of the futures", "nothing"]

# name: (function in vidiffedu.explore.NAME, {control: values}); what moves last is packed best
TWINS = {
    "crps": ("crps_explorer", dict(bias=steps(-1, 1, 0.5), spread=TEN, members=[4, 10, 50])),
    "vector": ("vector_explorer", dict(clean=PAINTED, level=[0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])),
    "masks": (
        "masks_explorer",
        dict(log_sigma=[-0.5, 0.0, 2.0], **{f"known{i}": ON for i in range(1, 6)}),
    ),
    "dice": (
        "dice_explorer",
        dict(
            law=["mask", "ptss"],
            most=[1, 2, 3, 4],
            p_uncond=[0.0, 0.25, 0.5, 1.0],
            p=[0.0, 0.2, 0.5, 1.0],
            throw=[0, 1, 2],
        ),
    ),
    "bridge": (
        "bridge_explorer",
        dict(
            clip=[0, 1],
            log_sigma=steps(-1.5, 0.9, 0.3),
            sampler=SAMPLERS,
            spacing=["uniform in t", "even in log σ"],
            steps=[10, 25],
            start=["the known frame", "the first estimate"],
        ),
    ),
    "filters": (
        "filters_explorer",
        dict(log_sigma=[-1.0, -0.5, 0.0, 0.5], row=[3, 6, 8, 10, 13], col=[3, 6, 8, 10, 13]),
    ),
    "residual": (
        "residual_explorer",
        dict(
            forecast=FORECASTS,
            log_scale=[-1.0, 0.0, 1.0],
            time=[0.1, 0.3, 0.5, 0.7, 0.9],
            step=["with the root", "as printed"],
        ),
    ),
    "race": (
        "race_explorer",
        dict(
            steps=[2, 4, 8, 12, 16, 25],
            spacing=["t", "noise"],
            again=[0, 1],
            sampler=["DDIM", "ancestral", "Heun", "Euler SDE"],
        ),
    ),
    "field": (
        "field_explorer",
        dict(sigma=[0.3, 1.0, 2.0], y=steps(-1.9, 1.6, 0.5), x=steps(-1.9, 1.6, 0.5)),
    ),
    "calibration": (
        "calibration_explorer",
        dict(bias=steps(-1, 1, 0.5), spread=[0.3, 0.5, 0.7, 1.0, 1.4, 2.0], level=[50, 80, 90, 95]),
    ),
    "score": (
        "leaf_explorer",
        dict(
            q=[0.5, 0.7, 0.9],
            sigma_0=[0.25, 4.0],
            gamma=[0.5, 1.0],
            log_sigma=steps(-1.1, 0.7, 0.3),
            came=[0, 1],
        ),
    ),
}


def explorer(name):
    "The explorer as it opens, and the values at which its twin shows it."
    function, grid = TWINS[name]
    return getattr(import_module(f"vidiffedu.explore.{name}"), function)(), grid


def main(names):
    for name in names or TWINS:
        shown, grid = explorer(name)
        size = write_twin(shown, HERE / f"{name}.html", grid)
        print(f"{name}.html: {size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
