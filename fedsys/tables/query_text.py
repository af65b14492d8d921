"""The text of a query: how many statements it holds, and with which word it begins.

A bank's database should refuse to be written to by a transaction that only reads; this refuses
what can be seen before, for databases that know no such transactions, and several statements at
once, the second of which could end the transaction.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedsys.errors import DataError

_READS = ("select", "with", "values", "table")
_LARGEST = 2**20  # bytes of a query
_SKIP = re.compile(
    r"""
    '(?:[^']|'')*'              # text
    | "(?:[^"]|"")*"            # a name
    | `(?:[^`]|``)*`            # a name in MySQL
    | --[^\n]*                  # a comment
    | /\*.*?\*/                 # a longer one
    | \$(\w*)\$.*?\$\1\$        # text in PostgreSQL
    """,
    re.VERBOSE | re.DOTALL,
)


def read_query(query: str | Path) -> str:
    """The one reading statement in a query or in the file it names, without a semicolon.

    Raises DataError when the file is not there or the statement would not only read.
    """
    text = str(query)
    if isinstance(query, Path) or text.lower().endswith(".sql"):
        text = _file(Path(text).expanduser())
    bare = _SKIP.sub(_blank, text)
    statements = [part for part in bare.split(";") if part.strip()]
    if not statements:
        raise DataError("query: it is empty; write a SELECT, or name a .sql file that holds one")
    if len(statements) > 1:
        raise DataError(f"query: {len(statements)} statements; give one SELECT alone")
    word = re.match(r"[\s(]*(\w*)", statements[0])
    if word is None or word[1].lower() not in _READS:
        raise DataError(
            "query: it is no SELECT; a query only reads, so begin it with SELECT or WITH"
        )
    start = bare.index(statements[0])
    return text[start : start + len(statements[0])].strip()


def _blank(found: re.Match[str]) -> str:
    return " " * len(found[0])


def _file(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        where = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
        raise DataError(f"query: {str(path)!r} does not exist{where}; name a .sql file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such path"
        raise DataError(f"query: cannot read {str(path)!r}: {reason}; name a .sql file") from None
    try:
        if len(content) > _LARGEST:
            raise DataError(f"query: {str(path)!r} has {len(content):,} bytes and is no query")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"query: {str(path)!r} is not text in UTF-8; save it again") from None
