"""Paths on their way out of a region: one step, and the loops around it."""

from __future__ import annotations

import math

import torch

from sgdbook import compiled
from sgdbook.engines import SimulationError, place
from sgdbook.schemes import ByCoordinate, Whole, draws, scheme_of
from sgdbook.threefry import new_key

SHIFT = 0.5825971579390107  # -zeta(1/2) / sqrt(2 pi)
LANES = 2**16  # paths that move at a time: they fit into the cache
EXAMPLE = 2**14  # lanes that the compiler is shown


class State:
    """Position, steps done and surface reached (0: none yet) of every path."""

    def __init__(self, start, paths, most):
        self.x = start.expand(paths, -1).clone()
        self.steps = torch.zeros(paths, dtype=torch.int32, device=start.device)
        self.surface = torch.zeros_like(self.steps)
        self.most = torch.tensor(most, dtype=torch.int32, device=start.device)

    def unfinished(self):
        """Return the numbers of the paths that go on."""
        on = (self.surface == 0) & (self.steps < self.most)
        return on.nonzero()[:, 0].to(torch.int32)

    def ended(self, which, x, steps, surface):
        """Say which of some paths have ended; stop where one is not finite."""
        if not bool(torch.isfinite(x).all()):
            bad = int((~torch.isfinite(x).all(dim=1)).nonzero()[0])
            raise SimulationError(
                f"path {int(which[bad])} became infinite or NaN within "
                f"{int(steps[bad])} steps. Lower dt, or close the region with a "
                "reflecting end."
            )
        return (surface > 0) | (steps >= self.most)

    def put(self, which, x, steps, surface):
        """Write back some paths."""
        self.x[which], self.steps[which], self.surface[which] = x, steps, surface


class Region:
    """The surfaces that absorb and the ends that reflect, in either form."""

    def __init__(self, levels, mirrors, line, correction, scheme, key):
        self.levels, self.mirrors, self.line = levels, mirrors, line
        self.correction = correction
        self.key = "passage", key, correction, scheme
        self.scheme, self.step = scheme, scheme_of(scheme)

    def draws(self, form):
        """Return how many normal numbers a path takes a step."""
        bridge = self.correction == "bridge"
        return draws(form, self.scheme) + 2 * bridge * len(self.levels)

    def move(self, form, x, steps, surface, most, xi, dt):
        """Take one step with the paths that are still inside."""
        count = draws(form, self.scheme)
        new = self.step(form, x, form.part(xi, 0, count), dt)
        for side, end in self.mirrors:
            new = [end + side * (p - end).abs() for p in new]
        going = (surface == 0) & (steps < most)
        for number, level in enumerate(self.levels, start=1):
            distance = level(form.positions(new))
            variance = None if self.correction == "none" else self.rate(form, level, x)
            if self.correction == "shift":
                distance = distance - SHIFT * (variance * dt).sqrt()
            hit = ~(distance > 0)  # NaN is not inside
            if self.correction == "bridge":
                # A bridge touches with probability exp(-exponent); the sum of two
                # squared normal numbers is twice an exponential one.
                before = level(form.positions(x))
                exponent = 2 * before * distance / (variance * dt)
                a, b = form.numbers(xi)[count + 2 * number - 2 : count + 2 * number]
                hit = hit | ((a * a + b * b).reshape(hit.shape) / 2 > exponent)
            surface = torch.where(going & (surface == 0) & hit, number, surface)
        keep = going if x[0].ndim == 1 else going[:, None]
        x = [torch.where(keep, q, p) for p, q in zip(x, new, strict=True)]
        return x, steps + going.to(torch.int32), surface.to(torch.int32)

    def rate(self, form, level, x):
        """Return the variance rate of a level along the noise, shape (paths,)."""
        if self.line:
            columns = [form.column(x, j)[0] for j in range(form.noises)]
            return sum(c * c for c in columns).reshape(-1)
        at, total = form.positions(x), 0.0
        for j in range(form.noises):
            column = form.positions(form.column(x, j))
            total = total + torch.func.jvp(level, (at,), (column,))[1].square()
        return total

    def require_inside(self, form, start, dt):
        """Stop where the start is not inside by more than the shift."""
        x = [start[None]]
        for side, end in self.mirrors:
            if not side * (float(start[0]) - end) >= 0:
                raise ValueError(
                    f"the start {place(start[None], 0)} must not lie beyond the "
                    f"reflecting end at {end:g}. Start elsewhere."
                )
        for level in self.levels:
            distance = level(form.positions(x))
            if distance.shape != (1,):
                raise ValueError(
                    f"level must return shape (paths,); got {tuple(distance.shape)} "
                    "for one path. Reduce the coordinates."
                )
            moved = SHIFT * math.sqrt(dt * float(self.rate(form, level, x)))
            moved = moved if self.correction == "shift" else 0.0
            if not float(distance) > moved:
                raise ValueError(
                    f"the start {place(start[None], 0)} must lie inside the region by "
                    f"more than {moved:.3g}, the shift of the boundary; its level is "
                    f"{float(distance):.3g}. Lower dt, or start elsewhere."
                )


def eager(region, process, state, generator, dt, pays):
    """Step until all have ended or, if compiling pays, until it would have."""
    spent, limit = 0.0, compiled.WORTH if pays else math.inf
    which = state.unfinished()
    x, steps, surface = [state.x[which]], state.steps[which], state.surface[which]
    form = Whole(process, state.x)
    like = {"dtype": state.x.dtype, "device": state.x.device, "generator": generator}
    count = region.draws(form)
    while len(which) and spent < limit:
        for _ in range(16):
            xi = torch.randn(len(which), count, **like)
            x, steps, surface = region.move(form, x, steps, surface, state.most, xi, dt)
        spent += compiled.eager_seconds(x[0], 16) if pays else 0
        over = state.ended(which, x[0], steps, surface)
        if 16 * int(over.sum()) > len(which) or spent >= limit:
            state.put(which, x[0], steps, surface)
            which, x = which[~over], [x[0][~over]]
            steps, surface = steps[~over], surface[~over]


def in_lanes(region, process, state, generator, dt):
    """Step in compiled chunks, paths that have left making room for others."""
    waiting = state.unfinished()
    if not len(waiting):
        return
    form = ByCoordinate(process, state.x)
    count, dtype = region.draws(form), state.x.dtype
    length = compiled.chunk_length((), count)

    def chunk(x, which, steps, surface, most, key, dt):
        now = list(x.unbind(0)), steps, surface
        block = (steps * count) >> 2
        for xi in compiled.noise(which, block, key, dtype, count, length):
            now = region.move(form, *now, most, xi, dt)
        moved = torch.stack(now[0]), *now[1:]
        return [
            old.copy_(new) for old, new in zip((x, steps, surface), moved, strict=True)
        ]

    key = new_key(generator)
    step = torch.tensor(dt, dtype=dtype, device=state.x.device)
    which, waiting = waiting[:LANES].clone(), waiting[LANES:]
    # What is compiled is for two lanes or more, and made for as many as the example's.
    some = which.repeat(EXAMPLE // len(which) + 1)
    rest = state.steps[some], state.surface[some], state.most, key, step
    example = compiled.by_coordinate(state.x[some]), some, *rest
    what = *region.key, length, dtype, state.x.device.type
    run = compiled.compile_chunk(chunk, example, process.compiled, what)
    if len(which) == 1:
        which = which.repeat(2)  # twins do not differ
    x = compiled.by_coordinate(state.x[which])
    steps, surface = state.steps[which], state.surface[which]
    rounds = 1
    while True:
        for _ in range(rounds):
            run(x, which, steps, surface, state.most, key, step)
        over = state.ended(which, x.T, steps, surface).nonzero()[:, 0]
        few = 16 * len(over) <= len(which)
        rounds = min(2 * rounds, 64) if few else -(-rounds // 2)
        if few:
            continue
        state.put(which[over], x[:, over].T, steps[over], surface[over])
        fresh, waiting = waiting[: len(over)], waiting[len(over) :]
        lanes, empty = over[: len(fresh)], over[len(fresh) :]
        which[lanes], x[:, lanes] = fresh, state.x[fresh].T
        steps[lanes], surface[lanes] = state.steps[fresh], state.surface[fresh]
        if len(empty) and len(which) - len(empty) > 1:
            keep = torch.ones(len(which), dtype=torch.bool, device=x.device)
            keep[empty] = False
            x, which = compiled.by_coordinate(x.T[keep]), which[keep]
            steps, surface = steps[keep], surface[keep]
        elif len(empty) == len(which):
            return
