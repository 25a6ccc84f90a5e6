r"""Connection and curvature of a metric, as elements of a differential field.

The curvature comes from derivatives of the symbols of the first kind,

.. math:: R_{kmij}=\partial_i\Gamma_{k,mj}-\partial_j\Gamma_{k,mi}
          +\Gamma_{p,jk}\Gamma^p_{mi}-\Gamma_{p,ik}\Gamma^p_{mj},

so that no inverse is differentiated, and for k < m, i < j and (k, m) <= (i, j) only;
the other components follow by symmetry.  Counted by the pairs k < m, the curvature is
a symmetric matrix, and both indices of a pair are raised by one product of matrices.
"""

from __future__ import annotations

from functools import cached_property
from itertools import combinations, combinations_with_replacement, product

import sympy as sp

from sgdbook.fields import Field


class Connection:
    """A metric with its inverse and derivatives, in a field that holds more if asked.

    Parameters
    ----------
    matrix : sympy.Matrix, shape (d, d)
        The metric; checked.
    coordinates : tuple of sympy.Symbol
        The d coordinates.
    extra : sequence of sympy.Expr
        Further expressions of the field; their elements become `extra`.
    order : int
        How many derivatives will be taken.

    Raises
    ------
    ValueError
        If the metric is singular.
    """

    def __init__(self, matrix, coordinates, extra=(), order=2):
        d = len(coordinates)
        self.axes = range(d)
        self.field = Field([*matrix, *extra], coordinates, order)
        entries = self.field.elements
        self.metric = [entries[i * d : (i + 1) * d] for i in range(d)]
        self.extra = entries[d * d :]
        self.pairs = list(combinations(self.axes, 2))
        self.upper = list(combinations_with_replacement(self.axes, 2))

    @cached_property
    def inverse(self):
        """Return the inverse of the metric as rows."""
        return self._eliminated[0]

    @cached_property
    def determinant(self):
        """Return the determinant of the metric."""
        total = self.field.one
        for factor in self._eliminated[1]:
            total = self.field.multiply(total, factor)
        return total

    @cached_property
    def first(self):
        """Return the symbols of the first kind as ``first[k, i, j]``."""
        F, slope, first = self.field, {}, {}
        for i, j in self.upper:
            for k in self.axes:
                value = F.differentiate(self.metric[i][j], k)
                slope[i, j, k] = slope[j, i, k] = value
        for k in self.axes:
            for i, j in self.upper:
                total = F.add(slope[j, k, i], slope[i, k, j])
                total = F.add(total, slope[i, j, k], -1)
                first[k, i, j] = first[k, j, i] = F.add({}, total, sp.QQ(1, 2))
        return first

    @cached_property
    def second(self):
        """Return the symbols of the second kind as ``second[k, i, j]``."""
        second = {}
        for i, j in self.upper:
            column = [self.first[m, i, j] for m in self.axes]
            for k in self.axes:
                second[k, i, j] = second[k, j, i] = self.dot(self.inverse[k], column)
        return second

    @cached_property
    def riemann(self):
        """Return the curvature as a matrix ``riemann[a][b]`` over the pairs k < m."""
        n = len(self.pairs)
        rows = [[{}] * n for _ in self.pairs]
        for a in range(n):
            for b in range(a, n):
                rows[a][b] = rows[b][a] = self._riemann(*self.pairs[a], *self.pairs[b])
        return rows

    @cached_property
    def mixed(self):
        """Return the curvature with the first pair up, as a matrix over the pairs."""
        F, g = self.field, self.inverse
        raising = [
            [
                F.add(F.multiply(g[k][i], g[m][j]), F.multiply(g[k][j], g[m][i]), -1)
                for i, j in self.pairs
            ]
            for k, m in self.pairs
        ]
        return [[self.dot(row, column) for column in self.riemann] for row in raising]

    @cached_property
    def ricci(self):
        """Return the Ricci curvature as ``ricci[i, j]``."""
        F, ricci = self.field, {}
        for m, j in self.upper:
            total = {}
            for k, i in product(self.axes, repeat=2):
                if self.inverse[k][i]:
                    part = F.multiply(self.inverse[k][i], self.curvature(k, m, i, j))
                    total = F.add(total, part)
            ricci[m, j] = ricci[j, m] = total
        return ricci

    @cached_property
    def scalar(self):
        """Return the scalar curvature."""
        total = {}
        for a, row in enumerate(self.mixed):
            total = self.field.add(total, row[a], 2)
        return total

    @cached_property
    def kretschmann(self):
        """Return the square of the curvature, four times the trace of mixed²."""
        total = {}
        for row, column in zip(self.mixed, zip(*self.mixed, strict=True), strict=True):
            total = self.field.add(total, self.dot(row, column), 4)
        return total

    def curvature(self, k, m, i, j):
        """Return one component of the curvature, all indices down."""
        if k == m or i == j:
            return {}
        a, b = (self.pairs.index(tuple(sorted(p))) for p in ((k, m), (i, j)))
        sign = 1 if (k < m) == (i < j) else -1
        return self.field.add({}, self.riemann[a][b], sign)

    def covariant(self, tensor, positions):
        """Return the covariant derivative of a dict of components, its index last."""
        F, result = self.field, {}
        for index, value in tensor.items():
            for c in self.axes:
                total = F.differentiate(value, c)
                for axis, position in enumerate(positions):
                    for m in self.axes:
                        other = tensor[*index[:axis], m, *index[axis + 1 :]]
                        if not other:
                            continue
                        if position == "u":
                            gamma, sign = self.second[index[axis], c, m], 1
                        else:
                            gamma, sign = self.second[m, c, index[axis]], -1
                        total = F.add(total, F.multiply(gamma, other), sign)
                result[*index, c] = total
        return result

    def dot(self, one, other):
        """Return the sum of the products of two sequences of elements."""
        total = {}
        for left, right in zip(one, other, strict=True):
            if left and right:
                total = self.field.add(total, self.field.multiply(left, right))
        return total

    def array(self, elements):
        """Return a dict of components as an array; shared ones are converted once."""
        distinct = {id(e): e for e in elements.values()}
        known = {key: self.field.expression(e) for key, e in distinct.items()}
        shape = [len(self.axes)] * len(next(iter(elements)))
        indices = product(self.axes, repeat=len(shape))
        return sp.ImmutableDenseNDimArray(
            [known[id(elements[index])] for index in indices], shape
        )

    def products(self, rows, column):
        """Return the products of a matrix of elements with a vector, as a column."""
        return sp.ImmutableMatrix(
            [self.field.expression(self.dot(row, column)) for row in rows]
        )

    def _riemann(self, k, m, i, j):
        F, first, second = self.field, self.first, self.second
        total = F.differentiate(first[k, m, j], i)
        total = F.add(total, F.differentiate(first[k, m, i], j), -1)
        for sign, one, other in ((1, (j, k), (m, i)), (-1, (i, k), (m, j))):
            lower = [first[p, *one] for p in self.axes]
            upper = [second[p, *other] for p in self.axes]
            total = F.add(total, self.dot(lower, upper), sign)
        return total

    @cached_property
    def _eliminated(self):
        """Return the inverse, by elimination, and factors of the determinant."""
        F, d, factors = self.field, len(self.axes), []
        rows = [
            list(row) + [F.one if i == j else {} for j in range(d)]
            for i, row in enumerate(self.metric)
        ]
        for column in range(d):
            pivot = next((r for r in range(column, d) if rows[r][column]), None)
            if pivot is None:
                raise ValueError(
                    "matrix must be invertible; it is singular everywhere. Drop a "
                    "coordinate that the others determine."
                )
            rows[column], rows[pivot] = rows[pivot], rows[column]
            sign = 1 if pivot == column else -1
            factors.append(F.add({}, rows[column][column], sign))
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
        return [row[d:] for row in rows], factors
