"""The cross-compiler and the emulator, on C whose cost is known by counting its instructions."""

import pytest

from fedsys.edge.verification import toolchain
from fedsys.edge.verification.toolchain import (
    TARGETS,
    build,
    deepest,
    emulate,
    run_on_host,
    sizes,
    target,
)
from fedsys.errors import ExportError, UsageError

needs_compiler = pytest.mark.skipif(
    bool(toolchain.missing("arm-none-eabi-gcc")), reason="arm-none-eabi-gcc is not installed"
)
needs_emulator = pytest.mark.skipif(
    bool(toolchain.missing("arm-none-eabi-gcc", "qemu-system-arm")),
    reason="arm-none-eabi-gcc or qemu-system-arm is not installed",
)
needs_host = pytest.mark.skipif(bool(toolchain.missing("cc")), reason="cc is not installed")

COUNTED = r"""
#include "firmware.h"
#include <string.h>
static int given = 7;
static int8_t zeroed[100];
static volatile float half = 0.5f;
__attribute__((noinline)) static void rounds(uint32_t count) {
  __asm volatile(".syntax unified\n 1: subs %0, #1\n bne 1b" : "+l"(count) : : "cc");
}
static volatile uint32_t asked = ROUNDS;
static void work(void) { rounds(asked); }
int main(void) {
  half = half * 2.0f;
  const int fine = given == 7 && !memcmp(zeroed, zeroed + 50, 50) && half == 1.0f;
  firmware_write(fine ? "fine\n" : "no\n");
  firmware_measure(work);
  return 42;
}
"""

STACKED = r"""
#include "firmware.h"
static void work(void) {
  __asm volatile("sub sp, #" BYTES "\n movs r3, #1\n str r3, [sp]\n add sp, #" BYTES
                 : : : "r3", "memory");
}
int main(void) {
  firmware_measure(work);
  return 0;
}
"""

MODEL = r"""
#include <stdint.h>
#include <string.h>
void model_run(const int8_t *input, int8_t *output);
static const int8_t weights[300] = {1, 2, 3};
static int8_t arena[1000];
int model_count = 5;
void model_run(const int8_t *input, int8_t *output) {
  memcpy(arena, input, 300);
  for (int i = 0; i < 300; i++) output[i] = (int8_t)(arena[i] + weights[i]);
  model_count++;
}
"""


@needs_emulator
@pytest.mark.parametrize("name", TARGETS)
def test_a_program_starts_with_its_variables_and_ends_with_its_code(name):
    for optimise in ("-Os", "-O3"):
        firmware = build({"main.c": COUNTED}, target(name), optimise, ("ROUNDS=1000",))
        done = emulate(firmware)
        assert (done.output, done.code) == ("fine\n", 42)


@needs_emulator
@pytest.mark.parametrize("name", TARGETS)
def test_instructions_are_counted_one_by_one(name):
    counts = [
        emulate(build({"main.c": COUNTED}, target(name), defines=(f"ROUNDS={rounds}u",)))
        for rounds in (1000, 1001, 1100)
    ]
    first, second, third = (done.instructions for done in counts)
    assert (second - first, third - first) == (2, 200)
    assert 2000 < first < 2020


@needs_emulator
@pytest.mark.parametrize("name", ["cortex-m0", "cortex-m4", "cortex-m55"])
def test_the_count_goes_on_where_the_timer_wraps(name):
    # 40 million instructions are several times the timer's 24 bits.
    firmware = build({"main.c": COUNTED}, target(name), defines=("ROUNDS=20000000u",))
    assert emulate(firmware).instructions == pytest.approx(40_000_000, rel=1e-5)
    assert emulate(firmware) == emulate(firmware)


@needs_emulator
@pytest.mark.parametrize("name", TARGETS)
def test_stack_is_what_the_call_wrote_below(name):
    for optimise in ("-Os", "-O3"):
        small, large = (
            emulate(build({"main.c": STACKED}, target(name), optimise, (f'BYTES="{size}"',))).stack
            for size in (256, 400)
        )
        assert large - small == 144
        assert 256 <= small <= 280


@needs_emulator
def test_a_fault_is_told_and_does_not_hang():
    source = "int main(void) { *(volatile int *)0xF0000001u = 1; return 0; }"
    done = emulate(build({"main.c": source}, target("cortex-m4")))
    assert done.code != 0
    assert "fault" in done.output


@needs_emulator
def test_a_program_without_an_end_is_stopped():
    firmware = build({"main.c": "int main(void) { for (;;) {} }"}, target("cortex-m3"))
    with pytest.raises(ExportError, match=r"did not end within 0\.5 s"):
        emulate(firmware, timeout=0.5)


@needs_compiler
def test_sizes_are_split_by_what_the_bytes_are():
    measured = sizes({"model.c": MODEL}, target("cortex-m4"))
    assert (measured.constants, measured.zero, measured.data) == (300, 1000, 4)
    assert 20 < measured.code < 200
    assert measured.library > 0  # memcpy
    assert measured.flash == measured.code + 300 + 4 + measured.library
    assert measured.ram == 1004
    assert measured.stack is not None and 0 < measured.stack < 64


@needs_compiler
def test_what_the_compiler_refuses_is_one_line():
    with pytest.raises(ExportError, match=r"refuses the C for cortex-m0 -Os: .*main\.c:1:.*error"):
        build({"main.c": "int main(void) { return missing; }"}, target("cortex-m0"))
    absent = "int absent(void); int main(void) { return absent(); }"
    with pytest.raises(ExportError, match="undefined reference"):
        build({"main.c": absent}, target("cortex-m0"))


def test_stack_of_a_chain_of_calls_is_that_of_its_deepest():
    node = (
        'node: {{ title: "{0}" label: "{0}\\nfile.c:1:1\\n{1} bytes ({2})\\n0 dynamic objects" }}'
    )
    edge = 'edge: {{ sourcename: "{0}" targetname: "{1}" label: "" }}'
    frames = {"a": 8, "b": 100, "c": 40, "d": 70}
    graph = [node.format(name, size, "static") for name, size in frames.items()]
    graph += [edge.format(*pair) for pair in ("ac", "cd", "ab", ("a", "memcpy"))]
    assert deepest("\n".join(graph)) == 8 + 40 + 70
    assert deepest("\n".join([*graph, edge.format("d", "a")])) is None
    assert deepest("\n".join([*graph, node.format("e", 8, "dynamic")])) is None


@needs_host
def test_a_program_of_this_machine_gives_its_output_and_code():
    source = "#include <stdio.h>\nint main(void) { puts(WORD); return 3; }"
    done = run_on_host({"main.c": source}, ('WORD="hello"',))
    assert (done.output, done.code) == ("hello\n", 3)


def test_an_unknown_target_gets_the_nearest_name():
    with pytest.raises(UsageError, match=r"unknown target 'cortex-m5': did you mean 'cortex-m"):
        target("cortex-m5")


def test_a_missing_tool_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ExportError, match="gcc is not installed: apt install gcc-arm"):
        build({"main.c": "int main(void) { return 0; }"}, target("cortex-m4"))
    firmware = toolchain.Firmware(target("cortex-m4"), b"", "-Os")
    with pytest.raises(ExportError, match="qemu-system-arm is not installed: apt install qemu"):
        emulate(firmware)
    with pytest.raises(ExportError, match="cc is not installed: apt install gcc"):
        run_on_host({"main.c": "int main(void) { return 0; }"})


def test_a_cross_compiler_without_a_c_library_is_as_good_as_none(tmp_path, monkeypatch):
    compiler = tmp_path / "arm-none-eabi-gcc"
    compiler.write_text("#!/bin/sh\necho libc.a\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ExportError, match="apt install gcc-arm-none-eabi libnewlib-arm-none-eabi"):
        build({"main.c": "int main(void) { return 0; }"}, target("cortex-m4"))
