"""A C file in the making: constants, functions and calls, each written once."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from fedsys.edge.code.arena import Arena
from fedsys.edge.integers.program import Node, Program
from fedsys.edge.tflite.model import Tensor

TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "uint16": "uint16_t"}
TYPES |= {"int32": "int32_t", "int64": "int64_t", "float32": "float", "bool": "uint8_t"}

Value = int | str | Iterable[int] | Mapping[str, "Value"]
Kind = TypeVar("Kind", bound=Node)


@dataclass
class Unit:
    """What the nodes have asked for so far.

    functions: name -> text, in an order in which each is defined before it is used.
    constants: name -> text of an array or a struct; equal ones are kept once.
    visitors: functions that windows call.
    """

    program: Program
    name: str
    arena: Arena
    functions: dict[str, str] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)
    visitors: list[str] = field(default_factory=list)
    _known: dict[tuple[str, bytes], str] = field(default_factory=dict)

    @property
    def macro(self) -> str:
        """The name as macros begin with it."""
        return self.name.upper()

    def nodes(self, kind: type[Kind]) -> list[Kind]:
        """The program's nodes of a kind."""
        return [node for node in self.program.nodes if isinstance(node, kind)]

    def tensor(self, number: int) -> Tensor:
        """A tensor by its number."""
        return self.program.model.tensors[number]

    def function(self, name: str, text: str) -> None:
        """Define a function, struct or macro unless it is there."""
        self.functions.setdefault(name, text.strip())

    def array(self, values: np.ndarray, prefix: str) -> str:
        """The name of a constant array with these values; equal ones share it."""
        values = np.ascontiguousarray(values)
        ctype = TYPES[values.dtype.name]
        key = (ctype, values.tobytes())
        if key not in self._known:
            name = f"{prefix}_{len(self.constants)}"
            # Words are read from kernels at once, hence four bytes for small types too.
            self.constants[name] = (
                f"static const {ctype} {name}[{values.size}] ALIGNED(4) = {_listed(values)};"
            )
            self._known[key] = name
        return self._known[key]

    def struct(self, kind: str, values: Mapping[str, Value]) -> str:
        """The address of a constant struct with these fields; equal ones share it."""
        text = initializer(values)
        key = (kind, text.encode())
        if key not in self._known:
            name = f"{kind}_{len(self.constants)}"
            self.constants[name] = f"static const struct {kind} {name} = {text};"
            self._known[key] = name
        return f"&{self._known[key]}"

    def bytes(self, number: int) -> str:
        """Where a tensor is, as a pointer to const int8_t."""
        place = self.arena.places[number]
        if place.room == "arena":
            return f"arena + {place.number}"
        if place.room == "constant":
            data = self.tensor(place.number).data
            assert data is not None
            name = self.array(np.asarray(data).reshape(-1).view(np.int8), "values")
            return name
        pointer = parameter(place.room, place.number)
        many = self.program.model.inputs if place.room == "input" else self.program.model.outputs
        if self.tensor(many[place.number]).dtype == np.int8:
            return pointer
        return f"({'const ' if place.room == 'input' else ''}int8_t *){pointer}"

    def scratch(self, node: Node) -> str:
        """Where a node's working room is."""
        position = next(i for i, other in enumerate(self.program.nodes) if other is node)
        return f"arena + {self.arena.scratch[position]}"


def parameter(room: str, position: int) -> str:
    """The name of an input or output of the generated function."""
    return room if position == 0 else f"{room}_{position}"


def initializer(values: Mapping[str, Value]) -> str:
    """A C99 initializer of a struct."""
    return "{" + ", ".join(f".{name} = {_value(value)}" for name, value in values.items()) + "}"


def _value(value: Value) -> str:
    if isinstance(value, int | np.integer):
        return integer(int(value))
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return initializer(value)
    return "{" + ", ".join(integer(int(item)) for item in value) + "}"


def integer(value: int) -> str:
    """An integer of 32 bits as a C expression; the smallest has no literal of its own."""
    return "(-2147483647 - 1)" if value == -(2**31) else str(value)


def _listed(values: np.ndarray) -> str:
    if values.dtype == np.float32:
        raise TypeError("constants of float are kept as bytes")
    text = ", ".join(integer(int(value)) for value in values.reshape(-1))
    lines = textwrap.wrap(text, 96, break_long_words=False, break_on_hyphens=False)
    return "{\n" + textwrap.indent("\n".join(lines), "    ") + "\n}"


def comment(text: str, limit: int = 80) -> str:
    """Text of a file made harmless for a comment: plain letters, no `*`, no trigraph, cut."""
    return re.sub(r"/(?=/)", "_", re.sub(r"[^A-Za-z0-9_.:;,'()=/ +-]", "_", text)[:limit])


def loops(sizes: str, rank: int, body: str, letter: str = "i") -> str:
    """Nested loops `for (i0 = 0; i0 < sizes[0]; i0++) ...` around a body, not indented."""
    text = textwrap.dedent(body).strip("\n")
    for level in reversed(range(rank)):
        i = f"{letter}{level}"
        head = f"for (int32_t {i} = 0; {i} < {sizes}[{level}]; {i}++) {{"
        text = f"{head}\n{textwrap.indent(text, '    ')}\n}}"
    return text


def place(steps: str, rank: int, letter: str = "i") -> str:
    """The place of the loops' indices under steps: `i0 * steps[0] + i1 * steps[1] ...`."""
    return " + ".join(f"{letter}{level} * {steps}[{level}]" for level in range(rank))


def padded(values: Iterable[int], rank: int, filler: int) -> list[int]:
    """Values with fillers in front, up to a rank."""
    listed = [int(value) for value in values]
    return [filler] * (rank - len(listed)) + listed
