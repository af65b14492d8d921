"""A schema as TOML: read with the place of every mistake, written so that it reads back the same.

minimum = 10
[label]
column = "default"
classes = "binary"
[columns.LIMIT_BAL]
type = "number"
range = [0, 1000000]
missing = "median"
[columns.EDUCATION]
type = "category"
categories = [1, 2, 3, 4]
missing = { category = 4 }
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from fedsys.errors import UsageError, nearest
from fedsys.storage import write_atomic
from fedsys.tables.schema import (
    MINIMUM,
    SPELLINGS,
    YES_NO,
    Column,
    Label,
    Missing,
    Schema,
    is_number,
    key,
)

_LARGEST = 4 * 2**20  # bytes of a file; a schema comes from outside
_SCHEMA_KEYS = ("title", "label", "columns", "extra", "missing_values", "minimum")
_LABEL_KEYS = ("column", "classes", "description", "missing")
_COLUMN_KEYS = (
    *("type", "unit", "description", "range", "outside", "categories", "other", "missing"),
)
_VALUED = ("constant", "category")  # rules for missing values that name a value


def read_schema(path: Path) -> Schema:
    """The schema in a file. Raises UsageError that names the file and the key."""
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{path}: {path.stat().st_size} bytes is too large for a schema")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file; ask the coordinator for the schema") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise UsageError(f"{path}: cannot be read: {reason}; give a schema in TOML") from None
    return schema_of(text, str(path))


def schema_of(text: str, place: str = "schema") -> Schema:
    """The schema in a TOML text. place: what to name in a UsageError."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of 5000 digits, brackets 1000 deep
        reason = " ".join(str(error).split()) if isinstance(error, tomllib.TOMLDecodeError) else ""
        raise UsageError(f"{place}: not TOML{': ' if reason else ''}{reason[:200]}") from None
    try:
        return _schema(table)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from None


def write_schema(schema: Schema, path: Path) -> None:
    """Writes the schema whole, or raises StorageError."""
    write_atomic(path, [schema_toml(schema).encode()])


def schema_toml(schema: Schema) -> str:
    """The schema as TOML that `schema_of` reads back as the same value."""
    label = schema.label
    table: dict[str, Any] = {
        **({"title": schema.title} if schema.title else {}),
        "extra": schema.extra,
        "minimum": schema.minimum,
        "missing_values": list(schema.spellings),
        "label": {
            "column": label.column,
            "classes": "binary" if label.classes is None else list(label.classes),
            **({"description": label.description} if label.description else {}),
            "missing": label.missing,
        },
        "columns": {column.name: _column_table(column) for column in schema.columns},
    }
    return tomli_w.dumps(table)


def _column_table(column: Column) -> dict[str, Any]:
    table: dict[str, Any] = {"type": column.type}
    for name in ("unit", "description"):
        if getattr(column, name):
            table[name] = getattr(column, name)
    if column.range is not None:
        table |= {"range": list(column.range), "outside": column.outside}
    if column.categories:
        table |= {"categories": list(column.categories), "other": column.other}
    rule, value = column.missing.rule, column.missing.value
    if value is None:
        table["missing"] = rule
    else:
        table["missing"] = {rule: bool(value) if column.type == YES_NO else value}
    return table


def _schema(table: Mapping[str, Any]) -> Schema:
    _known(table, _SCHEMA_KEYS, "")
    columns = _table(table.get("columns", {}), "columns")
    return Schema(
        label=_label(_table(_needed(table, "label", ""), "label")),
        columns=tuple(_column(name, entry) for name, entry in columns.items()),
        extra=_text(table.get("extra", "ignore"), "extra"),
        spellings=_texts(table.get("missing_values", list(SPELLINGS)), "missing_values", False),
        minimum=_whole(table.get("minimum", MINIMUM), "minimum"),
        title=_text(table.get("title", ""), "title"),
    )


def _label(table: Mapping[str, Any]) -> Label:
    _known(table, _LABEL_KEYS, "label")
    classes = _needed(table, "classes", "label")
    if isinstance(classes, str) and classes != "binary":
        raise UsageError(f"label.classes: must be 'binary' or a list of classes, not {classes!r}")
    return Label(
        column=_text(_needed(table, "column", "label"), "label.column"),
        classes=None if classes == "binary" else _texts(classes, "label.classes", True),
        description=_text(table.get("description", ""), "label.description"),
        missing=_text(table.get("missing", "refuse"), "label.missing"),
    )


def _column(name: str, entry: Any) -> Column:
    place = f"columns.{key(name)}"
    table = _table(entry, place)
    _known(table, _COLUMN_KEYS, place)
    bounds = table.get("range")
    if bounds is not None and not (
        isinstance(bounds, list) and len(bounds) == 2 and all(is_number(one) for one in bounds)
    ):
        raise UsageError(f"{place}.range: must be two numbers, such as [0, 100]")
    return Column(
        name=name,
        type=_text(_needed(table, "type", place), f"{place}.type"),
        unit=_text(table.get("unit", ""), f"{place}.unit"),
        description=_text(table.get("description", ""), f"{place}.description"),
        range=None if bounds is None else (float(bounds[0]), float(bounds[1])),
        outside=_text(table.get("outside", "refuse"), f"{place}.outside"),
        categories=_texts(table.get("categories", []), f"{place}.categories", True),
        other=_truth(table.get("other", False), f"{place}.other"),
        missing=_missing(table.get("missing", "refuse"), f"{place}.missing"),
    )


def _missing(entry: Any, place: str) -> Missing:
    if isinstance(entry, str):
        if entry in _VALUED:
            raise UsageError(f"{place}: {entry!r} needs a value; write {{ {entry} = ... }}")
        return Missing(entry)
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise UsageError(f'{place}: must be a rule, such as "drop" or {{ constant = 0 }}')
    rule, value = next(iter(entry.items()))
    if rule not in _VALUED:
        raise UsageError(f"{place}.{key(rule)}: unknown key; {nearest(rule, _VALUED)}")
    if rule == "category":
        return Missing(rule, _texts([value], f"{place}.category", True)[0])
    if not isinstance(value, bool) and not is_number(value):
        raise UsageError(f"{place}.constant: must be a number, or true or false for yes/no")
    return Missing(rule, float(value))


def _known(table: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    for name in table:
        if name not in known:
            where = f"{place}.{key(name)}" if place else key(name)
            raise UsageError(f"{where}: unknown key; {nearest(name, known)}")


def _needed(table: Mapping[str, Any], name: str, place: str) -> Any:
    if name not in table:
        raise UsageError(f"{f'{place}.' if place else ''}{name}: is needed and not there")
    return table[name]


def _table(entry: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise UsageError(f"{place}: must be a table, written as [{place}]")
    return entry


def _text(entry: Any, place: str) -> str:
    if not isinstance(entry, str):
        raise UsageError(f"{place}: must be text, in quotes")
    return entry


def _truth(entry: Any, place: str) -> bool:
    if not isinstance(entry, bool):
        raise UsageError(f"{place}: must be true or false")
    return entry


def _whole(entry: Any, place: str) -> int:
    if isinstance(entry, bool) or not isinstance(entry, int):
        raise UsageError(f"{place}: must be a whole number")
    return entry


def _texts(entry: Any, place: str, numbers: bool) -> tuple[str, ...]:
    """A list of texts. numbers: whole numbers are welcome too, and mean their digits."""
    if not isinstance(entry, list):
        raise UsageError(f"{place}: must be a list")
    texts = []
    for one in entry:
        if numbers and isinstance(one, int) and not isinstance(one, bool) and abs(one) < 2**63:
            one = str(one)
        if not isinstance(one, str):
            raise UsageError(f"{place}: must be texts{' or whole numbers' if numbers else ''}")
        texts.append(one)
    return tuple(texts)
