"""Quantisation-aware fine-tuning against post-training quantisation, on sklearn's digits.

Each client's sensor has a gain of its own, so that their ranges differ widely, and the network is
narrow and depthwise, so that eight bits cost something.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.timing import machine, table
from fedsys.partition import Partition

GAINS = (0.1, 0.25, 0.6, 1.5, 4.0)
"""Of the clients' sensors."""
TRAINED = 1200
"""Rows that the clients hold; the others are the test set."""
EPOCHS, ROUNDS, RATE = 25, 5, 0.001
WAYS = ("float", "post-training", "QAT, cold", "QAT, seeded, 0 rounds", "QAT, seeded")
FLOAT, POST, COLD, NONE, SEEDED = WAYS


@dataclass(frozen=True, eq=False)
class Digits:
    """Rows, labels and holders; test rows come through every client's sensor in turn."""

    rows: np.ndarray
    labels: np.ndarray
    partition: Partition
    test_rows: np.ndarray
    test_labels: np.ndarray


def digits(seed: int) -> Digits:
    """Digits dealt to clients of two classes each, whose gains differ."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images[..., None] / 16).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[:TRAINED], order[TRAINED:]
    owner = data.target[train] // 2
    gains = np.array(GAINS, np.float32)[:, None, None, None]
    return Digits(
        images[train] * gains[owner],
        data.target[train],
        Partition.of(owner, len(GAINS)),
        images[test] * gains[data.target[test] // 2],
        data.target[test],
    )


def network() -> Any:
    """A narrow depthwise-separable network."""
    import keras

    layers = keras.layers
    inputs = keras.Input((8, 8, 1), name="inputs")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    for number, channels in enumerate((8, 16), start=1):
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name=f"across{number}")(x)
        x = layers.Conv2D(channels, 1, activation="relu", name=f"along{number}")(x)
    x = layers.AveragePooling2D(4, name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x), name="narrow")


def trained(seed: int, epochs: int) -> Any:
    """The network, trained in float."""
    import keras

    keras.utils.set_random_seed(seed)
    data, model = digits(seed), network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(data.rows, data.labels, epochs=epochs, batch_size=32, verbose=0)
    return model


def in_worker(
    seeds: Sequence[int], ways: Sequence[str], epochs: int, rounds: int, folder: Path
) -> dict[str, Any]:
    """Way -> .tflite bytes of each seed; all in one process, which starts slowly."""
    from fedsys.edge.calibration import ranges
    from fedsys.edge.conversion import convert, quantize
    from fedsys.edge.tuning import qat_worker

    made: dict[str, list[bytes]] = {way: [] for way in ways}
    for seed in seeds:
        path = folder / f"{seed}.keras"
        model, data = trained(seed, epochs), digits(seed)
        model.save(path)
        for way in ways:
            if way in (FLOAT, POST):
                file = convert.convert(model)
            if way == POST:
                file = quantize.quantize_here(file, ranges.calibrate(file, data.rows), "int8")
            if way in (COLD, NONE, SEEDED):
                tuned = qat_worker.fine_tune(
                    path,
                    data.rows,
                    data.labels,
                    data.partition.order,
                    data.partition.start,
                    objective="classes",
                    qat=True,
                    prune=None,
                    cluster=None,
                    ranges="cold" if way == COLD else "measured",
                    rounds=0 if way == NONE else rounds,
                    cohort=len(data.partition),
                    epochs=1,
                    batch=16,
                    rate=RATE,
                    seed=seed,
                    progress=folder / "progress.txt",
                )
                file = tuned["tflite"]
            made[way].append(file)
    return made


def accuracies(
    seeds: Sequence[int] = (0, 1, 2),
    ways: Sequence[str] = WAYS,
    epochs: int = EPOCHS,
    rounds: int = ROUNDS,
) -> Mapping[str, list[float]]:
    """Way -> test accuracy for each seed, as the chip has it."""
    from fedsys.edge.calibration import ranges
    from fedsys.edge.conversion import worker
    from fedsys.edge.integers.evaluate import integer_outputs
    from fedsys.edge.integers.lower import lower
    from fedsys.edge.tflite.reader import read

    with tempfile.TemporaryDirectory() as folder:
        made = worker.call(
            "benchmarks.qat:in_worker",
            doing="fine-tuning",
            timeout=3600,
            environment={"TF_USE_LEGACY_KERAS": "1"},
            seeds=list(seeds),
            ways=list(ways),
            epochs=epochs,
            rounds=rounds,
            folder=Path(folder),
        )
    found: dict[str, list[float]] = {}
    for way, files in made.items():
        found[way] = []
        for seed, file in zip(seeds, files, strict=True):
            data = digits(seed)
            if way == FLOAT:
                outputs = ranges.outputs(file, data.test_rows)
            else:
                outputs = integer_outputs(lower(read(file)), data.test_rows)
            found[way].append(float((outputs.argmax(axis=1) == data.test_labels).mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="one seed, few epochs")
    options = parser.parse_args()
    seeds = (0,) if options.tiny else (0, 1, 2)
    epochs, rounds = (1, 1) if options.tiny else (EPOCHS, ROUNDS)
    found = accuracies(seeds, WAYS, epochs, rounds)
    print(machine())
    print(f"\nTest accuracy, {len(GAINS)} clients of two classes, gains {GAINS}, {rounds} rounds\n")
    header = ["", *(f"seed {seed}" for seed in seeds), "mean"]
    rows = [
        [name, *(f"{value:.3f}" for value in values), f"{fmean(values):.3f}"]
        for name, values in found.items()
    ]
    print(table(header, rows))


if __name__ == "__main__":
    main()
