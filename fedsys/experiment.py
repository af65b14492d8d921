"""An experiment: one frozen value that says everything about a run but where it happens."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from fedsys.aggregator import Aggregator, Mean
from fedsys.aggregators import AGGREGATORS
from fedsys.aggregators.bounds import check_cohort, check_strategy
from fedsys.checks import above, at_least, at_most
from fedsys.choices import Family, build, plain
from fedsys.clients.faults import FAULTS, Fault
from fedsys.errors import UsageError, nearest
from fedsys.local import Local
from fedsys.partitions import PARTITIONS, Rule
from fedsys.strategies import STRATEGIES, FedAvg
from fedsys.strategy import Strategy
from fedsys.task import TaskSpec
from fedsys.tasks import TASKS

WEIGHTINGS = ("examples", "uniform")
COMPILERS = ("auto", "xla", "graph")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is learned, from whom, how and for how long.

    Values that are chosen by name may be given as such: `Experiment(strategy="fedprox:0.1")`.

    task: model and data. partition: who holds which rows; if None, the task's natural owners,
        or 'iid' where it has none.
    clients: how many; if None, the natural owners or 100. cohort: clients a round; if None, 10,
        or all where there are fewer.
    strategy: the federated algorithm. aggregator: how a round's updates become one movement; the
        weighted mean unless said. local: the clients' training.
    weighting: clients count by their 'examples' or 'uniform'.
    rounds: how many. evaluate: rounds between evaluations on the server's test set, and
    evaluate_clients: on every client; 0 is only after the last round.
    quorum: part of a cohort's updates that must be admitted for the model to move.
    faults: clients that misbehave on purpose. compiler: 'xla', 'graph', or 'auto' by the layers.
    seed: of everything random.
    """

    task: TaskSpec = field(
        default_factory=lambda: TASKS.parse("digits"), metadata={"family": TASKS}
    )
    partition: Rule | None = field(default=None, metadata={"family": PARTITIONS})
    clients: int | None = None
    cohort: int | None = None
    strategy: Strategy = field(default=FedAvg(), metadata={"family": STRATEGIES})
    aggregator: Aggregator = field(default=Mean(), metadata={"family": AGGREGATORS, "unsaid": True})
    local: Local = Local()
    weighting: str = "examples"
    rounds: int = 50
    evaluate: int = 1
    evaluate_clients: int = 0
    quorum: float = 0.5
    faults: Fault | None = field(default=None, metadata={"family": FAULTS})
    compiler: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if "family" in one.metadata and isinstance(value, str):
                family: Family = one.metadata["family"]
                object.__setattr__(self, one.name, family.parse(value, one.name))
            if isinstance(value, type):
                raise UsageError(
                    f"{one.name} is the class {value.__name__}: give {value.__name__}()"
                )
        at_least(1, clients=self.clients, cohort=self.cohort, rounds=self.rounds)
        at_least(0, evaluate=self.evaluate, evaluate_clients=self.evaluate_clients, seed=self.seed)
        at_most(2**63 - 1, seed=self.seed)
        above(0, quorum=self.quorum)
        at_most(1, quorum=self.quorum)
        _one_of(WEIGHTINGS, weighting=self.weighting)
        _one_of(COMPILERS, compiler=self.compiler)
        if self.clients is not None and (self.cohort or 0) > self.clients:
            raise UsageError(
                f"cohort {self.cohort} is larger than the {self.clients} clients: "
                "lower the cohort or raise clients"
            )
        self.strategy.local(self.local)
        check_strategy(self.aggregator, self.strategy)
        if self.cohort is not None:
            check_cohort(self.aggregator, self.quorum, self.cohort)

    @property
    def name(self) -> str:
        """The first 12 hexadecimal digits of the hash of everything that is said here."""
        return _digest(self.table())

    @property
    def trajectory(self) -> str:
        """Like `name`, but of what decides each round's weights: a run that is resumed may go on
        for more rounds, or be watched more often, and is still the same run."""
        watched = ("rounds", "evaluate", "evaluate_clients")
        return _digest({key: item for key, item in self.table().items() if key not in watched})

    def table(self) -> dict[str, Any]:
        """The experiment as a nested table of plain values."""
        return plain(self)

    def toml(self) -> str:
        """The experiment as TOML, which `read` reads back."""
        return tomli_w.dumps(self.table())

    @classmethod
    def of(cls, table: Mapping[str, Any], place: str = "") -> Experiment:
        """The experiment that a table says. Raises UsageError with the place of a mistake."""
        experiment: Experiment = build(cls, table, place)
        return experiment

    @classmethod
    def read(cls, path: Path) -> Experiment:
        """The experiment in a TOML file."""
        return cls.of(read_table(path), str(path))


def read_table(path: Path) -> dict[str, Any]:
    """A TOML file as a table. Raises UsageError that names the file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f'{path}: no such file; write one with a line such as: task = "digits"'
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be read: {reason}: give an experiment in TOML") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}") from None


def merged(table: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The table with the value at a dotted key, such as 'local.rate', replaced.

    A choice that stands there by name alone, such as task = "digits", becomes a table first.
    """
    head, dot, rest = key.partition(".")
    if not head or (dot and not rest):
        raise UsageError(f"{key!r} is no key: write it like local.rate")
    if not rest:
        return {**table, head: value}
    inner = table.get(head, {})
    if isinstance(inner, str):
        inner = {"name": inner}
    if not isinstance(inner, Mapping):
        raise UsageError(f"{key}: {head} is {inner!r} and has no keys")
    return {**table, head: merged(inner, rest, value)}


def _digest(table: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:12]


def _one_of(known: tuple[str, ...], **options: str) -> None:
    for name, value in options.items():
        if value not in known:
            raise ValueError(f"{name}: unknown {value!r}; {nearest(value, known)}")
