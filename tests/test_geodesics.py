"""Geodesics and descents against closed forms, conserved quantities and each other."""

import math

import numpy as np
import pytest
import torch
from networks import F64, near, randn, seeded, wide
from torch.func import hessian, jacfwd
from torch.nn.functional import cross_entropy

from sgdbook import devices, gradients, nets
from sgdbook.geodesics import METRICS, DiffusionGeometry


def tensor(*numbers):
    return torch.tensor(numbers, dtype=F64)


def bowl(x):
    """Losses ±|x|²/2, whose graph is a paraboloid: D = x xᵀ."""
    half = x.square().sum() / 2
    return torch.stack([half, -half])


def quadratics(x):
    """Losses of one Hessian and several slopes: D and the Hessian are constant."""
    h = tensor([2.0, 0.5], [0.5, 1.0])
    slopes = tensor([1.0, 0.3], [-0.4, 1.1], [0.2, -0.9])
    return x @ h @ x / 2 + slopes @ x


def small(n=6):
    model = seeded(nets.mlp([2, 2, 2], "tanh", seed=0, device="cpu"))
    inputs, targets = randn(n, 2, seed=2), torch.arange(n) % 2
    return model, cross_entropy, inputs, targets


TIMES = torch.linspace(0, 2, 9, dtype=F64)


# --- truths --------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.0, 0.7, 50.0])
def test_geodesics_of_a_parabola_have_constant_speed(epsilon):
    """In one dimension arc length, which is known, grows linearly."""

    def length(x):
        if not epsilon:
            return x
        root = math.sqrt(epsilon)
        return (x * np.sqrt(1 + epsilon * x**2) + np.arcsinh(root * x) / root) / 2

    geometry = DiffusionGeometry.of_losses(bowl, epsilon)
    path = geometry.geodesic(tensor(-0.5), tensor(1.5), TIMES)
    run = length(path.positions[:, 0].numpy())
    assert np.allclose(run - run[0], path.speeds[0] * TIMES, rtol=1e-8, atol=1e-10)
    assert float(path.speeds[0]) == pytest.approx(1.5 * math.sqrt(1 + epsilon / 4))


def test_geodesics_of_a_paraboloid_obey_clairaut():
    """Turning the plane keeps the metric, and with it the angular momentum."""
    geometry = DiffusionGeometry.of_losses(bowl, 3.0)
    path = geometry.geodesic(tensor(1.0, 0.2), tensor(-0.3, 1.0), TIMES)
    x, v = path.positions.T, path.velocities.T
    momentum = x[0] * v[1] - x[1] * v[0]
    assert near(momentum, momentum[0].expand(9), atol=1e-9)
    assert near(path.speeds, path.speeds[0].expand(9), atol=1e-9)
    assert float((path.positions[-1] - x[:, 0] - 2 * v[:, 0]).norm()) > 0.5  # bent


def test_geodesic_minimises_length():
    """A geodesic is shorter than its neighbours with the same ends."""
    geometry = DiffusionGeometry.of(*small(), 2.0)
    x = nets.flatten(small()[0])
    v = randn(len(x), seed=5) / 4
    times = torch.linspace(0, 1, 41, dtype=F64)
    path = geometry.geodesic(x, v, times)
    losses = gradients.losses_of(*small())

    def length(bump):
        points = path.positions + bump * torch.sin(torch.pi * times)[:, None] * w
        spread = torch.stack([losses(p) - losses(p).mean() for p in points])
        lifted = torch.cat([points, spread * math.sqrt(2 / 6)], 1)
        return float(lifted.diff(dim=0).norm(dim=1).sum())

    for seed in range(3):
        w = randn(len(x), seed=seed)
        assert length(0.0) < length(1e-2) and length(0.0) < length(-1e-2)


def test_descents_of_constant_noise():
    r"""The closed form: x(t) = x_* + exp(−M H t)(x_0 − x_*), M the raised metric."""
    epsilon, x = 0.3, tensor(1.0, -2.0)
    geometry = DiffusionGeometry.of_losses(quadratics, epsilon)
    H, J = hessian(lambda y: quadratics(y).mean())(x), jacfwd(quadratics)(x)
    eps_D, one = epsilon * J.T.cov(correction=0), torch.eye(2, dtype=F64)
    rest = x - torch.linalg.solve(H, geometry.gradient(x))
    raised = {"euclidean": one, "weak": one - eps_D, "exact": (one + eps_D).inverse()}
    for metric in METRICS:
        path = geometry.descend(x, TIMES, metric)
        decay = torch.matrix_exp(-raised[metric] @ H * TIMES[:, None, None])
        assert near(path.positions, rest + decay @ (x - rest), atol=1e-8)
        slope = geometry.gradient(path.positions[3])
        assert near(path.velocities[3], -raised[metric] @ slope, atol=1e-12)
    assert near(geometry.hessian_product(x, x), H @ x)
    path = geometry.geodesic(x, x, TIMES)
    assert near(path.positions, x + TIMES[:, None] * x, atol=1e-10)


def test_network_and_function_agree():
    problem = small()
    losses, x = gradients.losses_of(*problem), nets.flatten(problem[0])
    v, y = randn(len(x), seed=3), x + 0.1
    network = DiffusionGeometry.of(*problem, 1.5)
    function = DiffusionGeometry.of_losses(losses, 1.5)
    with torch.no_grad():  # what becomes of the model does not matter
        for p in problem[0].parameters():
            p.fill_(torch.nan)
    for one, other in (
        (network.at(y).matvec(v), function.at(y).matvec(v)),
        (network.gradient(y), function.gradient(y)),
        (network.geodesic(y, v, TIMES).positions,) * 2,
        (
            network.geodesic(y, v, TIMES[:3]).positions,
            function.geodesic(y, v, TIMES[:3]).positions,
        ),
    ):
        assert near(one, other, atol=1e-9)
    assert nets.flatten(problem[0]).isnan().all()  # nor is it touched
    assert float(network.loss(y)) == pytest.approx(float(losses(y).mean()))


def test_the_solver_is_handed_on():
    problem = small()
    x = nets.flatten(problem[0])
    for geometry in (
        DiffusionGeometry.of(*problem, 1.0, solver="cg"),
        DiffusionGeometry.of_losses(bowl, 1.0, solver="cg"),
    ):
        assert geometry.at(x).solver == "cg"


def test_a_hundred_thousand_weights():
    """Nothing of size d x d: that would be 80 GB."""
    d = 100_000
    losses, _ = wide(100, d)
    x, v = randn(d) / 7, randn(d, seed=1) / 30
    geometry = DiffusionGeometry.of_losses(losses, 1.0)
    times = tensor(0.0, 0.4)
    path = geometry.geodesic(x, v, times, rtol=1e-6)
    assert near(path.speeds, path.speeds[0].expand(2), rtol=1e-6)
    assert float((path.positions[-1] - x - 0.4 * v).norm()) > 1e-4
    down = geometry.descend(x, times, "exact", rtol=1e-6)
    assert geometry.loss(down.positions[-1]) < geometry.loss(x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_the_gpu():
    model, loss, x, y = small()
    device = devices.device("cuda")
    here = DiffusionGeometry.of(model, loss, x, y, 2.0)
    start = nets.flatten(model)
    v = randn(len(start))
    there = DiffusionGeometry.of(
        model.to(device), loss, x.to(device), y.to(device), 2.0
    )
    one = here.geodesic(start, v, TIMES)
    other = there.geodesic(start.to(device), v.to(device), TIMES)
    assert other.positions.device.type == "cuda"
    assert near(other.positions.cpu(), one.positions, atol=1e-8)


# --- the door ------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [4.0, 1e-3])
def test_a_kink_costs_a_geodesic_its_speed(epsilon):
    """Also where it is a little: G jumps from 1 to 1 + epsilon/4."""

    def losses(x):
        return torch.cat([torch.relu(x), 0 * x])

    geometry = DiffusionGeometry.of_losses(losses, epsilon)
    with pytest.raises(ArithmeticError, match=r"keep its speed.*went from 1 .*kinks"):
        geometry.geodesic(tensor(-1.0), tensor(1.0), TIMES)


def test_bad_metric():
    geometry = DiffusionGeometry.of_losses(bowl, 1.0)
    with pytest.raises(ValueError, match="metric must be one of euclidean, weak, exa"):
        geometry.descend(tensor(1.0), TIMES, "riemannian")
    with pytest.raises(ValueError, match="epsilon must be a number of at least 0"):
        DiffusionGeometry.of_losses(bowl, -1.0).at(tensor(1.0))
    with pytest.raises(ValueError, match="epsilon must be a number of at least 0"):
        DiffusionGeometry.of(*small(), math.nan)
