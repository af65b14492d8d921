"""Our experiments on Flower's nodes in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedsys.errors import EngineError
from fedsys.flower.client import client_app
from fedsys.flower.engine import GridEngine
from fedsys.flower.grid import InProcessGrid
from fedsys.flower.mail import Lost
from fedsys.flower.messages import Code
from fedsys.flower.virtual import VirtualClients

if TYPE_CHECKING:
    from fedsys.setting import Setting


@contextmanager
def in_process(setting: Setting, workers: int) -> Iterator[GridEngine]:
    """An engine over the in-process grid: one node a client, no Ray, no SuperLink."""
    errors: list[Exception] = []

    def failed(code: Code, error: Exception) -> None:
        errors.append(error)

    def told(client: int, what: str) -> None:
        """A simulated client that fails does so for a reason that mends all of them."""
        if errors:
            raise errors[0]

    def lost(client: int, lost: Lost) -> None:
        raise EngineError(f"engine 'flower': client {client} {lost.detail}: {lost.text}")

    with VirtualClients.of(setting, workers) as clients:
        app = client_app(clients.member, failed)
        with InProcessGrid(app, setting.clients, workers=workers) as grid:
            nodes = grid.get_node_ids()
            threads = f"{workers} thread{'s' * (workers > 1)}"
            yield GridEngine(
                grid,
                setting.layout,
                setting.experiment.strategy,
                setting.enrolled,
                experiment=setting.experiment.trajectory,
                node_of=lambda client: nodes[client],
                own_stays=False,
                facts={"workers": workers, "where": f"Flower in process, {threads}"},
                told=told,
                lost=lost,
            )
