"""From a diffusion to jumps between the equal cells of a rectangle.

The rates are those of Scharfetter and Gummel; `sgdbook.fokker_planck` says which.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import exprel

from sgdbook import _door
from sgdbook.markov import require_memory

KINDS = ("natural", "reflecting", "absorbing", "periodic")
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(5)
NEGLIGIBLE = 1e-6  # density at a natural end, relative to the largest


class Edges(NamedTuple):
    """Neighbours i, j; the integral z of a / D; the rates from i to j and back."""

    i: np.ndarray
    j: np.ndarray
    z: np.ndarray
    up: np.ndarray
    down: np.ndarray


class Cells:
    """The cells, their centres x (n, d), and the rates of jumps and of absorption.

    ``edges`` has one `Edges` for each axis; ``leak`` and ``out``, shape (n,), are the
    rates at which walls absorb and at which a cell is left in all.
    """

    def __init__(self, process, low, high, cells, ends, device, limit):
        _door.require_process(process)
        d = process.dimension
        if d not in (1, 2) or not hasattr(process, "ito_drift"):
            raise ValueError(
                "process must be a Process in one or two dimensions; got "
                f"{process!r}. In more dimensions simulate."
            )
        self.process, self.device = process, device
        self.low, self.high = each(low, d, "low"), each(high, d, "high")
        self.shape, self.ends = each(cells, d, "cells"), _kinds(ends, d)
        for lo, hi, n in zip(self.low, self.high, self.shape, strict=True):
            if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
                raise ValueError(
                    f"the grid needs finite low < high; got {lo!r} and {hi!r}. Cut "
                    "where the density is negligible."
                )
            if not _door.is_integer(n) or n < 6:
                raise ValueError(
                    f"cells must be integers of at least 6; got {n!r}. Begin with 100."
                )
        require_memory(math.prod(self.shape), limit)
        self.h = [
            (hi - lo) / n
            for lo, hi, n in zip(self.low, self.high, self.shape, strict=True)
        ]
        self.axes = [
            lo + h * (np.arange(n) + 0.5)
            for lo, h, n in zip(self.low, self.h, self.shape, strict=True)
        ]
        self.x = np.stack(np.meshgrid(*self.axes, indexing="ij"), -1).reshape(-1, d)
        self._discretise()

    def _discretise(self):
        """Set D at the centres, the edges of each axis, and the rates of leaving."""
        n, index = len(self.x), np.arange(len(self.x)).reshape(self.shape)
        self.D = self._coefficients(self.x)[1]
        self.out, self.leak, self.edges = np.zeros(n), np.zeros(n), []
        for k, (h, ends) in enumerate(zip(self.h, self.ends, strict=True)):
            i, j = index, np.roll(index, -1, k)
            if ends[0] == "periodic":
                self._require_periodic(k)
            else:
                i, j = (g.take(range(self.shape[k] - 1), k) for g in (i, j))
            i, j = i.ravel(), j.ravel()
            z = self._integral(i, k, h)
            up = self.D[i, k] / h**2 / exprel(-z)
            down = self.D[j, k] / h**2 / exprel(z)
            self.out += np.bincount(i, up, n) + np.bincount(j, down, n)
            self.edges.append(Edges(i, j, z, up, down))
            for kind, cell, side in zip(ends, (0, -1), (-1, 1), strict=True):
                if kind == "absorbing":
                    i = index.take(cell, k).ravel()
                    z = self._integral(i, k, side * h / 2)
                    self.leak[i] += 2 * self.D[i, k] / h**2 / exprel(-z)
        self.out += self.leak
        self.absorbs = any("absorbing" in ends for ends in self.ends)
        self.open_line = len(self.shape) == 1 and self.ends[0][0] != "periodic"

    def require_confined(self, p):
        """Stop where a natural end has a density that matters."""
        p = p.reshape(self.shape)
        for k, ends in enumerate(self.ends):
            for kind, cell, place in zip(
                ends, (0, -1), (self.low[k], self.high[k]), strict=True
            ):
                share = p.take(cell, k).max() / (p.max() or 1.0)  # or all is gone
                if kind == "natural" and not share <= NEGLIGIBLE:
                    raise ValueError(
                        f"the process is not confined: at the natural end {place:g} of "
                        f"axis {k} the density, or a mode asked for, is {share:.1e} of "
                        "its maximum. Move the end outwards, or make it reflecting."
                    )

    def interpolate(self, values, point):
        """Return values of the grid's shape, interpolated at a point, as a float."""
        for k, x in enumerate(each(point, len(self.shape), "point")):
            if not self.low[k] <= x <= self.high[k]:
                raise ValueError(
                    f"point must lie between {self.low} and {self.high}; got {point!r}."
                )
            place = (x - self.low[k]) / self.h[k] - 0.5
            start = min(max(math.floor(place) - 2, 0), self.shape[k] - 6)
            others = ~np.eye(6, dtype=bool)
            gaps = np.subtract.outer(np.arange(6), np.arange(6))
            factors = np.broadcast_to(place - start - np.arange(6), (6, 6))
            weights = np.divide(factors, gaps, where=others, out=np.ones((6, 6)))
            values = np.tensordot(weights.prod(1), values[start : start + 6], 1)
        return float(values)

    def _integral(self, i, k, length):
        """Return the integral of a / D along axis k, from the centres i."""
        x = np.repeat(self.x[i, None], len(_NODES), 1)
        x[..., k] += length * (1 + _NODES) / 2
        if self.ends[k][0] == "periodic":
            low, high = self.low[k], self.high[k]
            x[..., k] = low + (x[..., k] - low) % (high - low)
        a, D = self._coefficients(x.reshape(-1, len(self.shape)))
        return length / 2 * ((a / D)[:, k].reshape(len(i), -1) @ _WEIGHTS)

    def _coefficients(self, x):
        """Return Itô drift and D at points, arrays of shape (points, d)."""
        found = coefficients(self.process, torch.as_tensor(x, device=self.device))
        return tuple(v.cpu().numpy() for v in found)

    def _require_periodic(self, k):
        """Stop where drift or D differ at the two ends of an axis."""
        x = self.x.copy()
        x[:, k] = self.low[k]
        there = x.copy()
        there[:, k] = self.high[k]
        pairs = zip(self._coefficients(x), self._coefficients(there), strict=True)
        for name, (one, other) in zip(("drift", "D"), pairs, strict=True):
            gap = np.abs(one - other).max()
            if not gap <= 1e-8 * max(np.abs(one).max(), 1):
                raise ValueError(
                    f"{name} must be the same at both periodic ends; it differs by "
                    f"{gap:.3g}. Let the grid span a whole period."
                )


def coefficients(process, x, *, flows=False):
    """Return the Itô drift and the diagonal of D = B B^T / 2 at points.

    Parameters
    ----------
    process : sgdbook.process.Process
    x : torch.Tensor, shape (points, d)
    flows : bool
        Whether D may be 0.

    Returns
    -------
    tuple of torch.Tensor, shape (points, d)

    Raises
    ------
    ValueError
        If the drift is not finite, or D is not finite, positive and diagonal.
    """
    if getattr(process, "noise_dimension", None):
        raise ValueError(
            "a diffusion that is given as a product has no matrix to take D from. Pass "
            "a function that returns B."
        )
    drift, B = process.ito_drift(x), process.diffusion
    B = B(x) if callable(B) else torch.full_like(x, B)
    if B.ndim == 3:
        rate = B @ B.mT / 2
        D = rate.diagonal(dim1=1, dim2=2)
        mixed = (rate - torch.diag_embed(D)).abs().amax()
        if bool(mixed > 1e-12 * D.abs().amax()):
            raise ValueError(
                f"D must be diagonal; an entry off the diagonal is {float(mixed):.3g}. "
                "If D is constant, turn the coordinates to its axes."
            )
    else:
        D = B**2 / 2
        D = D.expand(x.shape) if D.shape == (len(x), 1) else D
    for name, found in (("drift", drift), ("diffusion", D)):
        if found.shape != x.shape or found.dtype != x.dtype:
            raise ValueError(
                f"the {name} must return shape (points, d) = {tuple(x.shape)} and "
                f"{x.dtype}; got {tuple(found.shape)} and {found.dtype}."
            )
    good = drift.isfinite() & D.isfinite() & ((D > 0) | flows)
    good = good.all(1)
    if not bool(good.all()):
        bad = int((~good).nonzero()[0])
        raise ValueError(
            f"drift must be finite and D finite and positive on the grid; at x = "
            f"{x[bad].tolist()} they are {drift[bad].tolist()} and {D[bad].tolist()}. "
            "Shrink the grid."
        )
    return drift, D


def each(value, d, name):
    """Return one number for each axis."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * d
    if len(values) != d or not all(isinstance(v, Real) for v in values):
        raise ValueError(
            f"{name} must be a number, or one for each of {d} axes; got {value!r}."
        )
    return values


def _kinds(ends, d):
    """Return a pair of kinds for each axis."""
    axes = ends if d == 2 and isinstance(ends, tuple | list) else (ends,) * d
    pairs = [(e, e) if isinstance(e, str) else tuple(e) for e in axes]
    if len(pairs) != d or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            f"ends must be one kind, or a pair for each of {d} axes; got {ends!r}."
        )
    for pair in pairs:
        for kind in pair:
            _door.require_one_of(kind, KINDS, "kind of an end", "Choose one.")
        if pair.count("periodic") == 1:
            raise ValueError(f"both ends of an axis are periodic or none; got {pair}.")
    return pairs
