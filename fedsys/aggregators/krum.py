"""The update that has the most company, or a few such."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedsys.aggregator import Sees
from fedsys.aggregators.coordinates import BLOCK
from fedsys.checks import at_least
from fedsys.strategy import Vector


@dataclass(frozen=True)
class Krum:
    """Blanchard et al. 2017, section 4: an update's score is the sum of its squared distances to
    the n - f - 2 updates that are nearest to it; the one with the least score is taken. With
    `keep` above 1 it is multi-Krum: the mean of that many with the least scores.

    faulty: f, how many faulty updates it holds against. keep: the paper's m.
    Proposition 1 needs 2f + 2 < n: n >= 2f + 3. Of those kept, none is faulty for sure, but each
    has n - f - 2 neighbours: keep <= n - f - 2. Equal scores go to the lower client number.
    Clients count alike, whatever their weights.
    """

    faulty: int
    keep: int = 1

    sees: ClassVar[Sees] = Sees.ALL

    def __post_init__(self) -> None:
        at_least(1, faulty=self.faulty, keep=self.keep)

    @property
    def needs(self) -> int:
        return max(2 * self.faulty + 3, self.keep + self.faulty + 2)

    def limit(self, update: Vector) -> Vector:
        return update

    def combine(self, updates: np.ndarray) -> Vector:
        distances = squared_distances(updates)
        np.fill_diagonal(distances, np.inf)  # nobody is company to itself
        nearest = np.sort(distances, axis=1)[:, : len(updates) - self.faulty - 2]
        chosen = np.argsort(nearest.sum(axis=1), kind="stable")[: self.keep]
        return np.asarray(updates[chosen].mean(axis=0, dtype=np.float64))


def squared_distances(updates: np.ndarray) -> np.ndarray:
    """[clients, clients] float64, of updates ([clients, length]).

    Differences are squared as they are: by way of products, a far update would cost the near ones
    their digits.
    """
    distances = np.zeros((len(updates), len(updates)))
    for start in range(0, updates.shape[1], BLOCK):
        block = updates[:, start : start + BLOCK].astype(np.float64)
        for one in range(len(block) - 1):
            apart = block[one + 1 :] - block[one]
            distances[one, one + 1 :] += np.einsum("ij,ij->i", apart, apart)
    return distances + distances.T
