"""What travels with instructions between a coordinator and its banks.

    to a bank:   fedsys.job     the signed job, and the preparation that it names by its hash
                 fedsys.ask     a signed request for statistics of the bank's rows
    from a bank: fedsys.summary the statistics

The job comes with every instruction: Flower stores equal records once, and a bank that was started
again, or joins in the middle, needs nothing else.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, RecordDict

from fedsys.errors import DataError
from fedsys.tables import Preparation, Schema, Summary
from fedsys.tables.summary import summary_of
from fedsys.trust import canonical
from fedsys.trust.signing import sign

JOB, ASK, SUMMARY = "fedsys.job", "fedsys.ask", "fedsys.summary"
STATISTICS = "statistics"
"""The purpose of a signed request for statistics."""
LONGEST = 4 << 20
"""Bytes of a job, a preparation or a summary."""


def job_record(signed: bytes, preparation: Preparation) -> ConfigRecord:
    """The job as it goes along with every instruction."""
    said = {"signed": signed, "preparation": canonical.encode(preparation.table())}
    return ConfigRecord(said)  # type: ignore[arg-type]


def read_job_record(content: RecordDict) -> tuple[bytes, bytes]:
    """(signed job, preparation) as bytes that nobody has looked into. Raises DataError."""
    record = content.get(JOB)
    return _bytes(record, "signed"), _bytes(record, "preparation")


def read_preparation(data: bytes, schema: Schema) -> Preparation:
    """The preparation in a message. Raises DataError."""
    return Preparation.of(canonical.decode_table(data, "preparation", LONGEST), schema)


def ask_for_statistics(key: Ed25519PrivateKey, federation: str, schema: Schema) -> RecordDict:
    """A request that the banks of the federation answer."""
    signed = sign(key, {"schema": schema.hash}, purpose=STATISTICS, audience=federation)
    return RecordDict({ASK: ConfigRecord({"signed": signed.data()})})


def summary_content(summary: Summary) -> RecordDict:
    """A bank's answer to a request for statistics."""
    return RecordDict({SUMMARY: ConfigRecord({"summary": canonical.encode(summary.table())})})


def read_summary(content: RecordDict, schema: Schema, bank: str) -> Summary:
    """A bank's statistics out of its answer. Raises DataError that names the bank."""
    data = _bytes(content.get(SUMMARY), "summary")
    return summary_of(canonical.decode_table(data, "summary", LONGEST), schema, bank)


def read_ask(content: RecordDict) -> bytes:
    """The signed request in a message, as bytes that nobody has looked into. Raises DataError."""
    return _bytes(content.get(ASK), "signed")


def _bytes(record: Any, name: str) -> bytes:
    value = record.get(name) if isinstance(record, ConfigRecord) else None
    if not isinstance(value, bytes) or len(value) > LONGEST:
        raise DataError(f"message: has no {name} that can be read")
    return value
