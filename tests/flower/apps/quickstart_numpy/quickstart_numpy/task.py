"""quickstart-numpy: A Flower / NumPy app."""

import numpy as np

ROWS, FEATURES = 32, 5
TRUE_WEIGHTS = np.array([1.0, -2.0, 0.5, 3.0, -1.0])


def load_data(partition_id: int, num_partitions: int):
    """Rows of one partition, split into train and test."""
    rng = np.random.default_rng([num_partitions, partition_id])
    x = rng.normal(size=(ROWS, FEATURES)) + partition_id / num_partitions
    y = x @ TRUE_WEIGHTS + 0.1 * rng.normal(size=ROWS)
    cut = int(0.8 * ROWS)
    return (x[:cut], y[:cut]), (x[cut:], y[cut:])


def get_model():
    """Initial weights and bias."""
    return [np.zeros(FEATURES), np.zeros(1)]


def train(weights, data, epochs: int, lr: float, shuffle: bool) -> float:
    """Stochastic gradient descent, row by row."""
    w, b = weights
    x, y = data
    loss = 0.0
    for _ in range(epochs):
        order = np.random.permutation(len(y)) if shuffle else range(len(y))
        for row in order:
            error = x[row] @ w + b[0] - y[row]
            w -= lr * error * x[row] / len(y)
            b -= lr * error / len(y)
            loss += float(error**2)
    return loss / (epochs * len(y))


def test(weights, data) -> float:
    """Mean squared error."""
    w, b = weights
    x, y = data
    return float(np.mean((x @ w + b[0] - y) ** 2))
