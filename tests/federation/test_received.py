"""What came from each bank: the same words in both logs, and why an update did not count."""

import json

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from flwr.app import Array, ArrayRecord, RecordDict

from fedsys.admission import Reason, Refusal
from fedsys.engine import Aggregate
from fedsys.federation.jobs.received import Received
from fedsys.flower.rounds.messages import UPDATE, Code, update_digest
from fedsys.rounds import Round
from fedsys.trust.audit import Audit
from fedsys.trust.events import NOT_READ
from fedsys.trust.verification import verify

NAMES = {0: "bank-a", 1: "bank-b", 2: "bank-c", 3: "bank-d"}


def sent(value):
    return RecordDict({UPDATE: ArrayRecord({"w": Array(np.full(3, value, np.float32))})})


def test_equal_updates_have_equal_digests_and_others_do_not():
    assert update_digest(sent(1)) == update_digest(sent(1))
    assert update_digest(sent(1))[0] != update_digest(sent(2))[0]
    renamed = RecordDict({UPDATE: ArrayRecord({"v": sent(1)[UPDATE]["w"]})})
    assert update_digest(renamed)[0] != update_digest(sent(1))[0]
    assert update_digest(RecordDict())[1] == 0


def test_of_what_was_too_large_to_be_fetched_nothing_is_known(tmp_path):
    audit = Audit(tmp_path / "audit.jsonl")
    received = Received(audit, "a" * 16, NAMES)
    refused = [Refusal(0, Reason.FORMAT)]
    aggregate = Aggregate(
        delta=np.zeros(3), weight=0.0, admitted=np.array([]), losses=np.ones(0), refused=refused
    )
    received.record(Round(5, np.arange(1), aggregate, False, 0.1))
    (entry,) = map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines())
    assert (entry["event"], entry["details"]["sha256"]) == ("update refused", NOT_READ)
    assert verify(audit.path).fault is None


def test_each_bank_of_a_round_is_in_the_log_once(tmp_path):
    audit = Audit(tmp_path / "audit.jsonl")
    received = Received(audit, "a" * 16, NAMES)
    received.note(0, sent(1))
    received.note(1, sent(np.nan))
    refused = [
        Refusal(1, Reason.FINITE, "w"),
        Refusal(2, Reason.LATE),
        Refusal(3, Reason.FAILED, str(Code.DATA)),
    ]
    aggregate = Aggregate(
        delta=np.zeros(3), weight=1.0, admitted=np.array([0]), losses=np.ones(1), refused=refused
    )
    received.record(Round(5, np.arange(4), aggregate, True, 0.1))
    entries = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    about = {"run": "a" * 16, "round": 5}
    digest, size = update_digest(sent(1))
    assert [(entry["event"], entry["details"]) for entry in entries] == [
        ("update received", {**about, "bank": "bank-a", "sha256": digest, "bytes": size}),
        ("update refused", {**about, "bank": "bank-b", "sha256": update_digest(sent(np.nan))[0],
                            "reason": "not finite"}),
        ("bank lost", {**about, "bank": "bank-c"}),
        ("bank failed", {**about, "bank": "bank-d", "code": "data"}),
    ]  # fmt: skip
