"""The comparison as a page: sound, safe, and with a line a run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from fedsys.report.comparison_page import render_comparison
from fedsys.runs import Run

VALUES = (0.5, 0.8, 0.9)


def test_the_page_is_one_sound_file_with_a_line_a_run(fake_run: Callable[..., Run], tmp_path: Path):
    evil = "<script>alert('x')</script>"
    runs = [
        fake_run(tmp_path / "first", VALUES, facts={"task": evil}),
        fake_run(tmp_path / "_second&<i>", VALUES, strategy="scaffold", facts={"task": evil}),
    ]
    told = render_comparison(runs)
    assert told == render_comparison(runs)
    HTMLParser().feed(told)
    assert evil not in told
    assert "&lt;script&gt;" in told
    assert "<i>" not in told
    assert not re.search(r'(?:src|href)="(?!#|data:image/png)', told)
    for picture in re.findall(r"<svg xmlns.*?</svg>", told, re.DOTALL):
        ElementTree.fromstring(picture)
    hovers = re.findall(r'<script type="application/json">(.*?)</script>', told, re.DOTALL)
    accuracy = json.loads(hovers[0])
    assert [line["label"] for line in accuracy["lines"]] == ["fedavg", "scaffold"]
    assert accuracy["lines"][0]["values"] == [0.5, 0.8, 0.9]
    assert "Test accuracy by round" in told
    assert "strategy.name" in told


def test_more_runs_than_colours_have_looks_of_their_own(
    fake_run: Callable[..., Run], tmp_path: Path
):
    runs = [fake_run(tmp_path / f"run{seed}", VALUES, seed=seed) for seed in range(8)]
    told = render_comparison(runs)
    found = re.findall(r'<script type="application/json">(.*?)</script>', told, re.DOTALL)
    looks = {(line["colour"], line["dash"]) for line in json.loads(found[0])["lines"]}
    assert len(looks) == 8
