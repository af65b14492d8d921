"""Our algorithms in a plain ServerApp of Flower's, against Flower's own and against NumPy."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg as FlowerFedAvg

from fedsys.admission import Reason
from fedsys.aggregators import Clipped, Krum, Median, TrimmedMean
from fedsys.errors import TrainingError, UsageError
from fedsys.flower import InProcessGrid, Strategy
from fedsys.strategies import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedSGD,
    FedYogi,
    Scaffold,
)

NODES = 5
COUNTS = (7, 13, 1, 4, 22)
RNG = np.random.default_rng(0)
START = {"kernel": RNG.normal(size=(3, 2)).astype("f4"), "bias": RNG.normal(size=2).astype("f4")}
POINTS = {
    name: RNG.normal(size=(NODES, *value.shape)).astype("f4") for name, value in START.items()
}


def record(arrays):
    return ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})


def arrays_of(result):
    return {name: array.numpy() for name, array in result.arrays.items()}


class Clients:
    """Plain clients: each goes a part of the way to a point of its own, and says its loss."""

    def __init__(self, spoil=None):
        self.spoil, self.configs = spoil or {}, []
        self.app = ClientApp()
        self.app.train()(self.train)
        self.app.evaluate()(self.evaluate)

    def train(self, message, context):
        node = int(context.node_config["partition-id"])
        self.configs.append(dict(message.content["config"]))
        arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
        moved = {
            name: (value + 0.1 * (POINTS[name][node] - value)).astype(value.dtype)
            if name in POINTS
            else value + (node if value.dtype.kind == "i" else np.asarray(node, value.dtype))
            for name, value in arrays.items()
        }
        content = RecordDict(
            {
                "arrays": record(moved),
                "metrics": MetricRecord({"num-examples": COUNTS[node], "loss": float(node)}),
            }
        )
        if node in self.spoil:
            self.spoil[node](content)
        return Message(content, reply_to=message)

    def evaluate(self, message, context):
        node = int(context.node_config["partition-id"])
        metrics = MetricRecord({"num-examples": COUNTS[node], "accuracy": node / 10})
        content = RecordDict({"metrics": metrics})
        if node in self.spoil:
            self.spoil[node](content)
        return Message(content, reply_to=message)


def started(strategy, clients=None, rounds=3, start=START, **named):
    clients = clients or Clients()
    with InProcessGrid(clients.app, NODES) as grid:
        return strategy.start(grid, record(start), num_rounds=rounds, timeout=60, **named)


def everyone(algorithm, **options):
    return Strategy(algorithm, min_train_nodes=NODES, min_available_nodes=NODES, **options)


# --- the algorithms -----------------------------------------------------------------------------


def test_federated_averaging_is_flowers():
    theirs = started(FlowerFedAvg(min_train_nodes=NODES, min_available_nodes=NODES))
    ours = started(everyone(FedAvg()))
    for name, value in arrays_of(theirs).items():
        assert arrays_of(ours)[name].dtype == value.dtype
        np.testing.assert_allclose(arrays_of(ours)[name], value, atol=1e-6)
    for kind in ("train_metrics_clientapp", "evaluate_metrics_clientapp"):
        for round, metrics in getattr(theirs, kind).items():
            assert dict(getattr(ours, kind)[round]) == pytest.approx(dict(metrics))


def oracle(spread, rate, beta1, tau, momentum, rounds=3):
    """Reddi et al. 2021 or Hsu et al. 2019, in float64."""
    shares = np.array(COUNTS) / sum(COUNTS)
    found = {}
    for name, value in START.items():
        w, first, second = value.astype(float), 0.0, tau**2
        for _ in range(rounds):
            moves = 0.1 * (POINTS[name] - w)
            delta = np.tensordot(shares, moves, axes=1)
            if spread is None:
                first = momentum * first + delta
                w = w + rate * first
            else:
                first = beta1 * first + (1 - beta1) * delta
                second = spread(second, delta**2)
                w = w + rate * first / (np.sqrt(second) + tau)
        found[name] = w
    return found


CASES = {
    "fedavg": (FedAvg(rate=0.5), (None, 0.5, 0, 0, 0.0)),
    "fedprox": (FedProx(0.1), (None, 1.0, 0, 0, 0.0)),
    "fedavgm": (FedAvgM(0.8), (None, 1.0, 0, 0, 0.8)),
    "fedadagrad": (FedAdagrad(rate=0.1), (lambda v, s: v + s, 0.1, 0.0, 1e-3, 0)),
    "fedadam": (FedAdam(rate=0.05), (lambda v, s: 0.99 * v + 0.01 * s, 0.05, 0.9, 1e-3, 0)),
    "fedyogi": (
        FedYogi(rate=0.05),
        (lambda v, s: v - 0.01 * s * np.sign(v - s), 0.05, 0.9, 1e-3, 0),
    ),
}


@pytest.mark.parametrize("algorithm, said", CASES.values(), ids=CASES)
def test_an_algorithm_comes_to_what_its_paper_says(algorithm, said):
    found = arrays_of(started(everyone(algorithm)))
    for name, value in oracle(*said).items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], value, atol=2e-6)


def test_clients_of_fedprox_are_told_mu():
    clients = Clients()
    started(everyone(FedProx(0.3)), clients, rounds=2)
    assert {config["proximal-mu"] for config in clients.configs} == {0.3}
    assert [config["server-round"] for config in clients.configs] == [1] * 5 + [2] * 5


@pytest.mark.parametrize("algorithm", [Scaffold(), FedSGD()])
def test_an_algorithm_that_clients_would_not_carry_out_is_refused(algorithm):
    name = type(algorithm).__name__
    with pytest.raises(UsageError, match=f"strategy {name} changes how clients train"):
        Strategy(algorithm)


def test_a_class_is_no_algorithm():
    with pytest.raises(UsageError, match=r"is the class FedAdam: give FedAdam\(\)"):
        Strategy(FedAdam)


def test_a_part_of_all_nodes_is_asked():
    clients = Clients()
    started(Strategy(FedAvg(), fraction_train=0.4, min_available_nodes=NODES), clients, rounds=4)
    assert len(clients.configs) == 8


# --- aggregators --------------------------------------------------------------------------------


def moves():
    """[nodes, 8] float64, by how much each client moves from START in one round."""
    parts = [(0.1 * (POINTS[name] - value)).reshape(NODES, -1) for name, value in START.items()]
    return np.concatenate(parts, axis=1).astype(float)


def shorter(moves, norm):
    long = np.linalg.norm(moves, axis=1, keepdims=True)
    return np.average(moves * np.minimum(1, norm / long), axis=0, weights=COUNTS)


def nearest(moves, count):
    """The mean of those whose two nearest neighbours are nearest: NODES less one faulty, less 2."""
    apart = ((moves[:, None] - moves[None]) ** 2).sum(axis=2)
    scores = np.sort(apart, axis=1)[:, 1:3].sum(axis=1)
    return moves[np.argsort(scores)[:count]].mean(axis=0)


@pytest.mark.parametrize(
    "aggregator, oracle",
    [
        (Median(), lambda moves: np.median(moves, axis=0)),
        (TrimmedMean(1), lambda moves: np.sort(moves, axis=0)[1:-1].mean(axis=0)),
        (Krum(1), lambda moves: nearest(moves, 1)),
        (Krum(1, 2), lambda moves: nearest(moves, 2)),
        (Clipped(0.2), lambda moves: shorter(moves, 0.2)),
    ],
    ids=["median", "trimmed", "krum", "multi-krum", "clipped"],
)
def test_an_aggregator_comes_to_what_it_does_in_numpy(aggregator, oracle):
    found = arrays_of(started(everyone(FedAvg(), aggregator=aggregator), rounds=1))
    moved = np.concatenate([(found[name] - value).ravel() for name, value in START.items()])
    np.testing.assert_allclose(moved, oracle(moves()), atol=1e-6)


def test_one_client_does_not_move_a_median_beyond_the_others():
    far = array("bias", np.full(2, 1e6, "f4"))
    found = arrays_of(started(everyone(FedAvg(), aggregator=Median()), Clients({0: far}), rounds=1))
    assert np.abs(found["bias"] - START["bias"]).max() < 1


def test_with_fewer_replies_than_its_aggregator_needs_a_round_moves_nothing():
    spoil = {node: array("bias", np.full(2, np.nan, "f4")) for node in range(3)}
    strategy = everyone(FedAvg(), aggregator=TrimmedMean(1), quorum=0.0)
    assert not started(strategy, Clients(spoil), rounds=1).arrays


def test_a_class_is_no_aggregator():
    with pytest.raises(UsageError, match=r"aggregator is the class Median: give Median\(\)"):
        Strategy(FedAvg(), aggregator=Median)


# --- types --------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [FedAvg(), FedAdam(), FedYogi(), FedAdagrad(), FedAvgM()])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_arrays_keep_their_types_round_after_round(algorithm, dtype):
    start = {name: value.astype(dtype) for name, value in START.items()}
    found = arrays_of(started(everyone(algorithm), start=start))
    assert {value.dtype for value in found.values()} == {np.dtype(dtype)}
    assert list(found) == list(start)


def test_integers_are_averaged_and_rounded_and_averages_are_not_optimised():
    start = {"count": np.array(100), **START, "moving.mean": np.full(2, 5.0, "f4")}
    strategy = everyone(FedAdam(rate=10.0), averaged=lambda name: name.startswith("moving"))
    found = arrays_of(started(strategy, start=start, rounds=1))
    mean = sum(node * count for node, count in enumerate(COUNTS)) / sum(COUNTS)
    assert (found["count"], found["count"].dtype) == (100 + round(mean), np.dtype(int))
    np.testing.assert_allclose(found["moving.mean"], 5 + mean, rtol=1e-6)
    assert list(found) == list(start)


def test_a_client_may_answer_in_another_floating_type():
    def wide(content):
        arrays = {name: array.numpy().astype("f8") for name, array in content["arrays"].items()}
        content["arrays"] = record(arrays)

    found = arrays_of(started(everyone(FedAvg()), Clients({1: wide})))
    for name, value in oracle(None, 1.0, 0, 0, 0.0).items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], value, atol=2e-6)


def test_arrays_without_numbers_to_train_are_refused():
    with pytest.raises(UsageError, match="hold no floating array to train"):
        started(everyone(FedAvg()), start={"count": np.arange(3)})
    with pytest.raises(UsageError, match="'words' is of type <U1, not of numbers"):
        started(everyone(FedAvg()), start={**START, "words": np.array(["a"])})


# --- replies that are not right -----------------------------------------------------------------


def array(name, value):
    def spoil(content):
        if "arrays" in content:
            content["arrays"][name] = Array(np.asarray(value))

    return spoil


def weight(value):
    return lambda content: content["metrics"].update({"num-examples": value})


def without(name):
    return lambda content: content["arrays"].pop(name) if "arrays" in content else None


def fail(content):
    raise ValueError("no such file")


BAD = {
    "NaN": (array("bias", np.array([np.nan, 0], "f4")), Reason.FINITE),
    "infinite": (array("bias", np.array([np.inf, 0], "f4")), Reason.FINITE),
    "too large": (array("bias", np.array([1e300, 0], "f8")), Reason.FINITE),
    "wrong shape": (array("bias", np.zeros(5, "f4")), Reason.SHAPE),
    "one number": (array("bias", np.zeros(1, "f4")), Reason.SHAPE),
    "integers": (array("bias", np.zeros(2, int)), Reason.DTYPE),
    "unknown": (array("extra", np.zeros(2, "f4")), Reason.EXTRA),
    "missing": (without("bias"), Reason.MISSING),
    "no weight": (weight(0), Reason.WEIGHT),
    "negative": (weight(-3), Reason.WEIGHT),
    "NaN weight": (weight(math.nan), Reason.WEIGHT),
    "too heavy": (weight(10**9), Reason.WEIGHT),
    "a list": (weight([1.0, 2.0]), Reason.MISSING),
    "no metrics": (lambda content: content.pop("metrics"), Reason.FORMAT),
    "no arrays": (lambda content: content.pop("arrays", None), Reason.FORMAT),
    "an error": (fail, Reason.FAILED),
}


@pytest.mark.parametrize("spoil, reason", BAD.values(), ids=BAD)
def test_a_bad_reply_is_refused_and_named_and_the_round_goes_on(spoil, reason, caplog):
    strategy = everyone(FedAvg(), heaviest=1000)
    logging.getLogger("flwr").propagate = True
    with caplog.at_level(logging.WARNING, "flwr"):
        found = arrays_of(started(strategy, Clients({1: spoil}), rounds=1))
    [refusal] = strategy.refusals[1]
    assert refusal.reason is reason
    assert f"refused node {refusal.client}: {reason}" in caplog.text
    shares = np.array(COUNTS) * [1, 0, 1, 1, 1] / (sum(COUNTS) - COUNTS[1])
    for name, value in START.items():
        expected = value + np.tensordot(shares, 0.1 * (POINTS[name] - value), axes=1)
        np.testing.assert_allclose(found[name], expected, atol=1e-6)


def test_below_its_quorum_a_round_moves_nothing():
    spoil = {node: array("bias", np.full(2, np.nan, "f4")) for node in range(3)}
    result = started(everyone(FedAvg()), Clients(spoil), rounds=2)
    assert not result.arrays and not result.train_metrics_clientapp
    found = started(everyone(FedAvg(), quorum=0.4), Clients(spoil), rounds=2)
    assert found.arrays


def test_a_server_rate_that_is_far_too_high_is_said():
    with pytest.raises(TrainingError, match="round 1: the global weights became NaN or infinite"):
        started(everyone(FedAvg(rate=1e39)))


def test_metrics_of_another_kind_do_not_end_the_run():
    def other(content):
        content["metrics"]["more"] = 1.0

    result = started(everyone(FedAvg()), Clients({2: other}), rounds=1)
    heard = [node for node in range(NODES) if node != 2]
    mean = sum(COUNTS[n] * n for n in heard) / sum(COUNTS[n] for n in heard)
    assert result.train_metrics_clientapp[1] == pytest.approx({"loss": mean})
    accuracy = pytest.approx({"accuracy": mean / 10})
    assert result.evaluate_metrics_clientapp[1] == accuracy


def test_replies_are_counted_as_they_come_and_not_held():
    from weakref import ref

    alive, most = [], []
    strategy = everyone(FedAvg(), fraction_evaluate=0.0)
    parts = strategy._parts

    def watched(reply):
        alive.append(ref(reply))
        most.append(sum(one() is not None for one in alive))
        return parts(reply)

    strategy._parts = watched
    clients = Clients()
    with InProcessGrid(clients.app, NODES) as grid:
        pull = grid.pull_messages
        grid.pull_messages = lambda ids: pull(list(ids)[:1])
        strategy.start(grid, record(START), num_rounds=1)
    assert len(most) == NODES and max(most) <= 2


def test_clients_that_are_silent_are_not_waited_for_beyond_the_timeout():
    clients = Clients()
    strategy = everyone(FedAvg(), fraction_evaluate=0.0)
    with InProcessGrid(clients.app, NODES) as grid:
        pull = grid.pull_messages
        grid.pull_messages = lambda ids: [
            reply
            for reply in pull(ids)
            if reply.has_content() and reply.content["metrics"]["num-examples"] != 22
        ]
        result = strategy.start(grid, record(START), num_rounds=1, timeout=0.3)
    heard = [0, 1, 2, 3]
    mean = sum(COUNTS[n] * n for n in heard) / sum(COUNTS[n] for n in heard)
    assert result.train_metrics_clientapp[1] == pytest.approx({"loss": mean})


def test_evaluation_by_the_server_and_configs_are_as_in_flower():
    clients, seen = Clients(), []

    def evaluate(round, arrays):
        seen.append((round, arrays["bias"].numpy()[0]))
        return MetricRecord({"round": round})

    result = started(
        everyone(FedAvg()), clients, rounds=2,
        train_config=ConfigRecord({"lr": 0.5}), evaluate_fn=evaluate,
    )  # fmt: skip
    assert [round for round, _ in seen] == [0, 1, 2]
    assert len({bias for _, bias in seen}) == 3
    assert {config["lr"] for config in clients.configs} == {0.5}
    assert result.evaluate_metrics_serverapp[2] == {"round": 2}
