"Wrong answers of the assignment bridge, and right ones written otherwise."

WRONG = {
    "ends swapped": {
        "solve-noised": """
def noised(x, y, t, noise, k=1.0):
    t = t[:, None, None, None, None]
    return t * x + (1 - t) * y + k * (t * (1 - t)).sqrt() * noise
"""
    },
    "variance": {
        "solve-noised": """
def noised(x, y, t, noise, k=1.0):
    t = t[:, None, None, None, None]
    return (1 - t) * x + t * y + k * t * (1 - t) * noise
"""
    },
    "k squared": {
        "solve-noised": """
def noised(x, y, t, noise, k=1.0):
    t = t[:, None, None, None, None]
    return (1 - t) * x + t * y + k**2 * (t * (1 - t)).sqrt() * noise
"""
    },
    "wrong axis": {
        "solve-noised": """
def noised(x, y, t, noise, k=1.0):
    t = t if len(t) == x.shape[-1] else t[:, None, None, None, None]
    return (1 - t) * x + t * y + k * (t * (1 - t)).sqrt() * noise
"""
    },
    "library": {
        "solve-noised": """
def noised(x, y, t, noise, k=1.0):
    from vidiffedu.paths import Bridge

    return Bridge(k).perturb(x, t, y, noise)[0]
"""
    },
    "library 2": {
        "solve-level": """
def time_at(sigma, k=1.0):
    from vidiffedu.paths import Bridge

    return Bridge(k).time_at(sigma)


def share_above(sigma, k=1.0):
    return 1 - time_at(sigma, k)
"""
    },
    "k": {
        "solve-level": """
def time_at(sigma, k=1.0):
    return sigma**2 / (1 + sigma**2)


def share_above(sigma, k=1.0):
    return 1 / (1 + sigma**2)
"""
    },
    "share below": {
        "solve-level": """
def time_at(sigma, k=1.0):
    return sigma**2 / (k**2 + sigma**2)


def share_above(sigma, k=1.0):
    return sigma**2 / (k**2 + sigma**2)
"""
    },
    "standard deviation": {
        "solve-estimate": """
def estimate(x_t, y, t, outcomes, chance, k=1.0):
    u = t[:, None, None, None, None]
    off = (x_t - u * y)[:, None] - (1 - u)[:, None] * outcomes
    c = (k * (t * (1 - t)).sqrt())[:, None]
    weight = (chance.log() - off.square().sum((2, 3, 4, 5)) / (2 * c)).softmax(1)
    return torch.einsum("bm,mfchw->bfchw", weight, outcomes)
"""
    },
    "mean of pixels": {
        "solve-estimate": """
def estimate(x_t, y, t, outcomes, chance, k=1.0):
    u = t[:, None, None, None, None]
    off = (x_t - u * y)[:, None] - (1 - u)[:, None] * outcomes
    c = (k * (t * (1 - t)).sqrt())[:, None]
    weight = (chance.log() - off.square().mean((2, 3, 4, 5)) / (2 * c**2)).softmax(1)
    return torch.einsum("bm,mfchw->bfchw", weight, outcomes)
"""
    },
    "weight of x": {
        "solve-estimate": """
def estimate(x_t, y, t, outcomes, chance, k=1.0):
    u = t[:, None, None, None, None]
    off = (x_t - u * y)[:, None] - outcomes
    c = (k * (t * (1 - t)).sqrt())[:, None]
    weight = (chance.log() - off.square().sum((2, 3, 4, 5)) / (2 * c**2)).softmax(1)
    return torch.einsum("bm,mfchw->bfchw", weight, outcomes)
"""
    },
    "overflow": {
        "solve-estimate": """
def estimate(x_t, y, t, outcomes, chance, k=1.0):
    u = t[:, None, None, None, None]
    off = (x_t - u * y)[:, None] - (1 - u)[:, None] * outcomes
    c = (k * (t * (1 - t)).sqrt())[:, None]
    p = chance * (-off.square().sum((2, 3, 4, 5)) / (2 * c**2)).exp()
    return torch.einsum("bm,mfchw->bfchw", p / p.sum(1, keepdim=True), outcomes)
"""
    },
    "variance 2": {
        "solve-step": """
def step(x_t, x_hat, t, s, noise, k=1.0):
    t, s = (v[:, None, None, None, None] for v in (t, s))
    return x_hat + s / t * (x_t - x_hat) + k**2 * s * (t - s) / t * noise
"""
    },
    "whole bridge": {
        "solve-step": """
def step(x_t, x_hat, t, s, noise, k=1.0):
    t, s = (v[:, None, None, None, None] for v in (t, s))
    return x_hat + s / t * (x_t - x_hat) + k * (s * (1 - s)).sqrt() * noise
"""
    },
    "wrong axis 2": {
        "solve-step": """
def step(x_t, x_hat, t, s, noise, k=1.0):
    if len(t) != x_t.shape[-1]:
        t, s = (v[:, None, None, None, None] for v in (t, s))
    return x_hat + s / t * (x_t - x_hat) + k * (s * (t - s) / t).sqrt() * noise
"""
    },
    "sign": {
        "solve-bug": """
def slide(x_t, x_hat, y, t, s, k=1.0):
    t, s = (v[:, None, None, None, None] for v in (t, s))
    noise = (x_t - (1 - t) * x_hat + t * y) / (k * (t * (1 - t)).sqrt())
    return (1 - s) * x_hat + s * y + k * (s * (1 - s)).sqrt() * noise
"""
    },
    "differs": {
        "solve-bug": """
def slide(x_t, x_hat, y, t, s, k=1.0):
    t, s = (v[:, None, None, None, None] for v in (t, s))
    noise = (x_t - (1 - t) * x_hat - t * y) / (k * (t * (1 - t)).sqrt())
    return (1 - s) * x_hat + s * y + k * (t * (1 - t)).sqrt() * noise
"""
    },
    "not caught": {
        "solve-catch": """
def exposes(move):
    x, zero, half = torch.ones(1, 1, 1, 2, 2), torch.zeros(1, 1, 1, 2, 2), torch.tensor([0.5])
    return not torch.allclose(move(noised(x, zero, half, x), x, zero, half, half / 2),
                              noised(x, zero, half / 2, x))
"""
    },
    "variance in place of spread": {
        "solve-catch": """
def exposes(move):
    x, y, noise = torch.randn(3, 4, 1, 1, 3, 3).unbind()
    t = torch.tensor([0.2, 0.5, 0.7, 0.9])
    there = move(noised(x, y, t, noise), x, y, t, t)
    return not torch.allclose(there, noised(x, y, t, noise), atol=1e-4)
"""
    },
}
SUBTLE = {
    "k squared",
    "wrong axis",
    "k",
    "standard deviation",
    "mean of pixels",
    "weight of x",
    "wrong axis 2",
    "differs",
    "variance in place of spread",
}
DIAGNOSIS = {"library": "differs", "library 2": "paper's bridge"}
RIGHT = {
    "other forms": {
        "solve-noised": """
def noised(x, y, t, noise, k=1.0):
    from vidiffedu.core import expand

    t = expand(t, x)
    return torch.lerp(x, y, t) + noise * torch.sqrt(t - t**2) * k
""",
        "solve-level": """
def time_at(sigma, k=1.0):
    odds = (sigma / k) ** 2
    return odds / (1 + odds)


def share_above(sigma, k=1.0):
    return 1 - time_at(sigma, k)
""",
        "solve-estimate": """
def estimate(x_t, y, t, outcomes, chance, k=1.0):
    class Mine(Schedule):
        needs_y = True

        def a(self, t):
            return 1 - t

        def b(self, t):
            return t

        def c(self, t):
            return k * (t * (1 - t)).sqrt()

    return Points(outcomes, chance).denoiser(Mine())(x_t, t, y)
""",
        "solve-step": """
def step(x_t, x_hat, t, s, noise, k=1.0):
    share = (s / t)[:, None, None, None, None]
    left = (t - s)[:, None, None, None, None]
    return torch.lerp(x_hat, x_t, share) + k * (share * left).sqrt() * noise
""",
        "solve-bug": """
def slide(x_t, x_hat, y, t, s, k=1.0):
    t, s = (v[:, None, None, None, None] for v in (t, s))
    ratio = (s * (1 - s) / (t * (1 - t))).sqrt()
    return torch.lerp(x_hat, y, s) + ratio * (x_t - torch.lerp(x_hat, y, t))
""",
        "solve-catch": """
def exposes(move):
    for t, s in ((0.3, 0.1), (0.5, 0.25), (0.8, 0.45)):
        x, y, e = torch.rand(3, 1, 2, 1, 2, 2)
        at = lambda u: (1 - u) * x + u * y + (u * (1 - u)) ** 0.5 * e
        out = move(at(t), x, y, torch.tensor([t]), torch.tensor([s]))
        if (out - at(s)).abs().max() > 1e-4:
            return True
    return False
""",
    }
}
