"""Copies of Flower's records that share their bytes.

Whoever gets a copy may empty it, change its lists or put other arrays in: nobody else sees it. The
bytes of an array are immutable, so they are not copied; 5 million parameters cost as little as ten.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from flwr.app import ArrayRecord, Context, RecordDict


def copied(records: RecordDict) -> RecordDict:
    """The records in dictionaries of their own, with the same bytes."""
    result = records.copy()
    for name, record in records.items():
        mine: Any = record.copy()
        if isinstance(record, ArrayRecord):
            for key, array in record.items():
                mine[key] = copy(array)  # keeps a subclass of Array what it is
        else:
            for key, value in record.items():
                if isinstance(value, list):
                    mine[key] = list(value)
        result[name] = mine
    return result


def copied_context(context: Context) -> Context:
    """A node's context for one message; it is thrown away if the client fails."""
    return Context(
        run_id=context.run_id,
        node_id=context.node_id,
        node_config=dict(context.node_config),
        state=copied(context.state),
        run_config=dict(context.run_config),
        series_id=context.series_id,
    )
