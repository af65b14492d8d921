"""`fedsys demo`: one command, a table, and nothing left behind, however and whenever it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys.federation.demo import fraud
from fedsys.federation.demo.comparison import simulated
from fedsys.federation.demo.run import set_up
from fedsys.tables import open_source
from fedsys.tasks.heart import CENTRES
from tests.flower.deployed import alive, children

WAIT = 240.0
MAIN = "import sys; from fedsys.cli import main; main()"
HEART = Path(__file__).parents[2].parent / "shared" / "data" / "heart"


@contextmanager
def demo(folder, *options):
    """The command as a process of its own, whose own files go below the folder."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "demo", *map(str, options)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process, wanted):
    """Reads what it says until a line has the text."""
    said = []
    for line in process.stderr:
        said.append(line)
        if wanted in line:
            return
    raise AssertionError("".join(said))


def gone(pids):
    end = time.monotonic() + WAIT
    while any(map(alive, pids)):
        assert time.monotonic() < end, "processes were left behind"
        time.sleep(0.1)


def test_four_hospitals_learn_together_and_it_says_what_came_of_it(tmp_path):
    if not HEART.is_dir():
        pytest.skip("the heart disease data does not lie beside the checkout")
    options = ("--data", HEART, "--rounds", 2, "--json", "--keep", "kept")
    with demo(tmp_path, "heart", *options) as process:
        heard(process, "round 1/2: 4 of 4 hospitals")
        below = children(process.pid)
        out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    gone(below)
    outcome = json.loads(out)
    assert set(outcome["alone"]) == {*CENTRES}
    for auc in (*outcome["alone"].values(), outcome["federated"], outcome["pooled"]):
        assert 0.55 < auc < 1
    assert sum(outcome["rows"].values()) + outcome["test"] == 920
    assert not [line for line in err.splitlines() if line.startswith(("I0000", "W0000", "E0000"))]
    kept = tmp_path / "kept"
    keys = [kept / name / "keys" / "node.key" for name in CENTRES]
    assert len({key.read_bytes() for key in keys}) == 4, "every hospital has a key of its own"
    for key in (*keys, kept / "coordinator" / "authority" / "ca.key"):
        assert key.stat().st_mode & 0o077 == 0
    for name in (*CENTRES, "pooled"):
        assert (kept / "simulated" / name / "report.html").exists()


@pytest.mark.parametrize(
    ("number", "code", "processes"),
    [(signal.SIGINT, 130, None), (signal.SIGTERM, 130, 3), (signal.SIGKILL, -9, 6)],
    ids=["Ctrl-C when banks may come", "asked to end at once", "killed amid the start"],
)
def test_it_leaves_no_process_however_it_ends(tmp_path, number, code, processes):
    """processes: with so many it is ended; when its server is ready if None."""
    with demo(tmp_path, "fraud", "--banks", 2) as process:
        heard(process, "waiting for banks" if processes is None else "made-up customers")
        while len(below := children(process.pid)) < (processes or 3):
            assert alive(process.pid)
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(WAIT) == code
        gone(below)
        assert "Traceback" not in process.stderr.read()
    if number != signal.SIGKILL:
        assert not list((tmp_path / "tmp").glob("fedsys-*")), "keys were left behind"


def test_ctrl_c_amid_what_is_simulated_beside_it_ends_it(tmp_path, no_pictures):
    """The simulation hears it first, and would only end its own run."""
    shown = fraud.fraud(2)
    made = set_up(shown, tmp_path)
    sources = {name: bank.source() for name, bank in made.banks.items()}
    request = replace(shown.request, model="logistic", rounds=1000)
    looks = []

    def interrupt():
        looks.append(True)
        if len(looks) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        simulated(
            shown.schema, request, sources, open_source(made.test), tmp_path / "runs", interrupt
        )
    assert len(looks) < 20
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["bank-a"]


def test_what_it_cannot_read_is_one_line(cli, tmp_path):
    (tmp_path / "UCI_Credit_Card.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "UCI_Credit_Card.csv").write_bytes(b"\xff\xfe\x00")
    before = signal.getsignal(signal.SIGTERM)
    try:
        for data, said in [
            ("nowhere", "cannot be read"),
            (".", "no col"),
            ("broken", "not a text"),
        ]:
            cli("demo", "fraud", "--data", data).refused(3, said)
        cli("demo", "heart", "--data", "nowhere").refused(3, "--data: 'nowhere' does not exist")
        cli("demo", "heart").refused(3, "pass --data FOLDER that holds processed.cleveland.data")
        cli("demo", "heart", "--rounds", 0).refused(2, "--rounds")
    finally:
        signal.signal(signal.SIGTERM, before)
