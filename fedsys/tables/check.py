"""May these rows join? One pass over a source, in constant memory, before anything is sent.

A finding names a column, a kind, a count and the numbers of the first few rows. It never names a
value: neither one that is in the data nor one that the data lacks.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fedsys.tables.cells import Cells
from fedsys.tables.report import REFUSED, WARNING, Finding, Report
from fedsys.tables.rows import Batch, batches, dropped, refuses_strange
from fedsys.tables.schema import CATEGORY, INTEGER, NUMBER, Column, Schema
from fedsys.tables.sources import Source

_ROWS = 10  # row numbers kept of each finding
_NAMES = 10  # extra columns named one by one
_LETTERS = 60  # letters of a name that is not the schema's
_WRONG = {
    NUMBER: "no number, as in 1234.5",
    INTEGER: "no whole number",
    "yes/no": "neither yes nor no (or true, false, 1, 0)",
}


def check(source: Source, schema: Schema, federation: str | None = None) -> Report:
    """Everything that the schema has against the rows. Raises DataError if they cannot be read.

    federation: the hash of the schema that the federation uses, where it is known; another refuses.
    """
    names = source.columns()
    there = [column for column in schema.every if column.name in names]
    tallies = {column.name: _Tally(column) for column in there}
    classes = np.zeros(len(schema.label.names), dtype=np.int64)
    rows = kept = 0
    for batch in batches(source, there, schema):
        keeps = np.ones(batch.rows, dtype=bool)
        for column in there:
            cells = batch.cells[column.name]
            tallies[column.name].add(cells, batch)
            keeps &= ~dropped(cells, column)
        rows += batch.rows
        kept += int(keeps.sum())
        if schema.label.column in tallies:
            label = batch.cells[schema.label.column]
            good = keeps & ~(label.missing | label.wrong | label.strange)
            numbers = label.values[good].astype(np.int64)
            classes += np.bincount(numbers, minlength=len(classes))
    findings = [
        *_schema_findings(schema, federation),
        *_name_findings(names, schema),
        *(finding for column in there for finding in tallies[column.name].findings(rows)),
        *_row_findings(rows, kept, classes if schema.label.column in tallies else None, schema),
    ]
    findings.sort(key=lambda finding: finding.severity != REFUSED)
    return Report(
        source=source.name,
        kind=source.kind,
        schema=schema.hash,
        rows=rows,
        kept=kept,
        found=len(there),
        wanted=len(schema.every),
        label=schema.label.column,
        classes=schema.label.names,
        shares=tuple((classes / max(1, classes.sum())).tolist()),
        binary=schema.objective == "binary",
        findings=tuple(findings),
        federation=federation,
    )


@dataclass
class _Places:
    """A count of cells and the first few of their rows."""

    count: int = 0
    rows: list[int] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)

    def add(self, where: np.ndarray, batch: Batch) -> None:
        self.count += int(where.sum())
        if len(self.rows) < _ROWS and where.any():
            first = np.flatnonzero(where)[: _ROWS - len(self.rows)].tolist()
            self.rows += [batch.start + at + 1 for at in first]
            self.lines += [] if batch.lines is None else [batch.lines[at] for at in first]

    def finding(self, severity: str, kind: str, column: str, said: str) -> Finding:
        return Finding(
            severity, kind, column, self.count, said, tuple(self.rows), tuple(self.lines)
        )


@dataclass
class _Tally:
    """What one column's cells come to."""

    column: Column
    missing: _Places = field(default_factory=_Places)
    wrong: _Places = field(default_factory=_Places)
    strange: _Places = field(default_factory=_Places)

    def add(self, cells: Cells, batch: Batch) -> None:
        self.missing.add(cells.missing, batch)
        self.wrong.add(cells.wrong, batch)
        self.strange.add(cells.strange, batch)

    def findings(self, rows: int) -> list[Finding]:
        column, found = self.column, []
        if self.wrong.count:
            said = f"{_values(self.wrong.count)} {_WRONG[column.type]}"
            found.append(self.wrong.finding(REFUSED, "wrong-type", column.name, said))
        if self.strange.count:
            found.append(self._strange())
        if self.missing.count:
            found.append(self._missing(rows))
        return found

    def _strange(self) -> Finding:
        column, count = self.column, self.strange.count
        severity = REFUSED if refuses_strange(column) else WARNING
        if column.type == CATEGORY:
            counted = ": counted as other" if column.other else ""
            said = f"{_values(count)} none of the {len(column.categories)} categories{counted}"
            return self.strange.finding(severity, "unknown-category", column.name, said)
        assert column.range is not None  # else nothing is outside
        low, high = column.range
        rule = {"refuse": "", "clip": ": clipped", "drop": ": the rows are left out"}
        said = f"{_values(count)} outside {low:g}..{high:g}{rule[column.outside]}"
        return self.strange.finding(severity, "out-of-range", column.name, said)

    def _missing(self, rows: int) -> Finding:
        column, count = self.column, self.missing.count
        severity = REFUSED if column.missing.rule == "refuse" else WARNING
        rule = {
            "refuse": "the schema refuses missing values",
            "drop": "the rows are left out",
            "mean": "filled by the federation's mean",
            "median": "filled by the federation's median",
            "other": "counted as other",
        }.get(column.missing.rule, f"filled by the schema's {column.missing.rule}")
        if count == rows:
            finding = Finding(
                severity, "all-missing", column.name, count, f"no value at all: {rule}"
            )
            return finding
        said = f"{count:,} missing ({_percent(count, rows)}): {rule}"
        return self.missing.finding(severity, "missing-values", column.name, said)


def _schema_findings(schema: Schema, federation: str | None) -> list[Finding]:
    if federation is None or federation == schema.hash:
        return []
    said = f"the federation's schema is another, {federation[:12]}; ask the coordinator for it"
    return [Finding(REFUSED, "other-schema", None, 1, said)]


def _name_findings(names: Sequence[str], schema: Schema) -> list[Finding]:
    counts = Counter(names)
    wanted = {column.name for column in schema.every}
    extra = [name for name in counts if name not in wanted]
    if not wanted & counts.keys():
        # The first line is then likely to be data, so that its cells are not told as names.
        said = "none of the schema's columns is there; has the file a header line?"
        return [Finding(REFUSED, "missing-column", None, len(wanted), said)]
    findings = []
    shown = {name: _shown(name, names.index(name)) for name in extra}
    for column in schema.every:
        if column.name not in counts:
            said = "the column is missing"
            close = difflib.get_close_matches(column.name, extra, n=1)
            said += f"; is it {shown[close[0]]}?" if close else ""
            findings.append(Finding(REFUSED, "missing-column", column.name, 1, said))
    for name, count in counts.items():
        if count > 1:
            severity = REFUSED if name in wanted else WARNING
            said = f"{count} columns of this name"
            findings.append(
                Finding(severity, "duplicate-column", shown.get(name, name), count, said)
            )
    if extra and schema.extra == "refuse":
        findings += [
            Finding(REFUSED, "extra-column", shown[name], 1, "not in the schema, which refuses it")
            for name in extra[:_NAMES]
        ]
        if len(extra) > _NAMES:
            said = f"{len(extra) - _NAMES} more columns that are not in the schema"
            findings.append(Finding(REFUSED, "extra-column", None, len(extra) - _NAMES, said))
    elif extra:
        some = ", ".join(shown[name] for name in extra[:_NAMES])
        more = ", …" if len(extra) > _NAMES else ""
        are = "1 column is" if len(extra) == 1 else f"{len(extra)} columns are"
        said = f"{are} not in the schema and ignored: {some}{more}"
        findings.append(Finding(WARNING, "extra-column", None, len(extra), said))
    return findings


def _row_findings(
    rows: int, kept: int, classes: np.ndarray | None, schema: Schema
) -> list[Finding]:
    if not rows:
        return [Finding(REFUSED, "no-rows", None, 0, "no rows")]
    findings = []
    if kept < schema.minimum:
        left = "" if kept == rows else f" of {rows:,} are left"
        said = f"{kept:,} rows{left}, the schema asks for {schema.minimum:,} or more"
        findings.append(Finding(REFUSED, "too-few-rows", None, kept, said))
    if classes is not None and classes.sum() and (classes > 0).sum() == 1:
        said = "all rows are of one class, so there is nothing to learn"
        findings.append(Finding(REFUSED, "one-class", schema.label.column, kept, said))
    return findings


def _shown(name: str, position: int) -> str:
    """A name that is not the schema's: short, harmless, and not one that is rather a value."""
    text = "".join(letter if letter.isprintable() else "?" for letter in name[:_LETTERS])
    # A file without a header has cells where names should be; those with digits first look so.
    return text if text[:1].isalpha() or text[:1] in "_(" else f"(column {position + 1})"


def _values(count: int) -> str:
    return "1 value is" if count == 1 else f"{count:,} values are"


def _percent(count: int, rows: int) -> str:
    part = 100 * count / rows
    return f"{part:.1f} %" if part >= 0.05 else "under 0.1 %"
