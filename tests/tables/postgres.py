"""A private PostgreSQL server on a loopback port, which ends with the tests however they end."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

PASSWORD = "s3cret:/@word"
_PATIENCE = 60.0
_PR_SET_PDEATHSIG = 1


def programs() -> Path | None:
    """The folder of initdb and its like, the newest where there are several."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def why_not() -> str | None:
    """Why there can be no server here."""
    if programs() is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    if find_spec("psycopg") is None:
        return "psycopg is not installed (pip install 'psycopg[binary]')"
    return None


@dataclass
class Postgres:
    """A running server. user: who runs it, where the tests run as root, as it refuses to."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes]"
    user: str | None

    @classmethod
    def start(cls) -> "Postgres":
        user = "nobody" if os.geteuid() == 0 else None
        # Not below pytest's folder, which others may not enter.
        folder = Path(tempfile.mkdtemp(prefix="fedsys-postgres-"))
        (folder / "password").write_text(PASSWORD)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        there = programs()
        assert there is not None
        options = ["--username=bank", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]
        subprocess.run(
            [there / "initdb", "-D", folder / "data", "--locale=C.UTF-8", *options,
             f"--pwfile={folder / 'password'}"],
            user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [there / "postgres", "-D", folder / "data", "-h", "127.0.0.1", "-p", str(port),
                 "-k", folder, "-c", "fsync=off"],
                user=user, cwd=folder, stdout=log, stderr=log, preexec_fn=_die_with_parent,
            )  # fmt: skip
        server = cls(folder, port, process, user)
        server._wait()
        return server

    def _wait(self) -> None:
        import psycopg

        end = time.monotonic() + _PATIENCE
        while True:
            try:
                psycopg.connect(self.plain).close()
                return
            except psycopg.OperationalError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < end
                time.sleep(0.05)

    @property
    def plain(self) -> str:
        """The address as psycopg takes it."""
        return f"postgresql://bank:s3cret%3A%2F%40word@127.0.0.1:{self.port}/postgres"

    @property
    def address(self) -> str:
        """The address as SQLAlchemy takes it."""
        return self.plain.replace("postgresql://", "postgresql+psycopg://")

    def run(self, *statements: str) -> None:
        import psycopg

        with psycopg.connect(self.plain, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def stop(self) -> None:
        there = programs()
        assert there is not None
        subprocess.run(
            [there / "pg_ctl", "stop", "-D", self.folder / "data", "-m", "fast"],
            user=self.user, cwd=self.folder, stdout=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        try:
            self.process.wait(_PATIENCE)
        finally:
            self.process.kill()
            shutil.rmtree(self.folder, ignore_errors=True)


def _die_with_parent() -> None:
    # SIGINT is PostgreSQL's fast shutdown: even kill -9 of the tests leaves no server.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
