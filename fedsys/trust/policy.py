"""What a bank lets be done with its rows, whoever signed it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedsys.checks import above, at_least
from fedsys.errors import PolicyError
from fedsys.trust.architecture.models import Bounds
from fedsys.trust.jobs import Job, version


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Upper bounds on jobs, and the least company in which a bank takes part.

    banks: a quorum below it is refused: alone, an update is no mean. rounds, epochs, steps: of a
    job and of a round. deadline: seconds of a round. parameters, layers: of the model.
    """

    banks: int = 2
    rounds: int = 10_000
    epochs: int = 1_000
    steps: int = 1_000_000
    deadline: float = 7 * 86400.0
    parameters: int = 100_000_000
    layers: int = 500

    def __post_init__(self) -> None:
        at_least(1, banks=self.banks, rounds=self.rounds, epochs=self.epochs, steps=self.steps)
        at_least(1, parameters=self.parameters, layers=self.layers)
        above(0, deadline=self.deadline)

    @property
    def bounds(self) -> Bounds:
        """How large a model may be."""
        return Bounds(parameters=self.parameters, layers=self.layers)

    def refusals(
        self, job: Job, *, schema: str, preparation: str, code: str | None = None
    ) -> list[str]:
        """Every reason to refuse a job. schema, preparation: SHA-256 of this bank's own."""
        return list(self._reasons(job, schema, preparation, code or version()))

    def check(self, job: Job, *, schema: str, preparation: str, code: str | None = None) -> None:
        """Raises PolicyError with the reasons to refuse a job, if there are any."""
        reasons = self.refusals(job, schema=schema, preparation=preparation, code=code)
        if reasons:
            raise PolicyError(f"job {job.id}: {'; '.join(reasons)}")

    def _reasons(self, job: Job, schema: str, preparation: str, code: str) -> Iterator[str]:
        terms = job.terms
        if terms.code != code:
            yield f"is for fedsys {terms.code}, and {code} is installed here"
        if terms.schema != schema:
            yield "has another schema than this bank's data were checked against"
        if terms.preparation != preparation:
            yield "prepares columns otherwise than this bank's were"
        if terms.quorum < self.banks:
            yield f"would move on {terms.quorum} updates, of at least {self.banks} here"
        limits = {
            "rounds": (terms.rounds, self.rounds),
            "epochs": (terms.local.epochs, self.epochs),
            "steps": (terms.local.steps or 0, self.steps),
            "seconds a round": (terms.deadline, self.deadline),
            "layers": (len(job.architecture["layers"]), self.layers),
            "parameters": (job.layout.length, self.parameters),
        }
        for what, (asked, most) in limits.items():
            if asked > most:
                yield f"asks for {asked:g} {what}, of at most {most:g} here"
