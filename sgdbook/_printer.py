"""How SymPy expressions are printed as torch code; used by `bridge` only."""

from __future__ import annotations

import math

import sympy as sp
import torch
from sympy.printing.pytorch import TorchPrinter


class Printer(TorchPrinter):
    """SymPy's torch printer, with numbers, extrema, matrices and sums mended."""

    def __init__(self):
        super().__init__({"fully_qualified_modules": False})
        self.depth = 0  # nested sums around what is being printed
        self.indexing = 0  # > 0 inside an index, a limit or a dimension
        self.emptyPrinter = self._print_not_supported = self._refuse

    def _print(self, expr, **kwargs):
        scalar = isinstance(expr, sp.Expr) and not getattr(expr, "is_Matrix", False)
        if scalar and expr.is_number and not expr.is_Integer and expr.is_real:
            return repr(float(expr))
        return super()._print(expr, **kwargs)

    def _index(self, expr):
        self.indexing += 1
        text = self._print(expr)
        self.indexing -= 1
        return text

    def _print_Symbol(self, expr):
        name = super()._print_Symbol(expr)
        return name if self.indexing else f"_number({name})"

    def _print_Function(self, expr):
        if isinstance(expr, sp.Function) and type(expr) not in self.mapping:
            raise NotImplementedError(type(expr).__name__)
        if not isinstance(expr, sp.Expr) or type(expr) in self.mapping:
            return super()._print_Function(expr)
        raise NotImplementedError(type(expr).__name__)

    def _refuse(self, expr):
        raise NotImplementedError(type(expr).__name__)

    _print_Expr = _print_Application = _print_MatrixExpr = _print_Function
    _print_Integral = _print_Derivative = _print_Product = _print_gamma = _refuse
    _print_BlockMatrix = _print_Lambda = _print_Tuple = _print_ImaginaryUnit = _refuse

    def _extremum(self, expr, name):
        text = self._print(expr.args[0])
        for arg in expr.args[1:]:
            text = f"{name}(_number({text}), _number({self._print(arg)}))"
        return text

    def _print_Max(self, expr):
        return self._extremum(expr, "maximum")

    def _print_Min(self, expr):
        return self._extremum(expr, "minimum")

    def _print_Pow(self, expr):
        if self.indexing:
            return super(TorchPrinter, self)._print_Pow(expr)
        base = self._print(expr.base)
        if expr.exp == sp.S.Half:
            return f"sqrt(_number({base}))"
        return f"(_number({base})**({self._print(expr.exp)}))"

    def _print_atan2(self, expr):
        up, along = (f"_number({self._print(arg)})" for arg in expr.args)
        return f"atan2({up}, {along})"

    def _print_Heaviside(self, expr):
        value, at_zero = map(self._print, expr.args)
        return f"heaviside(_number({value}), _number({at_zero}))"

    def _print_Piecewise(self, expr):
        text = "_nan"
        for value, condition in reversed(expr.args):
            test = f"torch_bool({self._print(condition)})"
            text = f"where({test}, _number({self._print(value)}), _number({text}))"
        return text

    def _print_Relational(self, expr):
        left, right = (f"_number({self._print(side)})" for side in expr.args)
        return f"({left} {expr.rel_op} {right})"

    def _logical(self, expr, sign):
        return sign.join(f"torch_bool({self._print(arg)})" for arg in expr.args)

    def _print_And(self, expr):
        return f"({self._logical(expr, ' & ')})"

    def _print_Or(self, expr):
        return f"({self._logical(expr, ' | ')})"

    def _print_Not(self, expr):
        return f"(~{self._logical(expr, '')})"

    def _print_Infinity(self, expr):
        return "_inf"

    def _print_NegativeInfinity(self, expr):
        return "-_inf"

    def _print_NaN(self, expr):
        return "_nan"

    def _print_BooleanTrue(self, expr):
        return "True"

    def _print_BooleanFalse(self, expr):
        return "False"

    def _print_KroneckerDelta(self, expr):
        left, right = (self._index(arg) for arg in expr.args[:2])
        return f"_number(({left}) == ({right}))"

    def _print_Indexed(self, expr):
        index = ", ".join(self._index(i - 1) for i in expr.indices)
        return f"_take({self._index(expr.base.label)}, {index})"

    def _print_MatrixElement(self, expr):
        index = ", ".join(self._index(i) for i in (expr.i, expr.j))
        return f"_take({self._print(expr.parent)}, {index})"

    def _print_Sum(self, expr):
        text, opened = None, len(expr.limits)
        self.depth += opened
        text = self._print(expr.function)
        for index, low, high in expr.limits:
            name = self._index(index)
            text = (
                f"_sum(lambda {name}: {text}, {self._index(low)}, "
                f"{self._index(high)}, {-self.depth})"
            )
            self.depth -= 1
        return text

    def _print_Transpose(self, expr):
        return f"({self._print(expr.arg)}).mT"

    def _print_MatMul(self, expr):
        scalar, matrices = expr.as_coeff_matrices()
        product = " @ ".join(f"({self._print(m)})" for m in matrices)
        return product if scalar == 1 else f"_scale({self._print(scalar)}, {product})"

    def _print_MatPow(self, expr):
        return f"matrix_power({self._print(expr.base)}, {self._index(expr.exp)})"

    def _print_MatrixBase(self, expr):
        rows = (", ".join(self._print(x) for x in row) for row in expr.tolist())
        return "_matrix([" + ", ".join(f"[{row}]" for row in rows) + "])"

    def _print_Identity(self, expr):
        return f"_eye({self._index(expr.shape[0])})"

    def _print_ZeroMatrix(self, expr):
        return f"_full({self._index(expr.rows)}, {self._index(expr.cols)}, 0)"

    def _print_OneMatrix(self, expr):
        return f"_full({self._index(expr.rows)}, {self._index(expr.cols)}, 1)"


def runtime(dtype, device, axes) -> dict:
    """Return the few functions that printed code calls beside torch's own.

    Inside, scalars carry `axes` trailing axes, one for each nested sum.
    """
    like = {"dtype": dtype, "device": device}

    def number(value):
        if isinstance(value, torch.Tensor):
            return value.to(**like)
        return torch.as_tensor(value, **like)

    def strip(value):
        value = number(value)
        value = value.expand(torch.broadcast_shapes(value.shape, (1,) * axes))
        return value.reshape(value.shape[: value.ndim - axes])

    def take(base, *index):
        if base.ndim != len(index):
            raise IndexError(
                f"{len(index)} indices were given for a tensor of shape "
                f"{tuple(base.shape)}. Index every axis."
            )
        for position, (i, size) in enumerate(zip(index, base.shape, strict=True)):
            low, high = (i.min(), i.max()) if isinstance(i, torch.Tensor) else (i, i)
            if int(low) != low or (low is not i and i.is_floating_point()):
                raise IndexError(
                    f"index {position + 1} is not an integer. Declare its symbol with "
                    "integer=True."
                )
            if low < 0 or high >= size:
                raise IndexError(
                    f"index {position + 1} runs from {int(low) + 1} to {int(high) + 1},"
                    f" but the tensor has shape {tuple(base.shape)}. Indexed "
                    "quantities count from 1; check the range of the sum."
                )
        return base[index]

    def total(body, low, high, axis):
        if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
            low, high = torch.as_tensor(low), torch.as_tensor(high)
            first, last = int(low.min()), int(high.max())
        else:
            first, last = low, high
        if last < first:
            return torch.zeros((1,) * -axis, **like)
        index = torch.arange(first, last + 1, device=device)
        index = index.reshape(-1, *[1] * (-axis - 1))
        value = number(body(index)) + torch.zeros(index.shape, **like)
        inside = (index >= low) & (index <= high)
        if not bool(inside.all()):
            value = torch.where(inside, value, torch.zeros((), **like))
        return value.sum(dim=axis, keepdim=True)

    def matrix(rows):
        cells = torch.broadcast_tensors(*[strip(x) for row in rows for x in row])
        stacked = torch.stack(cells, dim=-1)
        return stacked.reshape(*stacked.shape[:-1], len(rows), len(rows[0]))

    return {
        "_number": number,
        "_take": take,
        "_sum": total,
        "_matrix": matrix,
        "_scale": lambda factor, value: strip(factor)[..., None, None] * value,
        "_strip": strip,
        "_eye": lambda n: torch.eye(n, **like),
        "_full": lambda n, m, value: torch.full((n, m), value, **like),
        "torch_bool": lambda x: torch.as_tensor(x, device=device),
        "_nan": math.nan,
        "_inf": math.inf,
        "matrix_power": torch.linalg.matrix_power,
    }
