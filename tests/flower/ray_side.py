"""Runs app folders on Flower's own simulation, one after the other: the other side of a parity.

python ray_side.py CPUS [FOLDER WHERE NODES CONFIG]...   CONFIG is JSON; WHERE is the app's working
directory. Ray's processes are children of this one and go when it ends.

One Ray serves all apps, where each would begin one of its own. Flower imports TensorFlow wherever
it finds it, here and in every actor: it finds none where an app does not ask for it.
"""

import ctypes
import json
import os
import signal
import sys
import time
import tomllib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # it ends clients where others fill the memory
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def run(folder: Path, where: Path, nodes: int, config: dict, address: str) -> float:
    """Runs one app as `flwr run` does in its simulation process; returns the seconds."""
    from flwr.app import Context, RecordDict
    from flwr.common.config import get_fused_config_from_dir, get_project_config
    from flwr.simulation.run_simulation import _run_simulation
    from flwr.supercore.constant import NOOP_FEDERATION_ID
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.supercore.telemetry import EventType

    os.chdir(where)
    components = get_project_config(folder)["tool"]["flwr"]["app"]["components"]
    record = Run.create_empty(4321)
    record.primary_task_id, record.federation_id = 5, NOOP_FEDERATION_ID
    record.override_config = config
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 4321, 1
    context = Context(4321, 1, {}, RecordDict(), get_fused_config_from_dir(folder, config))
    started = time.monotonic()
    _run_simulation(
        num_supernodes=nodes,
        exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0},
            "init_args": {"log_to_driver": False, "address": address},
        },
        client_app_attr=components["clientapp"],
        server_app_attr=components["serverapp"],
        server_app_context=context,
        app_dir=str(folder),
        run=record,
        is_app=True,
    )
    return time.monotonic() - started


@contextmanager
def without(module: str, where: Path) -> Iterator[None]:
    """Lets nobody find a module, in this process and in those to which Flower hands its path."""
    hiding = where / "hiding"
    hiding.mkdir()
    (hiding / f"{module}.py").write_text(f"raise ModuleNotFoundError({module!r})\n")
    kept = os.environ.get("PYTHONPATH", "")
    sys.path.insert(0, str(hiding))
    try:
        yield
    finally:
        sys.path.remove(str(hiding))
        os.environ["PYTHONPATH"] = kept


def main() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # with the tests, however they end
    cpus, rest = int(sys.argv[1]), sys.argv[2:]
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False}
    )
    for number in range(0, len(rest), 4):
        folder, where = Path(rest[number]), Path(rest[number + 1])
        nodes, config = int(rest[number + 2]), json.loads(rest[number + 3])
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        asked = any(each.startswith("tensorflow") for each in project["dependencies"])
        with nullcontext() if asked else without("tensorflow", where):
            seconds = run(folder, where, nodes, config, cluster.address)
        print(f"{folder.name}: {seconds:.1f} s", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # Flower's threads would go on for an hour
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
