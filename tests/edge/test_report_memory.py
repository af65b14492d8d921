"""Where flash and RAM of a generated model go."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from fedsys.edge.code.arena import plan
from fedsys.edge.integers.program import Program
from fedsys.edge.report.arena_figure import arena_picture
from fedsys.edge.report.memory import flash, places, ram
from fedsys.edge.verification.toolchain import Sizes
from fedsys.report.svg import figure_svg

from .programs import keyword_spotting

SIZES = Sizes(code=1400, constants=30_000, data=0, zero=16_200, library=100, stack=300)


@pytest.fixture(scope="module")
def program() -> Program:
    return keyword_spotting(np.random.default_rng(0))


def test_places_are_apart_while_both_are_alive(program: Program) -> None:
    found = places(program, plan(program))
    assert len(found) >= 8
    for one, other in combinations(found, 2):
        together = one.first <= other.last and other.first <= one.last
        apart = one.offset + one.size <= other.offset or other.offset + other.size <= one.offset
        assert apart or not together, (one, other)


def test_places_fill_the_arena_and_no_more(program: Program) -> None:
    arena = plan(program)
    top = max(place.offset + place.size for place in places(program, arena))
    assert arena.size - 16 < top <= arena.size


def test_flash_is_split_into_weights_tables_and_code(program: Program) -> None:
    counted, measured = flash(program, None), flash(program, SIZES)
    learned = sum(
        getattr(node, name).nbytes
        for node in program.nodes
        for name in ("kernel", "bias")
        if hasattr(node, name)
    )
    assert counted.weights == measured.weights == learned
    assert (counted.code, measured.code) == (None, 1500)
    assert measured.total == 31_500
    assert 0 < counted.tables < learned


def test_ram_counts_all_variables_and_the_callers_buffers(program: Program) -> None:
    arena, tensors = plan(program), program.model.tensors
    ends = sum(tensors[n].bytes for n in (*program.model.inputs, *program.model.outputs))
    found = ram(program, arena, 300, SIZES)
    assert (found.arena, found.io, found.stack) == (16_200, ends, 300)
    assert ram(program, arena, None, None).total == arena.size + ends


def test_the_map_of_the_arena_names_its_tensors(program: Program) -> None:
    arena = plan(program)
    found = places(program, arena)
    drawn = figure_svg(arena_picture(found, arena.size))
    largest = max(found, key=lambda place: place.size)
    assert largest.name[:4] in drawn
    assert drawn == figure_svg(arena_picture(found, arena.size))
