"""Few pieces at a time in Flower's server, and memory that goes back when they are done with."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from fedsys.flower.processes.slots import PIECES, Slots


class App:
    """Answers after a while. most: how many requests it had at a time."""

    def __init__(self):
        self.at_work = self.most = 0
        self.bodies = []

    async def __call__(self, scope, receive, send):
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message["body"])
            more = message["more_body"]
        body = b"".join(parts)
        self.bodies.append(body)
        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done " + body})
        self.at_work -= 1


def ask(slots, path, *parts, line=None):
    """A request as a coroutine; gives what was sent back. line: is awaited for each part."""
    messages = [
        {"type": "http.request", "body": part, "more_body": index < len(parts) - 1}
        for index, part in enumerate(parts)
    ] + [{"type": "http.disconnect"}]
    sent = []

    async def receive():
        if line is not None:
            await line.wait()
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    async def asked():
        await slots({"type": "http", "path": path, "headers": []}, receive, send)
        return sent

    return asked()


@pytest.mark.parametrize("path", PIECES)
def test_few_pieces_are_worked_on_at_a_time_and_all_are_answered(path):
    async def main():
        app = App()
        slots = Slots(app, 2)
        answers = await asyncio.gather(*(ask(slots, path, b"%d" % n, b"!") for n in range(9)))
        return app, answers

    app, answers = asyncio.run(main())
    assert app.most == 2
    assert [sent[1]["body"] for sent in answers] == [b"done %d!" % n for n in range(9)]
    assert all(sent[0]["status"] == 200 for sent in answers)


def test_all_else_does_not_wait():
    async def main():
        app = App()
        slots = Slots(app, 1)
        await asyncio.gather(*(ask(slots, "/v1/fleet/pull-messages", b"") for _ in range(5)))
        return app

    assert asyncio.run(main()).most == 5


def test_who_is_slow_on_the_line_keeps_nobody_waiting():
    async def main():
        slots, line = Slots(App(), 1), asyncio.Event()
        slow = [asyncio.create_task(ask(slots, PIECES[0], b"slow", line=line)) for _ in range(3)]
        quick = await asyncio.wait_for(ask(slots, PIECES[0], b"quick"), 5)
        line.set()
        return quick, await asyncio.gather(*slow)

    quick, slow = asyncio.run(main())
    assert quick[1]["body"] == b"done quick"
    assert [sent[1]["body"] for sent in slow] == 3 * [b"done slow"]


def test_an_app_that_fails_leaves_its_slot():
    async def failing(scope, receive, send):
        raise ValueError("no")

    async def main():
        slots = Slots(failing, 1)
        for _ in range(3):
            with pytest.raises(ValueError, match="no"):
                await asyncio.wait_for(ask(slots, PIECES[0], b""), 5)

    asyncio.run(main())


def test_who_goes_away_before_the_end_is_let_go():
    async def main():
        app = App()
        return app, await ask(Slots(app, 1), PIECES[0])

    app, sent = asyncio.run(main())
    assert not sent and not app.bodies


HELD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
if sys.argv[1] == "ours":
    from fedsys.flower.processes.memory import give_back
    give_back()
for _ in range(3):  # the C library learns from what is freed
    bytearray(b"x" * (6 << 20))
together = Barrier(8)
def work(number):
    pieces = [b"x" * (5 << 20) for _ in range(4)]
    together.wait()
    kept = bytearray(1000)
    del pieces
    together.wait()
    return kept
with ThreadPoolExecutor(8) as pool:
    kept = list(pool.map(work, range(8)))
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in l)
print(line.split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_what_threads_are_done_with_is_the_systems_again():
    def held(whose):
        ran = subprocess.run([sys.executable, "-c", HELD, whose], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return int(ran.stdout) * 1024

    assert held("ours") < 60e6, "of 160 MiB that were taken"
    assert held("ours") <= held("the library's") + 20e6


def test_flowers_database_has_small_caches(tmp_path):
    pytest.importorskip("flwr", reason="Flower is not installed")
    from flwr.supercore.object_store.sql_object_store import SqlObjectStore
    from sqlalchemy import Engine, event, text

    from fedsys.flower.processes.database import PRAGMAS, _shrink, small_caches

    small_caches()
    try:
        store = SqlObjectStore(str(tmp_path / "state.db"))
        store.initialize()
        for _ in range(2):  # a connection that is new, and one that was used before
            with store.session() as session:
                found = {name: session.scalar(text(f"PRAGMA {name}")) for name in PRAGMAS}
                assert session.scalar(text("PRAGMA journal_mode")) == "wal"
            assert found == PRAGMAS
    finally:
        event.remove(Engine, "checkout", _shrink)
