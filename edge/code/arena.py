"""Where each tensor of a program lies while it is alive: one static block, planned ahead.

Tensors that hold the same bytes (alias copies) share a place, and an element-wise node writes over
an operand that nobody reads again. What the caller hands in and takes out lies with the caller.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fedsys.edge.integers.program import (
    Add,
    Convolution,
    Copy,
    DepthwiseConvolution,
    Lookup,
    Multiply,
    Node,
    Operand,
    Prelu,
    Program,
)

ALIGNMENT = 16  # bytes; what vector instructions and caches like
TRIALS = 200  # random exchanges tried where the greedy orders leave a gap


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes are: an input or output of the caller by position, the arena by
    offset in bytes, or the constants by the number of the tensor."""

    room: Literal["input", "output", "arena", "constant"]
    number: int


@dataclass(frozen=True)
class Arena:
    """A plan. size: bytes. offsets: tensor number -> byte where it starts, for what lies inside.

    places: the place of every tensor that is read or written. scratch: node position -> byte where
    its working room starts. lower_bound: bytes alive at once at the worst node, which no plan of
    these tensors can undercut.
    """

    size: int
    offsets: Mapping[int, int]
    places: Mapping[int, Place]
    scratch: Mapping[int, int]
    lower_bound: int


@dataclass(frozen=True)
class _Block:
    """Bytes that must stay put from one node's position to another's, both included."""

    size: int
    first: int
    last: int

    def meets(self, other: _Block) -> bool:
        return self.first <= other.last and other.first <= self.last


def plan(program: Program) -> Arena:
    """The plan of a program: the smallest that several greedy orders and exchanges find."""
    tensors = program.model.tensors
    groups = _grouped(program)
    home = {number: _home(program, members) for members in groups for number in members}
    owner = {number: members[0] for members in groups for number in members}
    lives = _lives(program, owner)
    _overwrite(program, owner, lives, home)

    keys = sorted({owner[number] for number, place in home.items() if place.room == "arena"})
    blocks = {
        key: _Block(
            _aligned(max(tensors[n].bytes for n, k in owner.items() if k == key)), *lives[key]
        )
        for key in keys
    }
    rooms = {i: _aligned(working_bytes(program, node)) for i, node in enumerate(program.nodes)}
    scratch = {i: _Block(size, i, i) for i, size in rooms.items() if size}
    every = [*blocks.values(), *scratch.values()]
    bound = max(
        (sum(b.size for b in every if b.first <= i <= b.last) for i in range(len(program.nodes))),
        default=0,
    )
    offsets = _packed(every, bound)
    starts = dict(zip(keys, offsets, strict=False))
    places = {
        number: replace(place, number=starts[owner[number]]) if place.room == "arena" else place
        for number, place in home.items()
    }
    return Arena(
        size=max((o + b.size for o, b in zip(offsets, every, strict=True)), default=0),
        offsets={n: place.number for n, place in places.items() if place.room == "arena"},
        places=places,
        scratch=dict(zip(scratch, offsets[len(keys) :], strict=True)),
        lower_bound=bound,
    )


def working_bytes(program: Program, node: Node) -> int:
    """Room that a node's code needs besides its tensors: a convolution's patches of two pixels."""
    if isinstance(node, Convolution) and not pointwise(program, node):
        return 2 * int(np.prod(node.kernel.shape[1:]))
    if isinstance(node, DepthwiseConvolution) and single_channel(program, node):
        return 0 if _in_place(node.kernel.shape[:2], node) else 2 * node.kernel[..., 0].size
    return 0


def pointwise(program: Program, node: Convolution) -> bool:
    """Whether each output pixel is a product of one input pixel: a matrix product, no patches."""
    whole = node.kernel.shape[3] == program.model.tensors[node.inputs[0]].shape[-1]
    return whole and _in_place(node.kernel.shape[1:3], node)


def _in_place(taps: tuple[int, ...], node: Convolution | DepthwiseConvolution) -> bool:
    """Whether the kernel sees one pixel, and every pixel once."""
    return (*taps, *node.stride, *node.pad) == (1, 1, 1, 1, 0, 0)


def single_channel(program: Program, node: DepthwiseConvolution) -> bool:
    """Whether it sees one channel, which makes it an ordinary convolution."""
    return program.model.tensors[node.inputs[0]].shape[-1] == 1


def _grouped(program: Program) -> list[list[int]]:
    """Tensors that are read or written, together where alias copies make them the same bytes."""
    groups: dict[int, list[int]] = {}
    used = [*program.model.inputs, *program.model.outputs]
    used += [number for node in program.nodes for number in (*node.inputs, node.output)]
    for number in used:
        groups.setdefault(number, [number])
    for node in program.nodes:
        if isinstance(node, Copy) and node.alias:
            source, target = groups[node.inputs[0]], groups[node.output]
            if source is not target:
                source.extend(target)
                groups.update(dict.fromkeys(target, source))
    return list({id(group): group for group in groups.values()}.values())


def _home(program: Program, members: Iterable[int]) -> Place:
    """Whose room a group lies in; the arena's offset is found later."""
    model = program.model
    for number in members:
        if model.tensors[number].constant:
            return Place("constant", number)
    for number in members:
        if number in model.inputs:
            return Place("input", model.inputs.index(number))
    for number in members:
        if number in model.outputs:
            return Place("output", model.outputs.index(number))
    return Place("arena", 0)


def _lives(program: Program, owner: Mapping[int, int]) -> dict[int, tuple[int, int]]:
    """Group -> positions of the first and the last node that touch it."""
    lives: dict[int, tuple[int, int]] = {}
    for position, node in enumerate(program.nodes):
        for number in (*node.inputs, node.output):
            first, _ = lives.get(owner[number], (position, position))
            lives[owner[number]] = (first, position)
    return lives


def _overwrite(
    program: Program,
    owner: dict[int, int],
    lives: dict[int, tuple[int, int]],
    home: Mapping[int, Place],
) -> None:
    """Let element-wise nodes write over an operand that they are the last to read.

    Changes owner and lives. Sound because element i of the output is written after element i of
    every operand was read, and no other element is read from the operand's place.
    """
    for position, node in enumerate(program.nodes):
        for number in _replaceable(program, node):
            key, target = owner[number], owner[node.output]
            apart = key != target and {home[number].room, home[node.output].room} == {"arena"}
            if apart and lives[key][1] == position and lives[target][0] == position:
                lives[key] = (lives[key][0], lives.pop(target)[1])
                owner.update({n: key for n, k in owner.items() if k == target})
                break


def _replaceable(program: Program, node: Node) -> list[int]:
    """Operands that an element-wise node reads in the order in which it writes."""
    operands: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
    if isinstance(node, Lookup):
        operands = [(node.inputs[0], (), ())]
    elif isinstance(node, Add | Multiply):
        operands = [_strides(side, node.shape) for side in (node.first, node.second)]
    elif isinstance(node, Prelu):
        operands = [(node.inputs[0], (), ()), _strides(node.slope, node.shape)]
    tensors = program.model.tensors
    room = tensors[node.output].bytes
    moving = {n for n, shape, strides in operands if not _straight(shape, strides)}
    return [n for n, *_ in operands if n >= 0 and n not in moving and tensors[n].bytes == room]


def _strides(side: Operand, shape: tuple[int, ...]) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return (-1 if side.tensor is None else side.tensor, shape, side.strides)


def _straight(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether these strides read the elements one after the other."""
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True


def _packed(blocks: Sequence[_Block], bound: int) -> list[int]:
    """An offset for each block, such that blocks alive together do not overlap."""
    count = range(len(blocks))
    keys: list[Callable[[int], tuple[int, ...]]] = [
        lambda i: (-blocks[i].size, blocks[i].first),
        lambda i: (blocks[i].first, -blocks[i].size),
        lambda i: (-blocks[i].last, -blocks[i].size),
        lambda i: (-blocks[i].size * (blocks[i].last - blocks[i].first + 1), blocks[i].first),
        lambda i: (blocks[i].first - blocks[i].last, -blocks[i].size),
    ]
    meets = [[j for j in count if j != i and blocks[i].meets(blocks[j])] for i in count]

    def placed(order: Sequence[int]) -> tuple[int, list[int]]:
        offsets = [-1] * len(blocks)
        for i in order:
            offsets[i] = _lowest(blocks, offsets, meets[i], blocks[i].size)
        top = max((o + b.size for o, b in zip(offsets, blocks, strict=True)), default=0)
        return top, offsets

    orders = [sorted(count, key=key) for key in keys]
    size, order = min((placed(order)[0], order) for order in orders)
    # Exchanges of a fixed seed: the same program always gets the same plan.
    draw = random.Random(0)
    for _ in range(TRIALS if len(blocks) <= 300 else 0):
        if size <= bound:
            break
        trial = list(order)
        a, b = draw.randrange(len(trial)), draw.randrange(len(trial))
        trial[a], trial[b] = trial[b], trial[a]
        reached = placed(trial)[0]
        if reached <= size:
            size, order = reached, trial
    return placed(order)[1]


def _lowest(
    blocks: Sequence[_Block], offsets: Sequence[int], neighbours: Sequence[int], size: int
) -> int:
    """The lowest offset where `size` bytes fit between neighbours that already have a place."""
    taken = sorted((offsets[j], offsets[j] + blocks[j].size) for j in neighbours if offsets[j] >= 0)
    start = 0
    for low, high in taken:
        if low - start >= size:
            break
        start = max(start, high)
    return start


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
