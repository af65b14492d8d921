"""What a check found: for people and as JSON, with row numbers and never a value of the data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from fedsys.errors import DataError

REFUSED, WARNING = "refused", "warning"
_SHOWN = 3  # row numbers in a line for people; the JSON has some more
_CLASSES = 5  # classes in a line for people


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that the schema's rules will mend.

    severity: 'refused' or 'warning'. kind: such as 'out-of-range'. column: its name, or None.
    count: how many cells, rows or columns. rows: the numbers of the first few, from 1; lines: where
    they begin in a text file. said: a sentence without the column's name.
    """

    severity: str
    kind: str
    column: str | None
    count: int
    said: str
    rows: tuple[int, ...] = ()
    lines: tuple[int, ...] = ()

    def text(self) -> str:
        """One line for people."""
        mark = "✘" if self.severity == REFUSED else "⚠"
        name = "" if self.column is None else f"{self.column}: "
        return f"{mark} {name}{self.said}{self._where()}"

    def _where(self) -> str:
        if not self.rows:
            return ""
        more = ", …" if self.count > min(_SHOWN, len(self.rows)) else ""
        parts = [("rows" if self.count > 1 else "row", self.rows)]
        if self.lines:
            parts.append(("lines" if self.count > 1 else "line", self.lines))
        said = [f"{word} {', '.join(map(str, some[:_SHOWN]))}{more}" for word, some in parts]
        return f" ({'; '.join(said)})"


@dataclass(frozen=True)
class Report:
    """All that a check found.

    source, kind: of the data. schema: the schema's hash. rows: in the data, and kept: of those,
    left by the schema's rules. found, wanted: columns of the schema, the label among them.
    classes: their names, and shares: their parts of the kept rows. binary: two classes.
    federation: the hash of the schema that the federation uses, where it is known.
    """

    source: str
    kind: str
    schema: str
    rows: int
    kept: int
    found: int
    wanted: int
    label: str
    classes: tuple[str, ...]
    shares: tuple[float, ...]
    binary: bool
    findings: tuple[Finding, ...]
    federation: str | None = None

    @property
    def refused(self) -> bool:
        """Whether these rows may not join."""
        return any(finding.severity == REFUSED for finding in self.findings)

    @property
    def code(self) -> int:
        """The exit code."""
        return DataError.code if self.refused else 0

    def text(self) -> str:
        """Lines for people."""
        left_out = f", {self.rows - self.kept:,} left out" if self.kept < self.rows else ""
        whole = "✔" if self.rows and self.found == self.wanted else "✘"
        lines = [
            f"{self.source} ({self.kind})",
            f"{whole} {self.rows:,} rows{left_out}, {self.found}/{self.wanted} columns by name",
        ]
        if sum(share > 0 for share in self.shares) > 1:
            lines.append(f"✔ label {self.label}: {self._shares()}")
        same = self.federation in (None, self.schema)
        matches = " matches the federation" if same and self.federation else ""
        lines.append(f"{'✔' if same else '✘'} schema hash {self.schema[:12]}{matches}")
        lines += [finding.text() for finding in self.findings]
        if self.refused:
            lines.append("→ mend the data, or ask the coordinator to change the schema")
        return "\n".join([*lines, "nothing was sent"])

    def table(self) -> dict[str, Any]:
        """The report as plain values, for --json."""
        table = dataclasses.asdict(self)
        table["findings"] = [dataclasses.asdict(finding) for finding in self.findings]
        return {**table, "refused": self.refused}

    def _shares(self) -> str:
        if self.binary:
            return f"{100 * self.shares[1]:.1f} % positive"
        said = [
            f"{name} {100 * share:.1f} %"
            for name, share in zip(self.classes, self.shares, strict=True)
        ]
        return ", ".join([*said[:_CLASSES], *(["…"] if len(said) > _CLASSES else [])])
