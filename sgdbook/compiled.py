r"""Many steps in one kernel: the compiled form of a process.

Eagerly, every addition of a step is a pass over memory, and random numbers cost more
than all the rest.  Here some steps in a row, random numbers included, become one loop
over the paths that `torch.compile` writes in C++ or, on a GPU, in Triton: positions
stay in registers from the first step to the last.  The noise is that of
`sgdbook.threefry`: path i at step k gets the same numbers in every ensemble.
"""

from __future__ import annotations

import operator
import sys

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from sgdbook.schemes import draws, scheme_of
from sgdbook.threefry import new_key, normals

NUMBERS = 8
DTYPES = (torch.float32, torch.float64)
# Eager time in seconds: a step, and a normal number.  Measured, rounded; what hangs on
# them is only whether compiling for ten to thirty seconds pays.
_EAGER = {"cpu": (3e-5, 4e-9), "cuda": (1e-4, 1e-11)}
WORTH = 30.0


def chunk_length(stops, draws):
    """Return how many steps a chunk has, so that it ends at every stop.

    Parameters
    ----------
    stops : sequence of int
        Steps at which something is recorded, and the last.
    draws : int
        Normal numbers a step; the more, the shorter the chunk, which is compiled.

    Returns
    -------
    int
        8 or 4, so that the noise comes in whole blocks; 0 if none divides all
        stops.
    """
    lengths = [k for k in (8, 4) if k * draws <= NUMBERS or k == 4]
    return next((k for k in lengths if all(stop % k == 0 for stop in stops)), 0)


def eager_seconds(x, steps):
    """Return about how long eager steps take, for positions (paths, d)."""
    a_step, a_number = _EAGER[x.device.type]
    return steps * (a_step + x.numel() * a_number)


def pays(x, steps, evaluations):
    """Say whether eager steps would take much longer than compiling.

    Compiling takes the longer, the more often a step draws noise and evaluates drift
    and diffusion; beyond 20 times it takes minutes.
    """
    known = x.dtype in DTYPES and x.device.type in _EAGER
    return known and evaluations <= 20 and eager_seconds(x, steps) > WORTH


class CompileError(RuntimeError):
    """The steps of a process could not be compiled."""


class CompiledSteps:
    """Steps of a process, in chunks that are compiled when first needed.

    Parameters
    ----------
    form : sgdbook.schemes.ByCoordinate
    x : torch.Tensor, shape (paths, d)
        float32 or float64.
    generator : torch.Generator
        Gives the key; advances by one draw.
    dt : float
    scheme : str
        As in `sgdbook.simulate.simulate`.
    length : int
        Steps a chunk, a multiple of 4.

    Raises
    ------
    TypeError, ValueError
        If the dtype is another, or there is one path only.
    CompileError
        If there is no compiler, or it cannot deal with drift or diffusion.
    """

    def __init__(self, form, x, generator, dt, scheme, length):
        if x.dtype not in DTYPES:
            raise TypeError(
                f"compiled steps are made for float32 and float64; got {x.dtype}. "
                "Convert start."
            )
        if len(x) == 1:
            raise ValueError(
                "compiled steps need at least 2 paths; got 1. Use engine='eager'."
            )
        self.form, self.step = form, scheme_of(scheme)
        self.draws = draws(form, scheme)
        self.length, self.key = length, new_key(generator)
        self.dt = torch.tensor(dt, dtype=x.dtype, device=x.device)
        self.paths = torch.arange(len(x), dtype=torch.int32, device=x.device)
        some = by_coordinate(x), self.paths, self.key, self.dt, self.blocks(0)
        what = "steps", scheme, length, x.dtype, x.device.type
        self._chunk = compile_chunk(self.chunk, some, form.process.compiled, what)

    def moves(self, x, paths, key, dt, block, count):
        """Yield the positions after each of some steps.

        Parameters
        ----------
        x : list of d torch.Tensor, shape (paths,)
        paths : torch.Tensor, shape (paths,), int32
            Numbers of the paths.
        key : torch.Tensor, shape (4,), int32
        dt : torch.Tensor, shape ()
        block : torch.Tensor, shape (), int32
            Number of the first block of four normal numbers.
        count : int
            Number of steps.
        """
        for xi in noise(paths, block, key, x[0].dtype, self.draws, count):
            x = self.step(self.form, x, xi, dt)
            yield x

    def chunk(self, x, paths, key, dt, block):
        """Move the positions (d, paths) by one chunk of steps, where they are.

        Memory that is asked for anew costs as much as the steps.
        """
        *_, last = self.moves(list(x.unbind(0)), paths, key, dt, block, self.length)
        return x.copy_(torch.stack(last))

    def blocks(self, step):
        """Return the number of the block that a step begins with, as a tensor."""
        return torch.tensor(
            step * self.draws // 4, dtype=torch.int32, device=self.paths.device
        )

    def advance(self, x, step, count):
        """Move all paths.

        Parameters
        ----------
        x : torch.Tensor, shape (d, paths)
        step, count : int
            The steps done, and how many to do, multiples of the chunk's length.

        Returns
        -------
        torch.Tensor, shape (d, paths)
        """
        x = x.clone()
        for k in range(step, step + count, self.length):
            self._chunk(x, self.paths, self.key, self.dt, self.blocks(k))
        return x

    def retrace(self, x, step, count, path):
        """Say where one path was before it became infinite or NaN, and at which step.

        Parameters
        ----------
        x, step, count
            As for `advance`.
        path : int

        Returns
        -------
        tuple of torch.Tensor, shape (d,), and int
            Its last finite position, and the number of steps to the end of it.
        """
        here, only = list(x[:, path : path + 1].unbind(0)), self.paths[path : path + 1]
        block = self.blocks(step)
        moves = self.moves(here, only, self.key, self.dt, block, count)
        passed = 0
        for moved in moves:
            passed += 1
            if not all(bool(torch.isfinite(p).all()) for p in moved):
                break
            here = moved
        return torch.cat(here), passed


def noise(paths, block, key, dtype, draws, count):
    """Yield, for each of some steps, a list of normal numbers for each path.

    Parameters
    ----------
    paths, block : torch.Tensor, int32
        Numbers of the paths, and of each path's first block, or of all.
    key : torch.Tensor, shape (4,), int32
    dtype : torch.dtype
    draws, count : int
        How many numbers a step, how many steps; their product is a multiple of 4, so
        that the next steps begin with a fresh block.
    """
    waiting = []
    for _ in range(count):
        while len(waiting) < draws:
            waiting += normals(paths, block, key, dtype)
            block = block + 1
        yield waiting[:draws]
        waiting = waiting[draws:]


def compile_chunk(function, example, made, what):
    """Compile a function of tensors, unless that was done, and run it once.

    Parameters
    ----------
    function : callable
    example : tuple of torch.Tensor
        Arguments, with two paths or more; later ones may differ in their number.
    made : dict
        What was compiled for the same process.
    what : tuple
        The function's key there.

    Returns
    -------
    callable

    Raises
    ------
    CompileError
        If there is no compiler, or it cannot deal with the function.
    """
    if what in made:
        return made[what]
    try:
        graph = make_fx(lambda *at: function(*at), tracing_mode="symbolic")(*example)
        _skip_stacks(graph.graph)
        graph.graph.eliminate_dead_code()  # forward mode leaves questions about sizes
        graph.recompile()
        fused = torch.compile(graph, dynamic=True, fullgraph=True)
        fused(*example)
    except RuntimeError as problem:  # of which the compiler's own errors are some
        raise CompileError(
            f"the steps could not be compiled: {str(problem).strip()[:300]}. Use "
            "engine='eager', or a drift and a diffusion without branches on values; on "
            "a CPU a C++ compiler is needed."
        ) from problem
    made[what] = fused
    return fused


def _skip_stacks(graph):
    """Let what takes one coordinate out of stacked ones take the coordinate itself.

    Drifts of (paths, d) are written with ``x[:, 0]`` and ``torch.stack``; the compiler
    would write the stack to memory.
    """
    take, stack = torch.ops.aten.select.int, torch.ops.aten.stack.default
    unbind, cut = torch.ops.aten.unbind.int, torch.ops.aten.slice.Tensor
    for node in graph.nodes:
        if node.target is operator.getitem and node.args[0].target is unbind:
            source, index = node.args[0].args[0], node.args[1]
            axis = (*node.args[0].args, 0)[1]
        elif node.target is take:
            source, axis, index = node.args
        else:
            continue
        while source.target is cut and source.args[2:] in ((0, sys.maxsize), ()):
            source = source.args[0]
        if source.target is stack:
            parts, other = (*source.args, 0)[:2]
            if axis % 2 == other % 2 == 1 and -len(parts) <= index < len(parts):
                node.replace_all_uses_with(parts[index])


def by_coordinate(x):
    """Return (paths, d) positions as a tensor (d, paths) of one fixed layout."""
    paths, d = x.shape
    return x.new_empty(d, paths).copy_(x.T)
