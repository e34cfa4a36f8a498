"""What several studies are compared with: ReLU networks in NumPy."""

import numpy as np

Layers = list[tuple[np.ndarray, np.ndarray]]
"""The weights (outputs, inputs) and biases (outputs,) of each layer."""


def forward(theta: Layers, x: np.ndarray) -> list[np.ndarray]:
    """What enters each layer of a ReLU network, x (n, d) first, and its outputs."""
    layers = [x]
    for i, (w, b) in enumerate(theta):
        z = layers[-1] @ w.T + b
        layers.append(np.maximum(z, 0.0) if i < len(theta) - 1 else z)
    return layers


def layers_of(grade) -> Layers:
    """Those of the network of a grade (`tsjax.studies.grades`), in the order of the forward pass, as float64."""
    layers = [layer for part in (*grade.parts, grade.readout) for layer in part.layers]
    return [(np.asarray(layer.weight, float), np.asarray(layer.bias, float)) for layer in layers]
