"""Flower's own processes, as our children: `python -m fedsys.flower.processes.launch KIND ...`.

    superlink  SECRET  SEEN     ARGUMENTS   secret: file of the coordinator's secret; see guard.py
                                            seen: file of what came before; see binding.py
    supernode  STALE  ACTIVATED ARGUMENTS   stale: id of the node that was killed, or '-';
                                            activated: file that says the process and its node

They run Flower's own programs with Flower's own options, with what `compat` changes in them, and
end when the process that started them ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedsys.child import end_with_parent, say
from fedsys.flower.processes.memory import give_back
from fedsys.storage import write_atomic

FIRST, GROWTH, LONGEST = 0.02, 1.1, 0.5
"""Seconds between two times that a node asks for messages: short at first, as in a round, then
longer and longer. What the server took to answer counts: see long_poll.py."""
REPLY_FIRST, REPLY_GROWTH, REPLY_LONGEST = 0.005, 1.2, 0.1
"""The same while the node waits for its app on the same machine."""


class Pauses:
    """Stands in for `time.sleep` in the node's loop, which sleeps 3 s where no message is there
    and 0.5 s where no reply is there."""

    def __init__(self) -> None:
        self._asked, self._pause, self._woke = 0.0, 0.0, 0.0

    def __call__(self, seconds: float) -> None:
        first, growth, longest = (
            (FIRST, GROWTH, LONGEST) if seconds > 1 else (REPLY_FIRST, REPLY_GROWTH, REPLY_LONGEST)
        )
        self._pause = min(self._pause * growth, longest) if seconds == self._asked else first
        self._asked = seconds
        time.sleep(max(first, self._woke + self._pause - time.monotonic()))
        self._woke = time.monotonic()


def main(arguments: list[str]) -> None:
    """Becomes one of Flower's programs."""
    program, *rest = arguments
    if program == "superlink":
        from fedsys.flower.processes.guard import Guard

        be_superlink(rest, Guard)
    else:
        end_with_parent()
        give_back()
        from fedsys.flower import compat_nodes

        stale = None if rest[0] == "-" else int(rest[0])

        def activated(node: int) -> None:
            said = json.dumps({"process": os.getpid(), "node": str(node)})
            write_atomic(Path(rest[1]), [said.encode()])

        try:
            compat_nodes.run_supernode(rest[2:], Pauses(), stale, activated, _end_refused)
        finally:
            _end_at_once()


def be_superlink(arguments: Sequence[str], guard: Callable[..., Any], **options: Any) -> None:
    """Becomes Flower's server. arguments: SECRET SEEN ARGUMENTS, see above. guard: an ASGI class
    that is given the server, `secret`, `seen` and its own options."""
    end_with_parent()
    give_back()
    from fedsys.flower import compat_nodes
    from fedsys.flower.processes.asgi import App
    from fedsys.flower.processes.binding import Seen
    from fedsys.flower.processes.database import small_caches
    from fedsys.flower.processes.long_poll import LongPoll
    from fedsys.flower.processes.quota import Quota
    from fedsys.flower.processes.slots import Slots

    secret, seen, *rest = arguments
    kept = {"secret": Path(secret).read_text("ascii").strip(), "seen": Seen(Path(seen)), **options}

    def guarded(app: App) -> Any:
        return guard(LongPoll(Quota(Slots(app))), **kept)

    small_caches()
    compat_nodes.run_superlink(rest, guarded)


def _end_refused(said: str) -> None:
    """Ends a node of which the guard lets nothing in: its agent says why, and starts it again."""
    say(f"refused: {said}")
    os._exit(1)


def _end_at_once() -> None:
    """Ends a node whose main thread has ended. Its other threads would keep the process, and
    nobody would see that it does nothing any more: so it was where a handshake was cut short."""
    error = sys.exc_info()[1]
    if error is not None and not isinstance(error, SystemExit):
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if error is None or getattr(error, "code", 1) in (None, 0) else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
