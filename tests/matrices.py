"""Small matrices for tests of linear dynamics."""

import torch

F64 = torch.float64


def matrix(rows):
    """Return a float64 tensor."""
    return torch.tensor(rows, dtype=F64)


def near(found, expected, rtol=1e-12):
    """Compare with the largest entry as the scale."""
    expected = torch.as_tensor(expected, dtype=F64)
    return float((found - expected).abs().max()) <= rtol * float(expected.abs().max())
