"""What `fedsys doctor` looks at in a bank's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fedsys.clients.bank.connection import CLOCK, server_certificate
from fedsys.clients.bank.home import BankHome
from fedsys.clients.bank.standing import ask
from fedsys.errors import DataError, FedsysError
from fedsys.federation.serving import holder
from fedsys.health import Check, Subject
from fedsys.trust.jobs import version
from fedsys.trust.keyfiles import read_public


def examined(of: Subject, folder: Path) -> Iterator[Check]:
    """Keys, log, rows, server, jobs."""
    home = BankHome.open(folder)
    keys = folder / "keys"
    yield of.tried(f"keys in {keys} are whole, and for their owner alone", lambda: home.keys)
    yield of.secrets(folder / "secrets")
    yield of.secret(folder / "bank.json")
    yield of.log(home.audit.path)
    yield _rows(of, home)
    yield from _server(of, home)
    process = holder(folder)
    if process is None:
        yield of.warning("takes no part now", "fedsys bank join")
    else:
        yield of.good(f"takes part: process {process}")
    asked = home.statistics
    if not home.answered(asked.digest):
        said = f"statistics {asked.id} of its rows wait for somebody to see what is asked"
        yield of.warning(said, f"fedsys bank jobs; fedsys bank jobs approve {asked.id}")
    for job, _ in home.jobs():
        if not home.answered(job.digest):
            remedy = f"fedsys bank jobs approve {job.id}"
            yield of.warning(f"job {job.id} {job.terms.name!r} was not approved", remedy)


def _rows(of: Subject, home: BankHome) -> Check:
    if not home.facts.source:
        return of.warning("its rows were not named", "fedsys bank check --source ROWS")
    try:
        source = home.source()
        names = set(source.columns())
    except FedsysError as error:
        return of.failed(error)
    missing = [column.name for column in home.schema.every if column.name not in names]
    if missing:
        said = f"{source.name}: lacks {len(missing)} columns, the first is {missing[0]}"
        return of.bad(said, "fedsys bank check", DataError)
    return of.good(f"{source.name} opens, and has the schema's {len(home.schema.every)} columns")


def _server(of: Subject, home: BankHome) -> Iterator[Check]:
    server = home.facts.server
    try:
        certificate = server_certificate(server, read_public(home.folder / "authority.crt"))
        yield of.good(f"{server} answers, and is the federation's server")
        yield of.days("its certificate", certificate, "the coordinator: fedsys federation renew")
        heard = ask(home, with_head=False)
    except FedsysError as error:
        yield of.failed(error)
        return
    said = f"this clock and the coordinator's differ by {abs(heard.clock):.0f} s"
    wrong = abs(heard.clock) > CLOCK
    yield of.bad(said, "timedatectl set-ntp true") if wrong else of.good(said)
    if heard.version != version():
        said = f"fedsys {version()} here, {heard.version} at the coordinator"
        yield of.warning(said, "install the same on both: jobs need it")
    if heard.approved:
        yield of.good("the coordinator knows it, and has approved it")
    else:
        yield of.warning(
            f"waits for approval; its fingerprint: {home.keys.public.spoken}",
            f"the coordinator: fedsys federation approve {home.facts.name}",
        )
