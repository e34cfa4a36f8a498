r"""A mixture of Gaussians in high dimension, which small networks trained online learn and random features do not
(arXiv:2102.11742).

The XOR mixture has four equally likely components N(mu_c, std^2 I_D), the means e_1 and -e_1 of class 1, e_2 and -e_2 of
class 0. No linear rule is better than chance. The Bayes rule, |x_1| > |x_2|, errs with probability 2 q (1 - q),
q = Phi(-1 / (sqrt(2) std)): along the diagonals the mixture is two independent problems with two components each, and the rule
is wrong if exactly one of them is decided wrongly.
"""

import dataclasses
import functools
from typing import Annotated, Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field
from scipy.stats import norm

from ..classification import classification_error
from ..estimators.features import RandomFeatures
from ..estimators.ridge import KernelRidge
from ..estimators.student import Student
from ..kernels import ntk
from ..losses import squared
from ..mixtures import GaussianMixture
from ..rates import Indicator, Positive, Share
from ..sweep.experiment import Cost, Theory, experiment
from ..task import Dataset

REFINETTI = """@misc{refinetti2021classifying,
  title  = {Classifying high-dimensional {Gaussian} mixtures: Where kernel methods fail and neural networks succeed},
  author = {Refinetti, Maria and Goldt, Sebastian and Krzakala, Florent and Zdeborov{\\'a}, Lenka},
  year = {2021}, eprint = {2102.11742}, archivePrefix = {arXiv}, primaryClass = {stat.ML}
}"""


class Setting(NamedTuple):
    """How a network is trained: the standard deviation of all initial weights, the learning rate, the weight decay, and the
    number of fresh samples in a step."""

    init: float
    rate: float
    decay: float
    batch: int


SETTINGS = {"fast": Setting(1.0, 1.0, 0.0, 4), "authors": Setting(0.1, 0.1, 0.01, 1)}
"""`authors` are the settings of the command in the README of the authors' code (github.com/mariaref/rfvs2lnn_GMM_online)."""


def xor(d: int, std) -> GaussianMixture:
    """The XOR mixture in R^d."""
    arms = jnp.eye(2, d)
    return GaussianMixture(jnp.concatenate([arms, -arms]), labels=(1, 0, 1, 0), std=std)


def bayes_error(std):
    """The error of the Bayes rule, 2 q (1 - q) with q = Phi(-1 / (sqrt(2) std))."""
    q = jax.scipy.stats.norm.cdf(-1.0 / (2.0**0.5 * jnp.asarray(std)))
    return 2.0 * q * (1.0 - q)


class Network(eqx.Module):
    """f(x) = sum_k v_k relu(<u_k, x>), with u_k = w_k / sqrt(D) in the paper's notation."""

    v: Float[Array, "*batch width"]
    u: Float[Array, "*batch width d"]

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        return jnp.dot(self.v, jax.nn.relu(jnp.dot(self.u, x)))


def signed(data: Dataset) -> Dataset:
    """The same rows with the responses -1 and 1 for the classes 0 and 1."""
    return Dataset(x=data.x, y=(2 * data.y - 1).astype(data.x.dtype), weight=data.weight)


def signed_loss(model: Any, batch: Dataset, key: PRNGKeyArray | None = None) -> Float[Array, ""]:
    """Half the mean squared error to the responses -1 and 1."""
    return squared(model, signed(batch), key)


def online_student(setting: Setting, d: int, width: int, samples: int) -> Student:
    r"""One pass of SGD on half the squared error.

    The authors use the rate eta for w and eta / D for v, with weight decay reg / D and reg (Train_iid_Model.py). In terms of
    u = w / sqrt(D) that is SGD at the rate eta / D on the loss plus (reg / 2) (|u|^2 + |v|^2). A step on the mean of `batch`
    samples is as long as `batch` of their steps.
    """

    def init(key: PRNGKeyArray, point: int) -> Network:
        key_u, key_v = jr.split(key)
        u = setting.init / point**0.5 * jr.normal(key_u, (width, point), jnp.float32)
        return Network(v=setting.init * jr.normal(key_v, (width,), jnp.float32), u=u)

    batch, rate, penalty = setting.batch, setting.batch * setting.rate / d, setting.decay / 2 or None
    return Student(init, signed_loss, learning_rate=rate, steps=samples // batch, batch_size=batch, penalty=penalty)


def features_error(f: Float[np.ndarray, "d features"], std: float) -> float:
    r"""The error of least squares on the features z_j = relu(<f_j, x> / sqrt(D)) as n goes to infinity, as the authors compute
    it (get_RF_classification_analytical in RF_analytical_error.py).

    With s_j = std |f_j| / sqrt(D), r_j = <f_j, mu> / (sqrt(D) s_j), and Phi and phi the distribution function and density of
    N(0, 1), a feature has in the component with mean mu

        mean m_j = s_j (r_j Phi(r_j) + phi(r_j)),    second moment s_j^2 ((1 + r_j^2) Phi(r_j) + r_j phi(r_j)),

    and two features have the covariance std^2 / D <f_j, f_k> Phi(r_j) Phi(r_k), to first order in the covariance of their
    arguments. Least squares with an intercept is w = C^{-1} E[(y - E y) z], with C the covariance of z over all components.
    Then <w, z> is treated as Gaussian in each component. The lengths |f_j| do not matter, since they do not change the span of
    the features.
    """
    d = f.shape[0]
    y, s = np.array([1.0, -1.0, 1.0, -1.0]), std * np.linalg.norm(f, axis=0) / d**0.5
    r = np.concatenate([f[:2], -f[:2]]) / (d**0.5 * s[None])  # The means are the first two axes, and their opposites.
    cdf, pdf = norm.cdf(r), norm.pdf(r)
    m = s[None] * (r * cdf + pdf)
    # The part of the variance that the first order leaves out.
    own = s[None] ** 2 * ((1.0 + r**2) * cdf + r * pdf) - m**2 - (s[None] * cdf) ** 2
    centred = m - m.mean(axis=0, keepdims=True)
    within = std**2 / d * (f.T @ f) * (cdf.T @ cdf) / 4 + np.diag(own.mean(axis=0))
    w = np.linalg.solve(within + centred.T @ centred / 4, y @ m / 4)
    variance = np.array([std**2 / d * np.sum((f @ (cdf[c] * w)) ** 2) + own[c] @ w**2 for c in range(4)])
    return float(norm.cdf(-y * (centred @ w) / np.sqrt(variance)).mean())


@functools.lru_cache(maxsize=64)
def mean_features_error(d: int, features: int, std: float) -> float:
    """The mean of `features_error` over draws of F; more draws for small d, where they differ more."""
    rng = np.random.default_rng(d)
    return float(np.mean([features_error(rng.normal(size=(d, features)), std) for _ in range(max(4, 3000 // d))]))


def _theory(arguments: dict[str, Any], d: np.ndarray) -> Theory:
    std, learner = arguments["std"], arguments["learner"]
    if learner == "net":
        return Theory(np.full(len(d), float(bayes_error(std))), source="Bayes error, 2 q (1 - q)")
    if learner == "ntk":
        return Theory()
    predicted = [mean_features_error(int(at), arguments["features_per_d"] * int(at), float(std)) for at in d]
    return Theory(np.array(predicted), source="least squares for n to infinity: the authors' RF_analytical_error.py")


def _cost(arguments: dict[str, Any]) -> Cost:
    d, n = arguments["d"], arguments["samples_per_d"] * arguments["d"]
    if arguments["learner"] == "net":
        return Cost(n * d * (100.0 + 12.0 * arguments["width"]))  # A random number costs about 100 operations.
    features = arguments["features_per_d"] * d
    return Cost(0.0, 2.0 * n**3) if arguments["learner"] == "ntk" else Cost(2.0 * n * features**2, features**3 / 3)


@experiment(
    static=("learner", "d", "samples_per_d", "width", "setting", "features_per_d", "test_points", "std"),
    x="d", y=("error", "stuck"), curve="learner", rates=False,
    metrics={"error": Share(trials="test_points"), "stuck": Indicator(), "times_bayes": Positive()},
    theory=_theory, cost=_cost, cite=REFINETTI,
    labels={
        "d": "dimension D", "error": "classification error", "stuck": "stuck (error > 0.1)",
        "times_bayes": "error / Bayes error", "net": "network, online SGD", "random_features": "random features",
        "ntk": "NTK ridge", "samples_per_d": "n / D", "width": "neurons K", "fast": "large start", "authors": "README",
    },
)  # fmt: skip
def gaussian_mixture(
    key,
    *,
    learner: Literal["net", "random_features", "ntk"],
    d: Annotated[int, Field(ge=2)],
    samples_per_d: Annotated[int, Field(ge=2)],
    width: Annotated[int, Field(ge=1)] = 8,
    setting: Literal["fast", "authors"] = "fast",
    std: Annotated[float, Field(gt=0)] = 0.05**0.5,
    features_per_d: Annotated[int, Field(ge=1)] = 2,
    test_points: Annotated[int, Field(ge=1)] = 16384,
):
    """Trains one learner on n = `samples_per_d` D samples; its errors are counted on `test_points` fresh samples.

    - `net`: a network of `width` neurons that sees every sample once, by one of the `SETTINGS`, in float32.
    - `random_features`: least squares on `features_per_d` D random relu features.
    - `ntk`: ridge regression with the tangent kernel of an infinitely wide network of one hidden layer, the ridge by GCV.

    `stuck`: whether error > 0.1, which happens if some component has no neuron of its own. `times_bayes`: error / `bayes`.
    """
    key_data, key_fit, key_test = (jr.fold_in(key, i) for i in range(3))
    instance = xor(d, std).draw(key, jnp.float32 if learner == "net" else jnp.float64)
    n = samples_per_d * d
    if learner == "net":
        fit = online_student(SETTINGS[setting], d, width, n).fit(key_fit, instance)
    else:
        linear = KernelRidge(ntk()) if learner == "ntk" else RandomFeatures(features_per_d * d, ridge=0.0)
        fit = linear.fit(key_fit, signed(instance.sample(key_data, n)))
    error = classification_error(fit, instance, key=key_test, samples=test_points).value
    bayes = bayes_error(std)
    return {"status": fit.status, "error": error, "stuck": error > 0.1, "times_bayes": error / bayes, "bayes": bayes}


width = dataclasses.replace(gaussian_mixture, name="mixture_width", x="width", y=("stuck", "error"), theory=None)
"""The same cells, plotted against the width of the network."""
