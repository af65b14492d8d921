"""Clients that misbehave on purpose: each is refused with its reason, and changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from fedsys.admission import Gate, Reason, Refused, Update
from fedsys.clients.faults import ATTACKS, FAULTS, KINDS, AnyFault, Fault, NotANumber
from fedsys.layout import Layout
from fedsys.local import Local
from fedsys.strategies import FedAvg, Scaffold

from .federations import Federation, by_sizes, linear_task

REASONS = {
    "nan": Reason.FINITE,
    "infinity": Reason.FINITE,
    "shape": Reason.SHAPE,
    "dtype": Reason.DTYPE,
    "missing": Reason.MISSING,
    "extra": Reason.EXTRA,
    "zero-weight": Reason.WEIGHT,
    "negative-weight": Reason.WEIGHT,
    "absurd-weight": Reason.WEIGHT,
}
# What befalls a client that sends no update at all: the engines and the deployment test these.
NO_UPDATE = {Reason.FAILED, Reason.FORMAT, Reason.LATE, Reason.LOST}
LAYOUT = Layout(("0.kernel", "1.bias"), ((4, 1), (1,)), 2, np.dtype("float32"))
HONEST = Update(LAYOUT.named(np.arange(5, dtype=np.float32)), 8.0)


def test_every_kind_of_fault_is_tested_here():
    assert set(REASONS) == set(KINDS) == set(FAULTS.members) - {"any", *ATTACKS}
    assert set(REASONS.values()) == set(Reason) - NO_UPDATE, "every reason has its fault"


@pytest.mark.parametrize("name", REASONS)
def test_a_spoiled_update_is_refused_with_its_reason(name):
    spoiled = FAULTS.parse(name).spoil(HONEST, 0)
    with pytest.raises(Refused) as refused:
        Gate(LAYOUT).admit(spoiled, 8.0)
    assert refused.value.reason == REASONS[name]


@pytest.mark.parametrize("name", REASONS)
def test_the_honest_update_stays_as_it_was(name):
    FAULTS.parse(name).spoil(HONEST, 0)
    np.testing.assert_array_equal(Gate(LAYOUT).admit(HONEST, 8.0), np.arange(5))


def test_any_fault_gives_a_client_always_the_same_and_clients_all_of_them():
    reasons = []
    for client in [*range(9), 0]:
        with pytest.raises(Refused) as refused:
            Gate(LAYOUT).admit(AnyFault(0.5).spoil(HONEST, client), 8.0)
        reasons.append(refused.value.reason)
    assert reasons == [*REASONS.values(), reasons[0]]


def test_the_share_of_clients_that_misbehave_is_what_was_asked_for():
    clients = np.arange(100_000)
    for share in (0.0, 0.1, 0.5, 1.0):
        struck = NotANumber(share).strikes(0, 1, clients)
        assert abs(struck.mean() - share) < 0.005


def test_who_misbehaves_follows_from_seed_round_and_client():
    fault, clients = NotANumber(0.5), np.arange(1000)
    first = fault.strikes(0, 1, clients)
    np.testing.assert_array_equal(first, fault.strikes(0, 1, clients))
    np.testing.assert_array_equal(first[::-1], fault.strikes(0, 1, clients[::-1]))
    for other in (fault.strikes(1, 1, clients), fault.strikes(0, 2, clients)):
        assert 0.4 < (other != first).mean() < 0.6


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_bounds_is_refused(share):
    with pytest.raises(ValueError, match=r"^share must be at "):
        Fault(share)


# --- in a federation -----------------------------------------------------------------------------

PARTITION = by_sizes([7, 13, 3, 0, 22, 5, 9, 16, 4, 11])
LOCAL = Local(epochs=2, batch=4, rate=0.05)


def federation(fault=None, strategy=None, **engine):
    return Federation(
        linear_task(PARTITION), PARTITION, strategy or FedAvg(), LOCAL, fault=fault, **engine
    )


@pytest.mark.parametrize("name", [*REASONS, "any"])
def test_the_aggregate_is_that_of_the_good_clients_alone(name):
    """Added up in float64 from the good clients, each trained by itself without faults."""
    fault = FAULTS.parse(f"{name}:0.5")
    run, honest = federation(fault, xla=False), federation(xla=False)
    cohort = np.arange(len(PARTITION))
    held = PARTITION.sizes > 0
    struck = fault.strikes(run.seed, 1, cohort) & held
    good = np.flatnonzero(held & ~struck)
    assert 2 <= struck.sum() <= 7
    got = run.round(cohort)
    np.testing.assert_array_equal(got.admitted, good)
    assert [refusal.client for refusal in got.refused] == np.flatnonzero(struck).tolist()
    reasons = list(REASONS.values())
    for refusal in got.refused:
        assert refusal.reason == (REASONS.get(name) or reasons[refusal.client % 9])
        assert np.isfinite(refusal.loss)
    alone = np.array([honest.round([client]).delta for client in good])
    np.testing.assert_allclose(
        got.delta, np.average(alone, axis=0, weights=PARTITION.sizes[good]), rtol=1e-12
    )
    assert got.weight == PARTITION.sizes[good].sum() and got.empty == 1


def test_scaffold_remembers_only_clients_that_were_admitted():
    fault = FAULTS.parse("any:0.5")
    run = federation(fault, Scaffold(), xla=False)
    got = run.round(np.arange(len(PARTITION)))
    assert got.refused and set(got.memory) == set(got.admitted.tolist())


def test_faults_leave_the_other_clients_bits_alone():
    """The good clients train on the same batches as they would without any faults."""
    run, honest = federation(FAULTS.parse("nan:0.5"), xla=False), federation(xla=False)
    cohort = np.arange(len(PARTITION))
    got, all_of_them = run.round(cohort), honest.round(cohort)
    losses = dict(zip(all_of_them.admitted.tolist(), all_of_them.losses, strict=True))
    assert got.losses.tolist() == [losses[client] for client in got.admitted.tolist()]
