"""The hospitals of `fedsys demo heart`: each its own file, with the gaps that it has."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import fedsys
from fedsys.errors import DataError
from fedsys.federation.demo.comparison import simulated
from fedsys.federation.demo.heart import HEART, LABEL, SCHEMA
from fedsys.federation.demo.shown import write_rows
from fedsys.tables import (
    Preparation,
    check,
    merge,
    open_source,
    prepare,
    summarise,
    task_of_sources,
)
from fedsys.tasks.heart import CENTRES

SIZES = {"cleveland": 303, "hungarian": 294, "switzerland": 123, "va": 200}
FOLDER = Path(__file__).parents[3].parent / "shared" / "data" / "heart"


@pytest.fixture(scope="module")
def found():
    if not FOLDER.is_dir():
        pytest.skip("the heart disease data does not lie beside the checkout")
    return HEART.shared(str(FOLDER))


@pytest.fixture(scope="module")
def sources(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hospitals")
    for name, rows in found.owners.items():
        write_rows(found.table, rows, folder / f"{name}.csv")
    return {name: open_source(folder / f"{name}.csv") for name in found.owners}


def test_every_patient_is_at_the_hospital_of_the_file_or_in_the_test(found):
    everyone = np.concatenate([*found.owners.values(), found.test])
    np.testing.assert_array_equal(np.sort(everyone), np.arange(920))
    ill, start = found.table.columns[LABEL], 0
    for (name, size), rows in zip(SIZES.items(), found.owners.values(), strict=True):
        assert rows.min() >= start
        assert rows.max() < start + size
        kept = found.test[(found.test >= start) & (found.test < start + size)]
        assert len(kept) == round(size / 3), name
        assert abs(ill[kept].sum() - ill[start : start + size].sum() / 3) <= 1
        start += size
    assert tuple(found.owners) == CENTRES
    assert "920 patients of 4 hospitals" in found.table.source


def test_each_hospital_may_join_with_the_gaps_that_it_has(found, sources):
    """Values that lack are counted here from the files' own text."""
    for name, source in sources.items():
        report = check(source, SCHEMA)
        assert report.code == 0, report.text()
        lines = (FOLDER / f"processed.{name}.data").read_text().splitlines()
        start = list(SIZES).index(name)
        before = sum(list(SIZES.values())[:start])
        rows = [lines[row - before].split(",") for row in found.owners[name]]
        for at, column in enumerate(SCHEMA.columns):
            gaps = sum(row[at] in ("?", "NaN") for row in rows)
            if column.name in ("trestbps", "chol"):
                gaps += sum(row[at] in ("0", "0.0") for row in rows)
            said = [f.count for f in report.findings if f.column == column.name]
            assert said == ([gaps] if gaps else []), (name, column.name)


def test_a_hospital_without_a_column_learns_from_the_others_scale_and_can_stay_alone(sources):
    alone = Preparation.derive(SCHEMA, summarise(sources["switzerland"], SCHEMA))
    cholesterol = SCHEMA.inputs.index("chol")
    assert (prepare(sources["switzerland"], SCHEMA, alone).inputs[:, cholesterol] == 0).all()
    assert np.abs(prepare(sources["va"], SCHEMA, alone).inputs[:, cholesterol]).max() < 1e-20
    together = Preparation.derive(
        SCHEMA, merge([summarise(source, SCHEMA) for source in sources.values()])
    )
    scaling = together.scalings["chol"]
    assert scaling.fill == 240
    assert 200 < scaling.mean < 280
    assert 30 < scaling.scale < 90


def test_files_that_are_not_there_or_not_whole_are_one_line(tmp_path):
    with pytest.raises(DataError, match=r"^--data: 'heart' cannot be downloaded; pass --data FOLD"):
        HEART.shared(None)
    with pytest.raises(DataError, match=r"^--data: 'nowhere' does not exist"):
        HEART.shared("nowhere")
    with pytest.raises(DataError, match=r"processed\.cleveland\.data' does not exist"):
        HEART.shared(str(tmp_path))
    line = "60,1,4,132,218,0,1,140,1,1.5,3,?,?,"
    for name in CENTRES:
        (tmp_path / f"processed.{name}.data").write_text(f"{line}0\n{line}2\n" * 20)
    assert len(HEART.shared(str(tmp_path)).table) == 160
    for text, said in [
        ("60,1\n", r"processed\.va\.data', line 1: expected 14 values, found 2"),
        (f"{line}?\n" * 30, "a patient has no diagnosis"),
        (f"{line}1\n" * 3, "2 patients for va are too few, 10 are needed"),
    ]:
        (tmp_path / "processed.va.data").write_text(text)
        with pytest.raises(DataError, match=said):
            HEART.shared(str(tmp_path))


def test_together_they_learn_what_pooling_would_and_more_than_any_alone(
    found, sources, tmp_path, no_pictures
):
    """Simulated, as what is deployed comes to the same."""
    write_rows(found.table, found.test, tmp_path / "test.csv")
    test, request = open_source(tmp_path / "test.csv"), HEART.request
    labels, scores = simulated(SCHEMA, request, sources, test, tmp_path / "runs", lambda: None)
    task = task_of_sources(SCHEMA, sources, partial(request.build, SCHEMA), test=test)
    run = fedsys.simulate(request.experiment, task=task, folder=tmp_path / "federated")
    federated = run.metrics["test_auc"]
    auc = {name: roc_auc_score(labels, outputs) for name, outputs in scores.items()}
    assert abs(federated - auc.pop("pooled")) < 0.01
    assert federated > max(auc.values()) + 0.01
