"""What this process and the foreman's say to each other, and the foreman to its workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsys.engine import Partial
from fedsys.layout import Layout


@dataclass(frozen=True)
class Opening:
    """What the foreman needs to open workers.

    address: of a cluster, or None for a Ray of our own. folder: for that Ray's files.
    workers: how many, or None for as many as there are cores for. threads: of a worker.
    version: of fedsys, which every node must have.
    """

    address: str | None
    folder: str
    workers: int | None
    threads: int
    store: int
    version: str


@dataclass(frozen=True)
class Recruits:
    """What workers are made of.

    recipe: a `parcels.Recipe`, pickled: only workers can read it.
    layout, remembers: of the model and the strategy, to add partials up.
    homes: worker by worker, the rows' numbers in the order of its clients, and where the clients
        begin in it; empty where every worker has the rows of all.
    arrays: inputs and labels of the rows that follow this message, worker by worker or once for
        all: (shape, dtype); empty where workers read for themselves.
    """

    recipe: bytes
    layout: Layout
    remembers: bool
    homes: Sequence[tuple[np.ndarray, np.ndarray]] = ()
    arrays: Sequence[tuple[tuple[int, ...], str]] = ()


@dataclass(frozen=True)
class Job:
    """A round. given: its anchor and the server's state, pickled. shards: clients, by worker.
    memory: of the shards' clients, shard by shard. ahead: the next round's shards, if known."""

    round: int
    given: bytes
    shards: Sequence[np.ndarray]
    memory: Sequence[Mapping[int, np.ndarray]]
    ahead: Sequence[np.ndarray] = ()


# What the foreman answers.


@dataclass(frozen=True)
class Connected:
    """Ray is there, with room for this many workers."""

    workers: int
    ray: str


@dataclass(frozen=True)
class Held:
    """What a worker holds. bytes: of rows; resident: of memory that is its own alone, all told."""

    node: str
    host: str
    pid: int
    xla: bool
    rows: int
    bytes: int
    resident: int


@dataclass(frozen=True)
class Ready:
    """The workers are there."""

    held: Sequence[Held]


@dataclass(frozen=True)
class Summed:
    """The sum of a round."""

    partial: Partial


@dataclass(frozen=True)
class Said:
    """Something that the user should know."""

    line: str


@dataclass(frozen=True)
class Failed:
    """The end: an error by the name of its class."""

    kind: str
    line: str
