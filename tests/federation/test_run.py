"""Who takes part in a job from round to round: banks that misbehave, stay away, come and go."""

import threading

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys.admission import Reason
from fedsys.errors import QuorumError, Stopped
from fedsys.federation.commands.status import overview, text
from fedsys.federation.jobs.folder import PAUSED, resume_job, stop_job
from fedsys.federation.jobs.quarantine import LIMIT, round_lines
from fedsys.federation.jobs.run import read_result
from fedsys.strategies import Scaffold
from fedsys.trust.keys import make_keys
from tests.federation.banks_in_process import in_process, made_by, rows, spoil


@pytest.fixture
def three(tmp_path):
    with in_process(tmp_path, 3) as federation:
        yield federation


@pytest.fixture
def two_of_three(tmp_path):
    """The third has enrolled, and nobody has approved it yet."""
    with in_process(tmp_path, 3, approved=2) as federation:
        yield federation


def bad(client, *rounds):
    return {(client, round): spoil for round in rounds}


class Killed(BaseException):
    """Stands for a coordinator's death."""


def kill(round):
    raise Killed


# --- models of one's own --------------------------------------------------------------------------


def test_a_job_goes_on_from_the_weights_of_its_own_model(three, tmp_path):
    """The banks here move a tenth of the way to points of their own, whatever the loss."""
    import keras

    inputs = keras.Input((len(three.home.schema.inputs),), name="rows")
    model = keras.Model(inputs, keras.layers.Dense(1, name="last")(inputs), name="own")
    model.set_weights([np.full(weight.shape, 5.0) for weight in model.get_weights()])
    model.save(tmp_path / "own.keras")
    job = three.ask(rounds=1, model=str(tmp_path / "own.keras"))
    three.run(job)
    count = model.count_params()
    points = [np.random.default_rng(client).normal(size=count) for client in range(3)]
    mean = np.average(points, axis=0, weights=[rows(client) for client in range(3)])
    found = np.concatenate([tensor.ravel() for tensor in read_result(job).values()])
    np.testing.assert_allclose(found, 5 + 0.1 * (mean - 5), atol=3e-6)


# --- stopping -------------------------------------------------------------------------------------


def test_a_job_that_is_stopped_keeps_its_rounds_and_comes_to_the_same_model(three):
    whole = three.ask("whole", rounds=4)
    three.run(whole)
    job = three.ask("stopped", rounds=4)
    three.grid.before = lambda round: stop_job(job, served=True) if round == 2 else None
    with pytest.raises(Stopped, match="resume stopped goes on with it") as raised:
        three.run(job)
    assert [line["round"] for line in round_lines(job.metrics)] == [1, 2]
    job.failed(raised.value, PAUSED)
    three.grid.before = lambda round: None
    resume_job(job)
    three.run(job)
    assert [line["round"] for line in round_lines(job.metrics)] == [1, 2, 3, 4]
    found, wanted = read_result(job), read_result(whole)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("statistics", [True, False])
def test_a_job_that_waits_for_people_can_be_stopped(three, statistics):
    for name in three.names:
        three.stands(name, statistics=statistics)
    job = three.ask(rounds=1)
    timer = threading.Timer(0.7, lambda: stop_job(job, served=True))
    timer.start()
    with pytest.raises(Stopped):
        three.run(job)
    timer.join()
    assert job.status.round == 0


# --- quarantine -----------------------------------------------------------------------------------


def test_a_bank_that_is_refused_three_times_in_a_row_is_not_asked_again(three):
    """Not by a coordinator that was killed and started again either; the next job asks it."""
    three.grid.faults = bad(2, 1, 2, 3)
    job = three.ask(rounds=6)
    three.grid.before = lambda round: kill(round) if round == 5 else None
    with pytest.raises(Killed):
        three.run(job)
    three.grid.before = lambda round: None
    three.run(job)
    assert three.asked("bank-c") == [1, 2, 3]
    assert made_by(job) == ["ab"] * 6
    lines = round_lines(job.metrics)
    reason = str(Reason.FINITE)
    assert [line["missing"] for line in lines] == [{"bank-c": reason}] * LIMIT + [{}] * 3
    assert [line.get("quarantined") for line in lines] == [None] * 2 + [{"bank-c": reason}] * 4
    run = job.status.job[:16]
    assert three.audited("bank quarantined") == [
        {"run": run, "round": 3, "bank": "bank-c", "reason": reason}
    ]
    assert sum(line.startswith("bank-c: 3 updates in a row were refused") for line in three.said)
    view = overview(three.home)
    assert view.jobs[0].quarantined == {"bank-c": reason}
    assert "quarantined: bank-c (not finite); bank-c missed 3 of 3 rounds" in text(view)
    assert view.jobs[0].participation == {"bank-a": (6, 6), "bank-b": (6, 6), "bank-c": (0, 3)}
    three.grid.faults = {}
    again = three.ask("second", rounds=1)
    three.run(again)
    assert made_by(again) == ["abc"]


def test_whoever_resumes_a_job_has_the_bank_asked_again(three):
    three.grid.faults = bad(2, 1, 2, 3)
    job = three.ask(rounds=5, deadline=0.2)
    three.grid.before = lambda round: three.grid.away.add(1) if round == 4 else None
    with pytest.raises(QuorumError, match="1 of 2 banks that are needed") as raised:
        three.run(job)
    assert three.asked("bank-c") == [1, 2, 3]
    job.failed(raised.value, PAUSED)
    three.grid.away.clear()
    three.grid.before = lambda round: None
    resume_job(job)
    three.run(job)
    assert made_by(job) == ["ab", "ab", "ab", "abc", "abc"]
    assert overview(three.home).jobs[0].quarantined == {}


def test_a_job_with_too_few_left_says_whose_fault_it_is(three):
    three.grid.faults = bad(2, 1, 2, 3)
    job = three.ask(rounds=9)
    three.grid.before = lambda round: three.banks.approve("bank-b", False) if round == 4 else None
    with pytest.raises(QuorumError, match="needs 2 banks and 1 take part; bank-c sent updates"):
        three.run(job)
    assert made_by(job) == ["ab"] * 4


# --- banks that stay away -------------------------------------------------------------------------


def test_a_bank_that_stays_away_costs_no_deadline(three):
    """The first round gives it its grace, and the others nothing: all wait for ever otherwise."""
    three.run(three.ask("before", rounds=1))
    three.grid.away = {2}
    job = three.ask(rounds=4, grace=0.1)
    three.run(job)
    assert [line["missing"] for line in round_lines(job.metrics)] == [
        {"bank-c": str(Reason.LOST)}
    ] * 4
    assert len(three.audited("bank lost")) == 4


def test_a_bank_that_is_back_takes_part_from_the_next_round_on(three):
    three.run(three.ask("before", rounds=1))
    three.grid.away = {2}
    job = three.ask(rounds=4, grace=0.0)
    three.grid.before = lambda round: three.grid.away.clear() if round == 3 else None
    three.run(job)
    assert made_by(job) == ["ab", "ab", "abc", "abc"]
    run = job.status.job[:16]
    assert three.audited("bank rejoined") == [{"run": run, "round": 3, "bank": "bank-c"}]


# --- banks that come and go while a job runs ------------------------------------------------------


def test_a_bank_that_is_approved_meanwhile_takes_part_from_the_next_round_on(two_of_three):
    federation = two_of_three
    approve = federation.banks.approve
    federation.grid.before = lambda round: approve("bank-c") if round == 2 else None
    job = federation.ask(rounds=5)
    federation.run(job)
    made = made_by(job)
    assert made[:2] == ["ab", "ab"] and made[-2:] == ["abc", "abc"]
    assert federation.asked("bank-c") == [round for round, one in enumerate(made, 1) if "c" in one]
    assert any(line.startswith("bank-c: takes part from round") for line in federation.said)
    received = [one["bank"] for one in federation.audited("statistics received")]
    assert received == ["bank-a", "bank-b", "bank-c"]
    prepared = (federation.home.folder / "preparation.json").read_bytes()
    federation.run(federation.ask("next", rounds=1))
    assert (federation.home.folder / "preparation.json").read_bytes() == prepared


def test_a_newcomer_that_sees_each_job_first_takes_part_once_it_has_approved(two_of_three):
    federation = two_of_three

    def happens(round):
        if round == 1:
            federation.banks.approve("bank-c")
        if round == 4:
            federation.stands("bank-c", jobs=[job.status.job])

    federation.stands("bank-c", statistics=True)
    federation.grid.before = happens
    job = federation.ask(rounds=6)
    federation.run(job)
    assert made_by(job) == ["ab"] * 4 + ["abc"] * 2
    said = [line for line in federation.said if line.startswith("bank-c: could take part")]
    assert said == [f"bank-c: could take part: fedsys bank jobs approve {job.status.job[:12]}"]


def test_a_bank_that_refuses_meanwhile_is_not_asked_any_more(three):
    job = three.ask(rounds=4)
    three.grid.before = lambda round: (
        three.stands("bank-a", refused=[job.status.job]) if round == 2 else None
    )
    three.run(job)
    assert made_by(job) == ["abc", "abc", "bc", "bc"]


def test_a_bank_that_was_away_at_the_beginning_takes_part_when_it_is_there(three):
    three.grid.away = {2}
    three.grid.before = lambda round: three.grid.away.clear() if round == 2 else None
    job = three.ask(rounds=5, grace=0.1)
    three.run(job)
    made = made_by(job)
    assert made[0] == "ab" and made[-2:] == ["abc", "abc"]


def test_a_bank_that_is_no_longer_approved_is_out_from_the_next_round_on(three):
    approve = three.banks.approve
    three.grid.before = lambda round: approve("bank-a", False) if round == 2 else None
    job = three.ask(rounds=4)
    three.run(job)
    assert made_by(job) == ["abc", "abc", "bc", "bc"]


def test_where_the_strategy_remembers_a_newcomer_waits_for_the_next_job(two_of_three, tmp_path):
    """One more in the mean of the banks' own vectors would make it another mean."""
    federation = two_of_three
    approve = federation.banks.approve
    whole = federation.ask("whole", strategy=Scaffold())
    federation.run(whole)

    def happens(round):
        if round == 2:
            approve("bank-c")
        if round == 4:
            raise Killed

    federation.grid.before = happens
    job = federation.ask("meets", strategy=Scaffold())
    with pytest.raises(Killed):
        federation.run(job)
    federation.grid.before = lambda round: None
    federation.run(job)
    assert made_by(job) == ["ab"] * 5
    for name, tensor in read_result(whole).items():
        np.testing.assert_array_equal(read_result(job)[name], tensor)
    later = federation.ask("later", strategy=Scaffold(), rounds=1)
    federation.run(later)
    assert made_by(later) == ["abc"]


# --- metrics --------------------------------------------------------------------------------------


def test_a_round_without_any_loss_has_none_written_down(three):
    def forget(content):
        from fedsys.flower.rounds.messages import ANSWER

        del content[ANSWER]["loss"]

    three.grid.faults = {(client, 1): forget for client in range(3)} | {(2, 2): forget}
    job = three.ask(rounds=3)
    three.run(job)
    assert made_by(job) == ["abc"] * 3
    assert [line["train_loss"] for line in round_lines(job.metrics)] == [None, 0.5, 1.0]
    assert three.said.count("bank-c: admitted; gave no loss") == 1
    assert any("no loss" in line and line.startswith("round 1/3") for line in three.said)


def test_a_bank_that_enrols_anew_is_asked_for_its_statistics_anew(three, tmp_path):
    """It may have other rows than who had its name before."""
    three.run(three.ask("first", rounds=1))
    three.run(three.ask("second", rounds=1))
    said = [one["bank"] for one in three.audited("statistics received")]
    assert sorted(said) == three.names
    three.banks.add("bank-b", make_keys(tmp_path / "anew").public)
    three.banks.approve("bank-b")
    three.run(three.ask("third", rounds=1))
    assert [one["bank"] for one in three.audited("statistics received")] == [*said, "bank-b"]
