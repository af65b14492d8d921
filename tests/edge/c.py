"""Compiles generated C on this machine, with sanitizers, and runs it on rows."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from fedsys.edge.code import Generated
from fedsys.edge.code.unit import TYPES
from fedsys.edge.integers.program import Program

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
needs_arm = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not installed"
)
needs_emulator = pytest.mark.skipif(
    None in (shutil.which("arm-none-eabi-gcc"), shutil.which("qemu-system-arm")),
    reason="arm-none-eabi-gcc or qemu-system-arm is not installed",
)

# Reads rows from standard input, writes each trace as tensor, size, bytes, and -1 before outputs.
# Rooms are of the exact size from malloc, so that the sanitizer sees one byte too many.
DRIVER = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include "{name}.h"

static void put(int tensor, const void *data, size_t bytes)
{{
    int32_t head[2] = {{tensor, (int32_t)bytes}};
    fwrite(head, sizeof head, 1, stdout);
    fwrite(data, 1, bytes, stdout);
}}

void {name}_trace(int tensor, const void *data, size_t bytes)
{{
    put(tensor, data, bytes);
}}

int main(void)
{{
    static const size_t input_bytes[] = {{{input_bytes}}};
    static const size_t output_bytes[] = {{{output_bytes}}};
    void *in[{inputs}];
    void *out[{outputs}];
    for (int i = 0; i < {inputs}; i++) {{
        in[i] = malloc(input_bytes[i]);
    }}
    for (int i = 0; i < {outputs}; i++) {{
        out[i] = malloc(output_bytes[i]);
    }}
    for (;;) {{
        for (int i = 0; i < {inputs}; i++) {{
            if (fread(in[i], 1, input_bytes[i], stdin) != input_bytes[i]) {{
                for (int k = 0; k < {inputs}; k++) {{
                    free(in[k]);
                }}
                for (int k = 0; k < {outputs}; k++) {{
                    free(out[k]);
                }}
                return 0;
            }}
        }}
        {name}_run({arguments});
        for (int i = 0; i < {outputs}; i++) {{
            put(-1 - i, out[i], output_bytes[i]);
        }}
    }}
}}
"""


def write(generated: Generated, folder: Path) -> Path:
    """Write the sources into a folder; returns the .c file."""
    for file, text in generated.sources.items():
        (folder / file).write_text(text)
    return folder / f"{generated.name}.c"


def build(program: Program, generated: Generated, folder: Path, options: Sequence[str]) -> Path:
    """An executable that traces; AssertionError with the compiler's words where it fails."""
    source = write(generated, folder)
    tensors = [program.model.tensors[n] for n in program.model.inputs]
    results = [program.model.tensors[n] for n in program.model.outputs]
    driver = folder / "driver.c"
    driver.write_text(
        DRIVER.format(
            name=generated.name,
            input_bytes=", ".join(str(tensor.bytes) for tensor in tensors),
            output_bytes=", ".join(str(tensor.bytes) for tensor in results),
            inputs=len(tensors),
            outputs=len(results),
            arguments=", ".join(
                [f"in[{i}]" for i in range(len(tensors))]
                + [f"out[{i}]" for i in range(len(results))]
            ),
        )
    )
    target = folder / "driver"
    trace = f"-D{generated.name.upper()}_TRACE"
    command = ["gcc", *STRICT, trace, *options, str(source), str(driver), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def cross(generated: Generated, folder: Path, core: str, *options: str) -> Path:
    """The object file for a core; AssertionError with the compiler's words where it fails."""
    source = write(generated, folder)
    target = source.with_suffix(".o")
    command = ["arm-none-eabi-gcc", *STRICT, f"-mcpu={core}", "-mthumb", *options]
    done = subprocess.run(
        [*command, "-c", str(source), "-o", str(target)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target


def run(
    program: Program, executable: Path, inputs: Sequence[np.ndarray]
) -> tuple[dict[int, np.ndarray], list[np.ndarray]]:
    """Traces by tensor, and outputs by position: [n, *whole shape]. inputs: each [n, ...]."""
    rows = len(inputs[0])
    given = b"".join(array[row].tobytes() for row in range(rows) for array in inputs)
    done = subprocess.run([str(executable)], input=given, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    model = program.model
    found: dict[int, list[np.ndarray]] = {}
    at = 0
    while at < len(done.stdout):
        number, size = struct.unpack_from("<ii", done.stdout, at)
        tensor = model.tensors[number if number >= 0 else model.outputs[-1 - number]]
        data = np.frombuffer(done.stdout, tensor.dtype, size // tensor.dtype.itemsize, at + 8)
        found.setdefault(number, []).append(data.reshape(tensor.shape))
        at += 8 + size
    arrays = {number: np.stack(values) for number, values in found.items()}
    return (
        {number: values for number, values in arrays.items() if number >= 0},
        [arrays[-1 - i] for i in range(len(model.outputs))],
    )


def same(expected: Mapping[int, np.ndarray], found: Mapping[int, np.ndarray]) -> list[str]:
    """What differs between two traces, a line each."""
    lines = []
    for number, values in found.items():
        wanted = expected[number].reshape(values.shape)
        if wanted.tobytes() != values.tobytes():
            wrong = int((wanted != values).sum())
            lines.append(f"tensor {number} {values.shape[1:]}: {wrong} of {values.size} differ")
    return lines


# Prints a checksum of every trace and output, for a run in the emulator.
CHECKSUMS = """
#include <stddef.h>
#include <stdint.h>
#include "firmware.h"
#include "{name}.h"

{rooms}

static void put(int tensor, const void *data, size_t bytes)
{{
    uint32_t sum = 2166136261u ^ (uint32_t)tensor;
    for (size_t i = 0; i < bytes; i++) {{
        sum = (sum ^ ((const uint8_t *)data)[i]) * 16777619u;
    }}
    char line[10];
    for (int i = 0; i < 8; i++) {{
        line[i] = "0123456789abcdef"[sum >> (28 - 4 * i) & 15];
    }}
    line[8] = '\\n';
    line[9] = 0;
    firmware_write(line);
}}

void {name}_trace(int tensor, const void *data, size_t bytes)
{{
    put(tensor, data, bytes);
}}

int main(void)
{{
    {name}_run({arguments});
{puts}
    return 0;
}}
"""


def checksums(program: Program, name: str, inputs: Sequence[np.ndarray]) -> str:
    """A `main` for the emulator that runs one row. inputs: each [1, ...]."""
    model = program.model
    rooms, arguments, puts = [], [], []
    for i, array in enumerate(inputs):
        values = ", ".join(str(value) for value in array.view(np.int8).reshape(-1))
        # Unions, so that bytes may be of any type and lie as it needs.
        kind = TYPES[array.dtype.name]
        rooms.append(
            f"static const union {{int8_t bytes[{array.nbytes}]; {kind} values[{array.size}];}}"
            f" in_{i} = {{{{{values}}}}};"
        )
        arguments.append(f"in_{i}.values")
    for i, number in enumerate(model.outputs):
        tensor = model.tensors[number]
        rooms.append(f"static {TYPES[tensor.dtype.name]} out_{i}[{tensor.size}];")
        arguments.append(f"out_{i}")
        puts.append(f"    put({-1 - i}, out_{i}, sizeof out_{i});")
    return CHECKSUMS.format(
        name=name, rooms="\n".join(rooms), arguments=", ".join(arguments), puts="\n".join(puts)
    )


def expected_checksums(program: Program, traced: Mapping[int, np.ndarray]) -> list[str]:
    """What the emulator should print for the executor's trace of one row."""
    values = [(node.output, traced[node.output]) for node in program.nodes]
    values += [(-1 - i, traced[n]) for i, n in enumerate(program.model.outputs)]
    lines = []
    for number, array in values:
        total = 2166136261 ^ (number & 0xFFFFFFFF)
        for byte in array.tobytes():
            total = (total ^ byte) * 16777619 & 0xFFFFFFFF
        lines.append(f"{total:08x}")
    return lines
