"""A real PostgreSQL: server-side cursors, nothing written, mistakes in one line, same as CSV."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedsys.errors import DataError
from fedsys.tables import Preparation, check, open_source, prepare, summarise
from tests.tables.conftest import people
from tests.tables.postgres import PASSWORD


@pytest.fixture(scope="module")
def filled(postgres):
    table = people(300)
    postgres.run(
        'CREATE TABLE people (id serial, age int, income numeric(12, 2), town text, "Größe" real,'
        ' grade smallint, member boolean, "default" int)',
        *(
            'INSERT INTO people (age, income, town, grade, member, "default") VALUES '
            f"({row.age}, {row.income}, '{row.town}', {row.grade}, {bool(row.member)},"
            f" {row.default})"
            for row in table.itertuples()
        ),
        "CREATE SEQUENCE counter",
        "CREATE TABLE hidden (x int)",
        f"CREATE USER reader PASSWORD '{PASSWORD}'",
        "GRANT SELECT ON people TO reader",
    )
    return table


QUERY = "SELECT * FROM people ORDER BY id"


def test_the_same_as_the_csv_file(postgres, filled, schema, saved):
    database, file = open_source(postgres.address, QUERY), saved(filled)
    assert database.columns()[:3] == ("id", "age", "income")
    report = check(database, schema)
    assert report.code == 0 and report.rows == 300, report.text()
    assert summarise(database, schema) == summarise(file, schema)
    preparation = Preparation.derive(schema, summarise(file, schema))
    one, other = prepare(database, schema, preparation), prepare(file, schema, preparation)
    assert (one.inputs == other.inputs).all() and (one.labels == other.labels).all()


@pytest.mark.parametrize("driver", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_way_to_write_the_address(postgres, filled, driver):
    address = postgres.address.replace("postgresql+psycopg", driver)
    source = open_source(address, "SELECT 1 AS one, '50% :x' AS \"two\"")
    (chunk,) = source.chunks(["two"])
    assert chunk.columns["two"] == ("50% :x",)
    assert source.name == f"postgresql+psycopg://bank@127.0.0.1:{postgres.port}/postgres"
    assert PASSWORD not in repr(source)


def test_rows_stay_on_the_server_until_they_are_read(postgres, filled):
    """300 MB: a cursor of the driver's own would hold all of it before it gives the first row."""
    source = open_source(
        postgres.address, "SELECT repeat('x', 1000) AS a FROM generate_series(1, 300000)"
    )
    before, most, rows = resident(), 0, 0
    for chunk in source.chunks(["a"]):
        rows += chunk.rows
        most = max(most, resident())
    assert rows == 300_000
    assert most - before < 100e6


def resident():
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("WITH gone AS (DELETE FROM people RETURNING *) SELECT * FROM gone", "query"),
        ("SELECT nextval('counter')", "would write"),
        ("SELECT age INTO copies FROM people", "query"),
        ("SELECT setval('counter', 9)", "would write"),
        ("SELECT agee FROM people", 'column "agee" does not exist'),
        ("SELECT * FROM persons", 'relation "persons" does not exist'),
        ("SELECT FROM WHERE", "does not take the query: syntax error"),
        ("SELECT 1; COMMIT; DELETE FROM people", "3 statements"),
        ("SELECT town::int FROM people", "some cell cannot be computed .* .SQLSTATE 22P02"),
        ("SELECT 1 / (age - age) FROM people", "some cell cannot be computed .* .SQLSTATE 22012"),
    ],
)
def test_a_query_that_writes_or_fails_is_one_line_without_cells(postgres, filled, query, said):
    with pytest.raises(DataError, match=said) as caught:
        for _ in open_source(postgres.address, query).chunks([]):
            pass
    message = str(caught.value)
    assert "\n" not in message and PASSWORD not in message
    assert not any(town in message for town in ("Ulm", "Bern", "Linz"))
    whole = open_source(postgres.address, "SELECT count(*) AS n FROM people")
    assert next(whole.chunks(["n"])).columns["n"] == (300,)
    tables = open_source(
        postgres.address, "SELECT count(*) AS n FROM pg_tables WHERE tablename = 'copies'"
    )
    assert next(tables.chunks(["n"])).columns["n"] == (0,)


def test_a_table_out_of_the_users_reach(postgres, filled):
    address = postgres.address.replace("//bank:", "//reader:")
    assert len(open_source(address, QUERY).columns()) == 8
    with pytest.raises(DataError, match="may not read this"):
        open_source(address, "SELECT * FROM hidden")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("s3cret", "wr0ng", "user or password is refused"),
        ("//bank:", "//nobody:", "user or password is refused"),
        (":s3cret%3A%2F%40word@", "@", "password"),
        ("/postgres", "/other", "no such database"),
        ("127.0.0.1", "no-such-host.invalid", "the host is unknown"),
    ],
)
def test_a_wrong_address_is_one_line(postgres, old, new, said):
    assert old in postgres.address
    with pytest.raises(DataError, match=said) as caught:
        open_source(postgres.address.replace(old, new, 1), QUERY)
    message = str(caught.value)
    assert "\n" not in message
    assert not any(word in message for word in ("s3cret", "wr0ng", PASSWORD, "%3A%2F%40word"))


def test_nobody_answers(postgres):
    with pytest.raises(DataError, match="nobody answers there"):
        open_source("postgresql+psycopg://bank:x@127.0.0.1:1/n", QUERY)


def test_a_connection_that_is_cut_amid_the_rows_is_one_line(postgres, filled):
    """The administrator ends the bank's session while rows are read."""
    source = open_source(postgres.address, "SELECT i AS a FROM generate_series(1, 5000000) i")
    chunks = source.chunks(["a"])
    next(chunks)
    postgres.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE usename = 'bank' AND pid <> pg_backend_pid()"
    )
    with pytest.raises(DataError, match="connection to the database was lost") as caught:
        for _ in chunks:
            pass
    assert "\n" not in str(caught.value)


def test_no_session_is_left_when_reading_stops_early(postgres, filled):
    chunks = open_source(
        postgres.address, "SELECT i AS a FROM generate_series(1, 2000000) i"
    ).chunks(["a"])
    next(chunks)
    chunks.close()
    open_sessions = (
        "SELECT count(*) AS n FROM pg_stat_activity"
        " WHERE datname = 'postgres' AND pid <> pg_backend_pid()"
    )
    for _ in range(100):  # the server notices a moment later
        if next(open_source(postgres.address, open_sessions).chunks(["n"])).columns["n"] == (0,):
            return
        time.sleep(0.05)
    raise AssertionError("a session is left")


def test_rows_that_are_added_amid_reading_are_not_seen(postgres, filled):
    """One query sees one state of the table, however long it takes."""
    postgres.run("CREATE TABLE moving AS SELECT i AS a FROM generate_series(1, 400000) i")
    source = open_source(postgres.address, "SELECT a FROM moving")
    chunks = source.chunks(["a"])
    rows = next(chunks).rows
    writer = threading.Thread(target=postgres.run, args=("DELETE FROM moving WHERE a > 100",))
    writer.start()
    writer.join()
    assert rows + sum(chunk.rows for chunk in chunks) == 400_000
    postgres.run("DROP TABLE moving")


def test_numeric_and_real_are_numbers(postgres):
    query = "SELECT 1.50::numeric AS n, 2.5::real AS r, NULL::numeric AS g, 'NaN'::float AS f"
    (chunk,) = open_source(postgres.address, query).chunks(["n", "r", "g", "f"])
    values = pd.Series({name: cells[0] for name, cells in chunk.columns.items()}, dtype=object)
    assert float(values["n"]) == 1.5 and values["r"] == 2.5 and values["g"] is None
    assert np.isnan(values["f"])
