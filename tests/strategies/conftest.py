"""The ways in which every algorithm is compared with its paper."""

import pytest

from .oracle import COHORT, ROUNDS, TOLERANCE, difference, federation, problem

# Four runs in which each weighting, compiler and precision meets each of the others.
WAYS = [
    (True, "xla", "float64"),
    (False, "graph", "float64"),
    (True, "graph", "float32"),
    (False, "xla", "float32"),
]


@pytest.fixture(params=["examples", "uniform"])
def weighted(request):
    return request.param == "examples"


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(map(str, way[1:])))
def agrees(request):
    """`agrees(strategy, oracle)`: that the library and the oracle walk the same path.

    oracle: problem -> the global weights after each round.
    """
    weighted, compiler, dtype = request.param

    def check(strategy, oracle):
        run = federation(strategy, dtype=dtype, compiler=compiler, weighted=weighted)
        states = run.run(ROUNDS, COHORT)
        assert states[-1].weights.dtype == dtype
        assert difference(states, oracle(problem(run, weighted=weighted))) < TOLERANCE[dtype]

    return check
