"""The model of the benchmark, as a Flower app has it."""

import keras


def small_model(inputs: int, rate: float) -> keras.Model:
    """64 and 32 hidden units and a logit, ready to train."""
    model = keras.Sequential(
        [
            keras.Input((inputs,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(rate), keras.losses.BinaryCrossentropy(from_logits=True))
    return model
