"""The real data sets, each bank with a source of another kind: pooled figures, rows at home."""

import sqlite3

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fedsys.tables import (
    Preparation,
    check,
    merge,
    open_source,
    prepare,
    propose,
    schema_of,
    summarise,
)

PAY = "".join(
    f"""
[columns.PAY_{month}]
type = "integer"
range = [-2, 8]
"""
    for month in (0, 2, 3, 4, 5, 6)
)
AMOUNTS = "".join(
    f"""
[columns.{name}{month}]
type = "number"
unit = "New Taiwan dollars"
range = [{low}, 2000000]
missing = "median"
"""
    for name, low in (("BILL_AMT", -400000), ("PAY_AMT", 0))
    for month in range(1, 7)
)
CREDIT = f"""
[label]
column = "default.payment.next.month"
classes = "binary"

[columns.LIMIT_BAL]
type = "number"
range = [0, 1000000]

[columns.SEX]
type = "category"
categories = [1, 2]

[columns.EDUCATION]
type = "category"
categories = [1, 2, 3, 4]
other = true

[columns.MARRIAGE]
type = "category"
categories = [1, 2, 3]
other = true

[columns.AGE]
type = "integer"
range = [18, 100]
{PAY}{AMOUNTS}"""


@pytest.fixture(scope="module")
def credit(data):
    return pd.read_csv(data / "credit-default" / "UCI_Credit_Card.csv")


@pytest.fixture(scope="module")
def banks(credit, tmp_path_factory):
    """Three banks by education, with columns in orders of their own: CSV, Parquet and SQL."""
    folder = tmp_path_factory.mktemp("banks")
    names = list(credit.columns)
    parts = [credit[credit["EDUCATION"] == 2], credit[credit["EDUCATION"] == 1]]
    parts.append(credit[~credit["EDUCATION"].isin([1, 2])])
    rng = np.random.default_rng(0)
    one, two, three = (part[list(rng.permutation(names))] for part in parts)
    one.to_csv(folder / "rows.csv.gz", index=False, sep=";")
    two.to_parquet(folder / "rows.parquet")
    with sqlite3.connect(folder / "rows.db") as connection:
        three.to_sql("cards", connection, index=False)
    connection.close()
    sources = [
        open_source(folder / "rows.csv.gz"),
        open_source(folder / "rows.parquet"),
        open_source(f"sqlite:///{folder}/rows.db", "SELECT * FROM cards ORDER BY rowid"),
    ]
    return list(zip(sources, parts, strict=True))


def test_three_banks_of_credit_cards(credit, banks):
    schema = schema_of(CREDIT)
    for source, part in banks:
        report = check(source, schema)
        assert report.code == 0, report.text()
        assert report.rows == len(part)
        assert {one.kind for one in report.findings} <= {"extra-column", "unknown-category"}
    merged = merge([summarise(source, schema) for source, _ in banks])
    assert merged.rows == 30_000
    for column in schema.columns:
        values = credit[column.name].to_numpy(dtype=float)
        if column.is_number:
            assert merged.mean(column.name) == pytest.approx(values.mean(), rel=1e-12)
            assert merged.deviation(column.name) == pytest.approx(values.std(), rel=1e-12)
        if column.missing.rule == "median":
            width = (column.range[1] - column.range[0]) / 1024
            low, high = np.sort(values)[[15_000 - 14 - 1, 15_000 + 14]]  # slack: 3 banks of 9
            assert low - width / 2 <= merged.quantile(column, 0.5) <= high + width / 2
    # The third bank has no row of education 1 or 2, the others of nothing else.
    counts = credit["EDUCATION"].value_counts()
    assert merged.counts["EDUCATION"].cells[:3] == tuple(counts[[1, 2, 3]])

    preparation = Preparation.derive(schema, merged)
    prepared = [prepare(source, schema, preparation) for source, _ in banks]
    inputs = np.concatenate([part.inputs for part in prepared])
    labels = np.concatenate([part.labels for part in prepared])
    pooled = pd.concat([part for _, part in banks])
    assert inputs.shape == (30_000, 2 + 5 + 4 + 2 + 18)
    assert (labels == pooled["default.payment.next.month"]).all()
    for at, name in enumerate(schema.inputs):
        if "=" not in name:
            values = pooled[name].to_numpy(dtype=float)
            scaled = (values - values.mean()) / values.std()
            np.testing.assert_allclose(inputs[:, at], scaled, rtol=1e-6, atol=1e-6)
        elif not name.endswith("(other)"):
            column, _, category = name.partition("=")
            assert (inputs[:, at] == (pooled[column] == int(category))).all()
    test = np.arange(len(labels)) % 5 == 0
    model = LogisticRegression(max_iter=300).fit(inputs[~test], labels[~test])
    assert roc_auc_score(labels[test], model.decision_function(inputs[test])) > 0.71


def test_a_bank_whose_codes_are_others_is_refused_with_its_rows(credit, tmp_path):
    drifted = credit.head(500).copy()
    drifted.loc[[16, 401], "PAY_0"] = 9
    drifted.loc[drifted.index % 7 == 0, "BILL_AMT4"] = np.nan
    drifted.to_csv(tmp_path / "rows.csv", index=False)
    report = check(open_source(tmp_path / "rows.csv"), schema_of(CREDIT))
    assert report.code == 3
    lines = report.text().splitlines()
    assert "✘ PAY_0: 2 values are outside -2..8 (rows 17, 402; lines 18, 403)" in lines
    assert (
        "⚠ BILL_AMT4: 72 missing (14.4 %): filled by the federation's median"
        " (rows 1, 8, 15, …; lines 2, 9, 16, …)" in lines
    )


def test_a_draft_of_the_real_table_fits_it(data):
    source = open_source(data / "credit-default" / "UCI_Credit_Card.csv")
    schema = schema_of(propose(source, values=True))
    assert schema.label.column == "default.payment.next.month"
    assert check(source, schema).findings == ()


HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
NAMES = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"),
    *("slope", "ca", "thal", "num"),
)
HEART = """
missing_values = ["?", "NaN"]
minimum = 20

[label]
column = "num"
classes = [0, 1, 2, 3, 4]

[columns.age]
type = "integer"
range = [20, 90]

[columns.sex]
type = "yes/no"

[columns.cp]
type = "category"
categories = [1, 2, 3, 4]

[columns.trestbps]
type = "number"
range = [50, 250]
outside = "clip"
missing = "median"

[columns.chol]
type = "number"
range = [0, 700]
missing = "mean"

[columns.fbs]
type = "yes/no"
missing = { constant = false }

[columns.restecg]
type = "category"
categories = [0, 1, 2]
missing = { category = 0 }

[columns.thalach]
type = "number"
range = [50, 220]
missing = "median"

[columns.exang]
type = "yes/no"
missing = { constant = false }

[columns.oldpeak]
type = "number"
range = [-5, 10]
missing = "mean"
"""


def test_four_hospitals(data, tmp_path):
    """Values missing as '?' and 'NaN', a column all 0 in one hospital, and five classes."""
    schema, tables, sources = schema_of(HEART), [], []
    for name in HOSPITALS:
        text = (data / "heart" / f"processed.{name}.data").read_text()
        path = tmp_path / f"{name}.csv"
        path.write_text(",".join(NAMES) + "\n" + text)
        tables.append(pd.read_csv(path, na_values=["?"]))
        sources.append(open_source(path))
    for source, table in zip(sources, tables, strict=True):
        report = check(source, schema)
        assert report.code == 0, report.text()
        gaps = {f.column: f.count for f in report.findings if f.kind.endswith("missing-values")}
        assert gaps == {
            column: count for column, count in table[list(NAMES[:10])].isna().sum().items() if count
        }
    merged = merge([summarise(source, schema) for source in sources])
    pooled = pd.concat(tables)
    assert (merged.rows, merged.clients) == (920, 4)
    for name in ("age", "trestbps", "chol", "thalach", "oldpeak"):
        values = pooled[name].dropna()
        values = values.clip(50, 250) if name == "trestbps" else values
        assert merged.numbers[name].missing == 920 - len(values)
        assert merged.mean(name) == pytest.approx(values.mean(), rel=1e-12)
        assert merged.deviation(name) == pytest.approx(values.std(ddof=0), rel=1e-12)
    preparation = Preparation.derive(schema, merged)
    prepared = [prepare(source, schema, preparation) for source in sources]
    inputs = np.concatenate([part.inputs for part in prepared])
    labels = np.concatenate([part.labels for part in prepared])
    assert inputs.shape == (920, 15) and np.isfinite(inputs).all()
    assert (labels == pooled["num"]).all()
    chol = schema.inputs.index("chol")
    assert (inputs[pooled["chol"].isna().to_numpy(), chol] == 0).all()
    assert abs(inputs[:, schema.inputs.index("age")].mean()) < 1e-6


def test_a_file_without_a_header_is_refused_and_nothing_of_it_told(data):
    path = data / "heart" / "processed.cleveland.data"
    text = check(open_source(path), schema_of(HEART)).text()
    assert "has the file a header line?" in text
    assert not any(cell in text.split() for cell in path.read_text().split("\n")[0].split(","))
