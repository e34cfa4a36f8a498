r"""How a linear estimator chooses its hyper-parameter from a whole path of candidates, by a criterion.

Every linear estimator predicts H y at the training inputs, with a matrix H that does not depend on y. Its hyper-parameter is a
number, or the name of a criterion. A criterion chooses the candidate with the lowest score:

- `"gcv"`: n |(I-H) y|^2 / trace(I-H)^2 (Golub, Heath & Wahba 1979, Technometrics 21, equation 1.4);
- `"loo"`: mean_i (((I-H) y)_i / (I-H)_ii)^2, the leave-one-out error (Allen's PRESS; ibid., section 1);
- `"holdout"`: the mean squared error on a random fifth of the rows, which the fit does not see; the final fit, with the
  candidate chosen, uses all data;
- `"marginal_likelihood"`: for kernel ridge, -2/n times the log likelihood of y ~ N(0, tau (K + ridge I)) at the best scale
  tau, up to a constant: log(y^T (K + ridge I)^{-1} y) + log det(K + ridge I) / n (Rasmussen & Williams 2006, equation 5.8,
  with the scale profiled out);
- `"oracle"`: the mean squared distance to the true function on 4096 fresh inputs. It is a reference: no method knows the true
  function.

*Near interpolation* the residuals lie along a few eigenvectors of H, and GCV is n times the sum of squares of these few
coefficients of y. They can all be small by chance (or 0 by underflow), and then GCV would choose this candidate although its
risk is many times that of the best one. If H is symmetric, `"gcv"` therefore considers only candidates that leave at least
min(10, n/4) directions unexplained, counted as trace(I-H)^2 / trace((I-H)^2). `python -m benchmarks gcv` measures the effect
of this rule. `"loo"` does not need it.

*Repeated rows.* Every criterion leaves equal rows of x out together: n counts distinct rows, and y is their mean response
(`tsjax.estimators.repeats`). A fit that is called eagerly warns about repeated rows.

*Sample weights* w_i turn all means of squares into weighted means. With n the number of rows of weight > 0 and W = sum_i w_i,
GCV is (sum_i w_i ((I-H) y)_i^2 / W) / (trace(I-H) / n)^2 (n / W times the score of Wood 2004, J. Amer. Statist. Assoc. 99,
section 2), and leave-one-out is sum_i w_i (((I-H) y)_i / (I-H)_ii)^2 / W. Held-out errors are weighted means too. In the
marginal likelihood the noise of row i has variance ridge / w_i. A row of weight 0 does not count anywhere. For ridge regression
and gradient flow, integer weights give the same results as repeated rows with every criterion but `"holdout"`, which draws
other rows. For the cut-off and kernel smoothers they do so at the same hyper-parameter; a search may differ, since the
candidates depend on the number of rows and on which of them repeat.

*Several outputs* share the hyper-parameter. Scores are summed over outputs: squares become squared distances of vectors. The
marginal likelihood gives each output its own scale tau, so that the units of outputs do not change the choice: the score is
sum_c log(y_c^T (K + ridge I)^{-1} y_c) + (number of outputs) log det(K + ridge I) / n, over the outputs c that are not 0
everywhere.
"""

import difflib
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..precision import is_traced
from ..problem import Problem
from ..task import Dataset
from .repeats import Sample, count_distinct, first_of_equals

Oracle = tuple[Problem, Callable[[Array], Array]]
"""A problem and its true regression function of one point, as in `fit(key, data, oracle=(problem, teacher))`."""

CRITERIA = ("gcv", "loo", "holdout", "oracle")
"""The criteria of all linear estimators; ridge regression has the marginal likelihood too."""

_ORACLE_POINTS = 4096
_HELD_OUT = 0.2
# Streams far from the small numbers that split(key) amounts to folding in, because the caller may have drawn the data from the
# same key.
_ORACLE_STREAM = 0x0FAC1E
_HOLDOUT_STREAM = 0x401D


class Fixed(eqx.Module):
    """A hyper-parameter that is a number."""

    value: Any


class Search(eqx.Module):
    """A hyper-parameter to be chosen from its path by the lowest score of a criterion."""

    criterion: str = eqx.field(static=True)


def tuned(
    name: str,
    criteria: tuple[str, ...] = CRITERIA,
    *,
    lowest: float = 0.0,
    positive: bool = False,
    integer: bool = False,
):
    """A converter of the field `name`, which turns the user's value into `Fixed` or `Search`.

    The converter raises ValueError unless the value is one of `criteria`, or a finite number that is at least `lowest`, and
    above 0 if `positive`. Integers are static unless they are traced.
    """
    what = f"an integer >= {lowest:g}" if integer else "finite and > 0" if positive else f"finite and >= {lowest:g}"

    def convert(value: Any) -> Fixed | Search:
        if isinstance(value, Fixed | Search):
            return value
        if isinstance(value, str):
            if value not in criteria:
                near = difflib.get_close_matches(value.lower(), criteria, n=1, cutoff=0.0)[0]
                kind = "an integer" if integer else "a number"
                raise ValueError(f"{name} must be {kind} or one of {criteria}, got {value!r}; nearest: {near!r}.")
            return Search(value)
        if jnp.ndim(value) != 0:
            raise ValueError(
                f"{name} is one number, got an array of shape {jnp.shape(value)}; jax.vmap over the estimator."
            )
        fits = not integer or jnp.issubdtype(jnp.result_type(value), jnp.integer)
        if not is_traced(value):
            fits = fits and lowest <= float(value) < float("inf") and not (positive and value == 0)
        if not fits:
            also = f", or one of {criteria};" if criteria else ","
            raise ValueError(f"{name} must be {what}{also} got {value}.")
        if integer:
            return Fixed(value if is_traced(value) else int(value))
        return Fixed(float(value) if isinstance(value, int) else value)

    return convert


def check_oracle(name: str, rule: Fixed | Search, oracle: Oracle | None, data: Dataset) -> None:
    """Raises ValueError for an oracle that the rule needs but does not have, or has but does not need; for an oracle of another
    dimension than the data; and for a search on fewer than two rows or on rows that are all equal. Warns about repeated rows
    if a criterion chooses."""
    wanted = isinstance(rule, Search) and rule.criterion == "oracle"
    if wanted and oracle is None:
        raise ValueError(f'{name}="oracle" needs the truth: call fit(key, data, oracle=(problem, teacher)).')
    if oracle is not None and not wanted:
        raise ValueError(f'an oracle is of use with {name}="oracle" only: leave it out, or give {name}="oracle".')
    if oracle is not None and oracle[0].d != data.d:
        raise ValueError(f"the oracle's problem has d={oracle[0].d}, but the data have d={data.d}.")
    n = rows_present(data)
    if isinstance(rule, Search) and n < 2:
        raise ValueError(
            f"{name}={rule.criterion!r} compares candidates, which needs n >= 2; got n={n}. Give a number instead."
        )
    if isinstance(rule, Search) and not wanted and not is_traced(data.x) and not is_traced(data.weight):
        found = count_distinct(data.x if data.weight is None else np.asarray(data.x)[np.asarray(data.weight) > 0])
        if found == 1:
            raise ValueError(
                f"{name}={rule.criterion!r} compares candidates at rows that are left out, but all {n} rows of x are "
                "equal. Give a number instead."
            )
        if found < n:
            _warn_the_caller(
                f"{n - found} of {n} rows of x repeat an earlier row; {name}={rule.criterion!r} leaves equal rows "
                "out together, since the response of a copy is no prediction."
            )


def rows_present(data: Dataset) -> int:
    """The number of rows of weight > 0; the number of all rows if weights are traced."""
    traced = data.weight is None or is_traced(data.weight)
    return data.n if traced else int(np.count_nonzero(np.asarray(data.weight) > 0))


def _warn_the_caller(message: str) -> None:
    """Warns with the line that called tsjax, not a line of the library or of a wrapper in between. (From Python 3.12 on,
    `skip_file_prefixes` of `warnings.warn` does this.)"""
    frame, level = inspect.currentframe(), 1
    inside = ("tsjax", "equinox", "jax", "jaxtyping", "beartype")
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in inside:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def oracle_sample(key: PRNGKeyArray, oracle: Oracle | None, outputs: int) -> Sample:
    """Fresh float64 inputs, independent of all other uses of `key`, and the true function there. **Raises:** ValueError if the
    function has another number of outputs than `outputs`."""
    assert oracle is not None
    problem, teacher = oracle
    x = problem.inputs.sample(jr.fold_in(key, _ORACLE_STREAM), _ORACLE_POINTS, jnp.float64)
    truth = jax.vmap(as_float64(teacher))(x)
    truth = truth[:, None] if truth.ndim == 1 else truth
    if truth.shape[1] != outputs:
        raise ValueError(f"the oracle's function has {truth.shape[1]} output(s), but y has {outputs}.")
    return Sample(x, truth, None)


def hold_out(key: PRNGKeyArray, sample: Sample) -> tuple[Sample, Sample]:
    """Splits the rows that are present into the data to fit and a random fifth that is held out.

    Equal rows are held out together. If the fifth ends within a group of equal rows, the rest of the group has weight 0 in the
    data to fit, because the fit must not see it. If no data would remain, since one group has most of the rows, only rows of
    this group are held out.
    """
    x, y, weight = sample
    n, places = y.shape[0], jnp.arange(y.shape[0])
    absent = (~sample.present).astype(jnp.int32)
    # A permutation by random bits of each row, with rows of weight 0 last, whose number does not change the order of the
    # others.
    bits = jr.bits(jr.split(jr.fold_in(key, _HOLDOUT_STREAM))[1], (n,), "uint32")
    order = jax.lax.sort((absent, bits, places), num_keys=2)[-1]
    first = first_of_equals(x)
    # Each group takes the place of its first row in the random order. If no row repeats, the order does not change.
    rank = jnp.zeros(n, order.dtype).at[order].set(places, unique_indices=True)
    if weight is None:
        order = jnp.argsort(rank[first], stable=True)
        held = max(1, round(_HELD_OUT * n))
        order = jnp.where(jnp.all(first[order[held:]] == first[order[held - 1]]), order[::-1], order)
        kept = first[order[held:]] != first[order[held - 1]]
        return (
            Sample(x[order[held:]], y[order[held:]], kept.astype(y.dtype)),
            Sample(x[order[:held]], y[order[:held]], None),
        )
    # The same for a number of rows that depends on the data.
    leader = jnp.minimum(jax.ops.segment_min(jnp.where(absent == 0, places, n), first, n)[first], n - 1)
    order = jnp.argsort(jnp.where(absent == 0, rank[leader], n), stable=True)
    count = jnp.sum(absent == 0)
    held = jnp.maximum(1, jnp.round(_HELD_OUT * count).astype(count.dtype))
    rest = (places >= held) & (places < count)
    backwards = order[jnp.where(places < count, count - 1 - places, places)]
    order = jnp.where(jnp.all(~rest | (leader[order] == leader[order[held - 1]])), backwards, order)
    kept = rest & (leader[order] != leader[order[held - 1]])
    x, y, weight = x[order], y[order], weight[order]
    return Sample(x, y, jnp.where(kept, weight, 0.0)), Sample(x, y, jnp.where(places < held, weight, 0.0))


def as_float64(tree: Any) -> Any:
    """`tree` with its floating-point arrays in float64."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, tree)


def gcv_judged(score: Float[Array, " p"], left: Float[Array, " p"], n) -> Float[Array, " p"]:
    """`score`, but infinite for candidates whose `left` = trace(I-H)^2 / trace((I-H)^2) is too small for GCV to be reliable
    (module docstring)."""
    return jnp.where(left >= jnp.minimum(10.0, n / 4), score, jnp.inf)


def log_spaced_integers(highest: Float[Array, ""], points: int) -> Float[Array, " {points}"]:
    """`points` integers from 1 to `highest`, log-spaced, in ascending order; some of them repeat."""
    return jnp.round(jnp.exp(jnp.linspace(0.0, 1.0, points) * jnp.log(highest)))
