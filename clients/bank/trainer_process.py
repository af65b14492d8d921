"""The bank's trainer: a process that stays, with TensorFlow loaded and the rows prepared.

    python -m fedsys.clients.bank.trainer_process FOLDER ADDRESS READY

It takes the messages of Flower's node at ADDRESS, on this machine. READY is a file that says its
process number once it can work. What it prints goes to the bank's own log.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from fedsys.child import end_with_parent, say
from fedsys.clients.bank.home import EXECUTOR, BankHome
from fedsys.errors import EngineError
from fedsys.storage import write_atomic


def main(arguments: list[str]) -> None:
    """Answers messages until it is ended."""
    end_with_parent()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    home = BankHome.open(Path(arguments[0]))
    stopping = threading.Event()

    def stop(number: int, frame: Any) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    # TensorFlow takes seconds to load: before the first message, not during it.
    from fedsys.clients.bank.answers import Answers
    from fedsys.engines.compiled import use_threads
    from fedsys.flower.processes.answering import serve

    use_threads(os.cpu_count() or 1, 1)
    answers = Answers(home, say)
    write_atomic(Path(arguments[2]), [str(os.getpid()).encode()])
    secret = home.folder / "secrets" / EXECUTOR
    try:
        serve(arguments[1], secret, answers, answers.refuse, stopping, say)
    except EngineError as error:
        say(f"fedsys: {error}")
        sys.exit(error.code)


if __name__ == "__main__":
    main(sys.argv[1:])
