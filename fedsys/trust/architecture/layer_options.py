"""What an option of a layer may be: typed, bounded, and of one form each.

`read` gives the option's value, ready for Keras and for canonical JSON alike, or raises ValueError
whose text says what it has to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

DIMENSION = 2**24
"""No length, width or count of anything goes beyond this."""

ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "hard_tanh",
    "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu",
    "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh",
)  # fmt: skip


class Option(Protocol):
    """One kind of value."""

    def read(self, item: Any) -> Any: ...


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    low: int = 1
    high: int = DIMENSION

    def read(self, item: Any) -> int:
        if type(item) is not int or not self.low <= item <= self.high:
            raise ValueError(f"must be a whole number from {self.low} to {self.high}")
        return item


@dataclass(frozen=True)
class Real:
    """A finite number."""

    low: float = -1e9
    high: float = 1e9

    def read(self, item: Any) -> float:
        if type(item) not in (int, float) or not self.low <= item <= self.high:
            raise ValueError(f"must be a number from {self.low:g} to {self.high:g}")
        return float(item)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def read(self, item: Any) -> bool:
        if type(item) is not bool:
            raise ValueError("must be true or false")
        return item


@dataclass(frozen=True)
class Word:
    """One of some words."""

    words: tuple[str, ...]

    def read(self, item: Any) -> str:
        if type(item) is not str or item not in self.words:
            raise ValueError(f"must be one of {', '.join(self.words)}")
        return item


@dataclass(frozen=True)
class Maybe:
    """A value or none."""

    option: Option

    def read(self, item: Any) -> Any:
        return None if item is None else self.option.read(item)


@dataclass(frozen=True)
class Several:
    """A list. count: how many, or None for 1 to `most`."""

    option: Option
    count: int | None = None
    most: int = 8

    def read(self, item: Any) -> list[Any]:
        right = isinstance(item, list | tuple) and (
            len(item) == self.count if self.count is not None else 0 < len(item) <= self.most
        )
        if not right:
            many = self.count if self.count is not None else f"1 to {self.most}"
            raise ValueError(f"must be a list of {many}")
        return [self.option.read(one) for one in item]


@dataclass(frozen=True)
class Axis:
    """An axis of a row: -1 is the last, 1 the first after the batch."""

    def read(self, item: Any) -> int:
        if isinstance(item, list | tuple) and len(item) == 1:
            item = item[0]  # as Keras writes one axis now and then
        if type(item) is not int or not (item == -1 or 1 <= item <= 8):
            raise ValueError("must be one axis: -1 or 1 to 8")
        return item


@dataclass(frozen=True)
class Numbers:
    """One number, or a list of them."""

    most: int = 65536

    def read(self, item: Any) -> float | list[float]:
        if isinstance(item, list | tuple):
            numbers: list[float] = Several(Real(-1e30, 1e30), None, self.most).read(item)
            return numbers
        return Real(-1e30, 1e30).read(item)


_SEED = Maybe(Whole(0, 2**31 - 1))
_INITIALIZERS: Mapping[str, Mapping[str, Option]] = {
    "Zeros": {},
    "Ones": {},
    "Constant": {"value": Real()},
    "RandomUniform": {"minval": Real(), "maxval": Real(), "seed": _SEED},
    "RandomNormal": {"mean": Real(), "stddev": Real(0), "seed": _SEED},
    "TruncatedNormal": {"mean": Real(), "stddev": Real(0), "seed": _SEED},
    "Orthogonal": {"gain": Real(), "seed": _SEED},
    **{
        name: {"seed": _SEED}
        for name in (
            "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "LecunNormal", "LecunUniform"
        )
    },
}  # fmt: skip


@dataclass(frozen=True)
class Initializer:
    """How a weight begins: a table of its kind and its options."""

    kinds: Mapping[str, Mapping[str, Option]] = field(default_factory=lambda: _INITIALIZERS)

    def read(self, item: Any) -> dict[str, Any]:
        if not isinstance(item, Mapping) or type(item.get("kind")) is not str:
            raise ValueError("must be a table with the kind of an initializer")
        if item["kind"] not in self.kinds:
            raise ValueError(f"must be of kind {', '.join(sorted(self.kinds))}")
        options = self.kinds[item["kind"]]
        return {
            "kind": item["kind"],
            **read_all(options, {k: item[k] for k in item if k != "kind"}),
        }


def read_all(options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option, each given and none more. Raises ValueError that begins with its name."""
    for name in given:
        if name not in options:
            raise ValueError(f"{str(name)[:40]!r}: no such option here")
    values = {}
    for name, option in options.items():
        if name not in given:
            raise ValueError(f"{name}: is missing")
        try:
            values[name] = option.read(given[name])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return values
