"""A bank whose trainer fails as it is told to; run as a script by `federation.py`.

    spoiled.py agent FOLDER READY       the bank's agent, with this file as its trainer
    spoiled.py trainer FOLDER ADDRESS READY

FOLDER/faults.json says what to do in which round, such as {"3": "nan", "4": "slow 20"}; it is read
anew with every message. FOLDER/at_work says in which round it trains. All else is the real agent
and the real trainer.
"""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

SECRET = "customer 4711 with the card 5500-0000-0000-0004"
"""What an exception's text says of a customer."""
BOMB = 2**32
"""Numbers that 16 bytes claim to be."""


def fault(folder: Path, round: int) -> list[str]:
    """What to do in a round; nothing is ['']."""
    with suppress(OSError, ValueError):
        said: dict[str, str] = json.loads((folder / "faults.json").read_text())
        return said.get(str(round), "").split() or [""]
    return [""]


def spoiled(reply: RecordDict, kind: str, value: str) -> RecordDict:
    """A reply as a broken or evil bank sends it."""
    from fedsys.flower.rounds.messages import ANSWER, UPDATE

    said, update = reply.get(ANSWER), reply.get(UPDATE)
    if not isinstance(said, ConfigRecord) or not isinstance(update, ArrayRecord):
        return reply
    name = next(iter(update))
    tensor = update[name].numpy()
    if kind == "nan":
        tensor = tensor.copy()
        tensor.flat[0] = np.nan
        update[name] = Array(tensor)
    elif kind == "shape":
        update[name] = Array(np.concatenate([tensor, tensor]))
    elif kind == "broadcast":
        update[name] = Array(np.ones(1, tensor.dtype))
    elif kind == "bomb":
        header = np.lib.format.magic(1, 0)
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({BOMB},), }}".ljust(117) + "\n"
        data = header + len(text).to_bytes(2, "little") + text.encode() + bytes(16)
        update[name] = Array("<f4", (4,), "numpy.ndarray", data)  # its frame is honest
    elif kind == "large":
        update[name] = Array(np.zeros(int(value), tensor.dtype))
    elif kind == "weight":
        said["weight"] = float(value)
    elif kind == "metric":
        said["accuracy"] = 0.9
        reply["metrics"] = MetricRecord({"anything": 1.0})
    elif kind == "no-loss":
        del said["loss"]
    elif kind == "times":
        for each in list(update):
            update[each] = Array(update[each].numpy() * np.float32(value))
    elif kind == "no-tensor":
        del update[name]
    return reply


def be_trainer(folder: Path) -> None:
    from fedsys.clients.bank import answers, trainer_process
    from fedsys.flower import compat_nodes
    from fedsys.flower.rounds.messages import INSTRUCTION

    class Trainer(answers.Trainer):  # type: ignore[misc]
        def train(self, round: int, *rest: Any) -> Any:
            kind, *value = fault(folder, round)
            (folder / "at_work").write_text(str(round))
            if kind == "slow":
                time.sleep(float(value[0]))
            if kind == "raise":
                raise ValueError(f"bad row of {SECRET}")
            return super().train(round, *rest)

    class Answers(answers.Answers):
        def __call__(self, content: RecordDict) -> RecordDict:
            asked = content.get(INSTRUCTION)
            round = int(asked["round"]) if asked else 0  # type: ignore[call-overload,arg-type,index]
            kind, *value = fault(folder, round)
            tasks.twice = kind == "twice"
            return spoiled(super().__call__(content), kind, value[0] if value else "")

    class Tasks(compat_nodes.NodeTasks):
        twice = False

        def finish(self, reply: Any, context: Any) -> None:
            push = self._app.push_message
            if tasks.twice:
                self._app.push_message = lambda *all: (push(*all), push(*all))
            try:
                super().finish(reply, context)
            finally:
                self._app.push_message = push

    class tasks:  # noqa: N801  what the two share
        twice = False

    answers.Trainer, answers.Answers = Trainer, Answers  # type: ignore[misc]
    compat_nodes.NodeTasks = Tasks  # type: ignore[misc]
    trainer_process.main(sys.argv[2:])


def be_agent() -> None:
    from fedsys.clients.bank import agent

    class Supervised(agent.Supervised):
        def __init__(self, name: str, command: Any, *rest: Any, **options: Any) -> None:
            def ours() -> list[str]:
                real = command()
                if "fedsys.clients.bank.trainer_process" not in real:
                    return list(real)
                start = real.index("fedsys.clients.bank.trainer_process")
                return [sys.executable, __file__, "trainer", *real[start + 1 :]]

            super().__init__(name, ours, *rest, **options)

    agent.Supervised = Supervised  # type: ignore[misc]
    agent.main(sys.argv[2:])


if __name__ == "__main__":
    if sys.argv[1] == "agent":
        be_agent()
    else:
        be_trainer(Path(sys.argv[2]))
