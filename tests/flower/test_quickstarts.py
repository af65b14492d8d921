"""Quickstart apps with frameworks, whose own global generators are seeded too."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

APPS = Path(__file__).parent / "apps"
KERAS = ("simulate", "--app", APPS / "quickstart_keras", "--nodes", 2, "--quiet",
         "--run-config", "num-server-rounds=1")  # fmt: skip


def keras_weights(cli, *options):
    import keras

    assert cli(*KERAS, *options).code == 0
    return keras.models.load_model("final_model.keras").get_weights()


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_seed_decides_the_order_in_which_keras_clients_shuffle(cli):
    """The app seeds its server itself, so only its clients can differ."""
    first = keras_weights(cli, "--seed", 1)
    assert equal(keras_weights(cli, "--seed", 1), first)
    assert not equal(keras_weights(cli, "--seed", 2), first)


def test_several_workers_run_keras_clients_side_by_side(cli):
    fixed = ("--run-config", "shuffle=false")
    one, two = keras_weights(cli, *fixed), keras_weights(cli, *fixed, "--workers", 2)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_sklearn_learns(cli, tmp_path):
    import joblib
    from sklearn.datasets import load_digits

    done = cli("simulate", "--app", APPS / "quickstart_sklearn", "--nodes", 4)
    assert done.code == 0 and "failed" not in done.err
    model = joblib.load(tmp_path / "logreg_model.pkl")
    x, y = load_digits(return_X_y=True)
    assert model.score(x / 16.0, y) > 0.85
    assert not [name for name in sys.modules if name.startswith("sklearnexample")]
