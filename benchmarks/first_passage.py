"""Part B: times to leave a well, until every path has left.

dX = (X - X³) dt + sqrt(2T) dW from -1 to 0, looked at every dt, in float32.  All
methods take the same Euler steps and correct nothing, so that all have one exact mean,
from the integral equation of the Markov chain that the steps are.  What counts is
useful steps: those of paths that have not left.
"""

from __future__ import annotations

import math
import time
import warnings

import numpy as np
import torch

from benchmarks.harness import Method, absent, peer, race, save, threads
from sgdbook.passage import simulate_passage
from sgdbook.process import Process

T, DT = 0.2, 0.00135
NOISE = math.sqrt(2 * T * DT)
START, TARGET = -1.0, 0.0
CHUNK = 16  # steps between two looks who has left, where nothing else is said
WELL = Process(lambda x: x - x**3, math.sqrt(2 * T), dimension=1)


def mean_steps(low=-2.6, order=12):
    """Solve for the mean number of Euler steps, by Gauss-Legendre panels."""
    edges = np.linspace(low, TARGET, math.ceil((TARGET - low) / NOISE / 2) + 1)
    nodes, weights = np.polynomial.legendre.leggauss(order)
    half = np.diff(edges)[:, None] / 2
    y, w = (edges[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()
    at = np.append(y, START)[:, None]
    gap = (y - at - DT * (at - at**3)) / NOISE
    K = np.exp(-(gap**2) / 2) / math.sqrt(2 * math.pi) / NOISE * w
    steps = np.linalg.solve(np.eye(len(y)) - K[:-1], np.ones(len(y)))
    return 1 + K[-1] @ steps


def ours(n, engine):
    """Return steps of each path by us."""
    found = simulate_passage(
        WELL,
        torch.tensor([START]),
        paths=n,
        dt=DT,
        right=("absorbing", TARGET),
        correction="none",
        engine=engine,
        generator=torch.Generator().manual_seed(1),
    )
    return (found.times / DT).numpy()


def with_torch(n, compaction):
    """Return steps of each path, from a loop that anyone would write."""
    torch.manual_seed(2)
    x, done = torch.full((n,), START), []
    steps = torch.zeros(n)
    inside = torch.ones(n, dtype=torch.bool)
    while len(x):
        for _ in range(CHUNK):
            steps += inside
            x = x + DT * (x - x**3) + NOISE * torch.randn(len(x))
            inside &= x < TARGET
        if compaction or not bool(inside.any()):
            done.append(steps[~inside])
            x, steps, inside = x[inside], steps[inside], inside[inside]
    return torch.cat(done).numpy()


def with_numpy(n):
    """Return steps of each path, from the same loop in NumPy."""
    draw = np.random.default_rng(3)
    x, steps = np.full(n, START, np.float32), np.zeros(n, np.float32)
    inside, done = np.ones(n, bool), []
    dt, noise = np.float32(DT), np.float32(NOISE)
    while len(x):
        for _ in range(CHUNK):
            steps += inside
            xi = draw.standard_normal(len(x), dtype=np.float32)
            x = x + dt * (x - x * x * x) + noise * xi
            inside &= x < TARGET
        done.append(steps[~inside])
        x, steps, inside = x[inside], steps[inside], inside[inside]
    return np.concatenate(done)


def numba_function():
    """Return a function of n: one path after the other, in a loop that is compiled."""
    dt, noise = np.float32(DT), np.float32(NOISE)
    start, target = np.float32(START), np.float32(TARGET)

    @numba.njit(parallel=True, fastmath=True)
    def walk(n):
        found = np.empty(n, np.int64)
        for i in numba.prange(n):
            x, steps = start, 0
            while x < target:
                xi = np.float32(np.random.standard_normal())  # noqa: NPY002
                x += dt * (x - x * x * x) + noise * xi
                steps += 1
            found[i] = steps
        return found

    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    walk(2)
    return walk


def with_torchsde(n, stretch=1000):
    """Return steps of each path: stretches of paths, then a search for the crossing."""

    class Well(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t, x):
            return x - x**3

        def g(self, t, x):
            return torch.full_like(x, math.sqrt(2 * T))

    torch.manual_seed(4)
    well, ts = Well(), torch.arange(stretch + 1) * DT
    x, before, done = torch.full((n, 1), START), 0, []
    while len(x):
        path = torchsde.sdeint(well, x, ts, dt=DT, method="euler")[1:, :, 0]
        out = path >= TARGET
        left = out.any(0)
        done.append(before + 1 + out[:, left].int().argmax(0))
        x, before = path[-1, ~left, None], before + stretch
    return torch.cat(done).numpy()


def diffrax_function(n):
    """Return a function without arguments: an event under vmap, compiled."""
    jax, jnp = _jax, _jax.numpy

    def one(key, t1):
        noise = diffrax.UnsafeBrownianPath(shape=(), key=key)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, x, args: x - x**3),
            diffrax.ControlTerm(lambda t, x, args: math.sqrt(2 * T), noise),
        )
        solution = diffrax.diffeqsolve(
            terms,
            diffrax.Euler(),
            t0=0.0,
            t1=t1,
            dt0=DT,
            y0=jnp.float32(START),
            saveat=diffrax.SaveAt(t1=True),
            event=diffrax.Event(lambda t, x, args, **rest: x >= TARGET),
            adjoint=diffrax.ForwardMode(),
            max_steps=None,
            throw=False,
        )
        return solution.stats["num_steps"]

    all_of_them = jax.jit(jax.vmap(one, in_axes=(0, None)))
    keys = jax.random.split(jax.random.key(5), n)
    all_of_them(keys, jnp.float32(DT)).block_until_ready()
    return lambda: np.asarray(all_of_them(keys, jnp.float32(1e4)))


def warm():
    """Compile our steps, which torch.compile does anew if the threads have changed."""
    ours(2, "compiled")


def contest(n, truth, rows, *, goal="", targets=None):
    """Race methods (name, run, package) at n paths."""

    def error(steps):
        return abs(steps.mean() - truth) / (steps.std() / math.sqrt(n))

    return race(
        f"First passage of {n:,} paths, about {round(truth, -2):,.0f} steps each",
        [
            Method(
                name,
                run,
                error=error,
                allowed=5.0,
                why=absent.get(package, ""),
                prepare=warm if name == "sgdbook" else None,
            )
            for name, run, package in rows
        ],
        unit="M steps/s",
        work=n * truth,
        goal=goal,
        targets=targets,
        rounds=4,
        patience=4.0,
        error_name="distance from the exact mean in standard errors",
    )


def main():
    """Run the races and save them."""
    threads()
    truth = mean_steps()
    walk = numba_function() if numba else None
    threads()  # numba's may be the same as torch's
    began = time.perf_counter()
    warm()
    compiling = time.perf_counter() - began

    def fast(n):
        return [
            ("sgdbook", lambda: ours(n, "compiled"), ""),
            ("sgdbook, eager", lambda: ours(n, "eager"), ""),
            ("torch with compaction", lambda: with_torch(n, True), ""),
            ("NumPy with compaction", lambda: with_numpy(n), ""),
            ("numba, path by path", walk and (lambda: walk(n)), "numba"),
        ]

    def slow(n):
        return [
            ("torch without compaction", lambda: with_torch(n, False), ""),
            ("torchsde", torchsde and (lambda: with_torchsde(n)), "torchsde"),
            ("diffrax, Event", diffrax and diffrax_function(n), "diffrax"),
        ]

    few, some, many = 2_000, 20_000, 100_000
    races = [
        contest(few, truth, fast(few) + slow(few)),
        contest(some, truth, fast(some)),
        contest(
            many,
            truth,
            fast(many),
            goal="at least 4 times faster than torch with compaction",
            targets={"torch with compaction": {"ratio": 4}},
        ),
    ]
    save(
        "b",
        races,
        ["numba", "torchsde", "jax", "diffrax"],
        notes=[
            f"float32, T = {T}, dt = {DT}; the exact mean is {truth:.1f} steps.",
            f"Compiling is not timed; ours took {compiling:.0f} s, which the cache of "
            "torch.compile may shorten.",
            "The last of n paths needs about ln n + 0.58 times the mean: methods that "
            "move all until the last has left were run at the smallest n only.",
            "torchsde has no events: paths are stored in stretches of 1,000 steps, and "
            "those that crossed are taken out in between.",
        ],
    )


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    numba, torchsde, diffrax = peer("numba"), peer("torchsde"), peer("diffrax")
    _jax = peer("jax")

if __name__ == "__main__":
    main()
