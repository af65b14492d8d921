"""What a Flower app says of itself in its `pyproject.toml`, and a run's own settings over it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsys.errors import UsageError, nearest

Value = bool | int | float | str

NODES = 2
"""How many nodes Flower simulates where nobody says."""

PAIR = re.compile(r"""\s*([^\s=]+)\s*=\s*("[^"]*"|'[^']*'|\S+)""")


@dataclass(frozen=True)
class Project:
    """An app as its folder describes it."""

    folder: Path
    name: str
    server_app: str  # "module:attribute"
    client_app: str
    config: Mapping[str, Value]
    nodes: int
    nodes_from: str  # where that number stands

    @classmethod
    def read(cls, folder: Path | str) -> Project:
        """Reads an app's folder. Raises UsageError, in one line, for what is not right there."""
        folder = Path(folder)
        path = folder / "pyproject.toml"
        if not folder.is_dir():
            there = "is a file" if folder.exists() else "there is no such folder"
            raise UsageError(f"--app {folder}: {there}: name the folder of a Flower app")
        if not path.is_file():
            raise UsageError(f"--app {folder}: has no pyproject.toml, so it is no Flower app")
        table = _toml(path)
        flower = _table(table, ("tool", "flwr"), path)
        app = _table(flower, ("app",), path, "tool.flwr")
        parts = _table(app, ("components",), path, "tool.flwr.app")
        nodes, nodes_from = _nodes(flower, path)
        return cls(
            folder=folder.resolve(),
            name=str(table.get("project", {}).get("name", folder.resolve().name)),
            server_app=_reference(parts, "serverapp", path),
            client_app=_reference(parts, "clientapp", path),
            config=_flat(app.get("config", {}), path),
            nodes=nodes,
            nodes_from=nodes_from,
        )

    def run_config(self, given: Sequence[str] = ()) -> dict[str, Value]:
        """The app's configuration with `key=value` pairs, or a TOML file's, put over it.

        given: as for `flwr run --run-config`. A key that the app does not have, and a value of
        another type than the app's own, raise UsageError.
        """
        config = dict(self.config)
        for key, value in _given(given).items():
            if key not in config:
                known = nearest(key, config) if config else "the app has none"
                raise UsageError(
                    f"--run-config: unknown key {key!r} of [tool.flwr.app.config] in "
                    f"{self.folder / 'pyproject.toml'}; {known}"
                )
            if not _fits(value, config[key]):
                raise UsageError(
                    f"--run-config: {key} = {value!r} is {_kind(value)}, and the app's own "
                    f"{config[key]!r} is {_kind(config[key])}"
                )
            config[key] = value
        return config


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: is no TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


def _table(table: Any, names: Sequence[str], path: Path, above: str = "") -> dict[str, Any]:
    for name in names:
        above = f"{above}.{name}" if above else name
        table = table.get(name)
        if not isinstance(table, dict):
            raise UsageError(f"{path}: has no [{above}], which a Flower app needs")
    return dict(table)


def _reference(parts: Mapping[str, Any], name: str, path: Path) -> str:
    if name not in parts:
        raise UsageError(f"{path}: [tool.flwr.app.components] does not say {name!r}")
    module, colon, attribute = str(parts[name]).partition(":")
    if not (module and colon and attribute):
        raise UsageError(
            f"{path}: components.{name} is {parts[name]!r}: write it as 'module:attribute'"
        )
    return str(parts[name])


def _flat(table: Any, path: Path, above: str = "") -> dict[str, Value]:
    """Nested tables as one, with dotted keys."""
    flat: dict[str, Value] = {}
    for key, value in dict(table).items():
        name = f"{above}.{key}" if above else key
        if isinstance(value, dict):
            flat.update(_flat(value, path, name))
        elif isinstance(value, Value):
            flat[name] = value
        else:
            raise UsageError(
                f"{path}: {name} = {value!r}: a run's configuration holds numbers, text and "
                "true or false"
            )
    return flat


def _given(texts: Sequence[str]) -> dict[str, Value]:
    files = [text for text in texts if text.endswith(".toml")]
    if files and len(texts) > 1:
        raise UsageError("--run-config: give one TOML file, or pairs, not both")
    if files:
        path = Path(files[0]).expanduser()
        if not path.is_file():
            raise UsageError(f"--run-config {path}: there is no such file")
        return _flat(_toml(path), path)
    pairs: dict[str, Value] = {}
    for text in texts:
        rest = PAIR.sub("", text).strip()
        if rest:
            raise UsageError(f"--run-config {text!r}: write {rest!r} as KEY=VALUE")
        for key, value in PAIR.findall(text):
            try:
                read = tomllib.loads(f"value = {value}")["value"]
            except tomllib.TOMLDecodeError:
                raise UsageError(
                    f"""--run-config {key}={value}: text stands in quotes: {key}="{value}\""""
                ) from None
            pairs.update(_flat({key: read}, Path("--run-config")))
    return pairs


def _fits(value: Value, own: Value) -> bool:
    if isinstance(own, float) and not isinstance(value, bool):
        return isinstance(value, int | float)
    return type(value) is type(own)


def _kind(value: Value) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return kinds[type(value)]


def _nodes(flower: Mapping[str, Any], path: Path) -> tuple[int, str]:
    """How many nodes, by the app's own federation, or Flower's configuration of this user."""
    federations = flower.get("federations", {})
    home = Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr") / "config.toml"
    links = _toml(home).get("superlink", {}) if home.is_file() else {}
    for table, place in ((federations, path), (links, home)):
        chosen = table.get(table.get("default"), {}) if isinstance(table, dict) else {}
        options = chosen.get("options", {}) if isinstance(chosen, dict) else {}
        number = options.get("num-supernodes") if isinstance(options, dict) else None
        if number is None:
            continue
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise UsageError(f"{place}: num-supernodes = {number!r} is no number of nodes")
        return number, str(place)
    return NODES, ""
