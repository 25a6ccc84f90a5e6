"""The diffusion metric against explicit tensors, differences and closed forms."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import F64, case, conv, covariance, loop, mlp, near, randn, seeded, wide
from torch import nn
from torch.func import jacfwd
from torch.nn.functional import cross_entropy, mse_loss

from sgdbook import _krylov, data, devices, gradients, metric, nets
from sgdbook.metric import DiffusionMetric


def explicit(losses, x, epsilon):
    """Return G, the derivatives dG[k, i, j] = ∂_k G_ij, and Γ[k, i, j], all formed."""

    def G(x):
        J = jacfwd(losses)(x)
        return torch.eye(len(x), dtype=x.dtype) + epsilon * J.T.cov(correction=0)

    here, slopes = G(x), jacfwd(G)(x).movedim(2, 0)
    lower = (slopes.transpose(0, 1) + slopes.movedim(0, 2) - slopes) / 2
    # lower[k, i, j] = (∂_i G_kj + ∂_j G_ik − ∂_k G_ij) / 2
    return (
        here,
        slopes,
        lower,
        torch.linalg.solve(here, lower.flatten(1)).view_as(lower),
    )


def small(n=6):
    """A network of 12 weights, with data."""
    model = seeded(nets.mlp([2, 2, 2], "tanh", seed=0, device="cpu"))
    inputs, targets = randn(n, 2, seed=2), torch.arange(n) % 2
    return model, cross_entropy, inputs, targets


def contract(tensor, u, v):
    return torch.einsum("kij,i,j->k", tensor, u, v)


# --- explicit tensors ----------------------------------------------------------------


@pytest.mark.parametrize("solver", metric.SOLVERS)
@pytest.mark.parametrize("n", [2, 6, 30])
@pytest.mark.parametrize("way", ["of", "of_losses", "products"])
def test_all_that_the_metric_says(way, n, solver, monkeypatch):
    problem = small(n=n)
    losses, x = gradients.losses_of(*problem), nets.flatten(problem[0])
    d, epsilon = len(x), 3.0
    if way == "of":
        g = DiffusionMetric.of(*problem, epsilon, solver=solver)
    else:
        if way == "products":
            monkeypatch.setattr(metric, "_FEW", d - 1)
        g = DiffusionMetric.of_losses(losses, x, epsilon, solver=solver)
    G, _, lower, gamma = explicit(losses, x, epsilon)
    u, v = randn(d, seed=5), randn(d, seed=6)
    V = torch.stack([u, v, 0 * u], 1)
    assert g.shape == (d, d)
    assert near(g.matvec(v), G @ v, atol=1e-12)
    assert near(g.matvec(V), G @ V, atol=1e-12)
    assert near(g.solve(V), torch.linalg.solve(G, V), atol=1e-12)
    assert near(g.solve(v), torch.linalg.solve(G, v), atol=1e-12)
    assert near(g.lower_christoffel(u), contract(lower, u, u), atol=1e-12)
    assert near(g.lower_christoffel(u, v), contract(lower, u, v), atol=1e-12)
    assert near(g.christoffel(u), contract(gamma, u, u), atol=1e-12)
    assert near(g.christoffel(u, v), contract(gamma, u, v), atol=1e-12)
    assert float(g.logdet()) == pytest.approx(float(torch.logdet(G)), rel=1e-12)


def test_compatible_with_the_metric_and_free_of_torsion():
    """∂_k G_ij = Γ_{i,jk} + Γ_{j,ik}: the definition of the symbols, from products."""
    problem = small()
    losses, x = gradients.losses_of(*problem), nets.flatten(problem[0])
    g = DiffusionMetric.of(*problem, 2.0)
    _, slopes, _, _ = explicit(losses, x, 2.0)
    unit = torch.eye(len(x), dtype=F64)
    lower = torch.stack(
        [torch.stack([g.lower_christoffel(e, f) for f in unit], 1) for e in unit], 1
    )
    compatible = lower.movedim(2, 0) + lower.movedim(2, 0).transpose(1, 2)
    assert near(compatible, slopes, atol=1e-13)
    assert near(lower, lower.transpose(1, 2), atol=1e-14)
    for e in unit[:3]:
        for f in unit[3:]:
            assert near(g.christoffel(e, f), g.christoffel(f, e), atol=1e-13)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**20), st.floats(0, 1e4), st.floats(-10, 10))
def test_bilinear_and_inverse(seed, epsilon, c):
    problem = small()
    g = DiffusionMetric.of(*problem, epsilon)
    u, v, w = randn(3, g.shape[0], seed=seed)
    scale = 1 + epsilon
    assert near(g.solve(g.matvec(v)), v, atol=1e-11 * scale)
    assert near(g.matvec(g.solve(v)), v, atol=1e-11 * scale)
    assert float(v @ g.matvec(v)) >= float(v @ v) * (1 - 1e-14)
    mixed = g.lower_christoffel(u + c * w, v)
    parts = g.lower_christoffel(u, v) + c * g.lower_christoffel(w, v)
    assert near(mixed, parts, atol=1e-11 * scale)
    square = g.lower_christoffel(u + v) - g.lower_christoffel(u - v)
    assert near(square / 4, g.lower_christoffel(u, v), atol=1e-11 * scale)


def test_flat_without_noise():
    problem = small()
    g = DiffusionMetric.of(*problem, 0)
    v = randn(g.shape[0])
    assert torch.equal(g.matvec(v), v)
    assert torch.equal(g.solve(v), v)
    assert g.christoffel(v).abs().max() == 0
    assert g.logdet() == 0


def test_sphere_like_closed_form():
    """Losses (±r²/2): D = x xᵀ, Γ(v, v) = ε |v|² x / (1 + ε |x|²)."""
    x, v = randn(5), randn(5, seed=1)
    for epsilon in (0.1, 10.0, 1e6):
        g = DiffusionMetric.of_losses(
            lambda x: torch.stack([x @ x, -(x @ x)]) / 2, x, epsilon
        )
        exact = epsilon * (v @ v) * x / (1 + epsilon * x @ x)
        assert near(g.christoffel(v), exact, atol=1e-14 * (10 + epsilon))
        expected = math.log1p(epsilon * float(x @ x))
        rounding = 1e-15 * (100 + epsilon)
        assert float(g.logdet()) == pytest.approx(expected, rel=rounding)


# --- larger networks -----------------------------------------------------------------


def richardson(function, h):
    """Return the derivative at 0 by central differences, to order h⁸."""
    rows = [
        (function(h / 2**k) - function(-h / 2**k)) / (2 * h / 2**k) for k in range(4)
    ]
    for order in (4, 16, 64):
        rows = [(order * b - a) / (order - 1) for a, b in pairwise(rows)]
    return rows[0]


@pytest.fixture(scope="module")
def digits():
    digits = data.digits(device="cpu")
    model = nets.mlp([64, 32, 10], "tanh", seed=0, device="cpu")
    return model, cross_entropy, digits.inputs[:300], digits.targets[:300]


def test_finite_differences_of_D_along_a_path(digits):
    """Γ_k(v, v) = (∂_v G v)_k − ½ ∂_k (v·Gv), from D at neighbouring points only."""
    x = nets.flatten(digits[0])
    v = randn(2410, seed=1)
    v /= v.norm()
    g = DiffusionMetric.of(*digits, 2.0)
    lower = g.lower_christoffel(v)
    losses = gradients.losses_of(*digits)

    def lowered(t):
        return DiffusionMetric.of_losses(losses, x + t * v, 2.0).matvec(v)

    def length(w):
        at = x + w
        return v @ DiffusionMetric.of_losses(losses, at, 2.0).matvec(v)

    along = richardson(lowered, 0.1)
    u = lower / lower.norm()  # the other term along one direction that sees it
    for w in (u, v):
        across = richardson(lambda t, w=w: length(t * w), 0.1)
        expected = w @ along - across / 2
        assert float(w @ lower) == pytest.approx(float(expected), rel=1e-8)
    assert near(g.matvec(g.christoffel(v)), lower, atol=1e-13 * float(lower.norm()))


@pytest.mark.parametrize("epsilon", [1.0, 1e4])
def test_solvers_agree(digits, epsilon):
    v = randn(2410)
    cg, cholesky = (
        DiffusionMetric.of(*digits, epsilon, solver=s).solve(v)
        for s in ("cg", "cholesky")
    )
    assert float((cg - cholesky).norm() / cg.norm()) < 1e-14 * (100 + epsilon)


def test_auto_turns_to_cholesky_once(digits, monkeypatch):
    calls = []
    factor, iterate = torch.linalg.cholesky_ex, _krylov.conjugate_gradients

    def count_factor(matrix):
        calls.append("factor")
        return factor(matrix)

    def count_iterate(product, v, limit):
        calls.append(limit)
        return iterate(product, v, limit)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", count_factor)
    monkeypatch.setattr(_krylov, "conjugate_gradients", count_iterate)
    v = randn(2410)
    easy = DiffusionMetric.of(*digits, 0.1)
    easy.solve(v)
    easy.solve(v)
    assert calls == [50, 50]
    calls.clear()
    hard = DiffusionMetric.of(*digits, 1e6)
    first, second = hard.solve(v), hard.solve(2 * v)
    assert calls == [50, "factor"]
    assert near(second, 2 * first)
    calls.clear()
    monkeypatch.setattr(metric, "_LARGEST", 299)
    DiffusionMetric.of(*digits, 10.0).solve(v)
    assert calls == [1600]
    monkeypatch.setattr(metric, "_LARGEST", 300)
    calls.clear()
    DiffusionMetric.of(*digits, 10.0).solve(v)
    assert calls[0] == 50


@pytest.mark.parametrize("solver", metric.SOLVERS)
@pytest.mark.parametrize(("dtype", "epsilon"), [(torch.float32, 1e8), (F64, 1e20)])
def test_no_answer_that_rounding_has_spoilt(solver, dtype, epsilon):
    model, loss, inputs, targets = small(n=30)
    problem = model.to(dtype), loss, inputs.to(dtype), targets
    g = DiffusionMetric.of(*problem, epsilon, solver=solver)
    text = r"G (x = v )?must be .* with epsilon = 1e\+\d+ .*Use float64, or a smaller"
    v = randn(g.shape[0], dtype=dtype)
    with pytest.raises(ArithmeticError, match=text):
        g.solve(v)


def test_limit_of_conjugate_gradients(digits, monkeypatch):
    """Where only they are allowed they say so if they are too slow."""
    monkeypatch.setattr(_krylov, "conjugate_gradients", lambda product, v, limit: None)
    g = DiffusionMetric.of(*digits, 1.0, solver="cg")
    with pytest.raises(ArithmeticError, match="slow convergence leaves a large one"):
        g.solve(randn(2410))


def test_conjugate_gradients_stop_by_the_residual():
    """Three different eigenvalues take three products; the zero column none."""
    G = torch.diag(torch.tensor([1.0, 2, 2, 5, 5, 5], dtype=F64))
    v = torch.stack([randn(6), torch.zeros(6, dtype=F64), randn(6, seed=1)], 1)
    calls = []

    def product(p):
        calls.append(len(calls))
        return G @ p

    x = _krylov.conjugate_gradients(product, v, 10)
    assert near(x, torch.linalg.solve(G, v), atol=1e-14)
    assert len(calls) <= 4
    assert _krylov.conjugate_gradients(product, v, 2) is None


@pytest.mark.parametrize("make", [mlp, conv])
def test_networks_of_other_kinds(make):
    problem = case(make)
    J = loop(*problem)
    g = DiffusionMetric.of(*problem, 5.0)
    v = randn(J.shape[1], seed=3)
    G = torch.eye(len(v), dtype=F64) + 5 * covariance(J)
    curvatures = gradients.directional_derivatives(*problem, v, order=2)[2]
    spread = curvatures - curvatures.mean()
    expected = torch.linalg.solve(G, 5 / 7 * (J.T @ spread))
    assert near(g.christoffel(v), expected, atol=1e-12)


def test_a_hundred_thousand_weights():
    """Products with J by derivatives; J itself would take 1.5 GB."""
    n, d = 2000, 100_000
    losses, index = wide(n, d)
    x, v = randn(d) / 7, randn(d, seed=1) / 300
    g = DiffusionMetric.of_losses(losses, x, 0.5)
    found = g.christoffel(v)
    inner, along = x[index].sum(1), v[index].sum(1)
    bends = -torch.sin(inner) * along**2
    spread = torch.cos(inner) * (bends - bends.mean())
    pulled = torch.zeros_like(x).index_add_(
        0, index.flatten(), spread.repeat_interleave(50)
    )
    assert near(g.lower_christoffel(v), pulled * 0.5 / n, atol=1e-18)
    assert near(g.matvec(found), pulled * 0.5 / n, atol=1e-15)


def test_point_and_weights_stay():
    """The metric stays at its point; neither model nor weights are touched."""
    problem = small()
    x = nets.flatten(problem[0])
    v = randn(len(x))
    g = DiffusionMetric.of(*problem, 1.0)
    h = DiffusionMetric.of_losses(gradients.losses_of(*problem), x, 1.0)
    before = g.christoffel(v), h.christoffel(v)
    with torch.no_grad():
        x.zero_()
        for p in problem[0].parameters():
            p.add_(1.0)
    assert torch.equal(g.christoffel(v), before[0])
    assert torch.equal(h.christoffel(v), before[1])
    tracked = v.clone().requires_grad_()
    for answer in (g.christoffel(tracked), g.solve(tracked), g.matvec(tracked)):
        assert not answer.requires_grad
    assert repr(g) == "DiffusionMetric(N=6, d=12, epsilon=1, torch.float64, cpu)"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("solver", metric.SOLVERS)
def test_on_the_gpu(solver):
    model, loss, x, y = case(mlp)
    here = DiffusionMetric.of(model, loss, x, y, 2.0, solver=solver)
    device = devices.device("cuda")
    there = DiffusionMetric.of(
        model.to(device), loss, x.to(device), y.to(device), 2.0, solver=solver
    )
    v = randn(here.shape[0])
    assert near(there.christoffel(v.to(device)).cpu(), here.christoffel(v), atol=1e-12)
    assert near(there.logdet().cpu(), here.logdet(), atol=1e-12)


# --- the door ------------------------------------------------------------------------


def pair(x):
    return torch.stack([x @ x, -(x @ x)])


@pytest.mark.parametrize("epsilon", [-0.1, math.nan, math.inf, "1", None, True * 1j])
def test_bad_strength(epsilon):
    text = r"epsilon must be a number of at least 0; got .*need not be pos"
    with pytest.raises(ValueError, match=text):
        DiffusionMetric.of_losses(pair, randn(3), epsilon)
    with pytest.raises(ValueError, match=text):
        DiffusionMetric.of(*small(), epsilon)


def test_bad_solver():
    with pytest.raises(ValueError, match=r"solver must be one of auto, cg, cholesky;"):
        DiffusionMetric.of_losses(pair, randn(3), 1.0, solver="lu")


@pytest.mark.parametrize(
    ("function", "error", "text"),
    [
        (
            None,
            TypeError,
            r"function must be a function .* got NoneType. For a net",
        ),
        (lambda x: x @ x, ValueError, r"shape \(N,\), N >= 2, .*; got \(\). Do not av"),
        (lambda x: x[:1], ValueError, r"got \(1,\)"),
        (lambda x: torch.outer(x, x), ValueError, r"got \(3, 3\)"),
        (lambda x: 1.0, TypeError, "losses must be a floating-point tensor; got float"),
        (
            lambda x: pair(x).float(),
            ValueError,
            "losses must be torch.float64 on cpu l",
        ),
        (lambda x: x.to("meta"), ValueError, "got torch.float64 on meta. Convert the"),
        (
            lambda x: pair(x).log(),
            ValueError,
            r"that of sample 1 is nan \(1 of 2 in all\). Look for NaN",
        ),
    ],
)
def test_bad_losses(function, error, text):
    with pytest.raises(error, match=text):
        DiffusionMetric.of_losses(function, randn(3), 1.0)


@pytest.mark.parametrize(
    ("weights", "error", "text"),
    [
        (randn(3, 1), ValueError, r"weights must be a finite vector .* shape \(3, 1\)"),
        (randn(0), ValueError, r"d >= 1; got shape \(0,\). Flatten them"),
        (randn(3) / 0, ValueError, "weights must be a finite vector"),
        ([1.0], TypeError, "weights must be a floating-point tensor; got list"),
    ],
)
def test_bad_weights(weights, error, text):
    with pytest.raises(error, match=text):
        DiffusionMetric.of_losses(pair, weights, 1.0)


def test_one_sample_has_no_noise():
    model, loss, inputs, targets = small()
    with pytest.raises(ValueError, match=r"losses must have shape \(N,\), N >= 2"):
        DiffusionMetric.of(model, loss, inputs[:1], targets[:1], 1.0)


def test_infinite_loss_of_a_network():
    model, loss, inputs, targets = small()
    inputs[4] = math.inf
    with pytest.raises(ValueError, match=r"that of sample 4 is nan \(1 of 6 in all\)"):
        DiffusionMetric.of(model, loss, inputs, targets, 1.0)


@pytest.mark.parametrize("few", [1, 32])
def test_losses_with_a_kink(few, monkeypatch):
    monkeypatch.setattr(metric, "_FEW", few)

    def steep(x):
        return torch.stack([x.sum(), x.sum().sqrt()])

    zero = torch.zeros(3, dtype=F64)
    text = r"every derivative of a loss must be finite; that of sample \d is not. The f"
    with pytest.raises(FloatingPointError, match=text):
        DiffusionMetric.of_losses(steep, zero, 1.0)

    def bent(x):
        return torch.stack([x.sum(), x.sum() ** 1.5])

    g = DiffusionMetric.of_losses(bent, zero, 1.0)
    with pytest.raises(FloatingPointError, match=r"every second derivative of a"):
        g.christoffel(torch.ones(3, dtype=F64))


@pytest.mark.parametrize("name", ["matvec", "solve"])
@pytest.mark.parametrize(
    ("v", "error", "text"),
    [
        (randn(4), ValueError, r"v must have shape \(3,\) or \(3, k\); got \(4,\)"),
        (randn(3).float(), ValueError, "v must be torch.float64 on cpu like the weigh"),
        (randn(3) / 0, ValueError, "v must be finite"),
        ([1.0] * 3, TypeError, "v must be a floating-point tensor"),
    ],
)
def test_bad_columns(name, v, error, text):
    g = DiffusionMetric.of_losses(pair, randn(3), 1.0)
    with pytest.raises(error, match=text):
        getattr(g, name)(v)


@pytest.mark.parametrize("name", ["lower_christoffel", "christoffel"])
@pytest.mark.parametrize(
    ("v", "error", "text"),
    [
        (randn(4), ValueError, r"must have shape \(3,\), one entry .* got \(4,\)"),
        (randn(3, 1), ValueError, r"must have shape \(3,\), .* got \(3, 1\)"),
        (randn(3).float(), ValueError, "must be torch.float64 on cpu like the weights"),
        (randn(3) / 0, ValueError, "must be finite; got NaN"),
        ([1.0] * 3, TypeError, "must be a floating-point tensor"),
    ],
)
def test_bad_directions(name, v, error, text):
    g = DiffusionMetric.of_losses(pair, randn(3), 1.0)
    with pytest.raises(error, match="u " + text):
        getattr(g, name)(v)
    with pytest.raises(error, match="v " + text):
        getattr(g, name)(randn(3), v)


def test_relu_network_is_flat_inside_a_cell():
    """Losses linear in the weights have no Christoffel symbols."""
    model = seeded(nn.Linear(3, 1))
    inputs, targets = randn(5, 3), randn(5, 1, seed=1)
    g = DiffusionMetric.of(model, lambda z, t: (z * t).sum(), inputs, targets, 1.0)
    assert g.christoffel(randn(4)).abs().max() == 0
    h = DiffusionMetric.of(model, mse_loss, inputs, targets, 1.0)
    assert h.christoffel(randn(4)).abs().max() > 0
