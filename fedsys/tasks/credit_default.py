"""Credit default: 30,000 credit-card clients of a Taiwanese bank (Yeh and Lien 2009; UCI)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fedsys.errors import DataError, UsageError, nearest
from fedsys.task import Examples, Task
from fedsys.tasks import files, frames, inputs, models, splits

if TYPE_CHECKING:
    import keras

_FILE = "UCI_Credit_Card.csv"
_LABEL = "default.payment.next.month"
_COLUMNS = (
    *("LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE"),
    *("PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"),  # there is no PAY_1 in the source
    *(f"BILL_AMT{month}" for month in range(1, 7)),
    *(f"PAY_AMT{month}" for month in range(1, 7)),
)
_MODELS: dict[str, Callable[[], keras.Model]] = {
    "mlp": partial(models.mlp, (len(_COLUMNS),), 1, hidden=(64, 32)),
    "logistic": partial(models.logistic, (len(_COLUMNS),)),
}
_REMEDY = f"pass --data FILE, {_FILE}, or the folder that holds it"


@dataclass(frozen=True)
class CreditDefault:
    """Who will default next month: 24,000 training and 6,000 test rows, a fixed stratified split.

    data: `UCI_Credit_Card.csv`, the folder that holds it, or a web address of either.
    model: 'mlp' (23 - 64 - 32 - 1) or 'logistic'.
    client: a column, such as 'EDUCATION', whose values are the natural owners of the rows. It stays
    an input, so that the model is the same under every partition.
    Inputs are the 23 columns, codes among them, standardised by the training rows, float32.
    """

    data: str | None = None
    model: str = "mlp"
    client: str | None = None

    def __post_init__(self) -> None:
        models.check_model(self.model, _MODELS, "credit-default")
        if self.client is not None and self.client not in _COLUMNS:
            raise UsageError(
                f"task.client: unknown column {self.client!r} of task 'credit-default'; "
                f"{nearest(self.client, _COLUMNS)}"
            )

    def load(self) -> Task:
        """Reads the file. Raises DataError when it is missing, damaged or of another kind."""
        data = files.given(self.data, "credit-default", f"FILE, {_FILE} of UCI, or its folder")
        frame = frames.read_frame(_file(data), _REMEDY)
        values = frames.number_columns(frame, (*_COLUMNS, _LABEL), "task.data")
        labels = values[:, -1].astype(np.int64)
        if not np.isin(values[:, -1], (0, 1)).all():
            raise DataError(
                f"task.data: column {_LABEL!r} holds more than 0 and 1 ({frame.source})"
            )
        train, test = splits.stratified(labels, 0.2)
        columns = dict(zip(_COLUMNS, values.T, strict=False))  # all but the label
        prepared = inputs.learn(columns, train)
        every = Examples(inputs.apply(columns, prepared), labels)
        client = None if self.client is None else columns[self.client]
        owners, mine, client_test = splits.owned(every, client, train, test)
        return Task(
            name="credit-default",
            model=_MODELS[self.model],
            train=mine,
            test=splits.take(every, test),
            objective="binary",
            client_test=client_test,
            classes=("paid", "default"),
            owners=owners,
            prepared=dict(prepared),
        )


def _file(data: str) -> str:
    """The file, where `data` is it or its folder."""
    if files.is_address(data):
        return data if data.endswith(".csv") else files.join(data, _FILE)
    if files.is_folder(data, "task.data", _REMEDY):
        return files.join(data, _FILE)
    return data
