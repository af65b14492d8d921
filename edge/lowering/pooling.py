"""pooling."""

from __future__ import annotations

from collections.abc import Mapping

from fedsys.edge.lowering.shared import Lowering

LOWERINGS: Mapping[str, Lowering] = {}
