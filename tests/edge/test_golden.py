"""Golden vectors: inputs that C can repeat, checksums that the executor's bytes have."""

import binascii

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsys.edge.integers.executor import trace
from fedsys.edge.project.golden import checksum, draws, golden, of_vectors, quantized, unpacked
from fedsys.edge.tflite.model import Quantization
from fedsys.errors import DataError, StorageError

from .exported import classifier, made, of_floats, two_inputs


def test_extremes_random_and_real_rows_come_in_order():
    rows = np.arange(6 * 60).reshape(6, 6, 5, 2).astype(np.int8)
    vectors = made(classifier(), rows).golden.vectors
    names = ["zeros", "lowest", "highest", *(f"random {i}" for i in range(1, 5))]
    assert [v.name for v in vectors] == [*names, *(f"row {i}" for i in range(1, 5))]
    zeros, lowest, highest, *others = (vector.inputs[0] for vector in vectors)
    assert (zeros == 0).all() and (lowest == -128).all() and (highest == 127).all()
    assert len({values.tobytes() for values in others}) == 8
    np.testing.assert_array_equal(vectors[-1].inputs[0], rows[3].reshape(-1))


def test_checksums_are_of_what_the_executor_computes():
    model = made(classifier())
    inputs = np.stack([v.inputs[0] for v in model.golden.vectors]).reshape(-1, 6, 5, 2)
    values = trace(model.program, [inputs])
    assert [layer.name for layer in model.golden.layers] == ["conv", "flat", "dense", "classes"]
    for layer in model.golden.layers:
        expected = tuple(binascii.crc32(row.tobytes()) for row in values[layer.tensor])
        assert layer.checks == expected
        assert layer.bytes == values[layer.tensor][0].nbytes
    (outputs,) = model.golden.outputs
    np.testing.assert_array_equal(outputs, values[model.program.model.outputs[0]])


def test_every_input_of_several_has_numbers_of_its_own():
    model = made(two_inputs())
    for vector in model.golden.vectors[3:]:
        left, right = vector.inputs
        assert (left != right).any()
    assert [output.shape for output in model.golden.outputs] == [(7, 7), (7, 7)]


def test_floats_are_small_steps():
    for vector in made(of_floats()).golden.vectors:
        (values,) = vector.inputs
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values * 32, np.round(values * 32))
        assert np.abs(values).max() <= 4


def test_vectors_survive_their_file_and_give_the_same_checksums():
    rows = np.random.default_rng(0).normal(size=(3, 6, 5, 2))
    model = made(classifier(), rows)
    packed = model.golden.packed()
    again = of_vectors(model.program, unpacked(packed))
    assert again.layers == model.golden.layers
    assert again.packed() == packed == golden(model.program, rows).packed()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04nothing", b"\x93NUMPY"])
def test_a_damaged_file_of_vectors_is_named(damage):
    with pytest.raises(StorageError, match=r"golden\.npz: holds no golden vectors: export anew"):
        unpacked(damage)


def test_a_cut_file_of_vectors_is_named():
    packed = made(classifier()).golden.packed()
    for end in range(0, len(packed), 97):
        with pytest.raises(StorageError, match="holds no golden vectors"):
            unpacked(packed[:end])


def test_draws_are_those_of_the_paper():
    # Marsaglia 2003 gives the triple (13, 17, 5); these follow from the definition by hand.
    assert list(draws(1, 2)) == [270369, 67634689]
    assert len(set(draws(7, 1000).tolist())) == 1000


@given(st.binary(max_size=64))
def test_a_checksum_is_that_of_zip(data):
    assert checksum(np.frombuffer(data, np.uint8)) == binascii.crc32(data)


def test_a_checksum_is_of_little_endian_bytes():
    assert checksum(np.array([1, -2], ">i2")) == checksum(np.array([1, -2], "<i2"))


def test_real_floats_are_quantised_half_away_from_zero():
    quantization = Quantization(np.array([0.5], np.float32), np.array([3]))
    values = np.array([0.25, -0.25, 0.2499, 100, -100, np.nan, np.inf, -np.inf, 0.75])
    stored = quantized(values, quantization, np.dtype(np.int8))
    assert stored.tolist() == [4, 2, 3, 127, -128, -128, 127, -128, 5]


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"'rows' have shape \[2, 3\]: .* 60 numbers"):
        made(classifier(), np.zeros((2, 3), np.int8))
    with pytest.raises(DataError, match="are int32, not int8"):
        made(classifier(), np.zeros((2, 6, 5, 2), np.int32))
    with pytest.raises(DataError, match="rows for 1 inputs, but the model has 2"):
        made(two_inputs(), np.zeros((2, 7), np.int8))
