"""SGD on quadratic losses: second moments, turning, and where they stop to settle."""

import math
from itertools import product

import pytest
import torch
from matrices import F64, matrix, near

from sgdbook import devices, linear, simulate
from sgdbook.linear import LinearSGD
from sgdbook.sgd import SGD


def test_additive_noise_by_formula():
    """Σ_ij = η S_ij / (h_i + h_j − η h_i h_j), and its turning."""
    h, eta = matrix([1.0, 3.0]), 0.3
    S = matrix([[1.0, 0.5], [0.5, 2.0]])
    sgd = LinearSGD.additive(torch.diag(h), S, learning_rate=eta)
    expected = eta * S / (h[:, None] + h - eta * h[:, None] * h)
    assert near(sgd.covariance, expected, 1e-14)
    assert near(sgd.sde_covariance, eta * S / (h[:, None] + h), 1e-14)
    L = eta * 0.5 * (1 - 3) / (4 - 3 * eta)
    assert near(sgd.angular_momentum, [[0, L], [-L, 0]], 1e-14)
    assert sgd.mean_square_radius == pytest.approx((1 - 0.3) ** 2, rel=1e-14)
    assert sgd.mean.tolist() == [0, 0]
    assert repr(sgd) == "LinearSGD(d = 2, learning rate 0.3, constant noise)"


def quadratics(N, d, seed):
    """Return Hessians with noise, and gradients."""
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(N, d, d, generator=g, dtype=F64) / math.sqrt(d)
    H = root @ root.mT + torch.eye(d, dtype=F64) / 2
    return (H + H.mT) / 2, torch.randn(N, d, generator=g, dtype=F64)


@pytest.mark.parametrize("sampling", ["replacement", "without-replacement"])
@pytest.mark.parametrize("b", [1, 2, 3])
def test_covariance_by_enumeration_of_batches(b, sampling):
    """The second moment is a fixed point of the average over all batches."""
    N, d, eta = 4, 2, 0.2
    H, g = quadratics(N, d, 1)
    sgd = LinearSGD.of_losses(H, g, learning_rate=eta, batch_size=b, sampling=sampling)
    batches = [
        list(batch)
        for batch in product(range(N), repeat=b)
        if sampling == "replacement" or len(set(batch)) == b
    ]
    m, C = sgd.mean, sgd.covariance
    one = torch.eye(d, dtype=F64)
    first, second = torch.zeros(d, dtype=F64), torch.zeros(d, d, dtype=F64)
    for batch in batches:
        A, shift = one - eta * H[batch].mean(0), -eta * g[batch].mean(0)
        at = A @ m + shift
        first += at
        second += A @ C @ A.T + torch.outer(at, at)
    first, second = first / len(batches), second / len(batches)
    assert near(first, m, 1e-13)
    assert near(second - torch.outer(first, first), C, 1e-12)
    assert "state-dependent" in repr(sgd)


def test_sde_covariance_is_the_limit_of_small_rates():
    """Both agree to first order in the rate, at noise of equal strength."""
    H, g = quadratics(5, 3, 2)
    gaps = []
    for eta in (0.02, 0.01):
        sgd = LinearSGD.of_losses(H, g, learning_rate=eta)
        gap = sgd.covariance - sgd.sde_covariance
        gaps.append(float(gap.norm() / sgd.covariance.norm()))
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)


def test_sde_covariance_by_hand():
    """In one dimension it is η s_g / (2h − η s_H), the algorithm's has − η h² too."""
    H, g = matrix([1.0, 2, 6]).reshape(3, 1, 1), matrix([[1.0], [-1], [0]])
    sgd = LinearSGD.of_losses(H, g, learning_rate=0.1, batch_size=2)
    s_g, s_H, h = (2 / 3) / 2, (14 / 3) / 2, 3.0
    assert near(sgd.sde_covariance, [[0.1 * s_g / (2 * h - 0.1 * s_H)]], 1e-13)
    expected = 0.1 * s_g / (2 * h - 0.1 * h**2 - 0.1 * s_H)
    assert near(sgd.covariance, [[expected]], 1e-13)
    radius = (1 - 0.1 * h) ** 2 + 0.1**2 * s_H
    assert sgd.mean_square_radius == pytest.approx(radius, rel=1e-13)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_second_moment_settles_exactly_below_radius_one(d):
    """The covariance exists on one side of the edge and raises on the other."""
    H, g = quadratics(6, d, 4)

    def at(rate):
        return LinearSGD.of_losses(H, g, learning_rate=rate)

    low, high = 0.01, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if at(middle).mean_square_radius < 1 else (low, middle)
        )
    assert bool((torch.linalg.eigvalsh(at(0.999 * low).covariance) > 0).all())
    with pytest.raises(ValueError, match=r"second moment of x does not settle|0 <"):
        _ = at(1.001 * low).covariance


def test_simulated_covariance_of_random_hessians():
    """Real SGD on the losses has the second moments of the formula."""
    N, d, eta = 4, 2, 0.1
    H, g = quadratics(N, d, 6)
    sgd = LinearSGD.of_losses(H, g, learning_rate=eta, batch_size=2)

    def gradient(x, batch):
        return (H[batch] @ x[:, None, :, None])[..., 0].mean(1) + g[batch].mean(1)

    process = SGD(gradient, samples=N, learning_rate=eta, batch_size=2)
    run = simulate.simulate(
        process,
        torch.zeros(d, dtype=F64),
        steps=150,
        paths=20_000,
        generator=devices.generator(3, "cpu"),
    )
    u = run.states - sgd.mean
    for i, j in ((0, 0), (0, 1), (1, 1)):
        values = u[:, i] * u[:, j]
        stderr = float(values.std()) / math.sqrt(len(values))
        assert abs(float(values.mean() - sgd.covariance[i, j])) < 4.5 * stderr


def test_full_batch_without_replacement_has_no_noise():
    """Then the stationary law is a point."""
    H, g = quadratics(3, 2, 9)
    sgd = LinearSGD.of_losses(
        H, g, learning_rate=0.1, batch_size=3, sampling="without-replacement"
    )
    assert not sgd.covariance.any()
    assert near(H.mean(0) @ sgd.mean, -g.mean(0), 1e-13)


# --- errors --------------------------------------------------------------------------

ONE = torch.eye(2, dtype=F64)
SGD_ERRORS = [
    ({"hessians": [1]}, TypeError, "hessians must be a floating-point tensor"),
    ({"hessians": ONE}, ValueError, r"shape \(N, d, d\) with N >= 2; got \(2, 2\)"),
    ({"hessians": ONE.expand(1, 2, 2)}, ValueError, "N >= 2"),
    ({"hessians": ONE.expand(3, 2, 2) * math.nan}, ValueError, "hessians must be fin"),
    ({"hessians": matrix([[[1, 2], [0, 5]]] * 3)}, ValueError, "must be symmetric"),
    ({"gradients": torch.ones(2, 2, dtype=F64)}, ValueError, "gradients must be"),
    ({"gradients": torch.ones(3, 2)}, ValueError, "gradients must be torch.float64"),
    ({"gradients": matrix([[math.inf, 0]] * 3)}, ValueError, "gradients must be fin"),
    ({"learning_rate": 0}, ValueError, "learning_rate must be a positive number"),
    ({"batch_size": 0}, ValueError, "batch_size must be a positive integer"),
    ({"batch_size": 4}, ValueError, "batch_size must be at most N = 3; got 4"),
    ({"sampling": "epochs"}, ValueError, "sampling must be one of replacement, with"),
    ({"hessians": 0 * ONE.expand(3, 2, 2)}, ValueError, "mean Hessian must not be s"),
]


@pytest.mark.parametrize(("changes", "error", "text"), SGD_ERRORS)
def test_errors_of_sgd(changes, error, text):
    """Each bad input has one clear error."""
    good = {
        "hessians": ONE.expand(3, 2, 2),
        "gradients": torch.zeros(3, 2, dtype=F64),
        "learning_rate": 0.1,
    }
    with pytest.raises(error, match=text):
        LinearSGD.of_losses(**{**good, **changes})


def test_errors_of_unstable_sgd():
    """A rate beyond the edge, a saddle, too many dimensions."""
    with pytest.raises(ValueError, match=r"learning_rate \* h runs from 2.5 to 2.5"):
        _ = LinearSGD.additive(ONE, ONE, learning_rate=2.5).covariance
    assert LinearSGD.additive(ONE, ONE, learning_rate=2.5).sde_covariance[0, 0] == 1.25
    saddle = torch.diag(matrix([1.0, -1.0]))
    with pytest.raises(ValueError, match="directions that do not curve up"):
        _ = LinearSGD.additive(saddle, ONE, learning_rate=0.1).sde_covariance
    with pytest.raises(ValueError, match="hessian must be symmetric"):
        LinearSGD.additive(matrix([[1, 2], [0, 5]]), ONE, learning_rate=0.1)
    with pytest.raises(ValueError, match="covariance must have no negative"):
        LinearSGD.additive(ONE, -ONE, learning_rate=0.1)
    d = linear._LARGEST + 1
    wide = torch.eye(d, dtype=F64).expand(2, d, d)
    sgd = LinearSGD.of_losses(wide, torch.zeros(2, d, dtype=F64), learning_rate=0.1)
    with pytest.raises(ValueError, match=r"d must be at most 60 .* got d = 61"):
        _ = sgd.covariance
