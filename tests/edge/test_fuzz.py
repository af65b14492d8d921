"""Damaged and malicious files: a model or one line of refusal, in bounded memory.

What is still let through runs: in the executor, and as C under the compiler's sanitizers.
"""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.edge.integers.executor import trace
from fedsys.edge.integers.lower import lower
from fedsys.edge.integers.program import Program
from fedsys.edge.tflite.reader import read
from fedsys.errors import DataError, ExportError

from . import batch, zoo
from .build import Op, Value, build, constant
from .c import needs_gcc
from .damage import bytes_changed, meaning_changed

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


# --- real models ---------------------------------------------------------------------------------

ZOO = ("digits", "residual", "squeeze_excite", "moves", "dense_softmax", "autoencoder", "prelu")
LARGEST = 300_000
"""Bytes of all tensors of a changed model that is run: some changes ask for a lot of room."""


def program(data: bytes) -> Program | None:
    """What the file is lowered to, or None where it is refused: in a line, in bounded memory."""
    found, told = None, "refused"
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = lower(read(data))
    except (DataError, ExportError) as error:
        told = str(error)
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert told and "\n" not in told
    assert most < 64 * len(data) + 1_000_000
    return found


def drawn(random: np.random.Generator, program: Program) -> list[np.ndarray]:
    """A row for each input, [1, *whole shape]."""
    rows = []
    for number in program.model.inputs:
        tensor = program.model.tensors[number]
        rows.append(random.integers(-128, 128, (1, *tensor.shape)).astype(tensor.dtype))
    return rows


def computed(program: Program, rows: Sequence[np.ndarray]) -> list[bytes]:
    """The outputs by the executor. rows: an array for each input, [1, *whole shape]."""
    model = program.model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = trace(program, [row[0] if row.shape[1:2] == (1,) else row for row in rows])
    for node in program.nodes:
        tensor = model.tensors[node.output]
        assert (values[node.output].size, values[node.output].dtype) == (tensor.size, tensor.dtype)
    outputs = [values.get(n, model.tensors[n].data) for n in model.outputs]
    return [output.tobytes() for output in outputs]


def small(program: Program) -> bool:
    return sum(tensor.bytes for tensor in program.model.tensors) < LARGEST


@pytest.mark.parametrize("name", [*ZOO, "kws_ds_cnn"])
def test_a_real_model_with_changed_bytes_is_refused_or_runs(name):
    random = np.random.default_rng(len(name))
    data, refused, ran = zoo.int8(name), 0, 0
    for _ in range(250):
        found = program(bytes_changed(random, data, zoo.int8(str(random.choice(ZOO)))))
        if found is None:
            refused += 1
        elif small(found) and ran < 15:
            computed(found, drawn(random, found))
            ran += 1
    assert refused > 50 and ran == 15


@pytest.mark.parametrize("name", ZOO)
def test_a_real_model_that_says_something_else_is_refused_or_runs(name):
    random = np.random.default_rng(len(name))
    data, refused, ran = zoo.int8(name), 0, 0
    for _ in range(150):
        found = program(meaning_changed(random, data))
        if found is None:
            refused += 1
        elif small(found):
            computed(found, drawn(random, found))
            ran += 1
    assert refused > 50 and ran > 5


def changed_programs(random: np.random.Generator, name: str, count: int) -> Iterator[Program]:
    """Programs of a model with changes that neither the reader nor `lower` finds fault with."""
    data = zoo.int8(name)
    while count:
        found = program(meaning_changed(random, data))
        if found is not None and small(found):
            count -= 1
            yield found


@needs_gcc
@pytest.mark.parametrize("variant", ["PLAIN", "DSP"])
def test_what_is_let_through_is_sound_c_of_the_same_results(variant, tmp_path):
    random = np.random.default_rng(len(variant))
    programs = [each for name in ZOO for each in changed_programs(random, name, 2)]
    rows = [drawn(random, each) for each in programs]
    expected = [computed(each, given) for each, given in zip(programs, rows, strict=True)]
    assert batch.outputs(programs, rows, tmp_path, variant) == expected
