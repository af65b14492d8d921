"""The command line as a user meets it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fedsys
from fedsys.cli import KEYS
from fedsys.experiment import Experiment

from .conftest import Cli, Nursery, left, lines

pytestmark = pytest.mark.usefixtures("no_pictures")

FEDSYS = str(Path(sys.executable).parent / "fedsys")
QUICK = ("--clients", 6, "--cohort", 3, "--rounds", 3, "--epochs", 1, "--compiler", "graph")


def test_one_command_in_a_process_of_its_own(tmp_path):
    """The whole way, nothing stubbed: a result, a file that says the same, a quiet stderr."""
    found = subprocess.run(
        [FEDSYS, "simulate", *map(str, QUICK), "--partition=dirichlet:0.5", "--seed=7", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    said = json.loads(found.stdout)  # one object and nothing else
    assert list(said) == ["run", "rounds", "metrics", "seconds", "folder"]
    folder = tmp_path / said["folder"]
    assert said["run"] == folder.name and said["rounds"] == 3
    assert said["metrics"] == lines(folder)[-1]
    assert 0 < said["seconds"] < 60
    # The first line, the partition, the first round: nothing of TensorFlow's.
    assert re.fullmatch(
        r"digits: 6 clients, 3 a round, 4,810 parameters, graph, \d+ threads\n"
        r"rows a client: .*\nlabels a client: .*\nheterogeneity: .*\n"
        r"(round \d/3: train loss .*\n)+",
        found.stderr,
    )
    assert "<svg" in (folder / "report.html").read_text()
    assert "<svg" in (folder / "partition.svg").read_text()


@pytest.mark.parametrize("command", ["", "simulate", "runs", "compare", "report"])
def test_help_of_every_command(cli: Cli, command):
    outcome = cli(*command.split(), "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(f"Usage: fedsys {command}".rstrip())
    assert outcome.err == ""
    assert cli(*command.split(), "-h") == outcome


def test_without_a_command_it_shows_the_help(cli: Cli):
    assert cli() == cli("--help")
    assert cli("--version").out == "fedsys, version 0.1.0\n"


@pytest.mark.parametrize(
    "arguments",
    ["['--help']", "['simulate', '--help']", "['simulate', '--task', 'nope']", "['runs']"],
)
def test_what_trains_nothing_loads_nothing_heavy(tmp_path, arguments):
    code = (
        "import sys\nfrom fedsys.cli import main\n"
        f"sys.argv = ['fedsys', *{arguments}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = ('tensorflow', 'keras', 'pandas', 'sklearn', 'matplotlib', 'scipy')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert found.stdout.splitlines()[-1] == "[]"


def test_importing_fedsys_loads_next_to_nothing(tmp_path):
    code = "import sys, fedsys; print([m for m in ('numpy', 'keras') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_every_option_reaches_its_key(cli: Cli):
    Path("data.csv").write_text(
        "a,b,who,y\n" + "".join(f"{i},{i % 7},{'uvw'[i % 3]},{i % 2}\n" for i in range(90))
    )
    options = {
        "task": "table",
        "data": "data.csv",
        "model": "logistic",
        "label": "y",
        "client_column": "who",
        "clients": "3",
        "cohort": "2",
        "partition": "natural",
        "strategy": "fedavgm:0.5",
        "aggregator": "clipped:2.5",
        "epochs": "2",
        "steps": "3",
        "batch": "4",
        "rate": "0.25",
        "optimizer": "sgd:0.1,0.01",
        "clip": "2.5",
        "weighting": "uniform",
        "rounds": "2",
        "evaluate": "2",
        "evaluate_clients": "1",
        "quorum": "0.75",
        "faults": "shape:0.05",
        "compiler": "graph",
        "seed": "11",
    }
    of_tables = {"schema", "source"}  # in tests/tasks/test_tables.py
    assert options.keys() == KEYS.keys() - of_tables
    arguments = [w for name, v in options.items() for w in (f"--{name.replace('_', '-')}", v)]
    outcome = cli("simulate", *arguments, "--quiet", "--json", "--workers", 2, "--out", "deep/out")
    assert (outcome.code, outcome.err) == (0, "")
    folder = Path(outcome.json["folder"])
    assert folder.parent == Path("deep/out")
    table = fedsys.Run.open(folder).experiment.table()
    for name, value in options.items():
        found = table
        for part in KEYS[name][0].split("."):
            found = found[part]
        first = value.partition(":")[0]
        assert (found["name"] if isinstance(found, dict) else str(found)) == first, name
    assert table["strategy"]["momentum"] == 0.5
    assert table["local"]["optimizer"] == {"name": "sgd", "momentum": 0.1, "decay": 0.01}
    assert fedsys.Run.open(folder).facts["workers"] == 2


def test_a_file_with_overrides(cli: Cli):
    Path("my.toml").write_text(
        'clients = 6\ncohort = 3\nrounds = 9\nseed = 5\nstrategy = "fedprox:0.2"\n'
        'compiler = "graph"\n[local]\nepochs = 1\nrate = 0.05\n[task]\nname = "digits"\n'
        'model = "logistic"\n'
    )
    arguments = ("--rounds", 2, "--set", "strategy.mu=0.3", "--set", "local.batch=20")
    outcome = cli("simulate", "my.toml", *arguments, "--json", "--quiet")
    assert outcome.code == 0
    local = fedsys.Local(epochs=1, rate=0.05, batch=20)
    expected = Experiment(
        clients=6, cohort=3, rounds=2, seed=5, strategy="fedprox:0.3", local=local,
        task="digits:logistic", compiler="graph",
    )  # fmt: skip
    assert fedsys.Run.open(Path(outcome.json["folder"])).experiment == expected


def test_another_task_on_the_command_line_takes_no_options_of_the_files(cli: Cli):
    Path("my.toml").write_text('[task]\nname = "heart"\ndata = "nowhere"\n')
    assert cli("simulate", "my.toml", "--task", "digits", *QUICK).code == 0


def test_quiet_is_silent_and_still_gives_the_result(cli: Cli):
    outcome = cli("simulate", *QUICK, "--quiet")
    assert outcome.err == ""
    assert "test accuracy" in outcome.out
    assert "report: runs/digits-fedavg-" in outcome.out


def test_resume_with_json_and_more_rounds(cli: Cli):
    first = cli("simulate", *QUICK, "--json").json
    outcome = cli("simulate", "--resume", first["run"], "--rounds", 5, "--json")
    assert outcome.json["rounds"] == 5
    assert outcome.json["folder"] == first["folder"]
    assert outcome.json["seconds"] > first["seconds"]
    assert "going on after round 3 of 5" in outcome.err
    whole = cli("simulate", *QUICK[:4], "--rounds", 5, *QUICK[6:], "--json").json
    assert left(Path(whole["folder"]))["checkpoints/round-00000005.checkpoint"] == left(
        Path(first["folder"])
    ).get("checkpoints/round-00000005.checkpoint")


def test_json_holds_null_for_what_is_no_number(cli: Cli):
    arguments = ("--clients", 400, "--cohort", 1, "--partition", "dirichlet:0.001", "--rounds", 1)
    for seed in range(20):
        outcome = cli("simulate", *arguments, "--seed", seed, "--compiler", "graph", "--json")
        if outcome.json["metrics"]["empty"]:
            assert outcome.json["metrics"]["train_loss"] is None
            break
    else:
        pytest.fail("no cohort was empty")
    folder = outcome.json["folder"]
    assert "not a number" in cli("simulate", "--resume", folder).out


def test_runs_compare_and_report(cli: Cli, monkeypatch):
    one = cli("simulate", *QUICK, "--json").json["run"]
    two = cli("simulate", *QUICK, "--strategy", "fedprox:0.5", "--json").json["run"]
    monkeypatch.delenv("COLUMNS")  # as in a pipe: names are not folded
    listed = cli("runs").out
    assert listed.index(one) < listed.index(two)  # oldest first
    assert listed.count("done") == 2
    told = cli("compare", one, two, "--html", "page.html")
    assert told.code == 0
    assert "strategy.mu" in told.out
    assert told.out.rstrip().endswith("page.html")
    assert "<html" in Path("page.html").read_text()
    assert cli("report", one).out == f"runs/{one}/report.html\n"
    assert cli("report", f"runs/{one}").out == f"runs/{one}/report.html\n"


def test_two_at_once_get_two_folders(nursery: Nursery):
    children = [nursery.start("simulate", *QUICK, "--quiet", "--json") for _ in range(3)]
    outcomes = [child.wait() for child in children]
    assert [outcome.code for outcome in outcomes] == [0, 0, 0], outcomes
    folders = {outcome.json["folder"] for outcome in outcomes}
    assert len(folders) == 3
    first, *others = (left(Path(folder)) for folder in folders)
    assert all(first == other for other in others)
