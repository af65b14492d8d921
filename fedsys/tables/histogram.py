"""Quantiles of all banks' numbers by counts on a grid that the schema alone fixes.

The grid cuts a column's range into 1,024 equal bins, or into one bin a whole number where an
integer's range holds no more than that. A bank says how many of its numbers lie below each edge,
rounded down to a multiple of its minimum: so no bin ever shows a few rows, and a rank is wrong by
less than the minimum at each bank. One message is all: the grid is also the finest that anybody may
ask for, since finer and finer questions would close in on single rows.

The bound, which the tests prove: with N numbers, Q(r) the r-th smallest of them (r rounded up; the
range's ends where r is below 1 or above N), and t = pN or 1 if that is more, the quantile of part p
is at least Q(t - s/2) - w/2 and at most Q(t + s/2) + w/2, where w is the width of a bin and s, the
slack, is the sum of (minimum - 1) over the banks that have numbers. Each of them has at least the
minimum, so that a median's ranks lie within 1 to N. An answer is the middle of a bin, never a row's
number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedsys.tables.schema import INTEGER, Column

BINS = 1024


def edges(column: Column) -> np.ndarray:
    """[bins + 1] float64, ascending. The column has a range."""
    assert column.range is not None
    low, high = column.range
    if column.type == INTEGER:
        least, most = np.ceil(low), np.floor(high)
        if 0 <= most - least < BINS:
            return np.arange(int(most - least) + 2) + (least - 0.5)
    return np.linspace(low, high, BINS + 1)


def bin_counts(values: np.ndarray, column: Column) -> np.ndarray:
    """[bins] int64: how many of the numbers, all within the range, lie in each bin."""
    inner = edges(column)[1:-1]
    bins = np.searchsorted(inner, values, side="right")
    return np.bincount(bins, minlength=len(inner) + 1).astype(np.int64)


def said_below(counts: np.ndarray, minimum: int) -> tuple[int, ...]:
    """[bins - 1]: numbers below each inner edge, rounded down to a multiple of the minimum."""
    below = counts.cumsum()[:-1]
    return tuple((below - below % minimum).tolist())


def quantile(below: Sequence[int], count: int, slack: int, column: Column, part: float) -> float:
    """The number that `part` of all lie at or below, to within the bound above.

    below: [bins - 1], summed over the banks. count: of numbers. slack: as above.
    """
    grid = edges(column)
    middles = (grid[:-1] + grid[1:]) / 2
    # Rounding down loses nothing to slack; adding half of it halves the worst error.
    ranks = np.append(np.minimum(np.asarray(below, dtype=np.float64) + slack / 2, count), count)
    wanted = min(max(part * count, 1), count)
    return float(middles[int(np.argmax(ranks >= wanted))])
