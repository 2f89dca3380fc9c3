"""Chapter 6 across its cells: the scores against their definitions, other implementations, and the symmetries that they must have."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vidiffedu.core import complaint, seeded
from vidiffedu.crps import (
    I3D,
    RandomFeatures,
    _portions,
    _same,
    crps,
    crps_gaussian,
    feature_distance,
    frechet_distance,
    judge_forecast,
    load_i3d,
    load_lpips,
    lpips_distance,
    psnr,
    rank_histogram,
    spread_skill,
    ssim,
    video_features,
)
from vidiffedu.masks import _fair_crps


def draw(*shape, dtype=torch.float64, seed=0):
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, generator=seeded(seed)).to(dtype)
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def definition(samples, target):
    "The integral of (F - step)², exactly: both are constant between neighbouring values. samples (s n), target (n), float64."
    values = torch.cat([samples, target[None]]).sort(0).values
    F_hat = (samples[:, None] <= values[:-1]).double().mean(0)
    return ((F_hat - (target <= values[:-1]).double()) ** 2 * values.diff(dim=0)).sum(0)


# ---------------------------------------------------------------- CRPS


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
@pytest.mark.parametrize("s", [1, 2, 3, 7, 100, 257, 300])
def test_crps_is_the_integral(s, dtype):
    X, x = draw(s, 50, dtype=dtype), draw(50, dtype=dtype, seed=1)
    got, want = crps(X, x), definition(X.double(), x.double())
    assert got.dtype == torch.promote_types(dtype, torch.float32)
    if dtype == torch.uint8:
        assert torch.equal(
            got, want.mul(s * s).round().div(s * s).float()
        )  # a whole number over s², rounded once
    else:
        assert_close(got.double(), want, rtol=0, atol=1e-12 if dtype == torch.float64 else 2e-6)


def test_bytes_are_exact_where_float32_would_not_be():
    X = 255 * draw(601, 40, dtype=torch.uint8).div(128, rounding_mode="floor")  # black and white
    x = torch.ones(40, dtype=torch.uint8)
    white = (X == 255).sum(0)
    assert torch.equal(
        crps(X, x), ((601 - white) ** 2 + 254 * white**2).double().div(601**2).float()
    )  # (1) by hand: F is constant from 0 to 255
    assert (254 * white**2).max() > 2**24


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize(
    "shape, dim",
    [
        ((4, 300_000), 0),
        ((300_000, 4), 1),
        ((500, 4, 600), 1),
        ((2, 3, 4, 50_000), -2),
        ((3, 2, 5, 1), 2),
    ],
)
@pytest.mark.parametrize("fair", [False, True])
def test_any_axis_in_any_portion_and_either_library(shape, dim, dtype, fair):
    X = draw(*shape, dtype=dtype)
    x = draw(*(n for i, n in enumerate(shape) if i != dim % len(shape)), dtype=dtype, seed=1)
    first, s = X.movedim(dim, 0).double(), shape[dim]
    want = (first - x.double()).abs().mean(0) - (first[:, None] - first).abs().sum((0, 1)) / (
        2 * s * (s - fair)
    )
    got = crps(X, x, dim=dim, fair=fair)
    assert_close(got.double(), want, rtol=0, atol=2e-5 if dtype == torch.uint8 else 1e-6)
    through_numpy = crps(X.numpy(), x.numpy(), dim=dim, fair=fair)
    assert isinstance(through_numpy, np.ndarray) and np.array_equal(through_numpy, got.numpy())
    backwards = crps(X.numpy()[::-1], x.numpy()[::-1], dim=dim, fair=fair)  # negative strides
    if dim % len(shape) != 0:
        assert np.array_equal(backwards, through_numpy[::-1])


def test_portions_are_small_and_cover_everything():
    for shape in ((1, 100, 200_000), (70_000, 100, 3), (5, 10**6, 2), (1, 1, 1)):
        x, y = torch.empty(()).expand(shape), torch.empty(()).expand(shape[0], shape[2])
        parts = [members.shape for members, _ in _portions(x, y)]
        assert sum(n for _, n in parts) == y.numel()
        assert all(s * n <= max(2**19, s) for s, n in parts)


def test_members_have_no_order_and_the_unit_is_the_pixels():
    X, x = draw(20, 400), draw(400, seed=1)
    mixed = X[torch.randperm(20, generator=seeded(2))]
    assert_close(crps(mixed, x), crps(X, x), rtol=0, atol=1e-14)
    assert_close(
        crps(-3 * X + 5, -3 * x + 5, fair=True), 3 * crps(X, x, fair=True), rtol=0, atol=1e-13
    )
    X8, x8 = draw(20, 400, dtype=torch.uint8), draw(400, dtype=torch.uint8, seed=1)
    assert torch.equal(crps(X8.flip(0), x8), crps(X8, x8))
    assert torch.equal(crps(255 - X8, 255 - x8), crps(X8, x8))


def test_what_is_given_is_left_alone():
    for dtype in (torch.uint8, torch.float32):
        for shape in ((1, 9), (9, 1), (9, 30)):
            X, x = draw(*shape, dtype=dtype), draw(shape[1], dtype=dtype, seed=1)
            before = X.clone(), x.clone()
            crps(X, x)
            rank_histogram(X, x)
            assert torch.equal(X, before[0]) and torch.equal(x, before[1])


@pytest.mark.parametrize("fair", [False, True])
def test_gradients(fair):
    X, x = draw(5, 6).requires_grad_(), draw(6, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda X, x: crps(X, x, fair=fair), (X, x))
    mu, sigma = draw(6, seed=2).requires_grad_(), draw(6, seed=3).abs().add(0.1).requires_grad_()
    score = crps_gaussian(mu, sigma, x)
    slopes = torch.autograd.grad(score.sum(), (mu, sigma))
    z = ((x - mu) / sigma).detach()
    assert_close(slopes[0], 1 - 2 * torch.special.ndtr(z))
    assert_close(slopes[1], 2 * torch.exp(-(z**2) / 2) / (2 * math.pi) ** 0.5 - math.pi**-0.5)


def test_it_agrees_with_chapter_4():
    X, x = draw(8, 3, 4, 1, 6, 6), draw(3, 4, 1, 6, 6, seed=1)
    assert_close(crps(X, x, fair=True), _fair_crps(X, x))


def test_a_large_normal_ensemble_approaches_the_closed_form():
    s = 200_000
    quantiles = torch.special.ndtri((torch.arange(s, dtype=torch.float64) + 0.5) / s)
    for x in (-2.0, 0.0, 0.7):
        got = crps(0.3 + 2 * quantiles[:, None], torch.tensor([x], dtype=torch.float64))
        assert abs(float(got) - float(crps_gaussian(0.3, 2.0, x))) < 1e-4
    assert (
        abs(float(crps_gaussian(0.0, 1e-300, 2.0)) - 2) < 1e-12
        and float(crps_gaussian(1.0, 0.0, 1.0)) < 1e-300
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_a_gpu_agrees(dtype):
    X, x = draw(20, 3, 5000, dtype=dtype), draw(3, 5000, dtype=dtype, seed=1)
    got = crps(X.cuda(), x.cuda(), fair=True)
    assert got.is_cuda
    assert_close(got.cpu(), crps(X, x, fair=True), rtol=1e-5, atol=1e-5)
    assert_close(rank_histogram(X.cuda(), x.cuda()).cpu(), rank_histogram(X, x))


# ---------------------------------------------------------------- calibration


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
def test_ranks_one_by_one(dtype):
    X, x = draw(6, 4, 40, dtype=dtype), draw(4, 40, dtype=dtype, seed=1)
    if dtype == torch.uint8:
        X, x = X // 50, x // 50  # many ties
    want = np.zeros(7)
    for members, came in zip(X.reshape(6, -1).T.tolist(), x.flatten().tolist()):
        below, ties = sum(m < came for m in members), sum(m == came for m in members)
        want[below : below + ties + 1] += 1 / (ties + 1)
    assert_close(rank_histogram(X, x), torch.from_numpy(want))
    assert np.allclose(rank_histogram(X.movedim(0, -1).numpy(), x.numpy(), dim=-1), want)


def test_spread_skill_one_by_one():
    X, x = draw(7, 60), draw(60, seed=1)
    order = np.argsort(np.var(X[::2].numpy(), axis=0, ddof=1), kind="stable")
    spread, error = spread_skill(X.numpy(), x.numpy(), bins=4)
    for k, i in enumerate(np.array_split(order, 4)):
        half = X[1::2].numpy()[:, i]
        assert np.isclose(spread[k] ** 2, (1 + 1 / 3) * half.var(0, ddof=1).mean())
        assert np.isclose(error[k] ** 2, ((half.mean(0) - x.numpy()[i]) ** 2).mean())


# ---------------------------------------------------------------- distances between crowds


def law(d, rank, seed):
    A = draw(d, rank, seed=seed)
    return draw(d, seed=seed + 1), A @ A.T / rank


@pytest.mark.parametrize("ranks", [(30, 30), (30, 5), (5, 30), (5, 7), (30, 0), (0, 0)])
def test_frechet_distance_of_any_covariances(ranks):
    d = 30
    (m1, c1), (m2, c2) = (
        (draw(d, seed=9 + k), torch.zeros(d, d, dtype=torch.float64))
        if r == 0
        else law(d, r, 2 * k)
        for k, r in enumerate(ranks)
    )
    roots = [torch.linalg.eigh(c) for c in (c1, c2)]
    roots = [
        v @ torch.diag(l.clamp_min(0).sqrt()) @ v.T for l, v in roots
    ]  # symmetric roots: another way
    want = (
        ((m1 - m2) ** 2).sum()
        + c1.trace()
        + c2.trace()
        - 2 * torch.linalg.svdvals(roots[0] @ roots[1]).sum()
    )
    got = frechet_distance(m1, c1, m2, c2)
    assert abs(got - float(want)) < 1e-6 * max(1, float(want))
    assert abs(got - frechet_distance(m2, c2, m1, c1)) < 1e-8 * max(1, got)
    assert frechet_distance(m1, c1, m1, c1) < 1e-6 * max(1e-9, float(c1.trace()))
    Q = torch.linalg.qr(draw(d, d, seed=20)).Q
    assert abs(
        frechet_distance(3 * Q @ m1, 9 * Q @ c1 @ Q.T, 3 * Q @ m2, 9 * Q @ c2 @ Q.T) - 9 * got
    ) < 1e-6 * max(1, 9 * got)
    assert abs(
        frechet_distance(m1.numpy(), c1.float().numpy(), m2.numpy(), c2.float().numpy()) - got
    ) < 1e-2 * max(1, got)  # rounded covariances


def test_frechet_distance_through_a_matrix_square_root():
    linalg = pytest.importorskip("scipy.linalg")
    (m1, c1), (m2, c2) = law(60, 90, 0), law(60, 90, 2)
    want = (
        ((m1 - m2) ** 2).sum()
        + (c1 + c2).trace()
        - 2 * np.trace(linalg.sqrtm((c1 @ c2).numpy()).real)
    )
    assert abs(frechet_distance(m1, c1, m2, c2) / float(want) - 1) < 1e-8


def test_few_clips_are_a_warning_and_enough_are_not():
    with pytest.warns(UserWarning, match="fake: 16 clips for 16 features"):
        feature_distance(draw(40, 16), draw(16, 16, seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        feature_distance(draw(40, 16), draw(17, 16, seed=1))
        assert feature_distance(draw(40, 1), draw(40, 1)) < 1e-12


def test_features_do_not_depend_on_the_portion():
    clips, net = draw(5, 4, 1, 16, 16, dtype=torch.float32), RandomFeatures(dim=8)
    assert_close(video_features(clips, net, chunk=2), video_features(clips, net))
    assert_close(
        video_features(clips, RandomFeatures(dim=8)), video_features(clips, net)
    )  # the same network every time
    state = torch.random.get_rng_state()
    RandomFeatures()
    assert torch.equal(torch.random.get_rng_state(), state)  # and nobody's dice are touched


def plain_names(model):
    return {k.removeprefix("layers."): v for k, v in model.state_dict().items()}


class Runs:
    "A pickle of it makes a file when it is loaded as a program."

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.fixture(scope="module")
def i3d():
    torch.manual_seed(0)
    return I3D().eval()


def test_i3d_reads_plain_weights_and_nothing_else(i3d, tmp_path):
    from safetensors.torch import save_file

    weights = plain_names(i3d)
    torch.save(weights, tmp_path / "i3d.pt")
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "i3d.safetensors")
    for name in ("i3d.pt", "i3d.safetensors"):
        loaded = load_i3d(tmp_path / name).state_dict()
        assert all(
            torch.equal(v, loaded[k]) for k, v in i3d.state_dict().items() if "num_batches" not in k
        )
    torch.save(
        {k: v for k, v in weights.items() if k != "Mixed_4b.b1a.bn.running_mean"},
        tmp_path / "short.pt",
    )
    assert "Mixed_4b.b1a.bn.running_mean" in complaint(load_i3d, tmp_path / "short.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    assert "TorchScript" in complaint(load_i3d, tmp_path / "script.pt")
    marker = tmp_path / "ran"
    torch.save(Runs(marker), tmp_path / "pickled.pt")
    assert "plain weights" in complaint(load_i3d, tmp_path / "pickled.pt") and not marker.exists()
    (tmp_path / "junk.pt").write_bytes(b"junk")
    assert "plain weights" in complaint(load_i3d, tmp_path / "junk.pt")


def test_i3d_answers_and_names_are_those_of_pytorch_i3d(i3d):
    names = plain_names(i3d)
    for name, shape in {
        "Conv3d_1a_7x7.conv3d.weight": (64, 3, 7, 7, 7),
        "Conv3d_2c_3x3.bn.running_var": (192,),
        "Mixed_3b.b2b.conv3d.weight": (32, 16, 3, 3, 3),
        "Mixed_4f.b3b.conv3d.weight": (128, 528, 1, 1, 1),
        "Mixed_5c.b0.conv3d.weight": (384, 832, 1, 1, 1),
        "logits.conv3d.bias": (400,),
    }.items():
        assert tuple(names[name].shape) == shape
    clip = draw(1, 9, 1, 32, 32, dtype=torch.float32).clamp(-1, 1)
    with torch.no_grad():
        logits = i3d(clip)
        assert logits.shape == (1, 400) and logits.isfinite().all()
        assert_close(i3d(clip.expand(-1, -1, 3, -1, -1)), logits)  # grey is shown as colour
    assert "9 frames" in complaint(i3d, clip[:, :8])


def test_same_padding_gives_every_window_its_place():
    for size in (7, 8, 9, 16, 17):
        for k, s in ((7, 2), (3, 2), (3, 1), (2, 2), (1, 1)):
            x = _same(torch.zeros(1, 1, size, 1, 1), (k, 1, 1), (s, 1, 1))
            assert (x.shape[2] - k) // s + 1 == math.ceil(size / s)


# ---------------------------------------------------------------- picture against picture


def test_psnr_and_ssim_are_scikit_images():
    metrics = pytest.importorskip("skimage.metrics")
    x, y = draw(2, 3, 3, 24, 31).clamp(-1, 1), draw(2, 3, 3, 24, 31, seed=1).mul(0.2).clamp(-1, 1)
    y = (0.7 * x + y).clamp(-1, 1)
    for b in range(2):
        for f in range(3):
            a, c = x[b, f].numpy(), y[b, f].numpy()
            want = metrics.structural_similarity(
                a,
                c,
                data_range=2,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                channel_axis=0,
            )
            assert abs(float(ssim(x, y)[b, f]) - want) < 1e-10
            assert (
                abs(float(psnr(x, y)[b, f]) - metrics.peak_signal_noise_ratio(a, c, data_range=2))
                < 1e-10
            )


def test_the_lpips_backbone_comes_from_the_named_file(tmp_path):
    torch.manual_seed(0)
    model = load_lpips(pnet_rand=True)
    weights = {
        "features." + k.split(".", 1)[1]: v for k, v in model.net.state_dict().items()
    }  # torchvision's names
    torch.save(weights | {"classifier.1.weight": torch.zeros(2)}, tmp_path / "alexnet.pth")
    x, y = (
        draw(2, 2, 1, 64, 64, dtype=torch.float32).clamp(-1, 1),
        draw(2, 2, 1, 64, 64, dtype=torch.float32, seed=1).clamp(-1, 1),
    )
    loaded = load_lpips(tmp_path / "alexnet.pth")
    assert_close(lpips_distance(x, y, loaded), lpips_distance(x, y, model))
    assert (
        lpips_distance(x, y, load_lpips(pnet_rand=True)) - lpips_distance(x, y, model)
    ).abs().max() > 1e-4
    assert "no file" in complaint(load_lpips, tmp_path / "absent.pth")


def test_without_a_cached_backbone_lpips_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert "download" in complaint(load_lpips)


def test_the_ten_trajectory_protocol_by_hand():
    target, samples, net = (
        draw(5, 4, 1, 16, 16, dtype=torch.float32),
        draw(3, 5, 4, 1, 16, 16, dtype=torch.float32, seed=1),
        RandomFeatures(dim=4),
    )
    past = draw(5, 2, 1, 16, 16, dtype=torch.float32, seed=2)
    found = judge_forecast(samples, target, past=past, net=net)
    marks = torch.stack([psnr(x, target).mean(1) for x in samples])
    assert (
        abs(found["psnr_best"] - float(marks.max(0).values.mean())) < 1e-5
        and abs(found["psnr_mean"] - float(marks.mean())) < 1e-5
    )
    assert found["ssim_best"] >= found["ssim_mean"]
    assert abs(found["crps"] - float(crps(samples, target, fair=True).mean())) < 1e-6
    real = video_features(torch.cat([past, target], 1), net)
    fake = [video_features(torch.cat([past, x], 1), net) for x in samples]
    each = [feature_distance(real, f) for f in fake]
    assert (
        abs(found["frechet_each"] - sum(each) / 3) < 1e-9
        and abs(found["frechet_pooled"] - feature_distance(real, torch.cat(fake))) < 1e-9
    )
    wide = [v.repeat_interleave(2, -1).repeat_interleave(2, -2) for v in (samples, target)]
    model = load_lpips(pnet_rand=True)
    marks = torch.stack([lpips_distance(x, wide[1], model).mean(1) for x in wide[0]])
    assert (
        abs(judge_forecast(*wide, lpips=model)["lpips_best"] - float(marks.min(0).values.mean()))
        < 1e-6
    )  # of a distance, the least
    assert (
        abs(judge_forecast(samples[:1], target)["crps"] - float((samples[0] - target).abs().mean()))
        < 1e-6
    )  # one future: absolute error
