"""`fedsys engines`: what is there, what is missing, and the command for it."""

from __future__ import annotations

import json
import subprocess

import pytest
from click.testing import CliRunner

from fedsys.engines import ENGINES, Compiled, Status, chosen
from fedsys.engines import install as installing
from fedsys.engines.commands import engines
from fedsys.errors import EngineError, UsageError


def ask(*arguments: str):
    return CliRunner().invoke(engines, list(arguments))


@pytest.fixture
def without_tensorflow(monkeypatch):
    lacking = Status("", "tensorflow is not installed")
    monkeypatch.setattr(Compiled, "status", lambda self: lacking)


def test_every_engine_is_listed_with_what_it_stands_on():
    said = ask().output
    for name in ENGINES.members:
        assert f"\n{name} " in said
    assert "tensorflow 2." in said


def test_json_tells_the_same():
    said = json.loads(ask("--json").output)
    assert list(said) == list(ENGINES.members)
    assert said["compiled"]["version"].startswith("tensorflow 2.")
    assert said["compiled"]["missing"] == said["compiled"]["command"] == ""


def test_what_is_missing_comes_with_its_command(without_tensorflow):
    assert "tensorflow is not installed: fedsys engines install compiled" in ask().output
    assert json.loads(ask("--json").output)["compiled"]["version"] == ""


def test_an_engine_that_lacks_something_is_not_begun(without_tensorflow):
    with pytest.raises(
        EngineError,
        match="engine 'compiled': tensorflow is not installed: fedsys engines install compiled",
    ):
        chosen("compiled")


def test_an_unknown_engine_is_named():
    with pytest.raises(UsageError, match="unknown engine 'compield'; did you mean 'compiled'"):
        chosen("compield")
    assert "did you mean 'compiled'" in ask("install", "compield").output


def test_what_is_there_is_not_installed_again(monkeypatch):
    monkeypatch.setattr(installing, "install_packages", lambda *_: pytest.fail("installed"))
    assert ask("install", "compiled").output.startswith("compiled: tensorflow 2.")


def test_requirements_are_those_of_the_package():
    (ray,) = installing.requirements("ray")
    assert ray.startswith("ray>=")
    assert installing.requirements("nonsense") == []


def test_pip_is_run_in_this_environment_and_its_complaint_told(monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command)
        said = "Collecting ray\nERROR: no matching distribution\n"
        return subprocess.CompletedProcess(command, 1, said)

    monkeypatch.setattr(subprocess, "run", run)
    lines: list[str] = []
    with pytest.raises(EngineError, match=r"'ray': ray>=.*: not installed: ERROR: no matching"):
        installing.install_packages("ray", lines.append)
    assert asked[0][1:4] == ["-m", "pip", "install"] and asked[0][-1].startswith("ray>=")
    assert lines and "installing ray>=" in lines[0]


def test_an_environment_without_pip_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(installing, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="has no pip: install ray>="):
        installing.install_packages("ray", print)
