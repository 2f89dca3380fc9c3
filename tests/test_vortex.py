"""The lattice Boltzmann solver and its films: conservation, exact solutions, published frequencies, bad input.

Expected values come from closed forms (viscosity, parabola with its slip, speed of sound), from a second implementation on a torus, from
symmetry, and from the published Strouhal interval of the channel benchmark."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from vidiffedu.core import complaint, seeded
from vidiffedu.vortex import Lattice, VortexStreet, equilibrium, vortex_clips

C = torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1], [1, -1], [-1, 1]])
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def noise(*shape, seed=0):
    return 0.03 * torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def torus_tick(f, tau):
    "Hop, then collide, one node at a time in spirit: roll and relax."
    f = torch.stack([p.roll((y, x), (0, 1)) for p, (x, y) in zip(f, C.tolist())])
    return f + (equilibrium(f.sum(0), torch.einsum("ia, ihw -> ahw", C.to(f), f)) - f) / tau


def test_moments_of_the_equilibrium():
    rho, u, c = noise(4, 5), noise(2, 4, 5, seed=1), C.double()
    f = equilibrium(rho, u)
    assert_close(f.sum(0), rho)
    assert_close(torch.einsum("ia, ihw -> ahw", c, f), u)
    assert_close(
        torch.einsum("ia, ib, ihw -> abhw", c, c, f),
        rho / 3 * torch.eye(2).double()[..., None, None] + u[:, None] * u,
    )


@pytest.mark.parametrize("tau", [0.52, 0.8, 1.7])
def test_slippery_walls_are_mirrors(tau):
    "A box with slippery walls is half of a torus; odd sizes, so that no axis can be confused."
    u = noise(2, 7, 10)
    whole = torch.cat([u, u.flip(1) * torch.tensor([1.0, -1.0])[:, None, None]], 1)
    f = equilibrium(0 * whole[0], whole)
    for _ in range(60):
        f = torus_tick(f, tau)
    box = Lattice(
        torch.zeros(7, 10, dtype=torch.bool),
        torch.tensor([tau], dtype=torch.float64),
        start=u[None],
        slip=True,
    ).step(60)
    assert_close(box.populations[0], f[:, :7])
    assert box.ticks == 60


def test_mass_is_conserved_and_walls_hold():
    solid = torch.zeros(14, 18, dtype=torch.bool)
    solid[:, [0, -1]] = True
    solid[5:8, 6:9] = True
    box = Lattice(solid, torch.tensor([0.55, 0.9]).double(), start=noise(2, 2, 14, 18))
    before, energy = box.density().sum((1, 2)), box.velocity().square().sum()
    after = box.step(2000).density().sum((1, 2))
    assert_close(before, after, atol=1e-13, rtol=0.0)
    assert box.velocity().square().sum() < 0.1 * energy  # friction at the walls
    assert (box.velocity()[:, :, solid] == 0).all() and (box.density()[:, solid] == 0).all()


def test_bounces_turn_momentum_round_exactly():
    "One population flies at a wall and comes back after two ticks to where it was, without collisions (tau without limit)."
    box = Lattice(torch.zeros(9, 9, dtype=torch.bool), torch.tensor([1e15]).double())
    box.populations[0, 5, 8, 4] = 1.0  # (1, 1) from the last row
    box.step(1)
    assert abs(box.populations[0, 6, 8, 4] - 1) < 1e-12 and abs(box.populations.sum() - 1) < 1e-12
    box.step(1)
    assert abs(box.populations[0, 6, 7, 3] - 1) < 1e-12


@pytest.mark.parametrize("tau", [0.6, 1.0, 1.8])
def test_poiseuille_with_the_exact_slip(tau):
    off = []
    for h in (6, 12):
        nu, y = (tau - 0.5) / 3, torch.arange(h).double() + 0.5
        box = Lattice(
            torch.zeros(h, 3, dtype=torch.bool),
            torch.tensor([tau], dtype=torch.float64),
            force=1e-6 / h**2,
        )
        u = box.step(int(3 * h**2 / nu)).velocity()[0]
        slip = box.force / (24 * nu) * (16 * (tau - 0.5) ** 2 - 3)
        peak = box.force * h**2 / (8 * nu)
        assert_close(
            u[0] / peak,
            ((box.force / (2 * nu) * y * (h - y) + slip) / peak)[:, None].expand(h, 3),
            atol=1e-8,
            rtol=0.0,
        )
        assert u[1].abs().max() < 1e-12 * peak + 1e-15
        off.append(float((u[0, :, 0] - box.force / (2 * nu) * y * (h - y)).abs().max() / peak))
    assert abs(math.log2(off[0] / off[1]) - 2) < 0.01


def test_viscosity_of_every_run_is_its_own():
    h, taus = 32, torch.tensor([0.52, 0.7, 1.2]).double()
    y = torch.arange(h).double() + 0.5
    wave = torch.cos(math.pi / h * y)  # slips at both walls
    start = torch.zeros(3, 2, h, 4).double()
    start[:, 0] = 0.01 * wave[:, None]
    box, k = (
        Lattice(torch.zeros(h, 4, dtype=torch.bool), taus, start=start, slip=True).step(100),
        math.pi / h,
    )
    first = box.velocity()[:, 0, :, 0] @ wave
    found = torch.log(first / (box.step(300).velocity()[:, 0, :, 0] @ wave)) / (300 * k**2)
    assert_close(found, (taus - 0.5) / 3, atol=0.0, rtol=k**2)


def test_a_taylor_green_vortex_keeps_its_shape_and_decays():
    """Whirls of stream function sin(kx x) sin(ky y) between slippery walls, ends joined: an exact
    solution of Navier-Stokes, in which pressure balances what carries momentum along."""
    h, w, tau = 24, 48, 0.6
    kx, ky, nu = 2 * math.pi / w, math.pi / h, (tau - 0.5) / 3
    x, y = torch.arange(w).double() + 0.5, (torch.arange(h).double() + 0.5)[:, None]
    u = ky * torch.sin(kx * x) * torch.cos(ky * y)
    v = -kx * torch.cos(kx * x) * torch.sin(ky * y)
    start = torch.stack([u, v])[None] * (0.03 / ky)
    box = Lattice(
        torch.zeros(h, w, dtype=torch.bool), torch.tensor([tau]).double(), start, slip=True
    )
    before = box.step(200).velocity()
    fades = math.exp(-nu * (kx**2 + ky**2) * 300)
    error = (box.step(300).velocity() - fades * before).abs().max() / before.abs().max()
    assert fades < 0.75 and error < 2 * ky**2


def test_each_rule_of_the_edges():
    """One tick without collisions (tau without limit), from noise: what arrives at the rim is what
    the table of the page says, with weights 1/9 along an axis."""
    inflow = torch.linspace(0.05, 0.1, 7).double()
    solid = torch.zeros(7, 9, dtype=torch.bool)
    solid[3, 4] = True
    for slip in (False, True):
        box = Lattice(solid, torch.tensor([1e15]).double(), inflow=inflow, slip=slip)
        box.populations.copy_(noise(1, 9, 7, 9).masked_fill(solid, 0))
        old, new = box.populations[0].clone(), box.step(1).populations[0]
        piston = 6 * inflow / 9  # 6 w c·u, back as by a piston
        assert_close(new[1, :, 0], old[2, :, 0] + piston)
        rest = 1 / 9 * (3 * -inflow + 4.5 * inflow**2 - 1.5 * inflow**2)  # equation 2, density 1
        assert_close(new[2, :, -1], 0.9 * old[2, :, -1] + 0.1 * rest)
        assert_close(new[1, 3, 5], old[2, 3, 5])  # back from the solid node
        assert_close(new[3, 0, 1:-1], old[4, 0, 1:-1])  # from the wall: straight back either way
        mirrored = old[7, 0, 0:6]  # (1, -1) hits the wall one node on and turns to (1, 1)
        back = old[6, 0, 1:7]  # what went there from here, (-1, -1)
        assert_close(new[5, 0, 1:7], mirrored if slip else back)


def test_what_flows_in_flows_out():
    "The piston's flow is exact, node by node in the mean over the rows; after the start as much leaves."
    street = VortexStreet(
        [40.0, 90.0], (32, 64), 6.0, 0.1, generator=seeded(0), dtype=torch.float64
    ).step(4000)
    mean = street.velocity()[:, 0].mean(1) / street.u_in
    assert_close(mean[:, 0], torch.ones(2).double(), atol=2e-3, rtol=0.0)
    assert_close(mean[:, -2], torch.ones(2).double(), atol=2e-2, rtol=0.0)
    assert street.lattice.density().abs().max() < 0.05


def test_runs_of_a_batch_do_not_mix():
    "Two runs together are each what they are alone (same wind, since `gust` is 0 and the start is set by hand)."
    alone = [
        VortexStreet(v, (24, 40), 6.0, gust=0.0, dtype=torch.float64).step(300).velocity()
        for v in (40.0, 90.0)
    ]
    both = (
        VortexStreet([40.0, 90.0], (24, 40), 6.0, gust=0.0, dtype=torch.float64)
        .step(300)
        .velocity()
    )
    assert_close(both, torch.cat(alone))
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_symmetry_is_broken_by_the_wind_only():
    def skew(gust):
        u, v = (
            VortexStreet(100.0, (32, 64), 6.0, gust=gust, generator=seeded(1), dtype=torch.float64)
            .step(2000)
            .velocity()[0]
            / 0.1
        )
        return float(max((u - u.flip(0)).abs().max(), (v + v.flip(0)).abs().max()))

    assert skew(0.0) < 1e-9 and skew(0.3) > 0.1


def test_curl_of_known_fields_and_its_range():
    street = VortexStreet(50.0, (16, 32), 4.0)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(32.0), indexing="ij")
    street.velocity = lambda: torch.stack([-2e-3 * y, 5e-3 * x])[None]
    fluid = ~street.lattice.solid
    assert_close(street.curl()[0, fluid], torch.full((int(fluid.sum()),), 7e-3))  # ∂v/∂x - ∂u/∂y
    frame = street.vorticity(span=1.0)
    assert frame.shape == (1, 1, 16, 32)
    assert_close(frame[0, 0, fluid], torch.full((int(fluid.sum()),), 7e-3 * 4 / 0.1))
    assert street.vorticity(span=0.1).max() == 1.0
    assert (frame[0, 0, ~fluid] == 0).all()


def test_the_post_stands_where_the_page_says():
    solid = VortexStreet(50.0, (40, 80), 10.0).lattice.solid.double()
    y, x = torch.arange(40).double(), torch.arange(80).double()
    at = (solid.sum(0) @ x / solid.sum(), solid.sum(1) @ y / solid.sum())
    assert at == pytest.approx((79 / 4, 39 / 2), abs=0.26)  # nodes are whole numbers
    assert abs(solid.sum() / (math.pi * 10**2 / 4) - 1) < 0.1
    moved = VortexStreet(50.0, (40, 80), 10.0, centre=(30, 12)).lattice.solid
    assert moved[8:17, 30].all() and moved.sum(1)[8:17].sum() == moved.sum()


def test_a_channel_is_judged_by_its_fastest_stream():
    "A parabola of mean u_in is 1.5 u_in in the middle: at .2 viscosity must be 6 * .3**3 or more."
    for channel, fastest in ((False, 0.2), (True, 0.3)):
        line = complaint(VortexStreet, 1e6, (32, 64), 6.0, 0.2, channel=channel)
        most = int(0.2 * 6.0 / (6 * fastest**3) + 1e-6)
        assert f"to {most}, the stable range" in line


def test_reynolds_decides_between_rest_and_street():
    street = VortexStreet([25.0, 100.0], (48, 96), 9.0, generator=seeded(0)).step(4000)
    swing = (
        torch.stack([street.step(40).velocity()[:, 1, 24, 48] for _ in range(40)], 1).abs().amax(1)
        / street.u_in
    )
    assert swing[0] < 0.03 and swing[1] > 0.3
    assert (street.u_in, street.diameter, street.reynolds.tolist()) == (0.1, 9.0, [25.0, 100.0])
    assert_close(street.viscosity, torch.tensor([0.036, 0.009]))  # u_in * diameter / reynolds
    assert_close(street.lattice.tau, torch.tensor([0.608, 0.527]))  # 1/2 + 3 * viscosity


def test_strouhal_number_of_the_channel_benchmark():
    "Published: 0.2950 to 0.3050 [schafer1996benchmark, 2D-2]. A post of 10 nodes is a coarse staircase: 3% more either way."
    street = VortexStreet(
        100.0, (41, 120), 10.0, 0.05, centre=(19.5, 19.5), channel=True, generator=seeded(0)
    ).step(7000)
    v = torch.stack([street.step(20).velocity()[0, 1, 20, 60] for _ in range(400)]).double()
    v = (v - v.mean()) * torch.hann_window(400, dtype=torch.float64)
    peak = int(torch.fft.rfft(F.pad(v, (0, 63 * 400))).abs().argmax())
    assert 0.295 * 0.97 < peak / (64 * 400 * 20) * street.diameter / street.u_in < 0.305 * 1.03


@pytest.mark.parametrize("device", DEVICES)
def test_clips(device):
    how = dict(size=(16, 32), every=30, warm=300)
    clips = vortex_clips([60.0, 90.0], 4, 3, generator=seeded(0, device), **how)
    assert (
        clips.shape == (4, 3, 1, 16, 32)
        and clips.device.type == device
        and clips.dtype == torch.float32
    )
    assert clips.abs().max() <= 1 and clips.std() > 0.05
    assert torch.equal(clips, vortex_clips([60.0, 90.0], 4, 3, generator=seeded(0, device), **how))
    assert not torch.equal(
        clips, vortex_clips([60.0, 90.0], 4, 3, generator=seeded(1, device), **how)
    )
    longer = vortex_clips(
        [60.0, 90.0], 2, 6, generator=seeded(0, device), **how
    )  # the same frames, cut otherwise
    assert torch.equal(clips, longer.reshape(4, 3, 1, 16, 32))
    street = VortexStreet([60.0, 90.0], (32, 64), 6.0, generator=seeded(0, device)).step(300)
    assert_close(clips[::2, 0], F.avg_pool2d(street.vorticity(), 2))  # first at `warm`, averaged


def test_threads_are_set_while_it_steps_and_put_back(monkeypatch):
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        street = VortexStreet(60.0, (24, 40), 6.0, generator=seeded(0), dtype=torch.float64)
        step = street.lattice.step
        street.lattice.step = lambda n: seen.append(torch.get_num_threads()) or step(n)
        street.step(2)
        street.threads = 3
        street.step(2)
        assert seen == [1, 3] and torch.get_num_threads() == 2
        del street.lattice.step
        start = street.lattice.populations.clone()
        street.lattice.trial(5)
        assert torch.equal(street.lattice.populations, start) and street.lattice.ticks == 4
        asked = VortexStreet(60.0, (24, 40), 6.0, dtype=torch.float64, gust=0.0, threads=None)
        alone = VortexStreet(60.0, (24, 40), 6.0, dtype=torch.float64, gust=0.0, threads=1)
        assert_close(asked.step(7).velocity(), alone.step(7).velocity())
        assert asked.threads in (1, 2) and asked.lattice.ticks == 7
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("u_in, diameter", [(0.1, 6.0), (0.05, 6.0), (0.2, 6.0)])
def test_the_edge_of_the_stable_range_is_stable(u_in, diameter):
    line = complaint(VortexStreet, 1e6, (32, 64), diameter, u_in)
    most = float(line.split(" to ")[1].split(",")[0])
    VortexStreet(most, (32, 64), diameter, u_in, generator=seeded(0)).step(
        int(40 * diameter / u_in)
    )


def test_a_flow_that_blows_up_says_so(monkeypatch):
    monkeypatch.setattr(VortexStreet, "_check", lambda *args: None)
    street = VortexStreet(1e4, (32, 64), 6.0, generator=seeded(0))
    line = complaint(lambda: [street.step(500) for _ in range(40)])
    assert line.startswith("reynolds: got [10000.0]") and "blown up" in line


@pytest.mark.parametrize(
    "how, words",
    [
        (dict(reynolds=2000.0), ("reynolds: got 2000", "8 to 200", "stable range")),
        (dict(reynolds=[100.0, 1.0]), ("reynolds: got 1,", "8 to 200")),
        (dict(reynolds=float("nan")), ("reynolds: got nan",)),
        (dict(reynolds=-50.0), ("reynolds: got -50",)),
        (dict(u_in=0.5), ("u_in: got 0.5", "0.2")),
        (dict(u_in=0.0), ("u_in: got 0",)),
        (dict(diameter=40.0), ("diameter: got 40", "32")),
        (dict(size=(64.5, 128)), ("size",)),
        (dict(size=64), ("size: got 64",)),
        (dict(threads=0), ("threads: got 0",)),
    ],
)
def test_wrong_streets_get_one_line(how, words):
    line = complaint(VortexStreet, **how)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    "how, word",
    [
        (dict(n=3), "n: got 3"),
        (dict(f=0), "f: got 0"),
        (dict(every=0), "every: got 0"),
        (dict(pool=0), "pool: got 0"),
        (dict(warm=5), "warm: got 5"),
        (dict(reynolds=1e5), "reynolds: got 100000"),
        (dict(f=2.0), "f: got 2.0"),
    ],
)
def test_wrong_clips_get_one_line(how, word):
    assert word in complaint(
        vortex_clips, **{**dict(reynolds=[60.0, 90.0], n=2, f=2, size=(16, 32), warm=60), **how}
    )
