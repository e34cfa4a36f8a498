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
# By default so many sizes on a geometric grid, over so many octaves, none smaller than the last of these numbers.
_SIZES, _OCTAVES, _LEAST = 8, 5, 10
# Blue and vermilion of Okabe and Ito, as in the other figures of tsjax.
_MEASURED, _FITTED = "#0072B2", "#D55E00"


class RateDisplay:
    """Learning curve of an estimator with its rate: held-out error against n, the law that describes it, and its forecast.

    It follows scikit-learn's displays, as `sklearn.model_selection.LearningCurveDisplay` does: `from_estimator` runs the fits,
    and parameters are stored as attributes.

    **Intervals.** Splits of one data set share rows, so that their errors are correlated and their scatter says too little:
    intervals of nominal 95 % for the expected error that ignore this covered 39 to 83 % of new data sets in a simulation
    (`python -m benchmarks splits`). So the variance of the mean over J splits is taken as S^2 (1/J + rho / (1 - rho)), as
    Nadeau and Bengio (Machine Learning 52, 2003) propose, with S^2 the variance over splits. Our rho, `overlap`, is at each n
    the mean of two shares: of the training rows, and of the held-out rows, that two splits have in common on average. Theirs
    is the share of held-out rows alone, which covered 85 % in the worst case of that simulation, and ours 91 %.

    Exponents gain from what all sizes of one split share, which this does not count: their intervals covered 99 % or more, and
    are wider than need be. Splits that share no rows have rho = 0, and nothing is corrected. All intervals are about new data
    sets of this kind and of as many rows; they know nothing of data from elsewhere, nor of a curve that bends beyond the
    largest n.

    **Parameters**, all stored as attributes:

    - `train_sizes` (k,): numbers of training rows, increasing.
    - `errors` (k, splits): error on the held-out rows, smaller being better.
    - `overlap` (k,): rho at each n, in [0, 1); 0 for independent columns, such as runs on data sets of their own.
    - `model`: what is fitted: a model of `tsjax.fit_rate`, or `auto`, which chooses one by AICc (`tsjax.choose_model`).
    - `level`: of all intervals. `error_name`: for the axis.

    **Attributes after `plot`:** `ax_`, `figure_`, `errorbar_`, `line_`, `forecast_line_` and `fill_between_` of matplotlib; the
    last is None where the data do not bound the curve.

    **Raises:** ValueError for shapes that do not fit together, an overlap outside of [0, 1), and as `tsjax.fit_rate`.

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
                f"overlap is the share of rows that two splits have in common, in [0, 1); got {overlap}. Splits that are all "
                "alike say nothing about their scatter: let each have rows of its own."
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
        """Fits clones of an estimator or pipeline to nested subsamples of repeated splits, and draws the curve.

        **Parameters:**

        - `estimator`, `X`, `y`, `groups`, `params`, `n_jobs`: as for `sklearn.model_selection.learning_curve`, which runs
          the fits.
        - `train_sizes`: numbers of training rows, or shares of the largest in (0, 1]; by default 8 on a geometric grid over the
          last five octaves.
        - `cv`: a number of folds, a splitter, or pairs of indices; by default 20 random splits that hold out a quarter of the
          rows, stratified for classifiers.
        - `scoring`: a name or a callable, as in scikit-learn; by default the share of wrong answers of classifiers and the mean
          squared error of regressors. The error is `best_score` - score.
        - `best_score`: the score without any error: by default 0 for scores that are negative errors (`neg_log_loss`), and 1
          for others (`accuracy`, `r2`). A callable that `make_scorer` has not made needs it.
        - `model`, `level`: see the class.
        - `random_state`: of the splits and of the order of rows in them; pass an int for the same curve again. The estimator
          has its own.
        - `forecast_at`, `ax`: see `plot`.

        **Raises:** ValueError as scikit-learn does, for a score whose best value is not known, and as `tsjax.fit_rate`; and
        what the estimator raises.
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
        """What `tsjax.choose_model` found; None where the model was given."""
        if self.model != "auto":
            return None
        return choose_model(self.train_sizes, self._spread, level=self.level)

    @functools.cached_property
    def rate(self) -> Rate:
        """The fitted law, with its exponent and its interval. It is fitted to errors whose distances from their mean are
        widened, so that the standard error of each mean is the corrected one."""
        if self.choice is not None:
            return self.choice.rate
        return fit_rate(self.train_sizes, self._spread, model=self.model, level=self.level)

    @property
    def _spread(self) -> np.ndarray:
        factor = np.sqrt(1.0 + self.errors.shape[1] * self.overlap / (1.0 - self.overlap))
        mean = self.errors.mean(axis=1, keepdims=True)
        return mean + factor[:, None] * (self.errors - mean)

    def forecast(self, n: SupportsFloat) -> Forecast:
        """The error at n rows, with the interval for what this procedure would find on new data; see `tsjax.forecast`."""
        return forecast(self.rate, float(n))

    def samples_for(self, error: SupportsFloat) -> Estimate:
        """How many training rows it takes for this expected error, with an interval; see `tsjax.needed_n`."""
        return needed_n(self.rate, float(error))

    def plot(self, ax: Any = None, *, forecast_at: SupportsFloat | None = None) -> "RateDisplay":
        """Draws mean errors with their intervals, the law with its band, and its forecast, in logarithmic axes.

        - `ax`: matplotlib axes; new ones by default.
        - `forecast_at`: up to which n the law is drawn; four times the largest by default.

        Returns itself.
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
        # In logarithmic axes: an interval of a mean reaches as far down as up.
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
            # Numbers as one says them, and some also where an axis holds less than a power of ten.
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
    """The best value of a score, and what to call the distance from it."""
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
    """The share of the rows that two of some sets have in common, on average over all pairs."""
    member = np.zeros((len(sets), 1 + max(int(rows.max()) for rows in sets)))
    for one, rows in zip(member, sets, strict=True):
        one[rows] = 1.0
    common = member @ member.T
    size = np.sqrt(np.diag(common))
    share, count = common / np.outer(size, size), len(sets)
    return float((share.sum() - np.trace(share)) / (count * (count - 1))) if count > 1 else 0.0
