"""The weight vector taken apart and put together again, inside a graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fedsys.layers import random_layers
from fedsys.layout import Layout, buffers


class Parts:
    """Takes the weight vector apart and together again, inside a graph.

    The model's non-trainable variables, in the order that `stateless_call` wants, are buffers
    (in the vector), states of random layers (given for each client) and counters (left as built).
    """

    def __init__(self, model: keras.Model, layout: Layout) -> None:
        self.layout = layout
        variables = list(model.non_trainable_variables)
        averaged = {id(variable) for variable in buffers(model)}
        self.built = [tf.constant(np.asarray(variable)) for variable in variables]
        self.buffers = [i for i, variable in enumerate(variables) if id(variable) in averaged]
        self.random = random_layers(model)
        self.layers = len(self.random)

    def trainable(self, vector: Any) -> list[Any]:
        """The trainable tensors of a vector of [parameters]."""
        return _cut(vector, self.layout.shapes[: self.layout.trainable])

    def split(self, vector: Any) -> tuple[list[Any], list[Any]]:
        """The trainable tensors, and the state to start from but for its seeds."""
        tensors = _cut(vector, self.layout.shapes)
        state = list(self.built)
        for place, tensor in zip(self.buffers, tensors[self.layout.trainable :], strict=True):
            state[place] = tf.cast(tensor, state[place].dtype)
        return tensors[: self.layout.trainable], state

    def seeded(self, state: list[Any], seeds: Any) -> list[Any]:
        """The state with the random layers' seeds, [layers, 2], in it."""
        state = list(state)
        for layer, place in enumerate(self.random):
            state[place] = tf.cast(seeds[layer], state[place].dtype)
        return state

    def numbers(self, trained: list[Any], state: list[Any]) -> list[Any]:
        """The tensors that make up a vector: trained weights and the state's buffers."""
        dtype = tf.as_dtype(self.layout.dtype)
        return [*trained, *(tf.cast(state[place], dtype) for place in self.buffers)]


def joined(tensors: list[Any]) -> Any:
    """Tensors as one vector."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)


def _cut(vector: Any, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """A vector as tensors of these shapes, one after another."""
    pieces = tf.split(vector, [math.prod(shape) for shape in shapes])
    return [tf.reshape(piece, shape) for piece, shape in zip(pieces, shapes, strict=True)]
