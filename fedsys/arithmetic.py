"""How much a model computes: multiply-accumulates a row, from its layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def multiply_accumulates(model: keras.Model) -> int:
    """Multiply-accumulates of a forward pass of one row.

    A kernel is applied once for each output position of its layer. Layers whose output shape is
    not known count as applied once.
    """
    return sum(_kernel(layer) * _positions(layer) for layer in model._flatten_layers())


def _kernel(layer: Any) -> int:
    own = layer._trainable_variables
    return sum(int(np.prod(v.shape)) for v in own if len(v.shape) > 1)


def _positions(layer: Any) -> int:
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):
        return 1
    return int(np.prod([size or 1 for size in shape[1:-1]]))
