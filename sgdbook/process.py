r"""A diffusion as numbers: drift, diffusion and convention.

A `Process` holds torch functions for :math:`dX=a\,dt+B\,dW`, corrects the drift for
the convention, and says how large a step may be.  `sgdbook.schemes` steps it.
"""

from __future__ import annotations

import math

import torch

from sgdbook import _door
from sgdbook.schemes import Whole, draws, scheme_of

CONVENTIONS = ("ito", "stratonovich", "anti-ito")


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


def _derivative(function, x, along):
    """Return the derivative of a function in one direction.

    By the transpose of the transpose, since torch.func.jvp fixes the number of paths
    when it is traced for the compiler.
    """
    value, transposed = torch.func.vjp(function, x)
    twice = torch.func.vjp(lambda w: transposed(w)[0], torch.zeros_like(value))[1]
    return twice(along)[0]


def require_step(dt):
    """Stop where dt is no time step."""
    _door.require_number(
        dt, "dt", positive=True, hint="An SDE needs a time step; start with 0.01."
    )


def stability_limit(process, x, share=0.0, points=64):
    r"""Return the largest stable step of explicit schemes for the linearised drift.

    .. math:: \Delta t\le\min_\lambda\frac{-2\operatorname{Re}\lambda}{|\lambda|^2}
              \quad\text{so that}\quad |1+\lambda\Delta t|\le1

    over the eigenvalues :math:`\lambda` of the drift's Jacobian whose real part is
    negative; by central differences.

    Parameters
    ----------
    process : Process
    x : torch.Tensor, shape (paths, d)
    share : float
        Leave out this share of the points, those with the smallest limits.
    points : int
        At how many of the paths, evenly chosen.

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
    worst = int(limits.argsort()[int(share * len(limits))])
    return float(limits[worst]), int(some.cpu()[fine][worst])
