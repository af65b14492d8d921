"""The steps of an export: a model and rows in, a project folder and its figures out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedsys.edge.calibration import CLIENTS, calibrate, federated_calibration
from fedsys.edge.code import generate
from fedsys.edge.convert import float_model
from fedsys.edge.lower import lower
from fedsys.edge.program import Program
from fedsys.edge.quantize import quantize
from fedsys.edge.reader import read
from fedsys.edge.report.figures import Calibration, Figures, Score
from fedsys.edge.report.measure import layers
from fedsys.edge.report.memory import flash, places, ram
from fedsys.edge.report.noise import decibels, measured
from fedsys.edge.scoring import federated_score, sample_score
from fedsys.edge.sources import Federation, Source
from fedsys.edge.targets import target
from fedsys.edge.toolchain import install, missing
from fedsys.edge.toolchain import sizes as measure
from fedsys.errors import DataError
from fedsys.rounds import draw_cohort

if TYPE_CHECKING:
    from fedsys.edge.export import Options

Say = Callable[[str], None]

OPTIMISE = {"size": "-Os", "speed": "-O3"}
NOISE_ROWS = 128
"""Rows of all clients together on which each layer's noise is measured."""

EVERY_RANGE = (
    "the least and greatest value of every activation over all rows, to whoever holds the file; "
    "nothing leaves this machine"
)


@dataclass(frozen=True, eq=False)
class Converted:
    """A model as .tflite. floats: as it was trained, None where only integers were given.
    data: as it goes onto the chip. calibration: where its ranges come from."""

    floats: bytes | None
    data: bytes
    calibration: Calibration | None


def convert(source: Source, options: Options, say: Say) -> Converted:
    """The .tflite of a source by the method that was asked for."""
    if source.tflite is not None:
        return Converted(None, source.tflite, None)
    assert source.keras is not None
    say(f"converting {source.keras}")
    floats = float_model(source.keras, source.code)
    if options.method in ("float", "dynamic"):
        return Converted(floats, quantize(floats, None, options.method), None)
    ranges, calibration = learned_ranges(floats, source, options, say)
    if options.method == "qat":
        from fedsys.edge.tuning import tune

        return Converted(floats, tune(source, floats, ranges, options, say), calibration)
    say(f"quantising to {options.method}")
    return Converted(floats, quantize(floats, ranges, options.method), calibration)


def learned_ranges(
    floats: bytes, source: Source, options: Options, say: Say
) -> tuple[dict[str, tuple[float, float]], Calibration]:
    """The range of each activation, from a run's clients or from sample rows."""
    federation = source.federation
    if federation is not None:
        cohort = chosen(federation, options.calibration_clients or CLIENTS)
        say(f"calibrating on {len(cohort)} clients, rule {options.calibration_rule}")
        found = federated_calibration(
            floats,
            lambda client: rows_of(federation, client, options.calibration_rows),
            options.calibration_rule,
            cohort=cohort,
            quorum=federation.quorum,
        )
        note = f"{found.empty} clients without rows sent nothing" if found.empty else ""
        return found.ranges, Calibration(
            found.rule, found.clients, found.rows or 0, found.payload, found.reveals, True,
            found.refusals, note,
        )  # fmt: skip
    assert source.samples is not None
    rows = source.samples.inputs
    say(f"calibrating on {len(rows)} rows")
    try:
        ranges = calibrate(floats, rows)
    except DataError as error:
        raise DataError(f"--calibration {options.calibration}: {error}") from None
    return ranges, Calibration("envelope", 0, len(rows), None, EVERY_RANGE, False)


def chosen(federation: Federation, count: int) -> list[int]:
    """The clients that are asked: as many, drawn from the run's seed, or all."""
    clients = len(federation.partition)
    # The round after the last: a draw that training did not make.
    drawn = draw_cohort(federation.seed, federation.rounds + 1, clients, min(count, clients))
    return [int(client) for client in drawn]


def rows_of(federation: Federation, client: int, most: int | None = None) -> np.ndarray:
    """A client's training rows, the first ones where there are too many."""
    return federation.task.train.inputs[federation.partition[client][:most]]


def versions() -> dict[str, str]:
    """What the export was made with."""
    said = {"Python": ".".join(map(str, sys.version_info[:3]))}
    packages = {
        "fedsys": "fedsys",
        "TensorFlow": "tensorflow",
        "Keras": "keras",
        "LiteRT": "ai-edge-litert",
        "AI Edge Quantizer": "ai-edge-quantizer",
    }
    for title, name in packages.items():
        with suppress(PackageNotFoundError):
            said[title] = version(name)
    return said


def make(source: Source, options: Options, folder: Path, say: Say) -> Figures:
    """Makes the project in the folder and says what is known of it."""
    made = convert(source, options, say)
    model = read(made.data)
    program = lower(model)
    generated = generate(program, options.name)
    chip, notes = target(options.target), []
    sizes = None
    if missing("arm-none-eabi-gcc"):
        notes.append(f"sizes of code were not measured: {install('arm-none-eabi-gcc')}")
    else:
        say(f"compiling for {chip.name}")
        entry = f"{options.name}_run"
        sizes = measure(generated.sources, chip, OPTIMISE[options.optimise], entry=entry)
    score: Score | None = None
    noise: dict[int, float] = {}
    if made.floats is not None:
        score, noise = _quality(program, made.floats, source, options, say)
    return Figures(
        name=options.name,
        source=source.place,
        target=chip.name,
        method=options.method,
        file=len(made.data),
        layers=layers(model, noise),
        flash=flash(program, sizes),
        ram=ram(program, generated.arena, sizes.stack if sizes else None, sizes),
        places=places(program, generated.arena),
        score=score,
        calibration=made.calibration,
        notes=tuple(notes),
        facts=versions(),
    )


def _quality(
    program: Program, floats: bytes, source: Source, options: Options, say: Say
) -> tuple[Score | None, dict[int, float]]:
    """The score and the noise of each layer, where there are rows."""
    if len(program.model.inputs) != 1 or len(program.model.outputs) != 1:
        return None, {}
    federation = source.federation
    if federation is not None:
        cohort = chosen(federation, options.calibration_clients or CLIENTS)
        say(f"evaluating on {len(cohort)} clients, float against {options.method}")
        score = federated_score(program, floats, federation, cohort, options.evaluation_rows)
        share = max(1, NOISE_ROWS // len(cohort))
        rows = [rows_of(federation, client, share) for client in cohort]
        return score, decibels(program, [measured(floats, program, some) for some in rows])
    if source.samples is None:
        return None, {}
    say(f"evaluating on {len(source.samples.inputs)} rows, float against {options.method}")
    score = sample_score(program, floats, source.samples)
    return score, decibels(program, [measured(floats, program, source.samples.inputs[:NOISE_ROWS])])
