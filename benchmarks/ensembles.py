"""Part A: an ensemble of 1e5 paths by Euler-Maruyama, in single precision.

Three processes, two wells each: with constant noise, with noise that depends on the
state, and in two dimensions.  Every method takes the same steps and returns the final
states.  Their mean of x^2 is compared with that of the scheme's exact law, from a
Chebyshev grid, in standard errors.
"""

from __future__ import annotations

import math
import time
from itertools import product

import numpy as np
import torch

from benchmarks.harness import Method, absent, peer, race, save, threads
from sgdbook.compiled import CompiledSteps, by_coordinate
from sgdbook.process import Process
from sgdbook.schemes import ByCoordinate
from sgdbook.simulate import simulate

PATHS, STEPS, DT = 100_000, 512, 0.01
START = (0.5, -0.5)
ROOT = math.sqrt(DT)
S, R = 0.7, 0.5
TITLES = {
    "constant": "constant noise, dX = (X - X^3) dt + 0.7 dW",
    "state": "noise of the state, dX = (X - X^3) dt + 0.5 sqrt(1 + X^2) dW",
    "plane": "two dimensions, dX = (X - X^3 - Y) dt + 0.7 dV, dY = (X/2 - Y) dt "
    "+ 0.5 dW",
}


def drift(kind, x):
    """Return the drift of a list of coordinates, of whatever library."""
    if kind == "plane":
        return [x[0] - x[0] * x[0] * x[0] - x[1], 0.5 * x[0] - x[1]]
    return [x[0] - x[0] * x[0] * x[0]]


def noise(kind, x, sqrt):
    """Return the diagonal of the diffusion, a list like x or of numbers."""
    if kind == "state":
        return [R * sqrt(1 + x[0] * x[0])]
    return [S, R][: len(x)]


def truth(kind, size=48, reach=3.5):
    """Return E x^2 after all steps, by backward steps of the scheme on a grid."""
    d = 2 if kind == "plane" else 1
    angle = np.pi * (np.arange(size) + 0.5) / size
    grid = reach * np.cos(angle)
    points = [axis.ravel() for axis in np.meshgrid(*[grid] * d, indexing="ij")]
    series = np.cos(np.outer(np.arange(size), angle)) * 2 / size
    series[0] /= 2

    def basis(at):
        inside = np.clip(at / reach, -1, 1)
        return np.cos(np.outer(np.arccos(inside), np.arange(size))) @ series

    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    weights = weights / weights.sum()
    a, b = drift(kind, points), noise(kind, points, np.sqrt)
    move = 0
    for chosen in product(range(9), repeat=d):
        at = [
            p + DT * slope + ROOT * spread * nodes[q]
            for p, slope, spread, q in zip(points, a, b, chosen, strict=True)
        ]
        rows = basis(at[0])
        for one in at[1:]:
            rows = np.einsum("ni,nj->nij", rows, basis(one)).reshape(len(one), -1)
        move = move + np.prod(weights[list(chosen)]) * rows
    values = points[0] ** 2
    for _ in range(STEPS):
        values = move @ values
    end = basis(np.array(START[:1]))[0]
    if d == 2:
        end = np.outer(end, basis(np.array(START[1:]))[0]).ravel()
    return float(end @ values)


def error_from(value):
    """Return how many standard errors the mean of x^2 is away."""

    def error(x):
        square = np.asarray(x, dtype=np.float64).reshape(PATHS, -1)[:, 0] ** 2
        return abs(square.mean() - value) / (square.std() / math.sqrt(PATHS))

    return error


def ours(kind, device="cpu"):
    """Return the process, and the three ways of sgdbook."""
    d = 2 if kind == "plane" else 1

    def slopes(x):
        return torch.stack(drift(kind, x.unbind(1)), 1)

    def spread(x):
        return torch.stack(
            [
                b * torch.ones_like(x[:, 0])
                for b in noise(kind, x.unbind(1), torch.sqrt)
            ],
            1,
        )

    plane = (lambda *x: drift(kind, x), lambda *x: [[S, 0], [0, R]])
    process = Process(
        slopes,
        S if kind == "constant" else spread,
        dimension=d,
        coordinates=plane if kind == "plane" else None,  # as SDE.process would
    )
    start = torch.tensor(START[:d], device=device).repeat(PATHS, 1)
    rng = torch.Generator(device).manual_seed(0)
    began = time.perf_counter()
    steps = CompiledSteps(
        ByCoordinate(process, start), start, rng, DT, "euler-maruyama", 8 // d
    )
    cold = time.perf_counter() - began
    first = by_coordinate(start)

    def whole(engine):
        return simulate(
            process,
            start,
            generator=rng,
            steps=STEPS,
            every=STEPS,
            dt=DT,
            engine=engine,
        ).states.cpu()

    return cold, [
        Method("sgdbook, compiled", lambda: steps.advance(first, 0, STEPS).T.cpu()),
        Method("sgdbook, compiled, all of simulate()", lambda: whole("compiled")),
        Method("sgdbook, eager", lambda: whole("eager")),
    ]


def by_torch(kind, device="cpu"):
    """Return a loop in torch, in place where that is natural."""
    d = 2 if kind == "plane" else 1
    rng = torch.Generator(device).manual_seed(1)

    def run():
        x = [torch.full((PATHS,), s, device=device) for s in START[:d]]
        xi = [torch.empty_like(p) for p in x]
        for _ in range(STEPS):
            a, b = drift(kind, x), noise(kind, x, torch.sqrt)
            for i in range(d):
                xi[i].normal_(generator=rng)
                x[i].add_(a[i], alpha=DT)
                if kind == "state":
                    x[i].addcmul_(b[i], xi[i], value=ROOT)
                else:
                    x[i].add_(xi[i], alpha=ROOT * b[i])
        return torch.stack(x, 1).cpu()

    return run


def by_numpy(kind):
    """Return a loop in NumPy, in place where that is natural."""
    d = 2 if kind == "plane" else 1
    rng = np.random.default_rng(2)

    def run():
        x = [np.full(PATHS, s, dtype=np.float32) for s in START[:d]]
        xi = np.empty(PATHS, dtype=np.float32)
        for _ in range(STEPS):
            a, b = drift(kind, x), noise(kind, x, np.sqrt)
            for i in range(d):
                rng.standard_normal(dtype=np.float32, out=xi)
                xi *= np.float32(ROOT)
                xi *= b[i]
                a[i] *= np.float32(DT)
                x[i] += a[i]
                x[i] += xi
        return np.stack(x, 1)

    return run


def by_numba(kind):
    """Return a parallel loop over the paths, each with all its steps."""
    numba = peer("numba")
    if numba is None:
        return None
    numba.set_num_threads(torch.get_num_threads())
    f, one = np.float32, np.float32(1)
    dt, root, half = f(DT), f(ROOT), f(0.5)
    s, r = f(S * ROOT), f(R * ROOT)
    x_0, y_0 = map(f, START)

    @numba.njit(parallel=True, fastmath=True)
    def line(state):
        out = np.empty(PATHS, np.float32)
        for i in numba.prange(PATHS):
            x = x_0
            for _ in range(STEPS):
                b = half * root * np.sqrt(one + x * x) if state else s
                x += dt * (x - x * x * x) + b * f(np.random.standard_normal())  # noqa: NPY002
            out[i] = x
        return out

    @numba.njit(parallel=True, fastmath=True)
    def plane():
        out = np.empty((PATHS, 2), np.float32)
        for i in numba.prange(PATHS):
            x, y = x_0, y_0
            for _ in range(STEPS):
                a, b = x - x * x * x - y, half * x - y
                x += dt * a + s * f(np.random.standard_normal())  # noqa: NPY002
                y += dt * b + r * f(np.random.standard_normal())  # noqa: NPY002
            out[i, 0], out[i, 1] = x, y
        return out

    return plane if kind == "plane" else lambda: line(kind == "state")


def by_jax(kind, implementation):
    """Return a jitted scan over the steps."""
    jax = peer("jax")
    if jax is None:
        return None
    jnp = jax.numpy
    d = 2 if kind == "plane" else 1
    start = [jnp.full(PATHS, s, jnp.float32) for s in START[:d]]

    def step(x, key):
        xi = jax.random.normal(key, (d, PATHS), jnp.float32)
        a, b = drift(kind, x), noise(kind, x, jnp.sqrt)
        return [x[i] + DT * a[i] + ROOT * b[i] * xi[i] for i in range(d)], None

    @jax.jit
    def run(key):
        x, _ = jax.lax.scan(step, start, jax.random.split(key, STEPS))
        return jnp.stack(x, 1)

    return lambda: np.asarray(run(jax.random.key(3, impl=implementation)))


def by_diffrax(kind):
    """Return one batched solve: all paths are one state."""
    jax, diffrax, lineax = peer("jax"), peer("diffrax"), peer("lineax")
    if diffrax is None:
        return None
    jnp = jax.numpy
    d = 2 if kind == "plane" else 1
    start = jnp.stack([jnp.full(PATHS, s, jnp.float32) for s in START[:d]])

    def slope(t, x, args):
        return jnp.stack(drift(kind, list(x)))

    def spread(t, x, args):
        b = jnp.stack([jnp.broadcast_to(s, (PATHS,)) for s in noise(kind, x, jnp.sqrt)])
        return lineax.DiagonalLinearOperator(b.astype(jnp.float32))

    @jax.jit
    def run(key):
        shape = jax.ShapeDtypeStruct((d, PATHS), jnp.float32)
        path = diffrax.UnsafeBrownianPath(shape=shape, key=key)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(slope), diffrax.ControlTerm(spread, path)
        )
        return diffrax.diffeqsolve(
            terms,
            diffrax.Euler(),
            t0=0,
            t1=STEPS * DT,
            dt0=DT,
            y0=start,
            max_steps=STEPS + 1,
            adjoint=diffrax.DirectAdjoint(),
        ).ys[-1]

    return lambda: np.asarray(run(jax.random.key(4))).T


def by_torchsde(kind):
    """Return one solve with torchsde's default Brownian motion."""
    torchsde = peer("torchsde")
    if torchsde is None:
        return None
    d = 2 if kind == "plane" else 1

    class Model(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t, x):
            return torch.stack(drift(kind, x.unbind(1)), 1)

        def g(self, t, x):
            columns = noise(kind, x.unbind(1), torch.sqrt)
            return torch.stack([b * torch.ones_like(x[:, 0]) for b in columns], 1)

    model, times = Model(), torch.tensor([0.0, STEPS * DT])

    @torch.no_grad()
    def run():
        start = torch.tensor(START[:d]).repeat(PATHS, 1)
        return torchsde.sdeint(model, start, times, dt=DT, method="euler")[-1]

    return run


def method(name, run, module):
    """Return a peer's row, which says why where there is none."""
    return Method(name, run, why=absent.get(module, ""))


def main():
    """Race on the processor."""
    count = threads()
    races, notes = [], []
    for kind, title in TITLES.items():
        cold, methods = ours(kind)
        notes.append(f"{kind}: the chunk was compiled, or read back, in {cold:.1f} s.")
        methods += [
            Method("torch, eager loop", by_torch(kind)),
            method("JAX, scan", by_jax(kind, "threefry2x32"), "jax"),
            method("JAX, scan, unsafe_rbg keys", by_jax(kind, "unsafe_rbg"), "jax"),
            method("diffrax, batched", by_diffrax(kind), "diffrax"),
            Method("NumPy", by_numpy(kind)),
            method("torchsde", by_torchsde(kind), "torchsde"),
            method("numba, prange", by_numba(kind), "numba"),
        ]
        value = truth(kind)
        for m in methods:
            m.error, m.allowed = error_from(value), 5.0
        least = 13 if kind == "plane" else 5
        races.append(
            race(
                f"{PATHS:,} paths, {STEPS} steps, {count} threads: {title}",
                methods,
                ours="sgdbook, compiled",
                unit="M steps/s",
                work=PATHS * STEPS,
                goal=f"{least} times torch's eager loop",
                error_name="standard errors",
                rounds=5,
                targets={"torch, eager loop": {"ratio": least}},
            )
        )
    packages = ["jax", "diffrax", "torchsde", "numba"]
    save("a", races, packages, notes=notes)


if __name__ == "__main__":
    main()
