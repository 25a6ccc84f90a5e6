"""Kesten's index against mpmath, closed forms and enumeration."""

import itertools
import math
from collections import Counter

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sgdbook.kesten import batch_law, kesten_index, log_moment


def root(log_moment_of, near):
    """Solve ln E|A|^s = 0 with 30 digits."""
    with mp.workdps(30):
        return float(mp.findroot(log_moment_of, (near * (1 - 1e-6), near)))


def of_gaussian(mean, deviation):
    """Return ln E|A|^s of a Gaussian A, from the confluent hypergeometric function."""
    m, d = mp.mpf(mean), mp.mpf(deviation)

    def found(s):
        series = mp.hyp1f1(-s / 2, mp.mpf(1) / 2, -(m**2) / (2 * d**2))
        front = s * mp.log(d) + s / 2 * mp.log(2) + mp.loggamma((s + 1) / 2)
        return front - mp.log(mp.pi) / 2 + mp.log(series)

    return found


# Kesten's index


@pytest.mark.parametrize(
    "ratio, printed",
    [(0.4, 4.2657), (0.2, 4.1275), (0.1, 4.0578), (0.05, 4.0270), (0.01, 4.0051)],
)
def test_gaussian_curvature(ratio, printed):
    deviation = math.sqrt(ratio / 1.5)
    found = kesten_index(stats.norm(1 - ratio, deviation))
    assert found == pytest.approx(printed, abs=5e-5)
    truth = root(of_gaussian(1 - ratio, deviation), printed)
    assert found == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize(
    "mean, deviation, near",
    [(0.0, 0.01, 27182), (1 - 1e-5, 1e-3, 21), (-0.9, 0.5, 1.7), (1.0, 0.05, 1.0)],
)
def test_extreme_gaussians(mean, deviation, near):
    truth = root(of_gaussian(mean, deviation), near)
    assert kesten_index(stats.norm(mean, deviation)) == pytest.approx(truth, rel=1e-11)


@pytest.mark.parametrize("mean, deviation", [(-1, 0.5), (-0.01, 1.5), (-1, 0.01)])
def test_lognormal(mean, deviation):
    found = kesten_index(stats.lognorm(deviation, scale=math.exp(mean)))
    assert found == pytest.approx(-2 * mean / deviation**2, rel=1e-11)


CLOSED = {  # E|A|^s
    "uniform": (stats.uniform(-1.5, 3), lambda s: mp.mpf("1.5") ** s / (s + 1), 4),
    "lopsided": (
        stats.uniform(-0.5, 2),
        lambda s: (mp.mpf("0.5") ** (s + 1) + mp.mpf("1.5") ** (s + 1)) / (2 * s + 2),
        2,
    ),
    "exponential": (
        stats.expon(scale=0.01),
        lambda s: mp.mpf("0.01") ** s * mp.gamma(s + 1),
        268,
    ),
    "laplace": (
        stats.laplace(0.5, 0.25),
        lambda s: mp.quad(
            lambda a: abs(a) ** s * mp.exp(-abs(4 * a - 2)) * 2,
            [-mp.inf, -2, 0, 0.5, 1, 4, mp.inf],
        ),
        7,
    ),
    "gamma": (
        stats.gamma(0.5, scale=0.5),
        lambda s: mp.mpf("0.5") ** s * mp.gamma(s + 0.5) / mp.gamma(0.5),
        5,
    ),
    "steep at 0": (
        stats.gamma(0.01, scale=2),
        lambda s: mp.mpf(2) ** s * mp.gamma(s + 0.01) / mp.gamma(0.01),
        4,
    ),
    "arcsine": (
        stats.arcsine(-0.5, 2),
        lambda s: mp.quad(
            lambda u: abs(0.5 + mp.cos(u)) ** s / mp.pi, [0, 2 * mp.pi / 3, mp.pi]
        ),
        3.4,
    ),
    "pareto": (
        stats.pareto(2, scale=0.5),
        lambda s: mp.mpf("0.5") ** s * 2 / (2 - s),
        1.5,
    ),
    "cauchy": (
        stats.cauchy(scale=0.1),
        lambda s: mp.mpf("0.1") ** s / mp.cos(mp.pi * s / 2),
        0.923979,
    ),
    "away from 0": (
        stats.uniform(0.5, 0.75),
        lambda s: (
            (mp.mpf("1.25") ** (s + 1) - mp.mpf("0.5") ** (s + 1))
            / (s + 1)
            / mp.mpf("0.75")
        ),
        5,
    ),
}


@pytest.mark.parametrize("name", CLOSED)
def test_other_distributions(name):
    law, moment, near = CLOSED[name]
    found = kesten_index(law)
    assert found == pytest.approx(root(lambda s: mp.log(moment(s)), near), rel=1e-11)
    orders = torch.tensor([0.0, 0.01, 0.5, 1.01 * found], dtype=torch.float64)
    logs = log_moment(law, orders)
    for s, one in zip(orders.tolist(), logs.tolist(), strict=True):
        with mp.workdps(30):
            truth = float(mp.log(moment(mp.mpf(s))))
        assert one == pytest.approx(truth, rel=1e-10, abs=1e-14)


def test_steep_ends_on_either_side_of_0():
    def truth(s):
        return mp.log(
            mp.quad(lambda u: (0.75 + mp.cos(u) / 2) ** s / mp.pi, [0, mp.pi])
        )

    for law in (stats.arcsine(0.25, 1), stats.arcsine(-1.25, 1)):
        found = kesten_index(law)
        assert found == pytest.approx(root(truth, found), rel=1e-11)


def test_next_to_the_pole():
    """E|A|^s of t with 3 degrees grows beyond 1 only at the very end, s = 3."""
    law = stats.t(3, scale=0.02)

    def truth(s):
        ends = mp.gamma((s + 1) / 2) * mp.gamma((3 - s) / 2)
        return s * mp.log(0.02 * mp.sqrt(3)) + mp.log(
            ends / (mp.sqrt(mp.pi) * mp.gamma(1.5))
        )

    assert kesten_index(law) == pytest.approx(root(truth, kesten_index(law)), rel=1e-12)
    with mp.workdps(30):
        assert log_moment(law, 2.99) == pytest.approx(float(truth(mp.mpf(2.99))))
    assert log_moment(law, 3.5) == math.inf


def test_two_points():
    """The mean of a cubic's real root: with 1/2, 1/4 and 2 the root is a logarithm."""
    # z = 2^s solves p z + q / z + r / z^2 = 1 with p = r = 1/4 and q = 1/2.
    found = kesten_index([2.0, 0.5, -0.5, -0.25])
    z = max(r.real for r in np.roots([1, -4, 2, 1]) if abs(r.imag) < 1e-12)
    assert found == pytest.approx(math.log2(z), rel=1e-13)


def test_atoms_to_twelve_digits():
    atoms = torch.tensor([1 - 0.3, 1 + 0.9, -1.4, 0.0, 5.0], dtype=torch.float64)
    p = torch.tensor([0.5, 0.1, 0.1, 0.3, 0.0], dtype=torch.float64)

    def truth(s):
        pairs = zip(atoms.tolist(), p.tolist(), strict=True)
        return mp.log(sum(q * abs(mp.mpf(a)) ** s for a, q in pairs if q))

    found = kesten_index(atoms, p)
    assert found == pytest.approx(root(truth, found), rel=1e-13)
    for s in (1e-6, 0.5, found, 30.0, 5000.0):
        with mp.workdps(30):
            assert log_moment(atoms, s, p) == pytest.approx(
                float(truth(mp.mpf(s))), rel=1e-12, abs=1e-14
            )


def test_large_roots_do_not_overflow():
    """Of e^a and e^-a with the chance p of e^a: s = ln((1 - p)/p) / a."""
    p, a = 1e-200, 0.5
    found = kesten_index([math.exp(a), math.exp(-a)], [p, 1 - p])
    assert found == pytest.approx(200 * math.log(10) / a, rel=1e-13)
    assert log_moment([math.exp(a), 0.1], 1e6) == pytest.approx(5e5 - math.log(2))
    assert log_moment([0.5, 0.5], 1e6) == pytest.approx(-1e6 * math.log(2))
    small = kesten_index([math.exp(a), math.exp(-a)], [0.4999, 0.5001])
    assert small == pytest.approx(math.log(0.5001 / 0.4999) / a, rel=1e-11)
    far = stats.norm(0.5, 0.01)
    assert log_moment(far, 100.0) == pytest.approx(
        float(of_gaussian(0.5, 0.01)(mp.mpf(100))), rel=1e-12
    )


def test_bounded_multipliers_have_every_moment():
    assert kesten_index([0.5, -1.0]) == math.inf
    assert kesten_index([0.5, 0.0]) == math.inf
    assert kesten_index([0.5, 3.0], [1.0, 0.0]) == math.inf
    assert kesten_index(stats.uniform(-1, 2)) == math.inf
    assert kesten_index([0.5, 1 + 1e-15]) < math.inf


@pytest.mark.parametrize(
    "multiplier, text",
    [
        ([2.0, 0.75], r"has E ln\|A\| = 0.202733. Lower"),
        ([2.0, 0.5], r"has E ln\|A\| = 0. Lower"),
        ([3.0, 1 / 3], r"has E ln\|A\| = 0. Lower"),
        ([1.0], r"has E ln\|A\| = 0. Lower"),
        (stats.cauchy(), r"a stationary law needs E ln\|A\| < 0"),
        (stats.norm(2, 0.1), r"has E ln\|A\| = 0.691"),
        (stats.uniform(2, 1), r"a stationary law needs E ln\|A\| < 0"),
    ],
)
def test_no_stationary_law(multiplier, text):
    with pytest.raises(ValueError, match=text):
        kesten_index(multiplier)


class _AlmostPower(stats.rv_continuous):
    """P(A > a) = c / (a^2 (1 + ln a)^2) beyond 1: its second moment is its last."""

    def _cdf(self, a):
        return np.where(a < 1, 0.95 * a, 1 - self._sf(a))

    def _sf(self, a):
        log = np.log(np.maximum(a, 1))
        return np.where(a < 1, 1 - 0.95 * a, 0.05 * np.exp(-2 * log) / (1 + log) ** 2)

    def _ppf(self, q):
        return np.minimum(q / 0.95, 1)

    def _isf(self, q):
        return np.minimum((1 - q) / 0.95, 1)


def test_moments_that_end_below_one():
    with pytest.raises(
        ArithmeticError, match=r"reach 1; beyond s = 1\.9\d* it is infinite, or"
    ):
        kesten_index(_AlmostPower(a=0)())
    with pytest.raises(ArithmeticError, match=r"P\(\|A\| > 1\) is out of reach of dou"):
        kesten_index(stats.gamma(2, scale=1e-3))
    # The root is near 1575; its moment comes from where the chance underflows.
    with pytest.raises(ArithmeticError, match="infinite, or out of reach of double pr"):
        kesten_index(stats.beta(1, 1000, scale=3))


class _Broken(stats.rv_continuous):
    def _cdf(self, a):
        return np.where((a > 1.5) & (a < 1.6), np.nan, np.clip(a / 2, 0, 1))

    def _ppf(self, q):
        return 2 * q


def test_a_distribution_function_that_is_no_number():
    with pytest.raises(ArithmeticError, match=r"or is no number\. The distribu"):
        kesten_index(_Broken(a=0, b=2)())


@pytest.mark.parametrize(
    "multiplier, probabilities, text",
    [
        ([[1.0, 2.0]], None, r"multiplier must be real numbers of shape \(m,\)"),
        ([1.0, math.nan], None, "multiplier must be finite; 1 of 2"),
        ([1.0, 2.0], [0.5], "must be 2 numbers of at least 0 with the sum 1; got 1"),
        ([1.0, 2.0], [0.5, 0.6], "the sum 1.1"),
        ([1.0, 2.0], [1.5, -0.5], "the least -0.5"),
        (stats.norm(), [1.0], "probabilities belong to atoms"),
        (stats.poisson(3), None, "must be continuous; got poisson_gen"),
        (stats.norm([0, 1]), None, "must be one, with valid parameters"),
        (stats.norm(0, -1), None, "must be one, with valid parameters"),
    ],
)
def test_the_door_of_kesten(multiplier, probabilities, text):
    for function in (kesten_index, lambda a, p: log_moment(a, 1.0, p)):
        with pytest.raises(ValueError, match=text):
            function(multiplier, probabilities)


@pytest.mark.parametrize("s", [-0.5, math.nan, math.inf])
def test_orders_of_moments(s):
    with pytest.raises(ValueError, match="s must be finite and at least 0; got"):
        log_moment([1.0], s)


def test_shapes_of_log_moments():
    assert isinstance(log_moment([0.5], 2), float)
    grid = log_moment(torch.tensor([0.5]), torch.ones(2, 3))
    assert grid.shape == (2, 3) and grid.dtype == torch.float64
    assert log_moment([0.0], 0.0) == 0.0
    assert log_moment([0.0], 1.0) == -math.inf


# The law of a mini-batch


def enumerated(values, b, sampling):
    if sampling == "replacement":
        draws = itertools.product(values, repeat=b)
    else:
        draws = itertools.permutations(values, b)
    return Counter(sum(draw) for draw in draws)


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=5),
    st.integers(1, 4),
    st.sampled_from(["replacement", "without-replacement"]),
)
def test_batches_against_enumeration(values, b, sampling):
    if sampling != "replacement":
        b = min(b, len(values))
    counts = enumerated(values, b, sampling)
    scaled = torch.tensor(values, dtype=torch.float64) * 0.1  # sums differ by rounding
    atoms, p = batch_law(scaled, b, sampling=sampling)
    sums = sorted(counts)
    assert (atoms * b * 10).tolist() == pytest.approx(sums, abs=1e-12)
    assert p.tolist() == pytest.approx(
        [counts[s] / counts.total() for s in sums], rel=1e-12
    )


def test_large_batches_of_two_values():
    atoms, p = batch_law([0.0, 0.0, 1.0], 300)
    truth = stats.binom(300, 1 / 3).pmf(np.arange(301))
    assert p.numpy() == pytest.approx(truth, rel=1e-10)
    assert (atoms * 300).tolist() == pytest.approx(list(range(301)))
    assert atoms.dtype == p.dtype == torch.float64
    atoms, p = batch_law([0.0] * 20 + [1.0] * 10, 6, sampling="without-replacement")
    assert p.numpy() == pytest.approx(stats.hypergeom(30, 10, 6).pmf(range(7)))


def test_the_index_grows_with_the_batch():
    curvatures = [0.0, 0.5, 3.0]
    roots = []
    for b in (1, 2, 4, 8):
        atoms, p = batch_law(curvatures, b)
        roots.append(kesten_index(1 - 0.8 * atoms, p))
    assert roots == sorted(roots) and roots[0] > 0
    atoms, p = batch_law(curvatures, 3, sampling="without-replacement")
    assert atoms.tolist() == pytest.approx([3.5 / 3]) and p.tolist() == [1.0]


@pytest.mark.parametrize(
    "values, b, options, error, text",
    [
        ([1.0], 0, {}, ValueError, "batch_size must be a positive integer"),
        ([1.0], 2, {"sampling": "epochs"}, ValueError, "sampling must be one of"),
        (
            [1.0],
            2,
            {"sampling": "without-replacement"},
            ValueError,
            "at most N = 1 without replacement; got 2",
        ),
        ([1.0, math.inf], 2, {}, ValueError, "values must be finite"),
        ([1.0, 2.0], 2, {"limit": 3}, MemoryError, "take 3 sums at a time; .* to 4"),
        (
            [1.0, 2.0, 4.0, 8.0],
            2,
            {"sampling": "without-replacement", "limit": 5},
            MemoryError,
            "take 5 sums at a time; it has come to 6",
        ),
    ],
)
def test_the_door_of_batch_law(values, b, options, error, text):
    with pytest.raises(error, match=text):
        batch_law(values, b, **options)
    if "limit" in options:
        assert batch_law(values, b, **(options | {"limit": options["limit"] + 1}))
