"""Synthetic(alpha, beta): the federation that FedProx made to measure heterogeneity with.

Li et al. 2020, "Federated Optimization in Heterogeneous Networks" (MLSys), section 5.1 and
appendix C.1, after Shamir et al. 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from fedsys.errors import UsageError
from fedsys.task import Examples, Task
from fedsys.tasks import models

_FEATURES = 60
_CLASSES = 10
_DEVIATION = np.arange(1, _FEATURES + 1) ** -0.6  # of every input: the variance is j^-1.2
_TRAIN = 0.8  # of every client's rows, as the paper says (its code takes 0.9)

Data = list[tuple[np.ndarray, np.ndarray]]
"""A client's inputs [rows, 60] float64 and labels [rows] int64, for every client."""


@dataclass(frozen=True)
class Synthetic:
    """Clients with 60 inputs, 10 classes and a labelling rule each.

    Client k labels x by argmax(x W_k + b_k), where all W_k, b_k ~ N(u_k, 1) and u_k ~ N(0, alpha);
    its inputs are x ~ N(v_k, diag(j^-1.2)), where all v_k ~ N(B_k, 1) and B_k ~ N(0, beta). It has
    50 + lognormal(4, 2) rows, of which it trains on the first 80 % and tests on the others.

    alpha, beta: what the paper writes as the N(0, .) of u_k and B_k; as in its code these are
    standard deviations (the two agree for the settings it uses, 0 and 1, but not for 0.5).
    Mind that u_k adds the same to all ten logits of a row, so `alpha` changes no label: clients
    differ by their W_k, b_k and v_k even at (0, 0), and further by `beta`.
    clients: how many. seed: of the data, apart from the seed of a run.
    iid: one rule, W and b ~ N(0, 1), and x ~ N(0, diag(j^-1.2)) for all; alpha and beta are unused.
    """

    alpha: float = 1.0
    beta: float = 1.0
    clients: int = 30
    seed: int = 0
    iid: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (
            ("alpha", self.alpha, 0),
            ("beta", self.beta, 0),
            ("clients", self.clients, 1),
            ("seed", self.seed, 0),
        ):
            if not least <= value < np.inf:
                raise UsageError(f"task.{name}: must be {least} or more, got {value}")

    def load(self) -> Task:
        """Draws the data; the same for the same fields."""
        rng = np.random.default_rng(self.seed)
        sizes = rng.lognormal(4, 2, self.clients).astype(np.int64) + 50
        data = _alike(rng, sizes) if self.iid else _different(rng, sizes, self.alpha, self.beta)
        train = _pooled([(x[: _cut(x)], y[: _cut(x)]) for x, y in data])
        test = _pooled([(x[_cut(x) :], y[_cut(x) :]) for x, y in data])
        return Task(
            name="synthetic",
            model=partial(models.logistic, (_FEATURES,), _CLASSES),
            train=train,
            test=Examples(test.inputs, test.labels),
            client_test=test,
            classes=tuple(str(number) for number in range(_CLASSES)),
            owners=tuple(f"client{number}" for number in range(self.clients)),
        )


def _different(rng: np.random.Generator, sizes: np.ndarray, alpha: float, beta: float) -> Data:
    rules = rng.normal(0, alpha, len(sizes))  # u_k
    centres = rng.normal(0, beta, len(sizes))  # B_k
    data = []
    for size, rule, centre in zip(sizes, rules, centres, strict=True):
        middle = rng.normal(centre, 1, _FEATURES)  # v_k
        weights = rng.normal(rule, 1, (_FEATURES, _CLASSES))
        bias = rng.normal(rule, 1, _CLASSES)
        data.append(_labelled(rng.normal(middle, _DEVIATION, (size, _FEATURES)), weights, bias))
    return data


def _alike(rng: np.random.Generator, sizes: np.ndarray) -> Data:
    weights = rng.normal(0, 1, (_FEATURES, _CLASSES))
    bias = rng.normal(0, 1, _CLASSES)
    return [
        _labelled(rng.normal(0, _DEVIATION, (size, _FEATURES)), weights, bias) for size in sizes
    ]


def _labelled(
    x: np.ndarray, weights: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # The softmax of the paper's argmax(softmax(.)) changes no order.
    return x, (x @ weights + bias).argmax(axis=1)


def _cut(x: np.ndarray) -> int:
    return int(_TRAIN * len(x))


def _pooled(data: Data) -> Examples:
    return Examples(
        np.concatenate([x for x, _ in data]).astype(np.float32),
        np.concatenate([y for _, y in data]).astype(np.int64),
        np.repeat(np.arange(len(data)), [len(y) for _, y in data]),
    )
