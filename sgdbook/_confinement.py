r"""Where a one-dimensional diffusion has a stationary density, decided in SymPy.

Without flux :math:`(\ln p)'=(a-D')/D`, with the Itô drift a and :math:`D=\frac12b^2`.
Let y be \|x\| at an infinite end, the distance at a finite one, and

.. math:: L=\lim y\,\frac{d\ln p}{dy},\qquad
          M=\lim\,\ln y\,\Big(y\,\frac{d\ln p}{dy}-L\Big),

so that :math:`p\approx y^L|\ln y|^M`.  Then p is integrable at infinity if L < -1, at a
finite end if L > -1, and at L = -1 if M < -1.
"""

from __future__ import annotations

import itertools
import math
from functools import cache

import mpmath
import numpy as np
import sympy as sp
from scipy.optimize import brentq, minimize_scalar

from sgdbook import _door
from sgdbook.sde import SDE

KINDS = ("natural", "reflecting")
NAMES = ("left", "right")
Y = sp.Dummy("y", positive=True)
DIGITS = 60
DECADES = (20, 40, 80, 160)


class Confinement:
    """The slope of ln p between two ends, and how it behaves there.

    Attributes
    ----------
    x : sympy.Symbol
        Real, in place of the coordinate.
    slope, D : sympy.Expr
        (a - D')/D and D, functions of x alone.
    kinds, ends : tuple
        Kinds and places of the two ends.
    """

    def __init__(self, sde, at, left, right):
        if not isinstance(sde, SDE):
            raise TypeError(
                f"sde must be an sgdbook.sde.SDE; got {type(sde).__name__}. It says "
                "the convention, on which the density depends."
            )
        if len(sde.variables) != 1:
            raise ValueError(
                f"sde must be one-dimensional; got {len(sde.variables)} variables. In "
                "more dimensions there may be no density without flux."
            )
        self.exponents = cache(self._exponents)
        self.kinds, self.ends = zip(*map(_end, NAMES, (left, right)), strict=True)
        low, high = self.ends
        if not low < high:
            raise ValueError(
                f"the left end must be below the right; got {low}, {high}."
            )
        (old,) = sde.variables
        if (old.is_nonnegative and low < 0) or (old.is_nonpositive and high > 0):
            raise ValueError(
                f"{old} is declared of one sign; the interval ({low}, {high}) is not. "
                'Pass left=("natural", 0), or declare it real.'
            )
        self.x = sp.Dummy("x", real=True)
        values = {s: _exact(v, f"at[{s}]") for s, v in (at or {}).items()}
        values[old] = self.x
        B = sde.diffusion
        a, rate = (_at(e, values) for e in (sde.ito_drift, (B * B.T)[0, 0]))
        if missing := sorted(map(str, (a.free_symbols | rate.free_symbols) - {self.x})):
            raise ValueError(
                f"The symbols {missing} have no value. Pass at={{symbol: value}}."
            )
        for expr, name in ((a, "drift"), (rate, "diffusion")):
            if expr.has(sp.I, sp.nan, sp.oo, sp.zoo):
                raise ValueError(
                    f"the {name} must be finite and real; got {sp.sstr(expr)[:200]}."
                )
        self.D = rate / 2
        if self.D == 0:
            raise ValueError("D must be positive inside the interval; it is 0.")
        self.slope = self._ready((a - self.D.diff(self.x)) / self.D, a / self.D)
        self._require_positive()

    def _ready(self, whole, first):
        """Return the slope in a form that does not overflow for want of cancelling."""
        if whole.is_rational_function(self.x):
            return sp.cancel(whole)
        return first - self.D.diff(self.x) / self.D

    # ------------------------------------------------------------ inside

    def _require_positive(self):
        """Stop where D is not positive, or a coefficient not finite, inside."""
        for expr in sp.fraction(sp.together(self.D)), sp.fraction(self.slope)[1:]:
            for factor in expr:
                for place in self._zeros(factor):
                    self._refuse(place)
        inside = self._grid(8)
        with np.errstate(all="ignore"):
            D = self._numeric(self.D)(inside)
        if not self.D.is_positive and not (D >= 0).all():  # 0: it may underflow
            self._refuse(inside[~(D >= 0)][0])

    def _zeros(self, expr):
        """Return the zeros inside: exact for polynomials, else by a search."""
        low, high = self.ends
        if self.x not in expr.free_symbols or expr.is_positive:
            return []
        poly = expr.as_poly(self.x)
        if poly is not None and (poly.domain.is_ZZ or poly.domain.is_QQ):
            closed = [k == "reflecting" for k in self.kinds]
            return [
                root
                for root in sorted(set(poly.real_roots()))
                if low < root < high
                or (closed[0] and root == low)
                or (closed[1] and root == high)
            ]
        x, f = self._grid(8), self._numeric(expr)
        with np.errstate(all="ignore"):
            size = np.abs(f(x))
            found = []
            dips = 1 + np.flatnonzero(
                (size[1:-1] <= size[:-2]) & (size[1:-1] <= size[2:])
            )
            for i in dips:
                bottom = minimize_scalar(
                    lambda z: abs(float(f(z))),
                    bounds=(x[i - 1], x[i + 1]),
                    method="bounded",
                    options={"xatol": 1e-12 * (x[i + 1] - x[i - 1])},
                )
                if bottom.fun < 1e-9 * min(size[i - 1], size[i + 1]):
                    found.append(bottom.x)
        return found

    def _refuse(self, place):
        raise ValueError(
            f"drift must be finite and D positive inside the interval; they are not at "
            f"x = {float(place):.6g}. Make it an end."
        )

    def _numeric(self, expr):
        """Return a numpy function of x that broadcasts."""
        function = sp.lambdify(self.x, short(expr), modules=["scipy", "numpy"])
        return lambda x: function(np.asarray(x)) + 0.0 * x

    def _grid(self, decades):
        """Return places inside, logarithmically close to the ends and the anchor."""
        low, high = map(float, self.ends)
        r = np.exp(np.arange(-2.3 * decades, 2.3 * decades, 0.05))
        if math.isinf(low) and math.isinf(high):
            x = np.concatenate([-r, [0], r])
        elif math.isinf(high):
            x = low + r
        elif math.isinf(low):
            x = high - r
        else:
            x = low + (high - low) * r / (1 + r)
        x = np.unique(x)
        return x[(low < x) & (x < high)]

    @property
    def anchor(self):
        """Return 0 if it is inside, else the middle, the wall or 1 off the only end."""
        low, high = self.ends
        if low < 0 < high:
            return sp.Integer(0)
        if low.is_finite and high.is_finite:
            return (low + high) / 2
        finite = 0 if low.is_finite else 1
        step = 0 if self.kinds[finite] == "reflecting" else 1
        return low + step if low.is_finite else high - step

    def peaks(self):
        """Return an exact place where p is large, its width there, and all maxima."""
        low, high = map(float, self.ends)
        x = self._grid(100)
        numerator = sp.fraction(self.slope)[0].as_poly(self.x)
        if numerator is not None and numerator.degree() > 0:
            roots = np.array([complex(r) for r in numerator.nroots(maxsteps=200)])
            roots = roots.real[np.abs(roots.imag) <= 1e-6 * np.abs(roots)]
            x = np.unique(np.concatenate([x, roots[(low < roots) & (roots < high)]]))
            x = np.unique(np.concatenate([x, (x[1:] + x[:-1]) / 2]))
        start = int(np.abs(x - float(self.anchor)).argmin())
        slope = self._numeric(self.slope)
        with np.errstate(all="ignore"):
            g = slope(x)
            falls = np.flatnonzero((g[:-1] > 0) & (g[1:] < 0))
            maxima = [brentq(slope, x[i], x[i + 1], rtol=1e-14) for i in falls]
            flat = (g[1:-1] == 0) & (g[:-2] > 0) & (g[2:] < 0)
            maxima = np.array(maxima + list(x[1:-1][flat]))
            rise = (g[1:] + g[:-1]) / 2 * np.diff(x)
            log_p = np.zeros_like(x)
            log_p[start + 1 :] = np.cumsum(rise[start:])
            log_p[:start] = -np.cumsum(rise[:start][::-1])[::-1]
            room = np.minimum(x - low, high - x)
            log_p += np.log(room) if math.isfinite(room[start]) else 0
            top = int(np.nan_to_num(log_p, nan=-np.inf, posinf=-np.inf).argmax())
            near = (maxima >= x[max(top - 1, 0)]) & (maxima <= x[top : top + 2][-1])
            c = float([*maxima[near], x[top]][0])
            far = np.abs(x - c)[log_p < log_p[top] - 1]
            width = min(far.min() if len(far) else 1.0, room[top])
            step = 1e-4 * width
            bend = float(slope(c + step) - slope(c - step)) / (2 * step)
        if -math.inf < bend < 0:
            width = min(width, (-bend) ** -0.5)
        unit = sp.Rational(2) ** (math.floor(math.log2(width)) - 3)
        exact = sp.Integer(round(sp.Rational(c) / unit)) * unit
        inside = self.ends[0] < exact < self.ends[1]
        return (exact if inside else sp.Rational(c)), float(width), maxima

    # ------------------------------------------------------------ at the ends

    def local(self, side, base):
        """Return d ln p / dy, y outwards from a base or the distance to the end."""
        inwards = base == self.ends[side]
        sign = (-1 if side == 0 else 1) * (-1 if inwards else 1)
        expr = sign * self.slope.xreplace({self.x: base + sign * Y})
        if expr.is_rational_function(Y):
            top, bottom = (sp.Poly(e, Y) for e in sp.fraction(sp.cancel(expr)))
            unit = max(bottom.all_coeffs(), key=abs)
            top, bottom = (sp.horner(e.as_expr() / unit, Y) for e in (top, bottom))
            return top / bottom
        return expr.replace(
            lambda e: e.is_Add and e.has(Y) and e.is_polynomial(Y), sp.factor
        )

    def _exponents(self, side):
        """Return L and a function for M at a natural end."""
        finite = self.ends[side].is_finite
        base = self.ends[side] if finite else sp.Integer(0)
        expr = Y * self.local(side, base)
        to = sp.Integer(0) if finite else sp.oo
        L = _limit(expr, to)
        return L, lambda: _limit(sp.log(Y) * (expr - L), to)

    def integrable(self, side, n=0):
        """Decide whether p times the n-th power of y is integrable at an end."""
        if self.kinds[side] == "reflecting":
            return True
        finite = self.ends[side].is_finite
        L, next_order = self.exponents(side)
        sign = _sign(L, -1 - n)
        if sign == 0:
            M = next_order()
            beyond = _sign(M, -1) if M is not None else None
            if beyond in (None, 0):
                what = "is -1 too" if beyond == 0 else "is unknown"
                raise ValueError(
                    f"cannot decide whether the density is normalisable towards the "
                    f"{NAMES[side]} end, {self.ends[side]}: its exponent is {-1 - n}, "
                    f"and that of the logarithm {what}."
                )
            return beyond < 0
        if sign is None:
            raise ValueError(
                f"cannot decide whether the density is normalisable towards the "
                f"{NAMES[side]} end, {self.ends[side]}: x (ln p)' has no limit there "
                f"that is known, or one too close to -1 (found: {L})."
            )
        return (sign > 0) == finite

    def require_normalisable(self):
        """Stop where p is not integrable, naming the end and the exponent."""
        for side in (0, 1):
            if self.integrable(side):
                continue
            end = self.ends[side]
            y = "the distance" if end.is_finite else "|x|"
            L = self.exponents(side)[0]
            bound = "above" if end.is_finite else "below"
            raise ValueError(
                f"not normalisable towards the {NAMES[side]} end, {end}: the density "
                f"behaves like {y} to the power {sp.sstr(L)} there; the exponent must "
                f"be {bound} -1."
            )


def _end(name, end):
    """Check one end and return kind and exact place."""
    kind, place = _door.end_of(name, end, KINDS)
    place = sp.sympify(place)
    infinite = place in (sp.oo, -sp.oo) or place == math.inf or place == -math.inf
    if infinite and kind == "natural" and (place > 0) == (name == "right"):
        return kind, sp.oo if place > 0 else -sp.oo
    if infinite:
        raise ValueError(
            f"the {name} end is {kind} at {place}. Only a natural end may be infinite, "
            "on its own side."
        )
    return kind, _exact(place, f"place of the {name} end")


def _exact(value, name):
    """Return a finite real number as it is written: 0.1 is 1/10."""
    number = _at(value if isinstance(value, sp.Basic) else _plain(value, name), {})
    if not (number.is_number and number.is_real and number.is_finite):
        raise ValueError(f"{name} must be a finite real number; got {value!r}.")
    return number


def _plain(value, name):
    """Return an int or a float."""
    if _door.is_integer(value):
        return int(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must be a finite real number; got {value!r}."
        ) from None


def _at(expr, values):
    """Insert values and turn floats into the fractions that they are written as."""
    expr = sp.sympify(expr)
    floats = {
        f: sp.Rational(repr(float(f))) if f.is_finite else f
        for f in expr.atoms(sp.Float)
    }
    return expr.xreplace(floats).xreplace(values)


def short(expr):
    """Return the expression with floats for the numbers that fill no float exactly."""
    long = [r for r in expr.atoms(sp.Rational) if max(abs(r.p), r.q) > 2**53]
    return expr.xreplace({r: sp.Float(r, 20) for r in long})


def _sign(value, bound):
    """Return the sign of value - bound; None where it cannot be told."""
    if value is None or value.is_infinite:
        return None if value is None else 1 if value > 0 else -1
    gap = value - bound
    if gap.has(sp.Float):
        return None if abs(gap) < 1e-6 else int(sp.sign(gap))
    if abs(gap.evalf(40)) < 1e-30:
        return 0 if sp.simplify(gap) == 0 else None
    return 1 if gap.evalf(40) > 0 else -1


def _limit(expr, to):
    """Return the limit at 0 or infinity; None where it is unknown or does not exist."""
    try:
        exact = sp.limit(expr, Y, to, "-" if to == sp.oo else "+")
    except (
        ArithmeticError,
        AttributeError,
        NotImplementedError,
        TypeError,
        ValueError,
    ):
        exact = None  # SymPy gives up in all these ways: numbers must decide
    if exact is not None and not (exact.is_number and exact.is_extended_real):
        exact = None
    number = _numeric_limit(expr, to)
    if exact is None or number is None:
        return number if exact is None else exact
    both = {exact.is_infinite, number.is_infinite}
    agree = exact == number if both != {False} else abs(exact - number) < 1e-6
    return exact if agree else None


def _numeric_limit(expr, to):
    """Return the limit as a Float if values towards it are stable, else None."""
    function = sp.lambdify(Y, expr, modules="mpmath")
    with mpmath.workdps(DIGITS):
        try:
            values = [
                function(mpmath.mpf(10) ** (k if to == sp.oo else -k)) for k in DECADES
            ]
        except (ArithmeticError, NameError, NotImplementedError, ValueError):
            return None
        if not all(isinstance(v, mpmath.mpf | int) for v in values):
            return None
        last, before = values[-1], values[-2]
        if abs(last - before) <= 1e-12 * (1 + abs(last)):
            return sp.Float(last, 30)
        grows = all(abs(v) < abs(w) for v, w in itertools.pairwise(values))
        if grows and abs(last) > 1e9 and mpmath.sign(last) == mpmath.sign(before):
            return sp.oo if last > 0 else -sp.oo
    return None
