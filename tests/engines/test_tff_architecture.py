"""What the engine for TensorFlow Federated tells of a Keras 3 model, and what it refuses."""

from __future__ import annotations

import inspect
import json

import keras
import numpy as np
import pytest

from fedsys.engines.tff.architecture import ACTIVATIONS, OPTIONS, architecture
from fedsys.errors import UsageError
from fedsys.tasks.models import depthwise, mcmahan_cnn, mlp, two_nn

layers = keras.layers


def small(*made, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *made])


def test_a_model_is_told_layer_by_layer_in_order():
    told = architecture(mcmahan_cnn())
    kinds = [layer["kind"] for layer in told.layers]
    assert kinds == ["Conv2D", "MaxPooling2D"] * 2 + ["Flatten", "Dense", "Dense"]
    assert told.layers[0]["options"]["filters"] == 32
    assert told.layers[0]["options"]["activation"] == "relu"
    assert told.layers[-1]["options"]["units"] == 10
    names = [layer["name"] for layer in told.layers]
    assert [layer["inputs"] for layer in told.layers] == [[""], *([name] for name in names[:-1])]
    assert told.rows == "float32"


@pytest.mark.parametrize("model", [mcmahan_cnn, two_nn, lambda: mlp((5,), 3)])
def test_what_is_told_is_plain(model):
    told = architecture(model())
    assert json.loads(json.dumps(told.layers)) is not None
    assert len({layer["name"] for layer in told.layers}) == len(told.layers)


def test_variables_are_told_in_the_order_of_the_weight_vector():
    """Here the order of the model's weights is not that of the computation."""
    rows = keras.Input((4,))
    deep = layers.Dense(3, name="first")(layers.Dense(2, name="inner")(rows))
    wide = layers.Dense(3, use_bias=False, name="wide")(rows)
    model = keras.Model(rows, layers.Dense(1, name="end")(layers.Add()([wide, deep])))
    told = architecture(model)
    units = {layer["name"]: layer["options"].get("units") for layer in told.layers}
    assert len(told.variables) == len(model.trainable_variables)
    for (name, place), variable in zip(told.variables, model.trainable_variables, strict=True):
        assert variable.shape[-1] == units[name]
        assert len(variable.shape) == 2 - place


def test_models_inside_are_laid_open():
    inside = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.ReLU()], name="inside")
    rows = keras.Input((4,))
    told = architecture(keras.Model(rows, layers.Dense(2)(inside(rows))))
    assert [layer["kind"] for layer in told.layers] == ["Dense", "ReLU", "Dense"]
    assert [layer["inputs"] for layer in told.layers][1:] == [["000_dense"], ["001_relu"]]


def test_penalties_on_weights_are_told():
    layer = layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.5), bias_regularizer="l1")
    (told,) = architecture(small(layer, shape=(3,))).layers
    assert told["penalties"]["kernel_regularizer"] == {"l1": 0.0, "l2": 0.5}
    assert told["penalties"]["bias_regularizer"]["l1"] == pytest.approx(0.01)


def test_what_a_layer_is_called_in_keras_2_is_told():
    (told,) = architecture(small(layers.LeakyReLU(0.2))).layers
    assert told["options"] == {"alpha": 0.2}


def test_the_known_layers_and_their_options_are_keras_own():
    for kind, options in OPTIONS.items():
        taken = inspect.signature(getattr(layers, kind).__init__).parameters
        assert set(options) <= set(taken), kind
    for activation in ACTIVATIONS:
        assert callable(keras.activations.get(activation))


def cubed(x):
    return x**3


class Own(layers.Layer):
    def call(self, inputs):
        return inputs


class Dense(layers.Dense):
    """Of the same name as Keras' own, but who knows what it does."""


@keras.saving.register_keras_serializable("tests")
class Odd(keras.regularizers.Regularizer):
    def __call__(self, x):
        return keras.ops.sum(x**4)

    def get_config(self):
        return {}


REFUSED = {
    "normalised": (layers.BatchNormalization(name="it"), "BatchNormalization.*LayerNormalization"),
    "dropped": (layers.Dropout(0.5, name="it"), "Dropout.*leave it out"),
    "own": (Own(name="it"), "Own, which the engine does not have"),
    "derived": (Dense(2, name="it"), "Dense, which the engine does not have"),
    "scaled": (layers.Normalization(name="it"), "Normalization, which the engine"),
    "activation": (layers.Dense(2, activation="hard_sigmoid", name="it"), "'hard_sigmoid'"),
    "cubed": (layers.Dense(2, activation=cubed, name="it"), "activation of your own"),
    "half": (layers.Dense(2, dtype="mixed_float16", name="it"), "computes in float16"),
    "double": (layers.Dense(2, dtype="float64", name="it"), "computes in float64"),
    "frozen": (layers.Dense(2, trainable=False, name="it"), "weights that are not trained"),
    "active": (layers.Dense(2, activity_regularizer="l2", name="it"), "activity_regularizer"),
    "penalty": (layers.Dense(2, kernel_regularizer=Odd(), name="it"), "neither L1 nor L2"),
    "first": (layers.Conv2D(2, 3, data_format="channels_first", name="it"), "channels first"),
}


@pytest.mark.parametrize("layer, reason", REFUSED.values(), ids=REFUSED)
def test_a_layer_that_cannot_be_the_same_is_refused_by_name(layer, reason):
    with pytest.raises(UsageError, match=f"engine 'tff': layer 'it' .*{reason}.*--engine compiled"):
        architecture(small(layer))


def test_a_model_of_the_zoo_with_batch_normalisation_is_refused_at_its_first():
    with pytest.raises(UsageError, match="layer 'stem_norm' is a BatchNormalization"):
        architecture(depthwise())


def test_a_layer_in_two_places_is_refused():
    shared, rows = layers.Dense(4, name="it"), keras.Input((4,))
    with pytest.raises(UsageError, match="'it' is used in several places"):
        architecture(keras.Model(rows, shared(shared(rows))))


def test_an_operation_between_layers_is_refused():
    rows = keras.Input((4,))
    with pytest.raises(UsageError, match="which the engine does not have"):
        architecture(keras.Model(rows, layers.Dense(4)(rows) + rows))


def test_models_that_cannot_be_seen_into_are_refused():
    class Mine(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(UsageError, match="its layers cannot be seen"):
        architecture(Mine(name="mine"))
    one, other = keras.Input((2,)), keras.Input((2,))
    two = keras.Model([one, other], layers.Add()([one, other]))
    with pytest.raises(UsageError, match="2 inputs and 1 outputs"):
        architecture(two)


def test_what_is_told_does_not_depend_on_the_weights():
    model = mlp((5,), 3)
    before = architecture(model)
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    assert architecture(model) == before
