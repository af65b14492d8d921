"""The workloads' networks for peers whose Keras is an older one."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.federation import Federation


def network(keras: Any, federation: Federation) -> Any:
    """The workload's network; keras: the module of that Keras."""
    layers = keras.layers

    def dropout(rate: float) -> list:
        return [layers.Dropout(rate)] if federation.dropout else []

    bodies = {
        "logistic": list,
        "2nn": lambda: [layers.Dense(200, activation="relu") for _ in range(2)],
        "convolution": lambda: [
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
        ],
        "cifar": lambda: [
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            *dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            *dropout(0.5),
        ],
    }
    body = bodies[federation.name]()
    return keras.Sequential([layers.InputLayer(federation.shape), *body, layers.Dense(10)])
