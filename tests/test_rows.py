"""The matrix of per-sample gradients, in blocks or by derivatives."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import F64, near, randn

from sgdbook import gradients
from sgdbook.rows import FunctionRows, Rows, columns_of, mirror, of_matrix, steps


def assert_rows(rows, J):
    """Every method of the rows agrees with the matrix J."""
    n, d = J.shape
    u, v = randn(n, 3, seed=5), randn(d, 3, seed=6)
    assert rows.shape == (n, d)
    assert near(torch.cat(list(rows.blocks())), J)
    assert near(rows.block(2, 5), J[2:5])
    assert near(rows.matvec(v), J @ v, atol=1e-12)
    assert near(rows.rmatvec(u), J.T @ u, atol=1e-12)
    gram = rows.gram()
    assert near(gram, J @ J.T, atol=1e-12)
    assert torch.equal(gram, gram.T)
    assert near(rows.norms(), J.square().sum(1), atol=1e-12)
    for product in (rows.matvec(v), rows.rmatvec(u), rows.block(0, 1)):
        assert not product.requires_grad


@pytest.mark.parametrize("block", [2**25, 200, 1])
def test_rows_of_a_matrix(block, monkeypatch):
    monkeypatch.setattr(gradients, "_BLOCK", block)
    J = randn(7, 90)
    assert_rows(of_matrix(J), J)
    assert of_matrix(J).fits() == (block == 2**25)


def test_gram_of_more_rows_than_a_tile(monkeypatch):
    J = randn(600, 5)
    for block in (2**25, 5 * 290):
        monkeypatch.setattr(gradients, "_BLOCK", block)
        gram = of_matrix(J).gram()
        assert near(gram, J @ J.T)
        assert torch.equal(gram, gram.T)


def test_largest_matrix():
    assert Rows((2**10, 2**15), None).fits()
    assert not Rows((2**10, 2**15 + 1), None).fits()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 40), st.integers(1, 12))
def test_steps_cut_without_gap_or_overlap(n, size):
    found = steps(n, size)
    assert [k for i, j in found for k in range(i, j)] == list(range(n))
    assert all(j - i <= size for i, j in found)
    assert len(found) == math.ceil(n / size)


@pytest.mark.parametrize("n", [1, 255, 256, 257, 700])
def test_mirror_reads_nothing_below_the_diagonal(n):
    full = randn(n, n)
    full = full + full.T
    below = torch.ones(n, n, dtype=torch.bool).tril(-1)
    assert torch.equal(mirror(full.masked_fill(below, math.nan)), full)


# --- by derivatives ------------------------------------------------------------------


def waves(x):
    """Losses of five samples, in three weights."""
    k = torch.arange(1, 6, dtype=x.dtype, device=x.device)
    return torch.sin(k * x[0]) * x[1] + x[2] ** 2 / k


POINT = torch.tensor([0.3, -1.2, 0.7], dtype=F64)


def by_hand(x=POINT):
    k = torch.arange(1, 6, dtype=F64)
    slopes = k * torch.cos(k * x[0]) * x[1], torch.sin(k * x[0]), 2 * x[2] / k
    return torch.stack(slopes, 1)


@pytest.mark.parametrize("step", [1, 2, 5, 9])
def test_function_rows(step):
    rows = FunctionRows(lambda x, i, j: waves(x)[i:j], POINT, 5, step=step)
    assert_rows(rows, by_hand())


@pytest.mark.parametrize("block", [1, 6, 9, 12])
def test_function_rows_by_blocks(block, monkeypatch):
    """Rows by backward derivatives where they are fewer than the weights."""
    monkeypatch.setattr(gradients, "_BLOCK", block)
    assert_rows(FunctionRows(lambda x, i, j: waves(x)[i:j], POINT, 5), by_hand())


def test_samples_at_a_time():
    seen = []

    def losses(x, i, j):
        seen.append((i, j))
        return waves(x)[i:j]

    rows = FunctionRows(losses, POINT, 5, step=2)
    rows.matvec(randn(3, 1))
    rows.rmatvec(randn(5, 3))
    assert seen == [(0, 2), (2, 4), (4, 5)] * 2


# --- columns -------------------------------------------------------------------------


def test_columns():
    v = randn(3)
    assert torch.equal(columns_of(v, randn(3), "D"), v[:, None])
    V = randn(3, 2)
    assert torch.equal(columns_of(V, randn(3), "D"), V)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_columns_must_be_finite(bad):
    v = randn(3, 2)
    v[1, 1] = bad
    with pytest.raises(ValueError, match=r"v must be finite; got NaN or infinity."):
        columns_of(v, randn(3), "D")
