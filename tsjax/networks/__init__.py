"""Descriptions of networks: `init(key, point)` draws one, `tsjax.kernels.of` has its exact kernels."""

from .mlp import MLP as MLP
