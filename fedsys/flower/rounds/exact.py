"""A sum of vectors that does not depend on the order in which they come."""

from __future__ import annotations

import numpy as np

BLOCK = 2**15
"""Numbers that are added at once: a block and what adding needs stay in a core's cache."""


class ExactSum:
    """Weighted vectors added one by one, in the room of two of them, however many come.

    Each number is kept as the sum of two float64, twice their precision (Knuth's two-sum): what
    rounding takes from one is added to the other. Products of float32 vectors with whole weights
    are exact, too. So vectors in another order give the same bits, unless a true sum lies within
    2^-50 or so of its size from where float64 rounds the other way.
    """

    def __init__(self, length: int) -> None:
        self._high = np.zeros(length)
        self._low = np.zeros(length)

    def add(self, vector: np.ndarray, weight: float = 1.0) -> None:
        """Adds weight times the vector ([length])."""
        for start in range(0, len(vector), BLOCK):
            place = slice(start, start + BLOCK)
            high = self._high[place]
            term = vector[place] * np.float64(weight)
            total = high + term
            taken = total - high
            self._low[place] += (high - (total - taken)) + (term - taken)
            high[:] = total

    @property
    def value(self) -> np.ndarray:
        """[length] float64, the sum."""
        return self._high + self._low
