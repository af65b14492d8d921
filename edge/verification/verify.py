"""Whether an exported project computes what the reference does, layer by layer, wherever it runs.

The reference is the NumPy executor, run anew on the project's own .tflite and golden inputs. The
self-test is built with the checksums that it gives, not with those that lie in the project.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.program import Program
from fedsys.edge.project.folder import changed_files, golden_header, read_manifest
from fedsys.edge.project.golden import Golden, of_vectors, unpacked
from fedsys.edge.tflite.reader import read
from fedsys.edge.verification import interpreter
from fedsys.edge.verification.targets import Target, target
from fedsys.edge.verification.toolchain import (
    Emulation,
    build,
    emulate,
    install,
    missing,
    run_on_host,
)
from fedsys.errors import ExportError, StorageError

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"

_MAIN = """
#include "firmware.h"
#include "{name}_selftest.h"
int main(void) {{
  const int failed = {name}_selftest(firmware_write);
#ifdef MEASURED
  firmware_measure({name}_selftest_again);
#endif
  return failed != 0;
}}
"""

_TOO_LARGE = re.compile("overflowed by|no room for the stack|will not fit")


@dataclass(frozen=True)
class Mismatch:
    """A layer (from 1; 0 for an output) that differs from the reference for a vector (from 1)."""

    vector: int
    layer: int
    operator: str
    name: str

    def __str__(self) -> str:
        if not self.layer:
            return f"outputs, vector {self.vector}"
        return f"layer {self.layer} ({self.operator} {self.name}), vector {self.vector}"


@dataclass(frozen=True)
class Trial:
    """One thing that was tried.

    place: 'files', 'golden', 'interpreter', 'host', or a core with the compiler's option.
    status: 'passed', 'failed' or 'skipped'. note: what was seen, or why it was not run.
    values: numbers that were compared. instructions: of an inference; stack: bytes it needs.
    """

    place: str
    status: str
    note: str
    values: int | None = None
    mismatches: tuple[Mismatch, ...] = ()
    instructions: int | None = None
    stack: int | None = None


@dataclass(frozen=True)
class Verification:
    """All that was tried on a project."""

    folder: Path
    trials: tuple[Trial, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed, and the generated C ran somewhere."""
        ran = [trial for trial in self.trials if trial.status == PASSED and " -" in trial.place]
        host = [trial for trial in self.trials if trial.place == "host" and trial.status == PASSED]
        return not self.failed and bool(ran or host)

    @property
    def failed(self) -> tuple[Trial, ...]:
        """The trials that failed."""
        return tuple(trial for trial in self.trials if trial.status == FAILED)

    def text(self) -> str:
        """A line a trial, with mismatches below it, and the verdict."""
        width = max(len(trial.place) for trial in self.trials)
        lines = []
        for trial in self.trials:
            lines.append(f"{trial.place:<{width}}  {trial.status:<7}  {trial.note}")
            lines += [f"{'':<{width}}           {each}" for each in trial.mismatches[:10]]
            if len(trial.mismatches) > 10:
                lines.append(f"{'':<{width}}           and {len(trial.mismatches) - 10} more")
        verdict = "verified" if self.passed else "failed" if self.failed else "not run"
        return "\n".join([*lines, f"{self.folder}: {verdict}"])

    def table(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        return {
            "folder": str(self.folder),
            "passed": self.passed,
            "trials": [asdict(trial) for trial in self.trials],
        }


def verify(
    folder: str | Path,
    targets: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Verification:
    """Tries a project's C on this machine and in the emulator against the reference.

    targets: names of cores; none for that of the export. say: is told each step. StorageError
    where the folder holds no project, UsageError for an unknown core; what fails is in the result.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    chosen = [target(name) for name in targets or [str(manifest.get("target", "cortex-m4"))]]
    changed = changed_files(folder, manifest)
    needed = _Project.files(manifest)
    for path in needed:
        if changed.get(path) == "missing":
            raise StorageError(f"{folder / path}: is missing: export anew")
    project = _Project.read(folder, manifest)
    trials = [_files(manifest, changed), _golden(project)]
    say("running the TensorFlow Lite Micro interpreter")
    trials.append(_interpreter(project))
    say("running the C on this machine")
    trials.append(_host(project))
    for core in chosen:
        say(f"running the C on an emulated {core.core}")
        trials += _emulated(project, core)
    return Verification(folder, tuple(trials))


@dataclass(frozen=True, eq=False)
class _Project:
    """A project as it is tried. sources: C, with the header of the reference that was run anew.
    header: the one that lies there."""

    name: str
    tflite: bytes
    program: Program
    golden: Golden
    sources: dict[str, str]
    header: str

    @staticmethod
    def files(manifest: dict[str, Any]) -> list[str]:
        """Paths of what is read."""
        name = manifest["name"]
        ends = (".h", ".c", "_selftest.h", "_selftest.c", "_golden.h")
        return [manifest["model"], "test/golden.npz", *(f"src/{name}{end}" for end in ends)]

    @staticmethod
    def read(folder: Path, manifest: dict[str, Any]) -> _Project:
        name = manifest["name"]
        model, vectors, *sources = _Project.files(manifest)
        tflite = (folder / model).read_bytes()
        program = lower(read(tflite))
        place = folder / vectors
        golden = _rerun(program, place)
        texts = {
            Path(path).name: (folder / path).read_text(encoding="utf-8", errors="replace")
            for path in sources
        }
        header = texts[f"{name}_golden.h"]
        texts[f"{name}_golden.h"] = golden_header(name, program, golden)
        return _Project(name, tflite, program, golden, texts, header)

    @property
    def trace(self) -> str:
        """The macro that makes the model tell of each layer."""
        return f"{self.name.upper()}_TRACE"

    @property
    def values(self) -> int:
        """Numbers that all layers write for all vectors."""
        tensors = self.program.model.tensors
        one = sum(tensors[node.output].size for node in self.program.nodes)
        return len(self.golden.vectors) * one

    @property
    def amount(self) -> str:
        return f"{len(self.golden.vectors)} vectors, {len(self.golden.layers)} layers"


def _rerun(program: Program, place: Path) -> Golden:
    vectors = unpacked(place.read_bytes(), str(place))
    tensors = [program.model.tensors[number] for number in program.model.inputs]
    for vector in vectors:
        kinds = [(array.size, array.dtype) for array in vector.inputs]
        if kinds != [(tensor.size, tensor.dtype) for tensor in tensors]:
            raise StorageError(f"{place}: does not fit the model: export anew")
    if not vectors:
        raise StorageError(f"{place}: holds no golden vectors: export anew")
    return of_vectors(program, vectors)


def _files(manifest: dict[str, Any], changed: dict[str, str]) -> Trial:
    """Whether every file is as it was exported."""
    if changed:
        told = ", ".join(f"{path} {how}" for path, how in sorted(changed.items()))
        return Trial("files", FAILED, f"not as exported: {told}")
    return Trial("files", PASSED, f"{len(manifest['files'])} files as exported")


def _golden(project: _Project) -> Trial:
    """Whether the checksums in the project are those of the reference run anew."""
    if project.header != project.sources[f"{project.name}_golden.h"]:
        note = "the golden vectors in the project are not what the reference gives for its .tflite"
        return Trial("golden", FAILED, note)
    return Trial("golden", PASSED, f"{project.amount}: as the NumPy executor gives them")


def _interpreter(project: _Project) -> Trial:
    """The reference against the interpreter of TensorFlow Lite Micro."""
    place = "interpreter"
    if not interpreter.available():
        return Trial(place, SKIPPED, "tflite-micro is not installed: pip install tflite-micro")
    model, golden = project.program.model, project.golden
    written = {number for operator in model.operators for number in operator.outputs}
    layers = [layer for layer in golden.layers if layer.tensor in written]
    inputs = [
        np.stack([vector.inputs[position] for vector in golden.vectors]).reshape(
            len(golden.vectors), *model.tensors[number].shape
        )
        for position, number in enumerate(model.inputs)
    ]
    try:
        found = interpreter.layer_checks(project.tflite, inputs, [layer.tensor for layer in layers])
    except ExportError as error:
        return Trial(place, SKIPPED, f"TensorFlow Lite Micro cannot run the model: {error}")
    wrong = tuple(
        Mismatch(vector + 1, golden.layers.index(layer) + 1, layer.operator, layer.name)
        for layer in layers
        for vector, check in enumerate(layer.checks)
        if found[layer.tensor][vector] != check
    )
    return _trial(place, project, wrong, "TensorFlow Lite Micro's interpreter")


def _host(project: _Project) -> Trial:
    if missing("cc"):
        return Trial("host", SKIPPED, install("cc"))
    main = (
        f'#include <stdio.h>\n#include "{project.name}_selftest.h"\n'
        "static void print(const char *text) { fputs(text, stdout); }\n"
        f"int main(void) {{ return {project.name}_selftest(print) != 0; }}\n"
    )
    try:
        done = run_on_host({**project.sources, "main.c": main}, (project.trace,), warnings=())
    except ExportError as error:
        return Trial("host", FAILED, str(error))
    return _judged("host", project, done, "this machine")


def _emulated(project: _Project, core: Target) -> list[Trial]:
    """Built small and built fast, which takes other kernels where the core has DSP instructions."""
    options = ("-Os", "-O3")
    absent = missing("arm-none-eabi-gcc", "qemu-system-arm")
    if absent:
        return [Trial(f"{core.name} {option}", SKIPPED, install(*absent)) for option in options]
    return [_on_core(project, core, option) for option in options]


def _on_core(project: _Project, core: Target, optimise: str) -> Trial:
    place = f"{core.name} {optimise}"
    sources = {**project.sources, "main.c": _MAIN.format(name=project.name)}
    try:
        layers = emulate(build(sources, core, optimise, (project.trace,), warnings=()))
        whole = emulate(build(sources, core, optimise, ("MEASURED",), warnings=()))
    except ExportError as error:
        status = SKIPPED if _TOO_LARGE.search(str(error)) else FAILED
        return Trial(place, status, str(error))
    return _judged(place, project, layers, f"an emulated {core.core}", whole)


def _judged(
    place: str, project: _Project, layers: Emulation, where: str, whole: Emulation | None = None
) -> Trial:
    """The self-test's text as a trial. whole: of the build without a trace, which is measured."""
    wrong = _mismatches(project, layers.output)
    runs = [layers] if whole is None else [layers, whole]
    if not wrong:
        for run in runs:
            if run.code or "PASS: " not in run.output:
                said = (run.output.strip().splitlines() or ["it said nothing"])[-1]
                return Trial(place, FAILED, f"ended with code {run.code} on {where}: {said}")
    instructions = whole.instructions if whole else None
    stack = whole.stack if whole else None
    return _trial(place, project, wrong, f"the C on {where}", instructions, stack)


def _mismatches(project: _Project, output: str) -> tuple[Mismatch, ...]:
    found = []
    for vector, number in re.findall(
        r"FAIL vector (\d+) \([^)]*\), (?:layer (\d+)|output)", output
    ):
        place = int(number or 0)
        known = 0 < place <= len(project.golden.layers)
        layer = project.golden.layers[place - 1] if known else None
        found.append(
            Mismatch(
                int(vector), place, layer.operator if layer else "", layer.name if layer else ""
            )
        )
    return tuple(found)


def _trial(
    place: str,
    project: _Project,
    wrong: tuple[Mismatch, ...],
    who: str,
    instructions: int | None = None,
    stack: int | None = None,
) -> Trial:
    if wrong:
        note = f"{who} differs from the reference: first in {wrong[0]}"
        return Trial(place, FAILED, note, project.values, wrong, instructions, stack)
    note = f"{project.amount}: {project.values} numbers equal"
    if instructions is not None:
        note += f"; {instructions} instructions an inference, {stack} bytes of stack"
    return Trial(place, PASSED, note, project.values, (), instructions, stack)
