"Files that are old or new and never half, signals that wait, names and settings that must agree."

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vidiffedu.backbones import load_i3d, load_lpips
from vidiffedu.cli import new_folder, notebooks_folder
from vidiffedu.core import complaint
from vidiffedu.explore.score import leaf_models
from vidiffedu.likeness import load_scripted
from vidiffedu.player import save_clip
from vidiffedu.safety import (
    check_folder,
    check_same,
    check_span,
    held_interrupt,
    label_of,
    load_checkpoint,
    plain_names,
    read_items,
    read_tensors,
    save_checkpoint,
    whole_file,
    write_atomically,
    write_json,
    write_tensors,
)
from vidiffedu.train import load_weights, save_weights


def test_a_file_is_the_old_one_until_it_is_complete(tmp_path):
    path = tmp_path / "a" / "file"
    write_atomically(path, "old")
    with whole_file(path) as part:
        part.write_text("new, half")
        assert path.read_text() == "old"
        part.write_text("new")
    assert path.read_text() == "new"
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), whole_file(path) as part:
            part.write_text("broken off")
            raise error
        assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]
    part.write_text("left by a process that was killed")
    write_json(path, [1])
    assert path.read_text() == "[\n 1\n]\n" and list(path.parent.iterdir()) == [path]


def test_tensors_come_back_as_they_were(tmp_path):
    "Shared storage, other strides, other dtypes; the label too."
    base = torch.arange(12.0).view(3, 4)
    tensors = dict(a=base, b=base.T, c=base[1:], d=torch.tensor(3), e=base.bfloat16())
    write_tensors(tmp_path / "t", tensors, dict(kind="test"))
    back, label = read_tensors(tmp_path / "t")
    assert label == dict(kind="test") and back.keys() == tensors.keys()
    for k, v in tensors.items():
        assert torch.equal(back[k], v) and back[k].dtype == v.dtype
    assert complaint(write_tensors, tmp_path / "t" / "below", tensors, {}).startswith("path: got")
    assert torch.equal(read_tensors(tmp_path / "t")[0]["a"], base)


def test_the_first_difference_is_named():
    model = nn.Linear(2, 3)
    have = dict(model.state_dict())
    label = label_of(model)
    check_same(model.state_dict(), have, "f", label, model)
    for odd, text in (
        (have | {"weight": torch.zeros(3, 4)}, "with weight (3, 4), expected a Linear"),
        ({"weight": have["weight"]}, "with bias missing, expected a Linear with bias (3,)"),
        (have | {"more": torch.zeros(1)}, "with more (1,), expected a Linear with more missing"),
    ):
        assert text in complaint(check_same, model.state_dict(), odd, "f", label, model)


def test_names_of_a_compiled_network():
    inner = dict(plain_names([("a._orig_mod.b", 1), ("_orig_mod.c", 2), ("d", 3)]))
    assert inner == {"a.b": 1, "c": 2, "d": 3}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_the_second_signal_interrupts_unless_a_file_is_written(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), held_interrupt() as flag:
        assert not flag
        signal.raise_signal(number)
        assert flag
        flag.saving = True
        for _ in range(3):
            signal.raise_signal(number)
        flag.saving = False
        assert flag == [number] * 4
        signal.raise_signal(number)
    assert flag == [number] * 5 and signal.getsignal(number) is before


def test_a_thread_of_its_own_may_train():
    done = []

    def work():
        with held_interrupt() as flag:
            done.append(list(flag))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [[]]


class Draws(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return i + torch.rand(2)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_item_depends_on_its_seed_alone(workers):
    keys = [[(1, 5), (2, 6)], [(1, 5)], [(1, 7)]]
    first, again, other = read_items(Draws(), keys, workers)
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    assert (first.floor() == torch.tensor([[1.0], [2.0]])).all()


def make(width=3, lr=0.1):
    torch.manual_seed(0)
    model = nn.Linear(2, width)
    run = SimpleNamespace(model=model, ema=nn.Linear(2, width), step=0, losses=[], threads=None)
    run.optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    run.scaler, run.averaged = torch.amp.GradScaler("cpu", enabled=False), lambda: run.ema
    return run


def test_a_checkpoint_holds_all_that_changes(tmp_path):
    run, other = make(), make()
    run.model(torch.ones(1, 2)).sum().backward()
    run.optimizer.step()
    run.step, run.losses, run.threads = 7, [1.0, 0.5], 3
    save_checkpoint(tmp_path, run, dict(steps=9, lr=0.1))
    load_checkpoint(tmp_path / "checkpoint.safetensors", other, dict(steps=9, lr=0.1))
    assert (other.step, other.losses, other.threads) == (7, [1.0, 0.5], 3)
    for one, two in ((run.model, other.model), (run.ema, other.ema)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    slots = (r.optimizer.state_dict()["state"] for r in (run, other))
    for a, b in zip(*(s.values() for s in slots), strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    "settings, line",
    [
        (dict(steps=8, lr=0.1), "steps: got 8, expected 9"),
        (dict(steps=12, lr=0.1), "steps: got 12, expected 9"),  # longer, and not finished
        (dict(steps=9, lr=0.2), "lr: got 0.2, expected 0.1"),
        (dict(steps=9, lr=0.1, new=1), "new: got 1, expected None"),
    ],
)
def test_a_checkpoint_of_another_run_changes_nothing(settings, line, tmp_path):
    save_checkpoint(tmp_path, make(), dict(steps=9, lr=0.1))
    run = make()
    with torch.no_grad():
        run.model.weight.fill_(5.0)
    path = tmp_path / "checkpoint.safetensors"
    assert complaint(load_checkpoint, path, run, settings).startswith(line)
    assert (run.model.weight == 5.0).all() and run.step == 0
    fits = dict(steps=9, lr=0.1)
    assert "another model" in complaint(load_checkpoint, path, make(width=4), fits)
    weights = tmp_path / "weights.safetensors"
    assert "expected a checkpoint" in complaint(load_checkpoint, weights, run, fits)


@pytest.mark.parametrize("range", [2.0, 255, 0.5])
def test_pixels_may_span_four_times_their_range(range):
    check_span(range, x=torch.tensor([-range, 3 * range]))
    line = complaint(check_span, range, x=torch.zeros(2), y=torch.tensor([-range, 3.1 * range]))
    assert line.startswith("y: got values in [") and f"expected about {range:g} from" in line


def test_a_folder_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_folder("~/runs/a", resume=False) == tmp_path / "runs/a"
    assert check_folder(None, resume=False) is None
    assert complaint(check_folder, None, resume=True).startswith("out: got None")


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_whoever_may_read_a_new_file_may_read_weights(tmp_path):
    before = os.umask(0o027)
    try:
        write_tensors(tmp_path / "t", {"a": torch.zeros(2)}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o640


def test_home_is_read_wherever_a_file_is_named(tmp_path, monkeypatch):
    "No folder called ~ appears, and the home of nobody is one line."
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model = nn.Linear(2, 3)
    calls = {
        "a.json": lambda path: write_json(path, 1),
        "a": lambda path: write_atomically(path, b"1"),
        "t": lambda path: write_tensors(path, dict(model.state_dict()), {}),
        "w": lambda path: save_weights(model, path),
        "g.gif": lambda path: save_clip(path, torch.zeros(2, 1, 8, 8)),
        "demo": lambda path: new_folder(path),
    }
    for name, call in calls.items():
        call(f"~/deep/{name}")
        assert (tmp_path / "deep" / name).exists(), name
    assert read_tensors("~/deep/t")[0].keys() == {"weight", "bias"}
    load_weights(model, "~/deep/w")
    leaf_models_of = tmp_path / "mine"
    leaf_models_of.symlink_to(notebooks_folder() / "checkpoints")
    assert sorted(leaf_models("~/mine")) == [0.5, 0.7, 0.9]
    for load in (load_i3d, load_lpips):
        assert str(tmp_path / "none.pt") in complaint(load, "~/none.pt")
    calls["scripted"] = lambda path: load_scripted(path, trust=True)
    for name in calls:
        for bad in ("~nobody-has-this-name/x", "", "a\0b"):
            assert ": got " in complaint(calls[name], bad), (name, bad)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_shipped_networks_and_studies_are_found_from_anywhere(tmp_path):
    "In a process of its own that starts in an empty folder."
    code = (
        "from vidiffedu.cli import notebooks_folder\n"
        "from vidiffedu.explore.score import leaf_models\n"
        "assert sorted(leaf_models()) == [0.5, 0.7, 0.9]\n"
        "home = notebooks_folder()\n"
        "assert list(home.glob('checkpoints/*.safetensors')) and list(home.glob('studies/*.csv'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_folder_without_the_front_page_is_not_taken_for_the_notebooks(tmp_path, monkeypatch):
    import vidiffedu

    for folder in ("package/notebooks", "nbs"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(vidiffedu, "__file__", str(tmp_path / "package" / "__init__.py"))
    assert complaint(notebooks_folder).startswith("notebooks: got none in ")
    (tmp_path / "nbs" / "index.ipynb").touch()
    assert notebooks_folder() == tmp_path / "nbs"
    (tmp_path / "package" / "notebooks" / "index.ipynb").touch()
    assert notebooks_folder() == tmp_path / "package" / "notebooks"  # what was installed goes first


def test_a_folder_that_has_no_name_of_its_own_gets_a_numbered_neighbour(tmp_path, monkeypatch):
    for path in ("here", "here/below"):
        (tmp_path / path).mkdir()
    (tmp_path / "here" / "file").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert new_folder(".") == tmp_path / "here-2"
    monkeypatch.chdir(tmp_path / "here" / "below")
    assert new_folder("..") == tmp_path / "here-2"
