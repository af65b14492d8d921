"""From a trained model to a verified project for a microcontroller, and the report of it.

    convert -> ranges from clients or samples -> quantise -> read -> lower -> generate C
            -> score, measure, verify -> report -> budgets

The project is made in a folder beside the one that was asked for and moved there whole: a failure
leaves what was there before. A broken budget is no failure of the export: the project is kept.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedsys.edge.calibration.merges import MERGES
from fedsys.edge.report.budget import Budget
from fedsys.edge.report.figures import Figures
from fedsys.edge.sources import find
from fedsys.edge.verification.targets import target
from fedsys.errors import StorageError, UsageError, nearest
from fedsys.storage import storing

METHODS = ("int8", "int16", "float", "dynamic", "qat")
REPORTS = ("report.txt", "report.json", "report.html")
if TYPE_CHECKING:
    from fedsys.runs import Run
    from fedsys.task import Task

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to export. See `fedsys export --help`.

    calibration: rows for a model file. calibration_clients: how many of a run's, None for 100 or
    all; calibration_rows, evaluation_rows: how many rows of each. prune, cluster, rounds: of the
    method qat. optimise: "size" or "speed".
    """

    target: str = "cortex-m4"
    method: str = "int8"
    name: str = "model"
    calibration: Path | None = None
    calibration_clients: int | None = None
    calibration_rows: int = 256
    evaluation_rows: int = 500
    calibration_rule: str = "envelope"
    prune: float | None = None
    cluster: int | None = None
    rounds: int | None = None
    optimise: str = "size"
    verify: bool = True
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        target(self.target)
        _one_of("method", self.method, METHODS)
        MERGES.parse(self.calibration_rule, "--calibration-rule")
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", self.name):
            raise UsageError(
                f"--name {self.name!r}: must be a name in C: small letters, digits and _, at most "
                "40, a letter first"
            )
        given = [key for key in ("prune", "cluster", "rounds") if getattr(self, key) is not None]
        if given and self.method not in ("int8", "qat"):
            raise UsageError(
                f"--{given[0]} is for --method int8 or qat: weights are fine-tuned to it, by the "
                "run's clients"
            )

    @property
    def tunes(self) -> bool:
        """Whether the run's clients fine-tune the model before it is quantised."""
        return self.method == "qat" or self.prune is not None or self.cluster is not None


@dataclass(frozen=True)
class Exported:
    """An export that is done. folder: the project. figures: what its report says."""

    folder: Path
    figures: Figures


def export(
    source: Run | str | Path,
    out: str | Path = "build",
    options: Options | None = None,
    *,
    runs: str | Path = "runs",
    task: Task | None = None,
    say: Say = lambda line: None,
) -> Exported:
    """Exports a run (itself, its folder or name), a .keras file or an int8 .tflite file to `out`.

    runs: folder of the runs. task: as it was given to `simulate`, if it was. say: is told each
    step. The caller asks `options.budget.check` of the figures. Raises a FedsysError that names
    what is wrong; then `out` is as before.
    """
    from fedsys.edge.making import make

    options = options or Options()
    out = Path(out)
    _free(out)
    place = source if isinstance(source, str | Path) else source.folder
    found = find(place, runs, options.calibration, options.method, options.tunes, task)
    with _appearing(out) as folder:
        figures = make(found, options, folder, say)
        broken, lines = options.budget.broken(figures), options.budget.lines(figures)
        figures = replace(figures, broken=broken, budgets=lines)
        _write_reports(folder, figures)
    return Exported(out, figures)


def _one_of(what: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise UsageError(f"{what} {word!r} is unknown; {nearest(word, known)}")


def _write_reports(folder: Path, figures: Figures) -> None:
    import json

    from fedsys.edge.report.page import render
    from fedsys.edge.report.text import render_text

    told = json.dumps(figures.table(), indent=2, allow_nan=False) + "\n"
    with storing(folder):
        for name, text in zip(REPORTS, (render_text(figures), told, render(figures)), strict=True):
            (folder / name).write_text(text, encoding="utf-8")


# --- the folder ----------------------------------------------------------------------------------


def _free(out: Path) -> None:
    """Refuses a folder in which there is anything that no export wrote."""
    if not out.exists() and not out.is_symlink():
        return
    if out.is_symlink() or not out.is_dir():
        raise StorageError(f"{out}: is no folder: choose another --out")
    ours = _exported(out)
    there = (path.relative_to(out) for path in sorted(out.rglob("*")) if not path.is_dir())
    other = next((path for path in there if path.as_posix() not in ours), None)
    if other is not None:
        raise StorageError(
            f"{out}: holds {other}, which no export wrote: choose another --out, or move it away"
        )


def _exported(out: Path) -> set[str]:
    """The files of an older export in a folder."""
    from fedsys.edge.project.folder import MANIFEST, REPORTS, read_manifest

    if (out / MANIFEST).exists():
        return {*read_manifest(out)["files"], MANIFEST, *REPORTS}
    return {*REPORTS, *(path.name for path in out.glob("*.tflite"))} if _reported(out) else set()


def _reported(out: Path) -> bool:
    """Whether an export left its report there, which a model without a project has alone."""
    return all((out / name).is_file() for name in REPORTS)


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A new folder that takes the place of `out` at the end, or is gone after an error."""
    out = out.absolute()
    with storing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        new = part / out.name  # tools that look at the folder's name see the one it will have
        new.mkdir()
        yield new
        with storing(out):
            _replace(out, new, part / "before")
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(out: Path, new: Path, before: Path) -> None:
    """Puts `new` where `out` was, or leaves `out` where it is."""
    if out.exists():
        os.replace(out, before)
    try:
        os.replace(new, out)
    except OSError:
        if before.exists():
            os.replace(before, out)
        raise
