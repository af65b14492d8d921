"""The command `fedsys bank`.

What it does is imported when it is called, so that the command line's help stays quick.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

_PATH: Any = click.Path(path_type=Path)
_FOLDER = click.option("--folder", type=_PATH, default=Path("bank"), metavar="DIR",
                       help="The bank's folder [bank].")  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")


@click.group()
def bank() -> None:
    """What a bank does."""


@bank.command()
@_FOLDER
def join(folder: Path) -> int:
    """Takes part in the federation until Ctrl-C."""
    from fedsys.clients.bank.agent import join as run
    from fedsys.clients.bank.home import BankHome

    run(BankHome.open(folder), lambda line: click.echo(line))
    return 0


@bank.group(invoke_without_command=True)
@_FOLDER
@_JSON
@click.pass_context
def jobs(context: click.Context, folder: Path, as_json: bool) -> int:
    """Lists the jobs that came, and says what each would do."""
    from fedsys.clients.bank.home import BankHome

    context.obj = folder
    if context.invoked_subcommand:
        return 0
    found = BankHome.open(folder).jobs()
    if as_json:
        table = [
            {"id": job.id, "job": job.digest, "approved": approved, "terms": job.table()["terms"]}
            for job, approved in found
        ]
        click.echo(json.dumps(table))
        return 0
    for job, approved in found:
        terms = job.terms
        state = "approved" if approved else f"waits for: fedsys bank jobs approve {job.id}"
        click.echo(
            f"{job.id}  {terms.name}  {type(terms.strategy).__name__.lower()}, {terms.rounds} "
            f"rounds, {job.layout.length:,} parameters, quorum {terms.quorum}  {state}"
        )
    return 0


@jobs.command()
@click.argument("job")
@click.pass_context
def approve(context: click.Context, job: str) -> int:
    """Lets a job run on this bank's rows. JOB: its number, or the first 12 digits of it."""
    from fedsys.clients.bank.home import BankHome

    home = BankHome.open(context.obj)
    digest = home.find_job(job)
    home.approve(digest)
    click.echo(f"{digest[:12]}  approved")
    return 0
