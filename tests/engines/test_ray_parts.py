"""What the Ray engine is made of, without a Ray: shards, homes, parcels, and what is said."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from fedsys.engine import Work, merged
from fedsys.engines import Compiled
from fedsys.engines.ray.parcels import Mapped, Reader, Recipe, packed, reader_of, unpacked
from fedsys.engines.ray.shards import Cutter, homes
from fedsys.errors import DataError, UsageError
from fedsys.local import Local
from fedsys.partition import Partition
from fedsys.rounds import begin
from fedsys.task import Examples, Task

from .ray_federations import LOCAL, SIZES, Slow, ragged_task, setting

pytest.importorskip("ray", reason="needs ray")


@drawn(
    st.lists(st.integers(0, 50), min_size=1, max_size=40),
    st.integers(1, 6),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_every_client_of_a_cohort_is_in_one_shard(sizes, workers, apart, random):
    start = np.concatenate([[0], np.cumsum(sizes)])
    partition = Partition(np.arange(sum(sizes)), start)
    home = homes(partition.sizes, workers) if apart else None
    cutter = Cutter(partition, LOCAL, 10**9, workers, home)
    cohort = np.array(sorted(random.sample(range(len(sizes)), random.randint(1, len(sizes)))))
    shards = cutter.shards(cohort)
    assert len(shards) <= workers
    np.testing.assert_array_equal(np.sort(np.concatenate(shards)), cohort)
    if home is not None:
        for worker, shard in enumerate(shards):
            assert (home[shard] == worker).all()


@drawn(st.lists(st.integers(0, 1000), min_size=1, max_size=200), st.integers(1, 8))
def test_homes_hold_about_as_many_rows_each(sizes, workers):
    sizes = np.array(sizes)
    home = homes(sizes, workers)
    loads = np.bincount(home, weights=sizes, minlength=workers)
    assert loads.max() - loads.min() <= 2 * sizes.max()


def test_a_small_cohort_is_one_shard():
    partition = Partition(np.arange(10), np.arange(11))
    assert len(Cutter(partition, LOCAL, 10, 4).shards(np.arange(10))) == 1


def test_a_part_of_a_mapped_array_is_found_again_in_its_file(tmp_path):
    path, whole = tmp_path / "a.npy", np.arange(5000 * 3.0).reshape(5000, 3)
    np.save(path, whole)
    array = np.load(path, mmap_mode="r")
    for part in (array, array[1234:], array[1000:3000]):
        mapped = Mapped.of(part)
        assert mapped is not None
        np.testing.assert_array_equal(unpacked(packed(mapped, "a map")).open(), part)
    assert Mapped.of(array[::2]) is None and Mapped.of(whole) is None
    path.unlink()
    with pytest.raises(DataError, match=r"a\.npy: cannot be mapped here"):
        mapped.open()


def test_a_map_is_sent_by_its_name_alone(tmp_path):
    task, path = ragged_task(), tmp_path / "rows.npy"
    np.save(path, np.zeros((len(task.train), 4), np.float32))
    rows = Examples(np.load(path, mmap_mode="r"), task.train.labels, task.train.owners)
    given = setting(task=Task("mapped", task.model, rows, task.test, "squared"))
    reader = reader_of(given)
    assert reader is not None and reader.inputs is not None
    assert reader.rows(np.array([3, 1])).inputs.shape == (2, 4)
    assert reader_of(setting()) is None  # its rows are in this process's memory alone


def test_other_data_than_where_the_run_began_are_refused():
    other = replace(ragged_task().train, inputs=np.zeros((90, 5), np.float32))

    class Named:
        def load(self):
            return Task("other", None, other, other, "squared")

    reader = Reader(Named(), ".", None, None, (90, 4), "<f4")
    with pytest.raises(DataError, match=r"shape \(90, 5\), but float32 of shape \(90, 4\)"):
        reader.rows(np.arange(3))


def test_what_cannot_travel_is_said_in_a_line():
    lock = threading.Lock()
    task = ragged_task()
    own = Task("own", lambda: lock and task.model(), task.train, task.test, "squared")
    recipe = Recipe.of(setting(task=own), None, 1, None)
    with pytest.raises(UsageError, match=r"task 'own' cannot be sent to workers: .*lock"):
        recipe.packed()


def test_a_strategy_of_the_users_travels_whole():
    """Its module is none that a worker could import."""
    data = packed(Slow(mark="m"), "a strategy")
    assert b"Takes its time" in data or b"sleep" in data
    assert unpacked(data).mark == "m"


@pytest.mark.parametrize("apart", [False, True], ids=["shared", "homes"])
@pytest.mark.parametrize(
    ("strategy", "aggregator"),
    [("fedavg", "mean"), ("fedprox:0.1", "mean"), ("fedadam:0.1", "mean"), ("scaffold", "mean"),
     ("fedavg", "krum:1,2"), ("fedavg", "clipped:0.2")],
)  # fmt: skip
def test_workers_add_up_to_what_one_process_comes_to(monkeypatch, strategy, aggregator, apart):
    """Workers in this process: the parts of the engine without a Ray between them."""
    from fedsys.engines.ray import worker
    from fedsys.engines.ray.engine import _of, _part

    monkeypatch.setattr(worker, "_node", lambda: "here")
    said = {"cohort": len(SIZES), "faults": "any:0.2", "compiler": "graph"}
    given = setting(strategy, aggregator=aggregator, **said)
    home = homes(given.partition.sizes, 3)
    cutter = Cutter(given.partition, Local(**vars(LOCAL)), 10**9, 3, home if apart else None)
    recipe = np.frombuffer(Recipe.of(given, False, 1, None).packed(), np.uint8)
    team = []
    for place in range(3):
        part = _part(given, home == place) if apart else None
        order = part[0] if part else given.partition.order
        rows = given.task.train.inputs[order], given.task.train.labels[order]
        one = worker.Worker()
        assert one.open(recipe, part, *rows).rows == len(order)
        team.append(one)
    state = begin(given.experiment.strategy, given.layout, given.weights)
    work = Work(1, np.arange(len(SIZES)), state.weights, state.server, {})
    sent = np.frombuffer(packed((work.anchor, work.state), "it"), np.uint8)
    partials = [
        one.run(1, shard, sent, _of(shard, work.memory), None)
        for one, shard in zip(team, cutter.shards(work.cohort), strict=True)
    ]
    remembers = given.experiment.strategy.remembers
    sums = merged(partials, given.layout, remembers=remembers)
    got = sums.aggregate(given.layout.dtype, given.experiment.aggregator)
    with Compiled().open(given, 1) as engine:
        expected = engine.run(work)
    np.testing.assert_allclose(got.delta, expected.delta, atol=1e-6)
    np.testing.assert_array_equal(got.admitted, expected.admitted)
    np.testing.assert_allclose(got.losses, expected.losses, rtol=1e-5)
    assert [r.client for r in got.refused] == [r.client for r in expected.refused]
    assert got.weight == expected.weight and got.empty == expected.empty == 1
    assert got.memory.keys() == expected.memory.keys()


def test_another_version_of_ray_is_told_as_such():
    """In the words of Ray's own check, which a cluster's other version sets off."""
    import ray
    from ray._private.utils import check_version_info

    from fedsys.engines.ray.cluster import _refusal

    found = {"ray_version": "2.0.0", "python_version": "3.8.1"}
    with pytest.raises(RuntimeError) as refused:
        check_version_info(found, "a process", raise_on_mismatch=True)
    line = _refusal("host:6379", refused.value)
    assert "the Ray at host:6379 is of another version than here" in line
    assert ray.__version__ in line and "2.0.0" in line and "\n" not in line
