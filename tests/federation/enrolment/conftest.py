"""A coordinator whose desk is open, for banks that enrol."""

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys.federation.banks import Banks
from fedsys.federation.enrolment.desk import ENROL
from fedsys.trust.events import Event
from fedsys.trust.jobs import version
from fedsys.trust.signing import sign
from fedsys.trust.verification import entries_of
from tests.federation.doors import coordinator, open_door


@pytest.fixture
def home(tmp_path):
    return coordinator(tmp_path / "coordinator")


@pytest.fixture
def door(home):
    with open_door(home) as desk:
        yield desk


def banks(home):
    return Banks(home.folder / "banks.json")


def refusals(home):
    return [
        (entry.details["bank"], entry.details["code"])
        for entry in entries_of(home.audit.path)
        if entry.event is Event.REQUEST_REFUSED
    ]


def request(home, keys, token, now=None, audience=None, **changes):
    """A request to enrol, as a bank sends it, or with something changed."""
    body = {
        "bank": token.bank,
        "code": token.code.hex(),
        "node": keys.public.node,
        "signing": keys.public.signing,
        "version": version(),
        **changes,
    }
    to = audience or home.facts.name
    return sign(keys.signing, body, purpose=ENROL, audience=to, now=now).data()
