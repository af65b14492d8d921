"""Room on the disk of Flower's server: looked at before its own database meets its end."""

import os
from types import SimpleNamespace

import pytest

pytest.importorskip("flwr", reason="flwr is not installed")

from fedsys.errors import StorageError
from fedsys.flower.processes.superlink import ROOM, check_room

from .deployed import superlink


def test_a_disk_that_is_soon_full_is_one_line(tmp_path, monkeypatch):
    server = superlink(tmp_path)
    check_room(server)  # its folder is not there yet
    server.folder.mkdir()
    free = [ROOM + 4096]
    monkeypatch.setattr(
        os, "statvfs", lambda path: SimpleNamespace(f_bavail=free[0] // 4096, f_frsize=4096)
    )
    check_room(server)
    check_room(server, coming=4096)
    with pytest.raises(StorageError, match=r"flower: no room for the server's state: make room"):
        check_room(server, coming=8192)
    free[0] = ROOM - 4096
    with pytest.raises(StorageError, match="make room there"):
        check_room(server)
