"""Jump processes against dense linear algebra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, null_space

from sgdbook import markov
from sgdbook.markov import JumpProcess


def ring(n, up, down, killing=0.0):
    """Jumps around a ring: eigenvalues and all else in closed form."""
    i = np.arange(n)
    start, end = np.r_[i, i], np.r_[(i + 1) % n, (i - 1) % n]
    rate = np.r_[np.full(n, up), np.full(n, down)]
    return JumpProcess(start, end, rate, np.full(n, killing))


def some(seed, n, killed):
    """A random process on n states in which every state reaches every other."""
    rng = np.random.default_rng(seed)
    rates = rng.exponential(size=(n, n)) * (rng.random((n, n)) < 0.5)
    rates[np.arange(n), (np.arange(n) + 1) % n] += 0.1
    np.fill_diagonal(rates, 0)
    start, end = rates.nonzero()
    killing = rng.random(n) * killed
    Q = rates.T - np.diag(rates.sum(1) + killing)
    return JumpProcess(start, end, rates[start, end], killing), Q


seeds, sizes = st.integers(0, 10**6), st.integers(3, 12)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seeds, sizes)
def test_against_dense_matrices(seed, n):
    process, Q = some(seed, n, killed=False)
    np.testing.assert_allclose(process.matrix.toarray(), Q, rtol=1e-14, atol=1e-14)
    law = null_space(Q)[:, 0]
    np.testing.assert_allclose(process.stationary(), law / law.sum(), rtol=1e-10)
    hit = np.arange(n) < 2
    time = process.hitting_time(hit)
    assert (time[hit] == 0).all()
    there = Q[~hit][:, ~hit]
    np.testing.assert_allclose(
        there.T @ time[~hit], -np.ones((~hit).sum()), rtol=0, atol=1e-10
    )
    values, vector = process.eigenpairs(3)
    exact = np.linalg.eigvals(Q)
    np.testing.assert_allclose(
        np.abs(values), np.sort(np.abs(exact))[:3], rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(vector / vector.sum(), law / law.sum(), rtol=1e-9)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seeds, sizes, st.floats(0.01, 200.0), st.booleans(), st.booleans())
def test_flow_is_the_exponential(seed, n, time, killed, forward):
    process, Q = some(seed, n, killed)
    v = np.random.default_rng(seed + 1).random(n)
    found = process.flow(v, [0.0, time, 2 * time, 3.5 * time], forward=forward)
    matrix = Q if forward else Q.T
    for u, t in zip(found, (0, time, 2 * time, 3.5 * time), strict=True):
        np.testing.assert_allclose(u, expm(t * matrix) @ v, rtol=1e-9, atol=1e-300)
    if forward and not killed:
        np.testing.assert_allclose(found.sum(1), v.sum(), rtol=1e-13)


@pytest.mark.parametrize("n", [markov.DENSE // 2, markov.DENSE // 2 + 1])
def test_eigenvalues_of_a_large_ring(n):
    up, down, killing = 3.0, 1.0, 0.01
    k = np.array([0, 1, -1, 2, -2])
    wave = 2 * np.pi * k / n
    exact = up * np.expm1(-1j * wave) + down * np.expm1(1j * wave) - killing
    values, vector = ring(n, up, down, killing).eigenpairs(5)
    assert values.dtype == complex
    for value in exact:
        assert np.abs(values - value).min() < 1e-10
    assert abs(values[0] + killing) < 1e-10
    np.testing.assert_allclose(vector / vector[0], 1, rtol=1e-6)


def test_flow_with_many_states():
    """More than a matrix may hold: a packet drifts and spreads, mass stays."""
    n = markov.DENSE + 1
    v = np.zeros(n)
    v[300] = 1.0
    (p,) = ring(n, 3.0, 1.0).flow(v, [100.0])
    i = np.arange(n)
    assert p.sum() == pytest.approx(1, rel=1e-12)
    assert p.min() >= 0
    assert p @ i == pytest.approx(500, rel=1e-11)
    assert p @ (i - 500.0) ** 2 == pytest.approx(400, rel=1e-9)
    squares = ring(40, 3.0, 1.0).flow(np.eye(40)[0], [0.5, 1000.0])
    np.testing.assert_allclose(squares[1], 1 / 40, rtol=1e-9)


def test_survivors():
    """The slowest mode of a line that is left at one end: a sine."""
    n = 9
    i = np.arange(n - 1)
    killing = np.zeros(n)
    killing[[0, -1]] = 1.0
    line = JumpProcess(np.r_[i, i + 1], np.r_[i + 1, i], np.ones(2 * n - 2), killing)
    wave = np.sin(np.pi * np.arange(1, n + 1) / (n + 1))
    none = np.zeros(n, dtype=bool)
    np.testing.assert_allclose(line.survivors(none), wave, rtol=1e-6)
    hit = np.arange(n) == 4
    left = line.survivors(hit)
    assert left[4] == 0 and left.max() == 1
    np.testing.assert_allclose(left[[0, 3]], np.sqrt(0.5 - np.sqrt(5) / 10) /
                               np.sqrt(0.5 + np.sqrt(5) / 10), rtol=1e-6)  # fmt: skip


def test_the_door():
    one = np.zeros(2)
    for rate in ([-1.0, 1.0], [np.nan, 1.0], [np.inf, 1.0]):
        with pytest.raises(ValueError, match="every rate must be finite and at least"):
            JumpProcess([0, 1], [1, 0], rate, one)
    with pytest.raises(ValueError, match="every killing must be finite"):
        JumpProcess([0, 1], [1, 0], [1.0, 1.0], one - 1)
    with pytest.raises(ValueError, match="that is killed has no stationary law"):
        JumpProcess([0, 1], [1, 0], [1.0, 1.0], one + 1).stationary()
    switch = JumpProcess([0, 1], [1, 0], [1.0, 1e-11], one)
    with pytest.raises(ArithmeticError, match=r"time is beyond 4.5e.09 and lost"):
        switch.hitting_time(np.array([True, False]))
    switch.hitting_time(np.array([False, True]))
    stuck = JumpProcess([0, 1], [1, 0], [1.0, 0.0], one)
    with pytest.raises(ArithmeticError, match="some states never leave"):
        stuck.hitting_time(np.array([True, False]))
    small = JumpProcess([0, 1], [1, 0], [1.0, 1.0], one, limit=100)
    with pytest.raises(MemoryError, match="2 cells take about 0 MiB"):
        small.stationary()
    for times in ([2.0, 1.0], [-1.0, 0.0], [np.nan], []):
        with pytest.raises(
            ValueError, match="times must be finite, at least 0 and inc"
        ):
            switch.flow(np.ones(2), times)


def test_a_precise_law_of_rare_and_common_states():
    """A line of wells: each state is 1000 times rarer than the one before."""
    n = 60
    i = np.arange(n - 1)
    rate = np.r_[np.full(n - 1, 1e-3), np.ones(n - 1)]
    line = JumpProcess(np.r_[i, i + 1], np.r_[i + 1, i], rate, np.zeros(n))
    law = line.stationary()
    np.testing.assert_allclose(law[1:] / law[:-1], 1e-3, rtol=1e-12)
