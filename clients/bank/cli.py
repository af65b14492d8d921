"""The command `fedsys bank`: what the owner of rows does.

What it does is imported when it is called, so that the command line's help stays quick.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from fedsys.clients.bank.jobs import jobs
from fedsys.clients.bank.options import HOME, NAME, home_of
from fedsys.clients.bank.samples import samples
from fedsys.deployment.options import Files, file_options
from fedsys.federation.commands.options import JSON, PATH, Commands, note, say

_ROWS = "rows.csv, rows.parquet, postgresql+psycopg://..., or env:NAME of a variable with that."
_SOURCE = click.option("--source", metavar="WHERE", help=_ROWS)
_QUERY = click.option("--query", metavar="SQL", help="One SELECT, or a file that holds it.")


@click.group(cls=Commands)
def bank() -> None:
    """What the owner of rows does: enrol, check, join, answer jobs."""


@bank.command()
@click.argument("token")
@HOME
@JSON
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
        note(f"⚠ {warning}")
    facts = done.home.facts
    table = {"bank": facts.name, "federation": facts.federation, "server": facts.server,
             "fingerprint": done.fingerprint, "folder": str(folder),
             "schema": done.home.schema.hash}  # fmt: skip
    text = (
        f"{facts.name}: enrolled in {facts.federation}; its keys lie in {folder / 'keys'}\n"
        f"read this to the coordinator: {done.fingerprint}\n"
        "next: fedsys bank check --source ROWS"
    )
    return say(text, table, as_json)


@bank.command()
@_SOURCE
@_QUERY
@NAME
@HOME
@JSON
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

    found = home_of(home, name)
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
            note("its password is kept in bank.json (0600); --source env:NAME keeps it out")
        note("next: fedsys bank jobs, which says what is asked of these rows; fedsys bank join")
    return code


@bank.command()
@_SOURCE
@_QUERY
@click.option("--approve-jobs", is_flag=True,
              help="Send statistics, and run every job that the coordinator signs, within this "
                   "bank's bounds, without somebody here seeing it first.")  # fmt: skip
@click.option("--ask", is_flag=True, help="Ask before each job again.")
@file_options
@NAME
@HOME
@JSON
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
    found = home_of(home, name)
    if files is not None:
        from fedsys.deployment.services import bank_service

        remembered(found, source, query, approves)
        return files.write(bank_service(found.folder), as_json)

    def tell(line: str) -> None:
        click.echo(json.dumps({"said": line}) if as_json else line)

    return run(found, source, query, approves, tell)


@bank.command()
@click.option("--verify", "check_", is_flag=True, help="Whether the log is whole.")
@click.option("--with", "others", type=PATH, multiple=True, metavar="COORDINATOR.JSONL",
              help="The coordinator's log, to hold both against each other.")  # fmt: skip
@NAME
@HOME
@JSON
def audit(
    check_: bool, others: tuple[Path, ...], name: str | None, home: Path | None, as_json: bool
) -> int:
    """Prints this bank's log of what ran, was sent and was refused, or verifies it."""
    from fedsys.federation.commands.audit import shown, verified

    found = home_of(home, name)
    if not check_ and not others:
        return shown(found.audit.path, as_json)
    return verified(found.audit.path, found.facts.name, others, as_json)


for each in (jobs, samples):
    bank.add_command(each)
