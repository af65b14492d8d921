"""Small caches for the SQLite connections of Flower's server.

Flower gives each of its connections, of which there are up to thirty, 64 MB of cache, and maps
256 MB of the file into memory. The more nodes send at a time, the more connections there are, and
the pieces of a large model fill the cache of each: for nothing, as a piece is written once, and
read once a node.
"""

from __future__ import annotations

from typing import Any

PRAGMAS = {"cache_size": -4_000, "mmap_size": 0}
"""Of cache, kilobytes (as SQLite takes a number below 0); of the file in memory, bytes."""


def small_caches() -> None:
    """Has every connection that SQLAlchemy opens in this process use `PRAGMAS`.

    Flower sets its own when a connection is opened; these come after them, before its first use.
    """
    from sqlalchemy import Engine, event

    event.listen(Engine, "checkout", _shrink)


def _shrink(connection: Any, record: Any, proxy: Any) -> None:
    if "small" in record.info:
        return
    cursor = connection.cursor()
    for name, value in PRAGMAS.items():
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()
    record.info["small"] = True
