"""What the tests of the fault matrix share: a way to say what was observed, and one federation."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys.federation.jobs.folder import JobFolder
from tests.federation.faults.federation import Federation, ended, weights


@pytest.fixture
def observed(record_property: Callable[[str, object], None]) -> Callable[[int, str], None]:
    """Says how a row of the matrix ended; `benchmarks/faults.py` prints it."""

    def say(row: int, what: str) -> None:
        record_property(f"row {row}", what)

    return say


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Three banks, for all tests here: they leave it as they found it."""
    made = Federation(tmp_path_factory.mktemp("faults"), 3, small_disk=True)
    with made.running() as federation:
        yield federation


@pytest.fixture(scope="session")
def whole_job(federation: Federation) -> JobFolder:
    """A job of three rounds in which nothing fails."""
    job = federation.ask(rounds=3, quorum=3)
    assert ended(job) == "done", job.status.error
    return job


@pytest.fixture(scope="session")
def whole(whole_job: JobFolder) -> np.ndarray:
    """The weights that it comes to."""
    return weights(whole_job)
