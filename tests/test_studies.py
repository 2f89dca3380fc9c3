"""The studies run, go on where they were stopped, and leave what the lessons read."""

import csv
import importlib
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

STUDIES = Path(__file__).resolve().parents[1] / "nbs/studies"
SHORT = ["bridge_steps", "residual_scale", "score_frequency", "score_memory", "whole_clips"]
NAMES = [*SHORT, "masks_long", "masks_more", "residual_arms"]  # SHORT: with a preset of a minute
BESIDE = "reading", "record", "residual_rivals", "vector_long", "vector_times"  # what they import
each_study = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    "Python looks beside a script first; here it is told to."
    monkeypatch.syspath_prepend(str(STUDIES))
    yield
    for name in (*NAMES, *BESIDE):
        sys.modules.pop(name, None)


def load(name):
    return importlib.import_module(name)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def refuse(*_, **__):
    raise AssertionError("trained again")


def no_training(study, monkeypatch):
    for place in (study, study.record):
        monkeypatch.setattr(place, "train", refuse, raising=False)


# ---------------------------------------------------------------- every study


# columns of other arms than the quick one
ELSEWHERE = {"whole_clips": {"guess"}, "masks_more": {"known_unchanged", "samples"}}


@each_study
def test_it_runs_and_is_not_run_twice(name, tmp_path, monkeypatch, capsys):
    "A few steps; the columns are those of the committed table; again: nothing is done."
    study, out = load(name), tmp_path / f"{name}.csv"
    study.main(["--quick", "--out", str(out)])
    found, committed = rows(out), rows(STUDIES / f"{name}.csv")
    missing = set(committed[0]) - set(found[0])
    assert missing <= ELSEWHERE.get(name, set())
    assert {"torch", "commit", "hardware", "date"} <= set(found[0])
    assert all(row["torch"] == torch.__version__ and row["date"] for row in found)
    assert all(float(row["low"]) <= float(row["high"]) for row in found if row["low"])
    assert sorted(p.name for p in tmp_path.iterdir())[0] == out.name
    before = out.read_bytes()
    no_training(study, monkeypatch)
    study.main(["--quick", "--out", str(out)])
    assert out.read_bytes() == before and "1 of 1 jobs are there" in capsys.readouterr().out


# what has been run of studies that were not run in full: arms, and more of a command line
RUN = {
    "whole_clips": ["constant scalar ptss0.2 ptss1 masks masks_p0 masks_p0.75 masks_times"],
    "masks_more": ["p0.5 concat cosine few32 K4 K5 --seeds 0", "concat"],
    "residual_arms": [
        "law exact rvd rvd_mu vd forecast plain latent --worlds leaf --seeds 0",
        "still rvd rvd_half rvd_noise vd_time vd_weights forecast plain --worlds street --seeds 0",
    ],
}


@each_study
def test_the_committed_table_is_complete(name, tmp_path, monkeypatch):
    "The study, started on what is committed, finds every job done."
    study, runs = load(name), RUN.get(name)
    for file in STUDIES.glob(f"{name}*.csv"):
        shutil.copy(file, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    no_training(study, monkeypatch)
    if name == "residual_scale":
        monkeypatch.setattr(study, "worlds", lambda *_: (None, []))
    for argv in [["--arms", *run.split()] for run in runs] if runs else [[]]:
        study.main([*argv, "--out", str(tmp_path / f"{name}.csv")])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@each_study
def test_weights_for_the_lessons_come_from_the_full_study_only(name):
    study = load(name)
    assert study.settings([]).full and study.settings([]).out == STUDIES / f"{name}.csv"
    short = [["--short"]] if name in SHORT else []
    for argv in (["--quick"], *short, ["--out", "elsewhere.csv"]):
        assert not study.settings(argv).full
    assert study.settings(["--quick"]).out is None


def test_a_killed_study_goes_on(tmp_path, monkeypatch):
    "Killed in the second training: the first has its rows, and only the second is run again."
    study, out, trained = load("score_memory"), tmp_path / "table.csv", []
    argv = ["--quick", "--past", "1", "2", "3", "--out", str(out)]
    train = study.record.train

    def killed_at(k):
        def run(make, clips, seed, **how):
            trained.append(make().net.past)
            if len(trained) == k:
                raise KeyboardInterrupt
            return train(make, clips, seed, **how)

        return run

    monkeypatch.setattr(study.record, "train", killed_at(2))
    with pytest.raises(KeyboardInterrupt):
        study.main(argv)
    first = rows(out)
    assert [row["past"] for row in first] == ["1"] and trained == [1, 2]
    monkeypatch.setattr(study.record, "train", killed_at(None))
    study.main(argv)
    assert trained == [1, 2, 2, 3]
    assert rows(out)[0] == first[0] and [row["past"] for row in rows(out)] == ["1", "2", "3"]


# ---------------------------------------------------------------- what they share


def table(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text)
    return load("record").Table(path)


def test_rows_of_a_job_are_replaced_and_others_kept(tmp_path):
    t = table(tmp_path, "arm,seed,value\na,0,1\na,1,2\nb,0,3\n")
    t.put(dict(arm="a", seed=0), [dict(value=0.123456789), dict(value=7)], dict(torch="2"))
    expected = "arm,seed,value,torch\na,1,2,\nb,0,3,\na,0,0.123457,2\na,0,7,2\n"
    assert t.path.read_text() == expected
    again = load("record").Table(t.path)
    assert again.text() == t.text() and len(again.of(dict(arm="a"))) == 3
    assert again.of(dict(arm="a", seed=1)) == [dict(arm="a", seed="1", value="2", torch="")]
    assert again.of(dict(torch=None)) == again.rows[:2]


def test_a_table_without_a_file(tmp_path):
    t = load("record").Table(None)
    t.put(dict(arm="a"), [dict(value=1)])
    assert t.of(dict(arm="a")) and not t.of(dict(arm="b"))


def test_a_failure_leaves_the_old_table(tmp_path, monkeypatch):
    import os

    t = table(tmp_path, "arm,value\na,1\n")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        t.put(dict(arm="b"), [dict(value=2)])
    assert t.path.read_text() == "arm,value\na,1\n" and len(list(tmp_path.iterdir())) == 1


def test_what_is_there_is_skipped_and_the_rest_announced(tmp_path, capsys):
    record, t = load("record"), table(tmp_path, "q,seed\n0.7,0\n")
    jobs = record.jobs(seed=[0, 1], q=[0.5, 0.7])
    assert jobs == [dict(seed=s, q=q) for s in (0, 1) for q in (0.5, 0.7)]
    assert list(record.todo(jobs, t)) == [jobs[0], jobs[2], jobs[3]]
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["1 of 4 jobs are there already", "[1/3] seed 0, q 0.5"]
    assert said[2].startswith("[2/3] seed 1, q 0.5 (about")


def arguments(*argv):
    settings = dict(arms=["a", "b"], seeds=[0, 1, 2], steps=400, lr=3e-3)
    how = dict(quick=dict(seeds=[0], steps=5), short=dict(steps=50))
    return load("record").arguments("Why.", "mine", list(argv), **how, **settings)


def test_presets_replace_defaults_and_options_replace_both():
    a = arguments()
    assert (a.arms, a.seeds, a.steps, a.lr) == (["a", "b"], [0, 1, 2], 400, 3e-3) and a.full
    a = arguments("--quick", "--steps", "7", "--arms", "b")
    assert (a.arms, a.seeds, a.steps, a.lr) == (["b"], [0], 7, 3e-3) and not a.full
    assert arguments("--short", "--lr", "0.5").lr == 0.5 and arguments("--short").steps == 50


@pytest.mark.parametrize("argv", [["--arms", "c"], ["--seeds", "x"], ["--step", "3"]])
def test_a_typing_error_is_refused(argv, capsys):
    with pytest.raises(SystemExit):
        arguments(*argv)
    assert argv[0] in capsys.readouterr().err


def test_a_curve_is_the_mean_of_every_window():
    curve = load("record").curve
    assert curve(torch.arange(7.0), 3) == [dict(step=3, loss=1.0), dict(step=6, loss=4.0)]
    assert curve(torch.arange(4.0), 10) == [dict(step=4, loss=1.5)]


class Coin(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def loss(self, clip, generator=None):
        return self.weight.square().sum() + 0 * clip.sum()


def test_a_seed_decides_the_weights_that_a_training_starts_from():
    record, clips = load("record"), torch.zeros(2, 1, 1, 2, 2)
    start = lambda seed: record.train(Coin, clips, seed, steps=1, lr=1e-9).losses
    torch.manual_seed(5)
    expected = torch.randn(3).square().sum()
    assert torch.equal(start(5), start(5)) and not torch.equal(start(5), start(6))
    torch.testing.assert_close(start(5)[0], expected)


def test_the_interval_of_a_mean():
    v = torch.tensor([1.0, 2.0, 3.0, 6.0])
    found, half = load("record").interval(v), 1.96 * v.std() / 2
    assert found == pytest.approx(dict(value=3.0, low=float(3 - half), high=float(3 + half)))


def test_the_ratio_of_two_sums_over_clips():
    "Where each clip has the same ratio, its interval has no width."
    ratio, v = load("record").ratio, torch.tensor([1.0, 2.0, 5.0])
    assert ratio(2 * v, v) == pytest.approx((2, 2, 2))
    value, low, high = ratio(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 1.0, 2.0]))
    assert value == 9 / 4 and 1 <= low < 9 / 4 < high <= 3  # the clips' own: 1, 2, 3


def test_tables_of_single_jobs_become_one_and_their_curves_another(tmp_path):
    record = load("record")
    for k, name in enumerate(("mine_a", "mine_a_curve", "mine_b", "mine_b_curve", "other_c")):
        record.Table(tmp_path / f"{name}.csv").put(dict(arm=name[5], seed=0), [dict(value=k)])
    a = record.argparse.Namespace(join=str(tmp_path), out=tmp_path / "mine.csv")
    record.join_parts(a, "mine", ("arm", "seed"))
    found = [[r["value"] for r in rows(tmp_path / f"mine{end}.csv")] for end in ("", "_curve")]
    assert found == [["0", "2"], ["1", "3"]]


def test_weights_are_kept_of_seed_0_where_a_folder_is_named(tmp_path):
    record, a = load("record"), lambda where: load("record").argparse.Namespace(weights=str(where))
    record.keep_weights(a(tmp_path), dict(seed=1), Coin(), "coin")
    record.keep_weights(a(""), dict(seed=0), Coin(), "coin")
    assert not list(tmp_path.iterdir())
    record.keep_weights(a(tmp_path), dict(seed=0), Coin(), "coin")
    assert [p.name for p in tmp_path.iterdir()] == ["coin.safetensors"]


# ---------------------------------------------------------------- how their tables are read

# Student's t of one and of two degrees of freedom, from its distribution function: P(|T| < t) = 0.95
ONE, TWO = math.tan(0.475 * math.pi), 0.95 * (2 / (1 - 0.95**2)) ** 0.5


def of_trainings(seeds, values, half):
    "Rows of these trainings; the interval over test clips is ± `half` of the value."
    ends = lambda v: dict(value=str(v), low=str(v * (1 - half)), high=str(v * (1 + half)))
    return [dict(seed=k, **ends(v)) for k, v in zip(seeds, values)]


def test_half_an_interval_over_trainings():
    "1, 2, 6: mean 3, variance (4 + 1 + 9) / 2 = 7. 1, 3: variance 2. One value: none."
    half = load("reading").over_trainings
    assert half(torch.tensor([1.0, 2.0, 6.0])) == pytest.approx(TWO * (7 / 3) ** 0.5)
    assert half(torch.tensor([1.0, 3.0])) == pytest.approx(ONE)
    assert half(torch.tensor([5.0])) == 0


def test_half_an_interval_over_clips_is_a_share_of_the_value():
    of = load("reading").over_clips
    assert of(of_trainings("01", (2.0, 8.0), 0.1)) == pytest.approx(0.1)
    assert of([dict(value="4", low="3", high="5"), dict(value="1", low="0", high="2")]) == 0.625


def test_a_factor_is_over_the_trainings_that_both_have():
    "2 / 1 and 8 / 1: the logarithms' mean is that of 4, half their interval ONE log 2; clips add in squares."
    read = load("reading")
    top, bottom = of_trainings("014", (2, 8, 99), 0.1), of_trainings("105", (1, 1, 99), 0.2)
    log = ONE * math.log(2)
    expected = lambda h: pytest.approx([4, 4 * math.exp(-h), 4 * math.exp(h)], rel=1e-5)
    assert read.factor(top, bottom, clips=False) == expected(log)
    assert read.factor(top, bottom) == expected(math.hypot(log, 0.1, 0.2))
    rival = read.against(top[:2], dict(seed="7", value="16"))
    assert read.factor(rival, top, clips=False)[0] == pytest.approx(4)  # 16 / 2 and 16 / 8
    assert [r["seed"] for r in rival] == ["0", "1"]


def test_a_factor_in_words():
    words = load("reading").words
    assert words((4, 1.999, 8), 2) == "4.00 (2.00 to 8.00)"
    assert words((40, 19.99, 80), 0) == "40 (20 to 80)"


def test_rows_are_picked_by_columns_and_come_by_seed():
    read = load("reading")
    found = [dict(arm=arm, seed=k, value=v) for arm, k, v in ("a15", "b06", "a07")]
    assert read.numbers(read.pick(found, arm="a")).tolist() == [7, 5]
    assert read.pick(found, arm="a", seed="1") == [found[0]] and read.pick(found, arm="c") == []
    assert read.table("score_exact") == rows(STUDIES / "score_exact.csv")


# ---------------------------------------------------------------- what some measure


def test_the_range_of_the_losses_over_the_seeds():
    record, study = load("record"), load("score_frequency")
    curves = record.Table(None)
    for seed, losses in enumerate(([5.0, 2.0], [4.0, 3.0])):
        points = [dict(step=100 * (i + 1), loss=v) for i, v in enumerate(losses)]
        curves.put(dict(q=0.7, seed=seed), points)
    curves.put(dict(q=0.9, seed=0), [dict(step=100, loss=99.0)])
    assert list(study.band(curves)) == [
        dict(step=100, low=4.0, high=5.0, seeds="0 1"),
        dict(step=200, low=2.0, high=3.0, seeds="0 1"),
    ]
