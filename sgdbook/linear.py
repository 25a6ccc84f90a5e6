r"""SGD on quadratic losses, exactly, at its own learning rate.

Second moments, angular momentum and the edge beyond which second moments do not settle,
with noise that is constant or that grows with the distance from the minimum.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from scipy.sparse.linalg import eigs

from sgdbook import _door
from sgdbook.ornstein_uhlenbeck import rotated

_LARGEST = 60  # d with random Hessians: d**2 x d**2 numbers are solved


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
        _door.require_rate(learning_rate)
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
        _door.require_rate(learning_rate)
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
            return rotated(eta * (V.T @ self.noise @ V) / total, V)
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
