import copy
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.errors import PolicyError
from fedsys.trust import canonical
from fedsys.trust.architecture import Bounds, check
from fedsys.trust.layer_kinds import KINDS

HERE = Path(__file__).parent


def module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


networks, zoo = module(HERE / "networks.py"), module(HERE.parent / "edge" / "zoo.py")


def specify(model):
    from fedsys.trust.architecture import specify

    return specify(model)


def build(table, *bounds):
    from fedsys.trust.architecture import build

    return build(table, *bounds)


def travelled(model: Any) -> Any:
    """The model that arrives at the other side, with the same weights."""
    from fedsys.layout import Layout, read_weights, write_weights

    table = canonical.decode(canonical.encode(specify(model)))
    arrived = build(table)
    assert specify(arrived) == table
    if not model.trainable_variables:
        return arrived
    assert Layout.of(arrived) == Layout.of(model)
    rng = np.random.default_rng(7)
    weights = read_weights(model)
    weights = np.abs(weights + rng.normal(0, 0.1, weights.shape)).astype(weights.dtype)
    write_weights(model, weights)
    write_weights(arrived, weights)
    return arrived


def assert_alike(one: Any, other: Any) -> None:
    rng = np.random.default_rng(3)
    rows = [rng.normal(size=(4, *tensor.shape[1:])).astype(tensor.dtype) for tensor in one.inputs]
    inputs = rows if len(rows) > 1 else rows[0]
    for training in (False, None):
        found, wanted = other(inputs, training=training), one(inputs, training=training)
        for a, b in zip(*(x if isinstance(x, list) else [x] for x in (found, wanted)), strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


# --- there and back ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.NAMES)
def test_every_network_that_is_exported_travels(name):
    model = zoo.keras_model(name)
    assert_alike(model, travelled(model))


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_layer_travels_with_all_its_options(name):
    model = networks.make(name)
    arrived = travelled(model)
    assert_alike(model, arrived)
    size = check(specify(model))
    assert [*size.outputs] == [tuple(output.shape[1:]) for output in model.outputs]
    assert size.parameters == model.count_params()


def test_no_kind_of_layer_goes_untried():
    used: set[str] = set()
    for name in networks.NETWORKS:
        used |= set(check(specify(networks.make(name))).kinds)
    import keras

    inputs = keras.Input((4,), dtype="int32")
    embedded = keras.Model(inputs, keras.layers.Flatten()(keras.layers.Embedding(9, 3)(inputs)))
    used |= set(check(specify(embedded)).kinds)
    assert set(KINDS) <= used


def test_the_models_of_the_tasks_travel():
    from fedsys.tasks import models

    for model in (
        models.mlp((5,), 2), models.logistic((4,)), models.two_nn(), models.mcmahan_cnn(),
        models.uniform_logistic((6,)), models.small_cnn((8, 8, 1), 3), models.depthwise(),
    ):  # fmt: skip
        assert_alike(model, travelled(model))


def test_whole_numbers_and_other_types_of_input_travel():
    import keras

    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.GRU(3)(keras.layers.Embedding(50, 6)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    arrived = travelled(model)
    assert arrived.inputs[0].dtype == "int32"
    rows = np.array([[1, 2, 3, 49]], np.int32)
    np.testing.assert_array_equal(np.asarray(model(rows)), np.asarray(arrived(rows)))
    double = keras.Sequential(
        [keras.Input((3,), dtype="float64"), keras.layers.Dense(2, dtype="float64")]
    )
    assert travelled(double).trainable_variables[0].dtype == "float64"


def test_a_sequential_model_and_its_functional_twin_are_one_table():
    import keras

    a = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, name="a"), keras.layers.Dense(2, name="b")]
    )
    inputs = keras.Input((3,), name="other")
    b = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(4)(inputs)))
    assert canonical.encode(specify(a)) == canonical.encode(specify(b))
    assert_alike(a, travelled(a))


def test_initial_weights_come_from_the_same_draw():
    """The table names the initializers: with their seeds, the weights are the same."""
    import keras

    inputs = keras.Input((3,))
    start = keras.initializers.GlorotUniform(seed=5)
    model = keras.Model(inputs, keras.layers.Dense(4, kernel_initializer=start)(inputs))
    np.testing.assert_array_equal(build(specify(model)).get_weights()[0], model.get_weights()[0])


def test_a_table_is_the_one_written_by_hand():
    import keras

    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dropout(0.5)]
    )
    assert specify(model) == {
        "format": 1,
        "dtype": "float32",
        "inputs": [{"shape": [3], "dtype": "float32"}],
        "layers": [
            {
                "kind": "Dense",
                "reads": [0],
                "trainable": True,
                "options": {
                    "units": 4,
                    "activation": "relu",
                    "use_bias": True,
                    "kernel_initializer": {"kind": "GlorotUniform", "seed": None},
                    "bias_initializer": {"kind": "Zeros"},
                },
            },
            {
                "kind": "Dropout",
                "reads": [1],
                "trainable": True,
                "options": {"rate": 0.5, "seed": None},
            },
        ],
        "outputs": [2],
    }


# --- models that do not travel -------------------------------------------------------------------


def refused_model(model: Any, said: str) -> None:
    with pytest.raises(PolicyError, match=said) as error:
        specify(model)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1200


def chain(*layers: Any, shape: tuple[int, ...] = (4,)) -> Any:
    import keras

    return keras.Sequential([keras.Input(shape), *layers])


def test_code_does_not_travel():
    import keras

    @keras.saving.register_keras_serializable()
    class Dense(keras.layers.Dense):
        """Of the same name as an allowed one, and registered."""

    class Twice(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    class Whole(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    def relu(x: Any) -> Any:
        return x

    refused_model(chain(keras.layers.Lambda(lambda x: x)), "'lambda.*' is Lambda, which does not")
    refused_model(chain(Dense(3)), "is Dense, which does not travel")
    refused_model(chain(Twice()), "Twice, which does not travel")
    refused_model(Whole(), "Whole has code of its own")
    refused_model(
        chain(keras.layers.Dense(3, activation=relu)), "its activation is code of its own"
    )
    refused_model(chain(keras.layers.Activation(lambda x: x)), "activation")
    refused_model(
        chain(keras.layers.Dense(3, kernel_initializer=lambda shape, dtype: 0 * shape[0])),
        "kernel_initializer",
    )
    inputs = keras.Input((4,))
    refused_model(keras.Model(inputs, inputs * 2 + 1), "Add, which does not travel|does not travel")
    refused_model(
        chain(keras.layers.Dense(3, kernel_regularizer="l2")), "kernel_regularizer does not"
    )
    refused_model(chain(keras.layers.Dense(3, kernel_constraint="non_neg")), "kernel_constraint")
    refused_model(chain(chain(keras.layers.Dense(2))), "Sequential, which does not travel")


def test_what_has_no_place_in_a_table_is_named():
    import keras

    L = keras.layers  # noqa: N806
    refused_model(keras.Sequential([L.Dense(2)]), "has no inputs yet")
    refused_model(chain(L.LSTM(3), shape=(None, 4)), "every length but")
    refused_model(chain(L.Normalization()), "mean")
    refused_model(chain(L.LSTM(2, zero_output_for_mask=True), shape=(5, 4)), "zero_output_for_mask")
    refused_model(chain(L.Embedding(9, 3, mask_zero=True)), "mask_zero does not travel")
    refused_model(chain(L.Bidirectional(L.LSTM(2)), shape=(5, 4)), "Bidirectional, which does not")
    refused_model(chain(L.TimeDistributed(L.Dense(2)), shape=(5, 4)), "TimeDistributed")
    refused_model(chain(L.Dense(3, dtype="mixed_float16")), "dtype")
    refused_model(chain(L.Dense(3), L.Dense(2, dtype="float64")), "choose one")
    inputs = keras.Input((4,))
    refused_model(keras.Model({"a": inputs}, L.Dense(2)(inputs)), "takes or gives a dict")
    refused_model(keras.Model(inputs, L.Dropout(0.1)(inputs, training=True)), "called with more")


# --- tables that are refused ---------------------------------------------------------------------

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
    (table(dense(kernel_initializer={"kind": "Zeros", "x": 1})), "x: no such option"),
    (table(dense(kernel_initializer={"kind": "Constant"})), "value: is missing"),
    (table(dense(extra=1)), "unknown field 'extra'"),
    (table({**DENSE, "options": {**DENSE["options"], "name": "../x"}}), "name: no such option"),
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


@pytest.mark.parametrize("wrong, said", WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_table_is_refused_in_one_line(wrong, said):
    with pytest.raises(PolicyError, match=said) as error:
        check(wrong)
    assert "\n" not in str(error.value) and str(error.value).startswith("architecture: ")


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
        "from fedsys.errors import PolicyError; from fedsys.trust.architecture import build\n"
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


def test_what_keras_does_not_build_is_one_line():
    """Of the right form and size, and yet no float: Keras' own refusal comes as ours."""
    strange = layer(
        "Embedding", input_dim=3, output_dim=2, embeddings_initializer={"kind": "Zeros"}
    )
    try:
        build(table(strange))
    except PolicyError as error:
        assert "\n" not in str(error)  # noqa: PT017


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
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert 0 < size.parameters <= Bounds().parameters
    assert all(min(shape) > 0 for shape in size.shapes)


@settings(max_examples=25, deadline=None)
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
