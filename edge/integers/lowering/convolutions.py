"""CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV and FULLY_CONNECTED."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedsys.edge.integers.fixed import INT32
from fedsys.edge.integers.lowering.images import window
from fedsys.edge.integers.lowering.shared import (
    INT8,
    Affine,
    Lowering,
    absent,
    affine,
    constant,
    fixed,
    input_tensor,
    limits,
    output_tensor,
    refusal,
    require_arity,
    require_shape,
)
from fedsys.edge.integers.program import (
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    Node,
    TransposedConvolution,
)
from fedsys.edge.tflite.model import Model, Operator, Tensor


def _convolution(model: Model, operator: Operator) -> Sequence[Node]:
    require_arity(model, operator, range(2, 4))
    image, output = input_tensor(model, operator, 0), output_tensor(model, operator)
    kernel = _kernel(model, operator, 1, 4)
    out, kernel_rows, kernel_columns, depth = kernel.shape
    channels = image.shape[-1] if image.shape else 0
    if depth == 0 or channels % depth or out % (channels // depth or 1) or channels == 0:
        raise refusal(
            model,
            operator,
            f"a kernel of shape {list(kernel.shape)} does not fit {channels} input channels",
        )
    places = window(model, operator, image, (kernel_rows, kernel_columns), dilated=True)
    require_shape(model, operator, output, (1, *places.output, out))
    weights = _weights(model, operator, image, output, kernel, axis=0, bias=2)
    return [
        Convolution(
            operator,
            (image.index,),
            output.index,
            **weights,
            stride=places.stride,
            dilation=places.dilation,
            pad=places.pad,
        )
    ]


def _depthwise(model: Model, operator: Operator) -> Sequence[Node]:
    require_arity(model, operator, range(2, 4))
    image, output = input_tensor(model, operator, 0), output_tensor(model, operator)
    kernel = _kernel(model, operator, 1, 4)
    one, kernel_rows, kernel_columns, out = kernel.shape
    channels = image.shape[-1] if image.shape else 0
    depth = int(operator.options.get("depth_multiplier", 0))
    if one != 1 or channels == 0 or depth < 1 or out != channels * depth:
        raise refusal(
            model,
            operator,
            f"a kernel of shape {list(kernel.shape)} and depth multiplier {depth} "
            f"do not fit {channels} input channels",
        )
    places = window(model, operator, image, (kernel_rows, kernel_columns), dilated=True)
    require_shape(model, operator, output, (1, *places.output, out))
    weights = _weights(model, operator, image, output, kernel, axis=3, bias=2)
    return [
        DepthwiseConvolution(
            operator,
            (image.index,),
            output.index,
            **{**weights, "kernel": kernel[0]},
            stride=places.stride,
            dilation=places.dilation,
            pad=places.pad,
            depth=depth,
        )
    ]


def _transposed(model: Model, operator: Operator) -> Sequence[Node]:
    """Inputs: output shape, kernel, image, perhaps a bias."""
    require_arity(model, operator, range(3, 5))
    image, output = input_tensor(model, operator, 2), output_tensor(model, operator)
    shape = constant(model, operator, 0, np.int32, "output shape")
    kernel = _kernel(model, operator, 1, 4)
    out, kernel_rows, kernel_columns, channels = kernel.shape
    require_shape(model, operator, output, tuple(int(size) for size in shape.ravel()))
    if len(output.shape) != 4 or output.shape[0] != 1 or output.shape[3] != out:
        raise refusal(
            model, operator, f"its output has shape {list(output.shape)}, not [1, ..., {out}]"
        )
    # Its places are those of the convolution from the output back to the input.
    places = window(model, operator, output, (kernel_rows, kernel_columns), dilated=False)
    require_shape(model, operator, image, (1, *places.output, channels))
    weights = _weights(model, operator, image, output, kernel, axis=0, bias=3)
    return [
        TransposedConvolution(
            operator,
            (image.index,),
            output.index,
            **weights,
            stride=places.stride,
            pad=places.pad,
        )
    ]


def _fully_connected(model: Model, operator: Operator) -> Sequence[Node]:
    require_arity(model, operator, range(2, 4))
    vectors, output = input_tensor(model, operator, 0), output_tensor(model, operator)
    layout = operator.options.get("weights_format", "DEFAULT")
    if layout != "DEFAULT":
        raise refusal(model, operator, f"weights in the order {layout}", "convert it anew")
    kernel = _kernel(model, operator, 1, 2)
    out, length = kernel.shape
    if length == 0 or vectors.size == 0 or vectors.size % length:
        raise refusal(
            model,
            operator,
            f"an input of shape {list(vectors.shape)} is no vectors of {length} numbers",
        )
    rows = vectors.size // length
    if not output.shape or output.shape[-1] != out or output.size != rows * out:
        raise refusal(
            model,
            operator,
            f"tensor {output.name!r} has shape {list(output.shape)}, not {rows} vectors of {out}",
            "the file contradicts itself",
        )
    weights = _weights(model, operator, vectors, output, kernel, axis=0, bias=2)
    return [
        FullyConnected(
            operator,
            (vectors.index,),
            output.index,
            **weights,
            rows=rows,
        )
    ]


def _kernel(model: Model, operator: Operator, place: int, dimensions: int) -> np.ndarray:
    """The weights: an int8 constant of this many dimensions, with something in each."""
    kernel = constant(model, operator, place, np.int8, "kernel")
    if kernel.ndim != dimensions or kernel.size == 0:
        name = input_tensor(model, operator, place).name
        raise refusal(
            model,
            operator,
            f"its kernel {name!r} has shape {list(kernel.shape)}, not {dimensions} dimensions",
        )
    return kernel


def _weights(
    model: Model,
    operator: Operator,
    given: Tensor,
    output: Tensor,
    kernel: np.ndarray,
    *,
    axis: int,
    bias: int,
) -> dict[str, Any]:
    """The fields of `Weighted`. Output channels lie along `axis` of the kernel.

    bias: the place of the bias among the inputs. Refuses what could leave int32.
    """
    channels = kernel.shape[axis]
    biases = _bias(model, operator, bias, channels)
    source, target = affine(model, operator, given), affine(model, operator, output)
    scales = _kernel_scales(model, operator, axis, channels)
    reach = max(abs(INT8.min - source.zero_point), abs(INT8.max - source.zero_point))
    others = tuple(i for i in range(kernel.ndim) if i != axis)
    sums = np.abs(kernel.astype(np.int64)).sum(axis=others) * reach + np.abs(
        biases.astype(np.int64)
    )
    if int(sums.max()) > INT32.max - 2**8:
        raise refusal(model, operator, "sums of its weights and bias leave 32 bits")
    factors = _factors(operator, source, scales, target)
    pairs = [
        fixed(model, operator, factor, int(largest))
        for factor, largest in zip(factors, sums, strict=True)
    ]
    multiplier, shift = np.array(pairs, np.int32).T
    low, high = limits(model, operator, target)
    return {
        "kernel": kernel,
        "bias": biases,
        "multiplier": np.ascontiguousarray(multiplier),
        "shift": np.ascontiguousarray(shift),
        "input_offset": -source.zero_point,
        "output_offset": target.zero_point,
        "low": low,
        "high": high,
    }


def _factors(operator: Operator, source: Affine, scales: np.ndarray, target: Affine) -> list[float]:
    """Input scale times kernel scale over output scale, for each channel, in float64."""
    return [source.scale * float(scale) / target.scale for scale in scales]


def _bias(model: Model, operator: Operator, place: int, channels: int) -> np.ndarray:
    """The bias of each output channel, zero where there is none."""
    if absent(operator, place):
        return np.zeros(channels, np.int32)
    bias = constant(model, operator, place, np.int32, "bias")
    if bias.size != channels:
        raise refusal(model, operator, f"its bias has {bias.size} numbers, not {channels}")
    return bias.reshape(channels)


def _kernel_scales(model: Model, operator: Operator, axis: int, channels: int) -> np.ndarray:
    """[channels] float32, the scales of the kernel, which must be symmetric."""
    tensor = input_tensor(model, operator, 1)
    quantization = tensor.quantization
    if quantization is None or len(quantization.scale) == 0:
        raise refusal(model, operator, f"its kernel {tensor.name!r} has no quantisation")
    scale = np.asarray(quantization.scale, np.float32)
    if np.any(quantization.zero_point):
        raise refusal(
            model,
            operator,
            f"its kernel {tensor.name!r} has a zero point",
            "int8 weights have none",
        )
    if not (np.isfinite(scale) & (scale >= 0)).all():
        raise refusal(model, operator, f"its kernel {tensor.name!r} has a scale below zero or none")
    if len(scale) == 1:
        return np.repeat(scale, channels)
    if len(scale) != channels or quantization.axis != axis:
        raise refusal(
            model,
            operator,
            f"its kernel {tensor.name!r} has {len(scale)} scales along dimension "
            f"{quantization.axis}, not {channels} along {axis}",
        )
    return scale


LOWERINGS: Mapping[str, Lowering] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "FULLY_CONNECTED": _fully_connected,
}
