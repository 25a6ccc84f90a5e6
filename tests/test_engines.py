"""Which engine moves the paths, and where it stops."""

import math

import pytest
import torch

from sgdbook import compiled, engines
from sgdbook.devices import generator
from sgdbook.process import Process
from sgdbook.sgd import SGD
from sgdbook.simulate import SimulationError, simulate

ENGINES = ["eager", "compiled"]
CHUNK = "compiled, 8 steps a chunk"


@pytest.fixture(autouse=True)
def written_out(monkeypatch):
    """Leave the compiler out: chunks are called as they are written."""
    monkeypatch.setattr(
        compiled, "compile_chunk", lambda function, example, made, what: function
    )


def ornstein_uhlenbeck(d=1):
    return Process(lambda x: -x, math.sqrt(2), dimension=d)


def descent():
    return SGD(lambda x, batch: x, samples=3, learning_rate=0.5)


def run(process, start=None, **options):
    made = generator(3, "cpu")
    options = {"steps": 16, "dt": 0.1, "keep": True, "generator": made, **options}
    if start is None:
        start = torch.zeros(20, 1, dtype=torch.float64)
    return simulate(process, start, **options)


def test_small_jobs_are_eager():
    assert run(ornstein_uhlenbeck()).engine == "eager"
    assert run(ornstein_uhlenbeck(), engine="compiled", every=16).engine == CHUNK


@pytest.mark.parametrize(
    "options, engine",
    [
        ({}, CHUNK),
        ({"steps": 20}, "compiled, 4 steps a chunk"),
        ({"every": 8, "burn_in": 8}, CHUNK),
        ({"every": 4}, "compiled, 4 steps a chunk"),
        ({"every": 16, "burn_in": 12, "scheme": "platen"}, "compiled, 4 steps a chunk"),
        ({"steps": 18}, "eager"),
        ({"every": 6}, "eager"),
        ({"every": 2, "burn_in": 2, "steps": 4}, "eager"),
        ({"every": 4, "burn_in": 2}, "eager"),
        ({"every": 100, "burn_in": 2}, "eager"),
        ({"engine": "eager"}, "eager"),
        ({"start": torch.zeros(1, 1)}, "eager"),
        ({"start": torch.zeros(20, 1, dtype=torch.bfloat16)}, "eager"),
    ],
)
def test_large_jobs_are_compiled_where_they_can_be(options, engine, monkeypatch):
    monkeypatch.setattr(compiled, "WORTH", 0.0)
    options = {"every": 16, **options}
    found = run(ornstein_uhlenbeck(), **options)
    assert found.engine == engine
    assert found.times[0] == pytest.approx(0.1 * options.get("burn_in", 0))


def test_what_is_large_is_seconds_not_steps(monkeypatch):
    asked = []
    monkeypatch.setattr(
        compiled, "pays", lambda x, steps, work: asked.append((steps, work))
    )
    run(ornstein_uhlenbeck(), every=4, steps=12)
    run(ornstein_uhlenbeck(), every=4, steps=12, scheme="platen")
    matrix = Process(lambda x: -x, lambda x: x[:, :, None] + 1, dimension=1)
    run(matrix, every=4, steps=12, scheme="platen")
    assert asked == [(12, 4), (12, 4), (12, 7)]


def test_gradient_descent_steps_by_itself(monkeypatch):
    monkeypatch.setattr(compiled, "WORTH", 0.0)
    assert run(descent(), dt=None).engine == "eager"
    for options in ({"engine": "compiled"}, {"scheme": "platen"}):
        with pytest.raises(
            ValueError, match="steps by itself: it has no scheme and no compiled form"
        ):
            run(descent(), dt=None, **options)


@pytest.mark.parametrize(
    "options, shown",
    [
        ({"steps": 18}, r"\[18\]"),
        ({"every": 3}, r"\[3, 6, 9\]"),
        ({"every": 100, "burn_in": 2}, r"\[2\]"),
    ],
)
def test_steps_that_are_no_fours(options, shown):
    with pytest.raises(
        ValueError,
        match=f"come in fours: every, burn_in and steps must be multiples of 4; got "
        f"records or an end at the steps {shown}. Change them, or use engine='eager'",
    ):
        run(ornstein_uhlenbeck(), engine="compiled", **{"every": 8, **options})


@pytest.mark.parametrize(
    "options, text",
    [
        ({"engine": "fast"}, "engine must be one of auto, eager, compiled; got 'fast'"),
        (
            {"scheme": "heun"},
            "scheme must be one of euler-maruyama, platen; got 'heun'",
        ),
        (
            {"scheme": "heun", "engine": "compiled"},
            "scheme must be one of euler-maruyama, platen; got 'heun'",
        ),
    ],
)
def test_misspelt(options, text):
    with pytest.raises(ValueError, match=text):
        run(ornstein_uhlenbeck(), every=16, **options)


def test_too_many_noises_for_platen():
    process = Process(lambda x: -x, lambda x: x.new_ones(len(x), 1, 17), dimension=1)
    for engine in ENGINES:
        with pytest.raises(ValueError, match="m = 17 Wiener processes, at most 16"):
            run(process, scheme="platen", engine=engine, every=16)
        assert run(process, engine=engine, every=16).states.shape == (20, 1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("scheme", [None, "euler-maruyama", "platen"])
def test_the_scheme_is_used(engine, scheme):
    """Without noise and one step at a time: q = 1 - dt, or 1 - dt + dt^2/2."""
    process = Process(lambda x: -x, 0.0, dimension=1)
    found = run(
        process, torch.ones(2, 1).double(), engine=engine, scheme=scheme, every=16
    )
    q = 1 - 0.1 + (0.005 if scheme == "platen" else 0)
    assert found.states.flatten().tolist() == pytest.approx([q**16] * 2, rel=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_times_and_records(engine):
    found = run(
        ornstein_uhlenbeck(),
        steps=24,
        every=8,
        burn_in=8,
        keep=True,
        engine=engine,
        observables={"x": lambda x: x[:, 0]},
    )
    assert found.times.tolist() == pytest.approx([0.8, 1.6, 2.4])
    assert found.history.shape == (3, 20, 1)
    assert torch.equal(found.history[-1], found.states)
    torch.testing.assert_close(found["x"].mean, found.history[:, :, 0].mean(1))
    late = run(ornstein_uhlenbeck(), steps=24, every=100, burn_in=8, engine=engine)
    assert late.times.tolist() == pytest.approx([0.8])
    assert torch.equal(late.states, found.states)


@pytest.mark.parametrize("engine", ENGINES)
def test_explosion_names_path_step_and_place(engine):
    """Without noise the place is known: x <- x + dt x^3, here from 2 and dt = 1/10."""
    process = Process(lambda x: x**3, 0.0, dimension=1)
    start = torch.tensor([[0.1], [2.0], [0.2]], dtype=torch.float64)
    here, step = 2.0, 0
    while here < 1e103:  # whose cube is beyond all numbers
        here, step = here + 0.1 * here**3, step + 1
    with pytest.raises(SimulationError) as caught:
        run(process, start, engine=engine, steps=80, every=80)
    shown = f"{here:.3g}".replace("+", r"\+")
    caught.match(
        rf"path 1 of 3 became infinite or NaN at step {step + 1}, from \({shown}\)\. "
        r"The likely cause is the step 0\.1: it is too large for the drift there"
    )


@pytest.mark.parametrize("look", [8, 1024])
def test_explosion_is_at_the_step_of_the_same_numbers(look, monkeypatch):
    monkeypatch.setattr(engines, "LOOK", look)
    process = Process(lambda x: x**3, 0.05, dimension=1)
    start = torch.zeros(5, 1, dtype=torch.float64)
    start[3] = 1.5
    options = {"engine": "compiled", "guard": False}
    with pytest.raises(SimulationError, match=r"path 3 of 5 .* at step \d+,") as caught:
        run(process, start, steps=40, every=40, **options)
    step = int(str(caught.value).split("at step ")[1].split(",")[0])
    whole = 4 * ((step - 1) // 4)
    fine = run(process, start, steps=whole, every=4, **options).states
    assert bool(fine.isfinite().all())
    with pytest.raises(SimulationError, match=f"path 3 of 5 .* at step {step}, from"):
        run(process, start, steps=whole + 4, every=4, **options)


@pytest.mark.parametrize("engine", ENGINES)
def test_explosion_by_the_diffusion(engine):
    """dX = -1 dt + sqrt(X) dW leaves the half line where it has a root."""
    process = Process(lambda x: -x.new_ones(x.shape), torch.sqrt, dimension=1)
    start = torch.full((2, 1), 0.35, dtype=torch.float64)
    with pytest.raises(
        SimulationError,
        match=r"from \(-0\.\d+\)\. The likely cause is the diffusion, which is not "
        "finite there. Look for the root of a negative",
    ):
        run(process, start, engine=engine, every=16)


def test_explosion_of_a_product_and_of_descent():
    start = torch.full((2, 1), 1e200, dtype=torch.float64)
    product = Process(lambda x: x**2, lambda x, xi: xi, dimension=1, noise_dimension=1)
    with pytest.raises(
        SimulationError, match=r"at step 2, from \(1e\+299\)\..*the step 0\.1"
    ):
        run(product, start / 1e50, dt=0.1, steps=2)
    steep = SGD(lambda x, batch: -x * 1e200, samples=3, learning_rate=0.5)
    with pytest.raises(SimulationError, match=r"path 0 of 2.*cause is the step 0\.5"):
        run(steep, start, dt=None)


def test_places_are_short():
    at = torch.arange(10.0).reshape(2, 5)
    assert engines.place(at, 1) == "(5, 6, 7, 8, ...)"
    assert engines.place(at[:, :4], 0) == "(0, 1, 2, 3)"
    assert engines.place(at[:, :1] / 3, torch.tensor(1)) == "(1.67)"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_beyond_the_limit_of_stability(engine):
    process = Process(lambda x: -30 * x, 1.0, dimension=1)
    text = (
        r"the step dt = 0\.1 must be below 0\.0667, the limit of stability of "
        r"explicit schemes at \(0\): beyond it .* or pass guard=False"
    )
    with pytest.raises(SimulationError, match=text):
        run(process, engine=engine, every=16)
    found = run(process, engine=engine, every=16, guard=False)
    assert float(found.states.abs().max()) > 1e3
    assert run(process, engine=engine, every=16, dt=0.066).states.shape == (20, 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_that_becomes_too_long_on_the_way(engine):
    """Nothing contracts where the paths start; where they end everything does."""
    process = Process(
        lambda x: torch.where(x < 1, 1 + 0 * x, 30 * (1.5 - x)), 0.0, dimension=1
    )
    start = torch.tensor([[-9.0], [-0.15], [-8.0]], dtype=torch.float64)
    options = {"engine": engine, "every": 12, "steps": 12}
    with pytest.raises(SimulationError, match=r"must be below 0\.0667, the limit"):
        run(process, start, **options)
    found = run(process, start, guard=False, **options).states
    assert found.flatten().tolist() == pytest.approx([-7.8, 1.05, -6.8])


def test_the_limit_leaves_one_per_cent():
    process = Process(lambda x: -20 * x, 0.1, dimension=1)
    assert run(process, dt=0.1).engine == "eager"
    with pytest.raises(SimulationError, match="limit of stability"):
        run(process, dt=0.1021)


def test_the_guard_looks_in_up_to_sixteen_dimensions():
    for d in (16, 17):
        process = Process(lambda x: -30 * x, 1.0, dimension=d)
        start = torch.zeros(2, d, dtype=torch.float64)
        if d == 16:
            with pytest.raises(SimulationError, match="limit of stability"):
                run(process, start)
        else:
            assert run(process, start).states.shape == (2, 17)
