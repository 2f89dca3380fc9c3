"Wrong answers of the assignment crps, and right ones written otherwise."

WRONG = {
    "no part outside": {
        "solve-interval": """
def crps_uniform(low, high, x):
    w = (high - low).clamp(min=1e-12)
    u = ((x - low) / w).clamp(0, 1)
    return w * (u**3 + (1 - u) ** 3) / 3
"""
    },
    "below": {
        "solve-interval": """
def crps_uniform(low, high, x):
    w = (high - low).clamp(min=1e-12)
    u = ((x - low) / w).clamp(0, 1)
    above = (x - high).clamp(min=0)
    inside = w * (u**3 + (1 - u) ** 3) / 3
    return torch.where(x < low, low - x, above + inside)
"""
    },
    "zero width": {
        "solve-interval": """
def crps_uniform(low, high, x):
    w = high - low
    at = torch.minimum(torch.maximum(x, low), high)
    return (x - at).abs() + ((at - low) ** 3 + (high - at) ** 3) / (3 * w**2)
"""
    },
    "chosen by the truth": {
        "solve-bright": """
def crps_above(samples, target, r):
    X, x = samples.clamp(min=r), target.clamp(min=r)
    near = (X - x).abs().mean(0)
    apart = (X[:, None] - X[None]).abs().mean((0, 1))
    return torch.where(target > r, near - apart / 2, torch.zeros_like(target))
"""
    },
    "truth not cut": {
        "solve-bright": """
def crps_above(samples, target, r):
    X = samples.clamp(min=r)
    apart = (X[:, None] - X[None]).abs().mean((0, 1))
    return (X - target).abs().mean(0) - apart / 2
"""
    },
    "wrong side": {
        "solve-bright": """
def crps_above(samples, target, r):
    X, x = samples.clamp(max=r), target.clamp(max=r)
    apart = (X[:, None] - X[None]).abs().mean((0, 1))
    return (X - x).abs().mean(0) - apart / 2
"""
    },
    "library": {
        "solve-bright": """
def crps_above(samples, target, r):
    from vidiffedu.crps import crps

    return crps(samples, target)
"""
    },
    "plain": {
        "solve-event": """
def fair_brier(samples, target, r):
    p, o = (samples > r).double().mean(0), (target > r).double()
    return (p - o) ** 2
"""
    },
    "divided by M": {
        "solve-event": """
def fair_brier(samples, target, r):
    p, o = (samples > r).double().mean(0), (target > r).double()
    return (p - o) ** 2 - p * (1 - p) / len(samples)
"""
    },
    "not strict": {
        "solve-event": """
def fair_brier(samples, target, r):
    p, o = (samples >= r).double().mean(0), (target >= r).double()
    return (p - o) ** 2 - p * (1 - p) / (len(samples) - 1)
"""
    },
    "power last": {
        "solve-frames": """
def variogram_score(samples, target, power=0.5):
    f, score = target.shape[1], 0.0
    for i in range(f):
        for j in range(i + 1, f):
            came = (target[:, i] - target[:, j]).abs() ** power
            said = (samples[:, :, i] - samples[:, :, j]).abs().mean(0) ** power
            score = score + (came - said) ** 2 / (j - i)
    return score
"""
    },
    "mean first": {
        "solve-frames": """
def variogram_score(samples, target, power=0.5):
    f, score, mean = target.shape[1], 0.0, samples.mean(0)
    for i in range(f):
        for j in range(i + 1, f):
            came = (target[:, i] - target[:, j]).abs() ** power
            score = score + (came - (mean[:, i] - mean[:, j]).abs() ** power) ** 2 / (j - i)
    return score
"""
    },
    "variance": {
        "solve-bug": """
def ensemble(mu, log_variance, members, generator=None):
    noise = torch.randn(members, *mu.shape, generator=generator, dtype=mu.dtype)
    return mu + log_variance.exp() * noise
"""
    },
    "one noise": {
        "solve-bug": """
def ensemble(mu, log_variance, members, generator=None):
    noise = torch.randn(members, *[1] * mu.ndim, generator=generator, dtype=mu.dtype)
    return mu + (log_variance / 2).exp() * noise
"""
    },
    "not caught": {
        "solve-catch": """
def exposes(make):
    X = make(torch.zeros(1000), torch.zeros(1000), 100, seeded(0))
    return bool(abs(X.std() - 1) > 0.1)
"""
    },
    "wrong above 1 only": {
        "solve-catch": """
def exposes(make):
    X = make(torch.zeros(1000), torch.full((1000,), -2.0), 100, seeded(0))
    return bool(abs(X.std() / math.exp(-1) - 1) > 0.1)
"""
    },
}
SUBTLE = {
    "below",
    "plain",
    "divided by M",
    "power last",
    "mean first",
    "one noise",
    "wrong above 1 only",
}
DIAGNOSIS = {"library": "not cut"}
RIGHT = {
    "other forms": {
        "solve-interval": """
def crps_uniform(low, high, x):
    # mean distance from x less half the mean distance of two draws, which is width / 6
    low, high, x = torch.broadcast_tensors(low, high, x)
    width, away = high - low, (x - (low + high) / 2).abs()
    within = away**2 / width.clamp(min=1e-30) + width / 4
    return torch.where(away >= width / 2, away, within) - width / 6
""",
        "solve-bright": """
def crps_above(samples, target, r):
    from vidiffedu.crps import crps

    return crps(samples.clamp(min=r), target.clamp(min=r))
""",
        "solve-event": """
def fair_brier(samples, target, r):
    M, n = len(samples), (samples > r).sum(0).double()
    pairs = n * (n - 1) / (M * (M - 1))
    return torch.where(target > r, 1 - 2 * n / M + pairs, pairs)
""",
        "solve-frames": """
def variogram_score(samples, target, power=0.5):
    i, j = torch.triu_indices(target.shape[1], target.shape[1], 1)
    came = (target[:, i] - target[:, j]).abs().pow(power)
    said = (samples[:, :, i] - samples[:, :, j]).abs().pow(power).mean(0)
    weight = (1 / (j - i).double()).view(-1, 1, 1, 1)
    return (weight * (came - said) ** 2).sum(1)
""",
        "solve-bug": """
def ensemble(mu, log_variance, members, generator=None):
    shape = (members, *mu.shape)
    mean, spread = mu.expand(shape), log_variance.exp().sqrt().expand(shape)
    return torch.normal(mean, spread, generator=generator)
""",
        "solve-catch": """
def exposes(make):
    for spread in (0.1, 0.3, 1.0, 3.0, 10.0):
        mu = torch.zeros(3000, dtype=torch.float64)
        X = make(mu, torch.full_like(mu, 2 * math.log(spread)), 3, seeded(7))
        if not 0.85 < float(X.pow(2).mean().sqrt()) / spread < 1.15:
            return True
    return False
""",
    }
}
