"Wrong answers of the assignment residual, and right ones written otherwise."

MOMENTUM = """
def momentum(frames, gain):
    return frames[:, -1:] + gain * (frames[:, -1:] - frames[:, -2:-1])
"""
ROLLOUT = """
def rollout(forecaster, draw, past, n, scale):
    frames, state, film = past, None, []
    for _ in range(n):
        mu, state = forecaster(frames, state)
        frames = (mu + scale * draw(mu)).clamp(-1, 1)
        film.append(frames)
    return torch.cat(film, 1)
"""
WRONG = {
    "levels": {
        "solve-momentum": MOMENTUM
        + """

def best_gain(clips):
    old, new = clips[:, :-1], clips[:, 1:]
    return float((old * new).sum() / old.square().sum())
"""
    },
    "mean of ratios": {
        "solve-momentum": MOMENTUM
        + """

def best_gain(clips):
    change = clips.diff(dim=1).flatten(2)
    old, new = change[:, :-1], change[:, 1:]
    return float(((old * new).sum((1, 2)) / old.square().sum((1, 2))).mean())
"""
    },
    "other way": {
        "solve-momentum": MOMENTUM
        + """

def best_gain(clips):
    change = clips.diff(dim=1)
    old, new = change[:, :-1], change[:, 1:]
    return float((old * new).sum() / new.square().sum())
"""
    },
    "no gradient": {
        "solve-momentum": """
@torch.no_grad()
def momentum(frames, gain):
    return frames[:, -1:] + gain * (frames[:, -1:] - frames[:, -2:-1])


def best_gain(clips):
    change = clips.diff(dim=1)
    old, new = change[:, :-1], change[:, 1:]
    return float((old * new).sum() / old.square().sum())
"""
    },
    "mean removed": {
        "solve-scale": """
def pixel_scale(residuals, floor=0.01):
    return residuals.flatten(0, 1).std(0).clamp(min=floor)
"""
    },
    "library": {
        "solve-scale": """
def pixel_scale(residuals, floor=0.01):
    from vidiffedu.residual import residual_scale

    clips = torch.cat([torch.zeros_like(residuals[:, :2]), residuals], 1)
    one = residual_scale(clips, lambda frames, state: (torch.zeros_like(frames[:, :1]), None))
    return torch.full(residuals.shape[2:], max(one, floor))
"""
    },
    "root first": {
        "solve-scale": """
def pixel_scale(residuals, floor=0.01):
    return residuals.square().mean(0).sqrt().mean(0).clamp(min=floor)
"""
    },
    "absolute": {
        "solve-scale": """
def pixel_scale(residuals, floor=0.01):
    return residuals.abs().mean((0, 1)).clamp(min=floor)
"""
    },
    "level": {
        "solve-move": """
def moved(denoise, mu, scale, mu2, scale2):
    def denoise2(noisy2, sigma2):
        r = denoise((mu2 + scale2 * noisy2 - mu) / scale, sigma2)
        return (mu + scale * r - mu2) / scale2

    return denoise2
"""
    },
    "level upside down": {
        "solve-move": """
def moved(denoise, mu, scale, mu2, scale2):
    def denoise2(noisy2, sigma2):
        r = denoise((mu2 + scale2 * noisy2 - mu) / scale, sigma2 * scale / scale2)
        return (mu + scale * r - mu2) / scale2

    return denoise2
"""
    },
    "answer": {
        "solve-move": """
def moved(denoise, mu, scale, mu2, scale2):
    def denoise2(noisy2, sigma2):
        return denoise((mu2 + scale2 * noisy2 - mu) / scale, sigma2 * scale2 / scale)

    return denoise2
"""
    },
    "not squared": {
        "solve-spread": """
def final_variance(levels, printed=False):
    variance = 1 + levels[0] ** 2
    for high, low in zip(levels, levels[1:]):
        q = (low / high) ** 2
        fresh = low**2 * (1 - q)
        keep = q + (1 - q) / (1 + high**2)
        variance = keep * variance + (fresh**2 if printed else fresh)
    return variance
"""
    },
    "as printed": {
        "solve-spread": """
def final_variance(levels, printed=False):
    variance = 1 + levels[0] ** 2
    for high, low in zip(levels, levels[1:]):
        q = (low / high) ** 2
        fresh = low**2 * (1 - q)
        keep = q + (1 - q) / (1 + high**2)
        variance = keep**2 * variance + (fresh**4 if printed else fresh)
    return variance
"""
    },
    "graph kept": {"solve-bug": ROLLOUT},
    "detached too late": {"solve-bug": ROLLOUT.replace("cat(film, 1)", "cat(film, 1).detach()")},
    "switched off": {
        "solve-bug": ROLLOUT.replace(
            "    frames, state", "    torch.set_grad_enabled(False)\n    frames, state", 1
        )
    },
    "differs": {
        "solve-bug": "@torch.no_grad()" + ROLLOUT.replace("(frames, state)", "(frames, None)")
    },
}
SUBTLE = {
    "mean of ratios",
    "other way",
    "root first",
    "absolute",
    "detached too late",
    "differs",
}
DIAGNOSIS = {"library": "differs"}
RIGHT = {
    "other forms": {
        "solve-momentum": """
def momentum(frames, gain):
    return torch.lerp(frames[:, -2:-1], frames[:, -1:], 1 + gain)


def best_gain(clips):
    change = (clips[:, 1:] - clips[:, :-1]).double()
    old, new = change[:, :-1].flatten(), change[:, 1:].flatten()
    return torch.linalg.lstsq(old[:, None], new[:, None]).solution.item()
""",
        "solve-scale": """
def pixel_scale(residuals, floor=0.01):
    flat = residuals.flatten(0, 1)
    size = torch.linalg.vector_norm(flat, dim=0) / len(flat) ** 0.5
    return torch.where(size < floor, floor, size)
""",
        "solve-move": """
def moved(denoise, mu, scale, mu2, scale2):
    ratio, shift = scale2 / scale, (mu2 - mu) / scale  # r = shift + ratio r2

    def denoise2(noisy2, sigma2):
        return (denoise(shift + ratio * noisy2, ratio * sigma2) - shift) / ratio

    return denoise2
""",
        "solve-spread": """
def final_variance(levels, printed=False):
    total, product = 0.0, 1.0
    for high, low in reversed(list(zip(levels, levels[1:]))):
        fresh = low**2 - low**4 / high**2
        total += product * fresh ** (2 if printed else 1)
        product *= ((1 + low**2) / (1 + high**2)) ** 2
    return total + product * (1 + levels[0] ** 2)
""",
        "solve-bug": """
def rollout(forecaster, draw, past, n, scale):
    with torch.inference_mode(False), torch.no_grad():
        new, memory, shown = past, None, []
        while len(shown) < n:
            mu, memory = forecaster(new, memory)
            new = torch.clamp(mu + scale * draw(mu), -1, 1)
            shown += [new]
        return torch.cat(shown, dim=1)
""",
    }
}
