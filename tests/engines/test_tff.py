"""The engine for TensorFlow Federated: the compiled engine's numbers, in another implementation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from fedsys.engines import Compiled
from fedsys.engines.tff import Tff, environment
from fedsys.errors import TrainingError
from fedsys.experiment import Experiment
from fedsys.local import Local, Sgd
from fedsys.setting import prepare
from fedsys.strategies import FedAvg, FedAvgM
from fedsys.task import Examples, Task

from ..federations import classes_task
from .processes import eventually, gone, keepers, session
from .rounds import rounds, run, same

pytestmark = pytest.mark.skipif(
    environment.installed() is None,
    reason="TensorFlow Federated is not installed: fedsys engines install tff",
)
layers = keras.layers


def dense():
    first = layers.Dense(6, activation="tanh")
    return keras.Sequential([keras.Input((5,)), first, layers.Dense(3)])


def setting(task=None, **experiment):
    """Ragged clients, some without rows, of whom some are asked."""
    usual = {
        "partition": "quantity:0.4",
        "clients": 9,
        "cohort": 5,
        "local": Local(epochs=2, batch=4, rate=0.1),
        "compiler": "graph",
        "seed": 4,
    }
    return prepare(Experiment(**{**usual, **experiment}), task or classes_task(dense))


CASES = {
    "fedavg": {"strategy": "fedavg"},
    "fedavg, a server rate": {"strategy": FedAvg(rate=0.5)},
    "fedsgd": {"strategy": "fedsgd"},
    "fedprox": {"strategy": "fedprox:0.5"},
    "fedprox without its term": {"strategy": "fedprox:0", "weighting": "uniform"},
    "fedavgm": {"strategy": "fedavgm:0.9"},
    "fedavgm without momentum": {"strategy": FedAvgM(0.0, rate=0.7)},
    "fedadagrad": {"strategy": "fedadagrad:0.01"},
    "fedadam": {"strategy": "fedadam:0.01"},
    "fedyogi": {"strategy": "fedyogi:0.01"},
    "steps": {"local": Local(steps=5, batch=4, rate=0.1)},
    "momentum": {"local": Local(epochs=2, batch=0, rate=0.05, optimizer=Sgd(0.9))},
    "fedsgd, uniform": {"strategy": "fedsgd", "weighting": "uniform"},
}


@pytest.mark.parametrize("given", CASES.values(), ids=CASES)
def test_three_rounds_come_to_what_the_compiled_engine_comes_to(given):
    told = setting(**given)
    assert len(set(told.partition.sizes)) > 4
    expected = run(Compiled(), told)
    same(expected, run(Tff(), told))
    moved = expected[-1][0].weights - told.weights
    assert np.abs(moved).max() > 1e-3


def test_a_run_that_is_resumed_goes_on_as_one_that_was_not():
    told = setting(strategy="fedadam:0.01")
    whole = run(Tff(), told, 3)
    with Tff().open(told, None) as engine:
        rest = rounds(engine, told, 3, start=whole[0][0])
    for (state, _), (other, _) in zip(whole[1:], rest, strict=True):
        for mine, theirs in zip(state.server, other.server, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def many_kinds():
    """Most kinds of layers that the engine knows, with penalties on weights."""
    rows = keras.Input((8, 8, 2))
    x = layers.Rescaling(2.0, offset=-0.5)(rows)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", kernel_regularizer="l2")(x)
    a = layers.LeakyReLU(0.2)(layers.DepthwiseConv2D(3, padding="same")(x))
    b = layers.PReLU(shared_axes=(1, 2))(layers.SeparableConv2D(4, 3, padding="same")(x))
    x = layers.Concatenate()([layers.Add()([a, b]), layers.Multiply()([a, b]), x])
    x = layers.GroupNormalization(3)(layers.MaxPooling2D(2)(layers.ZeroPadding2D(1)(x)))
    x = layers.Cropping2D(((0, 1), (1, 0)))(layers.Conv2DTranspose(3, 2, strides=2)(x))
    x = layers.LayerNormalization()(layers.AveragePooling2D(2)(x))
    c = layers.GlobalMaxPooling2D()(layers.UpSampling2D()(x))
    y = layers.Reshape((-1, 3))(x)
    y = layers.SeparableConv1D(3, 2)(layers.Conv1D(3, 3, activation="gelu")(y))
    y = layers.AveragePooling1D(2)(layers.MaxPooling1D(2)(layers.ELU()(y)))
    y = layers.Permute((2, 1))(layers.ZeroPadding1D(1)(layers.DepthwiseConv1D(2)(y)))
    d = layers.Flatten()(layers.ReLU(max_value=3.0, negative_slope=0.1, threshold=0.2)(y))
    e = layers.Average()([c, layers.GlobalAveragePooling2D()(x)])
    e = layers.Maximum()([e, layers.Minimum()([c, e]), layers.Subtract()([c, e])])
    inside = keras.Sequential([keras.Input((3,)), layers.Dense(5, bias_regularizer="l1")])
    hidden = layers.Concatenate()([layers.Activation("swish")(inside(e)), layers.Softmax()(d)])
    return keras.Model(rows, layers.Dense(3, use_bias=False)(hidden))


def test_layers_mean_the_same_in_both_keras():
    task = classes_task(many_kinds, rows=40, shape=(8, 8, 2))
    told = setting(task, clients=4, cohort=3, local=Local(epochs=1, batch=5, rate=0.01))
    same(run(Compiled(), told, 2), run(Tff(), told, 2))


def float_task(objective):
    """Inputs of bytes, and labels for an objective of one output."""
    rng = np.random.default_rng(1)
    inputs = rng.integers(0, 5, (50, 4)).astype(np.uint8)
    labels = rng.integers(0, 2, 50) if objective == "binary" else rng.normal(size=50)
    examples = Examples(inputs, labels if objective == "binary" else labels.astype(np.float32))

    def model():
        return keras.Sequential([keras.Input((4,)), layers.Dense(1)])

    return Task(objective, model, examples, examples, objective)


@pytest.mark.parametrize("objective", ["binary", "squared"])
def test_objectives_mean_the_same_in_both(objective):
    told = setting(float_task(objective), local=Local(epochs=2, batch=4, rate=0.01))
    same(run(Compiled(), told, 2), run(Tff(), told, 2))


@pytest.mark.parametrize("strategy", ["fedavg", "fedsgd"])
def test_a_client_whose_data_are_nan_is_refused_by_name_and_the_others_go_on(strategy):
    told = setting(strategy=strategy, cohort=9, partition="iid")
    told.task.train.inputs[told.partition[4]] = np.nan
    with Tff().open(told, None) as engine:
        found = rounds(engine, told, 2)
    for _, happened in found:
        assert [refusal.client for refusal in happened.aggregate.refused] == [4]
        assert happened.aggregate.admitted.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    same(run(Compiled(), told, 2), found)


def test_a_round_without_a_good_client_moves_nothing():
    told = setting(cohort=9, partition="iid")
    told.task.train.inputs[:] = np.nan
    with Tff().open(told, None) as engine, pytest.raises(TrainingError, match="all 9 clients"):
        rounds(engine, told, 2)


def test_a_worker_of_tff_that_is_killed_is_started_anew_and_nothing_is_lost():
    told = setting(cohort=9)
    expected = run(Compiled(), told, 4)
    with Tff().open(told, None) as engine:
        found = rounds(engine, told, 2)
        (keeper,) = keepers(os.getpid())
        (worker,) = (pid for pid in session(keeper) if "worker_binary" in command(pid))
        os.kill(worker, signal.SIGKILL)
        found += rounds(engine, told, 4, start=found[-1][0])
    same(expected, found)
    assert eventually(lambda: not session(keeper))


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


LONG = """
import sys
from tests.engines.test_tff import setting
from tests.engines.rounds import rounds
from fedsys.engines.tff import Tff
told = setting()
with Tff().open(told, None) as engine:
    rounds(engine, told, 1)
    print("begun", flush=True)
    rounds(engine, told, 100_000)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_however_a_run_ends_no_process_of_it_is_left(number, tmp_path):
    project = Path(__file__).parents[2]
    variables = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(project)}
    parent = subprocess.Popen(
        [sys.executable, "-c", LONG],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=variables,
        text=True,
    )
    try:
        assert parent.stdout is not None and parent.stdout.readline() == "begun\n"
        (keeper,) = keepers(parent.pid)
        pids = session(keeper)
        assert any("worker_binary" in command(pid) for pid in pids)
    finally:
        parent.send_signal(number)
        parent.wait()
    assert eventually(lambda: all(map(gone, pids)))
    assert eventually(lambda: not list(tmp_path.glob("fedsys-tff-*")))
