"""C of what only moves values: Copy and Resize."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np

from fedsys.edge.code.convolution import define_fill
from fedsys.edge.code.unit import Unit, loops, padded, place
from fedsys.edge.integers.program import Copy, Part, Resize

COPY = """
/* Runs of `run` bytes; `steps` are bytes from one to the next. */
struct copy {{
    int32_t shape[{rank}], x_steps[{rank}], y_steps[{rank}];
    int32_t run;
}};

static void copy(const struct copy *n, const int8_t *x, int8_t *y)
{{
{body}
}}
"""

RESIZE = """
/* The pixels of the rows and columns named. */
static void resize(const int8_t *x, int8_t *y, const uint16_t *rows, int32_t row_count,
    const uint16_t *columns, int32_t column_count, int32_t pitch, int32_t pixel)
{
    for (int32_t i = 0; i < row_count; i++) {
        for (int32_t j = 0; j < column_count; j++) {
            memcpy(y, x + (rows[i] * pitch + columns[j] * pixel), (size_t)pixel);
            y += pixel;
        }
    }
}
"""


@dataclass(frozen=True)
class _Runs:
    """A part in bytes: its dimensions, and the run that is copied at each place."""

    shape: tuple[int, ...]
    x_steps: tuple[int, ...]
    y_steps: tuple[int, ...]
    run: int


def copy(unit: Unit, node: Copy) -> str:
    """The calls of a Copy that is more than another name for the same bytes."""
    output = unit.tensor(node.output)
    target = unit.bytes(node.output)
    lines = []
    if node.fill is not None:
        define_fill(unit)
        item = np.array(node.fill).astype(output.dtype)
        values = unit.array(item.reshape(-1).view(np.int8), "values")
        lines.append(f"fill({target}, {values}, {item.itemsize}, {output.bytes});")
    for part in node.parts:
        lines.append(_part(unit, part, target, output.dtype.itemsize))
    return "\n".join(line for line in lines if line)


def resize(unit: Unit, node: Resize) -> str:
    """The call of a Resize."""
    unit.function("resize", RESIZE)
    tensor = unit.tensor(node.inputs[0])
    columns, channels = tensor.shape[-2:]
    pixel = channels * tensor.dtype.itemsize
    source, target = unit.bytes(node.inputs[0]), unit.bytes(node.output)
    return (
        f"resize({source}, {target}, {unit.array(node.rows.astype(np.uint16), 'places')}, "
        f"{len(node.rows)}, {unit.array(node.columns.astype(np.uint16), 'places')}, "
        f"{len(node.columns)}, {columns * pixel}, {pixel});"
    )


def _part(unit: Unit, part: Part, target: str, size: int) -> str:
    runs = _runs(part, size)
    if 0 in part.shape:
        return ""
    if part.tensor is not None:
        source = unit.bytes(part.tensor)
    else:
        assert part.data is not None, "a part copies a tensor or constant values"
        source = unit.array(np.asarray(part.data).reshape(-1).view(np.int8), "values")
    source = f"{source} + {part.from_start * size}" if part.from_start else source
    target = f"{target} + {part.to_start * size}" if part.to_start else target
    if not runs.shape:
        return f"memcpy({target}, {source}, {runs.run});"
    parts = [
        _runs(p, unit.tensor(n.output).dtype.itemsize) for n in unit.nodes(Copy) for p in n.parts
    ]
    rank = max(len(other.shape) for other in parts)
    body = (
        f"memcpy(y + ({place('n->y_steps', rank)}), x + ({place('n->x_steps', rank)}), "
        "(size_t)n->run);"
    )
    walk = textwrap.indent(loops("n->shape", rank, body), "    ")
    unit.function("copy", COPY.format(rank=rank, body=walk))
    struct = unit.struct(
        "copy",
        {
            "shape": padded(runs.shape, rank, 1),
            "x_steps": padded(runs.x_steps, rank, 0),
            "y_steps": padded(runs.y_steps, rank, 0),
            "run": runs.run,
        },
    )
    return f"copy({struct}, {source}, {target});"


def _runs(part: Part, size: int) -> _Runs:
    """A part with its last dimension as a run where both sides have it in one piece."""
    shape, x, y = part.shape, part.from_strides, part.to_strides
    run = size
    if shape and x[-1] == y[-1] == 1:
        run, shape, x, y = run * shape[-1], shape[:-1], x[:-1], y[:-1]
    return _Runs(shape, tuple(s * size for s in x), tuple(s * size for s in y), run)
