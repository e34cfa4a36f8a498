"""Descriptions of networks. `init(key, point)` draws a network, and `tsjax.kernels.of` gives its exact kernels."""

from .cnn import CNN as CNN
from .mlp import MLP as MLP
