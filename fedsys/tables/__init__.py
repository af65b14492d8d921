"""Data where it is: a federation's schema, a bank's source of rows, and what lies between.

schema -> the columns, types and rules that all banks agree on. open_source -> rows of a CSV or
Parquet file or of a database, in chunks. check -> may these rows join? summarise and merge ->
statistics of all rows without rows leaving. Preparation, prepare -> the same inputs
everywhere. task_of_sources -> what a federation of them learns, to simulate it.

Importing this imports no pandas, pyarrow, SQLAlchemy or TensorFlow.
"""

from fedsys.tables.check import check
from fedsys.tables.commands import run_check
from fedsys.tables.preparation import Preparation, prepare
from fedsys.tables.proposal import propose
from fedsys.tables.report import Finding, Report
from fedsys.tables.request import StatisticsRequest
from fedsys.tables.schema import Column, Label, Missing, Schema
from fedsys.tables.schema_file import read_schema, schema_of, schema_toml, write_schema
from fedsys.tables.sources import Source, open_source
from fedsys.tables.statistics import summarise
from fedsys.tables.summary import Summary, merge
from fedsys.tables.task import task_of_sources

__all__ = [
    "Column",
    "Finding",
    "Label",
    "Missing",
    "Preparation",
    "Report",
    "Schema",
    "Source",
    "StatisticsRequest",
    "Summary",
    "check",
    "merge",
    "open_source",
    "prepare",
    "propose",
    "read_schema",
    "run_check",
    "schema_of",
    "schema_toml",
    "summarise",
    "task_of_sources",
    "write_schema",
]
