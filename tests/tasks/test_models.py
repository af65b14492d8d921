"""Published parameter counts, outputs without activation, names that do not depend on history."""

from functools import partial

import keras
import numpy as np
import pytest

from fedsys.tasks import models

MODELS = {
    "two_nn": (models.two_nn, 199_210),
    "mcmahan_cnn": (models.mcmahan_cnn, 1_663_370),
    "depthwise": (models.depthwise, 17_290),
    "logistic": (partial(models.logistic, (28, 28, 1), 10), 7_850),
    "mlp": (partial(models.mlp, (64,), 10), 64 * 64 + 64 + 64 * 10 + 10),
    "small_cnn": (partial(models.small_cnn, (8, 8, 1), 10), 9_258),
    "uniform_logistic": (partial(models.uniform_logistic, (13,)), 14),
}


@pytest.mark.parametrize("name", MODELS)
def test_model(name):
    make, parameters = MODELS[name]
    first, second = make(), make()
    assert first.count_params() == parameters
    assert first.name == second.name == name
    # Keras numbers the names that it makes up on: dense, dense_1, ...
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    last = first.layers[-1]
    assert isinstance(last, keras.layers.Dense)
    assert last.activation is keras.activations.linear


def test_initial_weights_come_from_the_global_seed():
    def weights(seed):
        keras.utils.set_random_seed(seed)
        return np.concatenate([w.ravel() for w in models.two_nn().get_weights()])

    assert (weights(1) == weights(1)).all()
    assert (weights(1) != weights(2)).any()


def test_uniform_logistic_begins_like_a_linear_layer_of_pytorch():
    keras.utils.set_random_seed(0)
    drawn = np.concatenate(
        [
            np.concatenate([w.ravel() for w in models.uniform_logistic((13,)).get_weights()])
            for _ in range(40)
        ]
    )
    bound = 13**-0.5
    assert np.abs(drawn).max() <= bound
    assert np.abs(drawn).max() > 0.95 * bound
    assert drawn.std() == pytest.approx(bound / 3**0.5, rel=0.1)
    biases = [models.uniform_logistic((13,)).get_weights()[1][0] for _ in range(5)]
    assert np.abs(biases).min() > 0


def test_the_depthwise_network_fits_a_microcontroller():
    network = models.depthwise()
    assert network.count_params() < 64_000  # a byte each
    largest = max(
        np.prod(layer.input.shape[1:]) + np.prod(layer.output.shape[1:])
        for layer in network.layers[1:]
    )
    assert largest < 32_000
    known = {
        "InputLayer",
        "Conv2D",
        "DepthwiseConv2D",
        "BatchNormalization",
        "ReLU",
        "AveragePooling2D",
        "Flatten",
        "Dense",
    }
    assert {type(layer).__name__ for layer in network.layers} == known
