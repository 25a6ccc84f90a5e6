"""Compiled chunks: the numbers of the steps written out, and clear refusals."""

import math

import pytest
import sympy as sp
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from sgdbook import compiled
from sgdbook.compiled import CompiledSteps, CompileError, chunk_length, pays
from sgdbook.devices import generator
from sgdbook.process import Process
from sgdbook.schemes import ByCoordinate, scheme_of
from sgdbook.sde import SDE
from sgdbook.simulate import simulate
from sgdbook.threefry import new_key, normals
from tests.compilers import need_compiler

# torch itself calls it when it compiles for the first time
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)
x, y = sp.symbols("x y", real=True)


def well():
    return Process(lambda x: x - x**3, 0.7, dimension=1)


def plane():
    noise = sp.Matrix([[0], [sp.sqrt(1 + x**2) / 2]])
    return SDE([y, x - x**3 - y], noise, [x, y], convention="ito").process()


def twisted():
    noise = sp.Matrix([[sp.cos(y) / 2, x / 3], [x / 4, 1 + x * y / 5]])
    return SDE([-x + y / 2, -y], noise, [x, y], convention="ito").process()


CASES = {
    "one tensor, float32": (well(), torch.float32, 8),
    "coordinates of sympy, float64": (plane(), torch.float64, 8),
}


def start(process, paths, dtype):
    spread = torch.linspace(-1, 1, paths * process.dimension, dtype=dtype)
    return spread.reshape(paths, process.dimension)


def steps_of(process, paths=50, dtype=torch.float64, length=4, seed=3, scheme=None):
    at = start(process, paths, dtype)
    form = ByCoordinate(process, at)
    scheme = scheme or "euler-maruyama"
    return CompiledSteps(form, at, generator(seed, "cpu"), 0.05, scheme, length)


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request):
    """Return a process, dtype and length of chunk, compiled once a process."""
    need_compiler()
    process, dtype, length = request.param
    steps_of(process, dtype=dtype, length=length)
    assert len(process.compiled) == 1
    return request.param


@pytest.fixture
def written_out(monkeypatch):
    """Leave the compiler out: chunks are called as they are written."""
    monkeypatch.setattr(
        compiled, "compile_chunk", lambda function, example, made, what: function
    )


def by_hand(process, at, key, dt, count, scheme="euler-maruyama"):
    """Step with numbers straight from threefry, four of a path after the other."""
    form, paths = ByCoordinate(process, at), torch.arange(len(at), dtype=torch.int32)
    draws = compiled.draws(form, scheme)
    numbers = []
    for block in range(-(-draws * count // 4)):
        numbers += normals(paths, torch.tensor(block, dtype=torch.int32), key, at.dtype)
    here = list(at.unbind(1))
    for k in range(count):
        xi = numbers[k * draws : (k + 1) * draws]
        here = scheme_of(scheme)(form, here, xi, torch.tensor(dt, dtype=at.dtype))
    return torch.stack(here, 1)


def run(process, at, steps=32, seed=3, **options):
    options = {"dt": 0.05, "engine": "compiled", "every": steps, **options}
    return simulate(
        process, at, steps=steps, generator=generator(seed, "cpu"), **options
    )


def test_a_compiled_run_is_the_steps_by_hand(case):
    process, dtype, length = case
    at = start(process, 500, dtype)
    found = run(process, at)
    truth = by_hand(process, at, new_key(generator(3, "cpu")), 0.05, 32)
    close = {torch.float32: 2e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(found.states, truth, rtol=close, atol=close)
    assert found.states.dtype == dtype
    assert found.engine == f"compiled, {length} steps a chunk"
    assert len(process.compiled) == 1, "compiled once more"


def test_a_path_does_not_depend_on_the_others(case):
    process, dtype, _ = case
    at = start(process, 333, dtype)
    many = run(process, at).states
    close = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    for paths in (2, 7, 100):
        few = run(process, at[:paths]).states
        torch.testing.assert_close(few, many[:paths], rtol=close, atol=close)


def test_a_path_does_not_depend_on_how_the_run_is_cut(case, monkeypatch):
    process, dtype, _ = case
    at = start(process, 100, dtype)
    whole = run(process, at)
    cut = run(process, at, every=16, burn_in=16, keep=True)
    assert torch.equal(cut.states, whole.states)
    assert torch.equal(cut.history[-1], whole.states)
    assert torch.equal(cut.history[0], run(process, at, steps=16).states)
    monkeypatch.setattr("sgdbook.engines.LOOK", 8)
    assert torch.equal(run(process, at).states, whole.states)


def test_a_corrected_drift_is_compiled_for_any_number_of_paths():
    need_compiler()
    process = Process(
        lambda x: -x, lambda x: 1 + x.sin() / 2, dimension=1, convention="stratonovich"
    )
    key = new_key(generator(3, "cpu"))
    for paths in (50, 80):
        at = start(process, paths, torch.float64)
        found = run(process, at, steps=4).states
        torch.testing.assert_close(found, by_hand(process, at, key, 0.05, 4))
    assert len(process.compiled) == 1


def test_the_generator_gives_one_key(case):
    process, dtype, length = case
    at, rng, other = start(process, 50, dtype), *[generator(9, "cpu") for _ in "ab"]
    options = {"steps": length, "every": length, "dt": 0.05, "engine": "compiled"}
    one = simulate(process, at, generator=rng, **options).states
    new_key(other)
    assert torch.equal(rng.get_state(), other.get_state())
    again = simulate(process, at, generator=generator(9, "cpu"), **options).states
    assert torch.equal(one, again)
    assert not torch.equal(one, simulate(process, at, generator=rng, **options).states)


def test_the_chunk_length_is_no_part_of_the_numbers(written_out):
    process, at = well(), start(well(), 20, torch.float64)
    eight = run(process, at)
    four = run(process, at, every=4, keep=True)
    assert (eight.engine, four.engine) == (
        "compiled, 8 steps a chunk",
        "compiled, 4 steps a chunk",
    )
    assert torch.equal(eight.states, four.states)


@pytest.mark.parametrize("scheme, draws", [("euler-maruyama", 2), ("platen", 3)])
def test_blocks_follow_each_other(written_out, scheme, draws):
    """Three numbers a step: a block of four ends within a step."""
    process = twisted()
    at = start(process, 20, torch.float64)
    steps = steps_of(process, 20, scheme=scheme)
    assert steps.draws == draws
    assert [int(steps.blocks(k)) for k in (0, 4, 8)] == [0, draws, 2 * draws]
    found = run(process, at, steps=12, scheme=scheme).states
    truth = by_hand(process, at, new_key(generator(3, "cpu")), 0.05, 12, scheme)
    torch.testing.assert_close(found, truth)


def test_law_of_an_ornstein_uhlenbeck_process(written_out):
    """Its own variance, and not that of the SDE; single precision."""
    dt, steps = 0.4, 4
    found = run(
        Process(lambda x: -x, math.sqrt(2), dimension=1),
        torch.zeros(1_000_000, 1),
        steps=steps,
        dt=dt,
        observables={"square": lambda x: x[:, 0] ** 2},
        every=4,
    )["square"]
    scheme = (1 - (1 - dt) ** (2 * steps)) / (1 - dt / 2)
    z = float((found.mean[-1] - scheme) / found.stderr[-1])
    assert abs(z) < 5
    wrong = 1 - math.exp(-2 * dt * steps)
    assert abs(float((found.mean[-1] - wrong) / found.stderr[-1])) > 8


def test_where_a_path_was_lost(written_out):
    process = Process(lambda x: x**3, 0.5, dimension=1)
    at = start(process, 9, torch.float64)
    at[5] = 2.0
    steps = steps_of(process, 9)
    z = compiled.by_coordinate(at)
    before, passed = steps.retrace(z, 0, 400, 5)
    key = new_key(generator(3, "cpu"))
    last = [by_hand(process, at, key, 0.05, k)[5] for k in (passed - 1, passed)]
    torch.testing.assert_close(before, last[0])
    assert bool(before.isfinite().all()) and not bool(last[1].isfinite().all())
    assert 3 < passed < 100


def test_a_path_is_traced_from_a_later_step(written_out):
    process = Process(lambda x: x**3, 0.5, dimension=1)
    at = start(process, 3, torch.float64)
    steps = steps_of(process, 3)
    z = compiled.by_coordinate(at)
    moved = steps.advance(z, 0, 8)
    assert torch.equal(steps.advance(steps.advance(z, 0, 4), 4, 4), moved)
    before, passed = steps.retrace(moved, 8, 4, 1)  # nothing happens to it
    assert passed == 4
    torch.testing.assert_close(before, steps.advance(moved, 8, 4)[:, 1])


@pytest.mark.parametrize(
    "stops, draws, length",
    [
        ([8, 16], 1, 8),
        ([8, 16], 2, 4),
        ([8, 12], 1, 4),
        ([4], 1, 4),
        ([16], 99, 4),
        ([8, 10], 1, 0),
        ([2], 1, 0),
        ([0, 24], 1, 8),
    ],
)
def test_length_of_a_chunk(stops, draws, length):
    assert chunk_length(stops, draws) == length


def test_when_compiling_pays():
    """A step of 1e5 numbers takes 0.43 ms; half a minute has 69,767 of them."""
    at = torch.zeros(50_000, 2)
    assert not pays(at, 69_000, 4) and pays(at, 71_000, 4)
    assert pays(at.double(), 71_000, 4)
    assert not pays(torch.zeros(1_000, 1), 800_000, 4)
    assert pays(torch.zeros(1_000, 1), 1_000_000, 4)
    assert not pays(at.half(), 10**9, 4)
    assert not pays(at.to("meta"), 10**9, 4)
    assert pays(at, 71_000, 20) and not pays(at, 71_000, 21)


def test_layout():
    at = torch.arange(6.0).reshape(3, 2)
    for given in (at, at.T.contiguous().T, at[:1].expand(3, 2)):
        found = compiled.by_coordinate(given)
        assert found.is_contiguous() and torch.equal(found, given.T)


def test_a_branch_on_values_is_refused():
    process = Process(lambda x: x if x.sum() > 0 else -x, 1.0, dimension=1)
    with pytest.raises(
        CompileError,
        match=r"(?s)could not be compiled: .*Use engine='eager', or a drift and a "
        "diffusion without branches on values",
    ):
        steps_of(process)


def test_without_a_compiler(monkeypatch):
    """A warning, and the numbers of the eager engine."""
    process, at = Process(lambda x: -x, 1.0, dimension=1), torch.zeros(20, 1)
    monkeypatch.setattr(compiled, "WORTH", 0.0)
    missing = {"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}
    with (
        torch._inductor.config.patch(missing),
        pytest.warns(
            RuntimeWarning,
            match=r"(?s)Stepping eagerly, which takes longer: the steps could not be "
            r".*on a CPU a C\+\+ compiler is needed",
        ),
    ):
        found = run(process, at, steps=4, engine="auto")
    eager = run(process, at, steps=4, engine="eager")
    assert found.engine == eager.engine == "eager"
    assert torch.equal(found.states, eager.states)
    assert not process.compiled


def test_asked_for_what_cannot_be_had(monkeypatch):
    def refuse(*graph, **options):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", refuse)
    for engine, expect in [
        (
            "compiled",
            pytest.raises(CompileError, match=r"compiled: no compiler here\. U"),
        ),
        (
            "auto",
            pytest.warns(RuntimeWarning, match="takes longer: .* no compiler here"),
        ),
    ]:
        monkeypatch.setattr(compiled, "WORTH", 0.0)
        with expect:
            run(well(), torch.zeros(20, 1), steps=8, engine=engine)


@pytest.mark.parametrize(
    "paths, dtype, error, text",
    [
        (
            4,
            torch.float16,
            TypeError,
            "made for float32 and float64; got torch.float16",
        ),
        (4, torch.bfloat16, TypeError, "got torch.bfloat16. Convert start"),
        (1, torch.float64, ValueError, "need at least 2 paths; got 1. Use engine="),
    ],
)
def test_the_door_of_compiled_steps(paths, dtype, error, text):
    with pytest.raises(error, match=text):
        steps_of(well(), paths, dtype)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_the_gpu():
    process = well()
    at = start(process, 5000, torch.float64)
    key = new_key(generator(3, "cuda")).cpu()
    found = simulate(
        process,
        at.cuda(),
        steps=32,
        dt=0.05,
        every=32,
        engine="compiled",
        generator=generator(3, "cuda"),
    ).states
    truth = by_hand(process, at, key, 0.05, 32)
    torch.testing.assert_close(found.cpu(), truth, rtol=1e-11, atol=1e-11)


def test_coordinates_do_not_go_through_a_stack(written_out):
    """What is compiled stacks once, at the end, and means the same."""

    def drift(x):
        a, b = x.unbind(1)
        return torch.stack([b, x[:, 0] - a**3 - x[:, -1]], -1)

    made = steps_of(Process(drift, lambda x: 1 + x**2, dimension=2))
    example = compiled.by_coordinate(start(made.form.process, 9, torch.float64))
    at = example, made.paths[:9], made.key, made.dt, made.blocks(0)
    graph = make_fx(lambda *at: made.chunk(*at), tracing_mode="symbolic")(*at)
    before = graph(*at)
    compiled._skip_stacks(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    assert torch.equal(graph(*at), before)
    names = [node.target for node in graph.graph.nodes]
    # The diffusion takes all coordinates at once: a stack for it in each of 4 steps.
    assert names.count(torch.ops.aten.stack.default) == 1 + 4
