from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.edge.code.arena import ALIGNMENT, Arena, _aligned, _Block, _packed, plan, working_bytes
from fedsys.edge.integers.program import Add, Copy, Lookup, Multiply, Prelu, Program
from tests.edge.programs import Net, keyword_spotting


def chain(*sizes: int) -> Program:
    net = Net(np.random.default_rng(0))
    x = net.input(sizes[0])
    for size in sizes[1:]:
        x = net.dense(x, size)
    return net.program()


def random_program(seed: int) -> Program:
    """Branches, copies, sums and outputs at random."""
    draw = np.random.default_rng(seed)
    net = Net(draw)
    known = [net.input(4, 6) for _ in range(draw.integers(1, 3))]
    for _ in range(int(draw.integers(1, 25))):
        x = int(draw.choice(known))
        kind = draw.integers(7)
        if kind == 0:
            known.append(net.lookup(x))
        elif kind == 1:
            alike = [n for n in known if net.shape(n) == net.shape(x)]
            known.append(net.add(x, int(draw.choice(alike))))
        elif kind == 2:
            known.append(net.reshape(x, net.tensors[x].size))
        elif kind == 3:
            known.append(net.dense(x, int(draw.integers(1, 70))))
        elif kind == 4:
            known.append(net.multiply(x, np.ones((1,) * len(net.shape(x)), np.int8)))
        elif kind == 5:
            flat = net.reshape(x, net.tensors[x].size)
            known.append(net.concatenate(flat, flat))
        else:
            known.append(net.prelu(x, np.ones((1,) * len(net.shape(x)), np.int8)))
    outputs = {int(n) for n in draw.choice(known, int(draw.integers(1, 4)))}
    return net.program(sorted(outputs | {net.nodes[-1].output}))


def contents(program: Program, arena: Arena) -> None:
    """Walk through the nodes and remember whose bytes lie where: nobody reads another's.

    An independent check of the plan: each byte of the arena holds the name of a value, and values
    of alias copies are one value.
    """
    tensors = program.model.tensors
    value = {number: number for number in range(len(tensors))}
    for node in program.nodes:
        if isinstance(node, Copy) and node.alias:
            value[node.output] = value[node.inputs[0]]
    memory = np.full(arena.size, -1)
    for position, node in enumerate(program.nodes):
        for number in node.inputs:
            if number in arena.offsets:
                start = arena.offsets[number]
                held = memory[start : start + tensors[number].bytes]
                assert (held == value[number]).all(), (position, number)
        room = working_bytes(program, node)
        if room:
            start = arena.scratch[position]
            assert start + room <= arena.size
            memory[start : start + room] = -2
            for number in node.inputs:
                if number in arena.offsets:
                    begin = arena.offsets[number]
                    assert (memory[begin : begin + tensors[number].bytes] >= 0).all()
        if node.output in arena.offsets:
            start = arena.offsets[node.output]
            end = start + tensors[node.output].bytes
            assert end <= arena.size
            assert not (memory[start:end] == -2).any() or not room
            memory[start:end] = value[node.output]
            # Only what works element by element may write over what it reads.
            alias = isinstance(node, Copy) and node.alias
            if not alias and not isinstance(node, Add | Lookup | Multiply | Prelu):
                for number in node.inputs:
                    begin = arena.offsets.get(number, arena.size)
                    assert end <= begin or begin + tensors[number].bytes <= start


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_value_is_overwritten_before_its_last_reader(seed: int) -> None:
    program = random_program(seed)
    arena = plan(program)
    contents(program, arena)
    assert arena.size >= arena.lower_bound
    assert all(offset % ALIGNMENT == 0 for offset in arena.offsets.values())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 12), st.integers(0, 6)), max_size=14))
def test_blocks_alive_together_lie_apart(items: list[tuple[int, int, int]]) -> None:
    blocks = [_Block(_aligned(size), first, first + length) for size, first, length in items]
    bound = max(
        (sum(b.size for b in blocks if b.first <= t <= b.last) for t in range(20)), default=0
    )
    offsets = _packed(blocks, bound)
    for i, (a, x) in enumerate(zip(offsets, blocks, strict=True)):
        for b, y in list(zip(offsets, blocks, strict=True))[:i]:
            assert not x.meets(y) or a + x.size <= b or b + y.size <= a
    top = max((o + b.size for o, b in zip(offsets, blocks, strict=True)), default=0)
    assert bound <= top <= sum(b.size for b in blocks)


def test_a_chain_needs_its_two_largest_neighbours() -> None:
    # The first input and the last output lie with the caller.
    assert plan(chain(500, 64, 320, 32, 500)).size == 64 + 320
    assert plan(chain(500, 64, 500)).size == 64
    assert plan(chain(500, 500)).size == 0


def test_keyword_spotting_reaches_the_lower_bound() -> None:
    arena = plan(keyword_spotting(np.random.default_rng(0)))
    assert arena.size == arena.lower_bound == 2 * 25 * 5 * 64


def test_aliases_share_their_place() -> None:
    net = Net(np.random.default_rng(0))
    x = net.dense(net.input(10), 32)
    y = net.reshape(net.reshape(x, 4, 8), 2, 16)
    net.dense(y, 3)
    arena = plan(net.program())
    assert arena.size == 32
    assert len({arena.offsets[n] for n in (x, y)}) == 1


def test_an_elementwise_node_writes_over_an_operand_that_nobody_reads_again() -> None:
    net = Net(np.random.default_rng(0))
    x = net.dense(net.input(10), 32)
    y = net.dense(x, 32)
    net.dense(net.add(x, net.lookup(y)), 3)
    assert plan(net.program()).size == 64


def test_an_operand_that_is_read_again_or_broadcast_is_not_written_over() -> None:
    net = Net(np.random.default_rng(0))
    x = net.dense(net.input(10), 32)
    y = net.lookup(x)
    net.dense(net.add(x, y), 3)
    arena = plan(net.program())
    assert arena.offsets[x] != arena.offsets[y]
    net = Net(np.random.default_rng(0))
    x = net.dense(net.input(10), 8)
    wide = net.add(net.reshape(x, 1, 8), net.reshape(net.dense(net.input(10), 64), 8, 8))
    net.dense(wide, 3)
    arena = plan(net.program())
    assert arena.offsets[x] != arena.offsets[wide]
    contents(net.program(), arena)


def test_what_no_node_reads_has_a_place_while_it_is_written() -> None:
    net = Net(np.random.default_rng(0))
    x = net.dense(net.input(10), 32)
    unread = net.dense(x, 16)
    last = net.dense(x, 3)
    arena = plan(net.program([last]))
    assert arena.offsets[unread] != arena.offsets[x]
    assert arena.size == 48


def test_a_plan_is_the_same_each_time() -> None:
    program = random_program(11)
    assert plan(program) == plan(program)
    assert dataclasses.replace(plan(program)) == plan(program)


@pytest.mark.parametrize("seed", range(6))
def test_convolutions_have_room_for_their_patches(seed: int) -> None:
    net = Net(np.random.default_rng(seed))
    x = net.input(6, 6, 3)
    for _ in range(3):
        x = net.depthwise(net.conv(x, 5, (3, 3)), (3, 3))
    x = net.depthwise(net.conv(x, 1), (3, 3))
    program = net.program([net.lookup(x)])
    arena = plan(program)
    contents(program, arena)
    assert len(arena.scratch) == 4  # three convolutions, and the depthwise one of one channel
