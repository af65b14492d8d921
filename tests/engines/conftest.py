"""A Ray cluster for the tests of a file, which takes longer to begin than what runs on it."""

import os

import pytest


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of two cores on this machine."""
    utils = pytest.importorskip("ray.cluster_utils", reason="needs ray")
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    node = {"num_cpus": 2, "object_store_memory": 2**27, "include_dashboard": False}
    made = utils.Cluster(initialize_head=True, head_node_args=node)
    made.add_node(num_cpus=2, object_store_memory=2**27)
    yield made
    made.shutdown()
    os.environ.pop("RAY_USAGE_STATS_ENABLED")
    if before is not None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = before
