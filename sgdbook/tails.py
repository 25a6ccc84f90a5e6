r"""Tail indices from samples, with their standard errors.

A law has the tail index :math:`\nu` where :math:`P(|X|>x)` falls like
:math:`x^{-\nu}`: moments below :math:`\nu` are finite, those above are not.
`sgdbook.kesten` computes the index that SGD on a quadratic loss must have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from scipy import special

from sgdbook import _door

_SERIES = {1: -1 / 4, 3: 1 / 24, 5: -1 / 20, 7: 17 / 112, 9: -31 / 36}


@dataclass(frozen=True)
class Estimate:
    """A tail index with its standard error, for one k or for several.

    Attributes
    ----------
    value, stderr : float or torch.Tensor
    k : int or torch.Tensor
        How many of the largest samples were used.
    """

    value: object
    stderr: object
    k: object


def hill(samples, k):
    r"""Estimate the tail index from the k largest samples in absolute value.

    .. math:: \frac1{\hat\nu}=\frac1k\sum_{i=1}^k\ln\frac{|x|_{(i)}}{|x|_{(k+1)}},
              \qquad\text{stderr}=\frac{\hat\nu}{\sqrt k}

    The standard error holds for independent samples and an exact power beyond
    :math:`|x|_{(k+1)}`.  The bias of a tail that is not yet a power is not in it: look
    for a range of k over which the value stays.

    Parameters
    ----------
    samples : torch.Tensor or numpy.ndarray
        n finite numbers, of any shape.
    k : int or sequence of int
        From 1 to n − 1.  Several give tensors, for the Hill plot.

    Returns
    -------
    Estimate
        Numbers for one k; float64 tensors on the samples' device for several.

    Raises
    ------
    ValueError
        If k is out of range, a sample is not finite, or the k + 1 largest are zero or
        all equal.

    References
    ----------
    Hill, Ann. Stat. 3 (1975), 1163.

    Examples
    --------
    >>> hill([1.0, -math.e, math.e**2, 0.5], 2).value  # logarithms 2 and 1 above 0
    0.6666666666666666
    """
    x = _door.real_numbers(samples, "samples").abs()
    several = not _door.is_integer(k)
    many = torch.as_tensor(k).tolist() if several else [k]
    if not isinstance(many, list) or not many:
        raise ValueError(f"k must be an integer or a list of them; got {k!r}. Try 100.")
    for one in many:
        if not _door.is_integer(one) or not 1 <= one < len(x):
            raise ValueError(
                f"k must be an integer from 1 to n - 1 = {len(x) - 1}; got {one!r}. "
                "The next largest sample is the threshold."
            )
    log = x.topk(max(many) + 1).values.log()
    k = torch.tensor(many, device=x.device)
    spacing = log.cumsum(0)[k - 1] / k - log[k]
    for one, gap in zip(many, spacing.tolist(), strict=True):
        if not 0 < gap < math.inf:
            raise ValueError(
                f"the k + 1 = {one + 1} largest samples must differ and not be zero; "
                f"the mean logarithmic excess is {gap:.3g}. Choose another k."
            )
    value = 1 / spacing
    stderr = value / k.double().sqrt()
    if several:
        return Estimate(value, stderr, k)
    return Estimate(value.item(), stderr.item(), many[0])


@dataclass(frozen=True)
class StudentT:
    r"""Student's t fitted by maximum likelihood.

    Attributes
    ----------
    degrees : float
        :math:`\nu`, the tail index; ``math.inf`` where the Gaussian law is likelier
        than every t up to 100,000 degrees.
    location, scale : float
    stderr : float
        Of the degrees, from the observed information; ``math.inf`` with the degrees.
    log_likelihood : float
    likelihood_ratio : float
        :math:`2(\ell_t-\ell_{\mathrm{Gauss}})\ge0`.  Under the Gaussian law it is 0
        about half of the time and :math:`\chi^2_1` otherwise: 2.7 is exceeded once in
        20 times.
    """

    degrees: float
    location: float
    scale: float
    stderr: float
    log_likelihood: float
    likelihood_ratio: float


def student_t(samples, location=None):
    r"""Fit Student's t by maximum likelihood.

    .. math:: p(x)\propto\frac1s\Big(1+\frac{(x-\mu)^2}{\nu s^2}\Big)^{-(\nu+1)/2}

    Newton's method in :math:`(\ln\nu,\ln s,\mu)` with bounded steps, from the
    quartiles.  With a free location the likelihood is unbounded towards :math:`\nu\to0`
    at every single sample; the maximum meant is the one next to the quartiles.

    Parameters
    ----------
    samples : torch.Tensor or numpy.ndarray
        At least 10 finite numbers, of any shape; independent for the standard error.
    location : float, optional
        :math:`\mu`, if it is known; the Gaussian of the likelihood ratio then has it
        too.

    Returns
    -------
    StudentT

    Raises
    ------
    ValueError
        If there are too few samples, one is not finite, half of them are equal, or the
        largest is beyond 1e100 times the quartiles.
    ArithmeticError
        If there is no maximum next to the quartiles.

    References
    ----------
    Lange, Little and Taylor, J. Am. Stat. Assoc. 84 (1989), 881.

    Examples
    --------
    >>> student_t(torch.linspace(-1, 1, 100)).degrees  # lighter than the Gaussian law
    inf
    """
    x = _door.real_numbers(samples, "samples")
    if len(x) < 10:
        raise ValueError(f"a fit needs at least 10 samples; got {len(x)}. Draw more.")
    fitted = location is None
    if not fitted and not (isinstance(location, Real) and math.isfinite(location)):
        raise ValueError(
            f"location must be a finite number or None; got {location!r}. None fits it."
        )
    ordered = x.sort().values
    low, middle, high = (ordered[len(x) * i // 4].item() for i in (1, 2, 3))
    centre = middle if fitted else float(location)
    width = max(high - low, abs(low - centre), abs(high - centre))
    z = (x - centre) / width
    if not width > 0 or not z.abs().max() < 1e100:
        raise ValueError(
            "the quartiles must differ, and the largest sample be within 1e100 times "
            f"their distance; they are {low:.6g} and {high:.6g}. Look at the samples."
        )
    free = 3 if fitted else 2

    def likelihood(p):
        value, score, hessian = _likelihood(z, p[0], p[1], p[2] if fitted else 0.0)
        return value, score[:free], hessian[:free, :free]

    starts = [
        np.array([-math.log(nu), -math.log(2 * special.stdtrit(nu, 0.75)), 0.0])[:free]
        for nu in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 32.0, 128.0)
    ]
    start = max(starts, key=lambda p: likelihood(p)[0])
    found, value, information = _maximise(likelihood, start)
    mean = z.mean().item() if fitted else 0.0
    deviation = (z - mean).square().mean().sqrt().item()
    gauss = -math.log(deviation) - 0.5 * (1 + math.log(2 * math.pi))
    shift = math.log(width)
    if found[0] < -math.log(1e5) or value <= gauss:
        place, scale = centre + width * mean, width * deviation
        peak = len(x) * (gauss - shift)
        return StudentT(math.inf, place, scale, math.inf, peak, 0.0)
    if information is None:
        raise ArithmeticError(
            "the likelihood has no maximum next to the quartiles; the search left "
            f"towards {math.exp(-found[0]):.3g} degrees. Look at the samples for ties."
        )
    degrees = math.exp(-found[0])
    return StudentT(
        degrees,
        centre + width * (float(found[2]) if fitted else 0.0),
        width * math.exp(found[1]),
        degrees * math.sqrt(np.linalg.inv(information)[0, 0] / len(x)),
        len(x) * float(value - shift),
        2 * len(x) * float(value - gauss),
    )


def _maximise(likelihood, place):
    """Return place, value and information (None where it is no maximum), by Newton."""
    value, score, hessian = likelihood(place)
    for _ in range(100):
        curvature, axes = np.linalg.eigh(-hessian)
        step = axes @ (axes.T @ score / np.maximum(abs(curvature), 1e-300))
        step /= max(1.0, np.linalg.norm(step))
        while (following := likelihood(place + step))[0] < value - 1e-13:
            step /= 2
        place, (value, score, hessian) = place + step, following
        if abs(step).max() < 1e-9 or abs(place).max() > 12:
            break
    converged = abs(step).max() < 1e-3 and curvature[0] > 0
    return place, value, -hessian if converged else None


def _likelihood(x, log_inverse, log_scale, location):
    """Return the mean log-likelihood in (-ln ν, ln s, μ), its gradient and Hessian."""
    inverse, scale = math.exp(log_inverse), math.exp(log_scale)
    c, slope, bend = _normaliser(inverse)
    z = (x - location) / scale
    q = z * z
    part = 1 / (1 + inverse * q)
    logs = (torch.log1p(inverse * q).mean() / inverse).item()
    up = 1 + inverse
    wz, wq = up * (part * z).mean().item(), up * (part * q).mean().item()
    v, vz, vq, vzq, vqq = (
        (part * m).mean().item()
        for m in (part, part * z, part * q, part * z * q, (part * q) * q)
    )
    value = c - log_scale - 0.5 * math.log(2 * math.pi) - 0.5 * up * logs
    score = [slope + 0.5 * (logs - wq), wq - 1, wz / scale]
    aa = bend + 0.5 * (wq / up - logs) - 0.5 * inverse * (vq - vqq)
    ab, am = inverse * (vq - vqq), inverse * (vz - vzq) / scale
    bb, bm = -2 * up * vq, -2 * up * vz / scale
    mm = -up * (v - inverse * vq) / scale**2
    hessian = [[aa, ab, am], [ab, bb, bm], [am, bm, mm]]
    return value, np.array(score), np.array(hessian)


def _normaliser(inverse):
    r"""Return ln Γ((ν+1)/2)/(Γ(ν/2)√(ν/2)) and two derivatives by -ln ν."""
    if inverse < 0.02:  # where the closed form cancels
        terms = [(k, c * inverse**k) for k, c in _SERIES.items()]
        return tuple(sum(k**j * term for k, term in terms) for j in range(3))
    nu = 1 / inverse
    a, b = (nu + 1) / 2, nu / 2
    value = special.gammaln(a) - special.gammaln(b) - 0.5 * math.log(b)
    slope = nu / 2 * (special.psi(a) - special.psi(b)) - 0.5
    bend = nu**2 / 4 * (special.polygamma(1, a) - special.polygamma(1, b)) + 0.5
    return value, -slope, slope + bend
