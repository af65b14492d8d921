"""Timing in alternation, and tables."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

TURN_SECONDS = 0.3
"""What is quick is run several times a turn, for about so long."""


def seconds(call: Callable[[], object], times: int = 1) -> float:
    """Mean wall time of a call, of several in a row."""
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def times_a_turn(a_call: float) -> int:
    """How often to call what takes so many seconds, in one turn."""
    return max(1, min(200, round(TURN_SECONDS / max(a_call, 1e-6))))


def alternate(calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each call gives, one after another, `rounds` times, forwards and backwards in turn."""
    given: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        order = list(calls) if number % 2 == 0 else list(calls)[::-1]
        for name in order:
            given[name].append(calls[name]())
    return given


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """The median of the ratios, pair by pair."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def milliseconds(values: Sequence[float]) -> str:
    """Median and least of some seconds."""
    return f"{_ms(statistics.median(values))} ({_ms(min(values))})"


def megabytes(count: float) -> str:
    """Bytes, as millions."""
    return f"{count / 1e6:,.0f}"


def verdict(value: float, *, most: float | None = None, least: float | None = None) -> str:
    """Whether a figure keeps to its target."""
    holds = (most is None or value <= most) and (least is None or value >= least)
    return "holds" if holds else "misses"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, aligned so that it can be read as it is."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


def machine() -> str:
    """What the figures were measured on."""
    python, tensorflow, keras = platform.python_version(), version("tensorflow"), version("keras")
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {python}, "
        f"TensorFlow {tensorflow}, Keras {keras}"
    )


def _ms(value: float) -> str:
    milli = value * 1e3
    return f"{milli:.0f}" if milli >= 100 else f"{milli:.3g}"
