"""Shared fixtures: the command line within this process, and real processes without the wait.

Importing TensorFlow takes seconds. Tests that need a process of its own (to kill it, to take its
disk away) fork it from a nursery, which has imported everything and done nothing else. The nursery
is this file, run as a script.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell's background jobs begin
    signal.signal(signal.SIGINT, signal.default_int_handler)

PATIENCE = 120.0  # seconds that anything here may take on a slow machine
FEDSYS = (sys.executable, "-c", "from fedsys.cli import main; main()")
TIMED = ("seconds", "evaluation_seconds")

LONG = ("test_notebooks.py", "/federation/", "/engines/", "/flower/", "test_benchmarks.py")
"""Files that take minutes come first: at the end no core then waits for the other's last file."""


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Sorts files, whose tests stay together and in their order."""
    items.sort(key=lambda item: not any(part in str(item.path) for part in LONG))


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The object on the last line of standard output."""
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1], parse_constant=_no_json)
        return found

    def refused(self, code: int, *parts: str) -> None:
        """Asserts that the command failed as it should: in one line, and nothing on stdout."""
        assert "Traceback" not in self.err
        line = self.err.splitlines()[-1]
        assert self.code == code, self.err
        assert line.startswith("fedsys: ")
        for part in parts:
            assert part in line
        assert self.out == ""


def _no_json(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(capfd: Any, monkeypatch: Any, tmp_path: Path) -> Cli:
    """Runs a command within this process, in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Outcome:
        from fedsys.cli import main

        monkeypatch.setattr(sys, "argv", ["fedsys", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as exited:
            main()
        captured = capfd.readouterr()
        return Outcome(int(exited.value.code or 0), captured.out, captured.err)

    return run


class Child:
    """A process from the nursery."""

    def __init__(self, nursery: "Nursery", pid: int, out: Path, err: Path) -> None:
        self.pid, self._nursery, self._out, self._err = pid, nursery, out, err

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> Outcome:
        code = self._nursery.ask({"wait": self.pid})
        return Outcome(code, self._out.read_text(), self._err.read_text())


class Nursery:
    """A process that forks others which run the command line."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, wanted: dict[str, Any]) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, *arguments: object, room: int | None = None) -> Child:
        """Starts `fedsys` with the arguments in the working directory.

        room: bytes that a file may have.
        """
        number = time.monotonic_ns()
        out, err = Path(f"child-{number}.out").resolve(), Path(f"child-{number}.err").resolve()
        wanted = {
            "arguments": list(map(str, arguments)),
            "folder": os.getcwd(),
            "out": str(out),
            "err": str(err),
            "room": room,
        }
        return Child(self, self.ask(wanted), out, err)

    def run(self, *arguments: object, **options: Any) -> Outcome:
        return self.start(*arguments, **options).wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)


@pytest.fixture(scope="session")
def session_nursery() -> Any:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def nursery(session_nursery: Nursery, tmp_path: Path, monkeypatch: Any) -> Nursery:
    """Real processes, in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    return session_nursery


def until(happened: Callable[[], bool]) -> None:
    """Waits for something to happen."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.002)


def lines(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of a run's metrics as they lie on the disk."""
    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def untimed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics without what the clock says."""
    return [{k: v for k, v in record.items() if k not in TIMED} for record in records]


def left(folder: Path) -> dict[str, Any]:
    """All of a run that has to be the same whenever it is run again: bytes and metrics."""
    state = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "checkpoints").rglob("*"))
        if path.is_file()
    }
    state["clients.csv"] = (folder / "clients.csv").read_bytes()
    return {**state, "metrics": untimed(lines(folder))}


@pytest.fixture
def no_pictures(monkeypatch: Any) -> None:
    """Leaves out what takes half the time of a short run, and has tests of its own."""
    from fedsys.runs import Run

    def report(run: Run) -> Path:
        path = run.folder / "report.html"
        path.write_text("\n".join(run.facts["partition_lines"]))
        return path

    monkeypatch.setattr(Run, "report", report)
    monkeypatch.setattr("fedsys.simulation.partition_picture", lambda *_: None)
    monkeypatch.setattr("fedsys.simulation.figure_svg", lambda _: "<svg/>")


@pytest.fixture
def own_task(tmp_path: Path) -> str:
    """A task of a user's own, with batch normalisation and dropout, in a file."""
    (tmp_path / "own.py").write_text(OWN_TASK)
    return "own.py:task"


OWN_TASK = """
import keras
import numpy as np

import fedsys


def model():
    inputs = keras.Input((6,), name="inputs")
    x = keras.layers.Dense(8, name="dense")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9, name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.Dropout(0.3, name="dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="own")


def task():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 6)).astype("float32")
    y = (x[:, 0] + 2 * x[:, 1] > 0).astype("int64") + (x[:, 2] > 1)
    return fedsys.Task(
        name="own",
        model=model,
        train=fedsys.Examples(x[:240], y[:240]),
        test=fedsys.Examples(x[240:], y[240:]),
    )
"""


# --- the nursery ---------------------------------------------------------------------------------


def tend() -> None:
    """Forks children as asked, one line of JSON each, and says how they ended."""
    with open(os.devnull, "w") as nowhere:
        noise = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        import pandas  # noqa: F401
        import sklearn.datasets
        import sklearn.model_selection  # noqa: F401

        import fedsys.console
        import fedsys.simulation  # noqa: F401

        os.dup2(noise, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on the tests is not for the nursery
    for line in sys.stdin:
        wanted = json.loads(line)
        if "wait" in wanted:
            status = os.waitstatus_to_exitcode(os.waitpid(wanted["wait"], 0)[1])
            print(status, flush=True)
            continue
        pid = os.fork()
        if not pid:
            _live(wanted)
        print(pid, flush=True)


def _live(wanted: dict[str, Any]) -> None:
    import resource
    import traceback

    from fedsys.cli import main

    code = 1
    try:
        os.chdir(wanted["folder"])
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(wanted[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if wanted["room"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (wanted["room"], wanted["room"]))
        sys.argv = ["fedsys", *wanted["arguments"]]
        main()
    except SystemExit as exited:
        code = int(exited.code or 0)
    except BaseException:
        traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    tend()
