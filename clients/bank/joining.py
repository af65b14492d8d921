"""`fedsys bank join`: the rows are checked, the coordinator's approval is waited for, then the
agent runs until it is ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fedsys.clients.bank.enrolment import keep
from fedsys.clients.bank.home import BankHome
from fedsys.clients.bank.rows import named
from fedsys.clients.bank.standing import Telling, await_approval
from fedsys.errors import DataError, UsageError
from fedsys.federation.serving import alone, until_ended
from fedsys.tables import check

Told = Callable[[str], None]


def join(
    home: BankHome, source: str | None, query: str | None, approves: str | None, told: Told
) -> int:
    """Takes part until it is ended; gives the exit code.

    source, query: where the rows are, if not as remembered. approves: 'ask' or 'always', if not as
    remembered. Raises DataError for rows that may not join: nothing was sent then.
    """
    with alone(home.folder, f"the agent of {home.facts.name}"):
        home = meant(home, source, query, approves)
        _checked(home, told)
        home = keep(home)  # rows that may not join are not remembered

        def run() -> None:
            from fedsys.clients.bank.agent import join as take_part

            await_approval(home, told)
            with Telling(home, told):
                take_part(home, told)

        return until_ended(run)


def meant(home: BankHome, source: str | None, query: str | None, approves: str | None) -> BankHome:
    """The bank with what was given, which is not on the disk yet; see `join`."""
    facts = home.facts
    if source is not None:
        where, what = named(source, query)
        facts = replace(facts, source=where, query=what)
    elif query is not None:
        raise UsageError("--query goes with --source: give both")
    if approves is not None:
        facts = replace(facts, approve=approves)
    return BankHome(home.folder, facts)


def remembered(
    home: BankHome, source: str | None, query: str | None, approves: str | None
) -> BankHome:
    """The bank, which remembers what was given; see `join`."""
    return keep(meant(home, source, query, approves))


def _checked(home: BankHome, told: Told) -> None:
    report = check(home.source(), home.schema, home.schema.hash)
    if report.refused:
        for line in report.text().splitlines():
            told(line)
        raise DataError(
            f"{home.facts.name}: these rows may not join: mend them, then fedsys bank check; "
            "nothing was sent"
        )
    told(f"{home.facts.name}: {report.kept:,} rows fit the schema")
