"""A run's metrics as TensorBoard events, one event a round."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.summary_pb2 import Summary
from tensorflow.core.util.event_pb2 import Event

from fedsys.storage import not_written, storing


class EventWriter:
    """Appends events to a file of its own in `folder`; TensorBoard reads all of a run's files."""

    def __init__(self, folder: Path) -> None:
        now = time.time_ns()  # its end tells files of one process and second apart
        who = f"{socket.gethostname()}.{os.getpid()}"
        name = f"events.out.tfevents.{now // 10**9}.{who}.{now % 10**9:09d}"
        self._path = folder / name
        with storing(self._path):
            folder.mkdir(exist_ok=True)
        self._writer = tf.io.TFRecordWriter(str(self._path))
        self._put(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, round: int, metrics: Mapping[str, Any]) -> None:
        """Writes every number among the metrics, train_loss as train/loss."""
        values = [
            Summary.Value(tag=name.replace("_", "/", 1), simple_value=float(value))
            for name, value in metrics.items()
            if isinstance(value, int | float) and name != "round"
        ]
        self._put(Event(wall_time=time.time(), step=round, summary=Summary(value=values)))

    def _put(self, event: Event) -> None:
        with self._storing():
            self._writer.write(event.SerializeToString())
            self._writer.flush()  # to the system: a kill loses nothing

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:  # TensorFlow's own, in place of an OSError
            full = isinstance(error, tf.errors.ResourceExhaustedError)
            number = errno.ENOSPC if full else errno.EIO
            raise not_written(self._path, OSError(number, os.strerror(number))) from error

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._storing() if error is None else suppress(tf.errors.OpError):
            self._writer.close()
