"""Kernels: `k(x1, x2) -> (n1, n2)`. neural-tangents is imported only when a network kernel that needs it is first evaluated."""

from .arccos import ArcCosine as ArcCosine
from .arccos import ArcCosineNNGP as ArcCosineNNGP
from .arccos import ArcCosineNTK as ArcCosineNTK
from .base import AbstractKernel as AbstractKernel
from .base import AbstractPairKernel as AbstractPairKernel
from .base import AbstractRotationInvariantKernel as AbstractRotationInvariantKernel
from .dot_product import DotProduct as DotProduct
from .dot_product import Polynomial as Polynomial
from .empirical import EmpiricalNTK as EmpiricalNTK
from .empirical import change as change
from .features import AbstractFeatures as AbstractFeatures
from .features import FourierFeatures as FourierFeatures
from .features import Linear as Linear
from .features import ReLUFeatures as ReLUFeatures
from .networks import of as of
from .radial import RBF as RBF
from .radial import AbstractRadialKernel as AbstractRadialKernel
from .radial import Laplace as Laplace
from .radial import Matern as Matern
from .radial import RationalQuadratic as RationalQuadratic
from .spectrum import Spectrum as Spectrum
from .stax import nngp as nngp
from .stax import ntk as ntk
from .stretched import Stretched as Stretched
from .zonal import ZonalSpectrum as ZonalSpectrum
from .zonal import gegenbauer as gegenbauer
