"""A job's rounds as they come, out of its files: whoever watches changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from fedsys.errors import UsageError
from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import (
    DONE,
    FAILED,
    PAUSED,
    RUNNING,
    JobFolder,
    Status,
    all_jobs,
    find_job,
)

LOOK_SECONDS = 0.3
OVER = (DONE, FAILED, PAUSED)


def meant(home: Home, name: str | None) -> JobFolder:
    """The job of that name; without one, the job that runs, or else the newest."""
    if name is not None:
        return find_job(home, name)
    jobs = all_jobs(home)
    if not jobs:
        raise UsageError("no job was asked for yet: fedsys federation run job.toml")
    running = [job for job in jobs if job.status.status == RUNNING]
    return (running or jobs)[-1]


def rounds(
    job: JobFolder, waits: Callable[[], str] = lambda: ""
) -> Iterator[dict[str, Any] | Status | str]:
    """The lines of a job's rounds, from the first, as they come; then its last status.

    A job that was interrupted does its last round again, which is then told again. waits: says for
    whom a job waits that has had no round, in a line, which comes whenever it is another.
    """
    told, said = 0, ""
    while True:
        status = job.status  # before the lines: what is written after it is no longer missed
        lines = _lines(job)
        told = min(told, len(lines))
        yield from lines[told:]
        told = len(lines)
        if status.status in OVER:
            yield status
            return
        line = waits() if status.status == RUNNING and not status.round else ""
        if line and line != said:
            yield line
        said = line
        time.sleep(LOOK_SECONDS)


def _lines(job: JobFolder) -> list[dict[str, Any]]:
    try:
        whole = job.metrics.read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    return [json.loads(line) for line in whole]


def round_text(line: dict[str, Any], total: int) -> str:
    """A round for people."""
    missing = ", ".join(f"{bank} ({reason})" for bank, reason in line.get("missing", {}).items())
    loss = line.get("train_loss")
    parts = [
        f"round {line['round']}/{total}",
        f"{line['admitted']} of {line['admitted'] + line['refused']} banks",
        f"loss {loss:.4f}" if isinstance(loss, float) and loss == loss else "no loss",
        f"{line['seconds']:.1f} s",
    ]
    if missing:
        parts.append(f"missing {missing}")
    kept_out = ", ".join(f"{bank} ({why})" for bank, why in line.get("quarantined", {}).items())
    if kept_out:
        parts.append(f"quarantined {kept_out}")
    if not line["moved"]:
        parts.append("quorum missed: nothing moved")
    return "  ".join(parts)
