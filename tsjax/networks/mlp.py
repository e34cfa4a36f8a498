"""Fully connected networks of any depth, in three parameterisations, with their exact kernels."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..kernels.base import AbstractKernel
from ..kernels.stax import Dense, Kind, StaxKernel
from .base import (
    NO_KERNEL,
    ActivationLike,
    Layer,
    Parameterisation,
    Rule,
    Settings,
    check_parameterisation,
    check_point,
    check_settings,
    check_sizes,
    concrete,
    draw_layer,
    function_of,
    has_biases,
    neuron_keys,
    output_shape,
    phi_of,
    place_of,
    point_shape,
    rates_of,
    rule,
)


class MLPNetwork(eqx.Module):
    """The network that `MLP.init` draws. Its trained leaves are weights and biases. `network(x)` takes one point."""

    layers: tuple[Layer, ...]
    active: Int[Array, "*batch hidden"] | None
    activation: Callable[[Array], Array] = eqx.field(static=True)
    point: tuple[int, ...] = eqx.field(static=True)
    outputs: int | None = eqx.field(static=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The value at one point: a number, or (outputs,). **Raises:** ValueError for a batch of points."""
        check_point(x, self.point)
        *hidden, last = self.layers
        h = x.reshape(-1)
        for index, layer in enumerate(hidden):
            h = self.activation(_affine(layer, h))
            if self.active is not None:
                h = jnp.where(jnp.arange(h.shape[0]) < self.active[index], h, 0.0)
        return output_shape(_affine(last, h), self.outputs)


def _affine(layer: Layer, h: Float[Array, " m"]) -> Float[Array, " n"]:
    scale = layer.weight_scale(layer.weight.dtype)
    return layer.add_bias(scale * jnp.dot(layer.weight, h, precision="highest"))


class MLP(eqx.Module):
    r"""The description of a fully connected network, f(x) = z_{L+1} with h_0 = x, z_l = c_w W_l h_{l-1} + c_b b_l, h_l =
    phi(z_l).

    In the NTK parameterisation z_l = s / sqrt(fan-in) W_l h_{l-1} + t b_l, and all trained numbers are N(0, 1) at the start.
    The table of parameterisations on this page has the others. `init` draws a network, and `tsjax.kernels.of` gives its exact
    kernels.

    **Arguments:**

    - `widths`: neurons of the hidden layers, n_1, ..., n_L; `()` is a linear function.
    - `outputs`: k for f(x) (k,); None for one number.
    - `activation`: phi, by name, as one of `tsjax.activations`, or as a function of an array. The names are `relu`,
      `leaky_relu`, `abs`, `identity`, `quadratic`, `erf`, `gelu`, `sin` and `cos`, which have kernels, and `tanh`, `sigmoid`,
      `softplus`, `silu` and `elu`, which do not.
    - `parameterisation`: `"ntk"`, `"standard"` or `"mup"`; see the table of parameterisations on this page, which also has the
      learning rates for stochastic gradient descent and Adam.
    - `weight_std`, `bias_std`: s and t; numbers, or arrays to be traced and mapped over. With the number 0 for bias_std there
      are no biases. With an array there always are, because inside `jit` its value is not known.
    - `active`: how many neurons of each hidden layer exist, an integer array (L,) that may be traced and mapped over, for
      networks of different widths in one program. The other neurons have no effect: values, gradients, fan-ins and the random
      draw are those of a network with these widths, up to the order of sums.

    Its methods are `kernel(get)`, `init(key, point)` and `learning_rates(point)`.

    **Raises:** ValueError for sizes, deviations or names out of range.

    >>> mlp = ts.MLP(widths=(64, 64), outputs=10, bias_std=0.1)
    >>> network = mlp.init(jax.random.key(0), 5)
    >>> network(jnp.ones(5)).shape
    (10,)
    """

    widths: tuple[int, ...] = eqx.field(static=True)
    outputs: int | None = eqx.field(static=True)
    activation: ActivationLike = eqx.field(static=True)
    parameterisation: Parameterisation = eqx.field(static=True)
    weight_std: float | Float[Array, "..."]
    bias_std: float | Float[Array, "..."]
    active: Int[Array, "*batch hidden"] | None
    biases: bool = eqx.field(static=True)

    def __init__(
        self,
        widths: int | Sequence[int],
        outputs: int | None = None,
        activation: ActivationLike = "relu",
        parameterisation: str = "ntk",
        weight_std: float | Float[Array, "..."] = 2**0.5,
        bias_std: float | Float[Array, "..."] = 0.0,
        active: Any = None,
    ):
        if isinstance(widths, int):
            raise ValueError(
                f"MLP: widths has one entry for each hidden layer, such as ({widths},); got the number {widths}."
            )
        check_sizes("MLP", widths=tuple(widths))
        check_settings("MLP", weight_std, bias_std, outputs)
        function_of(activation)
        self.widths, self.outputs = tuple(int(width) for width in widths), outputs
        self.activation, self.parameterisation = activation, check_parameterisation("MLP", parameterisation)
        self.weight_std, self.bias_std = weight_std, bias_std
        self.active = None if active is None else _check_active(active, self.widths)
        self.biases = has_biases(bias_std)

    def init(self, key: PRNGKeyArray, point: int | tuple[int, ...], dtype=None) -> MLPNetwork:
        """A random network for points of R^d (`point` = d), or for arrays of the shape `point`, which it takes as rows of
        numbers. Its trained leaves have the type `dtype`; None is the default floating-point type.

        **Raises:** ValueError for a shape without axes, and for an `active` of several networks, over which to map with
        `equinox.filter_vmap`.
        """
        shape = point_shape("MLP", point)
        if self.active is not None and self.active.ndim != 1:
            raise ValueError(
                f"active has shape {self.active.shape}: map over its first axis, eqx.filter_vmap(MLP.init)(...)."
            )
        sizes, live = self._sizes(shape)
        keys = neuron_keys(key, sizes[1:])
        layers = tuple(
            draw_layer(
                keys[index],
                (sizes[index + 1], sizes[index]),
                drawn,
                self.biases,
                jnp.dtype(dtype or jnp.result_type(float)),
                None if live is None or index == 0 else live[index - 1],
                None if live is None or index == len(self.widths) else live[index],
            )
            for index, drawn in enumerate(self._rules(shape))
        )
        return MLPNetwork(layers, self.active, function_of(self.activation), shape, self.outputs)

    def learning_rates(self, point: int | tuple[int, ...], optimizer: str = "sgd") -> MLPNetwork:
        """A network with the factor of the learning rate (table of parameterisations) in the place of each trained leaf, and
        None in the place of the others. All factors are 1 except for muP under `"adam"`. With the factors, the best learning
        rate of muP does not depend on the widths.

        **Raises:** ValueError for an optimizer other than `"sgd"` and `"adam"`.

        >>> import optax
        >>> rates = ts.MLP((64, 64), parameterisation="mup").learning_rates(5, "adam")
        >>> scaled = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, rates))
        >>> optimizer = optax.chain(optax.adam(1e-2), scaled)
        >>> [float(layer.weight) for layer in rates.layers]
        [0.125, 0.015625, 0.125]
        """
        shape = point_shape("MLP", point)
        network = jax.eval_shape(lambda: self.init(jr.key(0), shape))
        network = jax.tree.map(lambda leaf: jnp.zeros((), leaf.dtype), network)
        return rates_of(self._rules(shape), network, optimizer)

    def kernel(self, get: Kind) -> AbstractKernel:
        """The exact kernel of the infinitely wide network; `tsjax.kernels.of(self, get)` documents it."""
        weight_std, bias_std = concrete("MLP", weight_std=self.weight_std, bias_std=self.bias_std)
        if self.parameterisation == "mup":
            raise ValueError(NO_KERNEL)
        widths = self.widths
        if self.active is not None:
            if isinstance(self.active, jax.core.Tracer) or self.active.ndim != 1:
                raise ValueError(
                    "MLP: the kernel is that of one network of known widths; build it outside of jit and vmap."
                )
            widths = tuple(int(width) for width in np.asarray(self.active))
        standard = self.parameterisation == "standard"
        layers = tuple(Dense(width, weight_std**2, bias_std, standard) for width in (*widths, self.outputs or 1))
        return StaxKernel(get, layers, phi_of(self.activation))

    def _sizes(self, shape: tuple[int, ...]) -> tuple[list[int], Int[Array, " hidden"] | None]:
        return [int(np.prod(shape)), *self.widths, self.outputs or 1], self.active

    def _rules(self, shape: tuple[int, ...]) -> list[Rule]:
        """The rule of each layer, for the numbers of active neurons."""
        sizes, live = self._sizes(shape)
        counts: list[Any] = sizes if live is None else [sizes[0], *live, sizes[-1]]
        settings = Settings(self.parameterisation, self.weight_std, self.bias_std, self.biases)
        last = len(sizes) - 1
        return [rule(settings, place_of(i, last), counts[i], counts[i + 1]) for i in range(last)]


def _check_active(active: Any, widths: tuple[int, ...]) -> Int[Array, "*batch hidden"]:
    active = jnp.asarray(active)
    if not jnp.issubdtype(active.dtype, jnp.integer) or active.shape[-1:] != (len(widths),):
        raise ValueError(
            f"MLP: active counts the neurons of each of the {len(widths)} hidden layers, integers ({len(widths)},); got "
            f"{active.dtype} {active.shape}."
        )
    if not isinstance(active, jax.core.Tracer):
        counts = np.asarray(active)
        if np.any(counts < 1) or np.any(counts > np.asarray(widths)):
            raise ValueError(f"MLP: active must lie between 1 and widths={widths}, got {counts.tolist()}.")
    return active
