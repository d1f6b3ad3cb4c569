"""Expressions over a candidate, read and computed without ``eval``.

The language is a small part of Python: numbers, texts, ``model.*`` and ``accelerator.*``, arithmetic, comparisons,
``and``/``or``/``not``, ``in``, ``x if c else y``, subscripts, ``[... for x in ...]``, and the functions in `FUNCTIONS`.
Anything else is refused when the file is read. Powers are bounded and only numbers are multiplied, so no expression can
take long or much memory.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cosearch.errors import SpecError, did_you_mean

__all__ = ["FUNCTIONS", "Expression", "Scope", "UncomputableError", "parse"]

Scope = Mapping[str, Mapping[str, Any]]
"""Values by side (``model``, ``accelerator``) and name; one per block or stage is a tuple."""

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "all": all,
    "any": any,
    "ceil": math.ceil,
    "floor": math.floor,
    "len": len,
    "log2": math.log2,
    "max": max,
    "min": min,
    "round": round,
    "sum": sum,
}

_LONGEST = 1000
_LARGEST_EXPONENT = 64
_LARGEST_BASE = 2**32

_BINARY: Mapping[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
    ast.Pow: ("**", operator.pow),
}
_COMPARE: Mapping[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.In: ("in", lambda a, b: a in b),
    ast.NotIn: ("not in", lambda a, b: a not in b),
}
_ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_LEAST_EXCESS = 1e-9
_SHAPE = (
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Subscript, ast.Tuple, ast.List,
    ast.Constant, ast.Name, ast.Attribute, ast.Call, ast.GeneratorExp, ast.ListComp,
)  # fmt: skip
_SPOKEN: Mapping[type[ast.AST], str] = {
    ast.Lambda: "a lambda",
    ast.Dict: "a dictionary",
    ast.Set: "a set",
    ast.DictComp: "a dictionary",
    ast.SetComp: "a set",
    ast.JoinedStr: "an f-string",
    ast.NamedExpr: "an assignment",
    ast.Await: "await",
    ast.Starred: "a star",
    ast.Slice: "a slice",
}


class UncomputableError(Exception):
    """The expression has no value for this candidate; the text says why (a division by zero, say)."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression.

    Attributes:
        text: as written.
        names: the values it mentions, such as ``model.dim``.
        tree: its syntax tree.
    """

    text: str
    names: frozenset[str]
    tree: ast.expr

    @property
    def measured(self) -> bool:
        """Whether `excess` is a distance: an ordering is in it that is not hidden in a function or a ``not``."""
        parts = self.tree.values if isinstance(self.tree, ast.BoolOp) else [self.tree]
        return any(isinstance(part, ast.Compare) and isinstance(part.ops[0], _ORDER) for part in parts)

    def __call__(self, scope: Scope) -> Any:
        """Returns the value.

        Raises:
            UncomputableError: it has none.
        """
        return _compute(self.tree, scope)

    def excess(self, scope: Scope) -> float:
        """Returns by how much the expression fails to hold; 0 where it holds.

        A broken ``a <= b`` (or ``<``, ``>``, ``>=``) gives the distance relative to ``b`` (the plain distance where
        ``b`` is 0); a broken ``and`` the largest of its parts, a broken ``or`` the smallest; anything else gives 1.

        Raises:
            UncomputableError: it has no value.
        """
        return 0.0 if _compute(self.tree, scope) else _excess(self.tree, scope)


def parse(text: str, known: Mapping[str, Collection[str]]) -> Expression:
    """Returns the expression that ``text`` is.

    Args:
        text: the expression.
        known: for each side, the names that exist.

    Raises:
        SpecError: with an empty field: it is no expression, or mentions what does not exist.
    """
    if len(text) > _LONGEST:
        raise SpecError("", f"has {len(text)} characters", f"split it into several of at most {_LONGEST}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise SpecError("", f"is not an expression: {error.msg} in {text!r}", "write it as in Python") from None
    except (ValueError, RecursionError, MemoryError):
        raise SpecError("", "is not an expression", "write it as in Python, nested less deeply") from None
    names: set[str] = set()
    _check(tree, known, frozenset(), names)
    return Expression(text.strip(), frozenset(names), tree)


def _check(node: ast.expr, known: Mapping[str, Collection[str]], bound: frozenset[str], names: set[str]) -> None:
    """Raises `SpecError` for what the language lacks; collects what is mentioned in ``names``."""
    if not isinstance(node, _SHAPE):
        what = _SPOKEN.get(type(node), type(node).__name__)
        raise SpecError(
            "", f"uses {what}: {ast.unparse(node)!r}", "write it with arithmetic, comparisons and functions"
        )
    match node:
        case ast.Constant(value=value):
            if not isinstance(value, (bool, int, float, str)):
                raise SpecError("", f"uses {value!r}", "write numbers or texts")
        case ast.Name(id=name):
            if name not in bound:
                raise SpecError("", *_unknown_name(name, known))
        case ast.Attribute():
            names.add(_attribute(node, known))
        case ast.Call():
            _check_call(node, known, bound, names)
        case ast.GeneratorExp() | ast.ListComp():
            _check_loop(node, known, bound, names)
        case ast.BinOp(op=op) if type(op) not in _BINARY:
            raise SpecError("", f"uses an operator that expressions lack: {ast.unparse(node)!r}", "use + - * / // % **")
        case ast.UnaryOp(op=ast.Invert()):
            raise SpecError("", f"uses ~: {ast.unparse(node)!r}", "use not")
        case ast.Compare(ops=ops) if any(type(op) not in _COMPARE for op in ops):
            raise SpecError("", f"uses is: {ast.unparse(node)!r}", "use == or !=")
        case _:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    _check(child, known, bound, names)


def _unknown_name(name: str, known: Mapping[str, Collection[str]]) -> tuple[str, str]:
    homes = [f"{side}.{name}" for side, fields in known.items() if name in fields]
    if homes:
        return f"mentions {name!r} without its side", f"write {' or '.join(homes)}"
    if name in known:
        return f"mentions {name!r} as a whole", f"name a field, such as {name}.{min(known[name], default='rows')}"
    if name in FUNCTIONS:
        return f"mentions the function {name!r} without calling it", f"write {name}(...)"
    every = [f"{side}.{field}" for side, fields in known.items() for field in fields]
    return f"mentions {name!r}, which does not exist", did_you_mean(name, every)


def _attribute(node: ast.Attribute, known: Mapping[str, Collection[str]]) -> str:
    side = node.value.id if isinstance(node.value, ast.Name) else ""
    if side not in known:
        raise SpecError("", f"uses {ast.unparse(node)!r}", f"only {' and '.join(f'{s}.*' for s in known)} have fields")
    if node.attr not in known[side]:
        raise SpecError("", f"mentions {side}.{node.attr}, which does not exist", did_you_mean(node.attr, known[side]))
    return f"{side}.{node.attr}"


def _check_call(node: ast.Call, known: Mapping[str, Collection[str]], bound: frozenset[str], names: set[str]) -> None:
    name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
    if name not in FUNCTIONS:
        raise SpecError("", f"calls {name!r}, which is not a function here", did_you_mean(name, FUNCTIONS))
    if node.keywords or not node.args:
        raise SpecError("", f"calls {name} in a way it does not know", f"write {name}(...) with plain arguments")
    for argument in node.args:
        _check(argument, known, bound, names)


def _check_loop(
    node: ast.GeneratorExp | ast.ListComp,
    known: Mapping[str, Collection[str]],
    bound: frozenset[str],
    names: set[str],
) -> None:
    loop = node.generators[0]
    if len(node.generators) != 1 or not isinstance(loop.target, ast.Name) or loop.is_async:
        raise SpecError("", f"uses a loop over more than one thing: {ast.unparse(node)!r}", "write one for x in ...")
    _check(loop.iter, known, bound, names)
    for part in (node.elt, *loop.ifs):
        _check(part, known, bound | {loop.target.id}, names)


def _compute(node: ast.expr, scope: Scope) -> Any:
    try:
        return _value(node, scope, {})
    except (ArithmeticError, ValueError, TypeError, IndexError, KeyError, RecursionError) as error:
        raise UncomputableError(str(error)) from None


def _value(node: ast.expr, scope: Scope, bound: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Attribute(value=ast.Name(id=side), attr=name):
            return scope[side][name]
        case ast.Name(id=name):
            return bound[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _binary(type(op), _value(left, scope, bound), _value(right, scope, bound))
        case ast.Compare():
            return all(holds for _, _, _, holds in _comparisons(node, scope, bound))
        case ast.BoolOp(op=op, values=values):
            decide = all if isinstance(op, ast.And) else any
            return decide(_value(part, scope, bound) for part in values)
        case ast.UnaryOp(op=op, operand=operand):
            value = _value(operand, scope, bound)
            return not value if isinstance(op, ast.Not) else -value if isinstance(op, ast.USub) else +value
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, scope, bound) else orelse, scope, bound)
        case ast.Subscript(value=value, slice=index):
            return _value(value, scope, bound)[_value(index, scope, bound)]
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return tuple(_value(part, scope, bound) for part in parts)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return FUNCTIONS[name](*(_value(argument, scope, bound) for argument in arguments))
        case ast.GeneratorExp() | ast.ListComp():
            return tuple(_loop(node, scope, bound))
    raise TypeError(f"no rule for {ast.unparse(node)!r}")  # parse() lets nothing else through


def _loop(node: ast.GeneratorExp | ast.ListComp, scope: Scope, bound: Mapping[str, Any]) -> Iterator[Any]:
    loop = node.generators[0]
    name = loop.target.id if isinstance(loop.target, ast.Name) else ""
    items = _value(loop.iter, scope, bound)
    if not isinstance(items, tuple):
        raise TypeError(f"{ast.unparse(loop.iter)} has one value, so there is nothing to loop over")
    for item in items:
        inner = {**bound, name: item}
        if all(_value(condition, scope, inner) for condition in loop.ifs):
            yield _value(node.elt, scope, inner)


def _binary(op: type[ast.operator], left: Any, right: Any) -> Any:
    sign, apply = _BINARY[op]
    _require_numbers(sign, left, right)
    if op is ast.Pow and (abs(right) > _LARGEST_EXPONENT or abs(left) > _LARGEST_BASE):
        raise ValueError(f"{left} ** {right} is too large to compute here")
    result = apply(left, right)
    if isinstance(result, complex):
        raise ValueError(f"{left} ** {right} is not a real number")
    return result


def _require_numbers(sign: str, *values: Any) -> None:
    for value in values:
        if not isinstance(value, (int, float)):
            kind = "a text" if isinstance(value, str) else "one value per block or stage"
            raise TypeError(f"{sign} needs numbers, not {kind}")


def _comparisons(
    node: ast.Compare, scope: Scope, bound: Mapping[str, Any]
) -> Iterator[tuple[type[ast.cmpop], Any, Any, bool]]:
    """Yields each link of a chained comparison: operator, left value, right value, whether it holds."""
    left = _value(node.left, scope, bound)
    for op, right_node in zip(node.ops, node.comparators, strict=True):
        right = _value(right_node, scope, bound)
        sign, holds = _COMPARE[type(op)]
        if isinstance(op, _ORDER):
            _require_numbers(sign, left, right)
        yield type(op), left, right, bool(holds(left, right))
        left = right


def _excess(node: ast.expr, scope: Scope) -> float:
    """By how much ``node``, which does not hold, is broken; always above 0."""
    match node:
        case ast.BoolOp(op=op, values=values):
            broken = [_excess(part, scope) for part in values if not _compute(part, scope)]
            return max(broken) if isinstance(op, ast.And) else min(broken)
        case ast.Compare():
            worst = _LEAST_EXCESS
            for sign, left, right, holds in _comparisons(node, scope, {}):
                if holds:
                    continue
                if sign not in _ORDER:
                    return 1.0
                distance = abs(left - right) / (abs(right) or 1)
                worst = max(worst, min(float(distance), 1e300))
            return worst
    return 1.0
