import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsys.errors import UsageError
from fedsys.trust import fingerprints
from fedsys.trust.names import check_address, check_host, check_name


def test_spoken_fingerprints_are_as_written_by_hand():
    assert fingerprints.spoken(bytes(32)) == "0000-0000-0000-0000-0000"
    assert fingerprints.spoken(b"\xff" * 32) == "ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ"
    # 00000 00001 00010 00011 00100 ...: every letter once up to 19
    bits = "".join(f"{n:05b}" for n in range(20)).ljust(104, "0")
    digest = int(bits, 2).to_bytes(13, "big") + bytes(19)
    assert fingerprints.spoken(digest) == "0123-4567-89AB-CDEF-GHJK"


@given(st.binary(min_size=32, max_size=32), st.integers(0, 19))
def test_what_is_heard_is_compared_without_case_and_look_alikes(digest, place):
    said = fingerprints.spoken(digest)
    assert fingerprints.heard(said.lower().replace("-", " ").replace("0", "o"), digest)
    letters = said.replace("-", "")
    other = "2" if letters[place] != "2" else "3"
    assert not fingerprints.heard(letters[:place] + other + letters[place + 1 :], digest)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a..b", "a b", "x" * 64, "ä"])
def test_names_that_are_not_safe_everywhere_are_refused(name):
    with pytest.raises(UsageError):
        check_name(name, "bank")


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "224.0.0.1", "", "a_b", "-x.org", "1.2.3", "a..b", "*.x"]
)
def test_hosts_that_nobody_can_connect_to_are_refused(host):
    with pytest.raises(UsageError):
        check_host(host)


@pytest.mark.parametrize(
    "text, plain",
    [("FL.example.org:8443", "fl.example.org:8443"), ("[2001:DB8::1]:1", "[2001:db8::1]:1")],
)
def test_addresses_have_a_plain_form(text, plain):
    assert check_address(text) == plain


@given(st.text(max_size=80))
def test_any_text_for_an_address_is_one_or_a_usage_error(text):
    try:
        plain = check_address(text)
    except UsageError:
        return
    assert check_address(plain) == plain
