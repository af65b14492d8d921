"""The command `fedsys federation`: what a coordinator does.

What it does is imported when it is called, so that the command line's help stays quick.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedsys.deployment.options import Files, file_options

if TYPE_CHECKING:
    from fedsys.federation.home import Home

_PATH: Any = click.Path(path_type=Path)
_WHERE = "Folder of federations [$FEDSYS_HOME, else the user's data folder]."
_HOME = click.option("--home", type=_PATH, metavar="DIR", help=_WHERE)
_NAME = click.option("--federation", "name", metavar="NAME", help="Which one [the only one].")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def federation() -> None:
    """What a coordinator does: invite banks, serve, run jobs.

    A first federation: create, invite (each bank), serve; approve (each bank), run.
    """


def _home(home: Path | None, name: str | None) -> Home:
    from fedsys import places
    from fedsys.federation.door import OpenHome

    return OpenHome.open(places.find(places.FEDERATION, name, home))


def _say(text: str, table: Any, as_json: bool) -> int:
    click.echo(json.dumps(table) if as_json else text)
    return 0


def _note(line: str) -> None:
    click.echo(line, err=True)


# --- making and inviting -------------------------------------------------------------------------


@federation.command()
@click.argument("name")
@click.option("--host", required=True, help="Name or address under which banks reach this machine.")
@click.option("--schema", type=_PATH, required=True, metavar="FILE",
              help="The columns that banks agreed on, in TOML.")  # fmt: skip
@click.option("--min-banks", "banks", type=click.IntRange(1), default=2, metavar="N",
              help="Banks without which nothing is done [2].")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), default=8443, metavar="N",
              help="Port that banks reach [8443].")  # fmt: skip
@click.option("--listen", metavar="ADDRESS", default="127.0.0.1",
              help="Address of this machine to listen on; 0.0.0.0 is all [127.0.0.1].")  # fmt: skip
@_HOME
@_JSON
def create(
    name: str, host: str, schema: Path, banks: int, port: int, listen: str, home: Path | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Makes a federation, with keys and certificates of its own."""
    from fedsys import places
    from fedsys.federation.home import Facts, Home
    from fedsys.tables import read_schema
    from fedsys.trust import fingerprints
    from fedsys.trust.identity import certificate_fingerprint, read_authority
    from fedsys.trust.names import check_host, check_name

    folder = places.new(places.FEDERATION, check_name(name, "federation"), home)
    facts = Facts(name, check_host(host), port, check_listen(listen), banks)
    made = Home.create(folder, facts, read_schema(schema))
    authority = read_authority(folder / "authority").certificate
    spoken = fingerprints.spoken(certificate_fingerprint(authority))
    if is_local(listen) and not is_local(facts.host):
        _note(
            f"listens on {listen}, so only this machine can connect: --listen 0.0.0.0 is for "
            "banks elsewhere, unless something in between passes connections on"
        )
    table = {"federation": name, "address": facts.address, "authority": spoken,
             "folder": str(folder), "schema": made.schema.hash, "needed": banks}  # fmt: skip
    text = (
        f"{name}: made in {folder}\n"
        f"banks will reach it at {facts.address}; its authority reads {spoken}\n"
        "next: fedsys federation invite BANK"
    )
    return _say(text, table, as_json)


def check_listen(text: str) -> str:
    """An address of this machine, or UsageError."""
    import ipaddress

    from fedsys.errors import UsageError

    if text == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise UsageError(
            f"--listen {text}: give an IP address of this machine, such as 0.0.0.0"
        ) from None


def is_local(host: str) -> bool:
    """Whether only this machine itself is reached there."""
    return host in ("localhost", "::1") or host.startswith("127.")


@federation.command()
@click.argument("bank")
@click.option("--days", type=float, default=7.0, metavar="N", help="Days it is good for [7].")
@_NAME
@_HOME
@_JSON
def invite(bank: str, days: float, name: str | None, home: Path | None, as_json: bool) -> int:
    """Prints a token, with which BANK enrols once."""
    import time

    from fedsys.federation.banks import Banks
    from fedsys.trust.events import Event
    from fedsys.trust.identity import certificate_fingerprint, read_authority
    from fedsys.trust.invitations import Invitations
    from fedsys.trust.tokens import invite as make

    found = _home(home, name)
    authority = read_authority(found.folder / "authority").certificate
    token, invitation = make(
        found.facts.name,
        bank,
        [found.facts.address],
        certificate_fingerprint(authority),
        days=days,
    )
    Invitations(found.folder / "invitations.json").add(invitation)
    found.audit.record(Event.INVITED, bank=bank, expires=invitation.expires)
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(invitation.expires))
    if any(one.name == bank for one in Banks(found.folder / "banks.json").all()):
        _note(f"{bank} has enrolled before: with this token it may bring new keys, which are then "
              "to be approved anew")  # fmt: skip
    table = {"bank": bank, "token": token.text(), "expires": invitation.expires}
    _note(f"send this to {bank} over a channel that you trust; it is good once, until {when}")
    return _say(token.text(), table, as_json)


@federation.command()
@click.argument("banks", nargs=-1, required=True, metavar="BANK...")
@click.option("--fingerprint", metavar="TEXT",
              help="What the bank read to you; refuses another.")  # fmt: skip
@click.option("--yes", is_flag=True, help="The fingerprints were compared; do not ask.")
@click.option("--no", "withdraw", is_flag=True, help="Keep the banks out from now on.")
@_NAME
@_HOME
@_JSON
def approve(
    banks: tuple[str, ...], fingerprint: str | None, yes: bool, withdraw: bool,
    name: str | None, home: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Lets banks take part whose fingerprints were compared."""
    from fedsys.errors import IdentityError, UsageError
    from fedsys.federation.banks import Banks
    from fedsys.trust.events import Event
    from fedsys.trust.fingerprints import heard

    found = _home(home, name)
    known = Banks(found.folder / "banks.json")
    views = [known.get(one) for one in banks]  # all are there before anything is changed
    if fingerprint is not None and len(views) > 1:
        raise UsageError("--fingerprint is of one bank: approve them one by one")
    for view in [] if withdraw else views:
        if view.approved:
            continue
        spoken = view.keys.spoken
        if not yes and fingerprint is None:
            _note(f"{view.name} has to read this to you: {spoken}")
            typed = _typed(view.name)
        else:
            typed = fingerprint if fingerprint is not None else spoken
        if not heard(typed, view.keys.fingerprint):
            raise IdentityError(
                f"{view.name}: its fingerprint is {spoken}, not what was read: somebody else may "
                f"have enrolled in its name: fedsys federation invite {view.name}"
            )
    for view in views:
        if view.approved == (not withdraw):
            continue
        known.approve(view.name, not withdraw)
        if withdraw:
            found.audit.record(Event.REVOKED, bank=view.name)
        else:
            found.audit.record(Event.APPROVED, bank=view.name, fingerprint=view.keys.spoken)
    state = "kept out" if withdraw else "approved"
    table = [{"bank": one.name, "state": state, "fingerprint": one.keys.spoken} for one in views]
    text = "\n".join(f"{one.name}  {one.keys.spoken}  {state}" for one in views)
    return _say(text, table, as_json)


def _typed(bank: str) -> str:
    from fedsys.errors import UsageError

    try:
        typed: str = click.prompt("  type what it reads, or 'no'", err=True)
    except click.Abort:
        _note("")  # ends the line of the question
        raise UsageError(
            f"{bank}: compare its fingerprint first: --fingerprint TEXT, or --yes if it was done"
        ) from None
    return typed


@federation.command()
@_NAME
@_HOME
@_JSON
def renew(name: str | None, home: Path | None, as_json: bool) -> int:
    """Makes the server's next key and certificate; takes effect when it is served anew."""
    from fedsys.federation.serving import holder
    from fedsys.trust.events import Event
    from fedsys.trust.identity import certificate_fingerprint, issue_server, read_authority

    found = _home(home, name)
    authority = read_authority(found.folder / "authority")
    made = issue_server(found.folder / "server", authority, [found.facts.host]).certificate
    expires = int(made.not_valid_after_utc.timestamp())
    print_ = certificate_fingerprint(made).hex()
    found.audit.record(Event.CERTIFICATE, sha256=print_, expires=expires)
    day = made.not_valid_after_utc.date().isoformat()
    if holder(found.folder) is not None:
        _note("the server that runs uses the old one: end it and serve again")
    return _say(f"a new certificate, good until {day}", {"expires": expires}, as_json)


# --- running -------------------------------------------------------------------------------------


@federation.command()
@file_options
@_NAME
@_HOME
@_JSON
def serve(files: Files | None, name: str | None, home: Path | None, as_json: bool) -> int:
    """Runs the server, and the jobs that are asked for, until Ctrl-C."""
    from fedsys.federation.serving import alone, until_ended, warm
    from fedsys.trust.identity import expiry_warning, read_authority, read_server

    found = _home(home, name)
    if files is not None:
        from fedsys.deployment.services import coordinator_service

        return files.write(coordinator_service(found.folder), as_json)
    authority = read_authority(found.folder / "authority").certificate
    warning = expiry_warning(read_server(found.folder / "server", authority).certificate)
    if warning:
        _note(f"⚠ {warning}")

    def tell(line: str) -> None:
        click.echo(json.dumps({"said": line}) if as_json else line)

    with alone(found.folder, f"the server of {found.facts.name}"):
        from fedsys.federation.noticing import Noticing
        from fedsys.federation.server import serve as run

        def served() -> None:
            with Noticing(found, tell):
                run(found, tell, warm)

        return until_ended(served)


@federation.command()
@_NAME
@_HOME
@_JSON
def status(name: str | None, home: Path | None, as_json: bool) -> int:
    """Says how the server, the banks and the jobs stand."""
    from fedsys.federation.overview import overview, text

    view = overview(_home(home, name))
    return _say(text(view), view.table(), as_json)


@federation.command()
@click.argument("file", type=_PATH, metavar="JOB.TOML")
@click.option("--dry-run", is_flag=True, help="Show what banks will be shown; send nothing.")
@_NAME
@_HOME
@_JSON
def run(file: Path, dry_run: bool, name: str | None, home: Path | None, as_json: bool) -> int:
    """Asks for a job, which the server runs when its turn comes.

    JOB.TOML has an experiment's keys: name, model, strategy, local, rounds, quorum, deadline.
    """
    from fedsys.federation.jobs import submit
    from fedsys.federation.proposal import foresee
    from fedsys.federation.request import Request
    from fedsys.federation.serving import holder
    from fedsys.flower.loading import quiet_imports
    from fedsys.trust.description import describe

    found = _home(home, name)
    request = Request.read(file)
    with quiet_imports():
        proposal = foresee(found, request)
    for line in proposal.warnings:
        _note(f"⚠ {line}")
    job = proposal.job
    if dry_run:
        if not proposal.settled:
            _note(
                "the job gets its final number once the banks' statistics are there, from which "
                "the preparation of the columns is made"
            )
        table = {"name": request.name, "settled": proposal.settled, "job": job.digest,
                 "terms": job.table()["terms"], "parameters": job.layout.length,
                 "warnings": list(proposal.warnings), "sent": False}  # fmt: skip
        return _say(f"{describe(job)}\n\nnothing was sent", table, as_json)
    submit(found, request)
    served = holder(found.folder) is not None
    if not served:
        _note("no server runs: fedsys federation serve runs the job")
    text = f"{request.name}: queued; fedsys federation watch shows its rounds"
    return _say(text, {"name": request.name, "status": "queued", "served": served}, as_json)


@federation.command()
@click.argument("job", required=False)
@_NAME
@_HOME
@_JSON
def watch(job: str | None, name: str | None, home: Path | None, as_json: bool) -> int:
    """Shows a job's rounds as they come [the one that runs]. Ctrl-C leaves it running."""
    from dataclasses import asdict

    from fedsys.errors import EngineError
    from fedsys.federation.jobs import DONE, Status
    from fedsys.federation.watching import meant, round_text, rounds

    folder = meant(_home(home, name), job)
    last = Status()
    try:
        for one in rounds(folder):
            if isinstance(one, Status):
                last = one
            elif as_json:
                click.echo(json.dumps(one))
            else:
                click.echo(round_text(one, folder.status.rounds))
    except KeyboardInterrupt:
        _note(f"{folder.name}: goes on; fedsys federation watch {folder.name} shows it again")
        return 0
    text = f"{folder.name}: {last.status}" + (f": {last.error}" if last.error else "")
    _say(text, {"name": folder.name, **asdict(last)}, as_json)
    return 0 if last.status == DONE else last.code or EngineError.code


@federation.command()
@click.argument("job", required=False)
@_NAME
@_HOME
@_JSON
def resume(job: str | None, name: str | None, home: Path | None, as_json: bool) -> int:
    """Goes on with a job that was paused or failed, from its last round [the newest such]."""
    from fedsys.errors import UsageError
    from fedsys.federation.jobs import FAILED, PAUSED, all_jobs, find_job, resume_job

    found = _home(home, name)
    stopped = [one for one in all_jobs(found) if one.status.status in (PAUSED, FAILED)]
    if job is None and not stopped:
        raise UsageError("no job is paused: fedsys federation status lists them")
    if not all_jobs(found):
        raise UsageError("no job was asked for yet: fedsys federation run job.toml")
    folder = find_job(found, job) if job is not None else stopped[-1]
    resume_job(folder)
    text = f"{folder.name}: queued, from round {folder.status.round + 1} on"
    table = {"name": folder.name, "status": "queued", "round": folder.status.round}
    return _say(text, table, as_json)


@federation.command()
@click.option("--verify", "check", is_flag=True, help="Whether the log is whole.")
@click.option("--with", "others", type=_PATH, multiple=True, metavar="BANK.JSONL",
              help="A bank's log, to hold both against each other. Repeatable.")  # fmt: skip
@_NAME
@_HOME
@_JSON
def audit(
    check: bool, others: tuple[Path, ...], name: str | None, home: Path | None, as_json: bool
) -> int:
    """Prints the log of who joined, what ran and what was refused, or verifies it."""
    from fedsys.federation.auditing import shown, verified
    from fedsys.federation.enrolment import COORDINATOR

    found = _home(home, name)
    if not check and not others:
        shown(found.audit.path, as_json)
        return 0
    return verified(found.audit.path, COORDINATOR, others, as_json)
