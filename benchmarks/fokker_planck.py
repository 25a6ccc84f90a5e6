r"""Part F: the spectral gap of a double well, in one and in two dimensions.

The slow relaxation rate of :math:`dX=(X-X^3)\,dt+\sqrt{2T}\,dW` at T = 0.05, and of the
same with :math:`dY=-Y\,dt+\sqrt{2T}\,dW` beside it.  The truth comes from a basis of
oscillators in 30 digits and, independently, from shooting.  fplanck, FiPy and py-pde
have no function for eigenvalues; from each the matrix is taken in the quickest way that
it offers, and given to SciPy's sparse eigenvalue solver with a shift.
"""

import math
import warnings

import mpmath as mp
import numpy as np
import scipy.sparse as sparse
import torch
from scipy.constants import k as boltzmann
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.sparse.linalg import eigs
from threadpoolctl import threadpool_limits

from benchmarks.harness import Method, absent, peer, race, save
from sgdbook.extrapolation import richardson
from sgdbook.fokker_planck import FokkerPlanck
from sgdbook.process import Process
from sgdbook.spectral import sinc, spectrum

T = 0.05
WIDTH = 4.0  # of the interval [-2, 2], for all; beyond, the density is below 1e-17
SHIFT = 1e-6


def by_oscillators(size=40, frequency=20, digits=30):
    """Diagonalise -T d² + a²/(4T) + a'/2, a = x - x³, on odd oscillator states."""
    with mp.workdps(digits):
        states = range(1, 2 * size + 8, 2)
        square = mp.zeros(len(states))
        kinetic = mp.zeros(len(states))
        for row, i in enumerate(states):
            square[row, row] = mp.mpf(2 * i + 1) / (2 * frequency)
            kinetic[row, row] = mp.mpf(2 * i + 1) * frequency / 2
            if row + 1 < len(states):
                side = mp.sqrt((i + 1) * (i + 2)) / 2
                square[row, row + 1] = square[row + 1, row] = side / frequency
                kinetic[row, row + 1] = kinetic[row + 1, row] = -side * frequency
        force_squared = square - 2 * square**2 + square**3
        H = kinetic / 20 + 5 * force_squared + (mp.eye(len(states)) - 3 * square) / 2
        values = mp.eigsy(H[:size, :size], eigvals_only=True)
        return float(values[0])


def by_shooting(right=2.2):
    """Solve T u'' + a u' + λ u = 0 from the right, where u is slow, to u(0) = 0."""

    def at_centre(rate):
        def slope(x, u):
            return [u[1], -((x - x**3) * u[1] + rate * u[0]) / T]

        start = [1.0, rate / (right**3 - right)]
        u = solve_ivp(
            slope, (right, 0), start, method="DOP853", rtol=1e-13, atol=1e-300
        ).y
        return u[0, -1] / math.hypot(*u[:, -1])

    return brentq(at_centre, 1e-3, 1e-2, xtol=1e-18, rtol=1e-15)


def second(matrix):
    """Return the modulus of the eigenvalue next to 0."""
    values = eigs(matrix.tocsc(), k=2, sigma=SHIFT, return_eigenvectors=False)
    return float(np.sort(np.abs(values))[1])


WELL = Process(lambda x: x - x**3, math.sqrt(2 * T), dimension=1)
PLANE = Process(
    lambda x: torch.stack([x[:, 0] - x[:, 0] ** 3, -x[:, 1]], 1),
    math.sqrt(2 * T),
    dimension=2,
)


def ours(process, n):
    """Scharfetter and Gummel's scheme, n cells along each axis."""
    gap = FokkerPlanck(process, -WIDTH / 2, WIDTH / 2, n).spectrum(2)[1]
    return abs(complex(gap))


def ours_spectral(n):
    """Sinc functions at n points."""
    return -float(spectrum(WELL, sinc(-WIDTH / 2, WIDTH / 2, n), 2)[1])


def with_fplanck(n, axes):
    """Return the gap from fplanck's master matrix."""

    def potential(x, y=0.0):
        return x**4 / 4 - x**2 / 2 + y**2 / 2

    model = fplanck.fokker_planck(
        temperature=T / boltzmann,
        drag=1.0,
        extent=[WIDTH] * axes,
        resolution=WIDTH / n,
        boundary=fplanck.boundary.reflecting,
        potential=potential,
    )
    return second(model.master_matrix)


def with_fipy(n, axes):
    """Return the gap from FiPy's matrix, with its exponential convection term."""
    h = WIDTH / n
    if axes == 1:
        mesh = fipy.Grid1D(nx=n, dx=h) - WIDTH / 2
    else:
        mesh = fipy.Grid2D(nx=n, ny=n, dx=h, dy=h) - [[WIDTH / 2]] * 2
    at = mesh.faceCenters
    drift = at[0] - at[0] ** 3
    values = [drift] if axes == 1 else [drift, -at[1]]
    velocity = fipy.FaceVariable(mesh=mesh, rank=1, value=values)
    equation = fipy.DiffusionTerm(coeff=T) - fipy.ExponentialConvectionTerm(velocity)
    equation.cacheMatrix()
    equation.justResidualVector(var=fipy.CellVariable(mesh=mesh))
    return second(equation.matrix.matrix / h**axes)


def with_pypde(n):
    """Return a function for the gap, from py-pde's compiled right-hand side."""
    grid = pde.CartesianGrid([[-WIDTH / 2, WIDTH / 2]], n)
    equation = pde.PDE(
        {"p": f"{T} * laplace(p) - d_dx((x - x**3) * p)"}, bc={"x": {"derivative": 0}}
    )
    rate = equation.make_pde_rhs(pde.ScalarField(grid), backend="numba")

    def run():
        columns = [sparse.csc_array(rate(unit, 0.0)[:, None]) for unit in np.eye(n)]
        return second(sparse.hstack(columns))

    return run


def extrapolated(method, n):
    """Return the gap from n and 2n cells."""
    return richardson(method, n).value


def main():
    """Run both races and save them."""
    torch.set_num_threads(1)
    threadpool_limits(1)  # SuperLU calls BLAS for small blocks, which threads slow
    truth = by_oscillators()
    assert abs(by_shooting() / truth - 1) < 1e-11

    def methods(rows):
        return [
            Method(
                name,
                run=run,
                error=lambda gap: abs(gap / truth - 1),
                allowed=0.1,
                why=absent.get(package, why),
                prepare=run,
            )
            for name, run, package, why in rows
        ]

    def if_there(module, run):
        return run if module else None

    line = [
        ("sgdbook, sinc, n = 60", lambda: ours_spectral(60), "", ""),
        (
            "sgdbook, n = 100 and 200, Richardson",
            lambda: extrapolated(lambda n: ours(WELL, n), 100),
            "",
            "",
        ),
        ("sgdbook, n = 400", lambda: ours(WELL, 400), "", ""),
        (
            "fplanck, n = 400",
            if_there(fplanck, lambda: with_fplanck(400, 1)),
            "fplanck",
            "",
        ),
        (
            "fplanck, n = 100 and 200, Richardson",
            if_there(fplanck, lambda: extrapolated(lambda n: with_fplanck(n, 1), 100)),
            "fplanck",
            "",
        ),
        ("FiPy, n = 400", if_there(fipy, lambda: with_fipy(400, 1)), "fipy", ""),
        ("py-pde, n = 400", if_there(pde, pde and with_pypde(400)), "pde", ""),
    ]
    plane = [
        (
            "sgdbook, n = 50 and 100, Richardson",
            lambda: extrapolated(lambda n: ours(PLANE, n), 50),
            "",
            "",
        ),
        ("sgdbook, n = 100", lambda: ours(PLANE, 100), "", ""),
        (
            "fplanck, n = 100",
            if_there(fplanck, lambda: with_fplanck(100, 2)),
            "fplanck",
            "",
        ),
        (
            "fplanck, n = 50 and 100, Richardson",
            if_there(fplanck, lambda: extrapolated(lambda n: with_fplanck(n, 2), 50)),
            "fplanck",
            "",
        ),
        ("FiPy, n = 100", if_there(fipy, lambda: with_fipy(100, 2)), "fipy", ""),
        (
            "py-pde, n = 100",
            None,
            "pde",
            "gives no matrix; probing it by unit vectors would take 10,000 of them",
        ),
    ]
    races = [
        race(
            f"Spectral gap of a double well, T = {T}, one dimension",
            methods(line),
            ours=line[0][0],
            goal="at least 15 times faster than fplanck, error 900 times smaller",
            error_name="relative error",
            targets={"fplanck, n = 400": {"ratio": 15, "error": 900}},
        ),
        race(
            f"Spectral gap of a double well, T = {T}, two dimensions, n x n",
            methods(plane),
            ours=plane[0][0],
            goal="at least 4.5 times faster than fplanck, error 1,000 times smaller",
            error_name="relative error",
            targets={"fplanck, n = 100": {"ratio": 4.5, "error": 1000}},
        ),
    ]
    save(
        "f",
        races,
        ["scipy", "fplanck", "FiPy", "py-pde"],
        notes=[
            "All work on [-2, 2], or its square; grid, matrix and eigenvalues are "
            "timed together, compilation (py-pde, half a minute) is not.",
            "The peers solve no eigenvalue problem themselves; SciPy does it for them, "
            "by shift and invert.",
            "One thread for all; each timed run follows an untimed one of its method.",
        ],
    )


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    fplanck, fipy, pde = peer("fplanck"), peer("fipy"), peer("pde")

if __name__ == "__main__":
    main()
