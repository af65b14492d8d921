from typing import Any

import numpy as np
import pytest

from fedsys.errors import PolicyError
from fedsys.trust import canonical
from fedsys.trust.architecture.layer_kinds import KINDS
from fedsys.trust.architecture.models import build, check, specify
from tests.edge import zoo

from . import networks


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
    assert str(error.value).isprintable() and len(str(error.value)) < 1200


def chain(*layers: Any, shape: tuple[int, ...] = (4,)) -> Any:
    import keras

    return keras.Sequential([keras.Input(shape), *layers])


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
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


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
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
