"""The folder of an export: C and what surrounds it, for every build system, with its checksums.

One folder is a CMake project, an Arduino library, an ESP-IDF component and a Zephyr module at
once. The same model gives the same bytes. It appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fedsys.edge.code import Generated
from fedsys.edge.integers.program import Program
from fedsys.edge.project.golden import Golden
from fedsys.edge.project.rendering import context, golden_fields
from fedsys.edge.verification.interpreter import ArenaNeed, arena_need
from fedsys.errors import StorageError
from fedsys.storage import storing

FORMAT = 1
MANIFEST = "project.json"
REPORTS = frozenset({"report.txt", "report.json", "report.html"})
"""Files that an export puts beside the project."""

# Template -> where its text goes; NAME stands for the model's name.
_FILES = {
    "README.md": "README.md",
    "src/io.h": "src/NAME_io.h",
    "src/io.c": "src/NAME_io.c",
    "src/golden.h": "src/NAME_golden.h",
    "src/selftest.h": "src/NAME_selftest.h",
    "src/selftest.c": "src/NAME_selftest.c",
    "test/main.c": "test/main.c",
    "CMakeLists.txt": "CMakeLists.txt",
    "cmake/cortex-m.cmake": "cmake/cortex-m.cmake",
    "library.properties": "library.properties",
    "examples/selftest.ino": "examples/selftest/selftest.ino",
    "idf_component.yml": "idf_component.yml",
    "zephyr/module.yml": "zephyr/module.yml",
    "zephyr/CMakeLists.txt": "zephyr/CMakeLists.txt",
    "zephyr/Kconfig": "zephyr/Kconfig",
    "tflm/model_data.h": "tflm/model_data.h",
    "tflm/model_data.cc": "tflm/model_data.cc",
    "tflm/op_resolver.h": "tflm/op_resolver.h",
}


@dataclass(frozen=True)
class Details:
    """What is known of a model beyond its file.

    source: the run or file that it comes from. method: how it was quantised. target: the core
    that build files name first. labels: of the classes. prepared: how raw data became inputs
    (`Task.prepared`). calibration: where its ranges come from, plain values.
    """

    source: str = ""
    method: str = "int8"
    target: str = "cortex-m4"
    labels: tuple[str, ...] = ()
    prepared: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)


def write_project(
    folder: str | Path,
    tflite: bytes,
    program: Program,
    generated: Generated,
    golden: Golden,
    details: Details | None = None,
) -> Path:
    """Writes the project of a model and gives its folder back.

    tflite: the model's file, from which `program` and `generated` were made. StorageError where
    the folder holds something else than an older project, or cannot be written.
    """
    folder = Path(folder)
    _require_ours(folder)
    need = arena_need(tflite, program, generated.arena)
    contents = project_files(tflite, program, generated, golden, details or Details(), need)
    with storing(folder):
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.absolute().parent))
    try:
        with storing(folder):
            _write(part / "new", contents)
            if folder.exists():
                os.replace(folder, part / "old")
            os.replace(part / "new", folder)
    except BaseException:
        if (part / "old").exists() and not folder.exists():
            os.replace(part / "old", folder)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def project_files(
    tflite: bytes,
    program: Program,
    generated: Generated,
    golden: Golden,
    details: Details,
    need: ArenaNeed,
) -> dict[str, bytes]:
    """Path in the project -> its content, for all files."""
    name = generated.name
    fields = context(tflite, program, generated, golden, details, need)
    contents = {
        path.replace("NAME", name): (_template(template).render(fields).strip("\n") + "\n").encode()
        for template, path in _FILES.items()
    }
    contents |= {f"src/{file}": text.encode() for file, text in generated.sources.items()}
    contents |= {f"{name}.tflite": tflite, "test/golden.npz": golden.packed()}
    manifest = {
        "format": FORMAT,
        "name": name,
        "model": f"{name}.tflite",
        "source": details.source,
        "method": details.method,
        "target": details.target,
        "operators": fields["operators"],
        "arena_bytes": generated.arena.size,
        "interpreter_arena": {
            "bytes": need.bytes,
            "margin": need.margin,
            "measured": need.measured,
        },
        "labels": list(details.labels),
        "prepared": dict(details.prepared),
        "calibration": dict(details.calibration),
        "files": {
            path: hashlib.sha256(content).hexdigest() for path, content in sorted(contents.items())
        },
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    return {**contents, MANIFEST: text.encode()}


def golden_header(name: str, program: Program, golden: Golden) -> str:
    """The text of NAME_golden.h."""
    fields = {"name": name, "macro": name.upper(), **golden_fields(program, golden)}
    text: str = _template("src/golden.h").render(fields)
    return text.strip("\n") + "\n"


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `project.json` says. StorageError where there is none, or it is not ours."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StorageError(
            f"{folder}: is no exported project (it has no {MANIFEST}): name a folder that "
            "`fedsys export` wrote"
        ) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise StorageError(f"{path}: is damaged ({error}): export anew") from None
    known = isinstance(manifest, dict) and isinstance(manifest.get("files"), dict)
    if not known or not all(isinstance(manifest.get(key), str) for key in ("name", "model")):
        raise StorageError(f"{path}: is not of an exported project: export anew")
    if manifest.get("format") != FORMAT:
        raise StorageError(
            f"{path}: is of format {manifest.get('format')}, this fedsys reads {FORMAT}: "
            "export anew"
        )
    return manifest


def changed_files(folder: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Files that are not as they were exported: path -> 'missing' or 'changed'."""
    found = {}
    for path, digest in manifest["files"].items():
        file = folder / path
        # A manifest that was tampered with must not lead out of the folder.
        if ".." in Path(path).parts or Path(path).is_absolute() or not file.is_file():
            found[path] = "missing"
        elif hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            found[path] = "changed"
    return found


def _require_ours(folder: Path) -> None:
    """Refuses to write over what is not an older project, or has files that no export wrote."""
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise StorageError(f"{folder}: is no folder: choose another place")
    if not any(folder.iterdir()):
        return
    try:
        ours = {*read_manifest(folder)["files"], MANIFEST, *REPORTS}
    except StorageError:
        raise StorageError(
            f"{folder}: holds something else than an exported project: choose another place"
        ) from None
    there = (path for path in sorted(folder.rglob("*")) if not path.is_dir())
    if other := [str(path.relative_to(folder)) for path in there
                 if path.relative_to(folder).as_posix() not in ours]:  # fmt: skip
        raise StorageError(
            f"{folder}: holds {other[0]}, which no export wrote: move it away, or choose another "
            "place"
        )


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    for path, content in contents.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


@cache
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("fedsys.edge.project", "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )


def _template(name: str) -> Any:
    return _environment().get_template(f"{name}.j2")
