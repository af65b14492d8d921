"""FedSGD: one gradient step a round."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedsys.local import Local
from fedsys.strategies.fedavg import FedAvg


@dataclass(frozen=True)
class FedSGD(FedAvg):
    """McMahan et al. 2017, section 2: each client takes one step along the gradient of all its
    rows, so that a round is one step of gradient descent on the cohort's data."""

    def local(self, local: Local) -> Local:
        return replace(local, epochs=1, steps=None, batch=0)
