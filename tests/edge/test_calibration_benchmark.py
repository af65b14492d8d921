"""The table of `benchmarks.calibration`: which rule keeps the accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def test_the_envelope_is_central_and_beats_what_others_do():
    from benchmarks import calibration as bench

    results = bench.measure()
    assert all(result.identical for result in results)
    mean = {rule: np.mean([result.accuracy[rule] for result in results]) for rule in bench.RULES}
    assert mean[bench.ENVELOPE] == mean[bench.CENTRAL]
    assert mean[bench.ENVELOPE] >= mean[bench.FLOAT] - 0.005
    for rule in (bench.CENTRAL_EMA, bench.EMA, bench.MEAN, bench.MEDIAN, bench.RANDOM, bench.ZEROS):
        assert mean[bench.ENVELOPE] > mean[rule] + 0.003, rule
    assert mean[bench.HISTOGRAM] == pytest.approx(mean[bench.ENVELOPE], abs=0.005)
    assert mean[bench.TRIMMED] > mean[bench.RANDOM]


def test_rows_of_the_benchmark_are_those_of_its_clients():
    from benchmarks import calibration as bench

    given = bench.setting(0)
    assert sum(map(len, given.clients)) == 1438 and len(given.test) == len(given.labels) == 359
    assert sorted(round(float(rows.max()), 3) for rows in given.clients) == pytest.approx(
        list(np.geomspace(0.3, 2.5, 5)), abs=1e-3
    )
