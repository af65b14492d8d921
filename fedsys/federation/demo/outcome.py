"""What came of a demonstration: as plain values, and as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsys.federation.demo.areas import Areas, areas
from fedsys.federation.demo.shown import Demo

FEDERATED, POOLED = "federated", "pooled"


@dataclass(frozen=True, eq=False)
class Outcome:
    """rows: of each owner, by name, to train on. areas: of each owner's model alone, and of
    `FEDERATED` and `POOLED`, on the same test rows. source: of all rows, for people.
    """

    demo: Demo
    rows: Mapping[str, int]
    test: int
    areas: Areas
    source: str
    seconds: float

    @classmethod
    def of(
        cls,
        demo: Demo,
        rows: Mapping[str, int],
        labels: np.ndarray,
        scores: Mapping[str, np.ndarray],
        source: str,
        seconds: float,
    ) -> Outcome:
        """labels: [test rows]. scores: model -> [test rows]."""
        return cls(demo, dict(rows), len(labels), areas(labels, scores), source, seconds)

    def table(self) -> dict[str, Any]:
        """As plain values. margins: of the areas; ahead: by how much the federated model is ahead
        of each other one, and the margin of that; at 95 %."""
        others = [*self.rows, POOLED]
        ahead = {name: self.areas.difference(FEDERATED, name) for name in others}
        return {
            "demo": self.demo.name,
            "alone": {name: self.areas.of(name).value for name in self.rows},
            FEDERATED: self.areas.of(FEDERATED).value,
            POOLED: self.areas.of(POOLED).value,
            "margins": {name: self.areas.of(name).margin for name in [*others, FEDERATED]},
            "ahead": {name: [one.value, one.margin] for name, one in ahead.items()},
            "rows": dict(self.rows),
            "test": self.test,
            "source": self.source,
            "rounds": self.demo.request.rounds,
            "seconds": self.seconds,
        }

    def text(self) -> str:
        """For people."""
        demo, every = self.demo, sum(self.rows.values())
        rows = [(f"{name} alone", count, name) for name, count in self.rows.items()]
        rows += [(name, every, name) for name in (FEDERATED, POOLED)]
        width = max(len(said) for said, _, _ in rows)
        heads = f"{demo.person}s"
        lines = [f"{'':{width}}  {heads}     AUC    95 %"]
        for said, count, name in rows:
            found = self.areas.of(name)
            figures = f"{found.value:.4f}  ±{found.margin:.3f}"
            lines.append(f"{said:{width}}  {count:{len(heads)},}  {figures}")
        return "\n".join([*lines, *self._judged()])

    def _judged(self) -> list[str]:
        """What the table says, and of what it does not."""
        demo, found = self.demo, self.areas
        best = max(self.rows, key=lambda name: found.of(name).value)
        better = found.of(best).value > found.of(FEDERATED).value
        verdict = f": {best} alone is better here" if better else f" ({best})"
        return [
            f"federated - pooled:      {_signed(found, POOLED)}",
            f"federated - best alone:  {_signed(found, best)}{verdict}",
            f"AUC on {self.test:,} {demo.tested}, on whom nobody trained; one split, one seed.",
            "±: by chance of whom is tested (DeLong 1988); all models are tested on the same.",
            f"{self.source}; {demo.request.rounds} rounds, {self.seconds:.0f} s",
        ]


def _signed(found: Areas, other: str) -> str:
    one = found.difference(FEDERATED, other)
    return f"{one.value:+.4f} ±{one.margin:.3f}"
