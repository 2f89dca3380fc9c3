"""Latents: the file, the autoencoders, and FVDM on them with labels, guidance and a learned variance."""

import sys
import types
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vidiffedu import configs, jobs, outcomes, parts
from vidiffedu.core import complaint, expand, seeded
from vidiffedu.data import bouncing
from vidiffedu.latent import (
    CachedLatents,
    LatentFVDM,
    TinyAutoencoder,
    between,
    decoded,
    from_diffusers,
    labelled,
    open_autoencoder,
    step_parts,
)
from vidiffedu.nets import VideoTransformer
from vidiffedu.paths import VP
from vidiffedu.player import save_clip
from vidiffedu.times import grid
from vidiffedu.train import save_weights
from vidiffedu.video import VideoFolder


@pytest.fixture
def auto():
    torch.manual_seed(0)
    return TinyAutoencoder(width=16).eval()


def test_latents_have_unit_spread_and_decode_in_chunks(auto):
    clips = bouncing(5, 3, 16, generator=seeded(0))
    auto.measure(clips)
    latents = auto.encode(clips).detach()
    assert latents.shape == (5, 3, 4, 4, 4) and abs(latents.std() - 1) < 1e-4
    whole = auto.decode(latents).detach()
    torch.testing.assert_close(decoded(auto, latents, chunk=2), whole, atol=1e-5, rtol=1e-5)
    auto.measure(clips)  # already so
    torch.testing.assert_close(auto.encode(clips).detach(), latents)


def test_the_file_is_made_once_and_again_when_something_changed(auto, tmp_path):
    clips, calls = bouncing(5, 3, 16, generator=seeded(0)), []
    encode = auto.encode
    auto.encode = lambda x: calls.append(len(x)) or encode(x)
    make = lambda clips=clips, **how: CachedLatents(auto, clips, tmp_path / "a.npy", **how)
    kept = make(chunk=2)
    assert calls == [2, 2, 1] and len(kept) == 5
    torch.testing.assert_close(kept[3], encode(clips)[3].detach(), atol=2e-3, rtol=2e-3)
    make()
    assert len(calls) == 3
    make(clips=clips.flip(-1))
    assert len(calls) == 4
    with torch.no_grad():
        auto.down[1].weight.add_(0.1)
    make(clips=clips.flip(-1))
    assert len(calls) == 5
    make()
    for n, i in enumerate((1, 4), 7):  # every clip is looked at
        clips[i] = -clips[i]
        make()
        assert len(calls) == n
    with_class = make(labels=torch.tensor([3, 1, 4, 1, 5]))
    assert with_class[2].shape == (4, 4, 4, 4) and (with_class[2][0] == 4).all()


def test_an_exchanged_film_is_encoded_anew(auto, tmp_path):
    for i, clip in enumerate(bouncing(6, 3, 16, generator=seeded(0))):
        save_clip(tmp_path / f"films/{i}.gif", clip, scale=1)
    films = lambda: VideoFolder(tmp_path / "films", frames=3, size=16, channels=1)
    made = lambda: CachedLatents(auto, films(), tmp_path / "a.npy", progress=False)
    before = torch.stack([*made()])
    other = bouncing(1, 3, 16, generator=seeded(1))[0]  # for a film that is not first, middle, last
    save_clip(tmp_path / "films/1.gif", other, scale=1)
    changed = (torch.stack([*made()]) != before).flatten(1).any(1)
    assert changed.tolist() == [i == 1 for i in range(6)]


def test_a_tiny_autoencoder_comes_back_from_its_file(auto, tmp_path):
    auto.measure(bouncing(4, 2, 16, generator=seeded(0)))
    save_weights(auto, tmp_path / "auto.safetensors")
    again, x = open_autoencoder(tmp_path / "auto.safetensors"), torch.zeros(1, 1, 1, 8, 8)
    assert torch.equal(again.encode(x), auto.encode(x))
    save_weights(nn.Linear(1, 1), tmp_path / "other.safetensors")
    line = complaint(open_autoencoder, tmp_path / "other.safetensors")
    assert "a Linear, expected a TinyAutoencoder" in line


class FakeKL(nn.Module):
    "What we use of diffusers' AutoencoderKL: 8 pixels to one latent, 3 channels to 4."

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(
            latent_channels=4, block_out_channels=(1, 2, 3, 4), scaling_factor=0.5
        )
        self.down, self.up = nn.Conv2d(3, 4, 8, 8), nn.ConvTranspose2d(4, 3, 8, 8)

    @classmethod
    def from_pretrained(cls, folder, local_files_only):
        assert local_files_only
        torch.manual_seed(0)
        return cls()

    def encode(self, x):
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: self.down(x)))

    def decode(self, z):
        return SimpleNamespace(sample=self.up(z))


def test_diffusers_autoencoder(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert "pip install diffusers" in complaint(from_diffusers, tmp_path)
    monkeypatch.setitem(sys.modules, "diffusers", types.SimpleNamespace(AutoencoderKL=FakeKL))
    assert "expected a folder" in complaint(from_diffusers, tmp_path / "none")
    auto = open_autoencoder(tmp_path)
    assert (auto.channels, auto.factor) == (4, 8)
    x = torch.rand(2, 3, 3, 16, 16)
    latents = auto.encode(x)
    assert torch.allclose(latents[1, 2], 0.5 * auto.kl.down(x[1, 2:3])[0], atol=1e-6)
    assert torch.allclose(
        auto.decode(latents)[0, 1], auto.kl.up(latents[0, 1:2] / 0.5)[0], atol=1e-6
    )
    assert auto.encode(x[:, :, :1]).shape == latents.shape  # grey films, too


# ---------------------------------------------------------------- the method


class Exact(nn.Module):
    "The exact noise of independent numbers of unit variance, and a share per time to be learned."

    def __init__(self, path):
        super().__init__()
        self.path, self.share = path, nn.Parameter(torch.zeros(101))

    def forward(self, x_t, t, cond=None):
        noise = expand(self.path.c(t), x_t) * x_t  # E[noise | x_t] where a² + c² = 1
        share = self.share[(100 * t).round().long().clamp(0, 100)]
        return torch.cat([noise, expand(share, x_t).expand_as(x_t)], 2)


def test_the_variance_is_learned():
    """Unit variance: a step's best variance is c² of what is lost, in closed form.

    Given x_t, x has variance c_t², so the step's variance is least + weight² c_t²."""
    path = VP()
    coin = lambda b, f, **_: torch.tensor([0.1, 0.3, 0.5, 0.9]).repeat(b, 1)
    model = LatentFVDM(Exact(path), path, grain=0.05, times=coin)
    adam = torch.optim.Adam(model.parameters(), 0.05)
    for step in range(300):
        adam.zero_grad()
        x = torch.randn(256, 4, 1, 2, 2, generator=seeded(step))
        model.loss(x, seeded(1000 + step)).backward()
        adam.step()
    t = 0.05 + 0.95 * coin(1, 4)
    least, most, weight, _ = step_parts(path, t, t - 0.05)
    share = model.net.share[(100 * t).round().long()].sigmoid()
    right = least + weight**2 * path.c(t) ** 2
    assert torch.allclose(between(share, least, most), right, rtol=0.03), (share, right)


def test_the_variational_term_is_the_divergence_of_two_steps():
    "Of the step that knows x from the model's, both normal: PyTorch's own divergence, in nats."
    path, x = VP(), torch.randn(3, 4, 1, 2, 2, generator=seeded(0))
    model = LatentFVDM(nn.Identity(), path, grain=0.05)
    t = torch.tensor([0.2, 0.4, 0.6, 0.95]).expand(3, 4)
    noise = torch.randn(x.shape, generator=seeded(1))
    x_t, _ = path.perturb(x, t, noise=noise)
    said = noise + 0.3 * torch.randn(x.shape, generator=seeded(2))
    share = torch.rand(x.shape, generator=seeded(3))
    least, most, of_x, of_x_t = (expand(v, x) for v in step_parts(path, t, t - 0.05))
    law = lambda x, v: torch.distributions.Normal(of_x * x + of_x_t * x_t, v.sqrt())
    mine = law(model.estimate(x_t, t, said), most**share * least ** (1 - share))
    want = torch.distributions.kl_divergence(law(x, least), mine).mean()
    found = model.variational(x, x_t, t, said, share)
    torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-6)


def test_random_steps_keep_the_law():
    "With the exact noise and variance, samples of unit numbers have unit variance."
    path = VP()

    class Told(Exact):
        def forward(self, x_t, t, cond=None):
            least, most, weight, _ = step_parts(path, t, (t - 1 / 30).clamp_min(1e-6))
            right = least + weight**2 * path.c(t) ** 2
            share = ((right / least).log() / (most / least).log()).clamp(1e-4, 1 - 1e-4)
            noise = expand(path.c(t), x_t) * x_t
            return torch.cat([noise, expand(share.logit(), x_t).expand_as(x_t)], 2)

    model = LatentFVDM(Told(path), path)
    how = dict(steps=30, step=model.random_step, timetable=grid, generator=seeded(0))
    x = model.generate((4000, 2, 1, 1, 1), **how)
    assert abs(x.var() - 1) < 5 * (2 / 8000) ** 0.5


def transformer(classes=3):
    net = VideoTransformer(4, 4, 8, patch=2, width=16, depth=2, heads=2, out_channels=8)
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.2)
    return labelled(net, classes)


def test_labels_and_guidance():
    torch.manual_seed(0)
    model = LatentFVDM(transformer(), classes=3, unlabelled=0.2).eval()
    x_t, t = torch.randn(3, 8, 4, 4, 4, generator=seeded(0)), torch.full((3, 8), 0.5)
    kind = torch.arange(3)
    with torch.no_grad():
        free, told = model.says(x_t, t)[0], model.says(x_t, t, kind)[0]
        assert not torch.allclose(free, told)
        model.asked, model.guidance = kind, 3.0
        want = model.estimate(x_t, t, free + 3 * (told - free))
        torch.testing.assert_close(model.denoise(x_t, t), want)
        model.guidance = 1.0
        torch.testing.assert_close(model.denoise(x_t, t), model.estimate(x_t, t, told))
    seen = []
    model.says = lambda x_t, t, kind: (seen.append(kind), (x_t, x_t.sigmoid()))[1]
    first = kind.repeat(200)[:, None, None, None, None].expand(-1, 1, 4, 4, 4).float()
    clip = torch.cat([first, torch.zeros(600, 8, 4, 4, 4)], 1)
    model.loss(clip, seeded(1))
    none = (seen[0] == 3).float().mean()
    assert abs(none - 0.2) < 5 * (0.2 * 0.8 / 600) ** 0.5
    assert torch.equal(seen[0][seen[0] < 3], kind.repeat(200)[seen[0] < 3])


def test_the_commands_train_on_latents(tmp_path):
    "Films, an autoencoder, classes by folder: a run, its futures in pixels, its scores."
    torch.manual_seed(0)
    auto = TinyAutoencoder(width=16).measure(bouncing(4, 2, 16, generator=seeded(0)))
    save_weights(auto, tmp_path / "auto.safetensors")
    for i, clip in enumerate(bouncing(4, 12, 24, generator=seeded(1))):
        kind = ("Disk", "Ring")[i % 2]
        name = f"v_{kind}_g{(1, 9)[i // 2]:02d}_c{i:02d}.mp4"
        save_clip(tmp_path / "films" / kind / name, clip, scale=1)
    net = dict(kind="transformer", patch=2, width=16, depth=2, heads=2)
    config = configs.preset(
        "vector", "tiny", data=f"ucf101:{tmp_path / 'films'}", latent=str(tmp_path / "auto.safetensors"),
        net=net, options=dict(p=0.2, learned=True, classes=2), steps=3, warmup=1, batch_size=2, hop=1,
        valid_every=3, log_every=3, samples=2, clips=2, sampler=dict(steps=2, kind="ddim", grid="even in t"),
    )  # fmt: skip
    run = jobs.train_run(config, tmp_path / "run", progress=False, say=lambda _: None)
    assert run.step == 3 and (tmp_path / "run" / "latents.npy").is_file()
    again, model = jobs.open_run(tmp_path / "run")
    past = bouncing(1, 2, 16, generator=seeded(3))
    found = parts.futures(model, again, past, 2, 0)
    assert found.shape == (2, 1, 4, 1, 16, 16) and found.isfinite().all()
    scores = outcomes.evaluate(model, again, jobs.testing_clips(again))
    assert scores["clips"] == 2 and scores["crps"] > 0
    known = outcomes.known_of("0,-1", 6)
    clip = bouncing(1, 6, 16, generator=seeded(4))
    filled = parts.completions(model, again, clip, known, 0)
    assert torch.equal(filled[0][:, known], clip[:, known])
    bad = configs.changed(config, dict(size=18))
    assert "expected a multiple of 4" in complaint(parts.build, bad)


def test_a_class_and_its_guidance_are_told_by_the_sampler():
    "says = 1 for class 1, 0 for none: guided by 3 the noise said is 0 + 3 (1 - 0)."
    net = dict(kind="transformer", patch=2, width=16, depth=1, heads=2)
    few = dict(frames=4, steps=1, net=net, options=dict(p=0.2, learned=True, classes=2))
    config = configs.preset("vector", "tiny", data="sprites", **few)
    model, past = parts.method_of(config, 1, 16, range=None), torch.zeros(1, 2, 1, 16, 16)
    model.says = lambda x, t, kind=None: (
        torch.full_like(x, 0.0 if kind is None else float(kind)),
        x,
    )
    noise = []
    estimate = model.estimate
    model.estimate = lambda x_t, t, told: noise.append(float(told.mean())) or estimate(x_t, t, told)
    ask = lambda **how: configs.changed(config, {f"sampler.{k}": v for k, v in how.items()})
    for how, want in ((dict(asked=1, guidance=3), 3), (dict(asked=1), 1), ({}, 0)):
        noise.clear()
        parts.futures(model, ask(steps=1, kind="ddim", **how), past, 1, 0)
        assert noise and set(noise) == {want}, how
        assert model.asked is None and model.guidance == 1  # afterwards it is as before
    for how, name in (
        (dict(asked=2), "asked"),
        (dict(asked="disk"), "asked"),
        (dict(guidance=2), "guidance"),
    ):
        with pytest.raises(
            ValueError, match=f"^sampler.{name}: got {list(how.values())[0]!r}, expected"
        ):
            parts.futures(model, ask(**how), past, 1, 0)
    plain = configs.changed(config, {"options": dict(p=0.2)})
    with pytest.raises(ValueError, match="^sampler.asked: got 0, .*no options.classes"):
        told = configs.changed(plain, {"sampler.asked": 0})
        parts.futures(parts.method_of(plain, 1, 16), told, past, 1, 0)
