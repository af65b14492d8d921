"""The benchmarks on tiny sizes: that they run, what they print, and that they compare like with
like. No figure is judged here."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedsys.edge.verification import toolchain

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def tables(*arguments):
    """What a benchmark prints: its tables, each a list of rows, a row from first cell to the
    rest."""
    command = [sys.executable, "-m", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found, last = [], None
    for line in ran.stdout.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if last is None:
                last = []
                found.append(last)
            assert not last or len(cells) == len(last[0])
            last.append(cells)
        else:
            last = None
    for table in found:
        assert set("".join(table[1])) == {"-"}
        del table[1]
    return found


# Not the convolutions with XLA, which are far from the floor.
WAYS = [("logistic", True), ("2nn", True)]
WAYS += [(name, False) for name in ("logistic", "2nn", "convolution", "cifar")]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name, xla", WAYS)
def test_floor_and_engine_agree(name, xla, whole):
    from benchmarks.floor import Floor, Variant
    from benchmarks.ours import rounds_of
    from benchmarks.workloads import workload

    work = workload(name, tiny=True).comparable()
    begin = np.concatenate([weight.ravel() for weight in work.weights()])
    by_hand = Floor(work).rounds(Variant(xla, whole, 2))
    rounds = rounds_of(work)
    for _ in range(2):
        state, _ = rounds.next()
        theirs = np.concatenate([weight.numpy().ravel() for weight in by_hand()])
        far = np.linalg.norm(theirs - begin)
        assert far > 0
        assert np.linalg.norm(state.weights - theirs) < 1e-4 * far
    rounds.close()


def test_parameters():
    from benchmarks.workloads import WORKLOADS

    counts = {name: work.parameters for name, work in WORKLOADS.items()}
    assert counts == {
        "logistic": 7_850,
        "2nn": 199_210,
        "convolution": 9_098,
        "cifar": 1_626_442,
    }
    for work in WORKLOADS.values():
        assert work.model().count_params() == work.parameters
        assert work.rows % work.batch == 0


def test_engine():
    times, ratios, ways = tables(
        "benchmarks.engine", "--tiny", "--rounds", "1", "--only", "logistic"
    )
    assert len(times) == len(ways) == 2
    figures = {row[1]: row for row in ratios[1:]}
    assert list(figures) == [
        "ours / floor",
        "keras.fit / ours",
        "with checkpoint / ours",
        "difference of the weights",
    ]
    assert figures["ours / floor"][-1] in ("holds", "misses")
    assert figures["difference of the weights"][-1] == "holds"


def test_population():
    (table,) = tables("benchmarks.population", "--tiny", "--rounds", "1")
    assert len(table) == 8
    assert [row[-1] for row in table[1:3]] == ["holds"] * 2


def test_memory():
    (table,) = tables("benchmarks.memory", "--tiny")
    assert len(table) == 6
    assert table[-1][-1] in ("holds", "misses")


def test_startup():
    (table,) = tables("benchmarks.startup", "--rounds", "1")
    assert len(table) == 2
    assert table[1][0] == "fedsys --help, ms"


def test_export():
    if toolchain.missing("arm-none-eabi-gcc", "qemu-system-arm"):
        pytest.skip("arm-none-eabi-gcc or qemu-system-arm is not installed")
    (table,) = tables("benchmarks.export", "--only", "dense")
    (row,) = table[1:]
    small, fast = float(row[-3]), float(row[-1])
    assert row[0] == "dense" and small > fast > 0


def test_fine_tuning():
    (table,) = tables("benchmarks.qat", "--tiny")
    assert [row[0] for row in table[1:]][:2] == ["float", "post-training"]
