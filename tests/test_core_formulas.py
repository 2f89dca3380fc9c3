"""Every formula of paths, times, denoise and sample, held against something else than itself.

Expected values: integrals and derivatives done numerically, closed forms of Gaussian laws, counts, and the papers' own
discrete formulas where the library has the continuous ones."""

import math

import pytest
import torch
from torch.testing import assert_close

from vidiffedu.core import complaint
from vidiffedu.denoise import (
    FromNoise,
    FromScore,
    FromV,
    FromVelocity,
    Preconditioned,
    ScaledInput,
    denoising_loss,
    known_end,
    noise_weight,
    to_noise,
    to_score,
    to_v,
    to_velocity,
    v_weight,
)
from vidiffedu.paths import (
    VE,
    VP,
    Bridge,
    Cosine,
    RectifiedFlow,
    check_time,
    frame_times,
    variance_preserving,
)
from vidiffedu.sample import (
    Method,
    Tabled,
    ddim_step,
    edm_step,
    extend,
    from_estimate,
    from_guess,
    heun_step,
    ode_step,
    sample,
    sde_step,
)
from vidiffedu.times import (
    autoregressive,
    even_noise,
    grid,
    independent,
    ptss,
    pyramid,
    random_mask,
    shared,
)

PATHS = dict(VP=VP(), Cosine=Cosine(), VE=VE(0.05, 20.0), straight=RectifiedFlow(), Bridge=Bridge())
each_path = pytest.mark.parametrize("name", PATHS)
f64 = torch.float64


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def times(n=9):
    return torch.linspace(0.05, 0.95, n, dtype=f64)


def clips(b=3, f=4, size=2, seed=0):
    return torch.randn(b, f, 1, size, size, generator=seeded(seed), dtype=f64)


# ---------------------------------------------------------------- paths


def test_vp_is_the_integral_of_a_rising_noise_rate():
    t = times()
    r = torch.linspace(0, 1, 20_001, dtype=f64)
    for b0, b1 in ((0.1, 20.0), (1.0, 3.0)):
        integral = torch.stack([torch.trapezoid(b0 + (b1 - b0) * r * s, r * s) for s in t])
        assert_close(VP(b0, b1).a(t), (-integral / 2).exp(), rtol=1e-7, atol=0)
        assert_close(VP(b0, b1).c(t) ** 2, 1 - (-integral).exp(), rtol=1e-7, atol=0)


def test_cosine_is_the_papers_cumulative_product():
    t, s = times(), 0.008
    signal = lambda t: torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
    zero = torch.zeros((), dtype=f64)
    assert_close(Cosine().a(t) ** 2, signal(t) / signal(zero))
    assert_close(Cosine().c(t) ** 2, 1 - signal(t) / signal(zero))


def test_ve_noise_grows_by_a_factor():
    path, t = VE(0.02, 5.0), times()
    total = (path.c(t) ** 2 + 0.02**2).sqrt()
    assert_close(total.log().diff(), torch.full((8,), math.log(250) * 0.9 / 8, dtype=f64))
    assert_close(path.c(torch.ones((), dtype=f64)) ** 2, torch.tensor(25 - 0.02**2, dtype=f64))
    assert (path.a(t) == 1).all() and (path.b(t) == 0).all()


def test_bridge_and_straight_line():
    t = times()
    assert_close(Bridge(2.0).c(t), -2 * (1 - t) * (1 - t).log())
    top = torch.tensor(1 - 1 / math.e, dtype=f64)  # the noise is largest there: k / e
    assert_close(Bridge().c(top), torch.tensor(2**-0.5 / math.e, dtype=f64))
    assert_close(Bridge().b(t) + Bridge().a(t), torch.ones_like(t))
    assert_close(RectifiedFlow().c(t) + RectifiedFlow().a(t), torch.ones_like(t))
    assert_close(RectifiedFlow().c(t), t)
    assert Bridge.needs_y and not any(p.needs_y for p in (VP(), VE(), RectifiedFlow()))


@each_path
def test_rates_are_derivatives(name):
    path, t, h = PATHS[name], times(), 1e-6
    square = lambda t: path.c(t) ** 2
    for rate, f in zip(path.rates(t), (path.a, path.b, square)):
        assert_close(rate, (f(t + h) - f(t - h)) / (2 * h), rtol=1e-6, atol=1e-7)


@each_path
def test_time_at_inverts_sigma(name):
    path, t = PATHS[name], times()
    assert_close(path.sigma(t), path.c(t) / path.a(t))
    assert_close(path.time_at(path.sigma(t)), t, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["VP", "Cosine", "VE", "straight"])
def test_drift_and_diffusion_carry_the_law(name):
    "dm/dt = f m and dv/dt = 2 f v + g², integrated from t = 0.1 to 0.9 by the midpoint rule"
    path, n = PATHS[name], 4000
    edges = torch.linspace(0.1, 0.9, n + 1, dtype=f64)
    m, v, h = path.a(edges[0]), path.c(edges[0]) ** 2, 0.8 / n
    for f, g in zip(*(fn(edges[:-1] + h / 2) for fn in (path.drift, path.diffusion))):
        m, v = m * torch.exp(f * h), (v + g**2 * h / 2) * torch.exp(2 * f * h) + g**2 * h / 2
    assert_close(m, path.a(edges[-1]), rtol=1e-4, atol=1e-6)
    assert_close(v, path.c(edges[-1]) ** 2, rtol=1e-4, atol=1e-6)


@each_path
def test_perturb_has_the_law_of_equation_1(name):
    path, n = PATHS[name], 40_000
    t = torch.tensor([[0.0, 0.3, 0.8]], dtype=f64).expand(n, 3)
    x = torch.full((n, 3, 1, 1, 1), 0.7, dtype=f64)
    y = -x if path.needs_y else None
    x_t, noise = path.perturb(x, t, y=y, generator=seeded(1))
    mean, c = 0.7 * (path.a(t) - path.b(t))[0], path.c(t)[0]
    assert torch.equal(x_t[:, 0], x[:, 0])
    found = x_t.flatten(1)
    assert ((found.mean(0) - mean).abs() <= 5 * c / n**0.5 + 1e-9).all()
    assert (found.std(0) / c - 1)[1:].abs().max() < 5 / (2 * n) ** 0.5
    assert_close(path.perturb(x, t, y=y, noise=noise)[0], x_t)


def test_questions_to_a_path():
    one, mixed = torch.ones(2, 3), torch.tensor([[0.0, 0.5, 0.0]])
    assert VP().any_noise(mixed) and not VP().any_noise(0 * mixed)
    assert Bridge().any_fresh(one, 0.5 * one) and not Bridge().any_fresh(one, one)
    assert VP().any_fresh(0 * mixed, mixed) and not VP().any_fresh(mixed, 0 * mixed)
    kept = [p for p in PATHS if variance_preserving(PATHS[p])]
    assert kept == ["VP", "Cosine"]


def test_frame_times():
    x = clips(2, 3)
    for t in (torch.tensor(0.5), torch.tensor([0.5, 0.5]), torch.full((2, 3), 0.5)):
        assert torch.equal(frame_times(t, x), torch.full((2, 3), 0.5))
    assert frame_times(torch.tensor([0.1, 0.9]), x)[1].tolist() == pytest.approx([0.9] * 3)
    assert "t: got shape (4,)" in complaint(frame_times, torch.zeros(4), x)


def test_bad_times_and_shapes_of_a_path():
    x = clips()
    for t in (-0.1, 1.1, float("nan")):
        assert "expected times in [0, 1]" in complaint(check_time, t)
        assert "t: got" in complaint(VP().perturb, x, t)
    assert "y: got shape" in complaint(Bridge().perturb, x, 0.5, y=x[:, :1])
    assert "noise: got shape" in complaint(VP().perturb, x, 0.5, noise=x[:1])
    for bad in (lambda: VP(2.0, 1.0), lambda: VE(1.0, 0.5), lambda: Cosine(0), lambda: Bridge(0)):
        assert "expected" in complaint(bad)
    assert "sigma: got" in complaint(VP().time_at, 1e4) and "sigma: got" in complaint(
        VE().time_at, 1e4
    )


# ---------------------------------------------------------------- times


def test_training_times():
    n, g = 20_000, seeded(0)
    same, own = shared(n, 3, generator=g), independent(n, 3, generator=g)
    assert (same == same[:, :1]).all()
    for t in (same[:, 0], own[:, 0], own[:, 2]):
        assert abs(t.mean() - 0.5) < 5 * (1 / 12 / n) ** 0.5
        assert abs(t.var() - 1 / 12) < 5 * (1 / 180 / n) ** 0.5
    assert abs(torch.corrcoef(own.T)[0, 1]) < 5 / n**0.5
    for p in (0.0, 0.2, 1.0):
        split = (ptss(n, 3, p=p, generator=g).diff(dim=1) != 0).any(1).double().mean()
        assert abs(split - p) <= 5 * (p * (1 - p) / n) ** 0.5
    for _ in range(20):
        split = (ptss(8, 3, p=0.5, per_clip=False, generator=g).diff(dim=1) != 0).any(1)
        assert split.all() or not split.any()


def test_random_mask_counts():
    n, f, most, p = 60_000, 5, 3, 0.25
    known = random_mask(n, f, most, p, generator=seeded(0))
    share = known.sum(1).bincount(minlength=f + 1) / n
    want = torch.tensor([p] + [(1 - p) / most] * most + [0.0] * (f - most))
    assert ((share - want).abs() <= 5 * (want * (1 - want) / n).sqrt()).all()
    each = known.double().mean(0)  # every frame as often as any other: (1 - p) E[k] / f
    q = (1 - p) * 2 / f
    assert ((each - q).abs() < 5 * (q * (1 - q) / n) ** 0.5).all()


def test_timetables_by_their_definition():
    known = torch.tensor([0, 1, 0, 0, 1, 0], dtype=torch.bool)
    free, N = (~known).nonzero()[:, 0].tolist(), 5
    for lag in (0, 1, 3, 5):
        ts = pyramid(N, 6, lag=lag, known=known)
        assert ts.shape == (N + 1 + 3 * lag, 6) and (ts[:, known] == 0).all()
        for i, frame in enumerate(free):
            for r in range(len(ts)):
                assert ts[r, frame] == pytest.approx(min(max(1 - (r - i * lag) / N, 0), 1))
    for chunk in (1, 2, 3):
        ts = autoregressive(N, 6, chunk=chunk, known=known)
        assert len(ts) == N * math.ceil(4 / chunk) + 1
        for i, frame in enumerate(free):
            for r in range(len(ts)):
                assert ts[r, frame] == pytest.approx(min(max(1 - (r - i // chunk * N) / N, 0), 1))
    assert_close(grid(4, 2)[:, 1], torch.tensor([1, 0.75, 0.5, 0.25, 0], dtype=f64))


@pytest.mark.parametrize("name", ["VP", "VE", "Cosine", "straight", "Bridge"])
def test_even_noise(name):
    path, knee, top = PATHS[name], 0.1, 10.0
    sigma = path.sigma(even_noise(path, knee=knee, top=top)(400, 1)[:, 0])
    most = min(float(path.sigma(torch.ones((), dtype=f64)).nan_to_num(nan=math.inf)), top)
    assert sigma[0] == pytest.approx(most, rel=1e-6) and sigma[-1] == 0
    u = torch.linspace(1, 0, 401, dtype=f64)
    assert_close(torch.asinh(sigma / knee), u * math.asinh(most / knee), rtol=1e-6, atol=1e-6)


def test_bad_timetables():
    bad = torch.tensor([True, True])
    for line in (
        complaint(grid, 0, 4),
        complaint(grid, 2.5, 4),
        complaint(grid, 3, 2, known=bad),
        complaint(grid, 3, 3, known=bad),
        complaint(pyramid, 3, 4, lag=-1),
        complaint(autoregressive, 3, 4, chunk=0),
        complaint(random_mask, 2, 4, 4),
        complaint(random_mask, 2, 4, 2, 1.5),
        complaint(ptss, 2, 4, -0.1),
        complaint(even_noise, VP(), knee=2.0, top=1.0),
    ):
        assert ": got " in line and ", expected " in line, line


# ---------------------------------------------------------------- denoise


def drawn(name, seed=0):
    "x, t, y, noise and x_t on a path, every frame at its own time"
    path, x = PATHS[name], clips(seed=seed)
    t = torch.rand(3, 4, generator=seeded(seed + 1), dtype=f64) * 0.8 + 0.1
    y = clips(seed=seed + 2) if path.needs_y else None
    noise = clips(seed=seed + 3)
    return path, x, t, y, noise, path.perturb(x, t, y=y, noise=noise)[0]


@each_path
def test_dresses_of_the_true_clip(name):
    path, x, t, y, noise, x_t = drawn(name)
    wide = lambda v: v[..., None, None, None]
    assert_close(to_noise(path, x_t, x, t, y), noise)
    assert_close(to_score(path, x_t, x, t, y), -noise / wide(path.c(t)))
    h = 1e-6
    later, sooner = (path.perturb(x, t + d, y=y, noise=noise)[0] for d in (h, -h))
    assert_close(to_velocity(path, x_t, x, t, y), (later - sooner) / (2 * h), rtol=1e-5, atol=1e-5)
    if variance_preserving(path):
        assert_close(to_v(path, x_t, x, t), wide(path.a(t)) * noise - wide(path.c(t)) * x)


@pytest.mark.parametrize("wrap", [FromNoise, FromScore, FromV, FromVelocity])
@each_path
def test_wrappers_undo_them(name, wrap):
    path, x, t, y, noise, x_t = drawn(name, 10)
    wide = lambda v: v[..., None, None, None]
    if wrap is FromV and not variance_preserving(path):
        assert "path: got" in complaint(wrap, None, path)
        return
    da, db, dc2 = (wide(r) for r in path.rates(t))
    dc, end = dc2 / (2 * wide(path.c(t))), 0 if y is None else y
    says = {
        FromNoise: noise,
        FromScore: -noise / wide(path.c(t)),
        FromV: wide(path.a(t)) * noise - wide(path.c(t)) * x,
        FromVelocity: da * x + db * end + dc * noise,
    }[wrap]
    seen = []
    net = lambda x_in, t_in, cond: seen.append(cond) or says
    past = None if y is None else torch.cat([clips(seed=5), y], 1)  # y: the newest frames of cond
    assert_close(wrap(net, path)(x_t, t, past), x)
    assert seen[0] is past


def test_known_end():
    past, x_t = clips(2, 5), clips(2, 1)
    assert torch.equal(known_end(Bridge(), x_t, past), past[:, -1:])
    assert known_end(VP(), x_t, past) is None
    assert "cond: got None" in complaint(known_end, Bridge(), x_t, None)


@pytest.mark.parametrize("wrap", [ScaledInput, Preconditioned])
@pytest.mark.parametrize("name", ["VP", "VE", "straight", "Bridge"])
def test_scaled_inputs(name, wrap):
    "Variance one goes in, log(σ)/4 is the time; the linear part is the best linear guess, the rest the root of what it misses"
    path, n, sd = PATHS[name], 40_000, 0.6
    x = sd * torch.randn(n, 1, 1, 1, 1, generator=seeded(0), dtype=f64)
    y = torch.full_like(x, 0.3) if path.needs_y else None
    for s in (0.1, 0.5, 0.9):
        t, seen = torch.full((n, 1), s, dtype=f64), []
        x_t = path.perturb(x, t, y=y, generator=seeded(1))[0]
        net = lambda u, time, cond: seen.append((u, time)) or torch.ones_like(u)
        out = wrap(net, path, sd)(x_t, t, y)
        (u, time), sigma = seen[0], path.sigma(t[0])
        assert abs(u.var() - 1) < 5 * (2 / n) ** 0.5 and abs(u.mean()) < 5 / n**0.5
        assert_close(time, (sigma.log() / 4).expand(n, 1))
        if wrap is ScaledInput:
            assert (out == 1).all()
            continue
        clean = x_t if y is None else x_t - s * y
        clean = clean / path.a(t[0])  # x + σ ε
        spread = sd**2 + float(sigma) ** 2
        rest = sd * float(sigma) / spread**0.5
        assert_close(out, sd**2 / spread * clean + rest, rtol=1e-6, atol=1e-6)


def test_the_loss_by_hand():
    path, x, t, _, noise, x_t = drawn("VP", 20)
    t[0, :3], guess = 0, lambda x_t, t, y: 0.5 * x_t
    x_t = path.perturb(x, t, noise=noise)[0]
    error = ((0.5 * x_t - x) ** 2).mean((2, 3, 4))
    free = t > 0
    assert_close(denoising_loss(guess, path, x, t, noise=noise), error[free].mean())
    weighted = (error * t)[free].mean()
    assert_close(denoising_loss(guess, path, x, t, noise=noise, weight=lambda t: t), weighted)
    seen = []
    spy = lambda x_t, t, y: seen.append((x_t, t, y)) or x_t
    denoising_loss(spy, Bridge(), x, torch.tensor([0.2, 0.4, 0.6], dtype=f64), y=x, noise=noise)
    assert seen[0][2] is x and torch.equal(seen[0][1][1], torch.full((4,), 0.4, dtype=f64))


def test_weights_are_the_famous_losses():
    path, x, t, _, noise, x_t = drawn("Cosine", 30)
    wrong, a, c = 0.3 * x_t, *(v[..., None, None, None] for v in (path.a(t), path.c(t)))
    loss = lambda w: denoising_loss(lambda *_: wrong, path, x, t, noise=noise, weight=w)
    assert_close(loss(noise_weight(path)), (((x_t - a * wrong) / c - noise) ** 2).mean())
    v_error = a * (x_t - a * wrong) / c - c * wrong - (a * noise - c * x)
    assert_close(loss(v_weight(path)), (v_error**2).mean())
    assert (v_weight(path, floor=0.5)(times()) <= 4).all()
    zero = torch.zeros(3, 4, dtype=f64)
    assert (
        noise_weight(path)(zero).abs().max() == 0
    )  # a clean frame weighs nothing, it is not infinite


def test_a_loss_refuses_another_shape():
    x, t = clips(), torch.full((3, 4), 0.5)
    assert "denoise: got" in complaint(denoising_loss, lambda x, t, y: x[:, :, :, :1], VP(), x, t)
    assert "t: got" in complaint(denoising_loss, lambda x, t, y: x, VP(), x, torch.zeros(5))


# ---------------------------------------------------------------- sample


@pytest.mark.parametrize("name", ["VP", "Cosine", "VE"])
def test_ddpm_is_the_gaussian_posterior(name):
    """eta = 1 is q(x_s | x_t, x) of a Markov chain: with r = a_t / a_s and v = c_t² - r² c_s² the variance of the step,

    mean (r c_s² x_t + v a_s x) / c_t², variance v c_s² / c_t²."""
    path, x, t, _, _, x_t = drawn(name, 40)
    s = 0.7 * t
    a_t, c_t, a_s, c_s = (f(v)[..., None, None, None] for v in (t, s) for f in (path.a, path.c))
    r = a_t / a_s
    v = c_t**2 - r**2 * c_s**2
    mean = (r * c_s**2 * x_t + v * a_s * x) / c_t**2
    z = torch.randn(x.shape, generator=seeded(9), dtype=f64)
    drawn_ = ddim_step(path, x_t, x, t, s, eta=1.0, generator=seeded(9))
    assert_close(drawn_, mean + (v * c_s**2 / c_t**2).sqrt() * z, rtol=1e-6, atol=1e-8)


@each_path
def test_ddim_keeps_the_noise(name):
    path, x, t, y, noise, x_t = drawn(name, 50)
    s = 0.5 * t
    assert_close(ddim_step(path, x_t, x, t, s, y=y), path.perturb(x, s, y=y, noise=noise)[0])


STEPS = [ddim_step, lambda *a, **k: ddim_step(*a, **{**k, "eta": 1.0}), ode_step, heun_step]
STEPS += [edm_step, sde_step]


@pytest.mark.parametrize("step", STEPS)
@each_path
def test_a_table_changes_nothing(name, step):
    "A step cannot tell the path from its table, nor can it from rows that are not in the table"
    path, x, t, y, _, x_t = drawn(name, 60)
    rows = torch.stack([t, 0.6 * t, 0.6 * t * (t > 0.4), 0 * t])
    table, denoise = Tabled(path, rows, x_t), lambda x_t, t, y: 0.4 * x_t
    for i in range(3):
        here = dict(y=y, denoise=denoise)
        T, S = table.times[i], table.times[i + 1]
        one = step(table, x_t, x, T, S, generator=seeded(1), **here)
        other = step(path, x_t, x, rows[i], rows[i + 1], generator=seeded(1), **here)
        assert_close(one, other)
        assert table.any_noise(S) == path.any_noise(rows[i + 1])
        assert table.any_fresh(T, S) == path.any_fresh(rows[i], rows[i + 1])
    assert torch.equal(table.a(0.3 * t), path.a(0.3 * t))


def test_starts():
    n, t = 40_000, torch.full((40_000, 1), 0.8, dtype=f64)
    zero, y = torch.zeros(n, 1, 1, 1, 1, dtype=f64), torch.full((n, 1, 1, 1, 1), 0.5, dtype=f64)
    for path in (VP(), VE(0.05, 5.0)):
        x_t, c = from_guess(None, path, zero, t, generator=seeded(0)), path.c(t[0])
        assert abs(x_t.mean()) < 5 * c / n**0.5 and abs(x_t.std() / c - 1) < 5 / (2 * n) ** 0.5
    path, c = Bridge(), Bridge().c(t[0])
    x_t = from_guess(
        None, path, y, t, y=y, generator=seeded(0)
    )  # the known frame, as its own future
    assert abs(x_t.mean() - 0.5) < 5 * c / n**0.5 and abs(x_t.std() / c - 1) < 5 / (2 * n) ** 0.5
    says = lambda x_t, t, end: torch.full_like(x_t, -1.0) if end is y else None
    x_t = from_estimate(says, path, y, t, y=y, generator=seeded(0))
    assert abs(x_t.mean() - (0.2 * -1 + 0.8 * 0.5)) < 5 * c / n**0.5


@pytest.mark.parametrize("keep, m, n_frames", [(None, 1, 5), (2, 1, 4), (3, 2, 5), (1, 3, 1)])
def test_extend(keep, m, n_frames):
    "Frames that count on: each new one is the newest plus one"
    past, seen = torch.arange(3.0).view(1, 3, 1, 1, 1), []

    def draw(frames):
        seen.append(frames.flatten().tolist())
        return frames[:, -1:] + torch.arange(1.0, m + 1).view(1, m, 1, 1, 1)

    new = extend(draw, past, n_frames, keep=keep)
    assert new.flatten().tolist() == [3.0 + i for i in range(n_frames)]
    assert all(len(s) == (keep or 3) for s in seen) and len(seen) == math.ceil(n_frames / m)
    assert seen[-1][-1] == 2 + m * (len(seen) - 1)


class Plain(Method):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seen = []

    def denoise(self, x_t, t, y):
        self.seen.append((len(x_t), self.training, t))
        return 0 * x_t

    def future(self, past, n_frames, steps=None, generator=None, progress=False, add=0.0):
        first = self.denoise(past[:, -1:], steps, None)
        return extend(lambda x: first + x[:, -1:] + 1, past, n_frames) + add


def test_a_method_draws_in_portions():
    model = Plain().train()
    past = torch.arange(3.0)[:, None, None, None, None].expand(3, 2, 1, 2, 2)
    out = model.forecast(past, 2, n_samples=3, chunk=4, steps=7, add=10.0)
    assert out.shape == (3, 3, 2, 1, 2, 2) and model.training
    assert out[1, :, 0, 0, 0, 0].tolist() == [11.0, 12.0, 13.0]
    assert out[2, :, 1, 0, 0, 0].tolist() == [12.0, 13.0, 14.0]
    assert model.seen == [(4, False, 7), (4, False, 7), (1, False, 7)]


def test_a_denoiser_can_be_replaced():
    model, past = Plain(), torch.zeros(1, 1, 1, 2, 2)
    forecast = lambda: model.forecast(past, 1).flatten()[0].item()
    assert forecast() == 1
    model.denoise = lambda x_t, t, y: torch.full_like(x_t, 5.0)
    assert forecast() == 6

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, x_t, t, y):
            return x_t + self.weight

    model.denoise = net = Net()
    assert forecast() == 3 and any(p is net.weight for p in model.parameters())
    import copy

    twin = copy.deepcopy(model)
    twin.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
    assert twin.forecast(past, 1).flatten()[0] == 4 and forecast() == 3
    model.denoise = lambda x_t, t, y: x_t
    assert forecast() == 1 and len(list(model.parameters())) == 1


def test_doors_of_sample_and_forecast():
    x, keep, model = clips(), lambda x, t, y: x, Plain()
    nan = torch.full((1, 2, 1, 2, 2), math.nan)
    for line in (
        complaint(sample, keep, VP(), x[0], grid(3, 4)),
        complaint(sample, keep, VP(), x, grid(3, 5)),
        complaint(sample, keep, VP(), x, torch.tensor(0.5)),
        complaint(sample, keep, VP(), x, torch.tensor([0.5])),
        complaint(sample, keep, VP(), x, torch.tensor([0.5, math.nan])),
        complaint(sample, keep, VP(), x, torch.tensor([0.2, 0.5])),
        complaint(sample, keep, Bridge(), x, grid(3, 4), y=x[:1]),
        complaint(model.forecast, x, 2.0),
        complaint(model.forecast, x, 0),
        complaint(model.forecast, x, 2, n_samples=True),
        complaint(model.forecast, x, 2, steps=0),
        complaint(model.forecast, x, 2, chunk=-1),
        complaint(model.forecast, x, 2, n_samples=None),
        complaint(model.forecast, x, None),
        complaint(model.forecast, nan, 2),
        complaint(model.forecast, x[0], 2),
        complaint(extend, keep, x, 1.5),
    ):
        assert ": got " in line and ", expected " in line, line
