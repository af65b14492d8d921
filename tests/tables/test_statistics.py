"""Statistics of all rows without rows leaving: NumPy's on the pooled rows, whatever the split."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.errors import DataError, UsageError
from fedsys.tables import Column, merge, schema_of, summarise
from fedsys.tables.histogram import BINS, bin_counts, edges, quantile, said_below
from fedsys.tables.moments import Moments, moments, together
from fedsys.tables.sources import Chunk
from fedsys.tables.summary import summary_of
from tests.tables.conftest import SCHEMA, people, told

SCHEMA_1 = SCHEMA.replace("minimum = 10", "minimum = 1")


class Memory:
    """Rows that are in memory, as a source."""

    name, kind = "memory", "memory"

    def __init__(self, table, rows=7):
        self._table, self._rows = table, rows

    def columns(self):
        return tuple(self._table.columns)

    def chunks(self, wanted):
        for start in range(0, len(self._table), self._rows):
            part = self._table.iloc[start : start + self._rows]
            columns = {name: list(part[name].astype(object)) for name in wanted}
            yield Chunk(start, len(part), columns)


def split(table, parts, seed=0):
    """The rows dealt out at random, as sources."""
    owners = np.random.default_rng(seed).integers(0, parts, len(table))
    return [Memory(table[owners == part]) for part in range(parts)]


# --- means and variances -----------------------------------------------------------------------


@st.composite
def numbers(draw):
    """Numbers about a centre that may lie up to 1e8 deviations away, cut into parts."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 200))
    centre = draw(st.sampled_from([0.0, 1.0, -1e3, 1e6, 1e8, 1e12]))
    spread = draw(st.sampled_from([1e-3, 1.0, 1e4]))
    values = centre + max(spread, abs(centre) * 1e-8) * rng.standard_t(2, count)
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=6)))
    return values, np.split(values, cuts)


@given(numbers())
@settings(max_examples=300, deadline=None)
def test_moments_of_parts_are_those_of_the_pooled_numbers(drawn):
    values, parts = drawn
    found = Moments()
    for part in parts:
        found = together(found, moments(part))
    # In extended precision: NumPy's own float64 variance is no better than what it is to check.
    exact = values.astype(np.longdouble)
    assert found.count == len(values)
    assert abs(found.mean - float(exact.mean())) <= 1e-12 * np.abs(values).max()
    assert found.variance == pytest.approx(float(exact.var()), rel=1e-12, abs=1e-300)
    assert found.variance == pytest.approx(values.var(), rel=1e-9, abs=1e-300)
    assert found.mean == found.mean + found.rest  # the second part is below the first's last bit


@given(numbers())
@settings(max_examples=100, deadline=None)
def test_float64_numpy_on_the_pooled_rows_agrees_to_twelve_digits(drawn):
    """As far as NumPy's own rounding goes, which grows with the distance of the numbers from 0."""
    values, parts = drawn
    found = Moments()
    for part in reversed(parts):
        found = together(moments(part), found)
    off = np.abs(values).max() / (values.std() or 1.0)
    assert found.mean == pytest.approx(values.mean(), rel=1e-12, abs=1e-12 * np.abs(values).max())
    if off < 1e5:
        assert found.variance == pytest.approx(values.var(), rel=1e-12, abs=1e-300)


def test_the_naive_sum_of_squares_would_not_do():
    """So that the bound above says something: textbook sums lose all digits at 1e8 deviations."""
    values = 1e8 + np.random.default_rng(0).normal(size=1000)
    naive = (values**2).mean() - values.mean() ** 2
    found = together(moments(values[:300]), moments(values[300:]))
    exact = float(values.astype(np.longdouble).var())
    assert found.variance == pytest.approx(exact, rel=1e-12)
    assert abs(naive - exact) > 1e-3 * exact


def test_a_constant_column_has_no_variance():
    found = together(moments(np.full(9, 0.1)), moments(np.full(4, 0.1)))
    assert found.mean == 0.1 and found.deviation < 1e-17
    assert moments(np.array([])) == Moments()


# --- quantiles ---------------------------------------------------------------------------------

RANGES = st.sampled_from(
    [
        ("number", 0, 1),
        ("number", -1e6, 1e6),
        ("integer", 0, 1023),
        ("integer", -3, 7),
        ("integer", 0, 1e6),
        ("integer", 0.5, 9.5),
    ]
)


@st.composite
def clients(draw):
    type_, low, high = draw(RANGES)
    column = Column("x", type_, range=(low, high))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    parts = []
    for _ in range(draw(st.integers(1, 6))):
        size = draw(st.integers(0, 60))
        values = low + (high - low) * rng.beta(draw(st.sampled_from([0.2, 1, 5])), 2, size)
        if type_ == "integer":
            values = np.clip(np.round(values), np.ceil(low), np.floor(high))
        parts.append(values)
    return column, parts


@given(clients(), st.floats(0, 1), st.sampled_from([1, 2, 10]))
@settings(max_examples=400, deadline=None)
def test_a_quantile_is_within_its_bound(drawn, part, minimum):
    """Q(t - s/2) - w/2 <= answer <= Q(t + s/2) + w/2, by the sorted pooled numbers."""
    column, parts = drawn
    parts = [values for values in parts if len(values) >= minimum]
    if not parts:
        return
    pooled = np.sort(np.concatenate(parts))
    below = sum(
        np.array(said_below(bin_counts(values, column), minimum), dtype=int) for values in parts
    )
    slack = len(parts) * (minimum - 1)
    count = len(pooled)
    answer = quantile(below.tolist(), count, slack, column, part)

    def ranked(rank):
        at = int(np.ceil(rank - 1e-9))
        return pooled[at - 1] if 1 <= at <= count else column.range[at > count]

    grid = edges(column)
    half = np.diff(grid).max() / 2 * (1 + 1e-9)
    wanted = max(part * count, 1)
    assert ranked(wanted - slack / 2) - half <= answer <= ranked(wanted + slack / 2) + half
    assert answer in (grid[:-1] + grid[1:]) / 2
    if part == 0.5:
        assert wanted - slack / 2 > 0 and wanted + slack / 2 <= count


@given(clients(), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_a_minimum_of_one_finds_the_bin_of_the_exact_quantile(drawn, part):
    column, parts = drawn
    pooled = np.concatenate(parts)
    if not len(pooled):
        return
    below = sum(np.array(said_below(bin_counts(values, column), 1), dtype=int) for values in parts)
    answer = quantile(below.tolist(), len(pooled), 0, column, part)
    exact = np.quantile(pooled, part, method="inverted_cdf")
    assert abs(answer - exact) <= np.diff(edges(column)).max() / 2 * (1 + 1e-9)
    if column.type == "integer" and column.range[1] - column.range[0] < BINS:
        assert answer == exact


def test_counts_on_the_grid_never_show_a_few_rows():
    column = Column("x", "number", range=(0, 1))
    values = np.random.default_rng(0).random(500)
    counts = bin_counts(values, column)
    assert counts.sum() == 500 and 0 < counts[counts > 0].min() < 10
    steps = np.diff([0, *said_below(counts, 10)])
    assert set(np.unique(steps % 10)) == {0} and steps.max() >= 10
    assert bin_counts(np.array([0.0, 1.0]), column)[[0, -1]].tolist() == [1, 1]


# --- summaries of tables -----------------------------------------------------------------------


def ragged(rows, seed=0):
    """Rows that use every rule of the schema."""
    rng = np.random.default_rng(seed)
    table = people(rows, seed).astype(object)
    for name in ("age", "income", "town", "grade", "member"):
        table.loc[rng.random(rows) < 0.2, name] = None
    table.loc[rng.random(rows) < 0.1, "town"] = "Oslo"
    table.loc[rng.random(rows) < 0.1, "income"] = 99_999
    return table


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 120))
@settings(max_examples=60, deadline=None)
def test_all_banks_together_are_the_pooled_rows(seed, parts, rows):
    schema = schema_of(SCHEMA_1)
    table = ragged(rows, seed)
    banks = [source for source in split(table, parts, seed) if len(source._table)]
    merged = merge([summarise(source, schema) for source in banks])
    assert (merged.rows, merged.clients, merged.minimum) == (rows, len(banks), 1)
    for name, limits in (("age", (18, 99)), ("income", (0, 20000))):
        values = pd.to_numeric(table[name]).dropna().clip(*limits).to_numpy(dtype=float)
        found = merged.numbers[name]
        assert (found.moments.count, found.missing) == (len(values), rows - len(values))
        if len(values):
            assert merged.mean(name) == pytest.approx(values.mean(), rel=1e-12)
            assert merged.deviation(name) == pytest.approx(values.std(), rel=1e-12, abs=1e-9)
            median = np.quantile(values, 0.5, method="inverted_cdf")
            if name == "age":
                assert merged.quantile(schema.columns[0], 0.5) == median
    words = table["town"]
    expected = [(words == town).sum() for town in ("Ulm", "Bern", "Linz", "Oslo")]
    assert merged.counts["town"].cells == (*expected, words.isna().sum())
    grades = [(table["grade"] == grade).sum() for grade in (1, 2, 3)]
    assert merged.counts["grade"].cells == (*grades, table["grade"].isna().sum())
    members = [(table["member"] == member).sum() for member in (0, 1)]
    assert merged.counts["member"].cells == (*members, table["member"].isna().sum())
    labels = [(table["default"] == label).sum() for label in (0, 1)]
    assert merged.counts["default"].cells == (*labels, 0)
    assert all(counts.hidden == 0 for counts in merged.counts.values())


def test_the_size_of_chunks_changes_nothing_but_rounding(schema):
    table = ragged(300)
    one, other = (summarise(Memory(table, rows), schema) for rows in (7, 1000))
    assert one.counts == other.counts and one.numbers["age"].below == other.numbers["age"].below
    assert one.mean("income") == pytest.approx(other.mean("income"), rel=1e-15)


def test_only_columns_that_need_a_median_are_counted_on_the_grid(schema):
    table = ragged(100)
    assert summarise(Memory(table), schema).numbers["income"].below == ()
    asked = summarise(Memory(table), schema, quantiles=["income"])
    assert len(asked.numbers["income"].below) == BINS - 1 and asked.numbers["age"].below == ()
    with pytest.raises(DataError, match="'age': no bank was asked for its quantiles"):
        asked.quantile(schema.columns[0], 0.5)
    with pytest.raises(UsageError, match="'town' is no column with a range"):
        summarise(Memory(table), schema, quantiles=["town"])
    with pytest.raises(DataError, match="not all banks were asked"):
        merge([asked, summarise(Memory(table), schema)])


def test_banks_without_values_do_not_move_a_median(schema):
    """Ten banks that lack a column, and one that has it: the median is of the one."""
    one = people(200, 1)
    lacking = [people(50, seed).assign(age=None) for seed in range(10)]
    merged = merge([summarise(Memory(table), schema) for table in (*lacking, one)])
    ages = np.sort(one["age"])
    low, high = ages[[99 - 5, 99 + 5]]
    assert low <= merged.quantile(schema.columns[0], 0.5) <= high


def test_rows_that_are_refused_are_summed_nowhere(schema):
    table = people(50)
    table.loc[11, "age"] = 17
    with pytest.raises(DataError, match=r"column 'age', row 12: outside the range"):
        summarise(Memory(table), schema)


# --- the minimum -------------------------------------------------------------------------------


def test_a_bank_of_few_rows_says_nothing(schema):
    with pytest.raises(DataError, match="9 rows are too few to say anything of; the minimum is 10"):
        summarise(Memory(people(9)), schema)
    with pytest.raises(DataError, match="the minimum is 50"):
        summarise(Memory(people(49)), schema, minimum=50)
    assert summarise(Memory(people(10)), schema).rows == 10


def test_a_bank_may_be_stricter_but_not_laxer(schema):
    assert summarise(Memory(people(60)), schema, minimum=50).minimum == 50
    assert summarise(Memory(people(60)), schema, minimum=1).minimum == 10


def test_a_column_of_few_values_counts_as_missing(schema):
    table = people(100).astype(object)
    table.loc[9:, "income"] = None
    found = summarise(Memory(table), schema).numbers["income"]
    assert found.moments == Moments() and found.missing == 100
    table = people(100).astype(object)
    table.loc[3:, "age"] = None
    assert set(summarise(Memory(table), schema).numbers["age"].below) == {0}


@given(st.lists(st.integers(0, 40), min_size=3, max_size=3), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_no_count_of_few_rows_leaves_and_none_can_be_worked_out(counts, others, missing):
    """The rest, after all counts that are said, is nothing or at least the minimum."""
    schema = schema_of(SCHEMA)
    words = [*["Ulm"] * counts[0], *["Bern"] * counts[1], *["Linz"] * counts[2]]
    words += ["Oslo"] * others + [None] * missing
    if len(words) < 10:
        return
    table = people(len(words)).astype(object)
    table["town"] = words
    summary = summarise(Memory(table), schema)
    for found in summary.counts.values():
        assert not any(0 < count < 10 for count in (*found.cells, found.hidden))
        assert sum(found.cells) + found.hidden == summary.rows
    true = (*counts, others, missing)
    said = summary.counts["town"].cells
    assert all(cell in (0, real) for cell, real in zip(said, true, strict=True))
    if not any(0 < count < 10 for count in true):
        assert said == true
    assert summary_of(json.loads(json.dumps(summary.table())), schema, "bank-a") == summary


# --- what arrives from outside -----------------------------------------------------------------


def sent(schema, rows=200):
    return json.loads(json.dumps(summarise(Memory(ragged(rows)), schema).table()))


def test_what_is_sent_reads_back_the_same(schema):
    summary = summarise(Memory(ragged(200)), schema)
    assert summary_of(sent(schema), schema, "bank-a") == summary
    merged = merge([summary, summary])
    assert merged.rows == 400 and merged.numbers["age"].slack == 18


def put(*path):
    *head, last, value = path

    def change(table):
        inner = table
        for key in head:
            inner = inner[key]
        inner[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("schema", "0" * 64), "it is of another schema"),
        (put("rows", 10**12), "age.count: does not fit"),
        (put("rows", -1), "rows: must be a whole number"),
        (put("rows", True), "rows: must be a whole number"),
        (put("clients", 3), "clients: must be 1"),
        (put("minimum", 1), "minimum: must be the schema's or more"),
        (put("minimum", 10**6), "minimum: must be the schema's or more"),
        (put("numbers", "age", "slack", 0), "columns.age.slack: does not fit"),
        (put("more", 1), "summary: must be a table of 6 keys"),
        (put("numbers", []), "numbers: must be a table"),
        (put("numbers", "age", "mean", float("nan")), "columns.age.mean: must be a finite number"),
        (put("numbers", "age", "mean", 1e12), "columns.age.mean: outside the range"),
        (put("numbers", "age", "mean", "3"), "columns.age.mean: must be a number"),
        (put("numbers", "age", "rest", 5.0), "columns.age: no mean and squares"),
        (put("numbers", "age", "squares", -1.0), "columns.age: no mean and squares"),
        (put("numbers", "age", "squares", 1e9), "columns.age.squares: more than any"),
        (put("numbers", "age", "below", [0] * 3), "columns.age.below: must be 81 counts"),
        (put("numbers", "age", "below", [-10] * 81), "columns.age.below: must be a whole"),
        (put("numbers", "age", "below", [10**6] * 81), "columns.age.below: must ascend"),
        (put("numbers", "age", "below", [7] * 81), "columns.age.below: must ascend"),
        (put("counts", "town", "cells", [200]), "columns.town.cells: must be 5 counts"),
        (put("counts", "town", "cells", [200, 0, 0, 0, 1]), "columns.town.cells: do not fit"),
        (put("counts", "town", "cells", [194, 0, 0, 0, 6]), "columns.town.cells: do not fit"),
        (put("counts", "town", "hidden", 0.5), "columns.town.hidden: must be a whole"),
    ],
)
def test_a_summary_that_no_honest_bank_sends_is_refused(schema, change, said):
    table = sent(schema)
    change(table)
    with pytest.raises(DataError, match=said) as caught:
        summary_of(table, schema, "bank-b")
    assert str(caught.value).startswith("summary of bank-b: ")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
WHOLE = sent(schema_of(SCHEMA))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_change_is_a_summary_or_one_line(data):
    schema = schema_of(SCHEMA)
    table = inner = deepcopy(WHOLE)
    while True:
        keys = sorted(inner) if isinstance(inner, dict) else range(len(inner))
        key = data.draw(st.sampled_from(keys))
        if not (isinstance(inner[key], (dict, list)) and inner[key] and data.draw(st.booleans())):
            inner[key] = data.draw(ANYTHING)
            break
        inner = inner[key]
    said = told(lambda: merge([summary_of(table, schema, "x"), summary_of(WHOLE, schema, "y")]))
    assert "\n" not in said
    told(lambda: summary_of(data.draw(ANYTHING), schema, "x"))


def test_summaries_of_two_schemas_do_not_add_up(schema):
    other = replace(schema, minimum=11)
    one, two = (summarise(Memory(people(50)), which) for which in (schema, other))
    with pytest.raises(DataError, match="summaries of two schemas"):
        merge([one, two])
    with pytest.raises(DataError, match="no bank has sent"):
        merge([])


def test_a_mean_that_nobody_knows_says_what_to_do(schema):
    summary = summarise(Memory(people(50).assign(income=None)), schema)
    with pytest.raises(DataError, match="'income': no bank has values enough; give the schema"):
        summary.mean("income")
