"""One client's training, on rows of its own: what runs where the data is.

The same plan, seeds and arithmetic as the compiled engine gives that client among others, so a
federation of real clients comes to what its simulation came to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.admission import Update
from fedsys.layers import prefers_xla, random_layers
from fedsys.layout import Layout
from fedsys.local import Local
from fedsys.objectives import Objective
from fedsys.partition import Partition
from fedsys.plan import draw_plan
from fedsys.strategy import Strategy, Vector
from fedsys.task import Examples
from fedsys.training import LocalTraining, client_seeds

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Trained:
    """What a client's round gave.

    update: how far it moved, tensor by tensor, and its weight; NaN throughout where the training
        lost its numbers. loss: mean over its steps.
    own: [parameters], the client's own vector after the round, where the strategy remembers and
        the update is finite.
    """

    update: Update
    loss: float
    own: Vector | None


class Trainer:
    """Trains one client's model from weights that it is sent.

    model, objective, local, strategy: as the experiment says. examples: the client's rows, in the
    order in which its partition has them. client: its number in the federation. weight: what it
    is enrolled with. xla: as in the compiled engine; chosen by the layers if None.
    """

    def __init__(
        self,
        model: keras.Model,
        objective: Objective,
        local: Local,
        strategy: Strategy,
        examples: Examples,
        *,
        client: int,
        weight: float,
        seed: int,
        xla: bool | None = None,
    ) -> None:
        rows = len(examples)
        local = strategy.local(local)
        use_xla = prefers_xla(model, local) if xla is None else xla
        if use_xla or local.batch:  # XLA's shapes are fixed, and no batch is longer than the data
            local = replace(local, batch=min(local.batch or rows, rows))
        self.layout = Layout.of(model)
        self.weight = weight
        self._client = np.array([client])
        self._local = local
        self._seed = seed
        self._strategy = strategy
        self._random = len(random_layers(model))
        # Plans are drawn by a client's number: all others have no rows here.
        starts = np.zeros(client + 2, np.int64)
        starts[-1] = rows
        self._partition = Partition(np.arange(rows), starts)
        self._training = LocalTraining(
            model, objective, local, strategy.correct, examples, xla=use_xla
        )

    def train(self, round: int, anchor: Vector, state: Any, own: Vector | None = None) -> Trained:
        """Trains in a round from the anchor ([layout length]).

        state: the strategy's server state, for what it sends to clients. own: [parameters], the
        client's vector from its last round; None before the first.
        """
        parameters = self.layout.parameters
        if own is None:
            own = np.zeros(parameters, self.layout.dtype)
        plan = draw_plan(self._local, self._partition, self._client, self._seed, round)
        seeds = client_seeds(self._seed, round, self._client, self._random)
        self._training.reserve(plan)
        share = self._training.share(plan, np.ones(1), seeds)
        moved = self._training(anchor, share, self._strategy.send(state, own))
        tensors = self.layout.named(moved.total)
        if not moved.finite[0]:
            tensors = {name: np.full_like(tensor, np.nan) for name, tensor in tensors.items()}
        new = None
        if self._strategy.remembers and moved.finite[0]:
            span = float(plan.steps[0]) * self._local.rate
            new = self._strategy.receive(state, own, moved.total[:parameters], span)
        return Trained(Update(tensors, self.weight), float(moved.losses[0]), new)
