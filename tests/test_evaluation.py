"""Evaluation: the same numbers as a plain loop, and as scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from fedsys import evaluation
from fedsys.evaluation import ClientScores, Evaluator, Scorer, score, score_clients
from fedsys.experiment import Experiment
from fedsys.layout import read_weights
from fedsys.objectives import objective
from fedsys.partition import Partition
from fedsys.partitions import Iid
from fedsys.setting import prepare
from fedsys.task import Examples

from .federations import by_sizes, classes_task, linear_model
from .test_training import normalised

TASK = classes_task(normalised, 60)


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def test_outputs_are_the_models_in_inference():
    model = TASK.model()
    ours = Scorer(model, TASK.test.inputs).outputs(read_weights(model), TASK.test.inputs)
    np.testing.assert_allclose(ours, model(TASK.test.inputs, training=False), atol=1e-6)


def test_outputs_follow_the_vector_and_not_the_model():
    model = TASK.model()
    scorer, weights = Scorer(model, TASK.test.inputs), read_weights(model)
    assert np.abs(scorer.outputs(0 * weights, TASK.test.inputs)).max() == 0
    np.testing.assert_array_equal(read_weights(model), weights)


@pytest.mark.parametrize("chunk", [1, 7, 59, 60, 61])
@pytest.mark.parametrize("workers", [1, 3])
def test_chunks_change_nothing(monkeypatch, chunk, workers):
    model = TASK.model()
    weights = read_weights(model)
    whole = Scorer(model, TASK.test.inputs).outputs(weights, TASK.test.inputs)
    monkeypatch.setattr(evaluation, "CHUNK", chunk)
    parts = Scorer(model, TASK.test.inputs, workers).outputs(weights, TASK.test.inputs)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_scores_of_classes_are_sklearns():
    labels = TASK.test.labels
    logits = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    scores = score(objective("classes"), labels, logits)
    assert scores == {
        "loss": pytest.approx(log_loss(labels, softmax(logits.astype(float))), rel=1e-9),
        "accuracy": accuracy_score(labels, logits.argmax(axis=1)),
    }


def test_scores_of_a_binary_task_have_an_auc():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 80)
    logits = (rng.normal(size=(80, 1)) + labels[:, None]).astype(np.float32)
    scores = score(objective("binary"), labels, logits)
    shares = 1 / (1 + np.exp(-logits[:, 0].astype(float)))
    assert scores == {
        "loss": pytest.approx(log_loss(labels, shares), rel=1e-9),
        "accuracy": accuracy_score(labels, shares > 0.5),
        "auc": pytest.approx(roc_auc_score(labels, shares)),
    }


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
def test_one_class_alone_has_no_auc(labels):
    assert set(score(objective("binary"), np.array(labels), np.zeros((3, 1)))) == {
        "loss",
        "accuracy",
    }


PARTITION = by_sizes([0, 5, 20, 0, 0, 1, 34, 0])
LOGITS = np.random.default_rng(4).normal(size=(60, 3)).astype(np.float32) * 2


def clients():
    return score_clients(objective("classes"), TASK.test, LOGITS, PARTITION)


def test_each_clients_scores_are_those_of_its_rows():
    scores = clients()
    for client, rows in enumerate(PARTITION):
        if not len(rows):
            assert all(np.isnan(metric[client]) for metric in scores.metrics.values())
            continue
        alone = score(objective("classes"), TASK.test.labels[rows], LOGITS[rows])
        assert {name: metric[client] for name, metric in scores.metrics.items()} == {
            name: pytest.approx(value, rel=1e-12) for name, value in alone.items()
        }
    np.testing.assert_array_equal(scores.rows, PARTITION.sizes)


def test_the_summary_is_the_weighted_mean_the_spread_and_the_worst():
    scores, held = clients(), PARTITION.sizes > 0
    summary = scores.summary()
    loss, accuracy = (scores.metrics[name][held] for name in ("loss", "accuracy"))
    whole = score(objective("classes"), TASK.test.labels, LOGITS)
    assert summary == {
        "loss": pytest.approx(whole["loss"]),
        "accuracy": pytest.approx(whole["accuracy"]),
        "loss_spread": pytest.approx(loss.std()),
        "accuracy_spread": pytest.approx(accuracy.std()),
        "loss_worst": loss.max(),
        "accuracy_worst": accuracy.min(),
    }


def test_a_worked_summary():
    scores = ClientScores(np.array([1, 0, 3]), {"accuracy": np.array([1.0, np.nan, 0.5])})
    assert scores.summary() == {
        "accuracy": 0.625,
        "accuracy_spread": 0.25,
        "accuracy_worst": 0.5,
    }


# --- in a setting --------------------------------------------------------------------------------


def setting(task=TASK, **experiment):
    wanted = {"partition": Iid(), "clients": 6, "rounds": 10, "evaluate": 3, "evaluate_clients": 5}
    return prepare(Experiment(**{**wanted, **experiment}), task)


def test_metrics_come_when_they_are_due_and_after_the_last_round():
    made = setting()
    evaluator = Evaluator(made)
    said = {round: evaluator.due(round, made.weights) for round in range(1, 11)}
    assert [r for r in said if "test_loss" in said[r]] == [3, 6, 9, 10]
    assert [r for r in said if "clients_loss_worst" in said[r]] == [5, 10]
    assert said[1] == {}


def test_0_is_only_after_the_last_round():
    made = setting(evaluate=0, evaluate_clients=0)
    evaluator = Evaluator(made)
    assert [r for r in range(1, 11) if evaluator.due(r, made.weights)] == [10]


def test_test_metrics_are_on_the_servers_rows():
    task = replace(TASK, test=Examples(TASK.test.inputs[:17], TASK.test.labels[:17]))
    made = setting(task)
    logits = np.asarray(made.model(task.test.inputs, training=False))
    expected = score(made.objective, task.test.labels, logits)
    assert Evaluator(made).test(made.weights) == pytest.approx(expected, abs=1e-6)


def test_clients_are_judged_on_the_rows_that_they_train_on_where_they_have_no_others():
    made = setting()
    logits = np.asarray(made.model(TASK.train.inputs, training=False))
    expected = score_clients(made.objective, TASK.train, logits, made.partition)
    ours = Evaluator(made).clients(made.weights)
    np.testing.assert_array_equal(ours.rows, made.partition.sizes)
    np.testing.assert_allclose(ours.metrics["loss"], expected.metrics["loss"], atol=1e-6)


def natural_task():
    owners = np.arange(60) % 4
    own = Examples(TASK.test.inputs[:10], TASK.test.labels[:10], np.array([0, 1, 3] * 3 + [0]))
    train = Examples(TASK.train.inputs, TASK.train.labels, owners)
    return replace(TASK, train=train, client_test=own), own


def test_natural_clients_are_judged_on_test_rows_of_their_own():
    task, own = natural_task()
    made = setting(task, partition=None, clients=None)
    assert made.natural and made.clients == 4
    logits = np.asarray(made.model(own.inputs, training=False))
    expected = score_clients(made.objective, own, logits, Partition.of(own.owners, 4))
    ours = Evaluator(made).clients(made.weights)
    assert ours.rows.tolist() == [4, 3, 0, 3]
    np.testing.assert_allclose(ours.metrics["loss"], expected.metrics["loss"], atol=1e-6)


def test_clients_of_a_drawn_partition_are_judged_on_their_training_rows():
    task, _ = natural_task()
    made = setting(task, partition=Iid(), clients=5)
    assert not made.natural
    assert Evaluator(made).clients(made.weights).rows.sum() == 60


def test_a_linear_models_loss_is_half_the_mean_square():
    model = linear_model(2)
    x, y = np.arange(8.0).reshape(4, 2), np.ones(4)
    outputs = Scorer(model, x).outputs(np.array([1.0, 2.0, 3.0]), x)
    np.testing.assert_allclose(outputs[:, 0], x @ [1, 2] + 3)
    expected = 0.5 * np.mean((x @ [1, 2] + 2) ** 2)
    assert score(objective("squared"), y, outputs) == {"loss": pytest.approx(expected)}
