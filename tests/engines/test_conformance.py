"""One property for all engines: they come to what the compiled engine comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fedsys.engines import ENGINES, Compiled, EngineChoice, Ray
from fedsys.errors import UsageError
from fedsys.experiment import Experiment
from fedsys.local import Local
from fedsys.partitions import Natural
from fedsys.rounds import begin, draw_cohort, run_rounds
from fedsys.setting import prepare
from fedsys.task import Examples, Task

STRATEGIES = {"fedavg": 1e-6, "fedprox:0.5": 1e-6, "fedadam:0.01": 1e-6, "scaffold": 1e-6}
REFUSED = {("tff", "scaffold")}
EXAMPLES = {"tff": 1, "ray": 1}
"""How many federations are tried in an engine that takes long to begin; else 5."""
WORKERS = {"ray": 1}
"""Each loads TensorFlow; so few clients are one shard, however many there are. Else 2."""


@dataclass(frozen=True)
class Federation:
    """What is drawn: few enough words to read in a failure."""

    sizes: tuple[int, ...]
    cohort: int
    epochs: int
    batch: int
    rate: float
    hidden: int
    weighting: str
    seed: int

    def task(self) -> Task:
        """Noisy classes; the owner of a row is its client. The last client is never empty."""
        rng = np.random.default_rng(self.seed)
        owners = rng.permutation(np.repeat(np.arange(len(self.sizes)), self.sizes))
        labels = rng.integers(0, 3, len(owners))
        inputs = rng.normal(size=(len(owners), 5)) + labels[:, None] + 0.2 * owners[:, None]
        examples = Examples(inputs.astype(np.float32), labels, owners)
        return Task("drawn", self.model, examples, examples)

    def model(self) -> keras.Model:
        layers = [keras.layers.Dense(self.hidden, activation="relu")] if self.hidden else []
        return keras.Sequential([keras.Input((5,)), *layers, keras.layers.Dense(3)])

    def experiment(self, strategy: str) -> Experiment:
        return Experiment(
            partition=Natural(),
            clients=len(self.sizes),
            cohort=self.cohort,
            strategy=strategy,
            local=Local(epochs=self.epochs, batch=self.batch, rate=self.rate),
            weighting=self.weighting,
            rounds=3,
            seed=self.seed,
        )


@st.composite
def federations(draw: Any) -> Federation:
    sizes = draw(st.lists(st.integers(0, 17), min_size=3, max_size=7))
    sizes = (*sizes, draw(st.integers(1, 17)))
    return Federation(
        sizes,
        cohort=draw(st.integers(2, len(sizes))),
        epochs=draw(st.integers(1, 3)),
        batch=draw(st.integers(2, 6)),
        rate=draw(st.sampled_from([0.01, 0.05, 0.1])),
        hidden=draw(st.sampled_from([0, 6])),
        weighting=draw(st.sampled_from(["examples", "uniform"])),
        seed=draw(st.integers(0, 1000)),
    )


def weights_after(engine: EngineChoice, drawn: Federation, strategy: str) -> list[np.ndarray]:
    """The global weights after each of three rounds."""
    experiment = drawn.experiment(strategy)
    setting = prepare(experiment, drawn.task())
    with engine.open(setting, WORKERS.get(ENGINES.name_of(engine), 2)) as opened:
        states = run_rounds(
            begin(experiment.strategy, setting.layout, setting.weights),
            experiment.strategy,
            opened,
            setting.layout,
            cohorts=lambda round: draw_cohort(drawn.seed, round, setting.clients, setting.cohort),
            population=setting.population,
            rounds=3,
            quorum=experiment.quorum,
        )
        return [setting.weights, *(state.weights for state, _ in states)]


def variant_of(engine: str, request: pytest.FixtureRequest) -> EngineChoice:
    """An engine that begins soon: on a Ray that is there, and Flower in this process; its Ray
    backend is begun once for all in test_flower.py."""
    choice: EngineChoice = ENGINES.parse({"flower": "flower:in-process"}.get(engine, engine))
    if missing := choice.status().missing:
        pytest.skip(f"{missing}: fedsys engines install {engine}")
    return Ray(request.getfixturevalue("cluster").address) if engine == "ray" else choice


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("engine", [name for name in ENGINES.members if name != "compiled"])
def test_an_engine_comes_to_what_the_compiled_one_comes_to(engine, strategy, request):
    variant = variant_of(engine, request)
    if (engine, strategy) in REFUSED:
        drawn = Federation((3, 4), 2, 1, 2, 0.1, 0, "examples", 0)
        with pytest.raises(UsageError, match=f"engine '{engine}': strategy '{strategy}'"):
            weights_after(variant, drawn, strategy)
        return

    @settings(
        max_examples=EXAMPLES.get(engine, 5),
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(federations())
    def same(drawn: Federation) -> None:
        expected = weights_after(Compiled(), drawn, strategy)
        assume(max(np.abs(end - expected[0]).max() for end in expected) > 1e-4)  # some had rows
        found = weights_after(variant, drawn, strategy)
        for mine, theirs in zip(expected, found, strict=True):
            np.testing.assert_allclose(theirs, mine, rtol=0, atol=STRATEGIES[strategy])

    same()
