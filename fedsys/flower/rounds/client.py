"""A client of ours in Flower: instructions in, answers out.

    member = Member(3, "eu-credit-7", trainer.layout, strategy, trainer.train)
    app = client_app(lambda experiment, client, context: member)      # a ClientApp for a SuperNode

`answer` is the same without Flower's process around it: from a message's content, and the records
that the client keeps between rounds, to the content of the reply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedsys.admission import Refused
from fedsys.errors import DataError, PolicyError
from fedsys.flower.rounds.messages import (
    TRAVELS,
    Answer,
    Code,
    Instruction,
    addressee,
    answered,
    failed,
    failed_unread,
    read_array,
    read_instruction,
    state_of,
)
from fedsys.layout import Layout
from fedsys.strategy import Strategy, Vector

if TYPE_CHECKING:
    from fedsys.clients.trainer import Trained  # which loads TensorFlow: not every client has it

MEMORY = "fedsys.memory"
"""Where a client keeps its own vectors: by experiment and round, in its node's state."""

Train = Callable[[int, Vector, Any, Vector | None], "Trained"]
"""(round, anchor, server state, own vector) -> what the training gave; `Trainer.train`."""

Failed = Callable[[Code, Exception], None]
"""Is told, at the client, what went wrong there."""


@dataclass(frozen=True)
class Member:
    """One client of one experiment. client: its number. train: see `Train`."""

    client: int
    experiment: str
    layout: Layout
    strategy: Strategy
    train: Train


MemberOf = Callable[[str, int, Context], Member]
"""The member that a node is: from the experiment and the client's number in an instruction, and the
node's context. Raises PolicyError or DataError where it is none."""


def client_app(member_of: MemberOf, failed: Failed = lambda code, error: None) -> ClientApp:
    """A ClientApp that trains as it is told. No error of a client's leaves it but as a code."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        def member(experiment: str, client: int) -> Member:
            return member_of(experiment, client, context)

        return Message(answer(message.content, context.state, member, failed), reply_to=message)

    return app


def answer(
    content: RecordDict,
    kept: RecordDict,
    member_of: Callable[[str, int], Member],
    tell: Failed = lambda code, error: None,
) -> RecordDict:
    """The answer to an instruction.

    kept: what the client keeps from round to round; is changed in place. member_of: as above,
    without a context. tell: is told of an error, of which only a code is sent.
    """
    instruction: Instruction | None = None
    try:
        member = member_of(*addressee(content))
        instruction = read_instruction(content, member.layout, member.strategy)
        return _trained(instruction, kept, member)
    except Exception as raised:  # a model of a user's own may raise anything
        error = raised
    code = _code(error)
    tell(code, error)
    return failed_unread(content, code) if instruction is None else failed(instruction, code)


def _code(error: Exception) -> Code:
    if isinstance(error, _Unable):
        return error.code
    kinds = {Refused: Code.INSTRUCTION, DataError: Code.DATA, PolicyError: Code.POLICY}
    return next((code for kind, code in kinds.items() if isinstance(error, kind)), Code.TRAINING)


class _Unable(Exception):
    """A client that cannot do what it is asked."""

    def __init__(self, code: Code) -> None:
        super().__init__(str(code))
        self.code = code


def _trained(instruction: Instruction, kept: RecordDict, member: Member) -> RecordDict:
    if (instruction.experiment, instruction.client) != (member.experiment, member.client):
        raise _Unable(Code.EXPERIMENT)
    parameters = member.layout.parameters
    state = state_of(instruction, member.strategy, parameters)
    own = _own(instruction, kept, member)
    trained = member.train(instruction.round, instruction.anchor, state, own)
    vector = trained.own
    if vector is not None and instruction.own_round != TRAVELS:
        _keep(instruction, kept, vector)
        vector = vector if own is None else vector - own
    return answered(instruction, Answer(trained.update, trained.loss, vector))


def _own(instruction: Instruction, kept: RecordDict, member: Member) -> Vector | None:
    """The client's vector from the round that the server counted last; None before the first."""
    if not member.strategy.remembers or not instruction.own_round:
        return None
    if instruction.own_round == TRAVELS:
        return instruction.own
    name = str(instruction.own_round)
    held = _held(instruction, kept)
    try:
        return read_array("own", held[name], member.layout.dtype, (member.layout.parameters,))
    except (KeyError, Refused):
        raise _Unable(Code.MEMORY) from None


def _keep(instruction: Instruction, kept: RecordDict, own: Vector) -> None:
    """Keeps the vector of this round, the one that the server counts, and the one before that.

    The server may go on from this round or, if the answer is lost, from the one that it counts;
    one that resumes at the checkpoint before its last counts the one before.
    """
    counted = instruction.own_round
    held = _held(instruction, kept)
    older = [int(name) for name in held if int(name) < counted]
    needed = {str(round) for round in [counted, *sorted(older)[-1:]]}
    rounds = {name: array for name, array in held.items() if name in needed}
    rounds[str(instruction.round)] = Array(own)
    kept[f"{MEMORY}.{instruction.experiment}"] = ArrayRecord(rounds)


def _held(instruction: Instruction, kept: RecordDict) -> ArrayRecord:
    held = kept.get(f"{MEMORY}.{instruction.experiment}")
    return held if isinstance(held, ArrayRecord) else ArrayRecord()
