r"""Tangent kernels of finite networks, and how far they move.

With k outputs f_1, ..., f_k and P parameters theta, the tangent kernel of one pair of points is a matrix (k, k),

    Theta(x, z)_{ab} = <grad_theta f_a(x), grad_theta f_b(z)>

(Jacot et al. 2018, arXiv:1806.07572, equation 6). The kernel k(x, z) in this module is the mean of its diagonal, tr Theta / k,
which neural-tangents computes too (`trace_axes=(-1,)`). Each output of an infinitely wide network has this kernel, so
`EmpiricalNTK(network)` tends to `tsjax.kernels.of(description, "ntk")` for any number of outputs.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..compilation import compiled
from .base import AbstractKernel
from .features import AbstractFeatures

# The largest number of entries of the gradients of one block of points. The rows and the columns of a matrix have one block
# each.
_NUMBERS = 2**23


def _call(network: Any, x: Array) -> Array:
    return network(x)


class EmpiricalNTK(AbstractFeatures):
    """The tangent kernel of a finite network: k(x, z) = <grad f(x), grad f(z)>, with gradients in the P parameters. For several
    outputs it is the mean of this over the outputs (module docstring); `full` gives all pairs of outputs.

    Use `EmpiricalNTK(network)` for a network that is itself an `eqx.Module`, called with one point, and
    `EmpiricalNTK(function, parameters)` for other networks.

    **Arguments:**

    - `function`: f(parameters, x) -> a number or (k,), for one point x; or the network.
    - `parameters`: any pytree with floating-point arrays; other leaves are held fixed.
    - `block`: the number of points whose gradients are held at once; None takes as many as fit into 2^23 numbers. The memory is
      2 block k P numbers and the matrix; the time is that of n1 n2 k P multiplications and of n1 n2 / block gradients. The
      values do not depend on it.

    `features(x)` are the gradients of all points, divided by sqrt(k), (n, k P). A `function` is compared by identity: define it
    once, or every call compiles again.

    **Raises:** ValueError for a network without floating-point arrays, for a block below 1, and for a function whose value has
    more than one axis.

    >>> linear = ts.kernels.EmpiricalNTK(lambda w, x: w @ x, jnp.ones(2))
    >>> print(linear(jnp.array([[1.0, 2.0]])))  # the gradient is x
    [[5.]]
    """

    function: Callable[[Any, Array], Array] = eqx.field(static=True)
    parameters: Any
    block: int | None = eqx.field(static=True)

    def __init__(self, function: Any, parameters: Any = None, block: int | None = None):
        if not callable(function):
            raise ValueError(
                f"EmpiricalNTK takes a network that maps one point to its output, or a function f(parameters, x) and its "
                f"parameters; got {type(function).__name__}."
            )
        if block is not None and block < 1:
            raise ValueError(f"a block has at least one point, got block={block}.")
        own: Any = _call if parameters is None else function
        self.function, self.parameters = own, function if parameters is None else parameters
        self.block = block
        if not jax.tree.leaves(eqx.filter(self.parameters, eqx.is_inexact_array)):
            raise ValueError(
                "a tangent kernel is made of gradients in floating-point arrays, and there is none among the parameters. For "
                "a function of parameters use EmpiricalNTK(function, parameters)."
            )

    @property
    def point_ndim(self) -> None:
        return None

    def features(self, x: Float[Array, "n *point"]) -> Float[Array, "n p"]:
        jacobian, outputs = _jacobian(self, x)
        rows = [leaf.reshape(x.shape[0], -1) for leaf in jacobian]
        features = jnp.concatenate(rows, axis=1).astype(x.dtype)
        return features if outputs == 1 else features / outputs**0.5

    def matrix(self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"]) -> Float[Array, "n1 n2"]:
        return _matrix(self, x1, None if x2 is x1 else x2, False)

    def full(
        self, x1: Float[Array, "n1 *point"], x2: Float[Array, "n2 *point"] | None = None
    ) -> Float[Array, "n1 n2 k k"]:
        """<grad f_a(x), grad f_b(z)> for all pairs of points and all pairs of outputs a, b; k = 1 for one output. x2 defaults
        to x1."""
        return _matrix(self, x1, x2, True)

    def diagonal(self, x: Float[Array, "n *point"]) -> Float[Array, " n"]:
        return _diagonal(self, x)


def _outputs(kernel: EmpiricalNTK, x: Array) -> int:
    shape = eqx.filter_eval_shape(kernel.function, kernel.parameters, x[0]).shape
    if len(shape) > 1:
        raise ValueError(f"a network maps one point to a number or to a row of outputs (k,); this one gives {shape}.")
    return shape[0] if shape else 1


def _jacobian(kernel: EmpiricalNTK, x: Array) -> tuple[list[Array], int]:
    """The gradients with respect to each leaf of the parameters, (n, k, size of the leaf), and k."""
    outputs = _outputs(kernel, x)
    moving, fixed = eqx.partition(kernel.parameters, eqx.is_inexact_array)
    value = lambda moving, point: jnp.reshape(kernel.function(eqx.combine(moving, fixed), point), (outputs,))
    jacobian = jax.vmap(jax.jacrev(value), (None, 0))(moving, x)
    return [leaf.reshape(x.shape[0], outputs, -1) for leaf in jax.tree.leaves(jacobian)], outputs


def _block(kernel: EmpiricalNTK, x: Array) -> int:
    if kernel.block is not None:
        return min(kernel.block, x.shape[0])
    leaves = jax.tree.leaves(eqx.filter(kernel.parameters, eqx.is_inexact_array))
    size = _outputs(kernel, x) * sum(leaf.size for leaf in leaves)
    return max(1, min(_NUMBERS // size, x.shape[0]))


def _rows_in_blocks(x: Array, size: int) -> Array:
    """x in blocks of `size` rows. Copies of the last row fill the last block."""
    padding = ((0, -x.shape[0] % size), *[(0, 0)] * (x.ndim - 1))
    return jnp.pad(x, padding, mode="edge").reshape(-1, size, *x.shape[1:])


# This is compiled even when called eagerly; otherwise the gradients of a block would be held leaf by leaf and copied.
@compiled
def _matrix(kernel: EmpiricalNTK, x1: Array, x2: Array | None, full: bool) -> Array:
    def contract(left: list[Array], right: list[Array]) -> Array:
        pattern = "iap,jbp->ijab" if full else "iap,jap->ij"
        outputs = 1 if full else left[0].shape[1]
        pairs = zip(left, right, strict=True)
        return sum(jnp.einsum(pattern, a, b, precision="highest") for a, b in pairs) / jnp.asarray(
            outputs, left[0].dtype
        )

    right = x1 if x2 is None else x2
    dtype = jnp.result_type(x1, right)
    rows, columns = _block(kernel, x1), _block(kernel, right)
    if rows == x1.shape[0] and columns == right.shape[0]:
        left = _jacobian(kernel, x1)[0]
        return contract(left, left if x2 is None else _jacobian(kernel, right)[0]).astype(dtype)

    def row(block: Array) -> Array:
        left = _jacobian(kernel, block)[0]
        tiles = jax.lax.map(lambda part: contract(left, _jacobian(kernel, part)[0]), _rows_in_blocks(right, columns))
        return jnp.concatenate(list(tiles), axis=1)

    tiles = jax.lax.map(row, _rows_in_blocks(x1, rows))
    return tiles.reshape(-1, *tiles.shape[2:])[: x1.shape[0], : right.shape[0]].astype(dtype)


@compiled
def _diagonal(kernel: EmpiricalNTK, x: Array) -> Array:
    def squares(block: Array) -> Array:
        jacobian, outputs = _jacobian(kernel, block)
        return sum(jnp.sum(leaf**2, axis=(1, 2)) for leaf in jacobian) / jnp.asarray(outputs, jacobian[0].dtype)

    values = jax.lax.map(squares, _rows_in_blocks(x, _block(kernel, x)))
    return values.reshape(-1)[: x.shape[0]].astype(x.dtype)


def change(before: Any, after: Any, x: Float[Array, "n *point"], full: bool = False) -> Float[Array, ""]:
    r"""How far the tangent kernel of a network has moved, relative to what it was:

        |K_after - K_before|_F / |K_before|_F,    K = EmpiricalNTK(network)(x).

    A value of 0 means lazy training, in which the network equals its linearisation at the start (Lee et al. 2019,
    arXiv:1902.06720, figure 1: in the NTK parameterisation the change falls with the width). A value of order 1 means feature
    learning.

    **Arguments:**

    - `before`, `after`: two networks of the same structure, `eqx.Module`s called with one point; or any two kernels. Kernels
      can be `EmpiricalNTK(f, parameters)` for a function f(parameters, x), or `kernels.of(mlp, "ntk")` for the distance of a
      network's kernel from that of the infinitely wide network.
    - `x`: the points (n, *point) at which the kernels are compared.
    - `full`: whether K is `EmpiricalNTK.full`, the matrix (n k, n k) of all pairs of points and of outputs, and not the mean
      over outputs.

    The result is NaN for networks that are not finite, and if K_before = 0. The function is pure, so `jax.jit` and `jax.vmap`
    apply.

    **Raises:** ValueError for networks of different structure, for a network beside a kernel, and for `full` with kernels other
    than `EmpiricalNTK`.

    >>> import equinox as eqx
    >>> net = ts.MLP((64,)).init(jax.random.key(0), 2)
    >>> doubled = jax.tree.map(lambda w: 2.0 * w if eqx.is_inexact_array(w) else w, net)
    >>> print(ts.kernels.change(net, doubled, jnp.eye(2)).round(6))  # gradients of a product of two layers double
    3.0
    """
    if isinstance(before, AbstractKernel) != isinstance(after, AbstractKernel):
        raise ValueError(
            f"change compares two networks or two kernels, got {type(before).__name__} and {type(after).__name__}. A network's "
            "kernel is EmpiricalNTK(network)."
        )
    if not isinstance(before, AbstractKernel):
        shapes = [
            (jax.tree.structure(part), [leaf.shape for leaf in jax.tree.leaves(part)])
            for part in (eqx.filter(network, eqx.is_array) for network in (before, after))
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "change compares two networks of one structure, such as one before and after training; these differ in their "
                "layers, sizes or activations. Compare kernels instead: change(EmpiricalNTK(a), EmpiricalNTK(b), x)."
            )
        before, after = EmpiricalNTK(before), EmpiricalNTK(after)
    if not full:
        first, second = before(x), after(x)
    elif isinstance(before, EmpiricalNTK) and isinstance(after, EmpiricalNTK):
        first, second = before.full(x), after.full(x)
    else:
        raise ValueError(
            "full compares all pairs of outputs, which networks and EmpiricalNTK have, but other kernels do not."
        )
    return jnp.linalg.norm(second - first) / jnp.linalg.norm(first)
