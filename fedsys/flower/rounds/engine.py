"""Our round over any grid of Flower's: its nodes train, we admit and add up.

    with compat.identity(run_id):          # not needed inside a ServerApp
        engine = GridEngine(
            grid, layout, strategy, setting.enrolled,
            experiment="eu-credit-7", node_of={0: 11, 1: 12}.get, waiting=Waiting(deadline=600),
        )
        for state, happened in run_rounds(state, strategy, engine, layout, ...): ...

The same engine serves the simulation (Ray or in process) and real banks on a SuperLink.

**Clients' own vectors** (SCAFFOLD). In a deployment they stay with the clients. After a round a
client sends how its vector changed; the server adds the admitted changes up and remembers, for
each client, the round of the last vector that it has counted. The next instruction names that
round, and the client goes on from the vector it had then. So a lost answer, a refused update, a
missed quorum or a server that resumes at an earlier checkpoint leaves no two sides that believe
different things. In a simulation (`own_stays=False`) the vectors travel, since they must lie in the
checkpoints of the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from fedsys.admission import Gate, Reason, Refusal, Refused
from fedsys.aggregator import Aggregator, Mean, Sees
from fedsys.engine import Aggregate, Cohorts, Partial, Work
from fedsys.errors import UsageError
from fedsys.flower.rounds.exact import ExactSum
from fedsys.flower.rounds.mail import Lost, NodeOf, Waiting, exchange
from fedsys.flower.rounds.messages import Answer, Broadcast, read_answer
from fedsys.layout import Layout
from fedsys.strategy import Strategy, Vector

Told = Callable[[int, str], None]
ADMITTED = "admitted"
"""Is told of a client, and what came of it: `ADMITTED`, with what was odd after it, or why not."""

Check = Callable[[int, RecordDict], None]
"""Looks at what a client sent beside our own records; raises `Refused`."""

Dress = Callable[[int, RecordDict], RecordDict]
"""What is sent to a client: the content with records of one's own added, such as a signature."""


NAMED = 1024
"""Bytes of a tensor in a message beside its numbers: its name, its shape, ids of its pieces."""


class GridEngine:
    """Runs cohorts on the nodes of a grid. Is an `Engine`.

    layout: of the model. enrolled: [clients], the weight that each counts with; a client of
    weight 0 has no rows and is not asked. experiment: which one, as the clients know it.
    node_of: client -> node id, or None while the client is away. waiting: see `Waiting`; it has
    enough of updates that were admitted. away: see `exchange`.
    aggregator: see `Aggregator`. own_stays: whether the clients' own vectors stay with them; see
    above.
    facts: what to say of where this runs. told, check, dress: see `Told`, `Check`, `Dress`.
    lost: is told of a client that gave no answer, and may raise to end the run.

    Sums are in float64 at twice its precision, so the order in which answers come changes
    nothing, and memory is that of a few vectors, however many clients there are, unless the
    aggregator sees all updates beside each other.
    """

    def __init__(
        self,
        grid: Grid,
        layout: Layout,
        strategy: Strategy,
        enrolled: np.ndarray,
        *,
        experiment: str,
        node_of: NodeOf,
        waiting: Waiting = Waiting(),  # noqa: B008
        away: Collection[int] = (),
        aggregator: Aggregator = Mean(),  # noqa: B008
        own_stays: bool = True,
        facts: Mapping[str, Any] | None = None,
        told: Told = lambda client, what: None,
        check: Check = lambda client, content: None,
        dress: Dress = lambda client, content: content,
        lost: Callable[[int, Lost], None] = lambda client, lost: None,
    ) -> None:
        self.layout = layout
        self._grid = grid
        self._strategy = strategy
        self._enrolled = enrolled
        self._experiment = experiment
        self._node_of = node_of
        self._waiting, self._away = waiting, away
        self._aggregator = aggregator
        self._own_stays = own_stays
        self._facts = dict(facts or {"workers": len(enrolled), "where": "Flower"})
        self._told, self._check, self._dress, self._lost = told, check, dress, lost
        self._gate = Gate(layout)

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._facts

    def prepare(self, round: int, cohorts: Cohorts) -> None: ...

    def close(self) -> None: ...

    def run(self, work: Work) -> Aggregate:
        return self.partial(work).aggregate(self.layout.dtype, self._aggregator)

    def partial(self, work: Work) -> Partial:
        """The sums over a cohort, or over the part of it that `work` names."""
        asked = [int(client) for client in work.cohort if self._enrolled[client] > 0]
        broadcast = Broadcast.of(
            self._experiment, work.round, work.anchor, self._strategy, work.state
        )
        sums = _Sums(self.layout, self._strategy.remembers, self._aggregator)
        vectors = self.layout.length + self.layout.parameters * self._strategy.remembers
        answers = exchange(
            self._grid,
            asked,
            lambda client: self._dress(client, self._instruction(broadcast, work, client)),
            self._node_of,
            round=work.round,
            reply_bytes=vectors * self.layout.dtype.itemsize + NAMED * len(self.layout.names),
            waiting=self._waiting,
            enough=lambda: sums.admitted >= self._waiting.enough * len(asked),
            away=self._away,
        )
        for client, content in answers:
            self._told(client, self._counted(sums, broadcast, work, client, content))
            del content  # not held while the next is fetched
        return sums.partial(empty=len(work.cohort) - len(asked))

    def _instruction(self, broadcast: Broadcast, work: Work, client: int) -> RecordDict:
        kept = work.memory.get(client)
        if not self._strategy.remembers:
            return broadcast.to(client)
        if self._own_stays:
            return broadcast.to(client, 0 if kept is None else round_of(kept))
        if kept is None:
            kept = np.zeros(self.layout.parameters, self.layout.dtype)
        if len(kept) != self.layout.parameters:
            raise UsageError(
                "this run was deployed, and the clients' own vectors are with the clients: it "
                "cannot go on as a simulation"
            )
        return broadcast.to(client, own=kept)

    def _counted(
        self, sums: _Sums, broadcast: Broadcast, work: Work, client: int, content: RecordDict | Lost
    ) -> str:
        """Counts what came from a client, and says what came of it."""
        if isinstance(content, Lost):
            self._lost(client, content)
            return sums.refuse(Refusal(client, content.reason, content.detail))
        loss = float("nan")
        try:
            self._check(client, content)
            answer = read_answer(content, self.layout, broadcast, client)
            loss = answer.loss
            delta = self._gate.admit(answer.update, float(self._enrolled[client]))
            change = self._change(answer, work.memory.get(client))
        except Refused as refused:
            return sums.refuse(Refusal(client, refused.reason, refused.detail, loss))
        sums.add(client, answer.update.weight, loss, delta, change)
        if self._strategy.remembers:
            own = stamp(work.round, self.layout.dtype) if self._own_stays else answer.own
            sums.memory[client] = np.array(own)  # not a view of the whole message
        return f"{ADMITTED}; {answer.remark}" if answer.remark else ADMITTED

    def _change(self, answer: Answer, kept: Vector | None) -> Vector | None:
        """How a client's own vector changed, by what it sent."""
        if not self._strategy.remembers:
            return None
        if answer.own is None:
            raise Refused(Reason.MISSING, "the change of its own vector")
        if not np.isfinite(answer.own).all():
            raise Refused(Reason.FINITE, "the change of its own vector")
        return answer.own if self._own_stays or kept is None else answer.own - kept


class _Sums:
    """A partial in the making."""

    def __init__(self, layout: Layout, remembers: bool, aggregator: Aggregator) -> None:
        self._aggregator = aggregator
        self._updates: list[Vector] = []
        self._total = ExactSum(layout.length)
        self._drift = ExactSum(layout.parameters) if remembers else None
        self._clients: list[int] = []
        self._losses: list[float] = []
        self._weights: list[float] = []
        self._refused: list[Refusal] = []
        self.memory: dict[int, np.ndarray] = {}

    def add(
        self, client: int, weight: float, loss: float, delta: Vector, change: Vector | None
    ) -> None:
        delta = self._aggregator.limit(delta)
        self._total.add(delta, weight)
        if self._aggregator.sees is Sees.ALL:
            self._updates.append(delta)
        if self._drift is not None and change is not None:
            self._drift.add(change, weight)
        self._clients.append(client)
        self._losses.append(loss)
        self._weights.append(weight)

    @property
    def admitted(self) -> int:
        return len(self._clients)

    def refuse(self, refusal: Refusal) -> str:
        self._refused.append(refusal)
        return f"{refusal.reason}: {refusal.detail}"

    def partial(self, empty: int) -> Partial:
        return Partial(
            total=self._total.value,
            weight=math.fsum(self._weights),
            clients=np.array(self._clients, np.int64),
            losses=np.array(self._losses, float),
            refused=self._refused,
            empty=empty,
            drift=None if self._drift is None else self._drift.value,
            memory=dict(sorted(self.memory.items())),
            updates=np.array(self._updates) if self._updates else None,
        )


def stamp(round: int, dtype: np.dtype[Any]) -> np.ndarray:
    """A round as the few numbers that a checkpoint keeps in place of a client's vector."""
    return np.array([round], np.int64).view(dtype)


def round_of(kept: np.ndarray) -> int:
    """The round in a `stamp`. Raises UsageError for what is a client's vector itself."""
    if kept.nbytes != 8:
        raise UsageError(
            "this run's checkpoints hold the clients' own vectors, which a deployment leaves with "
            "the clients: start a new run"
        )
    return int(np.ascontiguousarray(kept).view(np.int64)[0])
