"""How numbers, names, durations and choices are said to a reader."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

NOTHING = "\N{EN DASH}"  # where a number is not known


def word(name: str) -> str:
    """A metric's name within a sentence."""
    return {"auc": "AUC"}.get(name, name.replace("_", " "))


def title(name: str) -> str:
    """A metric's name for a heading."""
    return word(name)[:1].upper() + word(name)[1:]


def shown(name: str, value: float | None) -> str:
    """A metric's value for a reader: accuracy in percent."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if name == "accuracy":
        return f"{100 * value:.2f}%"
    return f"{value:.4f}" if 0.001 <= abs(value) < 1000 else f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Seconds for a reader: `0.42 s`, `12.3 s`, `4 min 12 s`, `2 h 05 min`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 0.0995:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    if seconds < 3599.5:
        return "{} min {:02d} s".format(*divmod(round(seconds), 60))
    return "{} h {:02d} min".format(*divmod(round(seconds / 60), 60))


def day(created: str) -> str:
    """`2026-11-21T01:39:51+00:00` as `2026-11-21 01:39 UTC`; other text as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:[\d.]+)?(Z|[+-]\d\d:\d\d)?", created)
    if not found:
        return created
    zone = {None: "", "Z": " UTC", "+00:00": " UTC"}.get(found[4], f" {found[4]}")
    return f"{found[1]} {found[2]}{zone}"


def many(number: int, thing: str) -> str:
    """`1 round`, `2,000 rounds`."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")


def ranges(numbers: Iterable[int], most: int = 12) -> str:
    """`3, 7-9, 12`, and how many more there are after so many parts."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    said = [f"{low}" if low == high else f"{low}{NOTHING}{high}" for low, high in parts]
    rest = len(said) - most
    return ", ".join(said[:most]) + (f" and {rest} more" if rest > 0 else "")


def choice(table: Mapping[str, Any], key: str) -> tuple[str, str]:
    """What was chosen under a key of an experiment: its name, and its options in brackets."""
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        return str(value), ""
    options = [f"{name} {plain(item)}" for name, item in value.items() if name != "name"]
    return str(value.get("name", "")), ", ".join(options)


def plain(value: Any) -> str:
    """An option's value for a reader."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
