"""Panels on which two coefficients are polynomials, and integrals of logarithms.

A density falls by hundreds of orders of magnitude.  On each panel its logarithm is
known at Gauss nodes; integrals are carried as logarithms, so that nothing underflows.
"""

from __future__ import annotations

import math

import numpy as np
import torch

COUNT = 20
PANELS = 200_000


def _gauss():
    """Return nodes, weights, values -> coefficients, values -> running integrals."""
    nodes, weights = np.polynomial.legendre.leggauss(COUNT)
    vander = np.polynomial.legendre.legvander(nodes, COUNT)
    to_series = np.linalg.inv(vander[:, :COUNT])
    n = np.arange(1, COUNT)
    running = np.empty((COUNT, COUNT))
    running[:, 0] = nodes + 1
    running[:, 1:] = (vander[:, 2:] - vander[:, :-2]) / (2 * n + 1)
    return [
        torch.as_tensor(m, dtype=torch.float64)
        for m in (nodes, weights, to_series, running @ to_series)
    ]


NODES, WEIGHTS, SERIES, RUNNING = _gauss()


def points(edges):
    """Return nodes (panels, COUNT) and half widths (panels, 1)."""
    half = (edges[1:] - edges[:-1])[:, None] / 2
    return edges[:-1, None] + half * (1 + NODES), half


def resolved(coefficients, edges):
    """Say for which panels both coefficients are polynomials and psi varies little."""
    x, half = points(edges)
    slope, log_D = coefficients(x)
    fine = torch.ones(len(x), dtype=torch.bool)
    for values in (slope * half, log_D):
        tail = (values @ SERIES.T)[:, -3:].abs().amax(1)
        fine &= tail <= 1e-13 * (1 + values.abs().amax(1))
    return fine & ((slope * half).abs().amax(1) <= 6)


def doubled(edges):
    """Return the edges of twice as many panels."""
    return torch.cat([edges, (edges[:-1] + edges[1:]) / 2]).sort().values


def refined(edges, chosen, what="drift and diffusion are", most=PANELS):
    """Return the edges with the chosen panels cut in two, if they are not too many."""
    middles = (edges[:-1] + edges[1:])[chosen] / 2
    edges = torch.cat([edges, middles]).sort().values
    if len(edges) > most:
        raise ArithmeticError(
            f"{what} not resolved by {most:,} panels. Look for kinks or jumps "
            "inside the interval."
        )
    return edges


def running_log(log_f, half, backwards=False):
    """Return log of the integral of exp(log_f) up to (or from) nodes and edges."""
    top = log_f.amax(1, keepdim=True)
    f = (log_f - top).exp()
    whole = half * (f @ WEIGHTS)[:, None]
    part = half * (f @ RUNNING.T)
    if backwards:
        part = whole - part
    part = part.clamp(min=0).log() + top
    whole = (whole.log() + top)[:, 0]
    none = whole.new_full((1,), -math.inf)
    if backwards:
        edge = torch.cat([whole.flip(0).logcumsumexp(0).flip(0), none])
        return torch.logaddexp(edge[1:, None], part), edge
    edge = torch.cat([none, whole.logcumsumexp(0)])
    return torch.logaddexp(edge[:-1, None], part), edge


def integrated_series(c, s):
    """Return integral from -1 to s, and value, of Legendre series (COUNT, n)."""
    below, P = torch.ones_like(s), s
    value, integral = c[0] + c[1] * s, c[0] * (s + 1)
    for k in range(1, COUNT):
        above = ((2 * k + 1) * s * P - k * below) / (k + 1)
        integral = integral + c[k] * (above - below) / (2 * k + 1)
        below, P = P, above
        if k + 1 < COUNT:
            value = value + c[k + 1] * P
    return integral, value
