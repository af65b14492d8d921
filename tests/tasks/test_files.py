"""What a user can do wrong with a path or an address."""

import functools
import http.server
import os
import threading
from pathlib import Path

import pytest

from fedsys.errors import DataError
from fedsys.tasks import Heart, Table, files


@pytest.fixture
def site(tmp_path):
    """A web site of a folder: (folder, address)."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def message(call, *arguments):
    with pytest.raises(DataError) as raised:
        call(*arguments, "task.data", "give another")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message(files.read, "no.csv") == (
        f"task.data: 'no.csv' does not exist (looked in {tmp_path}); give another"
    )
    assert message(files.check_folder, str(tmp_path / "no")) == (
        f"task.data: '{tmp_path / 'no'}' does not exist; give another"
    )


def test_a_file_for_a_folder_and_a_folder_for_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    assert "is a file, not a folder" in message(files.check_folder, str(tmp_path / "file"))
    assert "is a folder, not a file" in message(files.read, str(tmp_path))


def test_no_permission(tmp_path, monkeypatch):
    """Mocked: tests may run as root, who may read everything."""

    def refuse(path, *arguments, **named):
        raise PermissionError(13, os.strerror(13), str(path))

    for method in ("read_bytes", "exists", "is_file"):
        monkeypatch.setattr(Path, method, refuse)
    expected = f"task.data: cannot %s '{tmp_path}': Permission denied; give another"
    assert message(files.read, str(tmp_path)) == expected % "read"
    assert message(files.check_folder, str(tmp_path)) == expected % "look at"
    assert message(files.holds, str(tmp_path), "name") == expected % "look at"


def test_a_path_that_is_no_path():
    assert "cannot read" in message(files.read, "a\0b")
    assert "cannot look at" in message(files.check_folder, "a" * 5000)


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_text("x")
    assert files.read("~/file", "task.data", "") == b"x"


def test_an_address_gives_its_bytes(site):
    folder, address = site
    (folder / "file").write_bytes(b"abc")
    assert files.read(files.join(f"{address}/", "file"), "task.data", "") == b"abc"


def test_tasks_read_from_an_address(site, data):
    folder, address = site
    for file in (data / "heart").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert len(Heart(address).load().train) == 486
    (folder / "table.csv").write_text("x,y\n" + "0,1\n1,2\n" * 10)
    assert len(Table(f"{address}/table.csv", "y").load().train) == 16


def test_an_address_without_the_file(site):
    _, address = site
    assert message(files.read, f"{address}/no") == (
        f"task.data: could not download {address}/no: 404 File not found; give another"
    )


def test_an_address_where_nobody_answers(site):
    assert message(files.read, "http://127.0.0.1:9/file").startswith(
        "task.data: could not download http://127.0.0.1:9/file: Connection refused"
    )
    assert "could not download" in message(files.read, "http://")
