"""Richardson extrapolation: the leading error removed by a second grid."""

from __future__ import annotations

from dataclasses import dataclass

from sgdbook import _door


@dataclass(frozen=True)
class Extrapolated:
    """A value extrapolated to an infinitely fine grid.

    Attributes
    ----------
    value : float or torch.Tensor
    error : float or torch.Tensor
        Estimates the error of the finer grid, which bounds that of ``value`` from
        above once both grids resolve the problem.
    """

    value: object
    error: object


def richardson(quantity, cells, *, order=2):
    r"""Extrapolate a quantity with an error :math:`ch^m+\mathcal O(h^{m+2})`.

    .. math:: q=q_{2n}+\frac{q_{2n}-q_n}{2^m-1}

    Parameters
    ----------
    quantity : callable
        From ``cells`` to a float or a tensor whose shape does not depend on them.
    cells : int or tuple of int
        Of the coarse grid; the fine one has twice as many along each axis.
    order : int
        m.

    Returns
    -------
    Extrapolated

    Raises
    ------
    ValueError
        If cells or order are not positive integers.

    References
    ----------
    Richardson, Phil. Trans. R. Soc. A 210 (1911), 307.

    Examples
    --------
    >>> trapezia = lambda n: sum((i / n) ** 4 for i in range(n)) / n + 1 / (2 * n)
    >>> f"{trapezia(16) - 0.2:.0e}, {richardson(trapezia, 8).value - 0.2:.0e}"
    '1e-03, 2e-06'
    """
    _door.require_positive_integer(order, "order")
    many = isinstance(cells, tuple | list)
    for n in cells if many else (cells,):
        _door.require_positive_integer(n, "cells")
    coarse = quantity(cells)
    fine = quantity(tuple(2 * n for n in cells) if many else 2 * cells)
    correction = (fine - coarse) / (2**order - 1)
    return Extrapolated(fine + correction, abs(correction))
