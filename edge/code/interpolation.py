"""C of images resized between their pixels: Interpolate."""

from __future__ import annotations

from fedsys.edge.code.unit import Unit
from fedsys.edge.integers.program import Interpolate

INTERPOLATE = """
/* Rows and columns: the first pixel, the second, and its weight in 1024ths. */
static void interpolate(const int8_t *x, int8_t *y, const int16_t *rows, int32_t row_count,
    const int16_t *columns, int32_t column_count, int32_t width, int32_t depth)
{
    for (int32_t i = 0; i < row_count; i++) {
        const int8_t *above = x + rows[3 * i] * width * depth;
        const int8_t *below = x + rows[3 * i + 1] * width * depth;
        const int32_t down = rows[3 * i + 2];
        for (int32_t j = 0; j < column_count; j++) {
            const int32_t left = columns[3 * j] * depth;
            const int32_t right = columns[3 * j + 1] * depth;
            const int32_t across = columns[3 * j + 2];
            for (int32_t k = 0; k < depth; k++) {
                const int32_t top = above[left + k] * (1024 - across) + above[right + k] * across;
                const int32_t low = below[left + k] * (1024 - across) + below[right + k] * across;
                const int32_t sum = top * (1024 - down) + low * down;
                *y++ = (int8_t)((sum + (sum > 0 ? 1 << 19 : -(1 << 19))) / (1 << 20));
            }
        }
    }
}
"""


def interpolate(unit: Unit, node: Interpolate) -> str:
    """The call of an Interpolate."""
    unit.function("interpolate", INTERPOLATE)
    width, depth = unit.tensor(node.inputs[0]).shape[-2:]
    source, target = unit.bytes(node.inputs[0]), unit.bytes(node.output)
    return (
        f"interpolate({source}, {target}, {unit.array(node.rows, 'places')}, {len(node.rows)}, "
        f"{unit.array(node.columns, 'places')}, {len(node.columns)}, {width}, {depth});"
    )
