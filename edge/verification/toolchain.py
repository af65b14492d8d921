"""C for a microcontroller: built by the cross-compiler, measured, and run in the emulator.

Instructions are counted by the clock of the emulator, which goes on by 2^8 ns with every
instruction; the core's timer, read around a call, is scaled by what a million known instructions
take. The count is exact to a few in a million; it is of instructions, not of cycles.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from string import Template

from fedsys.edge.verification.targets import TARGETS, Target, target
from fedsys.errors import ExportError

__all__ = [
    "TARGETS",
    "Emulation",
    "Firmware",
    "Sizes",
    "Target",
    "build",
    "emulate",
    "missing",
    "run_on_host",
    "sizes",
    "target",
]

PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "cc": "gcc",
    "cmake": "cmake",
}
"""Tool -> what to install for it, by Debian's and Ubuntu's names."""

WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")
STACK_BYTES = 16384
"""Stack that every firmware has at least."""

_CLOCK_SHIFT = 8


@dataclass(frozen=True)
class Firmware:
    """A program for a machine of the emulator. elf: the linked file."""

    target: Target
    elf: bytes
    optimise: str


@dataclass(frozen=True)
class Emulation:
    """What a program did in the emulator, or on the host.

    output: its text. code: its exit code.
    instructions: of the call that `firmware_measure` measured, or None where there was none.
    stack: bytes of stack that the call used, of its own and of what it calls.
    """

    output: str
    code: int
    instructions: int | None = None
    stack: int | None = None


@dataclass(frozen=True)
class Sizes:
    """Bytes of compiled C, without what calls it.

    code, constants: in flash. data: variables with a value, in flash and in RAM. zero: variables
    without, in RAM; a model's arena.
    library: code and constants of the compiler's own routines that it needs.
    stack: the deepest chain of calls within it; None where the compiler cannot tell.
    """

    code: int
    constants: int
    data: int
    zero: int
    library: int
    stack: int | None

    @property
    def flash(self) -> int:
        """All that lies in flash."""
        return self.code + self.constants + self.data + self.library

    @property
    def ram(self) -> int:
        """All variables in RAM, without the stack."""
        return self.data + self.zero


def missing(*tools: str) -> tuple[str, ...]:
    """Those of the tools that are not installed; a cross-compiler without a C library is not."""
    return tuple(tool for tool in tools if not _installed(tool))


def _installed(tool: str) -> bool:
    path = shutil.which(tool)
    return path is not None and (tool != "arm-none-eabi-gcc" or _has_library(path))


@cache
def _has_library(compiler: str) -> bool:
    """Whether the cross-compiler finds newlib, which is a package of its own."""
    command = [compiler, "-print-file-name=libc.a"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    # What it does not find it gives back as a bare name.
    return os.path.isabs(found)


def install(*tools: str) -> str:
    """`arm-none-eabi-gcc is not installed: apt install ...`, for tools that are missing."""
    packages = " ".join(PACKAGES.get(tool, tool) for tool in tools)
    verb = "is" if len(tools) == 1 else "are"
    return f"{' and '.join(tools)} {verb} not installed: apt install {packages}"


def build(
    sources: Mapping[str, str],
    target: Target,
    optimise: str = "-Os",
    defines: Sequence[str] = (),
    warnings: Sequence[str] = WARNINGS,
) -> Firmware:
    """The sources (file name -> C, with headers and a `main`) with our start-up code, linked.

    ExportError where the compiler is not installed or refuses them.
    """
    _require("arm-none-eabi-gcc")
    with _workplace({**sources, **_firmware_sources()}) as folder:
        script = _linker_script(target)
        (folder / "firmware.ld").write_text(script)
        units = sorted(name for name in {*sources, *_firmware_sources()} if name.endswith(".c"))
        _run(
            *("arm-none-eabi-gcc", *_flags(target, optimise, defines), *warnings, *units),
            *("-nostartfiles", "-static", "-T", "firmware.ld", "-Wl,--gc-sections"),
            *("-Wl,--no-warn-rwx-segments", "-o", "firmware.elf", "-lc", "-lgcc"),
            folder=folder,
            what=f"{target.name} {optimise}",
        )
        return Firmware(target, (folder / "firmware.elf").read_bytes(), optimise)


def emulate(firmware: Firmware, timeout: float = 120.0) -> Emulation:
    """Runs it to its end. timeout: seconds, after which it is stopped with an ExportError."""
    _require("qemu-system-arm")
    with tempfile.TemporaryDirectory(prefix="fedsys-") as folder:
        elf = Path(folder) / "firmware.elf"
        elf.write_bytes(firmware.elf)
        done = _ended(
            (
                *("qemu-system-arm", "-M", firmware.target.machine, *firmware.target.settings),
                *("-kernel", str(elf), "-icount", f"shift={_CLOCK_SHIFT},sleep=off,align=off"),
                *("-display", "none", "-monitor", "none", "-serial", "none"),
                *("-chardev", "stdio,id=host,signal=off"),
                *("-semihosting-config", "enable=on,target=native,chardev=host"),
            ),
            Path(folder),
            timeout,
            f"the emulated {firmware.target.core}",
        )
    return _emulation(done)


def run_on_host(
    sources: Mapping[str, str],
    defines: Sequence[str] = (),
    options: Sequence[str] = ("-O2",),
    timeout: float = 120.0,
    warnings: Sequence[str] = WARNINGS,
) -> Emulation:
    """Builds the sources with this machine's own compiler, and runs them. ExportError as above."""
    _require("cc")
    with _workplace(sources) as folder:
        units = sorted(name for name in sources if name.endswith(".c"))
        _run(
            *("cc", "-std=c99", *warnings, *options, *(f"-D{define}" for define in defines)),
            *("-I.", *units, "-o", "program"),
            folder=folder,
            what="this machine",
        )
        done = _ended((str(folder / "program"),), folder, timeout, "the program on this machine")
    return Emulation(done.stdout, done.returncode)


def sizes(
    sources: Mapping[str, str],
    target: Target,
    optimise: str = "-Os",
    defines: Sequence[str] = (),
    entry: str = "model_run",
) -> Sizes:
    """Bytes of the sources as compiled for the target. entry: the function that is called."""
    _require("arm-none-eabi-gcc")
    with _workplace(sources) as folder:
        units = sorted(name for name in sources if name.endswith(".c"))
        flags = (*_flags(target, optimise, defines), "-fstack-usage", "-fcallgraph-info=su")
        what = f"{target.name} {optimise}"
        _run("arm-none-eabi-gcc", *flags, "-c", *units, folder=folder, what=what)
        objects = [name.replace(".c", ".o") for name in units]
        linker = ("arm-none-eabi-gcc", *flags, "-nostartfiles", "-static", *objects, "-lc", "-lgcc")
        keep = (f"-Wl,-e,{entry}", f"-Wl,-u,{entry}", "-Wl,--gc-sections", "-Wl,-Map,linked.map")
        _run(*linker, *keep, "-o", "linked.elf", folder=folder, what=what)
        own, others = _placed((folder / "linked.map").read_text(), set(objects))
        graphs = [path.read_text() for path in sorted(folder.glob("*.ci"))]
    library = others["text"] + others["rodata"] + others["data"]
    return Sizes(
        own["text"], own["rodata"], own["data"], own["bss"], library, deepest("\n".join(graphs))
    )


def deepest(graph: str) -> int | None:
    """Bytes of stack of the deepest chain of calls in GCC's call graph (-fcallgraph-info=su).

    Routines of the compiler's library count nothing. None where a function calls itself or has a
    frame without bound.
    """
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for title, size, kind in re.findall(
        r'node: \{ title: "([^"]+)" label: "[^"]*\\n(\d+) bytes \(([^)]+)\)', graph
    ):
        if kind not in ("static", "dynamic,bounded"):
            return None
        frames[title] = int(size)
    for source, end in re.findall(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', graph):
        calls.setdefault(source, set()).add(end)

    def depth(function: str, callers: tuple[str, ...]) -> int:
        if function in callers:
            raise RecursionError
        chain = (*callers, function)
        below = (depth(callee, chain) for callee in calls.get(function, ()))
        return frames.get(function, 0) + max(below, default=0)

    try:
        return max((depth(function, ()) for function in frames), default=0)
    except RecursionError:
        return None


def _flags(target: Target, optimise: str, defines: Sequence[str]) -> tuple[str, ...]:
    return (
        *target.flags,
        *("-mthumb", "-std=c99", optimise, "-ffunction-sections", "-fdata-sections", "-I."),
        *(f"-D{define}" for define in defines),
    )


_SECTION = re.compile(r"^ \.(text|rodata|data|bss)\S*\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+(\S+)$", re.M)


def _placed(linker_map: str, objects: set[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes of each kind of section that were linked: of our objects, and of all others."""
    own = dict.fromkeys(("text", "rodata", "data", "bss"), 0)
    others = dict(own)
    linked = linker_map[linker_map.index("Linker script and memory map") :]
    # A long name of a section has its numbers on the next line.
    linked = re.sub(r"^( \.\S+)\n +(?=0x)", r"\1 ", linked, flags=re.M)
    for kind, size, origin in _SECTION.findall(linked):
        (own if origin in objects else others)[kind] += int(size, 16)
    return own, others


@cache
def _firmware_sources() -> dict[str, str]:
    place = files("fedsys.edge.verification") / "firmware"
    return {
        name: (place / name).read_text()
        for name in ("firmware.h", "start.c", "host.c", "measure.c")
    }


def _linker_script(target: Target) -> str:
    template = (files("fedsys.edge.verification") / "firmware" / "firmware.ld.in").read_text()
    return Template(template).substitute(
        vectors=hex(target.vectors),
        flash=hex(target.flash.start),
        flash_size=hex(target.flash.size),
        ram=hex(target.ram.start),
        ram_size=hex(target.ram.size),
        stack=hex(STACK_BYTES),
    )


def _emulation(done: subprocess.CompletedProcess[str]) -> Emulation:
    """Output without the lines of `firmware_report`, whose numbers it takes."""
    numbers = {
        name: int(number) for name, number in re.findall(r"^@(\w+) (\d+)$", done.stdout, re.M)
    }
    output = re.sub(r"^@\w+ \d+\n", "", done.stdout, flags=re.M)
    if "fault" in numbers:
        output += "the core met a fault\n"
    if "known_ticks" not in numbers:
        return Emulation(output, done.returncode)
    ticks = (numbers["ticks_high"] << 32) + numbers["ticks_low"]
    instructions = round(ticks * numbers["known_instructions"] / numbers["known_ticks"])
    return Emulation(output, done.returncode, instructions, numbers["stack"])


def _require(*tools: str) -> None:
    if absent := missing(*tools):
        raise ExportError(install(*absent))


@contextmanager
def _workplace(sources: Mapping[str, str]) -> Iterator[Path]:
    """A folder with the sources in it, for a while."""
    with tempfile.TemporaryDirectory(prefix="fedsys-") as folder:
        for name, text in sources.items():
            (Path(folder) / name).write_text(text)
        yield Path(folder)


def _run(*command: str, folder: Path, what: str) -> None:
    """Runs a compiler; its first complaint becomes an ExportError."""
    done = _ended(command, folder, 300.0, command[0])
    if done.returncode:
        lines = done.stdout.splitlines()
        errors = [line for line in lines if re.search("error|undefined|overflowed|no room", line)]
        complaint = (errors or lines or ["no reason given"])[0]
        raise ExportError(f"{command[0]} refuses the C for {what}: {complaint}")


def _ended(
    command: Sequence[str], folder: Path, timeout: float, what: str
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"{what} did not end within {timeout:g} s") from error
