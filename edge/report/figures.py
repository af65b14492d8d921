"""What is known of an exported model: plain values, from which text, JSON and page are made.

Whatever was not measured is None, and is said as not known; it is never guessed. All sizes are
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedsys.edge.report.boards import Fit, fits


@dataclass(frozen=True)
class Layer:
    """An operator of the model.

    name: of its output tensor, after the Keras layer. shape: of its output, without the batch.
    macs: multiply-accumulates. parameters: numbers among its constants that training moved (shapes
    and axes do not count). weights: their bytes. activation: bytes of its outputs.
    sqnr: signal-to-quantisation-noise in dB, its output against the float model's; None where
    it has no counterpart, infinity where there is no difference.
    instructions: in the emulator.
    """

    index: int
    operator: str
    name: str
    shape: tuple[int, ...]
    macs: int
    parameters: int
    weights: int
    activation: int
    sqnr: float | None = None
    instructions: int | None = None


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in the arena, and while which steps (first to last, both counted)."""

    name: str
    offset: int
    size: int
    first: int
    last: int


@dataclass(frozen=True)
class Flash:
    """Flash that the model takes. weights, tables: constants; code: instructions.

    measured: whether a cross-compiler said it; else code is not known and counts nothing.
    """

    weights: int
    tables: int
    code: int | None = None

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.tables + (self.code or 0)


@dataclass(frozen=True)
class Ram:
    """RAM that the model takes. arena: between layers; io: input and output buffers of the caller;
    stack: the deepest, where it was measured."""

    arena: int
    io: int
    stack: int | None = None

    @property
    def total(self) -> int:
        """All of it."""
        return self.arena + self.io + (self.stack or 0)


@dataclass(frozen=True)
class Score:
    """Float model against exported model on the same rows.

    floating, exported: the metric of each (accuracy as a part of one), None where rows bear no
    labels. agreement: the part of rows for which
    both decide alike; None where the model decides nothing. where: whose rows. worst: points of
    accuracy that the client lost that lost most.
    """

    metric: str
    floating: float | None
    exported: float | None
    agreement: float | None
    rows: int
    clients: int
    where: str
    worst: float | None = None

    @property
    def drop(self) -> float | None:
        """What the export lost: points of accuracy (hundredths), else in the metric's unit."""
        if self.floating is None or self.exported is None:
            return None
        lost = self.floating - self.exported
        return 100 * lost if self.metric == "accuracy" else -lost


@dataclass(frozen=True)
class Calibration:
    """Where the ranges of activations come from.

    payload: bytes that a client sent. reveals: what that tells the server, in a sentence.
    refused: why clients were not counted -> how many.
    """

    rule: str
    clients: int
    rows: int
    payload: int | None
    reveals: str
    federated: bool
    refused: Mapping[str, int] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Check:
    """A run of the generated C against the reference.

    place: 'host' or a core. status: 'passed', 'failed' or 'skipped'. note: why.
    """

    place: str
    status: str
    note: str = ""
    values: int | None = None
    mismatches: int | None = None
    instructions: int | None = None


@dataclass(frozen=True)
class Figures:
    """All that a report says.

    source: what was exported. target: the core it was compiled for. file: bytes of the .tflite.
    places: the arena's map. budget: (what, wanted, got) of each budget; broken: those that failed,
    each a line with a remedy. standalone: whether it needs no interpreter.
    """

    name: str
    source: str
    target: str
    method: str
    file: int
    layers: tuple[Layer, ...]
    flash: Flash
    ram: Ram
    places: tuple[Place, ...] = ()
    instructions: int | None = None
    score: Score | None = None
    calibration: Calibration | None = None
    checks: tuple[Check, ...] = ()
    broken: tuple[str, ...] = ()
    budgets: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    standalone: bool = True

    @property
    def macs(self) -> int:
        """Multiply-accumulates of an inference."""
        return sum(layer.macs for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Numbers that training moved."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def boards(self) -> tuple[Fit, ...]:
        """How it lies on the boards that we know; none where an interpreter comes on top."""
        if not self.standalone:
            return ()
        return fits(self.flash.total, self.ram.total)

    @property
    def verified(self) -> bool | None:
        """Whether every check that ran passed; None where none ran."""
        ran = [check.status for check in self.checks if check.status != "skipped"]
        return all(status == "passed" for status in ran) if ran else None

    def table(self) -> dict[str, Any]:
        """All of it as plain values for JSON; infinities become None."""
        said = {**asdict(self), "macs": self.macs, "parameters": self.parameters}
        said["flash"]["total"], said["ram"]["total"] = self.flash.total, self.ram.total
        said["verified"] = self.verified
        if self.score is not None:
            said["score"]["drop"] = self.score.drop
        for layer in said["layers"]:
            layer["exact"] = layer["sqnr"] == float("inf")
            layer["sqnr"] = None if layer["exact"] else layer["sqnr"]
        said["boards"] = [
            {"name": fit.board.name, "core": fit.board.core, "flash": fit.flash, "ram": fit.ram,
             "fits": fit.fits}
            for fit in self.boards
        ]  # fmt: skip
        return said
