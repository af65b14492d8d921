"""What a coordinator asks for: an experiment with real banks, as a TOML file says it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from fedsys.aggregator import Aggregator, Mean
from fedsys.aggregators import AGGREGATORS
from fedsys.aggregators.bounds import check_quorum, check_strategy
from fedsys.checks import above, at_least
from fedsys.choices import build, plain
from fedsys.errors import UsageError, nearest
from fedsys.experiment import WEIGHTINGS, Experiment, read_table
from fedsys.local import Local
from fedsys.strategies import STRATEGIES, FedAvg
from fedsys.strategy import Strategy
from fedsys.tasks import models
from fedsys.tasks.own_model import SUFFIX
from fedsys.trust.names import check_name

if TYPE_CHECKING:
    import keras

    from fedsys.tables import Schema


@dataclass(frozen=True, kw_only=True)
class Request:
    """An experiment with real banks.

    name: of the job. model: 'mlp' (64 and 32 hidden units) or 'logistic', of as many inputs as the
    schema has; or the path of a Keras file, see `OwnModel`. strategy, aggregator, local, weighting,
    rounds, seed: as in an experiment.
    quorum: banks whose updates a round needs; all that the federation needs if None.
    deadline: seconds that a round waits for its banks. grace: seconds that the others have once its
    quorum has answered; None is as long again as that took, and 30 at least. Not part of the job
    that banks sign up to: it changes nobody's work.
    """

    name: str
    model: str = "mlp"
    strategy: Strategy = field(default=FedAvg(), metadata={"family": STRATEGIES})
    aggregator: Aggregator = field(default=Mean(), metadata={"family": AGGREGATORS, "unsaid": True})
    local: Local = Local()
    weighting: str = "examples"
    rounds: int = 20
    quorum: int | None = None
    deadline: float = 600.0
    grace: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_name(self.name, "job")
        if self.model not in models.TABULAR and not self.own_model:
            known = nearest(self.model, models.TABULAR)
            raise ValueError(f"model: unknown {self.model!r}; {known}, or a file: model.keras")
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}")
        at_least(1, rounds=self.rounds, quorum=self.quorum)
        above(0, deadline=self.deadline)
        check_strategy(self.aggregator, self.strategy)
        if self.quorum is not None:
            check_quorum(self.aggregator, self.quorum)
        at_least(0, grace=self.grace)

    @property
    def own_model(self) -> bool:
        """Whether the model is in a file."""
        return self.model.endswith(SUFFIX)

    @property
    def experiment(self) -> Experiment:
        """The same as an experiment; its task is nobody's here."""
        return Experiment(
            strategy=self.strategy,
            aggregator=self.aggregator,
            local=self.local,
            weighting=self.weighting,
            rounds=self.rounds,
            evaluate_clients=0,
            seed=self.seed,
        )

    def build(self, schema: Schema) -> keras.Model:
        """The model, for the columns of a schema. Raises UsageError and DataError as `OwnModel`."""
        outputs = 1 if schema.objective == "binary" else len(schema.label.names)
        return models.tabular(self.model)((len(schema.inputs),), outputs)

    def table(self) -> dict[str, Any]:
        """The request as a nested table of plain values."""
        table: dict[str, Any] = plain(self)
        return table

    def toml(self) -> str:
        """As `read` reads it back."""
        return tomli_w.dumps({key: one for key, one in self.table().items() if one is not None})

    @classmethod
    def of(cls, table: dict[str, Any], place: str = "job") -> Request:
        """The request that a table says. Raises UsageError with the place of a mistake."""
        request: Request = build(cls, table, place)
        return request

    @classmethod
    def read(cls, path: Path) -> Request:
        """The request in a TOML file, from whose folder on the path of a model is meant. Raises
        UsageError."""
        table = read_table(path)
        if "name" not in table:
            raise UsageError(f"{path}: the job needs a name, such as: name = {path.stem!r}")
        request = cls.of(table, str(path))
        if not request.own_model:
            return request
        return replace(request, model=str(path.parent / Path(request.model).expanduser()))
