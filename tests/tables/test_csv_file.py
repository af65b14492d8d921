"""CSV files as they come: separators, encodings, packing, lines, and every kind of damage."""

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fedsys.errors import DataError
from fedsys.tables import open_source, sources
from fedsys.tables.csv_file import CsvFile
from tests.tables.conftest import told


def write(tmp_path, content, name="rows.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def cells(source):
    """All cells, row by row."""
    names = source.columns()
    chunks = list(source.chunks(names))
    return [row for chunk in chunks for row in zip(*(chunk.columns[n] for n in names), strict=True)]


@pytest.mark.parametrize(("mark", "word"), [(",", "commas"), (";", "semicolons"), ("\t", "tabs"),
                                            ("|", "bars")])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_separator_and_encoding_are_found_out(tmp_path, mark, word, encoding):
    text = f"Größe{mark}Ort{mark}x\n1{mark}Köln{mark}2\n3{mark}Bern{mark}\n"
    source = open_source(write(tmp_path, text, encoding=encoding))
    assert source.columns() == ("Größe", "Ort", "x")
    assert cells(source) == [("1", "Köln", "2"), ("3", "Bern", "")]
    assert word in source.kind


def test_semicolons_with_decimal_commas(tmp_path):
    source = open_source(write(tmp_path, "a;b\n1,5;2,5\n3,0;4,1\n"))
    assert cells(source) == [("1,5", "2,5"), ("3,0", "4,1")]


def test_one_column_has_no_separator(tmp_path):
    assert cells(open_source(write(tmp_path, "a\n1\n2\n"))) == [("1",), ("2",)]
    assert open_source(write(tmp_path, "a;b;c\n1;2\n")).columns() == ("a", "b", "c")


def test_a_packed_file_is_the_same(tmp_path):
    text = b"a,b\n1,2\n"
    source = open_source(write(tmp_path, gzip.compress(text, mtime=0), "rows.csv.gz"))
    assert cells(source) == [("1", "2")]


def test_quotes_blank_lines_and_line_numbers(tmp_path):
    text = '\na,b\n1,"two\nlines"\n\n3,"say ""x"""\r\n5,6'
    (chunk,) = open_source(write(tmp_path, text)).chunks(["a", "b"])
    assert chunk.columns["b"] == ("two\nlines", 'say "x"', "6")
    assert list(chunk.lines) == [3, 6, 7]
    lines = text.replace("\r\n", "\n").split("\n")
    assert [lines[line - 1][0] for line in chunk.lines] == ["1", "3", "5"]


def test_chunks_hold_all_rows_once_and_lines_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CELLS", 6)
    source = open_source(write(tmp_path, "a,b\n" + "".join(f"{i},{-i}\n" for i in range(10))))
    chunks = list(source.chunks(["b"]))
    assert [chunk.rows for chunk in chunks] == [3, 3, 3, 1]
    assert [chunk.start for chunk in chunks] == [0, 3, 6, 9]
    assert [line for chunk in chunks for line in chunk.lines] == list(range(2, 12))
    assert [b for chunk in chunks for b in chunk.columns["b"]] == [str(-i) for i in range(10)]
    assert all(set(chunk.columns) == {"b"} for chunk in chunks)


def test_names_without_letters_and_equal_names(tmp_path):
    source = open_source(write(tmp_path, ' a ,,a,"b c"\n1,2,3,4\n'))
    assert source.columns() == ("a", "(column 2)", "a", "b c")
    (chunk,) = source.chunks(["a", "b c"])
    assert chunk.columns == {"a": ("1",), "b c": ("4",)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x00\x01\x02\xff", "is no text"),
        (b"a,b\n1,2,3\n", "line 2: 3 values where the header names 2"),
        (b"a,b\n1,2\n\n4\n", "line 4: 1 values where"),
        (b'a,b\n1,"open\n2,3\n', "quotes do not pair"),
        (b'a,b\n1,"x"y\n', "line 2: its quotes do not pair"),
        (b"a,b\n1," + b"x" * 200_000 + b"\n", "line 2: a value is too long"),
        (b"a,b\n" + b"1,2\n" * 100_000 + b"\xff,2\n", "a later part is not"),
        (gzip.compress(b"a,b\n1,2\n" * 9999, mtime=0)[:-50], "damaged or cut short"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:12] + b"\x00" * 9, "damaged or cut short"),
        (b"a,b\n" + b" " * (2**24 + 1), "longer than"),
    ],
)
def test_damage_is_one_line_with_its_place(tmp_path, content, said):
    with pytest.raises(DataError, match=said) as caught:
        cells(open_source(write(tmp_path, content)))
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOT_SET", raising=False)
    for source, said in (
        ("none.csv", f"'none.csv' does not exist .looked in {tmp_path}"),
        (str(tmp_path), "is a folder"),
        ("a\0b", "cannot read"),
        ("https://example.org/rows.csv", "https addresses are not read; copy the file"),
        ("env:NOT_SET", "environment variable 'NOT_SET' is not set"),
    ):
        with pytest.raises(DataError, match=said):
            open_source(source)
    with pytest.raises(DataError, match="a query is for a database"):
        open_source(write(tmp_path, "a\n1\n"), "SELECT 1")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("csv")


TEXTS = st.text(st.sampled_from("ab1.,;|\t\"'\n\r \x00é\ufeff"), max_size=60)


@given(st.binary(max_size=80) | TEXTS.map(str.encode) | TEXTS.map(lambda t: t.encode("utf-16")))
@example(b"\xff\xfe")
@example(b"\x1f\x8b")
@example(b"PAR1")
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_rows_or_one_line(place, content):
    path = write(place, content)

    def attempt():
        assert len({len(row) for row in cells(open_source(path))}) <= 1

    assert "\n" not in told(attempt)


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=6)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_every_table_that_pandas_writes_is_read_back(place, data):
    width = data.draw(st.integers(2, 4))
    names = data.draw(
        st.lists(WORDS.map(str.strip).filter(bool), min_size=width, max_size=width, unique=True)
    )
    rows = data.draw(st.lists(st.lists(WORDS, min_size=width, max_size=width), max_size=5))
    table = pd.DataFrame(rows, columns=names)
    path = place / "table.csv"
    table.to_csv(path, index=False, quoting=1)
    source = CsvFile(path, "utf-8-sig", ",", open_source(path).columns())
    assert source.columns() == tuple(names)
    assert cells(source) == [tuple(row) for row in rows]


def test_numbers_written_by_pandas_come_back_to_the_last_bit(place):
    numbers = np.random.default_rng(0).normal(size=(50, 2))
    pd.DataFrame(numbers, columns=["a", "b"]).to_csv(place / "n.csv", index=False)
    again = np.array(cells(open_source(place / "n.csv")), dtype=float)
    assert (again == numbers).all()
