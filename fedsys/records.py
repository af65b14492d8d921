"""What is written down of a run: its facts at the start, a line a round, its results at the end."""

from __future__ import annotations

import csv
import io
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from fedsys.arithmetic import multiply_accumulates
from fedsys.evaluation import ClientScores
from fedsys.rounds import Round
from fedsys.setting import Setting


def told(happened: Round) -> dict[str, Any]:
    """A round as a line of metrics."""
    aggregate = happened.aggregate
    line: dict[str, Any] = {
        "round": happened.number,
        "clients": len(happened.cohort),
        "admitted": len(aggregate.admitted),
        "refused": len(aggregate.refused),
        "empty": aggregate.empty,
        "moved": happened.moved,
        "train_loss": happened.loss,
        "seconds": round(happened.seconds, 6),
    }
    if aggregate.refused:
        line["reasons"] = happened.refusals
    return line


def facts(setting: Setting) -> dict[str, Any]:
    """What a run came to before its first round, as plain values."""
    summary = setting.partition.summary(setting.task.train.labels)
    return {
        "trajectory": setting.experiment.trajectory,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "fedsys": version("fedsys"),
        "tensorflow": version("tensorflow"),
        "keras": version("keras"),
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores",
        "task": setting.task.name,
        "model_name": setting.model.name,
        "parameters": setting.layout.parameters,
        "buffers": setting.layout.length - setting.layout.parameters,
        "accumulates": multiply_accumulates(setting.model),
        "layers": [_layer(layer) for layer in setting.model.layers],
        "rows": len(setting.task.train),
        "test_rows": len(setting.task.test),
        "classes": list(setting.task.classes),
        "clients": setting.clients,
        "natural": setting.natural,
        "cohort": setting.cohort,
        "partition": vars(summary),
        "partition_lines": summary.lines(),
        "prepared": setting.task.prepared,
    }


def _layer(layer: Any) -> list[Any]:
    """Name, kind, output shape where it is known, and parameters of a layer."""
    try:
        shape = str(tuple(layer.output.shape))
    except (AttributeError, ValueError):
        shape = ""
    return [layer.name, type(layer).__name__, shape, layer.count_params()]


def client_table(setting: Setting, scores: ClientScores) -> str:
    """Each client's rows and metrics as CSV, with the owner's name where owners are natural."""
    named = setting.natural and len(setting.task.owners) == setting.clients
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["client", "rows", *scores.metrics, *(["owner"] if named else [])])
    for client, rows in enumerate(scores.rows):
        values = [f"{metric[client]:.6g}" for metric in scores.metrics.values()]
        owner = [setting.task.owners[client]] if named else []
        table.writerow([client, rows, *values, *owner])
    return text.getvalue()
