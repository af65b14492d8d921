"""The command `fedsys bank`: what the owner of rows does.

What it does is imported when it is called, so that the command line's help stays quick.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedsys.deployment.options import Files, file_options

if TYPE_CHECKING:
    from fedsys.clients.bank.home import BankHome

_PATH: Any = click.Path(path_type=Path)
_WHERE = "Folder of banks [$FEDSYS_HOME, else the user's data folder]."
_HOME = click.option("--home", type=_PATH, metavar="DIR", help=_WHERE)
_NAME = click.option("--bank", "name", metavar="NAME", help="Which one [the only one].")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_ROWS = "rows.csv, rows.parquet, postgresql+psycopg://..., or env:NAME of a variable with that."
_SOURCE = click.option("--source", metavar="WHERE", help=_ROWS)
_QUERY = click.option("--query", metavar="SQL", help="One SELECT, or a file that holds it.")


@click.group()
def bank() -> None:
    """What the owner of rows does: enrol, check, join, approve jobs."""


def _home(home: Path | None, name: str | None) -> BankHome:
    from fedsys import places
    from fedsys.clients.bank.home import BankHome

    return BankHome.open(places.find(places.BANK, name, home))


def _say(text: str, table: Any, as_json: bool) -> int:
    click.echo(json.dumps(table) if as_json else text)
    return 0


def _note(line: str) -> None:
    click.echo(line, err=True)


@bank.command()
@click.argument("token")
@_HOME
@_JSON
def enrol(token: str, home: Path | None, as_json: bool) -> int:
    """Enrols with the TOKEN that the coordinator sent; '-' reads it from standard input.

    The bank's keys are made here and never leave. Read the fingerprint to the coordinator.
    """
    import sys

    from fedsys import places
    from fedsys.clients.bank.enrolment import enrol as run
    from fedsys.trust.tokens import read_token

    read = read_token(sys.stdin.read(16384) if token == "-" else token)
    folder = places.new(places.BANK, f"{read.bank}@{read.federation}", home)
    done = run(read, folder)
    for warning in done.warnings:
        _note(f"⚠ {warning}")
    facts = done.home.facts
    table = {"bank": facts.name, "federation": facts.federation, "server": facts.server,
             "fingerprint": done.fingerprint, "folder": str(folder),
             "schema": done.home.schema.hash}  # fmt: skip
    text = (
        f"{facts.name}: enrolled in {facts.federation}; its keys lie in {folder / 'keys'}\n"
        f"read this to the coordinator: {done.fingerprint}\n"
        "next: fedsys bank check --source ROWS"
    )
    return _say(text, table, as_json)


@bank.command()
@_SOURCE
@_QUERY
@_NAME
@_HOME
@_JSON
def check(
    source: str | None, query: str | None, name: str | None, home: Path | None, as_json: bool
) -> int:
    """Holds the bank's rows against the federation's schema; nothing leaves this machine.

    A source that is good is remembered for joining.
    """
    from fedsys.clients.bank.enrolment import keep
    from fedsys.clients.bank.rows import named
    from fedsys.errors import UsageError
    from fedsys.tables import run_check

    found = _home(home, name)
    facts = found.facts
    if source is None and query is not None:
        source = facts.source or None
    where, what = named(source, query) if source is not None else (facts.source, facts.query)
    if not where:
        raise UsageError("no rows: name them: --source rows.csv, rows.parquet or a database")
    schema = found.folder / "schema.toml"
    code = run_check(where, what, schema, as_json, found.schema.hash)
    if code == 0 and (where, what) != (facts.source, facts.query):
        keep(found, source=where, query=what)
        if "@" in where and ":" in where.partition("://")[2].partition("@")[0]:
            _note("its password is kept in bank.json (0600); --source env:NAME keeps it out")
        _note("next: fedsys bank join")
    return code


@bank.command()
@_SOURCE
@_QUERY
@click.option("--approve-jobs", is_flag=True,
              help="Run every job that the coordinator signs, within this bank's bounds, without "
                   "somebody here seeing it first.")  # fmt: skip
@click.option("--ask", is_flag=True, help="Ask before each job again.")
@file_options
@_NAME
@_HOME
@_JSON
def join(
    source: str | None, query: str | None, approve_jobs: bool, ask: bool, files: Files | None,
    name: str | None, home: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Takes part in the federation until Ctrl-C.

    Waits for the coordinator's approval where that is missing, and for a server that is away.
    """
    from fedsys.clients.bank.joining import join as run
    from fedsys.clients.bank.joining import remembered
    from fedsys.errors import UsageError

    if approve_jobs and ask:
        raise UsageError("--approve-jobs and --ask say the opposite: give one of them")
    approves = "always" if approve_jobs else "ask" if ask else None
    found = _home(home, name)
    if files is not None:
        from fedsys.deployment.services import bank_service

        remembered(found, source, query, approves)
        return files.write(bank_service(found.folder), as_json)

    def tell(line: str) -> None:
        click.echo(json.dumps({"said": line}) if as_json else line)

    return run(found, source, query, approves, tell)


@bank.group(invoke_without_command=True)
@_NAME
@_HOME
@_JSON
@click.pass_context
def jobs(context: click.Context, name: str | None, home: Path | None, as_json: bool) -> int:
    """Says what each job that came would do with this bank's rows."""
    context.obj = (name, home)
    if context.invoked_subcommand:
        return 0
    from fedsys.clients.bank.standing import ask
    from fedsys.errors import NetworkError
    from fedsys.trust.description import describe
    from fedsys.trust.jobs import diff

    found = _home(home, name)
    try:
        ask(found, with_head=False)
    except NetworkError as error:
        _note(f"⚠ {error}; these are the jobs that came before")
    known = found.jobs()
    table = [{"id": job.id, "job": job.digest, "name": job.terms.name, "approved": approved,
              "terms": job.table()["terms"]} for job, approved in known]  # fmt: skip
    if as_json:
        return _say("", table, as_json)
    if not known:
        click.echo("no job has come yet")
    before = None
    for job, approved in known:
        state = "approved here" if approved else f"waits for: fedsys bank jobs approve {job.id}"
        click.echo(describe(job))
        if before is not None and not approved:
            click.echo(f"\nWhat changed since {before.id} {before.terms.name}")
            click.echo("\n".join(f"  {line}" for line in diff(before, job)))
        click.echo(f"\n{job.id} {job.terms.name}: {state}\n")
        before = job if approved else before
    return 0


@jobs.command()
@click.argument("job")
@_NAME
@_HOME
@_JSON
@click.pass_context
def approve(
    context: click.Context, job: str, name: str | None, home: Path | None, as_json: bool
) -> int:
    """Lets a JOB run on this bank's rows, by its number or the first digits of it."""
    from fedsys.clients.bank.standing import ask
    from fedsys.errors import NetworkError

    outer = context.obj
    found = _home(home or outer[1], name or outer[0])
    try:
        ask(found, with_head=False)  # it may not have come yet
    except NetworkError as error:
        _note(f"⚠ {error}")
    digest = found.find_job(job)
    if not found.approved(digest):
        found.approve(digest)
    told = True
    try:
        ask(found)
    except NetworkError as error:
        told = False
        _note(f"⚠ not told to the coordinator yet: {error}")
    table = {"job": digest, "approved": True, "told": told}
    return _say(f"{digest[:12]}  approved", table, as_json)


@bank.command()
@click.option("--verify", "check_", is_flag=True, help="Whether the log is whole.")
@click.option("--with", "others", type=_PATH, multiple=True, metavar="COORDINATOR.JSONL",
              help="The coordinator's log, to hold both against each other.")  # fmt: skip
@_NAME
@_HOME
@_JSON
def audit(
    check_: bool, others: tuple[Path, ...], name: str | None, home: Path | None, as_json: bool
) -> int:
    """Prints this bank's log of what ran, was sent and was refused, or verifies it."""
    from fedsys.federation.commands.audit import shown, verified

    found = _home(home, name)
    if not check_ and not others:
        shown(found.audit.path, as_json)
        return 0
    return verified(found.audit.path, found.facts.name, others, as_json)
