"""Objectives: losses, metrics and what a model must look like."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import accuracy_score, log_loss

from fedsys.errors import TrainingError, UsageError
from fedsys.objectives import Objective, objective

CLASSES, BINARY, SQUARED = map(objective, ("classes", "binary", "squared"))
LOGIT = st.floats(-50, 50, width=32)


@st.composite
def classified(draw):
    rows, classes = draw(st.integers(1, 20)), draw(st.integers(2, 5))
    logits = draw(arrays.arrays(np.float32, (rows, classes), elements=LOGIT))
    return draw(arrays.arrays(np.int64, rows, elements=st.integers(0, classes - 1))), logits


@given(classified())
def test_class_metrics_are_sklearns(drawn):
    labels, logits = drawn
    known = np.arange(logits.shape[1])
    wide = logits.astype(np.float64)
    shares = np.exp(wide - wide.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    loss = CLASSES.metrics["loss"](labels, logits).mean()
    if shares.min() > 1e-15:  # below, sklearn clips
        assert loss == pytest.approx(log_loss(labels, shares, labels=known), rel=1e-9, abs=1e-12)
    accuracy = CLASSES.metrics["accuracy"](labels, logits).mean()
    assert accuracy == accuracy_score(labels, logits.argmax(axis=1))


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(-30, 30, width=32)), min_size=1))
def test_binary_metrics_are_sklearns(rows):
    labels, logits = np.array([y for y, _ in rows]), np.array([[z] for _, z in rows], np.float32)
    shares = 1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))
    loss = BINARY.metrics["loss"](labels, logits).mean()
    expected = log_loss(labels, np.column_stack([1 - shares, shares]), labels=[0, 1])
    assert loss == pytest.approx(expected, rel=1e-3, abs=1e-12)  # 1 - shares loses digits
    accuracy = BINARY.metrics["accuracy"](labels, logits).mean()
    assert accuracy == accuracy_score(labels, logits[:, 0] > 0)


@pytest.mark.parametrize("name", ["classes", "binary", "squared"])
def test_the_loss_that_is_descended_is_the_one_that_is_reported(name):
    goal, rng = objective(name), np.random.default_rng(0)
    width = 4 if name == "classes" else 1
    outputs = rng.normal(size=(50, width)).astype(np.float32) * 20
    labels = rng.normal(size=50) if name == "squared" else rng.integers(0, max(width, 2), 50)
    ours = goal.loss(tf.constant(labels), tf.constant(outputs)).numpy()
    assert ours.shape == (50,)
    np.testing.assert_allclose(ours, goal.metrics["loss"](labels, outputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name, labels", [("classes", [0, 1]), ("binary", [0, 1])])
def test_losses_of_enormous_logits_are_finite(name, labels):
    goal, labels = objective(name), np.array(labels)
    outputs = np.array([[-1e30, 1e30], [1e30, -1e30]] if name == "classes" else [[1e30], [-1e30]])
    assert np.isfinite(goal.metrics["loss"](labels, outputs)).all()


def test_metrics_are_kept_in_double_precision():
    outputs = np.zeros((3, 2), np.float32)
    for name, metric in CLASSES.metrics.items():
        assert metric(np.array([0, 1, 0]), outputs).dtype == np.float64, name


def test_one_output_may_be_a_column_or_a_vector():
    labels, column = np.array([0, 1, 1]), np.array([[-1.0], [2.0], [-3.0]])
    for goal in (BINARY, SQUARED):
        for metric in goal.metrics.values():
            np.testing.assert_array_equal(metric(labels, column), metric(labels, column[:, 0]))


@pytest.mark.parametrize(
    "goal, shape, labels",
    [
        (CLASSES, (None, 3), [0, 2]),
        (CLASSES, (None, 9), [0, 2]),
        (BINARY, (None, 1), [0, 1]),
        (BINARY, (None,), [0, 0]),
        (SQUARED, (None, 1), [0.5, -2.0]),
    ],
)
def test_a_model_that_fits_is_let_through(goal, shape, labels):
    goal.fits(shape, np.array(labels))


@pytest.mark.parametrize(
    "goal, shape, labels, message",
    [
        (CLASSES, (None, 2), [0, 2], "shape (rows, 2) but the labels go up to 2: "
         "end the model in Dense(3), without an activation"),
        (CLASSES, (None, 4, 3), [0, 2], "shape (rows, 4, 3) but"),
        (CLASSES, (None, None), [0, 2], "shape (rows, rows) but"),
        (CLASSES, (None, 3), [0.0, 2.0], "must be class numbers 0, 1, 2, ..., found float64"),
        (CLASSES, (None, 3), [-1, 2], "found int64 from -1 to 2"),
        (BINARY, (None, 1), [0, 2], "needs labels 0 and 1, found 2: use 'classes'"),
        (BINARY, (None, 2), [0, 1], "but there is one target a row: end the model in Dense(1)"),
        (SQUARED, (None, 3), [0.5], "shape (rows, 3) but there is one target a row"),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_is_refused_with_what_would(goal, shape, labels, message):
    with pytest.raises(TrainingError) as refused:
        goal.fits(shape, np.array(labels))
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_an_unknown_objective_has_a_nearest_name():
    with pytest.raises(UsageError) as refused:
        objective("square")
    assert str(refused.value) == (
        "objective 'square' is unknown; did you mean 'squared'? known: binary, classes, squared"
    )


def test_an_objective_of_ones_own_is_taken_as_it_is():
    own = Objective("own", lambda labels, outputs: tf.abs(outputs[:, 0] - labels), {})
    assert objective(own) is own
    own.fits((None, 17), np.array([0.5]))


def test_losses_agree_with_keras():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(20, 4)).astype(np.float32), rng.integers(0, 4, 20)
    theirs = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    np.testing.assert_allclose(
        CLASSES.loss(tf.constant(labels), tf.constant(logits)), theirs(labels, logits), rtol=1e-6
    )
