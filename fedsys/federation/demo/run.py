"""A federation on one machine, for show: real server and banks, with TLS and keys of their own.

Everything is as in a real deployment but that one person plays all roles: the folders, keys,
certificates and processes are the same, and the banks see nothing of each other.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.clients.bank.home import ALWAYS, BankHome
from fedsys.clients.bank.home import Facts as BankFacts
from fedsys.errors import EngineError, FedsysError
from fedsys.federation.banks import Banks
from fedsys.federation.demo.data import (
    SCHEMA,
    bank_names,
    customers,
    divide,
    write_rows,
)
from fedsys.federation.home import Facts, Home
from fedsys.federation.jobs.folder import DONE, TO_RUN, JobFolder, submit
from fedsys.federation.jobs.request import Request
from fedsys.flower.processes.superlink import LOOPBACK, free_port
from fedsys.supervision import Supervised, log_tail, said

if TYPE_CHECKING:
    from fedsys.tables import Schema, Source

LOOK_SECONDS = 0.1
GRACE_SECONDS = 15.0
"""What a server or a bank gets to end what it started."""


@dataclass(frozen=True)
class Demo:
    """What was made for show. rows: of each bank, by name. source: of the rows, for people."""

    home: Home
    banks: dict[str, BankHome]
    test: Path
    rows: dict[str, int]
    source: str


@dataclass(frozen=True)
class Outcome:
    """Areas under the curve, on customers of all kinds that no bank has trained on."""

    alone: dict[str, float]
    federated: float
    pooled: float
    rows: dict[str, int]
    source: str
    rounds: int
    seconds: float

    def table(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def fraud_request(rounds: int) -> Request:
    """The experiment that the demonstration runs."""
    from fedsys.local import Local

    return Request(
        name="fraud", rounds=rounds, local=Local(epochs=1, batch=32, rate=0.1), deadline=120.0
    )


def set_up(folder: Path, banks: int, data: str | None) -> Demo:
    """Makes the folders of a coordinator and its banks, and gives each bank its rows."""
    found = customers(data)
    parts, test = divide(found, banks)
    names = bank_names(banks)
    facts = Facts(name="demo", host=LOOPBACK, port=free_port(), banks=banks)
    home = Home.create(folder / "coordinator", facts, SCHEMA)
    write_rows(found, test, folder / "test.csv")
    enrolled = Banks(home.folder / "banks.json")
    made = {}
    for name, rows in zip(names, parts, strict=True):
        source = folder / f"{name}.csv"
        write_rows(found, rows, source)
        known = BankFacts(
            name=name,
            federation=facts.name,
            server=facts.address,
            coordinator=home.keys.public.signing,
            source=str(source),
            approve=ALWAYS,
        )
        bank = BankHome.create(folder / name, known, SCHEMA, home.authority_path.read_bytes())
        enrolled.add(name, bank.keys.public)
        enrolled.approve(name)
        made[name] = bank
    counts = {name: len(rows) for name, rows in zip(names, parts, strict=True)}
    return Demo(home, made, folder / "test.csv", counts, found.source)


@contextmanager
def running(demo: Demo, told: Callable[[str], None]) -> Iterator[dict[str, Supervised]]:
    """The processes of a coordinator and its banks: name -> process. All end with the block."""
    with ExitStack() as stack:
        processes = {}
        for name, folder, module in [
            ("server", demo.home.folder, "fedsys.federation.server"),
            *(
                (name, bank.folder, "fedsys.clients.bank.agent")
                for name, bank in demo.banks.items()
            ),
        ]:
            processes[name] = stack.enter_context(_process(name, folder, module, told))
        yield processes


def _process(name: str, folder: Path, module: str, told: Callable[[str], None]) -> Supervised:
    ready = folder / "ready"

    def is_ready(pid: int) -> bool:
        try:
            return ready.read_text() == str(pid)
        except OSError:
            return False

    return Supervised(
        name,
        lambda: [sys.executable, "-m", module, str(folder), str(ready)],
        folder / "process.log",
        is_ready=is_ready,
        explain=lambda log: _last_word(name, log),
        told=told,
        grace=GRACE_SECONDS,
        wait=False,
        variables={"TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def _last_word(name: str, log: str) -> FedsysError | None:
    """What a process of ours said last, if that was an error."""
    last = [line for line in said(log) if line.startswith("fedsys: ")][-1:]
    return EngineError(f"{name}: {last[0].removeprefix('fedsys: ')}") if last else None


def run_demo(
    folder: Path, banks: int, data: str | None, rounds: int, told: Callable[[str], None]
) -> Outcome:
    """Runs the demonstration in a folder, and ends every process that it started."""
    begun = time.monotonic()
    demo = set_up(folder, banks, data)
    told(f"{demo.source}; {banks} banks with {', '.join(f'{n:,}' for n in demo.rows.values())}")
    request = fraud_request(rounds)
    with running(demo, told) as processes:
        job = submit(demo.home, request)
        follow = _Following(demo, job, told)
        # Beside the federation's work: what each bank comes to alone, and all rows together.
        alone, pooled = _compared(demo, request, lambda: follow.look(processes))
        while not follow.look(processes):
            time.sleep(LOOK_SECONDS)
    from fedsys.federation.jobs.run import read_result

    weights = np.concatenate([one.ravel() for one in read_result(job).values()])
    federated = _Baseline(demo.home.schema, request).auc_of_federation(demo, weights)
    seconds = round(time.monotonic() - begun, 1)
    return Outcome(alone, federated, pooled, demo.rows, demo.source, rounds, seconds)


class _Following:
    """Watches a job that runs in other processes."""

    def __init__(self, demo: Demo, job: JobFolder, told: Callable[[str], None]) -> None:
        self._demo, self._job, self._told = demo, job, told
        self._said = 0

    def look(self, processes: dict[str, Supervised]) -> bool:
        """Tells what is new. Whether the job is done; raises what ended it."""
        for process in processes.values():
            process.check()
        lines = said(log_tail(self._demo.home.folder / "process.log"))
        for line in lines[self._said :]:
            self._told(line)
        self._said = max(self._said, len(lines))
        status = self._job.status
        if status.status == DONE:
            return True
        if status.status not in TO_RUN:
            raise EngineError(f"the demonstration stopped: {status.error}")
        return False


def _compared(
    demo: Demo, request: Request, between: Callable[[], object]
) -> tuple[dict[str, float], float]:
    """Each bank's area under the curve alone, and that of all rows together."""
    from fedsys.flower.app.loading import quiet_imports
    from fedsys.tables import open_source

    with quiet_imports():
        import tensorflow  # noqa: F401

    test = open_source(demo.test)
    baseline = _Baseline(demo.home.schema, request)
    sources = {name: bank.source() for name, bank in demo.banks.items()}
    alone = {}
    for name, source in sources.items():
        alone[name] = baseline.auc([source], test)
        between()
    return alone, baseline.auc(list(sources.values()), test)


class _Baseline:
    """The same model and training as a job's, on rows that are in one place."""

    def __init__(self, schema: Schema, request: Request) -> None:
        self._schema, self._request = schema, request

    def auc(self, sources: list[Source], test: Source) -> float:
        """Trained on the rows of the sources together, scaled by their own statistics."""
        from fedsys.clients.trainer import Trainer
        from fedsys.layout import read_weights
        from fedsys.objectives import objective
        from fedsys.randomness import seeded_globals
        from fedsys.tables import Preparation, merge, prepare, summarise
        from fedsys.task import Examples

        schema, request = self._schema, self._request
        made = Preparation.derive(schema, merge([summarise(one, schema) for one in sources]))
        parts = [prepare(source, schema, made).examples for source in sources]
        examples = Examples(
            np.concatenate([part.inputs for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )
        with seeded_globals(request.seed):
            model = request.build(schema)
        weights = read_weights(model)
        trainer = Trainer(
            model,
            objective(schema.objective),
            request.local,
            request.strategy,
            examples,
            client=0,
            weight=1.0,
            seed=request.seed,
        )
        layout = trainer.layout
        for round in range(1, request.rounds + 1):
            state = request.strategy.begin(weights[: layout.parameters])
            moved = trainer.train(round, weights, state).update.tensors
            weights = weights + layout.flatten([moved[name] for name in layout.names])
        return self._scored(weights, test, made)

    def auc_of_federation(self, demo: Demo, weights: np.ndarray) -> float:
        """Of a federation's model, with the scaling that its banks had."""
        import json

        from fedsys.tables import Preparation, open_source

        said = json.loads((demo.home.folder / "preparation.json").read_text())
        made = Preparation.of(said, self._schema)
        return self._scored(weights, open_source(demo.test), made)

    def _scored(self, weights: np.ndarray, test: Source, made: Any) -> float:
        from fedsys.evaluation import Scorer, score
        from fedsys.objectives import objective
        from fedsys.tables import prepare

        rows = prepare(test, self._schema, made).examples
        scorer = Scorer(self._request.build(self._schema), rows.inputs)
        outputs = scorer.outputs(weights, rows.inputs)
        return score(objective(self._schema.objective), rows.labels, outputs)["auc"]
