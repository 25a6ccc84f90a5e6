"""Per-sample losses and gradients, and the ways to hold their matrix."""

import pytest
import torch
from networks import (
    LAYERED,
    OTHER,
    Tied,
    case,
    conv,
    labels,
    loop,
    mlp,
    near,
    randn,
    seeded,
)
from test_rows import assert_rows
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from sgdbook import gradients, nets
from sgdbook.gradients import (
    directional_derivatives,
    losses_of,
    per_sample_gradients,
    per_sample_losses,
)
from sgdbook.layers import LayerRows, rows_of

MAKES = {**LAYERED, **OTHER}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_gradients_agree_with_a_loop_of_backward_passes(make, monkeypatch):
    problem = case(make)
    expected = loop(*problem)
    for block in (2**25, 3 * expected.shape[1], 1):
        monkeypatch.setattr(gradients, "_BLOCK", block)
        J = per_sample_gradients(*problem)
        assert not J.requires_grad
        assert near(J, expected, rtol=1e-12, atol=1e-13)


def test_losses_average_to_the_loss_of_the_batch():
    model, loss, inputs, targets = case(mlp)
    losses = per_sample_losses(model, loss, inputs, targets)
    assert losses.shape == (7,)
    assert near(losses.mean(), loss(model(inputs), targets), rtol=1e-14)
    (slope,) = torch.autograd.grad(losses.mean(), [model[0].weight])
    J = per_sample_gradients(model, loss, inputs, targets)
    assert near(J.mean(0)[:20], slope.reshape(-1), rtol=1e-12)


def test_losses_of_regression_by_hand():
    inputs, targets = randn(5, 3), randn(5, 1, seed=1)
    model = seeded(nn.Linear(3, 1))
    residual = inputs @ model.weight[0] + model.bias - targets[:, 0]
    assert near(per_sample_losses(model, mse_loss, inputs, targets), residual**2)


def test_neither_model_nor_inputs_are_touched():
    model, loss, inputs, targets = case(mlp)
    before, data = nets.flatten(model), inputs.clone()
    model[0].weight.requires_grad_(False)
    inputs.requires_grad_()
    expected = loop(model.requires_grad_(), loss, inputs.detach(), targets)
    model[0].weight.requires_grad_(False)
    with torch.no_grad():
        J = per_sample_gradients(model, loss, inputs, targets)
        rows = rows_of(model, loss, inputs, targets)
    assert isinstance(rows, LayerRows)
    for found in (J, rows.block(0, 7)):
        assert near(found, expected, atol=1e-13)
        assert not found.requires_grad
    assert torch.equal(nets.flatten(model), before)
    assert torch.equal(inputs, data)
    assert inputs.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model)


# --- the door ------------------------------------------------------------------------

EAGER = per_sample_losses, per_sample_gradients, rows_of
FUNCTIONS = *EAGER, losses_of


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            {"inputs": [[1.0]]},
            TypeError,
            "inputs must be a floating-point tensor; got l",
        ),
        (
            {"inputs": torch.ones(7, 4).long()},
            TypeError,
            "tensor; got torch.int64. Conv",
        ),
        ({"inputs": randn(7)}, ValueError, r"inputs must have shape \(N, \.\.\.\) and"),
        ({"inputs": randn(6, 4)}, ValueError, r"got \(6, 4\) and \(7,\). Samples go"),
        (
            {"inputs": randn(7, 4).float()},
            ValueError,
            "parameter '0.weight'; got torch.f",
        ),
        ({"targets": [0] * 7}, TypeError, "targets must be a tensor; got list"),
        ({"targets": torch.tensor(1)}, ValueError, r"got \(7, 4\) and \(\)"),
        (
            {"targets": labels(7).int()},
            ValueError,
            "must be torch.int64; got torch.int32",
        ),
        (
            {"targets": labels(7).to("meta")},
            ValueError,
            "targets must be on cpu like inp",
        ),
        ({"loss": "mse"}, TypeError, "model must be .* got Sequential and str. Mind"),
        ({"model": cross_entropy}, TypeError, "got function and .*Mind the order"),
        (
            {"model": mlp().to("meta")},
            ValueError,
            "on meta like the parameter '0.weight",
        ),
    ],
)
def test_door_of_the_problem(change, error, text):
    names = ("model", "loss", "inputs", "targets")
    problem = {**dict(zip(names, case(mlp), strict=True)), **change}
    for function in FUNCTIONS:
        with pytest.raises(error, match=text):
            function(**problem)


def test_too_few_samples():
    model, loss, inputs, targets = case(mlp)
    for function in FUNCTIONS:
        with pytest.raises(ValueError, match=r"at least 1 sample; got 0. Pass more"):
            function(model, loss, inputs[:0], targets[:0])
    assert per_sample_gradients(model, loss, inputs[:1], targets[:1]).shape == (1, 64)


def test_a_model_without_parameters():
    problem = nn.Identity(), mse_loss, randn(3, 1), randn(3, 1)
    assert per_sample_losses(*problem).shape == (3,)
    for function in (per_sample_gradients, losses_of, rows_of):
        with pytest.raises(
            ValueError, match=r"model must have parameters .*Identity has"
        ):
            function(*problem)


@pytest.mark.parametrize("make", [mlp, Tied])
def test_loss_must_be_a_scalar(make):
    model, _, inputs, _ = case(make)
    for function in EAGER:
        text = r"loss must return a scalar tensor for one sample; got \(\d,\). Let"
        with pytest.raises(ValueError, match=text):
            function(model, lambda z, t: z - t[0], inputs, inputs)
        with pytest.raises(ValueError, match=r"for one sample; got 1.0. Let"):
            function(model, lambda z, t: 1.0, inputs, inputs)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (
            nn.BatchNorm1d(4),
            "'1' is a BatchNorm1d that uses batch statistics. Call mod",
        ),
        (nn.Dropout(0.5), "'1' is a Dropout in training mode. Call model.eval"),
    ],
)
def test_layers_that_join_samples_or_draw_lots(layer, text):
    model, loss, x, y = case(lambda: nn.Sequential(nn.Linear(4, 4), layer))
    for function in FUNCTIONS:
        with pytest.raises(ValueError, match=text):
            function(model.train(), loss, x, y)
    rows = rows_of(model.eval(), loss, x, y)
    assert_rows(rows, loop(model, loss, x, y))


def test_batch_norm_without_running_statistics_is_refused_in_evaluation_too():
    norm = nn.BatchNorm1d(4, track_running_stats=False)
    problem = case(lambda: nn.Sequential(nn.Linear(4, 4), norm).eval())
    with pytest.raises(ValueError, match=r"uses batch statistics"):
        per_sample_gradients(*problem)


def test_dropout_that_drops_nothing_is_allowed():
    problem = case(lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.0)))
    assert near(per_sample_gradients(*problem), loop(*problem))


# --- along a direction ---------------------------------------------------------------


def test_losses_as_a_function_of_the_weights():
    problem = case(mlp)
    losses, x = losses_of(*problem), nets.flatten(problem[0])
    assert near(losses(x), per_sample_losses(*problem).detach())
    assert near(torch.func.jacrev(losses)(x), loop(*problem), atol=1e-12)
    with torch.no_grad():
        for p in problem[0].parameters():
            p.zero_()
    assert not near(losses(x), per_sample_losses(*problem), atol=1e-3)


@pytest.mark.parametrize("make", [mlp, conv, Tied])
def test_derivatives_along_a_direction(make):
    """Against full derivatives, contracted one index at a time."""
    problem = case(make)
    losses, x = losses_of(*problem), nets.flatten(problem[0])
    v = randn(len(x), seed=3)
    found = directional_derivatives(*problem, v, order=2)
    hessians = torch.func.jacrev(torch.func.jacrev(losses))(x)
    assert found.shape == (3, 7)
    assert not found.requires_grad
    assert near(found[0], losses(x))
    assert near(found[1], loop(*problem) @ v, atol=1e-12)
    assert near(found[2], hessians @ v @ v, atol=1e-11)
    first = directional_derivatives(*problem, v)
    assert near(first, found[:2], atol=1e-12)


def test_derivatives_of_any_order():
    """The loss exp(3 t) along the direction 3."""
    model = nn.Linear(1, 1, bias=False).to(torch.float64)
    nn.init.zeros_(model.weight)
    one = torch.ones(1, 1, dtype=torch.float64)
    found = directional_derivatives(
        model, lambda z, t: z.exp().sum(), one, one, 3 * one[0], order=5
    )
    assert found[:, 0].tolist() == [3.0**r for r in range(6)]


@pytest.mark.parametrize(
    ("v", "error", "text"),
    [
        (randn(63), ValueError, r"v must have shape \(64,\), .*; got \(63,\). The or"),
        (randn(64, 1), ValueError, r"got \(64, 1\)"),
        (randn(64).float(), ValueError, "v must be torch.float64 on cpu like the wei"),
        (randn(64).to("meta"), ValueError, "got torch.float64 on meta. Convert it"),
        (randn(64) / 0, ValueError, "v must be finite; got NaN or infinity. Look"),
        ([1.0] * 64, TypeError, "v must be a floating-point tensor; got list"),
    ],
)
def test_bad_direction(v, error, text):
    with pytest.raises(error, match=text):
        directional_derivatives(*case(mlp), v)


@pytest.mark.parametrize("order", [0, -1, 1.0, True])
def test_bad_order(order):
    with pytest.raises(ValueError, match="order must be a positive integer; got"):
        directional_derivatives(*case(mlp), randn(64), order=order)
