r"""First-passage times by simulation, with what discrete time does to them repaired.

A path that is looked at only every :math:`\Delta t` leaves late: it crosses between two
looks and returns, unseen.  The mean time is then too long by a relative
:math:`O(\sqrt{\Delta t})`, which no number of paths removes.  Two remedies are offered.
The shift moves the boundary inwards by :math:`0.5826\,\sigma\sqrt{\Delta t}`, with
:math:`0.5826=-\zeta(\frac12)/\sqrt{2\pi}`; the bridge asks, for every step, how likely
a Brownian bridge between its ends was to touch the boundary, and draws.

Paths that have left make room for others from a fixed list, all of which finish; to
stop at a number of arrivals would count the fast ones.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch

from sgdbook import _door, compiled
from sgdbook.engines import ENGINES, SimulationError, place, watch
from sgdbook.process import ByCoordinate, Process, Whole, draws, scheme_of
from sgdbook.simulate import _require_generator
from sgdbook.threefry import new_key

CORRECTIONS = ("shift", "bridge", "none")
SHIFT = 0.5825971579390107  # -zeta(1/2) / sqrt(2 pi)
STEPS = 10**7  # followed at most, unless told
LANES = 2**16  # paths that move at a time: they fit into the cache
EXAMPLE = 2**14  # lanes that the compiler is shown


@dataclass(frozen=True)
class Passages:
    """The result of `simulate_passage`.

    Attributes
    ----------
    times : torch.Tensor, shape (paths,), float64
        When each path left; ``longest`` for those that had not left by then.
    surface : torch.Tensor, shape (paths,), int32
        Through which surface: 1 for the first absorbing one (left before right), 2
        for the second, 0 for a path that had not left.
    places : torch.Tensor, shape (paths, d)
        Where each path was last.
    longest : float
        The time at which the simulation ended.
    """

    times: torch.Tensor
    surface: torch.Tensor
    places: torch.Tensor
    longest: float

    @property
    def censored(self):
        """Return how many paths had not left."""
        return int((self.surface == 0).sum())

    @property
    def mean(self):
        """Return the mean time, a float; all paths must have left."""
        self._require_all()
        return float(self.times.mean())

    @property
    def stderr(self):
        """Return the standard error of the mean time; all paths must have left."""
        self._require_all()
        return self.restricted_mean()[1]

    def restricted_mean(self, time=None):
        r"""Return :math:`\mathbb E\min(\tau,t)` and its standard error.

        Parameters
        ----------
        time : float, optional
            t, at most ``longest``, which it is unless told.
        """
        time = self.longest if time is None else time
        if not 0 < time <= self.longest:
            self._refuse("time must be positive", time)
        clipped = self.times.clamp(max=time)
        if len(clipped) == 1:
            raise ValueError(
                "a standard error needs at least 2 paths; got 1. Raise paths."
            )
        return float(clipped.mean()), float(clipped.std() / math.sqrt(len(clipped)))

    def rate(self):
        """Return arrivals divided by total time, and the standard error.

        The estimate of largest likelihood if the times are exponential, as they are
        for a high barrier, censored or not.
        """
        arrivals = len(self.times) - self.censored
        if not arrivals:
            raise ValueError(
                f"no path had left by t = {self.longest:g}; a rate needs one. Raise "
                "longest or paths."
            )
        rate = arrivals / float(self.times.sum())
        return rate, rate / math.sqrt(arrivals)

    def survival(self, times):
        """Return the fraction that had not left, and its standard error.

        Parameters
        ----------
        times : torch.Tensor, shape (t,)
            Floating point, from 0 to ``longest``.

        Returns
        -------
        tuple of two torch.Tensor, shape (t,), float64
        """
        _door.require_floating_tensor(times, "times")
        if not bool(((times >= 0) & (times <= self.longest)).all()):
            self._refuse("times must be at least 0", times.tolist())
        left = self.times[self.surface > 0].sort().values
        gone = torch.searchsorted(left, times.to(left), right=True)
        alive = 1 - gone.double() / len(self.times)
        return alive, (alive * (1 - alive) / len(self.times)).sqrt()

    def _require_all(self):
        if self.censored:
            raise ValueError(
                f"{self.censored} of {len(self.times)} paths had not left by t = "
                f"{self.longest:g}, so that their mean time is unknown. Raise longest, "
                "or use restricted_mean(), rate() or survival()."
            )

    def _refuse(self, what, got):
        raise ValueError(
            f"{what} and at most {self.longest:g}, when the simulation ended; got "
            f"{got}. Raise longest."
        )


def simulate_passage(
    process,
    start,
    *,
    paths,
    dt,
    generator,
    left=None,
    right=None,
    level=None,
    correction="shift",
    longest=None,
    scheme="euler-maruyama",
    engine="auto",
    guard=True,
):
    r"""Simulate the times at which paths first leave a region.

    Parameters
    ----------
    process : sgdbook.process.Process
    start : torch.Tensor, shape (d,)
        Where all paths start; its dtype and device are those of the simulation.
    paths : int
        How many; all are followed until they leave, or to ``longest``.
    dt : float
        Time step.
    generator : torch.Generator
    left, right : tuple of (str, float), optional
        In one dimension: ``("absorbing", x)`` or ``("reflecting", x)``.
    level : callable, optional
        In any dimension: a smooth function from (paths, d) to (paths,), positive in
        the region, which ends where it vanishes.
    correction : {"shift", "bridge", "none"}
        What repairs the discrete time.  The shift costs nothing; the bridge costs two
        normal numbers a step and is better where the boundary is a few steps away.
    longest : float, optional
        The time at which paths that have not left are given up, rounded up to whole
        steps; 10 million steps unless told.
    scheme : {"euler-maruyama", "platen"}
    engine : {"auto", "eager", "compiled"}
        ``"auto"`` steps eagerly and compiles when that has become long.
    guard : bool
        Whether to stop where dt is beyond the limit of stability at the start.

    Returns
    -------
    Passages

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or range, the start is not inside, or the
        region has no end.
    SimulationError
        If a path becomes infinite or NaN, or dt is beyond the limit of stability.

    References
    ----------
    Broadie, Glasserman and Kou, Mathematical Finance 7 (1997) 325 (the shift); Gobet
    and Menozzi, Stochastic Processes and their Applications 120 (2010) 130 (in any
    dimension); Gobet, ibid. 87 (2000) 167 (the bridge).

    Examples
    --------
    Brownian motion leaves (-1, 1) after 1 on average:

    >>> from sgdbook.process import Process
    >>> wiener = Process(torch.zeros_like, 1.0, dimension=1)
    >>> found = simulate_passage(
    ...     wiener, torch.zeros(1), paths=20_000, dt=0.01,
    ...     left=("absorbing", -1.0), right=("absorbing", 1.0),
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> abs(found.mean - 1) < 5 * found.stderr
    True
    """
    if not isinstance(process, Process):
        raise TypeError(
            f"process must be a Process; got {type(process).__name__}. From an SDE "
            "make one with its process()."
        )
    _door.require_floating_tensor(start, "start")
    _require_generator(generator, start)
    _door.require_positive_integer(paths, "paths")
    _door.require_number(dt, "dt", positive=True, hint="Start with 0.01.")
    _door.require_one_of(correction, CORRECTIONS, "correction", "Choose one of these.")
    _door.require_one_of(engine, ENGINES, "engine", "Leave it at 'auto'.")
    if start.ndim != 1 or len(start) != process.dimension:
        raise ValueError(
            f"start must have shape ({process.dimension},), one point for all paths; "
            f"got {tuple(start.shape)}."
        )
    if engine == "compiled" and start.dtype not in compiled.DTYPES:
        raise TypeError(
            f"compiled steps are made for float32 and float64; got {start.dtype}. "
            "Convert start."
        )
    levels, mirrors = _surfaces(process, left, right, level)
    watch(guard, process, start[None], dt)
    ends = left, right, level
    region = _Region(levels, mirrors, level is None, correction, scheme, ends)
    form = Whole(process, start[None])
    region.require_inside(form, start, dt)
    most = _most(longest, dt, region.draws(form))
    size = paths * (start.numel() * start.element_size() + 8)
    _door.require_memory(2 * size, start.device, f"{paths} paths", "Lower paths.")
    state = _State(start, paths, most)
    if engine != "compiled":
        pays = engine == "auto" and compiled.pays(start, math.inf)
        _eager(region, process, state, generator, dt, pays)
    try:
        _in_lanes(region, process, state, generator, dt)
    except compiled.CompileError as problem:
        if engine == "compiled":
            raise
        text = f"Stepping eagerly, which takes longer: {problem}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        _eager(region, process, state, generator, dt, False)
    late = 0.5 if correction == "bridge" else 0.0  # the middle of the last step
    times = (state.steps.double() - late * (state.surface > 0)) * dt
    return Passages(times, state.surface, state.x, most * dt)


class _State:
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


class _Region:
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
            # An entry of a column may be the number 0.
            column = [p * 0 + c for p, c in zip(x, form.column(x, j), strict=True)]
            column = form.positions(column)
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


def _most(longest, dt, draws):
    """Return the number of steps after which a path is given up."""
    top = (2**31 - 1) // draws  # numbers of a path are counted in 32 bits
    if longest is None:
        return min(STEPS, top)
    _door.require_number(longest, "longest", positive=True, hint="Or leave it out.")
    most = math.ceil(longest / dt * (1 - 1e-12))
    if longest < dt or most > top:
        raise ValueError(
            f"longest must be from 1 to {top} steps; got {longest:g} with dt = {dt:g}. "
            "Change one of them."
        )
    return most


def _eager(region, process, state, generator, dt, pays):
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


def _in_lanes(region, process, state, generator, dt):
    """Step in compiled chunks, paths that have left making room for others."""
    waiting = state.unfinished()
    if not len(waiting):
        return
    form = ByCoordinate(process, state.x)
    count, dtype = region.draws(form), state.x.dtype
    length = 8 if count == 1 else 4

    def chunk(x, which, steps, surface, most, key, dt):
        x, block = list(x.unbind(0)), (steps * count) >> 2
        for xi in compiled.noise(which, block, key, dtype, count, length):
            x, steps, surface = region.move(form, x, steps, surface, most, xi, dt)
        return torch.stack(x), steps, surface

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
            x, steps, surface = run(x, which, steps, surface, state.most, key, step)
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


def _surfaces(process, left, right, level):
    """Return the levels of the absorbing surfaces and the reflecting ends."""
    if level is not None:
        if left is not None or right is not None or not callable(level):
            raise ValueError(
                "give either level, a function, or left and right; got both or none."
            )
        return [level], []
    if process.dimension != 1:
        raise ValueError(
            f"left and right are for one dimension; got d = {process.dimension}. Give "
            "level, for instance lambda x: 1 - x.square().sum(1)."
        )
    levels, mirrors = [], []
    for name, end, side in (("left", left, 1), ("right", right, -1)):
        if end is None:
            continue
        if not (isinstance(end, tuple) and len(end) == 2):
            raise ValueError(
                f'{name} must be a pair such as ("absorbing", 1.0); got {end!r}.'
            )
        kind, where = end
        _door.require_one_of(
            kind, ("absorbing", "reflecting"), f"kind of the {name} end", "Choose one."
        )
        if not math.isfinite(where):
            raise ValueError(
                f"the {name} end must be finite; got {where}. Leave it out if there "
                "is none."
            )
        if kind == "reflecting":
            mirrors.append((side, where))
        else:
            levels.append(lambda x, side=side, where=where: side * (x[:, 0] - where))
    if not levels:
        raise ValueError(
            "nothing absorbs the paths. Make one end absorbing, or give level."
        )
    return levels, mirrors
