r"""A diffusion as numbers: drift, diffusion, convention, and the schemes that step it.

A `Process` holds torch functions for :math:`dX=a\,dt+B\,dW`.  It is stepped in one of
two forms.  As a whole: one tensor (paths, d) for all paths, which suits any function
and any d.  By coordinates: d tensors (paths,), which a compiler can keep in registers;
`sgdbook.sde.SDE.process` provides it.  A scheme is written once, for both.
"""

from __future__ import annotations

import math

import torch

from sgdbook import _door

CONVENTIONS = ("ito", "stratonovich", "anti-ito")
SCHEMES = ("euler-maruyama", "platen")


class Process:
    r"""A diffusion :math:`dX=a(X)\,dt+B(X)\,dW`, given by torch functions.

    Parameters
    ----------
    drift : callable
        :math:`a`, from (paths, d) to (paths, d).
    diffusion : float or callable
        :math:`B`.  A number: that times the identity.  A function of (paths, d) that
        returns (paths, d): a diagonal matrix; (paths, 1): the same for every
        coordinate; (paths, d, m): m independent Wiener processes.
    dimension : int
        d.
    noise_dimension : int, optional
        If given, ``diffusion(x, xi)`` is the product :math:`B(x)\,\xi` itself, with xi
        of shape (paths, m): for a matrix that is too large to form.
    convention : {"ito", "stratonovich", "anti-ito"}
        Where in the step B is taken; the drift is corrected by automatic
        differentiation, at the cost of d derivatives a step.  Products of the third
        kind must be Itô.
    observable : callable, optional
        Turns an observable that is no function into one of (paths, d).
    coordinates : tuple of two callables, optional
        Itô drift and diffusion once more, as functions of d tensors (paths,): a list
        of d of them, and d lists of m tensors or numbers.

    Raises
    ------
    ValueError
        If dimension or convention are out of range.

    Examples
    --------
    >>> Process(lambda x: -x, 1.0, dimension=2)
    Process(d = 2, convention 'ito')
    """

    def __init__(
        self,
        drift,
        diffusion,
        *,
        dimension,
        noise_dimension=None,
        convention="ito",
        observable=None,
        coordinates=None,
    ):
        _door.require_positive_integer(dimension, "dimension")
        _door.require_one_of(convention, CONVENTIONS, "convention", "SGD is 'ito'.")
        if noise_dimension is not None:
            _door.require_positive_integer(noise_dimension, "noise_dimension")
            if convention != "ito":
                raise ValueError(
                    "a diffusion that is given as a product must be 'ito'; got "
                    f"{convention!r}. Add the correction to the drift yourself."
                )
        if not callable(diffusion):
            _door.require_number(
                diffusion, "diffusion", positive=False, hint="Pass a function of x."
            )
        self.drift, self.diffusion = drift, diffusion
        self.dimension, self.noise_dimension = dimension, noise_dimension
        self.convention, self.observable = convention, observable
        self.coordinates = coordinates
        self.compiled = {}  # what sgdbook.compiled made of it

    def __repr__(self):
        """Say dimension and convention."""
        return f"Process(d = {self.dimension}, convention {self.convention!r})"

    def ito_drift(self, x):
        """Return the drift of the same process in Itô's convention.

        Parameters
        ----------
        x : torch.Tensor, shape (paths, d)

        Returns
        -------
        torch.Tensor, shape (paths, d)
        """
        drift = self.drift(x)
        if self.convention == "ito" or not callable(self.diffusion):
            return drift

        one = torch.eye(self.dimension, dtype=x.dtype, device=x.device)

        def matrix(y):
            B = self.diffusion(y)
            if B.ndim == y.ndim:
                B = B[:, :, None] * one
            return B

        B = matrix(x)
        total = torch.zeros_like(x)
        for j in range(self.dimension):
            e_j = torch.zeros_like(x)
            e_j[:, j] = 1
            slope = _derivative(matrix, x, e_j)
            total += (slope * B[:, j, None, :]).sum(-1)
            if self.convention == "anti-ito":
                total += (B * slope[:, j, None, :]).sum(-1)
        return drift + total / 2

    def steps(self, x, generator, dt, scheme="euler-maruyama"):
        """Yield one step after the other: time passed, new positions.

        Parameters
        ----------
        x : torch.Tensor, shape (paths, d)
            Where the paths start.
        generator : torch.Generator
        dt : float
            Time step.
        scheme : {"euler-maruyama", "platen"}

        Yields
        ------
        tuple of float and torch.Tensor, shape (paths, d)
        """
        require_step(dt)
        form, step = Whole(self, x), scheme_of(scheme)
        count = draws(form, scheme)
        like = {"dtype": x.dtype, "device": x.device, "generator": generator}
        while True:
            xi = torch.randn(len(x), count, **like)
            (x,) = step(form, [x], xi, dt)
            yield dt, x


class Whole:
    """A process on one tensor (paths, d); noise is one tensor (paths, draws)."""

    def __init__(self, process, x):
        B = process.diffusion
        self.process, self.additive = process, not callable(B)
        self.matrix = None  # what kind of diffusion: number, diagonal, (d, m), product
        if process.noise_dimension:
            self.noises = process.noise_dimension
            shape = tuple(B(x[:1], x.new_zeros(1, self.noises)).shape)
            if shape != (1, process.dimension):
                raise ValueError(
                    f"a diffusion that is given as a product must return shape (paths, "
                    f"{process.dimension}); got {shape} for one path. Return B(x) xi."
                )
            return
        self.noises = process.dimension
        if callable(B):
            shape = tuple(B(x[:1]).shape)
            d = process.dimension
            if shape not in ((1, d), (1, 1)) and (
                shape[:2] != (1, d) or len(shape) != 3
            ):
                raise ValueError(
                    f"diffusion must return shape (paths, {d}), (paths, 1) or "
                    f"(paths, {d}, m); got {shape} for one path. Row i holds what "
                    "drives coordinate i."
                )
            self.matrix = len(shape) == 3
            self.noises = shape[2] if self.matrix else d

    def drift(self, x):
        """Return the Itô drift, a list like x."""
        return [self.process.ito_drift(x[0])]

    def kick(self, x, xi):
        """Return B xi for xi of shape (paths, noises), a list like x."""
        B = self.process.diffusion
        if self.process.noise_dimension:
            return [B(x[0], xi)]
        if self.additive:
            return [B * xi]
        B = B(x[0])
        return [(B @ xi[..., None])[..., 0] if self.matrix else B * xi]

    def column(self, x, j):
        """Return column j of B, a list like x."""
        xi = x[0].new_zeros(len(x[0]), self.noises)
        xi[:, j] = 1
        return self.kick(x, xi)

    def part(self, xi, begin, end):
        """Return some of the draws, as noise."""
        return xi[:, begin:end]

    def numbers(self, xi):
        """Return the draws as a list."""
        return list(xi.split(1, dim=1))

    def positions(self, x):
        """Return shape (paths, d)."""
        return x[0]


class ByCoordinate:
    """A process on d tensors (paths,); noise is a list of tensors (paths,)."""

    def __init__(self, process, x):
        self.process = process
        if process.coordinates is None:
            self._drift = lambda *x: process.ito_drift(torch.stack(x, 1)).unbind(1)
            whole = Whole(process, x)
            self.additive, self.noises = whole.additive, whole.noises
            self.kick = lambda x, xi: whole.kick(
                [torch.stack(x, 1)], torch.stack(xi, 1)
            )[0].unbind(1)
            return
        self._drift, self._matrix = process.coordinates
        B = self._matrix(*x[:1].unbind(1))
        self.noises = len(B[0])
        self.additive = not any(isinstance(b, torch.Tensor) for row in B for b in row)

    def drift(self, x):
        """Return the Itô drift, a list like x."""
        return list(self._drift(*x))

    def kick(self, x, xi):
        """Return B xi, a list like x."""
        nought = torch.zeros_like(x[0])
        return [
            sum(
                (b * k for b, k in zip(row, xi, strict=True) if not _is_zero(b)), nought
            )
            for row in self._matrix(*x)
        ]

    def column(self, x, j):
        """Return column j of B, a list like x."""
        e_j = [torch.zeros_like(x[0])] * self.noises
        e_j[j] = torch.ones_like(x[0])
        return self.kick(x, e_j)

    def part(self, xi, begin, end):
        """Return some of the draws, as noise."""
        return xi[begin:end]

    def numbers(self, xi):
        """Return the draws as a list."""
        return xi

    def positions(self, x):
        """Return shape (paths, d)."""
        return torch.stack(x, 1)


def _derivative(function, x, along):
    """Return the derivative of a function in one direction.

    By the transpose of the transpose, since torch.func.jvp fixes the number of paths
    when it is traced for the compiler.
    """
    value, transposed = torch.func.vjp(function, x)
    twice = torch.func.vjp(lambda w: transposed(w)[0], torch.zeros_like(value))[1]
    return twice(along)[0]


def _is_zero(entry):
    return not isinstance(entry, torch.Tensor) and entry == 0


def require_step(dt):
    """Stop where dt is no time step."""
    _door.require_number(
        dt, "dt", positive=True, hint="An SDE needs a time step; start with 0.01."
    )


def scheme_of(name):
    """Return the function of a scheme: (form, x, xi, dt) -> x."""
    _door.require_one_of(name, SCHEMES, "scheme", "Choose one of these.")
    return {"euler-maruyama": _euler_maruyama, "platen": _platen}[name]


def draws(form, scheme):
    """Return how many normal numbers a path takes a step."""
    m = form.noises
    if scheme == "platen" and not form.additive:
        if m > 16:
            raise ValueError(
                f"the scheme 'platen' evaluates the diffusion 2m² times a step; got "
                f"m = {m} Wiener processes, at most 16 are allowed. Use "
                "'euler-maruyama'."
            )
        return m + m * (m - 1) // 2
    return m


def _euler_maruyama(form, x, xi, dt):
    root = dt**0.5
    noise = form.part(xi, 0, form.noises)
    return [
        p + dt * a + root * k
        for p, a, k in zip(x, form.drift(x), form.kick(x, noise), strict=True)
    ]


def _platen(form, x, xi, dt):
    """Take one step of the explicit weak scheme of order 2.0.

    Kloeden and Platen, *Numerical Solution of Stochastic Differential Equations*,
    equation (15.1.3), with Gaussian increments.
    """
    root = dt**0.5
    noise, xi = form.part(xi, 0, form.noises), form.numbers(xi)
    a, kick = form.drift(x), form.kick(x, noise)
    drifted = _plus(x, dt, a)
    ahead = form.drift(_plus(drifted, root, kick))
    new = _plus(_plus(x, dt / 2, a), dt / 2, ahead)
    if form.additive:
        return _plus(new, root, kick)
    m = form.noises
    columns = [form.column(x, j) for j in range(m)]
    pairs = ((j, r) for j in range(m) for r in range(j))
    signs = {pair: torch.sign(v) for pair, v in zip(pairs, xi[m:], strict=True)}
    for j, column in enumerate(columns):
        for r, other in enumerate(columns):
            base = drifted if r == j else x
            up = form.column(_plus(base, root, other), j)
            down = form.column(_plus(base, -root, other), j)
            if r == j:
                sign = -1.0
            else:
                sign = signs[j, r] if r < j else -signs[r, j]
            odd = root / 4 * (xi[j] * xi[r] + sign)
            even = root / 4 * xi[j]
            new = _plus(_plus(new, even + odd, up), even - odd, down)
            rest = 2 if r == j else -2
            new = _plus(new, rest * even, column)
    return new


def _plus(x, factor, y):
    """Return x + factor y, for lists of tensors."""
    return [p + factor * q for p, q in zip(x, y, strict=True)]


def stability_limit(process, x, points=64):
    r"""Return the largest stable step of explicit schemes for the linearised drift.

    .. math:: \Delta t\le\min_\lambda\frac{-2\operatorname{Re}\lambda}{|\lambda|^2}
              \quad\text{so that}\quad |1+\lambda\Delta t|\le1

    over the eigenvalues :math:`\lambda` of the drift's Jacobian whose real part is
    negative; by central differences.

    Parameters
    ----------
    process : Process
    x : torch.Tensor, shape (paths, d)
    points : int
        At how many of them, evenly chosen.

    Returns
    -------
    tuple of (float, int)
        The limit, infinite if nothing contracts, and the path where it was found.

    Examples
    --------
    >>> stiff = Process(lambda x: -50 * x, 1.0, dimension=1)
    >>> round(stability_limit(stiff, torch.ones(3, 1, dtype=torch.float64))[0], 6)
    0.04
    """
    some = torch.arange(0, len(x), -(-len(x) // points), device=x.device)
    at = x[some]
    scale = torch.finfo(x.dtype).eps ** (1 / 3) * (1 + at.abs())
    columns = []
    for j in range(process.dimension):
        h = torch.zeros_like(at)
        h[:, j] = scale[:, j]
        rise = process.ito_drift(at + h) - process.ito_drift(at - h)
        columns.append(rise / (2 * scale[:, j : j + 1]))
    jacobian = torch.stack(columns, dim=2).to("cpu", torch.float64)
    fine = torch.isfinite(jacobian).all(dim=2).all(dim=1)
    values = torch.linalg.eigvals(jacobian[fine])
    limits = torch.where(
        values.real < -1e-6 * values.abs(),
        -2 * values.real / values.abs().square(),
        math.inf,
    ).amin(1)
    if not len(limits):
        return math.inf, 0
    worst = int(limits.argmin())
    return float(limits[worst]), int(some.cpu()[fine][worst])
