"""The command `fedsys federation`: what a coordinator does.

What it does is imported when it is called, so that the command line's help stays quick.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from fedsys.deployment.options import Files, file_options
from fedsys.federation.commands.jobs import resume, run, stop, watch
from fedsys.federation.commands.model import model
from fedsys.federation.commands.options import (
    HOME,
    JSON,
    NAME,
    PATH,
    Commands,
    home_of,
    note,
    say,
)


@click.group(cls=Commands)
def federation() -> None:
    """What a coordinator does: invite banks, serve, run jobs.

    A first federation: create, invite (each bank), serve; approve (each bank), run.
    """


# --- making and inviting -------------------------------------------------------------------------


@federation.command()
@click.argument("name")
@click.option("--host", required=True, help="Name or address under which banks reach this machine.")
@click.option("--schema", type=PATH, required=True, metavar="FILE",
              help="The columns that banks agreed on, in TOML.")  # fmt: skip
@click.option("--min-banks", "banks", type=click.IntRange(1), default=2, metavar="N",
              help="Banks without which nothing is done [2].")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), default=8443, metavar="N",
              help="Port that banks reach [8443].")  # fmt: skip
@click.option("--listen", metavar="ADDRESS", default="127.0.0.1",
              help="Address of this machine to listen on; 0.0.0.0 is all [127.0.0.1].")  # fmt: skip
@HOME
@JSON
def create(
    name: str, host: str, schema: Path, banks: int, port: int, listen: str, home: Path | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Makes a federation, with keys and certificates of its own."""
    from fedsys import places
    from fedsys.errors import UsageError
    from fedsys.federation.home import Facts, Home
    from fedsys.tables import read_schema
    from fedsys.trust import fingerprints
    from fedsys.trust.identity import certificate_fingerprint, read_authority
    from fedsys.trust.names import check_host, check_name

    folder = places.new(places.FEDERATION, check_name(name, "federation"), home)
    if not schema.exists():
        raise UsageError(
            f"--schema {schema}: there is no such file: write into it the columns that banks "
            "agreed on; docs/coordinator.md has an example"
        )
    facts = Facts(name, check_host(host), port, check_listen(listen), banks)
    made = Home.create(folder, facts, read_schema(schema))
    authority = read_authority(folder / "authority").certificate
    spoken = fingerprints.spoken(certificate_fingerprint(authority))
    if is_local(listen) and not is_local(facts.host):
        note(
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
    return say(text, table, as_json)


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
@NAME
@HOME
@JSON
def invite(bank: str, days: float, name: str | None, home: Path | None, as_json: bool) -> int:
    """Prints a token, with which BANK enrols once."""
    import time

    from fedsys.federation.banks import Banks
    from fedsys.trust.events import Event
    from fedsys.trust.identity import certificate_fingerprint, read_authority
    from fedsys.trust.invitations import Invitations
    from fedsys.trust.tokens import invite as make

    found = home_of(home, name)
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
        note(f"{bank} has enrolled before: with this token it may bring new keys, which are then "
              "to be approved anew")  # fmt: skip
    table = {"bank": bank, "token": token.text(), "expires": invitation.expires}
    note(f"send this to {bank} over a channel that you trust; it is good once, until {when}")
    return say(token.text(), table, as_json)


@federation.command()
@click.argument("banks", nargs=-1, required=True, metavar="BANK...")
@click.option("--fingerprint", metavar="TEXT",
              help="What the bank read to you; refuses another.")  # fmt: skip
@click.option("--yes", is_flag=True, help="The fingerprints were compared; do not ask.")
@click.option("--no", "withdraw", is_flag=True, help="Keep the banks out from now on.")
@NAME
@HOME
@JSON
def approve(
    banks: tuple[str, ...], fingerprint: str | None, yes: bool, withdraw: bool,
    name: str | None, home: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Lets banks take part whose fingerprints were compared."""
    from fedsys.errors import IdentityError, UsageError
    from fedsys.federation.banks import Banks
    from fedsys.trust.events import Event
    from fedsys.trust.fingerprints import heard

    found = home_of(home, name)
    known = Banks(found.folder / "banks.json")
    views = [known.get(one) for one in banks]  # all are there before anything is changed
    if fingerprint is not None and len(views) > 1:
        raise UsageError("--fingerprint is of one bank: approve them one by one")
    for view in [] if withdraw else views:
        if view.approved:
            continue
        spoken = view.keys.spoken
        if not yes and fingerprint is None:
            note(f"{view.name} has to read this to you: {spoken}")
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
    return say(text, table, as_json)


def _typed(bank: str) -> str:
    from fedsys.errors import UsageError

    try:
        typed: str = click.prompt("  type what it reads, or 'no'", err=True)
    except click.Abort:
        note("")  # ends the line of the question
        raise UsageError(
            f"{bank}: compare its fingerprint first: --fingerprint TEXT, or --yes if it was done"
        ) from None
    return typed


@federation.command()
@NAME
@HOME
@JSON
def renew(name: str | None, home: Path | None, as_json: bool) -> int:
    """Makes the server's next key and certificate; takes effect when it is served anew."""
    from fedsys.federation.serving import holder
    from fedsys.trust.events import Event
    from fedsys.trust.identity import certificate_fingerprint, issue_server, read_authority

    found = home_of(home, name)
    authority = read_authority(found.folder / "authority")
    made = issue_server(found.folder / "server", authority, [found.facts.host]).certificate
    expires = int(made.not_valid_after_utc.timestamp())
    print_ = certificate_fingerprint(made).hex()
    found.audit.record(Event.CERTIFICATE, sha256=print_, expires=expires)
    day = made.not_valid_after_utc.date().isoformat()
    if holder(found.folder) is not None:
        note("the server that runs uses the old one: end it and serve again")
    return say(f"a new certificate, good until {day}", {"expires": expires}, as_json)


# --- running -------------------------------------------------------------------------------------


@federation.command()
@file_options
@NAME
@HOME
@JSON
def serve(files: Files | None, name: str | None, home: Path | None, as_json: bool) -> int:
    """Runs the server, and the jobs that are asked for, until Ctrl-C."""
    from fedsys.federation.serving import alone, until_ended, warm
    from fedsys.trust.identity import expiry_warning, read_authority, read_server

    found = home_of(home, name)
    if files is not None:
        from fedsys.deployment.services import coordinator_service

        return files.write(coordinator_service(found.folder), as_json)
    authority = read_authority(found.folder / "authority").certificate
    warning = expiry_warning(read_server(found.folder / "server", authority).certificate)
    if warning:
        note(f"⚠ {warning}")

    def tell(line: str) -> None:
        click.echo(json.dumps({"said": line}) if as_json else line)

    with alone(found.folder, f"the server of {found.facts.name}"):
        from fedsys.federation.enrolment.noticing import Noticing
        from fedsys.federation.server import serve as run

        def served() -> None:
            with Noticing(found, tell):
                run(found, tell, warm)

        return until_ended(served)


@federation.command()
@NAME
@HOME
@JSON
def status(name: str | None, home: Path | None, as_json: bool) -> int:
    """Says how the server, the banks and the jobs stand."""
    from fedsys.federation.commands.status import overview, text

    view = overview(home_of(home, name))
    return say(text(view), view.table(), as_json)


@federation.command()
@click.option("--verify", "check", is_flag=True, help="Whether the log is whole.")
@click.option("--with", "others", type=PATH, multiple=True, metavar="BANK.JSONL",
              help="A bank's log, to hold both against each other. Repeatable.")  # fmt: skip
@NAME
@HOME
@JSON
def audit(
    check: bool, others: tuple[Path, ...], name: str | None, home: Path | None, as_json: bool
) -> int:
    """Prints the log of who joined, what ran and what was refused, or verifies it."""
    from fedsys.federation.commands.audit import shown, verified
    from fedsys.federation.enrolment.desk import COORDINATOR

    found = home_of(home, name)
    if not check and not others:
        return shown(found.audit.path, as_json)
    return verified(found.audit.path, COORDINATOR, others, as_json)


for each in (run, watch, stop, resume, model):
    federation.add_command(each)
