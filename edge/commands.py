"""The commands `fedsys export`, `inspect` and `verify`.

What they do is imported when they are called, so that the command line's help stays quick.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

_PATH: Any = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
_QUIET = click.option("--quiet", is_flag=True, help="No progress.")


@click.command()
@click.argument("source", metavar="RUN|FILE")
@click.option(
    "--target",
    default="cortex-m4",
    metavar="CORE",
    help="cortex-m0, m3, m4, m7, m33 or m55 [cortex-m4].",
)
@click.option("--out", type=_PATH, default=Path("build"), help="Folder of the project [build].")
@click.option(
    "--method",
    default="int8",
    metavar="NAME",
    help="int8, int16 (activations), float, dynamic, or qat: fine-tuned to int8 by the "
    "run's clients [int8].",
)
@click.option(
    "--name", default="model", metavar="NAME", help="What files and functions are called [model]."
)
@click.option(
    "--calibration",
    type=_PATH,
    metavar="FILE",
    help="For a model file: an .npz with `inputs` [rows, ...] and, to measure the "
    "accuracy, `labels` [rows].",
)
@click.option(
    "--calibration-clients",
    type=click.IntRange(1),
    metavar="N",
    help="For a run: clients that are asked for ranges [all].",
)
@click.option(
    "--calibration-rows",
    type=click.IntRange(1),
    metavar="N",
    default=256,
    help="Rows that each of them learns ranges from [256].",
)
@click.option(
    "--evaluation-rows",
    type=click.IntRange(1),
    metavar="N",
    default=500,
    help="Rows that each of them compares float with int8 on [500].",
)
@click.option(
    "--calibration-rule",
    default="envelope",
    metavar="RULE",
    help="How ranges become one: envelope (exact), trimmed:N or median:TIMES (against outliers "
    "and poisoned ranges), or histogram:BUCKETS,KEEP (adds up, so that a secure sum can hide who "
    "sent what) [envelope].",
)
@click.option(
    "--prune",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="PART",
    help="The part of weights that become zero, fine-tuned by the run's clients.",
)
@click.option(
    "--cluster",
    type=click.IntRange(2),
    metavar="N",
    help="Different weights that a layer may have, fine-tuned by the run's clients.",
)
@click.option("--rounds", type=click.IntRange(0), metavar="N", help="Rounds of fine-tuning [5].")
@click.option("--max-flash", metavar="SIZE", help="Flash that it may take, such as 64k.")
@click.option("--max-ram", metavar="SIZE", help="RAM that it may take, such as 32k.")
@click.option(
    "--max-drop",
    type=float,
    metavar="POINTS",
    help="Points of accuracy that it may lose against the float model.",
)
@click.option(
    "--max-instructions",
    metavar="N",
    help="Instructions that an inference may take in the emulator, such as 15M.",
)
@click.option(
    "--optimise",
    type=click.Choice(["size", "speed"]),
    default="size",
    help="Whether the cross-compiler is told -Os or -O3 [size].",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    help="Run the generated C here and in the emulator against the reference [yes].",
)
@click.option("--runs", type=_PATH, default=Path("runs"), help="Folder of the runs [runs].")
@_JSON
@_QUIET
def export(source: str, as_json: bool, quiet: bool, out: Path, **options: Any) -> int:
    """Exports a model to a verified C project for a microcontroller.

    RUN is a run's folder or name; FILE a .keras model with --calibration, or an int8 .tflite.
    """
    from fedsys.edge.export import Options
    from fedsys.edge.export import export as start
    from fedsys.edge.report.budget import Budget, read_count, read_size

    flash, ram = options.pop("max_flash"), options.pop("max_ram")
    drop, instructions = options.pop("max_drop"), options.pop("max_instructions")
    budget = Budget(
        flash=read_size(flash, "--max-flash") if flash else None,
        ram=read_size(ram, "--max-ram") if ram else None,
        drop=drop,
        instructions=read_count(instructions, "--max-instructions") if instructions else None,
    )
    runs, wanted = options.pop("runs"), Options(budget=budget, **options)
    with _speaking(quiet) as say:
        exported = start(source, out, wanted, runs=runs, say=say)
    if as_json:
        click.echo(json.dumps({"folder": str(out), **exported.figures.table()}, allow_nan=False))
    else:
        from fedsys.edge.report.text import show

        show(exported.figures)
        click.echo(f"report: {out / 'report.html'}")
    budget.check(exported.figures, str(out / "report.txt"))
    return 0


@click.command()
@click.argument("file", metavar="FILE.tflite", type=_PATH)
@_JSON
def inspect(file: Path, as_json: bool) -> int:
    """Says what is in a .tflite file, layer by layer, and whether it can be exported."""
    from fedsys.edge.tflite.inspection import inspect as look
    from fedsys.edge.tflite.inspection import text

    found = look(file)
    click.echo(json.dumps(found.table(), allow_nan=False) if as_json else text(found))
    return 0


@click.command()
@click.argument("folder", metavar="FOLDER", type=_PATH)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="CORE",
    help="A core to try in the emulator; repeatable [that of the export].",
)
@_JSON
@_QUIET
def verify(folder: Path, targets: tuple[str, ...], as_json: bool, quiet: bool) -> int:
    """Runs an exported project here and in an emulator against the reference, layer by layer."""
    from fedsys.edge.verification.verify import verify as start
    from fedsys.errors import ExportError

    with _speaking(quiet) as say:
        found = start(folder, targets, say)
    click.echo(json.dumps(found.table(), allow_nan=False) if as_json else found.text())
    if found.failed:
        places = ", ".join(trial.place for trial in found.failed)
        raise ExportError(f"{folder}: is not what the reference computes: {places}: export anew")
    if not found.passed:
        lacking = "; ".join(t.note for t in found.trials if t.status == "skipped")
        raise ExportError(f"{folder}: the C was run nowhere: {lacking}")
    return 0


@contextmanager
def _speaking(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Says steps on standard error, and keeps off it what native libraries say of themselves."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with open(kept, "w", encoding="utf-8", errors="replace", closefd=False) as screen:
            yield lambda line: None if quiet else print(line, file=screen, flush=True)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
