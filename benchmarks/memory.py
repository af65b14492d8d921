"""Peak memory of a large cohort of the CIFAR network against that of a small one."""

from __future__ import annotations

import argparse
from dataclasses import replace

from benchmarks.pipes import Worker, peak_bytes, serve
from benchmarks.timing import machine, megabytes, seconds, table, verdict
from benchmarks.workloads import WORKLOADS

CLIENTS, ROWS, COHORTS = 1_000, 10, (10, 1_000)
ROUNDS = 2
MOST = 1e9


class Asked:
    """What the parent asks of a process that runs one size of cohort."""

    def run(self, clients: int, cohort: int, rounds: int) -> list[float]:
        """Seconds of a round, and bytes at the peak of the process."""
        from benchmarks.ours import rounds_of

        work = replace(WORKLOADS["cifar"], clients=clients, rows=ROWS, cohort=cohort)
        turns = rounds_of(work)
        taken = seconds(turns.next, rounds)
        turns.close()
        return [taken, peak_bytes()]


def measure(clients: int, cohorts: tuple[int, int]) -> list[list[str]]:
    """The lines of the table."""
    rows, peaks = [], []
    for cohort in cohorts:
        with Worker("benchmarks.memory", "--worker") as worker:
            taken, peak = worker.ask("run", clients=clients, cohort=cohort, rounds=ROUNDS)
        peaks.append(peak)
        rows.append([f"cohort of {cohort:,}: peak, MB", megabytes(peak), "", ""])
        rows.append([f"cohort of {cohort:,}: a round, s", f"{taken:.2f}", "", ""])
    above = peaks[1] - peaks[0]
    target = f"<= {megabytes(MOST)}"
    return [*rows, ["difference, MB", megabytes(above), target, verdict(above, most=MOST)]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="Very small, to test the benchmark.")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve({"run": Asked().run})
        return
    rows = measure(20, (2, 10)) if options.tiny else measure(CLIENTS, COHORTS)
    print(f"{machine()}; {WORKLOADS['cifar'].parameters:,} parameters, {ROWS} rows a client\n")
    print(table(["what", "measured", "target", ""], rows))


if __name__ == "__main__":
    main()
