"""Names of tensors in a converted model: those of the layers that they come from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from fedsys.edge.tflite.flatbuffer import text

MARK = ".."
"""Put behind a layer's name while TensorFlow sees it, which then appends what it likes."""


def rename(made: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Names every tensor after its layer, each differently."""
    graph = made.subgraphs[0]
    _order(made)
    wanted: dict[int, str] = {}
    for numbers, names in ((graph.inputs, inputs), (graph.outputs, outputs)):
        if len(numbers) == len(names):
            wanted |= dict(zip((int(number) for number in numbers), names, strict=True))
    taken: set[str] = set()
    computed = [int(number) for operator in graph.operators for number in operator.outputs]
    for number in dict.fromkeys([*wanted, *computed, *range(len(graph.tensors))]):
        tensor = graph.tensors[number]
        name = wanted.get(number) or _layer_name(text(tensor.name))
        free, count = name, 1
        while free in taken:
            free, count = f"{name}_{count}", count + 1
        taken.add(free)
        tensor.name = free.encode()


def _order(made: Any) -> None:
    """Puts inputs and outputs into the order of the Keras model, which only the signature knows:
    `args_0`, `args_0_1`, ... and `output_0`, `output_1`, ..."""
    graph = made.subgraphs[0]
    for signature in made.signatureDefs or ():
        for end, entries in (("inputs", signature.inputs), ("outputs", signature.outputs)):
            found = {int(entry.tensorIndex): text(entry.name) for entry in entries}
            numbered = [re.fullmatch(r"(?:args_0|output)_?(\d*)", name) for name in found.values()]
            if sorted(found) == sorted(map(int, getattr(graph, end))) and all(numbered):
                places = [int(match[1] or 0) for match in numbered if match]
                order = [number for _, number in sorted(zip(places, found, strict=True))]
                setattr(graph, end, np.array(order, np.int32))


def _layer_name(name: str) -> str:
    """`net.._1/conv.._1/Relu;net.._1/conv.._1/convolution1` as `conv/Relu`."""
    first = name.split(";")[0]
    if MARK not in first:
        return first or "tensor"
    parts = re.sub(rf"{re.escape(MARK)}(_\d+)?", "", first).split("/")
    path = "/".join(parts[1:]) or parts[0]
    # The converter tells two tensors of an operator apart by a digit: not that of ReLU6.
    told = re.fullmatch(r"(.*?Relu6|.*?[A-Za-z])\d*", path)
    return told[1] if told else path
