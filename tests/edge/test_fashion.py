"""The way that the README tells: Fashion-MNIST in a federation, and in one command on a chip."""

from pathlib import Path

import pytest

import fedsys
from fedsys.edge.export import Options
from fedsys.edge.report.budget import Budget
from fedsys.edge.verification import toolchain
from fedsys.local import Local

IMAGES = Path(__file__).parents[2].parent / "shared" / "data" / "fashion-mnist"

pytestmark = pytest.mark.skipif(not IMAGES.exists(), reason="no images in ../shared/data")


def test_unlike_clients_make_a_network_that_fits_and_keeps_its_accuracy(tmp_path):
    experiment = fedsys.Experiment(
        task=f"fashion-mnist:model=depthwise,data={IMAGES}",
        clients=20,
        cohort=5,
        partition="dirichlet:0.5",
        local=Local(epochs=1, batch=20, rate=0.1),
        rounds=4,
        evaluate=0,
        seed=7,
    )
    run = fedsys.simulate(experiment, out=tmp_path / "runs")
    assert run.metrics["test_accuracy"] > 0.5
    budget = Budget(flash=64 * 1024, ram=32 * 1024, drop=0.5)
    figures = fedsys.export(
        run, tmp_path / "build", Options(budget=budget, evaluation_rows=250)
    ).figures
    assert figures.score is not None and figures.score.rows == 20 * 250
    assert figures.broken == ()
    if not toolchain.missing("arm-none-eabi-gcc", "qemu-system-arm"):
        emulated = [check for check in figures.checks if check.place == "cortex-m4 -Os"]
        assert [(check.status, check.mismatches) for check in emulated] == [("passed", 0)]
