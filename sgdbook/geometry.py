r"""Riemannian geometry of a SymPy metric: inverse and Christoffel symbols.

.. math:: \Gamma_{k,ij}=\tfrac12\big(\partial_iG_{jk}+\partial_jG_{ik}
          -\partial_kG_{ij}\big),\qquad \Gamma^k_{ij}=\sum_lG^{kl}\,\Gamma_{l,ij}

The arithmetic is that of `sgdbook.fields`: exact, and simplified at every step.
"""

from __future__ import annotations

from functools import cached_property

import sympy as sp

from sgdbook.fields import Field


class Metric:
    r"""A metric :math:`G_{ij}(x)` in given coordinates.

    Parameters
    ----------
    matrix : sympy.Matrix, shape (d, d)
        Symmetric; rational numbers, coordinates, parameters, and functions of them,
        undetermined ones too.  It need not be positive definite.
    coordinates : sequence of sympy.Symbol
        The d coordinates, plain symbols.

    Raises
    ------
    TypeError
        If the matrix is none, or holds decimal numbers.
    ValueError
        If the sizes do not fit, the matrix is not symmetric or is singular, or a
        coordinate is repeated.

    References
    ----------
    Lee, *Introduction to Riemannian Manifolds*, equation (5.8).

    Examples
    --------
    The sphere: :math:`\Gamma^\theta_{\varphi\varphi}=-\sin\theta\cos\theta`.

    >>> theta, phi = sp.symbols("theta phi")
    >>> sphere = Metric(sp.diag(1, sp.sin(theta) ** 2), [theta, phi])
    >>> sphere.christoffel[0, 1, 1]
    -sin(theta)*cos(theta)
    """

    def __init__(self, matrix, coordinates):
        self.coordinates = _coordinates(coordinates)
        self.matrix = _matrix(matrix, len(self.coordinates))
        d = len(self.coordinates)
        self._field = Field(list(self.matrix), self.coordinates)
        entries = self._field.elements
        self._entries = [entries[i * d : (i + 1) * d] for i in range(d)]
        for i in range(d):
            for j in range(i):
                if self._field.add(self._entries[i][j], self._entries[j][i], -1):
                    raise ValueError(
                        f"matrix must be symmetric; the entries ({i}, {j}) and "
                        f"({j}, {i}) differ: {self.matrix[i, j]} and "
                        f"{self.matrix[j, i]}. Take (G + G.T)/2 if that is meant."
                    )
        self._inverse = self._invert()

    def __repr__(self):
        """Say the coordinates."""
        return f"Metric in ({', '.join(map(str, self.coordinates))})"

    @cached_property
    def inverse(self):
        """Return the inverse metric, shape (d, d).

        Returns
        -------
        sympy.ImmutableMatrix
        """
        return sp.ImmutableMatrix(
            [[self._field.expression(e) for e in row] for row in self._inverse]
        )

    @cached_property
    def christoffel_first(self):
        r"""Return :math:`\Gamma_{k,ij}` as ``gamma[k, i, j]``, shape (d, d, d).

        Returns
        -------
        sympy.ImmutableDenseNDimArray
        """
        return self._array(self._first)

    @cached_property
    def christoffel(self):
        r"""Return :math:`\Gamma^k_{ij}` as ``gamma[k, i, j]``, shape (d, d, d).

        Returns
        -------
        sympy.ImmutableDenseNDimArray
        """
        F, d = self._field, len(self.coordinates)
        second = {}
        for k in range(d):
            for i, j in _pairs(d):
                total = {}
                for m in range(d):
                    raised, first = self._inverse[k][m], self._first[m, i, j]
                    if raised and first:
                        total = F.add(total, F.multiply(raised, first))
                second[k, i, j] = total
        return self._array(second)

    @cached_property
    def _first(self):
        F, d = self._field, len(self.coordinates)
        slope = {}
        for i, j in _pairs(d):
            for k in range(d):
                value = F.differentiate(self._entries[i][j], k)
                slope[i, j, k] = slope[j, i, k] = value
        first = {}
        for k in range(d):
            for i, j in _pairs(d):
                total = F.add(slope[j, k, i], slope[i, k, j])
                total = F.add(total, slope[i, j, k], -1)
                first[k, i, j] = F.add({}, total, sp.QQ(1, 2))
        return first

    def _invert(self):
        """Invert by elimination, exactly."""
        F, d = self._field, len(self.coordinates)
        rows = [
            list(row) + [F.one if i == j else {} for j in range(d)]
            for i, row in enumerate(self._entries)
        ]
        for column in range(d):
            pivot = next((r for r in range(column, d) if rows[r][column]), None)
            if pivot is None:
                raise ValueError(
                    "matrix must be invertible; it is singular everywhere. Drop a "
                    "coordinate that the others determine."
                )
            rows[column], rows[pivot] = rows[pivot], rows[column]
            inverse = F.invert(rows[column][column])
            rows[column] = [F.multiply(e, inverse) for e in rows[column]]
            for r in range(d):
                if r == column or not rows[r][column]:
                    continue
                factor = rows[r][column]
                rows[r] = [
                    F.add(e, F.multiply(factor, p), -1) if p else e
                    for e, p in zip(rows[r], rows[column], strict=True)
                ]
        return [row[d:] for row in rows]

    def _array(self, elements):
        """Return a d x d x d array from the entries with i <= j."""
        d = len(self.coordinates)
        known = {key: self._field.expression(e) for key, e in elements.items()}
        return sp.ImmutableDenseNDimArray(
            [
                known[k, min(i, j), max(i, j)]
                for k in range(d)
                for i in range(d)
                for j in range(d)
            ],
            (d, d, d),
        )


def _pairs(d):
    return [(i, j) for i in range(d) for j in range(i, d)]


def _coordinates(coordinates):
    found = tuple(coordinates)
    if not found or not all(isinstance(c, sp.Symbol) for c in found):
        raise TypeError(
            f"coordinates must be SymPy symbols; got {coordinates!r}. Pass [x, y]."
        )
    if len(set(found)) < len(found):
        raise ValueError(f"coordinates must differ; got {found}. Name every one once.")
    return found


def _matrix(matrix, d):
    if not isinstance(matrix, sp.MatrixBase):
        raise TypeError(
            f"matrix must be a SymPy matrix; got {type(matrix).__name__}. Pass "
            "sp.Matrix([[...], ...])."
        )
    if matrix.shape != (d, d):
        raise ValueError(
            f"matrix must have shape ({d}, {d}), one row for each coordinate; got "
            f"{matrix.shape}."
        )
    if matrix.has(sp.nan, sp.zoo, sp.oo, -sp.oo):
        raise ValueError(
            "matrix must be finite; it holds NaN or infinity. Look at how its entries "
            "were made."
        )
    return sp.ImmutableMatrix(matrix)
