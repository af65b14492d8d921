"""Golden vectors: inputs, and what the reference executor makes of them, layer by layer.

An input is a number everywhere (zeros, the lowest, the highest), drawn from a small generator that
C repeats (xorshift32, Marsaglia 2003), or a real row. Each layer's result is kept as the CRC-32 of
its bytes, little-endian, as all targets have them.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedsys.edge.integers.executor import trace
from fedsys.edge.integers.program import Program
from fedsys.edge.tflite.model import Quantization, Tensor
from fedsys.errors import DataError, StorageError

RANDOM = 4
"""Random vectors."""
ROWS = 4
"""Real rows that are taken of those given."""
FLOAT_STEP = np.float32(1 / 32)
"""An input of floats is an int8 times this: exact in every arithmetic."""

_EXTREMES = {
    "zeros": {"int8": 0, "int16": 0, "float32": 0},
    "lowest": {"int8": -128, "int16": -32768, "float32": -128},
    "highest": {"int8": 127, "int16": 32767, "float32": 127},
}


@dataclass(frozen=True, eq=False)
class Vector:
    """One row for every input of the model.

    kind: "fill", "random" or "row". seeds: for each input, the number that fills it (of floats: in
    steps of 1/32), or the seed of its draws. inputs: for each input, its numbers, flat.
    """

    name: str
    kind: str
    seeds: tuple[int, ...]
    inputs: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Layer:
    """What a node writes: its tensor's number, name and bytes, and a checksum for each vector."""

    tensor: int
    name: str
    operator: str
    bytes: int
    checks: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Golden:
    """Vectors and what the reference makes of them. outputs: of each output [vectors, size]."""

    vectors: tuple[Vector, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[np.ndarray, ...]

    def packed(self) -> bytes:
        """The vectors' inputs as an .npz file, the same bytes for the same vectors."""
        arrays = {
            f"input_{place}": np.stack([vector.inputs[place] for vector in self.vectors])
            for place in range(len(self.vectors[0].inputs))
        }
        arrays |= {f"output_{place}": array for place, array in enumerate(self.outputs)}
        arrays["names"] = np.array([vector.name for vector in self.vectors])
        arrays["kinds"] = np.array([vector.kind for vector in self.vectors])
        arrays["seeds"] = np.array([vector.seeds for vector in self.vectors], np.int64)
        arrays["tensors"] = np.array([layer.tensor for layer in self.layers], np.int32)
        arrays["checks"] = np.array([layer.checks for layer in self.layers], np.uint32)
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        return file.getvalue()


def golden(
    program: Program,
    rows: np.ndarray | Sequence[np.ndarray] | None = None,
    random: int = RANDOM,
    seed: int = 1,
) -> Golden:
    """The vectors of a program: zeros, the lowest, the highest, `random` ones and the first rows.

    rows: [n, ...] for one input, else one such array for each input; of the input's type, or
    floats, which are quantised as the input is. DataError where they do not fit.
    """
    tensors = [program.model.tensors[number] for number in program.model.inputs]
    _require_types(tensors)
    vectors = [
        _vector(name, "fill", [numbers[tensor.dtype.name] for tensor in tensors], tensors)
        for name, numbers in _EXTREMES.items()
    ]
    for draw in range(random):
        # Seeds of a generator of xor and shifts: odd multiples of the golden ratio, never zero.
        seeds = [
            (seed + draw * len(tensors) + place) * 0x9E3779B1 % 2**32 or 1
            for place in range(len(tensors))
        ]
        vectors.append(_vector(f"random {draw + 1}", "random", seeds, tensors))
    given = [rows] if isinstance(rows, np.ndarray) else list(rows or ())
    if given:
        vectors += _real(given, tensors)
    return of_vectors(program, tuple(vectors))


def of_vectors(program: Program, vectors: tuple[Vector, ...]) -> Golden:
    """What the executor makes of these vectors."""
    model = program.model
    inputs = [
        np.stack([vector.inputs[place] for vector in vectors]).reshape(
            len(vectors), *_row_shape(model.tensors[number])
        )
        for place, number in enumerate(model.inputs)
    ]
    values = trace(program, inputs)
    layers = tuple(
        Layer(
            tensor=node.output,
            name=model.tensors[node.output].name,
            operator=node.operator.code,
            bytes=model.tensors[node.output].bytes,
            checks=tuple(checksum(row) for row in values[node.output]),
        )
        for node in program.nodes
    )
    outputs = []
    for number in model.outputs:
        constant = model.tensors[number].data
        found = values.get(number)
        if found is None:
            assert constant is not None, "an output is computed, an input or a constant"
            found = np.broadcast_to(constant, (len(vectors), *constant.shape))
        outputs.append(found.reshape(len(vectors), -1))
    return Golden(vectors, layers, tuple(outputs))


def unpacked(data: bytes, place: str = "golden.npz") -> tuple[Vector, ...]:
    """The vectors of `Golden.packed`. StorageError, naming the place, where it is not that."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            count = sum(name.startswith("input_") for name in file.files)
            inputs = [file[f"input_{place}"] for place in range(count)]
            return tuple(
                Vector(
                    str(name),
                    str(kind),
                    tuple(int(seed) for seed in seeds),
                    tuple(array[row] for array in inputs),
                )
                for row, (name, kind, seeds) in enumerate(
                    zip(file["names"], file["kinds"], file["seeds"], strict=True)
                )
            )
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise StorageError(f"{place}: holds no golden vectors: export anew ({error})") from error


def checksum(values: np.ndarray) -> int:
    """CRC-32 (that of zip and Ethernet) of the values' bytes, little-endian."""
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    return zlib.crc32(little.tobytes())


def quantized(values: np.ndarray, quantization: Quantization, dtype: np.dtype) -> np.ndarray:
    """Floats as stored: round(value / scale) half away from zero, + zero point, within the type.

    Divides in float32, as the generated `quantize_input` does. NaN becomes the lowest.
    """
    with np.errstate(over="ignore"):  # what becomes infinite is limited below
        ratio = values.astype(np.float32) / np.float32(quantization.scale[0])
    exact = ratio.astype(np.float64)
    rounded = np.copysign(np.floor(np.abs(exact) + 0.5), exact) + int(quantization.zero_point[0])
    limits = np.iinfo(dtype)
    limited = np.clip(np.nan_to_num(rounded, nan=limits.min), limits.min, limits.max)
    return limited.astype(dtype)


def draws(seed: int, count: int) -> np.ndarray:
    """[count] uint32: states of xorshift32 after each step from the seed."""
    states = np.empty(count, np.uint32)
    state = seed
    for place in range(count):
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        states[place] = state
    return states


def _vector(name: str, kind: str, seeds: Sequence[int], tensors: Sequence[Tensor]) -> Vector:
    make = _filled if kind == "fill" else _drawn
    inputs = tuple(make(number, tensor) for number, tensor in zip(seeds, tensors, strict=True))
    return Vector(name, kind, tuple(seeds), inputs)


def _filled(number: int, tensor: Tensor) -> np.ndarray:
    if tensor.dtype == np.float32:
        return np.full(tensor.size, number * FLOAT_STEP, np.float32)
    return np.full(tensor.size, number, tensor.dtype)


def _drawn(seed: int, tensor: Tensor) -> np.ndarray:
    """The upper bits of the draws, as the type has room for; floats are int8 steps."""
    states = draws(seed, tensor.size)
    if tensor.dtype == np.int16:
        return (states >> 16).astype(np.uint16).view(np.int16)
    small = (states >> 24).astype(np.uint8).view(np.int8)
    return small * FLOAT_STEP if tensor.dtype == np.float32 else small


def _real(given: Sequence[np.ndarray], tensors: Sequence[Tensor]) -> list[Vector]:
    if len(given) != len(tensors):
        raise DataError(f"rows for {len(given)} inputs, but the model has {len(tensors)}")
    flat = []
    for rows, tensor in zip(given, tensors, strict=True):
        if rows.ndim < 1 or rows[:1].size not in (0, tensor.size):
            raise DataError(
                f"rows for input {tensor.name!r} have shape {list(rows.shape)}: "
                f"one row must have {tensor.size} numbers"
            )
        rows = rows[:ROWS].reshape(len(rows[:ROWS]), -1)
        if rows.dtype != tensor.dtype and rows.dtype.kind == "f":
            rows = rows.astype(np.float32)
            if tensor.quantization is not None and tensor.dtype != np.float32:
                rows = quantized(rows, tensor.quantization, tensor.dtype)
        if rows.dtype != tensor.dtype:
            raise DataError(
                f"rows for input {tensor.name!r} are {rows.dtype.name}, not {tensor.dtype.name}"
            )
        flat.append(rows)
    return [
        Vector(f"row {number + 1}", "row", (0,) * len(tensors), tuple(inputs))
        for number, inputs in enumerate(zip(*flat, strict=False))
    ]


def _require_types(tensors: Sequence[Tensor]) -> None:
    for tensor in tensors:
        if tensor.dtype.name not in _EXTREMES["zeros"]:
            raise DataError(
                f"input {tensor.name!r} is {tensor.dtype.name}: golden vectors are made for int8, "
                "int16 and float32"
            )


def _row_shape(tensor: Tensor) -> tuple[int, ...]:
    return tensor.shape[1:] if tensor.shape and tensor.shape[0] == 1 else tensor.shape
