import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytest.importorskip("flwr", reason="Flower is not installed")

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedsys.flower.app.copies import SharedArray, copied

KINDS = st.one_of(
    hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.boolean_dtypes(), hnp.complex_number_dtypes()
)
ARRAYS = hnp.arrays(KINDS, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))


@settings(deadline=None, max_examples=150)
@given(ARRAYS, st.booleans())
def test_a_shared_array_reads_as_the_array_it_was_made_of(values, fortran):
    array = Array(np.asfortranarray(values) if fortran else values)
    expected, found = array.numpy(), SharedArray.of(array).numpy()
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.flags.f_contiguous == expected.flags.f_contiguous
    assert found.flags.c_contiguous == expected.flags.c_contiguous
    assert found.flags.writeable and found.flags.owndata


def test_it_is_equal_to_an_array_and_pickles_as_one():
    array = Array(np.arange(3.0))
    shared = SharedArray.of(array)
    assert shared == array and array == shared and shared.data is array.data
    assert shared != Array(np.arange(4.0)) and shared != 3
    assert type(pickle.loads(pickle.dumps(shared))) is Array
    assert pickle.loads(pickle.dumps(shared)) == array
    assert shared.object_id == array.object_id
    assert type(ArrayRecord({"a": shared})["a"]) is Array


def test_bytes_that_are_no_npy_file_are_refused_as_flower_does():
    other = SharedArray.of(Array("float32", (1,), "something.else", b"12345678901234"))
    with pytest.raises(TypeError, match="Unsupported serialization type"):
        other.numpy()
    broken = SharedArray.of(Array("float32", (1,), "numpy.ndarray", b"no npy"))
    with pytest.raises(ValueError):  # noqa: PT011
        broken.numpy()


def test_an_array_of_a_kind_of_its_own_stays_what_it_is():
    class Mine(Array):
        pass

    mine = Mine(np.ones(2))
    copy = copied(RecordDict({"a": ArrayRecord({})}))
    assert list(copy) == ["a"]
    record = ArrayRecord()
    record["x"] = mine
    found = copied(RecordDict({"a": record}))["a"]["x"]
    assert type(found) is Mine and found is not mine and found.data is mine.data


def test_nothing_done_to_a_copy_reaches_the_original():
    records = RecordDict(
        {
            "arrays": ArrayRecord([np.ones(2), np.zeros(1)]),
            "config": ConfigRecord({"words": ["a"], "n": 1}),
            "metrics": MetricRecord({"values": [1.0], "x": 2}),
        }
    )
    copy = copied(records)
    assert copy == records
    copy["config"]["words"].append("b")
    copy["metrics"]["values"][0] = 5.0
    copy["metrics"]["x"] = 7
    copy["arrays"]["0"].data = b""
    del copy["arrays"]["1"]
    del copy["config"]
    assert list(records) == ["arrays", "config", "metrics"]
    assert records["arrays"].to_numpy_ndarrays()[0].tolist() == [1, 1]
    assert list(records["config"]["words"]) == ["a"]
    assert dict(records["metrics"].items()) == {"values": [1.0], "x": 2}
    with pytest.raises(TypeError):
        copied(records)["metrics"]["x"] = "text"  # what goes in is still checked
