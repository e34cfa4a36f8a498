# The public names, flat. They load on first use, so that `import tsjax` and `tsjax --help` stay instant.
from . import kernels as kernels
from .estimators.base import AbstractEstimator as AbstractEstimator
from .estimators.base import AbstractFit as AbstractFit
from .estimators.base import Status as Status
from .network import TwoLayer as TwoLayer
from .problem import Cube as Cube
from .problem import Dataset as Dataset
from .problem import Gaussian as Gaussian
from .problem import Problem as Problem
from .problem import ReLUTeacher as ReLUTeacher
from .problem import Sphere as Sphere
