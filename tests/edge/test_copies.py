"""Copies that do not fit are refused, and nothing is read or written outside of a tensor."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fedsys.edge.integers.executor import trace
from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.program import Copy, Interpolate, Resize
from fedsys.edge.integers.walks import places
from fedsys.edge.tflite.reader import read
from fedsys.errors import DataError, ExportError

from .agreement import int8, integers, shapes
from .build import Value, constant, one_operator

IMAGE = int8([1, 4, 4, 2])
OTHER = Value([1, 4, 4, 2], "int8", 0.06, 3)
SHIFTED = int8([1, 4, 4, 2], 4)
FLAT = int8([1, 32])
HUGE = 2**31 - 1
ONE = {"num_splits": 1}


@pytest.mark.parametrize(
    "code, inputs, output, options, message",
    [
        ("RESHAPE", [IMAGE, integers(1, 33)], int8([1, 33]), {}, "another size"),
        ("RESHAPE", [IMAGE, integers(1, 32)], int8([1, 31]), {}, r"not \[1, 32\]"),
        ("RESHAPE", [IMAGE, integers(-1, -1)], FLAT, {}, "another size"),
        ("RESHAPE", [IMAGE, integers(-1, 0)], FLAT, {}, "another size"),
        ("RESHAPE", [IMAGE, Value([2], "int32")], FLAT, {}, "computed"),
        ("RESHAPE", [IMAGE, integers(1, 32)], int8([1, 32], 9), {}, "different scales"),
        ("RESHAPE", [Value([1, 2], "int32")], Value([2], "int32"), {}, "is int32"),
        ("SQUEEZE", [IMAGE], int8([1, 4, 2]), {"squeeze_dims": [2]}, "drops a dimension of 4"),
        ("SQUEEZE", [IMAGE], int8([4, 4, 2]), {"squeeze_dims": [7]}, "axis 7"),
        ("EXPAND_DIMS", [FLAT, integers(5)], int8([1, 32, 1]), {}, "axis 5"),
        ("CONCATENATION", [IMAGE, OTHER], int8([1, 4, 4, 4]), {"axis": 3}, "different scales"),
        ("CONCATENATION", [IMAGE, SHIFTED], int8([1, 4, 4, 4]), {"axis": 3}, "different scales"),
        ("CONCATENATION", [IMAGE, IMAGE], int8([1, 4, 4, 9]), {"axis": 3}, "has shape"),
        ("CONCATENATION", [IMAGE, FLAT], int8([1, 4, 4, 9]), {"axis": 3}, "has shape"),
        ("CONCATENATION", [IMAGE], int8([1, 4, 4, 2]), {"axis": 4}, "axis 4"),
        (
            "CONCATENATION",
            [FLAT, FLAT],
            int8([1, 64]),
            {"axis": 1, "fused_activation_function": "RELU"},
            "fused activation",
        ),
        ("PACK", [FLAT, IMAGE], int8([2, 1, 32]), {"axis": 0}, "has shape"),
        ("UNPACK", [FLAT], int8([32]), {"axis": 1}, "1 outputs"),
        ("PAD", [FLAT, integers(0, 0, -1, 0)], int8([1, 31]), {}, "does not fit"),
        ("PAD", [FLAT, integers(0, 0)], FLAT, {}, "does not fit"),
        ("PAD", [FLAT, integers(0, 0, 0, HUGE)], FLAT, {}, "has shape"),
        ("PADV2", [FLAT, integers(0, 0, 0, 1)], int8([1, 33]), {}, "inputs"),
        (
            "PADV2",
            [FLAT, integers(0, 0, 0, 1), constant(1, scale=0.9)],
            int8([1, 33]),
            {},
            "different scales",
        ),
        ("MIRROR_PAD", [FLAT, integers(0, 0, 32, 0)], int8([1, 64]), {}, "mirrors 32 of 32"),
        ("SLICE", [FLAT, integers(0, 30), integers(1, 3)], int8([1, 3]), {}, "cuts 3 from 30"),
        ("SLICE", [FLAT, integers(0, -1), integers(1, 1)], int8([1, 1]), {}, "cuts 1 from -1"),
        ("SLICE", [FLAT, integers(0, HUGE), integers(1, 1)], int8([1, 1]), {}, "out of 32"),
        ("SLICE", [FLAT, integers(0), integers(1)], int8([1]), {}, "out of shape"),
        (
            "STRIDED_SLICE",
            [FLAT, integers(0, 0), integers(1, 4), integers(1, 0)],
            FLAT,
            {},
            "stride of zero",
        ),
        (
            "STRIDED_SLICE",
            [FLAT, integers(0, 32), integers(1, 33), integers(1, 1)],
            int8([1]),
            {"shrink_axis_mask": 2},
            "element 32 of 32",
        ),
        (
            "STRIDED_SLICE",
            [FLAT, integers(0, 0, 0), integers(1, 1, 1), integers(1, 1, 1)],
            FLAT,
            {},
            "3 dimensions",
        ),
        ("SPLIT", [integers(1), FLAT], int8([1, 16]), ONE, r"not \[1, 32\]"),
        ("SPLIT", [integers(9), FLAT], int8([1, 32]), ONE, "axis 9"),
        ("SPLIT_V", [FLAT, integers(31), integers(1)], int8([1, 31]), ONE, "splits 32"),
        ("SPLIT_V", [FLAT, integers(-5), integers(1)], int8([1, 31]), ONE, "splits 32"),
        ("TRANSPOSE", [FLAT, integers(0, 0)], FLAT, {}, "its order"),
        ("TRANSPOSE", [FLAT, integers(0, 2)], FLAT, {}, "its order"),
        ("TRANSPOSE", [FLAT, constant([0.0, 1.0], "float32")], FLAT, {}, "float32"),
        ("SPACE_TO_DEPTH", [IMAGE], IMAGE, {"block_size": 3}, "do not fit"),
        ("DEPTH_TO_SPACE", [IMAGE], IMAGE, {"block_size": 2}, "do not fit"),
        ("DEPTH_TO_SPACE", [FLAT], FLAT, {"block_size": 1}, "blocks of 1"),
        ("GATHER", [FLAT, integers(32)], int8([1, 1]), {"axis": 1}, "outside of 32"),
        ("GATHER", [FLAT, integers(-1)], int8([1, 1]), {"axis": 1}, "outside of 32"),
        ("GATHER", [FLAT, Value([1], "int32")], int8([1, 1]), {"axis": 1}, "Embedding"),
        (
            "GATHER",
            [FLAT, integers(*[0, 2] * 40)],
            int8([1, 80]),
            {"axis": 1},
            "separate runs",
        ),
        ("REVERSE_V2", [FLAT, integers(2)], FLAT, {}, "axis 2"),
        ("RESIZE_NEAREST_NEIGHBOR", [IMAGE, integers(0, 4)], IMAGE, {}, "resizes shape"),
        ("RESIZE_NEAREST_NEIGHBOR", [IMAGE, integers(HUGE, HUGE)], IMAGE, {}, "resizes shape"),
        ("RESIZE_NEAREST_NEIGHBOR", [FLAT, integers(2, 2)], FLAT, {}, "not one image"),
        ("RESIZE_NEAREST_NEIGHBOR", [IMAGE, integers(8, 8)], IMAGE, {}, "has shape"),
        ("RESIZE_BILINEAR", [IMAGE, integers(8, 8)], IMAGE, {}, "has shape"),
        (
            "RESIZE_BILINEAR",
            [int8([1, 100, 1, 1]), integers(999, 1)],
            int8([1, 999, 1, 1]),
            {},
            "leave the image for 100 to 999",
        ),
        (
            "RESIZE_BILINEAR",
            [IMAGE, integers(4, 4)],
            IMAGE,
            {"align_corners": True, "half_pixel_centers": True},
            "both corners and centres",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    code: str,
    inputs: list[Value | None],
    output: Value,
    options: dict[str, Any],
    message: str,
) -> None:
    data = one_operator(code, inputs, output, options)
    with pytest.raises(ExportError, match=message) as caught:
        lower(read(data))
    assert code in str(caught.value)
    assert "\n" not in str(caught.value)


# Numbers that a stranger may put into a file, most of them near what may be right.
ODD = st.one_of(
    st.integers(0, 3), st.integers(-2, 5), st.sampled_from([-HUGE - 1, HUGE, 2**30, 100])
)
# Of each operator: inputs of whole numbers behind or (SPLIT) before the one that is moved, how
# many numbers they hold (0: as many as dimensions, -1: twice as many), and options.
STRANGE: dict[str, tuple[list[int], list[str]]] = {
    "EXPAND_DIMS": ([1], []),
    "PAD": ([-1], []),
    "MIRROR_PAD": ([-1], []),
    "SLICE": ([0, 0], []),
    "TRANSPOSE": ([0], []),
    "REVERSE_V2": ([1], []),
    "STRIDED_SLICE": (
        [0, 0, 0],
        [f"{name}_mask" for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")],
    ),
    "SPLIT": ([1], []),
    "SPLIT_V": ([2, 1], []),
    "UNPACK": ([], ["axis"]),
    "PACK": ([], ["axis"]),
    "CONCATENATION": ([], ["axis"]),
    "GATHER": ([3], ["axis"]),
    "SPACE_TO_DEPTH": ([], ["block_size"]),
    "DEPTH_TO_SPACE": ([], ["block_size"]),
    "RESIZE_NEAREST_NEIGHBOR": ([2], []),
    "RESIZE_BILINEAR": ([2], []),
}


@settings(deadline=None, max_examples=800)
@given(st.sampled_from(sorted(STRANGE)), st.data())
def test_whatever_a_file_says_nothing_is_read_or_written_outside(
    code: str, draw: st.DataObject
) -> None:
    """Files that a stranger made: refused in words, or every place is inside of its tensor."""
    counts, names = STRANGE[code]
    rank = 4 if "_TO_" in code or code.startswith("RESIZE") else draw.draw(st.integers(1, 4))
    shape = draw.draw(shapes(rank, rank))
    lengths = [{0: rank, -1: 2 * rank}.get(count, count) for count in counts]
    others = [
        integers(*draw.draw(st.lists(ODD, min_size=length, max_size=length))) for length in lengths
    ]
    options = {name: draw.draw(ODD) for name in names}
    count = draw.draw(st.integers(1, 3)) if code in ("SPLIT", "SPLIT_V", "UNPACK") else 1
    options |= {"num_splits": count} if code.startswith("SPLIT") else {}
    options |= {"num": count} if code == "UNPACK" else {}
    inputs = [*others, int8(shape)] if code == "SPLIT" else [int8(shape), *others]
    if code in ("PACK", "CONCATENATION"):
        inputs.append(int8(draw.draw(st.one_of(st.just(shape), shapes(rank, rank)))))
        options |= {"values_count": 2} if code == "PACK" else {}
    outputs = [int8(draw.draw(shapes(1, 4))) for _ in range(count)]
    for _ in range(4):
        try:
            lowered = lower(read(one_operator(code, inputs, outputs, options)))
        except (DataError, ExportError) as refused:
            # Where nothing but an output's shape is wrong, a stranger would put it right.
            wrong = re.search(r"'tensor(\d+)' has shape .*, not \[(.*)\]; the file", str(refused))
            place = int(wrong[1]) - len(inputs) if wrong else -1
            if wrong is None or place < 0:
                return
            sizes = [int(size) for size in wrong[2].split(", ") if size]
            if math.prod(sizes) > 10**6:
                return
            outputs[place] = int8(sizes)
        else:
            break
    else:
        return
    event(f"lowered {code}")
    tensors = lowered.model.tensors
    for node in lowered.nodes:
        for part in node.parts if isinstance(node, Copy) else ():
            source = part.data if part.tensor is None else tensors[part.tensor]
            assert source is not None
            found = places(part.shape, part.from_start, part.from_strides)
            written = places(part.shape, part.to_start, part.to_strides)
            assert found.min() >= 0 and found.max() < source.size
            assert written.min() >= 0 and written.max() < tensors[node.output].size
            assert np.unique(written).size == written.size
        if isinstance(node, Interpolate | Resize):
            for chosen, size in ((node.rows, shape[1]), (node.columns, shape[2])):
                seen = chosen[:, :2] if isinstance(node, Interpolate) else chosen
                assert seen.min() >= 0 and seen.max() < size
    given = [tensors[number] for number in lowered.model.inputs]
    trace(lowered, [np.ones((1, *bare(tensor.shape)), np.int8) for tensor in given])


def bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if shape and shape[0] == 1 else shape
