"""What a database or its driver complains of, as one line that holds no cell and no password.

A message is passed on only where it can quote nothing but the query (syntax, names of tables and
columns). All else is told by kind, with the database's code to look up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedsys.errors import DataError

if TYPE_CHECKING:
    from sqlalchemy import URL

_CONNECT = (
    (
        r"password|authentication|access denied",
        "user or password is refused; mend the address (PostgreSQL also reads PGPASSWORD and "
        "~/.pgpass)",
    ),
    (
        r"resolve host|translate host|name or service not known|unknown.*host|nodename",
        "the host is unknown; check its name",
    ),
    (r"pg_hba", "the server lets nobody in from here; ask its administrator"),
    (r"(role|user) .* does not exist", "the user is unknown; check the address"),
    (r"database .* does not exist|unknown database", "it has no such database; check its name"),
    (r"refused|no such file", "nobody answers there; check host and port, and that it runs"),
    (r"timeout|timed out", "it does not answer in time; check host, port and firewall"),
    (r"ssl|certificate|tls", "no secure connection can be made; check sslmode and certificates"),
    (r"not a database|unable to open", "the file is no SQLite database or cannot be opened"),
)
_WRITES = ("25006", "1792", "1290")
_MYSQL_NAMES = ("1054", "1064", "1146", "1142")
_SQLITE_NAMES = re.compile(
    r"no such|near |ambiguous|incomplete input|unrecognized token|wrong number of arg|misuse"
)


@contextmanager
def connecting(name: str, url: URL) -> Iterator[None]:
    """Raises DataError for what goes wrong while connecting."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except DataError:
        raise
    except (SQLAlchemyError, OSError, ValueError, TypeError) as error:
        said = str(getattr(error, "orig", None) or error).lower()
        if url.password:
            said = said.replace(str(url.password).lower(), "")
        for pattern, meaning in _CONNECT:
            if re.search(pattern, said):
                raise DataError(f"source: {name}: {meaning}") from None
        kind = type(getattr(error, "orig", None) or error).__name__
        raise DataError(
            f"source: {name}: cannot connect ({kind}); check the address and its options"
        ) from None


@contextmanager
def querying(name: str) -> Iterator[None]:
    """Raises DataError for what goes wrong while a query runs."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except DataError:
        raise
    except (SQLAlchemyError, OSError, ValueError, TypeError, OverflowError) as error:
        raise DataError(f"query: {name}: {_meaning(error)}") from None


def _meaning(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    code, words = _code(cause), " ".join(str(cause).split())
    if code in _WRITES or "readonly database" in words or "read-only transaction" in words:
        return "the query would write, which is refused; give a SELECT that only reads"
    if code == "42501":
        return "the user may not read this; ask for the right to SELECT"
    if code.startswith("42"):
        primary = getattr(getattr(cause, "diag", None), "message_primary", None)
        return f"the database does not take the query: {primary or _last(cause)}"
    if code in _MYSQL_NAMES:
        return f"the database does not take the query: {_last(cause)}"
    if type(cause).__module__ == "sqlite3" and _SQLITE_NAMES.match(words):
        return f"the database does not take the query: {words[:200]}"
    if "not a database" in words:
        return "the file is no SQLite database"
    if "locked" in words:
        return "the database is locked by another program; try again"
    if code.startswith("22"):
        return f"some cell cannot be computed as the query asks (SQLSTATE {code}); mend the query"
    if code.startswith(("08", "57P")) or "connection" in words.lower():
        return "the connection to the database was lost; try again"
    kind = f"SQLSTATE {code}" if code else type(cause).__name__
    return f"the database ended the query ({kind})"


def _last(cause: Exception) -> str:
    """What a driver says after its number."""
    return " ".join(str(cause.args[-1] if cause.args else cause).split())[:200]


def _code(cause: object) -> str:
    """The SQLSTATE, or MySQL's number, or nothing."""
    for attribute in ("sqlstate", "pgcode"):
        found = getattr(cause, attribute, None)
        if found:
            return str(found)
    arguments = getattr(cause, "args", ())
    return str(arguments[0]) if arguments and isinstance(arguments[0], int) else ""
