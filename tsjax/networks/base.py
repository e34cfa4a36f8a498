r"""Code shared by multi-layer networks: activations by name, parameterisations, and layers drawn neuron by neuron.

A layer is z = c_w W h + c_b b with trained W, b and fixed multipliers c. Let s = weight_std, t = bias_std, and n the number of
neurons or channels of the layer. The fan-in is the number of entries of h that enter one neuron (d at the input; positions of
a filter times channels in a convolution). The last column has the factors of the learning rates of W and b under Adam.

| parameterisation | layer | W at the start | c_w | b at the start | c_b | Adam: W, b |
|---|---|---|---|---|---|---|
| `"ntk"` | each | N(0, 1) | s / sqrt(fan-in) | N(0, 1) | t | 1, 1 |
| `"standard"` | each | N(0, s^2 / fan-in) | 1 | N(0, t^2) | 1 | 1, 1 |
| `"mup"` | first | N(0, s^2 / (n fan-in)) | sqrt(n) | N(0, t^2 / n) | sqrt(n) | n^-1/2, n^-1/2 |
| | hidden | N(0, s^2 / fan-in) | 1 | N(0, t^2 / n) | sqrt(n) | 1 / fan-in, n^-1/2 |
| | last | N(0, s^2 / fan-in) | fan-in^-1/2 | N(0, t^2) | 1 | fan-in^-1/2, 1 |

The `"ntk"` row is that of Jacot et al. 2018 (arXiv:1806.07572, section 3). The `"mup"` rows are the Maximal Update
Parametrization of Yang & Hu 2021 (arXiv:2011.14522, table 1), written with each layer's own width: their exponents are
a_1 = -1/2, a_l = 0, a_{L+1} = 1/2, b_l = 1/2, c = 0, so that **stochastic gradient descent takes one learning rate for all
layers, at all widths**. The steps of Adam do not grow with the gradients, so Adam needs the learning rate of each leaf
multiplied by the last column (`learning_rates`). The updates are then those of Yang et al. 2022 (arXiv:2203.03466, table 3,
with biases as weights of fan-in 1).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..activations import AbstractActivation, Activation, Erf, LeakyReLU, Quadratic
from ..kernels.stax import CLOSED_FORMS, Phi

Parameterisation = Literal["ntk", "standard", "mup"]
Place = Literal["first", "hidden", "last", "only"]

_SLOPE = 0.01


def _gelu(z: Array) -> Array:
    """z Phi(z) with Phi the distribution function of N(0, 1): the exact function, not its approximation by tanh."""
    return jax.nn.gelu(z, approximate=False)


def _leaky_relu(z: Array) -> Array:
    return jax.nn.leaky_relu(z, _SLOPE)


def _identity(z: Array) -> Array:
    return z


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "leaky_relu": _leaky_relu,
    "abs": jnp.abs,
    "identity": _identity,
    "quadratic": jnp.square,
    "erf": jax.lax.erf,
    "gelu": _gelu,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
}
"""The activations that have names. `"leaky_relu"` has slope 0.01; `tsjax.activations.leaky_relu(slope)` has another."""

ActivationLike = str | AbstractActivation | Callable[[Array], Array]


def function_of(activation: ActivationLike) -> Callable[[Array], Array]:
    """The function of an activation given by name, by `tsjax.activations`, or as a function of arrays.

    **Raises:** ValueError for an unknown name, and for an object that cannot be called or hashed.
    """
    if isinstance(activation, str):
        if activation not in FUNCTIONS:
            raise ValueError(
                f"no activation is called {activation!r}; there are {', '.join(FUNCTIONS)}, those of tsjax.activations, and "
                "any function of an array, such as jnp.tanh."
            )
        return FUNCTIONS[activation]
    if not callable(activation):
        raise ValueError(f"an activation is a name such as 'relu' or a function of an array, got {activation!r}.")
    try:
        hash(activation)
    except TypeError:
        raise ValueError(
            f"an activation is static, so it must be hashable, and {type(activation).__name__} is not. Wrap it in a function "
            "defined with def."
        ) from None
    return activation


def phi_of(activation: ActivationLike) -> Phi:
    """The activation in the form that kernels take. **Raises:** ValueError if neural-tangents has no closed form for it."""
    if isinstance(activation, LeakyReLU):
        return Phi("leaky_relu", activation.slope) if activation.slope else Phi("relu")
    if isinstance(activation, Activation):
        activation = activation.function
    if isinstance(activation, Erf | Quadratic):
        activation = str(activation)
    # A function is recognised by its identity: jnp.sin is "sin".
    name = next((name for name, function in FUNCTIONS.items() if activation in (name, function)), None)
    if name not in CLOSED_FORMS:
        described = activation if isinstance(activation, str) else getattr(activation, "__name__", repr(activation))
        raise ValueError(
            f"the kernel of an infinitely wide network with activation {described} has no closed form in neural-tangents; it "
            f"has one for {', '.join(CLOSED_FORMS)}. ts.kernels.EmpiricalNTK has the tangent kernel of any finite network."
        )
    return Phi(name, _SLOPE) if name == "leaky_relu" else Phi(name)


NO_KERNEL = (
    "a network in muP learns features however wide it is, so that no fixed kernel describes it. Compare the kernels of the "
    "same network with parameterisation='ntk', or measure how far its own moves: ts.kernels.change(before, after, x)."
)


class Settings(NamedTuple):
    """The parameterisation of one network, the scales s and t of its weights and biases, and whether it has biases."""

    parameterisation: Parameterisation
    weight_std: Any
    bias_std: Any
    biases: bool


def check_parameterisation(owner: str, name: str) -> Parameterisation:
    """Returns `name`. **Raises:** ValueError for an unknown name."""
    if name not in ("ntk", "standard", "mup"):
        raise ValueError(f"{owner}: parameterisation is 'ntk', 'standard' or 'mup', got {name!r}.")
    return name


def check_settings(owner: str, weight_std, bias_std, outputs) -> None:
    """Checks s, t and the number of outputs. **Raises:** ValueError for settings out of range; traced values pass."""
    for name, value, lowest in (("weight_std", weight_std, "> 0"), ("bias_std", bias_std, ">= 0")):
        if isinstance(value, jax.core.Tracer):
            continue
        number = np.asarray(value)
        if number.dtype.kind not in "fiu":
            raise ValueError(f"{owner}: {name} must be a number, got {value!r}.")
        low = number <= 0 if lowest == "> 0" else number < 0
        if np.any(low) or not np.all(np.isfinite(number)):
            raise ValueError(f"{owner}: {name} must be finite and {lowest}, got {value}.")
    if outputs is not None:
        check_sizes(owner, outputs=(outputs,))


def check_sizes(owner: str, **sizes: tuple) -> None:
    """**Raises:** ValueError for sizes that are not whole numbers >= 1."""
    for name, values in sizes.items():
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{owner}: {name} must be whole numbers >= 1, got {value!r}.")


def concrete(owner: str, **values) -> tuple[float, ...]:
    """The values as Python floats, which kernels need when they are built. **Raises:** ValueError for traced values, and for
    arrays with one value for each of several networks."""
    for name, value in values.items():
        if isinstance(value, jax.core.Tracer):
            raise ValueError(
                f"{owner}: the kernel is built from the value of {name}, which is not known inside jit, vmap or grad. Build "
                "the kernel outside and pass it in."
            )
        if np.ndim(value):
            raise ValueError(
                f"{owner}: the kernel is that of one network, and {name} has {np.shape(value)} values. Index the description "
                "first: jax.tree.map(lambda leaf: leaf[i], network)."
            )
    return tuple(float(value) for value in values.values())


def point_shape(owner: str, point: int | tuple[int, ...]) -> tuple[int, ...]:
    """The shape of one point, given as d or as a shape. **Raises:** ValueError for sizes below 1 and for a shape without
    axes."""
    shape = (point,) if isinstance(point, int | np.integer) else tuple(point)
    check_sizes(owner, point=shape)
    if not shape:
        raise ValueError(f"{owner}: a point has at least one axis; point is d or a shape such as (28, 28, 1), got ().")
    return tuple(int(size) for size in shape)


class Fixed(eqx.Module):
    """A real number that training does not change. Optimizers move floating-point arrays, so its bits are stored as an integer.
    No gradient passes through it."""

    bits: Int[Array, "*batch"]
    dtype: str = eqx.field(static=True)

    def __init__(self, value: Any):
        value = jax.lax.stop_gradient(jnp.asarray(value, jnp.result_type(float)))
        self.dtype = value.dtype.name
        self.bits = jax.lax.bitcast_convert_type(value, f"int{value.dtype.itemsize * 8}")

    def __call__(self, dtype) -> Float[Array, "*batch"]:
        return jax.lax.bitcast_convert_type(self.bits, self.dtype).astype(dtype)


class Layer(eqx.Module):
    """Weights (n, *fan-in) and biases (n,) of n neurons or channels, with the multipliers c of the module docstring."""

    weight: Float[Array, "..."]
    bias: Float[Array, "..."] | None
    weight_scale: Fixed
    bias_scale: Fixed | None

    def scaled_weight(self) -> Float[Array, "..."]:
        return self.weight_scale(self.weight.dtype) * self.weight

    def add_bias(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """z plus the scaled biases, with neurons or channels on the last axis."""
        if self.bias is None or self.bias_scale is None:
            return z
        bias = self.bias_scale(self.bias.dtype) * self.bias
        return z + bias.reshape((1,) * (z.ndim - 1) + bias.shape)


class Rule(NamedTuple):
    """One row of the table of the module docstring."""

    weight_std: Any
    weight_scale: Any
    bias_std: Any
    bias_scale: Any
    adam_weight: Any
    adam_bias: Any


def rule(settings: Settings, place: Place, fan_in: Any, neurons: Any) -> Rule:
    """The row of the table for a layer at `place`; "only" is a layer that is first and last."""
    s, t = settings.weight_std, settings.bias_std
    entering, leaving = jnp.sqrt(jnp.asarray(fan_in, float)), jnp.sqrt(jnp.asarray(neurons, float))
    if settings.parameterisation == "ntk":
        return Rule(1.0, s / entering, 1.0, t, 1.0, 1.0)
    if settings.parameterisation == "standard":
        return Rule(s / entering, 1.0, t, 1.0, 1.0, 1.0)
    inner = (t / leaving, leaving)
    if place == "first":
        return Rule(s / (entering * leaving), leaving, *inner, 1.0 / leaving, 1.0 / leaving)
    if place == "hidden":
        return Rule(s / entering, 1.0, *inner, 1.0 / entering**2, 1.0 / leaving)
    if place == "last":
        return Rule(s / entering, 1.0 / entering, t, 1.0, 1.0 / entering, 1.0)
    return Rule(s / entering, 1.0, t, 1.0, 1.0, 1.0)


def place_of(index: int, count: int) -> Place:
    """The place of layer number `index` out of `count`."""
    if count == 1:
        return "only"
    return "first" if index == 0 else "last" if index == count - 1 else "hidden"


def neuron_keys(key: PRNGKeyArray, neurons: Sequence[int]) -> list[Array]:
    """One key for each neuron of each layer, from the numbers of the layer and the neuron. One call of the generator makes all
    of them, since each call adds to the time of compilation."""
    layer = np.repeat(np.arange(len(neurons)), neurons)
    neuron = np.concatenate([np.arange(n) for n in neurons])
    keys = jax.vmap(lambda i, j: jr.fold_in(jr.fold_in(key, i), j))(jnp.asarray(layer), jnp.asarray(neuron))
    ends = np.cumsum(neurons)
    return [keys[end - n : end] for end, n in zip(ends, neurons, strict=True)]


def draw_layer(
    keys: Array,
    shape: tuple[int, ...],
    drawn: Rule,
    biases: bool,
    dtype,
    live_in: Any = None,
    live_out: Any = None,
) -> Layer:
    """Draws a layer with weights of `shape` (n, *fan-in). Each neuron has its own key (`neuron_keys`), which draws its bias
    first and then its weights. So a smaller layer is a corner of a larger one, with biases or without. Weights on inputs number
    `live_in` and above, and neurons number `live_out` and above, are 0."""
    neurons = jnp.arange(shape[0])
    count = 1 + math.prod(shape[1:])
    drawn_numbers = jax.vmap(lambda key: jr.normal(key, (count,), dtype))(keys)
    weight = jnp.asarray(drawn.weight_std, dtype) * drawn_numbers[:, 1:].reshape(shape)
    if live_in is not None:
        weight = jnp.where(jnp.arange(shape[1])[None, :] < live_in, weight, 0.0)
    if live_out is not None:
        weight = jnp.where(neurons[:, None] < live_out, weight, 0.0)
    if not biases:
        return Layer(weight, None, Fixed(drawn.weight_scale), None)
    bias = jnp.asarray(drawn.bias_std, dtype) * drawn_numbers[:, 0]
    if live_out is not None:
        bias = jnp.where(neurons < live_out, bias, 0.0)
    return Layer(weight, bias, Fixed(drawn.weight_scale), Fixed(drawn.bias_scale))


def rates_of(rules: list[Rule], network: Any, optimizer: str) -> Any:
    """`network` with each trained leaf replaced by the factor of its learning rate, and every other leaf by None.

    **Raises:** ValueError for an optimizer other than `"sgd"` and `"adam"`.
    """
    if optimizer not in ("sgd", "adam"):
        raise ValueError(f"learning rates of muP are known for 'sgd' and 'adam', got optimizer={optimizer!r}.")
    adam = optimizer == "adam"
    rates = eqx.filter(network, eqx.is_inexact_array)
    for index, drawn in enumerate(rules):
        place = lambda net, index=index: net.layers[index].weight
        rates = eqx.tree_at(place, rates, jnp.asarray(drawn.adam_weight if adam else 1.0, float))
        if network.layers[index].bias is not None:
            place = lambda net, index=index: net.layers[index].bias
            rates = eqx.tree_at(place, rates, jnp.asarray(drawn.adam_bias if adam else 1.0, float))
    return rates


def has_biases(bias_std: Any) -> bool:
    """Whether a network with this `bias_std` has biases: not for the number 0, but always for an array, whose value may be
    traced."""
    return not isinstance(bias_std, int | float) or bias_std > 0


def output_shape(z: Float[Array, " k"], outputs: int | None) -> Float[Array, "..."]:
    """z (k,), or its only entry as a scalar if `outputs` is None."""
    return z[0] if outputs is None else z


def check_point(x: Any, point: tuple[int, ...]) -> None:
    """**Raises:** ValueError for a batch of points, or a point of another shape."""
    if jnp.shape(x) != point:
        raise ValueError(
            f"a network takes one point x of shape {point}, got {jnp.shape(x)}. For the rows of a batch: jax.vmap(network)(x)."
        )
