"""Parquet files: the same rows as a CSV file, types kept, batches bounded, damage in one line."""

import builtins

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.errors import DataError
from fedsys.tables import open_source, sources
from tests.tables.conftest import told


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "whole": [1, 2, 3],
            "gap": pd.array([1, None, 3], dtype="Int64"),
            "real": [0.5, np.nan, -1.0],
            "word": ["a", None, "c"],
            "kind": pd.Categorical(["x", "y", "x"]),
            "truth": [True, False, True],
            "day": pd.to_datetime(["2020-01-01"] * 3),
            "default.payment.next.month": [0, 1, 0],
        }
    )


def column(source, name):
    return [cell for chunk in source.chunks([name]) for cell in chunk.columns[name]]


def test_cells_of_every_type(table, tmp_path):
    table.to_parquet(tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet")
    assert source.columns() == tuple(table.columns)
    assert column(source, "whole") == [1, 2, 3]
    assert column(source, "gap") == [1, None, 3]
    np.testing.assert_equal(column(source, "real"), [0.5, np.nan, -1.0])
    assert column(source, "word") == ["a", None, "c"]
    assert column(source, "kind") == ["x", "y", "x"]
    assert column(source, "truth") == [True, False, True]
    assert column(source, "default.payment.next.month") == [0, 1, 0]


def test_batches_are_bounded_and_hold_all_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CELLS", 64)
    pd.DataFrame({"a": range(1000), "b": 0}).to_parquet(tmp_path / "t.parquet", row_group_size=300)
    chunks = list(open_source(tmp_path / "t.parquet").chunks(["a", "b"]))
    assert max(chunk.rows for chunk in chunks) <= 32
    assert [chunk.start for chunk in chunks] == np.cumsum([0, *(c.rows for c in chunks)])[
        :-1
    ].tolist()
    assert np.concatenate([chunk.columns["a"] for chunk in chunks]).tolist() == list(range(1000))


def test_a_file_is_known_by_its_beginning_and_not_its_name(table, tmp_path):
    table.to_parquet(tmp_path / "t.dat")
    assert open_source(tmp_path / "t.dat").kind == "Parquet"


def test_no_column_still_counts_rows(table, tmp_path):
    table.to_parquet(tmp_path / "t.parquet")
    assert [chunk.rows for chunk in open_source(tmp_path / "t.parquet").chunks([])] == [3]


def test_pyarrow_missing_is_one_line(table, tmp_path, monkeypatch):
    table.to_parquet(tmp_path / "t.parquet")
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match="needs pyarrow; run pip install"):
        open_source(tmp_path / "t.parquet")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet")
    table = pd.DataFrame({"a": np.arange(50) * 0.5, "word": ["Ulm", "Bern"] * 25})
    table.to_parquet(folder / "t.parquet")
    return folder, (folder / "t.parquet").read_bytes()


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_rows_or_one_line(whole, data):
    folder, content = whole
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(4, len(damaged)) | st.just(len(damaged)))
    path = folder / "damaged.parquet"
    path.write_bytes(bytes(damaged[:cut]))

    def attempt():
        source = open_source(path)
        for chunk in source.chunks(source.columns()):
            assert all(len(cells) == chunk.rows for cells in chunk.columns.values())

    assert "\n" not in told(attempt)
