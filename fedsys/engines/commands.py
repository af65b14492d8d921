"""`fedsys engines`: where an experiment can be run, and what is missing for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from fedsys.errors import nearest

if TYPE_CHECKING:
    from fedsys.engines import EngineChoice


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def engines(context: click.Context, as_json: bool) -> None:
    """Lists the engines: what is there, what is missing and the command for it."""
    if context.invoked_subcommand is None:
        _list(as_json)


def _list(as_json: bool) -> None:
    from fedsys.engines import ENGINES

    found = {name: _said(name, type_()) for name, type_ in ENGINES.members.items()}
    if as_json:
        click.echo(json.dumps(found))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("engine", "where cohorts are trained", "status"):
        table.add_column(heading, no_wrap=heading != "where cohorts are trained")
    for name, said in found.items():
        missing = f"{said['missing']}: {said['command']}"
        table.add_row(name, said["what"], missing if said["missing"] else said["version"])
    screen = Console()
    if not screen.is_terminal:
        screen.width = 200
    screen.print(table)


def _said(name: str, choice: EngineChoice) -> dict[str, str]:
    status = choice.status()
    what = (type(choice).__doc__ or "").partition("\n")[0].rstrip(".")
    command = f"fedsys engines install {name}" if status.missing else ""
    return {
        "what": what,
        "version": status.version,
        "missing": status.missing,
        "command": command,
    }


@engines.command()
@click.argument("name")
def install(name: str) -> None:
    """Installs what an engine needs; TensorFlow Federated gets an environment of its own."""
    from fedsys.engines import ENGINES
    from fedsys.engines.install import install_packages

    if name not in ENGINES.members:
        raise click.UsageError(f"unknown engine {name!r}; {nearest(name, ENGINES.members)}")

    def say(line: str) -> None:
        click.echo(line, err=True)

    choice: EngineChoice = ENGINES.parse(name)
    if not choice.status().missing:
        click.echo(f"{name}: {choice.status().version} is there")
        return
    if name == "tff":
        from fedsys.engines.tff.environment import install as install_environment

        install_environment(say)
    else:
        install_packages(name, say)
    click.echo(f"{name}: {choice.status().version}")
