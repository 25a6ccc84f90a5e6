r"""Linear dynamics with noise: stationary covariances, and the currents that remain.

Near a minimum the loss is a quadratic and everything about its stationary law is linear
algebra.  `OrnsteinUhlenbeck` is the diffusion with constant noise, `LinearSGD` the
algorithm on quadratic losses, at its own learning rate.  Both know the angular momentum

.. math:: L_{ij}=\frac{\mathbb E[x_i\,dx_j-x_j\,dx_i]}{dt} ,

which vanishes if and only if the stationary state carries no current.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import scipy.linalg
import torch
from scipy.sparse.linalg import eigs

from sgdbook import _door

_LARGEST = 60  # d of LinearSGD with random Hessians: d**2 x d**2 numbers are solved


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
            return _rotated(2 * self.temperature * D / (h[:, None] + h), V)
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


class LinearSGD:
    r"""SGD on quadratic losses, exactly, at any learning rate.

    .. math:: x\leftarrow x-\eta\,(H_{\mathcal B}x+g_{\mathcal B})

    with a fresh mini-batch each step.  Make one with `additive` or `of_losses`.

    Parameters
    ----------
    hessian, minimum, noise : torch.Tensor
        Mean Hessian, mean of x, and covariance S of the mini-batch gradient there.
    deviations : torch.Tensor or None
        :math:`H_i-H`, shape (N, d, d).
    weight : float
        Variance of a batch mean over that of one sample: 1/b with replacement.
    learning_rate : float

    Examples
    --------
    The variance is :math:`\eta s/h(2-\eta h)`:

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> LinearSGD.additive(one, one, learning_rate=0.5).covariance
    tensor([[0.3333]], dtype=torch.float64)
    """

    def __init__(self, hessian, minimum, noise, deviations, weight, learning_rate):
        self.hessian, self.mean, self.noise = hessian, minimum, noise
        self.deviations, self.weight = deviations, weight
        self.learning_rate = learning_rate

    @classmethod
    def additive(cls, hessian, covariance, *, learning_rate):
        r"""Return SGD whose noise does not depend on x.

        Parameters
        ----------
        hessian : torch.Tensor
            H, shape (d, d), symmetric, floating point.
        covariance : torch.Tensor
            S, that of the mini-batch gradient, shape (d, d).
        learning_rate : float
            :math:`\eta>0`.

        Returns
        -------
        LinearSGD

        Raises
        ------
        TypeError, ValueError
            If the shapes do not fit, a matrix is not finite, not symmetric, or S has a
            negative eigenvalue.
        """
        _door.require_square(hessian, "hessian")
        _door.require_symmetric(hessian, "hessian")
        _door.require_covariance(covariance, "covariance", hessian)
        _require_rate(learning_rate)
        return cls(
            hessian, hessian.new_zeros(len(hessian)), covariance, None, 1, learning_rate
        )

    @classmethod
    def of_losses(
        cls, hessians, gradients, *, learning_rate, batch_size=1, sampling="replacement"
    ):
        r"""Return SGD on :math:`f_i=\frac12x^{\mathsf T}H_ix+g_i^{\mathsf T}x`.

        Parameters
        ----------
        hessians : torch.Tensor
            :math:`H_i`, shape (N, d, d), floating point, each symmetric, N >= 2.
        gradients : torch.Tensor
            :math:`g_i`, those at x = 0, shape (N, d).
        learning_rate : float
            :math:`\eta>0`.
        batch_size : int
            b, from 1 to N.
        sampling : {"replacement", "without-replacement"}
            How each batch is drawn; every step draws afresh.

        Returns
        -------
        LinearSGD

        Raises
        ------
        TypeError, ValueError
            If the shapes do not fit, an entry is not finite, a Hessian is not
            symmetric, the mean Hessian is singular, or an option is out of range.
        """
        _door.require_floating_tensor(hessians, "hessians")
        shape = tuple(hessians.shape)
        if len(shape) != 3 or shape[1] != shape[2] or shape[0] < 2 or not shape[1]:
            raise ValueError(
                f"hessians must have shape (N, d, d) with N >= 2; got {shape}. One "
                "matrix for each sample."
            )
        N = shape[0]
        _door.require_finite(hessians, "hessians")
        _door.require_symmetric(hessians, "hessians")
        _door.require_floating_tensor(gradients, "gradients")
        if tuple(gradients.shape) != shape[:2] or gradients.dtype != hessians.dtype:
            raise ValueError(
                f"gradients must be {hessians.dtype} of shape {shape[:2]}; got "
                f"{gradients.dtype} {tuple(gradients.shape)}. One row for each sample."
            )
        _door.require_finite(gradients, "gradients")
        _require_rate(learning_rate)
        _door.require_positive_integer(batch_size, "batch_size")
        if batch_size > N:
            raise ValueError(
                f"batch_size must be at most N = {N}; got {batch_size}. Lower it."
            )
        samplings = ("replacement", "without-replacement")
        _door.require_one_of(
            sampling, samplings, "sampling", "Shuffled epochs are no fresh draws."
        )
        weight = 1 / batch_size
        if sampling == "without-replacement":
            weight *= (N - batch_size) / (N - 1)
        H = hessians.mean(0)
        if int(torch.linalg.matrix_rank(H, hermitian=True)) < len(H):
            raise ValueError(
                "the mean Hessian must not be singular; it is, and the loss has no "
                "single minimum. Leave flat directions out, or add weight decay."
            )
        minimum = -torch.linalg.solve(H, gradients.mean(0))
        residual = gradients + hessians @ minimum
        noise = weight * residual.T @ residual / N
        return cls(H, minimum, noise, hessians - H, weight, learning_rate)

    def __repr__(self):
        """Say dimension and learning rate."""
        kind = "constant" if self.deviations is None else "state-dependent"
        return (
            f"LinearSGD(d = {len(self.hessian)}, learning rate "
            f"{self.learning_rate:g}, {kind} noise)"
        )

    @cached_property
    def covariance(self):
        """Stationary covariance of the algorithm, shape (d, d).

        Raises
        ------
        ValueError
            If the second moment does not settle, or d > 60 with random Hessians.
        """
        return self._solve(discrete=True)

    @cached_property
    def sde_covariance(self):
        """The same of its diffusion in Itô's convention: the limit of small rates."""
        return self._solve(discrete=False)

    @property
    def angular_momentum(self):
        r""":math:`\mathbb E[u_i\,\delta u_j-u_j\,\delta u_i]/\eta`, shape (d, d).

        Here u = x - mean and :math:`\delta u` is what a step adds.
        """
        product = self.hessian @ self.covariance
        return product - product.T

    @cached_property
    def mean_square_radius(self):
        """Factor by which a step multiplies second moments in the long run.

        At 1 or above they do not settle.
        """
        if self.deviations is None:
            h = torch.linalg.eigvalsh(self.hessian)
            return float(((1 - self.learning_rate * h) ** 2).max())
        d = len(self.hessian)
        one = np.eye(d * d)
        matrix = one - self.learning_rate * self._operator(discrete=True).cpu().numpy()
        if d < 4:
            return float(abs(np.linalg.eigvals(matrix)).max())
        start = np.eye(d).ravel()
        return float(abs(eigs(matrix, 1, v0=start, return_eigenvectors=False)[0]))

    def _solve(self, discrete):
        """Solve for the covariance; the solution is positive only if it is one."""
        eta, d = self.learning_rate, len(self.hessian)
        h, V = torch.linalg.eigh(self.hessian)
        if not bool((h > 0).all()) or (discrete and not bool((eta * h < 2).all())):
            raise ValueError(
                "there is a stationary law only if 0 < learning_rate * h < 2 for every "
                f"eigenvalue h of the mean Hessian; learning_rate * h runs from "
                f"{float(eta * h[0]):.6g} to {float(eta * h[-1]):.6g}. Lower the "
                "rate, or leave out directions that do not curve up."
            )
        if self.deviations is None:
            total = h[:, None] + h
            if discrete:
                total = total - eta * h[:, None] * h
            return _rotated(eta * (V.T @ self.noise @ V) / total, V)
        one = torch.eye(d, dtype=h.dtype, device=h.device)
        right = torch.stack([eta * self.noise.flatten(), one.flatten()], 1)
        found = torch.linalg.solve(self._operator(discrete), right)
        found, test = found.T.reshape(2, d, d)
        if not bool((torch.linalg.eigvalsh((test + test.T) / 2) > 0).all()):
            raise ValueError(
                "the second moment of x does not settle: the noise of the Hessians is "
                "too strong for learning_rate = "
                f"{eta:g}. Lower the rate or raise the batch size; the law itself may "
                "exist, with a tail too heavy for a variance."
            )
        return (found + found.T) / 2

    def _operator(self, discrete):
        """Return the loss of second moment per unit time, as a (d*d, d*d) matrix."""
        d = len(self.hessian)
        if d > _LARGEST:
            raise ValueError(
                f"d must be at most {_LARGEST} for random Hessians; got d = {d}. "
                "Project on the directions of interest, or use additive."
            )
        H, one = self.hessian, torch.eye(d, dtype=self.hessian.dtype)
        one = one.to(H.device)
        rows = self.deviations.reshape(-1, d * d)
        pairs = (rows.T @ rows / len(rows)).reshape(d, d, d, d)  # i k j l
        noise = pairs.permute(0, 2, 1, 3).reshape(d * d, d * d)
        out = torch.kron(H, one) + torch.kron(one, H)
        out -= self.learning_rate * self.weight * noise
        if discrete:
            out -= self.learning_rate * torch.kron(H, H)
        return out


def _rotated(inner, V):
    """Return V inner Vᵀ, symmetric to the last bit."""
    out = V @ inner @ V.T
    return (out + out.T) / 2


def _require_rate(learning_rate):
    _door.require_number(
        learning_rate, "learning_rate", positive=True, hint="A usual one is 0.01."
    )
