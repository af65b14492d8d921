"""The global random generators, which other people's apps draw from.

Flower samples nodes with `random.sample`, clients shuffle with `numpy.random` or Keras. None of
them takes our seeds, so the global generators are seeded while their code runs, and put back.
TensorFlow, Keras and PyTorch are touched only where the app has imported them.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Kept:
    """Where the global generators stood."""

    python: Any
    numpy: Any
    torch: Any
    tensorflow: int | None

    @classmethod
    def now(cls) -> Kept:
        """Where they stand."""
        torch, tensorflow = _loaded("torch"), _loaded("tensorflow")
        return cls(
            python=random.getstate(),
            numpy=np.random.get_state(),  # noqa: NPY002
            torch=torch.get_rng_state() if torch else None,
            tensorflow=tensorflow.compat.v1.get_seed(None)[0] if tensorflow else None,
        )

    def put_back(self, seed: int | None = None) -> None:
        """Lets them go on from there.

        seed: for TensorFlow, which does not tell where it stands, only with what it was seeded:
        it begins anew with this seed, or with the one it had.
        """
        random.setstate(self.python)
        np.random.set_state(self.numpy)  # noqa: NPY002
        torch, tensorflow = _loaded("torch"), _loaded("tensorflow")
        if torch and self.torch is not None:
            torch.set_rng_state(self.torch)
        if tensorflow:
            tensorflow.random.set_seed(self.tensorflow if seed is None else seed)


def seed_globals(seed: int) -> None:
    """Seeds every global generator that is loaded. seed: of 32 bits."""
    keras, tensorflow, torch = _loaded("keras"), _loaded("tensorflow"), _loaded("torch")
    if keras:
        keras.utils.set_random_seed(seed)  # and Python's, NumPy's and TensorFlow's
    else:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        if tensorflow:
            tensorflow.random.set_seed(seed)
    if torch:
        torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global generators for a while, and puts them back."""
    kept = Kept.now()
    seed_globals(seed)
    try:
        yield
    finally:
        kept.put_back()


def _loaded(name: str) -> Any:
    """A module if the process has imported it, all of it."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return None if getattr(spec, "_initializing", False) else module
