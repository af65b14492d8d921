"""What large models cost a deployment: seconds a round and memory, with more and more banks.

    python -m benchmarks.size                        # 1, 10 and 100 MB; 2, 4 and 8 banks
    python -m benchmarks.size --sizes 100 --banks 8 --rounds 3

Flower's server and nodes on loopback, with TLS and node keys, and our two ends of them: the
coordinator's round loop, and at each bank an app that answers at once with an update of numbers of
its own. Nobody trains. Every setting has processes of its own, so each peak is that setting's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.pipes import Worker, peak_bytes, serve
from benchmarks.timing import machine, megabytes, milliseconds, table, verdict
from fedsys.admission import Update
from fedsys.layout import Layout

SIZES, BANKS = (1.0, 10.0, 100.0), (2, 4, 8)
TENSORS = 4
EXPERIMENT = "size"
PATIENCE = 600.0
MOST = 1.1
"""How much more the coordinator may take with the most banks than with the fewest."""


@dataclass(frozen=True)
class Found:
    """What one setting came to. seconds: of each round after the first. All else: bytes at the peak
    (VmHWM) of the coordinator's process, of Flower's server, and of the first bank's node and app;
    and of the server's file at the end. before: what the coordinator had before its first round."""

    size: float
    banks: int
    seconds: list[float]
    before: int
    coordinator: int
    server: int
    node: int
    app: int
    file: int


def layout_of(size: float) -> Layout:
    """A model of about so many MB of float32 weights, in a few tensors."""
    rows = max(1, round(size * 1e6 / 4 / TENSORS / 100))
    names = tuple(f"{number:03d}.kernel" for number in range(TENSORS))
    return Layout(names, ((rows, 100),) * TENSORS, TENSORS, np.dtype("f4"))


def movement(layout: Layout, client: float, round: int) -> np.ndarray:
    """[layout length], how far a client moves in a round. No two pieces of it are equal, which
    Flower would store once; and sums of it are exact."""
    numbers = (np.arange(layout.length, dtype=np.int32) % 4093).astype(np.float32)
    return (numbers / np.float32(1024)) * np.float32(1 + client / 8) + np.float32(round)


# --- the coordinator -----------------------------------------------------------------------------


def measure(size: float, banks: int, rounds: int) -> dict[str, Any]:
    """One setting, in this process. Gives the fields of a `Found`."""
    from fedsys.flower.processes.deployed_grid import DeployedGrid
    from fedsys.flower.rounds.engine import GridEngine
    from fedsys.flower.rounds.mail import Waiting
    from fedsys.rounds import begin, run_rounds
    from fedsys.strategies import FedAvg
    from tests.flower.deployed import Deployed

    layout, strategy = layout_of(size), FedAvg()
    with tempfile.TemporaryDirectory(prefix="fedsys-size-") as folder:
        deployed = Deployed(Path(folder), banks)
        for number, bank in enumerate(deployed.banks):
            bank.program = _program(number, size)
        with (
            deployed.running() as (server, nodes),
            DeployedGrid(deployed.access, starts=lambda: server.starts) as grid,
        ):
            deployed.await_nodes(grid)
            engine = GridEngine(
                grid,
                layout,
                strategy,
                np.ones(banks),
                experiment=EXPERIMENT,
                node_of=grid.node_of(deployed.nodes),
                waiting=Waiting(deadline=PATIENCE),
            )
            before, seconds = peak_bytes(), []
            for _, happened in run_rounds(
                begin(strategy, layout, np.zeros(layout.length, layout.dtype)),
                strategy,
                engine,
                layout,
                cohorts=lambda round: np.arange(banks),
                population=float(banks),
                rounds=rounds + 1,
                quorum=1.0,
            ):
                if len(happened.aggregate.admitted) < banks:
                    raise SystemExit(f"round {happened.number}: {happened.aggregate.refused}")
                seconds.append(happened.seconds)
                moved, number = happened.aggregate.delta, happened.number
                del happened
            found = Found(
                size,
                banks,
                seconds[1:],
                before,
                peak_bytes(),
                peak_bytes(server.pid),
                peak_bytes(nodes[0].pid),
                peak_bytes(deployed.banks[0].app_pid),
                sum(path.stat().st_size for path in deployed.server.folder.glob("state.db*")),
            )
    mean = (banks - 1) / 2
    if not np.array_equal(moved, movement(layout, mean, number)):
        raise SystemExit("the mean is not the banks' mean")
    return asdict(found)


# --- a bank --------------------------------------------------------------------------------------


class Trained(NamedTuple):
    """What a client gives; see `fedsys.clients.trainer`, which loads TensorFlow."""

    update: Update
    loss: float
    own: np.ndarray | None = None


def _program(number: int, size: float) -> list[str]:
    """The command of a bank's app; it is given the node's address and secret as well."""
    return [sys.executable, "-m", "benchmarks.size", "--bank", str(number), str(size)]


def be_bank(number: int, size: float, address: str, secret: Path) -> None:
    """Answers the coordinator's instructions until this process is ended."""
    from flwr.app import RecordDict

    from fedsys.child import end_with_parent
    from fedsys.flower.processes.answering import serve as serve_node
    from fedsys.flower.rounds.client import Member, answer
    from fedsys.strategies import FedAvg

    end_with_parent()
    layout = layout_of(size)

    def train(round: int, anchor: Any, state: Any, own: Any) -> Trained:
        return Trained(Update(layout.named(movement(layout, number, round)), 1.0), 0.0)

    member = Member(number, EXPERIMENT, layout, FedAvg(), train)  # type: ignore[arg-type]
    serve_node(
        address,
        secret,
        lambda content: answer(content, RecordDict(), lambda experiment, client: member),
        lambda content: RecordDict(),
        threading.Event(),
    )


# --- tables --------------------------------------------------------------------------------------


def settings(found: Sequence[Found]) -> str:
    """A line for each setting."""
    rows = [
        [
            f"{one.size:g}",
            str(one.banks),
            milliseconds(one.seconds),
            *(megabytes(value) for value in (one.coordinator, one.server, one.file)),
            *(megabytes(value) for value in (one.node, one.app)),
        ]
        for one in found
    ]
    peaks = ["coordinator, MB", "server, MB", "its file, MB", "a node, MB", "its app, MB"]
    return table(["model, MB", "banks", "a round, ms", *peaks], rows)


def growth(found: Sequence[Found]) -> str:
    """How memory grows from the fewest banks to the most, for each size."""
    rows = []
    for size in dict.fromkeys(one.size for one in found):
        of_size = sorted((one for one in found if one.size == size), key=lambda one: one.banks)
        few, many = of_size[0], of_size[-1]
        ours, theirs = many.coordinator / few.coordinator, many.server / few.server
        beyond = (many.coordinator - many.before) / (size * 1e6)
        rows.append(
            [
                f"{size:g} MB: {many.banks} banks / {few.banks}",
                f"{ours:.2f}",
                verdict(ours, most=MOST),
                f"{theirs:.2f}",
                f"{beyond:.1f}",
            ]
        )
    header = ["what", f"coordinator, at most {MOST:g}", "", "server", "coordinator's models"]
    return table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.size", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--sizes", type=float, nargs="+", default=list(SIZES), metavar="MB")
    parser.add_argument("--banks", type=int, nargs="+", default=list(BANKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="Very small, to test the benchmark.")
    parser.add_argument("--coordinator", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--bank", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bank:
        number, size, address, secret = options.bank
        be_bank(int(number), float(size), address, Path(secret))
        return
    if options.coordinator:
        serve({"measure": measure})
        return
    if options.tiny:
        options.sizes, options.banks, options.rounds = [2.0], [2], 1
    found = []
    for size in options.sizes:
        for banks in options.banks:
            with Worker("benchmarks.size", "--coordinator") as worker:
                said = worker.ask("measure", size=size, banks=banks, rounds=options.rounds)
            found.append(Found(**said))
            print(f"{size:g} MB, {banks} banks: done", file=sys.stderr)
    print(f"{machine()}, flwr {version('flwr')}; {options.rounds} rounds after the first\n")
    print(settings(found))
    print()
    print(growth(found))


if __name__ == "__main__":
    main()
