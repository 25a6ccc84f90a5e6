"""Schemes by exact moments of one step, in both forms of a process."""

import math
from itertools import product

import numpy as np
import pytest
import sympy as sp
import torch
from scipy.linalg import expm

from sgdbook.devices import generator
from sgdbook.process import Process
from sgdbook.schemes import SCHEMES, ByCoordinate, Whole, draws, evaluations, scheme_of
from sgdbook.sde import SDE

x, y = sp.symbols("x y", real=True)
ORDER = {"euler-maruyama": 1, "platen": 2}
THETA = {"ito": 0, "stratonovich": 0.5, "anti-ito": 1}


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def quadrature(noises, signs, nodes=6):
    """Return draws and weights that average over normal numbers and signs exactly."""
    at, weight = np.polynomial.hermite_e.hermegauss(nodes)
    weight = weight / weight.sum()
    axes = [(at, weight)] * noises + [(np.array([-1, 1]), np.array([0.5, 0.5]))] * signs
    xi = double(list(product(*(a for a, _ in axes))))
    return xi, double(list(product(*(w for _, w in axes)))).prod(1)


def after_a_step(process, start, scheme, dt, form=Whole, nodes=6):
    """Return all positions that one step may reach, and their weights."""
    shape = form(process, start[None])
    count = draws(shape, scheme)
    xi, weight = quadrature(shape.noises, count - shape.noises, nodes)
    at = start.repeat(len(xi), 1)
    step = scheme_of(scheme)
    if form is Whole:
        (new,) = step(shape, [at], xi, dt)
    else:
        new = torch.stack(step(shape, list(at.unbind(1)), list(xi.unbind(1)), dt), 1)
    return new, weight


def slope(errors, dts):
    """Return the exponent of the errors between the last two steps."""
    return math.log(errors[-2] / errors[-1]) / math.log(dts[-2] / dts[-1])


A = double([[-0.7, 0.4], [-0.2, -0.5]])
LINEAR = {
    "two noises": double([[[0.6, 0.3], [0.0, 0.4]], [[0.1, -0.5], [0.7, 0.2]]]),
    "three noises": double(
        [
            [[0.6, 0.3], [0.0, 0.4]],
            [[0.1, -0.5], [0.7, 0.2]],
            [[0.0, 0.8], [-0.3, 0.1]],
        ]
    ),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("B", LINEAR.values(), ids=LINEAR)
def test_second_moments_of_a_linear_process(B, scheme):
    """dX = A X dt + sum_k B_k X dW_k: M' = A M + M A^T + sum_k B_k M B_k^T.

    The matrices B_k do not commute, so that signs of the mixed integrals count.
    """
    assert float((B[0] @ B[1] - B[1] @ B[0]).abs().max()) > 0.2
    process = Process(
        lambda x: x @ A.T, lambda x: torch.einsum("kij,pj->pik", B, x), dimension=2
    )
    start, one = double([1.0, -0.6]), torch.eye(2, dtype=torch.float64)
    rate = torch.kron(A, one) + torch.kron(one, A)
    rate = (rate + sum(torch.kron(b, b) for b in B)).numpy()
    moment = torch.outer(start, start).flatten().numpy()
    dts, errors, means = (0.04, 0.02, 0.01), [], []
    for dt in dts:
        new, weight = after_a_step(process, start, scheme, dt, nodes=4)
        found = torch.einsum("q,qi,qj->ij", weight, new, new).flatten().numpy()
        errors.append(np.abs(found - expm(dt * rate) @ moment).max())
        mean = (weight[:, None] * new).sum(0).numpy()
        means.append(np.abs(mean - expm(dt * A.numpy()) @ start.numpy()).max())
    assert slope(errors, dts) == pytest.approx(ORDER[scheme] + 1, abs=0.1)
    assert slope(means, dts) == pytest.approx(ORDER[scheme] + 1, abs=0.1)


NONLINEAR = {
    "one noise": SDE(x - x**3, sp.sqrt(1 + x**2) / 2, x, convention="ito"),
    "constant noise": SDE(x - x**3, sp.Rational(1, 2), x, convention="ito"),
    "underdamped": SDE(
        [y, x - x**3 - y],
        sp.Matrix([[0], [sp.sqrt(1 + x**2) / 2]]),
        [x, y],
        convention="ito",
    ),
    "two noises": SDE(
        [x - x**3 + y / 3, -y - x * y / 2],
        sp.Matrix([[sp.sqrt(1 + y**2) / 2, sp.sin(x)], [x / 3, 1 + x * y / 4]]),
        [x, y],
        convention="ito",
    ),
    "two of their own": SDE(
        [-x + y**2, x - y], [sp.cos(y) / 2, 1 + x / 3], [x, y], convention="ito"
    ),
}


@pytest.mark.parametrize("form", [Whole, ByCoordinate])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("sde", NONLINEAR.values(), ids=NONLINEAR)
def test_moments_of_a_step(sde, scheme, form):
    """E f = f + dt L f + dt^2 L^2 f / 2 up to the third order, L the generator."""
    at = dict(zip(sde.variables, (0.8, -0.5), strict=False))
    start = double(list(at.values()))
    functions = [x, x**2, x**3]
    if len(at) == 2:
        functions = [x, y, x**2, x * y, y**2, x**2 * y, y**3]
    dts = (0.02, 0.01, 0.005)
    first = [sde.generator(f) for f in functions]
    second = [sde.generator(f) for f in first]
    truth = [
        [float(sp.N(e.xreplace(at))) for e in parts]
        for parts in zip(functions, first, second, strict=True)
    ]
    reached = [after_a_step(sde.process(), start, scheme, dt, form) for dt in dts]
    for f, (f_0, f_1, f_2) in zip(functions, truth, strict=True):
        values = sp.lambdify(sde.variables, f, "numpy")
        errors = [
            abs(
                float((weight * values(*new.unbind(1))).sum())
                - f_0
                - dt * (f_1 + dt * f_2 / 2)
            )
            for dt, (new, weight) in zip(dts, reached, strict=True)
        ]
        if errors[-1] > 1e-13:  # the mean may be exact
            assert slope(errors, dts) > ORDER[scheme] + 1 - 0.2, f
    if scheme == "euler-maruyama":
        assert slope(errors, dts) < 2.2  # of the last: the test can tell


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("convention", THETA)
def test_weak_order_in_every_convention(convention, scheme):
    """Of dX = -X dt + s X dW up to t = 1, by the exact factor of every step."""
    s, theta = 0.7, THETA[convention]
    process = Process(lambda x: -x, lambda x: s * x, dimension=1, convention=convention)
    counts, errors = (20, 40, 80), {1: [], 2: []}
    for count in counts:
        new, weight = after_a_step(process, double([1.0]), scheme, 1 / count)
        for p in errors:
            truth = math.exp(p * (-1 + theta * s**2) + p * (p - 1) / 2 * s**2)
            factor = float((weight * new[:, 0] ** p).sum())
            errors[p].append(abs(factor**count - truth))
    dts = [1 / count for count in counts]
    for p in errors:
        assert slope(errors[p], dts) == pytest.approx(ORDER[scheme], abs=0.12)


C = double([[0.5, 0.2, -0.1], [0.3, -0.4, 0.6]])
KINDS = {
    "number": dict(diffusion=0.7),
    "zero": dict(diffusion=0),
    "one for all": dict(diffusion=lambda x: 1 + x[:, :1] ** 2),
    "diagonal": dict(diffusion=lambda x: 1 + x.sin()),
    "one column": dict(diffusion=lambda x: x[:, :, None] ** 2),
    "matrix": dict(diffusion=lambda x: C * (1 + x[:, :, None] * x[:, None, :1])),
    "product": dict(diffusion=lambda x, xi: (1 + x**2) * (xi @ C.T), noise_dimension=3),
    "stratonovich": dict(diffusion=lambda x: 1 + x.sin(), convention="stratonovich"),
    "anti-ito": dict(
        diffusion=lambda x: C * (1 + x[:, :, None] ** 2), convention="anti-ito"
    ),
}


def drift(x):
    return torch.stack([x[:, 1] - x[:, 0] ** 3, -x[:, 1] + x[:, 0] / 2], 1)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_are_one_scheme(kind, scheme):
    process = Process(drift, dimension=2, **KINDS[kind])
    at = double([[0.3, -0.4], [1.2, 0.5], [-0.8, 0.1]])
    whole, split = Whole(process, at), ByCoordinate(process, at)
    assert (whole.noises, whole.additive) == (split.noises, split.additive)
    xi = torch.randn(
        3, draws(whole, scheme), generator=generator(2, "cpu"), dtype=at.dtype
    )
    step = scheme_of(scheme)
    (one,) = step(whole, [at], xi, 0.1)
    other = step(split, list(at.unbind(1)), list(xi.unbind(1)), 0.1)
    torch.testing.assert_close(one, torch.stack(other, 1), rtol=1e-14, atol=1e-15)
    if scheme == "euler-maruyama" or whole.additive:
        assert draws(whole, scheme) == whole.noises


@pytest.mark.parametrize("kind", ["one for all", "diagonal", "matrix", "one column"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_kinds_of_diffusion_are_matrices(kind, scheme):
    """A shorter shape means the matrix that it stands for; a product its matrix."""
    given = KINDS[kind]["diffusion"]

    def matrix(x):
        B = given(x)
        return B if B.ndim == 3 else torch.diag_embed(B.expand(x.shape))

    m = matrix(torch.zeros(1, 2)).shape[2]
    same = [
        Process(drift, given, dimension=2),
        Process(drift, matrix, dimension=2),
        Process(
            drift,
            lambda x, xi: (matrix(x) * xi[:, None]).sum(-1),
            dimension=2,
            noise_dimension=m,
        ),
    ]
    found = [
        after_a_step(process, double([0.4, -0.7]), scheme, 0.1, nodes=3)[0]
        for process in same
    ]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_coordinates_of_sympy_agree_with_the_whole():
    """Also in single precision, and where a row of the matrix is 0."""
    for sde in NONLINEAR.values():
        process, d = sde.process(), len(sde.variables)
        for dtype in (torch.float32, torch.float64):
            at = torch.linspace(-1, 1, 5 * d, dtype=dtype).reshape(5, d)
            split = ByCoordinate(process, at)
            xi = torch.randn(5, split.noises, generator=generator(3, "cpu"))
            xi = xi.to(dtype)
            (one,) = scheme_of("euler-maruyama")(Whole(process, at), [at], xi, 0.1)
            other = scheme_of("euler-maruyama")(
                split, list(at.unbind(1)), list(xi.unbind(1)), 0.1
            )
            assert one.dtype == other[0].dtype == dtype
            torch.testing.assert_close(one, torch.stack(other, 1))
            assert torch.equal(split.positions(other), torch.stack(other, 1))


def test_constant_noise_of_sympy_is_additive():
    process = NONLINEAR["constant noise"].process()
    form = ByCoordinate(process, torch.zeros(2, 1))
    assert form.additive
    assert not ByCoordinate(
        NONLINEAR["one noise"].process(), torch.zeros(2, 1)
    ).additive


def test_euler_maruyama_by_hand():
    process = Process(lambda x: -x, lambda x: 1 + x**2, dimension=2)
    at, dt = double([[0.5, -1.0], [0.2, 0.0], [3.0, 1.0]]), 0.25
    moves = process.steps(at, generator(7, "cpu"), dt)
    rng, here = generator(7, "cpu"), at
    for _ in range(3):
        xi = torch.randn(3, 2, generator=rng, dtype=torch.float64)
        here = here - dt * here + 0.5 * (1 + here**2) * xi
        passed, found = next(moves)
        assert passed == dt
        torch.testing.assert_close(found, here)


def test_platen_by_hand_with_constant_noise():
    """Heun's drift and the Euler-Maruyama kick."""
    process = Process(lambda x: -(x**3), 0.8, dimension=1)
    at, dt = double([[0.5], [1.5]]), 0.25
    _, found = next(process.steps(at, generator(7, "cpu"), dt, "platen"))
    kick = 0.8 * 0.5 * torch.randn(2, 1, generator=generator(7, "cpu"), dtype=at.dtype)
    ahead = at - dt * at**3 + kick
    torch.testing.assert_close(found, at - dt / 2 * (at**3 + ahead**3) + kick)


@pytest.mark.parametrize("dt", [1, np.float32(0.5), np.float64(0.5)])
def test_a_step_may_be_any_number(dt):
    process = Process(lambda x: -x, 1.0, dimension=1)
    for scheme in SCHEMES:
        _, found = next(
            process.steps(torch.ones(2, 1), generator(1, "cpu"), dt, scheme)
        )
        _, same = next(
            process.steps(torch.ones(2, 1), generator(1, "cpu"), float(dt), scheme)
        )
        torch.testing.assert_close(found, same)


def test_how_many_numbers_a_step_takes():
    def process(m, **options):
        return Process(
            lambda x: -x, lambda x: x.new_ones(len(x), 1, m), dimension=1, **options
        )

    at = torch.zeros(2, 1)
    for m, pairs in [(1, 0), (2, 1), (3, 3), (16, 120)]:
        form = Whole(process(m), at)
        assert draws(form, "platen") == m + pairs
        assert draws(form, "euler-maruyama") == m
    form = Whole(process(17), at)
    assert draws(form, "euler-maruyama") == 17
    with pytest.raises(ValueError, match=r"2m² times a step; got m = 17 Wiener"):
        draws(form, "platen")
    many = Process(lambda x: -x, 1.0, dimension=40)
    assert draws(Whole(many, torch.zeros(2, 40)), "platen") == 40


def test_more_work_more_evaluations():
    """Platen evaluates every column at 2m places; drift and noise are common to all."""
    x = torch.zeros(1, 2, dtype=torch.float64)
    full = Whole(Process(drift, lambda x: torch.ones(len(x), 2, 2), dimension=2), x)
    constant = Whole(Process(drift, 1.0, dimension=2), x)
    assert evaluations(constant, "platen") == evaluations(full, "euler-maruyama") == 5
    assert evaluations(full, "platen") == 3 + 2 * 4 + 2 + 3
