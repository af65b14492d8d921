"""What an aggregator needs is looked at before anything runs, and told in one line."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedsys.aggregators import Clipped, Krum, Mean, Median, TrimmedMean
from fedsys.aggregators.bounds import check_cohort, check_quorum, check_strategy
from fedsys.errors import UsageError
from fedsys.experiment import Experiment
from fedsys.strategies import FedAvg, Scaffold

RULES = [Median(), TrimmedMean(1), TrimmedMean(3), Krum(1), Krum(2), Krum(1, 4), Mean()]


@settings(deadline=None)
@given(st.sampled_from(RULES), st.floats(0.01, 1), st.integers(1, 200))
def test_a_cohort_is_refused_exactly_where_its_quorum_could_be_too_few(rule, quorum, cohort):
    """Against the round loop's own words: admitted >= quorum * sent."""
    enough = [count for count in range(cohort + 1) if count >= quorum * cohort]
    if enough[0] >= rule.needs:
        check_cohort(rule, quorum, cohort)
    else:
        with pytest.raises(UsageError, match=f"needs {rule.needs} updates"):
            check_cohort(rule, quorum, cohort)


@settings(deadline=None)
@given(st.sampled_from(RULES), st.floats(0.01, 1), st.integers(1, 200))
def test_the_remedy_mends_it(rule, quorum, cohort):
    assume(math.ceil(quorum * cohort) < rule.needs)
    with pytest.raises(UsageError) as refused:
        check_cohort(rule, quorum, cohort)
    remedy = str(refused.value).partition(": raise the ")[2].split(", or ")[0]
    what, _, value = remedy.partition(" to ")
    if what == "quorum":
        check_cohort(rule, float(value), cohort)
    else:
        check_cohort(rule, quorum, int(value))
    if "use median" in str(refused.value):
        check_cohort(Median(), quorum, cohort)


@pytest.mark.parametrize(
    ("rule", "quorum", "line"),
    [
        (Krum(1), 3, "aggregator krum:1 needs 5 updates and the quorum is 3: raise the quorum to "
                     "5, or use median"),
        (Median(), 2, "aggregator median needs 3 updates and the quorum is 2: raise the quorum "
                      "to 3"),
        (TrimmedMean(2), 4, "aggregator trimmed:2 needs 5 updates and the quorum is 4: raise the "
                            "quorum to 5, or use median"),
    ],
)  # fmt: skip
def test_a_quorum_of_banks_that_is_too_small_is_told_with_the_remedy(rule, quorum, line):
    with pytest.raises(UsageError) as refused:
        check_quorum(rule, quorum)
    assert str(refused.value) == line
    check_quorum(rule, rule.needs)


def test_an_experiment_is_refused_when_it_is_made():
    with pytest.raises(UsageError, match=r"cohort of 8 may move on 4: raise the quorum to 0\.63"):
        Experiment(cohort=8, aggregator="krum:1")
    Experiment(cohort=8, aggregator="krum:1", quorum=0.63)
    with pytest.raises(UsageError, match=r"cohort of 3 may move on 2: raise the quorum to 1$"):
        Experiment(cohort=3, aggregator="median")
    with pytest.raises(UsageError, match=r"needs 5 updates.* raise the cohort to 9$"):
        Experiment(cohort=4, aggregator=Krum(1))


def test_a_strategy_whose_clients_send_more_than_updates_is_refused():
    for rule in (Median(), TrimmedMean(1), Krum(1), Clipped(1.0)):
        with pytest.raises(UsageError, match=r"strategy 'scaffold' .*, or the mean"):
            check_strategy(rule, Scaffold())
        check_strategy(rule, FedAvg())
    check_strategy(Mean(), Scaffold())
    with pytest.raises(UsageError, match="aggregator median does not guard"):
        Experiment(strategy="scaffold", aggregator="median")


REFUSED = [
    (["--aggregator", "medain"], ["unknown aggregator 'medain'; did you mean 'median'"]),
    (["--aggregator", "krum"], ["aggregator: 'krum' needs faulty"]),
    (["--aggregator", "krum:0"], ["aggregator.faulty must be at least 1"]),
    (["--aggregator", "krum:1,0"], ["aggregator.keep must be at least 1"]),
    (["--aggregator", "trimmed:x"], ["aggregator.faulty must be a whole number, not 'x'"]),
    (["--aggregator", "clipped:0"], ["aggregator.bound must be above 0"]),
    (["--aggregator", "clipped:inf"], ["aggregator.bound must be finite"]),
    (["--aggregator", "clipped:nan"], ["aggregator.bound must be above 0, not nan"]),
    (["--aggregator", "median:1"], ["'median' takes at most 0 values"]),
    (["--aggregator", "median", "--strategy", "scaffold"], ["strategy 'scaffold'", "or the mean"]),
    (["--aggregator", "krum:2", "--clients", "20", "--cohort", "10"],
     ["aggregator krum:2 needs 7 updates", "cohort of 10 may move on 5", "quorum to 0.7",
      "or use median"]),
    # Where the data say how many clients there are: ten of a hundred, unless said.
    (["--aggregator", "krum:2", "--task", "synthetic"], ["needs 7 updates", "quorum to 0.7"]),
    (["--aggregator", "trimmed:6", "--task", "synthetic"], ["raise the cohort to 25"]),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "parts"), REFUSED, ids=lambda value: value[-1])
def test_the_command_line_refuses_in_one_line_before_anything_is_written(cli, arguments, parts):
    outcome = cli("simulate", *arguments)
    outcome.refused(2, *parts)
    assert outcome.err.count("\n") == 1
    assert not list(Path().iterdir())


def test_a_file_says_it_as_a_name_or_as_a_table(tmp_path):
    path = tmp_path / "my.toml"
    for said, rule in {
        'aggregator = "krum:1,2"': Krum(1, 2),
        '[aggregator]\nname = "krum"\nfaulty = 1': Krum(1),
        '[aggregator]\nname = "clipped"\nbound = 2': Clipped(2.0),
        "": Mean(),
        'aggregator = "mean"': Mean(),
    }.items():
        path.write_text(said)
        assert Experiment.read(path).aggregator == rule


def test_an_experiment_without_one_has_the_name_that_it_had_before():
    table = Experiment().table()
    assert "aggregator" not in table
    assert Experiment(aggregator="mean").name == Experiment().name
    robust = Experiment(aggregator="trimmed:2")
    assert robust.table()["aggregator"] == {"name": "trimmed", "faulty": 2}
    assert (
        robust.trajectory != Experiment().trajectory != Experiment(aggregator="median").trajectory
    )


def test_what_a_notebook_gives_is_a_plain_number():
    """A number of faulty clients out of np.arange is written as any other."""
    assert Experiment(aggregator=Krum(np.int64(1))).name == Experiment(aggregator="krum:1").name
