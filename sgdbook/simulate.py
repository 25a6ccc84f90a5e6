r"""Ensembles of independent paths, and observables with their standard errors.

`simulate` moves many paths of a process at once and keeps what was asked for: means
over the ensemble with standard errors, time averages of each path (independent
samples for a check), the final states, the whole history.  A process is a `Process`
(the Euler-Maruyama scheme for :math:`dX=a\,dt+B\,dW`) or a `sgdbook.sgd.SGD`.

The paths depend on generator, device, dtype, number of paths and steps, and on nothing
else: the same call with a generator in the same state returns the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sgdbook import _door

CONVENTIONS = ("ito", "stratonovich", "anti-ito")


class SimulationError(FloatingPointError):
    """A path became infinite or NaN."""


class Process:
    r"""A diffusion :math:`dX=a(X)\,dt+B(X)\,dW`, given by torch functions.

    Parameters
    ----------
    drift : callable
        :math:`a`, from (paths, d) to (paths, d).
    diffusion : float or callable
        :math:`B`.  A number: that times the identity.  A function of (paths, d) that
        returns (paths, d): a diagonal matrix; (paths, 1): the same for every
        coordinate; (paths, d, m): m independent Wiener processes.
    dimension : int
        d.
    noise_dimension : int, optional
        If given, ``diffusion(x, xi)`` is the product :math:`B(x)\,\xi` itself, with xi
        of shape (paths, m): for a matrix that is too large to form.
    convention : {"ito", "stratonovich", "anti-ito"}
        Where in the step B is taken; the drift is corrected by forward-mode
        differentiation, at the cost of d derivatives a step.  Products of the third
        kind must be Itô.
    observable : callable, optional
        Turns an observable that is no function into one of (paths, d).

    Raises
    ------
    ValueError
        If dimension or convention are out of range.

    Examples
    --------
    >>> Process(lambda x: -x, 1.0, dimension=2)
    Process(d = 2, convention 'ito')
    """

    def __init__(
        self,
        drift,
        diffusion,
        *,
        dimension,
        noise_dimension=None,
        convention="ito",
        observable=None,
    ):
        _door.require_positive_integer(dimension, "dimension")
        _door.require_one_of(convention, CONVENTIONS, "convention", "SGD is 'ito'.")
        if noise_dimension is not None:
            _door.require_positive_integer(noise_dimension, "noise_dimension")
            if convention != "ito":
                raise ValueError(
                    "a diffusion that is given as a product must be 'ito'; got "
                    f"{convention!r}. Add the correction to the drift yourself."
                )
        if not callable(diffusion):
            _door.require_number(
                diffusion, "diffusion", positive=False, hint="Pass a function of x."
            )
        self.drift, self.diffusion = drift, diffusion
        self.dimension, self.noise_dimension = dimension, noise_dimension
        self.convention, self.observable = convention, observable

    def __repr__(self):
        """Say dimension and convention."""
        return f"Process(d = {self.dimension}, convention {self.convention!r})"

    def ito_drift(self, x):
        """Return the drift of the same process in Itô's convention.

        Parameters
        ----------
        x : torch.Tensor, shape (paths, d)

        Returns
        -------
        torch.Tensor, shape (paths, d)
        """
        drift = self.drift(x)
        if self.convention == "ito" or not callable(self.diffusion):
            return drift

        def matrix(y):
            B = self.diffusion(y)
            if B.ndim == y.ndim:
                B = torch.diag_embed(B.expand(y.shape))
            return B

        B = matrix(x)
        total = torch.zeros_like(x)
        for j in range(self.dimension):
            e_j = torch.zeros_like(x)
            e_j[:, j] = 1
            slope = torch.func.jvp(matrix, (x,), (e_j,))[1]
            total += (slope * B[:, j, None, :]).sum(-1)
            if self.convention == "anti-ito":
                total += (B * slope[:, j, None, :]).sum(-1)
        return drift + total / 2

    def steps(self, x, generator, dt):
        """Yield one Euler-Maruyama step after the other: time passed, new positions.

        Parameters
        ----------
        x : torch.Tensor, shape (paths, d)
            Where the paths start.
        generator : torch.Generator
        dt : float
            Time step.

        Yields
        ------
        tuple of float and torch.Tensor, shape (paths, d)
        """
        _door.require_number(
            dt, "dt", positive=True, hint="An SDE needs a time step; start with 0.01."
        )
        like = {"dtype": x.dtype, "device": x.device, "generator": generator}
        root = math.sqrt(dt)
        while True:
            B = self.diffusion(x) if self._forms_matrix else self.diffusion
            general = isinstance(B, torch.Tensor) and B.ndim == 3
            m = B.shape[2] if general else self.noise_dimension or self.dimension
            xi = torch.randn(len(x), m, **like)
            if self.noise_dimension:
                kick = self.diffusion(x, xi)
            else:
                kick = (B @ xi[..., None])[..., 0] if general else B * xi
            x = x + dt * self.ito_drift(x) + root * kick
            yield dt, x

    @property
    def _forms_matrix(self):
        return callable(self.diffusion) and not self.noise_dimension


@dataclass(frozen=True)
class Observable:
    """What was recorded of one observable.

    Attributes
    ----------
    mean, stderr : torch.Tensor, shape (records,)
        Mean over the paths at each recorded time, and its standard error.
    time_average : torch.Tensor, shape (paths,)
        Mean over the recorded times of each path: independent samples.
    """

    mean: torch.Tensor
    stderr: torch.Tensor
    time_average: torch.Tensor


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
    history : torch.Tensor, shape (records, paths, d), or None
        The recorded states, if they were kept.
    """

    states: torch.Tensor
    times: torch.Tensor
    observables: dict[str, Observable]
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
            f"Ensemble({paths} paths, d = {d}, {len(self.times)} records, observables "
            f"{sorted(self.observables)})"
        )


def simulate(
    process,
    start,
    *,
    steps,
    generator,
    dt=None,
    paths=None,
    observables=None,
    every=1,
    burn_in=0,
    keep=False,
):
    r"""Move an ensemble of independent paths, and record observables.

    Parameters
    ----------
    process : Process or sgdbook.sgd.SGD
        What moves the paths; ``SDE.process()`` makes one from SymPy.
    start : torch.Tensor, shape (d,) or (paths, d)
        Where the paths start; its dtype and device are those of the simulation.
    steps : int
        Number of steps.
    generator : torch.Generator
        On the device of ``start``.
    dt : float
        Time step of an SDE; SGD has its learning rate instead.
    paths : int, optional
        Number of paths, if ``start`` is one point.
    observables : dict of str to callable, optional
        Functions from (paths, d) to (paths,); for a process from SymPy also
        expressions in its variables.
    every, burn_in : int
        Record at the steps burn_in, burn_in + every, ...; step 0 is the start.
    keep : bool
        Whether to keep the recorded states; they need records x paths x d numbers.

    Returns
    -------
    Ensemble

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or range.
    SimulationError
        If a path becomes infinite or NaN; names the path, the step and the likely
        cause.

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
    x = _start(start, paths, process)
    _door.require_positive_integer(steps, "steps")
    _door.require_positive_integer(every, "every")
    if not _door.is_integer(burn_in) or not 0 <= burn_in <= steps:
        raise ValueError(
            f"burn_in must be an integer from 0 to steps = {steps}; got {burn_in!r}."
        )
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator; got {type(generator).__name__}. "
            "Make one with sgdbook.devices.generator(seed, device)."
        )
    if generator.device.type != x.device.type:
        raise ValueError(
            f"generator lives on {generator.device}, start on {x.device}. Make both "
            "on one device."
        )
    functions = {
        name: _function(f, name, process) for name, f in (observables or {}).items()
    }
    _require_finite(x, 0, x, 0.0)
    moves = process.steps(x, generator, dt)
    times, means, history = [], {name: [] for name in functions}, []
    totals = {name: 0.0 for name in functions}
    time, length = 0.0, 0.0
    for step in range(steps + 1):
        if step:
            before = x
            length, x = next(moves)
            time += length
            _require_finite(x, step, before, length)
        if step < burn_in or (step - burn_in) % every:
            continue
        times.append(time)
        for name, function in functions.items():
            values = _values(function(x), name, x)
            means[name].append(_mean_and_error(values))
            totals[name] = totals[name] + values
        if keep:
            history.append(x)
    recorded = {
        name: Observable(
            *torch.stack(means[name]).T, time_average=totals[name] / len(times)
        )
        for name in functions
    }
    return Ensemble(
        x,
        torch.tensor(times, dtype=torch.float64),
        recorded,
        torch.stack(history) if keep else None,
    )


def _start(start, paths, process):
    """Return the starting points, shape (paths, d)."""
    _door.require_floating_tensor(start, "start")
    if paths is not None:
        _door.require_positive_integer(paths, "paths")
    if start.ndim == 1 and paths is not None:
        start = start.expand(paths, -1)
    if start.ndim != 2 or paths not in (None, len(start)):
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


def _mean_and_error(values):
    """Return mean and standard error, shape (2,), of independent values."""
    if len(values) == 1:
        return torch.stack([values[0], torch.full_like(values[0], math.inf)])
    return torch.stack([values.mean(), values.std() / math.sqrt(len(values))])


def _require_finite(x, step, before, length):
    """Stop at a path that is infinite or NaN."""
    if bool(torch.isfinite(x).all()):
        return
    path = int((~torch.isfinite(x).all(dim=1)).nonzero()[0])
    if step == 0:
        raise ValueError(
            f"start must be finite; path {path} is {x[path].tolist()}. Look at where "
            "it was made."
        )
    last = [f"{v:.3g}" for v in before[path, :4].tolist()]
    last += ["..."] if x.shape[1] > 4 else []
    raise SimulationError(
        f"path {path} of {len(x)} became infinite or NaN at step {step}, from "
        f"({', '.join(last)}). The likely cause is the step {length:g}: it is too "
        "large for the drift there. Lower it, or start closer."
    )
