"""Keras models to float .tflite: what comes out, and what is refused in which words."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedsys.edge.calibration.ranges import outputs
from fedsys.edge.conversion import worker
from fedsys.edge.conversion.convert import OPERATORS, float_model
from fedsys.edge.tflite.flatbuffer import operator_name, schema, text, unpacked
from fedsys.errors import DataError

from . import zoo

HERE = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def made(folder):
    return worker.call("oddities:make", folder=folder, doing="oddities", environment=HERE)


def names(data: bytes) -> list[str]:
    """The names of what a model computes, in order."""
    graph = unpacked(data).subgraphs[0]
    return [text(graph.tensors[operator.outputs[0]].name) for operator in graph.operators]


def ends(data: bytes) -> tuple[list[str], list[str]]:
    graph = unpacked(data).subgraphs[0]
    return tuple(
        [text(graph.tensors[n].name) for n in part] for part in (graph.inputs, graph.outputs)
    )


@pytest.mark.parametrize("name", zoo.NAMES)
def test_zoo_has_a_batch_of_one_and_operators_of_a_microcontroller(name):
    model = unpacked(zoo.floating(name))
    graph = model.subgraphs[0]
    assert {operator_name(model, operator) for operator in graph.operators} <= OPERATORS
    (number,) = graph.inputs
    assert tuple(graph.tensors[number].shape) == (1, *zoo.SHAPES[name])
    assert all((tensor.shape is None or (tensor.shape >= 1).all()) for tensor in graph.tensors)
    found = [text(tensor.name) for tensor in graph.tensors]
    assert len(set(found)) == len(found)
    assert ends(zoo.floating(name))[0] == ["rows"]


def test_tensors_are_named_after_layers():
    assert names(zoo.floating("dense")) == ["hidden/MatMul", "second/MatMul", "logits"]
    assert names(zoo.floating("digits"))[-1] == "dense"


@pytest.mark.parametrize("data", [zoo.floating, zoo.int8])
def test_constants_begin_at_multiples_of_sixteen(data):
    model = schema.Model.GetRootAs(data("kws_ds_cnn"))
    table = [model.Buffers(number)._tab for number in range(model.BuffersLength())]
    starts = [each.Vector(each.Offset(4)) for each in table if each.Offset(4)]
    assert len(starts) > 20
    assert {start % 16 for start in starts} == {0}


def test_the_same_file_gives_the_same_bytes_in_another_process(folder, made):
    assert float_model(folder / "plain.keras") == made["plain"]


def test_outputs_are_those_of_keras(made):
    assert len(made["outputs"]) == 6
    for name, wanted in made["outputs"].items():
        assert outputs(zoo.floating(name), zoo.rows(name, 3)) == pytest.approx(wanted, abs=1e-4)


def test_layers_keep_their_names_whatever_tensorflow_appends(made):
    assert names(made["sequential"]) == ["a/MatMul", "a_1/MatMul", "softmax"]
    assert names(made["nested"]) == ["dense/MatMul", "inner/dense/MatMul", "dense_1"]
    assert names(made["plain"])[0].startswith("conv/")


@pytest.mark.parametrize("name", ["two_inputs", "two_named_inputs"])
def test_several_inputs_and_outputs_keep_their_names(name, made):
    graph = unpacked(made[name]).subgraphs[0]
    inputs, found = (
        {text(graph.tensors[number].name): int(graph.tensors[number].shape[1]) for number in part}
        for part in (graph.inputs, graph.outputs)
    )
    assert inputs == {"first": 4, "second": 3}
    assert found == {"left": 2, "r": 7}


def test_a_subclass_of_model(made):
    assert ends(made["subclass"])[0] == ["input"]
    assert Counter(names(made["subclass"])).total() == 1


REFUSED = {
    "unbuilt": ("does not say the shape", "keras.Input"),
    "layer_norm": ("layer 'ln' (LayerNormalization)", "use BatchNormalization"),
    "group_norm": ("layer 'gn' (GroupNormalization)", "use BatchNormalization"),
    "lstm": ("layer 'cells' (LSTM)", "use Conv1D layers, or unroll=True"),
    "gru": ("layer 'cells' (GRU)", "use Conv1D layers, or unroll=True"),
    "bidirectional": ("layer 'both' (Bidirectional)", "use Conv1D"),
    "embedding": ("layer 'words' (Embedding)", "one-hot rows"),
    "attention": ("layer 'heads' (MultiHeadAttention)", "use Conv1D or DepthwiseConv2D"),
    "gelu": ("layer 'hidden", "needs GELU", "use ReLU"),
    "elu": ("layer 'curve", "needs ELU", "use ReLU"),
    "bilinear": ("layer 'up", "needs RESIZE_BILINEAR", "interpolation='nearest'"),
    "repeat": ("layer 'again", "needs TILE", "use Conv2DTranspose"),
    "volume": ("layer 'cube' (Conv3D)", "use Conv2D"),
    "dynamic": ("input 'rows' has the shape (None, 3)", "give keras.Input fixed sizes"),
    "integers": ("input 'rows' is uint8", "float32"),
    "half": ("layer 'small' computes in float16", "float32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_is_refused_by_layer_operator_and_remedy(name, made):
    said = made[name]
    assert isinstance(said, str), "it was converted"
    assert said.startswith(f"ExportError: {name}: ")
    for part in REFUSED[name]:
        assert part in said
    assert "\n" not in said and len(said) < 300


def test_an_operator_without_a_layer_of_its_own_is_refused(made):
    assert made["sums"].startswith("ExportError: sums: layer ")
    assert "that cannot run on a microcontroller: " in made["sums"]


def test_own_classes_need_their_file(made):
    assert made["classes missing"].startswith("ExportError: ")
    assert "needs the class" in made["classes missing"] and "Doubled" in made["classes missing"]
    assert "name the Python file" in made["classes missing"]
    assert "cannot be imported: ModuleNotFoundError" in made["classes broken"]
    rows = np.ones((1, 6), np.float32)
    assert outputs(made["classes"], rows).shape == (1, 2)


def test_a_lambda_says_what_to_do(made):
    assert "has a Lambda layer" in made["lambda"]
    assert "register_keras_serializable" in made["lambda"]


def test_files_that_are_no_models(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        float_model(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(DataError, match="is no Keras 3 model"):
        float_model(tmp_path / "text.keras")
