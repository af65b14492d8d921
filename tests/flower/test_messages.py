"""Our instructions and answers as Flower's messages, and everything that is not one of them."""

from __future__ import annotations

import io

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("flwr", reason="flwr is not installed")

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedsys.admission import Gate, Reason, Refused, Update
from fedsys.errors import UsageError
from fedsys.flower.rounds.messages import (
    ANSWER,
    ARRAYS,
    INSTRUCTION,
    OWN,
    UPDATE,
    Answer,
    Broadcast,
    Code,
    addressee,
    answered,
    failed,
    read_answer,
    read_array,
    read_instruction,
    sent_fields,
    state_of,
)
from fedsys.layout import Layout
from fedsys.strategies import FedAdam, FedAvg, FedAvgM, FedProx, Scaffold

LAYOUT = Layout(("000.kernel", "001.bias", "002.mean"), ((3, 2), (2,), (4,)), 2, np.dtype("f4"))
RNG = np.random.default_rng(0)
ANCHOR = RNG.normal(size=LAYOUT.length).astype("f4")
OF_OWN = RNG.normal(size=LAYOUT.parameters).astype("f4")
STRATEGIES = [FedAvg(), FedProx(0.1), FedAvgM(), FedAdam(), Scaffold()]


def broadcast(strategy=None, round=3):
    strategy = strategy or FedAvg()
    state = strategy.begin(ANCHOR[: LAYOUT.parameters])
    if isinstance(strategy, Scaffold):
        state = state._replace(control=OF_OWN * 2)
    return Broadcast.of("digits", round, ANCHOR, strategy, state), state


def answer(own=None, weight=7.0, loss=0.5):
    return Answer(Update(LAYOUT.named(ANCHOR * 2), weight), loss, own)


def sent(own=None, **changes):
    """What a client sends, and a broadcast that it answers."""
    asked = broadcast()[0]
    instruction = read_instruction(asked.to(5), LAYOUT, FedAvg())
    content = answered(instruction, answer(own))
    return RecordDict({**content, **changes}), asked


def refusal(content, asked=None):
    with pytest.raises(Refused) as caught:
        read_answer(content, LAYOUT, asked or broadcast()[0], 5)
    return caught.value


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_an_instruction_arrives_as_it_was_meant(strategy):
    asked, state = broadcast(strategy)
    content = asked.to(5, own_round=2)
    got = read_instruction(content, LAYOUT, strategy)
    assert addressee(content) == ("digits", 5)
    assert (got.experiment, got.round, got.client, got.own_round) == ("digits", 3, 5, 2)
    assert got.own is None
    np.testing.assert_array_equal(got.anchor, ANCHOR)
    there = state_of(got, strategy, LAYOUT.parameters)
    for vector, same in zip(
        strategy.send(state, OF_OWN), strategy.send(there, OF_OWN), strict=True
    ):
        np.testing.assert_array_equal(vector, same)


def test_nothing_of_the_servers_is_sent_that_clients_do_not_use():
    assert [len(broadcast(strategy)[0].arrays) for strategy in STRATEGIES] == [1, 1, 1, 1, 2]
    assert list(broadcast(Scaffold())[0].arrays) == ["anchor", "state.control"]


def test_an_own_vector_travels_where_it_is_asked_to():
    content = broadcast(Scaffold())[0].to(5, own=OF_OWN)
    np.testing.assert_array_equal(read_instruction(content, LAYOUT, Scaffold()).own, OF_OWN)


def test_a_strategy_that_sends_what_only_it_knows_is_refused():
    class Halving(Scaffold):
        def send(self, state, own):
            return own, state.control / 2

    state = Halving().begin(ANCHOR[: LAYOUT.parameters])
    with pytest.raises(UsageError, match="Halving: sends a vector that is no field"):
        sent_fields(Halving(), state)


@pytest.mark.parametrize("own", [None, OF_OWN])
def test_an_answer_arrives_as_it_was_sent(own):
    content, asked = sent(own)
    got = read_answer(content, LAYOUT, asked, 5)
    assert (got.update.weight, got.loss) == (7.0, 0.5)
    np.testing.assert_array_equal(Gate(LAYOUT).admit(got.update, 7.0), ANCHOR * 2)
    if own is None:
        assert got.own is None
    else:
        np.testing.assert_array_equal(got.own, own)


def test_arrays_are_read_where_they_lie():
    array = Array(ANCHOR)
    view = read_array("x", array, ANCHOR.dtype, ANCHOR.shape)
    assert np.shares_memory(view, np.frombuffer(array.data, np.uint8))
    assert not view.flags.writeable


@given(
    hnp.arrays(
        st.sampled_from([np.dtype(kind) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")]),
        hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
    ),
    st.booleans(),
)
def test_every_array_that_numpy_writes_is_read(value, fortran):
    value = np.asfortranarray(value) if fortran else value
    got = read_array("x", Array(value), value.dtype, value.shape)
    np.testing.assert_array_equal(got, value)
    np.testing.assert_array_equal(read_array("x", Array(value), value.dtype, None), value)


@pytest.mark.parametrize("code", Code)
def test_a_failure_travels_as_a_code(code):
    asked = broadcast()[0]
    instruction = read_instruction(asked.to(5), LAYOUT, FedAvg())
    refused = refusal(failed(instruction, code), asked)
    assert (refused.reason, refused.detail) == (Reason.FAILED, str(code))


def test_a_client_that_could_not_read_its_instruction_cannot_say_which_it_was():
    assert refusal(failed(None, Code.INSTRUCTION)).reason is Reason.FORMAT


@pytest.mark.parametrize("text", ["<script>", 7, "x" * 500])
def test_codes_that_are_not_known_are_not_repeated(text):
    content, asked = sent()
    content[ANSWER]["code"] = text
    assert refusal(content, asked).detail == "gave a code that is not known"


@pytest.mark.parametrize("name, value", [
    ("round", 2), ("round", 3.0), ("client", 6), ("experiment", "other"), ("format", 2),
    ("weight", "7"), ("weight", True), ("weight", [1.0]), ("loss", b"0"), ("weight", 10**400),
])  # fmt: skip
def test_an_answer_to_something_else_or_without_numbers_is_refused(name, value):
    content, asked = sent()
    content[ANSWER][name] = value
    refused = refusal(content, asked)
    assert refused.reason is Reason.FORMAT and name in refused.detail


@pytest.mark.parametrize("record", [ANSWER, UPDATE])
def test_an_answer_without_a_part_is_refused(record):
    content, asked = sent()
    del content[record]
    assert record in refusal(content, asked).detail
    content[record] = MetricRecord({"x": 1})
    assert record in refusal(content, asked).detail


GOOD = Array(np.zeros((3, 2), "f4"))
ODD = {
    "wrong type": (Array(np.zeros((3, 2))), Reason.DTYPE),
    "other byte order": (Array(np.zeros((3, 2), ">f4")), Reason.DTYPE),
    "wrong shape": (Array(np.zeros((2, 3), "f4")), Reason.SHAPE),
    "too short": (Array("float32", (3, 2), "numpy.ndarray", GOOD.data[:-1]), Reason.SHAPE),
    "too long": (Array("float32", (3, 2), "numpy.ndarray", GOOD.data * 2), Reason.SHAPE),
    "nothing": (Array("float32", (3, 2), "numpy.ndarray", b""), Reason.FORMAT),
    "a pickle": (Array("object", (1,), "numpy.ndarray", b"\x80\x04K\x01."), Reason.FORMAT),
    "other bytes": (Array("float32", (3, 2), "torch", bytes(24)), Reason.FORMAT),
}  # fmt: skip


@pytest.mark.parametrize("array, reason", ODD.values(), ids=ODD)
def test_an_array_that_is_not_the_expected_one_is_refused(array, reason):
    content, asked = sent()
    content[UPDATE]["000.kernel"] = array
    refused = refusal(content, asked)
    assert refused.reason is reason and "000.kernel" in refused.detail


def test_an_array_of_objects_is_never_unpickled():
    class Mine:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    held = io.BytesIO()
    np.save(held, np.array([Mine()], object), allow_pickle=True)
    array = Array("object", (1,), "numpy.ndarray", held.getvalue())
    with pytest.raises(Refused) as caught:
        read_array("x", array, np.dtype("f4"), (1,))
    assert caught.value.reason is Reason.FORMAT


def test_a_header_that_promises_much_allocates_nothing():
    written = Array(np.zeros((3, 2), "f4")).data
    huge = written.replace(b"(3, 2), }" + b" " * 20, b"(999999999999999, 999), }    ")
    assert len(huge) == len(written)
    with pytest.raises(Refused) as caught:
        read_array("x", Array("float32", (1,), "numpy.ndarray", huge), np.dtype("f4"), None)
    assert caught.value.reason is Reason.SHAPE


def test_missing_unknown_and_wrong_vectors_are_refused():
    content, asked = sent(OF_OWN)
    content[UPDATE]["extra"] = Array(np.zeros(1, "f4"))
    assert refusal(content, asked).reason is Reason.EXTRA
    content, asked = sent(OF_OWN, **{OWN: ArrayRecord({"mine": Array(OF_OWN)})})
    assert refusal(content, asked).reason is Reason.MISSING
    content, asked = sent(OF_OWN, **{OWN: ArrayRecord({"own": Array(ANCHOR)})})
    assert refusal(content, asked).reason is Reason.SHAPE
    content, asked = sent()
    del content[UPDATE]["001.bias"]
    with pytest.raises(Refused, match="missing key"):
        Gate(LAYOUT).admit(read_answer(content, LAYOUT, asked, 5).update, 7.0)


@pytest.mark.parametrize("name, value", [
    ("round", 0), ("round", "1"), ("client", -1), ("own", -2), ("own", 2**70), ("format", 9),
    ("experiment", 3), ("experiment", "x" * 1000), ("round", True),
])  # fmt: skip
def test_an_instruction_with_odd_numbers_is_refused(name, value):
    content = broadcast()[0].to(5)
    content[INSTRUCTION][name] = value
    with pytest.raises(Refused, match=name):
        read_instruction(content, LAYOUT, FedAvg())


def test_an_instruction_without_what_the_strategy_needs_is_refused():
    content = broadcast(FedAvg())[0].to(5)
    with pytest.raises(Refused, match=r"state\.control"):
        read_instruction(content, LAYOUT, Scaffold())
    content = broadcast(Scaffold())[0].to(5, own=OF_OWN)
    del content[ARRAYS]["own"]
    with pytest.raises(Refused, match="own"):
        read_instruction(content, LAYOUT, Scaffold())


SCALARS = st.one_of(
    st.integers(-(2**80), 2**80), st.floats(), st.text(max_size=20), st.booleans(),
    st.binary(max_size=20), st.lists(st.floats(), max_size=3), st.lists(st.text(), max_size=3),
)  # fmt: skip
NPY = st.builds(
    lambda head, body: b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + body,
    st.one_of(
        st.binary(max_size=80),
        st.builds(
            lambda descr, order, shape: str(
                {"descr": descr, "fortran_order": order, "shape": shape}
            ).encode() + b"\n",
            st.sampled_from(["<f4", ">f8", "|O", "<U3", [("a", "<f4")]]),
            st.booleans(),
            st.one_of(st.tuples(st.integers(-1, 10**20)), st.just((3, 2)), st.text(max_size=3)),
        ),
    ),
    st.binary(max_size=60),
)  # fmt: skip
FLWR_ARRAYS = st.builds(
    Array,
    st.text(max_size=9),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.sampled_from(["numpy.ndarray", "torch", ""]),
    st.one_of(NPY, st.binary(max_size=200)),
)
NAMES = st.one_of(
    st.sampled_from([*LAYOUT.names, "own", "anchor", "weight", "loss", "round", "code", "format"]),
    st.text(max_size=9),
)
RECORDS = st.one_of(
    st.dictionaries(NAMES, SCALARS, max_size=6).map(ConfigRecord),
    st.dictionaries(NAMES, FLWR_ARRAYS, max_size=4).map(ArrayRecord),
    st.dictionaries(NAMES, st.floats(), max_size=4).map(MetricRecord),
)
PARTS = st.sampled_from([INSTRUCTION, ARRAYS, ANSWER, UPDATE, OWN])


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(PARTS, RECORDS), st.dictionaries(NAMES, SCALARS), st.booleans())
def test_whatever_arrives_is_an_answer_or_refused(records, said, good):
    content, asked = sent(OF_OWN)
    content.update(records)
    if good and isinstance(content[ANSWER], ConfigRecord):
        content[ANSWER].update(said)
    for read in (
        lambda: read_answer(content, LAYOUT, asked, 5),
        lambda: read_instruction(content, LAYOUT, Scaffold()),
        lambda: addressee(content),
    ):
        try:
            got = read()
        except Refused as refused:
            words = str(refused)
        else:
            words = ""
            if isinstance(got, Answer):
                assert all(t.dtype == LAYOUT.dtype for t in got.update.tensors.values())
        assert len(words) < 400


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.data())
def test_damaged_arrays_are_read_or_refused(noise, data):
    written = bytearray(Array(ANCHOR).data)
    for _ in range(data.draw(st.integers(0, 4))):
        written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(written)))
    for content in (bytes(written), bytes(written[:cut]), bytes(written[:cut]) + noise, noise):
        array = Array("float32", (1,), "numpy.ndarray", content)
        try:
            got = read_array("x", array, LAYOUT.dtype, None)
        except Refused:
            continue
        np.testing.assert_array_equal(got, array.numpy())
