"""Two-layer ReLU networks: parameters, forward pass, and the homogeneous rescaling between their layers.

Inside a training loop the samples stand on the *last* axis, x_t (d, n): vectorised over students that layout is several
times faster on a CPU, since each product is one matrix product with the long axis contiguous.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class TwoLayer(eqx.Module):
    """f(x) = sum_j a_j relu(<w_j, x>): output weights `a` (m,), neurons `w` (m, d), no bias."""

    a: Float[Array, "*batch m"]
    w: Float[Array, "*batch m d"]

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, ""]:
        """The value at one point; `jax.vmap` it for many."""
        return self.a @ jax.nn.relu(self.w @ x)

    def samples_last(self, x_t: Float[Array, "d n"]) -> Float[Array, " n"]:
        """The values at the n columns of x_t."""
        return self.a @ jax.nn.relu(self.w @ x_t)


def absorb_output_weights(net: TwoLayer) -> TwoLayer:
    """The same function with unit output weights: a_j <- sign(a_j), w_j <- |a_j| w_j (relu is homogeneous).

    This is the switch between the two phases of Algorithm 1 of arXiv:2205.14818.
    """
    # A neuron with a_j = 0 is dead either way; sign 1 keeps the output weights in {-1, +1}.
    sign = jnp.where(net.a < 0, -1.0, 1.0).astype(net.a.dtype)
    return TwoLayer(a=sign, w=jnp.abs(net.a)[..., None] * net.w)
