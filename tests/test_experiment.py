"""Experiments: what is written is what is read, and every difference has another name."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fedsys.clients.faults import FAULTS
from fedsys.errors import UsageError
from fedsys.experiment import COMPILERS, WEIGHTINGS, Experiment, merged, read_table
from fedsys.local import Adam, Local, Sgd
from fedsys.partitions import Dirichlet, Features, Iid, Labels, Natural, Quantity, Shards
from fedsys.setting import prepare
from fedsys.strategies import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedProx,
    FedSGD,
    FedYogi,
    Scaffold,
)
from fedsys.tasks import Digits, FashionMnist, Heart, Synthetic, Table, UserTask

from .federations import classes_task, linear_model

POSITIVE = st.floats(1e-9, 1e9)
PART = st.floats(0, 0.999)
COUNT = st.integers(1, 10**6)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
TASKS = st.one_of(
    st.builds(Digits, st.sampled_from(["mlp", "cnn", "logistic"])),
    st.builds(FashionMnist, st.none() | NAME, st.sampled_from(["cnn", "2nn", "depthwise"])),
    st.builds(Heart, st.none() | NAME),
    st.builds(Synthetic, st.floats(0, 9), st.floats(0, 9), COUNT, COUNT, st.booleans()),
    st.tuples(NAME, NAME, st.none() | NAME)
    .filter(lambda t: t[1] != t[2])
    .map(lambda t: Table(*t, "logistic", 0.25)),
    st.builds(UserTask, st.sampled_from(["my.py", "a b/c.py", "/x/y.py"]), st.just("task")),
)
RULES = st.one_of(
    st.none(),
    st.just(Iid()),
    st.just(Natural()),
    st.builds(Dirichlet, POSITIVE),
    st.builds(Quantity, POSITIVE),
    st.builds(Shards, COUNT),
    st.builds(Labels, COUNT),
    st.builds(Features, st.floats(0, 1)),
)
STRATEGIES = st.one_of(
    st.builds(FedAvg, rate=POSITIVE),
    st.builds(FedSGD, rate=POSITIVE),
    st.builds(FedProx, POSITIVE, rate=POSITIVE),
    st.builds(FedAvgM, PART, rate=POSITIVE),
    st.builds(FedAdagrad, POSITIVE, PART, POSITIVE),
    st.builds(FedAdam, POSITIVE, PART, POSITIVE, PART),
    st.builds(FedYogi, POSITIVE, PART, POSITIVE, PART),
    st.builds(Scaffold, rate=POSITIVE),
)
LOCALS = st.builds(
    Local,
    epochs=COUNT,
    steps=st.none() | COUNT,
    batch=st.integers(0, 10**6),
    rate=POSITIVE,
    optimizer=st.one_of(st.builds(Sgd, PART, POSITIVE), st.builds(Adam, PART, PART, POSITIVE)),
    clip=st.none() | POSITIVE,
)
FAULT = st.none() | st.builds(
    lambda name, share: FAULTS.members[name](share),
    st.sampled_from(sorted(FAULTS.members)),
    st.floats(0, 1),
)


@st.composite
def experiments(draw):
    cohort = draw(st.none() | COUNT)
    clients = draw(st.none() | st.integers(cohort or 1, 10**6 + 1))
    strategy, local = draw(STRATEGIES), draw(LOCALS)
    assume(local.plain or not isinstance(strategy, Scaffold))
    return Experiment(
        task=draw(TASKS),
        partition=draw(RULES),
        clients=clients,
        cohort=cohort,
        strategy=strategy,
        local=local,
        weighting=draw(st.sampled_from(WEIGHTINGS)),
        rounds=draw(COUNT),
        evaluate=draw(st.integers(0, 99)),
        evaluate_clients=draw(st.integers(0, 99)),
        quorum=draw(st.floats(0.001, 1)),
        faults=draw(FAULT),
        compiler=draw(st.sampled_from(COMPILERS)),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(experiments())
def test_an_experiment_written_as_toml_is_read_back(experiment):
    again = Experiment.of(tomllib.loads(experiment.toml()))
    assert again == experiment
    assert (again.name, again.trajectory) == (experiment.name, experiment.trajectory)
    assert again.toml() == experiment.toml()


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(experiments(), experiments())
def test_names_are_equal_exactly_for_equal_experiments(one, other):
    assert (one.name == other.name) == (one == other)


def test_a_file_is_read(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text(
        'task = "digits:cnn"\npartition = "dirichlet:0.5"\nrounds = 7\n'
        '[strategy]\nname = "fedprox"\nmu = 1\n[local]\nrate = 1\noptimizer = "sgd:0.9"\n'
    )
    assert Experiment.read(path) == Experiment(
        task="digits:cnn",
        partition=Dirichlet(0.5),
        rounds=7,
        strategy=FedProx(1.0),
        local=Local(rate=1.0, optimizer=Sgd(0.9)),
    )


# --- names ---------------------------------------------------------------------------------------

CHANGES = {
    "task": "digits:cnn",
    "partition": "iid",
    "clients": 50,
    "cohort": 5,
    "strategy": "fedprox",
    "aggregator": "median",
    "local": Local(rate=0.2),
    "weighting": "uniform",
    "rounds": 51,
    "evaluate": 2,
    "evaluate_clients": 1,
    "quorum": 0.6,
    "faults": "nan",
    "compiler": "graph",
    "seed": 1,
}
WATCHED = {"rounds", "evaluate", "evaluate_clients"}


def test_every_field_is_changed_here():
    assert set(CHANGES) == {one.name for one in dataclasses.fields(Experiment)}


@pytest.mark.parametrize("key", CHANGES)
def test_every_difference_is_another_name_and_most_another_trajectory(key):
    plain, changed = Experiment(), Experiment(**{key: CHANGES[key]})
    assert changed.name != plain.name
    assert (changed.trajectory != plain.trajectory) == (key not in WATCHED)


@pytest.mark.parametrize("one", dataclasses.fields(Local), ids=lambda one: one.name)
def test_every_detail_of_the_local_training_is_in_the_name(one):
    other = {"epochs": 6, "steps": 6, "batch": 6, "rate": 0.6, "optimizer": Adam(), "clip": 6.0}
    changed = Experiment(local=Local(**{one.name: other[one.name]}))
    assert changed.name != Experiment().name


def test_a_name_does_not_depend_on_how_the_experiment_was_said():
    said = [
        Experiment(strategy="fedprox:1", partition="dirichlet:1", local=Local(rate=1, clip=2)),
        Experiment(strategy=FedProx(1.0), partition=Dirichlet(1), local=Local(rate=1.0, clip=2.0)),
        Experiment.of(
            {
                "local": {"clip": 2, "rate": 1},
                "partition": {"name": "dirichlet", "alpha": 1},
                "strategy": {"name": "fedprox:1"},
            }
        ),
    ]
    assert len({experiment.name for experiment in said}) == 1
    assert len({experiment.toml() for experiment in said}) == 1


def test_a_name_is_the_same_in_another_process():
    code = "from fedsys import Experiment; print(Experiment(strategy='fedadam', seed=4).name)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": "7"}
    )
    assert run.stdout.strip() == Experiment(strategy="fedadam", seed=4).name
    assert len(run.stdout.strip()) == 12


def test_an_experiment_is_read_without_tensorflow():
    code = (
        "import sys, fedsys\nfedsys.Experiment(partition='iid').toml()\n"
        "print([name for name in ('tensorflow', 'keras', 'pandas') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]"


# --- mistakes ------------------------------------------------------------------------------------

FIELDS = ("aggregator, clients, cohort, compiler, evaluate, evaluate_clients, faults, local, "
          "partition, quorum, rounds, seed, strategy, task, weighting")  # fmt: skip


@pytest.mark.parametrize(
    "table, message",
    [
        ({"rouns": 3}, f"rouns: unknown key; did you mean 'rounds'? known: {FIELDS}"),
        ({"local": {"rat": 1}}, "local.rat: unknown key; did you mean 'rate'? "
         "known: batch, clip, epochs, optimizer, rate, steps"),
        ({"rounds": "3"}, "rounds must be a whole number, not '3'"),
        ({"rounds": 0}, "rounds must be at least 1, not 0"),
        ({"rounds": 2.0}, "rounds must be a whole number, not 2.0"),
        ({"local": 3}, "local must be a table, not 3"),
        ({"local": {"rate": "fast"}}, "local.rate must be a number, not 'fast'"),
        ({"local": {"rate": 0}}, "local.rate must be above 0, not 0.0"),
        ({"local": {"rate": float("nan")}}, "local.rate must be above 0, not nan"),
        ({"quorum": 0}, "quorum must be above 0, not 0.0"),
        ({"quorum": 1.1}, "quorum must be at most 1, not 1.1"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"weighting": "example"},
         "weighting: unknown 'example'; did you mean 'examples'? known: examples, uniform"),
        ({"compiler": "xlaa"}, "compiler: unknown 'xlaa'; did you mean 'xla'? "
         "known: auto, graph, xla"),
        ({"strategy": "fedpro"}, "strategy: unknown strategy 'fedpro'; did you mean 'fedprox'? "
         "known: fedadagrad, fedadam, fedavg, fedavgm, fedprox, fedsgd, fedyogi, scaffold"),
        ({"strategy": "fedprox:nu=1"},
         "strategy.nu: unknown key of 'fedprox'; did you mean 'mu'? known: mu, rate"),
        ({"partition": "dirichlett:1"}, "partition: unknown partition 'dirichlett'; did you mean "
         "'dirichlet'? known: dirichlet, features, iid, labels, natural, quantity, shards"),
        ({"partition": "dirichlet"}, "partition: 'dirichlet' needs alpha"),
        ({"partition": "dirichlet:0"}, "partition.alpha must be above 0, not 0.0"),
        ({"local": {"optimizer": "adm"}},
         "local.optimizer: unknown optimizer 'adm'; did you mean 'adam'? known: adam, sgd"),
        ({"local": {"optimizer": "adam:beta1=1"}},
         "local.optimizer.beta1 must be below 1, not 1.0"),
        ({"faults": "nann"}, "faults: unknown fault 'nann'; did you mean 'nan'? known: "
         "absurd-weight, any, dtype, extra, infinity, missing, nan, negative-weight, shape, "
         "sign-flip, times-100, zero-update, zero-weight"),
        ({"faults": "nan:1.5"}, "faults.share must be at most 1, not 1.5"),
        ({"task": "digit"}, "task: unknown task 'digit'; did you mean 'digits'? known: "
         "credit-default, digits, fashion-mnist, heart, synthetic, table, tables"),
        ({"task": {"name": "digits", "modle": "cnn"}},
         "task.modle: unknown key of 'digits'; did you mean 'model'? known: model"),
        ({"cohort": 20, "clients": 10},
         "cohort 20 is larger than the 10 clients: lower the cohort or raise clients"),
        ({"strategy": "scaffold", "local": {"clip": 1}},
         "strategy 'scaffold' reads gradients off the distance that a client moved, so it needs "
         "plain SGD: leave out momentum, adam and clip"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_with_its_place_and_the_nearest_right_name(table, message):
    with pytest.raises(UsageError) as refused:
        Experiment.of(table)
    assert str(refused.value) == message


def test_a_mistake_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text("[local]\nrate = -1\n")
    with pytest.raises(UsageError) as refused:
        Experiment.read(path)
    assert str(refused.value) == f"{path}.local.rate must be above 0, not -1.0"


@pytest.mark.parametrize(
    "content, message",
    [(b"rounds = = 3", "not TOML: "), (b"\xff\xfe", "cannot be read: "), (None, "no such file; ")],
)
def test_a_file_that_is_none_is_told_in_one_line(tmp_path, content, message):
    path = tmp_path / "my.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        read_table(path)
    assert str(refused.value).startswith(f"{path}: {message}")
    assert "\n" not in str(refused.value)


def test_a_choice_in_python_may_be_said_by_name():
    made = Experiment(task="digits", partition="shards:3", strategy="fedavgm:0.5", faults="any:0.2")
    assert (made.task, made.partition, made.strategy) == (Digits(), Shards(3), FedAvgM(0.5))
    assert made.faults == FAULTS.parse("any:0.2")


# --- merged --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table, key, value, expected",
    [
        ({}, "rounds", 3, {"rounds": 3}),
        ({"rounds": 1, "seed": 2}, "rounds", 3, {"rounds": 3, "seed": 2}),
        ({}, "local.rate", 0.5, {"local": {"rate": 0.5}}),
        ({"local": {"rate": 1, "batch": 2}}, "local.rate", 3, {"local": {"rate": 3, "batch": 2}}),
        ({"task": "digits"}, "task.model", "cnn", {"task": {"name": "digits", "model": "cnn"}}),
        ({}, "local.optimizer.beta1", 0.5, {"local": {"optimizer": {"beta1": 0.5}}}),
    ],
)
def test_merged_replaces_a_value_at_a_dotted_key(table, key, value, expected):
    before = repr(table)
    assert merged(table, key, value) == expected
    assert repr(table) == before


def test_merged_refuses_a_key_within_a_value():
    with pytest.raises(UsageError, match=r"^rounds\.x: rounds is 3 and has no keys$"):
        merged({"rounds": 3}, "rounds.x", 1)


# --- prepared ------------------------------------------------------------------------------------


def task(rows=60, owners=None, model=lambda: linear_model(5, "float32")):
    """Whole numbers as targets."""
    made = dataclasses.replace(classes_task(model, rows), objective="squared")
    if owners is None:
        return made
    owned = dataclasses.replace(made.train, owners=np.arange(rows) % owners)
    return dataclasses.replace(made, train=owned)


def test_a_cohort_that_is_larger_than_the_natural_federation_is_refused():
    assert prepare(Experiment(cohort=4), task(owners=4)).cohort == 4
    with pytest.raises(UsageError) as refused:
        prepare(Experiment(cohort=5), task(owners=4))
    assert str(refused.value) == (
        "cohort 5 is larger than the 4 clients: lower --cohort or raise --clients"
    )


@pytest.mark.parametrize(
    "made, clients, cohort",
    [(task(200), 100, 10), (task(owners=4), 4, 4), (task(owners=20), 20, 10)],
)
def test_defaults_are_10_of_100_clients_or_of_the_natural_ones(made, clients, cohort):
    setting = prepare(Experiment(), made)
    assert (setting.clients, setting.cohort) == (clients, cohort)


def test_a_models_first_weights_follow_from_the_seed_and_from_nothing_else():
    def weights(seed):
        made = task(model=lambda: linear_model(5, kernel_initializer="glorot_uniform"))
        return prepare(Experiment(seed=seed, clients=10), made).weights

    np.testing.assert_array_equal(weights(3), weights(3))
    assert np.abs(weights(3) - weights(4)).max() > 0.01


def test_numpy_numbers_are_numbers():
    said = Experiment(seed=np.int64(3), local=Local(rate=np.float64(0.5)))
    assert said.name == Experiment(seed=3, local=Local(rate=0.5)).name
    assert Experiment.of(tomllib.loads(said.toml())) == said
