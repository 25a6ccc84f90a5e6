"""Ensembles: closed forms, reproducibility, and clear stops."""

import math

import pytest
import torch

from sgdbook.devices import generator
from sgdbook.simulate import Process, SimulationError, simulate


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
        paths=200_000,
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
    assert math.isinf(float(found["x"].stderr[-1]))


def test_explosion_is_named():
    process = Process(lambda x: -(x**3), 0.1, dimension=1)
    start = torch.tensor([[0.0], [30.0], [0.0]], dtype=torch.float64)
    with pytest.raises(
        SimulationError,
        match=r"path 1 of 3 became infinite or NaN at step \d+.*the step 0.1: it is",
    ):
        run(process, start, paths=None, steps=100)


def test_explosion_shows_where_it_came_from():
    process = Process(lambda x: x * math.inf, 0.0, dimension=5)
    start = torch.full((1, 5), 1.25, dtype=torch.float64)
    with pytest.raises(
        SimulationError,
        match=r"at step 1, from \(1.25, 1.25, 1.25, 1.25, \.\.\.\)\. The",
    ):
        run(process, start, paths=None)
    with pytest.raises(SimulationError, match=r"at step 1, from \(1.25\)\. The"):
        run(Process(lambda x: x * math.inf, 0.0, dimension=1), start[:, :1], paths=None)


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
        (
            {"start": torch.zeros(1, dtype=torch.int64)},
            TypeError,
            "start must be a floating",
        ),
        ({"start": torch.full((1,), math.nan)}, ValueError, "start must be finite"),
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
    assert "50 paths, d = 1, 11 records" in repr(run(ornstein_uhlenbeck()))


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
