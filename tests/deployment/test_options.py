"""`fedsys bank join` and `fedsys federation serve` with the options that write files."""

import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from fedsys.cli import command
from fedsys.clients.bank.home import BankHome
from fedsys.clients.bank.home import Facts as BankFacts
from fedsys.errors import UsageError
from fedsys.federation.home import Facts, Home
from fedsys.tables import Column, Label, Schema
from fedsys.trust.keys import make_keys

SCHEMA = Schema(label=Label("late"), columns=(Column("age", "number"),))


@pytest.fixture
def home(tmp_path):
    """A federation and a bank of an ordinary user's, in one home; not below /tmp."""
    base = (Path("/var/lib") if os.geteuid() == 0 else Path.home()) / tmp_path.name
    base.mkdir()
    key = make_keys(tmp_path / "keys").public.signing
    facts = BankFacts("bank-a", "eu-credit", "fl.example.org:8443", key, "/srv/rows.csv")
    BankHome.create(base / "banks" / "bank-a@eu-credit", facts, SCHEMA, b"a certificate")
    made = base / "federations" / "eu-credit"
    Home.create(made, Facts("eu-credit", "fl.example.org", 8443, "0.0.0.0", 3), SCHEMA)
    if os.geteuid() == 0:
        for folder in (base / "banks" / "bank-a@eu-credit", made):
            os.chown(folder, 10001, 10001)
    yield base
    shutil.rmtree(base)


def fedsys(*words):
    """What a command prints. Raises what it raises."""
    done = CliRunner().invoke(
        command, [str(word) for word in words], catch_exceptions=False, standalone_mode=False
    )
    if done.exception:
        raise done.exception
    assert done.return_value == 0
    return done.stdout


@pytest.mark.parametrize("kind", ["systemd", "compose", "kubernetes"])
@pytest.mark.parametrize("side", [("bank", "join"), ("federation", "serve")])
def test_both_sides_write_the_files_and_say_what_to_do(kind, side, home, tmp_path):
    words = (*side, f"--{kind}", "--into", tmp_path / "new", "--home", home)
    said = json.loads(fedsys(*words, "--json"))
    assert said["files"] and said["next"]
    for path, what in said["files"].items():
        assert what == "written" and Path(path).is_file()
    again = fedsys(*words)
    assert "unchanged" in again and "next:" in again and "written" not in again


def test_what_was_edited_stays_unless_forced(home, tmp_path):
    words = ("bank", "join", "--systemd", "--into", tmp_path / "new", "--home", home)
    fedsys(*words)
    (unit,) = (tmp_path / "new").iterdir()
    unit.write_text(unit.read_text() + "# mine\n")
    with pytest.raises(UsageError, match="was edited"):
        fedsys(*words)
    fedsys(*words, "--force")
    assert "# mine" not in unit.read_text()


def test_what_goes_with_joining_is_remembered_for_the_service(home, tmp_path):
    words = ("--systemd", "--into", tmp_path / "new", "--home", home)
    fedsys("bank", "join", "--source", "env:ROWS", "--query", "SELECT 1", "--approve-jobs", *words)
    facts = BankHome.open(home / "banks" / "bank-a@eu-credit").facts
    assert (facts.source, facts.query, facts.approve) == ("env:ROWS", "SELECT 1", "always")
    (unit,) = (tmp_path / "new").iterdir()
    assert "EnvironmentFile=/etc/fedsys/fedsys-bank-a-eu-credit.env" in unit.read_text()


def test_an_option_of_files_alone_is_refused(home):
    with pytest.raises(UsageError, match="--memory goes with --systemd"):
        fedsys("bank", "join", "--memory", "4G", "--home", home)
