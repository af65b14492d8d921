"""Reads .tflite files, of whatever origin: NumPy alone, and no trust in what they say.

A file is sound here if a microcontroller could run it without a question left open: one graph in
an order in which it can be computed, every size known, every constant as long as its shape says,
quantisation that can be reckoned with. All else is told in one line. Slots are those of the
schema, version 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedsys.edge.tflite import schema
from fedsys.edge.tflite.model import Model, Operator, Quantization, Tensor
from fedsys.edge.tflite.table import BrokenError, Content, Table
from fedsys.errors import DataError

LARGEST_FILE = 2**31 - 1
LARGEST_RANK = 8
LARGEST_TENSOR = 2**40
"""Bytes of a tensor; sums of a few of them stay within int64."""

DAMAGED = "the file is damaged or cut short: copy or convert it again"
STATIC = "convert the model again with a static batch of one: keras.Input(..., batch_size=1)"


def read(source: Path | str | bytes, *, dynamic: bool = False) -> Model:
    """The model of a file, or of its bytes.

    dynamic: accept sizes that the file leaves open (-1), where it names a size to begin with.

    Constants are read-only views into the bytes. Raises DataError, with the file's name, what is
    wrong and where, and what to do, for anything that is not a sound .tflite.
    """
    if isinstance(source, Path | str):
        name, data = printable(str(source), 200), _bytes(Path(source))
    else:
        name, data = "the model", bytes(source)
    try:
        return _model(data, dynamic)
    except BrokenError as broken:
        raise DataError(f"{name}: no sound .tflite: {broken}; {DAMAGED}") from None
    except _Refused as refused:
        raise DataError(f"{name}: {refused}") from None


class _Refused(Exception):
    """A file that is readable but will not do; the message ends with a remedy."""


def printable(name: str, length: int = 80) -> str:
    """A name from a file, in one line without control characters, cut where it is long."""
    clean = "".join(c if c.isprintable() else "?" for c in name[: length + 1])
    return clean if len(clean) <= length else clean[: length - 3] + "..."


def _bytes(path: Path) -> bytes:
    name = printable(str(path), 200)
    try:
        if not path.exists():
            raise DataError(f"{name}: there is no such file")
        if not path.is_file():
            raise DataError(f"{name}: is no file; give the path of a .tflite")
        if path.stat().st_size > LARGEST_FILE:
            raise DataError(f"{name}: is larger than 2 GiB, which no .tflite is; {DAMAGED}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{name}: cannot be read: {reason}") from None


def _model(data: bytes, dynamic: bool) -> Model:
    if not data:
        raise _Refused("is empty; copy or convert it again")
    if data[:2] == b"PK" or data[:8] == b"\x89HDF\r\n\x1a\n":
        raise _Refused("is a saved Keras model or an archive; make a .tflite with `fedsys export`")
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise _Refused("is no .tflite (it has no TFL3 mark); give a TensorFlow Lite model")
    content = Content(data)
    root = content.root()
    version = root.number(0, "I")
    if version != 3:
        raise _Refused(f"has version {version} of the schema, not 3; convert the model again")
    graphs = list(root.tables(2, "graph"))
    if not graphs:
        raise BrokenError("it has no graph")
    graph = graphs[0]
    buffers = list(root.tables(4, "buffer"))
    operators = tuple(_operators(graph, list(_codes(root))))
    inputs, outputs = _numbers(graph, 1), _numbers(graph, 2)
    tables = list(graph.tables(0, "tensor"))
    if not dynamic:
        _closed(tables, inputs)
    used = {n for op in operators for n in (*op.inputs, *op.outputs)} | {*inputs, *outputs}
    tensors = tuple(
        _tensor(table, number, buffers, used=number in used, dynamic=dynamic)
        for number, table in enumerate(tables)
    )
    if len(graphs) > 1:
        _one_graph(operators, len(graphs))
    _in_order(tensors, operators, inputs, outputs)
    return Model(
        tensors=tensors,
        operators=operators,
        inputs=inputs,
        outputs=outputs,
        description=root.text(3),
        metadata=dict(_metadata(root, buffers)),
        bytes=len(data),
    )


# --- operators -----------------------------------------------------------------------------------


def _codes(root: Table) -> Iterator[tuple[str, int, bool]]:
    """(name, version, custom) of each kind of operator."""
    for number, table in enumerate(root.tables(1, "operator code")):
        # Numbers below 127 used to be a byte of their own; files have either or both.
        code = max(table.number(0, "b"), table.number(3, "i"))
        version = table.number(2, "i", 1)
        if code == schema.CUSTOM:
            name = table.text(1)
            if not name:
                raise BrokenError(f"operator code {number} is custom and has no name")
            yield printable(name), version, True
        elif not 0 <= code < len(schema.OPERATORS):
            raise _Refused(
                f"has an operator of number {code}, newer than this version of fedsys; "
                "convert it with an older TensorFlow, or update fedsys"
            )
        else:
            yield schema.OPERATORS[code], version, False


def _operators(graph: Table, codes: Sequence[tuple[str, int, bool]]) -> Iterator[Operator]:
    for index, table in enumerate(graph.tables(3, "operator")):
        kind = table.number(0, "I")
        if kind >= len(codes):
            raise BrokenError(f"operator {index} is of kind {kind}, of {len(codes)}")
        code, version, custom = codes[kind]
        options = {} if custom else _options(table, code, f"operator {index} ({code})")
        yield Operator(
            index, code, _numbers(table, 1), _numbers(table, 2), options, version, custom
        )


def _options(operator: Table, code: str, what: str) -> Mapping[str, Any]:
    """The settings of an operator, with defaults where the file has none."""
    if code not in schema.OPTIONS:
        return {}
    expected = schema.OPTIONS[code]
    found = operator.number(3, "B")
    if found not in (0, expected.number):
        raise BrokenError(f"{what} has the options of another operator")
    table = operator.table(4, f"the options of {what}") if found else None
    return {field.name: _option(table, field, what) for field in expected.fields}


def _option(table: Table | None, field: schema.Field, what: str) -> Any:
    kind, slot = field.kind, field.slot
    if kind == "ints":
        return () if table is None else tuple(table.vector(slot, "<i4").tolist())
    letter = {"int": "i", "float": "f", "bool": "B"}.get(kind, "b")
    value = field.default if table is None else table.number(slot, letter, field.default)
    if kind == "bool":
        return bool(value)
    if kind == "float":
        if not math.isfinite(value):
            raise BrokenError(f"{what} has a {field.name} of {value}")
        return float(value)
    if kind == "int":
        if table is not None and value < 1 and field.name.startswith(schema.POSITIVE):
            raise BrokenError(f"{what} has a {field.name} of {value}")
        return value
    words = schema.ENUMERATIONS[kind]
    if not 0 <= value < len(words):
        raise BrokenError(f"{what} has a {field.name} of number {value}, which is unknown")
    return words[value]


def _numbers(table: Table, slot: int) -> tuple[int, ...]:
    return tuple(table.vector(slot, "<i4").tolist())


# --- tensors -------------------------------------------------------------------------------------


def _tensor(
    table: Table, index: int, buffers: Sequence[Table], *, used: bool, dynamic: bool
) -> Tensor:
    """used: whether an operator or the model as a whole has it; others need no sizes."""
    name = table.text(3)
    what = f"tensor {index} ({printable(name)!r})"
    dtype = _dtype(table.number(1, "b"), what)
    if table.has(6):
        raise _Refused(f"{what} is sparse; convert it with dense weights (strip pruning first)")
    if table.has(10) and table.number(10, "I"):
        raise _Refused(f"{what} lies in another file; convert the model to a single file")
    shape = _numbers(table, 0)
    data = _data(table.number(2, "I"), buffers, what)
    _check_shape(table, shape, dtype, what, used=used, constant=data is not None, dynamic=dynamic)
    if data is not None:
        size = math.prod(shape) * dtype.itemsize
        if len(data) != size:
            raise BrokenError(f"{what} needs {size} bytes for {shape} {dtype}, has {len(data)}")
        data = data.view(dtype).reshape(shape)
    quantization = _quantization(table, shape, dtype, what)
    variable = bool(table.number(5, "B"))
    return Tensor(index, name, shape, dtype, quantization, data, variable)


def _closed(tables: Sequence[Table], inputs: Sequence[int]) -> None:
    """Refuse an input of open sizes first, since all others follow from the model's inputs."""
    for number in inputs:
        if not 0 <= number < len(tables):
            continue  # refused later
        sizes = tables[number].vector(7, "<i4")
        if not len(sizes):
            sizes = tables[number].vector(0, "<i4")
        if (sizes < 0).any() and len(sizes) <= LARGEST_RANK:
            name = printable(tables[number].text(3))
            raise _Refused(
                f"its input {name!r} has open sizes, {sizes.tolist()}; {_closing(sizes)}"
            )


def _closing(sizes: np.ndarray) -> str:
    """What to do about an input of open sizes, as Keras has it."""
    row = ", ".join("SIZE" if size < 0 else str(size) for size in sizes[1:].tolist())
    row += "," if len(sizes) == 2 else ""
    return (
        "give `fedsys export` the run or the .keras file that it was made of, or build the model "
        f"with a static batch of one, keras.Input(({row}), batch_size=1), and convert it again"
    )


def _dtype(number: int, what: str) -> np.dtype[Any]:
    if not 0 <= number < len(schema.TYPES):
        raise BrokenError(f"{what} is of type number {number}, which is unknown")
    kind = schema.TYPES[number]
    if kind not in schema.DTYPES:
        read = ", ".join(sorted(schema.DTYPES)).lower()
        raise _Refused(f"{what} holds {kind.lower()}; convert the model with {read} alone")
    return np.dtype(schema.DTYPES[kind])


def _check_shape(
    table: Table,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    what: str,
    *,
    used: bool,
    constant: bool,
    dynamic: bool,
) -> None:
    if len(shape) > LARGEST_RANK:
        raise BrokenError(f"{what} has {len(shape)} dimensions, more than {LARGEST_RANK}")
    signature = table.vector(7, "<i4").tolist()
    if any(size < 0 for size in shape):
        raise _Refused(f"{what} has an unknown size, {list(shape)}; {STATIC}")
    if math.prod(shape) * dtype.itemsize > LARGEST_TENSOR:
        raise BrokenError(f"{what} of shape {shape} is too large")
    if not used:
        return
    if 0 in shape:
        raise _Refused(f"{what} is empty, of shape {list(shape)}; {STATIC}")
    if not shape and not constant and not table.number(8, "B"):
        raise _Refused(f"{what} has no known shape; {STATIC}")
    if -1 in signature and not dynamic:
        raise _Refused(f"{what} has a dynamic shape, {signature[:LARGEST_RANK]}; {STATIC}")


def _data(number: int, buffers: Sequence[Table], what: str) -> np.ndarray | None:
    """[bytes] uint8, the contents of a buffer; None where it is empty: a computed tensor."""
    if number == 0:  # by the schema always empty
        return None
    if number >= len(buffers):
        raise BrokenError(f"{what} lies in buffer {number}, of {len(buffers)}")
    buffer = buffers[number]
    start, size = buffer.number(1, "Q"), buffer.number(2, "Q")
    # Files beyond 2 GiB append their constants; 1 is a place-holder for an offset.
    data = buffer.content.view(start, size, what) if start > 1 else buffer.constant(0)
    return data if len(data) else None


def _quantization(
    tensor: Table, shape: tuple[int, ...], dtype: np.dtype[Any], what: str
) -> Quantization | None:
    """None where there is none, or for floats, for which it means nothing."""
    table = tensor.table(4, f"the quantisation of {what}")
    if table is None or dtype.kind not in "iu":
        return None
    if table.number(4, "B"):
        raise _Refused(f"{what} is quantised in a way of its own; use one scale, or one a channel")
    scale, zero_point = table.vector(2, "<f4"), table.vector(3, "<i8")
    if not len(scale):
        return None
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise BrokenError(f"{what} has a scale that is not above zero and finite")
    if len(zero_point) not in (0, 1, len(scale)):
        raise BrokenError(f"{what} has {len(scale)} scales and {len(zero_point)} zero points")
    limits = np.iinfo(dtype)
    if len(zero_point) and not limits.min <= zero_point.min() <= zero_point.max() <= limits.max:
        raise BrokenError(f"{what} has a zero point outside of {dtype}")
    if len(zero_point) != len(scale):
        same = zero_point[0] if len(zero_point) else 0
        zero_point = np.full(len(scale), same, np.int64)
        zero_point.flags.writeable = False
    axis = table.number(6, "i")
    if len(scale) == 1:
        axis = 0 if not 0 <= axis < len(shape) else axis
    elif not 0 <= axis < len(shape) or shape[axis] != len(scale):
        raise BrokenError(f"{what} of shape {shape} has {len(scale)} scales along axis {axis}")
    return Quantization(scale, zero_point, axis)


# --- the whole -----------------------------------------------------------------------------------


def _one_graph(operators: Sequence[Operator], graphs: int) -> None:
    for op in operators:
        if op.code in schema.CALLING:
            raise _Refused(
                f"operator {op.index} ({op.code}) runs another of the file's {graphs} graphs; "
                "convert the model without control flow (unroll loops and recurrent layers)"
            )


def _in_order(
    tensors: Sequence[Tensor],
    operators: Sequence[Operator],
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> None:
    """That each operator finds its inputs computed, and every tensor is computed but once."""
    if not operators or not inputs or not outputs:
        raise BrokenError("it has no operators, no inputs or no outputs")
    known = {tensor.index for tensor in tensors if tensor.constant or tensor.variable}
    for number in inputs:
        _exists(number, tensors, "the model's inputs")
        if tensors[number].constant:
            raise BrokenError(f"its input is tensor {number}, a constant")
    known.update(inputs)
    for op in operators:
        what = f"operator {op.index} ({op.code})"
        for number in op.inputs:
            if number == -1:
                continue
            _exists(number, tensors, what)
            if number not in known:
                raise BrokenError(f"{what} reads tensor {number}, which nothing has computed yet")
        for number in op.outputs:
            _exists(number, tensors, what)
            if number in known:
                raise BrokenError(f"{what} writes tensor {number}, which has its values already")
            known.add(number)
    for number in outputs:
        _exists(number, tensors, "the model's outputs")
        if number not in known:
            raise BrokenError(f"its output is tensor {number}, which nothing computes")


def _exists(number: int, tensors: Sequence[Tensor], what: str) -> None:
    if not 0 <= number < len(tensors):
        raise BrokenError(f"{what} has tensor {number}, of {len(tensors)}")


def _metadata(root: Table, buffers: Sequence[Table]) -> Iterator[tuple[str, bytes]]:
    for number, table in enumerate(root.tables(6, "metadata")):
        data = _data(table.number(1, "I"), buffers, f"metadata {number}")
        if data is not None:
            root.content.spend(len(data))  # a copy
        yield table.text(0), b"" if data is None else data.tobytes()
