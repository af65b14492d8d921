"""Layers that look through windows, or pad and crop: convolutions and pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fedsys.trust.architecture.layer_kind import (
    DEPTHWISE,
    FORMAT,
    INITIALIZER,
    KERNEL,
    PADDING,
    Kind,
    Options,
    Shape,
    Shapes,
    one_input,
)
from fedsys.trust.architecture.layer_options import Flag, Option, Several, Whole


def _window(rank: int, padding: Option) -> dict[str, Option]:
    sizes = Several(Whole(), rank)
    return {"kernel_size": sizes, "strides": sizes, "dilation_rate": sizes,
            "padding": padding, "data_format": FORMAT}  # fmt: skip


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


def convolution(rank: int, padding: Option = PADDING) -> Kind:
    """A convolution along so many axes."""

    def shape(o: Options, shapes: Shapes) -> Shape:
        *spatial, channels = one_input(shapes, rank + 1)
        if channels % o["groups"] or o["filters"] % o["groups"]:
            raise ValueError(f"groups of {o['groups']} do not divide its channels")
        return (*_windows(o, tuple(spatial)), o["filters"])

    def parameters(o: Options, shapes: Shapes) -> int:
        inputs = shapes[0][-1] // o["groups"]
        return (math.prod(o["kernel_size"]) * inputs + o["use_bias"]) * o["filters"]

    return Kind({"filters": Whole(), "groups": Whole(), **_window(rank, padding), **KERNEL},
                shape, parameters)  # fmt: skip


def depthwise(rank: int) -> Kind:
    """A convolution of each channel by itself."""

    def shape(o: Options, shapes: Shapes) -> Shape:
        *spatial, channels = one_input(shapes, rank + 1)
        _even(o["strides"])
        return (*_windows(o, tuple(spatial)), channels * o["depth_multiplier"])

    def parameters(o: Options, shapes: Shapes) -> int:
        outputs = shapes[0][-1] * o["depth_multiplier"]
        return (math.prod(o["kernel_size"]) + o["use_bias"]) * outputs

    return Kind({**_window(rank, PADDING), **DEPTHWISE}, shape, parameters)


def separable(rank: int) -> Kind:
    """A depthwise convolution, then one of a single place over all channels."""

    def shape(o: Options, shapes: Shapes) -> Shape:
        *spatial, _ = one_input(shapes, rank + 1)
        _even(o["strides"])
        return (*_windows(o, tuple(spatial)), o["filters"])

    def parameters(o: Options, shapes: Shapes) -> int:
        between = shapes[0][-1] * o["depth_multiplier"]
        return math.prod(o["kernel_size"]) * between + (between + o["use_bias"]) * o["filters"]

    options: dict[str, Option] = {
        "filters": Whole(),
        "pointwise_initializer": INITIALIZER,
    }
    return Kind({**options, **_window(rank, PADDING), **DEPTHWISE}, shape, parameters)


def _even(strides: Sequence[int]) -> None:
    if len(set(strides)) > 1:
        raise ValueError("strides must be the same along both axes")


def transposed(rank: int) -> Kind:
    """A convolution that spreads each place over a window."""

    def shape(o: Options, shapes: Shapes) -> Shape:
        *spatial, _ = one_input(shapes, rank + 1)
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

    return Kind({"filters": Whole(), **_window(rank, PADDING), **KERNEL}, shape, parameters)


def pooling(rank: int) -> Kind:
    """The greatest or the mean of each window."""

    def shape(o: Options, shapes: Shapes) -> Shape:
        *spatial, channels = one_input(shapes, rank + 1)
        padding = [o["padding"]] * rank
        return (*map(_slid, spatial, o["pool_size"], o["strides"], padding), channels)

    sizes = Several(Whole(), rank)
    return Kind({"pool_size": sizes, "strides": sizes, "padding": PADDING,
                 "data_format": FORMAT}, shape)  # fmt: skip


def global_pooling(rank: int) -> Kind:
    """The greatest or the mean of all places."""

    def shape(o: Options, shapes: Shapes) -> Shape:
        channels = one_input(shapes, rank + 1)[-1]
        return (*(1,) * rank, channels) if o["keepdims"] else (channels,)

    return Kind({"keepdims": Flag(), "data_format": FORMAT}, shape)


def grown(rank: int, option: str, sign: int) -> Kind:
    """Padding (+1) or cropping (-1) on both sides of each axis."""

    def shape(o: Options, shapes: Shapes) -> Shape:
        *spatial, channels = one_input(shapes, rank + 1)
        sides = [o[option]] if rank == 1 else o[option]
        lengths = [n + sign * sum(side) for n, side in zip(spatial, sides, strict=True)]
        return (*lengths, channels)

    side = Several(Whole(0), 2)
    more = {} if rank == 1 and option == "cropping" else {"data_format": FORMAT}
    return Kind({option: side if rank == 1 else Several(side, rank), **more}, shape)


def upsampled_1d(o: Options, shapes: Shapes) -> Shape:
    """Every place several times."""
    length, channels = one_input(shapes, 2)
    return length * o["size"], channels


def upsampled_2d(o: Options, shapes: Shapes) -> Shape:
    """Every place several times."""
    height, width, channels = one_input(shapes, 3)
    return height * o["size"][0], width * o["size"][1], channels
