"""A Keras model of the user's own, out of a file that Keras saved.

    keras.Model(inputs, keras.layers.Dense(1)(x)).save("credit.keras")

It reads a row of the task's inputs and ends in logits, as all models here do. Its weights are the
first weights of the run, so one that was trained before is trained on.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.errors import DataError, UsageError

if TYPE_CHECKING:
    import keras

SUFFIX = ".keras"
LARGEST = 1 << 30
"""Bytes of a file."""
ACTIVATIONS = ("softmax", "sigmoid", "log_softmax", "log_sigmoid", "hard_sigmoid")
"""Of a model that gives probabilities."""


@dataclass(frozen=True)
class OwnModel:
    """A file as it was read, so that any process can build the model anew, on any machine.

    name: of the file, for messages. data: its bytes.
    """

    name: str
    data: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> OwnModel:
        """Raises UsageError where there is no such file, DataError where it cannot be a model."""
        try:
            if path.stat().st_size > LARGEST:
                raise DataError(f"{path}: is larger than a model of {LARGEST >> 30} GiB")
            return cls(path.name, path.read_bytes())
        except FileNotFoundError:
            raise UsageError(
                f"{path}: there is no such model file: model.save({path.name!r}) writes one"
            ) from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None

    def __call__(self, shape: tuple[int, ...], outputs: int) -> keras.Model:
        """The model, with the weights that it was saved with. shape: of a row of inputs. Raises
        DataError where the file holds no model, UsageError for one that does not fit."""
        import keras

        with tempfile.TemporaryDirectory(prefix="fedsys-") as folder:
            path = Path(folder) / f"model{SUFFIX}"
            path.write_bytes(self.data)
            try:
                model = keras.models.load_model(path, compile=False)
            except Exception as error:
                said = str(error).strip().replace(str(path), self.name) or type(error).__name__
                reason = said.splitlines()[0].partition(". ")[0]
                raise DataError(
                    f"{self.name}: holds no model that Keras can build without code of its own: "
                    f"{reason}"
                ) from None
        self._check(model, shape, outputs)
        return model

    def _check(self, model: keras.Model, shape: tuple[int, ...], outputs: int) -> None:
        if not model.built or getattr(model, "inputs", None) is None:
            raise UsageError(f"{self.name}: has no inputs yet: begin it with keras.Input({shape})")
        takes, gives = _shapes(model.inputs), _shapes(model.outputs)
        if takes != [shape]:
            raise UsageError(
                f"{self.name}: takes {_said(takes)}, and the rows here are {_said([shape])}"
            )
        if gives != [(outputs,)]:
            raise UsageError(
                f"{self.name}: gives {_said(gives)}, and {_said([(outputs,)])} is needed here: a "
                "logit for each class, or one for a yes or no"
            )
        dtype = model.inputs[0].dtype
        if dtype != "float32":
            raise UsageError(f"{self.name}: reads {dtype}, and the rows here are float32")
        if not all(np.isfinite(weight).all() for weight in model.get_weights()):
            raise DataError(f"{self.name}: holds weights that are NaN or infinite")
        last = _last(model)
        name = getattr(getattr(last, "activation", last), "__name__", type(last).__name__).lower()
        if name in ACTIVATIONS:
            raise UsageError(
                f"{self.name}: ends in {name}: leave it out, as the loss is computed from logits"
            )


def _last(model: keras.Model) -> Any:
    """What gives a model's first output, in a model within the model, too."""
    import keras

    last = model.outputs[0]._keras_history.operation
    return _last(last) if isinstance(last, keras.Model) else last


def _shapes(tensors: list[keras.KerasTensor]) -> list[tuple[int | None, ...]]:
    return [tuple(tensor.shape[1:]) for tensor in tensors]


def _said(shapes: list[tuple[int | None, ...]]) -> str:
    return " and ".join(str(list(shape)) for shape in shapes) or "nothing"
