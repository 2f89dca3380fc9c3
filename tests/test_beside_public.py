"""The parts of tests/benchmarks/beside_public.py, without a clone of anybody's code: toys stand in its place."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vidiffedu.core import complaint
from vidiffedu.data import bouncing

FILE = Path(__file__).parent / "benchmarks" / "beside_public.py"
spec = importlib.util.spec_from_file_location("beside_public", FILE)
beside = importlib.util.module_from_spec(spec)
spec.loader.exec_module(beside)

# What the public files are called, and what their functions take and give; the toy network is one number.
TOY = """
import torch
class Toy(torch.nn.Module):
    def __init__(self, **how):
        super().__init__()
        self.how, self.seen, self.w = how, [], torch.nn.Parameter(torch.zeros(()))
    def losses(self, clip, *more, **how):
        self.seen.append((clip, more, how))
        return {"loss": (clip - self.w).square().flatten(1).mean(1)}
    def forward(self, clip):
        return self.losses(clip)["loss"].mean()
"""
CLONES = {
    "masks": {
        "diffusion_openai/script_util.py": """
def model_and_diffusion_defaults():
    return dict(image_size=32, num_channels=1, num_res_blocks=1, noise_schedule="cosine", extra=1)
def create_model_and_diffusion(**flags):
    net = Toy(**flags)
    net.training_losses = lambda model, x, t, **how: model.losses(x, t, **how)
    return net, net
"""
    },
    "residual": {
        "modules/denoising_diffusion.py": "GaussianDiffusion = Toy",
        "modules/unet.py": "import kornia\nUnet = Toy",
        "modules/temporal_models.py": "CondNet = HistoryNet = Toy",
    },
    "vector": {
        "models/latte_video.py": "from timm.models.vision_transformer import Mlp\nLatteVIDEO = Toy",
        "models/__init__.py": "raise ImportError('needs what nobody has')",
        "diffusion/__init__.py": """
class create_diffusion:
    def __init__(self, timestep_respacing):
        assert timestep_respacing == ""
    def training_losses_video(self, model, x, t, how):
        return model.losses(x, t, **how), None, None, None
""",
    },
}


@pytest.fixture
def clone(tmp_path, monkeypatch):
    "clone(method): the folder of a toy in place of the public code, ready to import."
    before = set(sys.modules)

    def make(method):
        for name, text in CLONES[method].items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(TOY + text)
        return tmp_path

    monkeypatch.syspath_prepend(tmp_path)
    beside.stand_ins()
    yield make
    toys = "diffusion_openai", "modules", "models", "diffusion", "kornia", "ipdb", "timm"
    for name in set(sys.modules) - before:
        if name.split(".")[0] in toys:
            del sys.modules[name]


def ready(method, folder):
    "(settings, the toy that is trained, what it saw of one batch of clips)."
    c = beside.settings(method)
    model, loss = beside.METHODS[method][0](folder, c)
    (clip,) = beside.batches(c, 1, seed=0)
    assert loss(clip).shape == ()
    return c, clip, model, loss


def test_masks_are_asked_as_the_readme_says(clone):
    c, clip, model, _ = ready("masks", clone("masks"))
    (seen, (t,), how), flags = model.seen[-1], model.how
    assert torch.equal(seen, clip.transpose(1, 2)) and t.shape == (c.batch_size,)
    assert how == dict(max_num_mask_frames=4, mask_range=[0, c.frames], uncondition_rate=0.25)
    assert flags["extra"] == 1 and flags["noise_schedule"] == "linear"
    assert flags["num_channels"] == c.net["width"] and flags["num_res_blocks"] == c.net["blocks"]


def test_residual_goes_frame_by_frame_with_squared_errors(clone):
    c, clip, model, _ = ready("residual", clone("residual"))
    assert torch.equal(model.seen[-1][0], clip.transpose(0, 1))
    assert model.how["loss_type"] == "l2" and model.how["timesteps"] == 1600
    assert model.how["denoise_fn"].how["dim_mults"] == c.net["context"]
    assert model.how["transform_fn"].how["dim_mults"] == c.net["mults"]


def test_vector_draws_a_time_for_each_frame_in_a_fifth_of_the_steps(clone):
    c, clip, model, loss = ready("vector", clone("vector"))
    for _ in range(99):
        loss(clip)
    times = [more[0] for _, more, _ in model.seen]
    assert all(t.shape == clip.shape[:2] for t in times) and model.seen[0][2] == dict(y=None)
    own = sum(bool((t != t[:, :1]).any()) for t in times)
    assert 5 <= own <= 40  # of 100, with probability .2: outside once in 100,000 times
    assert model.how["input_size"] == c.size and model.how["hidden_size"] == c.net["width"]


def test_a_row_has_both_losses_and_both_counts(clone, monkeypatch):
    "The toy's loss is known: its clips' mean square, as long as the rate is nothing."
    small = dict(size=10, frames=5, batch_size=2, channels=1)
    small["net"] = dict(width=8, mults=[1], blocks=1, attention=[], checkpoint=False)
    monkeypatch.setitem(beside.METHODS, "masks", (*beside.METHODS["masks"][:2], small))
    row = beside.beside("masks", clone("masks"), seed=3, rate=1e-12, steps=12)
    clips = [
        clip.square().mean().item() for clip in beside.batches(beside.settings("masks"), 12, 3)
    ]
    assert abs(row["theirs 1-10"] - sum(clips[:10]) / 10) < 1e-5
    assert abs(row["theirs 11-50"] - sum(clips[10:]) / 2) < 1e-5
    assert 0.5 < row["ours 1-10"] < 1.5 and "ours 51-100" not in row
    assert row["theirs weights"] == 1 and row["ours weights"] > 1000
    assert row["commit"] == "not a clone" and row["rate"] == 1e-12 and row["steps"] == 12


@pytest.mark.parametrize("method", beside.METHODS)
def test_our_loss_begins_at_one(method):
    "A network that says zero has the noise's own square as its loss: 1, and a variational term."
    c = beside.settings(method)
    model, loss = beside.ours(c)
    clips = [clip for clip in beside.batches(c, 2, 0)]
    assert clips[0].shape == (c.batch_size, c.frames, c.channels, c.size, c.size)
    assert not torch.equal(*clips) and clips[0].abs().max() <= 1
    with torch.no_grad():
        assert 0.8 < sum(loss(clip).item() for clip in clips) / 2 < 1.3
    assert (c.lr, c.clip_norm) == dict(
        masks=(2e-5, 1.0), residual=(5e-5, None), vector=(1e-4, None)
    )[method]


def test_four_channels_are_the_pixels_of_squares():
    c = beside.settings("vector")
    (clip,) = beside.batches(c, 1, 0)
    whole = F.pixel_shuffle(clip, 2)
    assert whole.shape == (c.batch_size, 16, 1, 16, 16)
    want = bouncing(c.batch_size, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole, want)


def test_the_loop_is_adamw_with_a_bound():
    "Equal gradients make steps of the rate; a bound makes gradients of 1 and 1000 equal."

    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

    model = Slope()
    losses = beside.train(model, lambda k: k * model.w, [1.0, 1.0, 1.0], 0.1, None)
    assert torch.allclose(torch.tensor(losses), torch.tensor([0.0, -0.1, -0.2]), atol=1e-6)
    ends = []
    for bound in (None, 1.0):
        model = Slope()
        beside.train(model, lambda k: k * model.w, [1.0, 1000.0], 0.1, bound)
        ends.append(model.w.item())
    assert abs(ends[1] + 0.2) < 1e-6 < abs(ends[0] + 0.2)


def test_windows():
    assert beside.windows(list(range(1, 101))) == [5.5, 30.5, 75.5]
    assert beside.windows([1.0, 2.0]) == [1.5]


def test_the_layers_that_fvdm_takes_from_timm():
    torch.manual_seed(0)
    x, patches = torch.randn(2, 4, 8, 8), beside.PatchEmbed(8, 2, 4, 16)
    squares = F.unfold(x, 2, stride=2).transpose(1, 2)  # (b, 16 squares, 4 channels of 2x2)
    want = squares @ patches.proj.weight.flatten(1).T + patches.proj.bias
    torch.testing.assert_close(patches(x), want, atol=1e-5, rtol=1e-4)
    assert patches.num_patches == 16 and patches.patch_size == (2, 2)
    mlp, v = beside.Mlp(3, 5, nn.ReLU), torch.randn(2, 3)
    hidden = (v @ mlp.fc1.weight.T + mlp.fc1.bias).clamp(min=0)
    torch.testing.assert_close(mlp(v), hidden @ mlp.fc2.weight.T + mlp.fc2.bias)


def test_what_cannot_be_compared_is_one_line(tmp_path):
    line = lambda method: complaint(beside.checked, method, tmp_path)
    assert line("cvp").endswith("no public code was found")
    assert line("score").startswith("METHOD: got score, expected one of masks, residual, vector")
    assert line("gan").startswith("METHOD: got 'gan'")
    assert line("fvdm").endswith("a clone of the public code, with models/latte_video.py")
    assert all("\n" not in line(m) for m in ("cvp", "score", "gan", "fvdm"))


def test_a_commit_is_that_of_the_folder(tmp_path):
    assert beside.commit(tmp_path) == "not a clone"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    want = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert beside.commit(tmp_path) == want[:12]
