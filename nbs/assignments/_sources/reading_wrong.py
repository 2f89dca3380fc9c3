"Wrong answers of the assignment reading, and right ones written otherwise."

WRONG = {
    "clips counted": {
        "solve-films": """
def film_interval(a, b, film):
    d = a - b
    means = torch.stack([d[film == f].mean() for f in film.unique()])
    return float(d.mean()), float(1.96 * means.std() / len(means) ** 0.5)
"""
    },
    "population": {
        "solve-films": """
def film_interval(a, b, film):
    d = a - b
    means = torch.stack([d[film == f].mean() for f in film.unique()])
    return float(means.mean()), float(1.96 * means.std(correction=0) / len(means) ** 0.5)
"""
    },
    "clips independent": {
        "solve-films": """
def film_interval(a, b, film):
    d = a - b
    means = torch.stack([d[film == f].mean() for f in film.unique()])
    return float(means.mean()), float(1.96 * d.std() / len(d) ** 0.5)
"""
    },
    "library": {
        "solve-films": """
def film_interval(a, b, film):
    from vidiffedu.intervals import paired_interval

    mean, low, high = paired_interval(a, b)
    return float(mean), float(high - low) / 2
"""
    },
    "unpaired": {
        "solve-films": """
def film_interval(a, b, film):
    each = lambda v: torch.stack([v[film == f].mean() for f in film.unique()])
    x, y = each(a), each(b)
    return float(x.mean() - y.mean()), float(1.96 * ((x.var() + y.var()) / len(x)) ** 0.5)
"""
    },
    "no power": {
        "solve-detect": """
def detectable(spread, n, power=0.8):
    return 1.96 * spread / n**0.5
"""
    },
    "two samples": {
        "solve-detect": """
def detectable(spread, n, power=0.8):
    extra = float(torch.special.ndtri(torch.tensor(power)))
    return (1.96 + extra) * spread * (2 / n) ** 0.5
"""
    },
    "no root": {
        "solve-detect": """
def detectable(spread, n, power=0.8):
    return (1.96 + float(torch.special.ndtri(torch.tensor(power)))) * spread / n
"""
    },
    "rule of thumb": {
        "solve-best": """
def best_of(m, spread=1.0):
    return spread * (2 * torch.log(torch.tensor(float(m)))).sqrt().item()
"""
    },
    "quantile": {
        "solve-best": """
def best_of(m, spread=1.0):
    place = torch.tensor((m - 0.375) / (m + 0.25), dtype=torch.float64)
    return spread * float(torch.special.ndtri(place))
"""
    },
    "sign": {
        "solve-best": """
def best_of(m, spread=1.0):
    draws = torch.randn(200_000, m, generator=seeded(0))
    return spread * float(draws.amin(1).mean())
"""
    },
    "overlap": {
        "solve-claims": """
claims = {
    1: "not carried",
    2: "carried",
    3: "contradicted",
    4: "not carried",
    5: "not carried",
    6: "contradicted",
}
"""
    },
    "seeds": {
        "solve-claims": """
claims = {
    1: "carried",
    2: "contradicted",
    3: "contradicted",
    4: "not carried",
    5: "carried",
    6: "contradicted",
}
"""
    },
    "one training": {
        "solve-papers": """
papers = {"A": "carried", "B": "not carried", "C": "carried", "D": "contradicted"}
"""
    },
    "chosen on test": {
        "solve-bug": """
def report(validation, test):
    best = int(test.mean(1).argmin())
    score = test[best]
    return best, float(score.mean()), float(1.96 * score.std() / len(score) ** 0.5)
"""
    },
    "other choice": {
        "solve-bug": """
def report(validation, test):
    best = int((validation.mean(1) + 0.3 * test.mean(1)).argmin())
    score = test[best]
    return best, float(score.mean()), float(1.96 * score.std() / len(score) ** 0.5)
"""
    },
    "not caught": {
        "solve-catch": """
def exposes(tell):
    scores = torch.rand(5, 20)
    return tell(scores, scores)[0] != int(scores.mean(1).argmin())
"""
    },
    "both sets are reported": {
        "solve-catch": """
def exposes(tell):
    validation, test = torch.rand(2, 6, 15, generator=seeded(0)).unbind()
    first, mean, _ = tell(validation, test)
    if abs(mean - float(validation[first].mean())) < 1e-6:
        return True
    return any(tell(validation, test.roll(k, 0))[0] != first for k in range(6))
"""
    },
}
SUBTLE = {
    "no power",
    "rule of thumb",
    "quantile",
    "overlap",
    "seeds",
    "one training",
    "other choice",
    "both sets are reported",
}
DIAGNOSIS = {"library": "clips counted"}
RIGHT = {
    "other forms": {
        "solve-films": """
def film_interval(a, b, film):
    _, index, count = film.unique(return_inverse=True, return_counts=True)
    total = torch.zeros(len(count), dtype=a.dtype).index_add(0, index, a - b)
    mean, low, high = __import__("vidiffedu.intervals").intervals.mean_interval(total / count)
    return float(mean), float(high - mean)
""",
        "solve-detect": """
def detectable(spread, n, power=0.8):
    low, high = 0.0, 100.0  # in standard errors
    normal = torch.distributions.Normal(0.0, 1.0)
    for _ in range(60):
        at = (low + high) / 2
        passes = float(normal.cdf(torch.tensor(at - 1.96, dtype=torch.float64)))
        low, high = (at, high) if passes < power else (low, at)
    return at * spread / n**0.5
""",
        "solve-best": """
def best_of(m, spread=1.0):
    total, parts = 0.0, 20
    for part in range(parts):
        total += float(-torch.randn(20_000, m, generator=seeded(part)).amin(1).mean())
    return spread * (total / parts if m > 1 else 0.0)
""",
        "solve-claims": """
no, open_ = "contradicted", "Not carried"
claims = {1: "Carried ", 2: no, 3: no, 4: open_, 5: open_, 6: no}
""",
        "solve-papers": """
papers = dict(A="carried", B="not carried", C="not carried", D="contradicted")
""",
        "solve-bug": """
def report(validation, test):
    order = validation.double().mean(dim=1).sort(stable=True).indices
    best = order[0].item()
    half = 1.96 * (test[best].var() / test.shape[1]) ** 0.5
    return best, test[best].mean().item(), half.item()
""",
        "solve-catch": """
def exposes(tell):
    for seed in range(20):
        validation, test = torch.rand(2, 5, 9, generator=seeded(seed)).unbind()
        best, mean, _ = tell(validation, test)
        if abs(mean - test[best].mean().item()) > 1e-5:
            return True
        if any(tell(validation, test.roll(k, 0))[0] != best for k in range(1, 5)):
            return True
    return False
""",
    }
}
