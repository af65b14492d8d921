"""Rounds of the compiled engine under each aggregator: of honest clients, and of some that are not.

What is expected is made in float64 from each client's own movement, which the engine gives for a
cohort of one.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

import fedsys
from fedsys.admission import Reason
from fedsys.aggregators import Clipped, Krum, Mean, Median, TrimmedMean
from fedsys.clients.faults import ATTACKS, FAULTS
from fedsys.errors import QuorumError, StorageError
from fedsys.experiment import Experiment
from fedsys.local import Local
from fedsys.report.contents import read
from fedsys.report.headline import heading
from fedsys.rounds import PATIENCE
from fedsys.strategies import FedAvg

from ..federations import Federation, by_sizes, linear_task
from . import oracle

PARTITION = by_sizes([7, 13, 3, 0, 22, 5, 9, 16, 4, 11])
HELD = np.flatnonzero(PARTITION.sizes > 0)
LOCAL = Local(epochs=2, batch=4, rate=0.05)
RULES = {
    "median": (Median(), oracle.median),
    "trimmed": (TrimmedMean(2), lambda given: oracle.trimmed(given, 2)),
    "krum": (Krum(2), lambda given: oracle.krum(given, 2)),
    "multi-krum": (Krum(2, 3), lambda given: oracle.krum(given, 2, 3)),
}


def federation(aggregator=None, fault=None, **engine):
    aggregator = aggregator or Mean()
    return Federation(
        linear_task(PARTITION), PARTITION, FedAvg(), LOCAL, **{
            "aggregator": aggregator, "fault": fault, "xla": False, **engine
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone():
    """[clients with rows, numbers], how far each honest client moves in the first round."""
    run = federation()
    return np.array([run.round([client]).delta for client in HELD])


@pytest.mark.parametrize("xla", [True, False])
@pytest.mark.parametrize("name", RULES)
def test_the_movement_is_what_the_rule_makes_of_the_clients(name, xla, alone):
    rule, papers = RULES[name]
    run = federation(rule, xla=xla, workers=3)
    got = run.round(np.arange(len(PARTITION)))
    np.testing.assert_allclose(got.delta, papers(alone), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(got.admitted, HELD)
    assert (got.empty, got.weight) == (1, PARTITION.sizes.sum())
    again = run.round(np.arange(len(PARTITION))[::-1])
    np.testing.assert_array_equal(again.delta, got.delta)


@pytest.mark.parametrize("uniform", [True, False])
def test_clipping_bounds_each_update_and_keeps_the_weights(uniform, alone):
    bound = float(np.median(np.linalg.norm(alone, axis=1)))  # half of them are longer
    weights = np.ones(len(HELD)) if uniform else PARTITION.sizes[HELD]
    got = federation(Clipped(bound), uniform=uniform).round(np.arange(len(PARTITION)))
    expected = oracle.clipped(alone, weights, bound)
    np.testing.assert_allclose(got.delta, expected, rtol=1e-9)
    mean = np.average(alone, axis=0, weights=weights)
    assert np.abs(expected - mean).max() > 1e-2 * np.abs(mean).max(), "it makes a difference"


# --- clients that are not honest -----------------------------------------------------------------


def spoiled(alone, attack, struck):
    """The clients' movements where some of them attack."""
    size = {"times-100": 100.0, "sign-flip": -1.0, "zero-update": 0.0}[attack]
    return np.where(struck[:, None], size * alone, alone)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("name", [*RULES, "clipped"])
def test_attackers_are_counted_as_the_rule_says(name, attack, alone):
    """No gate can see them: they are admitted, and the rule is what holds against them."""
    fault = FAULTS.parse(f"{attack}:0.25")
    if name == "clipped":
        rule, weights = Clipped(0.3), PARTITION.sizes[HELD]
        papers = lambda given: oracle.clipped(given, weights, 0.3)  # noqa: E731
    else:
        rule, papers = RULES[name]
    run = federation(rule, fault)
    struck = fault.strikes(run.seed, 1, HELD)
    assert struck.sum() == 2
    got = run.round(np.arange(len(PARTITION)))
    assert not got.refused and len(got.admitted) == len(HELD)
    expected = papers(spoiled(alone, attack, struck))
    np.testing.assert_allclose(got.delta, expected, rtol=1e-9, atol=1e-12)
    if name in ("median", "trimmed"):
        honest = alone[~struck]
        assert (got.delta >= honest.min(axis=0)).all() and (got.delta <= honest.max(axis=0)).all()
    if name == "clipped":
        assert np.linalg.norm(got.delta) <= 0.3


@pytest.mark.parametrize("name", RULES)
def test_what_the_gate_refuses_the_rule_never_sees(name, alone):
    fault = FAULTS.parse("nan:0.25")
    rule, papers = RULES[name]
    run = federation(rule, fault)
    struck = fault.strikes(run.seed, 1, HELD)
    got = run.round(np.arange(len(PARTITION)))
    assert [refusal.reason for refusal in got.refused] == [Reason.FINITE] * int(struck.sum())
    np.testing.assert_allclose(got.delta, papers(alone[~struck]), rtol=1e-9, atol=1e-12)


def test_a_cohort_that_does_not_move_at_all_is_no_fault_of_a_bound():
    """Row 15 of the fault matrix: dividing by a norm of 0."""
    with np.errstate(all="raise"):
        got = federation(Clipped(1.0), FAULTS.parse("zero-update:1")).round(HELD)
    assert len(got.admitted) == len(HELD) and not got.delta.any()


def test_a_few_attackers_ruin_a_mean_and_no_robust_rule():
    """Clients with the same truth; two in nine send a hundred times the opposite."""

    class Opposite(ATTACKS["times-100"]):
        def spoil(self, update, client):
            tensors = {name: -100 * tensor for name, tensor in update.tensors.items()}
            return type(update)(tensors, update.weight)

    rng = np.random.default_rng(1)
    task = linear_task(PARTITION)
    x = task.train.inputs
    truth = np.array([1.0, -2.0, 0.5, 3.0])
    task.train.labels[:] = x @ truth + 0.5 + rng.normal(size=len(x)) * 0.01

    def reached(aggregator, fault):
        run = Federation(
            task, PARTITION, FedAvg(), LOCAL, aggregator=aggregator, fault=fault, xla=False
        )
        return float(np.abs(run.run(15)[-1].weights - [*truth, 0.5]).max())

    class Two(Opposite):
        def strikes(self, seed, round, clients):
            return np.isin(clients, [1, 4])  # the largest among them

    assert reached(Mean(), None) < 0.1
    for rule, _ in RULES.values():
        assert reached(rule, Two()) < 0.6  # they began 2.9 away; robust rules are slower
    assert reached(Mean(), Two()) > 1e6


# --- too few -------------------------------------------------------------------------------------


def test_rounds_with_fewer_updates_than_are_needed_leave_the_model_and_end_the_run():
    run = federation(Krum(2), FAULTS.parse("nan:0.6"))
    assert PATIENCE == 3
    with pytest.raises(QuorumError, match=r"of 9 updates .* fewer than the 7 that the aggregator "):
        run.run(5, quorum=0.1)
    got = run.round(np.arange(len(PARTITION)))
    assert 1 <= len(got.admitted) < 7 and not got.delta.any()


def test_rounds_of_too_few_clients_with_rows_say_so():
    run = Federation(
        linear_task(PARTITION), PARTITION, FedAvg(), LOCAL, aggregator=Median(), xla=False
    )
    with pytest.raises(QuorumError, match=r"2 of 2 updates .* raise --cohort"):
        for _ in run.rounds(3, lambda round: np.array([0, 1, 3])):
            pass


# --- a run goes on -------------------------------------------------------------------------------


def test_a_run_that_is_resumed_keeps_its_aggregator(tmp_path, no_pictures):
    def experiment(rounds, aggregator="krum:1,2"):
        return Experiment(
            clients=8, cohort=6, quorum=1.0, aggregator=aggregator, rounds=rounds, evaluate=0,
            faults="sign-flip:0.1", local=Local(epochs=1),
        )  # fmt: skip

    whole = fedsys.simulate(experiment(4), folder=tmp_path / "whole", workers=1)
    fedsys.simulate(experiment(2), folder=tmp_path / "cut", workers=1)
    cut = fedsys.resume(tmp_path / "cut", rounds=4, workers=1)
    last = "checkpoints/round-00000004.checkpoint"
    assert (cut.folder / last).read_bytes() == (whole.folder / last).read_bytes()
    said = tomllib.loads((cut.folder / "experiment.toml").read_text())
    assert said["aggregator"] == {"name": "krum", "faulty": 1, "keep": 2}

    (cut.folder / "experiment.toml").write_text(experiment(6, "median").toml())
    with pytest.raises(StorageError, match="is of another experiment"):
        fedsys.resume(tmp_path / "cut", rounds=6, workers=1)


def test_the_command_line_takes_one_and_the_report_names_it(cli, no_pictures):
    outcome = cli(
        "simulate", "--task", "synthetic", "--rounds", 2, "--aggregator", "trimmed:2",
        "--faults", "times-100:0.1", "--workers", 1, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    [folder] = Path("runs").iterdir()
    said = tomllib.loads((folder / "experiment.toml").read_text())
    assert said["aggregator"] == {"name": "trimmed", "faulty": 2}
    assert ("trimmed", "faulty 2") in heading(read(fedsys.Run.open(folder)))
