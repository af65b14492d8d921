"""A federation before it is deployed: its schema, and a table for each of its owners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedsys.errors import DataError, UsageError
from fedsys.task import Task
from fedsys.tasks import models, splits

if TYPE_CHECKING:
    from fedsys.tables import Schema, Source


@dataclass(frozen=True)
class Tables:
    """Tables of several owners by one schema, as `fedsys bank check` takes them.

    schema: a TOML file, the one of `fedsys federation create`. sources: a CSV or Parquet file for
    each owner, which is called after it; or 'env:NAME', where that variable holds the address of a
    database. model: 'mlp' (64 and 32 hidden units), 'logistic', or a file of Keras's that ends in
    logits ('credit.keras'), as in a job. test: the share of
    each owner's rows that is kept to evaluate on, between 0 and 1.

    Inputs are those of a deployed federation: scaled by the statistics of all owners' training
    rows, which each owner sums up by itself.
    """

    schema: str
    sources: tuple[str, ...]
    model: str = "mlp"
    test: float = 0.2

    def __post_init__(self) -> None:
        models.check_tabular(self.model, "tables")
        if not 0 < self.test < 1:
            raise UsageError(f"task.test: must be between 0 and 1, got {self.test}")
        if not self.sources:
            raise UsageError("task.sources: name a table for each owner, with --source FILE")
        for source in self.sources:
            if "://" in source:  # it would lie in the run's folder, with its password
                raise UsageError(
                    "task.sources: put the address of a database into an environment variable, "
                    "and write env:NAME"
                )

    def load(self) -> Task:
        """Reads the tables. Raises DataError or UsageError for what cannot be learned from."""
        from fedsys.tables import open_source, read_schema
        from fedsys.tables.task import task_of_sources

        schema = read_schema(Path(self.schema).expanduser())
        train, test = {}, {}
        for owner, source in zip(owner_names(self.sources), self.sources, strict=True):
            train[owner], test[owner] = _held_out(open_source(source), schema, self.test)
        outputs = 1 if schema.objective == "binary" else len(schema.label.names)
        model = partial(models.tabular(self.model), (len(schema.inputs),), outputs)
        return task_of_sources(schema, train, model, test=test)


def owner_names(sources: Sequence[str]) -> list[str]:
    """What owners are called: after their files, or by all of the path where two are alike."""
    short = [source.removeprefix("env:") for source in sources]
    short = [Path(name).name.partition(".")[0] for name in short]
    counts = Counter(short)
    names = [
        name if counts[name] == 1 else source for name, source in zip(short, sources, strict=True)
    ]
    for name, count in Counter(names).items():
        if count > 1:
            raise UsageError(f"task.sources: {name!r} is there twice; delete one")
    return names


def _held_out(source: Source, schema: Schema, share: float) -> tuple[Source, Source]:
    """(to train on, to evaluate on), with the labels spread alike over both."""
    from fedsys.tables.portion import Portion
    from fedsys.tables.rows import usable

    parts = [(part.numbers, part.labels) for part in usable(source, schema)]
    numbers = np.concatenate([np.empty(0, np.int64), *(part for part, _ in parts)])
    labels = np.concatenate([np.empty(0, np.int64), *(part for _, part in parts)])
    halves = splits.stratified(labels, share)
    if not all(map(len, halves)):
        raise DataError(
            f"task.sources: {source.name} has {len(numbers)} rows, too few to leave {share:g} of "
            "them for the test"
        )
    chosen = []
    for rows in halves:
        chosen.append(np.zeros(numbers.max() + 1, dtype=bool))
        chosen[-1][numbers[rows]] = True
    train, test = (Portion(source, rows) for rows in chosen)
    return train, test
