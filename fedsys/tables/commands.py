"""What the command line does with tables, as plain functions."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fedsys.tables.check import check
from fedsys.tables.schema_file import read_schema
from fedsys.tables.sources import open_source


def run_check(
    source: str,
    query: str | Path | None,
    schema_path: Path | str,
    as_json: bool = False,
    federation: str | None = None,
) -> int:
    """Checks a source against the schema in a file, prints the report, returns the exit code.

    federation: the hash of the schema that the federation uses, where the bank knows it.
    0: the rows may join. 3: they are refused. Raises FedsysError, in one line, where there is
    nothing to report on: no file, no schema, no database.
    """
    schema = read_schema(Path(schema_path))
    report = check(open_source(source, query), schema, federation)
    click.echo(json.dumps(report.table()) if as_json else report.text())
    return report.code
