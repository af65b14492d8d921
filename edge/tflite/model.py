"""What a .tflite file says, as values: tensors, operators, and nothing about how they are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Quantization:
    """real = scale * (stored - zero_point).

    scale: [1] or [channels] float32, above zero. zero_point: the same length, int64.
    axis: the dimension that channels lie along, where there are several.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0

    @property
    def per_channel(self) -> bool:
        """Whether each channel has a scale of its own."""
        return len(self.scale) > 1


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a model.

    index: its number in the file. shape: of known sizes only (static).
    data: the constant's values in `shape`, read-only; None for what is computed.
    variable: whether it keeps its values from one inference to the next, from zero on.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    quantization: Quantization | None = None
    data: np.ndarray | None = None
    variable: bool = False

    @property
    def constant(self) -> bool:
        """Whether its values lie in the file."""
        return self.data is not None

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bytes(self) -> int:
        """Room that it takes."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class Operator:
    """A step of a model.

    index: its place in the order of execution. code: as TensorFlow Lite names it ("CONV_2D");
    a custom operator's own name.
    inputs, outputs: numbers of tensors; -1 for an optional input that is absent.
    options: its settings by the names of the TensorFlow Lite schema (`stride_w`, `padding`:
        "SAME" or "VALID", `fused_activation_function`: "NONE", "RELU", ...), defaults filled in.
    """

    index: int
    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    custom: bool = False


@dataclass(frozen=True, eq=False)
class Model:
    """A .tflite file of one graph.

    inputs, outputs: numbers of tensors. metadata: name -> bytes that others left in the file.
    bytes: length of the file.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    description: str = ""
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    bytes: int = 0
