"""A bank's agent: keeps Flower's node and the trainer alive beside each other.

    python -m fedsys.clients.bank.agent FOLDER READY      the same as `fedsys bank join`

If either dies it is started again. With the trainer goes the node: only then does the server learn
that the message which the trainer had is lost, and the coordinator sends it again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fedsys.child import be_child, say
from fedsys.clients.bank.home import BankHome
from fedsys.flower.processes import supernode
from fedsys.flower.processes.superlink import free_port, variables
from fedsys.supervision import Supervised

LOOK_SECONDS = 0.5


def join(
    home: BankHome, told: Callable[[str], None], ready: Callable[[], None] = lambda: None
) -> None:
    """Takes part until it is interrupted. ready: is called when the server has let the bank in.

    Raises FedsysError where node or trainer cannot be kept alive.
    """
    place = home.folder / "flower"
    node = home.node(free_port())
    at_work = place / "trainer.pid"

    def command() -> list[str]:
        module = "fedsys.clients.bank.trainer_process"
        return [sys.executable, "-m", module, str(home.folder), node.address, str(at_work)]

    def is_ready(pid: int) -> bool:
        with suppress(OSError):
            return at_work.read_text() == str(pid)
        return False

    node_process = supernode.supervised(node, told)
    trainer = Supervised(
        "the trainer",
        command,
        place / "trainer.log",
        is_ready=is_ready,
        told=told,
        died=node_process.restart,
        wait=False,
        variables=variables(place),
    )
    with trainer, node_process:
        told(f"{home.facts.name}: in federation {home.facts.federation} at {home.facts.server}")
        ready()
        while True:
            node_process.check()
            trainer.check()
            time.sleep(LOOK_SECONDS)


def main(arguments: list[str]) -> None:
    """Takes part as a child of another process, which is told by a file when the bank is in."""
    folder, ready = map(Path, arguments)
    be_child(lambda is_ready: join(BankHome.open(folder), say, is_ready), ready)


if __name__ == "__main__":
    main(sys.argv[1:])
