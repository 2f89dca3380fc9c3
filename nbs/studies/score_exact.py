"""score: what the exact denoiser of the probe reaches in the network's place, with the sampler's own steps.

    python nbs/studies/score_exact.py            three values of q, about three minutes on one core
    python nbs/studies/score_exact.py --quick    a few seconds, to see that it runs
Writes score_exact.csv beside this file (or --out), in the columns of score_frequency.csv; nothing is trained. The exact denoiser is blind, as the network is, and
expects the noise levels of the network's training, σ = 5 u² with u uniform. `start`: around the first estimate (ours) or around mid-grey (the original's)."""

import record
from score_frequency import SIGMAS, clip_variance, samplers, weights

from vidiffedu.core import seeded
from vidiffedu.data import probe_leaves
from vidiffedu.intervals import wilson
from vidiffedu.sample import normal_like
from vidiffedu.score import coarse_to_fine, exact_denoiser, judge_occlusions


def from_grey(denoise, probe, sigma_0, generator, **sampler):
    "The original's start: noise around mid-grey."
    y = sigma_0 * normal_like(probe.past[:, :1], generator)
    for look in coarse_to_fine(denoise, y, probe.past, generator=generator, **sampler):
        x_hat = look[0]
    k, n = int((probe.nearest(x_hat)[0] == 0).sum()), len(y)
    low, high = wilson(k, n)
    return dict(frequency=k / n, low=low, high=high, n=n)


def measure(q, sampler, start, n, seed=1000):
    g = seeded(seed)
    probe = probe_leaves(n, q=q, generator=g)
    exact = exact_denoiser(probe, q, SIGMAS)
    draw = judge_occlusions if start == "estimate" else from_grey
    found = draw(exact, probe, **sampler, generator=g)
    one = weights(exact, probe, q, sampler["sigma_0"], g)
    return dict(**sampler, start=start, **found, **one)


def rows(a, q):
    "Our start at every setting; the original's at each σ_0."
    many, most = samplers(a), max(a.sigma_0)
    middle = sorted(a.gamma)[len(a.gamma) // 2]
    found = [measure(q, s, "estimate", a.n) for s in many]
    found += [measure(q, s, "grey", a.n) for s in many if s["gamma"] == middle]
    at = dict(sigma_0=most, gamma=middle)
    found[many.index(at)]["clip_var"] = clip_variance(
        lambda probe: exact_denoiser(probe, q, SIGMAS), q, at
    )
    return found


def settings(argv):
    return record.arguments(
        __doc__,
        "score_exact",
        argv,
        quick=dict(q=[0.7], n=20, gamma=[0.5], sigma_0=[4.0]),
        q=[0.5, 0.7, 0.9],
        gamma=[0.2, 0.5, 1.0],
        sigma_0=[0.25, 0.5, 1.0, 2.0, 4.0],
        n=2000,
    )


def main(argv=None):
    a = settings(argv)
    table = record.Table(a.out)
    for job in record.todo(record.jobs(q=a.q), table):
        table.put(job, rows(a, job["q"]), record.provenance())
        record.tell(table.of(job), "sigma_0", "gamma", "start", "frequency", "low", "high")


if __name__ == "__main__":
    main()
