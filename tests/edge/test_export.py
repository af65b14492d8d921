"""The whole way from a model to a verified project, and what is left in the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedsys.edge import export as exporting
from fedsys.edge import making
from fedsys.edge.budget import Budget
from fedsys.edge.export import Options, export
from fedsys.edge.report.figures import Figures, Flash, Layer, Ram
from fedsys.edge.sources import Source
from fedsys.errors import BudgetError, ExportError, StorageError

LAYER = Layer(0, "FULLY_CONNECTED", "dense", (10,), 80, 90, 120, 10)
FIGURES = Figures("m", "m.tflite", "cortex-m4", "int8", 9, (LAYER,), Flash(120, 8, 50), Ram(16, 9))


@pytest.fixture
def made(monkeypatch: Any, tmp_path: Path) -> Path:
    """Exports write one file, `model.tflite`, and say FIGURES; tools and models are left out."""

    def make(source: Source, options: Options, folder: Path, say: Any) -> Figures:
        (folder / "model.tflite").write_text(options.name)
        return FIGURES

    monkeypatch.setattr(making, "make", make)
    monkeypatch.setattr(exporting, "find", lambda *arguments: Source("m.tflite", tflite=b""))
    return tmp_path / "deep" / "build"


def test_an_export_is_a_folder_with_three_reports(made: Path) -> None:
    exported = export("m.tflite", made)
    assert exported.folder == made
    assert {path.name for path in made.iterdir()} == {
        "model.tflite", "report.txt", "report.json", "report.html"}  # fmt: skip
    assert json.loads((made / "report.json").read_text())["flash"]["total"] == 178
    assert [path.name for path in made.parent.iterdir()] == ["build"]


def test_an_export_takes_the_place_of_the_last_one(made: Path) -> None:
    export("m.tflite", made)
    (made / "old.tflite").write_text("old")
    export("m.tflite", made, Options(name="other"))
    assert (made / "model.tflite").read_text() == "other"
    assert not (made / "old.tflite").exists()
    assert [path.name for path in made.parent.iterdir()] == ["build"]


def test_a_failure_leaves_what_was_there(made: Path, monkeypatch: Any) -> None:
    export("m.tflite", made)
    before = {path.name: path.read_bytes() for path in made.iterdir()}

    def fail(source: Source, options: Options, folder: Path, say: Any) -> Figures:
        (folder / "model.tflite").write_text("half")
        raise ExportError("no")

    monkeypatch.setattr(making, "make", fail)
    with pytest.raises(ExportError):
        export("m.tflite", made)
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    assert [path.name for path in made.parent.iterdir()] == ["build"]


def test_what_no_export_wrote_is_not_thrown_away(made: Path) -> None:
    export("m.tflite", made)
    (made / "src").mkdir()
    (made / "src" / "mine.c").write_text("mine")
    with pytest.raises(StorageError, match="holds src/mine.c, which no export wrote"):
        export("m.tflite", made)
    assert (made / "src" / "mine.c").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_told(made: Path) -> None:
    made.parent.write_text("a file")
    with pytest.raises(StorageError, match="cannot be written"):
        export("m.tflite", made)


def test_a_broken_budget_keeps_the_project_and_says_so_in_it(made: Path) -> None:
    budget = Budget(flash=100)
    exported = export("m.tflite", made, Options(budget=budget))
    assert (made / "model.tflite").exists()
    assert "over budget: 178 B of flash, 78 B over" in (made / "report.txt").read_text()
    with pytest.raises(BudgetError, match="78 B over the 100 B allowed"):
        budget.check(exported.figures, "report.txt")
