"""From the tables of several owners to a task: what a federation of them would learn, simulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedsys.tables.preparation import Preparation, prepare
from fedsys.tables.schema import Schema
from fedsys.tables.sources import Source
from fedsys.tables.statistics import summarise
from fedsys.tables.summary import merge
from fedsys.task import Examples, Task

if TYPE_CHECKING:
    import keras


def task_of_sources(
    schema: Schema,
    sources: Mapping[str, Source],
    model: Callable[[], keras.Model],
    *,
    test: Source | Mapping[str, Source] | None = None,
    preparation: Preparation | None = None,
    name: str = "tables",
) -> Task:
    """The task of learning from all sources, in which each owner holds the rows of its own.

    What `fedsys.simulate` makes of it is what a deployed federation of these owners comes to: the
    same inputs, labels and order of rows. Its owners are the partition, unless the experiment names
    another: all rows in one place, for comparison, are `partition="iid", clients=1`.

    sources: owner -> its rows to train on. model: makes the Keras model, of as many inputs as
    `schema.inputs`. test: rows of nobody's to evaluate on, or owner -> rows that it kept for that,
    of which the server sees all; without them, the rows that are trained on.
    preparation: how cells become inputs; from the statistics of all sources if None, as the banks
    of a federation agree on it.

    Raises DataError where the schema refuses rows, or the statistics are of too few.
    """
    if preparation is None:
        parts = [summarise(source, schema) for source in sources.values()]
        preparation = Preparation.derive(schema, merge(parts))
    owners = {owner: number for number, owner in enumerate(sources)}
    train = _examples(schema, preparation, list(sources.values()), list(owners.values()))
    kept = None
    if isinstance(test, Mapping):
        numbers = [owners[owner] for owner in test]
        kept = _examples(schema, preparation, list(test.values()), numbers)
        tested = Examples(kept.inputs, kept.labels)
    elif test is not None:
        tested = prepare(test, schema, preparation).examples
    else:
        tested = Examples(train.inputs, train.labels)
    return Task(
        name=name,
        model=model,
        train=train,
        test=tested,
        objective=schema.objective,
        client_test=kept,
        classes=schema.label.names,
        owners=tuple(sources),
        prepared={"inputs": list(schema.inputs), **preparation.table()},
    )


def _examples(
    schema: Schema, preparation: Preparation, sources: Sequence[Source], owners: Sequence[int]
) -> Examples:
    """The rows of all sources, one after another, each with the number of its owner."""
    parts = [prepare(source, schema, preparation) for source in sources]
    return Examples(
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.repeat(owners, [len(part.labels) for part in parts]),
    )
