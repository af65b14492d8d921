"""The kinds of layers that may travel, and what each makes of sizes.

Every kind says its options, the shape of its output and how many parameters it has, from numbers
alone: so a model's size is known, and refused, before Keras is asked to build any of it. Shapes
are those of one row, without the batch. A function raises ValueError for what does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from fedsys.trust.architecture.layer_kind import (
    ACTIVATION,
    CAUSAL,
    FORMAT,
    INITIALIZER,
    KERNEL,
    SEED,
    Kind,
    Options,
    Shape,
    Shapes,
    one_input,
)
from fedsys.trust.architecture.layer_options import (
    Axis,
    Flag,
    Maybe,
    Numbers,
    Option,
    Real,
    Several,
    Whole,
    Word,
)
from fedsys.trust.architecture.layer_windows import (
    convolution,
    depthwise,
    global_pooling,
    grown,
    pooling,
    separable,
    transposed,
    upsampled_1d,
    upsampled_2d,
)

STEPS = 512
"""Steps to which a recurrent layer may be unrolled: each is a piece of graph of its own."""

# --- shapes --------------------------------------------------------------------------------------


def _same(options: Options, shapes: Shapes) -> Shape:
    return one_input(shapes)


def _dense(o: Options, shapes: Shapes) -> Shape:
    return (*one_input(shapes)[:-1], o["units"])


def _dense_parameters(o: Options, shapes: Shapes) -> int:
    return (shapes[0][-1] + o["use_bias"]) * o["units"]


def _length(axis: int, shape: Shape) -> int:
    """The length of an axis, -1 or from 1."""
    if axis > len(shape):
        raise ValueError(f"axis {axis} of rows of {len(shape)} dimensions")
    return shape[axis if axis < 0 else axis - 1]


def _axis_shape(o: Options, shapes: Shapes) -> Shape:
    _length(o["axis"], one_input(shapes))
    return shapes[0]


def _batch_normalised(o: Options, shapes: Shapes) -> int:
    return _length(o["axis"], shapes[0]) * (2 + o["center"] + o["scale"])


def _layer_normalised(o: Options, shapes: Shapes) -> int:
    return _length(o["axis"], shapes[0]) * (o["center"] + o["scale"])


def _group_shape(o: Options, shapes: Shapes) -> Shape:
    if _length(o["axis"], one_input(shapes)) % o["groups"]:
        raise ValueError(f"{o['groups']} groups do not divide its channels")
    return shapes[0]


def _normalization(o: Options, shapes: Shapes) -> Shape:
    length = one_input(shapes)[-1]
    for name in ("mean", "variance"):
        if isinstance(o[name], list) and len(o[name]) not in (1, length):
            raise ValueError(f"{name} has {len(o[name])} numbers for {length} columns")
    return shapes[0]


def _prelu(o: Options, shapes: Shapes) -> int:
    shared = o["shared_axes"] or []
    shape = shapes[0]
    return math.prod(1 if at in shared else n for at, n in enumerate(shape, start=1))


def _prelu_shape(o: Options, shapes: Shapes) -> Shape:
    if any(axis > len(one_input(shapes)) for axis in o["shared_axes"] or []):
        raise ValueError("shared_axes go beyond its dimensions")
    return shapes[0]


def _reshape(o: Options, shapes: Shapes) -> Shape:
    count, target = math.prod(one_input(shapes)), list(o["target_shape"])
    if target.count(-1) == 1:
        rest = math.prod(n for n in target if n > 0)
        target[target.index(-1)] = count // rest
    if -1 in target or math.prod(target) != count:
        raise ValueError(f"{count} numbers do not fill the target_shape")
    return tuple(target)


def _permute(o: Options, shapes: Shapes) -> Shape:
    shape, dims = one_input(shapes), o["dims"]
    if sorted(dims) != list(range(1, len(shape) + 1)):
        raise ValueError(f"dims must name each of {len(shape)} dimensions once")
    return tuple(shape[dim - 1] for dim in dims)


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
        steps, _ = one_input(shapes, 2)
        if o["unroll"] and steps > STEPS:
            raise ValueError(f"unrolled over {steps} steps, of at most {STEPS}")
        return (steps, o["units"]) if o["return_sequences"] else (o["units"],)

    def parameters(o: Options, shapes: Shapes) -> int:
        inputs, units = shapes[0][-1], o["units"]
        return gates * units * (inputs + units + o["use_bias"] * biases(o))

    return Kind(
        {
            "units": Whole(), **KERNEL, "recurrent_initializer": INITIALIZER,
            "dropout": Real(0, 1), "recurrent_dropout": Real(0, 1),
            "return_sequences": Flag(), "go_backwards": Flag(), "unroll": Flag(), **more,
        },
        shape,
        parameters,
    )  # fmt: skip


_BETA_GAMMA: Mapping[str, Option] = {
    "epsilon": Real(1e-12, 1), "center": Flag(), "scale": Flag(),
    "beta_initializer": INITIALIZER, "gamma_initializer": INITIALIZER,
}  # fmt: skip
_MOVING: Mapping[str, Option] = {
    "momentum": Real(0, 1), "moving_mean_initializer": INITIALIZER,
    "moving_variance_initializer": INITIALIZER,
}  # fmt: skip

KINDS: Mapping[str, Kind] = {
    "Dense": Kind({"units": Whole(), **KERNEL}, _dense, _dense_parameters),
    "Embedding": Kind(
        {"input_dim": Whole(), "output_dim": Whole(), "embeddings_initializer": INITIALIZER},
        lambda o, shapes: (*one_input(shapes), o["output_dim"]),
        lambda o, shapes: o["input_dim"] * o["output_dim"],
    ),
    "Conv1D": convolution(1, CAUSAL),
    "Conv2D": convolution(2),
    "DepthwiseConv1D": depthwise(1),
    "DepthwiseConv2D": depthwise(2),
    "SeparableConv1D": separable(1),
    "SeparableConv2D": separable(2),
    "Conv1DTranspose": transposed(1),
    "Conv2DTranspose": transposed(2),
    "MaxPooling1D": pooling(1),
    "MaxPooling2D": pooling(2),
    "AveragePooling1D": pooling(1),
    "AveragePooling2D": pooling(2),
    "GlobalMaxPooling1D": global_pooling(1),
    "GlobalMaxPooling2D": global_pooling(2),
    "GlobalAveragePooling1D": global_pooling(1),
    "GlobalAveragePooling2D": global_pooling(2),
    "LSTM": _recurrent(
        4, lambda o: 1, recurrent_activation=ACTIVATION, unit_forget_bias=Flag(), seed=SEED
    ),
    "GRU": _recurrent(
        3,
        lambda o: 1 + o["reset_after"],
        recurrent_activation=ACTIVATION,
        reset_after=Flag(),
        seed=SEED,
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
    "Dropout": Kind({"rate": Real(0, 1), "seed": SEED}, _same),
    "SpatialDropout1D": Kind({"rate": Real(0, 1), "seed": SEED}, lambda o, s: one_input(s, 2)),
    "GaussianNoise": Kind({"stddev": Real(0), "seed": SEED}, _same),
    "Activation": Kind({"activation": ACTIVATION}, _same),
    "ReLU": Kind(
        {"max_value": Maybe(Real(0)), "negative_slope": Real(0), "threshold": Real(0)}, _same
    ),
    "LeakyReLU": Kind({"negative_slope": Real(0)}, _same),
    "PReLU": Kind(
        {"alpha_initializer": INITIALIZER, "shared_axes": Maybe(Several(Whole(1, 8)))},
        _prelu_shape,
        _prelu,
    ),
    "ELU": Kind({"alpha": Real(0)}, _same),
    "Softmax": Kind({"axis": Axis()}, _axis_shape),
    "Identity": Kind({}, _same),
    "Flatten": Kind({"data_format": FORMAT}, lambda o, shapes: (math.prod(one_input(shapes)),)),
    "Reshape": Kind({"target_shape": Several(Whole(-1))}, _reshape),
    "Permute": Kind({"dims": Several(Whole(1, 8))}, _permute),
    "RepeatVector": Kind({"n": Whole()}, lambda o, shapes: (o["n"], *one_input(shapes, 1))),
    "ZeroPadding1D": grown(1, "padding", 1),
    "ZeroPadding2D": grown(2, "padding", 1),
    "Cropping1D": grown(1, "cropping", -1),
    "Cropping2D": grown(2, "cropping", -1),
    "UpSampling1D": Kind({"size": Whole()}, upsampled_1d),
    "UpSampling2D": Kind(
        {"size": Several(Whole(), 2), "data_format": FORMAT,
         "interpolation": Word(("nearest", "bilinear"))},
        upsampled_2d,
    ),
    "Concatenate": Kind({"axis": Axis()}, _concatenated, merges=True),
    **{name: _elementwise() for name in ("Add", "Average", "Maximum", "Minimum", "Multiply")},
    "Subtract": _elementwise(2),
}  # fmt: skip
"""Every kind that may travel, by its name in `keras.layers`."""
