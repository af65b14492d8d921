"""Ranges by counts that add up, so that a secure sum can carry them.

The least and greatest of many clients is no sum. A histogram is: a client counts its values in
buckets of equal ratio, vectors of counts are added, and the sum tells where values lie. The server
need not see any client's own counts.

Bucket layout of a tensor, for a resolution of r buckets an octave from 2^FLOOR to 2^CEILING:
negative values by size, largest first; one bucket for what is nearer to zero than 2^FLOOR;
positive values by size. Beyond 2^CEILING counts in the last bucket.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsys.checks import above, at_least, at_most

FLOOR, CEILING = -16, 16
"""Octaves that are told apart. 2^-16 is less than an int8 step of a range of ±1."""

SHARE = 1 << 16
"""What a client's counts of a tensor sum to where clients count alike."""


@dataclass(frozen=True)
class Histogram:
    """Ranges from the sum of clients' histograms.

    resolution: buckets an octave. A range ends at the outer edge of its last bucket, so it is
        too wide by a factor of at most 2^(1 / resolution): 0.25 of a bit at 4, 0.12 at 8.
    keep: part of the counts that lies inside the range; the rest is clipped, half at each end.
        1 keeps all.
    alike: each client's counts are scaled to the same sum, so that its word counts as any
        other's, however many rows it has or says it has.

    `keep` below 1 defends against outliers in the data and, with `alike`, against liars as long
    as they are fewer than (1 - keep) / 2 of the clients. It costs the honest values beyond, and a
    client that alone holds the large values is taken for an outlier. Behind a secure sum the gate
    cannot look at one client's counts: then only `keep` protects.
    """

    resolution: int = 8
    keep: float = 1.0
    alike: bool = True

    def __post_init__(self) -> None:
        at_least(1, resolution=self.resolution)
        at_most(64, resolution=self.resolution)
        above(0.5, keep=self.keep)
        at_most(1, keep=self.keep)

    @property
    def side(self) -> int:
        """Buckets of one sign."""
        return (CEILING - FLOOR) * self.resolution

    @property
    def buckets(self) -> int:
        """Buckets a tensor."""
        return 2 * self.side + 1

    @property
    def edges(self) -> np.ndarray:
        """[buckets + 1] float64, ascending: bucket b holds what lies from edge b to edge b + 1."""
        return np.concatenate([-self._sizes[::-1], self._sizes])

    @property
    def _sizes(self) -> np.ndarray:
        return 2.0 ** (FLOOR + np.arange(self.side + 1) / self.resolution)

    def count(self, values: np.ndarray) -> np.ndarray:
        """[buckets] int64, how many of the values lie in each bucket."""
        values = np.asarray(values, np.float64).reshape(-1)
        steps = np.searchsorted(self._sizes[:-1], np.abs(values), side="right")
        return np.bincount(self.side + np.where(values < 0, -steps, steps), minlength=self.buckets)

    def shared(self, counts: np.ndarray) -> np.ndarray:
        """[tensors, buckets] counts with the same sum a tensor for every client, if `alike`.

        Rounded up where there is anything, so that no bucket is lost, and the surplus is taken
        from the largest bucket.
        """
        if not self.alike:
            return counts
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        scaled = -(-counts * SHARE // totals)
        largest = scaled.argmax(axis=1)
        scaled[np.arange(len(scaled)), largest] += SHARE - scaled.sum(axis=1)
        return scaled

    def ranges(self, counts: np.ndarray) -> np.ndarray:
        """[tensors, buckets] summed counts -> [tensors, 2] float32 ranges.

        The bucket around zero counts as zero itself. ValueError where a tensor has no counts.
        """
        totals = counts.sum(axis=1)
        if not (totals > 0).all():
            raise ValueError("a tensor without counts has no range")
        allowed = np.floor((1 - self.keep) / 2 * totals)
        below = np.cumsum(counts, axis=1)
        beyond = np.cumsum(counts[:, ::-1], axis=1)
        first = (below > allowed[:, None]).argmax(axis=1)
        last = counts.shape[1] - 1 - (beyond > allowed[:, None]).argmax(axis=1)
        edges = self.edges
        low = np.where(first == self.side, 0.0, edges[first])
        high = np.where(last == self.side, 0.0, edges[last + 1])
        return np.stack([low, high], axis=1).astype(np.float32)
