"""Objectives: the loss a client descends, and the metrics the world judges by.

The loss is per example and runs inside the compiled training (TensorFlow). Metrics are float64
NumPy over the model's outputs on any set of rows, so that the same few lines serve the server's
test set, one client's rows, and a chip's integer outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.errors import TrainingError, UsageError, nearest

if TYPE_CHECKING:
    import tensorflow as tf

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(labels [rows], outputs [rows, ...]) -> one value a row; a metric is the mean over rows."""


@dataclass(frozen=True)
class Objective:
    """What training minimises and what evaluation reports.

    loss: (labels [batch], outputs [batch, ...]) -> [batch], in TensorFlow operations.
    metrics: name -> NumPy function that gives one float64 a row. 'loss' is always among them.
    fits: raises TrainingError when outputs of this shape cannot be scored on these labels.
    ranks: True where outputs are scores of a positive class, so that an AUC makes sense.
    """

    name: str
    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    metrics: Mapping[str, Metric]
    fits: Callable[[tuple[int | None, ...], np.ndarray], None] = lambda shape, labels: None
    ranks: bool = False


# --- classes: integer labels, one logit a class -------------------------------------------------


def _classes_loss(labels: Any, outputs: Any) -> Any:
    import tensorflow as tf

    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(labels, tf.int32), outputs)


def _cross_entropy(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    logits = outputs.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    chosen = np.take_along_axis(logits, labels[:, None].astype(np.int64), axis=1)[:, 0]
    return np.log(np.exp(logits).sum(axis=1)) - chosen


def _classes_fit(shape: tuple[int | None, ...], labels: np.ndarray) -> None:
    _finite_integers(labels)
    classes = int(labels.max()) + 1
    if len(shape) != 2 or shape[1] is None or shape[1] < classes:
        raise TrainingError(
            f"the model's output has shape {_shown(shape)} but the labels go up to {classes - 1}: "
            f"end the model in Dense({classes}), without an activation"
        )


# --- binary: labels 0 and 1, one logit ----------------------------------------------------------


def _binary_loss(labels: Any, outputs: Any) -> Any:
    import tensorflow as tf

    logits = tf.reshape(outputs, [-1])
    return tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)


def _binary_cross_entropy(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    logits = outputs.reshape(-1).astype(np.float64)
    return np.logaddexp(0.0, logits) - labels * logits


def _binary_fit(shape: tuple[int | None, ...], labels: np.ndarray) -> None:
    _finite_integers(labels)
    if labels.max() > 1:
        raise TrainingError(
            f"a binary objective needs labels 0 and 1, found {labels.max()}: use 'classes'"
        )
    _one_output(shape)


# --- squared: real targets, one output ----------------------------------------------------------


def _squared_loss(labels: Any, outputs: Any) -> Any:
    import tensorflow as tf

    values = tf.reshape(outputs, [-1])
    return 0.5 * tf.square(values - tf.cast(labels, values.dtype))


def _half_square(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    return 0.5 * (outputs.reshape(-1).astype(np.float64) - labels) ** 2


def _one_output(shape: tuple[int | None, ...]) -> None:
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise TrainingError(
            f"the model's output has shape {_shown(shape)} but there is one target a row: "
            "end the model in Dense(1), without an activation"
        )


# --- shared -------------------------------------------------------------------------------------


def _finite_integers(labels: np.ndarray) -> None:
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise TrainingError(
            f"labels must be class numbers 0, 1, 2, ..., found {labels.dtype} "
            f"from {labels.min()} to {labels.max()}"
        )


def _shown(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("rows" if size is None else str(size) for size in shape) + ")"


_KNOWN: dict[str, Objective] = {
    "classes": Objective(
        "classes",
        _classes_loss,
        {
            "loss": _cross_entropy,
            "accuracy": lambda labels, outputs: (outputs.argmax(axis=1) == labels) * 1.0,
        },
        _classes_fit,
    ),
    "binary": Objective(
        "binary",
        _binary_loss,
        {
            "loss": _binary_cross_entropy,
            "accuracy": lambda labels, outputs: ((outputs.reshape(-1) > 0) == labels) * 1.0,
        },
        _binary_fit,
        ranks=True,
    ),
    "squared": Objective(
        "squared",
        _squared_loss,
        {"loss": _half_square},
        lambda shape, labels: _one_output(shape),
    ),
}


def objective(wanted: Objective | str) -> Objective:
    """The objective of that name, or the one given."""
    if isinstance(wanted, Objective):
        return wanted
    if wanted not in _KNOWN:
        raise UsageError(f"objective {wanted!r} is unknown; {nearest(wanted, _KNOWN)}")
    return _KNOWN[wanted]
