"""The banks of `fedsys demo fraud`: customers of their own kind, from a file or made up."""

from itertools import pairwise

import numpy as np
import pytest

from fedsys.errors import DataError, UsageError
from fedsys.federation.demo.fraud import (
    CODES,
    LABEL,
    NUMBERS,
    SCHEMA,
    SEGMENT,
    customers,
    divide,
    fraud,
    made_up,
)
from fedsys.federation.demo.shown import write_rows
from fedsys.tables import check, open_source


def test_banks_have_customers_of_their_own_kind_and_the_test_has_all():
    found = made_up(2000)
    parts, test = divide(found, 4)
    every = np.sort(np.concatenate([*parts, test]))
    np.testing.assert_array_equal(every, np.arange(2000))
    limits = [found.columns[SEGMENT][part] for part in parts]
    assert all(low.max() <= high.min() for low, high in pairwise(limits))
    labels = found.columns[LABEL]
    assert abs(labels[test].mean() - labels.mean()) < 0.01
    for banks in (1, 27):
        with pytest.raises(UsageError, match="--banks"):
            divide(found, banks)


def test_made_up_customers_fit_the_schema_and_are_always_the_same(tmp_path):
    found = made_up(500)
    assert set(found.columns) == {*CODES, *NUMBERS, LABEL}
    again = made_up(500)
    for name, values in found.columns.items():
        np.testing.assert_array_equal(values, again.columns[name])
    write_rows(found, np.arange(500), tmp_path / "rows.csv")
    assert check(open_source(tmp_path / "rows.csv"), SCHEMA).code == 0


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "UCI_Credit_Card.csv"
    header = ",".join([*CODES, *NUMBERS, LABEL])
    width = header.count(",") + 1

    def holds(*cells):
        path.write_text("\n".join([header, *(",".join([cell] * width) for cell in cells)]) + "\n")
        return str(path)

    assert len(customers(holds("1"))) == 1
    with pytest.raises(DataError, match="no number"):
        customers(holds("x"))
    with pytest.raises(DataError, match="more than 0 and 1"):
        customers(holds("7"))
    with pytest.raises(DataError, match="has a header but no rows"):
        customers(holds())
    with pytest.raises(DataError, match="customers for bank-a are too few, 10 are needed"):
        fraud(3).shared(holds(*"01" * 15))
