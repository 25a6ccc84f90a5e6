r"""Ensembles of independent paths, and observables with their standard errors.

`simulate` moves many paths of a process at once and keeps what was asked for: means
over the ensemble with standard errors, time averages of each path (independent
samples for a check), the final states, the whole history.  A process is a
`sgdbook.process.Process` or a `sgdbook.sgd.SGD`.

There are two engines.  The eager one draws from the generator at every step; its paths
depend on generator, device, dtype, number of paths and steps.  The compiled one
(`sgdbook.compiled`) draws a key from it, once; then path i depends on key, dtype and
machine alone.  The same call gives the same numbers as long as the engine is the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from tqdm import tqdm

from sgdbook import _door
from sgdbook.engines import SimulationError, choose, place, watch
from sgdbook.process import Process, require_step
from sgdbook.schemes import Whole


@dataclass(frozen=True)
class Observable:
    """What was recorded of one observable.

    Attributes
    ----------
    mean : torch.Tensor, shape (records,)
        Mean over the paths at each recorded time.
    variance : torch.Tensor, shape (records,)
        Variance over the paths; NaN if there is one path.
    paths : int
    time_average : torch.Tensor, shape (paths,)
        Mean over the recorded times of each path: independent samples.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    paths: int
    time_average: torch.Tensor

    @property
    def stderr(self):
        """Return the standard error of the mean, shape (records,)."""
        if self.paths == 1:
            raise ValueError(
                "a standard error needs at least 2 paths; got an ensemble of 1. Raise "
                "paths, or use the time average of one long path with care."
            )
        return (self.variance / self.paths).sqrt()


@dataclass(frozen=True)
class Ensemble:
    """The result of `simulate`; ``ensemble["name"]`` is an `Observable`.

    Attributes
    ----------
    states : torch.Tensor, shape (paths, d)
        Where the paths end.
    times : torch.Tensor, shape (records,)
        The recorded times, float64 on the CPU.
    observables : dict of str to Observable
    engine : str
        Which engine moved the paths.
    history : torch.Tensor, shape (records, paths, d), or None
        The recorded states, if they were kept.
    """

    states: torch.Tensor
    times: torch.Tensor
    observables: dict[str, Observable]
    engine: str
    history: torch.Tensor | None = None

    def __getitem__(self, name):
        """Return the observable of that name."""
        if name not in self.observables:
            raise KeyError(
                f"No observable {name!r} was recorded; there are "
                f"{sorted(self.observables)}. Name it in observables=."
            )
        return self.observables[name]

    def __repr__(self):
        """Say how many paths, records and observables there are."""
        paths, d = self.states.shape
        return (
            f"Ensemble({paths} paths, d = {d}, {_records(self.times)}, observables "
            f"{sorted(self.observables)}, engine {self.engine!r})"
        )


def simulate(
    process,
    start,
    *,
    generator,
    steps=None,
    dt=None,
    time=None,
    paths=None,
    observables=None,
    every=1,
    burn_in=0,
    keep=False,
    scheme=None,
    engine="auto",
    guard=True,
):
    r"""Move an ensemble of independent paths, and record observables.

    Parameters
    ----------
    process : sgdbook.process.Process or sgdbook.sgd.SGD
        What moves the paths; ``SDE.process()`` makes one from SymPy.
    start : torch.Tensor, shape (d,) or (paths, d)
        Where the paths start; its dtype and device are those of the simulation.
    generator : torch.Generator
        On the device of ``start``.
    steps : int
        Number of steps.
    dt : float
        Time step of an SDE; SGD has its learning rate instead.
    time : float, optional
        In place of ``steps``: how long, a multiple of dt.
    paths : int, optional
        Number of paths, if ``start`` is one point.
    observables : dict of str to callable, optional
        Functions from (paths, d) to (paths,); for a process from SymPy also
        expressions in its variables.
    every, burn_in : int
        Record at the steps burn_in, burn_in + every, ...; step 0 is the start.  If
        there is nothing to record, only the end is.
    keep : bool
        Whether to keep the recorded states; they need records x paths x d numbers.
    scheme : {"euler-maruyama", "platen"}, optional
        Weak order 1 (the default), or 2 at two to three times the cost for additive
        noise, :math:`2m^2` evaluations of B for m Wiener processes else.
    engine : {"auto", "eager", "compiled"}
        ``"auto"`` compiles where eager steps would take longer than half a minute, and
        ``every``, ``burn_in`` and ``steps`` are multiples of 4; compiling takes ten to
        thirty seconds.
    guard : bool
        Whether to stop if dt is beyond the limit of stability at a starting point, or
        at more than a twentieth of the final ones; looked at for 64 points, d to 16.

    Returns
    -------
    Ensemble

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.
    MemoryError
        If the paths, or the history that is to be kept, do not fit.
    SimulationError
        If a path becomes infinite or NaN, naming the path, the step and the likely
        cause; or if dt is beyond the limit of stability.

    Examples
    --------
    The Ornstein-Uhlenbeck process :math:`dX=-X\,dt+\sqrt2\,dW` has variance 1; the
    scheme has :math:`1/(1-\Delta t/2)`:

    >>> process = Process(lambda x: -x, 2**0.5, dimension=1)
    >>> run = simulate(
    ...     process, torch.zeros(1), steps=400, dt=0.1, paths=2000, burn_in=100,
    ...     observables={"square": lambda x: x[:, 0] ** 2},
    ...     generator=torch.Generator().manual_seed(0),
    ... )
    >>> samples = run["square"].time_average
    >>> bool((samples.mean() - 1 / 0.95).abs() < 5 * samples.std() / 2000**0.5)
    True
    """
    _door.require_process(process)
    steps = _number_of_steps(steps, time, dt)
    _door.require_positive_integer(every, "every")
    if not _door.is_integer(burn_in) or not 0 <= burn_in <= steps:
        raise ValueError(
            f"burn_in must be an integer from 0 to steps = {steps}; got {burn_in!r}."
        )
    x = _start(start, paths, process)
    _door.require_generator(generator, x, "start")
    functions = {
        name: _function(f, name, process) for name, f in (observables or {}).items()
    }
    records = range(burn_in, steps + 1, every) if functions or keep else (steps,)
    if keep:
        _door.require_memory(
            len(records) * x.numel() * x.element_size(),
            x.device,
            f"the history of {len(records)} records, {len(x)} paths, d = {x.shape[1]}",
            "Raise every, lower paths, or leave keep out and use observables.",
        )
    if isinstance(process, Process):
        require_step(dt)
    _require_finite_start(process, x)
    watch(guard, process, x, dt)
    moves = choose(engine, process, x, generator, dt, scheme, [*records, steps])
    variance, means = {name: [] for name in functions}, {name: [] for name in functions}
    times, totals = [], {name: 0.0 for name in functions}
    history = x.new_empty(len(records), *x.shape) if keep else None
    with tqdm(total=steps, delay=2, disable=None, leave=False, unit="step") as bar:
        for stop in sorted({*records, steps}):
            bar.update(stop - moves.step)
            x = moves.to(stop)
            if stop not in records:
                continue
            times.append(moves.time)
            for name, function in functions.items():
                values = _values(function(x), name, x)
                means[name].append(values.mean())
                variance[name].append(_variance(values))
                totals[name] = totals[name] + values
            if keep:
                history[len(times) - 1] = x
    watch(guard, process, x, dt, share=0.05)
    recorded = {
        name: Observable(
            torch.stack(means[name]),
            torch.stack(variance[name]),
            len(x),
            totals[name] / len(times),
        )
        for name in functions
    }
    return Ensemble(
        x,
        torch.tensor(times, dtype=torch.float64),
        recorded,
        moves.name,
        history,
    )


def _number_of_steps(steps, time, dt):
    """Return the number of steps, given as such or as a time."""
    if (steps is None) == (time is None):
        raise ValueError(
            f"give either steps or time; got steps = {steps!r}, time = {time!r}."
        )
    if time is not None:
        hint = "Give time and dt, or steps."
        _door.require_number(time, "time", positive=True, hint=hint)
        _door.require_number(dt, "dt", positive=True, hint=hint)
        steps = round(time / dt)
        if steps < 1 or abs(steps * dt - time) > 1e-9 * time:
            raise ValueError(
                f"time must be a multiple of dt; got {time:g} = {time / dt:.6g} x "
                f"{dt:g}. Take dt = {time / max(1, math.ceil(time / dt)):.12g}."
            )
    _door.require_positive_integer(steps, "steps")
    return steps


def _start(start, paths, process):
    """Return the starting points, shape (paths, d)."""
    _door.require_floating_tensor(start, "start")
    if paths is not None:
        _door.require_positive_integer(paths, "paths")
    if start.ndim == 1 and paths is not None:
        start = start.expand(paths, -1)
    if start.ndim != 2 or not len(start) or paths not in (None, len(start)):
        raise ValueError(
            f"start must have shape (paths, d), or (d,) together with paths=; got "
            f"{tuple(start.shape)} and paths = {paths}. For one variable that starts "
            "at 0 pass torch.zeros(1) and the number of paths."
        )
    d = process.dimension
    if d is not None and start.shape[1] != d:
        raise ValueError(
            f"start must have d = {d} coordinates; got {start.shape[1]}. Give one for "
            "every variable of the process."
        )
    size = start.numel() * start.element_size()
    _door.require_memory(
        8 * size,
        start.device,
        f"an ensemble of {len(start)} paths with d = {start.shape[1]}",
        "Lower paths, or use float32.",
    )
    return start.clone()


def _function(observable, name, process):
    """Return an observable as a function of (paths, d)."""
    if callable(observable):
        return observable
    if process.observable is None:
        raise TypeError(
            f"the observable {name!r} must be a function of (paths, d); got "
            f"{type(observable).__name__}. Expressions need a process made from SymPy."
        )
    return process.observable(observable)


def _values(values, name, x):
    """Check what an observable returned."""
    if not isinstance(values, torch.Tensor) or values.shape != x.shape[:1]:
        got = tuple(values.shape) if isinstance(values, torch.Tensor) else values
        raise ValueError(
            f"the observable {name!r} must return shape (paths,) = ({len(x)},); got "
            f"{got}. Reduce the coordinates, for instance x[:, 0] or x.sum(dim=1)."
        )
    if not bool(torch.isfinite(values).all()):
        raise SimulationError(
            f"the observable {name!r} is infinite or NaN on path "
            f"{int((~torch.isfinite(values)).nonzero()[0])}, whose state is finite. "
            "Look at where the observable is defined."
        )
    return values


def _variance(values):
    """Return the variance, NaN if there is one value."""
    return values.var() if len(values) > 1 else values.new_full((), math.nan)


def _require_finite_start(process, x):
    """Stop where a starting point, or drift or diffusion there, is not finite."""
    if not bool(torch.isfinite(x).all()):
        path = int((~torch.isfinite(x).all(dim=1)).nonzero()[0])
        raise ValueError(
            f"start must be finite; path {path} is {x[path].tolist()}. Look at where "
            "it was made."
        )
    if not isinstance(process, Process):
        return
    Whole(process, x)  # stops where the diffusion has another shape
    drift = process.ito_drift(x)
    if drift.shape != x.shape:
        raise ValueError(
            f"drift must return shape (paths, d) = {tuple(x.shape)}; got "
            f"{tuple(drift.shape)}. Keep both axes, for instance x[:, :1]."
        )
    parts = {"drift": drift}
    if callable(process.diffusion) and not process.noise_dimension:
        parts["diffusion"] = process.diffusion(x)
    for name, values in parts.items():
        if values.dtype != x.dtype:
            raise TypeError(
                f"{name} must return {x.dtype} like start; got {values.dtype}. Convert "
                "start, or the tensors that the function uses."
            )
        bad = (~torch.isfinite(values.reshape(len(values), -1)).all(dim=1)).nonzero()
        if len(bad):
            raise ValueError(
                f"{name} must be finite where the paths start; at {place(x, bad[0])} "
                "it is not. Look for a division by zero or the root of a negative "
                "number."
            )


def _records(times):
    """Say how many records there are."""
    return f"{len(times)} record{'' if len(times) == 1 else 's'}"
