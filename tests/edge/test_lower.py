from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedsys.edge.integers.lower import INSTEAD, LOWERINGS, lower
from fedsys.edge.tflite.model import Model
from fedsys.edge.tflite.reader import read
from fedsys.errors import ExportError

from .build import Op, Value, build, one_operator


def chain() -> Model:
    """Two functions one after the other: tensor 0 -> 1 -> 2."""
    tensors = [Value((1, 4), scale=0.1, name=f"layer{i}") for i in range(3)]
    return read(build(tensors, [Op("RELU", [0], [1]), Op("RELU", [1], [2])], [0], [2]))


def rewired(model: Model, place: int, **changes: Any) -> Model:
    """The model with one operator changed."""
    operators = list(model.operators)
    operators[place] = replace(operators[place], **changes)
    return replace(model, operators=tuple(operators))


def test_nodes_follow_the_order_of_operators_and_name_them():
    program = lower(chain())
    assert [node.output for node in program.nodes] == [1, 2]
    assert [node.operator.index for node in program.nodes] == [0, 1]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"inputs": (2,)}, "reads 'layer2' before anything has written it"),
        ({"inputs": (9,)}, "reads tensor 9, which does not exist"),
        ({"inputs": (-2,)}, "reads tensor -2"),
        ({"outputs": (9,)}, "writes tensor 9, which does not exist"),
        ({"outputs": (0,)}, "writes 'layer0' a second time"),
        ({"outputs": (2,)}, "writes 'layer2' a second time|before anything"),
    ],
)
def test_an_order_that_cannot_be_run_is_refused(changes, words):
    with pytest.raises(ExportError, match=words):
        lower(rewired(chain(), 0, **changes))


def test_inputs_and_outputs_of_the_model_must_make_sense():
    model = chain()
    with pytest.raises(ExportError, match="output 'layer2' is never computed"):
        lower(replace(model, operators=model.operators[:1]))
    with pytest.raises(ExportError, match="input 'layer0' is a constant or given twice"):
        lower(replace(model, inputs=(0, 0)))
    with pytest.raises(ExportError, match="input of the model is tensor 7"):
        lower(replace(model, inputs=(7,)))
    with pytest.raises(ExportError, match="output of the model is tensor -1"):
        lower(replace(model, outputs=(-1,)))
    with pytest.raises(ExportError, match="no operators"):
        lower(replace(model, operators=()))


def test_tensors_beyond_any_microcontroller_are_refused():
    model = chain()
    for number, words in [(0, "input of the model, 'layer0'"), (1, "RELU of layer 'layer1'")]:
        tensors = list(model.tensors)
        tensors[number] = replace(tensors[number], shape=(1, 2**20, 2**20, 2**24))
        with pytest.raises(ExportError, match=f"{words}.*too large"):
            lower(replace(model, tensors=tuple(tensors)))


def test_an_operator_that_is_not_computed_is_named_with_its_layer_and_what_is():
    file = one_operator(
        "FLOOR", [Value((1, 4), "float32")], Value((1, 4), "float32", name="model/lambda")
    )
    with pytest.raises(ExportError, match=r"FLOOR of layer 'model/lambda': .*CONV_2D") as caught:
        lower(read(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "code, instead",
    [
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "Conv1D"),
        ("BATCH_MATMUL", "dense layers"),
        ("SQRT", "BatchNormalization"),
        ("SHAPE", "static batch of one"),
        ("TILE", "nearest"),
    ],
)
def test_what_to_use_instead_is_said(code, instead):
    model = rewired(chain(), 1, code=code)
    with pytest.raises(ExportError, match=f"{code} of layer 'layer2': .*{instead}"):
        lower(model)


def test_nothing_that_is_computed_has_a_replacement():
    assert not set(INSTEAD) & set(LOWERINGS)


def test_a_custom_operator_is_refused_even_under_a_known_name():
    model = rewired(chain(), 1, custom=True)
    with pytest.raises(ExportError, match="custom operator"):
        lower(model)
    with pytest.raises(ExportError, match="FlexErf of layer 'layer2': is a custom operator"):
        lower(rewired(chain(), 1, code="FlexErf"))


def test_a_float_layer_amid_int8_is_told_from_a_float_model():
    def model(kind: str) -> Model:
        tensors = [
            Value((1, 4), kind, scale=0.1),
            Value((1, 4), kind, scale=0.1),
            Value((1, 4), "float32", name="normalization"),
            Value((1, 4), "float32", name="model/normalization/add"),
        ]
        return read(build(tensors, [Op("RELU", [0], [1]), Op("RELU", [2], [3])], [0, 2], [1, 3]))

    with pytest.raises(ExportError, match=r"amid int8; .*BatchNormalization"):
        lower(model("int8"))
    with pytest.raises(ExportError, match="computed in float32; export with int8"):
        lower(model("float32"))


def test_arrays_of_nodes_are_what_c_gets():
    for node in lower(chain()).nodes:
        for value in vars(node).values():
            if isinstance(value, np.ndarray):
                assert value.dtype in (np.int8, np.int32) and value.flags.c_contiguous
