"""Where federations and banks lie, and which of several is meant."""

from pathlib import Path

import pytest

from fedsys import places
from fedsys.errors import UsageError


def make(kind, name, base):
    folder = places.new(kind, name, base)
    folder.mkdir(parents=True)
    (folder / f"{kind}.json").write_text("{}")
    return folder


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDSYS_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("kind", [places.FEDERATION, places.BANK])
def test_the_only_one_is_meant(kind, tmp_path):
    with pytest.raises(UsageError, match=r"no .* lies here.*--home"):
        places.find(kind)
    folder = make(kind, "one", None)
    assert folder.is_relative_to(tmp_path / "home")
    assert places.find(kind) == folder
    assert places.find(kind, "one") == folder
    with pytest.raises(UsageError, match="did you mean 'one'"):
        places.find(kind, "oen")


def test_of_several_one_is_named(tmp_path):
    first = make(places.BANK, "bank-a@eu", None)
    second = make(places.BANK, "bank-a@us", None)
    third = make(places.BANK, "bank-b@us", None)
    with pytest.raises(UsageError, match=r"3 of them.*--bank NAME.*bank-a@eu, bank-a@us"):
        places.find(places.BANK)
    with pytest.raises(UsageError, match="2 of them"):
        places.find(places.BANK, "bank-a")
    assert places.find(places.BANK, "bank-a@us") == second != first
    assert places.find(places.BANK, "bank-b") == third
    assert places.all_of(places.FEDERATION) == {}


def test_a_folder_itself_may_be_named(tmp_path):
    folder = make(places.FEDERATION, "eu", tmp_path / "else")
    assert places.find(places.FEDERATION, None, folder) == folder
    assert places.find(places.FEDERATION, "eu", folder) == folder
    assert places.find(places.FEDERATION, None, tmp_path / "else") == folder


def test_a_folder_that_was_not_finished_is_none(tmp_path):
    places.new(places.FEDERATION, "half").mkdir(parents=True)
    assert places.all_of(places.FEDERATION) == {}


def test_home_is_the_users_where_nothing_is_said(monkeypatch):
    monkeypatch.delenv("FEDSYS_HOME")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert places.data_folder() == Path.home() / ".local" / "share" / "fedsys"
