"""Regression problems: an input law, a family of teachers and a noise, and samples drawn from them.

Everything here is a pure function of its key. JAX's streams are prefix-stable: `normal(key, (8, d))[:5]` equals `normal(key,
(5, d))`. Two data sets of different size drawn from one key therefore share points, so never draw a training and a test set
from the same key (`jax.random.fold_in` gives independent keys).
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .activations import AbstractActivation, Moments, check_activation, relu
from .compilation import compiled
from .display import card
from .network import TwoLayer
from .precision import is_traced
from .size import Rows, size_of
from .task import AbstractInstance, AbstractTask, Dataset, check_key

# A draw from a family of teachers: a function f* of one point.
RegressionFunction = Callable[[Float[Array, " d"]], Float[Array, ""]]
_Signs = Literal["random", "alternating", "positive"]


class AbstractInputs(eqx.Module):
    """A law P_X of inputs in R^d."""

    d: eqx.AbstractVar[int]

    @property
    @abstractmethod
    def moments(self) -> Moments | None:
        """The moments that closed-form risks need; None if the law is not invariant under rotations of R^d, which rules out
        such risks."""

    @abstractmethod
    def sample(self, key: PRNGKeyArray, n: int, dtype=None) -> Float[Array, "n d"]:
        """n independent inputs, shape (n, d)."""


def _check_dimension(d: int) -> None:
    if d < 1:
        raise ValueError(f"the input dimension d must be at least 1, got d={d}.")


class Sphere(AbstractInputs):
    """x uniform on the unit sphere S^{d-1} (the input law of arXiv:2205.14818)."""

    d: int = eqx.field(static=True)

    def __check_init__(self):
        _check_dimension(self.d)

    @property
    def moments(self) -> Moments:
        return Moments(second=1.0 / self.d, fourth=1.0 / (self.d * (self.d + 2)), gaussian=False)

    def sample(self, key: PRNGKeyArray, n: int, dtype=None) -> Float[Array, "n d"]:
        return _unit_vectors(key, n, self.d, dtype)


# Compiled even where it is called eagerly, as other draws are: one program in place of one for each operation.
@compiled
def _unit_vectors(key: PRNGKeyArray, n: int, d: int, dtype) -> Float[Array, "n d"]:
    x = jr.normal(key, (n, d), dtype)
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


class Gaussian(AbstractInputs):
    """x ~ N(0, I_d)."""

    d: int = eqx.field(static=True)

    def __check_init__(self):
        _check_dimension(self.d)

    @property
    def moments(self) -> Moments:
        return Moments(second=1.0, fourth=1.0, gaussian=True)

    def sample(self, key: PRNGKeyArray, n: int, dtype=None) -> Float[Array, "n d"]:
        return jr.normal(key, (n, self.d), dtype)


class Cube(AbstractInputs):
    """x uniform on the cube [-1, 1]^d. Not invariant under rotations: risks are Monte-Carlo estimates."""

    d: int = eqx.field(static=True)

    def __check_init__(self):
        _check_dimension(self.d)

    @property
    def moments(self) -> None:
        return None

    def sample(self, key: PRNGKeyArray, n: int, dtype=None) -> Float[Array, "n d"]:
        return jr.uniform(key, (n, self.d), dtype, minval=-1.0, maxval=1.0)


class AbstractTeacher(eqx.Module):
    """A family of regression functions and a probability law on it."""

    @abstractmethod
    def check(self, d: int) -> None:
        """Raises ValueError if the family does not exist in dimension d."""

    @abstractmethod
    def sample(self, key: PRNGKeyArray, d: int, dtype=None) -> RegressionFunction:
        """One teacher on R^d: a callable of one point x (d,), itself a pytree so that it passes through `jax.jit`."""


class ReLUTeacher(AbstractTeacher):
    r"""f*(x) = sum_{j<=m} a_j relu(<w_j, x>) with |w_j| = 1, a_j in {-1, +1}, m <= d (arXiv:2205.14818, section 3).

    The neurons are W = G^{1/2} Q, with Q (m, d) Haar-random orthonormal rows and G = (1 - c) I + c 1 1^T, so that every
    pair of neurons has cosine c; c = 0 gives orthonormal neurons. The law of W is invariant under rotations of R^d and
    each neuron is uniform on the sphere, for every c.

    **Arguments:**

    - `m`: number of neurons, at most d.
    - `signs`: the output weights: `"random"` (independent fair signs), `"alternating"` (+, -, +, ...) or `"positive"`.
    - `cosine`: pairwise cosine c of the neurons, in (-1/(m-1), 1).
    """

    m: int = eqx.field(static=True)
    signs: _Signs = eqx.field(static=True, default="random")
    cosine: float | Float[Array, ""] = 0.0

    def __check_init__(self):
        _check_neurons(self.m, self.signs, self.cosine)

    def check(self, d: int) -> None:
        _check_independent(type(self).__name__, self.m, d)

    def sample(self, key: PRNGKeyArray, d: int, dtype=None) -> TwoLayer:
        self.check(d)
        return _sample_network(key, self.m, d, self.signs, jnp.asarray(self.cosine), relu, dtype)


class TwoLayerTeacher(AbstractTeacher):
    r"""f*(x) = sum_{j<=m} a_j phi(<w_j, x>) for any activation phi; neurons and signs have the law of a `ReLUTeacher`.

    **Arguments:**

    - `m`: number of neurons, at most d.
    - `activation`: `relu`, `leaky_relu(slope)`, `erf`, `quadratic` or `Activation(function)` of `tsjax.activations`.
    - `signs`, `cosine`: as for `ReLUTeacher`.

    **Raises:** ValueError for an `activation` that is not one, and for values that `ReLUTeacher` refuses.
    """

    m: int = eqx.field(static=True)
    activation: AbstractActivation = eqx.field(static=True)
    signs: _Signs = eqx.field(static=True, default="random")
    cosine: float | Float[Array, ""] = 0.0

    def __check_init__(self):
        check_activation(self.activation)
        _check_neurons(self.m, self.signs, self.cosine)

    def check(self, d: int) -> None:
        _check_independent(type(self).__name__, self.m, d)

    def sample(self, key: PRNGKeyArray, d: int, dtype=None) -> TwoLayer:
        self.check(d)
        return _sample_network(key, self.m, d, self.signs, jnp.asarray(self.cosine), self.activation, dtype)


def _check_neurons(m: int, signs: str, cosine) -> None:
    if m < 1:
        raise ValueError(f"a teacher needs at least one neuron, got m={m}.")
    if signs not in ("random", "alternating", "positive"):
        raise ValueError(f"signs must be 'random', 'alternating' or 'positive', got {signs!r}.")
    if not is_traced(cosine):
        lowest = -1.0 / (m - 1) if m > 1 else -1.0
        if not lowest < float(cosine) < 1.0:
            raise ValueError(f"the pairwise cosine of {m} neurons must be in ({lowest:.4g}, 1), got cosine={cosine}.")


def _check_independent(teacher: str, m: int, d: int) -> None:
    if m > d:
        raise ValueError(
            f"a {teacher} has linearly independent neurons, so m <= d is needed; got m={m}, d={d}. Lower m or raise d."
        )


@compiled
def _sample_network(key, m: int, d: int, signs: str, c, activation: AbstractActivation, dtype) -> TwoLayer:
    """A network with the neurons and signs that `ReLUTeacher` documents."""
    key_w, key_a = jr.split(key)
    q = jr.orthogonal(key_w, m, m=d, dtype=jnp.zeros(0, dtype).dtype)
    # G^{1/2} = sqrt(1-c) (I - P) + sqrt(1+(m-1)c) P, where P projects onto the vector of ones.
    small, large = jnp.sqrt(1.0 - c), jnp.sqrt(1.0 + (m - 1) * c)
    w = small * q + (large - small) * jnp.mean(q, axis=0, keepdims=True)
    if signs == "random":
        a = jr.rademacher(key_a, (m,), q.dtype)
    elif signs == "alternating":
        a = jnp.where(jnp.arange(m) % 2 == 0, 1.0, -1.0).astype(q.dtype)
    else:
        a = jnp.ones(m, q.dtype)
    return TwoLayer(a=a, w=w.astype(q.dtype), activation=activation)


def _as_pytree(function: Any) -> Any:
    """A plain function as a pytree without leaves, which `jax.jit` and `jax.vmap` take as an argument; modules are pytrees
    already."""
    if not callable(function):
        raise ValueError(
            f"a FunctionTeacher is made of a function of one point x (d,), such as FunctionTeacher(lambda x: jnp.sin(x[0])); "
            f"got {function!r}."
        )
    return function if isinstance(function, (eqx.Module, jax.tree_util.Partial)) else jax.tree_util.Partial(function)


class FunctionTeacher(AbstractTeacher):
    """One given regression function f*: any JAX function of one point x (d,), as in `FunctionTeacher(lambda x: jnp.sin(x[0]))`.

    Every draw is that function. No closed form of the risk is known, so pass `key=` to `tsjax.excess_risk` for a Monte-Carlo
    estimate. The arrays of an `eqx.Module`, say of a trained network, stay leaves of the pytree.

    **Raises:** ValueError if `function` is not callable, or, once the dimension is known, does not map (d,) to a scalar.

    >>> problem = ts.Problem(inputs=ts.Cube(d=2), teacher=ts.FunctionTeacher(lambda x: jnp.sin(x[0])), noise_std=0.0)
    >>> data = problem.sample(jax.random.key(0), problem.sample_teacher(jax.random.key(1)), n=3)
    >>> bool(jnp.allclose(data.y, jnp.sin(data.x[:, 0])))
    True
    """

    function: RegressionFunction = eqx.field(converter=_as_pytree)

    def check(self, d: int) -> None:
        value = eqx.filter_eval_shape(self.function, jax.ShapeDtypeStruct((d,), jnp.float32))
        if getattr(value, "shape", None) != ():
            raise ValueError(f"a FunctionTeacher maps one point x of shape ({d},) to a scalar; it gave {value}.")

    def sample(self, key: PRNGKeyArray, d: int, dtype=None) -> RegressionFunction:
        del key, dtype
        self.check(d)
        return self.function


class TeacherInstance(AbstractInstance):
    """A `Problem` with one of its teachers: y = teacher(x) + eps."""

    problem: "Problem"
    teacher: RegressionFunction

    def sample(self, key: PRNGKeyArray, n: Rows, dtype=None) -> Dataset:
        return self.problem.sample(key, self.teacher, n, dtype)

    @property
    def target(self) -> RegressionFunction:
        return self.teacher


class Problem(AbstractTask):
    """y = f*(x) + eps with x from `inputs`, f* from `teacher`, and noise of standard deviation `noise_std`.

    **Arguments:**

    - `inputs`: the law of x: `Sphere(d)`, `Gaussian(d)` or `Cube(d)`.
    - `teacher`: the family of f*: `ReLUTeacher(m)`, `TwoLayerTeacher(m, activation)` or `FunctionTeacher(function)`.
    - `noise_std`: standard deviation sigma >= 0 of eps.
    - `noise`: `"gaussian"`, or `"uniform"` on [-sqrt(3) sigma, sqrt(3) sigma], which is bounded, as the theorems of
      arXiv:2205.14818 require.

    >>> problem = ts.Problem(inputs=ts.Sphere(d=5), teacher=ts.ReLUTeacher(m=3), noise_std=0.1)
    >>> teacher = problem.sample_teacher(jax.random.key(0))
    >>> data = problem.sample(jax.random.key(1), teacher, n=100)
    >>> data.x.shape, data.y.shape
    ((100, 5), (100,))
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

    def _repr_html_(self) -> str:
        return card(
            "Problem: y = f*(x) + noise",
            {
                "inputs": f"{self.inputs}, dimension d = {self.d}",
                "teacher": str(self.teacher),
                "noise": f"{self.noise}, standard deviation {_number(self.noise_std)}",
            },
        )

    def draw(self, key: PRNGKeyArray, dtype=None) -> TeacherInstance:
        return TeacherInstance(self, self.sample_teacher(key, dtype))

    # Any, since a type checker cannot know the family of the problem. Most families give a `TwoLayer`, with `a` and `w`.
    def sample_teacher(self, key: PRNGKeyArray, dtype=None) -> Any:
        """One regression function f* from the teacher family: a function of one point x (d,), which is a `TwoLayer` for
        families of networks."""
        check_key(key)
        return self.teacher.sample(key, self.d, dtype)

    def sample(self, key: PRNGKeyArray, teacher, n: Rows, dtype=None) -> Dataset:
        """A data set of n independent pairs (x, teacher(x) + eps); `teacher` is any function of one point x (d,). If n is a
        `tsjax.Size`, rows after its count have weight 0."""
        check_key(key)
        size = size_of(n)
        # A plain function would be compiled anew each time that it is written down; a network is data of the program.
        pairs = _pairs_compiled if isinstance(teacher, TwoLayer) else _pairs
        noise_std = jnp.asarray(self.noise_std)
        x, y = pairs(key, self.inputs, teacher, noise_std, self.noise, size.limit, dtype)
        return Dataset(x=x, y=y, weight=size.weights(x.dtype))


def _pairs(
    key: PRNGKeyArray, inputs: AbstractInputs, teacher, noise_std: Float[Array, ""], noise: str, n: int, dtype
) -> tuple[Array, Array]:
    """n inputs, and their responses with noise."""
    key_x, key_eps = jr.split(key)
    x = inputs.sample(key_x, n, dtype)
    if noise == "gaussian":
        eps = jr.normal(key_eps, (n,), x.dtype)
    else:
        eps = jr.uniform(key_eps, (n,), x.dtype, minval=-(3.0**0.5), maxval=3.0**0.5)
    return x, (jax.vmap(teacher)(x) + noise_std.astype(x.dtype) * eps).astype(x.dtype)


_pairs_compiled = compiled(_pairs)


def _number(value) -> str:
    return "unknown inside jit" if is_traced(value) else f"{float(value):g}"
