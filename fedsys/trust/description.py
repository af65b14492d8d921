"""What a bank's officer reads before approving a job: what is computed, what leaves, what never."""

from __future__ import annotations

import sys
from collections import Counter

from fedsys.aggregator import Aggregator, Sees
from fedsys.aggregators import named
from fedsys.local import OPTIMIZERS
from fedsys.strategies import STRATEGIES
from fedsys.trust.architecture import models as architectures
from fedsys.trust.jobs import Job

# Whoever opened the job held it against bounds of their own.
_NO_BOUNDS = architectures.Bounds(
    layers=sys.maxsize,
    inputs=sys.maxsize,
    parameters=sys.maxsize,
    activations=sys.maxsize,
    work=sys.maxsize,
)
_OBJECTIVES = {
    "classes": "cross entropy over classes",
    "binary": "logistic loss of a yes or no",
    "squared": "squared error of a number",
}


def describe(job: Job, settled: bool = True) -> str:
    """The job in plain words, a line each; nothing in it but what the job says.

    settled: whether its SHA-256 is final; where not, it is not shown.
    """
    terms, layout = job.terms, job.layout
    size = architectures.check(job.architecture, _NO_BOUNDS)
    vectors = 2 if terms.strategy.remembers else 1
    number = layout.dtype.itemsize
    moved = number * (layout.length + (vectors - 1) * layout.parameters)
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(size.kinds).items())
    inputs = job.architecture["inputs"]
    rows = " and ".join(f"{list(one['shape'])} {one['dtype']}" for one in inputs)
    local = terms.local
    cohort = "every bank" if terms.cohort is None else f"{_many(terms.cohort, 'bank')}, drawn anew,"
    amount = _many(local.steps, "step") if local.steps else f"{_passes(local.epochs)} over its rows"
    batch = f"batches of {_many(local.batch, 'row')}" if local.batch else "all rows in one batch"
    clip = f", gradients clipped at {local.clip:g}" if local.clip else ""
    other = f" and as many of its own corrections ({vectors} vectors)" if vectors > 1 else ""
    by_rows = terms.weighting == "examples"
    weight = "the number of rows it trains on" if by_rows else "one, whatever it has"
    rhythm = f"every {_many(terms.evaluate, 'round')}" if terms.evaluate else "after the last round"
    return "\n".join(
        [
            f"Job{f' {job.id}' if settled else ''}: {terms.name}, of federation {terms.federation}",
            f"  SHA-256      {job.digest if settled else 'not settled'}",
            f"  runs         fedsys {terms.code} as installed here; no code comes with the job",
            "",
            "What is computed",
            f"  strategy     {STRATEGIES.short(terms.strategy)}, "
            f"{_many(terms.rounds, 'round')}, seed {terms.seed}",
            f"  aggregator   {_aggregation(terms.aggregator)}",
            f"  a round      {cohort} within {_seconds(terms.deadline)}; at least "
            f"{_many(terms.quorum, 'good update')}, or the model does not move",
            f"  at a bank    {amount}, {batch}, {OPTIMIZERS.short(local.optimizer)} at rate "
            f"{local.rate:g}{clip}",
            f"  learns       {_OBJECTIVES.get(terms.objective, terms.objective)}",
            f"  model        {size.parameters:,} numbers ({layout.dtype.name}) in "
            f"{_many(len(size.kinds), 'layer')}: {kinds}",
            f"  reads        rows of {rows}, prepared as agreed",
            f"  columns      schema {terms.schema[:16]}, preparation "
            f"{terms.preparation[:16] if settled else 'not settled'}",
            "",
            "What leaves the bank, each round it takes part in",
            f"  update       how far the model's numbers moved{other}: {_bytes(moved)}",
            f"  weight       {weight}",
            "  loss         its mean training loss; error codes where something fails",
            f"  scores       what the model scores on its own test rows, {rhythm}",
            f"  in all       about {_bytes(moved * terms.rounds)} up and as much down",
            "",
            "What never leaves the bank",
            "  rows, labels, names and identifiers; the model's answers on single rows; texts of",
            "  errors; file names, queries and passwords; keys",
            "",
            "What to know",
            "  The coordinator sees this bank's update by itself: no secure sum hides it, and no",
            "  noise is added. An update can tell something about the rows it was computed from.",
        ]
    )


def _aggregation(aggregator: Aggregator) -> str:
    """How updates become a movement of the model."""
    how = {
        Sees.SUMS: "of the updates, each by its weight",
        Sees.EACH: "of the updates, each by its weight and none longer than the bound",
        Sees.ALL: f"of at least {aggregator.needs} updates, whatever their weight",
    }
    return f"{named(aggregator)}, {how[aggregator.sees]}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _passes(epochs: int) -> str:
    return "1 pass" if epochs == 1 else f"{epochs} passes"


def _bytes(count: int) -> str:
    for size, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _seconds(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} seconds"
