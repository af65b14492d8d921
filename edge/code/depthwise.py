"""C of depthwise convolutions, which add up each channel on its own."""

from __future__ import annotations

import numpy as np

from fedsys.edge.code import convolution, scaling
from fedsys.edge.code.arena import single_channel
from fedsys.edge.code.unit import Unit, Value
from fedsys.edge.code.windows import define_windows, image, window
from fedsys.edge.integers.program import DepthwiseConvolution, TransposedConvolution

DEPTHWISE = """
/* Each of the image's channels feeds `depth` outputs. */
struct depthwise {
    struct window window;
    struct scaling scaling;
    const int8_t *kernel;
    int32_t depth, offset;
    int32_t line; /* bytes of a row of taps */
};

#ifdef FAST
/* One tap of four channels. */
static INLINE void add_tap(const int8_t *x, const int8_t *w, uint32_t offsets, int32_t *sums)
{
    const uint32_t a = word(x);
    const uint32_t b = word(w);
    const uint32_t a0 = even_plus(offsets, a);
    const uint32_t b0 = even(b);
    const uint32_t a1 = odd_plus(offsets, a);
    const uint32_t b1 = odd(b);
    sums[0] = add_low(sums[0], a0, b0);
    sums[1] = add_low(sums[1], a1, b1);
    sums[2] = add_high(sums[2], a0, b0);
    sums[3] = add_high(sums[3], a1, b1);
}
#endif

static void depthwise(const struct window *window, const struct view *v, int8_t *y)
{
    const struct depthwise *const d = (const struct depthwise *)window;
    const struct scaling *const s = &d->scaling;
    const int32_t outputs = window->out_pitch;
    const int32_t line = d->line;
    const int32_t x_step = window->column_step;
    const int8_t *const kernel = d->kernel + v->row * line + v->column * outputs;
    int32_t o = 0;
#ifdef FAST
    const uint32_t offsets = (uint32_t)(uint16_t)d->offset * 0x10001u;
    const int32_t fours = d->depth == 1 ? outputs & ~3 : 0;
    for (; o < fours; o += 4) {
        int32_t sums[4] = {s->bias[o], s->bias[o + 1], s->bias[o + 2], s->bias[o + 3]};
        const int8_t *x = v->x + o;
        const int8_t *w = kernel + o;
        for (int32_t i = v->down; i > 0; i--) {
            if (v->across == 3) {
                add_tap(x, w, offsets, sums);
                add_tap(x + x_step, w + outputs, offsets, sums);
                add_tap(x + 2 * x_step, w + 2 * outputs, offsets, sums);
            } else {
                const int8_t *from = x;
                const int8_t *by = w;
                for (int32_t j = v->across; j > 0; j--) {
                    add_tap(from, by, offsets, sums);
                    from += x_step;
                    by += outputs;
                }
            }
            x += window->row_step;
            w += line;
        }
        const int8_t y0 = finished(s, sums[0], o);
        const int8_t y1 = finished(s, sums[1], o + 1);
        const int8_t y2 = finished(s, sums[2], o + 2);
        const int8_t y3 = finished(s, sums[3], o + 3);
        y[o] = y0;
        y[o + 1] = y1;
        y[o + 2] = y2;
        y[o + 3] = y3;
    }
#endif
    for (; o < outputs; o++) {
        const int8_t *x_row = v->x + CHANNEL;
        const int8_t *w_row = kernel + o;
        int32_t sum = s->bias[o];
        for (int32_t i = v->down; i > 0; i--) {
            const int8_t *x = x_row;
            const int8_t *w = w_row;
            for (int32_t j = v->across; j > 0; j--) {
                sum += (*x + d->offset) * *w;
                x += x_step;
                w += outputs;
            }
            x_row += window->row_step;
            w_row += line;
        }
        y[o] = finished(s, sum, o);
    }
}
"""

TRANSPOSED = """
/* A convolution backwards: each input position adds its kernel to the outputs around it. */
struct transposed {
    struct scaling scaling;
    const int8_t *kernel;
    int32_t rows, columns, channels;
    int32_t out_rows, out_columns, outputs;
    int32_t taps_down, taps_across;
    int32_t stride_down, stride_across;
    int32_t top, left, offset;
};

/* The input positions `first` up to `last` of `size` whose kernel covers output position `at`. */
static void covering(
    int32_t at, int32_t stride, int32_t taps, int32_t size, int32_t *first, int32_t *last)
{
    const int32_t past = at / stride + 1;
    *first = at < taps ? 0 : (at - taps) / stride + 1;
    *last = past < size ? past : size;
}

static void transposed(const struct transposed *t, const int8_t *x, int8_t *y)
{
    for (int32_t i = t->top; i < t->top + t->out_rows; i++) {
        int32_t top, bottom;
        covering(i, t->stride_down, t->taps_down, t->rows, &top, &bottom);
        for (int32_t j = t->left; j < t->left + t->out_columns; j++) {
            int32_t left, right;
            covering(j, t->stride_across, t->taps_across, t->columns, &left, &right);
            for (int32_t o = 0; o < t->outputs; o++) {
                int32_t sum = t->scaling.bias[o];
                for (int32_t r = top; r < bottom; r++) {
                    for (int32_t c = left; c < right; c++) {
                        const int32_t down = i - r * t->stride_down;
                        const int32_t across = j - c * t->stride_across;
                        const int8_t *from = x + (r * t->columns + c) * t->channels;
                        const int8_t *w = t->kernel
                            + ((o * t->taps_down + down) * t->taps_across + across) * t->channels;
                        for (int32_t k = 0; k < t->channels; k++) {
                            sum += (*from++ + t->offset) * *w++;
                        }
                    }
                }
                *y++ = finished(&t->scaling, sum, o);
            }
        }
    }
}
"""


def depthwise(unit: Unit, node: DepthwiseConvolution) -> str:
    """The call of a DepthwiseConvolution."""
    if single_channel(unit.program, node):
        return convolution.convolution(unit, convolution.from_depthwise(node), node)
    scaling.define_finished(unit)
    scaling.define_words(unit)
    define_windows(unit)
    deep = any(other.depth != 1 for other in unit.nodes(DepthwiseConvolution))
    unit.function("depthwise", DEPTHWISE.replace("CHANNEL", "o / d->depth" if deep else "o"))
    fields: dict[str, Value] = {
        "window": window(
            unit,
            "depthwise",
            image(unit, node.inputs[0]),
            image(unit, node.output),
            node.kernel.shape[:2],
            node.stride,
            node.pad,
            node.dilation,
        ),
        "scaling": scaling.scaling(unit, node, node.bias),
        "kernel": unit.array(node.kernel.astype(np.int8), "kernel"),
        "depth": node.depth,
        "offset": node.input_offset,
        "line": node.kernel.shape[1] * node.kernel.shape[2],
    }
    struct = unit.struct("depthwise", fields)
    source, target = unit.bytes(node.inputs[0]), unit.bytes(node.output)
    return f"slide({struct}.window, {source}, {target});"


def transposed(unit: Unit, node: TransposedConvolution) -> str:
    """The call of a TransposedConvolution."""
    scaling.define_finished(unit)
    unit.function("transposed", TRANSPOSED)
    rows, columns, channels = image(unit, node.inputs[0])
    out_rows, out_columns, outputs = image(unit, node.output)
    fields: dict[str, Value] = {
        "scaling": scaling.scaling(unit, node, node.bias),
        "kernel": unit.array(node.kernel.astype(np.int8), "kernel"),
        "rows": rows,
        "columns": columns,
        "channels": channels,
        "out_rows": out_rows,
        "out_columns": out_columns,
        "outputs": outputs,
        "taps_down": node.kernel.shape[1],
        "taps_across": node.kernel.shape[2],
        "stride_down": node.stride[0],
        "stride_across": node.stride[1],
        "top": node.pad[0],
        "left": node.pad[1],
        "offset": node.input_offset,
    }
    struct = unit.struct("transposed", fields)
    return f"transposed({struct}, {unit.bytes(node.inputs[0])}, {unit.bytes(node.output)});"
