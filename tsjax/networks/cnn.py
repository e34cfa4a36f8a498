"""Small convolutional networks in three parameterisations, with their exact kernels."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..kernels.base import AbstractKernel
from ..kernels.stax import Conv, Dense, Kind, Pool, StaxKernel
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

Padding = Literal["SAME", "VALID", "CIRCULAR"]
Pooling = Literal["average", "flatten"]


class CNNNetwork(eqx.Module):
    """The network that `CNN.init` draws. Its trained leaves are weights and biases. The weights of a convolution have the shape
    (channels, *filter, channels of the layer before). `network(x)` takes one point."""

    layers: tuple[Layer, ...]
    activation: Callable[[Array], Array] = eqx.field(static=True)
    point: tuple[int, ...] = eqx.field(static=True)
    outputs: int | None = eqx.field(static=True)
    stride: tuple[int, ...] = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)
    pooling: Pooling = eqx.field(static=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The value at one point: a number, or (outputs,). **Raises:** ValueError for a batch of points."""
        check_point(x, self.point)
        *hidden, last = self.layers
        h = x
        for layer in hidden:
            h = self.activation(_convolve(layer, h, self.stride, self.padding))
        directions = tuple(range(h.ndim - 1))
        h = jnp.mean(h, axis=directions) if self.pooling == "average" else h.reshape(-1)
        z = last.weight_scale(last.weight.dtype) * jnp.dot(last.weight, h, precision="highest")
        return output_shape(last.add_bias(z), self.outputs)


def _convolve(layer: Layer, h: Float[Array, "..."], stride: tuple[int, ...], padding: Padding) -> Float[Array, "..."]:
    """The convolution of h (*positions, channels) with the filters of the layer, with its multiplier and biases."""
    sides = layer.weight.shape[1:-1]
    if padding == "CIRCULAR":
        pads = jax.lax.padtype_to_pads(h.shape[:-1], sides, stride, "SAME")
        h = jnp.pad(h, (*pads, (0, 0)), mode="wrap")
    axes = "DHW"[-len(sides) :]
    dtype = jnp.result_type(h, layer.weight)
    z = jax.lax.conv_general_dilated(
        h[None].astype(dtype),
        layer.weight.astype(dtype),
        window_strides=stride,
        padding="SAME" if padding == "SAME" else "VALID",
        dimension_numbers=(f"N{axes}C", f"O{axes}I", f"N{axes}C"),
        precision="highest",
    )[0]
    return layer.add_bias(layer.weight_scale(dtype) * z)


class CNN(eqx.Module):
    r"""The description of a convolutional network for points (*positions, channels), such as images (28, 28, 1). It has
    convolutions, each followed by the activation; then the mean over positions, or the values at all positions in one row; then
    a fully connected layer.

    h_0 = x, h_l = phi(c_w W_l * h_{l-1} + c_b b_l), f(x) = c_w V pool(h_L) + c_b b. The fan-in of a convolution is the number
    of entries of one filter. In the NTK parameterisation c_w = s / sqrt(fan-in) and c_b = t, and all trained numbers are
    N(0, 1) at the start (Arora et al. 2019, arXiv:1904.11955, section 4). The table of parameterisations on this page has the
    others.

    **Arguments:**

    - `channels`: the number of channels of each convolution; at least one convolution.
    - `filter`, `stride`: those of every convolution; a number for all directions, or a tuple. One to three directions.
    - `padding`: `"SAME"` (zeros around, sizes kept), `"VALID"` (none) or `"CIRCULAR"` (as on a torus, sizes kept).
    - `pooling`: `"average"`, the mean over positions, with which f is invariant under shifts if the padding is circular and the
      stride 1; or `"flatten"`, all positions in one row.
    - `outputs`, `activation`, `parameterisation`, `weight_std`, `bias_std`: as those of `MLP`.

    Its methods are `kernel(get)`, `init(key, point)` and `learning_rates(point)`. With average pooling the time of the kernel
    is proportional to n1 n2 P^2 for P positions, which makes it slow for large images.

    **Raises:** ValueError for sizes, deviations or names out of range.

    >>> cnn = ts.CNN(channels=(16, 16), outputs=10)
    >>> network = cnn.init(jax.random.key(0), (8, 8, 3))
    >>> network(jnp.ones((8, 8, 3))).shape
    (10,)
    """

    channels: tuple[int, ...] = eqx.field(static=True)
    filter: int | tuple[int, ...] = eqx.field(static=True)
    outputs: int | None = eqx.field(static=True)
    stride: int | tuple[int, ...] = eqx.field(static=True)
    padding: Padding = eqx.field(static=True)
    pooling: Pooling = eqx.field(static=True)
    activation: ActivationLike = eqx.field(static=True)
    parameterisation: Parameterisation = eqx.field(static=True)
    weight_std: float | Float[Array, "..."]
    bias_std: float | Float[Array, "..."]
    biases: bool = eqx.field(static=True)

    def __init__(
        self,
        channels: int | Sequence[int],
        filter: int | Sequence[int] = 3,
        outputs: int | None = None,
        stride: int | Sequence[int] = 1,
        padding: str = "SAME",
        pooling: str = "average",
        activation: ActivationLike = "relu",
        parameterisation: str = "ntk",
        weight_std: float | Float[Array, "..."] = 2**0.5,
        bias_std: float | Float[Array, "..."] = 0.0,
    ):
        if isinstance(channels, int) or not channels:
            raise ValueError(f"CNN: channels has one entry for each convolution, such as (16, 16); got {channels!r}.")
        self.channels = tuple(int(count) for count in channels)
        self.filter, self.stride = (size if isinstance(size, int) else tuple(size) for size in (filter, stride))
        directions = lambda size: (size,) if isinstance(size, int) else size
        check_sizes("CNN", channels=tuple(channels), filter=directions(self.filter), stride=directions(self.stride))
        check_settings("CNN", weight_std, bias_std, outputs)
        function_of(activation)
        if padding not in ("SAME", "VALID", "CIRCULAR"):
            raise ValueError(f"CNN: padding is 'SAME', 'VALID' or 'CIRCULAR', got {padding!r}.")
        if pooling not in ("average", "flatten"):
            raise ValueError(f"CNN: pooling is 'average' or 'flatten', got {pooling!r}.")
        self.outputs, self.padding, self.pooling = outputs, padding, pooling
        self.activation, self.parameterisation = activation, check_parameterisation("CNN", parameterisation)
        self.weight_std, self.bias_std, self.biases = weight_std, bias_std, has_biases(bias_std)

    def init(self, key: PRNGKeyArray, point: tuple[int, ...], dtype=None) -> CNNNetwork:
        """A random network for points of this shape, (*positions, channels). Its trained leaves have the type `dtype`; None is
        the default floating-point type.

        **Raises:** ValueError for a point without positions and channels, for a filter or stride with another number of
        directions, and for a point smaller than the filters without padding.
        """
        shape, _, stride = self._directions(point)
        dtype = jnp.dtype(dtype or jnp.result_type(float))
        shapes = self._shapes(shape)
        keys = neuron_keys(key, [weights[0] for weights in shapes])
        layers = tuple(
            draw_layer(own, weights, drawn, self.biases, dtype)
            for own, weights, drawn in zip(keys, shapes, self._rules(shape), strict=True)
        )
        function = function_of(self.activation)
        return CNNNetwork(layers, function, shape, self.outputs, stride, self.padding, self.pooling)

    def learning_rates(self, point: tuple[int, ...], optimizer: str = "sgd") -> CNNNetwork:
        """The factor of the learning rate of each trained leaf, as in `MLP.learning_rates`."""
        shape = self._directions(point)[0]
        network = jax.eval_shape(lambda: self.init(jr.key(0), shape))
        network = jax.tree.map(lambda leaf: jnp.zeros((), leaf.dtype), network)
        return rates_of(self._rules(shape), network, optimizer)

    def kernel(self, get: Kind) -> AbstractKernel:
        """The exact kernel of the infinitely wide network; `tsjax.kernels.of(self, get)` documents it."""
        weight_std, bias_std = concrete("CNN", weight_std=self.weight_std, bias_std=self.bias_std)
        if self.parameterisation == "mup":
            raise ValueError(NO_KERNEL)
        settings = (weight_std**2, bias_std, self.parameterisation == "standard")
        convolutions = [Conv(count, self.filter, self.stride, self.padding, *settings) for count in self.channels]
        layers = (*convolutions, Pool(self.pooling), Dense(self.outputs or 1, *settings))
        return StaxKernel(get, layers, phi_of(self.activation))

    def _directions(self, point: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The shape of a point, and the sides and strides of the filters in each direction."""
        shape = point_shape("CNN", point)
        directions = len(shape) - 1
        if not 1 <= directions <= 3:
            raise ValueError(
                f"CNN: a point has one to three directions and an axis of channels, such as (28, 28, 1); got {shape}."
            )
        sizes = []
        for name, size in (("filter", self.filter), ("stride", self.stride)):
            sizes.append((size,) * directions if isinstance(size, int) else size)
            if len(sizes[-1]) != directions:
                raise ValueError(
                    f"CNN: {name}={size} is for {len(sizes[-1])} directions, the point {shape} has {directions}."
                )
        return shape, *sizes

    def _shapes(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shapes of the weights, (neurons, *fan-in)."""
        _, sides, strides = self._directions(shape)
        positions, before, shapes = shape[:-1], shape[-1], []
        for count in self.channels:
            shapes.append((count, *sides, before))
            room = (
                positions
                if self.padding != "VALID"
                else tuple(p - s + 1 for p, s in zip(positions, sides, strict=True))
            )
            if min(room) < 1:
                raise ValueError(
                    f"CNN: filters of {sides} do not fit into {positions} positions, to which earlier layers reduce points "
                    f"{shape}. Use padding='SAME', or fewer or smaller convolutions."
                )
            positions, before = tuple(-(-p // s) for p, s in zip(room, strides, strict=True)), count
        features = before if self.pooling == "average" else before * int(np.prod(positions))
        return [*shapes, (self.outputs or 1, features)]

    def _rules(self, shape: tuple[int, ...]) -> list[Rule]:
        shapes = self._shapes(shape)
        settings = Settings(self.parameterisation, self.weight_std, self.bias_std, self.biases)
        fan_in: Callable[[tuple[int, ...]], Any] = lambda weights: int(np.prod(weights[1:]))
        return [
            rule(settings, place_of(index, len(shapes)), fan_in(weights), weights[0])
            for index, weights in enumerate(shapes)
        ]
