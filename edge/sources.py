"""What can be exported: a run, a Keras file with sample rows, or a .tflite file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.edge.tflite.reader import read
from fedsys.errors import DataError, StorageError, UsageError

if TYPE_CHECKING:
    from fedsys.objectives import Objective
    from fedsys.partition import Partition
    from fedsys.runs import Run
    from fedsys.task import Examples, Task

_REMEDY = (
    "save one with numpy.savez(FILE, inputs=rows, labels=labels), or with an array for each input "
    "of the model by its name"
)


@dataclass(frozen=True, eq=False)
class Samples:
    """Rows on this machine.

    inputs: [rows, ...] float32, finite; for a model of several inputs one such array for each, by
        name. labels: [rows] or None.
    """

    inputs: np.ndarray | Mapping[str, np.ndarray]
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        """The number of rows."""
        if isinstance(self.inputs, np.ndarray):
            return len(self.inputs)
        return len(next(iter(self.inputs.values())))

    def of(self, names: Sequence[str]) -> list[np.ndarray]:
        """The arrays of a model's inputs, in the order of their names."""
        if isinstance(self.inputs, np.ndarray):
            return [self.inputs]
        return [self.inputs[name] for name in names if name in self.inputs]


@dataclass(frozen=True, eq=False)
class Federation:
    """Who holds which rows of a run's task, and how its model is judged.

    partition: of the rows that clients trained on. held, held_by: the rows on which clients
    evaluate, and who holds them. cohort: clients of a round. seed: of draws. rounds: of training.
    quorum: part of a cohort that must answer.
    """

    task: Task
    partition: Partition
    held: Examples
    held_by: Partition
    objective: Objective
    cohort: int
    seed: int
    rounds: int
    quorum: float


@dataclass(frozen=True, eq=False)
class Source:
    """A model to export, and the rows that go with it.

    place: what a reader knows it by. keras, tflite: the model, one of both. code: Python files
    that define its classes. labels: names of classes. prepared: how raw data became inputs.
    """

    place: str
    keras: Path | None = None
    tflite: bytes | None = None
    code: tuple[Path, ...] = ()
    samples: Samples | None = None
    federation: Federation | None = None
    labels: tuple[str, ...] = ()
    prepared: dict[str, Any] = field(default_factory=dict)


def find(
    source: str | Path,
    runs: Path | str,
    calibration: Path | None,
    method: str,
    tunes: bool,
    task: Task | None = None,
) -> Source:
    """The source that a user named: a .keras or .tflite file, or a run's folder or name.

    runs: the folder of runs. calibration: an .npz of sample rows. tunes: whether clients are to
    fine-tune the model. task: of a run that was handed its task in Python. Raises UsageError
    where the options do not fit the source, DataError and StorageError where something is not
    there.
    """
    path = Path(source)
    samples = read_samples(calibration) if calibration is not None else None
    if tunes and path.suffix in (".keras", ".tflite"):
        raise UsageError(
            f"{path}: --method qat, --prune and --cluster fine-tune in a federation: export the "
            "run that made the model"
        )
    if path.suffix == ".tflite":
        if method != "int8":
            raise UsageError(
                f"{path}: is converted already: leave --method out, or export the model that it "
                "was made from"
            )
        content = _content(path)
        read(path)  # says what is wrong with which file
        return Source(str(path), tflite=content, samples=samples)
    if path.suffix in (".keras", ".h5"):
        if path.suffix == ".h5":
            raise UsageError(f"{path}: is of an older Keras: save it anew as model.keras")
        _content(path)
        if samples is None and method in ("int8", "int16"):
            raise UsageError(
                f"{path}: --method {method} needs rows to learn ranges from: pass --calibration "
                "samples.npz (an array `inputs`), or export the run that made the model"
            )
        return Source(str(path), keras=path, samples=samples)
    return _of_run(str(source), runs, samples, task)


def read_samples(path: Path) -> Samples:
    """The rows of an .npz file. Raises DataError that names what is wrong with which array."""
    if not path.is_file():
        raise DataError(f"--calibration {path}: there is no such file: {_REMEDY}")
    try:
        arrays = _arrays(np.load(path, allow_pickle=False))
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path}: is no .npz file of plain arrays ({error}): {_REMEDY}") from None
    labels = arrays.pop("labels", None)
    if "inputs" in arrays:
        inputs = _checked_inputs(arrays["inputs"], "inputs", path)
        return Samples(inputs, _checked_labels(labels, len(inputs), path))
    if len(arrays) < 2:
        names = ", ".join(map(repr, arrays)) or "nothing"
        raise DataError(f"{path}: holds {names}, needs an array `inputs`: {_REMEDY}")
    named = {name: _checked_inputs(array, name, path) for name, array in arrays.items()}
    if len(sizes := {len(array) for array in named.values()}) > 1:
        raise DataError(f"{path}: its arrays have {min(sizes)} to {max(sizes)} rows: give as many")
    return Samples(named, _checked_labels(labels, max(sizes), path))


def _arrays(loaded: Any) -> dict[str, np.ndarray]:
    """The arrays of a loaded file by name."""
    if isinstance(loaded, np.ndarray):
        return {"an array without a name": loaded}
    with loaded:
        return {name: loaded[name] for name in loaded.files}


def _checked_inputs(inputs: np.ndarray, name: str, path: Path) -> np.ndarray:
    if inputs.dtype.kind not in "biuf":
        raise DataError(f"{path}: `{name}` must be numbers, not {inputs.dtype}")
    if inputs.ndim < 2 or not inputs.size:
        raise DataError(
            f"{path}: `{name}` of shape {inputs.shape} holds no rows: give [rows, ...] as the "
            "model reads them"
        )
    wrong = np.flatnonzero(~np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1))
    if len(wrong):
        raise DataError(
            f"{path}: row {wrong[0]} of `{name}` has a NaN or infinite value "
            f"({len(wrong)} such rows in all): mend or drop them"
        )
    if inputs.min() == inputs.max():
        raise DataError(
            f"{path}: every number of `{name}` is {inputs.flat[0]:g}, from which no range can be "
            "learned: give rows such as the chip will see"
        )
    return inputs.astype(np.float32)


def _checked_labels(labels: np.ndarray | None, rows: int, path: Path) -> np.ndarray | None:
    if labels is None:
        return None
    if labels.shape != (rows,):
        raise DataError(f"{path}: `labels` of shape {labels.shape} for {rows} rows: give one a row")
    if labels.dtype.kind not in "biu" or labels.min() < 0:
        raise DataError(f"{path}: `labels` must be class numbers 0, 1, 2, ..., not {labels.dtype}")
    return labels.astype(np.int64)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _of_run(name: str, runs: Path | str, samples: Samples | None, task: Task | None) -> Source:
    """A run's model, with the clients of its experiment."""
    from fedsys.runs import Run

    if samples is not None:
        raise UsageError(
            "--calibration is for a model file: a run is calibrated by its clients; see "
            "--calibration-clients"
        )
    try:
        run = Run.open(name, runs)
    except StorageError as error:
        raise StorageError(f"{error}; or name a .keras or .tflite file") from None
    if not (run.folder / "model.keras").exists():
        raise StorageError(
            f"{run.folder}: has no model yet: finish it with fedsys simulate --resume {run.folder}"
        )
    federation = _federation(run, task)
    return Source(
        str(run.folder),
        keras=run.folder / "model.keras",
        code=_code(run),
        federation=federation,
        labels=federation.task.classes,
        prepared=federation.task.prepared,
    )


def _federation(run: Run, given: Task | None) -> Federation:
    """The clients of a run, drawn again as they were."""
    from fedsys.objectives import objective
    from fedsys.owners import cohort_size, draw_partition, rule_of
    from fedsys.partition import Partition
    from fedsys.partitions import Natural

    experiment = run.experiment
    task = given or experiment.task.load()
    known = run.known.get("task")
    if known is not None and known != task.name:
        raise UsageError(
            f"{run.folder}: was run on a task {known!r} that was handed over in Python, "
            f"not on {task.name!r}: hand it to export(), or export its model.keras with "
            "--calibration"
        )
    partition = draw_partition(experiment, task.train)
    held, held_by = task.train, partition
    own = task.client_test
    natural = isinstance(rule_of(experiment, task.train), Natural)
    if natural and own is not None and own.owners is not None:
        held, held_by = own, Partition.of(own.owners, len(partition))
    return Federation(
        task, partition, held, held_by, objective(task.objective),
        cohort_size(experiment, partition), experiment.seed,
        experiment.rounds, experiment.quorum,
    )  # fmt: skip


def _code(run: Run) -> tuple[Path, ...]:
    """The file of a task of the user's own, which may define the model's classes."""
    from fedsys.tasks import UserTask

    task = run.experiment.task
    return (Path(task.path).expanduser(),) if isinstance(task, UserTask) else ()
