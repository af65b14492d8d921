"""C of means and maxima over windows, and of means over dimensions."""

from __future__ import annotations

import textwrap
from itertools import groupby

from fedsys.edge.code import scaling
from fedsys.edge.code.convolution import define_fill
from fedsys.edge.code.unit import Unit, Value, loops, padded, place
from fedsys.edge.code.windows import define_windows, image, window
from fedsys.edge.integers.program import Mean, Pool

POOL = """
struct pool {
    struct window window;
    int32_t low, high;
};
"""

AVERAGE = """
/* The mean of what is inside the image, rounded half away from zero. */
static void average(const struct window *w, const struct view *v, int8_t *y)
{
    const struct pool *const p = (const struct pool *)w;
    const int32_t count = v->down * v->across;
    for (int32_t c = 0; c < w->out_pitch; c++) {
        int32_t sum = 0;
        for (int32_t i = 0; i < v->down; i++) {
            const int8_t *x = v->x + c + i * w->row_step;
            for (int32_t j = 0; j < v->across; j++) {
                sum += *x;
                x += w->column_step;
            }
        }
        sum += sum > 0 ? count / 2 : -(count / 2);
        y[c] = limited(sum / count, p->low, p->high);
    }
}
"""

MAXIMUM = """
static void maximum(const struct window *w, const struct view *v, int8_t *y)
{
    const struct pool *const p = (const struct pool *)w;
    const int32_t channels = w->out_pitch;
    const int32_t high = p->high;
    const int8_t low = (int8_t)p->low;
    fill(y, &low, 1, channels);
    for (int32_t i = 0; i < v->down; i++) {
        const int8_t *x = v->x + i * w->row_step;
        for (int32_t j = v->across; j > 0; j--) {
            for (int32_t c = 0; c < channels; c++) {
                const int32_t value = x[c] < high ? x[c] : high;
                if (value > y[c]) {
                    y[c] = (int8_t)value;
                }
            }
            x += w->column_step;
        }
    }
}
"""

MEAN = """
/* Means over some dimensions: those kept are walked outside, those reduced inside. */
struct mean {{
    int32_t kept[{kept}], kept_steps[{kept}];
    int32_t reduced[{reduced}], reduced_steps[{reduced}];
    int32_t bias, multiplier, shift, offset, low, high;
}};

static void mean(const struct mean *m, const int8_t *x, int8_t *y)
{{
{body}
}}
"""

MEAN_BODY = """
const int8_t *const from = x + {start};
int32_t sum = m->bias;
{inner}
*y++ = stored(scaled(sum, m->multiplier, m->shift), m->offset, m->low, m->high);
"""


def pool(unit: Unit, node: Pool) -> str:
    """The call of a Pool."""
    unit.function("limited", scaling.LIMITED)
    define_windows(unit)
    unit.function("pool", POOL)
    name = "average" if node.mean else "maximum"
    if not node.mean:
        define_fill(unit)
    unit.function(name, AVERAGE if node.mean else MAXIMUM)
    seen, output = image(unit, node.inputs[0]), image(unit, node.output)
    fields: dict[str, Value] = {
        "window": window(unit, name, seen, output, node.window, node.stride, node.pad),
        "low": node.low,
        "high": node.high,
    }
    struct = unit.struct("pool", fields)
    source, target = unit.bytes(node.inputs[0]), unit.bytes(node.output)
    return f"slide({struct}.window, {source}, {target});"


def mean(unit: Unit, node: Mean) -> str:
    """The call of a Mean."""
    shapes = [_split(other) for other in unit.nodes(Mean)]
    kept = max(1, *(len(sizes) for (sizes, _), _ in shapes))
    reduced = max(1, *(len(sizes) for _, (sizes, _) in shapes))
    scaling.define_scaled(unit)
    at = place("m->reduced_steps", reduced, "j")
    inner = loops("m->reduced", reduced, f"sum += from[{at}];", "j")
    body = MEAN_BODY.format(start=place("m->kept_steps", kept), inner=inner)
    walk = textwrap.indent(loops("m->kept", kept, body), "    ")
    unit.function("mean", MEAN.format(kept=kept, reduced=reduced, body=walk))
    (kept_sizes, kept_steps), (reduced_sizes, reduced_steps) = _split(node)
    fields: dict[str, Value] = {
        "kept": padded(kept_sizes, kept, 1),
        "kept_steps": padded(kept_steps, kept, 0),
        "reduced": padded(reduced_sizes, reduced, 1),
        "reduced_steps": padded(reduced_steps, reduced, 0),
        "bias": node.bias,
        "multiplier": node.multiplier,
        "shift": node.shift,
        "offset": node.output_offset,
        "low": node.low,
        "high": node.high,
    }
    struct = unit.struct("mean", fields)
    return f"mean({struct}, {unit.bytes(node.inputs[0])}, {unit.bytes(node.output)});"


Dimensions = tuple[list[int], list[int]]


def _split(node: Mean) -> tuple[Dimensions, Dimensions]:
    """(sizes, steps) of the dimensions kept and of those reduced, neighbours merged."""
    merged: list[tuple[bool, int]] = []
    pairs = [(r, n) for r, n in zip(node.reduced, node.shape, strict=True) if n != 1]
    for reduced, run in groupby(pairs, key=lambda pair: bool(pair[0])):
        size = 1
        for _, length in run:
            size *= length
        merged.append((reduced, size))
    kinds: tuple[Dimensions, Dimensions] = (([], []), ([], []))
    step = 1
    for reduced, size in reversed(merged):
        sizes, steps = kinds[int(reduced)]
        sizes.insert(0, size)
        steps.insert(0, step)
        step *= size
    return kinds
