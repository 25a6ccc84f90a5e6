"""Spectral grids against closed forms, enumeration and the Fokker-Planck room."""

import itertools
import math

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sgdbook import spectral
from sgdbook.extrapolation import richardson
from sgdbook.fokker_planck import FokkerPlanck
from sgdbook.process import CONVENTIONS, Process
from sgdbook.spectral import chebyshev, fourier, generator, sinc, spectrum, transfer

OU = Process(lambda x: -x, math.sqrt(2), dimension=1)
close = torch.testing.assert_close
numbers = st.lists(st.floats(-3, 3), min_size=4, max_size=4)


def wave(c, x, L):
    y = 2 * math.pi * x / L
    return c[0] + c[1] * y.sin() + c[2] * (3 * y).cos() + c[3] * (5 * y).sin()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(numbers, st.floats(-30, 30))
def test_trigonometric_polynomials_are_held_exactly(c, shift):
    grid = fourier(-1.0, 2.0, 11)
    at = torch.tensor([shift, -1.0, 2.0, 5.0, 0.3], dtype=torch.float64)
    found = grid.interpolation(at) @ wave(c, grid.points, 3)
    close(found, wave(c, at, 3), rtol=0, atol=1e-11)
    x = grid.points.clone().requires_grad_()
    slope = torch.autograd.grad(wave(c, x, 3).sum(), x)[0]
    close(grid.derivative() @ wave(c, grid.points, 3), slope, rtol=0, atol=1e-10)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(numbers, st.floats(-1, 2))
def test_polynomials_are_held_exactly(c, place):
    grid = chebyshev(-1.0, 2.0, 4)
    p = np.polynomial.Polynomial(c)
    at = torch.tensor([place, -1.0, 2.0], dtype=torch.float64)
    values = torch.as_tensor(p(grid.points.numpy()))
    close(grid.interpolation(at) @ values, torch.as_tensor(p(at.numpy())), rtol=0,
          atol=1e-11)  # fmt: skip
    slope = torch.as_tensor(p.deriv()(grid.points.numpy()))
    close(grid.derivative() @ values, slope, rtol=0, atol=1e-10)


def test_sinc_converges():
    at = torch.linspace(-2, 2, 7).double()
    for size, error in ((42, 1e-7), (82, 1e-13)):
        grid = sinc(-8, 8, size)
        values = torch.exp(-(grid.points**2))
        exact = torch.exp(-(at**2))
        close(grid.interpolation(at) @ values, exact, rtol=0, atol=error * 10)
        slope = -2 * grid.points * values
        close(grid.derivative() @ values, slope, rtol=0, atol=error * 200)


def test_points():
    assert fourier(0, 3, 3).points.tolist() == [0, 1, 2]
    close(chebyshev(0, 2, 3).points, torch.tensor([0.0, 1, 2], dtype=torch.float64))
    close(chebyshev(-1, 1, 4).points[2], torch.tensor(0.5).double())
    assert sinc(0, 3, 4).points.tolist() == [0, 1, 2, 3]
    assert repr(sinc(-1, 2, 4)) == "Grid(sinc, [-1, 2], n = 4)"
    assert len(fourier(0, 3, 5)) == 5
    low = 0.1 + 0.2  # the ends are hit exactly, whatever rounding does
    grid = chebyshev(-low, low, 10)
    assert (
        float(grid.interpolation(torch.tensor([low], dtype=torch.float64))[0, -1]) == 1
    )


def test_transfer_averages_over_all_paths():
    """Against enumeration: three steps of SGD with four samples of unequal weight."""
    grid = chebyshev(-1.5, 2.0, 34)
    z = torch.tensor([0.3, -0.4, 0.9, 1.2], dtype=torch.float64)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)

    def step(x, j):
        return x - 0.2 * (torch.tanh(x - z[j]) + 0.1 * x)

    after = torch.stack([step(grid.points, j) for j in range(4)], 1)
    matrix = transfer(grid, after, weights)
    close(matrix.sum(1), torch.ones(34).double(), rtol=0, atol=1e-12)
    phi = torch.cos(grid.points)
    found = torch.linalg.matrix_power(matrix, 3) @ phi
    total = 0
    for path in itertools.product(range(4), repeat=3):
        x = grid.points
        for j in path:
            x = step(x, j)
        total = total + weights[list(path)].prod() * torch.cos(x)
    close(found, total, rtol=0, atol=1e-11)
    close(transfer(grid, after), transfer(grid, after, torch.full((4,), 0.25).double()))


def test_transfer_in_pieces(monkeypatch):
    grid = fourier(0.0, 2.0, 7)
    after = grid.points[:, None] + torch.linspace(0, 3, 5).double()
    weights = torch.tensor([0.1, 0.1, 0.2, 0.3, 0.3], dtype=torch.float64)
    whole = transfer(grid, after, weights)
    monkeypatch.setattr(spectral, "CHUNK", 2 * 49)
    close(transfer(grid, after, weights), whole, rtol=0, atol=1e-14)


def test_expectations_on_a_circle():
    """Brownian motion in a wind: E cos X_t = exp(-D t) cos(x + v t)."""
    process = Process(lambda x: 0 * x + 0.7, math.sqrt(0.6), dimension=1)
    grid = fourier(0, 2 * math.pi, 9)
    u = torch.matrix_exp(1.5 * generator(process, grid)) @ grid.points.cos()
    close(u, math.exp(-0.45) * (grid.points + 1.05).cos(), rtol=0, atol=1e-12)


def test_a_flow_without_noise():
    still = Process(lambda x: x.sin(), 0.0, dimension=1)
    grid = fourier(0, 2 * math.pi, 61)
    x = grid.points
    u = torch.matrix_exp(0.5 * generator(still, grid)) @ x.cos()
    end = 2 * torch.atan2(math.exp(0.5) * (x / 2).sin(), (x / 2).cos())
    close(u, end.cos(), rtol=0, atol=1e-9)


def test_generator_of_polynomials():
    grid = chebyshev(-1, 3, 5)
    x = grid.points
    process = Process(lambda x: 1 - x, lambda x: 1 + x / 2, dimension=1)
    exact = (1 - x) * 3 * x**2 + (1 + x / 2) ** 2 / 2 * 6 * x
    close(generator(process, grid) @ x**3, exact, rtol=0, atol=1e-11)


def test_spectrum_of_ornstein_and_uhlenbeck():
    found = spectrum(OU, sinc(-9, 9, 60), 6)
    assert found[0] == 0
    close(found, -torch.arange(6.0).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("place", "convention"), list(enumerate(CONVENTIONS)))
def test_three_conventions(place, convention):
    """A change of variables of the same process, its drift corrected by hand."""
    c = 0.3

    def stretch(x):
        return (1 + (c * x) ** 2).sqrt()

    process = Process(
        lambda x: -torch.asinh(c * x) / c * stretch(x) + (1 - place) * c**2 * x,
        lambda x: math.sqrt(2) * stretch(x)[..., None],
        dimension=1,
        convention=convention,
    )
    found = spectrum(process, sinc(-22, 22, 120), 3)
    close(found, -torch.arange(3.0).double(), rtol=0, atol=1e-7)


def tilted_gap(T, size=70):
    """Gap of U = x⁴/4 − x²/2 + x/5, by oscillator states with 30 digits."""
    with mp.workdps(30):
        x = mp.matrix(size + 8)
        for n in range(size + 7):
            x[n, n + 1] = x[n + 1, n] = mp.sqrt(mp.mpf(n + 1) / 6)  # frequency 3
        slope = x**3 - x + mp.eye(size + 8) / 5
        bend = 3 * x**2 - mp.eye(size + 8)
        H = slope**2 / (4 * T) - bend / 2
        for n in range(size + 8):  # T p², from the oscillator's own energy
            H[n, n] += T * 6 * (n + mp.mpf(1) / 2)
        H -= T * 9 * x**2
        levels = mp.eigsy(H[:size, :size], eigvals_only=True)
        assert abs(levels[0]) < 1e-11  # it is 0, but for the basis
        return float(levels[1])


def test_gap_against_thirty_digits():
    """Of a tilted well, and of three with noise that depends on the place."""
    T = 0.3

    def slope(z):
        return z**3 - z + 0.2

    plain = Process(lambda z: -slope(z), math.sqrt(2 * T), dimension=1)
    truth = tilted_gap(mp.mpf(3) / 10)
    found = -float(spectrum(plain, sinc(-3.6, 3.6, 90), 2)[1])
    assert found == pytest.approx(truth, rel=1e-9)
    for place, convention in enumerate(CONVENTIONS):  # x = sinh z
        process = Process(
            lambda x, k=place: -slope(x.asinh()) * (1 + x**2).sqrt() + (1 - k) * T * x,
            lambda x: (2 * T * (1 + x**2)).sqrt()[..., None],
            dimension=1,
            convention=convention,
        )
        found = -float(spectrum(process, sinc(-14, 14, 260), 2)[1])
        assert found == pytest.approx(truth, rel=1e-8), convention


def test_the_two_rooms_agree():
    """A double well with noise that depends on the state, and a tilted ring."""
    process = Process(
        lambda x: x - x**3, lambda x: (0.4 + 0.1 * torch.tanh(x)).sqrt(), dimension=1
    )
    fine = spectrum(process, sinc(-3.5, 3.5, 100), 3)
    coarse = richardson(
        lambda n: FokkerPlanck(process, -3.5, 3.5, n).spectrum(3), 200
    ).value
    close(fine, coarse, rtol=1e-6, atol=0)
    ring = Process(lambda x: x.sin() + 0.3, 0.9, dimension=1)
    fine = spectrum(ring, fourier(0, 2 * math.pi, 41), 3)
    assert fine[0] == 0 and fine.is_complex()
    coarse = richardson(
        lambda n: FokkerPlanck(ring, 0, 2 * math.pi, n, ends="periodic").spectrum(3),
        100,
    ).value
    close(fine.real, coarse.real, rtol=1e-5, atol=0)
    close(fine.imag.abs(), coarse.imag.abs(), rtol=1e-5, atol=1e-9)


def test_a_poor_grid_is_refused():
    text = "the eigenvalue 0 came out as"
    with pytest.raises(ArithmeticError, match=text):
        spectrum(OU, sinc(-9, 9, 18), 2)
    with pytest.raises(ArithmeticError, match=text):
        spectrum(OU, sinc(-3, 9, 60), 2)
    free = Process(lambda x: 0 * x, 1.0, dimension=1)
    with pytest.raises(ArithmeticError, match=text):
        spectrum(free, sinc(-3, 3, 60), 2)


def test_the_door():
    for make in (fourier, chebyshev, sinc):
        for low, high in ((1, 1), (2, 1), (0, math.inf)):
            with pytest.raises(ValueError, match="finite low < high"):
                make(low, high, 5)
        for size in (1, 5.0):
            with pytest.raises(ValueError, match="size must be an integer of at least"):
                make(0, 1, size)
    with pytest.raises(ValueError, match=r"size must be odd, .*; got 4"):
        fourier(0, 1, 4)
    with pytest.raises(ValueError, match=r"size must be even: .*; got 5"):
        sinc(0, 1, 5)
    grid, x = chebyshev(0, 1, 4), torch.tensor([0.5, 0.7], dtype=torch.float64)
    with pytest.raises(TypeError, match="at must be a floating-point tensor"):
        grid.interpolation([0.5])
    with pytest.raises(ValueError, match=r"finite and of shape \(m,\); got \(1, 2\)"):
        grid.interpolation(x[None])
    with pytest.raises(ValueError, match=r"at must be torch.float64 on cpu like .*32"):
        grid.interpolation(x.float())
    with pytest.raises(ValueError, match="at must be finite"):
        grid.interpolation(x * math.nan)
    for far in (x + 0.5, x - 0.6):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]; they reach from"):
            grid.interpolation(far)
    with pytest.raises(TypeError, match="after must be a floating-point tensor"):
        transfer(grid, [[0.5]])
    for after in (x, x[:, None], grid.points[:, None][:, :0]):
        with pytest.raises(ValueError, match=r"shape \(n, outcomes\), n = 4; got"):
            transfer(grid, after)
    after = grid.points[:, None] / 2 + torch.tensor([0.0, 0.5]).double()
    for weights in ([0.5], [0.5, 0.6], [-0.5, 1.5], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="weights must be 2 probabilities; got"):
            transfer(grid, after, torch.tensor(weights).double())
    with pytest.raises(ValueError, match="cannot hold a constant"):
        transfer(sinc(0, 1, 4), after)
    with pytest.raises(ValueError, match="process must be one-dimensional"):
        generator(Process(lambda x: x, 1.0, dimension=2), grid)
    singular = Process(lambda x: 1 / x, 1.0, dimension=1)
    with pytest.raises(ValueError, match=r"drift must be finite .* at x = \[0.0\]"):
        generator(singular, grid)
    for k in (0, 5, 1.0):
        with pytest.raises(ValueError, match="k must be an integer from 1 to n = 4"):
            spectrum(OU, sinc(-1, 1, 4), k)
    with pytest.raises(
        ValueError, match=r"grid must be sinc or fourier; got Grid.cheb"
    ):
        spectrum(OU, grid, 2)
    still = Process(lambda x: -x, 0.0, dimension=1)
    with pytest.raises(ValueError, match="D finite and positive on the grid"):
        spectrum(still, sinc(-1, 1, 6), 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_everything_stays_on_the_device():
    grid = sinc(-9, 9, 60, device="cuda")
    found = spectrum(OU, grid, 3)
    assert found.is_cuda
    close(found.cpu(), spectrum(OU, sinc(-9, 9, 60), 3), rtol=0, atol=1e-10)
    for make in (fourier, chebyshev):
        grid = make(-1.0, 1.0, 21, device="cuda")
        matrix = transfer(grid, grid.points[:, None] * 0.5)
        assert matrix.is_cuda and generator(OU, grid).is_cuda
        close(
            matrix.cpu(), transfer(make(-1.0, 1.0, 21), grid.points.cpu()[:, None] / 2)
        )
