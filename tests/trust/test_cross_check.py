from pathlib import Path

import pytest

from fedsys.admission import Reason
from fedsys.trust.audit import Audit
from fedsys.trust.events import NOT_READ, Event
from fedsys.trust.verification import cross_check

from .logs import HASH, RUN, lines, opened, rewrite


@pytest.fixture
def sites(tmp_path: Path) -> tuple[Audit, Audit]:
    """A server and a bank that ran two rounds and recorded each other's heads."""
    server = opened(tmp_path / "server.jsonl", "eu-credit", 1)
    bank = opened(tmp_path / "bank.jsonl", "bank-a", 1)
    bank.record(Event.JOB_APPROVED, job=HASH)
    server.record(Event.RUN_BEGUN, run=RUN, job=HASH, banks=1)
    for number in (1, 2):
        update = {"run": RUN, "round": number, "bank": "bank-a", "sha256": f"{number:064x}"}
        sent = bank.record(Event.UPDATE_SENT, **update, bytes=100)
        head = bank.head()
        server.record(Event.UPDATE_RECEIVED, sent.id, **update, bytes=100)
        server.record(Event.HEAD_SEEN, site="bank-a", number=head.number, hash=head.hash)
        head = server.head()
        bank.record(Event.HEAD_SEEN, site="eu-credit", number=head.number, hash=head.hash)
    return server, bank


def differ(sites: tuple[Audit, Audit]) -> list[str]:
    server, bank = sites
    return [one.text for one in cross_check(server.path, bank.path, "eu-credit", "bank-a")]


def test_honest_sites_agree(sites):
    assert differ(sites) == []


def test_a_log_cut_at_one_site_is_noticed_by_the_other(sites):
    _server, bank = sites
    rewrite(bank, lines(bank)[:3])
    texts = differ(sites)
    assert any("log of bank-a: cut off" in text for text in texts)
    assert any("eu-credit recorded it, bank-a never sent it" in text for text in texts)


def test_a_log_written_anew_at_one_site_is_noticed_by_the_other(sites, tmp_path):
    server, _bank = sites
    other = opened(tmp_path / "other.jsonl", "eu-credit", 9)
    server.path.write_bytes(other.path.read_bytes())
    assert any("log of eu-credit: rewritten" in text for text in differ(sites))


@pytest.mark.parametrize("digest", [HASH, NOT_READ])
def test_an_update_that_one_site_denies_is_named(sites, digest):
    server, bank = sites
    sent = bank.record(Event.UPDATE_SENT, run=RUN, round=3, bank="bank-a", sha256=HASH, bytes=100)
    assert differ(sites) == ["update of round 3: bank-a sent it, eu-credit never recorded it"]
    server.record(
        Event.UPDATE_REFUSED, sent.id, run=RUN, round=3, bank="bank-a", sha256=digest,
        reason=Reason.FINITE,
    )  # fmt: skip
    assert differ(sites) == []


def test_an_update_changed_on_its_way_is_named(sites):
    server, bank = sites
    details = {"run": RUN, "round": 3, "bank": "bank-a", "bytes": 100}
    sent = bank.record(Event.UPDATE_SENT, **details, sha256=HASH)
    server.record(Event.UPDATE_RECEIVED, sent.id, **details, sha256="cd" * 32)
    assert differ(sites) == ["update of round 3: eu-credit recorded other bytes than bank-a sent"]


def test_another_banks_updates_are_not_this_ones(sites):
    server, _ = sites
    server.record(Event.UPDATE_RECEIVED, run=RUN, round=1, bank="bank-b", sha256=HASH, bytes=1)
    assert differ(sites) == []


def test_a_job_that_the_bank_never_approved_is_named(sites):
    server, bank = sites
    other = "fedcba987654"
    server.record(Event.RUN_BEGUN, run=other, job="cd" * 32, banks=1)
    details = {"run": other, "round": 1, "bank": "bank-a", "sha256": HASH, "bytes": 1}
    sent = bank.record(Event.UPDATE_SENT, **details)
    server.record(Event.UPDATE_RECEIVED, sent.id, **details)
    assert differ(sites) == [f"run {other}: bank-a took part and never approved job {'cd' * 6}"]


def test_an_update_that_came_too_late_is_no_quarrel(sites):
    server, bank = sites
    bank.record(Event.UPDATE_SENT, run=RUN, round=3, bank="bank-a", sha256=HASH, bytes=100)
    server.record(Event.LOST, run=RUN, round=3, bank="bank-b")
    assert differ(sites) == ["update of round 3: bank-a sent it, eu-credit never recorded it"]
    server.record(Event.LOST, run=RUN, round=3, bank="bank-a")
    assert differ(sites) == []
