"""Cores that generated C is built for, and the emulated machine on which each is tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedsys.errors import UsageError, nearest


@dataclass(frozen=True)
class Memory:
    """A range of addresses. size: in bytes."""

    start: int
    size: int


@dataclass(frozen=True)
class Target:
    """A core, how the compiler is told of it, and a machine of QEMU that has it.

    flags: of arm-none-eabi-gcc. machine: of qemu-system-arm; settings: further arguments.
    vectors: where the machine looks for its vector table. flash, ram: where code and variables
    are put in the emulator; they are larger than what a board has, so that a test fits.
    dsp: whether it has the instructions of two products at once (SMLAD).
    """

    name: str
    core: str
    flags: tuple[str, ...]
    machine: str
    vectors: int
    flash: Memory
    ram: Memory
    settings: tuple[str, ...] = ()
    dsp: bool = False


_MEGABYTE = 1 << 20


def _mps2(
    name: str, core: str, machine: str, flags: tuple[str, ...] = (), dsp: bool = False
) -> Target:
    """A core of ARM's MPS2 boards: 4 MB for code at 0, 4 MB for variables."""
    return Target(
        name,
        core,
        (f"-mcpu={name}", *flags),
        machine,
        vectors=0,
        flash=Memory(0x400, 4 * _MEGABYTE - 0x400),
        ram=Memory(0x2000_0000, 4 * _MEGABYTE),
        dsp=dsp,
    )


_ALL = (
    Target(
        "cortex-m0",
        "Cortex-M0",
        ("-mcpu=cortex-m0", "-mfloat-abi=soft"),
        "microbit",
        vectors=0,
        flash=Memory(0x400, 4 * _MEGABYTE - 0x400),
        ram=Memory(0x2000_0000, _MEGABYTE),
        # The board's 256 kB and 16 kB would not hold a test with all of its vectors.
        settings=(
            *("-global", f"nrf51-soc.flash-size={4 * _MEGABYTE}"),
            *("-global", f"nrf51-soc.sram-size={_MEGABYTE}"),
        ),
    ),
    _mps2("cortex-m3", "Cortex-M3", "mps2-an385", ("-mfloat-abi=soft",)),
    _mps2(
        "cortex-m4", "Cortex-M4F", "mps2-an386", ("-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"), dsp=True
    ),
    _mps2("cortex-m7", "Cortex-M7", "mps2-an500", ("-mfloat-abi=hard", "-mfpu=fpv5-d16"), dsp=True),
    Target(
        "cortex-m33",
        "Cortex-M33",
        ("-mcpu=cortex-m33", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"),
        "mps2-an505",
        vectors=0x1000_0000,
        flash=Memory(0x1000_0400, 4 * _MEGABYTE - 0x400),
        ram=Memory(0x3800_0000, 2 * _MEGABYTE),
        dsp=True,
    ),
    Target(
        "cortex-m55",
        "Cortex-M55",
        ("-mcpu=cortex-m55", "-mfloat-abi=hard"),
        "mps3-an547",
        vectors=0,
        flash=Memory(0x0100_0000, 2 * _MEGABYTE),
        ram=Memory(0x2100_0000, 4 * _MEGABYTE),
        dsp=True,
    ),
)

TARGETS: Mapping[str, Target] = {target.name: target for target in _ALL}
"""Name -> target, from the smallest core to the largest."""


def target(name: str) -> Target:
    """The target of this name. UsageError for an unknown one."""
    if name not in TARGETS:
        raise UsageError(f"unknown target {name!r}: {nearest(name, TARGETS)}")
    return TARGETS[name]
