r"""Numerical checks that can fail: samples, tensors or error laws against expressions.

Each check returns an `Evidence`: what was found, what the derived expression says, how
far apart the two are, and the controls that the same data rejected.  The rules:

* the expected value is a SymPy expression evaluated through the bridge, never typed;
* `mean` computes the standard error itself; the claim passes at :math:`|z|<5`, a
  control must be rejected at :math:`|z|\ge8`;
* `compare` and `order`, the deterministic kinds, state their tolerance; a control must
  miss by 8/5 of it;
* at least one control lies within a factor 4: rejecting a wild guess shows no power.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import sympy as sp
import torch

from sgdbook import cards
from sgdbook.bridge import evaluate
from sgdbook.devices import describe
from sgdbook.quadrature import HighPrecision

Z_CLAIM = 5.0
Z_CONTROL = 8.0
MARGIN = Z_CONTROL / Z_CLAIM
MIN_SAMPLES = 30
FAR = 4.0
MAX_RTOL = 1e-2


class CheckError(AssertionError):
    """A check failed, or what it was given does not meet the rules."""


@dataclass(frozen=True)
class Evidence:
    """A check that passed, and the controls that it rejected.

    Attributes
    ----------
    check : dict
        Kind, label, estimate, expected, stderr and z (or error and tolerance), n, ...
    controls : list of dict
        Name, expression, distance and z (or margin) of each.
    """

    check: dict
    controls: list[dict]

    def __repr__(self) -> str:
        """Return the evidence in a line or two."""
        return "\n".join(cards.check_lines(self.check, self.controls))

    def _repr_html_(self) -> str:
        return cards.evidence_html(self.check, self.controls)


def mean(
    samples,
    expected,
    *,
    at: dict | None = None,
    controls: dict,
    label: str = "",
    seed: int | None = None,
) -> Evidence:
    r"""Hold the mean of independent samples against a derived expression.

    With :math:`s` the sample standard deviation, :math:`z=(\bar x-e)\sqrt n/s`.

    Parameters
    ----------
    samples : torch.Tensor or array, shape (n,)
        Independent samples, batch means or replicates, n at least 30.
    expected : sympy.Expr or HighPrecision
        The derived expression (typed numbers are refused).
    at : dict
        Values of its symbols.
    controls : dict of str to sympy.Expr or HighPrecision
        Name to a plausible wrong expression, evaluated at the same values; 0 for "no
        such effect", beside a nearer one.
    label : str
        What was estimated.
    seed : int
        Seed of the simulation, for the record.

    Returns
    -------
    Evidence

    Raises
    ------
    CheckError
        If :math:`|z|\ge5`, a control is not rejected, or the samples or expressions
        do not meet the rules.

    Examples
    --------
    >>> mu = sp.Symbol("mu", real=True)
    >>> noise = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    >>> found = mean(3 + noise, mu, at={mu: 3.0}, controls={"twice": 2 * mu})
    >>> found.controls[0]["rejected"]
    True
    """
    data, device = _tensor(samples)
    if data.ndim != 1:
        raise CheckError(
            f"samples must have shape (n,); got {tuple(data.shape)}. Pass one number a "
            "replicate, for instance x.mean(dim=1)."
        )
    if len(data) < MIN_SAMPLES:
        raise CheckError(
            f"{len(data)} samples are too few for a standard error. Give at least "
            f"{MIN_SAMPLES} independent ones."
        )
    if not bool(torch.isfinite(data).all()):
        bad = int((~torch.isfinite(data)).nonzero()[0])
        raise CheckError(
            f"sample {bad} is {float(data[bad])}. A run that blew up proves nothing: "
            "lower the step size."
        )
    found = float(data.mean())
    stderr = float(data.std()) / math.sqrt(len(data))
    if stderr <= 1e-14 * abs(found):
        raise CheckError(
            "the standard error is zero: the samples are all equal. Use compare for "
            "deterministic results."
        )
    target, text = _scalar(expected, at, "expected value")
    z = (found - target) / stderr
    if not abs(z) < Z_CLAIM:
        raise CheckError(
            f"expected {target:.6g} from {text}, found {found:.6g} ± {stderr:.2g} "
            f"(n = {len(data)}), z = {z:+.1f} where |z| < {Z_CLAIM:g} is required. "
            "Look at the expression, then at the step size of what was simulated."
        )

    spread = float(data.std())
    rejected = _reject(
        controls,
        lambda wrong, what: (0.0, "0") if _nothing(wrong) else _scalar(wrong, at, what),
        measure=lambda wrong: (found - wrong) / stderr,
        unit="z",
        least=Z_CONTROL,
        near=lambda wrong: _near(abs(wrong - target), abs(wrong), abs(target), spread),
        distance=lambda wrong: abs(wrong - target) / (abs(target) or spread),
    )
    check = {"kind": "mean", "label": label, "estimate": found, "expected": target}
    check |= {"expression": text, "stderr": stderr, "z": z, "n": len(data)}
    return Evidence(check | {"device": device, "seed": seed}, rejected)


def compare(
    found,
    expected,
    *,
    at: dict | None = None,
    controls: dict,
    rtol: float,
    label: str = "",
    seed: int | None = None,
) -> Evidence:
    r"""Hold a deterministic result against a derived expression.

    The error is :math:`\max|x-e|/\max|e|`, or :math:`\max|x-e|` if :math:`e=0`.

    Parameters
    ----------
    found : torch.Tensor, array or float
        Computed by another route; any shape.
    expected : sympy.Expr or HighPrecision
        The derived expression, evaluated in float64.
    at : dict
        Values of its symbols.
    controls : dict of str to sympy.Expr or HighPrecision
        Name to a plausible wrong expression, evaluated at the same values.
    rtol : float
        Stated tolerance, from 0 (equality, for integers) to 0.01.
    label, seed
        As in `mean`.

    Returns
    -------
    Evidence

    Raises
    ------
    CheckError
        If the error exceeds the tolerance, a control does not, shapes differ, or
        something is not finite.

    Examples
    --------
    >>> n = sp.Symbol("n", integer=True, positive=True)
    >>> pairs = len([(i, j) for i in range(6) for j in range(i)])
    >>> half = n * (n - 1) / 2
    >>> compare(pairs, half, at={n: 6}, controls={"n**2/2": n**2 / 2}, rtol=0)
    found 15, expected 15 (exact)
    control n**2/2 rejected
    """
    if not 0 <= rtol <= MAX_RTOL:
        raise CheckError(
            f"rtol must lie in [0, {MAX_RTOL}]; got {rtol}. Rounding wants about "
            "1e-12, quadrature 1e-8; 0 asks for equality."
        )
    data, device = _tensor(found)
    target, text = _value(expected, at, "expected value")
    if data.shape != target.shape:
        raise CheckError(
            f"what was found has shape {tuple(data.shape)}, what was expected "
            f"{tuple(target.shape)}. Evaluate the expression at the same points."
        )
    if not data.numel():
        raise CheckError("what was found is empty. Compare at least one number.")
    if not bool(torch.isfinite(data).all()):
        raise CheckError("what was found is not finite. Look at the computation.")
    if not rtol and max(float(data.abs().max()), float(target.abs().max())) >= 2**53:
        raise CheckError(
            "equality was asked of integers beyond 2**53, which float64 rounds. Prove "
            "it with SymPy, or state a tolerance."
        )
    scale = float(target.abs().max()) or 1.0
    error = float((data - target).abs().max()) / scale
    if not error <= rtol:
        worst = int((data - target).abs().argmax())
        raise CheckError(
            f"expected {float(target.flatten()[worst]):.10g} from {text}, found "
            f"{float(data.flatten()[worst]):.10g}: error {error:.2g} where {rtol:g} is "
            "required. Look at the expression, then at the computation."
        )

    def measure(wrong):
        off = float((data - wrong).abs().max()) / scale
        return off / rtol if rtol else (math.inf if off else 0.0)

    def evaluate_control(wrong, what):
        if _nothing(wrong):
            return torch.zeros_like(target), "0"
        value, text = _value(wrong, at, what)
        if value.shape != target.shape:
            raise CheckError(
                f"the {what} has shape {tuple(value.shape)}, not {tuple(target.shape)}."
                " Mutate the derived expression."
            )
        return value, text

    rejected = _reject(
        controls,
        evaluate_control,
        measure=measure,
        unit="margin",
        least=MARGIN,
        near=lambda wrong: _near(
            float((wrong - target).abs().max()),
            float(wrong.abs().max()),
            float(target.abs().max()),
            1.0,
        ),
        distance=lambda wrong: float((wrong - target).abs().max()) / scale,
    )
    one = data.numel() == 1
    check = {
        "kind": "deterministic" if rtol else "exact",
        "label": label,
        "estimate": float(data) if one else f"{data.numel()} values",
        "expected": float(target) if one else f"{data.numel()} values",
        "expression": text,
        "error": error,
        "tolerance": rtol,
        "n": data.numel(),
        "device": device,
        "seed": seed,
    }
    return Evidence(check, rejected)


def order(parameter, errors, *, expected, wrong, tolerance=0.15, label="") -> Evidence:
    r"""Hold the fitted order of an error law against the derived one.

    The order is the slope of :math:`\log|e|` against :math:`\log h`.

    Parameters
    ----------
    parameter, errors : array, shape (n,)
        Small parameters (positive, at least three) and the errors at them.
    expected, wrong : int or sympy.Rational
        The derived order, and the neighbouring one, at most 1 away, that the fit must
        reject.
    tolerance : float
        How far the fitted order may be off, at most 0.25.
    label : str
        Which error law.

    Returns
    -------
    Evidence

    Raises
    ------
    CheckError
        If the fitted order is another, or the data do not allow a fit.

    Examples
    --------
    >>> h = torch.tensor([0.1, 0.05, 0.025], dtype=torch.float64)
    >>> order(h, torch.sin(h) - h, expected=3, wrong=2).check["kind"]
    'order'
    """
    h, e = _tensor(parameter)[0].flatten(), _tensor(errors)[0].flatten().abs()
    fit = len(h) >= 3 and len(h) == len(e) and bool((h > 0).all() and (e > 0).all())
    if not (fit and bool(torch.isfinite(e).all())):
        raise CheckError(
            "an order needs at least three positive parameters with finite errors that "
            f"are not zero; got {h.tolist()} and {e.tolist()}. Choose parameters at "
            "which the error stands above rounding."
        )
    for exact in (expected, wrong):
        if isinstance(exact, bool) or not isinstance(exact, int | sp.Rational):
            raise CheckError(
                f"an order is an int or a sympy.Rational; got {exact!r}. Pass "
                "sp.Rational(1, 2) for one half."
            )
    if not 0 < tolerance <= 0.25 or not 0 < abs(expected - wrong) <= 1:
        raise CheckError(
            "tolerance must lie in (0, 0.25] and the wrong order differ from the "
            f"expected one by at most 1; got {tolerance}, {expected}, {wrong}."
        )
    x, y = h.log() - h.log().mean(), e.log() - e.log().mean()
    slope = float((x * y).sum() / (x * x).sum())
    if not abs(slope - float(expected)) <= tolerance:
        raise CheckError(
            f"expected order {expected}, found {slope:.3f}, off by more than "
            f"{tolerance:g}. Use smaller parameters, or look for another term."
        )
    rest = float((y - slope * x).square().sum())
    stderr = math.sqrt(rest / (len(h) - 2) / float((x * x).sum()))
    if not stderr <= tolerance:
        raise CheckError(
            f"the fitted order {slope:.3f} has the standard error {stderr:.2g}, more "
            f"than the tolerance {tolerance:g}: the errors scatter about the line. "
            "Reduce the noise, or spread the parameters."
        )
    margin = abs(slope - float(wrong)) / tolerance
    if not margin >= MARGIN:
        raise CheckError(
            f"the control order {wrong} was not rejected: the fitted order {slope:.3f} "
            f"is {margin:.1f} tolerances off where {MARGIN:g} are required. State a "
            "smaller tolerance."
        )
    check = {"kind": "order", "label": label, "estimate": slope, "stderr": stderr}
    check |= {"expected": _plain(expected), "expression": f"order {expected}"}
    check |= {"order": slope, "tolerance": tolerance, "n": len(h)}
    control = {"name": f"order {wrong}", "expression": str(wrong), "rejected": True}
    control |= {"distance": _plain(abs(expected - wrong)), "margin": margin}
    return Evidence(check | {"device": "", "seed": None}, [control])


def _plain(number) -> int | float:
    """Return an exact order as what JSON can hold."""
    return int(number) if int(number) == number else float(number)


def _tensor(values) -> tuple[torch.Tensor, str]:
    # Python floats would become float32.
    plain = None if hasattr(values, "dtype") else torch.float64
    data = torch.as_tensor(values, dtype=plain)
    if data.is_complex():
        raise CheckError("complex numbers were found. Check real and imaginary parts.")
    return data.detach().to("cpu", torch.float64), describe(data.device)


def _value(expected, at, what) -> tuple[torch.Tensor, str]:
    """Evaluate an expression; refuse a number that somebody typed."""
    if isinstance(expected, HighPrecision) and _is_derived(expected.expression):
        text = f"{shorten(expected.expression)} to {expected.digits} digits"
        return torch.tensor(float(expected), dtype=torch.float64), text
    if not isinstance(expected, sp.Basic | sp.MatrixBase) or not expected.free_symbols:
        raise CheckError(
            f"the {what} {expected!r:.80} was typed, not derived. Pass the SymPy "
            "expression and the values of its symbols as at={...}."
        )
    try:
        here = {s: v.cpu() if hasattr(v, "cpu") else v for s, v in (at or {}).items()}
        value = evaluate(expected, here, device="cpu").detach()
    except (TypeError, ValueError, IndexError) as error:
        raise CheckError(f"the {what} cannot be evaluated. {error}") from error
    if not bool(torch.isfinite(value).all()):
        raise CheckError(
            f"the {what} from {shorten(expected)} is not finite. Look at its values."
        )
    return value, shorten(expected)


def _nothing(control) -> bool:
    """Tell the control that there is no effect at all: zero needs no derivation."""
    return isinstance(control, int | sp.Integer) and control == 0


def _is_derived(expr) -> bool:
    """Tell an expression from a number: it has symbols, or an integral over one."""
    return bool(getattr(expr, "free_symbols", ())) or any(
        integral.function.free_symbols for integral in expr.atoms(sp.Integral)
    )


def _scalar(expected, at, what) -> tuple[float, str]:
    value, text = _value(expected, at, what)
    if value.numel() != 1:
        raise CheckError(
            f"the {what} has shape {tuple(value.shape)}, one number was expected. "
            "Verify one mean at a time."
        )
    return float(value), text


def _reject(controls, value, *, measure, unit, least, near, distance) -> list[dict]:
    """Demand that the same data reject every control, one of them nearby."""
    if not controls:
        raise CheckError(
            "a check needs a control that the same data must reject. Pass "
            "controls={'what is wrong': wrong_expression}."
        )
    rows, close = [], False
    for name, expression in controls.items():
        wrong, text = value(expression, f"control {name!r}")
        size = measure(wrong)
        if not abs(size) >= least:
            raise CheckError(
                f"the control {name!r} was not rejected: {unit} = {size:+.1f} where "
                f"{least:g} is required. Take more data, or find why the check has no "
                "power against it."
            )
        close = close or near(wrong)
        row = {"name": name, "expression": text, "distance": distance(wrong)}
        row |= {unit: size if math.isfinite(size) else "exact", "rejected": True}
        rows.append(row)
    if not close:
        raise CheckError(
            f"every control is more than a factor {FAR:g} off ({', '.join(controls)}). "
            "Add a nearer one: rejecting a wild guess shows no power."
        )
    return rows


def _near(distance, wrong, target, scale) -> bool:
    """Say whether a control is at most a factor 4 off; about zero, 4 of `scale`."""
    if not target:
        return distance <= FAR * scale
    return distance <= (FAR - 1) * target and wrong * FAR >= target


def shorten(expr) -> str:
    """Return an expression as text of at most 300 characters.

    Parameters
    ----------
    expr : sympy.Basic

    Returns
    -------
    str
    """
    text = sp.sstr(expr)
    return text if len(text) <= 300 else text[:297] + "..."
