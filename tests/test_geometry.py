"""Christoffel symbols of textbook metrics, against the definition at random points."""

import random

import pytest
import sympy as sp

from sgdbook.geometry import Metric

t, r, theta, phi, x, y, z, u, v = sp.symbols("t r theta phi x y z u v")
M, a, q = sp.symbols("M a q")
n = sp.Symbol("n")
f = sp.Function("f")


def kerr():
    s, d = r**2 + a**2 * sp.cos(theta) ** 2, r**2 - 2 * M * r + a**2
    sine = sp.sin(theta) ** 2
    g = sp.diag(2 * M * r / s - 1, s / d, s, 0)
    g[0, 3] = g[3, 0] = -2 * M * a * r * sine / s
    g[3, 3] = (r**2 + a**2 + 2 * M * a**2 * r * sine / s) * sine
    return g, (t, r, theta, phi)


def schwarzschild():
    h = 1 - 2 * M / r
    return sp.diag(-h, 1 / h, r**2, r**2 * sp.sin(theta) ** 2), (t, r, theta, phi)


def embedded(*surface):
    """The metric of a surface in space, in coordinates u, v."""
    slopes = sp.Matrix(surface).jacobian([u, v])
    return slopes.T * slopes, (u, v)


def network(samples):
    """I + eps D of the two-parameter tanh network on some samples."""
    w_1, w_2, eps = sp.symbols("w_1 w_2 epsilon")
    losses = [(w_2 * sp.tanh(w_1 * s) - target) ** 2 / 2 for s, target in samples]
    J = sp.Matrix(losses).jacobian([w_1, w_2])
    N = len(losses)
    mean = sp.ones(1, N) * J / N
    return sp.eye(2) + eps * (J.T * J / N - mean.T * mean), (w_1, w_2)


CATALOGUE = {
    "plane, polar": (sp.diag(1, r**2), (r, phi)),
    "sphere": (sp.diag(1, sp.sin(theta) ** 2), (theta, phi)),
    "half plane": (sp.eye(2) / y**2, (x, y)),
    "hyperbolic, polar": (sp.diag(1, sp.sinh(r) ** 2), (r, phi)),
    "torus": embedded(
        (3 + sp.cos(v)) * sp.cos(u), (3 + sp.cos(v)) * sp.sin(u), sp.sin(v)
    ),
    "helicoid": embedded(u * sp.cos(v), u * sp.sin(v), v),
    "catenoid": embedded(sp.cosh(v) * sp.cos(u), sp.cosh(v) * sp.sin(u), v),
    "paraboloid": embedded(u, v, u**2 + v**2),
    "pseudosphere": embedded(
        sp.cos(u) / sp.cosh(v), sp.sin(u) / sp.cosh(v), v - sp.tanh(v)
    ),
    "schwarzschild": schwarzschild(),
    "kerr": kerr(),
    "de sitter": (sp.diag(-1, *[sp.exp(2 * q * t)] * 3), (t, x, y, z)),
    "friedmann": (sp.diag(-1, *[f(t) ** 2] * 3), (t, x, y, z)),
    "half angles": (
        sp.Matrix(
            [
                [2 + sp.cos(x), sp.sin(x / 2) * sp.sin(3 * y)],
                [sp.sin(x / 2) * sp.sin(3 * y), 3 + sp.cos(y) + sp.tan(x) ** 2],
            ]
        ),
        (x, y),
    ),
    "sum of angles": (sp.diag(2 + sp.sin(x + 2 * y), 2 + sp.cos(x - y)), (x, y)),
    "exponentials": (
        sp.Matrix([[sp.exp(x + y) + 3, sp.sinh(x)], [sp.sinh(x), sp.exp(-2 * x) + 4]]),
        (x, y),
    ),
    "roots": (sp.diag(sp.sqrt(x**2 + y**2), 1 + sp.sqrt(x)), (x, y)),
    "powers": (sp.diag(x**n, y ** sp.Rational(1, 3)), (x, y)),
    "special functions": (sp.diag(sp.erf(x) + 2, sp.besselj(0, y) + 3), (x, y)),
    "logarithm": (sp.diag(1 + sp.log(x) ** 2, 2 + sp.atan(x * y)), (x, y)),
    "constants": (sp.diag(sp.pi + sp.sqrt(2) * x**2, 1 + sp.sin(1) * y**2), (x, y)),
    "tanh alone": (sp.diag(2 + sp.tanh(x + 2 * y), 2 + sp.tanh(x)), (x, y)),
    "tanh network": network([(1, sp.Rational(1, 2)), (-sp.Rational(1, 2), 1)]),
}


@pytest.mark.parametrize("name", CATALOGUE)
def test_against_the_definition(name):
    matrix, coordinates = CATALOGUE[name]
    metric = Metric(matrix, coordinates)
    d = len(coordinates)
    concrete = {f(t): t**3 + 1}
    rng = random.Random(1)
    at = {
        s: sp.Rational(rng.randint(11, 29), 20)
        for s in sorted(matrix.free_symbols | set(coordinates), key=str)
    }

    def value(expression):
        for old, new in concrete.items():
            expression = expression.subs(old, new)
        return sp.N(expression.doit().subs(at), 30)

    here = matrix.applyfunc(value)
    inverse = here.inv()
    slope = [
        [[value(matrix[i, j].diff(c)) for c in coordinates] for j in range(d)]
        for i in range(d)
    ]
    for i in range(d):
        for j in range(d):
            first = [
                (slope[j][m][i] + slope[i][m][j] - slope[i][j][m]) / 2 for m in range(d)
            ]
            for k in range(d):
                assert abs(value(metric.christoffel_first[k, i, j]) - first[k]) < 1e-20
                second = sum(inverse[k, m] * first[m] for m in range(d))
                assert abs(value(metric.christoffel[k, i, j]) - second) < 1e-20
            assert abs(value(metric.inverse[i, j]) - inverse[i, j]) < 1e-20


def entries(metric):
    return sp.flatten(metric.christoffel.tolist())


def test_answers_are_simplified():
    sphere = Metric(*CATALOGUE["sphere"]).christoffel
    assert sphere[0, 1, 1] == -sp.sin(theta) * sp.cos(theta)
    assert sphere[1, 0, 1] == sphere[1, 1, 0] == sp.cos(theta) / sp.sin(theta)
    gamma = Metric(*schwarzschild()).christoffel
    assert sp.factor(gamma[1, 0, 0] - M * (r - 2 * M) / r**3) == 0
    assert gamma[2, 1, 2] == 1 / r
    assert set(entries(Metric(sp.eye(3), (x, y, z)))) == {0}
    assert sum(map(sp.count_ops, entries(Metric(*kerr())))) < 1000


def test_hidden_zeros_are_seen():
    one = sp.sin(x) ** 2 + sp.cos(x) ** 2
    flat = sp.Matrix(
        [[one, sp.sin(2 * x) - 2 * sp.sin(x) * sp.cos(x)], [0, sp.exp(x) * sp.exp(-x)]]
    )
    assert set(entries(Metric(flat, (x, y)))) == {0}
    with pytest.raises(ValueError, match="matrix must be invertible"):
        Metric(sp.Matrix([[one, 1], [1, sp.cosh(x) ** 2 - sp.sinh(x) ** 2]]), (x, y))


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        (
            ([[1, 0], [0, 1]], (x, y)),
            TypeError,
            "matrix must be a SymPy matrix; got list",
        ),
        ((sp.eye(3), (x, y)), ValueError, r"matrix must have shape \(2, 2\)"),
        (
            (sp.Matrix([[1, x], [y, 1]]), (x, y)),
            ValueError,
            r"entries \(1, 0\) and \(0, 1\) differ",
        ),
        ((sp.eye(2), (x, x)), ValueError, "coordinates must differ"),
        ((sp.eye(1), (x**2,)), TypeError, "coordinates must be SymPy symbols"),
        ((sp.eye(0), ()), TypeError, "coordinates must be SymPy symbols"),
        ((sp.diag(1, sp.nan), (x, y)), ValueError, "matrix must be finite"),
        ((sp.diag(1, sp.Float(0.5)), (x, y)), TypeError, "0.5.* is rounded"),
        ((sp.zeros(2), (x, y)), ValueError, "singular everywhere"),
    ],
)
def test_the_door(arguments, error, text):
    with pytest.raises(error, match=text):
        Metric(*arguments)
