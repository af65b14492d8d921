"""What the templates of a project are filled with."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.edge.code import Generated
from fedsys.edge.code.unit import TYPES, comment, integer, parameter
from fedsys.edge.integers.program import Program
from fedsys.edge.project.golden import Golden
from fedsys.edge.project.resolver import registrations
from fedsys.edge.tflite.model import Tensor
from fedsys.edge.verification.interpreter import MARGIN_REASON, ArenaNeed
from fedsys.edge.verification.targets import TARGETS

if TYPE_CHECKING:
    from fedsys.edge.project.folder import Details


LEARNED = ("rule", "clients", "rows", "refused")
"""What a project's README says of the calibration; `project.json` has all of it."""


@dataclass(frozen=True)
class Port:
    """An input or output of the model. scale: as a C literal; None where it is not quantised."""

    word: str
    title: str
    note: str
    ctype: str
    size: int
    is_input: bool
    scale: str | None
    zero_point: int
    low: int
    high: int
    bits: int

    @property
    def reach(self) -> int:
        """Steps beyond which every value is at a limit, whatever the zero point."""
        return 4 * (self.high + 1)


def context(
    tflite: bytes,
    program: Program,
    generated: Generated,
    golden: Golden,
    details: Details,
    need: ArenaNeed,
) -> dict[str, Any]:
    """Name in a template -> value."""
    name = generated.name
    headers, calls = registrations(program.model)
    ports = _ports(program)
    return {
        "name": name,
        "macro": name.upper(),
        "camel": "".join(word.capitalize() for word in name.split("_")),
        "ports": ports,
        "first_output": next((p for p in ports if not p.is_input and p.scale is not None), None),
        "arena": generated.arena.size,
        "source": comment(details.source, 200),
        "method": details.method,
        "target": details.target,
        "cores": list(TARGETS.values()),
        "operators": sorted({operator.code for operator in program.model.operators}),
        "labels": [c_string(label) for label in details.labels],
        "prepare": _prepare(details.prepared, program),
        "prepared_note": _plain(details.prepared),
        "calibration_note": _plain(
            {key: details.calibration[key] for key in LEARNED if details.calibration.get(key)}
        ),
        "has_rows": any(vector.kind == "row" for vector in golden.vectors),
        **golden_fields(program, golden),
        "bytes": len(tflite),
        "data": listed((f"0x{byte:02x}" for byte in tflite), 2),
        "need": need,
        "reason": textwrap.wrap(f"{MARGIN_REASON}.", 90),
        "headers": headers,
        "calls": calls,
    }


def c_string(text: str) -> str:
    """Text as a C string literal: UTF-8, whatever is not plain as octal escapes."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    inner = "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode("utf-8", "replace"))
    return f'"{inner}"'


def literal(value: float) -> str:
    """A C literal of exactly this float32."""
    return f"{np.float32(value):.8e}f"


def listed(numbers: Iterable[str], indent: int = 4) -> str:
    """Numbers with commas, in lines."""
    text = textwrap.wrap(", ".join(numbers), 96, break_long_words=False, break_on_hyphens=False)
    return textwrap.indent("\n".join(text), " " * indent)


def _ports(program: Program) -> list[Port]:
    model = program.model
    sides = (("input", "Input", model.inputs), ("output", "Output", model.outputs))
    return [
        _port(model.tensors[number], side, title if len(numbers) == 1 else f"{title} {place + 1}",
              place)
        for side, title, numbers in sides
        for place, number in enumerate(numbers)
    ]  # fmt: skip


def _port(tensor: Tensor, side: str, title: str, place: int) -> Port:
    shape = "x".join(str(size) for size in tensor.shape[1:] or tensor.shape) or "1"
    scale, zero_point, low, high = None, 0, 0, 0
    note = f"{tensor.dtype.name} {shape}"
    quantization = tensor.quantization
    integers = tensor.dtype in (np.int8, np.int16)
    if integers:
        low, high = np.iinfo(tensor.dtype).min, np.iinfo(tensor.dtype).max
    if quantization is not None and integers and not quantization.per_channel:
        scale, zero_point = literal(quantization.scale[0]), int(quantization.zero_point[0])
        note += f", real = {quantization.scale[0]:.6g} * (stored - {zero_point})".replace(
            "- -", "+ "
        )
    return Port(
        parameter(side, place),
        title,
        note,
        TYPES[tensor.dtype.name],
        tensor.size,
        side == "input",
        scale,
        zero_point,
        low,
        high,
        8 * tensor.dtype.itemsize,
    )


def golden_fields(program: Program, golden: Golden) -> dict[str, Any]:
    """What the header of golden vectors is filled with, beside the name."""
    ports = _ports(program)
    inputs = [port for port in ports if port.is_input]
    outputs = [port for port in ports if not port.is_input]
    rows, vectors = [], []
    for position, vector in enumerate(golden.vectors):
        places = ["0"] * len(inputs)
        if vector.kind == "row":
            for place, (port, values) in enumerate(zip(inputs, vector.inputs, strict=True)):
                word = f"row_{position}_{place}"
                rows.append({"word": word, "ctype": port.ctype, "size": port.size,
                             "numbers": listed(map(number, values))})  # fmt: skip
                places[place] = f"@{word}"
        vectors.append(
            {
                "name": c_string(vector.name),
                "kind": vector.kind,
                "seeds": ", ".join(f"{seed % 2**32}u" for seed in vector.seeds),
                "rows": places,
            }
        )
    return {
        "inputs": len(inputs),
        "rows": rows,
        "vectors": vectors,
        "layers": [
            {
                "operator": re.sub(r"\W", "_", layer.operator),
                "tensor": layer.tensor,
                "bytes": layer.bytes,
                "note": comment(layer.name),
                "checks": f"      {{\n{listed((f'0x{c:08x}u' for c in layer.checks), 8)}\n      }}",
            }
            for layer in golden.layers
        ],
        "outputs": [
            {"ctype": port.ctype, "size": port.size,
             "rows": [listed(map(number, row), 8) for row in values]}
            for port, values in zip(outputs, golden.outputs, strict=True)
        ],
    }  # fmt: skip


def number(value: Any) -> str:
    """A number of an array in C."""
    return literal(float(value)) if isinstance(value, np.floating) else integer(int(value))


def _prepare(prepared: Mapping[str, Any], program: Program) -> dict[str, Any] | None:
    """Columns, means, scales and words, where the record is of that kind and fits the input."""
    columns, mean, scale = (prepared.get(key) for key in ("columns", "mean", "scale"))
    categories = prepared.get("categories") or {}
    if not (_texts(columns) and _numbers(mean) and _numbers(scale)):
        return None
    assert columns is not None and mean is not None and scale is not None
    if not isinstance(categories, Mapping) or not all(map(_texts, categories.values())):
        return None
    wanted = [program.model.tensors[place].size for place in program.model.inputs]
    have = len(columns) + sum(map(len, categories.values()))
    fits = len(columns) == len(mean) == len(scale) and wanted == [have]
    if not fits or not columns or 0 in scale:
        return None
    return {
        "columns": [c_string(column) for column in columns],
        "mean": [repr(float(value)) for value in mean],
        "scale": [repr(float(value)) for value in scale],
        "categories": [
            {
                "note": comment(column),
                "count": len(words),
                "words_note": comment(" ".join(words), 200),
            }
            for column, words in categories.items()
        ],
    }


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def _numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(item, int | float) and math.isfinite(item) for item in value
    )


def _plain(record: Mapping[str, Any]) -> str:
    """A record in words that are safe in a comment: `inputs: pixels divided by 255`."""
    parts = [
        f"{key} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for key, value in record.items()
    ]
    text = "; ".join(parts)
    return comment(text, 300) + (" ..." if len(text) > 300 else "")
