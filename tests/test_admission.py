"""The admission gate: a good update passes exactly, and nothing else passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedsys.admission import Gate, Reason, Refused, Update
from fedsys.layout import Layout

LAYOUT = Layout(("000.kernel", "001.bias", "002.mean"), ((3, 2), (2,), ()), 2, np.dtype("float32"))
GATE = Gate(LAYOUT)
GOOD = Update(LAYOUT.named(np.arange(9, dtype=np.float32)), 5.0)


def changed(name, tensor):
    return replace(GOOD, tensors={**GOOD.tensors, name: tensor})


def without(name):
    return replace(GOOD, tensors={key: t for key, t in GOOD.tensors.items() if key != name})


def spiked(value, name="001.bias"):
    tensor = GOOD.tensors[name].copy()
    tensor.flat[0] = value
    return changed(name, tensor)


BAD = {
    "no tensors": (Update({}, 5.0), Reason.MISSING, "000.kernel"),
    "one missing": (without("001.bias"), Reason.MISSING, "001.bias"),
    "one too many": (changed("extra", np.zeros(1, np.float32)), Reason.EXTRA, "extra"),
    "a long name": (changed("x" * 1000, np.zeros(1, np.float32)), Reason.EXTRA, "x" * 80),
    "another name": (
        replace(GOOD, tensors={"0.kernel": GOOD.tensors["000.kernel"]}),
        Reason.MISSING,
        "000.kernel",
    ),
    "transposed": (
        changed("000.kernel", np.zeros((2, 3), np.float32)),
        Reason.SHAPE,
        "000.kernel is (2, 3), not (3, 2)",
    ),
    "flat": (
        changed("000.kernel", np.zeros(6, np.float32)),
        Reason.SHAPE,
        "000.kernel is (6,), not (3, 2)",
    ),
    "one that would broadcast": (
        changed("001.bias", np.zeros((), np.float32)),
        Reason.SHAPE,
        "001.bias is (), not (2,)",
    ),
    "a vector for a number": (
        changed("002.mean", np.zeros(1, np.float32)),
        Reason.SHAPE,
        "002.mean is (1,), not ()",
    ),
    "doubles": (
        changed("001.bias", np.zeros(2)),
        Reason.DTYPE,
        "001.bias is float64, not float32",
    ),
    "halves": (
        changed("001.bias", np.zeros(2, np.float16)),
        Reason.DTYPE,
        "001.bias is float16, not float32",
    ),
    "whole numbers": (
        changed("001.bias", np.zeros(2, np.int32)),
        Reason.DTYPE,
        "001.bias is int32, not float32",
    ),
    "objects": (
        changed("001.bias", np.array([None, None])),
        Reason.DTYPE,
        "001.bias is object, not float32",
    ),
    "bytes the other way round": (
        changed("001.bias", np.zeros(2, ">f4")),
        Reason.DTYPE,
        "001.bias is >f4, not float32",
    ),
    "NaN": (spiked(np.nan), Reason.FINITE, "001.bias"),
    "infinity": (spiked(np.inf), Reason.FINITE, "001.bias"),
    "minus infinity": (spiked(-np.inf), Reason.FINITE, "001.bias"),
    "a NaN buffer": (changed("002.mean", np.array(np.nan, "float32")), Reason.FINITE, "002.mean"),
    "no weight": (replace(GOOD, weight=0.0), Reason.WEIGHT, "0, enrolled with 5"),
    "less than no weight": (replace(GOOD, weight=-5.0), Reason.WEIGHT, "-5, enrolled with 5"),
    "a little too much": (replace(GOOD, weight=5.001), Reason.WEIGHT, "5.001, enrolled with 5"),
    "all the weight": (replace(GOOD, weight=np.inf), Reason.WEIGHT, "inf, enrolled with 5"),
    "a weight that is none": (replace(GOOD, weight=np.nan), Reason.WEIGHT, "nan, enrolled with 5"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_update_is_refused_with_its_reason_and_place(name):
    update, reason, detail = BAD[name]
    with pytest.raises(Refused) as refused:
        GATE.admit(update, 5.0)
    assert (refused.value.reason, refused.value.detail) == (reason, detail)
    assert str(refused.value) == f"{reason}: {detail}"


def test_a_good_update_passes_exactly_whatever_its_order():
    turned = replace(GOOD, tensors=dict(reversed(GOOD.tensors.items())))
    for update in (GOOD, turned):
        admitted = GATE.admit(update, 5.0)
        assert admitted.dtype == np.float32
        np.testing.assert_array_equal(admitted, np.arange(9))


@pytest.mark.parametrize("weight", [5.0, 1.0, 1e-9])
def test_a_weight_may_be_less_than_enrolled(weight):
    GATE.admit(replace(GOOD, weight=weight), 5.0)


def test_extreme_but_finite_numbers_pass():
    for value in (np.finfo(np.float32).max, np.finfo(np.float32).tiny, -0.0):
        admitted = GATE.admit(spiked(value), 5.0)
        assert admitted[6] == np.float32(value)


DTYPES = [
    np.dtype(t) for t in ("float16", "float32", "float64", "int64", "bool", "complex64", "U3")
]
TENSORS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, max_side=4))
)
KEYS = st.one_of(st.sampled_from(LAYOUT.names), st.text(max_size=5))


@given(
    st.lists(st.tuples(KEYS, TENSORS), max_size=3),
    st.sets(st.sampled_from(LAYOUT.names), max_size=2),
    st.floats(),
)
def test_whatever_passes_is_what_was_agreed(replaced, dropped, weight):
    """Random corruptions: refused, or of the layout, finite and in bounds."""
    tensors = {name: t for name, t in GOOD.tensors.items() if name not in dropped}
    update = Update({**tensors, **dict(replaced)}, weight)
    try:
        admitted = GATE.admit(update, 5.0)
    except Refused:
        return
    assert set(update.tensors) == set(LAYOUT.names)
    for name, shape in zip(LAYOUT.names, LAYOUT.shapes, strict=True):
        assert update.tensors[name].shape == shape and update.tensors[name].dtype == np.float32
    assert admitted.shape == (9,) and admitted.dtype == np.float32
    assert np.isfinite(admitted).all()
    assert 0 < weight <= 5


@given(
    arrays.arrays(np.float32, 9, elements=st.floats(width=32)), st.floats(0, 5, exclude_min=True)
)
def test_an_update_passes_unchanged_exactly_if_it_is_finite(vector, weight):
    update = Update(LAYOUT.named(vector), weight)
    if np.isfinite(vector).all():
        np.testing.assert_array_equal(GATE.admit(update, 5.0), vector)
    else:
        with pytest.raises(Refused, match="not finite"):
            GATE.admit(update, 5.0)
