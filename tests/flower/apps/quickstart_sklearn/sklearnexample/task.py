"""quickstart-sklearn: A Flower / sklearn app."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

DIGITS, FEATURES = 10, 64


def load_data(partition_id: int, num_partitions: int):
    """Every num_partitions-th digit, split into train and test."""
    x, y = load_digits(return_X_y=True)
    x, y = x[partition_id::num_partitions] / 16.0, y[partition_id::num_partitions]
    cut = int(0.8 * len(x))
    return x[:cut], x[cut:], y[:cut], y[cut:]


def get_model(penalty: str, local_epochs: int):
    return LogisticRegression(penalty=penalty, max_iter=local_epochs, warm_start=True)


def get_model_params(model):
    return [model.coef_, model.intercept_] if model.fit_intercept else [model.coef_]


def set_model_params(model, params):
    model.coef_ = params[0]
    if model.fit_intercept:
        model.intercept_ = params[1]
    return model


def set_initial_params(model):
    """The model is uninitialised until fit() is called, so give it zeros of the right shape."""
    model.classes_ = np.arange(DIGITS)
    model.coef_ = np.zeros((DIGITS, FEATURES))
    if model.fit_intercept:
        model.intercept_ = np.zeros((DIGITS,))
