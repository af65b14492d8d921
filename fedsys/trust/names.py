"""How federations and banks may be called: names that are safe in a path, a log and a shell."""

from __future__ import annotations

import ipaddress
import re

from fedsys.errors import UsageError

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):([0-9]{1,5})")


def is_name(text: str) -> bool:
    """Whether a federation, a bank or an experiment may be called so."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def check_name(text: str, what: str) -> str:
    """The name, or UsageError. what: of which thing."""
    if not is_name(text):
        raise UsageError(
            f"{what} {text[:80]!r}: a name has 1 to 63 of a-z, 0-9, '-' and '.', "
            "and starts and ends with a letter or digit"
        )
    return text


def check_host(text: str) -> str:
    """A host name or IP address that others can connect to, or UsageError."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        labels = text.split(".")
        numeric = labels[-1].isdigit()  # 256.1.1.1 is neither an address nor a name
        if len(text) <= 253 and not numeric and all(map(_LABEL.fullmatch, labels)):
            return text.lower()
        raise UsageError(
            f"host {text[:80]!r}: neither a host name (fl.example.org) nor an IP address"
        ) from None
    if address.is_unspecified or address.is_multicast:
        raise UsageError(f"host {text}: give the name or address that banks connect to")
    return str(address)


def check_address(text: str) -> str:
    """`host:port` or `[IPv6 address]:port`, or UsageError."""
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found[2]) < 65536:
        raise UsageError(f"address {text[:80]!r}: write it like fl.example.org:8443")
    host = check_host(found[1].strip("[]"))
    return f"[{host}]:{int(found[2])}" if ":" in host else f"{host}:{int(found[2])}"
