"""Estimates of tails against closed forms, scipy and mpmath."""

import math

import mpmath as mp
import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import brentq, fmin

from sgdbook.kesten import batch_law
from sgdbook.tails import hill, student_t

# Hill


def test_hill_by_hand():
    x = torch.tensor([[1.0, -8.0], [2.0, 0.5]], dtype=torch.float64)
    found = hill(x, 2)
    assert found.value == pytest.approx(2 / (math.log(8) + math.log(2)), rel=1e-15)
    assert found.stderr == pytest.approx(found.value / math.sqrt(2), rel=1e-15)
    assert found.k == 2
    many = hill(x, [1, 3, 2])
    assert many.k.tolist() == [1, 3, 2]
    assert many.value.tolist() == [hill(x, k).value for k in (1, 3, 2)]
    assert many.stderr.tolist() == [hill(x, k).stderr for k in (1, 3, 2)]
    assert isinstance(found.value, float)


def test_hill_of_exact_powers():
    """k nu / value is a sum of k unit exponentials."""
    draws = np.random.default_rng(1).uniform(size=(400, 500))
    k, nu = 100, 2.5
    found = [hill(row ** (-1 / nu), k) for row in draws]
    sums = [k * nu / one.value for one in found]
    assert stats.kstest(sums, stats.gamma(k).cdf).pvalue > 1e-3
    z = np.array([(one.value - nu) / one.stderr for one in found])
    assert abs(z.mean()) < 0.2
    assert z.std() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    "samples, k, text",
    [
        ([1.0, 2.0], 2, "from 1 to n - 1 = 1; got 2"),
        ([1.0, 2.0], 0, "from 1 to n - 1 = 1; got 0"),
        ([1.0, 2.0], [1, 2], "from 1 to n - 1 = 1; got 2"),
        ([1.0, 2.0], [], r"an integer or a list of them; got \[\]"),
        ([1.0, 2.0], 1.5, "an integer or a list of them; got 1.5"),
        ([1.0, 2.0], [1.0], "from 1 to n - 1 = 1; got 1.0"),
        ([3.0, -3.0, 3.0], 2, "3 largest samples must differ and not be zero"),
        ([0.0, 0.0, 3.0], 1, "2 largest samples must differ and not be zero"),
        ([1.0, math.nan], 1, "samples must be finite; 1 of 2 are not"),
        ([1.0, math.inf, -math.inf], 1, "samples must be finite; 2 of 3 are not"),
        ([], 1, r"at least one; got torch.float64 of shape \(0,\)"),
    ],
)
def test_the_door_of_hill(samples, k, text):
    with pytest.raises(ValueError, match=text):
        hill(samples, k)


def test_numbers_only():
    with pytest.raises(TypeError, match="must be a tensor or an array of real numbers"):
        hill(["a", "b"], 1)
    with pytest.raises(ValueError, match="must be real numbers"):
        hill(torch.ones(3, dtype=torch.complex64), 1)


# Student's t


def log_likelihoods(x, fit):
    law = stats.t(fit.degrees, fit.location, fit.scale)
    gauss = stats.norm(x.mean(), x.std())
    return law.logpdf(x).sum(), gauss.logpdf(x).sum()


@pytest.mark.parametrize("degrees", [0.5, 1.0, 4.0, 12.0])
def test_student_agrees_with_scipy(degrees):
    x = stats.t.rvs(degrees, loc=0.3, scale=2, size=1000, random_state=3)

    def optimizer(objective, start, args, disp):
        return fmin(objective, start, args, xtol=1e-9, ftol=1e-12, disp=0, maxiter=2000)

    found = student_t(x)
    truth = stats.t.fit(x, found.degrees * 1.1, loc=0, scale=1, optimizer=optimizer)
    mine = [found.degrees, found.location, found.scale]
    assert mine == pytest.approx(truth, rel=1e-6)
    t, gauss = log_likelihoods(x, found)
    assert found.log_likelihood == pytest.approx(t, rel=1e-12)
    assert found.likelihood_ratio == pytest.approx(2 * (t - gauss), rel=1e-10)


def test_student_with_a_known_location():
    x = stats.t.rvs(3, loc=1, size=500, random_state=4)
    found = student_t(torch.from_numpy(x).reshape(50, 10), location=1)
    degrees, _, scale = stats.t.fit(x, floc=1)
    assert found.location == 1.0
    assert [found.degrees, found.scale] == pytest.approx([degrees, scale], rel=2e-4)
    gauss = stats.norm(1, math.sqrt(((x - 1) ** 2).mean())).logpdf(x).sum()
    ratio = 2 * (stats.t(found.degrees, 1, found.scale).logpdf(x).sum() - gauss)
    assert found.likelihood_ratio == pytest.approx(ratio, rel=1e-10)
    far = student_t(x, location=1e3)  # it is a fit, if a bad one
    assert far.scale > 100


def test_degrees_and_their_standard_error():
    """Over 400 replicates: calibrated within 10 per cent, near Fisher's information."""
    draws = np.random.default_rng(5).standard_t(3.0, size=(400, 1500))
    found = [student_t(row) for row in draws]
    z = np.array([(math.log(one.degrees / 3)) * 3 / one.stderr for one in found])
    z *= np.array([one.degrees / 3 for one in found])  # z of ln(degrees)
    assert abs(z).max() < 5
    assert abs(z.mean()) < 0.25
    assert z.std() == pytest.approx(1, abs=0.1)
    nu = mp.mpf(3)
    with mp.workdps(30):  # the information about nu, the scale unknown
        own = (mp.psi(1, nu / 2) - mp.psi(1, (nu + 1) / 2)) / 4
        own -= (nu + 5) / (2 * nu * (nu + 1) * (nu + 3))
        cross, scale = 2 / ((nu + 1) * (nu + 3)), 2 * nu / (nu + 3)
        expected = float(1 / mp.sqrt(1500 * (own - cross**2 / scale)))
    typical = np.median([one.stderr / (one.degrees / 3) ** 2 for one in found])
    assert typical == pytest.approx(expected, rel=0.05)


def test_student_moves_with_the_samples():
    x = stats.t.rvs(2.5, size=300, random_state=6)
    one = student_t(x)
    for scale, shift in ((1e-200, 0.0), (-1e180, 0.0), (3.0, 1e3)):
        other = student_t(scale * x + shift)
        assert other.degrees == pytest.approx(one.degrees, rel=1e-8)
        assert other.stderr == pytest.approx(one.stderr, rel=1e-8)
        assert other.location == pytest.approx(scale * one.location + shift, rel=1e-8)
        assert other.scale == pytest.approx(abs(scale) * one.scale, rel=1e-8)
        assert other.likelihood_ratio == pytest.approx(one.likelihood_ratio, rel=1e-8)


@pytest.mark.parametrize("degrees", [0.02, 3.0, 8.0, 49.9, 50.1, 1e3, 1e5])
def test_derivatives_of_the_likelihood(degrees):
    """Value, gradient and Hessian against mpmath, near and far from the Gaussian."""
    from sgdbook.tails import _likelihood

    x = [-3.0, 0.2, 1.5, 40.0]
    place = [-math.log(degrees), 0.4, 0.3]

    def truth(a, b, c):
        nu, s = mp.exp(-a), mp.exp(b)
        front = mp.loggamma((nu + 1) / 2) - mp.loggamma(nu / 2) - mp.log(nu * mp.pi) / 2
        logs = [mp.log1p(((y - c) / s) ** 2 / nu) for y in x]
        return front - b - (nu + 1) / 2 * sum(logs) / len(x)

    value, score, hessian = _likelihood(torch.tensor(x, dtype=torch.float64), *place)
    with mp.workdps(40):
        assert value == pytest.approx(float(truth(*place)), rel=1e-13)
        for i in range(3):
            order = [int(i == m) for m in range(3)]
            slope = float(mp.diff(truth, place, tuple(order)))
            assert score[i] == pytest.approx(slope, rel=1e-9, abs=1e-15)
            for j in range(3):
                twice = tuple(o + int(j == m) for m, o in enumerate(order))
                bend = float(mp.diff(truth, place, twice))
                assert hessian[i, j] == pytest.approx(bend, rel=1e-9, abs=1e-15)


def test_light_tails_are_gaussian():
    for seed in range(200):
        x = np.random.default_rng(seed).normal(2.0, 3.0, size=200)
        found = student_t(x)
        assert found.likelihood_ratio >= 0
        z = x - x.mean()
        if (z**4).mean() > 3 * x.var() ** 2:  # then the Gaussian is no local maximum
            assert 0 < found.degrees < 1e5
            assert found.likelihood_ratio > 0
        if found.degrees == math.inf:
            assert found.stderr == math.inf
            assert found.likelihood_ratio == 0
            assert found.location == pytest.approx(x.mean(), rel=1e-12)
            assert found.scale == pytest.approx(x.std(), rel=1e-12)
            gauss = stats.norm(x.mean(), x.std()).logpdf(x).sum()
            assert found.log_likelihood == pytest.approx(gauss, rel=1e-12)
    known = student_t(np.linspace(-1, 1, 101), location=0.25)
    assert (known.degrees, known.location) == (math.inf, 0.25)
    assert known.scale == pytest.approx(math.sqrt(0.34 + 0.0625), rel=1e-12)


def test_a_tail_just_beyond_the_gaussian():
    """An excess kurtosis g near 0 has 1/nu near g/6 and a ratio near n g^2/24."""
    z = stats.norm.ppf((np.arange(20000) + 0.5) / 20000)
    z = z + 1.4e-4 * z**3
    excess = ((z**4).mean() / z.var() ** 2) - 3
    assert 5e-4 < excess < 2e-3
    found = student_t(z)
    assert found.degrees == pytest.approx(6 / excess, rel=0.02)
    assert found.likelihood_ratio == pytest.approx(20000 * excess**2 / 24, rel=0.02)


def test_more_degrees_than_can_be_told():
    z = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)

    def excess(c):
        y = z + c * z**3
        return (y**4).mean() / y.var() ** 2 - 3

    c = brentq(lambda c: excess(c) - 1e-5, 0, 0.01, xtol=1e-14)
    found = student_t(z + c * z**3)  # near 6 / 1e-5 degrees
    assert (found.degrees, found.likelihood_ratio) == (math.inf, 0.0)


@pytest.mark.parametrize(
    "samples, location, error, text",
    [
        (np.arange(9.0), None, ValueError, "at least 10 samples; got 9"),
        (np.ones(20), None, ValueError, "the quartiles must differ"),
        ([0.0] * 12 + [1.0] * 3 + [-1.0], None, ValueError, "the quartiles must diff"),
        ([*range(20), 1e120], None, ValueError, "within 1e100 times"),
        ([*range(20), math.nan], None, ValueError, "samples must be finite"),
        (np.arange(20), math.nan, ValueError, "location must be a finite number or No"),
        (np.arange(20), "0", ValueError, "location must be a finite number or None"),
        ([0.0] * 9 + [*range(-6, 7)], 0.0, ArithmeticError, "Look at the samples for"),
    ],
)
def test_the_door_of_student(samples, location, error, text):
    with pytest.raises(error, match=text):
        student_t(samples, location)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda():
    x = torch.from_numpy(stats.t.rvs(3, size=1000, random_state=8))
    assert student_t(x.cuda()).degrees == pytest.approx(student_t(x).degrees, rel=1e-8)
    assert hill(x.cuda(), [10, 20]).value.tolist() == pytest.approx(
        hill(x, [10, 20]).value.tolist(), rel=1e-12
    )
    atoms, _ = batch_law(torch.tensor([0.0, 1.0]).cuda(), 2)
    assert atoms.device.type == "cuda"
