r"""The diffusion metric and its Christoffel symbols, contracted and never formed.

Gradient noise with the diffusion matrix D bends the space of weights x:

.. math:: G(x) = I + \varepsilon\,D(x)
          = I + \frac\varepsilon N J^{\mathsf T} C J, \qquad
          C = I - \tfrac1N\mathbf 1\mathbf 1^{\mathsf T}.

For constant :math:`\varepsilon\ge0` this is the metric that the graph of
:math:`x\mapsto\sqrt{\varepsilon/N}\,C\,(f_1(x),\dots,f_N(x))` inherits from the flat
space around it. For such a graph the Christoffel symbols need no derivative of D:

.. math:: \Gamma(u, v) = \frac\varepsilon N\,G^{-1} J^{\mathsf T} C\,\ell''(u, v),
          \qquad \ell''_i(u, v) = u^{\mathsf T}\,\nabla^2 f_i\,v .

One nested forward derivative, one backward derivative and one solve: about as much work
in a thousand dimensions as in ten.
"""

import torch
from torch.func import jvp

from sgdbook import _door, _krylov, gradients, nets
from sgdbook.layers import rows_of
from sgdbook.noise import DiffusionMatrix
from sgdbook.rows import FunctionRows, centre, columns_of, of_matrix

SOLVERS = ("auto", "cg", "cholesky")
_PATIENCE = 50  # products, after which "auto" turns from gradients to Cholesky
_LARGEST = 10_000  # rows of the largest matrix that "auto" factors
_FEW = 32  # weights, up to which J of a function is formed at once


class DiffusionMetric:
    r"""The metric :math:`G = I + \varepsilon D` at one point x.

    Make one with `of` or `of_losses`. Vectors at x have shape (d,); `matvec` and
    `solve` also take several, as columns (d, k).

    Parameters
    ----------
    rows : sgdbook.rows.Rows
        The matrix J of per-sample gradients at x.
    losses : callable
        Weights (d,) -> losses (N,), twice differentiable.
    weights : torch.Tensor
        The point x, shape (d,).
    epsilon : float
        Metric strength :math:`\varepsilon\ge0`, of unit [x²/f²].
    solver : {"auto", "cg", "cholesky"}
        How to solve with G, see `solve`.

    References
    ----------
    Fioresi, Chaudhari and Soatto, arXiv:1910.12194, equation (6) and the display
    after (7), there for the first kind and to first order in ε; here exact.

    Examples
    --------
    Losses :math:`\pm x^2/2` in one dimension have :math:`D=x^2`, so that
    :math:`G=1+\varepsilon x^2` and :math:`\Gamma=\varepsilon x/(1+\varepsilon x^2)`:

    >>> def losses(x):
    ...     return torch.cat([x**2, -(x**2)]) / 2
    >>> metric = DiffusionMetric.of_losses(losses, torch.tensor([2.0]), 0.5)
    >>> one = torch.ones(1)
    >>> metric.matvec(one), metric.christoffel(one)
    (tensor([3.]), tensor([0.3333]))
    >>> metric
    DiffusionMetric(N=2, d=1, epsilon=0.5, torch.float32, cpu)
    """

    def __init__(self, rows, losses, weights, epsilon, *, solver="auto"):
        _door.require_number(
            epsilon,
            "epsilon",
            positive=False,
            hint="Below 0 the metric need not be positive.",
        )
        _door.require_one_of(solver, SOLVERS, "solver", "See DiffusionMetric.solve.")
        self._rows, self._losses, self._weights = rows, losses, weights
        self.epsilon, self.solver = float(epsilon), solver
        self._factor = None
        self._slopes(weights[:, None])  # finite?

    @classmethod
    def of(cls, model, loss, inputs, targets, epsilon, *, solver="auto"):
        """Return the metric of a network on a data set, at its present parameters.

        Parameters
        ----------
        model, loss, inputs, targets
            As in `sgdbook.gradients.per_sample_losses`, with N >= 2.
        epsilon, solver
            As in the class.

        Returns
        -------
        DiffusionMetric
            Of the inputs' dtype, on their device; J is held as
            `sgdbook.layers.rows_of` decides.

        Raises
        ------
        ValueError, TypeError
            As in `sgdbook.gradients.per_sample_gradients`; if epsilon is negative or
            not finite, a loss or a gradient is not finite, or N < 2.
        """
        losses = gradients.losses_of(model, loss, inputs, targets)
        weights = nets.flatten(model)
        with torch.no_grad():
            _require_losses(losses(weights), weights)
        rows = rows_of(model, loss, inputs, targets)
        return cls(rows, losses, weights, epsilon, solver=solver)

    @classmethod
    def of_losses(cls, function, weights, epsilon, *, solver="auto"):
        """Return the metric of any function that gives the losses of all samples.

        Parameters
        ----------
        function : callable
            Weights (d,) -> losses (N,), N >= 2, in operations that torch
            differentiates forwards and backwards.
        weights : torch.Tensor
            The point x, shape (d,), floating.
        epsilon, solver
            As in the class.

        Returns
        -------
        DiffusionMetric
            Of the weights' dtype, on their device.

        Raises
        ------
        TypeError
            If function is not callable, or weights or losses are not floating-point
            tensors.
        ValueError
            If a shape, dtype or device is wrong, weights or losses are not finite, or
            epsilon is negative or not finite.
        """
        if not callable(function):
            raise TypeError(
                "function must be a function weights (d,) -> losses (N,); got "
                f"{type(function).__name__}. For a network use DiffusionMetric.of."
            )
        _door.require_floating_tensor(weights, "weights")
        if weights.ndim != 1 or len(weights) == 0 or not weights.isfinite().all():
            raise ValueError(
                "weights must be a finite vector (d,), d >= 1; got shape "
                f"{tuple(weights.shape)}. Flatten them, and look for NaN."
            )
        weights = weights.detach().clone()
        with torch.no_grad():
            losses = function(weights)
        _require_losses(losses, weights)
        n = len(losses)
        rows = FunctionRows(lambda x, i, j: function(x)[i:j], weights, n, step=n)
        if len(weights) <= _FEW:
            rows = of_matrix(rows.block(0, n))
        return cls(rows, function, weights, epsilon, solver=solver)

    @property
    def shape(self):
        """(d, d)."""
        return (self._rows.shape[1],) * 2

    def __repr__(self):
        n, d = self._rows.shape
        return (
            f"DiffusionMetric(N={n}, d={d}, epsilon={self.epsilon:g}, "
            f"{self._weights.dtype}, {self._weights.device})"
        )

    def matvec(self, v):
        r"""Return :math:`Gv`, the vector v with its index lowered, shaped like v."""
        columns = columns_of(v, self._weights, "the weights").detach()
        return self._product(columns).reshape(v.shape)

    def _product(self, columns):
        """Return G times columns that were checked."""
        return columns + self._pull(centre(self._rows.matvec(columns)))

    def solve(self, v):
        r"""Return :math:`G^{-1}v`, the covector v with its index raised, shaped like v.

        With ``"cg"`` by conjugate gradients, from products with J only. As
        :math:`G\ge I`, the error is at most the residual; the iteration stops where
        that is at most machine epsilon times the solution. With ``"cholesky"`` by a
        factor of G (d x d) if d <= N, or else, after Woodbury, of
        :math:`I+\frac\varepsilon NCJJ^{\mathsf T}C` (N x N), once for all vectors.
        ``"auto"`` uses the factor if there is one. It makes it if conjugate gradients
        have not converged after 50 products and it has at most 10,000 rows.

        Rounding may grow by the factor :math:`1+\varepsilon\lambda_{\max}(D)`, so the
        residual is computed again at the end.

        Raises
        ------
        ArithmeticError
            If the error may exceed the fourth root of machine epsilon (1e-4 in
            float64) times the solution, or as in `logdet`.
        ValueError, TypeError
            If v has another shape, dtype or device than it must, or is not finite.
        """
        columns = columns_of(v, self._weights, "the weights").detach()
        size, x = min(self._rows.shape), None
        factor = self.solver == "cholesky" or (self.solver == "auto" and self._factor)
        switch = self.solver == "auto" and size <= _LARGEST
        if not factor:
            limit = _PATIENCE if switch else 2 * size + 1000
            x = _krylov.conjugate_gradients(self._product, columns, limit)
        solved = x is not None and self._solves(x, columns)
        if factor or (switch and not solved):
            x = self._by_factor(columns)
            solved = self._solves(x, columns)
        if not solved:
            raise ArithmeticError(
                "G x = v must be solved to a small residual; with epsilon = "
                f"{self.epsilon:g} rounding or slow convergence leaves a large one. "
                "Use float64, or a smaller epsilon."
            )
        return x.reshape(v.shape)

    def _solves(self, x, v):
        """Return whether x is G⁻¹ v up to the fourth root of machine epsilon."""
        allowed = torch.finfo(v.dtype).eps ** 0.25 * x.norm(dim=0)
        return bool(((v - self._product(x)).norm(dim=0) <= allowed).all())

    def logdet(self):
        r"""Return :math:`\ln\det G`, a scalar, from the Cholesky factor of `solve`.

        Twice the logarithm of the volume element :math:`\sqrt{\det G}`.

        Raises
        ------
        ArithmeticError
            If rounding has made G indefinite: epsilon is too large for the dtype.
        """
        factor = self._cholesky()[0]
        return 2 * factor.diagonal().log().sum()

    def lower_christoffel(self, u, v=None):
        r"""Return the Christoffel symbols of the first kind, contracted twice.

        .. math:: \Gamma_{k,ij}u^iv^j = \varepsilon
                  \operatorname{Cov}(\partial_k f,\ u^{\mathsf T}\nabla^2f\,v)

        Parameters
        ----------
        u, v : torch.Tensor
            Shape (d,); v = u unless given. Symmetric in the two.

        Returns
        -------
        torch.Tensor
            Shape (d,): index k.

        Raises
        ------
        FloatingPointError
            If a second derivative is not finite.
        ValueError, TypeError
            If a vector has another shape, dtype or device than it must.
        """
        v = u if v is None else v
        for vector, name in ((u, "u"), (v, "v")):
            gradients._require_direction(vector, self._weights, name)

        def slopes(x):
            return jvp(self._losses, (x,), (u.detach(),))[1]

        bends = jvp(slopes, (self._weights,), (v.detach(),))[1].detach()
        _require_finite(bends, "second derivative of a loss")
        return self._pull(centre(bends[:, None]))[:, 0]

    def christoffel(self, u, v=None):
        r"""Return the Christoffel symbols of the second kind, contracted twice.

        .. math:: \Gamma^k(u, v) = \Gamma^k_{ij}u^iv^j = G^{kl}\,\Gamma_{l,ij}u^iv^j

        Along a geodesic :math:`\ddot x=-\Gamma(\dot x,\dot x)`.

        Parameters
        ----------
        u, v : torch.Tensor
            Shape (d,); v = u unless given. Symmetric in the two.

        Returns
        -------
        torch.Tensor
            Shape (d,): index k.

        Raises
        ------
        FloatingPointError, ArithmeticError, ValueError, TypeError
            As in `lower_christoffel` and `solve`.
        """
        return self.solve(self.lower_christoffel(u, v))

    def _slopes(self, columns):
        """Return C J v, shape (N, k)."""
        slopes = self._rows.matvec(columns)
        _require_finite(slopes, "derivative of a loss")
        return centre(slopes)

    def _pull(self, spread):
        """Return (ε/N) Jᵀ times what is centred, shape (d, k)."""
        return self._rows.rmatvec(spread) * (self.epsilon / len(spread))

    def _cholesky(self):
        """Return the factor, and whether it is that of G itself."""
        if self._factor is None:
            (n, d), rows = self._rows.shape, self._rows
            if isinstance(rows, FunctionRows) and rows.fits():
                rows = of_matrix(rows.block(0, n))
            D = DiffusionMatrix(rows)
            matrix = (D.dense() if d <= n else D.gram()).mul_(self.epsilon)
            matrix.diagonal().add_(1)
            factor, failed = torch.linalg.cholesky_ex(matrix)
            if failed:
                raise ArithmeticError(
                    "G must be positive up to rounding; with epsilon = "
                    f"{self.epsilon:g} in {matrix.dtype} it is not. Use float64, or a "
                    "smaller epsilon."
                )
            self._factor = factor, d <= n
        return self._factor

    def _by_factor(self, v):
        """Return G⁻¹ v for v (d, k)."""
        factor, whole = self._cholesky()
        if whole:
            return torch.cholesky_solve(v, factor)
        return v - self._pull(centre(torch.cholesky_solve(self._slopes(v), factor)))


def _require_losses(losses, weights):
    """Stop where losses at the weights are not N >= 2 finite numbers."""
    _door.require_floating_tensor(losses, "losses")
    if losses.ndim != 1 or len(losses) < 2:
        raise ValueError(
            f"losses must have shape (N,), N >= 2, one a sample; got "
            f"{tuple(losses.shape)}. Do not average them."
        )
    if (losses.dtype, losses.device) != (weights.dtype, weights.device):
        raise ValueError(
            f"losses must be {weights.dtype} on {weights.device} like the weights; got "
            f"{losses.dtype} on {losses.device}. Convert the data of the function."
        )
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        raise ValueError(
            f"every loss must be finite; that of sample {int(bad[0])} is "
            f"{float(losses[bad[0]])} ({len(bad)} of {len(losses)} in all). Look for "
            "NaN or infinity in its input and in the weights."
        )


def _require_finite(values, what):
    """Stop where a derivative is infinite or NaN."""
    if not values.isfinite().all():
        bad = int((~values.isfinite()).nonzero()[0, 0])
        raise FloatingPointError(
            f"every {what} must be finite; that of sample {bad} is not. The function "
            "may have a kink or overflow there."
        )
