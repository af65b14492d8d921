"""Runs a tiny round: what an environment must be able to do before it counts as installed."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import tensorflow as tf

from .algorithms import joined, process
from .models import PlannedModel

JOB: dict[str, Any] = {
    "layers": [
        {
            "name": "one",
            "kind": "Dense",
            "options": {"units": 1, "use_bias": False},
            "penalties": {},
            "inputs": [""],
        }
    ],
    "variables": [["one", 0]],
    "rows": "float32",
    "shapes": [[1, 1]],
    "shape": [1],
    "inputs": "float32",
    "labels": "float32",
    "objective": "squared",
    "strategy": {"name": "fedavg", "rate": 1.0},
    "local": {"rate": 0.5, "momentum": 0.0},
    "uniform": False,
    "cohort": 2,
}
"""One weight w, whose clients each have one row (1, y): a step takes it half way to y."""


def client(place: int, target: float, rows: int) -> Any:
    """A client with that many rows that all say the same."""
    batch = OrderedDict(
        x=np.ones((rows, 1), np.float32),
        y=np.full(rows, target, np.float32),
        counts=np.int64(rows),
        place=np.int32(place),
    )
    return tf.data.Dataset.from_tensors(batch)


def main() -> None:
    """Raises SystemExit where a round does not come to what it must."""
    learning = process(JOB, lambda: PlannedModel(JOB))
    state = learning.initialize()
    begun = float(joined(state.global_model_weights.trainable)[0])
    output = learning.next(state, [client(0, 4.0, 1), client(1, 8.0, 3)])
    ended = float(joined(output.state.global_model_weights.trainable)[0])
    expected = (begun + 7.0) / 2  # 7 is the mean of the targets, weighted by rows
    if abs(ended - expected) > 1e-5:
        raise SystemExit(f"ERROR: a round came to {ended}, not to {expected}")
    print(f"a round came to {ended:.6f}, as it must")


if __name__ == "__main__":
    main()
