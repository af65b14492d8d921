"""What a microcontroller does to run a model: nodes of integers, ready to be computed.

`lower` (lower.py) makes a `Program` of a `Model`: every multiplier, offset, border and limit is
worked out here once, so that the NumPy executor, the generated C and the report cannot differ in
them. The arithmetic is that of TensorFlow Lite Micro's reference kernels for int8.

Notation of the fields that many nodes share:

- `input_offset`: added to a stored input; minus its zero point.
- `output_offset`: added to a scaled result; the output's zero point.
- `multiplier`, `shift`: the real factor as a Q0.31 integer and a power of two (`fixed.Scale`).
- `low`, `high`: limits of the stored output, of its type or of a fused activation.
- images are [rows, columns, channels]; the batch is one and is not written.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsys.edge.tflite.model import Model, Operator


@dataclass(frozen=True, eq=False)
class Node:
    """One step. operator: where it comes from; an operator may become several nodes.

    inputs, output: numbers of the tensors that are read and written; constants lie in the node.
    """

    operator: Operator
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True, eq=False)
class Weighted(Node):
    """A step with weights: sums of (input + input_offset) * kernel, + bias, scaled for each output
    channel, + output_offset, limited.

    kernel: int8, in an order of its own for each kind. bias, multiplier, shift: [out] int32;
    factors are all alike where the kernel has one scale.
    """

    kernel: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    input_offset: int
    output_offset: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Convolution(Weighted):
    """CONV_2D. The sum runs over kernel and input channels; input outside the image counts zero.

    kernel: [out, rows, columns, in / groups]. stride, dilation: (rows, columns). pad: (top, left).
    """

    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]


@dataclass(frozen=True, eq=False)
class DepthwiseConvolution(Weighted):
    """DEPTHWISE_CONV_2D: output channel o sees input channel o // depth alone.

    kernel: [rows, columns, out]. depth: output channels an input channel. Else as `Convolution`.
    """

    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]
    depth: int


@dataclass(frozen=True, eq=False)
class TransposedConvolution(Weighted):
    """TRANSPOSE_CONV: each input position adds its kernel to the outputs around it.

    Input (r, c) reaches output (r * stride - pad + kernel row, ...). kernel: [out, rows, columns,
    in]; pad: (top, left) cut off the output.
    """

    stride: tuple[int, int]
    pad: tuple[int, int]


@dataclass(frozen=True, eq=False)
class FullyConnected(Weighted):
    """FULLY_CONNECTED: `rows` vectors, each times the kernel, [out, in]."""

    rows: int


@dataclass(frozen=True, eq=False)
class Pool(Node):
    """AVERAGE_POOL_2D (mean: rounded half away from zero, over what is inside the image), or
    MAX_POOL_2D. window, stride: (rows, columns). pad: (top, left)."""

    mean: bool
    window: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Mean(Node):
    """MEAN over the dimensions where `reduced`.

    shape: of the input. The sum of stored values + bias, scaled (bias, multiplier and shift hold
    the count and both zero points as the reference has them), + output_offset, limited.
    """

    shape: tuple[int, ...]
    reduced: tuple[bool, ...]
    bias: int
    multiplier: int
    shift: int
    output_offset: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Operand:
    """One side of an `Add` or `Multiply`.

    tensor: its number, or None for a constant with `data`.
    strides: how far the stored place moves for a step in each dimension of the output; 0 where
        it is broadcast. multiplier, shift: of `Add` alone.
    """

    tensor: int | None
    data: np.ndarray | None
    strides: tuple[int, ...]
    offset: int
    multiplier: int = 0
    shift: int = 0


@dataclass(frozen=True, eq=False)
class Add(Node):
    """ADD, or SUB where `minus`: both sides shifted left by `left`, scaled, added, scaled back.

    shape: of the output, with ones dropped and neighbours merged where both sides allow it.
    """

    shape: tuple[int, ...]
    first: Operand
    second: Operand
    minus: bool
    left: int
    multiplier: int
    shift: int
    output_offset: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Multiply(Node):
    """MUL: (first + offset) * (second + offset), scaled, + output_offset, limited."""

    shape: tuple[int, ...]
    first: Operand
    second: Operand
    multiplier: int
    shift: int
    output_offset: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Lookup(Node):
    """A function of one stored int8 value: LOGISTIC, TANH, RELU, RELU6, HARD_SWISH, LEAKY_RELU,
    QUANTIZE from int8 to int8, and their like.

    table: [256] int8, the result for the stored values -128 to 127.
    """

    table: np.ndarray


@dataclass(frozen=True, eq=False)
class Prelu(Node):
    """PRELU: a value at or above zero scaled by one factor, one below times its slope.

    slope: operand of the slopes, with offset. positive: (multiplier, shift) above zero; negative:
    below, of the product.
    """

    shape: tuple[int, ...]
    slope: Operand
    positive: tuple[int, int]
    negative: tuple[int, int]
    input_offset: int
    output_offset: int
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Softmax(Node):
    """SOFTMAX over the last dimension of [rows, length].

    exponential: [256] int32, Q0.31: the table entry for a stored value that lies d below the
    row's largest is at d, zero where the reference counts it as nothing.
    """

    rows: int
    length: int
    exponential: np.ndarray


@dataclass(frozen=True, eq=False)
class Quantize(Node):
    """QUANTIZE of float32 to int8: round(value / scale) half away from zero, + zero_point."""

    scale: float
    zero_point: int


@dataclass(frozen=True, eq=False)
class Dequantize(Node):
    """DEQUANTIZE of int8 to float32."""

    scale: float
    zero_point: int


@dataclass(frozen=True, eq=False)
class Resize(Node):
    """RESIZE_NEAREST_NEIGHBOR: rows and columns of the input that each of the output's shows."""

    rows: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True, eq=False)
class Interpolate(Node):
    """RESIZE_BILINEAR: four pixels of the input, weighted, for each of the output's.

    rows, columns: [out, 3] int16: the first and the second of the input's that count, and the
    weight of the second in 1024ths; the first has the rest of 1024. Halves are rounded away from
    zero. At the borders, where both are the same, a weight may lie outside of 0 to 1024.
    """

    rows: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True)
class Part:
    """Elements to copy: place `from_start + sum(i * from_strides)` of `tensor` goes to place
    `to_start + sum(i * to_strides)` of the output, for every index i below `shape`.

    Strides and starts count elements. Ones are dropped and neighbours merged; a part that is one
    run has shape (length,) and strides (1,). tensor: or None, and `data` is copied.
    """

    tensor: int | None
    shape: tuple[int, ...]
    from_start: int
    from_strides: tuple[int, ...]
    to_start: int
    to_strides: tuple[int, ...]
    data: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Copy(Node):
    """What moves and computes nothing: RESHAPE, SQUEEZE, EXPAND_DIMS, CONCATENATION, PAD,
    STRIDED_SLICE, SLICE, SPLIT (a node an output), TRANSPOSE, PACK, UNPACK.

    fill: what the output holds where no part writes, or None where parts write all of it.
    alias: whether it is the same bytes in the same order, so that both may share their place.
    """

    parts: tuple[Part, ...]
    fill: int | None = None
    alias: bool = False


@dataclass(frozen=True, eq=False)
class Program:
    """The nodes of a model, in order."""

    model: Model
    nodes: tuple[Node, ...]
