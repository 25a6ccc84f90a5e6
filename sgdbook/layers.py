r"""The per-sample gradients of a network, by its linear layers where it has no others.

The gradient of one sample in the weights of a linear layer is an outer product: of the
gradient at the layer's output and of its input. One forward and one backward pass for
all samples give both, and from them follow the products with :math:`J` and
:math:`J^{\mathsf T}` and the Gram matrix :math:`JJ^{\mathsf T}`, without J.
"""

import math

import torch
from torch import nn
from torch.func import functional_call, jvp, vmap

from sgdbook import gradients, nets
from sgdbook.rows import FunctionRows, Rows, of_matrix, steps

_ENTRIES = 2**22  # entries of intermediate results of a product with several columns


class LayerRows(Rows):
    r"""The matrix J of linear layers: each row is a chain of outer products.

    With input :math:`a_i` of the layer :math:`Wa + c` and gradient :math:`b_i` of
    the loss with respect to its output, sample i has the gradient
    :math:`b_ia_i^{\mathsf T}` in W and :math:`b_i` in c, so that over all layers

    .. math:: JJ^{\mathsf T} = \sum (AA^{\mathsf T} + 1)\circ(BB^{\mathsf T}) .

    Parameters
    ----------
    factors : list of tuple
        For each layer A (N, inputs), B (N, outputs), and whether it has the vector c.

    Examples
    --------
    >>> a, b = torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[1.0], [2.0]])
    >>> LayerRows([(a, b, True)]).block(0, 2)
    tensor([[1., 2., 1.],
            [0., 6., 2.]])
    """

    def __init__(self, factors):
        self.factors = factors
        d = sum(b.shape[1] * (a.shape[1] + bias) for a, b, bias in factors)
        self.shape = len(factors[0][0]), d

    def block(self, i, j):
        """Return rows i to j − 1 of J, shape (j − i, d)."""
        parts = []
        for a, b, bias in self.factors:
            parts.append((b[i:j, :, None] * a[i:j, None, :]).flatten(1))
            parts += [b[i:j]] if bias else []
        return torch.cat(parts, 1)

    def _groups(self, vectors):
        """Return the columns as rows, in groups whose products have a bounded size."""
        widest = max(b.shape[1] for _, b, _ in self.factors)
        return vectors.T.split(max(1, _ENTRIES // (self.shape[0] * widest)))

    def matvec(self, v):
        """Return J v, shape (N, k), for v (d, k)."""
        return torch.cat([self._matvec(group) for group in self._groups(v)], 1)

    def _matvec(self, v):
        total, k = 0, len(v)
        for a, b, bias in self.factors:
            n, m = b.shape[1], a.shape[1]
            sizes = [n * m, n * bias, v.shape[1] - n * (m + bias)]
            weight, shift, v = v.split(sizes, 1)
            z = (a @ weight.reshape(k * n, m).T).view(-1, k, n)
            z = z.add_(shift) if bias else z
            total = total + z.mul_(b[:, None, :]).sum(2)
        return total

    def rmatvec(self, u):
        """Return Jᵀ u, shape (d, k), for u (N, k)."""
        return torch.cat([self._rmatvec(group) for group in self._groups(u)]).T

    def _rmatvec(self, u):
        parts, k = [], len(u)
        for a, b, bias in self.factors:
            scaled = b[:, None, :] * u.T[:, :, None]
            parts.append((scaled.flatten(1).T @ a).view(k, -1))
            parts += [scaled.sum(0)] if bias else []
        return torch.cat(parts, 1)

    def _tiles(self):
        for i, j in steps(self.shape[0]):
            total = 0
            for a, b, bias in self.factors:
                inner = (a[i:j] @ a[i:].T).add_(bias)
                total = inner.mul_(b[i:j] @ b[i:].T).add_(total)
            yield i, total

    def norms(self):
        """Return the squared lengths of the rows, shape (N,)."""
        squares = [
            (a.square().sum(1), b.square().sum(1), c) for a, b, c in self.factors
        ]
        return sum((a + bias) * b for a, b, bias in squares)


def rows_of(model, loss, inputs, targets):
    """Return J of a network on a data set, at its present parameters.

    By its layers where all parameters sit in ``nn.Linear`` layers, each used once and
    in order, on inputs (N, n), sample by sample; else as a matrix where that has at
    most 2**25 entries; else by derivatives, anew for each product. Where torch has no
    forward derivative of an operation of the network, products go by blocks instead.

    Parameters
    ----------
    model, loss, inputs, targets
        As in `sgdbook.gradients.per_sample_losses`.

    Returns
    -------
    Rows
        Of the inputs' dtype, on their device.

    Raises
    ------
    ValueError, TypeError
        As in `sgdbook.gradients.per_sample_gradients`.
    """
    gradients._validate(model, loss, inputs, targets)
    weights = gradients._weights(model)

    def block(i, j):
        return gradients._gradients(model, loss, weights, inputs[i:j], targets[i:j])

    size = sum(p.numel() for p in weights.values())
    rows = Rows((len(inputs), size), block)
    factors = _factors(model, loss, inputs, targets)
    if factors:
        ends = [0, len(inputs) - 1]
        truth = gradients._gradients(model, loss, weights, inputs[ends], targets[ends])
        if _agree(layers := LayerRows(factors), ends, truth):
            return layers
    if rows.fits():
        return of_matrix(block(0, len(inputs)))

    def losses(x, i, j):
        named = nets.unflatten(model, x)
        return gradients._losses(model, loss, named, inputs[i:j], targets[i:j])

    flat = torch.cat([p.reshape(-1) for p in weights.values()])
    try:
        jvp(lambda x: losses(x, 0, 1), (flat,), (flat,))
    except NotImplementedError:  # an operation without a forward derivative
        return rows
    return FunctionRows(losses, flat, len(inputs), block=block)


def _factors(model, loss, inputs, targets):
    """Return the factors of `LayerRows`, or None if the network is of another kind."""
    layers = [m for m in model.modules() if type(m) is nn.Linear]
    own = [p for m in layers for p in (m.weight, m.bias) if p is not None]
    if list(map(id, own)) != list(map(id, model.parameters())):
        return None  # parameters elsewhere, or shared between layers
    calls = []

    def note(layer, inputs, output):
        calls.append((layer, inputs[0], output))
        return output.clone()  # what works in place then leaves the output alone

    hooks = [m.register_forward_hook(note) for m in layers]
    try:
        with torch.enable_grad():
            leaves = {
                k: p.requires_grad_() for k, p in gradients._weights(model).items()
            }
            outputs = functional_call(model, leaves, inputs)
            losses = vmap(lambda z, t: gradients._scalar(loss(z, t)))(outputs, targets)
            flat = all(a.ndim == 2 and len(a) == len(inputs) for _, a, _ in calls)
            once = list(map(id, layers)) == [id(m) for m, _, _ in calls]
            if not (flat and once and losses.requires_grad):
                return None  # a layer used twice, out of order, or along other axes
            slopes = torch.autograd.grad(
                losses.sum(), [z for _, _, z in calls], materialize_grads=True
            )
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (a.detach(), b, m.bias is not None)
        for (m, a, _), b in zip(calls, slopes, strict=True)
    ]


def _agree(layers, places, truth):
    """Return whether rows of the layers, the first and the last, are those of J.

    They are not if a sample sees another (as under subtraction of the batch's mean),
    or if a weight is also used beside its layer.
    """
    found = torch.cat([layers.block(i, i + 1) for i in places])
    allowed = math.sqrt(torch.finfo(truth.dtype).eps) * truth.norm(dim=1)
    return bool(((found - truth).norm(dim=1) <= allowed).all())
