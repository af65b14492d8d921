"""Quantisation-aware fine-tuning, pruning and clustering, over the clients of a federation.

The server holds no rows. It draws masks and clusters from the global weights, sends weights and
ranges, averages what clients send back (McMahan et al. 2017) and merges ranges by envelope. The
ranges are measured before the first step: a fine-tuning whose ranges begin anywhere else, as
TFMOT's do, ends below plain post-training quantisation.

TensorFlow Model Optimization needs Keras 2 and imposes it on its process, so all of it happens in
a worker (`qat_worker`).
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fedsys.checks import above, at_least, at_most
from fedsys.edge.conversion import worker
from fedsys.edge.tuning import qat_worker
from fedsys.errors import DataError, UsageError, nearest
from fedsys.partition import Partition

RANGES = ("measured", "moving", "cold")
"""How ranges of activations come about.

measured: by all clients before the first step and after the last, by the cohort after each round.
moving: measured before the first step, then moving averages at the clients, averaged.
cold: TFMOT's own: from -6 to 6, then moving averages. For comparison.
"""


@dataclass(frozen=True, eq=False)
class FineTuned:
    """tflite: the int8 model. keras: a .keras file with the fine-tuned float weights.

    report: `rounds` (clients, rows, loss of each), `ranges` (layer -> low, high), `kernels`
    (layer -> weights, zeros, clusters), `payload` (bytes a client sends a round), `method`.
    """

    tflite: bytes
    keras: bytes
    report: Mapping[str, Any]


def fine_tune(
    keras_file: Path, clients: Sequence[tuple[np.ndarray, np.ndarray]], **options: Any
) -> FineTuned:
    """`fine_tune_rows` for clients whose rows lie apart: (rows [n, ...], labels [n]) of each."""
    rows, labels, partition = joined(clients)
    return fine_tune_rows(keras_file, rows, labels, partition, **options)


def fine_tune_rows(
    keras_file: Path,
    rows: np.ndarray,
    labels: np.ndarray,
    partition: Partition,
    *,
    objective: str = "classes",
    qat: bool = True,
    prune: float | None = None,
    cluster: int | None = None,
    ranges: str = "measured",
    rounds: int = 5,
    cohort: int | None = None,
    epochs: int = 1,
    batch: int = 16,
    rate: float = 0.001,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
    timeout: float = 3600.0,
) -> FineTuned:
    """Fine-tunes a Keras 3 model at its clients and converts it to int8.

    rows: [rows, ...], labels: [rows], of all clients; partition: who holds which.
    qat: train with quantisation emulated; else in float, and only the result is quantised.
    prune: share of each kernel's weights that becomes zero. cluster: most different values that
        a kernel of int8 has. ranges: one of `RANGES`. cohort: clients a round, all where None.
    epochs, batch, rate: of plain SGD at a client; a higher rate lets clients with labels of their
        own pull the model apart. progress: called with a line after each round,
        from another thread. timeout: seconds.

    Batch normalisation keeps its running averages. The same arguments give the same bytes.
    Raises UsageError for settings that make no sense, DataError for rows or a file that do not
    fit, ExportError for a model that cannot be trained this way or a worker that crashed, and
    TrainingError where the numbers are lost.
    """
    keras_file = Path(keras_file)
    cohort = len(partition) if cohort is None else cohort
    _check(keras_file, rows, labels, partition)
    _check_settings(prune, cluster, ranges)
    try:
        at_least(0, rounds=rounds, batch=batch)
        at_least(1, epochs=epochs, cohort=cohort)
        at_most(len(partition), cohort=cohort)
        above(0, rate=rate)
    except ValueError as error:
        raise UsageError(f"fine-tuning: {error}") from None
    with tempfile.TemporaryDirectory(prefix="fedsys-") as folder:
        lines = Path(folder) / "progress.txt"
        with _followed(lines, progress):
            made = worker.call(
                qat_worker.fine_tune,
                doing=f"fine-tuning {keras_file.name}",
                timeout=timeout,
                environment={"TF_USE_LEGACY_KERAS": "1"},
                keras_file=keras_file,
                rows=np.asarray(rows, np.float32),
                labels=np.asarray(labels),
                order=partition.order,
                start=partition.start,
                objective=objective,
                qat=qat,
                prune=prune,
                cluster=cluster,
                ranges=ranges,
                rounds=rounds,
                cohort=cohort,
                epochs=epochs,
                batch=batch,
                rate=rate,
                seed=seed,
                progress=lines,
            )
    return FineTuned(made["tflite"], made["keras"], made["report"])


def joined(
    clients: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, Partition]:
    """(rows, labels, who holds which) of clients' own arrays. DataError where they do not fit."""
    if not clients:
        raise DataError("there are no clients to fine-tune at")
    for number, (rows, labels) in enumerate(clients):
        if len(rows) != len(labels):
            raise DataError(f"client {number} has {len(rows)} rows but {len(labels)} labels")
        if rows.shape[1:] != clients[0][0].shape[1:]:
            raise DataError(
                f"client {number} has rows of shape {rows.shape[1:]}, "
                f"client 0 of {clients[0][0].shape[1:]}"
            )
    start = np.concatenate([[0], np.cumsum([len(rows) for rows, _ in clients])])
    rows = np.concatenate([rows for rows, _ in clients])
    labels = np.concatenate([labels for _, labels in clients])
    return rows, labels, Partition(np.arange(len(rows)), start)


def _check(keras_file: Path, rows: np.ndarray, labels: np.ndarray, partition: Partition) -> None:
    """Raises for files and rows that cannot be used, before a worker starts."""
    if not keras_file.is_file():
        raise DataError(f"{keras_file}: no such file: give a model saved as .keras")
    if not len(partition.order):
        raise DataError("no client has a row to fine-tune on")
    if not len(rows) == len(labels) == len(partition.order):
        raise DataError(
            f"{len(rows)} rows, {len(labels)} labels and {len(partition.order)} rows dealt out: "
            "give one label a row and each row to one client"
        )
    whole = np.isfinite(np.asarray(rows, np.float32)).reshape(len(rows), -1).all(axis=1)
    if not whole.all():
        bad = int(np.flatnonzero(~whole)[0])
        raise DataError(f"row {bad} holds NaN or infinity: mend the data before fine-tuning")


def _check_settings(prune: float | None, cluster: int | None, ranges: str) -> None:
    """Raises UsageError for what makes no sense, or needs packages that are not there."""
    if find_spec("tensorflow_model_optimization") is None or find_spec("tf_keras") is None:
        raise UsageError(
            "fine-tuning needs tensorflow-model-optimization and tf-keras: "
            "pip install 'fedsys[qat]'"
        )
    if prune is not None and not 0 < prune < 1:
        raise UsageError(f"prune must be above 0 and below 1, the share of zeros, not {prune:g}")
    if cluster is not None and not 2 <= cluster <= 255:
        raise UsageError(f"cluster must be 2 to 255 values a kernel, not {cluster}")
    if ranges not in RANGES:
        raise UsageError(f"ranges: {ranges!r} is unknown; {nearest(ranges, RANGES)}")


@contextmanager
def _followed(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Tells each line that appears in a file, from a thread, until the block ends."""
    ended = threading.Event()

    def follow() -> None:
        told = 0
        while True:
            last = ended.wait(0.2)
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            whole = text[: text.rfind("\n") + 1].splitlines()
            for line in whole[told:]:
                tell(line)
            told = len(whole)
            if last:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
