"""The same inputs everywhere: as if all rows had been pooled and scaled by NumPy, row by row."""

import json
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.errors import DataError
from fedsys.tables import (
    Preparation,
    merge,
    open_source,
    prepare,
    propose,
    schema_of,
    sources,
    summarise,
)
from tests.tables.conftest import SCHEMA, people, told
from tests.tables.test_statistics import ANYTHING, Memory, ragged, split


def pooled_inputs(table):
    """What the schema says of pooled rows, in plain float64 NumPy."""
    age = pd.to_numeric(table["age"]).to_numpy(dtype=float)
    median = np.nanquantile(age, 0.5, method="inverted_cdf")
    income = pd.to_numeric(table["income"]).clip(0, 20000).to_numpy(dtype=float)
    filled = [np.where(np.isnan(age), median, age), np.where(np.isnan(income), np.nanmean(income),
                                                            income)]  # fmt: skip
    parts = [
        (values - np.nanmean(given)) / np.nanstd(given)
        for values, given in zip(filled, (age, income), strict=True)
    ]
    towns = table["town"].to_numpy(dtype=object)
    parts += [towns == town for town in ("Ulm", "Bern", "Linz")]
    parts.append(~np.isin(towns.astype(str), ["Ulm", "Bern", "Linz"]))
    grades = table["grade"].fillna(2).to_numpy(dtype=float)
    parts += [grades == grade for grade in (1, 2, 3)]
    parts.append(table["member"].fillna(0).to_numpy(dtype=float))
    return np.stack(parts, axis=1).astype(np.float32)


@given(st.integers(0, 2**32), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_every_banks_rows_are_the_pooled_rows(seed, parts):
    schema = schema_of(SCHEMA.replace("minimum = 10", "minimum = 1"))
    table = ragged(150, seed)
    owners = np.random.default_rng(seed).integers(0, parts, len(table))
    banks = [bank for bank in split(table, parts, seed) if len(bank._table)]
    preparation = Preparation.derive(schema, merge([summarise(bank, schema) for bank in banks]))
    expected, labels = pooled_inputs(table), table["default"].to_numpy(dtype=int)
    prepared = [prepare(bank, schema, preparation) for bank in banks]
    for part, found in zip(np.unique(owners), prepared, strict=True):
        assert found.inputs.dtype == np.float32 and found.labels.dtype == np.int64
        np.testing.assert_allclose(found.inputs, expected[owners == part], rtol=1e-6, atol=1e-6)
        assert (found.labels == labels[owners == part]).all()
        assert found.rows.tolist() == list(range((owners == part).sum()))
    assert found.inputs.shape[1] == len(schema.inputs)
    assert len(found.examples) == len(found.labels)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "sql"])
def test_every_source_and_order_of_columns_gives_the_same_inputs(saved, schema, kind, monkeypatch):
    monkeypatch.setattr(sources, "CELLS", 100)
    table = ragged(120).astype({"town": "str"} if kind != "sql" else {})
    table = ragged(120)
    if kind == "parquet":
        table = table.convert_dtypes()
    memory = Memory(ragged(120), 1000)
    preparation = Preparation.derive(schema, summarise(memory, schema))
    one = prepare(memory, schema, preparation)
    shuffled = table[list(reversed(table.columns))].assign(extra=1)
    other = prepare(saved(shuffled, kind), schema, preparation)
    assert (one.inputs == other.inputs).all() and (one.labels == other.labels).all()


def test_rows_that_the_schema_drops_are_left_out_and_the_others_keep_their_numbers():
    text = SCHEMA.replace('missing = "median"', 'missing = "drop"')
    schema = schema_of(text.replace('outside = "clip"', 'outside = "drop"'))
    table = ragged(150)
    kept = table["age"].notna() & (pd.to_numeric(table["income"]).fillna(0) <= 20000)
    source = Memory(table)
    preparation = Preparation.derive(schema, summarise(source, schema))
    found = prepare(source, schema, preparation)
    assert found.rows.tolist() == np.flatnonzero(kept).tolist()
    assert (found.labels == table["default"][kept]).all()
    ages = pd.to_numeric(table["age"][kept]).to_numpy(dtype=float)
    np.testing.assert_allclose(found.inputs[:, 0], (ages - ages.mean()) / ages.std(), rtol=1e-6,
                               atol=1e-6)  # fmt: skip


def test_constants_and_columns_that_do_not_vary(schema):
    text = SCHEMA.replace('missing = "mean"', "missing = { constant = 1000 }")
    schema = schema_of(text)
    table = people(50).astype(object).assign(age=40)
    table.loc[3, "income"] = None
    preparation = Preparation.derive(schema, summarise(Memory(table), schema))
    assert preparation.scalings["age"].scale == 1
    found = prepare(Memory(table), schema, preparation)
    assert (found.inputs[:, 0] == 0).all()
    scaling = preparation.scalings["income"]
    assert found.inputs[3, 1] == np.float32((1000 - scaling.mean) / scaling.scale)


def test_a_column_that_no_bank_has_values_of(schema):
    table = people(50).assign(income=None)
    with pytest.raises(DataError, match="'income': no bank has values enough"):
        Preparation.derive(schema, summarise(Memory(table), schema))
    constant = schema_of(SCHEMA.replace('missing = "mean"', "missing = { constant = 7 }"))
    preparation = Preparation.derive(constant, summarise(Memory(table), constant))
    assert preparation.scalings["income"].fill == 7
    there = people(50)  # of some bank that joins later
    assert np.abs(prepare(Memory(there), constant, preparation).inputs[:, 1]).max() < 1e-20
    assert (prepare(Memory(table), constant, preparation).inputs[:, 1] == 0).all()


def test_a_bank_without_a_column_is_filled_by_the_others(schema):
    one, other = people(100, 1), people(100, 2).assign(income=None)
    merged = merge([summarise(Memory(table), schema) for table in (one, other)])
    preparation = Preparation.derive(schema, merged)
    assert preparation.scalings["income"].mean == pytest.approx(one["income"].mean(), rel=1e-12)
    assert (prepare(Memory(other), schema, preparation).inputs[:, 1] == 0).all()


# --- as a value --------------------------------------------------------------------------------


@pytest.fixture
def preparation(schema):
    return Preparation.derive(schema, summarise(Memory(ragged(150)), schema))


def test_a_preparation_travels_as_json_and_keeps_its_hash(schema, preparation):
    again = Preparation.of(json.loads(json.dumps(preparation.table())), schema)
    assert again == preparation and again.hash == preparation.hash
    age = preparation.scalings["age"]
    moved = {**preparation.scalings, "age": replace(age, mean=np.nextafter(age.mean, 1e9))}
    assert replace(preparation, scalings=moved).hash != preparation.hash


def test_a_preparation_of_another_schema_is_refused(schema, preparation):
    other = replace(schema, minimum=11)
    for attempt in (
        lambda: prepare(Memory(people(20)), other, preparation),
        lambda: Preparation.of(preparation.table(), other),
        lambda: Preparation.derive(other, summarise(Memory(people(20)), schema)),
    ):
        assert "belongs to another schema" in told(attempt)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_any_change_of_a_preparation_is_one_line_or_another_preparation(data):
    schema = schema_of(SCHEMA)
    whole = Preparation.derive(schema, summarise(Memory(people(60)), schema))
    table = deepcopy(whole.table())
    inner = data.draw(st.sampled_from([table, table["scalings"], table["scalings"]["age"]]))
    inner[data.draw(st.sampled_from([*inner, "more"]))] = data.draw(ANYTHING)

    def attempt():
        other = Preparation.of(table, schema)
        prepared = prepare(Memory(people(20)), schema, other)
        assert np.isfinite(prepared.inputs).all()

    assert "\n" not in told(attempt)


def test_rows_that_are_refused_name_their_row_and_no_value(tmp_path, schema, preparation):
    table = people(60).astype(object)
    table.loc[30, "age"] = "Zqold"
    table.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError) as caught:
        prepare(open_source(tmp_path / "rows.csv"), schema, preparation)
    assert "column 'age', row 31 (line 32): not of type integer" in str(caught.value)
    assert "Zqold" not in str(caught.value)
    for change, said in (
        ({"town": None}, "has no column 'town'"),
        ({"age": "age", "income": "age"}, "has 2 times the column 'age'"),
    ):
        names = [change.get(name, name) if name in change else name for name in people(1).columns]
        renamed = people(60).set_axis([name or "other" for name in names], axis=1)
        text = renamed.to_csv(index=False)
        (tmp_path / "rows.csv").write_text(text)
        with pytest.raises(DataError, match=said):
            prepare(open_source(tmp_path / "rows.csv"), schema, preparation)


def test_no_rows_left_is_one_line(tmp_path, schema, preparation):
    people(0).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match="no rows are left"):
        prepare(open_source(tmp_path / "rows.csv"), schema, preparation)


# --- drafts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet", "sql"])
def test_a_draft_with_values_is_a_schema_that_fits_its_data(saved, kind):
    source = saved(people(80), kind)
    schema = schema_of(propose(source, "default", values=True))
    assert [(column.name, column.type) for column in schema.columns] == [
        ("age", "integer"),
        ("income", "number"),
        ("town", "category"),
        ("grade", "integer"),
        ("member", "yes/no"),
    ]
    assert schema.columns[2].categories == ("Bern", "Linz", "Ulm")
    assert schema.columns[0].range == (people(80)["age"].min(), people(80)["age"].max())
    assert schema.label.classes is None
    summarise(source, schema)


def test_a_draft_tells_no_value_unless_asked(saved):
    table = people(80).assign(town=[f"Zq{number}" for number in range(80)])
    draft = propose(saved(table), "default")
    assert "Zq" not in draft and "range = [1" not in draft
    assert "columns.town.categories: list every category" in told(lambda: schema_of(draft))
    assert 'missing = "refuse"  # some are missing' in propose(saved(ragged(80)), "default")
    with pytest.raises(DataError, match="no column 'defualt'; did you mean 'default'"):
        propose(saved(table), "defualt")
    with pytest.raises(DataError, match="no rows to draft"):
        propose(saved(people(0)))


def test_importing_tables_loads_nothing_heavy():
    """The command line answers at once, and a bank's check needs no TensorFlow."""
    heavy = ("tensorflow", "keras", "pandas", "pyarrow", "sqlalchemy", "sklearn")
    code = f"import sys, fedsys.tables; print([m for m in {heavy} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
