"""pooling."""

from __future__ import annotations

from collections.abc import Mapping

from fedsys.edge.kernels import Kernel
from fedsys.edge.program import Node

KERNELS: Mapping[type[Node], Kernel] = {}
