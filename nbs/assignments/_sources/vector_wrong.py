"Wrong answers of the assignment vector, and right ones written otherwise."

WRONG = {
    "wrong axis": {
        "solve-circle": """
def perturb(x, t, noise):
    t = t if x.shape[-2:] == t.shape else t[:, :, None, None, None]
    return (1 - t**2).sqrt() * x + t * noise
"""
    },
    "clips and frames swapped": {
        "solve-circle": """
def perturb(x, t, noise):
    t = (t.T if t.shape[0] == t.shape[1] else t)[:, :, None, None, None]
    return (1 - t**2).sqrt() * x + t * noise
"""
    },
    "straight line": {
        "solve-circle": """
def perturb(x, t, noise):
    t = t[:, :, None, None, None]
    return (1 - t) * x + t * noise
"""
    },
    "library": {
        "solve-circle": """
def perturb(x, t, noise):
    from vidiffedu.paths import VP

    return VP().perturb(x, t, noise=noise)[0]
"""
    },
    "library 2": {
        "solve-runs": """
def run_times(b, f, keep=0.7, generator=None, device=None):
    from vidiffedu.times import ptss

    return ptss(b, f, 1 - keep, generator=generator, device=device)
"""
    },
    "first frame": {
        "solve-runs": """
def run_times(b, f, keep=0.7, generator=None, device=None):
    t = torch.rand(b, f, generator=generator)
    keeps = torch.rand(b, f, generator=generator) < keep
    return torch.where(keeps, t[:, :1], t)
"""
    },
    "one coin": {
        "solve-runs": """
def run_times(b, f, keep=0.7, generator=None, device=None):
    t = torch.rand(b, f, generator=generator)
    keeps = torch.rand(f, generator=generator) < keep
    for i in range(1, f):
        if keeps[i]:
            t[:, i] = t[:, i - 1]
    return t
"""
    },
    "not uniform": {
        "solve-runs": """
def run_times(b, f, keep=0.7, generator=None, device=None):
    t = torch.rand(b, f, generator=generator)
    for i in range(1, f):  # the new time is its own coin
        t[:, i] = torch.where(t[:, i] < keep, t[:, i - 1], t[:, i])
    return t
"""
    },
    "middle first": {
        "solve-inward": """
def inward(steps, f, lag=1):
    i = torch.arange(f)
    wait = torch.minimum(i, f - 1 - i)
    wait = lag * (wait.max() - wait)
    row = torch.arange(steps + int(wait.max()) + 1)[:, None]
    return 1 - (row - wait).clamp(0, steps).double() / steps
"""
    },
    "rows": {
        "solve-inward": """
def inward(steps, f, lag=1):
    i = torch.arange(f)
    wait = lag * torch.minimum(i, f - 1 - i)
    row = torch.arange(steps + int(wait.max()))[:, None]
    return 1 - (row - wait).clamp(0, steps).double() / steps
"""
    },
    "end together": {
        "solve-inward": """
def inward(steps, f, lag=1):
    i = torch.arange(f)
    wait = (lag * torch.minimum(i, f - 1 - i)).double()
    rows = steps + int(wait.max())
    row = torch.arange(rows + 1).double()[:, None]
    return 1 - ((row - wait) / (rows - wait)).clamp(0, 1)
"""
    },
    "no chain rule": {
        "solve-velocity": """
def velocity(x_t, x_hat, t, t_dot):
    moves = (t_dot != 0)[:, :, None, None, None]
    t = t[:, :, None, None, None].clamp(1e-6, 1 - 1e-6)
    a = (1 - t**2).sqrt()
    return (-t / a * x_hat + (x_t - a * x_hat) / t) * moves
"""
    },
    "standing still": {
        "solve-velocity": """
def velocity(x_t, x_hat, t, t_dot):
    t, speed = (v[:, :, None, None, None] for v in (t, t_dot))
    a = (1 - t**2).sqrt()
    return speed * (-t / a * x_hat + (x_t - a * x_hat) / t)
"""
    },
    "sign": {
        "solve-velocity": """
def velocity(x_t, x_hat, t, t_dot):
    t, speed = (v[:, :, None, None, None] for v in (t, t_dot))
    t = torch.where(speed != 0, t, 0.5)
    a = (1 - t**2).sqrt()
    return speed * (t / a * x_hat + (x_t - a * x_hat) / t)
"""
    },
    "wrong axis 2": {
        "solve-bug": """
def pictures(x_t, t):
    b, f = t.shape
    return x_t.reshape(b * f, *x_t.shape[2:]), t.T.reshape(b * f)
"""
    },
    "order": {
        "solve-bug": """
def pictures(x_t, t):
    return x_t.transpose(0, 1).flatten(0, 1), t.T.reshape(-1)
"""
    },
    "not caught": {
        "solve-catch": """
def exposes(flatten):
    flat, times = flatten(torch.rand(1, 5, 1, 2, 2), torch.linspace(0, 1, 5)[None])
    return not torch.allclose(times, torch.linspace(0, 1, 5))
"""
    },
    "pictures moved": {
        "solve-catch": """
def exposes(flatten):
    t = torch.arange(12.0).view(3, 4)
    flat, times = flatten(torch.zeros(3, 4, 1, 2, 2), t)
    return flat.shape != (12, 1, 2, 2) or not torch.equal(times, torch.arange(12.0))
"""
    },
}
SUBTLE = {
    "wrong axis",
    "clips and frames swapped",
    "library 2",
    "first frame",
    "one coin",
    "not uniform",
    "order",
    "pictures moved",
}
DIAGNOSIS = {"end together": "differs", "library": "differs", "library 2": "one coin a clip"}
RIGHT = {
    "other forms": {
        "solve-circle": """
def perturb(x, t, noise):
    from vidiffedu.core import expand

    angle = torch.asin(t)
    return expand(angle.cos(), x) * x + expand(angle.sin(), x) * noise
""",
        "solve-runs": """
def run_times(b, f, keep=0.7, generator=None, device=None):
    values = torch.rand((b, f), generator=generator, device=device)
    starts = torch.rand((b, f), generator=generator, device=device) >= keep
    starts[:, 0] = True
    index = torch.arange(f, device=device).expand(b, f)
    return values.gather(1, torch.where(starts, index, 0).cummax(1).values)
""",
        "solve-inward": """
def inward(steps, f, lag=1):
    from vidiffedu.times import pyramid

    depth = [min(i, f - 1 - i) for i in range(f)]
    return pyramid(steps, max(depth) + 1, lag)[:, depth]
""",
        "solve-velocity": """
def velocity(x_t, x_hat, t, t_dot):
    out = torch.zeros_like(x_t)
    j, i = (t_dot != 0).nonzero(as_tuple=True)
    s = t[j, i][:, None, None, None]
    v = x_t[j, i] / s - x_hat[j, i] / (s * (1 - s * s).sqrt())  # -t/a - a/t = -1/(a t)
    out[j, i] = t_dot[j, i][:, None, None, None] * v
    return out
""",
        "solve-bug": """
def pictures(x_t, t):
    return x_t.flatten(0, 1), t.flatten()
""",
        "solve-catch": """
def exposes(flatten):
    for b, f in ((2, 3), (3, 2), (2, 2)):
        t = torch.arange(b * f).view(b, f) / 10
        x = torch.rand(b, f, 1, 2, 2)
        flat, times = flatten(x, t)
        for n in range(b * f):
            j, i = divmod(n, f)
            if not (torch.equal(flat[n], x[j, i]) and times[n] == t[j, i]):
                return True
    return False
""",
    }
}
