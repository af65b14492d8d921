"""The admission gate: nothing unchecked is aggregated.

The same checks meet an injected fault in a simulation and a stranger's bytes in a deployment.
Inside the compiled training, where keys, shapes and types cannot be wrong, only finiteness is
left to check, and is checked there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fedsys.layout import Layout


class Reason(StrEnum):
    """Why an update is refused."""

    MISSING = "missing key"
    EXTRA = "unknown key"
    SHAPE = "wrong shape"
    DTYPE = "wrong dtype"
    FINITE = "not finite"
    WEIGHT = "weight out of bounds"
    FORMAT = "not an update"
    FAILED = "failed at the client"
    LOST = "not reached"
    LATE = "too late"


@dataclass(frozen=True)
class Update:
    """What a client sends back: how far it moved, tensor by tensor, and with what weight."""

    tensors: Mapping[str, np.ndarray]
    weight: float


@dataclass(frozen=True)
class Refusal:
    """A client's update that the gate kept out.

    detail names the tensor or the value; loss is the training loss that the client reported.
    """

    client: int
    reason: Reason
    detail: str = ""
    loss: float = float("nan")


class Refused(Exception):
    """Raised by the gate; carries what to put into a Refusal."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Gate:
    """Checks updates against what was agreed: the model's layout and each client's weight."""

    layout: Layout

    def admit(self, update: Update, enrolled: float) -> np.ndarray:
        """The update as a vector of the layout, or Refused.

        A weight must be above zero and at most the weight that the client enrolled with (its
        number of rows, or 1 where clients count alike).
        """
        self._keys(update.tensors)
        for name, shape in zip(self.layout.names, self.layout.shapes, strict=True):
            tensor = update.tensors[name]
            if tensor.dtype != self.layout.dtype:
                raise Refused(Reason.DTYPE, f"{name} is {tensor.dtype}, not {self.layout.dtype}")
            if tensor.shape != shape:
                raise Refused(Reason.SHAPE, f"{name} is {tensor.shape}, not {shape}")
            if not np.isfinite(tensor).all():
                raise Refused(Reason.FINITE, name)
        if not 0 < update.weight <= enrolled:  # False for NaN, too
            raise Refused(Reason.WEIGHT, f"{update.weight:g}, enrolled with {enrolled:g}")
        return self.layout.gather(update.tensors)

    def _keys(self, tensors: Mapping[str, np.ndarray]) -> None:
        missing = [name for name in self.layout.names if name not in tensors]
        if missing:
            raise Refused(Reason.MISSING, missing[0])
        extra = [str(name) for name in tensors if name not in self.layout.names]
        if extra:
            raise Refused(Reason.EXTRA, extra[0][:80])
