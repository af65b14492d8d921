"""Well-known boards, and which of them a model fits.

Flash and RAM are those of the microcontroller, from the makers' data sheets, for what a program
may use; a flash chip outside the microcontroller counts where programs run from it. kB are 1,024
bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

KB = 1024
MB = 1024 * KB


@dataclass(frozen=True)
class Board:
    """A board. flash, ram: bytes. core: its processor. note: what to know of its memory."""

    name: str
    core: str
    flash: int
    ram: int
    note: str = ""


BOARDS = (
    Board("STM32F103 Blue Pill", "Cortex-M3", 64 * KB, 20 * KB, "many are sold with 128 kB"),
    Board("Arduino Uno R4 Minima", "Cortex-M4F", 256 * KB, 32 * KB),
    Board("Arduino Zero (SAMD21)", "Cortex-M0+", 256 * KB, 32 * KB),
    Board("STM32 Nucleo-F411RE", "Cortex-M4F", 512 * KB, 128 * KB),
    Board("BBC micro:bit v2 (nRF52833)", "Cortex-M4F", 512 * KB, 128 * KB),
    Board("Arduino Nano 33 BLE (nRF52840)", "Cortex-M4F", 1 * MB, 256 * KB),
    Board("nRF52840 DK", "Cortex-M4F", 1 * MB, 256 * KB),
    Board("Raspberry Pi Pico (RP2040)", "Cortex-M0+", 2 * MB, 264 * KB, "flash beside the chip"),
    Board("Raspberry Pi Pico 2 (RP2350)", "Cortex-M33", 4 * MB, 520 * KB, "flash beside the chip"),
    Board("ESP32-DevKitC", "Xtensa LX6", 4 * MB, 320 * KB, "520 kB of RAM, 320 kB for data"),
    Board("ESP32-C3-DevKitM", "RISC-V", 4 * MB, 400 * KB, "flash in the package"),
    Board("STM32 Nucleo-H743ZI", "Cortex-M7F", 2 * MB, 1 * MB, "RAM lies in several blocks"),
    Board("Teensy 4.1 (i.MX RT1062)", "Cortex-M7F", 8 * MB, 1 * MB, "flash beside the chip"),
    Board("Arm Corstone-300 (MPS3)", "Cortex-M55", 2 * MB, 4 * MB, "FPGA or simulator"),
)
"""From small to large."""


@dataclass(frozen=True)
class Fit:
    """How a model lies on a board. flash, ram: the parts of the board's that it takes."""

    board: Board
    flash: float
    ram: float

    @property
    def fits(self) -> bool:
        """Whether it is there at all; what is left is for the rest of the program."""
        return self.flash <= 1 and self.ram <= 1


def fits(flash: int, ram: int, boards: Iterable[Board] = BOARDS) -> tuple[Fit, ...]:
    """How something that needs so many bytes of flash and RAM lies on each of the boards."""
    return tuple(Fit(board, flash / board.flash, ram / board.ram) for board in boards)
