"""Does a wrong line survive the tests? Run by hand, not by pytest:

    python tests/mutants.py                 every mutant; about a quarter of an hour on two cores
    python tests/mutants.py paths crps      those of some modules
    python tests/mutants.py --list

Each mutant bends one line of the library in a copy of the tree and runs the tests that should notice. A mutant that the tests
let pass has survived: then a test is missing. RESULT below is the last full run.
"""

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULT = """2026-11-26, AMD EPYC, 2 cores: 72 of 72 killed, run in parts. Two had survived before: a mixture's
variance in the oracle, which has a test now, and one that changed nothing (taken out)."""

# module, the line as it is (must occur exactly once), the line bent
MUTANTS = [
    # ---- paths
    (
        "paths",
        "0.5 * (self.beta_max - self.beta_min) * t**2",
        "(self.beta_max - self.beta_min) * t**2",
    ),
    ("paths", "return torch.exp(-0.5 * self._integral(t))", "return torch.exp(-self._integral(t))"),
    (
        "paths",
        "return torch.sin(self.speed * (1 - t)) / math.cos(self.u0)",
        "return torch.sin(self.speed * (1 - t))",
    ),
    (
        "paths",
        "return self.sigma_min * torch.sqrt(torch.expm1(2 * self.rate * t))",
        "return self.sigma_min * torch.exp(self.rate * t)",
    ),
    (
        "paths",
        "return self.k * torch.special.xlog1py(t - 1, -t)",
        "return self.k * torch.special.xlog1py(t - 1, -t).abs().sqrt()",
    ),
    (
        "paths",
        "return (self.rates(t)[2] - 2 * self.drift(t)",
        "return (self.rates(t)[2] - self.drift(t)",
    ),
    (
        "paths",
        "return -torch.ones_like(t), torch.zeros_like(t), 2 * t",
        "return -torch.ones_like(t), torch.zeros_like(t), t",
    ),
    ("paths", "    needs_y = True", "    needs_y = False"),
    (
        "paths",
        "return bool(((self.c(t) == 0) & (t != s)).any())",
        "return bool((self.c(t) == 0).any())",
    ),
    (
        "paths",
        "return (sigma / (1 + sigma)).nan_to_num(nan=1.0)",
        "return (sigma / (2 + sigma)).nan_to_num(nan=1.0)",
    ),
    # ---- times
    (
        "times",
        "coin = torch.rand(b if per_clip else 1, 1, **how) < p",
        "coin = torch.rand(b if per_clip else 1, 1, **how) > p",
    ),
    (
        "times",
        "coin = torch.rand(b if per_clip else 1, 1, **how) < p",
        "coin = torch.rand(b, 1, **how) < p",
    ),
    (
        "times",
        "count = torch.randint(1, max_known + 1, (b, 1), **how)",
        "count = torch.randint(0, max_known + 1, (b, 1), **how)",
    ),
    (
        "times",
        "count = torch.where(torch.rand(b, 1, **how) < p_uncond, 0, count)",
        "count = torch.where(torch.rand(b, 1, **how) > p_uncond, 0, count)",
    ),
    ("times", "return rank < count", "return rank <= count"),
    ("times", "lag * (unknown.cumsum(0) - 1)", "lag * unknown.cumsum(0)"),
    ("times", "sigma = (knee * torch.sinh(", "sigma = (2 * knee * torch.sinh("),
    # ---- denoise
    (
        "denoise",
        "return -expand(reciprocal(path.c(t)), x_t) * to_noise",
        "return expand(reciprocal(path.c(t)), x_t) * to_noise",
    ),
    ("denoise", "pull = 0.5 * dc2 * expand(", "pull = dc2 * expand("),
    ("denoise", "return v if y is None else v + db * y", "return v"),
    ("denoise", "return a * rest - c * out", "return a * rest - out"),
    ("denoise", "return (rest + c**2 * out) / _signal(", "return (rest + c * out) / _signal("),
    ("denoise", "out = out if y is None else out - expand(db, rest) * y", "out = out"),
    ("denoise", "return cond[:, -x_t.shape[1] :]", "return cond[:, : x_t.shape[1]]"),
    (
        "denoise",
        "return rest, expand(factor, x_t), log_sigma / 4",
        "return rest, expand(factor, x_t), log_sigma",
    ),
    (
        "denoise",
        "linear = a * (self.sigma_data * factor) ** 2 * rest",
        "linear = (self.sigma_data * factor) ** 2 * rest",
    ),
    (
        "denoise",
        "x_hat, w = denoise(x_t, t, y), (t > 0).to(x.dtype)",
        "x_hat, w = denoise(x_t, t, y), torch.ones_like(t).to(x.dtype)",
    ),
    (
        "denoise",
        "return (per_frame * weighted).sum() / w.sum().clamp_min(1)",
        "return (per_frame * weighted).mean()",
    ),
    (
        "denoise",
        "return lambda t: (path.a(t) * reciprocal(path.c(t))) ** 2",
        "return lambda t: path.a(t) * reciprocal(path.c(t))",
    ),
    # ---- sample
    (
        "sample",
        "kept = (c_s**2 - fresh**2).clamp_min(0).sqrt()",
        "kept = (c_s - fresh).clamp_min(0)",
    ),
    (
        "sample",
        "(1 - (a_t * c_s * reciprocal(a_s * c_t)) ** 2)",
        "(1 - (a_t * c_s * reciprocal(a_s * c_t)))",
    ),
    ("sample", "half = 0.5 * (s - t) * (path.c(s) > 0)", "half = (s - t) * (path.c(s) > 0)"),
    ("sample", "0.5 * path.a(s) * (ratio - 1)", "0.5 * (ratio - 1)"),
    ("sample", "shake = expand(g * (t - s).sqrt(), x_t)", "shake = expand(g * (t - s), x_t)"),
    ("sample", "expand(0.5 * g**2, x_t) * score", "expand(g**2, x_t) * score"),
    ("sample", "x_t = torch.where(expand(t == s, x_t), x_t, x_s) if waits else x_s", "x_t = x_s"),
    (
        "sample",
        "return from_guess(denoise, path, denoise(x_t, t, y), t, y, generator)",
        "return x_t",
    ),
    ("sample", "new = draw(frames[:, -(keep or k) :])", "new = draw(frames)"),
    ("sample", "return frames[:, k : k + n_frames]", "return frames[:, -n_frames:]"),
    # ---- oracle, gaussian
    (
        "oracle",
        "v = (a**2 * self.std**2 + c**2).clamp(min=torch.finfo(kind).eps)",
        "v = (self.std**2 + c**2).clamp(min=torch.finfo(kind).eps)",
    ),
    ("oracle", "T[U][:, U] - G @ T[K][:, U]", "T[U][:, U] + G @ T[K][:, U]"),
    (
        "gaussian",
        "return torch.cholesky_inverse(root) / scale, -log_det",
        "return torch.cholesky_inverse(root), -log_det",
    ),
    # ---- the chapters
    ("score", "self.sigma_max * u**2", "self.sigma_max * u"),
    (
        "score",
        "return (check_estimate(self.denoise(x_t, past), x) - x).square().mean()",
        "return (check_estimate(self.denoise(x_t, past), x) - x_t).square().mean()",
    ),
    ("score", "return clip[:, :-1], clip[:, -1:]", "return clip[:, 1:], clip[:, :1]"),
    ("bridge", "y=past[:, -1:],\n            weight", "y=past[:, :1],\n            weight"),
    ("bridge", "k = self.context or max(1, frames - 1)", "k = max(1, frames - 1)"),
    (
        "vector",
        "t = self.times(*clip.shape[:2], generator=generator, device=clip.device)",
        "t = self.times(*clip.shape[:2], generator=generator, device=clip.device)[:, :1].expand(clip.shape[:2])",
    ),
    (
        "vector",
        "self.times = times or partial(ptss, p=p)",
        "self.times = times or partial(ptss, p=1 - p)",
    ),
    ("masks", "return shared(b, f, **how).masked_fill(known, 0)", "return shared(b, f, **how)"),
    ("masks", "x_hat = self.net(x_t, t.amax(1), None)", "x_hat = self.net(x_t, t.mean(1), None)"),
    (
        "masks",
        "path.perturb(x, s, generator=generator)[0]",
        "path.perturb(x, t, generator=generator)[0]",
    ),
    ("residual", "return (x - mu) / self.scale", "return x - mu"),
    ("residual", "x = mu + self.scale * r", "x = mu + r"),
    ("residual", "return x if clip is None else x.clamp(*clip)", "return x"),
    ("residual", "r if self.joint else r.detach(),", "r,"),
    (
        "residual",
        "return loss + self.explicit * r.square().mean()",
        "return loss + r.square().mean()",
    ),
    (
        "residual",
        "(clips[:, context:] - mu).square().mean().sqrt()",
        "(clips[:, context:] - mu).abs().mean()",
    ),
    # ---- scores
    ("crps", "return s - 1 if fair else s", "return s if fair else s"),
    (
        "crps",
        "return ((divisor * near - pairs) / (s * divisor))",
        "return ((divisor * near - 2 * pairs) / (s * divisor))",
    ),
    ("crps", "share = 1 / (1 + in_float64(ties))", "share = 1 / (2 + in_float64(ties))"),
    ("likeness", "127.5 * found", "255 * found"),
    (
        "likeness",
        "c1, c2 = (0.01 * _positive(range)) ** 2, (0.03 * range) ** 2",
        "c1, c2 = (0.01 * _positive(range)) ** 2, 0.03 * range",
    ),
    (
        "likeness",
        "return 10 * torch.log10(_positive(range) ** 2 / error)",
        "return 10 * torch.log10(_positive(range) / error)",
    ),
    (
        "backbones",
        '"3c": (256, 128, 128, 192, 32, 96, 64)',
        '"3c": (256, 128, 128, 192, 32, 64, 96)',
    ),
    ("backbones", 'k = 3 if name == "4b" else 2', "k = 3"),
    ("backbones", "F.avg_pool3d(x, (2, 7, 7), stride=1)", "F.avg_pool3d(x, (1, 7, 7), stride=1)"),
    (
        "backbones",
        "return torch.cat([self.b0(x), one, two, self.b3b(self.b3a(x))], 1)",
        "return torch.cat([self.b0(x), two, one, self.b3b(self.b3a(x))], 1)",
    ),
    ("intervals", "centre = (k + z * z / 2) / (n + z * z)", "centre = k / n"),
    (
        "intervals",
        "mean, half = v.mean(0), z * v.std(0) / len(v) ** 0.5",
        "mean, half = v.mean(0), z * v.std(0)",
    ),
    # ---- training
    ("train", "return min(ema, (1 + step) / (10 + step))", "return ema"),
    (
        "train",
        "0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (steps - warmup))",
        "0.5 + 0.5 * math.cos(math.pi * step / steps)",
    ),
]

# what should notice a change of a module
TESTS = dict(
    paths="tests/test_core_formulas.py",
    times="tests/test_core_formulas.py",
    denoise="tests/test_core_formulas.py",
    sample="tests/test_core_formulas.py tests/test_exact_laws.py",
    oracle="tests/test_exact_laws.py nbs/07_oracle.ipynb",
    gaussian="nbs/33_gaussian.ipynb tests/test_exact_laws.py",
    score="tests/test_score.py",
    bridge="tests/test_bridge.py",
    vector="tests/test_vector.py tests/test_whole_clips.py",
    masks="tests/test_masks.py tests/test_whole_clips.py",
    residual="tests/test_residual.py",
    crps="tests/test_crps.py",
    likeness="tests/test_likeness.py",
    backbones="tests/test_likeness.py",
    intervals="tests/test_intervals.py",
    train="tests/test_train.py",
)


def bent(mutant, folder):
    "A copy of the tree in which the mutant's line is bent."
    module, old, new = mutant
    for name in ("vidiffedu", "tests", "nbs"):
        skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "_proc")
        shutil.copytree(ROOT / name, folder / name, ignore=skip, symlinks=True)
    for name in (".pytest.ini", "settings.ini", "_quarto.yml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    path = folder / "vidiffedu" / f"{module.replace('.', '/')}.py"
    text = path.read_text()
    if text.count(old) != 1:
        raise ValueError(f"{module}: {text.count(old)} times, expected once: {old}")
    path.write_text(text.replace(old, new))


def verdict(mutant):
    "'killed', 'survived', or what went wrong."
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            bent(mutant, folder)
        except ValueError as error:
            return f"stale: {error}"
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "VIDIFFEDU_FAST": "1", "PYTHONPATH": name}
        how = dict(cwd=folder, env=env, capture_output=True, text=True, timeout=900)
        try:
            done = subprocess.run([*command, *TESTS[mutant[0]].split()], **how)
        except subprocess.TimeoutExpired:
            return "killed"  # a test that never ends notices too
    codes = {0: "survived", 1: "killed"}
    return codes.get(done.returncode, f"pytest ended with {done.returncode}: {done.stdout[-300:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    wanted = [m for m in MUTANTS if not args.modules or m[0] in args.modules]
    if args.list:
        print(*(f"{m}: {old}  ->  {new}" for m, old, new in wanted), sep="\n")
        return
    with concurrent.futures.ThreadPoolExecutor(args.workers) as pool:
        found = list(zip(wanted, pool.map(verdict, wanted)))
    for (module, old, new), what in found:
        if what != "killed":
            print(f"{what:9s} {module}: {old}  ->  {new}")
    killed = sum(what == "killed" for _, what in found)
    print(f"{killed} of {len(found)} killed")


if __name__ == "__main__":
    main()
