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
RESULT = "not run yet"

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
        "k = torch.randint(1, max_known + 1, (b, 1), **how)",
        "k = torch.randint(0, max_known + 1, (b, 1), **how)",
    ),
    (
        "times",
        "k = torch.where(torch.rand(b, 1, **how) < p_uncond, 0, k)",
        "k = torch.where(torch.rand(b, 1, **how) > p_uncond, 0, k)",
    ),
    ("times", "return rank < k", "return rank <= k"),
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
    ("denoise", "return a * u - c * out", "return a * u - out"),
    ("denoise", "return (u + c**2 * out) / a", "return (u + c * out) / a"),
    ("denoise", "out = out if y is None else out - expand(db, u) * y", "out = out"),
    ("denoise", "return cond[:, -x_t.shape[1] :]", "return cond[:, : x_t.shape[1]]"),
    (
        "denoise",
        "return u, expand(factor, x_t), log_sigma / 4",
        "return u, expand(factor, x_t), log_sigma",
    ),
    (
        "denoise",
        "linear = a * (self.sigma_data * factor) ** 2 * u",
        "linear = (self.sigma_data * factor) ** 2 * u",
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
]

# what should notice a change of a module
TESTS = dict(
    paths="tests/test_core_formulas.py",
    times="tests/test_core_formulas.py",
    denoise="tests/test_core_formulas.py",
    sample="tests/test_core_formulas.py tests/test_exact_laws.py",
    oracle="tests/test_exact_laws.py nbs/07_oracle.ipynb",
    gaussian="nbs/33_gaussian.ipynb tests/test_exact_laws.py",
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
