"""Learning curves of any scikit-learn estimator with a fitted law: `RateDisplay`."""

import functools
from typing import Any, SupportsFloat

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit, check_cv, learning_curve
from sklearn.utils import check_random_state, indexable

from ..rates import AbstractModel, Estimate, Forecast, ModelChoice, Rate, choose_model, fit_rate, forecast, needed_n
from ..rates.checks import short

# The default number of repeated splits, and the share of the rows that each holds out.
_SPLITS, _TEST_SIZE = 20, 0.25
# The default number of sizes on a geometric grid, the number of octaves that it spans, and the smallest size.
_SIZES, _OCTAVES, _LEAST = 8, 5, 10
# Blue and vermilion of Okabe and Ito, as in the other figures of tsjax.
_MEASURED, _FITTED = "#0072B2", "#D55E00"


class RateDisplay:
    """The learning curve of an estimator with its rate: held-out error against n, a fitted law, and its forecast.

    It follows scikit-learn's displays, such as `sklearn.model_selection.LearningCurveDisplay`: `from_estimator` runs the fits,
    and parameters are stored as attributes.

    **Intervals.** Splits of one data set share rows, so their errors are correlated, and their scatter is too small a measure
    of uncertainty. In a simulation (`python -m benchmarks splits`), nominal 95 % intervals for the expected error that ignore
    this covered 39 to 83 % of new data sets. So the variance of the mean over J splits is estimated by S^2 (1/J + rho / (1 -
    rho)), as Nadeau and Bengio (Machine Learning 52, 2003) propose, where S^2 is the variance over splits. At each n, our rho
    (`overlap`) is the mean of two shares: the share of training rows, and the share of held-out rows, that two splits have in
    common on average. Nadeau and Bengio use the share of held-out rows only. In the worst case of the simulation their
    intervals covered 85 %, and ours 91 %.

    The correction does not use that the errors of one split at all sizes have a common part, which cancels from exponents. So
    the intervals of exponents are wider than necessary: they covered 99 % or more. Splits that share no rows have rho = 0 and
    no correction. All intervals are for new data sets of the same kind and with as many rows. They cover neither data from
    another source nor a curve that bends beyond the largest n.

    **Parameters**, all stored as attributes:

    - `train_sizes` (k,): numbers of training rows, increasing.
    - `errors` (k, splits): error on the held-out rows; smaller is better.
    - `overlap` (k,): rho at each n, in [0, 1); 0 for independent columns, such as runs on separate data sets.
    - `model`: the law to fit, a model of `tsjax.fit_rate`, or `auto`, which chooses one by AICc (`tsjax.choose_model`).
    - `level`: the confidence level of all intervals.
    - `error_name`: the label of the axis of errors.

    **Attributes after `plot`:** `ax_`, `figure_`, `errorbar_`, `line_`, `forecast_line_` and `fill_between_` of matplotlib.
    `forecast_line_` is None if there is no forecast beyond the largest n, and `fill_between_` is None if the data do not bound
    the curve.

    **Raises:** ValueError for shapes that do not fit together, for an overlap outside of [0, 1), and as `tsjax.fit_rate` does.

    >>> from sklearn.linear_model import LinearRegression
    >>> from tsjax.sklearn import RateDisplay
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 3))
    >>> y = X[:, 0] + 0.1 * rng.normal(size=400)
    >>> display = RateDisplay.from_estimator(LinearRegression(), X, y, model="floor", random_state=0)
    >>> display.errors.shape
    (8, 20)
    """

    def __init__(
        self,
        *,
        train_sizes: Any,
        errors: Any,
        overlap: Any = 0.0,
        model: str | AbstractModel = "auto",
        level: float = 0.95,
        error_name: str = "Error",
    ):
        self.train_sizes = np.asarray(train_sizes)
        self.errors = np.asarray(errors, np.float64)
        if self.errors.ndim != 2 or self.train_sizes.shape != self.errors.shape[:1]:
            raise ValueError(
                f"expected train_sizes (k,) and errors (k, splits), got {self.train_sizes.shape} and {self.errors.shape}."
            )
        self.overlap = np.broadcast_to(np.asarray(overlap, np.float64), self.train_sizes.shape)
        if not ((self.overlap >= 0.0) & (self.overlap < 1.0)).all():
            raise ValueError(
                f"overlap is the share of rows that two splits have in common, in [0, 1); got {overlap}. The scatter of "
                "identical splits is 0: let each split have some rows of its own."
            )
        self.model = model
        self.level = level
        self.error_name = error_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        groups: Any = None,
        train_sizes: Any = None,
        cv: Any = None,
        scoring: Any = None,
        best_score: SupportsFloat | None = None,
        model: str | AbstractModel = "auto",
        level: float = 0.95,
        n_jobs: int | None = None,
        random_state: Any = None,
        params: dict[str, Any] | None = None,
        forecast_at: SupportsFloat | None = None,
        ax: Any = None,
    ) -> "RateDisplay":
        """Fits clones of an estimator or pipeline to nested subsamples of repeated splits, and draws the learning curve.

        **Parameters:**

        - `estimator`, `X`, `y`, `groups`, `params`, `n_jobs`: as for `sklearn.model_selection.learning_curve`, which runs
          the fits.
        - `train_sizes`: numbers of training rows, or shares of the largest in (0, 1]; by default 8 on a geometric grid over the
          last five octaves.
        - `cv`: a number of folds, a splitter, or pairs of indices; by default 20 random splits that hold out a quarter of the
          rows, stratified for classifiers.
        - `scoring`: a name or a callable, as in scikit-learn. By default the error is the share of wrong answers of classifiers
          and the mean squared error of regressors. In general it is `best_score` - score.
        - `best_score`: the score of a prediction without error. By default it is 0 for scores that are negative errors
          (`neg_log_loss`), and 1 for others (`accuracy`, `r2`). A callable that `make_scorer` has not made needs it.
        - `model`, `level`: see the class.
        - `random_state`: draws the splits and the order of rows in them; pass an int to get the same curve again. The estimator
          has its own `random_state`.
        - `forecast_at`, `ax`: see `plot`.

        **Raises:** ValueError as scikit-learn and `tsjax.fit_rate` do, and for a score whose best value is not known; and the
        errors of the estimator.
        """
        inputs, y, groups = indexable(X, y, groups)
        classifies = is_classifier(estimator)
        scoring = ("accuracy" if classifies else "neg_mean_squared_error") if scoring is None else scoring
        best, name = _error_of(scoring, best_score, check_scoring(estimator, scoring))
        random = check_random_state(random_state)
        if cv is None:
            splitter = StratifiedShuffleSplit if classifies else ShuffleSplit
            cv = splitter(_SPLITS, test_size=_TEST_SIZE, random_state=random.randint(2**31 - 1))
        checked: Any = check_cv(cv, y, classifier=classifies)
        # The first n rows of a permutation are the subsample of size n.
        splits = [(random.permutation(train), test) for train, test in checked.split(inputs, y, groups)]
        if train_sizes is None:
            largest = min(len(train) for train, _ in splits)
            train_sizes = np.unique(np.geomspace(max(largest / 2**_OCTAVES, _LEAST), largest, _SIZES).astype(int))
        how: dict[str, Any] = {"scoring": scoring, "n_jobs": n_jobs, "error_score": "raise", "params": params}
        sizes, _, scores, *_ = learning_curve(estimator, inputs, y, train_sizes=train_sizes, cv=splits, **how)
        held_out = _shared([test for _, test in splits])
        overlap = [(held_out + _shared([train[:n] for train, _ in splits])) / 2.0 for n in sizes]
        display = cls(
            train_sizes=sizes, errors=best - scores, overlap=overlap, model=model, level=level, error_name=name
        )
        return display.plot(ax, forecast_at=forecast_at)

    @functools.cached_property
    def choice(self) -> ModelChoice | None:
        """The result of `tsjax.choose_model`; None if the model was given."""
        if self.model != "auto":
            return None
        return choose_model(self.train_sizes, self._spread, level=self.level)

    @functools.cached_property
    def rate(self) -> Rate:
        """The fitted law, with its exponent and the interval of the exponent. Before the fit, the distances of errors from
        their mean at each n are enlarged, so that the standard error of each mean is the corrected one."""
        if self.choice is not None:
            return self.choice.rate
        return fit_rate(self.train_sizes, self._spread, model=self.model, level=self.level)

    @property
    def _spread(self) -> np.ndarray:
        factor = np.sqrt(1.0 + self.errors.shape[1] * self.overlap / (1.0 - self.overlap))
        mean = self.errors.mean(axis=1, keepdims=True)
        return mean + factor[:, None] * (self.errors - mean)

    def forecast(self, n: SupportsFloat) -> Forecast:
        """The error at n rows, with an interval for the error that this procedure would find on new data; see
        `tsjax.forecast`."""
        return forecast(self.rate, float(n))

    def samples_for(self, error: SupportsFloat) -> Estimate:
        """The number of training rows needed for this expected error, with an interval; see `tsjax.needed_n`."""
        return needed_n(self.rate, float(error))

    def plot(self, ax: Any = None, *, forecast_at: SupportsFloat | None = None) -> "RateDisplay":
        """Draws mean errors with their intervals, the law with its band, and its forecast, on logarithmic axes.

        - `ax`: matplotlib axes; new ones by default.
        - `forecast_at`: the n up to which the law is drawn; four times the largest n by default.

        Returns itself. **Raises:** ValueError for a `forecast_at` below the largest n, or infinite.
        """
        import matplotlib.pyplot as plt
        from matplotlib.ticker import LogLocator, NullFormatter

        from ..rates.intervals import student_quantile

        rate, last = self.rate, float(self.train_sizes[-1])
        far = 4.0 * last if forecast_at is None else float(forecast_at)
        if not last <= far < np.inf:
            raise ValueError(f"forecast_at = {far:g} lies below the largest n, {last:g}: give a larger one.")
        if ax is None:
            _, ax = plt.subplots(figsize=(6.0, 4.2), layout="constrained")
        # Intervals of means are symmetric on the logarithmic axis.
        reach = np.exp(student_quantile(max(rate.effective_seeds, 2.0), self.level) * rate.mean_se / rate.mean_risk)
        reach = np.where(np.isfinite(reach), reach, 1.0)
        y = rate.mean_risk
        self.errorbar_ = ax.errorbar(
            rate.n,
            y,
            yerr=[y - y / reach, y * reach - y],
            fmt="o",
            ms=4.5,
            capsize=2,
            color=_MEASURED,
            label="measured",
        )
        inside, beyond = np.geomspace(rate.n[0], last, 100), np.geomspace(last, far, 60)
        (self.line_,) = ax.plot(inside, rate.predict(inside)[0], color=_FITTED, label=self._law)
        curve, low, high = rate.predict(np.concatenate([inside, beyond]))
        self.forecast_line_ = None
        if far > last:
            at = self.forecast(far)
            said = f"n = {short(far)}: {_between(at.predicted, at.interval)}"
            (self.forecast_line_,) = ax.plot(beyond, curve[100:], color=_FITTED, ls="--", label=said)
        self.fill_between_ = None
        if np.isfinite([low, high]).all() and (low > 0).all():
            x = np.concatenate([inside, beyond])
            self.fill_between_ = ax.fill_between(x, low, high, color=_FITTED, alpha=0.18, lw=0)
        ax.set(xscale="log", yscale="log", xlabel="Number of samples in the training set", ylabel=self.error_name)
        for axis in (ax.xaxis, ax.yaxis):
            # Plain numbers as labels, with several on an axis that spans less than a power of ten.
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        ax.legend(frameon=False, fontsize="small", title=f"{100 * self.level:g} % intervals", title_fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    @property
    def _law(self) -> str:
        rate = self.rate
        text = f"{rate.model.formula}, a = {_between(rate.exponent, rate.interval)}"
        return text if rate.identified else f"{rate.model.formula}, exponent not identified"

    def __repr__(self) -> str:
        return f"RateDisplay({self.errors.shape[1]} splits, {self.rate})"


def _between(value: float, ends: tuple[float, float]) -> str:
    low, high = ends
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"


def _error_of(scoring: Any, best: SupportsFloat | None, scorer: Any) -> tuple[float, str]:
    """The best value of a score, and a name for the distance from it."""
    name = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")
    if best is None:
        sign = getattr(scorer, "_sign", None)
        if sign is None:
            raise ValueError(
                "the error is best_score - score, and the best value of a callable is not known: give best_score, such as 1 "
                "for an accuracy and 0 for a negative loss."
            )
        best = 0.0 if sign < 0 else 1.0
    best = float(best)
    if name == "accuracy":
        return best, "Share of wrong answers"
    plain = name.removeprefix("neg_").replace("_", " ")
    return best, plain.capitalize() if best == 0.0 else f"{best:g} - {plain}"


def _shared(sets: list[np.ndarray]) -> float:
    """The share of rows that two sets have in common, averaged over all pairs; 0 for a single set."""
    member = np.zeros((len(sets), 1 + max(int(rows.max()) for rows in sets)))
    for one, rows in zip(member, sets, strict=True):
        one[rows] = 1.0
    common = member @ member.T
    size = np.sqrt(np.diag(common))
    share, count = common / np.outer(size, size), len(sets)
    return float((share.sum() - np.trace(share)) / (count * (count - 1))) if count > 1 else 0.0
