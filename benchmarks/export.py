"""Flash, RAM and instructions of generated C on a Cortex-M4, over the zoo of the tests.

Each model is built for size and for speed, plain and with the DSP extension, and run once in the
emulator on random rows; what it gives must be what the NumPy executor gives. Instructions are
counted, so the figures are the same on every machine with the same compiler.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.timing import table, verdict
from fedsys.edge.code import generate
from fedsys.edge.integers.executor import trace
from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.program import Program
from fedsys.edge.tflite.model import Tensor
from fedsys.edge.tflite.reader import read
from fedsys.edge.verification import toolchain
from fedsys.edge.verification.toolchain import Sizes, Target

KEYWORDS = "kws_ds_cnn"
"""The zoo's keyword-spotting network of the MLPerf Tiny shape."""

CODE, ARENA = 1536, 16_000
PLAIN_INSTRUCTIONS = 30e6

MAIN = """
#include "firmware.h"
#include "model.h"
{arrays}
static void call(void) {{ model_run({arguments}); }}
int main(void) {{
  firmware_measure(call);
  {checks}
  firmware_write("same\\n");
  return 0;
}}
"""


@dataclass(frozen=True)
class Way:
    """How the C is compiled."""

    name: str
    optimise: str
    define: str


WAYS = (
    Way("-Os", "-Os", "MODEL_PLAIN"),
    Way("-O3", "-O3", "MODEL_PLAIN"),
    Way("-O3 DSP", "-O3", "MODEL_DSP"),
)


@dataclass(frozen=True)
class Figures:
    """What one model needs, way by way."""

    name: str
    file: int
    arena: int
    sizes: dict[str, Sizes]
    instructions: dict[str, int]


def measure(name: str, data: bytes, target: Target) -> Figures:
    """Builds and runs one model in every way. AssertionError where a result is another."""
    program = lower(read(data))
    generated = generate(program, "model")
    sources = {**generated.sources, "main.c": main_of(program)}
    sizes, instructions = {}, {}
    for way in WAYS:
        sizes[way.name] = toolchain.sizes(
            generated.sources, target, way.optimise, (way.define,), entry="model_run"
        )
        done = toolchain.emulate(toolchain.build(sources, target, way.optimise, (way.define,)))
        assert (done.output, done.code) == ("same\n", 0), f"{name} {way.name}: {done.output}"
        assert done.instructions is not None
        instructions[way.name] = done.instructions
    return Figures(name, len(data), generated.arena.size, sizes, instructions)


def main_of(program: Program) -> str:
    """A program that runs the model on random rows and compares what it gives."""
    rng = np.random.default_rng(0)
    model = program.model
    rows = [_random(rng, model.tensors[i]) for i in model.inputs]
    values = trace(program, [row[None] for row in rows])
    arrays, arguments, checks = [], [], []
    for place, row in enumerate(rows):
        arrays.append(_array(f"static const {_type(row)} row{place}", row))
        arguments.append(f"row{place}")
    for place, tensor in enumerate(model.outputs):
        wanted = np.ascontiguousarray(values[tensor][0])
        arrays.append(_array(f"static const {_type(wanted)} wanted{place}", wanted))
        arrays.append(f"static {_type(wanted)} given{place}[{wanted.size}];")
        arguments.append(f"given{place}")
        checks.append(
            f"for (int i = 0; i < {wanted.size}; i++) if (given{place}[i] != wanted{place}[i]) "
            "return 1;"
        )
    return MAIN.format(
        arrays="\n".join(arrays), arguments=", ".join(arguments), checks="\n  ".join(checks)
    )


def _random(rng: np.random.Generator, tensor: Tensor) -> np.ndarray:
    shape = tensor.shape[1:]
    if tensor.dtype == np.int8:
        return rng.integers(-128, 128, shape).astype(np.int8)
    return rng.normal(0, 1, shape).astype(tensor.dtype)


def _type(array: np.ndarray) -> str:
    return {"int8": "int8_t", "int32": "int32_t", "float32": "float"}[array.dtype.name]


def _array(declared: str, array: np.ndarray) -> str:
    values = ", ".join(repr(value) for value in array.ravel().tolist())
    return f"{declared}[{array.size}] = {{{values}}};"


def figures_table(all_: Sequence[Figures]) -> str:
    """A line a model."""
    header = ["model", ".tflite", "constants", "arena"]
    header += [f"code {way.name}" for way in WAYS] + [f"M instr. {way.name}" for way in WAYS]
    rows = []
    for one in all_:
        small = one.sizes["-Os"]
        codes = [f"{one.sizes[w.name].code + one.sizes[w.name].library:,}" for w in WAYS]
        counts = [f"{one.instructions[way.name] / 1e6:.3f}" for way in WAYS]
        rows.append(
            [one.name, f"{one.file:,}", f"{small.constants:,}", f"{one.arena:,}", *codes, *counts]
        )
    return table(header, rows)


def aims_table(one: Figures) -> str:
    """What was asked of the keyword network."""
    code, library = one.sizes["-Os"].code, one.sizes["-Os"].library
    plain, fast = one.instructions["-O3"], one.instructions["-O3 DSP"]
    most = PLAIN_INSTRUCTIONS / 2
    lines = [
        ["code at -Os, bytes", f"{code:,}", f"<= {CODE:,}", verdict(code, most=CODE)],
        ["and the compiler's own routines", f"{library:,}", "", ""],
        ["arena, bytes", f"{one.arena:,}", f"<= {ARENA:,}", verdict(one.arena, most=ARENA)],
        ["instructions at -O3, M", f"{plain / 1e6:.1f}", "", ""],
        ["the same with DSP, M", f"{fast / 1e6:.1f}", f"<= {most / 1e6:g}",
         verdict(fast, most=most)],
    ]  # fmt: skip
    return table(["keyword spotting", "measured", "target", ""], lines)


def compiler() -> str:
    """The cross-compiler by name and version."""
    said = subprocess.run(
        ["arm-none-eabi-gcc", "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
    found = re.search(r"\d+\.\d+\.\d+", said)
    return f"arm-none-eabi-gcc {found[0] if found else said}"


def main() -> None:
    from tests.edge import zoo

    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("--only", choices=zoo.NAMES, help="One model.")
    parser.add_argument("--target", default="cortex-m4", help="A core [cortex-m4].")
    options = parser.parse_args()
    target = toolchain.target(options.target)
    found = []
    for name in [options.only] if options.only else zoo.NAMES:
        print(name, file=sys.stderr, flush=True)
        found.append(measure(name, zoo.int8(name), target))
    print(f"{target.core}, {compiler()}; bytes, and millions of instructions an inference\n")
    print(figures_table(found))
    for one in found:
        if one.name == KEYWORDS:
            print(f"\n{aims_table(one)}")


if __name__ == "__main__":
    main()
