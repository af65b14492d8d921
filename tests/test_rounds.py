"""The round loop: what moves the model, what does not, and what ends a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from fedsys.admission import Reason, Refusal
from fedsys.clients.faults import FAULTS
from fedsys.engine import Aggregate
from fedsys.errors import QuorumError, TrainingError
from fedsys.layout import Layout
from fedsys.local import Local
from fedsys.rounds import PATIENCE, State, begin, draw_cohort, run_rounds
from fedsys.strategies import FedAvg, FedAvgM, Scaffold

from .federations import Federation, by_sizes, linear_task

LAYOUT = Layout(("0.kernel", "1.mean"), ((2,), (1,)), 1, np.dtype("float64"))
START = np.array([1.0, 2.0, 3.0])


class Canned:
    """An engine that gives one aggregate after another."""

    def __init__(self, *aggregates):
        self.left, self.seen = list(aggregates), []

    def run(self, work):
        self.seen.append(work)
        return self.left.pop(0)


def good(clients=4, refused=0, **kinds):
    """`clients` admitted updates and some refused ones."""
    refusals = tuple(Refusal(100 + i, Reason.SHAPE, loss=1.0) for i in range(refused))
    some = {
        "delta": np.array([0.5, -0.5, 0.25]),
        "weight": 10.0,
        "admitted": np.arange(clients),
        "losses": np.linspace(1, 2, clients),
        "refused": refusals,
    }
    return Aggregate(**{**some, **kinds})


NOTHING = {"delta": np.zeros(3), "weight": 0.0}


def bad(refused=3, clients=0):
    return good(clients, refused, **({} if clients else NOTHING))


def empty():
    return good(0, 0, **NOTHING, empty=4)


def rounds(*aggregates, strategy=None, quorum=0.5, population=40.0, state=None):
    strategy = strategy or FedAvg()
    engine = Canned(*aggregates)
    run = run_rounds(
        state or begin(strategy, LAYOUT, START),
        strategy,
        engine,
        LAYOUT,
        cohorts=lambda round: np.arange(4) + round,
        population=population,
        rounds=len(aggregates) + (state.round if state else 0),
        quorum=quorum,
    )
    return engine, run


def test_weights_and_buffers_move_and_the_next_round_begins_there():
    engine, run = rounds(good(), good(), strategy=FedAvg(rate=0.5))
    states = [state for state, _ in run]
    np.testing.assert_allclose(states[0].weights, [1.25, 1.75, 3.25])
    np.testing.assert_allclose(states[1].weights, [1.5, 1.5, 3.5])
    assert [work.round for work in engine.seen] == [1, 2]
    np.testing.assert_array_equal(engine.seen[0].anchor, START)
    np.testing.assert_array_equal(engine.seen[1].anchor, states[0].weights)
    np.testing.assert_array_equal(engine.seen[1].cohort, np.arange(4) + 2)


def test_a_state_is_a_value_and_is_not_changed_by_the_rounds_after_it():
    _, run = rounds(good(), good(), good(), strategy=FedAvgM())
    states = [state for state, _ in run]
    _, again = rounds(good(), strategy=FedAvgM())
    np.testing.assert_array_equal(states[0].weights, next(again)[0].weights)


def test_rounds_go_on_from_a_state_as_if_there_had_been_no_break():
    _, run = rounds(good(), good(), good(), strategy=FedAvgM())
    states = [state for state, _ in run]
    _, rest = rounds(good(), good(), strategy=FedAvgM(), state=states[0])
    for (state, _), expected in zip(rest, states[1:], strict=True):
        assert state.round == expected.round
        np.testing.assert_array_equal(state.weights, expected.weights)


def test_a_strategy_hears_what_part_of_the_population_it_heard():
    aggregate = good(drift=np.array([1.0, 2.0]), memory={3: np.ones(2)})
    _, run = rounds(aggregate, strategy=Scaffold())
    state, _ = next(run)
    np.testing.assert_allclose(state.server.control, [0.25, 0.5])  # 10 of 40
    assert list(state.memory) == [3]


def test_memories_of_earlier_rounds_are_kept():
    first, second = ({k: np.full(2, float(n)) for k in ks} for n, ks in ((1, (0, 1)), (2, (1, 2))))
    kinds = {"drift": np.zeros(2)}
    _, run = rounds(good(memory=first, **kinds), good(memory=second, **kinds), strategy=Scaffold())
    (one, _), (two, _) = run
    assert {k: v[0] for k, v in one.memory.items()} == {0: 1, 1: 1}
    assert {k: v[0] for k, v in two.memory.items()} == {0: 1, 1: 2, 2: 2}


@pytest.mark.parametrize(
    "admitted, refused, quorum, moved",
    [
        (2, 2, 0.5, True),
        (1, 2, 0.5, False),
        (1, 9, 0.1, True),
        (3, 1, 1.0, False),
        (4, 0, 1.0, True),
    ],
)
def test_the_model_moves_if_enough_updates_are_admitted(admitted, refused, quorum, moved):
    _, run = rounds(good(admitted, refused), quorum=quorum)
    state, happened = next(run)
    assert happened.moved is moved
    assert (state.weights != START).any() == moved
    assert (state.round, state.missed) == (1, int(not moved))


def test_three_rounds_in_a_row_without_a_quorum_end_the_run():
    _, run = rounds(*[bad(3, 1)] * 5)
    states = []
    with pytest.raises(QuorumError) as ended:
        states.extend(state for state, _ in run)
    assert str(ended.value) == (
        "round 3: 1 of 4 updates were admitted, fewer than the quorum of 0.5, 3 rounds in a row "
        "(3 wrong shape): mend the clients or lower --quorum"
    )


def test_the_last_round_is_yielded_before_the_run_ends():
    _, run = rounds(*[bad(3, 1)] * 5)
    for missed in range(1, PATIENCE + 1):
        state, happened = next(run)
        assert state.missed == missed and not happened.moved
        np.testing.assert_array_equal(state.weights, START)
        assert happened.refusals == {"wrong shape": 3}
    with pytest.raises(QuorumError):
        next(run)


def test_a_good_round_begins_the_count_anew():
    _, run = rounds(bad(), bad(), good(), bad(), bad())
    assert [state.missed for state, _ in run] == [1, 2, 0, 1, 2]


def test_the_count_goes_on_after_a_break():
    _, run = rounds(bad(), state=State(7, begin(FedAvg(), LAYOUT, START).server, START[2:], {}, 2))
    assert next(run)[0].missed == 3
    with pytest.raises(QuorumError, match=r"^round 8: "):
        next(run)


def test_a_cohort_without_rows_moves_nothing_and_is_no_missed_quorum():
    _, run = rounds(*[empty()] * 5)
    for state, happened in run:
        assert not happened.moved and state.missed == 0
        assert np.isnan(happened.loss)
        np.testing.assert_array_equal(state.weights, START)


def test_a_cohort_without_rows_does_not_begin_the_count_anew():
    _, run = rounds(bad(), empty(), bad(), bad())
    with pytest.raises(QuorumError, match=r"^round 4: "):
        list(run)


def lost(refused, clients=0):
    """Clients whose training gave no finite numbers."""
    aggregate = good(clients, **({} if clients else NOTHING))
    refusals = tuple(Refusal(i, Reason.FINITE, loss=float("nan")) for i in range(refused))
    return replace(aggregate, refused=refusals)


def test_a_round_in_which_every_client_diverges_ends_the_run():
    _, run = rounds(good(), lost(4))
    next(run)
    with pytest.raises(TrainingError) as ended:
        next(run)
    assert str(ended.value) == (
        "round 2: the loss became NaN or infinite at all 4 clients: try a lower --rate, gradient "
        "clipping (--clip 1), a lower server rate, or look for NaN in the data"
    )


def test_one_client_that_diverges_among_good_ones_is_only_refused():
    _, run = rounds(lost(1, clients=3))
    state, happened = next(run)
    assert happened.moved and happened.refusals == {"not finite": 1}
    np.testing.assert_allclose(state.weights, [1.5, 1.5, 3.25])


def test_global_weights_that_overflow_end_the_run():
    _, run = rounds(good(delta=np.array([np.inf, 0, 0])))
    with pytest.raises(TrainingError, match=r"^round 1: the global weights became NaN or infinite"):
        next(run)


def test_a_rounds_loss_is_the_mean_over_the_admitted():
    _, run = rounds(good(3, losses=np.array([1.0, 2.0, 6.0])))
    assert next(run)[1].loss == 3


# --- with the compiled engine --------------------------------------------------------------------


def federation(rate=0.05, **engine):
    partition = by_sizes([7, 13, 0, 5, 0, 9])
    task = linear_task(partition)
    return Federation(task, partition, local=Local(epochs=2, batch=4, rate=rate), **engine)


def test_a_rate_far_too_high_ends_with_the_round_and_what_to_try():
    for xla in (True, False):
        with pytest.raises(TrainingError, match=r"^round 1: .* at all 4 clients: try a lower"):
            federation(rate=1e200, xla=xla).run(3)


def test_clients_that_are_all_refused_end_with_a_lack_of_quorum():
    run = federation(fault=FAULTS.parse("shape:1"))
    with pytest.raises(QuorumError, match=r"^round 3: 0 of 4 updates .* \(4 wrong shape\)"):
        run.run(10)


def test_empty_clients_are_skipped_and_counted_and_cost_no_quorum():
    run = federation()
    got = run.round(np.arange(6))
    assert got.empty == 2 and got.admitted.tolist() == [0, 1, 3, 5]
    assert len(run.run(2, quorum=1.0)) == 2


def test_a_cohort_of_empty_clients_gives_an_aggregate_of_nothing():
    run = federation()
    got = run.round([2, 4])
    assert got.empty == 2 and not len(got.admitted) and not got.refused and not got.weight
    np.testing.assert_array_equal(got.delta, np.zeros(5))


# --- cohorts -------------------------------------------------------------------------------------


def test_a_cohort_has_no_client_twice_and_is_in_order():
    for round in range(1, 50):
        cohort = draw_cohort(0, round, 30, 11)
        assert len(set(cohort.tolist())) == 11 and (np.diff(cohort) > 0).all()
        assert cohort.min() >= 0 and cohort.max() < 30


def test_a_cohort_of_all_is_all():
    np.testing.assert_array_equal(draw_cohort(0, 1, 5, 5), np.arange(5))


def test_cohorts_follow_from_seed_and_round():
    drawn = [draw_cohort(seed, round, 1000, 10).tolist() for seed in (0, 1) for round in (1, 2)]
    again = [draw_cohort(seed, round, 1000, 10).tolist() for seed in (0, 1) for round in (1, 2)]
    assert drawn == again and len(set(map(tuple, drawn))) == 4


def test_every_client_is_drawn_equally_often():
    drawn = np.concatenate([draw_cohort(3, round, 20, 5) for round in range(4000)])
    assert chisquare(np.bincount(drawn, minlength=20)).pvalue > 1e-4
