"""Published results against what tsjax's estimators do on simulated data. The root key is 0 for every seed of the tests, so
that the page can state the figures. Errors are standard errors over data sets."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from published.comparison import Comparison, Found
from published.formulas import _PROBLEM, sollich
from scipy.optimize import brentq

import tsjax as ts
from tsjax.kernels import Laplace, Polynomial


def _over_data_sets(risk, count: int, at_once: int = 16) -> tuple[float, float]:
    """The mean of risk(key) over data sets, and its standard error."""
    values = np.asarray(
        eqx.filter_jit(lambda keys: jax.lax.map(risk, keys, batch_size=at_once))(jr.split(jr.key(0), count))
    )
    assert np.isfinite(values).all()
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(count))


def hastie(n: int, count: int) -> Found:
    """|beta|^2 (1 - n/p) + sigma^2 n/(p-n-1) for n < p - 1, sigma^2 p/(n-p-1) for n > p + 1: exact for Gaussian inputs."""
    p, noise = 40, 0.5
    published = 1 - n / p + noise**2 * n / (p - n - 1) if n < p else noise**2 * p / (n - p - 1)
    beta = jnp.ones(p) / math.sqrt(p)

    def risk(key):
        x = ts.Gaussian(p).sample(key, n)
        y = x @ beta + noise * jr.normal(jr.fold_in(key, 1), (n,))
        fit = ts.MinimumNorm(Polynomial(1, offset=0.0)).fit(key, ts.Dataset(x, y))
        return jnp.sum((fit.predict(jnp.eye(p)) - beta) ** 2)

    return Found(published, *_over_data_sets(risk, count), tolerance=0.0)


def mei_montanari(features: float) -> Found:
    """Theorem 2 and definition 1: with xi = i sqrt(psi_1 psi_2 lambda/mu_*^2) and zeta = mu_1/mu_*, nu_1 and nu_2 solve
    nu_1 = psi_1/(-xi - nu_2 - zeta^2 nu_2/(1 - zeta^2 nu_1 nu_2)) and its mirror image, chi = nu_1 nu_2, and the risk is
    F^2 E_1/E_0 + sigma^2 E_2/E_0. Here n/d = 3."""
    d, ridge, noise, psi_1, psi_2 = 100, 0.01, 0.3, features, 3.0
    rest = 0.5 - 0.25 - 0.5 / math.pi
    z2 = 0.25 / rest
    # On the imaginary axis nu = i u with u > 0; damped iterations reach the one solution there.
    xi, u1, u2 = math.sqrt(psi_1 * psi_2 * ridge / rest), 1.0, 1.0
    for _ in range(20_000):
        u1 = 0.5 * u1 + 0.5 * psi_1 / (xi + u2 + z2 * u2 / (1 + z2 * u1 * u2))
        u2 = 0.5 * u2 + 0.5 * psi_2 / (xi + u1 + z2 * u1 / (1 + z2 * u1 * u2))
    c, both = -u1 * u2, psi_1 * psi_2
    e0 = (
        -(c**5) * z2**3 + 3 * c**4 * z2**2 + (both - psi_2 - psi_1 + 1) * c**3 * z2**3 - 2 * c**3 * z2**2 - 3 * c**3 * z2
        + (psi_1 + psi_2 - 3 * both + 1) * c**2 * z2**2 + 2 * c**2 * z2 + c**2 + 3 * both * c * z2 - both
    )  # fmt: skip
    e1 = psi_2 * c**3 * z2**2 - psi_2 * c**2 * z2 + both * c * z2 - both
    e2 = (
        c**5 * z2**3 - 3 * c**4 * z2**2 + (psi_1 - 1) * c**3 * z2**3 + 2 * c**3 * z2**2 + 3 * c**3 * z2
        + (-psi_1 - 1) * c**2 * z2**2 - 2 * c**2 * z2 - c**2
    )  # fmt: skip
    n, beta = round(psi_2 * d), jnp.ones(d) / math.sqrt(d)
    # Their ridge N lambda/d |a|^2 on a mean loss is n lambda |c|^2 for features of norm 1/sqrt(N) on inputs of norm sqrt(d).
    learner = ts.RandomFeatures(round(psi_1 * d), ridge=n * ridge)

    def risk(key):
        x, fresh = (math.sqrt(d) * ts.Sphere(d).sample(jr.fold_in(key, i), size) for i, size in enumerate((n, 1000)))
        y = x @ beta + noise * jr.normal(jr.fold_in(key, 2), (n,))
        return jnp.mean((learner.fit(key, ts.Dataset(x, y)).predict(fresh) - fresh @ beta) ** 2)

    # Corrections to the limit are of the order 1/d.
    return Found((e1 + noise**2 * e2) / e0, *_over_data_sets(risk, 40), tolerance=0.02)


def goldt() -> Found:
    """Online SGD with noise: epsilon_g = eta sigma^2 K/(4 - 2 eta K) in the limit, for K linear neurons in high
    dimension; the half mean square, eta K the step times the squared norm of output weights and inputs. Here of 32 neurons,
    whose squared norm varies little between students."""
    d, noise, step, n = 200, 0.5, 2e-3, 5000
    beta = jnp.ones(d) / math.sqrt(d)
    learner = ts.GradientStudent(
        32, optax.sgd(step), batch_size=1, epochs=1, trained="neurons", init_output_std=32**-0.5, activation=_LINEAR
    )

    def run(key):
        x = ts.Gaussian(d).sample(key, n)
        y = x @ beta + noise * jr.normal(jr.fold_in(key, 1), (n,))
        net = learner.fit(jr.fold_in(key, 2), ts.Dataset(x, y)).net
        rate = step * jnp.sum(net.a**2) * d
        return 0.5 * jnp.sum((net.a @ net.w - beta) ** 2), rate * noise**2 / (4 - 2 * rate)

    keys = jr.split(jr.key(0), 100)
    found, published = (np.asarray(v) for v in eqx.filter_jit(jax.vmap(run))(keys))
    # Output weights differ between students, so the errors are paired with their predictions.
    error = float(np.std(found - published, ddof=1) / math.sqrt(len(keys)))
    return Found(float(published.mean()), float(found.mean()), error, tolerance=0.02)


_LINEAR = ts.activations.Activation(lambda z: z)


def spigler() -> Found:
    """beta = min(alpha_T - D, 2 alpha_S)/D = 1/2: the Laplace kernel on Gaussian processes of its own covariance, d = 3."""
    sizes, seeds, fresh = (64, 128, 256, 512), 32, 400
    kernel, law = Laplace(), ts.Sphere(3)

    def risk(key, n):
        x = law.sample(key, n + fresh)
        # A Gaussian process at all points at once.
        values = jnp.linalg.cholesky(kernel(x) + 1e-10 * jnp.eye(n + fresh)) @ jr.normal(
            jr.fold_in(key, 1), (n + fresh,)
        )
        fit = ts.MinimumNorm(kernel).fit(key, ts.Dataset(x[:n], values[:n]))
        return jnp.mean((fit.predict(x[n:]) - values[n:]) ** 2)

    keys = jr.split(jr.key(0), (len(sizes), seeds))
    risks = [
        eqx.filter_jit(lambda k, n=n: jax.lax.map(lambda key: risk(key, n), k))(keys[i]) for i, n in enumerate(sizes)
    ]
    rate = ts.fit_rate(np.asarray(sizes), np.asarray(risks))
    low, high = rate.interval
    return Found(0.5, rate.exponent, (high - low) / 3.92, tolerance=0.02)


def simon() -> Found:
    """Eigenlearning: kappa from sum L_i = n - ridge/kappa, L_i = lambda_i/(lambda_i + kappa), and the error
    sum (1 - L_i)^2 v_i^2 / (1 - sum L_i^2/n), here of a parity of two bits on the 8-cube."""
    d, n, ridge = 8, 64, 0.05
    corners = np.stack(np.meshgrid(*[[-1.0, 1.0]] * d), -1).reshape(-1, d)
    kernel = Laplace(4.0)
    row = np.asarray(kernel(jnp.ones((1, d)), jnp.asarray(corners)))[0]
    parity = lambda k: np.prod(corners[:, :k], axis=1)
    eigenvalues = np.asarray([np.mean(row * parity(k)) for k in range(d + 1)])
    often = np.asarray([math.comb(d, k) for k in range(d + 1)])
    kappa = brentq(lambda k: often @ (eigenvalues / (eigenvalues + k)) + ridge / k - n, 1e-9, 10.0, xtol=1e-15)
    learnt = eigenvalues / (eigenvalues + kappa)
    published = (1 - learnt[2]) ** 2 / (1 - often @ learnt**2 / n)

    def risk(key):
        # Without replacement, so that n = 256 leaves nothing to learn, as in the equation for kappa.
        chosen = jr.permutation(key, len(corners))[:n]
        x, y = jnp.asarray(corners), jnp.asarray(parity(2))
        fit = ts.KernelRidge(kernel, ridge=ridge).fit(key, ts.Dataset(x[chosen], y[chosen]))
        return jnp.mean((fit.predict(x) - y) ** 2)

    return Found(published, *_over_data_sets(risk, 1000), tolerance=0.02)


def sollich_simulated() -> Found:
    """The Bayes error of Gaussian-process regression, averaged over data sets, against its self-consistent approximation."""
    learner = ts.OptimalLinear(_PROBLEM, test_points=1000)

    def bayes_error(key):
        data = ts.Dataset(_PROBLEM.inputs.sample(key, 256), jnp.zeros(256))
        return learner.fit(jr.fold_in(key, 1), data).stats["bayes_risk"]

    return Found(sollich().published, *_over_data_sets(bayes_error, 60), tolerance=0.01)


def coverage() -> Found:
    """How often intervals of 95 % hold the planted exponent: 400 curves of 16 log-normal seeds at n = 32 .. 4096."""
    n, rng = 2.0 ** np.arange(5, 13), np.random.default_rng(0)
    spread = lambda: np.exp(0.5 * rng.normal(size=(len(n), 16)) - 0.125)
    rates = [ts.fit_rate(n, 3.0 * n[:, None] ** -0.7 * spread(), draws=500) for _ in range(400)]
    covered = np.mean([rate.interval[0] <= 0.7 <= rate.interval[1] for rate in rates])
    return Found(0.95, float(covered), math.sqrt(0.95 * 0.05 / 400), tolerance=0.0)


COMPARISONS = (
    Comparison(
        "Hastie et al. 2022, p = 40, noise 0.5", "risk without ridge, n = 10", lambda: hastie(10, 4000), slow=True
    ),
    Comparison("Hastie et al. 2022, p = 40, noise 0.5", "n = 20", lambda: hastie(20, 4000), slow=True),
    Comparison("Hastie et al. 2022, p = 40, noise 0.5", "n = 60", lambda: hastie(60, 1000), slow=True),
    Comparison("Hastie et al. 2022, p = 40, noise 0.5", "n = 160", lambda: hastie(160, 200), slow=True),
    Comparison(
        "Mei & Montanari 2022, n/d = 3", "risk of N = 1.5 d relu features", lambda: mei_montanari(1.5), slow=True
    ),
    Comparison("Mei & Montanari 2022, n/d = 3", "N = 3 d, as many as data", lambda: mei_montanari(3.0), slow=True),
    Comparison("Mei & Montanari 2022, n/d = 3", "N = 6 d", lambda: mei_montanari(6.0), slow=True),
    Comparison("Goldt et al. 2019, linear neurons", "error of online SGD, K = 32, noise 0.5", goldt, slow=True),
    Comparison("Spigler et al. 2020", "exponent of Laplace on Laplace, d = 3, simulated", spigler, slow=True),
    Comparison(
        "Simon et al. 2021, eigenlearning", "error of a parity on the 8-cube, n = 64, simulated", simon, slow=True
    ),
    Comparison("Sollich 1999, self-consistent curve", "the same, simulated", sollich_simulated, slow=True),
    Comparison("nominal coverage", "share of 95 % intervals that hold the exponent", coverage, slow=True),
)
