"""Training runs that are killed, interrupted, split over processes and fed nonsense."""

import contextlib
import functools
import json
import math
import os
import random
import re
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from children import child, two_processes
from pretend_device import pretend_device
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

from vidiffedu import safety, scale, threads
from vidiffedu.core import complaint
from vidiffedu.safety import read_tensors, write_tensors
from vidiffedu.train import (
    clip_rows,
    clip_source,
    ema_decay,
    fit,
    load_weights,
    save_weights,
    warmup_cosine,
)


class Net(nn.Module):
    "All that has state or draws: batch-norm, dropout, a generator's noise, channels_last."

    def __init__(self, width=4):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Conv2d(width, 2, 3, padding=1),
        ).to(memory_format=torch.channels_last)

    def loss(self, clip, generator=None):
        x = clip[:, :, 0]
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        return (self.net(x + 0.3 * noise) - x).square().mean()


class Crops(Dataset):
    "Items that draw from torch's own generator, as an augmentation does."

    def __len__(self):
        return 13

    def __getitem__(self, i):
        if not 0 <= i < 13:
            raise IndexError(i)
        return (torch.full((2, 1, 4, 4), i / 13) + 0.1 * torch.randn(2, 1, 4, 4)).clamp(-1, 1)


def world(n, generator):
    return torch.rand(n, 2, 1, 4, 4, generator=generator, device=generator.device) * 2 - 1


def clips_of(kind):
    return dict(
        tensor=world(13, torch.Generator().manual_seed(5)), dataset=Crops(), function=world
    )[kind]


def train(kind, out, **kw):
    torch.manual_seed(0)
    model = Net()
    options = dict(steps=120, batch_size=5, every=7, seed=3, ema=0.9, progress=False, threads=1)
    options |= kw
    return model, fit(model, clips_of(kind), out=out, **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    "The folder of a run that nobody disturbed, its model, and what `fit` returned."
    made = {}

    def run(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp("undisturbed") / kind
            made[kind] = folder, *train(kind, folder)
        return made[kind]

    return run


def same_run(a, b):
    "Every tensor of two checkpoints is equal, bit for bit."
    a, b = (load_file(Path(p) / "checkpoint.safetensors") for p in (a, b))
    assert a.keys() == b.keys() and len(a) > 20
    for k in a:
        assert torch.equal(a[k], b[k]), k


@pytest.mark.parametrize("kind", ["tensor", "dataset", "function"])
def test_killed_at_any_moment_and_resumed_is_the_same_run(kind, tmp_path, undisturbed):
    "SIGKILL at a random moment, resume, and no bit differs from the run that was left alone."
    one = tmp_path / "killed"
    process = child(_slow, kind, one)
    deadline = time.time() + 120
    while not (one / "checkpoint.safetensors").exists():
        assert process.exitcode is None and time.time() < deadline, "no checkpoint was written"
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.6))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with safe_open(one / "checkpoint.safetensors", "pt") as f:
        reached = json.loads(f.metadata()["run"])["step"]
    assert 0 < reached < 120
    _, resumed = train(kind, one, resume=True)
    other, model, alone = undisturbed(kind)
    same_run(one, other)
    assert torch.equal(resumed.losses, alone.losses) and len(alone.losses) == 120
    for k, v in model.state_dict().items():  # the run did move, the running statistics too
        assert not torch.equal(v, Net().state_dict()[k])
    for v, w in zip(resumed.ema.state_dict().values(), alone.ema.state_dict().values()):
        assert torch.equal(v, w)


@pytest.mark.parametrize("moment", ["write", "rename"])
def test_killed_while_writing_leaves_the_checkpoint_before(moment, tmp_path, undisturbed):
    "Killed with half a file written, or before it gets its name: the old checkpoint is whole."
    process = child(_dying, moment, "tensor", tmp_path)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "checkpoint.safetensors.part").exists()
    assert (
        len(load_file(tmp_path / "checkpoint.safetensors")["losses"]) == 14
    )  # steps 7 and 14 were saved, 21 was not
    train("tensor", tmp_path, resume=True)
    same_run(tmp_path, undisturbed("tensor")[0])


def written(monkeypatch, before):
    "before(number of the write, path) is called in the thread, just before a file is written."
    write, seen = scale.write_held, []

    def slow(path, tensors, label):
        seen.append(path.name)
        before(len(seen), path)
        write(path, tensors, label)

    monkeypatch.setattr(scale, "write_held", slow)
    return seen


def test_the_first_process_has_to_have_come_as_far_as_any(tmp_path):
    "Four steps here, and so many there."
    train("tensor", tmp_path, steps=4)
    path = tmp_path / "checkpoint.safetensors"
    assert (scale.step_in(path), scale.step_in(tmp_path / "none")) == (4, 0)
    for there, fine in ((0, True), (3, True), (4, True), (5, False)):
        both = lambda mine: torch.tensor([int(mine), there])
        few = SimpleNamespace(device="cpu", gather=both)
        if fine:
            scale.check_first(path, few)
        else:
            line = complaint(scale.check_first, path, few)
            assert line.startswith("out: got checkpoints at steps [4, 5], expected the first")


def test_steps_do_not_wait_for_a_checkpoint_and_do_not_change_it(tmp_path, monkeypatch):
    "Step 12 releases the write of step 7: the file holds step 7, and nobody waited in vain."
    go_on, told, state = threading.Event(), [], {}
    written(monkeypatch, lambda n, path: told.append(go_on.wait(30)))

    def look(step, loss):
        if step == 7:
            state.update({k: v.clone() for k, v in model.state_dict().items()})
        if step == 12:
            go_on.set()
        if step == 13:
            raise RuntimeError("the run ends here")

    torch.manual_seed(0)
    model = Net()
    with pytest.raises(RuntimeError, match="ends here"):
        how = dict(batch_size=5, every=7, progress=False, threads=1)
        fit(model, world, 40, out=tmp_path, on_step=look, **how)
    assert told == [True, True]  # both files of the one checkpoint
    tensors, label = read_tensors(tmp_path / "checkpoint.safetensors")
    assert json.loads(label["run"])["step"] == len(tensors["losses"]) == 7
    for k, v in state.items():
        assert torch.equal(tensors[f"model.{k}"], v), k
    assert not torch.equal(model.net[0].weight, state["net.0.weight"])
    saved, _ = read_tensors(tmp_path / "weights.safetensors")
    assert torch.equal(saved["net.0.weight"], tensors["ema.net.0.weight"])
    assert torch.equal(saved["net.1.running_mean"], state["net.1.running_mean"])


def test_one_checkpoint_is_written_at_a_time(tmp_path, monkeypatch):
    "Due after each step, and slow: they come one after the other, none is left out."
    alive = []

    def slow(n, path):
        alive.append(sum(t.name == "writer" for t in threading.enumerate()))
        time.sleep(0.01)

    seen = written(monkeypatch, slow)
    train("tensor", tmp_path, steps=6, every=1)
    assert seen == ["checkpoint.safetensors", "weights.safetensors"] * 6 and set(alive) == {1}


def test_an_error_of_the_writer_ends_the_run_in_one_line(tmp_path, monkeypatch):
    "It comes in the main thread, in the step after; the checkpoint before is whole."
    seen, writing = [], lambda: any(t.name == "writer" for t in threading.enumerate())

    def fail(n, path):
        if n == 3:
            raise OSError(f"path: got {path} (no disk), expected a file that can be written")

    def look(step, loss):
        seen.append(step)
        while step == 11 and writing():
            time.sleep(0.01)

    written(monkeypatch, fail)
    how = dict(steps=400, every=5, on_step=look)
    one_line(OSError, "(no disk)", train, "tensor", tmp_path, **how)
    assert seen[-1] in (10, 11) and not writing()
    assert len(load_file(tmp_path / "checkpoint.safetensors")["losses"]) == 5


def test_an_error_of_the_last_write_is_raised_too(tmp_path, monkeypatch):
    def fail(n, path):
        raise OSError(f"path: got {path} (no disk), expected a file that can be written")

    written(monkeypatch, fail)
    one_line(OSError, "(no disk)", train, "tensor", tmp_path, steps=4, every=9)


def test_a_second_signal_while_saving_does_not_cost_the_file(tmp_path, monkeypatch, capsys):
    "Signals that come while the last file is written: it is finished, and `fit` returns."

    def impatient(n, path):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    written(monkeypatch, impatient)
    _, run = train("tensor", tmp_path, every=50, on_step=at(10, signal.SIGTERM))
    assert run.step == 11 and "stopped at step 11" in capsys.readouterr().out
    assert len(load_file(tmp_path / "checkpoint.safetensors")["losses"]) == 11
    assert (tmp_path / "weights.safetensors").is_file()


def test_a_second_signal_in_a_step_leaves_what_is_being_written(tmp_path, monkeypatch):
    "It interrupts at once, but not before the file of step 7 is whole."
    written(monkeypatch, lambda n, path: time.sleep(0.2))

    def twice(step, loss):
        if step == 8:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train("tensor", tmp_path, on_step=twice)
    assert len(load_file(tmp_path / "checkpoint.safetensors")["losses"]) == 7
    assert (tmp_path / "weights.safetensors").is_file()


def test_the_average_so_far_is_handed_to_whoever_looks():
    "on_start comes once, before the first step; averaged() is the average of the weights so far."
    seen, weights = [], []

    def look(step, loss):
        (run,) = seen
        weights.append(model.net[0].weight.detach().clone())
        mean = None
        if step == 1:  # the share of the start is 1 / C(10, 9)
            mean = 0.1 * start + 0.9 * weights[0]
        if step == 2:
            mean = 2 / 11 * (0.1 * start + 0.9 * weights[0]) + 9 / 11 * weights[1]
        if mean is not None:
            torch.testing.assert_close(run.averaged().net[0].weight, mean)
        assert torch.equal(run.averaged().net[1].running_mean, model.net[1].running_mean)

    torch.manual_seed(0)
    model = Net()
    start = model.net[0].weight.detach().clone()
    fit(model, world, 4, progress=False, on_start=seen.append, on_step=look)
    assert len(weights) == 4


def test_workers_give_the_same_clips(tmp_path):
    train("dataset", tmp_path / "none", steps=6, every=6)
    train("dataset", tmp_path / "two", steps=6, every=6, workers=2)
    same_run(tmp_path / "none", tmp_path / "two")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_interrupt_saves_and_resumes(number, tmp_path, undisturbed, capsys):
    "Ctrl-C in the middle of a step: it is completed and saved, and the run goes on from there."

    def interrupt(step, loss):
        if step == 10:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    model, run = train("tensor", tmp_path / "a", on_step=interrupt)
    assert signal.getsignal(number) is before
    assert run.step == 11 and len(run.losses) == 11 and run.steps == 120
    assert "stopped at step 11 of 120" in capsys.readouterr().out
    _, run = train("tensor", tmp_path / "a", resume=True)
    assert "at step 11" in capsys.readouterr().out and run.step == 120
    same_run(tmp_path / "a", undisturbed("tensor")[0])
    _, run = train("tensor", tmp_path / "a", resume=True)  # finished: returns at once
    assert run.step == 120 and len(run.losses) == 120
    saved = load_file(tmp_path / "a" / "weights.safetensors")
    for k, v in run.ema.state_dict().items():
        assert torch.equal(v, saved[k])


@pytest.mark.parametrize("out", [True, False])
def test_in_a_notebook_an_interrupt_ends_the_run_with_one_line(out, tmp_path, monkeypatch, capsys):
    "The checkpoint is written first; the exception carries what `fit` returns elsewhere."
    monkeypatch.setattr(safety, "in_notebook", lambda: True)
    folder = tmp_path / "run" if out else None
    how = dict(steps=30, out=folder, progress=False, threads=1)
    model, clips = Slope(), torch.zeros(8, 1, 1, 4, 4)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(model, clips, on_step=at(7, signal.SIGINT), **how)
    stop, text = caught.value, str(caught.value)
    assert isinstance(stop, safety.Stopped) and stop.run.step == 8 and len(stop.run.losses) == 8
    assert text.startswith("stopped at step 8 of 30; ") and capsys.readouterr().out == ""
    assert ("resume=True" in text and str(folder) in text) if out else "nothing saved" in text
    assert stop._render_traceback_() == [f"{text}. The cells below were not run."]
    assert model.training and all(p.grad is None for p in model.parameters())
    if out:
        assert fit(Slope(), clips, resume=True, **how).step == 30
        assert "at step 8 of 30" in capsys.readouterr().out


def test_jupyter_shows_a_stopped_run_as_one_line(tmp_path):
    "In a kernel: the next cell of Run All is not run."
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [
        "import signal, torch\nfrom torch import nn\nfrom vidiffedu.train import fit",
        "class Slope(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.w = nn.Parameter(torch.zeros(()))\n"
        "    def loss(self, clip, generator=None):\n"
        "        return self.w\n"
        "stop = lambda step, loss: signal.raise_signal(signal.SIGINT) if step == 3 else None",
        "run = fit(Slope(), torch.zeros(8, 1, 1, 4, 4), 30, on_step=stop, progress=False, threads=1)",
        "print('the next cell')",
    ]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in cells])
    nb.metadata["kernelspec"] = dict(name="python3", display_name="", language="python")
    where = {"metadata": {"path": str(tmp_path)}}
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        nbclient.NotebookClient(nb, timeout=120, resources=where).execute()
    (output,) = nb.cells[2].outputs
    assert output["output_type"] == "error" and output["ename"] == "Stopped"
    (line,) = output["traceback"]
    assert line.startswith("stopped at step 4 of 30; nothing saved. The cells below")
    assert nb.cells[3].outputs == []


def test_resume_without_a_checkpoint_starts_fresh_and_says_so(tmp_path, capsys):
    _, run = train("tensor", tmp_path, steps=3, resume=True)
    assert run.step == 3 and "starting fresh" in capsys.readouterr().out


def test_fit_leaves_the_callers_randomness_and_mode_alone(tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    model = Net().eval()
    torch.manual_seed(1)
    run = fit(model, world, 3, progress=False)
    assert torch.equal(torch.rand(3), expected)
    assert not model.training and not run.ema.training
    assert torch.equal(run.ema.net[1].running_mean, model.net[1].running_mean)
    assert all(p.grad is None for p in model.parameters())


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["dataset", "function"])
def test_measuring_threads_leaves_nothing_behind(kind, two_threads, monkeypatch):
    "Every bit of the run and the caller's randomness: with a measurement and without."
    measure, measured = threads._rates, []

    def rates(work, counts, seconds):
        measured.append(measure(work, counts, 0.1))
        return {n: float(n) for n in counts}  # two threads win

    monkeypatch.setattr(threads, "_rates", rates)
    runs = []
    for wanted in (None, 2):
        torch.manual_seed(1)
        model = Net()
        run = fit(model, clips_of(kind), 25, progress=False, threads=wanted)
        assert run.threads == 2
        runs.append([*model.state_dict().values(), torch.rand(3), run.losses])
    assert len(measured) == 1 and all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_threads_are_kept_in_the_checkpoint(tmp_path, monkeypatch, two_threads):
    "Taken again on resume without a measurement, unless overruled; old checkpoints have none."
    before = torch.get_num_threads()
    _, run = train("tensor", tmp_path / "a", steps=30, threads=3, on_step=at(7, signal.SIGINT))
    assert run.threads == 3 and run.step == 8 and torch.get_num_threads() == before
    seen = []
    options = dict(steps=30, resume=True, on_step=lambda *_: seen.append(torch.get_num_threads()))
    monkeypatch.setattr("vidiffedu.threads._rates", None)  # a measurement would fail
    train("tensor", tmp_path / "a", threads=None, **options)
    assert set(seen) == {3} and torch.get_num_threads() == before
    seen.clear()
    train("tensor", tmp_path / "b", steps=30, threads=3, on_step=at(7, signal.SIGINT))
    train("tensor", tmp_path / "b", threads=2, **options)
    assert set(seen) == {2}
    path = tmp_path / "b" / "checkpoint.safetensors"
    tensors, label = read_tensors(path)
    run = {k: v for k, v in json.loads(label["run"]).items() if k != "threads"}
    write_tensors(path, tensors, label | {"run": json.dumps(run)})
    _, run = train("tensor", tmp_path / "b", threads=None, steps=30, resume=True)
    assert run.threads == before


def at(step, number):
    return lambda now, loss: signal.raise_signal(number) if now == step else None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_clips_of_any_float_train_in_the_models_dtype(dtype):
    clips = clips_of("tensor").to(dtype)
    seen, losses = set(), []

    class Looks(Plain):
        def loss(self, clip, generator=None):
            seen.add(clip.dtype)
            return super().loss(clip, generator)

    for kind in (clips, list(clips), lambda n, generator: clips[:n]):
        torch.manual_seed(0)
        losses.append(fit(Looks(), kind, 3, batch_size=4, progress=False).losses)
    assert seen == {torch.float32}
    torch.manual_seed(0)
    same = fit(Looks(), clips.float(), 3, batch_size=4, progress=False).losses
    assert torch.equal(losses[0], same)
    torch.manual_seed(0)
    fit(Looks().double(), clips, 3, batch_size=4, progress=False)
    assert seen == {torch.float32, torch.float64}


@pytest.mark.parametrize("kind", [">f8", "<f8", ">f4", "<f4", ">f2", "<f2"])
def test_arrays_of_any_float_and_byte_order_train(kind):
    "A list of numpy clips, and one array, which is a dataset of its rows."
    clips, losses = clips_of("tensor").half(), []
    array = clips.numpy().astype(kind)
    for source in (clips, array, list(array)):
        torch.manual_seed(0)
        losses.append(fit(Plain(), source, 3, batch_size=4, progress=False, threads=1).losses)
    assert torch.equal(losses[0], losses[1]) and torch.equal(losses[0], losses[2])


def test_a_compiled_net_saves_names_that_the_plain_one_reads(tmp_path):
    torch.manual_seed(0)
    model = Plain()
    model.net = torch.compile(model.net, backend="eager")
    fit(model, world, 4, out=tmp_path, progress=False)
    plain = load_weights(Plain(), tmp_path / "weights.safetensors")
    fit(Plain(), world, 4, out=tmp_path, resume=True, progress=False)  # its checkpoint too
    save_weights(plain, tmp_path / "plain.safetensors")
    load_weights(model, tmp_path / "plain.safetensors")
    for a, b in zip(plain.parameters(), model.parameters()):
        assert torch.equal(a, b)


@pytest.mark.parametrize("whole", [False, True], ids=["a part", "the whole"])
def test_compiled_and_plain_read_each_others_files(whole, tmp_path):
    "Weights and checkpoints, both ways; the file names the plain class."

    def new(compiled, seed, width=4):
        torch.manual_seed(seed)
        model = Net(width)
        if compiled and whole:
            return torch.compile(model, backend="eager")
        if compiled:
            model.net[0] = torch.compile(model.net[0], backend="eager")
        return model

    def state(model):
        return {k.replace("_orig_mod.", ""): v.clone() for k, v in model.state_dict().items()}

    for a, b in ((True, False), (False, True)):
        out, file = tmp_path / f"run {a}", tmp_path / f"{a}.safetensors"
        first = new(a, 0)
        run = fit(first, world, 4, batch_size=4, out=out, progress=False, threads=1)
        save_weights(run.ema, file)
        want = state(run.ema)
        for path in (file, out / "weights.safetensors"):
            have = state(load_weights(new(b, 1), path))
            assert have.keys() == want.keys() and not any("_orig_mod" in k for k in want)
            assert all(torch.equal(have[k], want[k]) for k in want)
            with safe_open(path, "pt") as f:
                assert f.metadata()["model"] == "Net" and set(f.keys()) == set(want)
        resumed = new(b, 2)
        again = fit(resumed, world, 4, batch_size=4, out=out, resume=True, progress=False)
        assert torch.equal(again.losses, run.losses)
        last = state(first)
        assert all(torch.equal(v, last[k]) for k, v in state(resumed).items())
        line = complaint(load_weights, new(b, 0, width=5), file)
        assert "(Net)" in line and "expected a Net" in line


def test_an_accelerator_that_fit_does_not_serve_is_refused():
    from accelerate import Accelerator
    from accelerate.utils import DistributedType

    accelerator = Accelerator(gradient_accumulation_steps=4)
    one_line(ValueError, "accelerator: got", fit, Net(), good, 5, accelerator=accelerator)
    for kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        split = SimpleNamespace(gradient_accumulation_steps=1, distributed_type=kind)
        one_line(ValueError, kind.value, fit, Net(), good, 5, accelerator=split)


@pytest.mark.parametrize("n, batch_size, processes", [(10, 4, 1), (10, 4, 3), (3, 7, 2), (1, 2, 1)])
def test_every_clip_comes_once_a_lap(n, batch_size, processes):
    "The batches of all processes, one after the other, are shuffles of all clips."
    share = dict(n=n, batch_size=batch_size, processes=processes, seed=4)
    steps = -(-3 * n // (batch_size * processes))  # three laps at least
    queue = [clip_rows(k, rank=r, **share) for k in range(steps) for r in range(processes)]
    laps = torch.cat(queue)[: 3 * n].view(3, n)
    assert (laps.sort(1).values == torch.arange(n)).all()
    if n == 10:
        assert not torch.equal(laps[0], laps[1])  # each lap has its own order


def test_two_processes_draw_different_worlds_and_datasets():
    for kind in ("dataset", "tensor"):
        share = dict(batch_size=6, seed=1, processes=2)
        one, two = (clip_source(clips_of(kind), range(3), rank=r, **share) for r in (0, 1))
        for k in range(3):
            assert not torch.equal(one(k, None), two(k, None))


class Noise(Dataset):
    "Every item is nothing but what torch draws."

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return torch.rand(2, 1, 4, 4)


def test_no_two_draws_are_the_same():
    "Items of a batch, of two steps, of two processes; a loss's own, with a generator or without."
    seen = []
    for rank in (0, 1):
        draw = clip_source(Noise(), range(3), 4, rank=rank, processes=2)
        seen += [clip.sum().item() for k in range(3) for clip in draw(k, None)]

    class Draws(Plain):
        def loss(self, clip, generator=None):
            seen.append(torch.rand(1).item())
            seen.append(torch.rand(1, generator=generator).item())
            return super().loss(clip)

    fit(Draws(), good, 6, progress=False, seed=7)
    assert len(set(seen)) == len(seen) == 2 * 3 * 4 + 2 * 6


def test_the_start_is_forgotten_as_a_binomial_says():
    "While the decay grows, the share of the start after n steps is 1 / C(n + 9, 9)."
    for n in (1, 10, 50):
        assert math.isclose(math.prod(map(ema_decay, range(n))), 1 / math.comb(n + 9, 9))
    assert ema_decay(10**6) == 0.999 and ema_decay(10**6, 0.5) == 0.5


def test_average_and_schedule_are_what_they_say():
    "Against a loop written out by hand with torch's own AdamW."
    clips, theirs, ours = world(4, torch.Generator().manual_seed(0)), Plain(), Plain()
    ours.load_state_dict(theirs.state_dict())
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1.0, weight_decay=0.1)
    average = [p.detach().clone() for p in theirs.parameters()]
    for k in range(40):
        optimizer.param_groups[0]["lr"] = 0.01 * (
            (k + 1) / 8 if k < 8 else (1 + math.cos(math.pi * (k - 8) / 32)) / 2
        )
        optimizer.zero_grad()
        theirs.loss(clips).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
        optimizer.step()
        d = min(0.8, (1 + k) / (10 + k))
        average = [d * a + (1 - d) * p.detach() for a, p in zip(average, theirs.parameters())]
    run = fit(
        ours,
        clips,
        40,
        lr=0.01,
        batch_size=4,
        warmup=8,
        ema=0.8,
        weight_decay=0.1,
        clip_norm=0.05,
        progress=False,
    )
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b)
    for a, b in zip(run.ema.parameters(), average):
        torch.testing.assert_close(a, b)


def test_bf16_on_the_cpu_trains():
    "Half the digits, nearly the same result; the weights themselves stay float32."
    losses = {}
    for precision in ("no", "bf16"):
        torch.manual_seed(0)
        model = Plain()
        losses[precision] = fit(
            model, world, 150, lr=0.02, precision=precision, progress=False
        ).losses
        assert all(p.dtype == torch.float32 for p in model.parameters())
    assert losses["bf16"][-10:].mean() < 0.5 * losses["bf16"][:10].mean()
    assert not torch.equal(losses["bf16"], losses["no"])
    torch.testing.assert_close(
        losses["bf16"][-20:].mean(), losses["no"][-20:].mean(), rtol=0.1, atol=1e-3
    )


class Plain(nn.Module):
    "No noise and no state: the loss is a function of the clips alone."

    def __init__(self, width=3):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, 2, 3, padding=1)
        )

    def loss(self, clip, generator=None):
        return (self.net(clip[:, :, 0]) - clip[:, :, 0]).square().mean()


def test_two_processes_are_one_with_the_batches_joined(tmp_path):
    "Two gloo processes with batches of 4 follow one with batches of 8, and agree."
    two_processes(_joined, tmp_path)
    ranks = [load_file(tmp_path / f"rank{r}.safetensors") for r in (0, 1)]
    for k in ranks[0]:
        assert torch.equal(ranks[0][k], ranks[1][k]), k
    torch.manual_seed(0)
    model = Plain()
    run = fit(model, clips_of("tensor"), 30, lr=0.01, batch_size=8, progress=False)
    for k, v in model.state_dict().items():
        torch.testing.assert_close(ranks[0][k], v, rtol=1e-4, atol=1e-5)
    saved = load_file(tmp_path / "out" / "checkpoint.safetensors")
    torch.testing.assert_close(saved["losses"], run.losses, rtol=1e-4, atol=1e-5)
    for k, v in run.ema.named_parameters():
        torch.testing.assert_close(saved[f"ema.{k}"], v, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    "What two machines without a shared disk leave behind."
    folder = tmp_path_factory.mktemp("apart")
    two_processes(_apart, folder)
    return folder, [json.loads((folder / f"said{rank}").read_text()) for rank in (0, 1)]


def test_two_machines_without_a_shared_disk_go_on(apart):
    "The second finds an empty folder; both go on from the first one's checkpoint, bit for bit."
    folder, said = apart
    assert [p.name for p in (folder / "rank1").iterdir()] == []
    for one, two in (("resumed0", "alone0"), ("resumed1", "alone0"), ("alone1", "alone0")):
        a, b = (load_file(folder / f"{name}.safetensors") for name in (one, two))
        assert a.keys() == b.keys()
        for k in a:
            assert torch.equal(a[k], b[k]), (one, k)
    for words in said:
        assert words["stopped"] == 5 and words["step"] == 12 and len(words["losses"]) == 12
        assert words["losses"] == words["losses alone"] == said[0]["losses"]


def test_what_two_machines_cannot_do_is_one_line_on_both(apart):
    folder, said = apart
    for words in said:
        assert words["other"].startswith("lr: got 0.5, expected 0.001 as in")
        assert words["broken"].startswith("path: got") and "whole safetensors" in words["broken"]
        assert words["swapped"].startswith("out: got checkpoints at steps [0, 12], expected")
        assert words["unused"].startswith("model: got no gradient for spare.weight, expected one")
        assert not any("\n" in v for v in words.values() if isinstance(v, str))


def steps_that_wait(syncs, accelerator=None):
    "Train 45 steps; at which of them, after the first, the list of waits grew."
    seen, waited = [0], []

    def look(step, loss):
        if step > 1 and len(syncs) > seen[0]:
            waited.append(step)
        seen[0] = len(syncs)

    options = dict(every=100, progress=False, on_step=look, accelerator=accelerator)
    fit(Plain(), world, 45, **options)
    return waited


def test_only_every_twentieth_step_waits_for_the_device(monkeypatch):
    "On a pretended device, which counts what would make a program wait."
    monkeypatch.setattr(torch, "autocast", lambda **_: contextlib.nullcontext())
    with pretend_device() as (device, syncs):
        accelerator = Alone(device)
        assert steps_that_wait(syncs, accelerator) == [20, 40, 45]


class Alone:
    "As much of an Accelerator as `fit` asks for, on a device of our choice."

    is_main_process, process_index, num_processes = True, 0, 1
    gradient_accumulation_steps, distributed_type, mixed_precision = 1, "NO", "no"

    def __init__(self, device):
        self.device, self.print = device, print

    def prepare(self, model):
        return model

    def gather(self, x):
        return x

    def wait_for_everyone(self):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["tensor", "dataset", "function"])
def test_a_step_does_not_wait_for_a_gpu(kind):
    "PyTorch itself raises an error where a step waits; steps 1 and 20 may."

    def guard(step, loss):
        quiet = step + 1 in (20, 40, 45) or step == 45  # after the last one the model goes home
        torch.cuda.set_sync_debug_mode("default" if quiet else "error")

    options = dict(every=100, progress=False, on_step=guard)
    try:
        fit(Plain(), clips_of(kind), 45, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def one_line(error, text, call, *args, **kw):
    with pytest.raises(error) as e:
        call(*args, **kw)
    assert text in str(e.value) and "\n" not in str(e.value), e.value


good = torch.zeros(4, 2, 1, 4, 4)


def never(n, generator):
    raise AssertionError("training began")


def wrong_device(generator):
    raise RuntimeError("Expected a 'cpu' device type for generator but found 'cuda'")


@pytest.mark.parametrize(
    "clips, error, text",
    [
        (good[0], ValueError, "clips"),
        (good + 1.1, ValueError, "[-1, 1]"),
        (good * math.nan, ValueError, "clips"),
        (good.byte(), TypeError, "clips"),
        (good[:0], ValueError, "clips"),
        (7, TypeError, "clips"),
        ([], ValueError, "clips"),
        (lambda n, g: good * math.nan, ValueError, "at step 1"),
        (lambda n, g: good - 2, ValueError, "at step 1"),
        (good.to(torch.float8_e4m3fn), TypeError, "clips"),
        (good + 0j, TypeError, "clips"),
        (lambda n, g: good[0], ValueError, "clips"),
        (lambda n, g: "clip", TypeError, "clips"),
        (lambda n, g: torch.randn(n, generator=wrong_device(g)), ValueError, "generator.device"),
        ([(good[0], 1)], TypeError, "clips"),
    ],
)
def test_bad_clips(clips, error, text):
    model = Net()
    before = {k: v.clone() for k, v in model.state_dict().items() if "net.1" not in k}
    one_line(error, text, fit, model, clips, 5, progress=False)
    for k, v in before.items():
        assert torch.equal(model.state_dict()[k], v)


@pytest.mark.parametrize(
    "option",
    [
        dict(steps=0),
        dict(steps=2.5),
        dict(batch_size=0),
        dict(lr=0.0),
        dict(lr=math.nan),
        dict(warmup=5),
        dict(ema=1.0),
        dict(clip_norm=0.0),
        dict(precision="int4"),
        dict(seed=-1),
        dict(weight_decay=-1.0),
        dict(every=0),
        dict(every=2.5),
        dict(steps="five"),
        dict(lr="small"),
        dict(threads=0),
        dict(threads=100_000),
        dict(threads=2**40),
        dict(workers=-1),
        dict(seed=1.0),
        dict(seed=None),
        dict(steps=None),
        dict(batch_size=None),
        dict(workers=None),
        dict(weight_decay=math.inf),
        dict(range=3),
        dict(range=(1,)),
        dict(range=(1, -1)),
        dict(range=("low", "high")),
        dict(schedule=None),
        dict(schedule=lambda step, steps, warmup: -1.0),
        dict(schedule=lambda step, steps, warmup: math.nan if step == steps - 1 else 1.0),
        dict(on_step=3),
        dict(accelerator="cuda"),
        dict(out=3),
        dict(out=""),
        dict(out="a\0b"),
        dict(out="~nobody-has-this-name/runs"),
    ],
    ids=lambda option: re.sub(r" at 0x[0-9a-f]+", "", str(option)),
)
def test_bad_settings(option):
    "Refused before a clip is drawn or a file is written."
    here, how = set(os.listdir()), {"steps": 5, "progress": False} | option
    one_line((ValueError, TypeError), next(iter(option)) + ":", fit, Net(), never, **how)
    assert set(os.listdir()) == here


@pytest.mark.parametrize("seed", [2**32, 2**63, 2**64 - 1, 2**100])
def test_any_whole_number_is_a_seed(seed, tmp_path):
    found = [train("function", None, steps=3, seed=s)[1].losses for s in (seed, seed, seed - 1)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_a_schedule_may_be_a_partial_or_an_object(tmp_path):
    def slow(step, steps, warmup, factor):
        return factor

    class Slow:
        def __call__(self, step, steps, warmup):
            return 0.5

    found = []
    for i, schedule in enumerate((functools.partial(slow, factor=0.5), Slow())):
        found.append(train("tensor", tmp_path / str(i), steps=3, schedule=schedule)[1].losses)
    assert torch.equal(*found)
    again = functools.partial(slow, factor=0.5)
    train("tensor", tmp_path / "0", steps=3, schedule=again, resume=True)
    one_line(ValueError, "schedule:", train, "tensor", tmp_path / "1", steps=3, resume=True)


def test_bad_models(tmp_path):
    one_line(TypeError, "model:", fit, nn.Linear(2, 2), good, 5)
    one_line(ValueError, "out:", fit, Net(), good, 5, resume=True)
    one_line(ValueError, "model:", fit, Net().requires_grad_(False), good, 5)

    class Vector(Net):
        def loss(self, clip, generator=None):
            return super().loss(clip) * torch.ones(3)

    one_line(ValueError, "scalar", fit, Vector(), good, 5, progress=False)


def test_a_loss_that_is_nan_stops_the_run_before_it_is_saved(tmp_path):
    class Bursts(Net):
        calls = 0

        def loss(self, clip, generator=None):
            self.calls += 1
            return super().loss(clip, generator) * (math.nan if self.calls == 9 else 1.0)

    model = Bursts()
    one_line(ValueError, "step 9", fit, model, good, 20, out=tmp_path, every=2, progress=False)
    assert all(v.isfinite().all() for v in model.state_dict().values())
    assert len(load_file(tmp_path / "checkpoint.safetensors")["losses"]) == 8


def test_nothing_is_overwritten(tmp_path):
    train("tensor", tmp_path, steps=4)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert sorted(before) == ["checkpoint.safetensors", "weights.safetensors"]
    one_line(ValueError, "resume=True", train, "tensor", tmp_path, steps=4)
    one_line(ValueError, "lr:", train, "tensor", tmp_path, steps=4, lr=0.5, resume=True)
    one_line(
        ValueError, "steps: got 3, expected 4", train, "tensor", tmp_path, steps=3, resume=True
    )
    one_line(ValueError, "clips:", train, "function", tmp_path, steps=4, resume=True)
    one_line(ValueError, "another model", fit, Net(5), good, 4, out=tmp_path, resume=True)
    one_line(ValueError, "another model", fit, Plain(), good, 4, out=tmp_path, resume=True)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    (tmp_path / "checkpoint.safetensors").write_bytes(before["checkpoint.safetensors"][:-50])
    one_line(ValueError, "whole safetensors file", train, "tensor", tmp_path, steps=4, resume=True)
    assert (tmp_path / "weights.safetensors").read_bytes() == before["weights.safetensors"]


def test_a_checkpoint_says_under_which_settings_it_was_made(tmp_path):
    train("tensor", tmp_path, steps=20, lr=0.5, warmup=None, weight_decay=0.1)
    with safe_open(tmp_path / "checkpoint.safetensors", "pt") as f:
        run = json.loads(f.metadata()["run"])
    given = dict(steps=20, lr=0.5, batch_size=5, ema=0.9, seed=3, weight_decay=0.1)
    chosen = dict(warmup=2, clip_norm=1.0, processes=1, precision="no", schedule="warmup_cosine")
    assert run["settings"] == given | chosen | dict(clips="tensor (13, 2, 1, 4, 4)")
    assert (run["step"], run["threads"]) == (20, 1)


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below", "/proc/no"):
        one_line(ValueError, "out:", fit, Net(), never, 5, out=out)


def test_weights_all_or_nothing(tmp_path):
    model, path = Net(), tmp_path / "deep" / "w.safetensors"
    save_weights(model, path)
    other = Net()
    load_weights(other, path)
    for a, b in zip(model.state_dict().values(), other.state_dict().values()):
        assert torch.equal(a, b)
    assert other.net[0].weight.is_contiguous(memory_format=torch.channels_last)
    with safe_open(path, "pt") as f:
        assert f.metadata()["model"] == "Net" and f.metadata()["vidiffedu"]
    for wrong in (Net(5), Plain(), Plain(4)):
        before = {k: v.clone() for k, v in wrong.state_dict().items()}
        one_line(ValueError, "net.", load_weights, wrong, path)
        for k, v in wrong.state_dict().items():
            assert torch.equal(v, before[k])
    none = tmp_path / "none.safetensors"
    one_line(FileNotFoundError, "none.safetensors", load_weights, model, none)
    (tmp_path / "text").write_text("not a tensor\nin sight")
    one_line(ValueError, "path:", load_weights, model, tmp_path / "text")
    train("tensor", tmp_path / "run", steps=2)
    one_line(
        ValueError, "resume=True", load_weights, Net(), tmp_path / "run" / "checkpoint.safetensors"
    )
    load_weights(Net(), tmp_path / "run" / "weights.safetensors")


def test_tied_weights_survive(tmp_path):
    class Tied(Net):
        def __init__(self):
            super().__init__()
            self.again = self.net[0]

    model = Tied()
    fit(model, world, 4, out=tmp_path / "a", every=2, progress=False)
    fit(model, world, 4, out=tmp_path / "a", resume=True, every=2, progress=False)
    assert load_weights(Tied(), tmp_path / "a" / "weights.safetensors").again.weight.ndim == 4


def _slow(kind, out):
    "A run that takes its time between the steps."
    train(kind, out, on_step=lambda *_: time.sleep(0.01))


def _dying(moment, kind, out):
    "A run that kills itself when it handles the checkpoint of step 21."
    import safetensors.torch as st

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def at_21(call, instead):
        def wrapped(first, second, *rest):
            ours = "checkpoint" in f"{first if moment == 'rename' else second}"
            wrapped.seen += ours
            now = instead if ours and wrapped.seen == 3 else call
            return now(first, second, *rest)

        wrapped.seen = 0
        return wrapped

    def half(tensors, path, *rest):
        whole = st.save(tensors, *rest)
        Path(path).write_bytes(whole[: len(whole) // 2])
        die()

    if moment == "write":
        st.save_file = at_21(st.save_file, half)
    else:
        os.replace = at_21(os.replace, die)
    train(kind, out)


def _joined(out):
    "One of two that train together."
    from accelerate import Accelerator

    torch.manual_seed(int(os.environ["RANK"]))  # they start apart: rank 0's weights count
    accelerator, model = Accelerator(cpu=True), Plain()
    assert accelerator.num_processes == 2
    how = dict(lr=0.01, batch_size=4, every=7, out=out / "out", progress=False)
    fit(model, clips_of("tensor"), 30, accelerator=accelerator, **how)
    save_weights(model, out / f"rank{accelerator.process_index}.safetensors")


def _apart(folder):
    "One of two, each with a folder of its own."
    from accelerate import Accelerator

    accelerator, words = Accelerator(cpu=True), {}
    rank, first = accelerator.process_index, accelerator.is_main_process
    own = folder / f"rank{rank}"

    def run(out=own, model=None, **kw):
        torch.manual_seed(0)
        model = model or Net()
        options = dict(accelerator=accelerator, threads=1, progress=False, batch_size=4, every=5)
        return model, fit(model, world, 12, out=out, **options | kw)

    words["stopped"] = run(on_step=at(4, signal.SIGUSR1))[1].step
    torch.manual_seed(100 + rank)  # what a machine starts from does not count
    model, done = run(resume=True)
    save_weights(model, folder / f"resumed{rank}.safetensors")
    alone, whole = run(out=None)
    save_weights(alone, folder / f"alone{rank}.safetensors")
    words |= {
        "step": done.step,
        "losses": done.losses.tolist(),
        "losses alone": whole.losses.tolist(),
    }
    words["other"] = complaint(run, resume=True, lr=0.5)
    words["swapped"] = complaint(run, out=folder / f"rank{1 - rank}", resume=True)
    accelerator.wait_for_everyone()
    if first:
        file = own / "checkpoint.safetensors"
        file.write_bytes(file.read_bytes()[:-50])
    accelerator.wait_for_everyone()
    words["broken"] = complaint(run, resume=True)
    spare = Plain()
    spare.spare = nn.Linear(2, 2)
    words["unused"] = complaint(run, out=None, model=spare)
    (folder / f"said{rank}").write_text(json.dumps(words))


# a finished run that goes on


class Slope(nn.Module):
    "Loss with gradient 1: each of Adam's steps is the learning rate, whatever its moments."

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def loss(self, clip, generator=None):
        return self.w.sum()


def test_a_finished_run_goes_on_along_the_longer_runs_cosine(tmp_path):
    model, clips, how = Slope(), torch.zeros(8, 1, 1, 4, 4), dict(lr=0.1, clip_norm=None)
    how |= dict(out=tmp_path / "run", progress=False, threads=1)
    fit(model, clips, steps=5, warmup=0, **how)
    longer = fit(model, clips, steps=12, resume=True, **how)
    rates = [
        *(warmup_cosine(k, 5) for k in range(5)),
        *(warmup_cosine(k, 12, 1) for k in range(5, 12)),
    ]
    expected = torch.full_like(model.w, -0.1 * sum(rates))
    torch.testing.assert_close(model.w.data, expected.data, rtol=1e-6, atol=0)
    assert longer.step == 12 and len(longer.losses) == 12
    line = complaint(fit, model, clips, steps=11, resume=True, **how)
    assert line.startswith("steps: got 11, expected 12")


@pytest.mark.parametrize("dtype, share", [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)])
def test_weights_in_half_the_bytes(dtype, share, tmp_path):
    "Parameters are rounded to the nearest number, buffers are exact, and a model reads both."
    torch.manual_seed(0)
    model, again = (nn.Sequential(nn.Linear(40, 40), nn.BatchNorm1d(40)) for _ in range(2))
    model[1].running_var.uniform_(0.5, 2)
    save_weights(model, tmp_path / "whole")
    save_weights(model, tmp_path / "half", dtype=dtype)
    sizes = [(tmp_path / name).stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.65 * sizes[1]
    load_weights(again, tmp_path / "half")
    assert torch.equal(again[1].running_var, model[1].running_var)
    for have, want in zip(again.parameters(), model.parameters(), strict=True):
        assert have.dtype is torch.float32
        torch.testing.assert_close(have, want, rtol=share, atol=1e-7)
        assert want.abs().max() == 0 or want.max() == 1 or not torch.equal(have, want)
    with torch.no_grad():
        model[0].weight[0, 0] = 7e4  # beyond half precision
    if dtype is torch.float16:
        line = complaint(save_weights, model, tmp_path / "big", dtype=dtype)
        assert line.startswith("dtype: got torch.float16 for 0.weight up to 7e+04")
        assert not (tmp_path / "big").exists()
    else:
        save_weights(model, tmp_path / "big", dtype=dtype)


def test_a_run_goes_on_with_the_schedule_that_it_began_with(tmp_path):
    def constant(step, steps, warmup):
        return 1.0

    how = dict(steps=6, out=tmp_path / "run", progress=False, threads=1)
    fit(Slope(), torch.zeros(8, 1, 1, 4, 4), schedule=constant, **how)
    line = complaint(fit, Slope(), torch.zeros(8, 1, 1, 4, 4), resume=True, **how)
    assert line.startswith("schedule: got warmup_cosine, expected constant")


def test_an_unfinished_run_keeps_its_length(tmp_path):
    def stop(step, loss):
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    how = dict(out=tmp_path / "run", progress=False, threads=1)
    clips = torch.zeros(8, 1, 1, 4, 4)
    fit(Slope(), clips, steps=40, on_step=stop, **how)
    line = complaint(fit, Slope(), clips, steps=80, resume=True, **how)
    assert line.startswith("steps: got 80, expected 40") and "once it is finished" in line


def test_another_schedule_and_latents_without_a_range(tmp_path):
    "A constant rate walks lr a step; latents beyond [-1, 1] train with range=None only."
    model, clips = Slope(), 4 * torch.ones(8, 1, 1, 4, 4)
    constant = lambda step, steps, warmup: 1.0
    how = dict(steps=7, lr=0.1, clip_norm=None, progress=False, threads=1)
    assert complaint(fit, model, clips, **how).startswith("clips: got values in [4, 4]")
    drawn = lambda n, generator: clips[:n]
    assert "got values in [4, 4]" in complaint(fit, model, drawn, **how)
    for source in (clips, drawn):
        model = Slope()
        fit(model, source, range=None, schedule=constant, **how)
        torch.testing.assert_close(
            model.w.data, torch.full_like(model.w, -0.7).data, rtol=1e-6, atol=0
        )
