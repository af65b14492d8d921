"""A task of several owners' tables: the rows that a deployed federation would have, and a model."""

import pickle
from functools import partial

import numpy as np
import pytest

import fedsys
from fedsys.errors import DataError
from fedsys.partition import Partition
from fedsys.tables import Preparation, merge, prepare, summarise, task_of_sources
from fedsys.tables.portion import Portion
from fedsys.tasks import models
from tests.tables.conftest import people
from tests.tables.test_statistics import Memory


@pytest.fixture
def sources():
    return {name: Memory(people(rows, rows)) for name, rows in [("a", 60), ("b", 100), ("c", 33)]}


def build(schema):
    return partial(models.logistic, (len(schema.inputs),), 1)


def test_each_owner_has_its_rows_as_a_bank_would_prepare_them(schema, sources):
    task = task_of_sources(schema, sources, build(schema))
    merged = merge([summarise(source, schema) for source in sources.values()])
    preparation = Preparation.derive(schema, merged)
    assert task.owners == ("a", "b", "c")
    for number, rows in enumerate(Partition.of(task.train.owners, 3)):
        expected = prepare(list(sources.values())[number], schema, preparation)
        np.testing.assert_array_equal(task.train.inputs[rows], expected.inputs)
        np.testing.assert_array_equal(task.train.labels[rows], expected.labels)
    assert task.prepared == {"inputs": list(schema.inputs), **preparation.table()}
    assert Preparation.of({key: task.prepared[key] for key in ("schema", "scalings")}, schema)
    np.testing.assert_array_equal(task.test.inputs, task.train.inputs)
    assert task.client_test is None
    assert pickle.loads(pickle.dumps(task.model))().count_params() == len(schema.inputs) + 1


def test_a_preparation_that_was_agreed_on_is_taken(schema, sources):
    agreed = Preparation.derive(schema, summarise(sources["b"], schema))
    task = task_of_sources(schema, sources, build(schema), preparation=agreed)
    np.testing.assert_array_equal(
        task.train.inputs[:60], prepare(sources["a"], schema, agreed).inputs
    )


def test_rows_to_evaluate_on_are_nobodys_or_their_owners(schema, sources):
    train = {name: sources[name] for name in ("a", "b")}
    nobodys = task_of_sources(schema, train, build(schema), test=sources["c"])
    assert (len(nobodys.train), len(nobodys.test)) == (160, 33)
    assert nobodys.client_test is None
    kept = {"b": sources["c"], "a": Memory(people(20, 1))}
    task = task_of_sources(schema, train, build(schema), test=kept)
    np.testing.assert_array_equal(np.bincount(task.client_test.owners), [20, 33])
    np.testing.assert_array_equal(task.test.inputs, task.client_test.inputs)
    np.testing.assert_array_equal(nobodys.test.inputs, task.test.inputs[:33])


def test_it_is_simulated_and_its_rows_can_be_pooled(schema, sources, tmp_path, no_pictures):
    task = task_of_sources(schema, sources, build(schema), name="people")
    local = fedsys.Local(epochs=1, batch=16, rate=0.1)
    experiment = fedsys.Experiment(rounds=2, local=local)
    run = fedsys.simulate(experiment, task=task, folder=tmp_path / "run")
    assert run.facts["clients"] == 3
    pooled = fedsys.Experiment(rounds=2, local=local, partition="iid", clients=1)
    run = fedsys.simulate(pooled, task=task, folder=tmp_path / "pooled")
    assert run.facts["clients"] == 1
    assert run.facts["rows"] == 193


def test_an_owner_with_too_few_rows_to_speak_of_is_refused(schema, sources):
    with pytest.raises(DataError, match="too few to say anything of"):
        task_of_sources(schema, {**sources, "d": Memory(people(5))}, build(schema))


@pytest.mark.parametrize("kind", ["csv", "parquet", "sql"])
def test_a_portion_is_as_if_the_source_had_only_those_rows(saved, schema, kind, monkeypatch):
    monkeypatch.setattr("fedsys.tables.sources.CELLS", 60)  # chunks of few rows
    table = people(120)
    chosen = np.random.default_rng(0).random(120) < 0.5
    chosen[30:60] = False  # chunks of which nothing is left
    portion = Portion(saved(table, kind), chosen)
    expected = Memory(table[chosen].reset_index(drop=True))
    one, other = summarise(portion, schema), summarise(expected, schema)
    assert (one.rows, one.counts) == (other.rows, other.counts)
    assert one.mean("income") == pytest.approx(other.mean("income"), rel=1e-12)
    preparation = Preparation.derive(schema, summarise(expected, schema))
    one, other = prepare(portion, schema, preparation), prepare(expected, schema, preparation)
    np.testing.assert_array_equal(one.inputs, other.inputs)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.rows, np.arange(chosen.sum()))
