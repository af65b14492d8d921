"""Everything random, from `(seed, purpose, ...)` and never from a global generator.

Draws that are made once a run or once a round use NumPy's generators. The order of a client's
rows, which is drawn for each client in each round, is a keyed permutation instead: rows are sorted
by a hash of (seed, round, client, epoch, row). A whole cohort is one vectorised sort, and a device
that knows five numbers can draw its own order without NumPy.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a random number is for; keeps draws of one seed apart. Values are part of a result."""

    PARTITION = 0
    COHORT = 1
    ORDER = 2
    LAYERS = 3
    FAULTS = 4
    MODEL = 5


def generator(seed: int, purpose: Purpose, *path: int) -> np.random.Generator:
    """A generator of its own for `(seed, purpose, *path)`."""
    return np.random.default_rng([seed, int(purpose), *path])


def hashed(*parts: int | np.ndarray) -> np.ndarray:
    """A 64-bit hash of the parts, elementwise over their broadcast shape, as uint64.

    The finaliser of SplitMix64 (Steele et al. 2014), applied after each part is added.
    """
    state = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = state + np.asarray(part).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return state


def shuffled_segments(keys: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Sorts each segment of `keys` and returns where its members came from.

    keys: [sum of sizes] uint64 hashes; sizes: [segments]. Returns [sum of sizes] positions, such
    that segment s of the result is a permutation of the positions of segment s. Fewer than 2^24
    segments; the 40 hash bits that remain leave ties, which keep their order, at one in millions.
    """
    segment = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
    return np.argsort((segment << np.uint64(40)) | (keys >> np.uint64(24)), kind="stable")


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Seeds Python's, NumPy's and TensorFlow's global generators, and puts the first two back.

    Keras initialisers draw from them where a layer names no seed of its own. It is the one place
    that touches a global generator, and only while a model is built.
    """
    import keras

    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        keras.utils.set_random_seed(int(hashed(seed, Purpose.MODEL)) % 2**31)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
