"""Phrases: sentences that name the number a claim is about, its curve, second operand and axis. `FORMS` is the grammar."""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from ..hints import nearest
from .values import value_of

_NAME = r"[\w.-]+"
# Begins the words that take the place of names in quotes while a phrase is parsed: a letter that nobody writes.
_QUOTED = "\u02ba"


class Form(NamedTuple):
    """One form of phrase: how it is written, what number it is, and an example."""

    written: str
    number: str
    example: str


FORMS = {
    "rate": Form(
        "rate of [METRIC of] CURVE [relative to OTHER] in AXIS",
        "the exponent of a power law, or of `model`; relative to a curve, the difference of both exponents, paired by seed",
        "rate of student relative to ntk in n",
    ),
    "exponent": Form(
        "exponent in ARGUMENT of rate of [METRIC of] CURVE in AXIS",
        "the exponent g of rate ~ ARGUMENT^-g over the curves that differ in this argument",
        "exponent in d of rate of ntk in n",
    ),
    "mean": Form(
        "METRIC of CURVE [relative to OTHER or minus OTHER]",
        "the mean over seeds; a ratio or a difference of means, paired by seed",
        "error of student minus ntk at n = 1024",
    ),
    "median": Form(
        "median METRIC of CURVE",
        "the median over seeds",
        "median risk of student",
    ),
    "crossing": Form(
        "crossing of [METRIC of] CURVE relative to OTHER in AXIS",
        "the x from which on the mean stays below that of OTHER",
        "crossing of student relative to ntk in n",
    ),
    "model": Form(
        "model of [METRIC of] CURVE in AXIS",
        "AICc of `model` minus that of the best other one",
        "model of student in n",
    ),
    "forecast": Form(
        "forecast of [METRIC of] CURVE in AXIS",
        "the mean at the largest x, divided by the prediction of a fit without that x",
        "forecast of student in n",
    ),
    "trend": Form(
        "trend of METRIC [of CURVE] in Z [relative to Z]",
        "Spearman's rank correlation with Z, an argument or an expression of arguments, over all runs; relative to a rival Z, "
        "the difference of the absolute values of both correlations",
        "trend of risk in n*d**-2 relative to n",
    ),
    "average": Form(
        "average of METRIC [of CURVE]",
        "the mean over all cells, with equal weights, and over the seeds that have all of them",
        "average of risk of student",
    ),
    "contour": Form(
        "contour in ARGUMENT of METRIC [of CURVE] = LEVEL in AXIS",
        "the exponent g of x ~ ARGUMENT^g, where x is the place on the axis at which the mean crosses the level",
        "contour in d of error of student = 0.3 in signal",
    ),
    "spread": Form(
        "spread of METRIC [of CURVE] in AXIS",
        "the largest mean along the axis divided by the smallest; their difference if the metric is not positive",
        "spread of risk of student in width",
    ),
    "monotone": Form(
        "monotone of METRIC [of CURVE] in AXIS",
        "the largest ratio of a mean to an earlier one along the axis, at most 1 if the mean falls throughout; with at_least, "
        "the smallest such ratio; differences if the metric is not positive. Means below `floor` count as `floor`",
        "monotone of risk of student in n",
    ),
    "best": Form(
        "best of METRIC [of CURVE] in AXIS",
        "the place on the axis where the mean is smallest; its interval covers all places where it may be smallest",
        "best of risk of student in width",
    ),
}
"""The forms of a phrase. CURVE may be `*` for all curves where one is meant; OTHER is a curve, a recorded value, `predicted`
(the mean of the curve by theory), or `AXIS = VALUE`: the same curve at another value of an argument. A phrase may end with
`at AXIS = VALUE`. A name with spaces or signs stands in double quotes: `rate of "least squares" in n`."""

# Forms in which a single name is that of a metric; in the others it is that of a curve.
_OF_METRIC = ("trend", "average", "spread", "monotone", "best", "mean", "median")
# The forms that have an axis, and those that have a second operand, with its words.
_ALONG = ("rate", "exponent", "crossing", "model", "forecast", "spread", "monotone", "best")
_OPERATORS = {"rate": ("relative to", "minus"), "mean": ("relative to", "minus"), "crossing": ("relative to",)}


@dataclass(frozen=True)
class Phrase:
    """The parts of a phrase.

    - `form`: a key of `FORMS`. `metric`: None for the experiment's first y. `curve`: None if the phrase names none.
    - `operator`: "relative to", "minus" or "". `other`: the second operand, or None. `than`: an argument and its value, if the
      second operand is the same curve at that value.
    - `axis`: None for the experiment's x. `outer`: the argument of `exponent in ARGUMENT of ...` and of `contour in ARGUMENT
      of ...`. `height`: the level of a contour.
    - `z`, `rival`: the expressions of a trend. `at`: an argument and its value, from the end of the phrase.
    """

    form: str
    metric: str | None = None
    curve: str | None = None
    operator: str = ""
    other: str | None = None
    than: tuple[str, Any] | None = None
    axis: str | None = None
    outer: str | None = None
    z: str | None = None
    rival: str | None = None
    height: float | None = None
    at: tuple[str, Any] | None = None

    @property
    def fits(self) -> bool:
        """Whether the number depends on the shape of a curve, rather than on means at single x."""
        return self.form in ("rate", "exponent", "crossing", "model", "forecast")

    @property
    def pools(self) -> bool:
        """Whether it is one number for the cells of several curves together."""
        return self.form in ("trend", "average")


def parse(text: str) -> Phrase:
    """The parts of a phrase. **Raises:** ValueError that says how it may be written.

    >>> from tsjax.sweep.phrase import parse
    >>> phrase = parse("error of student minus ntk at n = 1024")
    >>> phrase.form, phrase.metric, phrase.curve, phrase.operator, phrase.other, phrase.at
    ('mean', 'error', 'student', 'minus', 'ntk', ('n', 1024))

    >>> parse('rate of "least squares" in n').curve
    'least squares'
    """
    quoted: dict[str, str] = {}

    def keep(match: re.Match[str]) -> str:
        word = f"{_QUOTED}{len(quoted)}"
        quoted[word] = match[1]
        return word

    def restored(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(restored, value))
        return quoted.get(value, value) if isinstance(value, str) else value

    phrase = _parse(text, re.sub(r'"([^"]*)"', keep, text))
    return Phrase(**{field.name: restored(getattr(phrase, field.name)) for field in fields(phrase)})


def _parse(text: str, marked: str) -> Phrase:
    """The parts of the phrase `text`; in `marked`, words take the place of everything in quotes."""
    rest, at = " ".join(marked.split()), None
    match = re.search(rf" at (\w+) = ({_NAME})$", rest)
    if match:
        rest, at = rest[: match.start()], (match[1], value_of(match[2]))
    head = rest.split(" of ")[0].split(" ")
    # `rate in n` names no curve: the sweep has only one.
    about = " of " in rest or rest.startswith((f"{head[0]} in ", f"{head[0]} relative to "))
    form = head[0] if head[0] in FORMS and about and head[0] != "mean" else "mean"
    if form == "trend":
        return _trend(text, rest, at)
    if form == "contour":
        return _contour(text, rest, at)
    outer, axis = None, None
    if form == "exponent":
        match = re.match(r"exponent in (\w+) of rate of ", rest)
        if not match:
            raise _unknown(text, form)
        outer, rest = match[1], rest[match.end() :]
    elif form == "median":
        rest = rest.removeprefix("median ")
    elif form != "mean":
        rest = rest.removeprefix(form)
    if form in _ALONG:
        match = re.search(r" in (\w+)$", rest)
        if not match:
            raise _unknown(text, form)
        rest, axis = rest[: match.start()], match[1]
    match = re.search(rf" (relative to|minus) (?:(\w+) = )?({_NAME})$", rest)
    operator_, than, other = "", None, None
    if match:
        rest, operator_ = rest[: match.start()], match[1]
        than, other = ((match[2], value_of(match[3])), None) if match[2] else (None, match[3])
    if form not in ("mean", "median", "exponent"):
        rest = rest.removeprefix(" of ")
        if not rest and form in ("rate", "model", "forecast"):
            return Phrase(form, None, None, operator_, other, than, axis, at=at)
    names = rest.split(" of ")
    if not 1 <= len(names) <= 2 or not all(re.fullmatch(rf"{_NAME}|\*", name) for name in names):
        raise _unknown(text, form)
    metric, curve = (names[0], names[1]) if len(names) == 2 else (None, names[0])
    if len(names) == 1 and form in _OF_METRIC:
        metric, curve = names[0], None
    if operator_ not in ("", *_OPERATORS.get(form, ())):
        raise _unknown(text, form)
    if form == "crossing" and (not operator_ or other == "predicted"):
        raise ValueError("a crossing needs two curves: write 'crossing of CURVE relative to OTHER in AXIS'")
    return Phrase(form, metric, curve, operator_, other, than, axis, outer, at=at)


def _trend(text: str, rest: str, at: tuple[str, Any] | None) -> Phrase:
    match = re.fullmatch(rf"trend of ({_NAME})(?: of ({_NAME}|\*))? in (.+?)(?: relative to (.+))?", rest)
    if not match:
        raise _unknown(text, "trend")
    for expression in (match[3], match[4]):
        if expression is not None:
            names_in(expression)
    return Phrase("trend", match[1], match[2], "relative to" if match[4] else "", z=match[3], rival=match[4], at=at)


def _contour(text: str, rest: str, at: tuple[str, Any] | None) -> Phrase:
    match = re.fullmatch(rf"contour in (\w+) of ({_NAME})(?: of ({_NAME}))? = ({_NAME}) in (\w+)", rest)
    height = None if match is None else value_of(match[4])
    if match is None or isinstance(height, bool) or not isinstance(height, int | float):
        raise _unknown(text, "contour")
    return Phrase("contour", match[2], match[3], axis=match[5], outer=match[1], height=float(height), at=at)


def _unknown(text: str, form: str) -> ValueError:
    first = text.split(" ")[0] if text else ""
    if form != "mean":
        return ValueError(
            f"write {FORMS[form].written!r}, such as {FORMS[form].example!r}; a name with spaces stands in double quotes"
        )
    guess = nearest(first, [*FORMS]) if first else ""
    near = guess.split("'")[1] if "Did you mean" in guess else None
    forms = "; ".join(one.written for one in FORMS.values())
    hint = f"{guess} Write {FORMS[near].written!r}" if near in FORMS and near != "mean" else f" The forms are: {forms}"
    return ValueError(f"{text!r} is not a claim that can be measured.{hint}")


_OPERATIONS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: dict[str, Callable[[float], float]] = {"log": math.log, "exp": math.exp, "sqrt": math.sqrt, "abs": abs}


def names_in(expression: str) -> list[str]:
    """The arguments in an expression of numbers, names, + - * / ** and log, exp, sqrt, abs. **Raises:** ValueError for
    anything else, which is never evaluated."""
    tree = _parsed(expression)
    functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return sorted({node.id for node in names if id(node) not in functions})


def evaluate(expression: str, values: Mapping[str, Any]) -> float:
    """The value of an expression with these arguments. **Raises:** ValueError for an argument that is unknown or not a number,
    and if the expression has no finite real value.

    >>> from tsjax.sweep.phrase import evaluate
    >>> evaluate("n*mu**4/d", {"n": 8, "mu": 2, "d": 4})
    32.0
    """

    def at(node: ast.AST) -> Any:
        if isinstance(node, ast.BinOp):
            return _OPERATIONS[type(node.op)](at(node.left), at(node.right))
        if isinstance(node, ast.UnaryOp):
            return _OPERATIONS[type(node.op)](at(node.operand))
        if isinstance(node, ast.Call):
            return _FUNCTIONS[node.func.id](at(node.args[0]))  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(node, ast.Constant):
            return float(node.value)  # pyright: ignore[reportArgumentType]
        assert isinstance(node, ast.Name)
        value = values.get(node.id)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{node.id} = {value!r} in {expression!r} is not a number")
        return float(value)

    try:
        found = at(_parsed(expression))
    except (ArithmeticError, TypeError) as error:
        raise ValueError(f"{expression!r} has no value at {dict(values)}: {error}") from None
    if isinstance(found, complex) or not math.isfinite(found):
        raise ValueError(f"{expression!r} has no finite real value at {dict(values)}")
    return found


def _parsed(expression: str) -> ast.AST:
    wrong = ValueError(
        f"{expression!r} is not an expression of arguments: use their names, numbers, + - * / **, and {', '.join(_FUNCTIONS)}"
    )
    try:
        tree = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        raise wrong from None
    for node in ast.walk(tree):
        number = (
            isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool)
        )
        one = (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in _FUNCTIONS
            and len(node.args) == 1
            and not node.keywords
        )
        operation = isinstance(node, ast.BinOp | ast.UnaryOp) and type(node.op) in _OPERATIONS
        if not (
            number or one or operation or isinstance(node, ast.Name | ast.expr_context | ast.operator | ast.unaryop)
        ):
            raise wrong
    return tree
