r"""Kesten's tail index: power laws of random linear recursions.

The recursion :math:`x\leftarrow Ax+B` with independent draws of :math:`(A,B)`, such as
SGD on a quadratic loss with :math:`A=1-\eta h`, has a stationary law whose tail is a
power of x, even where A and B are bounded.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import optimize, special, stats

from sgdbook import _door
from sgdbook._multiplier import ContinuousMultiplier

_FAR = 700.0  # e**700 is still a float


def kesten_index(multiplier, probabilities=None):
    r"""Return the tail index of the stationary law of :math:`x\leftarrow Ax+B`.

    The positive root s of

    .. math:: \mathbb E|A|^s=1.

    It is the tail index if :math:`\mathbb E\ln|A|<0`, :math:`\ln|A|` is not confined to
    the multiples of one number, :math:`B` has more than s moments, and no single x
    solves :math:`x=Ax+B` surely (Kesten).  For the multiples of one number, such as
    :math:`|A|\in\{2,\frac12\}`, moments still end at s, but :math:`x^sP(|X|>x)`
    oscillates.

    Parameters
    ----------
    multiplier : torch.Tensor, numpy.ndarray or frozen distribution of scipy.stats
        The law of A: its atoms, shape (m,), or a continuous distribution.
    probabilities : torch.Tensor or numpy.ndarray, optional
        Of the atoms, shape (m,), with the sum 1; all equal unless told.

    Returns
    -------
    float
        To 12 digits for atoms and 10 for distributions, fewer where
        :math:`\mathbb E\ln|A|` is a small difference; ``math.inf`` where
        :math:`|A|\le1` surely.

    Raises
    ------
    ValueError
        If :math:`\mathbb E\ln|A|\ge0`: there is no stationary law; or if the law of A
        is none.
    ArithmeticError
        If :math:`\mathbb E|A|^s` is infinite, or out of reach of double precision,
        before it reaches 1.

    References
    ----------
    Kesten, Acta Math. 131 (1973), 207, theorem 5.

    Examples
    --------
    With equal chances of 0 and 2, :math:`\frac12 2^s=1`:

    >>> kesten_index([0.0, 2.0])
    1.0
    >>> round(kesten_index(stats.norm(0.9, 0.5)), 6)
    1.715146
    """
    law = _law(multiplier, probabilities)
    mean, size = law.mean_log()
    if abs(mean) <= 1e-14 * size < math.inf:  # the rounding of a sum that is 0
        mean = 0.0
    if not mean < 0:
        raise ValueError(
            "a stationary law needs E ln|A| < 0; this multiplier has E ln|A| = "
            f"{mean:.6g}. Lower the learning rate, or the spread of A."
        )
    if law.largest <= 1:
        return math.inf
    if not law.exceeds:
        raise ArithmeticError(
            "P(|A| > 1) is out of reach of double precision, and with it the root of "
            "E|A|^s = 1. For practical purposes |A| <= 1 surely."
        )
    low, high = 0.0, 1.0
    while not (top := law.log_moment(high)) > 0:
        low, high = high, 2 * high
    while top == math.inf or low == 0:
        middle = (low + high) / 2
        if high - low < 1e-12 * high or high < 1e-12:
            raise ArithmeticError(
                f"E|A|^s must reach 1; beyond s = {high:.6g} it is infinite, or out of "
                "reach of double precision, and below less than 1. The tail of A "
                "itself decides that of the stationary law."
            )
        value = law.log_moment(middle)
        if value > 0:
            high, top = middle, value
        else:
            low = middle
    return optimize.brentq(
        lambda s: law.log_moment(s) / s, low, high, xtol=1e-300, rtol=1e-15
    )


def log_moment(multiplier, s, probabilities=None):
    r"""Return :math:`\ln\mathbb E|A|^s`, a convex function of s that is 0 at s = 0.

    Parameters
    ----------
    multiplier, probabilities
        As in `kesten_index`.
    s : float or torch.Tensor
        At least 0.

    Returns
    -------
    float or torch.Tensor
        Of the shape of s, float64; ``math.inf`` where the moment is infinite.

    Raises
    ------
    ValueError
        If s is negative or not finite, or the law of A is none.

    Examples
    --------
    >>> log_moment([0.0, 2.0], torch.tensor([0.0, 1.0]))
    tensor([0., 0.], dtype=torch.float64)
    """
    law = _law(multiplier, probabilities)
    orders = torch.as_tensor(s, dtype=torch.float64)
    if not (orders.isfinite() & (orders >= 0)).all():
        raise ValueError(
            f"s must be finite and at least 0; got {s!r}. Negative moments are not "
            "those of a tail."
        )
    found = [law.log_moment(one) if one else 0.0 for one in orders.flatten().tolist()]
    if orders.ndim == 0 and not isinstance(s, torch.Tensor):
        return float(found[0])
    return torch.tensor(found, dtype=torch.float64).reshape(orders.shape)


def batch_law(values, batch_size, *, sampling="replacement", limit=5_000_000):
    r"""Return the exact law of the mean of a mini-batch.

    .. math:: \frac1b\sum_{i\in\mathcal B}h_i

    Sums that differ by rounding, :math:`10^{-12}` of the largest, are one atom.

    Parameters
    ----------
    values : torch.Tensor or numpy.ndarray
        h, N numbers of any shape, such as the curvatures of the samples.
    batch_size : int
        b; without replacement at most N.
    sampling : {"replacement", "without-replacement"}
        b independent draws, or b different samples.
    limit : int
        The most sums that may be held at a time.

    Returns
    -------
    atoms, probabilities : torch.Tensor
        Shape (m,), float64, on the values' device; the atoms ascend.

    Raises
    ------
    ValueError
        If an argument is out of range or a value is not finite.
    MemoryError
        If there are more sums than the limit.

    Examples
    --------
    >>> batch_law([1.0, 3.0], 2)
    (tensor([1., 2., 3.], dtype=torch.float64), tensor([0.2500, 0.5000, 0.2500], dtype=torch.float64))
    """  # noqa: E501
    numbers = _door.real_numbers(values, "values")
    device, h = numbers.device, numbers.cpu().numpy()
    _door.require_positive_integer(batch_size, "batch_size")
    _door.require_one_of(
        sampling, ("replacement", "without-replacement"), "sampling", "Choose one."
    )
    near = 1e-12 * batch_size * max(abs(h).max(), 1e-290)

    def admit(count):
        if count > limit:
            raise MemoryError(
                f"the law of the mean may take {limit} sums at a time; it has come to "
                f"{count}. Use fewer values, or round them to a grid, or raise limit."
            )

    def merge(sums, chances):
        admit(len(sums))
        order = np.argsort(sums)
        sums, chances = sums[order], chances[order]
        first = np.flatnonzero(np.diff(sums, prepend=-math.inf) > near)
        return sums[first], np.add.reduceat(chances, first)

    if sampling == "replacement":
        h, weights = merge(h, np.full(len(h), 1 / len(h)))
        sums, chances = np.zeros(1), np.ones(1)
        for _ in range(batch_size):
            admit(len(sums) * len(h))
            sums, chances = merge(
                np.add.outer(sums, h).ravel(), np.outer(chances, weights).ravel()
            )
    elif batch_size > len(h):
        raise ValueError(
            f"batch_size must be at most N = {len(h)} without replacement; got "
            f"{batch_size}. Lower it, or draw with replacement."
        )
    else:
        sums, chances = _without_replacement(h, batch_size, merge, admit)
    atoms = sums / batch_size
    return tuple(torch.as_tensor(found, device=device) for found in (atoms, chances))


def _without_replacement(h, b, merge, admit):
    """Pass through the samples once; hold the sum of those taken, for each number."""
    laws = {0: (np.zeros(1), np.ones(1))}
    for i, value in enumerate(h):
        following = {}
        for taken in range(max(0, b - len(h) + i + 1), min(b, i + 1) + 1):
            parts = []
            if taken in laws:
                sums, chances = laws[taken]
                parts.append((sums, chances * (1 - (b - taken) / (len(h) - i))))
            if taken - 1 in laws:
                sums, chances = laws[taken - 1]
                parts.append((sums + value, chances * (b - taken + 1) / (len(h) - i)))
            sums, chances = zip(*parts, strict=True)
            following[taken] = merge(np.concatenate(sums), np.concatenate(chances))
        laws = following
        admit(sum(len(sums) for sums, _ in laws.values()))
    return laws[b]


def _law(multiplier, probabilities):
    """Return the law of A."""
    if isinstance(multiplier, stats.distributions.rv_frozen):
        if probabilities is not None:
            raise ValueError(
                "probabilities belong to atoms; got them with a distribution. Leave "
                "them out."
            )
        if not isinstance(multiplier.dist, stats.rv_continuous):
            raise ValueError(
                "a distribution must be continuous; got "
                f"{type(multiplier.dist).__name__}. Give its atoms and probabilities."
            )
        if np.size(multiplier.cdf(0.0)) != 1 or np.isnan(multiplier.cdf(0.0)):
            raise ValueError(
                "a distribution must be one, with valid parameters; got "
                f"{multiplier.args} and {multiplier.kwds}. Give numbers in range."
            )
        return ContinuousMultiplier(multiplier)
    atoms = _door.real_numbers(multiplier, "multiplier", shape="(m,)").cpu().numpy()
    if probabilities is None:
        return _Atoms(atoms, np.full(len(atoms), 1 / len(atoms)))
    p = _door.real_numbers(probabilities, "probabilities", shape="(m,)").cpu().numpy()
    if p.shape != atoms.shape or p.min() < 0 or abs(p.sum() - 1) > 1e-9:
        raise ValueError(
            f"probabilities must be {len(atoms)} numbers of at least 0 with the sum 1; "
            f"got {len(p)} with the least {p.min():.6g} and the sum {p.sum():.12g}. "
            "Divide by the sum."
        )
    return _Atoms(atoms, p / p.sum())


class _Atoms:
    """A discrete law of A."""

    @np.errstate(divide="ignore")
    def __init__(self, atoms, probabilities):
        keep = probabilities > 0
        self.p, size = probabilities[keep], np.abs(atoms[keep])
        self.largest, self.log = size.max(), np.log(size)
        self.exceeds = self.largest > 1

    def mean_log(self):
        """Return E ln|A| and E |ln|A||."""
        return self.p @ self.log, self.p @ abs(self.log)

    def log_moment(self, s):
        """Return ln E|A|^s."""
        if s * self.log.max() < _FAR:
            excess = self.p @ np.expm1(s * self.log)
            if excess > -0.5:
                return math.log1p(excess)
        return special.logsumexp(s * self.log, b=self.p)
