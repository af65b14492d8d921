"""Heart disease: the sizes that FLamby publishes, and its preparation done again with pandas."""

import numpy as np
import pandas as pd
import pytest

from fedsys.errors import DataError
from fedsys.tasks import Heart

CENTRES = ("cleveland", "hungarian", "switzerland", "va")


@pytest.fixture(scope="module")
def folder(data):
    return data / "heart"


@pytest.fixture(scope="module")
def task(folder):
    return Heart(str(folder)).load()


def test_sizes(task):
    assert np.bincount(task.train.owners).tolist() == [199, 172, 30, 85]
    assert np.bincount(task.client_test.owners).tolist() == [104, 89, 16, 45]
    assert task.train.inputs.shape == (486, 13)
    assert task.test.inputs.shape == (254, 13)
    assert task.owners == CENTRES
    assert task.train.inputs.dtype == np.float32


def reference(folder):
    """(features [740, 13] float32, labels, centres, in_test), as the benchmark describes them."""
    from sklearn.model_selection import train_test_split

    tables, in_test = [], []
    for number, centre in enumerate(CENTRES):
        table = pd.read_csv(folder / f"processed.{centre}.data", header=None)
        table = table.replace("?", np.nan).drop(columns=[10, 11, 12]).dropna().astype(float)
        sick = (table[13] > 0).astype(int)
        stratify = sick if min((sick == 0).sum(), (sick == 1).sum()) > 2 else None
        _, test = train_test_split(
            np.arange(len(table)),
            train_size=0.66,
            test_size=1.0 - 0.66,
            random_state=43,
            shuffle=True,
            stratify=stratify,
        )
        in_test.append(np.isin(np.arange(len(table)), test))
        tables.append(table.assign(centre=number))
    table = pd.concat(tables, ignore_index=True)
    labels, centres = table.pop(13) > 0, table.pop("centre")
    features = pd.get_dummies(table, columns=[2, 6], drop_first=True)
    return (
        features.to_numpy(np.float32),
        labels.to_numpy(),
        centres.to_numpy(),
        np.concatenate(in_test),
    )


def normalised(rows, by):
    return (rows - by.mean(axis=0)) / (by.std(axis=0, ddof=1) + 1e-9)


def test_the_same_as_with_pandas(folder, task):
    features, labels, centres, in_test = reference(folder)
    features = features.astype(np.float64)
    assert (task.train.labels == labels[~in_test]).all()
    assert (task.test.labels == labels[in_test]).all()
    for centre in range(4):
        mine = features[~in_test & (centres == centre)]
        np.testing.assert_allclose(
            task.train.inputs[task.train.owners == centre], normalised(mine, mine), atol=1e-5
        )
        np.testing.assert_allclose(
            task.client_test.inputs[task.client_test.owners == centre],
            normalised(features[in_test & (centres == centre)], mine),
            atol=1e-5,
        )
    np.testing.assert_allclose(
        task.test.inputs, normalised(features[in_test], features[~in_test]), atol=1e-5
    )


def test_a_column_that_is_constant_in_a_hospital_is_zero(task):
    """Switzerland never measured cholesterol; the scale of 1e-9 must not blow it up."""
    cholesterol = task.prepared["columns"].index("chol")
    swiss = task.client_test.inputs[task.client_test.owners == 2]
    assert (swiss[:, cholesterol] == 0).all()
    assert np.abs(task.client_test.inputs).max() < 10


def test_raw_values_can_be_had_back(task):
    prepared = task.prepared
    swiss = prepared["owners"]["switzerland"]
    raw = task.train.inputs[task.train.owners == 2] * np.array(swiss["scale"]) + swiss["mean"]
    assert 20 < raw[:, prepared["columns"].index("age")].min() < 90
    assert set(np.round(raw[:, prepared["columns"].index("cp=4")], 4)) <= {0, 1}
    assert prepared["columns"][-2:] == ["restecg=1", "restecg=2"]


def test_pooled_logistic_regression_is_as_good_as_published(folder):
    """FLamby: .795 on the pooled test, trained on the pooled training rows (five seeds)."""
    from sklearn.linear_model import LogisticRegression

    features, labels, _, in_test = reference(folder)
    train = normalised(features[~in_test].astype(float), features[~in_test].astype(float))
    fitted = LogisticRegression().fit(train, labels[~in_test])
    task = Heart(str(folder)).load()
    assert fitted.score(task.test.inputs, task.test.labels) == pytest.approx(0.795, abs=0.025)


def test_the_model_is_logistic_regression(task):
    assert task.model().count_params() == 14
    assert task.objective.name == "binary"


@pytest.fixture
def copy(folder, tmp_path):
    for centre in CENTRES:
        name = f"processed.{centre}.data"
        (tmp_path / name).write_text((folder / name).read_text())
    return tmp_path


def test_question_marks_are_missing_values_as_at_uci(copy, task):
    for file in copy.iterdir():
        file.write_text(file.read_text().replace("NaN", "?"))
    assert (Heart(str(copy)).load().train.inputs == task.train.inputs).all()


def edit(folder, centre, line, text):
    file = folder / f"processed.{centre}.data"
    lines = file.read_text().splitlines()
    lines[line - 1] = text
    file.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2,3", "processed.va.data', line 17: expected 14 values, found 3"),
        ("60,1,4,132,218,0,1,140,1,1.5,3,x,y,2", "line 17: 'x' is no finite number"),
        ("60,1,4,132,218,0,inf,140,1,1.5,3,?,?,2", "line 17: 'inf' is no finite number"),
        ("60,1,9,132,218,0,1,140,1,1.5,3,?,?,2", "14 inputs (age, "),
    ],
)
def test_a_file_with_a_mistake(copy, text, expected):
    edit(copy, "va", 17, text)
    with pytest.raises(DataError) as raised:
        Heart(str(copy)).load()
    assert expected in str(raised.value)


def test_missing(copy):
    (copy / "processed.va.data").write_text("")
    with pytest.raises(DataError, match=r"processed\.va\.data' holds 0 complete rows"):
        Heart(str(copy)).load()
    (copy / "processed.hungarian.data").unlink()
    with pytest.raises(DataError, match=r"processed\.hungarian\.data' does not exist"):
        Heart(str(copy)).load()
    with pytest.raises(DataError, match=r"'heart' cannot be downloaded; pass --data FOLDER"):
        Heart().load()
