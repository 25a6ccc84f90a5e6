"""Exact first-passage times against closed forms and independent quadrature."""

import math

import mpmath as mp
import numpy as np
import pytest
import sympy as sp
from scipy.interpolate import BarycentricInterpolator

from sgdbook.escape import first_passage_time
from sgdbook.sde import SDE
from sgdbook.simulate import Process

x = sp.Symbol("x", real=True)
QUARTIC = (x**2 - 1) ** 2


def diffusion(drift, noise, convention="ito"):
    return SDE(drift, noise, x, convention=convention).process()


def ends(left, right):
    kinds = {"a": "absorbing", "r": "reflecting", "n": "natural"}
    return {
        name: (kinds[kind], place)
        for name, (kind, place) in {"left": left, "right": right}.items()
    }


def by_collocation(drift, D, start, target, low, size=120):
    """Solve a T' + D T'' = -1 with T'(low) = 0 = T(target) on a Chebyshev grid."""
    angle = np.pi * np.arange(size + 1) / size
    nodes = np.cos(angle)
    ends_ = np.where((np.arange(size + 1) % size) == 0, 2.0, 1.0)
    weight = ends_ * (-1.0) ** np.arange(size + 1)
    gaps = nodes[:, None] - nodes[None, :] + np.eye(size + 1)
    first = weight[:, None] / weight[None, :] / gaps
    first -= np.diag(first.sum(1))
    y = low + (target - low) * (nodes + 1) / 2
    slope = first * 2 / (target - low)
    a, d = (np.broadcast_to(sp.lambdify(x, e)(y), y.shape) for e in (drift, D))
    matrix = a[:, None] * slope + d[:, None] * (slope @ slope)
    right = -np.ones(size + 1)
    matrix[0], right[0] = np.eye(size + 1)[0], 0
    matrix[-1], right[-1] = slope[-1], 0
    T = np.linalg.solve(matrix, right)
    return float(BarycentricInterpolator(y, T)(start))


def test_brownian_motion():
    free = Process(lambda y: 0 * y, math.sqrt(2), dimension=1)
    found = first_passage_time(free, 0.5, **ends(("r", 0.0), ("a", 2.0)), moments=2)
    assert found.mean == pytest.approx((4 - 0.25) / 2, rel=1e-13)
    both = first_passage_time(free, 0.5, **ends(("a", 0.0), ("a", 2.0)))
    assert both.mean == pytest.approx(0.5 * 1.5 / 2, rel=1e-13)
    # Reflected at 0: E tau^2 = (5 L^4 - 6 L^2 x^2 + x^4) / 12 with D = 1.
    assert found.moment(2) == pytest.approx((5 * 16 - 6 * 4 * 0.25 + 0.0625) / 12)


def test_constant_drift():
    """From 0 to 1 with drift 2 and D = 1/2, never confined from the left but pushed."""
    pushed = Process(lambda y: 0 * y + 2, 1.0, dimension=1)
    found = first_passage_time(
        pushed, 0.0, **ends(("n", -math.inf), ("a", 1.0)), moments=2
    )
    assert found.mean == pytest.approx(0.5, rel=1e-12)
    assert found.moment(2) - found.mean**2 == pytest.approx(1 / 8, rel=1e-11)


@pytest.mark.parametrize("T", [sp.Rational(1), sp.Rational(1, 4)])
def test_double_well(T):
    process = diffusion(-QUARTIC.diff(x), sp.sqrt(2 * T))
    found = first_passage_time(process, -1.0, **ends(("r", -2.0), ("a", 1.0)))
    truth = by_collocation(-QUARTIC.diff(x), T + 0 * x, -1, 1, -2)
    assert found.mean == pytest.approx(truth, rel=1e-9)


def test_double_well_to_twelve_digits():
    """Barrier of ten temperatures, from a double integral in mpmath."""
    process = diffusion(-QUARTIC.diff(x), sp.sqrt(sp.Rational(1, 5)))
    found = first_passage_time(process, -1.0, **ends(("n", -math.inf), ("a", 1.0)))
    with mp.workdps(20):

        def outer(y):
            cuts = [-2.5, -1.5, -1, -0.5, y] if y > -0.5 else [-2.5, -1.5, y]
            inner = mp.quad(lambda z: mp.e ** (-10 * (z * z - 1) ** 2), cuts)
            return 10 * mp.e ** (10 * (y * y - 1) ** 2) * inner

        truth = float(mp.quad(outer, [-1, -0.5, 0, 0.5, 1]))
    assert found.mean == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("convention", ["ito", "stratonovich", "anti-ito"])
def test_multiplicative_noise(convention):
    noise = sp.sqrt(1 + x**2 / 2)
    sde = SDE(-x + sp.Rational(1, 5), noise, x, convention=convention)
    found = first_passage_time(sde.process(), 0.5, **ends(("r", -2.0), ("a", 2.0)))
    truth = by_collocation(sde.ito_drift, noise**2 / 2, 0.5, 2, -2)
    assert found.mean == pytest.approx(truth, rel=1e-10)


def test_power_law_tails_towards_a_natural_end():
    """p falls like a power; the reflecting end far away changes little."""
    process = diffusion(-x, sp.sqrt(1 + x**2 / 2))
    open_end = first_passage_time(process, 0.5, **ends(("n", -math.inf), ("a", 2.0)))
    walled = first_passage_time(process, 0.5, **ends(("r", -1e6), ("a", 2.0)))
    assert open_end.mean == pytest.approx(walled.mean, rel=1e-10)


def test_barriers_cost_no_digits():
    """At a barrier of 200 T: Kramers with its first correction, and second moment 2."""
    T = sp.Rational(1, 200)
    process = diffusion(-QUARTIC.diff(x), sp.sqrt(2 * T))
    found = first_passage_time(
        process, -1.0, **ends(("n", -math.inf), ("a", 1.0)), moments=2
    )
    series = 1 + sp.Rational(3, 8) * T + sp.Rational(57, 128) * T**2
    kramers = 2 * math.pi / math.sqrt(8 * 4) * float(series)
    assert found.log_moments[0] == pytest.approx(200 + math.log(kramers), abs=1e-6)
    assert found.moment(2) / found.mean**2 == pytest.approx(2, rel=1e-9)
    assert found.error < 1e-12


def test_mirror_images():
    up = diffusion(-x + 1, 1 + x**2)
    down = diffusion(-x - 1, 1 + x**2)
    for one, other in (("r", "a"), ("a", "a"), ("n", "a")):
        far = math.inf if one == "n" else 3.0
        right = first_passage_time(up, 0.4, **ends((one, -far), (other, 2.0)))
        left = first_passage_time(down, -0.4, **ends((other, -2.0), (one, far)))
        assert right.mean == pytest.approx(left.mean, rel=1e-12)


def test_a_singular_natural_end():
    """dX = (3/2 - X) dt + sqrt(2X) dW stays positive: up to X = 2 from 1."""
    process = diffusion(sp.Rational(3, 2) - x, sp.sqrt(2 * x))
    y = sp.Symbol("x", positive=True)
    positive = SDE(sp.Rational(3, 2) - y, sp.sqrt(2 * y), y, convention="ito").process()
    found = first_passage_time(positive, 1.0, **ends(("n", 0.0), ("a", 2.0)))
    with mp.workdps(25):

        def inner(z):
            return mp.gammainc(1.5, 0, z) * mp.e**z * z**-1.5

        truth = float(mp.quad(inner, [1, 2]))
    assert found.mean == pytest.approx(truth, rel=1e-9)
    assert process.dimension == 1


def test_overflow_is_infinite_and_its_logarithm_is_not():
    process = diffusion(-QUARTIC.diff(x), sp.sqrt(sp.Rational(2, 1000)))
    found = first_passage_time(process, -1.0, **ends(("n", -math.inf), ("a", 1.0)))
    assert found.mean == math.inf
    assert 1000 < found.log_moments[0] < 1001


@pytest.mark.parametrize(
    "left, right, text",
    [
        (("a", 1.0), ("a", 2.0), "must enclose the start"),
        (("r", -1.0), ("r", 2.0), "one end must be absorbing"),
        (("a", -math.inf), ("a", 2.0), "Only a natural end may be infinite"),
        (("a", math.nan), ("a", 2.0), "Only a natural end may be infinite"),
        (("n", -math.inf), ("a", 2.0), "nothing confines the process towards -inf"),
    ],
)
def test_the_door(left, right, text):
    free = Process(lambda y: 0 * y, 1.0, dimension=1)
    with pytest.raises(ValueError, match=text):
        first_passage_time(free, 0.5, **ends(left, right))


def test_more_doors():
    free = Process(lambda y: 0 * y, 1.0, dimension=1)
    good = ends(("a", -1.0), ("a", 1.0))
    with pytest.raises(ValueError, match="moments must be a positive integer"):
        first_passage_time(free, 0.0, **good, moments=0)
    with pytest.raises(ValueError, match="start must be finite"):
        first_passage_time(free, math.nan, **good)
    with pytest.raises(ValueError, match="kind of the left end must be one of"):
        first_passage_time(free, 0.0, left=("open", -1.0), right=("absorbing", 1.0))
    with pytest.raises(ValueError, match="process must be one-dimensional"):
        first_passage_time(Process(lambda y: y, 1.0, dimension=2), 0.0, **good)
    with pytest.raises(ValueError, match=r"D positive inside the interval; at x = "):
        first_passage_time(diffusion(-x, x), 0.5, **ends(("a", -1.0), ("a", 1.0)))
    kink = Process(lambda y: -y.sign() * (1 + 0.1 * (1e6 * y).sin()), 1.0, dimension=1)
    with pytest.raises(ArithmeticError, match=r"not resolved|reached a relative error"):
        first_passage_time(kink, 0.01, **good)


@pytest.mark.parametrize("end", [None, "natural", ("natural",)])
def test_an_end_is_a_kind_and_a_place(end):
    process = Process(lambda x: -x, 1.0, dimension=1)
    with pytest.raises(ValueError, match="left end must be a kind and a place; got"):
        first_passage_time(process, 0.0, left=end, right=("absorbing", 1.0))
