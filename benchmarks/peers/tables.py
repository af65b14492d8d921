"""What the run came to, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks.peers.catalogue import OURS, Peer
from benchmarks.peers.measure import Measured, Result
from benchmarks.timing import megabytes, milliseconds, table, verdict

AGREEMENT, MARGIN = 1e-4, 10.0
"""How much weights may differ: so much, or so many times what one other rounding, that of the
first weights, changes in ours. Every sum of a round is rounded, in an order of each peer's own."""
CIFAR = 3.0
"""How many times quicker than the best peer ours should be on CIFAR."""

Figure = Callable[[Measured], str]


def grid(results: Sequence[Result], what: str, figure: Figure) -> str:
    """A row a workload, a column a simulator."""
    titles = [OURS.title, *(measured.peer.title for measured in results[0].peers)]
    rows = [
        [
            result.work.name,
            *(measured.reason or figure(measured) for measured in (result.ours, *result.peers)),
        ]
        for result in results
    ]
    return table([what, *titles], rows)


def times(results: Sequence[Result]) -> str:
    return grid(results, "ms a round", lambda measured: milliseconds(measured.seconds))


def ratios(results: Sequence[Result]) -> str:
    """How many times longer than ours; the median of the ratios turn by turn."""
    titles = [measured.peer.title for measured in results[0].peers]
    rows = [
        [
            result.work.name,
            *(each.reason or f"{result.behind(each):.3g}" for each in result.peers),
        ]
        for result in results
    ]
    return table(["times ours", *titles], rows)


def startups(results: Sequence[Result]) -> str:
    return grid(results, "s to the first round", lambda measured: f"{measured.startup:.1f}")


def peaks(results: Sequence[Result]) -> str:
    return grid(results, "MB at most", lambda measured: megabytes(measured.peak))


def differences(results: Sequence[Result]) -> str:
    """Of the weights from ours, and whether that is rounding, which ours has as well."""
    titles = [measured.peer.title for measured in results[0].peers]
    rows = []
    for result in results:
        rounding = result.ours.difference
        most = max(AGREEMENT, MARGIN * rounding)
        said = [
            each.reason or f"{each.difference:.0e} {verdict(each.difference, most=most)}"
            for each in result.peers
        ]
        rows.append([result.work.name, f"{rounding:.0e}", f"{most:.0e}", *said])
    return table(["difference", "rounding alone", "at most", *titles], rows)


def ways(results: Sequence[Result]) -> str:
    return grid(results, "way", lambda measured: measured.way)


def targets(results: Sequence[Result]) -> str:
    """What was asked of ours, and what came of it."""
    rows = []
    for result in results:
        name = result.work.name
        there = [each for each in result.peers if not each.reason]
        for measured in result.peers:
            if name != "logistic" or measured.peer.target is None:
                continue
            aim = measured.peer.target
            rows.append([name, measured.peer.title, f">= {aim:g}", *met(result, [measured], aim)])
        if name == "cifar":
            rows.append([name, "the best of them", f">= {CIFAR:g}", *met(result, there, CIFAR)])
        rows.append([name, "every peer", "> 1", *met(result, there, 1.0)])
    return table(["workload", "ours ahead of", "target, times", "measured", ""], rows)


def met(result: Result, them: Sequence[Measured], aim: float) -> list[str]:
    """How many times the best of them takes of ours, by whom, and whether that is enough."""
    found = [(result.behind(each), each.peer.title) for each in them if not each.reason]
    if not found:
        return ["not measured", ""]
    least, title = min(found)
    text = f"{least:.3g}" if len(them) == 1 else f"{least:.3g} ({title})"
    return [text, "met" if least >= aim else "missed"]


def versions(peers: Sequence[Peer]) -> str:
    """What was installed where, and what should be known."""
    return table(
        ["simulator", "versions", "note"],
        [
            [peer.title, "" if peer.missing else peer.versions(), peer.missing or peer.note]
            for peer in (OURS, *peers)
        ],
    )


def summary(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Workload -> title -> median seconds a round, for the plot."""
    return {
        result.work.name: {
            each.peer.title: statistics.median(each.seconds)
            for each in (result.ours, *result.peers)
            if not each.reason
        }
        for result in results
    }
