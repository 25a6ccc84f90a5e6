r"""The stationary density of a one-dimensional diffusion, from SymPy to ten digits.

For :math:`dX=a\,dt+b\,dW` with the Itô drift a and :math:`D=\frac12b^2` the density
without flux is

.. math:: p(x)=\frac1Z\,\frac1{D(x)}\exp\int_{x_0}^x\frac{a(y)}{D(y)}\,dy ,

if it can be normalised: that is decided from the exponents at the ends, never assumed.
The logarithm of p is integrated on panels, in a variable in which a power law is an
exponential, so that tails of 1e-300 and of infinite variance keep their digits.
"""

from __future__ import annotations

import math

import torch

from sgdbook import _door
from sgdbook._confinement import Confinement
from sgdbook._log_density import LogDensity, places

NATURAL = ("natural", -math.inf), ("natural", math.inf)


def normalisable(sde, at=None, *, left=NATURAL[0], right=NATURAL[1]):
    """Decide whether a diffusion has a stationary density without flux.

    Parameters
    ----------
    sde, at, left, right
        As in `StationaryDensity`.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If it cannot be decided, or the arguments are wrong.

    Examples
    --------
    >>> import sympy as sp
    >>> from sgdbook.sde import SDE
    >>> x, a = sp.symbols("x a", real=True)
    >>> logarithmic = SDE(-2 * a * x / (1 + x**2), 1, x, convention="ito")
    >>> [normalisable(logarithmic, {a: value}) for value in (0.25, 0.26)]
    [False, True]
    """
    confinement = Confinement(sde, at, left, right)
    return all(confinement.integrable(side) for side in (0, 1))


class StationaryDensity:
    r"""The normalised stationary density of a one-dimensional diffusion.

    Parameters
    ----------
    sde : sgdbook.sde.SDE
        One-dimensional, any convention.
    at : dict of sympy.Symbol to float, optional
        Values of the other symbols, taken as they are written: 0.1 is 1/10.
    left, right : tuple of (str, float)
        ``("natural", x)``: an end at infinity, or a finite one, mostly a zero of D;
        ``("reflecting", x)``: a wall where D > 0.

    Attributes
    ----------
    tail_index : tuple of float
        :math:`\nu` left and right, with :math:`P(|X|>x)\approx x^{-\nu}`; inf where the
        tail is lighter than every power, or the end is finite.
    anchor : float
        :math:`x_0`: 0 where that is inside, else the middle of a finite interval, else
        the only finite end if it reflects, or 1 away from it.

    Raises
    ------
    TypeError, ValueError
        If the density is not normalisable (the message names end and exponent) or that
        cannot be decided; if drift or D are not finite, real, with D > 0 inside.
    ArithmeticError
        If ten digits are not reached.

    Notes
    -----
    Everything is float64.  Places and probabilities are numbers or tensors of any
    shape; so are the results, on the same device.

    References
    ----------
    Gardiner, *Stochastic Methods*, section 5.3.3; Karlin and Taylor, *A Second Course
    in Stochastic Processes*, section 15.5.

    Examples
    --------
    A spring whose stiffness fluctuates: Student's t with 3 degrees of freedom.

    >>> import sympy as sp
    >>> from sgdbook.sde import SDE
    >>> x = sp.Symbol("x", real=True)
    >>> p = StationaryDensity(SDE(-x, sp.sqrt(1 + x**2), x, convention="ito"))
    >>> p.tail_index, round(p.moment(2), 12), p.moment(4)
    ((3.0, 3.0), 1.0, inf)
    """

    def __init__(self, sde, at=None, *, left=NATURAL[0], right=NATURAL[1]):
        self._confinement = confinement = Confinement(sde, at, left, right)
        confinement.require_normalisable()
        self._law = LogDensity(confinement)
        self.tail_index = tuple(side.tail_index for side in self._law.sides)
        self.anchor = float(confinement.anchor)

    def __repr__(self) -> str:
        """Say interval and tails."""
        low, high = self._confinement.ends
        return f"StationaryDensity on ({low}, {high}), tail index {self.tail_index}"

    @property
    def error(self) -> float:
        """Return the relative difference of Z to that on half as many panels."""
        return self._law.error

    @property
    def log_normaliser(self) -> float:
        r"""Return :math:`\ln Z` in the formula above, with :math:`x_0` the anchor."""
        confinement = self._confinement
        D = confinement.D.subs(confinement.x, confinement.anchor).evalf(20)
        return -float(self.log_density(self.anchor)) - math.log(D)

    def log_density(self, x):
        """Return ln p at x; -inf outside.

        Raises
        ------
        ValueError
            If x is nan, or so far out that ln p is below about -200,000.
        """
        law = self._law
        return law.at_places(x, law.log_p, deep=True, outside=-math.inf)

    def density(self, x):
        """Return p at x."""
        return self._law.at_places(x, self._law.log_p, outside=-math.inf).exp()

    def cdf(self, x):
        """Return P(X <= x), with all its digits where it is small."""
        return self._law.at_places(x, self._law.log_below).exp().clamp(max=1)

    def tail_probability(self, x):
        """Return P(X > x), with all its digits where it is small."""
        return self._law.at_places(x, self._law.log_above).exp().clamp(max=1)

    def log_tail_probability(self, x):
        """Return ln P(X > x), far below -745 too; raises as `log_density`."""
        return self._law.at_places(x, self._law.log_above, deep=True).clamp(max=0)

    def two_sided_tail(self, x):
        r"""Return :math:`P(|X|>x)`."""
        x = places(x)
        both = self.tail_probability(x) + self.cdf(-x)
        return torch.where(x < 0, torch.ones_like(both), both)

    def quantile(self, q):
        """Return the x with P(X <= x) = q.

        Raises
        ------
        ValueError
            If q is not between 0 and 1.
        """
        q = places(q)
        flat = q.reshape(-1).cpu()
        if not bool(((flat >= 0) & (flat <= 1)).all()):
            raise ValueError("q must be probabilities, between 0 and 1.")
        return self._law.inverse(flat).reshape(q.shape).to(q.device)

    def sample(self, n, generator):
        """Draw independent values, by the inverse of the cdf.

        Parameters
        ----------
        n : int
        generator : torch.Generator

        Returns
        -------
        torch.Tensor, shape (n,)
            On the generator's device.
        """
        _door.require_positive_integer(n, "n")
        place = generator.device if isinstance(generator, torch.Generator) else "cpu"
        q = torch.empty(n, dtype=torch.float64, device=place)
        _door.require_generator(generator, q, "the sample")
        q = q.uniform_(generator=generator).clamp(min=2.0**-54).cpu()
        return self._law.inverse(q, polish=False).to(place)

    def moment(self, n, about=0.0):
        r"""Return :math:`\mathbb E(X-c)^n`; inf or -inf where one end makes it so.

        Parameters
        ----------
        n : int
            At least 0.
        about : float
            c.

        Raises
        ------
        ValueError
            If an odd moment diverges at both ends.
        """
        if not (_door.is_integer(n) and n >= 0):
            raise ValueError(f"n must be an integer of at least 0; got {n!r}.")
        if not math.isfinite(about):
            raise ValueError(f"about must be finite; got {about!r}.")
        diverging = {
            side.sign**n
            for i, side in enumerate(self._law.sides)
            if side.infinite and not self._confinement.integrable(i, n)
        }
        if len(diverging) == 2:
            raise ValueError(
                f"the moment of order {n} diverges at both ends, with opposite signs; "
                f"the tail indices are {self.tail_index}."
            )
        if diverging:
            return math.inf * diverging.pop()

        def power(t):
            gap = self._law.x(t, about)
            return gap.sign() ** n, n * gap.abs().log() if n else 0 * gap

        return self._law.expect(power)

    def expectation(self, phi):
        """Return the mean of a function of x.

        Parameters
        ----------
        phi : callable
            From a float64 tensor of places, shape (n,), to the values there, (n,).

        Raises
        ------
        ValueError
            If the integral does not converge, or phi is not finite where p counts.
        ArithmeticError
            If phi is not resolved to ten digits.
        """

        def logarithm(t):
            x = self._law.x(t).reshape(-1)
            value = torch.as_tensor(phi(x), dtype=torch.float64)
            if value.shape != x.shape:
                raise ValueError(
                    f"phi must return one value a place, shape {tuple(x.shape)}; got "
                    f"{tuple(value.shape)}."
                )
            value = value.reshape(t.shape)
            return value.sign(), value.abs().log()

        return self._law.expect(logarithm)
