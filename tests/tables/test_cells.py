"""Cells as a column's type: what is a number, a category, yes or no, missing, or none of these."""

from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsys.tables import Column
from fedsys.tables.cells import NONE, read_cells
from fedsys.tables.schema import SPELLINGS

GAPS = frozenset(SPELLINGS)
NUMBER, INTEGER = Column("x", "number"), Column("x", "integer")
TOWN = Column("x", "category", categories=("Ulm", "Bern", "7", "NA"))
MEMBER = Column("x", "yes/no")


def read(raw, column):
    """Each cell as its value, or 'missing', 'wrong' or 'strange'; never two of them."""
    cells = read_cells(raw, column, GAPS)
    assert (cells.missing.astype(int) + cells.wrong + cells.strange <= 1).all()
    return [
        "missing" if m else "wrong" if w else "strange" if s else v
        for v, m, w, s in zip(
            cells.values.tolist(), cells.missing, cells.wrong, cells.strange, strict=True
        )
    ]


@pytest.mark.parametrize(
    ("cell", "number", "integer"),
    [
        ("12", 12, 12),
        (" -3.0 ", -3, -3),
        ("+4", 4, 4),
        ("2.5", 2.5, "wrong"),
        (".5", 0.5, "wrong"),
        ("5.", 5, 5),
        ("1e3", 1000, 1000),
        ("", "missing", "missing"),
        ("  ", "missing", "missing"),
        ("NaN", "missing", "missing"),
        (" null ", "missing", "missing"),
        (None, "missing", "missing"),
        (float("nan"), "missing", "missing"),
        ("inf", "wrong", "wrong"),
        ("-Infinity", "wrong", "wrong"),
        ("1e400", "wrong", "wrong"),
        ("1e31", "wrong", "wrong"),
        (float("-inf"), "wrong", "wrong"),
        (10**400, "wrong", "wrong"),
        ("1_000", "wrong", "wrong"),
        ("1,5", "wrong", "wrong"),
        ("0x10", "wrong", "wrong"),
        ("١٢", "wrong", "wrong"),
        ("twelve", "wrong", "wrong"),
        (12, 12, 12),
        (2.5, 2.5, "wrong"),
        (Decimal("2.50"), 2.5, "wrong"),
        (True, 1, 1),
        (date(2020, 1, 1), "wrong", "wrong"),
        (b"12", "wrong", "wrong"),
    ],
)
def test_numbers(cell, number, integer):
    assert read([cell], NUMBER) == [number]
    assert read([cell], INTEGER) == [integer]
    assert read(["1", cell, ""], NUMBER) == [1, number, "missing"]


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("Ulm", 0),
        (" Bern ", 1),
        ("7", 2),
        ("7.0", 2),
        (7, 2),
        (7.0, 2),
        (Decimal(7), 2),
        ("07", "strange"),
        ("NA", 3),  # a category before it is a gap
        ("ulm", "strange"),
        ("nan", "missing"),
        ("", "missing"),
        (None, "missing"),
        (float("nan"), "missing"),
        (7.5, "strange"),
        (float("inf"), "strange"),
        (b"Ulm", "strange"),
    ],
)
def test_categories(cell, code):
    assert read([cell], TOWN) == [code]
    assert read(["Ulm", cell, cell], TOWN) == [0, code, code]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (("yes", "Y", " TRUE ", "t", "1", "1.0", 1, 1.0, True, Decimal(1)), 1),
        (("no", "N", "false", "F", "0", 0, 0.0, False), 0),
        (("", None, "NA", float("nan")), "missing"),
        (("2", "maybe", 2, 0.5, -1, b"yes"), "wrong"),
    ],
)
def test_yes_and_no(cells, said):
    assert read(list(cells), MEMBER) == [said] * len(cells)


def test_arrays_are_read_like_their_numbers():
    assert read(np.array([1, 2]), INTEGER) == [1, 2]
    assert read(np.array([1.5, np.nan, np.inf]), INTEGER) == ["wrong", "missing", "wrong"]
    assert read(np.array([7.0, np.nan, 8.0, 7.0]), TOWN) == [2, "missing", "strange", 2]
    assert read(np.array([1, 0, 3]), MEMBER) == [1, 0, "wrong"]


def test_nothing_where_there_is_no_category():
    assert read_cells(["", "x"], TOWN, GAPS).values.tolist() == [NONE, NONE]


def test_a_number_may_mean_that_a_value_is_missing():
    cells = read_cells(["-999", "1", "-999.0"], NUMBER, frozenset({"", "-999"}))
    assert cells.missing.tolist() == [True, False, False]
    assert read_cells(["-999", "1"], INTEGER, frozenset({""})).values.tolist() == [-999, 1]


def test_a_range_has_both_its_ends():
    column = Column("x", "number", range=(-1, 2.5))
    assert read(["-1", "2.5", "-1.01", "2.6", ""], column) == [-1, 2.5, "strange", "strange",
                                                               "missing"]  # fmt: skip


CELLS = st.sampled_from(
    ["1", "2.5", "-0", "", "NA", " 3 ", "inf", "1_0", "x", "1e5", "٣", "nan", "1e999", "+.5"]
) | st.floats().map(repr)


@given(st.lists(CELLS, max_size=8))
def test_many_texts_at_once_are_read_like_one_by_one(cells):
    together = read(cells, NUMBER)
    assert str(together) == str([read([cell, None], NUMBER)[0] for cell in cells])


@given(st.floats(-1e30, 1e30))
def test_every_number_is_read_to_the_last_bit(number):
    assert read([repr(number), number], NUMBER) == [number, number]
