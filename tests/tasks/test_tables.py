"""The task `tables`: a federation's schema and a file for each owner, before it is deployed."""

import json

import numpy as np
import pandas as pd
import pytest

from fedsys.errors import DataError, UsageError
from fedsys.tables import Preparation, merge, open_source, prepare, schema_of, summarise
from fedsys.tasks import TASKS, Tables
from fedsys.tasks.tables import owner_names
from tests.tables.conftest import SCHEMA, people


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three owners: a CSV, a Parquet and a packed CSV file, the last one with a gap."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schema.toml").write_text(SCHEMA)
    people(100, 1).to_csv("north.csv", index=False)
    people(60, 2).to_parquet("south.parquet")
    people(80, 3).assign(age=lambda table: table["age"].where(table.index != 5)).to_csv(
        "west.csv.gz", index=False
    )
    return tmp_path


FILES = ("north.csv", "south.parquet", "west.csv.gz")


def test_a_fifth_of_each_owners_rows_is_kept_and_the_rest_scaled_together(folder):
    task = Tables("schema.toml", FILES).load()
    assert TASKS.decode(TASKS.encode(Tables("schema.toml", FILES))) == Tables("schema.toml", FILES)
    assert task.owners == ("north", "south", "west")
    assert np.bincount(task.train.owners).tolist() == [80, 48, 64]
    assert np.bincount(task.client_test.owners).tolist() == [20, 12, 16]
    np.testing.assert_array_equal(task.test.inputs, task.client_test.inputs)
    # No row is in both parts, and none is lost.
    schema = schema_of(SCHEMA)
    sources = [open_source(name) for name in FILES]
    made = Preparation.of({key: task.prepared[key] for key in ("schema", "scalings")}, schema)
    every = [prepare(source, schema, made) for source in sources]
    both = np.concatenate([task.train.inputs, task.test.inputs])
    whole = np.concatenate([part.inputs for part in every])
    order = np.lexsort(both.T), np.lexsort(whole.T)
    np.testing.assert_array_equal(both[order[0]], whole[order[1]])
    # Scaled by the rows that are trained on, and no others.
    income = task.train.inputs[:, schema.inputs.index("income")]
    assert abs(income.mean()) < 1e-6
    assert income.std() == pytest.approx(1, abs=1e-5)
    all_rows = Preparation.derive(schema, merge([summarise(one, schema) for one in sources]))
    assert all_rows.scalings["income"] != made.scalings["income"]
    for number, part in enumerate(every):
        share = task.client_test.labels[task.client_test.owners == number].mean()
        assert abs(share - part.labels.mean()) < 0.1


def test_what_the_schema_refuses_is_told_with_file_and_row(folder):
    people(50).assign(age=lambda table: table["age"].where(table.index != 7, 999)).to_csv(
        "east.csv", index=False
    )
    with pytest.raises(DataError, match=r"east\.csv: column 'age', row 8 \(line 9\): outside"):
        Tables("schema.toml", (*FILES, "east.csv")).load()
    pd.DataFrame({"age": [1]}).to_csv("other.csv", index=False)
    with pytest.raises(DataError, match=r"other\.csv has no column 'default'"):
        Tables("schema.toml", ("other.csv",)).load()
    with pytest.raises(UsageError, match=r"nowhere\.toml: no such file"):
        Tables("nowhere.toml", FILES).load()
    people(1).to_csv("one.csv", index=False)
    with pytest.raises(DataError, match=r"one\.csv has 1 rows, too few"):
        Tables("schema.toml", ("one.csv",)).load()


def test_owners_are_called_after_their_files():
    assert owner_names(["a.csv", "x/b.csv.gz", "env:BANK_C"]) == ["a", "b", "BANK_C"]
    assert owner_names(["x/rows.csv", "y/rows.csv", "z.csv"]) == ["x/rows.csv", "y/rows.csv", "z"]
    with pytest.raises(UsageError, match=r"'a\.csv' is there twice"):
        owner_names(["a.csv", "a.csv"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "task: 'tables' needs schema, sources"),
        ({"schema": "s.toml", "sources": []}, "task.sources: name a table for each owner"),
        ({"schema": "s.toml", "sources": "a.csv"}, "task.sources must be a list of texts, not"),
        ({"schema": "s.toml", "sources": ["a.csv", 1]}, "task.sources must be a list of texts"),
        ({"schema": "s.toml", "sources": ["a.csv"], "test": 1}, "task.test: must be between 0 and"),
        ({"schema": "s.toml", "sources": ["a.csv"], "model": "ml"}, "task.model: unknown model"),
        (
            {"schema": "s.toml", "sources": ["postgresql://u:secret@h/d"]},
            "task.sources: put",
        ),
    ],
)
def test_a_mistake_is_one_line_without_a_password(table, message):
    with pytest.raises(UsageError) as raised:
        TASKS.decode({"name": "tables", **table}, "task")
    assert str(raised.value).startswith(message)
    assert "secret" not in str(raised.value)


def test_on_the_command_line_each_source_is_an_option_of_its_own(folder, cli, no_pictures):
    sources = [word for name in FILES for word in ("--source", name)]
    done = cli("simulate", "--task", "tables", "--schema", "schema.toml", *sources,
               "--model", "logistic", "--rounds", 2, "--json")  # fmt: skip
    assert done.code == 0, done.err
    run = next(folder.glob("runs/*"))
    facts = json.loads((run / "run.json").read_text())
    assert (facts["clients"], facts["natural"], facts["rows"]) == (3, True, 192)
    assert 'sources = [\n    "north.csv",' in (run / "experiment.toml").read_text()
    again = cli("simulate", run / "experiment.toml", "--json")
    assert again.json["metrics"]["test_auc"] == done.json["metrics"]["test_auc"]
    cli("simulate", "--task", "tables", "--source", "north.csv").refused(2, "needs schema")
    cli("simulate", "--task", "digits", "--source", "north.csv").refused(2, "task.sources: unknown")
    cli("simulate", "--resume", "x", "--source", "north.csv").refused(2, "--source")
