"""Credit default: the real file, and copies of it with something wrong."""

import numpy as np
import pytest

from fedsys.errors import DataError
from fedsys.tasks import CreditDefault


@pytest.fixture(scope="module")
def file(data):
    return data / "credit-default" / "UCI_Credit_Card.csv"


@pytest.fixture(scope="module")
def task(file):
    return CreditDefault(str(file), client="EDUCATION").load()


def test_the_real_rows(task):
    assert task.train.inputs.shape == (24_000, 23)
    assert task.test.inputs.shape == (6_000, 23)
    assert task.train.inputs.dtype == np.float32
    assert task.train.labels.sum() + task.test.labels.sum() == 6_636  # 22.12 %
    assert task.test.labels.sum() == 1_327
    assert task.objective.name == "binary"


def test_inputs_are_standardised_by_the_training_rows_and_can_be_undone(task):
    assert np.abs(task.train.inputs.mean(axis=0, dtype=np.float64)).max() < 1e-5
    assert np.abs(task.train.inputs.std(axis=0, dtype=np.float64) - 1).max() < 1e-5
    assert np.abs(task.test.inputs.mean(axis=0)).max() > 1e-3
    prepared = task.prepared
    assert prepared["columns"][:2] == ["LIMIT_BAL", "SEX"]
    raw = task.train.inputs[0] * np.array(prepared["scale"]) + np.array(prepared["mean"])
    # The first line of the file is in the training part or the second is: both are known.
    known = ([20000, 2, 2, 1, 24], [120000, 2, 2, 2, 26], [90000, 2, 2, 2, 34])
    assert any(np.allclose(raw[:5], row, rtol=1e-4) for row in known)


def test_a_linear_model_is_as_good_as_the_reference(task):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    fitted = LogisticRegression(max_iter=500).fit(task.train.inputs, task.train.labels)
    scores = fitted.decision_function(task.test.inputs)
    assert 0.71 < roc_auc_score(task.test.labels, scores) < 0.745  # reference: 0.730


def test_owners_by_a_column(task):
    assert task.owners == ("0", "1", "2", "3", "4", "5", "6")
    education = task.prepared["columns"].index("EDUCATION")
    for owner, name in enumerate(task.owners):
        rows = task.client_test.inputs[task.client_test.owners == owner, education]
        codes = rows * task.prepared["scale"][education] + task.prepared["mean"][education]
        assert np.allclose(codes, float(name), atol=1e-4)
    assert len(task.client_test) == 6_000
    assert task.test.owners is None


def test_without_owners_from_the_folder(file):
    task = CreditDefault(str(file.parent), model="logistic").load()
    assert task.owners == ()
    assert task.train.owners is None
    assert task.client_test is None
    assert task.model().count_params() == 24


def test_the_default_model_is_the_reference_network(task):
    assert task.model().count_params() == 23 * 64 + 64 + 64 * 32 + 32 + 33


def edited(file, tmp_path, edit):
    lines = file.read_text().splitlines()[:200]
    edit(lines)
    copy = tmp_path / "copy.csv"
    copy.write_text("\n".join(lines) + "\n")
    return str(copy)


def test_a_part_of_the_rows_is_a_task_too(file, tmp_path):
    task = CreditDefault(edited(file, tmp_path, lambda lines: None)).load()
    assert len(task.train) + len(task.test) == 199


def cut_last_line(lines):
    lines[-1] = lines[-1][:30]


def put_text(lines):
    lines[17] = lines[17].replace(",2,", ",two,", 1)


def rename(lines):
    lines[0] = lines[0].replace('"BILL_AMT3"', '"BILL_AMT_3"')


def put_two(lines):
    lines[5] = lines[5][:-1] + "2"


def drop_rows(lines):
    del lines[1:]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (cut_last_line, "has no value in row 199 (line 200)"),
        (put_text, "row 17 (line 18): 'two' is not a number"),
        (rename, "has no column 'BILL_AMT3'; did you mean 'BILL_AMT_3'?"),
        (put_two, "column 'default.payment.next.month' holds more than 0 and 1"),
        (drop_rows, "has a header but no rows"),
    ],
)
def test_a_file_with_a_mistake(file, tmp_path, edit, expected):
    with pytest.raises(DataError) as raised:
        CreditDefault(edited(file, tmp_path, edit)).load()
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_data_and_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"'credit-default' cannot be downloaded; pass --data FILE"):
        CreditDefault().load()
    with pytest.raises(DataError, match=r"UCI_Credit_Card\.csv' does not exist"):
        CreditDefault(str(tmp_path)).load()
