"""The differential field: faithful, canonical, and closed under differentiation."""

import mpmath as mp
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from sgdbook.fields import Field

x, y, a = sp.symbols("x y a", positive=True)
AT = {x: sp.Rational(7, 10), y: sp.Rational(13, 11), a: sp.Rational(3, 5)}
f = sp.Function("f")

atoms = st.sampled_from(
    [
        x,
        y,
        a,
        sp.Integer(2),
        sp.Rational(-1, 3),
        sp.sin(x),
        sp.cos(2 * x),
        sp.cos(x - y / 2),
        sp.exp(-x / 2),
        sp.exp(x + y),
        sp.sqrt(1 + x**2),
        sp.sqrt(y),
        sp.sqrt(2 + sp.sqrt(y)),
        sp.sqrt(2 + sp.sin(x)),
        sp.sqrt(1 + a / x),
        sp.log(y),
        sp.tan(y),
        sp.cosh(a * x),
        x ** sp.Rational(2, 3),
        x**a,
    ]
)
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda t: t[0] + t[1]),
        st.tuples(inner, inner).map(lambda t: t[0] * t[1]),
        st.tuples(inner, inner).map(lambda t: t[0] / (3 + t[1] ** 2)),
    ),
    max_leaves=5,
)


def number(expression):
    """Evaluate with 40 digits; not by evalf, which digs for ever at a hidden zero."""
    with mp.workdps(40):
        values = [mp.mpf(q.p) / q.q for q in AT.values()]
        return mp.mpmathify(sp.lambdify(list(AT), expression, "mpmath")(*values))


def close(one, other):
    one, other = number(one), number(other)
    return abs(one - other) <= 1e-25 * (1 + abs(other))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(expressions)
def test_faithful_and_closed(expression):
    F = Field([expression], [x, y])
    (element,) = F.elements
    assert close(F.expression(element), expression)
    for n, v in enumerate((x, y)):
        slope = F.expression(F.differentiate(element, n))
        assert close(slope, expression.diff(v))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(expressions, expressions)
def test_arithmetic(one, other):
    F = Field([one, other], [x, y])
    p, q = F.elements
    assert close(F.expression(F.add(p, q, sp.QQ(-2, 3))), one - other * 2 / 3)
    product = F.multiply(p, q)
    assert close(F.expression(product), one * other)
    if q:
        again = F.multiply(product, F.invert(q))
        assert not F.add(again, p, -1)


@pytest.mark.parametrize(
    "zero",
    [
        sp.sin(x) ** 2 + sp.cos(x) ** 2 - 1,
        sp.sin(3 * x) - 3 * sp.sin(x) + 4 * sp.sin(x) ** 3,
        sp.cos(x + y) - sp.cos(x) * sp.cos(y) + sp.sin(x) * sp.sin(y),
        sp.tan(x) * sp.cot(x) - 1,
        sp.sec(x) ** 2 - sp.tan(x) ** 2 - 1,
        sp.cosh(x) ** 2 - sp.sinh(x) ** 2 - 1,
        sp.tanh(2 * x) - 2 * sp.tanh(x) / (1 + sp.tanh(x) ** 2),
        sp.tanh(x) - sp.sinh(x) / sp.cosh(x),
        sp.tanh(x) - (sp.exp(2 * x) - 1) / (sp.exp(2 * x) + 1),
        sp.exp(x + y) - sp.exp(x) * sp.exp(y),
        sp.exp(x / 2) ** 2 - sp.exp(x),
        1 / (1 + sp.sqrt(x)) - (sp.sqrt(x) - 1) / (x - 1),
        sp.sqrt(2) ** 3 - 2 * sp.sqrt(2) + 0 * x,
        sp.I**2 + 1 + x - x,
        f(x) * f(y) - f(y) * f(x),
        sp.sqrt(1 + sp.sqrt(x)) ** 4 - 1 - 2 * sp.sqrt(x) - x,
        1 / sp.sqrt(2 + sp.sin(x)) ** 2 - (2 - sp.sin(x)) / (3 + sp.cos(x) ** 2),
        sp.sqrt(1 - a / x) ** 2 - 1 + a / x,
        1 / (sp.sqrt(y) + sp.sqrt(2 + sp.sqrt(y)))
        - (sp.sqrt(y) - sp.sqrt(2 + sp.sqrt(y))) / (y - 2 - sp.sqrt(y)),
        x * sp.besselj(2, x) - 2 * sp.besselj(1, x) + x * sp.besselj(0, x),
        sp.gamma(x + 1) - x * sp.gamma(x),
    ],
)
def test_zeros_are_recognised(zero):
    assert Field([zero, x * zero], [x, y]).elements == [{}, {}]


def test_jets_of_undetermined_functions():
    F = Field([f(x) ** 2], [x], order=2)
    (square,) = F.elements
    first = F.differentiate(square, 0)
    assert F.expression(first) == 2 * f(x) * f(x).diff(x)
    second = F.expression(F.differentiate(first, 0))
    assert sp.expand(second - (f(x) ** 2).diff(x, 2)) == 0


def test_derivatives_of_functions_that_breed_new_ones():
    F = Field([sp.besselj(1, x) + sp.erf(x)], [x], order=2)
    (element,) = F.elements
    twice = F.expression(F.differentiate(F.differentiate(element, 0), 0))
    assert close(twice, (sp.besselj(1, x) + sp.erf(x)).diff(x, 2))


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(
    "outer, inner",
    [
        (sp.exp(sp.besselj(0, x)), sp.besselj(1, x)),
        (sp.exp(sp.sin(x)), sp.cos(x)),
        (sp.log(2 + f(x)), f(x).diff(x)),
    ],
)
def test_derivatives_of_functions_met_first_inside_others(outer, inner, order):
    """The inner one comes up at a lower order, and must be known at the full one."""
    F = Field([outer, inner], [x], order)
    for value, wanted in zip(F.elements, (outer, inner), strict=True):
        for _ in range(order):
            value = F.differentiate(value, 0)
        difference = F.expression(value) - wanted.diff(x, order)
        assert Field([difference], [x]).elements == [{}]


def test_bessel_functions_close():
    equation = x**2 * sp.besselj(3, x).diff(x, 2) + x * sp.besselj(3, x).diff(x)
    assert Field([equation + (x**2 - 9) * sp.besselj(3, x)], [x]).elements == [{}]


def test_high_degrees_are_split_by_multiplicity():
    one, other = 1 + x**11 + a, 2 + y**13
    F = Field([sp.expand(one * other), sp.expand((one * other) ** 2)], [x, y])
    low, high = F.elements
    assert F.expression(low) == one * other
    assert F.expression(high) == sp.expand(one * other) ** 2


def test_constants():
    F = Field([2, sp.Rational(1, 3)], [x])
    assert F.expression(F.multiply(*F.elements)) == sp.Rational(2, 3)
    assert F.differentiate(F.elements[0], 0) == {}


def test_expressions_come_back_short():
    F = Field([sp.sin(x) * sp.cos(x), 1 - sp.cos(x) ** 2], [x])
    quotient = F.multiply(F.elements[0], F.invert(F.elements[1]))
    assert F.expression(quotient) == sp.cos(x) / sp.sin(x)


def test_the_door():
    with pytest.raises(TypeError, match=r"0.5.* is rounded. Use sp.Rational"):
        Field([sp.Float(0.5) * x], [x])
    with pytest.raises(TypeError, match=r"0.5.* is rounded"):
        Field([f(x + sp.Float(0.5))], [x])
    root = sp.sqrt(sp.Symbol("p") ** 2)
    F = Field([root - sp.Symbol("p")], [x])
    with pytest.raises(ZeroDivisionError, match="may be zero: its square roots are re"):
        F.invert(F.elements[0])
    with pytest.raises(ZeroDivisionError, match="zero has no inverse"):
        Field([x], [x]).invert({})
    with pytest.raises(ZeroDivisionError, match="divides by a hidden zero"):
        Field([1 / ((x + 1) ** 2 - x**2 - 2 * x - 1)], [x])
