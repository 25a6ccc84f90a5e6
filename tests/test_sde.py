"""The SDE in SymPy: conventions, generator, Fokker-Planck equation, compilation."""

import pytest
import sympy as sp
import torch

from sgdbook.devices import generator
from sgdbook.sde import SDE
from sgdbook.simulate import simulate

x, y = sp.symbols("x y", real=True)
T = sp.Symbol("T", positive=True)
U = sp.Function("U")(x)
D = sp.Function("D", positive=True)(x)


def stationary_residual(sde, p):
    return sp.simplify(sde.fokker_planck(p))


def test_gibbs_density_is_stationary():
    sde = SDE(-U.diff(x), sp.sqrt(2 * T), x, convention="ito")
    assert stationary_residual(sde, sp.exp(-U / T)) == 0
    assert stationary_residual(sde, sp.exp(-2 * U / T)) != 0


@pytest.mark.parametrize(
    "convention, power",
    [("ito", 1), ("stratonovich", sp.Rational(1, 2)), ("anti-ito", 0)],
)
def test_without_drift_the_density_is_a_power_of_d(convention, power):
    """No drift and noise sqrt(2D): p = D^-(1 - theta)."""
    sde = SDE(0, sp.sqrt(2 * D), x, convention=convention)
    assert stationary_residual(sde, D ** (-power)) == 0
    assert stationary_residual(sde, D ** (-power - 1)) != 0


def test_stratonovich_obeys_the_chain_rule():
    """dX = B o dW maps to constant noise under Y = integral of 1/B."""
    sde = SDE(0, sp.cosh(x), x, convention="stratonovich")
    gudermann = sp.atan(sp.sinh(x))
    assert sp.simplify(sde.generator(gudermann)) == 0


def test_generator_and_fokker_planck_are_adjoint():
    drift, noise = [x * y, -y + x**2], sp.Matrix([[1, x], [y, 2]])
    sde = SDE(drift, noise, [x, y], convention="stratonovich")
    p, phi = sp.exp(-(x**2) - y**2 - x * y / 2), x**2 * y + x
    total = sp.expand(p**-1 * (phi * sde.fokker_planck(p) - p * sde.generator(phi)))

    def gauss(poly):
        """Integrate a polynomial against p."""
        inner = sp.integrate(poly * p, (x, -sp.oo, sp.oo))
        return sp.integrate(sp.simplify(inner), (y, -sp.oo, sp.oo))

    assert sp.simplify(gauss(total)) == 0


def test_rotation_in_the_plane():
    """B = (-y, x): Stratonovich keeps the radius, Ito lets it grow."""
    noise = sp.Matrix([-y, x])
    stratonovich = SDE([0, 0], noise, [x, y], convention="stratonovich")
    assert stratonovich.ito_drift == sp.Matrix([-x / 2, -y / 2])
    assert stratonovich.generator(x**2 + y**2).expand() == 0
    ito = SDE([0, 0], noise, [x, y], convention="ito")
    assert sp.expand(ito.generator(x**2 + y**2) - x**2 - y**2) == 0


def test_anti_ito_in_the_plane_is_the_divergence():
    noise = sp.Matrix([-y, x])
    sde = SDE([0, 0], noise, [x, y], convention="anti-ito")
    rate = noise * noise.T
    expected = [
        sum(rate[i, j].diff(v) for j, v in enumerate((x, y))) / 2 for i in (0, 1)
    ]
    assert sde.ito_drift == sp.Matrix(expected)


def test_covariance_rate():
    assert SDE(0, sp.sqrt(2 * T), x, convention="ito").covariance_rate == 2 * T
    both = SDE([0, 0], [1, x], [x, y], convention="ito").covariance_rate
    assert both == sp.diag(1, x**2)


@pytest.mark.parametrize("convention", ["ito", "stratonovich", "anti-ito"])
@pytest.mark.parametrize(
    "noise",
    [T * (1 + x**2 + y), [x * y, 1 + x**2], sp.Matrix([[1, x, y], [x * y, 2, 0]])],
    ids=["scalar", "diagonal", "matrix"],
)
def test_compiled_drift_agrees_with_autodiff(convention, noise):
    """The correction by SymPy and the one by forward differentiation are one."""
    sde = SDE([x, -y], noise, [x, y], convention=convention)
    plain = SDE([x, -y], noise, [x, y], convention="ito").process({T: 0.7})
    plain.convention = convention
    at = torch.randn(5, 2, dtype=torch.float64, generator=generator(1, "cpu"))
    torch.testing.assert_close(sde.process({T: 0.7}).ito_drift(at), plain.ito_drift(at))


def test_simulated_variance_of_every_kind_of_noise():
    """One step from a point: covariance BB^T dt."""
    noise = sp.Matrix([[1, x], [y, 2]])
    process = SDE([0, 0], noise, [x, y], convention="ito").process()
    start = torch.tensor([0.5, -1.0], dtype=torch.float64)
    run = simulate(
        process, start, steps=1, dt=0.01, paths=200_000, generator=generator(2, "cpu")
    )
    B = torch.tensor([[1, 0.5], [-1, 2]], dtype=torch.float64)
    found = torch.cov(run.states.T) / 0.01
    torch.testing.assert_close(found, B @ B.T, rtol=0.02, atol=0.02)


def test_expressions_as_observables():
    process = SDE(-x, T, x, convention="ito").process({T: 0.0})
    run = simulate(
        process,
        torch.full((3, 1), 2.0, dtype=torch.float64),
        steps=1,
        dt=0.5,
        observables={"square": x**2, "one": sp.Integer(1)},
        generator=generator(0, "cpu"),
    )
    assert run["square"].mean.tolist() == [4.0, 1.0]
    assert run["one"].mean.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ((0, 1, x, "Ito"), ValueError, "convention must be one of ito, stratonovich"),
        ((0, 1, [x, x], "ito"), ValueError, "variables must differ"),
        ((0, 1, "x", "ito"), TypeError, "variables must be SymPy symbols"),
        ((0, 1, [], "ito"), TypeError, "variables must be SymPy symbols"),
        ((0, 1, [x, y], "ito"), ValueError, "drift must have one entry a variable, 2"),
        (([0, 0], [1], [x, y], "ito"), ValueError, "must have 2 entries; got 1"),
        (([0, 0], sp.ones(3, 2), [x, y], "ito"), ValueError, "one row a variable, 2"),
    ],
)
def test_the_door(arguments, error, text):
    drift, diffusion, variables, convention = arguments
    with pytest.raises(error, match=text):
        SDE(drift, diffusion, variables, convention=convention)


def test_missing_values_are_named():
    with pytest.raises(ValueError, match=r"symbols \['T'\] have no value"):
        SDE(0, T, x, convention="ito").process()
