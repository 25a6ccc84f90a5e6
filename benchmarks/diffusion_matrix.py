"""Part C: the diffusion matrix of a network on the digits, by us and by others.

D is the centred covariance of the per-sample gradients, float32. Every method starts
from the network, except for products with one vector, for which each may prepare what
it likes. The truth is computed in float64 from the matrix of gradients.
"""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn
from torch.func import functional_call, grad, jvp, vjp, vmap
from torch.nn.functional import cross_entropy

from benchmarks.harness import Method, absent, peer, race, save, threads
from sgdbook import data, nets
from sgdbook.gradients import losses_of, per_sample_gradients
from sgdbook.noise import DiffusionMatrix

PAIRS = 20


class Problem:
    """A network, its data, and the truth."""

    def __init__(self, widths, steps):
        digits = data.digits(device="cpu", dtype=torch.float32)
        self.model = nets.mlp(widths, "tanh", seed=0, device="cpu", dtype=torch.float32)
        if steps:
            more = {"batch_size": 32, "learning_rate": 0.2, "seed": 1}
            nets.train(self.model, digits, steps=steps, **more)
        self.inputs, self.targets = digits.inputs, digits.targets
        self.arguments = self.model, cross_entropy, self.inputs, self.targets
        self.N, self.d = len(digits), nets.num_parameters(self.model)
        generator = torch.Generator().manual_seed(2)
        self.v = torch.randn(self.d, generator=generator)

    @functools.cached_property
    def exact(self):
        """The same problem in float64."""
        model = nets.mlp(self.widths, "tanh", seed=0, device="cpu")
        model.load_state_dict(self.model.state_dict())
        return model, cross_entropy, self.inputs.double(), self.targets

    @functools.cached_property
    def spread(self):
        """The centred gradients over √N in float64, so that D = spreadᵀ spread."""
        J = per_sample_gradients(*self.exact)
        return (J - J.mean(0)) / self.N**0.5

    @property
    def widths(self):
        """The widths of the layers."""
        layers = [m for m in self.model if isinstance(m, nn.Linear)]
        return [layers[0].in_features, *(m.out_features for m in layers)]

    @functools.cached_property
    def matrix(self):
        """D."""
        return self.spread.T @ self.spread

    @functools.cached_property
    def gram(self):
        """The centred Gram matrix."""
        return self.spread @ self.spread.T

    @functools.cached_property
    def eigenvalues(self):
        """The largest eigenvalues of D."""
        return torch.linalg.eigvalsh(self.gram).flip(0)[:PAIRS]

    def error_of_pairs(self, answer):
        """Return the largest error of a value, or residual of a pair, over λ₁."""
        values, vectors = (torch.as_tensor(np.array(a)).double() for a in answer)
        order = values.argsort(descending=True)
        values, vectors = values[order], vectors[:, order]
        wrong = (values - self.eigenvalues).abs().max()
        image = self.spread.T @ (self.spread @ vectors)
        residual = (image - vectors * values).norm(dim=0).max()
        return max(wrong, residual) / self.eigenvalues[0]


def relative(truth, answer):
    """Return the relative error in the norm of all entries."""
    answer = torch.as_tensor(np.array(answer)).double()
    return (answer - truth).norm() / truth.norm()


# --- the others ----------------------------------------------------------------------


def plain_gradients(p):
    """Return J as anyone would write it."""
    weights = dict(p.model.named_parameters())

    def one(weights, x, y):
        return cross_entropy(functional_call(p.model, weights, x[None])[0], y)

    tree = vmap(grad(one), (None, 0, 0))(weights, p.inputs, p.targets)
    return torch.cat([leaf.flatten(1) for leaf in tree.values()], 1).detach()


def plain_spread(p):
    """Return the centred gradients."""
    J = plain_gradients(p)
    return J - J.mean(0)


def plain_dense(p):
    """Return D."""
    S = plain_spread(p)
    return S.T @ S / p.N


def plain_gram(p):
    """Return the centred Gram matrix."""
    S = plain_spread(p)
    return S @ S.T / p.N


def plain_trace(p):
    """Return the trace of D."""
    return plain_spread(p).square().sum() / p.N


def plain_pairs(p):
    """Return the largest eigenpairs through the Gram matrix."""
    S = plain_spread(p)
    values, u = torch.linalg.eigh(S @ S.T / p.N)
    values, u = values[-PAIRS:], u[:, -PAIRS:]
    return values, S.T @ u / (p.N * values).sqrt()


def plain_product(p):
    """Return v -> D v by a forward and a backward derivative."""
    losses, x = losses_of(*p.arguments), nets.flatten(p.model)

    def product(v):
        slopes = jvp(losses, (x,), (v,))[1]
        return vjp(losses, x)[1]((slopes - slopes.mean()) / p.N)[0]

    return product


def jax_functions(p):
    """Return compiled functions of the weights: J centred, D, Gram, and D v."""
    jax, jnp = _jax, _jax.numpy
    x, y = jnp.array(p.inputs.numpy()), jnp.array(p.targets.numpy())
    weights = [jnp.array(w.detach().numpy()) for w in p.model.parameters()]

    def one(weights, x, y):
        for k in range(0, len(weights), 2):
            x = weights[k] @ x + weights[k + 1]
            x = jnp.tanh(x) if k + 2 < len(weights) else x
        return jax.nn.logsumexp(x) - x[y]

    def spread(weights, x, y):
        tree = jax.vmap(jax.grad(one), (None, 0, 0))(weights, x, y)
        J = jnp.concatenate([g.reshape(p.N, -1) for g in tree], 1)
        return J - J.mean(0)

    def dense(weights, x, y):
        S = spread(weights, x, y)
        return S.T @ S / p.N

    def gram(weights, x, y):
        S = spread(weights, x, y)
        return S @ S.T / p.N

    def trace(weights, x, y):
        return jnp.square(spread(weights, x, y)).sum() / p.N

    def product(weights, x, y, v):
        def losses(weights):
            return jax.vmap(one, (None, 0, 0))(weights, x, y)

        slopes = jax.jvp(losses, (weights,), (v,))[1]
        back = jax.vjp(losses, weights)[1]((slopes - slopes.mean()) / p.N)[0]
        return jnp.concatenate([b.ravel() for b in back])

    compiled = {
        f.__name__: functools.partial(jax.jit(f), weights, x, y)
        for f in (dense, gram, trace, product)
    }
    sizes = [w.numel() for w in p.model.parameters()]
    tree = [
        jnp.array(part.view_as(w).numpy())
        for part, w in zip(p.v.split(sizes), p.model.parameters(), strict=True)
    ]

    def wait(f, *more):
        return np.asarray(f(*more).block_until_ready())

    runs = {name: functools.partial(wait, f) for name, f in compiled.items()}
    runs["product"] = functools.partial(wait, compiled["product"], tree)
    return runs


def curvlinops_operator(p):
    """Return the uncentred covariance of curvlinops, and the mean gradient."""
    operator = _curvlinops.EFLinearOperator(
        p.model,
        nn.CrossEntropyLoss(),
        list(p.model.parameters()),
        [(p.inputs, p.targets)],
        check_deterministic=False,
        num_data=p.N,
    )
    loss = cross_entropy(p.model(p.inputs), p.targets)
    slopes = torch.autograd.grad(loss, list(p.model.parameters()))
    return operator, torch.cat([s.flatten() for s in slopes])


def curvlinops_dense(p):
    """Return D: the operator times the unit matrix."""
    operator, mean = curvlinops_operator(p)
    return (operator @ torch.eye(p.d)).detach() - torch.outer(mean, mean)


def curvlinops_product(p):
    """Return v -> D v."""
    operator, mean = curvlinops_operator(p)
    return lambda v: (operator @ v).detach() - mean * (mean @ v)


def curvlinops_pairs(p):
    """Return the largest eigenpairs by ARPACK."""
    operator, mean = curvlinops_operator(p)
    operator, mean = operator.to_scipy(dtype=np.float32), mean.numpy()

    def product(v):
        return operator.matvec(v.ravel()) - mean * (mean @ v.ravel())

    centred = LinearOperator((p.d, p.d), matvec=product, dtype=np.float32)
    return eigsh(centred, k=PAIRS)


# --- the races -----------------------------------------------------------------------


def methods(p, error, allowed, **runs):
    """Return the methods; one that needs a missing peer says so."""
    needs = {"JAX": "jax", "curvlinops": "curvlinops"}
    found = []
    for name, run in runs.items():
        name = name.replace("_", " ")
        missing = [m for word, m in needs.items() if word in name and m in absent]
        found.append(
            Method(
                name,
                run=None if missing else run,
                error=error,
                allowed=allowed,
                why=absent[missing[0]] if missing else "",
            )
        )
    return found


def small():
    """Return the races of 2,410 parameters."""
    p = Problem([64, 32, 10], steps=500)
    jax = jax_functions(p) if _jax else dict.fromkeys(("dense", "gram", "trace"))
    jax.setdefault("product", None)
    D = DiffusionMatrix.of(*p.arguments)
    J = plain_gradients(p)
    size = f"N = {p.N}, d = {p.d:,}"
    product = plain_product(p)
    other = curvlinops_product(p) if _curvlinops else None
    return [
        race(
            f"all of D, {size}",
            [
                *methods(
                    p,
                    functools.partial(relative, p.matrix),
                    1e-4,
                    sgdbook=lambda: DiffusionMatrix.of(*p.arguments).dense(),
                    vmap_and_matmul=lambda: plain_dense(p),
                    JAX=jax["dense"],
                    curvlinops=lambda: curvlinops_dense(p),
                ),
                Method("the matrix product alone (BLAS)", run=lambda: J.T @ J),
            ],
            goal="1.6 times faster than JAX, or within 15 % of the product alone",
            targets={
                "JAX": {"ratio": 1.6},
                "the matrix product alone (BLAS)": {"ratio": 0.87},
            },
            rounds=7,
            patience=1.0,
            error_name="relative error",
        ),
        race(
            f"centred Gram matrix, {size}",
            methods(
                p,
                functools.partial(relative, p.gram),
                1e-4,
                sgdbook=lambda: DiffusionMatrix.of(*p.arguments).gram(),
                from_the_gradients=lambda: plain_gram(p),
                JAX=jax["gram"],
            ),
            goal="at least 6 times faster than from the gradients",
            targets={"from the gradients": {"ratio": 6}},
            rounds=9,
            error_name="relative error",
        ),
        race(
            f"trace of D, {size}",
            methods(
                p,
                functools.partial(relative, p.gram.trace()),
                1e-4,
                sgdbook=lambda: DiffusionMatrix.of(*p.arguments).trace(),
                from_the_gradients=lambda: plain_trace(p),
                JAX=jax["trace"],
            ),
            rounds=15,
            error_name="relative error",
        ),
        race(
            f"{PAIRS} largest eigenpairs of D, {size}",
            methods(
                p,
                p.error_of_pairs,
                1e-4,
                sgdbook=lambda: DiffusionMatrix.of(*p.arguments).eigenpairs(PAIRS),
                Gram_matrix_of_the_gradients=lambda: plain_pairs(p),
                curvlinops_and_ARPACK=lambda: curvlinops_pairs(p),
            ),
            goal="at least 3.5 times faster than by the Gram matrix of the gradients",
            targets={"Gram matrix of the gradients": {"ratio": 3.5}},
            rounds=7,
            patience=1.0,
            error_name="error over the largest eigenvalue",
        ),
        race(
            f"D v, {size}",
            methods(
                p,
                functools.partial(relative, p.spread.T @ (p.spread @ p.v.double())),
                1e-4,
                sgdbook=lambda: D @ p.v,
                jvp_and_vjp=lambda: product(p.v),
                JAX_jvp_and_vjp=jax["product"],
                curvlinops=lambda: other(p.v),
            ),
            rounds=31,
            error_name="relative error",
        ),
    ]


def ours_of_a_million(p):
    """Return the largest eigenpairs, of as many parameters as it may be."""
    return DiffusionMatrix.of(*p.arguments).eigenpairs(PAIRS)


MEMORY = {"sgdbook": ours_of_a_million, "curvlinops and ARPACK": curvlinops_pairs}
MILLION = [64, 1000, 930, 10]


def memory(name):
    """Return by how much the peak of a new process grows, in MiB."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.diffusion_matrix"]
    done = subprocess.run([*command, name], capture_output=True, text=True, check=True)
    return {"peak MiB": round(float(done.stdout.split()[-1]))}


def peak():
    """Return the most memory that this process ever took, in KiB, under Linux."""
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if "VmHWM" in line)


def measure(name):
    """Print by how much the peak of this process grows."""
    threads()
    p = Problem(MILLION, steps=0)
    before = peak()
    MEMORY[name](p)
    print((peak() - before) / 1024)


def large():
    """Return the races of a million parameters."""
    p = Problem(MILLION, steps=0)
    D = DiffusionMatrix.of(*p.arguments)
    product = plain_product(p)
    other = curvlinops_product(p) if _curvlinops else None
    truth = plain_product_in_parts(p)
    size = f"N = {p.N}, d = {p.d:,}"
    pairs = methods(
        p,
        functools.partial(error_by_products, p, D),
        1e-4,
        sgdbook=lambda: ours_of_a_million(p),
        curvlinops_and_ARPACK=lambda: curvlinops_pairs(p),
    )
    for m in pairs:
        m.facts = functools.partial(lambda name, answer: memory(name), m.name)
    return [
        race(
            f"D v, {size}",
            methods(
                p,
                functools.partial(relative, truth),
                1e-4,
                sgdbook=lambda: D @ p.v,
                jvp_and_vjp=lambda: product(p.v),
                curvlinops=lambda: other(p.v),
            ),
            goal="at least 2.5 times faster than jvp and vjp",
            targets={"jvp and vjp": {"ratio": 2.5}},
            rounds=5,
            error_name="relative error",
        ),
        race(
            f"{PAIRS} largest eigenpairs of D, {size}",
            pairs,
            goal="at least 10 times faster than curvlinops, in less than 512 MiB",
            targets={"curvlinops and ARPACK": {"ratio": 10}},
            rounds=3,
            patience=5.0,
            error_name="residual over the largest eigenvalue",
        ),
    ]


def plain_product_in_parts(p, part=100):
    """Return D v in float64, from the gradients of a few samples at a time."""
    model, loss, x, y = p.exact
    v = p.v.double()
    mean, second, slopes = torch.zeros_like(v), torch.zeros_like(v), 0.0
    for i in range(0, p.N, part):
        J = per_sample_gradients(model, loss, x[i : i + part], y[i : i + part])
        along = J @ v
        mean += J.sum(0) / p.N
        second += J.T @ along / p.N
        slopes += float(along.sum()) / p.N
    return second - mean * slopes


def error_by_products(p, D, answer):
    """Return the largest residual over λ₁; D v itself has its own race."""
    values, vectors = (torch.as_tensor(np.array(a)) for a in answer)
    return (D @ vectors - vectors * values).norm(dim=0).max() / values.max()


def main():
    """Run the races and save them."""
    threads()
    races = [*small(), *large()]
    save(
        "c",
        races,
        ["jax", "curvlinops-for-pytorch", "scipy"],
        notes=[
            "float32; every method starts from the network, but D v from whatever a "
            "method has prepared.",
            "curvlinops has the uncentred matrix; the mean gradient is taken off.",
            "Peak memory is that of a new process, above what network and data take.",
        ],
    )


_jax = peer("jax")
_curvlinops = peer("curvlinops")

if __name__ == "__main__":
    if sys.argv[1:]:
        measure(sys.argv[1])
    else:
        main()
