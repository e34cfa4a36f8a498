"""Descriptions of networks: `init(key, point)` draws one, `tsjax.kernels.of` has its exact kernels."""

from .cnn import CNN as CNN
from .mlp import MLP as MLP
