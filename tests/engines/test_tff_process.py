"""The child of the engine for TensorFlow Federated: every end of it, and of its parent.

The child is played by a script that speaks the same messages and leaves a process behind, as TFF's
own worker is left, so these tests need no TensorFlow Federated.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from fedsys.engines.tff import process
from fedsys.engines.tff.child.wire import Closed, receive, send
from fedsys.engines.tff.process import Child
from fedsys.errors import EngineError

from .processes import eventually, gone, keepers, session

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PLAYED = f"""#!{sys.executable}
import os, signal, socket, subprocess, sys, time
import numpy as np
from child.wire import receive, send
channel = socket.socket(fileno=int(sys.argv[-1]))
left = subprocess.Popen(["sleep", "1000"])
print("it began", flush=True)
{{begin}}
send(channel, {{{{"ready": np.array(["0", "1"])}}}})
while True:
    asked = receive(channel)
    {{answer}}
"""
ECHO = "send(channel, {**asked, 'pids': np.array([os.getpid(), left.pid])})"


@pytest.fixture
def played(tmp_path, monkeypatch):
    """Makes a child that does as told at its start and for each message."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def plays(begin: str = "", answer: str = ECHO, timeout: float = 60.0) -> Child:
        script = tmp_path / "played"
        script.write_text(PLAYED.format(begin=begin, answer=answer))
        script.chmod(0o755)
        return Child(script, timeout)

    return plays


kept: list[int] = []
"""The keepers of the children that `works` has started, of those that failed as well."""


def works(child: Child, *messages: str) -> list[int]:
    """Starts a child, sends it messages and ends it; what ran under its keeper."""
    pids: list[int] = []
    with child:
        child.start()
        kept.extend(keepers(os.getpid()))
        for message in messages:
            pids = child.ask(message, {"x": np.zeros(3)})["pids"].tolist()
    return pids


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_arrays_come_back_and_nothing_is_left(played):
    sent = {"rows": np.arange(6, dtype=np.int32), "x": np.ones((2, 3), np.float32), "one": 3.5}
    with played() as child:
        assert child.start()["ready"].tolist() == ["0", "1"]
        for _ in range(3):
            back = child.ask("round 1", sent)
            for name, value in sent.items():
                np.testing.assert_array_equal(back[name], value)
                assert back[name].dtype == np.asarray(value).dtype
        pids = back["pids"].tolist()
        assert not any(map(gone, pids)) and child.folder.exists()
    assert eventually(lambda: all(map(gone, pids)))
    assert not child.folder.exists()


def test_what_runs_under_a_keeper_has_no_network_but_its_own(played):
    """TFF's worker listens on every address that it has."""
    names = "np.array([name for _, name in socket.if_nameindex()])"
    answer = (
        f"send(channel, {{'names': {names}, 'space': np.array(os.readlink('/proc/self/ns/net'))}})"
    )
    with played(answer=answer) as child:
        child.start()
        told = child.ask("round 1", {"x": np.zeros(1)})
        if "no network of its own" in (child.folder / process.LOG).read_text():
            pytest.skip("this system lets nobody make a network")
        assert told["names"].tolist() == ["lo"]
        assert str(told["space"]) != os.readlink("/proc/self/ns/net")


def test_a_large_message_arrives_whole(played):
    large = np.random.default_rng(0).normal(size=3_000_000)
    with played() as child:
        child.start()
        np.testing.assert_array_equal(child.ask("round 1", {"large": large})["large"], large)


ENDS = {
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "was killed, as happens when memory"),
    "crashed": ("os.abort()", r"crashed \(SIGABRT\)"),
    "raised": ("raise ValueError('no such thing')", "code 1: ValueError: no such thing"),
    "left": ("sys.exit(3)", "code 3: it began"),
    "told": ("send(channel, {'error': np.array('Oops: what it was')})", "Oops: what it was"),
    "garbled": ("channel.sendall(b'0' * 7); channel.close(); time.sleep(1); sys.exit(4)", "code 4"),
}


@pytest.mark.parametrize("code, expected", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("when", ["start", "round"])
def test_a_child_that_fails_is_one_line_with_its_log(played, code, expected, when):
    child = played(begin=code) if when == "start" else played(answer=code)
    doing = "starting" if when == "start" else "round 7"
    with pytest.raises(EngineError, match=rf"engine 'tff': {doing}: .*{expected}") as caught:
        works(child, "round 7")
    message = str(caught.value)
    log = child.folder / process.LOG
    assert "\n" not in message and message.endswith(f"its log is {log}")
    assert "it began" in log.read_text()
    assert left_in(child.folder) == [process.LOG]
    if when == "round":
        assert eventually(lambda: not session(kept[-1]))


def test_a_child_that_does_not_answer_is_ended(played):
    child = played(answer="time.sleep(1000)", timeout=1.0)
    with pytest.raises(EngineError, match=r"round 2: no answer within 1 s: .* tff:2"):
        works(child, "round 2")
    assert eventually(lambda: not session(kept[-1]))


def test_a_child_that_does_not_even_listen_is_ended(played):
    ready = "send(channel, {'ready': np.array(['0', '1'])})"
    child = played(begin=f"{ready}; time.sleep(1000)", timeout=1.0)
    child.start()
    with pytest.raises(EngineError, match="round 2: no answer within 1 s"):
        child.ask("round 2", {"x": np.zeros(3_000_000)})
    child.end()


def test_ctrl_c_ends_it_too(played, monkeypatch):
    def interrupted(channel):
        raise KeyboardInterrupt

    child = played()
    with child:
        child.start()
        pids = child.ask("round 1", {"x": np.zeros(1)})["pids"].tolist()
        monkeypatch.setattr(process, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            child.ask("round 2", {"x": np.zeros(1)})
    assert eventually(lambda: all(map(gone, pids)))
    assert not child.folder.exists()


def test_ended_twice_is_ended(played):
    child = played()
    child.start()
    child.end()
    child.end()
    assert not child.folder.exists()


@pytest.mark.parametrize("also_its_keeper", [False, True])
def test_a_child_that_is_killed_between_rounds_is_told_so(played, also_its_keeper):
    with played() as child:
        child.start()
        (keeper,) = keepers(os.getpid())
        pids = child.ask("round 1", {"x": np.zeros(1)})["pids"].tolist()
        if also_its_keeper:
            os.kill(keeper, signal.SIGKILL)
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(EngineError, match="round 2: its process was killed"):
            child.ask("round 2", {"x": np.zeros(1)})
    assert eventually(lambda: not session(keeper))


def test_a_folder_that_cannot_be_made_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(EngineError, match=re.escape(f"{tmp_path / 'nowhere'}: cannot be written")):
        Child(Path(sys.executable), 1.0)


def test_a_full_disk_is_told_with_the_place(played, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(process, "Kept", full)
    child = played()
    with pytest.raises(EngineError, match="No space left on device: make room there, or name"):
        works(child)
    assert not child.folder.exists()


PARENT = """
import sys, tempfile
from pathlib import Path
import numpy as np
from fedsys.engines.tff.process import Child
tempfile.tempdir = sys.argv[2]
with Child(Path(sys.argv[1]), 600.0) as child:
    child.start()
    pids = child.ask("round 1", {"x": np.zeros(1)})["pids"]
    print(*pids, child.folder, flush=True)
    child.ask("round 2", {"sleep": np.zeros(1)})
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_however_the_parent_ends_nothing_is_left(played, tmp_path, number):
    """Not the child, which is amid a round, nor what it started, nor their folder."""
    played(answer=f"time.sleep(1000) if 'sleep' in asked else {ECHO}").end()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "played"), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert parent.stdout is not None
        *numbers, folder = parent.stdout.readline().split()
        pids = [int(each) for each in numbers]
        (keeper,) = keepers(parent.pid)
        assert len(session(keeper)) == 3 and set(pids) < session(keeper)
        assert Path(folder).exists()
    finally:
        parent.send_signal(number)
        parent.wait()
    assert eventually(lambda: not session(keeper))
    assert all(map(gone, pids))
    assert eventually(lambda: not Path(folder).exists())


def test_a_message_that_is_cut_short_is_an_end():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(theirs, {"x": np.zeros(3)})
        assert receive(ours)["x"].tolist() == [0, 0, 0]
        theirs.sendall(b"\0" * 5)
        theirs.close()
        with pytest.raises(Closed):
            receive(ours)
        with pytest.raises(Closed):
            send(ours, {"x": np.zeros(3)})


def test_objects_do_not_travel():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(theirs, {"x": np.array([{}], dtype=object)})
        with pytest.raises(ValueError, match="allow_pickle"):
            receive(ours)
