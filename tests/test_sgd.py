"""SGD as a process: exact enumeration, the real optimiser, and clear stops."""

import itertools
import math

import pytest
import sympy as sp
import torch

from sgdbook import nets
from sgdbook.devices import generator
from sgdbook.sgd import SGD
from sgdbook.simulate import simulate

x, y = sp.symbols("x y", real=True)
k = sp.Symbol("k", integer=True, positive=True)
h, X = sp.IndexedBase("h"), sp.IndexedBase("X")
H = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
POINTS = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, -2.0]], dtype=torch.float64)
CROSS_ENTROPY = torch.nn.functional.cross_entropy


def quadratic(**options):
    return SGD.of_loss(h[k] * x**2 / 2, x, k, {h: H}, **options)


def run(process, start, paths, steps, seed=1, **options):
    start = torch.as_tensor(start, dtype=torch.float64)
    return simulate(
        process,
        start,
        steps=steps,
        paths=paths,
        generator=generator(seed, "cpu"),
        **options,
    )


def test_second_moment_of_independent_draws():
    rate, steps = 0.2, 3
    found = run(
        quadratic(learning_rate=rate),
        [1.0],
        100_000,
        steps,
        observables={"x": x, "square": x**2},
    )
    first, second = (
        (1 - rate * H).mean() ** steps,
        ((1 - rate * H) ** 2).mean() ** steps,
    )
    for name, truth in {"x": first, "square": second}.items():
        seen = found[name]
        assert abs(float((seen.mean[-1] - truth) / seen.stderr[-1])) < 5
    assert found.times.tolist() == pytest.approx([0, 0.2, 0.4, 0.6])


def test_an_epoch_uses_every_sample_once():
    """For commuting steps an epoch has one outcome, whatever the order."""
    found = run(quadratic(learning_rate=0.2, sampling="epochs"), [1.0], 40, 3)
    torch.testing.assert_close(found.states[:, 0], (1 - 0.2 * H).prod().expand(40))


def test_incomplete_batches_are_left_out():
    process = quadratic(learning_rate=0.1, batch_size=2, sampling="epochs")
    batches = list(itertools.islice(process.batches(500, generator(0, "cpu")), 4))
    assert all(batch.shape == (500, 2) for batch in batches)
    assert all(bool((batch[:, 0] != batch[:, 1]).all()) for batch in batches)
    assert bool((batches[0] != batches[1]).any())


@pytest.mark.parametrize(
    "sampling, collisions", [("replacement", True), ("without-replacement", False)]
)
def test_samplings_of_one_batch(sampling, collisions):
    process = quadratic(learning_rate=0.1, batch_size=2, sampling=sampling)
    batch = next(process.batches(3000, generator(0, "cpu")))
    assert bool((batch[:, 0] == batch[:, 1]).any()) == collisions
    counts = torch.bincount(batch.flatten(), minlength=3) / 6000
    assert float((counts - 1 / 3).abs().max()) < 0.03


def test_two_coordinates_and_two_indices():
    loss = (X[k, 1] * x + X[k, 2] * y**2 - h[k]) ** 2 / 2
    process = SGD.of_loss(loss, [x, y], k, {h: H, X: POINTS}, learning_rate=0.1)
    at = torch.tensor([[0.4, -0.7]], dtype=torch.float64)
    batch = torch.tensor([[0, 2, 2]])
    weights = at[0].clone().requires_grad_()
    rest = POINTS[batch[0], 0] * weights[0] + POINTS[batch[0], 1] * weights[1] ** 2
    ((rest - H[batch[0]]) ** 2 / 2).mean().backward()
    torch.testing.assert_close(process.gradient(at, batch)[0], weights.grad)
    assert process.dimension == 2


def test_a_loss_without_data_in_one_slope():
    process = SGD.of_loss(x**2 + h[k] * y, [x, y], k, {h: H}, learning_rate=0.1)
    slope = process.gradient(
        torch.ones(2, 2, dtype=torch.float64), torch.tensor([[0], [2]])
    )
    assert slope.tolist() == [[2.0, 0.5], [2.0, 3.0]]


def test_network_steps_are_those_of_the_optimiser():
    model = nets.mlp([4, 3, 3], "tanh", seed=0, device="cpu")
    z = torch.rand(6, 4, dtype=torch.float64, generator=generator(0, "cpu"))
    targets = torch.tensor([0, 1, 2, 0, 1, 2])
    start = nets.flatten(model)
    process = SGD.of_network(
        model, CROSS_ENTROPY, z, targets, learning_rate=0.3, batch_size=2
    )
    assert process.dimension == len(start)
    found = run(process, start, 3, 5).states
    assert torch.equal(nets.flatten(model), start)
    batches = list(itertools.islice(process.batches(3, generator(1, "cpu")), 5))
    for path in range(3):
        torch.nn.utils.vector_to_parameters(start.clone(), model.parameters())
        optimiser = torch.optim.SGD(model.parameters(), lr=0.3)
        for batch in batches:
            optimiser.zero_grad()
            CROSS_ENTROPY(model(z[batch[path]]), targets[batch[path]]).backward()
            optimiser.step()
        torch.testing.assert_close(found[path], nets.flatten(model))


def test_schedule_of_learning_rates():
    process = quadratic(
        learning_rate=lambda k: 1 / (k + 1), batch_size=3, sampling="epochs"
    )
    found = run(process, [1.0], 2, 3)
    assert found.times.tolist() == pytest.approx([1 + 5 / 6])
    mean = float(H.mean())
    truth = (1 - mean) * (1 - mean / 2) * (1 - mean / 3)
    assert found.states[0, 0] == pytest.approx(truth)
    assert repr(process) == "SGD(N = 3, b = 3, η(k), sampling 'epochs')"


@pytest.mark.parametrize(
    "options, text",
    [
        ({"learning_rate": 0.0}, "learning_rate must be a positive number"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"batch_size": 4}, "batch_size must be at most N = 3; got 4"),
        ({"sampling": "shuffle"}, "sampling must be one of replacement"),
    ],
)
def test_the_door(options, text):
    with pytest.raises(ValueError, match=text):
        quadratic(**{"learning_rate": 0.1, **options})


def test_more_doors():
    with pytest.raises(ValueError, match="SGD takes no dt"):
        run(quadratic(learning_rate=0.1), [1.0], 2, 1, dt=0.1)
    with pytest.raises(
        ValueError, match="learning_rate must be a positive number; got -1"
    ):
        run(quadratic(learning_rate=lambda k: -1), [1.0], 2, 1)
    wrong = SGD(lambda x, batch: x[:, 0], samples=3, learning_rate=0.1)
    with pytest.raises(ValueError, match=r"tensor of shape \(2, 1\); got \(2,\)"):
        run(wrong, [1.0], 2, 1)
    with pytest.raises(ValueError, match=r"one length N; got shapes \[\(3,"):
        SGD.of_loss(h[k] * X[k] * x, x, k, {h: H, X: H[:2]}, learning_rate=0.1)
    with pytest.raises(ValueError, match=r"h\[2\] cannot be taken from data"):
        SGD.of_loss(h[2] * x, x, k, {h: H}, learning_rate=0.1)
    with pytest.raises(
        ValueError, match=r"has 1 indices, its data shape .* Give one index an axis"
    ):
        SGD.of_loss(h[k] * x, x, k, {h: POINTS}, learning_rate=0.1)


def test_the_loss_must_be_a_mean():
    model = nets.mlp([2, 2], seed=0, device="cpu")

    def total(outputs, targets):
        return CROSS_ENTROPY(outputs, targets, reduction="sum")

    with pytest.raises(ValueError, match="loss must be the mean over the batch"):
        SGD.of_network(model, total, POINTS, torch.tensor([0, 1, 1]), learning_rate=0.1)


@pytest.mark.parametrize(
    "values, kind, text",
    [
        ([0.5, 1.0], TypeError, "the data of h must be a floating-point tensor; got l"),
        (torch.tensor([1, 2]), TypeError, "data of h must be .* got torch.int64"),
        (
            torch.tensor([1.0, math.nan]),
            ValueError,
            r"the data of h must be finite; entry \(1,\) is not",
        ),
        (torch.tensor(1.0), ValueError, r"data must have one length N; got shapes \["),
        (torch.zeros(0), ValueError, "samples must be a positive integer; got 0"),
    ],
)
def test_bad_data(values, kind, text):
    with pytest.raises(kind, match=text):
        SGD.of_loss(h[k] * x, x, k, {h: values}, learning_rate=0.1)


@pytest.mark.parametrize("column", [-1, 0, 3])
def test_columns_are_counted_from_one(column):
    with pytest.raises(ValueError, match="The second index runs from 1 to 2"):
        SGD.of_loss(X[k, column] * x, x, k, {X: POINTS}, learning_rate=0.1)


@pytest.mark.parametrize("variables", [[], [x, x]])
def test_variables_differ(variables):
    with pytest.raises(ValueError, match="variables must be different symbols"):
        SGD.of_loss(h[k] * x, variables, k, {h: H}, learning_rate=0.1)


def test_no_data():
    with pytest.raises(ValueError, match=r"data must have one length N; got shapes \["):
        SGD.of_loss(x**2, x, k, {}, learning_rate=0.1)


def test_the_gradient_at_the_door():
    with pytest.raises(TypeError, match="gradient must be a function"):
        SGD(0.5, samples=3, learning_rate=0.1)
    with pytest.raises(ValueError, match="dimension must be a positive integer; got 0"):
        SGD(torch.sin, samples=3, learning_rate=0.1, dimension=0)
    with pytest.raises(ValueError, match=r"tensor of shape \(2, 1\); got float"):
        run(SGD(lambda x, batch: 0.5, samples=3, learning_rate=0.1), [1.0], 2, 1)
    single = SGD(lambda x, batch: x.float(), samples=3, learning_rate=0.1)
    with pytest.raises(ValueError, match=r"must return torch\.float64 on cpu"):
        run(single, [1.0], 2, 1)


def test_the_paths_keep_their_dtype():
    found = simulate(
        quadratic(learning_rate=0.2, batch_size=3, sampling="epochs"),
        torch.ones(1),
        steps=1,
        paths=2,
        generator=generator(0, "cpu"),
    )
    assert found.states.dtype == torch.float32
    torch.testing.assert_close(found.states, torch.full((2, 1), 0.7))


def test_networks_with_bad_data():
    model = nets.mlp([2, 2], seed=0, device="cpu")
    targets = torch.tensor([0, 1, 1])
    spoilt = POINTS.clone()
    spoilt[2, 0] = math.inf
    with pytest.raises(ValueError, match="every loss must be finite; that of sample 2"):
        SGD.of_network(model, CROSS_ENTROPY, spoilt, targets, learning_rate=0.1)
    process = SGD.of_network(model, CROSS_ENTROPY, POINTS, targets, learning_rate=0.1)
    with pytest.raises(ValueError, match="the paths of this network must be"):
        simulate(
            process,
            nets.flatten(model).float(),
            steps=1,
            paths=2,
            generator=generator(0, "cpu"),
        )
