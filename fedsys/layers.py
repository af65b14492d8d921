"""What kinds of layers a model is made of, as far as training has to know."""

from __future__ import annotations

from typing import Any

import keras

from fedsys.local import Local

# Layers that treat each row by itself and cost little beside their matrix products. For a
# network of these alone XLA is the fastest on a CPU; its convolutions, batch normalisation and
# dropout are 5 to 30 times slower than the ordinary graph's.
DENSE_LAYERS = (
    keras.layers.InputLayer,
    keras.layers.Dense,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.Rescaling,
)


def prefers_xla(model: keras.Model, local: Local) -> bool:
    """Whether XLA is the faster way to train this model.

    Decided by the layers alone, so that a run is the same on every machine. Batches of all rows
    differ in size from client to client, which XLA would have to compile anew each time.
    """
    return local.batch > 0 and all(
        type(operation) in DENSE_LAYERS for operation in operations(model)
    )


def operations(model: keras.Model) -> list[Any]:
    """Layers and other operations of a model, those of models inside it included. A model with
    code of its own in `call` counts as one operation: what it does is not known."""
    if not type(model).__module__.startswith("keras."):
        return [model]
    inner = model.operations if hasattr(model, "operations") else model.layers
    return [
        found
        for operation in inner
        for found in (operations(operation) if isinstance(operation, keras.Model) else [operation])
    ]


def batch_layers(model: keras.Model) -> list[str]:
    """Names of the layers that compute over the rows of a batch together."""
    return [
        operation.name
        for operation in operations(model)
        if isinstance(operation, keras.layers.BatchNormalization)
    ]


def random_layers(model: keras.Model) -> list[int]:
    """Places, among the model's non-trainable variables, of the seeds of dropout and its like."""
    states = {
        id(generator.state)
        for layer in model._flatten_layers()
        for generator in layer._seed_generators
    }
    return [i for i, v in enumerate(model.non_trainable_variables) if id(v) in states]
