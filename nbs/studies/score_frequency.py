"""score: how often is the brighter leaf in front? One network for each q and seed, read out at several β and σ_0.

    python nbs/studies/score_frequency.py            all of it: 3 values of q, 3 seeds, about 25 minutes on one core
    python nbs/studies/score_frequency.py --short    one q, one seed, fewer steps: about a minute
    python nbs/studies/score_frequency.py --quick    a few seconds, to see that it runs
Writes score_frequency.csv beside this file (or --out): one row a network and sampler setting; networks that are there already are kept, not run again.
score_frequency_curve.csv: the training losses, and score_curve.csv: their range over the seeds at q = 0.7. Of seed 0, the weights that the explorer loads, in
../checkpoints. Frequencies carry a 95% interval (low, high); mean squared distances are to the nearer of the two true outcomes, pixels in [-1, 1]."""

import record

from vidiffedu.core import seeded
from vidiffedu.data import probe_leaves
from vidiffedu.nets import BlindUNet
from vidiffedu.score import BlindDenoiser, judge_occlusions, leaf_stream

WINDOW = 100  # steps of a point of the curve


def samplers(a):
    "σ_0 matched to the modes at every β; at the middle β also the others."
    middle, most = sorted(a.beta)[len(a.beta) // 2], max(a.sigma_0)
    both = record.jobs(sigma_0=a.sigma_0, beta=a.beta)
    return [s for s in both if s["sigma_0"] == most or s["beta"] == middle]


def measure(model, q, sampler, n, seed=1000):
    "Frequency with its interval, looks a sample and distances, on n held-out probes."
    g, looks = seeded(seed), []
    probe = probe_leaves(n, q=q, generator=g)

    def denoise(y, past):
        looks.append(1)
        return model.denoise(y, past)

    found = judge_occlusions(denoise, probe, generator=g, **sampler)
    # two looks are not the sampler's: the one-shot estimate, and the start
    return dict(**sampler, looks=float(len(looks) - 2), **found)


def band(curves, q=0.7):
    "The lowest and highest loss among the seeds, step by step."
    seen = {}
    for row in curves.of(dict(q=q)):
        seen.setdefault(int(row["step"]), {})[row["seed"]] = float(row["loss"])
    for step, losses in sorted(seen.items()):
        low, high = min(losses.values()), max(losses.values())
        yield dict(step=step, low=low, high=high, seeds=" ".join(losses))


def settings(argv):
    return record.arguments(
        __doc__,
        "score_frequency",
        argv,
        quick=dict(q=[0.7], seeds=[0], steps=20, n=20, beta=[0.5], sigma_0=[4.0]),
        short=dict(q=[0.7], seeds=[0], steps=1200, n=300, beta=[0.5]),
        q=[0.5, 0.7, 0.9],
        beta=[0.2, 0.5, 1.0],
        sigma_0=[0.5, 1.0, 2.0, 4.0],
        seeds=[0, 1, 2],
        steps=3600,
        batch_size=32,
        lr=5e-3,
        n=1000,
    )


def main(argv=None):
    a = settings(argv)
    table, curves = (record.Table(p) for p in (a.out, record.beside(a.out, "_curve.csv")))
    how = dict(steps=a.steps, batch_size=a.batch_size, lr=a.lr)
    for job in record.todo(record.jobs(q=a.q, seed=a.seeds), table):
        q, seed = job["q"], job["seed"]
        run = record.train(lambda: BlindDenoiser(BlindUNet()), leaf_stream(q), seed, **how)
        curves.put(job, record.curve(run.losses, WINDOW), record.provenance())
        if seed == 0:
            record.for_lessons(a, run.ema, f"score_q{round(100 * q)}")
        found = [measure(run.ema, q, sampler, a.n) for sampler in samplers(a)]
        table.put(job, found, record.facts(run))
        record.tell(found, "sigma_0", "beta", "frequency", "low", "high")
    if a.full and curves.of(dict(q=0.7)):
        whole = record.Table(record.HERE / "score_curve.csv")
        whole.put({}, list(band(curves)), record.provenance())


if __name__ == "__main__":
    main()
