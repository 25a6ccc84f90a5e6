"""A process: the drift of a convention, its doors, the stable step."""

import math

import numpy as np
import pytest
import sympy as sp
import torch

from sgdbook.devices import generator
from sgdbook.process import Process, stability_limit
from sgdbook.schemes import Whole
from sgdbook.sde import SDE

x, y = sp.symbols("x y", real=True)
THETA = {"ito": 0, "stratonovich": 0.5, "anti-ito": 1}


def double(values):
    return torch.tensor(values, dtype=torch.float64)


C = double([[0.5, 0.2, -0.1], [0.3, -0.4, 0.6]])


@pytest.mark.parametrize("convention", THETA)
def test_ito_drift_is_that_of_sympy(convention):
    """A full matrix, whose derivatives sympy takes, and a diagonal one."""
    full = sp.Matrix([[1 + x * y, sp.sin(y)], [x**2, 2 + y]])
    for symbolic, numeric in [
        (
            full,
            lambda x: torch.stack(
                [
                    torch.stack([1 + x[:, 0] * x[:, 1], x[:, 1].sin()], 1),
                    torch.stack([x[:, 0] ** 2, 2 + x[:, 1]], 1),
                ],
                1,
            ),
        ),
        ([1 + x**2, x + y], lambda x: torch.stack([1 + x[:, 0] ** 2, x.sum(1)], 1)),
        (1 + x**2, lambda x: 1 + x[:, :1] ** 2),
    ]:
        sde = SDE([y, -x], symbolic, [x, y], convention=convention)
        process = Process(
            lambda x: torch.stack([x[:, 1], -x[:, 0]], 1),
            numeric,
            dimension=2,
            convention=convention,
        )
        for at in [(0.3, -0.7), (1.1, 0.4)]:
            truth = sde.ito_drift.subs(dict(zip((x, y), at, strict=True)))
            found = process.ito_drift(double([at]))[0]
            assert found.tolist() == pytest.approx([float(v) for v in truth])


@pytest.mark.parametrize("convention", THETA)
def test_a_function_that_is_constant_needs_no_correction(convention):
    process = Process(
        lambda x: -x,
        lambda x: C.expand(len(x), 2, 3),
        dimension=2,
        convention=convention,
    )
    assert process.ito_drift(double([[3.0, 1.0]])).tolist() == [[-3.0, -1.0]]


def test_constant_noise_needs_no_correction():
    process = Process(lambda x: -x, 2.0, dimension=1, convention="anti-ito")
    assert process.ito_drift(double([[3.0]])).tolist() == [[-3.0]]
    assert repr(process) == "Process(d = 1, convention 'anti-ito')"


@pytest.mark.parametrize(
    "diffusion, options, text",
    [
        (lambda x: x.new_ones(len(x), 3), {}, r"got \(1, 3\) for one path"),
        (lambda x: x[:, 0], {}, r"got \(1,\) for one path"),
        (lambda x: x.new_ones(()), {}, r"got \(\) for one path"),
        (lambda x: x.new_ones(len(x), 3, 2), {}, r"\(paths, 2, m\); got \(1, 3, 2\)"),
        (lambda x: x.new_ones(len(x), 2, 2, 2), {}, r"got \(1, 2, 2, 2\)"),
        (
            lambda x, xi: xi,
            {"noise_dimension": 3},
            r"product must return shape \(paths, 2\); got \(1, 3\)",
        ),
        (lambda x, xi: xi, {"noise_dimension": 1}, r"got \(1, 1\) for one path"),
    ],
)
def test_shape_of_the_diffusion(diffusion, options, text):
    process = Process(lambda x: -x, diffusion, dimension=2, **options)
    with pytest.raises(ValueError, match=text):
        Whole(process, torch.zeros(4, 2))


@pytest.mark.parametrize(
    "options, text",
    [
        ({"dt": 0}, "dt must be a positive number; got 0. An SDE needs a time step"),
        ({"dt": math.nan}, "dt must be a positive number"),
        ({"dt": "0.1"}, "dt must be a positive number; got '0.1'"),
        ({"scheme": "milstein"}, "scheme must be one of euler-maruyama, platen; got"),
    ],
)
def test_the_door_of_steps(options, text):
    process = Process(lambda x: -x, 1.0, dimension=1)
    options = {"dt": 0.1, **options}
    with pytest.raises(ValueError, match=text):
        next(process.steps(torch.zeros(2, 1), generator(0, "cpu"), **options))


def limit(function, at, **options):
    at = double(at)
    process = Process(function, 1.0, dimension=at.shape[1])
    return stability_limit(process, at, **options)


def test_stable_step_of_a_line():
    found, path = limit(lambda x: -(x**3), [[0.1], [2.0], [1.0]])
    assert (found, path) == (pytest.approx(2 / 12, rel=1e-6), 1)
    assert limit(lambda x: x**3, [[1.0], [2.0]])[0] == math.inf


def test_stable_step_of_a_spiral():
    """Eigenvalues -1 ± 3i: |1 + lambda dt| <= 1 up to dt = 2 / 10."""
    turn = double([[-1.0, 3.0], [-3.0, -1.0]])
    found, _ = limit(lambda x: x @ turn.T, [[0.5, 0.2]])
    assert found == pytest.approx(0.2, rel=1e-6)
    worst = abs(np.linalg.eigvals(np.eye(2) + 0.2 * turn.numpy()))
    assert worst == pytest.approx([1, 1])
    # A centre never contracts, so nothing can be asked of dt.
    assert limit(lambda x: x.flip(1) * double([1, -1]), [[1.0, 0.0]])[0] == math.inf
    saddle = double([[5.0, 1.0], [0.0, -4.0]])
    assert limit(lambda x: x @ saddle.T, [[1.0, 1.0]])[0] == pytest.approx(0.5)


def test_stable_step_is_looked_for_at_some_paths():
    at = torch.ones(1000, 1, dtype=torch.float64)
    at[7] = 10
    process = Process(lambda x: -(x**3), 1.0, dimension=1)
    assert stability_limit(process, at)[0] == pytest.approx(2 / 3, rel=1e-6)
    found, path = stability_limit(process, at, points=1000)
    assert (found, path) == (pytest.approx(2 / 300, rel=1e-6), 7)
    calls = []
    watched = Process(lambda x: calls.append(len(x)) or -x, 1.0, dimension=1)
    stability_limit(watched, at)
    assert max(calls) <= 64


def test_stable_step_where_the_drift_is_not_defined():
    found, path = limit(lambda x: -x.sqrt() - x, [[0.0], [1.0]])
    assert (found, path) == (pytest.approx(2 / 1.5, rel=1e-6), 1)
    assert limit(lambda x: x * math.nan, [[0.0]]) == (math.inf, 0)


def test_stable_step_in_single_precision():
    process = Process(lambda x: -30 * x, 1.0, dimension=3)
    assert stability_limit(process, torch.ones(2, 3))[0] == pytest.approx(
        1 / 15, rel=1e-3
    )
