"""The weighted mean of updates of which none is longer than a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedsys.aggregator import Sees
from fedsys.checks import above
from fedsys.strategy import Vector


@dataclass(frozen=True)
class Clipped:
    """Sun et al. 2019, section 4, norm thresholding: an update longer than `bound` (in the norm of
    all its numbers) is shortened to it, then the weighted mean is taken.

    A client moves the mean by at most `bound` times its part of the weight, in whatever direction
    it likes: this bounds an attack and does not undo it. An update of zeros stays one.
    """

    bound: float

    sees: ClassVar[Sees] = Sees.EACH
    needs: ClassVar[int] = 1

    def __post_init__(self) -> None:
        above(0, bound=self.bound)

    def limit(self, update: Vector) -> Vector:
        norm = float(np.linalg.norm(update.astype(np.float64)))
        if norm <= self.bound:
            return update
        return np.asarray(update * (self.bound / norm), update.dtype)

    def combine(self, updates: np.ndarray) -> Vector:
        raise NotImplementedError("a mean is added up, and sees one update at a time")
