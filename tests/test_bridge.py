"""The bridge from SymPy to torch."""

import math

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sgdbook.bridge import evaluate, to_torch

F64 = torch.float64
x, y = sp.symbols("x y", real=True)
i, j, k, n, N = sp.symbols("i j k n N", integer=True)
a, c = sp.IndexedBase("a"), sp.IndexedBase("c")


def vector(*entries):
    return torch.tensor(entries, dtype=F64)


def near(found, expected, rtol=1e-13, atol=1e-14):
    expected = torch.as_tensor(np.asarray(expected, dtype=float))
    assert found.shape == expected.shape
    return torch.allclose(found, expected, rtol=rtol, atol=atol)


# --- scalar functions --------------------------------------------------------------

TABLE = [
    (sp.exp(-(x**2)), lambda x: mpmath.exp(-x * x)),
    (sp.log(x), mpmath.log),
    (sp.log(x, 10), mpmath.log10),
    (sp.sqrt(x), mpmath.sqrt),
    (1 / sp.sqrt(x), lambda x: 1 / mpmath.sqrt(x)),
    (sp.cbrt(x), mpmath.cbrt),
    (x ** sp.Rational(7, 3), lambda x: x ** (mpmath.mpf(7) / 3)),
    (x**-3, lambda x: x**-3),
    (x**sp.pi, lambda x: x**mpmath.pi),
    (2**x, lambda x: 2**x),
    (sp.sin(x), mpmath.sin),
    (sp.cos(x), mpmath.cos),
    (sp.tan(x), mpmath.tan),
    (sp.asin(x / 4), lambda x: mpmath.asin(x / 4)),
    (sp.acos(x / 4), lambda x: mpmath.acos(x / 4)),
    (sp.atan(x), mpmath.atan),
    (sp.atan2(x, -1), lambda x: mpmath.atan2(x, -1)),
    (sp.sinh(x), mpmath.sinh),
    (sp.cosh(x), mpmath.cosh),
    (sp.tanh(x), mpmath.tanh),
    (sp.asinh(x), mpmath.asinh),
    (sp.acosh(1 + x), lambda x: mpmath.acosh(1 + x)),
    (sp.atanh(x / 4), lambda x: mpmath.atanh(x / 4)),
    (sp.erf(x), mpmath.erf),
    (sp.loggamma(x), mpmath.loggamma),
    (sp.digamma(x), mpmath.digamma),
    (sp.Abs(1 - x), lambda x: abs(1 - x)),
    (sp.sign(1 - x), lambda x: mpmath.sign(1 - x)),
    (sp.floor(x), mpmath.floor),
    (sp.ceiling(x), mpmath.ceil),
    (sp.Mod(x, 1), lambda x: x % 1),
    (sp.Max(x, 1, 2), lambda x: max(x, 1, 2)),
    (sp.Min(x, sp.sqrt(x), 2), lambda x: min(x, mpmath.sqrt(x), 2)),
    (sp.Heaviside(x - 1), lambda x: (mpmath.sign(x - 1) + 1) / 2),
    (sp.Heaviside(x - 1, 1), lambda x: mpmath.mpf(x >= 1)),
    (sp.pi * x + sp.E, lambda x: mpmath.pi * x + mpmath.e),
    (sp.EulerGamma * x, lambda x: mpmath.euler * x),
    (sp.Rational(1, 3) * x, lambda x: x / 3),
    (sp.diff(sp.log(1 + x**2), x, 2), lambda x: 2 * (1 - x * x) / (1 + x * x) ** 2),
]


@pytest.mark.parametrize(("expr", "truth"), TABLE, ids=[str(e) for e, _ in TABLE])
def test_functions_agree_with_mpmath(expr, truth):
    points = [0.25, 1.0, 1.5, 2.75, 3.5]
    with mpmath.workdps(30):
        expected = [float(truth(mpmath.mpf(p))) for p in points]
    assert near(evaluate(expr, {x: vector(*points)}), expected)
    assert near(evaluate(expr, {x: points[3]}), expected[3])


def test_piecewise():
    expr = sp.Piecewise((x**2, x < 0), (sp.sin(x), sp.And(x >= 1, x < 2)), (-x, True))
    points = [-2.0, 0.0, 0.5, 1.0, 1.5, 2.0]
    expected = [4, 0, -0.5, math.sin(1), math.sin(1.5), -2]
    assert near(evaluate(expr, {x: vector(*points)}), expected)


def test_conditions():
    points = {x: vector(-1.0, 0.0, 1.0, 2.0), y: vector(0.0, 1.0)[:, None]}
    X, Y = torch.broadcast_tensors(points[x], points[y])
    for condition, truth in [
        (sp.Or(x > 1, y < x), (X > 1) | (Y < X)),
        (sp.Not(sp.And(x > 0, y > 0)), ~((X > 0) & (Y > 0))),
        (sp.Eq(x, y), X == Y),
        (sp.Ne(x, y), X != Y),
        (sp.Gt(0, x, evaluate=False), X < 0),
    ]:
        expr = sp.Piecewise((1, condition), (2, True))
        expected = torch.where(truth, 1.0, 2.0)
        assert torch.equal(evaluate(expr, points).float(), expected)


def test_a_piecewise_without_a_branch_is_nan():
    value = evaluate(sp.Piecewise((x, x > 0)), {x: vector(-1.0, 2.0)})
    assert value.isnan().tolist() == [True, False]


def test_infinity_and_nan_pass():
    assert evaluate(sp.oo * sp.sign(x), {x: vector(-2.0, 2.0)}).tolist() == [
        -math.inf,
        math.inf,
    ]
    assert evaluate(sp.nan * x, {x: 1.0}).isnan()


rationals = st.fractions(-3, 3, max_denominator=7).map(
    lambda q: sp.Rational(q.numerator, q.denominator)
)
expressions = st.recursive(
    st.one_of(st.sampled_from([x, y]), rationals),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda t: t[0] + t[1]),
        st.tuples(inner, inner).map(lambda t: t[0] * t[1]),
        st.tuples(inner, inner).map(lambda t: t[0] / (1 + t[1] ** 2)),
        st.tuples(inner, st.integers(2, 3)).map(lambda t: t[0] ** t[1]),
    ),
    max_leaves=8,
)
points = st.floats(-2, 2).filter(lambda v: v == 0 or abs(v) > 1e-3)


@settings(max_examples=80, deadline=None)
@given(expressions, points, points)
def test_rational_expressions_agree_with_evalf(expr, p, q):
    at = {x: sp.Rational(p), y: sp.Rational(q)}
    exact = expr.subs(at)
    assume(abs(exact) < 10**6)
    # Cancellation costs digits of the largest term, not of the sum.
    size = sum(abs(term.subs(at)) for term in sp.Add.make_args(sp.expand(expr)))
    value = evaluate(expr, {x: p, y: q})
    assert value.dtype == F64 and value.shape == ()
    assert abs(value.item() - float(exact.evalf(30))) <= 1e-12 * float(1 + size)


@pytest.mark.parametrize(
    "expr, truth",
    [
        (x ** (y + 1), 27.0),
        (x ** (-y - 1), 1 / 27),
        (x ** (2 * y), 81.0),
        (x ** (y / 2), 3.0),
        (2 ** (-y), 0.25),
        ((1 + x) ** (-y / 2), 0.25),
    ],
)
def test_the_whole_exponent_is_meant(expr, truth):
    assert evaluate(expr, {x: 3.0, y: 2.0}).item() == pytest.approx(truth)


# --- shapes, dtypes, devices -------------------------------------------------------


def test_scalars_broadcast():
    value = evaluate(x + 10 * y, {x: vector(1, 2), y: vector(3, 4, 5)[:, None]})
    assert value.tolist() == [[31, 32], [41, 42], [51, 52]]


@pytest.mark.parametrize("expr", [sp.Integer(3), sp.pi, y, sp.Sum(k, (k, 1, 3)), x - x])
def test_constants_take_the_shape_of_the_arguments(expr):
    value = evaluate(expr, {x: torch.zeros(4, 2, dtype=F64), y: 1.0})
    assert value.shape == (4, 2)
    assert bool((value == float(expr.subs(y, 1).doit())).all())


def test_float32():
    value = evaluate(x / 3 + sp.pi, {x: vector(1.0)}, dtype=torch.float32)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(1 / 3 + math.pi, rel=1e-7)
    body = sp.Sum(sp.sin(k) * a[k], (k, 1, N)) + sp.Piecewise((1, x > 0), (0, True))
    at = {a: torch.ones(3), N: 3, x: torch.ones(2)}
    assert evaluate(body, at, dtype=torch.float32).dtype == torch.float32
    assert evaluate(body, at).dtype == F64


def test_an_index_is_as_precise_as_the_result():
    plain = sp.Symbol("q")  # an index need not be declared integer
    for index in (k, plain):
        total = sp.Sum(sp.sin(index) / 3 + index / sp.Integer(7), (index, 1, N))
        exact = sum(math.sin(v) / 3 + v / 7 for v in range(1, 8))
        assert abs(evaluate(total, {N: 7}).item() - exact) < 1e-14


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    total = sp.Sum(a[i] * a[j] * x, (i, 1, j - 1), (j, 1, N))
    values = torch.arange(1.0, 6.0, dtype=F64)
    at = {a: values, N: 5, x: vector(1.0, 2.0)}
    expected = evaluate(total, at)
    moved = {s: v.cuda() if isinstance(v, torch.Tensor) else v for s, v in at.items()}
    found = evaluate(total, moved)
    assert found.is_cuda
    assert torch.allclose(found.cpu(), expected, rtol=1e-14)
    with pytest.raises(ValueError, match="a lives on cpu, the function was compiled"):
        evaluate(total, at, device="cuda")


def test_tensors_of_another_device_are_refused():
    elsewhere = torch.zeros(3, dtype=F64, device="meta")
    message = (
        "lives on meta, the function was compiled for cpu. Move it with "
        r".to\('cpu'\) or compile for its device"
    )
    with pytest.raises(ValueError, match="x " + message):
        evaluate(x + 1, {x: elsewhere}, device="cpu")
    with pytest.raises(ValueError, match="a " + message):
        evaluate(a[1], {a: elsewhere}, device="cpu")
    with pytest.raises(ValueError, match="n " + message):
        evaluate(n + 1, {n: elsewhere.long()}, device="cpu")


def test_evaluation_follows_the_tensors():
    elsewhere = torch.zeros(3, dtype=F64, device="meta")
    assert evaluate(x * y, {y: 2.0, x: elsewhere}).device.type == "meta"


def test_gradients_flow_through():
    expr = sp.exp(-(x**2)) * sp.sin(3 * x)
    expr += sp.Piecewise((x**3, x > 1), (sp.tanh(x), True))
    expr += sp.Max(x, sp.Rational(1, 2)) + sp.sqrt(1 + x**2)
    points = vector(-1.5, 0.3, 0.8, 1.7).requires_grad_()
    (slope,) = torch.autograd.grad(to_torch(expr, [x])(points).sum(), points)
    assert torch.allclose(slope, evaluate(expr.diff(x).doit(), {x: points.detach()}))


def test_gradients_flow_through_sums_and_entries():
    values = vector(1.0, -2.0, 0.5, 3.0).requires_grad_()
    pairs = sp.Sum((a[i] - a[j]) ** 2, (i, 1, j - 1), (j, 1, N)) / N**2
    (slope,) = torch.autograd.grad(evaluate(pairs, {a: values, N: 4}), values)
    expected = 2 * (values - values.mean()) / 4
    assert torch.allclose(slope, expected.detach())


# --- matrices ----------------------------------------------------------------------


def test_an_explicit_matrix_carries_the_batch_in_front():
    rotation = sp.Matrix([[sp.cos(x), -sp.sin(x)], [sp.sin(x), sp.cos(x)]])
    angles = vector(0.1, 0.2, 0.3)
    value = evaluate(rotation, {x: angles})
    assert value.shape == (3, 2, 2)
    assert torch.equal(value[:, 1, 0], torch.sin(angles))
    assert evaluate(rotation, {x: 0.5}).shape == (2, 2)
    assert evaluate(sp.eye(2), {x: angles}).shape == (3, 2, 2)
    assert evaluate(sp.Matrix([[1, x]]), {x: angles, y: angles[:, None]}).shape == (
        3,
        3,
        1,
        2,
    )


def test_a_matrix_of_sums():
    moments = sp.Matrix([[sp.Sum(a[k] ** p, (k, 1, N)) for p in (1, 2)], [x, 1]])
    value = evaluate(moments, {a: vector(1.0, 2.0, 3.0), N: 3, x: vector(5.0, 6.0)})
    assert value.tolist() == [[[6, 14], [5, 1]], [[6, 14], [6, 1]]]
    single = evaluate(moments, {a: vector(1.0, 2.0, 3.0), N: 3, x: 5.0})
    assert single.shape == (2, 2)


def test_matrix_expressions_agree_with_numpy():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(4, 3, generator=generator, dtype=F64)
    B = torch.randn(4, 4, generator=generator, dtype=F64)
    d = sp.Symbol("d", integer=True, positive=True)
    G, H = sp.MatrixSymbol("G", N, d), sp.MatrixSymbol("H", N, N)
    at = {G: A, H: B, N: 4, d: 3, x: 2.0}
    centred = A - A.mean(0)
    for expr, truth in [
        (G.T * H * G, A.T @ B @ A),
        (G.T * (sp.Identity(N) - sp.OneMatrix(N, N) / N) * G, centred.T @ centred),
        (H.inv() * G, torch.linalg.solve(B, A)),
        (H**3, B @ B @ B),
        (x * G / N, 2 * A / 4),
        (x * H.T * G, 2 * B.T @ A),
        (H - sp.ZeroMatrix(N, N), B),
        (sp.HadamardProduct(H, H), B * B),
    ]:
        found = evaluate(expr, at)
        assert found.shape == truth.shape
        assert torch.allclose(found, truth, rtol=1e-12), expr
    assert evaluate(sp.Trace(H), at).item() == pytest.approx(float(B.trace()))
    assert evaluate(sp.det(H), at).item() == pytest.approx(float(torch.det(B)))


def test_a_scalar_scales_the_matrix_not_its_columns():
    A = torch.arange(9, dtype=F64).reshape(3, 3)
    G = sp.MatrixSymbol("G", 3, 3)
    factors = vector(1.0, 2.0, 3.0)  # as many as columns, which would broadcast
    value = evaluate(x * G, {x: factors, G: A})
    assert torch.equal(value, factors[:, None, None] * A)


def test_entries_of_matrix_symbols_count_from_zero():
    A = torch.arange(6, dtype=F64).reshape(2, 3)
    G = sp.MatrixSymbol("G", 2, 3)
    assert evaluate(G[0, 1] + 10 * G[1, 2], {G: A}).item() == 51
    mean = sp.Sum(G[i, 2], (i, 0, N - 1)) / N
    assert evaluate(mean, {G: A, N: 2}).item() == 3.5


# --- sums --------------------------------------------------------------------------

values = vector(2.0, -1.0, 0.5, 3.0)
R4 = range(4)


def test_one_sum():
    assert evaluate(sp.Sum(a[k] ** 2, (k, 1, N)), {a: values, N: 4}).item() == 14.25
    assert evaluate(sp.Sum(a[k], (k, 2, 3)), {a: values}).item() == -0.5
    assert evaluate(sp.Sum(k**2, (k, 1, N)), {N: 10}).item() == 385
    assert evaluate(sp.Sum(x, (k, 1, N)), {x: vector(1, 2), N: 3}).tolist() == [3, 6]


def test_two_sums():
    table = torch.arange(12, dtype=F64).reshape(3, 4)
    M = sp.Symbol("M", integer=True)
    total = sp.Sum(c[i, j] * i, (i, 1, N), (j, 1, M))
    expected = (table * torch.arange(1, 4)[:, None]).sum()
    assert evaluate(total, {c: table, N: 3, M: 4}).item() == expected
    nested = sp.Sum(a[i] * sp.Sum(c[i, j] ** 2, (j, 1, M)), (i, 1, N))
    expected = (values[:3] * table.square().sum(1)).sum()
    assert evaluate(nested, {a: values, c: table, N: 3, M: 4}).item() == expected


@pytest.mark.parametrize(
    ("limits", "pairs"),
    [
        (((i, 1, j - 1), (j, 1, N)), [(p, q) for p in R4 for q in R4 if p < q]),
        (((j, i + 1, N), (i, 1, N)), [(p, q) for p in R4 for q in R4 if p < q]),
        (((i, 1, j), (j, 1, N)), [(p, q) for p in R4 for q in R4 if p <= q]),
    ],
)
def test_dependent_ranges(limits, pairs):
    expected = sum(float(values[p] - 2 * values[q]) for p, q in pairs)
    total = sp.Sum(a[i] - 2 * a[j], *limits)
    assert evaluate(total, {a: values, N: 4}).item() == pytest.approx(expected)


def test_products_and_powers_of_sums():
    s1, s2 = sp.Sum(a[k], (k, 1, N)), sp.Sum(a[k] ** 2, (k, 1, N))
    at = {a: values, N: 4}
    assert evaluate(s2 / N - s1**2 / N**2, at).item() == pytest.approx(
        float(values.var(correction=0))
    )
    inner = sp.Sum(a[j] * sp.Sum(a[i], (i, 1, j)) * s1, (j, 1, N))
    expected = (values * values.cumsum(0)).sum() * values.sum()
    assert evaluate(inner, at).item() == pytest.approx(float(expected))


def test_sums_and_batches():
    total = sp.Sum(a[k] ** 2 * x**k, (k, 1, N))
    grid = torch.linspace(-1, 1, 6, dtype=F64).reshape(2, 3)
    expected = sum(values[v - 1] ** 2 * grid**v for v in range(1, 5))
    assert torch.allclose(evaluate(total, {a: values, N: 4, x: grid}), expected)


def test_the_upper_limit_may_be_a_batch():
    sizes = torch.tensor([1, 2, 4])
    assert evaluate(sp.Sum(a[k], (k, 1, N)), {a: values, N: sizes}).tolist() == [
        2.0,
        1.0,
        4.5,
    ]


def test_an_index_may_be_a_batch():
    table = torch.arange(12, dtype=F64).reshape(3, 4)
    at = {c: table, n: torch.arange(1, 5), N: 3}
    assert torch.equal(evaluate(sp.Sum(c[k, n], (k, 1, N)), at), table.sum(0))


def test_empty_sums_are_zero():
    assert evaluate(sp.Sum(a[k], (k, 1, N)), {a: vector(), N: 0}).item() == 0
    assert evaluate(sp.Sum(a[k], (k, 2, N)), {a: vector(1.0), N: 1}).item() == 0
    pairs = sp.Sum(a[i] * a[j], (j, i + 1, N), (i, 1, N))
    assert evaluate(pairs, {a: vector(5.0), N: 1}).item() == 0
    assert evaluate(sp.Sum(x, (k, 2, N)), {x: vector(1, 2), N: 1}).tolist() == [0, 0]


def test_kronecker_deltas():
    total = sp.Sum(sp.KroneckerDelta(i, j) * a[i], (i, 1, N), (j, 1, N))
    assert evaluate(total, {a: values, N: 4}).item() == values.sum()
    single = evaluate(sp.KroneckerDelta(n, 2), {n: torch.arange(4)})
    assert single.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("index", "text"),
    [(0, "runs from 0 to 0"), (5, "runs from 5 to 5"), (-1, "runs from -1 to -1")],
)
def test_an_index_out_of_range_is_an_error(index, text):
    with pytest.raises(IndexError) as caught:
        evaluate(a[n], {a: values, n: index})
    assert str(caught.value) == (
        f"index 1 {text}, but the tensor has shape (4,). Indexed quantities count from "
        "1; check the range of the sum."
    )


def test_a_sum_out_of_range_is_an_error():
    with pytest.raises(IndexError, match="index 1 runs from 1 to 5, but the"):
        evaluate(sp.Sum(a[k], (k, 1, N)), {a: values, N: 5})
    with pytest.raises(IndexError, match="index 2 runs from 0 to 3"):
        evaluate(sp.Sum(c[1, k], (k, 0, 3)), {c: torch.ones(3, 4, dtype=F64)})


def test_every_axis_wants_an_index_and_every_index_an_integer():
    with pytest.raises(IndexError, match=r"1 indices were given for a tensor of shape"):
        evaluate(a[n], {a: torch.ones(2, 3, dtype=F64), n: 1})
    with pytest.raises(IndexError, match=r"index 1 is not an integer\. Declare"):
        evaluate(a[x], {a: values, x: 1.0})


# --- names -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["exp", "lambda", r"\theta", "x'", "x_{1}", "_number", "nan", "v0_", "torch"],
)
def test_a_symbol_may_have_any_name(name):
    real = sp.Symbol(name, real=True)
    index = sp.Symbol(name, integer=True)
    base, matrix = sp.IndexedBase(name), sp.MatrixSymbol(name, 2, 2)
    assert evaluate(sp.exp(real), {real: 0.5}).item() == math.exp(0.5)
    assert evaluate(sp.Sum(sp.log(index) * x, (index, 1, 3)), {x: 1.0}).item() == (
        pytest.approx(math.log(6))
    )
    assert evaluate(sp.exp(base[1]), {base: vector(0.5)}).item() == math.exp(0.5)
    assert evaluate(sp.Trace(matrix), {matrix: torch.eye(2, dtype=F64)}).item() == 2


def test_a_symbol_may_be_free_and_bound():
    assert evaluate(k * sp.Sum(a[k], (k, 1, N)), {a: values, N: 4, k: 2}).item() == 9


# --- the door ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong", [3.0, "x", None, [x], sp.Tuple(x, y), x > 0, sp.true, torch.ones(1)]
)
def test_what_is_no_expression_is_refused(wrong):
    with pytest.raises(TypeError) as caught:
        to_torch(wrong, [x])
    assert str(caught.value) == (
        f"expr must be a SymPy expression; got {type(wrong).__name__}. Derive it with "
        "SymPy, so that what is computed is what was derived."
    )


def test_missing_symbols_are_named():
    with pytest.raises(ValueError) as caught:
        to_torch(x * y + a[k], [x])
    assert str(caught.value) == (
        "The expression has free symbols ['a', 'k', 'y'] that are not among args "
        "['x']. Pass them, or substitute numbers first."
    )
    with pytest.raises(ValueError, match=r"free symbols \['G'\] that are not among"):
        evaluate(sp.Trace(sp.MatrixSymbol("G", 2, 2)) * x, {x: 1.0})


def test_undefined_functions_are_named():
    f, g = sp.Function("f"), sp.Function("g")
    with pytest.raises(ValueError) as caught:
        evaluate(f(x).diff(x) + g(x), {x: 1.0})
    assert str(caught.value) == (
        "The expression holds undefined functions ['f', 'g']. Substitute their "
        "expressions first, for instance expr.subs(f(x), x**2).doit()."
    )


@pytest.mark.parametrize(
    ("expr", "name"),
    [
        (sp.gamma(x), "gamma"),
        (sp.besseli(0, x), "besseli"),
        (sp.zeta(x), "zeta"),
        (sp.LambertW(x), "LambertW"),
        (sp.DiracDelta(x), "DiracDelta"),
        (sp.erfc(x), "erfc"),
        (sp.factorial(x), "factorial"),
        (sp.Integral(sp.exp(x * y), (y, 0, 1)), "Integral"),
        (sp.Derivative(sp.gamma(x), x), "Derivative"),
        (sp.Product(1 + x / k, (k, 1, 3)), "Product"),
        (sp.exp(sp.I * x), "ImaginaryUnit"),
        (sp.Lambda(x, x**2) + x, "Lambda"),
        (sp.BlockMatrix([[sp.MatrixSymbol("G", 2, 2)] * 2]), "BlockMatrix"),
        (sp.KroneckerProduct(*[sp.MatrixSymbol("G", 2, 2)] * 2), "KroneckerProduct"),
    ],
)
def test_what_torch_lacks_is_named(expr, name):
    args = [x, sp.MatrixSymbol("G", 2, 2)]
    with pytest.raises(TypeError) as caught:
        to_torch(expr, args)
    assert str(caught.value) == (
        f"The expression uses {name}, which has no torch form. Rewrite it in "
        "elementary functions, or use high_precision for its value."
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, "float64", None])
def test_dtype_is_a_floating_one(dtype):
    with pytest.raises(TypeError, match="dtype must be a floating torch dtype; got"):
        to_torch(x, [x], dtype=dtype)


def test_the_number_of_arguments():
    with pytest.raises(TypeError, match=r"Expected 2 arguments \['x', 'y'\]; got 1\."):
        to_torch(x + y, [x, y])(1.0)


def test_integer_tensors_are_refused():
    whole = torch.tensor([1, 2, 3])
    with pytest.raises(TypeError) as caught:
        evaluate(x / 2, {x: whole})
    assert str(caught.value) == (
        "x is an integer tensor (torch.int64); expected a floating one. Use "
        "x.to(torch.float64), lest divisions and roots lose their fractions."
    )
    with pytest.raises(TypeError, match=r"a is an integer tensor \(torch.int64\)"):
        evaluate(a[1], {a: whole})
    with pytest.raises(TypeError, match=r"x is an integer tensor \(torch.bool\)"):
        evaluate(x, {x: whole > 1})


@pytest.mark.parametrize("wrong", [2.0, True, vector(1.0), "2", None])
def test_integer_symbols_want_integers(wrong):
    with pytest.raises(TypeError, match="N is an integer symbol: expected an int or"):
        evaluate(sp.Sum(a[k], (k, 1, N)), {a: values, N: wrong})


def test_integer_symbols_divide_as_numbers():
    assert evaluate(N / (N - 1), {N: 3}).item() == 1.5
    assert evaluate((N - 1) / N, {N: torch.tensor([2, 4])}).tolist() == [0.5, 0.75]
    assert evaluate(N ** sp.Rational(-1, 2), {N: np.int64(4)}).item() == 0.5


@pytest.mark.parametrize("wrong", [np.ones(2), [1.0, 2.0], "1", None, True, 1j])
def test_real_symbols_want_tensors_or_floats(wrong):
    with pytest.raises(TypeError) as caught:
        evaluate(x + 1, {x: wrong})
    assert str(caught.value) == (
        f"x must be a torch tensor or a float; got {type(wrong).__name__}. Use "
        "torch.as_tensor(..., dtype=torch.float64)."
    )


def test_indexed_symbols_want_tensors():
    with pytest.raises(TypeError, match=r"a must be a torch tensor; got float\. Use"):
        evaluate(a[1], {a: 1.0})


def test_the_compiled_function_says_what_it_is():
    assert to_torch(x**2, [x]).__doc__ == "Evaluate x**2 for ['x']."
