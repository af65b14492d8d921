"""Runs app folders on Flower's own simulation, one after the other: the other side of a parity.

python ray_side.py CPUS [FOLDER WHERE NODES CONFIG]...   CONFIG is JSON; WHERE is the app's working
directory. Ray's processes are children of this one and go when it ends.
"""

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

os.environ |= {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # it ends clients where others fill the memory
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def run(folder: Path, where: Path, nodes: int, config: dict, cpus: int) -> float:
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
            "init_args": {"num_cpus": cpus, "log_to_driver": False, "address": "local"},
        },
        client_app_attr=components["clientapp"],
        server_app_attr=components["serverapp"],
        server_app_context=context,
        app_dir=str(folder),
        run=record,
        is_app=True,
    )
    return time.monotonic() - started


def main() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # with the tests, however they end
    cpus, rest = int(sys.argv[1]), sys.argv[2:]
    for number in range(0, len(rest), 4):
        folder, where, nodes, config = rest[number : number + 4]
        seconds = run(Path(folder), Path(where), int(nodes), json.loads(config), cpus)
        print(f"{Path(folder).name}: {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # Flower's threads would go on for an hour
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
