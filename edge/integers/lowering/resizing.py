"""Images in another size: RESIZE_NEAREST_NEIGHBOR and RESIZE_BILINEAR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedsys.edge.integers.lowering.checks import (
    computed,
    integers,
    require_same_quantization,
    result,
)
from fedsys.edge.integers.lowering.shared import Lowering, refusal, require_arity
from fedsys.edge.integers.program import Interpolate, Node, Resize
from fedsys.edge.tflite.model import Model, Operator, Tensor

# More rows or columns than any microcontroller's memory holds of an image.
LONGEST = 2**15 - 1

# What is one in the weights of RESIZE_BILINEAR.
ONE = 1024


def _resize_nearest(model: Model, operator: Operator) -> Sequence[Node]:
    source, output = _images(model, operator)
    corners, centres = _kind(operator)
    rows, columns = (
        _nearest(old, new, corners, centres)
        for old, new in zip(source.shape[1:3], output.shape[1:3], strict=True)
    )
    return [Resize(operator, (source.index,), output.index, rows=rows, columns=columns)]


def _resize_bilinear(model: Model, operator: Operator) -> Sequence[Node]:
    source, output = _images(model, operator)
    corners, centres = _kind(operator)
    rows, columns = (
        _neighbours(model, operator, old, new, corners, centres)
        for old, new in zip(source.shape[1:3], output.shape[1:3], strict=True)
    )
    return [Interpolate(operator, (source.index,), output.index, rows=rows, columns=columns)]


def _images(model: Model, operator: Operator) -> tuple[Tensor, Tensor]:
    """Input and output, each one image of the same channels and quantisation."""
    require_arity(model, operator, 2)
    source = computed(model, operator, 0)
    size = integers(model, operator, 1, "size")
    if len(source.shape) != 4 or source.shape[0] != 1 or len(size) != 2:
        raise refusal(
            model, operator, f"resizes shape {list(source.shape)} to {size}, not one image"
        )
    lengths = (*source.shape[1:3], *size)
    if not (min(lengths) > 0 and max(lengths) <= LONGEST):
        raise refusal(model, operator, f"resizes shape {list(source.shape)} to {size}")
    output = result(model, operator, (1, *size, source.shape[3]))
    require_same_quantization(model, operator, [source, output])
    return source, output


def _kind(operator: Operator) -> tuple[bool, bool]:
    """(corners of both images coincide, pixels are areas and not points)."""
    return (
        bool(operator.options.get("align_corners", False)),
        bool(operator.options.get("half_pixel_centers", False)),
    )


def _nearest(old: int, new: int, corners: bool, centres: bool) -> np.ndarray:
    """[new] int32: which of `old` pixels each of `new` shows, in float32 as the reference."""
    one, half = np.float32(1), np.float32(0.5)
    if corners and new > 1:
        scale = np.float32(old - 1) / np.float32(new - 1)
    else:
        scale = np.float32(old) / np.float32(new)
    offset = half if centres else one - one
    place = ((np.arange(new).astype(np.float32) + offset) * scale).astype(np.float64)
    chosen = np.floor(place + 0.5) if corners else np.floor(place)
    return np.clip(chosen, 0, old - 1).astype(np.int32)


def _neighbours(
    model: Model, operator: Operator, old: int, new: int, corners: bool, centres: bool
) -> np.ndarray:
    """[new, 3] int16: first, second and weight of the second, as `Interpolate` has them."""
    if corners and centres:
        raise refusal(model, operator, "aligns both corners and centres")
    if corners and new > 1:
        step = (ONE * (old - 1) + (new - 1) // 2) // (new - 1)
    else:
        step = (ONE * old + new // 2) // new
    place = np.arange(new, dtype=np.int64) * step
    if centres:
        place = place + step // 2 - ONE // 2
    # Above -1024, so that rounding down and towards zero, which the reference does, are the same
    # once negative places are zero.
    first = np.maximum(place >> 10, 0)
    second = np.minimum((place + ONE - 1) >> 10, old - 1)
    weight = place - ONE * first
    between = (first == second) | ((weight >= 0) & (weight <= ONE))
    if first.max() >= old or not between.all() or np.abs(weight).max() > ONE:
        raise refusal(
            model,
            operator,
            f"the reference's steps of 1/1024 leave the image for {old} to {new} pixels",
            "use interpolation='nearest', or a smaller factor",
        )
    return np.stack([first, second, weight], axis=1).astype(np.int16)


LOWERINGS: Mapping[str, Lowering] = {
    "RESIZE_NEAREST_NEIGHBOR": _resize_nearest,
    "RESIZE_BILINEAR": _resize_bilinear,
}
