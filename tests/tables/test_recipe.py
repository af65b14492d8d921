"""What is told of the inputs is what is done: rows scored by hand, from the JSON alone."""

import csv
import json

import numpy as np

from fedsys.tables import Preparation, open_source, prepare, schema_of, summarise
from fedsys.tables.recipe import OTHER, recipe
from tests.tables.conftest import SCHEMA
from tests.tables.test_statistics import ragged


def by_hand(row, told):
    """The inputs of a row of texts, as somebody without fedsys works them out."""
    values = []
    for one in told["inputs"]:
        cell = row[one["column"]]
        empty = cell in told["missing_values"]
        if one["type"] == "category":
            known = {other.get("equals") for other in told["inputs"]
                     if other["column"] == one["column"]}  # fmt: skip
            name = one["fill"] if empty else cell if cell in known else OTHER
            values.append(float(name == (OTHER if one.get("other") else one["equals"])))
        elif one["type"] == "yes/no":
            values.append(float(one["fill"] if empty else cell == "1"))
        else:
            number = one["fill"] if empty else float(cell)
            if one.get("outside") == "clip":
                number = min(max(number, one["range"][0]), one["range"][1])
            values.append((number - one["mean"]) / one["scale"])
    return values


def test_a_row_scored_by_hand_is_what_the_model_reads(tmp_path):
    schema = schema_of(SCHEMA)
    path = tmp_path / "rows.csv"
    ragged(120, seed=3).to_csv(path, index=False)
    source = open_source(path)
    preparation = Preparation.derive(schema, summarise(source, schema))
    told = json.loads(json.dumps(recipe(schema, preparation)))
    assert [one["name"] for one in told["inputs"]] == list(schema.inputs)
    with open(path, newline="") as file:
        hand = np.array([by_hand(row, told) for row in csv.DictReader(file)])
    np.testing.assert_allclose(hand, prepare(source, schema, preparation).inputs, atol=1e-6)


def test_the_output_is_named():
    told = recipe(schema_of(SCHEMA), Preparation.derive(schema_of(SCHEMA), _summary()))
    assert told["output"]["label"] == "default"
    assert told["output"]["classes"] == ["no", "yes"]
    three = SCHEMA.replace('classes = "binary"', 'classes = ["a", "b", "c"]')
    schema = schema_of(three)
    made = Preparation(schema.hash, Preparation.derive(schema_of(SCHEMA), _summary()).scalings)
    assert recipe(schema, made)["output"]["is"] == "logits, one a class"


def _summary():
    from tests.tables.conftest import people
    from tests.tables.test_statistics import Memory

    return summarise(Memory(people(50)), schema_of(SCHEMA))
