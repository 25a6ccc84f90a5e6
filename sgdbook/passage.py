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
from sgdbook._lanes import Region, State, eager, in_lanes
from sgdbook.engines import ENGINES, watch
from sgdbook.process import Process
from sgdbook.schemes import Whole, draws, evaluations

CORRECTIONS = ("shift", "bridge", "none")
STEPS = 10**7  # followed at most, unless told


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
    _door.require_generator(generator, start, "start")
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
    region = Region(levels, mirrors, level is None, correction, scheme, ends)
    form = Whole(process, start[None])
    region.require_inside(form, start, dt)
    most = _most(longest, dt, region.draws(form))
    size = paths * (start.numel() * start.element_size() + 8)
    _door.require_memory(2 * size, start.device, f"{paths} paths", "Lower paths.")
    state = State(start, paths, most)
    if engine != "compiled":
        work = evaluations(form, scheme) + region.draws(form) - draws(form, scheme)
        pays = engine == "auto" and compiled.pays(start, math.inf, work)
        eager(region, process, state, generator, dt, pays)
    try:
        in_lanes(region, process, state, generator, dt)
    except compiled.CompileError as problem:
        if engine == "compiled":
            raise
        text = f"Stepping eagerly, which takes longer: {problem}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        eager(region, process, state, generator, dt, False)
    late = 0.5 if correction == "bridge" else 0.0  # the middle of the last step
    times = (state.steps.double() - late * (state.surface > 0)) * dt
    return Passages(times, state.surface, state.x, most * dt)


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
