r"""Gradient noise: the diffusion matrix, never formed unless asked.

With the matrix :math:`J` whose row :math:`i` is :math:`\nabla f_i^{\mathsf T}`,

.. math:: D = \frac1N J^{\mathsf T} C J, \qquad C = I - \tfrac1N\mathbf 1\mathbf 1^{\mathsf T}.
"""  # noqa: E501

import math

import torch

from sgdbook import _door, _krylov
from sgdbook.layers import rows_of
from sgdbook.rows import centre, columns_of, mirror, of_matrix, steps

_SMALL = 2**27  # entries of the largest matrix that is formed unasked: 1 GiB of float64


class DiffusionMatrix:
    r"""The diffusion matrix D as an operator; d x d numbers only if asked.

    .. math:: D = \frac1N J^{\mathsf T} C J = \frac1N\sum_{i=1}^N
              (\nabla f_i - \nabla f)(\nabla f_i - \nabla f)^{\mathsf T},
              \qquad f = \frac1N\sum_i f_i

    Make one with `from_gradients` or `of`; it stays at the weights of that moment.
    The rank is at most min(d, N − 1).

    Parameters
    ----------
    rows : sgdbook.rows.Rows
        The matrix J of per-sample gradients, with at least two rows.

    Raises
    ------
    ValueError
        If there are fewer than two rows, or one is not finite.

    References
    ----------
    Fioresi, Chaudhari and Soatto, arXiv:1910.12194, equations (2) and (3).

    Examples
    --------
    >>> D = DiffusionMatrix.from_gradients(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    >>> D @ torch.tensor([1.0, 1.0])
    tensor([1., 0.])
    >>> D
    DiffusionMatrix(N=2, d=2, torch.float32, cpu)
    """

    def __init__(self, rows):
        n, d = rows.shape
        if n < 2:
            raise ValueError(
                f"a diffusion matrix needs N >= 2 samples; got N = {n}. "
                "One gradient has no spread."
            )
        norms = rows.norms()
        bad = (~norms.isfinite()).nonzero()
        if len(bad):
            raise ValueError(
                f"every gradient must be finite; that of sample {int(bad[0])} is not "
                f"({len(bad)} of {n} in all). Look for NaN or infinity in its input "
                "and in the parameters, or for overflow of its squared length."
            )
        self._rows, self._norms, self._values = rows, norms, {}
        self._like = norms.new_zeros(()).expand(d)

    @classmethod
    def from_gradients(cls, J):
        """Return D of an explicit matrix of per-sample gradients.

        Parameters
        ----------
        J : torch.Tensor
            Shape (N, d), floating point, N >= 2: row i is the gradient of sample i.

        Returns
        -------
        DiffusionMatrix
            Shares memory with J.

        Raises
        ------
        TypeError
            If J is not a floating-point tensor.
        ValueError
            If the shape is wrong or an entry is not finite.
        """
        _door.require_floating_tensor(J, "J")
        if J.ndim != 2 or J.shape[1] == 0:
            raise ValueError(
                f"J must have shape (N, d), d >= 1; got {tuple(J.shape)}. "
                "Its rows are the gradients of the samples."
            )
        return cls(of_matrix(J.detach()))

    @classmethod
    def of(cls, model, loss, inputs, targets):
        """Return D of a network on a data set, at its present parameters.

        Parameters
        ----------
        model, loss, inputs, targets
            As in `sgdbook.gradients.per_sample_losses`, with N >= 2.

        Returns
        -------
        DiffusionMatrix
            Of the inputs' dtype, on their device; J is held as
            `sgdbook.layers.rows_of` decides.

        Raises
        ------
        ValueError, TypeError
            As in `sgdbook.gradients.per_sample_gradients`; if N < 2 or a gradient is
            not finite.
        """
        return cls(rows_of(model, loss, inputs, targets))

    @property
    def shape(self):
        """(d, d)."""
        return (self._rows.shape[1],) * 2

    @property
    def samples(self):
        """The number N of samples."""
        return self._rows.shape[0]

    def __repr__(self):
        n, d = self._rows.shape
        return (
            f"DiffusionMatrix(N={n}, d={d}, {self._norms.dtype}, {self._norms.device})"
        )

    def __matmul__(self, v):
        """Return D v for v (d,), or D V for V (d, k)."""
        spread = centre(self._rows.matvec(columns_of(v, self._like, "D")))
        return (self._rows.rmatvec(spread) / self.samples).reshape(v.shape)

    def quadratic_form(self, v):
        r"""Return the variance of the slopes along v, never negative.

        .. math:: v^{\mathsf T} D v = \frac1N \sum_i
                  \big(\nabla f_i\cdot v - \nabla f\cdot v\big)^2

        Parameters
        ----------
        v : torch.Tensor
            Shape (d,) or (d, k).

        Returns
        -------
        torch.Tensor
            A scalar, or shape (k,): one value for each column.
        """
        slopes = centre(self._rows.matvec(columns_of(v, self._like, "D")))
        return slopes.square().mean(0).reshape(v.shape[1:])

    def mean_gradient(self):
        r"""Return :math:`\nabla f`, the mean of the rows of J, shape (d,)."""
        n = self.samples
        return self._rows.rmatvec(self._norms.new_full((n, 1), 1 / n))[:, 0]

    def trace(self):
        r"""Return the total variance of the gradients, a scalar tensor.

        .. math:: \operatorname{tr} D = \frac1N\sum_i|\nabla f_i|^2 - |\nabla f|^2

        The rounding error is that of the two terms, not of their difference.
        """
        excess = self._norms.mean() - self.mean_gradient().square().sum()
        return excess.clamp(min=0)

    def gram(self):
        r"""Return the centred Gram matrix, whose non-zero spectrum is that of D.

        .. math:: \frac1N\, C J J^{\mathsf T} C

        Returns
        -------
        torch.Tensor
            Shape (N, N), symmetric up to rounding.
        """
        gram = self._rows.gram()
        gram -= gram.mean(0)
        gram -= gram.mean(1, keepdim=True)
        return gram.div_(self.samples)

    def dense(self, limit=2**30):
        """Return D as a matrix, if it fits.

        Parameters
        ----------
        limit : int
            The most bytes that the matrix may take; 1 GiB unless told.

        Returns
        -------
        torch.Tensor
            Shape (d, d), symmetric.

        Raises
        ------
        MemoryError
            If the matrix is larger than the limit; says how large, and what to use
            instead.
        """
        d = self.shape[0]
        need = d * d * self._norms.element_size()
        if need > limit:
            raise MemoryError(
                f"D as a matrix must fit into {_size(limit)}; with d = {d} it takes "
                f"{_size(need)}. Use D @ v, D.quadratic_form(v), D.eigenpairs(k) or "
                "D.gram(), or raise limit."
            )
        mean, total = self.mean_gradient(), self._norms.new_zeros(d, d)
        for rows in self._rows.blocks():
            spread = rows - mean
            for i, j in steps(d):
                part = spread[:, i:j].T
                total[i:j, i:].addmm_(part, spread[:, i:], alpha=1 / self.samples)
        return mirror(total)

    def eigenvalues(self, accurate=False):
        r"""Return the min(N, d) largest eigenvalues of D, descending.

        All others are zero. They come from the smaller of D (d x d) and the centred
        Gram matrix (N x N): rounding moves each by about machine epsilon
        :math:`\varepsilon` times the largest, :math:`\lambda_1`, and what falls below
        zero is returned as 0. With ``accurate=True`` they are the squares of the
        singular values of :math:`CJ/\sqrt N`, which resolve eigenvalues down to
        :math:`\varepsilon^2\lambda_1`, at the price of time and of forming J.

        Parameters
        ----------
        accurate : bool
            Whether to form J (N x d) and take its singular values.

        Returns
        -------
        torch.Tensor
            Shape (min(N, d),), non-negative.

        Examples
        --------
        >>> J = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 2.0]])
        >>> DiffusionMatrix.from_gradients(J).eigenvalues()
        tensor([1., 0.])
        """
        key = bool(accurate)
        if key not in self._values:
            n = self.samples
            if accurate:
                spread = centre(self._rows.block(0, n))
                values = torch.linalg.svdvals(spread).square() / n
            else:
                small = self._smaller()
                values = torch.linalg.eigvalsh(small).flip(0).clamp(min=0)
            self._values[key] = values
        return self._values[key].clone()

    def eigenpairs(self, k):
        r"""Return the k largest eigenvalues of D with their eigenvectors.

        The Gram matrix gives :math:`u`, and :math:`v \propto J^{\mathsf T} C u`; the
        vectors are then orthonormalised and D is diagonalised on their span. A block
        Krylov iteration finds the few largest: it ends where every residual has the
        size of rounding errors, and hands over to a full decomposition where that
        does not happen soon. Where both N and d are large no matrix is formed.

        Parameters
        ----------
        k : int
            From 1 to min(d, N − 1). Beyond the rank the vectors are some orthonormal
            vectors of the kernel, up to rounding.

        Returns
        -------
        values : torch.Tensor
            Shape (k,), descending.
        vectors : torch.Tensor
            Shape (d, k), orthonormal columns; of each, the entry that is largest in
            absolute value is positive.

        Raises
        ------
        ValueError
            If k is out of range.
        """
        n, d = self._rows.shape
        most = min(d, n - 1)
        if not _door.is_integer(k) or not 1 <= k <= most:
            raise ValueError(
                f"k must be an integer from 1 to min(d, N - 1) = {most}; got {k!r}. "
                "D has no more non-zero eigenvalues than that."
            )
        # The largest first: in QR a column is safe from those to its right.
        size = min(n, d)
        basis = None
        if size**2 > _SMALL:
            basis = _krylov.largest(self._product, size, k, self._like)
        if basis is None:
            basis = _krylov.leading(self._smaller(), k)
        if d > n:
            basis = _krylov.orthonormal(self._rows.rmatvec(centre(basis)))
        slopes = centre(self._rows.matvec(basis))
        values, turn = torch.linalg.eigh(slopes.T @ slopes / n)
        vectors = basis @ turn.flip(1)
        peak = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        return values.flip(0).clamp(min=0), vectors * peak.sign()

    def rank(self):
        r"""Return the numerical rank of D.

        The number of eigenvalues above :math:`\tau(\lambda_1 + |\nabla f|^2)`, a bound
        on the largest eigenvalue of :math:`J^{\mathsf T}J/N`, from which rounding
        errors come. Up to 2**25 entries of J the eigenvalues are the accurate ones and
        :math:`\tau = (\varepsilon\max(N, d))^2` with machine epsilon
        :math:`\varepsilon`. Above, they are those of the Gram matrix,
        :math:`\tau = \varepsilon\min(N, d)`, and the rank is a lower bound.

        Returns
        -------
        int
            At most min(d, N − 1) in exact arithmetic.

        Examples
        --------
        >>> J = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 2.0]])
        >>> DiffusionMatrix.from_gradients(J).rank()
        1
        """
        accurate = self._rows.fits()
        eps = torch.finfo(self._norms.dtype).eps
        shape = self._rows.shape
        threshold = (eps * max(shape)) ** 2 if accurate else eps * min(shape)
        values = self.eigenvalues(accurate)
        scale = values[0] + self.mean_gradient().square().sum()
        return int((values > threshold * scale).sum())

    def _product(self, columns):
        """Return `_smaller` times columns, without forming it."""
        n, d = self._rows.shape
        if d <= n:
            return self @ columns
        return centre(self._rows.matvec(self._rows.rmatvec(centre(columns)))) / n

    def _smaller(self):
        """Return D or the centred Gram matrix, whichever is smaller."""
        n, d = self._rows.shape
        return self.dense(limit=math.inf) if d <= n else self.gram()


def _size(count):
    """Return a number of bytes in words."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
