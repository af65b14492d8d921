"""A small federation's schema, rows that fit it, and the same rows in every kind of source."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsys.errors import FedsysError
from fedsys.tables import Schema, Source, open_source, schema_of
from tests.tables.postgres import Postgres, why_not

SCHEMA = """
minimum = 10

[label]
column = "default"
classes = "binary"

[columns.age]
type = "integer"
range = [18, 99]
missing = "median"

[columns.income]
type = "number"
unit = "euros a month"
range = [0, 20000]
outside = "clip"
missing = "mean"

[columns.town]
type = "category"
categories = ["Ulm", "Bern", "Linz"]
other = true
missing = "other"

[columns.grade]
type = "category"
categories = [1, 2, 3]
missing = { category = 2 }

[columns.member]
type = "yes/no"
missing = { constant = false }
"""

Saved = Callable[..., Source]


@pytest.fixture
def schema() -> Schema:
    return schema_of(SCHEMA)


def told(attempt: Callable[[], object]) -> str:
    """What the attempt is refused with, or nothing; any other error is the test's failure."""
    try:
        attempt()
    except FedsysError as error:
        return str(error)
    return ""


def people(rows: int = 200, seed: int = 0) -> pd.DataFrame:
    """Rows that fit the schema without a finding."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 90, rows),
            "income": rng.normal(3000, 500, rows).round(2),
            "town": rng.choice(["Ulm", "Bern", "Linz"], rows),
            "grade": rng.integers(1, 4, rows),
            "member": rng.integers(0, 2, rows),
            "default": rng.integers(0, 2, rows),
        }
    )


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """Saves a table as 'csv', 'csv.gz', 'parquet' or 'sql', and opens it."""

    def save(table: pd.DataFrame, kind: str = "csv") -> Source:
        path = tmp_path / f"rows-{len(list(tmp_path.iterdir()))}.{kind}"
        if kind == "sql":
            with sqlite3.connect(path) as connection:
                table.to_sql("people", connection, index=False)
            connection.close()
            return open_source(f"sqlite:///{path}", "SELECT * FROM people ORDER BY rowid")
        if kind == "parquet":
            table.to_parquet(path)
        else:
            table.to_csv(path, index=False)
        return open_source(path)

    return save


@pytest.fixture(scope="session")
def data() -> Path:
    """The real data sets, which lie beside the checkout and are no part of it."""
    return Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL server of the tests' own, with a password."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    server = Postgres.start()
    yield server
    server.stop()
