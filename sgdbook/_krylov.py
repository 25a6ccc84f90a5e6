"""Krylov methods: eigenvectors and solutions from products with a matrix alone."""

import math

import torch

_PART = 2**16  # rows that are turned into float64 at a time


def largest(product, size, k, like):
    r"""Return the k leading eigenvectors of a positive semidefinite K, or None.

    Block Krylov with Rayleigh and Ritz: the space is spanned by a random block X of
    more than k columns, by KX, K²X and so on; K is diagonalised on it. It grows until
    each of the k residuals :math:`|Ku-\lambda u|` is at most :math:`\sqrt m`, and at
    least 16, machine epsilons times the largest eigenvalue, as after a full
    decomposition. As the block has at least k columns, it misses no copy of a repeated
    eigenvalue.

    Parameters
    ----------
    product : callable
        X (m, columns) -> K X.
    size, k : int
        The number m of rows of K, and how many vectors.
    like : torch.Tensor
        Of the dtype and on the device of K.

    Returns
    -------
    torch.Tensor or None
        Orthonormal, shape (m, k), by descending eigenvalue. None where the space
        would have grown beyond a third of m: then a full decomposition is cheaper.

    References
    ----------
    Golub and Van Loan, *Matrix Computations*, section 10.3.6 (block Lanczos); here
    with full orthogonalisation.
    """
    width = k + max(8, k // 4)
    allowed = max(16, math.sqrt(size)) * torch.finfo(like.dtype).eps
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(size, width, generator=generator, dtype=torch.float64)
    new = orthonormal(start.to(like))
    basis = images = new[:, :0]
    while basis.shape[1] + width <= size // 3:
        basis = torch.cat([basis, new], 1)
        images = torch.cat([images, product(new)], 1)
        small = basis.T @ images
        values, turn = torch.linalg.eigh((small + small.T) / 2)
        values, turn = values[-k:].flip(0), turn[:, -k:].flip(1)
        vectors = basis @ turn
        residuals = (images @ turn - vectors * values).norm(dim=0)
        if residuals.max() <= allowed * values[0]:
            return vectors
        new = images[:, -width:]
        for _ in range(2):  # once leaves it orthogonal to half the digits only
            new = orthonormal(new - basis @ (basis.T @ new))
    return None


def orthonormal(columns):
    """Return an orthonormal basis of the columns, from left to right.

    The QR factorisation leaves errors of 1e-4 at a million rows of float32, where sums
    are long. A step of Newton's iteration for the polar factor, with the sums in
    float64, takes them away.
    """
    basis = torch.linalg.qr(columns)[0]
    if len(basis) < _PART:
        return basis
    gram = sum(part.T @ part for part in map(torch.Tensor.double, basis.split(_PART)))
    turn = 1.5 * torch.eye(len(gram), dtype=gram.dtype, device=gram.device) - gram / 2
    return basis @ turn.to(basis)


def leading(matrix, k):
    """Return `largest` of an explicit matrix, by a full decomposition if need be."""
    vectors = largest(matrix.__matmul__, len(matrix), k, matrix)
    if vectors is None:
        vectors = torch.linalg.eigh(matrix)[1][:, -k:].flip(1)
    return vectors


def conjugate_gradients(product, v, limit):
    r"""Solve G x = v for a symmetric matrix :math:`G\ge I`, each column by itself.

    As :math:`|G^{-1}|\le1`, the error of x is at most the residual. The iteration stops
    where that, updated and not computed anew, is at most machine epsilon times x, for
    every column.

    Parameters
    ----------
    product : callable
        X (d, k) -> G X.
    v : torch.Tensor
        Shape (d, k).
    limit : int
        The most products.

    Returns
    -------
    torch.Tensor or None
        x, shape (d, k); None if the limit came first.

    References
    ----------
    Hestenes and Stiefel, J. Res. Natl. Bur. Stand. 49 (1952) 409.
    """
    eps = torch.finfo(v.dtype).eps
    x, r, p, rr = torch.zeros_like(v), v, v, v.square().sum(0)
    for _ in range(limit):
        image = product(p)
        step = _ratio(rr, (p * image).sum(0))
        x, r = x + step * p, r - step * image
        old, rr = rr, r.square().sum(0)
        if bool((rr.sqrt() <= eps * x.norm(dim=0)).all()):
            return x
        p = r + _ratio(rr, old) * p
    return None


def _ratio(above, below):
    """Return the quotient, or 0 where a column is done and both are 0."""
    return torch.where(below > 0, above, 0.0) / torch.where(below > 0, below, 1.0)
