"""A federation without processes, for tests: jobs run over a grid whose banks are lines of NumPy.

The coordinator's side is the real one: folders, statistics, the round loop, checkpoints, the log.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from flwr.app import Array, Context, Message, RecordDict
from flwr.serverapp import Grid

from fedsys.admission import Update
from fedsys.clients.trainer import Trained
from fedsys.federation.banks import Bank, Banks
from fedsys.federation.enrolment.approvals import statistics_request
from fedsys.federation.enrolment.standing import Standings
from fedsys.federation.home import Facts, Home
from fedsys.federation.jobs.folder import JobFolder, submit
from fedsys.federation.jobs.messages import ASK, read_job_record, summary_content
from fedsys.federation.jobs.quarantine import round_lines
from fedsys.federation.jobs.request import Request
from fedsys.federation.jobs.run import run_job
from fedsys.flower import compat
from fedsys.flower.rounds.client import Member, client_app
from fedsys.flower.rounds.messages import INSTRUCTION, UPDATE
from fedsys.tables import open_source, summarise
from fedsys.trust.jobs import Job, open_job
from fedsys.trust.keys import make_keys, read_keys
from fedsys.trust.signing import ring, sign
from tests.federation.doors import SCHEMA

FIRST_NODE, RUN = 100, 7
FOR_EVER = 6e5
"""Seconds that no test lives to see."""


def spoil(content: RecordDict) -> None:
    """Makes an update one that is refused."""
    tensors: Any = content[UPDATE]
    name = next(iter(tensors))
    tensors[name] = Array(np.full_like(tensors[name].numpy(), np.nan))


class BanksGrid(Grid):
    """Nodes that answer at once. away: clients that are not there. faults: (client, round) -> what
    becomes of the reply's content. before: is called with each round's first instruction. asked:
    (client, round) of every message, round 0 for statistics."""

    def __init__(self, home: Home, names: list[str]) -> None:
        self.home, self.names = home, names
        self.away: set[int] = set()
        self.faults: dict[tuple[int, int], Callable[[RecordDict], None]] = {}
        self.before: Callable[[int], None] = lambda round: None
        self.asked: list[tuple[int, int]] = []
        self.sources = {}
        for client, name in enumerate(names):
            path = home.folder.parent / f"{name}.csv"
            path.write_text(rows_of(client))
            self.sources[client] = open_source(path)
        self._job: Job | None = None
        self._nodes = [
            Context(RUN, FIRST_NODE + i, {}, RecordDict(), {}) for i in range(len(names))
        ]
        self._app = client_app(self._member)
        self._replies: dict[str, Message] = {}
        self._round = 0

    def node_of(self, nodes: Any) -> Callable[[int], int | None]:
        return lambda client: None if client in self.away else nodes.get(client)

    def push_messages(self, messages: Any) -> list[str]:
        ids = []
        for message in messages:
            client = message.metadata.dst_node_id - FIRST_NODE
            instruction = message.content.get(INSTRUCTION)
            round = 0 if instruction is None else int(instruction["round"])
            if round > self._round:
                self._round = round
                self.before(round)
            self.asked.append((client, round))
            name = uuid4().hex
            compat.name_message(message, name)
            reply = self._answer(client, message)
            self.faults.get((client, round), lambda content: None)(reply.content)
            self._replies[name] = reply
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Any) -> list[Message]:
        found = [self._replies.pop(name, None) for name in message_ids]
        return [one for one in found if one is not None]

    def _answer(self, client: int, message: Message) -> Message:
        if ASK in message.content:
            said = summarise(self.sources[client], self.home.schema)
            return Message(summary_content(said), reply_to=message)
        signed, _ = read_job_record(message.content)
        keys = ring(self.home.keys.signing.public_key())
        self._job, _ = open_job(signed, keys, self.home.facts.name)
        return self._app(message, self._nodes[client])

    def _member(self, experiment: str, client: int, context: Context) -> Member:
        job = self._job
        assert job is not None
        layout, strategy = job.layout, job.terms.strategy
        point = np.random.default_rng(client).normal(size=layout.length).astype(layout.dtype)

        def train(round: int, anchor: Any, state: Any, own: Any) -> Trained:
            moved = (0.1 * (point - anchor)).astype(layout.dtype)
            new = None
            if strategy.remembers:
                own = np.zeros(layout.parameters, layout.dtype) if own is None else own
                new = strategy.receive(state, own, moved[: layout.parameters], 0.5)
            weight = float(rows(client))
            return Trained(Update(layout.named(moved), weight), float(client), new)

        return Member(client, experiment, layout, strategy, train)

    # --- what nobody uses here ---

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        raise NotImplementedError

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        raise NotImplementedError


def rows(client: int) -> int:
    """How many a bank has."""
    return 40 + 10 * client


def rows_of(client: int) -> str:
    """A bank's table."""
    drawn = np.random.default_rng(client)
    lines = ["age,income,late"]
    for _ in range(rows(client)):
        age, income = drawn.integers(18, 90), drawn.integers(500, 9000)
        lines.append(f"{age},{income},{int(drawn.random() < 0.5)}")
    return "\n".join(lines) + "\n"


class InProcess:
    """A coordinator and banks. approved: how many of them, the first ones."""

    def __init__(self, folder: Path, banks: int, approved: int | None = None) -> None:
        self.home = Home.create(folder / "home", Facts("test", "127.0.0.1", banks=2), SCHEMA)
        self.banks = Banks(self.home.folder / "banks.json")
        self.names = [f"bank-{letter}" for letter in "abcdefgh"[:banks]]
        for number, name in enumerate(self.names):
            self.banks.add(name, make_keys(folder / name).public)
            self.banks.approve(name, number < (banks if approved is None else approved))
        self.grid = BanksGrid(self.home, self.names)
        self.said: list[str] = []

    def current(self) -> tuple[list[Bank], dict[int, int]]:
        banks = self.banks.approved()
        return banks, {bank.number: FIRST_NODE + bank.number for bank in banks}

    def stands(
        self,
        name: str,
        jobs: Sequence[str] = (),
        refused: Sequence[str] = (),
        statistics: bool = True,
    ) -> None:
        """Says what a bank whose officer sees each job first has approved, and refused.

        statistics: whether the request for those is among what was approved.
        """
        seen = [statistics_request(self.home).digest] if statistics else []
        body = {"bank": name, "approves": "ask", "jobs": [*seen, *jobs], "version": "1.0",
                "head": None, "refused": list(refused)}  # fmt: skip
        keys = read_keys(self.home.folder.parent / name)
        signed = sign(keys.signing, body, purpose="standing", audience=self.home.facts.name)
        Standings(self.home.folder / "standing").keep(name, signed.data())

    def ask(self, name: str = "first", **options: Any) -> JobFolder:
        options = {"model": "logistic", "rounds": 5, "quorum": 2, "deadline": FOR_EVER, **options}
        return submit(self.home, Request(name=name, **options))

    def run(self, job: JobFolder) -> Any:
        """Runs a job, or goes on with it, as a coordinator does that has just been started."""
        self.grid._round = 0
        grid: Any = self.grid
        return run_job(self.home, job, self.current, grid, self.said.append)

    def audited(self, event: str) -> list[dict[str, Any]]:
        """The log's entries of one kind."""
        text = (self.home.folder / "audit.jsonl").read_text()
        entries = map(json.loads, text.splitlines())
        return [entry["details"] for entry in entries if entry["event"] == event]

    def asked(self, name: str) -> list[int]:
        """The rounds that a bank was asked in."""
        client = self.names.index(name)
        return [round for one, round in self.grid.asked if one == client and round]


def made_by(job: JobFolder) -> list[str]:
    """The last letters of the banks that made each round."""
    return ["".join(name[-1] for name in line["banks"]) for line in round_lines(job.metrics)]


@contextmanager
def in_process(folder: Path, banks: int, approved: int | None = None) -> Iterator[InProcess]:
    """The same, where messages can be made."""
    with compat.identity(RUN):
        yield InProcess(folder, banks, approved)
