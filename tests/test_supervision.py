"""Children that are kept alive, and end with us."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedsys.child import said, say
from fedsys.errors import EngineError, IdentityError, NetworkError
from fedsys.supervision import Supervised, end, exit_code, how_it_ended, start

CHILD = """
import sys, time
from pathlib import Path
from fedsys.child import end_with_parent
end_with_parent()
Path(sys.argv[1]).write_text(str(__import__("os").getpid()))
time.sleep(600)
"""
PARENT = """
import sys, time
from pathlib import Path
from fedsys.supervision import Supervised
ready = Path(sys.argv[1])
command = [sys.executable, "-c", sys.argv[2], str(ready)]
with Supervised("child", lambda: command, ready.with_suffix(".log"),
                is_ready=lambda pid: ready.exists() and ready.read_text() == str(pid)):
    print("up", flush=True)
    time.sleep(600)
"""
WAIT = 60.0


def until(happened):
    end = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def child(place: Path, **options):
    def is_ready(pid: int) -> bool:
        return place.exists() and place.read_text() == str(pid)

    command = [sys.executable, "-c", CHILD, str(place)]
    return Supervised(
        "child", lambda: command, place.with_suffix(".log"), is_ready=is_ready, **options
    )


def test_a_child_is_ready_when_the_block_begins_and_gone_when_it_ends(tmp_path):
    with child(tmp_path / "pid") as process:
        pid = process.pid
        assert (tmp_path / "pid").read_text() == str(pid)
        assert alive(pid)
    assert not alive(pid)
    assert process.pid is None


def test_a_child_that_dies_is_started_again_and_that_is_said(tmp_path):
    heard = []
    with child(tmp_path / "pid", told=heard.append) as process:
        first = process.pid
        os.kill(first, signal.SIGKILL)
        until(lambda: process.starts == 2)
        process.wait_ready()
        assert process.pid not in (first, None)
    assert heard == ["child ended (SIGKILL); starting it again"]


def test_a_child_can_be_restarted(tmp_path):
    with child(tmp_path / "pid") as process:
        first = process.pid
        process.restart()
        until(lambda: process.starts == 2)
        process.wait_ready()
        assert alive(process.pid)
        assert not alive(first)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent_however_that_ends(tmp_path, number):
    place = tmp_path / "pid"
    command = [sys.executable, "-c", PARENT, str(place), CHILD]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout.readline() == "up\n"
        pid = int(place.read_text())
        assert alive(pid)
        parent.send_signal(number)
    until(lambda: not alive(pid))


def test_a_child_that_cannot_start_is_an_error_with_its_reason(tmp_path):
    place = tmp_path / "pid"
    command = [sys.executable, "-c", "print('no coffee'); raise SystemExit(3)"]

    def process(**options):
        return Supervised("child", lambda: command, place, is_ready=lambda pid: False, **options)

    what = r"child: ended by itself \(exit code 3\): see .*pid"
    with pytest.raises(EngineError, match=what), process():
        pass
    why = {"explain": lambda log: NetworkError("none left") if "no coffee" in log else None}
    with pytest.raises(NetworkError, match="none left"), process(**why):
        pass


def test_a_start_is_tried_again_where_that_is_wanted(tmp_path):
    refusals = [IdentityError("not yet"), IdentityError("not yet")]

    def before(stopping):
        if refusals:
            raise refusals.pop()

    heard = []
    options = {"before": before, "told": heard.append, "patient": lambda error: True}
    with child(tmp_path / "pid", **options) as process:
        assert alive(process.pid)
    assert not refusals
    assert heard == ["not yet; trying again until then"]
    hopeless = child(tmp_path / "pid", before=lambda stopping: _raise("for good"))
    with pytest.raises(IdentityError, match="for good"), hopeless:
        pass


def _raise(what):
    raise IdentityError(what)


def test_a_child_that_dies_all_the_time_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("fedsys.supervision.QUICK_DEATHS", 2)
    place = tmp_path / "pid"
    command = [sys.executable, "-c", "import time; time.sleep(0.2)"]
    process = Supervised("child", lambda: command, place, is_ready=lambda pid: True)
    with process:
        until(lambda: process.failure is not None)
        with pytest.raises(EngineError, match="ended by itself"):
            process.check()
    assert process.starts == 3


def test_a_child_need_not_be_waited_for_and_its_death_is_told(tmp_path):
    deaths = []
    with child(tmp_path / "pid", wait=False, died=lambda: deaths.append(1)) as process:
        process.wait_ready()
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: process.starts == 2)
        process.wait_ready()
    assert deaths == [1]
    bad = child(tmp_path / "pid", wait=False, before=lambda stopping: _raise("for good"))
    with bad:
        until(lambda: bad.failure is not None)
        with pytest.raises(IdentityError, match="for good"):
            bad.wait_ready()


def test_what_a_child_says_is_told_from_what_libraries_print(capfd):
    say("waiting for banks")
    print("I0000 00:00:1795250203.060954 port.cc:153] oneDNN")
    say("fedsys: no room")
    out = capfd.readouterr().out
    assert said(out) == ["waiting for banks", "fedsys: no room"]
    assert said(out + "2026-01-01T00:00:00Z half a li") == ["waiting for banks", "fedsys: no room"]


def started(command, place):
    """A child that is not kept alive, and its log."""
    with open(place / "log.txt", "wb") as file:
        return start(command, file), place / "log.txt"


def test_what_a_child_has_started_ends_with_it(tmp_path):
    process, log = started(["sh", "-c", "sleep 600 & echo $!; wait"], tmp_path)
    until(lambda: log.read_text().endswith("\n"))
    other = int(log.read_text())
    assert alive(other) and exit_code(process, 0.0) is None
    end(process)
    assert not alive(process.pid)
    until(lambda: not alive(other))
    end(process)  # which is nothing any more


ASKED = """
import os, sys, time
from pathlib import Path
from fedsys.child import end_with_parent
def last():
    Path(sys.argv[1]).touch()
    os._exit(0)
end_with_parent(last)
print("up", flush=True)
time.sleep(600)
"""


def test_a_child_that_is_given_time_ends_as_it_wants_to(tmp_path):
    process, log = started([sys.executable, "-c", ASKED, str(tmp_path / "done")], tmp_path)
    until(lambda: log.read_text() == "up\n")
    end(process, WAIT)
    assert (tmp_path / "done").exists() and process.returncode == 0


@pytest.mark.parametrize("last, how", [
    ("exit 3", "ended with code 3: out of ideas"),
    ("kill -ABRT $$", "crashed (SIGABRT)"),
    ("kill -KILL $$", "was killed, as happens when memory runs out"),
])  # fmt: skip
def test_how_a_child_ended_is_known_until_it_is_cleared_away(tmp_path, last, how):
    process, log = started(["sh", "-c", f"echo well; echo out of ideas; {last}"], tmp_path)
    code = exit_code(process, WAIT)
    assert how_it_ended(code, log) == how
    assert exit_code(process, 0.0) == code and Path(f"/proc/{process.pid}").exists()
    end(process)
    assert process.returncode == code
