"""The environment of TensorFlow Federated: made whole or not at all, and a clear line where not.

Its Python, pip and first round are played by a script, so nothing is fetched; that a real install
works is for whoever runs `fedsys engines install tff`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedsys.engines.tff import Tff, environment
from fedsys.errors import EngineError

from .processes import eventually, gone

PLAYED = f"""#!{sys.executable}
import os, pathlib, shutil, sys, time
place = pathlib.Path({{place!r}})
with open(place / "asked", "a") as asked:
    print(os.getpid(), *sys.argv[1:], file=asked)
play = (place / "play").read_text() if (place / "play").exists() else ""
if "venv" in sys.argv:
    folder = pathlib.Path(sys.argv[-1])
    (folder / "bin").mkdir(parents=True)
    shutil.copy(__file__, folder / "bin" / "python")
elif "pip" in sys.argv:
    print("Collecting absl-py==1.4.0 (from -r requirements.txt (line 1))")
    print("Installing collected packages: absl-py", flush=True)
    exec(play)
elif "child.check" in sys.argv:
    exec(play.replace("sys.exit(1)", "pass") if "late" not in play else play)
"""


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Sets what the installer does, in Python, after it has begun."""
    place, home = tmp_path / "played", tmp_path / "home"
    place.mkdir()
    script = place / "python3.11"
    script.write_text(PLAYED.format(place=str(place)))
    script.chmod(0o755)
    monkeypatch.setenv("FEDSYS_HOME", str(home))
    monkeypatch.setattr(environment, "interpreter", lambda: str(script))
    monkeypatch.setattr(environment, "NEEDED", 0)

    def plays(code: str) -> None:
        (place / "play").write_text(code)

    plays.script, plays.home, plays.asked = script, home, place / "asked"
    return plays


def failing(*arguments) -> str:
    """The line that an install ends in."""
    with pytest.raises(EngineError) as caught:
        environment.install(lambda line: None)
    assert environment.installed() is None
    message = str(caught.value)
    assert "\n" not in message and message.startswith("engine 'tff': ")
    return message


def test_every_package_is_pinned_with_hashes_and_no_place_to_get_it_from():
    text = "\n".join(environment._pins())
    pins = re.split(r"\n(?=\S)", text)
    assert len(pins) > 50
    for pin in pins:
        assert re.match(r"[a-z0-9-]+==[0-9a-z.]+ \\\n", pin), pin
        hashes = pin.splitlines()[1:]
        assert hashes
        for line in hashes:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), pin
    assert "://" not in environment.REQUIREMENTS.read_text()
    assert environment.pinned("tensorflow-federated") == "0.87.0"
    assert environment.pinned("tensorflow").startswith("2.14.")


def test_the_place_is_named_after_what_is_in_it(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDSYS_HOME", str(tmp_path))
    text, before = environment.REQUIREMENTS.read_text(), environment.place()
    assert before.parent == tmp_path
    other = tmp_path / "requirements.txt"
    monkeypatch.setattr(environment, "REQUIREMENTS", other)
    other.write_text("# what is said about them does not count\n" + text)
    assert environment.place() == before
    other.write_text(text.replace("six==1", "six==2"))
    assert environment.place() != before


def test_the_data_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDSYS_HOME", str(tmp_path / "own"))
    assert environment.data_folder() == tmp_path / "own"
    monkeypatch.delenv("FEDSYS_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert environment.data_folder() == tmp_path / "share" / "fedsys"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert environment.data_folder() == Path.home() / ".local" / "share" / "fedsys"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert environment.data_folder() == Path.home() / "Library" / "Application Support" / "fedsys"


def test_an_install_says_how_it_goes_and_is_then_there(play):
    assert environment.installed() is None
    assert Tff().status().missing == "TensorFlow Federated is not installed"
    said = []
    environment.install(said.append)
    found = environment.installed()
    assert found is not None and found.folder == environment.place()
    assert Tff().status().version == "tensorflow-federated 0.87.0"
    assert not Tff().status().missing
    assert re.search(r"1 of \d+: absl-py==1.4.0", "\n".join(said))
    assert said[-1].startswith("installed in ") and str(found.folder) in said[-1]
    asked = [line.split()[1:] for line in play.asked.read_text().splitlines()]
    assert [line[line.index("-m") + 1] for line in asked] == ["venv", "pip", "child.check"]
    for option in ("--require-hashes", "--no-deps", "--only-binary", "--no-input"):
        assert option in asked[1]
    assert asked[1][-2:] == ["-r", str(environment.REQUIREMENTS)]
    left = {path.name for path in play.home.iterdir()}
    assert left == {found.folder.name, "tff-install.lock"}


def test_what_is_there_is_not_installed_again(play):
    environment.install(lambda line: None)
    before, said = play.asked.read_text(), []
    environment.install(said.append)
    assert play.asked.read_text() == before
    assert said == [f"already installed: {environment.place()}"]


def test_one_whose_python_is_gone_is_made_anew(play):
    environment.install(lambda line: None)
    environment._python(environment.place()).unlink()
    assert environment.installed() is None
    environment.install(lambda line: None)
    assert environment.installed() is not None


def test_half_of_one_is_not_taken_for_one(play):
    half = environment.place().with_name(f"{environment.place().name}.part")
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").write_text("")
    (half / "left").write_text("")
    assert environment.installed() is None
    environment.install(lambda line: None)
    assert environment.installed() is not None
    assert not half.exists() and not (environment.place() / "left").exists()


FAILURES = {
    "no network": (
        "ERROR: Could not find a version that satisfies the requirement absl-py==1.4.0\\n"
        "ERROR: No matching distribution found for absl-py==1.4.0",
        "the package index was not reached: look at the network and at pip's settings",
    ),
    "lost": (
        "ReadTimeoutError: HTTPSConnectionPool(host=..., port=443): Read timed out.",
        "the package index was not reached",
    ),
    "no room": (
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
        "the disk is full: make room in ",
    ),
    "swapped": (
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
        "a package is not the one that was pinned: look at pip's index settings",
    ),
    "other": ("ERROR: something else", "not installed: something else: mend that and run"),
    "silent": ("", "not installed: "),
}


@pytest.mark.parametrize("said, expected", FAILURES.values(), ids=FAILURES)
def test_a_failed_install_is_one_line_and_leaves_nothing_but_its_log(play, said, expected):
    play(f"print({said!r}.replace('\\\\n', chr(10)), flush=True)\nsys.exit(1)")
    message = failing()
    assert expected in message
    log = play.home / environment.LOG
    assert str(log) in message and "Collecting absl-py" in log.read_text()
    assert {path.name for path in play.home.iterdir()} == {environment.LOG, "tff-install.lock"}
    play("")
    environment.install(lambda line: None)
    assert environment.installed() is not None


def test_an_installer_that_is_killed_is_told_so(play):
    play("import signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert "the installer was killed" in failing()


def test_an_environment_whose_first_round_is_wrong_is_not_taken(play):
    play(
        "late = 'child.check' in sys.argv\nif late: sys.exit('ERROR: a round came to 3, not to 4')"
    )
    assert "a round came to 3, not to 4" in failing()


def test_another_install_at_work_is_named(play):
    with environment._alone(play.home):
        assert f"{play.home}: another fedsys engines install tff is at work" in failing()
    environment.install(lambda line: None)


def test_too_little_room_is_said_before_anything_begins(play, monkeypatch):
    monkeypatch.setattr(environment, "NEEDED", 2**60)
    assert "are needed: make room there, or name another FEDSYS_HOME" in failing()
    assert not play.asked.exists()


def test_a_home_that_cannot_be_written_is_named(play, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDSYS_HOME", str(tmp_path / "file" / "home"))
    message = failing()
    assert str(tmp_path / "file" / "home") in message and "FEDSYS_HOME" in message


def test_a_python_and_a_platform_without_it_are_named(monkeypatch):
    monkeypatch.setattr(environment.sys, "version_info", (3, 13, 0, "final", 0))
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    monkeypatch.setattr(environment.sys, "platform", "linux")
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    with pytest.raises(EngineError, match=r"no python3\.11 on the PATH: install one and run"):
        environment.interpreter()
    monkeypatch.setattr(environment.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert environment.interpreter() == "/usr/bin/python3.11"
    monkeypatch.setattr(environment.platform, "machine", lambda: "aarch64")
    with pytest.raises(EngineError, match=r"Linux on x86-64 alone, not for .* on aarch64"):
        environment.interpreter()


INSTALL = """
import sys
from fedsys.engines.tff import environment
environment.interpreter = lambda: sys.argv[1]
environment.NEEDED = 0
environment.install(print)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_install_that_ends_early_leaves_no_process_and_blocks_nothing(play, number):
    play("time.sleep(600)")
    child = subprocess.Popen(
        [sys.executable, "-c", INSTALL, str(play.script)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "FEDSYS_HOME": str(play.home)},
    )
    try:
        log = play.home / environment.LOG
        assert eventually(lambda: log.exists() and "Installing" in log.read_text())
        pip = int(play.asked.read_text().splitlines()[-1].split()[0])
        assert not gone(pip) and environment.installed() is None
    finally:
        child.send_signal(number)
        child.wait()
    assert eventually(lambda: gone(pip))
    assert environment.installed() is None
    play("")
    environment.install(lambda line: None)
    assert environment.installed() is not None
    assert not list(play.home.glob("*.part"))
