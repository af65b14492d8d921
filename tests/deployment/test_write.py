"""Generated files are written whole, and what somebody edited stays."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsys.deployment.write import UNCHANGED, WRITTEN, is_ours, mark, write_files
from fedsys.errors import StorageError, UsageError

FILES = {"a.service": "one\n", "Containerfile": "two\n"}


def test_files_are_written_and_left_alone_the_second_time(tmp_path):
    folder = tmp_path / "new" / "folder"
    assert set(write_files(folder, FILES).values()) == {WRITTEN}
    assert (folder / "a.service").read_text().endswith("\none\n")
    assert set(write_files(folder, FILES).values()) == {UNCHANGED}


def test_a_file_of_ours_is_replaced_by_a_newer_one(tmp_path):
    write_files(tmp_path, FILES)
    done = write_files(tmp_path, {**FILES, "a.service": "three\n"})
    assert done == {tmp_path / "a.service": WRITTEN, tmp_path / "Containerfile": UNCHANGED}
    assert (tmp_path / "a.service").read_text().endswith("\nthree\n")


def test_an_edited_file_stays_and_nothing_else_is_written_either(tmp_path):
    write_files(tmp_path, FILES)
    edited = tmp_path / "a.service"
    edited.write_text(edited.read_text() + "MemoryMax=2G\n")
    with pytest.raises(UsageError, match=r"a\.service: was edited.*--force"):
        write_files(tmp_path, {"Containerfile": "new\n", "a.service": "three\n"})
    assert edited.read_text().endswith("MemoryMax=2G\n")
    assert (tmp_path / "Containerfile").read_text().endswith("\ntwo\n")
    write_files(tmp_path, {"a.service": "three\n"}, force=True)
    assert is_ours(edited.read_text())


@pytest.mark.parametrize("content", [b"", b"somebody else's", b"\xff\xfe\x00"])
def test_somebody_else_s_file_stays(tmp_path, content):
    (tmp_path / "a.service").write_bytes(content)
    with pytest.raises(UsageError, match="--force"):
        write_files(tmp_path, FILES)
    assert (tmp_path / "a.service").read_bytes() == content


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "a.service").mkdir()
    with pytest.raises(UsageError, match="choose another folder"):
        write_files(tmp_path, FILES)
    (tmp_path / "file").write_text("")
    with pytest.raises((UsageError, StorageError), match="file"):
        write_files(tmp_path / "file" / "below", FILES)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot be written"):
        write_files(tmp_path / "new", FILES)


@given(st.text(), st.text())
def test_only_the_text_that_was_marked_is_ours(text, other):
    text, other = (one.encode("utf-8", "replace").decode() for one in (text, other))
    assert is_ours(mark(text))
    assert is_ours(mark(text) + other) == (other == "")
