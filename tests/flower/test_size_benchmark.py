"""The benchmark of large models, very small: that banks really exchange one, and what it prints."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

ROOT = Path(__file__).resolve().parents[2]
PIECE = 5 << 20


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_two_banks_and_a_small_model():
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.size", "--tiny"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [cells(line) for line in ran.stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 6
    assert lines[2][:2] == ["2", "2"]
    assert all(float(cell.split()[0].replace(",", "")) > 0 for cell in lines[2][2:])
    assert lines[5][0] == "2 MB: 2 banks / 2" and lines[5][1] == "1.00"


@pytest.mark.parametrize("size", [1.0, 10.0, 100.0])
def test_models_are_as_large_as_they_say(size):
    from benchmarks.size import layout_of

    assert layout_of(size).length * 4 == pytest.approx(size * 1e6, rel=0.001)


def test_updates_have_an_exact_mean_and_no_two_equal_pieces():
    from benchmarks.size import layout_of, movement

    layout = layout_of(24.0)
    moves = [movement(layout, client, 3) for client in range(4)]
    assert all(move.dtype == layout.dtype for move in moves)
    np.testing.assert_array_equal(np.mean(moves, axis=0, dtype=float), movement(layout, 1.5, 3))
    pieces = [
        tensor.tobytes()[start : start + PIECE]
        for move in moves
        for tensor in layout.split(move)
        for start in range(0, tensor.nbytes, PIECE)
    ]
    assert len(set(pieces)) == len(pieces) == 4 * 4 * 2


def test_growth_is_from_the_fewest_banks_to_the_most():
    from benchmarks.size import Found, growth

    found = [
        Found(10.0, banks, [1.0], 100, 100 + ours, 200 + theirs, 1, 1, 1)
        for banks, ours, theirs in ((8, 40, 300), (2, 0, 0), (4, 99, 999))
    ]
    line = cells(growth(found).splitlines()[-1])
    assert line == ["10 MB: 8 banks / 2", "1.40", "misses", "2.50", "0.0"]
