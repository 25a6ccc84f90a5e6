"""Paths of ordinary differential equations in torch, with error control.

`flow` follows a vector field, `motion` a law of motion; both return a `Curve`.  Steps
are taken by scipy's Runge-Kutta method of order 8, which adapts them to the tolerances
asked for; the right-hand side is a torch function, on the device of the start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp

from sgdbook import _door

_SMALLEST = 100 * np.finfo(float).eps  # rtol


@dataclass(frozen=True)
class Curve:
    """A path x(t) at the times asked for.

    Attributes
    ----------
    times : torch.Tensor
        Shape (k,).
    positions, velocities : torch.Tensor
        Shape (k, d).
    evaluations : int
        How often the right-hand side was computed.
    speeds : torch.Tensor or None
        For a geodesic its speed in the metric, shape (k,), which does not change.
    """

    times: torch.Tensor
    positions: torch.Tensor
    velocities: torch.Tensor
    evaluations: int
    speeds: torch.Tensor | None = None


def flow(velocity, start, times, *, rtol=1e-9, atol=1e-12, most=100_000):
    r"""Follow a vector field, :math:`\dot x = v(x)`.

    Parameters
    ----------
    velocity : callable
        Position (d,) -> velocity (d,).
    start : torch.Tensor
        The position at ``times[0]``, shape (d,), float64.
    times : torch.Tensor
        Where the path is wanted, shape (k,), k >= 2, increasing, float64.
    rtol, atol : float
        The error that a step may have: ``atol + rtol * |x|`` for each weight.
    most : int
        Stop with an error after so many evaluations.

    Returns
    -------
    Curve
        On the device of the start.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape, dtype or range.
    FloatingPointError
        If the velocity becomes infinite or NaN.
    ArithmeticError
        If the tolerances cannot be met, or not with so many evaluations.

    References
    ----------
    Hairer, Nørsett and Wanner, *Solving Ordinary Differential Equations I*, section
    II.10 (DOP853).

    Examples
    --------
    >>> start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> times = torch.tensor([0.0, torch.pi], dtype=torch.float64)
    >>> turn = flow(lambda x: torch.stack([-x[1], x[0]]), start, times)
    >>> turn.positions[-1].round(decimals=6)
    tensor([-1.,  0.], dtype=torch.float64)
    """
    _require_point(start, "start")

    def derivative(state):
        return _require_vector(velocity(state), start, "velocity")

    states, evaluations = _solve(derivative, start, times, rtol, atol, most)
    slopes = torch.stack([derivative(x) for x in states])
    return Curve(times.detach().clone(), states, slopes, evaluations)


def motion(acceleration, start, velocity, times, *, rtol=1e-9, atol=1e-12, most=10**5):
    r"""Follow a law of motion, :math:`\ddot x = a(x, \dot x)`.

    Parameters
    ----------
    acceleration : callable
        Position (d,) and velocity (d,) -> acceleration (d,).
    start, velocity : torch.Tensor
        Position and velocity at ``times[0]``, shape (d,), float64.
    times, rtol, atol, most
        As in `flow`; the tolerances hold for positions and velocities.

    Returns
    -------
    Curve
        On the device of the start.

    Raises
    ------
    TypeError, ValueError, FloatingPointError, ArithmeticError
        As in `flow`.

    Examples
    --------
    An oscillator returns after its period:

    >>> start = torch.tensor([1.0], dtype=torch.float64)
    >>> times = torch.tensor([0.0, 2 * torch.pi], dtype=torch.float64)
    >>> turn = motion(lambda x, v: -x, start, torch.zeros_like(start), times)
    >>> turn.positions[-1].round(decimals=6)
    tensor([1.], dtype=torch.float64)
    """
    _require_point(start, "start")
    _require_point(velocity, "velocity")
    _require_vector(velocity, start, "velocity")

    def derivative(state):
        x, v = state.chunk(2)
        return torch.cat([v, _require_vector(acceleration(x, v), x, "acceleration")])

    state = torch.cat([start, velocity])
    states, evaluations = _solve(derivative, state, times, rtol, atol, most)
    positions, velocities = states.chunk(2, 1)
    return Curve(times.detach().clone(), positions, velocities, evaluations)


def _solve(derivative, start, times, rtol, atol, most):
    """Return the states at the times, (k, n), and the number of evaluations."""
    _require_times(times)
    for value, name in ((rtol, "rtol"), (atol, "atol")):
        _door.require_number(
            value, name, positive=True, hint="It is the error that a step may have."
        )
    if rtol < _SMALLEST:
        raise ValueError(
            f"rtol must be at least {_SMALLEST:.2g}, where rounding takes over; got "
            f"{rtol!r}. Use 1e-12 or so."
        )
    _door.require_positive_integer(most, "most")
    derivative(start)
    count = 0

    def right_hand_side(t, state):
        nonlocal count
        count += 1
        if count > most:
            raise ArithmeticError(
                f"the end must be reached within {most} evaluations (most); they were "
                f"used up at time {t:.6g} of {float(times[-1]):.6g}. Raise most or "
                "rtol, or stop earlier: a path in a narrow valley needs many steps."
            )
        x = torch.from_numpy(state).to(start.device)
        return derivative(x).cpu().numpy()

    wanted = times.cpu().numpy()
    found = solve_ivp(
        right_hand_side,
        (wanted[0], wanted[-1]),
        start.detach().cpu().numpy().copy(),
        method="DOP853",
        t_eval=wanted,
        rtol=rtol,
        atol=atol,
    )
    if not found.success:
        raise ArithmeticError(
            f"the path must reach time {wanted[-1]:.6g} within the tolerances; at time "
            f"{found.t[-1] if len(found.t) else wanted[0]:.6g} or soon after no step "
            "was small enough. The path may explode, or the field have a kink: stop "
            "earlier, or raise rtol."
        )
    return torch.from_numpy(found.y.T.copy()).to(start.device), count


def _require_point(value, name):
    """Stop where the value is no finite float64 vector."""
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float64:
        got = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
        raise TypeError(
            f"{name} must be a float64 tensor, since small errors are asked for; got "
            f"{got}. Convert it with .double(), and the network too."
        )
    if value.ndim != 1 or len(value) == 0 or not value.isfinite().all():
        raise ValueError(
            f"{name} must be a finite vector (d,), d >= 1; got shape "
            f"{tuple(value.shape)}. Flatten it, and look for NaN."
        )


def _require_vector(value, like, what):
    """Stop where a vector does not fit the point; return it without its history."""
    if not isinstance(value, torch.Tensor) or value.shape != like.shape:
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else value
        raise ValueError(
            f"{what} must have the shape {tuple(like.shape)} of the position; got "
            f"{got}. Return one number for each weight."
        )
    if (value.dtype, value.device) != (like.dtype, like.device):
        raise ValueError(
            f"{what} must be {like.dtype} on {like.device} like the position; got "
            f"{value.dtype} on {value.device}. Convert it."
        )
    if not value.isfinite().all():
        raise FloatingPointError(
            f"{what} must stay finite; it does not where |x| = {float(like.norm()):.3g}"
            ". The path may explode, or leave the domain: stop earlier."
        )
    return value.detach()


def _require_times(times):
    """Stop where the times are not at least two increasing float64 numbers."""
    if not isinstance(times, torch.Tensor) or times.dtype != torch.float64:
        got = times.dtype if isinstance(times, torch.Tensor) else type(times).__name__
        raise TypeError(
            f"times must be a float64 tensor; got {got}. Use torch.linspace(0, 1, 11, "
            "dtype=torch.float64)."
        )
    if times.ndim != 1 or len(times) < 2 or not times.isfinite().all():
        raise ValueError(
            f"times must be at least two finite numbers (k,); got shape "
            f"{tuple(times.shape)}. The first is the time of the start."
        )
    if not (times.diff() > 0).all():
        raise ValueError("times must increase; these do not. Sort them.")
