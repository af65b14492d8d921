"""A million clients against ten thousand: partitions, a round, and memory."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.pipes import Worker, peak_bytes, serve
from benchmarks.timing import (
    alternate,
    machine,
    megabytes,
    milliseconds,
    ratio,
    seconds,
    table,
    times_a_turn,
    verdict,
)

if TYPE_CHECKING:
    import keras

    from fedsys.task import Examples

MANY, FEW, COHORT = 1_000_000, 10_000, 1_000
ROWS, FEATURES, CLASSES, BATCH = 4, 8, 10, 2
PARTITIONS = ("iid", "dirichlet:0.5")
PARTITION_SECONDS, ROUND_RATIO, MEMORY = 10, 1.15, 500e6


class Asked:
    """What the parent asks of a process with a population."""

    def draw(self, rule: str, clients: int) -> float:
        """Seconds in which the partition alone is drawn, on the rows that `begin` takes too."""
        from fedsys.partitions import PARTITIONS as RULES
        from fedsys.partitions import draw

        examples = _examples(clients)
        started = time.perf_counter()
        draw(RULES.parse(rule), examples, clients, 0)
        return time.perf_counter() - started

    def begin(self, rule: str, clients: int, cohort: int) -> None:
        """Gets everything ready for rounds."""
        from benchmarks.ours import Rounds  # with it TensorFlow, Keras and all of the engine

        self._imported = peak_bytes()
        from fedsys.experiment import Experiment
        from fedsys.local import Local
        from fedsys.task import Examples, Task

        examples = _examples(clients)
        test = Examples(examples.inputs[:100], examples.labels[:100])
        self._data = examples.inputs.nbytes + examples.labels.nbytes
        experiment = Experiment(
            partition=rule, clients=clients, cohort=cohort, local=Local(epochs=1, batch=BATCH)
        )
        self._rounds = Rounds(experiment, Task("population", _model, examples, test))
        self._rounds.next()

    def turn(self, times: int) -> float:
        """Mean seconds of some rounds."""
        return seconds(self._rounds.next, times)

    def memory(self) -> int:
        """Bytes at the peak above those of the imports and the data."""
        return peak_bytes() - self._imported - self._data


def _examples(clients: int) -> Examples:
    import numpy as np

    from fedsys.task import Examples

    rng = np.random.default_rng(0)
    inputs = rng.random((clients * ROWS, FEATURES), np.float32)
    return Examples(inputs, rng.integers(0, CLASSES, len(inputs)))


def _model() -> keras.Model:
    from keras import Input, Sequential, layers

    return Sequential([Input((FEATURES,)), layers.Dense(CLASSES)])


def measure(many: int, few: int, cohort: int, rounds: int) -> list[list[str]]:
    """The lines of the table."""
    with ExitStack() as stack:

        def start() -> Worker:
            return stack.enter_context(Worker("benchmarks.population", "--worker"))

        rows = []
        for rule in PARTITIONS:
            taken = start().ask("draw", rule=rule, clients=many)
            rows.append(_line(f"partition {rule}, s", f"{taken:.2f}", taken, PARTITION_SECONDS))
        begun = {rule: _begun(start(), rule, many, cohort) for rule in PARTITIONS}
        big, small = begun["iid"], _begun(start(), "iid", few, cohort)
        times = times_a_turn(small.ask("turn", times=2))
        given = alternate(
            {
                "big": partial(big.ask, "turn", times=times),
                "small": partial(small.ask, "turn", times=times),
            },
            rounds,
        )
        rows.append([f"round of {many:,}, ms", milliseconds(given["big"]), "", ""])
        rows.append([f"round of {few:,}, ms", milliseconds(given["small"]), "", ""])
        over = ratio(given["big"], given["small"])
        rows.append(_line("ratio of the rounds", f"{over:.2f}", over, ROUND_RATIO))
        for rule, worker in begun.items():
            above = worker.ask("memory")
            what = f"peak above imports and data, {rule}, MB"
            rows.append(_line(what, megabytes(above), above, MEMORY, megabytes(MEMORY)))
    return rows


def _begun(worker: Worker, rule: str, clients: int, cohort: int) -> Worker:
    worker.ask("begin", rule=rule, clients=clients, cohort=cohort)
    worker.ask("turn", times=2)
    return worker


def _line(what: str, said: str, value: float, most: float, target: str = "") -> list[str]:
    return [what, said, f"<= {target or f'{most:g}'}", verdict(value, most=most)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.population", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="Turns of each.")
    parser.add_argument("--tiny", action="store_true", help="Very small, to test the benchmark.")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asked = Asked()
        serve({"draw": asked.draw, "begin": asked.begin, "turn": asked.turn,
               "memory": asked.memory})  # fmt: skip
        return
    sizes = (1000, 100, 10) if options.tiny else (MANY, FEW, COHORT)
    rows = measure(*sizes, options.rounds)
    print(f"{machine()}; {options.rounds} turns, medians (least in brackets)")
    print(f"{sizes[0]:,} clients of {ROWS} rows, logistic regression, {sizes[2]:,} a round\n")
    print(table(["what", "measured", "target", ""], rows))


if __name__ == "__main__":
    main()
