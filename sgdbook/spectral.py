r"""Functions held by their values on a grid, accurate to rounding if it is fine enough.

A smooth function is replaced by its interpolant: trigonometric on a circle, polynomial
through Chebyshev points on an interval, a sum of sinc functions on a line where it
decays.  Expectations are linear in the observable, so one matrix takes its values at
all points to those of its mean after a step of SGD (`transfer`) or after a time t of a
diffusion (the exponential of t times `generator`): means over all paths, from every
start, without sampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sgdbook import _door
from sgdbook._cells import coefficients

CHUNK = 2**22  # numbers that are interpolated at once


@dataclass(frozen=True)
class Grid:
    """Points of an interval with what interpolates between them.

    Make one with `fourier`, `chebyshev` or `sinc`.

    Attributes
    ----------
    kind : str
    low, high : float
    points : torch.Tensor, shape (n,)
        float64.
    """

    kind: str
    low: float
    high: float
    points: torch.Tensor

    def __repr__(self):
        """Say kind, interval and size."""
        return f"Grid({self.kind}, [{self.low:g}, {self.high:g}], n = {len(self)})"

    def __len__(self):
        """Return the number of points."""
        return len(self.points)

    def interpolation(self, at):
        """Return the matrix from values on the grid to values elsewhere.

        Parameters
        ----------
        at : torch.Tensor, shape (m,)
            float64, finite; on a Chebyshev grid within the interval.

        Returns
        -------
        torch.Tensor, shape (m, n)

        Raises
        ------
        TypeError, ValueError
            If ``at`` is no such tensor.
        """
        _require_like(at, self.points, "at")
        if at.ndim != 1 or not bool(at.isfinite().all()):
            raise ValueError(
                f"at must be finite and of shape (m,); got {tuple(at.shape)}."
            )
        n = len(self)
        gaps = at[:, None] - self.points
        if self.kind == "fourier":
            period = self.high - self.low
            angle = math.pi * (gaps / period - (gaps / period).round())
            waves = torch.sin(n * angle) / (n * torch.sin(angle))
            return torch.where(angle == 0, 1.0, waves)
        if self.kind == "sinc":
            return torch.sinc(gaps * (n - 1) / (self.high - self.low))
        slack = 1e-12 * (self.high - self.low)
        if at.numel() and not self.low - slack <= at.min() <= at.max() <= (
            self.high + slack
        ):
            raise ValueError(
                f"the points must lie in [{self.low:g}, {self.high:g}]; they reach "
                f"from {float(at.min()):.6g} to {float(at.max()):.6g}. Widen the grid."
            )
        hits = gaps == 0
        terms = _chebyshev_weights(self.points) / gaps.masked_fill(hits, 1)
        rows = terms / terms.sum(1, keepdim=True)
        return torch.where(hits.any(1, keepdim=True), hits.to(rows), rows)

    def derivative(self):
        """Return the matrix from values to those of the derivative, shape (n, n)."""
        x, n = self.points, len(self)
        if self.kind == "chebyshev":
            w, gaps = _chebyshev_weights(x), x[:, None] - x
            D = w / w[:, None] / gaps.fill_diagonal_(math.inf)
            return D - torch.diag(D.sum(1))
        lag = torch.arange(1 - n, n, device=x.device).to(x)  # i - j: a Toeplitz matrix
        gap, rate = lag * (x[1] - x[0]), math.pi / (self.high - self.low)
        wave = gap if self.kind == "sinc" else torch.sin(rate * gap) / rate
        wave[n - 1] = math.inf
        return ((1 - 2 * (lag % 2)) / wave).unfold(0, n, 1).flip(1)


def fourier(low, high, size, *, device="cpu"):
    """Return a periodic grid with an odd number of points from low, without high."""
    _require_interval(low, high, size, 3)
    if size % 2 == 0:
        raise ValueError(
            f"size must be odd, so that every wave has a sine and a cosine; got {size}."
        )
    k = torch.arange(size, dtype=torch.float64, device=device)
    return Grid("fourier", low, high, low + (high - low) / size * k)


def chebyshev(low, high, size, *, device="cpu"):
    """Return ascending Chebyshev points of the second kind, both ends included."""
    _require_interval(low, high, size, 2)
    k = torch.arange(size, dtype=torch.float64, device=device)
    nodes = torch.sin(math.pi / 2 * (2 * k - size + 1) / (size - 1))
    return Grid("chebyshev", low, high, low + (high - low) * (1 + nodes) / 2)


def sinc(low, high, size, *, device="cpu"):
    """Return an even number of equidistant points, for functions that vanish beyond."""
    _require_interval(low, high, size, 2)
    if size % 2:
        raise ValueError(
            "size must be even: with an odd one symmetry alone can make the eigenvalue "
            f"0 exact, which tests the grid in `spectrum`; got {size}."
        )
    points = torch.linspace(low, high, size, dtype=torch.float64, device=device)
    return Grid("sinc", low, high, points)


def transfer(grid, after, weights=None):
    r"""Return the matrix that averages an observable over one random step.

    .. math:: u(x_i)\mapsto\sum_jw_j\,u(y_{ij})

    Its k-th power, applied to the values of an observable, gives the exact mean over
    all paths of k independent steps, from every start.

    Parameters
    ----------
    grid : Grid
    after : torch.Tensor, shape (n, outcomes)
        Where each outcome leads from each point: for SGD
        :math:`y_{ij}=x_i-\eta g_j(x_i)`.
    weights : torch.Tensor, shape (outcomes,), optional
        Probabilities; uniform unless given.

    Returns
    -------
    torch.Tensor, shape (n, n)
        Rows sum to 1.

    Raises
    ------
    TypeError, ValueError
        If a shape is wrong, weights are no probabilities, a step leaves the interval,
        or the grid is of the kind "sinc", which cannot hold a constant.

    Examples
    --------
    Halve x and step by ±1/2: the mean square goes from x² to x²/4 + 1/4.

    >>> grid = chebyshev(-1, 1, 3)
    >>> after = grid.points[:, None] / 2 + torch.tensor([-0.5, 0.5]).double()
    >>> transfer(grid, after) @ grid.points**2
    tensor([0.5000, 0.2500, 0.5000], dtype=torch.float64)
    """
    _require_like(after, grid.points, "after")
    if grid.kind == "sinc":
        raise ValueError("a sinc grid cannot hold a constant. Take chebyshev(...).")
    n = len(grid)
    if after.ndim != 2 or len(after) != n or not after.shape[1]:
        raise ValueError(
            f"after must have shape (n, outcomes), n = {n}; got {tuple(after.shape)}. "
            "Row i holds where point i may go."
        )
    m = after.shape[1]
    if weights is None:
        weights = grid.points.new_full((m,), 1 / m)
    _require_like(weights, grid.points, "weights")
    total = float(weights.sum())
    if weights.shape != (m,) or weights.min() < 0 or not abs(total - 1) < 1e-12:
        raise ValueError(
            f"weights must be {m} probabilities; got {tuple(weights.shape)} with sum "
            f"{total:.15g}."
        )
    result, some = grid.points.new_zeros(n, n), max(1, CHUNK // n**2)
    for y, w in zip(after.split(some, dim=1), weights.split(some), strict=True):
        rows = grid.interpolation(y.reshape(-1)).reshape(n, len(w), n)
        result += torch.einsum("imj,m->ij", rows, w)
    return result


def generator(process, grid):
    r"""Return the matrix of :math:`\mathcal L=a\,\partial_x+D\,\partial_x^2`.

    On a Fourier grid ``torch.matrix_exp(t * generator(process, grid)) @ phi`` is the
    mean of an observable at time t, from every start.  On the other grids nothing is
    imposed at the ends.

    Parameters
    ----------
    process : sgdbook.process.Process
        One-dimensional, any convention.
    grid : Grid

    Returns
    -------
    torch.Tensor, shape (n, n)

    Raises
    ------
    ValueError
        If the process is not one-dimensional, its coefficients are not finite, or D is
        negative; D = 0 is a flow without noise.
    """
    a, D = _on_grid(process, grid, flows=True)
    first = grid.derivative()
    return a[:, None] * first + D[:, None] * (first @ first)


def spectrum(process, grid, k):
    r"""Return the k eigenvalues of the generator smallest in modulus.

    On a sinc grid it is made symmetric, by the stationary density p: with
    :math:`w=\tfrac12(\ln p)'=\frac{a-D'}{2D}`,

    .. math:: \sqrt p\,\mathcal L\frac1{\sqrt p}=-A^{\mathsf T}DA,\qquad
              A=\partial_x-w .

    How far the first eigenvalue is from 0 is about the error of the second, or more,
    and is checked.  Higher ones are less accurate; compare two grids.

    Parameters
    ----------
    process : sgdbook.process.Process
        One-dimensional, any convention.
    grid : Grid
        ``sinc`` for a confined process, ``fourier`` for a periodic one.
    k : int

    Returns
    -------
    torch.Tensor, shape (k,)
        Ascending in modulus; real on a sinc grid, complex on a Fourier grid.

    Raises
    ------
    ValueError
        If k is out of range or the grid is of another kind.
    ArithmeticError
        If the first eigenvalue is not 0 to eight digits of the second.

    References
    ----------
    Risken, *The Fokker-Planck Equation*, section 5.4.

    Examples
    --------
    >>> from sgdbook.process import Process
    >>> process = Process(lambda x: -x, 2**0.5, dimension=1)
    >>> round(float(spectrum(process, sinc(-8, 8, 40), 4)[3]), 9)
    -3.0
    """
    n = len(grid)
    if not _door.is_integer(k) or not 1 <= k <= n:
        raise ValueError(f"k must be an integer from 1 to n = {n}; got {k!r}.")
    if grid.kind == "fourier":
        values = torch.linalg.eigvals(generator(process, grid))
        values = values[values.abs().argsort(stable=True)]
    elif grid.kind == "sinc":
        a, D = _on_grid(process, grid)
        A = grid.derivative() - torch.diag((a - _slope(process, grid)) / (2 * D))
        values = -torch.linalg.eigvalsh(A.T @ (D[:, None] * A))
    else:
        raise ValueError(
            f"grid must be sinc or fourier; got {grid!r}. A spectrum on an interval "
            "needs walls: take sgdbook.fokker_planck."
        )
    if not values[0].abs() <= 1e-8 * values[1].abs():
        raise ArithmeticError(
            f"the eigenvalue 0 came out as {abs(complex(values[0])):.1e}, the next as "
            f"{abs(complex(values[1])):.1e}: the grid is too coarse or too narrow, the "
            "process not confined, or the gap lost in rounding. Refine or widen it."
        )
    values[0] = 0
    return values[:k]


def _on_grid(process, grid, **options):
    """Return Itô drift and D at the points, both of shape (n,)."""
    if getattr(process, "dimension", None) != 1:
        raise ValueError(f"process must be one-dimensional; got {process!r}.")
    a, D = coefficients(process, grid.points[:, None], **options)
    return a[:, 0], D[:, 0]


def _slope(process, grid):
    """Return D' at the points, by forward-mode differentiation."""
    if not callable(process.diffusion):
        return torch.zeros_like(grid.points)

    def D(x):
        B = process.diffusion(x)
        return B.reshape(len(x), -1).square().sum(1) / 2

    x = grid.points[:, None]
    return torch.func.jvp(D, (x,), (torch.ones_like(x),))[1]


def _require_like(value, points, name):
    """Stop where a tensor is not of the grid's dtype and on its device."""
    _door.require_floating_tensor(value, name)
    if (value.dtype, value.device) != (points.dtype, points.device):
        raise ValueError(
            f"{name} must be {points.dtype} on {points.device} like the grid; got "
            f"{value.dtype} on {value.device}. Make it from grid.points."
        )


def _chebyshev_weights(points):
    """Return the barycentric weights of Chebyshev points of the second kind."""
    w = 1 - 2.0 * (torch.arange(len(points), device=points.device) % 2)
    w = w.to(points)
    w[0], w[-1] = w[0] / 2, w[-1] / 2
    return w


def _require_interval(low, high, size, least):
    """Stop at what is no interval or no size."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"the grid needs finite low < high; got {low!r} and {high!r}.")
    if not _door.is_integer(size) or size < least:
        raise ValueError(
            f"size must be an integer of at least {least}; got {size!r}. Begin with 40."
        )
