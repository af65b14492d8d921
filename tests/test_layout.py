"""Layouts: a model's weights as one vector, and back."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsys.errors import TrainingError
from fedsys.layout import Layout, buffers, read_weights, write_weights


def norm_and_dropout():
    inputs = keras.Input((3,), name="inputs")
    x = keras.layers.Dense(4, name="hidden")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.5, name="drop")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(x), name="net")


def test_the_vector_holds_the_trainable_weights_and_then_the_buffers():
    model = norm_and_dropout()
    layout = Layout.of(model)
    assert layout.shapes == ((3, 4), (4,), (4,), (4,), (4, 2), (2,), (4,), (4,))
    assert layout.trainable == 6
    assert layout.parameters == 12 + 4 + 4 + 4 + 8 + 2
    assert layout.length == layout.parameters + 8
    assert layout.dtype == np.float32
    expected = [np.ravel(v) for v in [*model.trainable_variables, *buffers(model)]]
    np.testing.assert_array_equal(read_weights(model), np.concatenate(expected))


def test_seeds_and_counters_are_not_in_the_vector():
    model = norm_and_dropout()
    assert len(model.non_trainable_variables) == 3
    assert [v.path for v in buffers(model)] == ["norm/moving_mean", "norm/moving_variance"]


def test_names_are_unique_and_the_same_for_every_build():
    one, other = Layout.of(norm_and_dropout()), Layout.of(norm_and_dropout())
    assert one == other
    assert len(set(one.names)) == len(one.names) == 8
    assert one.names[0] == "000.kernel" and one.names[-1] == "007.moving_variance"


def test_written_weights_are_read_back():
    model = norm_and_dropout()
    vector = np.arange(Layout.of(model).length, dtype=np.float32)
    write_weights(model, vector)
    np.testing.assert_array_equal(read_weights(model), vector)
    np.testing.assert_array_equal(model.get_layer("hidden").kernel, np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(model.get_layer("norm").moving_variance, vector[-4:])


@given(
    st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=5),
    st.sampled_from(["float32", "float64"]),
)
def test_split_and_flatten_and_named_and_gather_are_inverses(shapes, dtype):
    names = tuple(f"{i:03d}.w" for i in range(len(shapes)))
    layout = Layout(names, tuple(shapes), len(shapes), np.dtype(dtype))
    vector = np.random.default_rng(0).normal(size=layout.length).astype(dtype)
    tensors = layout.split(vector)
    assert [tensor.shape for tensor in tensors] == shapes
    np.testing.assert_array_equal(layout.flatten(tensors), vector)
    np.testing.assert_array_equal(layout.gather(layout.named(vector)), vector)
    turned = dict(reversed(layout.named(vector).items()))
    np.testing.assert_array_equal(layout.gather(turned), vector)
    assert layout.flatten(tensors).dtype == dtype


def test_split_gives_views():
    layout = Layout.of(norm_and_dropout())
    vector = np.zeros(layout.length, np.float32)
    layout.split(vector)[0][1, 2] = 7
    assert vector[6] == 7


def test_weights_of_two_types_are_refused():
    inputs = keras.Input((3,), name="inputs")
    x = keras.layers.Dense(2, dtype="float64", name="wide")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, dtype="float32", name="value")(x))
    with pytest.raises(TrainingError, match="one floating type, found float32, float64"):
        Layout.of(model)


def test_a_model_with_nothing_to_train_is_refused():
    inputs = keras.Input((3,))
    with pytest.raises(TrainingError, match="found none"):
        Layout.of(keras.Model(inputs, keras.layers.Flatten()(inputs)))
