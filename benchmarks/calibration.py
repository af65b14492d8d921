"""How ranges are merged, and what int8 accuracy is left, where clients' features differ in scale.

Five clients hold two of scikit-learn's digits each, and their sensors have different gains. The
server has the float model and no rows. What it can do: merge what clients send, or make rows up.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.timing import machine, table

if TYPE_CHECKING:
    from fedsys.edge.calibration.ranges import Ranges

SEEDS, CLIENTS, EPOCHS = (0, 1, 2), 5, 30
GAINS = (0.3, 2.5)
SMOOTHING = 0.95  # of Google's quantizer, where nobody chooses

FLOAT = "float model"
CENTRAL, ENVELOPE = "central min-max", "federated min-max, envelope"
CENTRAL_EMA = "central average that forgets, rows shuffled"
EMA = "federated average that forgets, weighted mean"
MEAN = "federated min-max, weighted mean"
MEDIAN = "federated min-max, median"
TRIMMED, HISTOGRAM = "federated trimmed:1", "federated histogram:8"
RANDOM, ZEROS = "server's random rows, U[0, 1]", "server's rows of zeros"
RULES = (
    FLOAT, CENTRAL, ENVELOPE, CENTRAL_EMA, EMA, MEAN, MEDIAN, TRIMMED, HISTOGRAM, RANDOM, ZEROS
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Setting:
    """The rows of one seed. clients: [rows, 64] of each; test, labels: of all clients together."""

    clients: tuple[np.ndarray, ...]
    test: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Result:
    """Of one seed: accuracy by rule, and whether the envelope's file is the central one's."""

    accuracy: Mapping[str, float]
    identical: bool


def setting(seed: int) -> Setting:
    """Clients of two classes each, whose features bear a gain of the client's own."""
    train, test, owner_of = _split(seed)
    gains = _gains(seed)
    inputs, labels = test
    owner = owner_of[labels]
    scaled = (inputs * gains[owner][:, None]).astype(np.float32)
    own = owner_of[train[1]]
    clients = [train[0][own == client] * gains[client] for client in range(CLIENTS)]
    return Setting(tuple(rows.astype(np.float32) for rows in clients), scaled, labels)


def _split(
    seed: int,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Train and test rows with labels, and which client owns a class."""
    from fedsys.tasks.digits import Digits

    task = Digits().load()
    owner_of = np.random.default_rng(seed).permutation(10) % CLIENTS
    train, test = task.train, task.test
    return (train.inputs, train.labels), (test.inputs, test.labels), owner_of


def _gains(seed: int) -> np.ndarray:
    spread = np.geomspace(*GAINS, CLIENTS)
    return np.random.default_rng([seed, 1]).permutation(spread)


def trained(seeds: list[int], epochs: int) -> list[bytes]:
    """The float model of each seed; runs in a worker process."""
    import keras

    from fedsys.edge.conversion.convert import convert

    models = []
    for seed in seeds:
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        given = setting(seed)
        (_, labels), _, owner_of = _split(seed)
        own = owner_of[labels]
        inputs = np.concatenate(given.clients)
        ordered = np.concatenate([labels[own == client] for client in range(CLIENTS)])
        rows = keras.Input((64,), name="pixels")
        hidden = keras.layers.Dense(32, activation="relu")(rows)
        hidden = keras.layers.Dense(32, activation="relu")(hidden)
        model = keras.Model(rows, keras.layers.Dense(10, name="logits")(hidden))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(5e-3), loss)
        model.fit(inputs, ordered, batch_size=64, epochs=epochs, verbose=0)
        models.append(convert(model))
    return models


# --- the rules that others use -------------------------------------------------------------------


def ends(model: bytes, rows: np.ndarray) -> np.ndarray:
    """[rows, tensors, 2], the range of each activation in each row."""
    from fedsys.edge.calibration.ranges import traced

    return np.array(
        [[(v.min(), v.max()) for v in tensors.values()] for tensors in traced(model, rows)],
        np.float32,
    )


def forgetting(each: np.ndarray) -> np.ndarray:
    """[tensors, 2] of [rows, tensors, 2]: begun with the first row, which each next one fades."""
    average = each[0]
    for row in each[1:]:
        average = SMOOTHING * average + (1 - SMOOTHING) * row
    return average


def widest(each: np.ndarray) -> np.ndarray:
    """[tensors, 2] of [rows, tensors, 2]."""
    return np.stack([each[:, :, 0].min(axis=0), each[:, :, 1].max(axis=0)], axis=1)


# --- the measurement -----------------------------------------------------------------------------


def measure(seeds: tuple[int, ...] = SEEDS, epochs: int = EPOCHS) -> list[Result]:
    """Trains a model for each seed and tries every rule on it."""
    from fedsys.edge.conversion import worker

    models = worker.call(
        "benchmarks.calibration:trained", seeds=list(seeds), epochs=epochs, doing="training"
    )
    return [_tried(model, seed) for model, seed in zip(models, seeds, strict=True)]


def _tried(model: bytes, seed: int) -> Result:
    from fedsys.edge.calibration.federated import calibrate, federated_calibration
    from fedsys.edge.calibration.ranges import activations, outputs
    from fedsys.edge.conversion.quantize import quantize_here

    given, names, rng = setting(seed), list(activations(model)), np.random.default_rng(seed)
    sizes = [len(rows) for rows in given.clients]
    each = [ends(model, rows) for rows in given.clients]
    together = np.concatenate(each)
    per_client = np.stack([widest(one) for one in each])

    def named(merged: np.ndarray) -> Ranges:
        return {n: (float(low), float(high)) for n, (low, high) in zip(names, merged, strict=True)}

    def federated(rule: str) -> Ranges:
        return federated_calibration(model, given.clients, rule).ranges

    made_up = rng.random((100, 64), np.float32)
    ranges = {
        CENTRAL: calibrate(model, np.concatenate(given.clients)),
        ENVELOPE: federated("envelope"),
        CENTRAL_EMA: named(forgetting(rng.permutation(together))),
        EMA: named(np.average([forgetting(one) for one in each], axis=0, weights=sizes)),
        MEAN: named(np.average(per_client, axis=0, weights=sizes)),
        MEDIAN: named(np.median(per_client, axis=0)),
        TRIMMED: federated("trimmed:1"),
        HISTOGRAM: federated("histogram:8"),
        RANDOM: named(forgetting(ends(model, made_up))),
        ZEROS: named(forgetting(ends(model, np.zeros((10, 64), np.float32)))),
    }
    files = {rule: quantize_here(model, found, "int8") for rule, found in ranges.items()}
    right = {FLOAT: (outputs(model, given.test).argmax(axis=1) == given.labels).mean()}
    for rule, file in files.items():
        right[rule] = (_answers(file, given.test) == given.labels).mean()
    return Result(
        {rule: float(share) for rule, share in right.items()}, files[ENVELOPE] == files[CENTRAL]
    )


def _answers(file: bytes, rows: np.ndarray) -> np.ndarray:
    from fedsys.edge.integers.evaluate import integer_outputs
    from fedsys.edge.integers.lower import lower
    from fedsys.edge.tflite.reader import read

    return integer_outputs(lower(read(file)), rows).argmax(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="One seed, hardly trained.")
    options = parser.parse_args()
    seeds, epochs = (SEEDS[:1], 2) if options.tiny else (SEEDS, EPOCHS)
    results = measure(seeds, epochs)
    rows = []
    for rule in RULES:
        shares = [result.accuracy[rule] for result in results]
        rows.append([rule, *(f"{share:.3f}" for share in (*shares, np.mean(shares)))])
    print(f"{machine()}; accuracy on {len(setting(0).labels)} test rows of all clients")
    print(f"{CLIENTS} clients of two classes each, gains {GAINS[0]} to {GAINS[1]}\n")
    print(table(["ranges from", *(f"seed {seed}" for seed in seeds), "mean"], rows))
    same = all(result.identical for result in results)
    print(f"\nenvelope and central int8 files: {'identical' if same else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
