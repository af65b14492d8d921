"""Rows 7 to 16 of the fault matrix: what one bank's real process does wrong.

One bank of three misbehaves, each round in another way. Its update is refused, with the reason and
the bank's name, the other two make the round, and the next round takes the bank in again.
"""

from pathlib import Path

import numpy as np
import pytest

from fedsys.admission import Reason
from fedsys.aggregators import Clipped, Krum, Median
from fedsys.errors import UsageError
from fedsys.federation.jobs.request import Request
from tests.federation.faults.federation import at_round, ended, lines, until, weights
from tests.federation.faults.honest import Honest
from tests.federation.faults.spoiled import BOMB, SECRET

BAD, GOOD = "bank-c", ["bank-a", "bank-b"]
REFUSED = [
    (9, "nan", Reason.FINITE),
    (10, "shape", Reason.SHAPE),
    (10, "broadcast", Reason.SHAPE),
    (11, "bomb", Reason.SHAPE),
    (11, "large 6000000", Reason.FORMAT),
    (12, "weight -200", Reason.WEIGHT),
    (12, "weight nan", Reason.WEIGHT),
    (12, "weight 1e12", Reason.WEIGHT),
    (12, "weight 0", Reason.WEIGHT),
    (10, "no-tensor", Reason.MISSING),
    (16, "raise", Reason.FAILED),
]


ROUNDS = [at + at // 2 + 1 for at in range(len(REFUSED))]
"""Of the faults: two in a row, then a good round, or the bank would not be asked any more."""


@pytest.fixture(scope="module")
def spoiled(federation):
    """A job with a fault of another kind in most rounds, and none in the last."""
    faults = {round: kind for round, (_, kind, _) in zip(ROUNDS, REFUSED, strict=True)}
    federation.plan(BAD, faults)
    job = federation.ask(rounds=ROUNDS[-1] + 1, quorum=2)
    assert ended(job) == "done", job.status.error
    federation.plan(BAD, {})
    return job


def test_each_bad_update_is_refused_with_its_reason_and_the_others_make_the_round(
    federation, spoiled, observed
):
    by_round = {line["round"]: line for line in lines(spoiled)}
    for (row, kind, reason), round in zip(REFUSED, ROUNDS, strict=True):
        line = by_round[round]
        assert line["moved"] is True, kind
        assert line["banks"] == GOOD, kind
        assert line["missing"] == {BAD: str(reason)}, kind
        observed(row, f"{kind.split()[0]}: refused ({reason}), {len(GOOD)} of 3 aggregated")
    assert np.isfinite(weights(spoiled)).all()


def test_the_bank_is_in_again_once_it_does_right(spoiled):
    good = [line for line in lines(spoiled) if line["round"] not in ROUNDS]
    assert len(good) == len(REFUSED) // 2 + 1
    assert all(line["banks"] == [*GOOD, BAD] and line["missing"] == {} for line in good)


def test_each_refusal_is_in_the_coordinators_audit(federation, spoiled):
    run = spoiled.status.job[:16]
    found = [one["details"] for one in federation.audited("update refused")]
    ours = [(one["round"], one["bank"], one["reason"]) for one in found if one["run"] == run]
    wanted = [
        (round, BAD, str(reason))
        for round, (_, _, reason) in zip(ROUNDS, REFUSED, strict=True)
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
    assert holding(federation.flower) == []
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
    np.testing.assert_array_equal(weights(job), whole)
    said = f"{BAD}: admitted; sent metrics that nobody asked for: dropped"
    assert federation.server.text().count(said) == 1, "told once, without the metric's name"
    observed(13, "extra metric: dropped and told, its update counts")


def test_a_missing_loss_costs_nothing_but_itself(federation, whole, observed):
    """Row 13: the weights count, and the mean of the loss is that of the other banks."""
    federation.plan(BAD, {1: "no-loss"})
    job = federation.ask(rounds=3, quorum=2)
    assert ended(job) == "done"
    federation.plan(BAD, {})
    assert all(line["banks"] == [*GOOD, BAD] for line in lines(job))
    assert all(np.isfinite(line["train_loss"]) for line in lines(job))
    np.testing.assert_array_equal(weights(job), whole)
    assert f"{BAD}: admitted; gave no loss" in federation.server.text()
    observed(13, "missing loss: told, its update counts")


def test_an_update_that_comes_twice_counts_once(federation, whole, observed):
    federation.plan(BAD, {1: "twice", 2: "twice"})
    job = federation.ask(rounds=3, quorum=2)
    assert ended(job) == "done", job.status.error
    federation.plan(BAD, {})
    np.testing.assert_array_equal(weights(job), whole)
    observed(8, "counted once: same weights as without the duplicate")


def test_a_slow_bank_is_late_and_the_others_go_on(federation, observed):
    federation.plan(BAD, {2: "slow 6"})
    job = federation.ask(rounds=4, quorum=2, grace=4.0)
    at_round(job, 2)
    assert ended(job) == "done", job.status.error
    federation.plan(BAD, {})
    second = lines(job)[1]
    assert second["banks"] == GOOD
    assert second["missing"] == {BAD: str(Reason.LATE)}
    assert lines(job)[-1]["banks"] == [*GOOD, BAD], "its late answer counts nowhere"
    until(lambda: f"{BAD}: {Reason.LATE}" in federation.server.text(), "a word on it")
    observed(7, "slow bank late after its grace and named, 2 of 3 aggregated; in again afterwards")


def test_a_bank_that_is_refused_three_times_in_a_row_is_in_quarantine(federation, observed):
    """Row 9: the job goes on without it, and says why; the next job asks it again."""
    federation.plan(BAD, {1: "nan", 2: "nan", 3: "nan", 4: "nan", 5: "nan"})
    job = federation.ask(rounds=5, quorum=2)
    assert ended(job) == "done", job.status.error
    federation.plan(BAD, {})
    reason = str(Reason.FINITE)
    assert [line["missing"] for line in lines(job)] == [{BAD: reason}] * 3 + [{}] * 2
    assert [line["admitted"] + line["refused"] for line in lines(job)] == [3, 3, 3, 2, 2]
    run = job.status.job[:16]
    found = [one["details"] for one in federation.audited("bank quarantined")]
    assert [one for one in found if one["run"] == run] == [
        {"run": run, "round": 3, "bank": BAD, "reason": reason}
    ]
    next_job = federation.ask(rounds=1, quorum=2)
    assert ended(next_job) == "done"
    assert lines(next_job)[0]["banks"] == [*GOOD, BAD]
    observed(9, "three times in a row: quarantined, not asked again in that job")


# --- rows 14 and 15: updates that no gate can tell from honest ones ------------------------------


def path_of(federation, job, factors, combine):
    """The weights that a job should come to, and after its first round.

    factors: by what the bad bank multiplies its update, round by round. combine: (bank -> update,
    bank -> rows) -> movement, in float64.
    """
    honest = Honest(federation, job)
    weights, after = honest.start, []
    for round, factor in enumerate(factors, 1):
        moves = honest.moves(round, weights.astype(np.float32))
        moved = combine({**moves, BAD: factor * moves[BAD]}, honest.rows)
        if factor != 1:
            low, high = (f([moves[name] for name in GOOD], axis=0) for f in (np.min, np.max))
            after.append((moved, low, high))
        weights = weights + moved
    return weights, after


def test_a_median_of_three_holds_against_one_bank(federation, observed):
    """Row 14. The numbers are those of the papers' median, from the banks' own rows."""
    factors = [100.0, -1.0, -100.0, 1.0]
    plan = {round: f"times {by:g}" for round, by in enumerate(factors, 1) if by != 1}
    federation.plan(BAD, plan)
    job = federation.ask(rounds=len(factors), quorum=3, aggregator=Median())
    assert ended(job) == "done", job.status.error
    federation.plan(BAD, {})
    assert all(line["banks"] == [*GOOD, BAD] for line in lines(job)), "no gate can see it"

    def median(moves, rows):
        return np.sort(np.array(list(moves.values())), axis=0)[1]

    def mean(moves, rows):
        return sum(rows[name] * move for name, move in moves.items()) / sum(rows.values())

    expected, spoiled = path_of(federation, job, factors, median)
    np.testing.assert_allclose(weights(job), expected, rtol=0, atol=1e-6)
    assert all(((low <= moved) & (moved <= high)).all() for moved, low, high in spoiled)
    poisoned, _ = path_of(federation, job, factors, mean)
    assert np.abs(poisoned - expected).max() > 1, "a mean is led astray"
    observed(14, "median, quorum 3: x100, sign flip and both leave the model within the honest two")


@pytest.mark.parametrize("said", ["krum:1", "krum:1,2", "trimmed:2"])
def test_a_rule_that_three_banks_are_too_few_for_is_refused_before_anything_is_sent(
    federation, cli, tmp_path, observed, said
):
    """Row 14: by the command line with exit code 2, whether the quorum was said or not."""
    before = len(federation.audited("job signed"))
    for quorum in ("quorum = 3", ""):
        (tmp_path / "job.toml").write_text(
            f'name = "out-of-bounds"\nmodel = "logistic"\n{quorum}\naggregator = "{said}"\n'
        )
        outcome = cli("federation", "run", "job.toml", "--home", federation.home.folder)
        outcome.refused(
            2, f"aggregator {said} needs 5 updates and the quorum is 3: raise the quorum to 5, or "
            "use median",
        )  # fmt: skip
    assert not (federation.home.folder / "jobs" / "out-of-bounds").exists()
    assert len(federation.audited("job signed")) == before
    observed(14, f"{said}: refused at three banks (exit code 2)")


def test_a_job_out_of_bounds_that_nobody_looked_at_ends_before_it_is_signed(federation):
    """Put into the folder by hand, past the command line."""
    before = len(federation.audited("job signed"))
    job = federation.ask(rounds=1, aggregator=Krum(1))  # its quorum is the federation's
    assert ended(job) == "failed"
    assert job.status.code == UsageError.code
    assert "krum:1 needs 5 updates and the quorum is 3" in job.status.error
    assert len(federation.audited("job signed")) == before
    with pytest.raises(UsageError, match="krum:1 needs 5 updates and the quorum is 3"):
        Request(name="x", quorum=3, aggregator=Krum(1))


def test_updates_without_a_length_and_far_too_long_are_bounded(federation, observed):
    """Row 15: norm clipping divides by the norm, which is 0 where a bank says it did not move."""
    bound, factors = 0.05, [0.0, 100.0, 1.0]
    federation.plan(BAD, {1: "times 0", 2: "times 100"})
    job = federation.ask(rounds=len(factors), quorum=3, aggregator=Clipped(bound))
    assert ended(job) == "done", job.status.error
    federation.plan(BAD, {})

    def clipped(moves, rows):
        parts = {
            name: move / max(1.0, np.sqrt((move**2).sum()) / bound) for name, move in moves.items()
        }
        return sum(rows[name] * part for name, part in parts.items()) / sum(rows.values())

    expected, spoiled = path_of(federation, job, factors, clipped)
    np.testing.assert_allclose(weights(job), expected, rtol=0, atol=1e-6)
    assert all(np.linalg.norm(moved) <= bound for moved, _, _ in spoiled)
    assert all(line["banks"] == [*GOOD, BAD] for line in lines(job))
    observed(15, f"clipped:{bound:g}: a zero update counts as zero, one of x100 as {bound:g}")
