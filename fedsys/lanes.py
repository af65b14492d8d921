"""Lanes: how a cohort is cut into pieces that run beside each other, one a worker."""

from __future__ import annotations

import numpy as np

WORTHWHILE = 2e7
"""Multiply-accumulates that make a further lane worth its call: a few milliseconds of work."""

STEP = 2e5
"""What a step costs beside its arithmetic, in multiply-accumulates."""


def lanes(steps: np.ndarray, rows: np.ndarray, accumulates: int, workers: int) -> list[np.ndarray]:
    """Cuts a cohort into at most `workers` lanes, longest client first onto the least loaded.

    steps, rows: [cohort], steps and row visits of each client; accumulates: multiply-accumulates
    of the model a row. Returns positions in the cohort, ascending in each lane. The cut follows
    from the arguments alone, and partial sums are added lane by lane: the same number of workers
    gives the same bits, another number the same result up to rounding.
    """
    cost = steps * STEP + rows * float(accumulates)
    count = int(np.clip(cost.sum() // WORTHWHILE, 1, workers))
    if count == 1:
        return [np.arange(len(steps))] if len(steps) else []
    placed: list[list[int]] = [[] for _ in range(count)]
    loads = np.zeros(count)
    for position in np.argsort(-cost, kind="stable"):
        least = int(loads.argmin())
        placed[least].append(int(position))
        loads[least] += cost[position]
    return [np.array(sorted(lane)) for lane in placed if lane]
