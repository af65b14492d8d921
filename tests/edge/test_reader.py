"""What is read of a file is what was written, and what will not do is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from fedsys.edge.reader import read
from fedsys.edge.schema import ENUMERATIONS, OPERATORS, OPTIONS, TYPES
from fedsys.errors import DataError

from .build import Value, one_operator, pack, unpack

INT8 = Value((1, 4), scale=0.1, zero_point=7, name="x")


def test_numbers_stand_for_what_the_schema_says():
    for number, name in enumerate(OPERATORS):
        assert getattr(schema.BuiltinOperator, name) == number
    for number, name in enumerate(TYPES):
        assert getattr(schema.TensorType, name) == number


def test_a_tensor_is_read_as_it_was_written():
    model = read(one_operator("LEAKY_RELU", [INT8], INT8, {"alpha": 0.5}))
    tensor = model.tensors[0]
    assert (tensor.name, tensor.shape, tensor.dtype) == ("x", (1, 4), np.int8)
    assert tensor.quantization.scale == np.float32(0.1) and tensor.quantization.zero_point == 7
    assert model.operators[0].options == {"alpha": 0.5}
    assert (model.inputs, model.outputs) == ((0,), (1,))


@pytest.mark.parametrize(
    "value, message",
    [
        (Value((1, 4), scale=0.1, signature=(-1, 4)), "static batch of one"),
        (Value((1, -1), scale=0.1), "static batch of one"),
        (Value((1, 4), scale=-1.0), "scale"),
        (Value((1, 4), scale=float("nan")), "scale"),
        (Value((1, 4), scale=0.1, zero_point=400), "zero point"),
        (Value((1, 4), "float64"), "float64"),
    ],
)
def test_what_will_not_do_is_refused(value, message):
    with pytest.raises(DataError, match=message):
        read(one_operator("RELU", [value], INT8))


@pytest.mark.parametrize("code", sorted(OPTIONS))
def test_every_option_is_read_from_its_own_slot(code):
    """Written through the schema's classes with a value of its own each."""
    expected, wanted = OPTIONS[code], {}
    model = unpack(one_operator("RELU", [INT8], INT8))
    model.operatorCodes[0].builtinCode = getattr(schema.BuiltinOperator, code)
    model.operatorCodes[0].deprecatedBuiltinCode = 0
    names = {number: name for name, number in vars(schema.BuiltinOptions).items()}
    options = getattr(schema, names[expected.number] + "T")()
    for place, field in enumerate(expected.fields):
        value = {"int": place + 2, "float": place + 0.5, "ints": (place, 5), "bool": True}.get(
            field.kind, 1
        )
        first, *rest = field.name.split("_")
        camel = first + "".join(word.capitalize() for word in rest)
        assert hasattr(options, camel)
        setattr(options, camel, value)
        words = ENUMERATIONS.get(field.kind)
        wanted[field.name] = words[1] if words else value
    operator = model.subgraphs[0].operators[0]
    operator.builtinOptionsType, operator.builtinOptions = expected.number, options
    assert read(pack(model)).operators[0].options == wanted
