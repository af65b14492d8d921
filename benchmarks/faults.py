"""The fault matrix: what goes wrong in a federation, and how fedsys and plain Flower end.

    python -m benchmarks.faults                  # all rows; some minutes
    python -m benchmarks.faults --rows 1 9 17    # some of them
    python -m benchmarks.faults --frozen 120     # seconds of silence in row 5 [30]

Every row is proved by tests that run here and now; what a test observed stands in the table. Rows
with processes are tests of `tests/federation/faults`. Flower's outcomes were measured with flwr
1.41 (three banks, TLS and node keys); 'again now' marks those that this run repeated, in Flower's
own `FedAvg`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import table

FAULTS = "tests/federation/faults"
SURVIVAL, UPDATES = f"{FAULTS}/test_survival.py", f"{FAULTS}/test_updates.py"
STRANGERS, DEPLOYED = f"{FAULTS}/test_strangers.py", "tests/federation/test_deployed.py"
RUN = "tests/federation/test_run.py"
BAD_UPDATES = (
    f"{UPDATES}::test_each_bad_update_is_refused_with_its_reason_and_the_others_make_the_round"
)


@dataclass(frozen=True)
class Row:
    """A fault. flower: its outcome as measured. proofs: tests, as pytest names them; none where
    fedsys has not got what could fail. note: what stands there then."""

    fault: str
    flower: str
    proofs: tuple[str, ...]
    note: str = ""


ROWS: Mapping[int, Row] = {
    1: Row("client `kill -9` amid a round",
           "seen after 43 s; 2 of 3 aggregated; next round waits for ever",
           (f"{SURVIVAL}::test_a_bank_that_is_killed_is_missed_named_and_waited_for",)),
    2: Row("the same client started again within 60 s", "refused (2004), the process ends",
           (f"{SURVIVAL}::test_a_bank_that_is_killed_is_missed_named_and_waited_for",
            f"{DEPLOYED}::test_a_bank_that_is_killed_is_back_within_its_round")),
    3: Row("server `kill -9`, started again", "run failed, progress lost",
           (f"{SURVIVAL}::test_a_coordinator_that_is_killed_resumes_even_from_the_checkpoint_before",
            f"{DEPLOYED}::test_a_coordinator_that_is_killed_resumes_with_the_same_result",
            f"{DEPLOYED}::test_flowers_server_that_is_killed_ends_no_job")),
    4: Row("kill while a checkpoint is written", "has no checkpoints",
           ("tests/test_checkpoint.py::test_cut_short_at_any_step_it_goes_on_from_the_last_or_the_one_before",)),
    5: Row("client, server or line silent for a while", "both recover (SIGSTOP, 30 s)",
           (f"{SURVIVAL}::test_silence_within_a_deadline_costs_nothing",)),
    6: Row("all clients past the deadline", "no replies, no model, 'completed'",
           (f"{SURVIVAL}::test_a_job_that_no_bank_answers_fails_and_never_says_it_is_done",)),
    7: Row("one slow client", "late reply not aggregated",
           (f"{UPDATES}::test_a_slow_bank_is_late_and_the_others_go_on",
            f"{RUN}::test_a_bank_that_stays_away_costs_no_deadline")),
    8: Row("duplicate update", "database refuses it; the aggregator itself counts it twice",
           (f"{UPDATES}::test_an_update_that_comes_twice_counts_once",
            "tests/flower/test_engine.py::test_second_answers_are_not_counted")),
    9: Row("NaN or infinity in an update", "model destroyed, 'completed'",
           (BAD_UPDATES,
            f"{UPDATES}::test_a_bank_that_is_refused_three_times_in_a_row_is_in_quarantine",
            f"{RUN}::test_a_bank_that_is_refused_three_times_in_a_row_is_not_asked_again")),
    10: Row("wrong shape", "run failed; shape (1,) is broadcast and accepted", (BAD_UPDATES,)),
    11: Row("16 bytes that claim 16 GiB; an answer that is too large", "MemoryError",
            (BAD_UPDATES,
             f"{UPDATES}::test_what_claims_to_be_large_is_measured_before_it_is_read",
             "tests/flower/test_messages.py::test_a_header_that_promises_much_allocates_nothing",
             "tests/flower/test_compat_grid.py::test_no_more_is_fetched_than_a_reply_may_have",
             "tests/flower/test_compat_grid.py::test_a_piece_that_stands_for_many_is_counted_as_many",
             "tests/flower/test_runtime.py::test_a_reply_that_is_too_large_is_an_error_and_deleted_and_the_others_arrive")),
    12: Row("weight -200, NaN, 1e12, 0", "sign flips, NaN, takes the model over, ZeroDivisionError",
            (BAD_UPDATES,)),
    13: Row("extra or missing metric", "run failed",
            (f"{UPDATES}::test_a_metric_that_nobody_asked_for_is_no_fault",
             f"{UPDATES}::test_a_missing_loss_costs_nothing_but_itself")),
    14: Row("update times 100 or -1, one of three",
            "FedAvg poisoned; TrimmedAvg and MultiKrum do not protect at three clients",
            (f"{UPDATES}::test_a_median_of_three_holds_against_one_bank",
             f"{UPDATES}::test_a_rule_that_three_banks_are_too_few_for_is_refused_before_anything_is_sent",
             f"{UPDATES}::test_a_job_out_of_bounds_that_nobody_looked_at_ends_before_it_is_signed")),
    15: Row("zero update where norms are clipped", "ZeroDivisionError",
            (f"{UPDATES}::test_updates_without_a_length_and_far_too_long_are_bounded",
             "tests/aggregators/test_rules.py::test_an_update_of_zeros_stays_one")),
    16: Row("exception text with a customer's data", "text in the server's log",
            (f"{UPDATES}::test_the_text_of_an_exception_stays_at_its_bank",
             "tests/flower/test_messages.py::test_codes_that_are_not_known_are_not_repeated")),
    17: Row("unknown key; wrong CA; no TLS", "305 + 2004; 305, clear text; silent retry for ever",
            (f"{STRANGERS}::test_an_unknown_key_another_authority_and_no_tls_are_told_apart",)),
    18: Row("server certificate out of date", "starts without a word, clients fail",
            (f"{STRANGERS}::test_a_server_whose_certificate_is_out_of_date_does_not_start",
             "tests/trust/test_identity.py::test_a_certificate_warns_from_thirty_days_and_louder_from_seven")),
    19: Row("replayed or altered request of a node", "accepted for 305 s, any endpoint and body",
            (f"{STRANGERS}::test_a_copied_or_altered_request_of_a_node_is_refused_while_its_bank_goes_on",
             f"{STRANGERS}::test_what_a_node_signs_its_requests_with_is_seen_by_nobody",
             "tests/flower/test_superlink.py::test_it_is_started_again_with_what_it_knew",
             "tests/flower/test_binding.py::test_one_changed_byte_and_the_signature_does_not_fit",
             "tests/flower/test_supernode.py::test_a_node_whose_clock_is_wrong_is_told_by_how_much",
             "tests/trust/test_signing.py::test_a_request_counts_once_even_after_a_restart")),
    20: Row("disk full", "not measured",
            (f"{SURVIVAL}::test_a_disk_without_room_pauses_a_job_that_goes_on_when_there_is_room",
            f"{SURVIVAL}::test_a_full_disk_of_flowers_own_state_pauses_a_job_too",
             "tests/test_checkpoint.py::test_a_disk_that_fills_up_at_any_write_leaves_a_run_to_go_on_with",
             "tests/trust/test_audit.py::test_a_full_disk_is_one_line_and_the_log_goes_on_when_there_is_room")),
    21: Row("damaged checkpoint", "has none",
            (f"{SURVIVAL}::test_a_coordinator_that_is_killed_resumes_even_from_the_checkpoint_before",
             "tests/test_checkpoint.py::test_a_damaged_checkpoint_falls_back_to_the_one_before")),
    22: Row("bad table: cells, empty, one class", "user's code",
            ("tests/tables/test_check.py::test_every_cell_that_is_wrong_is_counted_and_its_row_named",
             "tests/tables/test_check.py::test_labels_of_one_class_no_rows_and_too_few")),
    23: Row("columns in another order", "user's code (FATE: a useless model, silently)",
            ("tests/tables/test_check.py::test_good_rows_in_any_order_of_columns",
             "tests/tables/test_preparation.py::test_every_source_and_order_of_columns_gives_the_same_inputs",
             "tests/tables/test_check.py::test_the_schema_of_another_federation_is_refused")),
}  # fmt: skip


@dataclass(frozen=True)
class Proved:
    """How tests ended. passed, failed, skipped: their names; observed: row -> what they said."""

    passed: Mapping[str, int]
    wrong: Mapping[str, str]
    observed: Mapping[int, Sequence[str]]


def prove(proofs: Sequence[str], frozen: float) -> Proved:
    """Runs tests, one after another in one process, so that they share one federation."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *proofs]
        variables = {**os.environ, "FAULTS_FROZEN_SECONDS": str(frozen)}
        done = subprocess.run(command, env=variables, stdout=sys.stderr)
        if not report.exists():
            raise SystemExit(f"pytest ended with {done.returncode} and no report")
        return read_report(report)


def read_report(path: Path) -> Proved:
    """What a JUnit file says."""
    passed: dict[str, int] = {}
    wrong: dict[str, str] = {}
    observed: dict[int, list[str]] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        place = str(case.get("classname")).replace(".", "/")
        name = f"{place}.py::{str(case.get('name')).partition('[')[0]}"
        kinds = ("failure", "error", "skipped")
        bad = next((kind for kind in kinds if case.find(kind) is not None), None)
        if bad:
            wrong[name] = bad
        else:
            passed[name] = passed.get(name, 0) + 1
        for said in case.iter("property"):
            row = str(said.get("name")).removeprefix("row ")
            if row.isdigit():
                observed.setdefault(int(row), []).append(str(said.get("value")))
    return Proved(passed, wrong, observed)


def outcome(row: int, proved: Proved) -> str:
    """A cell of the table: what was observed, and the tests that say so."""
    tests = ROWS[row].proofs
    if not tests:
        return ROWS[row].note
    said = [*dict.fromkeys(proved.observed.get(row, []))]
    for test in tests:
        name = test.rpartition("::")[2]
        if test in proved.wrong:
            said.append(f"**{proved.wrong[test]}: {name}**")
        elif test not in proved.passed:
            said.append(f"**did not run: {name}**")
        elif not proved.observed.get(row):
            times = proved.passed[test]
            said.append(f"passes: {name}" + (f" ({times} cases)" if times > 1 else ""))
    return "; ".join(said).replace("|", "/")


def repeated() -> dict[int, str]:
    """Rows that Flower's own FedAvg repeats in a moment: row -> what it came to."""
    return {row: _tried(updates) for row, updates in _UPDATES.items()}


_ONE = np.ones(4, np.float32)
_UPDATES: Mapping[int, Callable[[], Iterator[tuple[np.ndarray, float]]]] = {
    8: lambda: iter([(_ONE, 100), (3 * _ONE, 100), (3 * _ONE, 100)]),
    9: lambda: iter([(_ONE, 100), (_ONE, 100), (_ONE * np.float32("nan"), 100)]),
    10: lambda: iter([(_ONE, 100), (_ONE, 100), (4 * _ONE[:1], 100)]),
    12: lambda: iter([(_ONE, 100), (_ONE, 100), (-9 * _ONE, 1e12)]),
    14: lambda: iter([(_ONE, 100), (_ONE, 100), (100 * _ONE, 100)]),
}


def _tried(updates: Callable[[], Iterator[tuple[np.ndarray, float]]]) -> str:
    """What FedAvg makes of three clients' updates, of which the right ones are ones."""
    from flwr.app import Array, ArrayRecord, Metadata, MetricRecord, RecordDict
    from flwr.serverapp.strategy import FedAvg

    from fedsys.flower import compat

    replies: list[Any] = []
    for node, (vector, weight) in enumerate(updates(), 1):
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(vector)}),
                "metrics": MetricRecord({"num-examples": weight}),
            }
        )
        metadata = Metadata(1, str(node), node, 1, str(node), "1", 0.0, 60.0, "train")
        replies.append(compat.built_message(metadata, content=content))
    try:
        arrays, _ = FedAvg().aggregate_train(1, replies)
    except Exception as error:  # whatever Flower raises is its outcome
        return f"again now: {type(error).__name__}"
    if arrays is None:
        return "again now: no model"
    return f"again now: mean of ones and that is {arrays['w'].numpy().ravel()[0]:g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; 1 where a test did not pass."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rows", type=int, nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--frozen", type=float, default=30.0, metavar="SECONDS")
    options = parser.parse_args(arguments)
    proofs = dict.fromkeys(proof for row in options.rows for proof in ROWS[row].proofs)
    proved = prove(list(proofs), options.frozen) if proofs else Proved({}, {}, {})
    again = repeated()
    rows = [
        [str(row), ROWS[row].fault, outcome(row, proved),
         "; ".join(filter(None, [ROWS[row].flower, again.get(row)]))]
        for row in options.rows
    ]  # fmt: skip
    print(table(["row", "fault", "fedsys, now", "plain Flower 1.41, measured"], rows))
    return 1 if proved.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
