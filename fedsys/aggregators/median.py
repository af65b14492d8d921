"""The median of each number of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedsys.aggregators.coordinates import Coordinatewise
from fedsys.strategy import Vector


@dataclass(frozen=True)
class Median(Coordinatewise):
    """Yin et al. 2018, Definition 1: coordinate-wise median, the mean of the middle two where
    their number is even.

    Holds while less than half of the updates are faulty: n >= 2f + 1, so three for one.
    """

    needs: ClassVar[int] = 3

    def rule(self, updates: np.ndarray) -> Vector:
        low, high = (len(updates) - 1) // 2, len(updates) // 2
        return np.asarray(np.sort(updates, axis=0)[low : high + 1].mean(axis=0))
