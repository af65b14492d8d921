"""What a worker is made of, packed so that it can be unpacked on another machine."""

from __future__ import annotations

import mmap
import os
import pickle
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.aggregator import Aggregator
from fedsys.clients.faults import Fault
from fedsys.errors import DataError, UsageError
from fedsys.local import Local
from fedsys.objectives import Objective
from fedsys.strategy import Strategy
from fedsys.task import Examples, TaskSpec

if TYPE_CHECKING:
    import keras

    from fedsys.setting import Setting

INSTALLED = {"site-packages", "dist-packages"}
"""Folders of packages that other machines are expected to have, too."""

STANDARD = sysconfig.get_path("stdlib")
"""Folder of Python's own modules."""


@dataclass(frozen=True)
class Mapped:
    """An array that lies in a file: its rows are read where they are needed, and only they."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, array: np.ndarray) -> Mapped | None:
        """The array's place in its file, or None where it is not simply mapped from one."""
        if not isinstance(array, np.memmap) or not array.flags.c_contiguous:
            return None
        mapped = getattr(array, "_mmap", None)
        if array.filename is None or mapped is None:
            return None
        start = np.frombuffer(mapped, np.uint8).ctypes.data
        # A map begins at the page in which the array's file offset lies; a slice keeps that.
        begin = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
        offset = begin + array.ctypes.data - start
        return cls(str(Path(array.filename).resolve()), array.dtype.str, array.shape, int(offset))

    def open(self) -> np.ndarray:
        """The array, mapped again. Raises DataError where the file is not there."""
        try:
            return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: cannot be mapped here: {error}") from None


@dataclass(frozen=True)
class Reader:
    """Reads the rows of a task where they are wanted: by its name, or out of mapped files.

    task: what the experiment names, read in `folder`; else inputs and labels as they are mapped.
    shape, dtype: of all inputs where the run began.
    """

    task: TaskSpec | None
    folder: str
    inputs: Mapped | None
    labels: Mapped | np.ndarray | None
    shape: tuple[int, ...]
    dtype: str

    def rows(self, order: np.ndarray) -> Examples:
        """The rows of these numbers, copied out of what is then let go."""
        inputs, labels = self._all()
        if inputs.shape != self.shape or inputs.dtype.str != self.dtype:
            raise DataError(
                f"the data here are {inputs.dtype} of shape {inputs.shape}, but "
                f"{np.dtype(self.dtype)} of shape {self.shape} where the run began: "
                "give all nodes the same"
            )
        return Examples(np.asarray(inputs[order]), np.asarray(labels[order]))

    def _all(self) -> tuple[np.ndarray, np.ndarray]:
        if self.task is None:
            labels = self.labels.open() if isinstance(self.labels, Mapped) else self.labels
            assert self.inputs is not None and labels is not None
            return self.inputs.open(), labels
        if os.path.isdir(self.folder):
            os.chdir(self.folder)  # a task's paths may be relative
        examples = self.task.load().train
        return examples.inputs, examples.labels


@dataclass(frozen=True)
class Recipe:
    """A compiled engine to be, without its rows.

    sizes: [clients], rows of each client, for those who have them all. seed, uniform, xla: as the
    engine takes them. cohort: clients that a worker meets in a round, about.
    """

    name: str
    model: Callable[[], keras.Model]
    objective: Objective | str
    strategy: Strategy
    aggregator: Aggregator
    local: Local
    fault: Fault | None
    seed: int
    uniform: bool
    xla: bool | None
    threads: int
    cohort: int
    start: np.ndarray
    reader: Reader | None

    @classmethod
    def of(cls, setting: Setting, xla: bool | None, threads: int, reader: Reader | None) -> Recipe:
        experiment, task = setting.experiment, setting.task
        # No client fills a longer batch, for which memory would be kept all the same.
        batch = min(experiment.local.batch, int(setting.partition.sizes.max()))
        return cls(
            task.name,
            task.model,
            task.objective,
            experiment.strategy,
            experiment.aggregator,
            replace(experiment.local, batch=batch),
            experiment.faults,
            experiment.seed,
            experiment.weighting == "uniform",
            xla,
            threads,
            setting.cohort,
            setting.partition.start,
            reader,
        )

    def packed(self) -> bytes:
        """The recipe as bytes. Raises UsageError for what cannot travel."""
        return packed(self, f"task {self.name!r}")


def reader_of(setting: Setting) -> Reader | None:
    """What reads the setting's rows elsewhere, or None where they are only in memory here."""
    train = setting.task.train
    shape, dtype = train.inputs.shape, train.inputs.dtype.str
    if not setting.handed:
        return Reader(setting.experiment.task, os.getcwd(), None, None, shape, dtype)
    inputs = Mapped.of(train.inputs)
    if inputs is None:
        return None
    return Reader(None, "", inputs, Mapped.of(train.labels) or train.labels, shape, dtype)


def packed_state(anchor: np.ndarray, state: Any) -> bytes:
    """A round's anchor and server state as bytes."""
    if type(state).__module__.startswith("fedsys."):  # no code of the user's: nothing to look for
        return pickle.dumps((anchor, state), pickle.HIGHEST_PROTOCOL)
    return packed((anchor, state), "the server's state")


def packed(value: Any, what: str) -> bytes:
    """The value as bytes, with the code that it needs of the user's own.

    Raises UsageError, which begins with `what`, where something in it cannot travel.
    """
    from ray import cloudpickle

    try:
        with _by_value(cloudpickle):
            packed: bytes = cloudpickle.dumps(value)  # type: ignore[no-untyped-call]
            return packed
    except Exception as error:  # whatever a user's object does when it is pickled
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{what} cannot be sent to workers: {type(error).__name__}: {reason}: "
            "make such values inside the functions that use them"
        ) from error


def unpacked(data: Any) -> Any:
    """What was packed. data: bytes, or an array of them."""
    return pickle.loads(memoryview(data))


@contextmanager
def _by_value(cloudpickle: Any) -> Iterator[None]:
    """Inside, what the user's own modules define is packed whole: nobody has them elsewhere."""
    kept = cloudpickle.list_registry_pickle_by_value()
    own = [module for name, module in list(sys.modules.items()) if _is_own(name, module)]
    own = [module for module in own if module.__name__ not in kept]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)


def _is_own(name: str, module: Any) -> bool:
    """Whether a module is the user's."""
    path = getattr(module, "__file__", None)
    if name.startswith(("fedsys.", "tensorflow.", "keras.")) or not isinstance(path, str):
        return False
    return name not in ("__main__", "fedsys") and _own_file(path) and module.__name__ == name


@cache  # asked each round of some thousand modules
def _own_file(path: str) -> bool:
    """Whether a file is neither Python's nor installed."""
    file = Path(path)
    return not INSTALLED & set(file.parts) and not file.is_relative_to(STANDARD)
