"""Published results, run again: what was learned elsewhere must be learned here.

Accuracies are compared as ranges or by their order, never digit by digit: the initial weights and
the order of the rows are other ones. Settings are the papers'; nothing is tuned to our results.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fedsys
from fedsys.strategies import FedAvg, FedProx, FedYogi
from fedsys.tasks import CreditDefault, FashionMnist, Heart, Synthetic

DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.fixture
def history(tmp_path, no_pictures):
    """Runs an experiment on a loaded task and returns its metrics round by round."""

    def run(loaded, workers=2, **asked):
        experiment = fedsys.Experiment(**asked)
        return fedsys.simulate(experiment, task=loaded, out=tmp_path, workers=workers).history

    return run


# --- FLamby (Ogier du Terrail et al. 2022), Fed-Heart-Disease ------------------------------------


def test_heart_lies_within_the_published_seeds(history):
    """Pooled-test accuracy of logistic regression; the ranges are FLamby's five seeds."""
    task = Heart(str(DATA / "heart")).load()

    def accuracy(strategy, rate):
        local = fedsys.Local(steps=100, batch=4, rate=rate)
        runs = [
            history(task, strategy=strategy, local=local, rounds=15, evaluate=0, seed=seed)
            for seed in range(5)
        ]
        return np.mean([run.test_accuracy.iloc[-1] for run in runs])

    fedavg = accuracy(FedAvg(), rate=0.001)
    fedyogi = accuracy(FedYogi(rate=0.01, beta1=0.9, beta2=0.999, tau=1e-8), rate=0.003162)
    assert 0.701 <= fedavg <= 0.764  # .752 .764 .764 .701 .760
    assert 0.760 <= fedyogi <= 0.799  # .783 .768 .783 .799 .760
    assert fedyogi > fedavg


# --- McMahan et al. 2017: 2NN, 100 clients, 10 a round, on clothes instead of digits -------------


@pytest.fixture(scope="module")
def clothes():
    return FashionMnist(str(DATA / "fashion-mnist"), model="2nn").load()


@pytest.fixture
def rounds_to(clothes, history):
    """The first round whose test accuracy reaches the target; the one after all if none does."""

    def count(target, rounds, **asked):
        reached = history(clothes, clients=100, cohort=10, rounds=rounds, **asked).test_accuracy
        reached = reached[reached >= target]
        return reached.index[0] if len(reached) else rounds + 1

    return count


def test_pathological_clients_take_many_times_the_rounds(rounds_to):
    """Table 1, 2NN with E = 1, B = 10 and C = 0.1: 87 rounds IID, 664 with two shards a client."""
    local = fedsys.Local(epochs=1, batch=10, rate=0.05)
    iid = rounds_to(0.75, 30, partition="iid", local=local)
    shards = rounds_to(0.75, 30, partition="shards:2", local=local)
    assert 3 * iid < shards


@pytest.mark.parametrize(
    "partition, target, rounds", [("iid", 0.75, 15), ("shards:2", 0.7, 30)], ids=("iid", "shards")
)
def test_averaging_takes_fewer_rounds_than_single_steps(rounds_to, partition, target, rounds):
    """Table 2, CNN with E = 5 and B = 10: 20 rounds for 626 of FedSGD, and 229 for 483."""
    averaged = rounds_to(
        target, rounds, partition=partition, local=fedsys.Local(epochs=5, batch=10, rate=0.1)
    )
    for rate in (0.1, 0.3):  # the two best of 0.1, 0.3, 0.5 and 1
        local = fedsys.Local(rate=rate)
        single = rounds_to(target, rounds, partition=partition, strategy="fedsgd", local=local)
        assert 1.5 * averaged < single


# --- FedProx (Li et al. 2020), Synthetic(1, 1) ---------------------------------------------------


def test_proximal_term_steadies_clients_that_differ(history):
    """Figure 1, mu = 1, no stragglers: FedProx falls where FedAvg goes up and down.

    It climbs less on every draw of the data. That it ends up lower holds on average over the draws
    and late in a run: its first rounds are the slower ones.
    """
    plain, proximal = [
        [_training_losses(history, strategy, seed) for seed in range(3)]
        for strategy in (FedAvg(), FedProx(mu=1.0))
    ]
    for one, other in zip(plain, proximal, strict=True):
        assert _climbed(other) < 0.6 * _climbed(one)
    assert np.mean(proximal, axis=0)[30:].mean() < 0.9 * np.mean(plain, axis=0)[30:].mean()


def _training_losses(history, strategy, seed):
    """[60], the loss over all rows of all 30 clients after each round, of 10 of them."""
    task = replace(Synthetic(1.0, 1.0, clients=30, seed=seed).load(), client_test=None)
    metrics = history(
        task,
        workers=1,  # clients differ much in size: one lane has the fewest shapes to compile
        strategy=strategy,
        cohort=10,
        local=fedsys.Local(epochs=20, batch=10, rate=0.01),
        rounds=60,
        evaluate=0,
        evaluate_clients=1,
        seed=seed,
    )
    return metrics.clients_loss.to_numpy()


def _climbed(losses):
    """How far the loss went up, over all rounds in which it did."""
    return np.maximum(np.diff(losses), 0).sum()


# --- credit default: three banks that never see each other's rows --------------------------------


def test_three_banks_together_do_as_well_as_one(history):
    task = CreditDefault(str(DATA / "credit-default")).load()
    local = fedsys.Local(epochs=1, batch=32, rate=0.1)
    federated, pooled = (
        history(
            task, clients=clients, partition="iid", local=local, rounds=10, evaluate=0
        ).test_auc.iloc[-1]
        for clients in (3, 1)
    )
    assert federated == pytest.approx(pooled, abs=0.01)
    assert federated == pytest.approx(0.771, abs=0.01)  # scikit-learn's MLP of that shape
