r"""Riemannian geometry of a SymPy metric: connection, curvature and derivatives.

.. math:: \Gamma_{k,ij}=\tfrac12\big(\partial_iG_{jk}+\partial_jG_{ik}
          -\partial_kG_{ij}\big),\qquad \Gamma^k_{ij}=\sum_pG^{kp}\,\Gamma_{p,ij}

.. math:: R^k{}_{mij}=\partial_i\Gamma^k_{mj}-\partial_j\Gamma^k_{mi}
          +\sum_p\big(\Gamma^k_{ip}\Gamma^p_{mj}-\Gamma^k_{jp}\Gamma^p_{mi}\big),
          \qquad R_{mj}=\sum_kR^k{}_{mkj}

The arithmetic is that of `sgdbook.fields`: exact, and simplified at every step.  The
signs are those of Misner, Thorne and Wheeler: spheres have positive curvature.
"""

from __future__ import annotations

from functools import cached_property
from itertools import combinations_with_replacement, product
from numbers import Number

import sympy as sp

from sgdbook._curvature import Connection


class Metric:
    r"""A metric :math:`G_{ij}(x)` in given coordinates.

    What depends on the metric alone is a property, computed when first asked for.

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
    ZeroDivisionError
        If square roots in it are related and the signs not known: :math:`\sqrt{x^2}+x`.

    References
    ----------
    Lee, *Introduction to Riemannian Manifolds*, equation (5.8); Misner, Thorne and
    Wheeler, *Gravitation*, equations (8.44), (8.47) and (8.48).

    Examples
    --------
    The sphere: :math:`\Gamma^\theta_{\varphi\varphi}=-\sin\theta\cos\theta`, and the
    curvature is 1.

    >>> theta, phi = sp.symbols("theta phi")
    >>> sphere = Metric(sp.diag(1, sp.sin(theta) ** 2), [theta, phi])
    >>> sphere.christoffel[0, 1, 1]
    -sin(theta)*cos(theta)
    >>> sphere.gaussian_curvature
    1
    """

    def __init__(self, matrix, coordinates):
        self.coordinates = _coordinates(coordinates)
        self.matrix = _matrix(matrix, len(self.coordinates))
        self._d = len(self.coordinates)
        self._own = Connection(self.matrix, self.coordinates)
        entries, F = self._own.metric, self._own.field
        for i in range(self._d):
            for j in range(i):
                if F.add(entries[i][j], entries[j][i], -1):
                    raise ValueError(
                        f"matrix must be symmetric; the entries ({i}, {j}) and "
                        f"({j}, {i}) differ: {self.matrix[i, j]} and "
                        f"{self.matrix[j, i]}. Take (G + G.T)/2 if that is meant."
                    )
        self._own.inverse  # noqa: B018  (a singular matrix stops here)

    def __repr__(self):
        """Say the coordinates."""
        return f"Metric in ({', '.join(map(str, self.coordinates))})"

    @cached_property
    def inverse(self):
        """Inverse metric, an immutable matrix of shape (d, d)."""
        expression = self._own.field.expression
        return sp.ImmutableMatrix([list(map(expression, r)) for r in self._own.inverse])

    @cached_property
    def determinant(self):
        """Determinant of the metric, an expression."""
        return self._own.field.expression(self._own.determinant)

    @cached_property
    def christoffel_first(self):
        r""":math:`\Gamma_{k,ij}` as ``gamma[k, i, j]``, an array of shape (d, d, d)."""
        return self._own.array(self._own.first)

    @cached_property
    def christoffel(self):
        r""":math:`\Gamma^k_{ij}` as ``gamma[k, i, j]``, an array of shape (d, d, d)."""
        return self._own.array(self._own.second)

    @cached_property
    def riemann(self):
        """Curvature R_kmij, all indices down, an array of shape (d, d, d, d).

        For a surface R_1212 = K det G.
        """
        own, pairs = self._own, self._own.pairs
        full = sp.MutableDenseNDimArray.zeros(*4 * [self._d])
        for a, b in combinations_with_replacement(range(len(pairs)), 2):
            value = own.field.expression(own.riemann[a][b])
            for (k, m), (i, j) in ((pairs[a], pairs[b]), (pairs[b], pairs[a])):
                full[k, m, i, j] = full[m, k, j, i] = value
                full[m, k, i, j] = full[k, m, j, i] = -value
        return full.as_immutable()

    @cached_property
    def ricci(self):
        """Ricci curvature R_mj, both down, an immutable matrix of shape (d, d)."""
        return self._own.array(self._own.ricci).tomatrix().as_immutable()

    @cached_property
    def scalar_curvature(self):
        """Scalar curvature, the trace of the Ricci curvature, an expression."""
        return self._own.field.expression(self._own.scalar)

    @cached_property
    def kretschmann(self):
        """Sum of the R_kmij R^kmij over all indices, an expression."""
        return self._own.field.expression(self._own.kretschmann)

    @cached_property
    def gaussian_curvature(self):
        """Curvature R_1212 / det G of a surface, an expression.

        Raises
        ------
        ValueError
            If there are not two coordinates.
        """
        if self._d != 2:
            raise ValueError(
                "gaussian_curvature is of surfaces, with 2 coordinates; the metric "
                f"has {self._d}. Take riemann, ricci or scalar_curvature."
            )
        half = self._own.field.add({}, self._own.scalar, sp.QQ(1, 2))
        return self._own.field.expression(half)

    def raised(self, covector):
        r"""Return :math:`\sum_iG^{ki}w_i`.

        Parameters
        ----------
        covector : sequence or sympy.Matrix of d expressions
            It may hold functions and symbols that the metric does not; so may the
            arguments of all methods.

        Returns
        -------
        sympy.ImmutableMatrix, shape (d, 1)

        Raises
        ------
        TypeError
            In this and all methods, if an argument holds decimal numbers or what is
            no expression.
        ValueError
            If its shape does not fit, or it is not finite.
        """
        there = self._with(_entries(covector, (self._d,), "covector"), order=0)
        return there.products(there.inverse, there.extra)

    def lowered(self, vector):
        r"""Return :math:`\sum_iG_{ki}v^i`.

        Parameters
        ----------
        vector : sequence or sympy.Matrix of d expressions

        Returns
        -------
        sympy.ImmutableMatrix, shape (d, 1)
        """
        there = self._with(_entries(vector, (self._d,), "vector"), order=0)
        return there.products(there.metric, there.extra)

    def gradient(self, f):
        r"""Return the vector :math:`\sum_iG^{ki}\,\partial_if`.

        Parameters
        ----------
        f : sympy.Expr

        Returns
        -------
        sympy.ImmutableMatrix, shape (d, 1)
        """
        there = self._with(_entries(f, (), "f"), order=1)
        slopes = there.covariant({(): there.extra[0]}, "").values()
        return there.products(there.inverse, slopes)

    def hessian(self, f):
        r"""Return :math:`\partial_k\partial_mf-\sum_p\Gamma^p_{km}\,\partial_pf`.

        Parameters
        ----------
        f : sympy.Expr

        Returns
        -------
        sympy.ImmutableMatrix, shape (d, d)
        """
        there, second = self._hessian(f)
        return there.array(second).tomatrix().as_immutable()

    def laplacian(self, f):
        """Return the trace of the Hessian, the Laplace--Beltrami operator of f.

        Parameters
        ----------
        f : sympy.Expr

        Returns
        -------
        sympy.Expr

        Examples
        --------
        >>> r, phi = sp.symbols("r phi")
        >>> Metric(sp.diag(1, r**2), [r, phi]).laplacian(sp.log(r))
        0
        """
        there, second = self._hessian(f)
        flat = [e for row in there.inverse for e in row]
        return there.field.expression(there.dot(flat, second.values()))

    def divergence(self, vector):
        r"""Return :math:`\sum_k\big(\partial_kv^k+\sum_p\Gamma^k_{kp}v^p\big)`.

        Parameters
        ----------
        vector : sequence or sympy.Matrix of d expressions

        Returns
        -------
        sympy.Expr
        """
        there = self._with(_entries(vector, (self._d,), "vector"), order=1)
        slopes = there.covariant({(k,): there.extra[k] for k in there.axes}, "u")
        trace = [slopes[k, k] for k in there.axes]
        return there.field.expression(there.dot(trace, [there.field.one] * self._d))

    def covariant_derivative(self, components, positions):
        r"""Return the covariant derivative of a tensor; its index is last, and down.

        .. math:: \nabla_cT^{a\dots}{}_{b\dots}=\partial_cT^{a\dots}{}_{b\dots}
                  +\sum_p\Gamma^a_{cp}T^{p\dots}{}_{b\dots}+\dots
                  -\sum_p\Gamma^p_{cb}T^{a\dots}{}_{p\dots}-\dots

        Parameters
        ----------
        components : expression, nested sequences, sympy.Matrix or array
            Shape (d, ..., d), one axis for each index; none for a scalar.
        positions : str
            Where the indices stand: a letter each, "u" for up and "d" for down.

        Returns
        -------
        sympy.ImmutableDenseNDimArray, shape (d, ..., d)
            One axis more.

        Raises
        ------
        ValueError
            Also if positions holds another letter.

        Examples
        --------
        >>> r, phi = sp.symbols("r phi")
        >>> plane = Metric(sp.diag(1, r**2), [r, phi])
        >>> plane.covariant_derivative([sp.cos(phi), -sp.sin(phi) / r], "u")
        [[0, 0], [0, 0]]
        """
        if not isinstance(positions, str) or set(positions) - {"u", "d"}:
            raise ValueError(
                "positions must hold the letter 'u' or 'd' for each index, up or down; "
                f"got {positions!r}. Write 'ud' for one up and one down."
            )
        rank = len(positions)
        there = self._with(_entries(components, (self._d,) * rank, "components"), 1)
        indices = product(there.axes, repeat=rank)
        tensor = dict(zip(indices, there.extra, strict=True))
        return there.array(there.covariant(tensor, positions))

    def geodesic_equation(self, velocities):
        r"""Return the accelerations on a geodesic, :math:`-\sum\Gamma^k_{ij}v^iv^j`.

        Parameters
        ----------
        velocities : sequence or sympy.Matrix of d expressions

        Returns
        -------
        sympy.ImmutableMatrix, shape (d, 1)
        """
        there = self._with(_entries(velocities, (self._d,), "velocities"), order=1)
        v, lower = there.extra, []
        for p in there.axes:
            rows = [[there.first[p, i, j] for j in there.axes] for i in there.axes]
            force = there.dot([there.dot(row, v) for row in rows], v)
            lower.append(there.field.add({}, force, -1))
        return there.products(there.inverse, lower)

    def _with(self, expressions, order):
        """Return the connection in a field that holds the expressions too."""
        return Connection(self.matrix, self.coordinates, expressions, order)

    def _hessian(self, f):
        there = self._with(_entries(f, (), "f"), order=2)
        slopes = there.covariant({(): there.extra[0]}, "")
        return there, there.covariant(slopes, "d")


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
    _require_finite(matrix, "matrix")
    return sp.ImmutableMatrix(matrix)


def _entries(components, shape, name):
    """Return the entries of nested sequences, a matrix or an array of this shape."""
    if not shape:
        value = sp.sympify(components) if isinstance(components, Number) else components
        if not isinstance(value, sp.Expr):
            raise TypeError(
                f"{name} must hold SymPy expressions; got {type(components).__name__}. "
                "Make them of SymPy symbols, or with sp.sympify."
            )
        _require_finite(value, name)
        return [value]
    if isinstance(components, sp.MatrixBase) and len(shape) == 1:
        parts = components.flat() if 1 in components.shape else components.tolist()
    else:
        parts = getattr(components, "tolist", lambda: components)()
    sized = isinstance(parts, list | tuple)
    if not sized or len(parts) != shape[0]:
        raise ValueError(
            f"{name} must have {shape[0]} entries along each of its axes, one for each "
            f"coordinate; got {len(parts) if sized else type(parts).__name__}."
        )
    return [e for part in parts for e in _entries(part, shape[1:], name)]


def _require_finite(value, name):
    if value.has(sp.nan, sp.zoo, sp.oo, -sp.oo):
        raise ValueError(
            f"{name} must be finite; it holds NaN or infinity. Look at how its entries "
            "were made."
        )
