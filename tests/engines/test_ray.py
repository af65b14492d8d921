"""The Ray engine over two nodes: the compiled engine's numbers, whoever dies on the way."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from fedsys.engines import Compiled, Ray
from fedsys.errors import EngineError, UsageError
from fedsys.local import Local
from fedsys.task import Examples, Task

from ..conftest import until
from ..federations import linear_model
from .ray_federations import Deadly, Poison, Slow, ragged_task, same, setting, states

pytest.importorskip("ray.cluster_utils", reason="needs ray")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """So that even these little cohorts are cut into as many shards as there are workers."""
    monkeypatch.setattr("fedsys.lanes.WORTHWHILE", 1.0)
    monkeypatch.setattr("fedsys.engines.ray.shards.WORTHWHILE", 1.0)


@contextmanager
def on_ray(cluster, given, workers=2, **options):
    with Ray(cluster.address, **options).open(given, workers) as engine:
        yield engine


def compiled(given, rounds=None):
    with Compiled().open(given, 1) as engine:
        return states(given, engine, rounds)


@pytest.mark.parametrize(
    "strategy, more",
    [
        ("fedadam:0.1", {"cohort": 10, "weighting": "uniform"}),
        ("scaffold", {}),
        ("fedavg", {"faults": "times-100:0.2", "aggregator": "median"}),
    ],
    ids=["fedadam", "scaffold", "median"],
)
def test_two_nodes_come_to_what_one_process_comes_to(cluster, strategy, more):
    given = setting(strategy, **more)
    with on_ray(cluster, given, data="homes" if strategy == "scaffold" else "shared") as engine:
        same(states(given, engine), compiled(given))
        assert engine.facts["where"] == "Ray, 2 workers on 2 nodes"


def test_the_same_number_of_workers_gives_the_same_bits_even_where_one_dies(
    cluster, tmp_path, caplog
):
    mark = tmp_path / "mark"
    given = setting(Deadly(mark=str(mark)), faults="any:0.2")
    with on_ray(cluster, given) as engine:
        first = states(given, engine)
        assert mark.exists()
        same(states(given, engine), first, atol=0)
    said = "\n".join(caplog.messages)
    assert "died: its process ended" in said
    assert "round 1: clients" in said and "will be trained again by another worker" in said
    same(first, compiled(given))


def test_a_home_holds_its_own_rows_alone_and_reads_them_again_for_a_worker_that_dies(
    cluster, tmp_path
):
    """Rows that lie in a file are read where they are needed, and nobody sends them."""
    mark, path, task = tmp_path / "mark", tmp_path / "rows.npy", ragged_task()
    np.save(path, task.train.inputs)
    mapped = Examples(np.load(path, mmap_mode="r"), task.train.labels, task.train.owners)
    own = Task("mapped", task.model, mapped, task.test, "squared")
    given = setting(Deadly(mark=str(mark)), own)
    with on_ray(cluster, given, data="homes") as engine:
        assert sum(held.rows for held in engine.held) == len(task.train)
        assert max(held.rows for held in engine.held) < 0.6 * len(task.train)
        got = states(given, engine)
        assert engine.facts["data"] == "homes" and mark.exists()
    same(got, compiled(given))


def test_a_workers_memory_holds_the_rows_of_its_own_clients_alone(cluster, tmp_path):
    """One worker is home to a client of many rows, the other to one of few."""
    sizes, features = [40_000, 1_000], 1_000
    path, count = tmp_path / "rows.npy", sum(sizes)
    np.lib.format.open_memmap(path, "w+", np.float32, (count, features)).flush()
    inputs = np.load(path, mmap_mode="r")
    rows = Examples(inputs, np.zeros(count, np.float32), np.repeat([0, 1], sizes))
    few = Examples(np.zeros((2, features), np.float32), np.zeros(2, np.float32))
    wide = Task("wide", partial(linear_model, features, "float32"), rows, few, "squared")
    with on_ray(cluster, setting(task=wide, cohort=2), data="homes") as engine:
        many, little = sorted(engine.held, key=lambda held: -held.rows)
    assert [many.rows, little.rows] == sizes
    assert many.resident - little.resident > 0.8 * (many.bytes - little.bytes)


def test_a_node_that_is_lost_amid_a_round_loses_nothing(cluster, tmp_path, caplog):
    mark = tmp_path / "mark"
    given = setting(Slow(mark=str(mark), seconds=2.0))
    third = cluster.add_node(num_cpus=4, object_store_memory=2**27)
    # As many workers as there are cores, so that the third node has its share of them.
    with on_ray(cluster, given, workers=4, data="shared") as engine:
        assert engine.facts["nodes"] == 3

        def lose():
            until(mark.exists)
            cluster.remove_node(third, allow_graceful=False)

        losing = threading.Thread(target=lose)
        losing.start()
        got = states(given, engine, 1)
        losing.join()
    assert "will be trained again by another worker" in "\n".join(caplog.messages)
    same(got, compiled(setting(), 1))


def test_clients_that_end_every_worker_are_named(cluster):
    given = setting(faults=Poison(client=5), cohort=5)
    with (
        pytest.raises(EngineError, match=r"round 1: 3 workers died one after another of .*\b5\b"),
        on_ray(cluster, given, 1) as engine,
    ):
        states(given, engine)


def test_a_mistake_is_told_as_in_this_process(cluster):
    given = setting(local=Local(epochs=10**8, batch=4), cohort=10, rounds=1)
    with (
        pytest.raises(UsageError, match=r"more than the .* that can be planned at once"),
        on_ray(cluster, given, 1) as engine,
    ):
        states(given, engine)


def test_more_workers_than_there_is_room_for_are_refused(cluster):
    with (
        pytest.raises(EngineError, match="free cores for 4 workers of 1 thread, not 9: lower"),
        on_ray(cluster, setting(), workers=9),
    ):
        pass


def test_a_node_without_fedsys_is_named(cluster, tmp_path):
    """Python there finds no such package: told before any worker is put on the node."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'fedsys' else found(name)\n"
    )
    bare = cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(tmp_path)})
    try:
        with (
            pytest.raises(EngineError, match=r"node .* fedsys is not installed there: pip install"),
            on_ray(cluster, setting()),
        ):
            pass
    finally:
        cluster.remove_node(bare)
