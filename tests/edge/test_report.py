from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsys.edge.report.budget import Budget, read_count, read_size
from fedsys.edge.report.figures import (
    Calibration,
    Check,
    Figures,
    Flash,
    Layer,
    Place,
    Ram,
    Score,
)
from fedsys.edge.report.measure import added, layers, powers, ratio, short_name
from fedsys.edge.report.page import render
from fedsys.edge.report.text import render_text
from fedsys.edge.report.wording import bytes_said, count_said, decibels
from fedsys.edge.tflite.reader import read
from fedsys.errors import BudgetError, UsageError
from fedsys.report.wording import NOTHING

from .build import Op, Value, build, constant

LAYERS = (
    Layer(0, "CONV_2D", "conv/Relu", (14, 14, 8), 14112, 80, 104, 1568, 41.2),
    Layer(1, "MEAN", "pool/Mean", (8,), 0, 0, 0, 8, 18.9),
    Layer(2, "FULLY_CONNECTED", "dense/BiasAdd", (10,), 80, 90, 120, 10, 29.3),
    Layer(3, "SOFTMAX", "softmax", (10,), 0, 0, 0, 10, math.inf),
)
FIGURES = Figures(
    "model",
    "runs/one",
    "cortex-m4",
    "int8",
    5400,
    LAYERS,
    Flash(weights=224, tables=1100, code=1500),
    Ram(arena=1600, io=794, stack=240),
    places=(Place("conv/Relu", 0, 1568, 0, 1), Place("pool/Mean", 1568, 8, 1, 2)),
    instructions=1_234_567,
    score=Score("accuracy", 0.8123, 0.8011, 0.985, 60000, 20, "on the clients' own rows"),
    calibration=Calibration("envelope", 20, 640, 1800, "ranges", True, {"not finite": 1}),
    checks=(
        Check("host", "passed", "", 12345, 0),
        Check("cortex-m4", "passed", "", 12345, 0, 1_234_567),
        Check("cortex-m55", "skipped", "qemu-system-arm is not installed"),
    ),
    facts={"fedsys": "0.1.0"},
)


# --- budgets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("64k", 65536), ("64kB", 65536), ("64KiB", 65536), ("1M", 1 << 20), ("1.5k", 1536), ("7", 7)],
)
def test_sizes_are_read_as_on_data_sheets(text: str, size: int) -> None:
    assert read_size(text, "--max-flash") == size


@pytest.mark.parametrize("text", ["", "k", "-1k", "sixty", "1t", "0", "0k", "1e3", "nan"])
def test_a_size_that_is_none_is_refused_by_its_option(text: str) -> None:
    with pytest.raises(UsageError, match="--max-flash"):
        read_size(text, "--max-flash")


def test_counts_are_read_in_thousands() -> None:
    assert read_count("15M", "--max-instructions") == 15_000_000


def test_a_budget_that_is_kept_says_nothing() -> None:
    kept = Budget(flash=2824, ram=2634, drop=1.13, instructions=1_234_567)
    assert kept.broken(FIGURES) == ()
    assert len(kept.lines(FIGURES)) == 4


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(flash=2823), ["1 B over", "'conv/Relu'", "FULLY_CONNECTED"]),
        (Budget(ram=1610), ["1 kB over", "'conv/Relu' (1.53 kB)"]),
        (Budget(drop=1), ["1.12 points", "at most 1.00", "'pool/Mean' (19 dB)", "qat"]),
        (Budget(instructions=10**6), ["235 k over", "'conv/Relu' does 99%"]),
    ],
)
def test_a_broken_budget_says_by_how_much_and_what_would_help(
    budget: Budget, said: list[str]
) -> None:
    (line,) = budget.broken(FIGURES)
    named = [word for word in said if word != "FULLY_CONNECTED"]
    if budget.flash:  # the layer with the most weights is the one named
        named = ["1 B over", "'dense/BiasAdd'", "120 B"]
    for word in named:
        assert word in line


def test_a_compiler_for_speed_is_named_where_it_would_do() -> None:
    fast = Check("cortex-m4 -O3", "passed", "", 9, 0, 400_000)
    (line,) = Budget(instructions=500_000).broken(replace(FIGURES, checks=(fast,)))
    assert line.endswith("--optimise speed needs 400 k")


def test_what_is_not_known_breaks_its_budget() -> None:
    unknown = replace(FIGURES, score=None, instructions=None)
    lines = Budget(drop=1, instructions=10**9).broken(unknown)
    assert ["labels" in line for line in lines] == [True, False]
    assert "qemu-system-arm" in lines[1]


def test_points_of_accuracy_say_nothing_of_a_regression() -> None:
    score = Score("loss", 1.0, 1.1, None, 10, 0, "")
    (line,) = Budget(drop=1).broken(replace(FIGURES, score=score))
    assert "accuracy" in line


def test_a_broken_budget_has_an_exit_code_of_its_own() -> None:
    broken = replace(FIGURES, broken=("too much",))
    with pytest.raises(BudgetError, match="too much") as raised:
        Budget(flash=1).check(broken, "build/report.txt")
    assert raised.value.code == 11
    Budget(flash=1).check(FIGURES, "build/report.txt")


# --- figures of layers ---------------------------------------------------------------------------


def _network() -> bytes:
    """A convolution, a depthwise one, a reshape and a dense layer."""
    kernel = constant(np.ones((4, 3, 3, 2)), scale=[0.1] * 4, zero_point=[0] * 4, name="k")
    bias = constant(np.zeros(4), "int32", scale=[0.01] * 4, zero_point=[0] * 4, name="b")
    deep = constant(np.ones((1, 3, 3, 4)), scale=[0.1] * 4, zero_point=[0] * 4, axis=3, name="d")
    shape = constant([1, 64], "int32", name="shape")
    dense = constant(np.ones((5, 64)), scale=0.1, name="w")
    tensors = [
        Value((1, 8, 8, 2), scale=0.1, name="input"),
        kernel,
        bias,
        Value((1, 4, 4, 4), scale=0.1, name="serving_default/conv/Relu;conv/BiasAdd"),
        deep,
        Value((1, 4, 4, 4), scale=0.1, name="deep"),
        shape,
        Value((1, 64), scale=0.1, name="flat"),
        dense,
        Value((1, 5), scale=0.1, name="out"),
    ]
    stride = {"stride_h": 2, "stride_w": 2, "padding": "SAME"}
    operators = [
        Op("CONV_2D", [0, 1, 2], [3], stride),
        Op("DEPTHWISE_CONV_2D", [3, 4, 2], [5], {"stride_h": 1, "stride_w": 1, "padding": "SAME",
                                                 "depth_multiplier": 1}),
        Op("RESHAPE", [5, 6], [7]),
        Op("FULLY_CONNECTED", [7, 8, -1], [9]),
    ]  # fmt: skip
    return build(tensors, operators, [0], [9])


def test_figures_of_layers_are_counted_from_the_file() -> None:
    conv, deep, reshape, dense = layers(read(_network()))
    assert (conv.macs, conv.parameters, conv.weights) == (4 * 4 * 4 * 3 * 3 * 2, 72 + 4, 72 + 16)
    assert (deep.macs, deep.parameters, deep.weights) == (4 * 4 * 4 * 9, 36, 36)  # bias was counted
    assert (reshape.macs, reshape.parameters, reshape.weights) == (0, 0, 8)
    assert (dense.macs, dense.parameters) == (5 * 64, 5 * 64)
    assert [layer.activation for layer in (conv, deep, reshape, dense)] == [64, 64, 64, 5]
    assert (conv.name, conv.shape) == ("conv/Relu", (4, 4, 4))


def test_noise_and_instructions_are_put_to_their_layers() -> None:
    conv, deep, *_ = layers(read(_network()), noise={5: 31.0}, instructions={0: 900})
    assert (conv.sqnr, deep.sqnr) == (None, 31.0)
    assert (conv.instructions, deep.instructions) == (900, None)


def test_names_are_those_of_the_layers() -> None:
    assert (
        short_name("functional_1/conv2d_1/Relu;functional_1/conv2d_1/BiasAdd;") == "conv2d_1/Relu"
    )
    assert short_name("conv/Relu") == "conv/Relu"
    assert short_name("x") == "x"


# --- noise ---------------------------------------------------------------------------------------


def test_noise_of_a_tenth_of_the_signal_is_20_db() -> None:
    found = powers({"a": np.full((4, 3), 10.0)}, {"a": np.full((4, 3), 9.0)})
    assert ratio(*found["a"]) == pytest.approx(20)


def test_noise_is_infinite_or_none_at_the_ends() -> None:
    assert ratio(1.0, 0.0) == math.inf
    assert ratio(0.0, 1.0) == -math.inf
    assert powers({}, {"a": np.ones(3)}) == {}
    assert powers({"a": np.ones(2)}, {"a": np.ones(3)}) == {}


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_clients_add_up_to_the_noise_of_all_rows(sizes: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    float_rows = [random.normal(size=(size, 3)) for size in sizes]
    stored_rows = [rows + random.normal(size=rows.shape) / 10 for rows in float_rows]
    parts = [powers({"t": a}, {"t": b}) for a, b in zip(float_rows, stored_rows, strict=True)]
    whole = powers({"t": np.concatenate(float_rows)}, {"t": np.concatenate(stored_rows)})
    assert added(parts)["t"] == pytest.approx(whole["t"])


# --- wording -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1 kB"), (32051, "31.3 kB"), (1 << 20, "1 MB")],
)
def test_sizes_are_said_in_kb_of_1024_bytes(size: int, said: str) -> None:
    assert bytes_said(size) == said


@given(st.integers(0, 1 << 40))
def test_sizes_that_are_said_can_be_read(size: int) -> None:
    text = bytes_said(size)
    if not text.startswith("0"):
        assert read_size(text.replace(" ", ""), "") == pytest.approx(size, rel=0.006)


@pytest.mark.parametrize(
    ("count", "said"), [(812, "812"), (12_400, "12.4 k"), (30_400_000, "30.4 M"), (None, NOTHING)]
)
def test_counts_are_said_in_thousands(count: int | None, said: str) -> None:
    assert count_said(count) == said


def test_decibels_know_exact_and_unknown() -> None:
    assert [decibels(value) for value in (math.inf, None, math.nan, 34.06)] == [
        "exact", NOTHING, NOTHING, "34.1"]  # fmt: skip


# --- text, JSON, page ----------------------------------------------------------------------------


def test_text_says_what_matters() -> None:
    text = render_text(FIGURES)
    for word in (
        "conv/Relu",
        "14.1 k",
        "2.76 kB",  # flash in all
        "1.12 points lost",
        "98.50%",
        "12,345 values, 0 differ",
        "qemu-system-arm is not installed",
        "STM32F103",
        "sent by a client: 1.76 kB",
    ):
        assert word in text, word
    assert max(map(len, text.splitlines())) <= 118


def test_json_has_no_infinities_and_all_totals() -> None:
    table = json.loads(json.dumps(FIGURES.table(), allow_nan=False))
    assert (table["flash"]["total"], table["ram"]["total"]) == (2824, 2634)
    assert (table["layers"][3]["sqnr"], table["layers"][3]["exact"]) == (None, True)
    assert table["verified"] is True
    assert table["score"]["drop"] == pytest.approx(1.12)
    assert table["macs"] == 14192


def test_nothing_verified_is_not_verified() -> None:
    assert replace(FIGURES, checks=()).verified is None
    assert replace(FIGURES, checks=(Check("host", "skipped"),)).verified is None
    failed = (Check("host", "passed"), Check("cortex-m4", "failed"))
    assert replace(FIGURES, checks=failed).verified is False


class _Page(HTMLParser):
    """Tags that are open, text, and whatever the page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.outside, self.open = "", [], []  # type: ignore[var-annotated]

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.outside += [v for k, v in attrs if k in ("src", "href") and not v.startswith("#")]
        if tag not in ("meta", "br", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("meta", "br", "path"):
            return
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None: ...

    def handle_data(self, data: str) -> None:
        self.text += data


def _parsed(text: str) -> _Page:
    page = _Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def test_the_page_is_one_file_that_says_what_the_text_says() -> None:
    page = _parsed(render(FIGURES))
    assert page.outside == []
    for word in ("verified", "conv/Relu", "81.23%", "Federated calibration", "STM32F103", "exact"):
        assert word in page.text, word


def test_the_page_bears_a_model_of_which_little_is_known() -> None:
    bare = Figures(
        "m", "m.tflite", "cortex-m0", "int8", 10, LAYERS[1:2], Flash(0, 0), Ram(0, 0)
    )  # fmt: skip
    page = _parsed(render(bare))
    assert "not verified" in page.text and "not measured" in page.text
    assert "Budget" not in page.text


def test_names_from_files_are_text_not_markup() -> None:
    layer = replace(LAYERS[0], name="<script>alert(1)</script>$x_1$")
    place = Place("<b>$\\frac$", 0, 1568, 0, 1)
    text = render(replace(FIGURES, layers=(layer,), places=(place,), source="<i>"))
    assert "<script>alert" not in text and "<b>$" not in text and "<i>" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_broken_budget_is_seen_at_once() -> None:
    text = render(replace(FIGURES, broken=("3 kB of flash, 1 kB over",)))
    assert re.search(r'class="status failed">over budget', text)
    assert "3 kB of flash, 1 kB over" in text
