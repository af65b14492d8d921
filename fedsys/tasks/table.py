"""Any table of one's own: a CSV or Parquet file with a label column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fedsys.errors import DataError, UsageError
from fedsys.task import Examples, Task
from fedsys.tasks import frames, inputs, models, splits
from fedsys.tasks.frames import Frame

_WORDS = 32  # different words of a column that become inputs; more is a name or a number of sorts
_CLASSES = 100  # different labels that are classes; more is a quantity or a name
_REMEDY = "give the path of a CSV or Parquet file"


@dataclass(frozen=True)
class Table:
    """A CSV (commas, UTF-8, one header line) or Parquet file, split into train and test once.

    data: the file or its web address. label: the column to predict. client: the column whose values
    are the natural owners of the rows; it is no input. model: 'mlp' (64 and 32 hidden units),
    'logistic' (no hidden units), or a file of Keras's that ends in logits ('credit.keras'). test:
    the share of rows to test on, between 0 and 1.

    Inputs, float32: columns of numbers are standardised by the training rows, and a missing value
    is the training mean; a column of words (at most 32 different) becomes one input a word of the
    training rows. Labels: two different values make the objective 'binary' and 3 to 100 whole
    numbers or words 'classes', in sorted order; other numbers make it 'squared', and the target is
    standardised as well, so that a loss of 0.5 is as good as always predicting the mean.
    """

    data: str
    label: str
    client: str | None = None
    model: str = "mlp"
    test: float = 0.2

    def __post_init__(self) -> None:
        models.check_tabular(self.model, "table")
        if not 0 < self.test < 1:
            raise UsageError(f"task.test: must be between 0 and 1, got {self.test}")
        if self.label == self.client:
            raise UsageError(f"task.client: {self.client!r} is the label; name another column")

    def load(self) -> Task:
        """Reads the file. Raises DataError for what cannot be learned from, with column and row."""
        frame = frames.read_frame(self.data, _REMEDY)
        frames.check_columns(frame, [self.label], "task.label")
        client = None
        if self.client is not None:
            frames.check_columns(frame, [self.client], "task.client")
            client = frames.full_column(frame, self.client, "task.client")
        target = frames.full_column(frame, self.label, "task.label")
        objective, classes = _objective(target, self.label, frame)
        train, test = splits.stratified(target, self.test)
        if not len(train) or not len(test):
            raise DataError(
                f"task.data: {frame.source!r} has {len(frame)} rows, too few to leave "
                f"{self.test:g} of them for the test"
            )

        columns = {
            name: _usable(frames.column(frame, name), name, frame)
            for name in frame.columns
            if name not in (self.label, self.client)
        }
        if not columns:
            raise DataError(f"task.data: {frame.source!r} has no columns to predict from")
        prepared = inputs.learn(columns, train)
        labels, recorded = _labels(target, objective, classes, train)
        every = Examples(inputs.apply(columns, prepared), labels)
        owners, mine, client_test = splits.owned(every, client, train, test)
        outputs = len(classes) if objective == "classes" else 1
        return Task(
            name="table",
            model=partial(models.tabular(self.model), every.inputs.shape[1:], outputs),
            train=mine,
            test=splits.take(every, test),
            objective=objective,
            client_test=client_test,
            classes=classes,
            owners=owners,
            prepared={**prepared, "label": {"column": self.label, **recorded}},
        )


def _usable(values: np.ndarray, name: str, frame: Frame) -> np.ndarray:
    """The column as it is. Raises DataError when it is empty or holds too many words."""
    if frames.is_missing(values).all():
        raise DataError(f"column {name!r} has no values; delete it ({frame.source})")
    if values.dtype == object:
        words = {value for value in values if value is not None}
        if len(words) > _WORDS:
            raise DataError(
                f"column {name!r} holds {len(words)} different words such as {min(words)!r}, at "
                f"most {_WORDS} can become inputs; delete it or give numbers ({frame.source})"
            )
    return values


def _objective(target: np.ndarray, label: str, frame: Frame) -> tuple[str, tuple[str, ...]]:
    """The objective that fits the labels, and the names of the classes."""
    known = np.unique(target)
    if len(known) == 1:
        raise DataError(
            f"task.label: column {label!r} is {splits.shown(known[0])!r} in every row, so there is "
            f"nothing to learn; name another column ({frame.source})"
        )
    names = tuple(splits.shown(value) for value in known)
    if len(known) == 2:
        return "binary", names
    if known.dtype.kind != "f":
        if len(known) > _CLASSES:
            raise DataError(
                f"task.label: column {label!r} holds {len(known)} different words, at most "
                f"{_CLASSES} can be classes; name another column ({frame.source})"
            )
        return "classes", names
    whole = bool((known == np.round(known)).all())
    return ("classes", names) if whole and len(known) <= _CLASSES else ("squared", ())


def _labels(
    target: np.ndarray, objective: str, classes: Sequence[str], train: np.ndarray
) -> tuple[np.ndarray, dict[str, object]]:
    """Class numbers [rows] int64 or standardised targets [rows] float32, and the record of how."""
    if objective != "squared":
        numbers = np.unique(target, return_inverse=True)[1].astype(np.int64)
        return numbers, {"classes": list(classes)}
    mean, scale = float(target[train].mean()), float(target[train].std()) or 1.0
    return ((target - mean) / scale).astype(np.float32), {"mean": mean, "scale": scale}
