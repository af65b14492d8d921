"""`fedsys bank jobs`: what is asked of a bank's rows is read here, approved and refused.

The request for statistics is listed like a job: it is answered once, before the first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedsys.clients.bank.options import HOME, NAME, home_of
from fedsys.federation.commands.options import JSON, note, say

if TYPE_CHECKING:
    from fedsys.clients.bank.home import BankHome
    from fedsys.trust.jobs import Job

_JOB = click.argument("job", metavar="ID")


@click.group(invoke_without_command=True)
@NAME
@HOME
@JSON
@click.pass_context
def jobs(context: click.Context, name: str | None, home: Path | None, as_json: bool) -> int:
    """Says what each job that came would do with this bank's rows.

    The first is which statistics of them are asked for. What was answered is a line; `jobs show ID`
    says all of it.
    """
    context.obj = (name, home)
    if context.invoked_subcommand:
        return 0
    found = home_of(home, name)
    _hear(found, "these are the jobs that came before")
    known = [job for job, _ in found.jobs()]
    if as_json:
        return say("", [_statistics_table(found), *(_table(found, job) for job in known)], as_json)
    asked = found.statistics
    if found.answered(asked.digest):
        click.echo(f"{asked.id} statistics: {_state(found, asked.digest)}")
    else:
        click.echo(f"{asked.text()}\n\n{asked.id} statistics: {_state(found, asked.digest)}\n")
    if not known:
        click.echo("no job has come yet")
    before = None
    for job in known:
        if found.answered(job.digest):
            click.echo(f"{job.id} {job.terms.name}: {_state(found, job.digest)}")
            before = job if found.approved(job.digest) else before
        else:
            click.echo(f"\n{_text(found, job, before)}\n")
    return 0


@jobs.command()
@_JOB
@NAME
@HOME
@JSON
@click.pass_context
def show(
    context: click.Context, job: str, name: str | None, home: Path | None, as_json: bool
) -> int:
    """Says all of a job, by its number or the first digits of it, or of the statistics."""
    found = _found(context, name, home)
    digest = found.find_job(job)
    if digest == found.statistics.digest:
        text = f"{found.statistics.text()}\n\n{found.statistics.id} statistics: "
        return say(text + _state(found, digest), _statistics_table(found), as_json)
    before = None
    for one, approved in found.jobs():
        if one.digest == digest:
            return say(_text(found, one, before), _table(found, one), as_json)
        before = one if approved else before
    raise AssertionError("find_job knows it")


@jobs.command()
@_JOB
@NAME
@HOME
@JSON
@click.pass_context
def approve(
    context: click.Context, job: str, name: str | None, home: Path | None, as_json: bool
) -> int:
    """Lets a job run on this bank's rows, by its number or the first digits of it; or the
    statistics be sent. Takes an earlier refusal back."""

    def act(found: BankHome, digest: str) -> None:
        if not found.approved(digest):
            found.approve(digest)

    return _answer(_found(context, name, home), job, act, as_json)


@jobs.command()
@_JOB
@click.option("--reason", metavar="TEXT", default="",
              help="Why, for people here; it is not sent.")  # fmt: skip
@NAME
@HOME
@JSON
@click.pass_context
def refuse(
    context: click.Context, job: str, reason: str, name: str | None, home: Path | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Says no to a job, by its number or the first digits of it, or to the statistics.

    The coordinator hears that, and no reason. A job that runs here gets nothing from this bank any
    more, from its next round on. Approving it later takes that back.
    """
    from fedsys.clients.bank.home import LONGEST_REASON
    from fedsys.errors import UsageError

    if len(reason) > LONGEST_REASON or not all(one.isprintable() for one in reason):
        raise UsageError(f"--reason: give one line of at most {LONGEST_REASON:,} letters")
    return _answer(
        _found(context, name, home),
        job,
        lambda found, digest: found.refuse(digest, reason),
        as_json,
        whatever=True,  # nothing keeps a bank from saying no
    )


# --- what they share -----------------------------------------------------------------------------


def _found(context: click.Context, name: str | None, home: Path | None) -> BankHome:
    """The bank, named before or after the subcommand."""
    outer = context.obj
    return home_of(home or outer[1], name or outer[0])


def _hear(found: BankHome, otherwise: str, head: bool = False, whatever: bool = False) -> bool:
    """Hears which jobs there are, and tells what was answered. Whether the coordinator is there.

    otherwise: what follows from its absence. whatever: it may also say that it does not know us.
    """
    from fedsys.clients.bank.standing import ask
    from fedsys.errors import FedsysError, NetworkError

    try:
        ask(found, with_head=head)
    except FedsysError as error:
        if not whatever and not isinstance(error, NetworkError):
            raise
        note(f"⚠ {error}: {otherwise}")
        return False
    return True


def _answer(
    found: BankHome,
    job: str,
    act: Callable[[BankHome, str], None],
    as_json: bool,
    whatever: bool = False,
) -> int:
    """Answers a job, and tells the coordinator. whatever: even where it does not know this bank."""
    later = "it is told when it is there, by fedsys bank join or this command again"
    there = _hear(found, later, whatever=whatever)  # the job may not have come yet
    digest = found.find_job(job)
    act(found, digest)
    told = there and _hear(found, later, head=True, whatever=True)
    state = _word(found, digest)
    table = {"job": digest, "approved": found.approved(digest), "state": state, "told": told}
    return say(f"{digest[:12]}  {state}", table, as_json)


def _word(found: BankHome, digest: str) -> str:
    if found.refused(digest):
        return "refused"
    return "approved" if found.approved(digest) else "open"


def _state(found: BankHome, digest: str) -> str:
    """What was said to it, for people."""
    if found.refused(digest):
        reason = found.reason(digest)
        return f"refused here{f': {reason}' if reason else ''}"
    if found.approved(digest):
        return "approved here"
    return f"waits for: fedsys bank jobs approve {digest[:12]}, or refuse"


def _text(found: BankHome, job: Job, before: Job | None) -> str:
    """A job for people. before: the last that was approved here before it."""
    from fedsys.trust.description import describe
    from fedsys.trust.jobs import diff

    lines = [describe(job), ""]
    if before is not None:
        lines.append(f"What changed since {before.id} {before.terms.name}")
        lines += [f"  {line}" for line in diff(before, job)]
        lines.append("")
    return "\n".join([*lines, f"{job.id} {job.terms.name}: {_state(found, job.digest)}"])


def _table(found: BankHome, job: Job) -> dict[str, Any]:
    return {"kind": "job", "id": job.id, "job": job.digest, "name": job.terms.name,
            **_said(found, job.digest), "terms": job.table()["terms"]}  # fmt: skip


def _statistics_table(found: BankHome) -> dict[str, Any]:
    asked = found.statistics
    return {"kind": "statistics", "id": asked.id, "job": asked.digest, "name": "statistics",
            **_said(found, asked.digest), "terms": asked.table()}  # fmt: skip


def _said(found: BankHome, digest: str) -> dict[str, Any]:
    return {"approved": found.approved(digest), "state": _word(found, digest),
            "reason": found.reason(digest)}  # fmt: skip
