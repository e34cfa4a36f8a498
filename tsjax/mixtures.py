"""Classification of Gaussian mixtures, whose Bayes rule and error are known."""

import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .precision import is_traced, requires_float64
from .size import Rows, size_of
from .task import AbstractInstance, AbstractTask, Dataset, check_key


class GaussianMixture(AbstractTask):
    r"""x ~ sum_c p_c N(mu_c, sigma^2 I_d); the class of a point is the class of its component.

    **Arguments:**

    - `means`: the means mu_c of the components, (components, d).
    - `labels`: the class 0, 1, ... of each component; several components may share one, as the four clusters of an XOR do. If
      None, each component is a class of its own.
    - `std`: the standard deviation sigma > 0 around every mean.
    - `proportions`: the probabilities p_c of the components; equal if None.
    - `rotation`: `"none"`, or `"random"`: every draw turns all means together by one Haar-random orthogonal matrix.

    `draw(key)` gives a `MixtureInstance`, whose `target` is the Bayes rule and whose `bayes_error` is that rule's error.

    **Raises:** ValueError for shapes that do not fit together, classes that are not 0, 1, ... without gaps, and values out of
    range.

    >>> task = ts.GaussianMixture(means=jnp.array([[1.0, 0.0], [-1.0, 0.0]]), std=1.0)
    >>> instance = task.draw(jax.random.key(0))
    >>> instance.sample(jax.random.key(1), 100).y.dtype, round(float(instance.bayes_error().value), 4)
    (dtype('int32'), 0.1587)
    """

    means: Float[Array, "components d"]
    labels: tuple[int, ...] = eqx.field(static=True)
    std: float | Float[Array, ""]
    proportions: Float[Array, " components"]
    rotation: Literal["none", "random"] = eqx.field(static=True)

    def __init__(
        self,
        means: Float[Array, "components d"],
        labels: Any = None,
        std: float | Float[Array, ""] = 1.0,
        proportions: Any = None,
        rotation: Literal["none", "random"] = "none",
    ):
        if jnp.ndim(means) != 2:
            raise ValueError(f"means are the rows of an array (components, d), got shape {jnp.shape(means)}.")
        count = means.shape[0]
        classes = tuple(range(count)) if labels is None else tuple(int(label) for label in np.asarray(labels).ravel())
        if len(classes) != count or set(classes) != set(range(max(classes) + 1)):
            raise ValueError(
                f"labels hold the class of each of the {count} components, counted from 0 without gaps; got {classes}."
            )
        if not is_traced(std) and not 0.0 < float(std) < float("inf"):
            raise ValueError(f"std must be finite and > 0, got {std}.")
        if rotation not in ("none", "random"):
            raise ValueError(f"rotation must be 'none' or 'random', got {rotation!r}.")
        shares = jnp.full(count, 1.0 / count) if proportions is None else jnp.asarray(proportions)
        if shares.shape != (count,) or (
            not is_traced(shares) and (not bool((shares > 0).all()) or abs(float(shares.sum()) - 1.0) > 1e-6)
        ):
            raise ValueError(f"proportions are {count} numbers > 0 that sum to 1, got {proportions}.")
        self.means, self.labels, self.std, self.proportions, self.rotation = means, classes, std, shares, rotation

    @property
    def d(self) -> int:
        """The dimension of the inputs."""
        return self.means.shape[1]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return max(self.labels) + 1

    def draw(self, key: PRNGKeyArray, dtype=None) -> "MixtureInstance":
        check_key(key)
        means = jnp.asarray(self.means, dtype)
        if self.rotation == "random":
            means = jnp.matmul(means, jr.orthogonal(key, self.d, dtype=means.dtype), precision="highest")
        std, shares = (jnp.asarray(value).astype(means.dtype) for value in (self.std, self.proportions))
        return MixtureInstance(means, jnp.asarray(self.labels, jnp.int32), std, shares, self.classes)


class ErrorRate(eqx.Module):
    """A probability of error and its standard error. If it is `exact`, it comes from a closed form, and the standard error is
    0."""

    value: Float[Array, ""]
    standard_error: Float[Array, ""]
    exact: bool = eqx.field(static=True)


class MixtureInstance(AbstractInstance):
    """One Gaussian mixture; see `GaussianMixture`."""

    means: Float[Array, "components d"]
    labels: Int[Array, " components"]
    std: Float[Array, ""]
    proportions: Float[Array, " components"]
    classes: int = eqx.field(static=True)

    def sample(self, key: PRNGKeyArray, n: Rows, dtype=None) -> Dataset:
        """n points x (n, d) with their classes y, integers (n,). If n is a `tsjax.Size`, rows after its count have weight 0."""
        check_key(key)
        size = size_of(n)
        dtype = self.means.dtype if dtype is None else dtype
        key_c, key_x = jr.split(key)
        # By inverting the distribution function: one uniform number for each row.
        edges = jnp.cumsum(self.proportions)[:-1]
        component = jnp.searchsorted(edges, jr.uniform(key_c, (size.limit,), edges.dtype), side="right")
        noise = jr.normal(key_x, (size.limit, self.means.shape[1]), dtype)
        x = self.means[component].astype(dtype) + self.std.astype(dtype) * noise
        return Dataset(x=x, y=self.labels[component], weight=size.weights(dtype))

    def posterior(self, x: Float[Array, " d"]) -> Float[Array, " classes"]:
        """The probability of each class at one point."""
        distance = jnp.sum(((x[None] - self.means) / self.std) ** 2, axis=1)
        component = jax.nn.softmax(jnp.log(self.proportions) - distance / 2)
        return jax.ops.segment_sum(component, self.labels, self.classes)

    @property
    def target(self) -> Any:
        """The Bayes rule: the most probable class at one point."""
        return lambda x: jnp.argmax(self.posterior(x))

    @requires_float64
    def bayes_error(self, key: PRNGKeyArray | None = None, samples: int = 100_000) -> ErrorRate:
        r"""The error rate of the Bayes rule, which no classifier beats.

        For two components in two classes, at the distance delta = |mu_0 - mu_1| / sigma, it is
        p_0 Phi(-delta/2 - r/delta) + p_1 Phi(-delta/2 + r/delta) with r = log(p_0 / p_1). Otherwise it is the mean of
        1 - max_k P(class k | x) over `samples` points, with its standard error, and needs a `key`.

        **Raises:** ValueError if there is no closed form and no key is given.
        """
        if self.means.shape[0] == self.classes == 2:
            means, std, p = (jnp.asarray(v, jnp.float64) for v in (self.means, self.std, self.proportions))
            delta, r = jnp.linalg.norm(means[0] - means[1]) / std, jnp.log(p[0] / p[1])
            ratio = r / jnp.where(delta > 0, delta, 1.0)
            both = p[0] * jax.scipy.stats.norm.cdf(-delta / 2 - ratio) + p[1] * jax.scipy.stats.norm.cdf(
                -delta / 2 + ratio
            )
            return ErrorRate(jnp.where(delta > 0, both, jnp.min(p)), jnp.zeros((), jnp.float64), True)
        if key is None:
            raise ValueError(
                f"the Bayes error of {self.means.shape[0]} components in {self.classes} classes has no closed "
                "form: pass key=... for an estimate with its standard error."
            )
        doubled = jax.tree.map(lambda v: v.astype(jnp.float64) if eqx.is_inexact_array(v) else v, self)
        x = doubled.sample(key, samples, jnp.float64).x
        wrong = 1.0 - jax.lax.map(lambda point: jnp.max(doubled.posterior(point)), x, batch_size=4096)
        return ErrorRate(jnp.mean(wrong), jnp.std(wrong, ddof=1) / math.sqrt(samples), False)
