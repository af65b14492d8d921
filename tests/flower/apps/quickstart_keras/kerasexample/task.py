"""quickstart-keras: A Flower / Keras app."""

import os

import keras
from keras import layers
from sklearn.datasets import load_digits

# Make TensorFlow log less verbose
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def load_model(learning_rate: float = 0.001, seed: int = 0):
    initial = keras.initializers.GlorotUniform(seed)
    model = keras.Sequential(
        [
            keras.Input(shape=(8, 8, 1)),
            layers.Conv2D(8, (3, 3), activation="relu", kernel_initializer=initial),
            layers.MaxPooling2D(pool_size=(2, 2)),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", kernel_initializer=initial),
        ]
    )
    model.compile(
        keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def load_data(partition_id: int, num_partitions: int):
    """Every num_partitions-th digit, split into train and test."""
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1)[partition_id::num_partitions] / 16.0
    y = y[partition_id::num_partitions]
    cut = int(0.8 * len(x))
    return x[:cut], y[:cut], x[cut:], y[cut:]
