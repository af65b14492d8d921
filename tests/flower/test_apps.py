"""Existing Flower apps from their folders, as a user runs them."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

APPS = Path(__file__).parent / "apps"
NUMPY = APPS / "quickstart_numpy"
SETTINGS = """
[project]
name = "small"
version = "1.0.0"
[tool.flwr.app]
publisher = "me"
[tool.flwr.app.components]
serverapp = "{server}"
clientapp = "{client}"
[tool.flwr.app.config]
rounds = 1
rate = 0.5
name = "a"
[tool.flwr.app.config.deep]
er = true
"""
SERVER = """
from pathlib import Path
from flwr.app import Message, RecordDict, ConfigRecord
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    Path("said.txt").write_text(f"{len(grid.get_node_ids())} {dict(context.run_config)}")
    content = RecordDict({"config": ConfigRecord()})
    replies = grid.send_and_receive(
        Message(content, node, "query") for node in grid.get_node_ids()
    )
    SERVER_LINE
"""
CLIENT = """
from flwr.app import Message
from flwr.clientapp import ClientApp

app = ClientApp()

@app.query()
def query(message, context):
    CLIENT_LINE
    return Message(message.content, reply_to=message)
"""


@pytest.fixture
def small(tmp_path):
    """Makes a small flat app, with a line of its own in the server or the client."""

    def make(*, in_server="pass", in_client="pass", above="", name="small", **references):
        folder = tmp_path / name
        folder.mkdir()
        wanted = {"server": "server_app:app", "client": "client_app:app", **references}
        (folder / "pyproject.toml").write_text(SETTINGS.format(**wanted))
        (folder / "server_app.py").write_text(above + SERVER.replace("SERVER_LINE", in_server))
        (folder / "client_app.py").write_text(CLIENT.replace("CLIENT_LINE", in_client))
        return folder

    return make


def said(where):
    return (where / "said.txt").read_text()


def test_an_unmodified_app_runs_as_with_flower(cli, tmp_path):
    done = cli("simulate", "--app", NUMPY)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "log: runs/quickstart-numpy/log.txt"
    assert "Saving final model to disk..." in done.out
    assert "INFO :      [ROUND 3/3]" in done.err
    assert "INFO :      configure_train: Sampled 5 nodes (out of 10)" in done.err.splitlines()
    assert "\033" not in done.err  # no colours where there is no terminal
    assert not any(word in done.err for word in ("DEBUG", "WARN", "ERROR", "Ray"))
    assert len(np.load(tmp_path / "final_model.npz").files) == 2  # where the app says
    assert "[ROUND 3/3]" in (tmp_path / "runs/quickstart-numpy/log.txt").read_text()
    facts = json.loads((tmp_path / "runs/quickstart-numpy/app.json").read_text())
    assert facts["status"] == "done" and facts["nodes"] == 10 and facts["failed_messages"] == 0
    assert facts["run_config"]["num-server-rounds"] == 3


def test_a_seed_decides_everything_and_leaves_the_process_as_it_was(cli, tmp_path):
    from flwr.supercore.task_identity import TaskIdentity

    def model(*options):
        assert cli("simulate", "--app", NUMPY, "--quiet", *options).code == 0
        return (tmp_path / "final_model.npz").read_bytes()

    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), list(sys.path)
    modules = set(sys.modules)
    first = model("--seed", 3)
    assert model("--seed", 3) == first
    assert model("--seed", 4) != first
    assert (random.getstate(), np.random.get_state()[1].tolist(), list(sys.path)) == before
    assert not [name for name in set(sys.modules) - modules if name.startswith("quickstart")]
    assert TaskIdentity._run_id is None


def test_its_configuration_is_overridden_as_for_flwr_run(cli, small, tmp_path):
    folder = small()
    pairs = ("--run-config", "rounds=7 name='b c'", "--run-config", "deep.er=false")
    assert cli("simulate", "--app", folder, "--nodes", 4, *pairs).code == 0
    assert said(tmp_path) == "4 {'rounds': 7, 'rate': 0.5, 'name': 'b c', 'deep.er': False}"
    (tmp_path / "mine.toml").write_text("rate = 2\n[deep]\ner = false\n")
    assert cli("simulate", "--app", folder, "--run-config", "mine.toml").code == 0
    assert said(tmp_path) == "2 {'rounds': 1, 'rate': 2, 'name': 'a', 'deep.er': False}"


@pytest.mark.parametrize(
    "text, parts",
    [
        ("round=1", ("unknown key 'round'", "did you mean 'rounds'?")),
        ("rounds=0.5", ("rounds = 0.5 is a number", "1 is a whole number")),
        ("rounds=true", ("rounds = True is true or false",)),
        ("name=5", ("name = 5 is a whole number", "'a' is text")),
        ("name=b", ('name="b"', "quotes")),
        ("rounds", ("'rounds'", "KEY=VALUE")),
        ("rate=[1]", ("rate = [1]", "numbers, text")),
        ("no.toml", ("no.toml", "no such file")),
    ],
)
def test_a_wrong_override_is_refused(cli, small, text, parts):
    cli("simulate", "--app", small(), "--run-config", text).refused(2, "--run-config", *parts)


def test_how_many_nodes_there_are(cli, small, tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    folder = small()
    done = cli("simulate", "--app", folder)
    assert said(tmp_path).startswith("2 ") and "2 nodes, Flower's default" in done.err
    (tmp_path / "home").mkdir()
    config = tmp_path / "home/config.toml"
    config.write_text('[superlink]\ndefault = "x"\n[superlink.x]\noptions.num-supernodes = 5\n')
    done = cli("simulate", "--app", folder)
    assert said(tmp_path).startswith("5 ") and "default" not in done.err
    with open(folder / "pyproject.toml", "a") as file:
        file.write('[tool.flwr.federations]\ndefault = "y"\n')
        file.write("[tool.flwr.federations.y]\noptions.num-supernodes = 6\n")
    assert cli("simulate", "--app", folder).code == 0
    assert said(tmp_path).startswith("6 ")
    config.write_text('[superlink]\ndefault = "x"\n[superlink.x]\noptions.num-supernodes = "5"\n')
    assert cli("simulate", "--app", folder, "--nodes", 3).code == 0
    assert said(tmp_path).startswith("3 ")


def test_an_experiments_options_are_refused_by_name(cli, small):
    folder = small()
    cli("simulate", "--app", folder, "--rounds", 3).refused(2, "--rounds", "--run-config")
    cli("simulate", "file.toml", "--app", folder).refused(2, "FILE")
    cli("simulate", "--app", folder, "--set", "a=1", "--epochs", 1).refused(2, "--set, --epochs")
    cli("simulate", "--app", folder, "--resume", "x").refused(2, "--resume")
    cli("simulate", "--app", folder, "--seed", "x").refused(2, "--seed x")
    cli("simulate", "--app", folder, "--seed", 2**64).refused(2, "--seed 18446744073709551616")
    cli("simulate", "--run-config", "a=1").refused(2, "--run-config", "--app")
    cli("simulate", "--nodes", 3).refused(2, "--nodes", "--app")


def test_folders_that_hold_no_app(cli, small, tmp_path):
    cli("simulate", "--app", "nowhere").refused(2, "nowhere", "no such folder")
    (tmp_path / "file").write_text("")
    cli("simulate", "--app", "file").refused(2, "is a file")
    (tmp_path / "empty").mkdir()
    cli("simulate", "--app", "empty").refused(2, "empty", "no pyproject.toml")
    toml = small() / "pyproject.toml"
    for text, part in (
        ("[project", "is no TOML"),
        ("[project]\nname = 'a'", "has no [tool]"),
        ("[tool.flwr.app]\npublisher = 'me'", "has no [tool.flwr.app.components]"),
        ("[tool.flwr.app.components]\nserverapp = 'a:b'", "does not say 'clientapp'"),
        ("[tool.flwr.app.components]\nserverapp = 'ab'", "write it as 'module:attribute'"),
    ):
        toml.write_text(text)
        cli("simulate", "--app", toml.parent).refused(2, "pyproject.toml", part)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "part, reference, said",
    [
        ("server", "nothing:app", "there is no module 'nothing'"),
        ("server", "server_app.deeper:app", "there is no module 'server_app.deeper'"),
        ("client", "client_app:apq", "client_app has no 'apq'; did you mean 'app'?"),
        ("client", "client_app:query", "is a function, not a ClientApp"),
        ("server", "client_app:app", "is a ClientApp, not a ServerApp"),
    ],
)
def test_references_that_lead_nowhere(cli, small, part, reference, said):
    folder = small(**{part: reference})
    cli("simulate", "--app", folder, "--quiet").refused(2, f"components.{part}app", said)


def test_a_missing_package_is_named(cli, small):
    folder = small(above="\nimport no_such_package.deep\n")
    cli("simulate", "--app", folder).refused(
        12, "no_such_package", "not installed", "server_app.py, line 2", "pip install"
    )


def test_a_mistake_of_the_app_is_told_with_its_line_and_a_file_with_the_rest(cli, small, tmp_path):
    folder = small(in_server="raise ValueError('two\\nlines')")
    failed = cli("simulate", "--app", folder)
    failed.refused(8, "ValueError while the app runs: two lines", "server_app.py, line 15",
                   "runs/small/traceback.txt")  # fmt: skip
    assert "Traceback" in (tmp_path / "runs/small/traceback.txt").read_text()
    assert json.loads((tmp_path / "runs/small/app.json").read_text())["status"] == "failed"
    folder = small(name="other", above="x = (")
    cli("simulate", "--app", folder).refused(8, "SyntaxError while the app is loaded",
                                             "server_app.py, line 1")  # fmt: skip
    folder = small(name="third", in_server="raise SystemExit(4)")
    cli("simulate", "--app", folder).refused(8, "exit code 4", "server_app.py, line 15")
    folder = small(name="fourth", in_server="raise SystemExit")
    assert cli("simulate", "--app", folder).code == 0


def test_failing_clients_end_nothing_and_are_counted(cli, small, tmp_path):
    folder = small(in_client="1 / context.node_config['partition-id']")
    done = cli("simulate", "--app", folder, "--nodes", 3)
    assert done.code == 0
    assert "fedsys: 1 messages failed in the clients, the first at node 0: ZeroDivisionError: " in (
        done.err
    )
    assert "(client_app.py, line 9)" in done.err
    assert "Traceback" in (tmp_path / "runs/small/log.txt").read_text()
    folder = small(name="all", in_client="raise KeyError('x')")
    done = cli("simulate", "--app", folder, "--nodes", 30)
    assert "30 messages failed" in done.err and done.err.count("Traceback") == 1


def test_apps_whose_modules_have_the_same_names_run_one_after_the_other(cli, small, tmp_path):
    first = small(in_server="Path('said.txt').write_text('first')")
    second = small(name="second", in_server="Path('said.txt').write_text('second')")
    for folder, word in ((first, "first"), (second, "second"), (first, "first")):
        assert cli("simulate", "--app", folder, "--quiet").code == 0
        assert said(tmp_path) == word


def test_a_module_of_the_same_name_that_is_loaded_stays_what_it_is(cli, small, monkeypatch):
    other = type(sys)("server_app")
    monkeypatch.setitem(sys.modules, "server_app", other)
    assert cli("simulate", "--app", small(), "--quiet").code == 0
    assert sys.modules["server_app"] is other


def test_what_an_app_says_while_it_is_loaded_is_shown_but_not_native_noise(cli, small):
    lines = ["mine", "I0000 00:00:17.2 1 port.cc:153] oneDNN", "W0000 00:00:1.2 x"]
    above = f"import os\nfor line in {lines}: os.write(2, (line + chr(10)).encode())\n"
    done = cli("simulate", "--app", small(above=above), "--quiet")
    assert done.code == 0 and done.err == "mine\n"


def test_json_tells_what_came_of_it(cli, small):
    done = cli("simulate", "--app", small(), "--json", "--quiet", "--seed", 9)
    assert done.err == ""
    assert done.json["run"] == "small" and done.json["status"] == "done"
    assert done.json["seed"] == 9 and done.json["folder"] == "runs/small"


def test_a_place_that_cannot_be_written(cli, small, tmp_path):
    (tmp_path / "full").write_text("")
    cli("simulate", "--app", small(), "--out", "full").refused(9, "full", "cannot be written")


def test_a_disk_that_is_full_ends_it_in_one_line(nursery):
    for room in (300, 1200):
        child = nursery.run("simulate", "--app", NUMPY, "--quiet", room=room)
        child.refused(9, "cannot be written", "make room there")


@pytest.mark.parametrize("where", ["in_client", "in_server"])
def test_ctrl_c_ends_it_at_once(nursery, small, where):
    line = "import pathlib, time; pathlib.Path('begun').touch(); time.sleep(300)"
    child = nursery.start("simulate", "--app", small(**{where: line}), "--nodes", 1)
    end = time.monotonic() + 120
    while not Path("begun").exists():
        assert time.monotonic() < end
        time.sleep(0.002)
    child.kill(signal.SIGINT)
    ended = child.wait()
    assert ended.code == 130
    assert ended.err.splitlines()[-1] == "fedsys: interrupted"
    assert "Traceback" not in ended.err
    assert json.loads(Path("runs/small/app.json").read_text())["status"] == "interrupted"


def test_a_function_runs_an_app_too(tmp_path):
    from fedsys.flower import run_app

    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        run = run_app(NUMPY, run_config=["num-server-rounds=1"], nodes=4, workers=2, quiet=True)
    finally:
        os.chdir(before)
    assert run.facts["status"] == "done" and run.folder.name == "quickstart-numpy"
