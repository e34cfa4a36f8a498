"""Activations of two-layer networks: the function, its symmetries, and the second moments of its neurons.

The Gram matrix E[phi(<u,x>) phi(<v,x>)] of neurons averages over random inputs x. A random-features kernel is the same
expectation with the roles exchanged, over random neurons at fixed inputs. That is why arc-cosine kernels appear here.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .kernels.arccos import ArcCosine

Gram = Callable[[Float[Array, "p d"], Float[Array, "q d"]], Float[Array, "p q"]]


class Moments(NamedTuple):
    r"""What closed forms need to know about an input law that is invariant under rotations of R^d.

    The invariance gives E[x_i x_j] = second delta_ij and E[x_i x_j x_k x_l] = fourth (delta_ij delta_kl + delta_ik delta_jl
    + delta_il delta_jk).

    - `second`: E|x|^2 / d = E[x_1^2]; 1 for N(0, I_d), 1/d on the unit sphere.
    - `fourth`: E|x|^4 / (d (d+2)) = E[x_1^2 x_2^2]; 1 for N(0, I_d), 1 / (d (d+2)) on the unit sphere.
    - `gaussian`: whether the law is N(0, second I_d).
    """

    second: float
    fourth: float
    gaussian: bool


class AbstractActivation(eqx.Module):
    """A function phi: R -> R, applied elementwise. It holds no arrays, so it is hashable and can be a static field.

    - `degree`: k if phi(c z) = c^k phi(z) for all c > 0, else None.
    - `parity`: `"even"` if phi(-z) = phi(z), `"odd"` if phi(-z) = -phi(z), else None.
    """

    degree: eqx.AbstractVar[int | None]
    parity: eqx.AbstractVar[Literal["even", "odd"] | None]

    @abstractmethod
    def __call__(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """phi at each entry of z."""

    @abstractmethod
    def gram(self, law: Moments) -> Gram | None:
        """(u, v) -> E[phi(<u_i, x>) phi(<v_j, x>)], u (p, d), v (q, d), result (p, q) in their dtype. It is None if no closed
        form is known under this law."""


class LeakyReLU(AbstractActivation):
    r"""phi(z) = z for z > 0, and slope z otherwise; slope = 0 is relu.

    Since phi(z) = relu(z) - slope relu(-z) and the law is symmetric, with K(u, v) = |u||v| h(cos) the arc-cosine kernel of
    order 1 (Cho & Saul 2009, equations 1-6, without their factor 2)

        E phi(<u,x>) phi(<v,x>) = E[x_1^2] ((1 + slope^2) K(u, v) - 2 slope K(u, -v)).

    The law enters through E[x_1^2] alone, since phi is homogeneous.

    **Raises:** ValueError for a slope outside [0, 1).
    """

    slope: float = eqx.field(static=True, default=0.0)
    degree: int | None = eqx.field(static=True, init=False, default=1)
    parity: Literal["even", "odd"] | None = eqx.field(static=True, init=False, default=None)

    def __check_init__(self):
        if not 0.0 <= self.slope < 1.0:
            raise ValueError(
                f"leaky_relu has a slope in [0, 1) for z < 0, and slope 1 for z > 0; got slope={self.slope}."
            )

    def __call__(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        # Written as a difference, it has derivative 0 at 0, as jax.nn.relu has, so gradient descent leaves a neuron w = 0 dead.
        return jax.nn.relu(z) - self.slope * jax.nn.relu(-z) if self.slope else jax.nn.relu(z)

    def gram(self, law: Moments) -> Gram:
        kernel, slope = ArcCosine(order=1), self.slope
        if not slope:
            return lambda u, v: law.second * kernel(u, v)
        return lambda u, v: law.second * ((1.0 + slope**2) * kernel(u, v) - 2.0 * slope * kernel(u, -v))

    def __str__(self):
        return f"leaky_relu({self.slope:g})" if self.slope else "relu"


class Quadratic(AbstractActivation):
    r"""phi(z) = z^2, with E phi(<u,x>) phi(<v,x>) = `fourth` (|u|^2 |v|^2 + 2 <u,v>^2): Isserlis' theorem for N(0, I_d), and
    its scaling by E|x|^4 / (d (d+2)) for other rotation-invariant laws."""

    degree: int | None = eqx.field(static=True, init=False, default=2)
    parity: Literal["even", "odd"] | None = eqx.field(static=True, init=False, default="even")

    def __call__(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        return z * z

    def gram(self, law: Moments) -> Gram:
        def values(u, v):
            uu, uv, vv = _products(u, v)
            return law.fourth * (uu * vv + 2.0 * uv**2)

        return values

    def __str__(self):
        return "quadratic"


class Erf(AbstractActivation):
    r"""phi(z) = erf(z) = (2 / sqrt(pi)) int_0^z exp(-t^2) dt. For x ~ N(0, s^2 I_d), with p = s^2 |u|^2, q = s^2 |v|^2 and
    r = s^2 <u,v>,

        E phi(<u,x>) phi(<v,x>) = (2/pi) arcsin(2 r / sqrt((1 + 2p)(1 + 2q)))

    (Williams 1997, NeurIPS 9, "Computing with infinite networks", equation 11). Under other laws `gram` is None.
    """

    degree: int | None = eqx.field(static=True, init=False, default=None)
    parity: Literal["even", "odd"] | None = eqx.field(static=True, init=False, default="odd")

    def __call__(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        return jax.lax.erf(z)

    def gram(self, law: Moments) -> Gram | None:
        if not law.gaussian:
            return None

        def values(u, v):
            p, r, q = (law.second * product for product in _products(u, v))
            # arcsin loses half of the digits near 1, that is, for long parallel neurons. The arctangent loses none.
            return (2.0 / jnp.pi) * jnp.arctan2(
                2.0 * r, jnp.sqrt(1.0 + 2.0 * p + 2.0 * q + 4.0 * jnp.maximum(p * q - r * r, 0.0))
            )

        return values

    def __str__(self):
        return "erf"


class Activation(AbstractActivation):
    """Any JAX function of one real number as an activation: `Activation(jnp.tanh)`. Its Gram matrix has no closed form.

    **Arguments:**

    - `function`: maps a scalar to a scalar. Two activations are equal only if their functions are the same object, so create
      the function once.
    - `degree`, `parity`: what is known of the function (see `AbstractActivation`). The degree lets a student absorb its output
      weights; the parity shows `tsjax.match_neurons` which neurons are the same.

    **Raises:** ValueError if `function` is not a hashable function of one number, or lacks the declared degree or parity.
    """

    function: Callable = eqx.field(static=True)
    degree: int | None = eqx.field(static=True, default=None)
    parity: Literal["even", "odd"] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not callable(self.function):
            raise ValueError(
                "an Activation is made of a JAX function of one number, such as Activation(jnp.tanh); got "
                f"{self.function!r}. tsjax.activations has relu, leaky_relu(slope), erf and quadratic."
            )
        try:
            hash(self.function)
        except TypeError:
            raise ValueError(
                f"an Activation is static, so its function must be hashable, and {type(self.function).__name__} is not. "
                "Wrap it in a function defined with def."
            ) from None
        shape = jax.eval_shape(self.function, jax.ShapeDtypeStruct((), jnp.float32)).shape
        if shape != ():
            raise ValueError(
                f"an activation maps a scalar to a scalar, but {self} maps it to an array of shape {shape}."
            )
        if self.degree is not None and self.degree < 1:
            raise ValueError(
                f"degree must be at least 1, or None if the activation is not homogeneous; got {self.degree}."
            )
        if self.parity not in (None, "even", "odd"):
            raise ValueError(f"parity must be 'even', 'odd' or None, got {self.parity!r}.")
        if self.degree is not None or self.parity is not None:
            # So that the values are concrete inside jit too.
            with jax.ensure_compile_time_eval():
                self._check_symmetries()

    def _check_symmetries(self):
        z = jnp.asarray([-1.9, -0.7, -0.3, 0.3, 0.7, 1.9], jnp.float32)
        sign = {"even": 1.0, "odd": -1.0}.get(self.parity or "")
        if sign is not None and not jnp.allclose(self(-z), sign * self(z), rtol=1e-4, atol=1e-6):
            raise ValueError(f"{self} is not {self.parity}: leave parity at None.")
        if self.degree is not None and not jnp.allclose(self(2 * z), 2**self.degree * self(z), rtol=1e-4, atol=1e-6):
            raise ValueError(f"{self} is not homogeneous of degree {self.degree}: leave degree at None.")

    def __call__(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        # A function of a scalar need not take arrays.
        return jnp.vectorize(self.function)(z)

    def gram(self, law: Moments) -> None:
        del law

    def __str__(self):
        return f"Activation({getattr(self.function, '__name__', type(self.function).__name__)})"


relu = LeakyReLU()
erf = Erf()
quadratic = Quadratic()


def leaky_relu(slope: float) -> LeakyReLU:
    """phi(z) = z for z > 0, and slope z otherwise, with 0 <= slope < 1.

    **Raises:** ValueError for another slope.
    """
    return LeakyReLU(slope)


def check_activation(activation) -> None:
    """**Raises:** ValueError for anything that is not an activation, including a plain function."""
    if not isinstance(activation, AbstractActivation):
        raise ValueError(
            f"activation must be relu, leaky_relu(slope), erf, quadratic or Activation(function) of tsjax.activations; got "
            f"{activation!r}."
        )


def _products(u, v):
    """|u_i|^2 (p, 1), <u_i, v_j> (p, q) and |v_j|^2 (1, q)."""
    square = lambda w: jnp.sum(w * w, axis=1)
    return square(u)[:, None], jnp.matmul(u, v.T, precision="highest"), square(v)[None, :]
