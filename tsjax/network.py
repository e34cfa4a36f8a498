"""Two-layer networks: parameters, forward pass, rescaling between the layers, and matching of neurons.

Inside a training loop the samples are on the *last* axis, x_t (d, n). On a CPU this layout is faster when vectorised over
students, since each product is one matrix product whose long axis is contiguous.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from .activations import AbstractActivation, check_activation, relu
from .compilation import compiled

# Never TF32, the default for float32 on recent GPUs: its products keep 10 bits of mantissa, too few for a small final risk.
_FULL = jax.lax.Precision.HIGHEST


class TwoLayer(eqx.Module):
    """f(x) = sum_j a_j phi(<w_j, x>): output weights `a` (m,), neurons `w` (m, d), no bias; phi is `activation`.

    **Raises:** ValueError for an activation that is not from `tsjax.activations`.
    """

    a: Float[Array, "*batch m"]
    w: Float[Array, "*batch m d"]
    activation: AbstractActivation = eqx.field(static=True, default=relu)

    def __check_init__(self):
        check_activation(self.activation)

    # The annotation admits any shape, so that the check below, which says what to do, reports a wrong one.
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, ""]:
        """The value at one point x (d,); use `jax.vmap` for many. **Raises:** ValueError for a batch of points."""
        if jnp.shape(x) != self.w.shape[-1:]:
            raise ValueError(
                f"a network takes one point x of shape ({self.w.shape[-1]},), got {jnp.shape(x)}. For the rows of a batch: "
                "jax.vmap(network)(x)."
            )
        return jnp.dot(self.a, self.activation(jnp.dot(self.w, x, precision=_FULL)), precision=_FULL)

    def features(self, x_t: Float[Array, "d n"]) -> Float[Array, "m n"]:
        """phi(<w_j, x>) of each neuron at the n columns of x_t."""
        return self.activation(jnp.dot(self.w, x_t, precision=_FULL))

    def samples_last(self, x_t: Float[Array, "d n"]) -> Float[Array, " n"]:
        """The values at the n columns of x_t."""
        return jnp.dot(self.a, self.features(x_t), precision=_FULL)


def absorb_output_weights(net: TwoLayer) -> TwoLayer:
    """The same function with unit output weights: a_j <- sign(a_j), w_j <- |a_j|^{1/k} w_j, for phi homogeneous of degree k.

    This is the switch between the two phases of Algorithm 1 of arXiv:2205.14818 (there k = 1). A phi that is not homogeneous
    has no such rescaling: the network is returned unchanged, and a phase that trains W alone keeps its output weights.
    """
    degree = net.activation.degree
    if degree is None:
        return net
    # A neuron with a_j = 0 is dead with either sign; sign 1 keeps the output weights in {-1, +1}.
    sign = jnp.where(net.a < 0, -1.0, 1.0).astype(net.a.dtype)
    size = jnp.abs(net.a) if degree == 1 else jnp.abs(net.a) ** (1.0 / degree)
    return TwoLayer(a=sign, w=size[..., None] * net.w, activation=net.activation)


class NeuronMatch(NamedTuple):
    """How close the neurons of a student are to those of a teacher; see `match_neurons`.

    - `cosine`: the cosine of each teacher neuron with its student neuron, in the teacher's order; 0 if one of them is zero, -1
      if the signs of their output weights differ.
    - `alignment`: the smallest cosine.
    - `parameter_error`: sqrt(sum_j |v_pi(j) - v*_j|^2) / |V*|_F over all pairs. Superfluous neurons increase it.
    """

    cosine: Float[Array, " m"]
    alignment: Float[Array, ""]
    parameter_error: Float[Array, ""]


# Compiled as a whole even when called eagerly; otherwise each loop of the assignment would be compiled by itself.
@compiled
def match_neurons(student: TwoLayer, teacher: TwoLayer) -> NeuronMatch:
    r"""Pairs the neurons of `student` (M, d) with those of `teacher` (m, d) so that the total cost is least, and compares them.

    A neuron a phi(<w, x>) is represented by the sign of a and a vector v: v = |a|^{1/k} w if phi is homogeneous of degree k,
    and v = (w, |a|) otherwise. The cost of a pair is |v - v*|^2 if the signs agree, and |v|^2 + |v*|^2 if they differ. The
    smaller network is filled up with zero neurons, so that each neuron has a partner. Parameters that give the same function
    count as the same neuron: w and -w for even phi, (a, w) and (-a, -w) for odd phi, and all neurons that vanish. The Hungarian
    algorithm (Kuhn 1955, `optax.assignment.hungarian_algorithm`) finds the pairs. `parameter_error` is 0 exactly if student and
    teacher have the same neurons, in any order.

    It takes one pair of networks, and works under `jax.jit` and `jax.vmap`. If the student is not finite, all fields are NaN.

    **Raises:** ValueError if the activations or input dimensions of the networks differ.

    >>> teacher = ts.TwoLayer(a=jnp.array([1.0, -1.0]), w=jnp.eye(2))
    >>> student = ts.TwoLayer(a=jnp.array([-2.0, 1.0]), w=jnp.array([[0.0, 0.5], [1.0, 0.0]]))
    >>> float(ts.match_neurons(student, teacher).parameter_error)
    0.0
    """
    if student.activation != teacher.activation:
        raise ValueError(
            "neurons can be matched only between networks with the same activation; the student has "
            f"{student.activation}, the teacher {teacher.activation}."
        )
    if student.w.shape[-1] != teacher.w.shape[-1]:
        raise ValueError(
            f"the student takes inputs of dimension {student.w.shape[-1]}, the teacher of {teacher.w.shape[-1]}."
        )
    width, m = max(student.a.shape[0], teacher.a.shape[0]), teacher.a.shape[0]
    dtype = jnp.result_type(student.w, teacher.w)
    negative, w, size = _padded_neurons(student, width, dtype)
    negative_t, w_t, size_t = _padded_neurons(teacher, width, dtype)

    def pair_cost(negative, w, size, negative_t, w_t, size_t):
        distance = jnp.sum((w - w_t) ** 2)
        if student.activation.parity == "even":
            distance = jnp.minimum(distance, jnp.sum((w + w_t) ** 2))
        far = jnp.sum(w**2) + jnp.sum(w_t**2) + size**2 + size_t**2
        return jnp.where(negative == negative_t, distance + (size - size_t) ** 2, far)

    def pair_cosine(negative, w, negative_t, w_t):
        norms = jnp.linalg.norm(w) * jnp.linalg.norm(w_t)
        cosine = jnp.dot(w, w_t, precision=_FULL) / jnp.where(norms == 0, 1.0, norms)
        if student.activation.parity == "even":
            cosine = jnp.abs(cosine)
        return jnp.where((negative == negative_t) | (norms == 0), cosine, -1.0)

    one, many = (0, 0, 0, None, None, None), (None, None, None, 0, 0, 0)
    cost = jax.vmap(jax.vmap(pair_cost, one), many)(negative, w, size, negative_t, w_t, size_t)
    # Rows are the teacher's neurons. The matrix is square, so each row is assigned, but the pairs need not come in the order of
    # the rows.
    rows, columns = optax.assignment.hungarian_algorithm(cost)
    partner = jnp.zeros(width, columns.dtype).at[rows].set(columns)
    cosine = jax.vmap(pair_cosine)(negative[partner], w[partner], negative_t, w_t)[:m]
    error = jnp.sqrt(jnp.sum(cost[jnp.arange(width), partner]) / (jnp.sum(w_t**2) + jnp.sum(size_t**2)))
    # For a diverged student no field may look like a number, not even -1 or 0.
    finite = jnp.all(jnp.isfinite(student.a)) & jnp.all(jnp.isfinite(student.w))
    return jax.tree.map(lambda v: jnp.where(finite, v, jnp.nan), NeuronMatch(cosine, jnp.min(cosine), error))


def _padded_neurons(net: TwoLayer, width: int, dtype):
    """Whether a_j < 0 (width,), w (width, d) and |a| (width,), padded to `width` neurons. Neurons that vanish and neurons that
    are added are all 0. For a homogeneous activation |a| is absorbed into w."""
    a, w = net.a.astype(dtype), net.w.astype(dtype)
    vanishes = (a == 0) | (jnp.all(w == 0, axis=1) & (net.activation(jnp.zeros((), dtype)) == 0))
    if net.activation.parity == "odd":
        w = jnp.where(a < 0, -1.0, 1.0).astype(dtype)[:, None] * w
        a = jnp.abs(a)
    negative = (a < 0) & ~vanishes
    size = jnp.abs(a)
    if net.activation.degree is not None:
        w = absorb_output_weights(TwoLayer(a=a, w=w, activation=net.activation)).w
        size = jnp.zeros_like(a)
    w, size = jnp.where(vanishes[:, None], 0.0, w), jnp.where(vanishes, 0.0, size)
    spare = width - a.shape[0]
    return jnp.pad(negative, (0, spare)), jnp.pad(w, ((0, spare), (0, 0))), jnp.pad(size, (0, spare))
