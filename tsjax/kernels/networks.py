"""The exact kernels of a network that describes itself."""

from typing import Any, Protocol, runtime_checkable

from .base import AbstractKernel
from .stax import Kind


@runtime_checkable
class HasKernel(Protocol):
    """A description of networks that knows the kernels of its infinitely wide limit."""

    def kernel(self, get: Kind) -> AbstractKernel:
        """The neural tangent kernel (`"ntk"`) or the covariance of the values at the start (`"nngp"`)."""
        ...


def of(network: Any, get: str = "ntk") -> AbstractKernel:
    """The kernel of `network`, infinitely wide: `"ntk"`, its neural tangent kernel, that of gradient descent on a network that
    barely moves (Jacot et al. 2018, arXiv:1806.07572); `"nngp"`, the covariance of the values of its random starts (Lee et
    al. 2018, arXiv:1711.00165). For several outputs both are those of each output, which are independent of each other.

    For `tsjax.MLP` and `tsjax.CNN` by neural-tangents, at their own weight_std, bias_std and activation:

    - `parameterisation="ntk"`: both kernels, at all widths.
    - `"standard"`: the same covariance; the tangent kernel grows with the widths, and is that at the network's own widths, in
      the limit of the module docstring of `tsjax.kernels.stax`.
    - `"mup"`: none. Its features move however wide it is, so that no fixed kernel describes it.

    Anything else with a method `kernel(get)` that returns an `AbstractKernel` does as well.

    **Raises:** ValueError for a network without such a kernel: one in muP, or an activation whose expectations
    neural-tangents has not in closed form; ImportError, when first called, if neural-tangents is needed and is not installed
    (networks of relu in the NTK parameterisation without biases, or with weight_std = sqrt(2), do without).

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
            f"the kernel of an infinitely wide network is asked of its description, such as ts.MLP(...) or ts.CNN(...); got "
            f"{type(network).__name__}. For a network of given weights see ts.kernels.EmpiricalNTK(network)."
        )
    return network.kernel(get)
