"""What one kind of layer is: its options, and what it makes of sizes.

Shapes are those of one row, without the batch. A function raises ValueError for what does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsys.trust.architecture.layer_options import (
    ACTIVATIONS,
    Flag,
    Initializer,
    Maybe,
    Option,
    Whole,
    Word,
)

Shape = tuple[int, ...]
Options = Mapping[str, Any]
Shapes = Sequence[Shape]


@dataclass(frozen=True)
class Kind:
    """One kind of layer.

    options: what it takes. shape: (options, shapes of inputs) -> shape of the output.
    parameters: (options, shapes of inputs) -> all its numbers, trainable or not.
    merges: whether it takes several inputs.
    """

    options: Mapping[str, Option]
    shape: Callable[[Options, Shapes], Shape]
    parameters: Callable[[Options, Shapes], int] = lambda options, shapes: 0
    merges: bool = False


# --- options that many have ----------------------------------------------------------------------

ACTIVATION, INITIALIZER, FORMAT = Word(ACTIVATIONS), Initializer(), Word(("channels_last",))
SEED = Maybe(Whole(0, 2**31 - 1))
PADDING, CAUSAL = Word(("valid", "same")), Word(("valid", "same", "causal"))
KERNEL: Mapping[str, Option] = {
    "activation": ACTIVATION, "use_bias": Flag(),
    "kernel_initializer": INITIALIZER, "bias_initializer": INITIALIZER,
}  # fmt: skip
DEPTHWISE: Mapping[str, Option] = {
    "activation": ACTIVATION, "use_bias": Flag(), "depth_multiplier": Whole(),
    "depthwise_initializer": INITIALIZER, "bias_initializer": INITIALIZER,
}  # fmt: skip


def one_input(shapes: Shapes, rank: int | None = None) -> Shape:
    """The only input's shape, of so many dimensions."""
    (shape,) = shapes
    if rank is not None and len(shape) != rank:
        raise ValueError(f"reads rows of {rank} dimensions, not {len(shape)}")
    return shape
