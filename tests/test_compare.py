"""The bench: judges that see what they should, rows that survive a kill, weights that score as their cards say."""

import argparse
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from vidiffedu import arena, bench, compare
from vidiffedu.core import seeded
from vidiffedu.safety import from_bytes, rounded, write_tensors
from vidiffedu.train import load_weights, save_weights

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "nbs/studies/compare.json"
LENS = ("flicker", "drift", "frozen", "ghosting")
few = 512  # training clips are not looked at here


@pytest.fixture(scope="module")
def turn():
    return arena.turn(few)


def value(rows, judge, horizon="all"):
    return next(r for r in rows if r["judge"] == judge and r["horizon"] == horizon)


# ---------------------------------------------------------------- the lens


@pytest.mark.parametrize("name", ["turn", "sprites", "leaves"])
@pytest.mark.parametrize("kind", LENS)
def test_each_number_rises_under_its_own_fault_only(name, kind):
    clips = arena.SCENES[name](few).test
    clean, bad = (compare.lens(v) for v in (clips, compare.corrupt(clips, kind, amount=0.4)))
    rise = {k: float((bad[k] - clean[k]).mean()) for k in LENS}
    assert rise[kind] > 0.2
    assert all(rise[k] < 0.25 * rise[kind] for k in LENS if k != kind), rise


def test_drift_and_flicker_are_read_in_grey_units():
    "A still ground: least squares find the amount exactly."
    clip = -torch.ones(2, 5, 1, 16, 16)
    for kind in ("drift", "flicker"):
        found = compare.lens(compare.corrupt(clip, kind, amount=0.3))
        want = {k: 0.3 if k == kind else 0.0 for k in LENS}
        assert {k: round(float(v.mean()), 5) for k, v in found.items()} == want


def test_a_ghost_of_unlike_changes_has_the_correlation_of_the_formula():
    "White frames: changes d, d' with covariance -1/2, each of the ghost a mix of two; sums by hand."
    x, g = 0.2 * torch.randn(64, 6, 1, 32, 32, generator=seeded(0)), 0.4
    found = float(compare.lens(compare.corrupt(x, "ghosting", amount=g))["ghosting"].mean())
    a = torch.zeros(5, 6)
    a[0, 1] = 1
    for i in range(1, 5):
        a[i, i + 1], a[i, i] = 1 - g, g
    d = a.diff(dim=0)
    one, two = d[:-1], d[1:]
    want = float((one * two).sum() / ((one**2).sum() + (two**2).sum()) * 2)
    assert found == pytest.approx(max(0.0, want), abs=0.02)


def test_motion_is_measured_by_that_of_the_known_frames():
    "One pixel on a still ground moves by .4 and then by .1: a quarter, so half of frozen."
    clip = torch.zeros(1, 5, 1, 8, 8)
    clip[0, :, 0, 3, 3] = torch.tensor([0.0, 0.4, 0.5, 0.6, 0.7])
    assert float(compare.lens(clip)["frozen"]) == pytest.approx(0.5, rel=1e-5)


def test_lens_refuses_too_few_frames():
    with pytest.raises(ValueError, match="clip: got 3 frames, expected at least 4"):
        compare.lens(torch.zeros(1, 3, 1, 8, 8))
    with pytest.raises(ValueError, match="kind: got 'blur', expected one of flicker"):
        compare.corrupt(torch.zeros(1, 5, 1, 8, 8), "blur")


# ---------------------------------------------------------------- the judges


def test_the_true_law_gets_what_theory_says():
    "Gaussian clips: fair CRPS of a pixel is δ/√π on average, energy and spread likewise."
    task = arena.gauss(few)
    rows = task.judge(task.draw(20, seeded(0)))
    want = float(task.std.mean()) / math.sqrt(math.pi)
    found = value(rows, "crps")
    assert abs(found["value"] - want) < 2 * (found["high"] - found["low"])
    assert value(rows, "crps_plain")["value"] == pytest.approx(want * 21 / 20, rel=0.05)
    assert value(rows, "spread")["value"] == pytest.approx(1, abs=0.05)
    assert value(rows, "law_spread")["value"] == pytest.approx(1, abs=0.03)
    assert value(rows, "calibration")["value"] < 0.03
    few_members = value(task.judge(task.draw(2, seeded(1))), "spread")
    assert few_members["value"] == pytest.approx(1, abs=0.08)  # without 1 + 1/s it would be .82


def test_outcomes_of_the_true_law(turn):
    rows = turn.judge(turn.draw(20, seeded(0)))
    assert value(rows, "nearest")["value"] == 0
    assert value(rows, "frequency")["value"] == pytest.approx(0.7, abs=0.06)
    assert value(rows, "dispersion")["value"] == pytest.approx(1, abs=0.7)
    assert value(rows, "frequency_error")["value"] < 0.08


def test_outcomes_of_a_forecaster_that_always_goes_straight_on(turn):
    rows = turn.judge(turn.outcomes[:, 0].expand(5, *turn.target.shape))
    assert value(rows, "frequency")["value"] == 1
    assert value(rows, "frequency_error")["value"] == pytest.approx(1 - 0.7**3)
    assert value(rows, "dispersion")["value"] == pytest.approx(5 * 0.3**2 / 0.21)


def test_copies_of_one_forecast_have_the_absolute_error(turn):
    x = (turn.target + 0.1).expand(4, *turn.target.shape)
    rows = turn.judge(x)
    for end in ("", "_plain"):
        assert value(rows, "crps" + end)["value"] == pytest.approx(0.1, rel=1e-4)
        assert value(rows, "energy" + end)["value"] == pytest.approx(0.1, rel=1e-4)
        for horizon in (1, 2, 3):
            for judge in ("crps", "energy"):
                found = value(rows, judge + end, horizon)["value"]
                assert found == pytest.approx(0.1, rel=1e-4), (judge + end, horizon)
    assert value(rows, "psnr_best")["value"] == pytest.approx(20 * math.log10(20), rel=1e-4)


def test_one_line_for_a_wrong_shape(turn):
    with pytest.raises(ValueError, match=r"x: got shape \(1, "):
        turn.judge(turn.target[None])


# ---------------------------------------------------------------- intervals


def test_over_seeds_adds_both_variances():
    assert compare.over_seeds([2.0], [1.0], [3.0]) == (2, 1, 3)
    mean, low, high = compare.over_seeds([1.0, 3.0], [0.0, 2.0], [2.0, 4.0])
    assert mean == 2
    assert (high - low) / 2 == pytest.approx(math.hypot(1, 12.706), rel=1e-3)


def test_paired_is_narrower_where_the_clips_are_hard_for_both():
    hard = torch.randn(1, 200, generator=seeded(0))
    off = 0.1 * torch.randn(1, 200, generator=seeded(1))
    middle, low, high = compare.paired(hard + off + 0.05, hard)
    assert middle == pytest.approx(0.05 + float(off.mean()), abs=1e-6)
    assert high - low == pytest.approx(2 * 1.96 * float(off.std()) / 200**0.5, rel=1e-3)


def test_paired_adds_what_trainings_differ_by():
    "Clips all alike: trainings at 1 and 3 have a mean known to 12.7 (Student's, of two), those of b to 0."
    two = torch.tensor([[1.0] * 5, [3.0] * 5])
    middle, low, high = compare.paired(two, torch.zeros(2, 5))
    assert middle == 2 and high - middle == middle - low == pytest.approx(12.706, rel=1e-3)
    middle, low, high = compare.paired(two, 3 * two.flip(0))
    assert middle == -4 and high - middle == pytest.approx(12.706 * math.hypot(1, 3), rel=1e-3)


# ---------------------------------------------------------------- worlds


def test_windows_are_all_runs_of_their_length():
    "Frame i is i: every second frame, three of them, from every start that leaves room."
    films = torch.arange(7.0).view(1, 7, 1, 1, 1).repeat(2, 1, 1, 1, 1)
    for f, stride, n in ((3, 1, 5), (3, 2, 3), (4, 2, 1), (1, 3, 7)):
        found = arena.windows(films, f, stride).flatten(1).tolist()
        assert found == 2 * [[k + stride * i for i in range(f)] for k in range(n)], (f, stride)


def test_no_clip_of_a_world_serves_twice():
    for name in ("turn", "leaves", "gauss", "sprites"):
        task = arena.SCENES[name](few)
        assert len(task.train) == few
        for one, two in ((task.train[: arena.TEST], task.test), (task.test, task.other)):
            assert (one - two).abs().flatten(1).mean(1).min() > 1e-3, name


def test_a_leaf_that_goes_straight_on_is_found_by_its_velocity(turn):
    "Its first outcome; one step too many would be off by two pixels."
    x = arena.GUESSES["velocity"](turn)
    assert x.shape == (arena.SAMPLES, *turn.target.shape) and torch.equal(x[0], x[-1])
    off = (x[0] - turn.outcomes[:, 0]).abs().mean()
    copied = (turn.past[:, -1:] - turn.outcomes[:, 0]).abs().mean()
    assert off < 0.15 * copied


def test_the_last_frames_are_looked_at_however_long_the_past_is():
    net = lambda x, t, past: past[:, :1]  # the older of the two
    ahead, past = arena.Ahead(net, 2), torch.arange(5.0).view(1, 5, 1, 1, 1)
    mu, state = ahead(past)
    assert mu.item() == 4 + 3 and state.flatten().tolist() == [3, 4]
    mu, state = ahead(past[:, :1] + 9, state)
    assert mu.item() == 9 + 4 and state.flatten().tolist() == [4, 9]


# ---------------------------------------------------------------- arms and jobs


def test_all_arms_have_as_many_weights_within_a_tenth(monkeypatch, turn):
    monkeypatch.setattr(arena, "world", lambda name: turn)
    sizes = [sum(p.numel() for p in bench.new_model(m, "turn").parameters()) for m in arena.ARMS]
    assert max(sizes) <= 1.1 * min(sizes)


def test_equal_seconds_are_steps_over_pace():
    assert (
        bench.steps_of("score", "parameters")
        == bench.steps_of("fvdm", "seconds")
        == bench.TRAINING_STEPS
    )
    assert bench.steps_of("rvd", "seconds") * bench.PACE["rvd"] == pytest.approx(
        bench.TRAINING_STEPS, rel=0.01
    )


@pytest.mark.parametrize("n", [1, 3, 10, 100])
def test_looks_go_from_four_to_three_hundredths(n):
    "With an exact estimate a look leaves 1 - gamma h of the noise."
    how = bench.looks(n)
    assert 4 * (1 - how["gamma"] * how["h_max"]) ** n == pytest.approx(0.03, rel=1e-6)
    assert 0 < how["h_max"] <= 1 and 0.5 <= how["gamma"] <= 1


def test_jobs_in_order_and_unknown_names_in_one_line():
    jobs = bench.jobs_of()
    assert len(set(jobs)) == len(jobs) == 24 + 180 + 36
    learned = [j for j in jobs if j.budget != "none"]
    assert {j.seed for j in learned[:60]} == {0} and len({j.world for j in learned[:60]}) == 6
    with pytest.raises(ValueError, match="^methods: got 'gan', expected of score, cvp, .*truth$"):
        bench.jobs_of(methods=["gan"])
    with pytest.raises(ValueError, match="^worlds: got 'moon', expected of turn, leaves, gauss"):
        bench.run_comparison(worlds=["moon"], progress=False)


@pytest.mark.parametrize("method", [m for m in arena.ARMS if m != "score"])
def test_many_clips_cost_no_more_network_calls_than_one(method, monkeypatch, turn):
    monkeypatch.setattr(arena, "world", lambda name: turn)
    model = bench.new_model(method, "turn")
    how = {**bench.sampler(method), **({} if method == "predictor" else dict(steps=2))}
    calls = [bench.forecast(model, turn.past[:n], 2, **how)[1]["evaluations"] for n in (1, 3)]
    assert calls[0] == calls[1]


def test_memory_counts_what_is_alive():
    with bench.live() as memory:
        x = torch.zeros(1000)
        y = x + 1
        del x
        z = y[:10] * 2
        del y, z
    assert memory.peak == 8000 and memory.now == 0


# ---------------------------------------------------------------- files


def refuse(*_, **__):
    raise AssertionError("done again")


def test_compare_goes_on_where_it_was_killed(tmp_path, monkeypatch, capsys):
    how = dict(methods=["persistence", "oracle"], worlds=["turn"], out=tmp_path, progress=False)
    rows = bench.run_comparison(**how)
    text = (tmp_path / "compare.csv").read_bytes()
    assert value(rows, "crps")["value"] > 0 and text.startswith(b"budget,world,method,seed,judge")
    with monkeypatch.context() as m:
        m.setattr(bench, "do", refuse)
        assert bench.run_comparison(**how) == rows
    path = bench.row_file(tmp_path, bench.Job("none", "turn", "oracle", 0))
    path.write_text(path.read_text()[:300])
    assert bench.run_comparison(**how) == rows
    assert f"rows: got {path}, which is not whole" in capsys.readouterr().out
    assert (tmp_path / "compare.csv").read_bytes() == text
    runs = json.loads((tmp_path / "compare.json").read_text())["runs"]
    assert {"torch", "date", "seed", "crps"} <= set(runs[0])


def test_the_oracle_has_no_row_where_nobody_knows_the_law(tmp_path):
    how = dict(methods=["oracle"], worlds=["films"], out=tmp_path, progress=False)
    assert bench.run_comparison(**how) == []


def test_a_curve_is_means_of_windows_beside_their_last_steps(tmp_path, monkeypatch):
    "Losses 0, 1, 2, ... of 125 steps: windows of two, 62 of them; the step left over is not read."
    facts = dict(steps=125)
    monkeypatch.setattr(bench, "train_arm", lambda *_: (None, facts, torch.arange(125.0)))
    monkeypatch.setattr(
        bench, "look_at", lambda job, *_: dict(job=job._asdict(), facts={}, rows=[], crps=[])
    )
    job = bench.Job("parameters", "turn", "vd", 1)
    found, _ = bench.run_job(job, 125)
    assert found["curve"] == [2 * i + 0.5 for i in range(62)]
    bench.row_file(tmp_path, job).parent.mkdir()
    bench.row_file(tmp_path, job).write_text(json.dumps(found))
    assert bench.collect(tmp_path) == []
    lines = (tmp_path / "compare_curve.csv").read_text().split()
    assert (
        lines[1] == "parameters,turn,vd,1,2,0.5" and lines[-1] == "parameters,turn,vd,1,124,122.5"
    )


def test_the_table_has_the_mean_of_the_trainings():
    row = dict(world="gauss", method="vd", judge="crps", horizon="all")
    others = [row | dict(horizon=1, value=9.0), row | dict(judge="energy", value=9.0)]
    text = bench.score_text([row | dict(value=0.5), row | dict(value=0.25), *others])
    assert [line.split() for line in text.splitlines()] == [["crps", "gauss"], ["vd", "0.3750"]]


def test_the_command_reads_its_options():
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser, "compare")
    args = parser.parse_args("--methods oracle --worlds turn --seeds 0 1 --out x".split())
    assert (args.methods, args.seeds, args.steps) == (["oracle"], [0, 1], bench.TRAINING_STEPS)
    with pytest.raises(ValueError, match="methods: got 'gan'"):
        bench.run_command(parser.parse_args("--methods gan".split()), "compare")


# ---------------------------------------------------------------- weights in 8 bits


def shaken(seed=0, size=3.0):
    "A network whose every parameter is drawn, channels of very different size among them."
    net = bench.new_model("vd", "turn")
    g = seeded(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
            p.mul_(10 ** (size * torch.rand(len(p), *[1] * (p.ndim - 1), generator=g) - size))
    return net


def test_8_bits_worst_error_is_half_a_step_of_the_channels_largest(tmp_path, monkeypatch, turn):
    monkeypatch.setattr(arena, "world", lambda name: turn)
    net = shaken()
    save_weights(net, tmp_path / "w", dtype=torch.int8)
    assert (tmp_path / "w").stat().st_size < 60_000  # the reader is not told
    back = dict(load_weights(bench.new_model("vd", "turn", 1), tmp_path / "w").named_parameters())
    for name, v in net.named_parameters():
        off = (back[name] - v).abs().detach()
        if v.ndim < 2:
            assert (off <= v.abs() / 2**11 + 1e-7).all()
            continue
        largest = v.detach().abs().flatten(1).amax(1)
        assert (off.flatten(1).amax(1) <= largest / 254 * (1 + 1e-5)).all(), name


def test_8_bits_of_a_row_of_zeros_and_of_no_number():
    zeros = from_bytes(rounded({"w": torch.zeros(2, 3)}, torch.int8))["w"]
    assert torch.equal(zeros, torch.zeros(2, 3))
    for bad in (torch.tensor([[1e6]]), torch.tensor([[math.nan]]), torch.tensor([1e6])):
        with pytest.raises(ValueError, match="^dtype: got torch.int8 for w up to .*that fit$"):
            rounded({"w": bad}, torch.int8)


def test_a_broken_file_of_8_bits_is_refused_in_one_line(tmp_path, monkeypatch, turn):
    monkeypatch.setattr(arena, "world", lambda name: turn)
    net, path = shaken(), tmp_path / "w"
    save_weights(net, path, dtype=torch.int8)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 4999):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="^path: got [^\n]*, expected a whole [^\n]*$"):
            load_weights(net, path)
    path.write_bytes(whole)
    with safe_open(path, "pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}
    for end in ("|int8", "|largest"):  # one of a pair is missing
        fewer = dict(tensors)
        del fewer[next(k for k in fewer if k.endswith(end))]
        write_tensors(path, fewer, {})
        with pytest.raises(ValueError, match="^path: got [^\n]*in steps without[^\n]*$"):
            load_weights(net, path)
    name = next(k for k in tensors if k.endswith("|int8")).removesuffix("|int8")
    fewer = {k: v for k, v in tensors.items() if not k.startswith(name + "|")}  # both
    write_tensors(path, fewer, {})
    with pytest.raises(ValueError, match=f"^path: got [^\n]*{name} missing[^\n]*$"):
        load_weights(net, path)


# ---------------------------------------------------------------- what is shipped

shipped = pytest.mark.skipif(not STUDY.is_file(), reason="the study's table is not there")


def runs():
    found = json.loads(STUDY.read_text())["runs"]
    return {(r["budget"], r["world"], r["method"], r["seed"]): r for r in found}


@shipped
def test_a_band_holds_the_curves_of_its_seeds():
    step, low, high = bench.loss_band("vd", "turn")
    assert (low <= high).all() and (step.diff() > 0).all() and float(low[-1]) < float(low[0])
    with pytest.raises(ValueError, match="^world: got 'moon', expected of turn"):
        bench.loss_band("vd", "moon")


@shipped
def test_a_changed_weight_file_is_refused(tmp_path):
    for end in ("json", "safetensors"):
        name = f"compare_turn_predictor.{end}"
        shutil.copy(ROOT / "nbs/checkpoints" / name, tmp_path)
    path = tmp_path / "compare_turn_predictor.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="^weights: got .* of SHA-256 .*, expected .*its card$"):
        bench.load_model("predictor", "turn", tmp_path)


@shipped
@pytest.mark.parametrize("world", list(arena.SCENES))
@pytest.mark.parametrize("method", list(arena.ARMS))
def test_every_method_and_world_has_weights_and_a_card(method, world):
    "In 8 bits; they score what the trained network did, within its interval or a tenth."
    folder = ROOT / "nbs/checkpoints"
    path = folder / f"compare_{world}_{method}.safetensors"
    card = json.loads(path.with_suffix(".json").read_text())
    assert bench.fingerprint(path) == card["sha256"] and path.stat().st_size < 60_000
    kept, trained = card["crps"], card["as_trained"]
    half = (trained["high"] - trained["low"]) / 2
    assert abs(kept["value"] - trained["value"]) < max(half, 0.1 * trained["value"])
    mean = sum(card["clips"]) / len(card["clips"])
    assert mean == pytest.approx(kept["value"], rel=1e-3) and len(card["clips"]) == arena.TEST


WORLD_OF = dict(zip(arena.ARMS, 2 * list(arena.SCENES)))  # each method in one world, each world


@shipped
@pytest.mark.parametrize("method", list(arena.ARMS))
def test_weights_score_as_their_card_says(method):
    "Other noise, fewer clips and futures: the mean difference is within four standard errors."
    world = WORLD_OF[method]
    model, card = bench.load_model(method, world)
    task, n = arena.world(world), 16
    x, _ = bench.forecast(model, task.past[:n], 4, seed=11, **bench.sampler(method))
    off = torch.tensor(bench.per_clip(x, task.target[:n])) - torch.tensor(card["clips"][:n])
    assert abs(float(off.mean())) < 4 * float(off.std()) / n**0.5 + 0.02 * card["crps"]["value"]


def test_saved_weights_have_a_card_of_their_own_score(tmp_path, monkeypatch, turn):
    "The card says what the 8-bit weights score, and what was measured before."
    monkeypatch.setattr(arena, "world", lambda name: turn)
    job = bench.Job("parameters", "turn", "predictor", 0)
    model = bench.new_model("predictor", "turn")
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=seeded(1)))
    found = bench.look_at(job, model) | dict(curve=[1.0])
    card = bench.save_model(model, tmp_path / "compare_turn_predictor.safetensors", found)
    again, same = bench.load_model("predictor", "turn", tmp_path)
    assert same == json.loads(json.dumps(card))
    x, _ = bench.forecast(again, turn.past)
    assert card["crps"]["value"] == pytest.approx(
        sum(bench.per_clip(x, turn.target)) / arena.TEST, rel=1e-3
    )
    assert card["crps"]["value"] == pytest.approx(card["as_trained"]["value"], rel=0.02)


@shipped
def test_the_oracle_is_not_beaten_by_more_than_its_interval():
    found = runs()
    for (budget, world, method, _), run in found.items():
        best = found.get(("none", world, "oracle", 0))
        if best and method not in ("oracle", "truth"):
            assert compare.paired([run["crps"]], [best["crps"]])[2] > 0, (budget, world, method)


# ---------------------------------------------------------------- the page's words


def page():
    "Markdown and printed outputs of the page."
    cells = json.loads((ROOT / "nbs/17_compare.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    outputs = [o for c in cells for o in c.get("outputs", [])]
    tables = ["".join(o.get("data", {}).get("text/markdown", "")) for o in outputs]
    return text, "\n".join(["".join(o.get("text", "")) for o in outputs] + tables)


def intervals(text):
    "{(middle, low, high)} of 1.32 (1.16 to 1.50) and .132, .116 to .150; a change may be told as a fall."
    number = r"([+-]?\d*\.\d+)"
    found = re.findall(rf"{number}(?:,| \() ?{number} to {number}", text)
    return {tuple(float(v) for v in f) for f in found}


def test_every_interval_in_the_pages_text_stands_in_an_output():
    text, printed = page()
    there = intervals(printed)
    there |= {(-m, -high, -low) for m, low, high in there}
    assert len(intervals(text)) > 10 and intervals(text) - there == set()


def test_the_verdicts_are_counted_in_words_as_the_cell_counts_them():
    text, printed = page()
    names = "none one two three four five six seven eight nine ten".split()
    count = lambda said: names[int(re.search(rf"'{said}': (\d+)", printed)[1])]
    sure, against = (count(rf"\*\*{v} here\*\*") for v in ("confirmed", "contradicted"))
    open_, untested = count("not confirmed"), count("not testable here")
    want = f"rows of claims {sure} are confirmed here, {against} is contradicted, "
    assert f"{want}{untested} cannot be tested, and {open_} are not confirmed" in text


def test_the_table_of_claims_has_the_figures_intervals():
    "Replacement over FVDM in turn: 1 and the paired change, over clips and trainings."
    clips = {}
    for (budget, world, method, _), run in sorted(runs().items()):
        if (budget, world) == ("parameters", "turn"):
            clips.setdefault(method, []).append(run["crps"])
    unit = float(torch.tensor(clips["fvdm"]).mean())
    found = [1 + v / unit for v in compare.paired(clips["replacement"], clips["fvdm"])]
    middle, low, high = (f"{v:.3f}" for v in found)
    assert f"turn {middle} ({low} to {high})<br>" in page()[1]
