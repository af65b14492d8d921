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
    """What a run came to. kills: how many. same: whether the weights are those of the run without
    a kill. early, late: bytes of the coordinator's processes after a fifth of the rounds and at
    the end. left: processes that outlived it."""

    rounds: int
    kills: int
    same: bool
    early: int
    late: int
    left: int
    seconds: float


def soak(folder: Path, agents: int, rounds: int, pause: float, seed: int = 0) -> Soaked:
    """Runs a job twice, the second time with kills. pause: mean seconds between two kills."""
    federation = Federation(folder, agents, rows=ROWS * agents)
    begun, seen = time.monotonic(), set[int]()
    with federation.running():
        wanted = federation.ask(rounds=rounds, quorum=agents, deadline=600.0)
        assert ended(wanted) == "done", wanted.status.error
        job = federation.ask(rounds=rounds, quorum=agents, deadline=600.0)
        kills, memory = _killing(federation, job, rounds, pause, seed, seen)
        assert job.status.status == "done", job.status.error
        assert [line["round"] for line in lines(job)] == list(range(1, rounds + 1))
        for process in federation.processes:
            seen |= {process.pid, *children(process.pid)}
    left = sum(alive(pid) for pid in seen)
    same = bool(np.array_equal(weights(job), weights(wanted)))
    seconds = time.monotonic() - begun
    return Soaked(rounds, kills, same, memory[0], memory[-1], left, seconds)


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
    with tempfile.TemporaryDirectory(prefix="fedsys-soak-") as folder:
        found = soak(Path(folder), options.agents, options.rounds, options.pause, options.seed)
    head = ["agents", "rounds", "kills", "same weights", "MB early", "MB late", "left", "seconds"]
    same = "yes" if found.same else "NO"
    sizes = [megabytes(found.early), megabytes(found.late)]
    row = [options.agents, found.rounds, found.kills, same, *sizes, found.left]
    row += [f"{found.seconds:.0f}"]
    print(table(head, [[str(cell) for cell in row]]))
    return 0 if found.same and not found.left else 1


if __name__ == "__main__":
    sys.exit(main())
