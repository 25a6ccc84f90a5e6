r"""A stochastic differential equation in SymPy: drift, diffusion and convention.

.. math:: dX = a(X)\,dt + B(X)\,dW

means nothing until it is said where within a step :math:`B` is evaluated.  An `SDE`
says it, and knows what follows: the drift of the same process in Itô's convention, the
generator, the Fokker-Planck equation, and the torch functions to simulate it with.
"""

from __future__ import annotations

from functools import cached_property

import sympy as sp

from sgdbook.bridge import evaluate, to_torch
from sgdbook.process import CONVENTIONS, Process


class SDE:
    r"""A diffusion :math:`dX = a\,dt + B\,dW` with a stated convention.

    Parameters
    ----------
    drift : sympy.Expr or sequence of sympy.Expr
        :math:`a`: one expression if d = 1, else d of them.
    diffusion : sympy.Expr, sequence of sympy.Expr or sympy.Matrix
        :math:`B`, the factor of :math:`dW` (for noise :math:`\sqrt{2T}\,dW` it is
        :math:`\sqrt{2T}`).  One expression: that times the identity; a sequence of d:
        a diagonal matrix; a (d, m) matrix: m independent Wiener processes.
    variables : sympy.Symbol or sequence of sympy.Symbol
        The d coordinates.
    convention : {"ito", "stratonovich", "anti-ito"}
        Where in the step :math:`B` is taken: start, middle, end.  In more than one
        dimension ``"anti-ito"`` means the Itô drift
        :math:`a_i+\frac12\sum_j\partial_j(BB^\top)_{ij}`.

    Raises
    ------
    TypeError, ValueError
        If the shapes do not fit, a variable is repeated, or the convention is none of
        these.

    References
    ----------
    Risken, *The Fokker-Planck Equation*, section 3.3; Gardiner, *Stochastic Methods*,
    section 4.3.

    Examples
    --------
    >>> x = sp.Symbol("x", real=True)
    >>> SDE(0, x, x, convention="stratonovich").ito_drift
    x/2
    """

    def __init__(self, drift, diffusion, variables, *, convention):
        many = isinstance(variables, list | tuple | sp.Tuple | sp.MatrixBase)
        self.variables = tuple(variables) if many else (variables,)
        d = len(self.variables)
        if not d or not all(isinstance(v, sp.Symbol) for v in self.variables):
            raise TypeError(
                f"variables must be SymPy symbols; got {variables!r}. Pass x, or "
                "[x, y] for two dimensions."
            )
        if len(set(self.variables)) < d:
            raise ValueError(
                f"variables must differ; got {variables!r}. Name every coordinate once."
            )
        if convention not in CONVENTIONS:
            raise ValueError(
                f"convention must be one of {', '.join(CONVENTIONS)}; got "
                f"{convention!r}. SGD is 'ito': it takes the gradient before it moves."
            )
        self.convention = convention
        self.drift = _vector(drift, d)
        self.diffusion = _matrix(diffusion, d)

    def __repr__(self) -> str:
        """Say dimension and convention."""
        names = ", ".join(map(str, self.variables))
        return f"SDE in ({names}), convention {self.convention!r}"

    @property
    def covariance_rate(self):
        r"""Return :math:`BB^\top`, which is :math:`2TD`: scalar if d = 1, else (d, d).

        Returns
        -------
        sympy.Expr or sympy.Matrix
        """
        rate = (self.diffusion * self.diffusion.T).applyfunc(sp.simplify)
        return _unwrap(rate)

    @cached_property
    def ito_drift(self):
        r"""Return the drift of the same process in Itô's convention.

        .. math:: a_i + \tfrac12\sum_{jk}B_{jk}\partial_jB_{ik}
                  \quad\text{(Stratonovich)},\qquad
                  a_i + \tfrac12\sum_j\partial_j(BB^\top)_{ij}\quad\text{(anti-Itô)}

        Returns
        -------
        sympy.Expr or sympy.Matrix
            A scalar if d = 1, else a column.
        """
        if self.convention == "ito":
            return _unwrap(self.drift)
        d, m = self.diffusion.shape
        B, at = self.diffusion, self.variables
        if self.convention == "stratonovich":
            extra = [
                sum(B[j, k] * B[i, k].diff(at[j]) for j in range(d) for k in range(m))
                for i in range(d)
            ]
        else:
            rate = B * B.T
            extra = [sum(rate[i, j].diff(at[j]) for j in range(d)) for i in range(d)]
        correction = sp.Matrix(extra).applyfunc(sp.simplify) / 2
        return _unwrap(self.drift + correction)

    def generator(self, phi):
        r"""Apply the backward generator to an observable.

        .. math:: \mathcal L\varphi = \sum_ia_i\partial_i\varphi
                  + \tfrac12\sum_{ij}(BB^\top)_{ij}\,\partial_i\partial_j\varphi

        with the Itô drift; :math:`\frac{d}{dt}\mathbb E\varphi(X_t)=\mathbb
        E\,\mathcal L\varphi(X_t)`.

        Parameters
        ----------
        phi : sympy.Expr

        Returns
        -------
        sympy.Expr
        """
        a, rate, at, phi = *self._ito(), self.variables, sp.sympify(phi)
        first = sum(a[i] * phi.diff(v) for i, v in enumerate(at))
        return first + sum(
            rate[i, j] * phi.diff(v, w)
            for i, v in enumerate(at)
            for j, w in enumerate(at)
        ) / sp.Integer(2)

    def fokker_planck(self, p):
        r"""Return the right-hand side of the Fokker-Planck equation.

        .. math:: \partial_tp = -\sum_i\partial_i(a_ip)
                  + \tfrac12\sum_{ij}\partial_i\partial_j\big((BB^\top)_{ij}\,p\big)

        Parameters
        ----------
        p : sympy.Expr
            A density.

        Returns
        -------
        sympy.Expr
            Not simplified.
        """
        a, rate, at = *self._ito(), self.variables
        first = -sum((a[i] * p).diff(v) for i, v in enumerate(at))
        return first + sum(
            (rate[i, j] * p).diff(v, w)
            for i, v in enumerate(at)
            for j, w in enumerate(at)
        ) / sp.Integer(2)

    def process(self, at=None, *, device="cpu"):
        """Compile the process for `sgdbook.simulate.simulate`.

        Parameters
        ----------
        at : dict of sympy.Symbol to float
            Values of the symbols that are not coordinates.
        device : str or torch.device
            Where the paths will live.

        Returns
        -------
        sgdbook.process.Process
            In Itô's convention, with the correction of the drift made here; it
            computes in the dtype of the paths.

        Raises
        ------
        ValueError
            If a symbol has no value.

        Examples
        --------
        >>> x, T = sp.symbols("x T", positive=True)
        >>> SDE(-x, sp.sqrt(2 * T), x, convention="ito").process({T: 0.5})
        Process(d = 1, convention 'ito')
        """
        values = dict(at or {})
        drift, diffusion = sp.Matrix([self.ito_drift]), self.diffusion
        free = drift.free_symbols | diffusion.free_symbols
        if missing := sorted(map(str, free - set(self.variables) - set(values))):
            raise ValueError(
                f"The symbols {missing} have no value. Pass at={{symbol: value}}."
            )
        args = [*self.variables, *values]

        def compiled(expr):
            """Return a function of the coordinates, in their dtype."""
            functions = {}

            def function(*coordinates):
                dtype = coordinates[0].dtype
                if dtype not in functions:
                    functions[dtype] = to_torch(expr, args, dtype=dtype, device=device)
                return functions[dtype](*coordinates, *values.values())

            return function

        def entry(expr):
            """Return a function of the coordinates, or the number that it always is."""
            varies = expr.free_symbols & set(self.variables)
            return compiled(expr) if varies else float(evaluate(expr, values))

        def on_paths(expr):
            function = compiled(expr)
            return lambda x: function(*x.unbind(-1))

        d, m = diffusion.shape
        diagonal = m == d and diffusion.is_diagonal()
        a = on_paths(drift)
        b = on_paths(diffusion.diagonal().T if diagonal else diffusion)
        slopes = [compiled(expr) for expr in drift]
        entries = [[entry(diffusion[i, j]) for j in range(m)] for i in range(d)]
        whole = (lambda x: b(x)[..., 0]) if diagonal else b
        if diagonal and all(row[i] == entries[0][0] for i, row in enumerate(entries)):
            first = entries[0][0]
            whole = first if not callable(first) and first >= 0 else whole
        return Process(
            lambda x: a(x)[..., 0],
            whole,
            dimension=d,
            observable=lambda expr: on_paths(sp.sympify(expr)),
            coordinates=(
                lambda *x: [slope(*x) for slope in slopes],
                lambda *x: [
                    [b(*x) if callable(b) else b for b in row] for row in entries
                ],
            ),
        )

    def _ito(self):
        """Return Itô drift and rate as matrices, whatever d is."""
        return sp.Matrix([self.ito_drift]), self.diffusion * self.diffusion.T


def _vector(drift, d):
    """Return the drift as a column of d expressions."""
    many = isinstance(drift, list | tuple | sp.MatrixBase)
    column = sp.Matrix(list(drift) if many else [drift])
    if len(column) != d:
        raise ValueError(
            f"drift must have one entry a variable, {d}; got {len(column)}. Pass one "
            "expression for each coordinate."
        )
    return column


def _matrix(diffusion, d):
    """Return the diffusion as a (d, m) matrix."""
    if isinstance(diffusion, sp.MatrixBase):
        if diffusion.rows != d:
            raise ValueError(
                f"diffusion must have one row a variable, {d}; got shape "
                f"{diffusion.shape}. Row i holds what drives coordinate i."
            )
        return sp.Matrix(diffusion)
    if isinstance(diffusion, list | tuple):
        if len(diffusion) != d:
            raise ValueError(
                f"a diagonal diffusion must have {d} entries; got {len(diffusion)}. "
                "Pass one for each coordinate, or a matrix."
            )
        return sp.diag(*diffusion)
    return sp.sympify(diffusion) * sp.eye(d)


def _unwrap(matrix):
    """Return the single entry of a 1 x 1 matrix, any other matrix as it is."""
    return matrix[0, 0] if matrix.shape == (1, 1) else matrix
