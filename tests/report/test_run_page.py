"""Reports: that they say what the folder holds, exactly, safely, and in one file."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from fedsys.experiment import Experiment
from fedsys.report.contents import best
from fedsys.report.run_page import render
from fedsys.report.svg import embedded
from fedsys.runs import Run


@pytest.fixture(scope="module")
def finished(fake_run: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "digits-fedavg-1"
    return fake_run(folder, partition="dirichlet:0.3", clients=100)


@pytest.fixture(scope="module")
def told(finished: Run) -> str:
    return render(finished)


class Page(HTMLParser):
    """What a page consists of; an assertion fails where its elements are not nested."""

    EMPTY = frozenset(("meta", "br", "link", "img", "input", "hr"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def standing(text: str) -> None:
    """The page is sound, and needs nothing but itself."""
    page = Page(text)
    for _, attributes in page.tags:
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key in ("src", "href", "xlink:href", "data", "action"):
                assert value is not None
                assert value.startswith(("#", "data:image/png;base64,"))
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "base")]
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    for picture in re.findall(r"<svg xmlns.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(picture)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    assert used <= set(re.findall(r' id="([^"]+)"', text))


def hovers(text: str) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    return [json.loads(each, parse_constant=pytest.fail) for each in found]


def test_a_report_is_one_sound_page_with_all_its_parts(told: str):
    standing(told)
    text = Page(told).text
    for heading in (
        "Learning",
        "Who holds what",
        "Clients at the end",
        "Time",
        "Model",
        "Do it again",
        "Made with",
    ):
        assert heading in text
    assert "Refused updates 0 all 500 admitted" in text
    assert "What this report lacks" not in text


def test_the_numbers_are_those_of_the_folder(finished: Run, told: str):
    text = Page(told).text
    records = finished.records
    accuracy = [record["test_accuracy"] for record in records]
    top = int(np.argmax(accuracy))
    assert f"Test accuracy {accuracy[-1]:.2%} best {accuracy[top]:.2%} in round {top + 1}" in text
    losses = [record["test_loss"] for record in records]
    low = int(np.argmin(losses))
    assert f"Test loss {losses[-1]:.4f} best {losses[low]:.4f} in round {low + 1}" in text
    assert f'title="{accuracy[-1]!r}"' in told
    seconds = np.array([record["seconds"] for record in records])
    assert f"Median round {np.median(seconds):.2f} s" in text
    assert f"Nine in ten rounds within {np.quantile(seconds, 0.9):.2f} s" in text
    assert "Slowest round 0.90 s (round 1)" in text
    assert "12.3 s in all" in text
    assert "dirichlet alpha 0.3 · 100 clients 10 a round" in text
    assert "dense (rows, 50)" not in text  # each in its cell
    assert "dense Dense (rows, 50) 3,250" in text
    assert "TensorFlow 2.21.0" in text
    assert "Begun 2026-11-21 01:39 UTC" in text


def test_the_worst_clients_are_named_worst_first(finished: Run, told: str):
    with open(finished.folder / "clients.csv") as file:
        rows = [row for row in csv.DictReader(file) if int(row["rows"])]
    rows.sort(key=lambda row: float(row["accuracy"]))
    body = told[told.index("The worst 10 by accuracy") :]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", body[: body.index("</table>")])
    assert cells[::4] == [row["client"] for row in rows[:10]]
    assert cells[3::4] == [f"{float(row['accuracy']):.2%}" for row in rows[:10]]
    weights = [int(row["rows"]) for row in rows]
    mean = np.average([float(row["accuracy"]) for row in rows], weights=weights)
    assert f"Mean over all rows {mean:.2%}" in Page(told).text


def test_the_experiment_and_the_command_can_be_copied(finished: Run, told: str):
    assert "fedsys simulate experiment.toml" in told
    said = re.search(r'<pre id="toml">(.*?)</pre>', told, re.DOTALL)
    assert said
    toml = said[1].replace("&#34;", '"').replace("&amp;", "&")
    assert toml.strip() == (finished.folder / "experiment.toml").read_text().strip()


def test_the_same_folder_gives_the_same_text(finished: Run, told: str):
    assert render(finished) == told
    assert render(Run(finished.folder)) == told


def test_curves_know_the_values_under_a_pointer(finished: Run, told: str):
    accuracy = hovers(told)[0]
    assert accuracy["unit"] == "percent"
    assert accuracy["rounds"] == list(range(1, 51))
    lines = {line["label"]: line["values"] for line in accuracy["lines"]}
    values = [record["test_accuracy"] for record in finished.records]
    np.testing.assert_allclose(lines["Test set"], values, rtol=1e-5)
    worst = [record.get("clients_accuracy_worst") for record in finished.records]
    assert [value is None for value in lines["Worst client"]] == [each is None for each in worst]
    left, top, right, bottom = accuracy["box"]
    assert 0 < left < right
    assert 0 < top < bottom
    assert accuracy["y"][0] < min(values) < max(values) < accuracy["y"][1]


def test_a_binary_task_has_its_auc_and_its_owners(fake_run: Callable[..., Run], tmp_path: Path):
    run = fake_run(
        tmp_path / "credit",
        strategy="fedprox:0.1",
        clients=20,
        cohort=20,
        rounds=30,
        metrics=("accuracy", "auc", "loss"),
        classes=("paid", "defaulted"),
        owners=[f'Bank\n\u2028{number}, "A"' for number in range(20)],
    )
    told = render(run)
    standing(told)
    text = Page(told).text
    assert f"Test AUC {run.metrics['test_auc']:.4f}" in text
    assert "AUC by round" in text
    assert "natural owners · 20 clients" in text
    assert "all in every round" in text
    assert re.search(r'Bank \d+, "A"', text)


def test_a_regression_has_a_loss_and_no_accuracy(fake_run: Callable[..., Run], tmp_path: Path):
    told = render(
        fake_run(tmp_path / "table", partition="iid", clients=50, rounds=10, metrics=("loss",))
    )
    standing(told)
    text = Page(told).text
    assert "ccuracy" not in text
    assert "Worst client" in text
    assert "The worst 10 by loss" in text
    assert "Loss against rows" not in text  # they all have the same


def test_a_killed_run_is_told_as_far_as_it_went(fake_run: Callable[..., Run], tmp_path: Path):
    run = fake_run(tmp_path / "killed", rounds=13, facts={"status": "running"})
    run.say({"seconds": None})
    (run.folder / "clients.csv").unlink()
    metrics = run.folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-30])  # cut within the last line
    told = render(run)
    standing(told)
    text = Page(told).text
    assert "is still running, or was killed, after 12 of 13 rounds" in text
    assert "fedsys simulate --resume killed" in text
    assert "clients.csv: is missing: it is written at the end of a run" in text
    assert "Rounds 12 of 13" in text
    assert "Clients at the end" not in text


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "clients.csv", "partition.svg"])
@pytest.mark.parametrize("content", [None, b"", b"{\n\xff", b"[]\n", b"\0\n"])
def test_a_missing_or_damaged_file_is_named_and_the_rest_is_told(
    fake_run: Callable[..., Run], tmp_path: Path, name: str, content: bytes | None
):
    run = fake_run(tmp_path / "run", rounds=2)
    if content is None:
        (run.folder / name).unlink()
    else:
        (run.folder / name).write_bytes(content)
    told = render(run)
    standing(told)
    assert name in Page(told).text
    assert "weighting" in told


def test_a_folder_with_nothing_but_an_experiment_is_told(tmp_path: Path):
    run = Run.create(tmp_path / "fresh", Experiment())
    told = render(run)
    standing(told)
    text = Page(told).text
    for name in ("run.json", "metrics.jsonl", "clients.csv", "partition.svg"):
        assert f"{name}: is missing" in text
    (run.folder / "experiment.toml").write_text("rounds = = 3")
    assert "experiment.toml: not TOML" in render(run)


def test_refusals_are_counted_by_reason_and_round(fake_run: Callable[..., Run], tmp_path: Path):
    refused = {3: {"not finite": 2}, 4: {"not finite": 1}, 7: {"wrong shape": 4, "not finite": 3}}
    run = fake_run(tmp_path / "run", rounds=10, refuse=lambda round: refused.get(round, {}))
    told = render(run)
    standing(told)
    text = Page(told).text
    assert "Refused updates 10 of 100 (10.0%)" in text
    assert "not finite 6 6.0% 3\N{EN DASH}4, 7" in text
    assert "wrong shape 4 4.0% 7" in text
    assert "The model stayed where it was in round 7" in text


def test_an_error_is_told(fake_run: Callable[..., Run], tmp_path: Path):
    run = fake_run(tmp_path / "run", rounds=3, facts={"status": "failed", "error": "it <b>broke"})
    assert "This run failed after 3 of 3 rounds: it &lt;b&gt;broke" in render(run)


def test_nothing_from_data_or_user_becomes_markup(fake_run: Callable[..., Run], tmp_path: Path):
    evil = "<script>alert('x')</script>"
    run = fake_run(
        tmp_path / "run&<i>",
        clients=15,
        rounds=3,
        classes=(evil, '"><img src=x onerror=alert(1)>', "-->", "$x_$", "\x00\N{SNOWMAN}"),
        owners=[f"{evil} {number}" for number in range(15)],
        refuse=lambda round: {f"</script>{evil}": 1},
        facts={
            "error": evil,
            "status": "failed",
            "task": evil,
            "model_name": evil,
            "machine": evil,
            "layers": [[evil, evil, evil, 1]],
            "partition_lines": [evil],
            "created": evil,
        },
    )
    told = render(run)
    standing(told)
    assert evil not in told
    assert "<script>alert" not in told
    assert "<img" not in told
    assert "&lt;script&gt;alert" in told
    assert "$x_$" in told
    assert len([tag for tag, _ in Page(told).tags if tag == "script"]) == 1 + len(hovers(told))


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<g onload="alert(1)"/>',
        '<a href="https://example.org"><text>x</text></a>',
        '<image href="https://example.org/x.png"/>',
        '<use href="https://example.org/x.svg#a"/>',
        "<foreignObject><b/></foreignObject>",
        '<g style="fill: url(https://example.org)"/>',
        "<g>",
    ],
)
def test_a_foreign_partition_picture_is_left_out(
    fake_run: Callable[..., Run], tmp_path: Path, inside: str
):
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1">{inside}</svg>'
    assert embedded(svg) is None
    run = fake_run(tmp_path / "run", rounds=1)
    (run.folder / "partition.svg").write_text(svg)
    told = render(run)
    standing(told)
    assert "example.org" not in told
    assert "it is not a picture that fedsys drew" in told


def test_ten_thousand_clients_make_no_large_page(fake_run: Callable[..., Run], tmp_path: Path):
    told = render(
        fake_run(
            tmp_path / "big",
            partition="quantity:1",
            clients=10_000,
            cohort=100,
            rounds=3,
            rows=200_000,
        )
    )
    standing(told)
    assert len(told) < 500_000
    assert "10,000 clients" in Page(told).text
    assert "Without rows" in told


def test_losses_that_are_no_numbers_leave_gaps(fake_run: Callable[..., Run], tmp_path: Path):
    run = fake_run(tmp_path / "run", rounds=4)
    records = run.records
    records[1]["train_loss"] = math.nan
    records[2]["test_loss"] = 0.5
    records[3]["test_loss"] = math.inf
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (run.folder / "metrics.jsonl").write_text(lines)
    told = render(run)
    standing(told)
    loss = {line["label"]: line["values"] for line in hovers(told)[1]["lines"]}
    assert loss["Training"][1] is None
    assert loss["Test set"][3] is None
    assert best(records, "test_loss") == (3, records[2]["test_loss"])


def test_a_metric_taken_now_and_then_says_of_when_it_is(
    fake_run: Callable[..., Run], tmp_path: Path
):
    run = fake_run(tmp_path / "run", rounds=7)
    records = run.records
    for record in records:
        if record["round"] % 3:
            del record["test_accuracy"], record["test_loss"]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (run.folder / "metrics.jsonl").write_text(lines)
    text = Page(render(run)).text
    assert f"Test accuracy after round 6 {records[5]['test_accuracy']:.2%}" in text


def test_reading_and_rendering_import_no_tensorflow(finished: Run):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import fedsys.report\n"
        "heavy = {'matplotlib', 'jinja2', 'pandas', 'rich', 'tensorflow', 'keras'}\n"
        "assert not heavy & set(sys.modules)\n"
        "from fedsys.runs import Run\n"
        f"fedsys.report.render(Run(Path({str(finished.folder)!r})))\n"
        "assert not {'tensorflow', 'keras', 'pandas', 'matplotlib.pyplot'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
