"""The engine that sends its rounds to TensorFlow Federated, a whole other implementation.

It is there to be compared with: what an algorithm of ours comes to, TFF must come to as well. It
also takes the server's step itself, so `Aggregate.server` is TFF's word, not ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.admission import Reason, Refusal
from fedsys.aggregator import Mean
from fedsys.aggregators import named
from fedsys.engine import Aggregate, Cohorts, Work
from fedsys.engines.tff.architecture import ELSEWHERE, Architecture, architecture
from fedsys.engines.tff.process import Child, not_written
from fedsys.errors import TrainingError, UsageError
from fedsys.local import Sgd
from fedsys.objectives import objective
from fedsys.partition import Partition
from fedsys.plan import draw_plan
from fedsys.strategies import STRATEGIES

if TYPE_CHECKING:
    from fedsys.setting import Setting

SUPPORTED = ("fedavg", "fedsgd", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi")
OBJECTIVES = ("classes", "binary", "squared")

LARGEST = 96 * 2**20
"""Bytes of one client's rows: TFF refuses to send a client more than 100 MiB."""

PIECE = 2**24
"""Bytes of data that are written at once."""


def check(setting: Setting) -> Architecture:
    """The architecture of what is to be trained, or UsageError for what TFF cannot do as we do."""
    experiment = setting.experiment
    local, strategy = experiment.local, experiment.strategy
    name = next((n for n, kind in STRATEGIES.members.items() if type(strategy) is kind), "")
    if name not in SUPPORTED:
        said = name or type(strategy).__name__
        _refuse(f"strategy {said!r} is not to be had in it: use one of {', '.join(SUPPORTED)}")
    if not isinstance(experiment.aggregator, Mean):
        _refuse(f"aggregator {named(experiment.aggregator)} is not to be had in it: use the mean")
    if not isinstance(local.optimizer, Sgd):
        _refuse("clients' Adam has another formula in it: use sgd")
    if local.optimizer.decay:
        _refuse("clients' SGD has no weight decay in it: leave it out")
    if local.clip is not None:
        _refuse("clients cannot clip gradients in it: leave out --clip")
    if experiment.faults is not None:
        _refuse("clients cannot misbehave on purpose in it: leave out --faults")
    if all(setting.objective is not objective(known) for known in OBJECTIVES):
        _refuse(f"objective {setting.objective.name!r} is your own, and its loss is no TFF code")
    if setting.layout.dtype != np.float32:
        _refuse(f"it works in float32, and the model's weights are {setting.layout.dtype}")
    train = setting.task.train
    row = train.inputs[:1].nbytes + train.labels[:1].nbytes
    most = int(setting.partition.sizes.max())
    if most * row > LARGEST:
        _refuse(
            f"it sends a client at most {LARGEST // 2**20} MiB of rows, and one has "
            f"{most * row / 2**20:.0f}: use more clients"
        )
    return architecture(setting.model)


def _refuse(what: str) -> None:
    raise UsageError(f"engine 'tff': {what}, {ELSEWHERE}")


@contextmanager
def opened(
    setting: Setting, told: Architecture, python: Path, workers: int, timeout: float
) -> Iterator[TffEngine]:
    """The engine of a setting, ready for its rounds; its processes end with the context.

    python: of the environment that has TFF. timeout: seconds that the start or a round may take.
    """
    with Child(python, timeout) as child:
        engine = TffEngine(setting, told, child, workers)
        engine.begin()
        yield engine


class TffEngine:
    """Runs cohorts in TensorFlow Federated, in a child process."""

    def __init__(self, setting: Setting, told: Architecture, child: Child, workers: int) -> None:
        experiment = setting.experiment
        self._setting = setting
        self._architecture = told
        self._child = child
        self._workers = workers
        self._strategy = experiment.strategy
        self._local = experiment.strategy.local(experiment.local)
        self._seed = experiment.seed
        # The child has the rows client by client: plans count in that order.
        partition = setting.partition
        places = np.arange(len(partition.order), dtype=partition.order.dtype)
        self._laid_out = Partition(places, partition.start)
        self._versions = ("", "")

    @property
    def facts(self) -> Mapping[str, Any]:
        federated, tensorflow = self._versions
        return {
            "workers": self._workers,
            "where": f"TensorFlow Federated {federated}, {self._workers} clients at a time",
            "tensorflow_federated": federated,
            "tensorflow_of_engine": tensorflow,
        }

    def begin(self) -> None:
        """Gives the child its job and waits until it is ready."""
        folder, train = self._child.folder, self._setting.task.train
        order = self._setting.partition.order
        try:
            _write_rows(folder / "inputs.npy", train.inputs, order)
            _write_rows(folder / "labels.npy", train.labels, order)
            (folder / "job.json").write_text(json.dumps(self._job()))
        except OSError as error:
            raise not_written(folder, error) from error
        federated, tensorflow = self._child.start()["ready"]
        self._versions = str(federated), str(tensorflow)

    def _job(self) -> dict[str, Any]:
        setting, told, local = self._setting, self._architecture, self._local
        assert isinstance(local.optimizer, Sgd), "checked before"
        state = self._strategy.begin(np.zeros(1, np.float32))
        train = setting.task.train
        return {
            "layers": told.layers,
            "variables": told.variables,
            "rows": told.rows,
            "shapes": setting.layout.shapes,
            "shape": train.inputs.shape[1:],
            "inputs": train.inputs.dtype.name,
            "labels": train.labels.dtype.name,
            "objective": setting.objective.name,
            "strategy": STRATEGIES.encode(self._strategy),
            "state": state._fields,
            "local": {"rate": local.rate, "momentum": local.optimizer.momentum},
            "uniform": setting.experiment.weighting == "uniform",
            "start": setting.partition.start.tolist(),
            "cohort": setting.cohort,
            "workers": self._workers,
        }

    def prepare(self, round: int, cohorts: Cohorts) -> None:
        """Nothing: the plan is a small part of a round."""

    def run(self, work: Work) -> Aggregate:
        """One round, by TFF. Raises EngineError where the child fails."""
        cohort = np.sort(work.cohort)
        clients = cohort[self._laid_out.sizes_of(cohort) > 0]
        empty = len(cohort) - len(clients)
        none = np.zeros(0)
        if not len(clients):
            zeros = np.zeros(self._setting.layout.length, np.float32)
            return Aggregate(zeros, 0.0, clients, none, empty=empty)
        counts = self._setting.enrolled[clients]
        plan = draw_plan(self._local, self._laid_out, clients, self._seed, work.round)
        asked = {
            **{f"state.{key}": vector for key, vector in work.state._asdict().items()},
            "clients": clients,
            "counts": counts,
            "rows": plan.rows,
            "begin": plan.begin,
            "length": plan.length,
            "first": plan.first,
        }
        answer = self._child.ask(f"round {work.round}", asked)
        heard, losses = self._heard(answer, counts, work.round)
        refused = tuple(Refusal(int(client), Reason.FINITE) for client in clients[~heard])
        delta, server = answer["delta"], None
        # A mean that is not finite moves nothing in TFF. The round loop then sees what it was.
        if heard.any() and np.isfinite(delta).all():
            server = type(work.state)(**{key: answer[f"state.{key}"] for key in work.state._fields})
        return Aggregate(
            delta=delta,
            weight=float(counts[heard].sum()),
            admitted=clients[heard],
            losses=losses[heard],
            refused=refused,
            empty=empty,
            server=server,
        )

    def _heard(
        self, answer: Mapping[str, np.ndarray], counts: np.ndarray, round: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """[clients], whose update TFF counted, and [clients], their mean losses.

        TFF gives a client whose update is not finite the weight 0 and says nothing. Its FedAvg
        forgets that client's metrics, so it has no steps; its FedSGD does not, so there the loss
        must tell, and the weight says whether it did.
        """
        steps = answer["steps"].astype(np.float64)
        losses = answer["losses"] / np.maximum(steps, 1)
        weight = float(answer["weight"])
        heard = steps > 0
        if not math.isclose(weight, counts[heard].sum(), rel_tol=1e-5):
            heard &= np.isfinite(losses)
        if not math.isclose(weight, counts[heard].sum(), rel_tol=1e-5):
            raise TrainingError(
                f"round {round}: TensorFlow Federated left out clients whose gradients are not "
                "finite, though their losses are, and does not say which: try a lower --rate or "
                "look for very large values in the data"
            )
        return heard, losses

    def close(self) -> None:
        """Ends the child and all that it started."""
        self._child.end()


def _write_rows(path: Path, rows: np.ndarray, order: np.ndarray) -> None:
    """Writes rows in an order as a NumPy file, piece by piece: no second copy in memory."""
    head = {"descr": rows.dtype.str, "fortran_order": False, "shape": (len(order), *rows.shape[1:])}
    block = max(1, PIECE * len(rows) // max(1, rows.nbytes))
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, head)
        for low in range(0, len(order), block):
            file.write(np.ascontiguousarray(rows[order[low : low + block]]).data)
