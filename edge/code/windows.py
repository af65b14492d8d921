"""C of windows that slide over an image: shared by convolutions and pooling."""

from __future__ import annotations

import textwrap

from fedsys.edge.code.unit import Unit, Value

WINDOW = """
/* How a window slides over an image of [rows, columns, channels]. */
struct window {
    int32_t visitor; /* what is done at each place: see `visit` */
    int32_t rows, columns;
    int32_t row_pitch, column_pitch; /* bytes from one row, one column of the image to the next */
    int32_t out_rows, out_columns, out_pitch;
    int32_t taps_down, taps_across;
    int32_t stride_down, stride_across;
    int32_t dilation_down, dilation_across;
    int32_t row_step, column_step; /* bytes from one tap to the next */
    int32_t top, left; /* of the padding */
};

/* What of a window lies inside the image: taps from `row`, `column` on, `down` by `across` of them.
   x: the first of them in the image. */
struct view {
    const int8_t *x;
    int32_t row, column, down, across;
};

/* Of taps that lie `step` apart from `at` on, skip those before the image; count those inside.
   Returns the position of the first. */
static int32_t clip(
    int32_t at, int32_t step, int32_t taps, int32_t size, int32_t *first, int32_t *count)
{
    int32_t skipped = 0;
    for (; at < 0; at += step) {
        skipped++;
    }
    *first = skipped;
    *count = 0;
    for (int32_t end = at; skipped < taps && end < size; end += step) {
        skipped++;
        ++*count;
    }
    return at;
}

static SHARED void slide(const struct window *w, const int8_t *x, int8_t *y);
"""

# No pointers to functions, so that tools can tell how deep the stack gets.
VISIT = """
static INLINE void visit(const struct window *w, const struct view *v, int8_t *y)
{{
{body}
}}
"""

SLIDE = """
/* Visit every output pixel: borders are cut off here, so that no visitor tests for them. */
static SHARED void slide(const struct window *w, const int8_t *x, int8_t *y)
{
    struct view v;
    for (int32_t i = 0; i < w->out_rows; i++) {
        const int32_t top = clip(i * w->stride_down - w->top, w->dilation_down, w->taps_down,
            w->rows, &v.row, &v.down);
        for (int32_t j = 0; j < w->out_columns; j++) {
            const int32_t left = clip(j * w->stride_across - w->left, w->dilation_across,
                w->taps_across, w->columns, &v.column, &v.across);
            v.x = x + (top * w->row_pitch + left * w->column_pitch);
            visit(w, &v, y);
            y += w->out_pitch;
        }
    }
}
"""


def define_windows(unit: Unit) -> None:
    """Define `struct window` and `struct view`, and announce `slide`."""
    unit.function("windows", WINDOW)


def finish_windows(unit: Unit) -> None:
    """Define `slide`, once all its visitors are known."""
    if not unit.visitors:
        return
    *others, last = [f"{name}(w, v, y);" for name in unit.visitors]
    body = "".join(
        f"if (w->visitor == {number}) {{\n    {call}\n}} else "
        for number, call in enumerate(others)
    )
    body += f"{{\n    {last}\n}}" if others else last
    unit.function("visit", VISIT.format(body=textwrap.indent(body, "    ")))
    unit.function("slide", SLIDE)


def window(
    unit: Unit,
    visitor: str,
    image: tuple[int, int, int],
    output: tuple[int, int, int],
    taps: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilation: tuple[int, int] = (1, 1),
) -> dict[str, Value]:
    """The fields of `struct window`.

    visitor: the function called for each output pixel. image, output: (rows, columns, channels).
    """
    if visitor not in unit.visitors:
        unit.visitors.append(visitor)
    rows, columns, channels = image
    return {
        "visitor": unit.visitors.index(visitor),
        "rows": rows,
        "columns": columns,
        "row_pitch": columns * channels,
        "column_pitch": channels,
        "out_rows": output[0],
        "out_columns": output[1],
        "out_pitch": output[2],
        "taps_down": taps[0],
        "taps_across": taps[1],
        "stride_down": stride[0],
        "stride_across": stride[1],
        "dilation_down": dilation[0],
        "dilation_across": dilation[1],
        "row_step": dilation[0] * columns * channels,
        "column_step": dilation[1] * channels,
        "top": pad[0],
        "left": pad[1],
    }


def image(unit: Unit, number: int) -> tuple[int, int, int]:
    """(rows, columns, channels) of a tensor of one image."""
    rows, columns, channels = unit.tensor(number).shape[-3:]
    return rows, columns, channels
