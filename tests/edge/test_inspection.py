"""What is told of a file, against numbers reckoned by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fedsys.edge.inspection import as_dict, inspect, text
from fedsys.errors import DataError

from .build import Op, Value, build, constant, one_operator, pack, unpack


@pytest.fixture
def look(tmp_path):
    def inspected(data):
        path = tmp_path / "model.tflite"
        path.write_bytes(data)
        return inspect(path)

    return inspected


def ones(*shape, dtype="int8", scale=0.1):
    return constant(np.ones(shape), dtype, scale)


@pytest.mark.parametrize(
    "code, inputs, output, options, macs, parameters",
    [
        # 4 x 4 positions, 5 channels, each of 3 x 3 x 2 products.
        (
            "CONV_2D",
            [Value((1, 8, 8, 2), scale=1.0), ones(5, 3, 3, 2), ones(5, dtype="int32")],
            Value((1, 4, 4, 5), scale=1.0),
            {"stride_w": 2, "stride_h": 2},
            4 * 4 * 5 * 3 * 3 * 2,
            5 * 3 * 3 * 2 + 5,
        ),
        # 8 x 8 positions, 4 channels, each of 3 x 1 products.
        (
            "DEPTHWISE_CONV_2D",
            [Value((1, 8, 8, 4), scale=1.0), ones(1, 3, 1, 4), None],
            Value((1, 8, 8, 4), scale=1.0),
            {"stride_w": 1, "stride_h": 1, "depth_multiplier": 1},
            8 * 8 * 4 * 3,
            12,
        ),
        # 4 x 4 x 6 inputs, each to 3 x 3 places of 2 channels.
        (
            "TRANSPOSE_CONV",
            [
                constant([1, 8, 8, 2], "int32"),
                ones(2, 3, 3, 6),
                Value((1, 4, 4, 6), scale=1.0),
            ],
            Value((1, 8, 8, 2), scale=1.0),
            {"stride_w": 2, "stride_h": 2},
            4 * 4 * 6 * 3 * 3 * 2,
            108,
        ),
        # 3 rows of 7 times 7 x 5.
        (
            "FULLY_CONNECTED",
            [Value((3, 7), scale=1.0), ones(5, 7), ones(5, dtype="int32")],
            Value((3, 5), scale=1.0),
            {},
            3 * 5 * 7,
            40,
        ),
        (
            "BATCH_MATMUL",
            [Value((2, 3, 7), scale=1.0), Value((2, 7, 4), scale=1.0)],
            Value((2, 3, 4), scale=1.0),
            {},
            2 * 3 * 4 * 7,
            0,
        ),
        (
            "MEAN",
            [Value((1, 4, 4, 8), scale=1.0), constant([1, 2], "int32")],
            Value((1, 8), scale=1.0),
            {},
            0,
            0,
        ),
    ],
)
def test_products_and_parameters_are_those_counted_by_hand(
    look, code, inputs, output, options, macs, parameters
):
    found = look(one_operator(code, inputs, output, options))
    assert (found.macs, found.parameters) == (macs, parameters)
    assert found.obstacles == ()


def test_the_most_bytes_alive_are_those_of_the_widest_moment(look):
    """input 10 -> a 40 -> b 20 -> sum of b and input 10: widest where a, b and the input live."""
    tensors = [Value((1, n), scale=1.0) for n in (10, 40, 20, 10)]
    operators = [Op("RELU", [0], [1]), Op("RELU", [1], [2]), Op("ADD", [2, 0], [3])]
    found = look(build(tensors, operators, [0], [3]))
    assert found.peak_bytes == 10 + 40 + 20
    assert [step.activation_bytes for step in found.steps] == [40, 20, 10]


FLOAT = Value((1, 4), "float32")
INT8 = Value((1, 4), scale=0.1)


@pytest.mark.parametrize(
    "code, inputs, output, reason",
    [
        ("RELU", [FLOAT], FLOAT, "computes in float"),
        ("FULLY_CONNECTED", [FLOAT, ones(4, 4), None], FLOAT, "hybrid"),
        ("SHAPE", [INT8], Value((2,), "int32"), "computes shapes"),
        ("RELU", [Value((1, 4), "uint8", 0.1)], Value((1, 4), "uint8", 0.1), "uint8"),
        ("QUANTIZE", [FLOAT], INT8, None),
        ("DEQUANTIZE", [INT8], FLOAT, None),
        ("RELU", [INT8], INT8, None),
    ],
)
def test_what_stands_against_a_microcontroller_is_named(look, code, inputs, output, reason):
    found = look(one_operator(code, inputs, output))
    if reason is None:
        assert found.obstacles == ()
        assert "nothing found" in text(found)
    else:
        assert reason in found.obstacles[0].reason
        assert found.obstacles[0].code == code
        assert f"obstacle: 0 {code}" in text(found)


@pytest.mark.parametrize("name, reason", [("FlexErf", "Flex"), ("Mine", "custom")])
def test_custom_operators_are_named(look, name, reason):
    data = build([INT8, INT8], [Op(name, [0], [1], custom=True)], [0], [1])
    found = look(data)
    assert found.steps[0].code == name
    assert reason in found.obstacles[0].reason


def test_an_open_batch_is_an_obstacle_and_the_rest_is_told(look):
    open_batch = Value((1, 4), scale=0.1, signature=(-1, 4))
    found = look(one_operator("RELU", [open_batch], INT8))
    assert "dynamic shape" in found.obstacles[0].reason
    assert "static batch of one" in found.obstacles[0].remedy
    assert found.steps[0].outputs == ((1, 4),)


def test_the_table_says_what_the_values_hold_and_json_can_hold_it(look):
    data = one_operator("FULLY_CONNECTED", [INT8, ones(3, 4), None], Value((1, 3), scale=0.25))
    found = look(data)
    told = text(found)
    assert "input: tensor0, int8 1x4, scale 0.1, zero point 0" in told
    assert "output: tensor2, int8 1x3, scale 0.25" in told
    assert f"constants 12 of the file's {len(data):,} bytes" in told
    back = json.loads(json.dumps(as_dict(found)))
    assert back["macs"] == 12 and back["steps"][0]["outputs"] == [[1, 3]]


def test_names_cannot_write_to_the_terminal(look):
    model = unpack(one_operator("RELU", [INT8], INT8))
    model.subgraphs[0].tensors[1].name = "a\x1b[2Jb\nc"
    told = text(look(pack(model)))
    assert "\x1b" not in told and "a?[2Jb?c" in told


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "x.tflite"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="TFL3 mark"):
        inspect(path)
