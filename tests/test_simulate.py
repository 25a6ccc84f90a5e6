"""Ensembles: closed forms, reproducibility, and clear stops."""

import io
import math
import sys
from types import SimpleNamespace

import pytest
import sympy as sp
import torch
from scipy.integrate import quad

from sgdbook.devices import generator
from sgdbook.process import Process
from sgdbook.sde import SDE
from sgdbook.simulate import SimulationError, simulate


def ornstein_uhlenbeck(d=1):
    return Process(lambda x: -x, math.sqrt(2), dimension=d)


def run(process, start=None, **options):
    options = {"steps": 10, "dt": 0.1, "paths": 50, **options}
    options.setdefault("generator", generator(3, "cpu"))
    if start is None:
        start = torch.zeros(process.dimension, dtype=torch.float64)
    return simulate(process, start, **options)


def z_score(observable, truth, record):
    return float((observable.mean[record] - truth) / observable.stderr[record])


def test_euler_maruyama_has_its_own_variance():
    """Var x_k = (1 - q^2k) / (1 - dt/2) with q = 1 - dt, which is not the SDE's."""
    dt, steps = 0.4, 4
    found = run(
        ornstein_uhlenbeck(),
        steps=steps,
        dt=dt,
        paths=1_000_000,
        observables={"square": lambda x: x[:, 0] ** 2},
    )["square"]
    scheme = (1 - (1 - dt) ** (2 * steps)) / (1 - dt / 2)
    assert abs(z_score(found, scheme, -1)) < 5
    assert abs(z_score(found, 1 - math.exp(-2 * dt * steps), -1)) > 8


def test_stderr_is_that_of_independent_paths():
    found = run(
        ornstein_uhlenbeck(),
        paths=1000,
        keep=True,
        observables={"x": lambda x: x[:, 0]},
    )
    values = found.history[-1, :, 0]
    assert float(found["x"].stderr[-1]) == pytest.approx(
        float(values.std()) / math.sqrt(1000)
    )
    assert float(found["x"].mean[-1]) == pytest.approx(float(values.mean()))
    torch.testing.assert_close(found["x"].time_average, found.history[..., 0].mean(0))


@pytest.mark.parametrize(
    "convention, theta", [("ito", 0), ("stratonovich", 0.5), ("anti-ito", 1)]
)
def test_conventions_of_geometric_brownian_motion(convention, theta):
    """dX = sX dW has mean exp(theta s^2 t)."""
    process = Process(
        lambda x: 0 * x, lambda x: 0.5 * x, dimension=1, convention=convention
    )
    start = torch.ones(1, dtype=torch.float64)
    found = run(
        process,
        start,
        steps=100,
        dt=0.01,
        paths=50_000,
        observables={"x": lambda x: x[:, 0]},
    )["x"]
    truth = (1 + theta * 0.25 * 0.01) ** 100
    assert abs(z_score(found, truth, -1)) < 5


def test_a_product_is_as_good_as_a_matrix():
    B = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]], dtype=torch.float64)
    matrix = Process(lambda x: -x, lambda x: B.expand(len(x), 2, 3), dimension=2)
    product = Process(
        lambda x: -x, lambda x, xi: xi @ B.T, dimension=2, noise_dimension=3
    )
    torch.testing.assert_close(run(matrix).states, run(product).states)


def test_a_product_depends_on_the_state():
    matrix = Process(lambda x: -x, lambda x: 1 + x**2, dimension=2)
    product = Process(
        lambda x: -x, lambda x, xi: (1 + x**2) * xi, dimension=2, noise_dimension=2
    )
    torch.testing.assert_close(run(matrix).states, run(product).states)


def test_one_amplitude_for_all_coordinates():
    one = Process(lambda x: -x, lambda x: 1 + x[:, :1] ** 2, dimension=3)
    many = Process(
        lambda x: -x, lambda x: (1 + x[:, :1] ** 2).expand(-1, 3), dimension=3
    )
    torch.testing.assert_close(run(one).states, run(many).states)


def test_same_generator_same_numbers():
    process = ornstein_uhlenbeck(2)
    assert torch.equal(run(process).states, run(process).states)
    other = run(process, generator=generator(4, "cpu"))
    assert not torch.equal(run(process).states, other.states)


def test_recorded_times():
    found = run(ornstein_uhlenbeck(), steps=10, every=3, burn_in=2, keep=True)
    assert found.times.tolist() == pytest.approx([0.2, 0.5, 0.8])
    assert found.history.shape == (3, 50, 1)
    assert run(ornstein_uhlenbeck()).history is None


def test_start_is_left_alone_and_dtype_follows():
    start = torch.ones(4, 2, dtype=torch.float32)
    found = run(ornstein_uhlenbeck(2), start, paths=None)
    assert found.states.dtype == torch.float32
    assert torch.equal(start, torch.ones(4, 2))


def test_one_path_has_no_error_bar():
    found = run(ornstein_uhlenbeck(), paths=1, observables={"x": lambda x: x[:, 0]})
    assert bool(found["x"].variance.isnan().all())
    assert found["x"].mean.shape == found["x"].variance.shape == (11,)
    with pytest.raises(
        ValueError, match="standard error needs at least 2 paths; got an ensemble of 1"
    ):
        found["x"].stderr  # noqa: B018
    two = run(ornstein_uhlenbeck(), paths=2, observables={"x": lambda x: x[:, 0]})
    apart = (two.states[0] - two.states[1]).abs() / 2
    assert float(two["x"].stderr[-1]) == pytest.approx(float(apart))


def test_explosion_is_named():
    process = Process(lambda x: -(x**3), 0.1, dimension=1)
    start = torch.tensor([[0.0], [30.0], [0.0]], dtype=torch.float64)
    with pytest.raises(
        SimulationError,
        match=r"path 1 of 3 became infinite or NaN at step \d+.*the step 0.1: it is",
    ):
        run(process, start, paths=None, steps=100, guard=False)


def test_explosion_shows_where_it_came_from():
    process = Process(lambda x: x**100, 0.0, dimension=5)
    start = torch.full((1, 5), 1000.0, dtype=torch.float64)
    with pytest.raises(
        SimulationError,
        match=r"at step 2, from \(1e\+299, 1e\+299, 1e\+299, 1e\+299, \.\.\.\)\. The",
    ):
        run(process, start, paths=None)
    with pytest.raises(SimulationError, match=r"at step 2, from \(1e\+299\)\. The"):
        run(Process(lambda x: x**100, 0.0, dimension=1), start[:, :1], paths=None)


@pytest.mark.parametrize(
    "drift, diffusion, text",
    [
        (lambda x: 1 / x, 1.0, r"drift must be finite .*; at \(0\) it is not"),
        (
            lambda x: -x,
            lambda x: (x - 2).sqrt(),
            r"diffusion must be finite where the paths start; at \(0\) it is not\. "
            "Look for a division by zero or the root of a negative number",
        ),
        (
            lambda x: -x,
            lambda x: x[:, :, None] / x[:, :, None],
            r"diffusion must be finite where the paths start; at \(0\) it is not",
        ),
        (lambda x: x.sum(1), 1.0, r"drift must return shape .* \(2, 1\); got \(2,\)"),
        (
            lambda x: torch.cat([x, x], 1),
            1.0,
            r"got \(2, 2\)\. Keep both axes, for instance x\[:, :1\]",
        ),
        (lambda x: -x, lambda x: x.sum(), r"diffusion must return shape .*; got \(\)"),
    ],
)
def test_drift_and_diffusion_at_the_start(drift, diffusion, text):
    process = Process(drift, diffusion, dimension=1)
    start = torch.tensor([[5.0], [0.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=text):
        run(process, start, paths=None)


def test_observable_that_is_not_finite_is_named():
    start = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
    with pytest.raises(
        SimulationError, match="observable 'log' is infinite or NaN on path 1, whose"
    ):
        run(
            ornstein_uhlenbeck(),
            start,
            paths=None,
            observables={"log": lambda x: x[:, 0].log()},
        )


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"dt": None}, ValueError, "dt must be a positive number"),
        ({"dt": -0.1}, ValueError, "dt must be a positive number"),
        (
            {"dt": 0.0},
            ValueError,
            "dt must be a positive number; got 0.0. An SDE needs",
        ),
        ({"dt": math.nan}, ValueError, "dt must be a positive number; got nan"),
        ({"dt": "0.1"}, ValueError, "dt must be a positive number; got '0.1'"),
        (
            {"steps": None},
            ValueError,
            "either steps or time; got steps = None, time = N",
        ),
        ({"time": 1.0}, ValueError, "either steps or time; got steps = 10, time = 1.0"),
        (
            {"steps": None, "time": -1.0},
            ValueError,
            "time must be a positive number; got -1.0. Give time and dt, or steps",
        ),
        (
            {"steps": None, "time": 1.0, "dt": None},
            ValueError,
            "dt must be a positive number; got None. Give time and dt",
        ),
        (
            {"steps": None, "time": 1.0, "dt": 0.3},
            ValueError,
            r"time must be a multiple of dt; got 1 = 3\.33333 x 0\.3\. Take dt = 0\.25",
        ),
        (
            {"steps": None, "time": 0.01, "dt": 0.1},
            ValueError,
            r"got 0\.01 = 0\.1 x 0\.1\. Take dt = 0\.01\.",
        ),
        ({"steps": 2.5}, ValueError, "steps must be a positive integer; got 2.5"),
        (
            {"burn_in": -1},
            ValueError,
            "burn_in must be an integer from 0 to steps = 10",
        ),
        ({"burn_in": True}, ValueError, "burn_in must be an integer from 0"),
        ({"start": torch.zeros(0, 1), "paths": None}, ValueError, r"got \(0, 1\)"),
        (
            {"start": torch.zeros(1, dtype=torch.int64)},
            TypeError,
            "start must be a floating-point tensor; got torch.int64",
        ),
        (
            {"start": [0.0]},
            TypeError,
            "start must be a floating-point tensor; got list",
        ),
        ({"steps": 0}, ValueError, "steps must be a positive integer"),
        ({"every": 0}, ValueError, "every must be a positive integer"),
        (
            {"burn_in": 11},
            ValueError,
            "burn_in must be an integer from 0 to steps = 10",
        ),
        ({"paths": 0}, ValueError, "paths must be a positive integer"),
        ({"paths": None}, ValueError, r"start must have shape \(paths, d\)"),
        ({"generator": 3}, TypeError, "generator must be a torch.Generator; got int"),
        (
            {"start": torch.zeros(2, dtype=torch.float64)},
            ValueError,
            "d = 1 coordinates; got 2",
        ),
        ({"start": torch.zeros(3, 1, dtype=torch.float64)}, ValueError, "paths = 50"),
        ({"start": torch.full((1,), math.nan)}, ValueError, "start must be finite"),
        (
            {"observables": {"x": lambda x: float(x.sum())}},
            ValueError,
            r"must return shape \(paths,\) = \(50,\); got 0\.0\. Reduce",
        ),
        (
            {"observables": {"x": lambda x: x}},
            ValueError,
            r"must return shape \(paths,\)",
        ),
        ({"observables": {"x": 3}}, TypeError, "must be a function of"),
    ],
)
def test_the_door(options, error, text):
    with pytest.raises(error, match=text):
        run(ornstein_uhlenbeck(), **options)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"dimension": 0}, "dimension must be a positive integer"),
        ({"convention": "Itô"}, "convention must be one of"),
        ({"diffusion": -1.0}, "diffusion must be a number of at least 0"),
        ({"noise_dimension": 0}, "noise_dimension must be a positive integer"),
        ({"noise_dimension": 2, "convention": "anti-ito"}, "must be 'ito'"),
    ],
)
def test_the_door_of_a_process(options, text):
    options = {"drift": lambda x: -x, "diffusion": 1.0, "dimension": 1, **options}
    with pytest.raises(ValueError, match=text):
        Process(**options)


def test_unknown_observable():
    with pytest.raises(KeyError, match="No observable 'y' was recorded"):
        run(ornstein_uhlenbeck())["y"]
    assert "d = 1, 11 records" in repr(run(ornstein_uhlenbeck(), keep=True))
    assert run(ornstein_uhlenbeck()).times.tolist() == pytest.approx([1.0])


def test_time_in_place_of_steps():
    process = ornstein_uhlenbeck()
    one = run(process, steps=None, time=0.7, dt=0.1, keep=True)
    assert len(one.times) == 8
    assert float(one.times[-1]) == pytest.approx(0.7)
    assert torch.equal(one.states, run(process, steps=7).states)


def test_a_generator_elsewhere():
    class Elsewhere(torch.Generator):
        device = torch.device("cuda:0")

    with pytest.raises(
        ValueError, match=r"generator lives on cuda:0, start on cpu\. Make both on one"
    ):
        run(ornstein_uhlenbeck(), generator=Elsewhere())


def test_what_does_not_fit_is_refused(monkeypatch):
    """The paths take 8 times their size; 1000 x 16 numbers have 128,000 bytes."""
    free = 8 * 128_000
    monkeypatch.setattr(
        "sgdbook._door.psutil.virtual_memory", lambda: SimpleNamespace(available=free)
    )
    process = ornstein_uhlenbeck(16)
    assert run(process, paths=1000, steps=7, keep=True).history.shape == (8, 1000, 16)
    with pytest.raises(
        MemoryError,
        match=r"an ensemble of 1001 paths with d = 16 needs .* GiB; .* GiB are free\. "
        "Lower paths, or use float32",
    ):
        run(process, paths=1001, steps=1)
    with pytest.raises(
        MemoryError,
        match=r"history of 9 records, 1000 paths, d = 16 needs .*Raise every, lower",
    ):
        run(process, paths=1000, steps=8, keep=True)
    assert run(process, paths=1000, steps=8, every=2, keep=True).history.shape[0] == 5


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream, shown", [(Terminal, True), (io.StringIO, False)])
def test_progress_is_shown_on_a_terminal(stream, shown, monkeypatch):
    """And there only after two seconds."""
    screen, now = stream(), iter(range(0, 10**6, 3))
    monkeypatch.setattr(sys, "stderr", screen)
    run(ornstein_uhlenbeck())
    assert screen.getvalue().strip() == ""
    monkeypatch.setattr("tqdm.std.time", lambda: next(now))
    run(ornstein_uhlenbeck())
    assert ("step" in screen.getvalue()) == shown


def test_geometric_brownian_motion_has_the_moments_of_its_scheme():
    """Of Euler-Maruyama: E x^p = (E (1 - dt + s sqrt(dt) xi)^p)^steps."""
    s, dt, steps = 0.6, 0.25, 4
    found = run(
        Process(lambda x: -x, lambda x: s * x, dimension=1),
        torch.ones(1, dtype=torch.float64),
        steps=steps,
        dt=dt,
        paths=1_000_000,
        observables={"x": lambda x: x[:, 0], "x^2": lambda x: x[:, 0] ** 2},
    )
    assert abs(z_score(found["x"], (1 - dt) ** steps, -1)) < 5
    assert abs(z_score(found["x^2"], ((1 - dt) ** 2 + s**2 * dt) ** steps, -1)) < 5
    assert abs(z_score(found["x"], math.exp(-steps * dt), -1)) > 8
    assert abs(z_score(found["x^2"], math.exp((s**2 - 2) * steps * dt), -1)) > 8


@pytest.mark.parametrize("scheme", ["euler-maruyama", "platen"])
def test_stationary_law_of_a_double_well(scheme):
    """<x^2> at dt -> 0 from two steps, against the integral of exp(-U/T)."""
    T = 0.5
    weight, square = (
        quad(lambda x, p=p: x**p * math.exp(-(x**4 / 4 - x**2 / 2) / T), -8, 8)[0]
        for p in (0, 2)
    )
    process = Process(lambda x: x - x**3, math.sqrt(2 * T), dimension=1)
    means, errors = [], []
    for dt in {"euler-maruyama": (0.1, 0.05), "platen": (0.2, 0.1)}[scheme]:
        samples = run(
            process,
            steps=round(30 / dt),
            dt=dt,
            paths=20_000,
            every=round(0.4 / dt),
            burn_in=round(6 / dt),
            observables={"x^2": lambda x: x[:, 0] ** 2},
            scheme=scheme,
            generator=generator(round(20 * dt), "cpu"),
            guard=False,
        )["x^2"].time_average
        means.append(float(samples.mean()))
        errors.append(float(samples.std()) / len(samples) ** 0.5)
    weights = {"euler-maruyama": (-1, 2), "platen": (-1 / 3, 4 / 3)}[scheme]
    limit = sum(w * m for w, m in zip(weights, means, strict=True))
    spread = math.hypot(*(w * e for w, e in zip(weights, errors, strict=True)))
    # What the next order leaves at these steps.
    rest = 0.004
    assert abs(limit - square / weight) < 5 * spread + rest
    assert abs(means[0] - square / weight) > 8 * errors[0] + rest


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_the_gpu():
    start = torch.zeros(2, dtype=torch.float64, device="cuda")
    found = run(
        ornstein_uhlenbeck(2),
        start,
        generator=generator(1, "cuda"),
        observables={"x": lambda x: x[:, 0]},
    )
    assert found.states.is_cuda


def test_another_dtype():
    process = Process(lambda x: -x.double(), 1.0, dimension=1)
    with pytest.raises(
        TypeError, match=r"drift must return torch\.float32 like start; got torch\.f"
    ):
        run(process, torch.zeros(1))


def test_an_sde_is_no_process_yet():
    x = sp.Symbol("x")
    sde = SDE(-x, 1, x, convention="ito")
    with pytest.raises(TypeError, match=r"be a Process; got SDE\. An SDE makes one"):
        run(sde, torch.zeros(1))
