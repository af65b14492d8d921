"""Signal-to-quantisation-noise of each layer: the float model against the exported one.

Signal and noise are sums over rows, so clients can measure them on their own rows and send two
numbers a layer, which a server adds up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedsys.edge.program import Program
from fedsys.edge.report.measure import Powers, added, powers, ratio

BLOCK = 16
"""Rows whose activations are held at once."""


def measured(float_model: bytes, program: Program, rows: np.ndarray) -> Powers:
    """Signal and noise of the tensors that both models know by name, over some rows.

    rows: [n, ...] float32, as the float model reads them.
    """
    from fedsys.edge.evaluate import real, stored
    from fedsys.edge.executor import trace
    from fedsys.edge.ranges import traced

    model = program.model
    (number,) = model.inputs
    entry = model.tensors[number]
    parts = []
    for low in range(0, len(rows), BLOCK):
        block = rows[low : low + BLOCK]
        exported = trace(program, [stored(block, entry)])
        values = {
            model.tensors[n].name: real(array, model.tensors[n]) for n, array in exported.items()
        }
        for row, floats in enumerate(traced(float_model, block)):
            parts.append(powers(floats, {name: array[row] for name, array in values.items()}))
    return added(parts)


def decibels(program: Program, clients: Sequence[Powers]) -> dict[int, float]:
    """Number of a tensor -> its signal-to-noise in dB, over what all clients sent."""
    total: Mapping[str, tuple[float, float]] = added(clients)
    return {
        tensor.index: ratio(*total[tensor.name])
        for tensor in program.model.tensors
        if tensor.name in total
    }
