r"""Markov jump processes on many states, in arithmetic without cancellation.

With the rate :math:`r_{ji}` of jumps from i to j and the rate :math:`\kappa_i` of being
killed in i, probabilities obey

.. math:: \dot p=Qp,\qquad Q_{ji}=r_{ji}\ (j\ne i),\qquad
          Q_{ii}=-q_i=-\kappa_i-\textstyle\sum_jr_{ji} .

Every off-diagonal entry is non-negative.  So is every number that elimination without
pivoting and uniformisation produce on the way, and no digits cancel but those of the
diagonal: a mean time T is known to the relative error :math:`\epsilon\,q\,T`.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import LinearOperator, eigs, splu
from scipy.special import gammaln

EPSILON = np.finfo(float).eps
LOST = 1e-6  # relative error from rounding above which nothing is returned
DENSE = 1000  # states up to which matrices may be dense
STRETCH = 500  # expected jumps in one stretch of uniformisation


class JumpProcess:
    """A Markov process that jumps between n states.

    Parameters
    ----------
    start, end : array of int, shape (jumps,)
        From where to where.
    rate : array, shape (jumps,)
        How often, non-negative.
    killing : array, shape (n,)
        The rate of being killed in each state, non-negative.
    limit : int
        The most bytes that a factorisation may take.

    Attributes
    ----------
    matrix : scipy.sparse.csc_array, shape (n, n)
        Q; its columns sum to minus the killing rates.

    Raises
    ------
    ValueError
        If a rate is negative or not finite.

    References
    ----------
    Norris, *Markov Chains*, theorems 2.8.2, 3.3.3 and 3.5.2; Jensen, Skandinavisk
    Aktuarietidskrift 36 (1953), 87 (uniformisation).

    Examples
    --------
    On for 1/2 on average, off for 1/3:

    >>> switch = JumpProcess([0, 1], [1, 0], [2.0, 3.0], np.zeros(2))
    >>> switch.stationary()
    array([0.6, 0.4])
    """

    def __init__(self, start, end, rate, killing, limit=2**31):
        start, end = np.asarray(start), np.asarray(end)
        rate, killing = np.asarray(rate, float), np.asarray(killing, float)
        for name, values in (("rate", rate), ("killing", killing)):
            if not (np.isfinite(values) & (values >= 0)).all():
                raise ValueError(f"every {name} must be finite and at least 0.")
        n = len(killing)
        self.killing, self.limit = killing, limit
        self._out = killing + np.bincount(start, rate, n)
        data = np.r_[rate, -self._out]
        row, column = np.r_[end, np.arange(n)], np.r_[start, np.arange(n)]
        self.matrix = sparse.csc_array((data, (row, column)), shape=(n, n))

    def stationary(self):
        """Return the stationary probabilities, shape (n,).

        Raises
        ------
        ValueError
            If anything is killed.
        ArithmeticError
            If rounding decides between groups of states that hardly exchange
            probability.
        """
        if self.killing.any():
            raise ValueError("a process that is killed has no stationary law.")
        factors, p = self._shifted()[0], np.ones(len(self.killing))
        for _ in range(4):
            p = -factors.solve(p / p.max())
        common = np.arange(len(p)) == p.argmax()
        factors, _ = self._without(common)
        p = np.ones(len(p))
        p[~common] = -factors.solve(self.matrix[:, common].toarray()[~common, 0])
        return p / p.sum()

    def hitting_time(self, hit):
        """Return the mean time to be in a set of states or killed.

        Parameters
        ----------
        hit : array of bool, shape (n,)

        Returns
        -------
        numpy.ndarray, shape (n,)
            For every start; 0 in the set.

        Raises
        ------
        ArithmeticError
            If the time is so long that it is lost in rounding, or infinite.
        """
        result = np.zeros(len(hit))
        result[~hit] = self._without(hit)[1]
        return result

    def survivors(self, hit):
        """Return the slowest mode of those that were neither killed nor in the set.

        Parameters
        ----------
        hit : array of bool, shape (n,)

        Returns
        -------
        numpy.ndarray, shape (n,)
            Non-negative, the largest entry 1: a dozen inverse iterations.
        """
        factors, _ = self._without(hit)
        p = np.ones(int((~hit).sum()))
        for _ in range(12):
            p = -factors.solve(p)
            p = p / p.max()
        result = np.zeros(len(hit))
        result[~hit] = p
        return result

    def eigenpairs(self, k):
        """Return the k eigenvalues of Q smallest in modulus, and the first's vector.

        Parameters
        ----------
        k : int
            At most n - 2.

        Returns
        -------
        values : numpy.ndarray, shape (k,), complex
            Ascending in modulus.
        vector : numpy.ndarray, shape (n,)
            The moduli of the entries of the first eigenvector.
        """
        n = len(self.killing)
        if n <= DENSE // 2:
            values, vectors = np.linalg.eig(self.matrix.toarray())
        else:
            factors, shift = self._shifted()
            inverse = LinearOperator((n, n), factors.solve, dtype=float)
            start = np.random.default_rng(0).random(n)  # no symmetry, always the same
            few = min(n, 2 * k + 6)  # of a shift next to the eigenvalues one needs few
            values, vectors = eigs(
                self.matrix, k, sigma=shift, OPinv=inverse, v0=start, ncv=few
            )
        order = np.abs(values).argsort(kind="stable")[:k]
        return values[order].astype(complex), np.abs(vectors[:, order[0]])

    def flow(self, v, times, *, forward=True):
        r"""Return :math:`e^{tQ}v`, or :math:`e^{tQ^{\mathsf T}}v`, at times.

        By uniformisation: the jumps of a clock of rate :math:`q=\max_iq_i` are counted
        by a Poisson law, and at each :math:`1+Q/q` acts, a matrix of probabilities.
        Where many jumps meet few states, powers of the matrix are squared instead.

        Parameters
        ----------
        v : array, shape (n,)
        times : sequence of float
            At least 0, increasing.
        forward : bool
            Probabilities, or else expectations.

        Returns
        -------
        numpy.ndarray, shape (times, n)

        Raises
        ------
        ValueError
            If the times are out of order.
        """
        times = np.atleast_1d(np.asarray(times, float))
        good = times.ndim == 1 and times.size and np.isfinite(times).all()
        if not good or times[0] < 0 or (np.diff(times) <= 0).any():
            raise ValueError(
                f"times must be finite, at least 0 and increasing; got {times}."
            )
        n, q = len(v), self._out.max()
        step = sparse.eye_array(n, format="csr") + self.matrix.tocsr() / q
        step = step if forward else step.T.tocsr()
        found, last, whole = [], 0.0, None
        for gap in np.diff(times, prepend=0.0):
            if n <= DENSE and q * gap > 20 * n:
                if whole is None or abs(gap - last) > 1e-13 * times[-1]:
                    whole, last = self._power(step, q * gap, forward), gap
                v = whole @ v
            else:
                stretches = math.ceil(q * gap / STRETCH)
                for _ in range(stretches):
                    v = _poisson_sum(step, v, q * gap / stretches)
            found.append(v)
        return np.array(found)

    def _power(self, step, jumps, forward):
        """Return the matrix of exp(t Q) by squaring; keep what is conserved."""
        squarings = math.ceil(math.log2(jumps))
        result = _poisson_sum(step, np.eye(step.shape[0]), jumps / 2**squarings)
        for _ in range(squarings):
            result = result @ result
            if not self.killing.any():
                result /= result.sum(0 if forward else 1, keepdims=True)
        return result

    def _shifted(self):
        """Return factors of Q minus a small shift, and the shift."""
        shift = 1e-8 * self._out.max()
        unit = sparse.eye_array(len(self.killing), format="csc")
        return self._factors(self.matrix - shift * unit), shift

    def _without(self, hit):
        """Return factors of Q without a set, and the mean times to reach it."""
        keep = np.flatnonzero(~hit)
        factors = self._factors(self.matrix[keep][:, keep].tocsc())
        time = factors.solve(np.full(len(keep), -1.0), trans="T")
        if not (0 <= EPSILON * self._out.max() * time).all() or not (
            EPSILON * self._out.max() * time.max() < LOST
        ):
            raise ArithmeticError(
                f"the slowest time is beyond {LOST / EPSILON / self._out.max():.1e} "
                "and lost in rounding. Take fewer cells, or a lower barrier; in one "
                "dimension sgdbook.escape.first_passage_time works in logarithms."
            )
        return factors, time

    def _factors(self, matrix):
        """Return the LU factors of minus an M-matrix: pivots on the diagonal."""
        require_memory(matrix.shape[0], self.limit)
        try:
            return splu(
                matrix,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
        except RuntimeError as problem:
            raise ArithmeticError(
                "some states never leave: a time is infinite, or a law not unique. "
                "Look for rates that are 0, or that a steep drift makes 0."
            ) from problem


def require_memory(n, limit):
    """Stop where the factors of a matrix of n cells in the plane exceed the limit."""
    need = 64 * n * math.log2(n + 1)  # measured up to 400 x 400, rounded upwards
    if need > limit:
        raise MemoryError(
            f"{n:,} cells take about {need / 2**20:,.0f} MiB to solve for, the limit "
            f"is {limit / 2**20:,.0f} MiB. Take fewer cells, with "
            "sgdbook.extrapolation.richardson for the accuracy, or raise limit."
        )


def _poisson_sum(step, v, mean):
    """Return the mean of step^k v over a Poisson law of k."""
    k = np.arange(math.ceil(mean + 10 * math.sqrt(mean) + 30))
    weights = np.exp(k * math.log(mean) - mean - gammaln(k + 1))
    weights /= weights.sum()
    total = weights[0] * v
    for weight in weights[1:]:
        v = step @ v
        total = total + weight * v
    return total
