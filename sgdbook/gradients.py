r"""Per-sample gradients: the matrix :math:`J`, whose row i is :math:`\nabla f_i`.

The loss of the book is the mean :math:`f = \frac1N\sum_i f_i` over the data
:math:`z_i`, each an input and a target; x stands for all parameters of the network.
Where J is too large to hold, or its entries are not needed, see `sgdbook.rows`.
"""

import torch
from torch import nn
from torch.func import functional_call, grad, jvp, vmap

from sgdbook import _door, nets

_BLOCK = 2**25  # entries of J formed at a time: 256 MiB of float64


def per_sample_losses(model, loss, inputs, targets):
    r"""Return the losses :math:`f_i(x)` of the samples.

    .. math:: f_i(x) = \ell(\text{output of the network at } z_i, \text{target of } z_i)

    Parameters
    ----------
    model : torch.nn.Module
        The network. It sees each sample as a batch of one. Dropout and batch
        normalisation must be in evaluation mode.
    loss : callable
        :math:`\ell`: (output of one sample, its target) -> scalar tensor, for example
        ``torch.nn.functional.cross_entropy``.
    inputs : torch.Tensor
        Shape (N, ...), of the model's dtype and on its device.
    targets : torch.Tensor
        Shape (N, ...); integer targets are int64.

    Returns
    -------
    torch.Tensor
        Shape (N,), differentiable.

    Raises
    ------
    ValueError
        If model, inputs and targets do not fit together.
    TypeError
        If inputs or targets are not tensors, or inputs not floating point.

    Examples
    --------
    >>> from torch.nn.functional import mse_loss
    >>> inputs, targets = torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1)
    >>> per_sample_losses(nn.Identity(), mse_loss, inputs, targets)
    tensor([1., 4.])
    """
    _validate(model, loss, inputs, targets)
    return _losses(model, loss, dict(model.named_parameters()), inputs, targets)


def losses_of(model, loss, inputs, targets):
    r"""Return the function that sends weights to the losses of the samples.

    .. math:: x \mapsto (f_1(x), \dots, f_N(x))

    Parameters
    ----------
    model, loss, inputs, targets
        As in `per_sample_losses`; the model's own weights are left alone.

    Returns
    -------
    callable
        (weights (d,), in the order of `nets.flatten`) -> losses (N,). Derivatives of
        any kind and order pass through.

    Raises
    ------
    ValueError, TypeError
        As in `per_sample_gradients`.

    Examples
    --------
    >>> from torch.nn.functional import mse_loss
    >>> inputs, targets = torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1)
    >>> losses = losses_of(nn.Linear(1, 1, bias=False), mse_loss, inputs, targets)
    >>> losses(torch.tensor([3.0]))
    tensor([ 9., 36.])
    """
    _validate(model, loss, inputs, targets)
    _weights(model)

    def losses(weights):
        return _losses(model, loss, nets.unflatten(model, weights), inputs, targets)

    return losses


def directional_derivatives(model, loss, inputs, targets, v, *, order=1):
    r"""Return the derivatives of every sample's loss along a direction.

    .. math:: \frac{d^r}{dt^r} f_i(x + tv)\Big|_{t=0}, \qquad r = 0, \dots,
              \text{order}

    They come from r nested forward derivatives: no gradient is formed.

    Parameters
    ----------
    model, loss, inputs, targets
        As in `per_sample_losses`.
    v : torch.Tensor
        Shape (d,), the direction, in the order of `nets.flatten`; of any length.
    order : int
        The highest derivative. Each order doubles the cost.

    Returns
    -------
    torch.Tensor
        Shape (order + 1, N): row 0 holds the losses, row 1 the slopes
        :math:`\nabla f_i\cdot v`, row 2 the curvatures
        :math:`v^{\mathsf T}\nabla^2f_i\,v`.

    Raises
    ------
    ValueError, TypeError
        As in `per_sample_gradients`; if v is not a finite vector (d,) of the inputs'
        dtype and device, or order not a positive integer.

    Examples
    --------
    >>> from torch.nn.functional import mse_loss
    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 3.0)
    >>> inputs, targets = torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1)
    >>> one = torch.ones(1)
    >>> directional_derivatives(model, mse_loss, inputs, targets, one, order=2)
    tensor([[ 9., 36.],
            [ 6., 24.],
            [ 2.,  8.]])
    """
    _door.require_positive_integer(order, "order")
    losses = losses_of(model, loss, inputs, targets)
    x = nets.flatten(model)
    _require_direction(v, x, "v")
    v = v.detach()

    def lift(rows):
        """Append the derivative of the last row."""

        def longer(t):
            values, slopes = jvp(rows, (t,), (torch.ones_like(t),))
            return torch.cat([values, slopes[-1:]])

        return longer

    rows = lambda t: losses(x + t * v)[None]  # noqa: E731
    for _ in range(order):
        rows = lift(rows)
    return rows(x.new_zeros(())).detach()


def _losses(model, loss, weights, inputs, targets):
    """Return the losses of the samples at named weights."""

    def one(z, target):
        return _loss(model, loss, weights, z, target)

    return vmap(one)(inputs, targets)


def per_sample_gradients(model, loss, inputs, targets):
    r"""Return the matrix J of per-sample gradients by ``vmap`` of ``grad``.

    .. math:: J_{ir} = \partial_r f_i(x)

    Parameters
    ----------
    model, loss, inputs, targets
        As in `per_sample_losses`.

    Returns
    -------
    torch.Tensor
        Shape (N, d), of the inputs' dtype, columns in the order of
        ``model.parameters()``, each flattened.

    Raises
    ------
    ValueError, TypeError
        As in `per_sample_losses`, or if the model has no parameters.

    Examples
    --------
    >>> from torch.nn.functional import mse_loss
    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(model.weight, 3.0)
    >>> inputs, targets = torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1)
    >>> per_sample_gradients(model, mse_loss, inputs, targets)  # 2 · 3 · input²
    tensor([[ 6.],
            [24.]])
    """
    _validate(model, loss, inputs, targets)
    return _gradients(model, loss, _weights(model), inputs, targets)


def _gradients(model, loss, weights, inputs, targets):
    """Return the rows of J at the given weights."""

    def one(weights, z, target):
        return _loss(model, loss, weights, z, target)

    size = sum(p.numel() for p in weights.values())
    slopes = vmap(grad(one), in_dims=(None, 0, 0), chunk_size=max(1, _BLOCK // size))
    tree = slopes(weights, inputs, targets)
    return torch.cat([leaf.flatten(1) for leaf in tree.values()], 1).detach()


def _weights(model):
    """Return copies of the parameters by name, in the order of the columns of J."""
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    if not weights:
        raise ValueError(
            f"model must have parameters to differentiate by; {type(model).__name__} "
            "has none. Pass a network with at least one layer."
        )
    return weights


def _loss(model, loss, weights, z, target):
    """Return the loss of one sample, shown to the model as a batch of one."""
    return _scalar(loss(functional_call(model, weights, z[None])[0], target))


def _scalar(value):
    """Return the loss of one sample after making sure that it is one number."""
    if not isinstance(value, torch.Tensor) or value.ndim:
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else value
        raise ValueError(
            f"loss must return a scalar tensor for one sample; got {got}. Let it "
            "average or sum over the outputs."
        )
    return value


# --- validation ----------------------------------------------------------------------


def _validate(model, loss, inputs, targets):
    """Stop where model, loss and data do not fit together."""
    if not isinstance(model, nn.Module) or not callable(loss):
        raise TypeError(
            "model must be a torch.nn.Module and loss a function (output, target) -> "
            f"scalar; got {type(model).__name__} and {type(loss).__name__}. "
            "Mind the order: model, loss, inputs, targets."
        )
    _validate_data(inputs, targets)
    _door.require_agreement(model, inputs)
    _validate_layers(model)


def _require_direction(v, x, name):
    """Stop where v is not a finite vector like the weights x."""
    _door.require_floating_tensor(v, name)
    if v.shape != x.shape:
        raise ValueError(
            f"{name} must have shape {tuple(x.shape)}, one entry a parameter; got "
            f"{tuple(v.shape)}. The order is that of nets.flatten(model)."
        )
    if (v.dtype, v.device) != (x.dtype, x.device):
        raise ValueError(
            f"{name} must be {x.dtype} on {x.device} like the weights; got {v.dtype} "
            f"on {v.device}. Convert it with {name}.to(...)."
        )
    if not v.isfinite().all():
        raise ValueError(
            f"{name} must be finite; got NaN or infinity. Look where it was made."
        )


def _validate_data(inputs, targets):
    """Stop where inputs and targets are not tensors over the same samples."""
    _door.require_floating_tensor(inputs, "inputs")
    if not isinstance(targets, torch.Tensor):
        raise TypeError(
            f"targets must be a tensor; got {type(targets).__name__}. "
            "Convert them with torch.as_tensor."
        )
    if inputs.ndim < 2 or targets.ndim < 1 or len(inputs) != len(targets):
        raise ValueError(
            "inputs must have shape (N, ...) and targets (N,) or (N, ...); got "
            f"{tuple(inputs.shape)} and {tuple(targets.shape)}. Samples go along the "
            "first axis; add a feature axis with inputs[:, None]."
        )
    if len(inputs) == 0:
        raise ValueError("inputs must hold at least 1 sample; got 0. Pass more data.")
    if not targets.is_floating_point() and targets.dtype != torch.int64:
        raise ValueError(
            f"integer targets must be torch.int64; got {targets.dtype}. "
            "Convert them with targets.long()."
        )
    if targets.device != inputs.device:
        raise ValueError(
            f"targets must be on {inputs.device} like inputs; got {targets.device}. "
            "Move them with targets.to(inputs.device)."
        )


def _validate_layers(model):
    """Stop where a layer joins the samples of a batch, or draws lots."""
    for name, module in model.named_modules():
        norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        drop = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        mixing = norm and (module.training or module.running_mean is None)
        if mixing or (drop and module.training):
            why = "that uses batch statistics" if mixing else "in training mode"
            raise ValueError(
                f"the loss of a sample must depend on that sample alone; {name!r} is a "
                f"{type(module).__name__} {why}. Call model.eval() first, or leave "
                "that layer out."
            )
