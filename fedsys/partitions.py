"""Rules that share the rows of a task out among clients.

A rule is a small frozen value. `draw(rule, examples, clients, seed)` checks what was asked and
returns the partition: every row is owned by exactly one client, and the same arguments give the
same arrays. No rule loops over clients, so a million of them take seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

from fedsys.choices import Family
from fedsys.errors import DataError, UsageError
from fedsys.partition import Partition, has_classes
from fedsys.randomness import Purpose, generator
from fedsys.task import Examples

MOST = 1e12  # of a Dirichlet's alpha: shares are equal long before; NumPy overflows long after
SAMPLE_ROWS, SAMPLE_VALUES = 10_000, 2**23  # of inputs, to find a direction in: 64 MiB at most
POWER_STEPS = 20  # of power iteration: near the top direction is near enough here


class Rule(Protocol):
    """A way to share rows out. Its fields are plain values; ValueError where one is not valid."""

    def draw(self, examples: Examples, clients: int, seed: int) -> Partition:
        """The partition. To be called by `draw` below, which checks the number of clients."""
        ...


def draw(rule: Rule, examples: Examples, clients: int, seed: int) -> Partition:
    """The partition of `examples` among `clients` that `rule` draws from `seed` (0 or more).

    Raises UsageError where the rows cannot be shared out like that.
    """
    if clients < 1:
        raise UsageError(f"{clients} clients: ask for at least 1")
    # With natural owners the data says how many clients there are, rows or no rows.
    if clients > len(examples) and not isinstance(rule, Natural):
        raise UsageError(
            f"{clients} clients but only {len(examples)} rows to share out: "
            f"ask for at most {len(examples)}"
        )
    return rule.draw(examples, clients, seed)


@dataclass(frozen=True)
class Iid:
    """Rows at random, sizes equal up to one row (McMahan et al. 2017, section 3, "IID")."""

    def draw(self, examples: Examples, clients: int, seed: int) -> Partition:
        rows = len(examples)
        return Partition(_generator(seed).permutation(rows), _equal(rows, clients))


@dataclass(frozen=True)
class Dirichlet:
    """Label skew: each label's rows are shared out in proportions drawn from Dir(alpha).

    The proportions run over the clients, one draw a label, as in Yurochkin et al. 2019 (section 4)
    and NIID-Bench (Li et al. 2022, section IV, "distribution-based label imbalance"). Sizes differ
    too. (Hsu et al. 2019 draw over the labels, one draw a client, with equal sizes.) The smaller
    alpha, the fewer labels a client has; clients without rows are allowed, where NIID-Bench draws
    again until there are none.
    """

    alpha: float

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def draw(self, examples: Examples, clients: int, seed: int) -> Partition:
        _need_classes("dirichlet", examples)
        rng = _generator(seed)
        order, start = _by_label(rng, examples.labels)
        owner = np.empty(len(examples), np.int32)
        for first, last in pairwise(start):
            sizes = _apportion(rng, last - first, rng.dirichlet(np.full(clients, self.alpha)))
            owner[order[first:last]] = np.repeat(np.arange(clients), sizes)
        return Partition.of(owner, clients)


@dataclass(frozen=True)
class Shards:
    """Rows sorted by label and cut into equal shards, `per_client` of them at random each.

    The "pathological non-IID" of McMahan et al. 2017, section 3. Rows of one label are shuffled
    first. Shards are equal up to one row; one that straddles a boundary holds two labels. Targets
    (floats) are sorted just the same, so that a client has narrow ranges of them.
    """

    per_client: int = 2

    def __post_init__(self) -> None:
        if self.per_client < 1:
            raise ValueError(f"per_client must be at least 1, not {self.per_client}")

    def draw(self, examples: Examples, clients: int, seed: int) -> Partition:
        rows, shards = len(examples), clients * self.per_client
        if shards > rows:
            raise UsageError(
                f"partition shards: {clients} clients with {self.per_client} shards each but only "
                f"{rows} rows: ask for fewer of either"
            )
        rng = _generator(seed)
        order = _sorted(rng, examples.labels)
        holder = rng.permutation(shards) // self.per_client
        owner = np.empty(rows, np.int32)
        owner[order] = np.repeat(holder, np.diff(_equal(rows, shards)))
        return Partition.of(owner, clients)


@dataclass(frozen=True)
class Labels:
    """Each client owns rows of `k` labels: "#C = k" of NIID-Bench (Li et al. 2022, section IV).

    Labels are first dealt out in turn, client i getting label i modulo their number, so that none
    is left without an owner; each client's others are drawn at random, all different. A label's
    rows are then divided among its owners, equally up to one row. (A label with fewer rows than
    owners leaves some without, so a client holds at most k labels.) Refused where k is more than
    there are labels, and where clients * k is fewer: some rows would have no owner.
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, not {self.k}")

    def draw(self, examples: Examples, clients: int, seed: int) -> Partition:
        _need_classes("labels", examples)
        rng = _generator(seed)
        order, start = _by_label(rng, examples.labels)
        classes = len(start) - 1
        if self.k > classes:
            raise UsageError(
                f"partition labels: {self.k} labels a client but the rows have only {classes}: "
                f"ask for at most labels:{classes}"
            )
        if clients * self.k < classes:
            enough = -(-classes // clients)
            raise UsageError(
                f"partition labels: {clients} clients with {self.k} labels each leave some of the "
                f"{classes} labels without an owner: ask for at least labels:{enough}"
            )
        wanted = _draw_labels(rng, clients, classes, self.k).ravel()
        # Who owns a label, as one vector sorted by label, in random order within a label: which
        # owner gets the odd row is chance.
        slots = _sorted(rng, wanted)
        holder = slots // self.k
        owners = np.bincount(wanted, minlength=classes)
        first_owner = np.cumsum(owners) - owners

        sizes = np.diff(start)
        label = np.repeat(np.arange(classes), sizes)
        place = np.arange(len(order)) - start[label]
        owner = np.empty(len(order), np.int32)
        owner[order] = holder[first_owner[label] + place * owners[label] // sizes[label]]
        return Partition.of(owner, clients)


@dataclass(frozen=True)
class Quantity:
    """Size skew: the clients' sizes are in proportions drawn from Dir(alpha), the rows random.

    "Quantity skew" of NIID-Bench (Li et al. 2022, section IV). The smaller alpha, the more the
    sizes differ; clients without rows are allowed.
    """

    alpha: float

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def draw(self, examples: Examples, clients: int, seed: int) -> Partition:
        rows, rng = len(examples), _generator(seed)
        sizes = _apportion(rng, rows, rng.dirichlet(np.full(clients, self.alpha)))
        return Partition(rng.permutation(rows), np.concatenate([[0], np.cumsum(sizes)]))


@dataclass(frozen=True)
class Features:
    """Feature skew: clients see different inputs, whatever the labels; sizes equal up to one row.

    Rows are ranked along one direction of the inputs, the one in which they vary the most (the
    first principal direction, by power iteration on a sample). A row's place in line is
    skew * its rank + (1 - skew) * a random rank, and each client takes an equal stretch of that
    line: `skew` 0 is IID, 1 sorts fully, and between them the two ranks mix. A rule of this
    project's own, for "feature distribution skew" (Kairouz et al. 2021, section 3.1).
    """

    skew: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.skew <= 1:
            raise ValueError(f"skew must be from 0 to 1, not {self.skew}")

    def draw(self, examples: Examples, clients: int, seed: int) -> Partition:
        rows, rng = len(examples), _generator(seed)
        rank = np.empty(rows)
        rank[_sorted(rng, _project(rng, examples.inputs))] = np.arange(rows)
        place = self.skew * rank + (1 - self.skew) * rng.permutation(rows)
        return Partition(np.argsort(place, kind="stable"), _equal(rows, clients))


@dataclass(frozen=True)
class Natural:
    """Client i owns the rows that owner i has in nature: `examples.owners`.

    The number of clients must be the number of owners, counted up to the largest; an owner
    without rows is a client without rows. Nothing is random.
    """

    def draw(self, examples: Examples, clients: int, seed: int) -> Partition:
        owners = examples.owners
        if owners is None:
            others = ", ".join(name for name in PARTITIONS.members if name != "natural")
            raise UsageError(
                f"partition natural: the rows of this task have no owners; use {others}"
            )
        if owners.dtype.kind not in "iu" or owners.min() < 0:
            raise DataError(
                f"owners must be numbers 0, 1, 2, ..., found {owners.dtype} from {owners.min()}"
            )
        known = int(owners.max()) + 1
        if clients != known:
            raise UsageError(
                f"partition natural: {clients} clients but the rows have {known} owners: "
                f"pass --clients {known}"
            )
        return Partition.of(owners, clients)


PARTITIONS = Family(
    "partition",
    {
        "iid": Iid,
        "dirichlet": Dirichlet,
        "shards": Shards,
        "labels": Labels,
        "quantity": Quantity,
        "features": Features,
        "natural": Natural,
    },
)


# --- what rules are made of ----------------------------------------------------------------------


def _generator(seed: int) -> np.random.Generator:
    return generator(seed, Purpose.PARTITION)


def _check_alpha(alpha: float) -> None:
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, not {alpha}")
    if alpha > MOST:
        raise ValueError(f"alpha must be at most {MOST:g} (all shares equal), not {alpha}")


def _need_classes(name: str, examples: Examples) -> None:
    if not has_classes(examples.labels):
        raise UsageError(
            f"partition {name} goes by classes, but the labels here are {examples.labels.dtype} "
            "targets; use iid, quantity, features or shards"
        )


def _equal(rows: int, parts: int) -> np.ndarray:
    """[parts + 1], where to cut `rows` rows into parts that are equal up to one row."""
    return np.arange(parts + 1) * rows // parts


def _sorted(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    """[rows], the rows by ascending value, in random order where values are equal."""
    shuffled = rng.permutation(len(values))
    return shuffled[np.argsort(values[shuffled], kind="stable")]


def _by_label(rng: np.random.Generator, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows sorted by label, shuffled within one, and [labels + 1] where each label begins.

    Only labels that occur are counted.
    """
    order = _sorted(rng, labels)
    changes = np.diff(labels[order].astype(np.int64)) != 0
    return order, np.flatnonzero(np.concatenate([[True], changes, [True]]))


def _apportion(rng: np.random.Generator, rows: int, shares: np.ndarray) -> np.ndarray:
    """[clients] int64, how many of `rows` rows each gets of its share; they add up to `rows`.

    Systematic sampling: row r goes to the client in whose stretch of the cumulated shares
    (r + offset) / rows falls. A client is less than one row from rows * share, and exactly there on
    average over the offset. Without one, shares of half a row would favour the same clients in
    every label.
    """
    ends = np.cumsum(shares)
    before = np.ceil(ends / ends[-1] * rows - rng.random()).astype(np.int64)
    return np.diff(before, prepend=0)


def _draw_labels(rng: np.random.Generator, clients: int, classes: int, k: int) -> np.ndarray:
    """[clients, k] different labels for each client, every label dealt at least once.

    Labels are dealt in turn, like cards, until each is dealt: client i gets i, i + clients, ...,
    modulo their number. A client then takes the k labels with the smallest keys, random but for
    the dealt ones, which come first. Done in blocks of clients, for memory.
    """
    drawn = np.empty((clients, k), np.int32)
    turns = -(-classes // clients)
    step = max(1, 2**20 // classes)
    for first in range(0, clients, step):
        client = np.arange(first, min(first + step, clients))
        dealt = (client[:, None] + clients * np.arange(turns)) % classes
        key = rng.random((len(client), classes), np.float32)
        np.put_along_axis(key, dealt, -1, axis=1)
        drawn[client] = np.argpartition(key, k - 1, axis=1)[:, :k]
    return drawn


def _project(rng: np.random.Generator, inputs: np.ndarray) -> np.ndarray:
    """[rows] float64, the inputs along the direction in which a sample of them varies the most."""
    rows, values = len(inputs), max(1, inputs[0].size)
    sample = min(rows, SAMPLE_ROWS, max(1, SAMPLE_VALUES // values))
    chosen = np.sort(rng.choice(rows, sample, replace=False))
    direction = _direction(rng, _flat(inputs[chosen]))
    step = max(1, 2**20 // values)
    along = [_flat(inputs[first : first + step]) @ direction for first in range(0, rows, step)]
    return np.concatenate(along)


def _direction(rng: np.random.Generator, sample: np.ndarray) -> np.ndarray:
    """[values], a unit vector near the first principal direction of [rows, values]."""
    centred = sample - sample.mean(axis=0)
    direction = rng.standard_normal((sample.shape[1],))
    for _ in range(POWER_STEPS):
        image = centred.T @ (centred @ direction)
        length = float(np.linalg.norm(image))
        if length == 0:  # the inputs do not vary: no direction is better than another
            break
        direction = image / length
    return direction


def _flat(inputs: np.ndarray) -> np.ndarray:
    return inputs.reshape(len(inputs), -1).astype(np.float64)
