"""The mean of SGD: all sequences of batches enumerated, in place of drawn."""

import itertools
import math

import pytest
import sympy as sp
import torch

from sgdbook import data, nets
from sgdbook.control_variate import mean_of_sgd
from sgdbook.devices import generator
from sgdbook.sgd import SGD
from sgdbook.simulate import Process, SimulationError, simulate

u, v = sp.symbols("u v", real=True)
k = sp.Symbol("k", integer=True)
a, c = sp.IndexedBase("a"), sp.IndexedBase("c")
COLUMNS = {
    a: torch.tensor([0.5, 1.5, 2.0], dtype=torch.float64),
    c: torch.tensor([-1.0, 0.3, 2.0], dtype=torch.float64),
}
TOY = a[k] * sp.cosh(u - c[k]) + (u * v - c[k]) ** 2 / 2 + v**4 / 4
START = torch.tensor([0.4, -0.7], dtype=torch.float64)
CROSS_ENTROPY = torch.nn.functional.cross_entropy


def sequences(sampling, size, steps):
    """All equally likely sequences of batches of three samples, (count, steps, b)."""
    if sampling == "replacement":
        batches = list(itertools.product(range(3), repeat=size))
    elif sampling == "without-replacement":
        batches = list(itertools.permutations(range(3), size))
    else:
        orders = list(itertools.permutations(range(3)))
        each = 3 // size
        epochs = itertools.product(orders, repeat=math.ceil(steps / each))
        return torch.tensor(
            [
                [e[i * size : (i + 1) * size] for e in epoch for i in range(each)]
                for epoch in epochs
            ]
        )[:, :steps]
    return torch.tensor(list(itertools.product(batches, repeat=steps)))


class Enumerated(SGD):
    """Every sequence of batches once, one a path: its means are exact."""

    sequences = None

    def batches(self, paths, generator):
        assert paths == len(self.sequences)
        yield from self.sequences.unbind(1)


def enumerated(process, sampling, size, steps, start):
    process.sequences = sequences(sampling, size, steps)
    return mean_of_sgd(
        process,
        start,
        steps=steps,
        paths=len(process.sequences),
        generator=generator(0, "cpu"),
        every=1,
    )


def toy(kind=SGD, **options):
    return kind.of_loss(TOY, [u, v], k, COLUMNS, **options)


SAMPLINGS = [
    ("replacement", 1, 3),
    ("replacement", 2, 2),
    ("without-replacement", 2, 3),
    ("epochs", 1, 5),
    ("epochs", 2, 3),
]


@pytest.mark.parametrize("sampling, size, steps", SAMPLINGS)
def test_the_control_variate_has_mean_zero_exactly(sampling, size, steps):
    rates = [0.1, 0.2, 0.05, 0.1, 0.1]
    process = toy(
        Enumerated,
        learning_rate=lambda k: rates[k],
        batch_size=size,
        sampling=sampling,
    )
    found = enumerated(process, sampling, size, steps, START)
    zero = torch.zeros(steps, 2, dtype=torch.float64)
    torch.testing.assert_close(found.companions.mean(1), zero, rtol=0, atol=1e-14)
    truth = START
    ends = []
    for batches in process.sequences:
        x = START
        for rate, batch in zip(rates, batches, strict=False):
            slope = process.gradient(x[None].expand(size, -1), batch[:, None]).mean(0)
            x = x - rate * slope
        ends.append(x)
    truth = torch.stack(ends).mean(0)
    torch.testing.assert_close(found.mean[-1], truth, rtol=1e-13, atol=1e-14)
    if steps > 1:
        assert float((truth - found.descent[-1]).abs().max()) > 1e-4
    assert float(found.companions[-1].abs().max()) > 0.01


def test_the_hessian_of_the_batch_would_be_wrong_in_epochs():
    process = toy(Enumerated, learning_rate=0.1, sampling="replacement")
    found = enumerated(process, "epochs", 1, 3, START)
    assert float(found.companions[-1].mean(0).abs().max()) > 1e-3


def test_the_companion_by_hand():
    """Two steps on samples 2, 0: the Hessians are those of SymPy."""
    process = toy(Enumerated, learning_rate=0.1)
    found = enumerated(process, "replacement", 1, 2, START)
    here, y = START, torch.zeros(2, dtype=torch.float64)

    def values(matrix, n):
        at = {u: float(here[0]), v: float(here[1])}
        at |= {s[k]: float(column[n]) for s, column in COLUMNS.items()}
        return torch.tensor(matrix.subs(at).tolist(), dtype=torch.float64)

    slope, hessian = sp.Matrix([TOY]).jacobian([u, v]), sp.hessian(TOY, [u, v])
    for n in (2, 0):
        rows = torch.cat([values(slope, i) for i in range(3)])
        y = y - 0.1 * (rows[n] - rows.mean(0) + values(hessian, n) @ y)
        here = here - 0.1 * rows.mean(0)
    path = process.sequences[:, :, 0].tolist().index([2, 0])
    torch.testing.assert_close(found.companions[-1, path], y)
    torch.testing.assert_close(found.descent[-1], here)


def test_a_network_by_enumeration():
    model = nets.mlp([2, 2, 2], "tanh", seed=0, device="cpu")
    inputs = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, -2.0]], dtype=torch.float64)
    process = Enumerated.of_network(
        model, CROSS_ENTROPY, inputs, torch.tensor([0, 1, 1]), learning_rate=0.5
    )
    found = enumerated(process, "replacement", 1, 3, nets.flatten(model))
    assert float(found.companions.mean(1).abs().max()) < 1e-15
    torch.testing.assert_close(found.mean, found.states.mean(1))
    assert float(found.reduction[-1]) > 10


def test_paths_are_those_of_sgd():
    options = {"steps": 5, "paths": 30}
    process = toy(learning_rate=0.1, sampling="without-replacement", batch_size=2)
    found = mean_of_sgd(
        process, START, generator=generator(3, "cpu"), every=2, **options
    )
    plain = simulate(
        process, START, generator=generator(3, "cpu"), every=2, keep=True, **options
    )
    assert torch.equal(found.states, plain.history[1:])
    assert torch.equal(found.times, plain.times[1:])
    torch.testing.assert_close(found.samples, found.states - found.companions)
    spread = found.samples.var(1)
    torch.testing.assert_close(found.stderr, (spread / 30).sqrt())
    ratio = found.states.var(1).sum(1) / spread.sum(1)
    torch.testing.assert_close(found.reduction, ratio)
    assert found.mean.shape == found.descent.shape == (2, 2)


def test_only_the_end_unless_asked():
    process = toy(learning_rate=0.1)
    found = mean_of_sgd(process, START, steps=4, paths=2, generator=generator(0, "cpu"))
    assert found.times.tolist() == pytest.approx([0.4])
    assert found.states.shape == (1, 2, 2)
    assert repr(found).startswith(
        "ControlledMean(2 paths, d = 2, 1 records, variance reduced "
    )


def test_digits():
    """The mean along the gradient agrees with plain runs, at a fraction of them."""
    digits = data.digits(device="cpu", pool=2)
    model = nets.mlp([16, 6, 10], "tanh", seed=1, device="cpu")
    start = nets.flatten(model)
    process = SGD.of_network(
        model,
        CROSS_ENTROPY,
        digits.inputs[:200],
        digits.targets[:200],
        learning_rate=0.2,
        batch_size=4,
    )
    found = mean_of_sgd(
        process, start, steps=20, paths=100, generator=generator(1, "cpu")
    )
    plain = simulate(
        process, start, steps=20, paths=1000, generator=generator(2, "cpu")
    )
    assert float(found.reduction[-1]) > 30
    direction = (found.descent[-1] - start) / (found.descent[-1] - start).norm()
    a, b = found.samples[-1] @ direction, plain.states @ direction
    error = (a.var() / len(a) + b.var() / len(b)).sqrt()
    assert abs(float((a.mean() - b.mean()) / error)) < 5
    assert float(a.std()) / 10 < float(b.std()) / 1000**0.5


def test_a_quadratic_loss_leaves_no_scatter():
    process = SGD.of_loss(
        a[k] * u**2 / 2 - c[k] * u, u, k, COLUMNS, learning_rate=0.1, batch_size=2
    )
    found = mean_of_sgd(
        process, START[:1], steps=10, paths=50, generator=generator(0, "cpu")
    )
    torch.testing.assert_close(found.samples[-1], found.descent.expand(50, 1))
    assert float(found.reduction[-1]) > 1e20


def test_it_may_do_harm_and_says_so():
    """From the top between two minima the paths part, the linearisation runs away."""
    process = SGD.of_loss(
        u**4 / 4 - u**2 / 2 + c[k] * u / 5,
        u,
        k,
        {c: torch.tensor([1.0, -1.0], dtype=torch.float64)},
        learning_rate=0.1,
    )
    found = mean_of_sgd(
        process,
        torch.zeros_like(START[:1]),
        steps=60,
        paths=200,
        generator=generator(0, "cpu"),
    )
    assert float(found.reduction[-1]) < 1


def test_noise_without_gradient():
    """A gradient that does not depend on x has no Hessian."""
    coin = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    process = SGD(
        lambda x, batch: coin[batch].mean(1, keepdim=True),
        samples=2,
        learning_rate=0.5,
    )
    found = mean_of_sgd(
        process, START[:1], steps=4, paths=9, generator=generator(0, "cpu")
    )
    torch.testing.assert_close(found.samples, START[:1].expand(1, 9, 1))


def test_single_precision():
    process = toy(learning_rate=0.1)
    found = mean_of_sgd(
        process, START.float(), steps=3, paths=5, generator=generator(0, "cpu")
    )
    assert found.samples.dtype == found.descent.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_the_gpu():
    columns = {base: values.cuda() for base, values in COLUMNS.items()}
    process = SGD.of_loss(TOY, [u, v], k, columns, learning_rate=0.1)
    found = mean_of_sgd(
        process, START.cuda(), steps=3, paths=500, generator=generator(0, "cuda")
    )
    assert found.mean.is_cuda
    assert float(found.reduction[-1]) > 10


def call(process=None, start=START, **options):
    options = {"steps": 2, "paths": 3, "generator": generator(0, "cpu"), **options}
    return mean_of_sgd(process or toy(learning_rate=0.1), start, **options)


@pytest.mark.parametrize(
    "options, kind, text",
    [
        ({"paths": 1}, ValueError, "paths must be at least 2; got 1"),
        ({"paths": 0}, ValueError, "paths must be a positive integer; got 0"),
        ({"steps": 0}, ValueError, "steps must be a positive integer; got 0"),
        ({"every": 0}, ValueError, "every must be a positive integer; got 0"),
        ({"every": 3}, ValueError, "every must be at most steps = 2; got 3"),
        ({"start": [0.0, 1.0]}, TypeError, "start must be a floating-point tensor"),
        (
            {"start": START.expand(3, 2)},
            ValueError,
            r"start must have shape \(d,\), one point for all paths; got \(3, 2\)",
        ),
        ({"start": START[:1]}, ValueError, "start must have d = 2 coordinates; got 1"),
        (
            {"start": START * math.nan},
            ValueError,
            "start must be finite",
        ),
        ({"generator": 3}, TypeError, "generator must be a torch.Generator; got int"),
        (
            {"process": Process(torch.sin, 1.0, dimension=2)},
            TypeError,
            "process must be an SGD; got Process",
        ),
        (
            {"process": toy(learning_rate=5.0), "steps": 9},
            SimulationError,
            "became infinite or NaN",
        ),
    ],
)
def test_the_door(options, kind, text):
    with pytest.raises(kind, match=text):
        call(**options)


@pytest.mark.parametrize(
    "transform", [lambda g: g.sum(1), lambda g: g.mean(1).clamp(-1, 1)]
)
def test_the_gradient_must_be_a_mean(transform):
    process = SGD(
        lambda x, batch: transform(x[:, None, :] * (1.0 + batch[..., None])),
        samples=3,
        learning_rate=0.1,
        batch_size=2,
    )
    with pytest.raises(ValueError, match="must be the mean of its samples' gradients"):
        call(process)
