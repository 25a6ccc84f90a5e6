"""Part E: Christoffel symbols of a SymPy metric, in one process.

Each method returns all of ``gamma[k][i][j]``.  Every component is evaluated at random
points and compared with the definition, by finite differences in 50 digits.  SymPy's
cache is emptied before each run.  Formula sizes are counted with ``count_ops`` over the
components with i <= j.
"""

from __future__ import annotations

import functools
import random
import warnings

import mpmath
import sympy as sp
import sympy.diffgeom as geometry
from sympy.core.cache import clear_cache

from benchmarks.harness import Method, absent, peer, race, save, threads
from sgdbook.geometry import Metric

LIMIT = 60.0
POINTS = 3
DIGITS = 50

t, r, theta, phi, M, a = sp.symbols("t r theta phi M a", positive=True)
w_1, w_2, eps = sp.symbols("w_1 w_2 epsilon", positive=True)


def schwarzschild():
    """Return metric and coordinates of a mass at rest."""
    h = 1 - 2 * M / r
    return sp.diag(-h, 1 / h, r**2, r**2 * sp.sin(theta) ** 2), (t, r, theta, phi)


def kerr():
    """Return metric and coordinates of a rotating mass (Boyer and Lindquist)."""
    s, d = r**2 + a**2 * sp.cos(theta) ** 2, r**2 - 2 * M * r + a**2
    sine = sp.sin(theta) ** 2
    g = sp.diag(2 * M * r / s - 1, s / d, s, 0)
    g[0, 3] = g[3, 0] = -2 * M * a * r * sine / s
    g[3, 3] = (r**2 + a**2 + 2 * M * a**2 * r * sine / s) * sine
    return g, (t, r, theta, phi)


def network(samples):
    """Return I + eps D of the network w_2 tanh(w_1 z) on pairs (z, target)."""
    losses = [(w_2 * sp.tanh(w_1 * z) - target) ** 2 / 2 for z, target in samples]
    J, N = sp.Matrix(losses).jacobian([w_1, w_2]), len(losses)
    mean = sp.ones(1, N) * J / N
    return sp.eye(2) + eps * (J.T * J / N - mean.T * mean), (w_1, w_2)


def by_hand(g, x, simplify):
    """Return the definition, written out with SymPy."""
    d, inverse = len(x), g.inv()
    if simplify:
        inverse = inverse.applyfunc(sp.simplify)

    def component(k, i, j):
        total = sum(
            inverse[k, m]
            / 2
            * (g[m, i].diff(x[j]) + g[m, j].diff(x[i]) - g[i, j].diff(x[m]))
            for m in range(d)
        )
        return sp.simplify(total) if simplify else total

    return _full(component, d)


def einsteinpy(g, x, simplify):
    """Return what einsteinpy computes."""
    metric = _einsteinpy.MetricTensor(g.tolist(), x)
    symbols = _einsteinpy.ChristoffelSymbols.from_metric(metric)
    return symbols.simplify() if simplify else symbols.tensor()


def diffgeom(g, x):
    """Return what sympy.diffgeom computes, in the coordinates x again."""
    patch = geometry.Patch("P", geometry.Manifold("M", len(x)))
    system = geometry.CoordSystem("C", patch, x)
    there = dict(zip(x, system.base_scalars(), strict=True))
    dx = system.base_oneforms()
    d = len(x)
    metric = sum(
        g[i, j].xreplace(there) * geometry.TensorProduct(dx[i], dx[j])
        for i in range(d)
        for j in range(d)
        if g[i, j] != 0
    )
    gamma = geometry.metric_to_Christoffel_2nd(metric)
    return gamma.xreplace({scalar: s for s, scalar in there.items()})


def gravipy(g, x):
    """Return what GraviPy computes."""
    coordinates = _gravipy.Coordinates("chi", list(x))
    gamma = _gravipy.Christoffel("Ga", _gravipy.MetricTensor("g", coordinates, g))
    return _full(lambda k, i, j: gamma(-k - 1, i + 1, j + 1), len(x))


def _full(component, d):
    """Return an array from the components with i <= j."""
    known = {(k, i, j): component(k, i, j) for k, i, j in _triples(d)}
    return [
        [[known[k, min(i, j), max(i, j)] for j in range(d)] for i in range(d)]
        for k in range(d)
    ]


def _triples(d):
    return [(k, i, j) for k in range(d) for i in range(d) for j in range(i, d)]


def truth(g, x, at):
    """Return gamma[k, i, j] at a point by finite differences in many digits."""
    d = len(x)
    rest = {s: value for s, value in at.items() if s not in x}
    function = sp.lambdify(x, g.xreplace(rest), "mpmath")
    point = [at[s] for s in x]
    step = mpmath.mpf(10) ** (-DIGITS // 3)

    def slope(k):
        ahead, behind = list(point), list(point)
        ahead[k], behind[k] = point[k] + step, point[k] - step
        return (function(*ahead) - function(*behind)) / (2 * step)

    inverse, slopes = function(*point) ** -1, [slope(k) for k in range(d)]
    return {
        (k, i, j): sum(
            inverse[k, m] * (slopes[j][m, i] + slopes[i][m, j] - slopes[m][i, j]) / 2
            for m in range(d)
        )
        for k, i, j in _triples(d)
    }


def points(g, x, seed=0):
    """Return random points away from horizons and poles, with what is true there."""
    draw = random.Random(seed)
    found = []
    ranges = {M: (0.4, 0.6), a: (0.1, 0.3), r: (2.0, 4.0), theta: (0.5, 1.2)}
    symbols = sorted(g.free_symbols | set(x), key=str)
    for _ in range(POINTS):
        at = {s: mpmath.mpf(draw.uniform(*ranges.get(s, (0.3, 1.2)))) for s in symbols}
        found.append((at, truth(g, x, at)))
    return found


def error(gamma, x, checks):
    """Return the largest relative error of any component at any of the points."""
    triples, worst = _triples(len(x)), 0.0
    symbols = sorted(checks[0][0], key=str)
    entries = [gamma[k][i][j] for k, i, j in triples]
    function = sp.lambdify(symbols, entries, "mpmath")
    for at, right in checks:
        values = function(*(at[s] for s in symbols))
        scale = max(map(abs, right.values()))
        for key, value in zip(triples, values, strict=True):
            worst = max(worst, float(abs(value - right[key]) / scale))
    return worst


def size(gamma, d):
    """Return the number of operations in the components with i <= j."""
    return {
        "operations": sum(
            int(sp.sympify(gamma[k][i][j]).count_ops()) for k, i, j in _triples(d)
        )
    }


def methods(metric, only=None):
    """Return the methods of these names for one metric, all if not given."""
    g, x = metric
    ways = {
        "sgdbook": lambda: Metric(g, x).christoffel,
        "by hand": lambda: by_hand(g, x, simplify=False),
        "by hand, simplified": lambda: by_hand(g, x, simplify=True),
        "einsteinpy": lambda: einsteinpy(g, x, simplify=False),
        "einsteinpy, simplified": lambda: einsteinpy(g, x, simplify=True),
        "sympy.diffgeom": lambda: diffgeom(g, x),
        "GraviPy": lambda: gravipy(g, x),
    }
    missing = {
        "einsteinpy": "einsteinpy.symbolic",
        "einsteinpy, simplified": "einsteinpy.symbolic",
        "GraviPy": "gravipy.tensorial",
    }
    checks = points(g, x)
    return [
        Method(
            name,
            None if missing.get(name) in absent else run,
            error=functools.partial(error, x=x, checks=checks),
            allowed=1e-25,
            why=absent.get(missing.get(name), ""),
            prepare=clear_cache,
            facts=functools.partial(size, d=len(x)),
        )
        for name, run in ways.items()
        if only is None or name in only
    ]


def main():
    """Run the three races and save them."""
    threads()
    mpmath.mp.dps = DIGITS
    common = {
        "rounds": 5,
        "patience": 3.0,
        "limit": LIMIT,
        "error_name": "relative error",
    }
    half = sp.Rational(1, 2)
    one_tanh = [(1, 1), (-1, half), (1, 0)]
    two_inputs = [(1, half), (-half, 1)]
    simplified = ("by hand, simplified", "einsteinpy, simplified", "GraviPy")
    fewer = ("sgdbook", "by hand", "einsteinpy")
    races = [
        race("Schwarzschild, 4 coordinates", methods(schwarzschild()), **common),
        race(
            "Kerr, 4 coordinates",
            methods(kerr()),
            goal="at least 10 times faster than the routes that simplify",
            targets={name: {"ratio": 10} for name in simplified},
            **common,
        ),
        race(
            "Tanh network, 2 weights, inputs ±1",
            methods(network(one_tanh)),
            goal="at least 80 times faster than the routes that simplify",
            targets={name: {"ratio": 80} for name in simplified},
            **common,
        ),
        race(
            "Tanh network, 2 weights, inputs 1 and −1/2",
            methods(network(two_inputs), only=fewer),
            goal="at least 80 times faster than any other route",
            targets={name: {"ratio": 80} for name in fewer[1:]},
            **common,
        ),
    ]
    save(
        "e",
        races,
        ["sympy", "mpmath", "einsteinpy", "GraviPy"],
        notes=[
            "Runs over three seconds are timed once, and cut off after "
            f"{LIMIT:g} seconds.",
            "With inputs ±1 every entry is rational in one tanh. Other inputs bring in "
            "a tanh of fractions of the angle, and degrees grow: with inputs 1, −1/2 "
            "and 2 sgdbook itself needs about half a minute.",
            "For the last metric only the routes that do not simplify were tried; "
            "simplifying comes on top.",
        ],
    )


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    _einsteinpy = peer("einsteinpy.symbolic")
    _gravipy = peer("gravipy.tensorial")

if __name__ == "__main__":
    main()
