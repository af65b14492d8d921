"""Checkpoints: the state after a round, in files that are checked before they are believed.

A checkpoint is one file: a line that names the format, a SHA-256 of all that follows, a line of
JSON, and the vectors' bytes. Clients' own vectors, which only a round's cohort changes, lie in
files of their own, so that a round writes what it changed and no more. The last two checkpoints
are kept, with the clients' vectors that they need.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedsys.errors import StorageError
from fedsys.rounds import State
from fedsys.storage import storing, write_atomic

MAGIC = b"fedsys checkpoint 1\n"
KEPT = 2


@dataclass
class Checkpoints:
    """The checkpoints of one run.

    trajectory: identity of the experiment that the states belong to; see `Experiment`.
    data: fingerprint of the rows that it was trained on; see `Examples`.
    """

    folder: Path
    trajectory: str
    data: str = ""
    _versions: dict[int, tuple[int, str]] = field(default_factory=dict)
    _saved: Mapping[int, np.ndarray] = field(default_factory=dict)
    _stale: list[Path] = field(default_factory=list)

    def save(self, state: State) -> None:
        """Writes the state; afterwards the run can go on from it whatever happens."""
        with storing(self.folder):
            (self.folder / "memory").mkdir(parents=True, exist_ok=True)
        superseded = []
        for client, vector in state.memory.items():
            if self._saved.get(client) is vector:
                continue
            if client in self._versions:
                superseded.append(self._own(client, self._versions[client][0]))
            content = _bytes(vector)
            write_atomic(self._own(client, state.round), [content])
            self._versions[client] = state.round, hashlib.sha256(content).hexdigest()
        self._saved = state.memory
        write_atomic(self._path(state.round), _encoded(state, self._identity, self._versions))
        current = {self._own(client, version[0]) for client, version in self._versions.items()}
        with storing(self.folder):
            for path in [*self._stale, *self._all()[:-KEPT]]:
                # A round that was cut short may have left a file that this one wrote again.
                if path not in current:
                    path.unlink(missing_ok=True)
        self._stale = superseded  # the checkpoint before this one still needs them

    def load(self, empty: State) -> tuple[State, list[str]]:
        """The newest state that is whole, and a warning for each that is not.

        empty: a state of the same kind, which tells what vectors to expect. Raises StorageError
        where no checkpoint is whole, or one is of another experiment.
        """
        warnings: list[str] = []
        for path in reversed(self._all()):
            try:
                state = self._read(path, empty)
            except _Damaged as damaged:
                warnings.append(f"{path}: {damaged}")
                continue
            self._saved = state.memory
            needed = {self._own(client, version[0]) for client, version in self._versions.items()}
            self._stale = [p for p in self.folder.glob("memory/*") if p not in needed]
            with storing(self.folder):
                for later in self._all():
                    if later.name > path.name:
                        later.unlink()
            return state, warnings
        if warnings:
            raise StorageError(f"{'; '.join(warnings)}; no older one is left: start the run anew")
        raise StorageError(f"{self.folder}: holds no checkpoint: start the run anew")

    def exist(self) -> bool:
        """Whether there are any, whole or not."""
        return bool(self._all())

    def _read(self, path: Path, empty: State) -> State:
        header, body = _decoded(_content(path))
        if header["trajectory"] != self.trajectory:
            raise StorageError(
                f"{path}: is of another experiment ({header['trajectory']}, this run's is "
                f"{self.trajectory}): put its experiment.toml back, or start a new run"
            )
        if header.get("data") != self.data:
            raise StorageError(
                f"{path}: was trained on other rows than the task gives now: put the data back, "
                "or start a new run"
            )
        _fits(path, header, _vectors(empty))
        vectors, offset = {}, 0
        for name, dtype, length in header["vectors"]:
            vectors[name] = np.frombuffer(body, dtype, length, offset).copy()
            offset += vectors[name].nbytes
        buffers = vectors.pop("buffers")
        server = type(empty.server)(**vectors)
        self._versions = {int(client): tuple(v) for client, v in header["memory"].items()}
        memory = {
            client: self._read_own(client, *version, dtype=buffers.dtype)
            for client, version in self._versions.items()
        }
        return State(header["round"], server, buffers, memory, header["missed"])

    @property
    def _identity(self) -> dict[str, str]:
        return {"trajectory": self.trajectory, "data": self.data}

    def _read_own(self, client: int, round: int, digest: str, dtype: Any) -> np.ndarray:
        path = self._own(client, round)
        content = _content(path) if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise _Damaged(f"needs {path.name}, which is missing or damaged")
        return np.frombuffer(content, dtype).copy()

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("round-*.checkpoint"))

    def _path(self, round: int) -> Path:
        return self.folder / f"round-{round:08d}.checkpoint"

    def _own(self, client: int, round: int) -> Path:
        return self.folder / "memory" / f"{client}-{round}"


class _Damaged(Exception):
    """A checkpoint that is not what was written."""


def _encoded(
    state: State, identity: Mapping[str, str], versions: Mapping[int, tuple[int, str]]
) -> list[bytes | memoryview]:
    vectors = _vectors(state)
    header = {
        **identity,
        "round": state.round,
        "missed": state.missed,
        "vectors": [[name, str(v.dtype), len(v)] for name, v in vectors.items()],
        "memory": versions,
    }
    parts: list[bytes | memoryview] = [json.dumps(header).encode() + b"\n"]
    parts += [_bytes(vector) for vector in vectors.values()]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return [MAGIC, digest.hexdigest().encode() + b"\n", *parts]


def _vectors(state: State) -> dict[str, np.ndarray]:
    return {**state.server._asdict(), "buffers": state.buffers}


def _fits(path: Path, header: Mapping[str, Any], wanted: Mapping[str, np.ndarray]) -> None:
    """The experiment does not say what is in a user's own task: its model may have changed."""
    held = {name: (dtype, length) for name, dtype, length in header["vectors"]}
    if held != {name: (str(vector.dtype), len(vector)) for name, vector in wanted.items()}:
        raise StorageError(
            f"{path}: is of another model ({_shown(held)}) than the task's now "
            f"({_shown({name: (str(v.dtype), len(v)) for name, v in wanted.items()})}): "
            "put the model back, or start a new run"
        )


def _shown(vectors: Mapping[str, tuple[str, int]]) -> str:
    return ", ".join(f"{length} {name}" for name, (_, length) in vectors.items() if length)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _Damaged(f"cannot be read: {error.strerror or error}") from None


def _bytes(vector: np.ndarray) -> memoryview:
    return memoryview(np.ascontiguousarray(vector).view(np.uint8).data)


def _decoded(content: bytes) -> tuple[dict[str, Any], bytes]:
    if not content.startswith(MAGIC):
        raise _Damaged("is empty or not a checkpoint")
    digest, _, rest = content[len(MAGIC) :].partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != digest:
        raise _Damaged(f"is truncated or damaged ({len(content)} bytes)")
    header, _, body = rest.partition(b"\n")
    return json.loads(header), body
