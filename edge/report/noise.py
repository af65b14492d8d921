"""Signal-to-quantisation-noise of each layer: the float model against the exported one.

Signal and noise are sums over rows, so clients can measure them on their own rows and send two
numbers a layer, which a server adds up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedsys.edge.integers.program import Program
from fedsys.edge.report.measure import Powers, added, powers, ratio, short_name

BLOCK = 16
"""Rows whose activations are held at once."""


def measured(float_model: bytes, program: Program, rows: np.ndarray) -> Powers:
    """Signal and noise of the tensors that both models know by name, over some rows.

    rows: [n, ...] float32, as the float model reads them.
    """
    from fedsys.edge.calibration.ranges import traced
    from fedsys.edge.integers.evaluate import real, stored
    from fedsys.edge.integers.executor import trace

    model = program.model
    (number,) = model.inputs
    entry = model.tensors[number]
    known = counterparts(float_model, program)
    parts = []
    for low in range(0, len(rows), BLOCK):
        block = rows[low : low + BLOCK]
        exported = trace(program, [stored(block, entry)])
        values = {
            known[n]: real(array, model.tensors[n]) for n, array in exported.items() if n in known
        }
        for row, floats in enumerate(traced(float_model, block)):
            parts.append(powers(floats, {name: array[row] for name, array in values.items()}))
    return added(parts)


def counterparts(float_model: bytes, program: Program) -> dict[int, str]:
    """Number of a tensor -> the name of the float model's tensor that it is the image of.

    Names of layers are the same but for what a training wrapped around them.
    """
    from fedsys.edge.calibration.ranges import activations

    names = activations(float_model)
    found = {}
    for tensor in program.model.tensors:
        short = short_name(tensor.name)
        for name in (tensor.name, short, short.split("/")[0]):
            if name in names and not tensor.constant:
                found[tensor.index] = name
                break
    return found


def decibels(float_model: bytes, program: Program, clients: Sequence[Powers]) -> dict[int, float]:
    """Number of a tensor -> its signal-to-noise in dB, over what all clients sent."""
    total: Mapping[str, tuple[float, float]] = added(clients)
    known = counterparts(float_model, program)
    return {number: ratio(*total[name]) for number, name in known.items() if name in total}
