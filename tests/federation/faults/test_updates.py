"""Rows 7 to 13 and 16 of the fault matrix: what one bank's real process does wrong.

One bank of three misbehaves, each round in another way. Its update is refused, with the reason and
the bank's name, the other two make the round, and the next round takes the bank in again.
"""

from pathlib import Path

import numpy as np
import pytest

from fedsys.admission import Reason
from tests.federation.faults.federation import at_round, ended, lines, until, weights
from tests.federation.faults.spoiled import BOMB, SECRET

BAD, GOOD = "bank-c", ["bank-a", "bank-b"]
REFUSED = [
    (9, "nan", Reason.FINITE),
    (10, "shape", Reason.SHAPE),
    (10, "broadcast", Reason.SHAPE),
    (11, "bomb", Reason.SHAPE),
    (11, "large 6000000", Reason.SHAPE),
    (12, "weight -200", Reason.WEIGHT),
    (12, "weight nan", Reason.WEIGHT),
    (12, "weight 1e12", Reason.WEIGHT),
    (12, "weight 0", Reason.WEIGHT),
    (10, "no-tensor", Reason.MISSING),
    (16, "raise", Reason.FAILED),
]


@pytest.fixture(scope="module")
def spoiled(federation):
    """A job in which each round has another fault, and the last has none."""
    faults = {round: kind for round, (_, kind, _) in enumerate(REFUSED, 1)}
    federation.plan(BAD, faults)
    job = federation.ask(rounds=len(REFUSED) + 1, quorum=2)
    assert ended(job) == "done", job.status.error
    federation.plan(BAD, {})
    return job


def test_each_bad_update_is_refused_with_its_reason_and_the_others_make_the_round(
    federation, spoiled, observed
):
    for (row, kind, reason), line in zip(REFUSED, lines(spoiled), strict=False):
        assert line["moved"] is True, kind
        assert line["banks"] == GOOD, kind
        assert line["missing"] == {BAD: str(reason)}, kind
        observed(row, f"{kind.split()[0]}: refused ({reason}), {len(GOOD)} of 3 aggregated")
    assert np.isfinite(weights(spoiled)).all()


def test_the_bank_is_in_again_once_it_does_right(spoiled):
    last = lines(spoiled)[-1]
    assert last["banks"] == [*GOOD, BAD]
    assert last["missing"] == {}


def test_each_refusal_is_in_the_coordinators_audit(federation, spoiled):
    run = spoiled.status.job[:16]
    found = [one["details"] for one in federation.audited("update refused")]
    ours = [(one["round"], one["bank"], one["reason"]) for one in found if one["run"] == run]
    wanted = [
        (round, BAD, str(reason))
        for round, (_, _, reason) in enumerate(REFUSED, 1)
        if reason is not Reason.FAILED
    ]
    assert ours == wanted


def test_what_claims_to_be_large_is_measured_before_it_is_read(federation):
    """16 bytes that claim 16 GiB: the server never had so much."""
    said = Path(f"/proc/{federation.server.pid}/status").read_text()
    peak = next(line for line in said.splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) * 1024 < BOMB


def test_the_text_of_an_exception_stays_at_its_bank(federation, spoiled, observed):
    def holding(folder):
        return [
            path.name
            for path in folder.rglob("*")
            if path.is_file() and (SECRET.encode() in path.read_bytes())
        ]

    at_bank = federation.banks[BAD].folder
    assert "trainer.log" in holding(at_bank), "its own people can read it"
    assert "audit.jsonl" not in holding(at_bank)
    assert holding(federation.home.folder) == []
    for name in GOOD:
        assert holding(federation.banks[name].folder) == []
    observed(16, "the text is in the bank's own trainer.log and nowhere else; a code travels")


def test_a_metric_that_nobody_asked_for_is_no_fault(federation, whole, observed):
    """Row 13: the weights count, and what came along is dropped."""
    federation.plan(BAD, {1: "metric", 2: "metric"})
    job = federation.ask(rounds=3, quorum=2)
    assert ended(job) == "done"
    federation.plan(BAD, {})
    assert all(line["banks"] == [*GOOD, BAD] for line in lines(job))
    np.testing.assert_array_equal(weights(job), whole(3))
    observed(13, "extra metric: dropped, its update counts")


def test_a_missing_loss_costs_that_bank_alone(federation, observed):
    federation.plan(BAD, {1: "no-loss"})
    job = federation.ask(rounds=2, quorum=2)
    assert ended(job) == "done"
    federation.plan(BAD, {})
    first, last = lines(job)
    assert first["moved"] and set(GOOD) <= set(first["banks"])
    assert last["banks"] == [*GOOD, BAD]
    what = "its update counts" if BAD in first["banks"] else "that update alone refused"
    observed(13, f"missing loss: {what}, run goes on")


def test_an_update_that_comes_twice_counts_once(federation, whole, observed):
    federation.plan(BAD, {1: "twice", 2: "twice"})
    job = federation.ask(rounds=3, quorum=2)
    assert ended(job) == "done", job.status.error
    federation.plan(BAD, {})
    np.testing.assert_array_equal(weights(job), whole(3))
    observed(8, "counted once: same weights as without the duplicate")


def test_a_slow_bank_is_late_and_the_others_go_on(federation, observed):
    federation.plan(BAD, {2: "slow 12"})
    job = federation.ask(rounds=4, quorum=2, deadline=8.0)
    at_round(job, 2)
    assert ended(job) == "done", job.status.error
    federation.plan(BAD, {})
    second = lines(job)[1]
    assert second["banks"] == GOOD
    assert second["missing"] == {BAD: str(Reason.LATE)}
    assert lines(job)[-1]["banks"] == [*GOOD, BAD], "its late answer counts nowhere"
    until(lambda: f"{BAD}: {Reason.LATE}" in federation.server.text(), "a word on it")
    observed(7, "slow bank late at the deadline and named, 2 of 3 aggregated; in again afterwards")
