"""A Flower app of 100 small clients: our grid against Flower's own simulation, in turns."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path

from benchmarks.timing import alternate, machine, megabytes, milliseconds, ratio, table, verdict

APP = Path(__file__).parent / "small_app"
NODES, TURNS = 100, 20
LEAST = 10.0
SIDES = ("ours", "flower")


class Side:
    """A process that runs the app, and goes on by one round when told."""

    def __init__(self, name: str, nodes: int, rounds: int, folder: Path) -> None:
        self.began = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.flower_app", "--side", name]
        command += ["--nodes", str(nodes), "--rounds", str(rounds), "--folder", str(folder)]
        with open(folder / "log.txt", "wb") as self.log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.log,
                text=True,
                start_new_session=True,
            )
        self.folder, self.peak, self.loss = folder, 0, float("nan")
        self._until("round 0")

    def round(self) -> float:
        """Seconds that the next round takes."""
        assert self.process.stdin is not None
        started = time.perf_counter()
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self._until("round")
        taken = time.perf_counter() - started
        self.peak = max(self.peak, tree_bytes(self.process.pid))
        return taken

    def finish(self) -> float:
        """Lets the app end; returns the loss that it came to."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._until("loss").split()[1])

    def _until(self, word: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return line
        raise SystemExit((self.folder / "log.txt").read_text()[-2000:])

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *error: object) -> None:
        """Ends what is left of the process and of its children."""
        for pid in reversed(tree(self.process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, wanted = [], [pid]
    while wanted:
        found.append(wanted.pop())
        wanted += parents.get(found[-1], [])
    return found


def tree_bytes(pid: int) -> int:
    """Memory of a process and all below it; what several share counts once (Linux)."""
    total = 0
    for each in tree(pid):
        with suppress(OSError):
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
            total += sum(int(kilo) * 1024 for kilo in re.findall(r"^Pss: +(\d+) kB", text, re.M))
    return total


def run_ours(nodes: int, rounds: int, folder: Path) -> None:
    from fedsys.flower import run_app

    pairs = [f"rounds={rounds} nodes={nodes}"]
    run_app(APP, run_config=pairs, nodes=nodes, out=folder / "runs")


def run_flower(nodes: int, rounds: int, folder: Path) -> None:
    """As `flwr run` has it in its simulation process, with one core a client: all cores work."""
    from flwr.app import Context, RecordDict
    from flwr.simulation.run_simulation import _run_simulation
    from flwr.supercore.constant import NOOP_FEDERATION_ID
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.supercore.telemetry import EventType

    config = {"rounds": rounds, "nodes": nodes}
    run = Run.create_empty(1234)
    run.primary_task_id, run.federation_id, run.override_config = 5, NOOP_FEDERATION_ID, config
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1234, 1
    _run_simulation(
        num_supernodes=nodes,
        exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0},
            "init_args": {"log_to_driver": False, "address": "local"},
        },
        client_app_attr="client:app",
        server_app_attr="server:app",
        server_app_context=Context(1234, 1, {}, RecordDict(), dict(config)),
        app_dir=str(APP),
        run=run,
        is_app=True,
    )


def measure(nodes: int, turns: int) -> list[list[str]]:
    """The lines of the table."""
    with tempfile.TemporaryDirectory() as top, ExitStack() as stack:
        sides: dict[str, Side] = {}
        begun: dict[str, float] = {}
        for name in SIDES:
            folder = Path(top) / name
            folder.mkdir()
            sides[name] = stack.enter_context(Side(name, nodes, turns + 2, folder))
            sides[name].round()
            begun[name] = time.perf_counter() - sides[name].began
            sides[name].round()  # warm by now
        taken = alternate({name: side.round for name, side in sides.items()}, turns)
        loss = {name: side.finish() for name, side in sides.items()}
        peaks = {name: side.peak for name, side in sides.items()}
    faster = ratio(taken["flower"], taken["ours"])
    return [
        ["a round, ms", *(milliseconds(taken[name]) for name in SIDES), f"{faster:.1f}",
         f">= {LEAST:g}", verdict(faster, least=LEAST)],
        ["start to the end of round 1, s", *(f"{begun[name]:.1f}" for name in SIDES),
         f"{begun['flower'] / begun['ours']:.1f}", "", ""],
        ["memory at the peak, MB", *(megabytes(peaks[name]) for name in SIDES),
         f"{peaks['flower'] / peaks['ours']:.1f}", "", ""],
        ["loss at the end", *(f"{loss[name]:.6f}" for name in SIDES), "", "equal",
         verdict(abs(loss["ours"] - loss["flower"]), most=1e-6)],
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flower_app", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="Very small, to test the benchmark.")
    parser.add_argument("--turns", type=int, default=TURNS, help="Rounds of each side.")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    for name in ("--nodes", "--rounds", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
        os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112 (ends clients if short)
        run = run_ours if options.side == "ours" else run_flower
        run(int(options.nodes), int(options.rounds), Path(options.folder))
        return
    nodes, turns = (3, 2) if options.tiny else (NODES, options.turns)
    rows = measure(nodes, turns)
    versions = f"Flower {version('flwr')}, Ray {version('ray')}"
    print(f"{machine()}, {versions}; {nodes} clients, {turns} rounds a side, in turns\n")
    print(table(["what", *SIDES, "flower / ours", "target", ""], rows))


if __name__ == "__main__":
    main()
