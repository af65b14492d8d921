"""A worker: rows and a compiled engine in a process of Ray's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.engine import Partial, Work
from fedsys.engines.ray.messages import Held
from fedsys.engines.ray.parcels import Reader, Recipe, unpacked
from fedsys.errors import DataError, FedsysError
from fedsys.partition import Partition
from fedsys.randomness import seeded_globals
from fedsys.task import Examples, Task

if TYPE_CHECKING:
    from fedsys.engines.compiled import CompiledEngine


class Worker:
    """Trains parts of cohorts. An actor: Ray calls its methods, one at a time."""

    def __init__(self) -> None:
        self._engine: CompiledEngine | None = None

    def open(
        self,
        packed: np.ndarray,
        home: tuple[np.ndarray, np.ndarray] | None = None,
        inputs: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> Held:
        """Makes the engine.

        packed: a recipe. home: the rows' numbers in the order of this worker's clients, and
        [clients + 1] where each begins in it; None where it has those of all clients.
        inputs, labels: of these rows, in that order; None where the worker reads them.
        """
        with _told():
            recipe: Recipe = unpacked(packed)
            start = recipe.start if home is None else home[1]
            if inputs is not None and labels is not None:
                examples = Examples(inputs, labels)
            else:
                assert recipe.reader is not None and home is not None
                examples = _read(recipe.reader, home[0])
            self._engine = _engine(recipe, examples, start)
            rows, size = len(examples), examples.inputs.nbytes + examples.labels.nbytes
            del inputs, labels, examples  # the engine has its own copy
            host, process = socket.gethostname(), os.getpid()
            return Held(_node(), host, process, self._engine.xla, rows, size, _resident())

    def run(
        self,
        round: int,
        shard: np.ndarray,
        given: np.ndarray,
        memory: Mapping[int, np.ndarray],
        ahead: np.ndarray | None,
    ) -> Partial:
        """The sums over a shard ([clients] numbers).

        given: (anchor, server state), packed. memory: the clients' own vectors. ahead: the shard
        of this worker in the next round, which is planned beside this one. A worker that was told
        one gets it first of all in that round.
        """
        engine = self._engine
        assert engine is not None
        with _told():
            anchor, state = unpacked(given)
            if ahead is not None:
                engine.prepare(round + 1, lambda _: ahead)
            return engine.partial(Work(round, shard, anchor, state, memory))


def _read(reader: Reader, order: np.ndarray) -> Examples:
    try:
        return reader.rows(order)
    except DataError as error:  # what is here may be elsewhere
        raise DataError(f"node {socket.gethostname()}: {error}") from None


def _engine(recipe: Recipe, examples: Examples, start: np.ndarray) -> CompiledEngine:
    from fedsys.engines.compiled import CompiledEngine, use_threads

    use_threads(recipe.threads, recipe.cohort)
    with seeded_globals(recipe.seed):
        model = recipe.model()
    if not model.built:
        model.build((None, *examples.inputs.shape[1:]))
    places = np.arange(len(examples))
    return CompiledEngine(
        Task(recipe.name, recipe.model, examples, examples, recipe.objective),
        model,
        Partition(places, start),
        recipe.strategy,
        recipe.local,
        seed=recipe.seed,
        uniform=recipe.uniform,
        fault=recipe.fault,
        aggregator=recipe.aggregator,
        workers=recipe.threads,
        xla=recipe.xla,
    )


@contextmanager
def _told() -> Iterator[None]:
    """Makes an error into one that another process can read."""
    try:
        yield
    except FedsysError as error:
        if type(error).__module__.startswith("fedsys."):
            raise
        raise FedsysError(str(error)) from error
    except Exception as error:
        import tensorflow as tf

        message = " ".join(str(getattr(error, "message", error)).split())
        if isinstance(error, MemoryError | tf.errors.ResourceExhaustedError):
            raise MemoryError(message) from None
        if isinstance(error, OSError):
            raise DataError(f"on {socket.gethostname()}: {message}") from None
        raise


def _node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _resident() -> int:
    """Bytes of memory that are this process's alone; 0 where the system does not say."""
    with suppress(OSError, ValueError), open("/proc/self/status") as file:
        lines: dict[str, Any] = dict(line.split(":", 1) for line in file)
        return int(lines["RssAnon"].split()[0]) * 1024
    return 0
