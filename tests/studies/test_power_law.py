"""The study of power laws: its data, estimates and risks by NumPy, its line by sums over modes, its exponents by regimes."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import SEED
from pydantic import ValidationError
from scipy.optimize import brentq

import tsjax as ts
from tsjax.studies.power_law import PowerLawArguments, best_decay, cost, exponent, power_law, ridge_of, spectra, theory

CELL = {"n": 24, "alpha": 1.5, "r": 0.4, "noise_std": 0.3, "decay": 1.0, "p": 96}
K = np.arange(1.0, CELL["p"] + 1)
LAMBDAS, COEFFICIENTS = K**-1.5, K**-1.1


def _sample(key):
    """The points and the noise of a cell."""
    key_x, key_eps, _ = jr.split(key, 3)
    x = np.asarray(jr.normal(key_x, (CELL["n"], CELL["p"]), jnp.float32), float)
    with jax.enable_x64(True):
        return x, np.asarray(jr.normal(key_eps, (CELL["n"],), jnp.float64))


def _ridge_by_hand(x, y, ridge):
    """The coefficients on the coordinates of x by p normal equations for w / sqrt(lambda), in place of n for the points."""
    phi = x * np.sqrt(LAMBDAS)
    if ridge == 0:
        return np.sqrt(LAMBDAS) * (np.linalg.pinv(phi) @ y)
    return np.sqrt(LAMBDAS) * np.linalg.solve(phi.T @ phi + ridge * np.eye(len(LAMBDAS)), phi.T @ y)


@pytest.mark.parametrize(
    ("rule", "ridge"),
    [
        pytest.param("interpolation", 0.0, marks=pytest.mark.slow),
        ("decay", 24**0.3),
        pytest.param("best_decay", 24 ** (7 / 22), marks=pytest.mark.slow),
    ],
)
def test_a_cell_is_ridge_regression_and_its_risk_is_exact(rule, ridge):
    key = jr.key(SEED + 3)
    cell = CELL | {"decay": 0.7}
    found = power_law(key, rule=rule, **cell)
    x, eps = _sample(key)
    estimate = _ridge_by_hand(x, x @ COEFFICIENTS + 0.3 * eps, ridge)
    assert int(found["status"]) == ts.Status.CONVERGED
    assert float(found["ridge"]) == pytest.approx(ridge)
    assert float(found["risk"]) == pytest.approx(np.sum((estimate - COEFFICIENTS) ** 2), rel=1e-7)
    # The risk is the mean of (f - f*)^2 over fresh points: 1e5 of them give it to 4 standard errors.
    fresh = np.random.default_rng(SEED).normal(size=(100_000, CELL["p"])) @ (estimate - COEFFICIENTS)
    assert abs(np.mean(fresh**2) / float(found["risk"]) - 1) < 4 * (2 / 100_000) ** 0.5


@pytest.mark.parametrize("rule", ["gcv", pytest.param("marginal_likelihood", marks=pytest.mark.slow)])
def test_tuned_ridges_are_the_best_of_their_criterion(rule):
    key = jr.key(SEED + 4)
    found = power_law(key, rule=rule, **CELL)
    x, eps = _sample(key)
    y, n = x @ COEFFICIENTS + 0.3 * eps, CELL["n"]
    gram = x * LAMBDAS @ x.T

    def score(ridge):
        rest = ridge * np.linalg.inv(gram + ridge * np.eye(n))  # I - H
        if rule == "gcv":
            return n * np.sum((rest @ y) ** 2) / np.trace(rest) ** 2
        return np.log(y @ rest @ y / ridge) + np.linalg.slogdet(gram + ridge * np.eye(n))[1] / n

    chosen = float(found["ridge"])
    # Neighbours on the path are 1.6 times larger and smaller.
    assert score(chosen) <= min(score(chosen * 1.6), score(chosen / 1.6))
    assert float(found["risk"]) == pytest.approx(np.sum((_ridge_by_hand(x, y, chosen) - COEFFICIENTS) ** 2), rel=1e-7)


def test_spectra_have_the_capacity_and_the_source():
    eigenvalues, power = spectra(1.5, 0.4, CELL["p"])
    np.testing.assert_allclose(eigenvalues, LAMBDAS, rtol=1e-12)
    np.testing.assert_allclose(power, COEFFICIENTS**2, rtol=1e-12)
    # The source condition: sum_k lambda_k^{1-2s} theta_k^2 with theta_k^2 = power/lambda converges for s < r only.
    eigenvalues, power = (np.asarray(values) for values in spectra(1.5, 0.4, 20_000))
    growth = lambda s: np.diff(np.cumsum(eigenvalues ** (-2 * s) * power)[[199, 1999, 19_999]])
    below, above = growth(0.3), growth(0.5)
    assert below[1] < below[0] and above[1] > above[0]


def _line(n, ridge, noise_std):
    """The deterministic equivalent, its kappa by bisection."""
    share = lambda log: LAMBDAS / (LAMBDAS + np.exp(log))
    kappa = brentq(lambda log: np.sum(share(log)) + ridge * np.exp(-log) - n, -20.0, 10.0, xtol=1e-14)
    learnt = share(kappa)
    excess = n / (n - np.sum(learnt**2))
    return excess * (np.sum((1 - learnt) ** 2 * COEFFICIENTS**2) + noise_std**2) - noise_std**2


def test_the_line_is_the_deterministic_equivalent_of_the_same_modes():
    n = np.array([16, 48])
    arguments = CELL | {"n": None}
    for rule, ridges in (("interpolation", [0.0, 0.0]), ("decay", [1.0, 1.0]), ("best_decay", n ** (7 / 22))):
        expected = [_line(size, ridge, 0.3) for size, ridge in zip(n, ridges, strict=True)]
        np.testing.assert_allclose(theory(arguments | {"rule": rule}, n).predicted, expected, rtol=1e-9)
    best = theory(arguments | {"rule": "gcv"}, n).predicted
    brute = [min(_line(size, ridge, 0.3) for ridge in np.logspace(-3, 2, 501)) for size in n]
    np.testing.assert_allclose(best, brute, rtol=1e-3)


@pytest.mark.slow
def test_risks_lie_on_the_line():
    """64 samples of one cell: the mean is within 4 standard errors and the 1/n of the deterministic equivalent."""
    run = jax.jit(jax.vmap(lambda key: power_law.fn(key, rule="decay", **CELL)["risk"]))
    with jax.enable_x64(True):
        risks = np.asarray(run(jr.split(jr.key(SEED + 5), 64)))
    line = _line(CELL["n"], 1.0, 0.3)
    assert abs(risks.mean() / line - 1) < 4 * risks.std() / line / 8 + 1 / CELL["n"]


def test_exponents_of_the_four_regimes():
    """The paper's, at capacity 1.5 and sources 0.4 and 1.3 (saturated)."""
    assert exponent("interpolation", 1.5, 0.4, 1.0, noisy=False) == pytest.approx(1.2)
    assert exponent("interpolation", 1.5, 1.3, 1.0, noisy=False) == pytest.approx(3.0)
    assert exponent("interpolation", 1.5, 0.4, 1.0, noisy=True) == 0.0
    assert exponent("decay", 1.5, 0.4, 1.0, noisy=False) == pytest.approx(0.8)
    assert exponent("decay", 1.5, 0.4, 1.0, noisy=True) == pytest.approx(1 / 3)
    # A ridge that falls more slowly than the best one leaves the bias; one that falls faster than n^-alpha is none.
    assert exponent("decay", 1.5, 0.4, 0.5, noisy=True) == pytest.approx(0.4)
    assert exponent("decay", 1.5, 0.4, 2.0, noisy=False) == pytest.approx(1.2)
    for rule in ("best_decay", "gcv", "marginal_likelihood"):
        assert exponent(rule, 1.5, 0.4, 1.0, noisy=True) == pytest.approx(6 / 11)
    assert exponent("gcv", 1.5, 1.3, 1.0, noisy=True) == pytest.approx(0.75)
    assert exponent("marginal_likelihood", 1.5, 1.3, 1.0, noisy=True) == pytest.approx(0.6)
    assert float(best_decay(1.5, 0.4)) == pytest.approx(15 / 22)
    assert ridge_of("gcv", 10, 1.5, 0.4, 1.0) == "gcv" and ridge_of("interpolation", 10, 1.5, 0.4, 1.0) == 0.0


def test_arguments_and_cost():
    assert PowerLawArguments(rule="gcv", n=64).model_dump() == {
        "rule": "gcv", "n": 64, "alpha": 1.5, "r": 0.4, "noise_std": 0.0, "decay": 1.0, "p": 8192,
    }  # fmt: skip
    for change, named in (
        ({"rule": "oracle"}, "rule"), ({"alpha": 1.0}, "alpha"), ({"r": 0.0}, "r"), ({"noise_std": -1.0}, "noise_std"),
        ({"p": 64}, "p = 64 modes are too few for n = 64"), ({"decay": -0.1}, "decay"),
    ):  # fmt: skip
        with pytest.raises(ValidationError, match=named):
            PowerLawArguments.model_validate({"rule": "gcv", "n": 64} | change)
    assert cost({"rule": "decay", "n": 10, "p": 100}).products == 2.0 * 10 * 10 * 100 + 8.0 * 10 * 100
