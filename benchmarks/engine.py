"""The engine against the same arithmetic by hand, and against `keras.Model.fit` per client."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.pipes import Worker
from benchmarks.timing import alternate, machine, milliseconds, ratio, table, times_a_turn, verdict
from benchmarks.workloads import WORKLOADS, Workload, workload

CORES = os.cpu_count() or 1
FLOOR = 1.10
AGREEMENT = 1e-4
HOPELESS = 3.0
"""A way to compile is dropped if a client takes this many times its share of the best round."""
FINALISTS = 2


@dataclass(frozen=True)
class Way:
    """A variant of the floor, in the worker whose threads it has."""

    worker: Worker
    intra: int
    variant: dict
    text: str

    def turn(self, times: int) -> float:
        """Mean seconds of some rounds."""
        return self.worker.ask("turn", variant=self.variant, times=times)

    def __str__(self) -> str:
        return f"{self.text}, intra-op {self.intra}"


@dataclass(frozen=True)
class Result:
    """Seconds a round, turn by turn, of one workload."""

    work: Workload
    how: str
    ours: list[float]
    kept: list[float]
    floor: list[float]
    won: str
    fit: list[float]
    compiler: str
    difference: float

    @property
    def over_floor(self) -> float:
        return ratio(self.ours, self.floor)

    @property
    def under_fit(self) -> float:
        return ratio(self.fit, self.ours)


def measure(
    work: Workload, rounds: int, flags: Sequence[str], say: Callable[[str], None]
) -> Result:
    """Runs one workload in every way, in turns."""
    with ExitStack() as stack:

        def start(kind: str, *arguments: str) -> Worker:
            return stack.enter_context(Worker(f"benchmarks.{kind}", work.name, *arguments, *flags))

        ours, keras = start("ours"), start("keras_fit")
        floors = {intra: start("floor", str(intra)) for intra in sorted({1, CORES})}
        how = ours.ask("ready")
        for worker in (keras, *floors.values()):
            worker.ask("ready")
        ways = finalists(work, floors, say)
        difference = max(disagreement(work, ours, way) for way in ways)
        jit, a_client = keras.ask("best")
        ours.ask("turn", times=2, keep=True)
        times = times_a_turn(ours.ask("turn", times=2, keep=False))
        clients = min(times_a_turn(a_client), 20)
        given = alternate(
            {
                "ours": partial(ours.ask, "turn", times=times, keep=False),
                **{str(way): partial(way.turn, times) for way in ways},
                "kept": partial(ours.ask, "turn", times=times, keep=True),
                "fit": lambda: work.cohort * keras.ask("turn", jit=jit, clients=clients),
            },
            rounds,
        )
    won = min(map(str, ways), key=lambda way: statistics.median(given[way]))
    compiler = "XLA" if jit else "no XLA"
    return Result(
        work, how, given["ours"], given["kept"], given[won], won, given["fit"], compiler, difference
    )


def finalists(work: Workload, floors: dict[int, Worker], say: Callable[[str], None]) -> list[Way]:
    """The quickest ways of the floor by a short trial, quickest first."""
    tried: list[tuple[float, Way]] = []
    for xla in (False, True):
        for intra, worker in floors.items():
            best = min((taken for taken, _ in tried), default=float("inf"))
            guess = worker.ask("guess", xla=xla) * work.cohort / CORES
            if guess > HOPELESS * best:
                compiler = "XLA" if xla else "graph"
                say(f"  floor {compiler}, intra-op {intra}: {guess * 1e3:.0f} ms at best, dropped")
                continue
            for variant, text in worker.ask("variants", xla=xla):
                way = Way(worker, intra, variant, text)
                way.turn(1)
                taken = way.turn(1)
                taken = min([taken, *(way.turn(2) for _ in range(3 if taken < 0.2 else 1))])
                say(f"  floor {way}: {taken * 1e3:.3g} ms")
                tried.append((taken, way))
    tried.sort(key=lambda pair: pair[0])
    return [way for _, way in tried[:FINALISTS]]


def disagreement(work: Workload, ours: Worker, way: Way) -> float:
    """By how much the weights after a round differ, relative to how far they moved."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("ours.npy", "floor.npy")]
        ours.ask("agree", path=paths[0])
        way.worker.ask("agree", variant=way.variant, path=paths[1])
        mine, theirs = (np.load(path).astype(np.float64) for path in paths)
    anchor = np.concatenate([weight.ravel() for weight in work.comparable().weights()])
    return float(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs - anchor))


# --- tables -------------------------------------------------------------------------------------


def times_table(results: Sequence[Result]) -> str:
    """Milliseconds a round, median (least)."""
    header = ["workload", "parameters", "ours, ms", "with checkpoint", "floor, ms", "keras.fit, ms"]
    return table(
        header,
        [
            [
                result.work.name,
                f"{result.work.parameters:,}",
                milliseconds(result.ours),
                milliseconds(result.kept),
                milliseconds(result.floor),
                milliseconds(result.fit),
            ]
            for result in results
        ],
    )


def ratios_table(results: Sequence[Result]) -> str:
    """Medians of the ratios turn by turn, and whether they are what was asked."""
    header = ["workload", "ratio", "measured", "target", ""]
    rows = []
    for result in results:
        over, under, fit = result.over_floor, result.under_fit, result.work.fit
        difference, kept = result.difference, ratio(result.kept, result.ours)
        above = ["", ""] if fit is None else [f">= {fit:g}", verdict(under, least=fit)]
        below = [f"<= {FLOOR:.2f}", verdict(over, most=FLOOR)]
        same = [f"<= {AGREEMENT:.0e}", verdict(difference, most=AGREEMENT)]
        for what, figure, target in (
            ("ours / floor", f"{over:.2f}", below),
            ("keras.fit / ours", f"{under:.1f}", above),
            ("with checkpoint / ours", f"{kept:.2f}", ["", ""]),
            ("difference of the weights", f"{difference:.0e}", same),
        ):
            rows.append([result.work.name, what, figure, *target])
    return table(header, rows)


def ways_table(results: Sequence[Result]) -> str:
    """What the engine chose, and what was quickest of the others."""
    return table(
        ["workload", "ours", "floor", "keras.fit"],
        [[result.work.name, result.how, result.won, result.compiler] for result in results],
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="Turns of each.")
    parser.add_argument("--only", choices=list(WORKLOADS), help="One workload.")
    parser.add_argument("--tiny", action="store_true", help="Very small, to test the benchmark.")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    results = []
    for name in [options.only] if options.only else WORKLOADS:
        work = workload(name, options.tiny)
        say(f"{name}: {work.clients} clients of {work.rows} rows, {work.cohort} a round, "
            f"{work.steps} steps of {work.batch} each")  # fmt: skip
        flags = ["--tiny"] if options.tiny else []
        results.append(measure(work, options.rounds, flags, say))
    print(f"{machine()}; {options.rounds} turns, medians (least in brackets)\n")
    for each in (times_table, ratios_table, ways_table):
        print(each(results), end="\n\n")


if __name__ == "__main__":
    main()
