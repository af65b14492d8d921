"""C of fixed-point scaling: what integers/fixed.py is in NumPy, and words of four bytes at once."""

from __future__ import annotations

import numpy as np

from fedsys.edge.code.unit import Unit, Value
from fedsys.edge.integers.program import (
    Convolution,
    DepthwiseConvolution,
    FullyConnected,
    TransposedConvolution,
)

Weighted = Convolution | DepthwiseConvolution | FullyConnected | TransposedConvolution

HIGH_PRODUCT = """
/* a * b / 2^31, rounded to nearest, halves up. The reference rounds halves away from zero and then
   divides towards zero with a nudge of 1 - 2^30 for negative products: the same value. b is never
   the smallest integer, so nothing saturates. */
static INLINE int32_t high_product(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}
"""

ROUNDED_SHIFT = """
/* x / 2^exponent, rounded to nearest, halves away from zero. */
static INLINE int32_t rounded_shift(int32_t x, int32_t exponent)
{
    const int32_t mask = (int32_t)(((uint32_t)1 << exponent) - 1);
    return (x >> exponent) + ((x & mask) > (mask >> 1) + (x < 0));
}
"""

SCALED = """
/* x * multiplier / 2^31 * 2^shift: the product and the shift round one after the other
   (Jacob et al. 2018, section 2.2). */
static int32_t scaled(int32_t x, int32_t multiplier, int32_t shift)
{
    const int32_t left = shift > 0 ? shift : 0;
    return rounded_shift(
        high_product((int32_t)((uint32_t)x << left), multiplier), left - shift);
}
"""

LIMITED = """
static INLINE int8_t limited(int32_t x, int32_t low, int32_t high)
{
    x = x < low ? low : x;
    return (int8_t)(x > high ? high : x);
}
"""

STORED = """
/* x + offset, limited; x may be any int32. */
static INLINE int8_t stored(int32_t x, int32_t offset, int32_t low, int32_t high)
{
    x = x < low - offset ? low - offset : x;
    x = x > high - offset ? high - offset : x;
    return (int8_t)(x + offset);
}
"""

STRUCT = """
/* From sums to stored values, for each output channel. */
struct scaling {
    const int32_t *bias;
    const int32_t *multiplier;
    const int8_t *shift;
    int32_t offset, low, high;
};
"""

FINISHED = """
static int8_t finished(const struct scaling *s, int32_t sum, int32_t channel)
{
    const int32_t x = scaled(sum, s->multiplier[channel], s->shift[channel]);
    return stored(x, s->offset, s->low, s->high);
}
"""

# Every factor is below a half and every sum below 2^30: two roundings in a few instructions.
FINISHED_SMALL = """
/* Every factor of this model is below a half and every sum below 2^30: `shift` holds how far to the
   right, less one, and the last bit is shifted out after the rounding. */
static int8_t finished(const struct scaling *s, int32_t sum, int32_t channel)
{
    int32_t x = HIGH_PRODUCT_SMALL(sum, s->multiplier[channel]);
    x = (x + (x >> 31)) >> s->shift[channel];
    return limited(((x + 1) >> 1) + s->offset, s->low, s->high);
}
"""

FINISHED_FULL = """
/* Every factor of this model is below a half and every sum below 2^30: `shift` holds how far to the
   right, less one, and the last bit is shifted out after the rounding. No result has closer limits
   than int8. */
static int8_t finished(const struct scaling *s, int32_t sum, int32_t channel)
{
    int32_t x = HIGH_PRODUCT_SMALL(sum, s->multiplier[channel]);
    x = (x + (x >> 31)) >> s->shift[channel];
    return HALF_LIMITED(x + (2 * s->offset + 1));
}
"""

HALF_LIMITED = """
#ifdef DSP_INSTRUCTIONS
static INLINE int8_t half_limited(int32_t x)
{
    int32_t result;
    __asm__("ssat %0, #8, %1, asr #1" : "=r"(result) : "r"(x));
    return (int8_t)result;
}
#define HALF_LIMITED(x) half_limited(x)
#else
#define HALF_LIMITED(x) limited((x) >> 1, -128, 127)
#endif
"""

HIGH_PRODUCT_SMALL = """
#ifdef DSP_INSTRUCTIONS
static INLINE int32_t rounded_top(int32_t a, int32_t b)
{
    int32_t result;
    __asm__("smmulr %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
}
#define HIGH_PRODUCT_SMALL(a, b) rounded_top(2 * (a), b)
#else
#define HIGH_PRODUCT_SMALL(a, b) high_product(a, b)
#endif
"""

WORDS = """
#ifdef FAST
/* Four stored values in a word, two 16-bit halves in a word, and products of halves. */
static INLINE uint32_t word(const int8_t *x)
{
    uint32_t value;
    memcpy(&value, x, sizeof value);
    return value;
}
#ifdef DSP_INSTRUCTIONS
/* Bytes 0 and 2 as halves. */
static INLINE uint32_t even(uint32_t x)
{
    uint32_t result;
    __asm__ volatile("sxtb16 %0, %1" : "=r"(result) : "r"(x));
    return result;
}
/* Bytes 1 and 3 as halves. */
static INLINE uint32_t odd(uint32_t x)
{
    uint32_t result;
    __asm__ volatile("sxtb16 %0, %1, ror #8" : "=r"(result) : "r"(x));
    return result;
}
/* The same, plus a pair of halves. */
static INLINE uint32_t even_plus(uint32_t pair, uint32_t x)
{
    uint32_t result;
    __asm__ volatile("sxtab16 %0, %1, %2" : "=r"(result) : "r"(pair), "r"(x));
    return result;
}
static INLINE uint32_t odd_plus(uint32_t pair, uint32_t x)
{
    uint32_t result;
    __asm__ volatile("sxtab16 %0, %1, %2, ror #8" : "=r"(result) : "r"(pair), "r"(x));
    return result;
}
/* sum + both products of halves; the product of the low halves; of the high ones. */
static INLINE int32_t add_both(int32_t sum, uint32_t a, uint32_t b)
{
    __asm__ volatile("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}
static INLINE int32_t add_low(int32_t sum, uint32_t a, uint32_t b)
{
    __asm__ volatile("smlabb %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}
static INLINE int32_t add_high(int32_t sum, uint32_t a, uint32_t b)
{
    __asm__ volatile("smlatt %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}
#else
static INLINE int32_t half(uint32_t x)
{
    return (int16_t)(uint16_t)x;
}
static INLINE uint32_t pair(int32_t low, int32_t high)
{
    return (uint32_t)(uint16_t)low | (uint32_t)(uint16_t)high << 16;
}
static INLINE uint32_t even(uint32_t x)
{
    return pair((int8_t)(uint8_t)x, (int8_t)(uint8_t)(x >> 16));
}
static INLINE uint32_t odd(uint32_t x)
{
    return even(x >> 8);
}
static INLINE uint32_t even_plus(uint32_t two, uint32_t x)
{
    return pair(half(two) + half(even(x)), half(two >> 16) + half(even(x) >> 16));
}
static INLINE uint32_t odd_plus(uint32_t two, uint32_t x)
{
    return even_plus(two, x >> 8);
}
static INLINE int32_t add_low(int32_t sum, uint32_t a, uint32_t b)
{
    return sum + half(a) * half(b);
}
static INLINE int32_t add_high(int32_t sum, uint32_t a, uint32_t b)
{
    return sum + half(a >> 16) * half(b >> 16);
}
static INLINE int32_t add_both(int32_t sum, uint32_t a, uint32_t b)
{
    return add_high(add_low(sum, a, b), a, b);
}
#endif
#endif
"""


def define_scaled(unit: Unit) -> None:
    """Define `scaled` and `stored`."""
    unit.function("high_product", HIGH_PRODUCT)
    unit.function("rounded_shift", ROUNDED_SHIFT)
    unit.function("scaled", SCALED)
    unit.function("stored", STORED)


def define_finished(unit: Unit) -> None:
    """Define `struct scaling` and `finished`."""
    unit.function("struct scaling", STRUCT)
    if small(unit):
        unit.function("high_product", HIGH_PRODUCT)
        unit.function("high_product_small", HIGH_PRODUCT_SMALL)
        unit.function("limited", LIMITED)
        if full(unit):
            unit.function("half_limited", HALF_LIMITED)
        unit.function("finished", FINISHED_FULL if full(unit) else FINISHED_SMALL)
    else:
        define_scaled(unit)
        unit.function("finished", FINISHED)


def define_words(unit: Unit) -> None:
    """Define what works on four bytes at once, in the variant for the DSP extension."""
    unit.function("words", WORDS)


def scaling(unit: Unit, node: Weighted, bias: np.ndarray) -> dict[str, Value]:
    """The fields of `struct scaling` of a node, with the bias given."""
    shift = -1 - _shift(node) if small(unit) else _shift(node)
    return {
        "bias": unit.array(bias.astype(np.int32), "bias"),
        "multiplier": unit.array(node.multiplier.astype(np.int32), "multiplier"),
        "shift": unit.array(shift.astype(np.int8), "shift"),
        "offset": node.output_offset,
        "low": node.low,
        "high": node.high,
    }


def small(unit: Unit) -> bool:
    """Whether all factors are below a half and all sums below 2^30."""
    return all(_small(node) for node in unit.program.nodes if isinstance(node, Weighted))


def full(unit: Unit) -> bool:
    """Whether no node with weights has closer limits than int8."""
    weighted = [node for node in unit.program.nodes if isinstance(node, Weighted)]
    return all((node.low, node.high) == (-128, 127) for node in weighted)


def _small(node: Weighted) -> bool:
    # A sum begins with the bias and takes one product after the other, in any order. Where the
    # offset is folded into the bias, a missing product counts as that of the stored value zero.
    channels = 2 if isinstance(node, DepthwiseConvolution) else 0
    kernel = np.moveaxis(np.abs(node.kernel.astype(np.int64)), channels, 0)
    largest = max(abs(-128 + node.input_offset), abs(127 + node.input_offset))
    reach = np.abs(node.bias.astype(np.int64)) + largest * kernel.reshape(len(kernel), -1).sum(1)
    shift = _shift(node)
    return bool((shift <= -1).all() and (shift >= -31).all() and (reach < 2**30).all())


def _shift(node: Weighted) -> np.ndarray:
    """Shifts; where the multiplier is zero any will do."""
    return np.where(node.multiplier == 0, -1, node.shift).astype(np.int64)
