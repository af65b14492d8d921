"""C of matrix products and of what is made of them: FullyConnected and Convolution.

One kernel multiplies rows of numbers by a matrix. A pointwise convolution is that alone; any other
first gathers the patch that its kernel sees, with the input's zero point outside the image. So the
input's offset can be folded into the bias.
"""

from __future__ import annotations

import numpy as np

from fedsys.edge.code import scaling
from fedsys.edge.code.arena import pointwise
from fedsys.edge.code.unit import Unit, Value
from fedsys.edge.code.windows import define_windows, image, window
from fedsys.edge.integers.program import Convolution, DepthwiseConvolution, FullyConnected, Node

DENSE = """
/* `outputs` sums of `depth` products for each row; output rows lie `pitch` apart.
   The input's offset is in the bias. */
struct dense {
    struct scaling scaling;
    const int8_t *kernel;
    int32_t depth, outputs, pitch;
};

#ifdef FAST
static INLINE int32_t dot(const int8_t *x, const int8_t *w, int32_t depth, int32_t sum)
{
    const int8_t *const words = x + (depth & ~3);
    const int8_t *const end = x + depth;
    while (x != words) {
        const uint32_t a = word(x);
        const uint32_t b = word(w);
        sum = add_both(sum, even(a), even(b));
        sum = add_both(sum, odd(a), odd(b));
        x += 4;
        w += 4;
    }
    while (x != end) {
        sum += *x++ * *w++;
    }
    return sum;
}

/* Two rows of x by two rows of w: every word that is loaded is used twice. Second rows are loaded
   first, so that two pointers do for four rows. */
static INLINE void dot_two_by_two(const int8_t *x, const int8_t *w, int32_t depth, int32_t *sums)
{
    const int8_t *const words = x + (depth & ~3);
    const int8_t *const end = x + depth;
    int32_t s0 = sums[0];
    int32_t s1 = sums[1];
    int32_t s2 = sums[2];
    int32_t s3 = sums[3];
    while (x != words) {
        uint32_t b = word(x + depth);
        uint32_t a = word(x);
        x += 4;
        const uint32_t b0 = even(b);
        const uint32_t a0 = even(a);
        b = odd(b);
        a = odd(a);
        uint32_t c = word(w + depth);
        uint32_t c0 = even(c);
        s1 = add_both(s1, a0, c0);
        s3 = add_both(s3, b0, c0);
        c = odd(c);
        s1 = add_both(s1, a, c);
        s3 = add_both(s3, b, c);
        c = word(w);
        w += 4;
        c0 = even(c);
        s0 = add_both(s0, a0, c0);
        s2 = add_both(s2, b0, c0);
        c = odd(c);
        s0 = add_both(s0, a, c);
        s2 = add_both(s2, b, c);
    }
    while (x != end) {
        s2 += x[depth] * *w;
        s3 += x[depth] * w[depth];
        s1 += *x * w[depth];
        s0 += *x++ * *w++;
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

/* One row of x by four rows of w. */
static INLINE void dot_four(const int8_t *x, const int8_t *w, int32_t depth, int32_t *sums)
{
    const int8_t *w1 = w + depth;
    const int8_t *w2 = w1 + depth;
    const int8_t *w3 = w2 + depth;
    const int8_t *const words = x + (depth & ~3);
    const int8_t *const end = x + depth;
    int32_t s0 = sums[0];
    int32_t s1 = sums[1];
    int32_t s2 = sums[2];
    int32_t s3 = sums[3];
    while (x != words) {
        const uint32_t a = word(x);
        const uint32_t a0 = even(a);
        const uint32_t a1 = odd(a);
        uint32_t c = word(w);
        s0 = add_both(add_both(s0, a0, even(c)), a1, odd(c));
        c = word(w1);
        s1 = add_both(add_both(s1, a0, even(c)), a1, odd(c));
        c = word(w2);
        s2 = add_both(add_both(s2, a0, even(c)), a1, odd(c));
        c = word(w3);
        s3 = add_both(add_both(s3, a0, even(c)), a1, odd(c));
        x += 4;
        w += 4;
        w1 += 4;
        w2 += 4;
        w3 += 4;
    }
    while (x != end) {
        s0 += *x * *w++;
        s1 += *x * *w1++;
        s2 += *x * *w2++;
        s3 += *x++ * *w3++;
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

static SHARED void dense(const struct dense *d, const int8_t *x, int8_t *y, int32_t rows)
{
    const struct scaling *const s = &d->scaling;
    const int32_t depth = d->depth;
    const int32_t twos = d->outputs & ~1;
    const int32_t fours = d->outputs & ~3;
    const int32_t pitch = d->pitch;
    for (; rows >= 2; rows -= 2) {
        const int8_t *w = d->kernel;
        int8_t *to = y;
        int32_t o = 0;
        for (; o < twos; o += 2) {
            int32_t sums[4] = {s->bias[o], s->bias[o + 1], s->bias[o], s->bias[o + 1]};
            dot_two_by_two(x, w, depth, sums);
            const int8_t a = finished(s, sums[0], o);
            const int8_t b = finished(s, sums[1], o + 1);
            const int8_t c = finished(s, sums[2], o);
            const int8_t e = finished(s, sums[3], o + 1);
            to[0] = a;
            to[1] = b;
            to[pitch] = c;
            to[pitch + 1] = e;
            w += 2 * depth;
            to += 2;
        }
        if (o < d->outputs) {
            to[0] = finished(s, dot(x, w, depth, s->bias[o]), o);
            to[pitch] = finished(s, dot(x + depth, w, depth, s->bias[o]), o);
        }
        x += 2 * depth;
        y += 2 * pitch;
    }
    if (rows) {
        const int8_t *w = d->kernel;
        int32_t o = 0;
        for (; o < fours; o += 4) {
            int32_t sums[4] = {s->bias[o], s->bias[o + 1], s->bias[o + 2], s->bias[o + 3]};
            dot_four(x, w, depth, sums);
            for (int32_t i = 0; i < 4; i++) {
                *y++ = finished(s, sums[i], o + i);
            }
            w += 4 * depth;
        }
        for (; o < d->outputs; o++) {
            *y++ = finished(s, dot(x, w, depth, s->bias[o]), o);
            w += depth;
        }
    }
}
#else
static SHARED void dense(const struct dense *d, const int8_t *x, int8_t *y, int32_t rows)
{
    for (; rows > 0; rows--) {
        const int8_t *w = d->kernel;
        for (int32_t o = 0; o < d->outputs; o++) {
            int32_t sum = d->scaling.bias[o];
            for (int32_t i = 0; i < d->depth; i++) {
                sum += x[i] * *w++;
            }
            y[o] = finished(&d->scaling, sum, o);
        }
        x += d->depth;
        y += d->pitch;
    }
}
#endif
"""

FILL = """
/* Fill `count` bytes, at least one, with copies of the `size` bytes at `item`. */
static void fill(int8_t *y, const void *item, int32_t size, int32_t count)
{
    memcpy(y, item, (size_t)size);
    for (int32_t done = size; done < count; done *= 2) {
        memcpy(y + done, y, (size_t)(done <= count - done ? done : count - done));
    }
}
"""

CONVOLUTION = """
/* A convolution that sees `part` of the image's channels. */
struct convolution {
    struct window window;
    struct dense dense;
    int8_t *patch; /* room for two */
    int32_t part, line; /* bytes of a tap, of a row of taps */
    int8_t zero; /* what stands for zero in the input */
#ifdef FAST
    int8_t **waiting; /* where the sums of a patch go that waits for a second one */
#endif
};

/* Gather what the kernel sees, and multiply it. */
static void gather(const struct window *w, const struct view *v, int8_t *y)
{
    const struct convolution *const c = (const struct convolution *)w;
    const int32_t depth = c->dense.depth;
    int8_t *patch = c->patch;
    int32_t pieces = v->across;
    int32_t run = c->part;
#ifdef FAST
    if (*c->waiting) {
        patch += depth;
    }
    if (run == w->column_step) {
        run *= pieces;
        pieces = 1;
    }
#endif
    if (v->down * v->across * c->part != depth) {
        fill(patch, &c->zero, 1, depth);
    }
    int8_t *line = patch + v->row * c->line + v->column * c->part;
    const int8_t *row = v->x;
    for (int32_t i = v->down; i > 0; i--) {
        int8_t *to = line;
        const int8_t *x = row;
        for (int32_t j = pieces; j > 0; j--) {
            memcpy(to, x, (size_t)run);
            to += run;
            x += w->column_step;
        }
        line += c->line;
        row += w->row_step;
    }
#ifdef FAST
    if (*c->waiting) {
        dense(&c->dense, c->patch, *c->waiting, 2);
        *c->waiting = NULL;
    } else {
        *c->waiting = y;
    }
#else
    dense(&c->dense, patch, y, 1);
#endif
}

static void convolution(const struct convolution *c, const int8_t *x, int8_t *y)
{
#ifdef FAST
    int8_t *waiting = NULL;
    struct convolution running = *c;
    running.waiting = &waiting;
    slide(&running.window, x, y);
    if (waiting) {
        dense(&c->dense, c->patch, waiting, 1);
    }
#else
    slide(&c->window, x, y);
#endif
}
"""

GROUPED = """
/* One convolution after the other, each of `part` channels. */
static void grouped(const struct convolution *c, const int8_t *x, int8_t *y)
{
    struct convolution group = *c;
    struct dense *const d = &group.dense;
    for (int32_t done = 0; done < d->pitch; done += d->outputs) {
        convolution(&group, x, y);
        x += group.part;
        y += d->outputs;
        d->kernel += d->outputs * d->depth;
        d->scaling.bias += d->outputs;
        d->scaling.multiplier += d->outputs;
        d->scaling.shift += d->outputs;
    }
}
"""


def define_fill(unit: Unit) -> None:
    """Define `fill`."""
    unit.function("fill", FILL)


def fully_connected(unit: Unit, node: FullyConnected) -> str:
    """The call of a FullyConnected."""
    return _dense_call(unit, node, node.rows)


def convolution(unit: Unit, node: Convolution, owner: Node | None = None) -> str:
    """The call of a Convolution. owner: the program's node that it was made of, if it was."""
    if pointwise(unit.program, node):
        rows, columns, _ = image(unit, node.output)
        return _dense_call(unit, node, rows * columns)
    _define_dense(unit)
    define_windows(unit)
    define_fill(unit)
    unit.function("convolution", CONVOLUTION)
    seen = image(unit, node.inputs[0])
    _, taps_down, taps_across, part = node.kernel.shape
    groups = seen[2] // part
    if groups > 1:
        unit.function("grouped", GROUPED)
    fields: dict[str, Value] = {
        "window": window(
            unit,
            "gather",
            seen,
            image(unit, node.output),
            (taps_down, taps_across),
            node.stride,
            node.pad,
            node.dilation,
        ),
        "dense": _dense(unit, node, groups),
        "patch": unit.scratch(owner or node),
        "part": part,
        "line": taps_across * part,
        "zero": -node.input_offset,
    }
    call = f"{'grouped' if groups > 1 else 'convolution'}({unit.struct('convolution', fields)}"
    return f"{call}, {unit.bytes(node.inputs[0])}, {unit.bytes(node.output)});"


def from_depthwise(node: DepthwiseConvolution) -> Convolution:
    """The convolution that a depthwise one of a single channel is."""
    return Convolution(
        node.operator,
        node.inputs,
        node.output,
        kernel=np.ascontiguousarray(np.moveaxis(node.kernel, 2, 0))[..., None],
        bias=node.bias,
        multiplier=node.multiplier,
        shift=node.shift,
        stride=node.stride,
        dilation=node.dilation,
        pad=node.pad,
        input_offset=node.input_offset,
        output_offset=node.output_offset,
        low=node.low,
        high=node.high,
    )


def folded_bias(node: Convolution | FullyConnected) -> np.ndarray:
    """[out] int64, bias + input offset times the sum of the kernel: for inputs as stored.

    It stays within int32 where no sum leaves int32: it is the sum for inputs stored as zero.
    """
    kernel = node.kernel.astype(np.int64).reshape(len(node.kernel), -1)
    return node.bias.astype(np.int64) + node.input_offset * kernel.sum(axis=1)


def _define_dense(unit: Unit) -> None:
    scaling.define_finished(unit)
    scaling.define_words(unit)
    unit.function("dense", DENSE)


def _dense(unit: Unit, node: Convolution | FullyConnected, groups: int = 1) -> dict[str, Value]:
    outputs = len(node.kernel)
    return {
        "scaling": scaling.scaling(unit, node, folded_bias(node)),
        "kernel": unit.array(node.kernel.astype(np.int8), "kernel"),
        "depth": int(np.prod(node.kernel.shape[1:])),
        "outputs": outputs // groups,
        "pitch": outputs,
    }


def _dense_call(unit: Unit, node: Convolution | FullyConnected, rows: int) -> str:
    _define_dense(unit)
    struct = unit.struct("dense", _dense(unit, node))
    return f"dense({struct}, {unit.bytes(node.inputs[0])}, {unit.bytes(node.output)}, {rows});"
