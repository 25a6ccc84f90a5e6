"""The engines that move an ensemble, and the looks at whether they may be trusted.

The eager engine takes one step after the other, the compiled one chunks of steps from
`sgdbook.compiled`.  Both stop at the path and the step where a position is no longer
finite.
"""

from __future__ import annotations

import warnings

import torch

from sgdbook import _door, compiled
from sgdbook.process import Process, stability_limit
from sgdbook.schemes import ByCoordinate, Whole, draws, evaluations

ENGINES = ("auto", "eager", "compiled")
LOOK = 1024  # compiled steps between two looks for NaN


class SimulationError(FloatingPointError):
    """A path became infinite or NaN, or the step is too large to trust the paths."""


class Eager:
    """Steps drawn from the generator, one after the other."""

    name = "eager"

    def __init__(self, process, x, generator, dt, scheme):
        options = {} if scheme is None else {"scheme": scheme}
        self.moves = process.steps(x, generator, dt, **options)
        self.process, self.x, self.step, self.time = process, x, 0, 0.0

    def to(self, stop):
        """Return the positions after so many steps."""
        while self.step < stop:
            before = self.x
            length, self.x = next(self.moves)
            self.step += 1
            self.time += length
            if not bool(torch.isfinite(self.x).all()):
                path = int((~torch.isfinite(self.x).all(dim=1)).nonzero()[0])
                raise explosion(self.process, before, path, self.step, length)
        return self.x


class Compiled:
    """Steps in compiled chunks."""

    def __init__(self, process, x, generator, dt, scheme, stops):
        scheme = scheme or "euler-maruyama"
        form = ByCoordinate(process, x)
        length = compiled.chunk_length(stops, draws(form, scheme))
        if not length:
            raise ValueError(
                "compiled steps come in fours: every, burn_in and steps must be "
                f"multiples of 4; got records or an end at the steps "
                f"{[stop for stop in stops if stop % 4][:3]}. "
                "Change them, or use engine='eager'."
            )
        self.chunks = compiled.CompiledSteps(form, x, generator, dt, scheme, length)
        self.process, self.dt, self.step = process, dt, 0
        self.x = compiled.by_coordinate(x)
        self.name = f"compiled, {length} steps a chunk"

    @property
    def time(self):
        """Return the time passed."""
        return self.step * self.dt

    def to(self, stop):
        """Return the positions after so many steps."""
        while self.step < stop:
            count = min(LOOK, stop - self.step)
            x = self.chunks.advance(self.x, self.step, count)
            if not bool(torch.isfinite(x).all()):
                path = int((~torch.isfinite(x).all(dim=0)).nonzero()[0])
                before, passed = self.chunks.retrace(self.x, self.step, count, path)
                at = self.step + passed
                raise explosion(self.process, before, path, at, self.dt, x.shape[1])
            self.x, self.step = x, self.step + count
        return self.x.T


def choose(engine, process, x, generator, dt, scheme, stops):
    """Return the engine that moves the paths."""
    _door.require_one_of(engine, ENGINES, "engine", "Leave it at 'auto'.")
    sde = isinstance(process, Process)
    if not sde and (engine == "compiled" or scheme is not None):
        raise ValueError(
            f"{process!r} steps by itself: it has no scheme and no compiled form. "
            "Leave scheme and engine out."
        )
    kind = scheme or "euler-maruyama"
    aligned = all(stop % 4 == 0 for stop in stops)
    state = generator.get_state()
    if engine == "compiled" or (
        engine == "auto"
        and sde
        and aligned
        and len(x) > 1
        and compiled.pays(x, stops[-1], evaluations(Whole(process, x), kind))
    ):
        try:
            return Compiled(process, x, generator, dt, scheme, stops)
        except compiled.CompileError as problem:
            if engine == "compiled":
                raise
            warnings.warn(
                f"Stepping eagerly, which takes longer: {problem}",
                RuntimeWarning,
                stacklevel=3,
            )
            generator.set_state(state)
    return Eager(process, x, generator, dt, scheme)


def watch(guard, process, x, dt, share=0.0):
    """Stop where the step is beyond the limit of stability, at more than a share."""
    if not guard or not isinstance(process, Process) or x.shape[1] > 16:
        return
    limit, path = stability_limit(process, x, share)
    if dt is not None and dt > 1.01 * limit:
        raise SimulationError(
            f"the step dt = {dt:g} must be below {limit:.3g}, the limit of stability "
            f"of explicit schemes at {place(x, path)}: beyond it the paths obey the "
            "scheme and not the equation. Lower dt, or pass guard=False if that is "
            "what you study."
        )


def explosion(process, before, path, step, length, paths=None):
    """Return the error of a path that became infinite or NaN."""
    x = before[path] if paths is None else before
    cause = (
        f"the step {length:g}: it is too large for the drift there. Lower it, or "
        "start closer."
    )
    formed = isinstance(process, Process) and not process.noise_dimension
    if formed and callable(process.diffusion):
        if not bool(torch.isfinite(process.diffusion(x[None])).all()):
            cause = (
                "the diffusion, which is not finite there. Look for the root of a "
                "negative number."
            )
    return SimulationError(
        f"path {path} of {paths or len(before)} became infinite or NaN at step {step}, "
        f"from {place(x[None], 0)}. The likely cause is {cause}"
    )


def place(x, path):
    """Return a position in words."""
    shown = [f"{v:.3g}" for v in x[int(path), :4].tolist()]
    return f"({', '.join(shown + ['...'] * (x.shape[1] > 4))})"
