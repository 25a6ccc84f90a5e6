r"""Paths in the space of weights: geodesics and descents, with error control.

A geodesic of the diffusion metric goes as straight as the metric lets it,

.. math:: \ddot x^k = -\Gamma^k_{ij}(x)\,\dot x^i\dot x^j ,

and a descent follows the gradient of the training loss f, raised by one of three
metrics:

.. math:: \dot x = -\nabla f, \qquad \dot x = -(I-\varepsilon D)\,\nabla f, \qquad
          \dot x = -(I+\varepsilon D)^{-1}\,\nabla f .

`sgdbook.curves` computes the paths. The derivatives come from torch, on the device of
the weights; nothing of size d x d is formed.
"""

from __future__ import annotations

import copy

import torch
from torch.func import grad, jvp

from sgdbook import _door, gradients, nets
from sgdbook.curves import Curve, flow, motion
from sgdbook.metric import DiffusionMetric

METRICS = ("euclidean", "weak", "exact")


class DiffusionGeometry:
    r"""The diffusion metric :math:`G = I + \varepsilon D` at every point.

    Make one with `of` or `of_losses`.

    Parameters
    ----------
    metric_at : callable
        Weights (d,) -> `sgdbook.metric.DiffusionMetric`.
    losses : callable
        Weights (d,) -> losses (N,).

    References
    ----------
    Fioresi, Chaudhari and Soatto, arXiv:1910.12194, equations (4), (6) and (10).

    Examples
    --------
    Losses :math:`\pm x^2/2` have :math:`G=1+\varepsilon x^2`: a geodesic slows down
    as it leaves the origin.

    >>> def losses(x):
    ...     return torch.cat([x**2, -(x**2)]) / 2
    >>> geometry = DiffusionGeometry.of_losses(losses, 1.0)
    >>> start, velocity = torch.zeros(2, 1, dtype=torch.float64) + 1
    >>> times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    >>> path = geometry.geodesic(0 * start, velocity, times)
    >>> path.velocities[-1] * (1 + path.positions[-1] ** 2).sqrt()
    tensor([1.0000], dtype=torch.float64)
    """

    def __init__(self, metric_at, losses):
        self.at, self._losses = metric_at, losses

    @classmethod
    def of(cls, model, loss, inputs, targets, epsilon, *, solver="auto"):
        """Return the geometry of a network on a data set.

        Parameters
        ----------
        model, loss, inputs, targets, epsilon, solver
            As in `sgdbook.metric.DiffusionMetric.of`. The model is copied: where its
            own parameters are, or go later, does not matter.

        Returns
        -------
        DiffusionGeometry

        Raises
        ------
        ValueError, TypeError
            As in `sgdbook.metric.DiffusionMetric.of`.
        """
        model = copy.deepcopy(model)
        losses = gradients.losses_of(model, loss, inputs, targets)

        def metric_at(x):
            with torch.no_grad():
                torch.nn.utils.vector_to_parameters(x.clone(), model.parameters())
            return DiffusionMetric.of(
                model, loss, inputs, targets, epsilon, solver=solver
            )

        metric_at(nets.flatten(model))
        return cls(metric_at, losses)

    @classmethod
    def of_losses(cls, function, epsilon, *, solver="auto"):
        """Return the geometry of any function that gives the losses of all samples.

        Parameters
        ----------
        function, epsilon, solver
            As in `sgdbook.metric.DiffusionMetric.of_losses`, which judges them at the
            first point that is looked at.

        Returns
        -------
        DiffusionGeometry
        """

        def metric_at(x):
            return DiffusionMetric.of_losses(function, x, epsilon, solver=solver)

        return cls(metric_at, function)

    def loss(self, x):
        """Return the training loss f, the mean of the losses, a scalar."""
        return self._losses(x).mean()

    def gradient(self, x):
        r"""Return :math:`\nabla f`, shape (d,)."""
        return grad(self.loss)(x).detach()

    def hessian_product(self, x, v):
        r"""Return :math:`Hv`, the Hessian of f times a vector v (d,), shape (d,)."""
        return jvp(grad(self.loss), (x,), (v,))[1].detach()

    def geodesic(self, start, velocity, times, *, rtol=1e-9, atol=1e-12, most=10**5):
        r"""Return the geodesic with given start and velocity.

        Its speed :math:`\sqrt{\dot x^{\mathsf T}G\dot x}` stays what it was. That is
        not built in, so it is looked at.

        Parameters
        ----------
        start, velocity, times, rtol, atol, most
            As in `motion`.

        Returns
        -------
        Curve
            With its speeds.

        Raises
        ------
        TypeError, ValueError, FloatingPointError, ArithmeticError
            As in `flow` and `sgdbook.metric.DiffusionMetric`; ArithmeticError also if
            the speed has changed by more than 10,000 rtol and one in a million.
        """

        def acceleration(x, v):
            return -self.at(x).christoffel(v)

        options = {"rtol": rtol, "atol": atol, "most": most}
        path = motion(acceleration, start, velocity, times, **options)
        speeds = torch.stack(
            [
                (v @ self.at(x).matvec(v)).sqrt()
                for x, v in zip(path.positions, path.velocities, strict=True)
            ]
        )
        drift = float((speeds - speeds[0]).abs().max())
        if drift > max(1e-6, 1e4 * rtol) * speeds[0]:
            raise ArithmeticError(
                f"a geodesic must keep its speed; this one went from {speeds[0]:.9g} "
                f"to as far as {drift:.2g} from it. Use a smaller rtol; if that does "
                "not help, the losses have kinks, which ReLU makes: take tanh."
            )
        return Curve(
            path.times, path.positions, path.velocities, path.evaluations, speeds
        )

    def descend(
        self, start, times, metric="euclidean", *, rtol=1e-9, atol=1e-12, most=10**5
    ):
        r"""Return the path of steepest descent of the training loss.

        Parameters
        ----------
        start, times, rtol, atol, most
            As in `flow`.
        metric : {"euclidean", "weak", "exact"}
            Gradient descent :math:`\dot x=-\nabla f`; relativistic gradient descent
            :math:`\dot x=-(I-\varepsilon D)\nabla f`, which descends for
            :math:`\varepsilon\lambda_{\max}(D)<1` only; the gradient of the metric,
            :math:`\dot x=-G^{-1}\nabla f`, which always does.

        Returns
        -------
        Curve

        Raises
        ------
        TypeError, ValueError, FloatingPointError, ArithmeticError
            As in `flow` and `sgdbook.metric.DiffusionMetric`.
        """
        _door.require_one_of(metric, METRICS, "metric", "See the docstring of descend.")

        def velocity(x):
            slope = self.gradient(x)
            if metric == "weak":
                return self.at(x).matvec(slope) - 2 * slope
            return -(self.at(x).solve(slope) if metric == "exact" else slope)

        return flow(velocity, start, times, rtol=rtol, atol=atol, most=most)
