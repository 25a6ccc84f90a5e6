r"""Exact first-passage times of a one-dimensional diffusion, by quadrature in logs.

For :math:`dX=a\,dt+\sqrt{2D}\,dW` in Itô's convention the moments
:math:`T_n(x)=\mathbb E[\tau^n]` of the time to reach an absorbing end solve
:math:`a\,T_n'+D\,T_n''=-n\,T_{n-1}`.  With :math:`\psi'=-a/D`, scale density
:math:`e^{\psi}` and speed density :math:`e^{-\psi}/D`, for a target b on the right,

.. math:: T_n(x)=n\int_x^be^{\psi(y)}\int_l^y\frac{e^{-\psi(z)}}{D(z)}\,
          T_{n-1}(z)\,dz\,dy .

Every factor is positive, so the integrals are carried as logarithms: a barrier of 200
temperatures costs no digits.  The interval is cut into panels on which :math:`a/D` and
:math:`\ln D` are polynomials to rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sgdbook import _door
from sgdbook._panels import (
    RUNNING,
    WEIGHTS,
    doubled,
    points,
    refined,
    resolved,
    running_log,
)

KINDS = ("natural", "reflecting", "absorbing")


@dataclass(frozen=True)
class PassageTime:
    """Moments of a first-passage time.

    Attributes
    ----------
    log_moments : tuple of float
        Natural logarithms of the mean of the time's first, second, ... power.
    error : float
        Relative difference of the mean to a computation on twice as many panels.
    """

    log_moments: tuple[float, ...]
    error: float

    @property
    def mean(self) -> float:
        """Return the mean; inf where it exceeds the range of a float."""
        return self.moment(1)

    def moment(self, n) -> float:
        """Return the mean of the n-th power."""
        log = self.log_moments[n - 1]
        return math.exp(log) if log < 709 else math.inf


def first_passage_time(process, start, *, left, right, moments=1):
    r"""Return the moments of the time at which a diffusion is first absorbed.

    Parameters
    ----------
    process : sgdbook.simulate.Process
        One-dimensional, any convention; ``SDE.process()`` makes one from SymPy.
    start : float
        Where it starts, strictly inside the interval.
    left, right : tuple of (str, float)
        Kind and place of the ends: ``("absorbing", x)``, ``("reflecting", x)`` or
        ``("natural", x)``, an end that is never reached, such as ``-math.inf``.  At
        least one is absorbing.
    moments : int
        How many moments.

    Returns
    -------
    PassageTime

    Raises
    ------
    ValueError
        If the ends do not enclose the start, none is absorbing, D is not positive
        inside, or the mean is infinite because nothing confines the process.
    ArithmeticError
        If the quadrature does not reach ten digits.

    References
    ----------
    Gardiner, *Stochastic Methods*, section 5.5.2; Karlin and Taylor, *A Second Course
    in Stochastic Processes*, section 15.3.

    Examples
    --------
    Brownian motion :math:`\sqrt2\,W` leaves (-1, 1) after 1/2 on average:

    >>> from sgdbook.simulate import Process
    >>> free = Process(lambda x: 0 * x, 2**0.5, dimension=1)
    >>> ends = {"left": ("absorbing", -1.0), "right": ("absorbing", 1.0)}
    >>> round(first_passage_time(free, 0.0, **ends).mean, 12)
    0.5
    """
    _door.require_process(process)
    _door.require_positive_integer(moments, "moments")
    (left_kind, low), (right_kind, high) = _ends(process, start, left, right)
    coefficients = _Coefficients(process)
    edges = _panels(coefficients, start, (left_kind, low), (right_kind, high))
    kinds = left_kind, right_kind
    coarse = _moments(coefficients, edges, start, kinds, moments)
    fine = _moments(coefficients, doubled(edges), start, kinds, moments)
    error = abs(math.expm1(fine[0] - coarse[0]))
    if not error < 1e-10:
        raise ArithmeticError(
            f"the quadrature reached a relative error of {error:.1e} only. Look for "
            "kinks or jumps of drift and diffusion inside the interval."
        )
    return PassageTime(tuple(fine), error)


class _Coefficients:
    """The functions psi' = -a/D and ln D on tensors of any shape."""

    def __init__(self, process):
        self.process = process

    def __call__(self, x):
        flat = x.reshape(-1, 1)
        drift = self.process.ito_drift(flat)[:, 0]
        B = self.process.diffusion
        B = B(flat).reshape(-1) if callable(B) else torch.full_like(drift, B)
        D = B**2 / 2
        if not bool((torch.isfinite(drift) & (D > 0)).all()):
            bad = int((~(torch.isfinite(drift) & (D > 0))).nonzero()[0])
            raise ValueError(
                f"drift must be finite and D positive inside the interval; at x = "
                f"{float(flat[bad, 0]):.6g} they are {float(drift[bad]):.3g} and "
                f"{float(D[bad]):.3g}. Shorten the interval."
            )
        return (-drift / D).reshape(x.shape), D.log().reshape(x.shape)


def _panels(coefficients, start, left, right):
    """Return panel edges, the start among them."""
    pieces = []
    for (kind, end), side in ((left, -1), (right, 1)):
        if kind == "natural":
            edges = _march(coefficients, start, end, side)
        else:
            edges = torch.tensor([start, end], dtype=torch.float64)
        pieces.append(edges.sort().values)
    edges = torch.cat([pieces[0], pieces[1][1:]])
    while not bool((done := resolved(coefficients, edges)).all()):
        edges = refined(edges, ~done)
    return edges


def _march(coefficients, start, end, side):
    """Return edges towards a natural end, until the speed measure is exhausted."""
    here = torch.tensor(float(start), dtype=torch.float64)
    edges, width, psi, total = [here], 0.01, 0.0, -math.inf
    for _ in range(20_000):
        slope, log_D = coefficients(here[None])
        room = abs(end - float(here)) / 2
        width = min(2 * width, 2 / max(abs(float(slope)), 1e-300), room)
        density = -psi - float(log_D) + math.log(width)
        new = here + side * width
        if density < total - 80 and side * float(slope) > 0:
            return torch.stack(edges)
        total = max(total, density) + math.log1p(
            math.exp(-abs(total - density)) if total > -math.inf else 0.0
        )
        psi += side * width * float(coefficients((here + new)[None] / 2)[0])
        here = new
        edges.append(here)
        if abs(float(here)) > 1e150 or float(here) == end:
            break
    raise ValueError(
        f"the mean first-passage time is infinite, or cannot be told from it: nothing "
        f"confines the process towards {end:g}. Put a reflecting end there."
    )


def _moments(coefficients, edges, start, kinds, number):
    """Return the logarithms of the first moments at the start."""
    x, half = points(edges)
    slope, log_D = coefficients(x)
    rise = half[:, 0] * (slope @ WEIGHTS)
    psi = (rise.cumsum(0) - rise)[:, None] + half * (slope @ RUNNING.T)
    at_start = int((edges - start).abs().argmin())
    log_T = torch.zeros_like(x)
    result = []
    for n in range(1, number + 1):
        log_T, here = _step(-psi - log_D + log_T, psi, half, at_start, kinds)
        log_T = log_T + math.log(n)
        result.append(here + math.log(n))
    return result


def _step(source, scale, half, at_start, kinds):
    """Solve once; return the log of the solution at the nodes and at the start."""
    if kinds[0] != "absorbing":
        inner, _ = running_log(source, half)
        outer, edge = running_log(scale + inner, half, backwards=True)
        return outer, float(edge[at_start])
    if kinds[1] != "absorbing":
        inner, _ = running_log(source, half, backwards=True)
        outer, edge = running_log(scale + inner, half)
        return outer, float(edge[at_start])
    below, below_edge = running_log(scale, half)
    above, above_edge = running_log(scale, half, backwards=True)
    whole = below_edge[-1]
    from_left, left_edge = running_log(source + below, half)
    from_right, right_edge = running_log(source + above, half, backwards=True)
    values = torch.logaddexp(above + from_left, below + from_right) - whole
    edge = torch.logaddexp(above_edge + left_edge, below_edge + right_edge) - whole
    return values, float(edge[at_start])


def _ends(process, start, left, right):
    """Check the ends and return them with float places."""
    if getattr(process, "dimension", None) != 1:
        raise ValueError(
            f"process must be one-dimensional; got {process!r}. In more dimensions "
            "simulate."
        )
    if not math.isfinite(start):
        raise ValueError(f"start must be finite; got {start!r}.")
    ends = []
    for name, end in {"left": left, "right": right}.items():
        kind, place = _door.end_of(name, end, KINDS)
        place = float(place)
        if math.isnan(place) or (math.isinf(place) and kind != "natural"):
            raise ValueError(
                f"the {name} end is {kind} at {place}. Only a natural end may be "
                "infinite."
            )
        ends.append((kind, place))
    if not ends[0][1] < start < ends[1][1]:
        raise ValueError(
            f"the ends must enclose the start, left < start < right; got "
            f"{ends[0][1]:g}, {start:g}, {ends[1][1]:g}."
        )
    if "absorbing" not in (ends[0][0], ends[1][0]):
        raise ValueError(
            f"one end must be absorbing, the target; got {ends[0][0]} and {ends[1][0]}."
        )
    return ends
