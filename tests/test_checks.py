"""The numerical checks: what they compute, and each way in which they must fail."""

import math

import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sgdbook import checks
from sgdbook.checks import CheckError, Evidence, compare, mean, order, shorten
from sgdbook.quadrature import HighPrecision, high_precision

F64 = torch.float64
mu, s, t = sp.symbols("mu s t", real=True)
n = sp.Symbol("n", integer=True, positive=True)
a, k = sp.IndexedBase("a"), sp.Symbol("k", integer=True)


def randn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=F64)


def exactly(z, target=1.0, size=100, stderr=0.01, seed=0):
    """Samples whose mean lies z standard errors above the target, to rounding."""
    noise = randn(size, seed=seed)
    noise = (noise - noise.mean()) / noise.std()
    return target + stderr * (z + noise * math.sqrt(size))


def fails(call, *args, **options):
    with pytest.raises(CheckError) as caught:
        call(*args, **options)
    return str(caught.value)


TYPED = [
    3.0,
    3,
    True,
    "mu",
    np.float64(3),
    torch.tensor(3.0),
    [mu],
    None,
    sp.Integer(3),
    sp.Rational(3, 2),
    sp.Float(3.0),
    sp.sqrt(2),
    sp.pi**2 / 6,
    sp.exp(-1) + sp.log(2),
    mu - mu + 3,
    sp.Sum(k, (k, 1, 2)),
    sp.Matrix([3]),
    HighPrecision(3.0, 12, sp.Float(3.0)),
    HighPrecision(3.0, 12, sp.Integer(3)),
    HighPrecision(1.4142135623730951, 12, sp.sqrt(2)),
    high_precision(sp.pi, {}),
    high_precision(sp.Integral(3, (t, 0, 1)), {}),
]


# --- mean: what it computes --------------------------------------------------------


def test_the_mean_comes_with_its_own_standard_error():
    x = 3 + 0.5 * randn(400)
    found = mean(x, mu, at={mu: 3.0}, controls={"half": mu / 2}, label="x", seed=7)
    assert isinstance(found, Evidence)
    values = x.numpy()
    stderr = values.std(ddof=1) / 20
    check = found.check
    assert check["kind"] == "mean"
    assert check["estimate"] == pytest.approx(values.mean(), rel=1e-14)
    assert check["stderr"] == pytest.approx(stderr, rel=1e-13)
    assert check["z"] == pytest.approx((values.mean() - 3) / stderr, rel=1e-9)
    assert check["expected"] == 3 and check["expression"] == "mu"
    assert (check["n"], check["label"], check["seed"]) == (400, "x", 7)
    assert check["device"].startswith("CPU")
    (control,) = found.controls
    assert control["name"] == "half" and control["expression"] == "mu/2"
    assert control["distance"] == pytest.approx(0.5)
    assert control["z"] == pytest.approx((values.mean() - 1.5) / stderr, rel=1e-12)
    assert control["rejected"] is True


@pytest.mark.parametrize("kind", [torch.Tensor.numpy, torch.Tensor.tolist, lambda x: x])
def test_samples_may_be_tensors_arrays_or_lists(kind):
    found = mean(kind(exactly(1.0)), mu, at={mu: 1.0}, controls={"half": mu / 2})
    assert found.check["z"] == pytest.approx(1.0, abs=1e-9)


def test_float32_samples_and_gradients_are_fine():
    x = (1 + 0.1 * randn(100)).float().requires_grad_()
    assert mean(x, mu, at={mu: 1.0}, controls={"half": mu / 2}).check["n"] == 100


def test_integer_samples_are_numbers():
    coin = torch.arange(1000) % 2
    p = sp.Symbol("p", positive=True)
    found = mean(coin, p, at={p: 0.5}, controls={"2p": 2 * p, "p^2": p**2})
    assert found.check["estimate"] == 0.5 and found.check["z"] == 0


def test_expressions_with_sums_and_integrals_are_derived():
    data = torch.tensor([1.0, 2.0, 6.0], dtype=F64)
    average = sp.Sum(a[k], (k, 1, n)) / n
    at = {a: data, n: 3}
    assert mean(exactly(0, 3.0), average, at=at, controls={"sum": n * average}).check[
        "expected"
    ] == pytest.approx(3)
    gauss = sp.Integral(sp.exp(-(t**2) / 2), (t, -sp.oo, sp.oo))
    exact = high_precision(gauss, {})
    wrong = high_precision(2 * gauss, {})
    found = mean(exactly(0, math.sqrt(2 * math.pi)), exact, controls={"twice": wrong})
    assert found.check["expression"].endswith("to 12 digits")


# --- mean: each way to fail --------------------------------------------------------


def test_a_wrong_formula_is_named_with_its_numbers():
    message = fails(mean, exactly(7, 2.0), mu, at={mu: 2.0}, controls={"half": mu / 2})
    assert message == (
        "expected 2 from mu, found 2.07 ± 0.01 (n = 100), z = +7.0 where |z| < 5 is "
        "required. Look at the expression, then at the step size of what was simulated."
    )


@settings(max_examples=60, deadline=None)
@given(st.floats(-12, 12), st.integers(0, 100))
def test_a_claim_passes_below_five_standard_errors_and_only_there(z, seed):
    options = {"at": {mu: 1.0}, "controls": {"twice": 2 * mu}}
    samples = exactly(z, seed=seed)
    if abs(z) < 4.999:
        assert mean(samples, mu, **options).check["z"] == pytest.approx(z, abs=1e-9)
    elif abs(z) > 5.001:
        assert f"z = {z:+.1f}" in fails(mean, samples, mu, **options)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_control_is_rejected_from_eight_standard_errors(sign):
    samples, at = exactly(0), {mu: 1.0}
    near, far = 1 + sign * 0.01 * 7.99, 1 + sign * 0.01 * 8.01
    message = fails(mean, samples, mu, at=at, controls={"off": mu * sp.Rational(near)})
    assert message == (
        f"the control 'off' was not rejected: z = {-sign * 8.0:+.1f} where 8 is "
        "required. Take more data, or find why the check has no power against it."
    )
    found = mean(samples, mu, at=at, controls={"off": mu * sp.Rational(far)})
    assert found.controls[0]["z"] == pytest.approx(-sign * 8.01, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("claim", "control"),
    [
        (mu**2 + s**2, mu**2),
        (mu**2 + s**2, mu**2 + 2 * s**2),
        (mu**2 + s, mu**2 + s / 2),
    ],
)
def test_data_drawn_from_the_control_fail(claim, control, seed):
    # What is simulated has the law of the control; the roles exchanged, it passes.
    at = {mu: 0.5, s: 0.7}
    exact = float(control.subs(at))
    samples = exact * torch.empty(20_000, dtype=F64).exponential_(
        generator=torch.Generator().manual_seed(seed)
    )
    message = fails(mean, samples, claim, at=at, controls={"control": control})
    assert "where |z| < 5 is required" in message
    assert mean(samples, control, at=at, controls={"claim": claim})


def test_no_false_alarms_in_two_hundred_runs():
    for seed in range(200):
        mean(1 + randn(900, seed=seed), mu, at={mu: 1.0}, controls={"twice": 2 * mu})


@pytest.mark.parametrize("controls", [{}, None])
def test_a_control_is_wanted(controls):
    message = fails(mean, exactly(0), mu, at={mu: 1.0}, controls=controls)
    assert message == (
        "a check needs a control that the same data must reject. Pass "
        "controls={'what is wrong': wrong_expression}."
    )
    with pytest.raises(TypeError, match="controls"):
        mean(exactly(0), mu, at={mu: 1.0})


def test_the_claim_itself_is_no_control():
    message = fails(mean, exactly(1), mu, at={mu: 1.0}, controls={"same": mu + 0 * s})
    assert "the control 'same' was not rejected: z = +1.0 where 8" in message


@pytest.mark.parametrize("factor", [5, 4.1, 0.24, 0.2, 0, -5, -2.1, -0.2, 1000])
def test_a_control_far_away_and_alone_shows_no_power(factor):
    wild = mu * sp.Rational(factor) if factor else mu - mu * t
    at = {mu: 1.0, t: 1.0}
    message = fails(mean, exactly(0), mu, at=at, controls={"wild": wild})
    assert message == (
        "every control is more than a factor 4 off (wild). Add a nearer one: rejecting "
        "a wild guess shows no power."
    )
    both = {"wild": wild, "twice": 2 * mu}
    assert len(mean(exactly(0), mu, at=at, controls=both).controls) == 2


@pytest.mark.parametrize("factor", [4, 2, 0.5, 0.25, -1, -2, 1.1])
def test_a_control_within_a_factor_four_stands_alone(factor):
    assert mean(
        exactly(0), mu, at={mu: 1.0}, controls={"near": mu * sp.Rational(factor)}
    )


def test_about_zero_near_means_four_standard_deviations_of_a_sample():
    samples, at = exactly(0, 0.0), {mu: 0.0, s: 0.1}  # stderr 0.01, deviation 0.1
    assert mean(samples, mu, at=at, controls={"one": mu + s})
    assert "Add a nearer one" in fails(
        mean, samples, mu, at=at, controls={"five": mu + 5 * s}
    )


@pytest.mark.parametrize("typed", TYPED, ids=lambda v: repr(v)[:40])
def test_a_typed_expected_value_is_refused(typed):
    message = fails(mean, exactly(0, 3.0), typed, controls={"half": mu}, at={mu: 1.5})
    assert message.startswith(
        f"the expected value {typed!r:.80} was typed, not derived."
    )
    assert (
        "Pass the SymPy expression and the values of its symbols as at={...}" in message
    )


@pytest.mark.parametrize("typed", TYPED, ids=lambda v: repr(v)[:40])
def test_a_typed_control_is_refused(typed):
    message = fails(mean, exactly(0), mu, at={mu: 1.0}, controls={"typed": typed})
    assert message.startswith("the control 'typed' ")
    assert "was typed, not derived" in message


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_sample_that_is_not_finite_is_named(bad):
    samples = exactly(0)
    samples[17] = bad
    assert fails(mean, samples, mu, at={mu: 1.0}, controls={"half": mu / 2}) == (
        f"sample 17 is {bad}. A run that blew up proves nothing: lower the step size."
    )


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e100])
def test_equal_samples_have_no_standard_error(value):
    samples = torch.full((100,), value, dtype=F64)
    message = fails(mean, samples, mu, at={mu: value}, controls={"half": mu / 2})
    assert message == (
        "the standard error is zero: the samples are all equal. Use compare for "
        "deterministic results."
    )


@pytest.mark.parametrize("size", [0, 1, 2, 29])
def test_too_few_samples(size):
    message = fails(mean, randn(size), mu, at={mu: 0.0}, controls={"half": mu / 2})
    assert message == (
        f"{size} samples are too few for a standard error. Give at least 30 "
        "independent ones."
    )


def test_thirty_samples_are_enough():
    assert mean(exactly(0, size=30), mu, at={mu: 1.0}, controls={"half": mu / 2})


@pytest.mark.parametrize("shape", [(), (10, 10), (1, 100)])
def test_samples_have_one_axis(shape):
    message = fails(
        mean, torch.ones(shape), mu, at={mu: 0.0}, controls={"half": mu / 2}
    )
    assert message == (
        f"samples must have shape (n,); got {shape}. Pass one number a replicate, for "
        "instance x.mean(dim=1)."
    )


def test_complex_samples_are_refused():
    message = fails(mean, exactly(0) + 0j, mu, at={mu: 1.0}, controls={"half": mu / 2})
    assert message.startswith("complex numbers were found")


def test_the_expected_value_is_one_finite_number():
    samples, controls = exactly(0), {"half": mu / 2}
    several = {mu: torch.ones(3, dtype=F64)}
    message = fails(mean, samples, mu, at=several, controls=controls)
    assert message.startswith(
        "the expected value has shape (3,), one number was expected"
    )
    message = fails(mean, samples, 1 / mu, at={mu: 0.0}, controls=controls)
    assert message == "the expected value from 1/mu is not finite. Look at its values."
    at = {mu: 1.0, s: 0.0}
    message = fails(mean, samples, mu, at=at, controls={"log": mu + sp.log(s)})
    assert message.startswith("the control 'log' from mu + log(s) is not finite")


@pytest.mark.parametrize("at", [None, {}, {s: 1.0}])
def test_symbols_without_a_value_are_named(at):
    message = fails(mean, exactly(0), mu, at=at, controls={"half": mu / 2})
    assert message.startswith(
        "the expected value cannot be evaluated. The expression has"
    )
    assert "free symbols ['mu']" in message


# --- compare -----------------------------------------------------------------------


def squares(size=5):
    grid = torch.linspace(0.5, 2, size, dtype=F64)
    return grid**2, {t: grid}


def test_a_deterministic_result():
    found, at = squares()
    off = found * (1 + 3e-10)
    evidence = compare(
        off, t**2, at=at, controls={"cube": t**3}, rtol=1e-9, label="sq", seed=3
    )
    check = evidence.check
    assert check["kind"] == "deterministic"
    assert check["error"] == pytest.approx(3e-10, rel=1e-5)
    assert (check["tolerance"], check["n"], check["label"]) == (1e-9, 5, "sq")
    assert check["estimate"] == check["expected"] == "5 values"
    (control,) = evidence.controls
    assert control["distance"] == pytest.approx(4 / 4)
    assert control["margin"] == pytest.approx(1e9, rel=1e-6)


def test_integers_are_compared_exactly():
    at, controls = {n: torch.tensor([1, 2, 3])}, {"one more": n**2 + 1}
    evidence = compare([1, 4, 9], n**2, at=at, rtol=0, controls=controls)
    assert evidence.check["kind"] == "exact" and evidence.check["error"] == 0
    assert evidence.controls[0]["margin"] == "exact"
    message = fails(compare, [1, 4, 8], n**2, at=at, rtol=0, controls=controls)
    assert message == (
        "expected 9 from n**2, found 8: error 0.11 where 0 is required. Look at the "
        "expression, then at the computation."
    )


def test_equal_integers_beyond_float64_are_not_compared():
    big = 2**53
    message = fails(
        compare, big + 1, n, at={n: big}, rtol=0, controls={"twice": 2 * n}
    )  # float64 cannot tell the two apart
    assert message.startswith("equality was asked of integers beyond 2**53")


def test_a_control_equal_to_the_claim_is_not_rejected():
    message = fails(compare, 9, n**2, at={n: 3}, controls={"3n": 3 * n}, rtol=0)
    assert message.startswith(
        "the control '3n' was not rejected: margin = +0.0 where 1.6"
    )


def test_an_error_beyond_the_tolerance_is_named():
    found, at = squares()
    found = found.clone()
    found[2] += 0.04
    message = fails(compare, found, t**2, at=at, controls={"cube": t**3}, rtol=1e-3)
    assert message == (
        "expected 1.5625 from t**2, found 1.6025: error 0.01 where 0.001 is required. "
        "Look at the expression, then at the computation."
    )


@pytest.mark.parametrize("found", [0.1, np.float64(0.1), [0.1], np.array([0.1])])
def test_python_floats_keep_their_digits(found):
    at = {mu: torch.ones(np.shape(found), dtype=F64)}
    assert compare(found, mu / 10, at=at, controls={"fifth": mu / 5}, rtol=1e-15)


@pytest.mark.parametrize(("margin", "rejected"), [(1.5, False), (1.7, True)])
def test_a_control_must_miss_by_eight_fifths_of_the_tolerance(margin, rejected):
    wrong = mu * (1 + sp.Rational(margin) / 1000)
    options = {"at": {mu: 2.0}, "controls": {"off": wrong}, "rtol": 1e-3}
    if rejected:
        evidence = compare(2.0, mu, **options)
        assert evidence.controls[0]["margin"] == pytest.approx(1.7)
    else:
        assert "'off' was not rejected: margin = +1.5 where 1.6 is required" in fails(
            compare, 2.0, mu, **options
        )


def test_data_computed_from_the_control_fail_to_compare():
    grid = torch.linspace(0.5, 2, 5, dtype=F64)
    message = fails(
        compare, grid**3, t**2, at={t: grid}, controls={"cube": t**3}, rtol=1e-9
    )
    assert "error 1 where 1e-09 is required" in message
    assert compare(grid**3, t**3, at={t: grid}, controls={"square": t**2}, rtol=1e-9)


@pytest.mark.parametrize("rtol", [0.011, 1.0, -1e-9, math.nan, math.inf])
def test_a_loose_tolerance_is_refused(rtol):
    message = fails(compare, 1.0, mu, at={mu: 1.0}, controls={"2": 2 * mu}, rtol=rtol)
    assert message == (
        f"rtol must lie in [0, 0.01]; got {rtol}. Rounding wants about 1e-12, "
        "quadrature 1e-8; 0 asks for equality."
    )


def test_a_tolerance_is_wanted():
    with pytest.raises(TypeError, match="rtol"):
        compare(1.0, mu, at={mu: 1.0}, controls={"twice": 2 * mu})


def test_shapes_must_agree():
    found, at = squares()
    message = fails(compare, found[:3], t**2, at=at, controls={"c": t**3}, rtol=1e-9)
    assert message == (
        "what was found has shape (3,), what was expected (5,). Evaluate the "
        "expression at the same points."
    )
    message = fails(
        compare, found, t**2, at=at, controls={"c": sp.Matrix([[t, 1]])}, rtol=1e-9
    )
    assert message.startswith("the control 'c' has shape (5, 1, 2), not (5,).")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_found_must_be_finite(bad):
    found, at = squares()
    found = torch.cat([found[:4], torch.tensor([bad], dtype=F64)])
    message = fails(compare, found, t**2, at=at, controls={"cube": t**3}, rtol=1e-9)
    assert message == "what was found is not finite. Look at the computation."


def test_nothing_is_not_compared():
    empty = torch.zeros(0, dtype=F64)
    message = fails(compare, empty, t, at={t: empty}, controls={"2t": 2 * t}, rtol=0.01)
    assert message == "what was found is empty. Compare at least one number."


@pytest.mark.parametrize("typed", TYPED, ids=lambda v: repr(v)[:40])
def test_compare_refuses_what_is_typed(typed):
    message = fails(compare, 3.0, typed, at={mu: 1.0}, controls={"c": mu}, rtol=0.01)
    assert "was typed, not derived" in message


@pytest.mark.parametrize("controls", [{}, None])
def test_compare_wants_a_control(controls):
    assert "a check needs a control" in fails(
        compare, 1.0, mu, at={mu: 1.0}, controls=controls, rtol=0.01
    )


@pytest.mark.parametrize("factor", [4.1, 5, 0.2, 0, -2.5, 100])
def test_compare_wants_a_control_nearby(factor):
    found, at = squares()
    wild = t**2 * sp.Rational(factor) if factor else t**2 * s
    at |= {s: 0.0}
    message = fails(compare, found, t**2, at=at, controls={"wild": wild}, rtol=1e-9)
    assert "every control is more than a factor 4 off (wild)" in message
    both = {"wild": wild, "double": 2 * t**2}
    assert len(compare(found, t**2, at=at, controls=both, rtol=1e-9).controls) == 2


def test_one_number_is_shown_and_several_are_counted():
    controls = {"cube": mu**3}
    for found, shown in [(4.0, 4.0), ([4.0], 4.0), ([4.0, 9.0], "2 values")]:
        at = {mu: torch.tensor(found, dtype=F64).sqrt()}
        check = compare(found, mu**2, at=at, controls=controls, rtol=1e-12).check
        assert check["estimate"] == check["expected"] == shown


def test_about_zero_a_control_is_near_within_four():
    zero = mu - mu * t
    at = {mu: 1.0, t: 1.0}
    assert compare(0.0, zero, at=at, controls={"3": 3 * mu}, rtol=1e-12)
    assert "Add a nearer one" in fails(
        compare, 0.0, zero, at=at, controls={"5": 5 * mu}, rtol=1e-12
    )


def test_about_zero_the_error_is_absolute():
    zero = mu - mu * t
    at = {mu: 1.0, t: 1.0}
    assert compare(1e-13, zero, at=at, controls={"mu": mu * t}, rtol=1e-12)
    assert "error 1e-11" in fails(
        compare, 1e-11, zero, at=at, controls={"mu": mu * t}, rtol=1e-12
    )


def test_a_matrix_is_compared_entry_by_entry():
    grid = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64)
    G = sp.MatrixSymbol("G", 2, 2)
    assert compare(
        grid @ grid, G * G, at={G: grid}, controls={"G Gᵀ": G * G.T}, rtol=1e-14
    )
    assert "error" in fails(
        compare,
        grid @ grid.T,
        G * G,
        at={G: grid},
        controls={"2": 2 * G * G},
        rtol=1e-14,
    )


# --- order -------------------------------------------------------------------------

h = torch.tensor([0.2, 0.1, 0.05, 0.025], dtype=F64)


def test_the_fitted_order():
    evidence = order(h, torch.sin(h) - h, expected=3, wrong=2, label="sine")
    check = evidence.check
    assert (check["kind"], check["label"], check["n"]) == ("order", "sine", 4)
    assert check["estimate"] == check["order"] == pytest.approx(3, abs=0.01)
    fit = stats.linregress(h.log().numpy(), (h - torch.sin(h)).log().numpy())
    assert check["expected"] == 3
    assert check["estimate"] == pytest.approx(fit.slope, rel=1e-10)
    assert check["stderr"] == pytest.approx(fit.stderr, rel=1e-6)
    (control,) = evidence.controls
    assert control["rejected"] is True
    assert control["name"] == "order 2" and control["distance"] == 1
    assert control["margin"] == pytest.approx(1 / 0.15, rel=0.01)


@pytest.mark.parametrize("power", [1, 2, 3, -1])
def test_exact_powers_have_their_order(power):
    wrong = power + 1
    evidence = order(h, -5 * h**power, expected=power, wrong=wrong)
    assert evidence.check["estimate"] == pytest.approx(power, abs=1e-12)


def test_half_an_order():
    half = sp.Rational(1, 2)
    evidence = order(h, h.sqrt(), expected=half, wrong=1)
    assert evidence.check["expected"] == 0.5
    assert "found 1.000" in fails(order, h, h, expected=half, wrong=1)


def test_a_wrong_order_is_named():
    message = fails(order, h, h**2, expected=1, wrong=2)
    assert message == (
        "expected order 1, found 2.000, off by more than 0.15. Use smaller parameters, "
        "or look for another term."
    )


def test_errors_that_scatter_have_no_order():
    # The slope is 1 by luck; the points are nowhere near a line.
    errors = h * torch.tensor([1.0, 30.0, 0.02, 1.0], dtype=F64)
    slope = np.polyfit(h.log().numpy(), errors.log().numpy(), 1)[0]
    errors = errors * h ** (1 - slope)
    message = fails(order, h, errors, expected=1, wrong=2)
    assert "the fitted order 1.000 has the standard error" in message
    assert "the errors scatter about the line" in message


@pytest.mark.parametrize(
    ("parameter", "errors"),
    [
        ([0.1, 0.05], [0.1, 0.05]),
        ([0.1, 0.05, 0.02], [0.1, 0.05]),
        ([0.1, 0.05, 0.0], [0.1, 0.05, 0.02]),
        ([0.1, 0.05, -0.02], [0.1, 0.05, 0.02]),
        ([0.1, 0.05, 0.02], [0.1, 0.05, 0.0]),
        ([0.1, 0.05, 0.02], [0.1, math.nan, 0.02]),
        ([0.1, 0.05, math.nan], [0.1, 0.05, 0.02]),
        ([0.1, 0.05, 0.02], [0.1, math.inf, 0.02]),
    ],
)
def test_data_that_allow_no_fit(parameter, errors):
    message = fails(order, parameter, errors, expected=1, wrong=2)
    assert message.startswith("an order needs at least three positive parameters with")
    assert "Choose parameters at which the error stands above rounding" in message


def test_equal_parameters_allow_no_fit():
    assert "found nan" in fails(
        order, [0.1, 0.1, 0.1], [0.1, 0.2, 0.3], expected=1, wrong=2
    )


@pytest.mark.parametrize("tolerance", [0, -0.1, 0.26, 1, math.nan])
def test_a_loose_tolerance_of_the_order_is_refused(tolerance):
    message = fails(order, h, h, expected=1, wrong=2, tolerance=tolerance)
    assert message == (
        "tolerance must lie in (0, 0.25] and the wrong order differ from the expected "
        f"one by at most 1; got {tolerance}, 1, 2."
    )


@pytest.mark.parametrize("wrong", [1, 3, -5])
def test_the_wrong_order_is_a_neighbour(wrong):
    assert "by at most 1" in fails(order, h, h, expected=1, wrong=wrong)


@pytest.mark.parametrize("typed", [1.0, 0.5, "1", None, True])
def test_an_order_is_exact(typed):
    message = fails(order, h, h, expected=typed, wrong=2)
    assert message == (
        f"an order is an int or a sympy.Rational; got {typed!r}. Pass "
        "sp.Rational(1, 2) for one half."
    )


def test_a_wrong_order_that_is_too_near_is_not_rejected():
    half = sp.Rational(1, 2)
    message = fails(order, h, h**0.7, expected=half, wrong=1, tolerance=0.25)
    assert message.startswith(
        "the control order 1 was not rejected: the fitted order 0.7"
    )


# --- what is shown -----------------------------------------------------------------


def test_evidence_reads_as_text():
    evidence = mean(exactly(1), mu, at={mu: 1.0}, controls={"2μ": 2 * mu}, label="m")
    assert repr(evidence) == (
        "m: found 1.010 ± 0.010, expected 1, z = +1.00 (n = 100)\n"
        "control 2μ rejected at z = -99.0"
    )
    assert "control 2μ rejected" in evidence._repr_html_()


def test_shorten():
    assert shorten(mu**2) == "mu**2"
    long = shorten(sp.Add(*sp.symbols("x:200")))
    assert len(long) == 300 and long.endswith("...")


def test_the_rules_are_the_rules():
    assert (checks.Z_CLAIM, checks.Z_CONTROL, checks.FAR) == (5, 8, 4)
    assert checks.MIN_SAMPLES >= 30 and checks.MAX_RTOL <= 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_values_may_live_on_a_gpu():
    values = torch.ones(3, dtype=torch.float64, device="cuda")
    controls = {"cube": mu**3 * 2}
    assert compare(values, mu**2, at={mu: values}, controls=controls, rtol=1e-12)


def test_no_effect_is_a_control_beside_a_nearer_one():
    samples = 1 + 0.1 * torch.randn(
        100, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    mu = sp.Symbol("mu", real=True)
    found = mean(samples, mu, at={mu: 1.0}, controls={"none": 0, "twice": 2 * mu})
    assert [c["expression"] for c in found.controls] == ["0", "2*mu"]
    with pytest.raises(CheckError, match="every control is more than a factor 4 off"):
        mean(samples, mu, at={mu: 1.0}, controls={"none": sp.S.Zero})
    two = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = compare(
        two, mu, at={mu: two}, controls={"none": 0, "twice": 2 * mu}, rtol=1e-12
    )
    assert found.controls[0]["rejected"]
