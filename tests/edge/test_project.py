"""The folder of an export: what is in it, what it computes, and what it never overwrites."""

import hashlib
import os
import re
import subprocess

import numpy as np
import pytest

from fedsys.edge.project import folder as project
from fedsys.edge.project.folder import Details, changed_files, read_manifest
from fedsys.edge.project.golden import quantized
from fedsys.edge.project.rendering import c_string
from fedsys.edge.verification import interpreter, toolchain
from fedsys.edge.verification.interpreter import ArenaNeed
from fedsys.edge.verification.toolchain import run_on_host
from fedsys.errors import StorageError

from .exported import classifier, made, of_floats, two_inputs

needs_host = pytest.mark.skipif(bool(toolchain.missing("cc")), reason="cc is not installed")
LABELS = ('the "first"', "naïve\n", "a\\b", "what??/")


@pytest.fixture(autouse=True)
def quick_arena(monkeypatch):
    """A worker process for each project would be slow."""
    need = ArenaNeed(2000, 6144, False)
    monkeypatch.setattr(project, "arena_need", lambda *arguments: need)


def sources(folder):
    return {path.name: path.read_text() for path in (folder / "src").iterdir()}


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_it_is_the_project_of_every_build_system_at_once(tmp_path):
    folder = made(classifier()).write(tmp_path / "build")
    paths = set(files(folder))
    assert {"model.tflite", "project.json", "README.md", "CMakeLists.txt"} <= paths
    assert {f"src/model{end}" for end in (".h", ".c", "_io.h", "_io.c", "_golden.h")} <= paths
    assert {"library.properties", "examples/selftest/selftest.ino"} <= paths  # Arduino
    assert "idf_component_register" in (folder / "CMakeLists.txt").read_text()
    assert {"zephyr/module.yml", "zephyr/CMakeLists.txt", "zephyr/Kconfig"} <= paths
    assert {"tflm/model_data.h", "tflm/model_data.cc", "tflm/op_resolver.h"} <= paths
    assert (folder / "model.tflite").read_bytes() == classifier()
    for path, content in files(folder).items():
        if not path.endswith((".tflite", ".npz")):
            assert b"{{" not in content and b"{%" not in content, path


def test_the_same_model_gives_the_same_bytes(tmp_path):
    details = Details("runs/a", labels=LABELS, prepared={"inputs": "divided by 255"})
    folders = [made(classifier()).write(tmp_path / name, details) for name in ("a", "b")]
    assert files(folders[0]) == files(folders[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_the_manifest_has_a_checksum_of_every_file_and_the_provenance(tmp_path):
    details = Details("runs/a", "int8", "cortex-m0", LABELS, {"x": [1, 2]}, {"clients": 7})
    folder = made(classifier()).write(tmp_path / "build", details)
    manifest = read_manifest(folder)
    expected = {
        path: hashlib.sha256(content).hexdigest() for path, content in files(folder).items()
    }
    del expected["project.json"]
    assert manifest["files"] == expected
    assert manifest["source"] == "runs/a" and manifest["calibration"] == {"clients": 7}
    assert manifest["labels"] == list(LABELS) and manifest["prepared"] == {"x": [1, 2]}
    assert changed_files(folder, manifest) == {}
    (folder / "README.md").write_text("mine")
    (folder / "src" / "model.h").unlink()
    found = changed_files(folder, manifest)
    assert found == {"README.md": "changed", "src/model.h": "missing"}


def test_a_manifest_cannot_lead_out_of_the_folder(tmp_path):
    (tmp_path / "secret").write_bytes(b"")
    (tmp_path / "build").mkdir()
    digest = hashlib.sha256(b"").hexdigest()
    for path in ("../secret", str(tmp_path / "secret")):
        assert changed_files(tmp_path / "build", {"files": {path: digest}}) == {path: "missing"}


@needs_host
@pytest.mark.parametrize("data", [classifier(), two_inputs(), of_floats()])
def test_the_selftest_passes_with_and_without_a_trace(tmp_path, data):
    rows = None if data == two_inputs() else np.random.default_rng(0).normal(
        size=(2, 9) if data == of_floats() else (2, 6, 5, 2)
    )  # fmt: skip
    model = made(data, rows)
    folder = model.write(tmp_path / "build", Details(labels=LABELS))
    main = {"main.c": (folder / "test" / "main.c").read_text()}
    strict = ("-O1", "-pedantic", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    vectors, layers = len(model.golden.vectors), len(model.golden.layers)
    for defines, amount in ((("MODEL_TRACE",), f"{layers} layers each"), ((), "outputs alone")):
        done = run_on_host({**sources(folder), **main}, defines, strict)
        assert (done.output, done.code) == (f"PASS: {vectors} vectors, {amount}\n", 0)


@needs_host
def test_the_selftest_fails_where_a_weight_is_another(tmp_path):
    folder = made(classifier()).write(tmp_path / "build")
    changed = made(classifier(seed=5)).generated.sources
    main = {"main.c": (folder / "test" / "main.c").read_text()}
    done = run_on_host({**sources(folder), **main, **changed}, ("MODEL_TRACE",))
    assert done.code == 1
    assert "FAIL vector 4 (random 1), layer 1 of 4 (CONV_2D): not the reference's" in done.output
    assert done.output.splitlines()[-1].startswith("FAILED: ")
    done = run_on_host({**sources(folder), **main, **changed})
    assert done.code == 1
    assert "FAIL vector 4 (random 1), output 1: not the reference's numbers" in done.output


@needs_host
def test_the_selftest_fails_where_a_step_is_missing(tmp_path):
    folder = made(classifier()).write(tmp_path / "build")
    texts = sources(folder)
    lines = texts["model.c"].splitlines()
    last = max(i for i, line in enumerate(lines) if line.strip().startswith("TRACED("))
    texts["model.c"] = "\n".join(line for i, line in enumerate(lines) if i != last)
    main = {"main.c": (folder / "test" / "main.c").read_text()}
    done = run_on_host({**texts, **main}, ("MODEL_TRACE",))
    assert done.code == 1 and "steps are missing" in done.output


@needs_host
def test_quantising_in_c_gives_the_numbers_of_numpy(tmp_path):
    model = made(classifier())
    folder = model.write(tmp_path / "build")
    quantization = model.program.model.tensors[0].quantization
    steps = np.concatenate([np.arange(-140, 140, 0.5), np.arange(-140, 140) + 0.4999])
    values = (steps * 0.05).astype(np.float32)
    near = np.concatenate([values, np.nextafter(values, np.float32(9)), np.float32([3e38, -3e38])])
    listed = ", ".join(f"{value:.9e}f" for value in near)
    main = (
        '#include <stdio.h>\n#include <math.h>\n#include "model_io.h"\n'
        f"static const float values[] = {{{listed}}};\n"
        f"int main(void) {{\n for (int i = 0; i < {len(near)}; i++)"
        ' printf("%d ", model_quantize_input(values[i]));\n'
        ' printf("%d %d ", model_quantize_input(NAN), model_quantize_input(-INFINITY));\n'
        " for (int i = -128; i < 128; i++)"
        ' printf("%.9e ", (double)model_dequantize_output((int8_t)i));\n return 0; }'
    )
    words = run_on_host({**sources(folder), "main.c": main}, ("MODEL_TRACE",)).output.split()
    got, rest = np.array([int(word) for word in words[: len(near)]]), words[len(near) :]
    np.testing.assert_array_equal(got, quantized(near, quantization, np.dtype(np.int8)))
    assert rest[:2] == ["-128", "-128"]
    expected = np.float32(1 / 256) * np.arange(0, 256, dtype=np.float32)
    np.testing.assert_array_equal(np.array(rest[2:], np.float32), expected)


@needs_host
def test_labels_and_preparation_survive_in_c(tmp_path):
    columns = [f"column {i}" for i in range(56)]
    mean, scale = np.linspace(-3, 5, 56).tolist(), np.linspace(0.1, 9, 56).tolist()
    prepared = {
        "columns": columns,
        "mean": mean,
        "scale": scale,
        "categories": {"colour */": ["red", "blue"], "sex": ["f", "m"]},
    }
    folder = made(classifier()).write(
        tmp_path / "build", Details("", labels=LABELS, prepared=prepared)
    )
    main = r"""
#include <stdio.h>
#include <math.h>
#include "model_io.h"
int main(void) {
  double numbers[MODEL_COLUMNS];
  const int words[MODEL_CATEGORIES] = {1, -1};
  float inputs[MODEL_INPUT_SIZE];
  for (int i = 0; i < MODEL_COLUMNS; i++) numbers[i] = i == 3 ? NAN : i * 0.37;
  model_prepare(numbers, words, inputs);
  for (int i = 0; i < MODEL_LABELS; i++) printf("%s|", model_labels[i]);
  printf("%s|", model_columns[55]);
  for (int i = 0; i < MODEL_INPUT_SIZE; i++) printf("%.9e ", (double)inputs[i]);
  return 0;
}
"""
    output = run_on_host({**sources(folder), "main.c": main}, ("MODEL_TRACE",)).output
    *labels, column, numbers = output.split("|")
    assert tuple(labels) == LABELS and column == "column 55"
    expected = ((np.arange(56) * 0.37 - np.array(mean)) / np.array(scale)).astype(np.float32)
    expected[3] = 0
    got = np.array(numbers.split(), np.float32)
    np.testing.assert_array_equal(got, [*expected, 0, 1, 0, 0])


def test_a_preparation_of_another_kind_is_told_in_words(tmp_path):
    prepared = {"inputs": "pixels /* from 0 to 255, divided by 255 */"}
    folder = made(classifier()).write(tmp_path / "build", Details(prepared=prepared))
    header = (folder / "src" / "model_io.h").read_text()
    assert "divided by 255" in header and "_prepare(" not in header
    assert header.count("/*") == header.count("*/")


@pytest.mark.skipif(bool(toolchain.missing("cmake", "cc")), reason="cmake or cc is not installed")
def test_cmake_builds_it_and_runs_the_selftest(tmp_path):
    folder = made(classifier()).write(tmp_path / "build")
    out = tmp_path / "out"
    for command in (
        ["cmake", "-S", folder, "-B", out],
        ["cmake", "--build", out],
        [out / "model_selftest"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS: 7 vectors, 4 layers each" in done.stdout


@pytest.mark.skipif(
    bool(toolchain.missing("cmake", "arm-none-eabi-gcc")), reason="no cmake or cross-compiler"
)
def test_cmake_builds_it_for_a_microcontroller(tmp_path):
    folder = made(classifier()).write(tmp_path / "build")
    command = ["cmake", "-S", folder, "-B", tmp_path / "out", "-DCORE=cortex-m0"]
    command += [f"-DCMAKE_TOOLCHAIN_FILE={folder}/cmake/cortex-m.cmake"]
    for each in (command, ["cmake", "--build", tmp_path / "out"]):
        done = subprocess.run(each, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    library = tmp_path / "out" / "libmodel.a"
    listed = subprocess.run(
        ["arm-none-eabi-readelf", "-A", library], capture_output=True, text=True, check=True
    ).stdout
    assert "v6S-M" in listed or "v6-M" in listed


def test_the_resolver_has_the_operators_that_are_used_and_no_other(tmp_path):
    folder = made(classifier()).write(tmp_path / "build")
    text = (folder / "tflm" / "op_resolver.h").read_text()
    calls = re.findall(r"resolver\.(\w+)\((.*?)\)\);", text)
    assert (
        calls
        == [
            ("AddConv2D", "tflite::Register_CONV_2D_INT8("),
            ("AddFullyConnected", "tflite::Register_FULLY_CONNECTED_INT8("),
            ("AddReshape", ""),
            ("AddSoftmax", "tflite::Register_SOFTMAX_INT8("),
        ]
        or calls[2][0] == "AddReshape"
    )
    assert "MicroMutableOpResolver<4>" in text
    data = (folder / "tflm" / "model_data.cc").read_text()
    body = data[data.index("{") :]
    assert bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-f]{2})", body)) == classifier()
    assert "alignas(16)" in data


@pytest.mark.skipif(bool(toolchain.missing("g++")), reason="g++ is not installed")
def test_the_array_is_sound_cpp(tmp_path):
    folder = made(classifier()).write(tmp_path / "build")
    command = ["g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-c", "model_data.cc", "-o"]
    done = subprocess.run(
        [*command, tmp_path / "a.o"],
        cwd=folder / "tflm",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not interpreter.available(), reason="the tflite-micro wheel is not installed")
def test_the_interpreters_arena_is_the_least_that_works(tmp_path):
    from tflite_micro.python.tflite_micro import runtime

    model = made(classifier())
    need = interpreter.arena_need(model.data, model.program, model.generated.arena)
    assert need.measured and need.margin >= 6144
    runtime.Interpreter.from_bytes(model.data, arena_size=need.bytes).invoke()
    with pytest.raises(RuntimeError):
        runtime.Interpreter.from_bytes(model.data, arena_size=need.bytes - 16).invoke()


def test_without_the_interpreter_the_arena_is_a_bound(monkeypatch):
    monkeypatch.setattr(interpreter, "available", lambda: False)
    model = made(classifier())
    need = interpreter.arena_need(model.data, model.program, model.generated.arena)
    assert not need.measured and need.bytes >= model.generated.arena.size + 64


# --- the folder ----------------------------------------------------------------------------------


def test_an_older_project_is_replaced_whole(tmp_path):
    made(classifier(), name="first").write(tmp_path / "build")
    (tmp_path / "build" / "report.json").write_text("{}")
    folder = made(classifier(seed=1)).write(tmp_path / "build")
    assert not (folder / "src" / "first.c").exists() and not (folder / "report.json").exists()
    assert changed_files(folder, read_manifest(folder)) == {}


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "build").mkdir()
    assert (made(classifier()).write(tmp_path / "build") / "project.json").exists()


def test_what_is_not_ours_is_left_alone(tmp_path):
    model = made(classifier())
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    with pytest.raises(StorageError, match="holds something else than an exported project"):
        model.write(tmp_path / "notes")
    assert (tmp_path / "notes" / "diary.txt").read_text() == "mine"
    folder = model.write(tmp_path / "build")
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"holds mine\.txt, which no export wrote"):
        model.write(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is no folder"):
        model.write(tmp_path / "file")
    os.symlink(tmp_path / "notes", tmp_path / "link")
    with pytest.raises(StorageError, match="is no folder"):
        model.write(tmp_path / "link")


def test_a_failure_leaves_the_older_project(tmp_path, monkeypatch):
    folder = made(classifier()).write(tmp_path / "build")
    before = files(folder)

    def full(part, contents):
        part.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(project, "_write", full)
    with pytest.raises(StorageError, match="make room there"):
        made(classifier(seed=1)).write(folder)
    assert files(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is damaged"),
        ("[]", "is not of an exported project"),
        ('{"files": 3}', "is not of an exported project"),
        ('{"files": {}, "name": "a", "model": "b", "format": 9}', "is of format 9"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path, text, complaint):
    (tmp_path / "project.json").write_text(text)
    with pytest.raises(StorageError, match=complaint):
        read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"is no exported project \(it has no project\.json\)"):
        read_manifest(tmp_path)


@needs_host
@pytest.mark.parametrize("text", ['"', "\\", "??=", "\0007", "é☃", "a\nb", "%s"])
def test_text_is_the_same_in_c(text):
    if "\0" in text:
        assert c_string(text).startswith('"\\000')
        return
    main = f"#include <stdio.h>\nint main(void) {{ fputs({c_string(text)}, stdout); return 0; }}"
    assert run_on_host({"main.c": main}).output == text
