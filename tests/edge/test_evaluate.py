"""Integer accuracy from the clients: the chip's bits, and the figures made of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.edge.calibration.ranges import outputs
from fedsys.edge.integers.evaluate import (
    Comparison,
    Scores,
    chip_answer,
    compare,
    compare_clients,
    integer_outputs,
    real,
    score_client,
    stored,
)
from fedsys.edge.integers.lower import lower
from fedsys.edge.tflite.model import Quantization, Tensor
from fedsys.edge.tflite.reader import read
from fedsys.errors import DataError
from fedsys.objectives import objective
from fedsys.partition import Partition

from . import zoo

CLASSES = objective("classes")


def tensor(scale: float, zero_point: int, dtype: str = "int8") -> Tensor:
    quantization = Quantization(np.array([scale], np.float32), np.array([zero_point]))
    return Tensor(0, "t", (1, 4), np.dtype(dtype), quantization)


def program(name: str):
    return lower(read(zoo.int8(name)))


def test_values_are_stored_as_the_chip_stores_them():
    """Halves away from zero, then the zero point, then the limits."""
    values = np.array([0.25, -0.25, 0.75, -0.75, 0.24, 100, -100, 63.0], np.float32)
    assert stored(values, tensor(0.5, 0)).tolist() == [1, -1, 2, -2, 0, 127, -128, 126]
    assert stored(values, tensor(0.5, 3)).tolist() == [4, 2, 5, 1, 3, 127, -128, 127]
    assert stored(np.array([0.49999997], np.float32), tensor(1, 0)).tolist() == [0]
    assert stored(np.array([1e30, -1e30]), tensor(1e-30, 0)).tolist() == [127, -128]
    assert stored(np.array([40000.0]), tensor(1, 0, "int16")).tolist() == [32767]
    plain = Tensor(0, "t", (1, 4), np.dtype(np.float32))
    assert stored(np.array([0.3]), plain).dtype == np.float32


@given(st.integers(-128, 127), st.integers(-128, 127), st.floats(2.0**-20, 2.0**20, width=32))
@settings(deadline=None)
def test_what_is_read_is_stored_again(value, zero_point, scale):
    like = tensor(scale, zero_point)
    kept = np.array([value], np.int8)
    assert stored(real(kept, like), like) == kept


@pytest.mark.parametrize("name", ["dense", "kws_ds_cnn", "autoencoder", "prelu"])
def test_outputs_are_those_of_the_reference_on_the_chip(name):
    """TensorFlow Lite Micro's own interpreter, given rows that were stored by hand."""
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    data, rows = zoo.int8(name), zoo.rows(name, 6, seed=1)
    found = program(name)
    source, target = (found.model.tensors[n[0]] for n in (found.model.inputs, found.model.outputs))
    interpreter, wanted = runtime.Interpreter.from_bytes(data), []
    for row in rows:
        ratio = (row / source.quantization.scale[0]).astype(np.float64)
        rounded = np.sign(ratio) * np.floor(np.abs(ratio) + 0.5) + source.quantization.zero_point[0]
        interpreter.set_input(np.clip(rounded, -128, 127).astype(np.int8)[None], 0)
        interpreter.invoke()
        wanted.append(interpreter.get_output(0)[0])
    assert (integer_outputs(found, rows) == real(np.stack(wanted), target)).all()


def test_a_client_reports_float_and_integer_side_by_side():
    name, count = "digits", 40
    rows, found, data = zoo.rows(name, count, seed=2), program(name), zoo.floating(name)
    floating, integer = outputs(data, rows), integer_outputs(found, rows)
    labels = floating.argmax(axis=1)
    labels[:10] = (labels[:10] + 1) % 10
    scores = score_client(chip_answer(found), data, CLASSES, rows, labels)
    assert scores.rows == count
    assert scores.floating["accuracy"] == 0.75
    assert scores.integer["accuracy"] == (integer.argmax(axis=1) == labels).mean()
    assert scores.agreement == (integer.argmax(axis=1) == floating.argmax(axis=1)).mean()
    assert 0.9 <= scores.agreement <= 1
    assert scores.rmse == pytest.approx(np.sqrt(((integer - floating) ** 2).mean()))
    assert 0 < scores.rmse < 0.1 * floating.std()


def test_a_model_of_one_output_agrees_by_its_sign():
    name = "normalised"
    rows = zoo.rows(name, 20)
    scores = score_client(
        chip_answer(program(name)), zoo.floating(name), objective("binary"), rows, np.ones(20, int)
    )
    assert scores.agreement == 1  # a sigmoid is above zero everywhere
    scores = score_client(
        chip_answer(program(name)), zoo.floating(name), objective("squared"), rows, np.ones(20)
    )
    assert scores.agreement is None and set(scores.floating) == {"loss"}


def test_the_summary_weighs_by_rows_and_names_the_worst():
    def scores(rows: int, right: float, kept: float, rmse: float) -> Scores:
        return Scores(rows, {"accuracy": right, "loss": 1}, {"accuracy": kept, "loss": 2}, 1, rmse)

    said = Comparison((0, 4), (scores(30, 0.9, 0.8, 1.0), scores(10, 0.5, 0.6, 3.0))).summary()
    assert said["float_accuracy"] == pytest.approx(0.8)
    assert said["int8_accuracy"] == pytest.approx(0.75)
    assert said["drop"] == pytest.approx(0.05)
    assert said["drop_worst"] == pytest.approx(0.1)
    assert said["int8_accuracy_worst"] == 0.6
    assert said["int8_accuracy_spread"] == pytest.approx(0.1)
    assert said["int8_loss_worst"] == 2
    assert said["rmse"] == pytest.approx(np.sqrt((30 * 1 + 10 * 9) / 40))
    assert said["rmse_worst"] == 3


def test_clients_of_a_partition_are_asked_for_their_own_rows():
    name = "digits"
    rows, found, data = zoo.rows(name, 12), program(name), zoo.floating(name)
    labels = np.arange(12) % 10
    partition = Partition(np.arange(12)[::-1], np.array([0, 5, 5, 12]))
    seen = compare_clients(chip_answer(found), data, CLASSES, rows, labels, partition)
    assert seen.clients == (0, 2)  # the second has no rows
    assert seen.scores[1] == score_client(
        chip_answer(found), data, CLASSES, rows[partition[2]], labels[partition[2]]
    )
    assert seen.table()["rows"] == 12
    whole = score_client(chip_answer(found), data, CLASSES, rows, labels)
    assert seen.summary()["int8_loss"] == pytest.approx(whole.integer["loss"])
    few = compare_clients(
        chip_answer(found), data, CLASSES, rows, labels, partition, cohort=[2], rows=3
    )
    assert few.clients == (2,) and few.scores[0].rows == 3


def test_bad_rows_are_named():
    found, data = program("dense"), zoo.floating("dense")
    with pytest.raises(DataError, match="NaN or infinite"):
        integer_outputs(found, np.full((1, 20), np.nan))
    with pytest.raises(DataError):
        integer_outputs(found, np.zeros((1, 21)))
    with pytest.raises(DataError, match="no client has rows"):
        compare(chip_answer(found), data, CLASSES, [(0, np.zeros((0, 20)), np.zeros(0, int))])
