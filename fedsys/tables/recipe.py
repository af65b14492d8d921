"""How a row becomes a model's inputs, and what its outputs mean, as plain values.

It says what `preparation.prepare` does, so that somebody without fedsys, or a microcontroller, can
score a row: each of the inputs in its order, from which column and how.

    number      (value - mean) / scale, the value clipped to the range where that is said
    yes/no      1 or 0
    category    1 where the cell is `equals` (or, with `other`, none of the categories), else 0

A cell without a value counts as `fill` where there is one; without, the row is none for this model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedsys.errors import DataError, UsageError
from fedsys.tables.preparation import Preparation
from fedsys.tables.schema import CATEGORY, YES_NO, Column, Schema
from fedsys.tables.schema_file import schema_of, schema_toml

OTHER = "(other)"
LONGEST = 16 << 20
"""Bytes of a file."""


def recipe(schema: Schema, preparation: Preparation) -> dict[str, Any]:
    """The inputs in the order in which the model reads them, and its output."""
    inputs = [one for column in schema.columns for one in _inputs(column, preparation)]
    return {
        "inputs": [{"name": name, **one} for name, one in zip(schema.inputs, inputs, strict=True)],
        "missing_values": list(schema.spellings),
        "output": _output(schema),
        "preparation": {"sha256": preparation.hash, **preparation.table()},
        "schema": schema_toml(schema),
    }


def read_recipe(path: Path) -> Preparation:
    """The preparation in a file that holds a recipe, as JSON. Raises DataError that names it."""
    try:
        if path.stat().st_size > LONGEST:
            raise DataError(f"{path}: is too large for what lies beside a model")
        table = json.loads(path.read_text("utf-8"))
        said = dict(table["preparation"])
        digest, schema = said.pop("sha256"), schema_of(table["schema"], str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError):
        raise DataError(
            f"{path}: says no preparation: name the .json that fedsys federation model wrote"
        ) from None
    made = Preparation.of(said, schema)
    if made.hash != digest:
        raise DataError(f"{path}: its preparation was changed: ask the coordinator for it anew")
    return made


def _inputs(column: Column, preparation: Preparation) -> list[dict[str, Any]]:
    """One table for each input that a column becomes."""
    said = {"column": column.name, "type": column.type, **_fill(column, preparation)}
    if column.unit:
        said["unit"] = column.unit
    if column.type == CATEGORY:
        inputs = [{**said, "equals": name} for name in column.categories]
        return [*inputs, {**said, "other": True}] if column.other else inputs
    if column.type == YES_NO:
        return [said]
    if column.range is not None:
        said |= {"range": list(column.range), "outside": column.outside}
    scaling = preparation.scalings[column.name]
    return [{**said, "mean": scaling.mean, "scale": scaling.scale}]


def _fill(column: Column, preparation: Preparation) -> dict[str, Any]:
    """What a cell without a value counts as, if anything."""
    rule, value = column.missing.rule, column.missing.value
    if not column.missing.fills:
        return {}
    if column.is_number:
        return {"fill": preparation.scalings[column.name].fill}
    return {"fill": OTHER if rule == "other" else bool(value) if rule == "constant" else value}


def _output(schema: Schema) -> dict[str, Any]:
    label = schema.label
    binary = schema.objective == "binary"
    return {
        "label": label.column,
        "classes": list(label.names),
        "is": "logit of the second class" if binary else "logits, one a class",
        "probability": "1 / (1 + exp(-output))" if binary else "exp(output) / sum(exp(output))",
    }
