"""Textbook metrics with their published curvature.

Every entry has a matrix and coordinates; what the cited source says about it, by the
name of the property (a number means: exactly this constant; for "ricci", a number
times the metric); and, where a function is undetermined, one to put in its place when
numbers are needed.
"""

from dataclasses import dataclass, field

import sympy as sp

t, r, theta, phi, psi, x, y, z, u, v, w = sp.symbols("t r theta phi psi x y z u v w")
rho, sigma, mu, M, Q, J, a, k, q, ell = sp.symbols("rho sigma mu M Q J a k q ell")
n, p_1, p_2, p_3 = sp.symbols("n p_1 p_2 p_3")
f, h, m, H, R = map(sp.Function, "f h m H R".split())
HALF = sp.Rational(1, 2)
SPHERE = sp.diag(1, sp.sin(theta) ** 2)


@dataclass(frozen=True)
class Entry:
    """A metric and what is known of it."""

    matrix: sp.Matrix
    coordinates: tuple
    source: str = ""
    known: dict = field(default_factory=dict)
    functions: dict = field(default_factory=dict)

    def concrete(self, expression):
        """Put functions in the place of the undetermined ones."""
        for name, function in self.functions.items():
            expression = expression.subs(name, function)
        return expression.doit()


def kerr():
    """Kerr, in Boyer and Lindquist's coordinates."""
    s, d = r**2 + a**2 * sp.cos(theta) ** 2, r**2 - 2 * M * r + a**2
    sine = sp.sin(theta) ** 2
    g = sp.diag(2 * M * r / s - 1, s / d, s, 0)
    g[0, 3] = g[3, 0] = -2 * M * a * r * sine / s
    g[3, 3] = (r**2 + a**2 + 2 * M * a**2 * r * sine / s) * sine
    return g, (t, r, theta, phi)


def static(lapse):
    """-h dt² + dr²/h + r² dΩ."""
    return sp.diag(-lapse, 1 / lapse, r**2 * SPHERE), (t, r, theta, phi)


def schwarzschild():
    """A mass at rest."""
    return static(1 - 2 * M / r)


def embedded(*surface, by=(u, v)):
    """A surface in space, in coordinates u, v."""
    slopes = sp.Matrix(surface).jacobian(by)
    return slopes.T * slopes, by


def form(length, coordinates):
    """Return matrix and coordinates of a quadratic form in the dummies `d`."""
    matrix = sp.hessian(length, [d[c] for c in coordinates]) / 2
    return matrix, coordinates


def network(samples):
    """I + eps D of the two-parameter tanh network on some samples."""
    w_1, w_2, eps = sp.symbols("w_1 w_2 epsilon")
    losses = [(w_2 * sp.tanh(w_1 * s) - target) ** 2 / 2 for s, target in samples]
    J = sp.Matrix(losses).jacobian([w_1, w_2])
    N = len(losses)
    mean = sp.ones(1, N) * J / N
    return sp.eye(2) + eps * (J.T * J / N - mean.T * mean), (w_1, w_2)


def einstein_rosen():
    """A standing wave J_0(rho) cos(t), after Weber and Wheeler."""
    zero, one = sp.besselj(0, rho), sp.besselj(1, rho)
    wave = zero * sp.cos(t)
    energy = rho**2 * (zero**2 + one**2) / 2 - rho * zero * one * sp.cos(t) ** 2
    conformal = sp.exp(2 * energy - 2 * wave)
    g = [-conformal, conformal, sp.exp(2 * wave), rho**2 * sp.exp(-2 * wave)]
    return sp.diag(*g), (t, rho, z, phi)


def dust():
    """Lemaître and Tolman's dust; 2E(r) is h(r)."""
    radius = R(t, r)
    stretch = radius.diff(r) ** 2 / (1 + h(r))
    return sp.diag(-1, stretch, radius**2 * SPHERE), (t, r, theta, phi)


d = {c: sp.Symbol(f"d{c}") for c in (t, r, theta, phi, psi, x, y, z, u, v)}
solid = d[theta] ** 2 + sp.sin(theta) ** 2 * d[phi] ** 2
hopf = (d[psi] + sp.cos(theta) * d[phi]) ** 2
eguchi = 1 - a**4 / r**4
nut = (r**2 - 2 * M * r - n**2) / (r**2 + n**2)
btz = r**2 / ell**2 - M + J**2 / (4 * r**2)
axis = a * sp.cos(theta)
static_e = {  # Carroll, (5.11), of -e^{2f} dt² + e^{2h} dr² + r² dΩ
    (0, 0): sp.exp(2 * f(r) - 2 * h(r))
    * (
        f(r).diff(r, 2)
        + f(r).diff(r) ** 2
        - f(r).diff(r) * h(r).diff(r)
        + 2 * f(r).diff(r) / r
    ),
    (1, 1): -f(r).diff(r, 2)
    - f(r).diff(r) ** 2
    + f(r).diff(r) * h(r).diff(r)
    + 2 * h(r).diff(r) / r,
    (2, 2): sp.exp(-2 * h(r)) * (r * (h(r).diff(r) - f(r).diff(r)) - 1) + 1,
}
static_e[3, 3] = sp.sin(theta) ** 2 * static_e[2, 2]
laplace_h = H(u, x, y).diff(x, 2) + H(u, x, y).diff(y, 2)
hubble, speed = f(t).diff(t) / f(t), f(t).diff(t, 2) / f(t)
cubic = {f: sp.Lambda(t, t**3 + 1)}
surface = {f: sp.Lambda((x, y), x**2 * y + sp.sin(y))}
wave = {H: sp.Lambda((u, x, y), u * x**3 + sp.exp(x) * y**2)}
harmonic = (x**2 - y**2) * sp.Function("A")(u) + sp.exp(x) * sp.cos(y)
bump = f(x, y)
total, squares = p_1 + p_2 + p_3, p_1**2 + p_2**2 + p_3**2


def two(number):
    """What is known of a surface of curvature K."""
    return {
        "gaussian_curvature": number,
        "scalar_curvature": 2 * number,
        "kretschmann": 4 * number**2,
    }


def form_of_constant(d, number):
    """What is known of a space of constant curvature."""
    return {
        "ricci": (d - 1) * number,
        "scalar_curvature": d * (d - 1) * number,
        "kretschmann": 2 * d * (d - 1) * number**2,
    }


def vacuum(kretschmann):
    """What is known of a vacuum."""
    return {"ricci": 0, "scalar_curvature": 0, "kretschmann": kretschmann}


CARMO = "do Carmo, Differential Geometry of Curves and Surfaces"
LEE = "Lee, Introduction to Riemannian Manifolds"
GP = "Griffiths and Podolský, Exact Space-Times in Einstein's General Relativity"
STEPHANI = "Stephani et al., Exact Solutions of Einstein's Field Equations"

CATALOGUE = {
    # surfaces
    "plane, polar": Entry(sp.diag(1, r**2), (r, phi), LEE, two(0)),
    "sphere": Entry(SPHERE, (theta, phi), f"{LEE}, ch. 8", two(1)),
    "half plane": Entry(sp.eye(2) / y**2, (x, y), f"{LEE}, ch. 8", two(-1)),
    "disk": Entry(
        4 * sp.eye(2) / (1 - x**2 - y**2) ** 2, (x, y), f"{LEE}, ch. 3", two(-1)
    ),
    "hyperbolic, polar": Entry(sp.diag(1, sp.sinh(r) ** 2), (r, phi), LEE, two(-1)),
    "torus": Entry(
        *embedded((3 + sp.cos(v)) * sp.cos(u), (3 + sp.cos(v)) * sp.sin(u), sp.sin(v)),
        f"{CARMO}, 3-3, Example 1",
        two(sp.cos(v) / (3 + sp.cos(v))),
    ),
    "helicoid": Entry(
        *embedded(u * sp.cos(v), u * sp.sin(v), v),
        f"{CARMO}, 3-3",
        two(-1 / (1 + u**2) ** 2),
    ),
    "catenoid": Entry(
        *embedded(sp.cosh(v) * sp.cos(u), sp.cosh(v) * sp.sin(u), v),
        f"{CARMO}, 3-5; with sinh v = u the helicoid's",
        two(-1 / sp.cosh(v) ** 4),
    ),
    "paraboloid": Entry(
        *embedded(u, v, u**2 + v**2),
        f"{CARMO}, 3-3, Example 5",
        two(4 / (1 + 4 * u**2 + 4 * v**2) ** 2),
    ),
    "pseudosphere": Entry(
        *embedded(sp.cos(u) / sp.cosh(v), sp.sin(u) / sp.cosh(v), v - sp.tanh(v)),
        f"{CARMO}, 3-3, Exercise 6",
        two(-1),
    ),
    "cone": Entry(sp.diag(1, k**2 * r**2), (r, phi), CARMO, two(0)),
    "Rindler": Entry(
        sp.diag(-((q * x) ** 2), 1), (t, x), "Wald, General Relativity, 6.4", two(0)
    ),
    "normal law": Entry(
        sp.diag(1 / sigma**2, 2 / sigma**2),
        (mu, sigma),
        "Amari, Information Geometry and Its Applications, ch. 2",
        two(-HALF),
    ),
    "cigar": Entry(
        sp.eye(2) / (1 + x**2 + y**2),
        (x, y),
        "Hamilton, The Ricci flow on surfaces (R is twice K)",
        two(2 / (1 + x**2 + y**2)),
    ),
    "polar, undetermined": Entry(
        sp.diag(1, f(r) ** 2),
        (r, phi),
        f"{CARMO}, 4-6",
        two(-f(r).diff(r, 2) / f(r)),
        cubic,
    ),
    "revolution": Entry(
        *embedded(u * sp.cos(v), u * sp.sin(v), f(u)),
        f"{CARMO}, 3-3, Example 4",
        two(f(u).diff(u) * f(u).diff(u, 2) / (u * (1 + f(u).diff(u) ** 2) ** 2)),
        cubic,
    ),
    "conformal": Entry(
        sp.exp(2 * bump) * sp.eye(2),
        (x, y),
        "Liouville's equation; do Carmo, 4-3, Exercise 2",
        two(-sp.exp(-2 * bump) * (bump.diff(x, 2) + bump.diff(y, 2))),
        surface,
    ),
    "graph": Entry(
        sp.eye(2)
        + sp.Matrix([bump.diff(x), bump.diff(y)])
        * sp.Matrix([[bump.diff(x), bump.diff(y)]]),
        (x, y),
        f"{CARMO}, 3-3, Example 5",
        two(
            sp.hessian(bump, (x, y)).det()
            / (1 + bump.diff(x) ** 2 + bump.diff(y) ** 2) ** 2
        ),
        surface,
    ),
    # spaces
    "three-sphere": Entry(
        sp.diag(1, sp.sin(psi) ** 2 * SPHERE),
        (psi, theta, phi),
        LEE,
        form_of_constant(3, 1),
    ),
    "four-sphere": Entry(
        4 * sp.eye(4) / (1 + x**2 + y**2 + z**2 + w**2) ** 2,
        (x, y, z, w),
        f"{LEE}, ch. 3, stereographic",
        form_of_constant(4, 1),
    ),
    "half space": Entry(sp.eye(3) / z**2, (x, y, z), LEE, form_of_constant(3, -1)),
    "nil": Entry(
        *form(d[x] ** 2 + d[y] ** 2 + (d[z] - x * d[y]) ** 2, (x, y, z)),
        "Milnor, Curvatures of left invariant metrics on Lie groups, 1976",
        {"scalar_curvature": -HALF, "kretschmann": sp.Rational(11, 4)},
    ),
    "complex projective plane": Entry(
        *form(
            d[r] ** 2 / (1 + r**2) ** 2
            + r**2 * hopf / (4 * (1 + r**2) ** 2)
            + r**2 * solid / (4 * (1 + r**2)),
            (r, theta, phi, psi),
        ),
        "Eguchi, Gilkey and Hanson 1980, with Lambda = 6",
        {"ricci": 6, "scalar_curvature": 24, "kretschmann": 192},
    ),
    "Eguchi-Hanson": Entry(
        *form(
            d[r] ** 2 / eguchi + r**2 * eguchi * hopf / 4 + r**2 * solid / 4,
            (r, theta, phi, psi),
        ),
        "Eguchi and Hanson 1979",
        vacuum(384 * a**8 / r**12),
    ),
    # space-times
    "schwarzschild": Entry(
        *schwarzschild(),
        "Misner, Thorne and Wheeler, equation (31.7)",
        vacuum(48 * M**2 / r**6),
    ),
    "Painlevé-Gullstrand": Entry(
        *form(
            -(d[t] ** 2) + (d[r] + sp.sqrt(2 * M / r) * d[t]) ** 2 + r**2 * solid,
            (t, r, theta, phi),
        ),
        "Martel and Poisson 2001",
        vacuum(48 * M**2 / r**6),
    ),
    "Reissner-Nordström": Entry(
        *static(1 - 2 * M / r + Q**2 / r**2),
        "Henry 2000, with a = 0",
        {
            "scalar_curvature": 0,
            "kretschmann": 8 * (6 * M**2 * r**2 - 12 * M * Q**2 * r + 7 * Q**4) / r**8,
        },
    ),
    "kerr": Entry(
        *kerr(),
        "Henry 2000",
        vacuum(
            48
            * M**2
            * (r**2 - axis**2)
            * ((r**2 + axis**2) ** 2 - 16 * r**2 * axis**2)
            / (r**2 + axis**2) ** 6
        ),
    ),
    "Taub-NUT": Entry(
        *form(
            -nut * (d[t] + 2 * n * sp.cos(theta) * d[phi]) ** 2
            + d[r] ** 2 / nut
            + (r**2 + n**2) * solid,
            (t, r, theta, phi),
        ),
        f"{GP}, section 12.1: the real part of 48 times the square of Psi_2",
        vacuum(
            24 * ((M + sp.I * n) / (r + sp.I * n) ** 3) ** 2
            + 24 * ((M - sp.I * n) / (r - sp.I * n) ** 3) ** 2
        ),
    ),
    "BTZ": Entry(
        *form(
            -btz * d[t] ** 2
            + d[r] ** 2 / btz
            + r**2 * (d[phi] - J / (2 * r**2) * d[t]) ** 2,
            (t, r, phi),
        ),
        "Bañados, Teitelboim and Zanelli 1992: constant curvature -1/l²",
        form_of_constant(3, -1 / ell**2),
    ),
    "de sitter": Entry(
        sp.diag(-1, *[sp.exp(2 * q * t)] * 3),
        (t, x, y, z),
        f"{GP}, section 4.2",
        form_of_constant(4, q**2),
    ),
    "anti-de Sitter": Entry(
        ell**2 * sp.diag(-1, 1, 1, 1) / z**2,
        (t, x, y, z),
        f"{GP}, section 5.3",
        form_of_constant(4, -1 / ell**2),
    ),
    "friedmann": Entry(
        sp.diag(-1, *[f(t) ** 2] * 3),
        (t, x, y, z),
        "Carroll, Spacetime and Geometry, section 8.2, flat",
        {
            "scalar_curvature": 6 * (speed + hubble**2),
            "kretschmann": 12 * (speed**2 + hubble**4),
        },
        cubic,
    ),
    "Friedmann, curved": Entry(
        sp.diag(-1, f(t) ** 2 / (1 - k * r**2), f(t) ** 2 * r**2 * SPHERE),
        (t, r, theta, phi),
        "Carroll, Spacetime and Geometry, section 8.2",
        {
            "scalar_curvature": 6 * (speed + hubble**2 + k / f(t) ** 2),
            "kretschmann": 12 * (speed**2 + (hubble**2 + k / f(t) ** 2) ** 2),
        },
        cubic,
    ),
    "Gödel": Entry(
        *form(
            a**2
            * (
                -((d[t] + sp.exp(x) * d[y]) ** 2)
                + d[x] ** 2
                + sp.exp(2 * x) * d[y] ** 2 / 2
                + d[z] ** 2
            ),
            (t, x, y, z),
        ),
        "Gödel 1949, equation (5), here with signature (-+++)",
        {"scalar_curvature": -1 / a**2, "kretschmann": 3 / a**4},
    ),
    "Kasner": Entry(
        sp.diag(-1, *(t ** (2 * p) for p in (p_1, p_2, p_3))),
        (t, x, y, z),
        f"{STEPHANI}, section 13.3",
        {
            "ricci": {
                (0, 0): (total - squares) / t**2,
                (1, 1): p_1 * (total - 1) * t ** (2 * p_1 - 2),
                (2, 2): p_2 * (total - 1) * t ** (2 * p_2 - 2),
                (3, 3): p_3 * (total - 1) * t ** (2 * p_3 - 2),
            },
            "scalar_curvature": (squares + total**2 - 2 * total) / t**2,
        },
    ),
    "Kasner, vacuum": Entry(
        sp.diag(-1, *(t ** sp.Rational(2 * p, 3) for p in (-1, 2, 2))),
        (t, x, y, z),
        f"{STEPHANI}, section 13.3",
        vacuum(sp.Rational(64, 27) / t**4),
    ),
    "Vaidya": Entry(
        *form(
            -(1 - 2 * m(v) / r) * d[v] ** 2 + 2 * d[v] * d[r] + r**2 * solid,
            (v, r, theta, phi),
        ),
        f"{GP}, section 9.5",
        {
            "ricci": {(0, 0): 2 * m(v).diff(v) / r**2},
            "scalar_curvature": 0,
            "kretschmann": 48 * m(v) ** 2 / r**6,
        },
        {m: sp.Lambda(v, v**2 + 1)},
    ),
    "static star": Entry(
        sp.diag(-sp.exp(2 * f(r)), sp.exp(2 * h(r)), r**2 * SPHERE),
        (t, r, theta, phi),
        "Carroll, Spacetime and Geometry, (5.11)",
        {"ricci": static_e},
        {f: sp.Lambda(r, r**3 / 5), h: sp.Lambda(r, sp.sin(r))},
    ),
    "dust": Entry(
        *dust(),
        "Tolman 1934; its energy density stands in a test of its own",
        {},
        {R: sp.Lambda((t, r), r * (1 + t) ** 2 + r**2), h: sp.Lambda(r, r**2)},
    ),
    "pp-wave": Entry(
        *form(
            H(u, x, y) * d[u] ** 2 + 2 * d[u] * d[v] + d[x] ** 2 + d[y] ** 2,
            (u, v, x, y),
        ),
        f"{STEPHANI}, section 24.5",
        {"ricci": {(0, 0): -laplace_h / 2}, "scalar_curvature": 0, "kretschmann": 0},
        wave,
    ),
    "pp-wave, vacuum": Entry(
        *form(
            harmonic * d[u] ** 2 + 2 * d[u] * d[v] + d[x] ** 2 + d[y] ** 2,
            (u, v, x, y),
        ),
        f"{STEPHANI}, section 24.5",
        vacuum(0),
        {sp.Function("A"): sp.Lambda(u, u**2)},
    ),
    "Einstein-Rosen": Entry(
        *einstein_rosen(), "Weber and Wheeler 1957", {"ricci": 0, "scalar_curvature": 0}
    ),
    # no textbook's; against the definition only
    "half angles": Entry(
        sp.Matrix(
            [
                [2 + sp.cos(x), sp.sin(x / 2) * sp.sin(3 * y)],
                [sp.sin(x / 2) * sp.sin(3 * y), 3 + sp.cos(y) + sp.tan(x) ** 2],
            ]
        ),
        (x, y),
    ),
    "sum of angles": Entry(sp.diag(2 + sp.sin(x + y), 2 + sp.cos(x - y)), (x, y)),
    "exponentials": Entry(
        sp.Matrix([[sp.exp(x + y) + 3, sp.sinh(x)], [sp.sinh(x), sp.exp(-2 * x) + 4]]),
        (x, y),
    ),
    "roots": Entry(sp.diag(sp.sqrt(x**2 + y**2), 1 + sp.sqrt(x)), (x, y)),
    "nested roots": Entry(
        sp.diag(sp.sqrt(y + sp.sqrt(1 + x)), sp.sqrt(sp.sin(x)), sp.sqrt(y / x)),
        (x, y, z),
    ),
    "powers": Entry(sp.diag(x**n, y ** sp.Rational(1, 3)), (x, y)),
    "special functions": Entry(sp.diag(sp.erf(x) + 2, sp.besselj(0, y) + 3), (x, y)),
    "logarithm": Entry(sp.diag(1 + sp.log(x) ** 2, 2 + sp.atan(x * y)), (x, y)),
    "constants": Entry(
        sp.diag(sp.pi + sp.sqrt(2) * x**2, 1 + sp.sin(1) * y**2), (x, y)
    ),
    "travelling": Entry(
        sp.diag(f(x - y), 1 + f(x + y) ** 2),
        (x, y),
        functions={f: sp.Lambda(x, sp.exp(x) + x**2)},
    ),
    "tanh alone": Entry(sp.diag(2 + sp.tanh(x / 2 + y), 2 + sp.tanh(x)), (x, y)),
    "tanh network": Entry(*network([(1, HALF), (-1, 1)])),
}
