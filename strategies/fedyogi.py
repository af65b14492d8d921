"""FedYogi: the server adapts its steps with Yogi."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsys.strategies.fedadam import FedAdam
from fedsys.strategy import Vector


@dataclass(frozen=True)
class FedYogi(FedAdam):
    """Reddi et al. 2021, Algorithm 2, FedYogi: the second moment moves by the square itself,
    towards it, so that it shrinks no faster than it grew."""

    def spread(self, second: Vector, square: Vector) -> Vector:
        return second - (1 - self.beta2) * square * np.sign(second - square)
