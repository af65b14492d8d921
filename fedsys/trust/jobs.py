"""A job: an experiment as a bank is asked to take part in it; values, and no code.

What is not said in a job cannot be done with it: a bank builds the model from its table, trains
with the fedsys that it installed itself, and refuses any field that it does not know. A job is
named by the SHA-256 of its canonical JSON. Approvals keep all of that; the short form, its first
12 digits, is for people to point with and could be made to collide.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedsys.aggregator import Aggregator, Mean
from fedsys.aggregators import AGGREGATORS
from fedsys.aggregators.bounds import check_quorum, check_strategy
from fedsys.checks import above, at_least, at_most
from fedsys.choices import build, plain
from fedsys.errors import DataError, PolicyError, UsageError
from fedsys.experiment import WEIGHTINGS, Experiment
from fedsys.layout import Layout
from fedsys.local import Local
from fedsys.objectives import objective
from fedsys.strategies import STRATEGIES
from fedsys.strategy import Strategy
from fedsys.trust import canonical
from fedsys.trust.architecture import models as architectures
from fedsys.trust.names import is_name
from fedsys.trust.signing import Signed, open_signed, sign

if TYPE_CHECKING:
    import keras

FORMAT = 1
PURPOSE = "job"
_HASH = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9]{1,5}(\.[0-9a-z+]{1,24}){0,5}")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Everything about a job but the model.

    federation, name: what it belongs to and is called. code: version of fedsys that the banks
    run. strategy, aggregator, local, weighting, rounds, seed: as in an experiment. cohort: banks a
    round, or None for all. quorum: updates that must be admitted for the model to move, as many as
    the aggregator needs at least. deadline: seconds of a round. evaluate: rounds between
    evaluations at the banks, 0 for the last only. objective: its name. schema, preparation: SHA-256
    of the columns that banks agreed on, and of how they are scaled.
    """

    federation: str
    name: str
    code: str
    strategy: Strategy = field(metadata={"family": STRATEGIES})
    aggregator: Aggregator = field(default=Mean(), metadata={"family": AGGREGATORS, "unsaid": True})
    local: Local
    weighting: str
    rounds: int
    cohort: int | None = None
    quorum: int
    deadline: float
    evaluate: int
    seed: int
    objective: str
    schema: str
    preparation: str

    def __post_init__(self) -> None:
        for key in ("federation", "name"):
            if not is_name(getattr(self, key)):
                raise ValueError(f"{key} must be a name of a-z, 0-9, '-' and '.'")
        if not _VERSION.fullmatch(self.code):
            raise ValueError("code must be a version of fedsys")
        for key in ("schema", "preparation"):
            if not _HASH.fullmatch(getattr(self, key)):
                raise ValueError(f"{key} must be a SHA-256 of 64 hexadecimal digits")
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}")
        at_least(1, rounds=self.rounds, cohort=self.cohort, quorum=self.quorum)
        at_least(0, evaluate=self.evaluate, seed=self.seed)
        at_most(2**63 - 1, rounds=self.rounds, seed=self.seed)
        above(0, deadline=self.deadline)
        if self.cohort is not None and self.quorum > self.cohort:
            raise ValueError(f"quorum {self.quorum} is above the cohort of {self.cohort}")
        objective(self.objective)
        self.strategy.local(self.local)
        check_strategy(self.aggregator, self.strategy)
        check_quorum(self.aggregator, self.quorum)


@dataclass(frozen=True)
class Job:
    """Terms, and the model: its table of layers and the layout of its weights."""

    terms: Terms
    architecture: Mapping[str, Any]
    layout: Layout

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits that stand for everything in the job."""
        return hashlib.sha256(canonical.encode(self.table(), "job")).hexdigest()

    @property
    def id(self) -> str:
        """The short form, to point with."""
        return self.digest[:12]

    def table(self) -> dict[str, Any]:
        """The job as a plain table."""
        return {
            "format": FORMAT,
            "terms": plain(self.terms),
            "architecture": dict(self.architecture),
            "layout": {
                "names": list(self.layout.names),
                "shapes": [list(shape) for shape in self.layout.shapes],
                "trainable": self.layout.trainable,
                "dtype": self.layout.dtype.name,
            },
        }

    @classmethod
    def of(cls, table: Mapping[str, Any], bounds: architectures.Bounds | None = None) -> Job:
        """The job that a stranger's table says.

        Raises DataError where it is none or has fields that are unknown here, and PolicyError
        for a model that may not travel or is too large.
        """
        if type(table.get("format")) is not int or table["format"] != FORMAT:
            raise DataError(f"job: not of format {FORMAT}: update fedsys on the older side")
        if set(table) != {"format", "terms", "architecture", "layout"}:
            raise DataError("job: has fields that are unknown here, or lacks some: update fedsys")
        try:
            terms: Terms = build(Terms, table["terms"], "job")
        except UsageError as error:
            said = _printable(str(error))
            raise DataError(f"{said} (a newer fedsys may know more: update)") from None
        size = architectures.check(table["architecture"], bounds)
        layout = _layout(table["layout"])
        if layout.length != size.parameters:
            raise DataError(
                f"job: its layout has {layout.length} numbers, its model {size.parameters}"
            )
        job = cls(terms, dict(table["architecture"]), layout)
        if canonical.encode(job.table(), "job") != canonical.encode(table, "job"):
            raise DataError("job: not in its plain form")
        return job

    @classmethod
    def propose(
        cls,
        experiment: Experiment,
        model: keras.Model,
        *,
        federation: str,
        name: str,
        objective: str,
        quorum: int,
        deadline: float,
        schema: str,
        preparation: str,
    ) -> Job:
        """The job that asks banks for an experiment; who holds which rows is theirs to know.

        Raises UsageError for an experiment that is for simulations only, and PolicyError for a
        model that cannot travel.
        """
        if experiment.faults is not None:
            raise UsageError("faults are for simulations: leave them out of a job")
        try:
            terms = Terms(
                federation=federation,
                name=name,
                code=version(),
                strategy=experiment.strategy,
                aggregator=experiment.aggregator,
                local=experiment.local,
                weighting=experiment.weighting,
                rounds=experiment.rounds,
                cohort=experiment.cohort,
                quorum=quorum,
                deadline=float(deadline),
                evaluate=experiment.evaluate_clients,
                seed=experiment.seed,
                objective=objective,
                schema=schema,
                preparation=preparation,
            )
        except ValueError as error:
            raise UsageError(f"job.{error}") from None
        job = cls(terms, architectures.specify(model), Layout.of(model))
        return cls.of(canonical.decode_table(canonical.encode(job.table(), "job"), "job"))

    def model(self, bounds: architectures.Bounds | None = None) -> keras.Model:
        """The model, built anew. Raises PolicyError where its weights lie otherwise than said."""
        model = architectures.build(self.architecture, bounds)
        if Layout.of(model) != self.layout:
            raise PolicyError(
                "job: the model's weights have other names or shapes here than were said: "
                "are the versions of Keras the same?"
            )
        return model


def version() -> str:
    """The version of fedsys that runs here."""
    return importlib.metadata.version("fedsys")


def sign_job(key: Ed25519PrivateKey, job: Job) -> bytes:
    """The job, signed for its federation."""
    return sign(key, job.table(), purpose=PURPOSE, audience=job.terms.federation).data()


def open_job(
    data: bytes,
    keys: Mapping[str, Ed25519PublicKey],
    federation: str,
    bounds: architectures.Bounds | None = None,
) -> tuple[Job, Signed]:
    """A signed job of this federation. Raises as `open_signed` and `Job.of` do."""
    signed = open_signed(data, keys, purpose=PURPOSE, audience=federation)
    job = Job.of(signed.body, bounds)
    if job.terms.federation != federation:
        raise PolicyError(f"job: says it belongs to {job.terms.federation}, not to {federation}")
    return job, signed


def _printable(text: str) -> str:
    """A message that quotes a stranger: in one line, and without a terminal's commands."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= 400 else shown[:400] + "..."


def _layout(table: Any) -> Layout:
    if not isinstance(table, Mapping) or set(table) != {"names", "shapes", "trainable", "dtype"}:
        raise DataError("job: its layout needs names, shapes, trainable and dtype alone")
    names, shapes, trainable = table["names"], table["shapes"], table["trainable"]
    good = (
        isinstance(names, list)
        and isinstance(shapes, list)
        and len(names) == len(shapes) <= 4096
        and all(isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable()
                for name in names)
        and len(set(names)) == len(names)
        and all(isinstance(shape, list) and len(shape) <= 8 for shape in shapes)
        and all(type(n) is int and 0 < n < 2**31 for shape in shapes for n in shape)
        and type(trainable) is int
        and 0 < trainable <= len(names)
        and table["dtype"] in architectures.DTYPES
    )  # fmt: skip
    if not good:
        raise DataError("job: its layout is not one of named arrays of numbers")
    return Layout(tuple(names), tuple(map(tuple, shapes)), trainable, np.dtype(table["dtype"]))


# --- differences ---------------------------------------------------------------------------------


def diff(old: Job, new: Job) -> list[str]:
    """What changed from one job to another, one line each: `terms.rounds: 10 -> 20`."""
    before, after = _flat(old.table()), _flat(new.table())
    lines = []
    for path in [*before, *(path for path in after if path not in before)]:
        if path not in after:
            lines.append(f"{path}: {before[path]!r} is gone")
        elif path not in before:
            lines.append(f"{path}: {after[path]!r} is new")
        elif before[path] != after[path] or type(before[path]) is not type(after[path]):
            lines.append(f"{path}: {before[path]!r} -> {after[path]!r}")
    return lines


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Every plain value under its dotted path."""
    if isinstance(value, Mapping) and value:
        items = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple) and value:
        items = [(f"{path}[{number}]", item) for number, item in enumerate(value)]
    else:
        return {path: value}
    return {found: item for at, one in items for found, item in _flat(one, at).items()}


def with_terms(job: Job, **changes: Any) -> Job:
    """The job with other terms, checked anew."""
    try:
        return Job(dataclasses.replace(job.terms, **changes), job.architecture, job.layout)
    except ValueError as error:
        raise UsageError(f"job.{error}") from None
