"""The commands `fedsys demo` and `fedsys federation`.

What they do is imported when they are called, so that the command line's help stays quick.
"""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fedsys.federation.demo import Outcome

_PATH: Any = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
_QUIET = click.option("--quiet", is_flag=True, help="No progress.")
_FOLDER = click.option("--folder", type=_PATH, default=Path("federation"), metavar="DIR",
                       help="The federation's folder [federation].")  # fmt: skip
PLACES = (Path("data/credit-default"), Path("credit-default"))
"""Where the data of the demonstration is looked for, from the working directory."""


@click.group()
def demo() -> None:
    """Shows a whole federation on this machine, with real processes."""


@demo.command()
@click.option("--banks", type=click.IntRange(2, 26), default=3, metavar="N", help="Banks [3].")
@click.option(
    "--data",
    metavar="PATH",
    help="UCI_Credit_Card.csv or its folder [data/credit-default, else made-up customers].",
)
@click.option("--rounds", type=click.IntRange(1), default=20, metavar="N", help="Rounds [20].")
@click.option("--keep", type=_PATH, metavar="DIR",
              help="Keep all folders there, which the demonstration else deletes.")  # fmt: skip
@_JSON
@_QUIET
def fraud(
    banks: int, data: str | None, rounds: int, keep: Path | None, as_json: bool, quiet: bool
) -> int:
    """Banks with customers of different kinds learn together who will not pay.

    Server and banks are real processes on loopback, with TLS and node keys. At the end: what each
    bank comes to alone, all together, and what one would with all rows in one place.
    """
    from fedsys.federation.demo import run_demo

    found = data or next((str(place) for place in PLACES if place.exists()), None)
    with _folder(keep) as folder:
        outcome = run_demo(Path(folder), banks, found, rounds, _progress(quiet))
    click.echo(json.dumps(outcome.table()) if as_json else outcome_text(outcome))
    return 0


def _folder(keep: Path | None) -> AbstractContextManager[Any]:
    return nullcontext(keep) if keep else tempfile.TemporaryDirectory(prefix="fedsys-demo-")


def _progress(quiet: bool) -> Any:
    begun = time.monotonic()

    def tell(line: str) -> None:
        if not quiet:
            click.echo(f"{time.monotonic() - begun:6.1f} s  {line}", err=True)

    return tell


def outcome_text(outcome: Outcome) -> str:
    """The demonstration's result as a table for people."""
    rows = [(f"{name} alone", outcome.rows[name], auc) for name, auc in outcome.alone.items()]
    every = sum(outcome.rows.values())
    rows += [("federated", every, outcome.federated), ("pooled", every, outcome.pooled)]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'':{width}}  customers    AUC"]
    lines += [f"{name:{width}}  {count:9,}  {auc:.4f}" for name, count, auc in rows]
    return "\n".join(
        [*lines, f"{outcome.source}; {outcome.rounds} rounds, {outcome.seconds:.0f} s"]
    )


@click.group()
def federation() -> None:
    """What a coordinator does."""


@federation.command()
@click.argument("name")
@click.option("--host", required=True, help="Name or address under which banks reach this machine.")
@click.option("--schema", type=_PATH, required=True, help="The columns, in TOML.")
@click.option("--port", type=click.IntRange(1, 65535), default=8443, help="Port [8443].")
@click.option("--listen", default="127.0.0.1", metavar="ADDRESS",
              help="Address of this machine that the server listens on [127.0.0.1].")  # fmt: skip
@click.option("--min-banks", "banks", type=click.IntRange(1), default=2, metavar="N",
              help="Banks without which nothing is done [2].")  # fmt: skip
@_FOLDER
@_JSON
def create(
    name: str, host: str, schema: Path, port: int, listen: str, banks: int, folder: Path,
    as_json: bool,
) -> int:  # fmt: skip
    """Makes a federation, with keys and certificates of its own."""
    from fedsys.federation.home import Facts, Home
    from fedsys.tables import read_schema
    from fedsys.trust import fingerprints
    from fedsys.trust.identity import certificate_fingerprint, read_authority

    home = Home.create(folder, Facts(name, host, port, listen, banks), read_schema(schema))
    authority = read_authority(folder / "authority").certificate
    spoken = fingerprints.spoken(certificate_fingerprint(authority))
    table = {"federation": name, "address": home.facts.address, "authority": spoken,
             "folder": str(folder), "schema": home.schema.hash}  # fmt: skip
    text = f"{name}: made in {folder}; its authority reads {spoken}"
    click.echo(json.dumps(table) if as_json else text)
    return 0


@federation.command()
@_FOLDER
def serve(folder: Path) -> int:
    """Runs the server and the jobs that are asked for, until Ctrl-C."""
    from fedsys.federation.home import Home
    from fedsys.federation.server import serve as run

    run(Home.open(folder), lambda line: click.echo(line))
    return 0


@federation.command()
@click.argument("file", type=_PATH)
@_FOLDER
@_JSON
def run(file: Path, folder: Path, as_json: bool) -> int:
    """Asks for the job in FILE, which the server runs when its turn comes."""
    from fedsys.federation.home import Home
    from fedsys.federation.jobs import submit
    from fedsys.federation.request import Request

    job = submit(Home.open(folder), Request.read(file))
    text = f"{job.name}: queued; fedsys federation status says how far it is"
    click.echo(json.dumps({"job": job.name, "status": "queued"}) if as_json else text)
    return 0


@federation.command()
@click.argument("job")
@_FOLDER
def resume(job: str, folder: Path) -> int:
    """Goes on with a job that was paused or failed, from its last round."""
    from fedsys.federation.home import Home
    from fedsys.federation.jobs import find_job, resume_job

    resume_job(find_job(Home.open(folder), job))
    click.echo(f"{job}: queued")
    return 0


@federation.command()
@_FOLDER
@_JSON
def status(folder: Path, as_json: bool) -> int:
    """Says which banks there are, and how far each job is."""
    from dataclasses import asdict

    from fedsys.federation.banks import Banks
    from fedsys.federation.home import Home
    from fedsys.federation.jobs import all_jobs

    home = Home.open(folder)
    banks = Banks(folder / "banks.json").all()
    jobs = {job.name: job.status for job in all_jobs(home)}
    if as_json:
        table = {
            "banks": [{"name": b.name, "approved": b.approved, "fingerprint": b.keys.spoken}
                      for b in banks],
            "jobs": {name: asdict(one) for name, one in jobs.items()},
        }  # fmt: skip
        click.echo(json.dumps(table))
        return 0
    for bank in banks:
        state = "approved" if bank.approved else "waits for: fedsys federation approve"
        click.echo(f"{bank.name}  {bank.keys.spoken}  {state}")
    for name, one in jobs.items():
        click.echo(f"{name}  {one.status}  round {one.round}/{one.rounds}  {one.error}".rstrip())
    return 0


@federation.command()
@click.argument("bank")
@click.option("--no", "withdraw", is_flag=True, help="Keep the bank out from now on.")
@_FOLDER
def approve(bank: str, withdraw: bool, folder: Path) -> int:
    """Lets a bank take part, whose fingerprint was compared."""
    from fedsys.federation.banks import Banks
    from fedsys.federation.home import Home
    from fedsys.trust.events import Event

    home = Home.open(folder)
    known = Banks(folder / "banks.json").approve(bank, not withdraw)
    if withdraw:
        home.audit.record(Event.REVOKED, bank=bank)
    else:
        home.audit.record(Event.APPROVED, bank=bank, fingerprint=known.keys.spoken)
    click.echo(f"{bank}  {known.keys.spoken}  {'kept out' if withdraw else 'approved'}")
    return 0
