"""What every learner offers: `estimator.fit(key, data) -> fit`, and `fit.predict(x)`.

An estimator is a frozen `equinox.Module`: its shapes are static fields, its hyper-parameters leaves. `fit` is pure, so it
composes with `jax.jit` and `jax.vmap`; called eagerly, it first checks the data and then runs compiled.
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..display import card
from ..kernels.base import AbstractKernel
from ..losses import refuse_labels
from ..network import TwoLayer
from ..precision import is_traced
from ..status import Status
from ..task import Dataset, check_key, check_numbers

LARGEST = 1e150
"""The largest absolute value that estimators accept without scaling: sums of squares of such values stay within float64."""


class KernelSum(NamedTuple):
    """f(x) = sum_i alpha_i k(x_i, x), with the points x_i as the rows of `x` (n, *point), and `alpha` (n,) for one output and
    (n, k) for k outputs."""

    kernel: AbstractKernel
    x: Float[Array, "..."]
    alpha: Float[Array, "..."]


class AbstractFit(eqx.Module):
    """A fitted predictor, with `status`, how the fit ended, and `stats`, numbers about the fit by their names.

    A fit that is a sum of neurons or of kernels returns that sum from `as_network` or `as_kernel_sum`. Its risk then has a
    closed form (`tsjax.excess_risk`).
    """

    status: eqx.AbstractVar[Int[Array, "*batch"]]
    stats: eqx.AbstractVar[dict[str, Array]]

    @abstractmethod
    def predict(self, x: Float[Array, "t *point"]) -> Float[Array, "t *outputs"]:
        """Predictions at the t rows of x, (t, d) unless points are arrays: (t,) after a fit of y (n,), (t, k) after one of
        y (n, k)."""

    @property
    def as_network(self) -> TwoLayer | None:
        """The two-layer network that `predict` evaluates, or None if the fit is not such a network."""
        return None

    @property
    def as_kernel_sum(self) -> KernelSum | None:
        """The sum of kernels that `predict` evaluates, or None if the fit is not such a sum."""
        return None

    def _repr_html_(self) -> str:
        if is_traced(self.status):
            return card(type(self).__name__, {"status": "unknown inside jit"})
        codes, counts = np.unique(np.asarray(self.status), return_counts=True)
        ended = {int(code): Status(int(code)).words for code in codes}
        number = int(counts.sum())
        if self.status.ndim:
            summary = ", ".join(f"{count} {ended[int(code)]}" for code, count in zip(codes, counts, strict=True))
        else:
            summary = ended[int(codes[0])]
        title = type(self).__name__ + (f": {number} fits" if self.status.ndim else "")
        return card(title, {"status": summary, **{name: _summary(value) for name, value in _leaves(self.stats)}})


def _leaves(stats) -> list[tuple[str, Any]]:
    """The numbers about a fit with their names, and each number of a nested dictionary as an entry of its own."""
    found: list[tuple[str, Any]] = []
    for name, value in stats.items():
        found += (
            [(f"{name}: {inner}", leaf) for inner, leaf in _leaves(value)]
            if isinstance(value, dict)
            else [(name, value)]
        )
    return found


def _summary(value) -> str:
    """A single number as text; for an array, its range and shape."""
    values = np.asarray(value)
    if values.ndim == 0 or values.size == 0:
        return f"{values.item():.4g}" if values.size and values.dtype.kind in "fiu" else str(values)
    return f"{np.nanmin(values):.4g} to {np.nanmax(values):.4g}, shape {values.shape}"


class AbstractEstimator(eqx.Module):
    """A learning algorithm with its hyper-parameters."""

    @property
    def needs_oracle(self) -> bool:
        """Whether `fit` needs the true function, `oracle=(problem, teacher)`. By default it does if the criterion "oracle"
        chooses a hyper-parameter."""
        return any(getattr(getattr(self, name), "criterion", None) == "oracle" for name in self.__dataclass_fields__)

    @abstractmethod
    def fit(self, key: PRNGKeyArray, data: Dataset) -> AbstractFit:
        """Fits one data set, x (n, d) and y (n,). It is a pure function: use `jax.vmap` or `tsjax.fit_many` for many data
        sets."""


def check_data(
    key: PRNGKeyArray,
    data: Dataset,
    *,
    outputs: bool = False,
    weights: bool = False,
    largest: float = LARGEST,
    point_ndim: int | None = 1,
) -> None:
    """Raises ValueError unless the data are a regression problem, and TypeError unless `key` is a random key and `data` a
    Dataset.

    The inputs must be x (n, *point) with points of `point_ndim` axes, vectors by default, or of any shape if that is None. The
    responses must be y (n,), or also (n, k) with `outputs=True`. Their values must pass `check_values`, and y must not hold
    class labels. Sample weights are allowed only with `weights=True`.
    """
    check_key(key)
    check_dataset(data)
    x, y = data.x, data.y
    if point_ndim is not None and x.ndim != 1 + point_ndim:
        many = " Use tsjax.fit_many or jax.vmap for a batch of data sets." if point_ndim == 1 and x.ndim > 2 else ""
        points = "(n, d)" if point_ndim == 1 else f"(n, *point) with points of {point_ndim} axes"
        raise ValueError(f"expected x of shape {points}, got {tuple(x.shape)}.{many}")
    if point_ndim is None and x.ndim == 3 and x.shape[:2] == y.shape:
        raise ValueError(
            f"x {tuple(x.shape)} and y {tuple(y.shape)} look like a batch of data sets: use tsjax.fit_many or jax.vmap. If "
            "they are images that have as many rows as y has outputs, give them a channel axis, x[..., None]."
        )
    if y.ndim != 1 and not (outputs and y.ndim == 2):
        allowed = "(n,) or (n, k)" if outputs else "(n,): this estimator has one output"
        raise ValueError(f"expected y of shape {allowed}; got {tuple(y.shape)}.")
    refuse_labels(y)
    if data.weight is not None and not weights:
        raise ValueError("this estimator takes no sample weights: leave out data.weight.")
    check_values(data, largest)


def check_dataset(data: Any) -> None:
    """Raises TypeError unless `data` is a Dataset."""
    if not isinstance(data, Dataset):
        found = f"an array of shape {tuple(data.shape)}" if hasattr(data, "shape") else f"a {type(data).__name__}"
        raise TypeError(f"data is a Dataset, as in estimator.fit(key, tsjax.Dataset(x, y)); got {found}.")


def check_values(data: Dataset, largest: float = LARGEST) -> None:
    """Raises ValueError for values that are missing, not finite, or larger than `largest` in absolute value.

    Inside a user's `jit` or `vmap` values are not known, so nothing is checked there.
    """
    for name, value in (("x", data.x), ("y", data.y)):
        if is_traced(value):
            continue
        check_numbers(f"data.{name}", value)
        value = np.asarray(value)
        _raise_at(~np.isfinite(value), f"data.{name}", "not finite", "Remove or correct those rows before fitting.")
        remedy = "Give the data other units, or wrap the estimator in tsjax.Standardized, which scales them."
        # No float32 number is that large.
        large = np.abs(value) > largest if value.dtype == np.float64 else np.zeros(value.shape, bool)
        _raise_at(large, f"data.{name}", f"larger than {largest:g}, so that squares overflow", remedy)


def _raise_at(bad: np.ndarray, name: str, what: str, remedy: str) -> None:
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name} has {int(bad.sum())} value(s) that are {what}, the first at index {where}. {remedy}")


def check_at_least(owner: str, **bounds) -> None:
    """Raises ValueError for a hyper-parameter that is not finite or is below its bound, as in
    `check_at_least("Student", width=(width, 1))`. None, which stands for a default, traced values and schedules (functions
    of the step) pass."""
    for name, (value, lowest) in bounds.items():
        if value is None or is_traced(value) or callable(value):
            continue
        if not np.isfinite(np.asarray(value)).all() or np.asarray(value).min() < lowest:
            raise ValueError(f"{owner}: {name} must be finite and at least {lowest}, got {value}.")


def floats_as_arrays(module):
    """`module` with its Python floats replaced by arrays. `eqx.filter_jit` traces arrays, so that another value of a
    hyper-parameter does not compile again."""
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, float) else leaf, module)
