"""Changes to .tflite files at random: to their bytes, and to what they say.

Bytes changed blindly seldom get past the reader; numbers changed through the schema's classes give
files that are sound flatbuffers and say something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .build import pack, unpack

Random = np.random.Generator

WORDS = (0, 1, 2, 3, 4, 7, 8, 127, 128, 255, 256, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
NUMBERS = (-(2**31), -129, -128, -2, -1, 0, 1, 2, 3, 5, 8, 127, 1000, 2**15, 2**28, 2**31 - 1)
FACTORS = (0, -1, 1e-30, 1e-10, 1e-3, 0.1, 0.5, 2, 10, 1e3, 1e6, 1e20, np.nan, np.inf)


def one_of(random: Random, things: Sequence[Any]) -> Any:
    return things[int(random.integers(len(things)))]


# --- bytes ---------------------------------------------------------------------------------------


def bytes_changed(random: Random, data: bytes, other: bytes) -> bytes:
    """Bytes or words replaced, an end cut off, or a piece of another file put in."""
    changed = bytearray(data)
    match random.integers(5):
        case 0:
            for _ in range(random.integers(1, 5)):
                changed[random.integers(len(changed))] = random.integers(256)
        case 1:
            place = 4 * int(random.integers(len(changed) // 4))
            changed[place : place + 4] = int(one_of(random, WORDS)).to_bytes(4, "little")
        case 2:
            place = 4 * int(random.integers(len(changed) // 4))
            word = int.from_bytes(changed[place : place + 4], "little")
            word += int(random.integers(-8, 9))
            changed[place : place + 4] = (word % 2**32).to_bytes(4, "little")
        case 3:
            del changed[random.integers(len(changed)) :]
            if random.integers(2):
                changed += other[len(changed) :]
        case _:
            length = int(random.integers(1, 200))
            place, start = int(random.integers(len(changed))), int(random.integers(len(other)))
            changed[place : place + length] = other[start : start + length]
    return bytes(changed)


# --- what the file says --------------------------------------------------------------------------


def meaning_changed(random: Random, data: bytes) -> bytes:
    """A file that says something else in one to three places."""
    while True:
        model = unpack(data)
        for _ in range(random.integers(1, 4)):
            one_of(random, CHANGES)(random, model)
        try:
            return pack(model)
        except Exception:  # a number that the schema's classes cannot write
            continue


def _size(random: Random, model: schema.ModelT) -> None:
    tensor = one_of(random, model.subgraphs[0].tensors)
    if len(tensor.shape):
        shape = np.array(tensor.shape)
        shape[random.integers(len(shape))] = one_of(random, NUMBERS)
        tensor.shape = shape


def _sizes(random: Random, model: schema.ModelT) -> None:
    """One size changed wherever it stands, so that tensors may still fit one another."""
    tensors = model.subgraphs[0].tensors
    old = int(one_of(random, sorted({int(size) for t in tensors for size in t.shape})))
    new = old + one_of(random, (-1, 1)) if random.integers(2) else one_of(random, NUMBERS)
    new = min(max(new, -(2**31)), 2**31 - 1)
    constants = bool(random.integers(2))
    for tensor in tensors:
        if constants or model.buffers[tensor.buffer].data is None:
            tensor.shape = np.array([new if n == old else n for n in tensor.shape], np.int32)


def _scale(random: Random, model: schema.ModelT) -> None:
    scheme = one_of(random, model.subgraphs[0].tensors).quantization
    if scheme is not None and scheme.scale is not None and len(scheme.scale):
        scale = np.array(scheme.scale)
        with np.errstate(all="ignore"):
            scale[random.integers(len(scale))] *= np.float32(one_of(random, FACTORS))
        scheme.scale = scale


def _zero_point(random: Random, model: schema.ModelT) -> None:
    scheme = one_of(random, model.subgraphs[0].tensors).quantization
    if scheme is not None and scheme.zeroPoint is not None:
        new = one_of(random, (-129, -128, -1, 0, 1, 127, 128, 2**40))
        scheme.zeroPoint = np.full(len(scheme.zeroPoint), new)


def _type(random: Random, model: schema.ModelT) -> None:
    one_of(random, model.subgraphs[0].tensors).type = int(random.integers(24))


def _option(random: Random, model: schema.ModelT) -> None:
    options = one_of(random, model.subgraphs[0].operators).builtinOptions
    if options is None or not vars(options):
        return
    name = one_of(random, list(vars(options)))
    match getattr(options, name):
        case bool() as old:
            setattr(options, name, not old)
        case float():
            setattr(options, name, float(one_of(random, FACTORS)))
        case int():
            setattr(options, name, one_of(random, NUMBERS))


def _input(random: Random, model: schema.ModelT) -> None:
    operator = one_of(random, model.subgraphs[0].operators)
    if operator.inputs is not None and len(operator.inputs):
        inputs = np.array(operator.inputs)
        inputs[random.integers(len(inputs))] = random.integers(-2, len(model.subgraphs[0].tensors))
        operator.inputs = inputs


def _constant(random: Random, model: schema.ModelT) -> None:
    buffer = one_of(random, model.buffers)
    if buffer.data is not None and len(buffer.data) % 4 == 0 and len(buffer.data):
        words = np.frombuffer(bytes(buffer.data), "<i4").copy()
        words[random.integers(len(words))] = one_of(random, NUMBERS)
        buffer.data = words.view(np.uint8)


def _operator(random: Random, model: schema.ModelT) -> None:
    operators = list(model.subgraphs[0].operators)
    place = int(random.integers(len(operators)))
    match random.integers(3):
        case 0:
            operators[place].opcodeIndex = int(random.integers(len(model.operatorCodes)))
        case 1:
            code = model.operatorCodes[operators[place].opcodeIndex]
            code.builtinCode = int(random.integers(160))
            code.deprecatedBuiltinCode = min(127, code.builtinCode)
        case _ if len(operators) > 1:
            del operators[place]
            model.subgraphs[0].operators = operators


def _ends(random: Random, model: schema.ModelT) -> None:
    graph = model.subgraphs[0]
    numbers = random.integers(len(graph.tensors), size=random.integers(3)).astype(np.int32)
    if random.integers(2):
        graph.outputs = numbers
    else:
        graph.inputs = numbers


CHANGES: list[Callable[[Random, schema.ModelT], None]] = [
    _size, _sizes, _scale, _scale, _zero_point, _type, _option, _input, _constant, _constant,
    _operator, _ends,
]  # fmt: skip
