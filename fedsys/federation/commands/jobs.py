"""Jobs on the coordinator's command line: `fedsys federation run`, `watch`, `stop` and
`resume`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedsys.federation.commands.options import HOME, JSON, NAME, PATH, home_of, note, say

if TYPE_CHECKING:
    from fedsys.federation.home import Home
    from fedsys.federation.jobs.proposal import Proposal


@click.command()
@click.argument("file", type=PATH, metavar="JOB.TOML")
@click.option("--dry-run", is_flag=True, help="Show what banks will be shown; send nothing.")
@NAME
@HOME
@JSON
def run(file: Path, dry_run: bool, name: str | None, home: Path | None, as_json: bool) -> int:
    """Asks for a job, which the server runs when its turn comes.

    JOB.TOML: name, model, strategy, local, rounds, quorum, deadline, grace; see the guide.
    """
    from fedsys.federation.jobs.folder import submit
    from fedsys.federation.jobs.proposal import foresee, hindrances
    from fedsys.federation.jobs.request import Request
    from fedsys.federation.serving import holder
    from fedsys.flower.app.loading import quiet_imports

    found = home_of(home, name)
    request = Request.read(file)
    if not dry_run and (problems := hindrances(found, request)):
        raise problems[0]  # before the seconds that a model takes
    with quiet_imports():
        proposal = foresee(found, request)
    for line in proposal.warnings:
        note(f"⚠ {line}")
    if dry_run:
        return _dry_run(found, proposal, as_json)
    if proposal.problems:
        raise proposal.problems[0]
    submit(found, request)
    served = holder(found.folder) is not None
    if not served:
        note("no server runs: fedsys federation serve runs the job")
    text = f"{request.name}: queued; fedsys federation watch shows its rounds"
    return say(text, {"name": request.name, "status": "queued", "served": served}, as_json)


def _dry_run(home: Home, proposal: Proposal, as_json: bool) -> int:
    """Shows all that can be said of a job, and gives the exit code of what stands against it."""
    from fedsys.federation.commands.status import bank_views, columns, next_step
    from fedsys.trust.description import describe

    job, settled, problems = proposal.job, proposal.settled, proposal.problems
    views = bank_views(home)
    rows = [(view.name, view.state, next_step(view)) for view in views]
    lines = columns(rows) or ["  none was invited  → fedsys federation invite BANK"]
    if not settled:
        note(
            "the job gets its final number once the banks' statistics are there, from which "
            "the preparation of the columns is made"
        )
    text = "\n".join([describe(job, settled), "", "Banks", *lines, "", "nothing was sent"])
    said = [{"code": one.code, "said": str(one)} for one in problems]
    terms = job.table()["terms"]
    if not settled:
        terms["preparation"] = None
    table = {"name": job.terms.name, "settled": settled, "job": job.digest if settled else None,
             "terms": terms, "parameters": job.layout.length,
             "banks": [{"bank": view.name, "state": view.state} for view in views],
             "warnings": list(proposal.warnings), "problems": said, "sent": False}  # fmt: skip
    say(text, table, as_json)
    for problem in problems:
        note(f"fedsys: {problem}")
    return problems[0].code if problems else 0


@click.command()
@click.argument("job", required=False)
@NAME
@HOME
@JSON
def watch(job: str | None, name: str | None, home: Path | None, as_json: bool) -> int:
    """Shows a job's rounds as they come [the one that runs]. Ctrl-C leaves it running."""
    from dataclasses import asdict

    from fedsys.errors import EngineError
    from fedsys.federation.commands.status import about, job_view
    from fedsys.federation.commands.watch import meant, round_text, rounds
    from fedsys.federation.jobs.folder import DONE, Status

    found = home_of(home, name)
    folder = meant(found, job)
    last = Status()
    try:
        for one in rounds(folder, lambda: about(job_view(found, folder))):
            if isinstance(one, Status):
                last = one
            elif isinstance(one, str):
                note(f"{folder.name}: {one}")
            elif as_json:
                click.echo(json.dumps(one))
            else:
                click.echo(round_text(one, folder.status.rounds))
    except KeyboardInterrupt:
        note(f"{folder.name}: goes on; fedsys federation watch {folder.name} shows it again")
        return 0
    text = f"{folder.name}: {last.status}" + (f": {last.error}" if last.error else "")
    say(text, {"name": folder.name, **asdict(last)}, as_json)
    return 0 if last.status == DONE else last.code or EngineError.code


@click.command()
@click.argument("job", required=False)
@NAME
@HOME
@JSON
def stop(job: str | None, name: str | None, home: Path | None, as_json: bool) -> int:
    """Stops a job, amid a round too; its rounds are kept for resume [the one that runs]."""
    from fedsys.federation.commands.watch import meant
    from fedsys.federation.jobs.folder import PAUSED, stop_job
    from fedsys.federation.serving import holder

    found = home_of(home, name)
    folder = meant(found, job)
    stop_job(folder, holder(found.folder) is not None)
    status = folder.status
    word = "stopped" if status.status == PAUSED else "stops"
    text = f"{folder.name}: {word} after round {status.round}; fedsys federation resume goes on"
    table = {"name": folder.name, "status": status.status, "round": status.round}
    return say(text, table, as_json)


@click.command()
@click.argument("job", required=False)
@NAME
@HOME
@JSON
def resume(job: str | None, name: str | None, home: Path | None, as_json: bool) -> int:
    """Goes on with a job that was paused or failed, from its last round [the newest such]."""
    from fedsys.errors import UsageError
    from fedsys.federation.jobs.folder import FAILED, PAUSED, all_jobs, find_job, resume_job

    found = home_of(home, name)
    stopped = [one for one in all_jobs(found) if one.status.status in (PAUSED, FAILED)]
    if job is None and not stopped:
        raise UsageError("no job is paused: fedsys federation status lists them")
    if not all_jobs(found):
        raise UsageError("no job was asked for yet: fedsys federation run job.toml")
    folder = find_job(found, job) if job is not None else stopped[-1]
    resume_job(folder)
    text = f"{folder.name}: queued, from round {folder.status.round + 1} on"
    table = {"name": folder.name, "status": "queued", "round": folder.status.round}
    return say(text, table, as_json)
