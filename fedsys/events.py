"""A run's metrics as TensorBoard events, one event a round."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.summary_pb2 import Summary
from tensorflow.core.util.event_pb2 import Event

from fedsys.storage import storing

FLUSH_SECONDS = 2.0


class EventWriter:
    """Appends events to a file of its own in `folder`; TensorBoard reads all of a run's files."""

    def __init__(self, folder: Path) -> None:
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / name
        with storing(self._path):
            folder.mkdir(exist_ok=True)
        self._writer = tf.io.TFRecordWriter(str(self._path))
        self._put(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._flushed = time.monotonic()

    def write(self, round: int, metrics: Mapping[str, Any]) -> None:
        """Writes every number among the metrics, train_loss as train/loss."""
        values = [
            Summary.Value(tag=name.replace("_", "/", 1), simple_value=float(value))
            for name, value in metrics.items()
            if isinstance(value, int | float) and name != "round"
        ]
        self._put(Event(wall_time=time.time(), step=round, summary=Summary(value=values)))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def _put(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())

    def _flush(self) -> None:
        self._writer.flush()
        self._flushed = time.monotonic()

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
