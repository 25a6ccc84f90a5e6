r"""A density on the line by its logarithm, on panels: places, masses and means.

The line is a function of t in which a power law is an exponential.  The slope of ln p
is integrated on panels that resolve it; masses are carried as logarithms, from both
ends, and what lies beyond the last panel is known from the exponent of the end.
"""

from __future__ import annotations

import math

import torch

from sgdbook._confinement import NAMES
from sgdbook._panels import (
    NODES,
    RUNNING,
    SERIES,
    WEIGHTS,
    doubled,
    integrated_series,
    points,
    refined,
    resolved,
    running_log,
)
from sgdbook._sides import Side

DEEP = 900.0  # panels end where p is e^-900 of its largest value
DEEPEST = 2e5
CHUNK = 2**16
WAVES = 20_000  # panels more for a function whose mean is asked


def places(x):
    """Return numbers as a tensor of float64, which a bare float would not become."""
    return torch.as_tensor(x, dtype=torch.float64)


class LogDensity:
    """The panels of a density, normalised.

    Parameters
    ----------
    confinement : sgdbook._confinement.Confinement

    Attributes
    ----------
    sides : list of Side
    error : float
        Relative difference of the mass to that on half as many panels.
    """

    def __init__(self, confinement):
        centre, width, maxima = confinement.peaks()
        self._maxima = torch.as_tensor(maxima, dtype=torch.float64)
        self.sides = [Side(confinement, i, centre, width) for i in (0, 1)]
        self._depth = DEEP
        self._build()

    def _slope(self, t):
        """Return -(ln p)' and -ln(dx/dt) as functions of t; t < 0 is the left side."""
        slope, log = torch.empty_like(t), torch.empty_like(t)
        for side, here in zip(self.sides, (t < 0, t >= 0), strict=True):
            slope[here] = -side.sign * side.slope(t[here].abs())
            log[here] = -side.log_stretch(t[here].abs())
        return slope, log

    def _rise(self, edges):
        """Return -ln p at edges, 0 at t = 0; half widths; ln(p dx/dt) at nodes."""
        t, half = points(edges)
        slope, log = self._slope(t)
        rise = half[:, 0] * (slope @ WEIGHTS)
        k = int((edges == 0).nonzero()[0])
        down = -rise[:k].flip(0).cumsum(0).flip(0)
        psi = torch.cat([down, rise.new_zeros(1), rise[k:].cumsum(0)])
        nodes = psi[:-1, None] + half * (slope @ RUNNING.T)
        return psi, half, (-nodes - log).nan_to_num(nan=-math.inf)

    def _build(self):
        """Find panels and the masses below and above their edges, in logarithms."""
        coarse = self._found_panels()
        half, whole = (self._measure(edges) for edges in (coarse, doubled(coarse)))
        self.error = abs(math.expm1(whole - half))
        if not self.error < 1e-10:
            raise ArithmeticError(
                f"the normalisation reached a relative error of {self.error:.1e} only. "
                "Look for kinks or jumps of drift and diffusion."
            )

    def _found_panels(self):
        """Return edges that resolve the slope wherever p is not negligible."""
        left, right = (side.grid() for side in self.sides)
        grid = torch.cat([-left, right, self._t(self._maxima)])
        grid = grid[(grid >= -left[-1]) & (grid <= right[-1])].unique()
        finite = self._slope(points(grid)[0])[0].isfinite().all(1)
        k = int((grid == 0).nonzero()[0])
        ends = finite[:k].flip(0).int().cumprod(0), finite[k:].int().cumprod(0)
        first, last = k - int(ends[0].sum()), k + int(ends[1].sum())
        edges = grid = self._trimmed(grid, first, last)
        while True:
            done = resolved(self._slope, edges)
            psi, _, log_p = self._rise(edges)
            top = (-psi - self._slope(edges)[1]).nan_to_num(nan=-math.inf)
            top = torch.maximum(top[:-1], top[1:])
            top[done] = top[done].maximum(log_p[done].amax(1))
            kept = (top > top.max() - self._depth).nonzero()[:, 0]
            origin = int((edges == 0).nonzero()[0])
            first, last = min(int(kept[0]), origin), max(int(kept[-1]) + 1, origin)
            edges, done = edges[first : last + 1], done[first:last]
            if not bool(done.all()):
                edges = refined(edges, ~done)
                continue
            shallow = top[[first, last - 1]] > top.max() - self._depth + 50
            more = (grid < edges[0]) & (grid >= edges[0] - 4) & shallow[0]
            more |= (grid > edges[-1]) & (grid <= edges[-1] + 4) & shallow[1]
            if not bool(more.any()):
                break
            edges = torch.cat([edges, grid[more]]).sort().values
        for side, end, limit in zip(
            self.sides, edges[[0, -1]].abs(), grid[[0, -1]].abs(), strict=True
        ):
            if end == limit < side.far:  # the slope overflows before p is negligible
                side.far = max(float(limit) - 10, float(limit) / 2)
                return self._found_panels()
        return edges

    def _trimmed(self, grid, first, last):
        """Return the edges from first to last, less those where a power overflows.

        There the slope is finite and wrong; it is right where the exponent is.
        """
        slope = -self._slope(grid)[0]
        for i, side in enumerate(self.sides):
            if side.decay == math.inf:
                continue
            wrong = side.sign * slope + side.log_bend + side.decay
            right = (side.sign * grid > 1) & (wrong.abs() < 1e-10 * (1 + side.decay))
            right[:first], right[last + 1 :] = False, False
            if bool(right.any()):
                far = int(right.nonzero()[-1 if i else 0])
                first, last = (first, far) if i else (far, last)
                side.far = float(grid[far].abs())
        return grid[first : last + 1]

    def _measure(self, edges):
        """Keep what the panels know; return the logarithm of the whole mass."""
        psi, half, log_p = self._rise(edges)
        below = running_log(log_p, half)[1]
        above = running_log(log_p, half, backwards=True)[1]
        rest = torch.stack(
            [
                side.log_rest(edges[i].abs(), -psi[i], below[-1])
                for side, i in zip(self.sides, (0, -1), strict=True)
            ]
        )
        below, above = below.logaddexp(rest[0]), above.logaddexp(rest[1])
        total = below[-1].logaddexp(rest[1])
        self._closed = [
            bool(edges[i].abs() == side.far) and side.decay < math.inf
            for side, i in zip(self.sides, (0, -1), strict=True)
        ]
        self._total, self._edges, self._psi = float(total), edges, psi + total
        self._below, self._above = below - total, above - total
        self._rest = rest - total
        f = (log_p - log_p.amax(1, keepdim=True)).exp()
        self._series = SERIES @ f.T / (f @ WEIGHTS)
        return self._total

    def _deepen(self, why):
        """Follow the tails further, to the fourth power of the smallest density."""
        self._depth *= 4
        if self._depth > DEEPEST:
            raise ValueError(why)
        self._build()

    # ------------------------------------------------------------ places

    def x(self, t, about=0.0):
        """Return x - about."""
        low, high = (side.x(t.abs(), about) for side in self.sides)
        return torch.where(t < 0, low, high)

    def _t(self, x):
        """Return t at places x."""
        low, high = (side.t(x) for side in self.sides)
        return torch.where(x < self.sides[1].centre, -low, high)

    def at_places(self, x, function, *, deep=False, outside=None):
        """Apply a function of t to places of any shape."""
        x = places(x)
        flat = x.reshape(-1).cpu()
        if bool(flat.isnan().any()):
            raise ValueError("x must be places, not nan.")
        t = self._t(flat)
        while deep and self._too_far(t):
            self._deepen(
                "x lies too far out: ln p is below "
                f"{-DEEPEST:,.0f} there, or x beyond 1e100 widths."
            )
        result = torch.cat([function(part) for part in t.split(CHUNK)])
        if outside is not None:
            low, high = (side.end for side in self.sides)
            result[(flat < low) | (flat > high)] = outside
        return result.reshape(x.shape).to(x.device)

    def _too_far(self, t):
        t = t[t.isfinite()]
        beyond = (t < self._edges[0]).any(), (t > self._edges[-1]).any()
        return any(b and not c for b, c in zip(beyond, self._closed, strict=True))

    def _panel(self, t):
        """Return the panel of each t, t moved onto the panels, and how far it was."""
        edges = self._edges
        inside = t.clamp(edges[0], edges[-1])
        k = torch.searchsorted(edges, inside, right=True) - 1
        excess = (edges[0] - t).clamp(min=0), (t - edges[-1]).clamp(min=0)
        return k.clamp(0, len(edges) - 2), inside, excess

    def _walk(self, start, psi, t):
        """Return ln p at t and the log of the mass from start to t."""
        half = (t - start)[:, None] / 2
        slope, log = self._slope(start[:, None] + half * (1 + NODES))
        log_p = -psi[:, None] - half * (slope @ RUNNING.T) - log
        top = log_p.amax(1)
        mass = half.abs()[:, 0] * ((log_p - top[:, None]).exp() @ WEIGHTS)
        return -psi - half[:, 0] * (slope @ WEIGHTS), mass.log() + top

    def log_p(self, t):
        k, inside, excess = self._panel(t)
        log_p = self._walk(self._edges[k], self._psi[k], inside)[0]
        for side, closed, d in zip(self.sides, self._closed, excess, strict=True):
            beyond = log_p + side.fall * d if closed and side.fall else log_p
            beyond = beyond if closed else torch.full_like(d, -math.inf)
            log_p = torch.where(d > 0, beyond, log_p)
        return log_p

    def _log_mass(self, t, i):
        """Return the log of the mass below (i = 0) or above (i = 1)."""
        k, inside, excess = self._panel(t)
        part = self._walk(self._edges[k + i], self._psi[k + i], inside)[1]
        mass = part.logaddexp((self._below, self._above)[i][k + i])
        outer = [
            rest - side.decay * d if closed else torch.full_like(d, -math.inf)
            for side, closed, rest, d in zip(
                self.sides, self._closed, self._rest, excess, strict=True
            )
        ]
        mass = torch.where(excess[i] > 0, outer[i], mass)
        other = torch.log1p(-outer[1 - i].exp().clamp(max=1))
        return torch.where(excess[1 - i] > 0, other, mass)

    def log_below(self, t):
        return self._log_mass(t, 0)

    def log_above(self, t):
        return self._log_mass(t, 1)

    def inverse(self, q, *, polish=True):
        """Return x for probabilities, from the end that is closer in probability.

        Unpolished it is good to twelve digits or so, and some times faster.
        """
        t, low = torch.empty_like(q), q <= 0.5
        for i, here in enumerate((low, ~low)):
            target = ((1 - q) if i else q)[here].log()
            parts = [self._solve(part, i, polish) for part in target.split(CHUNK)]
            t[here] = torch.cat(parts)
        return self.x(t)

    def _solve(self, target, i, polish):
        """Return t where the log mass below (above) is the target."""
        masses = (self._below, self._above.flip(0))[i]
        k = (torch.searchsorted(masses, target) - 1).clamp(0, len(masses) - 2)
        inner, outer = masses[k], masses[k + 1]
        part = torch.expm1((target - inner).clamp(min=0)) / torch.expm1(outer - inner)
        part = torch.where(inner == -math.inf, (target - outer).exp(), part).clamp(0, 1)
        k, part = (len(masses) - 2 - k, 1 - part) if i else (k, part)
        s = self._solved_series(self._series[:, k], part)
        low, high = self._edges[k], self._edges[k + 1]
        t = (low + high) / 2 + (high - low) / 2 * s
        if polish:  # one step of Newton on the logarithm
            mass = self._log_mass(t, i)
            slope = (self.log_p(t) - self._slope(t)[1] - mass).exp()
            new = t + (2 * i - 1) * (mass - target) / slope
            t = torch.where((new >= low) & (new <= high), new, t)
        side, rest = self.sides[i], self._rest[i]
        end = self._edges[-1 if i else 0]
        if self._closed[i]:
            beyond = end + side.sign * (rest - target) / side.decay
            return torch.where(target < rest, beyond, t)
        outer = torch.full_like(t, side.sign * (side.far if side.wall else math.inf))
        return torch.where(target == -math.inf, outer, t)

    @staticmethod
    def _solved_series(c, part):
        """Return s in [-1, 1] up to which each series has the integral: safe Newton."""
        s, low, high = 2 * part - 1, -torch.ones_like(part), torch.ones_like(part)
        for _ in range(60):
            integral, value = integrated_series(c, s)
            above = integral > part
            low, high = torch.where(above, low, s), torch.where(above, s, high)
            new = s - (integral - part) / value
            new = torch.where((new >= low) & (new <= high), new, (low + high) / 2)
            if bool(((new - s).abs() <= 1e-11).all()):
                return new
            s = new
        return s

    # ------------------------------------------------------------ means

    def expect(self, phi):
        """Integrate sign and logarithm of a function of t against p."""
        while (value := self._integrated(phi)) is None:
            self._deepen(
                "the mean does not converge: the function grows as fast as p falls."
            )
        return value

    def _integrand(self, phi, edges):
        _, half, log_p = self._rise(edges)
        sign, log = phi(points(edges)[0])
        log = log + log_p - self._total
        flat, bad = log.reshape(-1), (log == math.inf).reshape(-1)
        beside = torch.zeros_like(bad)
        beside[1:] |= bad[:-1]
        beside[:-1] |= bad[1:]
        top = flat[~bad].max() if not bool(bad.all()) else math.inf
        if bool(flat.isnan().any()) or bool((flat[beside & ~bad] > top - 40).any()):
            raise ValueError("phi must be finite where p is not negligible.")
        return sign, log.where(log < math.inf, -math.inf), half

    def _integrated(self, phi):
        """Return the mean, or None if the tails must be followed further."""
        edges = self._edges
        for _ in range(60):
            sign, log, half = self._integrand(phi, doubled(edges))
            top = log.max()
            terms = half * sign * (log - top).exp()
            fine = (terms @ WEIGHTS).reshape(-1, 2).sum(1)
            size = float((terms.abs() @ WEIGHTS).sum())
            if size == 0 or top == -math.inf:
                return 0.0
            sign, log, half = self._integrand(phi, edges)
            coarse = (half * sign * (log - top).exp()) @ WEIGHTS
            if not bool((rough := (fine - coarse).abs() > 1e-12 * size).any()):
                break
            edges = refined(edges, rough, "phi is", len(self._edges) + WAVES)
        else:
            raise ArithmeticError(
                "phi is not resolved to ten digits. Look for jumps and fast waves."
            )
        value = float(fine.sum())
        for i, (side, closed) in enumerate(zip(self.sides, self._closed, strict=True)):
            if side.wall:
                continue
            t = self._edges[-1 if i else 0] - side.sign * torch.arange(3.0).double()
            sign, log = phi(t)
            log = log + self.log_p(t) - self._slope(t)[1] - top
            if float(log[0].exp()) <= 1e-17 * size or log[0] == math.inf:
                continue
            if not closed:
                return None
            decay, before = (log[1:] - log[:-1]).tolist()
            rest = float(log[0].exp()) / decay if decay > 1e-8 else math.inf
            if rest == math.inf:
                raise ValueError(
                    f"the mean does not converge: the function grows as fast as p "
                    f"falls towards the {NAMES[i]} end; the tail indices are "
                    f"{tuple(side.tail_index for side in self.sides)}."
                )
            if rest * abs(before - decay) > 1e-11 * decay * (size + rest):
                raise ArithmeticError(
                    f"the mean is not known to ten digits: the tail towards the "
                    f"{NAMES[i]} end falls too slowly."
                )
            value += float(sign[0]) * rest
        if top > 700:
            raise ArithmeticError(f"the mean is too large for a float: e^{top:.4g}.")
        return value * math.exp(top)
