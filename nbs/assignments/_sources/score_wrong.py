"Answers to the assignment `score`: wrong ones that people give, and right ones written another way."

NOISY = """
def noisy(x, noise, level, lens):
    s = level.view(-1, 1, 1, 1, 1)
    return {}
"""
MEAN = """
def posterior_mean(x_t, outcomes, weights, level, lens):
    spread = level.view(-1, 1, 1, 1, 1, 1) * lens
    apart = ((x_t[:, None] - outcomes) / spread).square().flatten(2)
    {}
    return (share[:, :, None, None, None, None] * outcomes).sum(1)
"""
SCORE = """
def score_of(x_t, x_hat, level, lens):
    s = level.view(-1, 1, 1, 1, 1)
    return {}
"""
DESCEND = """
def descend(x_t, denoise, levels):
    {}
"""
LOOP = "for high, low in zip(levels[:-1], levels[1:]):"
WALK = """
def walk(x_t, score, noise, level, lens, h=0.1):
    spread = level.view(-1, 1, 1, 1, 1) * lens
    return {}
"""
MINE = """
my_probe = probe_leaves(1, q=0.7, generator=seeded(number))
my_noise = torch.randn(1, 1, 1, 16, 16, generator=seeded(number + 1))
my_level = torch.tensor([3.0])
my_frame = noisy(my_probe.outcomes[:, 0], my_noise, my_level, lens)
my_guess = posterior_mean(my_frame, my_probe.outcomes, {}, my_level, lens)
my_distance = float((my_guess - my_probe.outcomes[:, 0]).square().{}())
"""

WRONG = {
    "variance": {"solve-noisy": NOISY.format("x + s**2 * lens**2 * noise")},
    "wrong axis": {"solve-noisy": NOISY.format("x + level * lens * noise")},
    "one level": {"solve-noisy": NOISY.format("x + level[0] * lens * noise")},
    "lens forgotten": {"solve-noisy": NOISY.format("x + s * noise")},
    "in place": {"solve-noisy": NOISY.format("x.add_(s * lens * noise)")},
    "prior forgotten": {"solve-mean": MEAN.format("share = (-apart.sum(2) / 2).softmax(1)")},
    "mean for sum": {
        "solve-mean": MEAN.format("share = (weights.log() - apart.mean(2) / 2).softmax(1)")
    },
    "factor": {"solve-mean": MEAN.format("share = (weights.log() - apart.sum(2)).softmax(1)")},
    "not finite": {
        "solve-mean": MEAN.format(
            "share = weights * (-apart.sum(2) / 2).exp(); share = share / share.sum(1, keepdim=True)"
        )
    },
    "sign": {"solve-score": SCORE.format("(x_t - x_hat) / (s * lens).square()")},
    "variance 2": {"solve-score": SCORE.format("(x_hat - x_t) / (s * lens)")},
    "library": {
        "solve-score": """
from vidiffedu.denoise import to_score
from vidiffedu.paths import VE

def score_of(x_t, x_hat, level, lens):
    path = VE(0.001, 1000.0)
    return to_score(path, x_t, x_hat, path.time_at(level))
"""
    },
    "graph kept": {
        "solve-descend": DESCEND.format(
            f"""{LOOP}
        x_hat = denoise(x_t, high.expand(len(x_t)))
        x_t = x_hat + low / high * (x_t - x_hat)
    return x_t"""
        )
    },
    "one level short": {
        "solve-descend": DESCEND.format(
            """for high, low in zip(levels[:-2], levels[1:]):
        x_hat = denoise(x_t, high.expand(len(x_t))).detach()
        x_t = x_hat + low / high * (x_t - x_hat)
    return x_t"""
        )
    },
    "one look": {
        "solve-descend": DESCEND.format(
            f"""x_hat = denoise(x_t, levels[0].expand(len(x_t))).detach()
    {LOOP}
        x_t = x_hat + low / high * (x_t - x_hat)
    return x_t"""
        )
    },
    "prior forgotten 2": {"solve-mine": MINE.format("torch.tensor([0.5, 0.5])", "sum")},
    "mean for sum 2": {"solve-mine": MINE.format("weights", "mean")},
    "spread": {
        "solve-bug": WALK.format("x_t + h * spread**2 * score + (2 * h) ** 0.5 * spread**2 * noise")
    },
    "sign 2": {
        "solve-bug": WALK.format("x_t - h * spread**2 * score + (2 * h) ** 0.5 * spread * noise")
    },
    "factor 2": {"solve-bug": WALK.format("x_t + h * spread**2 * score + h**0.5 * spread * noise")},
}
SUBTLE = {"wrong axis", "one level"}
DIAGNOSIS = {"library": "lens forgotten", "sign 2": "spread", "factor 2": "spread"}
RIGHT = {
    "loops and einsum": {
        "solve-noisy": """
def noisy(x, noise, level, lens):
    return x + torch.einsum("b,hw,bfchw->bfchw", level, lens, noise)
""",
        "solve-mean": """
def posterior_mean(x_t, outcomes, weights, level, lens):
    found = []
    for one, all_of_them, s in zip(x_t, outcomes, level):
        logs = torch.stack(
            [torch.distributions.Normal(x, s * lens).log_prob(one).sum() for x in all_of_them]
        )
        logs = logs + torch.log(weights)
        share = torch.exp(logs - torch.logsumexp(logs, 0))
        found.append(torch.einsum("k,kfchw->fchw", share, all_of_them))
    return torch.stack(found)
""",
        "solve-score": """
def score_of(x_t, x_hat, level, lens):
    return torch.stack([(a - b) / (s**2 * lens**2) for a, b, s in zip(x_hat, x_t, level)])
""",
        "solve-descend": """
@torch.no_grad()
def descend(x_t, denoise, levels):
    for i in range(len(levels) - 1):
        guess = denoise(x_t, torch.full((len(x_t),), float(levels[i])))
        share = levels[i + 1] / levels[i]
        x_t = (1 - share) * guess + share * x_t
    return x_t
""",
    }
}
