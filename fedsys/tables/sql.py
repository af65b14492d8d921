"""Rows of a query, from any database that SQLAlchemy knows, read and never written.

Rows arrive through a cursor on the server, some at a time. The transaction is read-only where the
database has such (PostgreSQL, MySQL, Oracle; SQLite files are opened for reading alone), and is
rolled back in every case. Errors are told in words of our own: a driver's message may quote a cell,
and an address may hold a password.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fedsys.errors import DataError
from fedsys.tables.query_text import read_query
from fedsys.tables.sources import Chunk, chunk_rows, first_of_each, turned
from fedsys.tables.sql_errors import connecting, querying

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, CursorResult, Engine

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_PACKAGES = {
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "cx_Oracle": "cx_Oracle",
}
_PATIENCE = 10  # seconds for a database to answer at all
_NAMES_ONLY = 0  # rows asked for where the names of the columns are all that is wanted
_READ_ONLY = {
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
}


@dataclass(frozen=True)
class Database:
    """One query's rows. name: the address without password and options."""

    name: str
    names: tuple[str, ...]
    url: URL = field(repr=False)
    query: str = field(repr=False)

    @property
    def kind(self) -> str:
        return f"SQL, {self.url.get_backend_name()}"

    def columns(self) -> tuple[str, ...]:
        return self.names

    def chunks(self, wanted: Sequence[str]) -> Iterator[Chunk]:
        size = chunk_rows(len(self.names))
        start = 0
        with _asked(self.url, self.name, self.query, size) as result:
            names = _names(result)
            if missing := [name for name in wanted if name not in names]:
                raise DataError(f"{self.name}: column {missing[0]!r} is gone; open it again")
            positions = first_of_each(names, wanted)
            while True:
                with querying(self.name):
                    rows = result.fetchmany(size)
                if not rows:
                    return
                yield Chunk(start, len(rows), turned(rows, wanted, positions))
                start += len(rows)
                del rows  # before as many are read again


def open_database(address: str, query: str | Path | None) -> Database:
    """The query's rows, after asking for their names. Raises DataError, in one line."""
    url = _url(address)
    name = _shown(url)
    if query is None:
        raise DataError(f"query: {name} is a database; give a query, or a .sql file that holds it")
    text = read_query(query)
    with _asked(url, name, text, _NAMES_ONLY) as result:
        return Database(name, tuple(_names(result)), url, text)


@contextmanager
def _asked(url: URL, name: str, query: str, size: int) -> Iterator[CursorResult[Any]]:
    """Asks the query in a transaction of its own, which ends with the block."""
    engine = _engine(url, name)
    try:
        with connecting(name, url):
            connection = engine.connect()
        result = None
        try:
            with querying(name):
                _only_read(connection, url.get_backend_name(), size)
                # Without parameters, so that no % or : in the query is taken for one.
                asked = connection.execution_options(yield_per=max(1, size), no_parameters=True)
                result = asked.exec_driver_sql(query)
            yield result
        finally:
            _close(connection, result)
    finally:
        engine.dispose()


def _close(connection: Connection, result: CursorResult[Any] | None) -> None:
    """Rolls back. A connection that is lost has nothing to roll back."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if result is not None:
            result.close()
        connection.close()
    except SQLAlchemyError:
        connection.invalidate()


def _names(result: CursorResult[Any]) -> list[str]:
    description = result.cursor.description if result.cursor is not None else None
    if not description:
        raise DataError("query: it gives no rows; give a SELECT")
    return [str(entry[0]) for entry in description]


def _only_read(connection: Connection, backend: str, size: int) -> None:
    if backend == "postgresql":
        connection.execution_options(postgresql_readonly=True)
    elif backend in _READ_ONLY:
        connection.exec_driver_sql(_READ_ONLY[backend])
    if backend in ("mysql", "mariadb") and size == _NAMES_ONLY:
        # Its drivers read all that is left of a result before they end it.
        connection.exec_driver_sql("SET SESSION sql_select_limit = 1")


def _url(address: str) -> URL:
    try:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError
    except ImportError:
        raise DataError("source: a database needs SQLAlchemy; run pip install sqlalchemy") from None
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # whose words may hold the password
        raise DataError(
            "source: this is no address of a database; write it like "
            "postgresql+psycopg://user@host:5432/name, with / : @ in a password as %2F %3A %40"
        ) from None
    return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))


def _shown(url: URL) -> str:
    """The address for people: no password, and no options, which may hold one too."""
    from sqlalchemy import URL

    plain = URL.create(url.drivername, url.username, None, url.host, url.port, url.database)
    return plain.render_as_string()


def _engine(url: URL, name: str) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    from sqlalchemy.pool import NullPool

    options: dict[str, Any] = {"poolclass": NullPool, "hide_parameters": True}
    try:
        if url.get_backend_name() == "sqlite":
            return create_engine("sqlite://", creator=_sqlite(url), **options)
        return create_engine(url, connect_args=_patience(url), **options)
    except NoSuchModuleError:
        raise DataError(
            f"source: SQLAlchemy knows no database {url.drivername!r}; try postgresql+psycopg, "
            "mysql+pymysql or sqlite, or install the dialect's package"
        ) from None
    except ModuleNotFoundError as error:
        missing = str(error.name)
        package = _PACKAGES.get(missing, missing)
        raise DataError(
            f"source: {name} needs the driver {missing!r}; run pip install {package}"
        ) from None
    except (ImportError, ArgumentError, TypeError, ValueError):
        raise DataError(
            f"source: the driver of {name} does not start; check the address and its options, and "
            "that the driver's own library is installed"
        ) from None


def _patience(url: URL) -> dict[str, Any]:
    if "connect_timeout" in url.query:
        return {}
    drivers = ("psycopg", "psycopg2", "pymysql")
    return {"connect_timeout": _PATIENCE} if url.get_driver_name() in drivers else {}


def _sqlite(url: URL) -> Any:
    """What opens the SQLite file for reading alone. Raises DataError where none is there."""
    text = url.database or ""
    if not text or text == ":memory:" or text.startswith("file:"):
        raise DataError("source: name the SQLite file, as in sqlite:///rows.db")
    path = Path(text).expanduser()
    try:
        there = path.is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        where = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
        raise DataError(f"source: there is no file {text!r}{where}; name an SQLite database")

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, check_same_thread=False
        )
        # Text that is not UTF-8 is marked by the schema's check; the driver's message quotes it.
        connection.text_factory = lambda content: content.decode("utf-8", "replace")
        connection.execute("PRAGMA query_only = ON")
        return connection

    return connect
