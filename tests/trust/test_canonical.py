import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsys.errors import DataError
from fedsys.trust import canonical

VECTORS = [  # written by hand
    (None, b"null"),
    (True, b"true"),
    (0, b"0"),
    (-7, b"-7"),
    (2**63 - 1, b"9223372036854775807"),
    (1.0, b"1.0"),
    (0.1, b"0.1"),
    (-0.0, b"-0.0"),
    (1e22, b"1e+22"),
    (5e-324, b"5e-324"),
    ("", b'""'),
    ('a"\\\n\x00/', b'"a\\"\\\\\\n\\u0000/"'),
    ("\u00e9", b'"\xc3\xa9"'),
    ("e\u0301", b'"\xc3\xa9"'),  # an e and an accent become one letter
    ("\U0001f3e6", b'"\xf0\x9f\x8f\xa6"'),
    ([], b"[]"),
    ((1, [2, "x"]), b'[1,[2,"x"]]'),
    ({}, b"{}"),
    ({"b": 1, "a": {"d": None, "c": [1.5]}}, b'{"a":{"c":[1.5],"d":null},"b":1}'),
    ({"Z": 1, "a": 2, "\u00e4": 3}, b'{"Z":1,"a":2,"\xc3\xa4":3}'),
]

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize("value, text", VECTORS)
def test_values_have_the_one_text_written_by_hand(value, text):
    assert canonical.encode(value) == text
    assert canonical.encode(canonical.decode(text)) == text


@pytest.mark.parametrize(
    "value, said",
    [
        (math.nan, "finite"),
        ([math.inf], "finite"),
        (2**63, "64 bits"),
        ({1: 2}, "key"),
        ({"x": b"bytes"}, "bytes is no plain value"),
        ({"\u00e9": 1, "e\u0301": 2}, "two keys"),
        ("\ud800", "half a character"),
        ({"\udfff": 1}, "half a character"),
        ({1, 2}, "set is no plain value"),
    ],
)
def test_values_without_a_text_are_refused(value, said):
    with pytest.raises(DataError, match=said):
        canonical.encode(value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}', b'{"a":1,"a":2}', b'{"b":1,"a":2}', b'{"a": 1}', b"[1,2] ", b"\n1",
        b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1E5", b"1.50", b"-0", b"01", b"1e5",
        b'"\\u00e9"', b'"e\xcc\x81"', b'"\\/"', b'"\\ud800"', b"\xff", b"", b"{", b"\xef\xbb\xbf1",
        b"1" * 5000, b"9223372036854775808", b"[" * 100_000,
        b"[" * 40 + b"]" * 40, b"'a'", b"nul", b"{1:2}",
    ],
)  # fmt: skip
def test_other_spellings_are_refused(text):
    with pytest.raises(DataError) as error:
        canonical.decode(text)
    assert str(error.value).isprintable() and len(str(error.value)) < 200


def test_more_bytes_than_allowed_are_refused_unread():
    with pytest.raises(DataError, match="11 bytes, of at most 10"):
        canonical.decode(b"[" * 11, limit=10)


def test_a_table_is_asked_for_where_one_is_needed():
    with pytest.raises(DataError, match="request: not a table"):
        canonical.decode_table(b"[1]", "request")


@given(plain)
def test_every_plain_value_reads_back(value):
    text = canonical.encode(value)
    back = canonical.decode(text)
    assert canonical.encode(back) == text
    assert json.loads(text) == back


@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_bytes_are_a_value_or_a_data_error(data):
    try:
        value = canonical.decode(data)
    except DataError:
        return
    assert canonical.encode(value) == data
