"""Digits."""

import numpy as np
import pytest

from fedsys.tasks import Digits


def test_digits_are_1797_pictures_split_in_the_same_way_for_every_model():
    flat, pictures = Digits().load(), Digits("cnn").load()
    assert flat.train.inputs.shape == (1438, 64)
    assert pictures.test.inputs.shape == (359, 8, 8, 1)
    assert (flat.test.inputs == pictures.test.inputs.reshape(-1, 64)).all()
    assert flat.train.inputs.dtype == np.float32
    assert flat.train.inputs.min() == 0
    assert flat.train.inputs.max() == 1
    for digit in range(10):
        total = (flat.train.labels == digit).sum() + (flat.test.labels == digit).sum()
        assert (flat.test.labels == digit).sum() == pytest.approx(total * 0.2, abs=1)


@pytest.mark.parametrize("model", ["mlp", "cnn", "logistic"])
def test_its_models_read_its_inputs(model):
    task = Digits(model).load()
    assert task.model()(task.test.inputs[:3]).shape == (3, 10)


def test_pixels_and_labels_belong_together():
    from sklearn.linear_model import LogisticRegression

    task = Digits().load()
    fitted = LogisticRegression(max_iter=300).fit(task.train.inputs, task.train.labels)
    assert fitted.score(task.test.inputs, task.test.labels) > 0.93
