"""The diffusion matrix."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    F64,
    LAYERED,
    OTHER,
    case,
    conv,
    covariance,
    labels,
    loop,
    mlp,
    near,
    randn,
)
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from sgdbook import _krylov, data, devices, gradients, nets, noise
from sgdbook.noise import DiffusionMatrix

# --- closed forms --------------------------------------------------------------------


def test_linear_regression_by_hand():
    """The gradient is twice the residual times the input."""
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=F64)
    y = torch.tensor([[0.0], [1.0], [1.0]], dtype=F64)
    model = nn.Linear(2, 1, bias=False).to(F64)
    model.weight.data = torch.tensor([[1.0, 1.0]], dtype=F64)
    # residuals 1, 1, 1; gradients (2, 0), (0, 4), (2, 2); mean (4/3, 2)
    expected = torch.tensor([[8 / 9, -4 / 3], [-4 / 3, 8 / 3]], dtype=F64)
    D = DiffusionMatrix.of(model, mse_loss, x, y)
    assert near(D.dense(), expected, rtol=1e-14)
    assert float(D.trace()) == pytest.approx(32 / 9, rel=1e-14)
    assert D.mean_gradient().tolist() == pytest.approx([4 / 3, 2])
    assert D.rank() == 2
    root = math.sqrt(208) / 9
    values = [16 / 9 + root, 16 / 9 - root]
    assert D.eigenvalues().tolist() == pytest.approx(values, rel=1e-13)


def test_logistic_regression_at_zero_is_uniform():
    """At w = 0 the gradient is (1/c − e_y) xᵀ: D in closed form for one input 1."""
    model = nn.Linear(1, 3, bias=False).to(F64)
    nn.init.zeros_(model.weight)
    x = torch.ones(6, 1, dtype=F64)
    D = DiffusionMatrix.of(model, cross_entropy, x, labels(6))
    expected = torch.eye(3, dtype=F64) / 3 - torch.ones(3, 3, dtype=F64) / 9
    assert near(D.dense(), expected, rtol=0, atol=1e-16)
    assert D.rank() == 2


def test_equal_gradients_give_zero():
    D = DiffusionMatrix.from_gradients(randn(1, 4).expand(6, 4))
    assert D.rank() == 0
    assert float(D.trace()) == pytest.approx(0, abs=1e-15)
    assert D.dense().abs().max() < 1e-30
    zero = DiffusionMatrix.from_gradients(torch.zeros(3, 5, dtype=F64))
    assert zero.rank() == 0
    values, vectors = zero.eigenpairs(2)
    assert values.tolist() == [0, 0]
    assert near(vectors.T @ vectors, torch.eye(2, dtype=F64))


# --- however J is held ---------------------------------------------------------------


def assert_same(D, J):
    """Every method of D agrees with the covariance of the rows of J."""
    n, d = J.shape
    exact = covariance(J)
    scale = float(exact.norm()) or 1.0
    V = randn(d, 3, seed=5)

    def close(a, b, factor=1.0):
        assert a.shape == b.shape
        assert float((a - b).norm()) <= 1e-12 * scale * factor

    assert D.shape == (d, d)
    assert D.samples == n
    close(D.dense(), exact)
    close(D @ V, exact @ V, 10)
    close(D @ V[:, 0], exact @ V[:, 0], 10)
    close(D.quadratic_form(V), ((exact @ V) * V).sum(0), 100)
    close(D.quadratic_form(V[:, 1]), V[:, 1] @ exact @ V[:, 1], 100)
    close(D.trace(), exact.trace())
    close(D.mean_gradient(), J.mean(0))
    spread = J - J.mean(0)
    close(D.gram(), spread @ spread.T / n)
    values = torch.linalg.eigvalsh(exact).flip(0).clamp(min=0)
    small = min(n, d)
    for accurate in (False, True):
        close(D.eigenvalues(accurate), values[:small])
    assert D.rank() == int(torch.linalg.matrix_rank(spread))


@pytest.mark.parametrize("name", [*LAYERED, *OTHER])
@pytest.mark.parametrize(("n", "blocks"), [(7, 1), (7, 3), (90, 1)])
def test_all_that_D_says_of_a_network(name, n, blocks, monkeypatch):
    problem = case({**LAYERED, **OTHER}[name], n)
    J = loop(*problem)
    monkeypatch.setattr(gradients, "_BLOCK", -(-n // blocks) * J.shape[1])
    assert_same(DiffusionMatrix.of(*problem), J)


# --- eigenpairs and rank -------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "d", "k"), [(6, 40, 5), (6, 40, 2), (40, 6, 6), (9, 9, 3)]
)
def test_eigenpairs(n, d, k):
    J = randn(n, d) + 3 * randn(d, seed=1)
    D = DiffusionMatrix.from_gradients(J)
    values, vectors = D.eigenpairs(k)
    exact = torch.linalg.eigvalsh(covariance(J)).flip(0)[:k]
    assert values.shape == (k,)
    assert vectors.shape == (d, k)
    assert near(values, exact, rtol=1e-12)
    identity = torch.eye(k, dtype=F64)
    assert near(vectors.T @ vectors, identity, rtol=0, atol=1e-13)
    assert near(D @ vectors, vectors * values, rtol=0, atol=1e-12)
    for column in vectors.T:
        assert column.max() == column.abs().max()


def test_eigenpairs_beyond_the_rank_are_kernel_vectors():
    J = randn(8, 1) * randn(1, 20, seed=1) + randn(20, seed=2)
    D = DiffusionMatrix.from_gradients(J)
    values, vectors = D.eigenpairs(4)
    assert D.rank() == 1
    assert float(values[0]) == pytest.approx(float(D.trace()), rel=1e-12)
    assert values[1:].max() < 1e-28
    identity = torch.eye(4, dtype=F64)
    assert near(vectors.T @ vectors, identity, rtol=0, atol=1e-13)


def spectrum(values, n, d, dtype=F64):
    """Gradients whose D has the given non-zero eigenvalues."""
    r = len(values)
    left = torch.linalg.qr(noise.centre(randn(n, r)))[0]
    right = torch.linalg.qr(randn(d, r, seed=1))[0]
    roots = (n * torch.as_tensor(values, dtype=F64)).sqrt()
    return (left * roots @ right.T + randn(d, seed=2)).to(dtype)


@pytest.fixture
def whole(monkeypatch):
    """Count the full decompositions of large matrices."""
    counts, eigh = [], torch.linalg.eigh

    def count(matrix):
        counts.append(len(matrix))
        return eigh(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", count)
    return counts


@pytest.mark.parametrize("small", [2**27, 0])
@pytest.mark.parametrize(("n", "d"), [(200, 300), (300, 200), (200, 200)])
@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_few_eigenpairs_of_many(n, d, small, dtype, whole, monkeypatch):
    """By a Krylov iteration: as accurate as a full decomposition, without one."""
    monkeypatch.setattr(noise, "_SMALL", small)
    J = spectrum(0.7 ** torch.arange(150), n, d, dtype)
    D = DiffusionMatrix.from_gradients(J)
    values, vectors = D.eigenpairs(5)
    assert max(whole) < 100
    eps = torch.finfo(dtype).eps
    exact = torch.linalg.eigvalsh(covariance(J.double())).flip(0)[:5]
    assert near(values.double(), exact, atol=20 * eps)
    identity = torch.eye(5, dtype=dtype)
    assert near(vectors.T @ vectors, identity, atol=20 * eps)
    assert near(D @ vectors, vectors * values, atol=100 * eps)


@pytest.mark.parametrize("small", [2**27, 0])
def test_repeated_eigenvalues_are_all_found(small, monkeypatch):
    monkeypatch.setattr(noise, "_SMALL", small)
    J = spectrum([2.0] * 7 + [1.0] * 100, 150, 160)
    values, _ = DiffusionMatrix.from_gradients(J).eigenpairs(9)
    assert values.tolist() == pytest.approx([2.0] * 7 + [1.0] * 2, rel=1e-12)


@pytest.mark.parametrize("small", [2**27, 0])
def test_full_decomposition_where_the_iteration_is_slow(small, whole, monkeypatch):
    """Eigenvalues without a gap between them."""
    monkeypatch.setattr(noise, "_SMALL", small)
    exact = torch.linspace(2.0, 1.0, 149, dtype=F64)
    D = DiffusionMatrix.from_gradients(spectrum(exact, 150, 160))
    values, _ = D.eigenpairs(4)
    assert 150 in whole
    assert near(values, exact[:4], atol=1e-13)


@pytest.mark.parametrize(("size", "found"), [(3 * 13, True), (3 * 13 - 1, False)])
def test_smallest_matrix_for_the_iteration(size, found):
    """Five pairs take blocks of 13 columns; a third of the size must hold one."""
    matrix = torch.eye(size, dtype=F64)
    vectors = _krylov.largest(matrix.__matmul__, size, 5, matrix)
    assert (vectors is not None) == found


def test_iteration_that_exhausts_the_range():
    """Rank 5: the second block of 13 columns is mostly rounding errors."""
    matrix = torch.diag((torch.arange(90) < 5).double())
    vectors = _krylov.largest(matrix.__matmul__, 90, 7, matrix)
    assert near(vectors.T @ vectors, torch.eye(7, dtype=F64))
    assert near(vectors[:5] @ vectors[:5].T, torch.eye(5, dtype=F64))


def test_orthonormal_to_rounding_at_a_million_rows():
    columns = randn(1_000_000, 3, dtype=torch.float32) @ torch.diag(
        torch.tensor([1.0, 30.0, 1000.0])
    )
    basis = _krylov.orthonormal(columns).double()
    assert near(basis.T @ basis, torch.eye(3, dtype=F64), atol=2e-6)
    triangle = basis.T @ columns.double()
    assert near(triangle.tril(-1), 0 * triangle, atol=1e-6 * float(triangle.norm()))


def test_iteration_of_zero():
    zero = torch.zeros(60, 60, dtype=F64)
    vectors = _krylov.largest(zero.__matmul__, 60, 3, zero)
    assert near(vectors.T @ vectors, torch.eye(3, dtype=F64))


@pytest.mark.parametrize("block", [2**25, 700 * 100])
def test_large_dense_matrix(block, monkeypatch):
    """More rows than one tile; and in two blocks of samples."""
    monkeypatch.setattr(gradients, "_BLOCK", block)
    J = randn(150, 700) + 1
    dense = DiffusionMatrix.from_gradients(J).dense()
    assert near(dense, J.T.cov(correction=0))
    assert torch.equal(dense, dense.T)


@pytest.mark.parametrize(("n", "d"), [(2, 5), (5, 5), (6, 5), (30, 5), (5, 30)])
def test_rank_of_random_gradients_is_the_bound(n, d):
    assert DiffusionMatrix.from_gradients(randn(n, d)).rank() == min(d, n - 1)


def graded(d=12, n=10, ratio=1e-2):
    """Gradients whose nine eigenvalues fall by ratio² from each to the next."""
    left = torch.linalg.qr(noise.centre(randn(n, n - 1)))[0]
    right = torch.linalg.qr(randn(d, n - 1, seed=1))[0]
    return left * ratio ** torch.arange(n - 1, dtype=F64) @ right.T


def test_accurate_eigenvalues_see_below_machine_epsilon(monkeypatch):
    D = DiffusionMatrix.from_gradients(graded())
    exact = 1e-4 ** torch.arange(9, dtype=F64) / 10
    exact_low = D.eigenvalues(accurate=True)[:7]
    assert near(exact_low, exact[:7], rtol=1e-3, atol=0)
    coarse = D.eigenvalues()
    assert near(coarse[:4], exact[:4], rtol=1e-3, atol=0)
    assert coarse.min() >= 0
    assert not near(coarse[5:7], exact[5:7], rtol=1e-3, atol=0)
    assert D.rank() == 8  # the least, 1e-32 of the largest, is below any threshold
    monkeypatch.setattr(gradients, "_BLOCK", 10 * 12)
    assert D.rank() == 8
    monkeypatch.setattr(gradients, "_BLOCK", 10 * 12 - 1)
    assert D.rank() == 4  # by the Gram matrix: a lower bound


def test_rank_counts_the_rounding_errors_of_the_mean_gradient(monkeypatch):
    """A common gradient of length 1e5 hides what is below 1e-16 of its square."""
    common = 1e5 * torch.ones(12, dtype=F64) / math.sqrt(12)
    D = DiffusionMatrix.from_gradients(graded())
    moved = DiffusionMatrix.from_gradients(graded() + common)
    assert (D.rank(), moved.rank()) == (8, 5)
    monkeypatch.setattr(gradients, "_BLOCK", 1)
    assert (D.rank(), moved.rank()) == (4, 1)


def test_returned_eigenvalues_are_a_copy():
    D = DiffusionMatrix.from_gradients(randn(4, 3))
    D.eigenvalues().zero_()
    assert D.eigenvalues()[0] > 0


# --- properties ----------------------------------------------------------------------

sizes = st.tuples(st.integers(2, 7), st.integers(1, 7), st.integers(0, 2**20))
quick = settings(max_examples=40, deadline=None)


def random(size):
    n, d, seed = size
    return randn(n, d, seed=seed), randn(d, 2, seed=seed + 1)


@quick
@given(sizes)
def test_positive_and_symmetric(size):
    J, V = random(size)
    D = DiffusionMatrix.from_gradients(J)
    assert D.quadratic_form(V).min() >= 0
    assert D.eigenvalues().min() >= 0
    a, b = V.T
    assert near(a @ (D @ b), b @ (D @ a), rtol=1e-10, atol=1e-13)
    assert near(D.dense() @ V, D @ V, rtol=1e-10, atol=1e-13)


@quick
@given(sizes, st.floats(-1e3, 1e3))
def test_common_gradient_does_not_matter(size, c):
    J, V = random(size)
    D = DiffusionMatrix.from_gradients(J)
    moved = DiffusionMatrix.from_gradients(J + c)
    tol = 1e-13 * (1 + c * c) * max(size[:2])
    assert near(D.dense(), moved.dense(), rtol=1e-10, atol=tol)
    assert near(D @ V, moved @ V, rtol=1e-10, atol=10 * tol)
    assert near(D.trace(), moved.trace(), rtol=1e-10, atol=tol)


@quick
@given(sizes)
def test_nothing_is_negative_by_rounding(size):
    n, d, seed = size
    J = randn(n, 1, seed=seed) * 1e-9 + randn(d, seed=seed + 1)
    D = DiffusionMatrix.from_gradients(J)
    assert D.trace() >= 0
    assert D.eigenvalues().min() >= 0
    assert D.eigenpairs(min(d, n - 1))[0].min() >= 0


@quick
@given(sizes, st.floats(-1e3, 1e3))
def test_scales_with_the_square(size, c):
    J, _ = random(size)
    D = DiffusionMatrix.from_gradients(J)
    scaled = DiffusionMatrix.from_gradients(c * J)
    assert near(scaled.dense(), c * c * D.dense(), rtol=1e-10, atol=1e-18)
    assert near(scaled.trace(), c * c * D.trace(), rtol=1e-10, atol=1e-18)


@quick
@given(sizes)
def test_order_of_samples_does_not_matter(size):
    J, _ = random(size)
    g = torch.Generator().manual_seed(size[2])
    D = DiffusionMatrix.from_gradients(J)
    mixed = DiffusionMatrix.from_gradients(J[torch.randperm(len(J), generator=g)])
    assert near(D.dense(), mixed.dense(), rtol=1e-10, atol=1e-14)


@quick
@given(sizes)
def test_trace_eigenvalues_rank(size):
    J, _ = random(size)
    n, d = J.shape
    D = DiffusionMatrix.from_gradients(J)
    for accurate in (False, True):
        values = D.eigenvalues(accurate)
        assert values.shape == (min(n, d),)
        assert torch.all(values[:-1] >= values[1:])
        assert near(values.sum(), D.trace(), rtol=1e-11)
    assert D.rank() <= min(d, n - 1)
    pairs = sum(((a - b) ** 2).sum() for a in J for b in J) / 2
    assert near(D.trace(), pairs / n**2, rtol=1e-11)


# --- a trained network on digits -----------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    digits = data.digits(device="cpu", pool=2)
    model = nets.mlp([16, 4, 10], "tanh", seed=0, device="cpu")
    more = {"batch_size": 32, "learning_rate": 0.2, "seed": 1}
    nets.train(model, digits, steps=1500, **more)
    return model, digits


def test_symmetries_of_a_network_span_the_kernel(trained):
    """Of 118 directions 5 change no probability: shifts of the logits."""
    model, digits = trained
    D = DiffusionMatrix.of(model, cross_entropy, digits.inputs, digits.targets)
    shifts = torch.zeros(118, 5, dtype=F64)
    for column in range(4):  # the weights from one hidden unit to all outputs
        shifts[68:108].view(10, 4, 5)[:, column, column] = 1
    shifts[108:, 4] = 1
    assert D.quadratic_form(shifts).max() < 1e-25
    assert (D @ shifts).abs().max() < 1e-14
    assert D.rank() == 113
    values = D.eigenvalues(accurate=True)
    assert values[112] / values[0] > 1e-8
    assert values[113] / values[0] < 1e-28


def test_float32(trained):
    model, digits = trained
    J = gradients.per_sample_gradients(
        model, cross_entropy, digits.inputs[:50], digits.targets[:50]
    )
    single = nets.mlp([16, 4, 10], "tanh", seed=0, device="cpu", dtype=torch.float32)
    single.load_state_dict(model.state_dict())
    x = digits.inputs[:50].float()
    D = DiffusionMatrix.of(single, cross_entropy, x, digits.targets[:50])
    assert D.dense().dtype == D.trace().dtype == torch.float32
    assert near(D.dense().double(), covariance(J), rtol=0, atol=1e-5)
    assert "N=50, d=118, torch.float32, cpu" in repr(D)
    assert D.rank() <= 49


def test_a_million_parameters_stay_an_operator():
    """Twelve samples; D itself would take more than 7 TiB."""
    model = nets.mlp([64, 1000, 930, 10], seed=0, device="cpu")
    x, y = randn(12, 64), labels(12, 10)
    D = DiffusionMatrix.of(model, cross_entropy, x, y)
    assert D.shape == (1005240, 1005240)
    values, vectors = D.eigenpairs(2)
    assert near(D.quadratic_form(vectors), values, rtol=1e-10)
    assert D.rank() == 11
    text = r"fit into 1 GiB; with d = 1005240 it takes 7.352 TiB. Use D @ v, .*or raise"
    with pytest.raises(MemoryError, match=text):
        D.dense()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("block", [2**25, 100])
@pytest.mark.parametrize("make", [mlp, conv])
def test_on_the_gpu(make, block, monkeypatch):
    monkeypatch.setattr(gradients, "_BLOCK", block)
    model, loss, x, y = case(make)
    here = DiffusionMatrix.of(model, loss, x, y)
    device = devices.device("cuda")
    there = DiffusionMatrix.of(model.to(device), loss, x.to(device), y.to(device))
    assert near(there.dense().cpu(), here.dense(), rtol=0, atol=1e-12)
    assert near(there.gram().cpu(), here.gram(), rtol=0, atol=1e-12)
    assert there.rank() == here.rank()
    v = randn(here.shape[0])
    with pytest.raises(ValueError, match=r"v must be torch.float64 on cuda:0 like D"):
        there @ v


# --- the door ------------------------------------------------------------------------


def test_too_few_samples():
    model, loss, x, y = case(mlp)
    text = r"needs N >= 2 samples; got N = 1. One gradient"
    with pytest.raises(ValueError, match=text):
        DiffusionMatrix.of(model, loss, x[:1], y[:1])
    with pytest.raises(ValueError, match=text):
        DiffusionMatrix.from_gradients(randn(1, 3))


@pytest.mark.parametrize("make", [mlp, conv])
def test_sample_with_a_bad_gradient_is_named(make):
    model, loss, x, y = case(make)
    x[4:6] = math.nan
    text = r"that of sample 4 is not \(2 of 7 in all\). Look for NaN"
    with pytest.raises(ValueError, match=text):
        DiffusionMatrix.of(model, loss, x, y)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_entry_of_an_explicit_matrix(bad):
    J = randn(4, 3)
    J[2, 1] = bad
    with pytest.raises(ValueError, match=r"that of sample 2 is not"):
        DiffusionMatrix.from_gradients(J)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4), (3, 0)])
def test_bad_shape_of_an_explicit_matrix(shape):
    with pytest.raises(ValueError, match=r"J must have shape \(N, d\), d >= 1; got \("):
        DiffusionMatrix.from_gradients(torch.zeros(shape))


@pytest.mark.parametrize("J", [torch.ones(3, 2).long(), [[1.0]], torch.ones(2, 2) > 0])
def test_explicit_matrix_of_another_type(J):
    with pytest.raises(TypeError, match=r"J must be a floating-point tensor; got"):
        DiffusionMatrix.from_gradients(J)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (3 * 2**19, "1.5 MiB"),
        (2**30 - 1, "1024 MiB"),
        (2**32, "4 GiB"),
    ],
)
def test_sizes_in_words(limit, words):
    D = DiffusionMatrix.from_gradients(torch.zeros(2, 40000))
    with pytest.raises(MemoryError, match=rf"into {words}; .* it takes 5.96 GiB."):
        D.dense(limit)


def test_explicit_matrix_is_detached():
    D = DiffusionMatrix.from_gradients(randn(3, 2).requires_grad_())
    assert not D.dense().requires_grad


@pytest.mark.parametrize(
    ("v", "error", "text"),
    [
        (randn(4), ValueError, r"v must have shape \(3,\) or \(3, k\); got \(4,\)"),
        (randn(2, 3), ValueError, r"got \(2, 3\). Columns are vectors"),
        (randn(3, 1, 1), ValueError, r"got \(3, 1, 1\)"),
        (
            randn(3).float(),
            ValueError,
            "v must be torch.float64 on cpu like D; got torc",
        ),
        (torch.ones(3).long(), TypeError, "v must be a floating-point tensor; got tor"),
        (randn(3).numpy(), TypeError, "v must be a floating-point tensor; got ndarray"),
        (randn(3).to("meta"), ValueError, "on cpu like D; got torch.float64 on meta"),
    ],
)
def test_bad_vector(v, error, text):
    D = DiffusionMatrix.from_gradients(randn(4, 3))
    with pytest.raises(error, match=text):
        D @ v
    with pytest.raises(error, match=text):
        D.quadratic_form(v)


@pytest.mark.parametrize("k", [0, 4, -1, 1.0, True, None])
def test_bad_number_of_eigenpairs(k):
    text = r"k must be an integer from 1 to min\(d, N - 1\) = 3; got"
    for shape in ((4, 9), (9, 3)):
        with pytest.raises(ValueError, match=text):
            DiffusionMatrix.from_gradients(randn(*shape)).eigenpairs(k)


@pytest.mark.parametrize(
    ("limit", "text"), [(71, "71 bytes; with d = 3 it takes 72 bytes"), (0, "0 bytes")]
)
def test_limit_of_the_dense_matrix(limit, text):
    D = DiffusionMatrix.from_gradients(randn(4, 3))
    assert D.dense(limit=72).shape == (3, 3)
    with pytest.raises(MemoryError, match=rf"D as a matrix must fit into {text}"):
        D.dense(limit=limit)
