"""The mean of each number of the model without its extremes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsys.aggregators.coordinates import Coordinatewise
from fedsys.checks import at_least
from fedsys.strategy import Vector


@dataclass(frozen=True)
class TrimmedMean(Coordinatewise):
    """Yin et al. 2018, Definition 2: of each number the `faulty` largest and as many smallest are
    left out, and the mean is taken of the others.

    faulty: f, how many faulty updates it holds against. The paper's beta is f / n, which must be
    below 1/2: n >= 2f + 1.
    """

    faulty: int

    def __post_init__(self) -> None:
        at_least(1, faulty=self.faulty)

    @property
    def needs(self) -> int:
        return 2 * self.faulty + 1

    def rule(self, updates: np.ndarray) -> Vector:
        kept = np.sort(updates, axis=0)[self.faulty : len(updates) - self.faulty]
        return np.asarray(kept.mean(axis=0))
