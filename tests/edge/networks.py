"""Small networks written by hand, for tests of whole programs."""

from __future__ import annotations

import numpy as np

from .build import Op, Value, build, constant


def residual(seed: int = 0) -> bytes:
    """A residual network: convolution, depthwise, sum of both, mean, dense, softmax.

    [1, 12, 10, 3] -> [1, 7].
    """
    random = np.random.default_rng(seed)

    def weights(*shape: int, axis: int = 0) -> Value:
        scales = np.exp(random.uniform(-4, -3, shape[axis]))
        return constant(random.integers(-128, 128, shape), scale=list(scales), axis=axis)

    def bias(length: int) -> Value:
        return constant(random.integers(-2000, 2000, length), "int32")

    same = {"padding": "SAME", "stride_h": 1, "stride_w": 1}
    tensors = [
        Value((1, 12, 10, 3), scale=0.02, zero_point=-5, name="image"),
        weights(8, 3, 3, 3),
        bias(8),
        Value((1, 6, 5, 8), scale=0.05, zero_point=-128, name="stem"),
        weights(1, 3, 3, 8, axis=3),
        bias(8),
        Value((1, 6, 5, 8), scale=0.1, zero_point=4, name="depthwise"),
        Value((1, 6, 5, 8), scale=0.11, zero_point=-20, name="sum"),
        constant([1, 2], "int32"),
        Value((1, 8), scale=0.03, zero_point=-10, name="mean"),
        weights(7, 8),
        bias(7),
        Value((1, 7), scale=0.06, zero_point=12, name="logits"),
        Value((1, 7), scale=1 / 256, zero_point=-128, name="probabilities"),
    ]
    operators = [
        Op(
            "CONV_2D",
            [0, 1, 2],
            [3],
            {**same, "stride_h": 2, "stride_w": 2, "fused_activation_function": "RELU"},
        ),
        Op("DEPTHWISE_CONV_2D", [3, 4, 5], [6], {**same, "depth_multiplier": 1}),
        Op("ADD", [6, 3], [7]),
        Op("MEAN", [7, 8], [9]),
        Op("FULLY_CONNECTED", [9, 10, 11], [12]),
        Op("SOFTMAX", [12], [13], {"beta": 1.0}),
    ]
    return build(tensors, operators, [0], [13])
