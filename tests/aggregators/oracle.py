"""Aggregators in float64, number by number, written from their papers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

Vectors = Sequence[np.ndarray]


def by_number(rule: Callable[[list[float]], float], updates: Vectors) -> np.ndarray:
    """A rule for the clients' values of one number, applied to each."""
    columns = np.array(updates, np.float64).T.tolist()
    return np.array([rule(sorted(column)) for column in columns])


def median(updates: Vectors) -> np.ndarray:
    """Yin et al. 2018, Definition 1: the usual median of each coordinate."""

    def middle(values: list[float]) -> float:
        half = len(values) // 2
        return values[half] if len(values) % 2 else 0.5 * values[half - 1] + 0.5 * values[half]

    return by_number(middle, updates)


def trimmed(updates: Vectors, faulty: int) -> np.ndarray:
    """Yin et al. 2018, Definition 2, with beta = faulty / n."""

    def inner(values: list[float]) -> float:
        for _ in range(faulty):
            values = values[1:-1]
        return math.fsum(values) / len(values)

    return by_number(inner, updates)


def krum_scores(updates: Vectors, faulty: int) -> list[float]:
    """Blanchard et al. 2017, section 4: s(i), over the n - f - 2 vectors closest to the i-th."""
    vectors = [np.asarray(update, np.float64) for update in updates]
    scores = []
    for i, one in enumerate(vectors):
        others = [other for j, other in enumerate(vectors) if j != i]
        away = sorted(math.fsum((other - one) ** 2) for other in others)
        scores.append(math.fsum(away[: len(vectors) - faulty - 2]))
    return scores


def krum(updates: Vectors, faulty: int, keep: int = 1) -> np.ndarray:
    """The mean of the `keep` vectors with the least scores; one is Krum itself."""
    scores = krum_scores(updates, faulty)
    best = sorted(range(len(updates)), key=lambda i: (scores[i], i))[:keep]
    return sum(np.asarray(updates[i], np.float64) for i in best) / keep


def clipped(updates: Vectors, weights: Sequence[float], bound: float) -> np.ndarray:
    """Sun et al. 2019: each update over max(1, norm / bound), then the weighted mean."""
    shortened = []
    for update in updates:
        vector = np.asarray(update, np.float64)
        norm = math.sqrt(math.fsum(vector**2))
        shortened.append(vector / max(1.0, norm / bound))
    total = sum(weight * vector for weight, vector in zip(weights, shortened, strict=True))
    return np.asarray(total / math.fsum(weights))
