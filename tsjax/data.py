"""Real data as a problem: N rows, some of them held out, and nested subsamples of the rest.

For real data neither the law of the inputs nor the regression function is known. Where `tsjax.Problem` draws fresh data, here a
key gives a split, a sample size n gives a subsample, and the risk E (y - f_hat(x))^2, which includes the noise, is estimated on
the rows held out. All splits come from the same N rows, so intervals over keys describe how much splits differ *given these
rows*. They are narrower than intervals over new data sets of N rows would be (Nadeau & Bengio 2003, Machine Learning 52,
section 3).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from .estimators.base import AbstractFit
from .precision import requires_float64
from .risk import RiskEstimate
from .size import Rows, Size, size_of
from .tables import check_numbers_in, read_table
from .task import AbstractInstance, AbstractTask, Dataset, check_key, check_numbers

BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")
"""The data sets that come with scikit-learn, without any download. Only diabetes has a measured response (the progression of
the disease after a year, 442 patients); in the others the response is the number of a class."""


def _float64(values: Any) -> np.ndarray:
    check_numbers("a DataProblem", values)
    return np.array(values, np.float64)


def _among(n: Rows, most: int, because: str = "no more may be learnt from") -> Size:
    """n as a `Size`. **Raises:** ValueError for n outside 1 .. `most`, giving `because` as the reason."""
    if not 1 <= (n.limit if isinstance(n, Size) else n) <= most:
        raise ValueError(f"n must be in 1..{most}: {because}; got n={n.limit if isinstance(n, Size) else n}.")
    return size_of(n)


class Split(AbstractInstance):
    """Rows of real data after one random choice of those held out: `test` holds them, and `pool` the rest."""

    pool: Dataset
    test: Dataset

    def sample(self, key: PRNGKeyArray, n: Rows, dtype=None) -> Dataset:
        """n of the rows that are not held out, at random without replacement; with the same key, a smaller sample is part of a
        larger one. **Raises:** ValueError for more rows than there are."""
        check_key(key)
        size = _among(n, self.pool.n)
        rows = jr.permutation(key, self.pool.n)[: size.limit]
        x, y = self.pool.x[rows].astype(dtype), self.pool.y[rows].astype(dtype)
        return Dataset(x=x, y=y, weight=size.weights(x.dtype))


class DataProblem(AbstractTask):
    """N rows of real data, x (N, d) and y (N,). The share `test_share` of them is held out.

    Make one from arrays with `DataProblem(x, y)`, from a CSV or Parquet file with `DataProblem.read("houses.csv",
    target="price")`, or from a data set that comes with scikit-learn with `DataProblem.bundled("diabetes")`.

    **Arguments:**

    - `x`, `y`: inputs (N, d) and response (N,), kept in float64. Any units will do if the estimator standardises
      (`tsjax.Standardized`).
    - `test_share`: the share of the rows that is held out, in (0, 1). At least two rows must be held out and two must remain.

    **Raises:** ValueError for shapes that do not fit together, for values that are not finite, and for too few rows.

    >>> problem = ts.DataProblem.bundled("diabetes")
    >>> train, test = problem.split(jax.random.key(0), n=100)
    >>> train.x.shape, test.x.shape
    ((100, 10), (110, 10))
    """

    x: Float[np.ndarray, "N d"] = eqx.field(converter=_float64)
    y: Float[np.ndarray, " N"] = eqx.field(converter=_float64)
    test_share: float = eqx.field(static=True, default=0.25)

    def __check_init__(self):
        if self.x.ndim != 2 or self.y.shape != self.x.shape[:1]:
            raise ValueError(f"a DataProblem has x (N, d) and y (N,), got {self.x.shape} and {self.y.shape}.")
        for name, values in (("x", self.x), ("y", self.y)):
            bad = np.argwhere(~np.isfinite(values))
            if len(bad):
                where = tuple(int(i) for i in bad[0])
                raise ValueError(
                    f"{name} has {len(bad)} value(s) that are not finite, the first at {where}: fill them, or drop the rows."
                )
        if not 0.0 < self.test_share < 1.0:
            raise ValueError(f"test_share is a share of the rows, in (0, 1); got {self.test_share}.")
        if self.test_size < 2 or self.largest_n < 2:
            raise ValueError(
                f"of {len(self.y)} rows test_share={self.test_share} holds out {self.test_size} and leaves {self.largest_n}; "
                "both must be at least 2."
            )

    @classmethod
    def read(
        cls, path: str | Path, target: str, features: Sequence[str] | None = None, test_share: float = 0.25
    ) -> "DataProblem":
        """The rows of a table in a file (`tsjax.tables.read_table`: CSV with a header, Parquet, JSON lines). `target` names the
        response and `features` the inputs; if `features` is None, all other columns are inputs.

        **Raises:** ValueError for another kind of file, or for a column that is missing, has gaps, or does not hold numbers;
        OSError for a file that cannot be read.
        """
        table = read_table(path)
        names = [name for name in table.columns if name != target] if features is None else list(features)
        for name in (target, *names):
            check_numbers_in(table, name, str(path), " (DataProblem.read(..., features=[...]))")
            gaps = int(np.isnan(table[name].to_numpy(np.float64)).sum())
            if gaps:
                raise ValueError(f"{path}: column {name!r} has {gaps} gap(s): fill them, or drop the rows.")
        return cls(table[names].to_numpy(np.float64), table[target].to_numpy(np.float64), test_share)

    @classmethod
    def bundled(cls, name: str, test_share: float = 0.25) -> "DataProblem":
        """A data set named in `BUNDLED`. **Raises:** ValueError for another name; ImportError if scikit-learn is not
        installed."""
        if name not in BUNDLED:
            raise ValueError(f"scikit-learn bundles {', '.join(BUNDLED)}; got {name!r}.")
        try:
            from sklearn import datasets
        except ModuleNotFoundError as error:
            raise ImportError(
                f"the data set {name!r} comes with scikit-learn, which is not installed: pip install 'tsjax[sklearn]'."
            ) from error
        # Diabetes in the units of measurement, not scaled by scikit-learn.
        options = {"scaled": False} if name == "diabetes" else {}
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True, **options)
        return cls(x, y, test_share)

    @property
    def d(self) -> int:
        """Number of inputs."""
        return self.x.shape[1]

    @property
    def test_size(self) -> int:
        """Number of rows held out."""
        return round(self.test_share * len(self.y))

    @property
    def largest_n(self) -> int:
        """Number of rows that may be learnt from."""
        return len(self.y) - self.test_size

    @property
    def variance(self) -> float:
        """The variance of y over all rows: predicting the mean has about this risk."""
        return float(np.var(self.y))

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the numbers in x and y. The file that they come from does not matter."""
        parts = (repr(self.x.shape).encode(), self.x.tobytes(), self.y.tobytes())
        return hashlib.sha256(b"".join(parts)).hexdigest()[:12]

    def split(self, key: PRNGKeyArray, n: Rows, dtype=None) -> tuple[Dataset, Dataset]:
        """n rows to learn from, and the rows held out, both drawn at random without replacement. If n is a `tsjax.Size`, rows
        after its count have weight 0.

        With the same key, the rows held out are the same for every n, and a smaller subsample is part of a larger one.

        **Raises:** ValueError for n outside 1 .. `largest_n`.
        """
        check_key(key)
        size = _among(n, self.largest_n, f"of {len(self.y)} rows {self.test_size} are held out")
        order = jr.permutation(key, len(self.y))
        held, x, y = self.test_size, jnp.asarray(self.x, dtype), jnp.asarray(self.y, dtype)
        mine, test = order[held : held + size.limit], order[:held]
        return Dataset(x=x[mine], y=y[mine], weight=size.weights(x.dtype)), Dataset(x=x[test], y=y[test])

    def draw(self, key: PRNGKeyArray, dtype=None) -> Split:
        """One choice of the rows held out, the same as that of `split(key, n)`."""
        train, test = self.split(key, self.largest_n, dtype)
        return Split(train, test)

    def held_out_risk(self, fit: AbstractFit, test: Dataset) -> RiskEstimate:
        """The mean of (y - f_hat(x))^2 over the rows held out, in squared units of y, with the standard error of a mean over
        independent rows for this fit. Rows of weight 0 do not count."""
        return _mean_squared_error(fit, test)


@requires_float64
def _mean_squared_error(fit: AbstractFit, test: Dataset) -> RiskEstimate:
    squared = (fit.predict(jnp.asarray(test.x, jnp.float64)) - jnp.asarray(test.y, jnp.float64)) ** 2
    there = test.weights > 0
    mean, count = jnp.mean(squared, where=there), jnp.sum(there)
    return RiskEstimate(mean, jnp.std(squared, ddof=1, where=there) / count**0.5)
