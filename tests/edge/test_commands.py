"""`fedsys export`, `inspect` and `verify` as a user meets them, without what they do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ..conftest import Cli
from .build import Value, constant, one_operator


@pytest.mark.parametrize("command", ["export", "inspect", "verify"])
def test_each_command_has_its_help(cli: Cli, command: str) -> None:
    outcome = cli(command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"Usage: fedsys {command} ")
    assert "--json" in outcome.out


def test_the_help_of_all_names_them(cli: Cli) -> None:
    out = cli("--help").out
    for command in ("export", "inspect", "verify"):
        assert f"\n  {command} " in out


@pytest.mark.parametrize(
    "arguments",
    ["['--help']", "['export', '--help']", "['export', 'x', '--target', 'nope']"],
)
def test_what_exports_nothing_loads_nothing_heavy(tmp_path: object, arguments: str) -> None:
    code = (
        "import sys\nfrom fedsys.cli import main\n"
        f"sys.argv = ['fedsys', *{arguments}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = ('tensorflow', 'keras', 'ai_edge_litert', 'ai_edge_quantizer', 'matplotlib')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=str(tmp_path), check=True
    )
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def sums(cli: Cli) -> Path:
    """A file of one operator that adds two numbers to eight."""
    first, out = Value((1, 8), scale=0.1, name="rows"), Value((1, 8), scale=0.2, name="more/Add")
    second = constant(np.arange(8), scale=0.1, name="bias")
    path = Path("sums.tflite")
    path.write_bytes(one_operator("ADD", [first, second], out))
    return path


def test_inspect_says_what_is_in_a_file(cli: Cli, sums: Path) -> None:
    outcome = cli("inspect", sums)
    assert (outcome.code, outcome.err) == (0, "")
    for word in ("sums.tflite", "rows", "int8", "ADD", "more/Add"):
        assert word in outcome.out
    told = cli("inspect", sums, "--json").json
    assert told["file_bytes"] == sums.stat().st_size
    assert [step["code"] for step in told["steps"]] == ["ADD"]


def test_a_file_is_exported_and_verified(cli: Cli, sums: Path) -> None:
    outcome = cli("export", sums, "--name", "adder", "--target", "cortex-m0")
    assert outcome.code == 0, outcome.err
    assert "writing the project" in outcome.err and "more/Add" in outcome.out
    assert outcome.out.splitlines()[-1] == "report: build/report.html"
    assert "adder_run" in Path("build/src/adder.h").read_text()
    again = cli("verify", "build", "--json")
    if again.code:  # neither a compiler nor an emulator is here
        assert "the C was run nowhere" in again.err
    else:
        assert again.json["passed"] is True
        assert "running the C" in again.err


def test_json_is_one_object_on_the_last_line(cli: Cli, sums: Path) -> None:
    outcome = cli("export", sums, "--no-verify", "--quiet", "--json", "--out", "a/b")
    assert (outcome.code, outcome.err, outcome.out.count("\n")) == (0, "", 1)
    assert (outcome.json["folder"], outcome.json["name"]) == ("a/b", "model")
    assert outcome.json == {"folder": "a/b", **json.loads(Path("a/b/report.json").read_text())}
