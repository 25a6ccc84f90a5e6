"""Connection and curvature of textbook metrics.

Every component is held against the definition: derivatives by SymPy's `diff`, taken at
a random point in 60 digits, and arrays of numbers from there on.
"""

import functools
import itertools
import random

import mpmath
import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from sgdbook.fields import Field
from sgdbook.geometry import Metric
from tests.metrics import CATALOGUE, R, embedded, f, h, schwarzschild

t, r, theta, phi, x, y, z, u, v = sp.symbols("t r theta phi x y z u v")
M, a, q = sp.symbols("M a q")
DIGITS = 60


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(DIGITS):
        yield


def point(symbols, seed=1):
    rng = random.Random(seed)
    return {s: sp.Rational(rng.randint(11, 29), 20) for s in sorted(symbols, key=str)}


def values(expressions, at):
    """Evaluate a list, an array of any shape or a matrix; return an object array."""
    if not isinstance(expressions, sp.NDimArray | sp.MatrixBase | list):
        return values([expressions], at)[0]
    shape = np.shape(expressions.tolist()) if not isinstance(expressions, list) else -1
    flat = sp.flatten(expressions)
    here = [mpmath.mpf(number.p) / number.q for number in at.values()]
    found = sp.lambdify(list(at), flat, "mpmath")(*here)
    return np.array([mpmath.mpmathify(e) for e in found], dtype=object).reshape(shape)


def close(one, other, scale=1):
    error = np.max(np.abs(np.asarray(one - other, dtype=object)), initial=0)
    size = np.max(np.abs(np.asarray(other, dtype=object)), initial=0)
    return error <= mpmath.mpf(10) ** (15 - DIGITS) * (scale + size)


def definition(matrix, coordinates, at):
    """Return the connection and curvature at a point, by the first definition."""

    def evaluate(*along):
        return values(matrix.applyfunc(lambda e: e.diff(*along) if along else e), at)

    d = len(coordinates)
    G = evaluate()
    inverse = np.array((mpmath.matrix(G.tolist()) ** -1).tolist(), dtype=object)
    slope = np.array([evaluate(c) for c in coordinates])  # [c, i, j]
    bend = np.array([[evaluate(c, e) for e in coordinates] for c in coordinates])

    def lower(slope):  # slope[..., c, i, j] to first[..., k, i, j]
        one = np.moveaxis(slope, -3, -1)  # [..., i, j, c]: i with j = k
        first = np.swapaxes(one, -3, -2)
        return (np.swapaxes(first, -2, -1) + first - slope) / 2

    first = lower(slope)
    gamma = np.einsum("kp,pij->kij", inverse, first)
    turned = -np.einsum("kp,cpq,qm->ckm", inverse, slope, inverse)
    dgamma = np.einsum("ckp,pij->ckij", turned, first)
    dgamma = dgamma + np.einsum("kp,cpij->ckij", inverse, lower(bend))
    twice = np.einsum("kip,pmj->kmij", gamma, gamma)
    up = np.einsum("ikmj->kmij", dgamma) + twice
    up = up - np.swapaxes(up, 2, 3)
    riemann = np.einsum("kp,pmij->kmij", G, up)
    ricci = np.einsum("kmkj->mj", up)
    raised = riemann
    for _ in range(4):  # every index in turn
        raised = np.tensordot(raised, inverse, (0, 0))
    assert riemann.shape == (d,) * 4
    return {
        "inverse": inverse,
        "determinant": mpmath.det(mpmath.matrix(G.tolist())),
        "christoffel_first": first,
        "christoffel": gamma,
        "riemann": riemann,
        "ricci": ricci,
        "scalar_curvature": np.sum(inverse * ricci),
        "kretschmann": np.sum(raised * riemann),
    }


@pytest.mark.parametrize("name", CATALOGUE)
def test_against_the_definition(name):
    entry = CATALOGUE[name]
    metric = Metric(entry.matrix, entry.coordinates)
    matrix = entry.matrix.applyfunc(entry.concrete)
    at = point(matrix.free_symbols | set(entry.coordinates))
    right = definition(matrix, entry.coordinates, at)
    scale = 1 + np.max(np.abs(right["riemann"])) ** 2
    for what, truth in right.items():
        found = getattr(metric, what)
        one = isinstance(found, sp.Expr)
        ours = entry.concrete(found) if one else found.applyfunc(entry.concrete)
        assert np.shape(values(ours, at)) == np.shape(truth)
        assert close(values(ours, at), truth, scale), what


@pytest.mark.parametrize("name", [n for n, e in CATALOGUE.items() if e.known])
def test_against_the_books(name):
    entry = CATALOGUE[name]
    metric = Metric(entry.matrix, entry.coordinates)
    for what, known in entry.known.items():
        found = getattr(metric, what)
        if what == "ricci":
            if known == 0:
                assert found == sp.zeros(*found.shape)
                continue
            d = len(entry.coordinates)
            books = sp.zeros(d) if isinstance(known, dict) else known * entry.matrix
            for key, value in known.items() if isinstance(known, dict) else ():
                books[key] = value
            pairs = list(zip(found, books, strict=True))
        else:
            pairs = [(found, known)]
        for ours, books in pairs:
            if sp.sympify(books).is_Rational:
                assert ours == books
                continue
            ours, books = entry.concrete(ours), entry.concrete(books)
            for seed in (2, 3):
                at = point(ours.free_symbols | books.free_symbols, seed)
                assert close(values(ours, at), values(books, at)), what


@functools.cache
def metric(name):
    return Metric(CATALOGUE[name].matrix, CATALOGUE[name].coordinates)


def vanish(expressions, metric):
    """Return whether expressions are zero, exactly."""
    return not any(Field(list(expressions), metric.coordinates, 0).elements)


def entries(metric):
    return sp.flatten(metric.christoffel.tolist())


def test_answers_are_simplified():
    sphere = metric("sphere").christoffel
    assert sphere[0, 1, 1] == -sp.sin(theta) * sp.cos(theta)
    assert sphere[1, 0, 1] == sphere[1, 1, 0] == sp.cos(theta) / sp.sin(theta)
    gamma = metric("schwarzschild").christoffel
    assert sp.factor(gamma[1, 0, 0] - M * (r - 2 * M) / r**3) == 0
    assert gamma[2, 1, 2] == 1 / r
    assert set(entries(Metric(sp.eye(3), (x, y, z)))) == {0}
    assert sum(map(sp.count_ops, entries(metric("kerr")))) < 1000
    assert metric("schwarzschild").riemann[0, 1, 0, 1] == -2 * M / r**3
    assert metric("helicoid").gaussian_curvature == -1 / (1 + u**2) ** 2
    assert metric("kerr").kretschmann.count_ops() < 100
    assert metric("schwarzschild").determinant == -(r**4) * sp.sin(theta) ** 2


def test_hidden_zeros_are_seen():
    one = sp.sin(x) ** 2 + sp.cos(x) ** 2
    flat = sp.Matrix(
        [[one, sp.sin(2 * x) - 2 * sp.sin(x) * sp.cos(x)], [0, sp.exp(x) * sp.exp(-x)]]
    )
    assert set(entries(Metric(flat, (x, y)))) == {0}
    with pytest.raises(ValueError, match="matrix must be invertible"):
        Metric(sp.Matrix([[one, 1], [1, sp.cosh(x) ** 2 - sp.sinh(x) ** 2]]), (x, y))


def test_kinds_and_shapes():
    line = Metric(sp.Matrix([[x**2]]), [x])
    assert line.riemann.shape == (1,) * 4 and line.riemann[0, 0, 0, 0] == 0
    assert line.scalar_curvature == line.kretschmann == 0
    assert line.laplacian(f(x)).expand() == (
        f(x).diff(x, 2) / x**2 - f(x).diff(x) / x**3
    )
    for found in (line.ricci, line.inverse, line.gradient(x), line.hessian(x)):
        assert isinstance(found, sp.ImmutableMatrix) and found.shape == (1, 1)
    assert line.covariant_derivative(sp.Matrix([x]), "u").shape == (1, 1)
    plane = metric("plane, polar")
    for kind in (list, tuple, sp.Matrix, sp.Array, np.array):
        assert plane.lowered(kind([1, 2])) == sp.Matrix([1, 2 * r**2])
    assert plane.lowered(sp.Matrix([[1, 2]])) == sp.Matrix([1, 2 * r**2])
    assert isinstance(plane.raised([0, 1]), sp.ImmutableMatrix)
    assert plane.covariant_derivative(3, "").tolist() == [0, 0]
    assert repr(plane) == "Metric in (r, phi)"


def test_determinant_with_exchanged_rows():
    assert Metric(sp.Matrix([[0, x], [x, 0]]), [x, y]).determinant == -(x**2)
    turn = sp.Matrix([[0, 0, 1], [0, 2, 0], [1, 0, 5]])
    assert Metric(turn, [x, y, z]).determinant == -2


@pytest.mark.parametrize("name", ["kerr", "Gödel", "four-sphere", "dust", "nil"])
def test_symmetries_of_the_curvature(name):
    rank, curved = metric(name).riemann.shape[0], metric(name).riemann
    for k, m, i, j in itertools.product(range(rank), repeat=4):
        assert curved[k, m, i, j] == -curved[m, k, i, j] == -curved[k, m, j, i]
        assert curved[k, m, i, j] == curved[i, j, k, m]
    cyclic = [
        curved[k, m, i, j] + curved[k, i, j, m] + curved[k, j, m, i]
        for k, m, i, j in itertools.product(range(rank), repeat=4)
        if k < m < i < j
    ]
    assert vanish(cyclic, metric(name))


@pytest.mark.parametrize(
    "name", ["graph", "conformal", "schwarzschild", "friedmann", "pp-wave", "nil"]
)
def test_bianchi(name):
    m = metric(name)
    axes = range(len(m.coordinates))
    slope = m.covariant_derivative(m.riemann, "dddd")
    pairs = list(itertools.combinations(axes, 2))
    triples = list(itertools.combinations(axes, 3))
    assert vanish(
        [
            slope[*pair, i, j, k] + slope[*pair, j, k, i] + slope[*pair, k, i, j]
            for pair in pairs
            for i, j, k in triples
        ]
        or [sp.S(0)],
        m,
    )
    flow = m.covariant_derivative(m.ricci, "dd")  # contracted: div Ricci = dR/2
    assert vanish(
        [
            sum(m.inverse[i, k] * flow[i, j, k] for i in axes for k in axes)
            - m.scalar_curvature.diff(m.coordinates[j]) / 2
            for j in axes
        ],
        m,
    )


@pytest.mark.parametrize("name", ["kerr", "graph", "Einstein-Rosen", "roots"])
def test_the_metric_is_constant(name):
    m = metric(name)
    for tensor, positions in ((m.matrix, "dd"), (m.inverse, "uu")):
        slope = m.covariant_derivative(tensor, positions)
        assert set(sp.flatten(slope.tolist())) == {0}
    unit = m.covariant_derivative(sp.eye(len(m.coordinates)), "ud")
    assert set(sp.flatten(unit.tolist())) == {0}


@pytest.mark.parametrize("name", ["sphere", "half plane", "graph", "schwarzschild"])
def test_second_derivatives_commute_up_to_curvature(name):
    m = metric(name)
    axes = range(len(m.coordinates))
    vector = [sp.Function(f"v{k}")(*m.coordinates[:2]) for k in axes]
    twice = m.covariant_derivative(m.covariant_derivative(vector, "u"), "ud")
    lowered = [
        [
            sum(m.matrix[k, p] * (twice[p, j, i] - twice[p, i, j]) for p in axes)
            - sum(m.riemann[k, p, i, j] * vector[p] for p in axes)
            for k in axes
        ]
        for i, j in itertools.combinations(axes, 2)
    ]
    assert vanish(sp.flatten(lowered), m)


@pytest.mark.parametrize("name", ["torus", "nil", "roots", "Painlevé-Gullstrand"])
def test_operators_against_their_other_forms(name):
    m = metric(name)
    axes, g = range(len(m.coordinates)), f(*m.coordinates[:2]) ** 2
    gradient, second = m.gradient(g), m.hessian(g)
    root = sp.sqrt(m.matrix.det())
    flux = [(root * e).diff(c) for e, c in zip(gradient, m.coordinates, strict=True)]
    at = point(m.matrix.free_symbols | set(m.coordinates))
    made = sp.Lambda(
        m.coordinates[:2], sp.exp(m.coordinates[0]) + m.coordinates[1] ** 3
    )

    def number(expression):
        found = sp.lambdify(list(at), expression.subs(f, made).doit(), "mpmath")
        return found(*(mpmath.mpf(q.p) / q.q for q in at.values()))

    laplacian = number(m.laplacian(g))
    assert close(number(m.divergence(gradient)), laplacian)
    assert close(number(sum(flux) / root), laplacian)
    assert m.lowered(gradient) == sp.Matrix([g]).jacobian(m.coordinates).T
    assert second == second.T
    again = m.covariant_derivative(m.covariant_derivative(g, ""), "d")
    assert again.tomatrix() == second
    velocity = [sp.Symbol(f"v_{k}") for k in axes]
    path = m.geodesic_equation(velocity)
    assert m.raised(m.lowered(velocity)) == sp.Matrix(velocity)
    assert vanish(
        [
            path[k]
            + sum(
                m.christoffel[k, i, j] * velocity[i] * velocity[j]
                for i in axes
                for j in axes
            )
            for k in axes
        ],
        m,
    )


def test_eigenfunctions():
    sphere, polar = metric("sphere"), metric("plane, polar")
    harmonic = sp.sin(theta) ** 3 * sp.cos(theta) * sp.cos(3 * phi)  # l = 4
    assert vanish([sphere.laplacian(harmonic) + 20 * harmonic], sphere)
    drum = sp.besselj(3, q * r) * sp.cos(3 * phi)
    assert vanish([polar.laplacian(drum) + q**2 * drum], polar)
    assert polar.hessian(r * sp.cos(phi)) == sp.zeros(2)
    assert polar.gradient(f(r) + phi) == sp.Matrix([f(r).diff(r), 1 / r**2])
    turn = sphere.covariant_derivative(
        sphere.lowered([sp.sin(phi), sp.cos(phi) * sp.cot(theta)]), "d"
    ).tomatrix()
    assert turn + turn.T == sp.zeros(2)  # a rotation is Killing's


def test_density_of_dust():
    m = metric("dust")
    mass = R(t, r) * (R(t, r).diff(t) ** 2 - h(r))
    density = mass.diff(r) / (R(t, r) ** 2 * R(t, r).diff(r))
    assert vanish([m.ricci[0, 0] + m.scalar_curvature / 2 - density], m)


def test_conformal_factor_in_four_dimensions():
    """Wald, General Relativity, equation (D.9), from flat space."""
    scale = sp.exp(2 * f(t, x))
    m = Metric(scale * sp.diag(-1, 1, 1, 1), (t, x, y, z))
    wave = f(t, x).diff(x, 2) - f(t, x).diff(t, 2)
    square = f(t, x).diff(x) ** 2 - f(t, x).diff(t) ** 2
    assert vanish([m.scalar_curvature + 6 * (wave + square) / scale], m)


small = st.integers(-3, 3)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(*[st.lists(small, min_size=4, max_size=4)] * 2)
def test_graphs_in_any_coordinates(weights, turn):
    """Gauss's formula, and the same curvature in coordinates that are bent."""
    height = sp.Matrix(weights).dot([x**2, x * y, y**2, x * y**2])
    K = Metric(*embedded(x, y, height, by=(x, y))).gaussian_curvature
    slopes = sp.Matrix([height]).jacobian([x, y])
    gauss = sp.hessian(height, (x, y)).det() / (1 + slopes.dot(slopes)) ** 2
    assert sp.cancel(K - gauss) == 0
    new = {x: 2 * u + turn[0] * v + turn[1] * v**2, y: v + turn[2] * u**2 + turn[3]}
    bent = Metric(*embedded(*(e.subs(new, simultaneous=True) for e in (x, y, height))))
    here = {u: sp.Rational(2, 7), v: -sp.Rational(3, 5)}
    there = {old: e.subs(here) for old, e in new.items()}
    assert bent.gaussian_curvature.subs(here) == K.subs(there)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(small, small, st.integers(1, 3))
def test_products_and_scale(one, other, scale):
    """Curvatures add up in a product; scalars fall with the scale."""
    left = sp.diag(1, (1 + one * x + x**2) ** 2)
    right = sp.eye(2) * (1 + other * u * v) ** 2
    both = Metric(scale * sp.diag(left, right), (x, y, u, v))
    parts = Metric(left, (x, y)), Metric(right, (u, v))
    together = sum(p.scalar_curvature for p in parts) / scale
    assert sp.cancel(both.scalar_curvature - together) == 0
    together = sum(p.kretschmann for p in parts) / scale**2
    assert sp.cancel(both.kretschmann - together) == 0


def test_plain_symbols_and_assumed_ones():
    """The root of x² is not x unless x is said to be positive."""
    plain = Metric(sp.diag(1, sp.sqrt(x**2)), (x, y))
    assert plain.gaussian_curvature == 1 / (4 * x**2)
    assert plain.lowered([0, 1])[1] == sp.sqrt(x**2)
    s = sp.Symbol("x", positive=True)
    assert Metric(sp.diag(1, sp.sqrt(s**2)), (s, y)).lowered([0, 1])[1] == s
    twins = Metric(sp.diag(1, x**2 + s), (x, y))  # two symbols of one name
    assert vanish([twins.gaussian_curvature + s / (x**2 + s) ** 2], twins)
    with pytest.raises(
        ZeroDivisionError, match="may be zero: its square roots are rel"
    ):
        Metric(sp.diag(1, x + sp.sqrt(x**2)), (x, y))


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
        ((sp.diag(1, sp.oo), (x, y)), ValueError, "matrix must be finite"),
        ((sp.diag(1, -sp.oo), (x, y)), ValueError, "matrix must be finite"),
        ((sp.diag(1, sp.Float(0.5)), (x, y)), TypeError, "0.5.* is rounded"),
        ((sp.diag(1, f(x + 0.5)), (x, y)), TypeError, "0.5.* is rounded"),
        ((sp.zeros(2), (x, y)), ValueError, "singular everywhere"),
    ],
)
def test_the_door(arguments, error, text):
    with pytest.raises(error, match=text):
        Metric(*arguments)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (
            lambda m: m.gradient("x"),
            TypeError,
            "f must hold SymPy expressions; got str",
        ),
        (
            lambda m: m.hessian(True),
            TypeError,
            "f must hold SymPy expressions; got bool",
        ),
        (lambda m: m.laplacian(sp.eye(2)), TypeError, "f must hold SymPy expressions"),
        (lambda m: m.gradient(sp.zoo * x), ValueError, "f must be finite; it holds"),
        (lambda m: m.gradient(float("inf")), ValueError, "f must be finite; it holds"),
        (lambda m: m.laplacian(x / 2.0), TypeError, "0.5.* is rounded"),
        (lambda m: m.hessian(0.25), TypeError, "0.25.* is rounded"),
        (
            lambda m: m.raised([x]),
            ValueError,
            "covector must have 2 entries along each of its axes.*; got 1",
        ),
        (
            lambda m: m.lowered(x),
            ValueError,
            "vector must have 2 entries.*; got Symbol",
        ),
        (lambda m: m.divergence([1, 2, 3]), ValueError, "vector must have 2.*; got 3"),
        (lambda m: m.divergence("xy"), ValueError, "vector must have 2.*; got str"),
        (lambda m: m.divergence(sp.eye(2)), TypeError, "vector must hold .*; got list"),
        (lambda m: m.geodesic_equation([x]), ValueError, "velocities must have 2"),
        (lambda m: m.geodesic_equation([1, None]), TypeError, "velocities .* NoneType"),
        (
            lambda m: m.covariant_derivative([1, 2], "x"),
            ValueError,
            "positions must hold the letter 'u' or 'd' for each index.*got 'x'",
        ),
        (lambda m: m.covariant_derivative([1, 2], ["u"]), ValueError, "positions must"),
        (
            lambda m: m.covariant_derivative([1, 2], "ud"),
            ValueError,
            "components must have 2 entries along each of its axes.*; got int",
        ),
        (
            lambda m: m.covariant_derivative([[1, 2], [3]], "ud"),
            ValueError,
            "components must have 2 entries along each of its axes.*; got 1",
        ),
        (lambda m: m.covariant_derivative(sp.eye(3), "uu"), ValueError, "2 .*; got 3"),
        (
            lambda m: m.covariant_derivative([1, sp.nan], "u"),
            ValueError,
            "must be finite",
        ),
    ],
)
def test_the_inner_doors(call, error, text):
    with pytest.raises(error, match=text):
        call(metric("sphere"))


def test_gaussian_curvature_is_of_surfaces():
    with pytest.raises(ValueError, match=r"with 2 coordinates; the metric has 4\. "):
        Metric(*schwarzschild()).gaussian_curvature  # noqa: B018
