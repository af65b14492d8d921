"""Wording: numbers, durations and ranges as a reader wants them."""

from __future__ import annotations

import math

from fedsys.report.wording import duration, ranges, shown


def test_words():
    assert [shown("accuracy", 0.93124), shown("auc", 0.8), shown("loss", 2e-5)] == [
        "93.12%",
        "0.8000",
        "2e-05",
    ]
    assert [shown("loss", None), shown("loss", math.nan)] == ["\N{EN DASH}", "NaN"]
    seconds = [0.0042, 0.42, 12.34, 59.97, 252.0, 7500.0]
    assert [duration(each) for each in seconds] == [
        "4.2 ms",
        "0.42 s",
        "12.3 s",
        "1 min 00 s",
        "4 min 12 s",
        "2 h 05 min",
    ]
    assert ranges([7, 3, 8, 12]).replace("\N{EN DASH}", "-") == "3, 7-8, 12"
    assert ranges(range(0, 100, 2), most=2) == "0, 2 and 48 more"
