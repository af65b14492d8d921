"""The arithmetic of each node in NumPy, over many rows at once: one module a family of nodes.

Each module of this folder offers `KERNELS: Mapping[type[Node], Kernel]`, merged in `executor.py`.
`Kernel(node, values, shape)` computes a node's output:

- values: an array for each of the node's inputs, in order, [n, *the tensor's whole shape] with
  the leading one of a batch kept ([n, 1, rows, columns, channels] for an image), of the tensor's
  type; not to be written to;
- shape: the output tensor's whole shape;
- it returns [n, *shape] of the output tensor's type, all values as on the chip.

Lowering has checked sizes and types; a kernel checks nothing. The executor hands over as many
rows as fit in memory a few times over, so a kernel may take temporary room of some copies of its
input and output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Kernel = Callable[[Any, Sequence[np.ndarray], tuple[int, ...]], np.ndarray]
