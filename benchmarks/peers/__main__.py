"""Ours beside other simulators, on the same work in one run."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from benchmarks.peers import tables
from benchmarks.peers.catalogue import PEERS, named
from benchmarks.peers.environments import NAMES, install
from benchmarks.peers.measure import measure
from benchmarks.peers.plot import plot
from benchmarks.timing import machine
from benchmarks.workloads import WORKLOADS, workload
from fedsys.errors import FedsysError


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--install",
        nargs="*",
        metavar="NAME",
        help=f"Make the environments of these peers and end: {', '.join(NAMES)}; all if none.",
    )
    parser.add_argument("--only", choices=list(WORKLOADS), help="One workload.")
    names = ",".join(peer.name for peer in PEERS)
    parser.add_argument("--peers", metavar="A,B", help=f"Some of {names}.")
    parser.add_argument("--turns", type=int, default=7, help="Turns of each.")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="Write the picture, an SVG.")
    parser.add_argument("--tiny", action="store_true", help="Very small, to test the benchmark.")
    given = parser.parse_args()
    try:
        given.peers = named(given.peers)
    except ValueError as error:
        parser.error(str(error))
    return given


def make_environments(names: list[str]) -> None:
    for name in names or NAMES:
        began = time.monotonic()
        say(f"{install(name)} after {time.monotonic() - began:.0f} s")


def run(given: argparse.Namespace) -> None:
    results = []
    for name in [given.only] if given.only else WORKLOADS:
        work = workload(name, given.tiny)
        say(f"{name}: {work.clients} clients of {work.rows} rows, {work.cohort} a round, "
            f"{work.steps} steps of {work.batch} each")  # fmt: skip
        results.append(measure(work, given.peers, given.turns, say))
    print(f"{machine()}; {given.turns} turns, medians (least in brackets)\n")
    for each in (
        tables.times,
        tables.ratios,
        tables.targets,
        tables.startups,
        tables.peaks,
        tables.differences,
        tables.ways,
    ):
        print(each(results), end="\n\n")
    print(tables.versions(given.peers))
    if given.plot:
        plot(tables.summary(results), given.plot)


def main() -> None:
    given = options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # files and processes are cleared up
    try:
        if given.install is not None:
            make_environments(given.install)
        else:
            run(given)
    except FedsysError as error:
        say(f"benchmarks.peers: {error}")
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
