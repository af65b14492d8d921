"""A table of one's own: kinds of columns and labels, and every mistake with its row."""

import builtins

import numpy as np
import pandas as pd
import pytest

from fedsys.errors import DataError
from fedsys.tasks import Table


def people(rows=100):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(20, 70, rows),
            "income": rng.normal(3000, 500, rows).round(2),
            "town": rng.choice(["Ulm", "Bern", "Linz"], rows),
            "member": rng.random(rows) < 0.5,
            "bank": rng.choice(["north", "south"], rows),
            "bought": rng.choice(["no", "yes"], rows),
        }
    )


def saved(tmp_path, table, name="people.csv"):
    path = tmp_path / name
    if name.endswith(".csv"):
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return str(path)


@pytest.fixture
def file(tmp_path):
    return saved(tmp_path, people())


def test_numbers_words_and_owners(file):
    task = Table(file, "bought", client="bank").load()
    assert task.train.inputs.shape == (80, 2 + 3 + 2)
    assert task.train.inputs.dtype == np.float32
    assert np.abs(task.train.inputs[:, :2].mean(axis=0)).max() < 1e-5
    assert np.abs(task.train.inputs[:, :2].std(axis=0) - 1).max() < 1e-5
    assert (task.train.inputs[:, 2:5].sum(axis=1) == 1).all()
    assert task.objective.name == "binary"
    assert task.classes == ("no", "yes")
    assert task.owners == ("north", "south")
    assert len(task.client_test) == len(task.test) == 20
    assert task.prepared["columns"] == ["age", "income"]
    assert task.prepared["categories"] == {
        "town": ["Bern", "Linz", "Ulm"],
        "member": ["False", "True"],
    }
    assert task.prepared["label"] == {"column": "bought", "classes": ["no", "yes"]}
    assert task.model()(task.test.inputs).shape == (20, 1)


def test_every_cell_is_where_it_belongs(file):
    """Each input row, undone by the record, is one row of the file with its label and owner."""
    task = Table(file, "bought", client="bank").load()
    prepared, table = task.prepared, people()
    numbers = task.train.inputs[:, :2] * np.array(prepared["scale"]) + np.array(prepared["mean"])
    towns = np.array(prepared["categories"]["town"])[task.train.inputs[:, 2:5].argmax(axis=1)]
    for row in range(len(task.train)):
        found = table[np.isclose(table["income"], numbers[row, 1], atol=0.01)]
        assert len(found) == 1
        assert found["age"].item() == pytest.approx(numbers[row, 0], abs=1e-3)
        assert found["town"].item() == towns[row]
        assert found["bought"].item() == task.classes[task.train.labels[row]]
        assert found["bank"].item() == task.owners[task.train.owners[row]]


def test_parquet_is_the_same_as_csv(file, tmp_path):
    csv = Table(file, "bought", client="bank").load()
    for name in ("people.parquet", "people.dat"):
        people().to_parquet(tmp_path / name)
        parquet = Table(str(tmp_path / name), "bought", client="bank").load()
        assert (csv.train.inputs == parquet.train.inputs).all()
        assert (csv.test.labels == parquet.test.labels).all()
        assert (csv.train.owners == parquet.train.owners).all()
        assert csv.prepared == parquet.prepared


def test_the_split_is_fixed_whatever_the_global_seed(file):
    np.random.seed(1)
    first = Table(file, "bought").load()
    np.random.seed(2)
    second = Table(file, "bought").load()
    assert (first.train.inputs == second.train.inputs).all()
    assert len(Table(file, "bought", test=0.5).load().test) == 50


def test_a_missing_number_is_the_training_mean_and_a_missing_word_is_none(tmp_path):
    table = people()
    table.loc[::10, "age"] = np.nan
    table.loc[::7, "town"] = None
    task = Table(saved(tmp_path, table), "bought").load()
    everything = np.concatenate([task.train.inputs, task.test.inputs])
    assert (everything[:, 0] == 0).sum() == 10
    assert (everything[:, 2:5].sum(axis=1) == 0).sum() == 15
    present = table["age"].dropna()
    assert present.min() < task.prepared["mean"][0] < present.max()


@pytest.mark.parametrize("missing", ["age", "town"])
def test_gaps_are_the_same_in_parquet(tmp_path, missing):
    table = people()
    table.loc[::10, missing] = None
    csv = Table(saved(tmp_path, table), "bought").load()
    parquet = Table(saved(tmp_path, table, "people.parquet"), "bought").load()
    assert (csv.train.inputs == parquet.train.inputs).all()


def test_statistics_and_words_come_from_the_training_rows_alone(tmp_path):
    table = people()
    base = Table(saved(tmp_path, table), "bought").load()
    income = base.prepared["columns"].index("income")
    raw = (
        base.test.inputs[0, income] * base.prepared["scale"][income] + base.prepared["mean"][income]
    )
    row = (table["income"] - raw).abs().idxmin()
    table.loc[row, ["income", "town"]] = [9e9, "Oslo"]
    changed = Table(saved(tmp_path, table), "bought").load()
    assert changed.prepared == base.prepared
    assert (changed.train.inputs == base.train.inputs).all()
    assert changed.test.inputs[0, 2:5].sum() == 0
    assert changed.test.inputs[0, income] > 1e5


def test_a_constant_column_is_zero(tmp_path):
    task = Table(saved(tmp_path, people().assign(age=0.1)), "bought").load()
    assert np.abs(task.train.inputs[:, 0]).max() < 1e-6


@pytest.mark.parametrize(
    ("labels", "objective", "outputs", "classes"),
    [
        ([3, 7], "binary", 1, ("3", "7")),
        ([0.5, 1.5], "binary", 1, ("0.5", "1.5")),
        ([2, 0, 5], "classes", 3, ("0", "2", "5")),
        (["b", "a", "c", "d"], "classes", 4, ("a", "b", "c", "d")),
        ([0.1, 0.2, 0.3], "squared", 1, ()),
        (list(range(101)), "squared", 1, ()),
    ],
)
def test_the_objective_follows_from_the_labels(tmp_path, labels, objective, outputs, classes):
    table = people(505).assign(y=(labels * 505)[:505])
    task = Table(saved(tmp_path, table), "y", model="logistic").load()
    assert task.objective.name == objective
    assert task.classes == classes
    assert task.model()(task.test.inputs).shape == (101, outputs)
    if classes:
        assert sorted(set(task.train.labels)) == list(range(len(classes)))
    else:
        label = task.prepared["label"]
        raw = task.train.labels * label["scale"] + label["mean"]
        assert np.allclose(sorted(set(np.round(raw, 3))), sorted(set(labels)), atol=1e-3)
        assert task.train.labels.dtype == np.float32


def message(*arguments, **named):
    with pytest.raises(DataError) as raised:
        Table(*arguments, **named).load()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_no_file_and_an_empty_one(tmp_path):
    assert "'no.csv' does not exist" in message("no.csv", "y")
    assert "is a folder, not a file" in message(str(tmp_path), "y")
    (tmp_path / "empty.csv").write_text("")
    assert "is empty" in message(str(tmp_path / "empty.csv"), "y")
    (tmp_path / "header.csv").write_text("x,y\n")
    assert "has a header but no rows" in message(str(tmp_path / "header.csv"), "y")


def test_a_column_that_is_not_there(file):
    assert message(file, "buoght").startswith(
        f"task.label: {file!r} has no column 'buoght'; did you mean 'bought'? known: age, bank, "
    )
    assert message(file, "bought", client="bnak").startswith(
        f"task.client: {file!r} has no column 'bnak'; did you mean 'bank'?"
    )


def test_another_separator(tmp_path):
    path = tmp_path / "german.csv"
    path.write_text("x;y\n1;2\n3;4\n")
    assert message(str(path), "y").endswith("known: x;y; is it separated by commas?")


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return str(path)


def test_text_among_numbers_is_named_with_row_and_line(tmp_path):
    lines = [f"{20 + row},{row % 2}" for row in range(40)]
    lines[16] = "abc,1"
    path = write(tmp_path, "age,y\n" + "\n".join(lines))
    assert message(path, "y").startswith("column 'age', row 17 (line 18): 'abc' is not a number")
    # Blank lines are no rows, and do not put the count of lines off.
    path = write(tmp_path, "age,y\n\n\n" + "\n".join(lines) + "\n\n")
    assert message(path, "y").startswith("column 'age', row 19 (line 20): 'abc'")


def test_an_infinite_number(tmp_path):
    lines = [f"{20 + row},{row % 2}" for row in range(40)]
    lines[3] = "-inf,1"
    path = write(tmp_path, "age,y\n" + "\n".join(lines))
    assert message(path, "y").startswith("column 'age', row 4 (line 5): -inf is not finite")


def test_text_among_numbers_in_parquet_has_a_row_and_no_line(tmp_path):
    table = pd.DataFrame({"age": ["20", "x", "30", "40"], "y": [0, 1, 0, 1]})
    path = saved(tmp_path, table, "people.parquet")
    assert message(path, "y").startswith("column 'age', row 2: 'x' is not a number")


def test_too_many_words_and_no_values(tmp_path):
    table = people().assign(name=[f"person {row}" for row in range(100)])
    assert "column 'name' holds 100 different words" in message(saved(tmp_path, table), "bought")
    table = people().assign(name=np.nan)
    assert "column 'name' has no values; delete it" in message(saved(tmp_path, table), "bought")


def test_labels_that_are_missing_or_all_the_same(tmp_path):
    table = people()
    table.loc[[3, 8], "bought"] = None
    path = saved(tmp_path, table)
    assert "column 'bought' has no value in row 4 (line 5), row 9 (line 10);" in message(
        path, "bought"
    )
    table.loc[20:40, "bought"] = None
    assert "row 4 (line 5), row 9 (line 10), row 21 (line 22), ... (23 rows)" in message(
        saved(tmp_path, table), "bought"
    )
    table["bought"] = "yes"
    assert "column 'bought' is 'yes' in every row" in message(saved(tmp_path, table), "bought")
    table["bought"] = [f"word {row}" for row in range(100)]
    longer = pd.concat([table, table.assign(bought="another")])
    assert "holds 101 different words" in message(saved(tmp_path, longer), "bought")


def test_a_row_without_an_owner(tmp_path):
    table = people()
    table.loc[4, "bank"] = None
    path = saved(tmp_path, table)
    assert message(path, "bought", client="bank").startswith(
        "task.client: column 'bank' has no value in row 5 (line 6)"
    )


def test_too_few_rows_and_too_few_columns(tmp_path):
    assert "has 2 rows, too few" in message(write(tmp_path, "x,y\n1,0\n2,1\n"), "y")
    path = write(tmp_path, "y\n" + "0\n1\n" * 10)
    assert "has no columns to predict from" in message(path, "y")


def test_a_file_that_is_no_table(tmp_path):
    assert "is not text in UTF-8" in message(write(tmp_path, "naïve,y\n1,0\n", "latin-1"), "y")
    assert "is no CSV table: " in message(write(tmp_path, "x,y\n1,0\n1,2,3\n"), "y")
    assert "more values in a line than names" in message(write(tmp_path, "x,y\n1,2,3\n"), "y")
    (tmp_path / "x.parquet").write_bytes(b"no parquet at all")
    assert "is no Parquet file" in message(str(tmp_path / "x.parquet"), "y")
    (tmp_path / "y.parquet").write_bytes(b"PAR1" + bytes(50) + b"PAR1")
    assert "is no Parquet file" in message(str(tmp_path / "y.parquet"), "y")


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    path = write(tmp_path, "\ufeffy,x\n" + "0,1\n1,2\n" * 10)
    assert len(Table(path, "y").load().train) == 16


def test_without_pyarrow(tmp_path, monkeypatch):
    path = saved(tmp_path, people(), "people.parquet")

    def refuse(*arguments, **named):
        raise ImportError("Unable to find a usable engine;\ntried using: 'pyarrow', 'fastparquet'")

    monkeypatch.setattr(pd, "read_parquet", refuse)
    assert message(path, "bought").endswith("needs pyarrow; run pip install 'fedsys[parquet]'")


def test_reading_a_table_needs_no_keras(file, monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **named):
        assert name.split(".")[0] not in ("keras", "tensorflow")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    Table(file, "bought").load()
