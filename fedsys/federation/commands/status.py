"""How a federation stands: its server, its banks, its jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from fedsys.federation.banks import Banks
from fedsys.federation.enrolment.approvals import open_at
from fedsys.federation.enrolment.standing import Standings
from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import DONE, FAILED, all_jobs
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
    """A job. waits: banks that want to see it first. job: its short form."""

    name: str
    status: str
    round: int
    rounds: int
    job: str
    error: str
    waits: tuple[str, ...]


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
        banks=tuple(_banks(home, None if server is None else _nodes(home))),
        jobs=tuple(_jobs(home)),
        warnings=tuple(one for one in warnings if one),
    )


def _banks(home: Home, nodes: dict[bytes, bool] | None) -> list[BankView]:
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
    from fedsys.flower.processes.runtime import Access

    try:
        with Access.of(home.server()).control() as control:
            return compat_grid.online(control)
    except Exception as error:  # it may be starting, or ending
        if not compat_nodes.is_away(error):
            raise
        return None


def _jobs(home: Home) -> list[JobView]:
    banks = Banks(home.folder / "banks.json").approved()
    views = []
    for job in all_jobs(home):
        said = job.status
        over = said.status in (DONE, FAILED)
        waits = () if over or not said.job or said.round else open_at(home, banks, said.job)
        views.append(
            JobView(
                job.name,
                said.status,
                said.round,
                said.rounds,
                said.job[:12],
                said.error,
                tuple(waits),
            )
        )
    return views


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
             _next(bank)) for bank in view.banks]  # fmt: skip
    lines += _columns(rows)
    if view.jobs:
        lines.append("jobs:")
        lines += _columns([
            (job.name, job.status, f"round {job.round}/{job.rounds}", job.job,
             job.error or (f"waits for approval at {', '.join(job.waits)}" if job.waits else ""))
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


def _next(bank: BankView) -> str:
    remedies = {
        ENROLLED: f"→ fedsys federation approve {bank.name}",
        EXPIRED: f"→ fedsys federation invite {bank.name}",
    }
    return remedies.get(bank.state, "")


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of texts, one under the other."""
    if not rows:
        return []
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
