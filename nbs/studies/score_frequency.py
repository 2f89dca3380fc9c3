"""Chapter 1: how often is the brighter leaf in front? One network for each q and seed, read out at several β and σ_0.

    python nbs/studies/score_frequency.py            all of it: 3 values of q, 3 seeds, about 25 minutes on one core
    python nbs/studies/score_frequency.py --short    one q, one seed, fewer steps: about a minute
Writes score_frequency.csv beside this file (or --out): one row a network and sampler setting; score_curve.csv, the range of the training loss
over the seeds at q = 0.7; and, of seed 0, the weights that the explorer loads, in ../checkpoints. Frequencies carry a 95% interval (low, high);
mean squared distances are to the nearer of the two true outcomes, pixels in [-1, 1]."""

import argparse
import csv
import datetime
import pathlib
import platform
import subprocess
import time

import torch

from vidiffedu.core import seeded
from vidiffedu.data import probe_leaves
from vidiffedu.nets import BlindUNet
from vidiffedu.score import BlindDenoiser, judge_occlusions, leaf_stream
from vidiffedu.train import fit, save_weights

HERE = pathlib.Path(__file__).resolve().parent


def provenance():
    "Commit, hardware and date of this run"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    info = pathlib.Path("/proc/cpuinfo")
    names = (
        [
            line.split(":")[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        if info.exists()
        else []
    )
    cpu = names[0] if names else platform.processor()
    return dict(
        commit=commit or "unknown",
        hardware=f"{cpu}, {torch.get_num_threads()} threads",
        date=datetime.date.today().isoformat(),
    )


def train(q, seed, steps, batch_size, lr):
    "A fresh blind denoiser for the world q"
    torch.manual_seed(seed)
    model = BlindDenoiser(BlindUNet())
    started = time.time()
    run = fit(
        model, leaf_stream(q), steps=steps, batch_size=batch_size, lr=lr, seed=seed, progress=False
    )
    return run.ema, run.losses, time.time() - started


def band(curves, path, where, window=100):
    "Lowest and highest mean loss over `window` steps, among the seeds"
    means = torch.stack(curves).unfold(1, window, window).mean(2)
    with open(path, "w", newline="") as f:
        rows = [
            dict(step=window * (i + 1), low=f"{m.min():.5g}", high=f"{m.max():.5g}", **where)
            for i, m in enumerate(means.T)
        ]
        table = csv.DictWriter(f, rows[0])
        table.writeheader()
        table.writerows(rows)


def measure(model, q, sampler, n, seed=1000):
    "Frequency with its interval, looks a sample and distances, on n held-out probes"
    G = seeded(seed)
    probe, looks = probe_leaves(n, q=q, generator=G), []

    def denoise(y, past):
        looks.append(1)
        return model.denoise(y, past)

    found = judge_occlusions(denoise, probe, generator=G, **sampler)
    return dict(looks=len(looks) - 2, **found)  # one for the one-shot estimate, one for the start


def main():
    ap = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ap.add_argument("--q", type=float, nargs="+", default=[0.5, 0.7, 0.9])
    ap.add_argument("--beta", type=float, nargs="+", default=[0.2, 0.5, 1.0])
    ap.add_argument("--sigma-0", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0])
    ap.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    ap.add_argument("--steps", type=int, default=3600)
    ap.add_argument("--batch-size", type=int, default=32)
    ap.add_argument("--lr", type=float, default=5e-3)
    ap.add_argument("--n", type=int, default=1000, help="held-out probes, one sample each")
    ap.add_argument("--out", type=pathlib.Path, default=HERE / "score_frequency.csv")
    ap.add_argument(
        "--short",
        action="store_true",
        help="q = 0.7, seed 0, 1200 steps, 300 probes, β = 0.5; not written unless --out is given",
    )
    a = ap.parse_args()
    if a.short:
        a.q, a.seeds, a.steps, a.n, a.beta = [0.7], [0], 1200, 300, [0.5]
    rows, curves, where, keep = [], [], provenance(), not a.short
    for q in a.q:
        for seed in a.seeds:
            model, losses, seconds = train(q, seed, a.steps, a.batch_size, a.lr)
            if keep and seed == 0:
                save_weights(
                    model, HERE.parent / "checkpoints" / f"score_q{round(100 * q)}.safetensors"
                )
            if q == 0.7:
                curves.append(losses)
            # σ_0 matched to the modes at every β; at the middle β also the others
            settings = [
                (s, b)
                for s in a.sigma_0
                for b in a.beta
                if s == max(a.sigma_0) or b == sorted(a.beta)[len(a.beta) // 2]
            ]
            for sigma_0, beta in settings:
                got = measure(model, q, dict(sigma_0=sigma_0, beta=beta), a.n)
                rows.append(
                    dict(
                        q=q,
                        seed=seed,
                        sigma_0=sigma_0,
                        beta=beta,
                        **{k: round(v, 6) for k, v in got.items()},
                        steps=a.steps,
                        train_seconds=round(seconds),
                        **where,
                    )
                )
                print(*(f"{k} {v:.4g}" for k, v in list(rows[-1].items())[:10]), flush=True)
            if keep or a.out != ap.get_default("out"):
                with open(a.out, "w", newline="") as f:
                    table = csv.DictWriter(f, rows[0])
                    table.writeheader()
                    table.writerows(rows)
    if keep and curves:
        band(curves, HERE / "score_curve.csv", dict(seeds=" ".join(map(str, a.seeds)), **where))


if __name__ == "__main__":
    main()
