"""Where a generated model's flash and RAM go, from the program, the plan and the compiler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from fedsys.edge.code.arena import Arena, working_bytes
from fedsys.edge.integers.program import Program
from fedsys.edge.report.figures import Flash, Place, Ram
from fedsys.edge.verification.toolchain import Sizes

_LEARNED = {"kernel", "bias", "data"}
"""Fields of nodes (and of their parts) whose arrays hold what was learned; others are tables."""


def flash(program: Program, sizes: Sizes | None) -> Flash:
    """Flash of a program: measured where `sizes` are given, else counted from its constants.

    Code includes the compiler's own routines. What the compiler put among the constants beyond
    the weights is tables: multipliers, shifts, lookups.
    """
    arrays = list(_arrays(program))
    weights = sum(array.nbytes for name, array in arrays if name in _LEARNED)
    if sizes is None:
        tables = sum(array.nbytes for name, array in arrays if name not in _LEARNED)
        return Flash(weights, tables)
    constants = sizes.constants + sizes.data
    weights = min(weights, constants)
    return Flash(weights, constants - weights, sizes.code + sizes.library)


def ram(program: Program, arena: Arena, stack: int | None, sizes: Sizes | None) -> Ram:
    """RAM of a program: the arena (with all other variables, where they are known), the buffers
    of its caller and the deepest stack."""
    tensors = program.model.tensors
    ends = {*program.model.inputs, *program.model.outputs}
    fixed = arena.size if sizes is None else max(arena.size, sizes.zero + sizes.data)
    return Ram(fixed, sum(tensors[number].bytes for number in ends), stack)


def places(program: Program, arena: Arena) -> tuple[Place, ...]:
    """The map of the arena. Tensors that share their bytes one after the other are one place."""
    lives: dict[int, tuple[int, int]] = {}
    for step, node in enumerate(program.nodes):
        for number in (*node.inputs, node.output):
            if number in arena.offsets:
                lives[number] = (lives.get(number, (step, step))[0], step)
    found: list[Place] = []
    for number, (first, last) in sorted(lives.items(), key=lambda item: item[1]):
        tensor = program.model.tensors[number]
        place = Place(tensor.name, arena.offsets[number], tensor.bytes, first, last)
        before = next((each for each in found if _shares(each, place)), None)
        if before is None:
            found.append(place)
        else:
            found[found.index(before)] = Place(
                before.name, before.offset, max(before.size, place.size), before.first, last
            )
    for step, offset in arena.scratch.items():
        size = working_bytes(program, program.nodes[step])
        if size:
            found.append(Place("working room", offset, size, step, step))
    return tuple(found)


def _shares(before: Place, place: Place) -> bool:
    """Whether one tensor goes on in the bytes of another: a step that both touch, one start."""
    return before.offset == place.offset and before.last >= place.first


def _arrays(program: Program) -> Iterator[tuple[str, np.ndarray]]:
    """The constant arrays of all nodes with the names of their fields, each once."""
    seen: set[int] = set()
    for node in program.nodes:
        for name, array in _within(node):
            if id(array) not in seen:
                seen.add(id(array))
                yield name, array


def _within(value: Any) -> Iterator[tuple[str, np.ndarray]]:
    for field in fields(value):
        item = getattr(value, field.name)
        if isinstance(item, np.ndarray):
            yield field.name, item
        elif isinstance(item, tuple):
            for each in item:
                if hasattr(each, "__dataclass_fields__"):
                    yield from _within(each)
        elif hasattr(item, "__dataclass_fields__") and field.name != "operator":
            yield from _within(item)
