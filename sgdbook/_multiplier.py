r"""Moments of a continuous multiplier A, by its distribution function.

`sgdbook.kesten` solves for the order at which they come back to 1.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_FAR = 700.0  # e**700 is still a float, and e**-700 a normal one
_NEGLIGIBLE = 34.0  # e**-34 of the whole changes no digit


class ContinuousMultiplier:
    r"""A continuous law of A, by its distribution function.

    In :math:`y=\ln|a|` no density is needed, and near the root nothing cancels:

    .. math:: \frac{\mathbb E|A|^s-1}s=\int_0^\infty e^{sy}P(\ln|A|>y)\,dy
              -\int_{-\infty}^0e^{sy}P(\ln|A|\le y)\,dy
    """

    @np.errstate(all="ignore")
    def __init__(self, law):
        self.law = law
        left, right = (float(end) for end in law.support())
        self.largest, nearest = max(abs(left), abs(right)), max(left, -right, 0.0)
        tails = 10.0 ** -np.arange(1, 16)
        levels = np.concatenate([np.linspace(0, 1, 33)[1:-1], tails])
        places = np.concatenate([[left, right], law.ppf(levels), law.isf(tails)])
        places = np.log(np.abs(places))
        places = places[np.isfinite(places)]
        self.exceeds = np.isfinite(self.above(0.0))
        self.up = _Side(self.above, places, np.log(self.largest))
        self.down = _Side(lambda t: self.below(-t), -places, -np.log(nearest))
        self.rest = _Side(lambda t: self.above(-t), -places, math.inf)

    @np.errstate(all="ignore")
    def above(self, y):
        """Return ln P(ln|A| > y)."""
        a = np.exp(y)
        return np.logaddexp(self.law.logsf(a), self.law.logcdf(-a))

    @np.errstate(all="ignore")
    def below(self, y):
        """Return ln P(ln|A| <= y)."""
        a = np.exp(y)
        return np.log(np.maximum(self.law.cdf(a) - self.law.cdf(-a), 0))

    def mean_log(self):
        """Return E ln|A| and E |ln|A||."""
        up, down = np.exp(self.up.integral(0.0)), np.exp(self.down.integral(0.0))
        return up - down, up + down

    def log_moment(self, s):
        """Return ln E|A|^s."""
        up = self.up.integral(s)
        if up > _FAR - 1:
            return up + math.log(s)
        excess = s * (math.exp(up) - math.exp(self.down.integral(-s)))
        if excess > -0.5:
            return math.log1p(excess)
        return np.logaddexp(up, self.rest.integral(-s)) + math.log(s)


class _Side:
    """The integrals over t > 0 of e^{rt} times a chance, given by its logarithm."""

    def __init__(self, chance, places, end):
        self.chance, most = chance, min(max(end, 0.0), _FAR)
        self.end = _last(lambda t: np.isfinite(chance(t)), most)
        self.open = end > _FAR or chance(self.end) < -_FAR
        if self.open and chance(self.end) > -_FAR - 46:  # it underflows, or ends
            self.end = _last(lambda t: chance(t) > -_FAR, most)
        inner = np.concatenate([self.end / 2.0 ** np.arange(1, 24), places])
        inner = inner[(inner > 0) & (inner < self.end)]
        self.edges = np.unique(np.concatenate([[0.0], inner, [self.end]]))

    def integral(self, rate):
        """Return the logarithm; beyond an open end the chance is a power."""
        if not self.end:
            return -math.inf
        log = _log_integral(lambda t: rate * t + self.chance(t), self.edges)
        far = rate * self.end + self.chance(self.end)
        if self.open and far > log - _NEGLIGIBLE:
            if not abs(self.slope(1.0) - self.slope(0.5)) < 1e-6:
                return math.inf
            fall = -rate - self.slope(1.0)
            return np.logaddexp(log, far - math.log(fall)) if fall > 0 else math.inf
        return log

    def slope(self, part):
        """Return the local power of the chance, at this part of the way to the end."""
        far, step = part * self.end, 0.01 * self.end
        return (self.chance(far) - self.chance(far - step)) / step


def _last(holds, most):
    """Return the last t from 0 to most where a condition still holds."""
    low, high = 0.0, most
    if holds(high):
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


@np.errstate(all="ignore")
def _log_integral(log_integrand, edges):
    """Integrate by Gauss's rule, on panels halved until both halves agree with it."""

    def rule(low, high):
        half = (high - low) / 2
        t = (low + half)[:, None] + half[:, None] * _NODES
        logs = log_integrand(t) + np.log(half[:, None] * _WEIGHTS)
        return special.logsumexp(logs, axis=1)

    low, high = edges[:-1], edges[1:]
    whole, done = rule(low, high), np.empty(0)
    for _ in range(60):
        middle = (low + high) / 2
        left, right = rule(low, middle), rule(middle, high)
        both = np.logaddexp(left, right)
        total = special.logsumexp(np.concatenate([done, both]))
        if total == -math.inf:
            return total
        if math.isnan(total):
            break
        change = np.exp(both - total) - np.exp(whole - total)
        rough = abs(change) > 1e-15
        done = np.concatenate([done, both[~rough]])
        if not rough.any():
            return special.logsumexp(done)
        low, high, whole = (
            np.concatenate([one[rough], two[rough]])
            for one, two in ((low, middle), (middle, high), (left, right))
        )
    raise ArithmeticError(
        "the moment was not resolved by halving panels 60 times, or is no number. The "
        "distribution function of A must be smooth to rounding."
    )
