"""Small networks and plain loops, against which the numeric rooms are tested."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sgdbook import nets

F64 = torch.float64


def randn(*shape, seed=0, dtype=F64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=dtype)


def wide(n, d=100_000):
    """Return the losses sin of sums of 50 random weights, and which weights."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(d, (n, 50), generator=generator)
    return lambda x: torch.sin(x[index].sum(1)), index


def labels(n, classes=3):
    return torch.arange(n) % classes


def seeded(model, seed=0):
    """Give every parameter of a module reproducible values."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) / 2)
    return model.to(F64)


def near(a, b, rtol=0.0, atol=1e-13):
    """Compare entry by entry; torch's own default would forgive 1e-8."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=rtol, atol=atol)


def covariance(J):
    """Return D by its definition, sample by sample."""
    mean = sum(J) / len(J)
    return sum(torch.outer(g - mean, g - mean) for g in J) / len(J)


def loop(model, loss, inputs, targets):
    """Return J by one backward pass for each sample."""
    rows = []
    for x, y in zip(inputs, targets, strict=True):
        value = loss(model(x[None])[0], y)
        slopes = torch.autograd.grad(
            value, list(model.parameters()), materialize_grads=True
        )
        rows.append(torch.cat([s.reshape(-1) for s in slopes]))
    return torch.stack(rows)


class Residual(nn.Module):
    """Layers in a branch: not a chain, but each used once."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3, bias=False)

    def forward(self, x):
        return self.second(x + torch.tanh(self.first(x)))


class Twice(nn.Module):
    """One layer used two times."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class Tied(nn.Module):
    """Two layers that share a weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


class Aside(nn.Module):
    """A weight that is also used beside its layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x) + self.layer.weight[:, 0]


class Mixing(nn.Module):
    """Subtracts the mean of the batch: no sample stands alone."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        z = torch.tanh(self.layer(x))
        return z + z.mean(0)


class Backwards(nn.Module):
    """Applies its layers in another order than it names them."""

    def __init__(self):
        super().__init__()
        self.last, self.first = nn.Linear(4, 3), nn.Linear(4, 4)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))


class Unused(nn.Module):
    """Has a layer that it never calls."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = nn.Linear(4, 3), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)


class Ignored(nn.Module):
    """Calls a layer whose output it throws away."""

    def __init__(self):
        super().__init__()
        self.idle, self.used = nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x):
        self.idle(x)
        return self.used(x)


def conv():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3, bias=False)
    )


def mlp(activation="tanh"):
    return nets.mlp([4, 5, 4, 3], activation, seed=1, device="cpu")


LAYERED = {
    "tanh": mlp,
    "relu": lambda: mlp("relu"),
    "no bias": lambda: nn.Sequential(
        nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False)
    ),
    "residual": Residual,
    "ignored": Ignored,
    "sigmoid": lambda: nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 3)),
    "in place": lambda: nn.Sequential(
        nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 3)
    ),
}
OTHER = {
    "conv": conv,
    "twice": Twice,
    "tied": Tied,
    "aside": Aside,
    "mixing": Mixing,
    "backwards": Backwards,
    "unused": Unused,
    "norm": lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval(),
    "axes": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 2)), nn.Linear(2, 2), nn.Flatten()
    ),
}


def case(make, n=7):
    model = seeded(make())
    x = randn(n, 1, 4, 4, seed=2) if make is conv else randn(n, 4, seed=2)
    return model, cross_entropy, x, labels(n)
