"""Where a window lies as it moves over an image: strides, dilation and what is beyond the edge."""

from __future__ import annotations

from dataclasses import dataclass

from fedsys.edge.integers.lowering.shared import refusal
from fedsys.edge.tflite.model import Model, Operator, Tensor

# Strides, dilations and windows beyond it are a mistake; products of two keep within int32.
LARGEST = 2**15 - 1
# Rows, columns and channels of an image: with what a window adds, within int32.
LONGEST = 2**24


@dataclass(frozen=True)
class Window:
    """All (rows, columns). output: how many places; pad: how far the first lies outside."""

    output: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int]


def window(
    model: Model, operator: Operator, image: Tensor, size: tuple[int, int], *, dilated: bool
) -> Window:
    """The places of a window of `size` (rows, columns) on an image [1, rows, columns, channels].

    Refuses other images, settings that are no sizes, and an output of nothing.
    """
    shape = image.shape
    if len(shape) != 4 or shape[0] != 1 or min(shape) < 1 or max(shape) > LONGEST:
        raise refusal(
            model,
            operator,
            f"tensor {image.name!r} has shape {list(shape)}, not [1, rows, columns, channels]",
            "convert with a static batch of one",
        )
    stride = _pair(model, operator, "stride_h", "stride_w")
    dilation = (
        _pair(model, operator, "dilation_h_factor", "dilation_w_factor") if dilated else (1, 1)
    )
    padding = operator.options.get("padding")
    if padding not in ("SAME", "VALID"):
        raise refusal(model, operator, f"padding {padding!r} is neither SAME nor VALID")
    if not all(1 <= one <= LARGEST for one in size):
        raise refusal(model, operator, f"a window of {size[0]} x {size[1]}")
    rows, columns = (
        _along(shape[1 + i], size[i], stride[i], dilation[i], padding == "SAME") for i in (0, 1)
    )
    if rows[0] < 1 or columns[0] < 1:
        raise refusal(
            model,
            operator,
            f"a window of {size[0]} x {size[1]} does not fit an image of {shape[1]} x {shape[2]}",
        )
    return Window((rows[0], columns[0]), stride, dilation, (rows[1], columns[1]))


def _along(length: int, size: int, stride: int, dilation: int, same: bool) -> tuple[int, int]:
    """(places, pad before the first) in one dimension."""
    reach = (size - 1) * dilation + 1
    places = -(-length // stride) if same else (length - reach) // stride + 1
    return places, max(0, (places - 1) * stride + reach - length) // 2


def _pair(model: Model, operator: Operator, rows: str, columns: str) -> tuple[int, int]:
    """Two settings as (rows, columns), each at least one."""
    pair = int(operator.options.get(rows, 1)), int(operator.options.get(columns, 1))
    if not all(1 <= one <= LARGEST for one in pair):
        raise refusal(model, operator, f"{rows}, {columns} are {pair[0]}, {pair[1]}")
    return pair
