"""The coordinator's list of banks."""

import pytest

from fedsys.errors import IdentityError, StorageError, UsageError
from fedsys.federation.banks import Banks
from fedsys.trust.keys import PublicKeys, make_keys


@pytest.fixture
def banks(tmp_path):
    return Banks(tmp_path / "banks.json")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return [make_keys(folder / str(number)).public for number in range(3)]


def test_a_bank_takes_part_only_when_it_is_approved(banks, keys):
    assert banks.all() == []
    banks.add("bank-a", keys[0])
    banks.add("bank-b", keys[1])
    assert banks.approved() == []
    banks.approve("bank-b")
    assert [bank.name for bank in banks.approved()] == ["bank-b"]
    banks.approve("bank-b", False)
    assert banks.approved() == []


def test_a_bank_keeps_its_number_and_new_keys_are_to_be_approved_anew(banks, keys):
    for name, key in zip(("bank-a", "bank-b"), keys, strict=False):
        banks.add(name, key)
        banks.approve(name)
    again = banks.add("bank-a", keys[2])
    assert (again.number, again.approved) == (0, False)
    assert [(bank.name, bank.number) for bank in banks.all()] == [("bank-a", 0), ("bank-b", 1)]
    assert banks.get("bank-a").keys == keys[2]


def test_a_nodes_key_is_as_flower_stores_it(banks, tmp_path):
    made = make_keys(tmp_path / "keys")
    assert banks.add("bank-a", made.public).node_public == made.node_public


def test_what_is_no_key_is_refused_and_leaves_the_list_alone(banks, keys):
    banks.add("bank-a", keys[0])
    for bad in (PublicKeys("x", keys[0].signing), PublicKeys(keys[0].node, keys[0].node)):
        with pytest.raises(IdentityError):
            banks.add("bank-b", bad)
    assert [bank.name for bank in banks.all()] == ["bank-a"]


def test_a_bank_that_is_not_there_is_named(banks, keys):
    with pytest.raises(UsageError, match="no bank has enrolled here yet"):
        banks.get("bank-a")
    banks.add("bank-a", keys[0])
    with pytest.raises(UsageError, match="did you mean 'bank-a'"):
        banks.approve("bank-aa")


def test_a_damaged_list_is_a_storage_error(banks, tmp_path):
    for text in ("{", "[]", '{"bank-a": {"name": 1}}'):
        (tmp_path / "banks.json").write_text(text)
        with pytest.raises(StorageError, match="damaged"):
            banks.all()
