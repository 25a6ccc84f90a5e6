"""The two halves of the line: x as a function of t, and what holds at their ends."""

from __future__ import annotations

import math

import torch

from sgdbook._confinement import NAMES, Y, short
from sgdbook.bridge import to_torch

FAR = 230.0  # e^230 = 1e100 widths


class Side:
    """One half of the interval: x as a function of t >= 0, and what holds at its end.

    Towards infinity x is the centre plus or minus y = width sinh t, towards a finite
    natural end y = distance e^-t is what is left, to a wall y is linear.
    """

    def __init__(self, confinement, i, centre, width):
        end = confinement.ends[i]
        self.sign, self.end, self.centre = (-1, 1)[i], float(end), float(centre)
        self.name, self.wall = NAMES[i], confinement.kinds[i] == "reflecting"
        self.infinite = not end.is_finite
        inwards = not (self.wall or self.infinite)
        base = end if inwards else centre
        self.base, self.way = float(base), -self.sign if inwards else self.sign
        self.width = width if self.infinite else abs(float(end - centre))
        self.far = 1.0 if self.wall else FAR
        self.log_bend = 1 if self.infinite else -1  # of ln |dx/dt|, far out
        self.tail_index, self.fall, self.decay = math.inf, 0.0, math.inf
        if not self.wall:
            L = confinement.exponents(i)[0]
            self.decay = float(abs(L + 1))
            self.fall = float(L) * (1 if self.infinite else -1)
            self.tail_index = self.decay if self.infinite else math.inf
        self.local = to_torch(short(confinement.local(i, base)), [Y])

    def grid(self):
        """Return the first edges."""
        n = 1 + math.ceil(2 * self.far)
        return torch.linspace(0, self.far, n, dtype=torch.float64)

    def y(self, t):
        """Return y and dy/dt."""
        if self.wall:
            return self.width * t, torch.full_like(t, self.width)
        if self.infinite:
            return self.width * t.sinh(), self.width * t.cosh()
        return self.width * (-t).exp(), -self.width * (-t).exp()

    def x(self, t, about):
        """Return x - about."""
        return (self.base - about) + self.way * self.y(t)[0]

    def t(self, x):
        """Return t where x is on this side."""
        if self.infinite:
            return (self.sign * (x - self.base) / self.width).clamp(min=0).asinh()
        y = (self.way * (x - self.base) / self.width).clamp(0, 1)
        return y if self.wall else -y.log()

    def slope(self, t):
        """Return d ln p / dt."""
        y, stretch = self.y(t)
        return self.local(y) * stretch

    def log_stretch(self, t):
        """Return ln |dx/dt|."""
        return self.y(t)[1].abs().log()

    def log_rest(self, t, log_p, total):
        """Return the log of the mass beyond t, from the exponent of the end."""
        nothing = torch.full_like(log_p, -math.inf)
        if self.wall or t < self.far:
            return nothing
        log = log_p + self.log_stretch(t)
        if self.decay < math.inf and self.decay:
            rest = log - math.log(self.decay)
            wrong = self.slope(t) + self.log_bend + self.decay
            share = (rest - total.logaddexp(rest)).exp()
            if float(share * wrong.abs()) < 1e-11 * self.decay:
                return rest
        elif float(log - total) < -45:
            return nothing
        raise ArithmeticError(
            f"ten digits are out of reach: the density is normalisable, but towards "
            f"the {self.name} end it falls too slowly for its rest to be known."
        )
