"""How the ends of many clients' ranges become one range a tensor.

Ends are [clients, tensors, 2] float32: least and greatest value. The envelope is exact: it is
what one machine with all rows would have found. The others give up a little of that against
clients whose data, or whose intentions, are odd: one huge value would otherwise stretch the scale
until every honest value rounds to a few integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsys.checks import at_least
from fedsys.choices import Family
from fedsys.edge.calibration.histogram import Histogram


@dataclass(frozen=True)
class Envelope:
    """The least low and the greatest high.

    Equal, bit for bit, to the ranges of all rows together. Defends against nothing: any one
    client may stretch a range as far as the gate lets it.
    """

    def merge(self, ends: np.ndarray) -> np.ndarray:
        """[clients, tensors, 2] -> [tensors, 2]."""
        return np.stack([ends[:, :, 0].min(axis=0), ends[:, :, 1].max(axis=0)], axis=1)


@dataclass(frozen=True)
class Trimmed:
    """The envelope without the `most` extreme clients, of each tensor and at each end.

    Defends against up to `most` clients that lie or hold outliers, however far out: the range
    then ends where an honest client does. Costs what the honest clients that are trimmed reach
    beyond the rest: those values are clipped, which hurts where few clients hold the large values.
    With no more than `most` clients it trims as many as leave one.
    """

    most: int = 1

    def __post_init__(self) -> None:
        at_least(0, most=self.most)

    def merge(self, ends: np.ndarray) -> np.ndarray:
        """[clients, tensors, 2] -> [tensors, 2]."""
        cut = min(self.most, (len(ends) - 1) // 2)
        lows, highs = np.sort(ends[:, :, 0], axis=0), np.sort(ends[:, :, 1], axis=0)
        return np.stack([lows[cut], highs[-1 - cut]], axis=1)


@dataclass(frozen=True)
class Median:
    """The envelope, each end at most `times` - 1 spans of the median client beyond its own.

    The median client's range is that from the median low to the median high. Defends against
    fewer than half of the clients, who do not decide a median. Costs nothing where honest clients
    differ by less than that; where they differ by more, as with sensors of different gain, their
    values are clipped. Liars may still stretch a range to 2 * `times` - 1 median spans: 3 of the 8
    bits at 4.
    """

    times: float = 4.0

    def __post_init__(self) -> None:
        at_least(1, times=self.times)

    def merge(self, ends: np.ndarray) -> np.ndarray:
        """[clients, tensors, 2] -> [tensors, 2]."""
        widest = Envelope().merge(ends)
        low, high = np.median(ends[:, :, 0], axis=0), np.median(ends[:, :, 1], axis=0)
        margin = (self.times - 1) * (high - low)
        limited = [np.maximum(widest[:, 0], low - margin), np.minimum(widest[:, 1], high + margin)]
        return np.stack(limited, axis=1).astype(ends.dtype)


Merge = Envelope | Trimmed | Median | Histogram
MERGES = Family(
    "calibration rule",
    {"envelope": Envelope, "trimmed": Trimmed, "median": Median, "histogram": Histogram},
)
"""By name, as in `trimmed:2`."""
