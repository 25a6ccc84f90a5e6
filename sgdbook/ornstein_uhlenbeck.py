r"""The Ornstein-Uhlenbeck process, in and out of equilibrium.

Near a minimum the loss is a quadratic, the noise is constant to leading order, and
everything about the stationary state is linear algebra, the current that remains there
included.  Its measure is the angular momentum

.. math:: L_{ij}=\frac{\mathbb E[x_i\,dx_j-x_j\,dx_i]}{dt}=2TQ_{ij} ,

which vanishes if and only if there is no current.
"""

from __future__ import annotations

import math
from functools import cached_property

import scipy.linalg
import torch

from sgdbook import _door


class OrnsteinUhlenbeck:
    r"""The process :math:`dX=-AX\,dt+\sqrt{2TD}\,dW` in its stationary state.

    .. math:: A\Sigma+\Sigma A^{\mathsf T}=2TD,\qquad Q=\frac1TA\Sigma-D,\qquad
              \Phi=\tfrac12x^{\mathsf T}Px,\quad P=T\Sigma^{-1},\qquad
              j=Bx,\quad B=-QP

    Parameters
    ----------
    drift : torch.Tensor
        A, shape (d, d), floating point: every eigenvalue has a positive real part.  For
        a loss :math:`\frac12x^{\mathsf T}Hx` it is H.
    diffusion : torch.Tensor
        D, shape (d, d): symmetric, no negative eigenvalue.
    temperature : float
        T; for SGD :math:`\eta/2b`.

    Raises
    ------
    TypeError
        If a matrix is not a floating-point tensor.
    ValueError
        If the shapes do not fit, an entry is not finite, D is not symmetric or has a
        negative eigenvalue, T is not positive, or A is not stable.

    References
    ----------
    Risken, *The Fokker-Planck Equation*, section 6.5; Chaudhari and Soatto,
    arXiv:1710.11029, appendix on the linear case.

    Examples
    --------
    >>> H = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
    >>> D = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    >>> OrnsteinUhlenbeck(H, D).antisymmetric
    tensor([[ 0.0000, -0.2500],
            [ 0.2500,  0.0000]], dtype=torch.float64)
    """

    def __init__(self, drift, diffusion, temperature=1.0):
        _door.require_square(drift, "drift")
        _door.require_covariance(diffusion, "diffusion", drift)
        _door.require_number(
            temperature, "temperature", positive=True, hint="SGD has eta / 2b."
        )
        rates = torch.linalg.eigvals(drift).real
        if not bool((rates > 0).all()):
            raise ValueError(
                "every eigenvalue of drift must have a positive real part; the least "
                f"is {float(rates.min()):.6g}. The process dX = -A X dt + noise has no "
                "stationary law otherwise; leave such directions out."
            )
        self.drift, self.diffusion = drift, diffusion
        self.temperature = float(temperature)

    def __repr__(self):
        """Say dimension and temperature."""
        return f"OrnsteinUhlenbeck(d = {len(self.drift)}, T = {self.temperature:g})"

    @cached_property
    def covariance(self):
        r""":math:`\Sigma`, shape (d, d)."""
        if self._basis is not None:
            h, V, D = self._basis
            return rotated(2 * self.temperature * D / (h[:, None] + h), V)
        A, D = (x.cpu().numpy() for x in (self.drift, self.diffusion))
        found = scipy.linalg.solve_continuous_lyapunov(A, 2 * self.temperature * D)
        return torch.as_tensor((found + found.T) / 2).to(self.drift)

    @cached_property
    def antisymmetric(self):
        r"""Q, shape (d, d): zero if and only if there is no current."""
        if self._basis is not None:
            h, V, D = self._basis
            Q = V @ (D * (h[:, None] - h) / (h[:, None] + h)) @ V.T
        else:
            Q = self.drift @ self.covariance / self.temperature
        return (Q - Q.T) / 2

    @cached_property
    def potential(self):
        r"""P with :math:`\Phi=\frac12x^{\mathsf T}Px`, shape (d, d); needs Σ > 0."""
        return self.temperature * torch.cholesky_inverse(self._root)

    @cached_property
    def current(self):
        """B with j = B x, shape (d, d): the velocity of the stationary current."""
        return -self.antisymmetric @ self.potential

    @cached_property
    def frequencies(self):
        """Angular velocities of x' = B x, descending, floor(d / 2) of them."""
        L = self._root
        inner = torch.linalg.solve_triangular(L, self.antisymmetric, upper=False)
        inner = torch.linalg.solve_triangular(L, inner.T, upper=False)
        values = torch.linalg.eigvalsh(1j * self.temperature * inner)
        return values.flip(0)[: len(values) // 2].clamp(min=0)

    @property
    def angular_momentum(self):
        """L = 2 T Q, shape (d, d)."""
        return 2 * self.temperature * self.antisymmetric

    @cached_property
    def entropy_production(self):
        r""":math:`\frac1T\mathbb E[j^{\mathsf T}D^{-1}j]`, per unit time.

        All coordinates count as even under time reversal.  inf where D is singular, as
        with friction and momentum: the drift there has no noise to answer it.
        """
        flow = self.antisymmetric @ torch.linalg.inv(self._root).T  # of j / T, whitened
        values, V = torch.linalg.eigh(self.diffusion)
        if float(values[0]) <= len(values) * torch.finfo(values.dtype).eps * values[-1]:
            return math.inf
        return self.temperature * float(((V.T @ flow) ** 2 / values[:, None]).sum())

    def transient(self, times, mean, covariance):
        """Return mean and covariance of the Gaussian law at given times.

        Parameters
        ----------
        times : torch.Tensor
            Shape (k,), not negative, of the drift's dtype.
        mean, covariance : torch.Tensor
            Those at time 0, shapes (d,) and (d, d).

        Returns
        -------
        means, covariances : torch.Tensor
            Shapes (k, d) and (k, d, d).

        Raises
        ------
        TypeError, ValueError
            If a shape does not fit, a time is negative, or the covariance is none.
        """
        _door.require_floating_tensor(times, "times")
        if times.ndim != 1 or not bool((times.isfinite() & (times >= 0)).all()):
            raise ValueError(
                "times must be a vector of finite numbers of at least 0; got "
                f"{times.tolist() if times.numel() < 9 else tuple(times.shape)}."
                " Start at 0."
            )
        _door.require_vector(mean, "mean", self.drift)
        _door.require_covariance(covariance, "covariance", self.drift)
        flow = torch.linalg.matrix_exp(-times[:, None, None] * self.drift)
        excess = flow @ (covariance - self.covariance) @ flow.mT
        return flow @ mean, self.covariance + (excess + excess.mT) / 2

    def relative_entropy(self, mean, covariance):
        r"""Return :math:`KL(\mathcal N(m,C)\,\|\,\mathcal N(0,\Sigma))`, in nats.

        Times T it is the free energy above its minimum.

        Parameters
        ----------
        mean, covariance : torch.Tensor
            m and C, shapes (..., d) and (..., d, d).

        Returns
        -------
        torch.Tensor
            Shape (...); inf where C is singular.

        Raises
        ------
        TypeError, ValueError
            If the shapes do not fit, a C is no covariance, or Σ is singular.
        """
        _door.require_floating_tensor(mean, "mean")
        _door.require_covariance(covariance, "covariance", self.drift, batch=True)
        d = len(self.drift)
        if mean.shape != covariance.shape[:-1]:
            raise ValueError(
                f"mean must have the shape {tuple(covariance.shape[:-1])} of the rows "
                f"of covariance; got {tuple(mean.shape)}. Give one for each."
            )
        inverse = torch.linalg.inv(self._root)
        ratio = torch.linalg.eigvalsh(inverse @ covariance @ inverse.T)
        tiny = d * torch.finfo(ratio.dtype).eps * ratio[..., -1:]
        ratio = torch.where(ratio > tiny, ratio, 0.0)
        excess = ratio - 1
        shift = (inverse @ mean[..., None])[..., 0]
        return ((excess - excess.log1p()).sum(-1) + (shift**2).sum(-1)) / 2

    @cached_property
    def _basis(self):
        """Return eigenvalues, eigenvectors and D among them if A is symmetric."""
        A = self.drift
        if not torch.equal(A, A.T):
            return None
        h, V = torch.linalg.eigh(A)
        return h, V, V.T @ self.diffusion @ V

    @cached_property
    def _root(self):
        """Return the Cholesky factor of the covariance."""
        root, info = torch.linalg.cholesky_ex(self.covariance)
        if int(info):
            raise ValueError(
                "the stationary covariance is singular: the noise does not reach every "
                "direction, and there is no density. Leave the others out, or add "
                "noise there."
            )
        return root


def rotated(inner, V):
    """Return V inner Vᵀ, symmetric to the last bit."""
    out = V @ inner @ V.T
    return (out + out.T) / 2
