"""The statistics of Synthetic(alpha, beta)."""

import numpy as np
import pytest

from fedsys.tasks import Synthetic


def by_client(examples):
    return [examples.inputs[examples.owners == owner] for owner in np.unique(examples.owners)]


def test_shapes_and_sizes():
    task = Synthetic(clients=40).load()
    assert task.train.inputs.shape[1:] == (60,)
    assert task.train.inputs.dtype == np.float32
    assert set(task.train.labels) <= set(range(10))
    assert len(task.owners) == len(np.unique(task.train.owners)) == 40
    train, test = np.bincount(task.train.owners), np.bincount(task.client_test.owners)
    assert (train + test).min() >= 50
    assert (np.abs(train / (train + test) - 0.8) < 0.021).all()
    assert (task.test.inputs == task.client_test.inputs).all()
    assert (task.test.labels == task.client_test.labels).all()
    assert task.test.owners is None
    assert task.model().count_params() == 610


def test_sizes_are_lognormal():
    task = Synthetic(clients=300, seed=5).load()
    sizes = np.bincount(task.train.owners) + np.bincount(task.client_test.owners)
    logs = np.log(np.maximum(sizes - 50, 0.5))
    assert np.median(logs) == pytest.approx(4, abs=0.4)
    assert np.percentile(logs, 84) - np.median(logs) == pytest.approx(2, abs=0.5)


def test_the_seed_decides_and_nothing_else_does():
    np.random.seed(1)
    first = Synthetic(seed=3).load()
    np.random.seed(2)
    again, other = Synthetic(seed=3).load(), Synthetic(seed=4).load()
    assert (first.train.inputs == again.train.inputs).all()
    assert (first.train.labels == again.train.labels).all()
    assert (
        first.train.inputs.shape != other.train.inputs.shape
        or (first.train.inputs != other.train.inputs).any()
    )


def test_the_variance_of_an_input_falls_as_its_number_to_the_minus_1_2():
    task = Synthetic(iid=True, clients=100).load()
    variance = task.train.inputs.var(axis=0, dtype=np.float64)
    expected = np.arange(1, 61) ** -1.2
    np.testing.assert_allclose(variance, expected, rtol=0.1)


@pytest.mark.parametrize("beta", [0.0, 0.5, 2.0])
def test_beta_is_the_standard_deviation_of_the_clients_centres(beta):
    """All v_k ~ N(B_k, 1): the mean over inputs of a client's centre is B_k, up to 1/sqrt(60)."""
    task = Synthetic(beta=beta, clients=300, seed=1).load()
    centres = np.array([rows.mean() for rows in by_client(task.train)])
    assert centres.std() == pytest.approx(np.sqrt(beta**2 + 1 / 60), rel=0.15)


def share_of_most_common_label(level, iid=False):
    """Over the clients of three federations: 0.1 where labels are even, 1 where there is one."""
    shares = []
    for seed in range(3):
        train = Synthetic(level, level, clients=100, seed=seed, iid=iid).load().train
        for owner in range(100):
            labels = train.labels[train.owners == owner]
            shares.append(np.bincount(labels).max() / len(labels))
    return np.mean(shares)


def test_clients_differ_more_as_the_setting_says():
    alike = share_of_most_common_label(0.0, iid=True)
    zero, three = share_of_most_common_label(0.0), share_of_most_common_label(3.0)
    assert alike < 0.5
    assert 0.7 < zero < three - 0.03


def test_alpha_changes_no_label():
    """u_k is the mean of all weights and biases: it moves all ten logits of a row alike."""
    narrow, wide = Synthetic(alpha=0.0).load(), Synthetic(alpha=5.0).load()
    assert (narrow.train.inputs == wide.train.inputs).all()
    assert (narrow.train.labels == wide.train.labels).all()


def test_labels_follow_a_linear_rule_of_each_client():
    from sklearn.linear_model import LogisticRegression

    task = Synthetic(iid=True, clients=20).load()
    fitted = LogisticRegression(C=1e4, max_iter=500).fit(task.train.inputs, task.train.labels)
    assert fitted.score(task.test.inputs, task.test.labels) > 0.9
