"""What a bank's officer reads about the statistics is what leaves, and its hash changes with it."""

from dataclasses import replace

from fedsys.tables import StatisticsRequest, schema_of, summarise
from tests.tables.conftest import SCHEMA, people
from tests.tables.test_statistics import Memory


def test_every_number_that_leaves_is_named(schema):
    asked = StatisticsRequest("eu-credit", schema)
    summary = summarise(Memory(people(100)), schema)
    said = asked.columns()
    assert set(said) == {*summary.numbers, *summary.counts}
    for name, numbers in summary.numbers.items():
        assert "mean and variance" in said[name]
        steps = len(numbers.below)
        assert (f"counts at {steps:,} steps" in said[name]) == bool(steps)
    assert "Ulm, Bern, Linz, others or missing" in said["town"]
    assert "no, yes or missing" in said["default"]


def test_an_officer_reads_all_of_it(schema):
    asked = StatisticsRequest("eu-credit", schema)
    text = asked.text()
    for part in (asked.digest, "eu-credit", "At least 10 rows", *asked.columns()):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100
    assert asked.table()["minimum"] == 10


def test_a_long_name_has_a_line_of_its_own(schema):
    column = replace(schema.columns[0], name="n" * 60)
    text = StatisticsRequest("eu-credit", replace(schema, columns=(column,))).text()
    assert f"  {'n' * 60}\n" in text


def test_another_schema_or_federation_is_another_request(schema):
    asked = StatisticsRequest("eu-credit", schema)
    stricter = schema_of(SCHEMA.replace("minimum = 10", "minimum = 11"))
    others = [StatisticsRequest("us-fraud", schema), StatisticsRequest("eu-credit", stricter)]
    assert asked.digest not in {other.digest for other in others}
    again = StatisticsRequest("eu-credit", replace(schema, title="for people"))
    assert again.digest == asked.digest
