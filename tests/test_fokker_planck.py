"""The Fokker-Planck equation on a grid against closed forms and other methods."""

import math
from types import SimpleNamespace

import mpmath as mp
import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, solve_continuous_lyapunov

from sgdbook import markov
from sgdbook.escape import first_passage_time
from sgdbook.extrapolation import richardson
from sgdbook.fokker_planck import FokkerPlanck
from sgdbook.process import CONVENTIONS, Process
from sgdbook.sde import SDE

T = 0.05
OU = Process(lambda x: -x, math.sqrt(2), dimension=1)
FREE = Process(lambda x: 0 * x, math.sqrt(2), dimension=1)
WELLS = Process(lambda x: x - x**3, math.sqrt(2 * T), dimension=1)


def linear(A, B):
    A = torch.as_tensor(A, dtype=torch.float64)
    B = torch.as_tensor(B, dtype=torch.float64)
    return Process(lambda x: -x @ A.T, lambda x: B.expand(x.shape).clone(), dimension=2)


def normalised(p, grid):
    return p / (p.sum() * grid.volume)


def mean(grid, p, values):
    return float((p * values).sum() * grid.volume)


def gap_by_oscillators(size=160, frequency=20.0):
    """Diagonalise -T d^2 + a^2/(4T) + a'/2, a = x - x^3, in a basis of oscillators."""
    down = np.diag(np.sqrt(np.arange(1, size + 12)), 1)
    x = (down + down.T) * math.sqrt(1 / (2 * frequency))
    slope = (down - down.T) * math.sqrt(frequency / 2)
    a = x - x @ x @ x
    H = -T * slope @ slope + a @ a / (4 * T) + (np.eye(len(x)) - 3 * x @ x) / 2
    return np.linalg.eigvalsh(H[:size, :size])[1]


def test_ornstein_uhlenbeck():
    values = richardson(lambda n: FokkerPlanck(OU, -8, 8, n).spectrum(4), 100)
    assert values.value[0] == 0
    assert values.value.dtype == torch.float64
    torch.testing.assert_close(
        values.value, -torch.arange(4.0).double(), rtol=3e-4, atol=0
    )
    truth = -torch.arange(4.0).double()
    assert bool((values.error >= (values.value - truth).abs()).all())
    grid = FokkerPlanck(OU, -8.5, 8, 90)
    p = torch.exp(-(grid.axes[0] ** 2) / 2)
    torch.testing.assert_close(
        grid.stationary(), normalised(p, grid), rtol=1e-13, atol=0
    )
    torch.testing.assert_close(
        grid.stationary(), p / math.sqrt(2 * math.pi), rtol=1e-11, atol=0
    )


def test_spectral_gap_and_its_orders():
    truth = -gap_by_oscillators()
    assert truth == pytest.approx(-gap_by_oscillators(200, 25.0), rel=1e-10)
    gap = {
        n: float(FokkerPlanck(WELLS, -2, 2, n).spectrum(2)[1]) for n in (100, 200, 400)
    }
    error = {n: value / truth - 1 for n, value in gap.items()}
    assert math.log2(error[100] / error[200]) == pytest.approx(2, abs=0.01)
    better = [richardson(gap.get, n).value / truth - 1 for n in (100, 200)]
    assert math.log2(better[0] / better[1]) == pytest.approx(4, abs=0.05)
    assert abs(better[1]) < 2e-8


@pytest.mark.parametrize("ends", ["natural", "reflecting"])
def test_passage_times_and_their_orders(ends):
    truth = first_passage_time(
        WELLS, -1.0, left=(ends, -math.inf if ends == "natural" else -1.5),
        right=("absorbing", 1.0),
    ).mean  # fmt: skip
    low = -2.0 if ends == "natural" else -1.5

    def time(n):
        grid = FokkerPlanck(WELLS, low, 1, n, ends=(ends, "absorbing"))
        return grid.at(grid.mean_first_passage_time(), -1)

    times = {n: time(n) for n in (80, 160, 320)}
    errors = [times[n] / truth - 1 for n in (80, 160)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.02)
    better = [richardson(times.get, n).value / truth - 1 for n in (80, 160)]
    assert abs(better[1]) < 1e-7
    assert abs(better[0]) < 16.5 * 1.5 * 1e-7


def test_the_mirror_image_and_both_walls():
    left = FokkerPlanck(WELLS, -1, 2, 90, ends=("absorbing", "natural"))
    right = FokkerPlanck(WELLS, -2, 1, 90, ends=("natural", "absorbing"))
    torch.testing.assert_close(
        left.mean_first_passage_time(),
        right.mean_first_passage_time().flip(0),
        rtol=1e-9,
        atol=0,
    )
    both = FokkerPlanck(FREE, -1, 3, 40, ends="absorbing")
    x = both.axes[0]
    exact = (x + 1) * (3 - x) / 2
    found = both.mean_first_passage_time()
    torch.testing.assert_close(found, exact, rtol=0, atol=0.1**2 / 8 + 1e-12)
    values = richardson(
        lambda n: FokkerPlanck(FREE, -1, 3, n, ends="absorbing").spectrum(3), 50
    ).value
    exact = -((torch.arange(1, 4) * math.pi / 4) ** 2).double()
    torch.testing.assert_close(values, exact, rtol=1e-5, atol=0)


def test_reflecting_and_periodic_spectra():
    walls = FokkerPlanck(FREE, 0, 2, 200, ends="reflecting").spectrum(3)
    exact = -((torch.arange(3) * math.pi / 2) ** 2).double()
    torch.testing.assert_close(walls, exact, rtol=1e-3, atol=0)
    wind = Process(lambda x: 0 * x + 0.5, math.sqrt(2), dimension=1)
    ring = FokkerPlanck(wind, 0, 2, 200, ends="periodic").spectrum(3)
    k = math.pi
    assert ring[0] == 0
    assert float(ring[1].real) == pytest.approx(-(k**2), rel=1e-3)
    assert float(ring[1].imag.abs()) == pytest.approx(k / 2, rel=1e-3)
    assert complex(ring[2]) == pytest.approx(complex(ring[1]).conjugate(), rel=1e-9)


@pytest.mark.parametrize(("place", "convention"), list(enumerate(CONVENTIONS)))
def test_multiplicative_noise(place, convention):
    """With D = 1 + x²/2 and drift -x the density is D^(-2), D^(-3/2) or D^(-1)."""
    process = Process(
        lambda x: -x, lambda x: (2 + x**2).sqrt(), dimension=1, convention=convention
    )
    grid = FokkerPlanck(process, -5, 4, 100, ends="reflecting")
    p = (1 + grid.axes[0] ** 2 / 2) ** (place / 2 - 2)
    torch.testing.assert_close(
        grid.stationary(), normalised(p, grid), rtol=1e-12, atol=0
    )
    with mp.workdps(20):
        whole = mp.quad(lambda x: (1 + x**2 / 2) ** (place / 2 - 2), [-5, 0, 4])
    assert float(p.sum() * grid.volume) == pytest.approx(float(whole), rel=1e-3)


def test_a_change_of_variables_keeps_the_spectrum():
    """Of X = sinh(cZ)/c with Z an Ornstein-Uhlenbeck process, by the chain rule."""
    c = 0.3

    def stretch(x):
        return (1 + (c * x) ** 2).sqrt()

    process = Process(
        lambda x: -torch.asinh(c * x) / c * stretch(x),
        lambda x: math.sqrt(2) * stretch(x),
        dimension=1,
        convention="stratonovich",
    )
    values = richardson(lambda n: FokkerPlanck(process, -15, 15, n).spectrum(3), 300)
    exact = -torch.arange(3.0).double()
    torch.testing.assert_close(values.value, exact, rtol=1e-5, atol=0)


def test_rotation():
    """Complex eigenvalues -1 ± 2i, and sums of two of them; a round Gaussian."""
    rotating = linear([[1.0, -2.0], [2.0, 1.0]], [1.0, 1.0])
    values = richardson(
        lambda n: torch.view_as_real(FokkerPlanck(rotating, -4, 4, n).spectrum(6)),
        (40, 40),
    ).value
    values = torch.view_as_complex(values).numpy()
    exact = [0, -1 - 2j, -1 + 2j, -2, -2 - 4j, -2 + 4j]
    for value in exact[:4]:
        assert np.abs(values - value).min() < 3e-3
    assert values[0] == 0


def test_stationary_covariance_solves_lyapunov():
    A, B = np.array([[1.0, -1.5], [0.7, 0.8]]), np.array([0.9, 0.6])
    truth = solve_continuous_lyapunov(A, np.diag(B**2))

    def covariance(cells):
        grid = FokkerPlanck(linear(A, B), (-4.5, -3.5), (4.5, 3.5), cells)
        p, (x, y) = grid.stationary(), grid.points.unbind(-1)
        return torch.tensor([mean(grid, p, v) for v in (x * x, x * y, y * y)])

    exact = torch.tensor([truth[0, 0], truth[0, 1], truth[1, 1]])
    coarse = covariance((40, 32))
    found = richardson(lambda n: coarse if n == (40, 32) else covariance(n), (40, 32))
    assert float((coarse - exact).abs().max()) > 5e-3
    torch.testing.assert_close(found.value.double(), exact, rtol=0, atol=1e-4)


def test_gibbs_is_exact_in_two_dimensions():
    """Of a coupled quartic potential: only quadrature errors, none of the grid."""

    def drift(x):
        u, v = x.unbind(1)
        return -torch.stack([u**3 - u + v * u, v + u**2 / 2], 1)

    process = Process(drift, math.sqrt(0.4), dimension=2)
    grid = FokkerPlanck(process, (-3.4, -6.0), (3.4, 2.4), (25, 33))
    u, v = grid.points.unbind(-1)
    V = u**4 / 4 - u**2 / 2 + v**2 / 2 + v * u**2 / 2
    p = normalised(torch.exp(-V / 0.2), grid)
    torch.testing.assert_close(grid.stationary(), p, rtol=1e-11, atol=0)
    for current in grid.current(p):
        assert float(current.abs().max()) < 1e-14


def test_state_dependent_noise_in_two_dimensions():
    """Independent coordinates: densities multiply, eigenvalues add."""
    one = Process(lambda x: -x, lambda x: (1 + x**2 / 4).sqrt(), dimension=1)
    two = Process(
        lambda x: -x,
        lambda x: torch.diag_embed(torch.stack(
            [(1 + x[:, 0] ** 2 / 4).sqrt(), 0 * x[:, 1] + 1], 1)),
        dimension=2,
    )  # fmt: skip
    other = Process(lambda x: -x, 1.0, dimension=1)
    ends = ("reflecting", ("reflecting", "absorbing"))
    grid = FokkerPlanck(two, (-3, -2), (3, 1), (30, 25), ends=ends)
    a = FokkerPlanck(one, -3, 3, 30, ends="reflecting")
    b = FokkerPlanck(other, -2, 1, 25, ends=ends[1])
    sums = (a.spectrum(8)[:, None] + b.spectrum(8)).ravel().sort(descending=True)[0]
    torch.testing.assert_close(grid.spectrum(4).real, sums[:4], rtol=1e-9, atol=0)
    closed = FokkerPlanck(two, (-3, -2), (3, 1), (30, 25), ends="reflecting")
    b = FokkerPlanck(other, -2, 1, 25, ends="reflecting")
    product = a.stationary()[:, None] * b.stationary()
    torch.testing.assert_close(closed.stationary(), product, rtol=1e-11, atol=0)


def test_processes_from_sympy():
    """Two Wiener processes in each coordinate, such that D is diagonal all the same."""
    x, y = sp.symbols("x y", real=True)
    B = sp.Matrix([[1, 1], [1, -1]]) * sp.sqrt(1 + x**2 / 9) / sp.sqrt(2)
    full = SDE([-x, x / 2 - y], B, [x, y], convention="ito").process()
    diagonal = Process(
        lambda x: torch.stack([-x[:, 0], x[:, 0] / 2 - x[:, 1]], 1),
        lambda x: (1 + x[:, :1] ** 2 / 9).sqrt(),
        dimension=2,
    )
    found, same = (
        FokkerPlanck(p, -3, 3, (9, 8), ends="reflecting").stationary()
        for p in (full, diagonal)
    )
    torch.testing.assert_close(found, same, rtol=1e-12, atol=0)


def test_current_on_a_tilted_ring():
    """Against the double integral of Stratonovich's formula."""
    F, D, L = 0.7, 0.4, 2 * math.pi
    process = Process(lambda x: x.sin() + F, math.sqrt(2 * D), dimension=1)

    def current(n):
        grid = FokkerPlanck(process, 0, L, n, ends="periodic")
        flow = grid.current(grid.stationary())[0]
        assert flow.shape == (n,)
        assert float((flow / flow.mean() - 1).abs().max()) < 1e-10
        return float(flow.mean())

    x = torch.arange(64).double() * L / 64
    nodes, weights = map(torch.as_tensor, np.polynomial.legendre.leggauss(50))
    y = L * (nodes + 1) / 2
    rise = (-x.cos()[:, None] + (x[:, None] + y).cos() - F * y) / D
    inner = float(rise.exp().mean(0) @ weights) * L * L / 2
    truth = D * (1 - math.exp(-F * L / D)) / inner
    assert richardson(current, 100).value == pytest.approx(truth, rel=1e-6)
    flat = Process(lambda x: 0 * x - F, 1.0, dimension=1)
    grid = FokkerPlanck(flat, 0, L, 20, ends="periodic")
    (flow,) = grid.current(grid.stationary())
    torch.testing.assert_close(flow, torch.full_like(flow, -F / L), rtol=1e-11, atol=0)


def test_current_on_a_torus():
    """One periodic axis, one with walls: shapes and values of a uniform wind."""
    wind = Process(lambda x: 0 * x + torch.tensor([0.5, 0.0]), 1.0, dimension=2)
    grid = FokkerPlanck(wind, 0, (2.0, 1.0), (8, 6), ends=("periodic", "reflecting"))
    p = grid.stationary()
    torch.testing.assert_close(p, torch.full_like(p, 0.5), rtol=1e-11, atol=0)
    along, across = grid.current(p)
    assert along.shape == (8, 6) and across.shape == (8, 5)
    torch.testing.assert_close(
        along, torch.full_like(along, 0.25), rtol=1e-11, atol=1e-12
    )
    assert float(across.abs().max()) < 1e-12


bend = st.floats(-2, 2)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(bend, bend, st.floats(0.2, 1.5), st.floats(1e-3, 0.2), st.integers(8, 40))
def test_evolution_is_that_of_the_exponential(a, b, noise, time, n):
    process = Process(lambda x: a + b * x - x**3, noise, dimension=1)
    grid = FokkerPlanck(process, -2, 2.5, n, ends="reflecting")
    p0 = normalised(torch.rand(n, dtype=torch.float64), grid)
    times = [0.0, time, 2 * time, 50.0]
    found = grid.evolve(p0, times)
    assert found.shape == (4, n) and float(found.min()) >= 0
    masses = found.sum(1) * grid.volume
    torch.testing.assert_close(masses, torch.ones(4).double(), rtol=1e-12, atol=0)
    torch.testing.assert_close(found[0], p0, rtol=1e-13, atol=0)
    Q = grid._jumps.matrix.toarray()
    for p, t in zip(found[1:3], times[1:3], strict=True):
        exact = torch.as_tensor(expm(t * Q) @ p0.numpy())
        torch.testing.assert_close(p, exact, rtol=1e-9, atol=1e-12)


def test_evolution_reaches_the_stationary_law():
    grid = FokkerPlanck(WELLS, -2, 2, 120)
    p0 = normalised(torch.exp(-((grid.axes[0] + 1) ** 2) / 0.02), grid)
    found = grid.evolve(p0, [1.0, 2.0, 3.0, 1e5])
    torch.testing.assert_close(found[-1], grid.stationary(), rtol=1e-11, atol=0)
    gap = float(grid.spectrum(2)[1])
    left = found[:, :60].sum(1) * grid.volume - 0.5
    assert float(found.min()) > 0
    late = grid.evolve(p0, [100.0, 200.0])[:, :60].sum(1) * grid.volume - 0.5
    assert float((late[1] / late[0]).log()) == pytest.approx(100 * gap, rel=1e-9)
    assert 0 < float(left[0]) <= 0.5


def test_expectations():
    def found(n):
        grid = FokkerPlanck(OU, -9, 9, n)
        u = grid.expectation(lambda x: x[:, 0] ** 2, [0.3, 1.0])
        return torch.tensor([grid.at(v, 1.5) for v in u])

    decay = torch.exp(-torch.tensor([0.6, 2.0]))
    exact = 1 + (1.5**2 - 1) * decay
    value = richardson(found, 60).value
    torch.testing.assert_close(value, exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize("t", [0.01, 30.0])
def test_expectations_are_dual_to_densities(t):
    """By sparse steps for a short time, by squaring for a long one; one end absorbs."""
    grid = FokkerPlanck(WELLS, -2, 1, 60, ends=("natural", "absorbing"))
    x = grid.axes[0]
    p0 = normalised(torch.exp(-((x + 1) ** 2) / 0.05), grid)
    phi = x**2 - 0.3
    late = mean(grid, grid.evolve(p0, [t])[0], phi)
    early = mean(grid, p0, grid.expectation(phi, [t])[0])
    assert late == pytest.approx(early, rel=1e-10)
    survival = grid.expectation(torch.ones_like(x), [t])[0]
    assert float(survival.max()) <= 1 + 1e-12
    assert float(survival[-1]) < 1


def test_at_last_nothing_is_left():
    grid = FokkerPlanck(WELLS, -2, 1, 40, ends=("natural", "absorbing"))
    p0 = normalised(torch.exp(-((grid.axes[0] + 1) ** 2) / 0.05), grid)
    late = grid.evolve(p0, [1e7])
    assert float(late.min()) >= 0 and float(late.max()) < 1e-300


def test_survival_decays_with_the_first_eigenvalue():
    grid = FokkerPlanck(FREE, 0, 1, 50, ends="absorbing")
    u = grid.expectation(lambda x: torch.ones(len(x)).double(), [0.5, 1.0])
    rate = float(grid.spectrum(1)[0])
    assert float((u[1, 25] / u[0, 25]).log()) == pytest.approx(rate / 2, rel=1e-6)


def test_targets():
    """A half-plane is a wall through the outermost centres."""
    plane = Process(lambda x: -x, math.sqrt(2), dimension=2)
    grid = FokkerPlanck(plane, -6, (6, 4), (120, 8), ends=("natural", "reflecting"))
    time = grid.mean_first_passage_time(lambda x: x[:, 0] > 1)
    assert time.shape == (120, 8)
    assert float(time[grid.points[..., 0] > 1].abs().max()) == 0
    wall = float(grid.axes[0][grid.axes[0] > 1].min())
    truth = first_passage_time(
        OU, -0.05, left=("natural", -math.inf), right=("absorbing", wall)
    ).mean
    assert float(grid.axes[0][59]) == pytest.approx(-0.05)
    assert float(time[59, 3]) == pytest.approx(truth, rel=3e-3)
    assert float(time[59].std()) < 1e-9


def test_interpolation_is_exact_for_quintics():
    grid = FokkerPlanck(linear(np.eye(2), [1, 1]), (-1, 0), (2, 1), (7, 6),
                        ends="reflecting")  # fmt: skip

    def f(x, y):
        return x**5 - 2 * x**2 * y + y**5 * x

    values = f(*grid.points.unbind(-1))
    for point in ((-1, 0), (2, 1), (0.3, 0.77), (1.9, 0.01)):
        assert grid.at(values, point) == pytest.approx(f(*point), abs=1e-11)
    line = FokkerPlanck(FREE, 0, 1, 9, ends="reflecting")
    assert line.at(line.axes[0] ** 5, 0.37) == pytest.approx(0.37**5, rel=1e-11)


def test_interpolation_treats_both_ends_alike():
    line = FokkerPlanck(FREE, -1, 1, 20, ends="reflecting")
    values = torch.exp(3 * line.axes[0])
    for x in (-1.0, -0.93, -0.4, 0.12):
        mirrored = line.at(values.flip(0), -x)
        assert line.at(values, x) == pytest.approx(mirrored, rel=1e-12)


def test_a_period_must_fit_everywhere():
    def drift(x):
        return torch.stack([x[:, 0] * (x[:, 1] > 0), 0 * x[:, 1]], 1)

    halves = Process(drift, 1.0, dimension=2)
    with pytest.raises(ValueError, match="drift must be the same at both periodic"):
        FokkerPlanck(halves, -1, 1, 8, ends=("periodic", "reflecting"))


def test_shapes_and_words():
    grid = FokkerPlanck(linear(np.eye(2), [1, 1]), (-5, 0), (5, 2), (10, 8),
                        ends=("natural", "reflecting"))  # fmt: skip
    assert grid.cells == (10, 8) and grid.points.shape == (10, 8, 2)
    assert grid.volume == pytest.approx(0.25)
    assert [len(a) for a in grid.axes] == [10, 8]
    assert float(grid.axes[0][0]) == -4.5 and float(grid.points[0, 7, 1]) == 1.875
    assert repr(grid) == "FokkerPlanck([-5, 5] x [0, 2], 10 x 8 cells)"
    assert grid.stationary().shape == (10, 8)


def test_memory_is_asked_for_first():
    process = linear(np.eye(2), [1, 1])
    with pytest.raises(MemoryError, match=r"^3,600 cells take about 3 MiB to solve"):
        FokkerPlanck(process, -5, 5, 60, limit=10**6)
    with pytest.raises(
        MemoryError, match=r"limit is 2,048 MiB\. Take fewer cells, wit"
    ):
        FokkerPlanck(process, -5, 5, 100_000)
    FokkerPlanck(process, -5, 5, 60, limit=3 * 10**6).stationary()


def test_a_wall_too_steep_to_reach():
    steep = Process(lambda x: 0 * x - 5000, 1.0, dimension=1)
    grid = FokkerPlanck(steep, 0, 2, 10, ends=("reflecting", "absorbing"))
    with pytest.raises(ArithmeticError, match="some states never leave"):
        grid.mean_first_passage_time()


def test_what_rounding_eats_is_not_returned():
    cold = Process(lambda x: x - x**3, math.sqrt(0.014), dimension=1)
    grid = FokkerPlanck(cold, -1.6, 1.6, 200)
    grid.stationary()
    with pytest.raises(ArithmeticError, match=r"an eigenvalue is below .* rounding"):
        grid.spectrum(2)
    assert float(grid.spectrum(1)[0]) == 0
    grid = FokkerPlanck(cold, -1.6, 1, 200, ends=("reflecting", "absorbing"))
    with pytest.raises(ArithmeticError, match="an eigenvalue is below"):
        grid.spectrum(1)
    with pytest.raises(ArithmeticError, match="the slowest time is beyond"):
        grid.mean_first_passage_time()
    plane = Process(lambda x: torch.stack([x[:, 0] - x[:, 0] ** 3, -x[:, 1]], 1),
                    math.sqrt(0.014), dimension=2)  # fmt: skip
    with pytest.raises(ArithmeticError, match="the slowest time is beyond"):
        FokkerPlanck(plane, (-1.6, -0.7), (1.6, 0.7), (40, 30)).stationary()
    assert markov.LOST == 1e-6


def test_natural_ends_must_not_matter():
    text = r"not confined: at the natural end {} of axis {} the density, or a"
    free = FokkerPlanck(FREE, -3, 3, 30)
    for call in (free.stationary, lambda: free.spectrum(2)):
        with pytest.raises(ValueError, match=text.format(-3, 0)):
            call()
    with pytest.raises(ValueError, match=text.format(2, 0)):
        FokkerPlanck(OU, -7, 2, 30).stationary()
    plane = linear(np.eye(2), [1, 1])
    narrow = FokkerPlanck(plane, (-5, -5), (5, 1), 30)
    for call in (narrow.stationary, lambda: narrow.spectrum(2)):
        with pytest.raises(ValueError, match=text.format(1, 1)):
            call()
    open_end = FokkerPlanck(FREE, -3, 0, 30, ends=("natural", "absorbing"))
    for call in (open_end.mean_first_passage_time, lambda: open_end.spectrum(1)):
        with pytest.raises(ValueError, match=text.format(-3, 0)):
            call()
    grid = FokkerPlanck(OU, -7, 7, 70)
    p0 = normalised(torch.exp(-((grid.axes[0] - 6) ** 2) * 20), grid)
    with pytest.raises(ValueError, match=text.format(7, 0)):
        grid.evolve(p0, [0.01])


@pytest.mark.parametrize(
    ("process", "box", "options", "text"),
    [
        (Process(lambda x: x, 1.0, dimension=3), (0, 1, 9), {}, "one or two dimens"),
        (
            SimpleNamespace(dimension=1),
            (0, 1, 9),
            {},
            "in one or two dimensions; got n",
        ),
        (OU, (1, 1, 9), {}, "finite low < high; got 1 and 1"),
        (OU, (0, math.inf, 9), {}, "finite low < high; got 0 and inf"),
        (OU, ("0", 1, 9), {}, "low must be a number, or one for each of 1 axes"),
        (OU, (0, (1, 2), 9), {}, r"high must be a number.*got \(1, 2\)"),
        (OU, (0, 1, 5), {}, "cells must be integers of at least 6; got 5"),
        (OU, (0, 1, 9.0), {}, "cells must be integers of at least 6; got 9.0"),
        (OU, (0, 1, 9), {"ends": "open"}, "kind of an end must be one of natural"),
        (OU, (0, 1, 9), {"ends": ("natural",)}, "ends must be one kind, or a pair"),
        (OU, (0, 1, 9), {"ends": ("periodic", "natural")}, "axis are periodic or none"),
        (OU, (0, 1, 9), {"ends": "periodic"}, "drift must be the same at both .* by 1"),
        (
            Process(lambda x: 0 * x, lambda x: 1 + x, dimension=1),
            (0, 1, 9),
            {"ends": "periodic"},
            "D must be the same at both periodic ends; it differs by 1.5",
        ),
        (Process(lambda x: x, lambda x: x, dimension=1), (-1, 1, 9), {}, "positive on"),
        (
            Process(lambda x: 1 / (x - 0.5), 1.0, dimension=1),
            (0, 1, 9),
            {},
            r"drift must be finite .* at x = \[0.5\]",
        ),
        (
            Process(lambda x: x[:, 0], 1.0, dimension=1),
            (0, 1, 9),
            {},
            r"drift must return shape .* = \(9, 1\) and torch.float64; got \(9,\)",
        ),
        (
            Process(lambda x: x.float(), 1.0, dimension=1),
            (0, 1, 9),
            {},
            "the drift must return .* got .* and torch.float32",
        ),
        (
            Process(lambda x: x, lambda x: x[:, 0] ** 0, dimension=1),
            (0, 1, 9),
            {},
            r"the diffusion must return .* got \(9,\)",
        ),
        (
            Process(lambda x: x, lambda x, xi: xi, dimension=1, noise_dimension=1),
            (0, 1, 9),
            {},
            "given as a product has no matrix",
        ),
        (
            Process(
                lambda x: -x,
                lambda x: (
                    torch.tensor([[1.0, 0], [0.5, 1]]).double().expand(len(x), 2, 2)
                ),
                dimension=2,
            ),
            (-5, 5, 9),
            {},
            "D must be diagonal; an entry off the diagonal is 0.25",
        ),
    ],
)
def test_the_door(process, box, options, text):
    with pytest.raises(ValueError, match=text):
        FokkerPlanck(process, *box, **options)


def test_the_doors_of_the_questions():
    grid = FokkerPlanck(OU, -7, 7, 40)
    p = grid.stationary()
    for bad, text in (
        (p[1:], r"p0 must be finite and of shape \(40,\); got \(39,\)"),
        (p * math.nan, "p0 must be finite"),
        (2 * p, "non-negative and of mass 1; .* its mass 2"),
        (p - 2e-5 * torch.sin(grid.axes[0]), "its smallest value is -"),
    ):
        with pytest.raises(ValueError, match=text):
            grid.evolve(bad, [1.0])
    with pytest.raises(TypeError, match="p0 must be a floating-point tensor; got list"):
        grid.evolve([1.0], [1.0])
    for times in ([1.0, 1.0], [-1.0], [math.inf], []):
        with pytest.raises(
            ValueError, match="times must be finite, at least 0 and inc"
        ):
            grid.expectation(p, times)
    for k in (0, 39, 2.0):
        with pytest.raises(
            ValueError, match="k must be an integer from 1 to cells - 2"
        ):
            grid.spectrum(k)
    with pytest.raises(ValueError, match="a passage needs a goal and a start"):
        grid.mean_first_passage_time()
    with pytest.raises(ValueError, match="a passage needs a goal and a start"):
        grid.mean_first_passage_time(lambda x: x[:, 0] < 9)
    with pytest.raises(
        ValueError, match=r"booleans of shape \(points,\); got torch.fl"
    ):
        grid.mean_first_passage_time(lambda x: x[:, 0])
    with pytest.raises(ValueError, match=r"booleans of shape .* of shape \(40, 1\)"):
        grid.mean_first_passage_time(lambda x: x > 0)
    with pytest.raises(ValueError, match="point must lie between"):
        grid.at(p, 7.5)
    with pytest.raises(ValueError, match="needs ends that do not absorb"):
        FokkerPlanck(OU, -7, 7, 40, ends="absorbing").stationary()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_results_come_to_the_device():
    grid = FokkerPlanck(WELLS, -2, 2, 40, device="cuda")
    p = grid.stationary()
    assert p.is_cuda and grid.points.is_cuda
    assert grid.evolve(p, [1.0]).is_cuda
    assert grid.expectation(lambda x: x[:, 0] ** 2, [1.0]).is_cuda
    torch.testing.assert_close(p.cpu(), FokkerPlanck(WELLS, -2, 2, 40).stationary())


def test_a_mode_that_reaches_a_natural_end():
    """Heavy tails: the density is negligible at the end, the fourth mode is not."""
    process = Process(lambda x: -x, lambda x: (0.2 + 0.2 * x**2).sqrt(), dimension=1)
    grid = FokkerPlanck(process, -12, 12, 1200)
    gap = richardson(lambda n: FokkerPlanck(process, -12, 12, n).spectrum(2), 600)
    assert gap.value.tolist() == pytest.approx([0, -1], abs=1e-5)
    with pytest.raises(ValueError, match="the process is not confined"):
        grid.spectrum(5)
