import copy
import hashlib
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.aggregators import AGGREGATORS, Krum, Mean, Median
from fedsys.errors import DataError, FedsysError, IdentityError, PolicyError, UsageError
from fedsys.experiment import Experiment
from fedsys.layout import Layout
from fedsys.local import Adam, Local
from fedsys.strategies import STRATEGIES, FedProx
from fedsys.trust import canonical
from fedsys.trust.architecture.models import Bounds
from fedsys.trust.description import describe
from fedsys.trust.jobs import Job, Terms, diff, open_job, sign_job, version, with_terms
from fedsys.trust.policy import Policy
from fedsys.trust.signing import ring, sign

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SCHEMA, PREPARATION = "ab" * 32, "cd" * 32
DENSE = {
    "kind": "Dense", "reads": [0], "trainable": True,
    "options": {
        "units": 1, "activation": "linear", "use_bias": True,
        "kernel_initializer": {"kind": "GlorotUniform", "seed": None},
        "bias_initializer": {"kind": "Zeros"},
    },
}  # fmt: skip
ARCHITECTURE = {
    "format": 1, "dtype": "float32", "inputs": [{"shape": [23], "dtype": "float32"}],
    "layers": [DENSE], "outputs": [1],
}  # fmt: skip
LAYOUT = Layout(("000.kernel", "001.bias"), ((23, 1), (1,)), 2, np.dtype("float32"))


def job(**changed: Any) -> Job:
    terms = {
        "federation": "eu-credit", "name": "default-risk", "code": version(),
        "strategy": STRATEGIES.parse("fedprox:0.1"),
        "local": Local(epochs=2, batch=64, rate=0.05), "weighting": "examples", "rounds": 20,
        "quorum": 2, "deadline": 600.0, "evaluate": 5, "seed": 7, "objective": "binary",
        "schema": SCHEMA, "preparation": PREPARATION, **changed,
    }  # fmt: skip
    return Job(Terms(**terms), ARCHITECTURE, LAYOUT)


TABLE = job().table()


# --- the value -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [{}, {"cohort": 5}, {"strategy": STRATEGIES.parse("scaffold")},
     {"strategy": STRATEGIES.parse("fedadam")}, {"local": Local(optimizer=Adam(), clip=1.0)},
     {"aggregator": Median(), "quorum": 3}, {"aggregator": Krum(1, 3), "quorum": 6},
     {"local": Local(steps=3, batch=0)}, {"weighting": "uniform"}, {"evaluate": 0}],
)  # fmt: skip
def test_a_job_is_the_same_after_its_journey(changed):
    sent = job(**changed)
    data = sign_job(KEY, sent)
    arrived, signed = open_job(data, ring(KEY.public_key()), "eu-credit")
    assert arrived == sent and arrived.digest == sent.digest
    assert signed.purpose == "job" and arrived.terms.strategy == sent.terms.strategy


def test_a_job_is_named_by_its_canonical_bytes():
    one = job()
    assert one.digest == hashlib.sha256(canonical.encode(TABLE)).hexdigest()
    assert one.id == one.digest[:12] and job().digest == one.digest
    others = [job(seed=8), job(rounds=21), job(code="9.9"), job(schema="00" * 32)]
    assert len({one.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize("name", STRATEGIES.members)
def test_every_strategy_can_be_asked_for(name):
    one = job(strategy=STRATEGIES.parse(name))
    assert Job.of(one.table()) == one
    assert name in describe(one)


@pytest.mark.parametrize("name", ["median", "trimmed:1", "krum:1", "clipped:0.5"])
def test_every_aggregator_can_be_asked_for(name):
    rule = AGGREGATORS.parse(name)
    one = job(aggregator=rule, quorum=5)
    assert Job.of(one.table()) == one and one.digest != job(quorum=5).digest
    assert f"aggregator   {name}, of " in describe(one)
    assert propose(Experiment(aggregator=rule), _logistic(), quorum=5).terms.aggregator == rule


def test_a_job_of_the_mean_is_named_as_before_there_were_others():
    assert job(aggregator=Mean()).digest == job().digest
    assert "aggregator" not in job().table()["terms"]
    assert "mean, of the updates, each by its weight" in describe(job())


def test_a_job_with_a_quorum_too_small_for_its_aggregator_is_none():
    line = "aggregator krum:1 needs 5 updates and the quorum is 3: raise the quorum to 5"
    with pytest.raises(UsageError, match=line):
        job(aggregator=Krum(1), quorum=3)
    with pytest.raises(UsageError, match=line):
        propose(Experiment(aggregator="krum:1"), _logistic(), quorum=3)
    table = copy.deepcopy(job(aggregator=Krum(1), quorum=5).table())
    table["terms"]["quorum"] = 3
    with pytest.raises(DataError, match=line):  # a bank's side, whoever signed it
        Job.of(table)
    with pytest.raises(UsageError, match=r"strategy 'scaffold' .* median does not guard"):
        job(aggregator=Median(), quorum=3, strategy=STRATEGIES.parse("scaffold"))


def _logistic() -> Any:
    from fedsys.tasks.models import logistic

    return logistic((23,), 1)


def test_the_objectives_are_those_that_fedsys_has():
    for name in ("classes", "binary", "squared"):
        assert Job.of(job(objective=name).table()).terms.objective == name


# --- from an experiment --------------------------------------------------------------------------


def propose(experiment: Experiment, model: Any, **changed: Any) -> Job:
    said = {"federation": "eu-credit", "name": "default-risk", "objective": "binary", "quorum": 2,
            "deadline": 600, "schema": SCHEMA, "preparation": PREPARATION, **changed}  # fmt: skip
    return Job.propose(experiment, model, **said)


def test_an_experiment_becomes_a_job_and_its_model_a_model():
    from fedsys.layout import read_weights
    from fedsys.tasks.models import depthwise, mlp

    experiment = Experiment(
        strategy="fedprox:0.1", rounds=7, local=Local(epochs=2, rate=0.05), seed=11,
        weighting="uniform", evaluate_clients=3,
    )  # fmt: skip
    for model, goal in ((mlp((23,), 1), "binary"), (depthwise(), "classes")):
        one = propose(experiment, model, objective=goal)
        assert one.layout == Layout.of(model)
        built = one.model()
        assert Layout.of(built) == one.layout
        assert read_weights(built).shape == read_weights(model).shape
    terms = one.terms
    assert terms.strategy == FedProx(0.1) and terms.local == experiment.local
    assert (terms.rounds, terms.seed, terms.weighting, terms.evaluate) == (7, 11, "uniform", 3)
    assert terms.code == version()


def test_faults_are_no_part_of_a_job():
    from fedsys.tasks.models import mlp

    with pytest.raises(UsageError, match="faults are for simulations"):
        propose(Experiment(faults="nan"), mlp((23,), 1))
    with pytest.raises(UsageError, match=r"job.quorum must be at least 1"):
        propose(Experiment(), mlp((23,), 1), quorum=0)
    with pytest.raises(UsageError, match=r"job.name must be a name"):
        propose(Experiment(), mlp((23,), 1), name="../x")


def test_a_layout_that_is_not_the_models_is_refused_before_training():
    one = Job(job().terms, ARCHITECTURE, Layout(("a", "b"), ((23, 1), (1,)), 2, LAYOUT.dtype))
    with pytest.raises(PolicyError, match="other names or shapes"):
        Job.of(one.table()).model()


# --- strangers' tables ---------------------------------------------------------------------------


def changed(path: str, value: Any) -> dict[str, Any]:
    table = copy.deepcopy(TABLE)
    *most, last = path.split(".")
    inner = table
    for key in most:
        inner = inner[key]
    inner[last] = value
    return table


@pytest.mark.parametrize(
    "path, value, said",
    [
        ("format", 2, "not of format 1: update"),
        ("format", True, "not of format 1"),
        ("newer", 1, "fields that are unknown here"),
        ("terms.\n\x1b[31m", 1, r"job.\?\?\[31m: unknown key"),
        ("terms.strategy.\x1b", 1, r"job.strategy.\?: unknown key"),
        ("terms.privacy", {"epsilon": 4}, "job.privacy: unknown key"),
        ("terms.local.newer", 1, "job.local.newer: unknown key"),
        ("terms.strategy.newer", 1, "job.strategy.newer: unknown key of 'fedprox'"),
        ("terms.strategy", {"name": "fednova"}, "unknown strategy 'fednova'"),
        ("terms.strategy", "fedprox:0.1", "not in its plain form"),
        ("terms.strategy", {"name": "fedprox:0.1", "rate": 1.0}, "not in its plain form"),
        ("terms.strategy", None, "job.strategy"),
        ("terms.local", {}, "not in its plain form"),
        ("terms.local.epochs", "2", "job.local.epochs must be a whole number"),
        ("terms.local.epochs", 2**40, "job.local.epochs must be at most"),
        ("terms.local.rate", float("inf"), "job.local.rate must be finite"),
        ("terms.local.rate", 1, "not in its plain form"),
        ("terms.local.optimizer", {"name": "lion"}, "unknown optimizer"),
        ("terms.rounds", 0, "job.rounds must be at least 1"),
        ("terms.rounds", 1.5, "must be a whole number"),
        ("terms.quorum", 0, "job.quorum"),
        ("terms.cohort", 1, "quorum 2 is above the cohort of 1"),
        ("terms.deadline", 0.0, "job.deadline must be above 0"),
        ("terms.deadline", float("nan"), "job.deadline"),
        ("terms.seed", 2**63, "job.seed"),
        ("terms.weighting", "mine", "job.weighting must be one of examples, uniform"),
        ("terms.objective", "my_module.loss", "objective 'my_module.loss' is unknown"),
        ("terms.federation", "a/b", "federation must be a name"),
        ("terms.code", "0.1; rm", "code must be a version"),
        ("terms.schema", "AB" * 32, "schema must be a SHA-256"),
        ("terms", [], "must be a table"),
        ("terms", None, "must be a table"),
        ("layout.names", ["a", "a"], "layout is not one of named arrays"),
        ("layout.names", ["a", "b\n"], "layout is not one of named arrays"),
        ("layout.shapes", [[23, 1], [-1]], "layout is not one of named arrays"),
        ("layout.shapes", [[23, 1], [2]], "its layout has 25 numbers, its model 24"),
        ("layout.shapes", [[2**40], [1]], "layout is not one of named arrays"),
        ("layout.trainable", 3, "layout is not one of named arrays"),
        ("layout.dtype", "object", "layout is not one of named arrays"),
        ("layout.dtype", ["float32"], "layout is not one of named arrays"),
        ("layout", {}, "its layout needs names"),
    ],
)  # fmt: skip
def test_a_wrong_or_newer_job_is_refused_in_one_line(path, value, said):
    with pytest.raises(DataError, match=said) as error:
        Job.of(changed(path, value))
    assert str(error.value).isprintable()


def test_a_job_with_code_in_its_model_is_refused():
    architecture = {**ARCHITECTURE, "layers": [{**DENSE, "kind": "Lambda"}]}
    with pytest.raises(PolicyError, match="'Lambda' is no layer that may travel"):
        Job.of(changed("architecture", architecture))
    with pytest.raises(PolicyError, match="parameters"):
        Job.of(TABLE, Bounds(parameters=23))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
PATHS = [
    *TABLE,
    *(f"{part}.{key}" for part in ("terms", "layout", "architecture") for key in TABLE[part]),
    *(f"terms.{part}.{key}" for part in ("local", "strategy") for key in TABLE["terms"][part]),
]  # fmt: skip


@settings(max_examples=300)
@given(st.sampled_from(PATHS), json_values)
def test_any_value_anywhere_is_a_job_or_one_line(path, value):
    table = changed(path, value)
    try:
        found = Job.of(table)
    except FedsysError as error:
        assert isinstance(error, DataError | PolicyError)  # noqa: PT017
        assert str(error).isprintable()  # noqa: PT017
        return
    assert found.table() == table
    describe(found)


# --- signatures ----------------------------------------------------------------------------------


def test_only_the_coordinators_job_of_this_federation_is_opened():
    keys = ring(KEY.public_key())
    data = sign_job(KEY, job())
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(IdentityError, match="not known here"):
        open_job(sign_job(stranger, job()), keys, "eu-credit")
    with pytest.raises(IdentityError, match="meant for"):
        open_job(data, keys, "us-credit")
    altered = json.loads(data)
    altered["body"]["terms"]["local"]["rate"] = 5.0
    with pytest.raises(IdentityError, match="does not fit"):
        open_job(canonical.encode(altered), keys, "eu-credit")
    other = sign(KEY, TABLE, purpose="job", audience="us-credit").data()
    with pytest.raises(PolicyError, match="belongs to eu-credit, not to us-credit"):
        open_job(other, keys, "us-credit")


# --- what people read ----------------------------------------------------------------------------


def test_an_officer_reads_what_is_computed_and_what_leaves():
    text = describe(job())
    for part in (
        job().digest, "fedsys " + version(), "fedprox:rate=1,mu=0.1, 20 rounds, seed 7",
        "every bank within 10 minutes; at least 2 good updates", "2 passes over its rows",
        "batches of 64 rows", "at rate 0.05", "logistic loss", "24 numbers (float32) in 1 layer:",
        "moved: 96 bytes", "1.9 kB up", "the number of rows it trains on", "every 5 rounds",
        "rows, labels, names and identifiers", "no secure sum hides it",
    ):  # fmt: skip
        assert part in text, part
    assert all(len(line) < 110 for line in text.splitlines())


def test_what_is_said_to_leave_follows_the_job():
    text = describe(job(strategy=STRATEGIES.parse("scaffold"), weighting="uniform", cohort=3))
    assert "its own corrections (2 vectors): 192 bytes" in text
    assert "one, whatever it has" in text and "3 banks, drawn anew," in text
    assert "5 steps" in describe(job(local=Local(steps=5)))
    assert "1 pass over its rows" in describe(job(local=Local(epochs=1)))


def test_differences_are_named_one_by_one():
    new = with_terms(job(), rounds=30, cohort=4, local=Local(epochs=2, batch=64, rate=0.1))
    assert diff(job(), job()) == []
    assert diff(job(), new) == [
        "terms.local.rate: 0.05 -> 0.1",
        "terms.rounds: 20 -> 30",
        "terms.cohort: 4 is new",
    ]
    assert diff(new, job())[-1] == "terms.cohort: 4 is gone"
    wider = copy.deepcopy(ARCHITECTURE)
    wider["layers"][0]["options"]["use_bias"] = False
    other = Job(job().terms, wider, LAYOUT)
    assert diff(job(), other) == ["architecture.layers[0].options.use_bias: True -> False"]
    with pytest.raises(UsageError, match=r"job.quorum 2 is above"):
        with_terms(job(), cohort=1)


@given(st.sampled_from(PATHS), json_values)
def test_no_difference_goes_unsaid(path, value):
    try:
        other = Job.of(changed(path, value))
    except FedsysError:
        return
    assert bool(diff(job(), other)) == (other.digest != job().digest)


# --- a bank's own bounds -------------------------------------------------------------------------


def refused(one: Job, policy: Policy | None = None, **changed: str) -> list[str]:
    said = {"schema": SCHEMA, "preparation": PREPARATION, **changed}
    return (policy or Policy()).refusals(one, **said)


def test_a_job_within_bounds_is_not_refused():
    assert refused(job()) == []
    Policy().check(job(), schema=SCHEMA, preparation=PREPARATION)


@pytest.mark.parametrize(
    "one, said",
    [
        (job(code="9.9.9"), f"is for fedsys 9.9.9, and {version()} is installed here"),
        (job(schema="00" * 32), "has another schema than this bank's data"),
        (job(preparation="00" * 32), "prepares columns otherwise"),
        (job(quorum=1), "would move on 1 updates, of at least 2 here"),
        (job(rounds=10_001), "asks for 10001 rounds, of at most 10000 here"),
        (job(local=Local(epochs=1001)), "1001 epochs"),
        (job(local=Local(steps=10**7)), "steps"),
        (job(deadline=1e6), "seconds a round"),
    ],
)
def test_a_job_beyond_bounds_is_refused_with_the_reason(one, said):
    assert any(said in reason for reason in refused(one))
    with pytest.raises(PolicyError, match=f"job {one.id}: "):
        Policy().check(one, schema=SCHEMA, preparation=PREPARATION)


def test_all_reasons_are_told_at_once():
    reasons = refused(job(quorum=1, rounds=99), Policy(rounds=9, parameters=5), schema="x")
    assert len(reasons) == 4


def test_reading_a_job_loads_no_tensorflow():
    code = (
        "import json, sys; from fedsys.trust.jobs import Job; from fedsys.trust.description "
        "import describe; describe(Job.of(json.loads(sys.argv[1])))\n"
        "assert not {'tensorflow', 'keras', 'flwr', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(TABLE)], check=True)
