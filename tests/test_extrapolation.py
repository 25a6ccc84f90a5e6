"""Richardson extrapolation."""

import pytest
import torch

from sgdbook.extrapolation import richardson


@pytest.mark.parametrize("order", [1, 2, 4])
def test_it_removes_the_leading_error(order):
    found = richardson(lambda n: 3 + 5 / n**order, 10, order=order)
    assert found.value == pytest.approx(3, rel=1e-14)
    assert found.error == pytest.approx(5 / 20**order)
    below = richardson(lambda n: 3 - 5 / n**order, 10, order=order)
    assert below.error == pytest.approx(5 / 20**order)


def test_tensors_and_several_axes():
    seen = []

    def quantity(cells):
        seen.append(cells)
        return torch.tensor([1 + 1 / cells[0] ** 2, 2 - 1 / cells[1] ** 2])

    found = richardson(quantity, (4, 6))
    assert seen == [(4, 6), (8, 12)]
    torch.testing.assert_close(found.value, torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(found.error, torch.tensor([1 / 64, 1 / 144]))


def test_the_default_order_is_two():
    assert richardson(lambda n: 1 / n**2, 3).value == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("cells", "order", "text"),
    [(0, 2, "cells must be a pos"), ((4, 2.5), 2, "cells"), (4, 0, "order must be a")],
)
def test_the_door(cells, order, text):
    with pytest.raises(ValueError, match=text):
        richardson(lambda n: 1.0, cells, order=order)
