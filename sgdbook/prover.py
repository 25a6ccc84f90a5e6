r"""Decide whether a SymPy expression is identically zero, and show a point where not.

The prover accepts an identity only when simplification ends in an exact ``0``; it
rejects one only with a *witness*, a point at which the difference is not zero.  What
it can do neither for, it reports as undecided.  Sums over a symbolic range, such as
:math:`\sum_{k=1}^N a_kb_k`, are brought to a normal form by `expand_sums`, so that a
proof may hold for every :math:`N` at once.  SymPy only, no torch here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import count, product

import sympy as sp
from sympy.concrete.expr_with_limits import ExprWithLimits
from sympy.core.function import AppliedUndef
from sympy.matrices.expressions.matexpr import MatrixElement


class UndecidedError(ArithmeticError):
    """Neither a proof nor a witness was found."""


@dataclass(frozen=True)
class Witness:
    """A point at which an expression is not zero.

    Attributes
    ----------
    point : dict
        Symbol (or indexed entry) to the rational number put in its place.
    value : sympy.Expr
        What the expression is there.
    """

    point: dict
    value: sp.Expr

    def __str__(self) -> str:
        """Return the value and the dimensions and scalars of the point."""
        short = {k: v for k, v in self.point.items() if isinstance(k, sp.Symbol)}
        shown = ", ".join(f"{k} = {v}" for k, v in list(short.items())[:6])
        value = self.value if self.value.is_Rational else sp.N(self.value, 6)
        return f"difference {value}" + (f" at {shown}" if shown else "")


def expand_sums(expr):
    r"""Expand finite sums over symbolic ranges into a normal form.

    Products are multiplied out, sums are distributed over addition, whatever does not
    depend on the summation index is pulled out, :math:`\sum_{k=1}^N1=N`, and a
    Kronecker delta removes its sum.  Bound indices get standard names, so that equal
    sums become equal trees.

    Parameters
    ----------
    expr : sympy.Expr
        Any scalar expression.  A free index inside a Kronecker delta is taken to lie
        within the range of the sum, always the same one; of any other target that has
        to be known, else the sum stays.  Infinite sums stay as they are, and those
        with bounds that are not known to be integers.

    Returns
    -------
    sympy.Expr

    Raises
    ------
    TypeError
        If ``expr`` is not a scalar SymPy expression.
    ValueError
        If an index is declared positive, even, ... but its range is not.

    Examples
    --------
    >>> import sympy as sp
    >>> a, (i, j, N) = sp.IndexedBase("a"), sp.symbols("i j N", integer=True)
    >>> expand_sums(sp.Sum((a[i] - a[j]) ** 2, (i, 1, N), (j, 1, N)))
    2*N*Sum(a[k_1]**2, (k_1, 1, N)) - 2*Sum(a[k_1], (k_1, 1, N))**2
    """
    if not isinstance(expr, sp.Expr) or getattr(expr, "is_Matrix", False):
        raise TypeError(
            f"expand_sums expects a scalar SymPy expression; got {type(expr).__name__}."
            " For a matrix pass its entries, such as M[r, s]."
        )
    sizes = {
        symbol
        for total in expr.atoms(sp.Sum)
        for _, *bounds in total.limits
        for bound in bounds
        for symbol in bound.free_symbols
    }
    return _expand(expr, {}, {size: None for size in sizes})


def _expand(expr, scope, ranges):
    """Expand what stands inside the sums of `scope` (index to its bounds).

    `ranges` remembers the one range in which each free index of a Kronecker delta
    is taken to lie; a symbol that bounds a sum is no index and has none.
    """
    if not isinstance(expr, sp.Expr) or getattr(expr, "is_Matrix", False):
        return expr
    if not expr.has(sp.Sum):
        return sp.expand(expr)
    if not isinstance(expr, sp.Sum):
        args = [_expand(arg, scope, ranges) for arg in expr.args]
        return sp.expand(expr.func(*args))
    if not all(bound.is_integer for _, *bounds in expr.limits for bound in bounds):
        return expr  # a series must not be regrouped; half a term has no meaning
    scopes = [scope]
    for index, low, high in reversed(expr.limits):
        first = [low, low + 1, low + 2] if low.is_Integer else []
        if not all(_meets(index, number) for number in first):
            raise ValueError(
                f"The index {index} runs from {low}, which breaks its assumptions. "
                "Declare it integer only."
            )
        scopes.append({**scopes[-1], index: (low, high)})
    body = _expand(expr.function, scopes.pop(), ranges)
    for limit in expr.limits:
        body = _sum_once(body, *limit, scopes.pop(), ranges)
    return sp.expand(body)


def _sum_once(body, index, low, high, scope, ranges):
    """Sum an expanded body over one index, term by term."""
    total = sp.Integer(0)
    for term in sp.Add.make_args(sp.expand(body)):
        free, bound = term.as_independent(index, as_Add=False)
        target = _delta_target(bound, index, low, high, scope, ranges)
        if not bound.has(index):
            total += free * bound * (high - low + 1)
        elif target is not None:
            total += free * bound.subs(index, target)
        else:
            used = set().union(*(x.atoms(sp.Symbol) for x in (bound, low, high)))
            names = (sp.Symbol(f"k_{n}", integer=True) for n in count(1))
            name = next(name for name in names if name not in used - {index})
            shift = 1 if low == 0 else 0  # ranges from 0 and from 1 become one
            body = bound.subs(index, name - shift)
            total += free * sp.Sum(body, (name, low + shift, high + shift))
    return total


def _delta_target(bound, index, low, high, scope, ranges):
    """Return what a Kronecker delta among the factors forces the index to be."""
    for factor in sp.Mul.make_args(bound):
        if isinstance(factor, sp.KroneckerDelta) and index in factor.args[:2]:
            other = factor.args[0] if factor.args[1] == index else factor.args[1]
            inner = set().union(*(s.variables for s in bound.atoms(ExprWithLimits)))
            if other.free_symbols & (inner | {index}):
                continue  # an inner sum, product or integral would capture it
            if _inside(other, low, high, scope, ranges):
                return other
    return None


def _inside(target, low, high, scope, ranges) -> bool:
    """Say whether a sum's range is known to hold the target of a Kronecker delta."""
    if target in scope:
        first, last = scope[target]
    elif not target.is_Symbol or (target in ranges and ranges[target] is None):
        first = last = target
    elif (low.free_symbols | high.free_symbols) & scope.keys():
        return False
    else:
        return low in (0, 1) and ranges.setdefault(target, (low, high)) == (low, high)
    return bool((first - low).is_nonnegative and (high - last).is_nonnegative)


def entries(expr) -> list:
    """List the scalar entries of an expression: itself, or those of a matrix.

    A matrix with a symbolic dimension is represented by its generic entry along it.

    Parameters
    ----------
    expr : sympy.Expr, sympy.Matrix or sympy.MatrixExpr

    Returns
    -------
    list of sympy.Expr
    """
    if not getattr(expr, "is_Matrix", False):
        return [expr]
    if all(getattr(n, "is_Integer", isinstance(n, int)) for n in expr.shape):
        return list(sp.Matrix(expr.as_explicit() if expr.is_MatrixExpr else expr))
    rows, columns = (
        range(n) if n.is_Integer else [sp.Symbol(name, integer=True)]
        for n, name in zip(expr.shape, ("row", "column"), strict=True)
    )
    return [expr[row, column] for row, column in product(rows, columns)]


def find_witness(expr, *, tries: int = 8, seed: int = 0) -> Witness | None:
    """Look for a point at which an expression is not zero.

    Symbols are replaced by small random rationals that meet their assumptions,
    symbolic dimensions by small integers, undefined functions by random cubic
    polynomials (plus one, squared, for positive ones).

    Parameters
    ----------
    expr : sympy.Expr
        Scalar expression.
    tries : int
        How many random points to try.
    seed : int
        Seed of the points.

    Returns
    -------
    Witness or None
        None if the expression vanished at every point that was tried.

    Raises
    ------
    ValueError
        If no tried point gave a finite number, or no number meets the assumptions.

    Examples
    --------
    >>> x = sp.Symbol("x")
    >>> find_witness((x + 1) ** 2 - x**2 - 2 * x - 1) is None
    True
    >>> find_witness((x + 1) ** 2 - x**2 - 1).value != 0
    True
    """
    rng = random.Random(seed)
    finite = 0
    for _ in range(tries):
        value, point = _instance(expr, rng)
        number = value if value.is_Rational else sp.N(value, 40)
        if not number.is_number or number.has(sp.nan, sp.zoo, sp.oo):
            continue
        finite += 1
        if any(map(_certainly_nonzero, number.as_real_imag())):
            return Witness(point, number)
    if not finite:
        raise ValueError(
            f"No random point gave a finite value of {sp.sstr(expr)[:200]}. Give "
            "positive symbols the assumption positive=True, write traces and inverses "
            "as sums, or simplify first."
        )
    return None


def _certainly_nonzero(part) -> bool:
    """Tell a number from zero, and from what cancellation leaves of one."""
    if part.is_Rational:
        return part != 0
    return isinstance(part, sp.Float) and abs(part) > 1e-25 and part._prec > 20


def _instance(expr, rng):
    """Evaluate at one random point: the value, and the point."""
    point = {}
    if any(not entry.parent.is_symbol for entry in expr.atoms(MatrixElement)):
        return sp.nan, point  # entries of an inverse are not free to choose
    dims = set()
    for total in expr.atoms(sp.Sum):
        for limit in total.limits:
            dims |= set().union(*(b.free_symbols for b in limit[1:]))
    for matrix in expr.atoms(sp.MatrixSymbol):
        dims |= set().union(*(n.free_symbols for n in matrix.shape))
    for symbol in sorted(expr.free_symbols, key=str):
        if isinstance(symbol, sp.Symbol) and symbol.is_integer:
            window = (3, 4) if symbol in dims else (1, 2) if dims else (3, 5)
            point[symbol] = _draw(symbol, rng, *window)
    value = expr.subs(point)  # free occurrences only: xreplace would touch bound ones
    value = value.replace(  # SymPy leaves some matrices with one dimension unnamed
        lambda e: isinstance(e, sp.MatrixSymbol),
        lambda e: sp.MatrixSymbol(e.name, *(n.subs(point) for n in e.shape)),
    )
    for head in sorted({f.func for f in value.atoms(AppliedUndef)}, key=str):
        value = value.replace(head, _random_function(value, head, rng)).doit()
    value = write_out(value).doit()
    for inner in value.atoms(ExprWithLimits):
        entry = inner.function.atoms(sp.Indexed, MatrixElement)
        if any(atom.free_symbols & set(inner.variables) for atom in entry):
            return sp.nan, point  # it stayed unevaluated; its entries have no value
    numbers = {}
    for atom in sorted(value.atoms(sp.Indexed, MatrixElement), key=str):
        numbers[atom] = sp.Rational(rng.randint(-9, 9), rng.randint(1, 4))
    value = value.xreplace(numbers)
    if value.has(sp.MatrixSymbol):
        return sp.nan, point
    for symbol in sorted(value.free_symbols, key=str):
        numbers[symbol] = _draw(symbol, rng, -9, 9)
        value = value.subs(symbol, numbers[symbol])
    return sp.sympify(value.doit()), point | numbers


def write_out(expr):
    r"""Write finite sums with integer limits out, term by term.

    SymPy's own ``doit`` leaves :math:`\sum_{j=1}^3\sum_{i=1}^{j-1}` as it stands.

    Parameters
    ----------
    expr : sympy.Basic

    Returns
    -------
    sympy.Basic
        Without those sums whose limits are, or become, integers.

    Examples
    --------
    >>> a, (i, j) = sp.IndexedBase("a"), sp.symbols("i j", integer=True)
    >>> write_out(sp.Sum(a[i] * a[j], (i, 1, j - 1), (j, 1, 2)))
    a[1]*a[2]
    """
    if not isinstance(expr, sp.Expr) or not expr.has(sp.Sum):
        return expr
    if not isinstance(expr, sp.Sum):
        return expr.func(*map(write_out, expr.args))
    *inner, (index, low, high) = expr.limits
    if not (low.is_Integer and high.is_Integer and abs(high - low) < 1000):
        return expr
    body = sp.Sum(expr.function, *inner) if inner else expr.function
    if high < low - 1:  # Karr's convention, SymPy's own, for ranges that run backwards
        low, high, body = high + 1, low - 1, -body
    return sp.Add(*(write_out(body.subs(index, n)) for n in range(low, high + 1)))


def _random_function(expr, head, rng):
    """Return a random cubic to put for an undefined function, wherever it stands."""
    one = next(f for f in expr.atoms(AppliedUndef) if f.func == head)
    slots = sp.symbols(f"_slot1:{len(one.args) + 1}")
    cubic = sum(
        sp.Rational(rng.randint(-5, 5), rng.randint(1, 3)) * monomial
        for monomial in sorted(sp.itermonomials(slots, 3), key=str)
    )
    if one.is_nonnegative or one.is_nonpositive:
        cubic = (1 + cubic**2) * (1 if one.is_nonnegative else -1)
    return lambda *args: cubic.subs(list(zip(slots, args, strict=True)))


def _meets(symbol, number) -> bool:
    """Say whether a number meets the assumptions of a symbol."""
    facts = symbol.assumptions0.items()
    return all(getattr(number, f"is_{k}", v) in (v, None) for k, v in facts)


def _draw(symbol, rng, low, high):
    """Draw a number that meets the assumptions of a symbol, if possible not zero."""
    for attempt in range(400):
        if attempt == 200:
            low, high = -9, 9
        number = sp.Integer(rng.randint(low, high))
        if not symbol.is_integer:
            number /= rng.randint(1, 4)
        if number == 0 and not symbol.is_zero:
            continue
        if _meets(symbol, number):
            return number
    raise ValueError(
        f"No small rational number meets the assumptions of {symbol}. Use real, "
        "positive, negative, integer or none."
    )


def is_zero(expr) -> tuple[bool, Witness | None]:
    """Decide whether an expression vanishes identically.

    Parameters
    ----------
    expr : sympy.Expr, sympy.Matrix or sympy.MatrixExpr
        Every entry of a matrix is tested; with symbolic dimensions, the generic one.

    Returns
    -------
    (True, None) or (False, Witness)

    Raises
    ------
    UndecidedError
        If no witness was found and no simplification ended in zero, or no point
        could be tried.

    Examples
    --------
    >>> x = sp.Symbol("x")
    >>> is_zero(sp.sin(x) ** 2 + sp.cos(x) ** 2 - 1)
    (True, None)
    """
    expr = sp.sympify(expr)
    product_rules = isinstance(expr, sp.MatrixExpr) and isinstance(
        expr.expand().doit(), sp.ZeroMatrix
    )
    for entry in entries(expr):
        try:
            witness = find_witness(entry)
            zero = witness is None and (product_rules or _simplifies_to_zero(entry))
        except ValueError as error:
            raise UndecidedError(str(error)) from None
        if witness is not None:
            return False, witness
        if not zero:
            raise UndecidedError(
                "No point was found where the difference is not zero, yet it does not "
                f"simplify to zero: {sp.sstr(entry)[:300]}. Rewrite one side, or give "
                "the symbols their assumptions (real, positive, integer)."
            )
    return True, None


def _simplifies_to_zero(expr) -> bool:
    if expr.has(sp.Sum):
        flat = expand_sums(expr)
        return flat == 0 or sp.factor(flat) == 0
    expr = expr.doit()
    for route in (sp.expand, sp.together, sp.simplify, sp.trigsimp):
        if route(expr) == 0:
            return True
    return sp.simplify(sp.expand(expr)) == 0


def split_last(total: sp.Sum):
    r"""Split the last term off the outermost sum, the step of an induction.

    :math:`\sum_{j=1}^{N+1}t_j=\sum_{j=1}^{N}t_j+t_{N+1}`.

    Parameters
    ----------
    total : sympy.Sum
        Its last limit is the outermost one.

    Returns
    -------
    (sympy.Expr, sympy.Expr)
        The sum without its last term, and that term.

    Raises
    ------
    TypeError
        If ``total`` is not a SymPy Sum.

    Examples
    --------
    >>> k, n = sp.symbols("k n", integer=True)
    >>> split_last(sp.Sum(k**2, (k, 1, n + 1)))
    (Sum(k**2, (k, 1, n)), (n + 1)**2)
    """
    if not isinstance(total, sp.Sum):
        raise TypeError(f"split_last expects a SymPy Sum; got {type(total).__name__}.")
    *inner, (index, low, high) = total.limits
    body = sp.Sum(total.function, *inner) if inner else total.function
    rest = sp.Sum(total.function, *inner, (index, low, high - 1))
    return rest, body.subs(index, high)
