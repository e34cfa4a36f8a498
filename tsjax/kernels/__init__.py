"""Kernels: `k(x1, x2) -> (n1, n2)`. neural-tangents is imported only when `ntk` or `nngp` is first evaluated."""

from .arccos import ArcCosine as ArcCosine
from .arccos import ArcCosineNNGP as ArcCosineNNGP
from .arccos import ArcCosineNTK as ArcCosineNTK
from .base import AbstractKernel as AbstractKernel
from .base import AbstractPairKernel as AbstractPairKernel
from .radial import RBF as RBF
from .radial import Laplace as Laplace
from .stax import nngp as nngp
from .stax import ntk as ntk
from .zonal import ZonalSpectrum as ZonalSpectrum
from .zonal import gegenbauer as gegenbauer
