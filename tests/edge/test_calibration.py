"""Federated calibration: the same bytes as on one machine, and what keeps odd clients out."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.edge.calibration.federated import (
    Collector,
    Gate,
    Reason,
    Refused,
    calibrate,
    calibrate_clients,
    envelope,
    federated_calibration,
    message,
)
from fedsys.edge.calibration.histogram import SHARE, Histogram
from fedsys.edge.calibration.merges import Envelope, Median, Trimmed
from fedsys.edge.calibration.ranges import activations
from fedsys.edge.conversion.quantize import finished, quantize_here
from fedsys.errors import DataError, QuorumError, UsageError
from fedsys.partition import Partition

from . import zoo

SKEWED = ("dense", "conv1d", "residual", "mobilenet_v1", "pooling", "prelu")


def skewed_clients(name: str, clients: int = 5) -> list[np.ndarray]:
    """Rows of clients whose features are scaled and shifted differently; the third has none."""
    rng = np.random.default_rng(3)
    rows = []
    for number, gain in enumerate(rng.uniform(0.3, 2.5, clients)):
        own = zoo.rows(name, 0 if number == 2 else 3 + number, seed=number + 1)
        rows.append((own * gain + 0.3 * number).astype(np.float32))
    return rows


def central(model: bytes, rows: np.ndarray) -> tuple[dict[str, tuple[float, float]], bytes]:
    """Ranges and int8 model of the quantizer's own min-max calibration on all rows together."""
    from ai_edge_quantizer import calibrator, quantizer, recipe, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    recipes = recipe_manager.RecipeManager()
    recipes.load_quantization_recipe(recipe.static_wi8_ai8())
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
        own = calibrator.Calibrator(model, qsv_update_func=qsv_utils.min_max_update)
        (key, ends), *_ = own.get_signature_list().items()
        own.calibrate({key: [{ends["inputs"][0]: row[None]} for row in rows]}, recipes)
    found = own.get_model_qsvs()
    ranges = {name: (q["min"].item(), q["max"].item()) for name, q in found.items()}
    working = quantizer.Quantizer(model, recipe.static_wi8_ai8())
    made = working.quantize(found, enable_progress_bar=False, enable_progress_report=False)
    return ranges, finished(bytes(made.quantized_model), calibrate(model, rows), "int8")


# --- the envelope --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")  # the quantizer's, of its own doing
@pytest.mark.parametrize("name", SKEWED)
def test_federated_is_byte_identical_to_central(name):
    model, clients = zoo.floating(name), skewed_clients(name)
    found = federated_calibration(model, clients)
    ranges, whole = central(model, np.concatenate(clients))
    assert {key: found.ranges[key] for key in ranges} == ranges
    assert quantize_here(model, found.ranges, "int8") == whole
    assert (found.clients, found.empty, found.refused) == (4, 1, ())
    assert found.rows == sum(map(len, clients))
    assert found.payload == 8 * len(activations(model))
    alone = federated_calibration(model, clients[:1])
    assert quantize_here(model, alone.ranges, "int8") != whole


def test_the_order_of_clients_changes_nothing():
    model, clients = zoo.floating("residual"), skewed_clients("residual")
    assert (
        federated_calibration(model, clients).ranges
        == federated_calibration(model, clients[::-1]).ranges
    )


def test_envelope_of_parts_is_the_range_of_the_whole():
    model, rows = zoo.floating("dense"), zoo.rows("dense", 9)
    parts = [calibrate(model, part) for part in (rows[:4], rows[4:4], rows[4:])]
    assert parts[1] == {}
    assert envelope(parts) == calibrate(model, rows)
    with pytest.raises(DataError, match="no ranges"):
        envelope([{}, {}])
    with pytest.raises(DataError, match="different models: 'b'"):
        envelope([{"a": (0, 1)}, {"a": (0, 1), "b": (0, 1)}])


def test_ranges_hold_every_activation_that_is_read():
    model = zoo.floating("lstm_unrolled")
    ranges = calibrate(model, zoo.rows("lstm_unrolled", 4))
    assert list(ranges) == list(activations(model))
    assert ranges["rows"] == (
        zoo.rows("lstm_unrolled", 4).min().item(),
        zoo.rows("lstm_unrolled", 4).max().item(),
    )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.zeros((3, 19)), "rows of shape (19,) for a model that reads (20,)"),
        (np.zeros((20,)), "rows of shape () for"),
        (np.full((3, 20), np.nan), "row 0 has a NaN"),
        (np.where(np.arange(40).reshape(2, 20) == 33, np.inf, 0), "row 1 has a NaN or infinite"),
        (np.array([["a"] * 20]), "must be numbers"),
        ({"other": np.zeros((1, 20))}, "input 'rows' are missing"),
        (np.full((1, 20), 3e38), "not a number: the weights or the data are too large"),
    ],
)
def test_rows_that_do_not_fit_are_named(rows, said):
    with pytest.raises(DataError) as error:
        calibrate(zoo.floating("dense"), rows)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


# --- the gate ------------------------------------------------------------------------------------


def test_gate_names_what_is_wrong():
    gate = Gate(["a", "b"], Envelope(), limit=100)

    def reason(*ends: float) -> tuple[Reason, str]:
        with pytest.raises(Refused) as refused:
            gate.admit(np.array(ends, "<f4").tobytes())
        return refused.value.reason, refused.value.detail

    assert gate.admit(np.array([-1, 2, 3, 3], "<f4").tobytes()).tolist() == [[-1, 2], [3, 3]]
    assert reason(0, 1, 0, np.nan) == (Reason.FINITE, "b")
    assert reason(-np.inf, 1, 0, 1) == (Reason.FINITE, "a")
    assert reason(0, 1, 1, 0) == (Reason.ORDER, "b: 1 above 0")
    assert reason(-101, 1, 0, 1) == (Reason.MAGNITUDE, "a: 101")
    assert reason(0, 1) == (Reason.SIZE, "8 bytes, not 16")


def test_refused_clients_are_named_and_counted():
    model, clients = zoo.floating("dense"), skewed_clients("dense")
    honest = federated_calibration(model, clients)
    collector = Collector(model)
    for number, rows in enumerate(clients):
        collector.hear(number, message(model, rows))
    size = honest.payload // 4
    assert not collector.hear(7, np.full(size, np.nan, "<f4").tobytes())
    assert not collector.hear(8, b"short")
    found = collector.close(quorum=0.5)
    assert found.ranges == honest.ranges
    assert [(each.client, each.reason) for each in found.refused] == [
        (7, Reason.FINITE),
        (8, Reason.SIZE),
    ]
    assert found.refusals == {"not finite": 1, "wrong size": 1}
    assert found.table()["refused"] == found.refusals
    with pytest.raises(QuorumError, match="4 of 6 clients' ranges were admitted, with a quorum"):
        collector.close(quorum=0.9)


def test_a_client_with_unfit_rows_does_not_end_the_calibration():
    model, clients = zoo.floating("dense"), skewed_clients("dense")
    spoiled = clients[1].copy()
    spoiled[0, 0] = np.nan
    found = federated_calibration(model, [clients[0], spoiled, *clients[2:]])
    assert [(each.client, each.reason) for each in found.refused] == [(1, Reason.ROWS)]
    assert "NaN" in found.refused[0].detail
    assert found.clients == 3


def test_nobody_with_rows_is_no_quorum():
    with pytest.raises(QuorumError, match="no client has rows"):
        federated_calibration(zoo.floating("dense"), [np.zeros((0, 20))])


def test_an_unknown_rule_is_named():
    with pytest.raises(UsageError, match="did you mean 'trimmed'"):
        federated_calibration(zoo.floating("dense"), [], "trimed:1")


# --- rules that bound a client --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "factor"), [("trimmed:1", 1), ("median:2", 3), ("histogram:8,0.6", 1)]
)
def test_one_poisoner_is_bounded(rule, factor):
    """However far out a client lies, ranges stay within a factor of the honest clients' own."""
    model, name = zoo.floating("dense"), "dense"
    clients = [zoo.rows(name, 12, seed) for seed in range(6)]
    honest = federated_calibration(model, clients, "envelope").ranges
    poisoned = [*clients, zoo.rows(name, 12, 6) * 5000]
    exposed = federated_calibration(model, poisoned, "envelope").ranges
    bounded = federated_calibration(model, poisoned, rule).ranges
    for tensor in ("rows", "hidden/MatMul"):
        assert exposed[tensor][1] > 1000 * honest[tensor][1]
    for tensor, (low, high) in honest.items():
        assert bounded[tensor][1] - bounded[tensor][0] <= factor * (high - low)


ends = st.integers(1, 7).flatmap(
    lambda clients: st.lists(
        st.tuples(st.floats(-100, 100, width=32), st.floats(0, 100, width=32)),
        min_size=clients,
        max_size=clients,
    )
)


@given(ends, st.integers(0, 3), st.floats(1, 5))
@settings(deadline=None)
def test_bounded_rules_stay_within_the_envelope(pairs, most, times):
    """Each gives an interval within the envelope, and the loosest setting gives the envelope."""
    each = np.array([[(low, low + span)] for low, span in pairs], np.float32)
    widest = Envelope().merge(each)
    for rule in (Trimmed(most), Median(times)):
        ((low, high),) = rule.merge(each)
        assert low <= high
        assert widest[0, 0] <= low and high <= widest[0, 1]
    assert (Trimmed(0).merge(each) == widest).all()


@given(ends, st.integers(0, 2), st.integers(0, 10**9))
@settings(deadline=None)
def test_trimming_ignores_as_many_liars(pairs, liars, seed):
    """Whatever up to `most` clients say, the range ends where honest ones do."""
    each = np.array([[(low, low + span)] for low, span in pairs], np.float32)
    rng = np.random.default_rng(seed)
    lies = np.sort(rng.normal(0, 1e4, (liars, 1, 2)).astype(np.float32), axis=2)
    if len(each) <= liars:
        return
    ((low, high),) = Trimmed(liars).merge(np.concatenate([each, lies]))
    assert each[:, 0, 0].min() <= low <= each[:, 0, 0].max()
    assert each[:, 0, 1].min() <= high <= each[:, 0, 1].max()


# --- histograms ----------------------------------------------------------------------------------


def test_histogram_ranges_hold_the_envelope_and_little_more():
    model, clients = zoo.floating("conv1d"), skewed_clients("conv1d")
    exact = federated_calibration(model, clients).ranges
    for resolution in (4, 8):
        found = federated_calibration(model, clients, Histogram(resolution))
        assert found.payload == 4 * len(exact) * Histogram(resolution).buckets
        for name, (low, high) in exact.items():
            least, most = found.ranges[name]
            factor = 2 ** (1 / resolution)
            assert least <= low and high <= most
            assert abs(least) <= abs(low) * factor * (1 + 1e-6) or abs(low) < 2**-16
            assert abs(most) <= abs(high) * factor * (1 + 1e-6) or abs(high) < 2**-16


@given(st.lists(st.floats(-(2.0**15), 2.0**15, width=32), min_size=1), st.sampled_from([1, 4, 8]))
@settings(deadline=None)
def test_each_value_lies_within_its_bucket(values, resolution):
    rule = Histogram(resolution)
    for value in values:
        (bucket,) = np.flatnonzero(rule.count(np.array([value])))
        below, above = rule.edges[bucket], rule.edges[bucket + 1]
        assert below <= value <= above
    counts = rule.count(np.array(values))
    assert counts.sum() == len(values)
    ((low, high),) = rule.ranges(counts[None])
    tiny = 2.0**-16
    assert low <= min(values) + tiny and max(values) - tiny <= high


def test_counts_add_up():
    """The sum of clients' messages says what one histogram of all of them says."""
    model, clients = zoo.floating("dense"), skewed_clients("dense")
    rule = Histogram(4, alike=False)
    sent = [message(model, rows, rule) for rows in clients]
    assert sent[2] is None
    total = sum(np.frombuffer(each, "<u4").astype(np.int64) for each in sent if each)
    whole = np.frombuffer(message(model, np.concatenate(clients), rule), "<u4")
    assert (total == whole).all()


@given(st.lists(st.integers(0, 2**20), min_size=2, max_size=40).filter(any))
@settings(deadline=None)
def test_shares_have_one_sum_and_lose_no_bucket(counts):
    table = np.array([counts], np.int64)
    scaled = Histogram().shared(table)
    assert scaled.sum() == SHARE
    assert ((scaled > 0) == (table > 0)).all()


def test_keep_clips_the_tails():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=10_000), [900.0, -700.0]])
    counts = Histogram().count(values)[None]
    assert Histogram().ranges(counts)[0].tolist() == pytest.approx([-700, 900], rel=0.1)
    low, high = Histogram(keep=0.999).ranges(counts)[0]
    assert -4 < low < -3 and 3 < high < 4
    with pytest.raises(ValueError, match="without counts"):
        Histogram().ranges(np.zeros((1, Histogram().buckets), int))


def test_gate_looks_into_counts():
    rule = Histogram(2)
    gate = Gate(["a"], rule, limit=1000)

    def refused(counts: np.ndarray) -> Reason:
        with pytest.raises(Refused) as refused:
            gate.admit(counts.astype("<u4").tobytes())
        return refused.value.reason

    good = np.zeros(rule.buckets)
    good[rule.side] = SHARE
    assert gate.admit(good.astype("<u4").tobytes()).sum() == SHARE
    assert refused(good * 2) == Reason.COUNTS
    assert refused(good[1:]) == Reason.SIZE
    far = np.zeros(rule.buckets)
    far[-1] = SHARE
    assert refused(far) == Reason.MAGNITUDE
    loose = Gate(["a"], Histogram(2, alike=False))
    assert loose.admit((good * 2).astype("<u4").tobytes()).sum() == 2 * SHARE


def test_values_beyond_the_last_bucket_count_in_it():
    rule = Histogram(1)
    counts = rule.count(np.array([1e9, -1e9]))
    assert counts[0] == counts[-1] == 1


# --- cohorts -------------------------------------------------------------------------------------


def test_a_cohort_of_a_partition_is_drawn_from_the_seed():
    model = zoo.floating("dense")
    inputs = zoo.rows("dense", 30)
    partition = Partition.of(np.arange(30) % 6, 6)
    everyone = calibrate_clients(model, inputs, partition, seed=1)
    assert everyone.ranges == calibrate(model, inputs)
    assert (everyone.clients, everyone.rows) == (6, 30)
    few = calibrate_clients(model, inputs, partition, seed=1, clients=2, rows=3)
    assert (few.clients, few.rows) == (2, 6)
    assert few == calibrate_clients(model, inputs, partition, seed=1, clients=2, rows=3)
    seeds = [calibrate_clients(model, inputs, partition, seed=s, clients=2) for s in range(5)]
    assert len({str(each.ranges) for each in seeds}) > 1


def test_clients_may_be_a_function():
    model = zoo.floating("dense")
    found = federated_calibration(
        model, lambda client: zoo.rows("dense", client), cohort=[0, 2, 3], rule="envelope"
    )
    assert (found.clients, found.empty, found.rows) == (2, 1, 5)
    assert "extremes of its data" in found.reveals


def test_a_client_needs_no_tensorflow(tmp_path):
    """Neither to calibrate nor to evaluate."""
    (tmp_path / "float.tflite").write_bytes(zoo.floating("digits"))
    (tmp_path / "int8.tflite").write_bytes(zoo.int8("digits"))
    ran = subprocess.run(
        [sys.executable, "-c", CLIENT], cwd=tmp_path, capture_output=True, text=True
    )
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


CLIENT = """
import pathlib, sys
import numpy as np
from fedsys.edge.calibration.federated import message
from fedsys.edge.integers.evaluate import chip_answer, score_client
from fedsys.edge.integers.lower import lower
from fedsys.edge.tflite.reader import read
from fedsys.objectives import objective

model, rows = pathlib.Path("float.tflite").read_bytes(), np.ones((2, 14, 14, 1), "float32")
assert len(message(model, rows)) % 8 == 0
answer = chip_answer(lower(read(pathlib.Path("int8.tflite"))))
assert score_client(answer, model, objective("classes"), rows, np.zeros(2, int)).rows == 2
print([name for name in ("tensorflow", "keras", "ai_edge_quantizer") if name in sys.modules])
"""
