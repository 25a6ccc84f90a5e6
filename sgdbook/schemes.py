r"""Schemes that step a diffusion, written once for two forms of it.

As a `Whole` a process moves one tensor (paths, d), which suits any function and any d.
`ByCoordinate` it moves d tensors (paths,), which a compiler can keep in registers.
"""

from __future__ import annotations

import torch

from sgdbook import _door

SCHEMES = ("euler-maruyama", "platen")


class Whole:
    """A process on one tensor (paths, d); noise is one tensor (paths, draws)."""

    def __init__(self, process, x):
        B = process.diffusion
        self.process, self.additive = process, not callable(B)
        self.matrix = None  # what kind of diffusion: number, diagonal, (d, m), product
        if process.noise_dimension:
            self.noises = process.noise_dimension
            shape = tuple(B(x[:1], x.new_zeros(1, self.noises)).shape)
            if shape != (1, process.dimension):
                raise ValueError(
                    f"a diffusion that is given as a product must return shape (paths, "
                    f"{process.dimension}); got {shape} for one path. Return B(x) xi."
                )
            return
        self.noises = process.dimension
        if callable(B):
            shape = tuple(B(x[:1]).shape)
            d = process.dimension
            if shape not in ((1, d), (1, 1)) and (
                shape[:2] != (1, d) or len(shape) != 3
            ):
                raise ValueError(
                    f"diffusion must return shape (paths, {d}), (paths, 1) or "
                    f"(paths, {d}, m); got {shape} for one path. Row i holds what "
                    "drives coordinate i."
                )
            self.matrix = len(shape) == 3
            self.noises = shape[2] if self.matrix else d

    def drift(self, x):
        """Return the Itô drift, a list like x."""
        return [self.process.ito_drift(x[0])]

    def kick(self, x, xi):
        """Return B xi for xi of shape (paths, noises), a list like x."""
        B = self.process.diffusion
        if self.process.noise_dimension:
            return [B(x[0], xi)]
        if self.additive:
            return [B * xi]
        B = B(x[0])
        return [(B @ xi[..., None])[..., 0] if self.matrix else B * xi]

    def column(self, x, j):
        """Return column j of B, a list like x."""
        xi = x[0].new_zeros(len(x[0]), self.noises)
        xi[:, j] = 1
        return self.kick(x, xi)

    def part(self, xi, begin, end):
        """Return some of the draws, as noise."""
        return xi[:, begin:end]

    def numbers(self, xi):
        """Return the draws as a list."""
        return list(xi.split(1, dim=1))

    def positions(self, x):
        """Return shape (paths, d)."""
        return x[0]


class ByCoordinate:
    """A process on d tensors (paths,); noise is a list of tensors (paths,)."""

    def __init__(self, process, x):
        self.process = process
        if process.coordinates is None:
            self._drift = lambda *x: process.ito_drift(torch.stack(x, 1)).unbind(1)
            whole = Whole(process, x)
            self.additive, self.noises = whole.additive, whole.noises
            self.kick = lambda x, xi: _kick(whole, x, xi)
            return
        self._drift, self._matrix = process.coordinates
        B = self._matrix(*x[:1].unbind(1))
        self.noises = len(B[0])
        self.additive = not any(isinstance(b, torch.Tensor) for row in B for b in row)

    def drift(self, x):
        """Return the Itô drift, a list like x."""
        return list(self._drift(*x))

    def kick(self, x, xi):
        """Return B xi, a list like x."""
        nought = torch.zeros_like(x[0])
        return [
            sum(
                (b * k for b, k in zip(row, xi, strict=True) if not _is_zero(b)), nought
            )
            for row in self._matrix(*x)
        ]

    def column(self, x, j):
        """Return column j of B, a list like x."""
        e_j = [torch.zeros_like(x[0])] * self.noises
        e_j[j] = torch.ones_like(x[0])
        return self.kick(x, e_j)

    def part(self, xi, begin, end):
        """Return some of the draws, as noise."""
        return xi[begin:end]

    def numbers(self, xi):
        """Return the draws as a list."""
        return xi

    def positions(self, x):
        """Return shape (paths, d)."""
        return torch.stack(x, 1)


def _kick(whole, x, xi):
    """Return B xi by coordinates, of a process that is given as a whole."""
    B = whole.process.diffusion
    if whole.process.noise_dimension:
        return B(torch.stack(x, 1), torch.stack(xi, 1)).unbind(1)
    if whole.additive:
        return [B * k for k in xi]
    B = B(torch.stack(x, 1))
    if whole.matrix:
        rows = (row.unbind(1) for row in B.unbind(1))
        return [sum(b * k for b, k in zip(row, xi, strict=True)) for row in rows]
    columns = B.unbind(1) if B.shape[1] > 1 else B.unbind(1) * len(x)
    return [b * k for b, k in zip(columns, xi, strict=True)]


def _is_zero(entry):
    return not isinstance(entry, torch.Tensor) and entry == 0


def scheme_of(name):
    """Return the function of a scheme: (form, x, xi, dt) -> x."""
    _door.require_one_of(name, SCHEMES, "scheme", "Choose one of these.")
    return {"euler-maruyama": _euler_maruyama, "platen": _platen}[name]


def draws(form, scheme):
    """Return how many normal numbers a path takes a step."""
    m = form.noises
    if scheme == "platen" and not form.additive:
        if m > 16:
            raise ValueError(
                f"the scheme 'platen' evaluates the diffusion 2m² times a step; got "
                f"m = {m} Wiener processes, at most 16 are allowed. Use "
                "'euler-maruyama'."
            )
        return m + m * (m - 1) // 2
    return m


def evaluations(form, scheme):
    """Return how often a step draws a number or evaluates drift or diffusion."""
    if scheme == "platen" and not form.additive:
        return draws(form, scheme) + 2 * form.noises**2 + form.noises + 3
    return draws(form, scheme) + 3


def _euler_maruyama(form, x, xi, dt):
    root = dt**0.5
    noise = form.part(xi, 0, form.noises)
    return [
        p + dt * a + root * k
        for p, a, k in zip(x, form.drift(x), form.kick(x, noise), strict=True)
    ]


def _platen(form, x, xi, dt):
    """Take one step of the explicit weak scheme of order 2.0.

    Kloeden and Platen, *Numerical Solution of Stochastic Differential Equations*,
    equation (15.1.3), with Gaussian increments.
    """
    root = dt**0.5
    noise, xi = form.part(xi, 0, form.noises), form.numbers(xi)
    a, kick = form.drift(x), form.kick(x, noise)
    drifted = _plus(x, dt, a)
    ahead = form.drift(_plus(drifted, root, kick))
    new = _plus(_plus(x, dt / 2, a), dt / 2, ahead)
    if form.additive:
        return _plus(new, root, kick)
    m = form.noises
    columns = [form.column(x, j) for j in range(m)]
    pairs = ((j, r) for j in range(m) for r in range(j))
    signs = {pair: torch.sign(v) for pair, v in zip(pairs, xi[m:], strict=True)}
    for j, column in enumerate(columns):
        for r, other in enumerate(columns):
            base = drifted if r == j else x
            up = form.column(_plus(base, root, other), j)
            down = form.column(_plus(base, -root, other), j)
            if r == j:
                sign = -1.0
            else:
                sign = signs[j, r] if r < j else -signs[r, j]
            odd = root / 4 * (xi[j] * xi[r] + sign)
            even = root / 4 * xi[j]
            new = _plus(_plus(new, even + odd, up), even - odd, down)
            rest = 2 if r == j else -2
            new = _plus(new, rest * even, column)
    return new


def _plus(x, factor, y):
    """Return x + factor y, for lists of tensors."""
    return [p + factor * q for p, q in zip(x, y, strict=True)]
