"""When a job goes on without a bank: it follows from the lines of its rounds alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsys.admission import Reason
from fedsys.federation.jobs.quarantine import LIMIT, Quarantine, quarantine, round_lines

BAD = [Reason.FINITE, Reason.SHAPE, Reason.WEIGHT, Reason.FORMAT]
AWAY = [Reason.LOST, Reason.LATE, Reason.FAILED]


def lines(*rounds: str | None) -> list[dict[str, object]]:
    """Lines of rounds in which bank-b sent what is said; None is a good update."""
    return [
        {
            "round": number,
            "banks": ["bank-a"] if reason else ["bank-a", "bank-b"],
            "missing": {"bank-b": str(reason)} if reason else {},
        }
        for number, reason in enumerate(rounds, 1)
    ]


def test_three_refused_updates_in_a_row_are_enough():
    assert quarantine(lines(BAD[0], BAD[1])).banks == {}
    assert quarantine(lines(BAD[0], BAD[1], BAD[2])).banks == {"bank-b": str(BAD[2])}


def test_a_good_update_makes_good_for_those_before():
    assert quarantine(lines(BAD[0], BAD[0], None, BAD[0], BAD[0])).banks == {}


@pytest.mark.parametrize("reason", AWAY)
def test_who_was_away_or_said_that_it_cannot_is_not_refused(reason):
    assert quarantine(lines(*[reason] * 9)).banks == {}
    assert quarantine(lines(BAD[0], BAD[0], reason, BAD[0])).banks, "and has made nothing good"


def test_whoever_resumes_forgives():
    said = lines(*BAD[:LIMIT], None)
    said[-1] = {**said[-1], "banks": ["bank-a"]}  # it was not asked
    assert quarantine(said).banks
    assert quarantine(said, forgiven=4).banks == {}
    assert quarantine([*said, {**said[0], "round": 5}], forgiven=4).refused == {
        "bank-b": (str(BAD[0]),)
    }


@given(st.lists(st.none() | st.sampled_from([*BAD, *AWAY]), max_size=12), st.integers(0, 12))
def test_a_coordinator_that_starts_again_comes_to_the_same(sent, killed_after):
    said = lines(*sent)
    at_once = Quarantine()
    for line in said:
        at_once = at_once.after(line)
    again = quarantine(said[:killed_after])
    for line in said[killed_after:]:
        again = again.after(line)
    assert again == at_once


def test_only_whole_lines_of_rounds_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert round_lines(path) == []
    path.write_text(json.dumps({"round": 1}) + '\n{"round": 2')
    assert round_lines(path) == [{"round": 1}]
