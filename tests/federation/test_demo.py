"""`fedsys demo fraud`: one command, a table, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys.errors import DataError, UsageError
from fedsys.federation.commands.demo import outcome_text
from fedsys.federation.demo.data import (
    CODES,
    LABEL,
    NUMBERS,
    SCHEMA,
    SEGMENT,
    customers,
    divide,
    made_up,
    write_rows,
)
from fedsys.federation.demo.run import Outcome
from fedsys.tables import check, open_source
from tests.flower.deployed import alive, children

WAIT = 240.0
MAIN = "import sys; from fedsys.cli import main; main()"


@contextmanager
def demo(folder, *options, temporary=None):
    """The command as a process of its own. temporary: where its own files go."""
    temporary = temporary or folder
    temporary.mkdir(exist_ok=True)
    command = [sys.executable, "-c", MAIN, "demo", "fraud", *map(str, options)]
    with subprocess.Popen(
        command,
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


def lines_until(process, wanted):
    """Reads what it says until a line has the text."""
    said = []
    for line in process.stderr:
        said.append(line)
        if wanted in line:
            return said
    raise AssertionError("".join(said))


def gone(pids):
    end = time.monotonic() + WAIT
    while any(map(alive, pids)):
        assert time.monotonic() < end, "processes were left behind"
        time.sleep(0.1)


def test_it_runs_a_federation_and_says_what_came_of_it(tmp_path):
    with demo(tmp_path, "--rounds", 2, "--json", "--keep", "kept") as process:
        lines_until(process, "round 1/2: 3 of 3 banks")
        below = children(process.pid)
        out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 0, err
    gone(below)
    outcome = json.loads(out)
    assert set(outcome["alone"]) == {"bank-a", "bank-b", "bank-c"}
    for auc in (*outcome["alone"].values(), outcome["federated"], outcome["pooled"]):
        assert 0.55 < auc < 1
    assert "made-up" in outcome["source"]
    assert not [line for line in err.splitlines() if line.startswith(("I0000", "W0000", "E0000"))]
    kept = tmp_path / "kept"
    keys = [kept / name / "keys" / "node.key" for name in ("bank-a", "bank-b", "bank-c")]
    assert len({key.read_bytes() for key in keys}) == 3, "every bank has a key of its own"
    for key in (*keys, kept / "coordinator" / "authority" / "ca.key"):
        assert key.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)]
)
def test_it_leaves_no_process_however_it_ends(tmp_path, number, code):
    with demo(tmp_path, "--banks", 2, temporary=tmp_path / "tmp") as process:
        lines_until(process, "waiting for banks")
        below = children(process.pid)
        assert len(below) >= 3
        process.send_signal(number)
        assert process.wait(WAIT) == code
        gone(below)
        err = process.stderr.read()
    assert "Traceback" not in err
    if number != signal.SIGKILL:
        assert not list((tmp_path / "tmp").glob("fedsys-*")), "keys were left behind"


def test_what_it_cannot_read_is_one_line(tmp_path):
    (tmp_path / "UCI_Credit_Card.csv").write_text("a,b\n1,2\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "UCI_Credit_Card.csv").write_bytes(b"\xff\xfe\x00")
    for data, said in [("nowhere", "cannot be read"), (".", "no column"), ("broken", "not a text")]:
        with demo(tmp_path, "--data", data) as process:
            out, err = process.communicate(timeout=WAIT)
        assert process.returncode == 3
        assert said in err.splitlines()[-1]
        assert "Traceback" not in err
        assert out == ""


def test_banks_have_customers_of_their_own_kind_and_the_test_has_all():
    found = made_up(2000)
    parts, test = divide(found, 4)
    every = np.sort(np.concatenate([*parts, test]))
    np.testing.assert_array_equal(every, np.arange(2000))
    limits = [found.columns[SEGMENT][part] for part in parts]
    assert all(low.max() <= high.min() for low, high in pairwise(limits))
    labels = found.columns[LABEL]
    assert abs(labels[test].mean() - labels.mean()) < 0.01
    for banks in (1, 27):
        with pytest.raises(UsageError, match="--banks"):
            divide(found, banks)


def test_made_up_customers_fit_the_schema_and_are_always_the_same(tmp_path):
    found = made_up(500)
    assert set(found.columns) == {*CODES, *NUMBERS, LABEL}
    again = made_up(500)
    for name, values in found.columns.items():
        np.testing.assert_array_equal(values, again.columns[name])
    write_rows(found, np.arange(500), tmp_path / "rows.csv")
    assert check(open_source(tmp_path / "rows.csv"), SCHEMA).code == 0


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "UCI_Credit_Card.csv"
    header = [*CODES, *NUMBERS, LABEL]
    path.write_text(",".join(header) + "\n" + ",".join(["1"] * len(header)) + "\n")
    assert len(customers(str(path))) == 1
    path.write_text(",".join(header) + "\n" + ",".join(["x"] * len(header)) + "\n")
    with pytest.raises(DataError, match="no number"):
        customers(str(path))
    path.write_text(",".join(header) + "\n" + ",".join(["7"] * len(header)) + "\n")
    with pytest.raises(DataError, match="more than 0 and 1"):
        customers(str(path))


def test_the_table_is_readable():
    outcome = Outcome({"bank-a": 0.7, "bank-b": 0.71}, 0.75, 0.76, {"bank-a": 10, "bank-b": 1200},
                      "1,210 customers", 20, 31.4)  # fmt: skip
    assert outcome_text(outcome).splitlines() == [
        "              customers    AUC",
        "bank-a alone         10  0.7000",
        "bank-b alone      1,200  0.7100",
        "federated         1,210  0.7500",
        "pooled            1,210  0.7600",
        "1,210 customers; 20 rounds, 31 s",
    ]
