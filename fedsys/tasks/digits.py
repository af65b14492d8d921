"""Handwritten digits of 8 x 8 pixels, bundled with scikit-learn: nothing to download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedsys.task import Examples, Task
from fedsys.tasks import models, splits

if TYPE_CHECKING:
    import keras

_CLASSES = 10
_MODELS: dict[str, Callable[[], keras.Model]] = {
    "mlp": partial(models.mlp, (64,), _CLASSES, hidden=(64,)),
    "cnn": partial(models.small_cnn, (8, 8, 1), _CLASSES),
    "logistic": partial(models.logistic, (64,), _CLASSES),
}


@dataclass(frozen=True)
class Digits:
    """1,797 digits: 1,438 to train on, 359 to test on, a fixed stratified split.

    model: 'mlp' (64 - 64 - 10), 'cnn' (two small convolutions) or 'logistic'.
    Inputs are pixels divided by 16, float32: [rows, 64], or [rows, 8, 8, 1] for 'cnn'.
    Source: UCI "Optical Recognition of Handwritten Digits", Alpaydin and Kaynak 1998, test part.
    """

    model: str = "mlp"

    def __post_init__(self) -> None:
        models.check_model(self.model, _MODELS, "digits")

    def load(self) -> Task:
        """Reads the copy that scikit-learn brings along."""
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        shape = (8, 8, 1) if self.model == "cnn" else (64,)
        inputs = (pixels / 16).astype(np.float32).reshape(-1, *shape)
        labels = labels.astype(np.int64)
        train, test = splits.stratified(labels, 0.2)
        return Task(
            name="digits",
            model=_MODELS[self.model],
            train=Examples(inputs[train], labels[train]),
            test=Examples(inputs[test], labels[test]),
            classes=tuple(str(digit) for digit in range(_CLASSES)),
            prepared={"inputs": "pixels from 0 to 16, divided by 16"},
        )
