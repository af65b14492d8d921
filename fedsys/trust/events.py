"""What an audit log can say: events, and the typed details of each.

No detail is free text. A detail is a name, an identifier, a hash, a number, or one of a fixed set
of words, so an exception's text or a customer's value has no place where it could be written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from fedsys.admission import Reason
from fedsys.errors import (
    DataError,
    EngineError,
    FedsysError,
    IdentityError,
    NetworkError,
    PolicyError,
    QuorumError,
    Stopped,
    StorageError,
    TrainingError,
    UsageError,
)
from fedsys.trust.names import is_name


class Code(StrEnum):
    """What went wrong, as it may be told to others."""

    USAGE = "usage"
    DATA = "data"
    NETWORK = "network"
    IDENTITY = "identity"
    POLICY = "policy"
    QUORUM = "quorum"
    TRAINING = "training"
    STORAGE = "storage"
    ENGINE = "engine"
    MEMORY = "memory"
    STOPPED = "stopped"
    INTERNAL = "internal"


_CODES: tuple[tuple[type[BaseException], Code], ...] = (
    (UsageError, Code.USAGE),
    (DataError, Code.DATA),
    (NetworkError, Code.NETWORK),
    (IdentityError, Code.IDENTITY),
    (PolicyError, Code.POLICY),
    (QuorumError, Code.QUORUM),
    (TrainingError, Code.TRAINING),
    (StorageError, Code.STORAGE),
    (EngineError, Code.ENGINE),
    (Stopped, Code.STOPPED),
    (FedsysError, Code.INTERNAL),
    (MemoryError, Code.MEMORY),
)


def code_of(error: BaseException) -> Code:
    """The one thing about an exception that leaves the house."""
    return next((code for type_, code in _CODES if isinstance(error, type_)), Code.INTERNAL)


class Event(StrEnum):
    """What can happen."""

    OPENED = "log opened"
    CLOSED_OFF = "torn line closed off"
    INVITED = "bank invited"
    JOINED = "bank joined"
    APPROVED = "bank approved"
    REVOKED = "bank revoked"
    CERTIFICATE = "server certificate issued"
    JOB_SIGNED = "job signed"
    JOB_RECEIVED = "job received"
    JOB_APPROVED = "job approved"
    JOB_REFUSED = "job refused"
    JOB_AGREED = "job agreed"
    JOB_DECLINED = "job declined"
    RUN_BEGUN = "run begun"
    ROUND_BEGUN = "round begun"
    UPDATE_SENT = "update sent"
    UPDATE_RECEIVED = "update received"
    UPDATE_REFUSED = "update refused"
    FAILED = "bank failed"
    LOST = "bank lost"
    REJOINED = "bank rejoined"
    QUARANTINED = "bank quarantined"
    ROUND_ENDED = "round ended"
    ROUND_ABANDONED = "round abandoned"
    PAUSED = "run paused"
    RESUMED = "run resumed"
    RUN_ENDED = "run ended"
    STATISTICS_APPROVED = "statistics approved"
    STATISTICS_DECLINED = "statistics declined"
    STATISTICS_SENT = "statistics sent"
    STATISTICS_RECEIVED = "statistics received"
    REQUEST_REFUSED = "request refused"
    HEAD_SEEN = "other log's head seen"


Check = Callable[[Any], bool]

_HASH = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{8,64}")
_SPOKEN = re.compile(r"[0-9A-Z]{4}(-[0-9A-Z]{4}){4}")
_VERSION = re.compile(r"[0-9]{1,5}(\.[0-9a-z]{1,12}){0,5}")


def _matching(pattern: re.Pattern[str]) -> Check:
    return lambda item: isinstance(item, str) and pattern.fullmatch(item) is not None


def _one_of(words: type[StrEnum]) -> Check:
    known = {str(word) for word in words}
    return lambda item: isinstance(item, str) and item in known


def _name(item: Any) -> bool:
    return isinstance(item, str) and is_name(item)


def _count(item: Any) -> bool:
    return type(item) is int and 0 <= item < 2**63


def _number(item: Any) -> bool:
    return type(item) in (int, float) and math.isfinite(item)


NOT_READ = ""
"""In place of the hash of an update that was too large to be fetched."""
HASH, ID, CODE = _matching(_HASH), _matching(_ID), _one_of(Code)


def _hash_if_read(item: Any) -> bool:
    return item == NOT_READ or HASH(item)


FIELDS: Mapping[Event, Mapping[str, Check]] = {
    Event.OPENED: {"site": _name, "federation": _name, "version": _matching(_VERSION)},
    Event.CLOSED_OFF: {"bytes": _count, "sha256": HASH},
    Event.INVITED: {"bank": _name, "expires": _count},
    Event.JOINED: {"bank": _name, "fingerprint": _matching(_SPOKEN)},
    Event.APPROVED: {"bank": _name, "fingerprint": _matching(_SPOKEN)},
    Event.REVOKED: {"bank": _name},
    Event.CERTIFICATE: {"sha256": HASH, "expires": _count},
    Event.JOB_SIGNED: {"job": HASH, "key": ID},
    Event.JOB_RECEIVED: {"job": HASH, "key": ID},
    Event.JOB_APPROVED: {"job": HASH},
    Event.JOB_REFUSED: {"job": HASH, "code": CODE},
    # What a bank's officer said, as the coordinator heard it; declined: at the bank, too.
    Event.JOB_AGREED: {"bank": _name, "job": HASH},
    Event.JOB_DECLINED: {"bank": _name, "job": HASH},
    Event.RUN_BEGUN: {"run": ID, "job": HASH, "banks": _count},
    Event.ROUND_BEGUN: {"run": ID, "round": _count, "banks": _count},
    Event.UPDATE_SENT: {"run": ID, "round": _count, "bank": _name, "sha256": HASH, "bytes": _count},
    Event.UPDATE_RECEIVED: {
        "run": ID, "round": _count, "bank": _name, "sha256": HASH, "bytes": _count,
    },
    Event.UPDATE_REFUSED: {
        "run": ID, "round": _count, "bank": _name, "sha256": _hash_if_read,
        "reason": _one_of(Reason),
    },
    Event.FAILED: {"run": ID, "round": _count, "bank": _name, "code": CODE},
    Event.LOST: {"run": ID, "round": _count, "bank": _name},
    Event.REJOINED: {"run": ID, "round": _count, "bank": _name},
    Event.QUARANTINED: {"run": ID, "round": _count, "bank": _name, "reason": _one_of(Reason)},
    Event.ROUND_ENDED: {
        "run": ID, "round": _count, "admitted": _count, "weight": _number, "sha256": HASH,
    },
    Event.ROUND_ABANDONED: {"run": ID, "round": _count, "admitted": _count, "needed": _count},
    Event.PAUSED: {"run": ID, "round": _count, "code": CODE},
    Event.RESUMED: {"run": ID, "round": _count},
    Event.RUN_ENDED: {"run": ID, "rounds": _count, "sha256": HASH},
    Event.STATISTICS_APPROVED: {"bank": _name, "request": HASH},
    Event.STATISTICS_DECLINED: {"bank": _name, "request": HASH},
    Event.STATISTICS_SENT: {"bank": _name, "sha256": HASH, "bytes": _count},
    Event.STATISTICS_RECEIVED: {"bank": _name, "sha256": HASH, "bytes": _count},
    # bank: as whom the request came; 'unknown' where it did not say, or not in a name's form.
    Event.REQUEST_REFUSED: {"bank": _name, "code": CODE},
    Event.HEAD_SEEN: {"site": _name, "number": _count, "hash": HASH},
}  # fmt: skip
"""What each event says; every detail is given, and nothing else."""


def fault_in(event: Event, details: Mapping[str, Any]) -> str | None:
    """Which detail of an event is missing, unknown or not what it has to be, or None.

    Says its name alone, never its value.
    """
    fields = FIELDS[event]
    for name, check in fields.items():
        if name not in details:
            return f"needs {name}"
        if not check(details[name]):
            return f"{name} is not of its kind"
    extra = len(details) - len(fields)
    return f"has {extra} details too many" if extra else None
