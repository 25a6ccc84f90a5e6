r"""Stochastic gradient descent itself as a process: many runs at once.

.. math:: x_{k+1} = x_k - \eta_k\,g_{\mathcal B_k}(x_k),\qquad
          g_{\mathcal B}(x)=\frac1b\sum_{i\in\mathcal B}\nabla f_i(x)

Every path of an ensemble draws its own mini-batches.  `sgdbook.simulate.simulate` moves
them, as it moves the paths of a stochastic differential equation.
"""

from __future__ import annotations

import torch

from sgdbook import _door, gradients, nets
from sgdbook.bridge import to_torch

SAMPLINGS = ("replacement", "without-replacement", "epochs")


class SGD:
    r"""Mini-batch SGD on a mean of per-sample losses, as a process.

    Parameters
    ----------
    gradient : callable
        ``gradient(x, batch)`` with x of shape (paths, d) and batch, sample numbers
        from 0 to N - 1, of shape (paths, b): the mean gradient, shape (paths, d).
    samples : int
        Number of samples N.
    learning_rate : float or callable
        :math:`\eta>0`, or a function of the step k = 0, 1, ... that returns it.
    batch_size : int
        b, from 1 to N.
    sampling : {"replacement", "without-replacement", "epochs"}
        Each batch b independent draws; each batch a fresh draw of b different samples;
        or shuffled epochs: the samples in random order, b at a time, shuffled again
        when fewer than b are left.
    dimension : int, optional
        d, if it is to be checked.
    observable : callable, optional
        Turns an observable that is no function into one of (paths, d).

    Raises
    ------
    TypeError
        If the gradient is no function.
    ValueError
        If an argument is out of range.

    References
    ----------
    Chadha, 2018, section "Mathematics of Stochastic Gradient Descent".

    Examples
    --------
    Three samples :math:`f_i=\frac12(x-c_i)^2`, one step from 0:

    >>> c = torch.tensor([1.0, 2.0, 3.0])
    >>> process = SGD(
    ...     lambda x, batch: x - c[batch].mean(1, keepdim=True),
    ...     samples=3, learning_rate=0.5, batch_size=3, sampling="epochs",
    ... )
    >>> from sgdbook.simulate import simulate
    >>> simulate(
    ...     process, torch.zeros(1), steps=1, paths=2,
    ...     generator=torch.Generator().manual_seed(0),
    ... ).states
    tensor([[1.],
            [1.]])
    """

    def __init__(
        self,
        gradient,
        *,
        samples,
        learning_rate,
        batch_size=1,
        sampling="replacement",
        dimension=None,
        observable=None,
    ):
        if not callable(gradient):
            raise TypeError(
                "gradient must be a function of x and the batch; got "
                f"{type(gradient).__name__}. SGD.of_loss and SGD.of_network make one."
            )
        _door.require_positive_integer(samples, "samples")
        if dimension is not None:
            _door.require_positive_integer(dimension, "dimension")
        _door.require_positive_integer(batch_size, "batch_size")
        if batch_size > samples:
            raise ValueError(
                f"batch_size must be at most N = {samples}; got {batch_size}. Lower it."
            )
        _door.require_one_of(sampling, SAMPLINGS, "sampling", "Choose one of these.")
        if not callable(learning_rate):
            _door.require_rate(learning_rate)
        self.gradient, self.samples = gradient, samples
        self.learning_rate, self.batch_size = learning_rate, batch_size
        self.sampling, self.dimension = sampling, dimension
        self.observable = observable

    @classmethod
    def of_loss(cls, loss, variables, index, data, **options):
        r"""Make the process from the SymPy expression of one sample's loss.

        Parameters
        ----------
        loss : sympy.Expr
            :math:`f_k`, such as ``h[k] * x**2 / 2 + X[k, 2] * y``.
        variables : sympy.Symbol or sequence of sympy.Symbol
            The d coordinates.
        index : sympy.Symbol
            The number of the sample, ``k``: the first index of everything indexed.
        data : dict of sympy.IndexedBase to torch.Tensor
            Floating point, shapes (N,), or (N, q) for two indices, the second counted
            from 1.  The slopes are computed in float64 and given the paths' dtype.
        **options
            As for the class, without ``samples``.

        Returns
        -------
        SGD

        Raises
        ------
        TypeError
            If data are not floating-point tensors.
        ValueError
            If the data disagree on N or are not finite, if variables repeat, or if
            the loss holds something else that varies.

        Examples
        --------
        >>> import sympy as sp
        >>> x, k, h = sp.Symbol("x"), sp.Symbol("k", integer=True), sp.IndexedBase("h")
        >>> SGD.of_loss(h[k] * x**2 / 2, x, k, {h: torch.ones(5)}, learning_rate=0.1)
        SGD(N = 5, b = 1, η = 0.1, sampling 'replacement')
        """
        variables = (
            list(variables) if isinstance(variables, list | tuple) else [variables]
        )
        if not variables or len(set(variables)) < len(variables):
            raise ValueError(
                f"variables must be different symbols, at least one; got {variables}."
            )
        samples, device = _admit(data)
        entries = _entries(loss, index, data)
        args = [*variables, *(dummy for dummy, _ in entries.values())]
        swap = {old: dummy for old, (dummy, _) in entries.items()}
        slopes = [
            to_torch(loss.diff(v).xreplace(swap), args, device=device)
            for v in variables
        ]
        columns = [values for _, values in entries.values()]

        def gradient(x, batch):
            at = [*x[:, :, None].unbind(1), *(values[batch] for values in columns)]
            means = [slope(*at).expand(batch.shape).mean(1) for slope in slopes]
            return torch.stack(means, dim=1).to(x.dtype)

        def observable(expr):
            function = to_torch(expr, variables, device=device)
            return lambda x: function(*x.unbind(1))

        return cls(
            gradient,
            samples=samples,
            dimension=len(variables),
            observable=observable,
            **options,
        )

    @classmethod
    def of_network(cls, model, loss, inputs, targets, **options):
        """Make the process from a network; a path is a flat vector of weights.

        Parameters
        ----------
        model : torch.nn.Module
            Maps (batch, q) to (batch, classes); it is not changed.
        loss : callable
            ``loss(outputs, targets)``, the mean over the batch.
        inputs, targets : torch.Tensor, shapes (N, q) and (N,)
        **options
            As for the class, without ``samples``.

        Returns
        -------
        SGD
            Its paths have the layout of `sgdbook.nets.flatten`.

        Raises
        ------
        TypeError, ValueError
            If model and data do not fit together, if a loss is not finite, or if the
            loss is not the mean of the samples' losses.

        Examples
        --------
        >>> model = nets.mlp([4, 3], seed=0, device="cpu")
        >>> z = torch.rand(6, 4, dtype=torch.float64)
        >>> y = torch.tensor([0, 1, 2, 0, 1, 2])
        >>> loss = torch.nn.functional.cross_entropy
        >>> SGD.of_network(model, loss, z, y, learning_rate=0.1, batch_size=2)
        SGD(N = 6, b = 2, η = 0.1, sampling 'replacement')
        """
        with torch.no_grad():
            losses = gradients.per_sample_losses(model, loss, inputs, targets)
            mean, whole = losses.mean(), loss(model(inputs), targets)
        if bad := (~losses.isfinite()).nonzero().flatten().tolist():
            raise ValueError(
                f"every loss must be finite; that of sample {bad[0]} is not "
                f"({len(bad)} of {len(losses)} in all). Look for NaN or infinity in "
                "its input and in the parameters."
            )
        if not torch.isclose(mean, whole, rtol=1e-4):
            raise ValueError(
                f"loss must be the mean over the batch, {float(mean):.6g} on these "
                f"data; got {float(whole):.6g}. Use reduction='mean', and no "
                "layer that mixes samples, such as batch normalisation."
            )

        def one(weights, z, y):
            parameters = nets.unflatten(model, weights)
            return loss(torch.func.functional_call(model, parameters, (z,)), y)

        slope = torch.func.vmap(torch.func.grad(one))

        def gradient(x, batch):
            if x.dtype != inputs.dtype:
                raise ValueError(
                    f"the paths of this network must be {inputs.dtype} like its "
                    f"inputs; got {x.dtype}. Convert the start with .to(...)."
                )
            return slope(x, inputs[batch], targets[batch])

        return cls(
            gradient,
            samples=len(inputs),
            dimension=nets.num_parameters(model),
            **options,
        )

    def __repr__(self):
        """Say what distinguishes the process."""
        rate = self.learning_rate
        shown = "η(k)" if callable(rate) else f"η = {rate:g}"
        return (
            f"SGD(N = {self.samples}, b = {self.batch_size}, {shown}, sampling "
            f"{self.sampling!r})"
        )

    def batches(self, paths, generator):
        """Yield mini-batches for every path.

        Parameters
        ----------
        paths : int
        generator : torch.Generator

        Yields
        ------
        torch.Tensor, shape (paths, b), int64
            On the generator's device.
        """
        n, b = self.samples, self.batch_size
        like = {"generator": generator, "device": generator.device}
        while True:
            if self.sampling == "replacement":
                yield torch.randint(n, (paths, b), **like)
                continue
            order = torch.rand(paths, n, dtype=torch.float64, **like).argsort(dim=1)
            if self.sampling == "without-replacement":
                yield order[:, :b]
            else:
                yield from order[:, : n - n % b].split(b, dim=1)

    def steps(self, x, generator, dt=None):
        """Yield one step of SGD after the other: learning rate, new positions.

        Parameters
        ----------
        x : torch.Tensor, shape (paths, d)
            Where the paths start.
        generator : torch.Generator
        dt : None
            SGD has its learning rate.

        Yields
        ------
        tuple of float and torch.Tensor, shape (paths, d)
        """
        if dt is not None:
            raise ValueError(
                f"SGD takes no dt, its time step is the learning rate; got {dt!r}. "
                "Leave dt out."
            )
        for k, batch in enumerate(self.batches(len(x), generator)):
            rate = self.rate(k)
            x = x - rate * self.slope(x, batch)
            yield rate, x

    def rate(self, k):
        """Return the learning rate of the step k = 0, 1, ..."""
        rate = self.learning_rate
        if callable(rate):
            rate = rate(k)
            _door.require_rate(rate)
        return rate

    def slope(self, x, batch):
        """Return the gradient for each path and its batch, of the shape of x."""
        slope = self.gradient(x, batch)
        if not isinstance(slope, torch.Tensor) or slope.shape != x.shape:
            tensor = isinstance(slope, torch.Tensor)
            got = tuple(slope.shape) if tensor else type(slope).__name__
            raise ValueError(
                f"gradient must return a tensor of shape {tuple(x.shape)}; got {got}. "
                "Take the mean over the batch, axis 1."
            )
        if (slope.dtype, slope.device) != (x.dtype, x.device):
            raise ValueError(
                f"gradient must return {x.dtype} on {x.device} like the paths; got "
                f"{slope.dtype} on {slope.device}. Make data and start alike."
            )
        return slope


def _admit(data):
    """Check the columns of data; return their length and device."""
    for base, values in data.items():
        _door.require_floating_tensor(values, f"the data of {base}")
        if bad := (~values.isfinite()).nonzero().tolist():
            raise ValueError(
                f"the data of {base} must be finite; entry {tuple(bad[0])} is not. "
                "Look at where they were made."
            )
    shapes = [tuple(values.shape) for values in data.values()]
    if len({shape[:1] for shape in shapes}) != 1 or () in shapes:
        raise ValueError(
            f"data must have one length N; got shapes {shapes}. Give every sample its "
            "entry."
        )
    return shapes[0][0], values.device


def _entries(loss, index, data):
    """Map every indexed quantity of a loss to a symbol and its column of data."""
    found = {}
    for entry in sorted(loss.free_symbols, key=str):
        if not hasattr(entry, "indices"):
            continue
        base, (first, *rest) = entry.base, entry.indices
        if base not in data or first != index or not all(r.is_Integer for r in rest):
            raise ValueError(
                f"{entry} cannot be taken from data. Expected quantities such as "
                f"h[{index}] or X[{index}, 2], with h and X among {list(data)}."
            )
        column = data[base]
        if column.ndim != 1 + len(rest):
            raise ValueError(
                f"{entry} has {1 + len(rest)} indices, its data shape "
                f"{tuple(data[base].shape)}. Give one index an axis."
            )
        for r in rest:
            if not 1 <= r <= column.shape[1]:
                raise ValueError(
                    f"{entry} is beyond its data of shape {tuple(data[base].shape)}. "
                    f"The second index runs from 1 to {column.shape[1]}."
                )
            column = column[:, int(r) - 1]
        found[entry] = (base.label.as_dummy(), column)
    return found
