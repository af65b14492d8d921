"""Local training against float64 NumPy and against plain Keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from fedsys.evaluation import Scorer
from fedsys.layers import prefers_xla, random_layers
from fedsys.layout import read_weights, write_weights
from fedsys.local import Adam, Local, Sgd
from fedsys.partition import Partition
from fedsys.strategies import FedProx
from fedsys.task import Examples, Task
from fedsys.training import client_seeds

from .federations import (
    COMPILERS,
    Federation,
    Trainer,
    by_sizes,
    classes_task,
    linear_model,
    linear_task,
)

COMPILER = pytest.mark.parametrize("xla", COMPILERS.values(), ids=COMPILERS)
PARTITION = by_sizes([11, 30, 6])
CLIENT = 1


# --- optimisers: float64 NumPy on a linear model -------------------------------------------------


def gradient(task, w, rows):
    x, y = task.train.inputs[rows], task.train.labels[rows]
    error = x @ w[:-1] + w[-1] - y
    return np.append(x.T @ error, error.sum()) / len(rows)


def momentum_sgd(task, w, batches, rate, momentum=0.0, decay=0.0):
    """Sutskever et al. 2013, with the rate outside the velocity, and an L2 penalty."""
    velocity = 0 * w
    for rows in batches:
        velocity = momentum * velocity + gradient(task, w, rows) + decay * w
        w = w - rate * velocity
    return w


def adam(task, w, batches, rate, beta1=0.9, beta2=0.999, epsilon=1e-8, decay=0.0):
    """Kingma and Ba 2015, Algorithm 1; Loshchilov and Hutter 2019, Algorithm 2."""
    m, v = 0 * w, 0 * w
    for t, rows in enumerate(batches, start=1):
        g = gradient(task, w, rows)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        corrected, scale = m / (1 - beta1**t), v / (1 - beta2**t)
        w = w - rate * (corrected / (np.sqrt(scale) + epsilon) + decay * w)
    return w


OPTIMISERS = {
    "sgd": (Sgd(), momentum_sgd, {}),
    "momentum": (Sgd(0.9), momentum_sgd, {"momentum": 0.9}),
    "decay": (Sgd(decay=0.3), momentum_sgd, {"decay": 0.3}),
    "both": (Sgd(0.5, 0.3), momentum_sgd, {"momentum": 0.5, "decay": 0.3}),
    "adam": (Adam(), adam, {}),
    "adamw": (
        Adam(0.8, 0.95, 1e-3, 0.2),
        adam,
        {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "decay": 0.2},
    ),
}


def moved(local, *, xla, task=None, strategy=None, **kinds):
    """The trainer and how far client CLIENT moved."""
    task = task or linear_task(PARTITION)
    trainer = Trainer(task, local, xla=xla, **({"strategy": strategy} if strategy else {}))
    return trainer, trainer(PARTITION, [CLIENT], **kinds)


@COMPILER
@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_steps_as_its_paper_says(name, xla):
    optimizer, oracle, options = OPTIMISERS[name]
    local = Local(epochs=3, batch=7, rate=0.05, optimizer=optimizer)  # 30 rows: batches of 7 and 2
    trainer, got = moved(local, xla=xla)
    batches = trainer.plan(PARTITION, [CLIENT]).batches(0)
    assert [len(rows) for rows in batches[:5]] == [7, 7, 7, 7, 2]
    expected = oracle(trainer.task, trainer.weights, batches, 0.05, **options)
    np.testing.assert_allclose(trainer.weights + got.total, expected, rtol=1e-11)


RATE, BETA1, BETA2 = 0.0625, 0.875, 0.9375  # exact in float32, through which Keras takes them
KERAS = {
    "sgd": (Sgd(), lambda: keras.optimizers.SGD(RATE)),
    "momentum": (Sgd(0.5), lambda: keras.optimizers.SGD(RATE, momentum=0.5)),
    "adam": (
        Adam(BETA1, BETA2, 1e-14),
        lambda: keras.optimizers.Adam(RATE, BETA1, BETA2, 1e-14),
    ),
    "adamw": (
        Adam(BETA1, BETA2, 1e-14, decay=0.25),
        lambda: keras.optimizers.AdamW(RATE, 0.25, BETA1, BETA2, 1e-14),
    ),
}


@pytest.mark.parametrize("name", KERAS)
def test_an_optimiser_steps_as_kerass_does(name):
    """Keras adds Adam's epsilon elsewhere, so it is made too small to matter."""
    optimizer, theirs = KERAS[name]
    trainer, got = moved(Local(epochs=2, batch=7, rate=RATE, optimizer=optimizer), xla=False)
    model, theirs = trainer.task.model(), theirs()
    theirs.build(model.trainable_variables)
    for rows in trainer.plan(PARTITION, [CLIENT]).batches(0):
        x, y = trainer.task.train.inputs[rows], trainer.task.train.labels[rows]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(0.5 * (model(x)[:, 0] - y) ** 2)
        theirs.apply(tape.gradient(loss, model.trainable_variables))
    np.testing.assert_allclose(trainer.weights + got.total, read_weights(model), rtol=1e-9)


@COMPILER
def test_a_long_gradient_is_shortened_to_the_clip_over_all_weights(xla):
    trainer, got = moved(Local(epochs=2, batch=7, rate=0.05, clip=7.0), xla=xla)
    w, lengths = trainer.weights, []
    for rows in trainer.plan(PARTITION, [CLIENT]).batches(0):
        g = gradient(trainer.task, w, rows)
        lengths.append(np.linalg.norm(g))
        w = w - 0.05 * g * min(1, 7 / np.linalg.norm(g))
    assert min(lengths) < 7 < max(lengths), "both cases occur"
    np.testing.assert_allclose(trainer.weights + got.total, w, rtol=1e-12)


@COMPILER
def test_fewer_steps_than_an_epoch_and_more(xla):
    for steps in (2, 13):
        trainer, got = moved(Local(steps=steps, batch=7, rate=0.05), xla=xla)
        batches = trainer.plan(PARTITION, [CLIENT]).batches(0)
        assert len(batches) == steps
        w = momentum_sgd(trainer.task, trainer.weights, batches, 0.05)
        np.testing.assert_allclose(trainer.weights + got.total, w, rtol=1e-12)


def test_batch_0_is_full_gradient_descent_whatever_the_order():
    trainer, got = moved(Local(epochs=4, batch=0, rate=0.05), xla=False)
    w = momentum_sgd(trainer.task, trainer.weights, [PARTITION[CLIENT]] * 4, 0.05)
    np.testing.assert_allclose(trainer.weights + got.total, w, rtol=1e-12)


def test_batch_0_under_xla_is_full_gradient_descent():
    """XLA has fixed shapes, so its engine masks the rows that a smaller client lacks."""
    local = Local(epochs=4, batch=0, rate=0.05)
    run = Federation(linear_task(PARTITION), PARTITION, local=local, xla=True)
    for client, rows in enumerate(PARTITION):
        got = run.round([client])
        w = momentum_sgd(run.task, run.weights, [rows] * 4, 0.05)
        np.testing.assert_allclose(run.weights + got.delta, w, rtol=1e-12)
        assert np.isfinite(got.losses).all()


@COMPILER
def test_the_loss_is_the_mean_over_the_steps_before_each_step(xla):
    trainer, got = moved(Local(epochs=2, batch=7, rate=0.05), xla=xla)
    w, losses = trainer.weights, []
    for rows in trainer.plan(PARTITION, [CLIENT]).batches(0):
        x, y = trainer.task.train.inputs[rows], trainer.task.train.labels[rows]
        losses.append(np.mean(0.5 * (x @ w[:-1] + w[-1] - y) ** 2))
        w = w - 0.05 * gradient(trainer.task, w, rows)
    np.testing.assert_allclose(got.losses, [np.mean(losses)], rtol=1e-12)


@COMPILER
def test_a_call_gives_the_weighted_sum_of_its_clients_and_of_no_others(xla):
    """With Adam, whose moments and count of steps are each client's own."""
    local = Local(batch=7, rate=0.05, optimizer=Adam())
    trainer = Trainer(linear_task(PARTITION), local, xla=xla)
    alone = [trainer(PARTITION, [client]) for client in range(3)]
    both = trainer(PARTITION, [2, 0], weights=[0.25, 3.0])
    expected = 0.25 * alone[2].total + 3 * alone[0].total
    np.testing.assert_allclose(both.total, expected, rtol=1e-12)
    np.testing.assert_allclose(both.losses, [alone[2].losses[0], alone[0].losses[0]], rtol=1e-12)


@COMPILER
@pytest.mark.parametrize("sick", [np.nan, 1e300])
def test_a_sick_row_spoils_its_own_client_and_nobody_else(xla, sick):
    task = linear_task(PARTITION)
    healthy = Trainer(task, Local(batch=7, rate=0.05), xla=xla)(PARTITION, [0, 2])
    inputs = task.train.inputs.copy()
    inputs[PARTITION[CLIENT]] = sick  # every row: the first, the last, the ragged ones
    spoiled = Task("sick", task.model, Examples(inputs, task.train.labels), task.test, "squared")
    got = Trainer(spoiled, Local(batch=7, rate=0.05), xla=xla)(PARTITION, [0, CLIENT, 2])
    assert got.finite.tolist() == [True, False, True]
    np.testing.assert_allclose(got.total, healthy.total, rtol=1e-12)
    np.testing.assert_allclose(got.losses[[0, 2]], healthy.losses, rtol=1e-12)


@COMPILER
def test_the_correction_is_part_of_the_gradient_before_momentum(xla):
    trainer, got = moved(
        Local(batch=7, rate=0.05, optimizer=Sgd(0.9)), xla=xla, strategy=FedProx(0.7)
    )
    w, velocity = trainer.weights, 0.0
    for rows in trainer.plan(PARTITION, [CLIENT]).batches(0):
        pull = 0.7 * (w - trainer.weights)
        velocity = 0.9 * velocity + gradient(trainer.task, w, rows) + pull
        w = w - 0.05 * velocity
    np.testing.assert_allclose(trainer.weights + got.total, w, rtol=1e-11)


# --- layers with a life of their own: plain Keras ------------------------------------------------


def dense(x, classes=3):
    return keras.layers.Dense(classes, name="logits")(x)


def normalised():
    inputs = keras.Input((5,), name="inputs")
    x = keras.layers.Dense(8, name="hidden")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9, name="norm")(x)
    return keras.Model(inputs, dense(keras.layers.ReLU(name="relu")(x)), name="normalised")


def dropping(rate=0.5):
    inputs = keras.Input((5,), name="inputs")
    x = keras.layers.Dense(16, activation="relu", name="hidden")(inputs)
    x = keras.layers.Dropout(rate, name="drop1")(x)
    x = keras.layers.Dropout(rate, name="drop2")(x)
    return keras.Model(inputs, dense(x), name="dropping")


def embedding():
    inputs = keras.Input((5,), dtype="int32", name="inputs")
    x = keras.layers.Embedding(20, 4, name="words")(inputs)
    return keras.Model(inputs, dense(keras.layers.Flatten(name="flat")(x)), name="embedding")


def convolutional():
    inputs = keras.Input((6, 6, 1), name="inputs")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="convolution")(inputs)
    x = keras.layers.GroupNormalization(2, name="norm")(x)
    return keras.Model(inputs, dense(keras.layers.Flatten(name="flat")(x)), name="convolutional")


class Counting(keras.layers.Layer):
    """Adds nothing, and counts its calls in a whole number."""

    def build(self, shape):
        self.calls = self.add_weight(
            shape=(), dtype="int32", trainable=False, initializer="zeros", name="calls"
        )

    def call(self, x):
        self.calls.assign_add(1)
        return x


def counting():
    inputs = keras.Input((5,), name="inputs")
    return keras.Model(inputs, dense(Counting(name="counter")(inputs)), name="counting")


def keras_loop(trainer, batches, rate):
    """The weights and the losses of plain Keras over the same batches."""
    model, train = trainer.task.model(), trainer.task.train
    write_weights(model, trainer.weights)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss)
    for rows in batches:
        model.train_on_batch(train.inputs[rows], train.labels[rows])
    return read_weights(model)


MODELS = {
    "normalised": (normalised, (5,)),
    "embedding": (embedding, (5,)),
    "convolutional": (convolutional, (6, 6, 1)),
    "counting": (counting, (5,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_as_plain_keras_trains_it(name):
    """Weights and moving averages, over several epochs with a ragged last batch."""
    model, shape = MODELS[name]
    task = classes_task(model, PARTITION.sizes.sum(), shape)
    if name == "embedding":
        words = np.random.default_rng(0).integers(0, 20, task.train.inputs.shape)
        examples = Examples(words.astype(np.int32), task.train.labels)
        task = Task(name, model, examples, examples)
    trainer, got = moved(Local(epochs=2, batch=7, rate=0.1), xla=False, task=task)
    expected = keras_loop(trainer, trainer.plan(PARTITION, [CLIENT]).batches(0), 0.1)
    assert np.abs(expected - trainer.weights).max() > 0.05
    np.testing.assert_allclose(trainer.weights + got.total, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["embedding", "counting"])
def test_xla_gives_what_the_graph_gives(name):
    model, shape = MODELS[name]
    task = classes_task(model, PARTITION.sizes.sum(), shape)
    if name == "embedding":
        examples = Examples(np.abs(task.train.inputs * 3).astype(np.int32), task.train.labels)
        task = Task(name, model, examples, examples)
    xla, graph = (Trainer(task, Local(epochs=2, batch=7), xla=xla) for xla in (True, False))
    one, other = (t(PARTITION, [CLIENT], anchor=graph.weights).total for t in (xla, graph))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_moving_averages_are_averaged_by_weight_on_the_server():
    task = classes_task(normalised, PARTITION.sizes.sum())
    run = Federation(task, PARTITION, local=Local(epochs=1, batch=7))
    alone = [run.round([client]).delta for client in range(3)]
    together = run.round([0, 1, 2]).delta
    expected = np.average(alone, axis=0, weights=PARTITION.sizes)
    np.testing.assert_allclose(together, expected, atol=1e-6)
    averages = slice(run.layout.parameters, None)
    assert np.abs(alone[0][averages] - alone[1][averages]).max() > 0.01
    state = run.run(1)[0]
    np.testing.assert_allclose(state.buffers, run.weights[averages] + expected[averages], atol=1e-6)


@COMPILER
def test_a_regulariser_adds_its_penalty(xla):
    def model():
        return linear_model(kernel_regularizer=keras.regularizers.L2(0.4))

    task = linear_task(PARTITION)
    task = Task("penalised", model, task.train, task.test, "squared")
    trainer, got = moved(Local(epochs=2, batch=7, rate=0.05), xla=xla, task=task)
    w, losses = trainer.weights, []
    for rows in trainer.plan(PARTITION, [CLIENT]).batches(0):
        x, y = task.train.inputs[rows], task.train.labels[rows]
        losses.append(np.mean(0.5 * (x @ w[:-1] + w[-1] - y) ** 2) + 0.4 * np.sum(w[:-1] ** 2))
        penalty = np.append(2 * 0.4 * w[:-1], 0)
        w = w - 0.05 * (gradient(task, w, rows) + penalty)
    # Keras keeps the regulariser's factor in float32.
    np.testing.assert_allclose(trainer.weights + got.total, w, rtol=1e-6)
    np.testing.assert_allclose(got.losses, [np.mean(losses)], rtol=1e-6)


# --- dropout -------------------------------------------------------------------------------------


def twins(model):
    """Two clients who have one row twenty times over and take all of them in one step: neither
    the rows nor their order differ, only chance does."""
    one = classes_task(model, 1).train
    rows = Examples(np.repeat(one.inputs, 40, axis=0), np.repeat(one.labels, 40))
    return Task("twins", model, rows, rows), Partition(np.arange(40), np.array([0, 20, 40]))


def test_dropout_follows_from_seed_round_and_client():
    task, partition = twins(dropping)
    trainer = Trainer(task, Local(epochs=1, batch=0, rate=0.5), xla=False)

    def total(client=0, **kinds):
        return trainer(partition, [client], **kinds).total

    np.testing.assert_array_equal(total(), total())
    others = [total(client=1), total(round=2), total(seed=4)]
    for one in others:
        assert np.abs(one - total()).max() > 1e-3


def test_without_dropout_the_twins_are_alike():
    """So the test above sees masks and nothing else."""
    task, partition = twins(lambda: dropping(0.0))
    trainer = Trainer(task, Local(epochs=1, batch=0, rate=0.5), xla=False)
    one, other = (trainer(partition, [client]).total for client in (0, 1))
    np.testing.assert_array_equal(one, other)


def test_each_layer_of_each_client_begins_with_a_seed_of_its_own():
    assert random_layers(dropping()) == [0, 1]
    seeds = client_seeds(0, 1, np.arange(50), 2)
    assert seeds.shape == (50, 2, 2) and seeds.dtype == np.uint32
    assert len(np.unique(seeds.reshape(-1, 2), axis=0)) == 100
    np.testing.assert_array_equal(client_seeds(0, 1, np.array([7]), 2), seeds[7:8])


@pytest.mark.parametrize("share, alike", [(0.5, False), (0.0, True)])
def test_each_step_drops_other_values(share, alike):
    """At a rate at which nothing is learned, only the masks change the loss of a step."""
    task, partition = twins(lambda: dropping(share))
    trainers = [Trainer(task, Local(steps=n, batch=0, rate=1e-20), xla=False) for n in (1, 2)]
    anchor = trainers[0].weights
    one, two = (trainer(partition, [0], anchor=anchor).losses[0] for trainer in trainers)
    assert bool(abs(one - two) < 1e-6) is alike


def test_a_client_drops_the_same_in_a_call_of_many():
    """The masks are the client's own, not those of its place in the call."""
    task = classes_task(dropping, PARTITION.sizes.sum())
    trainer = Trainer(task, Local(epochs=2, batch=7), xla=False)
    alone = sum(trainer(PARTITION, [client]).total for client in (0, 1, 2))
    np.testing.assert_allclose(trainer(PARTITION, [2, 0, 1]).total, alone, atol=1e-5)


def test_dropout_is_off_in_evaluation():
    task = classes_task(dropping)
    model = task.model()
    ours = Scorer(model, task.test.inputs).outputs(read_weights(model), task.test.inputs)
    theirs = model(task.test.inputs, training=False)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert np.abs(ours - model(task.test.inputs, training=True)).max() > 1e-2


# --- which compiler ------------------------------------------------------------------------------


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.logits = keras.layers.Dense(3)

    def call(self, x):
        return self.logits(x)


def nested():
    inputs = keras.Input((5,), name="inputs")
    return keras.Model(inputs, keras.Sequential([normalised()])(inputs))


@pytest.mark.parametrize(
    "model, batch, xla",
    [
        (linear_model, 10, True),
        (linear_model, 0, False),
        (normalised, 10, False),
        (dropping, 10, False),
        (convolutional, 10, False),
        (nested, 10, False),
        (Own, 10, False),
    ],
)
def test_xla_is_for_dense_layers_alone(model, batch, xla):
    assert prefers_xla(model(), Local(batch=batch)) is xla


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: Local(epochs=0), "epochs must be at least 1, not 0"),
        (lambda: Local(steps=0), "steps must be at least 1, not 0"),
        (lambda: Local(batch=-1), "batch must be at least 0, not -1"),
        (lambda: Local(rate=0.0), "rate must be above 0, not 0.0"),
        (lambda: Local(rate=float("nan")), "rate must be above 0, not nan"),
        (lambda: Local(clip=0.0), "clip must be above 0, not 0.0"),
        (lambda: Sgd(momentum=1.0), "momentum must be below 1, not 1.0"),
        (lambda: Sgd(decay=-1.0), "decay must be at least 0, not -1.0"),
        (lambda: Adam(beta2=1.0), "beta2 must be below 1, not 1.0"),
        (lambda: Adam(epsilon=0.0), "epsilon must be above 0, not 0.0"),
    ],
)
def test_values_out_of_bounds_are_named(wrong, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        wrong()
