"""What is told of a file, against numbers reckoned by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fedsys.edge.calibration.federated import calibrate
from fedsys.edge.conversion.quantize import quantize
from fedsys.edge.integers.lower import lower
from fedsys.edge.tflite.inspection import as_dict, inspect, text
from fedsys.edge.tflite.reader import read
from fedsys.errors import DataError, ExportError

from . import zoo
from .build import Op, Value, build, constant, one_operator, pack, unpack
from .damage import meaning_changed


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
        # 2 x 2 x 2 places, 5 channels, each of 3 x 3 x 3 x 2 products.
        (
            "CONV_3D",
            [Value((1, 4, 4, 4, 2), "float32"), ones(3, 3, 3, 2, 5, dtype="float32", scale=None)],
            Value((1, 2, 2, 2, 5), "float32"),
            {},
            2 * 2 * 2 * 5 * 3 * 3 * 3 * 2,
            3 * 3 * 3 * 2 * 5,
        ),
        # 6 steps of 4 gates, each 5 cells times 3 inputs and 5 outputs.
        (
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
            [
                Value((1, 6, 3), scale=1.0),
                *[ones(5, 3)] * 4,
                *[ones(5, 5)] * 4,
                *[None] * 3,
                *[ones(5, dtype="int32")] * 4,
                None,
                None,
                Value((1, 5), scale=1.0, variable=True),
                Value((1, 5), "int16", 1.0, variable=True),
            ],
            Value((1, 6, 5), scale=1.0),
            {},
            6 * 4 * (5 * 3 + 5 * 5),
            4 * (5 * 3 + 5 * 5 + 5),
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


def test_the_most_bytes_alive_are_those_of_the_widest_moment(look):
    """input 10 -> a 40 -> b 20 -> sum of b and input 10: widest where a, b and the input live."""
    tensors = [Value((1, n), scale=1.0) for n in (10, 40, 20, 10)]
    operators = [Op("RELU", [0], [1]), Op("RELU", [1], [2]), Op("ADD", [2, 0], [3])]
    found = look(build(tensors, operators, [0], [3]))
    assert found.peak_bytes == 10 + 40 + 20
    assert [step.activation_bytes for step in found.steps] == [40, 20, 10]


FLOAT = Value((1, 4), "float32")
INT8 = Value((1, 4), scale=0.1)
INT16 = Value((1, 4), "int16", scale=0.1)


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
        ("RELU", [INT16], INT16, "int16"),
        ("GELU", [INT8], INT8, "is not computed"),
        ("GELU", [FLOAT], FLOAT, "is not computed"),
        ("ARG_MAX", [INT8, constant(1, "int32")], Value((1,), "int32"), "is not computed"),
        ("RELU", [Value((1, 4))], INT8, "has no quantisation"),
        ("RELU", [INT8], Value((1, 5), scale=0.1), "has shape [1, 5], not [1, 4]"),
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
        assert f"obstacle: 0 {code} ({found.outputs[0].name}) " in text(found)


def test_every_obstacle_is_told_and_those_alike_in_one_line(look):
    tensors = [INT8, *[Value((1, 4), "float32")] * 6, INT8, INT8]
    operators = [Op("DEQUANTIZE", [0], [1])]
    operators += [Op("RELU", [n], [n + 1]) for n in range(1, 6)]
    operators += [Op("QUANTIZE", [6], [7]), Op("GELU", [7], [8])]
    found = look(build(tensors, operators, [0], [8]))
    assert [obstacle.operator for obstacle in found.obstacles] == [1, 2, 3, 4, 5, 7]
    floats, gelu = [line for line in text(found).splitlines() if line.startswith("obstacle")]
    assert (
        "1 RELU (tensor2), 2 RELU (tensor3), 3 RELU (tensor4) and 2 more: each computes" in floats
    )
    assert "7 GELU (tensor8) is not computed" in gelu and "ReLU" in gelu


def test_a_tensor_too_large_for_any_chip_is_an_obstacle(look):
    large = Value((1, 2**29), scale=0.1)
    found = look(build([large, INT8, INT8], [Op("RELU", [1], [2])], [0, 1], [2]))
    assert "too large" in text(found)


@pytest.mark.parametrize("method", ["float", "dynamic", "int16", "int8"])
def test_models_of_every_method_are_told_apart(look, method):
    floats = zoo.floating("digits")
    ranges = calibrate(floats, zoo.rows("digits")) if method in ("int8", "int16") else None
    found = look(quantize(floats, ranges, method))
    reasons = [obstacle.reason.split()[:2] for obstacle in found.obstacles]
    assert {step.dtype for step in found.steps} == {
        {"float": "float32", "dynamic": "float32"}.get(method, method)
    }
    if method == "int8":
        assert reasons == []
    elif method == "dynamic":
        assert reasons.count(["is", "hybrid:"]) == 3
        assert reasons.count(["computes", "in"]) == len(reasons) - 3
    else:
        assert reasons == [["works", "on"] if method == "int16" else ["computes", "in"]] * 6
    assert (found.macs, found.parameters) == (36_192, 1_446)


def test_what_is_without_obstacles_can_be_lowered_and_nothing_else(look):
    random = np.random.default_rng(5)
    lowered = 0
    for _ in range(120):
        data = meaning_changed(random, zoo.int8("residual"))
        try:
            model = read(data)
        except DataError:
            continue
        try:
            lower(model)
            wanted = True
        except ExportError:
            wanted = False
        lowered += wanted
        assert (look(data).obstacles == ()) == wanted
    assert 5 < lowered < 60


@pytest.mark.parametrize("name, reason", [("FlexErf", "Flex"), ("Mine", "custom")])
def test_custom_operators_are_named(look, name, reason):
    data = build([INT8, INT8], [Op(name, [0], [1], custom=True)], [0], [1])
    found = look(data)
    assert found.steps[0].code == name
    assert reason in found.obstacles[0].reason


def test_an_open_batch_is_an_obstacle_and_the_rest_is_told(look):
    open_batch = Value((1, 4), scale=0.1, signature=(-1, 4))
    found = look(one_operator("RELU", [open_batch], INT8))
    assert "open sizes, [-1, 4]" in found.obstacles[0].reason
    assert "keras.Input((4,), batch_size=1)" in found.obstacles[0].remedy
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


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("missing.tflite", None, "there is no such file"),
        ("empty.tflite", b"", "is empty"),
        ("notes.txt", b"some notes", "no TFL3 mark"),
        ("model.keras", b"PK\3\4...", "make a .tflite with `fedsys export`"),
        ("short.tflite", one_operator("RELU", [INT8], INT8)[:200], "damaged or cut short"),
    ],
)
def test_on_the_command_line_what_is_no_model_is_one_line_and_an_exit_code(
    cli, name, content, told
):
    if content is not None:
        Path(name).write_bytes(content)
    outcome = cli("inspect", name)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (3, "", 1)
    assert outcome.err.startswith(f"fedsys: {name}: ") and told in outcome.err


def test_exporting_an_open_batch_says_what_to_build_instead(cli):
    open_batch = Value((1, 8, 3), scale=0.1, signature=(-1, 8, 3))
    Path("open.tflite").write_bytes(one_operator("RELU", [open_batch], Value((1, 8, 3))))
    outcome = cli("export", "open.tflite")
    assert (outcome.code, outcome.err.count("\n")) == (3, 1)
    assert "the .keras file" in outcome.err
    assert "keras.Input((8, 3), batch_size=1)" in outcome.err
    assert not Path("build").exists()
