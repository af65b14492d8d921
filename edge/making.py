"""The steps of an export: a model and rows in, a project folder and its figures out."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.edge.calibration.federated import CLIENTS, calibrate, federated_calibration
from fedsys.edge.code import Generated, generate
from fedsys.edge.conversion.convert import float_model
from fedsys.edge.conversion.quantize import quantize
from fedsys.edge.integers.evaluate import chip_answer
from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.program import Program
from fedsys.edge.project.folder import Details, read_manifest, write_project
from fedsys.edge.project.golden import Golden, golden
from fedsys.edge.report.figures import Calibration, Check, Figures, Flash, Ram, Score
from fedsys.edge.report.measure import layers
from fedsys.edge.report.memory import flash, places, ram
from fedsys.edge.report.noise import decibels, measured
from fedsys.edge.report.scoring import federated_score, runtime_answer, sample_score
from fedsys.edge.report.wording import bytes_said
from fedsys.edge.sources import Federation, Source
from fedsys.edge.tflite.inspection import peak
from fedsys.edge.tflite.reader import read
from fedsys.edge.verification.targets import target
from fedsys.edge.verification.toolchain import install, missing
from fedsys.edge.verification.toolchain import sizes as measure
from fedsys.edge.verification.verify import Trial, verify
from fedsys.errors import DataError, ExportError
from fedsys.report.wording import many
from fedsys.rounds import draw_cohort
from fedsys.storage import storing

if TYPE_CHECKING:
    from fedsys.edge.export import Options

Say = Callable[[str], None]

PLACES = {"interpreter": "TensorFlow Lite Micro", "host": "this machine"}
OPTIMISE = {"size": "-Os", "speed": "-O3"}
NOISE_ROWS = 128
"""Rows of all clients together on which each layer's noise is measured."""

TUNING_ROUNDS = 5
TUNING_REVEALS = (
    "what training reveals, a client's change of the weights, and its least and greatest value of "
    "each layer's output"
)

INTERPRETED = {
    "int16": "C is generated for int8 alone: TensorFlow Lite Micro runs this file; flash is its "
    "file without the interpreter, RAM the activations alive at once",
    "float": "C is generated for int8 alone: TensorFlow Lite Micro runs this file, slowly without "
    "a floating-point unit; flash is its file without the interpreter, RAM the activations alive "
    "at once",
    "dynamic": "weights are int8 and activations float, which no microcontroller's interpreter "
    "runs: LiteRT on a telephone or a gateway does; for a microcontroller take --method int8",
}
"""What to know of a file that only an interpreter runs."""

EVERY_RANGE = (
    "the least and greatest value of every activation over all rows, to whoever holds the file; "
    "nothing leaves this machine"
)


@dataclass(frozen=True, eq=False)
class Converted:
    """A model as .tflite. floats: as it was trained, None where only integers were given.
    data: as it goes onto the chip. calibration: where its ranges come from. tuned: the float
    model that `data` is the image of, where that is not `floats`."""

    floats: bytes | None
    data: bytes
    calibration: Calibration | None
    tuned: bytes | None = None
    notes: tuple[str, ...] = ()


def convert(source: Source, options: Options, say: Say) -> Converted:
    """The .tflite of a source by the method that was asked for."""
    if source.tflite is not None:
        return Converted(None, source.tflite, None)
    assert source.keras is not None
    say(f"converting {source.keras}")
    floats = float_model(source.keras, source.code)
    if options.method in ("float", "dynamic"):
        return Converted(floats, quantize(floats, None, options.method), None)
    if options.tunes:
        return _tuned(floats, source, options, say)
    ranges, calibration = learned_ranges(floats, source, options, say)
    say(f"quantising to {options.method}")
    return Converted(floats, quantize(floats, ranges, options.method), calibration)


def learned_ranges(
    floats: bytes, source: Source, options: Options, say: Say
) -> tuple[dict[str, tuple[float, float]], Calibration]:
    """The range of each activation, from a run's clients or from sample rows."""
    federation = source.federation
    if federation is not None:
        cohort = chosen(federation, options.calibration_clients or CLIENTS)
        say(f"calibrating on {many(len(cohort), 'client')}, rule {options.calibration_rule}")
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
    count = len(source.samples)
    say(f"calibrating on {many(count, 'row')}")
    try:
        ranges = calibrate(floats, source.samples.inputs)
    except DataError as error:
        raise DataError(f"--calibration {options.calibration}: {error}") from None
    return ranges, Calibration("envelope", 0, count, None, EVERY_RANGE, False)


def _tuned(floats: bytes, source: Source, options: Options, say: Say) -> Converted:
    """The model fine-tuned to int8 by a run's clients."""
    from fedsys.edge.tuning.qat import fine_tune_rows

    federation = source.federation
    assert source.keras is not None and federation is not None, "find() asks for a run"
    train = federation.task.train
    rounds = TUNING_ROUNDS if options.rounds is None else options.rounds
    say(f"fine-tuning in {many(rounds, 'round')} of {many(federation.cohort, 'client')}")
    tuned = fine_tune_rows(
        source.keras,
        train.inputs,
        train.labels,
        federation.partition,
        objective=federation.objective.name,
        qat=options.method == "qat",
        prune=options.prune,
        cluster=options.cluster,
        rounds=rounds,
        cohort=federation.cohort,
        seed=federation.seed,
        progress=say,
    )
    calibration = Calibration(
        "envelope",
        len(federation.partition),
        len(train),
        int(tuned.report["payload"]),
        TUNING_REVEALS,
        True,
        note="ranges were measured before, between and after the rounds of fine-tuning",
    )
    with TemporaryDirectory(prefix="fedsys-") as place:
        keras_file = Path(place) / "tuned.keras"
        keras_file.write_bytes(tuned.keras)
        image = float_model(keras_file, source.code)
    notes = (
        (_kernels(tuned.report["kernels"], tuned.tflite),)
        if options.prune or options.cluster
        else ()
    )
    return Converted(floats, tuned.tflite, calibration, image, notes)


def _kernels(kernels: Mapping[str, Mapping[str, Any]], tflite: bytes) -> str:
    """What pruning and clustering left of the kernels, in a sentence.

    kernels: layer -> `weights`, how many; `zeros`, the part that is zero; `clusters` or None.
    """
    weights = sum(each["weights"] for each in kernels.values())
    zeros = sum(each["zeros"] * each["weights"] for each in kernels.values())
    said = [f"{zeros / max(1, weights):.0%} of the kernels' weights are zero"]
    clusters = [each["clusters"] for each in kernels.values() if each["clusters"]]
    if clusters:
        said.append(f"a channel has at most {max(clusters)} different ones")
    packed = len(zlib.compress(tflite, 9))
    return (
        f"{' and '.join(said)}: compressed, the file is {bytes_said(packed)} "
        f"of {bytes_said(len(tflite))} on its way to a device; flash and RAM of the generated C "
        "stay the same"
    )


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
    if options.method in ("int8", "qat"):
        return _project(made, source, options, folder, say)
    return _file_alone(made, source, options, folder, say)


def _project(made: Converted, source: Source, options: Options, folder: Path, say: Say) -> Figures:
    """An int8 model: a project in C with all figures."""
    model = read(made.data)
    program = lower(model)
    generated = generate(program, options.name)
    chip, notes = target(options.target), list(made.notes)
    score: Score | None = None
    noise: dict[int, float] = {}
    if made.floats is not None:
        score, noise = _quality(program, made, source, options, say)
        if score is None:
            notes.append("accuracy and noise are measured for one input and one output alone")
    say("writing the project")
    # Rows of a federation's clients stay with them: its golden vectors are drawn.
    names = [model.tensors[number].name for number in model.inputs]
    rows = None if source.samples is None else source.samples.of(names)
    _write(folder, made, program, generated, golden(program, rows), source, options)
    need = read_manifest(folder)["interpreter_arena"]
    optimise = OPTIMISE[options.optimise]
    sizes = None
    if missing("arm-none-eabi-gcc"):
        notes.append(f"sizes of code were not measured: {install('arm-none-eabi-gcc')}")
    else:
        say(f"compiling for {chip.name}")
        sizes = measure(generated.sources, chip, optimise, entry=f"{options.name}_run")
    trials = _verified(folder, chip.name, say) if options.verify else ()
    ran = next((trial for trial in trials if trial.place == f"{chip.name} {optimise}"), None)
    stack = ran.stack if ran and ran.stack is not None else sizes.stack if sizes else None
    return Figures(
        name=options.name,
        source=source.place,
        target=chip.name,
        method=options.method,
        file=len(made.data),
        layers=layers(model, noise),
        flash=flash(program, sizes),
        ram=ram(program, generated.arena, stack, sizes),
        places=places(program, generated.arena),
        instructions=ran.instructions if ran else None,
        score=score,
        calibration=made.calibration,
        checks=checks(trials),
        notes=tuple(notes),
        facts={
            "Compiled with": f"arm-none-eabi-gcc {optimise}" if sizes else "nothing",
            "Arena of TensorFlow Lite Micro": f"{bytes_said(need['bytes'])}"
            f" + {bytes_said(need['margin'])} margin",
            **versions(),
        },
    )


def _write(
    folder: Path,
    made: Converted,
    program: Program,
    generated: Generated,
    vectors: Golden,
    source: Source,
    options: Options,
) -> None:
    details = Details(
        source=source.place,
        method=options.method,
        target=options.target,
        labels=source.labels,
        prepared=source.prepared,
        calibration=asdict(made.calibration) if made.calibration else {},
    )
    write_project(folder, made.data, program, generated, vectors, details)


def _verified(folder: Path, core: str, say: Say) -> tuple[Trial, ...]:
    """The trials of a project. Raises ExportError where one failed."""
    found = verify(folder, [core], say)
    if found.failed:
        said = "; ".join(f"{trial.place}: {trial.note}" for trial in found.failed)
        raise ExportError(f"the generated C does not compute what the reference does: {said}")
    return found.trials


def checks(trials: Sequence[Trial]) -> tuple[Check, ...]:
    """Trials of code as a report says them: a note where something is to be explained."""
    return tuple(
        Check(
            PLACES.get(trial.place, trial.place),
            trial.status,
            "" if trial.status == "passed" and trial.values is not None else trial.note,
            trial.values,
            None if trial.values is None else len(trial.mismatches),
            trial.instructions,
        )
        for trial in trials
        if trial.place not in ("files", "golden")
    )


def _file_alone(
    made: Converted, source: Source, options: Options, folder: Path, say: Say
) -> Figures:
    """A model that only an interpreter runs: its file and what can be counted in it."""
    model = read(made.data)
    with storing(folder):
        (folder / f"{options.name}.tflite").write_bytes(made.data)
    score = None
    if len(model.inputs) == len(model.outputs) == 1 and made.floats is not None:
        answer = runtime_answer(made.data, model)
        if source.federation is not None:
            cohort = chosen(source.federation, options.calibration_clients or CLIENTS)
            say(f"evaluating on {many(len(cohort), 'client')}, float against {options.method}")
            score = federated_score(
                answer, made.floats, source.federation, cohort, options.evaluation_rows
            )
        elif source.samples is not None:
            rows = many(len(source.samples), "row")
            say(f"evaluating on {rows}, float against {options.method}")
            score = sample_score(answer, model, made.floats, source.samples)
    found = layers(model)
    weights = sum(layer.weights for layer in found)
    return Figures(
        name=options.name,
        source=source.place,
        target="an interpreter",
        method=options.method,
        file=len(made.data),
        layers=found,
        flash=Flash(weights, len(made.data) - weights),
        ram=Ram(peak(model), 0),
        score=score,
        calibration=made.calibration,
        notes=(INTERPRETED[options.method],),
        facts=versions(),
        standalone=False,
    )


def _quality(
    program: Program, made: Converted, source: Source, options: Options, say: Say
) -> tuple[Score | None, dict[int, float]]:
    """The score and the noise of each layer, where there are rows."""
    assert made.floats is not None
    if len(program.model.inputs) != 1 or len(program.model.outputs) != 1:
        return None, {}
    federation, samples = source.federation, source.samples
    if federation is not None:
        cohort = chosen(federation, options.calibration_clients or CLIENTS)
        say(f"evaluating on {many(len(cohort), 'client')}, float against {options.method}")
        score = federated_score(
            chip_answer(program), made.floats, federation, cohort, options.evaluation_rows
        )
        share = max(1, NOISE_ROWS // len(cohort))
        parts = [rows_of(federation, client, share) for client in cohort]
    elif samples is not None:
        say(f"evaluating on {many(len(samples), 'row')}, float against {options.method}")
        score = sample_score(chip_answer(program), program.model, made.floats, samples)
        parts = [samples.of([program.model.tensors[program.model.inputs[0]].name])[0][:NOISE_ROWS]]
    else:
        return None, {}
    image = made.tuned or made.floats
    return score, decibels(image, program, [measured(image, program, rows) for rows in parts])
