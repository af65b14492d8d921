"""Programs of TFF's own in its environment, and what one of them tells of its FedProx."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from fedsys.engines.tff import Tff, environment
from fedsys.engines.tff.script import run_script
from fedsys.errors import EngineError
from fedsys.experiment import Experiment
from fedsys.local import Local
from fedsys.setting import prepare
from fedsys.task import Examples, Task

from .rounds import run

installed = pytest.mark.skipif(
    environment.installed() is None,
    reason="TensorFlow Federated is not installed: fedsys engines install tff",
)
MU, RATE, STEPS = 0.5, 0.1, 5

TFF_FEDPROX = """
import json, sys
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

def loss(y_true, y_pred, sample_weight=None):
    return 0.5 * tf.reduce_mean((y_true - y_pred) ** 2)

mu, rate, steps, clients = json.loads(sys.argv[1])
layer = tf.keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
model = tff.learning.models.functional_model_from_keras(
    tf.keras.Sequential([tf.keras.layers.InputLayer(2), layer]),
    loss_fn=loss,
    input_spec=(tf.TensorSpec([None, 2], tf.float32), tf.TensorSpec([None, 1], tf.float32)),
)
learning = tff.learning.algorithms.build_weighted_fed_prox(
    model,
    proximal_strength=mu,
    client_optimizer_fn=tff.learning.optimizers.build_sgdm(rate),
    server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
)
data = [
    tf.data.Dataset.from_tensors((np.float32(x), np.float32(y)[:, None])).repeat(steps)
    for x, y in clients
]
state = learning.next(learning.initialize(), data).state
print(json.dumps(learning.get_model_weights(state).trainable[0].ravel().tolist()))
"""


def clients():
    """Two clients of a linear regression who do not agree."""
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(rows, 2)), rng.normal(size=rows) + 3 * place)
        for place, rows in enumerate((4, 9))
    ]


def fedprox(mu: float) -> np.ndarray:
    """A round of FedProx from ones in float64: gradients gain mu (w - 1)."""
    ends = []
    for x, y in clients():
        w = np.ones(2)
        for _ in range(STEPS):
            w = w - RATE * (x.T @ (x @ w - y) / len(y) + mu * (w - 1))
        ends.append(w)
    return np.average(ends, axis=0, weights=[len(y) for _, y in clients()])


def ours() -> np.ndarray:
    """The same round in the engine."""
    x, y = (np.concatenate(parts).astype(np.float32) for parts in zip(*clients(), strict=True))
    owners = np.repeat(np.arange(2), [len(y) for _, y in clients()])

    def model():
        layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        return keras.Sequential([keras.Input((2,)), layer])

    task = Task("pulled", model, Examples(x, y, owners), Examples(x, y), "squared")
    local = Local(epochs=STEPS, batch=0, rate=RATE)
    experiment = Experiment(
        clients=2, cohort=2, partition="natural", strategy=f"fedprox:{MU}", local=local
    )
    ((state, _),) = run(Tff(), prepare(experiment, task), 1)
    return state.server.weights


@installed
def test_tffs_own_fedprox_has_the_wrong_sign_and_the_engines_has_not():
    """If the first fails with a new TFF, it has been mended: then the engine may use it."""
    given = [(x.tolist(), y.tolist()) for x, y in clients()]
    said = run_script(TFF_FEDPROX, json.dumps([MU, RATE, STEPS, given]))
    theirs = np.array(json.loads(said))
    np.testing.assert_allclose(theirs, fedprox(-MU), atol=1e-6)
    assert np.abs(theirs - fedprox(MU)).max() > 0.05
    np.testing.assert_allclose(ours(), fedprox(MU), atol=1e-6)


@installed
def test_a_program_says_what_it_printed_and_nothing_else():
    said = run_script("import sys; print(*sys.argv[1:]); print('x', file=sys.stderr)", "a", "b c")
    assert said == "a b c\n"


@installed
def test_a_program_that_fails_or_takes_too_long_is_one_line():
    with pytest.raises(EngineError, match=r"the program ended with code 1: ValueError: so it is$"):
        run_script("raise ValueError('so it is')")
    with pytest.raises(EngineError, match=r"the program crashed \(SIGABRT\)"):
        run_script("import os; os.abort()")
    with pytest.raises(EngineError, match=r"not done after 0\.5 s"):
        run_script("import time; time.sleep(100)", timeout=0.5)


def test_without_the_environment_the_command_for_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDSYS_HOME", str(tmp_path / "none"))
    with pytest.raises(EngineError, match="not installed: fedsys engines install tff"):
        run_script("")
    assert not Path(tmp_path / "none").exists()
