"""Virtual clients that misbehave: each fault spoils an honest update in one way.

For seeing, before a deployment, that a federation survives them: `--faults nan:0.2`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fedsys.admission import Update
from fedsys.checks import at_least, at_most
from fedsys.choices import Family
from fedsys.randomness import Purpose, hashed


@dataclass(frozen=True)
class Fault:
    """Each client of a round misbehaves with probability `share`."""

    share: float = 0.1

    def __post_init__(self) -> None:
        at_least(0, share=self.share)
        at_most(1, share=self.share)

    def strikes(self, seed: int, round: int, clients: np.ndarray) -> np.ndarray:
        """[clients], which of them misbehave in the round."""
        return hashed(seed, Purpose.FAULTS, round, clients) < self.share * 2.0**64

    def spoil(self, update: Update, client: int) -> Update:
        """What the client sends instead of its honest update."""
        raise NotImplementedError


class NotANumber(Fault):
    """One number of the update is NaN."""

    def spoil(self, update: Update, client: int) -> Update:
        return _with_number(update, np.nan)


class Infinite(Fault):
    """One number of the update is infinite."""

    def spoil(self, update: Update, client: int) -> Update:
        return _with_number(update, np.inf)


class WrongShape(Fault):
    """A tensor has an axis too many."""

    def spoil(self, update: Update, client: int) -> Update:
        name, tensor = _first(update)
        return replace(update, tensors={**update.tensors, name: tensor[..., None]})


class WrongType(Fault):
    """A tensor is of half precision."""

    def spoil(self, update: Update, client: int) -> Update:
        name, tensor = _first(update)
        return replace(update, tensors={**update.tensors, name: tensor.astype(np.float16)})


class MissingKey(Fault):
    """A tensor is left out."""

    def spoil(self, update: Update, client: int) -> Update:
        return replace(update, tensors=dict(list(update.tensors.items())[1:]))


class ExtraKey(Fault):
    """A tensor is there that nobody asked for."""

    def spoil(self, update: Update, client: int) -> Update:
        return replace(update, tensors={**update.tensors, "extra": np.zeros(1, np.float32)})


class ZeroWeight(Fault):
    """The update weighs nothing."""

    def spoil(self, update: Update, client: int) -> Update:
        return replace(update, weight=0.0)


class NegativeWeight(Fault):
    """The update weighs less than nothing."""

    def spoil(self, update: Update, client: int) -> Update:
        return replace(update, weight=-update.weight)


class AbsurdWeight(Fault):
    """The update claims more rows than the client enrolled with."""

    def spoil(self, update: Update, client: int) -> Update:
        return replace(update, weight=1e30)


class TimesHundred(Fault):
    """The update goes a hundred times as far."""

    def spoil(self, update: Update, client: int) -> Update:
        return _times(update, 100)


class SignFlip(Fault):
    """The update goes the opposite way."""

    def spoil(self, update: Update, client: int) -> Update:
        return _times(update, -1)


class ZeroUpdate(Fault):
    """The update says that nothing moved."""

    def spoil(self, update: Update, client: int) -> Update:
        return _times(update, 0)


KINDS: dict[str, type[Fault]] = {
    "nan": NotANumber,
    "infinity": Infinite,
    "shape": WrongShape,
    "dtype": WrongType,
    "missing": MissingKey,
    "extra": ExtraKey,
    "zero-weight": ZeroWeight,
    "negative-weight": NegativeWeight,
    "absurd-weight": AbsurdWeight,
}


ATTACKS: dict[str, type[Fault]] = {
    "times-100": TimesHundred,
    "sign-flip": SignFlip,
    "zero-update": ZeroUpdate,
}
"""What no gate can see, since honest updates look the same: the aggregator has to hold out."""


class AnyFault(Fault):
    """A client has one of the kinds of fault that a gate can see, always the same."""

    def spoil(self, update: Update, client: int) -> Update:
        kinds = list(KINDS.values())
        return kinds[client % len(kinds)](self.share).spoil(update, client)


FAULTS = Family("fault", {"any": AnyFault, **KINDS, **ATTACKS})


def _first(update: Update) -> tuple[str, np.ndarray]:
    return next(iter(update.tensors.items()))


def _times(update: Update, factor: float) -> Update:
    """The update with all of its numbers multiplied."""
    tensors = {name: tensor * tensor.dtype.type(factor) for name, tensor in update.tensors.items()}
    return replace(update, tensors=tensors)


def _with_number(update: Update, value: float) -> Update:
    """The update with one number of its first tensor replaced."""
    name, tensor = _first(update)
    spoiled = tensor.copy()
    spoiled.flat[-1] = value
    return replace(update, tensors={**update.tensors, name: spoiled})
