"""Damaged and malicious files: a model or one line of refusal, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.edge.reader import read
from fedsys.errors import DataError

from .build import Op, Value, build, constant

WEIGHTS = np.random.default_rng(0).integers(-127, 128, (4, 3, 3, 2))
MODEL = build(
    [
        Value((1, 6, 6, 2), scale=0.1, zero_point=3),
        constant(WEIGHTS, scale=[0.1, 0.2, 0.3, 0.4]),
        Value((1, 6, 6, 4), scale=0.2),
        Value((1, 6, 6, 4), scale=1 / 256, zero_point=-128),
    ],
    [
        Op("CONV_2D", [0, 1, -1], [2], {"stride_w": 1, "stride_h": 1, "padding": "SAME"}),
        Op("SOFTMAX", [2], [3], {"beta": 1.0}),
    ],
    [0],
    [3],
    metadata={"origin": b"test"},
)


def survives(data):
    told = ""
    tracemalloc.start()
    try:
        read(data)
    except DataError as error:
        told = str(error)
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert "\n" not in told
    assert most < 64 * len(data) + 200_000


def test_the_undamaged_file_is_read():
    assert [op.code for op in read(MODEL).operators] == ["CONV_2D", "SOFTMAX"]


def test_every_truncation_is_survived():
    for length in range(len(MODEL)):
        survives(MODEL[:length])


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_are_survived(seed):
    rng = np.random.default_rng(seed)
    for _ in range(200):
        data = np.frombuffer(MODEL, np.uint8).copy()
        data[rng.integers(0, len(data), rng.integers(1, 5))] = rng.integers(0, 256)
        survives(data.tobytes())


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, len(MODEL) // 4 - 1), word=st.integers(0, 2**32 - 1))
def test_any_word_in_the_place_of_another_is_survived(place, word):
    data = bytearray(MODEL)
    data[4 * place : 4 * place + 4] = word.to_bytes(4, "little")
    survives(bytes(data))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_noise_behind_the_mark_is_survived(noise):
    survives(noise[:4].ljust(4, b"\0") + b"TFL3" + noise[4:])
