"""Stationary densities against closed forms and independent quadrature in mpmath."""

import math

import mpmath as mp
import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sgdbook.sde import SDE
from sgdbook.stationary import StationaryDensity, normalisable

x = sp.Symbol("x", real=True)
T, A = sp.symbols("T A", positive=True)
CONVENTIONS = {"ito": 1, "stratonovich": 0, "anti-ito": -1}
HALF = {"left": ("natural", 0)}
UNIT = {"left": ("natural", 0), "right": ("natural", 1)}


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def same(found, truth, digits=10):
    found, truth = (torch.as_tensor(v, dtype=torch.float64) for v in (found, truth))
    return torch.testing.assert_close(found, truth, rtol=10.0**-digits, atol=0)


def of(drift, diffusion, at=None, convention="ito", **ends):
    return StationaryDensity(
        SDE(drift, diffusion, x, convention=convention), at, **ends
    )


def decided(drift, diffusion, at=None, convention="ito", **ends):
    return normalisable(SDE(drift, diffusion, x, convention=convention), at, **ends)


def by_quadrature(log_p, cuts, *powers):
    """Return ln Z and moments, by tanh-sinh quadrature to 30 digits."""
    with mp.workdps(30):
        cuts = [mp.mpf(c) for c in cuts]
        Z = mp.quad(lambda y: mp.e ** log_p(y), cuts)
        means = [
            mp.quad(lambda y, n=n: y**n * mp.e ** log_p(y), cuts) / Z for n in powers
        ]
        return float(mp.log(Z)), *map(float, means)


# ---------------------------------------------------------------- closed forms


def test_gauss():
    p = of(-x, sp.sqrt(2 * T), {T: 0.7})
    truth = stats.norm(scale=math.sqrt(0.7))
    at = tensor(-30.0, -1.0, 0.0, 0.3, 2.0, 28.0)
    same(p.log_density(at), truth.logpdf(at))
    same(p.density(at), truth.pdf(at))
    same(p.tail_probability(at), truth.sf(at))
    same(p.cdf(at), truth.cdf(at))
    same(p.two_sided_tail(tensor(-1.0, 0.5, 20)), [1, *2 * truth.sf([0.5, 20])])
    same(p.log_normaliser, math.log(math.sqrt(2 * math.pi * 0.7) / 0.7))
    same([p.moment(n) for n in (0, 2, 4)], [1, 0.7, 3 * 0.49])
    assert abs(p.moment(3)) < 1e-14
    assert p.tail_index == (math.inf, math.inf)
    assert p.error < 1e-12
    assert repr(p) == "StationaryDensity on (-oo, oo), tail index (inf, inf)"


def test_logarithms_reach_further_than_floats():
    p = of(-x, sp.sqrt(2))
    far = tensor(50.0, 300.0)
    same(p.log_tail_probability(far), stats.norm.logsf(far))
    same(p.log_density(-far), stats.norm.logpdf(far))
    assert float(of(-x, sp.sqrt(2)).tail_probability(50.0)) == 0
    assert float(p.log_tail_probability(math.inf)) == -math.inf
    assert p.log_density(tensor(-math.inf, math.inf)).tolist() == [-math.inf] * 2
    with pytest.raises(ValueError, match="x lies too far out: ln p is below -200,000"):
        p.log_density(1e6)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("nu", [0.1, 0.5, 1, 2.01, 5, 100])
def test_student(nu, convention):
    """(ln p)' = -(nu + 1) x / (1 + x^2), whatever the convention."""
    k = sp.Rational(str(nu)) - CONVENTIONS[convention]
    p = of(-A * x, sp.sqrt(2 * (1 + x**2)), {A: k}, convention)
    truth = stats.t(nu, scale=nu**-0.5)
    at = tensor(-1e6, -3.0, 0.0, 0.1, 50.0)
    assert p.tail_index == (nu, nu)
    same(p.density(at), truth.pdf(at))
    same(p.tail_probability(at), truth.sf(at))
    same(p.cdf(at), truth.cdf(at))
    q = tensor(1e-9, 0.1, 0.3, 0.7, 0.99)
    same(p.cdf(p.quantile(q)), q, 12)
    for n in (2, 4):
        if n > nu:
            assert p.moment(n) == math.inf
    if nu > 2:
        same(p.moment(2), 1 / (nu - 2))
    same(p.expectation(lambda y: 1 / (1 + y**2)), nu / (nu + 1))


@pytest.mark.parametrize("k", [0.01, 0.5, 1, 2.5, 50])
def test_gamma(k):
    p = of(A - x, sp.sqrt(2 * x), {A: k}, **HALF)
    truth = stats.gamma(k)
    at = tensor(1e-5, 0.1, 1.0, 5.0, 50.0, 500.0)
    same(p.density(at), truth.pdf(at))
    same(p.tail_probability(at), truth.sf(at))
    same(p.cdf(at[1:]), truth.cdf(at[1:]))
    same(p.moment(3), k * (k + 1) * (k + 2))
    same(p.moment(2, about=k), k)
    same(p.log_normaliser, math.lgamma(k) + 1)
    assert p.anchor == 1
    assert p.density(-1.0) == 0 == p.cdf(-1.0) == p.quantile(0.0)
    assert p.tail_probability(-1.0) == 1
    assert p.quantile(1.0) == math.inf


@pytest.mark.parametrize("a, b", [(0.01, 0.02), (0.5, 0.5), (1, 1), (2, 7), (30, 0.3)])
def test_beta(a, b):
    ends = {T: sp.Rational(str(a)), A: sp.Rational(str(b))}
    p = of(T * (1 - x) - A * x, sp.sqrt(2 * x * (1 - x)), ends, **UNIT)
    truth = stats.beta(a, b)
    at = tensor(1e-5, 0.1, 0.5, 0.9)
    same(p.density(at), truth.pdf(at))
    same(p.cdf(at), truth.cdf(at))
    same(p.tail_probability(at), truth.sf(at))
    same(p.moment(1, about=1.0), -b / (a + b))
    same(p.moment(2), a * (a + 1) / (a + b) / (a + b + 1))
    assert p.tail_index == (math.inf, math.inf)
    assert p.anchor == 0.5


def test_a_tail_on_one_side():
    """Geometric noise: the inverse Gamma law, with an infinite second moment."""
    p = of(1 - x / 2, sp.sqrt(2) * x, **HALF)
    truth = stats.invgamma(1.5)
    at = tensor(0.02, 0.1, 1.0, 100.0, 1e10)
    same(p.density(at), truth.pdf(at))
    same(p.cdf(at), truth.cdf(at))
    same(p.tail_probability(at), truth.sf(at))
    assert p.tail_index == (math.inf, 1.5)
    same(p.moment(1), 2)
    assert p.moment(2) == math.inf == p.moment(3)
    mirror = of(-1 - x / 2, sp.sqrt(2) * x, right=("natural", 0))
    assert mirror.tail_index == (1.5, math.inf)
    assert mirror.moment(3) == -math.inf
    assert mirror.moment(2) == math.inf
    same(mirror.cdf(-at), truth.sf(at))


def test_walls():
    p = of(0 * x, 1, left=("reflecting", 2), right=("reflecting", 5))
    assert p.density(tensor(1.0, 2, 4, 5, 6)).tolist() == pytest.approx(
        [0, 1 / 3, 1 / 3, 1 / 3, 0]
    )
    same(p.quantile(tensor(0.0, 0.25, 0.5, 1.0)), [2, 2.75, 3.5, 5])
    same(p.moment(1, about=2), 1.5)
    assert p.anchor == 3.5
    steep = of(-1_000_000, sp.sqrt(2), left=("reflecting", 0))
    same(steep.moment(1), 1e-6)
    same(steep.log_normaliser, math.log(1e-6))
    assert steep.anchor == 0
    other = of(1_000_000, sp.sqrt(2), right=("reflecting", 3))
    same(other.moment(2, about=3), 2e-12)
    assert other.anchor == 0


def test_a_kink():
    """Laplace's law, twice: at the centre and aside."""
    p = of(-sp.sign(x), sp.sqrt(2))
    same(p.density(tensor(-20.0, 0.0, 1.0)), stats.laplace.pdf([-20, 0, 1]))
    p = of(-sp.sign(x) - sp.sign(x - sp.Rational(1, 3)), sp.sqrt(2))
    truth = by_quadrature(
        lambda y: -abs(y) - abs(y - mp.mpf(1) / 3), [-30, 0, mp.mpf(1) / 3, 30], 2
    )
    same(p.moment(2), truth[1])


# ---------------------------------------------------------------- quadrature


@pytest.mark.parametrize("tilt", ["0", "1/10", "3/1000"])
@pytest.mark.parametrize("temperature", ["0.001", "0.05", "10"])
def test_double_well(temperature, tilt):
    h, t = sp.Rational(tilt), mp.mpf(temperature)
    V = (x**2 - 1) ** 2 / 4 + h * x
    p = of(-V.diff(x), sp.sqrt(2 * T), {T: float(t)})

    def log_p(y):
        return (-((y * y - 1) ** 2) / 4 - (y + 1) * mp.mpf(h.p) / h.q) / t

    wide, n = (12, 16) if t > 1 else (2, 16 if t > 0.01 else 50)
    cuts = [mp.mpf(k) / n * wide for k in range(-n, n + 1)]
    log_Z, second = by_quadrature(log_p, cuts, 2)
    (right,) = by_quadrature(log_p, [c for c in cuts if c >= 0])
    at = [-1.1, 0.0, 0.3, 1.0]
    exact = [float(log_p(mp.mpf(y))) - log_Z for y in at]
    assert p.log_density(tensor(*at)).tolist() == pytest.approx(exact, abs=1e-11)
    same(p.moment(2), second)
    same(p.log_tail_probability(0.0), right - log_Z)
    # Relative to the anchor 0, with 1/D = 1/T there.
    same(p.log_normaliser, log_Z - float(log_p(mp.mpf(0))) - math.log(t))


def test_wells_that_are_narrow_and_far():
    """A second minimum 1e5 widths away is found, though p falls by e^-2500 between."""
    V = (x**2 - 1) ** 2 / 4 + x / 1_000_000
    p = of(-V.diff(x), sp.sqrt(2 * T), {T: 1e-5})
    same(p.tail_probability(0.0), 1 / (1 + math.exp(0.2)), 6)
    shifted = of(-(x - 10**6) / 10**-6, sp.sqrt(2))
    same(shifted.moment(2, about=1e6), 1e-6)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_correlated_noise(convention):
    """Additive and multiplicative noise with correlation: the arctan law."""
    H, eta, g, h, r = 1, sp.Rational(1, 10), 2, 4, 1
    C = g + 2 * r * x + h * x**2
    p = of(-H * x, sp.sqrt(eta * C), convention=convention)
    K = H / (eta * h) + sp.Rational(1 + CONVENTIONS[convention], 2)
    root = sp.sqrt(4 * h * g - 4 * r**2)
    arctan = 4 * H * r * sp.atan(C.diff(x) / root) / (eta * h * root)
    log_p = sp.lambdify(x, arctan - K * sp.log(C), "mpmath")
    cuts = [-mp.inf, -3, 0, 3, 50, mp.inf]
    log_Z, first, second = by_quadrature(log_p, cuts, 1, 2)
    (tail,) = by_quadrature(log_p, [50, mp.inf])
    assert p.tail_index == (float(2 * K - 1),) * 2
    assert p.moment(1) == pytest.approx(first, rel=1e-10, abs=1e-14)
    same(p.moment(2), second)
    same(p.log_tail_probability(50.0), tail - log_Z)
    same(p.log_density(0.3), float(log_p(mp.mpf(0.3))) - log_Z)


@pytest.mark.parametrize("a", ["0.5001", "0.51", "0.75", "3"])
def test_logarithmic_potential(a):
    p = of(-2 * A * x / (1 + x**2), sp.sqrt(2), {A: float(a)})
    k = mp.mpf(a)
    Z = mp.sqrt(mp.pi) * mp.gamma(k - 0.5) / mp.gamma(k)
    same(p.density(0.0), float(1 / Z))
    for far in (1e90, 1e200):  # within the panels, and beyond
        tail = (1 - 2 * k) * mp.log(far) - mp.log((2 * k - 1) * Z)
        same(p.log_tail_probability(far), float(tail))
        same(p.log_density(-far), float(-2 * k * mp.log(far) - mp.log(Z)))
    if k > 0.6:
        same(p.cdf(p.quantile(tensor(1e-6, 1e-3))), [1e-6, 1e-3])


@pytest.mark.parametrize("power", ["1/4", "1/10"])
def test_stretched_exponential(power):
    b = sp.Rational(power)
    p = of(-((1 + x**2) ** b).diff(x), sp.sqrt(2))
    with mp.workdps(30):

        def weight(n, low):
            def f(t):
                b_ = mp.mpf(b.p) / b.q
                even = mp.sinh(t) ** n * mp.cosh(t)
                return mp.e ** (-(mp.cosh(t) ** (2 * b_))) * even

            return mp.quad(f, [low, 6, 10, 20, 40, 80])

        Z = 2 * weight(0, 0)
        same(p.density(0.0), float(mp.e**-1 / Z))
        same(p.moment(4), float(2 * weight(4, 0) / Z))
        same(p.tail_probability(100.0), float(weight(0, mp.asinh(100)) / Z))
    assert p.tail_index == (math.inf, math.inf)


def test_large_places_do_not_overflow():
    """D grows like x^6, whose square is no float at 1e60."""
    p = of(-(x**5), sp.sqrt(2 + 2 * x**6))
    log_p = sp.lambdify(x, -sp.Rational(7, 6) * sp.log(1 + x**6), "mpmath")
    log_Z, second = by_quadrature(log_p, [-mp.inf, -1, 0, 1, mp.inf], 2)
    for far in (1e30, 1e55, 1e80):
        same(p.log_density(far), -7 * math.log(far) - log_Z)
    same(p.moment(2), second)
    root = of(-sp.sqrt(1 + x**10), sp.sqrt(2 + 2 * x**12), left=("reflecting", 0))
    assert root.tail_index == (math.inf, 11)
    gaps = root.log_density(tensor(1e20, 1e40, 1e70)) + 12 * tensor(
        20, 40, 70
    ) * math.log(10)
    same(gaps, gaps[0].expand(3), 9)
    fast = of(-sp.sinh(x), 1)
    same(fast.density(0.0), float(mp.e**-2 / (2 * mp.besselk(0, 2))))


# ---------------------------------------------------------------- means and samples


def test_expectations():
    p = of(-x, sp.sqrt(2))
    same(p.expectation(torch.cos), math.exp(-0.5))
    same(p.expectation(lambda y: (3 * y).exp()), math.exp(4.5))
    same(p.expectation(lambda y: (0.4 * y**2).exp()), math.sqrt(5))
    same(p.expectation(lambda y: y > 0.3), float(p.tail_probability(0.3)))
    same(p.expectation(torch.abs), math.sqrt(2 / math.pi))
    same(p.expectation(lambda y: y**2 - 5), -4)
    assert p.expectation(lambda y: 0 * y) == 0
    same(p.moment(60), float(mp.fac2(59)))
    heavy = of(-x, sp.sqrt(1 + x**2))
    assert heavy.moment(2) == pytest.approx(1, rel=1e-10)
    # E|X|^s = G((s+1)/2) G((3-s)/2) / (G(1/2) G(3/2)), near its divergence too
    for s in (0.5, 2.5, 2.99):
        truth = math.gamma((s + 1) / 2) * math.gamma((3 - s) / 2) * 2 / math.pi
        same(heavy.expectation(lambda y, s=s: y.abs() ** s), truth)
    deep = of(-100 * x, sp.sqrt(2 * (1 + x**2)))  # panels first end before x^100 p
    log_p = sp.lambdify(x, -51 * sp.log(1 + x**2), "mpmath")
    _, high = by_quadrature(log_p, [0, 0.5, 1, 10, 100, mp.inf], 100)
    same(deep.moment(100), high)


@pytest.mark.parametrize(
    "phi, text",
    [
        (lambda y: y.abs() ** 3, r"does not converge.* left end; .*\(3\.0, 3\.0\)"),
        (lambda y: y.clamp(min=0) ** 3, "does not converge.* right end"),
        (lambda y: y.sum(), r"one value a place, shape \(\d+,\); got \(\)"),
        (lambda y: y * math.nan, "phi must be finite where p is not negligible"),
        (lambda y: 1 / (y * (y.abs() > 1)), "phi must be finite where p is not"),
    ],
)
def test_expectations_that_are_none(phi, text):
    with pytest.raises(ValueError, match=text):
        of(-x, sp.sqrt(1 + x**2)).expectation(phi)


def test_waves_that_are_too_fast_and_numbers_too_large():
    heavy = of(sp.Rational(9, 10) * x, sp.sqrt(2 * (1 + x**2)))
    with pytest.raises(ArithmeticError, match="phi is not resolved"):
        heavy.expectation(torch.cos)
    p = of(-x, sp.sqrt(2))
    with pytest.raises(ArithmeticError, match=r"too large for a float: e\^"):
        p.moment(400)
    with pytest.raises(ValueError, match="must be finite where p is not negligible"):
        p.expectation(lambda y: (y**2 / 2).exp())


def test_samples():
    p = of(-x, sp.sqrt(2 * (1 + x**2)))
    generator = torch.Generator().manual_seed(4)
    sample = p.sample(100_000, generator)
    assert sample.shape == (100_000,)
    assert sample.dtype == torch.float64
    assert stats.kstest(sample, stats.t(2, scale=2**-0.5).cdf).pvalue > 0.01
    with pytest.raises(ValueError, match="n must be a positive integer"):
        p.sample(0, generator)
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator"):
        p.sample(3, 1)
    wells = of(-((x**2 - 1) ** 2).diff(x), sp.sqrt(sp.Rational(2, 1000)))
    sample = wells.sample(10_000, generator)
    assert abs(float((sample > 0).double().mean()) - 0.5) < 4 * 0.005
    same(float((sample**2).mean()), wells.moment(2), 2)


def test_quantiles():
    p = of(-x, sp.sqrt(2))
    q = tensor(0, 1e-300, 1e-20, 0.1, 0.6, 1 - 1e-9, 1).reshape(7, 1)
    same(p.quantile(q), stats.norm.ppf(q))
    assert abs(float(p.quantile(0.5))) < 1e-15
    assert p.quantile(0.3).shape == ()
    empty = torch.empty(0)
    assert p.density(empty).shape == p.quantile(empty).shape == (0,)
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="q must be probabilities"):
            p.quantile(bad)


@settings(derandomize=True, max_examples=5, deadline=None)
@given(
    st.floats(-4, 4),
    st.floats(0.2, 5),
    st.floats(-2, 2),
    st.sampled_from([*CONVENTIONS]),
)
def test_scaling(log_c, temperature, tilt, convention):
    """Y = c X: moments scale, and probabilities stay."""
    c = 2.0 ** round(4 * log_c)
    noise = sp.sqrt(2 * T + x**2 / 10)
    drift = -(x**3) - A * x
    at = {T: temperature, A: tilt}
    p = of(drift, noise, at, convention)
    s = sp.Rational(c)
    q = of(s * drift.subs(x, x / s), s * noise.subs(x, x / s), at, convention)
    same(q.moment(4), c**4 * p.moment(4))
    same(q.tail_probability(0.7 * c), p.tail_probability(0.7))
    same(q.log_density(-3 * c), p.log_density(-3) - math.log(c))


@settings(derandomize=True, max_examples=8, deadline=None)
@given(st.integers(-20, 20), st.sampled_from(["stratonovich", "anti-ito"]))
def test_a_convention_is_a_drift(tilt, convention):
    noise = sp.sqrt(1 + x**2 + sp.Rational(tilt, 12) * x)
    sde = SDE(-3 * x + 1, noise, x, convention=convention)
    p, q = StationaryDensity(sde), of(sde.ito_drift, noise)
    assert p.tail_index == q.tail_index
    same(p.tail_probability(2.0), q.tail_probability(2.0), 12)
    assert decided(sde.drift[0], noise, convention=convention)


# ---------------------------------------------------------------- existence


@pytest.mark.parametrize(
    "a, exists", [("0.25", False), ("0.249999", False), ("0.250001", True), ("1", True)]
)
def test_logarithmic_potential_exists_from_a_quarter(a, exists):
    """f = a ln(1 + x^2) at beta = 2: p falls like |x|^(-4 a)."""
    drift = -2 * A * x / (1 + x**2)
    assert decided(drift, 1, {A: float(a)}) is exists


def test_floats_are_what_is_written():
    """At a = 0.1 and T = 0.2 the exponent is -1 exactly, and not by rounding."""
    drift, noise = -2 * A * x / (1 + x**2), sp.sqrt(2 * T)
    assert not decided(drift, noise, {A: 0.1, T: 0.2})
    assert decided(drift, noise, {A: 0.1 + 1e-12, T: 0.2})
    assert not decided(-0.2 * x / (1 + x**2), sp.sqrt(2 * 0.2 + 0 * x))


@pytest.mark.parametrize(
    "power, exists", [("2", True), ("1.01", True), ("0.99", False), ("0", False)]
)
def test_logarithms_decide_where_the_exponent_is_critical(power, exists):
    """p = 1 / (x ln(x)^power) at infinity, and x^-1 |ln x|^-power at 0."""
    m = sp.Rational(power)
    y = sp.Symbol("y", positive=True)
    drift = -1 / y - m / (y * sp.log(y))
    far = SDE(drift, sp.sqrt(2), y, convention="ito")
    assert normalisable(far, left=("reflecting", 3)) is exists
    near = SDE(drift, sp.sqrt(2), y, convention="ito")
    ends = {"left": ("natural", 0), "right": ("reflecting", sp.Rational(1, 2))}
    assert normalisable(near, **ends) is exists
    if exists:
        with pytest.raises(ArithmeticError, match="ten digits are out of reach"):
            StationaryDensity(far, left=("reflecting", 3))


def test_an_undecided_end():
    y = sp.Symbol("y", positive=True)
    drift = -1 / y - 1 / (y * sp.log(y))
    with pytest.raises(
        ValueError, match=r"cannot decide .* right end, oo: its exponent"
    ):
        normalisable(
            SDE(drift, sp.sqrt(2), y, convention="ito"), left=("reflecting", 3)
        )
    with pytest.raises(
        ValueError, match=r"cannot decide .* left end, -oo: x \(ln p\)'"
    ):
        decided(-x / (1 + x**2) * (2 + sp.sin(x)), sp.sqrt(2))


@pytest.mark.parametrize(
    "drift, noise, ends, text",
    [
        (-x / (1 + x**2) / 2, 1, {}, "left end, -oo: .* power -1 there; .* below -1"),
        (-1 + 0 * x, 1, {}, "left end, -oo: .* to the power oo there"),
        (1 + 0 * x, 1, {"left": ("reflecting", 0)}, "right end, oo: the density"),
        (-x, sp.sqrt(2 * x), HALF, "left end, 0: .* the distance .* be above -1"),
        (
            -x,
            sp.sqrt(2 * x * (1 - x)),
            {"left": ("reflecting", sp.Rational(1, 9)), "right": UNIT["right"]},
            None,
        ),
        (x, sp.sqrt(2 * x * (1 - x)), UNIT, "left end, 0: .* to the power -1"),
    ],
)
def test_laws_that_do_not_exist(drift, noise, ends, text):
    assert decided(drift, noise, **ends) is (text is None)
    if text:
        with pytest.raises(ValueError, match=f"not normalisable towards the {text}"):
            of(drift, noise, **ends)


def test_odd_moments_that_diverge():
    heavy = of(-x, sp.sqrt(1 + x**2))
    assert heavy.moment(4) == math.inf
    for n in (3, 5):
        with pytest.raises(ValueError, match=f"of order {n} diverges at both ends"):
            heavy.moment(n)
    lopsided = of(-x, sp.sqrt(1 + x**2), left=("reflecting", -1))
    assert lopsided.moment(3) == math.inf
    assert lopsided.tail_index == (math.inf, 3)


def test_tails_may_differ():
    """The slope of ln p turns from 3 on the left to -6 on the right."""
    drift = sp.Rational(-3, 2) * sp.sqrt(1 + x**2) - sp.Rational(9, 2) * x
    p = of(drift / (1 + x**2), sp.sqrt(2))
    assert p.tail_index == (2, 5)
    K = sp.Rational(9, 4) * sp.log(1 + x**2) + sp.Rational(3, 2) * sp.asinh(x)
    log_p = sp.lambdify(x, -K, "mpmath")
    log_Z, first = by_quadrature(log_p, [-mp.inf, -100, -1, 0, 1, 100, mp.inf], 1)
    same(
        p.log_density(tensor(-20.0, 0.5)), [float(log_p(v)) - log_Z for v in (-20, 0.5)]
    )
    same(p.moment(1), first)
    assert p.moment(2) == math.inf


# ---------------------------------------------------------------- the door


@pytest.mark.parametrize(
    "drift, noise, keywords, text",
    [
        (-x, T, {}, r"symbols \['T'\] have no value"),
        (
            -x,
            1,
            {"at": {T: math.nan}},
            r"at\[T\] must be a finite real number; got nan",
        ),
        (-x, 1, {"at": {T: sp.I}}, r"at\[T\] must be a finite real number; got I"),
        (-x, 1, {"at": {T: "one"}}, r"at\[T\] must be a finite real number; got 'one'"),
        (-x * sp.I, 1, {}, "the drift must be finite and real; got"),
        (-x + sp.zoo, 1, {}, "the drift must be finite and real; got"),
        (-x, sp.oo, {}, "the diffusion must be finite and real; got"),
        (-x, 0, {}, "D must be positive inside the interval; it is 0"),
        (-x, x, {}, "D positive inside the interval; they are not at x = 0"),
        (-x, sp.I * 2, {}, "D positive inside the interval; they are not at x"),
        (-x, x**2 - 2, {}, "they are not at x = -1.41421. Make it an end"),
        (-x, sp.sin(x) - sp.Rational(1, 2), {}, "they are not at x"),
        (-x, sp.sqrt(1 - x**2), {}, "they are not at x"),
        (1 / x - x, 1, {}, "they are not at x = 0. Make it an end"),
        (-x, sp.sqrt(x), {"left": ("reflecting", 0)}, "they are not at x = 0"),
        (-x, sp.sqrt(1 - x), {**UNIT, "right": ("reflecting", 1)}, "not at x = 1"),
        (-x, 1, {"left": ("open", 0)}, "kind of the left end must be one of natural"),
        (-x, 1, {"left": "natural"}, "left end must be a kind and a place; got 'nat"),
        (-x, 1, {"right": ("natural",)}, "right end must be a kind and a place"),
        (-x, 1, {"right": ("reflecting", math.inf)}, "right end is reflecting at oo"),
        (-x, 1, {"right": ("natural", -math.inf)}, "right end is natural at -oo"),
        (-x, 1, {"left": ("natural", math.nan)}, "place of the left end must be a fin"),
        (-x, 1, {"left": ("natural", 1), "right": ("natural", 0)}, "must be below the"),
    ],
)
def test_the_door(drift, noise, keywords, text):
    for function in (of, decided):
        with pytest.raises(ValueError, match=text):
            function(drift, noise, **keywords)


def test_more_doors():
    with pytest.raises(TypeError, match=r"sde must be an sgdbook\.sde\.SDE; got Add"):
        StationaryDensity(1 - x)
    y = sp.Symbol("y", real=True)
    plane = SDE([-x, -y], 1, [x, y], convention="ito")
    with pytest.raises(ValueError, match="must be one-dimensional; got 2 variables"):
        normalisable(plane)
    z = sp.Symbol("z", positive=True)
    with pytest.raises(ValueError, match="z is declared of one sign"):
        StationaryDensity(SDE(-z, 1, z, convention="ito"))
    p = of(-x, 1)
    with pytest.raises(ValueError, match="x must be places, not nan"):
        p.cdf(math.nan)
    for n in (-1, 1.5, True):
        with pytest.raises(ValueError, match="n must be an integer of at least 0"):
            p.moment(n)
    with pytest.raises(ValueError, match="about must be finite"):
        p.moment(1, about=math.inf)
    cold = of(-x, sp.sqrt(2 * T), {T: 1e-9})
    with pytest.raises(ArithmeticError, match=r"not resolved by|relative error of"):
        of(-((x**2 - 1) ** 2).diff(x), sp.sqrt(2 * T), {T: 1e-9})
    same(cold.moment(2), 1e-9)


def test_several_noises_and_plain_symbols():
    """Two Wiener processes add their rates; a symbol needs no assumptions."""
    y = sp.Symbol("y")
    both = SDE(-y, sp.Matrix([[1, y]]), y, convention="ito")
    p, q = StationaryDensity(both), of(-x, sp.sqrt(1 + x**2))
    same(p.density(0.4), q.density(0.4), 13)
    heavy = SDE(-y, sp.sqrt(1 + sp.sqrt(y**2)), y, convention="ito")
    same(
        StationaryDensity(heavy).density(0.4),
        of(-x, sp.sqrt(1 + sp.Abs(x))).density(0.4),
    )
