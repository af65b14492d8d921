"""What the coordinator's commands have in common."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fedsys.federation.home import Home

PATH: Any = click.Path(path_type=Path)
WHERE = "Folder of federations [$FEDSYS_HOME, else the user's data folder]."
HOME = click.option("--home", type=PATH, metavar="DIR", help=WHERE)
NAME = click.option("--federation", "name", metavar="NAME", help="Which one [the only one].")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


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
