"""From columns to model inputs, and the record of how, so that a server can do the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

Columns = Mapping[str, np.ndarray]
"""Name -> [rows], float64 with NaN where missing, or text with None where missing."""


class Prepared(TypedDict):
    """How columns become inputs.

    columns: the names of the columns of numbers; each becomes (value - mean) / scale, and zero
    where the value is missing. categories: name -> the words of a text column; each word becomes
    one input, 1 where the cell holds it and 0 elsewhere. The inputs are the numbers, then the
    words, both in this order.
    """

    columns: list[str]
    mean: list[float]
    scale: list[float]
    categories: dict[str, list[str]]


def learn(columns: Columns, train: np.ndarray) -> Prepared:
    """Means, scales and words from the training rows alone, train: [rows] row numbers.

    The scale is the population standard deviation; 1 for a column that does not vary.
    """
    numbers = {name: values[train] for name, values in columns.items() if values.dtype != object}
    means, scales = [], []
    for values in numbers.values():
        there = values[~np.isnan(values)]
        means.append(float(there.mean()) if len(there) else 0.0)
        scale = float(there.std()) if len(there) else 0.0
        # Rounding leaves a constant column a deviation of about 1e-17 of its size, not zero.
        scales.append(scale if scale > 1e-12 * max(1.0, abs(means[-1])) else 1.0)
    return Prepared(
        columns=list(numbers),
        mean=means,
        scale=scales,
        categories={
            name: sorted({value for value in values[train] if value is not None})
            for name, values in columns.items()
            if values.dtype == object
        },
    )


def apply(columns: Columns, prepared: Prepared) -> np.ndarray:
    """[rows, inputs] float32, by what `learn` recorded."""
    mean, scale = np.array(prepared["mean"]), np.array(prepared["scale"])
    parts = []
    if prepared["columns"]:
        numbers = np.stack([columns[name] for name in prepared["columns"]], axis=1)
        parts.append(np.where(np.isnan(numbers), 0.0, (numbers - mean) / scale))
    for name, words in prepared["categories"].items():
        parts.append(_one_hot(columns[name], words))
    return np.concatenate(parts, axis=1).astype(np.float32)


def _one_hot(values: np.ndarray, words: Sequence[str]) -> np.ndarray:
    return (values[:, None] == np.array(words, dtype=object)).astype(np.float64)
