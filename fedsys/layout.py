"""A model's weights as one vector, and the names, shapes and places of its parts.

Strategies, sums, checkpoints and the wire all carry vectors; only the compiled training cuts one
into tensors. The vector holds the trainable weights, then the buffers: floating variables that are
not trainable, such as the moving averages of batch normalisation. Integer variables (counters,
seeds of dropout) are not learned and not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.errors import TrainingError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Layout:
    """Where each variable of a model lies in its weight vector.

    names: unique and the same for every build of the model: position, then the variable's name.
    shapes: of the tensors, in order.
    trainable: how many of the tensors come first as trainable.
    dtype: of the vector.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    trainable: int
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, model: keras.Model) -> Layout:
        """The layout of a built Keras model."""
        variables = list(model.trainable_variables) + buffers(model)
        dtypes = {np.dtype(variable.dtype) for variable in model.trainable_variables}
        if len(dtypes) != 1:
            found = ", ".join(sorted(str(dtype) for dtype in dtypes)) or "none"
            raise TrainingError(
                f"the model's trainable weights must be of one floating type, found {found}"
            )
        return cls(
            names=tuple(f"{i:03d}.{variable.name}" for i, variable in enumerate(variables)),
            shapes=tuple(tuple(variable.shape) for variable in variables),
            trainable=len(model.trainable_variables),
            dtype=dtypes.pop(),
        )

    @property
    def sizes(self) -> list[int]:
        """Numbers in each tensor."""
        return [int(np.prod(shape)) for shape in self.shapes]

    @property
    def parameters(self) -> int:
        """Length of the trainable part of the vector."""
        return sum(self.sizes[: self.trainable])

    @property
    def length(self) -> int:
        """Length of the whole vector."""
        return sum(self.sizes)

    def flatten(self, tensors: Sequence[np.ndarray]) -> np.ndarray:
        """The tensors, in order, as one vector."""
        whole = np.concatenate([np.ravel(tensor) for tensor in tensors])
        return whole.astype(self.dtype, copy=False)

    def split(self, vector: np.ndarray) -> list[np.ndarray]:
        """The tensors that the vector holds, as views of it."""
        cuts = np.cumsum(self.sizes)[:-1]
        parts = np.split(vector, cuts)
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def named(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """The tensors by name: the form in which an update travels and is admitted."""
        return dict(zip(self.names, self.split(vector), strict=True))

    def gather(self, named: Mapping[str, np.ndarray]) -> np.ndarray:
        """The vector of tensors by name; the inverse of `named`."""
        return self.flatten([named[name] for name in self.names])


def buffers(model: keras.Model) -> list[Any]:
    """The floating variables of a model that are not trainable."""
    return [
        v for v in model.non_trainable_variables if np.issubdtype(np.dtype(v.dtype), np.floating)
    ]


def read_weights(model: keras.Model) -> np.ndarray:
    """The model's weights as the vector of its layout."""
    variables = list(model.trainable_variables) + buffers(model)
    return Layout.of(model).flatten([np.asarray(variable) for variable in variables])


def write_weights(model: keras.Model, vector: np.ndarray) -> None:
    """Sets the model's weights from the vector of its layout."""
    variables = list(model.trainable_variables) + buffers(model)
    for variable, tensor in zip(variables, Layout.of(model).split(vector), strict=True):
        variable.assign(tensor)
