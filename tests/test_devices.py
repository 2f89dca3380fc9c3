"""Everything follows the device of its inputs, and nothing makes it wait in a step.

Tried on a device that only pretends to be one (pretend_device.py); it has no float64, like Apple's."""

import pytest
import torch
from pretend_device import pretend_device

from vidiffedu import (
    bridge,
    crps,
    data,
    likeness,
    masks,
    nets,
    oracle,
    paths,
    recurrent,
    residual,
    sample,
    score,
    times,
    vector,
    vortex,
)
from vidiffedu.denoise import FromNoise, FromV, Preconditioned, ScaledInput, noise_weight


def joined(f=4):
    return nets.JoinedUNet(f, width=8, mults=(1, 2))


def rvd(wrap=FromNoise, path=None, **how):
    path = path or paths.Cosine()
    forecaster, net = recurrent.rvd_networks(width=8, patch=1)
    return residual.RVD(forecaster, wrap(net, path), path, **how)


def cvp():
    path = paths.Bridge()
    times = bridge.matched_times(path, paths.VP())
    return bridge.CVP(ScaledInput(joined(), path), path, context=3, times=times)


METHODS = dict(
    blind=lambda: score.BlindDenoiser(nets.BlindUNet(past=3, width=4)),
    fvdm=lambda: vector.FVDM(joined()),
    fvdm_v=lambda: vector.FVDM(FromV(joined(), paths.VP()), weight=noise_weight(paths.VP())),
    ramvid=lambda: masks.RaMViD(nets.VideoUNet(1, 8, (1, 2), attention=(1,)), max_known=2),
    transformer=lambda: vector.FVDM(nets.VideoTransformer(1, 8, 4, width=16, depth=2, heads=2)),
    next_frame=lambda: bridge.NextFrame(Preconditioned(joined(), paths.VP()), context=3),
    cvp=cvp,
    rvd=rvd,
    rvd_explicit=lambda: rvd(scale=0.1, explicit=1.0),
)
each_method = pytest.mark.parametrize("name", METHODS)


def clip_and_model(name):
    torch.manual_seed(0)
    model = METHODS[name]().train()
    return torch.rand(2, 4, 1, 8, 8) * 2 - 1, model


@each_method
def test_training(name):
    "The loss is the CPU's, its gradients lie on the device, and nothing waits"
    clip, model = clip_and_model(name)
    want = model.loss(clip, generator=torch.Generator().manual_seed(1))
    with pretend_device() as (device, waits):
        model = model.to(device)
        there, generator = clip.to(device), torch.Generator(device).manual_seed(1)
        model.loss(there)  # what is written down in the first step only is written now
        waits.clear()
        loss = model.loss(there, generator=generator)
        loss.backward()
        assert not waits, f"a training step makes the device wait: {waits}"
        assert all(p.grad is None or p.grad.device == device for p in model.parameters())
        assert abs(loss.item() - want.item()) < 1e-3 * max(1, abs(want.item()))


@each_method
def test_forecast(name):
    "The answer lies on the device; more steps do not wait more often (the score chapter's sampler reads σ to know when to stop)"
    clip, model = clip_and_model(name)
    with pretend_device() as (device, waits):
        model, past, often = model.to(device), clip[:, :3].to(device), []
        for steps in (2, 4):
            waits.clear()
            generator = torch.Generator(device).manual_seed(2)
            out = model.forecast(past, 1, n_samples=2, steps=steps, generator=generator)
            often.append(len(waits))
        assert out.device == device and out.shape == (2, 2, 1, 1, 8, 8)
        assert name == "blind" or often[0] == often[1], waits


PATHS = [paths.VP(), paths.Cosine(), paths.VE(), paths.Bridge(), paths.RectifiedFlow()]
STEPS = [sample.ddim_step, sample.ddpm_step, sample.ode_step, sample.heun_step, sample.sde_step]
STEPS.append(sample.edm_step)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.__name__)
def test_steps(path, step):
    "More steps do not wait more often: only the table of coefficients is moved, before the loop"
    with pretend_device() as (device, waits):
        x, often = torch.randn(2, 4, 1, 4, 4, device=device), []
        y = x.flip(0) if path.needs_y else None
        known = torch.tensor([True, False, False, False])
        for n in (2, 4):
            waits.clear()
            how = dict(step=step, y=y, generator=torch.Generator(device))
            out = sample.sample(lambda x, t, y: 0.5 * x, path, x, times.grid(n, 4, known), **how)
            often.append(len(waits))
        assert out.device == device and often[0] == often[1], waits


WORLDS = dict(
    leaves=lambda g: data.moving_leaves(3, 3, 12, generator=g),
    probe=lambda g: data.probe_leaves(3, generator=g).clip,
    bouncing=lambda g: data.bouncing(3, 3, 12, generator=g),
    turning=lambda g: data.turning_leaf(3, generator=g).clip,
    drifting=lambda g: data.drifting_leaf(3, generator=g),
    gaussian=lambda g: oracle.GaussianClips(3, length=1.0).sample(2, generator=g),
    mixture=lambda g: oracle.Mixture(torch.rand(3, 3, 1, 4, 4)).sample(2, generator=g),
    street=lambda g: vortex.VortexStreet(60.0, (16, 32), 4.0, generator=g).step(2).vorticity(),
)


@pytest.mark.parametrize("name", WORLDS)
def test_worlds(name):
    "A world is drawn where its generator lives"
    with pretend_device() as (device, _):
        assert WORLDS[name](torch.Generator(device).manual_seed(0)).device == device


ORACLES = dict(
    gaussian=lambda: oracle.GaussianClips(4, length=1.0),
    mixture=lambda: oracle.Mixture(torch.rand(3, 4, 1, 4, 4), std=0.1),
)


@pytest.mark.parametrize("name", ORACLES)
def test_oracles(name):
    world, path = ORACLES[name](), paths.VP()
    with pretend_device() as (device, _):
        x, t = torch.rand(2, 4, 1, 4, 4, device=device), torch.full((2, 4), 0.5, device=device)
        for f in (world.denoiser(path), world.score(path), world.log_density(path)):
            assert f(x, t).device == device
        known = torch.tensor([True, True, False, False])
        assert world.conditional(known).mean(x).device == device


def test_scores():
    with pretend_device() as (device, _):
        s = torch.rand(4, 2, 3, 1, 12, 12, device=device)
        y = torch.rand(2, 3, 1, 12, 12, device=device)
        assert crps.crps(s, y, fair=True).device == device
        assert crps.rank_histogram(s, y).sum().item() == y.numel()
        spread, error = crps.spread_skill(s, y)  # few numbers, in float64: on the CPU if need be
        assert spread.shape == error.shape == (8,)
        assert likeness.ssim(s[0], y).device == likeness.psnr(s[0], y).device == device
        mu = torch.zeros(2, 3, 1, 12, 12, device=device)
        assert crps.crps_gaussian(mu, mu + 1, y).device == device
