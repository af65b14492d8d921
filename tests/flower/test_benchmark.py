"""The benchmark of Flower apps, very small: that it runs and compares like with like."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_the_table_of_both_sides(tmp_path):
    """Without TensorFlow, which the app does not ask for and Flower loads in all its processes."""
    pytest.importorskip("ray", reason="Ray, which Flower's own simulation needs, is not installed")
    (tmp_path / "tensorflow.py").write_text("raise ModuleNotFoundError('tensorflow')")
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.flower_app", "--tiny"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert ran.returncode == 0, ran.stderr
    rows = [line.strip("|").split("|") for line in ran.stdout.splitlines() if line[:1] == "|"]
    assert [row[0].strip() for row in rows] == [
        "what", "-" * len(rows[1][0].strip()), "a round, ms", "start to the end of round 1, s",
        "memory at the peak, MB", "loss at the end"]  # fmt: skip
    assert [cell.strip() for cell in rows[-1][4:]] == ["equal", "holds"]
    assert all(float(cell.split()[0].replace(",", "")) > 0 for cell in rows[4][1:4])


def test_what_a_process_tree_is():
    from benchmarks.flower_app import tree, tree_bytes

    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"]) as parent:
        try:
            while len(tree(parent.pid)) < 2:
                assert parent.poll() is None
            assert tree(parent.pid)[0] == parent.pid
            assert tree_bytes(parent.pid) > 0
        finally:
            for pid in tree(parent.pid):
                subprocess.run(["kill", str(pid)], check=True)
    assert tree_bytes(2**30) == 0
