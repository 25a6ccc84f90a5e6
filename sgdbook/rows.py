r"""The matrix :math:`J` of per-sample gradients, held without being formed.

Row i of J (N x d) is :math:`\nabla f_i^{\mathsf T}`. What other rooms need of it are
products: J v and :math:`J^{\mathsf T}u`, for one vector or several, and
:math:`JJ^{\mathsf T}`. Here `Rows` is J itself, or its blocks, formed one at a time.
`FunctionRows` differentiates instead: a forward derivative is J v, a backward one
:math:`J^{\mathsf T}u`. For linear layers there is a shorter way, `sgdbook.layers`.
"""

import math

import torch
from torch.func import jvp, vjp

from sgdbook import _door, gradients

_TILE = 256  # rows of a symmetric matrix at a time: half of it need not be computed
_SAMPLES = 512  # samples that are differentiated at a time


class Rows:
    """The matrix J, known by its blocks: everything else is done one at a time.

    Parameters
    ----------
    shape : tuple of int
        (N, d).
    block : callable
        (i, j) -> rows i to j − 1 of J, a tensor (j − i, d).

    Examples
    --------
    >>> J = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> rows = Rows(J.shape, lambda i, j: J[i:j])
    >>> rows.rmatvec(torch.ones(2, 1)).T
    tensor([[4., 6.]])
    """

    def __init__(self, shape, block):
        self.shape = tuple(shape)
        self.block = block

    def fits(self):
        """Return whether J may be formed: it has at most 2**25 entries."""
        return math.prod(self.shape) <= gradients._BLOCK

    def blocks(self):
        """Yield the blocks of J in order, of at most 2**25 entries or one row."""
        for i, j in self._steps():
            yield self.block(i, j)

    def _steps(self):
        """Return the first row of each block and the first of the next."""
        n, d = self.shape
        return steps(n, max(1, gradients._BLOCK // d))

    def matvec(self, v):
        """Return J v, shape (N, k), for v (d, k)."""
        return torch.cat([rows @ v for rows in self.blocks()])

    def rmatvec(self, u):
        """Return Jᵀ u, shape (d, k), for u (N, k)."""
        total, start = 0, 0
        for rows in self.blocks():
            total = total + rows.T @ u[start : start + len(rows)]
            start += len(rows)
        return total

    def gram(self):
        """Return J Jᵀ, shape (N, N), symmetric."""
        n, matrix = self.shape[0], None
        for i, tile in self._tiles():
            matrix = tile.new_empty(n, n) if matrix is None else matrix
            matrix[i : i + len(tile), i:] = tile
        return mirror(matrix)

    def _tiles(self):
        """Yield J Jᵀ from the diagonal on: i, and its rows i, i + 1, ... to the end."""
        for i, j in self._steps():
            here = self.block(i, j)
            later = [here @ self.block(*k).T for k in self._steps() if k[0] > i]
            near = [(p, here[p:q] @ here[p:].T) for p, q in steps(len(here))]
            for p, tile in near:
                rest = [part[p : p + len(tile)] for part in later]
                yield i + p, torch.cat([tile, *rest], 1)

    def norms(self):
        """Return the squared lengths of the rows, shape (N,)."""
        return torch.cat([rows.square().sum(1) for rows in self.blocks()])


class FunctionRows(Rows):
    r"""The Jacobian J of losses :math:`x\mapsto(f_1,\dots,f_N)`, by derivatives.

    Parameters
    ----------
    losses : callable
        (flat weights (d,), i, j) -> losses of the samples i to j − 1.
    weights : torch.Tensor
        Shape (d,): where to differentiate.
    samples : int
        The number N.
    step : int, optional
        How many samples to differentiate at a time.
    block : callable, optional
        As in `Rows`; entry by entry of i to j − 1, or of the weights, unless given.

    Examples
    --------
    >>> def losses(x, i, j):
    ...     return torch.stack([x[0] * x[1], x.sum()])[i:j]
    >>> rows = FunctionRows(losses, torch.tensor([2.0, 3.0]), 2)
    >>> rows.block(0, 2)
    tensor([[3., 2.],
            [1., 1.]])
    >>> rows.matvec(torch.ones(2, 1)).T
    tensor([[5., 2.]])
    """

    def __init__(self, losses, weights, samples, *, step=_SAMPLES, block=None):
        self._losses, self._weights, self._step = losses, weights, step
        super().__init__((samples, len(weights)), block or self._jacobian)

    def _pieces(self):
        """Yield i, j and the losses of samples i to j − 1 as a function of x."""
        for i, j in steps(self.shape[0], self._step):
            yield i, j, lambda x, i=i, j=j: self._losses(x, i, j)

    def _jacobian(self, i, j):
        """Return rows i to j − 1 of J, by whichever derivatives are fewer."""
        x, d = self._weights, self.shape[1]
        unit = torch.eye(min(j - i, d), dtype=x.dtype, device=x.device)

        def losses(x):
            return self._losses(x, i, j)

        if d <= j - i:
            return torch.stack([_push(losses, x, e) for e in unit], 1)
        pull = vjp(losses, x)[1]
        return torch.stack([pull(e, retain_graph=True)[0] for e in unit]).detach()

    def matvec(self, v):
        """Return J v, shape (N, k), for v (d, k)."""
        columns = [
            torch.cat([_push(f, self._weights, column) for _, _, f in self._pieces()])
            for column in v.T
        ]
        return torch.stack(columns, 1)

    def rmatvec(self, u):
        """Return Jᵀ u, shape (d, k), for u (N, k)."""
        total = 0
        for i, j, f in self._pieces():
            pull = vjp(f, self._weights)[1]
            columns = [pull(column, retain_graph=True)[0] for column in u[i:j].T]
            total = total + torch.stack(columns, 1)
        return total.detach()


def _push(function, x, v):
    """Return the derivative of a function along v."""
    return jvp(function, (x,), (v,))[1].detach()


def of_matrix(J):
    """Return the rows of an explicit matrix J (N, d), whose memory they share."""
    return Rows(J.shape, lambda i, j: J[i:j])


def steps(n, size=_TILE):
    """Cut 0, ..., n − 1 into ranges (i, j) of at most the given size."""
    return [(i, min(i + size, n)) for i in range(0, n, size)]


def mirror(matrix):
    """Make a matrix symmetric in place from what it holds on and above the diagonal."""
    for i, j in steps(len(matrix)):
        near = matrix[i:j, i:j]
        near.copy_(near.triu() + near.triu(1).T)
        matrix[j:, i:j] = matrix[i:j, j:].T
    return matrix


def centre(columns):
    """Return C times a matrix: subtract from each column its mean."""
    return columns - columns.mean(0)


def columns_of(v, like, owner):
    """Return v, of shape (d,) or (d, k), as columns (d, k) after checking it.

    Parameters
    ----------
    v : torch.Tensor
        What came.
    like : torch.Tensor
        Whose first axis, dtype and device v must have.
    owner : str
        Whose they are, for the message.

    Raises
    ------
    TypeError
        If v is not a floating-point tensor.
    ValueError
        If its shape, dtype or device is wrong, or it is not finite.
    """
    d = len(like)
    _door.require_floating_tensor(v, "v")
    if v.ndim not in (1, 2) or v.shape[0] != d:
        raise ValueError(
            f"v must have shape ({d},) or ({d}, k); got {tuple(v.shape)}. "
            "Columns are vectors; transpose if they are your rows."
        )
    if (v.dtype, v.device) != (like.dtype, like.device):
        raise ValueError(
            f"v must be {like.dtype} on {like.device} like {owner}; got {v.dtype} on "
            f"{v.device}. Convert it with v.to(...)."
        )
    if not v.isfinite().all():
        raise ValueError("v must be finite; got NaN or infinity. Look where it arose.")
    return v.reshape(d, -1)
