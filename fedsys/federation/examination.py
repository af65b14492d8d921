"""What `fedsys doctor` looks at in a federation's folder, at its coordinator."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from fedsys.errors import NetworkError
from fedsys.federation.commands.federation import is_local
from fedsys.federation.commands.status import APPROVED, ENROLLED, BankView, JobView, overview
from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import FAILED, PAUSED
from fedsys.federation.serving import holder
from fedsys.flower.processes.superlink import answers
from fedsys.health import Check, Subject
from fedsys.trust.identity import read_authority, read_server


def examined(of: Subject, folder: Path) -> Iterator[Check]:
    """Keys, certificates, log, server, banks, jobs."""
    home = Home.open(folder)
    keys = folder / "keys"
    yield of.tried(f"keys in {keys} are whole, and for their owner alone", lambda: home.keys)
    yield of.secrets(folder / "secrets")
    authority = read_authority(folder / "authority").certificate
    identity = read_server(folder / "server", authority)
    yield of.days("the server's certificate", identity.certificate, "fedsys federation renew")
    if home.facts.host not in identity.hosts:
        yield of.bad(f"the certificate is not for {home.facts.host}", "fedsys federation renew")
    yield of.log(home.audit.path)
    yield from _server(of, home)
    view = overview(home)
    for bank in view.banks:
        yield from _bank(of, bank)
    approved = sum(bank.state == APPROVED for bank in view.banks)
    said = f"{approved} banks approved, {view.needed} needed"
    enough = approved >= view.needed
    yield of.good(said) if enough else of.warning(said, "fedsys federation invite BANK")
    for job in view.jobs:
        yield from _job(of, job)


def _server(of: Subject, home: Home) -> Iterator[Check]:
    facts, process = home.facts, holder(home.folder)
    place = f"{facts.listen}:{facts.port}"
    if is_local(facts.listen) and not is_local(facts.host):
        yield of.warning(
            f"listens on {facts.listen} alone, and banks reach {facts.host}",
            "pass connections on, or create it with --listen 0.0.0.0",
        )
    if process is None:
        if reason := _taken(facts.listen, facts.port):
            yield of.bad(f"{place}: {reason}", "end what uses it", NetworkError)
        yield of.warning("is not served", "fedsys federation serve")
    elif answers(home.server()):
        yield of.good(f"served at {place} by process {process}")
    else:
        log = home.folder / "flower" / "superlink.log"
        yield of.bad(
            f"process {process} serves, and {place} does not answer", f"see {log}", NetworkError
        )


def _taken(listen: str, port: int) -> str | None:
    """Why nobody can listen there, or None."""
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    try:
        with socket.socket(family) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            line.bind((listen, port))
    except OSError as error:
        return error.strerror or str(error)
    return None


def _bank(of: Subject, bank: BankView) -> Iterator[Check]:
    if bank.state == ENROLLED:
        remedy = f"fedsys federation approve {bank.name}"
        yield of.warning(f"{bank.name} has enrolled and waits", remedy)
    elif bank.state == APPROVED and bank.connected is False:
        yield of.warning(f"{bank.name} is away", "there: fedsys doctor")
    elif bank.state == APPROVED and bank.connected:
        yield of.good(f"{bank.name} is connected")


def _job(of: Subject, job: JobView) -> Iterator[Check]:
    if job.status in (PAUSED, FAILED):
        remedy = f"fedsys federation resume {job.name}"
        yield of.warning(f"job {job.name} is {job.status}: {job.error}", remedy)
    elif job.waits:
        remedy = f"there: fedsys bank jobs approve {job.asked}"
        yield of.warning(f"job {job.name} waits for {', '.join(job.waits)}", remedy)
