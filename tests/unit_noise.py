"The exact law of a forecast that is an affine function of the numbers drawn: run on zeros and on every unit vector, no sampling."

import math

import torch


class UnitNoise:
    "In the place of torch.randn: row 0 of all draws together is zero, row k the k-th unit vector."

    def __init__(self):
        self.drawn = 0

    def __call__(self, shape, generator=None, **how):
        d, rows = math.prod(shape[1:]), torch.arange(shape[0])[:, None]
        z = (rows == 1 + self.drawn + torch.arange(d)).to(**how)
        self.drawn += d
        assert self.drawn < shape[0], "more numbers drawn than rows"
        return z.view(shape)


def law(monkeypatch, forecast, draws):
    "Mean (d,) and covariance (d, d) of forecast(n) -> (n, ...)"
    with monkeypatch.context() as m:
        m.setattr(torch, "randn", UnitNoise())
        out = forecast(draws + 1).flatten(1).double()
    return out[0], (out[1:] - out[0]).T @ (out[1:] - out[0])
