"""The exact kernels of infinitely wide networks, from their descriptions."""

from typing import Any, Protocol, runtime_checkable

from .base import AbstractKernel
from .stax import Kind


@runtime_checkable
class HasKernel(Protocol):
    """A description of a network that returns the kernels of its infinitely wide limit."""

    def kernel(self, get: Kind) -> AbstractKernel:
        """The neural tangent kernel (`"ntk"`), or the covariance of the values of random networks (`"nngp"`)."""
        ...


def of(network: Any, get: str = "ntk") -> AbstractKernel:
    """The kernel of the infinitely wide limit of `network`. `"ntk"` is its neural tangent kernel, which describes gradient
    descent on a network whose features barely move (Jacot et al. 2018, arXiv:1806.07572). `"nngp"` is the covariance of the
    values of random networks (Lee et al. 2018, arXiv:1711.00165). With several outputs each output has this kernel, and the
    outputs are independent of each other.

    The kernels of `tsjax.MLP` and `tsjax.CNN` are computed by neural-tangents from their weight_std, bias_std and activation:

    - `parameterisation="ntk"`: both kernels, which do not depend on the widths.
    - `"standard"`: the same covariance. The tangent kernel grows with the widths, so it is taken at the network's own widths,
      by the formula in the module docstring of `tsjax.kernels.stax`.
    - `"mup"`: no kernel. The features of such a network move however wide it is, so no fixed kernel describes it.

    `network` can be any other object with a method `kernel(get)` that returns an `AbstractKernel`.

    **Raises:** ValueError for an unknown `get`, for an object without such a method, for a network in muP, and for an
    activation whose expectations neural-tangents does not have in closed form. ImportError, when the kernel is first called, if
    neural-tangents is needed and is not installed (it is not needed for fully connected relu networks in the NTK
    parameterisation without biases, or with weight_std = sqrt(2)).

    >>> mlp = ts.MLP(widths=(64,), weight_std=1.0)
    >>> x = jnp.eye(2)
    >>> print(ts.kernels.of(mlp, "ntk")(x).round(4))  # that of ntk(), over d = 2
    [[0.5    0.0796]
     [0.0796 0.5   ]]
    """
    if get not in ("ntk", "nngp"):
        raise ValueError(f"a network has the kernels 'ntk' and 'nngp', got {get!r}.")
    if not isinstance(network, HasKernel) or isinstance(network, type):
        raise ValueError(
            f"the kernel of an infinitely wide network is made from its description, such as ts.MLP(...) or ts.CNN(...); got "
            f"{type(network).__name__}. For a network with given weights see ts.kernels.EmpiricalNTK(network)."
        )
    return network.kernel(get)
