"""What the coordinator's commands have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedsys.errors import FedsysError, StorageError, UsageError

if TYPE_CHECKING:
    from fedsys.federation.home import Home

PATH: Any = click.Path(path_type=Path)
_AS_JSON = "fedsys.json"
WHERE = "Folder of federations [$FEDSYS_HOME, else the user's data folder]."
HOME = click.option("--home", type=PATH, metavar="DIR", help=WHERE)
NAME = click.option("--federation", "name", metavar="NAME", help="Which one [the only one].")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Commands(click.Group):
    """Commands with --json, of which a mistake is told as JSON, too: {"error": ..., "code": ...} on
    standard output, beside the line for people."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)  # in the order in which they are used

    def parse_args(self, context: click.Context, words: list[str]) -> list[str]:
        context.meta[_AS_JSON] = "--json" in words
        return super().parse_args(context, words)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (FedsysError, click.UsageError, OSError) as error:
            if context.meta[_AS_JSON]:
                click.echo(json.dumps({"error": _said(error), "code": _code(error)}))
            raise


def _said(error: Exception) -> str:
    return error.format_message() if isinstance(error, click.UsageError) else str(error)


def _code(error: Exception) -> int:
    """The exit code that the command line ends with; see `cli.main`."""
    if isinstance(error, FedsysError):
        return error.code
    return UsageError.code if isinstance(error, click.UsageError) else StorageError.code


def home_of(home: Path | None, name: str | None) -> Home:
    """The federation that is meant."""
    from fedsys import places
    from fedsys.federation.enrolment.door import OpenHome

    return OpenHome.open(places.find(places.FEDERATION, name, home))


def say(text: str, table: Any, as_json: bool) -> int:
    """Prints what came of a command, and gives the exit code."""
    click.echo(json.dumps(table) if as_json else text)
    return 0


def note(line: str) -> None:
    """Says something beside that, to people."""
    click.echo(line, err=True)
