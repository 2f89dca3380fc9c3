"""The commands train, forecast, fill and evaluate, from a folder of films to a written film."""

import argparse
import csv
import json
import os
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from children import two_processes
from PIL import Image
from pretend_device import pretend_device

from vidiffedu import arena, bench, configs, jobs, outcomes, parts, runs
from vidiffedu.core import complaint, seeded
from vidiffedu.data import bouncing
from vidiffedu.likeness import RandomFeatures, judge_forecast
from vidiffedu.player import save_clip
from vidiffedu.safety import read_tensors

FEW = "--steps 4 --warmup 1 --every 2 --valid-every 2 --log-every 2 --batch-size 4 --clips 2 --samples 2"
SAMPLER = {"score": "steps=4", "residual": "steps=2"}
METHODS = list(configs.METHODS)
OTHERS = ["flow", "replacement", "predictor"]  # of the comparison, with parts of their own


def command(text, *paths):
    "Run a command as `vidiffedu` does; {} stands for a path."
    words = [w if w != "{}" else str(next(paths)) for paths in [iter(paths)] for w in text.split()]
    parser = argparse.ArgumentParser()
    runs.add_arguments(parser, words[0])
    return runs.run_command(parser.parse_args(words[1:]), words[0])


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for i, clip in enumerate(bouncing(4, 14, 24, generator=seeded(0))):
        save_clip(folder / f"film {i}.mp4", clip, scale=1)
    return folder


@pytest.fixture(scope="module")
def run_of(films, tmp_path_factory):
    "A few steps of a method's preset `tiny`, once: {method: its folder}."
    made = {}

    def make(method):
        if method not in made:
            made[method] = tmp_path_factory.mktemp(method) / "run"
            sampler = f"--set sampler.{SAMPLER.get(method, 'steps=3')}"
            text = f"train {method} {{}} --out {{}} --quiet {FEW} {sampler}"
            assert command(text, films, made[method]) == 0
        return made[method]

    return make


# ---------------------------------------------------------------- from films to a film


@pytest.mark.parametrize("method", [*METHODS, *OTHERS])
def test_tiny_trains_forecasts_and_evaluates(method, run_of, films, tmp_path, monkeypatch, capsys):
    run = run_of(method)
    rows = list(csv.DictReader((run / "log.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4"] and all(float(r["valid"]) for r in rows)
    held = json.loads((run / "held_out.json").read_text())
    assert len(held) == 1 and (films / held[0]).is_file()
    assert (run / "films" / "step_0000004.mp4").stat().st_size > 500
    assert command("forecast {} {} --out {}", run, films / held[0], tmp_path / "f") == 0
    futures, truth = (np.load(tmp_path / "f" / f"{name}.npy") for name in ("futures", "truth"))
    assert futures.shape == (2, 1, 4, 1, 16, 16) and truth.shape == (1, 4, 1, 16, 16)
    again = tmp_path / "again"
    monkeypatch.setattr(outcomes, "_map", lambda path, *_: path)  # drawn once is enough
    command("forecast {} {} --out {}", run, films / held[0], again)
    assert np.array_equal(np.load(again / "futures.npy"), futures)
    for name in ("futures.mp4", "futures.gif", "maps.png", "past.npy"):
        assert (tmp_path / "f" / name).is_file()
    capsys.readouterr()
    assert command("evaluate {} --out {}", run, tmp_path / "e") == 0
    scores = json.loads((tmp_path / "e" / "scores.json").read_text())
    assert scores["clips"] == 2 and scores["crps"] > 0 and "copy_crps" in scores
    assert f"crps {scores['crps']:.4f}" in " ".join(capsys.readouterr().out.split())


def test_fill(run_of, films, tmp_path):
    film = films / "film 0.mp4"
    assert command("fill {} {} --known 0,-1 --out {}", run_of("masks"), film, tmp_path) == 0
    clip, found = (np.load(tmp_path / f"{name}.npy") for name in ("clip", "fill"))
    assert found.shape == (2, 1, 6, 1, 16, 16)
    assert np.array_equal(found[:, :, [0, -1]], np.stack([clip, clip])[:, :, [0, -1]])
    with pytest.raises(ValueError, match="fill gaps"):
        command("fill {} {} --known 0", run_of("score"), film)
    for wrong in ("0,9", "zero"):
        with pytest.raises(ValueError, match="--known: got"):
            command(f"fill {{}} {{}} --known {wrong}", run_of("masks"), film)


def test_a_film_that_ends_too_soon_has_no_truth(run_of, films, tmp_path, monkeypatch):
    "14 frames; 2 are given from the tenth on, 4 are forecast, 3 are left."
    monkeypatch.setattr(outcomes, "_map", lambda path, *_: path)
    words = "forecast {} {} --start 9 --out {}"
    assert command(words, run_of("score"), films / "film 0.mp4", tmp_path) == 0
    assert np.load(tmp_path / "futures.npy").shape == (2, 1, 4, 1, 16, 16)
    assert not (tmp_path / "truth.npy").exists()


def test_what_is_evaluated(run_of, films, monkeypatch):
    "The films held out, unless other data are named; they may be named as they were."
    seen, run = [], run_of("score")
    monkeypatch.setattr(jobs, "testing_clips", lambda c, names: seen.append((c.data, names)))
    monkeypatch.setattr(outcomes, "evaluate", lambda *_, **how: {})
    monkeypatch.setattr(outcomes, "write_scores", lambda *_: 0)
    for words in ("evaluate {}", f"evaluate {{}} {films}/", "evaluate {} sprites"):
        assert command(words, run) == 0
    held = jobs.names_held_out(run)
    assert held and seen == [(str(films), held), (str(films), held), ("sprites", [])]


def test_the_scores_are_those_of_the_whole(run_of):
    "Portions of an evaluation make the means of all clips at once."
    config, model = jobs.open_run(run_of("vector"))
    config = configs.changed(config, dict(data="sprites", clips=6))
    clips = jobs.testing_clips(config)
    whole = outcomes.evaluate(Known(clips, config), config, clips, portion=6)
    parts = outcomes.evaluate(Known(clips, config), config, clips, portion=4)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert abs(value - parts[name]) < 1e-4 * max(1, abs(value)), name


def test_features_of_portions_are_those_of_all(run_of):
    config = configs.changed(jobs.read_config(run_of("vector")), dict(data="sprites", clips=8))
    clips, net = jobs.testing_clips(config), RandomFeatures(dim=4)
    model = Known(clips, config)
    found = outcomes.evaluate(model, config, clips, portion=3, net=net)
    past, truth = clips.split([config.context, config.horizon], 1)
    some = model.forecast(past, config.horizon, config.samples)
    want = judge_forecast(some, truth, past, net)
    for name in ("each", "each_std", "pooled"):
        assert abs(found[f"fvd_{name}"] - want[f"frechet_{name}"]) < 1e-4, name


def test_each_portion_has_noise_of_its_own_and_the_copy_is_of_the_last_frame(run_of):
    config = configs.changed(jobs.read_config(run_of("vector")), dict(data="sprites", clips=6))
    clips, seeds = jobs.testing_clips(config), []
    model = Known(clips, config)
    plain = model.forecast
    model.forecast = lambda *args, generator, **how: (
        seeds.append(generator.initial_seed()) or plain(*args, **how)
    )
    found = outcomes.evaluate(model, config, clips, seed=100, portion=2)
    assert seeds == [100, 102, 104]
    past, truth = clips.split([config.context, config.horizon], 1)
    off = (past[:, -1:] - truth).abs().mean()
    assert (
        abs(found["copy_crps"] - off) < 1e-5 and abs(found["copy_crps_bytes"] - 127.5 * off) < 1e-3
    )


def test_a_film_is_read_as_the_run_cuts(tmp_path):
    "Numbered greys: every second one from the third on; fewer where the film ends."
    for k in range(12):
        Image.fromarray(np.full((8, 8, 3), 20 * k, np.uint8)).save(tmp_path / f"{k}.png")
    config = configs.changed(configs.preset("vector", "tiny"), dict(size=8))
    for stride, n, want in ((1, 4, [3, 4, 5, 6]), (2, 4, [3, 5, 7, 9]), (3, 9, [3, 6, 9])):
        clip = outcomes.read_clip(configs.changed(config, dict(stride=stride)), tmp_path, 3, n)
        assert ((clip[:, 0, 0, 0] + 1) * 127.5 / 20).round().tolist() == want
    line = complaint(outcomes.read_clip, config, tmp_path, 12, 2)
    assert line == "--start: got 12, expected less than 12, the film's frames"


def test_the_distance_of_a_fill_is_that_of_the_frames_filled_in(tmp_path, capsys):
    clip, known = torch.zeros(1, 4, 1, 8, 8), torch.tensor([True, False, False, True])
    by = torch.tensor([0.0, 0.1, 0.3, 0.0]).view(1, 4, 1, 1, 1)
    outcomes.write_fill(tmp_path, clip, known, torch.stack([clip + by, clip - by]))
    assert "filled in: 0.2000 grey units" in capsys.readouterr().out


class Known(torch.nn.Module):
    "Futures that are the truth, moved by a known amount."

    def __init__(self, clips, config):
        super().__init__()
        self.clips, self.k = clips, config.context
        self.p = torch.nn.Parameter(torch.zeros(()))

    def forecast(self, past, n_frames, n_samples, **_):
        same = [int((self.clips[:, : self.k] == p).flatten(1).all(1).nonzero()[0]) for p in past]
        truth = self.clips[same, self.k :]
        return torch.stack([truth + 0.1 * i + 0.05 for i in range(n_samples)]).clamp(-1, 1)


# ---------------------------------------------------------------- settings


def test_settings_are_printed_stored_and_taken_back(films, tmp_path, capsys):
    text = (
        "train fvdm {} --out {} --show --lr 3e-4 --set net.width=8 --set options.p=0.5 --fps none"
    )
    assert command(text, films, tmp_path / "a") == 0
    said = capsys.readouterr().out
    assert "lr           0.0003" in said and not (tmp_path / "a").exists()
    args = argparse.ArgumentParser()
    runs.add_arguments(args, "train")
    words = text.replace("{}", str(films)).split()[1:]
    config = runs.config_of(args.parse_args(words))
    assert config.net == dict(kind="joined", width=8) and config.options == dict(p=0.5)
    jobs.save_config(tmp_path, config)
    assert jobs.read_config(tmp_path) == config
    again = args.parse_args(
        ["fvdm", str(films), "--out", "x", "--config", f"{tmp_path}/config.json"]
    )
    assert runs.config_of(again) == config


def test_only_a_run_that_goes_on_takes_its_old_settings(tmp_path):
    config = configs.preset("vector", "tiny", data="sprites", lr=0.25)
    jobs.save_config(tmp_path, config)
    parser = argparse.ArgumentParser()
    runs.add_arguments(parser, "train")
    words = ["vector", "sprites", "--out", str(tmp_path)]
    fresh, on = (runs.config_of(parser.parse_args(words + more)) for more in ([], ["--resume"]))
    assert on == config and fresh == configs.preset("vector", "tiny", data="sprites", channels=1)


def asked(text, *paths):
    "The settings that a `train` command asks for."
    parser = argparse.ArgumentParser()
    runs.add_arguments(parser, "train")
    return runs.config_of(parser.parse_args(text.format(*paths).split()))


@pytest.mark.parametrize(
    "line",
    [
        "masks bair:{} --preset paper --lr 1e-4 --set net.blocks=2",
        "flow films --preset bench --seed 1",
        "bridge {} --set path.kind=vp",
        "vector {}",
        *(f"{name} sprites --preset small" for name in configs.MORE),
    ],
)
def test_one_line_starts_a_run_and_goes_on_with_it(line, tmp_path):
    "The same settings with no run there, beside its settings, and without the preset's name."
    (tmp_path / "films").mkdir()
    paths = [tmp_path / "films"] * line.count("{}") + [tmp_path / "run"]
    first = asked(f"{line} --out {{}} --resume", *paths)
    assert first == asked(f"{line} --out {{}}", *paths)
    jobs.save_config(tmp_path / "run", first)
    assert asked(f"{line} --out {{}} --resume", *paths) == first
    method, data, *_ = line.split()
    if "path" not in line:
        assert asked(f"{method} {data} --out {{}} --resume", *paths) == first
    file = f"--config {tmp_path}/run/config.json"
    assert asked(f"{line.partition(' --preset')[0]} {file} --out {{}} --resume", *paths) == first


def test_a_setting_that_contradicts_the_run_is_named(tmp_path):
    "What was stored stands in the line, and where; what changes nothing learned may be changed."
    run = tmp_path / "run"
    start = "bridge sprites --preset small --lr 0.25 --out {} --resume"
    jobs.save_config(run, asked(start, run))
    end = f"as in {run}, or another --out"
    wanted = {
        "bridge sprites --lr 0.5": f"lr: got 0.5, expected 0.25 {end}",
        "bridge sprites --preset small": f"lr: got 0.0002, expected 0.25 {end}",
        "bridge sprites --preset tiny": f"preset: got tiny, expected small {end}",
        "bridge sprites --set net.width=8": f"net.width: got 8, expected 64 {end}",
        "bridge sprites --set net.heads=2": f"net.heads: got 2, expected None {end}",
        "bridge leaves": f"DATA: got leaves, expected sprites {end}",
        "flow sprites": f"METHOD: got flow, expected bridge as in {run}",
        "vector sprites": f"METHOD: got vector, expected bridge as in {run}",
        "bridge sprites --preset small --config x": "--preset: got small beside --config, "
        "expected one of the two",
    }
    for text, line in wanted.items():
        assert complaint(asked, f"{text} --out {{}} --resume", run) == line
    more = "bridge sprites --steps 20000 --accumulate 2 --workers 1 --clips 8 --out {} --resume"
    config = asked(more, run)
    assert (config.lr, config.steps, config.accumulate, config.clips) == (0.25, 20_000, 2, 8)


def test_films_may_have_moved(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    jobs.save_config(tmp_path / "run", asked("vector {} --out x", tmp_path / "a"))
    words = "vector {} --out {} --resume"
    assert asked(words, tmp_path / "b", tmp_path / "run").data == str(tmp_path / "b")
    line = complaint(asked, words.replace("{}", "sprites", 1), tmp_path / "run")
    assert line.startswith(f"DATA: got sprites, expected {tmp_path / 'a'}")


def test_every_preset_is_a_method(films):
    for name in configs.PRESETS:
        for method in configs.PRESETS[name][1]:
            config = configs.preset(method, name)
            shape = (4, 32) if config.latent else (config.channels, config.size)
            with torch.device("meta"):
                model = parts.method_of(config, *shape, range=None)
                clip = torch.zeros(1, config.frames, shape[0], shape[1], shape[1])
                assert model.eval().loss(clip, None).shape == ()
            assert parts.sampling(config) is not None


def test_the_papers_numbers():
    "Weights as the papers count them, and the settings that they state."
    counts = {}
    for method, shape in dict(masks=(), vector=(4, 32), residual=()).items():
        with torch.device("meta"):
            model = parts.method_of(configs.preset(method, "paper"), *shape)
        counts[method] = sum(p.numel() for p in model.parameters()) / 1e6
    assert abs(counts["masks"] - 308) < 2 and abs(counts["vector"] - 674) < 3
    masks = configs.preset("ramvid", "paper")
    assert (masks.lr, masks.batch_size, masks.steps, masks.ema) == (2e-5, 64, 500_000, 0.9999)
    cvp = configs.preset("cvp", "paper")
    assert (cvp.lr, cvp.warmup, cvp.schedule) == (5e-5, 10_000, "cosine")
    falling = configs.schedule_of(configs.preset("rvd", "paper"))
    assert falling(0, 10, 0) == 1 and abs(5e-5 * falling(10, 10, 0) - 2e-5) < 1e-12
    constant = configs.schedule_of(masks)
    assert {constant(k, 9, 0) for k in range(9)} == {1.0} and constant(0, 9, 3) == 0.25


@pytest.mark.parametrize("name", arena.ARMS)
def test_the_preset_bench_trains_the_arms_of_the_comparison(name, tmp_path, monkeypatch):
    "Five steps give the weights, the state and the recipe of the bench's own training, bit for bit."
    few = arena.turn(train=400)  # three runs of three frames a clip: more than 1024
    monkeypatch.setattr(arena, "world", lambda _: few)
    monkeypatch.setattr(jobs.Log, "film", lambda *_: None)
    words = f"train {name} turn --preset bench --out {{}} --quiet --steps 5 --warmup 0 --seed 3"
    assert command(words + " --valid-every 0", tmp_path / "run") == 0
    config, model = jobs.open_run(tmp_path / "run")
    want, _, losses = bench.train_arm(name, "turn", seed=3, steps=5)
    got = want.state_dict()
    assert model.state_dict().keys() == got.keys() and losses[0] != losses[-1]
    for k, v in model.state_dict().items():
        assert torch.equal(v, got[k]), k
    assert jobs.testing_clips(config).equal(few.test)
    whole = configs.preset(name, "bench")
    assert (whole.steps, whole.batch_size) == (bench.TRAINING_STEPS, bench.BATCH)
    assert (whole.warmup, whole.ema, whole.lr, whole.threads) == (100, 0.995, 4e-3, 1)


@pytest.mark.parametrize("name", arena.ARMS)
def test_a_run_of_the_preset_bench_forecasts_as_the_arm_does(name, tmp_path):
    "The same weights, noise and sampler give the same futures, within float32's rounding."
    config = configs.preset(name, "bench", data="bench:turn")
    model, _ = bench.load_model(name, "turn")
    past = arena.world("turn").past[:2]
    steps = 8 if name == "score" else 2
    few = configs.changed(config, {"sampler.steps": steps, "sampler.clip": True})
    built = parts.build(few).eval()
    built.load_state_dict(model.state_dict())
    found = parts.futures(built, few, past, 3, 7, chunk=2)
    how = {} if name == "predictor" else dict(steps=steps)
    want, _ = bench.forecast(model, past, 3, **how)
    assert torch.allclose(found.clamp(-1, 1), want, atol=1e-4)


def test_unknown_methods_and_worlds_are_one_line(tmp_path):
    words = "train {} {} --preset bench --out {{}} --show"
    line = lambda method, data: complaint(command, words.format(method, data), tmp_path / "x")
    known = "score, bridge/cvp, vector/fvdm, masks/ramvid, residual/rvd"
    known += ", vd, flow, forcing, replacement, predictor"
    assert line("gan", "turn") == f"METHOD: got 'gan', expected one of {known}"
    for name in configs.MORE:
        said = complaint(configs.preset, name, "paper")
        assert said == f"preset: got 'paper' for {name}, expected one of tiny, small, bench"
    config = configs.preset("bridge", "bench", data="bench:moon")
    assert complaint(jobs.training_clips, config).startswith("DATA: got 'moon', expected of turn")
    config = configs.changed(configs.preset("bridge", "bench", data="bench:turn"), dict(horizon=9))
    assert complaint(jobs.testing_clips, config).endswith("whose clips have 5 frames")


def test_a_data_set_changes_the_papers_preset(tmp_path):
    (tmp_path / "x").mkdir()
    said = jobs.said_by_data("masks", "paper", f"bair:{tmp_path}")
    config = configs.preset("masks", "paper", **said)
    assert (config.frames, config.context, config.horizon, config.steps) == (20, 1, 15, 250_000)
    assert jobs.said_by_data("masks", "tiny", f"bair:{tmp_path}") == {}
    assert jobs.said_by_data("masks", "small", "leaves")["channels"] == 1


def test_wrong_settings_are_one_line_before_any_work(films, tmp_path):
    def line(text, *paths):
        words = f"train vector {{}} --out {{}} --quiet {FEW} {text}"
        return complaint(command, words, *(paths or (films, tmp_path / "new")))

    wanted = {
        "--set nets.width=3": "nets.width: got an unknown setting, expected one that exists: did you mean net",
        "--set net.wide=3": "net: ",
        "--set net.kind=big": "net.kind: got 'big'",
        "--steps 2.5": "steps: got 2.5, expected a whole number",
        "--lr fast": "lr: got 'fast', expected a number",
        "--flip 1": "flip: got 1, expected true or false",
        "--schedule slow": "schedule: got 'slow', expected one of cosine",
        "--accumulate 3": "accumulate: got 3, expected a divisor of batch_size=4",
        "--frames 1": "frames: got 1",
        "--preset huge": "preset: got 'huge' for vector, expected one of tiny",
        "--size 15": "size: got 15x15 pixels",
        "--frames 15 --set net.kind=unet --set net.width=8": "DATA: got",
        "--set lr": "--set: got 'lr', expected NAME=VALUE",
    }
    for text, start in wanted.items():
        assert line(text).startswith(start), (text, line(text))
    assert line("", tmp_path / "none", tmp_path / "new").startswith("DATA: got")
    (tmp_path / "empty").mkdir()
    assert "expected a folder with a readable video" in line("", tmp_path / "empty", tmp_path / "n")
    assert not (tmp_path / "new" / "weights.safetensors").exists()
    (tmp_path / "file").write_text("")
    said = line("", films, tmp_path / "file")
    assert said.startswith("--out: got") and "folder that can be written" in said
    with pytest.raises(ValueError, match="METHOD: got 'gan'"):
        command("train gan {} --out {}", films, tmp_path / "new")
    assert "6 clips for 7" in complaint(
        jobs.share_of, configs.changed(configs.Config(), dict(batch_size=7)), range(6), 7
    )


def test_a_run_of_another_version_is_one_line(run_of, tmp_path, films):
    import shutil

    run = shutil.copytree(run_of("score"), tmp_path / "run")
    words = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(words | dict(format=7, vidiffedu="9.9")))
    assert "got format 7 of vidiffedu 9.9" in complaint(jobs.open_run, run)
    (run / "config.json").write_text(json.dumps(words | dict(newer=1)))
    assert "newer: got an unknown setting" in complaint(jobs.open_run, run)
    (run / "config.json").write_text(json.dumps(words | dict(net=dict(kind="blind", width=8))))
    assert "holds another model" in complaint(jobs.open_run, run)
    assert "expected the folder of a run" in complaint(jobs.open_run, tmp_path)


def test_what_a_method_changes_wins_over_the_settings_that_it_takes():
    "In every preset: the sizes are those of the method beneath, the changes its own."
    for name, (base, own) in configs.MORE.items():
        for preset in set(configs.PRESETS) - {"paper"}:
            config, under = configs.preset(name, preset), configs.preset(base, preset)
            assert all(getattr(config, k) == v for k, v in own.items()), (name, preset)
            assert (config.frames, config.net, config.lr) == (under.frames, under.net, under.lr)


def test_a_clip_is_long_enough_for_its_method():
    "One frame more than the context where the next frame is learned; score takes no other length."
    for method, least in dict(vector=2, masks=2, bridge=3, residual=3, predictor=3).items():
        config = configs.preset(method, "tiny")
        assert configs.changed(config, dict(frames=least, context=2)).frames == least
        line = complaint(configs.changed, config, dict(frames=least - 1, context=2))
        assert line == f"frames: got {least - 1}, expected at least {least} with context=2"
    line = complaint(configs.changed, configs.preset("score", "tiny"), dict(frames=4))
    assert line == "frames: got 4, expected context + 1 for score"


def test_hundredths_are_the_whole_grid_without_its_ends():
    drawn = parts.hundredths(400, 10, seeded(0)) * 100
    assert drawn.round().unique().tolist() == list(range(1, 100))
    for n in (1, 10, 25, 50):
        t = parts.GRIDS["hundredths"](n, 3)
        assert t.shape == (n + 1, 3) and t[0, 0] == 0.99 and not t[-1].any()
        assert torch.allclose(t[:-1].diff(dim=0), torch.full((n - 1, 3), -1 / n).double())


def test_a_bounded_weight_is_one_over_c_squared_up_to_its_bound():
    "c = sin(π t / 2) of the cosine path: up to 1 / .1² or 1 / .2²."
    config, t = configs.preset("residual", "tiny"), torch.tensor([0.001, 0.08, 0.3, 0.9])
    path = parts.path_of(config)
    for name, floor in {"v": 0.0, "v, bounded": 0.1, "v, bounded at .2": 0.2}.items():
        weight = parts.weight_of(configs.changed(config, dict(weight=name)), path)
        want = torch.maximum(path.c(t), torch.tensor(floor)) ** -2
        torch.testing.assert_close(weight(t), want)


def test_a_network_of_the_next_frame_takes_its_context_only():
    "However long the training clips are: they hold several next frames."
    for method in ("bridge", "predictor"):
        config = configs.changed(configs.preset(method, "tiny"), dict(frames=6))
        assert parts.net_of(config).frames == config.context + 1 == 3
        loss = parts.method_of(config).loss(bouncing(2, 6, 16, generator=seeded(0)), seeded(1))
        assert loss.isfinite()


def test_a_long_past_is_kept_as_far_as_the_window_reaches():
    asked = []
    model = SimpleNamespace(forecast=lambda past, n, **how: asked.append(how) or past[None])
    for method, k in (("vector", 2), ("masks", 9), ("bridge", 2)):
        config = configs.preset(method, "tiny")
        parts.futures(model, config, torch.zeros(1, k, 1, 16, 16), 1, seed=4)
        assert asked[-1]["generator"].initial_seed() == 4
    assert [(how.get("window"), how.get("keep")) for how in asked] == [(6, 2), (6, 5), (None, None)]


# ---------------------------------------------------------------- the loop


def test_a_killed_run_goes_on_and_its_log_too(films, tmp_path):
    text = f"train score {{}} --out {{}} --quiet {FEW} "
    assert command(text, films, tmp_path / "a") == 0
    want = f"--out: got {tmp_path / 'a'}, where checkpoint.safetensors exists"
    want += ", expected a new folder, or --resume to go on"
    assert complaint(command, text, films, tmp_path / "a") == want
    assert command(text + "--resume", films, tmp_path / "a") == 0  # it is finished: nothing to do
    log = tmp_path / "a" / "log.csv"
    log.write_text(log.read_text() + "6,9,9,,9,9\n")  # from beyond the checkpoint
    more = "train score {} --out {} --quiet --resume --steps 8"
    assert command(more, films, tmp_path / "a") == 0
    steps = [row["step"] for row in csv.DictReader(log.open())]
    assert steps == ["2", "4", "6", "8"] and "9,9" not in log.read_text()
    assert (tmp_path / "a" / "clips.npy").is_file()


def test_a_log_keeps_the_lines_before_the_step_that_comes(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss\n2,1\n4,1\n5,1\n6,1\n")
    log = jobs.Log(configs.Config(), tmp_path, None, None, None)
    for step, want in {1: [], 5: ["2", "4"], 6: ["2", "4", "5"], 9: ["2", "4", "5", "6"]}.items():
        log.start(step)
        assert [row["step"] for row in log.rows] == want


def test_the_log_says_the_rate_of_its_step(run_of):
    "Four steps, one of warm-up: 1, then half a cosine in three parts: 1, 3/4, 1/4."
    rows = csv.DictReader((run_of("score") / "log.csv").open())
    lr = jobs.read_config(run_of("score")).lr
    assert [float(row["lr"]) / lr for row in rows] == pytest.approx([1, 0.25])  # steps 2 and 4


def test_clips_held_out_are_not_those_of_the_test():
    "Of one world and one length: no clip is in both."
    config = configs.preset("vector", "tiny", data="sprites", clips=40)
    held, test = jobs.training_clips(config)[1], jobs.testing_clips(config)
    assert held.shape == test.shape == (40, 6, 1, 16, 16)
    assert not any(torch.equal(a, b) for a in held for b in test)


def test_held_out_films_are_looked_at_in_the_middle(films):
    how = dict(crop="random", flip=True, hop=2, held_out=0.25)
    config = configs.preset("vector", "tiny", data=str(films), **how)
    train, held, names = jobs.training_clips(config)
    assert (train.crop, train.flip, held.crop, held.flip) == ("random", True, "middle", False)
    assert len(names) == 1 and torch.equal(held[1], held[1])


def test_a_few_test_clips_are_spread_over_all(films):
    "Four films of two clips each; the first and the last are among them."
    config = configs.preset("vector", "tiny", data=str(films))
    for n, want in {1: [0], 2: [0, 7], 3: [0, 4, 7], 8: [*range(8)], 64: [*range(8)]}.items():
        assert jobs.testing_clips(configs.changed(config, dict(clips=n))).indices == want


def test_what_is_looked_at_on_the_way_is_the_average(run_of, tmp_path, monkeypatch):
    "The validation loss is that of the weights that are kept; the films are drawn from them."
    run = run_of("bridge")
    config, model = jobs.open_run(run)
    _, held, _ = jobs.training_clips(config)
    n, generator = min(128, len(held)), seeded(1)
    parts_of = torch.arange(n).split(16)
    losses = [model.loss(jobs.stacked(held, r.tolist()), generator) * len(r) for r in parts_of]
    rows = list(csv.DictReader((run / "log.csv").open()))
    assert abs(float(rows[-1]["valid"]) - float(sum(losses)) / n) < 1e-5
    seen, accelerator = [], SimpleNamespace(is_main_process=True)
    draw = lambda model, *_: seen.append(model) or torch.zeros(1, 1, 4, 1, 16, 16)
    monkeypatch.setattr(jobs, "futures", draw)
    monkeypatch.setattr(jobs, "write_film", lambda *_: None)
    log = jobs.Log(config, tmp_path, torch.nn.Linear(1, 1), held, accelerator)
    log.follow(SimpleNamespace(averaged=lambda: model))
    log.film(2)
    assert seen == [model]


def test_tensorboard_is_told_if_it_is_there(tmp_path, monkeypatch):
    told = []

    class Writer:
        def __init__(self, folder):
            told.append(folder)

        def add_scalar(self, name, value, step):
            told.append((name, step))

    name = "torch.utils.tensorboard"
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(SummaryWriter=Writer))
    config = configs.changed(settings(4, 4), dict(valid_every=4))
    jobs.train_run(config, tmp_path / "run", progress=False, say=len)
    assert told[0] == str(tmp_path / "run" / "board")
    assert ("loss", 2) in told and ("valid", 4) in told and ("valid", 2) not in told


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_warning_saves_and_ends_with_75(number, films, tmp_path):
    seen = []

    def stop(self, step, loss):
        seen.append(step)
        if step == 3:
            signal.raise_signal(getattr(signal, number))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.Log, "__call__", stop)
        code = command(
            f"train score {{}} --out {{}} --quiet {FEW} --steps 50 --every 50",
            films,
            tmp_path / "a",
        )
    assert code == runs.UNFINISHED and 3 <= len(seen) < 50
    _, label = read_tensors(tmp_path / "a" / "checkpoint.safetensors")
    assert json.loads(label["run"])["step"] == seen[-1]


def test_pieces_have_the_gradients_of_the_whole():
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.spare = torch.nn.Linear(4, 4), torch.nn.Linear(1, 1)

        def loss(self, clip, generator=None):
            return (self.net(clip) - clip.flip(-1)).square().mean()

    clip, found = torch.randn(6, 2, 1, 4, 4, generator=seeded(0)), []
    for n in (1, 2, 3):
        torch.manual_seed(0)
        model = jobs.in_pieces(Plain(), n)
        loss = model.loss(clip)
        loss.backward()
        found.append((loss.item(), model.net.weight.grad))
        assert type(model).__name__ == "Plain" and model.spare.weight.grad is None
        assert torch.isclose(model.eval().loss(clip), loss)
    for value, grad in found[1:]:
        assert abs(value - found[0][0]) < 1e-6
        torch.testing.assert_close(grad, found[0][1])
    torch.manual_seed(0)
    model = jobs.in_pieces(Plain(), 3)
    with torch.autocast("cpu", torch.bfloat16):
        low = model.loss(clip)
    low.backward()
    assert model.net.weight.grad.dtype == torch.float32
    size = found[0][1].abs().max()
    torch.testing.assert_close(model.net.weight.grad, found[0][1], atol=0.03 * size, rtol=0)


@pytest.fixture
def backend(monkeypatch):
    "backend(call): from now on networks are compiled by call(graph, inputs)."
    plain = torch.nn.Module.compile

    def use(call):
        how = lambda net, **_: plain(net, backend=call, dynamic=False)
        monkeypatch.setattr(torch.nn.Module, "compile", how)

    torch._dynamo.reset()
    yield use
    torch._dynamo.reset()


def quick_run(out, **changes):
    "Two steps of `score` on a world -> the losses."
    changes = dict(valid_every=0, log_every=2, samples=1, horizon=1) | changes
    config = configs.preset("score", "tiny", data="sprites", batch_size=2, steps=2, warmup=1)
    config = configs.changed(config, changes | {"sampler.steps": 2, "net.width": 8})
    return jobs.train_run(config, out, progress=False, say=len).losses


def test_compiled_networks_train_and_come_back(tmp_path, backend):
    "The same losses, the plain names in the file; graphs are made and run, not translated."
    made = []
    backend(lambda graph, inputs: (made.append(graph), graph.forward)[1])
    losses = [quick_run(tmp_path / str(on), compile=on) for on in (False, True)]
    assert made and torch.allclose(*losses, rtol=1e-4)
    assert jobs.open_run(tmp_path / "True")[0].compile


class Layer(torch.nn.Linear):
    def forward(self, x):
        return torch.nn.functional.dropout(super().forward(x), 0.5, self.training)


class Line(torch.nn.Module):
    "The least that can be compiled, with dropout, which draws at random."

    def __init__(self):
        super().__init__()
        self.net = Layer(4, 4)

    def loss(self, clip, generator=None):
        return (self.net(clip) - clip).square().mean()


@pytest.mark.parametrize("where", ["forward", "backward", "nowhere"])
def test_a_compiler_that_fails_leaves_the_model_as_it_was(where, backend):
    "One line; the model, its numbers and the random numbers of the run are untouched."
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    def broken(graph, inputs):
        raise RuntimeError("the compiler's first line\nand many more")

    run = lambda graph, inputs: made.append(graph) or make_boxed_func(graph.forward)
    made, said, clip = [], [], torch.randn(2, 3, 1, 4, 4)
    back = run if where == "nowhere" else broken
    backend(broken if where == "forward" else aot_autograd(fw_compiler=run, bw_compiler=back))
    model, state = Line(), torch.get_rng_state()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    parts.compiled_if_it_can(model, configs.Config(), clip, said.append)
    assert torch.equal(torch.get_rng_state(), state) and model.net.weight.grad is None
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    made.clear()
    if where == "nowhere":
        torch._dynamo.reset()
    model.loss(clip, seeded(0)).backward()  # would fail if it were compiled
    assert bool(made) == (where == "nowhere") == (not said)
    for line in said:
        assert "first line" in line and "goes on without it" in line and "\n" not in line


def test_more_levels_than_pytorch_keeps_forms_of_stay_compiled(backend):
    "They share one function; with a limit of two forms the third would run as it is."
    from vidiffedu.recurrent import Forecaster

    runs, model = [], Line()
    backend(lambda graph, inputs: lambda *v: (runs.append(1), graph.forward(*v))[1])
    levels = Forecaster(1, width=8, mults=(1, 2, 3), context=(1, 2, 3)).modules()
    model.forecaster = torch.nn.ModuleList([m for m in levels if type(m).__name__ == "_Res"][:3])
    with torch._dynamo.config.patch(recompile_limit=2):  # monkeypatch would hide it afterwards
        parts.compiled(model)
        for k in range(2):
            with torch.no_grad():
                for m in model.forecaster:
                    m(torch.randn(1, m.first.conv.in_channels, 4, 4))
            assert len(runs) == 3 * (k + 1)


@pytest.mark.parametrize("method", [*METHODS, *OTHERS])
def test_a_device_is_followed_and_does_not_wait(method):
    config = configs.preset(method, "tiny", data="sprites", batch_size=4, sampler=dict(steps=2))
    torch.manual_seed(0)
    model = jobs.in_pieces(parts.method_of(config).train(), 2)
    clip = bouncing(4, config.frames, 16, generator=seeded(1))
    with pretend_device() as (device, waits):
        model, there = model.to(device), clip.to(device)
        generator = torch.Generator(device).manual_seed(0)
        model.loss(there, generator)
        waits.clear()
        model.loss(there, generator).backward()
        assert not waits, waits
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                parts, "seeded", lambda seed, _: torch.Generator(device).manual_seed(seed)
            )
            past = there[:, : config.context]
            found = parts.futures(model, config, past[:1], 2, 0, horizon=1)
        assert found.device == device and found.shape == (2, 1, 1, 1, 16, 16)


# ---------------------------------------------------------------- several processes


def settings(batch, steps):
    return configs.preset(
        "vector", "tiny", data="sprites", batch_size=batch, steps=steps, warmup=1, every=2,
        log_every=2, valid_every=0, samples=1, net=dict(kind="joined", width=8, mults=[1]),
        sampler=dict(steps=2), accumulate=2,
    )  # fmt: skip


def test_two_processes_without_a_shared_disk_and_another_number_of_them(tmp_path):
    """Two processes train and log the mean of both; they go on where the second sees an empty folder
    and is told other settings; and one goes on with the same clips a step."""
    two_processes(_process, tmp_path)
    rows = list(csv.DictReader((tmp_path / "0" / "log.csv").open()))
    tensors, label = read_tensors(tmp_path / "0" / "checkpoint.safetensors")
    losses = tensors["losses"]  # of `fit`: the mean over the processes
    assert abs(float(rows[-1]["loss"]) - float(losses[4:].mean())) < 1e-4
    assert json.loads(label["run"])["settings"]["processes"] == 2
    said = [json.loads((tmp_path / f"said{rank}").read_text()) for rank in (0, 1)]
    assert said[0] == said[1] and said[0]["losses"] == losses.tolist() and len(losses) == 6
    assert sorted(p.name for p in (tmp_path / "1").iterdir()) == []
    run = jobs.train_run(settings(8, 8), tmp_path / "0", resume=True, progress=False, say=len)
    assert run.step == 8 and torch.allclose(run.losses[:6], losses)


def _process(out):
    "One of the two: four steps, then two more from a folder that only the first process has."
    rank, quiet = os.environ["RANK"], dict(progress=False, say=len)
    jobs.train_run(settings(8, 4), out / "0", **quiet)
    told = configs.changed(settings(8, 6), {} if rank == "0" else dict(lr=0.5, seed=7))
    run = jobs.train_run(told, out / rank, resume=True, **quiet)
    size = sum(float(p.double().square().sum()) for p in run.ema.parameters())
    said = dict(losses=run.losses.tolist(), size=size)
    (out / f"said{rank}").write_text(json.dumps(said))
