"""Simulated first passage against exact means: of the diffusion and of the scheme."""

import math

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sgdbook import _lanes, compiled, passage
from sgdbook._lanes import SHIFT
from sgdbook.compiled import CompileError
from sgdbook.devices import generator
from sgdbook.engines import SimulationError
from sgdbook.escape import first_passage_time
from sgdbook.fokker_planck import FokkerPlanck
from sgdbook.passage import Passages, simulate_passage
from sgdbook.process import Process
from sgdbook.sde import SDE
from tests.compilers import need_compiler

# torch itself calls it when it compiles for the first time
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)
x, y = sp.symbols("x y", real=True)
BOTH = {"left": ("absorbing", -1.0), "right": ("absorbing", 1.0)}


def wiener(d=1):
    return Process(torch.zeros_like, 1.0, dimension=d)


def pulled():
    return Process(lambda x: -x, 1.0, dimension=1)


def run(process=None, start=0.0, **options):
    options = {"paths": 1000, "dt": 0.04, "generator": generator(5, "cpu"), **options}
    if not isinstance(start, torch.Tensor):
        start = torch.tensor([start], dtype=torch.float64)
    if not {"left", "right", "level"} & set(options):
        options |= BOTH
    return simulate_passage(process or wiener(), start, **options)


def z_score(found, truth):
    return (found.mean - truth) / found.stderr


@pytest.fixture
def written_out(monkeypatch):
    """Leave the compiler out: chunks are called as they are written."""
    monkeypatch.setattr(
        compiled, "compile_chunk", lambda function, example, made, what: function
    )


# The scheme itself: what it does on average is the solution of an integral equation.


def of_the_scheme(drift, dt, start, *, left, right, correction):
    """Return mean time and probability to leave on the right, with unit noise.

    The scheme is a Markov chain whose transition density, with images for a mirror and
    the bridge's probability not to touch, is integrated by Gauss-Legendre panels.
    """
    width, late = math.sqrt(dt), 0.5 if correction == "bridge" else 0.0
    inset = SHIFT * width if correction == "shift" else 0.0
    low = left[1] + inset * (left[0] == "absorbing")
    high = right[1] - inset * (right[0] == "absorbing")
    edges = np.linspace(low, high, math.ceil((high - low) / width) + 1)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    half = np.diff(edges)[:, None] / 2
    y = (edges[:-1, None] + half * (1 + nodes)).ravel()
    w = (half * weights).ravel()
    at = np.append(y, start)[:, None]

    def density(to):
        gap = (to - at - dt * drift(at)) / width
        return np.exp(-(gap**2) / 2) / math.sqrt(2 * math.pi) / width

    K, touch = density(y), {}
    for kind, end in (left, right):
        if kind == "reflecting":
            K = K + density(2 * end - y)
    for name, (kind, end) in {"left": left, "right": right}.items():
        if kind == "absorbing" and correction == "bridge":
            touch[name] = np.exp(-2 * (at - end) * (y - end) / dt)
    stay = K * np.prod([1 - t for t in touch.values()], axis=0) if touch else K
    inner, last = stay[:-1] * w, stay[-1] * w
    T = np.linalg.solve(np.eye(len(y)) - inner, np.full(len(y), dt))
    over = (high - at - dt * drift(at)) / width
    gone = np.array([math.erfc(o / math.sqrt(2)) / 2 for o in over[:, 0]])
    if "right" in touch:  # the left one is asked first
        gone += (K * (1 - touch.get("left", 0)) * touch["right"]) @ w
    u = np.linalg.solve(np.eye(len(y)) - inner, gone[:-1])
    return dt + last @ T - late * dt, gone[-1] + last @ u


LINES = {
    "two ends": (wiener(), lambda x: 0 * x, 0.2, BOTH),
    "mirror": (
        pulled(),
        lambda x: -x,
        -0.3,
        {"left": ("reflecting", -0.7), "right": ("absorbing", 0.6)},
    ),
    "mirror on the right": (
        pulled(),
        lambda x: -x,
        0.3,
        {"left": ("absorbing", -0.6), "right": ("reflecting", 0.7)},
    ),
}


@pytest.mark.parametrize("correction", passage.CORRECTIONS)
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_the_scheme_is_the_one_that_is_meant(line, correction):
    """At a coarse step, where all three differ from each other and from the truth."""
    process, drift, start, ends = line
    found = run(process, start, **ends, paths=200_000, correction=correction)
    means = {
        name: of_the_scheme(drift, 0.04, start, **ends, correction=name)
        for name in passage.CORRECTIONS
    }
    assert abs(z_score(found, means[correction][0])) < 5
    share = float((found.surface == 2).double().mean())
    p = means[correction][1]
    if len({kind for kind, _ in ends.values()}) == 1:
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / 200_000)
    else:
        assert found.surface.unique().tolist() == [1]
    for other in set(passage.CORRECTIONS) - {correction}:
        if "none" in (other, correction):
            assert abs(z_score(found, means[other][0])) > 8


@pytest.mark.parametrize(
    "correction, order", [("none", 0.5), ("shift", 1.0), ("bridge", 1.0)]
)
def test_orders(correction, order):
    process, drift, start, ends = LINES["mirror"]
    exact = first_passage_time(process, start, **ends).mean
    steps = (0.04, 0.02, 0.01, 0.005)
    errors = [
        abs(of_the_scheme(drift, dt, start, **ends, correction=correction)[0] - exact)
        for dt in steps
    ]
    slopes = np.diff(np.log(errors)) / np.diff(np.log(steps))
    assert slopes[-1] == pytest.approx(order, abs=0.08)


def test_the_bias_of_simulated_times_grows_like_the_root_of_the_step():
    """Of size 2 x 0.5826 sqrt(dt): both ends seem that much further away."""
    steps = np.array([0.01, 0.04])
    found = [run(dt=dt, paths=100_000, correction="none") for dt in steps]
    assert all(z_score(f, 1.0) > 8 for f in found)
    bias = np.array([f.mean - 1 for f in found])
    assert np.log(bias[1] / bias[0]) / np.log(4) == pytest.approx(0.5, abs=0.1)
    assert bias[0] / (2 * SHIFT * 0.1) == pytest.approx(1, abs=0.1)


def test_the_shift_is_zeta_of_a_half():
    exact = -mpmath.zeta(0.5) / mpmath.sqrt(2 * mpmath.pi)
    assert pytest.approx(float(exact), rel=1e-15) == SHIFT


# The diffusion itself.


def extrapolated(process, start, dt, **options):
    """Return a mean of order dt² and its standard error, from dt and dt / 2."""
    one = run(process, start, dt=dt, **options)
    other = run(process, start, dt=dt / 2, **options | {"generator": generator(6)})
    return 2 * other.mean - one.mean, math.hypot(2 * other.stderr, one.stderr)


@pytest.mark.parametrize("correction", ["shift", "bridge"])
@pytest.mark.parametrize(
    "drift, noise, start, ends",
    [
        (-x, 1, 0.0, {"right": ("absorbing", 0.7), "left": ("reflecting", -1.5)}),
        (
            x - x**3,
            1,
            -0.5,
            {"right": ("absorbing", 0.5), "left": ("reflecting", -1.5)},
        ),
        (-x, 1, 0.3, {"left": ("absorbing", -0.5), "right": ("absorbing", 1.0)}),
    ],
    ids=["Ornstein-Uhlenbeck", "double well", "two ends"],
)
def test_exact_means(drift, noise, start, ends, correction):
    process = SDE(drift, noise, x, convention="ito").process()
    options = {"paths": 12_000, "correction": correction, **ends}
    mean, stderr = extrapolated(process, start, 0.04, **options)
    exact = first_passage_time(process, start, **ends).mean
    assert stderr < 0.04 * exact
    assert abs(mean - exact) < 5 * stderr
    naive = run(process, start, dt=0.04, **options | {"correction": "none"})
    assert z_score(naive, exact) > 8


CONVENTIONS = ["ito", "stratonovich", "anti-ito"]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_multiplicative_noise(convention):
    """The three conventions lie apart; each agrees with its own exact mean only."""
    ends = {"left": ("reflecting", -1.5), "right": ("absorbing", 1.2)}

    def process(name):
        return SDE(-x, sp.sqrt(1 + x**2), x, convention=name).process()

    mean, stderr = extrapolated(
        process(convention), 0.4, 0.06, paths=60_000, correction="shift", **ends
    )
    for name in CONVENTIONS:
        exact = first_passage_time(process(name), 0.4, **ends).mean
        if name == convention:
            assert abs(mean - exact) < 5 * stderr
        else:
            assert abs(mean - exact) > 7 * stderr


def test_a_convention_of_a_process_of_functions():
    ends = {"left": ("reflecting", -1.5), "right": ("absorbing", 1.2)}
    process = Process(
        lambda x: -x,
        lambda x: (1 + x**2).sqrt(),
        dimension=1,
        convention="stratonovich",
    )
    mean, stderr = extrapolated(process, 0.4, 0.06, paths=10_000, **ends)
    exact = first_passage_time(process, 0.4, **ends).mean
    assert abs(mean - exact) < 5 * stderr


@pytest.mark.parametrize("correction", ["shift", "bridge"])
@pytest.mark.parametrize("sign", [1, -1])
def test_moments_of_a_pushed_path(sign, correction):
    """From 0 to 1 with drift 2 and unit noise: mean 1/2, variance 1/8, third 1/16."""
    pushed = Process(lambda x: 0 * x + 2 * sign, 1.0, dimension=1)
    end = {"right" if sign > 0 else "left": ("absorbing", float(sign))}
    found = run(pushed, paths=200_000, dt=0.01, correction=correction, **end)
    assert abs(z_score(found, 0.5)) < 5
    powers = {2: 1 / 8 + 1 / 4, 3: 3 / 32 + 3 / 16 + 1 / 8}
    for n, truth in powers.items():
        power = found.times**n
        stderr = float(power.std()) / math.sqrt(len(power))
        # The times are of a grid of dt: the moments carry an error of order dt.
        assert abs(float(power.mean()) - truth) < 5 * stderr + 0.01 * truth


@pytest.mark.parametrize("correction", ["shift", "bridge"])
@pytest.mark.parametrize("d", [2, 3])
def test_exit_from_a_ball(d, correction):
    """From the centre of a ball of radius R: R² / (d s²) for noise s dW."""
    process = Process(torch.zeros_like, 0.5, dimension=d)
    mean, stderr = extrapolated(
        process,
        torch.zeros(d, dtype=torch.float64),
        0.08,
        paths=30_000,
        level=lambda x: 1.44 - x.square().sum(1),
        correction=correction,
    )
    assert abs(mean - 1.44 / (0.25 * d)) < 5 * stderr


def test_the_uncorrected_exit_from_a_ball_is_late():
    process = Process(torch.zeros_like, 0.5, dimension=2)
    start = torch.zeros(2, dtype=torch.float64)
    ball = {"level": lambda x: 1.44 - x.square().sum(1)}
    found = run(process, start, **ball, paths=20_000, correction="none")
    assert z_score(found, 2.88) > 8
    assert bool((found.places.norm(dim=1) > 1.2).all())


def test_a_matrix_of_noise_and_a_level():
    """A half plane, under noise that is oblique to it: sigma is that along its normal.

    The level n·x = 1 from 0 with drift n: a Wiener process with drift, of mean 1.
    """
    B = torch.tensor([[1.0, 0.5, 0.0], [0.2, 0.0, 1.0]], dtype=torch.float64)
    n = torch.tensor([0.6, 0.8], dtype=torch.float64)
    process = Process(
        lambda x: n.expand(x.shape), lambda x: B.expand(len(x), 2, 3), dimension=2
    )
    start = torch.zeros(2, dtype=torch.float64)
    for correction in ("shift", "bridge"):
        found = run(
            process,
            start,
            level=lambda x: 1 - x @ n,
            correction=correction,
            paths=20_000,
            dt=0.02,
        )
        assert abs(z_score(found, 1.0)) < 5


def test_a_scheme_of_higher_order_knows_the_drift_better():
    ends = {"left": ("reflecting", -0.7), "right": ("absorbing", 0.6)}
    exact = first_passage_time(pulled(), -0.3, **ends).mean
    options = {"dt": 0.04, "paths": 100_000, "correction": "bridge", **ends}
    found = run(pulled(), -0.3, scheme="platen", **options)
    euler = run(pulled(), -0.3, **options)
    assert not torch.equal(found.times, euler.times)
    assert abs(found.mean - exact) < abs(euler.mean - exact) + 5 * found.stderr


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("correction", ["shift", "bridge"])
def test_noise_on_the_velocity_alone(correction, engine, written_out):
    """A level that the noise does not move at once is crossed without correction."""
    noise = sp.Matrix([[0], [1]])
    process = SDE([y, -x - y], noise, [x, y], convention="ito").process()
    start = torch.tensor([0.5, 0.0], dtype=torch.float64)
    options = {"level": lambda x: x[:, 0], "dt": 0.05, "paths": 200}
    found = run(process, start, correction=correction, engine=engine, **options)
    plain = run(process, start, correction="none", engine=engine, **options)
    if correction == "shift":
        torch.testing.assert_close(found.times, plain.times)
    assert abs(found.mean - plain.mean) < 8 * plain.stderr


# What is made of the times.


def test_survival_is_that_of_the_fokker_planck_equation():
    ends = {"left": ("absorbing", -0.8), "right": ("absorbing", 1.0)}
    found = run(pulled(), 0.3, paths=25_000, dt=0.01, correction="bridge", **ends)
    grid = FokkerPlanck(pulled(), -0.8, 1.0, 200, ends="absorbing")
    times = torch.tensor([0.1, 0.2, 0.5, 1.0, 2.0], dtype=torch.float64)
    alive = grid.expectation(torch.ones(200, dtype=torch.float64), times.tolist())
    exact = torch.tensor([grid.at(u, 0.3) for u in alive], dtype=torch.float64)
    # Leaving is noted in the middle of a step: the curve is looked up there too.
    survival, stderr = found.survival(times)
    assert bool(((survival - exact).abs() < 5 * stderr).all())
    naive = run(pulled(), 0.3, paths=25_000, dt=0.01, correction="none", **ends)
    survival, stderr = naive.survival(times)
    assert bool(((survival - exact)[1:-1] > 8 * stderr[1:-1]).all())
    at_start, none = found.survival(torch.zeros(1))
    assert (float(at_start), float(none)) == (1.0, 0.0)


def exponential(paths, longest, seed=0):
    """Return exponential times of mean 1, censored, as if they had been simulated."""
    times = torch.empty(paths, dtype=torch.float64)
    times.exponential_(generator=generator(seed, "cpu"))
    surface = (times <= longest).to(torch.int32)
    return Passages(times.clamp(max=longest), surface, times[:, None], longest)


def test_a_censored_rate():
    """Arrivals per time are unbiased; the mean of the times that arrived is not."""
    found = exponential(100_000, 0.7)
    rate, stderr = found.rate()
    assert abs(rate - 1) < 5 * stderr
    assert stderr == pytest.approx(1 / math.sqrt(1e5 * (1 - math.exp(-0.7))), rel=0.02)
    arrived = found.times[found.surface > 0]
    naive = float(arrived.mean()), float(arrived.std()) / math.sqrt(len(arrived))
    assert (1 - naive[0]) / naive[1] > 8
    restricted, error = found.restricted_mean()
    assert abs(restricted - (1 - math.exp(-0.7))) < 5 * error
    sooner, error = found.restricted_mean(0.3)
    assert abs(sooner - (1 - math.exp(-0.3))) < 5 * error


def test_the_error_of_a_rate_is_its_spread():
    rates = torch.tensor([exponential(200, 0.5, seed).rate()[0] for seed in range(400)])
    assert float(rates.std()) == pytest.approx(exponential(200, 0.5).rate()[1], rel=0.2)


def test_stopping_at_a_number_of_arrivals_would_count_the_fast():
    """Of 2000 paths the first 1000 are not a sample of all; hence the fixed list."""
    found = run(paths=2000)
    first = found.times.sort().values[:1000]
    stderr = float(first.std()) / math.sqrt(1000)
    assert (1 - float(first.mean())) / stderr > 8
    assert abs(z_score(found, 1.0)) < 5


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=2, max_size=30),
    st.lists(st.integers(0, 20), min_size=1, max_size=5),
)
def test_statistics_are_what_counting_gives(paths, looks):
    times = [float(t) if out else 20.0 for t, out in paths]
    surface = torch.tensor([int(out) for _, out in paths], dtype=torch.int32)
    tensor = torch.tensor(times, dtype=torch.float64)
    found = Passages(tensor, surface, tensor[:, None], 20.0)
    assert found.censored == sum(not out for _, out in paths)
    alive, stderr = found.survival(torch.tensor(looks, dtype=torch.float64))
    for t, a, s in zip(looks, alive.tolist(), stderr.tolist(), strict=True):
        count = sum(
            not out or left > t for left, (_, out) in zip(times, paths, strict=True)
        )
        assert a == pytest.approx(count / len(paths))
        assert s == pytest.approx(math.sqrt(a * (1 - a) / len(paths)), abs=1e-12)
    assert found.restricted_mean(7.0)[0] == pytest.approx(
        sum(min(t, 7.0) for t in times) / len(times)
    )
    if found.censored < len(paths):
        arrivals = len(paths) - found.censored
        assert found.rate()[0] == pytest.approx(arrivals / sum(times))
    if not found.censored:
        assert found.mean == pytest.approx(sum(times) / len(times))
        assert found.stderr == pytest.approx(np.std(times, ddof=1) / len(times) ** 0.5)


# Engines.


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_times_are_whole_steps_in_double_precision(engine, written_out):
    found = run(start=torch.zeros(1), dt=0.03, paths=300, engine=engine)
    assert found.times.dtype == torch.float64
    steps = (found.times / 0.03).round()
    assert torch.equal(found.times, steps * 0.03)
    assert found.places.dtype == torch.float32
    middle = run(start=torch.zeros(1), dt=0.03, paths=300, correction="bridge")
    half = middle.times / 0.03 + 0.5
    torch.testing.assert_close(half, half.round())


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_paths_that_are_given_up(engine, written_out):
    """They stop at longest to the step, not at the end of a chunk."""
    still = Process(lambda x: 0 * x + 0.1, 1e-9, dimension=1)
    found = run(still, paths=40, dt=0.1, longest=0.5, engine=engine)
    assert (found.censored, found.longest) == (40, 0.5)
    assert found.surface.unique().tolist() == [0]
    assert found.times.unique().tolist() == [0.5]
    torch.testing.assert_close(found.places, torch.full((40, 1), 0.05).double())
    assert float(found.survival(torch.tensor([0.5]))[0]) == 1.0


@pytest.mark.parametrize("longest, steps", [(0.3, 3), (3 * 0.1, 3), (0.31, 4)])
def test_longest_is_rounded_up_to_whole_steps(longest, steps):
    assert run(dt=0.1, longest=longest).longest == steps * 0.1


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_a_path_stays_where_it_left(engine, written_out):
    found = run(correction="none", engine=engine, paths=300)
    out = found.places[:, 0]
    assert torch.equal(out >= 1, found.surface == 2)
    assert torch.equal(out <= -1, found.surface == 1)
    assert float(out.abs().max()) < 2


@pytest.mark.parametrize("correction", passage.CORRECTIONS)
def test_lanes_make_room_without_bias(correction, written_out, monkeypatch):
    """A path's noise depends on its number alone, so the lanes cannot matter."""
    options = {"engine": "compiled", "paths": 100, "correction": correction, "dt": 0.1}
    options["longest"] = 1.5
    wide = run(**options)
    assert wide.censored > 5
    for lanes in (2, 7, 99):
        monkeypatch.setattr(_lanes, "LANES", lanes)
        narrow = run(**options)
        for name in ("times", "surface", "places"):
            assert torch.equal(getattr(wide, name), getattr(narrow, name)), name


def test_more_paths_do_not_change_the_first(written_out):
    few, many = (run(engine="compiled", paths=n) for n in (1, 40))
    assert torch.equal(few.times, many.times[:1])
    assert torch.equal(few.places, many.places[:1])


@pytest.mark.parametrize("correction", passage.CORRECTIONS)
def test_written_out_chunks_are_the_scheme(correction, written_out):
    truth = of_the_scheme(lambda x: 0 * x, 0.1, 0.2, **BOTH, correction=correction)
    found = run(
        start=0.2, engine="compiled", paths=50_000, dt=0.1, correction=correction
    )
    assert abs(z_score(found, truth[0])) < 5


@pytest.mark.parametrize("correction", ["none", "bridge"])
def test_auto_goes_over_to_chunks(correction, written_out, monkeypatch):
    """After 16 eager steps; what was done by then is kept."""
    truth = of_the_scheme(lambda x: 0 * x, 0.04, 0.2, **BOTH, correction=correction)
    eager = run(start=0.2, paths=20_000, correction=correction, engine="eager")
    monkeypatch.setattr(compiled, "WORTH", 1e-9)
    found = run(start=0.2, paths=20_000, correction=correction)
    early = eager.times < 0.6
    assert torch.equal(found.times[early], eager.times[early])
    assert not torch.equal(found.times, eager.times)
    assert abs(z_score(found, truth[0])) < 5


def test_small_jobs_and_other_dtypes_stay_eager(monkeypatch):
    monkeypatch.setattr(passage, "in_lanes", lambda region, process, state, *_: None)
    assert run(paths=10).censored == 0
    monkeypatch.setattr(compiled, "WORTH", 1e-9)
    assert run(paths=1000).censored > 0
    assert run(paths=10, start=torch.zeros(1, dtype=torch.bfloat16)).censored == 0


def test_auto_without_a_compiler(monkeypatch):
    def fails(*_):
        raise CompileError("no compiler")

    monkeypatch.setattr(compiled, "compile_chunk", fails)
    monkeypatch.setattr(compiled, "WORTH", 1e-9)
    with pytest.warns(RuntimeWarning, match="Stepping eagerly, which takes longer: no"):
        found = run()
    assert abs(z_score(found, 1.0)) < 5
    with pytest.raises(CompileError, match="no compiler"):
        run(engine="compiled")


def disc(paths, seed=5, **options):
    start = torch.zeros(2, dtype=torch.float64)
    options = {"engine": "compiled", "dt": 0.02, "paths": paths, **options}
    return run(PLANE, start, generator=generator(seed, "cpu"), level=inside, **options)


PLANE = wiener(2)


def inside(x):
    return 1 - x.square().sum(1)


@pytest.fixture(scope="module")
def twins():
    """Compile with one path, whose two lanes are as many as there are coordinates."""
    need_compiler()
    return disc(1)


def test_compiled_for_real(twins, monkeypatch):
    found, again = disc(40_000), disc(40_000)
    assert len(PLANE.compiled) == 1
    torch.testing.assert_close(found.times[:1], twins.times)
    assert torch.equal(found.times, again.times)
    assert not torch.equal(found.times, disc(40_000, seed=6).times)
    assert abs(found.mean - 0.5) < 5 * found.stderr + 0.02  # an error of order dt
    eager = disc(40_000, engine="eager")
    apart = math.hypot(found.stderr, eager.stderr)
    assert abs(found.mean - eager.mean) < 5 * apart
    monkeypatch.setattr(_lanes, "LANES", 1000)
    assert torch.equal(disc(40_000).times, found.times)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    for engine in ("eager", "compiled"):
        found = simulate_passage(
            wiener(),
            torch.zeros(1, dtype=torch.float64, device="cuda"),
            paths=20_000,
            dt=0.01,
            generator=generator(5, "cuda"),
            engine=engine,
            **BOTH,
        )
        assert found.times.device.type == "cuda"
        assert abs(z_score(found, 1.0)) < 5


# The door.


@pytest.mark.parametrize(
    "start, options, text",
    [
        (1.0, {}, r"start \(1\) must lie inside the region by more than 0.117"),
        (-1.0, {"correction": "none"}, "must lie inside the region by more than 0,"),
        (
            1.0,
            {"correction": "bridge"},
            "must lie inside .* its level is -?0. Lower dt",
        ),
        (1.5, {}, r"its level is -0.5. Lower dt, or start elsewhere"),
        (0.9, {}, r"by more than 0.117, the shift of the boundary; its level is 0.1"),
        (math.nan, {}, "must lie inside the region"),
        (
            -1.5,
            {"left": ("reflecting", -1.0), "right": ("absorbing", 1.0)},
            r"start \(-1.5\) must not lie beyond the reflecting end at -1",
        ),
        (
            1.5,
            {"right": ("reflecting", 1.0), "left": ("absorbing", -1.0)},
            r"start \(1.5\) must not lie beyond the reflecting end at 1",
        ),
        (0.0, {"level": inside, "left": ("absorbing", -1.0)}, "give either level, a"),
        (0.0, {"level": inside, "right": ("absorbing", 1.0)}, "got both or none"),
        (0.0, {"level": 1.0}, "give either level, a function, or left and right"),
        (0.0, {"left": None}, "nothing absorbs the paths. Make one end absorbing"),
        (
            0.0,
            {"left": ("reflecting", -1.0), "right": ("reflecting", 1.0)},
            "nothing absorbs the paths",
        ),
        (torch.zeros(2), {}, r"start must have shape \(1,\), one point for all paths"),
        (torch.zeros(5, 1), {}, r"start must have shape \(1,\), .* got \(5, 1\)"),
        (0.0, {"level": lambda x: 1 - x}, r"level must return shape \(paths,\); got"),
        (0.0, {"level": lambda x: 1 - x.sum()}, r"got \(\) for one path. Reduce the"),
        (0.0, {"paths": 0}, "paths must be a positive integer; got 0"),
        (0.0, {"paths": 2.0}, "paths must be a positive integer; got 2.0"),
        (0.0, {"dt": 0.0}, "dt must be a positive number; got 0.0. Start with 0.01"),
        (0.0, {"dt": math.nan}, "dt must be a positive number; got nan"),
        (0.0, {"longest": 0.03}, r"longest must be from 1 to \d+ steps; got 0.03 with"),
        (0.0, {"longest": 1e9}, r"longest must be from 1 to 2147483647 steps; got 1e"),
        (0.0, {"longest": math.inf}, "longest must be a positive number; got inf"),
        (0.0, {"longest": math.nan}, "longest must be a positive number; got nan"),
        (0.0, {"correction": "shifted"}, "correction must be one of shift, bridge, no"),
        (0.0, {"engine": "fast"}, "engine must be one of auto, eager, compiled; got"),
        (0.0, {"scheme": "euler"}, "scheme must be one of euler-maruyama, platen; got"),
        (0.0, {"left": ("open", -1.0)}, "kind of the left end must be one of absorbi"),
        (0.0, {"right": ("open", 1.0)}, "kind of the right end must be one of absorb"),
        (0.0, {"right": ("absorbing", math.inf)}, "right end must be finite; got inf"),
        (0.0, {"left": ("reflecting", math.nan)}, "left end must be finite; got nan"),
        (
            0.0,
            {"left": -1.0},
            r"left must be a pair such as \(\"absorbing\", 1.0\); go",
        ),
        (0.0, {"right": ["absorbing", 1.0]}, "right must be a pair such as"),
    ],
)
def test_the_door(start, options, text):
    with pytest.raises(ValueError, match=text):
        run(start=start, **options)


def test_the_door_in_two_dimensions():
    with pytest.raises(ValueError, match="left and right are for one dimension; got d"):
        run(wiener(2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"Give level, for instance lambda x: 1 - x.s"):
        run(wiener(2), torch.zeros(2), left=None)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"start": torch.zeros(1, dtype=int)}, "start must be a floating-point tensor"),
        ({"generator": 3}, "generator must be a torch.Generator; got int"),
        (
            {"start": torch.zeros(1).half(), "engine": "compiled"},
            "compiled steps are made for float32 and float64; got torch.float16",
        ),
        ({"process": 3}, "process must be a Process; got int. From an SDE"),
    ],
)
def test_the_door_for_types(options, text):
    with pytest.raises(TypeError, match=text):
        run(**options)


def test_a_list_of_paths_that_does_not_fit():
    with pytest.raises(MemoryError, match=r"10{14} paths needs .* Lower paths"):
        run(paths=10**14)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.parametrize("right", [("reflecting", 9.0), None])
def test_explosions_are_named(engine, right, written_out):
    """To the right, away from the absorbing end: an infinite path never leaves."""
    runaway = Process(lambda x: x**3, 0.1, dimension=1)
    options = {"left": ("absorbing", -9.0), "dt": 0.5, "engine": engine, "paths": 30}
    if right is None:
        with pytest.raises(SimulationError, match=r"path \d+ became infinite or"):
            run(runaway, 3.0, **options)
    else:
        drift = Process(lambda x: (4 - x).sqrt(), 0.1, dimension=1)
        with pytest.raises(SimulationError, match=r"became infinite .* Lower dt"):
            run(drift, 3.0, right=right, **options)


def test_the_guard():
    stiff = Process(lambda x: -50 * x, 1.0, dimension=1)
    with pytest.raises(SimulationError, match=r"dt = 0.05 must be below 0.04"):
        run(stiff, dt=0.05)
    found = run(stiff, dt=0.041, longest=0.41, guard=False)
    assert found.censored > 0


def test_a_censored_mean_is_refused():
    found = run(longest=0.4)
    count = found.censored
    assert 0 < count < 1000
    text = f"{count} of 1000 paths had not left by t = 0.4, so that their mean time is"
    for name in ("mean", "stderr"):
        with pytest.raises(ValueError, match=text):
            getattr(found, name)


def test_questions_that_have_no_answer():
    found = exponential(100, 0.5)
    with pytest.raises(ValueError, match=r"times must be at least 0 and at most 0.5"):
        found.survival(torch.tensor([0.1, 0.6]))
    with pytest.raises(ValueError, match=r"got \[-0.5.* Raise longest"):
        found.survival(torch.tensor([-0.5, 0.5]))
    with pytest.raises(ValueError, match="times must be at least 0"):
        found.survival(torch.tensor([math.nan, 0.5]))
    with pytest.raises(TypeError, match="times must be a floating-point tensor"):
        found.survival(torch.tensor([0, 0]))
    for time in (0.0, 0.6, math.nan):
        with pytest.raises(ValueError, match=r"time must be positive and at most 0.5"):
            found.restricted_mean(time)
    with pytest.raises(ValueError, match=r"no path had left by t = 1e-12; a"):
        exponential(100, 1e-12).rate()
    with pytest.raises(ValueError, match=r"needs at least 2 paths; got 1. Raise paths"):
        exponential(1, 100.0).restricted_mean()
    assert run(paths=1).mean > 0
