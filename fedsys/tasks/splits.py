"""Training and test rows, and who owns them. Everything random comes from a local generator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fedsys.task import Examples

_SEED = 20170209  # any fixed number: the split of a data set is part of the task, not of a run


def stratified(labels: np.ndarray, test: float, seed: int = _SEED) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (train, test), each ascending, with the labels spread alike over both.

    labels: [rows], numbers or text. test: the share of test rows, of which there are
    round(rows * test) in all and within one of its share in every class. Real targets are
    spread alike too, as neighbours in value are dealt out in turn.
    """
    rows = len(labels)
    shuffled = np.random.default_rng(seed).permutation(rows)
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    # Systematic sampling: walk over the rows, class by class, and take one whenever the number
    # of test rows due so far, rounded, goes up.
    count = round(rows * test)
    due = (np.arange(rows + 1) * count + rows // 2) // max(rows, 1)
    chosen = due[1:] > due[:-1]
    return np.sort(ordered[~chosen]), np.sort(ordered[chosen])


def take(examples: Examples, rows: np.ndarray) -> Examples:
    """Those rows, by number and in that order."""
    owners = None if examples.owners is None else examples.owners[rows]
    return Examples(examples.inputs[rows], examples.labels[rows], owners)


def owned(
    examples: Examples, values: np.ndarray | None, train: np.ndarray, test: np.ndarray
) -> tuple[tuple[str, ...], Examples, Examples | None]:
    """Owners by a column: (their names, train, client_test), the last two with owners.

    values: [rows], numbers or text without gaps, or None where nobody owns the rows. Who has no
    training row is no owner, and test rows of such are in no client's test; client_test is None
    where no row is left.
    """
    if values is None:
        return (), take(examples, train), None
    known, train_owners = np.unique(values[train], return_inverse=True)
    kept = test[np.isin(values[test], known)]
    test_owners = np.searchsorted(known, values[kept])
    return (
        tuple(shown(value) for value in known),
        replace(take(examples, train), owners=train_owners),
        replace(take(examples, kept), owners=test_owners) if len(kept) else None,
    )


def shown(value: object) -> str:
    """A value of a column as people write it: 3.0 is '3'."""
    if isinstance(value, (float, np.floating)):
        return str(int(value)) if float(value).is_integer() else str(float(value))
    return str(value)
