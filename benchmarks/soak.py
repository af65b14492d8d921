"""Many agents on one machine, of which some are killed and started again at random.

    python -m benchmarks.soak                               # 20 agents, 50 rounds
    python -m benchmarks.soak --agents 4 --rounds 8

Two agents at a time are killed (kill -9, with all below them), after a random pause amid a round
that came after the last kill, and started again at once. At the end: whether every round had its
quorum and came to the weights of a run in which nobody was killed, whether a process is left
behind, and how much memory the coordinator took early and late.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import megabytes, table
from fedsys.federation.jobs.folder import TO_RUN, JobFolder
from fedsys.randomness import Purpose, generator
from tests.federation.faults.federation import Federation, ended, lines, until, weights
from tests.flower.deployed import alive, children

AT_ONCE = 2
ROWS = 200
"""Made-up customers of each agent."""


@dataclass(frozen=True)
class Soaked:
    """What a job came to whose agents were killed. kills: how many. same: whether the weights are
    those of the job without a kill. early, late: bytes of the coordinator's processes after a fifth
    of the rounds and at the end. seen: processes that were killed."""

    kills: int
    same: bool
    early: int
    late: int
    seen: frozenset[int]


def soak(
    federation: Federation, wanted: JobFolder, pause: float, seed: int = 0, **options: Any
) -> Soaked:
    """Runs a job with kills. wanted: the same job, that nobody was killed in. pause: mean seconds
    between two kills. options: of the job."""
    job = federation.ask(quorum=len(federation.names), **options)
    seen = set[int]()
    rounds = job.request.rounds
    kills, memory = _killing(federation, job, rounds, pause, seed, seen)
    assert job.status.status == "done", job.status.error
    assert [line["round"] for line in lines(job)] == list(range(1, rounds + 1))
    same = bool(np.array_equal(weights(job), weights(wanted)))
    return Soaked(kills, same, memory[0], memory[-1], frozenset(seen))


def _killing(
    federation: Federation, job: JobFolder, rounds: int, pause: float, seed: int, seen: set[int]
) -> tuple[int, list[int]]:
    """Kills until the job's end: how often, and the coordinator's memory as it went."""
    drawn = generator(seed, Purpose.COHORT, rounds)
    memory, kills, next_kill, killed_at = [0], 0, 0.0, 0
    while job.status.status in TO_RUN:
        time.sleep(0.2)
        if job.status.round >= max(1, rounds // 5):
            memory.append(_memory(federation.server.pid))
        if job.status.round <= killed_at or time.monotonic() < next_kill:
            continue  # else no round would ever end: a trainer takes seconds to load
        killed_at = job.status.round
        chosen = drawn.choice(federation.names, min(AT_ONCE, len(federation.names)), replace=False)
        for name in chosen:
            process = federation.banks[str(name)]
            process.kill()
            seen |= process.tree
            process.start()
            kills += 1
        for name in chosen:
            until(federation.banks[str(name)].is_ready, str(name))
        next_kill = time.monotonic() + pause * float(drawn.exponential())
    return kills, memory[1:] or [0]


def _memory(pid: int) -> int:
    """Bytes that a process and all below it hold for themselves."""
    total = 0
    for one in {pid, *children(pid)}:
        try:
            said = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in said if line.startswith("Pss:"))
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what came of it; 1 where something was lost or left."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--agents", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--pause", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fedsys-soak-") as folder:
        federation = Federation(Path(folder), options.agents, rows=ROWS * options.agents)
        job = {"rounds": options.rounds, "deadline": 600.0, "grace": 600.0}
        with federation.running():
            wanted = federation.ask(quorum=options.agents, **job)
            assert ended(wanted) == "done", wanted.status.error
            found = soak(federation, wanted, options.pause, options.seed, **job)
            processes = set(found.seen)
            for process in federation.processes:
                processes |= {process.pid, *children(process.pid)}
        left = sum(alive(pid) for pid in processes)
    head = ["agents", "rounds", "kills", "same weights", "MB early", "MB late", "left", "seconds"]
    same = "yes" if found.same else "NO"
    sizes = [megabytes(found.early), megabytes(found.late)]
    row = [options.agents, options.rounds, found.kills, same, *sizes, left]
    row += [f"{time.monotonic() - begun:.0f}"]
    print(table(head, [[str(cell) for cell in row]]))
    return 0 if found.same and not left else 1


if __name__ == "__main__":
    sys.exit(main())
