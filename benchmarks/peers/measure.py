"""One workload, run by ours and the peers in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.peers.catalogue import OURS, Peer
from benchmarks.peers.federation import AGREED, Federation
from benchmarks.peers.processes import PeerWorker
from benchmarks.timing import alternate, ratio, times_a_turn
from benchmarks.workloads import SEED, Workload
from fedsys.rounds import draw_cohort

ROUNDS = 100
"""Rounds whose cohorts and plans are drawn; then they begin again."""
HOPELESS = 3.0
"""A way whose second round takes so many times another's is tried no longer."""

COMPARABLE, NUDGED = "comparable", "nudged"
"""Federations whose weights are compared: everybody's, and one whose first weights are rounded
otherwise, which ours trains as well."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """What a simulator came to on a workload.

    reason: why there are no figures; empty where there are. way: the quickest of its set-ups.
    seconds: of a round, turn by turn. startup: seconds from the start of the process to the end of
    its first round. peak: bytes of all its processes. difference: of the weights from ours,
    relative to how far they moved; of ours, what another rounding of its first weights changes.
    """

    peer: Peer
    reason: str = ""
    way: str = ""
    seconds: list[float] = field(default_factory=list)
    startup: float = 0.0
    peak: int = 0
    difference: float = 0.0


@dataclass(frozen=True)
class Result:
    """A workload, ours on it, and the peers."""

    work: Workload
    ours: Measured
    peers: tuple[Measured, ...]

    def behind(self, measured: Measured) -> float:
        """How many times longer a peer takes than ours: the median of the ratios."""
        return ratio(measured.seconds, self.ours.seconds)


@dataclass
class Contender:
    """A simulator at work in the quickest of its ways."""

    peer: Peer
    worker: PeerWorker
    stack: ExitStack
    way: str
    startup: float
    guess: float


def federation(work: Workload, rounds: int) -> Federation:
    """The workload as the peers are given it."""
    examples = work.examples()
    cohorts = [draw_cohort(SEED, r, work.clients, work.cohort) for r in range(1, rounds + 1)]
    return Federation(
        work.name,
        work.clients,
        work.rate,
        work.dropout,
        examples.inputs,
        examples.labels.astype(np.int32),
        tuple(work.weights()),
        np.stack(cohorts).astype(np.int32),
        work.plans(work.partition(examples), 1, rounds),
    )


def measure(work: Workload, peers: Sequence[Peer], turns: int, say: Say) -> Result:
    """Runs a workload by ours and each peer; what cannot run says why."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        federation(work, ROUNDS).write(folder / "measured")
        comparable = federation(work.comparable(), AGREED)
        comparable.write(folder / COMPARABLE)
        comparable.nudged().write(folder / NUDGED)
        ready: list[Contender] = []
        absent: dict[str, Measured] = {}
        for peer in (OURS, *peers):
            found = peer.missing or quickest(peer, folder, work.name, stack, say)
            if isinstance(found, str):
                say(f"  {peer.title}: {found}")
                absent[peer.name] = Measured(peer, found)
            else:
                ready.append(found)
        if OURS.name in absent:
            raise RuntimeError(absent[OURS.name].reason)
        given = alternate({each.peer.name: partial(turn, each) for each in ready}, turns)
        peaks = {each.peer.name: each.worker.weighed() for each in ready}
        differences = disagreements(ready, folder)
    figures = {
        each.peer.name: Measured(
            each.peer,
            "",
            each.way,
            given[each.peer.name],
            each.startup,
            peaks[each.peer.name],
            differences[each.peer.name],
        )
        for each in ready
    } | absent
    return Result(work, figures[OURS.name], tuple(figures[peer.name] for peer in peers))


def turn(contender: Contender) -> float:
    """Mean seconds of some rounds."""
    return contender.worker.ask("turn", times=times_a_turn(contender.guess))


def quickest(
    peer: Peer, folder: Path, workload: str, stack: ExitStack, say: Say
) -> Contender | str:
    """The peer in its quickest way, warm; or why there is none. The others are ended."""
    best: Contender | None = None
    reason = ""
    for way in peer.ways_on(workload):
        own = ExitStack()
        try:
            worker = own.enter_context(PeerWorker(peer, folder, way))
            startup = worker.first()
            guess = worker.ask("turn", times=1)
            if best is None or guess < HOPELESS * best.guess:
                guess = worker.ask("turn", times=2)
                guess = min(guess, worker.ask("turn", times=min(20, times_a_turn(guess))))
        except RuntimeError as error:
            own.close()
            reason = f"{way}: {brief(str(error))}"
            say(f"  {peer.title}, {reason}")
            continue
        except BaseException:
            own.close()
            raise
        say(f"  {peer.title}, {way}: {guess * 1e3:.3g} ms, first round after {startup:.1f} s")
        if best is not None and best.guess <= guess:
            own.close()
            continue
        if best is not None:
            best.stack.close()
        best = Contender(peer, worker, own, way, startup, guess)
    if best is None:
        return reason
    stack.push(best.stack)
    return best


def disagreements(ready: Sequence[Contender], folder: Path) -> dict[str, float]:
    """By how much weights differ from ours after the same rounds without dropout.

    Ours differs from itself by as much as another rounding of its first weights comes to.
    """
    begin = np.concatenate(
        [weight.ravel() for weight in Federation.read(folder / COMPARABLE).weights]
    )
    ours, *others = ready
    reached = _weights(ours, folder, COMPARABLE)
    moved = np.linalg.norm(reached - begin)
    found = {ours.peer.name: _weights(ours, folder, NUDGED)}
    found |= {each.peer.name: _weights(each, folder, COMPARABLE) for each in others}
    return {name: float(np.linalg.norm(w - reached) / moved) for name, w in found.items()}


def _weights(contender: Contender, folder: Path, federation: str) -> np.ndarray:
    path = folder / "agreed.npy"
    contender.worker.ask("agree", path=str(path), federation=federation)
    return np.load(path).astype(np.float64)


def brief(error: str) -> str:
    """What an error came to: the last line that says anything, not too long."""
    lines = [line.strip() for line in error.splitlines() if line.strip(" >^~")]
    telling = [line for line in lines if "Error" in line] or lines or ["it ended"]
    return telling[-1][:160]
