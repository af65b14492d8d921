"""How sizes and counts are said to a reader."""

from __future__ import annotations

import math

from fedsys.report.wording import NOTHING


def bytes_said(size: int | None) -> str:
    """`512 B`, `31.3 kB`, `1.20 MB`; a kB is 1,024 bytes, as on data sheets."""
    if size is None:
        return NOTHING
    if size < 1024:
        return f"{size} B"
    for unit, scale in (("kB", 1024), ("MB", 1024**2), ("GB", 1024**3)):
        value = size / scale
        if value < 1023.95 or unit == "GB":
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            text = f"{value:.{digits}f}"
            return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {unit}"
    raise AssertionError


def count_said(count: int | None) -> str:
    """`812`, `12.4 k`, `30.4 M`, of things that are counted in thousands."""
    if count is None:
        return NOTHING
    if count < 10_000:
        return f"{count:,}"
    for unit, scale in (("k", 10**3), ("M", 10**6), ("G", 10**9)):
        value = count / scale
        if value < 999.95 or unit == "G":
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
    raise AssertionError


def points(value: float) -> str:
    """`0.12 points` of accuracy."""
    return f"{value:.2f} points"


def lost(drop: float) -> str:
    """`0.22 points lost`, or what was won."""
    return f"{points(abs(drop))} {'lost' if drop >= 0 else 'won'}"


def decibels(value: float | None) -> str:
    """`34.1`, `exact` where nothing was lost, a dash where nothing is known."""
    if value is None or math.isnan(value):
        return NOTHING
    return "exact" if math.isinf(value) else f"{value:.1f}"


def dimensions(shape: tuple[int, ...]) -> str:
    """`28 x 28 x 8`."""
    return " x ".join(map(str, shape)) if shape else "1"


def percent(part: float) -> str:
    """`0.3%`, `4.2%`, `47%`: as many digits as small parts need."""
    if 0 < part < 0.001:
        return "<0.1%"
    return f"{100 * part:.1f}%" if part < 0.0995 else f"{100 * part:.0f}%"
