"""Lanes: how a cohort is cut into pieces that run beside each other.

The number of lanes follows from the work alone and not from the number of workers, and partial
sums are added lane by lane. So any number of workers gives the same bits.
"""

from __future__ import annotations

import numpy as np

MOST = 48
"""Shared lanes at most: a multiple of the usual numbers of cores, so that they divide evenly."""

WORTHWHILE = 4e7
"""Multiply-accumulates that make a lane worth its call, some milliseconds of work."""

STEP = 2e5
"""What a step costs beside its arithmetic, in multiply-accumulates."""


def lanes(steps: np.ndarray, rows: np.ndarray, accumulates: int) -> list[np.ndarray]:
    """Cuts a cohort into lanes: a client that is worth it gets one of its own, the others share.

    steps, rows: [cohort], steps and row visits of each client; accumulates: multiply-accumulates
    of the model a row. Returns positions in the cohort, ascending in each lane, dearest lane first.
    """
    cost = steps * STEP + rows * float(accumulates)
    by_cost = np.argsort(-cost, kind="stable")
    large = int(np.count_nonzero(cost >= WORTHWHILE))
    small = by_cost[large:]
    shared = int(np.clip(cost[small].sum() // WORTHWHILE, 1, MOST))
    placed: list[list[int]] = [[] for _ in range(shared)]
    loads = np.zeros(shared)
    for position in small:
        least = int(loads.argmin())
        placed[least].append(int(position))
        loads[least] += cost[position]
    alone = [np.array([position]) for position in by_cost[:large]]
    return alone + [np.array(sorted(lane)) for lane in placed if lane]
