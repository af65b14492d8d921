"""What a user can get wrong with `fedsys export` is told in one line, and leaves nothing behind."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ..conftest import Cli
from .build import Value, constant, one_operator

ROWS = np.eye(4, 3, dtype=np.float32)


@pytest.fixture
def keras_file(cli: Cli) -> Path:
    """A file that is there; nothing of it is read before the rows are."""
    path = Path("model.keras")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
    return path


def _samples(**arrays: Any) -> Path:
    np.savez("samples.npz", **arrays)
    return Path("samples.npz")


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["nosuch"], 9, ["no run 'nosuch'", "or name a .keras or .tflite file"]),
        (["no.keras"], 3, ["no.keras: there is no such file"]),
        (["no.tflite"], 3, ["no.tflite: there is no such file"]),
        (["old.h5"], 2, ["old.h5: is of an older Keras: save it anew as model.keras"]),
        (["model.keras"], 2, ["--method int8 needs rows", "--calibration samples.npz"]),
        (["model.keras", "--target", "cortex-m44"], 2, ["cortex-m44", "did you mean 'cortex-m4'"]),
        (["model.keras", "--method", "int4"], 2, ["method 'int4' is unknown", "int8"]),
        (["model.keras", "--calibration", "no.npz"], 3, ["there is no such"]),
        (["model.keras", "--prune", "0.5"], 2, ["fine-tune in a federation: export the run"]),
        (["model.keras", "--method", "int16", "--cluster", "16"], 2, ["--cluster is for --method"]),
        (["model.keras", "--prune", "1"], 2, ["--prune"]),
        (["model.keras", "--calibration-rule", "mean"], 2, ["rule 'mean'", "envelope"]),
        (["model.keras", "--calibration-rule", "trimmed:-1"], 2, ["most must be at least 0"]),
        (["model.keras", "--name", "1st"], 2, ["--name '1st': must be a name in C"]),
        (["model.keras", "--name", "a b"], 2, ["must be a name in C"]),
        (["model.keras", "--max-flash", "lots"], 2, ["--max-flash lots: write a size such as 64k"]),
        (["model.keras", "--max-ram", "0"], 2, ["--max-ram 0: must be at least 1"]),
        (["model.keras", "--max-drop", "-1"], 2, ["--max-drop -1: must be points of accuracy"]),
        (["model.keras", "--max-drop", "nan"], 2, ["--max-drop nan"]),
        (["model.keras", "--max-instructions", "x"], 2, ["--max-instructions x"]),
        (["model.keras", "--optimise", "fast"], 2, ["--optimise"]),
        (["no.tflite", "--method", "int16"], 2, ["no.tflite: is converted already"]),
        ([], 2, ["RUN|FILE", "see fedsys export --help"]),
    ],
)
def test_a_wrong_option_is_one_line(
    cli: Cli, keras_file: Path, arguments: list[str], code: int, parts: list[str]
) -> None:
    cli("export", *arguments).refused(code, *parts)
    assert not Path("build").exists()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": ROWS}, "holds 'x', needs an array `inputs`"),
        ({"a": ROWS, "b": ROWS[:2]}, "its arrays have 2 to 4 rows"),
        ({"a": ROWS, "b": ROWS * np.nan}, "row 0 of `b` has a NaN"),
        ({"inputs": ROWS[:0]}, "`inputs` of shape (0, 3) holds no rows"),
        ({"inputs": ROWS[0]}, "`inputs` of shape (3,) holds no rows"),
        ({"inputs": ROWS * 0}, "every number of `inputs` is 0"),
        ({"inputs": ROWS * np.nan}, "row 0 of `inputs` has a NaN or infinite value (4 such rows"),
        ({"inputs": ROWS - np.inf}, "row 0 of `inputs` has a NaN or infinite value"),
        ({"inputs": np.array([["a"]])}, "`inputs` must be numbers"),
        ({"inputs": np.array([[None]])}, "is no .npz file of plain arrays"),
        ({"inputs": ROWS, "labels": np.zeros(3, int)}, "`labels` of shape (3,) for 4 rows"),
        ({"inputs": ROWS, "labels": np.zeros((4, 1), int)}, "`labels` of shape (4, 1)"),
        ({"inputs": ROWS, "labels": np.zeros(4)}, "`labels` must be class numbers"),
        ({"inputs": ROWS, "labels": np.full(4, -1)}, "`labels` must be class numbers"),
    ],
)
def test_wrong_rows_are_told_before_anything_is_converted(
    cli: Cli, keras_file: Path, arrays: dict[str, Any], said: str
) -> None:
    found = _samples(**arrays)
    cli("export", keras_file, "--calibration", found).refused(3, "samples.npz", said)
    assert not Path("build").exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + bytes(40), b"\x93NUMPY", b"junk"])
def test_a_file_that_is_no_npz_is_told(cli: Cli, keras_file: Path, content: bytes) -> None:
    Path("rows.npz").write_bytes(content)
    cli("export", keras_file, "--calibration", "rows.npz").refused(3, "rows.npz", "npz")


def test_a_bare_array_is_told(cli: Cli, keras_file: Path) -> None:
    np.save("rows.npy", ROWS)
    cli("export", keras_file, "--calibration", "rows.npy").refused(3, "without a name")


def test_a_truncated_npz_is_told(cli: Cli, keras_file: Path) -> None:
    content = _samples(inputs=np.ones((50, 3))).read_bytes()
    Path("samples.npz").write_bytes(content[: len(content) // 2])
    cli("export", keras_file, "--calibration", "samples.npz").refused(3, "samples.npz")


def test_a_folder_with_other_things_is_left_alone(cli: Cli, keras_file: Path) -> None:
    Path("build").mkdir()
    Path("build/mine.txt").write_text("mine")
    outcome = cli("export", keras_file, "--calibration", _samples(inputs=ROWS))
    outcome.refused(9, "build: holds mine.txt, which no export wrote")
    assert [path.name for path in Path("build").iterdir()] == ["mine.txt"]


def test_a_file_in_the_folders_place_is_left_alone(cli: Cli, keras_file: Path) -> None:
    Path("build").write_text("mine")
    outcome = cli("export", keras_file, "--calibration", _samples(inputs=ROWS))
    outcome.refused(9, "build: is no folder")
    assert Path("build").read_text() == "mine"


def test_what_is_no_keras_file_leaves_nothing_behind(cli: Cli, keras_file: Path) -> None:
    keras_file.write_bytes(b"PK junk")
    outcome = cli("export", keras_file, "--calibration", _samples(inputs=ROWS), "--quiet")
    outcome.refused(3, "model.keras")
    assert sorted(path.name for path in Path().iterdir()) == ["model.keras", "samples.npz"]


def test_a_failed_export_leaves_the_last_one_in_place(cli: Cli, keras_file: Path) -> None:
    Path("build").mkdir()
    for name in ("report.txt", "report.json", "report.html"):
        Path("build", name).write_text("{}")
    keras_file.write_bytes(b"PK junk")
    cli("export", keras_file, "--calibration", _samples(inputs=ROWS), "--quiet").refused(3)
    assert Path("build/report.json").read_text() == "{}"
    assert sorted(path.name for path in Path().iterdir()) == ["build", "model.keras", "samples.npz"]


def test_samples_are_for_model_files(cli: Cli) -> None:
    outcome = cli("export", "some-run", "--calibration", _samples(inputs=ROWS))
    outcome.refused(2, "--calibration is for a model file")


@pytest.mark.parametrize("command", [["export"], ["inspect"]])
@pytest.mark.parametrize("content", [b"", b"junk", bytes(8), b"\x10\0\0\0TFL3" + bytes(64)])
def test_what_is_no_tflite_file_is_told(cli: Cli, command: list[str], content: bytes) -> None:
    Path("bad.tflite").write_bytes(content)
    cli(*command, "bad.tflite").refused(3, "bad.tflite")
    assert not Path("build").exists()


def test_a_hybrid_model_is_refused_by_its_layer(cli: Cli) -> None:
    rows, weights = Value((1, 4), "float32", name="rows"), constant(np.ones((2, 4)), scale=0.1)
    out = Value((1, 2), "float32", name="dense/MatMul")
    Path("hybrid.tflite").write_bytes(one_operator("FULLY_CONNECTED", [rows, weights, None], out))
    cli("export", "hybrid.tflite").refused(
        10, "FULLY_CONNECTED", "'dense/MatMul'", "float32", "int8"
    )
    assert not Path("build").exists()


def test_an_operator_without_c_is_refused_by_name(cli: Cli) -> None:
    rows, out = Value((1, 4), scale=0.1, name="rows"), Value((1, 4), scale=0.1, name="wave/Sin")
    Path("wave.tflite").write_bytes(one_operator("SIN", [rows], out))
    cli("export", "wave.tflite").refused(10, "SIN", "'wave/Sin'")


def test_what_is_no_project_is_not_verified(cli: Cli) -> None:
    cli("verify", "nowhere").refused(9, "nowhere: is no exported project")
    Path("there").mkdir()
    Path("there/project.json").write_text("{")
    cli("verify", "there").refused(9, "project.json: is damaged")
    cli("verify", "there", "--target", "cortex-m5").refused(9)
