"""Functions in a process of their own: values, mistakes, crashes, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fedsys.edge.conversion import worker
from fedsys.errors import DataError, ExportError

HERE = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def call(name: str, **options):
    return worker.call(f"errands:{name}", doing="an errand", environment=HERE, **options)


def test_values_arrive_as_they_were(tmp_path):
    sent = {
        "none": None,
        "numbers": [1, 2.5, True, float("inf")],
        "text": "ä\n",
        "bytes": b"\0\xff",
        "path": tmp_path,
        "array": np.arange(6, dtype=np.int8).reshape(2, 3).T,
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3)),
        "nested": {"{}": {"bytes": "path", "array": [b"", {}]}},
    }
    came = call("echo", value=sent)
    assert came.keys() == sent.keys()
    for key in ("array", "scalar", "empty"):
        arrived, wanted = came.pop(key), sent.pop(key)
        assert arrived.dtype == wanted.dtype and arrived.shape == wanted.shape
        assert (arrived == wanted).all()
    assert came == sent


def test_our_errors_arrive_as_they_were():
    with pytest.raises(DataError, match=r"^mend the data$"):
        call("refuse")


def test_other_errors_name_what_was_being_done():
    with pytest.raises(ExportError, match=r"^an errand: KeyError: 'lost it'") as error:
        call("stumble")
    assert "Traceback" in error.value.__notes__[0]


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGSEGV, "crashed (SIGSEGV)"), (signal.SIGKILL, "killed, as happens when memory")],
)
def test_a_crash_is_one_line(number, said):
    with pytest.raises(ExportError) as error:
        call("crash", number=int(number))
    assert str(error.value).startswith("an errand: the worker process ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_exit_is_told_with_the_last_line():
    with pytest.raises(ExportError, match=r"ended with code 3: out of ideas$"):
        call("leave")


def test_noise_is_swallowed(capfd):
    assert call("shout") == "done"
    assert capfd.readouterr() == ("", "")


def test_what_takes_too_long_is_killed(tmp_path):
    with pytest.raises(ExportError, match="not done after 1 s"):
        call("sleep", mark=tmp_path / "pid", timeout=1)
    gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_its_parent(number, tmp_path):
    """Whether the parent is interrupted or killed."""
    mark = tmp_path / "pid"
    code = (  # what starts the tests may have had interrupts ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"import test_worker, pathlib; test_worker.call('sleep', mark=pathlib.Path({str(mark)!r}))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(mark)],
        env={**os.environ, **HERE},
        stderr=subprocess.DEVNULL,
    )
    until(lambda: mark.exists() and mark.read_text() != "")
    child = int(mark.read_text())
    os.kill(child, 0)
    parent.send_signal(number)
    assert parent.wait(60) != 0
    gone(child)


def gone(pid: int) -> None:
    """Waits until a process is no more, or a zombie that nobody has collected."""

    def ended() -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        return state == "Z"

    until(ended)


def until(happened) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)
