"""What aggregators have in common that work on each number of the model by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedsys.aggregator import Sees
from fedsys.strategy import Vector

BLOCK = 2**14
"""Numbers of the model that are looked at at once, in float64."""


@dataclass(frozen=True)
class Coordinatewise:
    """A rule for [clients, numbers] that holds for any part of the model's numbers.

    Clients count alike, whatever their weights: a weight is a client's own word.
    """

    sees: ClassVar[Sees] = Sees.ALL

    def limit(self, update: Vector) -> Vector:
        return update

    def rule(self, updates: np.ndarray) -> Vector:
        """[numbers], of updates ([clients, numbers] float64)."""
        raise NotImplementedError

    def combine(self, updates: np.ndarray) -> Vector:
        combined = np.empty(updates.shape[1])
        for start in range(0, len(combined), BLOCK):
            place = slice(start, start + BLOCK)
            combined[place] = self.rule(updates[:, place].astype(np.float64))
        return combined
