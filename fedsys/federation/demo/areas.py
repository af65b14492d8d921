"""Areas under the curve of several models on the same rows, and how sure one can be of them.

DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44(3): the area is a mean over pairs of a
positive and a negative row, so its variance follows from how each row fares against all of the
other kind. Models that are scored on the same rows err together, which makes their difference surer
than either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from fedsys.errors import DataError

SURE = 0.95
_WIDTH = NormalDist().inv_cdf((1 + SURE) / 2)


@dataclass(frozen=True)
class Figure:
    """A number, and how far the true one may lie from it at the level `SURE`."""

    value: float
    margin: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.margin:.3f}"


@dataclass(frozen=True, eq=False)
class Areas:
    """names: of the models. values: [models]. covariance: [models, models] of the values."""

    names: tuple[str, ...]
    values: np.ndarray
    covariance: np.ndarray

    def of(self, name: str) -> Figure:
        """The area under a model's curve."""
        at = self.names.index(name)
        return _figure(self.values[at], self.covariance[at, at])

    def difference(self, one: str, other: str) -> Figure:
        """By how much the first model's area is the larger."""
        i, j = self.names.index(one), self.names.index(other)
        covariance = self.covariance
        variance = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
        return _figure(self.values[i] - self.values[j], variance)


def areas(labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> Areas:
    """labels: [rows] 0 or 1. scores: model -> [rows], higher for those more likely to be 1.

    Raises DataError where a label has fewer than two rows.
    """
    positive = labels == 1
    if min(positive.sum(), (~positive).sum()) < 2:
        raise DataError("the test has fewer than two rows of a label; nothing can be compared")
    table = np.stack([np.asarray(each, dtype=np.float64) for each in scores.values()])
    # [models, positives]: the part of negatives below each; [models, negatives] likewise.
    above = np.stack([_below(row[positive], row[~positive]) for row in table])
    beneath = np.stack([1 - _below(row[~positive], row[positive]) for row in table])
    covariance = np.cov(above) / above.shape[1] + np.cov(beneath) / beneath.shape[1]
    return Areas(tuple(scores), above.mean(axis=1), np.atleast_2d(covariance))


def _below(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[rows]: the part of the others that each is above; an equal one counts half."""
    ordered = np.sort(others)
    strictly = np.searchsorted(ordered, rows, side="left")
    with_equal = np.searchsorted(ordered, rows, side="right")
    return (strictly + with_equal) / (2 * len(others))


def _figure(value: float, variance: float) -> Figure:
    return Figure(float(value), _WIDTH * float(np.sqrt(max(variance, 0.0))))
