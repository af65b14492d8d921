"""Programs made node by node for tests of what runs them: random weights, random quantisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedsys.edge.integers.fixed import quantized_multiplier
from fedsys.edge.integers.program import (
    Add,
    Convolution,
    Copy,
    DepthwiseConvolution,
    Dequantize,
    FullyConnected,
    Interpolate,
    Lookup,
    Mean,
    Multiply,
    Node,
    Operand,
    Part,
    Pool,
    Prelu,
    Program,
    Quantize,
    Resize,
    Softmax,
    TransposedConvolution,
)
from fedsys.edge.tflite.model import Model, Operator, Tensor


def strides(shape: Sequence[int], of: Sequence[int]) -> tuple[int, ...]:
    """Steps of an operand of shape `of` (same rank) in each dimension of an output of `shape`."""
    steps, step = [], 1
    for size in reversed(of):
        steps.append(0 if size == 1 else step)
        step *= size
    return tuple(reversed(steps))


def same_padding(size: int, taps: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """(output size, padding before) of SAME."""
    output = -(-size // stride)
    return output, max(0, (output - 1) * stride + (taps - 1) * dilation + 1 - size) // 2


@dataclass
class Net:
    """A program on the way: each method adds a node and returns its output's number."""

    draw: np.random.Generator
    wide: bool = False  # factors above a half too, for which the short scaling will not do
    full: bool = False  # no limits but those of int8, as after ReLU with a fitting zero point
    tensors: list[Tensor] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    given: list[int] = field(default_factory=list)

    def tensor(self, shape: Sequence[int], dtype: Any = np.int8, data: Any = None) -> int:
        number = len(self.tensors)
        name = f"layer {number} */ \\ % ??/"
        self.tensors.append(
            Tensor(number, name, tuple(int(n) for n in shape), np.dtype(dtype), None, data)
        )
        return number

    def input(self, *shape: int, dtype: Any = np.int8) -> int:
        self.given.append(self.tensor((1, *shape), dtype))
        return self.given[-1]

    def shape(self, number: int) -> tuple[int, ...]:
        return self.tensors[number].shape

    def program(self, outputs: Sequence[int] | None = None) -> Program:
        """outputs: those that no node reads, unless they are given."""
        read = {number for node in self.nodes for number in node.inputs}
        if outputs is None:
            outputs = [node.output for node in self.nodes if node.output not in read]
        model = Model(tuple(self.tensors), (), tuple(self.given), tuple(outputs))
        return Program(model, tuple(self.nodes))

    def rows(self, count: int) -> list[np.ndarray]:
        """Random inputs, extremes among them."""
        rows = []
        for number in self.given:
            tensor = self.tensors[number]
            shape = (count, *tensor.shape[1:])
            if tensor.dtype == np.float32:
                values = self.draw.normal(0, 3, shape).astype(np.float32)
                values[1].reshape(-1)[:4] = np.nan, np.inf, -np.inf, -1e30
            else:
                values = self.draw.integers(-128, 128, shape).astype(tensor.dtype)
                values[0], values[1:2] = -128, 127
            rows.append(values)
        return rows

    def conv(
        self,
        x: int,
        out: int,
        taps: tuple[int, int] = (1, 1),
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        same: bool = True,
        groups: int = 1,
    ) -> int:
        _, rows, columns, channels = self.shape(x)
        shape, pad = self._slid((rows, columns), taps, stride, dilation, same)
        kernel = self._weights(out, *taps, channels // groups)
        fields = self._scaled(kernel.reshape(out, -1))
        return self._add(
            Convolution, "CONV_2D", (x,), (*shape, out), kernel=kernel, stride=stride,
            dilation=dilation, pad=pad, **fields,
        )  # fmt: skip

    def depthwise(
        self,
        x: int,
        taps: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        same: bool = True,
        depth: int = 1,
    ) -> int:
        _, rows, columns, channels = self.shape(x)
        shape, pad = self._slid((rows, columns), taps, stride, dilation, same)
        kernel = self._weights(*taps, channels * depth)
        fields = self._scaled(kernel.reshape(-1, channels * depth).T)
        return self._add(
            DepthwiseConvolution, "DEPTHWISE_CONV_2D", (x,), (*shape, channels * depth),
            kernel=kernel, stride=stride, dilation=dilation, pad=pad, depth=depth, **fields,
        )  # fmt: skip

    def transposed(
        self, x: int, out: int, taps: tuple[int, int], stride: tuple[int, int], same: bool
    ) -> int:
        _, rows, columns, channels = self.shape(x)
        sizes, pad = [], []
        for size, tap, step in zip((rows, columns), taps, stride, strict=True):
            sizes.append(size * step if same else (size - 1) * step + max(tap, step))
            pad.append(max(0, tap - step) // 2 if same else 0)
        kernel = self._weights(out, *taps, channels)
        fields = self._scaled(kernel.reshape(out, -1))
        return self._add(
            TransposedConvolution, "TRANSPOSE_CONV", (x,), (*sizes, out), kernel=kernel,
            stride=stride, pad=tuple(pad), **fields,
        )  # fmt: skip

    def dense(self, x: int, out: int, rows: int = 1) -> int:
        kernel = self._weights(out, self.tensors[x].size // rows)
        shape = (rows, out) if rows > 1 else (out,)
        fields = self._scaled(kernel)
        return self._add(
            FullyConnected, "FULLY_CONNECTED", (x,), shape, rows=rows, kernel=kernel, **fields
        )

    def pool(
        self, x: int, window: tuple[int, int], stride: tuple[int, int], same: bool, mean: bool
    ) -> int:
        _, rows, columns, channels = self.shape(x)
        shape, pad = self._slid((rows, columns), window, stride, (1, 1), same)
        low, high = self._limits()
        return self._add(
            Pool, "AVERAGE_POOL_2D" if mean else "MAX_POOL_2D", (x,), (*shape, channels),
            mean=mean, window=window, stride=stride, pad=pad, low=low, high=high,
        )  # fmt: skip

    def mean(self, x: int, reduced: Sequence[bool], keep: bool = True) -> int:
        shape = self.shape(x)
        sizes = [1 if r else n for r, n in zip(reduced, shape, strict=True) if keep or not r]
        count = int(np.prod([n for r, n in zip(reduced, shape, strict=True) if r]))
        multiplier, shift = quantized_multiplier(float(self.draw.uniform(0.3, 1.5)) / count)
        return self._add(
            Mean, "MEAN", (x,), tuple(sizes[1:]), shape=shape, reduced=tuple(reduced),
            bias=int(self.draw.integers(-128, 128)) * count, multiplier=multiplier, shift=shift,
            output_offset=self._zero(), low=-128, high=127,
        )  # fmt: skip

    def add(self, a: int, b: int | np.ndarray, minus: bool = False) -> int:
        shape, first, second = self._sides(a, b)
        scales = self.draw.uniform(0.05, 1.0, 3)
        most = 2 * max(scales[:2])
        factors = [quantized_multiplier(float(scale / most)) for scale in scales[:2]]
        last = quantized_multiplier(float(most / (2**20 * scales[2])))
        low, high = self._limits()
        return self._add(
            Add, "SUB" if minus else "ADD", self._read(first, second), shape[1:], shape=shape,
            first=self._with(first, *factors[0]), second=self._with(second, *factors[1]),
            minus=minus, left=20, multiplier=last[0], shift=last[1], output_offset=self._zero(),
            low=low, high=high,
        )  # fmt: skip

    def multiply(self, a: int, b: int | np.ndarray) -> int:
        shape, first, second = self._sides(a, b)
        multiplier, shift = quantized_multiplier(float(self.draw.uniform(0.001, 0.05)))
        low, high = self._limits()
        return self._add(
            Multiply, "MUL", self._read(first, second), shape[1:], shape=shape, first=first,
            second=second, multiplier=multiplier, shift=shift, output_offset=self._zero(),
            low=low, high=high,
        )  # fmt: skip

    def prelu(self, x: int, slope: int | np.ndarray) -> int:
        shape, first, second = self._sides(x, slope)
        return self._add(
            Prelu, "PRELU", self._read(first, second), shape[1:], shape=shape, slope=second,
            positive=quantized_multiplier(float(self.draw.uniform(0.3, 2.0))),
            negative=quantized_multiplier(float(self.draw.uniform(0.001, 0.02))),
            input_offset=first.offset, output_offset=self._zero(), low=-128, high=127,
        )  # fmt: skip

    def lookup(self, x: int, table: np.ndarray | None = None) -> int:
        if table is None:
            table = self._weights(256)
        return self._add(Lookup, "LOGISTIC", (x,), self.shape(x)[1:], table=table)

    def softmax(self, x: int) -> int:
        shape = self.shape(x)
        # As the reference: input scale times beta, at the differences of stored values.
        scale = float(self.draw.uniform(0.02, 1.0))
        table = np.floor(np.exp(-scale * np.arange(256)) * 2**31 + 0.5).astype(np.int64)
        table[0] = 2**31 - 1
        table[table < 2] = 0
        return self._add(
            Softmax, "SOFTMAX", (x,), shape[1:], rows=self.tensors[x].size // shape[-1],
            length=shape[-1], exponential=table.astype(np.int32),
        )  # fmt: skip

    def quantize(self, x: int) -> int:
        scale = float(np.float32(self.draw.uniform(0.01, 0.1)))
        return self._add(
            Quantize, "QUANTIZE", (x,), self.shape(x)[1:], scale=scale, zero_point=self._zero()
        )

    def dequantize(self, x: int) -> int:
        scale = float(np.float32(self.draw.uniform(0.01, 0.1)))
        return self._add(
            Dequantize, "DEQUANTIZE", (x,), self.shape(x)[1:], dtype=np.float32, scale=scale,
            zero_point=self._zero(),
        )  # fmt: skip

    def resize(self, x: int, rows: int, columns: int) -> int:
        _, height, width, channels = self.shape(x)
        return self._add(
            Resize, "RESIZE_NEAREST_NEIGHBOR", (x,), (rows, columns, channels),
            rows=np.arange(rows) * height // rows, columns=np.arange(columns) * width // columns,
        )  # fmt: skip

    def interpolate(self, x: int, rows: int, columns: int) -> int:
        _, height, width, channels = self.shape(x)
        pixels = []
        for size, seen in ((rows, height), (columns, width)):
            first = np.arange(size) * seen // size
            second = np.minimum(first + 1, seen - 1)
            weight = self.draw.integers(0, 1025, size)
            pixels.append(np.stack([first, second, weight], 1).astype(np.int16))
        return self._add(
            Interpolate, "RESIZE_BILINEAR", (x,), (rows, columns, channels), rows=pixels[0],
            columns=pixels[1],
        )  # fmt: skip

    def reshape(self, x: int, *shape: int) -> int:
        size = self.tensors[x].size
        part = Part(x, (size,), 0, (1,), 0, (1,))
        dtype = self.tensors[x].dtype
        return self._add(Copy, "RESHAPE", (x,), shape, dtype=dtype, parts=(part,), alias=True)

    def transpose(self, x: int, *order: int) -> int:
        """order: of the dimensions, the batch among them."""
        shape = self.shape(x)
        steps = strides(shape, shape)
        target = tuple(shape[i] for i in order)
        part = Part(
            x, target, 0, tuple(steps[i] for i in order), 0, strides(target, target)
        )  # fmt: skip
        return self._add(Copy, "TRANSPOSE", (x,), target[1:], parts=(part,))

    def concatenate(self, *sides: int | np.ndarray) -> int:
        """Along the last dimension; all of the same other dimensions."""
        shapes = [self.shape(s) if isinstance(s, int) else s.shape for s in sides]
        width = sum(shape[-1] for shape in shapes)
        parts, start = [], 0
        for side, shape in zip(sides, shapes, strict=True):
            rows = int(np.prod(shape[:-1]))
            number, data = (side, None) if isinstance(side, int) else (None, side)
            parts.append(
                Part(number, (rows, shape[-1]), 0, (shape[-1], 1), start, (width, 1), data)
            )
            start += shape[-1]
        numbers = tuple(side for side in sides if isinstance(side, int))
        shape = (*shapes[0][1:-1], width)
        return self._add(Copy, "CONCATENATION", numbers, shape, parts=tuple(parts))

    def pad(self, x: int, top: int, left: int, bottom: int, right: int) -> int:
        _, rows, columns, channels = self.shape(x)
        width = (columns + left + right) * channels
        part = Part(
            x, (rows, columns * channels), 0, (columns * channels, 1),
            top * width + left * channels,
            (width, 1),
        )  # fmt: skip
        shape = (rows + top + bottom, columns + left + right, channels)
        dtype = self.tensors[x].dtype
        fill = 0 if dtype == np.float32 else self._zero()
        return self._add(Copy, "PAD", (x,), shape, dtype=dtype, parts=(part,), fill=fill)

    def _add(
        self,
        kind: type[Node],
        code: str,
        inputs: tuple[int, ...],
        result: Sequence[int],
        dtype: Any = np.int8,
        **fields: Any,
    ) -> int:
        output = self.tensor((1, *result), dtype)
        operator = Operator(len(self.nodes), code, inputs, (output,))
        self.nodes.append(kind(operator, inputs, output, **fields))
        return output

    def _weights(self, *shape: int) -> np.ndarray:
        return self.draw.integers(-127, 128, shape).astype(np.int8)

    def _zero(self) -> int:
        return int(self.draw.integers(-128, 128))

    def _limits(self) -> tuple[int, int]:
        if self.full or self.draw.random() < 0.5:
            return -128, 127
        return int(self.draw.integers(-128, 0)), int(self.draw.integers(0, 128))

    def _scaled(self, kernel: np.ndarray) -> dict[str, Any]:
        """Fields of a node with weights. kernel: [out, products]."""
        out, products = kernel.shape
        spread = float(self.draw.uniform(0.2, 4.0)) / np.sqrt(products) / 128
        real = spread * self.draw.uniform(0.2, 1.0, out)
        if self.wide:
            real *= 2.0 ** self.draw.integers(0, 9, out)
        pairs = [quantized_multiplier(float(r)) for r in np.minimum(real, 60)]
        pairs[0] = (0, 0) if self.draw.random() < 0.2 else pairs[0]
        low, high = self._limits()
        return {
            "bias": self.draw.integers(-5000, 5000, out).astype(np.int32),
            "multiplier": np.array([m for m, _ in pairs], np.int32),
            "shift": np.array([s for _, s in pairs], np.int32),
            "input_offset": -self._zero(),
            "output_offset": self._zero(),
            "low": low,
            "high": high,
        }

    def _slid(
        self,
        sizes: tuple[int, int],
        taps: tuple[int, int],
        stride: tuple[int, int],
        dilation: tuple[int, int],
        same: bool,
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """(sizes of the output, pad)."""
        found = []
        for size, tap, step, spread in zip(sizes, taps, stride, dilation, strict=True):
            if same:
                found.append(same_padding(size, tap, step, spread))
            else:
                found.append(((size - (tap - 1) * spread - 1) // step + 1, 0))
        (rows, top), (columns, left) = found
        return (rows, columns), (top, left)

    def _sides(self, a: int, b: int | np.ndarray) -> tuple[tuple[int, ...], Operand, Operand]:
        shapes = [self.shape(a), self.shape(b) if isinstance(b, int) else b.shape]
        shape = np.broadcast_shapes(*shapes)
        first = Operand(a, None, strides(shape, shapes[0]), -self._zero())
        number, data = (b, None) if isinstance(b, int) else (None, b)
        return shape, first, Operand(number, data, strides(shape, shapes[1]), -self._zero())

    @staticmethod
    def _with(side: Operand, multiplier: int, shift: int) -> Operand:
        return Operand(side.tensor, side.data, side.strides, side.offset, multiplier, shift)

    @staticmethod
    def _read(*sides: Operand) -> tuple[int, ...]:
        return tuple(side.tensor for side in sides if side.tensor is not None)


def keyword_spotting(draw: np.random.Generator) -> Program:
    """A depthwise separable network of MLPerf Tiny's keyword spotting shape."""
    net = Net(draw, full=True)
    x = net.conv(net.input(49, 10, 1), 64, (10, 4), (2, 2))
    for _ in range(4):
        x = net.conv(net.depthwise(x, (3, 3)), 64)
    x = net.pool(x, (25, 5), (25, 5), False, True)
    return net.program([net.softmax(net.dense(net.reshape(x, 64), 12))])
