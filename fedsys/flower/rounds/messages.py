"""A round as Flower's messages: the server's instruction, and the client's answer.

    instruction: fedsys.instruction  format, experiment, round, client, own
                 fedsys.arrays       anchor, state.NAME of the server state, own if it travels
    answer:      fedsys.answer       format, experiment, round, client, weight, loss; or code
                 fedsys.update       how far each tensor moved, by its name in the layout
                 fedsys.own          own or change, where clients remember

Records of other names may travel along. Nothing that arrives is believed: arrays are Flower's,
which are the bytes of an `.npy` file, and these are read here, by size, type and shape, before
anything is allocated. What does not fit raises `Refused`, and is the fault of that side alone.
What goes wrong at a client travels as a code: texts and values stay where the rows are.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedsys.admission import Reason, Refused, Update
from fedsys.errors import UsageError
from fedsys.layout import Layout
from fedsys.strategy import Strategy, Vector

FORMAT = 1
INSTRUCTION, ARRAYS = "fedsys.instruction", "fedsys.arrays"
ANSWER, UPDATE, OWN = "fedsys.answer", "fedsys.update", "fedsys.own"
ANSWERED = {"format", "experiment", "round", "client", "weight", "loss"}
TRAVELS = -1
"""Stands in an instruction for the round of the client's own vector, where that is sent along."""

NUMPY = "numpy.ndarray"
"""What Flower calls the bytes that `numpy.save` writes."""

LONGEST_NAME = 200
HEADER = 512
"""Bytes that the header of an `.npy` file may have; NumPy writes 128 for as many as 8 axes."""

_NPY = re.compile(
    rb"\{'descr': '([<>|=]?[a-z]\d{1,2})', 'fortran_order': (False|True), "
    rb"'shape': \(((?:\d{1,15}, )*(?:\d{1,15},?)?)\), \} *\n"
)


class Code(StrEnum):
    """What a client says of itself instead of sending an update."""

    INSTRUCTION = "did not understand its instruction"
    EXPERIMENT = "is in another experiment"
    MEMORY = "has lost the own vector that the server counts on"
    TRAINING = "could not train"
    DATA = "could not read its rows"
    POLICY = "does not take part in this"


@dataclass(frozen=True)
class Instruction:
    """What a client is asked to do.

    experiment: which one, as both sides name it. client: its number. anchor: [layout length].
    state: the fields of the server state that the strategy sends, each [parameters].
    own_round: the last round whose own vector of this client the server has counted; 0 before.
    own: [parameters], that vector, where it travels.
    """

    experiment: str
    round: int
    client: int
    anchor: Vector
    state: Mapping[str, Vector] = field(default_factory=dict)
    own_round: int = 0
    own: Vector | None = None


@dataclass(frozen=True)
class Answer:
    """What a client sends back.

    loss: mean training loss; NaN where it was not said. own: [parameters], how its own vector
    changed, or the vector itself where it travels; None where the strategy does not remember, or
    the training lost its numbers. remark: what was odd, in words of ours, and no reason to refuse.
    """

    update: Update
    loss: float
    own: Vector | None = None
    remark: str = ""


# --- the server's side --------------------------------------------------------------------------


@dataclass(frozen=True)
class Broadcast:
    """A round's instructions: what is the same for all is made into bytes once."""

    experiment: str
    round: int
    arrays: Mapping[str, Array]

    @classmethod
    def of(
        cls, experiment: str, round: int, anchor: Vector, strategy: Strategy, state: Any
    ) -> Broadcast:
        """anchor: [layout length]. state: the strategy's server state."""
        vectors = {f"state.{name}": vector for name, vector in sent_fields(strategy, state).items()}
        arrays = {name: Array(vector) for name, vector in {"anchor": anchor, **vectors}.items()}
        return cls(experiment, round, arrays)

    def to(self, client: int, own_round: int = 0, own: Vector | None = None) -> RecordDict:
        """The instruction to one client."""
        arrays = dict(self.arrays)
        if own is not None:
            arrays["own"] = Array(own)
        said: dict[str, Any] = {
            "format": FORMAT,
            "experiment": self.experiment,
            "round": self.round,
            "client": client,
            "own": TRAVELS if own is not None else own_round,
        }
        return RecordDict({INSTRUCTION: ConfigRecord(said), ARRAYS: ArrayRecord(arrays)})


def sent_fields(strategy: Strategy, state: Any) -> dict[str, Vector]:
    """The fields of the server state that clients get beside the weights.

    They are found by asking the strategy what it sends. Raises UsageError where it sends a vector
    that is neither the client's own nor a field of its state: then only it knows what that is.
    """
    own = np.zeros_like(state.weights)
    fields = state._asdict()
    sent: dict[str, Vector] = {}
    for vector in strategy.send(state, own):
        name = next((name for name, value in fields.items() if value is vector), None)
        if name is None and vector is not own:
            raise UsageError(
                f"strategy {type(strategy).__name__}: sends a vector that is no field of its "
                "state, and so cannot be sent to a client elsewhere: keep it in the state"
            )
        if name not in (None, "weights"):  # those are the anchor
            sent[str(name)] = vector
    return sent


def read_answer(content: RecordDict, layout: Layout, broadcast: Broadcast, client: int) -> Answer:
    """A client's answer in a round. Refused for all that is not one; a gate still has to look at
    the update itself."""
    said = _record(content, ANSWER, ConfigRecord)
    _same(said, format=FORMAT)
    _same(said, experiment=broadcast.experiment, round=broadcast.round, client=client)
    if "code" in said:
        raise Refused(Reason.FAILED, _code(said["code"]))
    update = _record(content, UPDATE, ArrayRecord)
    shapes = dict(zip(layout.names, layout.shapes, strict=True))
    unknown = [name for name in update if name not in shapes]
    if unknown:
        raise Refused(Reason.EXTRA, str(unknown[0])[:80])
    tensors = {
        name: read_array(name, update[name], layout.dtype, shapes[name])
        for name in layout.names
        if name in update
    }
    own = None
    if OWN in content:
        vectors = _record(content, OWN, ArrayRecord)
        own = _vector(vectors, "own", layout.parameters, layout.dtype)
    loss = _number(said, "loss") if "loss" in said else math.nan
    return Answer(Update(tensors, _number(said, "weight")), loss, own, _remark(said))


def _remark(said: ConfigRecord) -> str:
    """A metric more or less is no reason to refuse an update, and is told."""
    remarks = ["gave no loss"] if "loss" not in said else []
    remarks += ["sent metrics that nobody asked for: dropped"] if set(said) - ANSWERED else []
    return "; ".join(remarks)


# --- the client's side --------------------------------------------------------------------------


def read_instruction(content: RecordDict, layout: Layout, strategy: Strategy) -> Instruction:
    """The instruction in a message. Refused for all that is not one for this model and strategy."""
    said = _record(content, INSTRUCTION, ConfigRecord)
    _same(said, format=FORMAT)
    round, client = _count(said, "round", 1), _count(said, "client", 0)
    own_round = _count(said, "own", TRAVELS)
    arrays = _record(content, ARRAYS, ArrayRecord)
    anchor = _vector(arrays, "anchor", layout.length, layout.dtype)
    state = {
        name: _vector(arrays, f"state.{name}", layout.parameters, layout.dtype)
        for name in sent_fields(strategy, strategy.begin(anchor[: layout.parameters]))
    }
    own = None
    if own_round == TRAVELS:
        own = _vector(arrays, "own", layout.parameters, layout.dtype)
    return Instruction(_text(said, "experiment"), round, client, anchor, state, own_round, own)


def state_of(instruction: Instruction, strategy: Strategy, parameters: int) -> Any:
    """The server state as far as a client needs it; fields that are not sent are as at first."""
    return strategy.begin(instruction.anchor[:parameters])._replace(**instruction.state)


def answered(instruction: Instruction, answer: Answer) -> RecordDict:
    """The answer as a message's content."""
    said = {**_heading(instruction), "weight": answer.update.weight, "loss": answer.loss}
    content = RecordDict(
        {
            ANSWER: ConfigRecord(said),
            UPDATE: ArrayRecord(
                {n: Array(np.asarray(t)) for n, t in answer.update.tensors.items()}
            ),
        }
    )
    if answer.own is not None:
        content[OWN] = ArrayRecord({"own": Array(answer.own)})
    return content


def failed(instruction: Instruction | None, code: Code) -> RecordDict:
    """Says that there is no update, and no more than a code of why."""
    heading = {"format": FORMAT} if instruction is None else _heading(instruction)
    return RecordDict({ANSWER: ConfigRecord({**heading, "code": code.name})})


def failed_unread(content: RecordDict, code: Code) -> RecordDict:
    """The same to an instruction that was not read: says which, so that the server knows it."""
    reply = failed(None, code)
    try:
        experiment, client = addressee(content)
        round = _count(_record(content, INSTRUCTION, ConfigRecord), "round", 1)
    except Refused:
        return reply
    said: Any = reply[ANSWER]
    said.update({"experiment": experiment, "round": round, "client": client})
    return reply


def addressee(content: RecordDict) -> tuple[str, int]:
    """The experiment and the client that an instruction is for. Refused where it does not say."""
    said = _record(content, INSTRUCTION, ConfigRecord)
    return _text(said, "experiment"), _count(said, "client", 0)


def _heading(instruction: Instruction) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "experiment": instruction.experiment,
        "round": instruction.round,
        "client": instruction.client,
    }


def update_digest(content: RecordDict) -> tuple[str, int]:
    """(SHA-256, bytes) of the update in an answer, as both sides write it down: what they sent and
    got, whatever it holds. Those of nothing where there is none."""
    update = content.get(UPDATE)
    digest, size = hashlib.sha256(), 0
    for name, array in update.items() if isinstance(update, ArrayRecord) else ():
        said = f"{name}\0{array.dtype}\0{array.shape}\0{len(array.data)}\0"
        digest.update(said.encode("utf-8", "surrogatepass"))
        digest.update(array.data)
        size += len(array.data)
    return digest.hexdigest(), size


# --- both sides ---------------------------------------------------------------------------------


def read_array(
    name: str, array: Array, dtype: np.dtype[Any], shape: tuple[int, ...] | None
) -> np.ndarray:
    """A view of an array's bytes, which are as `numpy.save` writes them: nothing is allocated.

    dtype, shape: what is expected; shape None takes any. Refused for another type, shape or size,
    and for anything that is not exactly an array.
    """
    if array.stype != NUMPY:
        raise Refused(Reason.FORMAT, f"{name} is no NumPy array")
    data = array.data
    start = 10 + int.from_bytes(data[8:10], "little")
    if data[:8] != b"\x93NUMPY\x01\x00" or not 10 < start <= min(HEADER, len(data)):
        raise Refused(Reason.FORMAT, f"{name} is not in NumPy's format")
    header = _NPY.fullmatch(data[10:start])
    if header is None:
        raise Refused(Reason.FORMAT, f"{name} is not in NumPy's format")
    found = header[1].decode()
    if found != dtype.str:
        raise Refused(Reason.DTYPE, f"{name} is {found}, not {dtype.str}")
    axes = tuple(int(axis) for axis in header[3].rstrip(b",").split(b", ") if axis)
    if shape is not None and axes != shape:
        raise Refused(Reason.SHAPE, f"{name} is {axes}, not {shape}")
    numbers = math.prod(axes)
    if len(data) - start != numbers * dtype.itemsize:
        raise Refused(Reason.SHAPE, f"{name} has {len(data) - start} bytes, not those of {axes}")
    order = "F" if header[2] == b"True" else "C"
    flat = np.frombuffer(data, dtype, numbers, start)
    return flat.reshape(axes, order=order)  # type: ignore[call-overload]


def _vector(arrays: ArrayRecord, name: str, length: int, dtype: np.dtype[Any]) -> Vector:
    if name not in arrays:
        raise Refused(Reason.MISSING, name)
    return read_array(name, arrays[name], dtype, (length,))


def _record(content: RecordDict, name: str, type_: type) -> Any:
    record = content.get(name)
    if not isinstance(record, type_):
        raise Refused(Reason.FORMAT, f"has no {name}")
    return record


def _same(said: ConfigRecord, **wanted: Any) -> None:
    for name, value in wanted.items():
        found = said.get(name)
        if type(found) is not type(value) or found != value:
            raise Refused(Reason.FORMAT, f"is of {name} {str(found)[:40]!r}, not {value!r}")


def _code(value: Any) -> str:
    """A code in words. One that is not known is not repeated: it is a stranger's text."""
    known = Code.__members__.get(value) if isinstance(value, str) else None
    return str(known or "gave a code that is not known")


def _number(said: ConfigRecord, name: str) -> float:
    value = said.get(name)
    if type(value) not in (int, float):
        raise Refused(Reason.FORMAT, f"{name} is no number")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        raise Refused(Reason.FORMAT, f"{name} is too large") from None


def _count(said: ConfigRecord, name: str, least: int) -> int:
    value = said.get(name)
    if type(value) is not int or not least <= value < 2**62:
        raise Refused(Reason.FORMAT, f"{name} is not a whole number of at least {least}")
    return int(value)


def _text(said: ConfigRecord, name: str) -> str:
    value = said.get(name)
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        raise Refused(Reason.FORMAT, f"{name} is no short text")
    return value
