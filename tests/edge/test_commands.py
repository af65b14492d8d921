"""`fedsys export`, `inspect` and `verify` as a user meets them, without what they do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ..conftest import Cli


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
