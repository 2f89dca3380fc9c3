"""The worlds: what is drawn, how often, and where it moves.

Expected values come from loops over pixels, from areas in closed form, from geometry, and from the
laws that the page states. Bounds on frequencies are five standard errors."""

import math

import pytest
import torch
from torch.testing import assert_close

from vidiffedu import data
from vidiffedu.core import complaint, seeded
from vidiffedu.data import (
    Leaves,
    Probe,
    Sprites,
    bouncing,
    bouncing_roll,
    bouncing_state,
    draw_leaves,
    draw_sprites,
    drifting_leaf,
    moving_leaves,
    probe_leaves,
    scatter_leaves,
    turning_leaf,
)

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
N = 20_000


def centre(pictures):  # (... h w), 0 where there is nothing -> (... 2)
    y, x = (torch.arange(side, dtype=pictures.dtype) for side in pictures.shape[-2:])
    moments = torch.stack([(pictures.sum(-1) * y).sum(-1), (pictures.sum(-2) * x).sum(-1)], -1)
    return moments / pictures.sum((-2, -1))[..., None]


def leaf_of(clips):  # (... 1 h w) in [-1, 1] -> brightness (... h w) from 0 to 1
    return (clips[..., 0, :, :].double() + 1) / 2


def is_uniform(value, lo, hi):
    "Range, mean and mean square of a uniform law."
    value, width = value.flatten().double(), hi - lo
    assert lo - 1e-4 <= value.min() and value.max() <= hi + 1e-4
    error, u = len(value) ** -0.5, (value - lo) / width
    assert abs(u.mean() - 1 / 2) < 5 * error / 12**0.5
    assert abs(u.square().mean() - 1 / 3) < 5 * error * (1 / 5 - 1 / 9) ** 0.5


def happens(event, p):
    assert abs(event.double().mean() - p) < 5 * (p * (1 - p) / len(event)) ** 0.5 + 1e-12


# ---------------------------------------------------------------- painting


def by_hand(world, f, size):
    "One world, pixel by pixel, from back to front."
    clip = torch.full((f, 1, size, size), float(world.ground[0]))
    for t in range(f):
        for d in range(world.radius.shape[1]):
            r, grey = float(world.radius[0, d]), float(world.grey[0, d])
            cy, cx = (world.start[0, d] + t * world.velocity[0, d]).tolist()
            for i in range(size if r > 0 else 0):
                for j in range(size):
                    share = min(max(r - math.hypot(i - cy, j - cx) + 0.5, 0), 1)
                    clip[t, 0, i, j] += share * (grey - float(clip[t, 0, i, j]))
    return clip


def test_leaves_are_painted_as_pixel_by_pixel():
    worlds = scatter_leaves(6, 3, 15, disks=(1, 7), generator=seeded(0))
    clips = draw_leaves(worlds, 3, 15)
    slow = torch.stack([by_hand(worlds.take(slice(i, i + 1)), 3, 15) for i in range(6)])
    assert_close(clips, slow, rtol=0.0, atol=1e-5)


def test_the_last_disk_hides_the_others():
    "Three disks with one centre: each pixel inside the smallest, which is last, shows its grey."
    still = torch.zeros(1, 3, 2)
    radius, grey = torch.tensor([[6.0, 5.0, 3.0]]), torch.tensor([[0.9, -0.4, 0.2]])
    clip = draw_leaves(Leaves(still + 8, still, radius, grey, torch.tensor([-1.0])), 1, 17)
    values = [clip[0, 0, 0, 8, x].item() for x in (8, 12, 13)]
    assert values == pytest.approx([0.2, -0.4, -0.4 + 0.5 * (0.9 + 0.4)])  # half covered at 5
    assert clip[0, 0, 0, 0, 0] == -1.0


def test_a_clip_does_not_depend_on_its_neighbours():
    "Painted in portions sorted by the number of disks, each clip stays in its row."
    worlds = scatter_leaves(300, 4, 32, generator=seeded(1))
    together = draw_leaves(worlds, 4, 32)
    for i in (0, 17, 150, 299):
        assert torch.equal(together[i : i + 1], draw_leaves(worlds.take([i]), 4, 32))


def test_shapes_have_their_areas():
    r, grid = 6.0, torch.full((4, 1, 2), 9.0)
    one, kind = torch.ones(4, 1), torch.arange(4)[:, None]
    world = Sprites(grid, 0 * grid, r * one, kind, one, torch.zeros(4), 20)
    shaken = grid[:, None] + 0.4 * torch.rand(4, 6, 1, 2, generator=seeded(0))
    drawn = draw_sprites(world, shaken)
    cross = 2 * (2 * r) * (0.7 * r) - (0.7 * r) ** 2  # two bars less their common square
    areas = [math.pi * r**2, math.pi * r**2 * (1 - 0.4**2), (1.7 * r) ** 2, cross]
    expected = torch.tensor(areas)[:, None].expand(4, 6)
    assert_close(drawn.sum((2, 3, 4)), expected, rtol=0.04, atol=0.0)
    assert_close(centre(drawn[:, :, 0]), shaken[:, :, 0], rtol=0.0, atol=0.05)


def test_sprites_in_front_hide_those_behind():
    at = torch.full((1, 2, 2), 8.0)
    grey, kind = torch.tensor([[0.3, 0.8]]), torch.tensor([[0, 2]])
    world = Sprites(at, 0 * at, torch.tensor([[5.0, 3.0]]), kind, grey, torch.tensor([-1.0]), 17)
    row = draw_sprites(world, at[:, None])[0, 0, 0, 8]
    assert row[[8, 10, 12, 16]].tolist() == pytest.approx([0.8, 0.8, 0.3, -1.0])


@pytest.mark.parametrize("kinds", [(3,), (2, 1)])
def test_sprites_have_the_kinds_that_were_asked_for(kinds):
    state = bouncing_state(N, 20, kinds=kinds, generator=seeded(0))
    for kind in kinds:
        happens(state.kind[:, 0] == kind, 1 / len(kinds))


# ---------------------------------------------------------------- moving leaves


def test_the_law_of_moving_leaves():
    f, size = 9, 32
    worlds = scatter_leaves(N, f, size, q=0.7, generator=seeded(0))
    there = worlds.radius > 0
    count = there.sum(1)
    for k in range(2, 13):
        happens(count == k, 1 / 11)
    assert torch.equal(there, torch.arange(12) < count[:, None])  # the absent stand at the end
    is_uniform(worlds.velocity.norm(dim=-1), 0.5, 2.0)
    is_uniform(torch.atan2(*worlds.velocity.unbind(-1)), -math.pi, math.pi)
    is_uniform(worlds.centres(f)[:, f // 2], -0.5, size - 0.5)  # halfway through the clip
    is_uniform(worlds.radius[there], 2.0, 5.0)
    is_uniform(worlds.ground, -1.0, 1.0)
    is_uniform(worlds.grey[there], -1.0, 1.0)


@pytest.mark.parametrize("q", [0.0, 0.3, 0.7, 1.0])
def test_of_two_disks_the_brighter_is_in_front_with_probability_q(q):
    worlds = scatter_leaves(N, 3, 16, q=q, generator=seeded(1))
    count = (worlds.radius > 0).sum(1)
    for front, back in ((1, 0), (11, 0), (7, 4)):
        both = count > front
        happens(worlds.grey[both, front] > worlds.grey[both, back], q)


def test_without_q_depth_and_grey_are_independent():
    worlds = scatter_leaves(N, 3, 16, disks=(2, 2), generator=seeded(2))
    happens(worlds.grey[:, 1] > worlds.grey[:, 0], 0.5)


def test_a_lone_disk_moves_by_its_velocity():
    how = dict(disks=(1, 1), radius=(3, 4), speed=(2, 2))
    worlds = scatter_leaves(50, 4, 32, generator=seeded(0), **how)
    start = 15.5 - 1.5 * worlds.velocity
    worlds = worlds._replace(grey=torch.ones(50, 1), ground=-torch.ones(50), start=start)
    steps = centre(leaf_of(draw_leaves(worlds, 4, 32))).diff(dim=1)
    assert_close(steps.float(), worlds.velocity.expand(-1, 3, -1), rtol=0.0, atol=0.08)


def test_arguments_of_moving_leaves_arrive():
    how = dict(disks=(3, 3), radius=(2.0, 2.5), speed=(0.0, 0.0), grey=(0.5, 0.75), q=1.0)
    clips = moving_leaves(20, 4, 16, generator=seeded(0), **how)
    worlds = scatter_leaves(20, 4, 16, generator=seeded(0), **how)
    assert torch.equal(clips, draw_leaves(worlds, 4, 16))
    assert clips.min() >= 0.5 and clips.max() <= 0.75
    assert torch.equal(clips[:, 0], clips[:, 3])  # speed 0


# ---------------------------------------------------------------- a drifting leaf


def test_a_drifting_leaf_is_wholly_in_view_and_moves_evenly():
    leaf = leaf_of(drifting_leaf(2000, 5, 16, radius=(2.5, 4.0), generator=seeded(0)))
    mass = leaf.sum((2, 3))
    assert (mass / mass[:, :1] - 1).abs().max() < 0.03
    r = (mass.mean(1) / math.pi).sqrt()  # area π r², a little more for its edge
    assert 2.45 < r.min() and r.max() < 4.1 and abs(r.mean() - 3.25) < 0.06
    at = centre(leaf)
    even = at[:, :1] + torch.linspace(0, 1, 5)[:, None] * (at[:, 4:] - at[:, :1])
    assert_close(at, even, rtol=0.0, atol=0.06)


def test_both_ends_of_a_drift_are_uniform():
    at = centre(leaf_of(drifting_leaf(N, 3, 16, radius=(3.0, 3.0), generator=seeded(1))))
    for end in (at[:, 0], at[:, 2]):  # from 3 to 12; soft edges move a centre by up to .05
        assert end.min() > 2.95 and end.max() < 12.05
        assert abs(end.mean() - 7.5) < 5 * 9 / (12 * 2 * N) ** 0.5
        assert abs(end.std() - 9 / 12**0.5) < 0.03
    product = ((at[:, 0] - 7.5) * (at[:, 2] - 7.5)).mean()
    assert abs(product) < 5 * (81 / 12) / (2 * N) ** 0.5  # start and end are independent


# ---------------------------------------------------------------- probes


def test_the_past_of_a_probe_tells_nothing_and_its_future_differs():
    probe = probe_leaves(N, past=3, q=0.7, generator=seeded(0))
    happens(probe.happened == 0, 0.7)
    assert probe.overlap.sum((1, 2, 3, 4)).min() >= 12
    assert (probe.outcomes[:, 0] >= probe.outcomes[:, 1]).all()  # outcome 0: the brighter in front
    row = torch.arange(N)
    assert torch.equal(probe.clip[:, :3], probe.past)
    assert torch.equal(probe.clip[:, 3:], probe.outcomes[row, probe.happened])


@pytest.mark.parametrize("past", [1, 2, 4])
def test_the_disks_of_a_probe_touch_in_the_next_frame_only(past, monkeypatch):
    "No pixel is touched by both in the past; the overlap next is as deep as was asked for."
    seen = []
    paint = data.draw_leaves
    monkeypatch.setattr(data, "draw_leaves", lambda w, f, s: seen.append(w) or paint(w, f, s))
    how = dict(radius=(2.5, 3.5), depth=(2.75, 3.5), min_contrast=0.5)
    probe = probe_leaves(2000, past, 16, generator=seeded(7), **how)
    bright, dark = seen
    assert torch.equal(paint(bright, past, 16), paint(dark, past, 16))
    assert torch.equal(probe.past, paint(bright, past, 16))
    at, reach = bright.centres(past + 1), bright.radius.sum(1)
    apart = (at[:, :, 0] - at[:, :, 1]).norm(dim=-1)
    assert (apart[:, :past] > reach[:, None] + 1).all()
    is_uniform((reach - apart[:, past]), 2.75, 3.5)
    assert apart[:, past - 1].sub(reach).min() < 1.1  # and no faster than need be, at the least
    assert (at[:, past].mean(1) - 7.5).abs().max() <= 1.5 + 1e-4  # they meet near the middle
    greys = torch.cat([bright.grey, bright.ground[:, None]], 1).sort(1).values
    assert greys.diff(dim=1).min() >= 0.5 - 1e-6 and greys.abs().max() <= 1
    assert torch.equal(greys[:, 1], bright.ground)


def test_where_both_disks_cover_the_orders_differ_by_the_product():
    "With coverages α and β the two mixtures differ by α β (bright - dark)."
    at = torch.tensor([[[7.0, 6.0], [8.2, 9.1]]])
    radius, grey = torch.tensor([[3.0, 3.5]]), torch.tensor([[-0.6, 0.8]])
    front = Leaves(at, 0 * at, radius, grey, torch.tensor([0.1]))
    back = Leaves(*(v.flip(1) for v in front[:4]), front.ground)
    grid = torch.cartesian_prod(torch.arange(16.0), torch.arange(16.0))
    distance = (at[0, :, None] - grid).norm(dim=-1)
    alpha, beta = (radius[0, :, None] - distance + 0.5).clamp(0, 1)
    differ = (draw_leaves(front, 1, 16) - draw_leaves(back, 1, 16)).flatten()
    assert_close(differ, alpha * beta * 1.4, rtol=0.0, atol=1e-5)


def test_nearest_finds_what_is_nearest():
    g = seeded(0)
    probe = Probe(
        torch.zeros(3, 2, 1, 4, 4), torch.randn(3, 5, 2, 1, 4, 4, generator=g), torch.zeros(3)
    )
    x = torch.randn(7, 3, 2, 1, 4, 4, generator=g)
    index, distance = probe.nearest(x)
    for s in range(7):
        for n in range(3):
            errors = [float((x[s, n] - o).square().mean()) for o in probe.outcomes[n]]
            assert errors[index[s, n]] == min(errors) == pytest.approx(float(distance[s, n]))
    assert "x: got shape (3, 1, 1, 4, 4)" in complaint(probe.nearest, x[0, :, :1])


# ---------------------------------------------------------------- bouncing sprites


def sprite(position, velocity, radius=4.0, size=32, n=1):
    "One disk, n times."
    at = torch.tensor([[position]])
    one = torch.ones(1, 1)
    kind = torch.zeros(1, 1, dtype=torch.long)
    state = Sprites(at, torch.tensor([[velocity]]), radius * one, kind, one, -one[:, 0], size)
    return state.repeat(n)


def test_sprites_go_straight_until_they_hit():
    track, last = bouncing_roll(sprite([16.0, 20.0], [0.2, 1.5], n=50), 5, seeded(0))
    time = torch.arange(1, 6)[:, None]
    straight = torch.tensor([16.0, 20.0]) + time * torch.tensor([0.2, 1.5])
    assert_close(track[:, :, 0], straight.expand(50, 5, 2))
    assert_close(last.velocity[:, 0], torch.tensor([0.2, 1.5]).expand(50, 2))
    assert torch.equal(last.position, track[:, 4])


WALLS = {"right": [0.0, 3.2], "left": [0.0, -3.2], "below": [3.2, 0.0], "above": [-3.2, 0.0]}


@pytest.mark.parametrize("wall", WALLS)
def test_a_wall_is_left_in_every_inward_direction_alike(wall):
    "12 pixels from the wall at 3.2 a frame: it is hit in the fourth frame."
    outward = torch.tensor(WALLS[wall])
    start = sprite([15.5, 15.5], WALLS[wall], n=N)
    _, after = bouncing_roll(start, 4, seeded(2))
    unit, v = outward / 3.2, after.velocity[:, 0] / 3.2
    across = torch.stack([unit[1], -unit[0]])
    angle = torch.atan2(v @ across, -(v @ unit))  # 0: straight away from the wall
    is_uniform(angle, -math.pi / 2, math.pi / 2)
    for k in range(6):
        edge = -math.pi / 2 + k * math.pi / 6
        happens((angle >= edge) & (angle < edge + math.pi / 6), 1 / 6)


def test_what_is_left_of_a_frame_is_flown_after_the_wall():
    "At 27.1, .4 from where its centre turns, at 1.6 a frame: three quarters remain."
    track, _ = bouncing_roll(sprite([16.0, 27.1], [0.0, 1.6], n=500), 1, seeded(0))
    hit = torch.tensor([16.0, 27.5])
    assert_close((track[:, 0, 0] - hit).norm(dim=-1), torch.full((500,), 1.2))
    assert (track[:, 0, 0, 1] <= 27.5).all()


def test_sprites_keep_their_speed_and_stay_inside():
    start = bouncing_state(500, 32, sprites=2, generator=seeded(3))
    track, end = bouncing_roll(start, 200, seeded(4))
    assert_close(end.velocity.norm(dim=-1), start.velocity.norm(dim=-1), rtol=1e-4, atol=0.0)
    low = start.radius[:, None, :, None] - 0.5
    assert (track >= low).all() and (track <= 31 - low).all()
    steps = track.diff(dim=1).norm(dim=-1)  # a chord of a broken line is not longer than it
    assert (steps <= start.velocity.norm(dim=-1)[:, None] + 1e-4).all()


def test_fast_sprites_in_a_small_box_bounce_many_times_a_frame():
    start = bouncing_state(300, 9, radius=(3.0, 4.0), speed=(30.0, 30.0), generator=seeded(5))
    track, end = bouncing_roll(start, 3, seeded(6))
    low = start.radius[:, None, :, None] - 0.5
    assert (track >= low).all() and (track <= 8 - low).all()
    assert_close(end.velocity.norm(dim=-1), torch.full((300, 1), 30.0), rtol=1e-3, atol=0.0)


def test_the_law_of_bouncing_worlds():
    state = bouncing_state(N, 32, sprites=2, generator=seeded(0))
    is_uniform(state.radius, 3.0, 4.0)
    is_uniform(state.velocity.norm(dim=-1), 1.0, 2.5)
    is_uniform(torch.atan2(*state.velocity.unbind(-1)), -math.pi, math.pi)
    low = (state.radius - 0.5)[..., None]
    is_uniform((state.position - low) / (31 - 2 * low), 0.0, 1.0)
    is_uniform(state.grey, 0.2, 1.0)
    is_uniform(state.ground, -1.0, -0.6)
    for kind in range(4):
        happens(state.kind.flatten() == kind, 1 / 4)


@pytest.mark.parametrize("f", [1, 2, 6])
def test_bouncing_films_start_with_their_state(f):
    clips = bouncing(5, f, 20, sprites=2, generator=seeded(8))
    state = bouncing_state(5, 20, sprites=2, generator=seeded(8))
    assert clips.shape == (5, f, 1, 20, 20)
    assert torch.equal(clips[:, :1], draw_sprites(state, state.position[:, None]))


# ---------------------------------------------------------------- a leaf at a fork


def test_the_law_of_the_fork():
    fork = turning_leaf(N, future=2, q=0.6, generator=seeded(0))
    for outcome, p in enumerate((0.36, 0.24, 0.24, 0.16)):
        happens(fork.happened == outcome, p)
    index, distance = fork.nearest(fork.clip[:, 2:])
    assert torch.equal(index, fork.happened) and (distance == 0).all()


@pytest.mark.parametrize("turn", [90.0, 30.0])
def test_outcomes_turn_left_as_their_binary_digits_say(turn):
    "Large enough that all stays in view; (y, x): left of right, (0, 1), is up, (-1, 0)."
    how = dict(past=3, future=3, radius=(3.0, 3.0), speed=(2.0, 2.5), turn=turn)
    fork = turning_leaf(40, size=36, generator=seeded(1), **how)
    past = centre(leaf_of(fork.past))
    v = past[:, 2] - past[:, 1]
    assert_close(past[:, 1] - past[:, 0], v, rtol=0.0, atol=0.1)
    assert (past[:, 2] - 17.5).abs().max() < 1.6  # near the middle in the last frame seen
    is_uniform(v.norm(dim=-1).clamp(2.0, 2.5), 2.0, 2.5)
    at = centre(leaf_of(fork.outcomes))
    angle = math.radians(turn)
    left = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    for outcome in range(8):
        place, heading = past[:, 2], v
        for k, digit in enumerate(f"{outcome:03b}"):
            heading = heading @ left.double().T if digit == "1" else heading
            place = place + heading
            assert_close(at[:, outcome, k], place, rtol=0.0, atol=0.3)


# ---------------------------------------------------------------- all of them

WORLDS = {
    "moving": lambda g: moving_leaves(5, 4, 16, generator=g),
    "drifting": lambda g: drifting_leaf(5, 4, 16, generator=g),
    "probe": lambda g: probe_leaves(5, generator=g).clip,
    "bouncing": lambda g: bouncing(5, 4, 16, generator=g),
    "turning": lambda g: turning_leaf(5, generator=g).clip,
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", WORLDS)
def test_worlds_follow_their_generator(name, device):
    world = WORLDS[name]
    clips = world(seeded(0, device))
    assert clips.device.type == device and clips.dtype == torch.float32
    assert clips.shape[0] == 5 and clips.shape[2:] == (1, 16, 16)
    assert clips.abs().max() <= 1 + 1e-6
    state = torch.get_rng_state()
    assert torch.equal(clips, world(seeded(0, device)))
    assert not torch.equal(clips, world(seeded(1, device)))
    assert torch.equal(state, torch.get_rng_state())  # the global generator is left alone


@pytest.mark.parametrize("name", ["VideoFolder", "VortexStreet", "Lattice", "vortex_clips"])
def test_names_that_moved_say_where_they_went(name):
    with pytest.raises(ImportError, match=f"{name}: moved from vidiffedu.data to vidiffedu.v"):
        getattr(data, name)


BAD = {
    "n": [lambda: moving_leaves(0, 16, 32), lambda: drifting_leaf(2.0), lambda: bouncing(-1, 2, 9)],
    "f": [lambda: moving_leaves(2, 0, 32), lambda: bouncing(2, 0, 32), lambda: bouncing(2, 2.0, 9)],
    "size": [lambda: moving_leaves(2, 16, 32.0), lambda: bouncing(2, 8, 6), lambda: drifting_leaf(2, size=8)],
    "disks": [lambda: moving_leaves(2, 2, 9, disks=(5, 2)), lambda: moving_leaves(2, 2, 9, disks=(0, 2)),
              lambda: moving_leaves(2, 2, 9, disks=(1.5, 2))],
    "radius": [lambda: moving_leaves(2, 2, 9, radius=3.0), lambda: probe_leaves(2, radius=(-3, 3)),
               lambda: drifting_leaf(2, radius=(math.nan, 3))],
    "speed": [lambda: moving_leaves(2, 2, 9, speed=(2, 1)), lambda: turning_leaf(2, speed=(1, 2, 3))],
    "grey": [lambda: moving_leaves(2, 2, 9, grey=(-3.0, 1.0))],
    "q": [lambda: moving_leaves(2, 2, 9, q=70), lambda: probe_leaves(2, q=-0.1),
          lambda: turning_leaf(2, q=math.nan)],
    "depth": [lambda: probe_leaves(2, depth=(3, 9))],
    "min_contrast": [lambda: probe_leaves(2, min_contrast=1.5)],
    "past": [lambda: probe_leaves(2, past=0), lambda: turning_leaf(2, past=1)],
    "future": [lambda: probe_leaves(2, future=0), lambda: turning_leaf(2, future=7)],
    "sprites": [lambda: bouncing(2, 2, 9, sprites=0)],
    "kinds": [lambda: bouncing(2, 2, 9, kinds=()), lambda: bouncing(2, 2, 9, kinds=(4,))],
}  # fmt: skip


@pytest.mark.parametrize(
    "name, call", [(name, call) for name, calls in BAD.items() for call in calls]
)
def test_wrong_input_gets_one_line(name, call):
    line = complaint(call)
    assert name in line.split(":")[0] and ": got " in line and "expected" in line, line
