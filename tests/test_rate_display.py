"""Learning curves of scikit-learn estimators: against direct computation, and the coverage of their intervals."""

import joblib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import SEED
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import make_scorer, mean_absolute_error
from sklearn.model_selection import KFold, PredefinedSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tsjax as ts
from tsjax.sklearn import RateDisplay

X, Y = load_diabetes(return_X_y=True)


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def _splits():
    rng = np.random.default_rng(SEED)
    for _ in range(6):
        order = rng.permutation(len(Y))
        yield order[:330], order[330:]


def test_errors_are_those_of_a_loop():
    """The same subsamples, the same fits, in a pipeline and in two threads."""
    pipeline, splits, sizes = make_pipeline(StandardScaler(), Ridge(1.0)), list(_splits()), [20, 40, 80, 160, 320]
    with joblib.parallel_config(backend="threading"):
        display = RateDisplay.from_estimator(
            pipeline, X, Y, train_sizes=sizes, cv=splits, model="power", random_state=3, n_jobs=2
        )
    random = np.random.RandomState(3)  # noqa: NPY002 (as scikit-learn draws)
    expected = np.zeros((5, 6))
    members = np.zeros((5, 6, len(Y)), bool)
    for j, (train, test) in enumerate(splits):
        order = random.permutation(train)
        for i, n in enumerate(sizes):
            members[i, j, order[:n]] = True
            fit = clone(pipeline).fit(X[order[:n]], Y[order[:n]])
            expected[i, j] = np.mean((fit.predict(X[test]) - Y[test]) ** 2)
    np.testing.assert_allclose(display.errors, expected, rtol=1e-10)
    pairs = [(a, b) for a in range(6) for b in range(a)]
    shared = lambda sets: np.mean([(sets[a] & sets[b]).sum() / sets[a].sum() for a, b in pairs])
    held_out = [np.isin(np.arange(len(Y)), test) for _, test in splits]
    overlap = [(shared(held_out) + shared(list(rows))) / 2 for rows in members]
    np.testing.assert_allclose(display.overlap, overlap)
    # The standard error of a mean is the corrected one, and so is the law's interval.
    rho = np.asarray(overlap)
    corrected = np.sqrt(expected.var(axis=1, ddof=1) * (1 / 6 + rho / (1 - rho)))
    np.testing.assert_allclose(display.rate.mean_se, corrected, rtol=1e-9)
    np.testing.assert_allclose(display.rate.mean_risk, expected.mean(axis=1), rtol=1e-9)
    naive = ts.fit_rate(sizes, expected)
    width = lambda rate: rate.interval[1] - rate.interval[0]
    assert width(display.rate) > width(naive)


@pytest.mark.slow
def test_a_forest_on_digits_again_and_in_parallel():
    x, y = load_digits(return_X_y=True)
    options = {"train_sizes": [40, 80, 160, 320], "cv": 4, "model": "power", "random_state": 1}
    forest = RandomForestClassifier(10, random_state=0)
    one, other = (RateDisplay.from_estimator(forest, x, y, n_jobs=jobs, **options) for jobs in (None, 2))
    np.testing.assert_array_equal(one.errors, other.errors)
    assert one.rate.interval == other.rate.interval and one.rate.exponent > 0.3
    assert not np.array_equal(
        RateDisplay.from_estimator(forest, x, y, **{**options, "random_state": 2}).errors, one.errors
    )
    assert one.error_name == "Share of wrong answers" and one.choice is None


def test_scores_become_errors():
    options = {"train_sizes": [40, 80, 160], "cv": 3, "model": "power", "random_state": 0}
    error = lambda scoring, **more: RateDisplay.from_estimator(Ridge(), X, Y, scoring=scoring, **options, **more)
    absolute = error("neg_mean_absolute_error")
    assert absolute.error_name == "Mean absolute error"
    made = error(make_scorer(mean_absolute_error, greater_is_better=False))
    np.testing.assert_allclose(absolute.errors, made.errors)
    shares, squares = error("r2"), error(None)
    assert shares.error_name == "1 - r2"
    for (_, test), share, square in zip(KFold(3).split(X), shares.errors.T, squares.errors.T, strict=True):
        np.testing.assert_allclose(share, square / Y[test].var(), rtol=1e-10)
    plain = lambda estimator, x, y: -mean_absolute_error(y, estimator.predict(x))
    with pytest.raises(ValueError, match="the best value of a callable is not known: give best_score"):
        error(plain)
    np.testing.assert_allclose(error(plain, best_score=0.0).errors, absolute.errors)


def test_forecast_and_samples_for_an_error():
    """Planted: 40 / n with independent columns."""
    n, rng = 2.0 ** np.arange(4, 11), np.random.default_rng(SEED)
    display = RateDisplay(train_sizes=n, errors=40 / n[:, None] * rng.chisquare(30, (7, 24)) / 30)
    assert display.choice is not None and display.choice.best in ("power", "floor", "finite", "logq", "broken")
    power = RateDisplay(train_sizes=n, errors=display.errors, model="power")
    rate = power.rate
    found = power.samples_for(0.004)
    assert found.value == pytest.approx((rate.constant / 0.004) ** (1 / rate.exponent), rel=1e-6)
    assert found.interval[0] < found.value < found.interval[1]
    # Band and number are two views of one interval: where the band's upper end is the error, the needed n ends.
    low, high = (rate.predict([end]) for end in found.interval)
    assert low[1][0] == pytest.approx(0.004, rel=0.01) and high[2][0] == pytest.approx(0.004, rel=0.01)
    assert power.forecast(4000).interval == ts.forecast(rate, 4000.0).interval


def test_needed_n_of_curved_models():
    n = 2.0 ** np.arange(4, 12)
    noise = np.random.default_rng(SEED).chisquare(2000, (8, 8)) / 2000
    floor = ts.fit_rate(n, (0.01 + 1 / n[:, None]) * noise, model="floor")
    constant, exponent, rest = np.exp(floor.theta[0]), floor.theta[1], floor.theta[2]
    assert ts.needed_n(floor, 0.03).value == pytest.approx((constant / (0.03 - rest)) ** (1 / exponent), rel=1e-3)
    below = ts.needed_n(floor, 0.005)
    assert below.value == np.inf and below.interval == (np.inf, np.inf)
    assert ts.needed_n(floor, 1e4).value == 0.0
    narrow, wide = (ts.needed_n(floor, 0.03, level=level).interval for level in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    with pytest.raises(ValueError, match="risk must be finite and positive"):
        ts.needed_n(floor, 0.0)


def test_a_display():
    display = RateDisplay.from_estimator(Ridge(), X, Y, cv=4, random_state=0, forecast_at=3000)
    assert display.line_.get_xdata()[-1] == pytest.approx(display.train_sizes[-1])
    assert display.forecast_line_ is not None and display.forecast_line_.get_xdata()[-1] == pytest.approx(3000)
    np.testing.assert_allclose(display.errorbar_.lines[0].get_ydata(), display.errors.mean(axis=1))
    assert display.ax_.get_ylabel() == "Mean squared error" and display.figure_ is display.ax_.figure
    _, ax = plt.subplots()
    assert display.plot(ax, forecast_at=display.train_sizes[-1]) is display and display.ax_ is ax
    assert display.forecast_line_ is None
    with pytest.raises(ValueError, match="forecast_at = 10 lies below the largest n"):
        display.plot(forecast_at=10)


def test_splits_without_common_rows_are_not_corrected():
    """Blocks of their own: what scikit-learn users have for independent replicates."""
    blocks = np.array_split(np.random.default_rng(SEED).permutation(len(Y)), 6)
    cv = [(block[:50], block[50:]) for block in blocks]
    display = RateDisplay.from_estimator(Ridge(), X, Y, cv=cv, train_sizes=[15, 25, 50], model="power", random_state=0)
    assert (display.overlap == 0).all()
    assert display.rate.interval == ts.fit_rate(display.train_sizes, display.errors).interval
    # Half of the rows held out once each: no test rows in common.
    halves = PredefinedSplit(np.arange(len(Y)) % 2)
    two = RateDisplay.from_estimator(Ridge(), X, Y, cv=halves, train_sizes=[20, 200], model="power", random_state=0)
    assert (two.overlap == 0).all()


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"expected train_sizes \(k,\) and errors \(k, splits\)"):
        RateDisplay(train_sizes=[1, 2, 3], errors=np.ones((2, 3)))
    with pytest.raises(ValueError, match="overlap is the share of rows"):
        RateDisplay(train_sizes=[1, 2], errors=np.ones((2, 3)), overlap=1.0)
    with pytest.raises(ValueError, match="no model 'cubic'"):
        RateDisplay.from_estimator(Ridge(), X, Y, cv=3, model="cubic")
    with pytest.raises(ValueError, match="mean risk at n = .* is 0"):
        RateDisplay.from_estimator(
            KNeighborsClassifier(1),
            X[:, :1] * 0 + (Y > 100)[:, None],
            Y > 100,
            cv=3,
            train_sizes=[20, 40, 80],
            model="power",
        )
    classes = RateDisplay.from_estimator(
        LogisticRegression(), X, Y > 140, cv=3, train_sizes=[20, 60, 180], model="power", random_state=0
    )
    assert ((classes.errors > 0) & (classes.errors < 1)).all()


@pytest.mark.slow
def test_intervals_cover_the_expected_error_of_new_data(capsys):
    """Least squares with normal inputs: E error = sigma^2 (1 + d / (n - d - 1)), known exactly. The bar: at least 90 % of
    nominal 95 %, where splits taken for independent cover less than 75 %."""
    rng, d, rows, sizes, repeats = np.random.default_rng(SEED), 5, 200, [20, 50, 150], 150
    truth = 1.0 + d / (np.array(sizes) - d - 1.0)
    hits, naive = np.zeros(3), np.zeros(3)
    for _ in range(repeats):
        x = rng.normal(size=(rows, d))
        y = x.sum(axis=1) + rng.normal(size=rows)
        display = RateDisplay.from_estimator(
            LinearRegression(), x, y, train_sizes=sizes, model="power", random_state=int(rng.integers(2**31))
        )
        plt.close("all")
        for counted, overlap in ((hits, display.overlap), (naive, 0.0)):
            rate = RateDisplay(train_sizes=sizes, errors=display.errors, overlap=overlap, model="power").rate
            counted += np.abs(rate.mean_risk - truth) <= 2.093 * rate.mean_se
    with capsys.disabled():
        print(
            f"\nexpected error at n = {sizes}: covered {hits / repeats}, splits taken for independent {naive / repeats}"
        )
    assert (hits / repeats >= 0.9).all() and (naive[1:] / repeats < 0.75).all()
