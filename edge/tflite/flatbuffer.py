"""Changes to .tflite files of our own making: unpacked to objects, and packed again.

Only for files that came out of a converter a moment ago; what others give is read by `reader`.
"""

from __future__ import annotations

from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated

schema = schema_py_generated

ALIGNMENT = 16
"""Bytes that constants begin at a multiple of, as the schema demands of writers."""

OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0] != "_"}


class _Aligned:
    """A buffer of constants that packs itself at a multiple of `ALIGNMENT`."""

    def __init__(self, data: np.ndarray) -> None:
        self.data = np.ascontiguousarray(data).view(np.uint8)

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 (the schema's name)
        size = len(self.data)
        builder.StartVector(1, size, ALIGNMENT)
        builder.head -= size
        builder.Bytes[builder.head : builder.head + size] = self.data.tobytes()
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return int(schema.BufferEnd(builder))


def unpacked(model: bytes) -> Any:
    """The file as the schema's objects (`ModelT`)."""
    return schema.ModelT.InitFromPackedBuf(model, 0)


def packed(model: Any) -> bytes:
    """The objects as a file. The same objects give the same bytes."""
    buffers = model.buffers
    model.buffers = [
        _Aligned(buffer.data) if buffer.data is not None and len(buffer.data) else buffer
        for buffer in buffers
    ]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    model.buffers = buffers
    return bytes(builder.Output())


def operator_name(model: Any, operator: Any) -> str:
    """The operator's name as TensorFlow Lite has it, or a custom operator's own."""
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return str(code.customCode.decode(errors="replace"))
    # Files of before 2020 have the code in the deprecated place, which is a byte.
    return OPERATORS.get(max(code.builtinCode, code.deprecatedBuiltinCode), "an unknown operator")


def text(name: bytes | str | None) -> str:
    """A name of the file as text."""
    return name.decode(errors="replace") if isinstance(name, bytes) else name or ""
