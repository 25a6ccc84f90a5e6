"""Paths of ordinary differential equations: accuracy, and the door."""

import math

import numpy as np
import pytest
import torch
from networks import F64
from scipy.integrate import solve_ivp

from sgdbook.curves import flow, motion


def tensor(*numbers):
    return torch.tensor(numbers, dtype=F64)


TIMES = torch.linspace(0, 2, 9, dtype=F64)


def test_motion_against_scipy():
    """A driven pendulum; scipy's implicit method and another step control."""

    def law(x, v):
        return -torch.sin(x) - 0.1 * v

    path = motion(law, tensor(2.0), tensor(0.5), TIMES * 5)
    found = solve_ivp(
        lambda t, s: [s[1], -np.sin(s[0]) - 0.1 * s[1]],
        (0, 10),
        [2.0, 0.5],
        method="Radau",
        t_eval=TIMES.numpy() * 5,
        rtol=1e-10,
        atol=1e-12,
    )
    assert np.allclose(path.positions[:, 0], found.y[0], rtol=1e-7, atol=1e-8)
    assert np.allclose(path.velocities[:, 0], found.y[1], rtol=1e-7, atol=1e-8)


def test_errors_follow_the_tolerance():
    times = tensor(0.0, 2 * math.pi)
    errors, costs = [], []
    for rtol in (1e-3, 1e-6, 1e-9):
        path = motion(
            lambda x, v: -x, tensor(1.0), tensor(0.0), times, rtol=rtol, atol=rtol
        )
        errors.append(abs(float(path.positions[-1, 0]) - 1))
        costs.append(path.evaluations)
        assert errors[-1] < 20 * rtol
    assert errors[0] > 1e3 * errors[2] and costs[0] < costs[1] < costs[2]


def test_time_may_start_anywhere():
    path = flow(lambda x: -x, tensor(2.0), tensor(-1.0, 0.5))
    assert float(path.positions[0, 0]) == 2.0
    assert float(path.positions[1, 0]) == pytest.approx(2 * math.exp(-1.5), abs=1e-9)
    assert float(path.velocities[1, 0]) == pytest.approx(-2 * math.exp(-1.5), abs=1e-9)


# --- the door ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start, error, text",
    [
        ([1.0], TypeError, "start must be a float64 tensor.*got list"),
        (torch.ones(2), TypeError, "got torch.float32. Convert it with .double"),
        (torch.ones(2, 2, dtype=F64), ValueError, r"finite vector \(d,\).*\(2, 2\)"),
        (torch.ones(0, dtype=F64), ValueError, r"d >= 1; got shape \(0,\)"),
        (tensor(math.nan), ValueError, "look for NaN"),
    ],
)
def test_bad_start(start, error, text):
    with pytest.raises(error, match=text):
        flow(lambda x: x, start, TIMES)


@pytest.mark.parametrize(
    "times, error, text",
    [
        ([0, 1], TypeError, "times must be a float64 tensor; got list"),
        (torch.arange(3), TypeError, "got torch.int64"),
        (tensor(0.0), ValueError, "at least two finite numbers"),
        (tensor(0.0, math.inf), ValueError, "at least two finite numbers"),
        (tensor(0.0, 1.0, 1.0), ValueError, "times must increase"),
        (tensor(1.0, 0.0), ValueError, "times must increase"),
    ],
)
def test_bad_times(times, error, text):
    with pytest.raises(error, match=text):
        flow(lambda x: x, tensor(1.0), times)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"rtol": 0.0}, "rtol must be a positive number"),
        ({"rtol": math.nan}, "rtol must be a positive number"),
        ({"rtol": 1e-15}, "rtol must be at least 2.2e-14"),
        ({"atol": -1.0}, "atol must be a positive number"),
        ({"most": 0}, "most must be a positive integer"),
    ],
)
def test_bad_tolerances(options, text):
    with pytest.raises(ValueError, match=text):
        flow(lambda x: -x, tensor(1.0), TIMES, **options)


@pytest.mark.parametrize(
    "value, error, text",
    [
        (
            lambda x: x.sum(),
            ValueError,
            r"must have the shape \(2,\).*got \(\)",
        ),
        (lambda x: 1.0, ValueError, "got 1.0. Return one number for each weight"),
        (lambda x: x.float(), ValueError, "must be torch.float64 on cpu"),
        (lambda x: x / 0, FloatingPointError, "velocity must stay finite"),
    ],
)
def test_bad_velocity(value, error, text):
    with pytest.raises(error, match=text):
        flow(value, tensor(1.0, 2.0), TIMES)


def test_bad_motion():
    with pytest.raises(ValueError, match=r"velocity must have the shape \(1,\)"):
        motion(lambda x, v: -x, tensor(1.0), tensor(1.0, 2.0), TIMES)
    with pytest.raises(ValueError, match="acceleration must have the shape"):
        motion(lambda x, v: x[0], tensor(1.0), tensor(1.0), TIMES)


def test_explosions_and_patience():
    with pytest.raises((ArithmeticError, FloatingPointError), match="may explode"):
        flow(lambda x: x**2, tensor(1.0), TIMES)
    calls = []

    def stiff(x):
        calls.append(x)
        return -1e4 * x

    with pytest.raises(ArithmeticError, match=r"within 50 evaluations.*of 2"):
        flow(stiff, tensor(1.0), TIMES, most=50)
    assert len(calls) == 51  # and the one at the door
