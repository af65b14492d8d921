"""Limits that a user sets to an exported model, and what to say where one is broken."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedsys.edge.report.figures import Figures, Place
from fedsys.edge.report.wording import bytes_said, count_said, points
from fedsys.errors import BudgetError, UsageError

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def read_size(text: str, option: str) -> int:
    """`64k`, `64kB`, `64KiB`, `1.5M` or `65536` as bytes; k is 1,024, as on data sheets."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:i?b)?", text.strip().lower())
    if not found:
        raise UsageError(f"{option} {text}: write a size such as 64k, 1M or 65536")
    return _positive(float(found[1]) * _UNITS[found[2]], text, option)


def read_count(text: str, option: str) -> int:
    """`15M`, `800k` or `2000000` as a number; here k is a thousand."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)", text.strip().lower())
    if not found:
        raise UsageError(f"{option} {text}: write a number such as 15M or 800k")
    thousand = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[found[2]]
    return _positive(float(found[1]) * thousand, text, option)


def _positive(value: float, text: str, option: str) -> int:
    if value < 1:
        raise UsageError(f"{option} {text}: must be at least 1")
    return int(value)


@dataclass(frozen=True)
class Budget:
    """What an exported model may need. None: as much as it likes.

    flash, ram: bytes. drop: points of accuracy (hundredths) that it may lose against the float
    model. instructions: of an inference in the emulator.
    """

    flash: int | None = None
    ram: int | None = None
    drop: float | None = None
    instructions: int | None = None

    def __post_init__(self) -> None:
        if self.drop is not None and not 0 <= self.drop <= 100:
            raise UsageError(f"--max-drop {self.drop:g}: must be points of accuracy from 0 to 100")

    def lines(self, figures: Figures) -> tuple[tuple[str, str, str], ...]:
        """(what, the limit, what it came to) of each limit that is set, for a reader."""
        said = []
        if self.flash is not None:
            said.append(("flash", bytes_said(self.flash), bytes_said(figures.flash.total)))
        if self.ram is not None:
            said.append(("RAM", bytes_said(self.ram), bytes_said(figures.ram.total)))
        if self.drop is not None:
            known = figures.score.drop if figures.score else None
            got = "not known" if known is None else points(known) if known >= 0 else "none"
            said.append(("accuracy lost", points(self.drop), got))
        if self.instructions is not None:
            count = figures.instructions
            got = count_said(count) if count is not None else "not known"
            said.append(("instructions", count_said(self.instructions), got))
        return tuple(said)

    def broken(self, figures: Figures) -> tuple[str, ...]:
        """A line for each limit that the model breaks, by how much and what would help."""
        return tuple(
            line
            for line in (
                self._flash(figures),
                self._ram(figures),
                self._drop(figures),
                self._instructions(figures),
            )
            if line
        )

    def _flash(self, figures: Figures) -> str:
        got = figures.flash.total
        if self.flash is None or got <= self.flash:
            return ""
        largest = max(figures.layers, key=lambda layer: layer.weights, default=None)
        where = ""
        if largest is not None and largest.weights:
            where = (
                f"{largest.operator} {largest.name!r} alone holds "
                f"{bytes_said(largest.weights)} of weights: "
            )
        kind = "" if figures.method in ("int8", "qat") else "--method int8, "
        return (
            f"{_over('flash', got, self.flash)}: {where}{kind}fewer units or channels there would "
            "help (--prune and --cluster alone save no flash in generated C)"
        )

    def _ram(self, figures: Figures) -> str:
        got = figures.ram.total
        if self.ram is None or got <= self.ram:
            return ""
        peak = _peak(figures)
        where = f"most of it at {peak}: " if peak else ""
        return (
            f"{_over('RAM', got, self.ram)}: {where}fewer channels, a larger stride or smaller "
            "inputs there would help"
        )

    def _drop(self, figures: Figures) -> str:
        if self.drop is None:
            return ""
        lost = figures.score.drop if figures.score else None
        if figures.score is None or lost is None:
            return (
                "the accuracy lost is not known: give labelled rows (`labels` in --calibration), "
                "or export a run"
            )
        if figures.score.metric != "accuracy":
            return (
                f"--max-drop counts points of accuracy, and this model is scored by its "
                f"{figures.score.metric}: leave --max-drop out"
            )
        if lost <= self.drop:
            return ""
        noisy = [layer for layer in figures.layers if layer.sqnr is not None]
        worst = min(noisy, key=lambda layer: layer.sqnr or 0.0, default=None)
        where = (
            f"the noisiest layer is {worst.operator} {worst.name!r} ({worst.sqnr:.0f} dB): "
            if worst is not None
            else ""
        )
        remedy = {
            "int8": "--method qat, more --calibration-clients or --method int16 would help",
            "qat": "more rounds of fine-tuning or less pruning and clustering would help",
        }.get(figures.method, "a model with fewer outliers would help")
        said = f"{points(lost)} of {figures.score.metric} lost"
        return f"{said}, at most {points(self.drop)} allowed: {where}{remedy}"

    def _instructions(self, figures: Figures) -> str:
        if self.instructions is None:
            return ""
        got = figures.instructions
        if got is None:
            return (
                "instructions are not known: install arm-none-eabi-gcc and qemu-system-arm "
                "and leave --no-verify out"
            )
        if got <= self.instructions:
            return ""
        heaviest = max(figures.layers, key=lambda layer: layer.macs)
        share = heaviest.macs / max(1, figures.macs)
        others = [check for check in figures.checks if check.place.startswith(figures.target)]
        fewest = min((check.instructions or got for check in others), default=got)
        faster = (
            f"--optimise speed needs {count_said(fewest)}"
            if fewest <= self.instructions
            else "fewer channels there would help"
        )
        return (
            f"{count_said(got)} instructions an inference, {count_said(got - self.instructions)} "
            f"over the {count_said(self.instructions)} allowed: {heaviest.operator} "
            f"{heaviest.name!r} does {share:.0%} of the multiply-accumulates: {faster}"
        )

    def check(self, figures: Figures, where: str) -> None:
        """Raises BudgetError where `figures` say that a limit is broken. where: the report."""
        if figures.broken:
            raise BudgetError(f"{'; '.join(figures.broken)}; all figures: {where}")


def _over(what: str, got: int, allowed: int) -> str:
    return (
        f"{bytes_said(got)} of {what}, {bytes_said(got - allowed)} over the "
        f"{bytes_said(allowed)} allowed"
    )


def _peak(figures: Figures) -> str:
    """The name of what lies in the arena while it is fullest: the largest tensor of that step."""
    steps = {place.first for place in figures.places}
    if not steps:
        return ""

    def alive(step: int) -> list[Place]:
        return [place for place in figures.places if place.first <= step <= place.last]

    fullest = max(sorted(steps), key=lambda step: sum(place.size for place in alive(step)))
    largest = max(alive(fullest), key=lambda place: place.size)
    return f"{largest.name!r} ({bytes_said(largest.size)})"
