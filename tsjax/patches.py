"""Classification of points made of patches: one patch carries the signal, the others carry noise, and some labels are
flipped."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .precision import is_traced
from .size import Rows, size_of
from .task import AbstractInstance, AbstractTask, Dataset, check_key


def _floating(signal: Any) -> Array:
    """The signal as a floating-point array; lists and whole numbers are accepted too."""
    array = jnp.asarray(signal)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


class SignalNoisePatches(AbstractTask):
    r"""Points of several patches (patches, d): the first is s mu with a random sign s = +-1, the others are noise
    xi ~ N(0, sigma^2 I_d). The class is 1 if s = 1 and 0 otherwise, and is flipped with probability p.

    These are the data of Cao et al. 2022 (arXiv:2202.06526) and, with flipped labels, of Kou et al. 2023 (arXiv:2303.04145). In
    the papers the patches come in random order, which makes no difference to networks that share their filters among patches.

    **Arguments:**

    - `signal`: the vector mu, (d,).
    - `flip`: the probability p < 1/2 that a label is wrong, in training and test data alike. It is the error of the Bayes rule.
    - `std`: the standard deviation sigma > 0 of the noise.
    - `patches`: the number of patches, at least 2.
    - `orthogonal`: whether the noise is projected onto the complement of mu, xi ~ N(0, sigma^2 (I - mu mu^T / |mu|^2)).

    `draw(key)` gives a `PatchInstance`. The key is not used: all instances are alike. Its `target` is the Bayes rule, which
    gives the label before the flip.

    **Raises:** ValueError for shapes and values out of range.

    >>> task = ts.SignalNoisePatches(signal=jnp.array([2.0, 0.0, 0.0]), flip=0.1)
    >>> data = task.draw(jax.random.key(0)).sample(jax.random.key(1), 4)
    >>> data.x.shape, jnp.abs(data.x[:, 0, 0]).tolist()
    ((4, 2, 3), [2.0, 2.0, 2.0, 2.0])
    """

    signal: Float[Array, " d"] = eqx.field(converter=_floating)
    flip: float | Float[Array, ""] = 0.0
    std: float | Float[Array, ""] = 1.0
    patches: int = eqx.field(static=True, default=2)
    orthogonal: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if jnp.ndim(self.signal) != 1:
            raise ValueError(f"signal is one vector (d,), got shape {jnp.shape(self.signal)}.")
        if not is_traced(self.flip) and not 0.0 <= float(self.flip) < 0.5:
            raise ValueError(
                f"flip is the probability of a wrong label, at least 0 and below 1/2, from which on most labels would be "
                f"wrong; got {self.flip}."
            )
        if not is_traced(self.std) and not 0.0 < float(self.std) < float("inf"):
            raise ValueError(f"std must be finite and > 0, got {self.std}.")
        if self.patches < 2:
            raise ValueError(
                f"there must be at least 2 patches, one of signal and one of noise; got patches={self.patches}."
            )

    @property
    def d(self) -> int:
        """The dimension of a patch."""
        return self.signal.shape[0]

    def draw(self, key: PRNGKeyArray, dtype=None) -> "PatchInstance":
        del key
        signal = jnp.asarray(self.signal, dtype)
        flip, std = (jnp.asarray(value).astype(signal.dtype) for value in (self.flip, self.std))
        return PatchInstance(signal, flip, std, self.patches, self.orthogonal)


class PatchInstance(AbstractInstance):
    """One classification of patches; see `SignalNoisePatches`."""

    signal: Float[Array, " d"]
    flip: Float[Array, ""]
    std: Float[Array, ""]
    patches: int = eqx.field(static=True)
    orthogonal: bool = eqx.field(static=True)

    def sample(self, key: PRNGKeyArray, n: Rows, dtype=None) -> Dataset:
        """n points (n, patches, d) with their labels, some of them flipped: y integers (n,)."""
        check_key(key)
        size = size_of(n)
        dtype = self.signal.dtype if dtype is None else dtype
        key_s, key_f, key_x = jr.split(key, 3)
        positive = jr.bernoulli(key_s, 0.5, (size.limit,))
        flipped = jr.uniform(key_f, (size.limit,), self.flip.dtype) < self.flip
        mu = self.signal.astype(dtype)
        noise = self.std.astype(dtype) * jr.normal(key_x, (size.limit, self.patches - 1, mu.shape[0]), dtype)
        if self.orthogonal:
            # A signal of length 0 has no direction.
            square = jnp.dot(mu, mu, precision="highest")
            along = jnp.matmul(noise, mu, precision="highest") / jnp.where(square > 0, square, 1.0)
            noise = noise - along[..., None] * mu[None, None]
        signal = jnp.where(positive, 1.0, -1.0).astype(dtype)[:, None, None] * mu[None, None]
        y = (positive != flipped).astype(jnp.int32)
        return Dataset(x=jnp.concatenate([signal, noise], axis=1), y=y, weight=size.weights(dtype))

    @property
    def target(self) -> Any:
        """The Bayes rule: the class by the sign of the signal, 1 where <x_1, mu> > 0 for the first patch x_1. Its error is
        `flip`, if the signal is not 0."""
        return lambda x: (jnp.dot(x[0], self.signal.astype(x.dtype), precision="highest") > 0).astype(jnp.int32)
