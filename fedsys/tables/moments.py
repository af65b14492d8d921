"""Count, mean and squared deviations of numbers, which merge without loss.

The merge is that of Chan, Golub and LeVeque 1979. The mean is kept in two float64 parts, so that
the difference of two means is exact to the size of the deviations, not of the means: a variance is
right to 1e-12 even where the numbers lie a million deviations from zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Moments:
    """count: how many numbers. mean + rest: their mean. squares: sum of squared deviations."""

    count: int = 0
    mean: float = 0.0
    rest: float = 0.0
    squares: float = 0.0

    @property
    def variance(self) -> float:
        """The population's variance; 0 where there are no numbers."""
        return self.squares / self.count if self.count else 0.0

    @property
    def deviation(self) -> float:
        """The population's standard deviation."""
        return float(np.sqrt(self.variance))


def moments(values: np.ndarray) -> Moments:
    """Of finite numbers [rows] float64."""
    if not len(values):
        return Moments()
    mean = float(values.mean())
    apart = values - mean
    rest = float(apart.mean())
    apart -= rest
    return Moments(len(values), *_sum(mean, rest), float(np.dot(apart, apart)))


def together(one: Moments, other: Moments) -> Moments:
    """Of the numbers of both."""
    if not one.count or not other.count:
        return one if one.count else other
    count = one.count + other.count
    apart = (other.mean - one.mean) + (other.rest - one.rest)
    mean, rest = _sum(one.mean, one.rest + apart * (other.count / count))
    squares = one.squares + other.squares + apart * apart * (one.count * (other.count / count))
    return Moments(count, mean, rest, squares)


def _sum(one: float, other: float) -> tuple[float, float]:
    """The sum of two numbers and what its rounding took away (Knuth's two-sum)."""
    total = one + other
    back = total - one
    return total, (one - (total - back)) + (other - back)
