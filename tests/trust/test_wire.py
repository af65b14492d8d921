import math
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedsys.errors import DataError
from fedsys.layout import Layout
from fedsys.trust import chunks, wire
from fedsys.trust.wire import Limits, decode, encode

SMALL = Limits(total=4096, tensor=1024, tensors=16, name=20, dimensions=4)

arrays = st.sampled_from(wire.TYPES).flatmap(
    lambda text: hnp.arrays(
        np.dtype(text), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    )
)
names = st.text("abcäß0._/ ", min_size=1, max_size=10).filter(
    lambda name: name.isprintable() and name
)


def same(given, found):
    assert list(given) == list(found)
    for name in given:
        one, other = given[name], found[name]
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes()  # bit by bit, NaN and all


@given(st.dictionaries(names, arrays, max_size=5))
def test_arrays_arrive_bit_by_bit(given):
    same(given, decode(encode(given)))


def test_the_bytes_are_those_written_by_hand():
    data = encode({"w": np.array([[1.0, -2.0]], np.float32), "n": np.array(7, np.uint8)})
    header = b"\x01\x00w\x00\x02" + struct.pack("<2Q", 1, 2) + b"\x01\x00n\x07\x00"
    assert data == (
        b"FSW1\x02\x00\x00\x00" + struct.pack("<I", len(header)) + header + bytes(-(12 + 26) % 8)
        + b"\x00\x00\x80\x3f\x00\x00\x00\xc0" + b"\x07" + bytes(7)
    )  # fmt: skip


def test_every_nan_keeps_its_payload():
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x80000000], np.uint32)
    found = decode(encode({"x": bits.view(np.float32)}))["x"]
    assert (found.view(np.uint32) == bits).all()


def test_empty_scalar_transposed_and_big_endian_arrays_arrive():
    given = {
        "none": np.zeros((0, 3), np.float32),
        "scalar": np.float64(2.5),
        "turned": np.arange(6, dtype=np.int32).reshape(2, 3).T,
        "steps": np.arange(10, dtype=np.float32)[::3],
        "big": np.array([1.5, -2], ">f8"),
    }
    found = decode(encode(given))
    for name, array in given.items():
        assert np.array_equal(found[name], array) and found[name].shape == np.shape(array)
    assert found["big"].dtype == np.dtype("<f8")
    assert decode(encode({})) == {}


def test_large_arrays_are_views_on_both_sides():
    big = np.ones(1_000_000, np.float32)
    data = encode({"big": big})
    tracemalloc.start()
    try:
        pieces = wire.parts({"big": big})
        found = decode(data)["big"]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100_000
    assert np.shares_memory(np.frombuffer(data, np.uint8), found) and not found.flags.writeable
    assert any(np.shares_memory(np.frombuffer(piece, np.uint8), big) for piece in pieces)


@pytest.mark.parametrize(
    "array", [np.array([object()]), np.array(["text"]), np.array([1j]), np.array([True]),
              np.array(["2026"], "M8[D]"), np.zeros(2, [("a", "f4")])],
)  # fmt: skip
def test_what_is_no_array_of_numbers_does_not_travel(array):
    with pytest.raises(DataError, match="do not travel"):
        encode({"x": array})


@pytest.mark.parametrize("name", ["", "a\nb", "\x1b[31m", "\u202e", "\x00"])
def test_names_that_a_log_should_not_see_are_refused(name):
    with pytest.raises(DataError, match="printable"):
        encode({name: np.zeros(1, np.float32)})


# --- lies ----------------------------------------------------------------------------------------


def message(described: bytes, numbers: bytes = b"", count: int = 1) -> bytes:
    data = b"FSW1" + struct.pack("<II", count, len(described)) + described
    return data + bytes(-len(data) % 8) + numbers


def described(name: bytes = b"x", code: int = 0, shape: tuple[int, ...] = (2,)) -> bytes:
    dimensions = struct.pack(f"<BB{len(shape)}Q", code, len(shape), *shape)
    return struct.pack("<H", len(name)) + name + dimensions


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "cut off"),
        (b"\x93NUMPY" + bytes(20), "begin with FSW1"),
        (b"\x80\x04\x95" + bytes(20), "begin with FSW1"),  # a pickle
        (message(described(shape=(2**34,)), bytes(8)), "length of 17179869184"),
        (message(described(shape=(2**20, 2**20)), bytes(8)), "length of"),
        (message(described(shape=(100, 100)), bytes(8)), "40000 bytes, of at most 1024"),
        (message(described(shape=(2**63, 0))), "length of"),
        (message(described(shape=(2**32, 2**32)), bytes(8)), "length of"),  # overflows to 0
        (message(described(shape=(4,)), bytes(8)), "beyond the end"),
        (message(described(shape=(2,)), bytes(16)), "8 bytes after the last"),
        (message(described(shape=(1,)), b"\0\0\0\0\0\0\0\1"), "something between"),
        (message(described(code=11), bytes(8)), "unknown type 11"),
        (message(described(shape=(1,) * 5), bytes(8)), "5 dimensions, of at most 4"),
        (message(described(b"a" * 21), bytes(8)), "name of 21 bytes"),
        (message(described(b"\xff"), bytes(8)), "not UTF-8"),
        (message(described(b"e\xcc\x81"), bytes(8)), "NFC"),
        (message(described(b"a\nb"), bytes(8)), "printable"),
        (message(described(b""), bytes(8)), "printable"),
        (message(described() * 2, bytes(16), count=2), "two arrays of one name"),
        (message(described(), bytes(8), count=2), "ends within"),
        (message(described() + b"\0\0", bytes(8)), "longer than what it describes"),
        (message(b"", count=2**32 - 1), "4294967295 arrays, of at most 16"),
        (b"FSW1" + struct.pack("<II", 0, 2**32 - 1), "does not fit"),
        (b"FSW1" + struct.pack("<II", 1, 60), "does not fit"),
        (b"FSW1" + struct.pack("<II", 1, 0), "ends within"),
        (bytes(5000), "5000 bytes, of at most 4096"),
    ],
)  # fmt: skip
def test_every_lie_is_refused_in_one_line(data, said):
    with pytest.raises(DataError, match=said) as error:
        decode(data, SMALL, "update")
    assert str(error.value).isprintable()


GOOD = encode({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.int8)})


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_a_message_cut_anywhere_is_refused(length):
    with pytest.raises(DataError):
        decode(GOOD[:length])


@given(
    st.binary(max_size=300)
    | st.binary(max_size=200).map(lambda rest: b"FSW1" + rest)
    | st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8)).map(
        lambda change: GOOD[: change[0]] + change[1] + GOOD[change[0] + len(change[1]) :]
    )
    | st.tuples(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 5)).map(
        lambda made: message(*made)
    )
)
@settings(max_examples=500)
def test_any_bytes_are_arrays_or_a_data_error_and_take_no_room(data):
    tracemalloc.start()
    try:
        found = decode(data, SMALL)
    except DataError:
        return
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 200_000
    assert encode(found) == data


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 10))
def test_a_declared_size_is_never_allocated(rows, columns, code):
    data = message(described(code=code, shape=(rows, columns)), bytes(64))
    tracemalloc.start()
    try:
        found = decode(data)
        assert sum(array.nbytes for array in found.values()) <= 64
    except DataError:
        pass
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most < 100_000


def test_limits_of_a_layout_let_its_update_in_and_nothing_larger():
    layout = Layout(("000.kernel", "001.bias"), ((300, 7), (7,)), 2, np.dtype("float32"))
    update = layout.named(np.ones(layout.length, np.float32))
    limits = wire.limits_for(layout)
    same(
        {**update, "loss": np.array(0.5)},
        decode(encode({**update, "loss": np.float64(0.5)}), limits),
    )
    with pytest.raises(DataError):
        decode(encode({**update, "more": np.ones((300, 8), np.float32)}), limits)
    twice = update | {f"own.{name}": array for name, array in update.items()}
    decode(encode(twice), wire.limits_for(layout, 2))


# --- in pieces -----------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=5000), max_size=5), st.integers(1024, 3000), st.randoms())
def test_pieces_in_any_order_are_the_message(parts, size, random):
    whole = chunks.manifest(parts, size)
    pieces = list(enumerate(chunks.cut(parts, size)))
    assert len(pieces) == whole.pieces and b"".join(p for _, p in pieces) == b"".join(parts)
    random.shuffle(pieces)
    assembly = chunks.Assembly(chunks.Manifest.of(whole.table()), 10**6)
    for number, piece in pieces + pieces[:1]:
        assembly.put(number, piece)
    assert assembly.finish() == b"".join(parts)


def test_a_hundred_megabytes_are_held_once():
    given = {"w": np.arange(25_000_000, dtype=np.float32)}
    tracemalloc.start()
    try:
        parts = wire.parts(given)
        assembly = chunks.Assembly(chunks.manifest(parts), 10**9)
        for number, piece in enumerate(chunks.cut(parts)):
            assembly.put(number, piece)
        found = decode(assembly.finish())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.array_equal(found["w"], given["w"])
    assert most < 1.2 * given["w"].nbytes


def assembly(data: bytes = b"x" * 2500, **changed) -> chunks.Assembly:
    whole = chunks.manifest([data], 1024).table() | changed
    return chunks.Assembly(chunks.Manifest.of(whole), 5000)


def test_a_message_larger_than_allowed_is_refused_before_its_first_piece():
    with pytest.raises(DataError, match="5001 bytes, of at most 5000"):
        assembly(length=5001)


def test_room_is_taken_when_a_piece_is_there():
    tracemalloc.start()
    try:
        chunks.Assembly(chunks.Manifest(10**9, chunks.PIECE, "0" * 64), 10**9)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "number, piece, said",
    [(3, b"x" * 1024, "no piece"), (-1, b"x" * 1024, "no piece"), (0, b"x" * 1023, "1023 bytes"),
     (2, b"x" * 1024, "not 452"), (0, b"", "0 bytes")],
)  # fmt: skip
def test_pieces_that_do_not_fit_are_refused(number, piece, said):
    with pytest.raises(DataError, match=said):
        assembly().put(number, piece)


def test_missing_damaged_and_different_pieces_are_refused():
    one = assembly()
    one.put(0, b"x" * 1024)
    with pytest.raises(DataError, match="2 of 3 pieces are missing"):
        one.finish()
    with pytest.raises(DataError, match="came twice and differs"):
        one.put(0, b"y" * 1024)
    one.put(1, b"y" * 1024)
    one.put(2, b"x" * 452)
    with pytest.raises(DataError, match="SHA-256"):
        one.finish()


@pytest.mark.parametrize(
    "change",
    [{"length": -1}, {"length": 1.0}, {"length": True}, {"piece": 0}, {"piece": 1023},
     {"piece": 2**40}, {"sha256": "0" * 63}, {"sha256": "G" * 64}, {"sha256": 0}, {"more": 1}],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense_is_refused(change):
    with pytest.raises(DataError):
        assembly(**change)


def test_an_empty_message_has_no_pieces():
    assert bytes(assembly(b"").finish()) == b""
    assert math.isclose(chunks.manifest([], 1024).pieces, 0)
