"""Workers on Ray: how much faster are two than one, and what does Ray cost on one machine?"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from benchmarks.timing import (
    alternate,
    machine,
    milliseconds,
    ratio,
    seconds,
    table,
    times_a_turn,
    verdict,
)
from benchmarks.workloads import SEED, WORKLOADS, Workload, workload

CORES = os.cpu_count() or 1
TARGET = 1.7


def rounds_of(work: Workload, engine: str, workers: int, stack: ExitStack) -> Callable[[], object]:
    """Opens an engine and returns what runs its next round, as a simulation does."""
    from fedsys.engines import ENGINES
    from fedsys.experiment import Experiment
    from fedsys.rounds import begin, run_rounds
    from fedsys.setting import prepare
    from fedsys.simulation import _cohorts

    experiment = Experiment(
        partition="iid",
        clients=work.clients,
        cohort=work.cohort,
        local=work.local,
        rounds=10**6,
        seed=SEED,
    )
    setting = prepare(experiment, work.task(work.examples()), CORES)
    opened = stack.enter_context(ENGINES.parse(engine).open(setting, workers))
    rounds: Iterator[object] = run_rounds(
        begin(experiment.strategy, setting.layout, setting.weights),
        experiment.strategy,
        opened,
        setting.layout,
        cohorts=_cohorts(setting, opened),
        population=setting.population,
        rounds=experiment.rounds,
        quorum=experiment.quorum,
    )
    return partial(next, rounds)


def measure(work: Workload, turns: int, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds a round, turn by turn, of each way to run the workload."""
    ways = {"ray, 1 worker": ("ray", 1), "ray, 2 workers": ("ray", 2)}
    if CORES > 2:
        ways[f"ray, {CORES} workers"] = ("ray", CORES)
    ways[f"ray, 1 worker of {CORES} threads"] = (f"ray:threads={CORES}", 1)
    ways[f"compiled, {CORES} threads"] = ("compiled", CORES)
    with ExitStack() as stack:
        calls = {}
        for name, (engine, workers) in ways.items():
            say(f"  opens {name}")
            one = rounds_of(work, engine, workers, stack)
            seconds(one, 2)  # compiles, and plans its first round
            times = times_a_turn(seconds(one))
            calls[name] = partial(seconds, one, times)
        return alternate(calls, turns)


def times_table(results: dict[str, dict[str, list[float]]]) -> str:
    """Milliseconds a round, median (least), and how many times faster than one worker."""
    rows = []
    for workload_name, given in results.items():
        one = next(iter(given.values()))
        for name, values in given.items():
            faster = ratio(one, values)
            asked = name == "ray, 2 workers" and workload_name == "convolution"
            rows.append(
                [
                    workload_name,
                    name,
                    milliseconds(values),
                    f"{faster:.2f}",
                    *([f">= {TARGET}", verdict(faster, least=TARGET)] if asked else ["", ""]),
                ]
            )
    header = ["workload", "way", "round, ms", "one worker / this", "target", ""]
    return table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="Turns of each.")
    parser.add_argument("--only", choices=list(WORKLOADS), default="convolution", help="Workload.")
    parser.add_argument("--tiny", action="store_true", help="Very small, to test the benchmark.")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    say(options.only)
    given = measure(workload(options.only, options.tiny), options.rounds, say)
    print(f"{machine()}; {options.rounds} turns, medians (least in brackets)\n")
    print(times_table({options.only: given}))


if __name__ == "__main__":
    main()
