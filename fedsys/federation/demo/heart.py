"""Four hospitals' patients: whose heart is diseased.

From the data set heart disease (Janosi et al. 1988; UCI), whose four files are four hospitals: all
920 patients and all 13 measurements. Most lack some, and three hospitals hardly took some at all. A
cholesterol or blood pressure of 0 is no measurement and counts as missing; so Switzerland has no
cholesterol.
"""

from __future__ import annotations

import numpy as np

from fedsys.errors import DataError
from fedsys.federation.demo.shown import Demo, Shared, Table
from fedsys.federation.jobs.request import Request
from fedsys.local import Local
from fedsys.tables import Column, Label, Missing, Schema
from fedsys.tasks.heart import COLUMNS, read_hospitals
from fedsys.tasks.splits import stratified

LABEL = "disease"
NEVER_ZERO = ("trestbps", "chol")
TEST = 1 / 3

UNKNOWN = Missing("other")
"""An input of its own: that a measurement was not thought worth while tells something, too."""

SCHEMA = Schema(
    label=Label(LABEL, description="whether a large artery of the heart is narrowed by half"),
    columns=(
        Column("age", "integer", unit="years", range=(18, 120)),
        Column("sex", "yes/no", description="male"),
        Column("cp", "category", categories=("1", "2", "3", "4"), description="kind of chest pain"),
        Column("trestbps", "number", unit="mm Hg", range=(50, 260), missing=Missing("median"),
               description="blood pressure at rest"),
        Column("chol", "number", unit="mg/dl", range=(50, 700), missing=Missing("constant", 240),
               description="cholesterol; a constant, as a hospital alone may have no mean"),
        Column("fbs", "yes/no", missing=Missing("constant", 0),
               description="fasting blood sugar above 120 mg/dl"),
        Column("restecg", "category", categories=("0", "1", "2"), missing=Missing("category", "0"),
               description="electrocardiogram at rest"),
        Column("thalach", "number", unit="beats a minute", range=(40, 240), missing=Missing("mean"),
               description="highest heart rate"),
        Column("exang", "category", categories=("0", "1"), other=True, missing=UNKNOWN,
               description="chest pain by exercise"),
        Column("oldpeak", "number", unit="mm", range=(-5, 10), missing=Missing("mean"),
               description="ST depression by exercise"),
        Column("slope", "category", categories=("1", "2", "3"), other=True, missing=UNKNOWN,
               description="slope of the ST segment"),
        Column("ca", "category", categories=("0", "1", "2", "3"), other=True, missing=UNKNOWN,
               description="large vessels seen by fluoroscopy"),
        Column("thal", "category", categories=("3", "6", "7"), other=True, missing=UNKNOWN,
               description="scan of the heart's blood supply"),
    ),
    title="patients who have or have not a diseased heart",
)  # fmt: skip


def read(data: str | None) -> Shared:
    """The patients of four hospitals; a third of each, healthy and ill alike, are for the test."""
    hospitals = read_hospitals(data, "--data")
    values = np.concatenate(list(hospitals.values()))
    if np.isnan(values[:, -1]).any():
        raise DataError("--data: a patient has no diagnosis; copy or download the files again")
    columns = dict(zip(COLUMNS[:-1], values.T, strict=False))
    for name in NEVER_ZERO:
        columns[name] = np.where(columns[name] == 0, np.nan, columns[name])
    columns[LABEL] = (values[:, -1] > 0).astype(float)
    owners, test, start = {}, [], 0
    for name, rows in hospitals.items():
        train, kept = stratified(rows[:, -1] > 0, TEST)
        owners[name] = start + train
        test.append(start + kept)
        start += len(rows)
    source = f"{start:,} patients of {len(hospitals)} hospitals (UCI heart disease)"
    return Shared(Table(columns, source), owners, np.concatenate(test))


HEART = Demo(
    name="heart",
    owner="hospital",
    person="patient",
    schema=SCHEMA,
    request=Request(
        name="heart",
        model="logistic",
        rounds=20,
        local=Local(epochs=1, batch=16, rate=0.1),
        deadline=120.0,
    ),
    tested="patients of all hospitals",
    places=("data/heart", "heart"),
    read=read,
)
"""The demonstration: logistic regression, as there are few rows."""
