"""Verification finds what was changed, where, and says what it could not run."""

import hashlib
import json
import re

import numpy as np
import pytest

from fedsys.edge.project import folder as project
from fedsys.edge.project.folder import Details
from fedsys.edge.verification import interpreter, toolchain
from fedsys.edge.verification import verify as verification
from fedsys.edge.verification.interpreter import ArenaNeed
from fedsys.edge.verification.verify import verify
from fedsys.errors import StorageError, UsageError

from .exported import classifier, made, of_floats, two_inputs

needs_all = pytest.mark.skipif(
    bool(toolchain.missing("cc", "arm-none-eabi-gcc", "qemu-system-arm")),
    reason="cc, arm-none-eabi-gcc or qemu-system-arm is not installed",
)
needs_host = pytest.mark.skipif(bool(toolchain.missing("cc")), reason="cc is not installed")
needs_interpreter = pytest.mark.skipif(
    not interpreter.available(), reason="the tflite-micro wheel is not installed"
)


@pytest.fixture(autouse=True)
def quick_arena(monkeypatch):
    monkeypatch.setattr(project, "arena_need", lambda *arguments: ArenaNeed(2000, 6144, False))


@pytest.fixture
def host_only(monkeypatch):
    """No emulator and no interpreter: what is tested does not need them."""
    monkeypatch.setattr(interpreter, "available", lambda: False)
    monkeypatch.setattr(
        verification, "missing", lambda *tools: tuple(t for t in tools if t != "cc")
    )


def trial(verified, place):
    return next(each for each in verified.trials if each.place == place)


def change(folder, path, edit, forge=False):
    """Edits a file; forge: also its checksum, as one who means it would."""
    file = folder / path
    file.write_text(edit(file.read_text()))
    if forge:
        manifest = json.loads((folder / "project.json").read_text())
        manifest["files"][path] = hashlib.sha256(file.read_bytes()).hexdigest()
        (folder / "project.json").write_text(json.dumps(manifest))


@needs_all
@pytest.mark.parametrize("data", [classifier(), two_inputs(), of_floats()])
def test_a_sound_project_passes_everywhere(tmp_path, data):
    folder = made(data).write(tmp_path / "build")
    verified = verify(folder, ["cortex-m0", "cortex-m4"])
    assert verified.passed, verified.text()
    statuses = {each.place: each.status for each in verified.trials}
    cores = [f"{core} {option}" for core in ("cortex-m0", "cortex-m4") for option in ("-Os", "-O3")]
    assert list(statuses) == ["files", "golden", "interpreter", "host", *cores]
    assert {status for place, status in statuses.items() if place != "interpreter"} == {"passed"}
    small, large = trial(verified, "cortex-m4 -O3"), trial(verified, "cortex-m0 -Os")
    assert 0 < small.instructions < large.instructions
    assert small.stack > 0
    assert small.values == trial(verified, "host").values > 0
    assert verified.text().endswith("build: verified")


@needs_interpreter
@needs_host
@pytest.mark.parametrize("data", [classifier(), two_inputs(), of_floats()])
def test_the_interpreter_agrees_layer_by_layer(tmp_path, monkeypatch, data):
    monkeypatch.setattr(
        verification, "missing", lambda *tools: tuple(t for t in tools if t != "cc")
    )
    verified = verify(made(data).write(tmp_path / "build"))
    assert trial(verified, "interpreter").status == "passed"


@needs_interpreter
def test_the_interpreter_tells_where_the_reference_differs(tmp_path, monkeypatch):
    # The executor of one model against the interpreter of another: all but the extremes differ.
    folder = made(classifier()).write(tmp_path / "build")
    opened = verification._Project.read(folder, project.read_manifest(folder))
    wrong = verification._Project(
        opened.name,
        classifier(seed=1),
        opened.program,
        opened.golden,
        opened.sources,
        opened.header,
    )
    found = verification._interpreter(wrong)
    assert found.status == "failed"
    assert (found.mismatches[0].layer, found.mismatches[0].name) == (1, "conv")


@needs_all
def test_a_changed_weight_is_found_in_its_layer_everywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(interpreter, "available", lambda: False)
    folder = made(classifier()).write(tmp_path / "build")
    other = made(classifier(seed=9)).generated.sources["model.c"]
    change(folder, "src/model.c", lambda text: other, forge=True)
    verified = verify(folder, ["cortex-m3"])
    assert not verified.passed
    assert trial(verified, "files").status == "passed"
    for place in ("host", "cortex-m3 -Os"):
        failed = trial(verified, place)
        assert failed.status == "failed"
        assert {each.layer for each in failed.mismatches} >= {1}
        assert "layer 1 (CONV_2D conv), vector" in failed.note
    assert "build: failed" in verified.text()


@needs_host
def test_an_edited_file_is_told(tmp_path, host_only):
    folder = made(classifier()).write(tmp_path / "build")
    change(folder, "README.md", lambda text: text + "mine")
    (folder / "zephyr" / "Kconfig").unlink()
    verified = verify(folder)
    note = trial(verified, "files").note
    assert note == "not as exported: README.md changed, zephyr/Kconfig missing"
    assert not verified.passed and trial(verified, "host").status == "passed"


@needs_host
def test_forged_checksums_do_not_hide_a_wrong_layer(tmp_path, host_only):
    # The C of another model with the golden header of that model: its own self-test would pass.
    folder, other = made(classifier()).write(tmp_path / "a"), made(classifier(seed=3))
    theirs = other.write(tmp_path / "b")
    for name in ("src/model.c", "src/model_golden.h"):
        change(folder, name, lambda text, name=name: (theirs / name).read_text(), forge=True)
    verified = verify(folder)
    assert trial(verified, "files").status == "passed"
    assert trial(verified, "golden").status == "failed"
    assert trial(verified, "host").status == "failed"


@needs_host
def test_c_that_does_not_compile_fails_with_one_line(tmp_path, host_only):
    folder = made(classifier()).write(tmp_path / "build")
    change(folder, "src/model.c", lambda text: text.replace("#include", "#incl"))
    failed = trial(verify(folder), "host")
    assert failed.status == "failed"
    assert "refuses the C" in failed.note and "\n" not in failed.note


@needs_host
def test_c_that_crashes_fails(tmp_path, host_only):
    folder = made(classifier()).write(tmp_path / "build")
    crash = "(*(volatile int *)8)++;"
    change(
        folder,
        "src/model.c",
        lambda text: re.sub(r"(void model_run\(.*\)\n\{)", rf"\1 {crash}", text),
    )
    failed = trial(verify(folder), "host")
    assert failed.status == "failed" and "ended with code" in failed.note


@needs_host
def test_what_is_not_installed_is_skipped_with_what_to_install(tmp_path, host_only):
    verified = verify(made(classifier()).write(tmp_path / "build", Details(target="cortex-m0")))
    assert trial(verified, "cortex-m0 -Os").status == "skipped"
    note = trial(verified, "cortex-m0 -Os").note
    assert "apt install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm" in note
    assert "pip install tflite-micro" in trial(verified, "interpreter").note
    assert verified.passed


def test_nothing_run_is_not_passed(tmp_path, monkeypatch):
    monkeypatch.setattr(interpreter, "available", lambda: False)
    monkeypatch.setattr(verification, "missing", lambda *tools: tools)
    verified = verify(made(classifier()).write(tmp_path / "build"))
    assert not verified.passed and not verified.failed
    assert verified.text().endswith("build: not run")
    assert json.loads(json.dumps(verified.table()))["passed"] is False


@needs_all
def test_a_model_that_no_machine_holds_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(interpreter, "available", lambda: False)
    folder = made(classifier()).write(tmp_path / "build")
    room = "static volatile char room[3000000] = {1};\nstatic char here(void) { return room[5]; }"
    call = r"\1 (void)here();"

    def grown(text):
        text = text.replace('#include "model.h"', f'#include "model.h"\n{room}', 1)
        return re.sub(r"(void model_run\(.*\)\n\{)", call, text)

    change(folder, "src/model.c", grown)
    assert trial(verify(folder, ["cortex-m0"]), "cortex-m0 -Os").status == "skipped"


def test_a_folder_that_is_no_project_and_an_unknown_core_are_named(tmp_path):
    with pytest.raises(StorageError, match=r"is no exported project"):
        verify(tmp_path)
    folder = made(classifier()).write(tmp_path / "build")
    with pytest.raises(UsageError, match="unknown target 'cortex-m5'"):
        verify(folder, ["cortex-m5"])
    (folder / "model.tflite").unlink()
    with pytest.raises(StorageError, match=r"model\.tflite: is missing: export anew"):
        verify(folder)


def test_vectors_of_another_model_are_refused(tmp_path):
    folder, other = made(classifier()).write(tmp_path / "a"), made(two_inputs())
    (folder / "test" / "golden.npz").write_bytes(other.golden.packed())
    with pytest.raises(StorageError, match=r"golden\.npz: does not fit the model"):
        verify(folder)
    assert np.load(folder / "test" / "golden.npz")["input_1"].shape == (7, 7)
