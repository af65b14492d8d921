"""Seconds a round of a deployed federation: fedsys and a plain Flower app on Flower's server.

    python -m benchmarks.deployment [--rounds N] [--customers N]

Two banks on loopback, TLS and node authentication on both sides, the same rows, model, batches and
rate: one epoch of a network of 64 and 32 hidden units. Both sides run on Flower's own server and
nodes; the app is as Flower's documentation has one written.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.timing import machine, milliseconds, table, verdict

APP = Path(__file__).parent / "deployed_app"
PART, BEYOND = 1 / 3, 4.0
PATIENCE = 900.0
BANKS = 2


def main(arguments: list[str] | None = None) -> None:
    """Runs both sides and prints what they took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--customers", type=int, default=4000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fedsys-benchmark-") as folder:
        ours, train = fedsys_rounds(Path(folder) / "fedsys", options.rounds, options.customers)
        theirs = flower_rounds(Path(folder) / "flower", Path(folder) / "fedsys", options.rounds)
    part = statistics.median(ours) / statistics.median(theirs)
    beyond = statistics.median(ours) - train
    print(f"{machine()}, flwr {version('flwr')}; {BANKS} banks, {options.customers:,} customers\n")
    rows = [
        ["fedsys", milliseconds(ours)],
        ["plain Flower app", milliseconds(theirs)],
        ["training alone", milliseconds([train])],
    ]
    print(table(["side", "ms a round, median (least)"], rows))
    print()
    rows = [
        ["fedsys / Flower", f"{part:.3f}", f"{PART:.3f}", verdict(part, most=PART)],
        ["s beyond training", f"{beyond:.2f}", f"{BEYOND:.0f}", verdict(beyond, most=BEYOND)],
    ]
    print(table(["figure", "found", "at most", "verdict"], rows))


def fedsys_rounds(folder: Path, rounds: int, rows: int) -> tuple[list[float], float]:
    """(seconds of each round after the first, seconds of a round's training by itself).

    Leaves each bank's prepared rows behind, as an .npz.
    """
    from fedsys.federation.demo import fraud
    from fedsys.federation.demo import run as demo
    from fedsys.federation.jobs.folder import TO_RUN, submit

    fraud.MADE_UP = rows
    shown = fraud.fraud(BANKS)
    made = demo.set_up(shown, folder)
    request = replace(shown.request, rounds=rounds + 1)
    with demo.running(made, lambda line: None) as processes:
        job = submit(made.home, request)
        end = time.monotonic() + PATIENCE
        while job.status.status in TO_RUN:
            for process in processes.values():
                process.check()
            if time.monotonic() > end:
                raise SystemExit("fedsys: the job did not end")
            time.sleep(0.1)
    if job.status.error:
        raise SystemExit(job.status.error)
    lines = [json.loads(line) for line in job.metrics.read_text().splitlines()]
    return [line["seconds"] for line in lines[1:]], _training(made, request)


def _training(made, request) -> float:  # type: ignore[no-untyped-def]
    """Seconds of one bank's training; leaves the rows that Flower's side trains on."""
    from fedsys.clients.trainer import Trainer
    from fedsys.layout import read_weights
    from fedsys.objectives import objective
    from fedsys.tables import Preparation, prepare

    schema = made.home.schema
    said = json.loads((made.home.folder / "preparation.json").read_text())
    longest = 0.0
    for name, bank in made.banks.items():
        examples = prepare(bank.source(), schema, Preparation.of(said, schema)).examples
        path = made.home.folder.parent / f"{name}.npz"
        np.savez(path, inputs=examples.inputs, labels=examples.labels)
        model = request.build(schema)
        weights = read_weights(model)
        trainer = Trainer(
            model, objective("binary"), request.local, request.strategy, examples,
            client=0, weight=1.0, seed=0,
        )  # fmt: skip
        state = request.strategy.begin(weights)
        trainer.train(1, weights, state)
        taken = []
        for round in (2, 3, 4):
            began = time.perf_counter()
            trainer.train(round, weights, state)
            taken.append(time.perf_counter() - began)
        longest = max(longest, statistics.median(taken))
    return longest


def flower_rounds(folder: Path, data: Path, rounds: int) -> list[float]:
    """Seconds of each round after the first of a plain Flower app."""
    from fedsys.flower.processes.superlink import free_port
    from fedsys.trust.identity import issue_server, make_authority
    from fedsys.trust.keys import make_keys

    authority = make_authority(folder / "authority", "benchmark")
    server = issue_server(folder / "server", authority, ["127.0.0.1"])
    port, times = free_port(), folder / "times"
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "127.0.0.1:{port}"\n'
        f'root-certificates = "{authority.certificate_path}"\n'
    )
    environment = {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    link = [
        *("flower-superlink", "--host", "127.0.0.1", "--port", str(port)),
        *("--ssl-ca-certfile", str(authority.certificate_path)),
        *("--ssl-certfile", str(server.certificate_path), "--ssl-keyfile", str(server.key_path)),
        *("--enable-supernode-auth", "--database", str(folder / "state.db")),
        "--disable-runtime-dependency-installation",
    ]
    with _group(link, environment, folder / "superlink.log"):
        _await_port(port)
        for number in range(BANKS):
            keys = make_keys(folder / f"keys-{number}")
            _flwr(environment, "supernode", "register", str(keys.folder / "node.pub"), "bench")
        with _nodes(folder, data, port, authority.certificate_path, environment):
            with np.load(data / "bank-a.npz") as rows:
                inputs = rows["inputs"].shape[1]
            said = f'rounds={rounds + 1} inputs={inputs} times="{times}"'
            _flwr(environment, "run", str(APP), "bench", "--run-config", said)
            end = time.monotonic() + PATIENCE
            while len(_stamps(times)) < rounds + 2:
                if time.monotonic() > end:
                    raise SystemExit("flower: the app did not end: is its log empty?")
                time.sleep(0.1)
    stamps = _stamps(times)
    return [later - sooner for sooner, later in pairwise(stamps[1:])]


@contextmanager
def _nodes(
    folder: Path, data: Path, port: int, authority: Path, environment: dict[str, str]
) -> Iterator[None]:
    from contextlib import ExitStack

    from fedsys.flower.processes.superlink import free_port

    with ExitStack() as stack:
        for number, name in enumerate(("bank-a", "bank-b")):
            command = [
                *("flower-supernode", "--superlink", f"127.0.0.1:{port}"),
                *("--root-certificates", str(authority), "--host", "127.0.0.1"),
                *("--port", str(free_port())),
                *("--auth-supernode-private-key", str(folder / f"keys-{number}" / "node.key")),
                *("--node-config", f'rows="{data / name}.npz"'),
            ]
            stack.enter_context(_group(command, environment, folder / f"{name}.log"))
        yield


@contextmanager
def _group(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """A program of Flower's beside this Python; it and all below it are gone afterwards."""
    program = str(Path(sys.executable).parent / command[0])
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [program, *command[1:]],
            env={**environment, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield
    finally:
        for pid in [process.pid, *_below(process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _below(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                parents[int(entry)] = int(
                    Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1]
                )
    found, fresh = [], [pid]
    while fresh:
        fresh = [child for child, parent in parents.items() if parent in fresh]
        found += fresh
    return found


def _flwr(environment: dict[str, str], *arguments: str) -> None:
    program = str(Path(sys.executable).parent / "flwr")
    ran = subprocess.run(
        [program, *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    if ran.returncode:
        raise SystemExit(f"flwr {arguments[0]}: {(ran.stdout + ran.stderr).strip()[-500:]}")


def _await_port(port: int) -> None:
    import socket

    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise SystemExit("flower-superlink did not start") from None
            time.sleep(0.1)


def _stamps(times: Path) -> list[float]:
    if not times.exists():
        return []
    return [float(line.split()[1]) for line in times.read_text().splitlines() if " " in line]


if __name__ == "__main__":
    main()
