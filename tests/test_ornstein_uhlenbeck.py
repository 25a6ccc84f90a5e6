"""The Ornstein-Uhlenbeck process: its law, its current, its entropy production."""

import math
from itertools import product

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import F64, matrix, near
from scipy.integrate import solve_ivp

from sgdbook import devices, simulate
from sgdbook.ornstein_uhlenbeck import OrnsteinUhlenbeck
from sgdbook.process import Process


def random(d, seed, *, rank=None):
    """Return a symmetric drift, a general stable one, and a diffusion."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=F64)

    root = normal(d, d)
    H = root @ root.T / d + 0.3 * torch.eye(d, dtype=F64)
    turn = normal(d, d)
    A = H + turn - turn.T
    J = normal(d, d if rank is None else rank)
    return (H + H.T) / 2, A, J @ J.T / d


def lyapunov(A, right):
    """Solve A S + S Aᵀ = right with 40 digits, by elimination."""
    with mpmath.workdps(40):
        d = len(A)
        A = [[mpmath.mpf(float(a)) for a in row] for row in A]
        big = mpmath.zeros(d * d)
        b = mpmath.matrix(d * d, 1)
        for i, j in product(range(d), repeat=2):
            b[i * d + j] = mpmath.mpf(float(right[i, j]))
            for k in range(d):
                big[i * d + j, k * d + j] += A[i][k]
                big[i * d + j, i * d + k] += A[j][k]
        return mpmath.lu_solve(big, b)


# --- the stationary state -------------------------------------------------------------


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("d", [1, 2, 4])
def test_covariance_against_forty_digits(d, general):
    """Σ solves A Σ + Σ Aᵀ = 2 T D."""
    H, A, D = random(d, d)
    A = A if general else H
    found = OrnsteinUhlenbeck(A, D, 0.7).covariance
    truth = lyapunov(A, 2 * 0.7 * D)
    expected = matrix([[float(truth[i * d + j]) for j in range(d)] for i in range(d)])
    assert near(found, expected, 1e-12)
    assert torch.equal(found, found.T)


def test_closed_form_in_two_dimensions():
    """Q, angular momentum, frequency and entropy production by formula."""
    h1, h2, d11, d12, d22, T = 1.3, 0.4, 0.9, 0.5, 1.7, 0.25
    ou = OrnsteinUhlenbeck(
        torch.diag(matrix([h1, h2])), matrix([[d11, d12], [d12, d22]]), T
    )
    q = d12 * (h1 - h2) / (h1 + h2)
    assert near(ou.antisymmetric, [[0, q], [-q, 0]], 1e-14)
    assert near(ou.angular_momentum, [[0, 2 * T * q], [-2 * T * q, 0]], 1e-14)
    top = d12**2 * h1 * h2 * (h1 - h2) ** 2
    omega = math.sqrt(top / (d11 * d22 * (h1 + h2) ** 2 - 4 * d12**2 * h1 * h2))
    assert ou.frequencies.tolist() == pytest.approx([omega], rel=1e-13)
    det = d11 * d22 - d12**2
    rate = d12**2 * (h1 - h2) ** 2 / ((h1 + h2) * det)
    assert ou.entropy_production == pytest.approx(rate, rel=1e-13)
    assert repr(ou) == "OrnsteinUhlenbeck(d = 2, T = 0.25)"


@pytest.mark.parametrize("general", [False, True])
def test_the_current_keeps_the_law(general):
    """A = (D + Q) P, j = Bx is orthogonal to the gradient of Φ, and B has no trace."""
    H, A, D = random(5, 3)
    ou = OrnsteinUhlenbeck(A if general else H, D, 0.3)
    P, Q, B = ou.potential, ou.antisymmetric, ou.current
    assert near((D + Q) @ P, ou.drift, 1e-12)
    assert near(B, -ou.drift + D @ P, 1e-11)
    assert near(P @ ou.covariance, 0.3 * torch.eye(5, dtype=F64), 1e-12)
    assert torch.equal(Q, -Q.T)
    product = P @ B
    assert float((product + product.T).abs().max()) < 1e-12 * float(product.abs().max())
    assert abs(float(B.trace())) < 1e-12 * float(B.abs().max())
    values = torch.linalg.eigvals(B)
    spinning = values.imag.sort(descending=True).values[:2]
    assert near(ou.frequencies, spinning, 1e-10)


@pytest.mark.parametrize("general", [False, True])
def test_entropy_production_is_the_mean_of_the_current(general):
    """It is E[jᵀ D⁻¹ j] / T, a trace; and minus the divergence of the drift, raised."""
    H, A, D = random(4, 8)
    T = 0.6
    A = A if general else H
    ou = OrnsteinUhlenbeck(A, D, T)
    B, S = ou.current, ou.covariance
    direct = float((B.T @ torch.linalg.solve(D, B) @ S).trace()) / T
    assert ou.entropy_production == pytest.approx(direct, rel=1e-11)
    # flux times force: tr(Aᵀ D⁻¹ A Σ) / T − tr A
    other = float((A.T @ torch.linalg.solve(D, A) @ S).trace()) / T - float(A.trace())
    assert ou.entropy_production == pytest.approx(other, rel=1e-10)


def test_no_temperature_in_velocity_frequency_and_entropy_production():
    """All three are the same at any temperature; the angular momentum is not."""
    H, _, D = random(4, 1)
    cold, hot = OrnsteinUhlenbeck(H, D, 0.01), OrnsteinUhlenbeck(H, D, 10.0)
    assert near(cold.current, hot.current, 1e-11)
    assert near(cold.frequencies, hot.frequencies, 1e-11)
    assert cold.entropy_production == pytest.approx(hot.entropy_production, rel=1e-11)
    assert near(cold.angular_momentum * 1000, hot.angular_momentum, 1e-12)


def test_equilibrium_where_drift_and_diffusion_commute():
    """Nothing turns, to the last bit in one eigenbasis."""
    H, D = torch.diag(matrix([1.0, 2, 3])), torch.diag(matrix([3.0, 1, 0.5]))
    ou = OrnsteinUhlenbeck(H, D)
    assert not ou.antisymmetric.any()
    assert ou.frequencies.tolist() == [0.0]
    assert ou.entropy_production == 0.0


def test_singular_noise_has_a_covariance_and_no_density():
    """Noise of rank one in two independent directions of one rate stays on a line."""
    D = matrix([[1.0, 1], [1, 1]])
    ou = OrnsteinUhlenbeck(torch.eye(2, dtype=F64), D)
    assert near(ou.covariance, D, 1e-14)
    with pytest.raises(ValueError, match="stationary covariance is singular"):
        _ = ou.potential
    # two rates spread it over the plane, but the current leaves the range of D
    ou = OrnsteinUhlenbeck(torch.diag(matrix([1.0, 2])), D)
    assert float(torch.linalg.det(ou.covariance)) > 0
    assert ou.entropy_production == math.inf


def test_momentum_turns_like_its_oscillator():
    """Friction with the noise to match: Gibbs, with the flow of Hamilton as current."""
    h, zeta = 2.5, 0.4
    A = matrix([[0, -1], [h, zeta]])
    ou = OrnsteinUhlenbeck(A, matrix([[0, 0], [0, zeta]]), 0.2)
    assert near(ou.covariance, [[0.2 / h, 0], [0, 0.2]], 1e-13)
    assert near(ou.current, [[0, 1], [-h, 0]], 1e-13)
    assert ou.frequencies.tolist() == pytest.approx([math.sqrt(h)], rel=1e-13)
    assert ou.entropy_production == math.inf


def test_transient_against_an_ode_solver():
    """Mean and covariance follow their differential equations."""
    _, A, D = random(3, 5)
    T, times = 0.4, matrix([0.0, 0.3, 2.0])
    mean, cov = matrix([1.0, -2, 0.5]), matrix([[2.0, 0.5, 0], [0.5, 1, 0], [0, 0, 0]])
    means, covariances = OrnsteinUhlenbeck(A, D, T).transient(times, mean, cov)
    a, noise = A.numpy(), 2 * T * D.numpy()

    def slope(_, y):
        c = y[3:].reshape(3, 3)
        return np.concatenate([-a @ y[:3], (noise - a @ c - c @ a.T).ravel()])

    start = np.concatenate([mean, cov.flatten()])
    options = {"rtol": 1e-12, "atol": 1e-13, "method": "DOP853"}
    y = solve_ivp(slope, (0, 2), start, t_eval=times.numpy(), **options).y.T
    assert near(means, y[:, :3], 1e-10)
    assert near(covariances.reshape(3, 9), y[:, 3:], 1e-10)
    assert torch.equal(covariances, covariances.mT)


def test_relative_entropy_against_torch_and_near_zero():
    """It agrees with torch.distributions, and keeps its digits near the minimum."""
    H, _, D = random(4, 2)
    ou = OrnsteinUhlenbeck(H, D, 0.5)
    other = OrnsteinUhlenbeck(*random(4, 7)[::2]).covariance
    mean = matrix([1.0, 0, -1, 2])
    normal = torch.distributions.MultivariateNormal
    expected = torch.distributions.kl_divergence(
        normal(mean, other), normal(torch.zeros(4, dtype=F64), ou.covariance)
    )
    assert near(ou.relative_entropy(mean, other), expected, 1e-11)
    zero = torch.zeros(2, 4, dtype=F64)
    both = ou.covariance * matrix([1 + 1e-6, 1.0])[:, None, None]
    found = ou.relative_entropy(zero, both)
    assert float(found[0]) == pytest.approx(4 * (1e-12 / 4 - 1e-18 / 6), rel=1e-8)
    assert abs(float(found[1])) < 1e-28
    flat = torch.zeros(4, 4, dtype=F64)
    assert float(ou.relative_entropy(zero[0], flat)) == math.inf


def test_relative_entropy_decreases_along_the_path():
    """Boltzmann's theorem, with a strong current."""
    _, A, D = random(3, 11)
    ou = OrnsteinUhlenbeck(A, D)
    times = torch.linspace(0, 3, 40, dtype=F64)
    start = matrix([3.0, 0, 0]), 0.1 * torch.eye(3, dtype=F64)
    values = ou.relative_entropy(*ou.transient(times, *start))
    assert bool((values.diff() < 0).all())


def test_simulated_angular_momentum():
    """Paths of the process turn as the formula says."""
    H, _, D = random(2, 4)
    T, dt = 0.5, 0.002
    ou = OrnsteinUhlenbeck(H, D, T)
    root = torch.linalg.cholesky(2 * T * D)
    process = Process(
        lambda x: -x @ H, lambda x: root.expand(len(x), 2, 2), dimension=2
    )
    g = devices.generator(0, "cpu")
    start = torch.linalg.cholesky(ou.covariance) @ torch.randn(
        2, 60_000, generator=g, dtype=F64
    )
    steps = 25
    run = simulate.simulate(
        process, start.T.contiguous(), steps=steps, dt=dt, paths=60_000, generator=g
    )
    # over a short time, x(0) × x(t) grows at the rate L₁₂
    turned = (start[0] * run.states[:, 1] - start[1] * run.states[:, 0]) / (steps * dt)
    flow = torch.linalg.matrix_exp(-steps * dt * H) @ ou.covariance / (steps * dt)
    expected = float(flow[1, 0] - flow[0, 1])
    stderr = float(turned.std()) / math.sqrt(len(turned))
    assert abs(float(turned.mean()) - expected) < 4 * stderr
    assert abs(expected) > 8 * stderr


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    h=st.lists(st.floats(0.1, 3), min_size=2, max_size=4),
    scale=st.floats(0.1, 10),
    seed=st.integers(0, 99),
)
def test_change_of_units(h, scale, seed):
    """x → cx multiplies D by c² and leaves rates, frequencies and entropies."""
    d = len(h)
    D = random(d, seed)[2] + 0.1 * torch.eye(d, dtype=F64)
    H = torch.diag(matrix(h))
    one, other = OrnsteinUhlenbeck(H, D), OrnsteinUhlenbeck(H, scale**2 * D)
    assert near(other.covariance, scale**2 * one.covariance, 1e-12)
    size = 1e-12 * float(H.max())
    assert near(other.current, one.current, 1e-9) or float(one.current.norm()) < size
    assert other.entropy_production == pytest.approx(
        one.entropy_production, rel=1e-9, abs=1e-20
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_cuda():
    """The same numbers on the other device."""
    H, _, D = random(3, 1)
    cuda = devices.device("cuda")
    here, there = OrnsteinUhlenbeck(H, D), OrnsteinUhlenbeck(H.to(cuda), D.to(cuda))
    assert near(there.covariance.cpu(), here.covariance, 1e-12)
    assert there.covariance.device.type == "cuda"


# --- errors --------------------------------------------------------------------------

ONE = torch.eye(2, dtype=F64)
OU_ERRORS = [
    (([[1.0]], ONE), TypeError, "drift must be a floating-point tensor; got list"),
    ((torch.ones(2, dtype=F64), ONE), ValueError, "drift must be a square matrix"),
    ((torch.ones(0, 0, dtype=F64), ONE), ValueError, "must be a square matrix"),
    ((ONE * math.nan, ONE), ValueError, "drift must be finite; 4 of 4"),
    ((-ONE, ONE), ValueError, "positive real part; the least is -1"),
    ((0 * ONE, ONE), ValueError, "positive real part; the least is 0"),
    ((ONE, ONE[:1]), ValueError, r"diffusion must be .* of shape \(2, 2\)"),
    ((ONE, ONE.float()), ValueError, "diffusion must be torch.float64"),
    ((ONE, ONE.expand(3, 2, 2)), ValueError, "diffusion must be"),
    ((ONE, ONE * math.inf), ValueError, "diffusion must be finite"),
    ((ONE, matrix([[1, 2], [0, 5]])), ValueError, "symmetric; entries differ by 2"),
    ((ONE, -ONE), ValueError, "no negative eigenvalue; the smallest is -1"),
    ((ONE, ONE, 0.0), ValueError, "temperature must be a positive number; got 0.0"),
    ((ONE, ONE, -1), ValueError, "temperature must be a positive number"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), OU_ERRORS)
def test_errors_of_the_process(arguments, error, text):
    """Each bad input has one clear error."""
    with pytest.raises(error, match=text):
        OrnsteinUhlenbeck(*arguments)


TRANSIENT_ERRORS = [
    ({"times": [0.0]}, TypeError, "times must be a floating-point tensor"),
    ({"times": matrix([-1.0])}, ValueError, r"at least 0; got \[-1.0\]"),
    ({"times": ONE}, ValueError, "times must be a vector"),
    ({"times": torch.full((20,), math.nan)}, ValueError, r"got \(20,\)"),
    ({"mean": matrix([1.0])}, ValueError, r"mean must be .* of shape \(2,\)"),
    ({"mean": matrix([1.0, math.nan])}, ValueError, "mean must be finite; 1 of 2"),
    ({"covariance": -ONE}, ValueError, "covariance must have no negative eigenvalue"),
]


@pytest.mark.parametrize(("changes", "error", "text"), TRANSIENT_ERRORS)
def test_errors_of_the_transient(changes, error, text):
    """Each bad input has one clear error."""
    good = {"times": matrix([0.0]), "mean": matrix([0.0, 0]), "covariance": ONE}
    with pytest.raises(error, match=text):
        OrnsteinUhlenbeck(ONE, ONE).transient(**{**good, **changes})


def test_errors_of_the_relative_entropy():
    """Shapes must fit each other, and each C be a covariance."""
    ou = OrnsteinUhlenbeck(ONE, ONE)
    with pytest.raises(ValueError, match=r"mean must have the shape \(3, 2\)"):
        ou.relative_entropy(torch.zeros(2, dtype=F64), ONE.expand(3, 2, 2))
    with pytest.raises(ValueError, match="no negative eigenvalue"):
        ou.relative_entropy(torch.zeros(2, dtype=F64), -ONE)
    with pytest.raises(TypeError, match="mean must be a floating-point tensor"):
        ou.relative_entropy([0.0, 0.0], ONE)
