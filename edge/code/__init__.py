"""A program as C: two files without dependencies, for any compiler of C99.

The code is as small as the model lets it be: one static function a kind of node, shared by all its
nodes, whose numbers lie in constant structs. Two variants compute the same bits: plain C, and one
that works on four bytes at once with the DSP extension of Cortex-M4 and above (FAST).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedsys.edge.code import (
    convolution,
    depthwise,
    elementwise,
    floats,
    interpolation,
    movement,
    pooling,
    softmax,
)
from fedsys.edge.code.arena import Arena, plan
from fedsys.edge.code.unit import TYPES, Unit, comment, parameter
from fedsys.edge.code.windows import finish_windows
from fedsys.edge.integers.program import (
    Add,
    Convolution,
    Copy,
    DepthwiseConvolution,
    Dequantize,
    FullyConnected,
    Interpolate,
    Lookup,
    Mean,
    Multiply,
    Node,
    Pool,
    Prelu,
    Program,
    Quantize,
    Resize,
    Softmax,
    TransposedConvolution,
)
from fedsys.edge.tflite.model import Tensor
from fedsys.errors import ExportError, UsageError

CALLS: Mapping[type[Node], Callable[[Unit, Any], str]] = {
    Convolution: convolution.convolution,
    DepthwiseConvolution: depthwise.depthwise,
    TransposedConvolution: depthwise.transposed,
    FullyConnected: convolution.fully_connected,
    Pool: pooling.pool,
    Mean: pooling.mean,
    Add: elementwise.add,
    Multiply: elementwise.multiply,
    Lookup: elementwise.lookup,
    Prelu: elementwise.prelu,
    Softmax: softmax.softmax,
    Quantize: floats.quantize,
    Dequantize: floats.dequantize,
    Resize: movement.resize,
    Interpolate: interpolation.interpolate,
    Copy: movement.copy,
}

# Names under which NAME.h would hide a header that the generated files or their users include.
HEADERS = frozenset(
    """assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdarg
    stdbool stddef stdint stdio stdlib string tgmath time wchar wctype""".split()  # noqa: SIM905
)

HEADER = """
#ifndef {macro}_H
#define {macro}_H

#include <stddef.h>
#include <stdint.h>

/* Numbers in each input and output. */
{sizes}

/* Bytes of the static room that lies between them. */
#define {macro}_ARENA_BYTES {arena}

#ifdef __cplusplus
extern "C" {{
#endif

/* Run the model once. Not for two threads at a time; inputs and outputs must not overlap. */
{prototype};

#ifdef {macro}_TRACE
/* To be defined by whoever builds with {macro}_TRACE: called after each step with what it wrote. */
void {name}_trace(int tensor, const void *data, size_t bytes);
#endif

#ifdef __cplusplus
}}
#endif

#endif
"""

SOURCE = """
#include "{name}.h"

#include <string.h>

/* Fast kernels where the processor has the DSP extension, unless it is built for size;
   {macro}_DSP and {macro}_PLAIN decide otherwise. The results are the same bits. */
#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__) && !defined({macro}_PLAIN)
#define DSP_INSTRUCTIONS
#endif
#if defined({macro}_DSP) || (defined(DSP_INSTRUCTIONS) && !defined(__OPTIMIZE_SIZE__))
#define FAST
#endif

#ifdef __GNUC__
#define ALIGNED(bytes) __attribute__((aligned(bytes)))
#define INLINE inline __attribute__((unused)) /* one variant may not need it */
#else
#define ALIGNED(bytes)
#define INLINE inline
#endif
/* One copy for all nodes, that knows none of them: made for one node, GCC's inner loops get slower,
   and it warns of what that node never does. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 8
#define SHARED __attribute__((noipa))
#elif defined(__GNUC__)
#define SHARED __attribute__((noinline))
#else
#define SHARED
#endif

/* C leaves open what a shift to the right does to the sign; a negative size stops a compiler that
   does not keep it. */
typedef char shifts_keep_the_sign[(-1 >> 1) == -1 && (-5 >> 1) == -3 ? 1 : -1];

{functions}
{constants}
{prototype}
{{
{body}
}}
"""

TRACED = """
#ifdef {macro}_TRACE
#define TRACED(tensor, data, bytes) {name}_trace(tensor, data, bytes)
#else
#define TRACED(tensor, data, bytes)
#endif
"""


@dataclass(frozen=True)
class Generated:
    """What was made of a program.

    sources: file name -> text. arena: the plan that the code follows. name: as given.
    """

    name: str
    sources: Mapping[str, str]
    arena: Arena


def generate(program: Program, name: str = "model") -> Generated:
    """The C of a program, as NAME.h and NAME.c.

    UsageError where the name is no C identifier that a file may have; ExportError for a node or
    a type that no C is known for.
    """
    _require_name(name)
    unit = Unit(program, name, plan(program))
    model = program.model
    for number in (*model.inputs, *model.outputs):
        _require_type(model.tensors[number])
    body = "\n".join([*(_step(unit, node) for node in program.nodes), *_handed_over(unit)])
    finish_windows(unit)
    fields = {
        "name": name,
        "macro": unit.macro,
        "prototype": _prototype(unit),
        "sizes": "\n".join(_sizes(unit)),
    }
    room = f"static int8_t arena[{unit.macro}_ARENA_BYTES] ALIGNED(16);"
    unit.functions["traced"] = TRACED.format(**fields).strip()
    header = HEADER.format(**fields, arena=unit.arena.size)
    source = SOURCE.format(
        **fields,
        functions="\n\n".join(unit.functions.values()),
        constants="\n".join(["", room if unit.arena.size else "", *unit.constants.values(), ""]),
        body=textwrap.indent(body, "    "),
    )
    banner = "/* Generated by fedsys. Do not edit. */\n"
    return Generated(name, {f"{name}.h": banner + header, f"{name}.c": banner + source}, unit.arena)


def _step(unit: Unit, node: Node) -> str:
    """The statements of one node, with a comment that names it."""
    write = CALLS.get(type(node))
    tensor = unit.tensor(node.output)
    if write is None:
        raise ExportError(f"no C is known for {type(node).__name__} of {tensor.name!r}")
    title = f"/* {comment(node.operator.code)}: {comment(tensor.name)} */"
    # An alias is in its place already.
    work = "" if isinstance(node, Copy) and node.alias else write(unit, node)
    traced = f"TRACED({node.output}, {unit.bytes(node.output)}, {tensor.bytes});"
    return "\n".join(line for line in (title, work, traced) if line)


def _handed_over(unit: Unit) -> list[str]:
    """Copies of outputs that lie elsewhere: they are an input, a constant or twice asked for."""
    lines = []
    for position, number in enumerate(unit.program.model.outputs):
        home = unit.arena.places[number]
        if (home.room, home.number) != ("output", position):
            size = unit.tensor(number).bytes
            target = parameter("output", position)
            lines.append(f"memcpy({target}, {unit.bytes(number)}, {size});")
    return lines


def _prototype(unit: Unit) -> str:
    model = unit.program.model
    inputs = [
        f"const {_ctype(unit.tensor(n))} *{parameter('input', i)}"
        for i, n in enumerate(model.inputs)
    ]
    outputs = [
        f"{_ctype(unit.tensor(n))} *{parameter('output', i)}" for i, n in enumerate(model.outputs)
    ]
    return f"void {unit.name}_run({', '.join(inputs + outputs)})"


def _sizes(unit: Unit) -> list[str]:
    model = unit.program.model
    return [
        f"#define {unit.macro}_{parameter(room, i).upper()}_SIZE {unit.tensor(number).size}"
        for room, numbers in (("input", model.inputs), ("output", model.outputs))
        for i, number in enumerate(numbers)
    ]


def _ctype(tensor: Tensor) -> str:
    return TYPES[tensor.dtype.name]


def _require_type(tensor: Tensor) -> None:
    if tensor.dtype.name not in TYPES:
        raise ExportError(
            f"tensor {tensor.name!r} is {tensor.dtype.name}: no C type is known for it"
        )


def _require_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,47}", name) or name.lower() in HEADERS:
        raise UsageError(
            f"name {name!r} cannot name C files and functions: take letters, digits and _, "
            "beginning with a letter, at most 48, and no standard header's name"
        )
