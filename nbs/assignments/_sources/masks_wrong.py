"Wrong answers of the assignment masks, and right ones written otherwise."

WRONG = {
    "inverted": {
        "solve-gaps": """
def gap_mask(b, f, longest, generator=None):
    length = torch.randint(1, longest + 1, (b, 1), generator=generator)
    start = (torch.rand(b, 1, generator=generator) * (f - length + 1)).long()
    i = torch.arange(f)
    return (start <= i) & (i < start + length)
"""
    },
    "cut off": {
        "solve-gaps": """
def gap_mask(b, f, longest, generator=None):
    length = torch.randint(1, longest + 1, (b, 1), generator=generator)
    start = torch.randint(0, f, (b, 1), generator=generator)
    i = torch.arange(f)
    return (i < start) | (i >= start + length)
"""
    },
    "one length": {
        "solve-gaps": """
def gap_mask(b, f, longest, generator=None):
    length = int(torch.randint(1, longest + 1, (), generator=generator))
    start = torch.randint(0, f - length + 1, (b, 1), generator=generator)
    i = torch.arange(f)
    return (i < start) | (i >= start + length)
"""
    },
    "places": {
        "solve-gaps": """
def gap_mask(b, f, longest, generator=None):
    length = torch.randint(1, longest + 1, (b, 1), generator=generator)
    start = (torch.rand(b, 1, generator=generator) * (f - length)).round().long()
    i = torch.arange(f)
    return (i < start) | (i >= start + length)
"""
    },
    "library": {
        "solve-gaps": """
def gap_mask(b, f, longest, generator=None):
    from vidiffedu.times import random_mask

    return ~random_mask(b, f, longest, 0.0, generator=generator)
"""
    },
    "place": {
        "solve-chance": """
def mask_chance(known, max_known=4, p_uncond=0.25):
    count = known.sum(1)
    some = torch.where(count <= max_known, (1 - p_uncond) / max_known, 0.0)
    return torch.where(count == 0, p_uncond, some).double()
"""
    },
    "too many": {
        "solve-chance": """
def mask_chance(known, max_known=4, p_uncond=0.25):
    f = known.shape[1]
    some = [(1 - p_uncond) / max_known / math.comb(f, n) for n in known.sum(1).tolist()]
    return torch.where(known.any(1), torch.tensor(some).double(), p_uncond)
"""
    },
    "all frames": {
        "solve-loss": """
def masked_loss(x_hat, x, known):
    return torch.where(known[:, :, None, None, None], 0.0, x_hat - x).square().mean()
"""
    },
    "channels": {
        "solve-loss": """
def masked_loss(x_hat, x, known):
    error = torch.where(known[:, :, None, None, None], 0.0, x_hat - x).square().sum(2)
    return (error.mean((2, 3)).sum(1) / (~known).sum(1)).mean()
"""
    },
    "frames equal": {
        "solve-loss": """
def masked_loss(x_hat, x, known):
    return (x_hat - x)[~known].square().mean()
"""
    },
    "NaN": {
        "solve-loss": """
def masked_loss(x_hat, x, known):
    error = (x_hat - x).square().mean((2, 3, 4)) * (~known)
    return (error.sum(1) / (~known).sum(1)).mean()
"""
    },
    "nearest": {
        "solve-walk": """
def walk_fill(x, known):
    at, i = known.nonzero()[:, 0], torch.arange(len(known))
    far = (i[:, None] - at).abs()
    return x[:, at[far.argmin(1)]], far.amin(1).to(x.dtype).sqrt()
"""
    },
    "farthest": {
        "solve-walk": """
def walk_fill(x, known):
    at, f = known.nonzero()[:, 0].tolist(), len(known)
    mean, std = x.clone(), torch.zeros(f, dtype=x.dtype)
    for i in range(f):
        left, right = [k for k in at if k <= i], [k for k in at if k >= i]
        if left and right and left[-1] != right[0]:
            m, n = i - left[-1], right[0] - i
            mean[:, i] = (n * x[:, left[-1]] + m * x[:, right[0]]) / (m + n)
            std[i] = (m * n / (m + n)) ** 0.5
        elif not known[i]:
            mean[:, i] = x[:, at[0] if left else at[-1]]
            std[i] = (i - left[-1] if left else right[0] - i) ** 0.5
    return mean, std
"""
    },
    "in place": {
        "solve-walk": """
def walk_fill(x, known):
    at, std = known.nonzero()[:, 0], torch.zeros(len(known))
    for i in range(len(known)):
        x[:, i] = x[:, at[(at - i).abs().argmin()]]
    return x, std
"""
    },
    "variance": {
        "solve-walk": """
def walk_fill(x, known):
    at, f = known.nonzero()[:, 0].tolist(), len(known)
    mean, std = x.clone(), torch.zeros(f, dtype=x.dtype)
    for i in range(f):
        left, right = [k for k in at if k <= i], [k for k in at if k >= i]
        if left and right and left[-1] != right[0]:
            m, n = i - left[-1], right[0] - i
            mean[:, i] = (n * x[:, left[-1]] + m * x[:, right[0]]) / (m + n)
            std[i] = m * n / (m + n)
        elif not known[i]:
            k = left[-1] if left else right[0]
            mean[:, i], std[i] = x[:, k], abs(i - k)
    return mean, std
"""
    },
    "one side": {
        "solve-walk": """
def walk_fill(x, known):
    at, f = known.nonzero()[:, 0].tolist(), len(known)
    mean, std = x.clone(), torch.zeros(f, dtype=x.dtype)
    for i in range(f):
        left, right = [k for k in at if k <= i], [k for k in at if k >= i]
        if left and right and left[-1] != right[0]:
            m, n = i - left[-1], right[0] - i
            mean[:, i] = (n * x[:, left[-1]] + m * x[:, right[0]]) / (m + n)
            std[i] = min(m, n) ** 0.5
        elif not known[i]:
            k = left[-1] if left else right[0]
            mean[:, i], std[i] = x[:, k], abs(i - k) ** 0.5
    return mean, std
"""
    },
    "leak": {
        "solve-bug": """
def network_input(x, x_t, known):
    here = known[:, :, None, None, None]
    blank = x.mean(1, keepdim=True).expand_as(x)
    return torch.cat([torch.where(here, x, x_t), torch.where(here, x, blank)], 2)
"""
    },
    "NaN 2": {
        "solve-bug": """
def network_input(x, x_t, known):
    here = known[:, :, None, None, None]
    blank = ((x * here).sum(1, True) / here.sum(1, True).clamp(min=1)).expand_as(x)
    return torch.cat([torch.where(here, x, x_t), torch.where(here, x, blank)], 2)
"""
    },
    "not caught": {
        "solve-catch": """
def leaks(make):
    x, x_t = torch.randn(2, 2, 4, 1, 3, 3)
    known = torch.ones(2, 4).bool()
    return not torch.equal(make(x, x_t, known), make(x.clone(), x_t, known))
"""
    },
    "bright or dark": {
        "solve-catch": """
def leaks(make):
    x, x_t = torch.rand(5, 4, 1, 3, 3), torch.rand(5, 4, 1, 3, 3)
    known = torch.eye(5, 4).bool()
    hidden = x.clone()
    hidden[~known] = torch.nan
    return bool(make(hidden, x_t, known).isnan().any())
"""
    },
    "TypeError": {
        "solve-catch": """
def leaks(make):
    x, x_t = torch.rand(2, 2, 4, 1, 3, 3)
    known = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0]]).bool()
    x = x.requires_grad_()
    out = make(x, x_t, known).sum()
    if out.requires_grad:
        out.backward()
    return bool((x.grad[~known] != 0).any())
"""
    },
    "false alarm": {
        "solve-catch": """
def leaks(make):
    x, x_t = torch.randn(2, 2, 4, 1, 3, 3)
    known = torch.tensor([[1, 0, 0, 1]] * 2).bool()
    return not torch.equal(make(x, x_t, known), make(x + 1, x_t, known))
"""
    },
    "the first clip's mask for all": {
        "solve-catch": """
def leaks(make):
    x, x_t = torch.randn(2, 3, 4, 1, 3, 3)
    known = torch.tensor([[1, 0, 0, 0]] * 3).bool()
    other = torch.where(known[:, :, None, None, None], x, -x)
    return not torch.equal(make(x, x_t, known), make(other, x_t, known))
"""
    },
}
SUBTLE = {
    "cut off",
    "one length",
    "places",
    "bright or dark",
    "the first clip's mask for all",
}
DIAGNOSIS = {"library": "scattered"}
RIGHT = {
    "other forms": {
        "solve-gaps": """
def gap_mask(b, f, longest, generator=None):
    known = torch.ones(b, f, dtype=torch.bool)
    for row in known:
        n = int(torch.randint(1, longest + 1, (1,), generator=generator))
        i = int(torch.randint(0, f - n + 1, (1,), generator=generator))
        row[i : i + n] = False
    return known
""",
        "solve-chance": """
def mask_chance(known, max_known=4, p_uncond=0.25):
    f, n = known.shape[1], known.sum(1).double()
    log_ways = math.lgamma(f + 1) - torch.lgamma(n + 1) - torch.lgamma(f - n + 1)
    p = (1 - p_uncond) / max_known * (-log_ways).exp() * (n <= max_known)
    return p.masked_fill(n == 0, p_uncond)
""",
        "solve-loss": """
def masked_loss(x_hat, x, known):
    return sum((a - b)[~k].square().mean() for a, b, k in zip(x_hat, x, known)) / len(x)
""",
        "solve-walk": """
def walk_fill(x, known):
    i, at = torch.arange(len(known)), known.nonzero()[:, 0]
    left = at[(torch.searchsorted(at, i, right=True) - 1).clamp(0, len(at) - 1)]
    right = at[torch.searchsorted(at, i).clamp(0, len(at) - 1)]
    m, n = (i - left).abs().to(x.dtype), (right - i).abs().to(x.dtype)
    inside = (left < i) & (i < right)
    share = torch.where(inside, m / (m + n).clamp(min=1), 0.0)[:, None, None, None]
    mean = (1 - share) * x[:, left] + share * x[:, right]
    return mean, torch.where(inside, m * n / (m + n).clamp(min=1), torch.minimum(m, n)).sqrt()
""",
        "solve-bug": """
def network_input(x, x_t, known):
    out = []
    for clip, noisy, k in zip(x, x_t, known):
        blank = clip[k].mean(0) if k.any() else torch.zeros_like(clip[0])
        first = [clip[i] if k[i] else noisy[i] for i in range(len(k))]
        second = [clip[i] if k[i] else blank for i in range(len(k))]
        out.append(torch.cat([torch.stack(first), torch.stack(second)], 1))
    return torch.stack(out)
""",
        "solve-catch": """
def leaks(make):
    x, x_t = torch.rand(5, 4, 1, 3, 3), torch.rand(5, 4, 1, 3, 3)
    known = torch.eye(5, 4).bool()
    for value in (-3.0, 0.0, 2.0):
        hidden = x.clone()
        hidden[~known] = value
        if (make(hidden, x_t, known) != make(x, x_t, known)).any():
            return True
    return False
""",
    }
}
