"""How a federation stands: its server, its banks, its jobs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from fedsys.federation.banks import Bank, Banks
from fedsys.federation.enrolment.approvals import open_at, refused_at, statistics_request
from fedsys.federation.enrolment.standing import Standings
from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import DONE, FAILED, QUEUED, JobFolder, Status, all_jobs
from fedsys.federation.jobs.quarantine import quarantine, round_lines
from fedsys.federation.serving import holder
from fedsys.trust.identity import expiry_warning, read_authority, read_server
from fedsys.trust.invitations import Invitations

INVITED, EXPIRED, ENROLLED, APPROVED = "invited", "expired", "enrolled", "approved"


@dataclass(frozen=True)
class BankView:
    """A bank. state: one of the words above. connected: None where no server runs. seen: when it
    was heard last, seconds since 1970."""

    name: str
    state: str
    fingerprint: str | None = None
    connected: bool | None = None
    seen: int | None = None
    version: str | None = None


@dataclass(frozen=True)
class JobView:
    """A job. waits: banks that want to see it first. refused: banks that said no. job: its short
    form; asked: that of what they have to approve, which may be the request for statistics.
    quarantined: bank -> why its last update was refused, of those that are not asked any more.
    participation: bank -> (rounds that it had a part in, rounds that it was asked for)."""

    name: str
    status: str
    round: int
    rounds: int
    job: str
    error: str
    waits: tuple[str, ...]
    refused: tuple[str, ...] = ()
    asked: str = ""
    quarantined: dict[str, str] = field(default_factory=dict)
    participation: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Overview:
    """All of it. server: the process that serves, or None."""

    federation: str
    address: str
    server: int | None
    needed: int
    banks: tuple[BankView, ...]
    jobs: tuple[JobView, ...]
    warnings: tuple[str, ...]

    def table(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def overview(home: Home) -> Overview:
    """How the federation stands now."""
    server = holder(home.folder)
    authority = read_authority(home.folder / "authority").certificate
    identity = read_server(home.folder / "server", authority)
    warnings = [expiry_warning(one) for one in (identity.certificate, authority)]
    facts = home.facts
    return Overview(
        federation=facts.name,
        address=facts.address,
        server=server,
        needed=facts.banks,
        banks=tuple(bank_views(home, None if server is None else _nodes(home))),
        jobs=tuple(job_view(home, job) for job in all_jobs(home)),
        warnings=tuple(one for one in warnings if one),
    )


def bank_views(home: Home, nodes: dict[bytes, bool] | None = None) -> list[BankView]:
    """Every bank that enrolled or was invited. nodes: see `_nodes`."""
    standings = Standings(home.folder / "standing")
    views = []
    known = Banks(home.folder / "banks.json").all()
    for bank in known:
        said = standings.get(bank.name)
        views.append(
            BankView(
                bank.name,
                APPROVED if bank.approved else ENROLLED,
                bank.keys.spoken,
                None if nodes is None else nodes.get(bank.node_public, False),
                said.seen if said else None,
                said.version if said else None,
            )
        )
    names = {bank.name for bank in known}
    for invitation in Invitations(home.folder / "invitations.json").all():
        if invitation.bank not in names:
            state = EXPIRED if invitation.expires <= time.time() else INVITED
            views.append(BankView(invitation.bank, state))
    return views


def _nodes(home: Home) -> dict[bytes, bool] | None:
    """Node's public key -> whether it is connected; None where the server does not answer."""
    from fedsys.flower import compat_grid, compat_nodes
    from fedsys.flower.processes.access import Access

    try:
        with Access.of(home.server()).control() as control:
            return compat_grid.online(control)
    except Exception as error:  # it may be starting, or ending
        if not compat_nodes.is_away(error):
            raise
        return None


def job_view(home: Home, job: JobFolder) -> JobView:
    """How a job stands."""
    said, banks = job.status, Banks(home.folder / "banks.json").approved()
    asked, whom = _asked(home, said, banks)
    statistics = statistics_request(home).digest
    refused = {*refused_at(home, whom, asked), *refused_at(home, whom, statistics)}
    whom = [bank for bank in whom if bank.name not in refused]
    lines = round_lines(job.metrics)
    return JobView(
        job.name,
        said.status,
        said.round,
        said.rounds,
        said.job[:12],
        said.error,
        () if said.round else tuple(open_at(home, whom, asked)),
        tuple(sorted(refused)),
        asked[:12],
        quarantine(lines, said.forgiven).banks,
        _participation(lines),
    )


def _participation(lines: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """See `JobView.participation`. lines: of the job's rounds."""
    made = Counter(bank for line in lines for bank in line["banks"])
    missed = Counter(bank for line in lines for bank in line["missing"])
    return {bank: (made[bank], made[bank] + missed[bank]) for bank in sorted(made | missed)}


def _asked(home: Home, said: Status, banks: list[Bank]) -> tuple[str, list[Bank]]:
    """(SHA-256 of what banks were asked to approve, which banks) for a job to go on."""
    if said.status in (DONE, FAILED) or (said.status == QUEUED and not said.job):
        return said.job, []
    return said.job or statistics_request(home).digest, banks


def text(view: Overview, now: float | None = None) -> str:
    """For people."""
    moment = time.time() if now is None else now
    server = f"served by process {view.server}" if view.server is not None else "not served"
    remedy = "" if view.server is not None else ": fedsys federation serve"
    lines = [f"{view.federation}  {view.address}  {server}{remedy}"]
    lines += [f"⚠ {warning}" for warning in view.warnings]
    approved = sum(bank.state == APPROVED for bank in view.banks)
    lines.append(f"banks: {approved} approved, {view.needed} needed")
    rows = [(bank.name, bank.state, _connected(bank), _seen(bank, moment), bank.fingerprint or "",
             next_step(bank)) for bank in view.banks]  # fmt: skip
    lines += columns(rows)
    if view.jobs:
        lines.append("jobs:")
        lines += columns([
            (job.name, job.status, f"round {job.round}/{job.rounds}", job.job,
             about(job))
            for job in view.jobs
        ])  # fmt: skip
    return "\n".join(lines)


def _connected(bank: BankView) -> str:
    words = {True: "connected", False: "away", None: ""}
    return words[bank.connected] if bank.state == APPROVED else ""


def _seen(bank: BankView, now: float) -> str:
    if bank.seen is None:
        return ""
    ago = max(0.0, now - bank.seen)
    if ago < 120:
        return f"seen {ago:.0f} s ago"
    if ago < 7200:
        return f"seen {ago / 60:.0f} min ago"
    return f"seen {datetime.fromtimestamp(bank.seen, UTC):%Y-%m-%d %H:%M} UTC"


def next_step(bank: BankView) -> str:
    """What its coordinator does next about a bank."""
    remedies = {
        ENROLLED: f"→ fedsys federation approve {bank.name}",
        EXPIRED: f"→ fedsys federation invite {bank.name}",
    }
    return remedies.get(bank.state, "")


def about(job: JobView) -> str:
    """Why a job stands where it does."""
    said = [job.error] if job.error else []
    if job.refused and not job.error:
        said.append(f"refused by {', '.join(job.refused)}")
    if job.waits and not job.error:
        what = "job" if job.job else "statistics"
        said.append(f"waits for approval of {what} {job.asked} at {', '.join(job.waits)}")
    said += [f"quarantined: {bank} ({why})" for bank, why in job.quarantined.items()]
    said += [
        f"{bank} missed {asked - made} of {asked} rounds"
        for bank, (made, asked) in job.participation.items()
        if made < asked
    ]
    return "; ".join(said)


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of texts, one under the other."""
    if not rows:
        return []
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
