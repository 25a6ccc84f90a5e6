r"""The Fokker-Planck equation on a grid: stationary laws, spectra, evolution, passage.

For :math:`dX=a\,dt+B\,dW` in Itô's convention with a diagonal
:math:`D=\tfrac12BB^{\mathsf T}`,

.. math:: \partial_tp=-\sum_k\partial_kJ_k,\qquad J_k=a_kp-\partial_k(D_kp) .

Between neighbouring cells i and j at distance h the flux of Scharfetter and Gummel is

.. math:: J=\tfrac1h\bigl[b(-z)\,(Dp)_i-b(z)\,(Dp)_j\bigr],\qquad
          b(z)=\frac z{e^z-1},\qquad z=\int_i^j\frac{a_k}{D_k}\,dx_k ,

a Markov chain that jumps between cells: mass is conserved, densities stay positive, and
where detailed balance holds the law :math:`p\propto e^{\int a/D}/D` is exactly
stationary.  Other errors are of order h²; `sgdbook.extrapolation` takes them to h⁴.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal

from sgdbook import _door
from sgdbook._cells import Cells
from sgdbook.markov import LOST, JumpProcess


class FokkerPlanck:
    r"""A one- or two-dimensional diffusion on a grid of equal cells.

    Densities, observables and passage times are float64 tensors of the shape
    ``cells``: their values at the centres.

    Parameters
    ----------
    process : sgdbook.process.Process
        Any convention, gradient or not; D diagonal and positive.
    low, high : float or pair of float
        The rectangle.
    cells : int or pair of int
        How many cells along each axis, at least 6.
    ends : str or tuple
        ``"natural"``: the end only truncates; an error where it would matter.
        ``"reflecting"``, ``"absorbing"``: a wall.  ``"periodic"``.  One for all, or in
        one dimension a pair (left, right), or in two dimensions a pair with one entry
        for each axis, itself one kind or a pair.
    device : str or torch.device
        Where the process is evaluated and results are returned; the linear algebra
        runs on the CPU.
    limit : int
        The most bytes that solving for a grid of so many cells may take.

    Attributes
    ----------
    axes : tuple of torch.Tensor
        Centres along each axis, for plots.
    points : torch.Tensor, shape (cells..., d)
        Centres of the cells.
    volume : float
        Of one cell; ``p.sum() * volume`` is the mass.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, D is not positive and diagonal, drift or
        diffusion are not finite, or not periodic where the ends are.
    MemoryError
        If the grid is too large; says how large, and what to lower.

    References
    ----------
    Scharfetter and Gummel, IEEE Trans. Electron Devices 16 (1969), 64; Gardiner,
    *Stochastic Methods*, sections 5.1 and 6.2.

    Examples
    --------
    The Ornstein-Uhlenbeck process has the eigenvalues 0, -1, -2, ...:

    >>> from sgdbook.extrapolation import richardson
    >>> from sgdbook.process import Process
    >>> process = Process(lambda x: -x, 2**0.5, dimension=1)
    >>> gap = lambda n: FokkerPlanck(process, -7, 7, n).spectrum(2)[1]
    >>> round(float(richardson(gap, 100).value), 4)
    -1.0
    """

    def __init__(
        self, process, low, high, cells, *, ends="natural", device="cpu", limit=2**31
    ):
        grid = self._grid = Cells(process, low, high, cells, ends, device, limit)
        self.cells, self._device, self._limit = grid.shape, device, limit
        self.axes = tuple(map(self._tensor, grid.axes))
        self.points = self._tensor(grid.x).reshape(*grid.shape, -1)
        self.volume = math.prod(grid.h)

    def __repr__(self):
        """Say the rectangle and the number of cells."""
        box = " x ".join(
            f"[{lo:g}, {hi:g}]"
            for lo, hi in zip(self._grid.low, self._grid.high, strict=True)
        )
        return f"FokkerPlanck({box}, {' x '.join(map(str, self.cells))} cells)"

    def stationary(self):
        """Return the stationary density, of mass 1.

        In one dimension with ends that do not wrap round it is exp(∫ a/D) / D by
        quadrature, and so no independent test of that formula: use paths for one.

        Raises
        ------
        ValueError
            If an end absorbs, or the process is not confined between natural ends.
        ArithmeticError
            If rounding decides between wells that hardly exchange probability.
        """
        if self._grid.absorbs:
            raise ValueError(
                "a stationary density needs ends that do not absorb. Look at the "
                "slowest mode instead: spectrum(1) is minus its rate."
            )
        if self._grid.open_line:
            z, D = self._grid.edges[0].z, self._grid.D[:, 0]
            log_p = np.r_[0, z.cumsum()] - np.log(D)
            p = np.exp(log_p - log_p.max())
        else:
            p = self._jumps.stationary()
        self._grid.require_confined(p)
        return self._field(p / (p.sum() * self.volume))

    def spectrum(self, k):
        """Return the k eigenvalues of the generator that are smallest in modulus.

        Parameters
        ----------
        k : int

        Returns
        -------
        torch.Tensor, shape (k,)
            Ascending in modulus.  Real where the grid is one-dimensional and not
            periodic, else complex.  The first is exactly 0 if no end absorbs; else it
            is minus the rate of escape.

        Raises
        ------
        ValueError
            If k is out of range, or the process is not confined between natural ends.
        ArithmeticError
            If an eigenvalue other than 0 is lost in rounding.
        """
        n = len(self._grid.x)
        if not _door.is_integer(k) or not 1 <= k <= n - 2:
            raise ValueError(
                f"k must be an integer from 1 to cells - 2 = {n - 2}; got {k!r}."
            )
        if self._grid.open_line:
            edge = self._grid.edges[0]
            values, modes = eigh_tridiagonal(
                -self._grid.out,
                np.sqrt(edge.up * edge.down),
                select="i",
                select_range=(n - k, n - 1),
            )
            values = values[::-1].copy()
            for mode in modes.T:  # squared: density times eigenfunction squared
                self._grid.require_confined(mode**2)
            if not self._grid.absorbs:
                self.stationary()  # stops where the process is not confined
            elif "natural" in self._grid.ends[0]:
                self._grid.require_confined(
                    self._jumps.survivors(np.zeros(n, dtype=bool))
                )
        else:
            values, slowest = self._jumps.eigenpairs(k)
            self._grid.require_confined(slowest)
        if not self._grid.absorbs:
            values[0] = 0
        rounding = np.finfo(float).eps * self._grid.out.max()
        if (np.abs(values[0 if self._grid.absorbs else 1 :]) * LOST < rounding).any():
            raise ArithmeticError(
                f"an eigenvalue is below {rounding / LOST:.1e} and lost in rounding. "
                "Take fewer cells or eigenvalues; for the time over a high barrier "
                "take sgdbook.escape.first_passage_time."
            )
        return self._tensor(values)

    def evolve(self, p0, times):
        """Return the densities at later times.

        Densities stay non-negative, and mass is conserved to rounding unless an end
        absorbs.

        Parameters
        ----------
        p0 : torch.Tensor, shape ``cells``
            Density at time 0, of mass 1.
        times : sequence of float
            At least 0, increasing.

        Returns
        -------
        torch.Tensor, shape (times, *cells)

        Raises
        ------
        ValueError
            If p0 is no density, times do not increase, or mass reaches a natural end.
        """
        p0 = self._values(p0, "p0")
        mass = p0.sum() * self.volume
        if p0.min() < 0 or not abs(mass - 1) < 1e-6:
            raise ValueError(
                f"p0 must be a density, non-negative and of mass 1; its smallest value "
                f"is {p0.min():.3g}, its mass {mass:.9g}. Divide by p0.sum() * volume."
            )
        found = self._jumps.flow(p0, times)
        for p in found:
            self._grid.require_confined(p)
        return self._field(found)

    def expectation(self, phi, times):
        r"""Return :math:`\mathbb E[\varphi(X_t)\mid X_0=x]` for every start x.

        Solves the backward equation :math:`\partial_tu=\sum_ka_k\partial_ku
        +D_k\partial_k^2u`; absorbed paths count as 0.  Starts near a natural end feel
        that it reflects.

        Parameters
        ----------
        phi : torch.Tensor or callable
            Values, of shape ``cells``, or a function from (points, d) to (points,).
        times : sequence of float
            At least 0, increasing.

        Returns
        -------
        torch.Tensor, shape (times, *cells)

        Raises
        ------
        ValueError
            If phi is of wrong shape or not finite, or times do not increase.
        """
        if callable(phi):
            phi = phi(self.points.reshape(len(self._grid.x), -1)).reshape(self.cells)
        phi = self._values(phi, "phi")
        return self._field(self._jumps.flow(phi, times, forward=False))

    def mean_first_passage_time(self, target=None):
        r"""Return the mean time to absorption, for every start.

        Solves :math:`\sum_ka_k\partial_kT+D_k\partial_k^2T=-1`.

        Parameters
        ----------
        target : callable, optional
            A function from (points, d) to a boolean (points,): cells that absorb,
            besides absorbing ends.  The edge of such a set runs through its outermost
            centres, an error of order h; walls have one of order h².

        Returns
        -------
        torch.Tensor, shape ``cells``
            0 in the target.

        Raises
        ------
        ValueError
            If nothing absorbs, everything does, or mass reaches a natural end.
        ArithmeticError
            If the time is so long that it is lost in rounding.
        """
        hit = torch.zeros(len(self._grid.x), dtype=torch.bool)
        if target is not None:
            hit = target(self.points.reshape(len(self._grid.x), -1)).cpu()
            if hit.dtype != torch.bool or hit.shape != (len(self._grid.x),):
                raise ValueError(
                    f"target must return booleans of shape (points,); got {hit.dtype} "
                    f"of shape {tuple(hit.shape)}."
                )
        hit = hit.numpy()
        if hit.all() or not (hit.any() or self._grid.absorbs):
            raise ValueError(
                "a passage needs a goal and a start: an absorbing end, or a target "
                "that holds some of the cells, not all."
            )
        if any("natural" in ends for ends in self._grid.ends):
            self._grid.require_confined(self._jumps.survivors(hit))
        return self._field(self._jumps.hitting_time(hit))

    def current(self, p):
        """Return the probability current between neighbouring cells.

        Parameters
        ----------
        p : torch.Tensor, shape ``cells``
            A density.

        Returns
        -------
        tuple of torch.Tensor
            One for each axis k: of the shape ``cells``, but along k one shorter unless
            periodic; entry i is the current from cell i to i + 1.
        """
        p, found = self._values(p, "p"), []
        for k, edge in enumerate(self._grid.edges):
            shape = list(self.cells)
            shape[k] -= self._grid.ends[k][0] != "periodic"
            flux = self._grid.h[k] * (edge.up * p[edge.i] - edge.down * p[edge.j])
            found.append(self._tensor(flux).reshape(shape))
        return tuple(found)

    def at(self, values, point):
        """Interpolate values on the grid, by polynomials of degree 5.

        Parameters
        ----------
        values : torch.Tensor, shape ``cells``
        point : float or pair of float
            Within the rectangle.

        Returns
        -------
        float
        """
        values = self._values(values, "values").reshape(self.cells)
        return self._grid.interpolate(values, point)

    @cached_property
    def _jumps(self):
        """The Markov process that jumps between the cells."""
        ways = [(e.i, e.j, e.up) for e in self._grid.edges]
        ways += [(e.j, e.i, e.down) for e in self._grid.edges]
        start, end, rate = map(np.concatenate, zip(*ways, strict=True))
        return JumpProcess(start, end, rate, self._grid.leak, self._limit)

    def _values(self, values, name):
        """Check values on the grid and return them as a flat array."""
        _door.require_floating_tensor(values, name)
        if tuple(values.shape) != self.cells or not bool(values.isfinite().all()):
            raise ValueError(
                f"{name} must be finite and of shape {self.cells}; got "
                f"{tuple(values.shape)}. Evaluate it at the points."
            )
        return values.detach().cpu().double().numpy().ravel()

    def _tensor(self, array):
        return torch.as_tensor(np.ascontiguousarray(array), device=self._device)

    def _field(self, array):
        """Return flat values as a tensor on the grid, after leading axes."""
        return self._tensor(array).reshape(*array.shape[:-1], *self.cells)
