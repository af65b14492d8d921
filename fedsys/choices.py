"""Values chosen by name: `dirichlet:0.5` on a command line, a table with a `name` in TOML.

A family (partitions, strategies, tasks, ...) maps names to frozen dataclasses. Everything here
follows from the dataclass fields: what may be written, the types, the order of the short form,
and the message when something is wrong.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedsys.errors import UsageError, nearest


class Text(str):
    """A value from a command line, still to be read as the type of the field it is for."""


@dataclass(frozen=True)
class Family:
    """A named set of value types, such as all partitions."""

    kind: str
    members: Mapping[str, type]

    def parse(self, text: str, place: str = "") -> Any:
        """`name`, `name:value,value` or `name:key=value,...` as a value of the family."""
        return self.decode({"name": text}, place)

    def decode(self, table: Any, place: str = "") -> Any:
        """A table `{name = ..., ...}`, whose name may be in the short form, or the short form
        alone, as a value of the family."""
        place = place or self.kind
        if isinstance(table, str):
            table = {"name": table}
        if not isinstance(table, Mapping):
            raise UsageError(f"{place} must be a name or a table, not {table!r}")
        given = dict(table)
        text = given.pop("name", None)
        if not isinstance(text, str):
            raise UsageError(f"{place} needs a name; known: {', '.join(sorted(self.members))}")
        name, _, rest = text.partition(":")
        if name not in self.members:
            raise UsageError(
                f"{place}: unknown {self.kind} {name!r}; {nearest(name, self.members)}"
            )
        type_ = self.members[name]
        return build(type_, {**_short(type_, name, rest, place), **given}, place, of=name)

    def encode(self, value: Any) -> dict[str, Any]:
        """The value as a table that `decode` reads back."""
        return {"name": self.name_of(value), **plain(value)}

    def short(self, value: Any) -> str:
        """The value in the short form, for a heading."""
        said = [f"{key}={item:g}" if isinstance(item, float) else f"{key}={item}"
                for key, item in plain(value).items()]  # fmt: skip
        return ":".join([self.name_of(value), *([",".join(said)] if said else [])])

    def name_of(self, value: Any) -> str:
        """The name under which the value's type is known."""
        for name, type_ in self.members.items():
            if type(value) is type_:
                return name
        raise UsageError(f"{self.kind}: {type(value).__name__} is not one of the family")


def plain(value: Any) -> dict[str, Any]:
    """A dataclass as a table: what `build` reads back.

    None is left out, as in TOML, and so is a field with `unsaid` in its metadata that has its
    default: what was named or signed before there was such a field keeps its name.
    """
    table: dict[str, Any] = {}
    hints = typing.get_type_hints(type(value))
    for field in dataclasses.fields(value):
        item, hint = getattr(value, field.name), hints[field.name]
        if item is None or not field.init:
            continue
        if "unsaid" in field.metadata and item == field.default:
            continue
        if hasattr(item, "dtype"):
            item = item.item()  # a seed out of np.arange
        if "family" in field.metadata:
            item = field.metadata["family"].encode(item)
        elif dataclasses.is_dataclass(item):
            item = plain(item)
        elif isinstance(item, tuple):
            item = list(item)
        elif type(item) is int and float in (hint, *typing.get_args(hint)):
            item = float(item)  # as `build` reads it: 1 and 1.0 are the same experiment
        table[field.name] = item
    return table


def build(type_: type, given: Mapping[str, Any], place: str, *, of: str = "") -> Any:
    """Makes a dataclass from a table, or says what is wrong and where.

    Fields are plain values, tuples of texts, dataclasses (tables), or values of the family in
    their metadata.
    """
    if not isinstance(given, Mapping):
        raise UsageError(f"{place} must be a table, not {given!r}")
    hints = typing.get_type_hints(type_)
    fields = {field.name: field for field in dataclasses.fields(type_) if field.init}
    values: dict[str, Any] = {}
    for key, item in given.items():
        where = f"{place}.{key}" if place else key
        if key not in fields:
            whose = f" of {of!r}" if of else ""
            known = nearest(key, fields) if fields else "it takes none"
            raise UsageError(f"{where}: unknown key{whose}; {known}")
        if "family" in fields[key].metadata:
            values[key] = _choose(fields[key], item, where)
        elif dataclasses.is_dataclass(hints[key]):
            values[key] = build(typing.cast(type, hints[key]), item, where)
        else:
            values[key] = convert(item, hints[key], where)
    required = [
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
        and name not in values
    ]
    if required:
        raise UsageError(f"{place}: {of or type_.__name__!r} needs {', '.join(required)}")
    try:
        return type_(**values)
    except ValueError as error:
        raise UsageError(f"{place}.{error}" if place else str(error)) from None


def convert(item: Any, hint: Any, place: str) -> Any:
    """`item` as the plain type `hint`: str, int, float, bool, one of them or None, or texts."""
    if hint == tuple[str, ...]:
        return _texts(item, place)
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    wanted = [option for option in options if option is not types.NoneType]
    if item is None or (isinstance(item, Text) and item == "none"):
        if types.NoneType in options:
            return None
        raise UsageError(f"{place} must be {_named(wanted)}, not none")
    for option in wanted:
        if isinstance(item, Text):
            read = _read(item, option)
            if read is not None:
                return read
        elif option is float and type(item) is int:
            return float(item)
        elif type(item) is option:
            return item
    raise UsageError(f"{place} must be {_named(wanted)}, not {item!r}")


def _texts(item: Any, place: str) -> tuple[str, ...]:
    """Several texts; on a command line with commas between them."""
    texts = item.split(",") if isinstance(item, Text) else item
    if not isinstance(texts, (list, tuple)) or not all(type(text) is str for text in texts):
        raise UsageError(f"{place} must be a list of texts, not {item!r}")
    return tuple(texts)


def _choose(field: dataclasses.Field[Any], item: Any, place: str) -> Any:
    if field.default is None and (item is None or item == "none"):
        return None
    return field.metadata["family"].decode(item, place)


def _short(type_: type, name: str, text: str, place: str) -> dict[str, Any]:
    """The keys that `value,value` or `key=value,...` gives; keyword-only fields come last."""
    fields = sorted(dataclasses.fields(type_), key=lambda field: bool(field.kw_only))
    names = [field.name for field in fields]
    given: dict[str, Any] = {}
    for position, part in enumerate(part for part in text.split(",") if part):
        key, equals, value = part.partition("=")
        if not equals:
            if position >= len(names):
                raise UsageError(
                    f"{place}: {name!r} takes at most {len(names)} values "
                    f"({', '.join(names) or 'none'}), got {text!r}"
                )
            key, value = names[position], part
        given[key.strip()] = Text(value.strip())
    return given


def _read(text: str, type_: type) -> Any:
    """The text as that type, or None where it is not one."""
    if type_ is str:
        return str(text)
    if type_ is bool:
        return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower())
    try:
        return type_(text)
    except ValueError:
        return None


def _named(options: list[type]) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return " or ".join(names.get(option, option.__name__) for option in options)
