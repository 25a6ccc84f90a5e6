"""J of a network by its linear layers, as a matrix, or by derivatives."""

import pytest
import torch
from networks import LAYERED, OTHER, case, conv, loop, mlp, near, randn
from test_rows import assert_rows
from torch import nn
from torch.nn.functional import cross_entropy

from sgdbook import gradients, layers, rows
from sgdbook.layers import LayerRows, rows_of
from sgdbook.rows import FunctionRows


@pytest.fixture
def formed(monkeypatch):
    """Count the rows of J that are formed by automatic differentiation."""
    counts = []
    function = gradients._gradients

    def count(model, loss, weights, inputs, targets):
        counts.append(len(inputs))
        return function(model, loss, weights, inputs, targets)

    monkeypatch.setattr(gradients, "_gradients", count)
    return counts


@pytest.mark.parametrize("name", LAYERED)
@pytest.mark.parametrize("n", [7, 90])
def test_rows_of_layers_are_formed_from_their_factors(name, n, formed, monkeypatch):
    problem = case(LAYERED[name], n)
    found = rows_of(*problem)
    assert formed == [2]  # the first and the last row, to compare
    assert_rows(found, loop(*problem))
    monkeypatch.setattr(gradients, "_BLOCK", 1)
    assert_rows(found, loop(*problem))
    assert formed == [2]


@pytest.mark.parametrize("tile", [1, 3, 7, 8])
def test_gram_of_layers_by_tiles(tile, monkeypatch):
    problem = case(mlp)
    J = loop(*problem)
    monkeypatch.setattr(layers.steps, "__defaults__", (tile,))
    found = rows_of(*problem).gram()
    assert near(found, J @ J.T, atol=1e-13)
    assert torch.equal(found, found.T)


@pytest.mark.parametrize("size", [1, 7 * 5 * 2, 2**22])
def test_products_of_layers_by_groups_of_columns(size, monkeypatch):
    monkeypatch.setattr(layers, "_ENTRIES", size)
    problem = case(mlp)
    assert_rows(rows_of(*problem), loop(*problem))


def test_groups_of_columns_are_bounded(monkeypatch):
    """Three columns of 7 samples at a layer of 5 outputs hold 105 entries."""
    monkeypatch.setattr(layers, "_ENTRIES", 105)
    found = rows_of(*case(mlp))
    assert [len(g) for g in found._groups(randn(7, 8))] == [3, 3, 2]


@pytest.mark.parametrize("name", OTHER)
def test_rows_of_other_modules_are_a_matrix_or_derivatives(name, formed, monkeypatch):
    problem = case(OTHER[name])
    J = loop(*problem)
    monkeypatch.setattr(gradients, "_BLOCK", J.numel())
    found = rows_of(*problem)
    assert type(found) is rows.Rows
    compared = len(formed)
    assert_rows(found, J)
    assert len(formed) == compared
    assert formed[-1] == 7
    monkeypatch.setattr(gradients, "_BLOCK", J.numel() - 1)
    found = rows_of(*problem)
    assert type(found) is FunctionRows
    formed.clear()
    found.matvec(randn(J.shape[1], 2))
    found.rmatvec(randn(7, 2))
    assert formed == []
    assert_rows(found, J)
    assert max(formed) < 7


class Rounded(torch.autograd.Function):
    """The identity, without a forward derivative."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, slope):
        return slope

    @staticmethod
    def vmap(info, dims, x):
        return Rounded.apply(x), dims[0]


class Backward(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 4))

    def forward(self, x):
        return Rounded.apply(x @ self.weight.T)


def test_blocks_where_there_is_no_forward_derivative(monkeypatch):
    problem = case(Backward)
    J = loop(*problem)
    monkeypatch.setattr(gradients, "_BLOCK", 2 * J.shape[1])
    found = rows_of(*problem)
    assert type(found) is rows.Rows
    assert_rows(found, J)


def test_layers_that_do_not_reach_the_loss():
    model, _, inputs, targets = case(mlp)
    found = rows_of(model, lambda output, t: output.detach().sum() * t, inputs, targets)
    assert not isinstance(found, LayerRows)
    assert found.norms().tolist() == [0] * 7


@pytest.mark.parametrize("where", [0, -1])
def test_one_wrong_row_is_enough_to_leave_the_layers(where):
    """A weight used beside its layer, in the first or in the last sample only."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x) + x[:, :1] * self.layer.weight[:, 0]

    model, loss, inputs, targets = case(Model)
    inputs[:, 0] = 0
    inputs[where, 0] = 1e-3
    found = rows_of(model, loss, inputs, targets)
    assert_rows(found, loop(model, loss, inputs, targets))


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_layers_are_judged_whatever_the_unit_of_the_loss(scale):
    for make, layered in ((mlp, True), (OTHER["aside"], False)):
        model, _, inputs, targets = case(make)
        found = rows_of(
            model, lambda z, t: scale * cross_entropy(z, t), inputs, targets
        )
        assert isinstance(found, LayerRows) == layered


@pytest.mark.parametrize("block", [2**25, 100])
@pytest.mark.parametrize("make", [mlp, conv])
def test_rows_stay_at_their_weights(make, block, monkeypatch):
    monkeypatch.setattr(gradients, "_BLOCK", block)
    problem = case(make)
    J = loop(*problem)
    found = rows_of(*problem)
    with torch.no_grad():
        for p in problem[0].parameters():
            p.add_(1.0)
    assert_rows(found, J)
