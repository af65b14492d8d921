"""How a round's updates become one movement, one file a rule; see `fedsys/aggregator.py`."""

from __future__ import annotations

import dataclasses

from fedsys.aggregator import Aggregator, Mean
from fedsys.aggregators.clipped import Clipped
from fedsys.aggregators.krum import Krum
from fedsys.aggregators.median import Median
from fedsys.aggregators.trimmed import TrimmedMean
from fedsys.choices import Family

AGGREGATORS = Family(
    "aggregator",
    {"mean": Mean, "median": Median, "trimmed": TrimmedMean, "krum": Krum, "clipped": Clipped},
)


def named(aggregator: Aggregator) -> str:
    """An aggregator as one writes it: `krum:1`, or `krum:2,3` where it keeps three."""
    fields = dataclasses.fields(aggregator)  # type: ignore[arg-type]
    values = [getattr(aggregator, field.name) for field in fields]
    while values and values[-1] == fields[len(values) - 1].default:
        values.pop()
    said = ",".join(f"{value:g}" for value in values)
    return AGGREGATORS.name_of(aggregator) + (f":{said}" if said else "")


__all__ = ["AGGREGATORS", "Clipped", "Krum", "Mean", "Median", "TrimmedMean", "named"]
