"""Rules: what each promises of its partitions, against properties, oracles and statistics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys import partitions as module
from fedsys.errors import DataError, UsageError
from fedsys.partition import Partition
from fedsys.partitions import (
    PARTITIONS,
    Dirichlet,
    Features,
    Iid,
    Labels,
    Natural,
    Quantity,
    Rule,
    Shards,
    draw,
)
from fedsys.task import Examples

RANDOM = [Iid(), Dirichlet(0.3), Shards(2), Labels(2), Quantity(0.3), Features(0.7)]
alphas = st.floats(1e-3, 1e3)
rules = st.one_of(
    st.just(Iid()),
    alphas.map(Dirichlet),
    st.integers(1, 3).map(Shards),
    st.integers(1, 4).map(Labels),
    alphas.map(Quantity),
    st.floats(0, 1).map(Features),
)


def examples(labels: object, owners: object = None) -> Examples:
    """Rows with these labels; what they look like has nothing to do with the labels."""
    labels = np.asarray(labels)
    inputs = np.random.default_rng(5).normal(size=(len(labels), 3, 2)).astype(np.float32)
    return Examples(inputs, labels, None if owners is None else np.asarray(owners))


def balanced(rows: int, classes: int = 10) -> Examples:
    """The same number of rows of each class, in a random order."""
    return examples(np.random.default_rng(6).permutation(np.arange(rows) % classes))


def assert_shared_out(partition: Partition, rows: int, clients: int) -> None:
    assert len(partition) == clients
    assert partition.sizes.sum() == rows
    np.testing.assert_array_equal(np.sort(partition.order), np.arange(rows))


def runs(ranks: np.ndarray) -> int:
    """How many stretches of consecutive numbers."""
    return 1 + int(np.count_nonzero(np.diff(np.sort(ranks)) != 1))


# --- every rule ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(
    rules,
    st.lists(st.integers(0, 6), min_size=1, max_size=50),
    st.integers(1, 60),
    st.integers(0, 2**40),
)
def test_every_row_is_owned_once_or_the_rule_refuses(rule: Rule, labels, clients, seed):
    rows, kinds = len(labels), len(set(labels))
    possible = clients <= rows
    if isinstance(rule, Labels):
        possible &= rule.k <= kinds <= clients * rule.k
    if isinstance(rule, Shards):
        possible &= clients * rule.per_client <= rows
    if not possible:
        with pytest.raises(UsageError):
            draw(rule, examples(labels), clients, seed)
        return
    partition = draw(rule, examples(labels), clients, seed)
    assert_shared_out(partition, rows, clients)
    if isinstance(rule, Iid | Features):
        assert np.ptp(partition.sizes) <= 1
    if isinstance(rule, Labels):
        assert np.count_nonzero(partition.counts(np.array(labels)), axis=1).max() <= rule.k


@settings(deadline=None)
@given(
    st.one_of(
        st.just(Iid()), alphas.map(Quantity), st.floats(0, 1).map(Features), st.just(Shards(1))
    ),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50),
    st.data(),
)
def test_targets_are_shared_out_too(rule: Rule, targets, data):
    clients = data.draw(st.integers(1, len(targets)))
    assert_shared_out(draw(rule, examples(targets), clients, 0), len(targets), clients)


@pytest.mark.parametrize("rule", RANDOM, ids=PARTITIONS.name_of)
def test_the_seed_alone_decides(rule: Rule):
    data = balanced(600)
    first, again, other = (draw(rule, data, 12, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.order, again.order)
    np.testing.assert_array_equal(first.start, again.start)
    assert (first.order != other.order).any()


@pytest.mark.parametrize("rule", [*RANDOM, Natural()], ids=PARTITIONS.name_of)
def test_neither_the_global_generator_nor_the_data_is_touched(rule: Rule):
    data = examples(np.arange(600) % 10, np.arange(600) % 12)
    before = [data.inputs.copy(), data.labels.copy()]
    np.random.seed(1)
    expected = np.random.random(4)
    np.random.seed(1)
    draw(rule, data, 12, 0)
    np.testing.assert_array_equal(np.random.random(4), expected)
    np.testing.assert_array_equal(data.inputs, before[0])
    np.testing.assert_array_equal(data.labels, before[1])


@pytest.mark.parametrize("rule", RANDOM, ids=PARTITIONS.name_of)
def test_as_many_clients_as_there_are_rows_and_no_more(rule: Rule):
    with pytest.raises(UsageError, match=r"100 clients but only 60 rows .* at most 60"):
        draw(rule, balanced(60), 100, 0)
    with pytest.raises(UsageError, match="0 clients: ask for at least 1"):
        draw(rule, balanced(60), 0, 0)
    if not isinstance(rule, Shards):
        assert len(draw(rule, balanced(60), 60, 0)) == 60


@pytest.mark.parametrize("rule", RANDOM, ids=PARTITIONS.name_of)
def test_one_client_owns_everything(rule: Rule):
    if isinstance(rule, Labels):
        rule = Labels(10)
    assert_shared_out(draw(rule, balanced(60), 1, 0), 60, 1)


@pytest.mark.parametrize("rule", [Iid(), Dirichlet(0.5), Quantity(0.5)], ids=PARTITIONS.name_of)
def test_a_million_clients_cost_two_arrays(rule: Rule):
    clients = 1_000_000
    labels = (np.arange(clients) % 10).astype(np.uint8)
    partition = draw(rule, Examples(labels, labels), clients, 0)
    assert_shared_out(partition, clients, clients)
    assert partition.order.nbytes + partition.start.nbytes <= 12 * clients + 8


# --- iid -----------------------------------------------------------------------------------------


def test_iid_mixes_rows_evenly():
    partition = draw(Iid(), balanced(20_000), 20, 0)
    counts = partition.counts(balanced(20_000).labels)
    # 1000 rows of 20,000 with 2000 a label: hypergeometric, mean 100, deviation 9.25.
    assert np.abs(counts - 100).max() < 5 * 9.25
    assert 0.5 < counts.std() / 9.25 < 1.5
    assert all(runs(rows) > 800 for rows in partition)


# --- dirichlet -----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha, clients", [(0.05, 5), (0.5, 5), (4.0, 8)])
def test_dirichlet_proportions_have_the_mean_and_variance_of_their_distribution(alpha, clients):
    draws, rows = 1500, 1000
    data = examples(np.zeros(rows, int))
    shares = np.array([draw(Dirichlet(alpha), data, clients, i).sizes / rows for i in range(draws)])
    mean = 1 / clients
    variance = mean * (1 - mean) / (clients * alpha + 1)
    np.testing.assert_allclose(shares.mean(axis=0), mean, atol=5 * np.sqrt(variance / draws))
    assert shares.var() == pytest.approx(variance, rel=0.1)


def test_dirichlet_draws_anew_for_each_label():
    data = balanced(100_000, classes=5)
    counts = np.concatenate(
        [draw(Dirichlet(1.0), data, 50, seed).counts(data.labels) for seed in range(10)]
    )
    between = np.corrcoef(counts.T)[np.triu_indices(5, 1)]
    assert np.abs(between).max() < 0.25


def test_dirichlet_is_the_more_skewed_the_smaller_alpha():
    data = balanced(20_000)
    numbers = [
        draw(Dirichlet(alpha), data, 50, 0).summary(data.labels).heterogeneity
        for alpha in (0.01, 0.1, 1.0, 10.0, 1e6)
    ]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 0.8
    assert numbers[-1] < 0.02


def test_dirichlet_with_a_large_alpha_is_close_to_iid_however_few_rows_a_client_has():
    """Four rows a client, less than one of each label: sizes must not bunch together."""
    data = balanced(40_000)
    sizes = draw(Dirichlet(1e9), data, 10_000, 0).sizes
    # Each label leaves out 6 clients of 10, at another place each time.
    assert sizes.min() >= 0 and sizes.max() <= 10
    assert np.count_nonzero(sizes == 0) < 1000


@settings(deadline=None)
@given(
    st.lists(st.floats(1e-6, 1), min_size=1, max_size=20), st.integers(0, 500), st.integers(0, 99)
)
def test_apportioned_rows_add_up_and_are_within_one_of_the_share(weights, rows, seed):
    shares = np.array(weights) / sum(weights)
    sizes = module._apportion(np.random.default_rng(seed), rows, shares)
    assert sizes.sum() == rows and sizes.min() >= 0
    assert np.abs(sizes - rows * shares).max() < 1 + 1e-6


def test_apportioned_rows_favour_nobody():
    """Half a row each: without a random offset the same ten clients would always win."""
    rng = np.random.default_rng(0)
    mean = np.mean([module._apportion(rng, 10, np.full(20, 0.05)) for _ in range(4000)], axis=0)
    np.testing.assert_allclose(mean, 0.5, atol=0.04)


# --- shards --------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_client", [1, 2, 5])
def test_shards_that_fit_the_labels_give_at_most_as_many_labels(per_client):
    data = balanced(10_000)
    partition = draw(Shards(per_client), data, 100, 0)  # shards of 20 to 100 rows, of 1000 a label
    kinds = np.count_nonzero(partition.counts(data.labels), axis=1)
    assert kinds.max() <= per_client
    assert kinds.mean() > 0.7 * per_client
    assert (partition.sizes == 100).all()


def test_shards_that_straddle_labels_give_one_more_label_each():
    data = balanced(10_000)
    kinds = np.count_nonzero(draw(Shards(2), data, 33, 0).counts(data.labels), axis=1)
    assert 2 < kinds.max() <= 4


def test_shards_of_targets_are_stretches_of_the_sorted_targets():
    targets = np.random.default_rng(1).permutation(500) * 0.5
    partition = draw(Shards(2), examples(targets), 30, 0)
    rank = np.argsort(np.argsort(targets))
    assert max(runs(rank[rows]) for rows in partition) == 2
    assert np.ptp(partition.sizes) <= 2


def test_shards_shuffle_the_rows_of_one_label():
    partition = draw(Shards(1), examples(np.zeros(1000, int)), 10, 0)
    assert min(runs(rows) for rows in partition) > 50


def test_more_shards_than_rows_are_refused():
    with pytest.raises(UsageError, match="30 clients with 3 shards each but only 60 rows"):
        draw(Shards(3), balanced(60), 30, 0)


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "k, clients", [(1, 10), (2, 37), (3, 100), (9, 12), (10, 4), (4, 3), (5, 2)]
)
def test_labels_gives_each_client_exactly_k_and_every_label_an_owner(k, clients):
    data = balanced(20_000)
    counts = draw(Labels(k), data, clients, 0).counts(data.labels)
    assert (np.count_nonzero(counts, axis=1) == k).all()
    for label in counts.T:
        owners = label[label > 0]
        assert len(owners) and np.ptp(owners) <= 1


def test_labels_deals_the_first_in_turn_and_draws_the_others_evenly():
    drawn = module._draw_labels(np.random.default_rng(0), 18_000, 10, 2)
    first = np.arange(18_000) % 10
    assert (drawn == first[:, None]).any(axis=1).all()
    distance = (drawn.sum(axis=1) - 2 * first) % 10  # from the dealt label to the other one
    tally = np.bincount(distance, minlength=10)
    assert tally[0] == 0
    assert np.abs(tally[1:] - 2000).max() < 5 * np.sqrt(2000)


def test_labels_are_drawn_alike_in_blocks():
    """A million clients are drawn in several blocks: the deal must go on across them."""
    drawn = module._draw_labels(np.random.default_rng(0), 300_000, 10, 3)
    assert (drawn == (np.arange(300_000) % 10)[:, None]).any(axis=1).all()
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()


def test_labels_counts_only_labels_that_occur():
    data = examples([2, 2, 7, 7])
    partition = draw(Labels(1), data, 2, 0)
    assert sorted(data.labels[rows].tolist() for rows in partition) == [[2, 2], [7, 7]]


def test_labels_refuses_what_cannot_be():
    with pytest.raises(UsageError, match=r"12 labels a client but .* only 10: .* labels:10"):
        draw(Labels(12), balanced(60), 6, 0)
    with pytest.raises(UsageError, match=r"3 clients with 2 labels .* 10 labels .* labels:4"):
        draw(Labels(2), balanced(60), 3, 0)


# --- quantity ------------------------------------------------------------------------------------


def test_quantity_skews_sizes_and_not_labels():
    data = balanced(100_000)
    even, skewed = (draw(Quantity(alpha), data, 20, 0) for alpha in (1e6, 0.5))
    assert np.ptp(even.sizes) < 0.05 * 5000
    # Of a symmetric Dirichlet over K shares: deviation / mean = sqrt((K - 1) / (K alpha + 1)).
    spreads = [draw(Quantity(0.5), data, 20, seed).sizes.std() / 5000 for seed in range(20)]
    assert np.mean(spreads) == pytest.approx(np.sqrt(19 / 11), rel=0.1)
    large = skewed.counts(data.labels)[skewed.sizes > 2000]
    shares = large / large.sum(axis=1, keepdims=True)
    assert np.abs(shares - 0.1).max() < 0.04


def test_quantity_has_the_variance_of_its_distribution():
    sizes = [draw(Quantity(0.5), balanced(1000), 10, seed).sizes for seed in range(800)]
    assert np.var(sizes) / 1000**2 == pytest.approx(0.1 * 0.9 / (10 * 0.5 + 1), rel=0.1)


# --- features ------------------------------------------------------------------------------------


def along(rows: int) -> tuple[np.ndarray, Examples]:
    """How far each row lies along a direction, and inputs that vary the most along it."""
    rng = np.random.default_rng(2)
    far = rng.normal(size=rows)
    inputs = 3 + far[:, None, None] * rng.normal(size=(4, 5)) + rng.normal(size=(rows, 4, 5)) / 50
    return far, Examples(inputs.astype(np.float32), rng.integers(0, 3, rows))


def between(far: np.ndarray, partition: Partition) -> float:
    """The share of the variance that lies between clients."""
    return float(np.var([far[rows].mean() for rows in partition]) / far.var())


def test_features_sorts_fully_at_1_not_at_all_at_0_and_partly_between():
    far, data = along(5000)
    apart = [between(far, draw(Features(skew), data, 10, 0)) for skew in (0.0, 0.3, 0.5, 0.7, 1.0)]
    assert apart == sorted(apart)
    assert apart[0] < 0.02
    assert 0.2 < apart[2] < 0.7
    assert apart[-1] > 0.95


def test_features_leaves_the_labels_alone():
    _, data = along(5000)
    assert (draw(Features(1.0), data, 10, 0).summary(data.labels).heterogeneity or 0) < 0.08


def test_the_direction_is_the_first_principal_one():
    rng = np.random.default_rng(3)
    sample = rng.normal(size=(300, 6)) * [1, 1, 5, 1, 2, 1] + 10
    found = module._direction(rng, sample)
    expected = np.linalg.svd(sample - sample.mean(axis=0))[2][0]
    assert abs(found @ expected) == pytest.approx(1, abs=1e-6)


def test_a_sample_and_blocks_of_rows_find_the_same_projection(monkeypatch):
    inputs = np.random.default_rng(4).normal(size=(50, 7)) * [9, 1, 1, 1, 1, 1, 1]
    wide = np.tile(inputs, (1, 100_000 // 7))  # several blocks of rows
    monkeypatch.setattr(module, "SAMPLE_ROWS", 20)
    for seen in (inputs, wide):
        found = module._project(np.random.default_rng(0), seen)
        assert abs(np.corrcoef(found, inputs[:, 0])[0, 1]) > 0.99


@pytest.mark.filterwarnings("error")
def test_inputs_that_do_not_vary_are_shared_out_at_random():
    data = Examples(np.ones((1000, 3)), np.zeros(1000, int))
    partition = draw(Features(1.0), data, 10, 0)
    assert min(runs(rows) for rows in partition) > 50


# --- natural -------------------------------------------------------------------------------------


def test_natural_is_what_the_owners_own():
    partition = draw(Natural(), examples([0, 1, 0, 1], [2, 0, 2, 3]), 4, 0)
    assert [rows.tolist() for rows in partition] == [[1], [], [0, 2], [3]]


@pytest.mark.parametrize("clients", [1, 3, 5, 100])
def test_natural_says_how_many_owners_there_are(clients):
    message = f"{clients} clients but the rows have 4 owners: pass --clients 4"
    with pytest.raises(UsageError, match=message):
        draw(Natural(), examples([0, 1, 0, 1], [2, 0, 2, 3]), clients, 0)


def test_natural_keeps_owners_without_rows_even_if_they_outnumber_the_rows():
    assert draw(Natural(), examples([0, 1], [9, 0]), 10, 0).sizes.tolist() == [1, *[0] * 8, 1]


def test_natural_needs_owners():
    with pytest.raises(UsageError, match="no owners; use iid, dirichlet, shards, labels"):
        draw(Natural(), balanced(60), 6, 0)
    for owners in ([-1, 0], [0.0, 1.0]):
        with pytest.raises(DataError, match="owners must be numbers 0, 1, 2"):
            draw(Natural(), examples([0, 1], owners), 2, 0)


# --- what may be asked for -----------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Dirichlet(0.5), Labels(2)], ids=PARTITIONS.name_of)
def test_rules_by_class_refuse_targets(rule: Rule):
    message = f"{PARTITIONS.name_of(rule)} goes by classes.*float64.*iid, quantity, features"
    with pytest.raises(UsageError, match=message):
        draw(rule, examples(np.arange(60) / 7), 6, 0)


@pytest.mark.parametrize(
    "text, message",
    [
        ("dirichlet:-1", "partition.alpha must be above 0, not -1.0"),
        ("dirichlet:0", "partition.alpha must be above 0, not 0.0"),
        ("quantity:nan", "partition.alpha must be above 0, not nan"),
        ("quantity:inf", "partition.alpha must be at most 1e"),
        ("shards:0", "partition.per_client must be at least 1, not 0"),
        ("labels:0", "partition.k must be at least 1, not 0"),
        ("features:1.5", "partition.skew must be from 0 to 1, not 1.5"),
        ("features:nan", "partition.skew must be from 0 to 1, not nan"),
        ("dirichlet", "'?dirichlet'? needs alpha"),
        ("dirichle:1", "did you mean 'dirichlet'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(text, message):
    with pytest.raises(UsageError, match=message):
        PARTITIONS.parse(text)


@pytest.mark.parametrize(
    "text, rule",
    [
        ("iid", Iid()),
        ("dirichlet:0.5", Dirichlet(0.5)),
        ("shards", Shards(2)),
        ("shards:3", Shards(3)),
        ("labels:2", Labels(2)),
        ("quantity:alpha=0.1", Quantity(0.1)),
        ("features", Features(1.0)),
        ("natural", Natural()),
    ],
)
def test_rules_have_names(text, rule):
    assert PARTITIONS.parse(text) == rule
    assert PARTITIONS.decode(PARTITIONS.encode(rule)) == rule


@pytest.mark.parametrize("alpha", [1e-12, 1e12])
def test_extreme_alphas_are_drawn(alpha):
    for rule in (Dirichlet(alpha), Quantity(alpha)):
        assert_shared_out(draw(rule, balanced(600), 50, 0), 600, 50)
