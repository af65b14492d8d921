"""Fine-tuning over clients: int8 files that run as they should, and what was asked of weights."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="tf-keras is not installed (pip install 'fedsys[qat]')")
pytest.importorskip(
    "tensorflow_model_optimization", reason="TFMOT is not installed (pip install 'fedsys[qat]')"
)

from fedsys.edge.conversion import worker
from fedsys.edge.integers.evaluate import integer_outputs
from fedsys.edge.integers.executor import run
from fedsys.edge.integers.lower import lower
from fedsys.edge.tflite.reader import read
from fedsys.edge.tuning import qat
from fedsys.errors import DataError, UsageError
from fedsys.partition import Partition

ROOT = Path(__file__).resolve().parents[2]
HERE = {
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(ROOT), *sys.path]),
    "TF_USE_LEGACY_KERAS": "1",
}
RATE = 0.05
RNG = np.random.default_rng(0)
LINE_ROWS = RNG.normal(size=(12, 3)).astype(np.float32)
LINE_LABELS = RNG.normal(size=12).astype(np.float32)
LINE_START = [0, 2, 7, 7, 12]
LINE = {
    "keras": "linear",
    "rows": LINE_ROWS,
    "labels": LINE_LABELS,
    "order": np.arange(12),
    "start": np.array(LINE_START),
    "objective": "squared",
    "cohort": 4,
    "rate": RATE,
    "batch": 0,
    "qat": False,
}
"""One linear layer at four clients, the third without a row; a round is one step of all rows."""


@pytest.fixture(scope="module")
def digits():
    """Rows, labels and holders; clients of two digits each, whose sensors' gains differ."""
    from sklearn.datasets import load_digits

    data = load_digits()
    owner = data.target[:600] // 2
    gains = np.array([0.3, 0.6, 1, 1.7, 2.5], np.float32)[owner, None, None, None]
    rows = (data.images[:600, ..., None] / 16).astype(np.float32) * gains
    return rows, data.target[:600], Partition.of(owner, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tuned")


@pytest.fixture(scope="module")
def tuned(digits, folder):
    """What each way of fine-tuning gives; all in one process, which starts slowly."""
    rows, labels, partition = digits
    alone = {"order": np.arange(600), "start": np.array([0, 600]), "cohort": 1}
    return worker.call(
        "tuning:tune",
        doing="fine-tuning",
        environment=HERE,
        folder=folder,
        rows=rows,
        labels=labels,
        order=partition.order,
        start=partition.start,
        runs={
            "quantised": {},
            "again": {},
            "measured": {"rounds": 0},
            "alone": {"rounds": 0, **alone},
            "sparse": {"prune": 0.5, "cluster": 16, "cohort": 3},
            "clustered": {"cluster": 8, "qat": False, "rounds": 1},
            "moving": {"ranges": "moving", "rounds": 1},
            "linear": {**LINE, "rounds": 1},
            "double": {"keras": "double"},
            "broken": {"keras": "broken"},
            "shape": {"rows": rows[:, :4]},
            "labels": {"labels": labels + 1},
            "diverged": {**LINE, "rounds": 3, "epochs": 20, "rate": 1e20},
        },
    )


def kernels(made):
    """The int8 constants of a file by the operator that reads them, biases left out."""
    model = read(made["tflite"])
    found = {}
    for operator in model.operators:
        for number in operator.inputs:
            tensor = model.tensors[number]
            if tensor.constant and tensor.dtype == np.int8:
                found[operator.index, operator.code] = tensor
    return found


NARROW = ["quantised", "measured", "sparse", "clustered", "moving"]


@pytest.mark.parametrize("name", NARROW)
def test_only_integer_operators_are_left_of_the_layers_and_no_conversion(tuned, name):
    model = read(tuned[name]["tflite"])
    assert {str(tensor.dtype) for tensor in model.tensors} <= {"int8", "int32"}
    assert [operator.code for operator in model.operators] == [
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "CONV_2D",
        "ADD",
        "AVERAGE_POOL_2D",
        "RESHAPE",
        "FULLY_CONNECTED",
    ]
    assert model.tensors[model.inputs[0]].shape == (1, 8, 8, 1)


@pytest.mark.parametrize("name", ["quantised", "sparse"])
def test_the_file_runs_in_the_interpreter_of_microcontrollers_with_our_bits(tuned, digits, name):
    runtime = pytest.importorskip(
        "tflite_micro.python.tflite_micro", reason="the tflite-micro wheel is not installed"
    ).runtime
    program = lower(read(tuned[name]["tflite"]))
    rows = np.random.default_rng(0).integers(-128, 128, (20, 8, 8, 1)).astype(np.int8)
    ours = run(program, rows)
    interpreter = runtime.Interpreter.from_bytes(tuned[name]["tflite"])
    for row, expected in zip(rows, ours, strict=True):
        interpreter.set_input(row[None], 0)
        interpreter.invoke()
        np.testing.assert_array_equal(interpreter.get_output(0)[0], expected)


@pytest.mark.parametrize("name", ["quantised", "sparse", "clustered"])
def test_the_float_weights_that_come_back_are_those_of_the_int8_model(tuned, digits, name):
    rows, labels, _ = digits
    outputs = np.asarray(tuned[name]["outputs"])
    integer = integer_outputs(lower(read(tuned[name]["tflite"])), rows)
    assert (outputs.argmax(1) == integer.argmax(1)).mean() > 0.9
    assert (outputs.argmax(1) == labels).mean() > 0.5  # by chance 0.1


def test_every_kernel_has_a_scale_for_each_channel_but_the_dense_one(tuned):
    scales = {
        key[1]: len(each.quantization.scale) for key, each in kernels(tuned["quantised"]).items()
    }
    assert scales == {"CONV_2D": 8, "DEPTHWISE_CONV_2D": 8, "FULLY_CONNECTED": 1}


def test_asked_zeros_and_clusters_are_in_the_file_after_rounds_of_averages(tuned):
    found = kernels(tuned["sparse"])
    assert len(found) == 4
    for tensor in found.values():
        assert (tensor.data == 0).mean() >= 0.5
        assert len(np.unique(tensor.data)) <= 16
    assert len(tuned["sparse"]["report"]["rounds"]) == 2
    assert all(each["zeros"] >= 0.5 for each in tuned["sparse"]["report"]["kernels"].values())
    weights = tuned["sparse"]["weights"]
    assert (weights["logits/kernel"] == 0).mean() >= 0.5
    assert len(np.unique(weights["logits/kernel"])) <= 16


def test_clusters_alone_leave_no_more_values_than_asked(tuned):
    assert max(len(np.unique(each.data)) for each in kernels(tuned["clustered"]).values()) <= 8
    # The scales of the channels are kept: one value for all would not be worth much.
    plain = max(len(np.unique(each.data)) for each in kernels(tuned["quantised"]).values())
    assert plain > 16


def test_the_same_arguments_give_the_same_bytes(tuned):
    assert tuned["quantised"]["tflite"] == tuned["again"]["tflite"]
    assert tuned["quantised"]["report"] == tuned["again"]["report"]


def test_rounds_change_the_weights(tuned):
    before, after = tuned["measured"]["weights"], tuned["quantised"]["weights"]
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed == {name for name in before if "moving" not in name}


def test_ranges_from_clients_are_those_from_all_rows_in_one_place(tuned, digits):
    assert tuned["measured"]["report"]["ranges"] == tuned["alone"]["report"]["ranges"]
    assert tuned["measured"]["tflite"] == tuned["alone"]["tflite"]
    rows = digits[0]
    low, high = tuned["measured"]["report"]["ranges"]["inputs"]
    assert (low, high) == pytest.approx((min(rows.min(), 0), rows.max()))


def test_ranges_of_layers_go_where_the_layer_is(tuned):
    assert set(tuned["quantised"]["report"]["ranges"]) == {
        "inputs",
        "stem_relu",
        "across_relu",
        "along_relu6",
        "sum",
        "logits",
    }
    for low, high in tuned["quantised"]["report"]["ranges"].values():
        assert low <= 0 < high


def test_a_round_moves_a_linear_model_by_the_weighted_mean_of_gradients(tuned):
    rng = np.random.default_rng(0)  # as tuning fills the model
    kernel, bias = rng.normal(0, 0.3, (3, 1)), rng.normal(0, 0.3, 1)
    kernel, bias = kernel.astype(np.float32), bias.astype(np.float32)
    moved_kernel, moved_bias = np.zeros((3, 1)), np.zeros(1)
    for first, last in pairwise(LINE_START):
        if first == last:
            continue
        rows, labels = LINE_ROWS[first:last], LINE_LABELS[first:last]
        error = rows.astype(np.float64) @ kernel + bias - labels[:, None]
        share = (last - first) / 12
        moved_kernel += share * (kernel - RATE * rows.T @ error / len(rows))
        moved_bias += share * (bias - RATE * error.mean())
    weights = tuned["linear"]["weights"]
    np.testing.assert_allclose(weights["linear/kernel"], moved_kernel, atol=1e-6)
    np.testing.assert_allclose(weights["linear/bias"], moved_bias, atol=1e-6)
    [told] = tuned["linear"]["report"]["rounds"]
    assert (told["clients"], told["rows"]) == (3, 12)
    assert tuned["linear"]["report"]["payload"] == 4 * 4 + 8 * 2


@pytest.mark.parametrize(
    "name, says",
    {
        "double": ["ExportError", "2 inputs", "--method int8"],
        "broken": ["DataError", "broken.keras", "not a Keras model"],
        "shape": ["DataError", "(4, 8, 1)", "(8, 8, 1)"],
        "labels": ["TrainingError", "labels go up to 10"],
        "diverged": ["TrainingError", "round 1", "lower rate"],
    }.items(),
)
def test_what_does_not_fit_is_said_in_one_line(tuned, name, says):
    assert isinstance(tuned[name], str) and "\n" not in tuned[name]
    assert [word for word in says if word not in tuned[name]] == []


def test_clients_arrays_are_joined_and_progress_is_told(tuned, digits, folder):
    rows, labels, partition = digits
    told = []
    made = qat.fine_tune(
        folder / "narrow.keras",
        [(rows[own], labels[own]) for own in partition],
        rounds=2,
        rate=0.003,
        progress=told.append,
    )
    losses = [line["loss"] for line in made.report["rounds"]]
    assert told == [f"round {i}/2: loss {loss:.4f}" for i, loss in enumerate(losses, start=1)]
    assert losses == [line["loss"] for line in tuned["quantised"]["report"]["rounds"]]
    assert made.tflite == tuned["quantised"]["tflite"]


ONE = (np.zeros((2, 3), np.float32), np.array([0, 1]))


@pytest.mark.parametrize(
    "clients, options, kind, says",
    [
        ([], {}, DataError, "no clients"),
        ([ONE, (ONE[0], ONE[1][:1])], {}, DataError, "client 1 has 2 rows but 1 labels"),
        ([ONE, (np.zeros((2, 4)), ONE[1])], {}, DataError, "client 1 has rows of shape"),
        ([(ONE[0][:0], ONE[1][:0])], {}, DataError, "no client has a row"),
        ([(ONE[0] + np.nan, ONE[1])], {}, DataError, "row 0 holds NaN"),
        ([ONE], {"prune": 1.5}, UsageError, "prune"),
        ([ONE], {"cluster": 1}, UsageError, "cluster"),
        ([ONE], {"ranges": "measurd"}, UsageError, "did you mean 'measured'"),
        ([ONE], {"cohort": 2}, UsageError, "cohort must be at most 1"),
        ([ONE], {"rounds": -1}, UsageError, "rounds must be at least 0"),
        ([ONE], {"rate": 0}, UsageError, "rate must be above 0"),
    ],
)
def test_mistakes_are_seen_before_a_worker_starts(
    tmp_path, monkeypatch, clients, options, kind, says
):
    monkeypatch.setattr(qat.worker, "call", lambda *_, **__: pytest.fail("a worker was started"))
    path = tmp_path / "model.keras"
    path.write_bytes(b"")
    with pytest.raises(kind, match=says):
        qat.fine_tune(path, clients, **options)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.keras: no such file"):
        qat.fine_tune(tmp_path / "none.keras", [ONE])


def test_tensors_are_named_after_their_layers(tuned):
    model = read(tuned["quantised"]["tflite"])
    names = [model.tensors[operator.outputs[0]].name for operator in model.operators]
    assert names[-1] == "logits"
    layers = [name.split("/")[0] for name in names[:-1]]
    assert layers == ["stem_relu", "across_relu", "along_relu6", "sum", "pool", "flatten"]
    assert model.tensors[model.inputs[0]].name == "inputs"


def test_seeded_training_is_at_or_above_post_training_and_cold_training_below(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.qat import COLD, POST, SEEDED, accuracies

    found = accuracies(ways=(POST, COLD, SEEDED))
    assert fmean(found[SEEDED]) >= fmean(found[POST])
    assert fmean(found[COLD]) < fmean(found[POST]) - 0.1
