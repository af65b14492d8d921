"""A check names every column, kind, count and row that is wrong, and never a value of the data."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsys.errors import DataError
from fedsys.tables import check, open_source, run_check, schema_of, sources
from fedsys.tables.rows import usable
from tests.tables.conftest import SCHEMA, people, told

KINDS = ["csv", "csv.gz", "parquet", "sql"]


def found(report):
    """What was found: severity, kind, column, count and rows of each finding."""
    return [(one.severity, one.kind, one.column, one.count, one.rows) for one in report.findings]


@pytest.mark.parametrize("kind", KINDS)
def test_good_rows_in_any_order_of_columns(saved, schema, kind):
    table = people()[["default", "member", "town", "income", "grade", "age"]]
    report = check(saved(table, kind), schema)
    assert found(report) == []
    assert report.code == 0 and not report.refused
    assert (report.rows, report.kept, report.found, report.wanted) == (200, 200, 6, 6)
    assert report.shares[1] == table["default"].mean()
    assert "✔ 200 rows, 6/6 columns by name" in report.text()
    assert f"✔ label default: {100 * table['default'].mean():.1f} % positive" in report.text()
    assert f"✔ schema hash {schema.hash[:12]}" in report.text()


@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_that_is_wrong_is_counted_and_its_row_named(saved, schema, kind, monkeypatch):
    monkeypatch.setattr(sources, "CELLS", 120)  # so that findings lie in several chunks
    table = people().astype(object)
    table.loc[[3, 150], "age"] = [101, 12]
    table.loc[7, "age"] = 40.5
    table.loc[[5, 199], "income"] = [-1, 30_000]
    table.loc[::20, "town"] = "Oslo"
    table.loc[[8, 9], "grade"] = 4
    table.loc[11, "default"] = None
    table.loc[[2, 4], "member"] = None
    if kind == "parquet":
        table = table.convert_dtypes()
    report = check(saved(table, kind), schema)
    assert sorted(found(report), key=str) == sorted(
        [
            ("refused", "out-of-range", "age", 2, (4, 151)),
            ("refused", "wrong-type", "age", 1, (8,)),
            ("refused", "unknown-category", "grade", 2, (9, 10)),
            ("refused", "missing-values", "default", 1, (12,)),
            ("warning", "out-of-range", "income", 2, (6, 200)),
            ("warning", "unknown-category", "town", 10, tuple(range(1, 200, 20))),
            ("warning", "missing-values", "member", 2, (3, 5)),
        ],
        key=str,
    )
    assert report.code == 3
    text = report.text()
    assert "✘ age: 2 values are outside 18..99 (rows 4, 151" in text
    assert "✘ age: 1 value is no whole number (row 8" in text
    assert "⚠ income: 2 values are outside 0..20000: clipped (rows 6, 200" in text
    assert (
        "⚠ town: 10 values are none of the 3 categories: counted as other (rows 1, 21, 41, …"
        in text
    )
    assert "⚠ member: 2 missing (1.0 %): filled by the schema's constant" in text
    assert ("lines 5, 152" in text) == kind.startswith("csv")


def test_json_holds_all_of_it(saved, schema):
    table = people().astype(object)
    table.loc[:50, "age"] = "old"
    report = check(saved(table), schema)
    again = json.loads(json.dumps(report.table()))
    assert again["refused"] is True and again["rows"] == 200
    (finding,) = again["findings"]
    assert finding["kind"] == "wrong-type" and finding["count"] == 51
    assert finding["rows"] == list(range(1, 11)) and finding["lines"] == list(range(2, 12))


def test_columns_missing_extra_and_twice(saved, tmp_path, schema):
    table = people().rename(columns={"income": "Income", "age": "years"}).assign(note="x")
    report = check(saved(table), schema)
    assert [(f.severity, f.kind, f.column) for f in report.findings] == [
        ("refused", "missing-column", "age"),
        ("refused", "missing-column", "income"),
        ("warning", "extra-column", None),
    ]
    assert "✘ income: the column is missing; is it Income?" in report.text()
    assert "⚠ 3 columns are not in the schema and ignored: years, Income, note" in report.text()
    strict = schema_of('extra = "refuse"\n' + SCHEMA)
    report = check(saved(people().assign(note="x")), strict)
    assert found(report) == [("refused", "extra-column", "note", 1, ())]

    path = tmp_path / "twice.csv"
    text = people().to_csv(index=False).split("\n", 1)
    path.write_text("age,income,town,grade,age,default\n" + text[1])
    report = check(open_source(path), schema)
    kinds = [(f.kind, f.column, f.count) for f in report.findings]
    assert ("duplicate-column", "age", 2) in kinds and ("missing-column", "member", 1) in kinds


def test_a_file_without_a_header_tells_no_cell(tmp_path, schema):
    path = tmp_path / "rows.csv"
    path.write_text("63.0,Zqsecret,145\n67.0,Zqother,160\n")
    report = check(open_source(path), schema)
    assert found(report)[0] == ("refused", "missing-column", None, 6, ())
    assert "has the file a header line?" in report.text()
    said = json.dumps(report.table()) + report.text()
    assert not any(cell in said for cell in ("63.0", "Zqsecret", "145"))
    # Some columns by chance, and the rest values: those that begin like numbers are not told.
    path.write_text("age,4711.25,-9.5\n1,2,3\n")
    said = check(open_source(path), schema).text()
    assert "4711" not in said and "-9.5" not in said and "(column 2), (column 3)" in said


def test_names_are_harmless_on_a_terminal(tmp_path, schema):
    path = tmp_path / "rows.csv"
    path.write_text("age,\x1b[31mred" + "x" * 500 + "\n1,2\n")
    assert "\x1b" not in check(open_source(path), schema).text()


def test_labels_of_one_class_no_rows_and_too_few(saved, schema):
    one = check(saved(people().assign(default=1)), schema)
    assert found(one) == [("refused", "one-class", "default", 200, ())]
    few = check(saved(people(9)), schema)
    assert ("refused", "too-few-rows", None, 9, ()) in found(few)
    none = check(saved(people(0)), schema)
    assert found(none) == [("refused", "no-rows", None, 0, ())]
    assert none.text().splitlines()[1].startswith("✘ 0 rows")


def test_rows_left_out_do_not_count(saved, schema):
    """Rows that the schema drops are neither too few nor of a class."""
    schema = schema_of(SCHEMA.replace('missing = "median"', 'missing = "drop"'))
    table = people().astype(object)
    table.loc[table["default"] == 1, "age"] = None
    report = check(saved(table), schema)
    kept = int((table["default"] == 0).sum())
    assert report.kept == kept
    assert ("refused", "one-class", "default", kept, ()) in found(report)
    assert f"200 rows, {200 - kept} left out" in report.text()
    table["age"] = None
    report = check(saved(table), schema)
    assert ("warning", "all-missing", "age", 200, ()) in found(report)
    assert ("refused", "too-few-rows", None, 0, ()) in found(report)


def test_a_column_without_any_value(saved, schema):
    report = check(saved(people().assign(age=None)), schema)
    assert found(report) == [("warning", "all-missing", "age", 200, ())]
    refusing = schema_of(SCHEMA.replace('missing = "median"', 'missing = "refuse"'))
    report = check(saved(people().assign(age=None)), refusing)
    assert found(report) == [("refused", "all-missing", "age", 200, ())]


def test_classes_of_a_label_with_names(saved):
    schema = schema_of(SCHEMA.replace('classes = "binary"', 'classes = ["low", "high", "none"]'))
    table = people()
    table["default"] = np.where(table["default"] == 1, "high", "low")
    report = check(saved(table), schema)
    assert re.search(r"label default: low \d+\.\d %, high \d+\.\d %, none 0\.0 %", report.text())
    table.loc[4, "default"] = "other"
    report = check(saved(table), schema)
    assert found(report) == [("refused", "unknown-category", "default", 1, (5,))]


def test_the_schema_of_another_federation_is_refused(saved, schema):
    source = saved(people())
    assert (
        f"✔ schema hash {schema.hash[:12]} matches the federation"
        in check(source, schema, schema.hash).text()
    )
    report = check(source, schema, "f" * 64)
    assert found(report) == [("refused", "other-schema", None, 1, ())]
    assert report.code == 3 and f"✘ schema hash {schema.hash[:12]}" in report.text()


def test_the_command(tmp_path, saved, capsys):
    (tmp_path / "schema.toml").write_text(SCHEMA)
    people().to_csv(tmp_path / "rows.csv", index=False)
    assert run_check(str(tmp_path / "rows.csv"), None, tmp_path / "schema.toml", False) == 0
    assert "nothing was sent" in capsys.readouterr().out
    people().assign(age=5).to_csv(tmp_path / "rows.csv", index=False)
    assert run_check(str(tmp_path / "rows.csv"), None, str(tmp_path / "schema.toml"), True) == 3
    assert json.loads(capsys.readouterr().out)["refused"] is True
    with pytest.raises(DataError, match="does not exist"):
        run_check(str(tmp_path / "none.csv"), None, tmp_path / "schema.toml", False)


# --- what hypothesis draws -----------------------------------------------------------------------

COLUMNS = ("age", "income", "town", "grade", "member", "default")
MARK = "Zq"
WORDS = st.integers(10**6, 10**9).map(lambda number: f"{MARK}{number}")
SECRETS = WORDS | st.floats(1e20, 1e29).map(repr) | st.integers(10**12, 10**15).map(str)
FINE = {
    "age": st.integers(18, 99).map(str),
    "income": st.integers(0, 20000).map(str),
    "town": st.sampled_from(["Ulm", "Bern", "Linz"]),
    "grade": st.sampled_from("123"),
    "member": st.sampled_from(["yes", "no"]),
    "default": st.sampled_from("01"),
}


@st.composite
def tables(draw):
    names = draw(st.permutations(COLUMNS))[: draw(st.integers(0, 6))]
    names += [f"extra{number}" for number in range(draw(st.integers(0, 2)))]
    rows = draw(st.integers(0, 12))
    return {
        name: [
            draw(SECRETS | st.just("") | FINE.get(name, SECRETS) | FINE.get(name, SECRETS))
            for _ in range(rows)
        ]
        for name in draw(st.permutations(names))
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("check")


@given(tables(), st.sampled_from(["ignore", "refuse"]))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_value_of_the_data_is_ever_in_a_report(place, table, extra):
    if not table:
        return
    path = place / "rows.csv"
    pd.DataFrame(table).to_csv(path, index=False)
    schema = schema_of(f'extra = "{extra}"\n' + SCHEMA)
    report = check(open_source(path), schema)
    secrets = {cell for cells in table.values() for cell in cells if len(cell) > 6}
    refusal = told(lambda: list(usable(open_source(path), schema)))
    for said in (report.text(), json.dumps(report.table()), repr(report), refusal):
        assert not any(secret in said for secret in secrets)
        assert MARK not in said


LINES = st.lists(
    st.lists(st.sampled_from(["1", "Ulm", "40", "yes", "", '"', "x\ny", "1e99", "é"]), max_size=7)
    .map(",".join),
    max_size=6,
)  # fmt: skip


@given(st.sampled_from([COLUMNS, COLUMNS[:3], (*COLUMNS, "age"), ("", "x")]), LINES)
@settings(max_examples=200, deadline=None)
def test_any_lines_are_a_report_or_one_line(place, header, lines):
    path = place / "lines.csv"
    path.write_text("\n".join([",".join(header), *lines]))
    schema = schema_of(SCHEMA)

    def attempt():
        report = check(open_source(path), schema)
        assert report.code == 3  # too few, at the least
        assert report.rows <= sum(map(len, lines)) + len(lines)

    assert "\n" not in told(attempt)


@given(tables())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_passes_the_check_can_be_used_and_what_does_not_cannot(place, table):
    """But for labels of one class and few rows, which only the check minds."""
    if not table:
        return
    path = place / "rows.csv"
    pd.DataFrame(table).to_csv(path, index=False)
    schema = schema_of(SCHEMA.replace("minimum = 10", "minimum = 1"))
    report = check(open_source(path), schema)
    only_the_check = ("one-class", "no-rows", "too-few-rows")
    bad = [f for f in report.findings if f.severity == "refused" and f.kind not in only_the_check]
    assert bool(bad) == bool(told(lambda: list(usable(open_source(path), schema))))
