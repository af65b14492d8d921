"""The whole way from a model to a verified project, and what is left in the folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsys.edge import export as exporting
from fedsys.edge import making
from fedsys.edge.export import REPORTS, Exported, Options, export
from fedsys.edge.report.budget import Budget
from fedsys.edge.report.figures import Figures, Flash, Layer, Ram
from fedsys.edge.sources import Source
from fedsys.edge.tflite.reader import read
from fedsys.edge.tuning.qat import FineTuned
from fedsys.edge.verification.toolchain import missing
from fedsys.errors import BudgetError, ExportError, StorageError
from fedsys.experiment import Experiment
from fedsys.runs import Run
from fedsys.simulation import simulate

from ..conftest import Cli

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
    with pytest.raises(StorageError, match=r"holds src/mine\.c, which no export wrote"):
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


# --- the whole way -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small federation on digits, with clients of few labels."""
    from fedsys.partitions import Dirichlet

    experiment = Experiment(clients=6, cohort=3, rounds=2, partition=Dirichlet(0.5))
    return simulate(experiment, folder=tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="module", autouse=True)
def converted_once() -> Iterator[None]:
    """Keeps what the converter made of a file: it is slow and the same every time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "float_model", cache(making.float_model))
        yield


@pytest.fixture(scope="module")
def built(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The run's project, in another folder than the runs', with budgets that it keeps."""
    budget = Budget(flash=64 << 10, ram=32 << 10, drop=5.0)
    out = tmp_path_factory.mktemp("made") / "build"
    return export(run.folder, out, Options(budget=budget))


def test_a_run_becomes_a_project_with_its_report(built: Exported) -> None:
    there = {path.name for path in built.folder.iterdir()}
    assert {"model.tflite", "project.json", "src", "CMakeLists.txt", *REPORTS} <= there
    figures = built.figures
    assert figures.flash.weights + figures.flash.tables > 4000 and figures.ram.arena > 0
    assert (figures.macs, figures.parameters) == (4736, 4810)  # 64 x 64 + 64 x 10 and the biases
    assert figures.broken == () and len(figures.budgets) == 3


def test_clients_calibrate_and_score_what_the_chip_will_compute(built: Exported) -> None:
    calibration, score = built.figures.calibration, built.figures.score
    assert calibration is not None and score is not None
    assert (calibration.clients, calibration.federated, calibration.rule) == (6, True, "envelope")
    assert calibration.payload == 8 * 3  # two ends of the inputs and of two layers
    assert score.metric == "accuracy" and score.clients == 6
    assert score.floating is not None and score.floating > 0.5
    assert score.drop is not None and abs(score.drop) < 5
    assert score.agreement is not None and score.agreement > 0.95


def test_no_row_of_a_client_lies_in_the_project(built: Exported) -> None:
    with np.load(built.folder / "test" / "golden.npz") as found:
        assert "row" not in found["kinds"].tolist()


def test_each_layer_has_its_noise(built: Exported) -> None:
    dense, logits = built.figures.layers
    assert dense.sqnr is not None and logits.sqnr is not None
    assert 25 < dense.sqnr < 60 and 20 < logits.sqnr < 60


def test_what_ran_agrees_and_what_did_not_says_why(built: Exported) -> None:
    for check in built.figures.checks:
        if check.status == "skipped":
            assert "install" in check.note
        else:
            assert (check.status, check.mismatches) == ("passed", 0)
    if not missing("arm-none-eabi-gcc", "qemu-system-arm"):
        assert built.figures.instructions is not None and built.figures.instructions > 4736


def test_code_is_measured_where_there_is_a_cross_compiler(built: Exported) -> None:
    flash = built.figures.flash
    if missing("arm-none-eabi-gcc"):
        assert flash.code is None
        assert any("apt install" in note for note in built.figures.notes)
    else:
        assert flash.code is not None and 100 < flash.code < 4000


def test_the_projects_file_becomes_the_same_c_again(built: Exported, cli: Cli) -> None:
    outcome = cli("export", built.folder / "model.tflite", "--no-verify", "--quiet", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["score"] is None and outcome.json["verified"] is None
    assert outcome.json["flash"]["weights"] == built.figures.flash.weights
    for name in ("model.c", "model.h"):
        before = (built.folder / "src" / name).read_bytes()
        assert (Path("build") / "src" / name).read_bytes() == before


def test_a_broken_budget_ends_with_its_own_code_and_keeps_the_project(
    built: Exported, cli: Cli
) -> None:
    file = built.folder / "model.tflite"
    outcome = cli("export", file, "--no-verify", "--quiet", "--max-flash", "1k")
    assert outcome.code == 11
    assert outcome.err.startswith("fedsys: ") and "over the 1 kB allowed" in outcome.err
    assert outcome.err.count("\n") == 1
    assert Path("build/src/model.c").exists()
    assert "over budget" in Path("build/report.txt").read_text()


def test_without_tools_the_export_works_and_says_what_to_install(
    built: Exported, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path.cwd()))
    outcome = cli("export", built.folder / "model.tflite", "--quiet")
    assert (outcome.code, outcome.err) == (0, "")
    assert "sizes of code were not measured: arm-none-eabi-gcc is not installed" in outcome.out
    assert "skipped" in outcome.out and "apt install" in outcome.out
    refused = cli("verify", "build", "--quiet")
    assert refused.code == 10 and "the C was run nowhere" in refused.err


def test_a_project_that_was_changed_is_not_verified(built: Exported, cli: Cli) -> None:
    shutil.copytree(built.folder, "build")
    source = Path("build/src/model.c")
    source.write_text(source.read_text().replace("return", "return ", 1))
    outcome = cli("verify", "build", "--json", "--quiet")
    assert outcome.code == 10 and "build: is not what the reference computes" in outcome.err
    assert outcome.json["passed"] is False


@pytest.mark.parametrize("method", ["int16", "dynamic"])
def test_other_methods_give_a_file_for_an_interpreter(run: Run, cli: Cli, method: str) -> None:
    rows = run.experiment.task.load().test
    np.savez("samples.npz", inputs=rows.inputs[:40], labels=rows.labels[:40])
    arguments = ("--calibration", "samples.npz", "--method", method, "--quiet", "--json")
    outcome = cli("export", run.folder / "model.keras", *arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["boards"] == [] and outcome.json["score"]["agreement"] > 0.9
    assert read(Path("build/model.tflite")).operators
    assert not Path("build/src").exists()


def test_a_runs_clients_score_what_an_interpreter_runs(run: Run, cli: Cli) -> None:
    outcome = cli("export", run.folder, "--method", "int16", "--quiet", "--json")
    score = outcome.json["score"]
    assert score["clients"] > 1 and score["where"].startswith("by each client")
    assert score["agreement"] > 0.9 and abs(score["drop"]) < 5


@pytest.mark.parametrize(
    ("inputs", "labels", "said"),
    [
        (np.eye(4, 64).reshape(4, 8, 8, 1), None, "rows of shape"),
        (np.eye(4, 3), None, "rows of shape (3,) for a model that reads (64,)"),
        (np.eye(4, 64), [0, 1, 2, 10], "`labels` go up to 10 but the model has 10 classes"),
    ],
)
def test_rows_that_do_not_fit_the_model_are_told(
    run: Run, cli: Cli, inputs: np.ndarray, labels: list[int] | None, said: str
) -> None:
    np.savez("samples.npz", inputs=inputs, **({"labels": labels} if labels else {}))
    arguments = ("--calibration", "samples.npz", "--quiet")
    cli("export", run.folder / "model.keras", *arguments).refused(3, said)
    assert sorted(path.name for path in Path().iterdir()) == ["samples.npz"]


def test_rows_without_labels_tell_how_often_both_decide_alike(run: Run, cli: Cli) -> None:
    rows = run.experiment.task.load().test.inputs[:50]
    np.savez("samples.npz", inputs=rows)
    arguments = ("--calibration", "samples.npz", "--no-verify", "--quiet", "--json")
    told = cli("export", run.folder / "model.keras", *arguments).json
    assert told["score"]["floating"] is None and told["score"]["agreement"] > 0.9
    assert (told["calibration"]["rows"], told["calibration"]["federated"]) == (50, False)
    refused = cli("export", run.folder / "model.keras", *arguments[:-1], "--max-drop", 1)
    assert refused.code == 11 and "`labels` in --calibration" in refused.err


def test_clients_fine_tune_where_that_is_asked_for(
    run: Run, built: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the fine-tuning is told, and what becomes of it; it has tests of its own."""
    asked: dict[str, Any] = {}

    def tune(keras_file: Path, rows: Any, labels: Any, partition: Any, **how: Any) -> FineTuned:
        asked.update(how, rows=len(rows), clients=len(partition))
        kernels = {"hidden": {"weights": 300, "zeros": 0.5, "clusters": 16},
                   "logits": {"weights": 100, "zeros": 0.1, "clusters": 12}}  # fmt: skip
        report = {"payload": 4242, "kernels": kernels}
        return FineTuned((built.folder / "model.tflite").read_bytes(), b"", report)

    floats = making.float_model(run.folder / "model.keras", ())
    monkeypatch.setattr("fedsys.edge.tuning.qat.fine_tune_rows", tune)
    monkeypatch.setattr(making, "float_model", lambda path, code: floats)
    options = Options(method="qat", prune=0.5, cluster=16, rounds=2, verify=False)
    figures = export(run.folder, tmp_path / "tuned", options).figures
    said = {key: asked[key] for key in ("qat", "prune", "cluster", "rounds", "cohort", "objective")}
    assert said == {
        "qat": True, "prune": 0.5, "cluster": 16, "rounds": 2, "cohort": 3, "objective": "classes"
    }  # fmt: skip
    assert asked["clients"] == 6 and asked["rows"] == len(run.experiment.task.load().train)
    assert figures.method == "qat" and figures.calibration is not None
    assert (figures.calibration.payload, figures.calibration.clients) == (4242, 6)
    assert "40% of the kernels' weights are zero" in figures.notes[0]
    assert "at most 16 different" in figures.notes[0] and "compressed" in figures.notes[0]


def test_a_cohort_is_drawn_by_the_runs_seed(run: Run, tmp_path: Path) -> None:
    options = Options(calibration_clients=2, calibration_rule="trimmed:0", verify=False)
    first = export(run.folder, tmp_path / "one", options).figures
    again = export(run.folder, tmp_path / "two", options).figures
    assert first.calibration is not None and first.calibration.clients == 2
    assert first.table() == again.table()
    for name in ("model.tflite", "project.json", "report.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_run_of_a_task_handed_over_in_python_is_told(run: Run, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(run.folder, "other")
    facts = json.loads(Path("other/run.json").read_text())
    Path("other/run.json").write_text(json.dumps({**facts, "task": "mine"}))
    cli("export", "other").refused(2, "'mine' that was handed over in Python", "--calibration")
    mine = replace(run.experiment.task.load(), name="mine", classes=tuple("abcdefghij"))
    export("other", "mine", Options(verify=False), task=mine)
    assert json.loads(Path("mine/project.json").read_text())["labels"] == list("abcdefghij")
    Path("other/model.keras").unlink()
    cli("export", "other").refused(9, "other: has no model yet", "--resume")
