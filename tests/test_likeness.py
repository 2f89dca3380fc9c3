"""Pictures, features, networks and the protocol against code of their own."""

import math
import sys
import types
import warnings
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from vidiffedu.core import complaint, from_uint8, seeded
from vidiffedu.crps import crps, energy_score
from vidiffedu.likeness import (
    I3D,
    RandomFeatures,
    better,
    feature_distance,
    frechet_distance,
    judge_forecast,
    load_i3d,
    load_lpips,
    load_scripted,
    lpips_distance,
    psnr,
    ssim,
    video_features,
)


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def pixels(*shape, seed=0):
    return torch.rand(*shape, generator=seeded(seed)) * 2 - 1


# ---------------------------------------------------------------- picture against picture


def ssim_window_by_window(a, b, range):
    "One frame in one colour, numpy (h w): every 11 x 11 window by itself."
    i = np.arange(-5, 6)
    w = np.exp(-(i[:, None] ** 2 + i[None] ** 2) / (2 * 1.5**2))
    w /= w.sum()
    c1, c2, found = (0.01 * range) ** 2, (0.03 * range) ** 2, []
    views = [np.lib.stride_tricks.sliding_window_view(v, (11, 11)) for v in (a, b)]
    for p, q in zip(*(v.reshape(-1, 11, 11) for v in views)):
        mp, mq = (w * p).sum(), (w * q).sum()
        vp, vq = (w * (p - mp) ** 2).sum(), (w * (q - mq) ** 2).sum()
        cov = (w * (p - mp) * (q - mq)).sum()
        luminance = (2 * mp * mq + c1) / (mp**2 + mq**2 + c1)
        found.append(luminance * (2 * cov + c2) / (vp + vq + c2))
    return np.mean(found)


@pytest.mark.parametrize("range", [2.0, 1.0])
def test_ssim_window_by_window(range):
    x = draw(2, 3, 3, 13, 17).clamp(-1, 1)
    y = (0.7 * x + 0.2 * draw(2, 3, 3, 13, 17, seed=1)).clamp(-1, 1)
    got = ssim(x, y, range)
    assert got.shape == (2, 3)
    for b in (0, 1):
        for f in (0, 1, 2):
            pairs = zip(x[b, f].numpy(), y[b, f].numpy())
            want = np.mean([ssim_window_by_window(p, q, range) for p, q in pairs])
            assert abs(float(got[b, f]) - want) < 1e-10


def test_psnr_in_closed_form():
    x = pixels(2, 3, 3, 8, 8)
    flip = torch.where(pixels(2, 3, 3, 8, 8, seed=1) > 0, 0.1, -0.1)  # squared error .01
    assert_close(
        psnr(x, x + flip), torch.full((2, 3), 10 * math.log10(4 / 0.01)), rtol=1e-4, atol=0
    )
    grey = psnr(x / 2, (x + flip) / 2, range=1)  # half the range, half the error
    assert_close(grey, psnr(x, x + flip), rtol=1e-4, atol=0)
    assert psnr(x, x).isinf().all()
    half = x.bfloat16(), (x + flip).bfloat16()
    assert_close(psnr(*half), psnr(*(v.float() for v in half)))  # reckoned in float32


def test_psnr_and_ssim_are_scikit_images():
    metrics = pytest.importorskip("skimage.metrics")
    x, y = draw(24, 31).clamp(-1, 1), draw(24, 31, seed=1).mul(0.2).clamp(-1, 1)
    y = (0.7 * x + y).clamp(-1, 1)
    how = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=2)
    want = metrics.structural_similarity(x.numpy(), y.numpy(), **how)
    x, y = x[None, None, None], y[None, None, None]
    assert abs(float(ssim(x, y)) - want) < 1e-10


# ---------------------------------------------------------------- LPIPS


class StandIn(nn.Module):
    "What the package's network is to us: `.net` with a backbone's names, and a distance."

    def __init__(self, net, pnet_rand, verbose):
        super().__init__()
        assert pnet_rand and not verbose  # nothing is fetched
        self.net = nn.ModuleDict({"slice1": nn.ModuleDict({"0": nn.Conv2d(3, 4, 3)})})

    def forward(self, a, b):
        features = [self.net["slice1"]["0"](v) for v in (a, b)]
        return (features[0] - features[1]).square().mean((1, 2, 3), keepdim=True)


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=StandIn))


def test_the_lpips_backbone_comes_from_the_named_file(tmp_path, stand_in):
    weight, bias = torch.randn(4, 3, 3, 3, generator=seeded(0)), torch.arange(4.0)
    names = {"features.0.weight": weight, "features.0.bias": bias}  # torchvision's names
    torch.save(names | {"classifier.1.weight": torch.zeros(2)}, tmp_path / "alexnet.pth")
    model = load_lpips(tmp_path / "alexnet.pth")
    assert torch.equal(model.net["slice1"]["0"].weight, weight) and not model.training
    assert not any(p.requires_grad for p in model.parameters())
    x, y = pixels(2, 5, 1, 40, 32), pixels(2, 5, 1, 40, 32, seed=1)
    d = lpips_distance(x, y, model, chunk=3)
    flat = [v.expand(-1, -1, 3, -1, -1).flatten(0, 1) for v in (x, y)]  # grey is shown as colour
    want = F.conv2d(flat[0] - flat[1], weight).square().mean((1, 2, 3)).reshape(2, 5)
    assert_close(d, want)
    torch.save({"features.0.weight": weight}, tmp_path / "short.pth")
    assert "features.0.bias missing" in complaint(load_lpips, tmp_path / "short.pth")
    torch.save({"features.0.weight": weight[:2], "features.0.bias": bias}, tmp_path / "small.pth")
    assert "features.0.weight (2, 3, 3, 3)" in complaint(load_lpips, tmp_path / "small.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    assert "no plain weights" in complaint(load_lpips, tmp_path / "junk.pth")


def test_the_cache_is_looked_at_and_nothing_is_fetched(tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for net in ("alex", "vgg", "squeeze"):
        assert "download" in complaint(load_lpips, net=net)
    assert "net: got 'resnet'" in complaint(load_lpips, net="resnet")
    (tmp_path / "checkpoints").mkdir()
    weights = {"features.0.weight": torch.ones(4, 3, 3, 3), "features.0.bias": torch.zeros(4)}
    torch.save(weights, tmp_path / "checkpoints" / "vgg16-397923af.pth")
    assert float(load_lpips(net="vgg").net["slice1"]["0"].weight.min()) == 1
    assert "alexnet" in complaint(load_lpips)


@pytest.mark.parametrize("error", [RuntimeError, ImportError], ids=lambda e: e.__name__)
def test_a_package_that_does_not_import_says_what_to_install(tmp_path, monkeypatch, error):
    text = "operator torchvision::nms does not exist\nand more"
    (tmp_path / "lpips.py").write_text(f"raise {error.__name__}({text!r})")
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    said = complaint(load_lpips, pnet_rand=True)
    assert "pip install lpips" in said and "download.pytorch.org/whl/cpu" in said
    assert "lpips" not in sys.modules and not any("nms" in name for name in sys.modules)


def test_the_real_package_on_a_random_backbone(tmp_path):
    try:
        model = load_lpips(pnet_rand=True)
    except ImportError as error:
        pytest.skip(str(error))
    weights = {"features." + k.split(".", 1)[1]: v for k, v in model.net.state_dict().items()}
    torch.save(weights, tmp_path / "alexnet.pth")
    x, y = pixels(2, 2, 1, 64, 64), pixels(2, 2, 1, 64, 64, seed=1)
    d = lpips_distance(x, y, model)
    assert_close(lpips_distance(x, y, load_lpips(tmp_path / "alexnet.pth")), d)
    assert (lpips_distance(x, y, load_lpips(pnet_rand=True)) - d).abs().max() > 1e-4
    assert lpips_distance(x, x, model).abs().max() < 1e-6


# ---------------------------------------------------------------- distances between crowds


def law(d, rank, seed):
    A = draw(d, rank, seed=seed)
    return draw(d, seed=seed + 1), A @ A.T / max(1, rank)


def root(c):
    values, vectors = torch.linalg.eigh(c)
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T


@pytest.mark.parametrize("ranks", [(30, 30), (30, 5), (5, 30), (5, 7), (30, 0), (0, 0)])
def test_frechet_distance_of_any_covariances(ranks):
    d = 30
    (m1, c1), (m2, c2) = (law(d, r, 2 * k) for k, r in enumerate(ranks))
    overlap = torch.linalg.svdvals(root(c1) @ root(c2)).sum()  # symmetric roots: another way
    want = float(((m1 - m2) ** 2).sum() + c1.trace() + c2.trace() - 2 * overlap)
    got, scale = frechet_distance(m1, c1, m2, c2), max(1, want)
    assert abs(got - want) < 1e-6 * scale
    assert abs(got - frechet_distance(m2, c2, m1, c1)) < 1e-8 * scale
    assert frechet_distance(m1, c1, m1, c1) < 1e-6 * max(1e-9, float(c1.trace()))
    Q = torch.linalg.qr(draw(d, d, seed=20)).Q
    turned = frechet_distance(3 * Q @ m1, 9 * Q @ c1 @ Q.T, 3 * Q @ m2, 9 * Q @ c2 @ Q.T)
    assert abs(turned - 9 * got) < 1e-6 * 9 * scale
    rounded = [v.float().numpy() for v in (m1, c1, m2, c2)]
    assert abs(frechet_distance(*rounded) - got) < 1e-2 * scale


def test_frechet_distance_through_a_matrix_square_root():
    linalg = pytest.importorskip("scipy.linalg")
    (m1, c1), (m2, c2) = law(60, 90, 0), law(60, 90, 2)
    overlap = np.trace(linalg.sqrtm((c1 @ c2).numpy()).real)
    want = ((m1 - m2) ** 2).sum() + (c1 + c2).trace() - 2 * overlap
    assert abs(frechet_distance(m1, c1, m2, c2) / float(want) - 1) < 1e-8


def test_feature_distance_by_hand():
    real, fake = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    with warnings.catch_warnings():  # 2 clips, 1 feature: enough
        warnings.simplefilter("error")
        got = feature_distance(real, fake)
    assert abs(got - ((3 - 1) ** 2 + (8**0.5 - 2**0.5) ** 2)) < 1e-9  # variances 2 and 8


def test_few_clips_are_a_warning_and_enough_are_not():
    with pytest.warns(UserWarning, match="fake: 16 clips for 16 features"):
        feature_distance(draw(40, 16), draw(16, 16, seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        feature_distance(draw(40, 16), draw(17, 16, seed=1))
        assert feature_distance(draw(40, 1), draw(40, 1)) < 1e-12


def test_random_features_layer_by_layer():
    net, clips = RandomFeatures(channels=2, dim=8), pixels(3, 5, 2, 12, 10)
    x = clips.transpose(1, 2)
    for weight, stride in zip(net.weights, ((1, 2, 2), (2, 2, 2), (1, 2, 2))):
        padded = F.pad(x, (1,) * 6)
        for axis, step in zip((2, 3, 4), stride):
            padded = padded.unfold(axis, 3, step)
        x = torch.einsum("bcfhwijk,ocijk->bofhw", padded, weight)
        x = torch.where(x > 0, x, 0.2 * x)
    mean = x.mean((2, 3, 4))
    spread = (x - mean[..., None, None, None]).square().mean((2, 3, 4)).sqrt()
    assert_close(net(clips), torch.cat([mean, spread], 1), rtol=1e-4, atol=1e-5)


def test_features_do_not_depend_on_the_portion():
    clips, net = pixels(5, 4, 1, 16, 16), RandomFeatures(dim=8)
    assert_close(video_features(clips, net, chunk=2), video_features(clips, net))
    same = video_features(clips, RandomFeatures(dim=8))  # the same network every time
    assert_close(same, video_features(clips, net))
    state = torch.random.get_rng_state()
    RandomFeatures()
    assert torch.equal(torch.random.get_rng_state(), state)  # and nobody's dice are touched
    own = video_features(clips.double(), lambda x: x.flatten(1).mean(1, keepdim=True))
    assert own.dtype == torch.float32 and own.shape == (5, 1)


# ---------------------------------------------------------------- I3D, a second time

GOOGLENET = """
3b  64  96 128 16  32  32
3c 128 128 192 32  96  64
4b 192  96 208 16  48  64
4c 160 112 224 24  64  64
4d 128 128 256 24  64  64
4e 112 144 288 32  64  64
4f 256 160 320 32 128 128
5b 256 160 320 32 128 128
5c 384 192 384 48 128 128
"""  # 1x1, 3x3 reduce, 3x3, "5x5" reduce, "5x5", pool proj [szegedy2015, table 1]


def pad_same(x, kernel, strides, value=0.0):
    "TensorFlow's rule, from its documentation."
    pads = []
    for n, k, s in zip(x.shape[2:], kernel, strides):
        total = max((math.ceil(n / s) - 1) * s + k - n, 0)
        pads = [total // 2, total - total // 2] + pads
    return F.pad(x, pads, value=value)


class Reference:
    "The network from the table and pytorch-i3d's names, on plain tensors."

    def __init__(self, weights):
        self.w = {k.removeprefix("layers."): v for k, v in weights.items()}

    def unit(self, x, name, k, s=1):
        x = F.conv3d(pad_same(x, (k,) * 3, (s,) * 3), self.w[f"{name}.conv3d.weight"], stride=s)
        part = lambda end: self.w[f"{name}.bn.{end}"].reshape(-1, 1, 1, 1)
        x = (x - part("running_mean")) / (part("running_var") + 0.001).sqrt()
        return (x * part("weight") + part("bias")).clamp_min(0)

    def pool(self, x, kernel, strides):
        x = pad_same(x, kernel, strides, -math.inf)
        for axis, (k, s) in enumerate(zip(kernel, strides), 2):
            x = x.unfold(axis, k, s).amax(-1)
        return x

    def mixed(self, x, name):
        a = self.unit(x, f"{name}.b0", 1)
        b = self.unit(self.unit(x, f"{name}.b1a", 1), f"{name}.b1b", 3)
        c = self.unit(self.unit(x, f"{name}.b2a", 1), f"{name}.b2b", 3)
        d = self.unit(self.pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.b3b", 1)
        return torch.cat((a, b, c, d), 1)

    def __call__(self, x):
        x = self.unit(x, "Conv3d_1a_7x7", 7, 2)
        x = self.pool(x, (1, 3, 3), (1, 2, 2))
        x = self.unit(self.unit(x, "Conv3d_2b_1x1", 1), "Conv3d_2c_3x3", 3)
        x = self.pool(x, (1, 3, 3), (1, 2, 2))
        x = self.mixed(self.mixed(x, "Mixed_3b"), "Mixed_3c")
        x = self.pool(x, (3, 3, 3), (2, 2, 2))
        for letter in "bcdef":
            x = self.mixed(x, f"Mixed_4{letter}")
        x = self.pool(x, (2, 2, 2), (2, 2, 2))
        return self.mixed(self.mixed(x, "Mixed_5b"), "Mixed_5c")


@pytest.fixture(scope="module")
def i3d():
    "The network with weights, means and variances that all matter."
    torch.manual_seed(0)
    model, g = I3D().eval(), seeded(1)
    for m in model.modules():
        if isinstance(m, nn.Conv3d):
            nn.init.kaiming_normal_(m.weight, generator=g)
        if isinstance(m, nn.BatchNorm3d):
            m.running_mean.normal_(0, 0.2, generator=g)
            m.running_var.uniform_(0.01, 1.5, generator=g)
            m.weight.data.uniform_(0.5, 1, generator=g)
            m.bias.data.normal_(0, 0.2, generator=g)
    return model.requires_grad_(False)


@pytest.mark.parametrize("size", [(17, 45, 64), (10, 40, 33)])
def test_i3d_layer_by_layer(i3d, size):
    x = pixels(1, 3, *size)
    got, want = i3d.layers(x), Reference(i3d.state_dict())(x)
    assert (
        got.shape == want.shape == (1, 1024, *(math.ceil(n / s) for n, s in zip(size, (8, 32, 32))))
    )
    assert_close(got, want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))


def test_i3d_has_the_published_widths(i3d):
    w = {k.removeprefix("layers."): tuple(v.shape) for k, v in i3d.state_dict().items()}
    for row in GOOGLENET.split("\n")[1:-1]:
        name, *widths = row.split()
        ends = ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")
        for end, width, k in zip(ends, map(int, widths), (1, 1, 3, 1, 3, 1)):
            shape = w[f"Mixed_{name}.{end}.conv3d.weight"]
            assert (shape[0], *shape[2:]) == (width, k, k, k)
    assert w["Conv3d_1a_7x7.conv3d.weight"] == (64, 3, 7, 7, 7)
    assert w["logits.conv3d.weight"] == (400, 1024, 1, 1, 1) and w["logits.conv3d.bias"] == (400,)


class Watched(nn.Module):
    "In the place of the layers: keeps what comes, gives what is asked for."

    def __init__(self, gives):
        super().__init__()
        self.gives = gives

    def forward(self, x):
        self.came = x
        return self.gives


def test_i3d_before_and_after_its_layers(i3d):
    inner = Watched(draw(2, 1024, 4, 7, 7, dtype=torch.float32))
    clips = pixels(2, 9, 1, 112, 448)
    with mock.patch.dict(i3d._modules, layers=inner):
        logits = i3d(clips)
    # 112 rows become 224: each new row is 3/4 of the nearest and 1/4 of the next; 448 columns
    # become 224: the mean of two neighbours, which are at equal distance
    rows = clips[:, :, 0]
    up = (
        0.75 * rows[:, :, 1:-1] + 0.25 * rows[:, :, :-2],
        0.75 * rows[:, :, 1:-1] + 0.25 * rows[:, :, 2:],
    )
    want = torch.stack(up, 3).flatten(2, 3).unflatten(-1, (224, 2)).mean(-1)
    assert inner.came.shape == (2, 3, 9, 224, 224)
    for colour in range(3):  # grey is shown as colour
        assert_close(inner.came[:, colour, :, 2:-2], want)
    # windows of 2 x 7 x 7, one linear layer, the mean over time: 1, 2, 2, 1 of 6 weigh the frames
    weigh = torch.tensor([1.0, 2.0, 2.0, 1.0]) / 6
    pooled = torch.einsum("bcfhw,f->bc", inner.gives, weigh) / 49
    head = i3d.logits["conv3d"]
    assert_close(logits, pooled @ head.weight.flatten(1).T + head.bias, rtol=1e-4, atol=1e-5)
    for bad in (clips[:, :8], clips.expand(-1, -1, 2, -1, -1)):
        assert "clips: got" in complaint(i3d, bad)


def plain_names(model):
    return {k.removeprefix("layers."): v for k, v in model.state_dict().items()}


class Runs:
    "A pickle of it makes a file when it is loaded as a program."

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def test_i3d_reads_plain_weights_and_nothing_else(i3d, tmp_path):
    from safetensors.torch import save_file

    weights = plain_names(i3d)
    torch.save(weights, tmp_path / "i3d.pt")
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "i3d.safetensors")
    for name in ("i3d.pt", "i3d.safetensors"):
        loaded = load_i3d(tmp_path / name)
        same = loaded.state_dict()
        kept = {k: v for k, v in i3d.state_dict().items() if "num_batches" not in k}
        assert all(torch.equal(v, same[k]) for k, v in kept.items()) and not loaded.training
    lost = "Mixed_4b.b1a.bn.running_mean"
    torch.save({k: v for k, v in weights.items() if k != lost}, tmp_path / "short.pt")
    assert f"{lost} missing" in complaint(load_i3d, tmp_path / "short.pt")
    torch.save(weights | {lost: torch.zeros(3)}, tmp_path / "other.pt")
    assert f"{lost} (3,)" in complaint(load_i3d, tmp_path / "other.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    assert "TorchScript" in complaint(load_i3d, tmp_path / "script.pt")
    marker = tmp_path / "ran"
    torch.save(Runs(marker), tmp_path / "pickled.pt")
    assert "plain weights" in complaint(load_i3d, tmp_path / "pickled.pt") and not marker.exists()
    (tmp_path / "junk.pt").write_bytes(b"junk")
    assert "plain weights" in complaint(load_i3d, tmp_path / "junk.pt")
    assert "no file" in complaint(load_i3d, tmp_path / "absent.pt")


# ---------------------------------------------------------------- the protocol


def test_the_ten_trajectory_protocol_by_hand():
    target, samples = pixels(5, 4, 1, 16, 16), pixels(3, 5, 4, 1, 16, 16, seed=1)
    past, net = pixels(5, 2, 1, 16, 16, seed=2), RandomFeatures(dim=4)
    found = judge_forecast(samples, target, past=past, net=net)
    for name, mark in (("psnr", psnr), ("ssim", ssim)):
        marks = [[float(mark(x[[b]], target[[b]]).mean()) for x in samples] for b in range(5)]
        assert found[name + "_mean"] == pytest.approx(np.mean(marks), abs=1e-4)
        best = np.mean([max(row) for row in marks])  # clip by clip
        assert found[name + "_best"] == pytest.approx(best, abs=1e-4)
        assert best > max(np.mean(marks, 0)) + 1e-3  # not the best trajectory of all clips
    real = video_features(torch.cat([past, target], 1), net)
    fake = [video_features(torch.cat([past, x], 1), net) for x in samples]
    each = [feature_distance(real, f) for f in fake]
    assert found["frechet_each"] == pytest.approx(np.mean(each), rel=1e-5)
    assert found["frechet_each_std"] == pytest.approx(np.std(each), rel=1e-4)
    pooled = feature_distance(real, torch.cat(fake))
    assert found["frechet_pooled"] == pytest.approx(pooled, rel=1e-6)
    assert not any("frechet" in k for k in judge_forecast(samples, target))


def test_scores_of_the_whole_ensemble_and_their_units():
    bytes_ = torch.randint(0, 256, (4, 3, 2, 1, 12, 12), generator=seeded(0)).to(torch.uint8)
    truth = torch.randint(0, 256, (3, 2, 1, 12, 12), generator=seeded(1)).to(torch.uint8)
    samples, target = from_uint8(bytes_), from_uint8(truth)
    found = judge_forecast(samples, target)
    levels = float(crps(bytes_, truth, fair=True).mean())  # in grey levels from the start
    assert found["crps_bytes"] == pytest.approx(levels, rel=1e-4)
    assert found["crps"] == pytest.approx(levels / 127.5, rel=1e-4)
    energy = float(energy_score(samples, target, fair=True).mean())
    assert found["energy"] == pytest.approx(energy)
    one = judge_forecast(samples[:1], target)  # one future: distances from the truth
    assert one["crps"] == pytest.approx(float((samples[0] - target).abs().mean()), rel=1e-5)
    norms = (samples[0] - target).flatten(1).norm(dim=1)
    assert one["energy"] == pytest.approx(float(norms.mean()), rel=1e-5)


def test_a_score_of_ones_own_takes_part():
    def furthest(samples, target):  # (b,)
        return (samples - target).abs().amax((0, 2, 3, 4, 5))

    samples, target = pixels(4, 3, 2, 1, 12, 12), pixels(3, 2, 1, 12, 12, seed=1)
    found = judge_forecast(samples, target, furthest=furthest)
    assert found["furthest"] == pytest.approx(float(furthest(samples, target).mean()))


def test_of_a_distance_the_least_is_the_best(stand_in):
    target, samples = pixels(2, 2, 1, 32, 32), pixels(3, 2, 2, 1, 32, 32, seed=1)
    model = load_lpips(pnet_rand=True)
    found = judge_forecast(samples, target, lpips=model)
    marks = torch.stack([lpips_distance(x, target, model).mean(1) for x in samples])  # (s b)
    assert found["lpips_best"] == pytest.approx(float(marks.amin(0).mean()), rel=1e-5)
    assert found["lpips_best"] < found["lpips_mean"]
    first = [k.split("_")[0] for k in found]
    assert set(first) <= set(better)  # every score says which way is better
    perfect = judge_forecast(target[None] + 1e-3, target, lpips=model)
    for k in ("crps", "energy", "psnr_mean", "ssim_mean", "lpips_mean"):
        low, high = sorted((perfect[k], found[k]))
        assert better[k.split("_")[0]](low, high) == perfect[k]


def test_pixels_of_another_range_are_noticed():
    x = pixels(2, 3, 1, 16, 16)
    s = (x + 0.1 * torch.randn(3, *x.shape, generator=seeded(0))).clamp(-1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judge_forecast(s * 1.5, x)  # a forecast may leave the range
    with pytest.warns(UserWarning, match="another scale"):
        judge_forecast((s + 1) / 2, (x + 1) / 2)
    said = complaint(judge_forecast, (s + 1) * 127.5, (x + 1) * 127.5)
    assert said.startswith("target: got values in") and "expected [-1, 1]" in said


class Absolute(nn.Module):
    "In place of LPIPS's network: mean absolute differences of frames."

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x, y):
        return self.one * (x - y).abs().mean((1, 2, 3), keepdim=True)


def test_pixels_far_from_the_stated_range_are_refused():
    "Bytes that are scored as [-1, 1], alone or beside clips in [-1, 1]; a forecast may leave it."
    x, y = pixels(2, 3, 1, 32, 32), pixels(2, 3, 1, 32, 32, seed=1)
    as_bytes, net, model = lambda v: (v + 1) * 127.5, RandomFeatures(dim=2), Absolute()
    for mark in (psnr, ssim, lambda a, b: lpips_distance(a, b, model)):
        for pair in ((as_bytes(x), as_bytes(y)), (as_bytes(x), y), (x, as_bytes(y))):
            assert "expected about 2 from darkest to brightest" in complaint(mark, *pair)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mark(1.9 * x, y)
        with pytest.warns(UserWarning, match="another scale"):
            mark((x + 1) / 2, (y + 1) / 2)
    with warnings.catch_warnings():  # the scale does not matter if it is said
        warnings.simplefilter("error")
        assert_close(psnr(as_bytes(x), as_bytes(y), range=255), psnr(x, y), rtol=1e-4, atol=1e-5)
        grey = ssim((x + 1) / 2, (y + 1) / 2, 1)
        assert_close(ssim(as_bytes(x), as_bytes(y), 255), grey, rtol=1e-4, atol=1e-5)
    assert "expected about 1 from" in complaint(psnr, as_bytes(x), as_bytes(y), range=1.0)
    for features in (net, lambda v: video_features(v, net)):
        assert "clips: got values in [" in complaint(features, as_bytes(x))
        features(1.9 * x)


def test_one_line_says_what_is_wrong():
    x, s, net = pixels(3, 4, 1, 16, 16), pixels(2, 3, 4, 1, 16, 16, seed=1), RandomFeatures(dim=2)
    for mark in (psnr, ssim):
        assert "y: got shape" in complaint(mark, x, x[:1])  # nothing is broadcast
        assert "y: got NaN" in complaint(mark, x, x * math.nan)
        for bad in (0, -2, math.nan):
            assert "range: got" in complaint(mark, x, x, range=bad)
    assert "x: got frames of 10 x 16" in complaint(ssim, x[..., :10, :], x[..., :10, :])
    assert "x: got 1 channels of 16 x 16" in complaint(lpips_distance, x, x)
    for bad in (s[0], s[:, :2], s[:0], s.numpy(), None):
        assert "samples: got" in complaint(judge_forecast, bad, x)
    assert "samples: got NaN" in complaint(judge_forecast, s * math.nan, x)
    assert "past: got shape" in complaint(judge_forecast, s, x, past=x[:2], net=net)
    for name in ("chunk",):
        for bad in (0, 1.0, True):
            assert f"{name}: got" in complaint(video_features, x, net, chunk=bad)
    assert "net: got features of shape" in complaint(video_features, x, lambda x: x)
    assert "clips: got 3 channels" in complaint(net, x.expand(-1, -1, 3, -1, -1))
    for bad in (0, 7, 2.0):
        assert "dim: got" in complaint(RandomFeatures, dim=bad)
    f = draw(9, 2)
    assert "fake: got shape" in complaint(feature_distance, f, f[:, :1])
    assert "real: got shape" in complaint(feature_distance, f[:1], f)
    assert "fake: got NaN" in complaint(feature_distance, f, f * math.nan)
    eye, lop = torch.eye(3), torch.tensor([[1.0, 0.5], [0.0, 1.0]])
    m = torch.zeros(4)
    assert "cov1: got eigenvalue" in complaint(frechet_distance, m[:3], eye - 2, m[:3], eye)
    assert "symmetric" in complaint(frechet_distance, m[:2], lop, m[:2], lop)
    assert "cov1: got shape" in complaint(frechet_distance, m, eye, m, eye)
    assert "mu2: got shape" in complaint(frechet_distance, m[:3], eye, m[:2], eye[:2, :2])
    assert "cov2: got NaN" in complaint(frechet_distance, m[:3], eye, m[:3], eye * math.nan)


# ---------------------------------------------------------------- programs, on one's word only


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    "A TorchScript file of FVD's kind of call; it leaves a mark where it is loaded."
    folder = tmp_path_factory.mktemp("scripted")
    mark = folder / "mark.pt"

    class Blank(nn.Module):  # of its own: a scripted class takes a method once
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.jit.script(Blank())
        program.define(f"""
def __getstate__(self) -> bool:
    return self.training
def __setstate__(self, state: bool) -> None:
    self.training = state
    torch.save(torch.ones(1), "{mark.as_posix()}")
def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
    flags = 4.0 * float(rescale) + 2.0 * float(resize) + float(return_features)
    return torch.cat([x.flatten(1), torch.full((x.size(0), 1), flags)], 1)
""")
        program.save(str(folder / "network.pt"))
    return folder / "network.pt", mark


def test_a_program_is_loaded_on_ones_word_only(scripted, tmp_path):
    file, mark = scripted
    for trust in (False, None, 1, "yes"):
        said = complaint(load_scripted, file, trust=trust)
        assert "expected trust=True" in said and "program" in said and not mark.exists()
    assert "TorchScript" in complaint(load_i3d, file) and not mark.exists()
    assert "no file" in complaint(load_scripted, tmp_path / "absent.pt", trust=True)
    torch.save({"w": torch.ones(2)}, tmp_path / "weights.pt")
    assert "no TorchScript" in complaint(load_scripted, tmp_path / "weights.pt", trust=True)
    (tmp_path / "junk.pt").write_bytes(b"junk")
    assert "no TorchScript" in complaint(load_scripted, tmp_path / "junk.pt", trust=True)
    assert "size: got 0" in complaint(load_scripted, file, trust=True, size=0)
    load_scripted(file, trust=True)
    assert mark.exists()  # so the refusals above were worth something


def test_a_program_is_shown_colour_at_its_size_and_called_as_fvd_does(scripted):
    file, _ = scripted
    net = load_scripted(file, trust=True, size=6)
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    clips = pixels(2, 3, 1, 12, 12)  # 12 -> 6: the mean of two neighbours, along both axes
    found = video_features(clips, net)
    small = F.avg_pool2d(clips.flatten(0, 1), 2).reshape(2, 1, 3, 6, 6)
    assert_close(found[:, :-1], small.expand(-1, 3, -1, -1, -1).flatten(1))
    assert (found[:, -1] == 1).all()  # not rescaled, not resized, features
    how = dict(rescale=True, resize=True, return_features=False)
    assert (load_scripted(file, trust=True, size=6, how=how)(clips)[:, -1] == 6).all()
    colour = pixels(2, 3, 3, 12, 12, seed=1)
    first = video_features(colour, net)[:, : 3 * 36].reshape(2, 3, 6, 6)
    assert_close(first, F.avg_pool2d(colour[:, :, 0], 2))  # channels before frames
    assert "clips: got 2 channels" in complaint(net, clips.expand(-1, -1, 2, -1, -1))


# ---------------------------------------------------------------- arrays as people have them


def test_laws_of_every_kind_of_numbers():
    (m1, c1), (m2, c2) = (law(4, 4, 2 * k) for k in range(2))
    want, plain = frechet_distance(m1, c1, m2, c2), [v.numpy() for v in (m1, c1, m2, c2)]
    for kind in (">f8", np.longdouble, np.dtype(np.longdouble).newbyteorder(">")):
        assert frechet_distance(*(v.astype(kind) for v in plain)) == pytest.approx(want, rel=1e-12)
    assert frechet_distance(*(v.tolist() for v in plain)) == pytest.approx(want, rel=1e-12)
    assert frechet_distance(*(v[::-1][::-1] for v in plain)) == pytest.approx(want, rel=1e-12)
    turned = m1.numpy()[::-1], c1.numpy()[::-1, ::-1]  # negative strides
    turned = [*turned, m2.numpy()[::-1], c2.numpy()[::-1, ::-1]]
    assert frechet_distance(*turned) == pytest.approx(want, rel=1e-9)
    assert frechet_distance([0, 0], [[1, 0], [0, 4]], [3, 0], [[4, 0], [0, 4]]) == 9 + 1
    hidden = np.ma.masked_equal(np.zeros(4), 0)
    assert "mu1: got a masked array" in complaint(frechet_distance, hidden, *plain[1:])
    assert "cov2: got a masked" in complaint(
        frechet_distance, *plain[:3], np.ma.masked_less(plain[3], 9)
    )
    for bad in ("0", None, [[1.0], 2.0], plain[0].astype(complex), m1 + 0j, np.array(["0"] * 4)):
        said = complaint(frechet_distance, bad, *plain[1:])
        assert "mu1: got" in said and "real numbers" in said


def test_features_from_numpy_are_features():
    real, fake = draw(30, 3), draw(40, 3, seed=1)
    want = feature_distance(real, fake)
    assert feature_distance(real.numpy(), fake.numpy().astype(">f8")) == pytest.approx(want)
    hidden = np.ma.masked_less(fake.numpy(), 0)
    assert "fake: got a masked array" in complaint(feature_distance, real, hidden)
    assert "real: got a" in complaint(feature_distance, real + 0j, fake)
    assert "net: got a str" in complaint(video_features, pixels(1, 2, 1, 8, 8), "i3d.pt")
    grey = pixels(1, 2, 1, 32, 32)
    assert "model: got a str" in complaint(lpips_distance, grey, grey, "alex")


def test_pictures_come_as_floating_tensors():
    x = pixels(1, 2, 1, 16, 16)
    for mark in (psnr, ssim):
        for bad in (x.numpy(), np.ma.masked_less(x.numpy(), 0), x.long(), x + 0j, None):
            assert "x: got" in complaint(mark, bad, x)
            assert "y: got" in complaint(mark, x, bad)
        for bad in (True, "2", None, math.inf, (-1, 1)):
            assert "range: got" in complaint(mark, x, x / 2, range=bad)
        assert_close(mark(x, x / 2, range=np.float32(2)), mark(x, x / 2))


def test_ssim_is_at_most_one_in_float32():
    for level, scale in ((0.0, 1.0), (0.5, 0.5), (0.9, 0.002)):
        x = level + scale * pixels(64, 8, 1, 11, 11, seed=3)  # rounding is plain in one window
        assert float(ssim(x, x).max()) <= 1 and float(ssim(x, x).min()) > 1 - 1e-4


@pytest.mark.parametrize("s", [1, 2, 5])
def test_plain_crps_stands_beside_the_fair_one(s):
    target, samples = pixels(3, 2, 1, 12, 12), pixels(s, 3, 2, 1, 12, 12, seed=1)
    found = judge_forecast(samples, target)
    assert found["crps_plain"] == pytest.approx(float(crps(samples, target).mean()), rel=1e-5)
    assert found["crps"] == pytest.approx(float(crps(samples, target, fair=s > 1).mean()), rel=1e-5)


def test_a_score_of_ones_own_has_a_name_of_its_own():
    target, samples = pixels(3, 2, 1, 12, 12), pixels(2, 3, 2, 1, 12, 12, seed=1)
    for name in ("crps", "crps_plain", "energy", "psnr", "frechet"):
        assert f"{name}: got a score" in complaint(
            judge_forecast, samples, target, **{name: lambda s, x: torch.zeros(3)}
        )
    found = judge_forecast(samples, target, five=lambda s, x: np.full(3, 5), six=lambda s, x: 6)
    assert found["five"] == 5 and found["six"] == 6
