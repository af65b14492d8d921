"""The same apps on Flower's own simulation and on our grid come to the same.

Flower's side runs once, all apps one after the other in a process of its own, since Ray takes half
a minute to begin; it is `ray_side.py`. What is exact in integers is compared bit by bit. The
quickstarts add up in the order in which replies come, which is chance with Flower.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")
pytest.importorskip("ray", reason="Ray, which Flower's own simulation needs, is not installed")

HERE = Path(__file__).parent
SECONDS = 420  # that Flower's side may take on a slow machine
CASES = {  # name: nodes, configuration without randomness of the clients
    "everything": (9, {}),
    "quickstart_numpy": (4, {"fraction-train": 1.0, "shuffle": False}),
    "quickstart_sklearn": (4, {}),
    "quickstart_keras": (2, {"shuffle": False, "num-server-rounds": 2}),
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Folders with what the apps saved on Flower's own simulation."""
    top = tmp_path_factory.mktemp("flower")
    words = []
    for name, (nodes, config) in CASES.items():
        (top / name).mkdir()
        words += [HERE / "apps" / name, top / name, nodes, json.dumps(config)]
    command = [sys.executable, HERE / "ray_side.py", "2", *words]
    with open(top / "log.txt", "wb") as log:
        process = subprocess.Popen(
            list(map(str, command)), stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert code == 0, (top / "log.txt").read_text()[-3000:]
    return top


@pytest.fixture
def both(theirs, cli, tmp_path):
    """Runs an app on our grid, and gives the folders of both sides."""

    def run(name):
        nodes, config = CASES[name]
        pairs = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
        words = ["--run-config", pairs] if pairs else []
        done = cli("simulate", "--app", HERE / "apps" / name, "--nodes", nodes, "--quiet", *words)
        assert done.code == 0, done.err
        return tmp_path, theirs / name

    return run


def test_state_errors_spoiled_messages_mods_strategies_and_loops_are_the_same(both):
    ours, flower = both("everything")
    found, expected = (json.loads((each / "found.json").read_text()) for each in (ours, flower))
    assert found == expected
    for word in ("begun", "ended"):  # the ServerApp's lifespan
        assert (ours / f"{word}.txt").read_text() == (flower / f"{word}.txt").read_text() == word
    # What is the same is also what it should be.
    counted = found["FedAvg"]["metrics"][0]
    assert [counted[number]["trained"] for number in "12"] == [1, 2]  # 9 nodes, one fails
    assert found["Spoiledspoiling"]["metrics"][0]["1"] == {"left": 0.0, "values": 3 + 28 / 8}
    assert found["FedAvg"]["sent"] == {"lr": 0.25, "values": [1, 2], "server-round": 2}
    assert all(found[name]["before"] == found["FedAvg"]["before"] for name in ("Krum", "clipped"))
    assert found["half"] == [4, 4]
    assert found["loop"]["errors"] == [2, 2]
    assert found["loop"]["unknown"] == [[3, "no-such-id"]]
    assert found["loop"]["failing"] == [2] and found["loop"]["forbidden"] == [0]
    assert [facts["partition"] for facts in found["loop"]["facts"]] == list(range(9))


def test_the_numpy_quickstart_comes_to_the_same_model(both):
    ours, flower = (np.load(each / "final_model.npz") for each in both("quickstart_numpy"))
    for name in flower.files:
        np.testing.assert_allclose(ours[name], flower[name], rtol=1e-13)
        assert np.abs(flower[name]).max() > 0.1


def test_the_sklearn_quickstart_comes_to_the_same_model(both):
    import joblib

    ours, flower = (joblib.load(each / "logreg_model.pkl") for each in both("quickstart_sklearn"))
    np.testing.assert_allclose(ours.coef_, flower.coef_, rtol=1e-9, atol=1e-12)
    assert np.abs(flower.coef_).max() > 0.5


def test_the_keras_quickstart_comes_to_the_same_model(both):
    import keras

    ours, flower = (
        keras.models.load_model(each / "final_model.keras").get_weights()
        for each in both("quickstart_keras")
    )
    for mine, theirs in zip(ours, flower, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
