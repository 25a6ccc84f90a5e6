r"""The mean of SGD, estimated with a linear control variate.

Beside every path x of SGD runs its linearisation y about gradient descent X, driven by
the same mini-batches, from :math:`y_0=0`:

.. math:: X_{k+1} = X_k - \eta_k\nabla f(X_k),\qquad
          y_{k+1} = y_k - \eta_k\big(g_{\mathcal B_k}(X_k) - \nabla f(X_k) + H_ky_k\big)

The mean of y is zero, exactly, and y follows :math:`x-X` closely.  So :math:`x-y` has
the mean of x, with less scatter.

Why the mean is zero: the gradient noise at X, a fixed point, has mean zero.  If every
batch is drawn afresh, :math:`H_k` is the Hessian of the batch's loss at X; it is
independent of :math:`y_k`, and a factor :math:`\mathbb E y_k=0` comes out.  In shuffled
epochs a batch depends on those before it.  There :math:`H_k` is the Hessian of f, no
longer random, and y a fixed linear combination of noises.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sgdbook import _door
from sgdbook.sgd import SGD
from sgdbook.simulate import simulate


@dataclass(frozen=True)
class ControlledMean:
    """The result of `mean_of_sgd`; "records" counts the recorded times.

    Attributes
    ----------
    times : torch.Tensor, shape (records,)
        Sums of learning rates, float64 on the CPU.
    states, companions : torch.Tensor, shape (records, paths, d)
        The paths x of SGD, and their y, whose mean is zero.
    descent : torch.Tensor, shape (records, d)
        Gradient descent X from the same start.
    """

    times: torch.Tensor
    states: torch.Tensor
    companions: torch.Tensor
    descent: torch.Tensor

    def __repr__(self):
        """Say how many paths and records there are, and the last reduction."""
        records, paths, d = self.states.shape
        return (
            f"ControlledMean({paths} paths, d = {d}, {records} records, variance "
            f"reduced {float(self.reduction[-1]):.3g} times)"
        )

    @property
    def samples(self):
        """Independent samples x - y with the mean of x, shape (records, paths, d)."""
        return self.states - self.companions

    @property
    def mean(self):
        """The estimate of the mean of SGD, shape (records, d)."""
        return self.samples.mean(1)

    @property
    def stderr(self):
        """Its standard error, shape (records, d)."""
        return self.samples.std(1) / self.samples.shape[1] ** 0.5

    @property
    def reduction(self):
        """By how much the total variance is reduced, shape (records,).

        Above 1 it is a gain; an estimate from as many paths without control variate
        has this times the variance.  It is infinite, or as large as rounding lets it
        be, where the loss is quadratic.  Below 1, x has left the neighbourhood of X:
        the estimate still has the right mean, but the control variate does harm.
        """
        plain, controlled = (v.var(1).sum(-1) for v in (self.states, self.samples))
        return plain / controlled


def mean_of_sgd(process, start, *, steps, paths, generator, every=None):
    r"""Estimate the mean of SGD after some steps, with a linear control variate.

    The estimate is unbiased for any number of steps and any learning rate.  A step
    costs about three gradients of the batch for each path, and one of all samples; in
    shuffled epochs each path needs two gradients of all samples.

    Parameters
    ----------
    process : sgdbook.sgd.SGD
        Its gradient is differentiated once more, in forward mode.
    start : torch.Tensor, shape (d,)
        Where all paths start; its dtype and device are those of the computation.
    steps : int
        Number of steps.
    paths : int
        Number of independent paths, at least 2.
    generator : torch.Generator
        On the device of ``start``.  The paths of SGD are those of
        `sgdbook.simulate.simulate` with a generator in the same state.
    every : int, optional
        Record after the steps every, 2 every, ...; only the last if not given.

    Returns
    -------
    ControlledMean
        Holds 2 x records x paths x d numbers.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range; if the process' gradient
        of a batch is not the mean of the samples' gradients, as is seen at the start.
    sgdbook.engines.SimulationError
        If a path becomes infinite or NaN.

    References
    ----------
    Glasserman, *Monte Carlo Methods in Financial Engineering*, section 4.1.

    Examples
    --------
    Two samples :math:`f=\frac14x^4\pm\frac12x`, one step from 1.  Gradient descent
    goes to 0.9; one step is linear in the draw, so that the control variate takes all
    the scatter:

    >>> sign = torch.tensor([1.0, -1.0], dtype=torch.float64)
    >>> process = SGD(
    ...     lambda x, batch: x**3 + sign[batch].mean(1, keepdim=True) / 2,
    ...     samples=2, learning_rate=0.1,
    ... )
    >>> found = mean_of_sgd(
    ...     process, torch.ones(1, dtype=torch.float64), steps=1, paths=50,
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> bool((found.mean - 0.9).abs().max() < 1e-12), bool(found.stderr.max() < 1e-12)
    (True, True)
    """
    if not isinstance(process, SGD):
        raise TypeError(
            f"process must be an SGD; got {type(process).__name__}. Make one with "
            "SGD.of_loss or SGD.of_network."
        )
    _door.require_floating_tensor(start, "start")
    if start.ndim != 1:
        raise ValueError(
            f"start must have shape (d,), one point for all paths; got "
            f"{tuple(start.shape)}. The control variate is linear about one path of "
            "gradient descent."
        )
    if process.dimension not in (None, len(start)):
        raise ValueError(
            f"start must have d = {process.dimension} coordinates; got {len(start)}."
        )
    _door.require_positive_integer(paths, "paths")
    if paths < 2:
        raise ValueError("paths must be at least 2; got 1. One path has no scatter.")
    _door.require_positive_integer(steps, "steps")
    if every is None:
        every = steps
    _door.require_positive_integer(every, "every")
    if every > steps:
        raise ValueError(
            f"every must be at most steps = {steps}; got {every}. Nothing would be "
            "recorded."
        )
    _require_mean(process, start)
    pair = _Pair(process, start)
    run = simulate(
        pair,
        torch.cat([start, torch.zeros_like(start)]),
        steps=steps,
        paths=paths,
        generator=generator,
        every=every,
        burn_in=every,
        keep=True,
    )
    states, companions = run.history.chunk(2, dim=2)
    descent = torch.stack(pair.descent[every::every])
    return ControlledMean(run.times, states, companions, descent)


class _Pair:
    """SGD and its linearisation as one process in 2 d coordinates, (x, y)."""

    observable = None

    def __init__(self, process, start):
        self.process, self.start = process, start
        self.dimension = 2 * len(start)
        self.descent = [start]

    def steps(self, pairs, generator, dt):
        """Yield learning rates and new pairs; note the path of gradient descent."""
        process, here = self.process, self.start
        x, y = pairs.chunk(2, dim=1)
        everyone = torch.arange(process.samples, device=here.device)[None]
        for k, batch in enumerate(process.batches(len(x), generator)):
            rate = process.rate(k)
            full = process.slope(here[None], everyone)[0]
            noise = _linearised(process, here, y, batch, everyone) - full
            x, y = x - rate * process.slope(x, batch), y - rate * noise
            here = here - rate * full
            self.descent.append(here)
            yield rate, torch.cat([x, y], dim=1)


def _linearised(process, here, y, batch, everyone):
    """Return the batches' gradients at X plus Hessian times y, shape (paths, d)."""
    points = here.expand_as(y).contiguous()

    def slopes(samples):
        return torch.func.jvp(lambda x: process.slope(x, samples), (points,), (y,))

    gradient, curved = slopes(batch)
    if process.sampling == "epochs":
        curved = slopes(everyone.expand(len(y), -1))[1]
    return gradient + curved


def _require_mean(process, start):
    """Stop where the gradient of all samples is not the mean of their gradients."""
    n = process.samples
    total, size = torch.zeros_like(start), torch.zeros_like(start)
    for part in torch.arange(n, device=start.device)[:, None].split(256):
        slopes = process.slope(start.expand(len(part), -1), part)
        total += slopes.sum(0)
        size += slopes.abs().sum(0)
    whole = process.slope(start[None], torch.arange(n, device=start.device)[None])[0]
    rounding = 1e3 * torch.finfo(start.dtype).eps * float(size.max()) / n
    if float((whole - total / n).abs().max()) > rounding:
        raise ValueError(
            "the gradient of a batch must be the mean of its samples' gradients, "
            f"{(total / n)[:3].tolist()} on all {n} at the start; got "
            f"{whole[:3].tolist()}. For sums, clipping or other transforms of the "
            "batch gradient the control variate has another mean than zero."
        )
