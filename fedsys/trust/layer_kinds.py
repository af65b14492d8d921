"""The kinds of layers that may travel, and what each makes of sizes.

Every kind says its options, the shape of its output and how many parameters it has, from numbers
alone: so a model's size is known, and refused, before Keras is asked to build any of it. Shapes
are those of one row, without the batch. A function raises ValueError for what does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsys.trust.layer_options import (
    ACTIVATIONS,
    Axis,
    Flag,
    Initializer,
    Maybe,
    Numbers,
    Option,
    Real,
    Several,
    Whole,
    Word,
)

Shape = tuple[int, ...]
Options = Mapping[str, Any]
Shapes = Sequence[Shape]

STEPS = 512
"""Steps to which a recurrent layer may be unrolled: each is a piece of graph of its own."""


@dataclass(frozen=True)
class Kind:
    """One kind of layer.

    options: what it takes. shape: (options, shapes of inputs) -> shape of the output.
    parameters: (options, shapes of inputs) -> all its numbers, trainable or not.
    merges: whether it takes several inputs.
    """

    options: Mapping[str, Option]
    shape: Callable[[Options, Shapes], Shape]
    parameters: Callable[[Options, Shapes], int] = lambda options, shapes: 0
    merges: bool = False


# --- options that many have ----------------------------------------------------------------------

_ACTIVATION, _INITIALIZER, _FORMAT = Word(ACTIVATIONS), Initializer(), Word(("channels_last",))
_SEED = Maybe(Whole(0, 2**31 - 1))
_PADDING, _CAUSAL = Word(("valid", "same")), Word(("valid", "same", "causal"))
_KERNEL: Mapping[str, Option] = {
    "activation": _ACTIVATION, "use_bias": Flag(),
    "kernel_initializer": _INITIALIZER, "bias_initializer": _INITIALIZER,
}  # fmt: skip
_DEPTHWISE: Mapping[str, Option] = {
    "activation": _ACTIVATION, "use_bias": Flag(), "depth_multiplier": Whole(),
    "depthwise_initializer": _INITIALIZER, "bias_initializer": _INITIALIZER,
}  # fmt: skip


def _window(rank: int, padding: Option) -> dict[str, Option]:
    sizes = Several(Whole(), rank)
    return {"kernel_size": sizes, "strides": sizes, "dilation_rate": sizes,
            "padding": padding, "data_format": _FORMAT}  # fmt: skip


# --- shapes --------------------------------------------------------------------------------------


def _one(shapes: Shapes, rank: int | None = None) -> Shape:
    """The only input's shape, of so many dimensions."""
    (shape,) = shapes
    if rank is not None and len(shape) != rank:
        raise ValueError(f"reads rows of {rank} dimensions, not {len(shape)}")
    return shape


def _same(options: Options, shapes: Shapes) -> Shape:
    return _one(shapes)


def _slid(length: int, size: int, stride: int, padding: str) -> int:
    """Places at which a window of that size stands."""
    return -(-length // stride) if padding != "valid" else (length - size) // stride + 1


def _windows(options: Options, spatial: Shape) -> Shape:
    """Where a kernel stands, along every axis."""
    strides, dilations = options["strides"], options["dilation_rate"]
    if max(strides) > 1 and max(dilations) > 1:
        raise ValueError("strides and dilation_rate cannot both be above 1")
    sizes = [(k - 1) * d + 1 for k, d in zip(options["kernel_size"], dilations, strict=True)]
    return tuple(map(_slid, spatial, sizes, strides, [options["padding"]] * len(spatial)))


def _convolution(rank: int, padding: Option = _PADDING) -> Kind:
    def shape(o: Options, shapes: Shapes) -> Shape:
        *spatial, channels = _one(shapes, rank + 1)
        if channels % o["groups"] or o["filters"] % o["groups"]:
            raise ValueError(f"groups of {o['groups']} do not divide its channels")
        return (*_windows(o, tuple(spatial)), o["filters"])

    def parameters(o: Options, shapes: Shapes) -> int:
        inputs = shapes[0][-1] // o["groups"]
        return (math.prod(o["kernel_size"]) * inputs + o["use_bias"]) * o["filters"]

    return Kind({"filters": Whole(), "groups": Whole(), **_window(rank, padding), **_KERNEL},
                shape, parameters)  # fmt: skip


def _depthwise(rank: int) -> Kind:
    def shape(o: Options, shapes: Shapes) -> Shape:
        *spatial, channels = _one(shapes, rank + 1)
        _even(o["strides"])
        return (*_windows(o, tuple(spatial)), channels * o["depth_multiplier"])

    def parameters(o: Options, shapes: Shapes) -> int:
        outputs = shapes[0][-1] * o["depth_multiplier"]
        return (math.prod(o["kernel_size"]) + o["use_bias"]) * outputs

    return Kind({**_window(rank, _PADDING), **_DEPTHWISE}, shape, parameters)


def _separable(rank: int) -> Kind:
    def shape(o: Options, shapes: Shapes) -> Shape:
        *spatial, _ = _one(shapes, rank + 1)
        _even(o["strides"])
        return (*_windows(o, tuple(spatial)), o["filters"])

    def parameters(o: Options, shapes: Shapes) -> int:
        between = shapes[0][-1] * o["depth_multiplier"]
        return math.prod(o["kernel_size"]) * between + (between + o["use_bias"]) * o["filters"]

    options: dict[str, Option] = {
        "filters": Whole(),
        "pointwise_initializer": _INITIALIZER,
    }
    return Kind({**options, **_window(rank, _PADDING), **_DEPTHWISE}, shape, parameters)


def _even(strides: Sequence[int]) -> None:
    if len(set(strides)) > 1:
        raise ValueError("strides must be the same along both axes")


def _transposed(rank: int) -> Kind:
    def shape(o: Options, shapes: Shapes) -> Shape:
        *spatial, _ = _one(shapes, rank + 1)
        if max(o["strides"]) > 1 and max(o["dilation_rate"]) > 1:
            raise ValueError("strides and dilation_rate cannot both be above 1")
        lengths = []
        for length, kernel, stride, dilation in zip(
            spatial, o["kernel_size"], o["strides"], o["dilation_rate"], strict=True
        ):
            reach = (kernel - 1) * dilation + 1 - stride if o["padding"] == "valid" else 0
            lengths.append(length * stride + max(reach, 0))
        return (*lengths, o["filters"])

    def parameters(o: Options, shapes: Shapes) -> int:
        return (math.prod(o["kernel_size"]) * shapes[0][-1] + o["use_bias"]) * o["filters"]

    return Kind({"filters": Whole(), **_window(rank, _PADDING), **_KERNEL}, shape, parameters)


def _pooling(rank: int) -> Kind:
    def shape(o: Options, shapes: Shapes) -> Shape:
        *spatial, channels = _one(shapes, rank + 1)
        padding = [o["padding"]] * rank
        return (*map(_slid, spatial, o["pool_size"], o["strides"], padding), channels)

    sizes = Several(Whole(), rank)
    return Kind({"pool_size": sizes, "strides": sizes, "padding": _PADDING,
                 "data_format": _FORMAT}, shape)  # fmt: skip


def _global(rank: int) -> Kind:
    def shape(o: Options, shapes: Shapes) -> Shape:
        channels = _one(shapes, rank + 1)[-1]
        return (*(1,) * rank, channels) if o["keepdims"] else (channels,)

    return Kind({"keepdims": Flag(), "data_format": _FORMAT}, shape)


def _dense(o: Options, shapes: Shapes) -> Shape:
    return (*_one(shapes)[:-1], o["units"])


def _dense_parameters(o: Options, shapes: Shapes) -> int:
    return (shapes[0][-1] + o["use_bias"]) * o["units"]


def _length(axis: int, shape: Shape) -> int:
    """The length of an axis, -1 or from 1."""
    if axis > len(shape):
        raise ValueError(f"axis {axis} of rows of {len(shape)} dimensions")
    return shape[axis if axis < 0 else axis - 1]


def _axis_shape(o: Options, shapes: Shapes) -> Shape:
    _length(o["axis"], _one(shapes))
    return shapes[0]


def _batch_normalised(o: Options, shapes: Shapes) -> int:
    return _length(o["axis"], shapes[0]) * (2 + o["center"] + o["scale"])


def _layer_normalised(o: Options, shapes: Shapes) -> int:
    return _length(o["axis"], shapes[0]) * (o["center"] + o["scale"])


def _group_shape(o: Options, shapes: Shapes) -> Shape:
    if _length(o["axis"], _one(shapes)) % o["groups"]:
        raise ValueError(f"{o['groups']} groups do not divide its channels")
    return shapes[0]


def _normalization(o: Options, shapes: Shapes) -> Shape:
    length = _one(shapes)[-1]
    for name in ("mean", "variance"):
        if isinstance(o[name], list) and len(o[name]) not in (1, length):
            raise ValueError(f"{name} has {len(o[name])} numbers for {length} columns")
    return shapes[0]


def _prelu(o: Options, shapes: Shapes) -> int:
    shared = o["shared_axes"] or []
    shape = shapes[0]
    return math.prod(1 if at in shared else n for at, n in enumerate(shape, start=1))


def _prelu_shape(o: Options, shapes: Shapes) -> Shape:
    if any(axis > len(_one(shapes)) for axis in o["shared_axes"] or []):
        raise ValueError("shared_axes go beyond its dimensions")
    return shapes[0]


def _reshape(o: Options, shapes: Shapes) -> Shape:
    count, target = math.prod(_one(shapes)), list(o["target_shape"])
    if target.count(-1) == 1:
        rest = math.prod(n for n in target if n > 0)
        target[target.index(-1)] = count // rest
    if -1 in target or math.prod(target) != count:
        raise ValueError(f"{count} numbers do not fill the target_shape")
    return tuple(target)


def _permute(o: Options, shapes: Shapes) -> Shape:
    shape, dims = _one(shapes), o["dims"]
    if sorted(dims) != list(range(1, len(shape) + 1)):
        raise ValueError(f"dims must name each of {len(shape)} dimensions once")
    return tuple(shape[dim - 1] for dim in dims)


def _grown(rank: int, option: str, sign: int) -> Kind:
    """Padding (+1) or cropping (-1) on both sides of each axis."""

    def shape(o: Options, shapes: Shapes) -> Shape:
        *spatial, channels = _one(shapes, rank + 1)
        sides = [o[option]] if rank == 1 else o[option]
        lengths = [n + sign * sum(side) for n, side in zip(spatial, sides, strict=True)]
        return (*lengths, channels)

    side = Several(Whole(0), 2)
    more = {} if rank == 1 and option == "cropping" else {"data_format": _FORMAT}
    return Kind({option: side if rank == 1 else Several(side, rank), **more}, shape)


def _upsampled_1d(o: Options, shapes: Shapes) -> Shape:
    length, channels = _one(shapes, 2)
    return length * o["size"], channels


def _upsampled_2d(o: Options, shapes: Shapes) -> Shape:
    height, width, channels = _one(shapes, 3)
    return height * o["size"][0], width * o["size"][1], channels


def _elementwise(exactly: int | None = None) -> Kind:
    def shape(o: Options, shapes: Shapes) -> Shape:
        if len({len(one) for one in shapes}) > 1:
            raise ValueError("its inputs have different numbers of dimensions")
        if exactly and len(shapes) != exactly:
            raise ValueError(f"reads {exactly} inputs, not {len(shapes)}")
        lengths = []
        for along in zip(*shapes, strict=True):
            if len(set(along) - {1}) > 1:
                raise ValueError(f"its inputs have lengths {sorted(set(along))} along one axis")
            lengths.append(max(along))
        return tuple(lengths)

    return Kind({}, shape, merges=True)


def _concatenated(o: Options, shapes: Shapes) -> Shape:
    first = list(shapes[0])
    _length(o["axis"], shapes[0])
    at = o["axis"] if o["axis"] < 0 else o["axis"] - 1
    rests = {(*one[:at], *one[at:][1:]) for one in shapes}
    if len(rests) > 1 or len({len(one) for one in shapes}) > 1:
        raise ValueError("its inputs differ along other axes than the one that is joined")
    first[at] = sum(one[at] for one in shapes)
    return tuple(first)


def _recurrent(gates: int, biases: Callable[[Options], int], **more: Option) -> Kind:
    def shape(o: Options, shapes: Shapes) -> Shape:
        steps, _ = _one(shapes, 2)
        if o["unroll"] and steps > STEPS:
            raise ValueError(f"unrolled over {steps} steps, of at most {STEPS}")
        return (steps, o["units"]) if o["return_sequences"] else (o["units"],)

    def parameters(o: Options, shapes: Shapes) -> int:
        inputs, units = shapes[0][-1], o["units"]
        return gates * units * (inputs + units + o["use_bias"] * biases(o))

    return Kind(
        {
            "units": Whole(), **_KERNEL, "recurrent_initializer": _INITIALIZER,
            "dropout": Real(0, 1), "recurrent_dropout": Real(0, 1),
            "return_sequences": Flag(), "go_backwards": Flag(), "unroll": Flag(), **more,
        },
        shape,
        parameters,
    )  # fmt: skip


_BETA_GAMMA: Mapping[str, Option] = {
    "epsilon": Real(1e-12, 1), "center": Flag(), "scale": Flag(),
    "beta_initializer": _INITIALIZER, "gamma_initializer": _INITIALIZER,
}  # fmt: skip
_MOVING: Mapping[str, Option] = {
    "momentum": Real(0, 1), "moving_mean_initializer": _INITIALIZER,
    "moving_variance_initializer": _INITIALIZER,
}  # fmt: skip

KINDS: Mapping[str, Kind] = {
    "Dense": Kind({"units": Whole(), **_KERNEL}, _dense, _dense_parameters),
    "Embedding": Kind(
        {"input_dim": Whole(), "output_dim": Whole(), "embeddings_initializer": _INITIALIZER},
        lambda o, shapes: (*_one(shapes), o["output_dim"]),
        lambda o, shapes: o["input_dim"] * o["output_dim"],
    ),
    "Conv1D": _convolution(1, _CAUSAL),
    "Conv2D": _convolution(2),
    "DepthwiseConv1D": _depthwise(1),
    "DepthwiseConv2D": _depthwise(2),
    "SeparableConv1D": _separable(1),
    "SeparableConv2D": _separable(2),
    "Conv1DTranspose": _transposed(1),
    "Conv2DTranspose": _transposed(2),
    "MaxPooling1D": _pooling(1),
    "MaxPooling2D": _pooling(2),
    "AveragePooling1D": _pooling(1),
    "AveragePooling2D": _pooling(2),
    "GlobalMaxPooling1D": _global(1),
    "GlobalMaxPooling2D": _global(2),
    "GlobalAveragePooling1D": _global(1),
    "GlobalAveragePooling2D": _global(2),
    "LSTM": _recurrent(
        4, lambda o: 1, recurrent_activation=_ACTIVATION, unit_forget_bias=Flag(), seed=_SEED
    ),
    "GRU": _recurrent(
        3,
        lambda o: 1 + o["reset_after"],
        recurrent_activation=_ACTIVATION,
        reset_after=Flag(),
        seed=_SEED,
    ),
    # Keras leaves SimpleRNN's seed out of its config.
    "SimpleRNN": _recurrent(1, lambda o: 1),
    "BatchNormalization": Kind(
        {"axis": Axis(), **_BETA_GAMMA, **_MOVING}, _axis_shape, _batch_normalised
    ),
    "LayerNormalization": Kind({"axis": Axis(), **_BETA_GAMMA}, _axis_shape, _layer_normalised),
    "GroupNormalization": Kind(
        {"axis": Axis(), "groups": Whole(), **_BETA_GAMMA}, _group_shape, _layer_normalised
    ),
    "Normalization": Kind(
        {"axis": Axis(), "mean": Numbers(), "variance": Numbers(), "invert": Flag()},
        _normalization,
    ),
    "Rescaling": Kind({"scale": Real(), "offset": Real()}, _same),
    "Dropout": Kind({"rate": Real(0, 1), "seed": _SEED}, _same),
    "SpatialDropout1D": Kind({"rate": Real(0, 1), "seed": _SEED}, lambda o, s: _one(s, 2)),
    "GaussianNoise": Kind({"stddev": Real(0), "seed": _SEED}, _same),
    "Activation": Kind({"activation": _ACTIVATION}, _same),
    "ReLU": Kind(
        {"max_value": Maybe(Real(0)), "negative_slope": Real(0), "threshold": Real(0)}, _same
    ),
    "LeakyReLU": Kind({"negative_slope": Real(0)}, _same),
    "PReLU": Kind(
        {"alpha_initializer": _INITIALIZER, "shared_axes": Maybe(Several(Whole(1, 8)))},
        _prelu_shape,
        _prelu,
    ),
    "ELU": Kind({"alpha": Real(0)}, _same),
    "Softmax": Kind({"axis": Axis()}, _axis_shape),
    "Identity": Kind({}, _same),
    "Flatten": Kind({"data_format": _FORMAT}, lambda o, shapes: (math.prod(_one(shapes)),)),
    "Reshape": Kind({"target_shape": Several(Whole(-1))}, _reshape),
    "Permute": Kind({"dims": Several(Whole(1, 8))}, _permute),
    "RepeatVector": Kind({"n": Whole()}, lambda o, shapes: (o["n"], *_one(shapes, 1))),
    "ZeroPadding1D": _grown(1, "padding", 1),
    "ZeroPadding2D": _grown(2, "padding", 1),
    "Cropping1D": _grown(1, "cropping", -1),
    "Cropping2D": _grown(2, "cropping", -1),
    "UpSampling1D": Kind({"size": Whole()}, _upsampled_1d),
    "UpSampling2D": Kind(
        {"size": Several(Whole(), 2), "data_format": _FORMAT,
         "interpolation": Word(("nearest", "bilinear"))},
        _upsampled_2d,
    ),
    "Concatenate": Kind({"axis": Axis()}, _concatenated, merges=True),
    **{name: _elementwise() for name in ("Add", "Average", "Maximum", "Minimum", "Multiply")},
    "Subtract": _elementwise(2),
}  # fmt: skip
"""Every kind that may travel, by its name in `keras.layers`."""
