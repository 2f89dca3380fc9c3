"""With the oracle's exact denoiser every sampler must produce the known law.

In a Gaussian world the exact denoiser is affine, so every step rule is an affine map plus Gaussian noise, and the law of a sampler's
output can be computed exactly: run the sampler on the zero clip, on every basis vector, and with every single random number set to one
in turn. What remains of a difference from the true law is then discretisation alone, which must vanish at the order of the step rule.
Simulation is needed only to see that the random numbers really are independent and standard normal.
"""

import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest
import torch

from vidiffedu.denoise import FromVelocity, to_velocity
from vidiffedu.oracle import GaussianClips, Mixture, Points
from vidiffedu.paths import VE, VP, Bridge, Cosine, RectifiedFlow
from vidiffedu.sample import (
    ddim_step,
    ddpm_step,
    edm_step,
    heun_step,
    ode_step,
    sample,
    sde_step,
)
from vidiffedu.times import autoregressive, even_noise, grid, pyramid

PATHS = {"VP": VP(), "Cosine": Cosine(), "VE": VE(0.05, 20.0), "straight": RectifiedFlow()}
STEPS = {
    "DDIM": ddim_step,
    "DDPM": ddpm_step,
    "Euler": ode_step,
    "Heun": heun_step,
    "EDM": edm_step,
    "SDE": sde_step,
}
NOISY = "DDPM", "SDE"
ONE = torch.ones((), dtype=torch.float64)
every_path, every_step = (
    pytest.mark.parametrize("path", PATHS),
    pytest.mark.parametrize("step", STEPS),
)
# on times even in t, EDM's step has order two only after the first: that one starts at a huge σ
steps_even_in_t = pytest.mark.parametrize("step", [s for s in STEPS if s != "EDM"])


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def world():
    return GaussianClips(3, size=(1, 2), rho=0.8, mean=torch.tensor([0.5, 0.0, -1.0]), length=1.0)


class Pulses:
    "Stands in for torch.randn: zeros, except that row first + k of a batch has the k-th number of the whole run set to one"

    def __init__(self, first=None):
        self.first, self.calls = first, 0

    def __call__(self, *shape, generator=None, **kind):
        out = torch.zeros(*shape, **kind)
        if self.first is not None:
            k = torch.arange(out[0].numel())
            out.view(len(out), -1)[self.first + self.calls * len(k) + k, k] = 1
        self.calls += 1
        return out


@contextmanager
def randn(stand_in):
    true, torch.randn = torch.randn, stand_in
    try:
        yield stand_in
    finally:
        torch.randn = true


def start_std(path, shape, known):
    std = path.c(ONE) * torch.ones(shape, dtype=torch.float64)
    return std if known is None else std * ~known[:, None, None, None]


def sampler_law(world, path, step, ts, clip=None, known=None, y=None):
    "Exact mean (d,) and covariance (d, d) of the flattened clip that `sample` returns, known frames included; float64"
    start = torch.zeros(1, *world.shape, dtype=torch.float64)
    if known is not None:
        start[:, known] = clip[:, known]
    d, std = start.numel(), start_std(path, world.shape, known)
    how = dict(step=step, y=y)
    with randn(Pulses()) as count:
        sample(world.denoiser(path), path, start, ts, **how)
    x = start.repeat(1 + d + count.calls * d, 1, 1, 1, 1)
    x[1 : 1 + d] += torch.diag(std.flatten()).view(d, *world.shape)
    with randn(Pulses(1 + d)):
        out = sample(world.denoiser(path), path, x, ts, **how).flatten(1)
    M = out[1:] - out[0]
    return out[0], M.T @ M


def limit_law(path, mean, cov, noisy):
    """The law that infinitely many steps give. It is N(mean, cov) but for the start: `sample` is started at N(0, c²), not at
    N(a mean, a² cov + c²). The flow carries a start by cov^½ (a² cov + c²)^-½, the reverse process by E[x | x_1]."""
    a, c = path.a(ONE), path.c(ONE)
    val, vec = torch.linalg.eigh(cov)
    val = val.clamp(min=0)
    gain = val / (a**2 * val + c**2)
    carry = vec @ torch.diag(a * gain if noisy else gain.sqrt()) @ vec.T
    left = cov - a * carry @ cov if noisy else 0 * cov
    return mean - carry @ (a * mean), left + c**2 * carry @ carry.T


def assert_converges(name, law, limit, n=40):
    "law(n) -> (mean, cov) must reach the limit: the error halves (Heun: quarters) when steps double, and extrapolates to nothing"
    order = 2 if name in ("Heun", "EDM") else 1
    few, many = law(n), law(2 * n)
    error = [sum(((u - v) ** 2).sum() for u, v in zip(l, limit)) ** 0.5 for l in (few, many)]
    ratio = error[0] / error[1]
    assert ratio > 0.85 * 2**order, (
        f"{name}: error {error[0]:.2e} at {n} steps, {error[1]:.2e} at {2 * n}: a ratio of {ratio:.2f}"
    )
    if name not in NOISY:
        assert ratio < 1.25 * 2**order, f"{name}: a ratio of {ratio:.2f}"
    extrapolated = [(2**order * v - u) / (2**order - 1) for u, v in zip(few, many)]
    size = limit[1].norm()
    assert sum(((u - v) ** 2).sum() for u, v in zip(extrapolated, limit)) ** 0.5 < 0.05 * size
    return ratio


@every_path
@steps_even_in_t
def test_law_and_order(world, path, step):
    "Unconditional clips: mean and covariance, and the order of every step rule"
    p, noisy = PATHS[path], step in NOISY
    limit = limit_law(p, world.mean.flatten(), world.cov, noisy)
    assert_converges(step, lambda n: sampler_law(world, p, STEPS[step], grid(n, 3)), limit)
    start = (limit[0] - world.mean.flatten()).abs().max(), (limit[1] - world.cov).abs().max()
    assert max(start) < 0.08, (
        "starting from pure noise must cost little on a path whose end carries almost no signal"
    )


@pytest.mark.parametrize("path", ["VP", "VE"])
def test_edm_law_and_order(world, path):
    "Times even in log σ, for which the step was made: the law of the world, at order two"
    p = PATHS[path]
    limit = limit_law(p, world.mean.flatten(), world.cov, False)
    rows = even_noise(p, knee=0.05)
    assert_converges("EDM", lambda n: sampler_law(world, p, edm_step, rows(n, 3)), limit)


@pytest.mark.parametrize("step", ["DDIM", "Heun", "SDE"])
def test_a_network_of_the_velocity(world, step):
    "Rectified flow as it is trained: the network says the velocity, the wrapper makes it a denoiser"
    p = RectifiedFlow()
    exact = world.denoiser(p)
    net = FromVelocity(lambda x, t, cond=None: to_velocity(p, x, exact(x, t), t), p)
    how = dict(ts=grid(20, 3), step=STEPS[step])
    x = torch.randn(4, *world.shape, generator=seeded(0), dtype=torch.float64)
    one, other = (sample(f, p, x, generator=seeded(1), **how) for f in (net, exact))
    torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name, order", [("DDIM", 1), ("Euler", 1), ("Heun", 2), ("EDM", 2)])
@every_path
def test_order_against_the_solved_flow(path, name, order):
    "Between t = .9 and .2 the probability flow of a Gaussian world is known: (a_s² S + c_s²)^½ (a_t² S + c_t²)^-½"
    p, world = PATHS[path], GaussianClips(4, size=1, rho=0.7)
    val, vec = torch.linalg.eigh(world.cov)
    var = lambda t: p.a(t * ONE) ** 2 * val + p.c(t * ONE) ** 2
    flow = vec @ torch.diag((var(0.2) / var(0.9)).sqrt()) @ vec.T
    basis = torch.eye(4, dtype=torch.float64).view(4, 4, 1, 1, 1)
    error = []
    for n in 64, 128:
        ts = torch.linspace(0.9, 0.2, n + 1, dtype=torch.float64)[:, None].expand(-1, 4)
        error.append(
            (sample(world.denoiser(p), p, basis, ts, step=STEPS[name]).view(4, 4) - flow).norm()
        )
    assert abs((error[0] / error[1]).log2() - order) < 0.12


@every_path
@every_step
def test_simulation(world, path, step):
    "20,000 clips against the exact law of the same sampler: only the random numbers are left to be wrong. 5 standard errors"
    p, n, g = PATHS[path], 20_000, seeded(1)
    mean, cov = sampler_law(world, p, STEPS[step], grid(20, 3))
    start = torch.randn(n, *world.shape, generator=g) * p.c(ONE).float()
    x = (
        sample(world.denoiser(p), p, start, grid(20, 3), step=STEPS[step], generator=g)
        .flatten(1)
        .double()
    )
    var = cov.diagonal()
    assert ((x.mean(0) - mean) / (var / n).sqrt()).abs().max() < 5
    assert ((x.T.cov() - cov) / ((var[:, None] * var + cov**2) / n).sqrt()).abs().max() < 5


KNOWN = {"past": [1, 1, 0, 0], "ends": [1, 0, 0, 1], "scattered": [0, 1, 0, 1]}


def fixed_clip(world):
    return world.sample(1, seeded(2), dtype=torch.float64)


@pytest.mark.parametrize("mask", KNOWN)
@pytest.mark.parametrize(
    "path, step",
    [("VP", s) for s in STEPS if s != "EDM"]
    + [("straight", "Heun"), ("Cosine", "DDPM"), ("Cosine", "Heun"), ("VE", "Heun"), ("VE", "SDE")],
)
def test_known_frames(mask, path, step):
    "Known frames stay, and the others follow the exact conditional law"
    world, p, known = (
        GaussianClips(4, size=1, rho=0.8, mean=0.3),
        PATHS[path],
        torch.tensor(KNOWN[mask], dtype=torch.bool),
    )
    clip = fixed_clip(world)

    def law(n):
        mean, cov = sampler_law(world, p, STEPS[step], grid(n, 4, known), clip, known)
        assert torch.equal(mean[known], clip.flatten()[known]) and not cov[known].any()
        return mean[~known], cov[~known][:, ~known]

    exact = world.conditional(known)
    assert_converges(
        step, law, limit_law(p, exact.mean(clip).flatten(), exact.cov, step in NOISY), n=80
    )  # at 40 DDPM's order does not show yet


@steps_even_in_t
@pytest.mark.parametrize("table", ["pyramid", "autoregressive", "pyramid after a past"])
def test_frames_in_their_own_time(table, step):
    "Each frame its own time: the joint law is the same. (Cosine: at t = 1 nothing of the clip is left, so the limit is the world itself.)"
    world, p = GaussianClips(3, size=1, rho=0.8, mean=0.3), Cosine()
    known, clip = torch.tensor([True, False, False]), fixed_clip(world)
    if table != "pyramid after a past":
        known = torch.zeros(3, dtype=torch.bool)
    rows = {
        "pyramid": lambda n: pyramid(n, 3, lag=n // 4),
        "autoregressive": lambda n: autoregressive(n, 3),
        "pyramid after a past": lambda n: pyramid(n, 3, lag=n // 4, known=known),
    }[table]

    def law(n):
        mean, cov = sampler_law(world, p, STEPS[step], rows(n), clip, known)
        return mean[~known], cov[~known][:, ~known]

    exact = world.conditional(known)
    assert_converges(step, law, (exact.mean(clip).flatten(), exact.cov), n=32)


@every_step
def test_bridge(step):
    """The bridge starts at the known frame, without noise, so the first step draws it. More steps come closer to the law of the next frame, but
    slowly: steps even in t start at σ = k log n only. Euler's error falls like 1 / log n there, too slowly to be seen: it must only stay small."""
    world, path = GaussianClips(1, size=1, mean=0.4), Bridge()
    y0 = torch.full((1, 1, 1, 1, 1), 1.5, dtype=torch.float64)

    def law(n):
        how = dict(path=path, ts=grid(n, 1), step=STEPS[step], y=y0)
        with randn(Pulses()) as count:
            sample(world.denoiser(path), x_t=y0, **how)
        with randn(Pulses(1)):
            y = how["y"] = y0.repeat(1 + count.calls, 1, 1, 1, 1)
            out = sample(world.denoiser(path), x_t=y, **how).flatten()
        return out[0].item(), (out[1:] - out[0]).norm().item()

    laws = [law(n) for n in (25, 100, 400)]
    gaps = [abs(std - 1) for _, std in laws]
    assert max(abs(mean - 0.4) for mean, _ in laws) < 1e-9 and max(gaps) < 0.15
    if step != "Euler":
        assert gaps[1] < 0.7 * gaps[0] and gaps[2] < 0.7 * gaps[1]


@every_path
@every_step
def test_clean_frames_bit_identical(world, path, step):
    p, known, x = (
        PATHS[path],
        torch.tensor([True, False, True]),
        torch.randn(4, 3, 1, 1, 2, generator=seeded(3)),
    )
    out = sample(world.denoiser(p), p, x, grid(7, 3, known), step=STEPS[step], generator=seeded(4))
    assert torch.equal(out[:, known], x[:, known]) and not (out[:, 1] == x[:, 1]).any()
    assert out.isfinite().all() and out.dtype == x.dtype
    waits = torch.tensor([[1.0, 0.6, 0.0], [0.5, 0.6, 0.0], [0.0, 0.6, 0.0]])
    out = sample(world.denoiser(p), p, x, waits, step=STEPS[step], generator=seeded(4))
    assert torch.equal(out[:, 1:], x[:, 1:])
    assert torch.equal(
        sample(
            world.denoiser(p), p, x, torch.full((3, 3), 0.6), step=STEPS[step], generator=seeded(4)
        ),
        x,
    )


@every_path
@every_step
def test_times_agree(world, path, step):
    "(), (b,) and (b, f) times are the same, in a step and in the loop; the denoiser always sees (b, f); clips do not mix"
    p, rule, x = (
        PATHS[path],
        STEPS[step],
        torch.randn(4, 3, 1, 1, 2, generator=seeded(5), dtype=torch.float64),
    )
    denoise, seen = world.denoiser(p), []

    def once(t, s):
        return rule(p, x, denoise(x, t), t, s, y=None, denoise=denoise, generator=seeded(6))

    t, s = 0.7 * ONE, 0.4 * ONE
    for shape in (4,), (4, 3):
        torch.testing.assert_close(once(t, s), once(t.expand(shape), s.expand(shape)))

    def spy(x_t, t, y):
        seen.append(t.shape)
        return denoise(x_t, t, y)

    ts = torch.linspace(1, 0, 6, dtype=torch.float64)
    runs = [
        sample(spy, p, x, rows, step=rule, generator=seeded(6))
        for rows in (ts, ts[:, None].expand(6, 3), ts[:, None, None].expand(6, 4, 3))
    ]
    for run in runs[1:]:
        torch.testing.assert_close(run, runs[0])
    assert set(seen) == {(4, 3)}

    if step not in NOISY:
        ts = (
            torch.rand(4, 3, generator=seeded(7), dtype=torch.float64)
            * torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)[:, None, None]
        )
        each = [sample(denoise, p, x[i : i + 1], ts[:, i], step=rule) for i in range(4)]
        torch.testing.assert_close(sample(denoise, p, x, ts, step=rule), torch.cat(each))


@every_path
def test_one_step_to_clean_is_the_estimate(world, path):
    p, x, t = (
        PATHS[path],
        torch.randn(4, 3, 1, 1, 2, generator=seeded(8)),
        torch.full((4, 3), 0.7, dtype=torch.float64),
    )
    x_hat = world.denoiser(p)(x, t)
    for step in ddim_step, ddpm_step:
        torch.testing.assert_close(step(p, x, x_hat, t, 0 * t), x_hat, rtol=0, atol=0)


@pytest.mark.parametrize("step", ["DDPM", "DDIM", "Heun"])
def test_outcomes_keep_their_shares(step):
    "Two possible clips, 70 to 30: every sample is one of them, in that proportion"
    two, n, p = torch.randn(2, 3, 1, 2, 2, generator=seeded(9)), 2000, Cosine()
    x = torch.randn(n, *two.shape[1:], generator=seeded(10))
    x = sample(
        Points(two, [0.7, 0.3]).denoiser(p),
        p,
        x,
        grid(100, 3),
        step=STEPS[step],
        generator=seeded(11),
    )
    far = (x[:, None] - two).flatten(2).norm(dim=2) / (two[0] - two[1]).norm()
    assert (far.amin(1) < 0.01).float().mean() > 0.995
    assert abs((far.argmin(1) == 0).double().mean() - 0.7) < 4.5 * (0.21 / n) ** 0.5 + 0.005


def test_memory_does_not_grow_with_steps():
    "Peak memory of 80 steps is that of 10 (one kept clip a step would be 35 MiB), and no autograd graph is kept; a fresh process, its high-water mark"
    script = """
        import resource, torch
        from vidiffedu.paths import VP
        from vidiffedu.sample import ddim_step, heun_step, ode_step, sample, sde_step
        from vidiffedu.times import grid
        torch.set_num_threads(1)
        scale = torch.nn.Parameter(torch.tensor(.5))
        x = torch.randn(8, 16, 1, 32, 32)                                   # 0.5 MiB
        steps = ddim_step, lambda *a, **k: ddim_step(*a, **k, eta=1.), ode_step, heun_step, sde_step
        def peak(n):
            for step in steps:
                out = sample(lambda x_t, t, y: scale * x_t, VP(), x, grid(n, 16), step=step)
                assert not out.requires_grad
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(peak(10), peak(80))
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    ).stdout
    few, many = map(float, out.split())
    assert many - few < 12, f"{few:.0f} MiB at 10 steps, {many:.0f} MiB at 80"


def test_a_blurred_mixture_by_its_integral():
    "One pixel, two blurred outcomes: estimate, score and density against sums over a fine grid of clean values"
    p, std = VP(), 0.4
    world = Mixture(
        torch.tensor([0.9, -0.6], dtype=torch.float64).view(2, 1, 1, 1, 1), [0.7, 0.3], std
    )
    x = torch.linspace(-4, 4, 40_001, dtype=torch.float64)
    bump = lambda m: torch.exp(-((x - m) ** 2) / (2 * std**2)) / (std * (2 * torch.pi) ** 0.5)
    prior = 0.7 * bump(0.9) + 0.3 * bump(-0.6)
    for s in (0.1, 0.4, 0.8):
        t = torch.full((1, 1), s, dtype=torch.float64)
        a, c = float(p.a(t)), float(p.c(t))
        for seen in (-0.8, 0.1, 1.2):
            joint = (
                prior * torch.exp(-((seen - a * x) ** 2) / (2 * c**2)) / (c * (2 * torch.pi) ** 0.5)
            )
            density, mean = torch.trapezoid(joint, x), torch.trapezoid(joint * x, x)
            x_t = torch.full((1, 1, 1, 1, 1), seen, dtype=torch.float64)
            torch.testing.assert_close(world.denoiser(p)(x_t, t).flatten()[0], mean / density)
            torch.testing.assert_close(world.log_density(p)(x_t, t)[0], density.log())
            score = (a * mean / density - seen) / c**2
            torch.testing.assert_close(world.score(p)(x_t, t).flatten()[0], score)
