import copy
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.errors import PolicyError
from fedsys.trust.architecture.models import Bounds, build, check

DENSE = {
    "kind": "Dense", "reads": [0], "trainable": True,
    "options": {
        "units": 3, "activation": "relu", "use_bias": True,
        "kernel_initializer": {"kind": "GlorotUniform", "seed": None},
        "bias_initializer": {"kind": "Zeros"},
    },
}  # fmt: skip
ADD = {"kind": "Add", "reads": [0, 1], "trainable": True, "options": {}}


def table(*layers: dict[str, Any], shape: tuple[int, ...] = (4,), **changed: Any) -> dict[str, Any]:
    whole = {
        "format": 1, "dtype": "float32", "inputs": [{"shape": list(shape), "dtype": "float32"}],
        "layers": [*layers] or [DENSE], "outputs": [len(layers) or 1],
    }  # fmt: skip
    return copy.deepcopy({**whole, **changed})


def dense(**changed: Any) -> dict[str, Any]:
    options = {name: changed.pop(name) for name in list(changed) if name in DENSE["options"]}
    return {**DENSE, **changed, "options": {**DENSE["options"], **options}}


def layer(kind: str, reads: tuple[int, ...] = (0,), **options: Any) -> dict[str, Any]:
    return {"kind": kind, "reads": list(reads), "trainable": True, "options": options}


def repeat(n: int, reads: int = 0) -> dict[str, Any]:
    return layer("RepeatVector", (reads,), n=n)


WRONG = [
    (table(layer("Lambda", function="x")), r"layer 1: 'Lambda' is no layer that may travel"),
    (table(layer("TFSMLayer", filepath="/tmp/x")), "'TFSMLayer' is no layer"),
    (table(layer("TorchModuleWrapper")), "no layer that may travel"),
    (table(layer("my>Custom")), "no layer that may travel"),
    (table(layer("__class__")), "no layer that may travel"),
    (table(dense(kind=["Dense"])), "no layer that may travel"),
    (table(dense(units=10**12)), r"layer 1: units: must be a whole number from 1 to 16777216"),
    (table(dense(units=True)), "units: must be a whole number"),
    (table(dense(units=3.0)), "units: must be a whole number"),
    (table(dense(units="3")), "units: must be a whole number"),
    (table(dense(units=0)), "units"),
    (table(dense(units=-1)), "units"),
    (table(dense(activation="os.system")), "activation: must be one of"),
    (table(dense(activation={"class_name": "Lambda"})), "activation: must be one of"),
    (table(dense(use_bias=1)), "use_bias: must be true or false"),
    (table(dense(kernel_initializer="zeros")), "kernel_initializer: must be a table"),
    (table(dense(kernel_initializer={"kind": "Identity"})), "must be of kind"),
    (table(dense(bias_initializer={"kind": "Constant", "value": "x"})), "value: must be a number"),
    (table(dense(kernel_initializer={"kind": "Zeros", "x": 1})), "'x': no such option"),
    (table(dense(kernel_initializer={"kind": "Constant"})), "value: is missing"),
    (table(dense(extra=1)), "unknown field 'extra'"),
    (table({**DENSE, "options": {**DENSE["options"], "name": "../x"}}), "'name': no such option"),
    (table({**DENSE, "options": {**DENSE["options"], "\n\x1b[31m": 1}}), "no such option"),
    (table({**DENSE, "options": {"units": 3}}), "activation: is missing"),
    (table({**DENSE, "options": []}), "options: must be a table"),
    (table(dense(trainable=1)), "trainable"),
    (table(dense(reads=[1])), "reads: .* each before itself"),  # a circle
    (table(dense(reads=[2]), dense(reads=[1])), "each before itself"),  # a longer one
    (table(dense(reads=[-1])), "reads"),
    (table(dense(reads=[0, 0])), "reads one layer"),
    (table(dense(reads=[])), "reads"),
    (table(dense(reads=0)), "reads"),
    (table({**ADD, "reads": [0]}), "reads several layers"),
    (table(dense(), ADD), r"layer 2 \(Add\): its inputs have lengths \[3, 4\]"),
    (table(dense(), dense()), "nothing reads from number 1"),
    (table(outputs=[0]), "nothing reads from number 1"),
    (table(outputs=[0, 1]), "an input is no output"),
    (table(outputs=[2]), "whole number from 0 to 1"),
    (table(outputs=[]), "must be a list"),
    (table(layers=[]), "layers: must be a list of 1 to 500"),
    (table(layers=[dense()] * 501), "layers: must be a list of 1 to 500"),
    (table(layers={"0": DENSE}), "layers: must be a list"),
    (table(layers=["Dense"]), "layer 1: must be a table"),
    (table(inputs=[]), "inputs"),
    (table(inputs=[{"shape": [None], "dtype": "float32"}]), "whole number"),
    (table(inputs=[{"shape": [4], "dtype": "string"}]), "dtype: must be one of"),
    (table(inputs=[{"shape": [4], "dtype": "float32", "name": "x"}]), "no such option"),
    (table(inputs=["x"]), "each must be a table"),
    (table(dtype="mixed_float16"), "must be one of float32, float64"),
    (table(dtype="string"), "must be one of"),
    (table(format=2), "not of format 1: update fedsys"),
    (table(format=True, code="x"), "unknown field 'code'|format"),
    (table(custom_objects={}), "unknown field 'custom_objects'"),
    ([], "must be a table"),
    ("Dense", "must be a table"),
    (table(dense(units=2**24), dense(reads=[1], units=2**24)), r"layer 2 .* 100000000 parameters"),
    (table(repeat(2**24)), "50000000 numbers a row"),
    (table(layer("Embedding", input_dim=2**24, output_dim=2**24,
                 embeddings_initializer={"kind": "Zeros"})), "100000000 parameters"),
    (table(layer("Reshape", target_shape=[3])), "4 numbers do not fill"),
    (table(layer("Reshape", target_shape=[-1, -1])), "do not fill"),
    (table(layer("Reshape", target_shape=[0, -1])), "do not fill|division|whole"),
    (table(layer("Permute", dims=[2])), "name each of 1 dimensions"),
    (table(layer("Concatenate", (0, 0), axis=3)), "axis 3 of rows of 1"),
    (table(layer("Cropping1D", cropping=[3, 3]), shape=(4, 2)), "nothing is left"),
    (table(layer("Softmax", axis=0)), "axis: must be one axis"),
    (table(layer("Dropout", rate=float("nan"), seed=None)), "rate: must be a number from 0 to 1"),
    (table(layer("Dropout", rate=2, seed=None)), "rate"),
    (table(dense(), {"again": 1, "reads": [1]}), "another shape than the first"),
    (table(dense(), {"again": 0, "reads": [0]}), "number of a layer before it"),
    (table(dense(), {"again": 2, "reads": [0]}), "number of a layer before it"),
    (table(dense(), {"again": 1, "reads": [0]}, {"again": 2, "reads": [0]}), "stands first"),
    (table(dense(), {"again": 1, "reads": [0], "kind": "Dense"}), "unknown field 'kind'"),
]  # fmt: skip


@pytest.mark.parametrize("wrong, said", WRONG, ids=range(len(WRONG)))
def test_a_wrong_table_is_refused_in_one_line(wrong, said):
    with pytest.raises(PolicyError, match=said) as error:
        check(wrong)
    assert str(error.value).isprintable() and str(error.value).startswith("architecture: ")


def test_unrolling_has_an_end():
    options = {"units": 2, "use_bias": True, "activation": "tanh",
               "kernel_initializer": {"kind": "Zeros"}, "bias_initializer": {"kind": "Zeros"},
               "recurrent_initializer": {"kind": "Zeros"}, "dropout": 0, "recurrent_dropout": 0,
               "return_sequences": False, "go_backwards": False, "unroll": True}  # fmt: skip
    check(table(layer("SimpleRNN", **options), shape=(512, 2)))
    with pytest.raises(PolicyError, match="unrolled over 513 steps"):
        check(table(layer("SimpleRNN", **options), shape=(513, 2)))


def test_a_huge_model_is_refused_without_keras_and_without_room():
    """In a process of its own with little memory, in which Keras cannot be imported."""
    code = (
        "import json, resource, sys; sys.modules['keras'] = sys.modules['tensorflow'] = None\n"
        "from fedsys.errors import PolicyError\n"
        "from fedsys.trust.architecture.models import build\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
        "try: build(json.loads(sys.argv[1]))\n"
        "except PolicyError as error: print(error)"
    )
    huge = table(dense(units=2**23), dense(reads=[1], units=2**23))
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(huge)], capture_output=True, text=True
    )
    assert "more than 100000000 parameters" in done.stdout, done.stderr


def test_bounds_are_the_banks_own():
    check(table(), Bounds(parameters=15, layers=1, activations=7))
    for less in (Bounds(parameters=14), Bounds(activations=6), Bounds(layers=0)):
        with pytest.raises(PolicyError):
            check(table(), less)


def test_what_keras_does_not_build_is_one_line(monkeypatch):
    import keras

    def broken(**_: object) -> None:
        raise RuntimeError("first line\nsecond line " + "x" * 1000)

    monkeypatch.setattr(keras.layers, "Dense", broken)
    with pytest.raises(PolicyError, match="Keras cannot build it: first line second line") as error:
        build(table())
    assert len(str(error.value)) < 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["kind", "reads", "options", "again", "units", "shape", "format"])
        | st.text(max_size=5), inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        value.items() if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    return [at, *(path for key, one in items for path in paths(one, (*at, key)))]


GOOD = table(
    repeat(6),
    layer("Permute", (1,), dims=[2, 1]),
    layer("Reshape", (2,), target_shape=[2, -1, 3]),
    layer("MaxPooling2D", (3,), pool_size=[1, 2], strides=[1, 2], padding="same",
          data_format="channels_last"),
    layer("Flatten", (4,), data_format="channels_last"),
    dense(reads=[5]),
)  # fmt: skip
PATHS = paths(GOOD)


@settings(max_examples=400)
@given(st.sampled_from(PATHS), json_values)
def test_any_value_anywhere_is_a_size_or_a_policy_error(path, value):
    changed = copy.deepcopy(GOOD)
    if path:
        *most, last = path
        inner = changed
        for key in most:
            inner = inner[key]
        inner[last] = value
    else:
        changed = value
    try:
        size = check(changed)
    except PolicyError as error:
        assert str(error).isprintable()  # noqa: PT017
        return
    assert 0 < size.parameters <= Bounds().parameters
    assert all(min(shape) > 0 for shape in size.shapes)


@settings(max_examples=25)
@given(st.data())
def test_sizes_that_are_allowed_are_those_that_keras_builds(data):
    whole = st.integers(1, 4)
    pair = st.lists(whole, min_size=2, max_size=2)
    padding = data.draw(st.sampled_from(["valid", "same"]))
    draw = data.draw
    conv = layer(
        "Conv2D", filters=draw(whole), groups=draw(whole), kernel_size=draw(pair),
        strides=draw(pair), dilation_rate=draw(pair), padding=padding,
        data_format="channels_last", activation="relu", use_bias=draw(st.booleans()),
        kernel_initializer={"kind": "HeUniform", "seed": 1}, bias_initializer={"kind": "Ones"},
    )  # fmt: skip
    pool = layer("AveragePooling2D", (1,), pool_size=draw(pair), strides=draw(pair),
                 padding=padding, data_format="channels_last")  # fmt: skip
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(whole))
    given_table = table(conv, pool, shape=shape)
    try:
        size = check(given_table)
    except PolicyError:
        return
    model = build(given_table)  # checks shapes and parameters against what was said
    rows = np.ones((2, *shape), np.float32)
    assert np.asarray(model(rows)).shape == (2, *size.outputs[0])


def test_work_without_end_is_refused_before_it_is_done():
    """Few weights, few numbers, and yet days of work for a single row."""
    conv = layer(
        "Conv2D", filters=1, groups=1, kernel_size=[3000, 3000], strides=[1, 1],
        dilation_rate=[1, 1], padding="same", data_format="channels_last", activation="relu",
        use_bias=False, kernel_initializer={"kind": "Zeros"}, bias_initializer={"kind": "Zeros"},
    )  # fmt: skip
    with pytest.raises(PolicyError, match="multiplications a row"):
        check(table(conv, shape=(4000, 4000, 1)))
    pool = layer("MaxPooling2D", pool_size=[3000, 3000], strides=[1, 1], padding="same",
                 data_format="channels_last")  # fmt: skip
    with pytest.raises(PolicyError, match="multiplications a row"):
        check(table(pool, shape=(4000, 4000, 1)))


def test_work_is_counted_as_by_hand():
    conv = layer(
        "Conv2D", filters=4, groups=1, kernel_size=[3, 3], strides=[1, 1],
        dilation_rate=[1, 1], padding="same", data_format="channels_last", activation="relu",
        use_bias=False, kernel_initializer={"kind": "Zeros"}, bias_initializer={"kind": "Zeros"},
    )  # fmt: skip
    assert check(table(conv, shape=(8, 8, 2))).work == 8 * 8 * 3 * 3 * 2 * 4
    assert check(table()).work == (4 + 1) * 3
