from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedsys.edge.code import generate
from fedsys.edge.code.scaling import small
from fedsys.edge.code.unit import Unit
from fedsys.edge.integers import executor
from fedsys.edge.integers.program import Copy, Node, Part, Program
from fedsys.edge.tflite.model import Model, Operator, Tensor
from fedsys.edge.verification import toolchain
from fedsys.errors import ExportError, UsageError
from tests.edge import c
from tests.edge.programs import Net, keyword_spotting

ROWS = 6


def convolutions(net: Net) -> None:
    draw = net.draw
    for _ in range(12):
        rows, columns = draw.integers(3, 9, 2)
        taps = tuple(int(n) for n in draw.integers(1, 4, 2))
        stride = tuple(int(n) for n in draw.integers(1, 3, 2))
        same = bool(draw.random() < 0.6)
        dilation = tuple(int(n) for n in draw.integers(1, 3, 2)) if same else (1, 1)
        groups = int(draw.choice([1, 1, 2, 3]))
        x = net.input(int(rows), int(columns), groups * int(draw.integers(1, 7)))
        net.conv(x, groups * int(draw.integers(1, 6)), taps, stride, dilation, same, groups)
    for channels, out in ((1, 1), (3, 5), (4, 4), (7, 6), (16, 9)):
        net.conv(net.input(3, channels, channels), out)
    net.conv(net.input(4, 4, 6), 4, groups=2)
    net.conv(net.input(1, 40, 2), 3, (1, 9), (1, 3), (1, 4))


def depthwise_convolutions(net: Net) -> None:
    draw = net.draw
    for channels in (1, 2, 4, 5, 8, 11):
        for depth in (1, 2 if channels < 5 else 1):
            rows, columns = (int(n) for n in draw.integers(3, 9, 2))
            taps = tuple(int(n) for n in draw.integers(1, 4, 2))
            stride = tuple(int(n) for n in draw.integers(1, 3, 2))
            same = bool(draw.random() < 0.7)
            dilation = tuple(int(n) for n in draw.integers(1, 3, 2)) if same else (1, 1)
            net.depthwise(net.input(rows, columns, channels), taps, stride, dilation, same, depth)
    net.depthwise(net.depthwise(net.input(5, 5, 8), (3, 3)), (5, 5), (2, 2))


def transposed_convolutions(net: Net) -> None:
    for taps in ((1, 1), (2, 3), (3, 3), (4, 2)):
        for stride in ((1, 1), (2, 2), (3, 2)):
            rows, columns, channels = (int(n) for n in net.draw.integers(1, [5, 5, 11]))
            x = net.input(rows, columns, channels)
            net.transposed(x, int(net.draw.integers(1, 4)), taps, stride, bool(sum(taps) % 2))


def dense_layers(net: Net) -> None:
    for size, out, rows in ((1, 1, 1), (3, 5, 1), (8, 4, 1), (13, 10, 1), (16, 7, 2), (6, 6, 5)):
        net.dense(net.input(rows, size), out, rows)
    net.dense(net.dense(net.dense(net.input(20), 33), 18), 3)


def pools(net: Net) -> None:
    for mean in (True, False):
        for window, stride in (((2, 2), (2, 2)), ((3, 3), (1, 2)), ((1, 4), (1, 1))):
            for same in (True, False):
                net.pool(net.input(6, 7, int(net.draw.integers(1, 6))), window, stride, same, mean)


def means(net: Net) -> None:
    net.mean(net.input(5, 4, 7), (False, True, True, False))
    net.mean(net.input(5, 4, 7), (False, True, False, False), keep=False)
    net.mean(net.input(5, 4, 7), (False, True, False, True))
    net.mean(net.input(9), (False, True))
    net.mean(net.input(1, 1, 3), (True, True, True, False))


def sums_and_products(net: Net) -> None:
    for kind in (net.add, lambda a, b: net.add(a, b, minus=True), net.multiply):
        x, y = net.input(3, 4, 5), net.input(3, 4, 5)
        net.lookup(kind(kind(x, y), x))
        kind(x, net.input(1, 1, 5))
        kind(net.input(3, 1, 5), net.input(1, 4, 1))
        kind(x, net.draw.integers(-128, 128, (1, 1, 1, 5)).astype(np.int8))
        kind(x, net.draw.integers(-128, 128, (1, 1, 1, 1)).astype(np.int8))
        kind(net.lookup(x), net.lookup(y))
        z = net.lookup(x)
        kind(z, z)


def prelus(net: Net) -> None:
    x = net.input(3, 4, 5)
    net.prelu(x, net.draw.integers(-128, 128, (1, 1, 1, 5)).astype(np.int8))
    net.prelu(net.lookup(x), net.draw.integers(-128, 128, (1, 3, 4, 5)).astype(np.int8))
    net.prelu(x, net.input(3, 4, 1))


def lookups(net: Net) -> None:
    table = net.draw.integers(-128, 128, 256).astype(np.int8)
    x = net.input(300)
    net.lookup(net.lookup(x, table), table)
    net.lookup(x)


def softmaxes(net: Net) -> None:
    for shape in ((2,), (10,), (3, 7), (1,), (300,), (40, 4)):
        net.softmax(net.input(*shape))


def floats(net: Net) -> None:
    x = net.input(50, dtype=np.float32)
    net.dequantize(net.lookup(net.quantize(x)))
    net.quantize(net.dequantize(net.input(4, 4)))
    net.pad(net.input(3, 3, 2, dtype=np.float32), 1, 1, 2, 0)


def movements(net: Net) -> None:
    x, y = net.input(3, 4, 5), net.input(3, 4, 2)
    values = net.draw.integers(-128, 128, (1, 3, 4, 2)).astype(np.int8)
    net.pad(net.concatenate(x, y), 1, 0, 2, 3)
    net.concatenate(y, values, x)
    net.transpose(x, 0, 3, 1, 2)
    net.lookup(net.transpose(net.reshape(x, 2, 3, 10), 0, 2, 1, 3))
    net.resize(x, 6, 7)
    net.interpolate(net.resize(y, 2, 2), 5, 3)
    net.reshape(net.lookup(x), 60)


def everything(net: Net) -> None:
    """A graph with branches, where places in the arena are used again and again."""
    x = net.conv(net.input(9, 8, 3), 8, (3, 3), (2, 2))
    for _ in range(2):
        branch = net.conv(net.depthwise(x, (3, 3)), 8)
        gate = net.dense(net.reshape(net.mean(x, (False, True, True, False)), 8), 8)
        x = net.add(x, net.multiply(branch, net.reshape(net.lookup(gate), 1, 1, 8)))
    left, right = net.pool(x, (2, 2), (1, 1), True, False), net.conv(x, 4, (1, 3))
    x = net.concatenate(left, right, net.prelu(x, np.full((1, 1, 1, 8), 60, np.int8)))
    net.softmax(net.dense(net.reshape(net.pad(x, 0, 1, 1, 0), 600), 6))
    net.reshape(x, 10, 40)


FAMILIES: list[Callable[[Net], None]] = [
    convolutions, depthwise_convolutions, transposed_convolutions, dense_layers, pools, means,
    sums_and_products, prelus, lookups, softmaxes, floats, movements, everything,
]  # fmt: skip


@c.needs_gcc
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_every_layer_is_that_of_the_executor_in_both_variants(
    family: Callable[[Net], None], tmp_path: Path
) -> None:
    # Factors above a half take the general scaling; those below the short one, which is shorter
    # still where nothing has closer limits than int8.
    weighted = family in FAMILIES[:4]
    kinds = [(False, False), (True, False), (False, True)]
    for wide, full in kinds if weighted else kinds[:1]:
        net = Net(np.random.default_rng(FAMILIES.index(family) + 100), wide, full)
        family(net)
        program, rows = net.program(), net.rows(ROWS)
        generated = generate(program, "net")
        expected = executor.trace(program, rows)
        # The fast kernels differ in few families; sanitizers cost more time than the code.
        for variant in ("-DNET_PLAIN", "-DNET_DSP"):
            driver = c.build(program, generated, tmp_path, ["-O1", variant, *c.SANITIZERS])
            traced, outputs = c.run(program, driver, rows)
            assert c.same(expected, traced) == []
            wanted = {i: expected[n] for i, n in enumerate(program.model.outputs)}
            assert c.same(wanted, dict(enumerate(outputs))) == []
            assert set(traced) == {node.output for node in program.nodes}


@pytest.fixture(scope="module")
def spotting() -> Program:
    return keyword_spotting(np.random.default_rng(3))


@pytest.fixture(scope="module")
def whole() -> Program:
    """Every kind of node in one program."""
    net = Net(np.random.default_rng(9))
    for family in FAMILIES:
        family(net)
    return net.program()


@c.needs_gcc
def test_keyword_spotting_is_that_of_the_executor_in_both_variants(
    spotting: Program, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).integers(-128, 128, (5, 49, 10, 1)).astype(np.int8)
    expected = executor.trace(spotting, [rows])
    for variant in ("-DKWS_PLAIN", "-DKWS_DSP"):
        driver = c.build(spotting, generate(spotting, "kws"), tmp_path, ["-O2", variant])
        assert c.same(expected, c.run(spotting, driver, [rows])[0]) == []


@c.needs_arm
def test_keyword_spotting_needs_at_most_1500_bytes_of_code_and_16_kb_of_arena(
    spotting: Program, tmp_path: Path
) -> None:
    generated = generate(spotting, "kws")
    target = c.cross(generated, tmp_path, "cortex-m4", "-Os")
    sizes = subprocess.run(
        ["arm-none-eabi-size", "-A", target], capture_output=True, text=True, check=True
    )
    sections = {line.split()[0]: line.split()[1] for line in sizes.stdout.splitlines() if line}
    assert int(sections[".text"]) <= 1500
    assert generated.arena.size == int(sections[".bss"]) <= 16_000


@c.needs_arm
@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4", "cortex-m55"])
def test_code_for_every_kind_of_node_compiles_without_a_warning_and_needs_memcpy_alone(
    whole: Program, tmp_path: Path, core: str
) -> None:
    generated = generate(whole)
    for options in (["-Os"], ["-O3", "-DMODEL_TRACE"]):
        target = c.cross(generated, tmp_path, core, *options)
        listed = subprocess.run(
            ["arm-none-eabi-nm", "-u", target], capture_output=True, text=True, check=True
        )
        # __aeabi_*: arithmetic that the core lacks, from the compiler's own library.
        needed = {name for name in listed.stdout.split() if not name.startswith("__aeabi_")}
        assert needed - {"U"} == {"memcpy"} | ({"model_trace"} if "TRACE" in options[-1] else set())


@c.needs_arm
def test_programs_of_one_node_compile_without_a_warning(tmp_path: Path) -> None:
    # GCC then knows every number, and warns of what it believes a loop might do.
    for family in FAMILIES[:-1]:
        net = Net(np.random.default_rng(2), full=True)
        family(net)
        for node in net.nodes[:3]:
            model = Model(tuple(net.tensors), (), tuple(sorted({*node.inputs})), (node.output,))
            c.cross(generate(Program(model, (node,))), tmp_path, "cortex-m4", "-O3")


@c.needs_gcc
def test_sources_are_sound_for_the_host_at_every_level(whole: Program, tmp_path: Path) -> None:
    generated = generate(whole)
    source = c.write(generated, tmp_path)
    for options in (["-O3", "-DMODEL_DSP"], ["-Os"]):
        command = ["gcc", *c.STRICT, "-Wshadow", "-Wundef", *options, "-c", source, "-o"]
        subprocess.run([*command, tmp_path / "model.o"], check=True)
        listed = subprocess.run(
            ["nm", "-u", tmp_path / "model.o"], capture_output=True, text=True, check=True
        )
        assert set(listed.stdout.split()) <= {"U", "_GLOBAL_OFFSET_TABLE_", "memcpy"}
    # The header is for C++ too.
    subprocess.run(
        ["gcc", "-x", "c++", "-Wall", "-Werror", "-fsyntax-only", tmp_path / "model.h"], check=True
    )


@c.needs_emulator
@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4", "cortex-m55"])
def test_every_layer_on_the_core_is_that_of_the_executor(core: str) -> None:
    for wide, full, optimise in ((False, False, "-Os"), (False, True, "-O3"), (True, True, "-O3")):
        net = Net(np.random.default_rng(17), wide, full)
        for family in FAMILIES:
            family(net)
        program, rows = net.program(), [array[3:4] for array in net.rows(4)]
        sources = {**generate(program).sources, "main.c": c.checksums(program, "model", rows)}
        expected = c.expected_checksums(program, executor.trace(program, rows))
        firmware = toolchain.build(sources, toolchain.target(core), optimise, ["MODEL_TRACE"])
        found = toolchain.emulate(firmware)
        assert found.code == 0
        assert found.output.split() == expected


def test_no_heap_and_no_recursion_appear(whole: Program) -> None:
    text = generate(whole).sources["model.c"]
    assert not re.search(r"\b(malloc|calloc|realloc|free|alloca|printf|memset)\b", text)
    assert set(re.findall(r"#include (.*)", text)) == {'"model.h"', "<string.h>"}


def test_only_what_is_used_has_code() -> None:
    net = Net(np.random.default_rng(0))
    net.dense(net.dense(net.input(8), 4), 3)
    text = generate(net.program()).sources["model.c"]
    functions = set(re.findall(r"^(?:static )?(?:SHARED |INLINE )?\w+ \**(\w+)\(", text, re.M))
    assert {"dense", "finished", "model_run"} <= functions
    assert not functions & {"slide", "gather", "fill", "softmax", "lookup", "copy", "scaled"}


def test_equal_tables_are_kept_once() -> None:
    net = Net(np.random.default_rng(0))
    table = np.arange(-128, 128).astype(np.int8)
    net.lookup(net.lookup(net.input(4), table), table.copy())
    text = generate(net.program()).sources["model.c"]
    assert len(re.findall(r"static const int8_t \w+\[256\]", text)) == 1


def test_the_same_program_gives_the_same_text() -> None:
    draws = [np.random.default_rng(5) for _ in range(2)]
    first, second = (generate(keyword_spotting(draw)) for draw in draws)
    assert dict(first.sources) == dict(second.sources)


def test_names_of_tensors_cannot_leave_their_comment(whole: Program) -> None:
    # Every tensor of these programs is named `layer N */ \ % ??/`.
    text = generate(whole).sources["model.c"]
    assert "layer 3" in text
    for line in text.splitlines():
        if line.strip().startswith("/*") and "layer" in line:
            assert line.index("*/") == len(line) - 2
            assert "\\" not in line and "??" not in line


@pytest.mark.parametrize("name", ["", "1st", "a-b", "a b", "_x", "é", "string", "Stdint", "x" * 60])
def test_a_name_that_c_cannot_have_is_refused(name: str, spotting: Program) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(name))):
        generate(spotting, name)


@c.needs_gcc
def test_a_c_keyword_and_a_capital_will_do_as_names(tmp_path: Path) -> None:
    net = Net(np.random.default_rng(0))
    net.lookup(net.input(3))
    for name in ("int", "Arena", "fast", "copy", "dense"):
        c.build(net.program(), generate(net.program(), name), tmp_path, [])


def test_a_node_without_code_is_refused_by_name() -> None:
    class Strange(Node):
        pass

    net = Net(np.random.default_rng(0))
    x = net.input(3)
    net._add(Strange, "STRANGE", (x,), (3,))
    with pytest.raises(ExportError, match="Strange of 'layer 1"):
        generate(net.program())


@c.needs_gcc
def test_outputs_that_are_inputs_constants_or_asked_for_twice_are_handed_over(
    tmp_path: Path,
) -> None:
    net = Net(np.random.default_rng(2))
    x, y = net.input(2, 3), net.input(6)
    table = net.lookup(x)
    flat = net.reshape(y, 3, 2)
    values = np.arange(4, dtype=np.int8).reshape(1, 4)
    fixed = net.tensor((1, 4), data=values)
    moved = net.reshape(table, 6)
    program = net.program([flat, table, moved, y, fixed, table])
    rows = net.rows(3)
    expected = executor.trace(program, rows)
    for options in ([], ["-DNET_TRACE"]):
        driver = c.build(program, generate(program, "net"), tmp_path, [*options, *c.SANITIZERS])
        _, outputs = c.run(program, driver, rows)
        wanted = {i: expected[n] for i, n in enumerate(program.model.outputs) if n != fixed}
        wanted[4] = np.broadcast_to(values, (3, 1, 4))
        assert c.same(wanted, dict(enumerate(outputs))) == []


def test_the_header_names_sizes_and_parameters_in_order() -> None:
    net = Net(np.random.default_rng(2))
    x = net.quantize(net.input(2, 3, dtype=np.float32))
    y = net.lookup(net.input(5))
    text = generate(net.program([y, net.dequantize(x)]), "two").sources["two.h"]
    assert (
        "void two_run(const float *input, const int8_t *input_1, int8_t *output, float *output_1);"
        in " ".join(text.split())
    )
    assert "#define TWO_INPUT_SIZE 6\n#define TWO_INPUT_1_SIZE 5\n" in text
    assert "#define TWO_OUTPUT_SIZE 5\n#define TWO_OUTPUT_1_SIZE 6\n" in text


def test_a_type_without_a_c_type_is_refused() -> None:
    tensors = tuple(Tensor(i, f"t{i}", (1, 2), np.dtype(np.complex64)) for i in range(2))
    part = Part(0, (2,), 0, (1,), 0, (1,))
    node = Copy(Operator(0, "RESHAPE", (0,), (1,)), (0,), 1, (part,), alias=True)
    with pytest.raises(ExportError, match=r"t0.*complex64"):
        generate(Program(Model(tensors, (), (0,), (1,)), (node,)))


def test_short_scaling_is_chosen_only_where_it_is_right() -> None:
    chosen = set()
    for seed in range(40):
        net = Net(np.random.default_rng(seed), wide=bool(seed % 2))
        net.dense(net.input(4), 3)
        program = net.program()
        unit = Unit(program, "net", generate(program).arena)
        (node,) = program.nodes
        right = (np.where(node.multiplier, node.shift, -1) < 0).all()
        chosen.add(small(unit))
        assert small(unit) == right
    assert chosen == {True, False}
