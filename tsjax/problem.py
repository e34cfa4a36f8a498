"""What is to be learnt: an input law, a family of teachers and a noise, and samples of them.

Everything here is pure in its key. Note that today's JAX draws prefix-stable streams: `normal(key, (8, d))[:5]` equals
`normal(key, (5, d))`. Two data sets of different size drawn from one key therefore share points: never draw a training
and a test set from the same key (`jax.random.fold_in` gives independent ones).
"""

from abc import abstractmethod
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .network import TwoLayer
from .precision import is_traced


class AbstractInputs(eqx.Module):
    """A law P_X of inputs in R^d."""

    d: eqx.AbstractVar[int]

    @property
    @abstractmethod
    def rotation_invariant_second_moment(self) -> float | None:
        """E[x_1^2] if the law is invariant under rotations of R^d (closed-form risks exist then), else None."""

    @abstractmethod
    def sample(self, key: PRNGKeyArray, n: int, dtype=None) -> Float[Array, "n d"]:
        """n independent draws, shape (n, d)."""


def _check_dimension(d: int) -> None:
    if d < 1:
        raise ValueError(f"the input dimension d must be at least 1, got d={d}.")


class Sphere(AbstractInputs):
    """x uniform on the unit sphere S^{d-1} (the input law of arXiv:2205.14818)."""

    d: int = eqx.field(static=True)

    def __check_init__(self):
        _check_dimension(self.d)

    @property
    def rotation_invariant_second_moment(self) -> float | None:
        return 1.0 / self.d

    def sample(self, key: PRNGKeyArray, n: int, dtype=None) -> Float[Array, "n d"]:
        x = jr.normal(key, (n, self.d), dtype)
        return x / jnp.linalg.norm(x, axis=1, keepdims=True)


class Gaussian(AbstractInputs):
    """x ~ N(0, I_d)."""

    d: int = eqx.field(static=True)

    def __check_init__(self):
        _check_dimension(self.d)

    @property
    def rotation_invariant_second_moment(self) -> float | None:
        return 1.0

    def sample(self, key: PRNGKeyArray, n: int, dtype=None) -> Float[Array, "n d"]:
        return jr.normal(key, (n, self.d), dtype)


class Cube(AbstractInputs):
    """x uniform on the cube [-1, 1]^d. Not invariant under rotations: risks are Monte-Carlo estimates."""

    d: int = eqx.field(static=True)

    def __check_init__(self):
        _check_dimension(self.d)

    @property
    def rotation_invariant_second_moment(self) -> float | None:
        return None

    def sample(self, key: PRNGKeyArray, n: int, dtype=None) -> Float[Array, "n d"]:
        return jr.uniform(key, (n, self.d), dtype, minval=-1.0, maxval=1.0)


class AbstractTeacher(eqx.Module):
    """A family of regression functions with a law on it."""

    @abstractmethod
    def check(self, d: int) -> None:
        """Raises ValueError when the family does not exist in dimension d."""

    @abstractmethod
    def sample(self, key: PRNGKeyArray, d: int, dtype=None) -> TwoLayer:
        """One teacher on R^d."""


class ReLUTeacher(AbstractTeacher):
    r"""f*(x) = sum_{j<=m} a_j relu(<w_j, x>) with |w_j| = 1, a_j in {-1, +1}, m <= d (arXiv:2205.14818, section 3).

    The neurons are W = G^{1/2} Q, with Q (m, d) Haar-random orthonormal rows and G = (1 - c) I + c 1 1^T, so that every
    pair of neurons has cosine c; c = 0 gives orthonormal neurons. The law of W is invariant under rotations of R^d and
    each neuron is uniform on the sphere, whatever c.

    **Arguments:**

    - `m`: number of neurons, at most d.
    - `signs`: the output weights: `"random"` (independent fair signs), `"alternating"` (+, -, +, ...) or `"positive"`.
    - `cosine`: pairwise cosine c of the neurons, in (-1/(m-1), 1).
    """

    m: int = eqx.field(static=True)
    signs: Literal["random", "alternating", "positive"] = eqx.field(static=True, default="random")
    cosine: float | Float[Array, ""] = 0.0

    def __check_init__(self):
        if self.m < 1:
            raise ValueError(f"a teacher needs at least one neuron, got m={self.m}.")
        if self.signs not in ("random", "alternating", "positive"):
            raise ValueError(f"signs must be 'random', 'alternating' or 'positive', got {self.signs!r}.")
        if not is_traced(self.cosine):
            lowest = -1.0 / (self.m - 1) if self.m > 1 else -1.0
            if not lowest < float(self.cosine) < 1.0:
                raise ValueError(
                    f"{self.m} neurons can have pairwise cosines in ({lowest:.4g}, 1) only, got cosine={self.cosine}."
                )

    def check(self, d: int) -> None:
        if self.m > d:
            raise ValueError(
                f"a ReLUTeacher has linearly independent neurons, so m <= d is needed; got m={self.m}, d={d}. "
                "Lower m or raise d."
            )

    def sample(self, key: PRNGKeyArray, d: int, dtype=None) -> TwoLayer:
        self.check(d)
        m, c = self.m, self.cosine
        key_w, key_a = jr.split(key)
        q = jr.orthogonal(key_w, m, m=d, dtype=jnp.zeros(0, dtype).dtype)
        # G^{1/2} = sqrt(1-c) (I - P) + sqrt(1+(m-1)c) P, where P projects onto the vector of ones.
        small, large = jnp.sqrt(1.0 - c), jnp.sqrt(1.0 + (m - 1) * c)
        w = small * q + (large - small) * jnp.mean(q, axis=0, keepdims=True)
        if self.signs == "random":
            a = jr.rademacher(key_a, (m,), q.dtype)
        elif self.signs == "alternating":
            a = jnp.where(jnp.arange(m) % 2 == 0, 1.0, -1.0).astype(q.dtype)
        else:
            a = jnp.ones(m, q.dtype)
        return TwoLayer(a=a, w=w.astype(q.dtype))


class Dataset(eqx.Module):
    """A training sample: inputs `x` of shape (n, d) and responses `y` of shape (n,); a leading batch axis is allowed
    where a function says so."""

    x: Float[Array, "*batch n d"]
    y: Float[Array, "*batch n"]

    def __check_init__(self):
        if hasattr(self.x, "ndim") and hasattr(self.y, "ndim"):
            if self.x.ndim < 2 or self.x.shape[:-1] != self.y.shape:
                raise ValueError(
                    f"a Dataset holds x (n, d) and y (n,), got x {tuple(self.x.shape)} and y {tuple(self.y.shape)}."
                )

    @property
    def n(self) -> int:
        return self.x.shape[-2]

    @property
    def d(self) -> int:
        return self.x.shape[-1]


class Problem(eqx.Module):
    """y = f*(x) + eps with x from `inputs`, f* from `teacher`, and noise of standard deviation `noise_std`.

    **Arguments:**

    - `inputs`: the law of x: `Sphere(d)`, `Gaussian(d)` or `Cube(d)`.
    - `teacher`: the family of f*, for instance `ReLUTeacher(m)`.
    - `noise_std`: standard deviation sigma >= 0 of eps.
    - `noise`: `"gaussian"`, or `"uniform"` on [-sqrt(3) sigma, sqrt(3) sigma] (bounded, as the paper's theorems ask).
    """

    inputs: AbstractInputs
    teacher: AbstractTeacher
    noise_std: float | Float[Array, ""] = 0.1
    noise: Literal["gaussian", "uniform"] = eqx.field(static=True, default="gaussian")

    def __check_init__(self):
        self.teacher.check(self.inputs.d)
        if self.noise not in ("gaussian", "uniform"):
            raise ValueError(f"noise must be 'gaussian' or 'uniform', got {self.noise!r}.")
        if not is_traced(self.noise_std) and not 0.0 <= float(self.noise_std) < float("inf"):
            raise ValueError(f"noise_std is a standard deviation, so finite and >= 0; got {self.noise_std}.")

    @property
    def d(self) -> int:
        return self.inputs.d

    def sample_teacher(self, key: PRNGKeyArray, dtype=None) -> TwoLayer:
        """One regression function f* from the teacher family."""
        return self.teacher.sample(key, self.d, dtype)

    def sample(self, key: PRNGKeyArray, teacher, n: int, dtype=None) -> Dataset:
        """A data set of n independent pairs (x, teacher(x) + eps); `teacher` is any function of one point x (d,)."""
        if n < 1:
            raise ValueError(f"a data set needs at least one point, got n={n}.")
        key_x, key_eps = jr.split(key)
        x = self.inputs.sample(key_x, n, dtype)
        if self.noise == "gaussian":
            eps = jr.normal(key_eps, (n,), x.dtype)
        else:
            eps = jr.uniform(key_eps, (n,), x.dtype, minval=-(3.0**0.5), maxval=3.0**0.5)
        noise_std = jnp.asarray(self.noise_std).astype(x.dtype)
        return Dataset(x=x, y=(jax.vmap(teacher)(x) + noise_std * eps).astype(x.dtype))
