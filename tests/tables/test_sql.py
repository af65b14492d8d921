"""Queries and SQLite: rows in chunks, nothing written, mistakes in one line without secrets."""

import sqlite3
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.errors import DataError, FedsysError
from fedsys.tables import open_source, sources
from fedsys.tables.query_text import read_query
from tests.tables.conftest import told


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "bank 1?.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE people (id INTEGER, name TEXT, x REAL)")
    connection.executemany(
        "INSERT INTO people VALUES (?, ?, ?)", [(i, f"n{i}", i / 4) for i in range(100)]
    )
    connection.commit()
    connection.close()
    return path


@pytest.fixture
def address(database):
    return "sqlite:///" + str(database).replace("?", "%3F")


def test_rows_come_in_chunks_and_as_often_as_asked(address, monkeypatch):
    monkeypatch.setattr(sources, "CELLS", 20)
    source = open_source(address, "SELECT id, x, name FROM people ORDER BY id")
    assert source.columns() == ("id", "x", "name")
    for _ in range(2):
        chunks = list(source.chunks(["name", "id"]))
        assert [chunk.rows for chunk in chunks] == [6] * 16 + [4]
        assert chunks[3].start == 18
        assert [i for chunk in chunks for i in chunk.columns["id"]] == list(range(100))
        assert chunks[0].columns["name"][1] == "n1"


def test_a_query_in_a_file_with_remarks(address, tmp_path):
    (tmp_path / "q.sql").write_text(
        "-- all; of them\n/* and; */ SELECT ':x', '50%', id FROM people;\n"
    )
    source = open_source(address, tmp_path / "q.sql")
    (chunk,) = source.chunks(["':x'", "'50%'"])
    assert chunk.columns["':x'"][0] == ":x"
    assert chunk.columns["'50%'"][0] == "50%"


def test_an_address_from_the_environment(address, monkeypatch):
    monkeypatch.setenv("BANK_DB", address)
    assert open_source("env:BANK_DB", "SELECT id FROM people").columns() == ("id",)


def test_no_rows_and_equal_names(address):
    source = open_source(address, "SELECT id, id, x FROM people WHERE id < 0")
    assert source.columns() == ("id", "id", "x")
    assert list(source.chunks(["id"])) == []


def test_text_that_is_no_utf8_is_marked_and_not_told(database, address):
    connection = sqlite3.connect(database)
    connection.execute("INSERT INTO people VALUES (1000, CAST(x'ff414243' AS TEXT), 0)")
    connection.commit()
    connection.close()
    (chunk,) = open_source(address, "SELECT name FROM people WHERE id = 1000").chunks(["name"])
    assert chunk.columns["name"] == ("\ufffdABC",)


def test_the_file_is_not_locked_nor_changed(database, address):
    before = database.read_bytes()
    stream = open_source(address, "SELECT * FROM people").chunks(["id"])
    next(stream)
    connection = sqlite3.connect(database)
    connection.execute("SELECT count(*) FROM people").fetchone()
    connection.close()
    stream.close()
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == [database.name]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (None, "is a database; give a query"),
        ("", "query: it is empty"),
        (" ; -- nothing\n", "query: it is empty"),
        ("SELEC id FROM people", "it is no SELECT"),
        ("SELECT id FROM", "does not take the query: incomplete input"),
        ("SELECT id FROM persons", "does not take the query: no such table: persons"),
        ("SELECT idd FROM people", "does not take the query: no such column: idd"),
        ("SELECT id FROM people GROUP", "does not take the query"),
        ("DELETE FROM people", "it is no SELECT"),
        ("select 1; delete from people", "2 statements"),
        ("PRAGMA query_only = OFF", "it is no SELECT"),
        ("WITH x AS (SELECT 1) DELETE FROM people", "would write"),
        ("none.sql", "'none.sql' does not exist"),
        ("SELECT CAST(x'ff' AS TEXT) || abs(-9223372036854775808)", "ended the query"),
    ],
)
def test_a_wrong_query_is_one_line(address, query, said):
    with pytest.raises(DataError, match=said) as caught:
        for _ in open_source(address, query).chunks([]):
            pass
    assert "\n" not in str(caught.value)


def test_what_is_no_database_is_one_line(tmp_path):
    (tmp_path / "text.db").write_text("no database at all, but some text of a file, long enough")
    for address, said in (
        (f"sqlite:///{tmp_path}/none.db", "there is no file"),
        ("sqlite://", "name the SQLite file"),
        ("sqlite:///:memory:", "name the SQLite file"),
        (f"sqlite:///{tmp_path}/text.db", "no SQLite database"),
        ("nosuch://host/name", "SQLAlchemy knows no database 'nosuch'"),
        ("postgresql+psychopg://h/n", "SQLAlchemy knows no database"),
        ("://", "no address of a database"),
    ):
        with pytest.raises(DataError, match=said):
            open_source(address, "SELECT x FROM t")


def test_a_missing_driver_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setitem(sys.modules, "pymysql", None)
    for address, package in (
        ("postgresql+psycopg://u:hidden@h/n", r"'psycopg\[binary\]'"),
        ("postgresql://u:hidden@h/n", r"'psycopg\[binary\]'"),
        ("mysql://u:hidden@h/n", "pymysql"),
    ):
        with pytest.raises(DataError, match=f"pip install {package}") as caught:
            open_source(address, "SELECT 1")
        assert "hidden" not in str(caught.value)


SECRETS = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=6, max_size=12)


@given(SECRETS, SECRETS)
@settings(max_examples=60, deadline=None)
def test_no_password_is_ever_told(one, two):
    """Neither a rightly written one nor one that breaks the address."""
    from urllib.parse import quote

    one, two = f"Zq{one}", f"Zq{two}"
    for address in (
        f"postgresql+psycopg://bank:{quote(one, safe='')}@127.0.0.1:1/n?sslpassword={quote(two)}",
        f"postgresql://bank:{one}@127.0.0.1:1/n",
        f"sqlite:///none.db?password={two}",
        f"nosuch://bank:{one}@host/n",
        f"postgresql:/bank:{one}@host/n",
        f"postgresql//bank:{one}@host/n",
    ):
        with pytest.raises(FedsysError) as caught:
            open_source(address, "SELECT 1")
        message = str(caught.value)
        for secret in (one, two):
            assert secret not in message and quote(secret, safe="") not in message


def test_a_source_shows_no_password(address):
    source = open_source(address.replace("sqlite://", "sqlite://"), "SELECT id FROM people")
    object.__setattr__(source, "url", source.url.set(username="bank", password="Zq-secret"))
    assert "Zq-secret" not in repr(source) + str(source) + source.name


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("SELECT 1", "SELECT 1"),
        ("  (select 1);  ", "(select 1)"),
        ("with a as (select ';') select * from a;", "with a as (select ';') select * from a"),
        ("select 'it''s; fine' -- and; this", "select 'it''s; fine' -- and; this"),
        ('select "a;b", `c;d`, $x$;$x$, $$;$$', 'select "a;b", `c;d`, $x$;$x$, $$;$$'),
        ("/* ; */ values (1)", "/* ; */ values (1)"),
    ],
)
def test_semicolons_in_texts_and_remarks_are_no_ends(text, query):
    assert read_query(text) == query


@pytest.mark.parametrize(
    "text",
    [
        "update t set x = 1",
        "(delete from t)",
        "/* select */ drop table t",
        "'select' 1",
        "explain x",
        "selects 1",
        "select 1; select 2",
        "select 1; /* x */ commit",
    ],
)
def test_what_does_not_only_read_is_refused(text):
    with pytest.raises(DataError, match=r"^query: "):
        read_query(text)


def test_decimals_and_truth_of_sql(address):
    (chunk,) = open_source(address, "SELECT 1 = 1 AS t, 0.5 AS x FROM people LIMIT 1").chunks(
        ["t", "x"]
    )
    assert chunk.columns == {"t": (1,), "x": (0.5,)}
    assert isinstance(chunk.columns["x"][0], (float, Decimal))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("sql") / "whole.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
    rows = [(number, f"Zq{number}" * 9) for number in range(200)]
    connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
    connection.commit()
    connection.close()
    return path.parent, path.read_bytes()


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_database_is_rows_or_one_line(whole, data):
    folder, content = whole
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "damaged.db"
    path.write_bytes(bytes(damaged[: data.draw(st.integers(0, len(damaged)) | st.just(99_999))]))

    def attempt():
        for chunk in open_source(f"sqlite:///{path}", "SELECT * FROM t").chunks(["a", "b"]):
            assert len(chunk.columns["a"]) == chunk.rows

    said = told(attempt)
    assert "\n" not in said and "Zq" not in said


@given(st.text(max_size=40) | st.text("select';-/*\"$x \n", max_size=40))
def test_any_text_is_a_query_or_one_line(text):
    assert "\n" not in told(lambda: read_query(text.replace(".sql", "")))
