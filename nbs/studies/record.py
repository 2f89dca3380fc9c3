"""What the studies share: arguments, where and when they ran, a table that survives a kill, training with its curve.

A study stands in this folder, says `import record`, and is a loop over its jobs:

    a = record.arguments(__doc__, "my_study", argv, quick=dict(seeds=[0], steps=10), seeds=[0, 1, 2], steps=400)
    table = record.Table(a.out)
    for job in record.todo(record.jobs(arm=ARMS, seed=a.seeds), table):
        run = record.train(lambda: make(job["arm"]), clips, job["seed"], steps=a.steps)
        table.put(job, rows_of(run.ema), record.facts(run))

Killed and started again, it goes on with the first job that the table lacks."""

import argparse
import csv
import datetime
import io
import itertools
import pathlib
import platform
import subprocess
import time

import torch

from vidiffedu.core import seeded
from vidiffedu.intervals import bootstrap_interval, mean_interval
from vidiffedu.safety import write_atomically
from vidiffedu.train import fit, save_weights

HERE = pathlib.Path(__file__).resolve().parent
CHECKPOINTS = HERE.parent / "checkpoints"  # what the lessons load with VIDIFFEDU_FAST=1


# ---------------------------------------------------------------- arguments


def arguments(doc, name, argv=None, quick=None, short=None, **settings):
    """The study's settings, each an option of the command line: a list takes several values.

    `quick` (seconds, to see that all runs) and `short` (about a minute) replace some of them.
    Adds `out`, the table or None, and `full`: whether this is the study itself."""
    given = vars(_parser(doc, name, settings, quick, short).parse_args(argv))
    presets = dict(short=short, quick=quick)
    asked = [presets[key] for key in presets if given.pop(key, False)]
    preset = asked[-1] if asked else None
    own = HERE / f"{name}.csv"
    out = given.pop("out", None) or (own if preset is None else None)
    full = preset is None and out == own
    return argparse.Namespace(**{**settings, **(preset or {}), **given}, out=out, full=full)


def _parser(doc, name, settings, quick, short):
    how = dict(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser = argparse.ArgumentParser(description=doc, **how)
    for key, value in settings.items():
        _add_option(parser, key, value)
    where = f"the table; default: {name}.csv beside this file, and none with a preset"
    parser.add_argument("--out", type=pathlib.Path, default=argparse.SUPPRESS, help=where)
    for key, preset in dict(quick=quick, short=short).items():
        if preset is not None:
            words = ", ".join(f"{k} {v}" for k, v in preset.items())
            parser.add_argument(f"--{key}", action="store_true", help=words)
    return parser


def _add_option(parser, key, value):
    many = isinstance(value, list)
    one = value[0] if many else value
    how = dict(nargs="+") if many else {}
    if many and isinstance(one, str):
        how.update(choices=value, metavar=key.upper())
    words = f"default: {' '.join(map(str, value)) if many else value}"
    option = f"--{key.replace('_', '-')}"
    parser.add_argument(option, type=type(one), default=argparse.SUPPRESS, help=words, **how)


# ---------------------------------------------------------------- where and when


def provenance():
    "Commit, hardware, torch and date of this run: the last columns of every row."
    threads = torch.get_num_threads()
    return dict(
        commit=_commit(),
        hardware=f"{_processor()}, {threads} thread{'s' * (threads != 1)}",
        torch=torch.__version__,
        date=datetime.date.today().isoformat(),
    )


def _commit():
    ask = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(ask, cwd=HERE, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git here
        return "unknown"


def _processor():
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def facts(run=None):
    "`provenance`, and what a training cost."
    cost = {} if run is None else dict(steps=run.steps, train_seconds=round(run.seconds))
    return {**cost, **provenance()}


# ---------------------------------------------------------------- the table


class Table:
    """A tidy CSV. All rows of a job are put at once, and the file is replaced whole.

    path None: nothing is kept. A new column is empty in the rows that were there before."""

    def __init__(self, path):
        self.path, self.rows = path, []
        if path is not None and path.is_file():
            with open(path, newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))

    def of(self, job):
        "The rows, as text, in which every column of `job` has the job's value."
        return [row for row in self.rows if _is_of(row, job)]

    def put(self, job, rows, facts=None):
        "Write the job's rows, in the place of any that it had; each gets the columns of both."
        others = [row for row in self.rows if not _is_of(row, job)]
        rows = [{**job, **row, **(facts or {})} for row in rows]
        self.rows = others + [{k: as_text(v) for k, v in row.items()} for row in rows]
        if self.path is not None:
            write_atomically(self.path, self.text())

    def text(self):
        fields = dict.fromkeys(k for row in self.rows for k in row)
        file = io.StringIO(newline="")
        table = csv.DictWriter(file, fields, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        return file.getvalue()


def join(out, files, by):
    "The rows of other tables, such as those of single jobs, put into the table `out`; `by`: the columns of a job."
    table = Table(out)
    for file in files:
        found = {}
        for row in Table(file).rows:
            found.setdefault(tuple(row[k] for k in by), []).append(row)
        for job, rows in found.items():
            table.put(dict(zip(by, job)), rows)


def join_parts(a, name, by):
    "Tables of single jobs, NAME_*.csv and NAME_*_curve.csv in the folder `a.join`, into the study's own."
    files = sorted(pathlib.Path(a.join).glob(f"{name}_*.csv"))
    curves = [p for p in files if p.stem.endswith("_curve")]
    join(a.out, [p for p in files if p not in curves], by)
    join(beside(a.out, "_curve.csv"), curves, by)


def _is_of(row, job):
    return all(row.get(k, "") == as_text(v) for k, v in job.items())


def as_text(v):
    "A number or a word as it stands in a table: six digits."
    return "" if v is None else f"{v:.6g}" if isinstance(v, float) else str(v)


# ---------------------------------------------------------------- jobs


def jobs(**choices):
    "Every combination, as dicts; the last name varies fastest."
    return [
        dict(zip(choices, values)) for values in itertools.product(*map(list, choices.values()))
    ]


def todo(jobs, table):
    "The jobs that the table lacks, in turn, each announced with the time that is left."
    left, started = [job for job in jobs if not table.of(job)], time.time()
    if len(left) < len(jobs):
        print(f"{len(jobs) - len(left)} of {len(jobs)} jobs are there already", flush=True)
    for i, job in enumerate(left):
        words = ", ".join(f"{k} {v}" for k, v in job.items())
        ahead = (time.time() - started) / 60 * (len(left) - i) / i if i else None
        rest = "" if ahead is None else f" (about {ahead:.0f} min to go)"
        print(f"[{i + 1}/{len(left)}] {words}{rest}", flush=True)
        yield job


def tell(rows, *columns):
    "One line a row: these columns."
    for row in rows:
        print("   ", *(_short(row[k]) for k in columns if row.get(k) is not None), flush=True)


def _short(v):
    return f"{v:.4g}" if isinstance(v, float) else str(v)


# ---------------------------------------------------------------- training and measuring


def train(make, clips, seed, **how):
    """make() -> a fresh model with weights of this seed, and `fit` -> its Run; `ema` is the model.

    A run that was stopped early (Ctrl-C, SIGTERM) ends the study: it must not be measured."""
    torch.manual_seed(seed)
    run = fit(make(), clips, seed=seed, progress=False, **how)
    if run.step < run.steps:
        raise SystemExit(f"stopped at step {run.step} of {run.steps}: nothing is written")
    return run


def curve(losses, window):
    "Rows of a training curve: the mean loss of every `window` steps."
    window = min(window, len(losses))
    whole = losses[: len(losses) // window * window]
    means = whole.reshape(-1, window).mean(1).tolist()
    return [dict(step=window * (i + 1), loss=loss) for i, loss in enumerate(means)]


def beside(path, ending):
    "A file beside the table, such as NAME_curve.csv; None where there is no table."
    return None if path is None else path.with_name(f"{path.stem}{ending}")


def for_lessons(a, model, name):
    "Save the weights that a lesson loads; only from the study itself."
    if a.full:
        save_weights(model, CHECKPOINTS / f"{name}.safetensors", dtype=torch.float16)


def keep_weights(a, job, model, name):
    "Of seed 0, in the folder `a.weights`, if one was asked for."
    if a.weights and job["seed"] == 0:
        file = pathlib.Path(a.weights) / f"{name}.safetensors"
        save_weights(model, file, dtype=torch.float16)


def ratio(top, bottom):
    "Sum of top (n,) over sum of bottom (n,), one a clip, with its 95% bootstrap interval over clips."
    of = lambda v: float(v[:, 0].sum() / v[:, 1].sum())
    pairs = torch.stack([top, bottom], 1)
    return bootstrap_interval(pairs, of, draws=500, generator=seeded(0))


def interval(values):
    "The mean over clips with its 95% interval, as columns."
    return {k: float(v) for k, v in zip(("value", "low", "high"), mean_interval(values))}
