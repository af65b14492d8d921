"""What is read of a file is what was written, and what will not do is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from fedsys.edge.tflite.reader import read
from fedsys.edge.tflite.schema import ENUMERATIONS, OPERATORS, OPTIONS, TYPES
from fedsys.errors import DataError

from . import zoo
from .build import Value, constant, one_operator, pack, unpack

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
    "content, message",
    [
        (None, "there is no such file"),
        (b"", "is empty"),
        (b"nothing of the kind", ".*no TFL3 mark"),
        (b"PK\x03\x04 and so on", "is a saved Keras model .* make a .tflite with `fedsys export`"),
    ],
)
def test_a_file_that_is_none_is_refused_by_its_name(tmp_path, content, message):
    path = tmp_path / "x.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"x.tflite: {message}"):
        read(path)


def test_the_name_of_a_file_cannot_break_the_line(tmp_path):
    path = tmp_path / "a\nb\x1b.tflite"
    for content in (None, b"nothing of the kind"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value).isprintable() and "a?b?.tflite" in str(caught.value)


def test_a_folder_is_refused_by_its_name(tmp_path):
    with pytest.raises(DataError, match="is no file; give the path"):
        read(tmp_path)


@pytest.mark.parametrize(
    "value, message",
    [
        (Value((1, 4), scale=0.1, signature=(-1, 4)), "static batch of one"),
        (Value((1, -1), scale=0.1), "static batch of one"),
        (Value((1, 6, 4), scale=0.1, signature=(-1, -1, 4)), r"keras.Input\(\(SIZE, 4\), batch"),
        (Value((1, 4), scale=-1.0), "scale"),
        (Value((1, 4), scale=[0.1, 0.2, 0.3], axis=1), "3 scales along axis 1"),
        (Value((1, 4), scale=[0.1] * 4, axis=2), "4 scales along axis 2"),
        (Value((1, 4), scale=[0.1] * 4, axis=-1), "4 scales along axis -1"),
        (Value((1, 4), scale=[0.1, 0.1, 0.0, 0.1], axis=1), "scale"),
        (Value((1, 4), scale=[0.1] * 4, axis=1, zero_point=[0, 0, 0, -129]), "zero point"),
        (Value((1, 4), scale=float("nan")), "scale"),
        (Value((1, 4), scale=0.1, zero_point=400), "zero point"),
        (Value((1, 4), "float64"), "float64"),
    ],
)
def test_what_will_not_do_is_refused(value, message):
    with pytest.raises(DataError, match=message):
        read(one_operator("RELU", [value], INT8))


def test_zero_points_need_be_one_or_as_many_as_scales():
    model = unpack(one_operator("RELU", [Value((1, 4), scale=[0.1] * 4, axis=1)], INT8))
    scheme = model.subgraphs[0].tensors[0].quantization
    scheme.zeroPoint = np.array([3])
    assert read(pack(model)).tensors[0].quantization.zero_point.tolist() == [3] * 4
    scheme.zeroPoint = np.array([3, 3])
    with pytest.raises(DataError, match="4 scales and 2 zero points"):
        read(pack(model))


def test_a_quantisation_of_a_custom_kind_is_refused():
    model = unpack(one_operator("RELU", [INT8], INT8))
    scheme = model.subgraphs[0].tensors[0].quantization
    scheme.detailsType = schema.QuantizationDetails.CustomQuantization
    scheme.details = schema.CustomQuantizationT()
    scheme.details.custom = [1, 2]
    with pytest.raises(DataError, match="quantised in a way of its own"):
        read(pack(model))


def test_another_graph_is_read_over_unless_an_operator_runs_it():
    model = unpack(one_operator("RELU", [INT8], INT8))
    model.subgraphs.append(model.subgraphs[0])
    assert [op.code for op in read(pack(model)).operators] == ["RELU"]
    operator = model.subgraphs[0].operators[0]
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.WHILE
    model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.WHILE
    operator.builtinOptionsType = schema.BuiltinOptions.WhileOptions
    operator.builtinOptions = schema.WhileOptionsT()
    with pytest.raises(DataError, match=r"operator 0 \(WHILE\) runs another .* 2 graphs; .*unroll"):
        read(pack(model))


def test_sparse_weights_are_refused():
    model = unpack(one_operator("ADD", [INT8, constant(np.zeros((1, 4)), scale=0.1)], INT8))
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder = np.arange(2, dtype=np.int32)
    model.subgraphs[0].tensors[1].sparsity = sparsity
    with pytest.raises(DataError, match="is sparse; convert it with dense weights"):
        read(pack(model))


def test_constants_behind_the_flatbuffer_are_found_there_and_nowhere_else():
    """As files beyond 2 GiB have them: a buffer says where in the file its bytes lie."""
    values = np.arange(4, dtype=np.int8).reshape(1, 4)
    model = unpack(one_operator("ADD", [INT8, constant(values, scale=0.1)], INT8))
    buffer = model.buffers[model.subgraphs[0].tensors[1].buffer]
    buffer.data, buffer.offset, buffer.size = None, 2, 4
    length = len(pack(model))
    buffer.offset = length
    data = pack(model)
    assert len(data) == length
    assert (read(data + values.tobytes()).tensors[1].data == values).all()
    for offset, size in ((length, 5), (length + 1, 4), (2**63, 4), (2**64 - 1, 2**64 - 1)):
        buffer.offset, buffer.size = offset, size
        with pytest.raises(DataError, match="reaches beyond its end"):
            read(pack(model) + values.tobytes())


def test_weights_in_another_file_are_refused():
    model = unpack(one_operator("ADD", [INT8, constant(np.zeros((1, 4)), scale=0.1)], INT8))
    model.subgraphs[0].tensors[1].externalBuffer = 7
    with pytest.raises(DataError, match="lies in another file; convert the model to a single"):
        read(pack(model))


@pytest.mark.parametrize("kind", ["floating", "int8"])
@pytest.mark.parametrize("name", zoo.NAMES)
def test_converted_models_are_read_as_the_schemas_own_classes_read_them(name, kind):
    data = getattr(zoo, kind)(name)
    model, wanted = read(data), unpack(data)
    (graph,) = wanted.subgraphs
    assert model.inputs == tuple(graph.inputs) and model.outputs == tuple(graph.outputs)
    assert model.bytes == len(data)
    assert model.description.encode() == (wanted.description or b"")
    assert len(model.tensors) == len(graph.tensors)
    for tensor, other in zip(model.tensors, graph.tensors, strict=True):
        assert tensor.name.encode() == other.name
        assert TYPES[other.type].lower() == tensor.dtype.name
        assert tensor.shape == tuple(() if other.shape is None else other.shape)
        assert tensor.variable == other.isVariable
        content = wanted.buffers[other.buffer].data
        assert tensor.constant == (content is not None and len(content) > 0)
        if tensor.constant:
            assert tensor.data.tobytes() == bytes(content)
            assert not tensor.data.flags.writeable
        scheme = other.quantization
        scales = None if scheme is None or tensor.dtype.kind == "f" else scheme.scale
        assert (tensor.quantization is None) == (scales is None or len(scales) == 0)
        if tensor.quantization is not None:
            assert (tensor.quantization.scale == scheme.scale).all()
            assert (tensor.quantization.zero_point == scheme.zeroPoint).all()
            assert tensor.quantization.axis == scheme.quantizedDimension
    assert len(model.operators) == len(graph.operators)
    for operator, other in zip(model.operators, graph.operators, strict=True):
        code = wanted.operatorCodes[other.opcodeIndex]
        assert getattr(schema.BuiltinOperator, operator.code) == code.builtinCode
        assert (operator.version, operator.custom) == (code.version, False)
        assert operator.inputs == tuple(other.inputs) and operator.outputs == tuple(other.outputs)
        for field in OPTIONS[operator.code].fields if operator.code in OPTIONS else ():
            if other.builtinOptions is not None:
                told = getattr(other.builtinOptions, camel(field.name))
                words = ENUMERATIONS.get(field.kind)
                if field.kind == "ints":
                    told = tuple(() if told is None else told)
                assert operator.options[field.name] == (words[told] if words else told)
    assert set(model.metadata) == {entry.name.decode() for entry in wanted.metadata or ()}


def camel(name):
    """A field's name as the schema's classes have it."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


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
        assert hasattr(options, camel(field.name))
        setattr(options, camel(field.name), value)
        words = ENUMERATIONS.get(field.kind)
        wanted[field.name] = words[1] if words else value
    operator = model.subgraphs[0].operators[0]
    operator.builtinOptionsType, operator.builtinOptions = expected.number, options
    assert read(pack(model)).operators[0].options == wanted
