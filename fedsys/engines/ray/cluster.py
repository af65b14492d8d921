"""A Ray to work on: one of our own on this machine, or somebody's cluster."""

from __future__ import annotations

import logging
import os
import socket
import sys
import warnings
from typing import Any

from fedsys.engines.ray.messages import Opening
from fedsys.errors import EngineError

KNOCK = 5.0
"""Seconds in which a cluster's address must take a connection."""

RECONNECT = 5
"""Seconds after which a Ray of our own counts its lost control process as dead."""

PROBE = 60.0
"""Seconds in which every node must say what is installed there."""


def start(opening: Opening) -> None:
    """Starts a Ray of our own, whose processes listen on this machine's loopback alone."""
    import ray
    from ray._private import services

    # Ray puts the machine's address in place of 127.0.0.1, and would listen to the network.
    # Not public: where a new version has it no more, Ray listens as it likes.
    if hasattr(services, "resolve_ip_for_localhost"):
        services.resolve_ip_for_localhost = lambda host: host
    assert opening.workers is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            address="local",
            num_cpus=opening.workers * opening.threads,
            object_store_memory=opening.store,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            _temp_dir=opening.folder,
            _system_config={"gcs_rpc_server_reconnect_timeout_s": RECONNECT},
        )


def join(address: str, threads: int) -> int:
    """Joins a cluster and returns for how many workers it has free cores.

    Raises EngineError where nobody answers, or with another version.
    """
    import ray

    _knock(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises whatever it meets
        raise EngineError(_refusal(address, error)) from error
    free = int(ray.available_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
    if free < threads:
        raise EngineError(
            f"the Ray at {address} has {free} free cores, and a worker needs {threads}: "
            "wait for others, or add nodes"
        )
    return free // threads


def check_nodes(address: str, version: str) -> None:
    """Raises EngineError that names a node without this version of fedsys."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(num_cpus=0, max_retries=0)(_installed)
    nodes = [node for node in _nodes() if node["Resources"].get("CPU")]
    asked = {
        probe.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(): node
        for node in nodes
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE)
    for answer in answered:
        node = _name(asked[answer])
        try:
            found, missing = ray.get(answer)
        except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
            continue  # it is gone, and Ray has not noticed yet: workers go elsewhere
        except ray.exceptions.RayError as error:
            raise EngineError(f"node {node} of the Ray at {address}: {_line(error)}") from error
        if missing:
            raise EngineError(
                f"node {node} of the Ray at {address}: {missing} is not installed there: "
                f"pip install fedsys=={version}"
            )
        if found != version:
            raise EngineError(
                f"node {node} of the Ray at {address} has fedsys {found}, and here is {version}: "
                f"pip install fedsys=={version} there"
            )
    for answer in silent:
        raise EngineError(
            f"node {_name(asked[answer])} of the Ray at {address} does not answer within "
            f"{PROBE:.0f} s: see `ray status` there"
        )


def _installed() -> tuple[str, str]:
    """The version of fedsys, and what is missing. Sent whole: it may not import fedsys."""
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    for package in ("fedsys", "tensorflow"):
        try:
            if find_spec(package) is None:
                return "", package
        except ImportError:
            return "", package
    try:
        return version("fedsys"), ""
    except PackageNotFoundError:
        return "", "fedsys"


def _knock(address: str) -> None:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        if not host or not 0 < int(port) < 65536:
            raise ValueError
    except ValueError:
        raise EngineError(
            f"{address!r} is no address of a Ray: write HOST:PORT or ray://HOST:PORT"
        ) from None
    try:
        socket.create_connection((host.strip("[]"), int(port)), KNOCK).close()
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
        option = "ray-client-server-port" if address.startswith("ray://") else "port"
        raise EngineError(
            f"no Ray answers at {address} ({reason}): start one with "
            f"`ray start --head --{option}={port}` there, or leave out --ray"
        ) from None


def _refusal(address: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "ersion" in text and ("ismatch" in text or "differ" in text):
        import ray

        python = ".".join(map(str, sys.version_info[:3]))
        return (
            f"the Ray at {address} is of another version than here (Ray {ray.__version__}, "
            f"Python {python}): {text}: install the same in both places"
        )
    if "raylet" in text.lower() or "node" in text.lower():
        return (
            f"this machine is no node of the Ray at {address}: start one with "
            f"`ray start --address={address}`, or use ray://HOST:10001 ({_line(error)})"
        )
    return f"the Ray at {address} cannot be joined: {_line(error)}"


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _name(node: dict[str, Any]) -> str:
    return str(node.get("NodeManagerHostname") or node.get("NodeManagerAddress") or node["NodeID"])


def _line(error: BaseException) -> str:
    """What an error says, short."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def shared_memory_left(folder: str) -> int:
    """Bytes free for the shared memory of a Ray on this machine."""
    place = "/dev/shm" if os.path.isdir("/dev/shm") else folder
    stat = os.statvfs(place)
    return stat.f_bavail * stat.f_frsize
