"""The networks of multi-grade learning, the settings of its studies, and the training of a grade; see `multi_grade`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from ..estimators.student import Student
from ..networks.mlp import MLP, MLPNetwork


class Grade(NamedTuple):
    """One network and its training: `blocks` of hidden layers, each (activation, widths), the largest learning rate, and the
    length in epochs. If the rate falls by epochs (`Setting.last` with a `batch`), there is one more pass. With `gain` g, all
    parameters are U(-g, g) / sqrt(fan-in) at the start."""

    blocks: tuple[tuple[str, tuple[int, ...]], ...]
    rate: float
    length: int
    gain: float = 1.0
    zero_output: bool = False


class Setting(NamedTuple):
    """A learning problem and its learners: `target(highest, x)` at equally spaced points of `interval`, including both ends.

    - `learners`: the grades of each learner. Learners other than `multi` have one grade, which costs about as much as all
      grades of `multi`.
    - `batch`: the rows in a step; all rows if None. `last`: the learning rate at the end of training, to which it falls
      exponentially; if None, it falls to 0 as a cosine.
    - `slack`: the largest factor between the errors of one grade and the next that does not count as growth.
    """

    learners: dict[str, tuple[Grade, ...]]
    target: Callable[[Any, Float[Array, " n"]], Float[Array, " n"]]
    interval: tuple[float, float]
    batch: int | None = None
    last: float | None = None
    slack: float = 1.0


WAVES = 100
"""The highest frequency of `waves`."""


def waves(highest, x: Float[Array, " n"]) -> Float[Array, " n"]:
    """sum of sin(2 pi k x + k / 2) over k = 2, 4, ..., highest, over its root mean square, sqrt(number of waves / 2)."""
    k = jnp.arange(2, WAVES + 1, 2)
    present = (k <= highest).astype(x.dtype)
    every = jnp.sin(2 * jnp.pi * k[None, :] * x[:, None] + k[None, :] / 2)
    return (every @ present / jnp.sqrt(jnp.sum(present) / 2)).astype(x.dtype)


def sine(highest, x: Float[Array, " n"]) -> Float[Array, " n"]:
    """sin(highest x)."""
    return jnp.sin(highest * x)


def spectrum(highest, x: Float[Array, " n"]) -> Float[Array, " n"]:
    """sum_j a_j sin(2 pi f_j x + j) over 20 frequencies f_j = j highest / 20, j = 1, ..., 20, with a_j = 1.05 - 0.05 j."""
    j = jnp.arange(1, 21)
    every = jnp.sin(2 * jnp.pi * j[None, :] * highest / 20 * x[:, None] + j[None, :])
    return (every @ (1.05 - 0.05 * j)).astype(x.dtype)


def _four(blocks: tuple[tuple[str, tuple[int, ...]], ...], rate: float, length: int, zero: bool) -> tuple[Grade, ...]:
    return tuple(Grade(blocks, rate, length, zero_output=zero and number > 0) for number in range(4))


_DEEP = (("relu", (64,) * 8),)
_FIRST = (("sin", (256, 256)),)
_REST = ((("relu", (128, 128, 64)),), (("relu", (64, 32, 32)),))
SETTINGS = {
    "waves": Setting(
        {
            "multi": _four((("relu", (64, 64)),), 3e-3, 1500, True),
            "single": (Grade(_DEEP, 3e-3, 1500),),
            "single_he": (Grade(_DEEP, 3e-3, 1500, gain=6**0.5),),
        },
        waves,
        (-1.0, 1.0),
    ),
    "sine": Setting(
        {
            "multi": (Grade(_FIRST, 1e-1, 20), *(Grade(b, 1e-2, e) for b, e in zip(_REST, (20, 40), strict=True))),
            "grade_1": (Grade(_FIRST, 1e-1, 42),),
            "single": (Grade((*_FIRST, ("relu", (128, 128, 64, 64, 32, 32))), 1e-3, 21),),
        },
        sine,
        (0.0, 1.0),
        batch=32,
        last=1e-4,
        slack=1.15,
    ),
    "spectrum": Setting(
        {
            "multi": _four((("relu", (256, 256)),), 1e-3, 300, False),
            "single": (Grade((("relu", (256,) * 8),), 1e-3, 300),),
        },
        spectrum,
        (0.0, 1.0),
        last=1e-4,
    ),
}


class GradeNetwork(eqx.Module):
    """x -> V h(x) + b. Each part is a block up to the input of its last activation."""

    parts: tuple[MLPNetwork, ...]
    readout: MLPNetwork

    def hidden(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        """The last hidden layer h(x), the input of the next grade."""
        for part in self.parts:
            x = part.activation(part(x))
        return x

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, "*outputs"]:
        return self.readout(self.hidden(x))


class Start(eqx.Module):
    """The initialisation of the network of a grade, with one output or a vector of `outputs`: weights and biases are U(-g, g) /
    sqrt(fan-in)."""

    grade: Grade = eqx.field(static=True)
    outputs: int | None = eqx.field(static=True, default=None)

    def init(self, key: PRNGKeyArray, point: int) -> GradeNetwork:
        parts = []
        for i, (activation, widths) in enumerate(self.grade.blocks):
            block = MLP(widths[:-1], widths[-1], activation, "standard", bias_std=1.0)
            parts.append(uniform(block, jr.fold_in(key, i), point, self.grade.gain))
            point = widths[-1]
        last = MLP((), self.outputs, parameterisation="standard", bias_std=1.0)
        readout = uniform(last, jr.fold_in(key, len(parts)), point, self.grade.gain)
        if self.grade.zero_output:
            readout = jax.tree.map(lambda leaf: 0.0 * leaf if eqx.is_inexact_array(leaf) else leaf, readout)
        return GradeNetwork(tuple(parts), readout)


def uniform(description: MLP, key: PRNGKeyArray, point: int, gain: float) -> MLPNetwork:
    """A network of this description with all parameters U(-gain, gain) / sqrt(fan-in)."""
    net = description.init(key, point, jnp.float32)
    # One draw for all leaves, since each draw takes long to compile.
    flat, unravel = ravel_pytree(eqx.filter(net, eqx.is_inexact_array))
    drawn = unravel(jr.uniform(key, flat.shape, flat.dtype, -gain, gain))
    scaled = [
        jax.tree.map(lambda leaf, fan_in=layer.weight.shape[1]: leaf / fan_in**0.5, layer) for layer in drawn.layers
    ]
    return eqx.combine(eqx.tree_at(lambda net: net.layers, drawn, tuple(scaled)), net)


def points(setting: Setting, n: int) -> Float[Array, "n 1"]:
    """n equally spaced points of the interval, including both ends."""
    return jnp.linspace(*setting.interval, n, dtype=jnp.float32)[:, None]


def student(setting: Setting, grade: Grade, n: int, effort: float) -> Student:
    """A grade with its training: Adam, with the rates of the setting."""
    length, batch, last = max(1, round(effort * grade.length)), setting.batch, setting.last
    if last is None:
        rate = optax.cosine_decay_schedule(grade.rate, length)
    else:
        # The rate falls with every step if each step uses all rows, and otherwise from one epoch to the next.
        steps = 1 if batch is None else n // batch
        rate = optax.exponential_decay(grade.rate, steps, (last / grade.rate) ** (1 / length), staircase=True)
    if batch is None:
        return Student(Start(grade), optimizer=optax.adam, learning_rate=rate, steps=length)
    return Student(Start(grade), optimizer=optax.adam, learning_rate=rate, epochs=length + 1, batch_size=batch)


def parameters(grade: Grade, inputs: int, outputs: int = 1) -> int:
    """The number of parameters that a grade trains."""
    sizes = [inputs, *(width for _, widths in grade.blocks for width in widths), outputs]
    return sum((a + 1) * b for a, b in zip(sizes[:-1], sizes[1:], strict=True))
