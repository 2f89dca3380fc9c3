"""The same futures in any portions, and a generator for each clip.

Every method draws the noise of all clips in one walk; `chunk` only portions out what its networks see. Kernels may add in another
order for another number of clips, so futures are compared up to the rounding of float64. The networks here look at pixels, times and
context, so that a clip that met another's noise, time, mask or state would show it."""

import pytest
import torch

from vidiffedu.bridge import CVP, NextFrame
from vidiffedu.core import complaint, expand, seeded
from vidiffedu.masks import RaMViD, replacing
from vidiffedu.paths import VP
from vidiffedu.residual import RVD
from vidiffedu.sample import ddpm_step, edm_step, heun_step, normal_like, sample, sde_step
from vidiffedu.score import BlindDenoiser
from vidiffedu.times import grid, pyramid
from vidiffedu.vector import FVDM, roll

B, K, N, SAMPLES = 3, 2, 3, 4
SIZES = (1, 2, 5, 12, 100)  # of 12 clips
close = dict(rtol=1e-9, atol=1e-9)


class Mixes(torch.nn.Module):
    "An estimate that depends on every number that a network is given; counts its clips."

    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Linear(4, 4).double()
        self.seen = []

    def forward(self, x, t=None, cond=None):
        self.seen.append(len(x))
        out = torch.tanh(self.mix(x.flatten(-2)).view_as(x))
        out = out + 0.3 * x.mean((1, 2, 3, 4), keepdim=True)  # frames look at each other
        if t is not None:
            out = out + expand(0.3 * t, x)
        if torch.is_tensor(cond):
            out = out + 0.5 * cond.mean((1, 2, 3, 4))[:, None, None, None, None]
        return out


class Blind(Mixes):
    "Its distance to the clip, and so the number of its looks, differs from clip to clip."

    def forward(self, x, t=None, cond=None):
        out = super().forward(x, None, cond)
        return cond[:, -1:] + 0.2 * (1 + cond[:, -1:].mean((2, 3, 4), True).tanh()) * out


def remembers(frames, state=None):
    "A forecaster whose state is a tensor, the mean of all frames so far."
    now = frames.mean(1, keepdim=True)
    state = now if state is None else 0.5 * (state + now)
    return frames[:, -1:] + 0.1 * state, state


def keeps_a_pair(frames, state=None):
    "A state whose first axis is not the clips'."
    mu, now = remembers(frames, state and state[0][0])
    return mu, (now[None], len(frames))


class ByPair(Mixes):
    def forward(self, x, t, state):
        assert state[1] == len(x)
        return super().forward(x, t, state[0][0])


MODELS = {
    "score": lambda: BlindDenoiser(Blind()),
    "bridge": lambda: CVP(Mixes(), context=K),
    "next frame": lambda: NextFrame(Mixes(), VP(), context=K),
    "vector": lambda: FVDM(Mixes()),
    "masks": lambda: RaMViD(Mixes()),
    "residual": lambda: RVD(remembers, Mixes()),
    "residual, a pair": lambda: RVD(keeps_a_pair, ByPair()),
}
HOW = {"": {}, "DDPM": dict(step=ddpm_step), "SDE": dict(step=sde_step)}
WAYS = [
    (m, h) for m in MODELS for h in HOW if not (h and m == "score") and (m, h) != ("bridge", "SDE")
]
WINDOW = dict(window=3, keep=1)
CASES = [pytest.param(MODELS[m], HOW[h], id=f"{m} {h}".strip()) for m, h in WAYS]
CASES += [pytest.param(MODELS["vector"], HOW["DDPM"] | WINDOW, id="vector DDPM, a window")]
CASES += [pytest.param(MODELS["masks"], WINDOW, id="masks, a window")]
every_method = pytest.mark.parametrize("make, how", CASES)


def model_of(make):
    torch.manual_seed(0)
    return make()


def pasts(b=B):
    return torch.randn(b, K, 1, 2, 2, generator=seeded(1), dtype=torch.float64)


def forecast(model, generator, past=None, **how):
    how = dict(steps=40 if isinstance(model, BlindDenoiser) else 5) | how
    return model.forecast(pasts() if past is None else past, N, SAMPLES, generator=generator, **how)


@every_method
def test_futures_do_not_depend_on_the_chunk(make, how):
    model, after = model_of(make), seeded(2)
    whole = forecast(model, after, **how)
    assert whole.shape == (SAMPLES, B, N, 1, 2, 2)
    assert len({round(float(v), 6) for v in whole[:, :, -1, 0, 0, 0].flatten()}) == SAMPLES * B
    for size in SIZES:
        g = seeded(2)
        model.net.seen.clear()
        torch.testing.assert_close(forecast(model, g, chunk=size, **how), whole, **close)
        assert max(model.net.seen) == min(size, SAMPLES * B)
        assert torch.equal(g.get_state(), after.get_state())  # who draws next finds no difference


@every_method
def test_without_a_generator_the_global_seed_decides(make, how):
    model, found = model_of(make), []
    for size in (None, 5):
        torch.manual_seed(3)
        found.append(forecast(model, None, chunk=size, **how))
    torch.testing.assert_close(*found, **close)


@every_method
def test_a_generator_for_each_clip(make, how):
    "Clip i's futures are those that it has alone: they know nothing of the others."
    model, seeds = model_of(make), (10, 11, 12)
    together = forecast(model, [seeded(s) for s in seeds], **how)
    in_parts = forecast(model, tuple(seeded(s) for s in seeds), chunk=5, **how)
    torch.testing.assert_close(in_parts, together, **close)
    for i, s in enumerate(seeds):
        alone = forecast(model, seeded(s), pasts()[i : i + 1], **how)
        torch.testing.assert_close(alone, together[:, i : i + 1], **close)
    turned = forecast(model, [seeded(s) for s in seeds[::-1]], pasts().flip(0), **how)
    torch.testing.assert_close(turned.flip(1), together, **close)


def test_looks_of_the_blind_sampler_differ():
    "So the test above says something: a clip that has stopped draws nothing while others go on."
    model, left = model_of(MODELS["score"]), []
    generators = [seeded(s) for s in (10, 11, 12)]
    model.forecast(pasts(), 1, steps=40, generator=generators)
    for g in generators:
        left.append(torch.rand((), generator=g).item())
    calls = []
    for i, s in enumerate((10, 11, 12)):
        model.net.seen.clear()
        g = seeded(s)
        model.forecast(pasts()[i : i + 1], 1, steps=40, generator=g)
        calls.append(len(model.net.seen))
        assert torch.rand((), generator=g).item() == left[i]
    assert len(set(calls)) > 1, calls


@pytest.mark.parametrize("method", [FVDM, RaMViD])
@pytest.mark.parametrize("step", [heun_step, ddpm_step, sde_step])
def test_filled_clips_do_not_depend_on_the_chunk(method, step):
    "Every clip has its own mask and its own timetable."
    model = model_of(lambda: method(Mixes()))
    x = torch.randn(B, 4, 1, 2, 2, generator=seeded(1), dtype=torch.float64)
    known = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 1], [0, 0, 1, 0]], dtype=torch.bool)
    how = dict(steps=4, step=step, timetable=lambda n, f, known: pyramid(n, f, lag=2, known=known))
    whole = model.fill(x, known, SAMPLES, generator=seeded(2), **how)
    for size in SIZES:
        parts = model.fill(x, known, SAMPLES, generator=seeded(2), chunk=size, **how)
        torch.testing.assert_close(parts, whole, **close)
        assert torch.equal(parts[:, known], x[known].expand(SAMPLES, -1, -1, -1, -1))
    generators = [seeded(s) for s in range(B)]
    together = model.fill(x, known, SAMPLES, generator=generators, chunk=2, **how)
    for i in range(B):
        here = slice(i, i + 1)
        alone = model.fill(x[here], known[here], SAMPLES, generator=seeded(i), **how)
        torch.testing.assert_close(alone, together[:, here], **close)


@pytest.mark.parametrize("method", [FVDM, RaMViD])
def test_clips_from_nothing_do_not_depend_on_the_chunk(method):
    model = model_of(lambda: method(Mixes().float()))
    found = [
        model.generate((5, 3, 1, 2, 2), steps=3, generator=seeded(4), chunk=n) for n in (None, 2)
    ]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
    lists = [seeded(s) for s in range(5)]
    one = model.generate((1, 3, 1, 2, 2), steps=3, generator=seeded(3))
    many = model.generate((5, 3, 1, 2, 2), steps=3, generator=lists)
    torch.testing.assert_close(one[0], many[3], rtol=1e-4, atol=1e-4)


def test_other_walks_take_a_generator_for_each_clip():
    "`sample`, a rolling window and filling by replacement."
    net, x = model_of(Mixes), torch.randn(B, 4, 1, 2, 2, generator=seeded(1), dtype=torch.float64)
    known = torch.tensor([True, False, False, True]).expand(B, 4)

    def walks(x, known, generator):
        step = replacing(edm_step, x, known)
        yield sample(net, VP(), x, grid(4, 4), step=sde_step, generator=generator)
        yield sample(net, VP(), x, grid(4, 4), step=step, generator=generator)
        yield roll(net, VP(), x[:, :2], 5, 4, 2, 4, generator=generator)

    together = walks(x, known, [seeded(s) for s in range(B)])
    one = [walks(x[i : i + 1], known[i : i + 1], seeded(i)) for i in range(B)]
    for whole, *alone in zip(together, *one):
        torch.testing.assert_close(torch.cat(alone), whole, **close)


def test_noise_of_a_list_is_standard_normal_and_independent():
    "20,000 rounds of 3 clips of 2 numbers: the covariance of the six is the unit matrix."
    n = 20_000
    x = torch.zeros(n * 3, 2)
    z = normal_like(x, [seeded(s) for s in range(3)]).view(n, 6)
    assert z.mean(0).abs().max() < 5 / n**0.5
    assert (z.T @ z / n - torch.eye(6)).abs().max() < 5 * (2 / n) ** 0.5
    assert torch.equal(normal_like(x, [seeded(0)]), normal_like(x, seeded(0)))
    still = normal_like(x[:6], [seeded(s) for s in range(3)], torch.tensor([1, 0, 0, 0, 0, 1]) > 0)
    assert (still.view(2, 3, 2) == 0).all(2).tolist() == [[False, True, False]] * 2


def test_a_denoiser_is_as_it_was_after_portions():
    model = model_of(MODELS["residual"])
    mine = lambda r_t, t, state: 0.1 * r_t
    for denoise in (None, mine):
        if denoise:
            model.denoise = denoise
        before, forecaster = dict(vars(model)), model.forecaster
        forecast(model, seeded(0), chunk=2)
        assert vars(model) == before and model.forecaster is forecaster
    assert model.denoise is mine

    def breaks(r_t, t, state):
        raise KeyboardInterrupt

    model.denoise = breaks
    with pytest.raises(KeyboardInterrupt):
        forecast(model, seeded(0), chunk=2)
    assert model.denoise is breaks and model.training


def test_generators_that_cannot_be_are_refused_in_one_line():
    g, model = seeded(0), model_of(MODELS["vector"])
    known = torch.tensor([True, False, False])
    x = torch.zeros(B, 3, 1, 2, 2, dtype=torch.float64)
    for bad in (0, "0", [], [g], [g] * B, [seeded(i) for i in range(B + 1)], [None] * B, [1, 2, 3]):
        for line in (
            complaint(forecast, model, bad),
            complaint(model.fill, x, known, generator=bad),
        ):
            assert line.startswith("generator: got ") and ", expected " in line, line
    assert "generator: got 2" in complaint(normal_like, x, [g, g])
