"""Part D: Christoffel symbols of the diffusion metric, contracted with one vector.

Γ(v, v) at one set of weights, float64, of small networks with a scalar output on
principal components of the digits. Every method starts from a function that gives the
losses of all samples, ours also from the network, which is then known to it.
"""

from __future__ import annotations

import functools
import os

import torch
from torch.func import grad, jacfwd, jvp, vjp, vmap
from torch.nn.functional import mse_loss

os.environ.setdefault("GEOMSTATS_BACKEND", "pytorch")

from benchmarks.harness import Method, absent, peer, race, save, threads
from sgdbook import data, nets
from sgdbook.gradients import losses_of, per_sample_gradients
from sgdbook.metric import DiffusionMetric

EPSILON = 1.0
SIZES = {10: (1, 3), 101: (2, 25), 325: (16, 18), 2377: (64, 36)}


class Problem:
    """Losses of a network with d weights, a direction, and the truth."""

    def __init__(self, d):
        width, hidden = SIZES[d]
        digits = data.digits(device="cpu")
        centred = digits.inputs - digits.inputs.mean(0)
        parts = centred @ torch.linalg.svd(centred, full_matrices=False).Vh.T
        targets = (digits.targets[:, None].double() - 4.5) / 3
        model = nets.mlp([width, hidden, 1], "tanh", seed=0, device="cpu")
        self.arguments = model, mse_loss, parts[:, :width].contiguous(), targets
        self.losses = losses_of(*self.arguments)
        self.x = nets.flatten(model)
        assert len(self.x) == d
        generator = torch.Generator().manual_seed(1)
        v = torch.randn(d, generator=generator, dtype=torch.float64)
        self.v = v / v.norm()

    @functools.cached_property
    def truth(self):
        """Γ(v, v) from the gradients and Hessians of the samples, formed."""
        model, loss, inputs, targets = self.arguments
        J = per_sample_gradients(model, loss, inputs, targets)

        def slope(x, z, t):
            def one(x):
                output = torch.func.functional_call(
                    model, nets.unflatten(model, x), z[None]
                )
                return loss(output[0], t)

            return grad(one)(x) @ self.v

        bends = torch.cat(
            [
                vmap(grad(slope), (None, 0, 0))(self.x, z, t) @ self.v
                for z, t in zip(inputs.split(200), targets.split(200), strict=True)
            ]
        )
        spread = (J - J.mean(0)) / len(J) ** 0.5
        G = torch.eye(len(self.x), dtype=torch.float64) + EPSILON * spread.T @ spread
        lower = EPSILON * spread.T @ (bends - bends.mean()) / len(J) ** 0.5
        return torch.linalg.solve(G, lower)

    def error(self, answer):
        """Return the relative error."""
        return (answer.detach() - self.truth).norm() / self.truth.norm()

    def G(self, x):
        """Return the metric at the weights x, as anyone would write it."""
        J = jacfwd(self.losses)(x)
        S = J - J.mean(0)
        return torch.eye(len(x), dtype=x.dtype) + EPSILON / len(J) * S.T @ S


def network(p):
    """Γ(v, v) from a network, by us."""
    return DiffusionMetric.of(*p.arguments, EPSILON).christoffel(p.v)


def function(p):
    """Γ(v, v) from a function, by us."""
    return DiffusionMetric.of_losses(p.losses, p.x, EPSILON).christoffel(p.v)


def explicit(p):
    """Γ(v, v) from all derivatives of G, formed."""
    slopes = jacfwd(p.G)(p.x)  # slopes[i, j, k] = ∂_k G_ij
    lower = torch.einsum("kij,i,j->k", slopes, p.v, p.v)
    lower = lower - torch.einsum("ijk,i,j->k", slopes, p.v, p.v) / 2
    return torch.linalg.solve(p.G(p.x), lower)


def differences(p, h=1e-5):
    """Γ(v, v) from central differences along each coordinate, and along v."""

    def lowered(x):
        slopes = jvp(p.losses, (x,), (p.v,))[1]
        pull = vjp(p.losses, x)[1]
        return p.v + EPSILON / len(slopes) * pull(slopes - slopes.mean())[0]

    def length(x):
        return EPSILON * jvp(p.losses, (x,), (p.v,))[1].var(correction=0)

    along = (lowered(p.x + h * p.v) - lowered(p.x - h * p.v)) / (2 * h)
    unit = torch.eye(len(p.x), dtype=torch.float64)
    across = [(length(p.x + h * e) - length(p.x - h * e)) / (2 * h) for e in unit]
    return torch.linalg.solve(p.G(p.x), along - torch.stack(across) / 2)


def nested(p):
    """Γ(v, v) from derivatives of G v and of v·G v, and G formed."""

    def length(x):
        return EPSILON * jvp(p.losses, (x,), (p.v,))[1].var(correction=0)

    def lowered(x):
        slopes, pull = jvp(p.losses, (x,), (p.v,))[1], vjp(p.losses, x)[1]
        return EPSILON / len(slopes) * pull(slopes - slopes.mean())[0]

    along = jvp(lowered, (p.x,), (p.v,))[1]
    return torch.linalg.solve(p.G(p.x), along - grad(length)(p.x) / 2)


def geomstats_metric(p):
    """Return a metric of geomstats with the matrix G, as its guide says."""

    class Space(_base.VectorSpace):
        def __init__(self, dim):
            super().__init__(shape=(dim,), equip=False)

        def _create_basis(self):
            return torch.eye(self.dim, dtype=torch.float64)

    class Metric(_riemannian.RiemannianMetric):
        def metric_matrix(self, base_point=None):
            return p.G(base_point)

    space = Space(len(p.x))
    space.equip_with_metric(Metric)
    return space.metric


def geomstats(p):
    """Γ(v, v) from all Christoffel symbols of geomstats."""
    gamma = geomstats_metric(p).christoffels(p.x)
    return torch.einsum("kij,i,j->k", gamma, p.v, p.v)


def contest(d, rivals, *, goal="", targets=None):
    """Race our two ways against the named ones."""
    p = Problem(d)
    network(p), function(p)  # torch loads its forward derivatives at the first call
    ways = {"sgdbook": network, "sgdbook, from a function": function, **rivals}
    missing = absent.get("geomstats.geometry.riemannian_metric", "")
    return race(
        f"Γ(v, v), N = 1797, d = {d:,}",
        [
            Method(
                name,
                run=None if way is geomstats and missing else functools.partial(way, p),
                error=p.error,
                allowed=1e-6,
                why=missing if way is geomstats else "",
            )
            for name, way in ways.items()
        ],
        goal=goal,
        targets=targets,
        rounds=9,
        patience=2.0,
        limit=60.0,
        error_name="relative error",
    )


def main():
    """Run the races and save them."""
    threads()
    explicit_ways = {
        "geomstats": geomstats,
        "all derivatives of G (jacfwd)": explicit,
        "differences along coordinates": differences,
        "derivatives of v·Gv, G formed": nested,
    }
    without = dict(list(explicit_ways.items())[1:])
    races = [
        contest(10, explicit_ways),
        contest(
            101,
            explicit_ways,
            goal="1,000 times faster than geomstats, 20 times than the best explicit "
            "method",
            targets={
                "geomstats": {"ratio": 1000},
                "all derivatives of G (jacfwd)": {"ratio": 20},
                "differences along coordinates": {"ratio": 20},
                "derivatives of v·Gv, G formed": {"ratio": 20},
            },
        ),
        contest(325, dict(list(without.items())[1:])),
        contest(2377, {}),
    ]
    first, last = (
        next(row["seconds"] for row in races[k].rows if row["name"] == "sgdbook")
        for k in (0, -1)
    )
    growth = f"From d = 10 to d = 2,377 our time grows by a factor {last / first:.2g}."
    print(growth)
    save(
        "d",
        races,
        ["geomstats"],
        notes=[
            f"float64, ε = {EPSILON:g}; every method starts at a new point.",
            growth,
            "What is missing in a race takes minutes, or more memory than there is.",
        ],
    )


_base = peer("geomstats.geometry.base")
_riemannian = peer("geomstats.geometry.riemannian_metric")

if __name__ == "__main__":
    main()
