"""The real data sets, which lie beside the checkout and are no part of it."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    return Path(__file__).parents[2].parent / "shared" / "data"
